//! What the wire contract promises, from bodies in to events out.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::cell::Cell;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const RECEIVED: &str = "2026-11-22T22:00:00.123Z";

/// A server that hears bodies: its answers are what `read` makes of them.
struct Server {
    limits: Limits,
    ip: Option<IpAddr>,
    user_agent: Option<&'static str>,
}

/// What became of one body.
#[derive(Debug)]
struct Heard {
    events: Vec<Event>,
    discards: Vec<Discard>,
    write_key: Option<String>,
}

// === impl Server ===

impl Server {
    fn new() -> Self {
        Self { limits: Limits::default(), ip: Some([203, 0, 113, 7].into()), user_agent: Some("Browser/1.0") }
    }

    fn try_hear(&self, call: Call, body: &[u8]) -> Result<Heard, Rejection> {
        let made = Cell::new(0);
        let new_id = || {
            made.set(made.get() + 1);
            MessageId::from(format!("made-{}", made.get()))
        };
        let envelope = Envelope::parse(body, call, &self.limits)?;
        let reading = envelope.read(&Arrival {
            source: &SourceName::from("web"),
            received_at: RECEIVED.parse().unwrap(),
            ip: self.ip,
            user_agent: self.user_agent,
            limits: &self.limits,
            plans: None,
            new_id: &new_id,
        });
        let write_key = envelope.write_key().map(str::to_owned);
        Ok(Heard { events: reading.events, discards: reading.discards, write_key })
    }

    fn hear(&self, call: Call, body: &[u8]) -> Heard {
        self.try_hear(call, body).unwrap()
    }
}

// === impl Heard ===

impl Heard {
    fn values(&self) -> Vec<Value> {
        self.events.iter().map(opened).collect()
    }

    fn codes(&self) -> Vec<(usize, &'static str)> {
        self.discards.iter().map(|discard| (discard.index, discard.code.as_str())).collect()
    }
}

fn opened(event: &Event) -> Value {
    let value: Value = serde_json::from_slice(&event.json).unwrap();
    assert_eq!(value["messageId"], event.message_id.as_str());
    assert_eq!(value["type"], event.kind.as_str());
    assert_eq!(value["receivedAt"].as_str().unwrap().parse::<Timestamp>().unwrap(), event.received_at);
    assert_eq!(value.get("writeKey"), None);
    for name in ["timestamp", "originalTimestamp"] {
        assert!(value[name].as_str().unwrap().parse::<Timestamp>().is_ok(), "{value}");
    }
    value
}

/// The one event of a batch of one.
#[track_caller]
fn event(body: &str) -> Value {
    let heard = batch(&format!("{{\"batch\":[{body}]}}"));
    assert_eq!(heard.codes(), [], "{body}");
    heard.values().remove(0)
}

/// The code that a batch of one earns.
#[track_caller]
fn code(body: &str) -> &'static str {
    let heard = batch(&format!("{{\"batch\":[{body}]}}"));
    assert_eq!(heard.events.len(), 0, "{body}");
    heard.codes()[0].1
}

fn batch(body: &str) -> Heard {
    Server::new().hear(Call::Batch, body.as_bytes())
}

fn single(kind: Kind, body: &str) -> Value {
    Server::new().hear(Call::One(kind), body.as_bytes()).values().remove(0)
}

fn track(more: &str) -> String {
    format!(r#"{{"type":"track","event":"E","userId":"u"{}{more}}}"#, if more.is_empty() { "" } else { "," })
}

// --- what real SDKs sent

const CAPTURES: [(&str, &str); 8] = [
    ("rudder-node", include_str!("../../tests/fixtures/captures/rudder-node.json")),
    ("segment-browser", include_str!("../../tests/fixtures/captures/segment-browser.json")),
    ("segment-browser-snippet", include_str!("../../tests/fixtures/captures/segment-browser-snippet.json")),
    ("segment-browser-batching", include_str!("../../tests/fixtures/captures/segment-browser-batching.json")),
    (
        "segment-browser-batching-unload",
        include_str!("../../tests/fixtures/captures/segment-browser-batching-unload.json"),
    ),
    ("segment-node", include_str!("../../tests/fixtures/captures/segment-node.json")),
    ("segment-python", include_str!("../../tests/fixtures/captures/segment-python.json")),
    ("segment-rust", include_str!("../../tests/fixtures/captures/segment-rust.json")),
];

fn call_of(path: &str) -> Option<Call> {
    Some(match path.strip_prefix("/v1/")? {
        "batch" | "b" | "import" => Call::Batch,
        "i" | "identify" => Call::One(Kind::Identify),
        "t" | "track" => Call::One(Kind::Track),
        "p" | "page" => Call::One(Kind::Page),
        "s" | "screen" => Call::One(Kind::Screen),
        "g" | "group" => Call::One(Kind::Group),
        "a" | "alias" => Call::One(Kind::Alias),
        _ => return None,
    })
}

/// Every recorded body of messages, unzipped.
fn recorded(capture: &str) -> Vec<(Call, Vec<u8>)> {
    let capture: Value = serde_json::from_str(capture).unwrap();
    let posts = capture["requests"].as_array().unwrap().iter().filter(|request| request["method"] == "POST");
    let body = |request: &Value| {
        let wire = STANDARD.decode(request["rawBase64"].as_str().unwrap()).unwrap();
        if !wire.starts_with(&[0x1f, 0x8b]) {
            return wire;
        }
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(&wire[..]).read_to_end(&mut body).unwrap();
        body
    };
    posts.filter_map(|request| Some((call_of(request["path"].as_str().unwrap())?, body(request)))).collect()
}

#[test]
fn every_recorded_message_is_read() {
    for (name, capture) in CAPTURES {
        for (call, body) in recorded(capture) {
            let sent: Value = serde_json::from_slice(&body).unwrap();
            let messages = sent.get("batch").map_or(vec![sent.clone()], |batch| batch.as_array().unwrap().clone());
            let heard = Server::new().hear(call, &body);
            assert_eq!(heard.codes(), [], "{name}");
            assert_eq!(heard.events.len(), messages.len(), "{name}");
            for (event, message) in heard.values().iter().zip(&messages) {
                assert_keeps(event, message, name);
            }
        }
    }
}

/// What the sender said is still said.
fn assert_keeps(event: &Value, message: &Value, name: &str) {
    for (key, sent) in message.as_object().unwrap() {
        let ours = ["timestamp", "originalTimestamp", "sentAt", "writeKey"].contains(&key.as_str());
        match key.as_str() {
            _ if ours || sent.is_null() => {}
            "context" => {
                let kept = sent.as_object().unwrap().iter().all(|(key, value)| &event["context"][key] == value);
                assert!(kept, "{name}: {key} of {event}");
            }
            _ => assert_eq!(&event[key], sent, "{name}: {key} of {event}"),
        }
    }
}

#[test]
fn the_recorded_write_keys_are_found() {
    for (name, capture) in CAPTURES {
        let expected = (!["rudder-node", "segment-rust"].contains(&name)).then_some("test_write_key");
        for (call, body) in recorded(capture) {
            assert_eq!(Server::new().hear(call, &body).write_key.as_deref(), expected, "{name}");
        }
    }
}

#[test]
fn a_recorded_browser_message_becomes_this_event() {
    let body = r#"{"timestamp":"2026-11-22T21:06:17.734Z","integrations":{"Segment.io":true},"event":"Anonymous Only","type":"track","properties":{"n":1},"context":{"userAgent":"Mozilla/5.0","locale":"en-US","library":{"name":"analytics.js","version":"npm:next-1.84.3"}},"messageId":"ajs-next-1","anonymousId":"9e5c80c0","writeKey":"test_write_key","userId":null,"sentAt":"2026-11-22T21:06:17.739Z","_metadata":{"bundled":["Segment.io"],"unbundled":[],"bundledIds":[]}}"#;
    let heard = Server::new().hear(Call::One(Kind::Track), body.as_bytes());
    insta::assert_snapshot!(std::str::from_utf8(&heard.events[0].json).unwrap(), @r#"{"timestamp":"2026-11-22T22:00:00.118Z","integrations":{"Segment.io":true},"event":"Anonymous Only","type":"track","properties":{"n":1},"context":{"userAgent":"Mozilla/5.0","locale":"en-US","library":{"name":"analytics.js","version":"npm:next-1.84.3"},"ip":"203.0.113.7"},"messageId":"ajs-next-1","anonymousId":"9e5c80c0","sentAt":"2026-11-22T21:06:17.739Z","_metadata":{"bundled":["Segment.io"],"unbundled":[],"bundledIds":[]},"channel":"browser","originalTimestamp":"2026-11-22T21:06:17.734Z","receivedAt":"2026-11-22T22:00:00.123Z"}"#);
}

#[test]
fn a_recorded_server_batch_becomes_these_events() {
    let body = r#"{"batch": [{"integrations": {}, "anonymousId": null, "timestamp": "2026-11-22T21:06:26.797+00:00", "context": {"library": {"name": "analytics-python", "version": "2.4.0"}}, "userId": "u", "type": "track", "event": "Bare", "messageId": "m"}], "sentAt": "2026-11-22T21:06:27.023909+00:00", "writeKey": "K"}"#;
    let heard = batch(body);
    assert_eq!(heard.write_key.as_deref(), Some("K"));
    insta::assert_snapshot!(std::str::from_utf8(&heard.events[0].json).unwrap(), @r#"{"integrations": {},"timestamp":"2026-11-22T21:59:59.896091Z","context": {"library": {"name": "analytics-python", "version": "2.4.0"}}, "userId": "u", "type": "track", "event": "Bare", "messageId": "m","channel":"server","originalTimestamp":"2026-11-22T21:06:26.797Z","sentAt":"2026-11-22T21:06:27.023909Z","receivedAt":"2026-11-22T22:00:00.123Z"}"#);
}

// --- outlines

#[test]
fn a_single_call_takes_its_type_from_the_path() {
    assert_eq!(single(Kind::Page, r#"{"type":"track","userId":"u"}"#)["type"], "page");
    assert_eq!(single(Kind::Track, r#"{"userId":"u","event":"E"}"#)["type"], "track");
}

#[test]
fn what_stands_around_a_batch_lies_under_each_message() {
    let body = json!({
        "context": {"app": {"name": "A"}, "locale": "en"}, "integrations": {"All": false},
        "sentAt": "2026-11-22T22:00:01Z", "messageId": "batch-id",
        "batch": [
            {"type": "track", "event": "E", "userId": "u", "context": {"locale": "de"}, "integrations": {"Mixpanel": true}},
            {"type": "track", "event": "E", "userId": "u", "integrations": []},
        ],
    });
    let values = batch(&body.to_string()).values();
    assert_eq!(values[0]["context"], json!({"locale": "de", "app": {"name": "A"}}));
    assert_eq!(values[0]["integrations"], json!({"Mixpanel": true, "All": false}));
    assert_eq!(values[1]["context"], json!({"app": {"name": "A"}, "locale": "en"}));
    assert_eq!(values[1]["integrations"], json!({"All": false}));
    assert_eq!(values[0]["messageId"], "made-1");
    assert_eq!(values[0]["sentAt"], "2026-11-22T22:00:01.000Z");
}

#[test]
fn what_stands_around_a_batch_counts_when_it_comes_last_or_has_its_keys_disguised() {
    let body = r#"{"batch":[{"type":"track","event":"E","userId":"u","context":{"loc\u0061le":"de"}}],"context":{"locale":"en"}}"#;
    assert_eq!(batch(body).values()[0]["context"], json!({"locale": "de"}));
}

#[test]
fn the_envelope_s_write_key_wins_and_else_the_first_message_s() {
    let one = r#"{"type":"track","event":"E","userId":"u"}"#;
    let keyed = |key: &str| format!(r#"{{"type":"track","event":"E","userId":"u","writeKey":"{key}"}}"#);
    let body = format!(r#"{{"batch":[{one},{},{}]}}"#, keyed("A"), keyed("B"));
    assert_eq!(batch(&body).write_key.as_deref(), Some("A"));
    let body = format!(r#"{{"batch":[{}],"writeKey":"ENV"}}"#, keyed("A"));
    assert_eq!(batch(&body).write_key.as_deref(), Some("ENV"));
    assert_eq!(batch(&format!(r#"{{"batch":[{one}],"writeKey":null}}"#)).write_key, None);
}

#[test]
fn an_empty_batch_is_fine_and_said_to_be_empty() {
    for body in [r#"{"batch":[]}"#, r#"{"batch":null}"#, r#"{"batch":{}}"#, r#"{"batch":""}"#, "[]", "\u{feff}[ ]\n\0"]
    {
        assert_eq!(batch(body).codes(), [(0, "empty_batch")], "{body}");
    }
}

#[test]
fn a_bare_list_and_a_bare_message_are_batches_too() {
    assert_eq!(batch(&format!("[{},{}]", track(""), track(""))).events.len(), 2);
    let heard = batch(&track(r#""writeKey":"K","sentAt":"2026-11-22T22:00:01Z""#));
    assert_eq!((heard.events.len(), heard.write_key.as_deref()), (1, Some("K")));
}

#[test]
fn a_body_without_an_outline_is_turned_away() {
    let rejected = |call, body: &str| Server::new().try_hear(call, body.as_bytes()).unwrap_err();
    let one = Call::One(Kind::Track);
    for call in [Call::Batch, one] {
        assert_eq!(rejected(call, ""), Rejection::Empty);
        assert_eq!(rejected(call, " \0\u{feff}\n"), Rejection::Empty);
        assert_eq!(rejected(call, "\"text\""), Rejection::NotAnObject);
        assert_eq!(rejected(call, "42 "), Rejection::NotAnObject);
        assert_eq!(rejected(call, "hello").to_string(), "malformed JSON: expected a value at line 1, column 1");
    }
    assert_eq!(rejected(one, "[]"), Rejection::NotAnObject);
    assert_eq!(rejected(Call::Batch, "{}"), Rejection::NoBatch);
    assert_eq!(rejected(Call::Batch, r#"{"batch":3}"#), Rejection::NoBatch);
    let broken = rejected(one, "{\"a\":1,\n \"é\" 2}");
    assert_eq!(broken.to_string(), "malformed JSON: expected `:` at line 2, column 6");
    assert_eq!(broken.code(), "invalid_request");
    assert!(matches!(rejected(Call::Batch, r#"{"batch":["#), Rejection::Malformed { .. }));
    assert!(matches!(rejected(Call::Batch, r#"{"batch":[{"type":"tra"#), Rejection::Malformed { .. }));
}

#[test]
fn a_second_document_is_read_as_well() {
    let envelope = |id: &str, sent: &str| {
        format!(r#"{{"batch":[{}],"sentAt":"{sent}"}}"#, track(&format!(r#""messageId":"{id}""#)))
    };
    let body = format!("{}\n{}", envelope("a", "2026-11-22T22:00:01Z"), envelope("b", "2026-11-22T22:00:02Z"));
    let values = batch(&body).values();
    assert_eq!((&values[0]["messageId"], &values[1]["messageId"]), (&json!("a"), &json!("b")));
    assert_eq!(values[1]["sentAt"], "2026-11-22T22:00:02.000Z");
    assert_eq!(batch(&format!("{body} trailing rubbish")).events.len(), 2);
    let singles = Server::new().hear(Call::One(Kind::Track), format!("{}{}", track(""), track("")).as_bytes());
    assert_eq!(singles.events.len(), 2);
}

#[test]
fn a_broken_element_does_not_kill_its_neighbours() {
    let good = |id: &str| track(&format!(r#""messageId":"{id}""#));
    for garbage in [
        r#"{"type":"track","event":tru}"#,
        r#"{"type":"track",,"userId":"u"}"#,
        r#"{"type":"track","products":[{"id":1},{"id":nope},{"id":3}]}"#,
        r#"{"type":"track""userId":"u"}"#,
        "{]",
        "nope",
        "3",
        "[[",
        r#"{"type":"track","event":"never closed}"#,
        r#"{"type":"track","properties":{"a":[1,2"#,
        "}",
    ] {
        let heard = batch(&format!(r#"{{"batch":[{},{garbage},{}],"writeKey":"K"}}"#, good("a"), good("b")));
        let ids: Vec<&str> = heard.events.iter().map(|event| event.message_id.as_str()).collect();
        assert_eq!(ids, ["a", "b"], "{garbage}");
        assert_eq!(heard.codes(), [(1, "bad_request")], "{garbage}");
        assert_eq!(heard.write_key.as_deref(), Some("K"), "{garbage}");
    }
}

#[test]
fn a_batch_that_was_cut_keeps_what_is_whole() {
    let whole = format!(r#"{{"writeKey":"K","batch":[{},{}"#, track(""), track(""));
    for cut in [0, 1, 5, 20] {
        let heard = batch(&whole[..whole.len() - cut]);
        assert_eq!(heard.events.len() + heard.discards.len(), 2, "{cut}");
        assert!(!heard.events.is_empty());
    }
}

#[test]
fn a_broken_member_of_the_envelope_does_not_kill_the_batch() {
    let heard = batch(&format!(r#"{{"context":{{"a":nope}},"batch":[{}],"writeKey":"K"}}"#, track("")));
    assert_eq!((heard.events.len(), heard.write_key.as_deref()), (1, Some("K")));
}

#[test]
fn hostile_garbage_does_not_cost_more_than_its_size_allows() {
    // Each would be quadratic if the search for the next message had no bound.
    let bodies = [
        "{{x},{\"type\":\"track\"},".repeat(20_000),
        "{\"x\":[{},".repeat(50_000),
        "{\"a\":nope,".repeat(50_000),
        "{\"type\":\"track\",\"x\":[{},".repeat(20_000),
        ",{".repeat(200_000),
        "[".repeat(500_000),
    ];
    for body in bodies {
        let _ = Server::new().try_hear(Call::Batch, format!("{{\"batch\":[{body}").as_bytes());
    }
}

// --- limits

#[test]
fn a_body_over_its_limit_is_turned_away() {
    let padded = |size: usize| format!(r#"{{"userId":"u","event":"E","pad":"{}"}}"#, "x".repeat(size));
    let body = padded(40_000);
    let rejection = Server::new().try_hear(Call::One(Kind::Track), body.as_bytes()).unwrap_err();
    assert_eq!(rejection, Rejection::TooLarge { size_bytes: body.len(), max_bytes: 33 * 1024 });
    assert!(rejection.to_string().starts_with("Exceed payload limit"));
    let rejection = Server::new().try_hear(Call::Batch, padded(600_000).as_bytes()).unwrap_err();
    assert!(matches!(rejection, Rejection::TooLarge { max_bytes: 540_672, .. }));
    assert!(Server::new().try_hear(Call::One(Kind::Track), padded(32_000).as_bytes()).is_ok());
}

#[test]
fn a_message_over_its_limit_is_discarded_alone() {
    let big = track(&format!(r#""messageId":"big","pad":"{}""#, "x".repeat(40_000)));
    let heard = batch(&format!("[{},{big},{}]", track(""), track("")));
    assert_eq!(heard.events.len(), 2);
    assert_eq!(heard.codes(), [(1, "bad_request")]);
    assert_eq!(heard.discards[0].message_id.as_deref(), Some("big"));
    assert!(heard.discards[0].detail.contains("33792"), "{}", heard.discards[0].detail);
}

#[test]
fn messages_beyond_the_count_are_discarded() {
    let server = Server { limits: Limits { batch_events_max: 2, ..Limits::default() }, ..Server::new() };
    let heard = server.hear(Call::Batch, format!("[{0},{0},{0},{0}]", track("")).as_bytes());
    assert_eq!(heard.events.len(), 2);
    assert_eq!(heard.codes(), [(2, "bad_request"), (3, "bad_request")]);
}

#[test]
fn properties_beyond_ten_thousand_are_dropped() {
    let server = Server { limits: Limits { event_bytes_max: 1 << 20, ..Limits::default() }, ..Server::new() };
    let properties: Vec<String> = (0..10_005).map(|index| format!("\"k{index}\":{index}")).collect();
    let body = track(&format!(r#""properties":{{{}}}"#, properties.join(",")));
    let value = server.hear(Call::One(Kind::Track), body.as_bytes()).values().remove(0);
    assert_eq!(value["properties"].as_object().unwrap().len(), 10_000);
    assert_eq!(value["properties"]["k9999"], 9999);
}

#[test]
fn a_long_message_id_is_kept_whole() {
    let id = "i".repeat(300);
    assert_eq!(event(&track(&format!(r#""messageId":"{id}""#)))["messageId"], id);
}

// --- discards

#[test]
fn every_mistake_has_segment_s_code() {
    for (body, expected) in [
        (r#"{"event":"E","userId":"u"}"#, "missing_type"),
        (r#"{"type":"trakc","userId":"u"}"#, "invalid_type"),
        (r#"{"type":["track"],"userId":"u"}"#, "invalid_type"),
        (r#"{"type":"track","event":"E"}"#, "no_user_anon_id"),
        (r#"{"type":"track","event":"E","userId":"","anonymousId":null}"#, "no_user_anon_id"),
        (r#"{"type":"track","event":"E","userId":true}"#, "id_not_string"),
        (r#"{"type":"group","userId":"u","groupId":{}}"#, "id_not_string"),
        (r#"{"type":"group","userId":"u"}"#, "id_required"),
        (r#"{"type":"alias","anonymousId":"a","previousId":"p"}"#, "id_required"),
        (r#"{"type":"track","userId":"u"}"#, "event_not_defined"),
        (r#"{"type":"track","userId":"u","event":""}"#, "event_not_defined"),
        (r#"{"type":"track","userId":"u","event":7}"#, "event_not_string"),
        (r#"{"type":"track","userId":"u","event":"E","properties":"p"}"#, "properties_not_object"),
        (r#"{"type":"page","userId":"u","properties":[1]}"#, "properties_not_object"),
        (r#"{"type":"identify","userId":"u","traits":1}"#, "traits_not_object"),
        (r#"{"type":"group","userId":"u","groupId":"g","traits":"t"}"#, "traits_not_object"),
        (r#"{"type":"page","userId":"u","name":5}"#, "name_not_string"),
        (r#"{"type":"screen","userId":"u","category":{}}"#, "category_not_string"),
    ] {
        assert_eq!(code(body), expected, "{body}");
    }
}

#[test]
fn a_change_of_consent_has_to_be_complete() {
    let with = |context: &Value| {
        json!({"type": "track", "userId": "u", "event": "Segment Consent Preference Updated", "context": context})
            .to_string()
    };
    for (context, expected) in [
        (json!({}), "consent_categorypreferences_should_exist"),
        (json!({"consent": {"categoryPreferences": 1}}), "consent_categorypreferences_fields_should_be_object"),
        (json!({"consent": {"categoryPreferences": {"A": 1}}}), "consent_categorypreferences_fields_should_be_bool"),
        (json!({"consent": {"categoryPreferences": {}, "version": "2"}}), "consent_version_should_be_number"),
        (
            json!({"consent": {"categoryPreferences": {}}, "device": {"advertisingId": 1}}),
            "device_advertisingid_should_be_string",
        ),
    ] {
        assert_eq!(code(&with(&context)), expected, "{context}");
    }
    event(&with(&json!({"consent": {"categoryPreferences": {"A": true}, "version": 2}})));
    event(&track(r#""context":{"consent":{"categoryPreferences":1}}"#));
}

#[test]
fn a_source_that_is_off_has_every_message_discarded_by_name() {
    let body = format!("[{},3,{}]", track(r#""messageId":"a""#), track(""));
    let envelope = Envelope::parse(body.as_bytes(), Call::Batch, &Limits::default()).unwrap();
    let reading = envelope.discard_all(DiscardCode::SourceDisabled, "the source is switched off");
    let told: Vec<_> = reading.discards.iter().map(|discard| (discard.index, discard.message_id.as_deref())).collect();
    assert_eq!(told, [(0, Some("a")), (1, None), (2, None)]);
    assert_eq!((reading.events.len(), envelope.len()), (0, 3));
}

#[test]
fn aliases_need_no_previous_id() {
    assert_eq!(event(r#"{"type":"alias","userId":"u","anonymousId":null}"#)["userId"], "u");
}

// --- leniencies

#[test]
fn numeric_ids_become_text_and_empty_ones_go() {
    let value = event(
        r#"{"type":"group","userId":42,"groupId":-7,"anonymousId":"","previousId":null,"messageId":123456789012345678901}"#,
    );
    assert_eq!(value["userId"], "42");
    assert_eq!(value["groupId"], "-7");
    assert_eq!(value["messageId"], "123456789012345678901");
    assert!(value.get("anonymousId").is_none() && value.get("previousId").is_none());
    assert_eq!(event(&track(r#""anonymousId":1.5e3"#))["anonymousId"], "1500");
}

#[test]
fn what_php_and_ruby_write_for_nothing_is_nothing() {
    let value = event(
        r#"{"type":"page","userId":"u","name":"","category":null,"properties":[ ],"context":[],"integrations":[]}"#,
    );
    assert_eq!(value["properties"], json!({}));
    assert_eq!(value["context"], json!({}));
    assert_eq!(value["integrations"], json!({}));
    assert!(value.get("name").is_none() && value.get("category").is_none());
    let value = event(&track(r#""properties":null,"context":null,"integrations":"x","channel":null"#));
    for key in ["properties", "context", "integrations", "channel"] {
        assert_eq!(value.get(key), None, "{key}");
    }
}

#[test]
fn a_message_id_that_is_none_is_replaced() {
    for none in [r#""messageId":"""#, r#""messageId":null"#, r#""messageId":{}"#] {
        assert_eq!(event(&track(none))["messageId"], "made-1");
    }
}

#[test]
fn unknown_fields_and_metadata_are_kept_in_their_place() {
    let heard =
        batch(&format!("[{}]", track(r#""email":"a@b.c","_metadata":{"nodeVersion":"v20"},"nested":{"x" : [1]}"#)));
    let text = std::str::from_utf8(&heard.events[0].json).unwrap();
    let sent = r#"{"type":"track","event":"E","userId":"u","email":"a@b.c","_metadata":{"nodeVersion":"v20"},"nested":{"x" : [1]},"#;
    assert!(text.starts_with(sent), "{text}");
}

#[test]
fn the_last_of_two_equal_keys_is_the_one_that_counts() {
    let value = event(
        r#"{"type":"identify","type":"track","userId":7,"userId":"u","event":1,"event":"E","writeKey":"a","writeKey":"b"}"#,
    );
    assert_eq!((&value["type"], &value["userId"], &value["event"]), (&json!("track"), &json!("u"), &json!("E")));
    assert_eq!(code(r#"{"type":"track","event":"E","userId":"u","userId":{}}"#), "id_not_string");
}

#[test]
fn a_disguised_key_is_seen_for_what_it_is() {
    assert_eq!(code(r#"{"type":"track","event":"E","userId":"u","user\u0049d":{}}"#), "id_not_string");
    let value = event(r#"{"type":"track","event":"E","userId":"u","write\u004bey":"secret"}"#);
    assert!(!value.to_string().contains("secret"));
}

// --- traps of JSON

#[test]
fn a_lone_surrogate_costs_one_character() {
    assert_eq!(event(&track(r#""properties":{"cut":"ab\ud83d"}"#))["properties"]["cut"], "ab\u{fffd}");
}

#[test]
fn what_python_writes_for_no_number_is_null() {
    let value = event(&track(r#""properties":{"a":NaN,"b":Infinity,"c":-Infinity,"d":1e400,"e":1}"#));
    assert_eq!(value["properties"], json!({"a": null, "b": null, "c": null, "d": null, "e": 1}));
}

#[test]
fn two_hundred_levels_are_kept_as_text() {
    let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
    let mut value = event(&track(&format!(r#""properties":{deep}"#)))["properties"].take();
    let mut levels = 0;
    while value.is_object() {
        value = value["a"].take();
        levels += 1;
    }
    let rest = value.as_str().unwrap();
    assert_eq!(levels + rest.matches('{').count(), 200);
}

#[test]
fn thirty_digits_stay_thirty_digits() {
    let heard = batch(&format!("[{}]", track(r#""properties":{"n":123456789012345678901234567890}"#)));
    assert!(std::str::from_utf8(&heard.events[0].json).unwrap().contains("123456789012345678901234567890"));
}

#[test]
fn odd_bytes_do_not_matter() {
    let mut body = b"\xef\xbb\xbf \n".to_vec();
    body.extend(track(r#""properties":{"raw":"a	b","bad":""#).bytes());
    body.truncate(body.len() - 1);
    body.extend(b"\xff\xfe\"}}\0\0\n");
    let value = Server::new().hear(Call::One(Kind::Track), &body).values().remove(0);
    assert_eq!(value["properties"], json!({"raw": "a\tb", "bad": "\u{fffd}\u{fffd}"}));
}

#[test]
fn odd_keys_are_kept() {
    let properties = r#"{"":1,"a.b":2,"$x":3,"🛒":4,"q\"":5,"nul\u0000":6}"#;
    let value = event(&track(&format!(r#""properties":{properties}"#)));
    assert_eq!(value["properties"], serde_json::from_str::<Value>(properties).unwrap());
}

// --- time

#[test]
fn a_wrong_clock_is_corrected() {
    let server = Server::new();
    let body = track(r#""timestamp":"2026-11-22T22:04:50.123Z","sentAt":"2026-11-22T22:05:00.123Z""#);
    let value = server.hear(Call::One(Kind::Track), body.as_bytes()).values().remove(0);
    assert_eq!(value["timestamp"], "2026-11-22T21:59:50.123Z");
    assert_eq!(value["originalTimestamp"], "2026-11-22T22:04:50.123Z");
    assert_eq!(value["receivedAt"], RECEIVED);
}

#[test]
fn times_fall_back_as_documented() {
    let times = |more: &str| {
        let value = event(&track(more));
        ["timestamp", "originalTimestamp", "sentAt"].map(|key| value[key].as_str().unwrap_or("-").to_owned())
    };
    assert_eq!(times(""), [RECEIVED, RECEIVED, "-"]);
    let sent = "2026-11-22T21:00:00.000Z";
    assert_eq!(times(&format!(r#""sentAt":"{sent}""#)), [RECEIVED, sent, sent]);
    let then = "2012-12-02T00:30:08.276Z";
    assert_eq!(times(&format!(r#""timestamp":"{then}""#)), [then, then, "-"]);
    assert_eq!(times(&format!(r#""originalTimestamp":"{then}","timestamp":"nonsense""#)), [then, then, "-"]);
    assert_eq!(times(r#""timestamp":1354408208276"#), [then, then, "-"]);
    assert_eq!(times(r#""timestamp":"x","sentAt":"y","receivedAt":"z""#), [RECEIVED, RECEIVED, "-"]);
}

#[test]
fn finer_digits_are_kept_if_they_were_sent() {
    let value = event(&track(r#""timestamp":"2026-11-22T21:06:27.023909+00:00""#));
    assert_eq!(value["originalTimestamp"], "2026-11-22T21:06:27.023909Z");
}

// --- context, channel

#[test]
fn only_client_side_messages_are_located() {
    let context = |more: &str| event(&track(more))["context"].take();
    let browser = r#""context":{"library":{"name":"analytics.js"}}"#;
    assert_eq!(context(browser)["ip"], "203.0.113.7");
    assert_eq!(context(browser)["userAgent"], "Browser/1.0");
    assert_eq!(context(r#""context":{"library":{"name":"analytics-node"}}"#).get("ip"), None);
    assert_eq!(context(r#""context":{"direct":true}"#), json!({"direct": true, "ip": "203.0.113.7"}));
    assert_eq!(context(r#""channel":"mobile""#), json!({"ip": "203.0.113.7", "userAgent": "Browser/1.0"}));
    assert_eq!(context(r#""context":{"channel":"browser"}"#)["ip"], "203.0.113.7");
    assert_eq!(context(r#""channel":"server","context":{"library":{"name":"analytics.js"}}"#).get("ip"), None);
    assert_eq!(context(""), Value::Null);
}

#[test]
fn what_the_sender_says_about_where_it_is_stays() {
    for ip in [json!("0.0.0.0"), json!(null), json!("")] {
        let more = format!(r#""channel":"browser","context":{{"ip":{ip},"userAgent":"own"}}"#);
        let context = event(&track(&more))["context"].take();
        assert_eq!(context, json!({"ip": ip, "userAgent": "own"}));
    }
}

#[test]
fn only_ipv4_is_noted() {
    let located = |ip: &str| {
        let server = Server { ip: Some(ip.parse().unwrap()), user_agent: None, ..Server::new() };
        server.hear(Call::Batch, format!("[{}]", track(r#""channel":"browser""#)).as_bytes()).values()[0]["context"]
            .take()
    };
    assert_eq!(located("2001:db8::1"), Value::Null);
    assert_eq!(located("::ffff:192.0.2.1"), json!({"ip": "192.0.2.1"}));
}

#[test]
fn the_channel_is_told_by_the_library_unless_the_sender_did() {
    let channel = |more: &str| event(&track(more))["channel"].take();
    assert_eq!(channel(r#""context":{"library":{"name":"analytics-python"}}"#), "server");
    assert_eq!(channel(r#""context":{"library":{"name":"analytics-kotlin"}}"#), "mobile");
    assert_eq!(channel(r#""channel":"web","context":{"library":{"name":"analytics-python"}}"#), "web");
    assert_eq!(channel(r#""context":{"library":{"name":"mine"}}"#), Value::Null);
    assert_eq!(channel(r#""context":{"library":"analytics.js"}"#), Value::Null);
}

#[test]
fn a_browser_that_cannot_be_quoted_is_quoted() {
    let server = Server { user_agent: Some("a\"b\\c\u{1}"), ..Server::new() };
    let body = format!("[{}]", track(r#""channel":"browser""#));
    assert_eq!(server.hear(Call::Batch, body.as_bytes()).values()[0]["context"]["userAgent"], "a\"b\\c\u{1}");
}

// --- whatever comes in

/// Recorded bodies with a few bytes changed, cut out or put in.
fn mutated() -> impl Strategy<Value = (Call, Vec<u8>)> {
    let bodies: Vec<(Call, Vec<u8>)> = CAPTURES.into_iter().flat_map(|(_, capture)| recorded(capture)).collect();
    #[rustfmt::skip]
    let pieces: Vec<&'static [u8]> = vec![
        b"\"", b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\\ud83d", b"NaN", b"-Infinity", b"1e999", b"\0", b"\xff",
        b"\xed\xa0\x80", b"\n", b"null", b"[]", b"\\u0000", b"99999999999999999999999", b"\"type\":\"track\"", b"},{",
        b"\"messageId\":5,", b"\"context\":{},", b"\"user\\u0049d\":1,", b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    ];
    let edit = (any::<prop::sample::Index>(), 0..4_usize, proptest::sample::select(pieces));
    (proptest::sample::select(bodies), proptest::collection::vec(edit, 0..6)).prop_map(|((call, mut body), edits)| {
        for (place, cut, piece) in edits {
            let at = place.index(body.len());
            body.splice(at..(at + cut).min(body.len()), piece.iter().copied());
        }
        (call, body)
    })
}

proptest! {
    #[test]
    fn whatever_comes_in_nothing_panics_and_every_event_parses((call, body) in mutated()) {
        if let Ok(heard) = Server::new().try_hear(call, &body) {
            heard.values();
        }
    }

    #[test]
    fn no_bytes_are_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for call in [Call::Batch, Call::One(Kind::Page)] {
            let _ = Server::new().try_hear(call, &body);
        }
    }

    #[test]
    fn a_cut_body_gives_up_no_whole_message(cut in any::<prop::sample::Index>()) {
        let (call, body) = recorded(CAPTURES[6].1).remove(0);
        let whole = Server::new().hear(call, &body).values();
        if let Ok(heard) = Server::new().try_hear(call, &body[..cut.index(body.len())]) {
            let ids = |values: &[Value]| values.iter().map(|value| value["messageId"].clone()).collect::<Vec<_>>();
            prop_assert_eq!(ids(&heard.values()), &ids(&whole)[..heard.events.len()]);
        }
    }
}
