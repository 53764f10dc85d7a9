//! What lagging destinations have read from the files: what each has not handed out yet, and the latest for those that
//! lag together, so that an event is read and opened once for all of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ledger::Ledger;
use super::log::{Chunk, Gap};
use crate::attempt::DestinationName;
use crate::queue::Entry;

/// What was read, by whom, and what of it others may want.
#[derive(Default)]
pub(super) struct Readers {
    ahead: Mutex<BTreeMap<DestinationName, Stretch>>,
    /// Oldest first.
    latest: Mutex<Vec<Stretch>>,
}

/// Events and gaps in the order of the log.
#[derive(Clone)]
pub(super) struct Stretch {
    /// Where it begins.
    pub(super) from: u64,
    pub(super) pieces: VecDeque<Piece>,
}

#[derive(Clone)]
pub(super) enum Piece {
    Event(Arc<Entry>),
    Gap(Gap),
}

/// Stretches kept for others: destinations that send at about the same pace are no further apart than what they have in
/// hand. One is [`READ_BYTES`](super::READ_BYTES) of text or one group, and some five times that once it is opened.
const LATEST_MAX: usize = 3;

// === impl Readers ===

impl Readers {
    /// Drops what a destination has read ahead.
    pub(super) fn forget(&self, destination: &DestinationName) {
        self.ahead().remove(destination);
    }

    /// What a destination has read ahead, or another one has read lately, from an offset on.
    pub(super) fn take(&self, destination: &DestinationName, from: u64) -> Option<Stretch> {
        let own = self.ahead().remove(destination);
        own.filter(|own| own.from == from && !own.pieces.is_empty()).or_else(|| self.lately_read(from))
    }

    fn lately_read(&self, from: u64) -> Option<Stretch> {
        let latest = self.latest();
        let stretch = latest.iter().find(|stretch| (stretch.from..stretch.to()).contains(&from))?;
        let pieces = stretch.pieces.iter().skip_while(|piece| piece.to() <= from).cloned().collect();
        Some(Stretch { from, pieces })
    }

    /// Keeps what a destination has not handed out of a stretch.
    pub(super) fn keep(&self, destination: &DestinationName, stretch: Stretch) {
        if !stretch.pieces.is_empty() {
            self.ahead().insert(destination.clone(), stretch);
        }
    }

    /// Lets others have what a destination has read from the files, if they are about to read there. Answers what is kept
    /// no longer: thousands of events, which take their time to drop and are to be dropped when nothing is locked.
    #[must_use]
    pub(super) fn share(&self, reader: &DestinationName, stretch: &Stretch, ledger: &Ledger) -> Vec<Stretch> {
        let mut gone = self.let_go(ledger);
        if ledger.cursors().any(|(other, cursor)| other != reader && stretch.is_near(cursor)) {
            let mut latest = self.latest();
            if latest.len() == LATEST_MAX {
                gone.push(latest.remove(0));
            }
            latest.push(stretch.clone());
        }
        gone
    }

    /// Takes out what nobody is about to read.
    #[must_use]
    pub(super) fn let_go(&self, ledger: &Ledger) -> Vec<Stretch> {
        let is_over = |stretch: &mut Stretch| !ledger.cursors().any(|(_, cursor)| stretch.is_near(cursor));
        self.latest().extract_if(.., is_over).collect()
    }

    fn ahead(&self) -> MutexGuard<'_, BTreeMap<DestinationName, Stretch>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latest(&self) -> MutexGuard<'_, Vec<Stretch>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Stretch, Piece ===

impl Stretch {
    pub(super) fn of(from: u64, chunk: Chunk) -> Self {
        let mut gaps = chunk.gaps.into_iter().peekable();
        let mut pieces = VecDeque::with_capacity(chunk.entries.len());
        for entry in chunk.entries {
            while let Some(gap) = gaps.next_if(|gap| gap.from <= entry.offset.0) {
                pieces.push_back(Piece::Gap(gap));
            }
            pieces.push_back(Piece::Event(entry));
        }
        pieces.extend(gaps.map(Piece::Gap));
        Self { from, pieces }
    }

    /// One past its last offset.
    fn to(&self) -> u64 {
        self.pieces.back().map_or(self.from, Piece::to)
    }

    /// Whether who stands there reads this soon.
    fn is_near(&self, cursor: u64) -> bool {
        let before = (self.to() - self.from).saturating_mul(LATEST_MAX as u64);
        (self.from.saturating_sub(before)..self.to()).contains(&cursor)
    }
}

impl Piece {
    /// One past its last offset.
    fn to(&self) -> u64 {
        match self {
            Self::Event(entry) => entry.offset.0 + 1,
            Self::Gap(gap) => gap.to,
        }
    }
}
