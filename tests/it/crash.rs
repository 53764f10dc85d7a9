//! `kill -9` at any moment: what was answered 200 arrives, and little arrives twice.
//!
//! The real binary is killed again and again, while it serves and while it starts, under senders that do what SDKs do:
//! they send again, with the same ids, whatever was not answered. The destinations live in this process and remember.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::app::KEY;
use crate::support::{Answer, Binary, Fake, client};

/// Kills, unless `LIBROSEG_KILL_CYCLES` says how many.
const CYCLES: usize = 200;

/// One kill in so many comes during the start.
const START_EVERY: usize = 5;

/// A process that listens is killed within this time: on many disks the first event needs a quarter of it, because a new
/// file must be durable. One that starts is killed within the other.
const ALIVE_MAX: Duration = Duration::from_millis(300);
const START_MAX: Duration = Duration::from_millis(60);

/// Who sends at the same time.
const SENDERS: usize = 6;

/// A sender's pause between two requests: what piles up in front of a process in a debug build must still be delivered.
const PAUSE: Duration = Duration::from_millis(4);

/// After a failure a sender tries again when there is a new process, or after this time.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of noise in an event, so that compression leaves a write worth cutting off.
const NOISE_BYTES: usize = 600;

/// Every second request is a batch of so many.
const BATCH: usize = 12;

/// One event in so many is refused by the destination that is picky.
const REFUSED_EVERY: u64 = 16;

/// Events that a destination's requests may hold when the process is killed: four connections with a batch each.
const IN_FLIGHT_MAX: usize = 4 * DESTINATION_BATCH;
const DESTINATION_BATCH: usize = 10;

/// Deliveries that were settled and not yet written when the process is killed: these senders make some 5,000 events a
/// second at most, and a transaction with the pause before it takes some 40 ms on a slow disk.
const UNWRITTEN_MAX: usize = 200;

/// Nothing of this takes longer, however slow the machine: there may be a backlog to deliver at the end.
const END_PATIENCE: Duration = Duration::from_mins(3);

/// A destination and how often it took each event: answered with 200, or refused for good.
struct Witness {
    fake: Fake,
    taken: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// What the senders know.
#[derive(Default)]
struct Senders {
    acknowledged: Mutex<BTreeSet<String>>,
    /// How often an answer was lost, and the request made again.
    repeated: AtomicUsize,
    is_over: AtomicBool,
}

// === the destinations ===

impl Witness {
    /// Of the ids of one request it makes an answer.
    fn start(judge: impl Fn(&[&str]) -> Answer + Send + Sync + 'static) -> Self {
        let taken = Arc::new(Mutex::new(BTreeMap::new()));
        let taking = Arc::clone(&taken);
        let fake = Fake::judging(move |body| {
            let ids = ids(body);
            let answer = judge(&ids);
            if !answer.is_status(503) {
                let mut taken = taking.lock().unwrap();
                for id in ids {
                    *taken.entry(id.to_owned()).or_default() += 1;
                }
            }
            answer
        });
        Self { fake, taken }
    }

    fn ids(&self) -> BTreeSet<String> {
        self.taken.lock().unwrap().keys().cloned().collect()
    }

    /// Deliveries beyond the first of each event.
    fn repetitions(&self) -> usize {
        self.taken.lock().unwrap().values().map(|count| count - 1).sum()
    }
}

fn ids(body: &Value) -> Vec<&str> {
    let items = body.as_array().map_or(std::slice::from_ref(body), Vec::as_slice);
    items.iter().map(|item| item["id"].as_str().unwrap()).collect()
}

fn is_refused(id: &str) -> bool {
    let (_, number) = id.split_once('-').unwrap();
    number.parse::<u64>().unwrap().is_multiple_of(REFUSED_EVERY)
}

/// The destinations by name.
fn witnesses() -> BTreeMap<&'static str, Witness> {
    let requests = AtomicUsize::new(0);
    let is_down = move || requests.fetch_add(1, Ordering::Relaxed) % 4 == 1;
    let refuses = |ids: &[&str]| ids.iter().any(|id| is_refused(id));
    BTreeMap::from([
        ("well", Witness::start(|_| Answer::status(200))),
        ("shaky", Witness::start(move |_| Answer::status(if is_down() { 503 } else { 200 }))),
        ("picky", Witness::start(move |ids| Answer::status(if refuses(ids) { 400 } else { 200 }))),
        ("slow", Witness::start(|_| Answer::status(200).after(Duration::from_millis(20)))),
    ])
}

fn write_config(path: &Path, witnesses: &BTreeMap<&'static str, Witness>) {
    let head = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[queue]\ntype = \"disk\"\ndir = \"queue\"\nmax_size = \"16MB\"\n\
         [sources.test]\nwrite_keys = [\"{KEY}\"]\n"
    );
    let destination = |(name, witness): (&&str, &Witness)| {
        // A refusal is of the one event that the request holds.
        let batch = if *name == "picky" { 1 } else { DESTINATION_BATCH };
        format!(
            "[destinations.{name}]\nurl = \"{}\"\nbody = {{ id = \"{{{{ messageId }}}}\" }}\n\
             batch = {{ max_events = {batch}, max_age = \"5ms\" }}\n\
             retry = {{ first = \"10ms\", delay_max = \"100ms\", failures_max = 1000000 }}\n",
            witness.fake.url()
        )
    };
    let destinations: String = witnesses.iter().map(destination).collect();
    std::fs::write(path, head + &destinations).unwrap();
}

// === the senders ===

impl Senders {
    /// Sends until it is over, and never gives an event up.
    async fn send(self: Arc<Self>, sender: usize, mut url: watch::Receiver<String>) {
        let (client, mut random) = (client(), fastrand::Rng::with_seed(sender as u64));
        let (mut number, mut counts) = (0, [1, BATCH].into_iter().cycle());
        while !self.is_over.load(Ordering::Relaxed) {
            let count = counts.next().unwrap();
            let ids: Vec<String> = (number..number + count).map(|n| format!("{sender}-{n}")).collect();
            number += count;
            let noise: String = std::iter::repeat_with(|| random.alphanumeric()).take(NOISE_BYTES).collect();
            loop {
                let current = url.borrow_and_update().clone();
                if is_acknowledged(&client, &current, &ids, &noise).await {
                    break;
                }
                self.repeated.fetch_add(1, Ordering::Relaxed);
                // Either will do.
                let _ = tokio::time::timeout(RETRY_PAUSE, url.changed()).await;
            }
            self.acknowledged.lock().unwrap().extend(ids);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Sends events once; whether they were acknowledged as durable. Any other answer but "later" is a failed test.
async fn is_acknowledged(client: &reqwest::Client, url: &str, ids: &[String], noise: &str) -> bool {
    let event = |id: &String| {
        let properties = json!({ "noise": noise });
        json!({ "type": "track", "userId": "u", "event": "Any", "messageId": id, "properties": properties })
    };
    let (path, body) = match ids {
        [id] => ("v1/track", event(id)),
        ids => ("v1/batch", json!({ "batch": ids.iter().map(event).collect::<Vec<_>>() })),
    };
    let request = client.post(format!("{url}/{path}")).basic_auth(KEY, Some("")).body(body.to_string());
    let Ok(response) = request.send().await else { return false };
    match response.status().as_u16() {
        200 => {
            assert_eq!(response.headers()["x-libroseg-ack"], "durable");
            true
        }
        503 => false,
        status => panic!("answered {status}"),
    }
}

// === the kills ===

/// Kills a process that listens after a random time.
async fn kill_one_that_serves(config: &Path, url: &watch::Sender<String>, random: &mut fastrand::Rng) {
    let binary = Binary::start(config);
    url.send_replace(binary.url.clone());
    tokio::time::sleep(ALIVE_MAX.mul_f64(random.f64())).await;
    binary.kill();
}

/// Kills a process that has not been waited for.
async fn kill_one_that_starts(config: &Path, random: &mut fastrand::Rng) {
    let mut command = Binary::command();
    command.arg("serve").arg("--config").arg(config).current_dir(config.parent().unwrap());
    let mut child = command.env("NO_PROXY", "127.0.0.1").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    tokio::time::sleep(START_MAX.mul_f64(random.f64())).await;
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn kill_again_and_again(config: &Path, url: &watch::Sender<String>) -> usize {
    let cycles = std::env::var("LIBROSEG_KILL_CYCLES").map_or(CYCLES, |cycles| cycles.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(cycles as u64);
    for cycle in 1..=cycles {
        if cycle % START_EVERY == 0 {
            kill_one_that_starts(config, &mut random).await;
        } else {
            kill_one_that_serves(config, url, &mut random).await;
        }
    }
    cycles
}

/// What `/ready` tells of the destinations, once nothing waits.
async fn books_at_rest(url: &str) -> Value {
    let rest = async {
        loop {
            let response = client().get(format!("{url}/ready")).send().await.unwrap();
            let ready: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
            let destinations = ready["destinations"].as_object().unwrap();
            if destinations.values().all(|books| books["waiting"] == 0) {
                return ready["destinations"].clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(END_PATIENCE, rest).await.expect("everything is delivered in the end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_200_survives_every_kill() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let config = folder.path().join("libroseg.toml");
    let witnesses = witnesses();
    write_config(&config, &witnesses);
    let (url, urls) = watch::channel("http://127.0.0.1:1".to_owned());
    let senders = Arc::new(Senders::default());
    let sending: Vec<_> =
        (0..SENDERS).map(|sender| tokio::spawn(Arc::clone(&senders).send(sender, urls.clone()))).collect();

    let kills = kill_again_and_again(&config, &url).await;

    let mut binary = Binary::start(&config);
    url.send_replace(binary.url.clone());
    senders.is_over.store(true, Ordering::Relaxed);
    for sender in sending {
        sender.await.unwrap();
    }
    let books = books_at_rest(&binary.url).await;
    let sent = senders.acknowledged.lock().unwrap().clone();
    let refused: BTreeSet<String> = sent.iter().filter(|id| is_refused(id)).cloned().collect();
    let repeated = senders.repeated.load(Ordering::Relaxed);
    println!("{kills} kills, {} events, {repeated} requests made again", sent.len());
    assert!(sent.len() > 10 * kills / START_EVERY && !refused.is_empty() && repeated > 0, "there was no load");

    for (name, witness) in &witnesses {
        let missing: Vec<String> = sent.difference(&witness.ids()).cloned().collect();
        assert!(missing.is_empty(), "{name} never got {missing:?}\n{}", binary.log());
        let repetitions = witness.repetitions();
        let repetitions_max = kills * (IN_FLIGHT_MAX + UNWRITTEN_MAX);
        println!("{name}: {repetitions} deliveries repeated, at most {repetitions_max} expected");
        assert!(repetitions <= repetitions_max, "{name}: {repetitions} repetitions in {kills} kills");

        // Ids that come again are known after a crash: every event is in the books once.
        let count = |what: &str| books[name][what].as_u64().unwrap();
        let dead = if *name == "picky" { refused.len() } else { 0 };
        assert_eq!(count("accepted"), sent.len() as u64, "{name}: {}", books[name]);
        assert_eq!((count("dead"), count("letters")), (dead as u64, dead as u64), "{name}: {}", books[name]);
        assert_eq!(count("delivered"), (sent.len() - dead) as u64, "{name}: {}", books[name]);
    }
    binary.signal("TERM");
    assert_eq!(binary.wait().code(), Some(0));
}

#[tokio::test]
async fn a_message_that_is_sent_again_after_a_kill_is_answered_200_and_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("libroseg.toml");
    let witnesses = BTreeMap::from([("well", Witness::start(|_| Answer::status(200)))]);
    write_config(&config, &witnesses);
    let (client, [first, second]) = (client(), ["0-1", "0-2"].map(|id| vec![id.to_owned()]));

    let binary = Binary::start(&config);
    assert!(is_acknowledged(&client, &binary.url, &first, "").await);
    binary.kill();
    let binary = Binary::start(&config);
    // As an SDK that never heard the answer, alone and in a batch with what is new.
    assert!(is_acknowledged(&client, &binary.url, &first, "").await);
    assert!(is_acknowledged(&client, &binary.url, &[first, second].concat(), "").await);

    let books = books_at_rest(&binary.url).await;
    assert_eq!((&books["well"]["accepted"], &books["well"]["delivered"]), (&json!(2), &json!(2)), "{books}");
    assert_eq!(witnesses["well"].ids(), BTreeSet::from(["0-1", "0-2"].map(str::to_owned)));
}
