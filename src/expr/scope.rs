//! What an expression sees.
//!
//! A name is looked for in `item`, `index` and `items`, then among the `let`s, then `env`, `tables`, `now`, `source`
//! and `message`, then in the event's own fields. Making a scope costs one allocation; everything else waits until asked.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use jiff::Timestamp;
use minijinja::value::{Object, ObjectRepr};
use serde_json::Value as Json;

use super::filter::Selection;
use super::node::{self, ItemList, Node};
use super::template::Template;
use super::{EACH_MAX, EACH_MAX_BYTES, ELEMENTS_MAX, EvalError, OUTPUT_MAX_BYTES, Value, functions};
use crate::event::{Message, SourceName};

/// How deep `let`s may build on one another. `config` rejects cycles; this keeps one from taking the process down.
const LET_DEPTH_MAX: u8 = 32;

/// The key under which `file()` finds [`Names::files`]: not a word, so no expression can say it.
pub(super) const FILES_KEY: &str = "file()";

/// The names a file defines, shared by all events: `env`, `tables` and the `let`s in force for one destination.
#[derive(Default)]
pub struct Names {
    /// The variables the file mentions, by name; a map.
    pub env: Value,
    /// `[tables.NAME]`; a map of maps.
    pub tables: Value,
    /// The contents of the files that `file('…')` names, by path; a map.
    pub files: Value,
    /// `[let]`, then the destination's own, which win; evaluated at most once per event, when first asked. They see
    /// the event, not `item` and `index`.
    pub lets: Vec<(String, Template)>,
}

/// The names of one evaluation. Cheap to clone; clones share what their `let`s came to.
#[derive(Clone)]
pub struct Scope {
    base: Arc<Base>,
    item: Option<Arc<ItemFrame>>,
}

/// The rendered items of a batch, as JSON text, that an envelope puts in place.
pub struct Items {
    /// Each item's JSON text.
    pub json: Vec<bytes::Bytes>,
}

/// A dotted name that was found: fields of a node, walked when it is known what for, or a value.
pub(super) enum Found<'a> {
    Inside(&'a Node, &'a [String]),
    Value(Value),
}

struct Base {
    names: Arc<Names>,
    root: Node,
    source: Option<SourceName>,
    now: Option<Timestamp>,
    items: Option<Arc<ItemList>>,
    lets: OnceLock<Box<[Let]>>,
    let_depth: AtomicU8,
    /// Elements that `each` has run over so far.
    elements: AtomicUsize,
}

type Let = OnceLock<Result<Value, EvalError>>;

struct ItemFrame {
    base: Arc<Base>,
    item: Value,
    index: usize,
}

/// A `let` that failed, on its way through the engine.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct LetError(pub(super) String);

static NULL: LazyLock<Arc<Json>> = LazyLock::new(|| Arc::new(Json::Null));

// === impl Names ===

impl Names {
    /// The values of variables and the contents of secrets' files, without white space around them: what must not be
    /// told.
    pub fn secrets(&self) -> impl Iterator<Item = String> {
        let values = |map: &Value| -> Vec<Value> {
            let keys = map.try_iter().into_iter().flatten();
            // Where nothing is set, a name stands in for its own value.
            keys.filter_map(|key| map.get_item(&key).ok().filter(|value| *value != key)).collect()
        };
        let all = [&self.env, &self.files].into_iter().flat_map(values);
        all.filter_map(|value| value.as_str().map(|text| text.trim().to_owned()))
    }
}

// === impl Scope ===

impl Scope {
    /// An event before the rules: its own fields, `message`, `source`, `now`, `env`, `tables`, the `let`s.
    #[must_use]
    pub fn event(names: &Arc<Names>, message: &Message, now: Timestamp) -> Self {
        let (source, now) = (Some(message.source.clone()), Some(now));
        Self::new(Base { source, now, ..Base::new(names, Arc::clone(&message.value)) })
    }

    /// The same with `item` and `index`.
    #[must_use]
    pub fn with_item(&self, item: Value, index: usize) -> Self {
        let base = Arc::clone(&self.base);
        let item = Arc::new(ItemFrame { base: Arc::clone(&base), item, index });
        Self { base, item: Some(item) }
    }

    /// A batch before its envelope: `items`, `now`, `env`, `tables`; no event fields, no `let` that reads them.
    #[must_use]
    pub fn batch(names: &Arc<Names>, items: Items, now: Timestamp) -> Self {
        let items = Some(Arc::new(ItemList::new(items.json)));
        Self::new(Base { items, now: Some(now), ..Base::new(names, Arc::clone(&NULL)) })
    }

    /// A reply before the response rules: `status`, `headers`, `body` (and `item`, `index` by `with_item`).
    #[must_use]
    pub fn reply(names: &Arc<Names>, reply: Arc<Json>) -> Self {
        Self::new(Base::new(names, reply))
    }

    /// A request before it is signed: the fields of `request`, `now`, `env`, `tables`.
    #[must_use]
    pub fn request(names: &Arc<Names>, request: Arc<Json>, now: Timestamp) -> Self {
        Self::new(Base { now: Some(now), ..Base::new(names, request) })
    }

    /// Only `env` and `tables`: for what is settled when the file is compiled.
    #[must_use]
    pub fn file(names: &Arc<Names>) -> Self {
        Self::new(Base::new(names, Arc::clone(&NULL)))
    }

    /// The JSON that `$` and `@` of a filter are.
    #[must_use]
    pub fn json(&self) -> &Arc<Json> {
        self.base.root.tree()
    }

    /// The nodes of [`Scope::json`] that a path picks, as values without a copy, in document order.
    ///
    /// # Errors
    /// When there are more than `nodes_max`, or finding them takes too long.
    pub fn select(&self, path: &Selection, nodes_max: usize) -> Result<Vec<Value>, EvalError> {
        self.base.root.pieces(|json| path.select(json, nodes_max))
    }

    /// What one template may make here, in bytes: [`OUTPUT_MAX_BYTES`], and for an envelope twice its batch more.
    #[must_use]
    pub fn output_max_bytes(&self) -> usize {
        OUTPUT_MAX_BYTES + 2 * self.batch_bytes()
    }

    /// What one `each` may make here, in bytes: [`EACH_MAX_BYTES`], and for an envelope twice its batch more.
    #[must_use]
    pub fn each_max_bytes(&self) -> usize {
        EACH_MAX_BYTES + 2 * self.batch_bytes()
    }

    /// How many elements an `each` may have here.
    #[must_use]
    pub fn each_max(&self) -> usize {
        EACH_MAX.max(self.batch_len())
    }

    /// Counts the elements of an `each`.
    ///
    /// # Errors
    /// When the event has made too many: a list within a list multiplies.
    pub fn enter(&self, elements: usize) -> Result<(), EvalError> {
        let elements_max = ELEMENTS_MAX + self.batch_len();
        let before = self.base.elements.fetch_add(elements, Ordering::Relaxed);
        if before + elements > elements_max {
            return Err(EvalError::new(format!("more than {elements_max} elements of `each` in all")));
        }
        Ok(())
    }

    fn batch_bytes(&self) -> usize {
        self.base.items.as_ref().map_or(0, |items| items.size_bytes())
    }

    fn batch_len(&self) -> usize {
        self.base.items.as_ref().map_or(0, |items| items.json().len())
    }

    fn new(base: Base) -> Self {
        Self { base: Arc::new(base), item: None }
    }

    pub(super) fn names(&self) -> &Names {
        &self.base.names
    }

    /// The scope as the engine takes it.
    pub(super) fn to_value(&self) -> Value {
        match &self.item {
            Some(item) => Value::from_dyn_object(Arc::clone(item)),
            None => Value::from_dyn_object(Arc::clone(&self.base)),
        }
    }

    /// Finds a dotted name without the engine.
    pub(super) fn find<'a>(&'a self, path: &'a [String]) -> Result<Found<'a>, EvalError> {
        let Some((root, fields)) = path.split_first() else { return Ok(Found::Value(Value::UNDEFINED)) };
        if let Some(item) = &self.item {
            match root.as_str() {
                "item" => return Found::in_value(&item.item, fields),
                "index" => return Found::in_value(&Value::from(item.index), fields).map(Found::detached),
                _ => {}
            }
        }
        if let Some(value) = self.base.named(root) {
            return Found::in_value(&value?, fields).map(Found::detached);
        }
        if functions::is_function(root) {
            return Ok(Found::Value(Value::UNDEFINED));
        }
        Ok(Found::Inside(&self.base.root, path))
    }
}

// === impl Found ===

impl<'a> Found<'a> {
    fn in_value(value: &'a Value, fields: &'a [String]) -> Result<Self, EvalError> {
        if let Some(node) = value.downcast_object_ref::<Node>() {
            return Ok(Self::Inside(node, fields));
        }
        let mut value = value.clone();
        for field in fields {
            if value.is_undefined() {
                break;
            }
            value = value.get_attr(field).map_err(|error| EvalError::new(error.to_string()))?;
        }
        Ok(Self::Value(value))
    }

    /// The same without a hold on where it was found.
    fn detached<'b>(self) -> Found<'b> {
        Found::Value(self.into_value())
    }

    /// Whether it counts as true, as the engine counts.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Inside(node, fields) => node.json_at(fields).is_some_and(node::is_true),
            Self::Value(value) => value.is_true(),
        }
    }

    pub(super) fn into_value(self) -> Value {
        match self {
            Self::Inside(node, fields) => node.at_path(fields),
            Self::Value(value) => value,
        }
    }
}

// === impl Base ===

impl Base {
    fn new(names: &Arc<Names>, root: Arc<Json>) -> Self {
        Self {
            names: Arc::clone(names),
            root: Node::root(root),
            source: None,
            now: None,
            items: None,
            lets: OnceLock::new(),
            let_depth: AtomicU8::new(0),
            elements: AtomicUsize::new(0),
        }
    }

    /// What the file and the situation define under this name.
    fn named(self: &Arc<Self>, name: &str) -> Option<Result<Value, EvalError>> {
        if let (Some(items), "items") = (&self.items, name) {
            return Some(Ok(Value::from_dyn_object(Arc::clone(items))));
        }
        if let Some(index) = self.names.lets.iter().rposition(|(own, _)| own == name) {
            return Some(self.let_value(index));
        }
        let value = match name {
            "env" => self.names.env.clone(),
            "tables" => self.names.tables.clone(),
            "now" => Value::from(format!("{:.3}", self.now?)),
            "source" => Value::from(self.source.as_ref()?.as_str()),
            "message" if self.source.is_some() => self.root.at_path(&[]),
            FILES_KEY => self.names.files.clone(),
            _ => return None,
        };
        Some(Ok(value))
    }

    /// The event's own field, unless it would hide a function.
    fn field(&self, name: &str) -> Option<Value> {
        if functions::is_function(name) { None } else { self.root.field(name) }
    }

    fn let_value(self: &Arc<Self>, index: usize) -> Result<Value, EvalError> {
        let lets = self.lets.get_or_init(|| self.names.lets.iter().map(|_| OnceLock::new()).collect());
        if let Some(value) = lets[index].get() {
            return value.clone();
        }
        // Not `get_or_init`: a `let` that reaches itself would wait for itself for ever.
        let value = self.evaluate_let(index);
        lets[index].get_or_init(|| value).clone()
    }

    fn evaluate_let(self: &Arc<Self>, index: usize) -> Result<Value, EvalError> {
        let (name, template) = &self.names.lets[index];
        if self.let_depth.fetch_add(1, Ordering::Relaxed) >= LET_DEPTH_MAX {
            self.let_depth.fetch_sub(1, Ordering::Relaxed);
            return Err(EvalError::new(format!("let.{name} builds on too many others, or on itself")));
        }
        let value = template.value(&Scope { base: Arc::clone(self), item: None });
        self.let_depth.fetch_sub(1, Ordering::Relaxed);
        value.map_err(|error| in_let(name, error))
    }

    fn lookup(self: &Arc<Self>, name: &str) -> Option<Value> {
        match self.named(name) {
            Some(Ok(value)) => Some(value),
            Some(Err(error)) => Some(failed(error)),
            None => self.field(name),
        }
    }
}

/// The failure under the name of the innermost `let` that failed.
fn in_let(name: &str, error: EvalError) -> EvalError {
    if error.message.starts_with("let.") { error } else { EvalError::new(format!("let.{name}: {}", error.message)) }
}

fn failed(error: EvalError) -> Value {
    let kind = minijinja::ErrorKind::InvalidOperation;
    Value::from(minijinja::Error::new(kind, error.message.clone()).with_source(LetError(error.message)))
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("scope")
    }
}

impl Object for Base {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.lookup(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.lookup(key)
    }
}

// === impl ItemFrame ===

impl fmt::Debug for ItemFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("scope of an item")
    }
}

impl Object for ItemFrame {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            "item" => Some(self.item.clone()),
            "index" => Some(Value::from(self.index)),
            _ => self.base.lookup(key),
        }
    }
}
