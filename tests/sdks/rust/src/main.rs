//! Drives the `segment` crate: one call of each type to its own path (no `type` in the body, and once no message id),
//! then all calls in batches whose context is on the envelope. The key is in the header only.

use std::{collections::HashSet, error::Error, path::Path, process::ExitCode, time::Duration};

use segment::{
    AutoBatcher, Batcher, Client, HttpClient, Message,
    message::{Alias, BatchMessage, Group, Identify, Page, Screen, Track, User},
};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A driver that is not done by now never will be.
const DEADLINE: Duration = Duration::from_secs(90);

/// Calls in a batch; by itself the crate flushes at 500 KiB only.
const BATCH_CALLS: usize = 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut sent = Vec::new();
    let errors: Vec<String> = match tokio::time::timeout(DEADLINE, drive(&mut sent)).await {
        Ok(Ok(())) => Vec::new(),
        Ok(Err(error)) => vec![error.to_string()],
        Err(_) => vec![format!("not done after {DEADLINE:?}")],
    };
    println!("{}", json!({ "sdk": "rust", "sent": sent, "errors": errors }));
    if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn drive(sent: &mut Vec<Value>) -> Result<(), Box<dyn Error>> {
    let (endpoint, write_key) = (arg("--endpoint")?, arg("--write-key")?);
    let http = HttpClient::new(reqwest::Client::new(), endpoint);
    let context = json!({ "library": { "name": "segment-rust", "version": "0.2.6" } });
    let calls = calls()?;

    let mut types = HashSet::new();
    for call in calls.iter().filter(|call| types.insert(call["type"].clone())) {
        let mut call = with_message_id(call, "rust-single");
        sent.push(summary(&call));
        call["context"]["library"] = context["library"].clone();
        http.send(write_key.clone(), single(message(&call)?)).await?;
    }
    let mut bare = json!({ "id": "bare", "type": "track", "anonymousId": "anon-1", "event": "Bare", "properties": {} });
    bare["context"] = context.clone();
    http.send(write_key.clone(), single(message(&bare)?)).await?;
    sent.push(summary(&bare));

    let mut batches = AutoBatcher::new(http, Batcher::new(Some(context)), write_key);
    for batch in calls.chunks(BATCH_CALLS) {
        for call in batch {
            let call = with_message_id(call, "rust");
            sent.push(summary(&call));
            batches.push(message(&call)?).await?;
        }
        batches.flush().await?;
    }
    Ok(())
}

/// The value after `name` on the command line.
fn arg(name: &str) -> Result<String, String> {
    let value = std::env::args().skip_while(|arg| arg != name).nth(1);
    value.ok_or_else(|| "usage: --endpoint http://127.0.0.1:PORT --write-key KEY".to_owned())
}

/// The calls of calls.json and its extra tracks.
fn calls() -> Result<Vec<Value>, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calls.json");
    let script: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let mut calls = script["calls"].as_array().ok_or("calls.json has no calls")?.clone();
    let user_id = calls.iter().find(|call| call["id"] == "track").map(|call| call["userId"].clone());
    for n in 0..script["extras"].as_u64().unwrap_or_default() {
        let properties = json!({ "n": n, "total": n as f64 + 0.5 });
        let id = format!("extra-{n}");
        calls.push(json!({ "id": id, "type": "track", "userId": user_id, "event": "Extra", "properties": properties }));
    }
    for call in calls.iter_mut().filter(|call| call["id"] == "native") {
        add_native_values(&mut call["properties"]);
    }
    Ok(calls)
}

/// Values that only Rust can hold; tests/it/sdks.rs knows what they must become.
fn add_native_values(properties: &mut Value) {
    properties["u64_max"] = json!(u64::MAX);
    properties["i64_min"] = json!(i64::MIN);
    properties["above_safe"] = json!((1_u64 << 53) + 1);
    properties["nan"] = json!(f64::NAN);
    properties["deep"] = (0..64).fold(json!("bottom"), |inner, _| json!({ "d": inner }));
}

fn with_message_id(call: &Value, prefix: &str) -> Value {
    let mut call = call.clone();
    call["messageId"] = json!(format!("{prefix}-{}", call["id"].as_str().unwrap_or_default()));
    call
}

/// What the test wants to know of a call.
fn summary(call: &Value) -> Value {
    let keys = ["id", "type", "messageId", "userId", "anonymousId", "event", "name"];
    keys.iter().filter_map(|key| Some((key.to_string(), call.get(key)?.clone()))).collect::<Map<_, _>>().into()
}

/// A call as the crate's type; what its types have no field for goes into `extra`, which it flattens.
fn message(call: &Value) -> Result<BatchMessage, Box<dyn Error>> {
    let text = |key: &str| call[key].as_str().unwrap_or_default().to_owned();
    let value = |key: &str| call.get(key).cloned();
    let extra = |keys: &[&str]| -> Map<String, Value> {
        keys.iter().filter_map(|key| Some((key.to_string(), value(key)?))).collect()
    };
    let user = match (value("userId"), value("anonymousId")) {
        (Some(_), Some(_)) => User::Both { user_id: text("userId"), anonymous_id: text("anonymousId") },
        (Some(_), None) => User::UserId { user_id: text("userId") },
        (None, _) => User::AnonymousId { anonymous_id: text("anonymousId") },
    };
    let timestamp = call["timestamp"].as_str().map(|text| OffsetDateTime::parse(text, &Rfc3339)).transpose()?;
    let (properties, traits) = (call["properties"].clone(), call["traits"].clone());
    let (context, integrations) = (value("context"), value("integrations"));
    let (name, id) = (text("name"), extra(&["messageId"]));
    Ok(match call["type"].as_str() {
        Some("identify") => Identify { user, traits, timestamp, context, integrations, extra: id }.into(),
        Some("track") => {
            Track { user, event: text("event"), properties, timestamp, context, integrations, extra: id }.into()
        }
        Some("page") => {
            let extra = extra(&["messageId", "category"]);
            Page { user, name, properties, timestamp, context, integrations, extra }.into()
        }
        Some("screen") => Screen { user, name, properties, timestamp, context, integrations, extra: id }.into(),
        Some("group") => {
            Group { user, group_id: text("groupId"), traits, timestamp, context, integrations, extra: id }.into()
        }
        Some("alias") => {
            Alias { user, previous_id: text("previousId"), timestamp, context, integrations, extra: id }.into()
        }
        other => return Err(format!("no such type: {other:?}").into()),
    })
}

/// The same call for a path of its own.
fn single(message: BatchMessage) -> Message {
    match message {
        BatchMessage::Identify(call) => call.into(),
        BatchMessage::Track(call) => call.into(),
        BatchMessage::Page(call) => call.into(),
        BatchMessage::Screen(call) => call.into(),
        BatchMessage::Group(call) => call.into(),
        BatchMessage::Alias(call) => call.into(),
    }
}
