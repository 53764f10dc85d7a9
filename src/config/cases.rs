//! `[[tests]]`: what the file promises about its destinations. Read here, held to by `rehearse`.

use std::collections::BTreeMap;
use std::ops::Range;

use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use toml::de::{DeTable, DeValue};

use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::findings::Findings;
use super::json;
use super::spelling::nearest;
use super::table::{Field, Table};
use crate::attempt::DestinationName;
use crate::event::SourceName;
use crate::plan::case::{Answer, Case, Expectation, Fate, Script, Step, Written};

/// What time it is in a test that does not say.
pub(super) const NOW: &str = "2026-01-01T00:00:00Z";

/// Events of one test: enough for the largest batch of the services we know, few enough to be read.
const EVENTS_MAX: usize = 10_000;

/// No answer at all, by its word.
const FAILURES: [(&str, Answer); 2] = [("timeout", Answer::Timeout), ("disconnect", Answer::Disconnect)];

/// The fields of an answer.
const ANSWER_FIELDS: [&str; 3] = ["status", "headers", "body"];

/// The fields of a request that can be expected.
const REQUEST_FIELDS: [&str; 5] = ["method", "url", "headers", "body", "wire"];

/// Reads `[[tests]]`; what has mistakes is left out.
pub(super) fn read(
    findings: &Findings<'_>,
    field: &Field<'_>,
    destinations: &DeTable<'_>,
    sources: Option<&DeTable<'_>>,
) -> Vec<Case> {
    let names = |table: &DeTable<'_>| table.keys().map(|name| name.get_ref().to_string()).collect();
    let known = Known { destinations: names(destinations), sources: sources.map(names).unwrap_or_default() };
    let tables: Vec<_> = field.list().unwrap_or_default().iter().filter_map(|field| field.table("a test")).collect();
    let cases: Vec<Case> = tables.iter().filter_map(|table| case(findings, table, &known)).collect();
    warn_of_same_names(findings, &cases);
    cases
}

/// The names that a test may use.
struct Known {
    destinations: Vec<String>,
    sources: Vec<String>,
}

fn case(findings: &Findings<'_>, table: &Table<'_>, known: &Known) -> Option<Case> {
    let name = table.require("name", "say in a sentence what holds: `name = \"a big order is told\"`");
    let destination = table.require("destination", "name the destination that is tested");
    let destination =
        destination.and_then(|field| self::name(&field, &known.destinations, "destination", Code::UnknownDestination));
    let source = table.get("source").map(|field| self::name(&field, &known.sources, "source", Code::UnknownSource));
    let variables = table.get("env").map(|field| texts(&field)).unwrap_or_default();
    let files = table.get("files").map(|field| texts(&field)).unwrap_or_default();
    let now = table.get("now").map_or_else(|| NOW.parse().ok(), |field| time(&field));
    let events = events(findings, table);
    let script = table.get("respond").map_or(Some(Script::Accepting), |field| script(&field));
    let expect = expectation(findings, table);
    let outcome = outcome(table);
    table.finish();
    let events = events?;
    check_sense(findings, table, events.len(), outcome.as_deref());
    if let Some(Script::History(_)) = script.as_ref().filter(|_| events.is_empty()) {
        let error = Diagnostic::error(Code::MissingKey, table.span(), "a list of answers needs `event` or `events`");
        findings.add(error.help("only requests that are made get one answer after the other"));
    }
    let name = name?.text()?;
    Some(Case {
        name: name.value.to_owned(),
        span: name.span.clone(),
        destination: DestinationName::from(destination?.as_str()),
        variables,
        files,
        now: now?,
        source: match source {
            Some(source) => Some(SourceName::from(source?.as_str())),
            None => None,
        },
        events,
        script: script?,
        expect,
        outcome,
        end: end(table),
    })
}

/// A name that has to be among the known ones.
fn name(field: &Field<'_>, known: &[String], what: &str, code: Code) -> Option<String> {
    let text = field.text_as(&format!("the name of a {what}"))?;
    if known.iter().any(|name| name == text.value) {
        return Some(text.value.to_owned());
    }
    let message = format!("there is no {what} `{}`", text.value);
    field.report(Diagnostic { code, ..text.wrong_word(message, known.iter().map(String::as_str)) });
    None
}

fn texts(field: &Field<'_>) -> BTreeMap<String, String> {
    let Some(table) = field.table("a table of texts") else { return BTreeMap::new() };
    let text = |field: Field<'_>| Some((field.name.to_owned(), field.text()?.value.to_owned()));
    table.fields().filter_map(text).collect()
}

fn time(field: &Field<'_>) -> Option<Timestamp> {
    let written = match field.raw() {
        DeValue::Datetime(date) => date.to_string(),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => field.text_as("a time such as \"2026-01-02T03:04:05Z\"")?.value.to_owned(),
    };
    let time = written.parse().ok();
    if time.is_none() {
        let error = field.error(Code::BadValue, format!("`{written}` is not a time"));
        field.report(error.help("for example \"2026-01-02T03:04:05Z\""));
    }
    time
}

// --- events

fn events(findings: &Findings<'_>, table: &Table<'_>) -> Option<Vec<Written>> {
    let (one, many) = (table.get("event"), table.get("events"));
    if let (Some(_), Some(many)) = (&one, &many) {
        let error = Diagnostic::error(Code::MisplacedKey, many.key_span(), "`event` and `events` are one too many");
        findings.add(error.help("keep `events` for several"));
    }
    if let Some(field) = one {
        let event = json::read(&field)?;
        return is_event(findings, &event).then(|| vec![event]);
    }
    let Some(field) = many else { return Some(Vec::new()) };
    let events = json::read(&field)?;
    let Json::Array(elements) = &events.value else {
        field
            .report(field.error(Code::WrongType, "`events` must be a list of events").help("`event` is for one alone"));
        return None;
    };
    if elements.is_empty() {
        field.report(
            field.error(Code::BadValue, "`events` is empty").help("write what an SDK sends, one object an event"),
        );
    }
    if elements.len() > EVENTS_MAX {
        field.report(field.error(Code::OutOfRange, format!("a test has {EVENTS_MAX} events at most")));
        return None;
    }
    let pieces = elements.iter().enumerate().map(|(index, event)| events.piece(Step::Element(index), event.clone()));
    let pieces: Vec<Written> = pieces.collect();
    pieces.iter().all(|event| is_event(findings, event)).then_some(pieces)
}

fn is_event(findings: &Findings<'_>, event: &Written) -> bool {
    let is_object = event.value.is_object();
    if !is_object {
        let error = Diagnostic::error(Code::WrongType, findings.place_of(event), "an event must be an object");
        findings.add(error.help("for example '{\"type\":\"track\",\"userId\":\"u1\",\"event\":\"Signed Up\"}'"));
    }
    is_object
}

// --- answers

fn script(field: &Field<'_>) -> Option<Script> {
    let is_word = field.raw().as_str().is_some_and(|text| FAILURES.iter().any(|(word, _)| *word == text));
    let written = if is_word {
        Written { value: json::of_toml(field.raw()), span: field.span(), within: None }
    } else {
        json::read(field)?
    };
    match &written.value {
        Json::Array(answers) => {
            let answers = answers.iter().enumerate();
            let answers: Vec<_> = answers
                .map(|(index, answer)| answer_of(field, &written.piece(Step::Element(index), answer.clone())))
                .collect();
            let answers: Vec<Answer> = answers.into_iter().collect::<Option<_>>()?;
            if answers.is_empty() {
                field.report(
                    field.error(Code::BadValue, "`respond` is empty").help("leave it out: everything is taken"),
                );
            }
            Some(Script::History(answers))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => {
            answer_of(field, &written).map(Script::Once)
        }
    }
}

/// A status, `"timeout"`, `"disconnect"`, or `{ status, headers, body }`.
fn answer_of(field: &Field<'_>, written: &Written) -> Option<Answer> {
    let refuse = |written: &Written, message: &str| {
        let error = Diagnostic::error(Code::BadValue, field.place_of(written), message);
        let example = "{\"status\":429,\"headers\":{\"retry-after\":\"30\"},\"body\":{\"error\":\"slow down\"}}";
        field.report(error.help(format!("for example 503, \"timeout\", \"disconnect\" or {example}")));
        None
    };
    match &written.value {
        Json::Number(_) => match status(&written.value) {
            Some(status) => Some(Answer::Reply { status, headers: Vec::new(), body: String::new() }),
            None => refuse(written, "a status is a number from 100 to 599"),
        },
        Json::String(word) => match FAILURES.iter().find(|(name, _)| name == word) {
            Some((_, answer)) => Some(answer.clone()),
            None => refuse(written, "not an answer"),
        },
        Json::Object(fields) => reply(fields, written, &refuse),
        Json::Null | Json::Bool(_) | Json::Array(_) => refuse(written, "not an answer"),
    }
}

fn reply(
    fields: &Map<String, Json>,
    written: &Written,
    refuse: &dyn Fn(&Written, &str) -> Option<Answer>,
) -> Option<Answer> {
    let piece = |name: &str| {
        let value = fields.get(name).cloned();
        value.map(|value| written.piece(Step::Field(name.to_owned()), value))
    };
    if let Some(unknown) = fields.keys().find(|name| !ANSWER_FIELDS.contains(&name.as_str())) {
        return refuse(&piece(unknown)?, &format!("an answer has no `{unknown}`, but status, headers and body"));
    }
    let status = match piece("status") {
        None => 200,
        Some(piece) => match status(&piece.value) {
            Some(status) => status,
            None => return refuse(&piece, "a status is a number from 100 to 599"),
        },
    };
    let headers = match piece("headers") {
        None => Vec::new(),
        Some(piece) => match piece.value.as_object().and_then(headers) {
            Some(headers) => headers,
            None => return refuse(&piece, "headers are an object of texts"),
        },
    };
    let body = match fields.get("body") {
        None => String::new(),
        Some(Json::String(text)) => text.clone(),
        Some(body) => body.to_string(),
    };
    Some(Answer::Reply { status, headers, body })
}

fn status(value: &Json) -> Option<u16> {
    value.as_u64().and_then(|status| u16::try_from(status).ok()).filter(|status| (100..=599).contains(status))
}

fn headers(fields: &Map<String, Json>) -> Option<Vec<(String, String)>> {
    let text = |value: &Json| match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    };
    fields.iter().map(|(name, value)| Some((name.to_ascii_lowercase(), text(value)?))).collect()
}

// --- what is expected

fn expectation(findings: &Findings<'_>, table: &Table<'_>) -> Option<Expectation> {
    let exact = table.get("exact");
    let Some(field) = table.get("expect") else {
        if let Some(exact) = exact {
            findings.add(Diagnostic::error(Code::MisplacedKey, exact.key_span(), "`exact` needs `expect`"));
        }
        return None;
    };
    let is_exact = exact.and_then(|field| field.boolean()).unwrap_or_default();
    let requests = json::read(&field)?;
    let Json::Array(elements) = &requests.value else {
        let error = field.error(Code::WrongType, "`expect` must be a list of requests");
        field.report(error.help("`[]` expects that none is made"));
        return None;
    };
    for (index, element) in elements.iter().enumerate() {
        check_request(findings, &requests.piece(Step::Element(index), element.clone()));
    }
    Some(Expectation { requests, is_exact })
}

/// A request that is expected is an object of what requests have.
fn check_request(findings: &Findings<'_>, request: &Written) {
    let Some(fields) = request.value.as_object() else {
        findings.add(Diagnostic::error(Code::WrongType, findings.place_of(request), "a request must be an object"));
        return;
    };
    for (name, value) in fields.iter().filter(|(name, _)| !REQUEST_FIELDS.contains(&name.as_str())) {
        let piece = request.piece(Step::Field(name.clone()), value.clone());
        let message = format!("a request has no `{name}`, but method, url, headers, body and wire");
        let error = Diagnostic::error(Code::UnknownKey, findings.place_of(&piece), message);
        let near = nearest(name, REQUEST_FIELDS);
        findings.add(match near {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error,
        });
    }
}

fn outcome(table: &Table<'_>) -> Option<Vec<(Fate, Range<usize>)>> {
    let field = table.get("outcome")?;
    let fates: Vec<_> = field.one_or_many().iter().map(|field| Some((field.word(&Fate::ALL)?, field.span()))).collect();
    if fates.is_empty() {
        field.report(field.error(Code::BadValue, "`outcome` is empty").help("one word an event"));
    }
    fates.into_iter().collect()
}

// --- the whole

/// A test that asks for nothing, or cannot be answered, is a mistake.
fn check_sense(findings: &Findings<'_>, table: &Table<'_>, events: usize, outcome: Option<&[(Fate, Range<usize>)]>) {
    let has = |key: &str| table.entries().contains_key(key);
    let has_events = has("event") || has("events");
    let missing = |message: &str, help: &str| {
        findings.add(Diagnostic::error(Code::MissingKey, table.span(), message).help(help));
    };
    if !has_events && !has("respond") {
        missing("a test needs `event` or `events`", "or `respond` and `outcome`, for the meaning of an answer alone");
    } else if !has_events && has("expect") {
        missing("`expect` needs `event` or `events`", "without events no request is made");
    } else if !has_events && !has("outcome") {
        missing("`respond` needs `outcome`", "say what the answer means, one word an event: `outcome = [\"retry\"]`");
    } else if !has("expect") && !has("outcome") {
        let message = "this test expects nothing";
        let warning = Diagnostic::warning(Code::ExpectsNothing, table.span(), message);
        findings.add(warning.help("`libroseg test --update` writes down the requests that are made"));
    }
    if let Some([first, ..]) = outcome.filter(|outcome| has_events && outcome.len() != events) {
        let count = outcome.map_or(0, <[_]>::len);
        let message =
            format!("`outcome` has {count} word{}, one an event, and there {} {events}", plural(count), is_are(events));
        findings.add(Diagnostic::error(Code::BadValue, first.1.clone(), message));
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn is_are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn warn_of_same_names(findings: &Findings<'_>, cases: &[Case]) {
    for (index, case) in cases.iter().enumerate() {
        if cases[..index].iter().any(|other| other.name == case.name && other.destination == case.destination) {
            let message = format!("another test of `{}` is called the same", case.destination);
            findings.add(Diagnostic::warning(Code::SameName, case.span.clone(), message));
        }
    }
}

/// The end of the test's last value.
fn end(table: &Table<'_>) -> usize {
    table.entries().values().map(|value| value.span().end).max().unwrap_or(table.span().end)
}
