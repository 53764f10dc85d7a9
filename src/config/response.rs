//! `[[response]]`: what a destination's replies mean.

use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::expressions::{Expressions, has_braces};
use super::rule;
use super::sees::Sees;
use super::table::{Field, Table};
use crate::expr::Value;
use crate::expr::template::Template;
use crate::plan::{ResponseRule, Then};

/// Reads the response rules, in order.
pub(super) fn read(expressions: &Expressions<'_>, field: &Field<'_>) -> Vec<ResponseRule> {
    let tables: Vec<_> =
        field.list().unwrap_or_default().iter().filter_map(|field| field.table("a response rule")).collect();
    let rules: Vec<_> = tables.iter().filter_map(|table| read_one(expressions, table)).collect();
    warn_of_unreachable(expressions, &tables);
    rules
}

fn read_one(expressions: &Expressions<'_>, table: &Table<'_>) -> Option<ResponseRule> {
    let when = rule::when(expressions, table, Sees::Reply);
    let each = table.get("each").map(|field| {
        let text = field.text_as("a JSONPath such as \"$.body.errors[*]\"")?;
        if has_braces(text.value) {
            let error = text.error(Code::BadValue, "`each` of a response rule is a JSONPath over the reply");
            expressions.findings.add(error.help("for example \"$.body.errors[*]\""));
            return None;
        }
        expressions.selection(&text)
    });
    let sees = if each.is_some() { Sees::ReplyItem } else { Sees::Reply };
    let (index, rest) = (table.get("index"), table.get("rest"));
    for field in [&index, &rest].into_iter().flatten().filter(|_| each.is_none()) {
        let message = format!("`{}` needs `each`", field.name);
        expressions.findings.add(Diagnostic::error(Code::MisplacedKey, field.key_span(), message));
    }
    let index = index.map(|field| expressions.template(&field.text()?, sees));
    let rest = rest.map_or(Some(Then::Ok), |field| field.word(&Then::ALL));
    let then = table.require("then", "one of ok, retry, split, dead, drop, pause, or a template giving one");
    let then = then.and_then(|field| then_template(expressions, &field, sees));
    table.finish();
    Some(ResponseRule {
        when,
        each: match each {
            Some(each) => Some(each?),
            None => None,
        },
        index: match index {
            Some(index) => Some(index?),
            None => None,
        },
        then: then?,
        rest: rest?,
    })
}

fn then_template(expressions: &Expressions<'_>, field: &Field<'_>, sees: Sees) -> Option<Template> {
    let is_template = field.raw().as_str().is_some_and(has_braces);
    if !is_template {
        field.word(&Then::ALL)?;
        return field.raw().as_str().map(|word| Template::constant(Value::from(word)));
    }
    let text = field.text()?;
    let template = expressions.template(&text, sees)?;
    let constant = template.as_constant().map(|value| value.as_str().and_then(Then::from_word));
    if constant == Some(None) {
        let words = || Then::ALL.iter().map(|(word, _)| *word);
        let message = format!("`then` must give {}", super::spelling::alternatives(words()));
        expressions.findings.add(text.error(Code::BadValue, message));
        return None;
    }
    Some(template)
}

/// The first match wins: what follows a rule that always matches is never asked.
fn warn_of_unreachable(expressions: &Expressions<'_>, tables: &[Table<'_>]) {
    let always = |table: &Table<'_>| !table.entries().contains_key("when") && !table.entries().contains_key("each");
    let Some(last) = tables.iter().position(always) else { return };
    for table in &tables[last + 1..] {
        let message = "this response rule is never asked: one before it has neither `when` nor `each`";
        expressions.findings.add(Diagnostic::warning(Code::Unreachable, table.span(), message));
    }
}
