//! Mends what the walk in `json` stepped over, so that every parser can read it. Loses no more than it must.

use super::json::{self, DEPTH_MAX, Scanner, Span};

/// A copy of one value that [`serde_json`] parses, with every string spelled in its shortest way.
///
/// `text` must be a value that [`Scanner::value`] walked to its end.
///
/// | flaw | becomes |
/// | --- | --- |
/// | half of a surrogate pair | `U+FFFD` |
/// | `NaN`, `Infinity`, `-Infinity`, a number beyond `f64` | `null` |
/// | a raw control character in a string | its escape |
/// | a backslash that begins no escape | a backslash |
/// | a container more than [`DEPTH_MAX`] deep | a string that holds its JSON text |
pub(super) fn repair(text: &str) -> String {
    let mut repair = Repair { text, at: 0, depth: 0, out: Vec::with_capacity(text.len() + text.len() / 8) };
    while let Some(&byte) = text.as_bytes().get(repair.at) {
        repair.token(byte);
    }
    String::from_utf8(repair.out).expect("made of pieces of a str, cut at ASCII")
}

struct Repair<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    out: Vec<u8>,
}

// === impl Repair ===

impl Repair<'_> {
    fn token(&mut self, first: u8) {
        match first {
            b'"' => self.string(),
            b'{' | b'[' if self.depth == DEPTH_MAX => self.fold(),
            b'-' | b'0'..=b'9' | b'N' | b'I' => self.number(),
            b'{' | b'[' => {
                self.depth += 1;
                self.copy(first);
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.copy(first);
            }
            other => self.copy(other),
        }
    }

    fn copy(&mut self, byte: u8) {
        self.out.push(byte);
        self.at += 1;
    }

    fn string(&mut self) {
        let end = json::string_end(self.text, self.at).unwrap_or(self.text.len());
        let inside = &self.text[self.at + 1..end - 1];
        json::push_string(&mut self.out, &json::unescape(inside));
        self.at = end;
    }

    /// A number, or a word that stands where one would.
    fn number(&mut self) {
        let rest = &self.text[self.at..];
        let len = rest.find([',', '}', ']', ' ', '\n', '\t', '\r']).unwrap_or(rest.len());
        let number = &rest[..len];
        // `f64::from_str` takes `NaN` and `Infinity` as well: neither is finite.
        let kept = if json::is_finite(number) { number } else { "null" };
        self.out.extend_from_slice(kept.as_bytes());
        self.at += len;
    }

    /// Keeps a container that lies too deep as its text.
    fn fold(&mut self) {
        let mut scanner = Scanner::new(self.text, self.at);
        let span = match scanner.value(0) {
            Ok((span, _)) => span,
            Err(_) => Span { start: self.at, end: self.text.len() },
        };
        json::push_string(&mut self.out, span.of(self.text));
        self.at = span.end;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn walked(text: &str) -> Option<bool> {
        let mut scanner = Scanner::new(text, 0);
        scanner.value(0).ok()?;
        (scanner.peek().is_none()).then(|| scanner.take_flawed())
    }

    #[track_caller]
    fn assert_repaired(text: &str, expected: &str) {
        assert_eq!(walked(text), Some(true), "{text} should be walked, and flawed");
        assert_eq!(repair(text), expected);
        serde_json::from_str::<Value>(expected).unwrap();
    }

    #[test]
    fn a_lone_surrogate_becomes_a_replacement_character() {
        assert_repaired(r#"{"a":"x\ud83d"}"#, "{\"a\":\"x\u{fffd}\"}");
        assert_repaired(r#"["\udc00\ud83d\u0041"]"#, "[\"\u{fffd}\u{fffd}A\"]");
        assert_repaired(r#"["\ud83d\ud83d\ude00"]"#, "[\"\u{fffd}\u{1f600}\"]");
    }

    #[test]
    fn what_no_machine_can_count_becomes_null() {
        assert_repaired("[NaN,Infinity,-Infinity,-NaN]", "[null,null,null,null]");
        assert_repaired("{\"a\": 1e400 ,\"b\":-1E+400}", "{\"a\": null ,\"b\":null}");
        assert_repaired(&format!("[{}]", "9".repeat(400)), "[null]");
    }

    #[test]
    fn integers_keep_every_digit() {
        let text = "[123456789012345678901234567890]";
        assert_eq!(walked(text), Some(false));
        assert!(serde_json::from_str::<Value>(text).unwrap()[0].is_f64());
    }

    #[test]
    fn raw_control_characters_are_escaped() {
        assert_repaired("[\"a\nb\u{1}\0\"]", r#"["a\nb\u0001\u0000"]"#);
    }

    #[test]
    fn a_backslash_that_begins_no_escape_is_kept() {
        assert_repaired(r#"["\x41","\u12","C:\Dir"]"#, r#"["\\x41","\\u12","C:\\Dir"]"#);
    }

    #[test]
    fn what_lies_too_deep_is_kept_as_text() {
        let deep = format!("{}\"\\ud83d\"{}", "[".repeat(200), "]".repeat(200));
        let repaired = repair(&deep);
        let mut value: Value = serde_json::from_str(&repaired).unwrap();
        for _ in 0..DEPTH_MAX {
            value = value[0].take();
        }
        assert_eq!(value.as_str().unwrap(), format!("{}\"\\ud83d\"{}", "[".repeat(100), "]".repeat(100)));
    }

    #[test]
    fn a_key_spelled_with_escapes_gets_its_plain_spelling() {
        assert_eq!(repair(r#"{"user\u0049d":1}"#), r#"{"userId":1}"#);
    }

    #[test]
    fn a_hundred_levels_are_no_flaw_and_one_more_is() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(walked(&nested(DEPTH_MAX)), Some(false));
        assert_eq!(walked(&nested(DEPTH_MAX + 1)), Some(true));
        assert_eq!(walked(&nested(100_000)), Some(true));
    }

    /// Pieces that make and break JSON.
    fn jsonish() -> impl Strategy<Value = String> {
        let pieces =
            r#"{ } [ ] , : " "a" "a": 1 - 0 1.5 e5 1e999 true null NaN -Infinity \ \u d83d \ud83d \ude00 é {"k":[ ]}"#;
        let pieces: Vec<&str> = pieces.split(' ').chain([" ", "\n", "\u{1}"]).collect();
        proptest::collection::vec(proptest::sample::select(pieces), 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn what_is_walked_without_a_flaw_parses_and_what_parses_is_walked(text in jsonish()) {
            let parses = serde_json::from_str::<Value>(&text).is_ok();
            match walked(&text) {
                Some(false) => prop_assert!(parses, "{text}"),
                Some(true) => prop_assert!(serde_json::from_str::<Value>(&repair(&text)).is_ok(), "{text}"),
                None => prop_assert!(!parses, "{text}"),
            }
        }

        #[test]
        fn numbers_are_walked_as_serde_json_reads_them(text in "-?[0-9]{0,3}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{0,4})?") {
            let parses = serde_json::from_str::<Value>(&text).is_ok();
            prop_assert_eq!(walked(&text) == Some(false), parses, "{}", text);
        }

        #[test]
        fn every_string_survives_being_written_and_read(text in any::<String>()) {
            let mut out = Vec::new();
            json::push_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text.clone());
            let inside = std::str::from_utf8(&out[1..out.len() - 1]).unwrap();
            prop_assert_eq!(json::unescape(inside), text);
        }
    }
}
