//! The catalogue as a JSON Schema, for editors.
//!
//! Draft 7, since Taplo, which Even Better TOML and others build on, knows no later one
//! (<https://github.com/tamasfe/taplo/issues/497>, read 2026-11-26). It is wider than the compiler where a schema
//! cannot tell: the order of bounds, what `[defaults]` bring, what an expression gives. What it forbids, the compiler
//! forbids as well.

use serde_json::{Map, Value, json};

use super::keys::{Absent, Bounds, Key, Section, Shape, Text, catalogue};
use super::units;

/// What makes a string a template.
const BRACES: &str = r"\{[{%#]";

/// Sections whose keys may come from elsewhere: from `[defaults]`, or from the destination of a rule.
const MERGED: [&str; 2] = ["a destination", "a rule"];

/// The schema of `libroseg.toml`, as `libroseg schema` prints it.
#[must_use]
pub fn schema() -> Value {
    let sections = catalogue();
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "libroseg.toml",
    });
    let mut definitions = Map::new();
    for section in &sections {
        if section.what == "the file" {
            extend(&mut schema, table(section));
        } else {
            definitions.insert(definition_name(section.what), definition(section));
        }
    }
    extend(&mut schema, json!({ "definitions": definitions }));
    schema
}

fn definition(section: &Section) -> Value {
    match section.what {
        "a body" => body(section),
        _ => table(section),
    }
}

/// A table: its keys and no others, or the user's own.
fn table(section: &Section) -> Value {
    let own = section.own.as_ref().map_or(Value::Bool(false), of_shape);
    let mut schema = json!({
        "description": section.meaning,
        "type": "object",
        "properties": properties(&section.keys),
        "additionalProperties": own,
    });
    let is_merged = MERGED.contains(&section.what);
    let required: Vec<&str> =
        section.keys.iter().filter(|key| key.absent == Absent::MustBeGiven && !is_merged).map(|key| key.name).collect();
    if !required.is_empty() {
        extend(&mut schema, json!({ "required": required }));
    }
    let by_type = by_type(&section.keys);
    if !by_type.is_empty() {
        extend(&mut schema, json!({ "allOf": by_type }));
    }
    schema
}

/// A document: a table with `each` and `item` makes a list, any other is an object; strings anywhere may be templates.
fn body(section: &Section) -> Value {
    let own = section.own.as_ref().map_or(Value::Bool(true), of_shape);
    json!({
        "description": section.meaning,
        "type": ["object", "array", "string", "number", "boolean"],
        "items": own,
        "if": { "type": "object", "required": ["each", "item"] },
        "then": reference("a list made with `each`"),
        "else": { "properties": properties(&section.keys), "additionalProperties": own },
    })
}

// --- keys

fn properties(keys: &[Key]) -> Map<String, Value> {
    let mut properties = Map::new();
    for key in keys {
        let same_name: Vec<&Key> = keys.iter().filter(|other| other.name == key.name).collect();
        let schema = match same_name.as_slice() {
            [key] => property(key),
            keys => json!({ "anyOf": keys.iter().map(|key| property(key)).collect::<Vec<_>>() }),
        };
        properties.insert(key.name.to_owned(), schema);
    }
    properties
}

fn property(key: &Key) -> Value {
    let absent = match &key.absent {
        Absent::MustBeGiven => "Must be given.".to_owned(),
        Absent::Value(value) => format!("Default: `{value}`."),
        Absent::Otherwise(words) => format!("Default: {words}."),
    };
    let types: Vec<String> = key.types.iter().map(|word| format!("`type = \"{word}\"`")).collect();
    let types = if types.is_empty() { String::new() } else { format!(" Only with {}.", types.join(" or ")) };
    let mut schema = of_shape(&key.shape);
    if schema.get("$ref").is_some() {
        // What stands beside a reference does not count.
        schema = json!({ "allOf": [schema] });
    }
    let meaning = format!("{}{}. {absent}{types}", first_upper(key.meaning), bounds(&key.shape));
    extend(&mut schema, json!({ "description": meaning }));
    let default = match &key.absent {
        Absent::Value(value) => serde_json::from_str::<Value>(value).ok(),
        Absent::MustBeGiven | Absent::Otherwise(_) => None,
    };
    if let Some(default) = default {
        extend(&mut schema, json!({ "default": default }));
    }
    schema
}

/// Bounds that a pattern cannot tell are told in words.
fn bounds(shape: &Shape) -> String {
    let quantity = shape.alternatives().iter().find_map(|shape| match shape {
        Shape::Within(bounds @ (Bounds::Duration(_) | Bounds::Size(_))) => Some(bounds.to_string()),
        Shape::Within(Bounds::Count(_) | Bounds::Words(_))
        | Shape::Boolean
        | Shape::False
        | Shape::Number { .. }
        | Shape::Text(_)
        | Shape::Scalar
        | Shape::Body
        | Shape::Constant
        | Shape::Object
        | Shape::Table(_)
        | Shape::List(_)
        | Shape::Pair(_)
        | Shape::Either(_) => None,
    });
    quantity.map_or(String::new(), |quantity| format!(" ({quantity})"))
}

/// Where a `type` is written, keys of other types are wrong, and keys that several types have are those of this one.
fn by_type(keys: &[Key]) -> Vec<Value> {
    let words = keys.iter().find(|key| key.name == "type").map(|key| &key.shape);
    let Some(Shape::Within(Bounds::Words(words))) = words else { return Vec::new() };
    let of_word = |word: &&str| {
        let mut properties = Map::new();
        for key in keys.iter().filter(|key| !key.types.is_empty()) {
            let own = keys.iter().find(|other| other.name == key.name && is_for(other, word));
            properties.insert(key.name.to_owned(), own.map_or(Value::Bool(false), |own| of_shape(&own.shape)));
        }
        let is_this = json!({ "properties": { "type": { "const": word } }, "required": ["type"] });
        json!({ "if": is_this, "then": { "properties": properties } })
    };
    words.iter().map(of_word).collect()
}

fn is_for(key: &Key, word: &str) -> bool {
    key.types.is_empty() || key.types.contains(&word)
}

// --- shapes

fn of_shape(shape: &Shape) -> Value {
    match shape {
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::False => json!({ "const": false }),
        Shape::Within(bounds) => within(bounds),
        Shape::Number { least: None, most: None } => json!({ "type": "number", "exclusiveMinimum": 0 }),
        Shape::Number { least: None, most } => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": most }),
        Shape::Number { least, most: None } => json!({ "type": "number", "minimum": least }),
        Shape::Number { least, most } => json!({ "type": "number", "minimum": least, "maximum": most }),
        Shape::Text(text) => string(text),
        Shape::Scalar => json!({ "type": ["string", "number", "boolean"] }),
        Shape::Body => reference("a body"),
        Shape::Constant => json!({}),
        Shape::Object => json!({ "type": "object" }),
        Shape::Table(what) => reference(what),
        Shape::List(element) => json!({ "type": "array", "items": of_shape(element) }),
        Shape::Pair(element) => {
            json!({ "type": "array", "items": of_shape(element), "minItems": 2, "maxItems": 2 })
        }
        Shape::Either(shapes) => json!({ "anyOf": shapes.iter().map(of_shape).collect::<Vec<_>>() }),
    }
}

fn within(bounds: &Bounds) -> Value {
    match bounds {
        Bounds::Duration(_) => json!({ "type": "string", "pattern": quantity(units::duration_units()) }),
        Bounds::Size(_) => json!({ "type": "string", "pattern": quantity(units::size_units()) }),
        Bounds::Count(bounds) if *bounds.end() == u64::MAX => json!({ "type": "integer", "minimum": bounds.start() }),
        Bounds::Count(bounds) => json!({ "type": "integer", "minimum": bounds.start(), "maximum": bounds.end() }),
        Bounds::Words(words) => json!({ "enum": words }),
    }
}

fn quantity(units: impl Iterator<Item = &'static str>) -> String {
    format!("^[0-9]+({})$", units.collect::<Vec<_>>().join("|"))
}

fn string(text: &Text) -> Value {
    match (text.pattern, text.is_template) {
        ("", _) => json!({ "type": "string" }),
        (pattern, false) => json!({ "type": "string", "pattern": pattern }),
        (pattern, true) => json!({ "type": "string", "pattern": format!("{pattern}|{BRACES}") }),
    }
}

fn reference(what: &str) -> Value {
    json!({ "$ref": format!("#/definitions/{}", definition_name(what)) })
}

/// A section's name as a pointer may have it: a table written inline is told from one with a header.
fn definition_name(what: &str) -> String {
    let inline = if what.starts_with('`') { "inline-" } else { "" };
    let words = what.trim_start_matches("a ").split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'));
    format!("{inline}{}", words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-"))
}

fn first_upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

fn extend(schema: &mut Value, more: Value) {
    if let (Value::Object(schema), Value::Object(more)) = (schema, more) {
        schema.extend(more);
    }
}
