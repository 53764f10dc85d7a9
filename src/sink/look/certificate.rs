//! Until when a certificate is good: the one thing of it that TLS does not tell.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

/// The tags that are met on the way (X.690, 8; RFC 5280, 4.1).
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` of a certificate in DER; `None`: it is none that we can read.
pub(super) fn not_after(der: &[u8]) -> Option<Timestamp> {
    let certificate = Element::of(&mut &*der, SEQUENCE)?;
    let mut rest = Element::of(&mut &*certificate, SEQUENCE)?;
    let (tag, _) = element(&mut rest)?;
    // The version may be left out; then the serial number was the first.
    let before_validity = if tag == VERSION { 3 } else { 2 };
    for _ in 0..before_validity {
        element(&mut rest)?;
    }
    let mut validity = Element::of(&mut rest, SEQUENCE)?;
    element(&mut validity)?;
    let (tag, time) = element(&mut validity)?;
    moment(tag, std::str::from_utf8(time).ok()?)
}

/// A value of one kind.
struct Element;

impl Element {
    /// The content of the next value, if it has this tag.
    fn of<'d>(der: &mut &'d [u8], wanted: u8) -> Option<&'d [u8]> {
        element(der).filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }
}

/// Takes the next value: its tag and content.
fn element<'d>(der: &mut &'d [u8]) -> Option<(u8, &'d [u8])> {
    let (&[tag, first], rest) = der.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The lower bits say how many bytes the length has.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        0x80 | 0x85..=0xff => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *der = rest;
    Some((tag, content))
}

/// Years of two digits begin with 1950 (RFC 5280, 4.1.2.5.1).
fn moment(tag: u8, text: &str) -> Option<Timestamp> {
    let text = match tag {
        GENERALIZED_TIME => text.to_owned(),
        UTC_TIME => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        _ => return None,
    };
    let time: DateTime = strtime::parse("%Y%m%d%H%M%SZ", text).ok()?.to_datetime().ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use proptest::prelude::*;

    use super::not_after;

    #[test]
    fn a_certificate_is_good_until_the_moment_it_says() {
        let key = rcgen::KeyPair::generate().unwrap();
        for (year, told) in [(2031, "2031-02-03T00:00:00Z"), (2077, "2077-02-03T00:00:00Z")] {
            let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            parameters.not_after = rcgen::date_time_ymd(year, 2, 3);
            let certificate = parameters.self_signed(&key).unwrap();
            assert_eq!(not_after(certificate.der()).unwrap().to_string(), told);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_certificate_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = not_after(&bytes);
        }
    }
}
