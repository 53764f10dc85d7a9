//! What a worker knows of an event it holds: the items still to come, those that are out, and how they went.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;

use crate::attempt::{Attempts, Failure, ItemKey, Outcome, Verdict};
use crate::event::Event;
use crate::plan::Item;
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
    failed: Option<Outcome>,
    is_dropped: bool,
    is_stale: bool,
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
    pub fn new(delivery: Delivery, items: Vec<Item>, now: Timestamp) -> Self {
        let Delivery { entry, mut attempts } = delivery;
        attempts.first_at.get_or_insert(now);
        let steps = into_steps(items.into_iter().filter(|item| !attempts.has_settled(item.key)));
        let (offset, event) = (entry.offset, entry.event.clone());
        Self { offset, event, attempts, steps, outstanding: 0, failed: None, is_dropped: false, is_stale: false }
    }

    /// Bytes of its event.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.event.json.len()
    }

    /// Takes note of how one of its items went.
    pub fn note(&mut self, key: ItemKey, outcome: Outcome) {
        self.outstanding = self.outstanding.saturating_sub(1);
        match outcome {
            Outcome::Delivered => self.attempts.done.push(key),
            Outcome::Dropped => {
                self.attempts.done.push(key);
                self.is_dropped = true;
            }
            Outcome::Refused(failure) | Outcome::Split(failure) => {
                self.attempts.refused.push((key, failure));
            }
            Outcome::Failed(_) | Outcome::Unauthorized(_) => self.note_failed(outcome),
        }
    }

    /// Of several failures, bad credentials count, else the first.
    fn note_failed(&mut self, outcome: Outcome) {
        let is_worse = matches!(outcome, Outcome::Unauthorized(_));
        if is_worse || self.failed.is_none() {
            self.failed = Some(outcome);
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
        if let Some(outcome) = self.failed.take() {
            return Next::Settle(self.try_again(&outcome, policy, now, jitter));
        }
        if self.is_stale {
            return Next::Reconsider(self.delivery());
        }
        if let Some(items) = self.steps.pop_front() {
            self.outstanding = items.len();
            return Next::Send(items);
        }
        let verdict = self.final_verdict();
        Next::Settle(self.settle(verdict))
    }

    fn try_again(&mut self, outcome: &Outcome, policy: &RetryPolicy, now: Timestamp, jitter: f64) -> Settlement {
        let attempts = &mut self.attempts;
        attempts.count += 1;
        let verdict = retry::decide(outcome, attempts, policy, now, jitter);
        if matches!(outcome, Outcome::Unauthorized(_)) {
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
        let entry = Arc::new(Entry::new(self.offset, self.event.clone()));
        Delivery { entry, attempts: self.attempts.clone() }
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
