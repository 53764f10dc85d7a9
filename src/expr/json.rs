//! Values written as JSON text, the way `JSON.stringify` would: no HTML escaping, no spaces, an object's own order,
//! missing fields left out and missing elements `null`.
//!
//! A piece of an event is written straight from its tree. Only what a template made counts against the cap, because
//! only that can be a bomb.

use std::io;

use minijinja::Value;
use serde::Serialize as _;
use serde_json::Value as Json;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, Serializer};

use super::node::{ItemList, Node, Record, Shape};
use super::{EvalError, Omit};

/// How deep a value may nest: as deep as `serde_json` reads.
const DEPTH_MAX: usize = 128;

/// Writes one value.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    omit: Omit,
    end_max: usize,
    max_bytes: usize,
}

/// JSON as it stands inside of a string of JSON: its strings' quotes and escapes are escaped once more, and there is
/// nothing else to escape.
struct Quoted;

impl<'a> Writer<'a> {
    /// A writer that appends to `out` and makes at most `max_bytes`.
    pub(super) fn new(out: &'a mut Vec<u8>, omit: Omit, max_bytes: usize) -> Self {
        let end_max = out.len().saturating_add(max_bytes);
        Self { out, omit, end_max, max_bytes }
    }

    /// Writes a value as it is, whatever `omit` says of the value as a whole.
    pub(super) fn value(&mut self, value: &Value) -> Result<(), EvalError> {
        if let Some(node) = value.downcast_object_ref::<Node>() {
            self.json(node.json());
            return Ok(());
        }
        if let Some(items) = value.downcast_object_ref::<ItemList>() {
            self.items(items);
            return Ok(());
        }
        self.made(value, 0)
    }

    /// Writes a piece of an event, uncapped.
    pub(super) fn json(&mut self, json: &Json) {
        if self.omit == Omit::Nothing {
            serialize(self.out, json);
            return;
        }
        match json {
            Json::Array(list) => self.json_list(list),
            Json::Object(map) => self.json_object(map),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => serialize(self.out, json),
        }
    }

    fn json_list(&mut self, list: &[Json]) {
        self.out.push(b'[');
        for (index, json) in list.iter().enumerate() {
            self.comma(index == 0);
            self.json(json);
        }
        self.out.push(b']');
    }

    fn json_object(&mut self, map: &serde_json::Map<String, Json>) {
        self.out.push(b'{');
        let mut first = true;
        for (key, json) in map {
            let before = self.key(key, first);
            let at = self.out.len();
            self.json(json);
            first = self.keep_field(before, at, first);
        }
        self.out.push(b'}');
    }

    fn items(&mut self, items: &ItemList) {
        self.out.push(b'[');
        for (index, json) in items.json().iter().enumerate() {
            self.comma(index == 0);
            self.out.extend_from_slice(json);
        }
        self.out.push(b']');
    }

    fn made(&mut self, value: &Value, depth: usize) -> Result<(), EvalError> {
        if depth > DEPTH_MAX {
            return Err(EvalError::new(format!("output nests deeper than {DEPTH_MAX} levels")));
        }
        match Shape::of(value) {
            Shape::Missing | Shape::Null => self.out.extend_from_slice(b"null"),
            Shape::Bool => self.out.extend_from_slice(if value.is_true() { b"true" } else { b"false" }),
            Shape::Number => self.number(value),
            Shape::Text => return self.string(value.as_str().unwrap_or_default()),
            Shape::List => return self.list(value, depth),
            Shape::Object => return self.object(value, depth),
            // A failure says what it is.
            Shape::Other => return Err(EvalError::new(value.to_string())),
        }
        self.check_size()
    }

    /// Integers of any size exactly; a float as it was received, `null` when JSON has no such number.
    fn number(&mut self, value: &Value) {
        match i64::try_from(value.clone()) {
            Ok(int) if value.is_integer() => serialize(self.out, &int),
            Ok(_) | Err(_) if value.is_integer() => self.out.extend_from_slice(value.to_string().as_bytes()),
            Ok(_) | Err(_) => serialize(self.out, &f64::try_from(value.clone()).unwrap_or(f64::NAN)),
        }
    }

    fn string(&mut self, text: &str) -> Result<(), EvalError> {
        if text.len() > self.max_bytes {
            return Err(EvalError::too_large(self.max_bytes));
        }
        serialize(self.out, text);
        self.check_size()
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), EvalError> {
        self.out.push(b'[');
        let mut first = true;
        for element in value.try_iter().map_err(|error| engine(&error))? {
            self.comma(first);
            first = false;
            self.inner(&element, depth)?;
            self.check_size()?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, value: &Value, depth: usize) -> Result<(), EvalError> {
        self.out.push(b'{');
        let mut first = true;
        if let Some(record) = value.downcast_object_ref::<Record>() {
            for (key, value) in record.fields() {
                first = self.field(key, value, first, depth)?;
            }
        } else {
            for key in value.try_iter().map_err(|error| engine(&error))? {
                let field = value.get_item(&key).map_err(|error| engine(&error))?;
                let name = super::text::of(&key)?;
                first = self.field(&name, &field, first, depth)?;
            }
        }
        self.out.push(b'}');
        self.check_size()
    }

    fn field(&mut self, key: &str, value: &Value, first: bool, depth: usize) -> Result<bool, EvalError> {
        if value.is_undefined() {
            return Ok(first);
        }
        let before = self.key(key, first);
        let at = self.out.len();
        self.inner(value, depth)?;
        self.check_size()?;
        Ok(self.keep_field(before, at, first))
    }

    fn inner(&mut self, value: &Value, depth: usize) -> Result<(), EvalError> {
        if value.as_object().is_none() { self.made(value, depth + 1) } else { self.inner_object(value, depth) }
    }

    fn inner_object(&mut self, value: &Value, depth: usize) -> Result<(), EvalError> {
        if value.downcast_object_ref::<Node>().is_some() || value.downcast_object_ref::<ItemList>().is_some() {
            return self.value(value);
        }
        self.made(value, depth + 1)
    }

    /// Starts a field; the answer is where to go back to if it is left out.
    fn key(&mut self, key: &str, first: bool) -> usize {
        let before = self.out.len();
        self.comma(first);
        serialize(self.out, key);
        self.out.push(b':');
        before
    }

    /// Takes a field back that is to be omitted; the answer is whether the next field is still the first.
    fn keep_field(&mut self, before: usize, at: usize, first: bool) -> bool {
        if !is_omitted(&self.out[at..], self.omit) {
            return false;
        }
        self.out.truncate(before);
        first
    }

    fn comma(&mut self, first: bool) {
        if !first {
            self.out.push(b',');
        }
    }

    fn check_size(&self) -> Result<(), EvalError> {
        if self.out.len() > self.end_max { Err(EvalError::too_large(self.max_bytes)) } else { Ok(()) }
    }
}

/// Whether a field with this JSON is left out.
pub(super) fn is_omitted(json: &[u8], omit: Omit) -> bool {
    match omit {
        Omit::Nothing => false,
        Omit::Null => json == b"null",
        Omit::Empty => matches!(json, b"null" | b"\"\"" | b"[]" | b"{}"),
    }
}

/// Appends a string of JSON that holds this JSON as text.
pub(super) fn quoted(out: &mut Vec<u8>, json: &Json) {
    out.push(b'"');
    let mut serializer = Serializer::with_formatter(&mut *out, Quoted);
    json.serialize(&mut serializer).expect("a Vec takes every byte and JSON keys are strings");
    out.push(b'"');
}

pub(super) fn serialize<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("a Vec takes every byte and JSON keys are strings");
}

fn engine(error: &minijinja::Error) -> EvalError {
    EvalError::new(error.to_string())
}

// === impl Quoted ===

impl Formatter for Quoted {
    fn begin_string<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b"\\\"")
    }

    fn end_string<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b"\\\"")
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, out: &mut W, escape: CharEscape) -> io::Result<()> {
        let mut once = Vec::with_capacity(6);
        CompactFormatter.write_char_escape(&mut once, escape)?;
        for byte in once {
            if matches!(byte, b'"' | b'\\') {
                out.write_all(b"\\")?;
            }
            out.write_all(&[byte])?;
        }
        Ok(())
    }
}
