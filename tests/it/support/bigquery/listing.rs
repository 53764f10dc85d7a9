//! `tabledata.list`: rows in the form in which the service gives them out, every scalar as text.
//! <https://docs.cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/list>, read 2026-11-26.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::schema::{Field, Kind, Mode};
use super::tables::Table;

impl Table {
    pub(super) fn list(&self, query: &[(String, String)]) -> Value {
        let number =
            |name: &str| query.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.parse::<usize>().ok());
        let flag = |name: &str| query.iter().any(|(key, value)| key == name && value.eq_ignore_ascii_case("true"));
        let start = number("pageToken").or_else(|| number("startIndex")).unwrap_or(0).min(self.rows.len());
        let end = start.saturating_add(number("maxResults").unwrap_or(usize::MAX)).min(self.rows.len());
        let micros = flag("formatOptions.useInt64Timestamp");
        let selected = query.iter().find(|(key, _)| key == "selectedFields").map(|(_, names)| names.split(','));
        let is_selected =
            |column: &&Field| selected.clone().is_none_or(|mut names| names.any(|name| name == column.name));
        let columns: Vec<Field> = self.columns.iter().filter(is_selected).cloned().collect();
        let rows = self.rows[start..end].iter().map(|row| cells(&columns, &self.completed(row), micros));
        let mut page = json!({
            "kind": "bigquery#tableDataList",
            "etag": self.resource()["etag"],
            "totalRows": self.rows.len().to_string(),
            "rows": rows.collect::<Vec<_>>(),
        });
        if end < self.rows.len() {
            page["pageToken"] = end.to_string().into();
        }
        page
    }
}

/// `{"f": [{"v": …}]}`.
fn cells(fields: &[Field], record: &Value, micros: bool) -> Value {
    let cells = fields.iter().map(|field| json!({ "v": cell(field, &record[&field.name], micros) }));
    json!({ "f": cells.collect::<Vec<_>>() })
}

fn cell(field: &Field, value: &Value, micros: bool) -> Value {
    match (field.mode, value) {
        (Mode::Repeated, Value::Array(items)) => {
            items.iter().map(|item| json!({ "v": single(field, item, micros) })).collect()
        }
        (_, value) => single(field, value, micros),
    }
}

fn single(field: &Field, value: &Value, micros: bool) -> Value {
    match (field.kind, value) {
        (_, Value::Null) => Value::Null,
        (Kind::Record, record) => cells(&field.fields, record, micros),
        (Kind::Timestamp, Value::String(text)) => epoch(text, micros).into(),
        (_, Value::String(text)) => text.as_str().into(),
        (_, other) => other.to_string().into(),
    }
}

/// Microseconds, or seconds with a fraction.
fn epoch(text: &str, micros: bool) -> String {
    let since = text.parse::<Timestamp>().unwrap().as_microsecond();
    if micros {
        since.to_string()
    } else {
        format!("{}.{:06}", since.div_euclid(1_000_000), since.rem_euclid(1_000_000))
    }
}
