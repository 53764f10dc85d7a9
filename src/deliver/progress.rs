//! What a worker knows of an event it holds: the items still to come, those that are out, and how they went.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;

use crate::attempt::{Attempts, Failure, ItemKey, Outcome, Trace, Verdict};
use crate::event::Event;
use crate::plan::{Destination, Item};
use crate::queue::{Delivery, Entry, Offset, Settlement};
use crate::retry::{self, RetryPolicy};

/// An event on its way through one destination's rules.
///
/// Items that may share a request travel together; others go one after another, in the order of the rules. A refused
/// item does not hold back the next one; a failed item does.
///
/// It keeps the event as it is stored: opened events are large, and those that wait for a reply would push what is being
/// worked on out of the processor's caches.
pub struct Progress {
    offset: Offset,
    event: Event,
    attempts: Attempts,
    steps: VecDeque<Vec<Item>>,
    outstanding: usize,
    failed: Option<Box<Failed>>,
    is_dropped: bool,
    is_stale: bool,
}

/// A request that items went with.
#[derive(Clone)]
pub struct Carrier {
    /// Whose rules made it.
    pub destination: Arc<Destination>,
    /// How many items it carried; `None`: it could not be sent at all.
    pub items: Option<usize>,
}

/// An item that is worth another try, and what it went with.
struct Failed {
    outcome: Outcome,
    item: Item,
    carrier: Carrier,
}

/// What a held event needs next.
pub enum Next {
    /// Its items are out.
    Wait,
    /// These items go next.
    Send(Vec<Item>),
    /// It is over for now.
    Settle(Settlement),
    /// The rules have changed under it: look at it again.
    Reconsider(Delivery),
}

// === impl Progress ===

impl Progress {
    /// An event with the items its rules made, less those that an earlier try settled.
    #[must_use]
    pub fn new(delivery: Delivery, items: Vec<Item>) -> Self {
        let Delivery { entry, attempts } = delivery;
        let steps = into_steps(items.into_iter().filter(|item| !attempts.has_settled(item.key)));
        let (offset, event) = (entry.offset, entry.event.clone());
        Self { offset, event, attempts, steps, outstanding: 0, failed: None, is_dropped: false, is_stale: false }
    }

    /// Bytes of its event.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.event.json.len()
    }

    /// Whether any of its items is out.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.outstanding > 0
    }

    /// Takes note of how one of its items went.
    pub fn note(&mut self, item: Item, outcome: Outcome, carrier: &Carrier) {
        self.outstanding = self.outstanding.saturating_sub(1);
        match outcome {
            Outcome::Delivered => self.attempts.done.push(item.key),
            Outcome::Dropped => {
                self.attempts.done.push(item.key);
                self.is_dropped = true;
            }
            Outcome::Refused(failure) | Outcome::Split(failure) => {
                // The first one decides; the others need not be told of.
                let trace = self.attempts.refused.is_empty().then(|| carrier.trace(&item));
                self.attempts.refused.push((item.key, Failure { trace, ..failure }));
            }
            Outcome::Failed(_) | Outcome::Held(_) | Outcome::Unauthorized(_) => {
                self.note_failed(Failed { outcome, item, carrier: carrier.clone() });
            }
        }
    }

    /// Of several failures, bad credentials count, else the first.
    fn note_failed(&mut self, failed: Failed) {
        let is_worse = matches!(failed.outcome, Outcome::Unauthorized(_));
        if is_worse || self.failed.is_none() {
            self.failed = Some(Box::new(failed));
        }
    }

    /// Takes back items that were to go out and did not, because the rules changed. An event whose last items are out
    /// ends under the rules it began with.
    pub fn take_back(&mut self, unsent: usize) {
        if unsent == 0 && self.steps.is_empty() {
            return;
        }
        self.outstanding = self.outstanding.saturating_sub(unsent);
        self.steps.clear();
        self.is_stale = true;
    }

    /// What it needs next.
    pub fn next(&mut self, policy: &RetryPolicy, now: Timestamp, jitter: f64) -> Next {
        if self.outstanding > 0 {
            return Next::Wait;
        }
        if let Some(failed) = self.failed.take() {
            return Next::Settle(self.try_again(&failed, policy, now, jitter));
        }
        if self.is_stale {
            return Next::Reconsider(self.delivery());
        }
        if let Some(items) = self.steps.pop_front() {
            self.outstanding = items.len();
            self.attempts.first_at.get_or_insert(now);
            return Next::Send(items);
        }
        let verdict = self.final_verdict();
        Next::Settle(self.settle(verdict))
    }

    /// It goes back to the queue untried.
    #[must_use]
    pub fn hold_back(&self, until: Timestamp) -> Settlement {
        self.settle(Verdict::HeldBack(until))
    }

    fn try_again(&mut self, failed: &Failed, policy: &RetryPolicy, now: Timestamp, jitter: f64) -> Settlement {
        let attempts = &mut self.attempts;
        attempts.count += 1;
        let mut verdict = retry::decide(&failed.outcome, attempts, policy, now, jitter);
        if let Verdict::Dead(failure) = &mut verdict {
            failure.trace = Some(failed.carrier.trace(&failed.item));
        }
        if matches!(failed.outcome, Outcome::Unauthorized(_)) {
            // Its patience begins anew when we are let in.
            (attempts.count, attempts.first_at) = (0, None);
        }
        self.settle(verdict)
    }

    fn final_verdict(&mut self) -> Verdict {
        let attempts = &mut self.attempts;
        attempts.count += 1;
        let refused: Option<&(ItemKey, Failure)> = attempts.refused.first();
        match (refused, self.is_dropped) {
            (Some((_, failure)), _) => Verdict::Dead(failure.clone()),
            (None, true) => Verdict::Dropped,
            (None, false) => Verdict::Delivered,
        }
    }

    fn settle(&self, verdict: Verdict) -> Settlement {
        Settlement { offset: self.offset, verdict, attempts: self.attempts.clone() }
    }

    /// The event as it would be read again.
    fn delivery(&self) -> Delivery {
        Delivery { entry: Arc::new(self.entry()), attempts: self.attempts.clone() }
    }

    /// The event at its place.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Entry::new(self.offset, self.event.clone(), None)
    }
}

// === impl Carrier ===

impl Carrier {
    /// What a dead letter is to tell of an item.
    fn trace(&self, item: &Item) -> Box<Trace> {
        Box::new(match self.items {
            Some(items) => self.destination.trace_item(item, items),
            None => self.destination.trace(self.destination.rules[item.rule].place.clone()),
        })
    }
}

/// Neighbours of one address travel together if their rule batches; every other item is a step of its own.
fn into_steps(items: impl Iterator<Item = Item>) -> VecDeque<Vec<Item>> {
    let mut steps: VecDeque<Vec<Item>> = VecDeque::new();
    for item in items {
        let shares = |step: &&mut Vec<Item>| step.last().is_some_and(|last| item.shares_request_with(last));
        match steps.back_mut().filter(shares) {
            Some(step) => step.push(item),
            None => steps.push_back(vec![item]),
        }
    }
    steps
}
