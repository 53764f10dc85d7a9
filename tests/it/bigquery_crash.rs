//! Rows on their way to a BigQuery that fails one call in five, through a `kill -9` of the real binary: every good one is in
//! the table once, every bad one is a dead letter that says why.
//!
//! All clocks are real, and all settings are those of a file that says nothing of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libroseg::queue::Queue as _;
use libroseg::queue::disk::Disk;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::app::{HEAD, KEY};
use crate::support::bigquery::{BigQuery, Fault, Options};
use crate::support::queue::{name, now, options};
use crate::support::{Binary, client};

/// Events that are sent, unless [`EVENTS_VARIABLE`] says how many; a million takes minutes in a release build.
const EVENTS: usize = 5_000;
const EVENTS_VARIABLE: &str = "LIBROSEG_TEST_BIGQUERY_EVENTS";

/// Events of a request: SDKs of browsers and servers send some ten to a hundred together.
const BATCH: usize = 50;

/// Who sends at the same time.
const SENDERS: usize = 4;

/// Calls that go wrong.
const SHARE: f64 = 0.2;

/// One row in so many does not fit.
const BAD_EVERY: usize = 100;

/// After a failure a sender tries again when there is a new process, or after this time.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Longer than this nothing takes, however slow the machine: some of it for every event.
const PATIENCE: Duration = Duration::from_mins(2);
const PATIENCE_PER_EVENT: Duration = Duration::from_millis(1);

const TABLE: &str = "acme.events.all";

/// What the senders share.
struct Sending {
    events: usize,
    /// The first event that nobody has taken up.
    next: AtomicUsize,
    acknowledged: AtomicUsize,
}

// === the senders ===

impl Sending {
    /// Sends what nobody else does until there is no more, and never gives an event up.
    async fn send(self: Arc<Self>, mut url: watch::Receiver<String>) {
        let client = client();
        loop {
            let begin = self.next.fetch_add(BATCH, Ordering::Relaxed);
            let end = (begin + BATCH).min(self.events);
            if begin >= end {
                return;
            }
            let body = json!({ "batch": (begin..end).map(event).collect::<Vec<_>>() }).to_string();
            loop {
                let current = url.borrow_and_update().clone();
                if is_acknowledged(&client, &current, &body).await {
                    break;
                }
                // Either will do.
                let _ = tokio::time::timeout(RETRY_PAUSE, url.changed()).await;
            }
            self.acknowledged.fetch_add(end - begin, Ordering::Relaxed);
        }
    }
}

/// Sends a body once; whether it was taken.
async fn is_acknowledged(client: &reqwest::Client, url: &str, body: &str) -> bool {
    let request = client.post(format!("{url}/v1/batch")).basic_auth(KEY, Some("")).body(body.to_owned());
    let Ok(response) = request.send().await else { return false };
    match response.status().as_u16() {
        200 => true,
        503 => false,
        status => panic!("answered {status}"),
    }
}

fn is_bad(n: usize) -> bool {
    n % BAD_EVERY == BAD_EVERY / 2
}

fn event(n: usize) -> Value {
    let properties = if is_bad(n) { json!({ "n": "many" }) } else { json!({ "n": n }) };
    json!({
        "type": "track", "event": "Order Completed", "userId": format!("user-{n}"), "messageId": n.to_string(),
        "properties": properties, "context": { "library": { "name": "analytics.js", "version": "next-1.84.3" } },
    })
}

// === the service and its destination ===

fn server() -> BigQuery {
    let server = BigQuery::with(Options { keeps_requests: false, keeps_values: false, ..Options::default() });
    let columns = [("id", "STRING"), ("user_id", "STRING"), ("event", "STRING"), ("n", "INTEGER")];
    let fields: Vec<Value> = columns.iter().map(|(name, kind)| json!({ "name": name, "type": kind })).collect();
    server.create_table(TABLE, json!({ "schema": { "fields": fields } }));
    server.fails_often("insertAll", SHARE, 7, &Fault::passing());
    server
}

fn write_config(path: &Path, server: &BigQuery) {
    let (endpoint, credentials) = (server.endpoint(), json!(server.credentials_json()));
    let destination = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n\
         [destinations.bq]\ntype = \"bigquery\"\nproject = \"acme\"\ndataset = \"events\"\ntable = \"all\"\n\
         endpoint = \"{endpoint}\"\ncredentials = {credentials}\n\
         [destinations.bq.row]\nid = \"{{{{ messageId }}}}\"\nuser_id = \"{{{{ userId }}}}\"\n\
         event = \"{{{{ event }}}}\"\nn = \"{{{{ properties.n }}}}\"\n"
    );
    std::fs::write(path, HEAD.to_owned() + &destination).unwrap();
}

// === the end ===

/// Waits until so many events are acknowledged.
async fn are_acknowledged(sending: &Sending, events: usize, patience: Duration) {
    let waited = tokio::time::timeout(patience, async {
        while sending.acknowledged.load(Ordering::Relaxed) < events {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(
        waited.await.is_ok(),
        "{} of {events} events are acknowledged",
        sending.acknowledged.load(Ordering::Relaxed)
    );
}

/// What `/ready` tells of the destination, once nothing waits.
async fn books_at_rest(url: &str, patience: Duration) -> Value {
    let client = client();
    let rest = async {
        loop {
            let response = client.get(format!("{url}/ready")).send().await.unwrap();
            let ready: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
            if ready["destinations"]["bq"]["waiting"] == 0 {
                return ready["destinations"]["bq"].clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(patience, rest).await.expect("everything is delivered in the end")
}

/// The dead letters that a process left, with their reasons.
async fn dead_letters(queue: &Path) -> Vec<(usize, String)> {
    let queue = Disk::open(options(queue), now()).unwrap();
    let letters = queue.dead_letters(&name("bq"), None, usize::MAX).await.unwrap();
    let told = letters.iter().map(|(_, letter)| (letter.event.message_id.as_str(), letter.failure.to_string()));
    told.map(|(id, reason)| (id.parse().unwrap(), reason)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_faults_and_a_kill_each_good_row_is_there_once_and_each_bad_one_is_a_dead_letter() {
    let events = std::env::var(EVENTS_VARIABLE).map_or(EVENTS, |events| events.parse().unwrap());
    let patience = PATIENCE + PATIENCE_PER_EVENT * u32::try_from(events).unwrap();
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let config = folder.path().join("libroseg.toml");
    write_config(&config, &server);
    let begun = Instant::now();

    let binary = Binary::start(&config);
    let (url, urls) = watch::channel(binary.url.clone());
    let sending = Arc::new(Sending { events, next: AtomicUsize::new(0), acknowledged: AtomicUsize::new(0) });
    let senders: Vec<_> = (0..SENDERS).map(|_| tokio::spawn(Arc::clone(&sending).send(urls.clone()))).collect();
    are_acknowledged(&sending, events / 2, patience).await;
    while server.table(TABLE).len() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    binary.kill();
    let stored_before = server.table(TABLE).len();
    let mut binary = Binary::start(&config);
    url.send_replace(binary.url.clone());
    for sender in senders {
        sender.await.unwrap();
    }
    let books = books_at_rest(&binary.url, patience).await;
    let took = begun.elapsed();
    binary.signal("TERM");
    assert_eq!(binary.wait().code(), Some(0));

    // By the event's number: how often its row was sent, and how often it is in the table.
    let mut counts: BTreeMap<String, (u32, u32)> = server.table(TABLE).counts();
    let sent: u64 = counts.values().map(|(sent, _)| u64::from(*sent)).sum();
    let twice = counts.values().filter(|(_, stored)| *stored > 1).count();
    println!(
        "{events} events in {:.1} s; {stored_before} rows before the kill; {sent} rows sent, {twice} in the table twice",
        took.as_secs_f64()
    );
    let mut count = |n: usize| counts.remove(&n.to_string()).map_or(0, |(_, stored)| stored);
    let wrong: Vec<usize> = (0..events).filter(|n| count(*n) != u32::from(!is_bad(*n))).collect();
    assert!(wrong.is_empty(), "not as often in the table as they should be: {wrong:?}");
    assert!(stored_before > 0 && stored_before < events, "the kill was in the middle");

    let bad: Vec<usize> = (0..events).filter(|n| is_bad(*n)).collect();
    let mut letters = dead_letters(&folder.path().join("queue")).await;
    letters.sort();
    assert_eq!(letters.iter().map(|(n, _)| *n).collect::<Vec<_>>(), bad);
    let vague = letters.iter().find(|(_, reason)| !reason.starts_with("response: invalid: n: "));
    assert_eq!(vague, None);
    assert_eq!((&books["accepted"], &books["dead"]), (&json!(events), &json!(bad.len())), "{books}");
}
