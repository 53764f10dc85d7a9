//! An explanation for programs.

use serde_json::{Map, Value as Json, json};

use super::{Of, Told, curl};
use crate::plan::Request;
use crate::plan::explain::{Asked, Before, FieldExplained, RuleExplained, Wants};
use crate::rehearse::shown;

/// The whole answer: one object and a line break.
pub(super) fn answer(told: &Told) -> String {
    let event: Json = serde_json::from_slice(&told.event.json).unwrap_or_default();
    let answer = json!({
        "event": event,
        "source": told.event.source.as_str(),
        "unset": told.unset,
        "destinations": told.destinations.iter().map(|of| destination(told, of)).collect::<Vec<_>>(),
    });
    format!("{answer:#}\n")
}

fn destination(told: &Told, of: &Of) -> Json {
    let explanation = &of.explanation;
    let (before, detail) = match &explanation.before {
        Before::Passed => ("passed", None),
        Before::OtherSource => ("other_source", None),
        Before::NotAllowed(filter) => ("not_allowed", Some(filter.as_str().to_owned())),
        Before::NotSampled => ("not_sampled", None),
        Before::Failed(error) => ("failed", Some(error.to_string())),
    };
    json!({
        "name": of.name.as_str(),
        "place": at(told, &format!("destinations.{}", of.name)),
        "off": of.off,
        "before": before,
        "before_detail": detail,
        "when": explanation.when.iter().map(|asked| condition(told, asked)).collect::<Vec<_>>(),
        "rules": explanation.rules.iter().map(|one| rule(told, one)).collect::<Vec<_>>(),
        "order_key": explanation.order_key,
        "outcome": of.end.fate.as_str(),
        "detail": of.end.detail,
        "requests": of.requests.iter().map(request).collect::<Vec<_>>(),
    })
}

fn request(request: &Request) -> Json {
    let mut shown = shown::request(request);
    shown["curl"] = curl::command(request).into();
    shown
}

fn rule(told: &Told, rule: &RuleExplained) -> Json {
    let (wants, why) = match &rule.wants {
        Wants::Yes => (true, None),
        Wants::OtherEvents => (false, Some("on".to_owned())),
        Wants::Condition => (false, Some("when".to_owned())),
        Wants::After(by) => (false, Some(format!("rules[{by}].final"))),
    };
    json!({
        "path": rule.place,
        "place": at(told, &rule.place),
        "wants": wants,
        "why_not": why,
        "when": rule.when.iter().map(|asked| condition(told, asked)).collect::<Vec<_>>(),
        "items": rule.items,
        "fields": rule.fields.iter().map(|one| field(told, one)).collect::<Vec<_>>(),
    })
}

fn condition(told: &Told, asked: &Asked) -> Json {
    let decided = |why: &crate::expr::why::Why| {
        let read: Map<String, Json> =
            why.read.iter().map(|(path, value)| (path.clone(), value.clone().into())).collect();
        json!({ "text": asked.text[why.range.clone()], "holds": why.holds, "read": read })
    };
    json!({
        "path": asked.place,
        "place": at(told, &asked.place),
        "text": asked.text,
        "holds": asked.holds.as_ref().ok(),
        "error": asked.holds.as_ref().err().map(ToString::to_string),
        "decided": asked.why.iter().map(decided).collect::<Vec<_>>(),
    })
}

fn field(told: &Told, field: &FieldExplained) -> Json {
    json!({
        "path": field.place,
        "place": at(told, &field.place),
        "written": told.places.find(&field.place).map(|place| place.written),
        "missing": field.value == Ok(None),
        "value": field.value.as_ref().ok(),
        "error": field.value.as_ref().err().map(ToString::to_string),
    })
}

/// Where it is written: `{ file | preset, line, column }`.
fn at(told: &Told, path: &str) -> Json {
    let Some(place) = told.places.find(path) else { return Json::Null };
    let file = place.preset.is_none().then_some(told.file.as_str());
    json!({ "file": file, "preset": place.preset, "line": place.line, "column": place.column })
}
