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
use serde_json::Value;
use std::sync::Arc;

use support::{batch, bigquery, compile, now, print_ratios, read, track, write_by_hand};

/// The same row as the body of any HTTP destination: what is left of the cost without columns and an envelope.
const BODY: &str = r#"
[sources.bench]
write_keys = ["key"]
[destinations.http]
url = "http://127.0.0.1/"
[destinations.http.body]
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

fn by_hand(event: &Value) -> Vec<u8> {
    let mut row = Vec::with_capacity(512);
    write_by_hand(event, &mut row);
    row
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
    let file = bigquery("http://127.0.0.1");
    let (plan, event, message) = (compile(&file), stored(), message());
    let (body, unmatched) = (compile(BODY), compile(&format!("{file}on = \"identify\"\n")));
    let mut group = criterion.benchmark_group("row");
    group.bench_function("mapped", |b| b.iter(|| map(&plan, black_box(&message), &event)));
    group.bench_function("body", |b| b.iter(|| map(&body, black_box(&message), &event)));
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
        ("row/body", "row/by_hand", None),
        ("read/one", "read/one_value", Some(1.0)),
        ("read/hundred", "read/hundred_value", Some(1.0)),
        ("filter/jsonpath", "row/by_hand", Some(0.15)),
        ("filter/minijinja", "row/by_hand", Some(0.15)),
        ("row/no_match", "row/by_hand", Some(0.1)),
    ]);
}
