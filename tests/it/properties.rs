//! The language does what it says: random files and random events against a second, naive reading of the language, and
//! promises that hold for every event.
//!
//! A failure names the file and the event; add it as a case of its own before mending it.

mod grammar;
mod naive;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use libroseg::config::{self, Code, Environment, Style};
use libroseg::event::{Message, MessageId};
use libroseg::plan::pack::Packer;
use libroseg::plan::{Batch, Destination, Item, Plan, RuleError};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use url::Url;

use grammar::{any_event, any_file, any_json};
use naive::World;

/// The plan; `None` when a constant expression fails, which the check tells before any event comes.
fn compile(text: &str) -> Option<Plan> {
    let no_file = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    match config::compile(
        text,
        &Environment { variables: BTreeMap::new(), read_file: &no_file, ..Environment::default() },
    ) {
        Ok(compiled) => Some(compiled.plan),
        Err(mistakes) => {
            let picture = config::draw("f.toml", text, &mistakes, Style::Plain, 120);
            assert!(mistakes.iter().all(|m| !m.is_error() || m.code == Code::ExpressionFails), "{text}\n{picture}");
            None
        }
    }
}

fn now() -> Timestamp {
    "2026-01-02T03:04:10Z".parse().unwrap()
}

fn message(event: &Json) -> Message {
    Message { source: "web".into(), value: Arc::new(event.clone()) }
}

/// The items of an event; none when no rule wants it.
fn items(destination: &Destination, event: &Json) -> Result<Vec<Item>, RuleError> {
    match destination.select(&message(event), now())? {
        Some(matches) => destination.render(&matches, &MessageId::from("m1")),
        None => Ok(Vec::new()),
    }
}

fn text(item: &Item) -> &str {
    std::str::from_utf8(item.body.as_ref().unwrap()).unwrap()
}

proptest! {
    #[test]
    fn a_plan_renders_what_a_naive_reading_of_the_language_says(file in any_file(), event in any_event()) {
        let toml = file.toml();
        let plan = compile(&toml);
        prop_assume!(plan.is_some());
        let plan = plan.unwrap();
        let made = items(&plan.destinations[0], &event);
        let expected = World { file: &file, event: &event, item: None }.body(&file.body, file.omit);
        match (made, expected) {
            (Ok(made), Ok(Some(json))) => prop_assert_eq!(text(&made[0]), json.to_string(), "{}\n{}", toml, event),
            (Err(_), Err(_)) => {}
            (Err(error), Ok(None)) => prop_assert!(error.error.message.contains("missing as a whole"), "{error}"),
            (made, expected) => prop_assert!(false, "{made:?}\nnot {expected:?}\n{toml}\n{event}"),
        }
    }

    #[test]
    fn batches_hold_the_same_items_in_the_same_order(
        events in prop::collection::vec(any_event(), 0..12),
        events_max in 1_usize..5,
        bytes_max in 2_usize..400,
    ) {
        let alone = compile(HOOK).unwrap();
        let batch = format!("{HOOK}batch = {{ max_events = {events_max}, max_bytes = \"{bytes_max}B\" }}\n");
        let plan = compile(&batch).unwrap();
        let destination = &plan.destinations[0];
        let (mut packer, mut batches) = (Packer::new(Arc::clone(destination)), Vec::new());
        let (mut expected, mut sent): (Vec<Json>, Vec<Json>) = (Vec::new(), Vec::new());
        for event in &events {
            expected.extend(items(&alone.destinations[0], event).unwrap().iter().map(body));
            for item in items(destination, event).unwrap() {
                batches.extend(packer.push(item, (), now()));
            }
        }
        batches.extend(packer.flush());
        for batch in &batches {
            let request = destination.request(batch, now()).unwrap().body.unwrap();
            prop_assert!(batch.items.len() <= events_max);
            prop_assert!(request.len() <= bytes_max || batch.items.len() == 1, "{} bytes", request.len());
            sent.extend(serde_json::from_slice::<Vec<Json>>(&request).unwrap());
        }
        prop_assert_eq!(sent, expected);
    }

    #[test]
    fn nothing_in_an_event_chooses_where_it_goes(user in any_json(), name in any_json()) {
        let plan = compile(ADDRESSED).unwrap();
        let destination = &plan.destinations[0];
        let event = json!({ "type": "track", "userId": user, "properties": { "name": name } });
        // An event that has no place in an address is a dead letter, and goes nowhere.
        for item in items(destination, &event).unwrap_or_default() {
            let url: Url = item.address.url.parse().unwrap();
            prop_assert_eq!((url.scheme(), url.host_str(), url.port()), ("https", Some("crm.example.com"), Some(8443)));
            prop_assert_eq!((url.username(), url.password(), url.fragment()), ("", None, None));
            let pieces: Vec<String> = url.path_segments().unwrap().map(decoded).collect();
            prop_assert_eq!(pieces.len(), 3, "{}", url);
            prop_assert_eq!((pieces[0].as_str(), pieces[2].as_str()), ("people", "events"));
            prop_assert_eq!(&pieces[1], &text_of(&user).unwrap());
            let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
            let expected: Vec<(String, String)> =
                text_of(&name).into_iter().map(|name| ("n&m".to_owned(), name)).collect();
            prop_assert_eq!(query, expected);
        }
    }

    #[test]
    fn a_header_never_ends_early(value in any_json(), text in "[a-z\r\n\u{0}é]{0,6}") {
        let plan = compile(ADDRESSED).unwrap();
        for name in [value, text.into()] {
            let event = json!({ "type": "track", "userId": "u1", "properties": { "name": name } });
            let made = items(&plan.destinations[0], &event);
            let ends = text_of(&name).unwrap_or_default().contains(['\r', '\n', '\0']);
            prop_assert_eq!(made.is_err(), ends, "{:?}", made);
            for (name, value) in made.iter().flatten().flat_map(|item| &item.address.headers) {
                prop_assert!(!value.contains(['\r', '\n', '\0']), "{}: {}", name, value);
            }
        }
    }

    #[test]
    fn the_integrations_object_is_heard(integrations in any_integrations()) {
        let plan = compile("[destinations.crm]\nurl = \"https://crm.example.com\"\nintegration = [\"CRM\", \"My CRM\"]\n");
        let event = json!({ "type": "track", "integrations": integrations });
        let destination = &plan.as_ref().unwrap().destinations[0];
        let is_wanted = destination.select(&message(&event), now()).unwrap().is_some();
        prop_assert_eq!(is_wanted, is_allowed(&integrations), "{}", integrations);
    }

    #[test]
    fn a_rule_gets_the_events_its_on_names(kind in any_kind(), name in any_name(), on in any_trigger()) {
        let plan = compile(&format!("{HOOK}on = {}\n", Json::from(on.as_str()))).unwrap();
        let event = json!({ "type": kind, "event": name, "name": name });
        let is_wanted = plan.destinations[0].select(&message(&event), now()).unwrap().is_some();
        let (wanted_kind, glob) = on.split_once(':').map_or((on.as_str(), None), |(kind, glob)| (kind, Some(glob)));
        let expected = (wanted_kind == "*" || wanted_kind == kind) && glob.is_none_or(|glob| fits(glob, &name));
        prop_assert_eq!(is_wanted, expected, "{} {} {}", kind, name, on);
    }

    #[test]
    fn a_form_says_what_the_body_says(properties in any_json()) {
        let plan = compile(FORM).unwrap();
        let destination = &plan.destinations[0];
        let event = json!({ "type": "track", "properties": { "p": properties } });
        let batch = Batch { items: vec![(items(destination, &event).unwrap().remove(0), ())], opened_at: now() };
        let form = destination.request(&batch, now()).unwrap().body.unwrap();
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(&form).into_owned().collect();
        let values = properties.as_array().cloned().unwrap_or_else(|| vec![properties.clone()]);
        let written = |json: &Json| json.as_str().map_or_else(|| json.to_string(), str::to_owned);
        let values = values.iter().filter(|json| !json.is_null());
        let expected: Vec<(String, String)> = values.map(|json| ("p".to_owned(), written(json))).collect();
        prop_assert_eq!(pairs, expected);
    }
}

const HOOK: &str = "[destinations.hook]\nurl = \"https://hook.example.com\"\n";

const FORM: &str = r#"
[destinations.form]
url = "https://form.example.com"
encoding = "form"
body = { p = "{{ properties.p }}" }
"#;

const ADDRESSED: &str = r#"
[destinations.crm]
url = "https://crm.example.com:8443/people"
path = "/{{ userId }}/events"
query = { "n&m" = "{{ properties.name }}" }
headers = { X-Name = "{{ properties.name }}" }
"#;

fn body(item: &Item) -> Json {
    serde_json::from_slice(item.body.as_ref().unwrap()).unwrap()
}

/// The text of a value in an address; a missing or null one has none.
fn text_of(json: &Json) -> Option<String> {
    (!json.is_null()).then(|| naive::printed(json))
}

fn decoded(piece: &str) -> String {
    percent_encoding::percent_decode_str(piece).decode_utf8().unwrap().into_owned()
}

// === integrations ===

fn any_integrations() -> impl Strategy<Value = Json> {
    let name = prop::sample::select(&["All", "all", "CRM", "crm", "my crm", "Segment.io", "Other", ""][..]);
    let choice = prop_oneof![
        any::<bool>().prop_map(Json::from),
        prop::sample::select(vec![
            json!(null),
            json!({}),
            json!({ "a": 1 }),
            json!(0),
            json!(1),
            json!(""),
            json!("no")
        ]),
    ];
    let object = prop::collection::vec((name.prop_map(str::to_owned), choice), 0..4)
        .prop_map(|fields| Json::Object(fields.into_iter().collect()));
    prop_oneof![9 => object, 1 => any_json()]
}

/// As docs/wire-contract.md says: its own names first, of which a no wins; then `All`; else yes.
fn is_allowed(integrations: &Json) -> bool {
    let said = |names: &[&str]| -> Option<bool> {
        let fields = integrations.as_object()?.iter();
        let own = fields.filter(|(name, value)| names.contains(&name.to_lowercase().as_str()) && !value.is_null());
        own.map(|(_, value)| !matches!(value, Json::Bool(false)) && value != &json!(0) && value != "")
            .reduce(|a, b| a && b)
    };
    said(&["crm", "my crm"]).or_else(|| said(&["all"])).unwrap_or(true)
}

// === triggers ===

fn any_kind() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["track", "identify", "page", "screen", "group", "alias"][..])
}

fn any_name() -> impl Strategy<Value = String> {
    "[ab*é.]{0,6}"
}

fn any_trigger() -> impl Strategy<Value = String> {
    let named = prop::sample::select(&["track", "page", "screen", "*"][..]);
    prop_oneof![
        prop_oneof![any_kind(), Just("*")].prop_map(str::to_owned),
        (named, "[ab*é]{1,5}").prop_map(|(kind, glob)| format!("{kind}:{glob}")),
    ]
}

/// A glob by trying everything.
fn fits(glob: &str, name: &str) -> bool {
    let mut chars = glob.chars();
    match chars.next() {
        None => name.is_empty(),
        Some('*') => (0..=name.len()).filter_map(|at| name.get(at..)).any(|rest| fits(chars.as_str(), rest)),
        Some(char) => name.strip_prefix(char).is_some_and(|rest| fits(chars.as_str(), rest)),
    }
}
