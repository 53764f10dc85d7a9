//! The executable as a Vercel Function, started by a host that speaks the runtime's protocol.
//!
//! With `LIBROSEG_FUNCTION=PATH` another executable is started: one that `vercel build` has made (`tests/vercel/build.sh`).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::vercel::{Function, SENDER, TOKEN};
use crate::support::{Answer, Fake};

const SOURCE: &str = "[sources.test]\nwrite_keys = [\"test_write_key\"]\n";

/// A file with one destination, of these lines.
fn file(fake: &Fake, lines: &str) -> String {
    format!("{SOURCE}[destinations.crm]\nurl = \"{}\"\n{lines}\n", fake.url())
}

fn delivered(file: &str) -> String {
    format!("[queue]\nack = \"delivered\"\n{file}")
}

/// The ids of the events that a destination was sent, one after the other.
fn ids(fake: &Fake) -> Vec<String> {
    fake.bodies().iter().map(|body| body["messageId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_hears_200_before_its_event_is_delivered_and_the_invocation_ends_after() {
    let fake = Fake::replying([Answer::hang()]);
    let function = Function::start(&file(&fake, ""));

    let heard = function.track("m1", "Any").await;

    assert_eq!((heard.status, heard.body), (200, json!({ "success": true })));
    assert_eq!(heard.headers["x-libroseg-ack"], "memory");
    fake.has(1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!function.has_ended(heard.request), "it ended before the destination had answered");
    fake.let_go();
    function.ended(heard.request).await;
    assert_eq!(ids(&fake), ["m1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_the_same_time_end_each_on_its_own() {
    let fake = Fake::replying([Answer::hang()]);
    let function = Function::start(&file(&fake, "limit = { concurrency = 8 }"));
    let slow = function.track("slow", "Any").await;
    fake.has(1).await;

    let names: Vec<String> = (0..20).map(|number| format!("m{number}")).collect();
    let others = futures_util::future::join_all(names.iter().map(|id| function.track(id, "Any"))).await;

    for other in &others {
        assert_eq!(other.status, 200);
        function.ended(other.request).await;
    }
    assert!(!function.has_ended(slow.request));
    fake.let_go();
    function.ended(slow.request).await;
    assert_eq!(fake.requests().len(), 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_a_request_share_a_batch_that_does_not_wait_for_others() {
    let fake = Fake::start();
    let function = Function::start(&file(&fake, "batch = { max_events = 100, max_age = \"1m\" }"));
    let messages: Vec<Value> = (0..30)
        .map(|id| json!({ "type": "track", "event": "Any", "userId": "u", "messageId": id.to_string() }))
        .collect();

    let heard = function.post("/v1/batch", &json!({ "batch": messages })).await;

    assert_eq!(heard.status, 200);
    let took = function.ended(heard.request).await - heard.at;
    assert!(took < Duration::from_secs(30), "{took:?}");
    let bodies = fake.bodies();
    assert_eq!(bodies.iter().map(|body| body.as_array().unwrap().len()).collect::<Vec<_>>(), [30]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_delivery_is_tried_again_while_the_invocation_is_open() {
    let fake = Fake::replying([Answer::status(503), Answer::status(503)]);
    let function = Function::start(&file(&fake, "retry = { first = \"100ms\" }"));

    let heard = function.track("m1", "Any").await;

    function.ended(heard.request).await;
    assert_eq!(ids(&fake), ["m1"; 3]);
    assert!(!function.log().contains("lost"), "{}", function.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_undelivered_when_the_time_is_up_is_told_as_lost_by_its_id() {
    let fake = Fake::start();
    fake.then_always(Answer::status(503));
    let function = Function::start_with(&file(&fake, "timeout = \"1s\""), &[("LIBROSEG_MAX_DURATION", "2s")]);

    let heard = function.track("the-lost-one", "Any").await;

    assert_eq!(heard.status, 200);
    let took = function.ended(heard.request).await - heard.at;
    assert!(took < Duration::from_secs(2), "the platform would have ended it: {took:?}");
    let log = function.log();
    assert!(log.contains("undelivered events are lost") && log.contains("the-lost-one"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_undelivered_when_the_time_is_up_goes_to_overflow() {
    let (fake, backup) = (Fake::start(), Fake::start());
    fake.then_always(Answer::hang());
    let text = format!("{}\n[defaults]\ntimeout = \"2s\"\n", file(&fake, "overflow = \"backup\""));
    let text = format!("{text}[destinations.backup]\nurl = \"{}\"\nwhen = \"$.context.overflow\"\n", backup.url());
    let function = Function::start_with(&text, &[("LIBROSEG_MAX_DURATION", "3s")]);

    let heard = function.track("m1", "Any").await;

    function.ended(heard.request).await;
    assert_eq!(ids(&backup), ["m1"]);
    assert_eq!(backup.bodies()[0]["context"]["overflow"], "crm");
    assert!(!function.log().contains("lost"), "{}", function.log());
    fake.let_go();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_told_to_end_finishes_what_it_promised() {
    let fake = Fake::replying([Answer::status(200).after(Duration::from_millis(700))]);
    let mut function = Function::start(&file(&fake, ""));
    let heard = function.track("at-risk", "Any").await;
    fake.has(1).await;

    function.signal("TERM");

    assert!(function.wait().success());
    assert!(function.has_ended(heard.request));
    let log = function.log();
    assert!(log.contains("not delivered yet") && log.contains("at-risk") && !log.contains("lost"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_told_to_end_hands_over_within_half_a_second() {
    let (fake, backup) = (Fake::start(), Fake::start());
    fake.then_always(Answer::hang());
    let text = file(&fake, "overflow = \"backup\"");
    let text = format!("{text}[destinations.backup]\nurl = \"{}\"\nwhen = \"$.context.overflow\"\n", backup.url());
    let mut function = Function::start(&text);
    function.track("m1", "Any").await;
    fake.has(1).await;

    let begun = Instant::now();
    function.signal("TERM");

    assert!(function.wait().success());
    assert_eq!(ids(&backup), ["m1"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    fake.let_go();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_sleeps_between_requests_has_delivered_before_and_delivers_after() {
    let fake = Fake::start();
    fake.then_always(Answer::status(200).after(Duration::from_millis(50)));
    let function = Function::start(&file(&fake, ""));
    function.suspend_between_requests();

    for round in 0..5 {
        let heard = function.track(&format!("m{round}"), "Any").await;
        assert_eq!(heard.status, 200);
        function.ended(heard.request).await;
        assert_eq!(ids(&fake).len(), round + 1, "it was suspended before it had delivered");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(function.suspended(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_ack_delivered_a_200_comes_after_the_delivery() {
    let fake = Fake::replying([Answer::status(200).after(Duration::from_millis(300))]);
    let function = Function::start(&delivered(&file(&fake, "")));
    let begun = Instant::now();

    let heard = function.track("m1", "Any").await;

    assert!(heard.at - begun >= Duration::from_millis(300));
    assert_eq!((heard.status, heard.header("x-libroseg-ack")), (200, Some("delivered")));
    function.ended(heard.request).await;
    assert_eq!(ids(&fake), ["m1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_ack_delivered_an_event_that_does_not_arrive_is_sent_again_by_its_sender_to_who_does_not_have_it() {
    let (crm, other) = (Fake::start(), Fake::start());
    crm.then_always(Answer::status(503));
    let text = format!("[queue]\nack = \"delivered\"\nack_timeout = \"1s\"\n{}", file(&crm, "timeout = \"1s\""));
    let function = Function::start(&format!("{text}[destinations.other]\nurl = \"{}\"\n", other.url()));

    let heard = function.track("m1", "Any").await;

    assert_eq!((heard.status, heard.header("retry-after")), (503, Some("5")));
    assert_eq!(heard.header("x-libroseg-ack"), None);
    assert_eq!(heard.body["error"]["code"].as_str().or(heard.body["code"].as_str()), Some("not_delivered"));
    function.ended(heard.request).await;
    crm.then_always(Answer::status(200));
    let tries = crm.requests().len();

    let heard = function.track("m1", "Any").await;

    assert_eq!((heard.status, heard.header("x-libroseg-ack")), (200, Some("delivered")));
    assert_eq!((crm.requests().len(), ids(&other)), (tries + 1, vec!["m1".to_owned()]));
    assert_eq!(function.track("m1", "Any").await.status, 200);
    assert_eq!((crm.requests().len(), other.requests().len()), (tries + 1, 1), "a repetition was sent");
    assert!(!function.log().contains("lost"), "{}", function.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_ack_delivered_a_sender_that_hangs_up_and_comes_back_hears_of_the_first_delivery() {
    let fake = Fake::replying([Answer::status(200).after(Duration::from_millis(800))]);
    let function = Function::start(&delivered(&file(&fake, "")));
    let event = json!({ "userId": "u1", "event": "Any", "messageId": "m1" });

    let hung_up = function.send("/v1/track", &event, Duration::from_millis(200)).await;
    assert!(hung_up.is_err());
    let heard = function.post("/v1/track", &event).await;

    assert_eq!((heard.status, heard.header("x-libroseg-ack")), (200, Some("delivered")));
    assert_eq!(ids(&fake), ["m1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_ack_delivered_what_a_destination_refuses_for_good_is_not_asked_for_again() {
    let fake = Fake::start();
    fake.then_always(Answer::status(422));
    let function = Function::start(&delivered(&file(&fake, "")));

    let heard = function.track("refused", "Any").await;

    assert_eq!((heard.status, heard.header("x-libroseg-ack")), (200, Some("delivered")));
    let log = function.log();
    assert!(log.contains("given up on") && log.contains("refused") && log.contains("422"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_platform_says_of_a_request_is_neither_delivered_nor_logged_but_who_sent_it_is() {
    let fake = Fake::start();
    let function = Function::start_with(&file(&fake, ""), &[("LIBROSEG_LOG", "trace")]);

    let event = json!({ "userId": "u1", "event": "Any", "context": { "direct": true } });
    let heard = function.post("/v1/track", &event).await;

    function.ended(heard.request).await;
    let request = &fake.has(1).await[0];
    assert_eq!(request.body["context"]["ip"], SENDER);
    let sent = format!("{}{:?}", request.wire, request.headers);
    for secret in [TOKEN, "Testville", "invocation-"] {
        assert!(!sent.contains(secret), "{sent}");
        assert!(!function.log().contains(secret), "{}", function.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file_the_one_that_is_built_in_is_in_force() {
    let function = Function::start_built_in(&[("LIBROSEG_WRITE_KEY", "test_write_key")]);

    let heard = function.track("m1", "Seen In The Log").await;

    assert_eq!((heard.status, heard.header("x-libroseg-ack")), (200, Some("memory")));
    function.ended(heard.request).await;
    assert!(function.log().contains("Seen In The Log"), "{}", function.log());
    assert!(!function.folder().join("data").exists(), "it wrote to a disk");
}

#[test]
fn the_repository_is_what_vercel_builds_a_function_from() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    // Each of these changes what is built, or publishes the source: docs/vercel.md, "Deploy".
    for absent in ["api", "build.sh", "Dockerfile.vercel", "Containerfile.vercel", ".cargo/config.toml"] {
        assert!(!root.join(absent).exists(), "{absent} is there");
    }
    let vercel: Value = serde_json::from_str(&read("vercel.json")).unwrap();
    assert_eq!(vercel["framework"], "rust");
    assert_eq!(vercel["rewrites"], json!([{ "source": "/(.*)", "destination": "/src/main" }]));
    assert_eq!(vercel.get("functions"), None);
    // 2.4.0 loses what goes on after the answer.
    let lock = read("Cargo.lock");
    let (_, runtime) = lock.split_once("name = \"vercel_runtime\"\nversion = \"").unwrap();
    let version: Vec<u32> = runtime.split('"').next().unwrap().split('.').map(|part| part.parse().unwrap()).collect();
    assert!(version >= vec![2, 4, 1], "{version:?}");
    let manifest = read("Cargo.toml");
    assert!(manifest.contains("\npath = \"src/main.rs\"\n") && manifest.contains("panic = \"unwind\""));
    assert!(manifest.contains("\nvercel_runtime = \"2.4.1\""), "it is not a plain dependency");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_starts_in_no_time() {
    let fake = Fake::start();
    let text = file(&fake, "");
    let fastest = (0..5).map(|_| Function::start(&text).start_up).min().unwrap();
    // Built with optimisation it takes milliseconds; here somebody may be compiling beside us.
    assert!(fastest < Duration::from_millis(500), "{fastest:?}");
}
