//! Every destination's place as it is now, and what of it is not written yet.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::state::{Changes, Loaded, PlaceRow, WaitingRow, letter_bytes};
use crate::attempt::{Attempts, DeadLetter, DestinationName, Start};
use crate::queue::place::{Fate, Later, Place, Settled, Tally};
use crate::queue::{Attachment, LetterId, Mode, Offset, Settlement};

/// All places, in memory.
#[derive(Default)]
pub(super) struct Ledger {
    places: BTreeMap<DestinationName, Place<()>>,
    next_letter: u64,
    /// Whether no destination was ever attached.
    is_new: bool,
    /// Counts what was decided, to know when it is written.
    sequence: u64,
    dirty: BTreeSet<DestinationName>,
    unwritten: Changes,
    /// How many settlements of each destination are not written.
    unwritten_settlements: BTreeMap<DestinationName, usize>,
    /// Dead letters whose removal is not written.
    letters_going: BTreeSet<(DestinationName, LetterId)>,
}

/// What the size of an event is taken for when nobody remembers it.
const USUAL_SIZE_BYTES: u64 = 1 << 10;

// === impl Ledger: what is in it ===

impl Ledger {
    /// The ledger as it was written.
    pub(super) fn from_loaded(loaded: Loaded) -> Self {
        let places = loaded.places.into_iter().map(|(name, (row, waiting))| (name, opened(&row, waiting))).collect();
        Self { places, next_letter: loaded.next_letter, is_new: loaded.is_new, ..Self::default() }
    }

    /// Gives places that were damaged the whole log to read: to send again is better than to lose.
    pub(super) fn restore(&mut self, damaged: Vec<DestinationName>, first: u64, end: u64) {
        for name in damaged {
            self.places.insert(name.clone(), Place::new(first, end, Some(Mode::Active)));
            self.changed(&name);
        }
    }

    /// One past the last event that anything here knows of.
    pub(super) fn known_end(&self) -> u64 {
        self.places.values().map(known_end).max().unwrap_or(0)
    }

    pub(super) fn place(&self, name: &DestinationName) -> Option<&Place<()>> {
        self.places.get(name)
    }

    pub(super) fn places(&self) -> impl Iterator<Item = (&DestinationName, &Place<()>)> {
        self.places.iter()
    }

    /// The destinations in force.
    pub(super) fn attachments(&self) -> Vec<Attachment> {
        let attachment = |(name, place): (&DestinationName, &Place<()>)| {
            Some(Attachment { name: name.clone(), start: Start::Newest, mode: place.mode? })
        };
        self.places.iter().filter_map(attachment).collect()
    }

    /// A place, of which something is about to change that need not be written for its own sake: reading again what was
    /// not settled is what a crash does.
    pub(super) fn reading(&mut self, name: &DestinationName) -> Option<&mut Place<()>> {
        self.places.get_mut(name)
    }

    /// Whether any place still needs an event in a range (end exclusive).
    pub(super) fn owes(&self, from: u64, to: u64) -> bool {
        self.places.values().any(|place| place.owes(from, to))
    }

    /// The lowest cursor of those that read near the end of the log.
    pub(super) fn wanted_from(&self, near: u64, end: u64) -> u64 {
        self.cursors().map(|(_, cursor)| cursor).filter(|cursor| *cursor >= near).min().unwrap_or(end)
    }

    /// Where those are that read.
    pub(super) fn cursors(&self) -> impl Iterator<Item = (&DestinationName, u64)> {
        let readers = self.places.iter().filter(|(_, place)| place.mode == Some(Mode::Active));
        readers.map(|(name, place)| (name, place.cursor))
    }
}

/// One past the last event that a place knows of. Events that a damaged log lost must not be taken for new ones.
fn known_end(place: &Place<()>) -> u64 {
    let skipped_to = place.skips.iter().map(|(from, to)| if *to == u64::MAX { *from } else { *to }).max();
    place.cursor.max(place.history_end).max(skipped_to.unwrap_or(0))
}

fn opened(row: &PlaceRow, waiting: Vec<(Offset, WaitingRow)>) -> Place<()> {
    let is_skipping = row.skips.last().is_some_and(|(_, to)| *to == u64::MAX);
    let mode = if is_skipping { Mode::Skips } else { Mode::Active };
    let mut place = Place::new(row.begin, row.history_end, Some(mode).filter(|_| row.detached_at.is_none()));
    place.cursor = row.cursor;
    place.skips.clone_from(&row.skips);
    place.detached_at = row.detached_at;
    place.tally = Tally {
        absent: row.absent,
        delivered: row.delivered,
        filtered: row.filtered,
        dropped: row.dropped,
        damaged: row.damaged,
        dead: row.dead,
        letters: row.letters,
        letters_bytes: row.letters_bytes,
    };
    for (offset, WaitingRow { due, size_bytes, attempts }) in waiting {
        place.wait(due, offset, Later { kept: (), size_bytes, attempts, is_written: true });
    }
    for offset in row.holes.iter().flat_map(|(from, to)| *from..*to) {
        let later = Later { kept: (), size_bytes: USUAL_SIZE_BYTES, attempts: Attempts::default(), is_written: false };
        place.wait(Timestamp::MIN, Offset(offset), later);
    }
    place
}

fn row_of(place: &Place<()>) -> PlaceRow {
    let Tally { absent, delivered, filtered, dropped, damaged, dead, letters, letters_bytes } = place.tally;
    PlaceRow {
        begin: place.begin,
        cursor: place.cursor,
        history_end: place.history_end,
        holes: place.holes(),
        skips: place.skips.clone(),
        detached_at: place.detached_at,
        absent,
        delivered,
        filtered,
        dropped,
        damaged,
        dead,
        letters,
        letters_bytes,
    }
}

// === impl Ledger: what happens to it ===

impl Ledger {
    /// Follows the destinations in force. The log begins at `first` and ends at `end`.
    pub(super) fn attach(&mut self, attachments: &[Attachment], first: u64, end: u64, now: Timestamp) {
        for (name, place) in &mut self.places {
            let attachment = attachments.iter().find(|attachment| attachment.name == *name);
            place.set_mode(attachment.map(|attachment| attachment.mode), end, now);
            self.dirty.insert(name.clone());
        }
        let is_state_lost = self.is_new && first < end;
        if is_state_lost {
            tracing::error!(
                "the queue has events, but where its destinations stood is lost: they are sent everything again"
            );
        }
        for attachment in attachments.iter().filter(|attachment| attachment.mode == Mode::Active) {
            let begin = if is_state_lost || attachment.start == Start::Oldest { first } else { end };
            let name = &attachment.name;
            self.places.entry(name.clone()).or_insert_with(|| Place::new(begin, end, Some(Mode::Active)));
            self.dirty.insert(name.clone());
        }
        self.unwritten.begins |= std::mem::take(&mut self.is_new);
        self.sequence += 1;
    }

    /// Takes note of what became of deliveries.
    pub(super) fn settle(&mut self, name: &DestinationName, settlements: Vec<Settlement>, now: Timestamp) {
        let Some(place) = self.places.get_mut(name) else { return };
        *self.unwritten_settlements.entry(name.clone()).or_default() += settlements.len();
        for settlement in settlements {
            let offset = settlement.offset;
            let Some(Settled { event, attempts, was_written, fate }) = place.settle(settlement) else { continue };
            let key = || (name.clone(), offset);
            let size_bytes = event.json.len() as u64;
            match fate {
                Fate::Waits(due) => {
                    self.unwritten.waiting.insert(key(), Some(WaitingRow { due, size_bytes, attempts }));
                    continue;
                }
                Fate::Done => {}
                Fate::Dead(failure) => {
                    let letter = DeadLetter { destination: name.clone(), event, failure, attempts, died_at: now };
                    place.tally.letters += 1;
                    place.tally.letters_bytes += letter_bytes(&letter);
                    self.unwritten.letters.push((LetterId(self.next_letter), letter));
                    self.next_letter += 1;
                }
            }
            if was_written {
                self.unwritten.waiting.insert(key(), None);
            }
        }
        self.changed(name);
    }

    /// Takes back what a destination has in hand.
    pub(super) fn release(&mut self, name: &DestinationName) {
        if let Some(place) = self.places.get_mut(name) {
            place.release();
            self.changed(name);
        }
    }

    /// Gives up an event that waits and turned out to be damaged.
    pub(super) fn lose(&mut self, name: &DestinationName, due: Timestamp, offset: Offset) {
        let Some(place) = self.places.get_mut(name) else { return };
        let Some(later) = place.take(due, offset) else { return };
        if later.is_written {
            self.unwritten.waiting.insert((name.clone(), offset), None);
        }
        place.lose();
        self.changed(name);
    }

    /// Takes note that the next event of the log was put back for a destination.
    pub(super) fn keep(&mut self, name: &DestinationName, offset: u64) {
        if self.places.get_mut(name).is_some_and(|place| place.keep(offset)) {
            self.changed(name);
        }
    }

    /// Takes note that a place has passed events without settling any.
    pub(super) fn changed(&mut self, name: &DestinationName) {
        self.dirty.insert(name.clone());
        self.sequence += 1;
    }

    /// Bytes of all dead letters that are kept.
    pub(super) fn letters_bytes(&self) -> u64 {
        self.places.values().map(|place| place.tally.letters_bytes).sum()
    }

    /// Takes note that dead letters of a destination are to go, but for those that are going already. Answers how many.
    pub(super) fn remove_letters(&mut self, name: &DestinationName, mut letters: Vec<(LetterId, u64)>) -> u64 {
        letters.retain(|(id, _)| self.letters_going.insert((name.clone(), *id)));
        let count = letters.len() as u64;
        if let Some(place) = self.places.get_mut(name) {
            let bytes: u64 = letters.iter().map(|(_, bytes)| bytes).sum();
            place.tally.letters = place.tally.letters.saturating_sub(count);
            place.tally.letters_bytes = place.tally.letters_bytes.saturating_sub(bytes);
        }
        self.unwritten.letters_removed.extend(letters.into_iter().map(|(id, _)| (name.clone(), id)));
        self.changed(name);
        count
    }

    /// Forgets places that were detached too long ago. Answers each with what was waiting for it.
    pub(super) fn forget_detached(&mut self, before: Timestamp, end: u64) -> Vec<(DestinationName, u64)> {
        let is_old = |place: &Place<()>| place.mode.is_none() && place.detached_at.is_some_and(|at| at <= before);
        let old = self.places.iter().filter(|(_, place)| is_old(place));
        let forgotten: Vec<_> = old.map(|(name, place)| (name.clone(), place.books(end, None).waiting())).collect();
        for (name, _) in &forgotten {
            self.places.remove(name);
            self.dirty.remove(name);
            self.unwritten.forget(name);
            self.unwritten.forgotten.push(name.clone());
            self.sequence += 1;
        }
        forgotten
    }
}

// === impl Ledger: writing it ===

impl Ledger {
    /// Counts what was decided so far.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How many settlements of a destination are not written.
    pub(super) fn unwritten(&self, name: &DestinationName) -> usize {
        self.unwritten_settlements.get(name).copied().unwrap_or(0)
    }

    /// What is to be written, and the sequence it brings the written state to.
    pub(super) fn take_changes(&mut self) -> (Changes, u64) {
        let mut changes = std::mem::take(&mut self.unwritten);
        for name in std::mem::take(&mut self.dirty) {
            if let Some(place) = self.places.get(&name) {
                changes.places.insert(name, row_of(place));
            }
        }
        (changes, self.sequence)
    }

    /// Has every place written, whether it changed or not.
    pub(super) fn touch_all(&mut self) {
        self.dirty.extend(self.places.keys().cloned());
    }

    /// How many settlements of each destination are not written.
    pub(super) fn unwritten_counts(&self) -> BTreeMap<DestinationName, usize> {
        self.unwritten_settlements.clone()
    }

    /// Takes note that changes were written, and with them so many settlements.
    pub(super) fn written(&mut self, changes: &Changes, counts: &BTreeMap<DestinationName, usize>) {
        for (name, count) in counts {
            if let Some(unwritten) = self.unwritten_settlements.get_mut(name) {
                *unwritten -= (*count).min(*unwritten);
            }
        }
        for (name, id) in &changes.letters_removed {
            self.letters_going.remove(&(name.clone(), *id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_that_two_want_to_go_goes_once() {
        let name = DestinationName::from("crm");
        let mut ledger = Ledger::default();
        assert_eq!(ledger.remove_letters(&name, vec![(LetterId(1), 10), (LetterId(2), 10)]), 2);
        assert_eq!(ledger.remove_letters(&name, vec![(LetterId(2), 10), (LetterId(3), 10)]), 1);
    }

    #[test]
    fn a_destination_whose_place_is_damaged_is_sent_everything_again_rather_than_nothing() {
        let name = DestinationName::from("crm");
        let mut ledger = Ledger::default();
        ledger.restore(vec![name.clone()], 7, 10);
        let attachment = Attachment { name: name.clone(), start: Start::Newest, mode: Mode::Active };
        ledger.attach(&[attachment], 7, 10, Timestamp::UNIX_EPOCH);
        let books = ledger.place(&name).map(|place| place.books(10, None));
        assert_eq!(books.map(|books| (books.accepted, books.behind)), Some((3, 3)));
        assert!(ledger.owes(7, 8));
    }
}
