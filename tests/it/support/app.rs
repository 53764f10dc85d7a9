//! The whole house in this process, with a clock that the test moves. Dropping it checks its books.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use libroseg::app::App;
use libroseg::attempt::{DeadLetter, DestinationName};
use libroseg::clock::Clock;
use libroseg::ingest::{self, Entrance, ServeOptions};
use libroseg::queue::Books;
use libroseg::reload::Reload;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::PATIENCE;

pub(crate) struct TestApp {
    pub(crate) app: Arc<App>,
    pub(crate) clock: Clock,
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
    client: reqwest::Client,
    stop: CancellationToken,
}

/// What an SDK heard.
pub(crate) struct Heard {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// The write key that every test's file gives its source.
pub(crate) const KEY: &str = "test_write_key";

/// The head of every test's file.
pub(crate) const HEAD: &str = "[sources.test]\nwrite_keys = [\"test_write_key\"]\n[queue]\ndir = \"queue\"\n";

/// The same with a queue in memory.
pub(crate) const HEAD_IN_MEMORY: &str =
    "[sources.test]\nwrite_keys = [\"test_write_key\"]\n[queue]\ntype = \"memory\"\n";

impl TestApp {
    /// A house whose file is [`HEAD`] and these lines.
    pub(crate) async fn start(lines: &str) -> Self {
        Self::with_text(&format!("{HEAD}{lines}")).await
    }

    /// A house whose file is [`HEAD`] and these lines, with variables in its environment.
    pub(crate) async fn with_variables(lines: &str, variables: &[(&str, &str)]) -> Self {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self::build(&format!("{HEAD}{lines}"), owned.collect()).await
    }

    /// A house with this file.
    pub(crate) async fn with_text(text: &str) -> Self {
        Self::build(text, BTreeMap::new()).await
    }

    async fn build(text: &str, variables: BTreeMap<String, String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libroseg.toml");
        std::fs::write(&path, placed(text, folder.path())).unwrap();
        let clock = Clock::moved("2026-01-02T03:04:05Z".parse().unwrap());
        let reload = Reload::load(path, variables, clock.clone()).unwrap_or_else(|error| match error {
            libroseg::reload::LoadError::Mistaken { picture, .. } => panic!("{picture}"),
            error @ libroseg::reload::LoadError::Unreadable { .. } => panic!("{error}"),
        });
        let app = Arc::new(App::new(reload, clock.clone()).await.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let entrance = Entrance::front(Arc::clone(&app.door));
        tokio::spawn(ingest::serve(listener, entrance, ServeOptions::default(), stop.clone()));
        Self { app, clock, address, folder, client: super::client(), stop }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("libroseg.toml")
    }

    /// Puts other lines after [`HEAD`] and has the file read. Answers whether a new plan is in force.
    pub(crate) async fn reload(&self, lines: &str) -> bool {
        self.reload_text(&format!("{HEAD}{lines}")).await
    }

    /// Writes another file and has it read. Answers whether a new plan is in force.
    pub(crate) async fn reload_text(&self, text: &str) -> bool {
        std::fs::write(self.path(), placed(text, self.folder.path())).unwrap();
        self.app.refresh().await
    }

    /// Sends a call as an SDK would.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Heard {
        let request = self.client.post(format!("http://{}{path}", self.address)).basic_auth(KEY, Some(""));
        let response = request.body(body.to_string()).send().await.unwrap();
        let status = response.status().as_u16();
        Heard { status, body: serde_json::from_str(&response.text().await.unwrap()).unwrap() }
    }

    /// Sends a call without a key in its header.
    pub(crate) async fn post_bare(&self, path: &str, body: &Value) -> Heard {
        let response = self.client.post(format!("http://{}{path}", self.address)).body(body.to_string()).send().await;
        let response = response.unwrap();
        let status = response.status().as_u16();
        Heard { status, body: serde_json::from_str(&response.text().await.unwrap()).unwrap() }
    }

    pub(crate) async fn track(&self, user: &str, event: &str) {
        self.track_with(user, event, json!({})).await;
    }

    pub(crate) async fn track_with(&self, user: &str, event: &str, properties: Value) {
        let body = json!({ "userId": user, "event": event, "properties": properties });
        self.post("/v1/track", &body).await.accepted();
    }

    /// Sends a batch of so many tracks, of users `0`, `1`, …, in pieces that the wire allows.
    pub(crate) async fn track_many(&self, count: usize) {
        let events: Vec<Value> =
            (0..count).map(|n| json!({ "type": "track", "userId": n.to_string(), "event": "Many", "messageId": format!("many-{n}") })).collect();
        for batch in events.chunks(1000) {
            self.post("/v1/batch", &json!({ "batch": batch })).await.accepted();
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn books(&self, destination: &str) -> Books {
        self.app.queue.books(&name(destination)).unwrap()
    }

    pub(crate) async fn dead_letters(&self, destination: &str) -> Vec<DeadLetter> {
        let letters = self.app.queue.dead_letters(&name(destination), None, usize::MAX).await.unwrap();
        letters.into_iter().map(|(_, letter)| letter).collect()
    }

    /// Waits until nothing more happens without the clock's moving.
    pub(crate) async fn quiet(&self) {
        let settled = tokio::time::timeout(PATIENCE, async {
            let mut rounds = 0;
            while rounds < 3 {
                rounds = if self.is_quiet() { rounds + 1 } else { 0 };
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(settled.await.is_ok(), "never quiet: {:?}", self.app.fleet.statuses());
    }

    fn is_quiet(&self) -> bool {
        let (now, next_wake) = (self.now(), self.clock.next_wake());
        let plan = Arc::clone(&self.app.reload.current().plan);
        self.app.fleet.statuses().iter().all(|(name, status)| {
            let books = self.app.queue.books(name).unwrap();
            let is_removed = plan.destination(name).is_none();
            let is_held_up = status.rest.as_ref().is_some_and(|rest| rest.until > now);
            let has_due = self.app.queue.next_due(name).is_some_and(|due| due <= now);
            let is_done = is_removed || (books.behind == 0 && !has_due);
            // Whoever has something to do later must have gone to sleep until then, not be about to.
            let later = match &status.rest {
                Some(rest) if rest.until > now => Some(rest.until),
                _ => self.app.queue.next_due(name).filter(|_| !is_removed),
            };
            let is_asleep = later.is_none_or(|later| next_wake.is_some_and(|wake| wake <= later));
            let is_empty_handed = status.requests_in_flight == 0 && books.in_hand == status.events_in_hand;
            is_empty_handed && is_asleep && (is_done || is_held_up)
        })
    }

    /// Lets so much time go by, stopping wherever somebody waits for a moment in it.
    pub(crate) async fn run_for(&self, time: Duration) {
        let end = self.now() + SignedDuration::try_from(time).unwrap();
        self.quiet().await;
        while let Some(next) = self.clock.next_wake().filter(|next| *next <= end) {
            self.clock.advance_to(next);
            self.quiet().await;
        }
        self.clock.advance_to(end);
        self.quiet().await;
    }
}

/// The queue beside the file: the test's own folder is not the test's working directory.
fn placed(text: &str, folder: &Path) -> String {
    text.replace("dir = \"queue\"", &format!("dir = \"{}\"", folder.join("queue").display()))
}

impl Heard {
    #[track_caller]
    pub(crate) fn accepted(&self) {
        assert_eq!((self.status, &self.body), (200, &json!({ "success": true })));
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.stop.cancel();
        if std::thread::panicking() {
            return;
        }
        for name in self.app.fleet.statuses().keys() {
            let books = self.app.queue.books(name).unwrap();
            assert!(books.balance(), "the books of {name} do not balance: {books:?}");
        }
    }
}

fn name(destination: &str) -> DestinationName {
    destination.into()
}
