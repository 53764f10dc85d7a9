//! Which messages cannot be used, in Segment's own words. Judges a message as it was sent; changes nothing.

use std::borrow::Cow;

use serde_json::Value;

use super::json::{self, Shape};
use super::message::{Field, View, Word};
use super::{Call, consent};
use crate::event::Kind;

/// A message that cannot be used, and why, in Segment's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discard {
    /// Its place in the batch; 0 for a single call.
    pub index: usize,
    /// Segment's code.
    pub code: DiscardCode,
    /// What a person needs to know to mend it, as a fragment of a sentence.
    pub detail: Cow<'static, str>,
    /// Its id, if it told one.
    pub message_id: Option<String>,
}

/// Segment's discard codes, as its Delivery Overview shows them under "Failed on Ingest"
/// (<https://segment.com/docs/connections/delivery-overview/#troubleshooting>; the list is
/// `src/_includes/content/delivery-overview-discards.html` of <https://github.com/segmentio/segment-docs>, read
/// 2026-11-22). Codes for what only a hosted service can suffer are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DiscardCode {
    /// The batch holds no message at all.
    EmptyBatch,
    /// No message of the batch could be used. Said of a whole batch; a `Reading` names each message instead.
    EmptyBatchResult,
    /// Some messages of the batch could not be used. Said of a whole batch; a `Reading` names each message instead.
    MultiUserError,
    /// Neither `userId` nor `anonymousId`.
    NoUserAnonId,
    /// The id this type is about is missing: `groupId` of a group, `userId` of an alias.
    IdRequired,
    /// An id is neither text nor a number.
    IdNotString,
    /// A track without `event`.
    EventNotDefined,
    /// A track whose `event` is not text.
    EventNotString,
    /// `properties` is not an object.
    PropertiesNotObject,
    /// `traits` is not an object.
    TraitsNotObject,
    /// The `name` of a page or screen is not text.
    NameNotString,
    /// The `category` of a page or screen is not text.
    CategoryNotString,
    /// A message of a batch without `type`.
    MissingType,
    /// A `type` that is none of the six.
    InvalidType,
    /// A consent event without `context.consent.categoryPreferences`.
    ConsentCategoryPreferencesShouldExist,
    /// A consent event whose `categoryPreferences` is not an object.
    ConsentCategoryPreferencesFieldsShouldBeObject,
    /// A consent event with a preference that is neither `true` nor `false`.
    ConsentCategoryPreferencesFieldsShouldBeBool,
    /// A consent event whose `context.device.advertisingId` is not text.
    DeviceAdvertisingIdShouldBeString,
    /// A consent event whose `context.consent.version` is not a number.
    ConsentVersionShouldBeNumber,
    /// A tracking plan of the file finds something wrong with it. Ours: Segment has no word for what it drops by a plan.
    PlanViolation,
    /// The source is switched off in the file.
    SourceDisabled,
    /// The write key belongs to no source.
    UnknownSource,
    /// Not an object, not JSON, too large, or one too many; the detail says which.
    BadRequest,
}

/// What is wrong with a message.
pub(super) type Problem = (DiscardCode, Cow<'static, str>);

// === impl DiscardCode ===

impl DiscardCode {
    /// The word in answers, metrics and logs: Segment's.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmptyBatch => "empty_batch",
            Self::EmptyBatchResult => "empty_batch_result",
            Self::MultiUserError => "multi_user_error",
            Self::NoUserAnonId => "no_user_anon_id",
            Self::IdRequired => "id_required",
            Self::IdNotString => "id_not_string",
            Self::EventNotDefined => "event_not_defined",
            Self::EventNotString => "event_not_string",
            Self::PropertiesNotObject => "properties_not_object",
            Self::TraitsNotObject => "traits_not_object",
            Self::NameNotString => "name_not_string",
            Self::CategoryNotString => "category_not_string",
            Self::MissingType => "missing_type",
            Self::InvalidType => "invalid_type",
            Self::ConsentCategoryPreferencesShouldExist => "consent_categorypreferences_should_exist",
            Self::ConsentCategoryPreferencesFieldsShouldBeObject => {
                "consent_categorypreferences_fields_should_be_object"
            }
            Self::ConsentCategoryPreferencesFieldsShouldBeBool => "consent_categorypreferences_fields_should_be_bool",
            Self::DeviceAdvertisingIdShouldBeString => "device_advertisingid_should_be_string",
            Self::ConsentVersionShouldBeNumber => "consent_version_should_be_number",
            Self::PlanViolation => "plan_violation",
            Self::SourceDisabled => "source_disabled",
            Self::UnknownSource => "unknown_source",
            Self::BadRequest => "bad_request",
        }
    }
}

impl std::fmt::Display for DiscardCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

// --- the check

/// Which of the six calls a message is, or the first thing that is wrong with it.
pub(super) fn check(message: &View<'_>, call: Call) -> Result<Kind, Problem> {
    let kind = kind_of(message, call)?;
    check_ids(message, kind)?;
    match kind {
        Kind::Track => {
            check_event(message)?;
            check_object(
                message,
                Field::Properties,
                DiscardCode::PropertiesNotObject,
                "`properties` is not an object",
            )?;
            check_consent(message)?;
        }
        Kind::Page | Kind::Screen => {
            check_text(message, Field::Name, DiscardCode::NameNotString, "`name` is not a string")?;
            check_text(message, Field::Category, DiscardCode::CategoryNotString, "`category` is not a string")?;
            check_object(
                message,
                Field::Properties,
                DiscardCode::PropertiesNotObject,
                "`properties` is not an object",
            )?;
        }
        Kind::Identify | Kind::Group => {
            check_object(message, Field::Traits, DiscardCode::TraitsNotObject, "`traits` is not an object")?;
        }
        Kind::Alias => {}
    }
    Ok(kind)
}

fn problem<T>(code: DiscardCode, detail: &'static str) -> Result<T, Problem> {
    Err((code, Cow::Borrowed(detail)))
}

fn kind_of(message: &View<'_>, call: Call) -> Result<Kind, Problem> {
    if let Call::One(kind) = call {
        return Ok(kind);
    }
    match message.word(Field::Type) {
        Word::Absent => problem(DiscardCode::MissingType, "`type` is missing"),
        Word::Text(word) => word.parse().or_else(|_| invalid_type(word)),
        Word::Number(other) => invalid_type(other),
        Word::Wrong => problem(DiscardCode::InvalidType, "`type` is not a string"),
    }
}

fn invalid_type<T>(word: &str) -> Result<T, Problem> {
    let shown: String = json::unescape(word).chars().take(40).collect();
    let detail = format!("`type` is \"{shown}\", not one of track, identify, page, screen, group, alias");
    Err((DiscardCode::InvalidType, Cow::Owned(detail)))
}

fn check_ids(message: &View<'_>, kind: Kind) -> Result<(), Problem> {
    for (name, detail) in [
        (Field::UserId, "`userId` is neither a string nor a number"),
        (Field::AnonymousId, "`anonymousId` is neither a string nor a number"),
        (Field::GroupId, "`groupId` is neither a string nor a number"),
        (Field::PreviousId, "`previousId` is neither a string nor a number"),
    ] {
        if message.word(name) == Word::Wrong {
            return problem(DiscardCode::IdNotString, detail);
        }
    }
    let is_absent = |name| message.word(name) == Word::Absent;
    if is_absent(Field::UserId) && is_absent(Field::AnonymousId) {
        return problem(DiscardCode::NoUserAnonId, "`userId` or `anonymousId` is needed");
    }
    match kind {
        Kind::Group if is_absent(Field::GroupId) => problem(DiscardCode::IdRequired, "`groupId` is missing"),
        Kind::Alias if is_absent(Field::UserId) => problem(DiscardCode::IdRequired, "`userId` is missing"),
        Kind::Track | Kind::Identify | Kind::Page | Kind::Screen | Kind::Group | Kind::Alias => Ok(()),
    }
}

fn check_event(message: &View<'_>) -> Result<(), Problem> {
    match message.word(Field::Event) {
        Word::Text(_) => Ok(()),
        Word::Absent => problem(DiscardCode::EventNotDefined, "`event` is missing"),
        Word::Number(_) | Word::Wrong => problem(DiscardCode::EventNotString, "`event` is not a string"),
    }
}

fn check_text(message: &View<'_>, name: Field, code: DiscardCode, detail: &'static str) -> Result<(), Problem> {
    match message.word(name) {
        Word::Text(_) | Word::Absent => Ok(()),
        Word::Number(_) | Word::Wrong => problem(code, detail),
    }
}

fn check_object(message: &View<'_>, name: Field, code: DiscardCode, detail: &'static str) -> Result<(), Problem> {
    let Some(member) = message.get(name) else { return Ok(()) };
    match member.shape {
        Shape::Object | Shape::Null => Ok(()),
        Shape::Array if member.is_empty_array(message.text) => Ok(()),
        Shape::Array | Shape::String | Shape::Number | Shape::Bool => problem(code, detail),
    }
}

/// The event that carries nothing but consent has to carry it well.
fn check_consent(message: &View<'_>) -> Result<(), Problem> {
    if message.word(Field::Event) != Word::Text(consent::PREFERENCE_UPDATED) {
        return Ok(());
    }
    let raw = message.get(Field::Context).map_or("null", |member| member.raw(message.text));
    let context: Value = serde_json::from_str(raw).unwrap_or_default();
    check_preferences(&context["consent"]["categoryPreferences"])?;
    if !matches!(context["consent"]["version"], Value::Null | Value::Number(_)) {
        return problem(DiscardCode::ConsentVersionShouldBeNumber, "`context.consent.version` is not a number");
    }
    if !matches!(context["device"]["advertisingId"], Value::Null | Value::String(_)) {
        return problem(
            DiscardCode::DeviceAdvertisingIdShouldBeString,
            "`context.device.advertisingId` is not a string",
        );
    }
    Ok(())
}

fn check_preferences(preferences: &Value) -> Result<(), Problem> {
    match preferences {
        Value::Null => problem(
            DiscardCode::ConsentCategoryPreferencesShouldExist,
            "`context.consent.categoryPreferences` is missing",
        ),
        Value::Array(list) if list.is_empty() => Ok(()),
        Value::Object(map) if map.values().all(Value::is_boolean) => Ok(()),
        Value::Object(_) => problem(
            DiscardCode::ConsentCategoryPreferencesFieldsShouldBeBool,
            "a value in `context.consent.categoryPreferences` is neither true nor false",
        ),
        Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => problem(
            DiscardCode::ConsentCategoryPreferencesFieldsShouldBeObject,
            "`context.consent.categoryPreferences` is not an object",
        ),
    }
}
