//! One try at delivering an event: what came back, and what we do next.
//!
//! Plain data, shared by the rules that judge, the queue that remembers and the loop that delivers.

use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::event::{Event, name};

/// A place events go, by the name it has in `libroseg.toml`. Its place in the queue belongs to this name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationName(Arc<str>);

name!(DestinationName);

/// What came back for one item of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The destination has it.
    Delivered,
    /// A response rule said to forget it: counted, not kept.
    Dropped,
    /// Worth another try.
    Failed(Failure),
    /// What it is for is not ready yet (a table that was just made): it waits, and the try does not count.
    Held(Failure),
    /// The request as a whole was too large, or refused without a word on which item was bad: its halves are sent on
    /// their own. One item alone is refused.
    Split(Failure),
    /// The destination does not know us (bad credentials): it rests, its events wait.
    Unauthorized(Failure),
    /// No try will ever succeed.
    Refused(Failure),
}

/// Why an attempt did not deliver: enough to find the fault, never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of fault, for counting.
    pub reason: Reason,
    /// What a person needs to know: a reply's first 4 KiB, an error's text, the place in the TOML.
    pub detail: String,
    /// How long the destination asked us to wait.
    pub retry_after: Option<SignedDuration>,
    /// What a dead letter tells besides; gathered only for failures that end an event's tries.
    pub trace: Option<Box<Trace>>,
}

/// Where a failure that ended an event's tries came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The rule's place in the file, within the destination: `rules[0]`; `None` for a destination that is its own rule.
    pub rule: Option<String>,
    /// The fingerprint of the destination's configuration in force.
    pub config: u64,
    /// What was sent, if anything was.
    pub request: Option<SentRequest>,
}

/// A request as a person may see it: credentials and secrets are masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentRequest {
    /// The method, in uppercase; empty for destinations that are not HTTP.
    pub method: String,
    /// The whole URL; empty for destinations that are not HTTP.
    pub url: String,
    /// Names in lowercase.
    pub headers: Vec<(String, String)>,
    /// What this event put into it: its own item, up to 4 KiB.
    pub body: Option<String>,
    /// How many items shared the request.
    pub items: usize,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The reply had this HTTP status.
    Status(u16),
    /// What the reply says decided: a `response` rule of the destination, or the service's word on this item.
    Response,
    /// No reply in time.
    Timeout,
    /// No connection, or one that broke.
    Connection,
    /// A file could not be written.
    Io,
    /// A filter or a mapping failed on this event.
    Mapping,
    /// A tracking plan finds something wrong with this event.
    Plan,
    /// The stored text is damaged.
    Unreadable,
}

/// What becomes of an event for one destination once an attempt is over.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every request the rules asked for was made.
    Delivered,
    /// The rules asked for none.
    Filtered,
    /// A response rule said to forget it.
    Dropped,
    /// Try again no earlier than this (server clock, UTC).
    RetryAt(Timestamp, Failure),
    /// Not tried: an earlier event of its key (`order_by`) is not done. Look at it again no earlier than this.
    HeldBack(Timestamp),
    /// Given up on: kept in the dead letters with the reason and its last attempt.
    Dead(Failure),
}

/// Where a destination that is new in the file begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With events accepted from then on.
    #[default]
    Newest,
    /// With the oldest event that the queue still has.
    Oldest,
}

/// Names one request's worth of an event across retries and reloads, so that what was delivered is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ItemKey {
    /// The rule that made it, as a hash of the rule's own text: a changed rule is another rule.
    pub rule: u64,
    /// Its place in the rule's `each`; 0 without one.
    pub index: u32,
}

/// The tries an event has had at one destination.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attempts {
    /// How many are over.
    pub count: u32,
    /// When the first one began.
    pub first_at: Option<Timestamp>,
    /// The items that were delivered, and are not sent again.
    pub done: Vec<ItemKey>,
    /// The items that were refused while others are still tried; in the end they decide.
    pub refused: Vec<(ItemKey, Failure)>,
}

/// An event given up on for one destination.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The destination that did not get it.
    pub destination: DestinationName,
    /// The event, whole.
    pub event: Event,
    /// Its last failure.
    pub failure: Failure,
    /// Its tries.
    pub attempts: Attempts,
    /// When it was given up on.
    pub died_at: Timestamp,
}

// === impl Verdict ===

impl Verdict {
    /// Why the event was given up on, if it was.
    #[must_use]
    pub fn death(&self) -> Option<&Failure> {
        if let Self::Dead(failure) = self { Some(failure) } else { None }
    }
}

// === impl Attempts ===

impl Attempts {
    /// Whether no item was delivered or refused yet.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.done.is_empty() && self.refused.is_empty()
    }

    /// Whether an item needs no other try.
    #[must_use]
    pub fn has_settled(&self, key: ItemKey) -> bool {
        self.done.contains(&key) || self.refused.iter().any(|(refused, _)| *refused == key)
    }
}

// === impl Outcome, Failure, SentRequest, Reason ===

impl Outcome {
    /// The same, with what went wrong told otherwise.
    #[must_use]
    pub fn map_failure(self, tell: impl FnOnce(Failure) -> Failure) -> Self {
        match self {
            Self::Delivered | Self::Dropped => self,
            Self::Failed(failure) => Self::Failed(tell(failure)),
            Self::Held(failure) => Self::Held(tell(failure)),
            Self::Split(failure) => Self::Split(tell(failure)),
            Self::Unauthorized(failure) => Self::Unauthorized(tell(failure)),
            Self::Refused(failure) => Self::Refused(tell(failure)),
        }
    }

    /// What went wrong, if anything did.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Delivered | Self::Dropped => None,
            Self::Failed(failure)
            | Self::Held(failure)
            | Self::Split(failure)
            | Self::Unauthorized(failure)
            | Self::Refused(failure) => Some(failure),
        }
    }
}

impl Failure {
    /// A failure without a wish from the destination.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), retry_after: None, trace: None }
    }

    /// Bytes of its texts.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let request = self.trace.as_ref().and_then(|trace| trace.request.as_ref());
        self.detail.len() + request.map_or(0, SentRequest::size_bytes)
    }
}

impl SentRequest {
    fn size_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.url.len() + headers + self.body.as_ref().map_or(0, String::len)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            write!(f, "{}", self.reason)
        } else {
            write!(f, "{}: {}", self.reason, self.detail)
        }
    }
}

impl Reason {
    /// The word for metrics, dead letters and scripts.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Response => "response",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Io => "io",
            Self::Mapping => "mapping",
            Self::Plan => "plan",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Response
            | Self::Timeout
            | Self::Connection
            | Self::Io
            | Self::Mapping
            | Self::Plan
            | Self::Unreadable => f.write_str(self.code()),
        }
    }
}
