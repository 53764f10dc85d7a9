//! Our own filters and functions, and the list of those that the engine brings.
//!
//! Ours pass "missing" through: what is absent stays absent, so that a field is left out instead of made from nothing.
//! All are pure, and none makes more than the output cap allows. [`REFERENCE`] documents them and is tested.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::tz::TimeZone;
use md5::Md5;
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State};
use regex::{Regex, RegexBuilder};
use sha2::{Digest, Sha256};

use super::node::{Record, Shape};
use super::scope::FILES_KEY;
use super::{Escape, EvalError, OUTPUT_MAX_BYTES, Value, excerpt, text, time};

/// What a name of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionKind {
    /// Called: `name(…)`.
    Function,
    /// Applied: `value | name`.
    Filter,
}

/// One function or filter of ours, as the reference shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// How it is used.
    pub kind: FunctionKind,
    /// Its arguments, optional ones with their default.
    pub signature: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// An example that runs.
    pub example: Example,
}

/// A template, an event, and what comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example {
    /// The template as written in the file.
    pub template: &'static str,
    /// The event's JSON.
    pub event: &'static str,
    /// The value's JSON; empty when it is missing, `error: …` when the template fails.
    pub result: &'static str,
}

/// One filter, function or test of the engine, with an example that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineEntry {
    /// Its name.
    pub name: &'static str,
    /// A template that reads nothing of an event but what is missing.
    pub template: &'static str,
    /// The value's JSON.
    pub result: &'static str,
}

const fn engine(name: &'static str, template: &'static str, result: &'static str) -> EngineEntry {
    EngineEntry { name, template, result }
}

/// Pieces of [`REFERENCE`], so that an entry fits in two lines.
const fn filter(
    name: &'static str,
    signature: &'static str,
    summary: &'static str,
    example: [&'static str; 3],
) -> Entry {
    entry(FunctionKind::Filter, [name, signature, summary], example)
}

const fn function(
    name: &'static str,
    signature: &'static str,
    summary: &'static str,
    example: [&'static str; 3],
) -> Entry {
    entry(FunctionKind::Function, [name, signature, summary], example)
}

const fn entry(kind: FunctionKind, [name, signature, summary]: [&'static str; 3], example: [&'static str; 3]) -> Entry {
    let [template, event, result] = example;
    Entry { name, kind, signature, summary, example: Example { template, event, result } }
}

/// Every function and filter of ours, in the order of the reference.
#[rustfmt::skip]
pub const REFERENCE: &[Entry] = &[
    function("coalesce", "coalesce(value, …)", "the first value that is not missing, null or empty text",
        ["{{ coalesce(userId, traits.email, 'nobody') }}", r#"{"userId":"","traits":{"email":"a@b.c"}}"#, r#""a@b.c""#]),
    function("fail", "fail(message)", "gives up on the event with this reason",
        ["{{ userId or fail('who is it') }}", r#"{"type":"track"}"#, "error: who is it"]),
    function("object", "object(base, …, name=value, …)", "an object of these fields, after those of the base objects; missing ones are left out",
        ["{{ object(traits, plan='pro', age=traits.nothing) }}", r#"{"traits":{"b":1,"a":2}}"#, r#"{"b":1,"a":2,"plan":"pro"}"#]),
    function("file", "file(path)", "the content of a file, read when the configuration is",
        ["{{ file('/run/secrets/token') | trim }}", "{}", r#""s3cret""#]),
    filter("json", "json", "compact JSON text, fields in their own order, as JSON.stringify writes it",
        ["{{ (properties or {}) | json }}", r#"{"properties":{"z":"<a>","a":9.0}}"#, r#""{\"z\":\"<a>\",\"a\":9.0}""#]),
    filter("number", "number", "a number, also from text; empty text is missing, other text an error",
        ["{{ properties.total | number }}", r#"{"properties":{"total":" 9.50 "}}"#, "9.5"]),
    filter("text", "text", "text: numbers and booleans as JavaScript prints them, lists and objects as JSON",
        ["{{ properties.total | text }}", r#"{"properties":{"total":9.0}}"#, r#""9""#]),
    filter("unix", "unix", "seconds since 1970",
        ["{{ timestamp | unix }}", r#"{"timestamp":"2026-01-02T03:04:05.678Z"}"#, "1767323045"]),
    filter("unix_ms", "unix_ms", "milliseconds since 1970",
        ["{{ timestamp | unix_ms }}", r#"{"timestamp":"2026-01-02T03:04:05.678Z"}"#, "1767323045678"]),
    filter("iso", "iso", "a timestamp as 2026-01-02T03:04:05.678Z, also from seconds or milliseconds since 1970",
        ["{{ traits.created | iso }}", r#"{"traits":{"created":1735689600}}"#, r#""2025-01-01T00:00:00.000Z""#]),
    filter("date", "date(format)", "a timestamp in UTC by strftime's rules",
        ["{{ timestamp | date('%Y-%m-%d') }}", r#"{"timestamp":"2026-01-02T03:04:05Z"}"#, r#""2026-01-02""#]),
    filter("lower", "lower", "in lower case",
        ["{{ traits.email | lower }}", r#"{"traits":{"email":"Jane@Example.COM"}}"#, r#""jane@example.com""#]),
    filter("upper", "upper", "in upper case",
        ["{{ traits.country | upper }}", r#"{"traits":{"country":"de"}}"#, r#""DE""#]),
    filter("trim", "trim(characters=white space)", "without white space, or these characters, at both ends",
        ["{{ traits.email | trim }}", r#"{"traits":{"email":" a@b.c "}}"#, r#""a@b.c""#]),
    filter("digits", "digits", "the digits alone",
        ["{{ traits.phone | digits }}", r#"{"traits":{"phone":"+1 (415) 555-1234"}}"#, r#""14155551234""#]),
    filter("snake", "snake", "in snake_case",
        ["{{ event | snake }}", r#"{"event":"Lesson finished"}"#, r#""lesson_finished""#]),
    filter("camel", "camel", "in camelCase",
        ["{{ event | camel }}", r#"{"event":"Lesson finished"}"#, r#""lessonFinished""#]),
    filter("clip", "clip(characters)", "the first so many characters",
        ["{{ event | clip(6) }}", r#"{"event":"Lesson finished"}"#, r#""Lesson""#]),
    filter("pick", "pick(name, …)", "an object with these fields only",
        ["{{ traits | pick('plan', 'age') }}", r#"{"traits":{"email":"a@b.c","plan":"pro"}}"#, r#"{"plan":"pro"}"#]),
    filter("omit", "omit(name, …)", "an object without these fields",
        ["{{ traits | omit('email') }}", r#"{"traits":{"email":"a@b.c","plan":"pro"}}"#, r#"{"plan":"pro"}"#]),
    filter("wrap", "wrap(name)", "each field of an object as an object with one field of this name",
        ["{{ traits | wrap('value') }}", r#"{"traits":{"plan":"pro"}}"#, r#"{"plan":{"value":"pro"}}"#]),
    filter("list", "list", "a list: of one, unless it is a list already; empty text is missing",
        ["{{ properties.tag | list }}", r#"{"properties":{"tag":"a"}}"#, r#"["a"]"#]),
    filter("compact", "compact", "a list or object without what is missing or null",
        ["{{ [userId, anonymousId, properties.none] | compact }}", r#"{"userId":"u1","properties":{"none":null}}"#, r#"["u1"]"#]),
    filter("required", "required(name=the expression)", "the value; the event is given up on if it is missing, null or empty text",
        ["{{ anonymousId | required }}", r#"{"userId":"u1"}"#, "error: `anonymousId` is required, but missing"]),
    filter("base64", "base64", "in Base64, with padding",
        ["{{ userId | base64 }}", r#"{"userId":"u1?"}"#, r#""dTE/""#]),
    filter("sha256", "sha256", "its SHA-256 in lower-case hex; empty text counts as missing",
        ["{{ traits.email | sha256 }}", r#"{"traits":{"email":"jane.doe@example.com"}}"#, r#""86e0b9e56c17cc4d12387e1949b85053fbe73bc3ce5a1188713a9d300cc6133d""#]),
    filter("md5", "md5", "its MD5 in lower-case hex; empty text counts as missing",
        ["{{ messageId | md5 }}", r#"{"messageId":"m1"}"#, r#""ae7be26cdaa742ca148068d5ac90eaca""#]),
    filter("hmac_sha256", "hmac_sha256(key)", "its HMAC with SHA-256 in lower-case hex; empty text counts as missing",
        ["{{ userId | hmac_sha256('key') }}", r#"{"userId":"The quick brown fox jumps over the lazy dog"}"#, r#""f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8""#]),
    filter("uuid", "uuid", "a UUID: the value itself if it is one, else version 3 (RFC 9562) of the OID namespace and the value",
        ["{{ messageId | uuid }}", r#"{"messageId":"A987FBC9-4BED-3078-8F07-9141BA07C9F3"}"#, r#""a987fbc9-4bed-3078-8f07-9141ba07c9f3""#]),
    filter("flatten", "flatten(separator='.')", "an object without nesting: `a.b`, and `c[0]` for lists",
        ["{{ properties | flatten }}", r#"{"properties":{"a":{"b":1},"c":[2]}}"#, r#"{"a.b":1,"c[0]":2}"#]),
    filter("replace", "replace(from, to)", "every `from` replaced",
        ["{{ traits.city | replace(' ', '') }}", r#"{"traits":{"city":"New York"}}"#, r#""NewYork""#]),
    filter("regex_replace", "regex_replace(pattern, to)", "every match replaced; `$1` is the first group",
        ["{{ name | regex_replace('^(\\\\w+) (\\\\w+)$', '$2 $1') }}", r#"{"name":"Jane Doe"}"#, r#""Doe Jane""#]),
    filter("mask", "mask(keep=4)", "`*` for all but the last few characters",
        ["{{ traits.phone | mask }}", r#"{"traits":{"phone":"4155551234"}}"#, r#""******1234""#]),
    filter("ip_anonymize", "ip_anonymize", "an address without its last 8 bits (IPv4) or 80 (IPv6); missing if it is none",
        ["{{ context.ip | ip_anonymize }}", r#"{"context":{"ip":"203.0.113.77"}}"#, r#""203.0.113.0""#]),
];

/// Filters that the engine brings; some are made to pass missing through, or print as ours do (<https://docs.rs/minijinja/3.1.0/minijinja/filters/>, read
/// 2026-11-22).
#[rustfmt::skip]
pub const ENGINE_FILTERS: &[EngineEntry] = &[
    engine("abs", "{{ -2 | abs }}", "2"),
    engine("attr", "{{ {'a': 1} | attr('a') }}", "1"),
    engine("batch", "{{ [1, 2, 3] | batch(2) | list }}", "[[1,2],[3]]"),
    engine("bool", "{{ 'x' | bool }}", "true"),
    engine("capitalize", "{{ 'hello World' | capitalize }}", r#""Hello world""#),
    engine("chain", "{{ [1] | chain([2]) | list }}", "[1,2]"),
    engine("count", "{{ 'abc' | count }}", "3"),
    engine("d", "{{ properties.none | d('x') }}", r#""x""#),
    engine("default", "{{ properties.none | default('x') }}", r#""x""#),
    engine("dictsort", "{{ {'b': 1, 'a': 2} | dictsort }}", r#"[["a",2],["b",1]]"#),
    engine("e", "{{ 'a' | e }}", r#""a""#),
    engine("escape", "{{ 'a' | escape }}", r#""a""#),
    engine("first", "{{ [1, 2] | first }}", "1"),
    engine("float", "{{ '1.5' | float }}", "1.5"),
    engine("format", "{{ '%s-%03d' | format('a', 7) }}", r#""a-007""#),
    engine("groupby", "{{ [{'k': 1}, {'k': 2}, {'k': 1}] | groupby('k') | map('first') | list }}", "[1,2]"),
    engine("indent", "{{ 'a' | indent(2, true) }}", r#""  a""#),
    engine("int", "{{ '42' | int }}", "42"),
    engine("items", "{{ {'a': 1} | items | list }}", r#"[["a",1]]"#),
    engine("join", "{{ ['a', 'b'] | join('-') }}", r#""a-b""#),
    engine("last", "{{ [1, 2] | last }}", "2"),
    engine("length", "{{ [1, 2] | length }}", "2"),
    engine("lines", r"{{ 'a\nb' | lines | list }}", r#"["a","b"]"#),
    engine("map", "{{ [{'n': 1}, {'n': 2}] | map(attribute='n') | list }}", "[1,2]"),
    engine("max", "{{ [1, 3, 2] | max }}", "3"),
    engine("min", "{{ [1, 3, 2] | min }}", "1"),
    engine("pprint", "{{ 1 | pprint }}", r#""1""#),
    engine("reject", "{{ [1, 2, 3] | reject('odd') | list }}", "[2]"),
    engine("rejectattr", "{{ [{'x': true}, {'x': false}] | rejectattr('x') | list }}", r#"[{"x":false}]"#),
    engine("reverse", "{{ 'abc' | reverse }}", r#""cba""#),
    engine("round", "{{ 3.14159 | round(2) }}", "3.14"),
    engine("safe", "{{ 'a/b' | safe }}", r#""a/b""#),
    engine("select", "{{ [1, 2, 3] | select('odd') | list }}", "[1,3]"),
    engine("selectattr", "{{ [{'x': true}, {'x': false}] | selectattr('x') | list }}", r#"[{"x":true}]"#),
    engine("slice", "{{ [1, 2, 3] | slice(2) | list }}", "[[1,2],[3]]"),
    engine("sort", "{{ [2, 1] | sort }}", "[1,2]"),
    engine("split", "{{ 'a,b' | split(',') | list }}", r#"["a","b"]"#),
    engine("string", "{{ 42 | string }}", r#""42""#),
    engine("sum", "{{ [1, 2] | sum }}", "3"),
    engine("title", "{{ 'hello world' | title }}", r#""Hello World""#),
    engine("tojson", "{{ [1, 2] | tojson }}", r#""[1,2]""#),
    engine("unique", "{{ [1, 2, 1] | unique }}", "[1,2]"),
    engine("urlencode", "{{ 'a b/c' | urlencode }}", r#""a%20b%2Fc""#),
    engine("zip", "{{ [1, 2] | zip(['a', 'b']) | list }}", r#"[[1,"a"],[2,"b"]]"#),
];

/// Tests that the engine brings: `value is name` (<https://docs.rs/minijinja/3.1.0/minijinja/tests/>, read 2026-11-22).
#[rustfmt::skip]
pub const ENGINE_TESTS: &[EngineEntry] = &[
    engine("boolean", "{{ true is boolean }}", "true"),
    engine("defined", "{{ properties.none is defined }}", "false"),
    engine("divisibleby", "{{ 6 is divisibleby(3) }}", "true"),
    engine("endingwith", "{{ 'abc' is endingwith('c') }}", "true"),
    engine("eq", "{{ 1 is eq(1) }}", "true"),
    engine("equalto", "{{ 1 is equalto(1) }}", "true"),
    engine("escaped", "{{ 'a' is escaped }}", "false"),
    engine("even", "{{ 2 is even }}", "true"),
    engine("false", "{{ false is false }}", "true"),
    engine("filter", "{{ 'sha256' is filter }}", "true"),
    engine("float", "{{ 1.5 is float }}", "true"),
    engine("ge", "{{ 2 is ge(2) }}", "true"),
    engine("greaterthan", "{{ 2 is greaterthan(1) }}", "true"),
    engine("gt", "{{ 2 is gt(1) }}", "true"),
    engine("in", "{{ 'a' is in(['a']) }}", "true"),
    engine("int", "{{ 1 is int }}", "true"),
    engine("integer", "{{ 1 is integer }}", "true"),
    engine("iterable", "{{ [1] is iterable }}", "true"),
    engine("le", "{{ 2 is le(2) }}", "true"),
    engine("lessthan", "{{ 1 is lessthan(2) }}", "true"),
    engine("lower", "{{ 'a' is lower }}", "true"),
    engine("lt", "{{ 1 is lt(2) }}", "true"),
    engine("mapping", "{{ {'a': 1} is mapping }}", "true"),
    engine("ne", "{{ 1 is ne(2) }}", "true"),
    engine("none", "{{ none is none }}", "true"),
    engine("number", "{{ 1.5 is number }}", "true"),
    engine("odd", "{{ 2 is odd }}", "false"),
    engine("safe", "{{ 'a' is safe }}", "false"),
    engine("sameas", "{{ 1 is sameas(1) }}", "true"),
    engine("sequence", "{{ [1] is sequence }}", "true"),
    engine("startingwith", "{{ 'abc' is startingwith('a') }}", "true"),
    engine("string", "{{ 'a' is string }}", "true"),
    engine("test", "{{ 'even' is test }}", "true"),
    engine("true", "{{ true is true }}", "true"),
    engine("undefined", "{{ properties.none is undefined }}", "true"),
    engine("upper", "{{ 'A' is upper }}", "true"),
];

/// Every function an expression may call: ours and the engine's, as [`functions`] lists them.
const FUNCTIONS: [&str; 7] = ["coalesce", "dict", "fail", "file", "namespace", "object", "range"];

/// Functions that the engine brings (<https://docs.rs/minijinja/3.1.0/minijinja/functions/>, read 2026-11-22).
#[rustfmt::skip]
pub const ENGINE_FUNCTIONS: &[EngineEntry] = &[
    engine("dict", "{{ dict(a=1) }}", r#"{"a":1}"#),
    engine("namespace", "{% set n = namespace(total=0) %}{% for x in [1, 2] %}{% set n.total = n.total + x %}{% endfor %}{{ n.total }}", r#""3""#),
    engine("range", "{{ range(3) | list }}", "[0,1,2]"),
];

// === what exists ===

fn ours(kind: FunctionKind) -> impl Iterator<Item = &'static str> {
    REFERENCE.iter().filter(move |entry| entry.kind == kind).map(|entry| entry.name)
}

/// Every filter an expression may use.
pub fn filters() -> impl Iterator<Item = &'static str> {
    ours(FunctionKind::Filter).chain(ENGINE_FILTERS.iter().map(|entry| entry.name))
}

/// Every test an expression may use.
pub fn tests() -> impl Iterator<Item = &'static str> {
    ENGINE_TESTS.iter().map(|entry| entry.name)
}

/// Every function an expression may call.
pub fn functions() -> impl Iterator<Item = &'static str> {
    ours(FunctionKind::Function).chain(ENGINE_FUNCTIONS.iter().map(|entry| entry.name))
}

pub(super) fn is_filter(name: &str) -> bool {
    filters().any(|filter| filter == name)
}

pub(super) fn is_test(name: &str) -> bool {
    tests().any(|test| test == name)
}

pub(super) fn is_function(name: &str) -> bool {
    // Asked for every field of an event that an expression reads.
    FUNCTIONS.contains(&name)
}

// === registering ===

/// What a filter or function answers; undefined is "missing".
type Answer = Result<Value, Error>;

/// A filter on text alone.
type TextFilter = fn(&str) -> Answer;

/// A failure of a filter, as the engine passes it on.
pub(super) fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

impl From<EvalError> for Error {
    fn from(error: EvalError) -> Self {
        failed(error.message)
    }
}

pub(super) fn register(environment: &mut Environment<'static>) {
    environment.remove_global("debug");
    add_functions(environment);
    add_text_filters(environment);
    add_shape_filters(environment);
    add_digests(environment);
    add_lenient(environment);
    for (name, function) in [("json", json as fn(&Value) -> Answer), ("tojson", json), ("safe", safe)] {
        environment.add_filter(name, move |value: &Value| present(value, function));
    }
}

fn add_functions(environment: &mut Environment<'static>) {
    environment.add_function("coalesce", |values: Rest<Value>| {
        values.iter().find(|value| !is_blank(value)).cloned().unwrap_or_default()
    });
    environment.add_function("fail", |message: &Value| -> Answer { Err(failed(text::of(message)?)) });
    environment.add_function("object", |bases: Rest<Value>, named: Kwargs| object(&bases, &named));
    environment.add_function("file", file);
}

fn add_text_filters(environment: &mut Environment<'static>) {
    let filters: [(&str, TextFilter); 11] = [
        ("lower", |text| Ok(text.to_lowercase().into())),
        ("upper", |text| Ok(text.to_uppercase().into())),
        ("capitalize", |text| Ok(capitalize(text).into())),
        ("title", |text| Ok(minijinja::filters::title(text.into()).into())),
        ("digits", |text| Ok(text.chars().filter(char::is_ascii_digit).collect::<String>().into())),
        ("snake", |text| Ok(words(text).join("_").into())),
        ("camel", |text| Ok(camel(text).into())),
        ("base64", |text| Ok(STANDARD.encode(text).into())),
        ("string", |text| Ok(text.into())),
        ("text", |text| Ok(text.into())),
        ("ip_anonymize", |text| Ok(ip_anonymize(text))),
    ];
    for (name, filter) in filters {
        environment.add_filter(name, move |value: &Value| on_text(value, filter));
    }
    environment.add_filter("urlencode", urlencode);
    environment.add_filter("trim", |value: &Value, characters: Option<String>| {
        on_text(value, |text| Ok(trim(text, characters.as_deref()).into()))
    });
    environment.add_filter("clip", |value: &Value, length: usize| {
        on_text(value, |text| Ok(text.chars().take(length).collect::<String>().into()))
    });
    environment.add_filter("mask", |value: &Value, keep: Option<usize>| {
        on_text(value, |text| Ok(mask(text, keep.unwrap_or(4)).into()))
    });
    environment.add_filter("replace", |value: &Value, from: &Value, to: &Value| {
        on_text(value, |text| replace(text, from, to))
    });
    environment.add_filter("regex_replace", |value: &Value, pattern: &str, to: &str| {
        on_text(value, |text| regex_replace(text, pattern, to))
    });
    environment.add_filter("uuid", |value: &Value| on_blankless_text(value, uuid_of));
}

fn add_digests(environment: &mut Environment<'static>) {
    environment.add_filter("sha256", |value: &Value| on_blankless_text(value, |text| hex(&Sha256::digest(text))));
    environment.add_filter("md5", |value: &Value| on_blankless_text(value, |text| hex(&Md5::digest(text))));
    environment.add_filter("hmac_sha256", |value: &Value, key: &Value| -> Answer {
        let key = text::of(key)?;
        on_blankless_text(value, |text| hmac_sha256(text, &key))
    });
}

fn add_shape_filters(environment: &mut Environment<'static>) {
    environment.add_filter("number", |value: &Value| present(value, number));
    environment.add_filter("unix", |value: &Value| on_time(value, |at| floor(at, 1_000_000_000).into()));
    environment.add_filter("unix_ms", |value: &Value| on_time(value, |at| floor(at, 1_000_000).into()));
    environment.add_filter("iso", |value: &Value| on_time(value, |at| format!("{at:.3}").into()));
    environment.add_filter("date", date);
    environment.add_filter("pick", |state: &State, value: &Value, names: Rest<Value>| pick(state, value, &names));
    environment.add_filter("omit", |state: &State, value: &Value, names: Rest<Value>| omit(state, value, &names));
    environment.add_filter("wrap", wrap);
    environment.add_filter("list", list);
    environment.add_filter("compact", compact);
    environment.add_filter("required", required);
    environment.add_filter("flatten", flatten);
    environment.add_filter("join", |state: &State, value: &Value, separator: Option<&str>, options: Kwargs| {
        join(state, value, separator, &options)
    });
}

/// The engine's filters that would make something of nothing, or fail on it, pass it through instead.
fn add_lenient(environment: &mut Environment<'static>) {
    use minijinja::filters;
    let builtin: [(&'static str, Value); 9] = [
        ("map", Value::from_function(filters::map)),
        ("round", Value::from_function(filters::round)),
        ("abs", Value::from_function(filters::abs)),
        ("int", Value::from_function(filters::int)),
        ("float", Value::from_function(filters::float)),
        ("split", Value::from_function(filters::split)),
        ("sort", Value::from_function(filters::sort)),
        ("unique", Value::from_function(filters::unique)),
        ("sum", Value::from_function(filters::sum)),
    ];
    for (name, builtin) in builtin {
        environment.add_filter(name, move |state: &mut State, arguments: Rest<ValueOrKwargs>| -> Answer {
            if arguments.first().is_some_and(|value| is_missing(value)) {
                return Ok(Value::UNDEFINED);
            }
            let arguments: Vec<Value> = arguments.iter().map(|value| (**value).clone()).collect();
            builtin.call(state, &arguments)
        });
    }
}

// === missing and present ===

fn is_missing(value: &Value) -> bool {
    value.is_undefined() || value.is_none()
}

fn is_blank(value: &Value) -> bool {
    is_missing(value) || value.as_str() == Some("")
}

fn present(value: &Value, filter: impl FnOnce(&Value) -> Answer) -> Answer {
    if value.is_undefined() { Ok(Value::UNDEFINED) } else { filter(value) }
}

fn on_text(value: &Value, filter: impl FnOnce(&str) -> Answer) -> Answer {
    match value.as_str() {
        Some(text) => filter(text),
        None if is_missing(value) => Ok(Value::UNDEFINED),
        None => filter(&text::of(value)?),
    }
}

fn on_blankless_text(value: &Value, filter: impl FnOnce(&str) -> String) -> Answer {
    on_text(value, |text| if text.is_empty() { Ok(Value::UNDEFINED) } else { Ok(filter(text).into()) })
}

fn on_time(value: &Value, filter: impl FnOnce(jiff::Timestamp) -> Value) -> Answer {
    if is_blank(value) {
        return Ok(Value::UNDEFINED);
    }
    time::parse(value).map(filter).map_err(failed)
}

/// The elements of a list, paid for one by one: a list of the engine may be lazy and endless.
fn elements(state: &State, list: &Value) -> Result<Vec<Value>, Error> {
    let mut elements = Vec::new();
    for element in list.try_iter()? {
        state.consume_fuel(1)?;
        elements.push(element);
    }
    Ok(elements)
}

/// The fields of an object; the name of the filter is for the error.
fn fields(value: &Value, filter: &str) -> Result<Vec<(String, Value)>, Error> {
    if Shape::of(value) != Shape::Object {
        return Err(failed(format!("`{filter}` needs an object, not {}", Shape::of(value))));
    }
    if let Some(record) = value.downcast_object_ref::<Record>() {
        return Ok(record.fields().iter().map(|(key, value)| (key.to_string(), value.clone())).collect());
    }
    let mut fields = Vec::new();
    for key in value.try_iter()? {
        let field = value.get_item(&key)?;
        fields.push((text::of(&key)?, field));
    }
    Ok(fields)
}

// === functions ===

fn object(bases: &[Value], named: &Kwargs) -> Answer {
    let mut record = Record::default();
    for base in bases.iter().filter(|base| !is_missing(base)) {
        for (name, value) in fields(base, "object")? {
            record.set(&name, value);
        }
    }
    for name in named.args() {
        let value: Value = named.get(name)?;
        if !value.is_undefined() {
            record.set(name, value);
        }
    }
    named.assert_all_used()?;
    Ok(record.into_value())
}

fn file(state: &State, path: &str) -> Answer {
    let files = state.lookup(FILES_KEY).unwrap_or_default();
    let content = if is_missing(&files) { Value::UNDEFINED } else { files.get_attr(path)? };
    if content.is_undefined() {
        return Err(failed(format!("file `{}` was not read; its path must be constant text", excerpt(path))));
    }
    Ok(content)
}

// === filters on any value ===

fn json(value: &Value) -> Answer {
    Ok(text::json(value)?.into())
}

fn safe(value: &Value) -> Answer {
    if value.is_none() { Ok(Value::UNDEFINED) } else { Ok(Value::from_safe_string(text::of(value)?)) }
}

fn number(value: &Value) -> Answer {
    match Shape::of(value) {
        Shape::Number => Ok(value.clone()),
        Shape::Missing | Shape::Null => Ok(Value::UNDEFINED),
        Shape::Bool => Ok(i64::from(value.is_true()).into()),
        Shape::Text => number_of_text(value.as_str().unwrap_or_default().trim()),
        shape @ (Shape::List | Shape::Object | Shape::Other) => Err(failed(format!("not a number: {shape}"))),
    }
}

fn number_of_text(text: &str) -> Answer {
    if text.is_empty() {
        return Ok(Value::UNDEFINED);
    }
    if let Ok(int) = text.parse::<i64>() {
        return Ok(int.into());
    }
    if let Ok(int) = text.parse::<u64>() {
        return Ok(int.into());
    }
    let float = text.parse::<f64>().ok().filter(|float| float.is_finite());
    float.map(Value::from).ok_or_else(|| failed(format!("not a number: `{}`", excerpt(text))))
}

fn required(value: &Value, name: Option<String>) -> Answer {
    if !is_blank(value) {
        return Ok(value.clone());
    }
    Err(failed(name.map_or_else(|| REQUIRED.to_owned(), |name| format!("`{name}` is required, but missing"))))
}

/// The failure of `required` without a name: the template knows what was written before it, and says so.
pub(super) const REQUIRED: &str = "required, but missing";

/// What a filter was applied to, given the text before its name: back to the comma, operator or bracket that begins it.
pub(super) fn subject(before: &str) -> String {
    let before = before.trim_end().trim_end_matches('|').trim_end();
    let mut depth = 0_usize;
    let begin = before.char_indices().rev().find(|(_, char)| {
        match char {
            ')' | ']' | '}' => depth += 1,
            '(' | '[' | '{' if depth > 0 => depth -= 1,
            '(' | '[' | '{' | '%' | ',' | '~' | '+' | '*' | '/' | '=' | ':' => return depth == 0,
            _ => {}
        }
        false
    });
    excerpt(before[begin.map_or(0, |(at, char)| at + char.len_utf8())..].trim())
}

// === filters on objects and lists ===

/// Names given one by one or as lists.
fn names(state: &State, arguments: &[Value]) -> Result<HashSet<String>, Error> {
    let mut names = HashSet::new();
    for argument in arguments {
        if Shape::of(argument) != Shape::List {
            names.insert(text::of(argument)?);
            continue;
        }
        for name in elements(state, argument)? {
            names.insert(text::of(&name)?);
        }
    }
    Ok(names)
}

fn pick(state: &State, value: &Value, arguments: &[Value]) -> Answer {
    if is_missing(value) {
        return Ok(Value::UNDEFINED);
    }
    let names = names(state, arguments)?;
    select_fields(value, "pick", |name| names.contains(name))
}

fn omit(state: &State, value: &Value, arguments: &[Value]) -> Answer {
    if is_missing(value) {
        return Ok(Value::UNDEFINED);
    }
    let names = names(state, arguments)?;
    select_fields(value, "omit", |name| !names.contains(name))
}

fn select_fields(value: &Value, filter: &str, keep: impl Fn(&str) -> bool) -> Answer {
    let mut record = Record::default();
    for (name, value) in fields(value, filter)?.into_iter().filter(|(name, _)| keep(name)) {
        record.push(&name, value);
    }
    Ok(record.into_value())
}

fn wrap(value: &Value, name: &str) -> Answer {
    if is_missing(value) {
        return Ok(Value::UNDEFINED);
    }
    let mut record = Record::default();
    for (key, value) in fields(value, "wrap")? {
        let mut inner = Record::default();
        inner.push(name, value);
        record.push(&key, inner.into_value());
    }
    Ok(record.into_value())
}

fn list(state: &State, value: &Value) -> Answer {
    if is_blank(value) {
        return Ok(Value::UNDEFINED);
    }
    if value.kind() == ValueKind::Seq {
        return Ok(value.clone());
    }
    if Shape::of(value) == Shape::List { Ok(elements(state, value)?.into()) } else { Ok(vec![value.clone()].into()) }
}

fn compact(state: &State, value: &Value) -> Answer {
    match Shape::of(value) {
        Shape::Missing | Shape::Null => Ok(Value::UNDEFINED),
        Shape::Object => compact_object(value),
        Shape::List => {
            let elements = elements(state, value)?;
            Ok(elements.into_iter().filter(|element| !is_missing(element)).collect::<Vec<_>>().into())
        }
        shape @ (Shape::Bool | Shape::Number | Shape::Text | Shape::Other) => {
            Err(failed(format!("`compact` needs a list or an object, not {shape}")))
        }
    }
}

fn compact_object(value: &Value) -> Answer {
    let mut record = Record::default();
    for (name, value) in fields(value, "compact")?.into_iter().filter(|(_, value)| !is_missing(value)) {
        record.push(&name, value);
    }
    Ok(record.into_value())
}

fn flatten(state: &State, value: &Value, separator: Option<&str>) -> Answer {
    if is_missing(value) {
        return Ok(Value::UNDEFINED);
    }
    if Shape::of(value) != Shape::Object {
        return Err(failed(format!("`flatten` needs an object, not {}", Shape::of(value))));
    }
    let mut flat = Record::default();
    flatten_into(state, &mut flat, "", value, separator.unwrap_or("."))?;
    Ok(flat.into_value())
}

fn flatten_into(state: &State, flat: &mut Record, path: &str, value: &Value, separator: &str) -> Result<(), Error> {
    // Every level costs more than the one above: deep nests of a template's making run out of fuel.
    state.consume_fuel(1 + path.len() as u64 / 16)?;
    let nested = value.len().is_none_or(|length| length > 0);
    let shape = Shape::of(value);
    if nested && shape == Shape::Object {
        for (name, value) in fields(value, "flatten")? {
            let path = if path.is_empty() { name } else { format!("{path}{separator}{name}") };
            flatten_into(state, flat, &path, &value, separator)?;
        }
    } else if nested && shape == Shape::List {
        for (index, value) in elements(state, value)?.iter().enumerate() {
            flatten_into(state, flat, &format!("{path}[{index}]"), value, separator)?;
        }
    } else if !path.is_empty() {
        flat.push(path, value.clone());
    }
    Ok(())
}

fn join(state: &State, value: &Value, separator: Option<&str>, options: &Kwargs) -> Answer {
    let attribute: Option<String> = options.get("attribute")?;
    options.assert_all_used()?;
    if is_missing(value) {
        return Ok(Value::UNDEFINED);
    }
    let mut joined = String::new();
    for (index, element) in elements(state, value)?.iter().enumerate() {
        let element = attribute.as_deref().map_or_else(|| Ok(element.clone()), |name| element.get_attr(name))?;
        if index > 0 {
            joined.push_str(separator.unwrap_or_default());
        }
        if !is_missing(&element) {
            text::push(&mut joined, &element, Escape::Plain)?;
        }
        bounded(joined.len())?;
    }
    Ok(joined.into())
}

fn bounded(length: usize) -> Result<(), Error> {
    if length > OUTPUT_MAX_BYTES { Err(EvalError::too_large(OUTPUT_MAX_BYTES).into()) } else { Ok(()) }
}

// === filters on text ===

fn trim<'t>(text: &'t str, characters: Option<&str>) -> &'t str {
    characters.map_or_else(|| text.trim(), |characters| text.trim_matches(|char| characters.contains(char)))
}

fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars.flat_map(char::to_lowercase)).collect())
}

/// The words of a text in lower case: cut at signs and spaces, before a capital after a small letter or digit, and
/// before the last capital of a row of them (`HTTPServer` is `http`, `server`).
fn words(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut words = vec![String::new()];
    for (index, char) in chars.iter().enumerate() {
        let before = index.checked_sub(1).map(|index| chars[index]);
        let next_is_small = chars.get(index + 1).is_some_and(|next| next.is_lowercase());
        let starts = char.is_uppercase() && before.is_some_and(|before| !before.is_uppercase() || next_is_small);
        if starts || !char.is_alphanumeric() {
            words.push(String::new());
        }
        if char.is_alphanumeric() {
            words.last_mut().expect("starts with one word").extend(char.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn camel(text: &str) -> String {
    let words = words(text);
    words.iter().enumerate().map(|(index, word)| if index == 0 { word.clone() } else { capitalize(word) }).collect()
}

fn mask(text: &str, keep: usize) -> String {
    let hidden = text.chars().count().saturating_sub(keep.max(1)).max(1);
    text.chars().enumerate().map(|(index, char)| if index < hidden { '*' } else { char }).collect()
}

/// Text percent-encoded, an object as a query string; marked, or a URL would encode it again.
fn urlencode(value: &Value) -> Answer {
    if is_missing(value) {
        return Ok(Value::UNDEFINED);
    }
    let mut encoded = String::new();
    if Shape::of(value) != Shape::Object {
        text::percent_encode(&mut encoded, &text::of(value)?);
        return Ok(Value::from_safe_string(encoded));
    }
    for (name, value) in fields(value, "urlencode")?.iter().filter(|(_, value)| !is_missing(value)) {
        if !encoded.is_empty() {
            encoded.push('&');
        }
        text::percent_encode(&mut encoded, name);
        encoded.push('=');
        text::percent_encode(&mut encoded, &text::of(value)?);
        bounded(encoded.len())?;
    }
    Ok(Value::from_safe_string(encoded))
}

fn replace(text: &str, from: &Value, to: &Value) -> Answer {
    let (from, to) = (text::of(from)?, text::of(to)?);
    bounded(text.len() + text.matches(&from).count().saturating_mul(to.len()))?;
    Ok(text.replace(&from, &to).into())
}

/// What `regex_replace` may look through, in bytes. One search is linear, but each may run to the end of the text before it
/// takes a short match near its beginning: `a+b|a` does, on nothing but `a`. Texts below 46 KB never come near.
const SEARCHED_MAX_BYTES: usize = 1 << 30;

fn regex_replace(text: &str, source: &str, to: &str) -> Answer {
    let pattern = pattern(source).map_err(failed)?;
    let (mut replaced, mut at, mut searched) = (String::with_capacity(text.len()), 0, 0);
    for captures in pattern.captures_iter(text) {
        let whole = captures.get_match();
        searched += text.len() - at;
        if searched > SEARCHED_MAX_BYTES {
            return Err(failed(format!("too many matches in a text of {} bytes", text.len())));
        }
        replaced.push_str(&text[at..whole.start()]);
        captures.expand(to, &mut replaced);
        at = whole.end();
        bounded(replaced.len())?;
    }
    replaced.push_str(&text[at..]);
    Ok(replaced.into())
}

/// Compiles a pattern, once per process as long as few are in use.
///
/// # Errors
/// What is wrong with it, as a fragment.
pub(super) fn pattern(source: &str) -> Result<Regex, String> {
    const CACHED_MAX: usize = 256;
    static CACHE: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pattern) = cache.get(source) {
        return Ok(pattern.clone());
    }
    let pattern = compile_pattern(source)?;
    if cache.len() >= CACHED_MAX {
        cache.clear();
    }
    cache.insert(source.to_owned(), pattern.clone());
    Ok(pattern)
}

/// A pattern whose program stays below 256 KiB (a `\\w` takes about ten) and whose cache below a megabyte.
pub(super) fn compile_pattern(source: &str) -> Result<Regex, String> {
    const SIZE_MAX_BYTES: usize = 1 << 18;
    const CACHE_MAX_BYTES: usize = 1 << 20;
    RegexBuilder::new(source)
        .size_limit(SIZE_MAX_BYTES)
        .dfa_size_limit(CACHE_MAX_BYTES)
        .build()
        .map_err(|error| format!("not a regular expression: {}", last_line(&error.to_string())))
}

/// A broken pattern's error draws the pattern first; the reason is its last line.
fn last_line(error: &str) -> String {
    error.lines().last().unwrap_or(error).trim_start_matches("error: ").to_owned()
}

fn ip_anonymize(text: &str) -> Value {
    let cut = match text.trim().parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => IpAddr::V4((address.to_bits() & !0xff).into()),
        Ok(IpAddr::V6(address)) => IpAddr::V6((address.to_bits() >> 80 << 80).into()),
        Err(_) => return Value::UNDEFINED,
    };
    cut.to_string().into()
}

// === digests ===

fn hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(hex, "{byte:02x}").expect("a String takes every character");
    }
    hex
}

fn hmac_sha256(text: &str, key: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// The UUID that a text is, or the one of version 3 named by it (RFC 9562, section 5.3).
fn uuid_of(text: &str) -> String {
    if let Ok(uuid) = uuid::Uuid::parse_str(text.trim()) {
        return uuid.to_string();
    }
    let digest = Md5::new().chain_update(uuid::Uuid::NAMESPACE_OID.as_bytes()).chain_update(text).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest);
    uuid::Builder::from_md5_bytes(bytes).into_uuid().to_string()
}

// === time ===

/// The whole units since 1970, rounded down also before it.
fn floor(at: jiff::Timestamp, unit_nanos: i128) -> i64 {
    i64::try_from(at.as_nanosecond().div_euclid(unit_nanos)).unwrap_or(i64::MAX)
}

fn date(value: &Value, format: &str) -> Answer {
    if is_blank(value) {
        return Ok(Value::UNDEFINED);
    }
    let at = time::parse(value).map_err(failed)?;
    strftime(at, format).map(Value::from).map_err(failed)
}

fn strftime(at: jiff::Timestamp, format: &str) -> Result<String, String> {
    let at = at.to_zoned(TimeZone::UTC);
    jiff::fmt::strtime::format(format, &at).map_err(|error| format!("not a date format: {error}"))
}

/// Checks a format on a date of no importance.
pub(super) fn check_format(format: &str) -> Result<(), String> {
    strftime(jiff::Timestamp::UNIX_EPOCH, format).map(drop)
}

#[cfg(test)]
mod tests;
