//! What the disk queue counts of itself.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::queue::{Histogram, Report};

/// Counts since the process started.
pub(super) struct Meter {
    syncs: [AtomicU64; SYNC_BOUNDS.len()],
    sync_count: AtomicU64,
    sync_nanos: AtomicU64,
    duplicates: AtomicU64,
    dedup_ids: AtomicUsize,
    /// Why nothing is taken just now.
    failing: Mutex<Option<String>>,
    /// Why what became of events cannot be written just now.
    unwritable: Mutex<Option<String>>,
}

/// From a fast local disk to one that is in trouble.
const SYNC_BOUNDS: [Duration; 10] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
];

// === impl Meter ===

impl Meter {
    pub(super) fn new(dedup_ids: usize) -> Self {
        Self {
            syncs: Default::default(),
            sync_count: AtomicU64::new(0),
            sync_nanos: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            dedup_ids: AtomicUsize::new(dedup_ids),
            failing: Mutex::default(),
            unwritable: Mutex::default(),
        }
    }

    /// A group was made durable in this time.
    pub(super) fn synced(&self, took: Duration) {
        if let Some(bucket) = SYNC_BOUNDS.iter().position(|bound| took <= *bound) {
            self.syncs[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.sync_count.fetch_add(1, Ordering::Relaxed);
        self.sync_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn duplicates(&self, events: u64) {
        self.duplicates.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn dedup_ids(&self, ids: usize) {
        self.dedup_ids.store(ids, Ordering::Relaxed);
    }

    pub(super) fn failing(&self, why: Option<String>) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(super) fn unwritable(&self, why: Option<String>) {
        *self.unwritable.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// The part of a report that is counted here.
    pub(super) fn report(&self) -> Report {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let why = |slot: &Mutex<Option<String>>| slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Report {
            duplicates: count(&self.duplicates),
            dedup_ids: self.dedup_ids.load(Ordering::Relaxed),
            failing: why(&self.failing).or_else(|| why(&self.unwritable)),
            syncs: Histogram {
                buckets: SYNC_BOUNDS.iter().copied().zip(self.syncs.iter().map(count)).collect(),
                count: count(&self.sync_count),
                sum: Duration::from_nanos(count(&self.sync_nanos)),
            },
            ..Report::default()
        }
    }
}
