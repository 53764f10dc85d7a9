//! The queue in this process: for tests, and where there is no disk. What it holds is lost when the process dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use jiff::Timestamp;
use tokio::sync::Notify;

use super::dedup::{Dedup, Print};
use super::place::{Fate, Later, Place, Room, size_of};
use super::recent::Recent;
use super::{
    Ack, AppendError, Attachment, Books, Delivery, Entry, History, LetterId, Mode, Offset, Queue, ReadLimit, Report,
    Settlement, StorageError, Verified,
};
use crate::attempt::{Attempts, DeadLetter, DestinationName, Start};
use crate::event::Event;

/// A log in memory, bounded in bytes.
pub struct Memory {
    state: Mutex<State>,
    changed: Notify,
    size_bytes_max: u64,
}

#[derive(Default)]
struct State {
    /// Events that some destination has yet to read, and for whom; the first one's offset is `base`.
    log: VecDeque<(Event, Option<DestinationName>)>,
    base: u64,
    recent: Recent,
    log_bytes: u64,
    dedup: Dedup,
    duplicates: u64,
    places: BTreeMap<DestinationName, Holder>,
    next_letter: u64,
}

/// A destination's place and what is kept for it.
struct Holder {
    place: Place<Event>,
    /// Bytes of the events in hand and waiting for another try.
    kept_bytes: u64,
    letters: VecDeque<(LetterId, DeadLetter)>,
}

/// Bytes of dead letters kept per destination; the oldest make room. They are for people to look at, and must not fill
/// the memory that events need.
const DEAD_LETTERS_BYTES_MAX: u64 = 16 << 20;

// === impl Memory ===

impl Memory {
    /// An empty queue that holds up to so many bytes of event text.
    #[must_use]
    pub fn new(size_bytes_max: u64, dedup: Dedup) -> Self {
        let state = State { dedup, ..State::default() };
        Self { state: Mutex::new(state), changed: Notify::new(), size_bytes_max }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is valid between any two statements that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_now(&self, events: Vec<Event>) -> Result<(), AppendError> {
        let mut state = self.state();
        let prints: Vec<Print> = events.iter().map(|event| state.dedup.print(event)).collect();
        let is_new = |(_, print): &(&Event, &Print)| !state.dedup.has_seen(**print);
        let new_bytes: u64 = events.iter().zip(&prints).filter(is_new).map(|(event, _)| size_of(event)).sum();
        self.make_room(&mut state, new_bytes)?;
        for (event, print) in events.into_iter().zip(prints) {
            if state.dedup.remember(print, event.received_at) {
                state.push(event, None);
            } else {
                state.duplicates += 1;
            }
        }
        self.publish(state);
        Ok(())
    }

    fn put_back_now(&self, destination: &DestinationName, events: Vec<Event>) -> Result<(), AppendError> {
        let mut state = self.state();
        self.make_room(&mut state, events.iter().map(size_of).sum())?;
        for event in events {
            state.push(event, Some(destination.clone()));
        }
        self.publish(state);
        Ok(())
    }

    /// Lets destinations see what was added.
    fn publish(&self, mut state: MutexGuard<'_, State>) {
        state.trim();
        drop(state);
        self.changed.notify_waiters();
    }

    fn make_room(&self, state: &mut State, new_bytes: u64) -> Result<(), AppendError> {
        while state.size_bytes() + new_bytes > self.size_bytes_max {
            if !state.forget_a_detached_place() {
                let size_bytes = state.size_bytes();
                return Err(AppendError::Full { size_bytes, size_bytes_max: self.size_bytes_max });
            }
        }
        Ok(())
    }
}

impl Queue for Memory {
    fn ack(&self) -> Ack {
        Ack::Memory
    }

    fn append(&self, events: Vec<Event>) -> BoxFuture<'_, Result<(), AppendError>> {
        ready(self.append_now(events)).boxed()
    }

    fn put_back(&self, destination: &DestinationName, events: Vec<Event>) -> BoxFuture<'_, Result<(), AppendError>> {
        ready(self.put_back_now(destination, events)).boxed()
    }

    fn attach(&self, attachments: &[Attachment], now: Timestamp) -> BoxFuture<'_, Result<(), StorageError>> {
        self.state().attach(attachments, now);
        self.changed.notify_waiters();
        ready(Ok(())).boxed()
    }

    fn read(&self, destination: &DestinationName, limit: ReadLimit, now: Timestamp) -> BoxFuture<'_, Vec<Delivery>> {
        ready(self.state().read(destination, limit, now)).boxed()
    }

    fn waiting(
        &self,
        destination: &DestinationName,
        after: Option<Offset>,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Vec<Arc<Entry>>> {
        let state = self.state();
        let Some(holder) = state.places.get(destination) else { return ready(Vec::new()).boxed() };
        let waiting = holder.place.waiting_after(after).take(limit.events_max);
        let entries = waiting.map(|(offset, later)| Arc::new(Entry::new(offset, later.kept.clone(), None))).collect();
        ready(entries).boxed()
    }

    fn unsettled(&self, destination: &DestinationName) -> BTreeSet<Offset> {
        self.state().places.get(destination).map(|holder| holder.place.unsettled()).unwrap_or_default()
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        self.changed.notified().boxed()
    }

    fn next_due(&self, destination: &DestinationName) -> Option<Timestamp> {
        self.state().places.get(destination)?.place.next_due()
    }

    fn due(&self, destination: &DestinationName, offset: Offset) -> Option<Timestamp> {
        self.state().places.get(destination)?.place.due(offset)
    }

    fn settle(&self, destination: &DestinationName, settlements: Vec<Settlement>, now: Timestamp) -> BoxFuture<'_, ()> {
        let mut state = self.state();
        for settlement in settlements {
            state.settle(destination, settlement, now);
        }
        ready(()).boxed()
    }

    fn release(&self, destination: &DestinationName) {
        if let Some(holder) = self.state().places.get_mut(destination) {
            holder.place.release();
        }
        self.changed.notify_waiters();
    }

    fn books(&self, destination: &DestinationName) -> Option<Books> {
        let state = self.state();
        let place = &state.places.get(destination)?.place;
        let next_at = state.entry(place.cursor).map(|next| next.event.received_at);
        Some(place.books(state.recent.end(), next_at))
    }

    fn dead_letters(
        &self,
        destination: &DestinationName,
        after: Option<LetterId>,
        letters_max: usize,
    ) -> BoxFuture<'_, Result<Vec<(LetterId, DeadLetter)>, StorageError>> {
        let state = self.state();
        let letters = state.places.get(destination).into_iter().flat_map(|holder| &holder.letters);
        let wanted = letters.filter(|(id, _)| after.is_none_or(|after| *id > after)).take(letters_max);
        ready(Ok(wanted.cloned().collect())).boxed()
    }

    fn remove_dead_letters(
        &self,
        destination: &DestinationName,
        letters: Vec<LetterId>,
    ) -> BoxFuture<'_, Result<u64, StorageError>> {
        let mut state = self.state();
        let removed = state.places.get_mut(destination).map_or(0, |holder| holder.remove_letters(&letters));
        ready(Ok(removed)).boxed()
    }

    fn history(&self, from: Offset, limit: ReadLimit) -> BoxFuture<'_, Result<History, StorageError>> {
        ready(Ok(self.state().history(from, limit))).boxed()
    }

    fn offset_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Offset, StorageError>> {
        let state = self.state();
        let before = state.log.iter().take_while(|(event, _)| event.received_at < time).count();
        ready(Ok(Offset(state.base + before as u64))).boxed()
    }

    fn verify(&self) -> BoxFuture<'_, Result<Vec<Verified>, StorageError>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn report(&self) -> Report {
        let state = self.state();
        Report {
            kind: "memory",
            size_bytes: state.size_bytes(),
            size_bytes_max: self.size_bytes_max,
            first: Offset(state.base),
            end: Offset(state.recent.end()),
            oldest_at: state.log.front().map(|(event, _)| event.received_at),
            dedup_ids: state.dedup.len(),
            duplicates: state.duplicates,
            places: state.places.iter().map(|(name, holder)| (name.clone(), holder.place.detached_at)).collect(),
            ..Report::default()
        }
    }

    fn tidy(&self, _now: Timestamp) -> BoxFuture<'_, ()> {
        // Everything here is bounded in bytes, and ends with the process.
        ready(()).boxed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), StorageError>> {
        ready(Ok(())).boxed()
    }
}

fn letter_bytes(letter: &DeadLetter) -> u64 {
    let refused: usize = letter.attempts.refused.iter().map(|(_, failure)| failure.size_bytes()).sum();
    size_of(&letter.event) + (letter.failure.size_bytes() + refused) as u64
}

// === impl State ===

impl State {
    fn size_bytes(&self) -> u64 {
        self.log_bytes + self.places.values().map(|holder| holder.kept_bytes).sum::<u64>()
    }

    fn push(&mut self, event: Event, only: Option<DestinationName>) {
        self.log_bytes += size_of(&event);
        if let Some(holder) = only.as_ref().and_then(|only| self.places.get_mut(only)) {
            holder.place.keep(self.recent.end());
        }
        self.recent.push(event.clone(), only.clone());
        self.log.push_back((event, only));
    }

    /// Drops what every destination has read.
    fn trim(&mut self) {
        let end = self.recent.end();
        let wanted_from = self.places.values().map(|holder| holder.place.cursor).min().unwrap_or(end);
        while self.base < wanted_from {
            let Some((event, _)) = self.log.pop_front() else { break };
            self.log_bytes -= size_of(&event);
            self.base += 1;
        }
        self.recent.trim(wanted_from);
    }

    fn attach(&mut self, attachments: &[Attachment], now: Timestamp) {
        let end = self.recent.end();
        for (name, holder) in &mut self.places {
            let attachment = attachments.iter().find(|attachment| attachment.name == *name);
            holder.place.set_mode(attachment.map(|attachment| attachment.mode), end, now);
        }
        for attachment in attachments.iter().filter(|attachment| attachment.mode == Mode::Active) {
            let begin = if attachment.start == Start::Oldest { self.base } else { end };
            let new_holder = || Holder {
                place: Place::new(begin, end, Some(Mode::Active)),
                kept_bytes: 0,
                letters: VecDeque::new(),
            };
            self.places.entry(attachment.name.clone()).or_insert_with(new_holder);
        }
    }

    /// Makes room at the cost of a destination that is no longer in the file.
    fn forget_a_detached_place(&mut self) -> bool {
        let is_detached = |holder: &Holder| holder.place.mode.is_none();
        let Some(name) = self.places.iter().find(|(_, holder)| is_detached(holder)).map(|(name, _)| name.clone())
        else {
            return false;
        };
        let end = self.recent.end();
        let waiting = self.places.remove(&name).map_or(0, |holder| holder.place.books(end, None).waiting());
        tracing::warn!(destination.name = %name, events = waiting, "forgot the events of a removed destination: the queue is full");
        self.trim();
        true
    }

    fn read(&mut self, destination: &DestinationName, limit: ReadLimit, now: Timestamp) -> Vec<Delivery> {
        let Some(mut holder) = self.places.remove(destination) else { return Vec::new() };
        let (place, mut deliveries) = (&mut holder.place, Vec::new());
        let mut room = Room::new(limit);
        let mut has_room = |size_bytes| room.takes(size_bytes);
        let fits = |(_, _, later): &(Timestamp, Offset, &Later<Event>)| has_room(later.size_bytes);
        let due: Vec<_> = place.all_due(now).take_while(fits).map(|(due, offset, _)| (due, offset)).collect();
        for (due, offset) in due {
            let Some(Later { kept: event, attempts, is_written, .. }) = place.take(due, offset) else { continue };
            place.hand_out_again(offset, event.clone(), attempts.clone(), is_written);
            deliveries.push(Delivery { entry: Arc::new(Entry::new(offset, event, None)), attempts });
        }
        let end = self.recent.end();
        while place.later.len() < limit.waiting_max && place.has_readable(end) {
            let Some(entry) = self.entry(place.cursor) else { break };
            if !entry.is_for(destination) {
                place.pass(entry.offset);
                continue;
            }
            if !has_room(size_of(&entry.event)) {
                break;
            }
            place.hand_out(entry.offset, entry.event.clone());
            holder.kept_bytes += size_of(&entry.event);
            deliveries.push(Delivery { entry, attempts: Attempts::default() });
        }
        self.places.insert(destination.clone(), holder);
        self.trim();
        deliveries
    }

    fn entry(&self, offset: u64) -> Option<Arc<Entry>> {
        if let Some(entry) = self.recent.get(offset) {
            return Some(Arc::clone(entry));
        }
        let index = usize::try_from(offset.checked_sub(self.base)?).ok()?;
        let (event, only) = self.log.get(index)?;
        Some(Arc::new(Entry::new(Offset(offset), event.clone(), only.clone())))
    }

    fn history(&self, from: Offset, limit: ReadLimit) -> History {
        let first = from.0.max(self.base);
        let mut room = Room::new(limit);
        let entries: Vec<Arc<Entry>> = (first..self.recent.end())
            .map_while(|offset| self.entry(offset))
            .take_while(|entry| room.takes(size_of(&entry.event)))
            .collect();
        let next = first + entries.len() as u64;
        History { entries, next: (next < self.recent.end()).then_some(Offset(next)), damaged: 0 }
    }

    fn settle(&mut self, destination: &DestinationName, settlement: Settlement, now: Timestamp) {
        let Some(holder) = self.places.get_mut(destination) else { return };
        let Some(settled) = holder.place.settle(settlement) else { return };
        if !matches!(settled.fate, Fate::Waits(_)) {
            holder.kept_bytes -= size_of(&settled.event);
        }
        if let Fate::Dead(failure) = settled.fate {
            let (event, attempts, destination) = (settled.event, settled.attempts, destination.clone());
            holder.bury(LetterId(self.next_letter), DeadLetter { destination, event, failure, attempts, died_at: now });
            self.next_letter += 1;
        }
    }
}

// === impl Holder ===

impl Holder {
    fn bury(&mut self, id: LetterId, letter: DeadLetter) {
        let tally = &mut self.place.tally;
        tally.letters += 1;
        tally.letters_bytes += letter_bytes(&letter);
        self.letters.push_back((id, letter));
        while tally.letters_bytes > DEAD_LETTERS_BYTES_MAX {
            let Some((_, oldest)) = self.letters.pop_front() else { return };
            tally.letters -= 1;
            tally.letters_bytes -= letter_bytes(&oldest);
        }
    }

    fn remove_letters(&mut self, ids: &[LetterId]) -> u64 {
        let before = self.letters.len() as u64;
        self.letters.retain(|(id, _)| !ids.contains(id));
        self.place.tally.letters = self.letters.len() as u64;
        self.place.tally.letters_bytes = self.letters.iter().map(|(_, letter)| letter_bytes(letter)).sum();
        before - self.place.tally.letters
    }
}
