//! Random events, and random mappings as data that can be written as TOML.

use std::fmt;

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

/// A destination's mapping, and what it uses.
#[derive(Clone)]
pub(super) struct File {
    pub(super) table: Map<String, Json>,
    /// Each may use those before it; texts and whole expressions only.
    pub(super) lets: Vec<Body>,
    pub(super) body: Body,
    pub(super) omit: Omit,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Omit {
    Nothing,
    Null,
    Empty,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    /// As written in TOML, and as it arrives.
    Constant(String, Json),
    Whole(Expr),
    Text(Vec<Piece>),
    Table {
        spread: Vec<Expr>,
        fields: Vec<(String, Body)>,
    },
    List(Vec<Body>),
    Each {
        over: Over,
        item: Box<Body>,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Piece {
    Literal(String),
    Hole(Expr),
}

#[derive(Clone, Debug)]
pub(super) enum Over {
    Path(Vec<String>),
    Value(Expr),
}

#[derive(Clone, Debug)]
pub(super) enum Expr {
    Constant(Json),
    Path(String, Vec<String>),
    Message(Vec<String>),
    Item(Vec<String>),
    Index,
    Let(usize, Vec<String>),
    Table(Box<Expr>),
    Coalesce(Vec<Expr>),
    Or(Box<Expr>, Box<Expr>),
    If { then: Box<Expr>, when: Box<Expr>, other: Box<Expr> },
    Default(Box<Expr>, Box<Expr>),
    Filter(&'static str, Box<Expr>),
    Pick(Box<Expr>, Vec<String>),
    Omit(Box<Expr>, Vec<String>),
    Object(Vec<(String, Expr)>),
    List(Vec<Expr>),
}

/// Keys of events and bodies: few, so that paths often lead somewhere, and odd.
const KEYS: [&str; 10] = ["a", "b", "c d", "é\u{1F980}", "0", "items", "length", "$id", "", "it's \"x\" \\ {{"];
const ROOTS: [&str; 5] = ["properties", "traits", "context", "userId", "event"];
const FILTERS: [&str; 6] = ["lower", "upper", "trim", "json", "number", "text"];

// === events ===

fn any_key() -> impl Strategy<Value = String> {
    prop::sample::select(&KEYS[..]).prop_map(str::to_owned)
}

pub(super) fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!("")),
        Just(json!([])),
        Just(json!({})),
        any::<bool>().prop_map(Json::from),
        (-3_i64..4).prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        (-9_000_i32..9_000).prop_map(|n| json!(f64::from(n) / 8.0)),
        prop::sample::select(&[" 9.50 ", "0x1", "1e3", "İSTANBUL ß", "\u{0}\n\r\"", "</script>", "-0", "inf"][..])
            .prop_map(Json::from),
        ".{0,8}".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from), any_object(inner),]
    })
}

fn any_object(value: impl Strategy<Value = Json>) -> impl Strategy<Value = Json> {
    prop::collection::vec((any_key(), value), 0..5).prop_map(|fields| Json::Object(fields.into_iter().collect()))
}

/// An event as it lies in the queue, whatever its fields hold.
pub(super) fn any_event() -> impl Strategy<Value = Json> {
    let field = prop_oneof![3 => any_object(any_json()).boxed(), 1 => any_json().boxed()];
    (prop::collection::vec(field, 3), any_json(), any_json()).prop_map(|(objects, user, event)| {
        json!({ "type": "track", "messageId": "m1", "event": event, "userId": user,
            "properties": objects[0], "traits": objects[1], "context": objects[2] })
    })
}

// === mappings ===

fn any_keys() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(any_key(), 0..3)
}

/// An expression that may use so many `let`s, and `item` and `index` or not.
fn any_expr(lets: usize, has_item: bool) -> BoxedStrategy<Expr> {
    let constant = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Json::from),
        (-3_i64..100).prop_map(Json::from),
        (0_i32..99).prop_map(|n| json!(f64::from(n) / 4.0)),
        prop::sample::select(&["", "x", "it's", "\\d", "{{", "é\n", "a"][..]).prop_map(Json::from),
    ];
    let root = prop::sample::select(&ROOTS[..]).prop_map(str::to_owned);
    let mut leaves = vec![
        (2, constant.prop_map(Expr::Constant).boxed()),
        (6, (root, any_keys()).prop_map(|(root, path)| Expr::Path(root, path)).boxed()),
        (1, any_keys().prop_map(Expr::Message).boxed()),
    ];
    if has_item {
        leaves.push((6, any_keys().prop_map(Expr::Item).boxed()));
        leaves.push((1, Just(Expr::Index).boxed()));
    }
    if lets > 0 {
        leaves.push((3, (0..lets, any_keys()).prop_map(|(index, path)| Expr::Let(index, path)).boxed()));
    }
    let leaf = prop::strategy::Union::new_weighted(leaves);
    leaf.prop_recursive(2, 8, 3, |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        let list = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            1 => list.clone().prop_map(Expr::Coalesce),
            1 => list.prop_map(Expr::List),
            1 => (boxed.clone(), boxed.clone()).prop_map(|(left, right)| Expr::Or(left, right)),
            1 => (boxed.clone(), boxed.clone()).prop_map(|(left, right)| Expr::Default(left, right)),
            1 => (boxed.clone(), boxed.clone(), boxed.clone())
                .prop_map(|(then, when, other)| Expr::If { then, when, other }),
            3 => (prop::sample::select(&FILTERS[..]), boxed.clone()).prop_map(|(name, inner)| Expr::Filter(name, inner)),
            1 => (boxed.clone(), any_keys()).prop_map(|(inner, names)| Expr::Pick(inner, names)),
            1 => (boxed.clone(), any_keys()).prop_map(|(inner, names)| Expr::Omit(inner, names)),
            1 => boxed.prop_map(Expr::Table),
            1 => prop::collection::vec(("[a-c]", inner), 0..3).prop_map(|fields| Expr::Object(distinct(fields))),
        ]
    })
    .boxed()
}

fn distinct<T>(fields: Vec<(String, T)>) -> Vec<(String, T)> {
    let mut seen = std::collections::BTreeSet::new();
    fields.into_iter().filter(|(name, _)| seen.insert(name.clone())).collect()
}

fn any_text(lets: usize, has_item: bool) -> impl Strategy<Value = Body> {
    let literal = "[a-z é<&\"\\\\}%]{1,5}".prop_map(Piece::Literal);
    let hole = any_expr(lets, has_item).prop_map(Piece::Hole);
    (literal, prop::collection::vec(hole, 1..3)).prop_map(|(literal, mut pieces)| {
        pieces.insert(1, literal);
        Body::Text(pieces)
    })
}

fn any_constant() -> impl Strategy<Value = Body> {
    let like = |json: Json| Body::Constant(json.to_string(), json);
    prop_oneof![
        (-9_i64..999).prop_map(move |int| like(int.into())),
        any::<i64>().prop_map(move |int| like(int.into())),
        any::<bool>().prop_map(move |bool| like(bool.into())),
        (-99_i32..99).prop_map(move |n| like((f64::from(n) / 4.0).into())),
        "[a-z é\"\\\\']{0,5}".prop_map(|text| Body::Constant(quoted(&text), text.into())),
        Just(Body::Constant("1979-05-27T07:32:00Z".into(), "1979-05-27T07:32:00Z".into())),
        Just(Body::Constant("0xff".into(), 255.into())),
    ]
}

fn any_body(lets: usize, has_item: bool, depth: u32) -> BoxedStrategy<Body> {
    let leaf = prop_oneof![
        1 => any_constant(),
        4 => any_expr(lets, has_item).prop_map(Body::Whole),
        1 => any_text(lets, has_item),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = any_body(lets, has_item, depth - 1);
    let spread = prop::collection::vec(any_expr(lets, has_item), 0..3);
    let fields = prop::collection::vec((any_key(), inner.clone()), 0..4).prop_map(distinct);
    let path = prop::collection::vec("[ab]", 1..3).prop_map(|mut path| {
        path.insert(0, "properties".into());
        Over::Path(path)
    });
    let over = prop_oneof![path, any_expr(lets, has_item).prop_map(Over::Value)];
    prop_oneof![
        2 => leaf,
        3 => (spread, fields).prop_map(|(spread, fields)| Body::Table { spread, fields }),
        1 => prop::collection::vec(inner, 0..3).prop_map(Body::List),
        1 => (over, any_body(lets, true, depth - 1)).prop_map(|(over, item)| Body::Each { over, item: Box::new(item) }),
    ]
    .boxed()
}

fn any_let(before: usize) -> impl Strategy<Value = Body> {
    prop_oneof![3 => any_expr(before, false).prop_map(Body::Whole), 1 => any_text(before, false)]
}

pub(super) fn any_file() -> impl Strategy<Value = File> {
    let omit = prop::sample::select(&[Omit::Nothing, Omit::Null, Omit::Empty][..]);
    let table = prop::collection::vec((any_key(), (0_i64..9).prop_map(Json::from)), 1..4)
        .prop_map(|fields| fields.into_iter().collect::<Map<_, _>>());
    (table, any_let(0), any_let(1), any_body(2, false, 3), omit).prop_map(|(table, first, second, body, omit)| File {
        table,
        lets: vec![first, second],
        body,
        omit,
    })
}

// === writing ===

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.toml())
    }
}

impl File {
    /// The file, with a destination `d`.
    pub(super) fn toml(&self) -> String {
        let omit = match self.omit {
            Omit::Nothing => "",
            Omit::Null => "omit = \"null\"\n",
            Omit::Empty => "omit = \"empty\"\n",
        };
        let table: Vec<String> = self.table.iter().map(|(key, value)| format!("{} = {value}\n", quoted(key))).collect();
        let lets: Vec<String> =
            self.lets.iter().enumerate().map(|(index, body)| format!("l{index} = {}\n", body.toml())).collect();
        format!(
            "[tables.t]\n{}[let]\n{}[destinations.d]\nurl = \"https://d.example.com\"\n{omit}body = {}\n",
            table.concat(),
            lets.concat(),
            self.body.toml()
        )
    }
}

impl Body {
    fn toml(&self) -> String {
        match self {
            Self::Constant(written, _) => written.clone(),
            Self::Whole(expr) => expr.toml(),
            Self::Text(pieces) => {
                let pieces = pieces.iter().map(|piece| match piece {
                    Piece::Literal(literal) => literal.clone(),
                    Piece::Hole(expr) => format!("{{{{ {} }}}}", expr.jinja()),
                });
                quoted(&pieces.collect::<String>())
            }
            Self::Table { spread, fields } => {
                let spread = (!spread.is_empty())
                    .then(|| format!("\"...\" = [{}]", spread.iter().map(Expr::toml).collect::<Vec<_>>().join(", ")));
                let fields = fields.iter().map(|(name, body)| format!("{} = {}", quoted(name), body.toml()));
                format!("{{ {} }}", spread.into_iter().chain(fields).collect::<Vec<_>>().join(", "))
            }
            Self::List(elements) => {
                format!("[{}]", elements.iter().map(Self::toml).collect::<Vec<_>>().join(", "))
            }
            Self::Each { over, item } => {
                let over = match over {
                    Over::Path(path) => format!("\"$.{}[*]\"", path.join(".")),
                    Over::Value(expr) => expr.toml(),
                };
                format!("{{ each = {over}, item = {} }}", item.toml())
            }
        }
    }
}

impl Expr {
    fn toml(&self) -> String {
        quoted(&format!("{{{{ {} }}}}", self.jinja()))
    }

    fn jinja(&self) -> String {
        let list = |list: &[Self]| list.iter().map(Self::jinja).collect::<Vec<_>>().join(", ");
        let names = |names: &[String]| names.iter().map(|name| text(name)).collect::<Vec<_>>().join(", ");
        match self {
            Self::Constant(Json::String(constant)) => text(constant),
            Self::Constant(Json::Null) => "none".into(),
            Self::Constant(json) => format!("({json})"),
            Self::Path(root, path) => format!("{root}{}", steps(path)),
            Self::Message(path) => format!("message{}", steps(path)),
            Self::Item(path) => format!("item{}", steps(path)),
            Self::Index => "index".into(),
            Self::Let(index, path) => format!("l{index}{}", steps(path)),
            Self::Table(key) => format!("tables.t[{}]", key.jinja()),
            Self::Coalesce(values) => format!("coalesce({})", list(values)),
            Self::Or(left, right) => format!("({} or {})", left.jinja(), right.jinja()),
            Self::If { then, when, other } => {
                format!("({} if {} else {})", then.jinja(), when.jinja(), other.jinja())
            }
            Self::Default(value, other) => format!("({} | default({}))", value.jinja(), other.jinja()),
            Self::Filter(name, inner) => format!("({} | {name})", inner.jinja()),
            Self::Pick(inner, keys) => format!("({} | pick({}))", inner.jinja(), names(keys)),
            Self::Omit(inner, keys) => format!("({} | omit({}))", inner.jinja(), names(keys)),
            Self::Object(fields) => {
                let fields: Vec<_> = fields.iter().map(|(name, expr)| format!("{name}={}", expr.jinja())).collect();
                format!("object({})", fields.join(", "))
            }
            // In a list, what is missing is null; for an `each` it is missing still.
            Self::List(values) => {
                let values: Vec<_> = values.iter().map(|value| format!("{} | default(none)", value.jinja())).collect();
                format!("[{}]", values.join(", "))
            }
        }
    }
}

/// `.a` where that can be written, `['c d']` elsewhere.
fn steps(path: &[String]) -> String {
    let is_word = |key: &str| key.starts_with(|c: char| c.is_ascii_alphabetic()) && !key.contains(' ');
    path.iter().map(|key| if is_word(key) { format!(".{key}") } else { format!("[{}]", text(key)) }).collect()
}

/// Text in an expression.
fn text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Text in TOML. JSON's escapes are TOML's, but for one.
fn quoted(text: &str) -> String {
    Json::from(text).to_string().replace('\u{7f}', "\\u007f")
}
