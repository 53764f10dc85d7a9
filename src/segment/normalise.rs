//! Turns the messages of an outline into events: each is checked, and written once with what the server adds.
//!
//! A member keeps its place and its text unless a rule of `docs/wire-contract.md` changes it; what the sender left out
//! is appended.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;
use jiff::Timestamp;

use super::discard::{self, Problem};
use super::inspect::inspect;
use super::json::{self, Scanner, Shape, Span};
use super::message::{Context, Field, Place, View, Word};
use super::outline::{Envelope, Found, Wrapper};
use super::repair::repair;
use super::{Arrival, Call, Discard, DiscardCode, Reading, time};
use crate::event::{Event, Kind, MessageId};

/// Keys that one message's `properties` may have; more are dropped
/// (<https://segment.com/docs/connections/rate-limits/>, read 2026-11-22).
const PROPERTIES_MAX: usize = 10_000;

/// Reads an envelope's messages, one after the other.
pub(super) struct Reader<'e> {
    envelope: &'e Envelope<'e>,
    arrival: &'e Arrival<'e>,
    received_at: Timestamp,
    /// `receivedAt`, the sender's address and its browser as JSON: the same for all messages.
    received_json: String,
    ip: Option<String>,
    user_agent: Option<String>,
    wrappers: Vec<Surroundings<'e>>,
    /// Where an event is put together before it gets its own bytes.
    out: Vec<u8>,
}

/// A wrapper, understood.
struct Surroundings<'e> {
    wrapper: &'e Wrapper,
    sent_at: Option<Timestamp>,
}

/// What one message's members become.
struct Normal<'n> {
    message: &'n View<'n>,
    /// The type, where the path decides it.
    kind: Option<Kind>,
    /// The message id, where we made it.
    message_id: Option<&'n str>,
    context: Edit<'n>,
    integrations: Edit<'n>,
    channel: Edit<'n>,
    sent_at: Option<Timestamp>,
    original: Timestamp,
    timestamp: Timestamp,
    received_json: &'n str,
}

/// What becomes of one member.
#[derive(Clone, Debug)]
enum Edit<'n> {
    /// Stays as it was sent; if it was not sent, it stays absent.
    Keep,
    /// Goes.
    Drop,
    /// Becomes this string.
    Text(&'n str),
    /// Becomes this JSON.
    Json(Cow<'n, str>),
    /// Becomes this instant.
    Time(Timestamp),
}

// === impl Reader ===

impl<'e> Reader<'e> {
    pub(super) fn new(envelope: &'e Envelope<'e>, arrival: &'e Arrival<'e>) -> Self {
        let received_at = time::whole_milliseconds(arrival.received_at);
        let mut received = Vec::with_capacity(32);
        time::push_quoted(&mut received, received_at);
        let understand =
            |wrapper: &'e Wrapper| Surroundings { wrapper, sent_at: wrapper.sent_at.as_deref().and_then(time::parse) };
        Self {
            envelope,
            arrival,
            received_at,
            received_json: String::from_utf8(received).expect("digits and punctuation"),
            wrappers: envelope.wrappers.iter().map(understand).collect(),
            ip: arrival.ip.and_then(written_ip),
            user_agent: arrival.user_agent.map(quoted),
            out: Vec::with_capacity(1024),
        }
    }

    /// Reads every message.
    pub(super) fn read(mut self) -> Reading {
        let envelope = self.envelope;
        let mut reading = Reading { events: Vec::with_capacity(envelope.messages.len()), discards: Vec::new() };
        for (index, found) in envelope.messages.iter().enumerate() {
            match self.read_one(index, found) {
                Ok(event) => reading.events.push(event),
                Err(discard) => reading.discards.push(discard),
            }
        }
        if envelope.messages.is_empty() {
            let detail = Cow::Borrowed("the batch holds no message");
            reading.discards.push(Discard { index: 0, code: DiscardCode::EmptyBatch, detail, message_id: None });
        }
        reading
    }

    fn read_one(&mut self, index: usize, found: &Found) -> Result<Event, Discard> {
        let bad_request =
            |detail: String| Discard { index, code: DiscardCode::BadRequest, detail: detail.into(), message_id: None };
        if index >= self.arrival.limits.batch_events_max {
            return Err(bad_request(format!("a batch may hold {} messages", self.arrival.limits.batch_events_max)));
        }
        match found {
            Found::Garbage(expected) => Err(bad_request(format!("not a message: {expected}"))),
            Found::Message { place, wrapper } => self.read_place(place, *wrapper, index),
        }
    }

    /// Reads a message where it lies, or a mended copy of it.
    fn read_place(&mut self, place: &Place, wrapper: usize, index: usize) -> Result<Event, Discard> {
        let envelope = self.envelope;
        if !place.is_flawed {
            let view = View::new(&envelope.text, &envelope.members[place.members.range()], place.context);
            return self.read_view(&view, place.span, wrapper, index);
        }
        let text = repair(place.span.of(&envelope.text));
        let mut members = Vec::with_capacity(place.members.len());
        let walked = Place::walk(&mut Scanner::new(&text, 0), &text, &mut members);
        let place = walked.expect("a mended message is strict JSON");
        self.read_view(&View::new(&text, &members, place.context), place.span, wrapper, index)
    }

    fn read_view(&mut self, message: &View<'_>, span: Span, wrapper: usize, index: usize) -> Result<Event, Discard> {
        let told_id = message_id(message);
        let discard = |(code, detail): Problem| Discard {
            index,
            code,
            detail,
            message_id: told_id.as_deref().map(str::to_owned),
        };
        self.check_size(span).map_err(discard)?;
        let kind = discard::check(message, self.envelope.call).map_err(discard)?;
        let message_id = told_id.as_deref().map_or_else(self.arrival.new_id, MessageId::from);
        self.write(message, span, wrapper, &message_id);
        let event = Event {
            source: self.arrival.source.clone(),
            kind,
            message_id,
            received_at: self.received_at,
            json: Bytes::copy_from_slice(&self.out),
        };
        let Some(plans) = self.arrival.plans else { return Ok(event) };
        inspect(plans, event, name(message, kind).as_deref()).map_err(discard)
    }

    fn check_size(&self, span: Span) -> Result<(), Problem> {
        let max_bytes = self.arrival.limits.event_bytes_max;
        if span.len() <= max_bytes {
            return Ok(());
        }
        let detail = format!("the message is {} bytes, more than the {max_bytes} accepted here", span.len());
        Err((DiscardCode::BadRequest, Cow::Owned(detail)))
    }

    /// Puts the normalised message into `out`.
    fn write(&mut self, message: &View<'_>, span: Span, wrapper: usize, message_id: &MessageId) {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        out.reserve(span.len() + 256);
        self.normal(message, &self.wrappers[wrapper], message_id).write(&mut out);
        self.out = out;
    }

    fn normal<'n>(
        &'n self,
        message: &'n View<'n>,
        around: &'n Surroundings<'_>,
        message_id: &'n MessageId,
    ) -> Normal<'n> {
        let sent_at = instant(message, Field::SentAt).or(around.sent_at);
        let told = instant(message, Field::Timestamp).or_else(|| instant(message, Field::OriginalTimestamp));
        let original = told.or(sent_at).unwrap_or(self.received_at);
        let (context, channel) = self.context(message, around.wrapper.context.as_deref());
        Normal {
            message,
            kind: match self.envelope.call {
                Call::One(kind) => Some(kind),
                Call::Batch => None,
            },
            message_id: (!matches!(message.word(Field::MessageId), Word::Text(_))).then_some(message_id.as_str()),
            context,
            integrations: merged(message, Field::Integrations, around.wrapper.integrations.as_deref()),
            channel,
            sent_at,
            original,
            timestamp: time::corrected(original, sent_at, self.received_at),
            received_json: &self.received_json,
        }
    }

    /// What becomes of `context` and `channel`: merged, and told where a client-side message came from.
    fn context<'n>(&self, message: &'n View<'n>, around: Option<&'n str>) -> (Edit<'n>, Edit<'n>) {
        let merged = merged(message, Field::Context, around);
        let (home, facts) = match &merged {
            Edit::Json(text) => (&**text, Context::of(text)),
            Edit::Keep | Edit::Drop | Edit::Text(_) | Edit::Time(_) => (message.text, message.context),
        };
        let channel = Channel::of(message, &facts, home);
        let ip = self.ip.as_deref().filter(|_| (channel.is_client || facts.is_direct) && !facts.has_ip);
        let user_agent = self.user_agent.as_deref().filter(|_| channel.is_client && !facts.has_user_agent);
        if ip.is_none() && user_agent.is_none() {
            return (merged, channel.edit);
        }
        let mut object = Object::open(match &merged {
            Edit::Json(text) => text,
            Edit::Keep => message.get(Field::Context).map_or("{}", |member| member.raw(message.text)),
            Edit::Drop | Edit::Text(_) | Edit::Time(_) => "{}",
        });
        let added = [("ip", ip), ("userAgent", user_agent)];
        for (key, value) in added.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            object.push(key, value);
        }
        (Edit::Json(Cow::Owned(object.close())), channel.edit)
    }
}

/// The address in quotes, if it is one that Segment would note: it knows only `IPv4`.
fn written_ip(ip: IpAddr) -> Option<String> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Some(format!("\"{ip}\"")),
        IpAddr::V6(_) => None,
    }
}

fn quoted(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    json::push_string(&mut out, text);
    String::from_utf8(out).expect("made of text")
}

/// The id the message told, if it told one.
fn message_id<'t>(message: &View<'t>) -> Option<Cow<'t, str>> {
    match message.word(Field::MessageId) {
        Word::Text(inside) => Some(json::unescape(inside)),
        Word::Number(number) => Some(decimal(number)),
        Word::Absent | Word::Wrong => None,
    }
}

/// What the event, page or screen is called.
fn name<'t>(message: &View<'t>, kind: Kind) -> Option<Cow<'t, str>> {
    let field = match kind {
        Kind::Track => Field::Event,
        Kind::Page | Kind::Screen | Kind::Identify | Kind::Group | Kind::Alias => Field::Name,
    };
    match message.word(field) {
        Word::Text(inside) => Some(json::unescape(inside)),
        Word::Number(_) | Word::Absent | Word::Wrong => None,
    }
}

/// A number as the text it would be if somebody had written it as text: all its digits, no exponent.
fn decimal(number: &str) -> Cow<'_, str> {
    if !number.contains(['.', 'e', 'E']) {
        return Cow::Borrowed(number);
    }
    number.parse::<f64>().map_or(Cow::Borrowed(number), |float| Cow::Owned(float.to_string()))
}

fn instant(message: &View<'_>, name: Field) -> Option<Timestamp> {
    match message.word(name) {
        Word::Text(inside) => time::parse(&json::unescape(inside)),
        Word::Number(number) => time::parse_epoch(number),
        Word::Absent | Word::Wrong => None,
    }
}

// === impl Channel ===

/// Which side a message comes from.
struct Channel<'n> {
    /// What becomes of the member.
    edit: Edit<'n>,
    /// It was sent by the end user's own browser or phone.
    is_client: bool,
}

impl Channel<'_> {
    /// As the message says, else as its context says, else as its library lets on.
    fn of(message: &View<'_>, facts: &Context, home: &str) -> Self {
        let absent = if message.get(Field::Channel).is_some() { Edit::Drop } else { Edit::Keep };
        match (message.word(Field::Channel), facts.channel, facts.library) {
            (Word::Text(told), ..) => Self { edit: Edit::Keep, is_client: is_client(told) },
            (Word::Number(_) | Word::Wrong, ..) => Self { edit: Edit::Keep, is_client: false },
            (Word::Absent, Some(told), _) => Self { edit: absent, is_client: is_client(told.of(home)) },
            (Word::Absent, None, Some(library)) => match channel_of(library.of(home)) {
                Some(channel) => Self { edit: Edit::Text(channel), is_client: is_client(channel) },
                None => Self { edit: absent, is_client: false },
            },
            (Word::Absent, None, None) => Self { edit: absent, is_client: false },
        }
    }
}

/// `web` is what `RudderStack`'s browser SDK says.
fn is_client(channel: &str) -> bool {
    matches!(channel, "browser" | "mobile" | "web")
}

/// Where a library runs, by the name it gives itself in `context.library.name` (the SDKs' sources, read 2026-11-22).
/// Those that run on both sides, such as `Analytics-CSharp`, are left out.
fn channel_of(library: &str) -> Option<&'static str> {
    const CHANNELS: [(&str, &[&str]); 3] = [
        ("browser", &["analytics.js", "RudderLabs JavaScript SDK"]),
        (
            "server",
            &[
                "@segment/analytics-node",
                "analytics-node",
                "analytics-python",
                "analytics-ruby",
                "analytics-php",
                "analytics-go",
                "analytics-java",
                "analytics-rust",
                "Analytics.NET",
                "analytics-clojure",
            ],
        ),
        (
            "mobile",
            &[
                "analytics-swift",
                "analytics-kotlin",
                "analytics-ios",
                "analytics-android",
                "analytics-react-native",
                "@segment/analytics-react-native",
                "analytics-flutter",
                "analytics_flutter",
                "com.rudderstack.android.sdk.core",
                "rudder-ios-library",
            ],
        ),
    ];
    CHANNELS.into_iter().find(|(_, libraries)| libraries.contains(&library)).map(|(channel, _)| channel)
}

// --- merging

/// An object being added to.
pub(super) struct Object {
    /// Its text, without the closing brace.
    text: String,
    is_empty: bool,
}

impl Object {
    pub(super) fn open(text: &str) -> Self {
        let inside = text.trim_ascii_end().strip_suffix('}').unwrap_or("{");
        let mut owned = String::with_capacity(text.len() + 256);
        owned.push_str(inside);
        Self { text: owned, is_empty: inside.trim_ascii() == "{" }
    }

    pub(super) fn push(&mut self, key: &str, value: &str) {
        if !self.is_empty {
            self.text.push(',');
        }
        self.is_empty = false;
        self.text.extend(["\"", key, "\":", value]);
    }

    pub(super) fn close(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// What becomes of an object member, given what stands around the message under the same name.
fn merged<'n>(message: &View<'n>, name: Field, around: Option<&'n str>) -> Edit<'n> {
    let Some(member) = message.get(name) else {
        return around.map_or(Edit::Keep, |around| Edit::Json(Cow::Borrowed(around)));
    };
    match (member.shape, around) {
        (Shape::Object, None) => Edit::Keep,
        (Shape::Object, Some(around)) => Edit::Json(Cow::Owned(merge(member.raw(message.text), around))),
        (_, Some(around)) => Edit::Json(Cow::Borrowed(around)),
        (_, None) if member.is_empty_array(message.text) => Edit::Json(Cow::Borrowed("{}")),
        (_, None) => Edit::Drop,
    }
}

/// An object, and what else stands in the one under it.
fn merge(over: &str, under: &str) -> String {
    let own: Vec<Cow<'_, str>> = members(over).into_iter().map(|(key, _)| json::unescape(key)).collect();
    let mut object = Object::open(over);
    for (key, value) in members(under) {
        if !own.contains(&json::unescape(key)) {
            object.push(key, value);
        }
    }
    object.close()
}

/// The keys and values of an object.
pub(super) fn members(object: &str) -> Vec<(&str, &str)> {
    let mut members = Vec::new();
    let mut scanner = Scanner::new(object, 0);
    if scanner.open_object().is_err() {
        return members;
    }
    while let Ok(Some(key)) = scanner.next_key(members.is_empty()) {
        let Ok((value, _)) = scanner.value(1) else { break };
        members.push((key.of(object), value.of(object)));
    }
    members
}

/// Without the keys that are too many.
fn bounded(object: &str) -> Option<String> {
    // A key, a colon, a value and a comma are at least five bytes.
    if object.len() < PROPERTIES_MAX * 5 {
        return None;
    }
    let members = members(object);
    let excess = members.len().checked_sub(PROPERTIES_MAX).filter(|&excess| excess > 0)?;
    let mut bounded = Object::open("{}");
    for (key, value) in &members[..members.len() - excess] {
        bounded.push(key, value);
    }
    Some(bounded.close())
}

// === impl Normal ===

impl Normal<'_> {
    /// What the server adds to a message that lacks it.
    const ADDED: [Field; 9] = [
        Field::Type,
        Field::MessageId,
        Field::Channel,
        Field::Context,
        Field::Integrations,
        Field::OriginalTimestamp,
        Field::SentAt,
        Field::Timestamp,
        Field::ReceivedAt,
    ];

    /// Writes the message: neighbours that stay as they are go in one piece.
    fn write(&self, out: &mut Vec<u8>) {
        let text = self.message.text;
        let mut kept: Option<Span> = None;
        out.push(b'{');
        for (index, member) in self.message.members.iter().enumerate() {
            let whole = member.whole();
            let edit = if self.message.is_void(index) { Edit::Drop } else { self.edit(member.name) };
            if matches!(edit, Edit::Keep) {
                kept = Some(Span { start: kept.map_or(whole.start, |kept| kept.start), end: whole.end });
                continue;
            }
            flush(out, text, &mut kept);
            push_edit(out, member.key.of(text), &edit);
        }
        flush(out, text, &mut kept);
        for name in Self::ADDED {
            if self.message.get(name).is_none() {
                push_edit(out, name.as_str(), &self.edit(name));
            }
        }
        // There is one: `receivedAt` at the least.
        out.pop();
        out.push(b'}');
    }

    /// The rules of normalisation, member by member.
    fn edit(&self, name: Field) -> Edit<'_> {
        match name {
            Field::Type => self.kind.map_or(Edit::Keep, |kind| Edit::Text(kind.as_str())),
            Field::MessageId => self.message_id.map_or(Edit::Keep, |id| Edit::Json(Cow::Owned(quoted(id)))),
            Field::UserId | Field::AnonymousId | Field::GroupId | Field::PreviousId => self.id_edit(name),
            Field::Name | Field::Category => self.text_edit(name),
            Field::Properties | Field::Traits => self.object_edit(name),
            Field::Context => borrowed(&self.context),
            Field::Integrations => borrowed(&self.integrations),
            Field::Channel => borrowed(&self.channel),
            Field::OriginalTimestamp => Edit::Time(self.original),
            Field::Timestamp => Edit::Time(self.timestamp),
            Field::SentAt => self.sent_at.map_or(Edit::Drop, Edit::Time),
            Field::ReceivedAt => Edit::Json(Cow::Borrowed(self.received_json)),
            Field::WriteKey => Edit::Drop,
            Field::Event | Field::Batch | Field::Other => Edit::Keep,
        }
    }

    fn id_edit(&self, name: Field) -> Edit<'_> {
        match self.message.word(name) {
            Word::Absent => Edit::Drop,
            Word::Number(number) => Edit::Json(Cow::Owned(quoted(&decimal(number)))),
            Word::Text(_) | Word::Wrong => Edit::Keep,
        }
    }

    fn text_edit(&self, name: Field) -> Edit<'_> {
        if self.message.word(name) == Word::Absent { Edit::Drop } else { Edit::Keep }
    }

    fn object_edit(&self, name: Field) -> Edit<'_> {
        let Some(member) = self.message.get(name) else { return Edit::Keep };
        match member.shape {
            Shape::Null => Edit::Drop,
            Shape::Array if member.is_empty_array(self.message.text) => Edit::Json(Cow::Borrowed("{}")),
            Shape::Object => bounded(member.raw(self.message.text)).map_or(Edit::Keep, |text| Edit::Json(text.into())),
            Shape::Array | Shape::String | Shape::Number | Shape::Bool => Edit::Keep,
        }
    }
}

/// Writes the members that were held back, and a comma.
fn flush(out: &mut Vec<u8>, text: &str, kept: &mut Option<Span>) {
    if let Some(span) = kept.take() {
        out.extend_from_slice(span.of(text).as_bytes());
        out.push(b',');
    }
}

/// Writes a changed member, and a comma.
fn push_edit(out: &mut Vec<u8>, key: &str, edit: &Edit<'_>) {
    if matches!(edit, Edit::Keep | Edit::Drop) {
        return;
    }
    out.push(b'"');
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    match edit {
        Edit::Keep | Edit::Drop => {}
        Edit::Text(text) => json::push_string(out, text),
        Edit::Json(json) => out.extend_from_slice(json.as_bytes()),
        Edit::Time(instant) => time::push_quoted(out, *instant),
    }
    out.push(b',');
}

fn borrowed<'e>(edit: &'e Edit<'_>) -> Edit<'e> {
    match edit {
        Edit::Keep => Edit::Keep,
        Edit::Drop => Edit::Drop,
        Edit::Text(text) => Edit::Text(text),
        Edit::Json(json) => Edit::Json(Cow::Borrowed(json)),
        Edit::Time(instant) => Edit::Time(*instant),
    }
}
