//! An explanation for people: a paragraph a destination, the deciding part of a condition underlined.

use std::fmt::Write as _;

use super::super::ask::{clean, counted};
use super::{Of, Told, curl};
use crate::expr::cut;
use crate::plan::case::Fate;
use crate::plan::explain::{Asked, Before, FieldExplained, RuleExplained, Wants};
use crate::rehearse::shown;

/// Characters of a value; more is in the request, or in JSON.
const VALUE_CHARS_MAX: usize = 100;

/// The whole answer.
pub(super) fn answer(told: &Told) -> String {
    let mut out = String::new();
    let event = &told.event;
    let name = |key: &str| {
        let message = event.open().ok()?;
        message.value.get(key)?.as_str().map(|name| format!(" {name:?}"))
    };
    let named = name("event").or_else(|| name("name")).unwrap_or_default();
    let _ = writeln!(out, "{}{named} from source `{}`, message id {}", event.kind, event.source, event.message_id);
    for unset in &told.unset {
        let _ = writeln!(out, "note: {unset}; its name stands in for it");
    }
    for of in &told.destinations {
        let _ = write!(out, "\n{}", destination(told, of));
    }
    clean(&out)
}

fn destination(told: &Told, of: &Of) -> String {
    let mut out = String::new();
    let path = format!("destinations.{}", of.name);
    let _ = writeln!(out, "{}  {}", of.name, at(told, &path));
    if let Some(why) = &of.off {
        let _ = writeln!(out, "  it is off here: {why}");
    }
    let _ = writeln!(out, "  {}", summary(of));
    for asked in &of.explanation.when {
        condition(told, asked, "  ", &mut out);
    }
    for rule in &of.explanation.rules {
        rule_told(told, rule, of.explanation.rules.len() == 1, &mut out);
    }
    if let Some(key) = &of.explanation.order_key {
        let _ = writeln!(out, "  it waits for earlier events whose `order_by` is {key:?} as well");
    }
    for (index, request) in of.requests.iter().enumerate() {
        let _ = writeln!(out, "  request {}:", index + 1);
        let shown = curl::command(request).unwrap_or_else(|| shown::request(request)["body"].to_string());
        for line in shown.lines() {
            let _ = writeln!(out, "    {line}");
        }
    }
    out
}

fn summary(of: &Of) -> String {
    let wanting = of.explanation.rules.iter().filter(|rule| rule.wants == Wants::Yes).count();
    let rules = of.explanation.rules.len();
    match &of.explanation.before {
        Before::OtherSource => "not reached: it takes no events of this source".to_owned(),
        Before::NotAllowed(filter) => format!("not reached: {}", allowed(filter.as_str())),
        Before::NotSampled => "not reached: its user is not in the `sample`".to_owned(),
        Before::Failed(error) => format!("dead letter: `sample` fails: {error}"),
        Before::Passed if of.end.fate == Fate::Dead => format!("dead letter: {}", of.end.detail),
        Before::Passed if of.end.fate == Fate::Filtered && rules == 0 => {
            "not reached: a condition does not hold".to_owned()
        }
        Before::Passed if of.end.fate == Fate::Filtered => "not reached: no rule wants it".to_owned(),
        Before::Passed if rules == 1 => format!("reached: {}", counted(of.requests.len(), "request")),
        Before::Passed => format!("reached by {wanting} of {rules} rules: {}", counted(of.requests.len(), "request")),
    }
}

/// Segment's words for it, in words.
fn allowed(code: &str) -> String {
    let why = match code {
        "FILTERED_BY_INTEGRATIONS_OBJECT" => "the event's `integrations` leave it out",
        "FILTERED_BY_END_USER_CONSENT" => "the end user has not consented to its categories",
        _ => "the SDK has delivered it from the device",
    };
    format!("{why} ({code})")
}

fn rule_told(told: &Told, rule: &RuleExplained, is_alone: bool, out: &mut String) {
    let name = rule.place.split_once(".rules[").map_or("the one rule", |(_, rest)| rest);
    let why = match &rule.wants {
        Wants::Yes if rule.items == 1 => "wants it".to_owned(),
        Wants::Yes => format!("wants it, {}; the first is shown", counted(rule.items, "time")),
        Wants::OtherEvents => "does not: `on` asks for other events".to_owned(),
        Wants::Condition => "does not".to_owned(),
        Wants::After(by) => format!("is not asked: `rules[{by}]` is `final`"),
    };
    if !is_alone || rule.place.contains(".rules[") {
        let _ = writeln!(out, "  rules[{name}  {}  {why}", at(told, &rule.place));
    } else if rule.wants == Wants::OtherEvents {
        let _ = writeln!(out, "  {why}");
    }
    for asked in &rule.when {
        condition(told, asked, "    ", out);
    }
    for field in &rule.fields {
        field_told(told, field, &rule.place, out);
    }
}

/// A condition with the parts that decided underlined, and what they read.
fn condition(told: &Told, asked: &Asked, indent: &str, out: &mut String) {
    let verdict = match &asked.holds {
        Ok(true) => "holds".to_owned(),
        Ok(false) => "does not hold".to_owned(),
        Err(error) => format!("fails: {error}"),
    };
    let key = asked.place.rsplit('.').next().unwrap_or_default();
    let head = format!("{indent}{key}  {}  {verdict}: ", at(told, &asked.place));
    let is_one_line = !asked.text.contains('\n');
    let _ = writeln!(out, "{head}{}", asked.text.replace('\n', " "));
    if asked.holds == Ok(true) {
        return;
    }
    for why in &asked.why {
        let read: Vec<String> = why
            .read
            .iter()
            .map(|(path, value)| match value {
                Some(value) => format!("{path} is {value}"),
                None => format!("{path} is not there"),
            })
            .collect();
        let verdict = if why.holds { "holds" } else { "does not" };
        let read = if read.is_empty() { String::new() } else { format!(": {}", read.join(", ")) };
        if is_one_line && asked.text.len() > why.range.len() {
            let before = head.chars().count() + asked.text[..why.range.start].chars().count();
            let carets = asked.text[why.range.clone()].chars().count();
            let _ = writeln!(out, "{}{} {verdict}{read}", " ".repeat(before), "^".repeat(carets));
        } else {
            let _ = writeln!(out, "{indent}  {} {verdict}{read}", &asked.text[why.range.clone()]);
        }
    }
}

fn field_told(told: &Told, field: &FieldExplained, rule: &str, out: &mut String) {
    let name = field.place.strip_prefix(rule).unwrap_or(&field.place).trim_start_matches('.');
    let place = told.places.find(&field.place);
    let written = place.as_ref().map(|place| place.written.replace('\n', " ")).unwrap_or_default();
    let value = match &field.value {
        Ok(Some(value)) => format!("= {}", cut(&value.to_string(), VALUE_CHARS_MAX)),
        Ok(None) => "is missing, and left out".to_owned(),
        Err(error) => format!("fails: {error}"),
    };
    let pieces = [name.to_owned(), at(told, &field.place), written, value];
    let pieces: Vec<String> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
    let _ = writeln!(out, "    {}", pieces.join("  "));
}

fn at(told: &Told, path: &str) -> String {
    told.places.find(path).map(|place| place.in_file(&told.file)).unwrap_or_default()
}
