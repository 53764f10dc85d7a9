//! Writes a row as its columns want it.
//!
//! A row of `insertAll` is a protobuf `Struct`, in which every number is a double
//! (<https://protobuf.dev/reference/protobuf/google.protobuf/#value>, read 2026-11-26): what a double cannot hold exactly
//! travels as text, which BigQuery reads as the column's type. A JSON column is given JSON as text
//! (<https://cloud.google.com/bigquery/docs/json-data#use_the_legacy_streaming_api>, read 2026-11-26).

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::column::{Column, Mode, Scalar, Type};
use super::growth::column_name;
use super::{Insert, InsertId, Shape};
use crate::attempt::ItemKey;
use crate::event::MessageId;
use crate::expr::{Escape, EvalError, Scope, excerpt};
use crate::plan::auth::hex;
use sha2::{Digest as _, Sha256};

/// Characters of an insert id (<https://cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/insertAll>, read
/// 2026-11-26): a longer one is hashed.
const INSERT_ID_CHARS_MAX: usize = 128;

/// Digits that a double always holds exactly: 2^53 has sixteen.
const EXACT_DIGITS: usize = 15;

/// The members of an object, in order, as they are written.
struct Members<'r>(Vec<(Cow<'r, str>, &'r RawValue)>);

// === impl Insert ===

impl Insert {
    /// Appends what stands before a row: `{"insertId": …, "json":`. What follows is a `}`.
    ///
    /// # Errors
    /// When its id fails on this event.
    pub(in crate::plan) fn open_row(
        &self,
        key: ItemKey,
        rule: usize,
        message_id: &MessageId,
        scope: &Scope,
        out: &mut Vec<u8>,
    ) -> Result<(), EvalError> {
        out.push(b'{');
        if let Some(id) = self.id.text(key, rule, message_id, scope)? {
            out.extend_from_slice(b"\"insertId\":");
            write_text(&id, out);
            out.push(b',');
        }
        out.extend_from_slice(b"\"json\":");
        Ok(())
    }
}

// === impl InsertId ===

impl InsertId {
    /// The id of a row; `None`: it has none. Two rows of one event never share the usual one: BigQuery would keep only
    /// the first.
    fn text<'m>(
        &self,
        key: ItemKey,
        rule: usize,
        message_id: &'m MessageId,
        scope: &Scope,
    ) -> Result<Option<Cow<'m, str>>, EvalError> {
        let id: Cow<'m, str> = match self {
            Self::Absent => return Ok(None),
            Self::MessageId => match (rule, key.index) {
                (0, 0) => message_id.as_str().into(),
                (rule, index) => format!("{message_id}~{rule}.{index}").into(),
            },
            Self::Template(template) => {
                let mut id = String::new();
                if !template.write_text(scope, Escape::Plain, &mut id)? || id.is_empty() {
                    return Ok(None);
                }
                id.into()
            }
        };
        Ok(Some(if id.chars().nth(INSERT_ID_CHARS_MAX).is_some() { hex(&Sha256::digest(&*id)).into() } else { id }))
    }
}

// === impl Shape ===

impl Shape {
    /// Appends a row, each value as its column wants it.
    ///
    /// # Errors
    /// When it is no object.
    pub fn write(&self, row: &[u8], out: &mut Vec<u8>) -> Result<(), EvalError> {
        if row.first() != Some(&b'{') {
            return Err(EvalError { message: "a row must be an object".to_owned(), range: None });
        }
        if self.columns.is_empty() && !self.grows && !has_long_number(row) {
            out.extend_from_slice(row);
            return Ok(());
        }
        let row = std::str::from_utf8(row).map_err(|_| unreadable())?;
        self.object(&self.columns, row, out)
    }

    /// Makes of a member's value, which stands at the end of `out` from `start`, what its column wants; `false`: it is to
    /// be left out. For a table that does not grow: in one that does, a name may have to be mended as well.
    ///
    /// # Errors
    /// When the value is no JSON.
    pub(in crate::plan) fn fit(&self, name: &str, start: usize, out: &mut Vec<u8>) -> Result<bool, EvalError> {
        let column = super::column::find(&self.columns, name);
        let json = &out[start..];
        let is_fine = match (json.first(), column) {
            (Some(b'"'), Some(column)) => column.kind.scalar() != Some(Scalar::Json),
            (Some(b'{' | b'-' | b'0'..=b'9'), None) => !has_long_number(json),
            (_, None) => true,
            (_, Some(_)) => false,
        };
        if is_fine {
            return Ok(true);
        }
        if is_missing_list(column, json) {
            return Ok(false);
        }
        let json = String::from_utf8(out.split_off(start)).map_err(|_| unreadable())?;
        self.value(column, &json, out)?;
        Ok(true)
    }

    fn object(&self, columns: &[Column], json: &str, out: &mut Vec<u8>) -> Result<(), EvalError> {
        let Members(members) = serde_json::from_str(json).map_err(|_| unreadable())?;
        out.push(b'{');
        let mut is_first = true;
        let mut mended: Vec<String> = Vec::new();
        for (own, value) in &members {
            let column = super::column::find(columns, own);
            let name = if column.is_none() && self.grows { column_name(own) } else { Cow::Borrowed(&**own) };
            if name != *own {
                let is_taken = |other: &str| other.eq_ignore_ascii_case(&name);
                if members.iter().any(|(other, _)| is_taken(other)) || mended.iter().any(|other| is_taken(other)) {
                    return Err(EvalError {
                        message: format!("two columns would be called `{}`", excerpt(&name)),
                        range: None,
                    });
                }
                mended.push(name.clone().into_owned());
            }
            if is_missing_list(column, value.get().as_bytes()) {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            match own {
                // What was written without escapes needs none.
                Cow::Borrowed(own) if name == *own => quote(own, out),
                Cow::Borrowed(_) | Cow::Owned(_) => write_text(&name, out),
            }
            out.push(b':');
            self.value(column, value.get(), out)?;
        }
        out.push(b'}');
        Ok(())
    }

    fn value(&self, column: Option<&Column>, json: &str, out: &mut Vec<u8>) -> Result<(), EvalError> {
        match column {
            Some(column) if column.mode == Mode::Repeated && json.starts_with('[') => {
                let elements: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| unreadable())?;
                out.push(b'[');
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    self.single(&column.kind, element.get(), out)?;
                }
                out.push(b']');
                Ok(())
            }
            Some(column) => self.single(&column.kind, json, out),
            None => self.undeclared(json, out),
        }
    }

    fn single(&self, kind: &Type, json: &str, out: &mut Vec<u8>) -> Result<(), EvalError> {
        let first = json.as_bytes().first().copied().unwrap_or_default();
        let is_number = first == b'-' || first.is_ascii_digit();
        match kind {
            Type::Struct(columns) if first == b'{' => return self.object(columns, json, out),
            Type::Scalar(Scalar::Json, _) if json != "null" => write_text(json, out),
            Type::Scalar(Scalar::Int64, _) if is_number && is_whole(json) => quote(json, out),
            Type::Scalar(Scalar::Numeric | Scalar::BigNumeric, _) if is_number => quote(json, out),
            // As it is written, and not as a double would be.
            Type::Scalar(Scalar::String, _) if is_number || matches!(json, "true" | "false") => quote(json, out),
            Type::Scalar(..) | Type::Struct(_) => out.extend_from_slice(json.as_bytes()),
        }
        Ok(())
    }

    fn undeclared(&self, json: &str, out: &mut Vec<u8>) -> Result<(), EvalError> {
        match json.as_bytes().first() {
            // A column made for it is text.
            Some(b'{' | b'[') if self.grows => write_text(json, out),
            Some(b'{') => return self.object(&[], json, out),
            Some(b'-' | b'0'..=b'9') if is_whole(json) && json.len() > EXACT_DIGITS => quote(json, out),
            Some(_) | None => out.extend_from_slice(json.as_bytes()),
        }
        Ok(())
    }
}

/// A list that is missing is an empty one; NULL is refused.
fn is_missing_list(column: Option<&Column>, json: &[u8]) -> bool {
    json == b"null" && column.is_some_and(|column| column.mode == Mode::Repeated)
}

fn is_whole(number: &str) -> bool {
    number.bytes().skip(usize::from(number.starts_with('-'))).all(|byte| byte.is_ascii_digit())
}

/// Whether there may be a number that a double does not hold. Text with as many digits counts: it costs a closer look.
fn has_long_number(json: &[u8]) -> bool {
    let mut digits = 0;
    json.iter().any(|byte| {
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        digits > EXACT_DIGITS
    })
}

fn quote(json: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(json.as_bytes());
    out.push(b'"');
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("text is always JSON, and memory takes it");
}

fn unreadable() -> EvalError {
    EvalError { message: "the row cannot be read again as JSON".to_owned(), range: None }
}

// === impl Members ===

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(map.size_hint().unwrap_or(16));
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// A name, borrowed where it is written without escapes.
#[derive(serde::Deserialize)]
struct Name<'r>(#[serde(borrow)] Cow<'r, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::bigquery::types;

    fn shape(columns: &[(&str, &str)]) -> Shape {
        let columns = columns.iter().map(|(name, text)| {
            let (kind, mode) = types::parse(text).expect("a type");
            Column { name: (*name).to_owned(), kind, mode, description: None }
        });
        Shape { columns: columns.collect(), ..Shape::default() }
    }

    fn written(shape: &Shape, row: &str) -> String {
        let mut out = Vec::new();
        shape.write(row.as_bytes(), &mut out).expect("a row");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_json_column_is_given_json_as_text() {
        let shape = shape(&[("j", "JSON"), ("l", "ARRAY<JSON>")]);
        let row = r#"{"j":{"a":"é\n"},"l":[1,"x",null]}"#;
        assert_eq!(written(&shape, row), r#"{"j":"{\"a\":\"é\\n\"}","l":["1","\"x\"",null]}"#);
        assert_eq!(written(&shape, r#"{"j":null,"l":null}"#), r#"{"j":null}"#);
    }

    #[test]
    fn numbers_that_a_double_would_change_travel_as_text() {
        let shape =
            shape(&[("i", "INT64"), ("n", "NUMERIC"), ("s", "STRING"), ("f", "FLOAT64"), ("r", "STRUCT<i INT64>")]);
        let row = r#"{"i":9007199254740993,"n":0.1,"s":1.0,"f":0.1,"r":{"i":-1}}"#;
        let expected = r#"{"i":"9007199254740993","n":"0.1","s":"1.0","f":0.1,"r":{"i":"-1"}}"#;
        assert_eq!(written(&shape, row), expected);
    }

    #[test]
    fn a_value_is_the_same_whether_it_is_fitted_alone_or_with_its_row() {
        let values = [
            "null",
            "true",
            "0",
            "-1.50",
            "123456789012345678",
            "1e400",
            "\"\"",
            "\"a\\\"\\u0001é\"",
            "\"123456789012345678\"",
            "[]",
            "[1,\"x\",null,[{\"a\":true}]]",
            "{}",
            "{\"a\":\"}\",\"b\":[123456789012345678]}",
            "{\"A\":{\"a\":123456789012345678}}",
        ];
        let types = [
            "STRING",
            "BYTES",
            "INT64",
            "FLOAT64",
            "NUMERIC",
            "BOOL",
            "TIMESTAMP",
            "JSON",
            "ARRAY<JSON>",
            "ARRAY<STRING>",
            "ARRAY<INT64>",
            "STRUCT<a STRING, b JSON>",
            "ARRAY<STRUCT<a INT64>>",
        ];
        let shapes =
            types.map(|text| shape(&[("C", text)])).into_iter().chain([Shape::default(), shape(&[("x", "JSON")])]);
        for (shape, value) in shapes.flat_map(|shape| values.map(|value| (shape.clone(), value))) {
            let mut alone = format!("{{\"c\":{value}").into_bytes();
            let is_kept = shape.fit("c", 5, &mut alone).expect("it is JSON");
            alone.truncate(if is_kept { alone.len() } else { 1 });
            alone.push(b'}');
            assert_eq!(String::from_utf8_lossy(&alone), written(&shape, &format!("{{\"c\":{value}}}")), "{shape:?}");
        }
    }

    #[test]
    fn without_a_schema_only_long_numbers_are_touched() {
        let shape = Shape::default();
        assert_eq!(written(&shape, r#"{"a":[1],"b":{"c":1}}"#), r#"{"a":[1],"b":{"c":1}}"#);
        let row =
            r#"{"a":9007199254740993,"b":{"c":-12345678901234567},"t":"12345678901234567","f":1.2345678901234567}"#;
        let expected =
            r#"{"a":"9007199254740993","b":{"c":"-12345678901234567"},"t":"12345678901234567","f":1.2345678901234567}"#;
        assert_eq!(written(&shape, row), expected);
    }

    #[test]
    fn what_becomes_a_new_column_is_no_object() {
        let shape = Shape { grows: true, ..shape(&[("s", "STRUCT<a STRING>")]) };
        let row = r#"{"s":{"a":"1"},"tags":["x"],"o":{"p":1},"n":1}"#;
        assert_eq!(written(&shape, row), r#"{"s":{"a":"1"},"tags":"[\"x\"]","o":"{\"p\":1}","n":1}"#);
    }

    #[test]
    fn a_name_that_no_column_may_have_is_mended_unless_that_would_join_two() {
        let shape = Shape { grows: true, ..Shape::default() };
        let row = r#"{"$ref":"x","a.b":1,"_partitiontime":2,"":3,"ok":4}"#;
        assert_eq!(written(&shape, row), r#"{"_ref":"x","a_b":1,"c_partitiontime":2,"c":3,"ok":4}"#);
        for row in [r#"{"a.b":1,"A_b":2}"#, r#"{"a.b":1,"a$b":2}"#] {
            assert!(shape.write(row.as_bytes(), &mut Vec::new()).is_err(), "{row}");
        }
    }

    #[test]
    fn what_is_no_object_is_no_row() {
        assert!(Shape::default().write(b"[1]", &mut Vec::new()).is_err());
    }
}
