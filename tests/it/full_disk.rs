//! A disk that is really full: senders hear 503 until there is room, and nothing that was answered 200 is lost.
//!
//! The queue lies on a small file system of its own, in memory, which the binary sees and nobody else
//! (`unshare --mount`). Where the system does not allow that a test says so and passes.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::app::KEY;
use crate::support::tools::is_possible;
use crate::support::{Answer, Binary, Fake, PATIENCE, client};

/// The file system's size in bytes: some segments, and little to write.
const DISK_BYTES: usize = 16 << 20;

/// An event is mostly noise, which no compression makes smaller.
const EVENT_BYTES: usize = 8_000;

/// Events in one request.
const BATCH: usize = 20;

/// How long a sender waits before it tries again. SDKs wait for as long as `Retry-After` says.
const PAUSE: Duration = Duration::from_millis(50);

/// A running binary whose queue's file system is small.
struct Small {
    binary: Binary,
    /// The folder of the file system, as the binary sees it.
    disk: PathBuf,
    acknowledged: BTreeSet<String>,
    next: usize,
    random: fastrand::Rng,
    client: reqwest::Client,
    _folder: TempDir,
}

/// What a sender heard.
struct Heard {
    status: u16,
    code: Option<String>,
    has_retry_after: bool,
}

/// Runs a script with file systems of its own: as root, or as a user who may pretend to be.
fn unshared(script: &str, arguments: &[&str]) -> Option<Command> {
    let command = |flags: &[&str], script: &str| {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", script, "sh"]);
        command
    };
    let probe = format!("mount -t tmpfs -o size={DISK_BYTES} tmpfs /tmp");
    let may = |flags: &&[&str]| command(flags, &probe).output().is_ok_and(|output| output.status.success());
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let mut found = command(ways.into_iter().find(may)?, script);
    found.args(arguments);
    Some(found)
}

impl Small {
    /// Starts it with a destination; `None` where no file system can be mounted.
    fn start(destination: &Fake, queue: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (disk, config) = (folder.path().join("disk"), folder.path().join("libroseg.toml"));
        fs::create_dir(&disk).unwrap();
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[queue]\ntype = \"disk\"\ndir = \"disk/queue\"\n{queue}\n\
             [sources.test]\nwrite_keys = [\"{KEY}\"]\n\
             [destinations.crm]\nurl = \"{}\"\ntimeout = \"10m\"\nbody = {{ id = \"{{{{ messageId }}}}\" }}\n\
             batch = {{ max_events = 100, max_age = \"10ms\" }}\n",
            destination.url()
        );
        fs::write(&config, text).unwrap();
        let binary = Binary::command();
        let program = binary.get_program().to_str().unwrap();
        let script =
            format!("mount -t tmpfs -o size={DISK_BYTES} tmpfs \"$1\" && shift && cd \"$1\" && shift && exec \"$@\"");
        let (disk_path, folder_path) = (disk.to_str().unwrap(), folder.path().to_str().unwrap());
        let arguments = [disk_path, folder_path, program, "serve", "--config", config.to_str().unwrap()];
        let command = unshared(&script, &arguments);
        is_possible("no file system may be mounted (unshare --mount)", command.is_some()).then_some(())?;
        Some(Self {
            binary: Binary::run(command?),
            disk,
            acknowledged: BTreeSet::new(),
            next: 0,
            random: fastrand::Rng::with_seed(7),
            client: client(),
            _folder: folder,
        })
    }

    /// Sends the next batch once. Events that were not acknowledged keep their ids for the next try.
    async fn send(&mut self) -> Heard {
        let ids: Vec<String> = (self.next..self.next + BATCH).map(|number| number.to_string()).collect();
        let noise = |random: &mut fastrand::Rng| -> String {
            std::iter::repeat_with(|| random.alphanumeric()).take(EVENT_BYTES).collect()
        };
        let events: Vec<Value> = ids
            .iter()
            .map(|id| {
                let properties = json!({ "noise": noise(&mut self.random) });
                json!({ "type": "track", "userId": "u", "event": "Any", "messageId": id, "properties": properties })
            })
            .collect();
        let request = self.client.post(format!("{}/v1/batch", self.binary.url)).basic_auth(KEY, Some(""));
        let response = request.body(json!({ "batch": events }).to_string()).send().await.unwrap();
        let status = response.status().as_u16();
        let has_retry_after = response.headers().contains_key("retry-after");
        if status == 200 {
            assert_eq!(response.headers()["x-libroseg-ack"], "durable");
            self.acknowledged.extend(ids);
            self.next += BATCH;
        }
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        Heard { status, code: body["code"].as_str().map(str::to_owned), has_retry_after }
    }

    /// Sends until it hears 503.
    async fn send_until_full(&mut self) {
        let full = async {
            loop {
                let heard = self.send().await;
                if heard.status != 200 {
                    return heard;
                }
            }
        };
        let heard = tokio::time::timeout(PATIENCE, full).await.expect("it fills");
        assert_eq!(heard.status, 503);
        assert!(["queue_full", "queue_unavailable"].map(Some).contains(&heard.code.as_deref()), "{:?}", heard.code);
        assert!(heard.has_retry_after);
    }

    /// Sends until so many more events are acknowledged, waiting whenever it hears 503.
    async fn send_patiently(&mut self, events: usize) {
        let wanted = self.acknowledged.len() + events;
        let sent = async {
            while self.acknowledged.len() < wanted {
                let heard = self.send().await;
                if heard.status != 200 {
                    assert_eq!(heard.status, 503);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        let is_in_time = tokio::time::timeout(PATIENCE, sent).await.is_ok();
        assert!(is_in_time, "it never recovers: {}\n{}", self.ready().await, self.binary.log());
    }

    async fn ready(&self) -> Value {
        let response = self.client.get(format!("{}/ready", self.binary.url)).send().await.unwrap();
        serde_json::from_str(&response.text().await.unwrap()).unwrap()
    }

    /// Waits until nothing waits, and holds what arrived against what was acknowledged.
    async fn has_delivered_all(&mut self, taken: &Mutex<BTreeSet<String>>) {
        let delivered = async {
            while self.ready().await["destinations"]["crm"]["waiting"] != 0 {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let is_in_time = tokio::time::timeout(PATIENCE, delivered).await.is_ok();
        assert!(is_in_time, "it does not end: {}\n{}", self.ready().await, self.binary.log());
        let missing: Vec<String> = self.acknowledged.difference(&taken.lock().unwrap()).cloned().collect();
        assert!(missing.is_empty(), "never arrived: {missing:?}\n{}", self.binary.log());
        self.binary.signal("TERM");
        assert_eq!(self.binary.wait().code(), Some(0), "{}", self.binary.log());
    }

    /// The folder of the small file system, as this process reaches it.
    fn disk(&self) -> PathBuf {
        let seen: &Path = self.disk.strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{}/root", self.binary.id())).join(seen)
    }
}

/// A destination that remembers the ids it took, and answers as told.
fn remembering(answer: impl Fn() -> Answer + Send + Sync + 'static) -> (Fake, Arc<Mutex<BTreeSet<String>>>) {
    let taken = Arc::new(Mutex::new(BTreeSet::new()));
    let taking = Arc::clone(&taken);
    let fake = Fake::judging(move |body| {
        let ids = body.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned());
        taking.lock().unwrap().extend(ids);
        answer()
    });
    (fake, taken)
}

/// Fills the disk behind a destination that hangs, then lets it go, and fills the room again.
async fn fills_and_recovers(queue: &str) {
    let (fake, taken) = remembering(Answer::hang);
    let Some(mut small) = Small::start(&fake, queue) else { return };

    small.send_until_full().await;
    let bytes = small.acknowledged.len() * EVENT_BYTES;
    assert!(bytes > DISK_BYTES / 2, "it is the disk that is full, not anything before it: {bytes} bytes");
    assert_eq!(small.ready().await["destinations"]["crm"]["delivered"], 0);

    fake.let_go();
    small.send_patiently(DISK_BYTES / EVENT_BYTES).await;
    small.has_delivered_all(&taken).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_a_503_until_destinations_make_room() {
    fills_and_recovers("max_size = \"64MB\"").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_smaller_than_one_segment_recovers_too() {
    fills_and_recovers("max_size = \"10GB\"").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_another_file_filled_is_a_503_until_that_is_gone() {
    let (fake, taken) = remembering(|| Answer::status(200));
    let Some(mut small) = Small::start(&fake, "max_size = \"64MB\"") else { return };
    small.send_patiently(10 * BATCH).await;

    let foreign = small.disk().join("foreign");
    let mut file = fs::File::create(&foreign).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    small.send_until_full().await;

    drop(file);
    fs::remove_file(&foreign).unwrap();
    small.send_patiently(DISK_BYTES / EVENT_BYTES).await;
    small.has_delivered_all(&taken).await;
}
