//! JSON inside the file: read from a string or from TOML, with the way back from any piece of it to its place; and written
//! as a string of TOML.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value as Json;
use serde_json::value::RawValue;
use toml::de::{DeTable, DeValue};

use super::codes::Code;
use super::offsets;
use super::table::Field;
use crate::plan::case::{Step, Written};

/// Columns of JSON that is written into a file.
const WRITTEN_WIDTH: usize = 118;

/// Reads a string that holds JSON, or a table or list of TOML. A mistake in it is reported at the very character.
pub(super) fn read(field: &Field<'_>) -> Option<Written> {
    let Some(text) = field.raw().as_str() else {
        return Some(Written { value: of_toml(field.raw()), span: field.span(), within: None });
    };
    match serde_json::from_str(text) {
        Ok(value) => Some(Written { value, span: field.span(), within: Some(Vec::new()) }),
        Err(error) => {
            let at = offset(text, error.line(), error.column());
            let message = error.to_string();
            let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
            let message = message.replace("expected ident", "expected `true`, `false` or `null`");
            let text = field.text()?;
            field.report(text.error_at(&(at..at + 1), Code::BadJson, format!("not JSON: {message}")));
            None
        }
    }
}

/// The byte that `serde_json` points at: lines count from 1, columns are the bytes read of the line.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    text.floor_char_boundary((start + column.saturating_sub(1)).min(text.len()))
}

/// A value of TOML as JSON; what JSON cannot say is text.
pub(super) fn of_toml(value: &DeValue<'_>) -> Json {
    match value {
        DeValue::String(text) => Json::from(text.as_ref()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| integer.to_string().into(), Json::from),
        DeValue::Float(float) => float.as_str().parse::<f64>().map_or(Json::Null, Json::from),
        DeValue::Boolean(boolean) => Json::from(*boolean),
        DeValue::Datetime(date) => Json::from(date.to_string()),
        DeValue::Array(list) => list.iter().map(|element| of_toml(element.get_ref())).collect(),
        DeValue::Table(table) => {
            table.iter().map(|(key, value)| (key.get_ref().to_string(), of_toml(value.get_ref()))).collect()
        }
    }
}

/// Where a piece of JSON is written in the file, or the last thing on the way to it that is there.
#[must_use]
pub fn place_of(file: &str, written: &Written) -> Range<usize> {
    let Written { span, within: Some(way), .. } = written else { return written.span.clone() };
    // The literal is read again: only mistakes and failures ask.
    let line = format!("x = {}", file.get(span.clone()).unwrap_or_default());
    let decoded = DeTable::parse(&line).ok();
    let decoded = decoded.as_ref().and_then(|table| table.get_ref().get("x")?.get_ref().as_str());
    decoded.map_or_else(|| span.clone(), |decoded| offsets::in_file(file, span, &locate(decoded, way)))
}

/// The bytes of JSON text that a way leads to.
fn locate(text: &str, way: &[Step]) -> Range<usize> {
    let mut here = text.trim();
    for step in way {
        let next = match step {
            Step::Field(name) => serde_json::from_str::<BTreeMap<String, &RawValue>>(here)
                .ok()
                .and_then(|fields| fields.get(name).copied().map(RawValue::get)),
            Step::Element(index) => serde_json::from_str::<Vec<&RawValue>>(here)
                .ok()
                .and_then(|elements| elements.get(*index).copied().map(RawValue::get)),
        };
        match next {
            Some(next) => here = next,
            None => break,
        }
    }
    let start = here.as_ptr().addr() - text.as_ptr().addr();
    start..start + here.len()
}

// === writing ===

/// JSON as a string of TOML.
#[must_use]
pub fn literal(json: &Json) -> String {
    let text = pretty(json, WRITTEN_WIDTH);
    let is_plain = !text.contains("'''") && !text.contains(|c: char| c.is_control() && c != '\n');
    match (is_plain, text.contains('\n')) {
        (true, false) if !text.contains('\'') => format!("'{text}'"),
        (true, _) => format!("'''{text}'''"),
        // What JSON escapes, TOML does as well, but for DEL.
        (false, _) => Json::from(text).to_string().replace('\u{7f}', "\\u007f"),
    }
}

/// JSON that breaks lines only where they would be longer than so many characters.
#[must_use]
pub fn pretty(json: &Json, width: usize) -> String {
    let mut out = String::new();
    write_pretty(json, width, 0, 0, &mut out);
    out
}

fn write_pretty(json: &Json, width: usize, indent: usize, taken: usize, out: &mut String) {
    let compact = json.to_string();
    let is_empty = matches!(compact.as_str(), "[]" | "{}");
    if is_empty || compact.chars().count() + indent + taken <= width {
        return out.push_str(&compact);
    }
    let (open, members, close): (char, Vec<(String, &Json)>, char) = match json {
        Json::Array(elements) => ('[', elements.iter().map(|element| (String::new(), element)).collect(), ']'),
        Json::Object(fields) => {
            ('{', fields.iter().map(|(name, value)| (format!("{}: ", Json::from(name.as_str())), value)).collect(), '}')
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => return out.push_str(&compact),
    };
    out.push(open);
    for (index, (name, value)) in members.iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        out.push_str(&" ".repeat(indent + 2));
        out.push_str(name);
        // A comma may follow.
        write_pretty(value, width, indent + 2, name.chars().count() + 1, out);
    }
    out.push('\n');
    out.push_str(&" ".repeat(indent));
    out.push(close);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Step, literal, locate, offset, pretty};

    #[test]
    fn a_way_leads_to_the_bytes_of_a_piece() {
        let text = r#" [ {"a": {"b c": [1, 22 ]}}, 3] "#;
        let way = [Step::Element(0), Step::Field("a".into()), Step::Field("b c".into()), Step::Element(1)];
        assert_eq!(&text[locate(text, &way)], "22");
        assert_eq!(&text[locate(text, &way[..2])], r#"{"b c": [1, 22 ]}"#);
        assert_eq!(&text[locate(text, &[Step::Element(7)])], text.trim(), "the last thing that is there");
    }

    #[test]
    fn an_error_is_found_by_line_and_column() {
        let text = "{\n  \"é\": x\n}";
        let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
        assert_eq!(&text[offset(text, error.line(), error.column())..][..1], "x");
    }

    #[test]
    fn json_breaks_only_where_it_must() {
        let json = json!([{"method": "PUT", "body": {"a": 1, "b": [1, 2]}}, {}]);
        assert_eq!(pretty(&json, 100), r#"[{"method":"PUT","body":{"a":1,"b":[1,2]}},{}]"#);
        assert_eq!(
            pretty(&json, 30),
            "[\n  {\n    \"method\": \"PUT\",\n    \"body\": {\"a\":1,\"b\":[1,2]}\n  },\n  {}\n]"
        );
    }

    #[test]
    fn json_becomes_a_string_that_toml_reads_back() {
        for json in [
            json!([]),
            json!(["it's"]),
            json!(["'''"]),
            json!(["\u{7f}\u{1}\"\\ é"]),
            json!(["x".repeat(200), {"a": 1}]),
        ] {
            let text = format!("x = {}", literal(&json));
            let table = toml::from_str::<toml::Table>(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let read: serde_json::Value =
                serde_json::from_str(table["x"].as_str().unwrap_or_default()).unwrap_or_default();
            assert_eq!(read, json, "{text}");
        }
    }
}
