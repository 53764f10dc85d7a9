//! What people ask of the queue, and the answers: dead letters, replays, a look inside.
//!
//! Here are the questions and answers as data that travels as JSON. [`run()`] carries a request out on a [`Desk`], be it
//! beside a running service or on the queue of a stopped one; [`socket`] carries requests into the running one. Nothing
//! here prints, reads the configuration's file, or sends anything to a destination: what is to be sent again is put back
//! into the queue, and delivering is `deliver`'s business.

mod letters;
mod log;
pub mod run;
#[cfg(unix)]
pub mod socket;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::queue::Verified;

pub use run::{Desk, run};

/// Answers that wait for whoever asked; beyond that the work waits.
pub const ANSWERS_MAX: usize = 64;

/// A time as it travels: RFC 3339, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Timestamp);

// === requests ===

/// A question, or something to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Dead letters, one line each, newest last.
    Letters {
        /// Which.
        #[serde(default)]
        which: Which,
        /// So many of the newest; all without it.
        #[serde(default)]
        newest: Option<usize>,
    },
    /// Everything about one dead letter.
    Letter {
        /// Which.
        id: u64,
    },
    /// Puts dead letters back for their destinations, and then forgets the letters.
    ReplayLetters {
        /// Which.
        #[serde(default)]
        which: Which,
        /// Events per second.
        #[serde(default)]
        rate: Option<f64>,
        /// Only counts.
        #[serde(default)]
        dry_run: bool,
    },
    /// Forgets dead letters for good.
    PurgeLetters {
        /// Which.
        #[serde(default)]
        which: Which,
        /// Only counts.
        #[serde(default)]
        dry_run: bool,
    },
    /// Puts events of the log back for one destination, which sends them by the rules of today.
    Replay {
        /// Which destination.
        destination: String,
        /// Which events.
        #[serde(default)]
        range: Range,
        /// Events per second.
        #[serde(default)]
        rate: Option<f64>,
        /// Only counts.
        #[serde(default)]
        dry_run: bool,
    },
    /// The state of the queue.
    Inspect,
    /// Reads everything that is stored.
    Verify,
    /// Events of the log.
    Export {
        /// Which.
        #[serde(default)]
        range: Range,
    },
}

/// Which dead letters: those that all of it is true of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Which {
    /// Of these ids; empty: any. An id that no letter has is a fault, and nothing is done.
    pub ids: Vec<u64>,
    /// Of this destination.
    pub destination: Option<String>,
    /// A kind of fault: `mapping`, `status`, or a status such as `400`.
    pub reason: Option<String>,
    /// Given up on in this range of time, and what their events must be.
    pub range: Range,
}

/// A range of time and a condition on the event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Range {
    /// At or after this time.
    pub since: Option<Moment>,
    /// Before this time.
    pub until: Option<Moment>,
    /// A `JSONPath` condition, as in `when`.
    pub filter: Option<String>,
}

// === answers ===

/// A piece of an answer. [`Answer::Done`] or [`Answer::Failed`] is the last one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// A dead letter in a list.
    LetterLine(LetterLine),
    /// Everything about a dead letter.
    Letter(Box<Letter>),
    /// What became of dead letters.
    Letters(Letters),
    /// What became of a replay.
    Replayed(Replayed),
    /// How far it is.
    Progress(Progress),
    /// The state of the queue.
    Queue(Box<QueueState>),
    /// A file of the log.
    Segment(Verified),
    /// An event of the log.
    Event(Exported),
    /// It was not done, or not all of it.
    Failed(Failed),
    /// That was all.
    Done,
}

/// A dead letter in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LetterLine {
    /// Its name.
    pub id: u64,
    /// When it was given up on.
    pub died_at: Moment,
    /// The destination that did not get it.
    pub destination: String,
    /// `track`, `identify`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The event's, page's or screen's name.
    pub name: Option<String>,
    /// The event's `userId`, or else its `anonymousId`.
    pub user: Option<String>,
    /// The kind of fault: `mapping`, `status 400`.
    pub reason: String,
    /// How many tries it had.
    pub attempts: u32,
}

/// Everything about a dead letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// What the list tells.
    #[serde(flatten)]
    pub line: LetterLine,
    /// An error's text with the place in the file, or the beginning of a reply.
    pub detail: String,
    /// The rule's place in the file, within the destination.
    pub rule: Option<String>,
    /// The fingerprint of the destination's configuration in force.
    pub config: Option<String>,
    /// When the first try began.
    pub first_at: Option<Moment>,
    /// What was sent last, without secrets.
    pub request: Option<SentRequest>,
    /// Who sent the event.
    pub source: String,
    /// Its id.
    pub message_id: String,
    /// When it arrived.
    pub received_at: Moment,
    /// The event, whole; text when it is damaged.
    pub event: Value,
}

/// A request without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentRequest {
    /// The method; empty for destinations that are not HTTP.
    pub method: String,
    /// The whole URL; empty for destinations that are not HTTP.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// What this event put into it.
    pub body: Option<String>,
    /// How many items shared the request.
    pub items: usize,
}

/// What became of dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letters {
    /// How many were asked for.
    pub matching: u64,
    /// How many were put back, or forgotten.
    pub done: u64,
    /// Of which destinations.
    pub destinations: BTreeMap<String, u64>,
    /// Whether they were only counted.
    pub dry_run: bool,
    /// What to know besides.
    pub notes: Vec<String>,
}

/// What became of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// For whom.
    pub destination: String,
    /// Whether they were only counted.
    pub dry_run: bool,
    /// Events of that time.
    pub in_range: u64,
    /// Those that the filter wants.
    pub matching: u64,
    /// Those that the destination's rules want.
    pub wanted: u64,
    /// Those that no rule wants: they are not put back.
    pub filtered: u64,
    /// Those that a rule fails on: put back, they will be dead letters.
    pub failing: u64,
    /// Events put back.
    pub put_back: u64,
    /// Events that the destination has yet to deliver anyway: they are left out.
    pub still_to_come: u64,
    /// Events that cannot be read.
    pub damaged: u64,
    /// The first of those that fail.
    pub failures: Vec<Failing>,
    /// What to know besides.
    pub notes: Vec<String>,
}

/// An event that a rule fails on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// Its id.
    pub message_id: String,
    /// Why, with the place in the file.
    pub error: String,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Looked at so far.
    pub position: u64,
    /// To look at in all.
    pub of: u64,
    /// Put back, or forgotten, so far.
    pub done: u64,
    /// When the last one of them arrived, or was given up on.
    pub at: Option<Moment>,
    /// Why it stands still.
    pub waits: Option<String>,
}

/// The state of the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueState {
    /// `memory` or `disk`.
    pub kind: String,
    /// Its folder.
    pub dir: Option<String>,
    /// Whether a service has it open.
    pub is_served: bool,
    /// Bytes it takes up.
    pub size_bytes: u64,
    /// Bytes it may take up.
    pub size_bytes_max: u64,
    /// Files of the log.
    pub segments: usize,
    /// The oldest event's place.
    pub first: u64,
    /// The next event's place.
    pub end: u64,
    /// When the oldest event arrived.
    pub oldest_at: Option<Moment>,
    /// Message ids remembered to recognise repetitions.
    pub dedup_ids: usize,
    /// Events not stored because they had been before, since the start.
    pub duplicates: u64,
    /// Events found damaged since the start.
    pub damaged: u64,
    /// Why it takes no events just now.
    pub failing: Option<String>,
    /// Every destination that has a place.
    pub destinations: Vec<PlaceState>,
}

/// The state of a destination's place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlaceState {
    /// Its name.
    pub name: String,
    /// Whether it is in force.
    pub state: PlaceKind,
    /// Since when it is in the file no more.
    pub detached_at: Option<Moment>,
    /// Events that it was to look at.
    pub accepted: u64,
    /// Delivered whole.
    pub delivered: u64,
    /// Wanted by no rule.
    pub filtered: u64,
    /// Forgotten, as a response rule said.
    pub dropped: u64,
    /// Damaged in storage.
    pub damaged: u64,
    /// Given up on.
    pub dead: u64,
    /// Waiting: the three that follow.
    pub waiting: u64,
    /// Never handed out.
    pub behind: u64,
    /// Handed out and not settled.
    pub in_hand: u64,
    /// Waiting for another try.
    pub later: u64,
    /// For how long the oldest event that was never handed out has waited, at most; `None`: not known.
    pub lag_seconds: f64,
    /// Dead letters kept.
    pub letters: u64,
    /// Bytes of them.
    pub letters_bytes: u64,
}

/// Whether a destination is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceKind {
    /// It is.
    On,
    /// The file says that it is off.
    Off,
    /// It is not in the file.
    Detached,
}

/// An event of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Its place.
    pub offset: u64,
    /// Who sent it.
    pub source: String,
    /// When it arrived.
    pub received_at: Moment,
    /// The one destination it was put back for.
    pub only: Option<String>,
    /// Its text as it is stored, in one line.
    pub json: String,
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// What kind of failure.
    pub fault: Fault,
    /// A fragment that names the thing.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// What was asked for is not there.
    Wrong,
    /// It could not be done.
    Unable,
}

// === impl Moment ===

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

// === impl Which, Range ===

impl Which {
    /// Whether nothing is said: every dead letter there is.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

impl Range {
    /// Whether a time lies in it.
    #[must_use]
    pub fn holds(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| since.0 <= time) && self.until.is_none_or(|until| time < until.0)
    }
}

// === impl Failed ===

impl Failed {
    /// It could not be done.
    pub fn unable(message: impl Into<String>) -> Self {
        Self { fault: Fault::Unable, message: message.into(), help: None }
    }

    /// What was asked for is not there.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self { fault: Fault::Wrong, message: message.into(), help: None }
    }

    /// What to do about it.
    #[must_use]
    pub fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}
