//! A rule that fails on an event, and the way to its place in the file.

use std::fmt;

use crate::expr::EvalError;

/// A rule failed on an event: the place in the file, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {error}")]
pub struct RuleError {
    /// A path such as `destinations.crm.rules[0].body.email`.
    pub place: String,
    /// The rule's place within the destination, as in `rules[0]`; `None` for a destination that is its own rule, or for
    /// what concerns all of them.
    pub rule: Option<String>,
    /// Why.
    pub error: EvalError,
}

/// An error and the keys that lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlacedError {
    pub(crate) place: String,
    pub(crate) error: EvalError,
}

// === impl RuleError ===

impl RuleError {
    pub(super) fn within(mut self, key: impl fmt::Display) -> Self {
        self.place = format!("{}.{key}", self.place);
        self
    }
}

// === impl PlacedError ===

impl PlacedError {
    pub(crate) fn at(place: impl Into<String>, error: EvalError) -> Self {
        Self { place: place.into(), error }
    }

    pub(crate) fn within(self, key: impl fmt::Display) -> Self {
        let place = if self.place.is_empty() { key.to_string() } else { format!("{key}.{}", self.place) };
        Self { place, error: self.error }
    }
}

impl From<EvalError> for PlacedError {
    fn from(error: EvalError) -> Self {
        Self { place: String::new(), error }
    }
}

/// A key as it stands in the name of a place: in quotes where TOML wants them.
pub(crate) fn name_in_path(key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if is_bare { key.to_owned() } else { format!("{key:?}") }
}
