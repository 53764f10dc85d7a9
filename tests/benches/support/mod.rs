//! What the benches share: a realistic event, a compiled file, and ratios against the baseline of the same run.

#![allow(dead_code, reason = "each bench uses its own part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use libroseg::config::{self, Environment};
use libroseg::event::{Event, Kind, Message, MessageId, SourceName};
use libroseg::plan::Plan;
use libroseg::segment::{Arrival, Call, Envelope, Limits, Reading};
use serde::Serialize;
use serde_json::{Value, json};

/// The same row as the body of any HTTP destination: what is left of the cost without columns and an envelope.
pub(crate) const BODY: &str = r#"
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

/// A track call as a browser sends it, some 700 bytes.
pub(crate) fn track(n: usize) -> Value {
    json!({
        "timestamp": "2026-11-22T21:05:57.608Z",
        "integrations": { "Segment.io": true },
        "event": "Order Completed",
        "type": "track",
        "properties": { "order_id": format!("o-{n}"), "total": 249.5, "currency": "EUR", "coupon": null, "tags": ["a", "b"],
            "products": [{ "product_id": "p1", "name": "Mug", "price": 4.75, "quantity": 2 }] },
        "userId": format!("user-{n}"),
        "context": { "page": { "path": "/academy/", "referrer": "", "search": "", "title": "Academy",
            "url": "https://example.com/academy/" }, "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
            "locale": "en-US", "library": { "name": "analytics.js", "version": "next-1.84.3" } },
        "messageId": format!("ajs-next-1795381557600-{n:036}"),
        "anonymousId": "f6cd870b-2073-41ba-be41-65d238d50e0d",
    })
}

pub(crate) fn batch(events: usize) -> String {
    let events: Vec<Value> = (0..events).map(track).collect();
    json!({ "writeKey": "key", "sentAt": "2026-11-22T21:05:58.000Z", "batch": events }).to_string()
}

pub(crate) fn now() -> Timestamp {
    "2026-11-22T21:05:58.250Z".parse().expect("a timestamp")
}

pub(crate) fn read(body: &[u8], call: Call, limits: &Limits) -> Reading {
    let envelope = Envelope::parse(body, call, limits).expect("a body that can be read");
    let source = SourceName::from("bench");
    envelope.read(&Arrival {
        source: &source,
        received_at: now(),
        ip: None,
        user_agent: None,
        limits,
        plans: None,
        new_id: &|| MessageId::from("made"),
    })
}

/// A track call as the queue holds it.
pub(crate) fn stored() -> Event {
    let mut reading = read(track(1).to_string().as_bytes(), Call::One(Kind::Track), &Limits::default());
    reading.events.remove(0)
}

/// Track calls as the queue holds them.
pub(crate) fn several(events: usize) -> Vec<Event> {
    read(batch(events).as_bytes(), Call::Batch, &Limits { batch_bytes_max: 4 << 20, ..Limits::default() }).events
}

/// One of them, opened for the rules.
pub(crate) fn message() -> Message {
    stored().open().expect("a stored event opens")
}

/// Has a plan's only destination make its only item of an event; answers how many bytes it has.
pub(crate) fn map(plan: &Plan, message: &Message, event: &Event) -> usize {
    let destination = &plan.destinations[0];
    let matches = destination.select(message, now()).expect("the filters run").expect("a rule matches");
    let items = destination.render(&matches, &event.message_id).expect("the mapping runs");
    items[0].size_bytes()
}

pub(crate) fn compile(text: &str) -> Plan {
    let no_file = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let environment = Environment { variables: BTreeMap::new(), read_file: &no_file, ..Environment::default() };
    match config::compile(text, &environment) {
        Ok(compiled) => compiled.plan,
        Err(mistakes) => panic!("{mistakes:?}"),
    }
}

/// A file with the shipped preset for BigQuery, sent to a server that wants no token.
pub(crate) fn bigquery(endpoint: &str) -> String {
    format!(
        "[sources.bench]\nwrite_keys = [\"key\"]\n[destinations.bigquery]\nextends = \"bigquery\"\nendpoint = \"{endpoint}\"\n\
         project = \"acme\"\ndataset = \"events\"\ntable = \"all\"\ncredentials = false\n"
    )
}

/// The preset's row, as a person would write it in Rust.
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

/// What `insertAll` has of a row.
#[derive(Serialize)]
struct Insert<'a> {
    #[serde(rename = "insertId")]
    id: &'a str,
    json: Row<'a>,
}

/// Appends the row of an event, as `insertAll` wants it.
pub(crate) fn write_by_hand(event: &Value, out: &mut Vec<u8>) {
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
    serde_json::to_writer(out, &Insert { id: row.message_id, json: row }).expect("a row is JSON");
}

/// The row of an event, alone.
pub(crate) fn by_hand(event: &Value) -> Vec<u8> {
    let mut row = Vec::with_capacity(512);
    write_by_hand(event, &mut row);
    row
}

/// Prints how the medians of the run just made compare to their baselines, and the goal where there is one.
pub(crate) fn print_ratios(rows: &[(&str, &str, Option<f64>)]) {
    println!(
        "\n{:<44} {:>12} {:>12} {:>8} {:>8}",
        "ratio to the baseline of this run", "ours ns", "baseline ns", "ratio", "goal"
    );
    for (ours, baseline, goal) in rows {
        match (median_ns(ours), median_ns(baseline)) {
            (Some(a), Some(b)) => {
                let goal = goal.map_or_else(String::new, |goal| format!("{goal:>8.2}"));
                println!("{ours:<44} {a:>12.0} {b:>12.0} {:>8.2} {goal}", a / b);
            }
            _ => println!("{ours:<44} not measured in this run"),
        }
    }
}

fn median_ns(bench: &str) -> Option<f64> {
    let text = std::fs::read_to_string(home().join(bench).join("new/estimates.json")).ok()?;
    let estimates: Value = serde_json::from_str(&text).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}

fn home() -> PathBuf {
    std::env::var_os("CRITERION_HOME").map_or_else(|| target().join("criterion"), PathBuf::from)
}

/// The folder in which everything that is made is made.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

/// User and system time of this process, or of one of its threads, from proc(5): fields 14 and 15, of which the name in
/// parentheses is the second. Threads are named as in `/proc`: `self`, `42/task/43`.
pub(crate) fn cpu_seconds(whose: &str) -> Option<f64> {
    /// What Linux counts in on every architecture that Rust runs on, whatever its timer does.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{whose}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}
