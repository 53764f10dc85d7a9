//! Where accepted events wait: stored once, however many destinations there are.
//!
//! A destination is a cursor over the log plus a bounded list of events waiting for another try; a slow or dead one
//! lags alone. A queue keeps and hands out; it does not know what a rule is, and it never decides a verdict.
//! Every kind of queue passes the behaviour tests in `tests/it/queues.rs`.

pub mod dedup;
pub mod memory;

use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::attempt::{Attempts, DeadLetter, DestinationName, Verdict};
use crate::event::{Event, Message};

/// An event's place in the log: counts from 0, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset(pub u64);

/// What a `200` means with this queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// The event is in this process, and lost if it dies.
    Memory,
    /// The event is on stable storage.
    Durable,
}

/// An accepted event at its place, opened at most once for all who read it near the tail.
#[derive(Debug)]
pub struct Entry {
    /// Its place.
    pub offset: Offset,
    /// The event as stored.
    pub event: Event,
    message: OnceLock<Option<Message>>,
}

/// An entry handed to a destination, to be settled.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The event.
    pub entry: Arc<Entry>,
    /// The tries it had.
    pub attempts: Attempts,
}

/// How much one read may hand out.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    /// Events.
    pub events_max: usize,
    /// Bytes of their JSON; the first event is handed out whatever its size.
    pub bytes_max: usize,
    /// Events this destination may have waiting for another try; at the bound only those are handed out.
    pub waiting_max: usize,
}

/// What became of a delivery.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Which.
    pub offset: Offset,
    /// What is decided.
    pub verdict: Verdict,
    /// The tries it had, this one included.
    pub attempts: Attempts,
}

/// The invariant in numbers: `accepted = delivered + filtered + dropped + dead + waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Events that this destination was to look at.
    pub accepted: u64,
    /// Delivered whole.
    pub delivered: u64,
    /// No rule wanted them.
    pub filtered: u64,
    /// A response rule said to forget them.
    pub dropped: u64,
    /// Given up on.
    pub dead: u64,
    /// Beyond the cursor: never handed out.
    pub behind: u64,
    /// Handed out and not settled.
    pub in_hand: u64,
    /// Waiting for another try.
    pub later: u64,
}

/// Why events were not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No room: the sender should hold its events and come back.
    #[error("the queue is full ({size_bytes} of {size_bytes_max} bytes)")]
    Full {
        /// Bytes in it.
        size_bytes: u64,
        /// Bytes it may hold.
        size_bytes_max: u64,
    },
    /// The storage does not answer.
    #[error("the queue cannot store events: {0}")]
    Unavailable(String),
}

/// A log of accepted events with one cursor per destination.
pub trait Queue: Send + Sync + 'static {
    /// What a `200` means.
    fn ack(&self) -> Ack;

    /// Stores events, all or none, but for those that were stored before (same source, same message id, within 24
    /// hours): they are left out and the answer is the same. Ready when they are as safe as [`Queue::ack`] says.
    fn append(&self, events: Vec<Event>) -> BoxFuture<'_, Result<(), AppendError>>;

    /// Says which destinations are in force. A name seen for the first time begins with events accepted from now on;
    /// one that is missing keeps its place and goes on there when it comes back.
    fn attach(&self, destinations: &[DestinationName]) -> BoxFuture<'_, ()>;

    /// Hands out deliveries that are due: first those whose time for another try has come, then new ones in order.
    /// Each is handed out once until it is settled or released. Empty when nothing is due.
    fn read(&self, destination: &DestinationName, limit: ReadLimit, now: Timestamp) -> BoxFuture<'_, Vec<Delivery>>;

    /// Ready when [`Queue::read`] may have more than it had: something was appended, released or
    /// attached since the call.
    fn changed(&self) -> BoxFuture<'_, ()>;

    /// When the next event waiting for another try is due at a destination.
    fn next_due(&self, destination: &DestinationName) -> Option<Timestamp>;

    /// Writes what became of deliveries: done, due again at a time, or in the dead letters.
    fn settle(&self, destination: &DestinationName, settlements: Vec<Settlement>, now: Timestamp) -> BoxFuture<'_, ()>;

    /// Takes back what was handed out and not settled: whoever held it is gone.
    fn release(&self, destination: &DestinationName);

    /// The destination's books; `None` for a name never attached.
    fn books(&self, destination: &DestinationName) -> Option<Books>;

    /// The destination's dead letters, oldest first.
    fn dead_letters(&self, destination: &DestinationName) -> Vec<DeadLetter>;

    /// Bytes of event text it holds.
    fn size_bytes(&self) -> u64;
}

// === impl Ack ===

impl Ack {
    /// The word in `x-libroseg-ack`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Durable => "durable",
        }
    }
}

// === impl Entry ===

impl Entry {
    /// An event at its place, not yet opened.
    #[must_use]
    pub fn new(offset: Offset, event: Event) -> Self {
        Self { offset, event, message: OnceLock::new() }
    }

    /// The event for the rules; `None` when its stored text is damaged.
    pub fn message(&self) -> Option<&Message> {
        self.message.get_or_init(|| self.event.open().ok()).as_ref()
    }
}

// === impl Books ===

impl Books {
    /// Everything that is neither done nor dead.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.behind + self.in_hand + self.later
    }

    /// Whether every accepted event is accounted for.
    #[must_use]
    pub fn balance(&self) -> bool {
        self.accepted == self.delivered + self.filtered + self.dropped + self.dead + self.waiting()
    }
}
