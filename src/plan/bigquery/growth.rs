//! Which columns a table lacks, and of which type they become.
//!
//! A column that the file declares has its type. Any other becomes text, a number or a boolean by the first value that
//! comes: text takes whatever comes later, and every number of JSON is a double. Objects and lists are text, as
//! [`row`](super::row) writes them. A file that wants more says so in its `schema`.

use std::borrow::Cow;

use serde_json::{Map, Value as Json, json};

use super::column::{Column, Scalar, Type, find};

/// Characters of a column's name: 300 (<https://cloud.google.com/bigquery/docs/schemas#column_names>, not confirmed).
const NAME_CHARS_MAX: usize = 300;

/// Characters that no name of a column may hold (same page, "flexible column names"; the list is not confirmed).
const NOT_IN_NAMES: [char; 19] =
    ['!', '"', '$', '(', ')', '*', ',', '.', '/', ';', '?', '@', '[', '\\', ']', '^', '`', '{', '}'];

/// How no name of a column may begin (same page, not confirmed).
const PREFIXES_OF_GOOGLE: [&str; 6] =
    ["_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier"];

/// The fields that a table has, with what it lacks added.
#[derive(Clone, Debug, PartialEq)]
pub struct Grown {
    /// Its fields, those that were there as they were.
    pub fields: Vec<Json>,
    /// Whether any was added.
    pub is_new: bool,
}

/// Adds to the fields of a table what is declared and what the rows have besides.
#[must_use]
pub fn grow(live: &[Json], declared: &[Column], rows: &[&Map<String, Json>]) -> Grown {
    let mut grown = Grown { fields: live.to_vec(), is_new: false };
    for column in declared {
        grown.declare(column);
    }
    for (name, value) in rows.iter().flat_map(|row| row.iter()) {
        grown.take_up(name, value, find(declared, name));
    }
    grown
}

/// The names of a table's columns in lowercase, those within columns as paths.
#[must_use]
pub fn paths(fields: &[Json]) -> Vec<String> {
    let mut all = Vec::new();
    for field in fields {
        let name = name_of(field).to_lowercase();
        all.extend(paths(fields_of(field)).into_iter().map(|inner| format!("{name}.{inner}")));
        all.push(name);
    }
    all
}

// === impl Grown ===

impl Grown {
    fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| name_of(field).eq_ignore_ascii_case(name))
    }

    /// Adds a declared column. A table that exists takes none that must have a value.
    fn declare(&mut self, column: &Column) {
        match (self.position(&column.name), &column.kind) {
            (None, _) => self.add(with_mode_of_new(column.to_json())),
            (Some(at), Type::Struct(inner)) => self.grow_field(at, inner, &[]),
            (Some(_), Type::Scalar(..)) => {}
        }
    }

    /// Adds the column of a value that nobody declared.
    fn take_up(&mut self, name: &str, value: &Json, declared: Option<&Column>) {
        match (self.position(name), value) {
            (_, Json::Null) => {}
            (None, _) if declared.is_none() && is_name(name) => self.add(field_for(name, value)),
            (Some(at), Json::Object(inner)) => self.grow_field(at, &[], &[inner]),
            (None | Some(_), _) => {}
        }
    }

    fn grow_field(&mut self, at: usize, declared: &[Column], rows: &[&Map<String, Json>]) {
        let field = &mut self.fields[at];
        if !matches!(field["type"].as_str(), Some("RECORD" | "STRUCT")) {
            return;
        }
        let inner = grow(fields_of(field), declared, rows);
        if inner.is_new {
            field["fields"] = inner.fields.into();
            self.is_new = true;
        }
    }

    fn add(&mut self, field: Json) {
        self.fields.push(field);
        self.is_new = true;
    }
}

fn name_of(field: &Json) -> &str {
    field["name"].as_str().unwrap_or_default()
}

fn fields_of(field: &Json) -> &[Json] {
    field["fields"].as_array().map_or(&[], Vec::as_slice)
}

/// A new column of a table that exists may be missing: its rows so far have no value for it.
fn with_mode_of_new(mut field: Json) -> Json {
    if field["mode"] == "REQUIRED" {
        field["mode"] = "NULLABLE".into();
    }
    field
}

fn field_for(name: &str, value: &Json) -> Json {
    let scalar = match value {
        Json::Bool(_) => Scalar::Bool,
        Json::Number(_) => Scalar::Float64,
        Json::Null | Json::String(_) | Json::Array(_) | Json::Object(_) => Scalar::String,
    };
    json!(Column::new(name, scalar).to_json())
}

/// What a column is called that gets its name from an event: the event's name, with `_` for what no column may have in it.
#[must_use]
pub fn column_name(name: &str) -> Cow<'_, str> {
    if is_name(name) {
        return name.into();
    }
    let is_wrong = |c: char| NOT_IN_NAMES.contains(&c) || c.is_control();
    let mut mended: String = name.chars().map(|c| if is_wrong(c) { '_' } else { c }).collect();
    if !is_name(&mended) {
        mended.insert(0, 'c');
    }
    mended.chars().take(NAME_CHARS_MAX).collect::<String>().into()
}

/// Whether a column may be called so. One that may not would keep all others from being added.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let lower = name.to_lowercase();
    !name.is_empty()
        && !PREFIXES_OF_GOOGLE.iter().any(|prefix| lower.starts_with(prefix))
        && name.chars().count() <= NAME_CHARS_MAX
        && !name.contains(NOT_IN_NAMES)
        && !name.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::bigquery::types;

    #[test]
    fn what_is_declared_or_comes_is_added_and_what_is_there_stays() {
        let live = [
            json!({"name": "id", "type": "STRING", "mode": "REQUIRED", "policyTags": {"names": ["p"]}}),
            json!({"name": "product", "type": "RECORD", "fields": [{"name": "sku", "type": "STRING"}]}),
        ];
        let (kind, mode) = types::parse("STRUCT<sku STRING, price NUMERIC(10,2)>").expect("a type");
        let declared = [
            Column { name: "product".to_owned(), kind, mode, description: None },
            Column::new("seen_at", Scalar::Timestamp),
        ];
        let row = json!({"ID": "1", "n": 1, "b": true, "t": "x", "gone": null, "a.b": 1, "product": {"sku": "s", "color": "red"}});
        let grown = grow(&live, &declared, &[row.as_object().expect("an object")]);
        assert!(grown.is_new);
        assert_eq!(grown.fields[0], live[0]);
        let expected = ["id", "product.sku", "product.price", "product.color", "product", "seen_at", "n", "b", "t"];
        assert_eq!(paths(&grown.fields), expected);
        assert_eq!(grown.fields[1]["fields"][1]["precision"], "10");
        assert_eq!((&grown.fields[3]["type"], &grown.fields[4]["type"]), (&json!("FLOAT"), &json!("BOOLEAN")));
        assert!(!grow(&grown.fields, &declared, &[row.as_object().expect("an object")]).is_new);
    }
}
