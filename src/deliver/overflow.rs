//! When the process must end and its queue forgets: what a destination could not be given goes to the one that its
//! `overflow` names.
//!
//! An event counts as handed over when that other destination has it; until then it is owed by the first one, whose books
//! are the only ones that speak of it. Nothing here decides when the process ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Fleet, Generation, Status, Stop, Worker, items_of};
use crate::attempt::{DestinationName, Start, Verdict};
use crate::event::{Event, MessageId};
use crate::plan::{Destination, Plan};
use crate::queue::dedup::Dedup;
use crate::queue::memory::Memory;
use crate::queue::{Attachment, Delivery, Entry, Mode, Offset, Queue, ReadLimit, Settlement};
use crate::segment::with_context;

/// The member of `context` that says whose event was handed over.
const OVERFLOW: &str = "overflow";

/// So much is handed over at a time: what is on its way when time is up may have to be told as lost although it arrived.
const PIECE: ReadLimit = ReadLimit { events_max: 1000, bytes_max: 8 << 20, waiting_max: usize::MAX };

/// A destination that fails is left alone for so long at least before it is tried again.
const PAUSE: SignedDuration = SignedDuration::from_millis(500);

/// Lost events whose ids are told, per destination; of all others only their number.
const LOST_TOLD_MAX: usize = 1000;

/// Ids in one line of the log.
const IDS_PER_LINE: usize = 50;

/// Deliveries leave this much of their time to `overflow`, where there is one.
pub const OVERFLOW_SHARE: u32 = 3;

// === impl Fleet ===

impl Fleet {
    /// Hands what destinations with an `overflow` still owe in a queue to those destinations, within a time. What these cannot be
    /// given either goes on to their own `overflow`, and is still owed when there is none.
    ///
    /// The workers of the destinations that owe must have ended ([`Fleet::abandon`]): what they had in hand is taken.
    pub async fn relieve(&self, queue: &Arc<dyn Queue>, plan: &Plan, time: Duration) {
        let owing = plan.destinations.iter().filter(|destination| owes(queue, &destination.name));
        join_all(owing.map(|from| async move { self.relieve_one(queue, from, &chain(plan, from), time).await })).await;
    }

    /// Tells of every event that is still owed in a queue, by its id: the queue forgets them.
    pub async fn tell_lost(&self, queue: &Arc<dyn Queue>, plan: &Plan) {
        for destination in &plan.destinations {
            let name = &destination.name;
            let owed = queue.books(name).map_or(0, |books| books.waiting());
            if owed == 0 {
                continue;
            }
            tracing::error!(destination.name = %name, events = owed, "undelivered events are lost");
            queue.release(name);
            let limit = ReadLimit { events_max: LOST_TOLD_MAX, bytes_max: usize::MAX, waiting_max: usize::MAX };
            for lost in queue.read(name, limit, Timestamp::MAX).await.chunks(IDS_PER_LINE) {
                let ids: Vec<&str> = lost.iter().map(|delivery| delivery.entry.event.message_id.as_str()).collect();
                tracing::error!(destination.name = %name, ids = ids.join(" "), "lost");
            }
            queue.release(name);
        }
    }

    /// Tells of every event in a queue that is a dead letter, by its id: the queue forgets them.
    pub(super) async fn tell_given_up(&self, queue: &Arc<dyn Queue>, plan: &Plan) {
        for destination in &plan.destinations {
            let name = &destination.name;
            let letters = queue.dead_letters(name, None, LOST_TOLD_MAX).await.unwrap_or_default();
            for letters in letters.chunks(IDS_PER_LINE) {
                let ids: Vec<&str> = letters.iter().map(|(_, letter)| letter.event.message_id.as_str()).collect();
                tracing::error!(destination.name = %name, ids = ids.join(" "), "given up on; no dead letters are kept here");
            }
        }
    }

    async fn relieve_one(
        &self,
        queue: &Arc<dyn Queue>,
        from: &Destination,
        chain: &[Arc<Destination>],
        time: Duration,
    ) {
        let end = Instant::now() + time;
        for (index, to) in chain.iter().enumerate() {
            let others = u32::try_from(chain.len() - index - 1).unwrap_or(u32::MAX);
            let share = end.saturating_duration_since(Instant::now()) / others.saturating_add(1);
            let handed = self.hand_over(queue, from, to, Instant::now() + share).await;
            if handed > 0 {
                tracing::warn!(
                    destination.name = %from.name, overflow = %to.name, events = handed,
                    "undelivered events were handed over"
                );
            }
        }
    }

    /// Hands what one destination owes to another, piece by piece. Answers how many events that one has taken.
    async fn hand_over(
        &self,
        queue: &Arc<dyn Queue>,
        from: &Destination,
        to: &Arc<Destination>,
        end: Instant,
    ) -> usize {
        let mut handed = 0;
        queue.release(&from.name);
        while Instant::now() < end {
            let deliveries = queue.read(&from.name, PIECE, Timestamp::MAX).await;
            if deliveries.is_empty() {
                break;
            }
            let taken = self.give(from, to, deliveries, end).await;
            handed += taken.len();
            queue.settle(&from.name, taken.into_iter().map(gone).collect(), self.clock.now()).await;
        }
        queue.release(&from.name);
        handed
    }

    /// Has another destination deliver some events, out of a queue of their own. Answers those that it has taken.
    async fn give(
        &self,
        from: &Destination,
        to: &Arc<Destination>,
        deliveries: Vec<Delivery>,
        end: Instant,
    ) -> Vec<Delivery> {
        let now = self.clock.now();
        let mark = serde_json::Value::from(from.name.as_str()).to_string();
        let marked = |delivery: &Delivery| with_context(delivery.entry.event.clone(), OVERFLOW, &mark);
        let wants = |event: &Event| {
            let entry = Entry::new(Offset::default(), event.clone(), None);
            !matches!(items_of(to, &entry, now), Ok(None))
        };
        let (deliveries, events): (Vec<_>, Vec<_>) = deliveries
            .into_iter()
            .map(|delivery| (marked(&delivery), delivery))
            .filter(|(event, _)| wants(event))
            .map(|(event, delivery)| (delivery, event))
            .unzip();
        let queue: Arc<dyn Queue> = Arc::new(Memory::new(u64::MAX, Dedup::default()));
        let place = Attachment { name: to.name.clone(), start: Start::Newest, mode: Mode::Active };
        if queue.attach(&[place], now).await.is_err() || queue.put_back(&to.name, events).await.is_err() {
            return Vec::new();
        }
        let _ = tokio::time::timeout_at(end, self.empty(&queue, &to.name)).await;
        let refused = refused(&queue, &to.name).await;
        let (unsettled, cursor) = (queue.unsettled(&to.name), queue.books(&to.name).map_or(0, |books| books.cursor.0));
        let is_taken = |(offset, delivery): &(u64, Delivery)| {
            let is_settled = *offset < cursor && !unsettled.contains(&Offset(*offset));
            is_settled && !refused.contains(&delivery.entry.event.message_id)
        };
        (0..).zip(deliveries).filter(is_taken).map(|(_, delivery)| delivery).collect()
    }

    /// Runs a destination's worker on a queue until nothing in it waits any more.
    pub(super) async fn empty(&self, queue: &Arc<dyn Queue>, name: &DestinationName) {
        let Some(generation) = self.generation(name) else { return };
        while owes(queue, name) {
            let (_sender, generations) = watch::channel(Some(generation.clone()));
            let (statuses, status) = watch::channel(Status::default());
            let stop = Stop::default();
            stop.drain.cancel();
            Worker::new(name.clone(), Arc::clone(queue), self.clock.clone(), generations, statuses).run(stop).await;
            self.absorb(name, &status.borrow());
            queue.release(name);
            let Some(due) = queue.next_due(name) else { continue };
            self.clock.sleep_until(due.max(self.clock.now() + PAUSE)).await;
        }
    }

    fn generation(&self, name: &DestinationName) -> Option<Generation> {
        self.workers().get(name)?.generation.borrow().clone()
    }

    /// Counts what was done on another's behalf as what it is: requests of this destination.
    fn absorb(&self, name: &DestinationName, done: &Status) {
        if let Some(handle) = self.workers().get(name) {
            handle.status.send_modify(|status| status.tally.absorb(&done.tally));
        }
    }
}

/// Whether anything of a destination waits in a queue.
pub(super) fn owes(queue: &Arc<dyn Queue>, name: &DestinationName) -> bool {
    queue.books(name).is_some_and(|books| books.waiting() > 0)
}

/// The destinations that one's events go to, one after the other.
fn chain(plan: &Plan, from: &Destination) -> Vec<Arc<Destination>> {
    let next = |destination: &Destination| plan.destination(destination.overflow.as_ref()?).cloned();
    // `config` rejects circles.
    std::iter::successors(next(from), |to| next(to)).take(plan.destinations.len()).collect()
}

/// The ids of what a destination refused for good.
async fn refused(queue: &Arc<dyn Queue>, name: &DestinationName) -> BTreeSet<MessageId> {
    let letters = queue.dead_letters(name, None, usize::MAX).await.unwrap_or_default();
    letters.into_iter().map(|(_, letter)| letter.event.message_id).collect()
}

fn gone(delivery: Delivery) -> Settlement {
    Settlement { offset: delivery.entry.offset, verdict: Verdict::Dropped, attempts: delivery.attempts }
}
