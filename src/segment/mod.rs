//! Segment's wire format: what SDKs send, read into events, and what they expect to hear.
//!
//! Pure: a body, a clock reading and a way to make ids go in; events, discards or one rejection come out.
//! It never answers a request (that is `ingest`) and never decides where an event goes (that is `plan`).
//! The rules are in `docs/wire-contract.md`, each with its source.

mod amend;
pub mod consent;
mod discard;
mod inspect;
mod json;
mod message;
mod normalise;
mod outline;
mod pixel;
mod repair;
pub mod reply;
mod settings;
#[cfg(test)]
mod tests;
mod time;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::event::{Event, Kind, MessageId, SourceName};

pub use amend::with_context;
pub use discard::{Discard, DiscardCode};
pub use inspect::{Inspect, Inspection, Violation};
pub use outline::Envelope;
pub use pixel::{PIXEL_GIF, pixel_message};
pub use settings::settings;

use discard::Problem;

/// What the door lets in: the part of the plan that concerns those who send.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Who may send, by write key.
    pub sources: BTreeMap<String, Arc<Source>>,
    /// What an unknown write key hears.
    pub unknown_key: UnknownKey,
    /// Sizes and counts.
    pub limits: Limits,
    /// Answer `400` with the list of problems instead of discarding bad events after a `200`.
    pub strict: bool,
    /// The tracking plans that speak at the door; `None`: there are none.
    pub plans: Option<Arc<dyn Inspect>>,
}

/// Somebody who may send.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name in the file.
    pub name: SourceName,
    /// `false`: its events are answered `200` and discarded (`source_disabled`).
    pub enabled: bool,
    /// How fast it may send; `None`: as fast as it likes.
    pub limit: Option<RateLimit>,
}

/// How fast a source may send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Events per second, on average.
    pub per_second: f64,
    /// Events at once, after a silence that was long enough.
    pub burst: f64,
}

/// What an unknown write key hears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownKey {
    /// `400` with `invalid_write_key`.
    #[default]
    Reject,
    /// `200`, and the events are discarded and counted, as Segment does.
    Accept,
}

/// Sizes and counts of the wire; see "Limits" in `docs/wire-contract.md` for where the numbers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One call's body, and one event inside a batch, decoded.
    pub event_bytes_max: usize,
    /// A batch's body, decoded.
    pub batch_bytes_max: usize,
    /// Events in one batch; the rest is discarded.
    pub batch_events_max: usize,
}

/// How the message was sent: which path, which method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `/v1/track`, `/v1/t` and so on: one message whose type the path says.
    One(Kind),
    /// `/v1/batch`, `/v1/b`, `/v1/import`: an envelope.
    Batch,
}

/// What is known of a request besides its body.
pub struct Arrival<'a> {
    /// Who sent it.
    pub source: &'a SourceName,
    /// The server clock when the request arrived: the same for a whole batch.
    pub received_at: Timestamp,
    /// The sender's address, already freed from proxies.
    pub ip: Option<IpAddr>,
    /// Its `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// Sizes and counts.
    pub limits: &'a Limits,
    /// The tracking plans that speak at the door.
    pub plans: Option<&'a dyn Inspect>,
    /// Makes the id of a message that has none.
    pub new_id: &'a dyn Fn() -> MessageId,
}

/// What a body held.
#[derive(Debug, Default)]
pub struct Reading {
    /// The good events, in the order they were sent.
    pub events: Vec<Event>,
    /// The others.
    pub discards: Vec<Discard>,
}

/// Why a body was turned away as a whole: the caller's to fix, so each becomes a `400` that says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Not JSON, and not even its outline can be found.
    #[error("malformed JSON: {expected} at line {line}, column {column}")]
    Malformed {
        /// What should have stood there.
        expected: &'static str,
        /// The line, from 1.
        line: usize,
        /// The character in that line, from 1.
        column: usize,
    },
    /// Nothing but white space.
    #[error("malformed JSON: the body is empty")]
    Empty,
    /// JSON, but neither an object nor, for a batch, an array.
    #[error("malformed JSON: the body has to be an object")]
    NotAnObject,
    /// An object on a batch path, with neither `batch` nor `type`.
    #[error("malformed JSON: the body has no `batch`")]
    NoBatch,
    /// More bytes than allowed. The wording of its beginning is Segment's.
    #[error("Exceed payload limit: the body is {size_bytes} bytes, more than the {max_bytes} accepted here")]
    TooLarge {
        /// The body, decoded.
        size_bytes: usize,
        /// The limit it broke.
        max_bytes: usize,
    },
    /// No write key in the header, the body or the query.
    #[error(
        "no write key: send it as the user name of basic authentication, as `writeKey` in the body or in the query"
    )]
    NoWriteKey,
    /// A write key that belongs to no source.
    #[error("unknown write key")]
    UnknownWriteKey,
}

// === impl Limits ===

impl Default for Limits {
    /// Segment's own limits, plus what SDKs add after they have measured.
    ///
    /// 32 KB for an event and 500 KB for a batch are Segment's
    /// (<https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#max-request-size>, read
    /// 2026-11-22). SDKs count KB as 1024, go up to 512,000 bytes and one event more for a batch, and add `sentAt`,
    /// `writeKey` and `_metadata` after measuring an event. 2,500 events are on the same page.
    fn default() -> Self {
        Self { event_bytes_max: (32 + 1) * 1024, batch_bytes_max: (512 + 16) * 1024, batch_events_max: 2500 }
    }
}

impl Limits {
    /// The largest body a call may have, decoded.
    #[must_use]
    pub fn body_bytes_max(&self, call: Call) -> usize {
        match call {
            Call::One(_) => self.event_bytes_max,
            Call::Batch => self.batch_bytes_max,
        }
    }
}

// === impl Rejection ===

impl Rejection {
    /// The `code` of the answer.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } | Self::Empty | Self::NotAnObject | Self::NoBatch | Self::TooLarge { .. } => {
                "invalid_request"
            }
            Self::NoWriteKey | Self::UnknownWriteKey => "invalid_write_key",
        }
    }
}
