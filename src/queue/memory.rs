//! The queue in this process: for tests, and where there is no disk. What it holds is lost when the process dies.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use jiff::Timestamp;
use tokio::sync::Notify;

use super::dedup::{Dedup, Print};
use super::{Ack, AppendError, Books, Delivery, Entry, Offset, Queue, ReadLimit, Settlement};
use crate::attempt::{Attempts, DeadLetter, DestinationName, Verdict};
use crate::event::Event;

/// A log in memory, bounded in bytes.
pub struct Memory {
    state: Mutex<State>,
    changed: Notify,
    size_bytes_max: u64,
}

#[derive(Default)]
struct State {
    /// Events that some destination has yet to read; the first one's offset is `base`.
    log: VecDeque<Event>,
    base: u64,
    /// The last events as entries, so that destinations near the tail share one opened copy.
    recent: VecDeque<Arc<Entry>>,
    log_bytes: u64,
    dedup: Dedup,
    places: BTreeMap<DestinationName, Place>,
}

/// A destination's place in the log.
#[derive(Default)]
struct Place {
    is_attached: bool,
    begin: u64,
    cursor: u64,
    in_hand: BTreeMap<Offset, (Event, Attempts)>,
    later: BTreeMap<(Timestamp, Offset), (Event, Attempts)>,
    /// Bytes of the events in hand and waiting for another try.
    kept_bytes: u64,
    dead_letters: VecDeque<DeadLetter>,
    dead_letters_bytes: u64,
    delivered: u64,
    filtered: u64,
    dropped: u64,
    dead: u64,
}

/// Opened events kept for sharing: enough for workers that read at about the same time, few enough to stay in a cache.
const RECENT_MAX: usize = 512;

/// Bytes of dead letters kept per destination; the oldest make room. They are for people to look at, and must not fill
/// the memory that events need.
const DEAD_LETTERS_BYTES_MAX: u64 = 16 << 20;

// === impl Memory ===

impl Memory {
    /// An empty queue that holds up to so many bytes of event text.
    #[must_use]
    pub fn new(size_bytes_max: u64) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), size_bytes_max }
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
        while state.size_bytes() + new_bytes > self.size_bytes_max {
            if !state.forget_a_detached_place() {
                let size_bytes = state.size_bytes();
                return Err(AppendError::Full { size_bytes, size_bytes_max: self.size_bytes_max });
            }
        }
        for (event, print) in events.into_iter().zip(prints) {
            if state.dedup.remember(print, event.received_at) {
                state.push(event);
            }
        }
        state.trim();
        drop(state);
        self.changed.notify_waiters();
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

    fn attach(&self, destinations: &[DestinationName]) -> BoxFuture<'_, ()> {
        self.state().attach(destinations);
        self.changed.notify_waiters();
        ready(()).boxed()
    }

    fn read(&self, destination: &DestinationName, limit: ReadLimit, now: Timestamp) -> BoxFuture<'_, Vec<Delivery>> {
        ready(self.state().read(destination, limit, now)).boxed()
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        self.changed.notified().boxed()
    }

    fn next_due(&self, destination: &DestinationName) -> Option<Timestamp> {
        let state = self.state();
        let ((due, _), _) = state.places.get(destination)?.later.first_key_value()?;
        Some(*due)
    }

    fn settle(&self, destination: &DestinationName, settlements: Vec<Settlement>, now: Timestamp) -> BoxFuture<'_, ()> {
        if let Some(place) = self.state().places.get_mut(destination) {
            for settlement in settlements {
                place.settle(destination, settlement, now);
            }
        }
        ready(()).boxed()
    }

    fn release(&self, destination: &DestinationName) {
        if let Some(place) = self.state().places.get_mut(destination) {
            place.release();
        }
        self.changed.notify_waiters();
    }

    fn books(&self, destination: &DestinationName) -> Option<Books> {
        let state = self.state();
        Some(state.places.get(destination)?.books(state.end()))
    }

    fn dead_letters(&self, destination: &DestinationName) -> Vec<DeadLetter> {
        let state = self.state();
        state.places.get(destination).map_or_else(Vec::new, |place| place.dead_letters.iter().cloned().collect())
    }

    fn size_bytes(&self) -> u64 {
        self.state().size_bytes()
    }
}

fn size_of(event: &Event) -> u64 {
    event.json.len() as u64
}

fn letter_bytes(letter: &DeadLetter) -> u64 {
    size_of(&letter.event) + letter.failure.detail.len() as u64
}

// === impl State ===

impl State {
    fn end(&self) -> u64 {
        self.base + self.log.len() as u64
    }

    fn size_bytes(&self) -> u64 {
        self.log_bytes + self.places.values().map(|place| place.kept_bytes).sum::<u64>()
    }

    fn push(&mut self, event: Event) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::new(Entry::new(Offset(self.end()), event.clone())));
        self.log_bytes += size_of(&event);
        self.log.push_back(event);
    }

    /// Drops what every destination has read.
    fn trim(&mut self) {
        let wanted_from = self.places.values().map(|place| place.cursor).min().unwrap_or(self.end());
        while self.base < wanted_from {
            let Some(event) = self.log.pop_front() else { break };
            self.log_bytes -= size_of(&event);
            self.base += 1;
        }
    }

    fn attach(&mut self, destinations: &[DestinationName]) {
        let end = self.end();
        for (name, place) in &mut self.places {
            place.is_attached = destinations.contains(name);
        }
        for name in destinations {
            let new_place = || Place { is_attached: true, begin: end, cursor: end, ..Place::default() };
            self.places.entry(name.clone()).or_insert_with(new_place);
        }
    }

    /// Makes room at the cost of a destination that is no longer in the file.
    fn forget_a_detached_place(&mut self) -> bool {
        let Some(name) = self.places.iter().find(|(_, place)| !place.is_attached).map(|(name, _)| name.clone()) else {
            return false;
        };
        let waiting = self.places.remove(&name).map_or(0, |place| place.books(self.end()).waiting());
        tracing::warn!(destination.name = %name, events = waiting, "forgot the events of a removed destination: the queue is full");
        self.trim();
        true
    }

    fn read(&mut self, destination: &DestinationName, limit: ReadLimit, now: Timestamp) -> Vec<Delivery> {
        let Some(mut place) = self.places.remove(destination) else { return Vec::new() };
        let mut deliveries = Vec::new();
        let mut bytes = 0;
        let mut has_room = |deliveries: &Vec<Delivery>, event: &Event| {
            bytes += event.json.len();
            deliveries.is_empty() || (deliveries.len() < limit.events_max && bytes <= limit.bytes_max)
        };
        while let Some(first) = place.later.first_entry().filter(|first| first.key().0 <= now) {
            if !has_room(&deliveries, &first.get().0) {
                break;
            }
            let ((_, offset), (event, attempts)) = first.remove_entry();
            place.in_hand.insert(offset, (event.clone(), attempts.clone()));
            deliveries.push(Delivery { entry: Arc::new(Entry::new(offset, event)), attempts });
        }
        while place.later.len() < limit.waiting_max {
            let Some(entry) = self.entry(place.cursor).filter(|entry| has_room(&deliveries, &entry.event)) else {
                break;
            };
            place.cursor += 1;
            place.kept_bytes += size_of(&entry.event);
            place.in_hand.insert(entry.offset, (entry.event.clone(), Attempts::default()));
            deliveries.push(Delivery { entry, attempts: Attempts::default() });
        }
        self.places.insert(destination.clone(), place);
        self.trim();
        deliveries
    }

    fn entry(&self, offset: u64) -> Option<Arc<Entry>> {
        let place_in = |first: u64| usize::try_from(offset.checked_sub(first)?).ok();
        let recent_base = self.end() - self.recent.len() as u64;
        if let Some(entry) = place_in(recent_base).and_then(|index| self.recent.get(index)) {
            return Some(Arc::clone(entry));
        }
        let event = self.log.get(place_in(self.base)?)?;
        Some(Arc::new(Entry::new(Offset(offset), event.clone())))
    }
}

// === impl Place ===

impl Place {
    fn settle(&mut self, destination: &DestinationName, settlement: Settlement, now: Timestamp) {
        let Settlement { offset, verdict, attempts } = settlement;
        let Some((event, _)) = self.in_hand.remove(&offset) else { return };
        self.kept_bytes -= size_of(&event);
        match verdict {
            Verdict::Delivered => self.delivered += 1,
            Verdict::Filtered => self.filtered += 1,
            Verdict::Dropped => self.dropped += 1,
            Verdict::RetryAt(due, _) => self.wait(due, offset, event, attempts),
            Verdict::Dead(failure) => {
                let destination = destination.clone();
                self.bury(DeadLetter { destination, event, failure, attempts, died_at: now });
            }
        }
    }

    fn bury(&mut self, letter: DeadLetter) {
        self.dead += 1;
        self.dead_letters_bytes += letter_bytes(&letter);
        self.dead_letters.push_back(letter);
        while self.dead_letters_bytes > DEAD_LETTERS_BYTES_MAX {
            let Some(oldest) = self.dead_letters.pop_front() else { return };
            self.dead_letters_bytes -= letter_bytes(&oldest);
        }
    }

    fn wait(&mut self, due: Timestamp, offset: Offset, event: Event, attempts: Attempts) {
        self.kept_bytes += size_of(&event);
        self.later.insert((due, offset), (event, attempts));
    }

    fn release(&mut self) {
        for (offset, (event, attempts)) in std::mem::take(&mut self.in_hand) {
            self.kept_bytes -= size_of(&event);
            self.wait(Timestamp::MIN, offset, event, attempts);
        }
    }

    fn books(&self, end: u64) -> Books {
        Books {
            accepted: end - self.begin,
            delivered: self.delivered,
            filtered: self.filtered,
            dropped: self.dropped,
            dead: self.dead,
            behind: end - self.cursor,
            in_hand: self.in_hand.len() as u64,
            later: self.later.len() as u64,
        }
    }
}
