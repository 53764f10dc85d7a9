//! A million events wait: memory stays small, the start stays quick, and destinations that work are not held up.

use std::path::Path;

use jiff::Timestamp;
use libroseg::clock::Clock;
use libroseg::event::Event;
use libroseg::queue::Queue;
use libroseg::queue::disk::{Disk, Options};
use serde_json::Value;

use crate::support::queue::{active, event, now, options};
use crate::support::{Answer, Binary, Fake, client, eventually};

/// Events of the large backlog.
const MANY: usize = 1_000_000;

/// Events of the small one that it is compared with.
const FEW: usize = 10_000;

/// A queue of this size has segments of 3 MB: the log of the large backlog, some 30 MB, is many of them.
const SIZE: &str = "48MB";
const SIZE_BYTES: u64 = 48_000_000;

/// Memory that the large backlog may take more than the small one: what is read ahead and how the allocator feels today.
/// It is less than the message id of every event would take, and far less than the events do.
const RESIDENT_BYTES_MAX: u64 = 32 << 20;

/// Bytes that the start and the first requests may read more: three segments, however many there are.
const READ_BYTES_MAX: u64 = 9_000_000;

/// Has so many events wait for `crm` in a folder.
fn fill(folder: &Path, events: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let options = Options { size_bytes_max: SIZE_BYTES, ..options(&folder.join("queue")) };
        let queue = Disk::open(options, now()).unwrap();
        queue.attach(&active(&["crm"]), now()).await.unwrap();
        // Message ids as old as this are remembered.
        let received_at = Clock::system().now();
        let all: Vec<usize> = (0..events).collect();
        for batch in all.chunks(5000) {
            queue.append(batch.iter().map(|n| waiting(*n, received_at)).collect()).await.unwrap();
        }
        queue.flush().await.unwrap();
    });
}

fn waiting(n: usize, received_at: Timestamp) -> Event {
    // No two ids have much in common, as it is with SDKs': otherwise a million events compress to next to nothing.
    let mixed = |factor: u64| (n as u64 + 1).wrapping_mul(factor);
    let id = format!(
        "{:016x}{:016x}{:016x}",
        mixed(0x9E37_79B9_7F4A_7C15),
        mixed(0xC2B2_AE3D_27D4_EB4F),
        mixed(0x1656_67B1_9E37_79F9)
    );
    let json = format!(
        r#"{{"type":"track","messageId":"{id}","userId":"user-{n}","event":"Order Completed","properties":{{"total":{n},"currency":"EUR","products":[{{"sku":"a-{n}","quantity":1}}]}},"timestamp":"2026-01-02T03:04:05Z","receivedAt":"2026-01-02T03:04:05Z"}}"#
    );
    Event { json: json.into(), received_at, ..event(&id) }
}

fn start(folder: &Path, url: &str) -> Binary {
    let dir = folder.join("queue");
    let config = folder.join("libroseg.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[sources.test]\nwrite_keys = [\"k\"]\n[queue]\ndir = \"{}\"\n\
         max_size = \"{SIZE}\"\ndedup_ids = {FEW}\n\
         [destinations.crm]\nurl = \"{url}\"\nbody = {{ user = \"{{{{ userId }}}}\" }}\nbatch = {{ max_events = 500 }}\ntimeout = \"10m\"\n",
        dir.display()
    );
    std::fs::write(&config, text).unwrap();
    Binary::start(&config)
}

/// Bytes of the log's files.
fn log_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder.join("queue")).unwrap().map(Result::unwrap);
    let logs = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
    logs.map(|entry| entry.metadata().unwrap().len()).sum()
}

async fn ready(binary: &Binary) -> Value {
    let text = client().get(format!("{}/ready", binary.url)).send().await.unwrap().text().await.unwrap();
    serde_json::from_str(&text).unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn memory_and_start_do_not_grow_with_the_backlog() {
    let crm = Fake::start();
    crm.then_always(Answer::hang());
    let (mut resident, mut read, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    for events in [FEW, MANY] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        tokio::task::spawn_blocking(move || fill(&path, events)).await.unwrap();
        let before = crm.requests().len();
        let binary = start(folder.path(), &crm.url());
        let state = ready(&binary).await;
        assert_eq!(state["destinations"]["crm"]["waiting"], events, "{state}");
        eventually("requests are out", || crm.requests().len() >= before + 4).await;
        resident.push(binary.resident_bytes());
        read.push(binary.read_bytes());
        stored.push(log_bytes(folder.path()));
    }
    println!("resident {resident:?}, read {read:?}, stored {stored:?}");
    assert!(resident[1] < resident[0] + RESIDENT_BYTES_MAX, "{resident:?}");
    assert!(stored[1] > 2 * READ_BYTES_MAX, "a start that reads everything would not be noticed: {stored:?}");
    assert!(read[1] < read[0] + READ_BYTES_MAX, "{read:?}");
}

#[tokio::test]
async fn destinations_that_work_are_not_held_up_by_those_that_do_not() {
    let (crm, warehouse) = (Fake::start(), Fake::start());
    let (hanging, refusing, busy) = (Fake::start(), Fake::start(), Fake::start());
    hanging.then_always(Answer::hang());
    refusing.then_always(Answer::status(503));
    busy.then_always(Answer::status(429).header("retry-after", "30"));
    let folder = tempfile::tempdir().unwrap();
    let destination = |name: &str, fake: &Fake| {
        format!(
            "[destinations.{name}]\nurl = \"{}\"\nbody = {{ id = \"{{{{ messageId }}}}\" }}\nbatch = {{ max_events = 50, max_age = \"20ms\" }}\ntimeout = \"10m\"\n",
            fake.url()
        )
    };
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[sources.test]\nwrite_keys = [\"k\"]\n[queue]\ndir = \"{}\"\n{}{}{}{}{}",
        folder.path().join("queue").display(),
        destination("crm", &crm),
        destination("warehouse", &warehouse),
        destination("hanging", &hanging),
        destination("refusing", &refusing),
        destination("busy", &busy),
    );
    let config = folder.path().join("libroseg.toml");
    std::fs::write(&config, text).unwrap();
    let binary = Binary::start(&config);
    let client = client();
    let events = 5000;
    for batch in (0..events).collect::<Vec<usize>>().chunks(500) {
        let messages: Vec<Value> = batch
            .iter()
            .map(|n| serde_json::json!({ "type": "track", "userId": "u", "event": "E", "messageId": format!("m{n}") }))
            .collect();
        let body = serde_json::json!({ "batch": messages }).to_string();
        let response =
            client.post(format!("{}/v1/batch", binary.url)).basic_auth("k", Some("")).body(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["x-libroseg-ack"], "durable");
    }
    let received = |fake: &Fake| fake.bodies().iter().map(|body| body.as_array().map_or(0, Vec::len)).sum::<usize>();
    eventually("both have everything", || received(&crm) == events && received(&warehouse) == events).await;

    let state = ready(&binary).await;
    for name in ["hanging", "refusing", "busy"] {
        assert_eq!(state["destinations"][name]["waiting"], events, "{name}: {state}");
    }
    for name in ["crm", "warehouse"] {
        assert_eq!(state["destinations"][name]["accepted"], events, "{name}: {state}");
        assert_eq!(state["destinations"][name]["dead"], 0, "{name}: {state}");
    }
}
