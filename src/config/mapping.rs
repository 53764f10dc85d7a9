//! Bodies and envelopes: a table, a list or a string of the file becomes a [`Mapping`].

use toml::de::DeValue;

use super::codes::Code;
use super::expressions::{Expressions, has_braces};
use super::sees::Sees;
use super::table::Field;
use crate::expr::Value;
use crate::expr::template::Template;
use crate::plan::{Each, Mapping};

/// Compiles a body. Every mistake in it is reported; `None` when there is one.
pub(super) fn mapping(expressions: &Expressions<'_>, field: &Field<'_>, sees: Sees) -> Option<Mapping> {
    match field.raw() {
        DeValue::String(text) if has_braces(text) => {
            Some(Mapping::Template(expressions.template(&field.text()?, sees)?))
        }
        DeValue::String(text) => Some(constant(text.as_ref())),
        DeValue::Integer(_) | DeValue::Float(_) => number(expressions, field),
        DeValue::Boolean(boolean) => Some(Mapping::Constant(boolean.to_string())),
        DeValue::Datetime(date) => Some(constant(&date.to_string())),
        DeValue::Array(_) => list(expressions, field, sees),
        DeValue::Table(table) if table.contains_key("each") && table.contains_key("item") => {
            each_item(expressions, field, sees)
        }
        DeValue::Table(_) => object(expressions, field, sees),
    }
}

/// Compiles an `each`: a `JSONPath` or an expression.
pub(super) fn each(expressions: &Expressions<'_>, field: &Field<'_>, sees: Sees) -> Option<Each> {
    let text = field.text_as("a JSONPath such as \"$.properties.products[*]\" or \"{{ an expression }}\"")?;
    if !has_braces(text.value) {
        return expressions.selection(&text).map(Each::Path);
    }
    let compiled = expressions.compile(&text, sees)?;
    if !compiled.is_value {
        let error = text.error(Code::BadValue, "`each` must be one `{{ expression }}` that gives a list");
        expressions.findings.add(error);
        return None;
    }
    Some(Each::Expression(compiled.template))
}

fn each_item(expressions: &Expressions<'_>, field: &Field<'_>, sees: Sees) -> Option<Mapping> {
    let table = field.table("a list made with `each`")?;
    let over = table.get("each").and_then(|over| each(expressions, &over, sees));
    let inner = match sees {
        Sees::Event => Sees::Item,
        Sees::Batch => Sees::BatchItem,
        Sees::File | Sees::Item | Sees::BatchItem | Sees::Reply | Sees::ReplyItem | Sees::Request => sees,
    };
    let item = table.get("item").and_then(|item| mapping(expressions, &item, inner));
    table.finish();
    Some(Mapping::Each { over: Box::new(over?), item: Box::new(item?) })
}

/// Text without braces. What `omit` might leave out stays visible to it; anything else is JSON once and for all.
fn constant(text: &str) -> Mapping {
    if text.is_empty() {
        Mapping::Template(Template::constant(Value::from("")))
    } else {
        Mapping::Constant(quoted(text))
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn number(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<Mapping> {
    let number = match field.raw() {
        DeValue::Integer(integer) => {
            let whole = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
            let fits = |whole: &i128| i64::try_from(*whole).is_ok() || u64::try_from(*whole).is_ok();
            whole.filter(fits).map(|whole| whole.to_string())
        }
        DeValue::Float(float) => {
            float.as_str().parse().ok().and_then(serde_json::Number::from_f64).map(|number| number.to_string())
        }
        DeValue::String(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    };
    if number.is_none() {
        expressions.findings.add(field.error(Code::OutOfRange, "this number cannot be written as JSON"));
    }
    number.map(Mapping::Constant)
}

fn list(expressions: &Expressions<'_>, field: &Field<'_>, sees: Sees) -> Option<Mapping> {
    let elements: Vec<_> = field.one_or_many().iter().map(|element| mapping(expressions, element, sees)).collect();
    Some(Mapping::List(elements.into_iter().collect::<Option<Vec<_>>>()?))
}

fn object(expressions: &Expressions<'_>, field: &Field<'_>, sees: Sees) -> Option<Mapping> {
    let table = field.table("a body")?;
    let (mut spread, mut fields, mut is_whole) = (Vec::new(), Vec::new(), true);
    for entry in table.fields() {
        if entry.name == "..." {
            for source in entry.one_or_many() {
                let template = source.text_as("an expression that gives an object").filter(|text| {
                    let is_template = has_braces(text.value);
                    if !is_template {
                        let error =
                            text.error(Code::BadValue, "`...` spreads an object: write \"{{ an expression }}\"");
                        expressions.findings.add(error);
                    }
                    is_template
                });
                let template = template.and_then(|text| expressions.template(&text, sees));
                is_whole &= template.is_some();
                spread.extend(template);
            }
            continue;
        }
        let value = mapping(expressions, &entry, sees);
        is_whole &= value.is_some();
        fields.extend(value.map(|value| (entry.name.to_owned(), value)));
    }
    is_whole.then(|| simplified(spread, fields))
}

/// A table of constants is a constant, unless `omit` might leave it out.
fn simplified(spread: Vec<Template>, fields: Vec<(String, Mapping)>) -> Mapping {
    let texts: Option<Vec<String>> = fields
        .iter()
        .map(|(name, value)| match value {
            Mapping::Constant(json) => Some(format!("{}:{json}", quoted(name))),
            Mapping::Template(_) | Mapping::Object { .. } | Mapping::List(_) | Mapping::Each { .. } => None,
        })
        .collect();
    match texts {
        Some(texts) if spread.is_empty() && !texts.is_empty() => Mapping::Constant(format!("{{{}}}", texts.join(","))),
        Some(_) | None => Mapping::Object { spread, fields },
    }
}
