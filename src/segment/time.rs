//! Timestamps as SDKs write them, read into instants and written in one way. It knows no clock.

use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

static MAIL: rfc2822::DateTimeParser = rfc2822::DateTimeParser::new().relaxed_weekday(true);

/// Reads a timestamp in any of the ways SDKs and people write one; `None` if it is none.
///
/// Taken: RFC 3339 and ISO 8601 with any offset (`…558Z`, `…+00:00`, `…+0200`, a space for the `T`, up to nine digits
/// of a second), without an offset (UTC), a date alone, one-digit months, days and hours, `… UTC`, seconds or
/// milliseconds since 1970 as digits, RFC 2822, and JavaScript's `Date.toString()`. Years before 0 are refused: RFC
/// 3339 cannot write them.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let instant = parse_usual(text).or_else(|| text.parse().ok()).or_else(|| parse_rarer(text))?;
    is_writable(instant).then_some(instant)
}

/// Reads `2026-11-22T21:05:57.608Z` and nothing else: what JavaScript writes, and with it most of what arrives. There are
/// two or three in an event, and to read them in all ways that there are costs ten times as much.
fn parse_usual(text: &str) -> Option<Timestamp> {
    const MARKS: [(usize, u8); 7] = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')];
    let text: &[u8; 24] = text.as_bytes().try_into().ok()?;
    if MARKS.iter().any(|(at, mark)| text[*at] != *mark) {
        return None;
    }
    let two = |at: usize| i8::try_from(digits(&text[at..at + 2])?).ok();
    let year = i16::try_from(digits(&text[..4])?).ok()?;
    let date = Date::new(year, two(5)?, two(8)?).ok()?;
    let time = Time::new(two(11)?, two(14)?, two(17)?, digits(&text[20..23])? * 1_000_000).ok()?;
    Offset::UTC.to_timestamp(date.to_datetime(time)).ok()
}

/// A number of a few digits.
fn digits(text: &[u8]) -> Option<i32> {
    text.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i32::from(digit - b'0')))
}

#[cold]
fn parse_rarer(text: &str) -> Option<Timestamp> {
    parse_epoch(text)
        .or_else(|| parse_without_zone(text))
        .or_else(|| parse_loose(text))
        .or_else(|| MAIL.parse_timestamp(text).ok())
        .or_else(|| parse_javascript(text))
}

/// Reads a JSON number, or its digits in a string: seconds since 1970, or thousandths, millionths or billionths of one,
/// whichever lands in this age.
pub(super) fn parse_epoch(number: &str) -> Option<Timestamp> {
    let Ok(whole) = number.parse::<i64>() else { return parse_fractional_epoch(number) };
    // A year or a compact date such as 20240102 is no count of seconds that anybody would send.
    if number.len() < 9 && !(whole == 0 && number.len() == 1) {
        return None;
    }
    let instant = match whole.unsigned_abs() {
        0..100_000_000_000 => Timestamp::from_second(whole),
        100_000_000_000..100_000_000_000_000 => Timestamp::from_millisecond(whole),
        100_000_000_000_000..100_000_000_000_000_000 => Timestamp::from_microsecond(whole),
        100_000_000_000_000_000.. => Timestamp::from_nanosecond(i128::from(whole)),
    };
    instant.ok().filter(|&instant| is_writable(instant))
}

fn parse_fractional_epoch(number: &str) -> Option<Timestamp> {
    let (whole, fraction) = number.split_once('.')?;
    let base = parse_epoch(whole).filter(|_| fraction.bytes().all(|byte| byte.is_ascii_digit()))?;
    // A float of this size is noise below a microsecond: six digits of a second, three of a millisecond.
    let digits_kept = if whole.trim_start_matches('-').len() < 12 { 6 } else { 3 };
    let padded = format!("{fraction:0<digits_kept$}");
    let micros: u32 = padded.get(..digits_kept)?.parse().ok()?;
    let offset = SignedDuration::from_micros(i64::from(micros));
    let instant = if whole.starts_with('-') { base.checked_sub(offset) } else { base.checked_add(offset) };
    instant.ok().filter(|&instant| is_writable(instant))
}

fn parse_without_zone(text: &str) -> Option<Timestamp> {
    let civil: DateTime = text.parse().ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// `2015-2-02T0:30:08`, `2012-12-02 00:30:08 +0000`, `… UTC`: spelled out in full, then read again.
fn parse_loose(text: &str) -> Option<Timestamp> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, time.trim()),
        None => (text, "00:00:00"),
    };
    let mut parts = date.splitn(3, ['-', '/']);
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let numeric = [year, month, day].iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if !numeric || year.len() != 4 {
        return None;
    }
    let time = time.replace(" UTC", "Z").replace(" GMT", "Z").replace(' ', "");
    let hour_pad = if time.find(':') == Some(1) { "0" } else { "" };
    let spelled = format!("{year}-{month:0>2}-{day:0>2}T{hour_pad}{time}");
    spelled.parse().ok().or_else(|| parse_without_zone(&spelled))
}

/// `Wed Oct 05 2011 14:48:00 GMT+0200 (Central European Summer Time)`; the day of the week is not checked.
fn parse_javascript(text: &str) -> Option<Timestamp> {
    let (_weekday, rest) = text.split_once(' ')?;
    let rest = rest.split(" (").next().unwrap_or(rest);
    strtime::parse("%b %d %Y %H:%M:%S GMT%z", rest).ok()?.to_timestamp().ok()
}

fn is_writable(instant: Timestamp) -> bool {
    /// 0000-01-01T00:00:00Z.
    const YEAR_0_SECONDS: i64 = -62_167_219_200;
    instant.as_second() >= YEAR_0_SECONDS
}

/// The instant without what is finer than a millisecond.
pub(super) fn whole_milliseconds(instant: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(instant.as_millisecond()).unwrap_or(instant)
}

/// When it really happened, by the server's clock: the client's clock may be wrong, but it is as wrong at `sent` as it
/// was at `original` (<https://segment.com/docs/connections/spec/common/#timestamps>, read 2026-11-22).
///
/// Falls back to `original` where the correction leaves the years 0 to 9999.
pub(super) fn corrected(original: Timestamp, sent: Option<Timestamp>, received: Timestamp) -> Timestamp {
    let Some(sent) = sent else { return original };
    let corrected = received.checked_sub(sent.duration_since(original)).ok();
    corrected.filter(|&instant| is_writable(instant)).unwrap_or(original)
}

/// Writes an instant in quotes as we write every one, RFC 3339 in UTC: with milliseconds, or with micro- or nanoseconds
/// where it has them.
pub(super) fn push_quoted(out: &mut Vec<u8>, instant: Timestamp) {
    let at = Offset::UTC.to_datetime(instant);
    let nanos = at.subsec_nanosecond().unsigned_abs();
    let mut text = *b"\"0000-00-00T00:00:00.000000000";
    put_digits(&mut text[1..5], at.year().unsigned_abs().into());
    for (start, number) in [(6, at.month()), (9, at.day()), (12, at.hour()), (15, at.minute()), (18, at.second())] {
        put_digits(&mut text[start..start + 2], number.unsigned_abs().into());
    }
    let (digits, fraction) = match (nanos % 1_000_000, nanos % 1_000) {
        (0, _) => (3, nanos / 1_000_000),
        (_, 0) => (6, nanos / 1_000),
        _ => (9, nanos),
    };
    put_digits(&mut text[21..21 + digits], fraction);
    out.extend_from_slice(&text[..21 + digits]);
    out.extend_from_slice(b"Z\"");
}

/// Fills the room with a number's last digits.
fn put_digits(room: &mut [u8], mut number: u32) {
    for digit in room.iter_mut().rev() {
        *digit = b"0123456789"[(number % 10) as usize];
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use proptest::prelude::*;

    use super::*;

    fn normal(text: &str) -> Option<String> {
        let mut out = Vec::new();
        push_quoted(&mut out, parse(text)?);
        Some(String::from_utf8(out).unwrap().trim_matches('"').to_owned())
    }

    #[test]
    fn every_way_an_sdk_writes_a_time_is_read() {
        for (written, expected) in [
            ("2026-11-22T21:05:36.558Z", "2026-11-22T21:05:36.558Z"),
            ("2026-11-22T21:05:36.267+00:00", "2026-11-22T21:05:36.267Z"),
            ("2026-11-22T21:05:36.268990+00:00", "2026-11-22T21:05:36.268990Z"),
            ("2026-11-22T21:05:36.305637178Z", "2026-11-22T21:05:36.305637178Z"),
            ("2026-11-22T21:05:54+00:00", "2026-11-22T21:05:54.000Z"),
            ("2026-11-22T22:05:36.1234567+01:00", "2026-11-22T21:05:36.123456700Z"),
            ("2026-11-22T14:05:36.000000-0700", "2026-11-22T21:05:36.000Z"),
            ("2026-11-22 21:05:36Z", "2026-11-22T21:05:36.000Z"),
            ("2015-2-02T00:30:08.276Z", "2015-02-02T00:30:08.276Z"),
            ("2015-2-2", "2015-02-02T00:00:00.000Z"),
            ("2026-11-22T21:05:36", "2026-11-22T21:05:36.000Z"),
            ("2026-11-22", "2026-11-22T00:00:00.000Z"),
            ("2012-12-02 00:30:08 +0000", "2012-12-02T00:30:08.000Z"),
            ("2012-12-02 00:30:08 UTC", "2012-12-02T00:30:08.000Z"),
            ("1700000000", "2023-11-14T22:13:20.000Z"),
            ("1700000000123", "2023-11-14T22:13:20.123Z"),
            ("1700000000.5", "2023-11-14T22:13:20.500Z"),
            ("1700000000123456", "2023-11-14T22:13:20.123456Z"),
            ("Wed, 05 Oct 2011 14:48:00 +0200", "2011-10-05T12:48:00.000Z"),
            ("Wed, 05 Oct 2011 14:48:00 GMT", "2011-10-05T14:48:00.000Z"),
            ("Wed Oct 05 2011 14:48:00 GMT+0200 (Central European Summer Time)", "2011-10-05T12:48:00.000Z"),
            ("Wed Oct 05 2011 14:48:00 GMT+0200", "2011-10-05T12:48:00.000Z"),
        ] {
            assert_eq!(normal(written).as_deref(), Some(expected), "{written}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for written in ["", "yesterday", "2026-13-01", "42", "-000044-03-15T00:00:00Z", "NaN", "1e400", "2026", "{}"] {
            assert_eq!(normal(written), None, "{written}");
        }
    }

    #[test]
    fn the_documented_example_of_skew_comes_out() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (received, sent) = (at("2026-01-01T12:00:05Z"), at("2026-01-01T12:05:00Z"));
        let original = at("2026-01-01T12:04:50Z");
        assert_eq!(corrected(original, Some(sent), received), at("2026-01-01T11:59:55Z"));
        assert_eq!(corrected(original, None, received), original);
    }

    prop_compose! {
        fn instant()(milliseconds in -60_000_000_000_000_i64..250_000_000_000_000) -> Timestamp {
            Timestamp::from_millisecond(milliseconds).unwrap()
        }
    }

    proptest! {
        #[test]
        fn the_gap_between_happening_and_arriving_is_kept(original in instant(), sent in instant(), received in instant()) {
            let timestamp = corrected(original, Some(sent), received);
            let is_kept = received.duration_since(timestamp) == sent.duration_since(original);
            prop_assert!(is_kept || timestamp == original);
        }

        #[test]
        fn a_clock_that_is_right_changes_nothing(original in instant(), now in instant()) {
            prop_assert_eq!(corrected(original, Some(now), now), original);
        }

        #[test]
        fn how_wrong_the_clock_is_does_not_matter(gap in 0..10_000_000_i64, skew in -10_000_000_000_i64..10_000_000_000) {
            let received = Timestamp::from_millisecond(1_800_000_000_000).unwrap();
            let skewed = received + SignedDuration::from_millis(skew);
            let original = skewed - SignedDuration::from_millis(gap);
            prop_assert_eq!(corrected(original, Some(skewed), received), received - SignedDuration::from_millis(gap));
        }

        #[test]
        fn what_we_write_we_read(seconds in -62_167_219_200_i64..253_402_207_200, nanos in 0..1_000_000_000_i32) {
            let instant = Timestamp::new(seconds, nanos).unwrap();
            let mut out = Vec::new();
            push_quoted(&mut out, instant);
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(parse(text.trim_matches('"')), Some(instant));
        }

        #[test]
        fn the_usual_way_is_read_as_it_always_was(
            text in "[0-2][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\\.[0-9]{3}Z",
            at in 0..24_usize,
            other in "[ -~]",
        ) {
            prop_assert!(parse_usual(&text).is_none_or(|instant| text.parse().ok() == Some(instant)), "{}", text);
            let mut text = text;
            text.replace_range(at..=at, &other);
            prop_assert!(parse_usual(&text).is_none_or(|instant| text.parse().ok() == Some(instant)), "{}", text);
        }

        #[test]
        fn an_instant_is_written_as_jiff_writes_it(
            seconds in -62_167_219_200_i64..253_402_207_200,
            nanos in prop_oneof![(0..1000).prop_map(|n| n * 1_000_000), (0..1_000_000).prop_map(|n| n * 1000), 0..1_000_000_000],
        ) {
            let instant = Timestamp::new(seconds, nanos).unwrap();
            let mut out = Vec::new();
            push_quoted(&mut out, instant);
            let precision = (3..=9).step_by(3).find(|digits| nanos % 10_i32.pow(9 - digits) == 0).unwrap();
            let expected = format!("{instant:.precision$}", precision = precision as usize);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("\"{expected}\""));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,40}", digits in "-?[0-9]{0,40}\\.?[0-9]{0,20}") {
            let _ = (parse(&text), parse(&digits), parse_epoch(&digits));
        }
    }
}
