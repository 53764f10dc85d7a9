//! `[plan.NAME]`: tracking plans, and the schemas they name.

use std::sync::Arc;

use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

use super::codes::Code;
use super::destination::{Surroundings, add_uses};
use super::diagnostic::Diagnostic;
use super::expressions::{Expressions, Uses};
use super::fingerprint::Fingerprint;
use super::json::of_toml;
use super::rule;
use super::sees::Sees;
use super::table::{Field, Table};
use crate::event::SourceName;
use crate::expr::filter::Selection;
use crate::plan::TrackingPlan;
use crate::plan::tracking::{Check, OnViolation, Schema, SchemaMistake, SchemaOf, steps};

/// The tracking plans of a file.
#[derive(Default)]
pub(super) struct Reading {
    /// In file order.
    pub plans: Vec<Arc<TrackingPlan>>,
    /// What they use of what is shared.
    pub uses: Vec<Uses>,
}

/// Reads `[plan]`. Every mistake is reported; a plan with one is left out.
pub(super) fn read(around: &Surroundings<'_>, top: &Table<'_>, sources: &[SourceName]) -> Reading {
    let expressions = around.expressions;
    let mut reading = Reading::default();
    let Some(table) = top.get("plan").and_then(|field| field.table("[plan]")) else { return reading };
    for field in table.fields() {
        expressions.begin(false);
        let Some(table) = field.table("a tracking plan") else { continue };
        let errors_before = expressions.findings.error_count();
        let plan = plan(around, field.name, &table, sources);
        table.finish();
        if expressions.findings.error_count() == errors_before {
            reading.plans.extend(plan.map(Arc::new));
        }
        reading.uses.push(expressions.uses());
    }
    reading
}

impl Reading {
    /// The plans that speak when an event is about to be delivered.
    pub(super) fn deadly(&self) -> Vec<Arc<TrackingPlan>> {
        self.plans.iter().filter(|plan| plan.on_violation == OnViolation::Dead).cloned().collect()
    }
}

fn plan(around: &Surroundings<'_>, name: &str, table: &Table<'_>, sources: &[SourceName]) -> Option<TrackingPlan> {
    let expressions = around.expressions;
    let shared = Table::new(expressions.findings, around.lets, "[let]", 0..0);
    let fields: Vec<Field<'_>> = shared.fields().collect();
    let lets_of_file = expressions.define(&fields);
    let on = table.get("on").map(|field| rule::on(expressions.findings, &field)).unwrap_or_default();
    let when = rule::when(expressions, table, Sees::Event);
    let of_sources = table.get("sources").map(|field| known_sources(expressions, &field, sources));
    let require = table.get("require").map(|field| paths(expressions, &field)).unwrap_or_default();
    let check = table.get("check").map(|field| checks(expressions, &field)).unwrap_or_default();
    let of = table.get("schema_of").map(|field| field.word(&SchemaOf::ALL));
    let schema = table.get("schema");
    let on_violation = table.get("on_violation").map(|field| field.word(&OnViolation::ALL));
    let of = of.unwrap_or(Some(SchemaOf::default()))?;
    let is_of_nothing = schema.is_none() && table.entries().contains_key("schema_of");
    if is_of_nothing {
        table.not_here(&["schema_of"], "says which part of an event `schema` describes, and there is no `schema`");
    } else if schema.is_none() && require.is_empty() && check.is_empty() {
        let error = Diagnostic::error(Code::MissingKey, table.span(), "a tracking plan needs something to look for");
        expressions.findings.add(error.help("add `require`, `check` or `schema`"));
    }
    // Before the schema is read: what a file for its sake holds is no secret of the expressions.
    let names = Arc::new(expressions.names(lets_of_file));
    let schema = schema.and_then(|field| schema_of(expressions, &field, of));
    Some(TrackingPlan {
        name: name.to_owned(),
        fingerprint: fingerprint(around, table),
        on: on.into_iter().map(|(trigger, _)| trigger).collect(),
        when,
        sources: of_sources,
        require,
        check,
        schema,
        on_violation: on_violation.unwrap_or(Some(OnViolation::default()))?,
        names,
    })
}

fn known_sources(expressions: &Expressions<'_>, field: &Field<'_>, known: &[SourceName]) -> Vec<SourceName> {
    let fields = field.list().unwrap_or_default();
    if fields.is_empty() {
        let error = field.error(Code::BadValue, "`sources` is empty: the plan would be about nobody's events");
        expressions.findings.add(error.help("leave `sources` out for the events of all"));
    }
    let read = |field: &Field<'_>| {
        let text = field.text_as("the name of a source")?;
        if !known.iter().any(|name| name.as_str() == text.value) {
            let message = format!("there is no source `{}`", text.value);
            let error = text.wrong_word(message, known.iter().map(SourceName::as_str));
            expressions.findings.add(Diagnostic { code: Code::UnknownSource, ..error });
        }
        Some(SourceName::from(text.value))
    };
    fields.iter().filter_map(read).collect()
}

fn paths(expressions: &Expressions<'_>, field: &Field<'_>) -> Vec<Selection> {
    let read = |field: &Field<'_>| expressions.selection(&field.text_as("a JSONPath such as \"$.properties.total\"")?);
    field.one_or_many().iter().filter_map(read).collect()
}

fn checks(expressions: &Expressions<'_>, field: &Field<'_>) -> Vec<Check> {
    let read = |field: &Field<'_>| {
        let condition = expressions.condition(field, Sees::Event)?;
        Some(Check { written: field.raw().as_str().unwrap_or_default().to_owned(), condition })
    };
    field.one_or_many().iter().filter_map(read).collect()
}

// --- schemas

/// A schema in a file of its own, or in this one.
fn schema_of(expressions: &Expressions<'_>, field: &Field<'_>, of: SchemaOf) -> Option<Schema> {
    match field.raw() {
        DeValue::Table(entries) => {
            let table = field.table("a JSON Schema")?;
            let schema = table.fields().map(|field| (field.name.to_owned(), of_toml(field.raw()))).collect();
            let compiled = Schema::compile(&Json::Object(schema), of);
            compiled.map_err(|mistake| inline_mistake(expressions, field, entries, &mistake)).ok()
        }
        DeValue::String(_) => {
            let path = expressions.settled_text(field)?;
            let content = expressions.file_named(&path, &field.text()?)?;
            let compiled = parse(&path, &content).and_then(|schema| {
                Schema::compile(&schema, of).map_err(|SchemaMistake { pointer, message }| match pointer.as_str() {
                    "" => format!("{path} is no JSON Schema: {message}"),
                    pointer => format!("{path} is no JSON Schema: at `{pointer}`: {message}"),
                })
            });
            compiled.map_err(|message| expressions.findings.add(field.error(Code::BadSchema, message))).ok()
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) => {
            field.wrong_type("the path of a JSON Schema, or a table that is one");
            None
        }
    }
}

fn parse(path: &str, content: &str) -> Result<Json, String> {
    // The error's own text has the place and nothing of the content.
    serde_json::from_str(content).map_err(|error| format!("{path} is not JSON: {error}"))
}

/// A mistake in a schema that stands in this file has its place there.
fn inline_mistake(expressions: &Expressions<'_>, field: &Field<'_>, table: &DeTable<'_>, mistake: &SchemaMistake) {
    let mut span = field.key_span();
    let (mut table, mut list) = (Some(table), None::<&[toml::Spanned<DeValue<'_>>]>);
    for step in steps(&mistake.pointer) {
        let found = match (table, list) {
            (Some(table), _) => table.get(step.as_str()),
            (None, Some(list)) => step.parse::<usize>().ok().and_then(|index| list.get(index)),
            (None, None) => None,
        };
        let Some(found) = found else { break };
        span = found.span();
        table = found.get_ref().as_table();
        list = found.get_ref().as_array().map(|list| &list[..]);
    }
    let message = format!("this is no JSON Schema: {}", mistake.message);
    expressions.findings.add(Diagnostic::error(Code::BadSchema, span, message));
}

fn fingerprint(around: &Surroundings<'_>, table: &Table<'_>) -> u64 {
    let mut hash = Fingerprint::new();
    hash.table(table.entries(), &[]);
    add_uses(&mut hash, around, &around.expressions.uses());
    hash.finish()
}
