//! One entry of `[[tests]]`, run: what it did, and every place in the file where it is not as promised.

use std::ops::Range;

use serde_json::Value as Json;

use super::compare::{self, Mismatch, told};
use super::shown;
use super::{End, Performance, read, rehearse};
use crate::attempt::{DestinationName, Outcome};
use crate::config::{self, Code, Diagnostic, Missing, Staged, Suggestion, literal, place_of, pretty};
use crate::event::SourceName;
use crate::expr::cut;
use crate::plan::case::{Case, Expectation, Fate, Script, Written};
use crate::plan::{Destination, Reply};

/// How a test went.
#[derive(Debug)]
pub struct Report {
    /// The sentence.
    pub name: String,
    /// Whose it is.
    pub destination: DestinationName,
    /// Where the sentence is written.
    pub span: Range<usize>,
    /// The requests that were made, as [`shown::request`] has them.
    pub requests: Vec<Json>,
    /// What became of each event.
    pub ends: Vec<End>,
    /// What is not as promised, in the order of the file; nothing: it passed.
    pub failures: Vec<Diagnostic>,
    /// The requests as they are expected and as they are, to be compared line by line; only where they differ.
    pub difference: Option<Difference>,
    /// Changes of the file that would make it pass, the last one in the file first.
    pub updates: Vec<Suggestion>,
}

/// Two texts to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// As it should be.
    pub expected: String,
    /// As it is, as far as the expectation looks.
    pub actual: String,
}

/// Characters of a value inside a sentence.
const TOLD_CHARS_MAX: usize = 80;

/// Runs one test of the file `text`.
#[must_use]
pub fn run(text: &str, case: &Case) -> Report {
    let mut report = Report {
        name: case.name.clone(),
        destination: case.destination.clone(),
        span: case.span.clone(),
        requests: Vec::new(),
        ends: Vec::new(),
        failures: Vec::new(),
        difference: None,
        updates: Vec::new(),
    };
    match config::stage(text, case) {
        Ok(staged) => report.perform(text, case, &staged),
        Err(mistakes) => report.failures.extend(mistakes),
    }
    report.failures.sort_by_key(|failure| failure.span.start);
    report.updates.sort_by_key(|update| std::cmp::Reverse(update.span.start));
    report
}

// === impl Report ===

impl Report {
    /// Whether everything is as promised.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.failures.is_empty()
    }

    fn perform(&mut self, text: &str, case: &Case, staged: &Staged) {
        let performance = match performance(case, staged) {
            Ok(performance) => performance,
            Err(unread) => {
                let event = case.events.get(unread.index()).or(case.events.first());
                let place = event.map_or(case.span.clone(), |event| place_of(text, event));
                return self.failures.push(failure(place, unread.to_string()));
            }
        };
        self.requests = performance.requests.iter().map(|made| shown::request(&made.request)).collect();
        self.ends = performance.ends;
        self.check_nothing_is_missing(case, &staged.assumed);
        match &case.outcome {
            Some(outcome) => self.check_ends(outcome),
            None => self.check_nobody_died(text, case),
        }
        match &case.expect {
            Some(expectation) => self.check_requests(text, expectation),
            None if case.outcome.is_none() => self.write_down(case),
            None => {}
        }
    }

    /// Once something was rendered, it was rendered without what the test does not have.
    fn check_nothing_is_missing(&mut self, case: &Case, assumed: &[Missing]) {
        let is_rendered = !self.requests.is_empty() || self.ends.iter().any(|end| end.fate == Fate::Dead);
        for missing in assumed.iter().filter(|_| is_rendered && !case.events.is_empty()) {
            let missing = failure(case.span.clone(), format!("{missing} is not set in this test"));
            let help = "a test sees no other: write `env = { NAME = \"…\" }` or `files = { \"/path\" = \"…\" }`";
            self.failures.push(missing.help(help));
        }
    }

    fn check_ends(&mut self, outcome: &[(Fate, Range<usize>)]) {
        for (index, ((expected, span), end)) in outcome.iter().zip(&self.ends).enumerate() {
            if *expected == end.fate {
                continue;
            }
            let message =
                format!("event {index} is expected to end as `{}`, and is `{}`", expected.as_str(), end.fate.as_str());
            let mut found = failure(span.clone(), message);
            if !end.detail.is_empty() {
                found = found.help(end.detail.clone());
            }
            self.failures.push(found);
            self.updates.push(Suggestion { span: span.clone(), replacement: format!("\"{}\"", end.fate.as_str()) });
        }
    }

    /// A dead letter that nobody speaks of is not what anybody wants.
    fn check_nobody_died(&mut self, text: &str, case: &Case) {
        for (event, end) in case.events.iter().zip(&self.ends).filter(|(_, end)| end.fate == Fate::Dead) {
            let dead = failure(place_of(text, event), "this event becomes a dead letter").label(end.detail.clone());
            self.failures.push(dead.help("if that is meant, say so: `outcome = [\"dead\"]`"));
        }
    }

    fn check_requests(&mut self, text: &str, expectation: &Expectation) {
        let found = compare::mismatches(expectation, &self.requests);
        if found.is_empty() {
            return;
        }
        let expected = &expectation.requests;
        let seen = compare::seen(&expected.value, &Json::from(self.requests.clone()), expectation.is_exact);
        self.failures.extend(found.iter().map(|mismatch| drawn(text, mismatch)));
        // What differs is alone on its line.
        self.difference = Some(Difference { expected: pretty(&expected.value, 0), actual: pretty(&seen, 0) });
        self.updates.push(Suggestion { span: expected.span.clone(), replacement: literal(&seen) });
    }

    /// A test without a word on what it expects is given one.
    fn write_down(&mut self, case: &Case) {
        let requests = self.requests.iter().map(compare::without_wire).collect();
        let replacement = format!("\nexpect      = {}", literal(&requests));
        self.updates.push(Suggestion { span: case.end..case.end, replacement });
    }
}

fn performance(case: &Case, staged: &Staged) -> Result<Performance, super::Unread> {
    let destination = &staged.destination;
    if case.events.is_empty() {
        return Ok(Performance { requests: Vec::new(), ends: judged(case, destination) });
    }
    let source = case.source.clone().or_else(|| destination.sources.as_ref()?.first().cloned());
    let source = source.unwrap_or_else(|| SourceName::from("test"));
    let messages: Vec<Json> = case.events.iter().map(|event: &Written| event.value.clone()).collect();
    let events = read(&messages, &source, staged.plans.as_deref(), case.now)?;
    Ok(rehearse(destination, &events, &case.script, case.now))
}

/// What an answer means for as many items as there are words.
fn judged(case: &Case, destination: &Destination) -> Vec<End> {
    let items = case.outcome.as_ref().map_or(0, Vec::len);
    let (Script::Once(answer), true) = (&case.script, items > 0) else { return Vec::new() };
    let outcomes = destination.judge(&Reply::from(answer), items, case.now);
    let end = |outcome: &Outcome| {
        let detail = outcome.failure().map(ToString::to_string).unwrap_or_default();
        End { fate: fate(outcome), detail }
    };
    outcomes.iter().map(end).collect()
}

fn fate(outcome: &Outcome) -> Fate {
    match outcome {
        Outcome::Delivered => Fate::Ok,
        Outcome::Dropped => Fate::Drop,
        Outcome::Failed(_) | Outcome::Held(_) => Fate::Retry,
        Outcome::Split(_) => Fate::Split,
        Outcome::Unauthorized(_) => Fate::Pause,
        Outcome::Refused(_) => Fate::Dead,
    }
}

fn failure(span: Range<usize>, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(Code::TestFailed, span, message)
}

fn drawn(text: &str, mismatch: &Mismatch) -> Diagnostic {
    let Mismatch { expected, way, actual, message } = mismatch;
    let actual = actual.as_ref().map(|actual| cut(&actual.to_string(), TOLD_CHARS_MAX));
    let label = actual.map_or_else(|| "is not there".to_owned(), |actual| format!("is {actual}"));
    failure(place_of(text, expected), format!("{}: {message}", told(way))).label(label)
}
