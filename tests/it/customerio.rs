//! Both Customer.io presets against a Customer.io of ours that is strict, and that fails one request in five: what an SDK
//! sent is there in the end, in order and once, and what was refused is in the dead letters with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::app::{HEAD, KEY};
use crate::support::customerio::{API_KEY, SITE_ID, Temper, Workspace};
use crate::support::{Binary, Customerio, TestApp, client, eventually};

const VARIABLES: [(&str, &str); 2] = [("CUSTOMERIO_SITE_ID", SITE_ID), ("CUSTOMERIO_API_KEY", API_KEY)];

/// Users that have an id, and users that have an e-mail address only.
const USERS: usize = 50;
const NAMELESS: usize = 10;

/// Events that each user makes.
const EVENTS: usize = 8;

/// Companies that users belong to.
const COMPANIES: usize = 4;

/// A clock that a test moves stands still while there is something to read, and so would a pace.
const UNPACED: &str = "limit = { per_second = 1000000000000 }";

/// One request in five comes to nothing.
const FLAKY: Temper = Temper { faults: 20, seed: 7, refuses_strangers: true, per_second: None };

/// A preset, and where its API is.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    One,
    Two,
}

// === impl Version ===

impl Version {
    /// The lines of a file that sends to this server by the preset.
    fn lines(self, server: &Customerio, more: &str) -> String {
        let (preset, version) = match self {
            Self::One => ("customerio", "v1"),
            Self::Two => ("customerio-batch", "v2"),
        };
        let url = server.url();
        format!("[destinations.cio]\nextends = \"{preset}\"\nurl = \"{url}/api/{version}\"\n{more}\n")
    }

    async fn app(self, server: &Customerio) -> TestApp {
        TestApp::with_variables(&self.lines(server, UNPACED), &VARIABLES).await
    }
}

// === what happens ===

fn track(user: usize, name: &str, properties: &Value) -> Value {
    json!({ "type": "track", "userId": user_id(user), "event": name, "properties": properties })
}

fn user_id(user: usize) -> String {
    format!("user/{user}")
}

fn old_id(user: usize) -> String {
    format!("old+{user}")
}

fn nameless(user: usize) -> String {
    format!("nobody{user}@example.com")
}

fn company(user: usize) -> String {
    format!("company {}", user % COMPANIES)
}

fn has_old_self(user: usize) -> bool {
    user.is_multiple_of(4)
}

fn leaves(user: usize) -> bool {
    user.is_multiple_of(3)
}

/// Too long a name, too long a value and, in a batch, too large a thing.
fn misbehaves(user: usize) -> bool {
    user.is_multiple_of(7)
}

fn app_event(user: usize, name: &str, token: &str) -> Value {
    let mut event = track(user, name, &json!({}));
    let device = json!({ "token": token, "type": "iOS", "model": "iPhone17,1" });
    event["context"] = json!({ "device": device, "os": { "name": "iOS", "version": "26.1" }, "locale": "de-DE" });
    event
}

/// What somebody did who is to be merged into a user.
fn old_self(user: usize) -> Vec<Value> {
    vec![
        json!({ "type": "identify", "userId": old_id(user), "traits": { "legacy": true, "plan": "old" } }),
        json!({ "type": "track", "userId": old_id(user), "event": "Before" }),
    ]
}

/// All that a user does, in order.
fn story(user: usize) -> Vec<Value> {
    let anonymous = format!("anonymous-{user}");
    let traits =
        json!({ "email": format!("user{user}@example.com"), "plan": "free", "createdAt": "2025-01-01T00:00:00Z" });
    let mut events = vec![
        json!({ "type": "track", "anonymousId": anonymous, "event": "Came" }),
        json!({ "type": "page", "anonymousId": anonymous, "properties": { "url": "https://shop.example.com/" } }),
        json!({ "type": "identify", "userId": user_id(user), "anonymousId": anonymous, "traits": traits }),
    ];
    events.extend((0..EVENTS).map(|n| track(user, &format!("Step {n}"), &json!({ "n": n }))));
    events.push(app_event(user, "Application Opened", &format!("token/{user}")));
    events.push(json!({ "type": "group", "userId": user_id(user), "groupId": company(user), "traits": { "name": company(user) } }));
    if has_old_self(user) {
        events.push(json!({ "type": "alias", "userId": user_id(user), "previousId": old_id(user) }));
    }
    if misbehaves(user) {
        events.extend(misdeeds(user));
    }
    events.push(json!({ "type": "screen", "userId": user_id(user), "name": "Cart" }));
    events.push(json!({ "type": "identify", "userId": user_id(user), "traits": { "plan": "pro" } }));
    if leaves(user) {
        events.push(app_event(user, "Application Uninstalled", &format!("token/{user}")));
    }
    events
}

fn misdeeds(user: usize) -> Vec<Value> {
    vec![
        track(user, &"x".repeat(101), &json!({})),
        json!({ "type": "identify", "userId": user_id(user), "traits": { "plan": "none", "about": "x".repeat(1001) } }),
    ]
}

/// What somebody does who has an e-mail address only.
fn nameless_story(user: usize) -> Vec<Value> {
    let (anonymous, email) = (format!("nameless-{user}"), nameless(user));
    vec![
        json!({ "type": "identify", "anonymousId": anonymous, "traits": { "email": email, "plan": "free" } }),
        json!({ "type": "track", "anonymousId": anonymous, "event": "Subscribed", "context": { "traits": { "email": email } } }),
    ]
}

/// The stories told at once, each in its order, with times that tell the order too.
fn told_at_once(mut stories: Vec<Vec<Value>>, seed: u64) -> Vec<Value> {
    let mut random = fastrand::Rng::with_seed(seed);
    for story in &mut stories {
        story.reverse();
    }
    let mut all = Vec::new();
    while !stories.is_empty() {
        let next = random.usize(..stories.len());
        match stories[next].pop() {
            Some(mut event) => {
                event["messageId"] = json!(format!("message-{seed}-{}", all.len()));
                event["timestamp"] = json!(time_of(all.len()));
                all.push(event);
            }
            None => drop(stories.swap_remove(next)),
        }
    }
    all
}

fn time_of(n: usize) -> String {
    let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    (start + SignedDuration::from_secs(n.try_into().unwrap())).to_string()
}

async fn send(app: &TestApp, events: &[Value]) {
    for batch in events.chunks(50) {
        app.post("/v1/batch", &json!({ "batch": batch })).await.accepted();
    }
}

// === what must have become of it ===

/// Names of a user's own events, as they must have come.
fn expected_events(user: usize) -> Vec<String> {
    let mut names: Vec<String> = (0..EVENTS).map(|n| format!("Step {n}")).collect();
    names.push("Application Opened".to_owned());
    if has_old_self(user) {
        names.push("Before".to_owned());
    }
    names.push("Cart".to_owned());
    if leaves(user) {
        names.push("Application Uninstalled".to_owned());
    }
    names
}

fn assert_person(workspace: &Workspace, user: usize) {
    let person = workspace.person(&user_id(user));
    assert_eq!(person.attribute("plan"), Some(&json!("pro")), "{user}: the last word counts");
    assert_eq!(person.attribute("email"), Some(&json!(format!("user{user}@example.com"))));
    assert_eq!(person.attribute("created_at"), Some(&json!(1_735_689_600)), "{user}: in seconds");
    assert_eq!(person.attribute("legacy"), has_old_self(user).then_some(&json!(true)), "{user}: what the old self had");
    assert_eq!(person.own_events(), expected_events(user), "{user}: each once, in order");
    assert_eq!(person.adopted_events(), BTreeSet::from(["Came", "https://shop.example.com/"]), "{user}");
    assert_eq!(person.devices.len(), usize::from(!leaves(user)), "{user}: {:?}", person.devices);
    assert_eq!(person.objects, BTreeSet::from([("1".to_owned(), company(user))]), "{user}");
}

fn assert_all_is_there(workspace: &Workspace) {
    for user in 0..USERS {
        assert_person(workspace, user);
    }
    for user in 0..NAMELESS {
        let person = workspace.person(&nameless(user));
        assert_eq!((person.id.as_deref(), person.own_events()), (None, vec!["Subscribed"]));
    }
    assert_eq!(workspace.people.len(), USERS + NAMELESS, "old selves are gone, and nobody is there twice");
    assert!(workspace.anonymous.is_empty(), "nobody's events: {:?}", workspace.anonymous);
    for fault in ["429", "503", "reset", "lost"] {
        assert!(workspace.faults.get(fault) > Some(&0), "there was no {fault}: {:?}", workspace.faults);
    }
    assert!(workspace.repeated > 0, "no event came twice, though answers were lost");
}

/// The reasons of dead letters, and how often each is told.
async fn reasons(app: &TestApp) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for letter in app.dead_letters("cio").await {
        let detail: Value =
            serde_json::from_str(&letter.failure.detail).unwrap_or_else(|_| json!(letter.failure.detail));
        let text = [&detail["meta"]["error"], &detail["message"], &detail].into_iter().find_map(Value::as_str);
        *reasons.entry(text.unwrap_or_default().to_owned()).or_default() += 1;
    }
    reasons
}

async fn everything_arrives(version: Version) {
    let server = Customerio::start(FLAKY);
    let app = version.app(&server).await;

    let before = told_at_once((0..USERS).filter(|user| has_old_self(*user)).map(old_self).collect(), 1);
    send(&app, &before).await;
    app.run_for(Duration::from_hours(1)).await;
    let stories = (0..USERS).map(story).chain((0..NAMELESS).map(nameless_story)).collect();
    let all = told_at_once(stories, 2);
    send(&app, &all).await;
    app.run_for(Duration::from_hours(12)).await;

    let told = reasons(&app).await;
    server.look(|workspace| {
        assert_all_is_there(workspace);
        if version == Version::Two {
            assert_eq!(workspace.objects.len(), COMPANIES);
            assert!(workspace.objects.iter().all(|((_, id), attributes)| attributes["name"] == json!(id)));
            assert!(workspace.largest_batch > 20, "{} people shared a request", workspace.largest_batch);
            assert!(workspace.requests < before.len() + all.len(), "{}", workspace.requests);
        }
    });
    let bad = (0..USERS).filter(|user| misbehaves(*user)).count();
    let expected = [
        ("event name cannot be longer than 100 bytes", bad),
        ("value for attribute 'about' cannot be longer than 1000 bytes", bad),
    ];
    assert_eq!(told, expected.map(|(reason, count)| (reason.to_owned(), count)).into());
    let books = app.books("cio");
    let accepted = (before.len() + all.len()) as u64;
    assert_eq!((books.delivered, books.dead, books.waiting()), (accepted - 2 * bad as u64, 2 * bad as u64, 0));
}

#[tokio::test]
async fn everything_arrives_in_order_and_once_though_one_request_in_five_fails() {
    everything_arrives(Version::One).await;
}

#[tokio::test]
async fn everything_arrives_in_order_and_once_in_batches_though_one_request_in_five_fails() {
    everything_arrives(Version::Two).await;
}

#[tokio::test]
async fn a_thing_too_large_for_a_batch_is_a_dead_letter_and_those_beside_it_are_taken() {
    let server = Customerio::start(Temper::default());
    let app = Version::Two.app(&server).await;
    let mut events: Vec<Value> = (0..20).map(|user| track(user, "Small", &json!({}))).collect();
    events[3]["properties"] = json!({ "text": "x".repeat(32_500) });
    send(&app, &events).await;
    app.run_for(Duration::from_mins(1)).await;

    assert_eq!(reasons(&app).await, BTreeMap::from([("the entity cannot be larger than 32kb".to_owned(), 1)]));
    assert_eq!(app.books("cio").delivered, 19);
    assert_eq!(server.look(|workspace| workspace.requests), 1, "no batch was sent twice");
}

#[tokio::test]
async fn a_batch_stays_within_what_customer_io_takes() {
    let server = Customerio::start(Temper::default());
    let app = Version::Two.app(&server).await;
    let events: Vec<Value> = (0..60).map(|user| track(user, "Large", &json!({ "text": "é".repeat(12_000) }))).collect();
    for event in &events {
        app.post("/v1/track", event).await.accepted();
    }
    app.run_for(Duration::from_mins(1)).await;

    assert_eq!((app.books("cio").delivered, app.books("cio").dead), (60, 0));
    let (requests, refused) = server.look(|workspace| (workspace.requests, workspace.refused.len()));
    assert!((3..=6).contains(&requests) && refused == 0, "{requests} requests for 1.4 MB, {refused} refused");
}

#[tokio::test]
async fn with_a_wrong_key_it_rests_and_nothing_is_lost() {
    for version in [Version::One, Version::Two] {
        let server = Customerio::start(Temper::default());
        server.knows_us(false);
        let app = version.app(&server).await;
        send(&app, &told_at_once((1..7).map(story).collect(), 3)).await;
        app.run_for(Duration::from_mins(5)).await;
        let books = app.books("cio");
        assert_eq!((books.delivered, books.dead), (0, 0));

        server.knows_us(true);
        app.run_for(Duration::from_mins(5)).await;
        let books = app.books("cio");
        assert_eq!((books.waiting(), books.dead), (0, 0));
        server.look(|workspace| assert_eq!(workspace.person(&user_id(1)).own_events(), expected_events(1)));
    }
}

#[tokio::test]
async fn what_is_replayed_counts_once() {
    let server = Customerio::start(Temper::default());
    let lines = Version::One.lines(&server, &format!("{UNPACED}\nstart = \"oldest\""));
    let app = TestApp::with_variables(&lines, &VARIABLES).await;
    send(&app, &told_at_once(vec![story(1), story(2)], 4)).await;
    app.run_for(Duration::from_mins(5)).await;

    // The same events for a name that has had none of them.
    assert!(app.reload(&lines.replace("destinations.cio", "destinations.again")).await);
    app.run_for(Duration::from_mins(5)).await;
    assert!(app.books("again").delivered > 20);
    server.look(|workspace| {
        for user in [1, 2] {
            assert_person(workspace, user);
        }
        assert!(workspace.repeated > 20);
    });
}

#[tokio::test]
async fn the_real_binary_keeps_to_the_rate_and_gets_everything_across() {
    const PER_SECOND: u32 = 40;
    let server = Customerio::start(Temper { per_second: Some(PER_SECOND), ..FLAKY });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    let more = format!("limit = {{ per_second = {PER_SECOND} }}\nretry = {{ first = \"50ms\" }}");
    let text = format!("[server]\nlisten = \"127.0.0.1:0\"\n{HEAD}{}", Version::One.lines(&server, &more));
    std::fs::write(&path, text).unwrap();
    let binary = Binary::start_with(&path, &VARIABLES);

    let events = told_at_once((1..13).map(|user| story(user).split_off(2)).collect(), 5);
    for batch in events.chunks(100) {
        let body = json!({ "batch": batch }).to_string();
        let sent = client().post(format!("{}/v1/batch", binary.url)).basic_auth(KEY, Some("")).body(body).send().await;
        assert_eq!(sent.unwrap().status(), 200);
    }
    let is_there = |workspace: &Workspace, user: usize| {
        let last = if leaves(user) { "Application Uninstalled" } else { "Cart" };
        workspace.people.iter().any(|person| person.id == Some(user_id(user)) && person.own_events().contains(&last))
    };
    eventually("all are there", || server.look(|workspace| (1..13).all(|user| is_there(workspace, user)))).await;

    server.look(|workspace| {
        assert_eq!(workspace.faults.get("rate"), None, "it was too fast: {:?}", workspace.faults);
        for user in 1..13 {
            let mut expected = expected_events(user);
            expected.retain(|name| name != "Before");
            assert_eq!(workspace.person(&user_id(user)).own_events(), expected, "{user}");
        }
    });
}
