//! Durations and sizes as people write them: `"10s"`, `"9MB"`.

use std::time::Duration;

/// Why a text is no quantity, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoQuantity {
    /// A fragment.
    pub message: String,
    /// A whole text that would do, if one can be guessed.
    pub instead: Option<String>,
}

/// Unit and milliseconds.
const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Unit and bytes: powers of ten without `i`, of two with it, as in ISO/IEC 80000.
const SIZES: [(&str, u64); 10] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// What people write for a unit and what it is called here.
const OTHER_NAMES: [(&str, &str); 18] = [
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("min", "m"),
    ("mins", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("hr", "h"),
    ("hour", "h"),
    ("hours", "h"),
    ("day", "d"),
    ("days", "d"),
    ("k", "KB"),
    ("mb", "MB"),
    ("gb", "GB"),
    ("mib", "MiB"),
    ("byte", "B"),
];

/// Reads `"250ms"`, `"1s"`, `"10m"`, `"24h"`, `"7d"`: a whole number and a unit.
///
/// # Errors
/// For anything else, with the text that was probably meant.
pub(crate) fn duration(text: &str) -> Result<Duration, NoQuantity> {
    quantity(text, &DURATIONS, "a duration", "s").map(Duration::from_millis)
}

/// Reads `"512KiB"`, `"9MB"`: a whole number and a unit, in bytes.
///
/// # Errors
/// For anything else, with the text that was probably meant.
pub(super) fn size(text: &str) -> Result<u64, NoQuantity> {
    quantity(text, &SIZES, "a size", "MB")
}

/// The units of durations.
pub(super) fn duration_units() -> impl Iterator<Item = &'static str> {
    DURATIONS.iter().map(|(unit, _)| *unit)
}

/// The units of sizes.
pub(super) fn size_units() -> impl Iterator<Item = &'static str> {
    SIZES.iter().map(|(unit, _)| *unit)
}

/// A duration as it would be written: in its largest whole unit.
pub(crate) fn written_duration(duration: Duration) -> String {
    written(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATIONS)
}

/// A size as it would be written: in its largest whole unit.
pub(super) fn written_size(bytes: u64) -> String {
    written(bytes, &SIZES)
}

fn written(amount: u64, units: &[(&str, u64)]) -> String {
    let whole = units.iter().filter(|(_, factor)| amount >= *factor && amount.is_multiple_of(*factor));
    let (unit, factor) = whole.max_by_key(|(_, factor)| *factor).copied().unwrap_or(units[0]);
    format!("{}{unit}", amount / factor)
}

fn quantity(text: &str, units: &[(&str, u64)], what: &str, usual: &str) -> Result<u64, NoQuantity> {
    let digits_len = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (digits, unit) = text.split_at(digits_len);
    if text.is_empty() {
        return Err(no_quantity(format!("{what} is missing: a whole number and a unit"), None));
    }
    if digits.is_empty() || unit.starts_with(['.', ',']) {
        return Err(no_quantity(format!("`{text}` is not {what}: it must be a whole number and a unit"), None));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(wrong_unit(text, digits, unit, units, usual));
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(*factor))
        .ok_or_else(|| no_quantity(format!("`{text}` is too large for {what}"), None))
}

fn wrong_unit(text: &str, digits: &str, unit: &str, units: &[(&str, u64)], usual: &str) -> NoQuantity {
    let names = units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let trimmed = unit.trim();
    if trimmed.is_empty() {
        return no_quantity(format!("`{text}` has no unit (one of {names})"), Some(format!("{digits}{usual}")));
    }
    let lower = trimmed.to_lowercase();
    let known = |name: &&str| units.iter().any(|(unit, _)| unit == name);
    let exact = units.iter().map(|(name, _)| *name).find(|name| *name == trimmed);
    let other = OTHER_NAMES.iter().find(|(name, _)| *name == lower).map(|(_, meant)| *meant).filter(known);
    let same_letters = || units.iter().map(|(name, _)| *name).rfind(|name| name.to_lowercase() == lower);
    let meant = other.or_else(same_letters);
    if let Some(unit) = exact {
        return no_quantity(format!("`{text}` has a blank in it"), Some(format!("{digits}{unit}")));
    }
    no_quantity(format!("`{trimmed}` is not a unit (one of {names})"), meant.map(|unit| format!("{digits}{unit}")))
}

fn no_quantity(message: String, instead: Option<String>) -> NoQuantity {
    NoQuantity { message, instead }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use std::time::Duration;

    use super::{duration, size, written_duration, written_size};

    #[test]
    fn every_unit_of_time_is_read() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(duration("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(duration("24h"), Ok(Duration::from_hours(24)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(168)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn sizes_are_powers_of_ten_unless_they_say_i() {
        assert_eq!(size("9MB"), Ok(9_000_000));
        assert_eq!(size("512KiB"), Ok(524_288));
        assert_eq!(size("1KB"), size("1kB"));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("0B"), Ok(0));
    }

    #[test]
    fn a_missing_or_odd_unit_is_told_with_what_was_meant() {
        let instead = |result: Result<Duration, super::NoQuantity>| result.unwrap_err().instead;
        assert_eq!(instead(duration("30")), Some("30s".to_owned()));
        assert_eq!(instead(duration("30 s")), Some("30s".to_owned()));
        assert_eq!(instead(duration("5 minutes")), Some("5m".to_owned()));
        assert_eq!(instead(duration("5y")), None);
        assert_eq!(size("9mb").unwrap_err().instead, Some("9MB".to_owned()));
        assert_eq!(size("9kib").unwrap_err().instead, Some("9KiB".to_owned()));
        assert_eq!(size("10").unwrap_err().instead, Some("10MB".to_owned()));
    }

    #[test]
    fn quantities_are_told_in_their_largest_whole_unit() {
        assert_eq!(written_duration(Duration::from_mins(10)), "10m");
        assert_eq!(written_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(written_duration(Duration::ZERO), "0ms");
        assert_eq!(written_size(524_288), "512KiB");
        assert_eq!(written_size(9_000_000), "9MB");
        assert_eq!(written_size(7), "7B");
    }

    #[test]
    fn no_text_makes_it_panic_or_overflow() {
        for text in ["", "s", "-1s", "1.5s", "１s", "99999999999999999999s", "18446744073709551615d", "1é", "ms"] {
            assert!(duration(text).is_err(), "{text}");
            assert!(size(text).is_err(), "{text}");
        }
    }
}
