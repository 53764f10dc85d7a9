//! What was found out about something outside: how it stands, and what to do.

use std::fmt;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it stands.
    pub grade: Grade,
    /// What was looked at: `dataset p.d`.
    pub subject: String,
    /// What there is to be told of it, as a fragment; without secrets.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// As it should.
    Fine,
    /// It was not looked at, or cannot be known.
    Unknown,
    /// Events get through, and yet somebody should look at it.
    Warning,
    /// Events do not get through, or not as the file says.
    Problem,
}

// === impl Finding, Grade ===

impl Finding {
    /// Something, and how it stands.
    pub fn new(grade: Grade, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { grade, subject: subject.into(), message: message.into(), help: None }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl Grade {
    /// The word for people and programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Unknown => "not known",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
