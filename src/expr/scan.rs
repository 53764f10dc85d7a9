//! Cuts a template into text, expressions, statements and comments, and an expression into tokens, each with its bytes.
//!
//! The template engine's own lexer is not public, so this one follows its rules (strings, brackets, `{{-`, `{% raw %}`)
//! closely enough to find pieces and names; the engine remains the judge of syntax.

use std::ops::Range;

use super::Mistake;

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) kind: PieceKind,
    /// With its braces.
    pub(super) outer: Range<usize>,
    /// Between its braces.
    pub(super) inner: Range<usize>,
    /// The opening brace eats the white space before it: `{{-`.
    pub(super) trim_before: bool,
    /// The closing brace eats the white space after it: `-}}`.
    pub(super) trim_after: bool,
    /// What is between the braces; empty for text and comments.
    pub(super) tokens: Vec<Token>,
}

/// What a part of a template is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// As it is, `{% raw %}` included.
    Text,
    /// `{{ … }}`.
    Expression,
    /// `{% … %}`.
    Statement,
    /// `{# … #}`.
    Comment,
}

/// A word of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) range: Range<usize>,
}

/// What a word of an expression is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A name or keyword.
    Word,
    /// A string with its quotes.
    Text,
    /// A number.
    Number,
    /// An operator or bracket.
    Sign,
}

/// Whether a string is a template at all; one without braces is itself.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.find("{#").is_some_and(|at| text[at..].contains("#}"))
}

/// Cuts a template into its parts.
///
/// # Errors
/// A brace that is never closed.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, Mistake> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let Some((open, kind)) = next_open(text, at) else {
            pieces.push(plain(at..text.len()));
            break;
        };
        if open > at {
            pieces.push(plain(at..open));
        }
        let piece = piece(text, open, kind)?;
        at = piece.outer.end;
        if is_raw(text, &piece) {
            let raw = raw(text, &piece)?;
            at = raw.outer.end;
            pieces.push(raw);
        } else {
            pieces.push(piece);
        }
    }
    Ok(pieces)
}

fn next_open(text: &str, from: usize) -> Option<(usize, PieceKind)> {
    let mut at = from;
    loop {
        at += text[at..].find('{')?;
        match text.as_bytes().get(at + 1) {
            Some(b'{') => return Some((at, PieceKind::Expression)),
            Some(b'%') => return Some((at, PieceKind::Statement)),
            Some(b'#') => return Some((at, PieceKind::Comment)),
            _ => at += 1,
        }
    }
}

fn plain(range: Range<usize>) -> Piece {
    let (kind, tokens) = (PieceKind::Text, Vec::new());
    Piece { kind, outer: range.clone(), inner: range, trim_before: false, trim_after: false, tokens }
}

fn piece(text: &str, open: usize, kind: PieceKind) -> Result<Piece, Mistake> {
    let bytes = text.as_bytes();
    let start = open + 2;
    let trim_before = bytes.get(start) == Some(&b'-');
    let start = if matches!(bytes.get(start), Some(b'-' | b'+')) { start + 1 } else { start };
    let close = match kind {
        PieceKind::Comment => "#}",
        PieceKind::Statement => "%}",
        PieceKind::Expression | PieceKind::Text => "}}",
    };
    let unclosed = || Mistake::new(open..open + 2, format!("`{}` is never closed", &text[open..open + 2]));
    let (tokens, end) = match kind {
        PieceKind::Comment => (Vec::new(), text[start..].find(close).map(|length| start + length)),
        PieceKind::Expression | PieceKind::Statement | PieceKind::Text => tokens(text, start, close),
    };
    let end = end.ok_or_else(unclosed)?;
    let trim_after = end > start && bytes[end - 1] == b'-' && kind == PieceKind::Comment || bytes[end] == b'-';
    let outer_end = if matches!(bytes[end], b'-' | b'+') { end + 3 } else { end + 2 };
    Ok(Piece { kind, outer: open..outer_end, inner: start..end, trim_before, trim_after, tokens })
}

fn is_raw(text: &str, piece: &Piece) -> bool {
    piece.kind == PieceKind::Statement && text[piece.inner.clone()].trim() == "raw"
}

/// From `{% raw %}` to `{% endraw %}`, as one text.
fn raw(text: &str, open: &Piece) -> Result<Piece, Mistake> {
    let mut at = open.outer.end;
    while let Some(length) = text[at..].find("{%") {
        let start = at + length;
        let inner = text[start + 2..].trim_start_matches(['-', '+']).trim_start();
        if inner.starts_with("endraw") {
            let end = text[start..].find("%}").map_or(text.len(), |length| start + length + 2);
            return Ok(Piece { inner: open.outer.end..start, ..plain(open.outer.start..end) });
        }
        at = start + 2;
    }
    Err(Mistake::new(open.outer.clone(), "`{% raw %}` is never closed").with_help(Some("write `{% endraw %}`".into())))
}

/// The tokens from `start` to the `close` that is outside of strings and brackets, and where that is (its `-` or `+`
/// included). Without `close` in the text the tokens go to the end.
pub(super) fn tokens(text: &str, start: usize, close: &str) -> (Vec<Token>, Option<usize>) {
    let (mut tokens, mut at, mut depth) = (Vec::new(), start, 0_usize);
    while let Some(byte) = text.as_bytes().get(at).copied() {
        if byte.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        if depth == 0 && closes(&text.as_bytes()[at..], close) {
            return (tokens, Some(at));
        }
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let token = token(text, at, tokens.last());
        at = token.range.end;
        tokens.push(token);
    }
    (tokens, None)
}

fn closes(rest: &[u8], close: &str) -> bool {
    let after_sign = rest.strip_prefix(b"-").or_else(|| rest.strip_prefix(b"+"));
    rest.starts_with(close.as_bytes()) || after_sign.is_some_and(|rest| rest.starts_with(close.as_bytes()))
}

fn token(text: &str, at: usize, before: Option<&Token>) -> Token {
    let rest = &text[at..];
    let byte = rest.as_bytes()[0];
    let (kind, length) = match byte {
        b'\'' | b'"' => (TokenKind::Text, string_length(rest.as_bytes(), byte)),
        b'0'..=b'9' => {
            let after_dot = before.is_some_and(|token| &text[token.range.clone()] == ".");
            (TokenKind::Number, number_length(rest.as_bytes(), after_dot))
        }
        _ if byte == b'_' || byte.is_ascii_alphabetic() => (TokenKind::Word, word_length(rest)),
        _ => (TokenKind::Sign, sign_length(rest)),
    };
    Token { kind, range: at..at + length }
}

fn word_length(rest: &str) -> usize {
    rest.bytes().take_while(|byte| *byte == b'_' || byte.is_ascii_alphanumeric()).count()
}

fn string_length(rest: &[u8], quote: u8) -> usize {
    let mut escaped = false;
    for (index, byte) in rest.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            byte if *byte == quote => return index + 1,
            _ => {}
        }
    }
    rest.len()
}

fn number_length(rest: &[u8], after_dot: bool) -> usize {
    let mut length = 0;
    while let Some(byte) = rest.get(length) {
        let fraction = *byte == b'.' && !after_dot && rest.get(length + 1).is_some_and(u8::is_ascii_digit);
        if !byte.is_ascii_alphanumeric() && *byte != b'_' && !fraction {
            break;
        }
        length += 1;
    }
    length
}

fn sign_length(rest: &str) -> usize {
    const DOUBLE: [&str; 6] = ["//", "**", "==", "!=", ">=", "<="];
    if DOUBLE.iter().any(|sign| rest.starts_with(sign)) {
        return 2;
    }
    rest.chars().next().map_or(1, char::len_utf8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        pieces(text).unwrap().into_iter().map(|piece| &text[piece.outer]).collect()
    }

    #[test]
    fn braces_in_strings_and_objects_do_not_close_an_expression() {
        assert_eq!(cut("a{{ '}}' }}b"), ["a", "{{ '}}' }}", "b"]);
        assert_eq!(cut("{{ {'a': {'b': 1}} }}"), ["{{ {'a': {'b': 1}} }}"]);
        assert_eq!(cut(r"{{ 'it\'s }}' }}"), [r"{{ 'it\'s }}' }}"]);
    }

    #[test]
    fn raw_is_text_and_comments_are_their_own() {
        assert_eq!(cut("{% raw %}{{ x }}{% endraw %}{# {{ #}z"), ["{% raw %}{{ x }}{% endraw %}", "{# {{ #}", "z"]);
    }

    #[test]
    fn dashes_ask_for_trimming() {
        let pieces = pieces("a {{- b -}} c").unwrap();
        assert!(pieces[1].trim_before && pieces[1].trim_after);
        assert_eq!(pieces[1].outer, 2..11);
    }

    #[test]
    fn an_open_brace_is_named() {
        assert_eq!(pieces("é {{ a").unwrap_err().range, 3..5);
    }
}
