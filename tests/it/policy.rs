//! Who may send how much, and which events reach a destination: consent, samples, rate limits, tracking plans, overflow.

use std::collections::BTreeSet;
use std::time::Duration;

use libroseg::config;
use serde_json::{Value, json};

use crate::support::app::{HEAD, HEAD_IN_MEMORY, KEY};
use crate::support::{Answer, Binary, Fake, TestApp, client};

fn hook(fake: &Fake, name: &str, lines: &str) -> String {
    format!("[destinations.{name}]\nurl = \"{}/{name}\"\n{lines}\n", fake.url())
}

/// The users whose events came to a path.
fn users(fake: &Fake, path: &str) -> BTreeSet<String> {
    let requests = fake.requests();
    let of_path = requests.iter().filter(|request| request.path == path);
    of_path.map(|request| request.body["userId"].as_str().unwrap().to_owned()).collect()
}

// --- consent

#[tokio::test]
async fn a_destination_in_consent_categories_gets_what_the_user_consents_to() {
    let fake = Fake::start();
    let lines = hook(&fake, "ads", "consent = [\"Advertising\", \"Profiling\"]") + &hook(&fake, "own", "");
    let app = TestApp::start(&lines).await;
    let preferences = |ads: bool, profiling: bool| json!({"Advertising": ads, "Profiling": profiling});
    let send = async |user: &str, event: &str, consent: Value| {
        let body = json!({"userId": user, "event": event, "context": {"consent": consent}});
        app.post("/v1/track", &body).await.accepted();
    };

    send("both", "Any", json!({"categoryPreferences": preferences(true, true)})).await;
    send("one", "Any", json!({"categoryPreferences": preferences(true, false)})).await;
    send("half", "Any", json!({"categoryPreferences": {"Advertising": true}})).await;
    send("none", "Any", json!({"categoryPreferences": {}})).await;
    send("silent", "Any", json!({})).await;
    let change = json!({"categoryPreferences": preferences(false, false)});
    send("changed", "Segment Consent Preference Updated", change).await;
    app.quiet().await;

    assert_eq!(users(&fake, "/ads"), ["both", "changed", "silent"].map(str::to_owned).into());
    assert_eq!(users(&fake, "/own").len(), 6);
    assert_eq!((app.books("ads").delivered, app.books("ads").filtered), (3, 3));
}

// --- samples

#[tokio::test]
async fn a_sample_is_the_same_users_in_every_destination_and_after_every_start() {
    let fake = Fake::start();
    let lines = hook(&fake, "tenth", "sample = 0.1") + &hook(&fake, "half", "sample = { rate = 0.5 }");
    let app = TestApp::start(&lines).await;
    app.track_many(2000).await;
    app.quiet().await;
    let (tenth, half) = (users(&fake, "/tenth"), users(&fake, "/half"));
    assert!((150..250).contains(&tenth.len()), "{}", tenth.len());
    assert!((900..1100).contains(&half.len()), "{}", half.len());
    assert!(tenth.is_subset(&half), "whoever is in a tenth is in a half");
    assert_eq!(app.books("tenth").filtered, 2000 - tenth.len() as u64);
    // Computed apart from this program: `printf 0 | sha256sum` and so on. What is in must be in for ever.
    let first: Vec<&str> = tenth.iter().map(String::as_str).filter(|user| user.parse::<u32>().unwrap() < 60).collect();
    assert_eq!(first, ["39", "49", "51", "55", "9"]);

    let again = Fake::start();
    let app = TestApp::start(&hook(&again, "tenth", "sample = 0.1")).await;
    app.track_many(2000).await;
    app.quiet().await;
    assert_eq!(users(&again, "/tenth"), tenth);
}

#[tokio::test]
async fn a_sample_keeps_everything_of_a_user_or_nothing() {
    let fake = Fake::start();
    let app = TestApp::start(&hook(&fake, "a", "sample = 0.3")).await;
    for user in 0..20 {
        for event in 0..5 {
            app.track(&user.to_string(), &event.to_string()).await;
        }
    }
    app.quiet().await;
    let kept = users(&fake, "/a");
    assert!(!kept.is_empty() && kept.len() < 20);
    assert_eq!(fake.requests().len(), kept.len() * 5);
}

#[tokio::test]
async fn a_sample_may_be_of_something_else_than_users_and_falls_back_to_them() {
    let fake = Fake::start();
    let app = TestApp::start(&hook(&fake, "a", "sample = { rate = 0.5, by = \"{{ properties.shop }}\" }")).await;
    for shop in 0..10 {
        for user in 0..10 {
            app.track_with(&user.to_string(), "Any", json!({"shop": shop})).await;
        }
    }
    app.quiet().await;
    let shops: BTreeSet<u64> = fake.bodies().iter().map(|body| body["properties"]["shop"].as_u64().unwrap()).collect();
    assert!(!shops.is_empty() && shops.len() < 10);
    assert_eq!(fake.requests().len(), shops.len() * 10, "a shop is in with all its users");

    let before = fake.requests().len();
    app.track_many(1000).await;
    app.quiet().await;
    let by_user = fake.requests().len() - before;
    assert!((400..600).contains(&by_user), "{by_user}");
}

// --- rate limits

/// A file whose source may send so fast.
fn limited(limit: &str, lines: &str) -> String {
    format!("[sources.test]\nwrite_keys = [\"test_write_key\"]\nlimit = {limit}\n[queue]\ndir = \"queue\"\n{lines}")
}

fn batch(events: usize) -> Value {
    let event = |n: usize| json!({"type": "track", "userId": n.to_string(), "event": "Any"});
    json!({"batch": (0..events).map(event).collect::<Vec<_>>()})
}

#[tokio::test]
async fn a_source_that_sends_too_fast_hears_when_to_come_back_and_loses_nothing() {
    let fake = Fake::start();
    let app = TestApp::with_text(&limited("{ per_second = 10, burst = 20 }", &hook(&fake, "a", ""))).await;
    let send = async || {
        let request = client().post(format!("http://{}/v1/batch", app.address)).basic_auth(KEY, Some(""));
        request.header("Origin", "https://shop.example.com").body(batch(15).to_string()).send().await.unwrap()
    };

    assert_eq!(send().await.status(), 200);
    let refused = send().await;
    assert_eq!(refused.status(), 429);
    let header = |name: &str| refused.headers()[name].to_str().unwrap().to_owned();
    assert_eq!((header("retry-after"), header("x-ratelimit-reset")), ("1".to_owned(), "1".to_owned()));
    assert_eq!(header("access-control-expose-headers"), "Retry-After, X-RateLimit-Reset");
    assert_eq!(header("access-control-allow-origin"), "https://shop.example.com");
    let body: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!((&body["success"], &body["code"]), (&json!(false), &json!("rate_limited")));
    assert!(body["message"].is_string());

    app.run_for(Duration::from_secs(1)).await;
    assert_eq!(send().await.status(), 200, "it is welcome when it was told");
    app.quiet().await;
    assert_eq!(app.books("a").delivered, 30);
}

#[tokio::test]
async fn a_batch_larger_than_the_burst_is_not_refused_for_ever() {
    let fake = Fake::start();
    let app = TestApp::with_text(&limited("{ per_second = 10 }", &hook(&fake, "a", ""))).await;
    app.post("/v1/batch", &batch(50)).await.accepted();
    let refused = app.post("/v1/batch", &batch(50)).await;
    assert_eq!(refused.status, 429);
    app.run_for(Duration::from_secs(4)).await;
    assert_eq!(app.post("/v1/batch", &batch(50)).await.status, 429, "the rate is kept");
    app.run_for(Duration::from_secs(1)).await;
    app.post("/v1/batch", &batch(50)).await.accepted();
    app.quiet().await;
    assert_eq!(app.books("a").accepted, 100);
}

#[tokio::test]
async fn a_reload_keeps_what_a_source_has_left_unless_its_limit_is_another() {
    let fake = Fake::start();
    let rule = |per_second: usize, version: usize| {
        limited(&format!("{{ per_second = {per_second} }}"), &hook(&fake, "a", &format!("body = {version}")))
    };
    let app = TestApp::with_text(&rule(10, 1)).await;
    app.post("/v1/batch", &batch(10)).await.accepted();
    assert!(app.reload_text(&rule(10, 2)).await);
    assert_eq!(app.post("/v1/batch", &batch(1)).await.status, 429);
    assert!(app.reload_text(&rule(20, 2)).await);
    app.post("/v1/batch", &batch(20)).await.accepted();
    assert_eq!(app.post("/v1/batch", &batch(1)).await.status, 429);
}

#[tokio::test]
async fn a_source_without_a_limit_is_not_held_back_by_one_that_has_one() {
    let fake = Fake::start();
    let other = "[sources.other]\nwrite_keys = [\"other\"]\n".to_owned() + &hook(&fake, "a", "");
    let app = TestApp::with_text(&limited("{ per_second = 1 }", &other)).await;
    app.post("/v1/batch", &batch(10)).await.accepted();
    assert_eq!(app.post("/v1/batch", &batch(10)).await.status, 429);
    let mut body = batch(2000);
    body["writeKey"] = json!("other");
    for _ in 0..3 {
        app.post_bare("/v1/batch", &body).await.accepted();
    }
}

#[tokio::test]
async fn the_file_says_what_an_unknown_key_hears_and_a_reload_changes_it() {
    let fake = Fake::start();
    let file = |policy: &str| format!("[server]\nunknown_key = \"{policy}\"\n{HEAD}{}", hook(&fake, "a", ""));
    let app = TestApp::with_text(&file("reject")).await;
    let event = json!({"writeKey": "nobody's", "userId": "u1", "event": "Any"});
    let heard = app.post_bare("/v1/track", &event).await;
    assert_eq!((heard.status, &heard.body["code"]), (400, &json!("invalid_write_key")));

    assert!(app.reload_text(&file("accept")).await);
    app.post_bare("/v1/track", &event).await.accepted();
    app.quiet().await;
    assert_eq!(app.books("a").accepted, 0, "its events are discarded");
}

// --- tracking plans

/// A file with one plan and one destination.
fn planned(fake: &Fake, plan: &str) -> String {
    format!("[plan.orders]\non = \"track:Order *\"\n{plan}\n{}", hook(fake, "a", ""))
}

const SCHEMA: &str = "schema = { type = 'object', required = ['total'], properties = { total = { type = 'number', minimum = 0 } } }\nschema_of = 'properties'\n";

#[tokio::test]
async fn an_event_that_breaks_a_plan_goes_on_with_what_is_wrong_written_on_it() {
    let fake = Fake::start();
    let rules = "[[destinations.a.rules]]\nwhen = \"$.context.violations\"\npath = \"/wrong\"\nfinal = true\n[[destinations.a.rules]]\npath = \"/right\"\n";
    let plan = "require = ['$.properties.order_id']\ncheck = ['$.properties.total < 1000', '{{ properties.currency in [\"EUR\"] }}']\n";
    let app = TestApp::start(&(planned(&fake, &format!("{plan}{SCHEMA}")) + rules)).await;

    app.track_with("u1", "Order Completed", json!({"order_id": 1, "total": 5, "currency": "EUR"})).await;
    app.track_with("u1", "Order Completed", json!({"order_id": null, "total": "much", "currency": "USD"})).await;
    app.track_with("u1", "Other", json!({})).await;
    app.quiet().await;

    let requests = fake.requests();
    let paths: Vec<&str> = requests.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(paths, ["/a/right", "/a/wrong", "/a/right"]);
    let expected = json!([
        {"plan": "orders", "rule": "require[0]", "path": "$.properties.order_id", "message": "is missing"},
        {"plan": "orders", "rule": "check[0]", "message": "does not hold: $.properties.total < 1000"},
        {"plan": "orders", "rule": "check[1]", "message": "does not hold: {{ properties.currency in [\"EUR\"] }}"},
        {"plan": "orders", "rule": "schema", "keyword": "type", "path": "$.properties.total", "message": "it is not of type \"number\""},
    ]);
    assert_eq!(requests[1].body["context"]["violations"], expected);
    assert_eq!(requests[1].body["properties"]["total"], "much", "the rest is as it was sent");
    let untouched = requests[0].body["context"].get("violations");
    assert_eq!(untouched, None);
}

#[tokio::test]
async fn nobody_but_a_plan_says_what_is_wrong_and_not_endlessly() {
    let fake = Fake::start();
    let schema = "schema = { additionalProperties = { type = 'string', maxLength = 3 } }\nschema_of = 'properties'\n";
    let app = TestApp::start(&planned(&fake, schema)).await;
    let properties: serde_json::Map<String, Value> =
        (0..30).map(|n| (format!("{n}{}", "k".repeat(300)), json!("secret".repeat(100)))).collect();
    let event = json!({
        "userId": "u1", "event": "Order Placed", "properties": properties,
        "context": {"violations": ["mine"], "other": 1},
    });
    app.post("/v1/track", &event).await.accepted();
    app.quiet().await;
    let context = &fake.bodies()[0]["context"];
    let violations = context["violations"].as_array().unwrap();
    assert_eq!((violations.len(), &context["other"]), (10, &json!(1)));
    let text = context["violations"].to_string();
    assert!(text.len() < 10 * 500 && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_plan_that_rejects_discards_at_the_door_and_a_strict_door_says_why() {
    let fake = Fake::start();
    let file = |strict: bool| {
        let plan = planned(&fake, "require = '$.properties.order_id'\non_violation = 'reject'\n");
        format!("[server]\nstrict = {strict}\n{HEAD}{plan}")
    };
    let app = TestApp::with_text(&file(false)).await;
    let good = json!({"type": "track", "userId": "u1", "event": "Order Completed", "properties": {"order_id": 7}});
    let bad = json!({"type": "track", "userId": "u1", "event": "Order Completed"});
    let other = json!({"type": "page", "userId": "u1", "name": "Order Completed"});
    let batch = json!({"batch": [bad, good, other]});

    app.post("/v1/batch", &batch).await.accepted();
    app.quiet().await;
    assert_eq!(fake.requests().len(), 2, "its neighbours are kept");
    let metrics = client().get(format!("http://{}/metrics", app.address)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("libroseg_discarded_messages_total{code=\"plan_violation\"} 1\n"), "{metrics}");

    assert!(app.reload_text(&file(true)).await);
    let refused = app.post("/v1/batch", &batch).await;
    assert_eq!(refused.status, 400);
    let detail = &refused.body["details"][0];
    assert_eq!((&detail["index"], &detail["code"]), (&json!(0), &json!("plan_violation")));
    assert_eq!(detail["message"], "plan.orders.require[0]: `$.properties.order_id` is missing");
    app.quiet().await;
    assert_eq!(fake.requests().len(), 2, "none of it is kept");
}

#[tokio::test]
async fn a_plan_makes_dead_letters_that_a_corrected_plan_heals() {
    let fake = Fake::start();
    let file = |schema_file: bool| {
        let schema = if schema_file { "schema = 'order.json'" } else { "require = '$.properties.order_id'" };
        let picky = hook(&fake, "picky", "on = \"page\"") + &hook(&fake, "ads", "consent = \"Advertising\"");
        planned(&fake, &format!("{schema}\non_violation = 'dead'\n")) + &picky
    };
    let app = TestApp::start(&file(false)).await;
    let event = json!({
        "userId": "u1", "event": "Order Completed", "properties": {"total": 3},
        "context": {"consent": {"categoryPreferences": {"Advertising": false}}},
    });
    app.post("/v1/track", &event).await.accepted();
    app.quiet().await;

    let letters = app.dead_letters("a").await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].failure.reason.code(), "plan");
    assert_eq!(letters[0].failure.detail, "plan.orders.require[0]: `$.properties.order_id` is missing");
    assert!(app.dead_letters("picky").await.is_empty() && app.dead_letters("ads").await.is_empty());
    assert_eq!((app.books("picky").filtered, app.books("ads").filtered), (1, 1), "they would not have got it");

    assert!(app.reload(&planned(&fake, "require = '$.properties.total'\non_violation = 'dead'\n")).await);
    let name = letters[0].destination.clone();
    app.app.queue.put_back(&name, vec![letters[0].event.clone()]).await.unwrap();
    app.quiet().await;
    assert_eq!(fake.requests().len(), 1);
    assert_eq!(app.books("a").delivered, 1);
}

#[tokio::test]
async fn a_schema_in_a_file_of_its_own_is_read_again_when_it_changes() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("order.json");
    let write = |least: i64| {
        let schema = json!({"properties": {"properties": {"properties": {"total": {"minimum": least}}}}});
        std::fs::write(&path, schema.to_string()).unwrap();
    };
    write(10);
    let plan = format!("schema = \"{}\"\non_violation = 'reject'\n", path.display());
    let app = TestApp::start(&planned(&fake, &plan)).await;
    let send = async || {
        app.track_with("u1", "Order Completed", json!({"total": 5})).await;
        app.quiet().await;
    };
    send().await;
    assert!(fake.requests().is_empty());

    write(0);
    assert!(app.app.refresh().await, "another schema is another plan");
    send().await;
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn a_plan_is_about_the_events_it_names_alone() {
    let fake = Fake::start();
    let plan = "sources = ['other']\nwhen = '$.properties.total'\nrequire = '$.properties.order_id'\non_violation = 'reject'\n";
    let lines = "[sources.other]\nwrite_keys = ['other']\n".to_owned() + &planned(&fake, plan);
    let app = TestApp::start(&lines).await;
    let event = |key: &str, event: &str, properties: Value| json!({"writeKey": key, "userId": event, "event": event, "properties": properties});
    for (key, name, properties) in [
        ("test_write_key", "Order A", json!({"total": 1})),
        ("other", "Order B", json!({"total": 1})),
        ("other", "Order C", json!({})),
        ("other", "Reorder", json!({"total": 1})),
    ] {
        app.post_bare("/v1/track", &event(key, name, properties)).await.accepted();
    }
    app.quiet().await;
    assert_eq!(users(&fake, "/a"), ["Order A", "Order C", "Reorder"].map(str::to_owned).into());
}

#[test]
fn the_tests_of_a_file_walk_through_its_plans() {
    let file = |on_violation: &str, promise: &str| {
        format!(
            "[sources.web]\nwrite_keys = ['k']\n[plan.orders]\nrequire = '$.properties.id'\non_violation = '{on_violation}'\n\
             [destinations.a]\nurl = 'https://a.example.com'\nbody = {{ wrong = '{{{{ context.violations[0].path }}}}' }}\n\
             [[tests]]\nname = 'n'\ndestination = 'a'\nevent = '{{\"type\":\"track\",\"userId\":\"u\",\"event\":\"E\"}}'\n{promise}\n"
        )
    };
    let failures = |on_violation, promise: &str| {
        let text = file(on_violation, promise);
        let read_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let variables = std::collections::BTreeMap::new();
        let environment = config::Environment {
            variables,
            read_file: &read_file,
            unset: config::Unset::Mistake,
            target: config::Target::default(),
        };
        let compiled = config::compile(&text, &environment).unwrap_or_else(|found| panic!("{found:?}"));
        let report = libroseg::rehearse::run(&text, &compiled.cases[0]);
        report.failures.into_iter().map(|failure| failure.message).collect::<Vec<_>>()
    };
    assert_eq!(failures("tag", "expect = '[{\"body\":{\"wrong\":\"$.properties.id\"}}]'"), Vec::<String>::new());
    assert_eq!(failures("dead", "outcome = 'dead'"), Vec::<String>::new());
    assert!(failures("reject", "outcome = 'dead'")[0].contains("plan_violation"));
}

// --- overflow

/// The binary with a queue in memory and these lines.
fn binary(lines: &str) -> (tempfile::TempDir, Binary) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    let server = "[server]\nlisten = \"127.0.0.1:0\"\nshutdown_timeout = \"8s\"\n";
    std::fs::write(&path, format!("{server}{HEAD_IN_MEMORY}{lines}")).unwrap();
    let binary = Binary::start(&path);
    (folder, binary)
}

async fn send(binary: &Binary, id: &str, integrations: Value) {
    let event = json!({"userId": "u1", "event": "Any", "messageId": id, "integrations": integrations}).to_string();
    let request = client().post(format!("{}/v1/track", binary.url)).basic_auth(KEY, Some("")).body(event);
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_destination_was_not_given_in_time_is_handed_to_its_overflow() {
    let (crm, backup) = (Fake::start(), Fake::start());
    crm.then_always(Answer::status(503));
    let lines = hook(&crm, "crm", "overflow = \"backup\"") + &hook(&backup, "backup", "when = \"$.context.overflow\"");
    let (_folder, mut binary) = binary(&lines);
    send(&binary, "m1", json!({})).await;
    send(&binary, "m2", json!({"All": false, "crm": true})).await;
    crm.has(2).await;
    assert!(backup.requests().is_empty());

    binary.signal("TERM");

    assert_eq!(binary.wait().code(), Some(0));
    let mut handed: Vec<(String, String)> = backup
        .bodies()
        .iter()
        .map(|body| {
            (body["messageId"].as_str().unwrap().to_owned(), body["context"]["overflow"].as_str().unwrap().to_owned())
        })
        .collect();
    handed.sort();
    assert_eq!(handed, [("m1".to_owned(), "crm".to_owned()), ("m2".to_owned(), "crm".to_owned())]);
    assert!(binary.log().contains("undelivered events were handed over"), "{}", binary.log());
    assert!(!binary.log().contains("lost"), "{}", binary.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_overflow_does_not_take_goes_on_to_its_own_and_is_told_by_id_when_nobody_does() {
    let (crm, second, third) = (Fake::start(), Fake::start(), Fake::start());
    crm.then_always(Answer::hang());
    second.then_always(Answer::status(503));
    third.then_always(Answer::status(400));
    let lines = hook(&crm, "crm", "overflow = \"second\"")
        + &hook(&second, "second", "when = \"$.context.overflow\"\noverflow = \"third\"")
        + &hook(&third, "third", "when = \"$.context.overflow\"");
    let (_folder, mut binary) = binary(&lines);
    send(&binary, "the-lost-one", json!({})).await;
    crm.has(1).await;

    binary.signal("TERM");

    assert_eq!(binary.wait().code(), Some(0));
    assert!(!second.requests().is_empty() && !third.requests().is_empty());
    let log = binary.log();
    assert!(log.contains("undelivered events are lost") && log.contains("the-lost-one"), "{log}");
}
