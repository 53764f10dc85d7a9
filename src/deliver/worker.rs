//! One destination's loop.

mod turns;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use super::order::{Key, Order};
use super::progress::{Carrier, Next, Progress};
use super::{Generation, Status, Stop};
use crate::attempt::{Attempts, DestinationName, Failure, Outcome, Reason, Verdict};
use crate::clock::Clock;
use crate::plan::pack::Packer;
use crate::plan::{Batch, Destination, Item, Reply, RuleError};
use crate::queue::{Delivery, Entry, Offset, Queue, ReadLimit, Settlement};
use crate::retry::{Health, RetryPolicy};
use crate::segment::Violation;

/// One destination's task.
pub struct Worker {
    name: DestinationName,
    queue: Arc<dyn Queue>,
    clock: Clock,
    generations: watch::Receiver<Option<Generation>>,
    statuses: watch::Sender<Status>,
    current: Option<Current>,
    /// Events it holds, by their place in the log.
    held: BTreeMap<Offset, Progress>,
    /// Whose turn it is, for a destination with `order_by`.
    order: Order,
    /// Since when there has been no room to park what one more read may find.
    crowded_since: Option<Timestamp>,
    /// Events whose destination is not in force just now.
    parked: Vec<Delivery>,
    held_bytes: usize,
    ready: VecDeque<Batch<Offset>>,
    in_flight: FuturesUnordered<BoxFuture<'static, Sent>>,
    health: Health,
    /// When the rate limit lets the next request go.
    next_slot: Timestamp,
    last_failure: Option<String>,
    /// Dead letters since they were last told of.
    dead_untold: usize,
    tell_dead_from: Timestamp,
    is_stopping: bool,
    is_draining: bool,
    /// Whether the last read found all there was.
    is_caught_up: bool,
}

/// The generation in force and its open batches.
struct Current {
    generation: Generation,
    packer: Packer<Offset>,
}

/// A request that came back.
struct Sent {
    generation: Generation,
    batch: Batch<Offset>,
    reply: Reply,
    /// How long it was out; `None`: it could not even be made.
    took: Option<Duration>,
}

/// What the rules make of an event.
pub(crate) struct Look {
    /// `None`: no rule wants it.
    pub(crate) items: Option<Vec<Item>>,
    /// Whose turn it waits for; `None`: nobody's.
    pub(crate) key: Option<Key>,
}

/// Events handed out by one read: few enough that a read's rendering never holds the thread for long.
const READ_EVENTS_MAX: usize = 64;

/// Bytes of events handed out by one read.
const READ_BYTES_MAX: usize = 4 << 20;

/// Bytes of events in hand. The backlog beyond it stays in the queue.
const HELD_BYTES_MAX: usize = 32 << 20;

/// Events in hand for a destination whose batches are small.
const HELD_EVENTS_MIN: usize = 1000;

/// After the first new event, others are let come: to wake for each one alone would cost more than to deliver it.
const GATHER: Duration = Duration::from_millis(1);

/// How often dead letters are told of.
const DEAD_LETTERS_PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// What woke the loop.
enum Wake {
    Sent(Box<Sent>),
    Rules,
    Stop,
    Something,
}

// === impl Worker ===

impl Worker {
    /// A worker that holds nothing and follows the given generations.
    #[must_use]
    pub fn new(
        name: DestinationName,
        queue: Arc<dyn Queue>,
        clock: Clock,
        generations: watch::Receiver<Option<Generation>>,
        statuses: watch::Sender<Status>,
    ) -> Self {
        Self {
            name,
            queue,
            next_slot: clock.now(),
            clock,
            generations,
            statuses,
            current: None,
            held: BTreeMap::new(),
            order: Order::default(),
            crowded_since: None,
            parked: Vec::new(),
            held_bytes: 0,
            ready: VecDeque::new(),
            in_flight: FuturesUnordered::new(),
            health: Health::default(),
            last_failure: None,
            dead_untold: 0,
            tell_dead_from: Timestamp::MIN,
            is_stopping: false,
            is_draining: false,
            is_caught_up: false,
        }
    }

    /// Delivers until it is told to stop.
    pub async fn run(mut self, stop: Stop) {
        self.adopt().await;
        let queue = Arc::clone(&self.queue);
        loop {
            // Asked for before reading, so that nothing appended in between goes unseen.
            let changed = queue.changed();
            self.read().await;
            self.launch().await;
            if self.is_finished() {
                return;
            }
            self.note_crowd(self.clock.now());
            self.publish();
            match self.wake(changed, &stop).await {
                Wake::Sent(sent) => self.conclude(*sent).await,
                Wake::Rules => self.adopt().await,
                Wake::Stop => {
                    self.is_stopping = true;
                    self.is_draining = stop.drain.is_cancelled();
                }
                Wake::Something => {}
            }
        }
    }

    fn is_finished(&self) -> bool {
        let is_resting = self.health.rest().is_some();
        let has_nothing_to_send = self.in_flight.is_empty() && (self.ready.is_empty() || is_resting);
        let is_read = || self.is_caught_up && !self.will_soon_read();
        let is_drained = || !self.is_draining || is_resting || self.current.is_none() || is_read();
        self.is_stopping && has_nothing_to_send && is_drained()
    }

    async fn wake(&mut self, changed: BoxFuture<'_, ()>, stop: &Stop) -> Wake {
        let can_read = self.can_read();
        let timer = self.next_timer();
        let clock = self.clock.clone();
        let sleep = async move {
            match timer {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let is_stopping = self.is_stopping;
        let stopped = async {
            tokio::select! {
                () = stop.finish.cancelled() => {}
                () = stop.drain.cancelled() => {}
            }
        };
        let gathered = async {
            changed.await;
            tokio::time::sleep(GATHER).await;
        };
        // A caller that gets more than it can use must still let others run.
        let more = async {
            if can_read && !self.is_caught_up { tokio::task::yield_now().await } else { std::future::pending().await }
        };
        // The rare ones first: a busy destination always has a reply at hand.
        tokio::select! {
            biased;
            Ok(()) = self.generations.changed() => Wake::Rules,
            () = stopped, if !is_stopping => Wake::Stop,
            Some(sent) = self.in_flight.next() => Wake::Sent(Box::new(sent)),
            () = more => Wake::Something,
            () = gathered, if can_read => Wake::Something,
            () = sleep => Wake::Something,
        }
    }

    /// The next moment at which there is something to do without anybody's telling.
    fn next_timer(&self) -> Option<Timestamp> {
        let batch = self.current.as_ref().and_then(|current| current.packer.next_due());
        let due = self.can_read().then(|| self.queue.next_due(&self.name)).flatten();
        let slot = (!self.ready.is_empty() && self.in_flight.len() < self.concurrency()).then_some(self.next_slot);
        match self.health.rest() {
            None => [batch, due, slot, self.looks_further_at()].into_iter().flatten().min(),
            // The probe is out: its reply wakes us.
            Some(_) if !self.in_flight.is_empty() => None,
            Some(rest) if rest.until > self.clock.now() => Some(rest.until),
            Some(_) => [due, slot].into_iter().flatten().min(),
        }
    }

    fn publish(&self) {
        self.statuses.send_if_modified(|current| {
            let status = Status {
                requests_in_flight: self.in_flight.len(),
                batches_ready: self.ready.len(),
                events_in_hand: (self.held.len() + self.parked.len()) as u64,
                rest: self.health.rest().cloned(),
                last_failure: self.last_failure.clone(),
                tally: current.tally,
            };
            let is_new = *current != status;
            *current = status;
            is_new
        });
    }
}

// === reading: queue → events → items → batches ===

impl Worker {
    fn destination(&self) -> Option<&Arc<Destination>> {
        self.current.as_ref().map(|current| &current.generation.destination)
    }

    fn concurrency(&self) -> usize {
        if self.health.rest().is_some() { 1 } else { self.destination().map_or(1, |d| d.limit.concurrency) }
    }

    fn can_read(&self) -> bool {
        let Some(destination) = self.destination() else { return false };
        let may_probe = self.health.rest().is_none_or(|rest| {
            rest.until <= self.clock.now() && self.held.is_empty() && self.ready.is_empty() && self.in_flight.is_empty()
        });
        self.has_room(destination) && may_probe && self.may_look_further()
    }

    fn has_room(&self, destination: &Destination) -> bool {
        self.held.len() < destination.held_events_max() && self.held_bytes < HELD_BYTES_MAX
    }

    async fn read(&mut self) {
        let now = self.clock.now();
        self.note_crowd(now);
        if self.can_read() && !self.must_not_read() {
            let waiting_max = self.destination().map_or(0, |destination| destination.waiting_max);
            let limit = ReadLimit { events_max: READ_EVENTS_MAX, bytes_max: READ_BYTES_MAX, waiting_max };
            let deliveries = self.queue.read(&self.name, limit, now).await;
            self.is_caught_up = deliveries.is_empty();
            self.take_up(deliveries, now).await;
        }
        let is_ending = self.is_stopping && (self.is_caught_up || self.must_not_read());
        // Batches that wait for company must not keep others from being read.
        let is_full = self.destination().is_some_and(|destination| !self.has_room(destination));
        let wants_probe = self.health.rest().is_some_and(|rest| rest.until <= now) && self.ready.is_empty();
        let holds_up = self.holds_up_others();
        if let Some(current) = &mut self.current {
            let flush = is_ending || is_full || wants_probe || holds_up;
            self.ready.extend(if flush { current.packer.flush() } else { current.packer.due(now) });
        }
    }

    /// Told to finish: what is in hand ends, the rest stays in the queue.
    fn must_not_read(&self) -> bool {
        self.is_stopping && !self.is_draining
    }

    async fn take_up(&mut self, mut deliveries: Vec<Delivery>, now: Timestamp) {
        if self.is_ordered() {
            deliveries.sort_by_key(|delivery| delivery.entry.offset);
        }
        let mut settlements = Vec::new();
        for delivery in deliveries {
            self.consider(delivery, now, &mut settlements);
        }
        self.settle(settlements, now).await;
    }

    /// Runs the rules on one event.
    fn consider(&mut self, delivery: Delivery, now: Timestamp, settlements: &mut Vec<Settlement>) {
        let Some(destination) = self.destination().cloned() else { return self.parked.push(delivery) };
        match look(&destination, &delivery.entry, now) {
            // One that was delivered in part, under rules that wanted it, is no longer one that no rule wants.
            Ok(Look { items: None, .. }) if delivery.attempts.is_untouched() => {
                settlements.push(settlement(delivery, Verdict::Filtered));
            }
            Ok(Look { items, key }) => self.hold(delivery, items.unwrap_or_default(), key, now, settlements),
            Err(failure) => settlements.push(settlement(delivery, Verdict::Dead(failure))),
        }
    }

    /// Takes an event in hand, and lets it go on if nobody of its key is before it.
    fn hold(
        &mut self,
        delivery: Delivery,
        items: Vec<Item>,
        key: Option<Key>,
        now: Timestamp,
        settlements: &mut Vec<Settlement>,
    ) {
        let offset = delivery.entry.offset;
        let progress = Progress::new(delivery, items);
        let size_bytes = progress.size_bytes();
        self.held_bytes += size_bytes;
        self.held.insert(offset, progress);
        match key {
            Some(key) => self.order.ask(offset, key, size_bytes, self.parking()),
            None => self.go_on(offset, now, settlements),
        }
    }

    /// Does what a held event needs next.
    fn go_on(&mut self, offset: Offset, now: Timestamp, settlements: &mut Vec<Settlement>) {
        let policy = self.destination().map_or_else(RetryPolicy::default, |destination| destination.retry.clone());
        let Some(progress) = self.held.get_mut(&offset) else { return };
        match progress.next(&policy, now, fastrand::f64()) {
            Next::Wait => {}
            Next::Send(items) => items.into_iter().for_each(|item| self.pack(item, offset, now)),
            Next::Settle(settlement) => {
                self.forget(offset);
                settlements.push(settlement);
            }
            Next::Reconsider(delivery) => {
                self.forget(offset);
                self.consider(delivery, now, settlements);
            }
        }
    }

    fn forget(&mut self, offset: Offset) {
        if let Some(progress) = self.held.remove(&offset) {
            self.held_bytes -= progress.size_bytes();
        }
    }

    fn pack(&mut self, item: Item, offset: Offset, now: Timestamp) {
        if let Some(current) = &mut self.current {
            self.ready.extend(current.packer.push(item, offset, now));
        }
    }

    /// Settles, and does what that means for others of the same key, until nothing moves.
    async fn settle(&mut self, mut settlements: Vec<Settlement>, now: Timestamp) {
        loop {
            if !settlements.is_empty() {
                self.tell_of_dead(&settlements, now);
                self.note_settled(&settlements);
                self.queue.settle(&self.name, settlements, now).await;
            }
            settlements = self.keep_order(now);
            if settlements.is_empty() {
                return;
            }
        }
    }

    /// The first dead letter is told at once, and then how many more there were: a bad mapping must not fill a disk.
    fn tell_of_dead(&mut self, settlements: &[Settlement], now: Timestamp) {
        let mut failures = settlements.iter().filter_map(|settlement| settlement.verdict.death());
        let Some(first) = failures.next() else { return };
        self.dead_untold += 1 + failures.count();
        if now >= self.tell_dead_from {
            tracing::warn!(destination.name = %self.name, events = self.dead_untold, error = %first, "dead letters");
            (self.dead_untold, self.tell_dead_from) = (0, now + DEAD_LETTERS_PAUSE);
        }
    }
}

fn settlement(delivery: Delivery, verdict: Verdict) -> Settlement {
    let Delivery { entry, attempts } = delivery;
    Settlement { offset: entry.offset, verdict, attempts: Attempts { count: attempts.count + 1, ..attempts } }
}

/// The items of an event; `None` when no rule wants it.
pub(crate) fn items_of(destination: &Destination, entry: &Entry, now: Timestamp) -> Result<Option<Vec<Item>>, Failure> {
    look(destination, entry, now).map(|look| look.items)
}

/// What the rules make of an event. A panic in a rule is that event's fault alone.
pub(crate) fn look(destination: &Destination, entry: &Entry, now: Timestamp) -> Result<Look, Failure> {
    let failed = |rule, reason, detail: &str| {
        let trace = Some(Box::new(destination.trace(rule)));
        Failure { trace, ..Failure::new(reason, detail) }
    };
    let message = entry.message().ok_or_else(|| failed(None, Reason::Unreadable, "the stored text is damaged"))?;
    let by_rule = |error: RuleError| failed(error.rule.clone(), Reason::Mapping, &error.to_string());
    let run = || -> Result<Look, Failure> {
        let Some(matches) = destination.select(message, now).map_err(by_rule)? else {
            return Ok(Look { items: None, key: None });
        };
        let violations = destination.violations(message, now);
        if !violations.is_empty() {
            return Err(failed(None, Reason::Plan, &Violation::in_one_line(&violations)));
        }
        let items = destination.render(&matches, &entry.event.message_id).map_err(by_rule)?;
        let key = destination.order_key(message, now).map_err(by_rule)?.as_deref().map(Key::from);
        Ok(Look { items: (!items.is_empty()).then_some(items), key })
    };
    let panicked = |_| Err(failed(None, Reason::Mapping, "a rule panicked; this is a bug in libroseg"));
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(panicked)
}

// === sending: batches → requests → replies → verdicts ===

impl Worker {
    async fn launch(&mut self) {
        let now = self.clock.now();
        while self.may_launch(now) {
            let (Some(batch), Some(current)) = (self.ready.pop_front(), &self.current) else { return };
            let generation = current.generation.clone();
            match generation.destination.request(&batch, now) {
                Ok(request) => {
                    self.next_slot = next_slot(self.next_slot, &generation.destination, now);
                    self.in_flight.push(
                        async move {
                            let begun = Instant::now();
                            let reply = generation.sink.send(request, now).await;
                            Sent { generation, batch, reply, took: Some(begun.elapsed()) }
                        }
                        .boxed(),
                    );
                }
                Err(error) => {
                    let reply = Reply::Unsendable(Failure::new(Reason::Mapping, error.to_string()));
                    Box::pin(self.conclude(Sent { generation, batch, reply, took: None })).await;
                }
            }
        }
    }

    fn may_launch(&self, now: Timestamp) -> bool {
        let is_rested = self.health.rest().is_none_or(|rest| rest.until <= now);
        !self.ready.is_empty() && is_rested && self.next_slot <= now && self.in_flight.len() < self.concurrency()
    }

    async fn conclude(&mut self, sent: Sent) {
        let Sent { generation, batch, reply, took } = sent;
        let now = self.clock.now();
        let was_sent = !matches!(reply, Reply::Unsendable(_));
        let carrier =
            Carrier { destination: Arc::clone(&generation.destination), items: was_sent.then_some(batch.items.len()) };
        let outcomes = generation.destination.judge(&reply, batch.items.len(), now);
        self.note_health(&generation, &outcomes, now);
        let (to_halve, others): (Vec<_>, Vec<_>) =
            batch.items.into_iter().zip(outcomes).partition(|(_, outcome)| matches!(outcome, Outcome::Split(_)));
        let mut settlements = Vec::new();
        // Halves made under old rules are not sent: their events are looked at again.
        let again: Vec<Offset> = if self.is_current(&generation) {
            Vec::new()
        } else {
            to_halve.iter().map(|((_, offset), _)| *offset).collect()
        };
        let too_large = to_halve.len();
        let alone = if again.is_empty() { self.halve(to_halve, batch.opened_at) } else { Vec::new() };
        let split = too_large - alone.len();
        let judged: Vec<_> = alone.into_iter().chain(others).collect();
        self.tally(took, split, judged.iter().map(|(_, outcome)| outcome));
        for offset in again {
            if let Some(progress) = self.held.get_mut(&offset) {
                progress.take_back(1);
                self.go_on(offset, now, &mut settlements);
            }
        }
        for ((item, offset), outcome) in judged {
            if let Some(progress) = self.held.get_mut(&offset) {
                progress.note(item, outcome, &carrier);
                self.go_on(offset, now, &mut settlements);
            }
        }
        self.settle(settlements, now).await;
    }

    /// Counts a request and what came of it, where a panic of this worker leaves it standing.
    fn tally<'a>(&self, took: Option<Duration>, split: usize, outcomes: impl Iterator<Item = &'a Outcome>) {
        self.statuses.send_if_modified(|Status { tally, .. }| {
            if let Some(took) = took {
                tally.note_request(took);
            }
            tally.split += split as u64;
            outcomes.for_each(|outcome| tally.note_item(outcome));
            // Whoever wants to know asks.
            false
        });
    }

    fn is_current(&self, generation: &Generation) -> bool {
        self.destination().is_some_and(|destination| Arc::ptr_eq(destination, &generation.destination))
    }

    /// Sends items that were too large together again in halves; a single one is handed back.
    fn halve(
        &mut self,
        to_halve: Vec<((Item, Offset), Outcome)>,
        opened_at: Timestamp,
    ) -> Vec<((Item, Offset), Outcome)> {
        if to_halve.len() < 2 {
            return to_halve;
        }
        let items = to_halve.into_iter().map(|(item, _)| item).collect();
        let (first, second) = Batch { items, opened_at }.halves();
        self.ready.push_front(second);
        self.ready.push_front(first);
        Vec::new()
    }

    fn note_health(&mut self, generation: &Generation, outcomes: &[Outcome], now: Timestamp) {
        if let Some(failure) = outcomes.iter().find_map(Outcome::failure) {
            self.last_failure = Some(failure.to_string());
            tracing::debug!(destination.name = %self.name, error = %failure, items = outcomes.len(), "a request failed");
        }
        if !self.is_current(generation) {
            return;
        }
        if self.health.note(Health::overall(outcomes), &generation.destination.retry, now, fastrand::f64()) {
            self.tell_of_rest();
        }
    }

    fn tell_of_rest(&self) {
        let Some(rest) = self.health.rest() else {
            tracing::info!(destination.name = %self.name, "the destination takes events again");
            return;
        };
        tracing::error!(
            destination.name = %self.name,
            until = %rest.until,
            why = rest.why.as_str(),
            error = self.last_failure.as_deref().unwrap_or_default(),
            "the destination rests; its events wait"
        );
    }
}

/// Evenly spaced starts; time that nobody used is not saved up.
fn next_slot(last: Timestamp, destination: &Destination, now: Timestamp) -> Timestamp {
    let Some(per_second) = destination.limit.per_second else { return now };
    let gap = SignedDuration::try_from_secs_f64(1.0 / per_second).unwrap_or(SignedDuration::ZERO);
    last.max(now).saturating_add(gap).unwrap_or(now)
}

// === following: new rules, or none ===

impl Worker {
    /// Takes over the newest generation. What is in flight ends under the old one; everything else is looked at again.
    async fn adopt(&mut self) {
        let newest = self.generations.borrow_and_update().clone();
        let now = self.clock.now();
        self.take_back();
        self.current =
            newest.map(|generation| Current { packer: Packer::new(Arc::clone(&generation.destination)), generation });
        self.health.reset();
        self.is_caught_up = false;
        self.learn_order(now).await;
        let mut settlements = Vec::new();
        // What is held from here on waits for its turn.
        let offsets: Vec<Offset> = self.held.keys().copied().collect();
        let mut parked = std::mem::take(&mut self.parked);
        parked.sort_by_key(|delivery| delivery.entry.offset);
        for delivery in parked {
            self.consider(delivery, now, &mut settlements);
        }
        for offset in offsets {
            self.go_on(offset, now, &mut settlements);
        }
        self.settle(settlements, now).await;
    }

    /// Takes back every item that has not been sent.
    fn take_back(&mut self) {
        let open = self.current.as_mut().map_or_else(Vec::new, |current| current.packer.flush());
        let mut unsent: BTreeMap<Offset, usize> = BTreeMap::new();
        for (_, offset) in open.into_iter().chain(self.ready.drain(..)).flat_map(|batch| batch.items) {
            *unsent.entry(offset).or_default() += 1;
        }
        for (offset, progress) in &mut self.held {
            progress.take_back(unsent.get(offset).copied().unwrap_or(0));
        }
    }
}

// === impl Destination ===

impl Destination {
    /// Events worth holding: enough for every connection to have a full batch and one more to be packed.
    fn held_events_max(&self) -> usize {
        let batch = self.rules.iter().filter_map(|rule| rule.batch.as_ref()).map(|batch| batch.events_max).max();
        batch.unwrap_or(1).saturating_mul(self.limit.concurrency + 1).max(HELD_EVENTS_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::Tally;
    use crate::queue::memory::Memory;

    #[tokio::test]
    async fn a_worker_that_is_started_again_counts_on() {
        let tally = Tally { requests: 3, delivered: 7, ..Tally::default() };
        let (statuses, status) = watch::channel(Status { tally, ..Status::default() });
        let (_generation, generations) = watch::channel(None);
        let worker = Worker::new(
            "a".into(),
            Arc::new(Memory::new(1, crate::queue::dedup::Dedup::default())),
            Clock::system(),
            generations,
            statuses,
        );
        worker.tally(Some(Duration::from_secs(1)), 2, [Outcome::Delivered, Outcome::Dropped].iter());
        worker.publish();
        let expected =
            Tally { requests: 4, request_time: Duration::from_secs(1), delivered: 8, dropped: 1, split: 2, ..tally };
        assert_eq!(status.borrow().tally, expected);
    }
}
