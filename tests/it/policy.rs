//! Who may send how much, and which events reach a destination: consent, samples, rate limits, tracking plans, overflow.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::{HEAD, KEY};
use crate::support::{Fake, TestApp, client};

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
