//! `cargo bench --bench bigquery`: rows on their way into BigQuery, beside clients that do nothing else.
//!
//! The service is a server of this process, on the loopback, that reads each body and answers `{}`; its thread's CPU time
//! is not counted. Three sides post the same rows in the same requests, packed as they are by default, over as many
//! connections, in turns:
//!
//! - **ours**: a worker that reads from a queue in memory, maps, packs, sends, judges and settles;
//! - **by hand**: a program that opens the same events, writes the same rows with serde and a struct, packs and sends them,
//!   and keeps no books;
//! - **posting**: a client that is given the packed bodies.
//!
//! The ratios are what to compare between machines; the numbers beside them are this one's. `rows/s` is told by the wall
//! clock: our worker maps in one task, the other sides in as many as there are connections.
//!
//! No network, no files. It takes half a minute. There are no options.

#![allow(clippy::cast_precision_loss, reason = "what is counted stays far below 2^52")]

mod support;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use bytes::Bytes;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use libroseg::attempt::Start;
use libroseg::clock::Clock;
use libroseg::deliver::{Generation, Status, Stop, Worker};
use libroseg::event::Event;
use libroseg::plan::pack::Packer;
use libroseg::plan::{Compression, Destination, Plan, Request};
use libroseg::queue::dedup::Dedup;
use libroseg::queue::memory::Memory;
use libroseg::queue::{Attachment, Mode, Queue};
use libroseg::segment::{Call, Limits};
use libroseg::sink::Sinks;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use support::{bigquery, compile, cpu_seconds, now, read, track, write_by_hand};

/// As the binary has it: what is opened, mapped and packed is mostly allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rows of one turn of one side: whole requests.
const ROWS: usize = 40_000;
const ROWS_OF_A_REQUEST: usize = 500;

/// Each side has its turn so often, so that a busy moment of the machine meets all of them.
const TURNS: usize = 5;

/// Connections, as many as a destination has by default.
const CONNECTIONS: usize = 4;

/// A worker is looked at so often: rarely enough that the looking costs nothing.
const LOOK: Duration = Duration::from_millis(2);

/// Levels of gzip; 6 is what most programs take when nobody says.
const LEVELS: [u32; 5] = [1, 2, 3, 4, 6];

/// A server that reads bodies and answers `{}`.
struct Service {
    address: SocketAddr,
    /// How Linux names its thread.
    thread: Option<String>,
    requests: Arc<AtomicUsize>,
}

/// What one side did, all turns together.
#[derive(Clone, Copy, Default)]
struct Done {
    rows: usize,
    took: Duration,
    /// CPU time of this process without the service; `None` where the system does not tell.
    cpu_seconds: Option<f64>,
}

/// What all sides send.
struct Load {
    plan: Plan,
    events: Vec<Event>,
    /// The requests that our plan makes of them.
    requests: Vec<Request>,
}

fn main() {
    // `cargo test --benches` runs this too, and wants to know only that it runs.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (start, service) = (Instant::now(), Service::start());
    let load = Load::new(&service);
    packing(&load);
    walks(&load, &service);
    println!("\n{:.0} s in all", start.elapsed().as_secs_f64());
}

// === the two measurements ===

fn packing(load: &Load) {
    println!("packing a request of {ROWS_OF_A_REQUEST} rows with gzip, per row");
    println!("{:>6} {:>12} {:>12} {:>8} {:>12}", "level", "us", "bytes", "of", "ratio");
    let bodies: Vec<Bytes> = load.requests.iter().map(|request| request.plain_body().expect("rows")).collect();
    let plain: usize = bodies.iter().map(Bytes::len).sum();
    let tell = |level: &str, took: Duration, packed: usize| {
        let (us, bytes, of) = (took.as_secs_f64() * 1e6, packed as f64, plain as f64);
        let rows = ROWS as f64;
        println!("{level:>6} {:>12.2} {:>12.0} {:>8.0} {:>12.3}", us / rows, bytes / rows, of / rows, bytes / of);
    };
    for level in LEVELS {
        let (mut took, mut packed) = (Duration::ZERO, 0);
        for body in &bodies {
            let begun = Instant::now();
            packed += packed_at(body, level).len();
            took += begun.elapsed();
        }
        tell(&level.to_string(), took, packed);
    }
    let begun = Instant::now();
    let packed = bodies.iter().map(|body| Compression::Gzip.pack_to_send(body).expect("memory").len()).sum();
    tell("ours", begun.elapsed(), packed);
}

fn walks(load: &Load, service: &Service) {
    let runtime = Runtime::new().expect("a runtime");
    rustls::crypto::ring::default_provider().install_default().expect("nobody else has one");
    let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build().expect("a client");
    let [mut ours, mut by_hand, mut posting] = [Done { cpu_seconds: Some(0.0), ..Done::default() }; 3];
    for _ in 0..TURNS {
        let queue = filled(&runtime, load);
        ours.add(service.watch(load, || runtime.block_on(worked(load, queue))));
        by_hand.add(service.watch(load, || runtime.block_on(written(load, &client))));
        posting.add(service.watch(load, || runtime.block_on(posted(load, &client))));
    }
    let wire: usize = load.requests.iter().filter_map(|request| request.body.as_ref()).map(Bytes::len).sum();
    println!("\n{TURNS} turns of {ROWS} rows, {ROWS_OF_A_REQUEST} a request, {} bytes a row on the wire", wire / ROWS);
    println!("{:>10} {:>12} {:>16} {:>14} {:>14}", "side", "rows/s", "CPU us per row", "ours: rows/s", "ours: CPU");
    for (name, side) in [("ours", ours), ("by hand", by_hand), ("posting", posting)] {
        let speed = ours.per_second() / side.per_second();
        let cpu = side.cpu_per_row().map_or_else(|| "not told".to_owned(), |us| format!("{us:.2}"));
        let ratio = ours.cpu_per_row().zip(side.cpu_per_row()).map_or(String::new(), |(a, b)| format!("{:.2}x", a / b));
        println!("{name:>10} {:>12.0} {cpu:>16} {speed:>13.2}x {ratio:>14}", side.per_second());
    }
}

// === what the sides do ===

/// A queue in which all events wait.
fn filled(runtime: &Runtime, load: &Load) -> Arc<dyn Queue> {
    let queue: Arc<dyn Queue> = Arc::new(Memory::new(u64::MAX, Dedup::new(Duration::from_mins(1), 1)));
    let name = load.destination().name.clone();
    runtime.block_on(async {
        queue.attach(&[Attachment { name, start: Start::Oldest, mode: Mode::Active }], now()).await.expect("a place");
        queue.append(load.events.clone()).await.expect("room");
    });
    queue
}

/// Our worker delivers all that waits.
async fn worked(load: &Load, queue: Arc<dyn Queue>) {
    let destination = Arc::clone(load.destination());
    let name = destination.name.clone();
    let sink = Sinks::default().open(&destination).expect("a client");
    let (_generation, generations) = watch::channel(Some(Generation { destination, sink }));
    let statuses = watch::channel(Status::default()).0;
    let worker = Worker::new(name.clone(), Arc::clone(&queue), Clock::system(), generations, statuses);
    let worker = tokio::spawn(worker.run(Stop::default()));
    loop {
        let books = queue.books(&name).expect("it has a place");
        if books.waiting() == 0 {
            assert_eq!(books.delivered, ROWS as u64, "{books:?}");
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    worker.abort();
    // It was ended with nothing to do.
    let _ = worker.await;
}

/// A program that does nothing else writes all rows and sends them.
async fn written(load: &Load, client: &reqwest::Client) {
    let events: Arc<Vec<Event>> = Arc::new(load.events.clone());
    let url = load.requests[0].url.clone();
    on_all_connections(load.requests.len(), client, move |request| {
        let begin = request * ROWS_OF_A_REQUEST;
        let mut body = b"{\"skipInvalidRows\":true,\"rows\":[".to_vec();
        for (index, event) in events[begin..begin + ROWS_OF_A_REQUEST].iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            let event: Value = serde_json::from_slice(&event.json).expect("JSON");
            write_by_hand(&event, &mut body);
        }
        body.extend_from_slice(b"]}");
        (url.clone(), Compression::Gzip.pack_to_send(&body.into()).expect("memory"))
    })
    .await;
}

/// A client posts what others made.
async fn posted(load: &Load, client: &reqwest::Client) {
    let bodies: Vec<(String, Bytes)> =
        load.requests.iter().map(|request| (request.url.clone(), request.body.clone().expect("rows"))).collect();
    on_all_connections(bodies.len(), client, move |request| bodies[request].clone()).await;
}

/// Makes requests and sends them, so many at a time.
async fn on_all_connections(
    requests: usize,
    client: &reqwest::Client,
    make: impl Fn(usize) -> (String, Bytes) + Send + Sync + 'static,
) {
    let (next, make) = (Arc::new(AtomicUsize::new(0)), Arc::new(make));
    let connections = (0..CONNECTIONS).map(|_| {
        let (next, make, client) = (Arc::clone(&next), Arc::clone(&make), client.clone());
        tokio::spawn(async move {
            loop {
                let request = next.fetch_add(1, Ordering::Relaxed);
                if request >= requests {
                    return;
                }
                let (url, body) = make(request);
                let post =
                    client.post(url).header("content-type", "application/json").header("content-encoding", "gzip");
                let response = post.body(body).send().await.expect("an answer");
                assert_eq!(&*response.bytes().await.expect("a body"), b"{}");
            }
        })
    });
    for connection in connections.collect::<Vec<_>>() {
        connection.await.expect("a connection does not panic");
    }
}

fn packed_at(body: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Level::new(level));
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

// === impl Load ===

impl Load {
    fn new(service: &Service) -> Self {
        let plan = compile(&bigquery(&format!("http://{}", service.address)));
        let events = events();
        let requests = requests(&plan.destinations[0], &events);
        Self { plan, events, requests }
    }

    fn destination(&self) -> &Arc<Destination> {
        &self.plan.destinations[0]
    }
}

/// Track calls that differ in what differs between users and visits: gzip must not find all of them alike.
fn events() -> Vec<Event> {
    let mut dice = fastrand::Rng::with_seed(1);
    let limits = Limits { batch_bytes_max: 4 << 20, ..Limits::default() };
    let mut event = |n: usize| {
        let mut event = track(n);
        event["messageId"] = format!("ajs-next-1795381557600-{}", hex(&mut dice, 32)).into();
        event["anonymousId"] = hex(&mut dice, 32).into();
        event["userId"] = format!("user-{}", dice.u32(..1_000_000)).into();
        event["timestamp"] = format!("2026-11-22T21:05:{:02}.{:03}Z", dice.u32(..60), dice.u32(..1000)).into();
        event["properties"]["total"] = json!(f64::from(dice.u32(..100_000)) / 100.0);
        event["properties"]["products"][0]["product_id"] = hex(&mut dice, 8).into();
        event["context"]["page"]["url"] = format!("https://example.com/academy/{}", dice.u32(..1000)).into();
        event
    };
    let bodies = (0..ROWS).step_by(ROWS_OF_A_REQUEST).map(|begin| {
        let batch: Vec<Value> = (begin..begin + ROWS_OF_A_REQUEST).map(&mut event).collect();
        json!({ "sentAt": "2026-11-22T21:05:58.000Z", "batch": batch }).to_string()
    });
    bodies.flat_map(|body| read(body.as_bytes(), Call::Batch, &limits).events).collect()
}

fn hex(dice: &mut fastrand::Rng, digits: usize) -> String {
    std::iter::repeat_with(|| char::from(b"0123456789abcdef"[dice.usize(..16)])).take(digits).collect()
}

/// What our plan sends for these events.
fn requests(destination: &Arc<Destination>, events: &[Event]) -> Vec<Request> {
    let mut packer = Packer::new(Arc::clone(destination));
    let mut batches = Vec::new();
    for event in events {
        let message = event.open().expect("a stored event opens");
        let matches = destination.select(&message, now()).expect("no filter fails").expect("a rule matches");
        for item in destination.render(&matches, &event.message_id).expect("the mapping runs") {
            batches.extend(packer.push(item, (), now()));
        }
    }
    assert!(packer.is_empty(), "all requests are whole");
    batches.iter().map(|batch| destination.request(batch, now()).expect("a request")).collect()
}

// === impl Service ===

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(AtomicUsize::new(0));
        let take = |State(requests): State<Arc<AtomicUsize>>, body: Bytes| async move {
            drop(body);
            requests.fetch_add(1, Ordering::Relaxed);
            ([("content-type", "application/json")], "{}")
        };
        let router = Router::new().fallback(take).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(&requests));
        let (sender, thread) = mpsc::channel();
        std::thread::spawn(move || {
            let name = std::fs::read_link("/proc/thread-self").ok().and_then(|name| name.to_str().map(str::to_owned));
            sender.send(name).expect("somebody waits");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                axum::serve(listener, router).await.expect("a server");
            });
        });
        Self { address, thread: thread.recv().expect("a thread"), requests }
    }

    /// Has a side take its turn: all of it arrives, and nothing else.
    fn watch(&self, load: &Load, turn: impl FnOnce()) -> Done {
        let (requests, begun, cpu) = (self.requests.load(Ordering::Relaxed), Instant::now(), self.cpu_of_others());
        turn();
        let took = begun.elapsed();
        let cpu_seconds = self.cpu_of_others().zip(cpu).map(|(after, before)| after - before);
        let requests = self.requests.load(Ordering::Relaxed) - requests;
        assert_eq!(requests, load.requests.len(), "every side sends the same requests");
        Done { rows: ROWS, took, cpu_seconds }
    }

    /// CPU time of this process but for the service's.
    fn cpu_of_others(&self) -> Option<f64> {
        Some(cpu_seconds("self")? - cpu_seconds(self.thread.as_deref()?)?)
    }
}

// === impl Done ===

impl Done {
    fn add(&mut self, turn: Self) {
        self.rows += turn.rows;
        self.took += turn.took;
        self.cpu_seconds = self.cpu_seconds.zip(turn.cpu_seconds).map(|(all, one)| all + one);
    }

    fn per_second(self) -> f64 {
        self.rows as f64 / self.took.as_secs_f64()
    }

    fn cpu_per_row(self) -> Option<f64> {
        self.cpu_seconds.map(|seconds| seconds * 1e6 / self.rows as f64)
    }
}
