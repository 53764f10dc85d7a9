//! `ack = "delivered"` on a machine: the 200 comes after the delivery, from the real binary.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answer, Binary, Fake, client};

const HEAD: &str = "[server]\nlisten = \"127.0.0.1:0\"\n[sources.test]\nwrite_keys = [\"test_write_key\"]\n\
                    [queue]\ntype = \"memory\"\nack = \"delivered\"\n";

fn file(lines: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    std::fs::write(&path, format!("{HEAD}{lines}")).unwrap();
    (folder, path)
}

fn destination(name: &str, fake: &Fake) -> String {
    format!("[destinations.{name}]\nurl = \"{}\"\n", fake.url())
}

async fn track(binary: &Binary, id: &str) -> Response {
    let body = json!({ "userId": "u1", "event": "Any", "messageId": id }).to_string();
    let request = client().post(format!("{}/v1/track", binary.url)).basic_auth("test_write_key", Some(""));
    request.body(body).send().await.unwrap()
}

async fn get(binary: &Binary, path: &str) -> String {
    client().get(format!("{}{path}", binary.url)).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_hear_503_until_every_destination_has_the_event_and_no_destination_gets_it_twice() {
    let (crm, other) = (Fake::start(), Fake::start());
    crm.then_always(Answer::status(503));
    let lines = format!(
        "ack_timeout = \"500ms\"\n{}timeout = \"1s\"\n{}",
        destination("crm", &crm),
        destination("other", &other)
    );
    let (_folder, path) = file(&lines);
    let binary = Binary::start(&path);

    let refused = track(&binary, "m1").await;
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    // The first try goes on for a while, and the second hears of it.
    crm.then_always(Answer::status(200));
    let mut tries = 1;
    while track(&binary, "m1").await.status() != 200 {
        tries += 1;
        assert!(tries < 20);
    }

    assert_eq!(other.requests().len(), 1);
    let ready: Value = serde_json::from_str(&get(&binary, "/ready").await).unwrap();
    assert_eq!(ready["ack"], "delivered");
    let books = |name: &str, count: &str| ready["destinations"][name][count].as_u64().unwrap();
    for name in ["crm", "other"] {
        assert_eq!((books(name, "accepted"), books(name, "delivered"), books(name, "waiting")), (1, 1, 0), "{ready}");
    }
    assert!(!binary.log().contains("lost"), "{}", binary.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_no_rule_wants_is_answered_at_once() {
    let fake = Fake::start();
    let (_folder, path) = file(&format!("{}when = \"$.properties.wanted\"\n", destination("crm", &fake)));
    let binary = Binary::start(&path);

    let heard = track(&binary, "m1").await;

    assert_eq!((heard.status().as_u16(), heard.headers()["x-libroseg-ack"].to_str().unwrap()), (200, "delivered"));
    assert_eq!(fake.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overflow_that_has_the_event_is_as_good() {
    let (crm, backup) = (Fake::start(), Fake::start());
    crm.then_always(Answer::status(503));
    let lines = format!(
        "ack_timeout = \"3s\"\n{}overflow = \"backup\"\ntimeout = \"500ms\"\n{}when = \"$.context.overflow\"\ntimeout = \"500ms\"\n",
        destination("crm", &crm),
        destination("backup", &backup)
    );
    let (_folder, path) = file(&lines);
    let binary = Binary::start(&path);

    assert_eq!(track(&binary, "m1").await.status(), 200);
    assert_eq!(backup.bodies()[0]["context"]["overflow"], "crm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_lets_a_delivery_end_and_its_sender_hear_of_it() {
    let fake = Fake::replying([Answer::status(200).after(Duration::from_millis(700))]);
    let (_folder, path) = file(&destination("crm", &fake));
    let mut binary = Binary::start(&path);

    let (heard, ()) = tokio::join!(track(&binary, "m1"), async {
        fake.has(1).await;
        binary.signal("TERM");
    });

    assert_eq!(heard.status(), 200);
    assert!(binary.wait().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_delivered_is_bounded() {
    let fake = Fake::start();
    fake.then_always(Answer::hang());
    let (_folder, path) = file(&format!("max_size = \"1MB\"\nack_timeout = \"100ms\"\n{}", destination("crm", &fake)));
    let binary = Binary::start(&path);
    let large = |id: usize| {
        let text = "x".repeat(30_000);
        json!({ "type": "track", "userId": "u1", "event": "Any", "messageId": id.to_string(), "properties": { "text": text } })
    };

    let mut codes = Vec::new();
    for round in 0..4 {
        let batch: Vec<Value> = (0..15).map(|index| large(round * 15 + index)).collect();
        let request = client().post(format!("{}/v1/batch", binary.url)).basic_auth("test_write_key", Some(""));
        let response = request.body(json!({ "batch": batch }).to_string()).send().await.unwrap();
        assert_eq!(response.status(), 503);
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        codes.push(body["error"]["code"].as_str().or(body["code"].as_str()).unwrap().to_owned());
    }

    assert_eq!(codes, ["not_delivered", "not_delivered", "queue_full", "queue_full"]);
    fake.let_go();
}
