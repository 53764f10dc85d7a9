//! Batches: by count, by bytes, by age, by key; with an envelope; judged item by item.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Fake, TestApp};

fn crm(fake: &Fake, batch: &str) -> String {
    format!(
        "[destinations.crm]\nurl = \"{}\"\nbody = {{ id = \"{{{{ userId }}}}\" }}\nlimit = {{ concurrency = 1 }}\nbatch = {batch}\n",
        fake.url()
    )
}

fn ids(body: &Value) -> Vec<&str> {
    body.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_full_batch_goes_at_once_and_the_rest_when_it_is_old_enough() {
    let fake = Fake::start();
    let app = TestApp::start(&crm(&fake, r#"{ max_events = 3, max_age = "10s" }"#)).await;

    app.track_many(7).await;
    app.quiet().await;
    assert_eq!(fake.requests().len(), 2);

    app.run_for(Duration::from_secs(9)).await;
    assert_eq!(fake.requests().len(), 2, "the third batch is not old enough");
    app.run_for(Duration::from_secs(1)).await;

    let bodies = fake.bodies();
    assert_eq!(bodies.iter().map(ids).collect::<Vec<_>>(), [vec!["0", "1", "2"], vec!["3", "4", "5"], vec!["6"]]);
    assert_eq!(app.books("crm").delivered, 7);
}

#[tokio::test]
async fn a_batch_never_outgrows_its_bytes() {
    let fake = Fake::start();
    let batch = r#"{ max_events = 100, max_bytes = "60B", max_age = "1s", body = { rows = "{{ items }}" } }"#;
    let app = TestApp::start(&crm(&fake, batch)).await;

    app.track_many(20).await;
    app.run_for(Duration::from_secs(2)).await;

    let requests = fake.requests();
    assert!(requests.iter().all(|request| request.wire.len() <= 60), "{requests:?}");
    assert!(requests.len() < 20, "several share a request");
    let rows: usize = requests.iter().map(|request| request.body["rows"].as_array().unwrap().len()).sum();
    assert_eq!(rows, 20);
}

#[tokio::test]
async fn only_items_of_equal_keys_share_a_request() {
    let fake = Fake::start();
    let batch = r#"{ max_events = 10, max_age = "1s", by = "{{ event }}" }"#;
    let app = TestApp::start(&crm(&fake, batch)).await;

    for (user, event) in [("1", "A"), ("2", "B"), ("3", "A")] {
        app.track(user, event).await;
    }
    app.run_for(Duration::from_secs(2)).await;

    let bodies = fake.bodies();
    assert_eq!(bodies.iter().map(ids).collect::<Vec<_>>(), [vec!["1", "3"], vec!["2"]]);
}

#[tokio::test]
async fn items_of_different_urls_do_not_share_a_request() {
    let fake = Fake::start();
    let lines = format!(
        "[destinations.crm]\nurl = \"{}\"\npath = \"/{{{{ event }}}}\"\nbody = {{ id = \"{{{{ userId }}}}\" }}\nbatch = {{ max_events = 10, max_age = \"1s\" }}\n",
        fake.url()
    );
    let app = TestApp::start(&lines).await;

    for (user, event) in [("1", "a"), ("2", "b"), ("3", "a")] {
        app.track(user, event).await;
    }
    app.run_for(Duration::from_secs(2)).await;

    let mut paths: Vec<String> = fake.requests().into_iter().map(|request| request.path).collect();
    paths.sort();
    assert_eq!(paths, ["/a", "/b"]);
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved_until_the_culprit_is_found() {
    let fake = Fake::replying([413, 413, 413].map(Answer::status));
    let app = TestApp::start(&crm(&fake, r#"{ max_events = 4, max_age = "1s" }"#)).await;

    app.track_many(4).await;
    app.quiet().await;

    let bodies = fake.bodies();
    let sizes: Vec<usize> = bodies.iter().map(|body| ids(body).len()).collect();
    assert_eq!(sizes, [4, 2, 1, 1, 2]);
    assert_eq!((app.books("crm").delivered, app.books("crm").dead), (3, 1));
    assert_eq!(app.dead_letters("crm").await[0].event.message_id.as_str(), "many-0");
}

#[tokio::test]
async fn one_bad_event_does_not_take_its_batch_along() {
    let fake = Fake::replying([400, 200, 400, 200, 422].map(Answer::status));
    let app = TestApp::start(&crm(&fake, r#"{ max_events = 4, max_age = "1s" }"#)).await;

    app.track_many(4).await;
    app.quiet().await;

    assert_eq!(
        fake.bodies().iter().map(ids).collect::<Vec<_>>(),
        [vec!["0", "1", "2", "3"], vec!["0", "1"], vec!["2", "3"], vec!["2"], vec!["3"],]
    );
    assert_eq!((app.books("crm").delivered, app.books("crm").dead), (3, 1));
    assert_eq!(app.dead_letters("crm").await[0].event.message_id.as_str(), "many-3");
}

#[tokio::test]
async fn a_reply_that_judges_item_by_item_is_heard_item_by_item() {
    let errors = json!({ "insertErrors": [
        { "index": 1, "errors": [{ "reason": "invalid" }] },
        { "index": 2, "errors": [{ "reason": "backendError" }] },
    ] });
    let fake = Fake::replying([Answer::status(200).body(&errors.to_string())]);
    let rule = r#"
[[destinations.crm.response]]
each = "$.body.insertErrors[*]"
index = "{{ item.index }}"
then = "{{ 'retry' if item.errors[0].reason == 'backendError' else 'dead' }}"
"#;
    let app = TestApp::start(&format!("{}{rule}", crm(&fake, r#"{ max_events = 4, max_age = "1s" }"#))).await;

    app.track_many(4).await;
    app.quiet().await;
    let books = app.books("crm");
    assert_eq!((books.delivered, books.dead, books.later), (2, 1, 1));

    app.run_for(Duration::from_mins(1)).await;
    assert_eq!(ids(&fake.bodies()[1]), ["2"]);
    assert_eq!((app.books("crm").delivered, app.books("crm").dead), (3, 1));
    let letter = &app.dead_letters("crm").await[0];
    assert_eq!(letter.event.message_id.as_str(), "many-1");
    assert!(letter.failure.detail.contains("invalid"), "{:?}", letter.failure);
}

#[tokio::test]
async fn response_rules_turn_statuses_around() {
    let fake = Fake::replying([
        Answer::status(400).body(r#"{"error":{"is_transient":true}}"#),
        Answer::status(409),
        Answer::status(404),
    ]);
    let lines = format!(
        r#"
[destinations.crm]
url = "{}"
limit = {{ concurrency = 1 }}
[[destinations.crm.response]]
when = "$.body.error.is_transient == true"
then = "retry"
[[destinations.crm.response]]
when = "$.status == 409"
then = "ok"
[[destinations.crm.response]]
when = "$.status == 404"
then = "drop"
"#,
        fake.url()
    );
    let app = TestApp::start(&lines).await;

    app.track_many(3).await;
    app.run_for(Duration::from_mins(1)).await;

    let books = app.books("crm");
    assert_eq!((books.delivered, books.dropped, books.dead), (2, 1, 0));
    assert_eq!(fake.requests().len(), 4);
}

#[tokio::test]
async fn elements_of_one_event_share_a_batch_with_others() {
    let fake = Fake::start();
    let lines = format!(
        r#"
[destinations.crm]
url = "{}"
each = "$.properties.products[*]"
body = {{ sku = "{{{{ item }}}}" }}
batch = {{ max_events = 10, max_age = "1s" }}
"#,
        fake.url()
    );
    let app = TestApp::start(&lines).await;

    app.track_with("1", "A", json!({ "products": ["a", "b"] })).await;
    app.track_with("2", "A", json!({ "products": ["c"] })).await;
    app.track_with("3", "A", json!({ "products": [] })).await;
    app.run_for(Duration::from_secs(2)).await;

    assert_eq!(fake.bodies(), [json!([{ "sku": "a" }, { "sku": "b" }, { "sku": "c" }])]);
    assert_eq!((app.books("crm").delivered, app.books("crm").filtered), (2, 1));
}

#[tokio::test]
async fn batches_that_wait_for_company_do_not_stop_the_flow() {
    let fake = Fake::start();
    let batch = r#"{ max_events = 10, max_age = "1h", by = "{{ userId }}" }"#;
    let app = TestApp::start(&crm(&fake, batch)).await;

    app.track_many(5000).await;
    app.quiet().await;

    let sent = fake.requests().len();
    assert!(sent >= 4000, "each user has a batch of its own, and there is no room for 5000 of them: {sent}");
    app.run_for(Duration::from_hours(1)).await;
    assert_eq!(app.books("crm").delivered, 5000);
}
