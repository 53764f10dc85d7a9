//! What the door counts. Numbers only: who reads them and under which names is `telemetry`'s business.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::http::StatusCode;

use crate::event::SourceName;
use crate::segment::DiscardCode;

/// Counts since the process started.
#[derive(Debug, Default)]
pub struct Counters {
    answers: [AtomicU64; 5],
    accepted: AtomicU64,
    unknown_keys: AtomicU64,
    sdk_metrics: AtomicU64,
    discards: Mutex<BTreeMap<DiscardCode, u64>>,
    limited: Mutex<BTreeMap<SourceName, u64>>,
}

/// All counts at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answers by the first digit of their status: `answers[0]` are `1xx`, `answers[4]` are `5xx`.
    pub answers: [u64; 5],
    /// Events the queue took.
    pub accepted: u64,
    /// Messages thrown away after a `200` (or refused in strict mode), by reason.
    pub discards: BTreeMap<DiscardCode, u64>,
    /// Messages whose requests heard `429`, by the source that sent faster than it may.
    pub limited: BTreeMap<SourceName, u64>,
    /// Requests without a write key that a source has.
    pub unknown_keys: u64,
    /// Requests in which an SDK told of itself (`/v1/m`); heard and thrown away.
    pub sdk_metrics: u64,
}

// === impl Counters ===

impl Counters {
    /// All counts now.
    #[must_use]
    pub fn snapshot(&self) -> Counts {
        Counts {
            answers: self.answers.each_ref().map(|count| count.load(Ordering::Relaxed)),
            accepted: self.accepted.load(Ordering::Relaxed),
            discards: self.discards.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            limited: self.limited.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            unknown_keys: self.unknown_keys.load(Ordering::Relaxed),
            sdk_metrics: self.sdk_metrics.load(Ordering::Relaxed),
        }
    }

    pub(super) fn answer(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(count) = self.answers.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn accepted(&self, events: usize) {
        self.accepted.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(super) fn unknown_key(&self) {
        self.unknown_keys.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sdk_metrics(&self) {
        self.sdk_metrics.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn limited(&self, source: &SourceName, messages: usize) {
        let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        *limited.entry(source.clone()).or_default() += messages as u64;
    }

    pub(super) fn discard(&self, code: DiscardCode, messages: usize) {
        // A count is whole whatever panicked beside it.
        let mut discards = self.discards.lock().unwrap_or_else(PoisonError::into_inner);
        *discards.entry(code).or_default() += messages as u64;
    }
}
