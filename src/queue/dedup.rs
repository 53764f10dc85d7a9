//! Which messages were seen lately: an SDK that heard nothing sends again, and the second copy is not stored.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hasher};
use std::time::Duration;

use foldhash::quality::RandomState;
use jiff::{SignedDuration, Timestamp};

use crate::event::Event;

/// The ids of the latest events: those within a window, as many as fit.
pub struct Dedup {
    window: SignedDuration,
    ids_max: usize,
    seen: HashMap<u64, u64, BuildPassOn>,
    order: VecDeque<(Timestamp, u64)>,
    hashers: [RandomState; 2],
}

/// A source and a message id as 128 bits, with a seed that nobody outside knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Print(u64, u64);

/// A print is a hash already.
#[derive(Clone, Copy, Default)]
struct PassOn(u64);

#[derive(Clone, Copy, Default)]
struct BuildPassOn;

// === impl Dedup ===

impl Dedup {
    /// Nothing seen. With a window of nothing, nothing ever is.
    #[must_use]
    pub fn new(window: Duration, ids_max: usize) -> Self {
        let window = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
        let (seen, order) = (HashMap::default(), VecDeque::new());
        Self { window, ids_max, seen, order, hashers: Default::default() }
    }

    /// What an event is remembered by.
    #[must_use]
    pub fn print(&self, event: &Event) -> Print {
        let id = (&event.source, &event.message_id);
        let [first, second] = &self.hashers;
        Print(first.hash_one(id), second.hash_one(id))
    }

    /// What an event at one place is remembered by: a destination that has it, say.
    #[must_use]
    pub fn print_at(&self, event: &Event, place: &str) -> Print {
        let id = (&event.source, &event.message_id, place);
        let [first, second] = &self.hashers;
        Print(first.hash_one(id), second.hash_one(id))
    }

    /// How many ids it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether an event of this print was stored within the window.
    #[must_use]
    pub fn has_seen(&self, print: Print) -> bool {
        self.seen.get(&print.0) == Some(&print.1)
    }

    /// Remembers an event that is stored at this time. Answers whether it was new.
    pub fn remember(&mut self, print: Print, now: Timestamp) -> bool {
        if self.window.is_zero() {
            return true;
        }
        self.forget_old(now);
        let before = self.seen.insert(print.0, print.1);
        if before.is_none() {
            self.order.push_back((now, print.0));
        }
        before != Some(print.1)
    }

    /// Forgets an event that was not stored after all. Of several the one remembered last is to be forgotten first.
    pub fn forget(&mut self, print: Print) {
        self.seen.remove(&print.0);
        // Senders come again and again while nothing can be stored: what they send must not push out what was.
        if self.order.back().is_some_and(|(_, key)| *key == print.0) {
            self.order.pop_back();
        }
    }

    fn forget_old(&mut self, now: Timestamp) {
        while let Some((at, key)) = self.order.front() {
            if now.duration_since(*at) < self.window && self.order.len() < self.ids_max {
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

// === impl Default ===

impl Default for Dedup {
    /// Off.
    fn default() -> Self {
        Self::new(Duration::ZERO, 0)
    }
}
