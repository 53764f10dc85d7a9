//! One destination's bookkeeping, whatever the events are kept in: its cursor, what it has in hand, what waits for
//! another try, and its books. No input or output.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Books, Mode, Offset, ReadLimit, Settlement};
use crate::attempt::{Attempts, Failure, Verdict};
use crate::event::Event;

/// A destination's place in the log. `L` is what is kept of an event that waits for another try.
pub(super) struct Place<L> {
    /// Whether it reads; `None`: detached.
    pub(super) mode: Option<Mode>,
    /// When it was detached.
    pub(super) detached_at: Option<Timestamp>,
    /// Where it began.
    pub(super) begin: u64,
    /// The next event to hand out.
    pub(super) cursor: u64,
    /// Events before this one were in the log when the place began in the past: what is missing of them was let go.
    pub(super) history_end: u64,
    /// Ranges (end exclusive) that are not for it, at or after the cursor, ascending; the last one is open as long as it
    /// skips.
    pub(super) skips: Vec<(u64, u64)>,
    pub(super) in_hand: BTreeMap<Offset, InHand>,
    pub(super) later: BTreeMap<(Timestamp, Offset), Later<L>>,
    /// When each of `later` is due.
    due_of: BTreeMap<Offset, Timestamp>,
    /// How many of `later` storage does not know as waiting.
    later_unwritten: usize,
    pub(super) tally: Tally,
    /// When the last event that was handed out for the first time had been accepted.
    pub(super) read_up_to: Option<Timestamp>,
}

/// What adds up over a place's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Passed over: put back for others, or let go before this place began to read them.
    pub(super) absent: u64,
    pub(super) delivered: u64,
    pub(super) filtered: u64,
    pub(super) dropped: u64,
    pub(super) damaged: u64,
    pub(super) dead: u64,
    pub(super) letters: u64,
    pub(super) letters_bytes: u64,
}

/// An event handed out.
#[derive(Clone, Debug)]
pub(super) struct InHand {
    pub(super) event: Event,
    pub(super) attempts: Attempts,
    /// Whether storage knows it as one that waits.
    pub(super) is_written: bool,
}

/// An event waiting for another try.
#[derive(Clone, Debug)]
pub(super) struct Later<L> {
    pub(super) kept: L,
    pub(super) size_bytes: u64,
    pub(super) attempts: Attempts,
    /// Whether storage knows it as one that waits; otherwise it is a hole in what the cursor has passed.
    pub(super) is_written: bool,
}

/// What is kept of an event that waits for another try.
pub(super) trait Kept {
    fn of(event: &Event) -> Self;
}

/// What a settlement did.
pub(super) struct Settled {
    /// The event.
    pub(super) event: Event,
    /// The tries it had.
    pub(super) attempts: Attempts,
    /// Whether storage knew it as one that waits.
    pub(super) was_written: bool,
    /// What becomes of it.
    pub(super) fate: Fate,
}

/// What becomes of a settled event.
pub(super) enum Fate {
    /// Nothing more.
    Done,
    /// It waits until then.
    Waits(Timestamp),
    /// It is a dead letter.
    Dead(Failure),
}

/// What is left of a read's limit.
pub(super) struct Room {
    events: usize,
    bytes: u64,
    is_untouched: bool,
}

// === impl Kept ===

impl Kept for Event {
    fn of(event: &Event) -> Self {
        event.clone()
    }
}

impl Kept for () {
    fn of(_: &Event) {}
}

/// Bytes of an event's text.
pub(super) fn size_of(event: &Event) -> u64 {
    event.json.len() as u64
}

// === impl Room ===

impl Room {
    /// The whole of a limit.
    pub(super) fn new(limit: ReadLimit) -> Self {
        Self { events: limit.events_max, bytes: limit.bytes_max as u64, is_untouched: true }
    }

    /// Whether one more event fits; the first one does whatever its size.
    pub(super) fn takes(&mut self, size_bytes: u64) -> bool {
        let fits = self.events > 0 && (self.is_untouched || size_bytes <= self.bytes);
        if fits {
            self.is_untouched = false;
            self.events -= 1;
            self.bytes = self.bytes.saturating_sub(size_bytes);
        }
        fits
    }

    /// Whether another event may fit.
    pub(super) fn is_left(&self) -> bool {
        self.is_untouched || (self.events > 0 && self.bytes > 0)
    }
}

// === impl Place ===

impl<L: Kept> Place<L> {
    /// A place that begins at an offset of a log that ends at `end`.
    pub(super) fn new(begin: u64, end: u64, mode: Option<Mode>) -> Self {
        Self {
            mode,
            detached_at: None,
            begin,
            cursor: begin,
            history_end: end,
            skips: Vec::new(),
            in_hand: BTreeMap::new(),
            later: BTreeMap::new(),
            due_of: BTreeMap::new(),
            later_unwritten: 0,
            tally: Tally::default(),
            read_up_to: None,
        }
    }

    /// Follows its attachment, or the lack of one, from the log's end on.
    pub(super) fn set_mode(&mut self, mode: Option<Mode>, end: u64, now: Timestamp) {
        let was_skipping = self.mode == Some(Mode::Skips);
        if mode == Some(Mode::Skips) && !was_skipping {
            self.skips.push((end.max(self.cursor), u64::MAX));
        }
        if mode != Some(Mode::Skips) && was_skipping {
            self.end_skip(end);
        }
        self.detached_at = if mode.is_none() { self.detached_at.or(Some(now)) } else { None };
        self.mode = mode;
        self.pass_skips(end);
    }

    fn end_skip(&mut self, end: u64) {
        if let Some(last) = self.skips.last_mut() {
            last.1 = last.1.min(end);
        }
        self.skips.retain(|(from, to)| from < to);
    }

    /// Takes the event that comes next in the log out of what is not for it: it was put back for this destination.
    /// Answers whether it had to be.
    pub(super) fn keep(&mut self, offset: u64) -> bool {
        let Some(last) = self.skips.last_mut().filter(|(_, to)| *to == u64::MAX) else { return false };
        if last.0 == offset {
            last.0 += 1;
        } else {
            last.1 = offset;
            self.skips.push((offset + 1, u64::MAX));
        }
        true
    }

    /// Moves the cursor over what is not for it, as far as the log goes.
    pub(super) fn pass_skips(&mut self, end: u64) {
        while let Some((from, to)) = self.skips.first().copied().filter(|(from, _)| *from <= self.cursor) {
            let next = to.min(end).max(self.cursor);
            self.tally.filtered += next - self.cursor.max(from);
            self.cursor = next;
            if to > end {
                // Open, or not there yet: the rest is passed when it comes.
                self.skips[0].0 = next;
                return;
            }
            self.skips.remove(0);
        }
    }

    /// Whether the next event is for it, once what is not was passed.
    pub(super) fn has_readable(&mut self, end: u64) -> bool {
        self.pass_skips(end);
        self.cursor < self.readable_until(end)
    }

    /// Where the next range that is not for it begins.
    pub(super) fn readable_until(&self, end: u64) -> u64 {
        self.skips.first().map_or(end, |(from, _)| end.min(*from))
    }

    /// The events that are due, in the order they are to be handed out.
    pub(super) fn all_due(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, Offset, &Later<L>)> {
        self.later
            .iter()
            .take_while(move |((due, _), _)| *due <= now)
            .map(|((due, offset), later)| (*due, *offset, later))
    }

    /// Takes an event that waits, to hand it out or to give it up.
    pub(super) fn take(&mut self, due: Timestamp, offset: Offset) -> Option<Later<L>> {
        let later = self.later.remove(&(due, offset))?;
        self.due_of.remove(&offset);
        self.later_unwritten -= usize::from(!later.is_written);
        Some(later)
    }

    /// Hands out an event that waited.
    pub(super) fn hand_out_again(&mut self, offset: Offset, event: Event, attempts: Attempts, is_written: bool) {
        self.in_hand.insert(offset, InHand { event, attempts, is_written });
    }

    /// Hands out a new event; what lies between it and the cursor has been accounted for.
    pub(super) fn hand_out(&mut self, offset: Offset, event: Event) {
        self.cursor = offset.0 + 1;
        self.read_up_to = Some(event.received_at);
        self.in_hand.insert(offset, InHand { event, attempts: Attempts::default(), is_written: false });
    }

    /// Passes over an event that was put back for another destination.
    pub(super) fn pass(&mut self, offset: Offset) {
        self.cursor = offset.0 + 1;
        self.tally.absent += 1;
    }

    /// Passes over events that the log does not have. Those that were let go before this place read them were never its.
    pub(super) fn pass_missing(&mut self, to: u64, were_let_go: bool) {
        let Some(missing) = to.checked_sub(self.cursor) else { return };
        let absent = if were_let_go { missing.min(self.history_end.saturating_sub(self.cursor)) } else { 0 };
        self.tally.absent += absent;
        self.tally.damaged += missing - absent;
        self.cursor = to;
    }

    /// Gives up an event that was taken and turned out to be damaged.
    pub(super) fn lose(&mut self) {
        self.tally.damaged += 1;
    }

    /// Lets an event wait.
    pub(super) fn wait(&mut self, due: Timestamp, offset: Offset, later: Later<L>) {
        self.due_of.insert(offset, due);
        self.later_unwritten += usize::from(!later.is_written);
        self.later.insert((due, offset), later);
    }

    /// Takes note of what became of a delivery; `None` when it was not in hand.
    pub(super) fn settle(&mut self, settlement: Settlement) -> Option<Settled> {
        let Settlement { offset, verdict, attempts } = settlement;
        let InHand { event, is_written, .. } = self.in_hand.remove(&offset)?;
        let fate = match verdict {
            Verdict::Delivered => {
                self.tally.delivered += 1;
                Fate::Done
            }
            Verdict::Filtered => {
                self.tally.filtered += 1;
                Fate::Done
            }
            Verdict::Dropped => {
                self.tally.dropped += 1;
                Fate::Done
            }
            Verdict::RetryAt(due, _) | Verdict::HeldBack(due) => {
                let (size_bytes, attempts) = (size_of(&event), attempts.clone());
                self.wait(due, offset, Later { kept: L::of(&event), size_bytes, attempts, is_written: true });
                Fate::Waits(due)
            }
            Verdict::Dead(failure) => {
                self.tally.dead += 1;
                Fate::Dead(failure)
            }
        };
        Some(Settled { event, attempts, was_written: is_written, fate })
    }

    /// Takes back what is in hand.
    pub(super) fn release(&mut self) {
        for (offset, InHand { event, attempts, is_written }) in std::mem::take(&mut self.in_hand) {
            let size_bytes = size_of(&event);
            self.wait(Timestamp::MIN, offset, Later { kept: L::of(&event), size_bytes, attempts, is_written });
        }
    }

    /// When the next event waiting for another try is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.later.first_key_value().map(|((due, _), _)| *due)
    }

    /// When this one is; `None` when it does not wait.
    pub(super) fn due(&self, offset: Offset) -> Option<Timestamp> {
        self.due_of.get(&offset).copied()
    }

    /// The events that wait after an offset, in its order.
    pub(super) fn waiting_after(&self, after: Option<Offset>) -> impl Iterator<Item = (Offset, &Later<L>)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.due_of
            .range((from, Unbounded))
            .filter_map(|(offset, due)| Some((*offset, self.later.get(&(*due, *offset))?)))
    }

    /// The events that the cursor has passed and that are not settled: in hand, or waiting for another try.
    pub(super) fn unsettled(&self) -> BTreeSet<Offset> {
        self.in_hand.keys().chain(self.due_of.keys()).copied().collect()
    }

    /// Whether it still needs an event in a range (end exclusive).
    pub(super) fn owes(&self, from: u64, to: u64) -> bool {
        let offsets = Offset(from)..Offset(to);
        let is_kept =
            self.in_hand.range(offsets.clone()).next().is_some() || self.due_of.range(offsets).next().is_some();
        is_kept || self.will_read(from.max(self.cursor), to)
    }

    fn will_read(&self, mut from: u64, to: u64) -> bool {
        for (skip_from, skip_to) in &self.skips {
            if from < *skip_from {
                break;
            }
            from = from.max(*skip_to);
        }
        from < to
    }

    /// Ranges (end exclusive) that the cursor has passed and that are not settled, as far as storage does not know them
    /// as waiting.
    pub(super) fn holes(&self) -> Vec<(u64, u64)> {
        let in_hand = self.in_hand.iter().filter(|(_, held)| !held.is_written).map(|(offset, _)| offset.0);
        let later = self.later.iter().filter(|(_, later)| !later.is_written).map(|((_, offset), _)| offset.0);
        // Asked with every write, and thousands may wait: mostly all of them are known.
        let mut offsets: Vec<u64> = in_hand.chain(later.take(self.later_unwritten)).collect();
        offsets.sort_unstable();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for offset in offsets {
            match ranges.last_mut() {
                Some((_, to)) if *to == offset => *to += 1,
                _ => ranges.push((offset, offset + 1)),
            }
        }
        ranges
    }

    /// Its books, with a log that ends at `end`. `next_at` is when the event at the cursor was accepted, if that is known.
    pub(super) fn books(&self, end: u64, next_at: Option<Timestamp>) -> Books {
        let Tally { absent, delivered, filtered, dropped, damaged, dead, letters, letters_bytes } = self.tally;
        let skipped = self.skipped(end);
        let behind = end - self.cursor - skipped;
        Books {
            accepted: end - self.begin - absent,
            delivered,
            filtered: filtered + skipped,
            dropped,
            damaged,
            dead,
            behind,
            in_hand: self.in_hand.len() as u64,
            later: self.later.len() as u64,
            letters,
            letters_bytes,
            unread_since: next_at.or(self.read_up_to).filter(|_| behind > 0),
            cursor: Offset(self.cursor),
        }
    }

    /// Events from the cursor on that are not for it.
    fn skipped(&self, end: u64) -> u64 {
        self.skips.iter().map(|(from, to)| to.min(&end).saturating_sub(self.cursor.max(*from))).sum()
    }
}
