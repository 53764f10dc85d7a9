//! `cargo bench --bench durable`: what an acknowledgement, a restart and a backlog cost with the queue on disk, and what
//! destinations that are ill cost an acknowledgement.
//!
//! Beside everything that waits for the disk runs a bare group commit: a thread that takes all that is there, writes it
//! with one `write`, makes it durable with one `sync_data`, and wakes whoever waited. It has no format, no checksums, no
//! deduplication and no compression, so a ratio near 1 means that ours cost nothing beside the disk. The ratios are what
//! to compare between machines; the numbers beside them are this one's.
//!
//! No network, and no files outside of `target/`. `LIBROSEG_BENCH_BACKLOG=10000000` lets the backlog grow further than a
//! million events, and takes minutes; without it everything takes about a minute. There are no other options.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "what is counted stays far below 2^52"
)]

mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, pending, ready};
use jiff::Timestamp;
use libroseg::attempt::{Attempts, DestinationName, Start, Verdict};
use libroseg::clock::Clock;
use libroseg::deliver::{Generation, Status, Stop, Worker};
use libroseg::event::{Event, Kind};
use libroseg::plan::{Reply, Request};
use libroseg::queue::dedup::Dedup;
use libroseg::queue::disk::{Disk, Options};
use libroseg::queue::memory::Memory;
use libroseg::queue::{Attachment, Mode, Queue, ReadLimit, Settlement};
use libroseg::segment::{Call, Limits};
use libroseg::sink::Sink;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use support::{compile, cpu_seconds, now, read, target, track};

/// Requests at the same time, and events in each.
const SHAPES: [(usize, usize); 6] = [(1, 1), (1, 100), (16, 1), (16, 100), (64, 1), (64, 100)];

/// Each side of a comparison runs this long at a time, and so many times in turns: a disk has moods.
const TURN: Duration = Duration::from_millis(500);
const TURNS: usize = 3;

/// Events made for one turn at most; some 90 MB.
const TURN_EVENTS_MAX: usize = 100_000;

/// Events for which CPU time is taken, which the system counts in hundredths of a second; fewer if the disk is slow.
const CPU_EVENTS: usize = 200_000;
const CPU_TURN: Duration = Duration::from_secs(3);

/// Destinations beside which acknowledgements are timed, and who sends at half of what there is room for.
const DESTINATIONS: usize = 5;
const SENDERS: usize = 64;
const HALF_LOAD_TURN: Duration = Duration::from_secs(1);

/// A backlog grows tenfold from the first to the last of these.
const BACKLOG_FIRST: usize = 1_000;
const BACKLOG_LAST: usize = 1_000_000;
const BACKLOG_VARIABLE: &str = "LIBROSEG_BENCH_BACKLOG";

/// No further growth after this, unless the variable is set.
const TIME_MAX: Duration = Duration::from_secs(40);

/// What a worker reads at a time.
const LIMIT: ReadLimit = ReadLimit { events_max: 500, bytes_max: 4 << 20, waiting_max: 10_000 };

/// As a queue remembers by default.
const DAY: Duration = Duration::from_hours(24);
const DEDUP_IDS_MAX: usize = 250_000;

/// Where the differing parts of a template's events are.
const MARK: &str = "777777777777";
const ANONYMOUS_ID: &str = "f6cd870b-2073-41ba-be41-65d238d50e0d";
const MESSAGE_ID: &str = "ajs-next-1795381557600-";

/// Makes events of one kind from one site: they differ in their own ids, the user's and the order's. Mixed traffic takes
/// up more room than these do.
struct Maker {
    template: Event,
    message_id: usize,
    anonymous_id: usize,
    marks: Vec<usize>,
    dice: fastrand::Rng,
    made: u64,
}

/// What one side did.
#[derive(Clone, Copy, Default)]
struct Done {
    events: usize,
    json_bytes: u64,
    took: Duration,
}

/// Group commit and nothing else.
struct Bare {
    sender: Option<mpsc::Sender<(Vec<Event>, oneshot::Sender<()>)>>,
    thread: Option<JoinHandle<()>>,
}

/// A service that a destination sends to.
#[derive(Clone, Copy)]
enum Service {
    Well,
    Hangs,
    Fails,
}

type Append = Arc<dyn Fn(Vec<Event>) -> BoxFuture<'static, ()> + Send + Sync>;

fn main() {
    // `cargo test --benches` runs this too, and wants to know only that it runs.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let start = Instant::now();
    let runtime = Runtime::new().expect("a runtime");
    let mut maker = Maker::new();
    println!("events of {} bytes of JSON\n", maker.event().json.len());
    acknowledgements(&runtime, &mut maker);
    cpu(&runtime, &mut maker);
    isolation(&runtime, &mut maker);
    backlogs(&runtime, &mut maker, start);
    println!("\n{:.0} s in all", start.elapsed().as_secs_f64());
}

// === the four measurements ===

fn acknowledgements(runtime: &Runtime, maker: &mut Maker) {
    println!("durable acknowledgements, and a bare group commit on the same disk in turns with it");
    println!(
        "{:>9} {:>6} {:>14} {:>14} {:>8} {:>18}",
        "appenders", "batch", "ours events/s", "bare events/s", "ratio", "disk/JSON bytes"
    );
    for (appenders, batch) in SHAPES {
        let folder = temporary_folder();
        let disk = open(folder.path());
        let bare = Arc::new(Bare::open(&folder.path().join("bare")));
        let (mut ours, mut floor) = (Done::default(), Done::default());
        for _ in 0..TURNS {
            floor.add(turn(runtime, maker, appenders, batch, &bare.appender()));
            ours.add(turn(runtime, maker, appenders, batch, &appender(&disk)));
        }
        let on_disk = disk.report().size_bytes as f64 / ours.json_bytes as f64;
        let (ours, floor) = (ours.per_second(), floor.per_second());
        println!("{appenders:>9} {batch:>6} {ours:>14.0} {floor:>14.0} {:>8.2} {on_disk:>18.2}", ours / floor);
    }
}

fn cpu(runtime: &Runtime, maker: &mut Maker) {
    println!("\nCPU time (user and system) of an append, 16 appenders");
    println!("{:>6} {:>16} {:>16} {:>8}", "batch", "disk us/event", "memory us/event", "ratio");
    for (batch, events) in [(1, CPU_EVENTS / 10), (100, CPU_EVENTS)] {
        let folder = temporary_folder();
        let memory: Arc<dyn Queue> = Arc::new(Memory::new(u64::MAX, Dedup::new(DAY, DEDUP_IDS_MAX)));
        let ours = cpu_per_event(runtime, maker, batch, events, &open(folder.path()));
        let floor = cpu_per_event(runtime, maker, batch, events, &memory);
        match (ours, floor) {
            (Some(ours), Some(floor)) => println!("{batch:>6} {ours:>16.2} {floor:>16.2} {:>8.2}", ours / floor),
            _ => println!("{batch:>6} not measured: this system has no /proc/self/stat"),
        }
    }
}

fn isolation(runtime: &Runtime, maker: &mut Maker) {
    println!("\nacknowledgements at half load, beside {DESTINATIONS} destinations that deliver");
    let well = [Service::Well; DESTINATIONS];
    let mut ill = well;
    ill[..2].copy_from_slice(&[Service::Hangs, Service::Fails]);
    let full = beside(runtime, well, |queue| turn(runtime, maker, SENDERS, 1, &appender(queue)).per_second());
    let (mut all_well, mut two_ill) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        all_well.extend(beside(runtime, well, |queue| half_load(runtime, maker, full / 2.0, queue)));
        two_ill.extend(beside(runtime, ill, |queue| half_load(runtime, maker, full / 2.0, queue)));
    }
    let [well, ill] = [&mut all_well, &mut two_ill].map(|times| p99(times).as_secs_f64() * 1e3);
    println!(
        "{:>14} {:>16} {:>32} {:>8}",
        "half events/s", "p99 ms, all well", "p99 ms, one hangs and one fails", "ratio"
    );
    println!("{:>14.0} {well:>16.2} {ill:>32.2} {:>8.2}", full / 2.0, ill / well);
}

fn backlogs(runtime: &Runtime, maker: &mut Maker, start: Instant) {
    let asked: Option<usize> = std::env::var(BACKLOG_VARIABLE).ok().and_then(|events| events.parse().ok());
    println!("\na restart with a backlog, and draining it; after a crash: of a copy made while the queue was open");
    println!(
        "{:>10} {:>12} {:>14} {:>14} {:>16} {:>8} {:>16}",
        "events", "open ms", "after crash ms", "first event ms", "drained events/s", "ratio", "disk/JSON bytes"
    );
    let folder = temporary_folder();
    let mut queue = open(folder.path());
    let (mut stored, mut json_bytes, mut first_speed) = (0, 0, None);
    let mut backlog = BACKLOG_FIRST;
    while backlog <= asked.unwrap_or(BACKLOG_LAST) {
        if asked.is_none() && start.elapsed() > TIME_MAX {
            println!("{backlog:>10} not measured: out of time");
            return;
        }
        json_bytes += fill(runtime, maker, &queue, backlog - stored);
        stored = backlog;
        let crashed = crash(folder.path());
        let after_crash = timed(|| open(crashed.path())).1;
        drop(crashed);
        drop(queue);
        let opened;
        (queue, opened) = timed(|| open(folder.path()));
        let destination = DestinationName::from(format!("of_{backlog}"));
        attach(runtime, &queue, &destination);
        let (first, read) = timed(|| runtime.block_on(queue.read(&destination, LIMIT, now())));
        assert!(!first.is_empty(), "the backlog is there");
        queue.release(&destination);
        let (drained, took) = timed(|| runtime.block_on(drain(&*queue, &destination)));
        assert_eq!(drained, backlog, "all of it is handed out, once");
        let speed = drained as f64 / took.as_secs_f64();
        let ratio = speed / *first_speed.get_or_insert(speed);
        let on_disk = queue.report().size_bytes as f64 / json_bytes as f64;
        let [opened, after_crash, read] = [opened, after_crash, read].map(|took| took.as_secs_f64() * 1e3);
        println!(
            "{backlog:>10} {opened:>12.1} {after_crash:>14.1} {read:>14.2} {speed:>16.0} {ratio:>8.2} {on_disk:>16.2}"
        );
        backlog *= 10;
    }
}

// === what they do ===

/// Appends for a while from several tasks, each waiting for its answer.
fn turn(runtime: &Runtime, maker: &mut Maker, appenders: usize, batch: usize, append: &Append) -> Done {
    let batches = (TURN_EVENTS_MAX / appenders / batch).max(1);
    let work: Vec<_> = (0..appenders).map(|_| maker.batches(batches, batch)).collect();
    run(runtime, work, append, Some(TURN))
}

fn run(runtime: &Runtime, work: Vec<Vec<Vec<Event>>>, append: &Append, time_max: Option<Duration>) -> Done {
    let is_over = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let tasks: Vec<_> = work
        .into_iter()
        .map(|batches| {
            let (append, is_over) = (Arc::clone(append), Arc::clone(&is_over));
            runtime.spawn(async move {
                let mut done = Done::default();
                for batch in batches {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    done.events += batch.len();
                    done.json_bytes += batch.iter().map(|event| event.json.len() as u64).sum::<u64>();
                    append(batch).await;
                }
                done
            })
        })
        .collect();
    runtime.block_on(async {
        let all = futures_util::future::join_all(tasks);
        tokio::pin!(all);
        let in_time = tokio::time::timeout(time_max.unwrap_or(Duration::MAX), &mut all).await;
        is_over.store(true, Ordering::Relaxed);
        let all = if let Ok(all) = in_time { all } else { all.await };
        let mut sum = Done { took: start.elapsed(), ..Done::default() };
        for done in all {
            let done = done.expect("an appender does not panic");
            sum.add(done);
        }
        sum
    })
}

/// Does something with a queue from which workers deliver to these services.
fn beside<T>(runtime: &Runtime, services: [Service; DESTINATIONS], work: impl FnOnce(&Arc<dyn Queue>) -> T) -> T {
    let names: Vec<String> = (0..services.len()).map(|n| format!("d{n}")).collect();
    let lines = names
        .iter()
        .map(|name| format!("[destinations.{name}]\nurl = \"http://localhost\"\nbatch = {{ max_events = 100 }}\n"));
    let plan = compile(&format!("[sources.s]\nwrite_keys = [\"k\"]\n{}", lines.collect::<String>()));
    let folder = temporary_folder();
    let queue = open(folder.path());
    let workers: Vec<_> = plan
        .destinations
        .iter()
        .zip(services)
        .map(|(destination, service)| {
            attach(runtime, &queue, &destination.name);
            let generation = Generation { destination: Arc::clone(destination), sink: Arc::new(service) };
            let (name, statuses) = (destination.name.clone(), watch::channel(Status::default()).0);
            let (sender, generations) = watch::channel(Some(generation));
            let worker = Worker::new(name, Arc::clone(&queue), Clock::system(), generations, statuses);
            // The plan stays in force as long as its sender is there.
            runtime.spawn(async move { (worker.run(Stop::default()).await, sender).0 })
        })
        .collect();
    let done = work(&queue);
    for worker in workers {
        worker.abort();
        // It was ended in the middle.
        let _ = runtime.block_on(worker);
    }
    done
}

/// Appends events one by one at a steady rate; answers how long each took since it was due.
fn half_load(runtime: &Runtime, maker: &mut Maker, per_second: f64, queue: &Arc<dyn Queue>) -> Vec<Duration> {
    let pause = Duration::from_secs_f64(SENDERS as f64 / per_second);
    let count = (HALF_LOAD_TURN.as_secs_f64() / pause.as_secs_f64()).ceil().max(1.0) as usize;
    let append = appender(queue);
    // The first event of a queue makes a file.
    runtime.block_on(append(maker.batches(1, 1).remove(0)));
    let start = Instant::now();
    let senders = (0..SENDERS).map(|sender| {
        let (append, events) = (Arc::clone(&append), maker.batches(count, 1));
        let first = start + pause.mul_f64(sender as f64 / SENDERS as f64);
        runtime.spawn(async move {
            let mut times = Vec::with_capacity(count);
            for (n, events) in events.into_iter().enumerate() {
                let due = first + pause.mul_f64(n as f64);
                let is_late = due < Instant::now();
                tokio::time::sleep_until(due.into()).await;
                // A timer's own lateness is not the queue's.
                let due = if is_late { due } else { Instant::now() };
                append(events).await;
                times.push(due.elapsed());
            }
            times
        })
    });
    let all = futures_util::future::join_all(senders.collect::<Vec<_>>());
    runtime.block_on(all).into_iter().flat_map(|times| times.expect("a sender does not panic")).collect()
}

fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

fn cpu_per_event(
    runtime: &Runtime,
    maker: &mut Maker,
    batch: usize,
    events: usize,
    queue: &Arc<dyn Queue>,
) -> Option<f64> {
    const APPENDERS: usize = 16;
    let work = (0..APPENDERS).map(|_| maker.batches(events / APPENDERS / batch, batch)).collect();
    let before = cpu_seconds("self")?;
    let done = run(runtime, work, &appender(queue), Some(CPU_TURN));
    Some((cpu_seconds("self")? - before) * 1e6 / done.events as f64)
}

/// Appends events, and answers the bytes of their JSON.
fn fill(runtime: &Runtime, maker: &mut Maker, queue: &Arc<dyn Queue>, mut events: usize) -> u64 {
    let mut json_bytes = 0;
    while events > 0 {
        let batch = events.min(100);
        let batches = (events / batch).min(TURN_EVENTS_MAX / batch);
        let appenders = batches.min(16);
        let work: Vec<_> = (0..appenders).map(|_| maker.batches(batches / appenders, batch)).collect();
        let done = run(runtime, work, &appender(queue), None);
        events -= done.events;
        json_bytes += done.json_bytes;
    }
    json_bytes
}

/// What a crash leaves, but for what the system would still have written.
fn crash(folder: &Path) -> TempDir {
    let copy = temporary_folder();
    let queue = copy.path().join("queue");
    fs::create_dir(&queue).expect("a folder");
    for entry in fs::read_dir(folder.join("queue")).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, queue.join(path.file_name().expect("a name"))).expect("a copy");
    }
    copy
}

fn attach(runtime: &Runtime, queue: &Arc<dyn Queue>, destination: &DestinationName) {
    let attachment = Attachment { name: destination.clone(), start: Start::Oldest, mode: Mode::Active };
    runtime.block_on(queue.attach(&[attachment], now())).expect("a place");
}

/// Reads and settles until nothing is left.
async fn drain(queue: &dyn Queue, destination: &DestinationName) -> usize {
    let mut events = 0;
    loop {
        let deliveries = queue.read(destination, LIMIT, now()).await;
        if deliveries.is_empty() {
            return events;
        }
        events += deliveries.len();
        let settlements = deliveries.iter().map(|delivery| Settlement {
            offset: delivery.entry.offset,
            verdict: Verdict::Delivered,
            attempts: Attempts::default(),
        });
        queue.settle(destination, settlements.collect(), now()).await;
    }
}

fn appender(queue: &Arc<dyn Queue>) -> Append {
    let queue = Arc::clone(queue);
    Arc::new(move |events| {
        let queue = Arc::clone(&queue);
        async move { queue.append(events).await.expect("room") }.boxed()
    })
}

fn open(folder: &Path) -> Arc<dyn Queue> {
    let options = Options {
        dir: folder.join("queue"),
        size_bytes_max: 1 << 40,
        retain: DAY * 7,
        dedup_window: DAY,
        dedup_ids_max: DEDUP_IDS_MAX,
        letters_retain: DAY * 30,
        letters_bytes_max: 1 << 30,
    };
    Arc::new(Disk::open(options, now()).expect("a queue"))
}

fn temporary_folder() -> TempDir {
    let target = target();
    fs::create_dir_all(&target).expect("a folder for what is made");
    tempfile::Builder::new().prefix("durable-").tempdir_in(target).expect("a folder")
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

// === impl Done ===

impl Done {
    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.json_bytes += other.json_bytes;
        self.took += other.took;
    }

    fn per_second(self) -> f64 {
        self.events as f64 / self.took.as_secs_f64()
    }
}

// === impl Maker ===

impl Maker {
    fn new() -> Self {
        let body = track(MARK.parse().expect("a number")).to_string();
        let mut reading = read(body.as_bytes(), Call::One(Kind::Track), &Limits::default());
        let template = reading.events.pop().expect("a good event");
        let text = std::str::from_utf8(&template.json).expect("JSON");
        let after = |word: &str| text.find(word).expect("in the template") + word.len();
        let (message_id, anonymous_id) = (after(MESSAGE_ID), after(ANONYMOUS_ID) - ANONYMOUS_ID.len());
        let marks = text.match_indices(MARK).map(|(at, _)| at).collect();
        Self { message_id, anonymous_id, marks, template, dice: fastrand::Rng::with_seed(1), made: 0 }
    }

    fn event(&mut self) -> Event {
        let mut json = self.template.json.to_vec();
        for at in &self.marks {
            scramble(&mut self.dice, &mut json[*at..*at + MARK.len()]);
        }
        scramble(&mut self.dice, &mut json[self.anonymous_id..self.anonymous_id + ANONYMOUS_ID.len()]);
        // The id's end counts, so that no event is a duplicate of another.
        self.made += 1;
        let (random, count) = json[self.message_id..self.message_id + 36].split_at_mut(24);
        scramble(&mut self.dice, random);
        count.copy_from_slice(format!("{:012x}", self.made).as_bytes());
        let id = std::str::from_utf8(&json[self.message_id - MESSAGE_ID.len()..self.message_id + 36]).expect("an id");
        Event { message_id: id.into(), json: Bytes::from(json), ..self.template.clone() }
    }

    fn batches(&mut self, batches: usize, batch: usize) -> Vec<Vec<Event>> {
        (0..batches).map(|_| (0..batch).map(|_| self.event()).collect()).collect()
    }
}

/// Puts other hexadecimal digits in the place of these.
fn scramble(dice: &mut fastrand::Rng, digits: &mut [u8]) {
    for digit in digits.iter_mut().filter(|digit| **digit != b'-') {
        *digit = b"0123456789abcdef"[dice.usize(..16)];
    }
}

// === impl Service ===

impl Sink for Service {
    fn send(&self, _: Request, _: Timestamp) -> BoxFuture<'_, Reply> {
        let answered = |status| Reply::Answered { status, headers: Vec::new(), body: Bytes::new(), news: None };
        match self {
            Self::Well => ready(answered(200)).boxed(),
            Self::Fails => ready(answered(503)).boxed(),
            Self::Hangs => pending().boxed(),
        }
    }
}

// === impl Bare ===

impl Bare {
    fn open(path: &Path) -> Self {
        let mut file = File::create(path).expect("a file");
        let (sender, receiver) = mpsc::channel::<(Vec<Event>, oneshot::Sender<()>)>();
        let thread = std::thread::spawn(move || {
            while let Ok(first) = receiver.recv() {
                let group: Vec<_> = std::iter::once(first).chain(receiver.try_iter()).collect();
                let mut bytes = Vec::new();
                for event in group.iter().flat_map(|(events, _)| events) {
                    bytes.extend_from_slice(&event.json);
                }
                file.write_all(&bytes).expect("room");
                file.sync_data().expect("a disk that works");
                for (_, waiter) in group {
                    let _ = waiter.send(());
                }
            }
        });
        Self { sender: Some(sender), thread: Some(thread) }
    }

    fn appender(self: &Arc<Self>) -> Append {
        let sender = self.sender.clone().expect("open until it is dropped");
        Arc::new(move |events| {
            let (waiter, answer) = oneshot::channel();
            sender.send((events, waiter)).expect("the thread lives");
            async move { answer.await.expect("an answer") }.boxed()
        })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
