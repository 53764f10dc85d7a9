//! What a rule sends: the rule's keys laid over the destination's.

use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::address;
use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::expressions::{Expressions, has_braces};
use super::mapping::mapping;
use super::sees::Sees;
use super::table::{Field, Table};
use crate::expr::Omit;
use crate::expr::template::Template;
use crate::plan::{BatchSettings, Encoding, Mapping, RequestTemplate};

/// The keys that shape a request and may stand in a destination and in its rules. `auth` proves who we are and does
/// not count: a new key is no reason to send again what was sent.
pub(super) const REQUEST_KEYS: [&str; 8] = ["url", "path", "method", "headers", "query", "body", "encoding", "omit"];

/// Methods that usually have no body (RFC 9110, section 9.3).
const WITHOUT_BODY: [&str; 3] = ["GET", "HEAD", "DELETE"];

pub(super) const ENCODINGS: [(&str, Encoding); 5] = [
    ("json", Encoding::Json),
    ("ndjson", Encoding::Ndjson),
    ("form", Encoding::Form),
    ("multipart", Encoding::Multipart),
    ("text", Encoding::Text),
];

pub(super) const OMITS: [(&str, Omit); 2] = [("null", Omit::Null), ("empty", Omit::Empty)];

/// A destination and one of its rules; without rules, the destination alone.
pub(super) struct Layers<'t, 'a> {
    /// The destination.
    pub destination: &'t Table<'a>,
    /// The rule, which wins.
    pub rule: Option<&'t Table<'a>>,
}

/// What batches are when the file says `batch` and no more: small enough for every service we know, quick enough to
/// watch.
pub(super) const BATCH_EVENTS: usize = 100;
pub(super) const BATCH_BYTES: u64 = 1_000_000;
pub(super) const BATCH_AGE: Duration = Duration::from_secs(1);

/// What batches are where the file does not say: at most so many items in one request, bytes of its body, and how long
/// the first item waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchDefaults {
    /// Items.
    pub events: usize,
    /// Bytes.
    pub bytes: u64,
    /// The wait.
    pub age: Duration,
}

/// What batches of one type of destination are like.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchOf {
    /// Whether the file may shape an envelope.
    pub has_envelope: bool,
    /// What holds where the file does not say.
    pub defaults: BatchDefaults,
}

/// Those of most services.
pub(super) const BATCH_DEFAULTS: BatchDefaults =
    BatchDefaults { events: BATCH_EVENTS, bytes: BATCH_BYTES, age: BATCH_AGE };

/// What batches may be: a body is made in memory.
pub(super) const BATCH_EVENTS_RANGE: RangeInclusive<u64> = 1..=100_000;
pub(super) const BATCH_BYTES_RANGE: RangeInclusive<u64> = 1..=1 << 30;
pub(super) const BATCH_AGES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);

// === impl BatchDefaults ===

impl BatchDefaults {
    /// The settings that hold where nothing else is said.
    pub(super) fn settings(self) -> BatchSettings {
        BatchSettings {
            events_max: self.events,
            bytes_max: usize::try_from(self.bytes).unwrap_or(usize::MAX),
            age_max: self.age,
            by: None,
            body: None,
        }
    }
}

// === impl Layers ===

impl<'a> Layers<'_, 'a> {
    /// The rule's value of a key, else the destination's.
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'a>> {
        let below = self.destination.get(key);
        self.rule.and_then(|rule| rule.get(key)).or(below)
    }

    /// The entries of a table of both, by name; the rule's win.
    fn entries(&self, key: &'static str, what: &'static str, name: impl Fn(&Field<'a>) -> String) -> Vec<Field<'a>> {
        let below = self.destination.get(key);
        let above = self.rule.and_then(|rule| rule.get(key));
        let mut all: Vec<Field<'a>> = Vec::new();
        for table in [below, above].into_iter().flatten().filter_map(|field| field.table(what)) {
            let fields: Vec<_> = table.fields().collect();
            let own: Vec<String> = fields.iter().map(&name).collect();
            all.retain(|field| !own.contains(&name(field)));
            all.extend(fields);
        }
        all
    }
}

/// Compiles what an HTTP rule sends.
pub(super) fn http(expressions: &Expressions<'_>, layers: &Layers<'_, '_>, sees: Sees) -> Option<RequestTemplate> {
    let findings = expressions.findings;
    let method = match layers.get("method") {
        Some(field) => address::method(findings, &field),
        None => Some("POST".to_owned()),
    };
    let url = url(expressions, layers, sees);
    let path = layers.get("path").map(|field| path(expressions, &field, sees));
    let headers = headers(expressions, layers, sees);
    let query = query(expressions, layers, sees);
    let encoding = layers.get("encoding").map(|field| field.word(&ENCODINGS));
    let encoding = encoding.unwrap_or(Some(Encoding::default()));
    let omit = omit(layers);
    let body = layers.get("body").map(|field| body(expressions, &field, sees, encoding));
    let body = match body {
        Some(body) => Some(body?),
        None if method.as_deref().is_some_and(|method| WITHOUT_BODY.contains(&method)) => None,
        None => {
            expressions.note_whole_event();
            Some(whole_event())
        }
    };
    if encoding == Some(Encoding::Multipart) {
        check_multipart(expressions, layers, &headers);
    }
    let is_text_of_event = encoding == Some(Encoding::Text) && layers.get("body").is_none() && body.is_some();
    if let Some(field) = layers.get("encoding").filter(|_| is_text_of_event) {
        let error = field.error(Code::MissingKey, "`encoding = \"text\"` needs a `body` that is text");
        findings.add(error.help("write `body = \"…\"`"));
    }
    Some(RequestTemplate {
        method: method?,
        url: Some(url?),
        path: match path {
            Some(path) => Some(path?),
            None => None,
        },
        headers,
        query,
        body,
        encoding: encoding?,
        omit,
        insert: None,
        address: OnceLock::new(),
    })
}

/// Compiles what a rule of a file or of standard output writes.
pub(super) fn lines(expressions: &Expressions<'_>, layers: &Layers<'_, '_>, sees: Sees) -> Option<RequestTemplate> {
    let body = layers.get("body").map(|field| body(expressions, &field, sees, Some(Encoding::Ndjson)));
    Some(RequestTemplate {
        method: String::new(),
        url: None,
        path: None,
        headers: Vec::new(),
        query: Vec::new(),
        body: Some(match body {
            Some(body) => body?,
            None => whole_event(),
        }),
        encoding: Encoding::Ndjson,
        omit: omit(layers),
        insert: None,
        address: OnceLock::new(),
    })
}

fn whole_event() -> Mapping {
    Mapping::Template(Template::parse("{{ message }}").expect("the whole event is an expression"))
}

pub(super) fn omit(layers: &Layers<'_, '_>) -> Omit {
    layers.get("omit").and_then(|field| field.word(&OMITS)).unwrap_or_default()
}

fn url(expressions: &Expressions<'_>, layers: &Layers<'_, '_>, sees: Sees) -> Option<Template> {
    let Some(field) = layers.get("url") else {
        let place = layers.rule.unwrap_or(layers.destination);
        let missing = Diagnostic::error(Code::MissingKey, place.span(), "there is no `url` to send to");
        expressions.findings.add(missing.help("write `url = \"https://…\"` in the destination or in the rule"));
        return None;
    };
    let text = field.text()?;
    let compiled = expressions.compile(&text, sees)?;
    address::url(expressions.findings, &text, "url", &compiled);
    if let Some(path) = layers.get("path").filter(|_| is_after_query(text.value, &compiled)) {
        let message = "`path` cannot be appended: `url` already has a `?`";
        let error = Diagnostic::error(Code::PathAfterQuery, path.span(), message);
        expressions.findings.add(error.help("put parameters into `query`"));
    }
    Some(compiled.template)
}

fn is_after_query(written: &str, compiled: &super::expressions::Compiled) -> bool {
    let known = compiled.template.as_constant().and_then(|value| value.as_str());
    let outside_braces = written.split("{{").map(|piece| piece.rsplit("}}").next().unwrap_or(piece));
    known.unwrap_or_default().contains('?') || outside_braces.into_iter().any(|piece| piece.contains('?'))
}

fn path(expressions: &Expressions<'_>, field: &Field<'_>, sees: Sees) -> Option<Template> {
    let text = field.text()?;
    let compiled = expressions.compile(&text, sees)?;
    address::path(expressions.findings, &text, &compiled);
    Some(compiled.template)
}

fn headers(expressions: &Expressions<'_>, layers: &Layers<'_, '_>, sees: Sees) -> Vec<(String, Template)> {
    let fields = layers.entries("headers", "`headers`", |field| field.name.to_ascii_lowercase());
    let mut headers: Vec<(String, Template)> = Vec::with_capacity(fields.len());
    for field in &fields {
        let Some((name, template)) = header(expressions, field, sees) else { continue };
        if headers.iter().any(|(other, _)| *other == name) {
            let message = format!("the header `{name}` is there twice");
            expressions.findings.add(Diagnostic::error(Code::BadHeader, field.key_span(), message));
        }
        headers.push((name, template));
    }
    headers
}

fn header(expressions: &Expressions<'_>, field: &Field<'_>, sees: Sees) -> Option<(String, Template)> {
    let name = address::header_name(expressions.findings, field);
    let template = expressions.scalar(field, sees)?;
    if let Some(value) = template.as_constant().and_then(|value| value.as_str()) {
        address::header_value(expressions.findings, field, value);
    }
    Some((name?, template))
}

fn query(expressions: &Expressions<'_>, layers: &Layers<'_, '_>, sees: Sees) -> Vec<(String, Template)> {
    let fields = layers.entries("query", "`query`", |field| field.name.to_owned());
    fields.iter().filter_map(|field| Some((field.name.to_owned(), expressions.scalar(field, sees)?))).collect()
}

fn body(expressions: &Expressions<'_>, field: &Field<'_>, sees: Sees, encoding: Option<Encoding>) -> Option<Mapping> {
    let compiled = mapping(expressions, field, sees);
    let is_table = matches!(field.raw(), DeValue::Table(_));
    let is_list = matches!(field.raw(), DeValue::Array(_));
    let is_template = field.raw().as_str().is_some_and(has_braces);
    match encoding {
        Some(Encoding::Text) if field.raw().as_str().is_none() => {
            expressions
                .findings
                .add(field.error(Code::WrongType, "a body with `encoding = \"text\"` must be a string"));
        }
        Some(Encoding::Form | Encoding::Multipart) if !is_table && !is_template => {
            let message = format!("a body with `encoding = {:?}` must be a table", name_of(encoding));
            expressions.findings.add(field.error(Code::WrongType, message));
        }
        Some(Encoding::Text | Encoding::Form | Encoding::Multipart | Encoding::Json | Encoding::Ndjson) | None => {}
    }
    match (encoding, compiled?, field.raw().as_str()) {
        // As text it is itself, without JSON's quotes.
        (Some(Encoding::Text), Mapping::Constant(_), Some(text)) => {
            Some(Mapping::Template(Template::constant(text.into())))
        }
        (_, compiled, _) => Some(compiled),
    }
    .filter(|_| !is_list || !matches!(encoding, Some(Encoding::Form | Encoding::Multipart)))
}

/// The word of an encoding.
pub(super) fn name_of(encoding: Option<Encoding>) -> &'static str {
    ENCODINGS.iter().find(|(_, own)| Some(*own) == encoding).map_or("", |(name, _)| name)
}

/// The type of a multipart body names its boundary, which nobody knows beforehand.
fn check_multipart(expressions: &Expressions<'_>, layers: &Layers<'_, '_>, headers: &[(String, Template)]) {
    let Some(field) = layers.get("encoding").filter(|_| headers.iter().any(|(name, _)| name == "content-type")) else {
        return;
    };
    let message = "`encoding = \"multipart\"` sets the header `content-type`, which `headers` sets as well";
    let error = Diagnostic::error(Code::BadHeader, field.span(), message);
    expressions.findings.add(error.help("it names the boundary between the parts"));
}

// --- batches

/// The batch settings of a destination; with a rule, the rule's own laid over them, if it has any. Without either,
/// what holds around it.
pub(super) fn batch(
    expressions: &Expressions<'_>,
    layers: &Layers<'_, '_>,
    of: BatchOf,
    sees: Sees,
    around: Option<Arc<BatchSettings>>,
) -> Option<Arc<BatchSettings>> {
    let below = layers.destination.get("batch");
    let Some(rule) = layers.rule else {
        return below.map_or(around, |field| settings(expressions, &field, of, sees));
    };
    let Some(own) = rule.get("batch") else { return around };
    let (Some(DeValue::Table(below)), DeValue::Table(above)) = (below.map(|below| below.raw()), own.raw()) else {
        return settings(expressions, &own, of, sees);
    };
    let mut both: DeTable<'_> = below.clone();
    both.extend(above.iter().map(|(key, value)| (key.clone(), value.clone())));
    let table = Table::new(expressions.findings, &both, "`batch`", own.key_span());
    read_batch(expressions, &table, of, sees).map(Arc::new)
}

/// Reads `batch`; `false` is none.
fn settings(expressions: &Expressions<'_>, field: &Field<'_>, of: BatchOf, sees: Sees) -> Option<Arc<BatchSettings>> {
    if let DeValue::Boolean(false) = field.raw() {
        return None;
    }
    let table = field.table("`batch`")?;
    read_batch(expressions, &table, of, sees).map(Arc::new)
}

fn read_batch(expressions: &Expressions<'_>, table: &Table<'_>, of: BatchOf, sees: Sees) -> Option<BatchSettings> {
    let events_max = table.get("max_events").map(|field| field.count_usize(BATCH_EVENTS_RANGE));
    let bytes_max = table.get("max_bytes").map(|field| field.size(BATCH_BYTES_RANGE));
    let age_max = table.get("max_age").map(|field| field.duration(BATCH_AGES));
    let by = table.get("by").map(|field| expressions.template(&field.text()?, sees));
    if !of.has_envelope {
        table.not_here(&["body"], "is an envelope, which only `type = \"http\"` has");
    }
    let body =
        of.has_envelope.then(|| table.get("body")).flatten().map(|field| mapping(expressions, &field, Sees::Batch));
    table.finish();
    Some(BatchSettings {
        events_max: events_max.unwrap_or(Some(of.defaults.events))?,
        bytes_max: usize::try_from(bytes_max.unwrap_or(Some(of.defaults.bytes))?).unwrap_or(usize::MAX),
        age_max: age_max.unwrap_or(Some(of.defaults.age))?,
        by: match by {
            Some(by) => Some(by?),
            None => None,
        },
        body: match body {
            Some(body) => Some(body?),
            None => None,
        },
    })
}
