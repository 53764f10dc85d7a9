//! `cargo bench --bench rules`: reading, filtering and mapping, each beside what it is measured against.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

mod support;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use libroseg::event::Event;
use libroseg::event::{Kind, Message};
use libroseg::expr::filter::Filter;
use libroseg::expr::template::Template;
use libroseg::expr::{Names, Scope};
use libroseg::plan::Plan;
use libroseg::segment::{Call, Limits};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

use support::{batch, compile, now, print_ratios, read, track};

const ROW: &str = r#"
[sources.bench]
write_keys = ["key"]
[destinations.bigquery]
url = "http://127.0.0.1/insertAll"
[destinations.bigquery.body]
message_id   = "{{ messageId }}"
timestamp    = "{{ timestamp }}"
type         = "{{ type }}"
user_id      = "{{ userId }}"
anonymous_id = "{{ anonymousId }}"
event        = "{{ event }}"
properties   = "{{ (properties or {}) | json }}"
context      = "{{ (context or {}) | json }}"
traits       = "{{ (traits or {}) | json }}"
"#;

/// The blueprint's row, as a person would write it in Rust.
#[derive(Serialize)]
struct Row<'a> {
    message_id: &'a str,
    timestamp: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anonymous_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    properties: String,
    context: String,
    traits: String,
}

fn by_hand(event: &Value) -> Vec<u8> {
    let text = |key: &str| event.get(key).and_then(Value::as_str);
    let json = |key: &str| event.get(key).map_or_else(|| "{}".to_owned(), Value::to_string);
    let row = Row {
        message_id: text("messageId").unwrap_or_default(),
        timestamp: text("timestamp").unwrap_or_default(),
        kind: text("type").unwrap_or_default(),
        user_id: text("userId"),
        anonymous_id: text("anonymousId"),
        event: text("event"),
        properties: json("properties"),
        context: json("context"),
        traits: json("traits"),
    };
    serde_json::to_vec(&row).expect("a row is JSON")
}

fn stored() -> Event {
    let mut reading = read(track(1).to_string().as_bytes(), Call::One(Kind::Track), &Limits::default());
    reading.events.remove(0)
}

fn message() -> Message {
    stored().open().expect("a stored event opens")
}

fn map(plan: &Plan, message: &Message, event: &Event) -> usize {
    let destination = &plan.destinations[0];
    let matches = destination.select(message, now()).expect("the filters run").expect("a rule matches");
    let items = destination.render(&matches, &event.message_id).expect("the mapping runs");
    items[0].size_bytes()
}

fn reading(criterion: &mut Criterion) {
    let limits = Limits { batch_bytes_max: 4 << 20, ..Limits::default() };
    let one = track(1).to_string();
    let hundred = batch(100);
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Bytes(one.len() as u64));
    group.bench_function("one", |b| b.iter(|| read(black_box(one.as_bytes()), Call::One(Kind::Track), &limits)));
    group.bench_function("one_value", |b| b.iter(|| serde_json::from_str::<Value>(black_box(&one))));
    group.throughput(Throughput::Elements(100));
    group.bench_function("hundred", |b| b.iter(|| read(black_box(hundred.as_bytes()), Call::Batch, &limits)));
    group.bench_function("hundred_value", |b| b.iter(|| serde_json::from_str::<Value>(black_box(&hundred))));
    group.finish();
}

fn filtering(criterion: &mut Criterion) {
    let message = message();
    let filter = Filter::parse("$.properties.total >= 100 && $.properties.currency == 'EUR'").expect("a filter");
    let search = Filter::parse("search($.context.page.url, 'academy/?$')").expect("a filter");
    let template =
        Template::parse("{{ properties.total >= 100 and properties.currency == 'EUR' }}").expect("a template");
    let names = Arc::new(Names::default());
    let mut group = criterion.benchmark_group("filter");
    group.bench_function("jsonpath", |b| b.iter(|| filter.matches(black_box(&message.value))));
    group.bench_function("jsonpath_search", |b| b.iter(|| search.matches(black_box(&message.value))));
    group.bench_function("minijinja", |b| {
        b.iter(|| template.is_true(&Scope::event(&names, black_box(&message), now())).expect("it runs"));
    });
    group.finish();
}

fn mapping(criterion: &mut Criterion) {
    let (plan, event, message) = (compile(ROW), stored(), message());
    let unmatched =
        compile(&ROW.replace("[destinations.bigquery.body]", "on = \"identify\"\n[destinations.bigquery.body]"));
    let mut group = criterion.benchmark_group("row");
    group.bench_function("mapped", |b| b.iter(|| map(&plan, black_box(&message), &event)));
    group.bench_function("by_hand", |b| b.iter(|| by_hand(black_box(&message.value))));
    group.bench_function("no_match", |b| {
        b.iter(|| unmatched.destinations[0].select(black_box(&message), now()).expect("it runs").is_none());
    });
    group.bench_function("opened_and_mapped", |b| {
        b.iter_batched(
            || event.clone(),
            |event| map(&plan, &event.open().expect("it opens"), &event),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, reading, filtering, mapping);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    print_ratios(&[
        ("row/mapped", "row/by_hand", Some(1.5)),
        ("read/one", "read/one_value", Some(1.0)),
        ("read/hundred", "read/hundred_value", Some(1.0)),
        ("filter/jsonpath", "row/by_hand", Some(0.15)),
        ("filter/minijinja", "row/by_hand", Some(0.15)),
        ("row/no_match", "row/by_hand", Some(0.1)),
    ]);
}
