//! `[destinations.NAME]`: a table of the file becomes a destination with its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::auth;
use super::bigquery;
use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::expressions::{Expressions, Switch, Uses};
use super::fingerprint::Fingerprint;
use super::request::{self, BATCH_DEFAULTS, BatchDefaults, BatchOf, Layers, REQUEST_KEYS};
use super::response;
use super::rule::{self, MATCH_KEYS, Match};
use super::sample;
use super::sees::Sees;
use super::spelling::nearest;
use super::table::{Field, Table};
use super::units;
use crate::attempt::{DestinationName, Start};
use crate::event::{Kind, SourceName};
use crate::expr::template::Template;
use crate::plan::{
    Auth, BatchSettings, BigQuery, Compression, Destination, DestinationKind, Disabled, Encoding, FileSettings, Limit,
    RequestTemplate, Rule, TrackingPlan, Trigger,
};
use crate::retry::RetryPolicy;

/// What the file says besides the destination itself.
pub(super) struct Surroundings<'a> {
    /// Compiles its strings.
    pub expressions: &'a Expressions<'a>,
    /// `[let]`.
    pub lets: &'a DeTable<'a>,
    /// `[tables]`.
    pub tables: &'a DeTable<'a>,
    /// The sources it takes events from; `None`: all.
    pub sources: Option<Vec<SourceName>>,
    /// The tracking plans whose word is `dead`.
    pub plans: Vec<Arc<TrackingPlan>>,
}

/// What became of a destination.
pub(super) struct Reading {
    /// It, or why it is off; `None` when it has mistakes.
    pub result: Option<Result<Destination, Disabled>>,
    /// The `let`s and `env`s in force for it.
    pub definitions: Definitions,
    /// Tables it uses; `*` for all.
    pub tables: BTreeSet<String>,
    /// What its `overflow` names, and where that is written.
    pub overflow: Option<(String, Range<usize>)>,
}

/// Names that a file defines: used or not. What is written once may be in force in several destinations.
#[derive(Default)]
pub(super) struct Definitions {
    /// Where those that are used are written.
    pub used_at: BTreeSet<usize>,
    /// What is to be said of the others.
    pub unused: Vec<Diagnostic>,
}

/// How a destination is written: the word of `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Http,
    BigQuery,
    File,
    Stdout,
}

pub(super) const TYPES: [(&str, Type); 4] =
    [("http", Type::Http), ("bigquery", Type::BigQuery), ("file", Type::File), ("stdout", Type::Stdout)];

/// Keys of an HTTP destination and of its rules.
const HTTP_KEYS: [&str; 6] = ["url", "method", "headers", "query", "encoding", "auth"];
/// Keys of whatever answers over HTTP, and not of its rules.
const HTTP_DESTINATION_KEYS: [&str; 1] = ["response"];
/// Keys of a file. `path` is one as well, which an HTTP destination understands otherwise.
const FILE_KEYS: [&str; 2] = ["format", "rotate"];
/// A key that files and HTTP have, with words of their own.
const COMPRESSION: &str = "compression";

/// Keys that a rule cannot have.
const ONLY_DESTINATIONS: [&str; 18] = [
    "overflow",
    "auth",
    COMPRESSION,
    "retry",
    "limit",
    "timeout",
    "response",
    "integration",
    "consent",
    "sample",
    "waiting_max",
    "order_by",
    "start",
    "enabled",
    "when_disabled",
    "type",
    "extends",
    "env",
];

/// Keys that say nothing of how a destination at work behaves: where a new one begins, what becomes of one that is off,
/// or of what it could not be given in the end, and what its variables are called elsewhere.
const NOT_AT_WORK: [&str; 4] = ["start", "when_disabled", "env", "overflow"];

/// Events waiting for another try when the file does not say: some 7 MB of them.
pub(super) const WAITING_MAX: usize = 10_000;

/// More would take gigabytes to remember.
pub(super) const WAITING: RangeInclusive<u64> = 1..=10_000_000;

/// One request when the file does not say: longer than any service we know takes when it is well.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// No service we know lets a request take longer.
pub(super) const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_mins(15);

/// A file is written in pieces of this many events, bytes and seconds.
const FILE_BATCH: BatchDefaults = BatchDefaults { events: 1_000, bytes: 1 << 20, age: Duration::from_secs(1) };

pub(super) const DELAYS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24 * 365);

/// Tries, and failures in a row.
pub(super) const TRIES: RangeInclusive<u64> = 1..=1_000_000;

/// Requests at a time: each has a connection.
pub(super) const CONCURRENCY: RangeInclusive<u64> = 1..=1_000;

/// Smaller files would be renamed all the time; beyond a pebibyte somebody mistyped.
pub(super) const ROTATE: RangeInclusive<u64> = 1_000..=1 << 50;

/// Where a destination that is new begins.
pub(super) const STARTS: [(&str, Start); 2] = [("newest", Start::Newest), ("oldest", Start::Oldest)];

/// Whether events that come while a destination is off are skipped.
pub(super) const WHEN_DISABLED: [(&str, bool); 2] = [("wait", false), ("skip", true)];

pub(super) const FORMATS: [(&str, ()); 1] = [("ndjson", ())];

/// How a request body may be packed.
pub(super) const BODY_COMPRESSIONS: [(&str, Compression); 2] =
    [("none", Compression::None), ("gzip", Compression::Gzip)];

/// How a file may be packed.
pub(super) const FILE_COMPRESSIONS: [(&str, Compression); 3] =
    [BODY_COMPRESSIONS[0], BODY_COMPRESSIONS[1], ("zstd", Compression::Zstd)];

// === impl Surroundings ===

impl<'a> Surroundings<'a> {
    /// What all destinations have around them.
    pub(super) fn shared(expressions: &'a Expressions<'a>, lets: &'a DeTable<'a>, tables: &'a DeTable<'a>) -> Self {
        Self { expressions, lets, tables, sources: None, plans: Vec::new() }
    }
}

// === impl Type ===

impl Type {
    /// The type a table says, without checking it.
    fn of(table: &DeTable<'_>) -> Self {
        let word = table.get("type").and_then(|value| value.get_ref().as_str());
        TYPES.iter().find(|(name, _)| Some(*name) == word).map_or(Self::Http, |(_, kind)| *kind)
    }

    /// Keys that `[defaults]` may hold for other types.
    fn foreign_keys(self) -> Vec<&'static str> {
        let answers = HTTP_DESTINATION_KEYS.into_iter();
        let bigquery = bigquery::DESTINATION_KEYS.into_iter().chain(bigquery::RULE_KEYS);
        match self {
            Self::Http => bigquery.chain(FILE_KEYS).collect(),
            Self::BigQuery => HTTP_KEYS.into_iter().chain(FILE_KEYS).chain(["path", "body"]).collect(),
            Self::File => answers.chain(HTTP_KEYS).chain(bigquery).collect(),
            Self::Stdout => {
                answers.chain(HTTP_KEYS).chain(bigquery).chain(FILE_KEYS).chain(["path", COMPRESSION]).collect()
            }
        }
    }
}

/// Keys of `[defaults]` that do not concern a destination.
pub(super) fn foreign_keys(defaults: &DeTable<'_>, own: &DeTable<'_>) -> Vec<&'static str> {
    let kind = if own.contains_key("type") { Type::of(own) } else { Type::of(defaults) };
    kind.foreign_keys()
}

/// Compiles a destination; every mistake in it is reported. A destination that is off is checked as well, but for
/// variables that are not set.
pub(super) fn read(around: &Surroundings<'_>, field: &Field<'_>, entries: &DeTable<'_>) -> Reading {
    let expressions = around.expressions;
    let table = Table::new(expressions.findings, entries, "a destination", field.key_span());
    let errors_before = expressions.findings.error_count();
    // It has been followed, and is a key all the same.
    table.get("extends");
    let env: Vec<_> = table.get("env").and_then(|field| field.table("`env`")).iter().flat_map(Table::fields).collect();
    // What only a destination that is on needs is not asked for before that is known.
    expressions.begin(true);
    expressions.rename(&env);
    expressions.begin(false);
    let switch = expressions.switch(table.get("enabled"));
    let env_of_switch = expressions.uses().env;
    let skips = table.get("when_disabled").and_then(|field| field.word(&WHEN_DISABLED));
    expressions.begin(matches!(switch, Switch::Off(_)));
    expressions.rename(&env);
    let overflow = table.get("overflow").and_then(|field| field.text_as("the name of a destination"));
    let overflow = overflow.map(|text| (text.value.to_owned(), text.span.clone()));
    let destination = read_body(around, field, &table);
    let mut uses = expressions.uses();
    uses.env.extend(env_of_switch);
    let definitions = Definitions::of(around, &table, &uses);
    let of_env = expressions.uses_of_env();
    uses.files.extend(of_env.files);
    uses.tables.extend(of_env.tables);
    let name = DestinationName::from(field.name);
    let result = match (switch, destination) {
        (_, None) => None,
        _ if expressions.findings.error_count() > errors_before => None,
        (Switch::Off(why), Some(_)) => Some(Err(Disabled { name, why, skips: skips.unwrap_or_default() })),
        (Switch::On, Some(mut destination)) => {
            destination.fingerprint = fingerprint(around, &table, &uses);
            destination.overflow = overflow.as_ref().map(|(to, _)| DestinationName::from(to.as_str()));
            note_repeats(expressions, field, &destination, &uses);
            Some(Ok(destination))
        }
    };
    expressions.rename(&[]);
    Reading { result, definitions, tables: uses.tables, overflow }
}

/// A service that took a request whose answer was lost takes it again. What happened once then counts twice, unless
/// something in the request tells that it is the same.
fn note_repeats(expressions: &Expressions<'_>, field: &Field<'_>, destination: &Destination, uses: &Uses) {
    let is_repeated = destination.retry.attempts_max != Some(1) && !uses.reads_id;
    // What BigQuery goes by is set unless the file says otherwise.
    let is_repeated = is_repeated && !matches!(destination.kind, DestinationKind::BigQuery(_));
    if is_repeated && destination.rules.iter().any(counts) {
        let message = "a request whose answer is lost is sent again, and nothing in it says that it is the same event";
        let note = Diagnostic::note(Code::MayRepeat, field.key_span(), message);
        expressions.findings.add(note.help("if the service knows an idempotency key, give it `{{ messageId }}`"));
    }
}

/// Whether a rule makes requests that count: what `identify`, `group` and `alias` say is the same when said twice.
fn counts(rule: &Rule) -> bool {
    let happens = |trigger: &Trigger| matches!(trigger.kind, None | Some(Kind::Track | Kind::Page | Kind::Screen));
    matches!(rule.request.method.as_str(), "POST" | "PATCH") && (rule.on.is_empty() || rule.on.iter().any(happens))
}

fn read_body(around: &Surroundings<'_>, field: &Field<'_>, table: &Table<'_>) -> Option<Destination> {
    let expressions = around.expressions;
    let (written_as, kind, auth) = kind(expressions, table);
    let lets = lets(around, table);
    let templates = expressions.define(&lets);
    let integrations = integrations(field.name, table);
    let consent = table.get("consent").map(|field| consent(expressions, &field)).unwrap_or_default();
    let sample = table.get("sample").map(|field| sample::read(expressions, &field));
    let retry = retry(expressions, table, written_as);
    let mut limit = limit(table);
    if matches!(written_as, Some(Type::File | Type::Stdout)) {
        // One writer keeps the order.
        limit.concurrency = 1;
    }
    let timeout = table.get("timeout").map(|field| field.duration(TIMEOUTS));
    let waiting_max = table.get("waiting_max").map(|field| field.count_usize(WAITING));
    let is_order = |field: &Field<'_>| !matches!(field.raw(), DeValue::Boolean(false));
    let order_by = table.get("order_by").filter(is_order).map(|field| order_by(expressions, &field));
    let start = table.get("start").map(|field| field.word(&STARTS));
    let when = rule::when(expressions, table, Sees::Event);
    let answers = matches!(written_as, Some(Type::Http | Type::BigQuery));
    let responses = answers.then(|| table.get("response")).flatten();
    let responses = responses.map(|field| response::read(expressions, &field)).unwrap_or_default();
    let is_http = written_as == Some(Type::Http);
    let rules = written_as.and_then(|written_as| rules(expressions, table, written_as));
    let read = rules.as_deref().unwrap_or_default();
    if is_http {
        auth::check_headers(expressions, table, &auth, read);
    }
    let body_compression = match written_as {
        Some(Type::Http) => body_compression(expressions, table, &auth, read, Compression::None),
        Some(Type::BigQuery) => body_compression(expressions, table, &auth, read, Compression::Gzip),
        Some(Type::File | Type::Stdout) | None => Compression::None,
    };
    let tables = read.iter().filter_map(|rule| rule.request.insert.as_ref()).map(|insert| insert.table.constant());
    let tables: Option<Vec<_>> = tables.collect();
    let has_one_table = tables.is_some_and(|tables| tables.windows(2).all(|pair| pair[0] == pair[1]));
    table.finish();
    Some(Destination {
        name: DestinationName::from(field.name),
        fingerprint: 0,
        kind: match kind? {
            DestinationKind::BigQuery(settings) => DestinationKind::BigQuery(BigQuery { has_one_table, ..settings }),
            other @ (DestinationKind::Http | DestinationKind::File(_) | DestinationKind::Stdout) => other,
        },
        integrations,
        consent,
        sources: around.sources.clone(),
        sample: match sample {
            Some(sample) => Some(sample?),
            None => None,
        },
        plans: around.plans.clone(),
        when,
        rules: rules?,
        auth,
        body_compression,
        names: Arc::new(expressions.names(templates)),
        responses,
        retry,
        limit,
        timeout: timeout.unwrap_or(Some(if written_as == Some(Type::BigQuery) {
            bigquery::TIMEOUT
        } else {
            TIMEOUT
        }))?,
        waiting_max: waiting_max.unwrap_or(Some(WAITING_MAX))?,
        order_by: match order_by {
            Some(order_by) => Some(order_by?),
            None => None,
        },
        start: start.unwrap_or(Some(Start::default()))?,
        overflow: None,
        upstream: Vec::new(),
    })
}

// --- what it is

/// The type, its settings where they are right, and who we are there.
fn kind(expressions: &Expressions<'_>, table: &Table<'_>) -> (Option<Type>, Option<DestinationKind>, Auth) {
    let word = table.get("type").map(|field| field.word(&TYPES));
    let written_as = word.unwrap_or(Some(Type::Http));
    let mut auth = Auth::None;
    let kind = match written_as {
        None => {
            any_key(table);
            None
        }
        Some(Type::Http) => {
            table.not_here(&FILE_KEYS, "is for `type = \"file\"`");
            not_bigquery(table);
            auth = auth::read(expressions, table);
            Some(DestinationKind::Http)
        }
        Some(Type::BigQuery) => {
            table.not_here(&["url", "headers", "query", "encoding", "auth"], "is for `type = \"http\"`");
            table.not_here(&["path"], "is for `type = \"http\"` and `type = \"file\"`");
            table.not_here(&["body"], "is called `row` where `type = \"bigquery\"`");
            table.not_here(&FILE_KEYS, "is for `type = \"file\"`");
            bigquery::settings(expressions, table).map(|(settings, credentials)| {
                auth = credentials;
                DestinationKind::BigQuery(settings)
            })
        }
        Some(Type::File) => {
            not_http(table);
            not_bigquery(table);
            file(expressions, table).map(DestinationKind::File)
        }
        Some(Type::Stdout) => {
            not_http(table);
            not_bigquery(table);
            table.not_here(&FILE_KEYS, "is for `type = \"file\"`");
            table.not_here(&["path", COMPRESSION], "is for `type = \"http\"` and `type = \"file\"`");
            Some(DestinationKind::Stdout)
        }
    };
    (written_as, kind, auth)
}

/// Not known what it is: any key of any type may be right.
fn any_key(table: &Table<'_>) {
    let of_types = HTTP_KEYS.iter().chain(&HTTP_DESTINATION_KEYS).chain(&FILE_KEYS);
    let of_types = of_types.chain(&bigquery::DESTINATION_KEYS).chain(&bigquery::RULE_KEYS);
    for key in of_types.chain(&REQUEST_KEYS).chain(&MATCH_KEYS).chain(&["rules", "batch", COMPRESSION]) {
        table.tolerate(key);
    }
}

fn not_bigquery(table: &Table<'_>) {
    table.not_here(&bigquery::DESTINATION_KEYS, "is for `type = \"bigquery\"`");
    table.not_here(&bigquery::RULE_KEYS, "is for `type = \"bigquery\"`");
}

fn not_http(table: &Table<'_>) {
    table.not_here(&HTTP_KEYS, "is for `type = \"http\"`");
    table.not_here(&HTTP_DESTINATION_KEYS, "is for `type = \"http\"`");
}

fn file(expressions: &Expressions<'_>, table: &Table<'_>) -> Option<FileSettings> {
    let path = table.require("path", "for example `path = \"events/%Y-%m-%d.ndjson\"`");
    let path = path.and_then(|field| file_path(expressions, &field));
    let format = table.get("format").map(|field| field.word(&FORMATS));
    let rotate_bytes = table.get("rotate").map(|field| field.size(ROTATE));
    let compression = table.get(COMPRESSION).map(|field| field.word(&FILE_COMPRESSIONS));
    format.unwrap_or(Some(()))?;
    Some(FileSettings {
        path: path?,
        rotate_bytes: match rotate_bytes {
            Some(bytes) => Some(bytes?),
            None => None,
        },
        compression: compression.unwrap_or(Some(Compression::default()))?,
    })
}

/// How request bodies are packed.
fn body_compression(
    expressions: &Expressions<'_>,
    table: &Table<'_>,
    auth: &Auth,
    rules: &[Rule],
    usual: Compression,
) -> Compression {
    let Some(field) = table.get(COMPRESSION) else { return usual };
    let compression = field.word(&BODY_COMPRESSIONS).unwrap_or_default();
    if compression == Compression::None {
        return compression;
    }
    if rules.iter().any(|rule| rule.request.headers.iter().any(|(name, _)| name == "content-encoding")) {
        let message = "`compression` sets the header `content-encoding`, which `headers` sets as well";
        expressions.findings.add(Diagnostic::error(Code::BadHeader, field.key_span(), message));
    }
    if matches!(auth, Auth::Hmac(hmac) if hmac.reads_body()) {
        let error = field.error(Code::BadValue, "`auth.hmac` reads the body as text, which a packed one is not");
        expressions.findings.add(error.help("a bare `{{ body }}` in `message` signs the bytes as they are sent"));
    }
    compression
}

/// A path whose strftime pieces are ones that can be filled.
fn file_path(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<String> {
    let Some(path) = expressions.settled_text(field) else {
        return expressions.is_lenient().then(String::new);
    };
    if path.is_empty() || path.ends_with('/') {
        expressions.findings.add(field.error(Code::BadPath, "`path` must name a file"));
        return None;
    }
    if let Err(error) = jiff::fmt::strtime::format(&path, jiff::Timestamp::UNIX_EPOCH) {
        expressions
            .findings
            .add(field.error(Code::BadPath, format!("`path` has a date piece that cannot be filled: {error}")));
        return None;
    }
    Some(path)
}

// --- settings

fn integrations(name: &str, table: &Table<'_>) -> Vec<String> {
    let Some(field) = table.get("integration") else { return vec![name.to_owned()] };
    if field.raw().as_bool() == Some(false) {
        return Vec::new();
    }
    field.one_or_many().iter().filter_map(Field::text).map(|text| text.value.to_owned()).collect()
}

/// Categories are compared exactly: one that is empty or there twice is a slip of the pen.
fn consent(expressions: &Expressions<'_>, field: &Field<'_>) -> Vec<String> {
    let mut categories: Vec<String> = Vec::new();
    for text in
        field.one_or_many().iter().filter_map(|field| field.text_as("the id of a consent category, or a list of them"))
    {
        if text.value.trim().is_empty() {
            expressions.findings.add(text.error(Code::BadValue, "this consent category is empty"));
        } else if categories.iter().any(|known| known == text.value) {
            let message = format!("the consent category `{}` is there twice", text.value);
            expressions.findings.add(text.error(Code::BadValue, message));
        } else {
            categories.push(text.value.to_owned());
        }
    }
    categories
}

fn retry(expressions: &Expressions<'_>, table: &Table<'_>, written_as: Option<Type>) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    if written_as == Some(Type::BigQuery) {
        policy.delay_max = bigquery::DELAY_MAX;
    }
    let Some(field) = table.get("retry") else { return policy };
    let Some(table) = field.table("`retry`") else { return policy };
    let first = table.get("first");
    if let Some(delay) = first.as_ref().and_then(|field| field.duration(DELAYS)) {
        policy.first = delay;
    }
    let delay_max = table.get("delay_max").and_then(|field| field.duration(DELAYS));
    policy.delay_max = delay_max.unwrap_or(policy.delay_max);
    let give_up_after = table.get("give_up_after").and_then(|field| field.duration(DELAYS));
    policy.give_up_after = give_up_after.unwrap_or(policy.give_up_after);
    let small = |field: Field<'_>| field.count(TRIES).and_then(|count| u32::try_from(count).ok());
    policy.attempts_max = table.get("attempts_max").and_then(small);
    policy.failures_max = table.get("failures_max").and_then(small).unwrap_or(policy.failures_max);
    if let Some(field) = first.filter(|_| policy.first > policy.delay_max) {
        let message =
            format!("`first` is longer than `delay_max`, which is {}", units::written_duration(policy.delay_max));
        expressions.findings.add(field.error(Code::OutOfRange, message));
    }
    table.finish();
    policy
}

fn limit(table: &Table<'_>) -> Limit {
    let mut limit = Limit::default();
    let Some(table) = table.get("limit").and_then(|field| field.table("`limit`")) else { return limit };
    limit.per_second = table.get("per_second").and_then(|field| field.positive());
    let concurrency = table.get("concurrency").and_then(|field| field.count_usize(CONCURRENCY));
    limit.concurrency = concurrency.unwrap_or(limit.concurrency);
    table.finish();
    limit
}

/// The key whose events go one after another. One that is the same for every event may be meant, and is rarely.
fn order_by(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<Template> {
    let text = field.text_as("`false` or a template such as \"{{ userId or anonymousId }}\"")?;
    if text.value.trim().is_empty() {
        let error = text.error(Code::BadValue, "`order_by` is empty");
        expressions.findings.add(error.help("`order_by = false` is no order"));
        return None;
    }
    let compiled = expressions.compile(&text, Sees::Event)?;
    if compiled.is_settled && !expressions.reads_event(&compiled) {
        let message = "`order_by` reads nothing of the event: every event waits for the one before it";
        let warning = Diagnostic::warning(Code::OrderOfAll, text.span.clone(), message);
        expressions.findings.add(warning.help("for an order per user write \"{{ userId or anonymousId }}\""));
    }
    Some(compiled.template)
}

// --- lets

/// Names that a `let` would hide for good.
const RESERVED: [&str; 14] = [
    "env", "tables", "item", "items", "index", "now", "source", "message", "status", "headers", "body", "loop", "file",
    "fail",
];

/// Words of the expression language itself.
const KEYWORDS: [&str; 12] = ["and", "or", "not", "in", "is", "if", "else", "for", "true", "false", "none", "self"];

/// The `let`s in force: the file's, then the destination's own, which win.
fn lets<'a>(around: &'a Surroundings<'a>, table: &Table<'a>) -> Vec<Field<'a>> {
    let shared = Table::new(around.expressions.findings, around.lets, "[let]", 0..0);
    let own = table.get("let").and_then(|field| field.table("`let`"));
    let own: Vec<_> = own.iter().flat_map(Table::fields).collect();
    let mut all: Vec<_> = shared.fields().filter(|field| !own.iter().any(|own| own.name == field.name)).collect();
    all.extend(own);
    all.retain(|field| is_let_name(around.expressions, field));
    all
}

fn is_let_name(expressions: &Expressions<'_>, field: &Field<'_>) -> bool {
    let name = field.name;
    let is_word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let refuse = |message: String| {
        expressions.findings.add(Diagnostic::error(Code::BadName, field.key_span(), message));
        false
    };
    if !is_word {
        return refuse(format!("{name:?} cannot be used in expressions: a name is letters, digits and `_`"));
    }
    if RESERVED.contains(&name) || KEYWORDS.contains(&name) {
        return refuse(format!("`{name}` is a name of the language and cannot be defined"));
    }
    if Sees::is_event_field(name) {
        let message = format!("`{name}` now hides the event's own `{name}`");
        let warning = Diagnostic::warning(Code::Shadowed, field.key_span(), message);
        expressions.findings.add(warning.help(format!("the event's own is still there as `message.{name}`")));
    }
    true
}

impl Definitions {
    fn of(around: &Surroundings<'_>, table: &Table<'_>, uses: &Uses) -> Self {
        let section = |key: &str| table.entries().get(key).and_then(|value| value.get_ref().as_table());
        let (own_lets, env) = (section("let"), section("env"));
        let mut all = Self::default();
        for name in own_lets.into_iter().flat_map(DeTable::keys) {
            let unused = || format!("`{}` is defined and never used", name.get_ref());
            all.note(name, uses.lets.contains(name.get_ref().as_ref()), || {
                Diagnostic::warning(Code::Unused, name.span(), unused())
            });
        }
        let is_own = |name: &str| own_lets.is_some_and(|lets| lets.contains_key(name));
        let shared = around.lets.keys().filter(|name| !is_own(name.get_ref()));
        let shared = shared.filter(|name| uses.lets.contains(name.get_ref().as_ref()));
        all.used_at.extend(shared.map(|name| name.span().start));
        for name in env.into_iter().flat_map(DeTable::keys) {
            let free = || uses.env.iter().filter(|other| env.is_some_and(|env| !env.contains_key(other.as_str())));
            let variable = name.get_ref().as_ref();
            all.note(name, uses.env.contains(variable) || uses.found.contains_key(variable), || {
                let message = format!("no expression of this destination reads `env.{}`", name.get_ref());
                let warning = Diagnostic::warning(Code::Unused, name.span(), message);
                warning.did_you_mean(nearest(name.get_ref(), free().map(String::as_str)))
            });
        }
        all
    }

    fn note(&mut self, name: &Spanned<DeString<'_>>, is_used: bool, warning: impl Fn() -> Diagnostic) {
        if is_used {
            self.used_at.insert(name.span().start);
        } else {
            self.unused.push(warning());
        }
    }

    /// Takes up those of another destination.
    pub(super) fn extend(&mut self, other: Self) {
        self.used_at.extend(other.used_at);
        self.unused.extend(other.unused);
    }

    /// What is to be said of those that no destination uses.
    pub(super) fn unused(self) -> impl Iterator<Item = Diagnostic> {
        self.unused.into_iter().filter(move |warning| !self.used_at.contains(&warning.span.start))
    }
}

// --- rules

fn rules(expressions: &Expressions<'_>, table: &Table<'_>, written_as: Type) -> Option<Vec<Rule>> {
    let fields = table.get("rules").and_then(|field| field.list()).unwrap_or_default();
    let tables: Vec<Table<'_>> = fields.iter().filter_map(|field| field.table("a rule")).collect();
    if tables.len() < fields.len() {
        // What a rule that is none would have used is not unknown.
        any_key(table);
    }
    let alone = Layers { destination: table, rule: None };
    // What all rules share may say `item` only if all of them have one.
    let has_each = |table: &Table<'_>| table.entries().contains_key("each");
    let sees =
        if tables.iter().all(has_each) && (!tables.is_empty() || has_each(table)) { Sees::Item } else { Sees::Event };
    let shared = request::batch(expressions, &alone, batch_of(written_as), sees, usual_batch(written_as));
    if written_as == Type::BigQuery {
        bigquery::check_batch(expressions, &alone, shared.as_deref());
    }
    let mut rules = Rules { expressions, destination: table, written_as, shared, seen: BTreeMap::new() };
    if fields.is_empty() {
        let rule = rules.read(0, None);
        return Some(vec![rule?.0]);
    }
    table.not_here(&MATCH_KEYS, "belongs into the rules, which this destination has");
    let read: Vec<_> = tables.iter().enumerate().map(|(index, table)| rules.read(index, Some(table))).collect();
    let read: Vec<_> = read.into_iter().collect::<Option<_>>()?;
    warn_of_unreachable(expressions, &read, &tables);
    Some(read.into_iter().map(|(rule, _)| rule).collect())
}

/// The batch of a destination that says nothing of it, key by key, as it would be written.
pub(super) fn written_batch(word: &str) -> Option<[(&'static str, String); 3]> {
    let written_as = TYPES.iter().find(|(own, _)| *own == word).map(|(_, written_as)| *written_as)?;
    let batch = usual_batch(written_as)?;
    let (bytes, age) = (units::written_size(batch.bytes_max as u64), units::written_duration(batch.age_max));
    let count = batch.events_max.to_string();
    Some([("max_events", count), ("max_bytes", format!("{bytes:?}")), ("max_age", format!("{age:?}"))])
}

/// Files are written in pieces whatever the file says; others send event by event unless told otherwise.
fn usual_batch(written_as: Type) -> Option<Arc<BatchSettings>> {
    match written_as {
        Type::File => Some(Arc::new(FILE_BATCH.settings())),
        Type::BigQuery => Some(Arc::new(bigquery::BATCH.settings())),
        Type::Http | Type::Stdout => None,
    }
}

fn batch_of(written_as: Type) -> BatchOf {
    let defaults = if written_as == Type::BigQuery { bigquery::BATCH } else { BATCH_DEFAULTS };
    BatchOf { has_envelope: written_as == Type::Http, defaults }
}

/// The rules of one destination, one after the other.
struct Rules<'t, 'a> {
    expressions: &'t Expressions<'t>,
    destination: &'t Table<'a>,
    written_as: Type,
    /// The destination's batch settings: rules without their own share batches.
    shared: Option<Arc<BatchSettings>>,
    /// How often a rule of the same text was there before.
    seen: BTreeMap<u64, u32>,
}

impl<'t, 'a> Rules<'t, 'a> {
    /// Reads a rule; without a table, the destination itself is the rule.
    fn read(&mut self, index: usize, table: Option<&'t Table<'a>>) -> Option<(Rule, Match)> {
        let own = table.unwrap_or(self.destination);
        let matched = rule::read(self.expressions, own);
        // The conditions of a destination without rules were read with it.
        let when = table.map(|table| rule::when(self.expressions, table, Sees::Event)).unwrap_or_default();
        let sees = if own.entries().contains_key("each") { Sees::Item } else { Sees::Event };
        let layers = Layers { destination: self.destination, rule: table };
        let request = match self.written_as {
            Type::Http => request::http(self.expressions, &layers, sees),
            Type::BigQuery => bigquery::insert(self.expressions, &layers, sees),
            Type::File | Type::Stdout => request::lines(self.expressions, &layers, sees),
        };
        let shared = self.shared.clone();
        let batch = match table {
            Some(_) => request::batch(self.expressions, &layers, batch_of(self.written_as), sees, shared),
            None => shared,
        };
        if table.is_some_and(|table| table.entries().contains_key("batch")) && self.written_as == Type::BigQuery {
            bigquery::check_batch(self.expressions, &layers, batch.as_deref());
        }
        if let Some(table) = table {
            self.check_foreign(table);
            table.not_yet(&["let"]);
            table.finish();
        }
        let (mut matched, request) = (matched?, request?);
        if let Some(batch) = &batch {
            self.check_batch(own, &request, batch);
        }
        let rule = Rule {
            index,
            place: table.map(|_| format!("rules[{index}]")),
            fingerprint: self.fingerprint(table),
            on: std::mem::take(&mut matched.on),
            when,
            each: matched.each.take(),
            is_final: matched.is_final,
            request,
            batch,
        };
        Some((rule, matched))
    }

    fn check_foreign(&self, table: &Table<'_>) {
        table.not_here(&ONLY_DESTINATIONS, "belongs into the destination, not into a rule");
        if self.written_as != Type::Http {
            table.not_here(&["url", "path", "method", "headers", "query", "encoding"], "is for `type = \"http\"`");
        }
        match self.written_as {
            Type::BigQuery => {
                table.not_here(&["body"], "is called `row` where `type = \"bigquery\"`");
                table.not_here(&bigquery::DESTINATION_KEYS, "belongs into the destination, not into a rule");
            }
            Type::Http | Type::File | Type::Stdout => not_bigquery(table),
        }
    }

    /// Items that share a request have to fit into one body.
    fn check_batch(&self, own: &Table<'_>, request: &RequestTemplate, batch: &BatchSettings) {
        if self.written_as != Type::Http {
            return;
        }
        let error = |code, message: &str| Diagnostic::error(code, own.span(), message);
        let found = match (request.encoding, &batch.body) {
            _ if request.body.is_none() => {
                error(Code::MissingKey, "a batch needs a `body`: without one its events are lost")
            }
            (Encoding::Form | Encoding::Multipart, None) => {
                let name = request::name_of(Some(request.encoding));
                error(Code::MissingKey, &format!("a batch with `encoding = {name:?}` needs `batch.body`"))
                    .help("for example `body = { events = \"{{ items | json }}\" }`")
            }
            (Encoding::Ndjson | Encoding::Text, Some(_)) => error(
                Code::MisplacedKey,
                "lines have no envelope: `batch.body` needs `encoding = \"json\"`, `\"form\"` or `\"multipart\"`",
            ),
            (Encoding::Json, _)
            | (Encoding::Form | Encoding::Multipart, Some(_))
            | (Encoding::Ndjson | Encoding::Text, None) => return,
        };
        self.expressions.findings.add(found);
    }

    /// Hash of the rule's own text and what it takes from the destination. Equal rules are told apart by their order.
    fn fingerprint(&mut self, rule: Option<&Table<'_>>) -> u64 {
        let destination = self.destination.entries();
        let mut hash = Fingerprint::new();
        match rule {
            Some(rule) => hash.table(rule.entries(), &[]),
            None => MATCH_KEYS.iter().fold(&mut hash, |hash, key| add_key(hash, destination, key)),
        };
        REQUEST_KEYS
            .iter()
            .chain(&bigquery::RULE_KEYS[..5])
            .fold(&mut hash, |hash, key| add_key(hash, destination, key));
        let equals_before = self.seen.entry(hash.finish()).or_default();
        hash.add(*equals_before);
        *equals_before += 1;
        hash.finish()
    }
}

fn add_key<'h>(hash: &'h mut Fingerprint, table: &DeTable<'_>, key: &str) -> &'h mut Fingerprint {
    match table.get(key) {
        Some(value) => hash.add(key).value(value.get_ref()),
        None => hash,
    }
}

fn warn_of_unreachable(expressions: &Expressions<'_>, rules: &[(Rule, Match)], tables: &[Table<'_>]) {
    for (index, ((_, matched), table)) in rules.iter().zip(tables).enumerate() {
        let takes_all =
            |(rule, before): &(Rule, Match)| rule.is_final && rule.when.is_empty() && rule::covers(before, matched);
        if let Some(by) = rules[..index].iter().position(takes_all) {
            let message = format!("this rule never matches: `rules[{by}]` takes all its events and is `final`");
            expressions.findings.add(Diagnostic::warning(Code::Unreachable, table.span(), message));
        }
    }
}

// --- the whole

/// Adds to a hash what something uses of what is shared.
pub(super) fn add_uses(hash: &mut Fingerprint, around: &Surroundings<'_>, uses: &Uses) {
    for name in &uses.lets {
        add_key(hash, around.lets, name);
    }
    if uses.tables.contains("*") {
        hash.table(around.tables, &[]);
    }
    for name in &uses.tables {
        add_key(hash, around.tables, name);
    }
    for name in &uses.env {
        hash.add(name).add(around.expressions.variable(name));
    }
    for path in &uses.files {
        hash.add(path).add(around.expressions.file(path));
    }
    hash.add(&uses.found);
}

fn fingerprint(around: &Surroundings<'_>, table: &Table<'_>, uses: &Uses) -> u64 {
    let mut hash = Fingerprint::new();
    hash.table(table.entries(), &NOT_AT_WORK);
    add_uses(&mut hash, around, uses);
    for plan in &around.plans {
        hash.add(plan.fingerprint);
    }
    hash.add(around.sources.as_ref().map(|sources| sources.iter().map(SourceName::as_str).collect::<Vec<_>>()));
    hash.finish()
}
