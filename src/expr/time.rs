//! Timestamps as they occur in events and in the fields people put into them. Pure: nobody asks what time it is.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;
use minijinja::Value;

use super::{excerpt, text};

/// Reads a point in time: RFC 3339 (a missing zone is UTC, a missing time midnight), RFC 2822, or a count since 1970
/// whose unit its size gives away: seconds below 10^11, then milliseconds, microseconds, nanoseconds.
///
/// # Errors
/// A fragment with an excerpt of what is not a time.
pub(super) fn parse(value: &Value) -> Result<Timestamp, String> {
    if value.is_number() {
        let count = f64::try_from(value.clone()).unwrap_or(f64::NAN);
        return from_count(i64::try_from(value.clone()).ok(), count).ok_or_else(|| not_a_time(value));
    }
    value.as_str().and_then(from_text).ok_or_else(|| not_a_time(value))
}

fn not_a_time(value: &Value) -> String {
    format!("not a timestamp: `{}`", excerpt(&text::of(value).unwrap_or_default()))
}

fn from_text(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    if let Ok(at) = text.parse::<DateTime>() {
        return at.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    }
    if let Ok(at) = text.parse::<Date>() {
        return at.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    }
    if let Ok(count) = text.parse::<f64>() {
        return from_count(text.parse().ok(), count);
    }
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

fn from_count(int: Option<i64>, count: f64) -> Option<Timestamp> {
    let magnitude = count.abs();
    let per_second: i64 = match magnitude {
        _ if magnitude < 1e11 => 1,
        _ if magnitude < 1e14 => 1_000,
        _ if magnitude < 1e17 => 1_000_000,
        _ => 1_000_000_000,
    };
    match int {
        Some(int) => Timestamp::from_nanosecond(i128::from(int) * i128::from(1_000_000_000 / per_second)).ok(),
        None => from_fraction(count, per_second),
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a fraction of a microsecond is noise"
)]
fn from_fraction(count: f64, per_second: i64) -> Option<Timestamp> {
    let micros = (count / per_second as f64 * 1e6).round();
    if micros.is_finite() { Timestamp::from_microsecond(micros as i64).ok() } else { None }
}
