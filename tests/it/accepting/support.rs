//! A door on a real socket, a queue that shows what it was given, and a client that sends bytes as they are.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::str;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use jiff::Timestamp;
use libroseg::attempt::{DeadLetter, DestinationName};
use libroseg::clock::Clock;
use libroseg::event::{Event, SourceName};
use libroseg::ingest::{Counts, Door, Entrance, Handed, Queued, ServeOptions, Settings, serve};
use libroseg::queue::{
    Ack, AppendError, Attachment, Books, Delivery, Entry, History, LetterId, Offset, Queue, ReadLimit, Report,
    Settlement, StorageError, Verified,
};
use libroseg::segment::{Policy, Source};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

/// Nothing here takes that long unless it hangs.
pub(super) const NEVER: Duration = Duration::from_mins(1);

/// A queue that keeps what it gets and does as it is told.
pub(super) struct FakeQueue {
    events: Mutex<Vec<Event>>,
    refusal: Mutex<Option<AppendError>>,
    is_panicking: AtomicBool,
    /// One permit is one append; closed, everything passes.
    gate: Semaphore,
    /// Gets a permit whenever an append begins.
    pub(super) begun: Semaphore,
}

/// A door that serves.
pub(super) struct TestDoor {
    pub(super) address: SocketAddr,
    pub(super) door: Arc<Door>,
    pub(super) queue: Arc<FakeQueue>,
    pub(super) policy: Arc<ArcSwap<Policy>>,
    pub(super) closing: CancellationToken,
    pub(super) served: JoinHandle<usize>,
}

/// How a door differs from the usual one.
pub(super) struct Setup {
    pub(super) policy: Policy,
    pub(super) settings: Settings,
    pub(super) options: ServeOptions,
    pub(super) readiness: Value,
}

/// An answer, in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// One connection, kept open.
pub(super) struct Line {
    stream: TcpStream,
    read: Vec<u8>,
}

/// What was logged.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

// === impl FakeQueue ===

impl FakeQueue {
    fn new() -> Arc<Self> {
        let gate = Semaphore::new(0);
        gate.close();
        let begun = Semaphore::new(0);
        Arc::new(Self { events: Mutex::default(), refusal: Mutex::default(), is_panicking: false.into(), gate, begun })
    }

    /// A queue whose appends wait for permits.
    fn stuck() -> Arc<Self> {
        let queue = Arc::into_inner(Self::new()).unwrap();
        Arc::new(Self { gate: Semaphore::new(0), ..queue })
    }

    pub(super) fn refuse(&self, error: Option<AppendError>) {
        *self.refusal.lock().unwrap() = error;
    }

    pub(super) fn panic(&self) {
        self.is_panicking.store(true, Ordering::Relaxed);
    }

    pub(super) fn let_one_pass(&self) {
        self.gate.add_permits(1);
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// The events as JSON.
    pub(super) fn messages(&self) -> Vec<Value> {
        self.events().iter().map(|event| serde_json::from_slice(&event.json).unwrap()).collect()
    }

    async fn take(&self, events: Vec<Event>) -> Result<(), AppendError> {
        self.begun.add_permits(1);
        if let Ok(permit) = self.gate.acquire().await {
            permit.forget();
        }
        assert!(!self.is_panicking.load(Ordering::Relaxed), "the queue was told to panic");
        if let Some(error) = self.refusal.lock().unwrap().clone() {
            return Err(error);
        }
        self.events.lock().unwrap().extend(events);
        Ok(())
    }
}

impl Queue for FakeQueue {
    fn ack(&self) -> Ack {
        Ack::Durable
    }

    fn append(&self, events: Vec<Event>) -> BoxFuture<'_, Result<(), AppendError>> {
        self.take(events).boxed()
    }

    fn put_back(&self, _: &DestinationName, _: Vec<Event>) -> BoxFuture<'_, Result<(), AppendError>> {
        ready(Ok(())).boxed()
    }

    fn attach(&self, _: &[Attachment], _: Timestamp) -> BoxFuture<'_, Result<(), StorageError>> {
        ready(Ok(())).boxed()
    }

    fn read(&self, _: &DestinationName, _: ReadLimit, _: Timestamp) -> BoxFuture<'_, Vec<Delivery>> {
        ready(Vec::new()).boxed()
    }

    fn waiting(&self, _: &DestinationName, _: Option<Offset>, _: ReadLimit) -> BoxFuture<'_, Vec<Arc<Entry>>> {
        ready(Vec::new()).boxed()
    }

    fn unsettled(&self, _: &DestinationName) -> BTreeSet<Offset> {
        BTreeSet::new()
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }

    fn next_due(&self, _: &DestinationName) -> Option<Timestamp> {
        None
    }

    fn due(&self, _: &DestinationName, _: Offset) -> Option<Timestamp> {
        None
    }

    fn settle(&self, _: &DestinationName, _: Vec<Settlement>, _: Timestamp) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }

    fn release(&self, _: &DestinationName) {}

    fn books(&self, _: &DestinationName) -> Option<Books> {
        None
    }

    fn dead_letters(
        &self,
        _: &DestinationName,
        _: Option<LetterId>,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<(LetterId, DeadLetter)>, StorageError>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn remove_dead_letters(&self, _: &DestinationName, _: Vec<LetterId>) -> BoxFuture<'_, Result<u64, StorageError>> {
        ready(Ok(0)).boxed()
    }

    fn history(&self, _: Offset, _: ReadLimit) -> BoxFuture<'_, Result<History, StorageError>> {
        ready(Ok(History::default())).boxed()
    }

    fn offset_at(&self, _: Timestamp) -> BoxFuture<'_, Result<Offset, StorageError>> {
        ready(Ok(Offset(0))).boxed()
    }

    fn verify(&self) -> BoxFuture<'_, Result<Vec<Verified>, StorageError>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn report(&self) -> Report {
        Report::default()
    }

    fn tidy(&self, _: Timestamp) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), StorageError>> {
        ready(Ok(())).boxed()
    }
}

// === impl Setup ===

impl Default for Setup {
    fn default() -> Self {
        let source = |name: &str, enabled| Arc::new(Source { name: SourceName::from(name), enabled, limit: None });
        let sources = [
            ("key".to_owned(), source("web", true)),
            ("other".to_owned(), source("server", true)),
            ("off".to_owned(), source("old", false)),
        ];
        Self {
            policy: Policy { sources: sources.into(), ..Policy::default() },
            settings: Settings::default(),
            options: ServeOptions { linger: Duration::ZERO, ..ServeOptions::default() },
            readiness: json!({"ready": true, "queue": {"ack": "durable"}}),
        }
    }
}

impl Setup {
    pub(super) async fn start(self) -> TestDoor {
        self.start_with(FakeQueue::new()).await
    }

    pub(super) async fn start_stuck(self) -> TestDoor {
        self.start_with(FakeQueue::stuck()).await
    }

    async fn start_with(self, queue: Arc<FakeQueue>) -> TestDoor {
        let policy = Arc::new(ArcSwap::from_pointee(self.policy));
        let closing = CancellationToken::new();
        let readiness = self.readiness;
        let handed = Handed {
            intake: Arc::new(Queued(Arc::clone(&queue) as Arc<dyn Queue>)),
            policy: Arc::clone(&policy),
            clock: Clock::system(),
            readiness: Arc::new(move || readiness.clone()),
            metrics: Arc::new(|counts| format!("answers {:?}\n", counts.answers)),
            closing: closing.clone(),
        };
        let door = Arc::new(Door::new(handed, self.settings));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(serve(listener, Entrance::front(Arc::clone(&door)), self.options, closing.clone()));
        TestDoor { address, door, queue, policy, closing, served }
    }
}

// === impl TestDoor ===

impl TestDoor {
    pub(super) async fn start() -> Self {
        Setup::default().start().await
    }

    /// Sends one request on a connection of its own.
    pub(super) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut line = Line::open(self.address).await;
        line.send(&request(method, path, headers, body)).await;
        line.answer_to(method).await
    }

    pub(super) async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        self.ask("POST", path, headers, body.as_ref()).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"").await
    }

    pub(super) fn counts(&self) -> Counts {
        self.door.counters().snapshot()
    }

    /// How many connections the shutdown had to cut.
    pub(super) async fn cut(self) -> usize {
        tokio::time::timeout(NEVER, self.served).await.expect("the shutdown hangs").unwrap()
    }
}

/// A request as it stands on the wire.
pub(super) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut lines = vec![format!("{method} {path} HTTP/1.1"), "Host: events.test".to_owned()];
    lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    if method == "POST" && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding")) {
        lines.push(format!("Content-Length: {}", body.len()));
    }
    [lines.join("\r\n").as_bytes(), b"\r\n\r\n", body].concat()
}

// === impl Line ===

impl Line {
    pub(super) async fn open(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), read: Vec::new() }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Closes our half of the connection.
    pub(super) async fn say_no_more(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    pub(super) async fn answer(&mut self) -> Answer {
        self.answer_to("POST").await
    }

    /// Reads one answer. That to `HEAD` has no body, whatever its length.
    pub(super) async fn answer_to(&mut self, method: &str) -> Answer {
        let head_end = loop {
            if let Some(at) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more().await, "the connection ended before the answer");
        };
        let head = String::from_utf8(self.read.drain(..head_end).collect()).unwrap();
        let mut answer = Answer::of_head(&head);
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        let length = if method == "HEAD" { 0 } else { length };
        while self.read.len() < length {
            assert!(self.more().await, "the connection ended in the middle of the answer");
        }
        answer.body = self.read.drain(..length).collect();
        answer
    }

    /// Reads until the other end closes; whether there was nothing more to read.
    pub(super) async fn is_closed(&mut self) -> bool {
        while self.more().await {}
        self.read.is_empty()
    }

    /// Whether anything can be read within a moment.
    pub(super) async fn hears_something_within(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.more()).await.unwrap_or(false)
    }

    async fn more(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.read);
        // A reset is an end as well.
        tokio::time::timeout(NEVER, reading).await.expect("the other end says nothing").unwrap_or(0) > 0
    }
}

// === impl Answer ===

impl Answer {
    fn of_head(head: &str) -> Self {
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self { status, headers: lines.map(header).collect(), body: Vec::new() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn headers_named(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    pub(super) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and body on one line, for tables.
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.status, self.text())
    }

    /// What every SDK takes for success.
    #[track_caller]
    pub(super) fn accepted(&self) {
        assert_eq!(self.line(), r#"200 {"success":true}"#);
        assert_eq!(self.header("content-type"), Some("application/json"));
    }

    /// A refusal every SDK understands: status, `code`, and words that say what to change.
    #[track_caller]
    pub(super) fn refused(&self, status: u16, code: &str, words: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body = self.json();
        assert_eq!(body["success"], json!(false));
        assert_eq!(body["code"], json!(code), "{body}");
        assert!(body["message"].as_str().unwrap().contains(words), "{body}");
    }
}

// === impl Log ===

impl Log {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
