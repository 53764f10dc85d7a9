//! The thread that writes what became of events, and lets go of what is too old.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use super::appender::reserve_bytes;
use super::log::SegmentInfo;
use super::state::Changes;
use super::{ENDED, Shared, ago};
use crate::attempt::DestinationName;
use crate::queue::{LetterId, StorageError};

/// Where others say what they want of the thread, and hear how far it is.
#[derive(Default)]
pub(super) struct Desk {
    orders: Mutex<Orders>,
    bell: Condvar,
    progress: watch::Sender<Progress>,
    state_bytes: AtomicU64,
}

/// What is wanted of the thread.
#[derive(Clone, Copy, Default)]
struct Orders {
    /// When what was settled is to be written.
    write: Urgency,
    /// The log needs room.
    wants_room: bool,
    /// What is too old by this time is to go.
    tidy_at: Option<Timestamp>,
    is_closed: bool,
}

/// When something is to be done.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// There is nothing to do.
    #[default]
    Never,
    /// After the pause.
    Soon,
    /// At once: somebody waits.
    Now,
}

/// How far it is.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// Everything decided up to this sequence is written.
    written: u64,
    failures: u64,
    error: Option<StorageError>,
    /// The thread is gone: nothing more will be written.
    has_ended: bool,
}

/// The thread.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    /// What a failed transaction was to write.
    left_over: Changes,
    /// The next transaction begins no earlier.
    not_before: Instant,
    is_failing: bool,
}

/// Between transactions there is a pause, so that they share the disk with the log: this many times as long as the last
/// one took, and no shorter than the minimum.
const PAUSE_SHARE: u32 = 4;
const PAUSE_MIN: Duration = Duration::from_millis(2);

/// After a failed transaction the disk is left alone this long.
const REST: Duration = Duration::from_millis(250);

/// Settlements of one destination that may be unwritten: what a crash repeats besides what is in its hands.
const UNWRITTEN_MAX: usize = 1000;

/// Dead letters looked at together when room is made among them.
const LETTERS_AT_A_TIME: usize = 1000;

// === impl Desk ===

impl Desk {
    /// Says that something was settled.
    pub(super) fn ring(&self) {
        self.order(|orders| orders.write = orders.write.max(Urgency::Soon));
    }

    /// Says that the log needs room.
    pub(super) fn ask_for_room(&self) {
        self.order(|orders| orders.wants_room = true);
    }

    /// Says what time it is, so that what is too old may go.
    pub(super) fn ask_to_tidy(&self, now: Timestamp) {
        self.order(|orders| orders.tidy_at = Some(now));
    }

    /// Lets the thread end once everything is written.
    pub(super) fn close(&self) {
        self.order(|orders| orders.is_closed = true);
    }

    /// Bytes of the state's file.
    pub(super) fn state_bytes(&self) -> u64 {
        self.state_bytes.load(Ordering::Relaxed)
    }

    /// Ready when everything up to a sequence is written, or could not be.
    pub(super) async fn until_written(&self, sequence: u64) -> Result<(), StorageError> {
        let mut progress = self.progress.subscribe();
        let failures = progress.borrow().failures;
        self.order(|orders| orders.write = Urgency::Now);
        let is_decided = |now: &Progress| now.written >= sequence || now.failures > failures || now.has_ended;
        let arrived = progress.wait_for(is_decided).await;
        // The sender lives in `self`: waiting cannot fail.
        let Ok(now) = arrived else { return Ok(()) };
        match &now.error {
            _ if now.written >= sequence => Ok(()),
            Some(error) => Err(error.clone()),
            None => Err(StorageError(ENDED.to_owned())),
        }
    }

    /// Ready when a destination may settle more: what is unwritten must fit into memory, and into what a crash may
    /// repeat.
    pub(super) async fn until_few_are_unwritten(&self, shared: &Shared, destination: &DestinationName) {
        let mut progress = self.progress.subscribe();
        while shared.ledger().unwritten(destination) > UNWRITTEN_MAX {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Says that the thread is gone to those who wait for it, now or later.
    pub(super) fn end(&self) {
        self.progress.send_modify(|progress| progress.has_ended = true);
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.orders());
        self.bell.notify_one();
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for orders; no earlier than a moment, unless somebody waits.
    fn take(&self, not_before: Instant, has_left_over: bool) -> Orders {
        let mut orders = self.orders();
        loop {
            let is_asked = orders.write != Urgency::Never || orders.wants_room || orders.tidy_at.is_some();
            let has_work = is_asked || has_left_over;
            let pause = not_before.saturating_duration_since(Instant::now());
            if orders.is_closed || (has_work && (orders.write == Urgency::Now || pause.is_zero())) {
                break;
            }
            orders = if has_work {
                self.bell.wait_timeout(orders, pause).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.bell.wait(orders).unwrap_or_else(PoisonError::into_inner)
            };
        }
        let taken = *orders;
        *orders = Orders { is_closed: taken.is_closed, ..Orders::default() };
        taken
    }
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        shared.desk.state_bytes.store(shared.state().size_bytes(), Ordering::Relaxed);
        Self { shared, left_over: Changes::default(), not_before: Instant::now(), is_failing: false }
    }

    /// Writes until the desk is closed.
    pub(super) fn run(mut self) {
        loop {
            let has_left_over = !self.left_over.is_empty();
            let orders = self.shared.desk.take(self.not_before, has_left_over);
            let is_written = self.write();
            if orders.is_closed {
                return;
            }
            if !is_written {
                // What is asked for needs a storage that works; it is asked for again.
                continue;
            }
            if let Some(now) = orders.tidy_at {
                self.tidy(now);
            }
            if orders.wants_room {
                self.make_room();
            }
            self.trim_letters(None);
        }
    }

    /// Writes what is unwritten in one transaction. Answers whether it could be.
    fn write(&mut self) -> bool {
        let (changes, sequence, counts) = {
            let mut ledger = self.shared.ledger();
            let (changes, sequence) = ledger.take_changes();
            (changes, sequence, ledger.unwritten_counts())
        };
        self.left_over.absorb(changes);
        let began_at = Instant::now();
        let result = if self.left_over.is_empty() { Ok(()) } else { self.shared.state().commit(&self.left_over) };
        let took = began_at.elapsed();
        match result {
            Ok(()) => self.wrote(sequence, &counts, took),
            Err(error) => self.failed(error),
        }
        !self.is_failing
    }

    fn wrote(&mut self, sequence: u64, counts: &BTreeMap<DestinationName, usize>, took: Duration) {
        let changes = std::mem::take(&mut self.left_over);
        self.shared.ledger().written(&changes, counts);
        let state_bytes = self.shared.state().size_bytes();
        self.shared.desk.state_bytes.store(state_bytes, Ordering::Relaxed);
        self.not_before = Instant::now() + (took * PAUSE_SHARE).max(PAUSE_MIN);
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("what became of events can be written again");
            self.shared.meter.unwritable(None);
        }
        self.shared.desk.progress.send_modify(|progress| (progress.written, progress.error) = (sequence, None));
    }

    fn failed(&mut self, error: StorageError) {
        self.not_before = Instant::now() + REST;
        self.shared.meter.unwritable(Some(error.to_string()));
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!(%error, "what became of events cannot be written; a crash now would repeat deliveries");
        }
        self.shared.desk.progress.send_modify(|progress| {
            progress.failures += 1;
            progress.error = Some(error);
        });
    }
}

// === impl Keeper: letting go ===

impl Keeper {
    /// Lets go of what is too old at a time.
    fn tidy(&mut self, now: Timestamp) {
        let kept_from = ago(self.shared.options.retain, now);
        self.forget_detached(kept_from);
        self.trim_letters(Some(ago(self.shared.options.letters_retain, now)));
        match self.shared.log.offset_at(kept_from) {
            Ok(offset) => self.remove(|segment| segment.end <= offset, |_| true),
            Err(error) => tracing::warn!(%error, "the age of events in the queue cannot be read"),
        }
        self.make_room();
    }

    fn forget_detached(&mut self, before: Timestamp) {
        let end = self.shared.end();
        for (name, waiting) in self.shared.ledger().forget_detached(before, end) {
            tracing::warn!(destination.name = %name, events = waiting, "forgot the place of a destination that was removed long ago");
        }
    }

    /// Lets go of dead letters of before a time, and of the oldest ones while there are too many.
    fn trim_letters(&mut self, before: Option<Timestamp>) {
        let bytes_max = self.shared.options.letters_bytes_max;
        loop {
            let mut bytes = self.shared.ledger().letters_bytes();
            if before.is_none() && bytes <= bytes_max {
                return;
            }
            let Ok(oldest) = self.shared.state().oldest_letters(LETTERS_AT_A_TIME) else { return };
            let mut going: BTreeMap<DestinationName, Vec<(LetterId, u64)>> = BTreeMap::new();
            for (name, id, died_at, size_bytes) in oldest {
                if bytes <= bytes_max && before.is_none_or(|before| died_at > before) {
                    break;
                }
                bytes = bytes.saturating_sub(size_bytes);
                going.entry(name).or_default().push((id, size_bytes));
            }
            if going.is_empty() {
                return;
            }
            for (name, letters) in going {
                tracing::warn!(destination.name = %name, events = letters.len(), "removed dead letters: too old, or too many");
                self.shared.ledger().remove_letters(&name, letters);
            }
            if !self.write() {
                return;
            }
        }
    }

    /// Makes room for the log: removes the oldest segments that nobody owes anything of.
    fn make_room(&mut self) {
        let (max, segment) = (self.shared.options.size_bytes_max, self.shared.segment_bytes_max);
        let shared = Arc::clone(&self.shared);
        self.remove(|_| true, move |_| shared.size_bytes() + 3 * segment > max || is_low(&shared));
    }

    fn sealed(&self) -> Vec<SegmentInfo> {
        self.shared.log.segments().into_iter().filter(|segment| !segment.is_open).collect()
    }

    /// Removes segments that nobody owes anything of, oldest first, as long as `goes_on` says so.
    ///
    /// That nobody owes them is written first: after a crash a place must not stand before what is gone.
    fn remove(&mut self, may_go: impl Fn(&SegmentInfo) -> bool, goes_on: impl Fn(&SegmentInfo) -> bool) {
        let candidates: Vec<SegmentInfo> = {
            let sealed = self.sealed();
            let ledger = self.shared.ledger();
            sealed.into_iter().filter(|s| may_go(s) && !ledger.owes(s.first, s.end)).collect()
        };
        if !candidates.iter().any(&goes_on) {
            return;
        }
        self.shared.ledger().touch_all();
        if !self.write() {
            return;
        }
        for segment in candidates {
            if !goes_on(&segment) {
                return;
            }
            self.remove_file(&segment.name);
        }
    }

    fn remove_file(&self, name: &str) {
        match self.shared.log.remove(name) {
            Ok(()) => tracing::debug!(segment = name, "removed a segment of the queue"),
            Err(error) => tracing::warn!(segment = name, %error, "a segment of the queue could not be removed"),
        }
    }
}

/// Whether the file system has less room than is to be left free, and then some.
fn is_low(shared: &Shared) -> bool {
    shared.files.room().is_ok_and(|room| room.free_bytes < 2 * reserve_bytes(room.all_bytes))
}

/// Takes dead letters out of the books; they are gone once that is written. Answers how many there were.
pub(super) fn remove_letters(
    shared: &Shared,
    destination: &DestinationName,
    letters: &[LetterId],
) -> Result<u64, StorageError> {
    let found = shared.state().letter_sizes(destination, letters)?;
    Ok(shared.ledger().remove_letters(destination, found))
}

// === impl Changes ===

impl Changes {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
            && self.waiting.is_empty()
            && self.letters.is_empty()
            && self.letters_removed.is_empty()
            && self.forgotten.is_empty()
            && !self.begins
    }

    /// Adds later changes: they win.
    fn absorb(&mut self, later: Self) {
        for name in &later.forgotten {
            self.forget(name);
        }
        self.forgotten.extend(later.forgotten);
        self.places.extend(later.places);
        self.waiting.extend(later.waiting);
        self.letters.extend(later.letters);
        self.letters_removed.extend(later.letters_removed);
        self.begins |= later.begins;
    }

    /// Drops what was to be written for a place that goes.
    pub(super) fn forget(&mut self, name: &DestinationName) {
        self.places.remove(name);
        self.waiting.retain(|(other, _), _| other != name);
        self.letters.retain(|(_, letter)| letter.destination != *name);
        self.letters_removed.retain(|(other, _)| other != name);
    }
}
