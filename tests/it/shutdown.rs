//! A signal ends the binary in order.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::support::app::{HEAD, HEAD_IN_MEMORY};
use crate::support::{Answer, Binary, Fake, client};

fn file(lines: &str) -> (TempDir, PathBuf) {
    file_with(HEAD, lines)
}

fn file_with(head: &str, lines: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    std::fs::write(&path, format!("[server]\nlisten = \"127.0.0.1:0\"\n{head}{lines}")).unwrap();
    (folder, path)
}

async fn track(binary: &Binary) -> reqwest::Result<reqwest::Response> {
    let body = json!({ "userId": "u1", "event": "Any" }).to_string();
    client().post(format!("{}/v1/track", binary.url)).basic_auth("test_write_key", Some("")).body(body).send().await
}

async fn metrics(binary: &Binary) -> String {
    client().get(format!("{}/metrics", binary.url)).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_process_whose_queue_is_in_memory_delivers_what_it_accepted_and_exits_with_0() {
    let fake = Fake::start();
    let lines =
        format!("[destinations.crm]\nurl = \"{}\"\nbatch = {{ max_events = 500, max_age = \"1h\" }}\n", fake.url());
    let (_folder, path) = file_with(HEAD_IN_MEMORY, &lines);
    let mut binary = Binary::start(&path);

    for _ in 0..20 {
        assert_eq!(track(&binary).await.unwrap().status(), 200);
    }
    assert!(fake.requests().is_empty(), "the batch is not old enough");
    binary.signal("TERM");

    assert_eq!(binary.wait().code(), Some(0));
    let sent: usize = fake.bodies().iter().map(|body| body.as_array().unwrap().len()).sum();
    assert_eq!(sent, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_flight_may_end() {
    let fake = Fake::replying([Answer::hang()]);
    let (_folder, path) = file(&format!("[destinations.crm]\nurl = \"{}\"\n", fake.url()));
    let mut binary = Binary::start(&path);
    track(&binary).await.unwrap();
    fake.has(1).await;

    binary.signal("INT");
    fake.let_go();

    assert_eq!(binary.wait().code(), Some(0));
    assert!(!binary.log().contains("lost"), "{}", binary.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let fake = Fake::replying([Answer::hang()]);
    let (_folder, path) = file(&format!("[destinations.crm]\nurl = \"{}\"\ntimeout = \"10m\"\n", fake.url()));
    let mut binary = Binary::start(&path);
    track(&binary).await.unwrap();
    fake.has(1).await;

    binary.signal("TERM");
    crate::support::eventually("the first is heard", || binary.log().contains("shutting down")).await;
    binary.signal("TERM");

    assert_eq!(binary.wait().code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_memory_could_not_deliver_in_time_is_told_as_lost() {
    let fake = Fake::start();
    fake.then_always(Answer::status(503));
    let (_folder, path) = file_with(HEAD_IN_MEMORY, &format!("[destinations.crm]\nurl = \"{}\"\n", fake.url()));
    let mut binary = Binary::start(&path);
    track(&binary).await.unwrap();
    fake.has(1).await;

    binary.signal("TERM");

    assert_eq!(binary.wait().code(), Some(0));
    assert!(binary.log().contains("undelivered events are lost"), "{}", binary.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_delivered_waits_on_disk_for_the_next_start() {
    let fake = Fake::start();
    fake.then_always(Answer::status(503));
    let (_folder, path) =
        file(&format!("[destinations.crm]\nurl = \"{}\"\nretry = {{ first = \"10ms\" }}\n", fake.url()));
    let mut binary = Binary::start(&path);
    for _ in 0..20 {
        assert_eq!(track(&binary).await.unwrap().status(), 200);
    }
    fake.has(1).await;
    binary.signal("TERM");
    assert_eq!(binary.wait().code(), Some(0));
    assert!(!binary.log().contains("lost"), "{}", binary.log());

    fake.then_always(Answer::status(200));
    let before = fake.requests().len();
    let _binary = Binary::start(&path);
    fake.has(before + 20).await;
    let mut ids: Vec<String> = fake.bodies()[before..].iter().map(|body| body["messageId"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_hangs_does_not_keep_the_process() {
    let (folder, path) = file("[destinations.archive]\ntype = \"file\"\npath = \"pipe\"\n");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("[server]", "[server]\nshutdown_timeout = \"1s\"", 1)).unwrap();
    // To open a pipe takes until somebody reads it, which nobody does.
    assert!(Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
    let mut binary = Binary::start(&path);
    track(&binary).await.unwrap();
    while !metrics(&binary).await.contains("requests_in_flight{destination=\"archive\"} 1\n") {}

    binary.signal("TERM");

    assert_eq!(binary.wait().code(), Some(0));
}
