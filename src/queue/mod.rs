//! Where accepted events wait: stored once, however many destinations there are.
//!
//! A destination is a cursor over the log plus a bounded list of events waiting for another try; a slow or dead one
//! lags alone. A queue keeps and hands out; it does not know what a rule is, it never decides a verdict, and it asks
//! nobody what time it is.
//! Every kind of queue passes the behaviour tests in `tests/it/queues.rs`.

pub mod dedup;
pub mod disk;
pub mod memory;
mod place;
mod recent;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::attempt::{Attempts, DeadLetter, DestinationName, Start, Verdict};
use crate::event::{Event, Message};

/// An event's place in the log: counts from 0, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Offset(pub u64);

/// What a `200` means with this queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// The event is in this process, and lost if it dies.
    Memory,
    /// The event is on stable storage.
    Durable,
    /// Every destination has the event, has no use for it, or has refused it for good.
    Delivered,
}

/// An accepted event at its place, opened at most once for all who read it near the tail.
#[derive(Debug)]
pub struct Entry {
    /// Its place.
    pub offset: Offset,
    /// The event as stored.
    pub event: Event,
    /// The one destination it was put back for; `None`: all.
    pub only: Option<DestinationName>,
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

/// A destination as the plan in force knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its name: its place in the queue belongs to it.
    pub name: DestinationName,
    /// Where it begins if it has no place yet.
    pub start: Start,
    /// Whether it reads.
    pub mode: Mode,
}

/// Whether a destination reads. A destination with a place that no attachment names is detached: its place is kept for
/// the queue's `retain`, and may go earlier when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    Active,
    /// Not now: its events wait. One that has no place yet gets none.
    Waits,
    /// Not now, and events that come meanwhile are not for it. One that has no place yet gets none.
    Skips,
}

/// The invariant in numbers: `accepted = delivered + filtered + dropped + damaged + dead + waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Events that this destination was to look at, those that were put back for it included.
    pub accepted: u64,
    /// Delivered whole.
    pub delivered: u64,
    /// No rule wanted them, or they came while the destination was switched off with `when_disabled = "skip"`.
    pub filtered: u64,
    /// A response rule said to forget them.
    pub dropped: u64,
    /// Damaged in storage: reported, and skipped.
    pub damaged: u64,
    /// Given up on.
    pub dead: u64,
    /// Beyond the cursor: never handed out.
    pub behind: u64,
    /// Handed out and not settled.
    pub in_hand: u64,
    /// Waiting for another try.
    pub later: u64,
    /// Dead letters that are kept; less than `dead` once some were replayed, purged or too old.
    pub letters: u64,
    /// Bytes of them.
    pub letters_bytes: u64,
    /// When the oldest event beyond the cursor was accepted, or a little earlier where that is not known; `None` without
    /// one.
    pub unread_since: Option<Timestamp>,
    /// The place of the next event to be handed out for the first time.
    pub cursor: Offset,
}

/// The name of a dead letter: unique in its queue, ascending with time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId(pub u64);

/// Entries of the log in order, whoever they are for.
#[derive(Debug, Default)]
pub struct History {
    /// The entries.
    pub entries: Vec<Arc<Entry>>,
    /// Where to go on; `None` at the end of the log.
    pub next: Option<Offset>,
    /// Events that were damaged in storage and skipped.
    pub damaged: u64,
}

/// A file of the log, read from end to end. As JSON, `admin`'s answer to whoever asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Its file name.
    pub name: String,
    /// Events that can be read.
    pub events: u64,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Bytes of the events' text, unpacked.
    pub raw_bytes: u64,
    /// Bytes at the end that a crash cut off while they were written: no `200` was given for them.
    pub torn_bytes: u64,
    /// What cannot be read.
    pub damaged: Vec<Damage>,
}

/// Events that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The first one.
    pub from: Offset,
    /// One past the last one.
    pub to: Offset,
    /// Where in the file; none of the events may be there when only its head is damaged.
    pub position_bytes: u64,
    /// How many bytes of it; not in the JSON.
    #[serde(skip)]
    pub size_bytes: u64,
}

/// The state of a queue, for people and metrics.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// `memory` or `disk`.
    pub kind: &'static str,
    /// Bytes of the log: of event text in memory, of its files on disk.
    pub size_bytes: u64,
    /// Bytes it may take up.
    pub size_bytes_max: u64,
    /// Bytes of what is kept beside the log: places, waiting events, dead letters; 0 in memory.
    pub state_bytes: u64,
    /// The oldest event it has.
    pub first: Offset,
    /// The place of the next event.
    pub end: Offset,
    /// Files of the log; 0 in memory.
    pub segments: usize,
    /// When the oldest event was accepted, as far as it is known.
    pub oldest_at: Option<Timestamp>,
    /// Events found damaged since the process started.
    pub damaged: u64,
    /// Message ids remembered to recognise repetitions.
    pub dedup_ids: usize,
    /// Events not stored because they had been before.
    pub duplicates: u64,
    /// Why it takes no events just now, or cannot write what became of them.
    pub failing: Option<String>,
    /// How long it took to make a group of events durable.
    pub syncs: Histogram,
    /// Every destination that has a place, detached ones too, and when those were detached.
    pub places: Vec<(DestinationName, Option<Timestamp>)>,
}

/// Durations counted into buckets.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Upper bounds and how many were not above them, ascending; not cumulative.
    pub buckets: Vec<(Duration, u64)>,
    /// How many there were, those above the last bound included.
    pub count: u64,
    /// All of them together.
    pub sum: Duration,
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

/// What the queue keeps could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue's storage fails: {0}")]
pub struct StorageError(pub String);

/// A log of accepted events with one cursor per destination.
pub trait Queue: Send + Sync + 'static {
    /// What a `200` means.
    fn ack(&self) -> Ack;

    /// Stores events, all or none, but for those that were stored before (same source, same message id, within the
    /// dedup window): they are left out and the answer is the same. Ready when they are as safe as [`Queue::ack`] says.
    fn append(&self, events: Vec<Event>) -> BoxFuture<'_, Result<(), AppendError>>;

    /// Stores events again for one destination, which will read them like new ones, also when it skips others just now;
    /// no other sees them. They are not checked for having been stored before. For replays.
    fn put_back(&self, destination: &DestinationName, events: Vec<Event>) -> BoxFuture<'_, Result<(), AppendError>>;

    /// Says which destinations are in force. A name seen for the first time begins where its attachment says; one that
    /// is missing keeps its place and goes on there when it comes back. Ready when that is as safe as [`Queue::ack`]
    /// says.
    fn attach(&self, attachments: &[Attachment], now: Timestamp) -> BoxFuture<'_, Result<(), StorageError>>;

    /// Hands out deliveries that are due: first those whose time for another try has come, then new ones in order.
    /// Each is handed out once until it is settled or released. Empty when nothing is due.
    fn read(&self, destination: &DestinationName, limit: ReadLimit, now: Timestamp) -> BoxFuture<'_, Vec<Delivery>>;

    /// Shows events waiting for another try, due or not, without handing them out: those after an offset, in its order,
    /// within the limit. For whoever must know their keys.
    fn waiting(
        &self,
        destination: &DestinationName,
        after: Option<Offset>,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Vec<Arc<Entry>>>;

    /// Where the events are that were handed out at least once and are not settled, those waiting for another try
    /// included.
    fn unsettled(&self, destination: &DestinationName) -> BTreeSet<Offset>;

    /// Ready when [`Queue::read`] may have more than it had: something was appended, released or
    /// attached since the call, or storage that could not be read may be read again.
    fn changed(&self) -> BoxFuture<'_, ()>;

    /// When the next event waiting for another try is due at a destination.
    fn next_due(&self, destination: &DestinationName) -> Option<Timestamp>;

    /// When this one is; `None` when it does not wait for another try.
    fn due(&self, destination: &DestinationName, offset: Offset) -> Option<Timestamp>;

    /// Takes note of what became of deliveries: done, due again at a time, or in the dead letters. What is decided is
    /// in force at once and written soon; a crash in between repeats those deliveries. Waits when too much is unwritten.
    fn settle(&self, destination: &DestinationName, settlements: Vec<Settlement>, now: Timestamp) -> BoxFuture<'_, ()>;

    /// Takes back what was handed out and not settled: whoever held it is gone.
    fn release(&self, destination: &DestinationName);

    /// The destination's books; `None` for a name that has no place.
    fn books(&self, destination: &DestinationName) -> Option<Books>;

    /// A destination's dead letters after a given one, oldest first, so many at most.
    fn dead_letters(
        &self,
        destination: &DestinationName,
        after: Option<LetterId>,
        letters_max: usize,
    ) -> BoxFuture<'_, Result<Vec<(LetterId, DeadLetter)>, StorageError>>;

    /// Forgets dead letters for good. Answers how many there were.
    fn remove_dead_letters(
        &self,
        destination: &DestinationName,
        letters: Vec<LetterId>,
    ) -> BoxFuture<'_, Result<u64, StorageError>>;

    /// Events of the log from an offset on, whoever has read them; at least one, if there is one.
    fn history(&self, from: Offset, limit: ReadLimit) -> BoxFuture<'_, Result<History, StorageError>>;

    /// Where to begin to find every event that was accepted at or after a time; earlier ones may come with them.
    fn offset_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Offset, StorageError>>;

    /// Reads everything that is stored and says what cannot be read, file by file, oldest first; empty in memory.
    fn verify(&self) -> BoxFuture<'_, Result<Vec<Verified>, StorageError>>;

    /// The state of the queue.
    fn report(&self) -> Report;

    /// Lets go of what is too old: events that nobody owes, dead letters, detached places. To be called now and then.
    fn tidy(&self, now: Timestamp) -> BoxFuture<'_, ()>;

    /// Ready when everything settled so far is as safe as [`Queue::ack`] says.
    fn flush(&self) -> BoxFuture<'_, Result<(), StorageError>>;
}

// === impl Ack ===

impl Ack {
    /// The word in `x-libroseg-ack`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Durable => "durable",
            Self::Delivered => "delivered",
        }
    }
}

// === impl Entry ===

impl Entry {
    /// An event at its place, not yet opened.
    #[must_use]
    pub fn new(offset: Offset, event: Event, only: Option<DestinationName>) -> Self {
        Self { offset, event, only, message: OnceLock::new() }
    }

    /// The event for the rules; `None` when its stored text is damaged.
    pub fn message(&self) -> Option<&Message> {
        self.message.get_or_init(|| self.event.open().ok()).as_ref()
    }

    /// Whether this destination is to look at it.
    #[must_use]
    pub fn is_for(&self, destination: &DestinationName) -> bool {
        self.only.as_ref().is_none_or(|only| only == destination)
    }
}

// === impl Books ===

impl Books {
    /// Everything that is neither done nor dead.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.behind + self.in_hand + self.later
    }

    /// How long the oldest event that was never handed out has waited; zero without one.
    #[must_use]
    pub fn lag(&self, now: Timestamp) -> Duration {
        self.unread_since.and_then(|since| Duration::try_from(now.duration_since(since)).ok()).unwrap_or_default()
    }

    /// Whether every accepted event is accounted for.
    #[must_use]
    pub fn balance(&self) -> bool {
        let done = self.delivered + self.filtered + self.dropped + self.damaged + self.dead;
        self.accepted == done + self.waiting()
    }
}
