//! How places, waiting events and dead letters are written: JSON with named fields.
//!
//! A row that an older version wrote lacks fields, and they get their defaults; a row that a newer one wrote has fields
//! that are passed over. The words themselves know nothing of this. An event's own text is kept beside the JSON, byte
//! for byte. No storage here.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::state::{PlaceRow, WaitingRow};
use crate::attempt::{Attempts, DeadLetter, DestinationName, Failure, ItemKey, Reason, SentRequest, Trace};
use crate::event::{Event, Kind};

/// A row cannot be read: its bytes are damaged, or say something this version does not know.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    // Only where: what it says there may be a payload.
    #[error("it is not the JSON it should be, at byte {}", .0.column())]
    Json(#[from] serde_json::Error),
    #[error("its event is none of the six calls: `{0}`")]
    Kind(String),
    #[error("its reason is not known to this version: `{0}`")]
    Reason(String),
}

/// What is written as text that can be read back exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Text<T>(T);

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Waiting {
    due: Text<Timestamp>,
    size_bytes: u64,
    tries: Tries,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Tries {
    count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_at: Option<Text<Timestamp>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    done: Vec<Item>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<Refused>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Item {
    rule: u64,
    index: u32,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Refused {
    item: Item,
    failure: Fault,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Fault {
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<Text<SignedDuration>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Box<Track>>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Track {
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    config: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Request>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Request {
    method: String,
    url: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    items: usize,
}

/// A dead letter without its destination, which is in the key, and its event's text, which is beside it.
#[derive(Serialize, Deserialize)]
struct Letter {
    source: String,
    kind: String,
    message_id: String,
    received_at: Text<Timestamp>,
    #[serde(default)]
    died_at: Text<Timestamp>,
    failure: Fault,
    #[serde(default)]
    tries: Tries,
}

/// An unreadable note of an event that waits still says that it waits: it is due at once, as if it had never been tried.
pub(super) const WAITING_UNREADABLE: WaitingRow = WaitingRow {
    due: Timestamp::UNIX_EPOCH,
    size_bytes: 0,
    attempts: Attempts { count: 0, first_at: None, done: Vec::new(), refused: Vec::new() },
};

/// The reasons that are a word and nothing else.
const PLAIN_REASONS: [Reason; 7] = [
    Reason::Response,
    Reason::Timeout,
    Reason::Connection,
    Reason::Io,
    Reason::Mapping,
    Reason::Plan,
    Reason::Unreadable,
];

// === front door ===

pub(super) fn write_place(row: &PlaceRow) -> Vec<u8> {
    encode(row)
}

pub(super) fn read_place(bytes: &[u8]) -> Result<PlaceRow, RowError> {
    decode(bytes)
}

pub(super) fn write_waiting(row: &WaitingRow) -> Vec<u8> {
    encode(&Waiting { due: Text(row.due), size_bytes: row.size_bytes, tries: Tries::from(&row.attempts) })
}

pub(super) fn read_waiting(bytes: &[u8]) -> Result<WaitingRow, RowError> {
    let Waiting { due, size_bytes, tries } = decode(bytes)?;
    Ok(WaitingRow { due: due.0, size_bytes, attempts: tries.try_into()? })
}

/// Everything but the event's text.
pub(super) fn write_letter(letter: &DeadLetter) -> Vec<u8> {
    let DeadLetter { destination: _, event, failure, attempts, died_at } = letter;
    encode(&Letter {
        source: event.source.to_string(),
        kind: event.kind.to_string(),
        message_id: event.message_id.to_string(),
        received_at: Text(event.received_at),
        died_at: Text(*died_at),
        failure: Fault::from(failure),
        tries: Tries::from(attempts),
    })
}

pub(super) fn read_letter(destination: DestinationName, bytes: &[u8], json: &[u8]) -> Result<DeadLetter, RowError> {
    let Letter { source, kind, message_id, received_at, died_at, failure, tries } = decode(bytes)?;
    let event = Event {
        source: source.into(),
        kind: kind.parse::<Kind>().map_err(|_| RowError::Kind(kind))?,
        message_id: message_id.into(),
        received_at: received_at.0,
        json: Bytes::copy_from_slice(json),
    };
    let (failure, attempts) = (failure.try_into()?, tries.try_into()?);
    Ok(DeadLetter { destination, event, failure, attempts, died_at: died_at.0 })
}

fn encode(row: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(row).expect("a row of strings, numbers and lists of them is JSON")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RowError> {
    Ok(serde_json::from_slice(bytes)?)
}

// === impl Tries, Item ===

impl From<&Attempts> for Tries {
    fn from(attempts: &Attempts) -> Self {
        let refused = attempts.refused.iter();
        Self {
            count: attempts.count,
            first_at: attempts.first_at.map(Text),
            done: attempts.done.iter().copied().map(Item::from).collect(),
            refused: refused.map(|(item, failure)| Refused { item: (*item).into(), failure: failure.into() }).collect(),
        }
    }
}

impl TryFrom<Tries> for Attempts {
    type Error = RowError;

    fn try_from(tries: Tries) -> Result<Self, RowError> {
        let refused = tries.refused.into_iter().map(|Refused { item, failure }| Ok((item.into(), failure.try_into()?)));
        Ok(Self {
            count: tries.count,
            first_at: tries.first_at.map(|at| at.0),
            done: tries.done.into_iter().map(ItemKey::from).collect(),
            refused: refused.collect::<Result<_, RowError>>()?,
        })
    }
}

impl From<ItemKey> for Item {
    fn from(ItemKey { rule, index }: ItemKey) -> Self {
        Self { rule, index }
    }
}

impl From<Item> for ItemKey {
    fn from(Item { rule, index }: Item) -> Self {
        Self { rule, index }
    }
}

// === impl Fault, Track, Request ===

impl From<&Failure> for Fault {
    fn from(failure: &Failure) -> Self {
        let Failure { reason, detail, retry_after, trace } = failure;
        Self {
            reason: reason.code().to_owned(),
            status: if let Reason::Status(status) = reason { Some(*status) } else { None },
            detail: detail.clone(),
            retry_after: retry_after.map(Text),
            trace: trace.as_deref().map(|trace| Box::new(Track::from(trace))),
        }
    }
}

impl TryFrom<Fault> for Failure {
    type Error = RowError;

    fn try_from(fault: Fault) -> Result<Self, RowError> {
        let plain = || PLAIN_REASONS.into_iter().find(|reason| reason.code() == fault.reason);
        let Some(reason) = fault.status.map(Reason::Status).or_else(plain) else {
            return Err(RowError::Reason(fault.reason));
        };
        let trace = fault.trace.map(|track| Box::new(Trace::from(*track)));
        Ok(Self { reason, detail: fault.detail, retry_after: fault.retry_after.map(|after| after.0), trace })
    }
}

impl From<&Trace> for Track {
    fn from(Trace { rule, config, request }: &Trace) -> Self {
        Self { rule: rule.clone(), config: *config, request: request.as_ref().map(Request::from) }
    }
}

impl From<Track> for Trace {
    fn from(Track { rule, config, request }: Track) -> Self {
        Self { rule, config, request: request.map(SentRequest::from) }
    }
}

impl From<&SentRequest> for Request {
    fn from(request: &SentRequest) -> Self {
        let SentRequest { method, url, headers, body, items } = request.clone();
        Self { method, url, headers, body, items }
    }
}

impl From<Request> for SentRequest {
    fn from(Request { method, url, headers, body, items }: Request) -> Self {
        Self { method, url, headers, body, items }
    }
}

// === impl Text ===

impl Default for Text<Timestamp> {
    fn default() -> Self {
        Self(Timestamp::UNIX_EPOCH)
    }
}

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

/// For a field that is a time or nothing.
pub(super) mod time_or_none {
    use super::{Deserialize, Deserializer, Serialize as _, Serializer, Text, Timestamp};

    #[expect(clippy::ref_option, reason = "serde hands out references")]
    pub(in super::super) fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        at.map(Text).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<Text<Timestamp>>::deserialize(from)?.map(|at| at.0))
    }
}
