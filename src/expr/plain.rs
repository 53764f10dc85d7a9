//! Expressions that are told without the engine: the first of some paths that is true, and perhaps its JSON text.
//!
//! They are much of what files say of events, and to start the engine costs more than they do. What fails here is asked of
//! the engine, whose word holds.

use super::json::{self, Writer};
use super::scan::{Token, TokenKind};
use super::scope::Found;
use super::template::{constant, path};
use super::{EvalError, Omit, Scope, Value, text};

/// `a.b or c or {}`, perhaps in brackets, perhaps `| json`.
pub(super) struct Plain {
    paths: Vec<Vec<String>>,
    /// What it is when no path is true; `None`: what the last one is.
    otherwise: Option<Value>,
    is_json: bool,
}

// === impl Plain ===

impl Plain {
    /// The expression, if it is one of these.
    pub(super) fn read(text: &str, tokens: &[Token]) -> Option<Self> {
        let word = |token: &Token| &text[token.range.clone()];
        let (whole, is_json) = match tokens {
            [whole @ .., bar, filter] if word(bar) == "|" && word(filter) == "json" => (whole, true),
            _ => (tokens, false),
        };
        let inner = match whole {
            [open, inner @ .., close] if word(open) == "(" && word(close) == ")" => inner,
            _ => whole,
        };
        let is_or = |token: &Token| token.kind == TokenKind::Word && word(token) == "or";
        let mut choices: Vec<&[Token]> = inner.split(is_or).collect();
        // Without brackets the filter is the last choice's alone.
        if choices.len() > 1 && is_json && inner.len() == whole.len() {
            return None;
        }
        let otherwise = choices.last().and_then(|last| constant(text, last));
        if otherwise.is_some() {
            choices.pop();
        }
        let paths: Vec<_> = choices.into_iter().map(|choice| path(text, choice)).collect::<Option<_>>()?;
        (!paths.is_empty()).then_some(Self { paths, otherwise, is_json })
    }

    /// The value; `None`: the engine knows.
    pub(super) fn value(&self, scope: &Scope) -> Option<Value> {
        if self.is_json { None } else { self.choose(scope).map(Found::into_value) }
    }

    /// Appends the value as JSON; `false`: it is missing. `None`: the engine knows.
    pub(super) fn write_json(&self, scope: &Scope, omit: Omit, out: &mut Vec<u8>) -> Option<bool> {
        let (start, max_bytes, found) = (out.len(), scope.output_max_bytes(), self.choose(scope)?);
        if !self.is_json {
            return write(found, &mut Writer::new(out, omit, max_bytes)).ok();
        }
        let is_written = write_text(found, out).ok()?;
        (out.len() - start <= max_bytes).then_some(is_written)
    }

    fn choose<'a>(&'a self, scope: &'a Scope) -> Option<Found<'a>> {
        let (last, others) = self.paths.split_last()?;
        for path in others {
            let found = scope.find(path).ok()?;
            if found.is_true() {
                return Some(found);
            }
        }
        let found = scope.find(last).ok()?;
        match &self.otherwise {
            Some(otherwise) if !found.is_true() => Some(Found::Value(otherwise.clone())),
            Some(_) | None => Some(found),
        }
    }
}

/// Writes what was found; `false`: it is missing.
pub(super) fn write(found: Found<'_>, writer: &mut Writer<'_>) -> Result<bool, EvalError> {
    match found {
        Found::Inside(node, fields) => {
            let Some(json) = node.json_at(fields) else { return Ok(false) };
            writer.json(json);
            Ok(true)
        }
        Found::Value(value) if value.is_undefined() => Ok(false),
        Found::Value(value) => writer.value(&value).map(|()| true),
    }
}

/// Writes the JSON of what was found as text; `false`: it is missing.
fn write_text(found: Found<'_>, out: &mut Vec<u8>) -> Result<bool, EvalError> {
    match found {
        Found::Inside(node, fields) => {
            let Some(json) = node.json_at(fields) else { return Ok(false) };
            json::quoted(out, json);
            Ok(true)
        }
        Found::Value(value) if value.is_undefined() => Ok(false),
        Found::Value(value) => {
            json::serialize(out, &text::json(&value)?);
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::event::Message;
    use crate::expr::template::Template;
    use crate::expr::{Escape, Names};

    const EXPRESSIONS: [&str; 12] = [
        "a or b",
        "(a or b.c)",
        "a or b or {}",
        "(a or b) | json",
        "(b.c or a or {}) | json",
        "a | json",
        "(a) | json",
        "a or b | json",
        "a or 'x\\n'",
        "(a or \"x\") | json",
        "text or a",
        "(broken or a) | json",
    ];

    /// What a template does with an event, in every way it is asked.
    fn told(template: &str, scope: &Scope) -> String {
        let template = Template::parse(template).expect("a template");
        let (mut json, mut text) = (b"before".to_vec(), String::new());
        let omits =
            [Omit::Nothing, Omit::Null, Omit::Empty].map(|omit| template.write_json(scope, omit, &mut json).ok());
        let is_text = template.write_text(scope, Escape::Plain, &mut text).ok();
        format!("{omits:?} {} {is_text:?} {text} {:?}", String::from_utf8_lossy(&json), template.is_true(scope).ok())
    }

    #[test]
    fn what_is_told_without_the_engine_is_what_the_engine_tells() {
        let lets = vec![
            ("text".to_owned(), Template::parse("{{ b | text }}").expect("a template")),
            ("broken".to_owned(), Template::parse("{{ fail('no') }}").expect("a template")),
        ];
        let names = Arc::new(Names { lets, ..Names::default() });
        let values = [
            json!(null),
            json!(true),
            json!(false),
            json!(0),
            json!(-0.0),
            json!(1.0),
            json!(u64::MAX),
            json!(""),
            json!("\"\\\u{1}é"),
            json!([]),
            json!([null, {}]),
            json!({}),
            json!({"c": {"d": "\"", "e": null}}),
            json!({"c": 0}),
        ];
        let missing_too = || values.iter().map(Some).chain([None]);
        for (a, b) in missing_too().flat_map(|a| missing_too().map(move |b| (a, b))) {
            let fields =
                [("a", a), ("b", b)].into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.clone())));
            let message = Message { source: "web".into(), value: Arc::new(fields.collect()) };
            let scope = Scope::event(&names, &message, jiff::Timestamp::UNIX_EPOCH);
            for expression in EXPRESSIONS {
                let (quick, engine) = (format!("{{{{ {expression} }}}}"), format!("{{{{ ({expression}) if true }}}}"));
                assert_eq!(told(&quick, &scope), told(&engine, &scope), "{expression} of {}", message.value);
            }
        }
    }
}
