//! How a value prints inside text: never `None`, `True` or nothing at all.

use minijinja::Value;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::json::Writer;
use super::node::{Node, Shape};
use super::{Escape, EvalError, OUTPUT_MAX_BYTES, Omit};

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The failures of what has no text; a template says more, knowing the expression.
pub(super) const MISSING: &str = "missing inside text";
pub(super) const NULL: &str = "null inside text";

/// The text of a value: strings as they are, numbers and booleans as JavaScript prints them, lists and objects as
/// JSON. Missing and null have none.
pub(super) fn of(value: &Value) -> Result<String, EvalError> {
    let mut text = String::new();
    push(&mut text, value, Escape::Plain)?;
    Ok(text)
}

/// Appends the text of a value. What is marked `| safe` is not escaped.
pub(super) fn push(out: &mut String, value: &Value, escape: Escape) -> Result<(), EvalError> {
    match Shape::of(value) {
        Shape::Missing => Err(EvalError::new(MISSING)),
        Shape::Null => Err(EvalError::new(NULL)),
        Shape::Text => push_string(out, value, escape),
        Shape::Bool => push_escaped(out, if value.is_true() { "true" } else { "false" }, escape),
        Shape::Number => push_escaped(out, &number(value)?, escape),
        Shape::List | Shape::Object | Shape::Other => push_escaped(out, &json(value)?, escape),
    }
}

fn push_string(out: &mut String, value: &Value, escape: Escape) -> Result<(), EvalError> {
    let escape = if value.is_safe() { Escape::Plain } else { escape };
    push_escaped(out, value.as_str().unwrap_or_default(), escape)
}

fn push_escaped(out: &mut String, text: &str, escape: Escape) -> Result<(), EvalError> {
    if text.len() > OUTPUT_MAX_BYTES {
        return Err(EvalError::too_large(OUTPUT_MAX_BYTES));
    }
    match escape {
        Escape::Plain => out.push_str(text),
        Escape::Url => percent_encode(out, text),
    }
    Ok(())
}

/// Appends text with everything but the unreserved characters of RFC 3986, section 2.3, encoded.
pub(crate) fn percent_encode(out: &mut String, text: &str) {
    out.extend(utf8_percent_encode(text, RESERVED));
}

/// A value as compact JSON.
pub(super) fn json(value: &Value) -> Result<String, EvalError> {
    if let Some(node) = value.downcast_object_ref::<Node>() {
        return serde_json::to_string(node.json()).map_err(|error| EvalError::new(error.to_string()));
    }
    let mut out = Vec::with_capacity(256);
    Writer::new(&mut out, Omit::Nothing, OUTPUT_MAX_BYTES).value(value)?;
    String::from_utf8(out).map_err(|_| EvalError::new("not UTF-8"))
}

fn number(value: &Value) -> Result<String, EvalError> {
    if value.is_integer() {
        return Ok(value.to_string());
    }
    let float = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    if float.is_finite() { Ok(js_number(float)) } else { Err(EvalError::new("not a finite number")) }
}

/// A float as JavaScript's `String(n)` prints it: `9`, `0.1`, `1e+21`, `1e-7`.
fn js_number(float: f64) -> String {
    let magnitude = float.abs();
    if magnitude == 0.0 {
        return "0".to_owned();
    }
    if (1e-6..1e21).contains(&magnitude) {
        return float.to_string();
    }
    let text = format!("{float:e}");
    if magnitude >= 1e21 { text.replace('e', "e+") } else { text }
}
