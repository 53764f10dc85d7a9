//! The files we ship are right: they pass the check, and they make the requests that their fixtures expect.
//!
//! A fixture in `tests/fixtures/examples/` is a list of cases for the example of its name: variables, events as an SDK
//! sends them, and the requests they should cause, each a subset: what is not named is not checked, `"<absent>"` demands
//! absence. Or an answer of the service, and what should become of each event.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use libroseg::attempt::Outcome;
use libroseg::config::{self, Environment, Style, Unset};
use libroseg::event::{Event, MessageId, SourceName};
use libroseg::plan::pack::Packer;
use libroseg::plan::{Batch, Plan, Reply, Request};
use libroseg::segment::{Arrival, Call, Envelope, Limits};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::support::Binary;

#[derive(Deserialize)]
struct Case {
    name: String,
    destination: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
    now: Option<String>,
    #[serde(default)]
    events: Vec<Value>,
    expect: Option<Vec<Value>>,
    respond: Option<Value>,
    #[serde(default)]
    outcome: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

/// The variables that a file names, each with a value that suits an address.
fn variables(text: &str) -> BTreeMap<String, String> {
    let is_part = |c: &char| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_';
    let names = text.split("env.").skip(1).map(|rest| rest.chars().take_while(is_part).collect::<String>());
    let value = |name: &str| if name.ends_with("_URL") { "https://example.com" } else { "example.com" };
    names.filter(|name| !name.is_empty()).map(|name| (name.clone(), value(&name).to_owned())).collect()
}

#[test]
fn every_shipped_file_passes_the_check_with_its_variables_set() {
    let mut shipped = files("examples/configs", "toml");
    shipped.push(root().join("libroseg.toml"));
    for file in shipped {
        let text = fs::read_to_string(&file).unwrap();
        let output = Binary::command().arg("check").arg(&file).envs(variables(&text)).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_shipped_file_needs_no_variable() {
    let file = root().join("libroseg.toml");
    let output = Binary::command().env_clear().arg("check").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn every_example_makes_the_requests_its_fixture_expects() {
    let examples = files("examples/configs", "toml");
    assert!(examples.len() >= 9);
    for file in examples {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let fixture = root().join(format!("tests/fixtures/examples/{name}.json"));
        let cases: Vec<Case> = serde_json::from_str(&fs::read_to_string(&fixture).unwrap()).unwrap();
        assert!(!cases.is_empty(), "{name} has no case");
        for case in &cases {
            check(&file, case);
        }
    }
}

fn check(file: &Path, case: &Case) {
    let text = fs::read_to_string(file).unwrap();
    let mut env = variables(&text);
    env.extend(case.env.clone());
    // An optional variable that the case does not name is not set.
    env.retain(|name, _| case.env.contains_key(name) || case.env.is_empty());
    let plan = compile(file, &text, env);
    let context = format!("{}: {}", file.display(), case.name);
    if let Some(expected) = &case.expect {
        let requests: Vec<Value> = requests(&plan, case).iter().map(as_json).collect();
        assert_eq!(requests.len(), expected.len(), "{context}: {requests:#?}");
        for (request, expected) in requests.iter().zip(expected) {
            assert_subset(request, expected, &context);
        }
    }
    if let Some(answer) = &case.respond {
        assert_eq!(outcomes(&plan, case, answer), case.outcome, "{context}");
    }
}

fn compile(file: &Path, text: &str, variables: BTreeMap<String, String>) -> Plan {
    let environment = Environment { variables, read_file: &|path| fs::read_to_string(path), unset: Unset::Mistake };
    match config::compile(text, &environment) {
        Ok(compiled) => compiled.plan,
        Err(mistakes) => {
            panic!("{}", config::draw(&file.display().to_string(), text, &mistakes, Style::Plain, 120))
        }
    }
}

impl Case {
    fn now(&self) -> Timestamp {
        self.now.as_deref().unwrap_or("2026-01-02T03:04:10Z").parse().unwrap()
    }
}

fn read(case: &Case) -> Vec<Event> {
    let body = json!({ "batch": case.events }).to_string();
    let limits = Limits::default();
    let envelope = Envelope::parse(body.as_bytes(), Call::Batch, &limits).unwrap();
    let source = SourceName::from("test");
    let new_id = || MessageId::from("made");
    let arrival = Arrival {
        source: &source,
        received_at: case.now(),
        ip: None,
        user_agent: None,
        limits: &limits,
        new_id: &new_id,
    };
    let reading = envelope.read(&arrival);
    // The fixtures test mappings; an event without a user is still an event to a mapping.
    assert!(reading.discards.is_empty(), "{}: {:?}", case.name, reading.discards);
    reading.events
}

fn requests(plan: &Plan, case: &Case) -> Vec<Request> {
    let destination = plan.destination(&case.destination.as_str().into()).unwrap();
    let mut packer: Packer<()> = Packer::new(Arc::clone(destination));
    let mut batches: Vec<Batch<()>> = Vec::new();
    for event in read(case) {
        let message = event.open().unwrap();
        let Some(matches) = destination.select(&message, case.now()).unwrap() else { continue };
        for item in destination.render(&matches, &event.message_id).unwrap() {
            batches.extend(packer.push(item, (), case.now()));
        }
    }
    batches.extend(packer.flush());
    batches.iter().map(|batch| destination.request(batch, case.now()).unwrap()).collect()
}

fn as_json(request: &Request) -> Value {
    let wire = request.body.as_ref().map(|body| String::from_utf8(body.to_vec()).unwrap());
    let headers: serde_json::Map<String, Value> =
        request.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let body: Value = wire.as_ref().and_then(|wire| serde_json::from_str(wire).ok()).unwrap_or_default();
    json!({ "method": request.method, "url": request.url, "headers": headers, "body": body, "wire": wire })
}

/// Objects may have more members than expected; lists may not be longer.
fn assert_subset(actual: &Value, expected: &Value, place: &str) {
    match (actual, expected) {
        (Value::Object(members), Value::Object(wanted)) => {
            for (key, value) in wanted {
                let place = format!("{place} / {key}");
                if value == "<absent>" {
                    assert!(!members.contains_key(key), "{place}: is {}", members[key]);
                } else {
                    assert_subset(members.get(key).unwrap_or(&Value::Null), value, &place);
                }
            }
        }
        (Value::Array(elements), Value::Array(wanted)) => {
            assert_eq!(elements.len(), wanted.len(), "{place}: {actual}");
            for (index, (element, value)) in elements.iter().zip(wanted).enumerate() {
                assert_subset(element, value, &format!("{place} / {index}"));
            }
        }
        (Value::Number(a), Value::Number(b)) => assert_eq!(a.as_f64(), b.as_f64(), "{place}"),
        (actual, expected) => assert_eq!(actual, expected, "{place}"),
    }
}

fn outcomes(plan: &Plan, case: &Case, answer: &Value) -> Vec<String> {
    let destination = plan.destination(&case.destination.as_str().into()).unwrap();
    let status = u16::try_from(answer["status"].as_u64().unwrap()).unwrap();
    let reply = Reply::Answered { status, headers: Vec::new(), body: answer["body"].to_string().into() };
    let word = |outcome: Outcome| match outcome {
        Outcome::Delivered => "ok",
        Outcome::Dropped => "drop",
        Outcome::Failed(_) => "retry",
        Outcome::Split(_) => "split",
        Outcome::Unauthorized(_) => "pause",
        Outcome::Refused(_) => "dead",
    };
    destination
        .judge(&reply, case.outcome.len(), case.now())
        .into_iter()
        .map(|outcome| word(outcome).to_owned())
        .collect()
}
