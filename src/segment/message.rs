//! One message as it lies in the text: which members it has and where. Copies nothing and judges nothing.

use super::json::{Fault, Scanner, Shape, Span};

/// A member we know, by its name on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Type,
    MessageId,
    UserId,
    AnonymousId,
    GroupId,
    PreviousId,
    Event,
    Name,
    Category,
    Properties,
    Traits,
    Context,
    Integrations,
    Timestamp,
    OriginalTimestamp,
    SentAt,
    ReceivedAt,
    Channel,
    WriteKey,
    Batch,
    Other,
}

/// One member of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) name: Field,
    /// The inside of the key.
    pub(super) key: Span,
    pub(super) value: Span,
    pub(super) shape: Shape,
}

/// What of a message's `context` decides how it is normalised.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Context {
    pub(super) has_ip: bool,
    pub(super) has_user_agent: bool,
    /// `direct: true`: the message comes straight from its user, who may be located by address.
    pub(super) is_direct: bool,
    /// The inside of its `channel`.
    pub(super) channel: Option<Span>,
    /// The inside of its `library.name`.
    pub(super) library: Option<Span>,
}

/// Where a message lies.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) span: Span,
    /// Its members, as a stretch of the list that was being filled.
    pub(super) members: Span,
    pub(super) context: Context,
    /// It has to be mended before anybody reads it.
    pub(super) is_flawed: bool,
}

/// A message in its text, ready to be asked.
pub(super) struct View<'t> {
    pub(super) text: &'t str,
    pub(super) members: &'t [Member],
    pub(super) context: Context,
    last: [usize; Field::COUNT],
}

/// What stands where an id or a name should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word<'t> {
    /// Nothing, `null` or `""`.
    Absent,
    /// The inside of a string.
    Text(&'t str),
    /// A number, as written.
    Number(&'t str),
    /// Anything else.
    Wrong,
}

// === impl Field ===

impl Field {
    const COUNT: usize = Self::Other as usize + 1;

    /// The member with this key.
    pub(super) fn of(key: &str) -> Self {
        match key {
            "type" => Self::Type,
            "messageId" => Self::MessageId,
            "userId" => Self::UserId,
            "anonymousId" => Self::AnonymousId,
            "groupId" => Self::GroupId,
            "previousId" => Self::PreviousId,
            "event" => Self::Event,
            "name" => Self::Name,
            "category" => Self::Category,
            "properties" => Self::Properties,
            "traits" => Self::Traits,
            "context" => Self::Context,
            "integrations" => Self::Integrations,
            "timestamp" => Self::Timestamp,
            "originalTimestamp" => Self::OriginalTimestamp,
            "sentAt" => Self::SentAt,
            "receivedAt" => Self::ReceivedAt,
            "channel" => Self::Channel,
            "writeKey" => Self::WriteKey,
            "batch" => Self::Batch,
            _ => Self::Other,
        }
    }

    /// The key on the wire; of those that have one.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::MessageId => "messageId",
            Self::UserId => "userId",
            Self::AnonymousId => "anonymousId",
            Self::GroupId => "groupId",
            Self::PreviousId => "previousId",
            Self::Event => "event",
            Self::Name => "name",
            Self::Category => "category",
            Self::Properties => "properties",
            Self::Traits => "traits",
            Self::Context => "context",
            Self::Integrations => "integrations",
            Self::Timestamp => "timestamp",
            Self::OriginalTimestamp => "originalTimestamp",
            Self::SentAt => "sentAt",
            Self::ReceivedAt => "receivedAt",
            Self::Channel => "channel",
            Self::WriteKey => "writeKey",
            Self::Batch => "batch",
            Self::Other => "",
        }
    }
}

// === impl Member ===

impl Member {
    /// The member as it was written: key, colon, value.
    pub(super) fn whole(&self) -> Span {
        Span { start: self.key.start - 1, end: self.value.end }
    }

    /// The value as it was written.
    pub(super) fn raw<'t>(&self, text: &'t str) -> &'t str {
        self.value.of(text)
    }

    /// The value as an id or a name.
    pub(super) fn word<'t>(&self, text: &'t str) -> Word<'t> {
        let raw = self.raw(text);
        match self.shape {
            Shape::Null => Word::Absent,
            Shape::String if raw.len() == 2 => Word::Absent,
            Shape::String => Word::Text(&raw[1..raw.len() - 1]),
            Shape::Number => Word::Number(raw),
            Shape::Bool | Shape::Object | Shape::Array => Word::Wrong,
        }
    }

    /// Whether it is `[]`, which is how PHP writes an empty object.
    pub(super) fn is_empty_array(&self, text: &str) -> bool {
        let raw = self.raw(text);
        self.shape == Shape::Array && raw[1..raw.len() - 1].trim_ascii().is_empty()
    }
}

// === impl Place ===

impl Place {
    /// Walks one message, adding its members to the list.
    pub(super) fn walk(scanner: &mut Scanner<'_>, text: &str, members: &mut Vec<Member>) -> Result<Self, Fault> {
        let first_member = members.len();
        let mut context = Context::default();
        scanner.peek();
        scanner.take_flawed();
        let start = scanner.at();
        scanner.open_object()?;
        while let Some(key) = scanner.next_key(members.len() == first_member)? {
            let name = Field::of(key.of(text));
            let (value, shape) = match (name, scanner.peek()) {
                (Field::Context, Some(b'{')) => (context.walk(scanner, text)?, Shape::Object),
                _ => scanner.value(1)?,
            };
            members.push(Member { name, key, value, shape });
        }
        Ok(Self {
            span: Span { start, end: scanner.at() },
            members: Span { start: first_member, end: members.len() },
            context,
            is_flawed: scanner.take_flawed(),
        })
    }
}

// === impl Context ===

impl Context {
    /// Walks a `context`, forgetting what an earlier one said.
    fn walk(&mut self, scanner: &mut Scanner<'_>, text: &str) -> Result<Span, Fault> {
        *self = Self::default();
        let start = scanner.at();
        scanner.open_object()?;
        let mut is_first = true;
        while let Some(key) = scanner.next_key(is_first)? {
            is_first = false;
            if key.of(text) == "library" {
                self.library = walk_library(scanner, text)?;
                continue;
            }
            let (value, shape) = scanner.value(2)?;
            self.note(key.of(text), value, shape, text);
        }
        Ok(Span { start, end: scanner.at() })
    }

    fn note(&mut self, key: &str, value: Span, shape: Shape, text: &str) {
        match key {
            "ip" => self.has_ip = true,
            "userAgent" => self.has_user_agent = true,
            "direct" => self.is_direct = value.of(text) == "true",
            "channel" => self.channel = inside(value, shape),
            _ => {}
        }
    }

    /// Looks at a `context` of its own.
    pub(super) fn of(text: &str) -> Self {
        let mut context = Self::default();
        // A text that was walked before is walked again to its end.
        context.walk(&mut Scanner::new(text, 0), text).map(|_| context).unwrap_or_default()
    }
}

fn walk_library(scanner: &mut Scanner<'_>, text: &str) -> Result<Option<Span>, Fault> {
    if scanner.peek() != Some(b'{') {
        return scanner.value(2).map(|_| None);
    }
    scanner.open_object()?;
    let (mut name, mut is_first) = (None, true);
    while let Some(key) = scanner.next_key(is_first)? {
        is_first = false;
        let (value, shape) = scanner.value(3)?;
        if key.of(text) == "name" {
            name = inside(value, shape);
        }
    }
    Ok(name)
}

/// The inside of a string that says something.
fn inside(value: Span, shape: Shape) -> Option<Span> {
    (shape == Shape::String && value.len() > 2).then_some(Span { start: value.start + 1, end: value.end - 1 })
}

// === impl View ===

impl<'t> View<'t> {
    pub(super) fn new(text: &'t str, members: &'t [Member], context: Context) -> Self {
        let mut last = [usize::MAX; Field::COUNT];
        for (index, member) in members.iter().enumerate() {
            last[member.name as usize] = index;
        }
        Self { text, members, context, last }
    }

    /// The member of this name: the last one, as every JSON parser has it.
    pub(super) fn get(&self, name: Field) -> Option<&'t Member> {
        self.members.get(self.last[name as usize])
    }

    /// Whether a later member of the same name makes this one void.
    pub(super) fn is_void(&self, index: usize) -> bool {
        let name = self.members[index].name;
        name != Field::Other && self.last[name as usize] != index
    }

    pub(super) fn word(&self, name: Field) -> Word<'t> {
        self.get(name).map_or(Word::Absent, |member| member.word(self.text))
    }
}
