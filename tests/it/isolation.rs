//! A destination that hangs, errors or is slow delays itself only.

use std::time::Duration;

use serde_json::json;

use crate::support::{Answer, Fake, PATIENCE, TestApp, eventually};

#[tokio::test]
async fn a_dead_destination_changes_nothing_for_the_others() {
    let (well, dead, hanging) = (Fake::start(), Fake::start(), Fake::start());
    dead.then_always(Answer::status(503));
    hanging.then_always(Answer::hang());
    let lines = format!(
        "[destinations.well]\nurl = \"{}\"\n[destinations.dead]\nurl = \"{}\"\n[destinations.hanging]\nurl = \"{}\"\n\
         [destinations.refusing]\nurl = \"http://127.0.0.1:1\"\n",
        well.url(),
        dead.url(),
        hanging.url()
    );
    let app = TestApp::start(&lines).await;

    app.track_many(3000).await;
    eventually("all are delivered to the one that is well", || app.books("well").delivered == 3000).await;

    for sick in ["dead", "hanging", "refusing"] {
        let books = app.books(sick);
        assert_eq!((books.delivered, books.waiting()), (0, 3000), "{sick}");
    }
    hanging.let_go();
    eventually("those that hung are delivered", || app.books("hanging").delivered == 3000).await;
}

#[tokio::test]
async fn an_event_on_which_a_rule_runs_away_is_a_dead_letter_and_its_neighbours_pass() {
    let fake = Fake::start();
    let lines = format!(
        "[destinations.crm]\nurl = \"{}\"\nbody = {{ n = \"{{{{ range(properties.n * 1000000) | list | length }}}}\" }}\n",
        fake.url()
    );
    let app = TestApp::start(&lines).await;

    for n in [0, 1000, 0] {
        app.track_with("u1", "Any", json!({ "n": n })).await;
    }
    app.quiet().await;

    assert_eq!((app.books("crm").delivered, app.books("crm").dead), (2, 1));
}

#[tokio::test]
async fn a_full_queue_answers_503_and_recovers_by_itself() {
    let fake = Fake::start();
    fake.then_always(Answer::hang());
    let text = format!(
        "[sources.test]\nwrite_keys = [\"test_write_key\"]\n[queue]\ntype = \"memory\"\nmax_size = \"1MB\"\n[destinations.crm]\nurl = \"{}\"\n",
        fake.url()
    );
    let app = TestApp::with_text(&text).await;

    let event = json!({ "userId": "u1", "event": "Any", "properties": { "text": "x".repeat(10_000) } });
    let mut accepted = 0;
    let refused = tokio::time::timeout(PATIENCE, async {
        loop {
            let heard = app.post("/v1/track", &event).await;
            if heard.status != 200 {
                return heard;
            }
            accepted += 1;
            assert!(accepted < 5000, "the queue never fills");
        }
    });
    let refused = refused.await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.body["code"].is_string() && refused.body["message"].is_string());

    fake.let_go();
    eventually("everything accepted is delivered", || app.books("crm").delivered == accepted).await;
    app.post("/v1/track", &event).await.accepted();
    app.run_for(Duration::from_secs(1)).await;
    assert_eq!(app.books("crm").delivered, accepted + 1);
}
