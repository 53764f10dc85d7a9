//! Where a piece of a decoded TOML string stands in the file.
//!
//! Expressions report mistakes within their own text; a person needs the place in the file. Between the two lie
//! quotes, escapes, a newline after the opening quotes, and backslashes that swallow line ends.

use std::ops::Range;

/// A TOML string as it stands in the file, taken apart.
struct Literal<'t> {
    /// What is between the quotes.
    content: &'t str,
    /// Where that begins in the file.
    start: usize,
    /// Whether backslashes mean something.
    has_escapes: bool,
}

/// One decoded character, or nothing (a swallowed line end), and the bytes it was written as.
struct Piece {
    raw: Range<usize>,
    decoded: Range<usize>,
}

/// The bytes of the file that `decoded`, a range of the string's decoded text, was written as.
///
/// `span` is the string in the file, quotes included. An empty range becomes the character that follows, or the
/// closing quote, so that there is something to point at. Whatever is not a string is answered with `span`.
pub(super) fn in_file(text: &str, span: &Range<usize>, decoded: &Range<usize>) -> Range<usize> {
    let Some(literal) = text.get(span.clone()).and_then(|raw| Literal::open(raw, span.start)) else {
        return span.clone();
    };
    let mut found: Option<Range<usize>> = None;
    for piece in literal.pieces() {
        let is_wanted = piece.decoded.end > decoded.start && piece.decoded.start < decoded.end.max(decoded.start + 1);
        if is_wanted && !piece.decoded.is_empty() {
            let start = found.map_or(piece.raw.start, |range| range.start);
            found = Some(start..piece.raw.end);
        }
    }
    let end = literal.start + literal.content.len();
    found.unwrap_or(end..(end + 1).min(span.end.max(end)))
}

// === impl Literal ===

impl<'t> Literal<'t> {
    fn open(raw: &'t str, start: usize) -> Option<Self> {
        let (quotes, has_escapes) = match raw.as_bytes() {
            [b'"', b'"', b'"', _, _, _, ..] => ("\"\"\"", true),
            [b'\'', b'\'', b'\'', _, _, _, ..] => ("'''", false),
            [b'"', ..] => ("\"", true),
            [b'\'', ..] => ("'", false),
            _ => return None,
        };
        let inner = raw.strip_prefix(quotes)?.strip_suffix(quotes)?;
        let content = if quotes.len() == 3 { without_first_newline(inner) } else { inner };
        Some(Self { content, start: start + quotes.len() + inner.len() - content.len(), has_escapes })
    }

    fn pieces(&self) -> impl Iterator<Item = Piece> {
        let (mut raw_at, mut decoded_at) = (0, 0);
        std::iter::from_fn(move || {
            let (raw_len, decoded_len) = self.next_piece(raw_at)?;
            let piece = Piece {
                raw: self.start + raw_at..self.start + raw_at + raw_len,
                decoded: decoded_at..decoded_at + decoded_len,
            };
            raw_at += raw_len;
            decoded_at += decoded_len;
            Some(piece)
        })
    }

    /// Lengths, as written and as read, of the piece at `at`.
    fn next_piece(&self, at: usize) -> Option<(usize, usize)> {
        let rest = &self.content[at..];
        let first = rest.chars().next()?;
        if first != '\\' || !self.has_escapes {
            return Some((first.len_utf8(), first.len_utf8()));
        }
        let Some(kind) = rest[1..].chars().next() else { return Some((1, 1)) };
        Some(match kind {
            'x' => hex_escape(rest, 2),
            'u' => hex_escape(rest, 4),
            'U' => hex_escape(rest, 8),
            ' ' | '\t' | '\r' | '\n' => (1 + blank_len(&rest[1..]), 0),
            _ => (1 + kind.len_utf8(), 1),
        })
    }
}

fn without_first_newline(text: &str) -> &str {
    text.strip_prefix("\r\n").or_else(|| text.strip_prefix('\n')).unwrap_or(text)
}

fn blank_len(text: &str) -> usize {
    text.len() - text.trim_start_matches([' ', '\t', '\r', '\n']).len()
}

fn hex_escape(rest: &str, digits: usize) -> (usize, usize) {
    let written = rest.get(2..2 + digits);
    let read = written.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
    (written.map_or(2, |hex| 2 + hex.len()), read.map_or(1, char::len_utf8))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use proptest::prelude::*;
    use toml::de::{DeTable, DeValue};

    use super::in_file;

    /// What stands in the file for the first occurrence of `needle` in the decoded value of `x = …`.
    fn written(file: &str, needle: &str) -> String {
        let document = DeTable::parse(file).unwrap();
        let value = &document.get_ref()["x"];
        let DeValue::String(decoded) = value.get_ref() else { panic!("not a string") };
        let at = decoded.find(needle).unwrap();
        file[in_file(file, &value.span(), &(at..at + needle.len()))].to_owned()
    }

    #[test]
    fn plain_strings_are_shifted_by_their_quote() {
        assert_eq!(written("x = \"one two\"", "two"), "two");
        assert_eq!(written("x = 'one two'", "two"), "two");
        assert_eq!(written("a = 1\nx = 'é two'", "two"), "two");
    }

    #[test]
    fn every_escape_has_the_length_it_was_written_with() {
        let file = r#"x = "\b\t\n\f\r\e\"\\ \x41 \u00e9 \U0001F600 end""#;
        assert_eq!(written(file, "end"), "end");
        assert_eq!(written(file, "A"), r"\x41");
        assert_eq!(written(file, "é"), r"\u00e9");
        assert_eq!(written(file, "😀"), r"\U0001F600");
        assert_eq!(written(file, "\\"), r"\\");
        assert_eq!(written(file, "\u{1b}"), r"\e");
    }

    #[test]
    fn a_backslash_in_a_literal_string_is_itself() {
        assert_eq!(written(r"x = 'a\nb end'", "end"), "end");
        assert_eq!(written("x = '''\na\\u0041 end'''", "end"), "end");
    }

    #[test]
    fn the_newline_after_an_opener_is_not_part_of_the_string() {
        assert_eq!(written("x = \"\"\"\none\ntwo\"\"\"", "one"), "one");
        assert_eq!(written("x = \"\"\"\r\none\r\ntwo\"\"\"", "two"), "two");
        assert_eq!(written("x = '''\n\none'''", "one"), "one");
        assert_eq!(written("x = \"\"\"one\"\"\"", "one"), "one");
    }

    #[test]
    fn a_backslash_at_a_line_end_swallows_the_white_space_that_follows() {
        let file = "x = \"\"\"one \\\n\n     two \\   \n three\"\"\"";
        assert_eq!(written(file, "two"), "two");
        assert_eq!(written(file, "three"), "three");
        assert_eq!(written(file, "one two"), "one \\\n\n     two");
    }

    #[test]
    fn quotes_inside_and_at_the_end_of_a_multi_line_string_count() {
        assert_eq!(written("x = \"\"\"say \"hi\" now\"\"\"\"", "now\""), "now\"");
        assert_eq!(written("x = '''it's'''", "s"), "s");
    }

    #[test]
    fn an_empty_range_points_at_the_next_character_or_the_closing_quote() {
        let file = "x = \"ab\"";
        assert_eq!(in_file(file, &(4..8), &(1..1)), 6..7);
        assert_eq!(in_file(file, &(4..8), &(2..2)), 7..8);
        assert_eq!(in_file(file, &(4..8), &(9..12)), 7..8);
    }

    #[test]
    fn what_is_not_a_string_is_pointed_at_as_a_whole() {
        assert_eq!(in_file("x = 12", &(4..6), &(0..1)), 4..6);
        assert_eq!(in_file("x = \"", &(4..5), &(0..1)), 4..5);
        assert_eq!(in_file("x", &(4..9), &(0..1)), 4..9);
    }

    fn encoded(c: char, style: u8) -> String {
        match (c, style % 4) {
            ('"' | '\\', _) => format!("\\{c}"),
            (_, 0) => format!("\\U{:08x}", u32::from(c)),
            (_, 1) if u32::from(c) < 0x100 => format!("\\x{:02x}", u32::from(c)),
            (_, 2) if !c.is_control() => format!("\\\n  \t\n{c}"),
            _ if c.is_control() => format!("\\U{:08x}", u32::from(c)),
            _ => c.to_string(),
        }
    }

    proptest! {
        #[test]
        fn every_character_is_found_where_it_was_written(pieces in prop::collection::vec((any::<char>(), any::<u8>()), 1..20)) {
            // A swallowed line end also swallows blanks the character itself might be.
            let pieces: Vec<_> = pieces.into_iter().map(|(c, s)| if c.is_whitespace() { ('-', s) } else { (c, s) }).collect();
            let written: Vec<String> = pieces.iter().map(|(c, style)| encoded(*c, *style)).collect();
            let file = format!("x = \"\"\"\n{}\"\"\"\n", written.concat());
            let document = DeTable::parse(&file).unwrap();
            let value = &document.get_ref()["x"];
            prop_assert_eq!(value.get_ref().as_str().unwrap(), pieces.iter().map(|(c, _)| c).collect::<String>());
            let mut at = 0;
            for ((c, _), written) in pieces.iter().zip(&written) {
                let place = in_file(&file, &value.span(), &(at..at + c.len_utf8()));
                prop_assert_eq!(&file[place], written.trim_start_matches("\\\n  \t\n"));
                at += c.len_utf8();
            }
        }
    }
}
