//! What becomes of an event whose destination does not take it at once.

use std::time::Duration;

use jiff::SignedDuration;
use libroseg::attempt::{Attempts, Failure, Outcome, Reason, Verdict};
use libroseg::retry::{Health, RetryPolicy, decide};
use proptest::prelude::*;
use serde_json::json;

use crate::support::{Answer, Fake, TestApp, eventually};

fn crm(fake: &Fake, more: &str) -> String {
    format!(
        "[destinations.crm]\nurl = \"{}\"\nbody = {{ id = \"{{{{ userId }}}}\" }}\nlimit = {{ concurrency = 1 }}\n{more}\n",
        fake.url()
    )
}

#[tokio::test]
async fn an_accepted_event_outlives_an_outage_of_its_destination() {
    let fake = Fake::replying([503, 500, 429].map(Answer::status));
    let app = TestApp::start(&crm(&fake, "")).await;

    app.track("u1", "Signed Up").await;
    app.run_for(Duration::from_mins(30)).await;

    assert_eq!(fake.requests().len(), 4);
    assert_eq!(fake.requests()[3].body, json!({ "id": "u1" }));
    assert_eq!(app.books("crm").delivered, 1);
}

#[tokio::test]
async fn every_status_means_what_the_table_says() {
    let retried = [408, 425, 429, 500, 502, 503, 504, 529];
    let refused = [300, 301, 302, 307, 400, 404, 405, 409, 410, 422, 451, 501, 505];
    for status in retried.into_iter().chain(refused) {
        let fake = Fake::replying([Answer::status(status)]);
        let app = TestApp::start(&crm(&fake, "")).await;
        app.track("u1", "Any").await;
        app.run_for(Duration::from_mins(1)).await;
        let books = app.books("crm");
        let expected = if retried.contains(&status) { (1, 0) } else { (0, 1) };
        assert_eq!((books.delivered, books.dead), expected, "status {status}");
    }
    for status in [200, 201, 202, 204, 299] {
        let fake = Fake::replying([Answer::status(status)]);
        let app = TestApp::start(&crm(&fake, "")).await;
        app.track("u1", "Any").await;
        app.quiet().await;
        assert_eq!(app.books("crm").delivered, 1, "status {status}");
    }
}

#[tokio::test]
async fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    let date = "Fri, 02 Jan 2026 03:08:05 GMT";
    let fake = Fake::replying([
        Answer::status(429).header("retry-after", "120"),
        Answer::status(503).header("retry-after", date),
    ]);
    let app = TestApp::start(&crm(&fake, "")).await;

    app.track("u1", "Any").await;
    app.run_for(Duration::from_secs(119)).await;
    assert_eq!(fake.requests().len(), 1);
    app.run_for(Duration::from_secs(1)).await;
    assert_eq!(fake.requests().len(), 2);
    app.run_for(Duration::from_secs(119)).await;
    assert_eq!(fake.requests().len(), 2);
    app.run_for(Duration::from_secs(2)).await;
    assert_eq!((fake.requests().len(), app.books("crm").delivered), (3, 1));
}

#[tokio::test]
async fn an_event_is_given_up_on_after_its_time_or_its_tries_and_says_why() {
    let fake = Fake::start();
    fake.then_always(Answer::status(500).body("boom"));
    let app = TestApp::start(&crm(
        &fake,
        r#"retry = { first = "1s", delay_max = "1m", give_up_after = "10m", failures_max = 1000 }"#,
    ))
    .await;
    app.track("u1", "Any").await;
    app.run_for(Duration::from_mins(9)).await;
    assert_eq!(app.books("crm").dead, 0);
    app.run_for(Duration::from_mins(3)).await;

    let letters = app.dead_letters("crm").await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].failure.reason, letters[0].failure.detail.as_str()), (Reason::Status(500), "boom"));
    assert!(letters[0].attempts.count > 3);
    assert_eq!(letters[0].attempts.count as usize, fake.requests().len());
    drop(app);

    let fake = Fake::start();
    fake.then_always(Answer::status(500));
    let app = TestApp::start(&crm(&fake, "retry = { attempts_max = 3 }")).await;
    app.track("u1", "Any").await;
    app.run_for(Duration::from_hours(1)).await;
    assert_eq!((fake.requests().len(), app.books("crm").dead), (3, 1));
}

#[tokio::test]
async fn a_destination_that_refuses_our_credentials_rests_and_loses_nothing() {
    let fake = Fake::start();
    fake.then_always(Answer::status(401));
    let app = TestApp::start(&crm(&fake, r#"retry = { give_up_after = "1h" }"#)).await;

    app.track_many(50).await;
    app.run_for(Duration::from_hours(2)).await;
    let probes = fake.requests().len();
    assert!((100..=125).contains(&probes), "one probe a minute: {probes}");
    assert_eq!((app.books("crm").waiting(), app.books("crm").dead), (50, 0));

    fake.then_always(Answer::status(200));
    app.run_for(Duration::from_mins(3)).await;
    assert_eq!(app.books("crm").delivered, 50);
}

#[tokio::test]
async fn a_destination_that_fails_again_and_again_is_left_alone_and_comes_back() {
    let fake = Fake::start();
    fake.then_always(Answer::status(503));
    let app = TestApp::start(&crm(&fake, "")).await;

    app.track_many(500).await;
    app.run_for(Duration::from_hours(1)).await;
    let sent = fake.requests().len();
    assert!(sent < 60, "it is probed, not hammered: {sent}");
    assert_eq!(app.books("crm").waiting(), 500);

    fake.then_always(Answer::status(200));
    app.run_for(Duration::from_mins(30)).await;
    assert_eq!(app.books("crm").delivered, 500);
}

#[tokio::test]
async fn only_the_request_that_failed_is_made_again() {
    let fake = Fake::replying([Answer::status(200), Answer::status(503)]);
    let lines = format!(
        "[destinations.crm]\nurl = \"{}\"\n[[destinations.crm.rules]]\npath = \"/a\"\n[[destinations.crm.rules]]\npath = \"/b\"\n",
        fake.url()
    );
    let app = TestApp::start(&lines).await;

    app.track("u1", "Any").await;
    app.run_for(Duration::from_mins(1)).await;

    let paths: Vec<String> = fake.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/a", "/b", "/b"]);
    assert_eq!(app.books("crm").delivered, 1);
}

#[tokio::test]
async fn a_refused_request_does_not_hold_back_the_next_and_makes_the_event_a_dead_letter() {
    let fake = Fake::replying([Answer::status(400), Answer::status(503)]);
    let lines = format!(
        "[destinations.crm]\nurl = \"{}\"\n[[destinations.crm.rules]]\npath = \"/a\"\n[[destinations.crm.rules]]\npath = \"/b\"\n",
        fake.url()
    );
    let app = TestApp::start(&lines).await;

    app.track("u1", "Any").await;
    app.run_for(Duration::from_mins(1)).await;

    let paths: Vec<String> = fake.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/a", "/b", "/b"]);
    assert_eq!(app.dead_letters("crm").await[0].failure.reason, Reason::Status(400));
}

#[tokio::test]
async fn waiting_events_are_bounded_and_the_rest_stays_in_the_queue() {
    let fake = Fake::start();
    fake.then_always(Answer::status(503));
    let app = TestApp::start(&crm(
        &fake,
        "waiting_max = 5\nretry = { failures_max = 1000000, first = \"1h\", delay_max = \"1h\" }",
    ))
    .await;

    app.track_many(2000).await;
    eventually("what was in hand waits", || app.books("crm").later >= 5 && app.books("crm").in_hand == 0).await;

    let books = app.books("crm");
    assert!(books.behind > 0, "{books:?}");
    assert!(books.later < 1300, "the bound and what was in hand: {books:?}");
}

#[tokio::test]
async fn a_rate_limit_spaces_requests_evenly() {
    let fake = Fake::start();
    let app = TestApp::start(&crm(&fake, "").replace("concurrency = 1", "concurrency = 8, per_second = 2")).await;

    app.track_many(20).await;
    app.run_for(Duration::from_secs(3)).await;
    let sent = fake.requests().len();
    assert!((6..=7).contains(&sent), "{sent}");
    app.run_for(Duration::from_secs(10)).await;
    assert_eq!(app.books("crm").delivered, 20);
}

fn failed(retry_after_seconds: Option<i64>) -> Outcome {
    let retry_after = retry_after_seconds.map(SignedDuration::from_secs);
    Outcome::Failed(Failure { retry_after, ..Failure::new(Reason::Timeout, "") })
}

proptest! {
    #[test]
    fn a_retry_is_never_before_now_nor_after_the_longest_delay(
        count in 1_u32..200, jitter in 0.0..1.0_f64, wish in proptest::option::of(0_i64..100_000),
    ) {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let attempts = Attempts { count, first_at: Some(now), ..Attempts::default() };
        let policy = RetryPolicy::default();
        let Verdict::RetryAt(at, _) = decide(&failed(wish), &attempts, &policy, now, jitter) else {
            return Err(TestCaseError::fail("not retried"));
        };
        let delay = at.duration_since(now);
        prop_assert!(delay >= SignedDuration::ZERO);
        prop_assert!(delay <= SignedDuration::try_from(policy.delay_max).unwrap());
        if let Some(wish) = wish {
            prop_assert!(delay >= SignedDuration::from_secs(wish).min(SignedDuration::try_from(policy.delay_max).unwrap()));
        }
    }

    #[test]
    fn a_destination_rests_exactly_after_so_many_failures_in_a_row(fails in 0_u32..30) {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let policy = RetryPolicy::default();
        let mut health = Health::default();
        for _ in 0..fails {
            health.note(&failed(None), &policy, now, 0.5);
        }
        prop_assert_eq!(health.rest().is_some(), fails >= policy.failures_max);
        prop_assert!(health.rest().is_none_or(|rest| rest.until > now));
        health.note(&Outcome::Delivered, &policy, now, 0.5);
        prop_assert!(health.rest().is_none());
    }
}
