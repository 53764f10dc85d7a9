//! What an answer of BigQuery's means, row by row.
//!
//! The words are those of <https://cloud.google.com/bigquery/docs/error-messages>, and what is to be done about them is
//! from there and <https://cloud.google.com/bigquery/docs/streaming-data-into-bigquery#troubleshooting> (read 2026-11-26).

use gcp_bigquery_client::model::error_proto::ErrorProto;
use gcp_bigquery_client::model::table_data_insert_all_response::TableDataInsertAllResponse;
use jiff::SignedDuration;
use serde_json::Value as Json;

use super::BigQuery;
use crate::attempt::{Failure, Outcome, Reason};

/// What became of a table because of an answer: it was made, or was to get new columns.
#[derive(Clone, Debug, PartialEq)]
pub struct TableNews {
    /// The status that its service answered; `None`: it did not answer.
    pub status: Option<u16>,
    /// What it said, as text.
    pub said: String,
    /// The columns that it has or will have, in lowercase, those within columns as paths: `product.sku`.
    pub columns: Vec<String>,
}

/// What the sink is to do because of an answer, before anybody judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Nothing,
    /// Make the table.
    Make,
    /// Give the table the columns that these rows of the request have and it has not.
    Extend(Vec<usize>),
}

/// Rows that wait for their table wait at least so long: a new table or column is known everywhere after minutes.
const HELD: SignedDuration = SignedDuration::from_secs(5);

/// Reasons of a row's error that another try may mend.
const PASSING: [&str; 6] =
    ["backendError", "internalError", "rateLimitExceeded", "quotaExceeded", "stopped", "timeout"];

/// Reasons of a 400 or 403 that say "too fast", and not "wrong".
const TOO_FAST: [&str; 4] = ["rateLimitExceeded", "quotaExceeded", "jobRateLimitExceeded", "userRateLimitExceeded"];

/// How BigQuery names a column that a table has not.
const NO_SUCH_FIELD: &str = "no such field";

// === impl BigQuery ===

impl BigQuery {
    /// What there is to be done about an answer.
    #[must_use]
    pub fn wish(&self, status: u16, body: &[u8]) -> Wish {
        if status == 404 && self.creates_tables {
            return Wish::Make;
        }
        if !self.adds_columns || !(200..=299).contains(&status) {
            return Wish::Nothing;
        }
        let lacking: Vec<usize> = row_errors(body)
            .into_iter()
            .flatten()
            .filter(|row| row.errors.iter().any(|error| unknown_field(error).is_some()))
            .map(|row| row.index)
            .collect();
        if lacking.is_empty() { Wish::Nothing } else { Wish::Extend(lacking) }
    }

    /// One outcome per row. `failure` is the answer as it stands.
    #[must_use]
    pub fn judge(
        &self,
        status: u16,
        body: &[u8],
        rows: usize,
        failure: Failure,
        news: Option<&TableNews>,
    ) -> Vec<Outcome> {
        if (200..=299).contains(&status) {
            return self.judge_rows(body, rows, &failure, news);
        }
        let reason = service_error(body);
        let failure = Failure { detail: reason.as_ref().map_or(failure.detail.clone(), told), ..failure };
        let is_too_fast = reason.is_some_and(|error| TOO_FAST.contains(&error.reason.as_deref().unwrap_or_default()));
        let outcome = match status {
            400 | 403 if is_too_fast => Outcome::Failed(failure),
            401 | 403 => Outcome::Unauthorized(failure),
            404 => self.judge_missing(failure, news),
            413 => Outcome::Split(failure),
            400 if rows > 1 => Outcome::Split(failure),
            408 | 409 | 425 | 429 | 500..=599 => Outcome::Failed(failure),
            _ => Outcome::Refused(failure),
        };
        vec![outcome; rows]
    }

    fn judge_rows(&self, body: &[u8], rows: usize, failure: &Failure, news: Option<&TableNews>) -> Vec<Outcome> {
        let Some(errors) = row_errors(body) else {
            let failure =
                Failure { detail: format!("an answer that cannot be read: {}", failure.detail), ..failure.clone() };
            // One that is cut because it is so long is shorter for fewer rows.
            let is_cut = rows > 1 && body.first() == Some(&b'{');
            return vec![if is_cut { Outcome::Split(failure) } else { Outcome::Failed(failure) }; rows];
        };
        let mut outcomes = vec![Outcome::Delivered; rows];
        for RowErrors { index, errors } in errors {
            if let Some(outcome) = outcomes.get_mut(index) {
                let detail = errors.iter().map(told).collect::<Vec<_>>().join("; ");
                let failure = Failure { reason: Reason::Response, detail, ..failure.clone() };
                *outcome = self.judge_row(&errors, failure, news);
            }
        }
        outcomes
    }

    fn judge_row(&self, errors: &[ErrorProto], failure: Failure, news: Option<&TableNews>) -> Outcome {
        let is_passing = |error: &ErrorProto| PASSING.contains(&error.reason.as_deref().unwrap_or_default());
        let unknown = errors.iter().find_map(unknown_field).filter(|_| self.adds_columns);
        match unknown {
            Some(field) => judge_unknown(&field, failure, news),
            None if errors.iter().all(is_passing) => Outcome::Failed(failure),
            None => Outcome::Refused(failure),
        }
    }

    /// No table, or one that was made a minute ago.
    fn judge_missing(&self, failure: Failure, news: Option<&TableNews>) -> Outcome {
        let Some(news) = news else {
            return match (self.creates_tables, self.has_one_table) {
                (true, _) => held(failure),
                (false, true) => Outcome::Unauthorized(failure),
                (false, false) => Outcome::Failed(failure),
            };
        };
        let failure = Failure { detail: format!("{}; making it: {}", failure.detail, news.said), ..failure };
        match news.status {
            None | Some(200..=299 | 408 | 409 | 425 | 429 | 500..=599) => held(failure),
            Some(_) if self.has_one_table => Outcome::Unauthorized(failure),
            Some(401 | 403) => Outcome::Unauthorized(failure),
            // What is wrong with this table is wrong with its own rows.
            Some(_) => Outcome::Refused(failure),
        }
    }
}

/// A column that the table has not, and that is to be added.
fn judge_unknown(field: &str, failure: Failure, news: Option<&TableNews>) -> Outcome {
    let Some(news) = news else { return held(failure) };
    let failure = Failure { detail: format!("{}; adding it: {}", failure.detail, news.said), ..failure };
    match news.status {
        None | Some(408 | 409 | 412 | 425 | 429 | 500..=599) => held(failure),
        Some(401 | 403) => Outcome::Unauthorized(failure),
        Some(200..=299) if news.columns.contains(&field.to_ascii_lowercase()) => held(failure),
        Some(_) => Outcome::Refused(failure),
    }
}

fn held(failure: Failure) -> Outcome {
    let retry_after = failure.retry_after.unwrap_or(HELD).max(HELD);
    Outcome::Held(Failure { retry_after: Some(retry_after), ..failure })
}

/// What is wrong with one row.
struct RowErrors {
    index: usize,
    errors: Vec<ErrorProto>,
}

/// `insertErrors` of an answer; `None` when it is none of BigQuery's.
fn row_errors(body: &[u8]) -> Option<Vec<RowErrors>> {
    if body.trim_ascii().is_empty() {
        return Some(Vec::new());
    }
    let answer: TableDataInsertAllResponse = serde_json::from_slice(body).ok()?;
    let rows = answer.insert_errors.unwrap_or_default().into_iter();
    let rows = rows.map(|row| {
        let index = usize::try_from(row.index.unwrap_or_default()).ok()?;
        Some(RowErrors { index, errors: row.errors.unwrap_or_default() })
    });
    rows.collect()
}

/// The field that a table has not: BigQuery says `no such field: a.b.`, and names it as the location.
fn unknown_field(error: &ErrorProto) -> Option<String> {
    let message = error.message.as_deref()?;
    let begin = message.get(..NO_SUCH_FIELD.len()).filter(|begin| begin.eq_ignore_ascii_case(NO_SUCH_FIELD))?;
    let told = message[begin.len()..].trim_matches([':', '.', ' ']);
    let location = error.location.as_deref().filter(|location| !location.is_empty());
    Some(if told.is_empty() { location.unwrap_or_default() } else { told }.to_owned())
}

/// The first error of an answer that is one as a whole: `{"error": {"errors": [{"reason": …}], "message": …}}`.
fn service_error(body: &[u8]) -> Option<ErrorProto> {
    let answer: Json = serde_json::from_slice(body).ok()?;
    let error = answer.get("error")?;
    let first = error["errors"].get(0).unwrap_or(error);
    let text = |key: &str| first[key].as_str().or_else(|| error[key].as_str()).map(str::to_owned);
    Some(ErrorProto {
        reason: text("reason").or_else(|| text("status")),
        message: text("message"),
        location: None,
        debug_info: None,
    })
}

/// An error for people: `invalid: timestamp: Cannot parse …`.
fn told(error: &ErrorProto) -> String {
    let parts = [&error.reason, &error.location, &error.message];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.join(": ")
}
