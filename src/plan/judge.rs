//! What a reply means, item by item: the destination's own rules first, then the general table.

use std::sync::Arc;

use bytes::Bytes;
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value as Json};

use super::bigquery::TableNews;
use super::trace::{Secrets, searched};
use super::{Destination, DestinationKind, ResponseRule, Then};
use crate::attempt::{Failure, Outcome, Reason};
use crate::expr::{EvalError, Omit, Scope, Value, excerpt, template};

/// What came back from outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// An HTTP answer.
    Answered {
        /// Its status.
        status: u16,
        /// Its headers, names in lowercase.
        headers: Vec<(String, String)>,
        /// Its body, or the first part of a very long one.
        body: Bytes,
        /// What became of the table that the rows were for, if something did because of the answer: BigQuery alone.
        news: Option<Box<TableNews>>,
    },
    /// Everything was written where it belongs.
    Written,
    /// Nothing came back.
    Lost(Failure),
    /// It was not sent: whoever gives the token for it does not know us.
    Unauthorized(Failure),
    /// It cannot be sent at all.
    Unsendable(Failure),
}

/// Parts of one reply that a rule looks at: one for each item that a batch can have.
const PARTS_MAX: usize = 100_000;

// === impl Destination ===

impl Destination {
    /// One outcome per item of the batch that got this reply.
    #[must_use]
    pub fn judge(&self, reply: &Reply, items: usize, now: Timestamp) -> Vec<Outcome> {
        let (status, headers, body, news) = match reply {
            Reply::Written => return vec![Outcome::Delivered; items],
            Reply::Lost(failure) => return vec![Outcome::Failed(self.redacted(failure)); items],
            Reply::Unauthorized(failure) => return vec![Outcome::Unauthorized(self.redacted(failure)); items],
            Reply::Unsendable(failure) => return vec![Outcome::Refused(self.redacted(failure)); items],
            Reply::Answered { status, headers, body, news } => (*status, headers, body, news.as_deref()),
        };
        let is_plain = matches!(self.kind, DestinationKind::Http);
        if is_plain && self.responses.is_empty() && is_success(status) {
            return vec![Outcome::Delivered; items];
        }
        let secrets = self.secrets();
        let failure = redacted(&secrets, failure_of(status, headers, body, now));
        let by_rules = if self.responses.is_empty() {
            None
        } else {
            self.judge_by_rules(reply_json(status, headers, body), items, status, &failure, &secrets)
        };
        by_rules.unwrap_or_else(|| match &self.kind {
            DestinationKind::BigQuery(settings) => {
                let outcomes = settings.judge(status, body, items, failure, news);
                outcomes.into_iter().map(|outcome| outcome.map_failure(|failure| redacted(&secrets, failure))).collect()
            }
            DestinationKind::Http | DestinationKind::File(_) | DestinationKind::Stdout => {
                vec![judge_status(status, items, failure); items]
            }
        })
    }

    fn judge_by_rules(
        &self,
        reply: Json,
        items: usize,
        status: u16,
        failure: &Failure,
        secrets: &Secrets,
    ) -> Option<Vec<Outcome>> {
        let scope = Scope::reply(&self.names, Arc::new(reply));
        let detail = format!("status {status}: {}", failure.detail);
        let failure = Failure { reason: Reason::Response, detail, ..failure.clone() };
        self.responses.iter().find_map(|rule| match rule.judge(&scope, secrets, items, &failure) {
            Ok(outcomes) => outcomes,
            Err(error) => Some(vec![Outcome::Failed(redacted(secrets, rule_failed(&error, &failure))); items]),
        })
    }

    fn redacted(&self, failure: &Failure) -> Failure {
        redacted(&self.secrets(), failure.clone())
    }
}

fn redacted(secrets: &Secrets, failure: Failure) -> Failure {
    Failure { detail: secrets.excerpt(&failure.detail), ..failure }
}

/// The general table, for replies that no rule of the file speaks of.
///
/// 413 is "too large" by RFC 9110, 15.5.14; 529 is what several vendors answer when overloaded. A batch whose content is
/// refused (400, 422) is halved until the culprit is alone: one bad event must not take its neighbours along. Redirects
/// are not followed: a POST that moves is a mistake in the file.
fn judge_status(status: u16, items: usize, failure: Failure) -> Outcome {
    match status {
        _ if is_success(status) => Outcome::Delivered,
        401 | 403 => Outcome::Unauthorized(failure),
        413 => Outcome::Split(failure),
        400 | 422 if items > 1 => Outcome::Split(failure),
        408 | 425 | 429 | 500 | 502 | 503 | 504 | 529 => Outcome::Failed(failure),
        _ => Outcome::Refused(failure),
    }
}

fn is_success(status: u16) -> bool {
    (200..=299).contains(&status)
}

/// What an answer with this status says of itself.
pub(super) fn failure_of(status: u16, headers: &[(String, String)], body: &[u8], now: Timestamp) -> Failure {
    let retry_after = headers.iter().find(|(name, _)| name == "retry-after");
    Failure {
        reason: Reason::Status(status),
        detail: searched(body).trim().to_owned(),
        retry_after: retry_after.and_then(|(_, value)| parse_retry_after(value, now)),
        trace: None,
    }
}

/// `Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3); a time gone by is no wait.
fn parse_retry_after(value: &str, now: Timestamp) -> Option<SignedDuration> {
    if let Ok(seconds) = value.trim().parse::<u32>() {
        return Some(SignedDuration::from_secs(seconds.into()));
    }
    let at = rfc2822::parse(value.trim()).ok()?.timestamp();
    Some(at.duration_since(now).max(SignedDuration::ZERO))
}

/// `{ status, headers, body }`: a body that is JSON is opened, any other is text.
fn reply_json(status: u16, headers: &[(String, String)], body: &[u8]) -> Json {
    let headers: Map<String, Json> =
        headers.iter().map(|(name, value)| (name.clone(), Json::String(value.clone()))).collect();
    let body =
        serde_json::from_slice(body).unwrap_or_else(|_| Json::String(String::from_utf8_lossy(body).into_owned()));
    serde_json::json!({ "status": status, "headers": headers, "body": body })
}

fn rule_failed(error: &EvalError, failure: &Failure) -> Failure {
    Failure { detail: format!("a response rule failed ({error}) on {}", failure.detail), ..failure.clone() }
}

// === impl ResponseRule ===

impl ResponseRule {
    /// The outcomes, if the rule speaks of this reply. With `each` it does when there is something to speak of.
    fn judge(
        &self,
        scope: &Scope,
        secrets: &Secrets,
        items: usize,
        failure: &Failure,
    ) -> Result<Option<Vec<Outcome>>, EvalError> {
        for condition in &self.when {
            if !condition.holds(scope)? {
                return Ok(None);
            }
        }
        let Some(each) = &self.each else {
            let outcome = self.then(scope)?.outcome(failure);
            return Ok(Some(vec![outcome; items]));
        };
        let parts = scope.select(each, PARTS_MAX)?;
        if parts.is_empty() {
            return Ok(None);
        }
        let mut outcomes = vec![self.rest.outcome(failure); items];
        for (position, part) in parts.into_iter().enumerate() {
            let scope = scope.with_item(part.clone(), position);
            let index = self.index_of(&scope, position)?;
            if let Some(outcome) = outcomes.get_mut(index) {
                let detail = secrets.excerpt(&value_text(&part)?);
                *outcome = self.then(&scope)?.outcome(&Failure { detail, ..failure.clone() });
            }
        }
        Ok(Some(outcomes))
    }

    fn index_of(&self, scope: &Scope, position: usize) -> Result<usize, EvalError> {
        let Some(index) = &self.index else { return Ok(position) };
        let not_a_place = || EvalError { message: "`index` gave no place in the batch".to_owned(), range: None };
        index.value(scope)?.as_usize().ok_or_else(not_a_place)
    }

    fn then(&self, scope: &Scope) -> Result<Then, EvalError> {
        let value = self.then.value(scope)?;
        let unknown = || {
            let given = value_text(&value).map_or_else(|_| "too much".to_owned(), |text| excerpt(&text));
            let message = format!("`then` gave {given}, which is none of ok, retry, split, dead, drop, pause");
            EvalError { message, range: None }
        };
        value.as_str().and_then(Then::from_word).ok_or_else(unknown)
    }
}

fn value_text(value: &Value) -> Result<String, EvalError> {
    let mut json = Vec::new();
    template::write_json(value, Omit::Nothing, &mut json)?;
    Ok(String::from_utf8_lossy(&json).into_owned())
}

// === impl Then ===

impl Then {
    fn outcome(self, failure: &Failure) -> Outcome {
        let failure = failure.clone();
        match self {
            Self::Ok => Outcome::Delivered,
            Self::Retry => Outcome::Failed(failure),
            Self::Split => Outcome::Split(failure),
            Self::Dead => Outcome::Refused(failure),
            Self::Drop => Outcome::Dropped,
            Self::Pause => Outcome::Unauthorized(failure),
        }
    }
}
