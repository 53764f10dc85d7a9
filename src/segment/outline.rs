//! Finds the outline of a body: where its messages lie, which write key it names. Reads no message.

use std::borrow::Cow;

use super::json::{self, Fault, Scanner, Shape};
use super::message::{Field, Member, Place, Word};
use super::normalise::Reader;
use super::repair::repair;
use super::{Arrival, Call, Discard, DiscardCode, Limits, Reading, Rejection};
use crate::event::Kind;

/// How much text may be walked again, in bodies, while looking for the next whole message in a broken batch.
const SEARCH_BODIES_MAX: usize = 4;

/// A body whose outline is known: which messages, which write key.
#[derive(Debug)]
pub struct Envelope<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) call: Call,
    pub(super) wrappers: Vec<Wrapper>,
    pub(super) messages: Vec<Found>,
    pub(super) members: Vec<Member>,
    write_key: Option<String>,
}

/// What stands around a batch and is meant for each of its messages.
#[derive(Debug, Default)]
pub(super) struct Wrapper {
    write_key: Option<String>,
    /// `sentAt` as written, without quotes.
    pub(super) sent_at: Option<String>,
    /// `context`, a JSON object.
    pub(super) context: Option<String>,
    /// `integrations`, a JSON object.
    pub(super) integrations: Option<String>,
}

/// One place where a message is, or should be.
#[derive(Debug)]
pub(super) enum Found {
    /// An object.
    Message {
        /// Where.
        place: Place,
        /// What stands around it.
        wrapper: usize,
    },
    /// Not an object, or not JSON at all; the fragment says what is wrong.
    Garbage(&'static str),
}

/// An outline while it is being found.
struct Finder<'t> {
    text: &'t str,
    scanner: Scanner<'t>,
    wrappers: Vec<Wrapper>,
    messages: Vec<Found>,
    members: Vec<Member>,
    /// Bytes that may still be walked in search of a message.
    search_bytes_left: usize,
}

// === impl Envelope ===

impl<'a> Envelope<'a> {
    /// Finds the outline of a body.
    ///
    /// # Errors
    /// When not even the outline can be found, or the body is too large.
    pub fn parse(body: &'a [u8], call: Call, limits: &Limits) -> Result<Self, Rejection> {
        let max_bytes = limits.body_bytes_max(call);
        if body.len() > max_bytes {
            return Err(Rejection::TooLarge { size_bytes: body.len(), max_bytes });
        }
        // Nearly every body is UTF-8, and to learn that costs a tenth of what mending does.
        let text = str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed);
        let mut finder = Finder::new(&text);
        match call {
            Call::One(_) => finder.single_messages()?,
            Call::Batch => finder.batches()?,
        }
        let write_key = finder.write_key();
        let Finder { wrappers, messages, members, .. } = finder;
        Ok(Self { text, call, wrappers, messages, members, write_key })
    }

    /// The write key in the body: the envelope's, else that of the first message that has one. It counts for all of
    /// them, whatever the others say.
    #[must_use]
    pub fn write_key(&self) -> Option<&str> {
        self.write_key.as_deref()
    }

    /// How many messages it holds, good or bad.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Reads no message but gives up on every one for the same reason, as for a source that is switched off.
    #[must_use]
    pub fn discard_all(&self, code: DiscardCode, detail: &'static str) -> Reading {
        let discard = |(index, found): (usize, &Found)| Discard {
            index,
            code,
            detail: Cow::Borrowed(detail),
            message_id: text_in(&self.text, &self.members, found, Field::MessageId),
        };
        Reading { events: Vec::new(), discards: self.messages.iter().enumerate().map(discard).collect() }
    }

    /// Reads every message.
    #[must_use]
    pub fn read(&self, arrival: &Arrival<'_>) -> Reading {
        Reader::new(self, arrival).read()
    }
}

// === impl Finder ===

impl<'t> Finder<'t> {
    fn new(text: &'t str) -> Self {
        let start = text.len() - text.trim_start_matches(is_padding).len();
        Self {
            text,
            scanner: Scanner::new(text, start),
            wrappers: Vec::new(),
            messages: Vec::new(),
            // A message has some ten members and, with them, some six hundred bytes.
            members: Vec::with_capacity(text.len() / 64 + 8),
            search_bytes_left: text.len() * SEARCH_BODIES_MAX,
        }
    }

    /// Steps over what may stand between documents; the first byte of the next one.
    fn next_document(&mut self) -> Option<u8> {
        let rest = &self.text[self.scanner.at()..];
        self.scanner.jump(self.text.len() - rest.trim_start_matches(is_padding).len());
        self.scanner.peek()
    }

    /// A body that is one message; more after it are read as well.
    fn single_messages(&mut self) -> Result<(), Rejection> {
        match self.next_document() {
            None => return Err(Rejection::Empty),
            Some(b'{') => {}
            Some(_) => return Err(self.not_an_object()),
        }
        self.wrappers.push(Wrapper::default());
        self.message().map_err(|fault| self.malformed(fault))?;
        while self.next_document() == Some(b'{') && self.message().is_ok() {}
        Ok(())
    }

    /// A body that is an envelope; more after it are read as well.
    fn batches(&mut self) -> Result<(), Rejection> {
        match self.next_document() {
            None => return Err(Rejection::Empty),
            Some(b'{') => self.envelope()?,
            Some(b'[') => self.bare_batch()?,
            Some(_) => return Err(self.not_an_object()),
        }
        while self.next_document() == Some(b'{') && self.envelope().is_ok() {}
        Ok(())
    }

    /// A batch without an envelope: no SDK sends it, people do.
    fn bare_batch(&mut self) -> Result<(), Rejection> {
        self.wrappers.push(Wrapper::default());
        let walked = self.batch();
        self.accept_or(walked)
    }

    /// One envelope with its batch.
    fn envelope(&mut self) -> Result<(), Rejection> {
        let start = self.scanner.at();
        let mut wrapper = Wrapper::default();
        let mut has_batch = false;
        let mut has_type = false;
        self.wrappers.push(Wrapper::default());
        let walked = self.envelope_members(&mut wrapper, &mut has_batch, &mut has_type);
        if has_batch {
            *self.wrappers.last_mut().expect("pushed above") = wrapper;
            return self.accept_or(walked);
        }
        walked.map_err(|fault| self.malformed(fault))?;
        if !has_type {
            return Err(Rejection::NoBatch);
        }
        // A message where an envelope should be.
        self.scanner.jump(start);
        self.message().map_err(|fault| self.malformed(fault))
    }

    /// The members of one envelope, its batch among them.
    fn envelope_members(
        &mut self,
        wrapper: &mut Wrapper,
        has_batch: &mut bool,
        has_type: &mut bool,
    ) -> Result<(), Fault> {
        self.scanner.open_object()?;
        let mut is_first = true;
        loop {
            let Some(key) = self.scanner.next_key(is_first)? else { return Ok(()) };
            is_first = false;
            let name = Field::of(key.of(self.text));
            if name == Field::Batch && self.scanner.peek() == Some(b'[') {
                *has_batch = true;
                self.batch()?;
                continue;
            }
            let start = self.scanner.at();
            match self.scanner.value(1) {
                Ok((value, shape)) => {
                    *has_type |= name == Field::Type;
                    *has_batch |= name == Field::Batch && is_nothing(value.of(self.text), shape);
                    self.wrap(wrapper, &Member { name, key, value, shape });
                }
                Err(fault) => self.skip_broken(start, fault)?,
            }
        }
    }

    /// Remembers one member of the envelope.
    fn wrap(&self, wrapper: &mut Wrapper, member: &Member) {
        let raw = member.raw(self.text);
        let as_object = || (member.shape == Shape::Object).then(|| repair(raw));
        match (member.name, member.word(self.text)) {
            (Field::SentAt, Word::Text(text)) => wrapper.sent_at = Some(json::unescape(text).into_owned()),
            (Field::SentAt, Word::Number(digits)) => wrapper.sent_at = Some(digits.to_owned()),
            (Field::WriteKey, Word::Text(key)) => wrapper.write_key = Some(json::unescape(key).into_owned()),
            (Field::Context, _) => wrapper.context = as_object(),
            (Field::Integrations, _) => wrapper.integrations = as_object(),
            _ => {}
        }
    }

    /// The elements of a batch, from its `[`. Ends behind its `]`, or with a fault where the text ends before.
    fn batch(&mut self) -> Result<(), Fault> {
        self.scanner.eat(b'[');
        loop {
            // A comma too many, or one too few, is nobody's loss.
            while self.scanner.eat(b',') {}
            match self.scanner.peek() {
                Some(b']') => {
                    self.scanner.eat(b']');
                    return Ok(());
                }
                Some(b'{') => self.element()?,
                Some(_) => self.stray()?,
                None => return Err(Fault { at: self.scanner.at(), expected: "expected `]`" }),
            }
        }
    }

    /// One object of a batch.
    fn element(&mut self) -> Result<(), Fault> {
        let start = self.scanner.at();
        match self.message() {
            Ok(()) => Ok(()),
            Err(fault) => {
                self.messages.push(Found::Garbage(fault.expected));
                self.skip_garbage(start, fault)
            }
        }
    }

    /// Something in a batch that is no object.
    fn stray(&mut self) -> Result<(), Fault> {
        let start = self.scanner.at();
        match self.scanner.value(1) {
            Ok(_) => {
                self.messages.push(Found::Garbage("expected an object"));
                Ok(())
            }
            Err(fault) => {
                self.messages.push(Found::Garbage(fault.expected));
                self.skip_garbage(start, fault)
            }
        }
    }

    /// Goes on behind an element that cannot be read: where its brackets end, or where a message begins before that.
    fn skip_garbage(&mut self, start: usize, fault: Fault) -> Result<(), Fault> {
        let end = self.loose_end(start);
        let next = match end {
            Some(end) => self.next_message(self.suspect(start, fault), end),
            // Brackets that never close: the next message may look like a part of this one.
            None => self.next_message(start + 1, self.text.len()),
        };
        let resume = next.or(end).ok_or(fault)?;
        // A stray closing brace ends nothing here.
        let is_brace = self.text.as_bytes().get(resume) == Some(&b'}');
        self.scanner.jump(resume + usize::from(is_brace));
        Ok(())
    }

    /// From where on the next message may begin: a string that nobody closed swallows what comes before the fault.
    fn suspect(&self, start: usize, fault: Fault) -> usize {
        let walked = &self.text.as_bytes()[start..fault.at];
        let quote_before = |to: usize| walked[..to].iter().rposition(|&byte| byte == b'"');
        quote_before(walked.len()).and_then(quote_before).map_or(fault.at, |opening| start + opening)
    }

    /// Where the brackets that open at `start` are closed, as far as may still be searched.
    fn loose_end(&mut self, start: usize) -> Option<usize> {
        let to = (start + self.search_bytes_left).min(self.text.len());
        let end = json::loose_end(self.text, start..to);
        self.search_bytes_left -= end.unwrap_or(to) - start;
        end
    }

    /// Looks for a whole message that begins after a comma.
    fn next_message(&mut self, from: usize, to: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let mut after_comma = false;
        let mut at = from.min(to);
        while at < to {
            match bytes[at] {
                b',' => after_comma = true,
                b'{' if after_comma && self.is_message(at)? => return Some(at),
                b' ' | b'\n' | b'\r' | b'\t' => {}
                _ => after_comma = false,
            }
            at += 1;
        }
        None
    }

    /// Whether a whole message with a known type begins here; `None` once enough was searched.
    fn is_message(&mut self, at: usize) -> Option<bool> {
        let mut members = Vec::new();
        let mut scanner = Scanner::new(self.text, at);
        let walked = Place::walk(&mut scanner, self.text, &mut members);
        self.search_bytes_left = self.search_bytes_left.checked_sub(scanner.at() - at)?;
        let is_kind = |member: &Member| match member.word(self.text) {
            Word::Text(word) => member.name == Field::Type && word.parse::<Kind>().is_ok(),
            Word::Absent | Word::Number(_) | Word::Wrong => false,
        };
        Some(walked.is_ok() && members.iter().any(is_kind))
    }

    /// Goes on behind a member of the envelope that cannot be read.
    fn skip_broken(&mut self, start: usize, fault: Fault) -> Result<(), Fault> {
        let end = json::loose_end(self.text, start..self.text.len()).ok_or(fault)?;
        self.scanner.jump(end);
        Ok(())
    }

    /// One message, from its `{`.
    fn message(&mut self) -> Result<(), Fault> {
        let known = self.members.len();
        let walked = Place::walk(&mut self.scanner, self.text, &mut self.members);
        match walked {
            Ok(place) => {
                self.messages.push(Found::Message { place, wrapper: self.wrappers.len().saturating_sub(1) });
                Ok(())
            }
            Err(fault) => {
                self.members.truncate(known);
                Err(fault)
            }
        }
    }

    /// The envelope's write key, else that of the first message that has one.
    fn write_key(&self) -> Option<String> {
        let of_message = |found| text_in(self.text, &self.members, found, Field::WriteKey);
        let of_wrapper = self.wrappers.iter().find_map(|wrapper| wrapper.write_key.clone());
        of_wrapper.or_else(|| self.messages.iter().find_map(of_message))
    }

    /// A batch in which nothing was found is fine if it was empty, and malformed if it was cut.
    fn accept_or(&self, walked: Result<(), Fault>) -> Result<(), Rejection> {
        let holds_a_message = self.messages.iter().any(|found| matches!(found, Found::Message { .. }));
        walked.or_else(|fault| if holds_a_message { Ok(()) } else { Err(self.malformed(fault)) })
    }

    fn not_an_object(&mut self) -> Rejection {
        match self.scanner.value(0) {
            Ok(_) => Rejection::NotAnObject,
            Err(fault) => self.malformed(fault),
        }
    }

    fn malformed(&self, fault: Fault) -> Rejection {
        let before = &self.text.as_bytes()[..fault.at.min(self.text.len())];
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        Rejection::Malformed {
            expected: fault.expected,
            line: before.split(|&byte| byte == b'\n').count(),
            column: String::from_utf8_lossy(&before[line_start..]).chars().count() + 1,
        }
    }
}

/// What a message's member says, if it is text: the last one of that name.
fn text_in(text: &str, members: &[Member], found: &Found, name: Field) -> Option<String> {
    let Found::Message { place, .. } = found else { return None };
    match members[place.members.range()].iter().rfind(|member| member.name == name)?.word(text) {
        Word::Text(inside) => Some(json::unescape(inside).into_owned()),
        Word::Absent | Word::Number(_) | Word::Wrong => None,
    }
}

/// What some senders put before, after or between documents: white space, a byte order mark, NULs.
fn is_padding(char: char) -> bool {
    matches!(char, '\0' | '\u{feff}' | ' ' | '\n' | '\r' | '\t')
}

/// How SDKs write that there is nothing: `null`, `""` and, in PHP, anything empty.
fn is_nothing(raw: &str, shape: Shape) -> bool {
    match shape {
        Shape::Null => true,
        Shape::String | Shape::Object => raw[1..raw.len() - 1].trim_ascii().is_empty(),
        Shape::Number | Shape::Bool | Shape::Array => false,
    }
}
