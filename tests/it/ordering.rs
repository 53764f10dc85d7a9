//! `order_by`: events of one key reach a destination in the order of acceptance, and a failing one holds back its own
//! key and no other.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::app::HEAD_IN_MEMORY;
use crate::support::{Answer, Fake, TestApp, eventually};

/// A destination that is told who did what, in which order.
fn crm(fake: &Fake, more: &str) -> String {
    let head = unordered(fake);
    format!("{head}order_by = \"{{{{ userId }}}}\"\n{more}\n")
}

fn unordered(fake: &Fake) -> String {
    format!(
        "[destinations.crm]\nurl = \"{}\"\nbody = {{ user = \"{{{{ userId }}}}\", n = \"{{{{ properties.n }}}}\" }}\n",
        fake.url()
    )
}

/// Tracks of these users, numbered in the order of acceptance.
async fn track_all(app: &TestApp, users: impl IntoIterator<Item = String>) -> usize {
    let events: Vec<Value> = users
        .into_iter()
        .enumerate()
        .map(|(n, user)| json!({ "type": "track", "userId": user, "event": "Any", "properties": { "n": n } }))
        .collect();
    for batch in events.chunks(500) {
        app.post("/v1/batch", &json!({ "batch": batch })).await.accepted();
    }
    events.len()
}

/// Who and which, of every request or element of one, as far as a filter likes the request's number.
fn seen(fake: &Fake, is_wanted: impl Fn(usize) -> bool) -> Vec<Vec<(String, u64)>> {
    let told = |item: &Value| (item["user"].as_str().unwrap().to_owned(), item["n"].as_u64().unwrap());
    let bodies = fake.bodies().into_iter().enumerate().filter(|(index, _)| is_wanted(*index));
    bodies
        .map(|(_, body)| body.as_array().map_or_else(|| vec![told(&body)], |all| all.iter().map(told).collect()))
        .collect()
}

fn requests(fake: &Fake) -> Vec<(String, u64)> {
    seen(fake, |_| true).concat()
}

fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(user, n)| ((*user).to_owned(), *n)).collect()
}

/// Asserts that no key went backwards, and answers how many events there were.
#[track_caller]
fn assert_in_order(delivered: &[(String, u64)]) -> usize {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for (user, n) in delivered {
        let before = last.insert(user, *n);
        assert!(before.is_none_or(|before| before < *n), "{user}: {n} after {before:?}");
    }
    delivered.len()
}

fn users(names: &str) -> Vec<String> {
    names.chars().map(String::from).collect()
}

fn failing_for(seconds: u32) -> Answer {
    Answer::status(503).header("retry-after", &seconds.to_string())
}

#[tokio::test]
async fn a_failing_event_holds_back_its_own_key_and_no_other() {
    let fake = Fake::replying([failing_for(60)]);
    let app = TestApp::start(&crm(&fake, "limit = { concurrency = 1 }")).await;

    track_all(&app, users("abab")).await;
    app.quiet().await;
    assert_eq!(requests(&fake), pairs(&[("a", 0), ("b", 1), ("b", 3)]));
    assert_eq!(app.books("crm").later, 2, "what waits for its turn waits in the queue");

    app.run_for(Duration::from_mins(1)).await;
    assert_eq!(requests(&fake)[3..], pairs(&[("a", 0), ("a", 2)]));
    assert_eq!(app.books("crm").delivered, 4);
}

#[tokio::test]
async fn events_that_come_while_an_earlier_one_waits_wait_as_well() {
    let fake = Fake::replying([failing_for(60), failing_for(120)]);
    let app = TestApp::start(&crm(&fake, "")).await;

    track_all(&app, users("a")).await;
    app.quiet().await;
    track_all(&app, users("aa")).await;
    app.run_for(Duration::from_secs(179)).await;
    assert_eq!(requests(&fake), pairs(&[("a", 0), ("a", 0)]));

    app.run_for(Duration::from_secs(1)).await;
    assert_eq!(requests(&fake)[2..], pairs(&[("a", 0), ("a", 0), ("a", 1)]));
}

#[tokio::test]
async fn an_event_without_a_key_waits_for_nobody() {
    let fake = Fake::replying([failing_for(60)]);
    let lines = unordered(&fake).replace("{{ userId }}", "{{ anonymousId }}")
        + "order_by = \"{{ userId }}\"\nlimit = { concurrency = 1 }\n";
    let app = TestApp::start(&lines).await;
    for n in 0..3 {
        let event = json!({ "anonymousId": "x", "event": "Any", "properties": { "n": n } });
        app.post("/v1/track", &event).await.accepted();
    }
    app.quiet().await;
    assert_eq!(requests(&fake), pairs(&[("x", 0), ("x", 1), ("x", 2)]));
}

#[tokio::test]
async fn a_dead_letter_lets_the_next_of_its_key_go_at_once() {
    let fake = Fake::replying([Answer::status(400)]);
    let app = TestApp::start(&crm(&fake, "")).await;
    track_all(&app, users("aa")).await;
    app.quiet().await;
    assert_eq!(requests(&fake), pairs(&[("a", 0), ("a", 1)]));
    assert_eq!((app.books("crm").dead, app.books("crm").delivered), (1, 1));
}

#[tokio::test]
async fn an_event_that_no_rule_wants_needs_no_turn() {
    let fake = Fake::replying([failing_for(60)]);
    let app = TestApp::start(&crm(&fake, "on = \"track:Any\"")).await;
    track_all(&app, users("a")).await;
    app.track("a", "Other").await;
    app.quiet().await;
    assert_eq!((app.books("crm").filtered, app.books("crm").later), (1, 1));
}

#[tokio::test]
async fn waiting_for_ones_turn_costs_no_try_and_no_patience() {
    let fake = Fake::replying([503, 503, 200, 503, 503, 200].map(Answer::status));
    let more = "retry = { attempts_max = 3, first = \"1h\", delay_max = \"1h\" }\nlimit = { concurrency = 1 }";
    let app = TestApp::start(&crm(&fake, more)).await;
    track_all(&app, users("aa")).await;
    app.run_for(Duration::from_hours(5)).await;
    assert_eq!(requests(&fake).into_iter().map(|(_, n)| n).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
    assert_eq!((app.books("crm").delivered, app.books("crm").dead), (2, 0));
}

#[tokio::test]
async fn two_events_of_one_key_never_share_a_batch() {
    let fake = Fake::start();
    let app = TestApp::start(&crm(&fake, "batch = { max_events = 100, max_age = \"1s\" }")).await;
    track_all(&app, users("aabbbcd")).await;
    app.run_for(Duration::from_mins(1)).await;
    for mut batch in seen(&fake, |_| true) {
        batch.sort();
        assert!(batch.windows(2).all(|two| two[0].0 != two[1].0), "{batch:?}");
    }
    assert_eq!((assert_in_order(&requests(&fake)), app.books("crm").delivered), (7, 7));
}

#[tokio::test]
async fn batches_are_filled_with_different_keys() {
    let fake = Fake::start();
    let app = TestApp::start(&crm(&fake, "batch = { max_events = 100, max_age = \"1h\" }")).await;
    let sent = track_all(&app, (0..5000).map(|n| (n % 200).to_string())).await;
    app.quiet().await;

    assert_eq!(assert_in_order(&requests(&fake)), sent, "no batch that holds up others waits for company");
    let batches = fake.requests().len();
    assert!(batches <= 100, "5000 events of 200 keys in batches of up to 100: {batches}");
}

#[tokio::test]
async fn more_events_of_one_key_than_a_worker_holds_go_in_order_and_let_others_by() {
    let fake = Fake::replying([Answer::hang()]);
    let app = TestApp::start(&crm(&fake, "")).await;
    let sent = track_all(&app, (0..3000).map(|_| "a".to_owned()).chain(users("bcd"))).await;
    eventually("some are parked", || app.books("crm").in_hand > 1).await;
    app.clock.advance_to(app.now() + SignedDuration::from_secs(1));
    eventually("the others are delivered", || app.books("crm").delivered == 3).await;
    assert_eq!(app.books("crm").in_hand, 1 + 500, "the first, and those parked behind it");

    fake.let_go();
    app.run_for(Duration::from_mins(1)).await;
    assert_eq!((assert_in_order(&requests(&fake)), app.books("crm").delivered), (sent, sent as u64));
}

#[tokio::test]
async fn a_rest_changes_nothing_about_the_order() {
    let fake = Fake::replying([200, 401, 401, 401, 401, 401].map(Answer::status));
    let app = TestApp::start(&crm(&fake, "")).await;
    let sent = track_all(&app, (0..60).map(|n| (n % 7).to_string())).await;
    app.run_for(Duration::from_mins(10)).await;

    let delivered = seen(&fake, |index| index == 0 || index > 5).concat();
    assert_eq!((assert_in_order(&delivered), app.books("crm").delivered), (sent, sent as u64));
}

#[tokio::test]
async fn a_new_order_holds_for_what_waits_already() {
    let fake = Fake::replying([failing_for(60), failing_for(60)]);
    let app = TestApp::start(&unordered(&fake)).await;
    track_all(&app, users("ab")).await;
    app.quiet().await;
    assert_eq!(app.books("crm").later, 2);

    assert!(app.reload(&crm(&fake, "")).await);
    track_all(&app, users("aabc")).await;
    app.quiet().await;
    assert_eq!(requests(&fake)[2..], pairs(&[("c", 3)]));

    app.run_for(Duration::from_mins(1)).await;
    let of =
        |user: &str| requests(&fake)[3..].iter().filter(|(own, _)| own == user).map(|(_, n)| *n).collect::<Vec<_>>();
    assert_eq!((of("a"), of("b")), (vec![0, 0, 1], vec![1, 2]));
}

#[tokio::test]
async fn new_rules_keep_what_is_out_and_what_is_parked_in_order() {
    let fake = Fake::replying([Answer::hang(), Answer::hang()]);
    let app = TestApp::start(&crm(&fake, "")).await;
    track_all(&app, users("aaabb")).await;
    fake.has(2).await;

    assert!(app.reload(&crm(&fake, "method = \"PUT\"")).await);
    track_all(&app, users("c")).await;
    eventually("the new rules are in force", || fake.requests().len() == 3).await;
    assert_eq!(requests(&fake)[2], ("c".to_owned(), 0));

    fake.let_go();
    app.quiet().await;
    assert_eq!(assert_in_order(&requests(&fake)), 6);
    let methods: Vec<String> = fake.requests().into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["POST", "POST", "PUT", "PUT", "PUT", "PUT"]);
}

#[tokio::test]
async fn order_that_is_no_longer_asked_for_holds_nobody_back() {
    let fake = Fake::replying([Answer::hang()]);
    let app = TestApp::start(&crm(&fake, "")).await;
    track_all(&app, users("aaa")).await;
    fake.has(1).await;
    assert!(app.reload(&unordered(&fake)).await);
    fake.has(3).await;
    fake.let_go();
    app.quiet().await;
    assert_eq!(app.books("crm").delivered, 3);
}

#[tokio::test]
async fn what_is_parked_is_delivered_before_a_queue_that_forgets_goes() {
    let fake = Fake::replying([Answer::hang()]);
    let app = TestApp::with_text(&format!("{HEAD_IN_MEMORY}{}", crm(&fake, ""))).await;
    let sent = track_all(&app, (0..300).map(|_| "a".to_owned())).await;
    fake.has(1).await;
    let finishing = app.app.finish(Duration::from_mins(1));
    let letting_go = async { fake.let_go() };
    tokio::join!(finishing, letting_go);
    assert_eq!((assert_in_order(&requests(&fake)), app.books("crm").delivered), (sent, sent as u64));
}

#[tokio::test]
async fn what_found_no_room_is_delivered_before_a_queue_that_forgets_goes() {
    let fake = Fake::replying([Answer::hang()]);
    let app = TestApp::with_text(&format!("{HEAD_IN_MEMORY}{}", crm(&fake, ""))).await;
    let sent = track_all(&app, (0..1500).map(|_| "a".to_owned())).await;
    eventually("some are parked", || app.books("crm").in_hand > 1).await;
    app.clock.advance_to(app.now() + SignedDuration::from_secs(1));
    eventually("some find no room", || app.books("crm").later > 900).await;

    let time_goes_by = async {
        fake.let_go();
        fake.has(501).await;
        loop {
            app.clock.advance_to(app.now() + SignedDuration::from_millis(20));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = app.app.finish(Duration::from_mins(1)) => {}
        () = time_goes_by => {}
    }
    assert_eq!((assert_in_order(&requests(&fake)), app.books("crm").delivered), (sent, sent as u64));
}

/// Statuses that a flaky service gives, for the bad and the worse.
const FLAKY: [u16; 12] = [200, 200, 200, 200, 200, 503, 500, 429, 413, 400, 401, 503];

/// Sends many events through failures of all kinds, reloads and a destination that comes and goes.
async fn survive(seed: u64, more: &str) {
    let mut random = fastrand::Rng::with_seed(seed);
    let statuses: Vec<u16> = (0..300).map(|_| FLAKY[random.usize(..FLAKY.len())]).collect();
    let fake = Fake::replying(statuses.iter().copied().map(Answer::status));
    let more = format!("retry = {{ first = \"2s\", delay_max = \"20s\", failures_max = 4 }}\n{more}\n");
    let app = TestApp::start(&crm(&fake, &more)).await;
    let users: Vec<String> = (0..400).map(|_| random.u8(..12).to_string()).collect();
    let sent = track_all(&app, users).await as u64;
    for round in 0..20 {
        app.run_for(Duration::from_secs(random.u64(0..40))).await;
        let lines = match random.u8(..4) {
            0 => crm(&fake, &format!("{more}timeout = \"{}s\"", 30 + round)),
            1 => crm(&fake, &more).replace("order_by = \"", "order_by = \"of "),
            2 => String::new(),
            _ => crm(&fake, &more),
        };
        app.reload(&lines).await;
    }
    app.reload(&crm(&fake, &more)).await;
    app.run_for(Duration::from_hours(3)).await;

    let books = app.books("crm");
    assert_eq!((books.waiting(), books.delivered + books.dead), (0, sent), "seed {seed}: {books:?}");
    let delivered = seen(&fake, |index| statuses.get(index).is_none_or(|status| *status == 200)).concat();
    assert_eq!(assert_in_order(&delivered) as u64, books.delivered, "seed {seed}");
}

#[tokio::test]
async fn order_holds_whatever_fails_and_whenever_rules_change() {
    for seed in 0..4 {
        survive(seed, "").await;
    }
}

#[tokio::test]
async fn order_holds_in_batches_whatever_fails_and_whenever_rules_change() {
    for seed in 100..104 {
        survive(seed, "batch = { max_events = 5, max_age = \"3s\" }").await;
    }
}
