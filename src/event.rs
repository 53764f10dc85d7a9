//! One Segment message after reading: what was said, by whom, and when we heard it.
//!
//! Plain data. How bytes become an [`Event`] is `segment`'s business; where it goes is `plan`'s.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

/// The six calls of the Segment spec (<https://segment.com/docs/connections/spec/>, read 2026-11-22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// What somebody did.
    Track,
    /// Who somebody is.
    Identify,
    /// A web page somebody saw.
    Page,
    /// A screen of an app somebody saw.
    Screen,
    /// Which account or company somebody belongs to.
    Group,
    /// That two ids are one person.
    Alias,
}

/// Somebody who may send, by the name it has in `libroseg.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceName(Arc<str>);

/// The id an SDK gave its message, or the one we made for it: opaque text, the key of deduplication.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Arc<str>);

/// An accepted message in the form it is stored and passed around: its own JSON text, normalised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who sent it.
    pub source: SourceName,
    /// Which of the six calls it is.
    pub kind: Kind,
    /// Its id, as in the text.
    pub message_id: MessageId,
    /// When its request arrived (server clock), as in the text.
    pub received_at: Timestamp,
    /// The whole message: a JSON object in UTF-8 that [`serde_json`] parses, without the write key.
    pub json: Bytes,
}

/// An event opened for the rules: parsed once, shared by every destination that looks at it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who sent it.
    pub source: SourceName,
    /// The message as the rules see it: `$` of a filter, the names of a template.
    pub value: Arc<Value>,
}

// === impl Kind ===

impl Kind {
    /// All six, in the order of the spec.
    pub const ALL: [Self; 6] = [Self::Track, Self::Identify, Self::Page, Self::Screen, Self::Group, Self::Alias];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Identify => "identify",
            Self::Page => "page",
            Self::Screen => "screen",
            Self::Group => "group",
            Self::Alias => "alias",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or(UnknownKind)
    }
}

/// The word is none of the six calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of track, identify, page, screen, group, alias")]
pub struct UnknownKind;

// === impl SourceName, MessageId ===

/// Opaque names: made from text, read as text, shared without a copy.
macro_rules! name {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<T: Into<Arc<str>>> From<T> for $name {
            fn from(text: T) -> Self {
                Self(text.into())
            }
        }
    };
}
pub(crate) use name;

name!(SourceName);
name!(MessageId);

// === impl Event ===

impl Event {
    /// Opens the event for the rules.
    ///
    /// # Errors
    /// Never for an event that `segment` read; a text damaged in storage is not JSON any more.
    pub fn open(&self) -> Result<Message, serde_json::Error> {
        // Looked at once as a whole instead of text by text.
        let json = std::str::from_utf8(&self.json).map_err(serde::de::Error::custom)?;
        let value = serde_json::from_str(json)?;
        Ok(Message { source: self.source.clone(), value: Arc::new(value) })
    }
}
