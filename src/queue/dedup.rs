//! Which messages were seen lately: an SDK that heard nothing sends again, and the second copy is not stored.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hasher};

use foldhash::quality::RandomState;
use jiff::{SignedDuration, Timestamp};

use crate::event::Event;

/// The ids of the last 24 hours, as many as fit.
#[derive(Default)]
pub struct Dedup {
    seen: HashMap<u64, u64, BuildPassOn>,
    order: VecDeque<(Timestamp, u64)>,
    hashers: [RandomState; 2],
}

/// A source and a message id as 128 bits, with a seed that nobody outside knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print(u64, u64);

/// A print is a hash already.
#[derive(Clone, Copy, Default)]
struct PassOn(u64);

#[derive(Clone, Copy, Default)]
struct BuildPassOn;

/// Segment's own window (<https://segment.com/docs/guides/duplicate-data/>, read 2026-11-22).
const WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// Ids remembered at most, at some 50 bytes each; the oldest make room.
const IDS_MAX: usize = 250_000;

// === impl Dedup ===

impl Dedup {
    /// What an event is remembered by.
    #[must_use]
    pub fn print(&self, event: &Event) -> Print {
        let id = (&event.source, &event.message_id);
        let [first, second] = &self.hashers;
        Print(first.hash_one(id), second.hash_one(id))
    }

    /// Whether an event of this print was stored within the window.
    #[must_use]
    pub fn has_seen(&self, print: Print) -> bool {
        self.seen.get(&print.0) == Some(&print.1)
    }

    /// Remembers an event that is stored at this time. Answers whether it was new.
    pub fn remember(&mut self, print: Print, now: Timestamp) -> bool {
        self.forget_old(now);
        let before = self.seen.insert(print.0, print.1);
        if before.is_none() {
            self.order.push_back((now, print.0));
        }
        before != Some(print.1)
    }

    fn forget_old(&mut self, now: Timestamp) {
        while let Some((at, key)) = self.order.front() {
            if now.duration_since(*at) < WINDOW && self.order.len() < IDS_MAX {
                return;
            }
            self.seen.remove(key);
            self.order.pop_front();
        }
    }
}

// === impl PassOn ===

impl Hasher for PassOn {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only `u64` keys are hashed here; anything else still gets a value.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, print: u64) {
        self.0 = print;
    }
}

impl std::hash::BuildHasher for BuildPassOn {
    type Hasher = PassOn;

    fn build_hasher(&self) -> PassOn {
        PassOn::default()
    }
}
