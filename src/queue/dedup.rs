//! Which messages were seen lately: an SDK that heard nothing sends again, and the second copy is not stored.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

use jiff::{SignedDuration, Timestamp};

use crate::event::{Event, MessageId, SourceName};

/// The ids of the last 24 hours, as many as fit.
#[derive(Default)]
pub struct Dedup {
    seen: HashSet<Print>,
    order: VecDeque<(Timestamp, Print)>,
    hashers: [RandomState; 2],
}

/// A source and a message id as 128 bits: among a million, two alike are a chance of one in 10²⁶.
type Print = (u64, u64);

/// Segment's own window (<https://segment.com/docs/guides/duplicate-data/>, read 2026-11-22).
const WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// Ids remembered at most, at some 60 bytes each; the oldest make room.
const IDS_MAX: usize = 250_000;

// === impl Dedup ===

impl Dedup {
    /// Whether the event is the first with its id from its source, within the window.
    #[must_use]
    pub fn is_new(&self, event: &Event) -> bool {
        !self.seen.contains(&self.print(&event.source, &event.message_id))
    }

    /// Remembers an event that was stored. Answers whether it was new.
    pub fn remember(&mut self, event: &Event) -> bool {
        self.forget_old(event.received_at);
        let print = self.print(&event.source, &event.message_id);
        let is_new = self.seen.insert(print);
        if is_new {
            self.order.push_back((event.received_at, print));
        }
        is_new
    }

    fn forget_old(&mut self, now: Timestamp) {
        while let Some((at, print)) = self.order.front() {
            if now.duration_since(*at) < WINDOW && self.order.len() < IDS_MAX {
                return;
            }
            self.seen.remove(print);
            self.order.pop_front();
        }
    }

    fn print(&self, source: &SourceName, id: &MessageId) -> Print {
        let [first, second] = &self.hashers;
        (first.hash_one((source, id)), second.hash_one((source, id)))
    }
}
