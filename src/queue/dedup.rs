//! Which messages were seen lately: an SDK that heard nothing sends again, and the second copy is not stored.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::time::Duration;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use jiff::Timestamp;

use crate::event::Event;

/// The ids of the latest events: those within a window, as many as fit. Some 50 bytes of memory each.
pub struct Dedup {
    window_ms: i64,
    ids_max: usize,
    /// Oldest first.
    seen: VecDeque<Seen>,
    /// The number of the first of `seen`. Numbers count on from 0 and begin again.
    first: u32,
    /// The numbers of those that are not forgotten, by print: a quarter of what the prints themselves would take here, in
    /// a table that is never full.
    numbers: HashTable<u32>,
    hashers: [RandomState; 2],
}

/// A source and a message id as 128 bits, with a seed that nobody outside knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Print(u64, u64);

struct Seen {
    at_ms: i64,
    print: Print,
}

/// What fits the numbers: far above what `dedup_ids` may say.
const IDS_MAX: usize = u32::MAX as usize;

// === impl Dedup ===

impl Dedup {
    /// Nothing seen. With a window of nothing, nothing ever is.
    #[must_use]
    pub fn new(window: Duration, ids_max: usize) -> Self {
        Self {
            window_ms: i64::try_from(window.as_millis()).unwrap_or(i64::MAX),
            ids_max: ids_max.min(IDS_MAX),
            seen: VecDeque::new(),
            first: 0,
            numbers: HashTable::new(),
            hashers: Default::default(),
        }
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
        self.numbers.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Whether an event of this print was stored within the window.
    #[must_use]
    pub fn has_seen(&self, print: Print) -> bool {
        self.numbers.find(print.0, |number| at(&self.seen, self.first, *number).print == print).is_some()
    }

    /// Remembers an event that is stored at this time. Answers whether it was new.
    pub fn remember(&mut self, print: Print, now: Timestamp) -> bool {
        if self.window_ms == 0 {
            return true;
        }
        let now_ms = now.as_millisecond();
        self.forget_old(now_ms);
        if self.has_seen(print) {
            return false;
        }
        let number = self.next();
        self.seen.push_back(Seen { at_ms: now_ms, print });
        let (seen, first) = (&self.seen, self.first);
        self.numbers.insert_unique(print.0, number, |number| at(seen, first, *number).print.0);
        true
    }

    /// Forgets an event that was not stored after all. Of several the one remembered last is to be forgotten first.
    pub fn forget(&mut self, print: Print) {
        let Ok(entry) = self.numbers.find_entry(print.0, |number| at(&self.seen, self.first, *number).print == print)
        else {
            return;
        };
        let (number, _) = entry.remove();
        // Senders come again and again while nothing can be stored: what they send must not push out what was.
        if number.wrapping_sub(self.first) as usize + 1 == self.seen.len() {
            self.seen.pop_back();
        }
    }

    /// The number of the one that is seen next.
    fn next(&self) -> u32 {
        self.first.wrapping_add(u32::try_from(self.seen.len()).expect("IDS_MAX is less"))
    }

    fn forget_old(&mut self, now_ms: i64) {
        while let Some(oldest) = self.seen.front() {
            if now_ms.saturating_sub(oldest.at_ms) < self.window_ms && self.seen.len() < self.ids_max {
                return;
            }
            let (first, hash) = (self.first, oldest.print.0);
            if let Ok(entry) = self.numbers.find_entry(hash, |number| *number == first) {
                entry.remove();
            }
            self.seen.pop_front();
            self.first = first.wrapping_add(1);
        }
    }
}

/// What a number stands for.
fn at(seen: &VecDeque<Seen>, first: u32, number: u32) -> &Seen {
    &seen[number.wrapping_sub(first) as usize]
}

// === impl Default ===

impl Default for Dedup {
    /// Off.
    fn default() -> Self {
        Self::new(Duration::ZERO, 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn print(id: u64) -> Print {
        // A few share what the table goes by.
        Print(id / 2, id)
    }

    proptest! {
        #[test]
        fn it_knows_the_latest_within_the_window_but_for_those_that_were_not_stored(
            steps in proptest::collection::vec((0..12_u64, 0..40_i64, any::<bool>()), 1..200),
            ids_max in 1..10_usize,
            first in prop_oneof![Just(0), Just(u32::MAX - 3)],
        ) {
            let mut dedup = Dedup { first, ..Dedup::new(Duration::from_millis(100), ids_max) };
            let mut known: Vec<(i64, u64)> = Vec::new();
            let mut now_ms = 0;
            for (id, pause_ms, is_stored) in steps {
                now_ms += pause_ms;
                known.retain(|(at_ms, _)| now_ms - at_ms < 100);
                if known.len() >= ids_max {
                    known.remove(0);
                }
                let is_new = known.iter().all(|(_, other)| *other != id);
                let now = Timestamp::from_millisecond(now_ms).unwrap();
                prop_assert_eq!(dedup.remember(print(id), now), is_new);
                prop_assert!(dedup.has_seen(print(id)));
                match (is_new, is_stored) {
                    (true, true) => known.push((now_ms, id)),
                    (true, false) => dedup.forget(print(id)),
                    (false, _) => {}
                }
                prop_assert_eq!(dedup.len(), known.len());
                prop_assert!((0..12).all(|id| dedup.has_seen(print(id)) == known.iter().any(|(_, other)| *other == id)));
            }
        }
    }

    #[test]
    fn an_event_that_was_not_stored_makes_room_only_for_what_follows_it() {
        let mut dedup = Dedup::new(Duration::from_secs(1), 3);
        for id in 0..3 {
            dedup.remember(print(id), Timestamp::UNIX_EPOCH);
        }
        dedup.forget(print(1));
        dedup.remember(print(1), Timestamp::UNIX_EPOCH);
        assert_eq!([0, 1, 2].map(|id| dedup.has_seen(print(id))), [false, true, true]);
    }

    #[test]
    fn an_id_takes_fifty_bytes_however_many_come_and_go() {
        const IDS_MAX: usize = 50_000;
        let mut dedup = Dedup::new(Duration::from_hours(1), IDS_MAX);
        for id in 0..20 * IDS_MAX as u64 {
            dedup.remember(Print(dedup.hashers[0].hash_one(id), id), Timestamp::UNIX_EPOCH);
        }
        let bytes = dedup.seen.capacity() * size_of::<Seen>() + dedup.numbers.allocation_size();
        assert!(bytes <= 50 * IDS_MAX, "{} bytes each", bytes / IDS_MAX);
    }
}
