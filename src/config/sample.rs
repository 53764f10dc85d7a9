//! `sample`: a share, or a share and what is drawn for.

use toml::de::DeValue;

use super::codes::Code;
use super::expressions::Expressions;
use super::sees::Sees;
use super::table::Field;
use crate::expr::template::Template;
use crate::plan::Sample;

/// Reads `0.1` or `{ rate = 0.1, by = "{{ groupId }}" }`.
pub(super) fn read(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<Sample> {
    let DeValue::Table(_) = field.raw() else { return Some(Sample::new(rate(expressions, field)?, None)) };
    let table = field.table("`sample`")?;
    let rate = table.require("rate", "the share to keep, such as `rate = 0.1`").map(|field| rate(expressions, &field));
    let by = table.get("by").map(|field| by(expressions, &field));
    table.finish();
    Some(match by {
        Some(by) => Sample::new(rate??, Some(by?)),
        None => Sample::new(rate??, None),
    })
}

fn rate(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<f64> {
    let rate = match field.raw() {
        DeValue::Integer(_) | DeValue::Float(_) => field.positive()?,
        DeValue::String(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            field.wrong_type("a number above 0, up to 1");
            return None;
        }
    };
    if rate > 1.0 {
        let error = field.error(Code::OutOfRange, format!("`{}` must be a share: above 0, up to 1", field.name));
        expressions.findings.add(error.help("a tenth of the users is `0.1`"));
        return None;
    }
    Some(rate)
}

/// What is drawn for. Text that is the same for every event would keep all of them or none.
fn by(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<Template> {
    let text = field.text_as("a template such as \"{{ groupId }}\"")?;
    let compiled = expressions.compile(&text, Sees::Event)?;
    if compiled.is_settled && !expressions.reads_event(&compiled) {
        let error = text.error(Code::BadValue, "`by` reads nothing of the event: all events would be kept, or none");
        expressions.findings.add(error.help("for a share of the groups write \"{{ groupId }}\""));
        return None;
    }
    Some(compiled.template)
}
