//! `libroseg explain`: what one event is to every destination, and why.

use std::fs;
use std::path::Path;
use std::process::Output;

use jiff::Timestamp;
use libroseg::config::{self, Environment, Unset};
use libroseg::event::SourceName;
use libroseg::plan::explain::{Before, Wants};
use libroseg::rehearse;
use serde_json::{Value, json};

use crate::support::Binary;

const FILE: &str = r#"
[sources.web]
write_keys   = ["{{ env.WEB_KEY | default('web') }}"]
destinations = ["crm", "ads", "slow"]

[sources.app]
write_keys = ["app"]

[let]
who = "{{ userId or anonymousId }}"

[destinations.crm]
url   = "https://crm.example.com/v1"
auth  = { bearer = "{{ env.CRM_TOKEN }}" }
order_by = "{{ who }}"

[[destinations.crm.rules]]
on   = "identify"
path = "/people"

[[destinations.crm.rules]]
on    = "track"
when  = ["$.properties.total", "{{ properties.total > 50 and not traits.internal }}"]
path  = "/people/{{ who }}/orders"
final = true
headers = { X-Plan = "{{ traits.plan }}" }
[destinations.crm.rules.body]
total = "{{ properties.total | number }}"
note  = "it's {{ event }}"
key   = "{{ env.CRM_TOKEN | sha256 }}"
items = { each = "$.properties.products[*]", item = { sku = "{{ item.sku }}" } }

[[destinations.crm.rules]]
on   = "*"
path = "/rest"

[destinations.ads]
url     = "https://ads.example.com"
consent = "Advertising"

[destinations.other]
url         = "https://other.example.com"
integration = "Other"

[destinations.slow]
enabled = "{{ env.SLOW }}"
type    = "file"
path    = "x.ndjson"
body    = { who = "{{ who | required }}" }
"#;

fn explain(file: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("libroseg.toml"), file).unwrap();
    let mut command = Binary::command();
    command.arg("explain").args(arguments).current_dir(folder.path()).env_clear().envs(variables.iter().copied());
    command.args(["--now", "2026-01-02T03:04:05Z"]).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn order(total: u32) -> String {
    json!({
        "type": "track", "event": "Order Completed", "userId": "u1", "messageId": "m1",
        "properties": { "total": total, "products": [{ "sku": "a" }, { "sku": "b" }] },
        "integrations": { "Other": false },
        "context": { "consent": { "categoryPreferences": { "Advertising": false } } },
    })
    .to_string()
}

#[test]
fn an_event_is_explained_to_people_with_places_and_without_secrets() {
    let output = explain(FILE, &["--event", &order(120), "--source", "app"], &[("CRM_TOKEN", "the-secret-token")]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(!told(&output).contains("the-secret-token"));
    insta::assert_snapshot!(told(&output));
}

#[test]
fn the_part_of_a_condition_that_decided_is_underlined() {
    let output = explain(FILE, &["--event", &order(20), "--destination", "crm"], &[("CRM_TOKEN", "the-secret-token")]);
    insta::assert_snapshot!(told(&output));
}

#[test]
fn programs_get_the_same_as_json() {
    let output = explain(FILE, &["--event", &order(120), "--format", "json", "--source", "web"], &[]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", told(&output)));
    assert_eq!(answer["unset"], json!(["environment variable CRM_TOKEN is not set"]));
    let of = |name: &str| {
        let all = answer["destinations"].as_array().unwrap();
        all.iter().find(|destination| destination["name"] == name).unwrap().clone()
    };
    assert_eq!(of("other")["before"], "other_source");
    assert_eq!(of("ads")["before_detail"], "FILTERED_BY_END_USER_CONSENT");
    assert_eq!(of("slow")["outcome"], "ok");
    let rule = &of("crm")["rules"][1];
    assert_eq!((&rule["wants"], &rule["items"]), (&json!(true), &json!(1)));
    assert_eq!(rule["place"], json!({ "file": "libroseg.toml", "preset": null, "line": 21, "column": 1 }));
    let field = |path: &str| {
        let fields = rule["fields"].as_array().unwrap();
        fields.iter().find(|field| field["path"] == path).unwrap_or_else(|| panic!("{path} in {fields:#?}")).clone()
    };
    assert_eq!(field("destinations.crm.rules[1].headers.x-plan")["missing"], true);
    assert_eq!(field("destinations.crm.rules[1].body.total")["value"], 120);
    assert_eq!(field("destinations.crm.rules[1].body.items.item.sku")["value"], "a");
    assert_eq!(of("crm")["rules"][2]["why_not"], "rules[1].final");
    assert_eq!(of("crm")["order_key"], "u1");
    let request = &of("crm")["requests"][0];
    assert_eq!(request["url"], "https://crm.example.com/v1/people/u1/orders");
    assert_eq!(request["headers"]["authorization"], "***");
}

#[test]
fn the_event_comes_from_a_file_or_from_stdin_and_a_wrong_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("event.json");
    fs::write(&file, order(120)).unwrap();
    let output =
        explain(FILE, &["--event", &format!("@{}", file.display()), "--destination", "slow"], &[("SLOW", "1")]);
    assert!(told(&output).contains("reached: 1 request"), "{}", told(&output));
    for (event, says) in
        [("{", "not JSON"), ("{\"type\":\"track\",\"event\":\"E\"}", "no_user_anon_id"), ("[]", "would be discarded")]
    {
        let output = explain(FILE, &["--event", event], &[]);
        assert_eq!(output.status.code(), Some(1), "{event}");
        assert!(told(&output).contains(says), "{event}: {}", told(&output));
    }
    let output = explain(FILE, &["--event", &order(1), "--destination", "crn"], &[]);
    assert!(told(&output).contains("did you mean `crm`?"), "{}", told(&output));
    let output = explain(FILE, &["--event", &order(1), "--source", "wep"], &[]);
    assert!(told(&output).contains("did you mean `web`?"), "{}", told(&output));
    assert_eq!(explain(FILE, &["--event", "@not-there.json"], &[]).status.code(), Some(2));
    assert_eq!(explain("[destinations.a]\nurl = 1\n", &["--event", &order(1)], &[]).status.code(), Some(1));
}

/// The events of the tests of every example, each to every destination of its file.
#[test]
fn what_is_explained_is_what_select_and_render_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/configs");
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let mut compared = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let no_file = |_: &Path| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
        let environment = Environment { read_file: &no_file, unset: Unset::Assumed, ..Environment::default() };
        let Ok(compiled) = config::compile(&text, &environment) else { continue };
        let source = SourceName::from("s");
        let messages: Vec<Value> =
            compiled.cases.iter().flat_map(|case| &case.events).map(|e| e.value.clone()).collect();
        for message in messages.iter().chain(&samples()) {
            let Ok(events) = rehearse::read(std::slice::from_ref(message), &source, None, now) else { continue };
            let message = events[0].open().unwrap();
            for destination in &compiled.plan.destinations {
                let explanation = destination.explain(&message, now);
                let selected = destination.select(&message, now);
                let wanting: Vec<usize> = explanation
                    .rules
                    .iter()
                    .enumerate()
                    .filter(|(_, rule)| rule.wants == Wants::Yes)
                    .map(|(index, _)| index)
                    .collect();
                let Ok(selected) = selected else { continue };
                let matches: Vec<usize> = selected.iter().flat_map(|m| &m.rules).map(|rule| rule.index).collect();
                assert_eq!(wanting, matches, "{}: {:?}", destination.name, message.value);
                let failed = explanation.rules.iter().flat_map(|rule| &rule.fields).any(|field| field.value.is_err());
                if let Some(matches) = selected {
                    assert_eq!(explanation.before, Before::Passed);
                    let rendered = destination.render(&matches, &events[0].message_id);
                    assert!(rendered.is_err() || !failed, "{}: {:?}", destination.name, explanation);
                }
                compared += 1;
            }
        }
    }
    assert!(compared > 50, "{compared}");
}

fn samples() -> Vec<Value> {
    vec![
        json!({"type": "track", "event": "Order Completed", "userId": "u1", "properties": {"total": 900, "currency": "EUR", "products": [{"sku": "a", "price": "x"}]}}),
        json!({"type": "identify", "anonymousId": "a1", "traits": {"email": "a@b.c"}}),
        json!({"type": "page", "name": "Home", "anonymousId": "a1"}),
        json!({"type": "group", "groupId": "g", "userId": "u1"}),
        json!({"type": "alias", "userId": "u1", "previousId": "a1"}),
    ]
}
