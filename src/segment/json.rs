//! Walks JSON text as SDKs really send it, once, without recursion and without building anything.
//!
//! The walk is as strict as [`serde_json`], except for flaws that real SDKs send and that `repair` can mend: those it
//! steps over and remembers. A text that was walked without a flaw always parses with [`serde_json`]. It never decides
//! what a member means.

use std::borrow::Cow;
use std::ops::Range;

/// Levels of nesting kept as they are; what lies deeper is kept as text. `serde_json` gives up at 128 (its own
/// constant, version 1.0.154), and merging an envelope's context under an event's may add a level.
pub(super) const DEPTH_MAX: usize = 100;

/// A piece of the text, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// Its first byte.
    pub(super) start: usize,
    /// The byte after its last.
    pub(super) end: usize,
}

/// What kind of value stands somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    String,
    Number,
    Bool,
    /// `null`, and what is read as `null`: `NaN`, `Infinity`, a number too large for any machine.
    Null,
    Object,
    Array,
}

/// Where the walk could not go on, and what should have stood there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The byte.
    pub(super) at: usize,
    /// What was expected, as a fragment of a sentence.
    pub(super) expected: &'static str,
}

/// A place in a text, walking forward.
pub(super) struct Scanner<'t> {
    text: &'t str,
    at: usize,
    flawed: bool,
}

/// Which containers are open: one bit each, so that no input makes it large.
#[derive(Default)]
struct Nest {
    /// The innermost 64, `1` for an object.
    bits: u64,
    /// Those around them.
    outer: Vec<u64>,
    depth: usize,
}

// === impl Span ===

impl Span {
    pub(super) fn of(self, text: &str) -> &str {
        &text[self.start..self.end]
    }

    pub(super) fn len(self) -> usize {
        self.end - self.start
    }

    pub(super) fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

// === impl Nest ===

impl Nest {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(is_object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.bits >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().unwrap_or_default();
        }
    }

    fn in_object(&self) -> bool {
        self.bits & 1 == 1
    }
}

// === impl Scanner ===

impl<'t> Scanner<'t> {
    /// Starts at a byte of the text.
    pub(super) fn new(text: &'t str, at: usize) -> Self {
        Self { text, at, flawed: false }
    }

    /// The byte it stands on.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Goes on elsewhere.
    pub(super) fn jump(&mut self, at: usize) {
        self.at = at;
    }

    /// Whether a flaw was seen since the last call.
    pub(super) fn take_flawed(&mut self) -> bool {
        std::mem::take(&mut self.flawed)
    }

    /// The next byte that is not white space, without stepping over it.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "measured: it is the heart of every loop here, a fifth faster")]
    pub(super) fn peek(&mut self) -> Option<u8> {
        match self.text.as_bytes().get(self.at) {
            Some(&byte) if byte > b' ' => Some(byte),
            _ => self.peek_behind_space(),
        }
    }

    fn peek_behind_space(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\t' | b'\r');
        self.at += rest.iter().position(|byte| !is_space(byte)).unwrap_or(rest.len());
        self.text.as_bytes().get(self.at).copied()
    }

    /// Steps over this byte if it comes next.
    #[inline]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    #[inline]
    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Fault> {
        if self.eat(byte) { Ok(()) } else { Err(self.fault(expected)) }
    }

    #[cold]
    fn fault(&self, expected: &'static str) -> Fault {
        Fault { at: self.at, expected }
    }

    /// Steps over the `{` of an object.
    pub(super) fn open_object(&mut self) -> Result<(), Fault> {
        self.expect(b'{', "expected `{`")
    }

    /// The next key of the object it is in, standing at its value afterwards; `None` once the object is over.
    pub(super) fn next_key(&mut self, is_first: bool) -> Result<Option<Span>, Fault> {
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b',') if !is_first => {
                self.at += 1;
                self.peek();
            }
            _ if is_first => {}
            _ => return Err(self.fault("expected `,` or `}`")),
        }
        let start = self.at + 1;
        self.expect(b'"', "expected a key in quotes")?;
        // An escaped key may be another spelling of a name we look for, so it has to be respelled first.
        self.flawed |= self.string()?;
        let key = Span { start, end: self.at - 1 };
        self.expect(b':', "expected `:`")?;
        Ok(Some(key))
    }

    /// Steps over one value; `depth` is how many containers are open around it.
    pub(super) fn value(&mut self, depth: usize) -> Result<(Span, Shape), Fault> {
        let Some(byte) = self.peek() else { return Err(self.fault("expected a value")) };
        let start = self.at;
        let shape = match byte {
            b'{' | b'[' => self.container(byte, depth)?,
            scalar => self.scalar(scalar)?,
        };
        Ok((Span { start, end: self.at }, shape))
    }

    #[inline]
    fn scalar(&mut self, first: u8) -> Result<Shape, Fault> {
        match first {
            b'"' => {
                self.at += 1;
                self.string()?;
                Ok(Shape::String)
            }
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word("true", Shape::Bool),
            b'f' => self.word("false", Shape::Bool),
            b'n' => self.word("null", Shape::Null),
            b'N' => self.word("NaN", Shape::Null).inspect(|_| self.flawed = true),
            b'I' => self.word("Infinity", Shape::Null).inspect(|_| self.flawed = true),
            _ => Err(self.fault("expected a value")),
        }
    }

    fn word(&mut self, word: &str, shape: Shape) -> Result<Shape, Fault> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.fault("expected a value"));
        }
        self.at += word.len();
        Ok(shape)
    }

    fn number(&mut self) -> Result<Shape, Fault> {
        let start = self.at;
        self.at += usize::from(self.here() == b'-');
        match self.here() {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits()?,
            // Python's `-Infinity`.
            b'I' | b'N' => return self.scalar(self.here()),
            _ => return Err(self.fault("expected a digit")),
        }
        if self.here() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        let mut may_overflow = self.at - start > 300;
        if matches!(self.here(), b'e' | b'E') {
            may_overflow = true;
            self.at += 1;
            self.at += usize::from(matches!(self.here(), b'+' | b'-'));
            self.digits()?;
        }
        if may_overflow && !is_finite(&self.text[start..self.at]) {
            self.flawed = true;
            return Ok(Shape::Null);
        }
        Ok(Shape::Number)
    }

    /// The byte it stands on; `0` at the end, which no rule of a number accepts.
    #[inline]
    fn here(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while self.here().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start { Err(self.fault("expected a digit")) } else { Ok(()) }
    }

    /// Steps over the rest of a string, from after its opening quote; tells whether it holds an escape.
    #[inline]
    fn string(&mut self) -> Result<bool, Fault> {
        let bytes = self.text.as_bytes();
        let mut is_escaped = false;
        loop {
            self.at = next_special(bytes, self.at);
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(is_escaped);
                }
                Some(b'\\') => {
                    is_escaped = true;
                    self.escape();
                }
                Some(_) => {
                    self.flawed = true;
                    self.at += 1;
                }
                None => return Err(self.fault("expected a closing `\"`")),
            }
        }
    }

    /// Steps over one escape, noting those that no parser would take.
    #[inline(never)]
    fn escape(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let escape = Escape::read(rest);
        self.flawed |= !escape.is_sound;
        self.at += escape.len;
    }

    /// Steps over an object or array, however deep.
    fn container(&mut self, open: u8, depth: usize) -> Result<Shape, Fault> {
        let mut nest = Nest::default();
        loop {
            if !self.enter(&mut nest, depth)? {
                self.leave(&mut nest)?;
            }
            if nest.depth == 0 {
                return Ok(if open == b'{' { Shape::Object } else { Shape::Array });
            }
            if nest.in_object() {
                self.expect(b'"', "expected a key in quotes")?;
                self.string()?;
                self.expect(b':', "expected `:`")?;
            }
        }
    }

    /// Steps over a scalar or an opening bracket; tells whether a member or element comes next.
    #[inline]
    fn enter(&mut self, nest: &mut Nest, depth: usize) -> Result<bool, Fault> {
        let close = match self.peek() {
            Some(b'{') => b'}',
            Some(b'[') => b']',
            Some(first) => return self.scalar(first).map(|_| false),
            None => return Err(self.fault("expected a value")),
        };
        self.at += 1;
        nest.push(close == b'}');
        self.flawed |= depth + nest.depth > DEPTH_MAX;
        Ok(self.peek() != Some(close))
    }

    /// Steps over the closing brackets behind a value, and the comma behind them.
    #[inline]
    fn leave(&mut self, nest: &mut Nest) -> Result<(), Fault> {
        while nest.depth > 0 {
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'}') if nest.in_object() => {}
                Some(b']') if !nest.in_object() => {}
                _ if nest.in_object() => return Err(self.fault("expected `,` or `}`")),
                _ => return Err(self.fault("expected `,` or `]`")),
            }
            self.at += 1;
            nest.pop();
        }
        Ok(())
    }
}

/// Whether a number, as written, is one that an `f64` can come near.
pub(super) fn is_finite(number: &str) -> bool {
    number.parse::<f64>().is_ok_and(f64::is_finite)
}

/// The next byte at or after `at` that a string cannot hold as it is: a quote, a backslash or a control character.
#[inline]
fn next_special(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let specials = special_bits(u64::from_le_bytes(*chunk));
        if specials != 0 {
            return at + (specials.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        at += 1;
    }
    at
}

/// Eight bytes looked at together: the lowest bit set marks the first special one. Bits above it may lie, because a
/// subtraction borrows from its neighbour (<https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord>, read
/// 2026-11-22).
#[inline]
const fn special_bits(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let quotes = quote.wrapping_sub(ONES) & !quote;
    let backslashes = backslash.wrapping_sub(ONES) & !backslash;
    let controls = word.wrapping_sub(ONES * b' ' as u64) & !word;
    (quotes | backslashes | controls) & HIGHS
}

// --- what a string means

/// One escape of a string.
struct Escape {
    /// Its bytes, the backslash included.
    len: usize,
    /// What it stands for; `None` for one that stands for nothing and is kept as its own characters.
    char: Option<char>,
    /// Whether a strict parser would take it.
    is_sound: bool,
}

impl Escape {
    /// Reads the escape that `rest` begins with.
    fn read(rest: &[u8]) -> Self {
        let simple = match rest.get(1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return Self::read_unicode(rest),
            _ => return Self::LITERAL,
        };
        Self { len: 2, char: Some(simple), is_sound: true }
    }

    /// A backslash that begins no escape: itself.
    const LITERAL: Self = Self { len: 1, char: None, is_sound: false };

    fn read_unicode(rest: &[u8]) -> Self {
        let Some(high) = hex4(&rest[2..]) else { return Self::LITERAL };
        if let Some(char) = char::from_u32(high) {
            return Self { len: 6, char: Some(char), is_sound: true };
        }
        let low = rest.get(6..8).filter(|next| next == b"\\u").and_then(|_| hex4(&rest[8..]));
        match (high, low) {
            (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) => {
                let joined = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                Self { len: 12, char: char::from_u32(joined), is_sound: true }
            }
            _ => Self { len: 6, char: Some(char::REPLACEMENT_CHARACTER), is_sound: false },
        }
    }
}

fn hex4(digits: &[u8]) -> Option<u32> {
    let digits = digits.first_chunk::<4>()?;
    digits.iter().try_fold(0, |number, &digit| Some(number << 4 | char::from(digit).to_digit(16)?))
}

/// What the inside of a string says. Never fails: a lone surrogate becomes `U+FFFD`, an escape nobody knows stays.
pub(super) fn unescape(inside: &str) -> Cow<'_, str> {
    let Some(first) = inside.find('\\') else { return Cow::Borrowed(inside) };
    let mut out = String::with_capacity(inside.len());
    let (mut copied, mut at) = (0, first);
    while at < inside.len() {
        let escape = Escape::read(&inside.as_bytes()[at..]);
        out.push_str(&inside[copied..at]);
        out.push(escape.char.unwrap_or('\\'));
        copied = at + escape.len;
        at = inside[copied..].find('\\').map_or(inside.len(), |next| copied + next);
    }
    out.push_str(&inside[copied..]);
    Cow::Owned(out)
}

/// Writes text as a JSON string.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    loop {
        let at = next_special(bytes, copied);
        out.extend_from_slice(&bytes[copied..at]);
        let Some(&byte) = bytes.get(at) else { break };
        push_escape(out, byte);
        copied = at + 1;
    }
    out.push(b'"');
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        8 => b'b',
        12 => b'f',
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            return out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Finds the end of something that cannot be read: the first `,` or closing bracket outside of what opens at or after
/// the start of the range. Counts brackets and skips strings, nothing more.
pub(super) fn loose_end(text: &str, range: Range<usize>) -> Option<usize> {
    let bytes = &text.as_bytes()[..range.end];
    let (mut at, mut depth) = (range.start, 0_usize);
    loop {
        match bytes.get(at)? {
            b'"' => at = string_end(text, at)? - 1,
            b'{' | b'[' => depth += 1,
            b',' | b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
}

/// The byte after the string that opens at `at`; `None` if nothing closes it.
pub(super) fn string_end(text: &str, at: usize) -> Option<usize> {
    let mut scanner = Scanner::new(text, at + 1);
    scanner.string().is_ok().then_some(scanner.at)
}
