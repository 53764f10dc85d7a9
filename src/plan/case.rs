//! `[[tests]]`: what a file promises about its own destinations, as data. How a promise is held to is `rehearse`'s business.

use std::collections::BTreeMap;
use std::ops::Range;

use jiff::Timestamp;
use serde_json::Value as Json;

use crate::attempt::DestinationName;
use crate::event::SourceName;

/// One entry of `[[tests]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The sentence that is false when it fails.
    pub name: String,
    /// Where the name is written.
    pub span: Range<usize>,
    /// The destination it is about, on or off.
    pub destination: DestinationName,
    /// The only variables there are.
    pub variables: BTreeMap<String, String>,
    /// The only files there are, by the path as `file('…')` names it.
    pub files: BTreeMap<String, String>,
    /// What time it is at first.
    pub now: Timestamp,
    /// Who sends; `None`: somebody whom the destination takes events from.
    pub source: Option<SourceName>,
    /// What an SDK sends, one message each; empty: only the meaning of an answer is asked for.
    pub events: Vec<Written>,
    /// What the destination answers.
    pub script: Script,
    /// The requests that are made, in order.
    pub expect: Option<Expectation>,
    /// What becomes of each event, in order.
    pub outcome: Option<Vec<(Fate, Range<usize>)>>,
    /// Where `expect` and `outcome` are to be written when there is nothing yet: after this byte.
    pub end: usize,
}

/// JSON as it stands in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// What it says.
    pub value: Json,
    /// The value in the file: a string with JSON in it, or TOML.
    pub span: Range<usize>,
    /// The way from the string's JSON to this piece of it; `None` for TOML.
    pub within: Option<Vec<Step>>,
}

/// One step into JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into a field.
    Field(String),
    /// Into an element.
    Element(usize),
}

/// The requests that are expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// A list; each a subset of a request, in which `"<absent>"` demands absence.
    pub requests: Written,
    /// Whether what is named (`body`, `headers`) may hold nothing else.
    pub is_exact: bool,
}

/// What a destination answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Script {
    /// Everything is taken: `200` without a body.
    Accepting,
    /// Every request gets this answer, and no event is tried twice.
    Once(Answer),
    /// The requests get these answers one after the other, and the clock moves on from try to try; what is still to be
    /// tried when they are used up waits for another try.
    History(Vec<Answer>),
}

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// An HTTP reply; a body that is not text is JSON.
    Reply {
        /// Its status.
        status: u16,
        /// Its headers, names in lowercase.
        headers: Vec<(String, String)>,
        /// Its body.
        body: String,
    },
    /// No answer in time.
    Timeout,
    /// A connection that cannot be made, or breaks.
    Disconnect,
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Delivered.
    Ok,
    /// It waits for another try.
    Retry,
    /// Its request is sent again in halves.
    Split,
    /// A dead letter.
    Dead,
    /// Counted and forgotten, as a response rule says.
    Drop,
    /// The destination rests, for it refuses our credentials; the event waits.
    Pause,
    /// No rule wanted it.
    Filtered,
}

// === impl Fate ===

impl Fate {
    /// All words.
    pub const ALL: [(&'static str, Self); 7] = [
        ("ok", Self::Ok),
        ("retry", Self::Retry),
        ("split", Self::Split),
        ("dead", Self::Dead),
        ("drop", Self::Drop),
        ("pause", Self::Pause),
        ("filtered", Self::Filtered),
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Retry => "retry",
            Self::Split => "split",
            Self::Dead => "dead",
            Self::Drop => "drop",
            Self::Pause => "pause",
            Self::Filtered => "filtered",
        }
    }
}

// === impl Written ===

impl Written {
    /// The same with a piece of it.
    #[must_use]
    pub fn piece(&self, step: Step, value: Json) -> Self {
        let within = self.within.as_ref().map(|way| way.iter().cloned().chain([step]).collect());
        Self { value, span: self.span.clone(), within }
    }
}
