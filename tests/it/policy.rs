//! Who may send how much, and which events reach a destination: consent, samples, rate limits, tracking plans, overflow.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Fake, TestApp};

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
