//! Rehearsals: the walk of some events through one destination's rules, without queue, sockets or time.
//!
//! What `libroseg test`, `explain` and `diff` show is what a worker does: the same reading, rules, packing, judging and
//! verdicts, driven by a script of answers and a clock that jumps to whatever comes next. A wait is always the longest that
//! the dice allow. Nothing here is sent, stored or awaited, and nothing reads a variable or a file.

pub mod change;
pub mod compare;
pub mod report;
pub mod shown;
mod stage;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use crate::event::{Event, MessageId, SourceName};
use crate::plan::case::{Fate, Script};
use crate::plan::{Destination, Request};
use crate::segment::{Arrival, Call, Discard, Envelope, Inspect, Limits, Reading, Rejection};

pub use report::{Report, run};

/// What a destination did with some events.
#[derive(Debug, Default)]
pub struct Performance {
    /// The requests, in the order in which they were made.
    pub requests: Vec<Made>,
    /// What became of each event, in the order in which they were given.
    pub ends: Vec<End>,
}

/// A request that was made.
#[derive(Debug)]
pub struct Made {
    /// When, on the clock of the rehearsal.
    pub at: Timestamp,
    /// The request.
    pub request: Request,
    /// The places of the events it carried, each once, in order.
    pub events: Vec<usize>,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// The word for it.
    pub fate: Fate,
    /// Why, where there is something to say: the place in the file, the answer.
    pub detail: String,
}

/// Why messages cannot be rehearsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// All of them were turned away.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Some would be discarded after a `200`.
    #[error("this event would be discarded at the door ({}): {}", .0.code.as_str(), .0.detail)]
    Discarded(Discard),
}

// === impl Unread ===

impl Unread {
    /// Which message is at fault.
    #[must_use]
    pub fn index(&self) -> usize {
        match self {
            Self::Rejected(_) => 0,
            Self::Discarded(discard) => discard.index,
        }
    }
}

/// Reads messages as the door does, all at one time, under the tracking plans that speak there. Messages without an id get `test-0`, `test-1` and so on.
///
/// # Errors
/// When one of them would not be accepted.
pub fn read(
    messages: &[Json],
    source: &SourceName,
    plans: Option<&dyn Inspect>,
    now: Timestamp,
) -> Result<Vec<Event>, Unread> {
    let body = json!({ "batch": messages }).to_string();
    let limits = Limits { batch_bytes_max: usize::MAX, batch_events_max: usize::MAX, ..Limits::default() };
    let made = std::cell::Cell::new(0);
    let new_id = || MessageId::from(format!("test-{}", made.replace(made.get() + 1)));
    let arrival =
        Arrival { source, received_at: now, ip: None, user_agent: None, limits: &limits, plans, new_id: &new_id };
    let Reading { events, discards } = Envelope::parse(body.as_bytes(), Call::Batch, &limits)?.read(&arrival);
    match discards.into_iter().next() {
        Some(discard) => Err(Unread::Discarded(discard)),
        None => Ok(events),
    }
}

/// Lets events go through a destination's rules, with a script for what it answers.
#[must_use]
pub fn rehearse(destination: &Arc<Destination>, events: &[Event], script: &Script, now: Timestamp) -> Performance {
    stage::Stage::new(destination, events, script, now).play()
}
