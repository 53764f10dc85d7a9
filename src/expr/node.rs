//! Values of our own behind minijinja's: the event as a lazy object, objects that keep their order, a batch's items.
//!
//! Nothing is converted until it is asked for, and an event's objects stay pointers into the event. Nothing here
//! evaluates anything.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr, ValueKind};
use serde_json::Value as Json;
use yoke::{Yoke, Yokeable};

/// An object or list inside a shared JSON tree: a pointer that keeps the tree alive.
pub(super) struct Node {
    at: Yoke<&'static Json, Arc<Json>>,
    /// How many elements were handed out, in whole rounds; see [`ROUNDS_MAX_ELEMENTS`].
    enumerated: AtomicUsize,
}

/// What a path picked from a tree.
#[derive(Yokeable)]
struct Pieces<'a>(Vec<&'a Json>);

/// How many elements one node hands out before it is found empty. An event can turn `price * quantity` into a list
/// repeated a hundred million times, which the engine would print without asking for fuel; what fuel allows stays
/// far below.
const ROUNDS_MAX_ELEMENTS: usize = 1 << 20;

/// An object made by a filter or function: its fields keep the order they were given in.
#[derive(Debug, Default)]
pub(super) struct Record(Vec<(Arc<str>, Value)>);

/// What a value is, as far as JSON and text care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Missing,
    Null,
    Bool,
    Number,
    Text,
    List,
    Object,
    /// A function, bytes, or a failure on its way.
    Other,
}

/// A batch's items: JSON text, parsed one by one when somebody looks inside.
pub(super) struct ItemList {
    json: Vec<Bytes>,
    parsed: Vec<OnceLock<Value>>,
}

// === impl Shape ===

impl Shape {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the engine may add kinds; none of them would be JSON")]
    pub(super) fn of(value: &Value) -> Self {
        match value.kind() {
            ValueKind::Undefined => Self::Missing,
            ValueKind::None => Self::Null,
            ValueKind::Bool => Self::Bool,
            ValueKind::Number => Self::Number,
            ValueKind::String => Self::Text,
            ValueKind::Seq | ValueKind::Iterable => Self::List,
            ValueKind::Map => Self::Object,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "a missing value",
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::Text => "text",
            Self::List => "a list",
            Self::Object => "an object",
            Self::Other => "something that is no value",
        })
    }
}

// === impl Node ===

impl Node {
    pub(super) fn root(json: Arc<Json>) -> Self {
        Self::at(Yoke::attach_to_cart(json, |json| json))
    }

    fn at(at: Yoke<&'static Json, Arc<Json>>) -> Self {
        Self { at, enumerated: AtomicUsize::new(0) }
    }

    pub(super) fn json(&self) -> &Json {
        self.at.get()
    }

    /// The whole tree this node is in.
    pub(super) fn tree(&self) -> &Arc<Json> {
        self.at.backing_cart()
    }

    /// What `pick` finds in this node, as a value.
    fn project(&self, pick: impl for<'a> FnOnce(&'a Json) -> Option<&'a Json>) -> Option<Value> {
        let found = self.at.try_map_project_cloned(|json, _| {
            let json = pick(json).ok_or(None)?;
            scalar(json).map_or(Ok(json), |value| Err(Some(value)))
        });
        match found {
            Ok(yoke) => Some(Value::from_object(Self::at(yoke))),
            Err(scalar) => scalar,
        }
    }

    /// What a path of names leads to, borrowed.
    pub(super) fn json_at(&self, path: &[String]) -> Option<&Json> {
        walk(self.json(), path)
    }

    /// What a path of names leads to, as a value; undefined if nothing.
    pub(super) fn at_path(&self, path: &[String]) -> Value {
        self.project(|json| walk(json, path)).unwrap_or_default()
    }

    /// Pieces of the whole tree as values, without a copy and without a search for each.
    pub(super) fn pieces<E>(
        &self,
        pick: impl for<'a> FnOnce(&'a Json) -> Result<Vec<&'a Json>, E>,
    ) -> Result<Vec<Value>, E> {
        let all: Yoke<Pieces<'static>, _> =
            Yoke::try_attach_to_cart(Arc::clone(self.tree()), |json| pick(json).map(Pieces))?;
        let piece = |(index, json)| {
            let node = || Value::from_object(Self::at(all.map_project_cloned(|pieces, _| pieces.0[index])));
            scalar(json).unwrap_or_else(node)
        };
        Ok(all.get().0.iter().copied().enumerate().map(piece).collect())
    }

    pub(super) fn field(&self, key: &str) -> Option<Value> {
        self.project(|json| json.as_object()?.get(key))
    }

    fn element(&self, index: usize) -> Option<Value> {
        self.project(|json| json.as_array()?.get(index))
    }
}

/// Numbers, strings, booleans and null as values; `None` for what stays a node.
pub(super) fn scalar(json: &Json) -> Option<Value> {
    match json {
        Json::Null => Some(Value::from(())),
        Json::Bool(bool) => Some(Value::from(*bool)),
        Json::Number(number) => Some(number_value(number)),
        Json::String(text) => Some(Value::from(text.as_str())),
        Json::Array(_) | Json::Object(_) => None,
    }
}

fn number_value(number: &serde_json::Number) -> Value {
    if let Some(int) = number.as_i64() {
        return Value::from(int);
    }
    if let Some(int) = number.as_u64() {
        return Value::from(int);
    }
    Value::from(number.as_f64().unwrap_or(f64::NAN))
}

/// Whether a piece of JSON counts as true, as its value does.
pub(super) fn is_true(json: &Json) -> bool {
    match json {
        Json::Null => false,
        Json::Bool(bool) => *bool,
        Json::Number(number) => number.as_f64() != Some(0.0),
        Json::String(text) => !text.is_empty(),
        Json::Array(list) => !list.is_empty(),
        Json::Object(map) => !map.is_empty(),
    }
}

fn walk<'a>(json: &'a Json, path: &[String]) -> Option<&'a Json> {
    path.iter().try_fold(json, |json, name| json.as_object()?.get(name))
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.json())
    }
}

impl Object for Node {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if self.json().is_array() { ObjectRepr::Seq } else { ObjectRepr::Map }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str() {
            Some(key) => self.field(key),
            None => self.element(key.as_usize()?),
        }
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.field(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.json() {
            Json::Array(list) if self.enumerated.fetch_add(list.len(), Ordering::Relaxed) > ROUNDS_MAX_ELEMENTS => {
                Enumerator::Empty
            }
            Json::Array(list) => Enumerator::Seq(list.len()),
            Json::Object(map) => Enumerator::Values(map.keys().map(|key| Value::from(key.as_str())).collect()),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Enumerator::NonEnumerable,
        }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        match self.json() {
            Json::Array(list) => Some(list.len()),
            Json::Object(map) => Some(map.len()),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.json())
    }
}

// === impl Record ===

impl Record {
    /// Sets a field, in its old place if it has one. Linear: for the handful of fields a person writes.
    pub(super) fn set(&mut self, key: &str, value: Value) {
        match self.0.iter_mut().find(|(name, _)| &**name == key) {
            Some((_, old)) => *old = value,
            None => self.push(key, value),
        }
    }

    /// Adds a field that is known to be new.
    pub(super) fn push(&mut self, key: &str, value: Value) {
        self.0.push((key.into(), value));
    }

    pub(super) fn fields(&self) -> &[(Arc<str>, Value)] {
        &self.0
    }

    pub(super) fn into_value(self) -> Value {
        Value::from_object(self)
    }
}

impl Object for Record {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.0.iter().find(|(name, _)| &**name == key).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(key, _)| Value::from(&**key)).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.len())
    }
}

// === impl ItemList ===

impl ItemList {
    pub(super) fn new(json: Vec<Bytes>) -> Self {
        let parsed = json.iter().map(|_| OnceLock::new()).collect();
        Self { json, parsed }
    }

    pub(super) fn json(&self) -> &[Bytes] {
        &self.json
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.json.iter().map(Bytes::len).sum()
    }

    fn item(&self, index: usize) -> Option<Value> {
        let json = self.json.get(index)?;
        Some(self.parsed.get(index)?.get_or_init(|| parse(json)).clone())
    }
}

fn parse(json: &[u8]) -> Value {
    match serde_json::from_slice::<Json>(json) {
        Ok(json) => scalar(&json).unwrap_or_else(|| Value::from_object(Node::root(Arc::new(json)))),
        Err(error) => Value::from(minijinja::Error::new(
            minijinja::ErrorKind::InvalidOperation,
            format!("an item of the batch is not JSON: {error}"),
        )),
    }
}

impl fmt::Debug for ItemList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} items", self.json.len())
    }
}

impl Object for ItemList {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.item(key.as_usize()?)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.json.len())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.json.len())
    }
}
