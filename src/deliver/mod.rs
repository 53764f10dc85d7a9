//! Delivering: one task per destination reads, selects, renders, packs, sends, judges and settles.
//!
//! A destination that hangs, errors or is slow delays itself only: it has its own task, place in the queue, limits and
//! connections. Nothing here knows HTTP or storage; the rules are `plan`'s, the verdicts `retry`'s.
//!
//! [`Fleet`] keeps the tasks in step with the plan in force; [`worker`] is one task; [`progress`] is what it knows of
//! the events it holds, and [`order`] whose turn it is. [`overflow`] is what becomes of the rest when the process ends.
//! [`errand`] is the same for the events of one request, within a time.

pub mod errand;
pub mod order;
pub mod overflow;
pub mod progress;
pub mod worker;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::{DestinationName, Outcome, Start};
use crate::clock::Clock;
use crate::plan::{Destination, Plan};
use crate::queue::{Attachment, Books, Mode, Queue, StorageError};
use crate::retry::Rest;
use crate::sink::{Sink, SinkError, Sinks};

pub use worker::Worker;
pub(crate) use worker::{Look, items_of, look};

/// A destination as one plan describes it, and the connections it uses.
#[derive(Clone)]
pub struct Generation {
    /// The rules.
    pub destination: Arc<Destination>,
    /// The way out.
    pub sink: Arc<dyn Sink>,
}

/// What a worker tells of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Requests that are out.
    pub requests_in_flight: usize,
    /// Batches that wait for a free connection, for the rate limit, or for the end of a rest.
    pub batches_ready: usize,
    /// Events it holds.
    pub events_in_hand: u64,
    /// Why it sends nothing, or one request at a time.
    pub rest: Option<Rest>,
    /// The last failure, for `/ready` and people.
    pub last_failure: Option<String>,
    /// What it has done since the process started.
    pub tally: Tally,
}

/// What a worker has done, whatever became of the worker itself: cumulative, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests made.
    pub requests: u64,
    /// How long they took, from sending to the end of the reply, all together.
    pub request_time: Duration,
    /// Items that the destination took.
    pub delivered: u64,
    /// Items that a response rule said to forget.
    pub dropped: u64,
    /// Items worth another try.
    pub failed: u64,
    /// Items sent again in smaller requests.
    pub split: u64,
    /// Items that met bad credentials.
    pub unauthorized: u64,
    /// Items that no try will deliver.
    pub refused: u64,
}

/// When a worker's task ends.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// No more reading; what is in flight may end.
    pub finish: CancellationToken,
    /// Read on until nothing is due, then end: for a queue that forgets.
    pub drain: CancellationToken,
    /// End at once: requests that are out are given up.
    pub abandon: CancellationToken,
}

/// All workers.
pub struct Fleet {
    queue: Arc<dyn Queue>,
    clock: Clock,
    sinks: Sinks,
    stop: Stop,
    tasks: TaskTracker,
    workers: Mutex<BTreeMap<DestinationName, Handle>>,
    /// What became of the events of errands, which were never in the queue.
    errands: Mutex<BTreeMap<DestinationName, Books>>,
}

struct Handle {
    generation: watch::Sender<Option<Generation>>,
    status: watch::Sender<Status>,
}

/// Why a plan could not be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// A destination's client cannot be built.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The queue cannot be told of its destinations.
    #[error(transparent)]
    Queue(#[from] StorageError),
}

/// A worker that panics as soon as it starts must not eat a core.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

// === impl Fleet ===

impl Fleet {
    /// No workers yet.
    #[must_use]
    pub fn new(queue: Arc<dyn Queue>, clock: Clock, sinks: Sinks) -> Self {
        Self {
            queue,
            clock,
            sinks,
            stop: Stop::default(),
            tasks: TaskTracker::new(),
            workers: Mutex::default(),
            errands: Mutex::default(),
        }
    }

    /// Brings the workers in step with a plan. A destination that is the same in both plans is not disturbed.
    ///
    /// # Errors
    /// When a sink cannot be made or the queue cannot be told; then everything stays as it was.
    pub async fn follow(&self, plan: &Plan) -> Result<(), FollowError> {
        let news = plan.destinations.iter().map(|destination| self.news(destination)).collect::<Result<Vec<_>, _>>()?;
        self.queue.attach(&attachments(plan), self.clock.now()).await?;
        let names: Vec<DestinationName> = plan.destinations.iter().map(|d| d.name.clone()).collect();
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, handle) in workers.iter() {
            if !names.contains(name) {
                handle.generation.send_if_modified(|generation| generation.take().is_some());
            }
        }
        for generation in news.into_iter().flatten() {
            let name = generation.destination.name.clone();
            let handle = workers.entry(name.clone()).or_insert_with(|| self.start(name));
            handle.generation.send_replace(Some(generation));
        }
        Ok(())
    }

    /// A destination's new generation; `None` when its worker follows one like it already.
    fn news(&self, destination: &Arc<Destination>) -> Result<Option<Generation>, SinkError> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let is_followed = workers.get(&destination.name).is_some_and(|handle| {
            let current = handle.generation.borrow();
            current.as_ref().is_some_and(|current| current.destination.fingerprint == destination.fingerprint)
        });
        if is_followed {
            return Ok(None);
        }
        Ok(Some(Generation { destination: Arc::clone(destination), sink: self.sinks.open(destination)? }))
    }

    /// Starts a worker that follows nothing yet, and starts it again should it panic.
    fn start(&self, name: DestinationName) -> Handle {
        let (generation, generations) = watch::channel(None);
        let status = watch::Sender::new(Status::default());
        let statuses = status.clone();
        let (queue, clock, stop) = (Arc::clone(&self.queue), self.clock.clone(), self.stop.clone());
        let abandon = stop.abandon.clone();
        self.tasks.spawn(abandon.run_until_cancelled_owned(async move {
            loop {
                let worker =
                    Worker::new(name.clone(), Arc::clone(&queue), clock.clone(), generations.clone(), statuses.clone());
                if std::panic::AssertUnwindSafe(worker.run(stop.clone())).catch_unwind().await.is_ok() {
                    return;
                }
                tracing::error!(destination.name = %name, "the worker panicked and is started again; this is a bug");
                queue.release(&name);
                tokio::time::sleep(RESTART_PAUSE).await;
            }
        }));
        Handle { generation, status }
    }

    /// What each worker tells of itself, by destination.
    #[must_use]
    pub fn statuses(&self) -> BTreeMap<DestinationName, Status> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().map(|(name, handle)| (name.clone(), handle.status.borrow().clone())).collect()
    }

    /// A destination's books: those of the queue, and what became of the events of errands.
    #[must_use]
    pub fn books(&self, name: &DestinationName) -> Option<Books> {
        let mut books = self.queue.books(name)?;
        if let Some(errands) = self.errands.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            add(&mut books, errands);
        }
        Some(books)
    }

    /// Adds to the books what became of an errand's events. What is undelivered is not in them: it is the sender's, or
    /// told as lost; nor is what was left out.
    fn note_errand(&self, queue: &Arc<dyn Queue>, plan: &Plan, left_out: &HashMap<DestinationName, u64>) {
        let mut errands = self.errands.lock().unwrap_or_else(PoisonError::into_inner);
        for name in plan.destinations.iter().map(|destination| &destination.name) {
            let Some(books) = queue.books(name) else { continue };
            let dropped = books.dropped - left_out.get(name).copied().unwrap_or(0);
            let accepted = books.delivered + books.filtered + dropped + books.dead;
            add(errands.entry(name.clone()).or_default(), &Books { accepted, dropped, ..books });
        }
    }

    /// Ends all workers: batches in flight end. With `drain` everything that is due is delivered first.
    pub async fn shut_down(&self, drain: bool) {
        self.tasks.close();
        let token = if drain { &self.stop.drain } else { &self.stop.finish };
        token.cancel();
        self.tasks.wait().await;
    }

    /// Ends what [`Fleet::shut_down`] left, at once. What was out is given up, and what was in hand is the queue's again.
    pub async fn abandon(&self) {
        self.tasks.close();
        self.stop.abandon.cancel();
        self.tasks.wait().await;
        for name in self.workers().keys() {
            self.queue.release(name);
        }
    }

    fn workers(&self) -> MutexGuard<'_, BTreeMap<DestinationName, Handle>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Tally ===

impl Tally {
    /// Counts a request that was made.
    pub fn note_request(&mut self, took: Duration) {
        self.requests += 1;
        self.request_time += took;
    }

    /// Adds what another one counted.
    pub fn absorb(&mut self, other: &Self) {
        self.requests += other.requests;
        self.request_time += other.request_time;
        self.delivered += other.delivered;
        self.dropped += other.dropped;
        self.failed += other.failed;
        self.split += other.split;
        self.unauthorized += other.unauthorized;
        self.refused += other.refused;
    }

    /// Counts how an item went. One that was too large, and alone, is refused.
    pub fn note_item(&mut self, outcome: &Outcome) {
        let count = match outcome {
            Outcome::Delivered => &mut self.delivered,
            Outcome::Dropped => &mut self.dropped,
            Outcome::Failed(_) | Outcome::Held(_) => &mut self.failed,
            Outcome::Unauthorized(_) => &mut self.unauthorized,
            Outcome::Refused(_) | Outcome::Split(_) => &mut self.refused,
        };
        *count += 1;
    }
}

/// Adds what has become of events; what waits is left as it is.
fn add(books: &mut Books, more: &Books) {
    books.accepted += more.accepted;
    books.delivered += more.delivered;
    books.filtered += more.filtered;
    books.dropped += more.dropped;
    books.dead += more.dead;
}

/// What the queue is to know of a plan's destinations.
fn attachments(plan: &Plan) -> Vec<Attachment> {
    let active =
        plan.destinations.iter().map(|d| Attachment { name: d.name.clone(), start: d.start, mode: Mode::Active });
    let disabled = plan.disabled.iter().map(|d| Attachment {
        name: d.name.clone(),
        start: Start::Newest,
        mode: if d.skips { Mode::Skips } else { Mode::Waits },
    });
    active.chain(disabled).collect()
}
