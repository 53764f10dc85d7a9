//! What a mapping means, said a second time: plain recursion over JSON, slow, and without an engine.

use serde_json::{Map, Value as Json};

use super::grammar::{Body, Expr, File, Omit, Over, Piece};

/// A value; `None` is missing. An error is an event that a mapping cannot take.
pub(super) type Made = Result<Option<Json>, String>;

/// What an expression sees.
#[derive(Clone, Copy)]
pub(super) struct World<'a> {
    pub(super) file: &'a File,
    pub(super) event: &'a Json,
    pub(super) item: Option<(&'a Json, usize)>,
}

impl World<'_> {
    // === bodies ===

    /// The JSON of a body.
    pub(super) fn body(self, body: &Body, omit: Omit) -> Made {
        match body {
            Body::Constant(_, json) if json == "" => Ok(kept(json.clone(), omit)),
            Body::Constant(_, json) => Ok(Some(json.clone())),
            Body::Whole(expr) => Ok(self.value(expr)?.and_then(|json| kept(pruned(json, omit), omit))),
            Body::Text(pieces) => Ok(kept(Json::from(self.text(pieces)?), omit)),
            Body::Table { spread, fields } => self.table(spread, fields, omit).map(Some),
            Body::List(elements) => {
                let made: Result<Vec<_>, _> = elements.iter().map(|element| self.body(element, omit)).collect();
                Ok(Some(made?.into_iter().flatten().collect()))
            }
            Body::Each { over, item } => self.each(over, item, omit),
        }
    }

    fn text(self, pieces: &[Piece]) -> Result<String, String> {
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Hole(expr) => match self.value(expr)? {
                    None | Some(Json::Null) => return Err("nothing to print".into()),
                    Some(json) => text.push_str(&printed(&json)),
                },
            }
        }
        Ok(text)
    }

    fn table(self, spread: &[Expr], fields: &[(String, Body)], omit: Omit) -> Result<Json, String> {
        let mut spread_objects = Vec::new();
        for expr in spread {
            spread_objects.push(match self.value(expr)? {
                None | Some(Json::Null) => Map::new(),
                Some(Json::Object(object)) => object,
                Some(other) => return Err(format!("cannot spread {other}")),
            });
        }
        let mut made = Map::new();
        // Whoever comes later wins, and stands where it came.
        for (position, object) in spread_objects.iter().enumerate() {
            for (key, value) in object {
                let later = spread_objects[position + 1..].iter().any(|later| later.contains_key(key));
                let named = fields.iter().any(|(name, _)| name == key);
                if let Some(value) = kept(pruned(value.clone(), omit), omit).filter(|_| !later && !named) {
                    made.insert(key.clone(), value);
                }
            }
        }
        for (name, body) in fields {
            if let Some(value) = self.body(body, omit)?.and_then(|json| kept(json, omit)) {
                made.insert(name.clone(), value);
            }
        }
        Ok(Json::Object(made))
    }

    fn each(self, over: &Over, item: &Body, omit: Omit) -> Made {
        let elements = match over {
            Over::Path(path) => {
                let found = path.iter().try_fold(self.event, |json, key| json.get(key));
                let children: Vec<Json> = match found {
                    Some(Json::Array(list)) => list.clone(),
                    Some(Json::Object(map)) => map.values().cloned().collect(),
                    _ => Vec::new(),
                };
                if children.is_empty() {
                    return Ok(None);
                }
                children
            }
            Over::Value(expr) => match self.value(expr)? {
                None | Some(Json::Null) => return Ok(None),
                Some(Json::Array(list)) => list,
                Some(other) => return Err(format!("no list: {other}")),
            },
        };
        let mut made = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            made.extend(World { item: Some((element, index)), ..self }.body(item, omit)?);
        }
        Ok(Some(Json::Array(made)))
    }

    // === expressions ===

    fn value(self, expr: &Expr) -> Made {
        Ok(match expr {
            Expr::Constant(json) => Some(json.clone()),
            Expr::Path(root, path) => walk(self.event.get(root), path),
            Expr::Message(path) => walk(Some(self.event), path),
            Expr::Item(path) => walk(self.item.map(|(item, _)| item), path),
            Expr::Index => self.item.map(|(_, index)| index.into()),
            Expr::Let(index, path) => {
                let world = World { item: None, ..self };
                walk(world.named(*index)?.as_ref(), path)
            }
            Expr::Table(key) => self.value(key)?.and_then(|key| self.file.table.get(key.as_str()?).cloned()),
            Expr::Coalesce(list) => {
                let mut found = None;
                for expr in list {
                    // All arguments of a call are evaluated, and any of them may fail.
                    let value = self.value(expr)?.filter(|json| !json.is_null() && json != "");
                    found = found.or(value);
                }
                found
            }
            Expr::Or(left, right) => match self.value(left)? {
                Some(json) if is_true(&json) => Some(json),
                _ => self.value(right)?,
            },
            Expr::If { then, when, other } => {
                let holds = self.value(when)?.is_some_and(|json| is_true(&json));
                self.value(if holds { then } else { other })?
            }
            Expr::Default(value, other) => {
                let other = self.value(other)?;
                self.value(value)?.or(other)
            }
            Expr::Filter(name, inner) => filtered(name, self.value(inner)?)?,
            Expr::Pick(inner, names) => self.fields(inner, |key| names.iter().any(|name| name == key))?,
            Expr::Omit(inner, names) => self.fields(inner, |key| !names.iter().any(|name| name == key))?,
            Expr::Object(fields) => {
                let mut object = Map::new();
                for (name, expr) in fields {
                    object.extend(self.value(expr)?.map(|value| (name.clone(), value)));
                }
                Some(Json::Object(object))
            }
            Expr::List(list) => {
                let values: Result<Vec<_>, _> = list.iter().map(|expr| self.value(expr)).collect();
                Some(values?.into_iter().map(Option::unwrap_or_default).collect())
            }
        })
    }

    fn named(self, index: usize) -> Made {
        match &self.file.lets[index] {
            Body::Text(pieces) => self.text(pieces).map(|text| Some(text.into())),
            Body::Whole(expr) => self.value(expr),
            Body::Constant(..) | Body::Table { .. } | Body::List(_) | Body::Each { .. } => unreachable!("no such let"),
        }
    }

    fn fields(self, inner: &Expr, keep: impl Fn(&str) -> bool) -> Made {
        match self.value(inner)? {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Object(map)) => Ok(Some(Json::Object(map.into_iter().filter(|(key, _)| keep(key)).collect()))),
            Some(other) => Err(format!("no object: {other}")),
        }
    }
}

fn walk(from: Option<&Json>, path: &[String]) -> Option<Json> {
    path.iter().try_fold(from?, |json, key| json.as_object()?.get(key)).cloned()
}

fn is_true(json: &Json) -> bool {
    match json {
        Json::Null => false,
        Json::Bool(bool) => *bool,
        Json::Number(number) => number.as_f64() != Some(0.0),
        Json::String(text) => !text.is_empty(),
        Json::Array(list) => !list.is_empty(),
        Json::Object(map) => !map.is_empty(),
    }
}

fn filtered(name: &str, value: Option<Json>) -> Made {
    let Some(json) = value else { return Ok(None) };
    if name == "json" {
        return Ok(Some(json.to_string().into()));
    }
    if json.is_null() {
        return Ok(None);
    }
    let text = printed(&json);
    Ok(Some(match name {
        "text" => text.into(),
        "lower" => text.to_lowercase().into(),
        "upper" => text.to_uppercase().into(),
        "trim" => text.trim().into(),
        "number" => return number(&json),
        _ => unreachable!("{name}"),
    }))
}

fn number(json: &Json) -> Made {
    let text = match json {
        Json::Number(_) => return Ok(Some(json.clone())),
        Json::Bool(bool) => return Ok(Some(i32::from(*bool).into())),
        Json::String(text) => text.trim(),
        Json::Null | Json::Array(_) | Json::Object(_) => return Err(format!("no number: {json}")),
    };
    if text.is_empty() {
        return Ok(None);
    }
    let int = text.parse::<i64>().map(Json::from).or_else(|_| text.parse::<u64>().map(Json::from));
    let float = || text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Json::Number);
    int.ok().or_else(float).map(Some).ok_or_else(|| format!("no number: {text}"))
}

/// As JavaScript prints it.
pub(super) fn printed(json: &Json) -> String {
    match json {
        Json::String(text) => text.clone(),
        Json::Number(number) if number.is_f64() => printed_float(number.as_f64().unwrap()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => json.to_string(),
    }
}

/// `Number::toString` of ECMAScript (<https://tc39.es/ecma262/#sec-numeric-types-number-tostring>, read 2026-11-26): from
/// the shortest digits and the place of the point.
fn printed_float(float: f64) -> String {
    if float == 0.0 {
        return "0".into();
    }
    let scientific = format!("{:e}", float.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap();
    let (digits, point) = (mantissa.replace('.', ""), exponent.parse::<i32>().unwrap() + 1);
    let length = i32::try_from(digits.len()).unwrap();
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap());
    let cut = |at: i32| digits.split_at(usize::try_from(at).unwrap());
    let number = match point {
        _ if length <= point && point <= 21 => format!("{digits}{}", zeros(point - length)),
        1..=21 => format!("{}.{}", cut(point).0, cut(point).1),
        -5..=0 => format!("0.{}{digits}", zeros(-point)),
        _ => {
            let fraction = if length > 1 { format!(".{}", cut(1).1) } else { String::new() };
            format!("{}{fraction}e{:+}", cut(1).0, point - 1)
        }
    };
    if float < 0.0 { format!("-{number}") } else { number }
}

// === omit ===

fn kept(json: Json, omit: Omit) -> Option<Json> {
    let is_empty = matches!(&json, Json::String(text) if text.is_empty())
        || json.as_array().is_some_and(Vec::is_empty)
        || json.as_object().is_some_and(Map::is_empty);
    let is_omitted = match omit {
        Omit::Nothing => false,
        Omit::Null => json.is_null(),
        Omit::Empty => json.is_null() || is_empty,
    };
    (!is_omitted).then_some(json)
}

/// Fields are left out at every depth; elements never are.
fn pruned(json: Json, omit: Omit) -> Json {
    match json {
        Json::Array(list) => list.into_iter().map(|json| pruned(json, omit)).collect(),
        Json::Object(map) => {
            let fields = map.into_iter().filter_map(|(key, json)| Some((key, kept(pruned(json, omit), omit)?)));
            Json::Object(fields.collect())
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => json,
    }
}
