//! The events of one request, delivered apart from all others and within a time: where nothing outlives a request (a
//! Vercel Function), and where the sender is to hear first what became of them (`ack = "delivered"`).
//!
//! An errand has a queue and workers of its own, and is over when nothing in it waits any more or its time is up. Rules,
//! connections, credentials and counters are the fleet's. Nothing here knows what a sender is told.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::overflow::{OVERFLOW_SHARE, owes};
use super::{Fleet, attachments};
use crate::attempt::{DestinationName, Verdict};
use crate::clock::Clock;
use crate::event::Event;
use crate::plan::Plan;
use crate::queue::dedup::{Dedup, Print};
use crate::queue::memory::Memory;
use crate::queue::{AppendError, Offset, Queue, ReadLimit, Settlement};

/// All errands of a process, and what is known of the events they had.
pub struct Errands {
    fleet: Arc<Fleet>,
    clock: Clock,
    size_bytes_max: u64,
    known: Mutex<Known>,
    /// Cancelled when the process must end soon.
    hurry: CancellationToken,
    /// Those that go on.
    pub tasks: TaskTracker,
}

/// What is known of events, so that one that comes again is not sent again to who has it.
struct Known {
    /// Events that every destination has.
    done: Dedup,
    /// Events that some destinations have: of a request that did not get through to all.
    in_part: Dedup,
    /// Events of errands that are not over, by their prints; the receiver hears when they are.
    under_way: HashMap<Print, watch::Receiver<()>>,
    /// Bytes of them.
    size_bytes: u64,
}

/// Events taken on, before they are delivered. What is dropped undelivered is as if it had never come.
pub struct Errand {
    errands: Arc<Errands>,
    events: Vec<Event>,
    /// Dropped when they are over.
    _over: watch::Sender<()>,
    /// Events that others have under way.
    others: Vec<(Event, watch::Receiver<()>)>,
}

/// Until when an errand may take, and who is to be told of what remains.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Then it is over, whatever remains.
    pub until: Instant,
    /// Whether the sender does not know of what remains, so that it is lost.
    pub is_promised: bool,
}

/// Everything of a read.
const ALL: ReadLimit = ReadLimit { events_max: usize::MAX, bytes_max: usize::MAX, waiting_max: usize::MAX };

/// Of an errand's time no more than this is for `overflow`.
const OVERFLOW_MAX: Duration = Duration::from_secs(30);

/// A process that is told to end has some 500 ms left on Vercel
/// (<https://vercel.com/docs/functions/functions-api-reference#sigterm-signal>, read 2026-11-26): where there is an
/// `overflow`, deliveries get so much of it.
const HURRY: Duration = Duration::from_millis(200);

// === impl Errands ===

impl Errands {
    /// No errands yet; all together hold so many bytes of event text at most.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>, clock: Clock, size_bytes_max: u64, dedup: impl Fn() -> Dedup) -> Arc<Self> {
        let known = Known { done: dedup(), in_part: dedup(), under_way: HashMap::new(), size_bytes: 0 };
        Arc::new(Self {
            fleet,
            clock,
            size_bytes_max,
            known: Mutex::new(known),
            hurry: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Takes events on, but for those that every destination is known to have.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn take_on(self: &Arc<Self>, events: Vec<Event>) -> Result<Errand, AppendError> {
        let mut known = self.known();
        let size_bytes = size_of(&events);
        if known.size_bytes + size_bytes > self.size_bytes_max {
            return Err(AppendError::Full { size_bytes: known.size_bytes, size_bytes_max: self.size_bytes_max });
        }
        let (over, is_over) = watch::channel(());
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for event in events {
            let print = known.done.print(&event);
            if known.done.has_seen(print) {
                continue;
            }
            if let Some(other) = known.under_way.get(&print) {
                others.push((event, other.clone()));
            } else {
                known.under_way.insert(print, is_over.clone());
                own.push(event);
            }
        }
        known.size_bytes += size_of(&own);
        Ok(Errand { errands: Arc::clone(self), events: own, _over: over, others })
    }

    /// Says that the process must end soon: where there is an `overflow`, errands hand over what they have left.
    pub fn hurry(&self) {
        self.hurry.cancel();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // It is valid between any two statements that can panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Errand ===

impl Errand {
    /// Whether nothing is left to do: every destination has them.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.events.is_empty() && self.others.is_empty()
    }

    /// Leaves out what other errands have under way: somebody answers for it already.
    #[must_use]
    pub fn without_others(mut self) -> Self {
        self.others.clear();
        self
    }

    /// Delivers the events, and waits for those that others have under way. Answers whether every destination has all
    /// of them, or has no use for them, or has refused them for good.
    pub async fn run(mut self, plan: &Plan, bounds: Bounds) -> bool {
        let errands = Arc::clone(&self.errands);
        loop {
            let is_delivered = self.deliver(plan, bounds).await;
            let others = std::mem::take(&mut self.others);
            // Others may wait for these.
            drop(self);
            if !is_delivered || others.is_empty() {
                return is_delivered;
            }
            let (events, overs): (Vec<_>, Vec<_>) = others.into_iter().unzip();
            for mut over in overs {
                // An error is what it waits for: the sender is gone.
                if let Ok(Ok(())) | Err(_) = timeout_at(bounds.until, over.changed()).await {
                    return false;
                }
            }
            match errands.take_on(events) {
                Ok(again) if again.is_done() => return true,
                Ok(again) => self = again,
                Err(_) => return false,
            }
        }
    }

    /// Delivers its own events. Answers whether nothing of them waits any more.
    async fn deliver(&self, plan: &Plan, bounds: Bounds) -> bool {
        if self.events.is_empty() {
            return true;
        }
        let (fleet, now) = (&self.errands.fleet, self.errands.clock.now());
        let queue: Arc<dyn Queue> = Arc::new(Memory::new(u64::MAX, Dedup::default()));
        let is_ready = queue.attach(&attachments(plan), now).await.is_ok();
        if !is_ready || queue.append(self.events.clone()).await.is_err() {
            return false;
        }
        let delivered_before = self.leave_out_known(&queue, plan, now).await;
        self.empty(&queue, plan, bounds).await;
        fleet.tell_given_up(&queue, plan).await;
        let is_done = !plan.destinations.iter().any(|destination| owes(&queue, &destination.name));
        if !is_done && bounds.is_promised {
            fleet.tell_lost(&queue, plan).await;
        }
        self.note(&queue, plan, is_done, now);
        fleet.note_errand(&queue, plan, &delivered_before);
        is_done
    }

    /// Runs every destination until nothing waits, or the time is up; what remains then goes to `overflow`.
    async fn empty(&self, queue: &Arc<dyn Queue>, plan: &Plan, bounds: Bounds) {
        let (fleet, hurry) = (&self.errands.fleet, &self.errands.hurry);
        let has_overflow = plan.has_overflow();
        let left = bounds.until.saturating_duration_since(Instant::now());
        let for_overflow = if has_overflow { (left / OVERFLOW_SHARE).min(OVERFLOW_MAX) } else { Duration::ZERO };
        let hurried = async {
            hurry.cancelled().await;
            if bounds.is_promised {
                self.tell_at_risk(queue, plan);
            }
            if has_overflow { tokio::time::sleep(HURRY).await } else { std::future::pending().await }
        };
        let all = join_all(plan.destinations.iter().map(|destination| async {
            let name = &destination.name;
            // A bug in one must not lose what others are given, nor go untold.
            if AssertUnwindSafe(fleet.empty(queue, name)).catch_unwind().await.is_err() {
                tracing::error!(destination.name = %name, "the worker panicked; this is a bug");
            }
        }));
        tokio::select! {
            _ = timeout_at(bounds.until.checked_sub(for_overflow).unwrap_or(bounds.until), all) => {}
            () = hurried => {}
        }
        for destination in &plan.destinations {
            queue.release(&destination.name);
        }
        fleet.relieve(queue, plan, bounds.until.saturating_duration_since(Instant::now())).await;
    }

    /// Settles what a destination is known to have. Answers how many events that were, by destination.
    async fn leave_out_known(
        &self,
        queue: &Arc<dyn Queue>,
        plan: &Plan,
        now: Timestamp,
    ) -> HashMap<DestinationName, u64> {
        let mut left_out = HashMap::new();
        if self.errands.known().in_part.is_empty() {
            return left_out;
        }
        for destination in &plan.destinations {
            let name = &destination.name;
            let deliveries = queue.read(name, ALL, now).await;
            let settled: Vec<Settlement> = {
                let known = self.errands.known();
                let has = |event: &Event| known.in_part.has_seen(known.in_part.print_at(event, name.as_str()));
                let known = deliveries.into_iter().filter(|delivery| has(&delivery.entry.event));
                known
                    .map(|delivery| Settlement {
                        offset: delivery.entry.offset,
                        verdict: Verdict::Dropped,
                        attempts: delivery.attempts,
                    })
                    .collect()
            };
            left_out.insert(name.clone(), settled.len() as u64);
            queue.settle(name, settled, now).await;
            queue.release(name);
        }
        left_out
    }

    /// Remembers who has what.
    fn note(&self, queue: &Arc<dyn Queue>, plan: &Plan, is_done: bool, now: Timestamp) {
        if is_done {
            let mut known = self.errands.known();
            for event in &self.events {
                let print = known.done.print(event);
                known.done.remember(print, now);
            }
            return;
        }
        let waiting: Vec<_> = plan.destinations.iter().map(|d| (&d.name, self.undelivered(queue, &d.name))).collect();
        let mut known = self.errands.known();
        for (name, undelivered) in waiting {
            for (_, event) in self.events.iter().enumerate().filter(|(index, _)| !undelivered.contains(index)) {
                let print = known.in_part.print_at(event, name.as_str());
                known.in_part.remember(print, now);
            }
        }
    }

    /// Which of its events wait for a destination.
    fn undelivered(&self, queue: &Arc<dyn Queue>, name: &DestinationName) -> BTreeSet<usize> {
        let Some(books) = queue.books(name) else { return BTreeSet::new() };
        let unsettled = queue.unsettled(name);
        let waits = |offset: &u64| *offset >= books.cursor.0 || unsettled.contains(&Offset(*offset));
        (0..).zip(0..self.events.len()).filter(|(offset, _)| waits(offset)).map(|(_, index)| index).collect()
    }

    /// Tells what may be lost: whoever ends the process need not wait.
    fn tell_at_risk(&self, queue: &Arc<dyn Queue>, plan: &Plan) {
        for destination in &plan.destinations {
            let undelivered = self.undelivered(queue, &destination.name);
            let ids: Vec<&str> = undelivered.iter().map(|index| self.events[*index].message_id.as_str()).collect();
            if !ids.is_empty() {
                tracing::warn!(
                    destination.name = %destination.name, ids = ids.join(" "),
                    "the process is told to end and these are not delivered yet"
                );
            }
        }
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        let mut known = self.errands.known();
        for event in &self.events {
            let print = known.done.print(event);
            known.under_way.remove(&print);
        }
        known.size_bytes -= size_of(&self.events);
    }
}

fn size_of(events: &[Event]) -> u64 {
    events.iter().map(|event| event.json.len() as u64).sum()
}
