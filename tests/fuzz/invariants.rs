//! What holds for every input, whoever makes it: a fuzzer, or `tests/it/seeds.rs` with the inputs worth keeping.
//!
//! Each function takes bytes and panics when a promise is broken.

#![allow(dead_code, reason = "each target breaks its own promises")]
#![allow(clippy::unwrap_used, reason = "a panic is a finding")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use libroseg::config::{self, Compiled, Diagnostic, Environment, Style};
use libroseg::event::{Event, Kind, Message, MessageId, SourceName};
use libroseg::plan::pack::Packer;
use libroseg::plan::{Destination, Plan, Reply, Request};
use libroseg::segment::{Arrival, Call, Envelope, Limits};
use url::Url;

/// What separates the file, the event, the answer's status and its body in an input of [`requests`].
const CUT: &str = "\n---\n";

/// An event of every call, with fields that examples read.
const EVENTS: [&str; 3] = [
    r#"{"type":"track","event":"Order Completed","userId":"u/1","messageId":"m1","timestamp":"2026-01-02T03:04:05Z","properties":{"total":9.5,"currency":"EUR","email":"a@b.c","products":[{"sku":"a","price":1,"quantity":2},{"sku":"b"}],"tags":["x"],"null":null},"context":{"ip":"203.0.113.7","traits":{"email":"A@b.c"},"page":{"url":"https://x.y/z?a=1"}}}"#,
    r#"{"type":"identify","anonymousId":"..","messageId":"m2","traits":{"email":"line\nbreak","age":-1.5e300,"":{"a":[]}},"integrations":{"All":false}}"#,
    r#"{"type":"page","name":"é","userId":"","messageId":"m3","properties":[],"context":null}"#,
];

// === a file ===

/// A file compiles the same way twice; its mistakes lie in it, can be drawn, and their suggestions can be applied.
pub(crate) fn plan(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let again = compile(text);
    match compile(text) {
        Ok(compiled) => {
            check_diagnostics(text, &compiled.warnings);
            assert!(!compiled.warnings.iter().any(Diagnostic::is_error));
            let again = again.unwrap_or_else(|_| panic!("compiles every other time")).plan;
            assert_eq!(compiled.plan.fingerprint, again.fingerprint);
            for event in EVENTS {
                check_walk(&compiled.plan, &again, &serde_json::from_str(event).unwrap());
            }
        }
        Err(mistakes) => {
            check_diagnostics(text, &mistakes);
            assert!(mistakes.iter().any(Diagnostic::is_error));
            assert_eq!(Some(mistakes), again.err());
        }
    }
}

fn compile(text: &str) -> Result<Compiled, Vec<Diagnostic>> {
    let read_file = |_: &Path| Ok("the-secret-of-a-file\n".to_owned());
    config::compile(text, &Environment { variables: variables(text), read_file: &read_file, ..Environment::default() })
}

/// The variables that a file names: some are an address, some a word, some not set.
fn variables(text: &str) -> BTreeMap<String, String> {
    let is_part = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let names = text.split("env.").skip(1).map(|rest| rest.chars().take_while(is_part).collect::<String>());
    let value = |name: &str| match name {
        _ if name.ends_with("_URL") => "https://example.com",
        _ if name.ends_with('X') => "",
        _ => "a-value",
    };
    let names = names.filter(|name| !name.is_empty() && !name.ends_with('Z'));
    names.map(|name| (name.clone(), value(&name).to_owned())).collect()
}

fn check_diagnostics(text: &str, diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        assert!(text.get(diagnostic.span.clone()).is_some(), "{diagnostic:?}");
        assert!(!diagnostic.message.is_empty(), "{diagnostic:?}");
        if let Some(suggestion) = &diagnostic.suggestion {
            assert!(text.get(suggestion.span.clone()).is_some(), "{diagnostic:?}");
            let mut mended = text.to_owned();
            mended.replace_range(suggestion.span.clone(), &suggestion.replacement);
            assert_ne!(mended, text, "{diagnostic:?}");
        }
    }
    for (style, width) in [(Style::Plain, 0), (Style::Ansi, 120)] {
        let drawn = config::draw("libroseg.toml", text, diagnostics, style, width);
        assert_eq!(drawn.is_empty(), diagnostics.is_empty());
        assert!(style == Style::Ansi || !drawn.contains('\u{1b}'), "a terminal would obey");
    }
}

// === a file, an event and an answer ===

/// An input is a file, an event, a status and a body, with [`CUT`] between them.
pub(crate) fn requests(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut parts = text.splitn(4, CUT);
    let (Some(file), Some(event)) = (parts.next(), parts.next()) else { return };
    let Ok(compiled) = compile(file) else { return };
    let again = compile(file).unwrap_or_else(|_| panic!("compiles every other time"));
    if let Ok(event) = serde_json::from_str(event) {
        check_walk(&compiled.plan, &again.plan, &event);
    }
    let status = parts.next().and_then(|status| status.parse().ok()).unwrap_or(200);
    let body = parts.next().unwrap_or_default().to_owned();
    for destination in &compiled.plan.destinations {
        check_judgement(destination, status, body.clone());
    }
}

/// The same plan sends the same of the same event, and to nowhere but where the file says.
fn check_walk(plan: &Plan, again: &Plan, event: &serde_json::Value) {
    for (destination, other) in plan.destinations.iter().zip(&again.destinations) {
        let sent = walk(destination, event);
        assert_eq!(sent, walk(other, event), "{}", destination.name);
        for request in sent.iter().flatten() {
            check_request(destination, request);
        }
    }
}

/// The requests of an event, or why it is a dead letter.
fn walk(destination: &Arc<Destination>, event: &serde_json::Value) -> Result<Vec<Request>, String> {
    let message = Message { source: "web".into(), value: Arc::new(event.clone()) };
    let mut packer = Packer::new(Arc::clone(destination));
    let mut batches = Vec::new();
    drop(destination.order_key(&message, now()));
    if let Some(matches) = destination.select(&message, now()).map_err(|error| error.to_string())? {
        for item in destination.render(&matches, &MessageId::from("m1")).map_err(|error| error.to_string())? {
            batches.extend(packer.push(item, (), now()));
        }
    }
    batches.extend(packer.flush());
    let request = |batch| destination.request(batch, now()).map_err(|error| error.to_string());
    // Where a token comes from is one of a kind; what it is asked with shows in the fingerprint.
    batches.iter().map(|batch| Ok(Request { token: None, ..request(batch)? })).collect()
}

fn check_request(destination: &Destination, request: &Request) {
    for (name, value) in &request.headers {
        assert!(!value.contains(['\r', '\n', '\0']), "{name} ends early");
    }
    if request.url.is_empty() {
        return;
    }
    let address = |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port());
    let own: Vec<_> = destination
        .rules
        .iter()
        .filter_map(|rule| {
            let endpoint = rule.request.insert.as_ref().map(|insert| insert.table.endpoint.as_str());
            let written = endpoint.or_else(|| Some(rule.request.url.as_ref()?.constant_prefix()))?;
            Some(address(&written.parse().ok()?))
        })
        .collect();
    let url: Url = request.url.parse().unwrap_or_else(|error| panic!("{}: {error}", request.url));
    assert!(own.contains(&address(&url)), "{url} is none of {own:?}");
}

/// Every item hears something, and the same thing twice.
fn check_judgement(destination: &Destination, status: u16, body: String) {
    let reply =
        Reply::Answered { status, headers: vec![("retry-after".into(), "soon".into())], body: body.into(), news: None };
    for items in [1, 3] {
        let outcomes = destination.judge(&reply, items, now());
        assert_eq!(outcomes.len(), items);
        assert_eq!(outcomes, destination.judge(&reply, items, now()));
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_767_323_050).unwrap()
}

// === a body at the door ===

/// What is read of a body is JSON, has an id, and is the same when it is read again.
pub(crate) fn events(data: &[u8]) {
    for call in [Call::Batch, Call::One(Kind::Track), Call::One(Kind::Identify)] {
        let (events, discards) = read(data, call);
        assert_eq!((events.clone(), discards), read(data, call));
        for event in events {
            check_event(&event);
        }
    }
}

fn read(data: &[u8], call: Call) -> (Vec<Event>, usize) {
    let limits = Limits::default();
    let Ok(envelope) = Envelope::parse(data, call, &limits) else { return (Vec::new(), 0) };
    let source = SourceName::from("web");
    let new_id = || MessageId::from("made");
    let arrival = Arrival {
        source: &source,
        received_at: now(),
        ip: None,
        user_agent: None,
        limits: &limits,
        plans: None,
        new_id: &new_id,
    };
    let reading = envelope.read(&arrival);
    (reading.events, reading.discards.len())
}

fn check_event(event: &Event) {
    let message = event.open().unwrap_or_else(|error| panic!("{event:?}: {error}"));
    let text = |key: &str| message.value[key].as_str().map(str::to_owned);
    assert_eq!(text("type").as_deref(), Some(event.kind.as_str()));
    assert_eq!(text("messageId").as_deref(), Some(event.message_id.as_str()));
    assert!(!event.message_id.as_str().is_empty());
    assert!(message.value.get("writeKey").is_none(), "a key is kept from everybody");
    assert!(!event.json.contains(&b'\n') || serde_json::from_slice::<serde_json::Value>(&event.json).is_ok());
}
