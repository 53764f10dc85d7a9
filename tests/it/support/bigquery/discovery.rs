//! Google's description of its API, and whether something is in it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// Made by `tests/sdks/discovery.py`.
const TEXT: &str = include_str!("../../../fixtures/bigquery/discovery.json");

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(TEXT).unwrap());

/// A method, called with these parameters in its path.
pub(super) struct Method {
    description: &'static Value,
    pub(super) path: BTreeMap<String, String>,
}

/// Collects what is wrong, and where.
struct Check<'a> {
    wrong: &'a mut Vec<String>,
    /// The service takes a 64-bit integer as a number too, and gives it as text:
    /// <https://protobuf.dev/programming-guides/json/>, read 2026-11-26. Google's own client sends some as numbers.
    is_request: bool,
}

/// The method that a verb and a path (without its query) mean.
pub(super) fn find(verb: &str, path: &str) -> Option<Method> {
    let path = path.strip_prefix('/')?.strip_prefix(text(&DOCUMENT["servicePath"]))?;
    let resources = object(&DOCUMENT["resources"]).values();
    let mut methods = resources.flat_map(|resource| object(&resource["methods"]).values());
    methods.find_map(|description| {
        let path = matched(template(description), path).filter(|_| description["httpMethod"] == verb)?;
        Some(Method { description, path })
    })
}

/// A path of one parameter, `{+resource}:testIamPermissions`, is written out elsewhere.
fn template(description: &'static Value) -> &'static str {
    let path = text(&description["path"]);
    if path.starts_with("{+resource}") { text(&description["flatPath"]) } else { path }
}

/// `{+projectId}`, or `{projectsId}` where it is written out: the name and what follows.
fn parameter(wanted: &str) -> Option<(String, &str)> {
    let (name, rest) = wanted.strip_prefix('{')?.split_once('}')?;
    let name = name.strip_prefix('+').map_or_else(|| name.replace("sId", "Id"), str::to_owned);
    Some((name, rest))
}

/// The parameters of a template such as `projects/{+projectId}/datasets`.
fn matched(template: &str, path: &str) -> Option<BTreeMap<String, String>> {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    let mut parameters = BTreeMap::new();
    for (wanted, found) in template.iter().zip(&path) {
        if let Some((name, rest)) = parameter(wanted) {
            let value = percent_decode_str(found.strip_suffix(rest)?).decode_utf8().ok();
            parameters.insert(name, value.filter(|value| !value.is_empty())?.into_owned());
        } else if wanted != found {
            return None;
        }
    }
    (template.len() == path.len()).then_some(parameters)
}

impl Method {
    /// `bigquery.tables.get`.
    pub(super) fn id(&self) -> &'static str {
        text(&self.description["id"])
    }

    /// The scopes of which one suffices.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &'static str> {
        self.description["scopes"].as_array().into_iter().flatten().map(text)
    }

    /// Writes a good request as the service reads it: 64-bit integers become text. Rows are not the API's to rewrite.
    pub(super) fn normalise(&self, body: &mut Value) {
        let schema = self.description.get("request").filter(|_| self.id() != "bigquery.tabledata.insertAll");
        if let Some(schema) = schema {
            normalise(schema, body);
        }
    }

    /// What is wrong with a request.
    pub(super) fn check_request(&self, query: &[(String, String)], body: Option<&Value>) -> Vec<String> {
        let mut wrong = Vec::new();
        let own = object(&self.description["parameters"]);
        for (name, value) in query {
            let known = own.get(name).filter(|known| known["location"] == "query");
            match known.or_else(|| DOCUMENT["parameters"].get(name)) {
                Some(known) if is_written(known, value) => (),
                Some(known) => wrong.push(format!("parameter `{name}` is `{value}`, not {}", text(&known["type"]))),
                None => wrong.push(format!("there is no parameter `{name}`")),
            }
        }
        match (self.description.get("request"), body) {
            (Some(schema), Some(body)) if body.is_object() => {
                Check { wrong: &mut wrong, is_request: true }.value(schema, body, "");
            }
            (Some(_), Some(_)) => wrong.push("the body is no object".to_owned()),
            (Some(_), None) => wrong.push("the body is missing".to_owned()),
            (None, Some(_)) => wrong.push("there is a body".to_owned()),
            (None, None) => (),
        }
        wrong
    }

    /// What is wrong with the body of an answer of ours.
    pub(super) fn check_response(&self, body: Option<&Value>) -> Vec<String> {
        let mut wrong = Vec::new();
        match (self.description.get("response"), body) {
            (Some(schema), Some(body)) => Check { wrong: &mut wrong, is_request: false }.value(schema, body, ""),
            (None, None) => (),
            (Some(_), None) | (None, Some(_)) => wrong.push("there is a body, or none, and should not be".to_owned()),
        }
        wrong
    }
}

fn normalise(schema: &'static Value, value: &mut Value) {
    let schema = resolved(schema);
    match value {
        Value::Number(number) if schema["type"] == "string" => *value = number.to_string().into(),
        Value::Object(fields) => {
            let known = fields.iter_mut().filter_map(|(name, value)| Some((schema["properties"].get(name)?, value)));
            known.for_each(|(schema, value)| normalise(schema, value));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| normalise(&schema["items"], item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

/// Whether a parameter is written as its type is.
fn is_written(known: &'static Value, value: &str) -> bool {
    let is_listed = known["enum"].as_array().is_none_or(|listed| listed.iter().any(|one| one == value));
    is_listed
        && match text(&known["type"]) {
            "boolean" => matches!(value.to_ascii_lowercase().as_str(), "true" | "false"),
            "integer" => value.parse::<i64>().is_ok(),
            _ => true,
        }
}

impl Check<'_> {
    /// `null` is what is not there, in JSON of protobuf messages.
    fn value(&mut self, schema: &'static Value, value: &Value, at: &str) {
        let schema = resolved(schema);
        let is_right = match (text(&schema["type"]), value) {
            ("object", Value::Object(fields)) => return self.fields(schema, fields, at),
            ("array", Value::Array(items)) => return self.items(schema, items, at),
            ("string", Value::String(value)) => is_formatted(schema, value),
            ("string", Value::Number(number)) => self.is_request && number.is_i64() && schema["format"] == "int64",
            ("integer", Value::Number(number)) => number.is_i64() || number.is_u64(),
            (_, Value::Null) | ("any", _) | ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => true,
            _ => false,
        };
        if !is_right {
            let format = schema.get("format").or_else(|| schema.get("enum")).map(ToString::to_string);
            let kind = text(&schema["type"]);
            self.wrong.push(format!("`{at}` is {value}, not {kind} {}", format.unwrap_or_default()).trim().to_owned());
        }
    }

    fn fields(&mut self, schema: &'static Value, fields: &Map<String, Value>, at: &str) {
        let further = schema.get("additionalProperties").map(resolved);
        if further.is_some_and(|further| further["type"] == "any") {
            return;
        }
        for (name, value) in fields {
            let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
            match schema["properties"].get(name).or(further) {
                Some(schema) => self.value(schema, value, &at),
                None => self.wrong.push(format!("there is no property `{at}`")),
            }
        }
    }

    fn items(&mut self, schema: &'static Value, items: &[Value], at: &str) {
        for (index, item) in items.iter().enumerate() {
            self.value(&schema["items"], item, &format!("{at}[{index}]"));
        }
    }
}

fn resolved(schema: &'static Value) -> &'static Value {
    schema.get("$ref").map_or(schema, |name| &DOCUMENT["schemas"][text(name)])
}

fn is_formatted(schema: &'static Value, value: &str) -> bool {
    let is_listed = schema["enum"].as_array().is_none_or(|listed| listed.iter().any(|one| one == value));
    is_listed
        && match schema["format"].as_str() {
            Some("int64") => value.parse::<i64>().is_ok(),
            Some("uint64") => value.parse::<u64>().is_ok(),
            _ => true,
        }
}

fn text(value: &'static Value) -> &'static str {
    value.as_str().unwrap_or_default()
}

fn object(value: &'static Value) -> &'static Map<String, Value> {
    static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NONE)
}
