//! Whose turn it is: with `order_by` one event of a key is on its way at a time. [`Order`] knows the lines; here the
//! worker stands in them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::{SignedDuration, Timestamp};

use super::{HELD_BYTES_MAX, READ_BYTES_MAX, READ_EVENTS_MAX, Worker};
use crate::attempt::Verdict;
use crate::deliver::order::{Key, Move, Order, Room};
use crate::plan::Destination;
use crate::queue::{Entry, Offset, ReadLimit, Settlement};

/// Events that wait in the queue and are looked at together, for their keys.
const LEARNED_EVENTS_MAX: usize = 1000;

/// Events are not read faster than those of their keys go, but for no longer than this: then somebody is stuck, and must
/// not hold up others. What finds no room behind the one that is stuck comes again after as long.
const CROWDED_MAX: SignedDuration = SignedDuration::from_secs(1);

impl Worker {
    pub(super) fn is_ordered(&self) -> bool {
        self.destination().is_some_and(|destination| destination.order_by.is_some())
    }

    /// What may be held of events that wait for their turn; the rest is for those whose turn it is.
    pub(super) fn parking(&self) -> Room {
        let events_max = self.destination().map_or(0, |destination| destination.held_events_max());
        Room { events: events_max / 2, bytes: HELD_BYTES_MAX / 2 }
    }

    /// Whether batches that wait for company hold up others that wait for their turn, and nobody else is coming.
    pub(super) fn holds_up_others(&self) -> bool {
        self.order.has_parked() && (self.is_caught_up || self.is_crowded())
    }

    /// Whether one more read may find more than there is room to park.
    fn is_crowded(&self) -> bool {
        let read = Room { events: READ_EVENTS_MAX, bytes: READ_BYTES_MAX };
        self.order.has_parked() && self.order.is_crowded(read, self.parking())
    }

    /// Takes note of since when it is.
    pub(super) fn note_crowd(&mut self, now: Timestamp) {
        self.crowded_since = self.is_crowded().then(|| self.crowded_since.unwrap_or(now));
    }

    /// Whether events may be read that would find no room: those that are parked do not move, and nobody else is ready.
    pub(super) fn may_look_further(&self) -> bool {
        let is_stuck = |since: Timestamp| since + CROWDED_MAX <= self.clock.now() && self.ready.is_empty();
        !self.is_crowded() || self.crowded_since.is_some_and(is_stuck)
    }

    /// When that will be so, if nobody moves until then.
    pub(super) fn looks_further_at(&self) -> Option<Timestamp> {
        let at = self.crowded_since.filter(|_| self.is_crowded())? + CROWDED_MAX;
        (at > self.clock.now()).then_some(at)
    }

    /// Whether events that found no room behind others of their key are about to come again.
    pub(super) fn will_soon_read(&self) -> bool {
        let soon = self.clock.now() + CROWDED_MAX;
        self.is_ordered() && self.queue.next_due(&self.name).is_some_and(|due| due <= soon)
    }

    /// Tells the order what becomes of events.
    pub(super) fn note_settled(&mut self, settlements: &[Settlement]) {
        for Settlement { offset, verdict, .. } in settlements {
            match verdict {
                Verdict::RetryAt(..) | Verdict::HeldBack(_) => self.order.waits(*offset),
                Verdict::Delivered | Verdict::Filtered | Verdict::Dropped | Verdict::Dead(_) => {
                    self.order.is_over(*offset);
                }
            }
        }
    }

    /// Lets go whose turn it is, and answers with those that are to wait in the queue.
    pub(super) fn keep_order(&mut self, now: Timestamp) -> Vec<Settlement> {
        let mut settlements = Vec::new();
        // Those that go back just now, which the queue does not know of yet.
        let mut dues = BTreeMap::new();
        for moved in self.order.moves() {
            match moved {
                // It stays in the queue, as what has not been read.
                Move::Go(_) if self.must_not_read() => {}
                Move::Go(offset) => self.go_on(offset, now, &mut settlements),
                Move::Back { offset, behind } => {
                    let head = behind.and_then(|head| dues.get(&head).copied());
                    let until = head.unwrap_or_else(|| self.due_behind(behind, now));
                    dues.insert(offset, until);
                    settlements.extend(self.held.get(&offset).map(|progress| progress.hold_back(until)));
                    self.forget(offset);
                }
            }
        }
        settlements
    }

    /// When an event is to come again that has this one before it.
    fn due_behind(&mut self, head: Option<Offset>, now: Timestamp) -> Timestamp {
        let Some(head) = head else { return now + CROWDED_MAX };
        let Some(due) = self.queue.due(&self.name, head) else {
            // It was damaged in storage, and skipped.
            self.order.is_over(head);
            return now + CROWDED_MAX;
        };
        due.max(now)
    }

    /// Learns the keys of events that were there before these rules: those that are out, and those that wait.
    pub(super) async fn learn_order(&mut self, now: Timestamp) {
        self.order = Order::default();
        let Some(destination) = self.destination().filter(|destination| destination.order_by.is_some()).cloned() else {
            return;
        };
        for (offset, progress) in self.held.iter().filter(|(_, progress)| progress.is_out()) {
            if let Some(key) = key_of(&destination, &progress.entry(), now) {
                self.order.learn_on_its_way(*offset, key);
            }
        }
        let limit = ReadLimit { events_max: LEARNED_EVENTS_MAX, bytes_max: READ_BYTES_MAX, waiting_max: usize::MAX };
        let mut after = None;
        loop {
            let entries = self.queue.waiting(&self.name, after, limit).await;
            let Some(last) = entries.last() else { return };
            after = Some(last.offset);
            for entry in &entries {
                if let Some(key) = key_of(&destination, entry, now) {
                    self.order.learn_waiting(entry.offset, key);
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

/// The key of an event; one on which `order_by` fails has none, and is a dead letter when it is looked at.
fn key_of(destination: &Destination, entry: &Entry, now: Timestamp) -> Option<Key> {
    let message = entry.message()?;
    let key = catch_unwind(AssertUnwindSafe(|| destination.order_key(message, now)));
    key.ok()?.ok()?.as_deref().map(Key::from)
}
