//! Events of the log are sent again, to one destination and by the rules of today.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use libroseg::admin::{self, Fault, Moment, Range, Request};
use libroseg::attempt::Verdict;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::desk::{ask, failed, full_queue, replayed, settle_all};
use crate::support::{Answer, Fake, TestApp, eventually};

fn destination(fake: &Fake, name: &str, rest: &str) -> String {
    format!(
        "[destinations.{name}]\nurl = \"{}/{name}\"\nbody = {{ event = \"{{{{ event }}}}\" }}\n{rest}\n",
        fake.url()
    )
}

fn request(destination: &str, range: Range, dry_run: bool) -> Request {
    Request::Replay { destination: destination.to_owned(), range, rate: None, dry_run }
}

/// A house whose log keeps everything: a destination that was there at first has a place that never moves.
async fn with_a_log(lines: &str) -> TestApp {
    let app = TestApp::start(&format!("[destinations.keeper]\ntype = \"stdout\"\n{lines}")).await;
    assert!(app.reload(lines).await);
    app
}

/// What a destination was sent, in any order.
fn sent(fake: &Fake, path: &str) -> Vec<String> {
    let requests = fake.requests().into_iter().filter(|request| request.path == path);
    let mut events: Vec<String> = requests.map(|request| request.body["event"].as_str().unwrap().to_owned()).collect();
    events.sort();
    events
}

#[tokio::test]
async fn a_replay_reaches_one_destination_and_follows_the_rules_of_today() {
    let fake = Fake::start();
    let both = |rest: &str| destination(&fake, "crm", rest) + &destination(&fake, "mail", "");
    let app = with_a_log(&both("")).await;
    for event in ["Wanted", "Unwanted"] {
        app.track("u1", event).await;
    }
    app.quiet().await;
    assert_eq!(sent(&fake, "/crm"), ["Unwanted", "Wanted"]);

    assert!(app.reload(&both("on = [\"track:Wanted\"]\nheaders = { x-again = \"1\" }")).await);
    let told = replayed(ask(&app.app.desk, request("crm", Range::default(), false)).await);
    app.quiet().await;

    assert_eq!((told.in_range, told.matching, told.wanted, told.filtered, told.put_back), (2, 2, 1, 1, 1));
    assert_eq!(sent(&fake, "/crm"), ["Unwanted", "Wanted", "Wanted"]);
    assert_eq!(sent(&fake, "/mail"), ["Unwanted", "Wanted"]);
    assert!(fake.requests().last().unwrap().headers.contains_key("x-again"));
}

#[tokio::test]
async fn a_replay_is_of_a_range_of_time_and_of_what_a_filter_wants() {
    let fake = Fake::start();
    let app = with_a_log(&destination(&fake, "crm", "")).await;
    let mut times = Vec::new();
    for (event, total) in [("One", 1), ("Two", 2), ("Three", 3), ("Four", 4)] {
        times.push(Moment(app.now()));
        app.track_with("u1", event, json!({ "total": total })).await;
        app.run_for(Duration::from_hours(6)).await;
    }
    let range = |since: usize, until: usize| Range {
        since: times.get(since).copied(),
        until: times.get(until).copied(),
        filter: None,
    };
    let filter = Some("$.properties.total >= 3".to_owned());
    for (range, expected) in [
        (range(1, 3), (2, 2)),
        (range(9, 2), (2, 2)),
        (range(2, 9), (2, 2)),
        (range(2, 2), (0, 0)),
        (Range { filter: filter.clone(), ..range(0, 9) }, (4, 2)),
        (Range { filter, ..range(0, 3) }, (3, 1)),
    ] {
        let told = replayed(ask(&app.app.desk, request("crm", range.clone(), true)).await);
        assert_eq!((told.in_range, told.matching), expected, "{range:?}");
    }

    let told = replayed(ask(&app.app.desk, request("crm", range(1, 3), false)).await);
    app.quiet().await;
    assert_eq!(told.put_back, 2);
    assert_eq!(sent(&fake, "/crm"), ["Four", "One", "Three", "Three", "Two", "Two"]);
}

#[tokio::test]
async fn a_dry_run_tells_what_would_happen_and_sends_nothing() {
    let fake = Fake::start();
    let rest = "on = [\"track\"]\nwhen = \"$.event != 'Unwanted'\"\nheaders = { x-user = \"{{ userId | required }}\" }";
    let app = with_a_log(&destination(&fake, "crm", "")).await;
    app.post("/v1/track", &json!({ "anonymousId": "a1", "event": "Failing", "messageId": "m1" })).await.accepted();
    for event in ["Wanted", "Unwanted", "Wanted"] {
        app.track("u1", event).await;
    }
    app.quiet().await;
    assert!(app.reload(&destination(&fake, "crm", rest)).await);

    let told = replayed(ask(&app.app.desk, request("crm", Range::default(), true)).await);
    app.quiet().await;

    assert_eq!((told.in_range, told.wanted, told.filtered, told.failing), (4, 2, 1, 1));
    assert_eq!((told.put_back, fake.requests().len()), (0, 4));
    insta::assert_snapshot!(serde_json::to_string_pretty(&told).unwrap());
}

#[tokio::test]
async fn what_was_replayed_is_not_replayed_again_beside_its_original() {
    let fake = Fake::start();
    let app = with_a_log(&destination(&fake, "crm", "")).await;
    app.track_many(3).await;
    app.quiet().await;
    for times in 2..5 {
        let told = replayed(ask(&app.app.desk, request("crm", Range::default(), false)).await);
        app.quiet().await;
        assert_eq!((told.put_back, fake.requests().len()), (3, times * 3));
    }
}

#[tokio::test]
async fn a_long_log_is_replayed_whole() {
    let fake = Fake::start();
    let batched = destination(&fake, "crm", "batch = { max_events = 500, max_age = \"100ms\" }");
    let app = with_a_log(&batched).await;
    app.track_many(1000).await;
    app.run_for(Duration::from_secs(1)).await;
    assert_eq!(app.books("crm").delivered, 1000);

    let told = replayed(ask(&app.app.desk, request("crm", Range::default(), false)).await);
    app.run_for(Duration::from_secs(1)).await;

    assert_eq!((told.in_range, told.put_back, app.books("crm").delivered), (1000, 1000, 2000));
}

#[tokio::test]
async fn events_that_come_anyway_are_left_out() {
    let fake = Fake::start();
    fake.then_always(Answer::status(503));
    let app = with_a_log(&destination(&fake, "crm", "")).await;
    app.track("u1", "Waiting").await;
    app.quiet().await;
    assert_eq!(app.books("crm").later, 1);

    let told = replayed(ask(&app.app.desk, request("crm", Range::default(), false)).await);

    assert_eq!((told.in_range, told.put_back, told.still_to_come), (0, 0, 1));
}

#[tokio::test]
async fn events_that_are_in_hand_are_left_out() {
    let fake = Fake::start();
    let app = with_a_log(&destination(&fake, "crm", "batch = { max_events = 10, max_age = \"1h\" }")).await;
    app.track("u1", "Batched").await;
    app.quiet().await;
    assert_eq!(app.books("crm").in_hand, 1);

    let told = replayed(ask(&app.app.desk, request("crm", Range::default(), false)).await);

    assert_eq!((told.in_range, told.put_back, told.still_to_come), (0, 0, 1));
}

#[tokio::test]
async fn a_destination_without_rules_in_force_is_not_replayed_to() {
    let fake = Fake::start();
    let off = destination(&fake, "off", "enabled = false");
    let app = TestApp::start(&(destination(&fake, "crm", "") + &off)).await;
    for (name, message) in [("crn", "there is no destination `crn`"), ("off", "`off` is off")] {
        let failed = failed(&ask(&app.app.desk, request(name, Range::default(), false)).await);
        assert_eq!(failed.fault, Fault::Unable);
        assert!(failed.message.contains(message), "{failed:?}");
    }
}

#[tokio::test]
async fn a_rate_spaces_what_is_sent_again() {
    let fake = Fake::start();
    let app = with_a_log(&destination(&fake, "crm", "")).await;
    app.track_many(5).await;
    app.quiet().await;
    let desk = Arc::clone(&app.app.desk);
    let range = Range::default();
    let paced = Request::Replay { destination: "crm".to_owned(), range, rate: Some(10.0), dry_run: false };
    let replay = tokio::spawn(async move { replayed(ask(&desk, paced).await) });

    let gap = SignedDuration::from_millis(100);
    for again in 1..5 {
        let next = app.now() + gap;
        eventually("it waits for its turn", || app.clock.next_wake().is_some_and(|wake| wake <= next)).await;
        app.quiet().await;
        assert_eq!(fake.requests().len(), 5 + again, "one at a time");
        app.clock.advance_to(next);
    }
    assert_eq!(replay.await.unwrap().put_back, 5);
    app.quiet().await;
    assert_eq!(fake.requests().len(), 10);
}

#[tokio::test]
async fn a_replay_ends_when_nobody_listens_any_more() {
    let fake = Fake::start();
    let app = with_a_log(&destination(&fake, "crm", "")).await;
    app.track_many(5).await;
    app.quiet().await;
    let (sender, mut answers) = mpsc::channel(1);
    let desk = Arc::clone(&app.app.desk);
    let range = Range::default();
    let paced = Request::Replay { destination: "crm".to_owned(), range, rate: Some(1.0), dry_run: false };
    let replay = tokio::spawn(async move { admin::run(&desk, paced, sender).await });

    assert!(answers.recv().await.is_some());
    drop(answers);
    replay.await.unwrap();
    app.quiet().await;
    assert_eq!(fake.requests().len(), 6, "no more than was put back by then");
}

// === a full queue ===

#[tokio::test]
async fn a_full_queue_is_waited_for_and_nothing_is_left_out() {
    let desk = Arc::new(full_queue(true, &Verdict::Delivered).await);
    let (sender, mut answers) = mpsc::channel(admin::ANSWERS_MAX);
    let worker = Arc::clone(&desk);
    let replay =
        tokio::spawn(async move { admin::run(&worker, request("crm", Range::default(), false), sender).await });

    let waits = loop {
        match answers.recv().await {
            Some(admin::Answer::Progress(progress)) if progress.waits.is_some() => break progress,
            Some(_) => {}
            None => panic!("it did not wait"),
        }
    };
    assert!(waits.waits.unwrap().contains("the queue is full"));
    assert_eq!(waits.done, 2, "what there is room for");
    settle_all(desk.queue.as_ref(), "keeper", &Verdict::Delivered).await;
    settle_all(desk.queue.as_ref(), "crm", &Verdict::Delivered).await;
    desk.clock.advance_to(desk.clock.now() + SignedDuration::from_secs(1));

    let mut told = None;
    while let Some(answer) = answers.recv().await {
        if let admin::Answer::Replayed(replayed) = answer {
            told = Some(replayed);
        }
    }
    replay.await.unwrap();
    assert_eq!(told.unwrap().put_back, 6);
    settle_all(desk.queue.as_ref(), "crm", &Verdict::Delivered).await;
    assert_eq!(desk.queue.books(&"crm".into()).unwrap().delivered, 12);
}

#[tokio::test]
async fn without_a_service_a_full_queue_is_told_because_nobody_would_empty_it() {
    let desk = full_queue(false, &Verdict::Delivered).await;
    let failed = failed(&ask(&desk, request("crm", Range::default(), false)).await);
    assert!(failed.message.contains("the queue is full") && failed.message.contains("2 events put back"), "{failed:?}");
    assert!(failed.help.unwrap().starts_with("start the service"));
}
