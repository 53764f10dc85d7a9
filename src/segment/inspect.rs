//! What tracking plans say of an event at the door. What a plan is, this room does not know: it asks, and does as it is
//! told.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::Problem;
use super::amend::with_context;
use super::discard::DiscardCode;
use crate::event::{Event, Kind, Message, SourceName};

/// Looks at events before they are stored.
pub trait Inspect: fmt::Debug + Send + Sync {
    /// Whether it has anything to say of such an event. Only then is the event opened.
    fn concerns(&self, source: &SourceName, kind: Kind, name: Option<&str>) -> bool;

    /// What is wrong with an event, and what is to become of it.
    fn inspect(&self, message: &Message, received_at: Timestamp) -> Inspection;
}

/// What is to become of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// Nothing is wrong with it.
    Fine,
    /// It goes on, and its `context.violations` lists these.
    Tagged(Vec<Violation>),
    /// It is discarded because of these.
    Rejected(Vec<Violation>),
}

/// One thing that a tracking plan finds wrong with an event. Short, and without the event's values beyond an excerpt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The plan's name.
    pub plan: String,
    /// What of the plan: `require[0]`, `check[1]` or `schema`.
    pub rule: String,
    /// The keyword of the JSON Schema, such as `minimum`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyword: Option<String>,
    /// Where in the event, as a `JSONPath`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is wrong, as a fragment.
    pub message: String,
}

/// The member of `context` that lists what is wrong.
const VIOLATIONS: &str = "violations";

/// So many violations are told in one line; of the others their number.
const TOLD_MAX: usize = 3;

// === front door ===

/// Has an event looked at: gives it back as it was or with its violations, or says why it is discarded.
pub(super) fn inspect(plans: &dyn Inspect, event: Event, name: Option<&str>) -> Result<Event, Problem> {
    if !plans.concerns(&event.source, event.kind, name) {
        return Ok(event);
    }
    // What was read just now can be opened.
    let Ok(message) = event.open() else { return Ok(event) };
    match plans.inspect(&message, event.received_at) {
        Inspection::Fine => Ok(event),
        Inspection::Tagged(violations) => {
            let list = serde_json::to_string(&violations).unwrap_or_else(|_| "[]".to_owned());
            Ok(with_context(event, VIOLATIONS, &list))
        }
        Inspection::Rejected(violations) => {
            Err((DiscardCode::PlanViolation, Cow::Owned(Violation::in_one_line(&violations))))
        }
    }
}

// === impl Violation ===

impl Violation {
    /// The first few of several, as a fragment.
    #[must_use]
    pub fn in_one_line(violations: &[Self]) -> String {
        let told: Vec<String> = violations.iter().take(TOLD_MAX).map(Self::to_string).collect();
        match violations.len().saturating_sub(TOLD_MAX) {
            0 => told.join("; "),
            more => format!("{}; and {more} more", told.join("; ")),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plan.{}.{}: ", self.plan, self.rule)?;
        match &self.path {
            Some(path) => write!(f, "`{path}` {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}
