//! `JSONPath` as it runs: compiled conditions and paths over a `serde_json` tree, by RFC 9535.
//!
//! Nothing is cloned and nothing allocated; numbers compare exactly, also integers beyond 2^53 and against floats.
//! Every node that is looked at is paid for. `filter` compiles the text; this file knows no syntax.

use std::cell::Cell;
use std::cmp::Ordering;

use regex::Regex;
use serde_json::{Number, Value as Json};

/// A path: from `$` or `@`, segment by segment.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) from: From,
    pub(super) segments: Vec<Segment>,
}

/// Where a path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// `$`.
    Root,
    /// `@`.
    Current,
}

/// A step of a path.
#[derive(Debug)]
pub(super) enum Segment {
    /// To one child at most: `.name`, `[0]`.
    One(Selector),
    /// To many children: `[*]`, `['a', 'b']`, `[?…]`.
    Many(Vec<Selector>),
    /// The same from a node and everything below it: `..`.
    Below(Vec<Selector>),
}

/// What a step picks among children.
#[derive(Debug)]
pub(super) enum Selector {
    Name(String),
    Index(i64),
    Wildcard,
    Slice { start: Option<i64>, end: Option<i64>, step: i64 },
    Filter(Condition),
}

/// Something true or false of a node.
#[derive(Debug)]
pub(super) enum Condition {
    Any(Vec<Condition>),
    All(Vec<Condition>),
    Not(Box<Condition>),
    Exists(Query),
    Compare(Operator, Term, Term),
    /// `search`, and `match` with its pattern anchored.
    Matches(Term, Regex),
    Sets(SetOperator, Term, Term),
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The library's own functions on lists, which RFC 9535 does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SetOperator {
    In,
    NotIn,
    AnyOf,
    NoneOf,
    SubsetOf,
}

/// Something with a value.
#[derive(Debug)]
pub(super) enum Term {
    Constant(Json),
    /// A path to one node at most.
    Path(Query),
    Length(Box<Term>),
    Count(Query),
    Value(Query),
}

/// The node that `@` is, the one that `$` is, and what may still be looked at.
#[derive(Clone, Copy)]
pub(super) struct Here<'a, 'b> {
    pub(super) root: &'a Json,
    pub(super) current: &'a Json,
    pub(super) budget: &'b Budget,
}

/// How many nodes one evaluation may still look at. Nested filters multiply the size of a document with itself: without
/// an end, `$..[?$..[?$..a]]` would take days on one event. Once it is spent every search ends early, with an answer
/// that nobody must believe.
pub(super) struct Budget(Cell<u64>);

/// What a term comes to.
#[derive(Clone, Copy)]
enum Operand<'a> {
    Nothing,
    Json(&'a Json),
    Count(usize),
}

/// A number that compares exactly.
#[derive(Clone, Copy)]
enum Exact {
    Int(i128),
    Float(f64),
}

// === impl Budget, Here ===

impl Budget {
    pub(super) fn new(nodes: u64) -> Self {
        Self(Cell::new(nodes))
    }

    /// Pays for so many nodes; `false`: there is not so much left, and from now on nothing.
    fn pay(&self, nodes: usize) -> bool {
        self.0.set(self.0.get().saturating_sub(nodes as u64));
        !self.is_spent()
    }

    /// Pays for reading a text: a node for every so many bytes.
    fn pay_text(&self, text: &str) -> bool {
        const BYTES_PER_NODE: usize = 16;
        self.pay(text.len() / BYTES_PER_NODE)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}

impl<'a, 'b> Here<'a, 'b> {
    /// The beginning: `@` is `$`.
    pub(super) fn root(root: &'a Json, budget: &'b Budget) -> Self {
        Self { root, current: root, budget }
    }

    fn at(self, current: &'a Json) -> Self {
        Self { current, ..self }
    }
}

// === impl Query ===

impl Query {
    /// Calls `found` for every node in document order until it answers `false`; so does this then.
    pub(super) fn visit<'a>(&self, here: Here<'a, '_>, found: &mut dyn FnMut(&'a Json) -> bool) -> bool {
        visit(&self.segments, here.at(self.start(here)), found)
    }

    fn start<'a>(&self, here: Here<'a, '_>) -> &'a Json {
        match self.from {
            From::Root => here.root,
            From::Current => here.current,
        }
    }

    pub(super) fn is_singular(&self) -> bool {
        self.segments.iter().all(|segment| matches!(segment, Segment::One(_)))
    }

    /// The node of a singular path.
    fn one<'a>(&self, here: Here<'a, '_>) -> Option<&'a Json> {
        self.segments.iter().try_fold(self.start(here), |node, segment| match segment {
            Segment::One(selector) => selector.one(node),
            Segment::Many(_) | Segment::Below(_) => None,
        })
    }

    fn exists(&self, here: Here<'_, '_>) -> bool {
        if self.is_singular() { self.one(here).is_some() } else { !self.visit(here, &mut |_| false) }
    }

    fn count(&self, here: Here<'_, '_>) -> usize {
        let mut count = 0;
        self.visit(here, &mut |_| {
            count += 1;
            true
        });
        count
    }

    /// The node, if there is exactly one.
    fn only<'a>(&self, here: Here<'a, '_>) -> Option<&'a Json> {
        let (mut only, mut count) = (None, 0);
        self.visit(here, &mut |json| {
            only = Some(json);
            count += 1;
            count < 2
        });
        only.filter(|_| count == 1)
    }
}

fn visit<'a>(segments: &[Segment], mut here: Here<'a, '_>, found: &mut dyn FnMut(&'a Json) -> bool) -> bool {
    if !here.budget.pay(1) {
        return false;
    }
    for (index, segment) in segments.iter().enumerate() {
        let rest = &segments[index + 1..];
        match segment {
            Segment::One(selector) => match selector.one(here.current) {
                Some(child) => here = here.at(child),
                None => return true,
            },
            Segment::Many(selectors) => return select(selectors, rest, here, found),
            Segment::Below(selectors) => return below(selectors, rest, here, found),
        }
    }
    found(here.current)
}

fn select<'a>(
    selectors: &[Selector],
    rest: &[Segment],
    here: Here<'a, '_>,
    found: &mut dyn FnMut(&'a Json) -> bool,
) -> bool {
    selectors.iter().all(|selector| selector.each(here, &mut |child| visit(rest, here.at(child), found)))
}

fn below<'a>(
    selectors: &[Selector],
    rest: &[Segment],
    here: Here<'a, '_>,
    found: &mut dyn FnMut(&'a Json) -> bool,
) -> bool {
    here.budget.pay(1)
        && select(selectors, rest, here, found)
        && children(here.current).all(|child| below(selectors, rest, here.at(child), found))
}

fn children(node: &Json) -> impl Iterator<Item = &Json> {
    let (list, map) = (node.as_array(), node.as_object());
    list.into_iter().flatten().chain(map.into_iter().flat_map(|map| map.values()))
}

// === impl Selector ===

impl Selector {
    /// The one child that a name or index picks.
    fn one<'a>(&self, node: &'a Json) -> Option<&'a Json> {
        match self {
            Self::Name(name) => node.as_object()?.get(name),
            Self::Index(index) => {
                let list = node.as_array()?;
                list.get(from_start(*index, list.len())?)
            }
            Self::Wildcard | Self::Slice { .. } | Self::Filter(_) => None,
        }
    }

    fn each<'a>(&self, here: Here<'a, '_>, found: &mut dyn FnMut(&'a Json) -> bool) -> bool {
        let node = here.current;
        match self {
            Self::Name(_) | Self::Index(_) => self.one(node).is_none_or(found),
            Self::Wildcard => children(node).all(found),
            Self::Slice { start, end, step } => {
                let list = node.as_array().map_or(&[][..], Vec::as_slice);
                slice(list.len(), *start, *end, *step).all(|index| found(&list[index]))
            }
            Self::Filter(condition) => {
                children(node).all(|child| here.budget.pay(1) && (!condition.holds(here.at(child)) || found(child)))
            }
        }
    }
}

fn from_start(index: i64, length: usize) -> Option<usize> {
    if index >= 0 {
        usize::try_from(index).ok()
    } else {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
    }
}

/// The indexes of a slice, by RFC 9535, section 2.3.4.2.2.
fn slice(length: usize, start: Option<i64>, end: Option<i64>, step: i64) -> impl Iterator<Item = usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let normal = |index: i64| if index >= 0 { index } else { length.saturating_add(index) };
    let (mut at, end) = if step >= 0 {
        let bound = |index: i64| normal(index).clamp(0, length);
        (bound(start.unwrap_or(0)), bound(end.unwrap_or(length)))
    } else {
        let bound = |index: i64| normal(index).clamp(-1, length - 1);
        (start.map_or(length - 1, bound), end.map_or(-1, bound))
    };
    std::iter::from_fn(move || {
        let inside = step > 0 && at < end || step < 0 && at > end;
        let index = usize::try_from(at).ok().filter(|_| inside)?;
        at = at.saturating_add(step);
        Some(index)
    })
}

// === impl Condition ===

impl Condition {
    pub(super) fn holds(&self, here: Here<'_, '_>) -> bool {
        match self {
            Self::Any(conditions) => conditions.iter().any(|condition| condition.holds(here)),
            Self::All(conditions) => conditions.iter().all(|condition| condition.holds(here)),
            Self::Not(condition) => !condition.holds(here),
            Self::Exists(query) => query.exists(here),
            Self::Compare(operator, left, right) => {
                operator.holds(left.operand(here), right.operand(here), here.budget)
            }
            Self::Matches(subject, pattern) => {
                subject.text(here).is_some_and(|text| here.budget.pay_text(text) && pattern.is_match(text))
            }
            Self::Sets(operator, left, right) => operator.holds(left.json(here), right.json(here), here.budget),
        }
    }
}

impl Operator {
    fn holds(self, left: Operand<'_>, right: Operand<'_>, budget: &Budget) -> bool {
        match self {
            Self::Equal => equal(left, right, budget),
            Self::NotEqual => !equal(left, right, budget),
            Self::Less => less(left, right, budget),
            Self::LessOrEqual => less(left, right, budget) || equal(left, right, budget),
            Self::Greater => less(right, left, budget),
            Self::GreaterOrEqual => less(right, left, budget) || equal(left, right, budget),
        }
    }
}

impl SetOperator {
    fn holds(self, left: Option<&Json>, right: Option<&Json>, budget: &Budget) -> bool {
        let Some((left, right)) = left.zip(right.and_then(Json::as_array)) else { return false };
        let contains = |json: &Json| right.iter().any(|other| json_equal(json, other, budget));
        match self {
            Self::In => contains(left),
            Self::NotIn => !contains(left),
            Self::AnyOf => left.as_array().is_some_and(|left| left.iter().any(contains)),
            Self::NoneOf => left.as_array().is_some_and(|left| !left.iter().any(contains)),
            Self::SubsetOf => left.as_array().is_some_and(|left| left.iter().all(contains)),
        }
    }
}

// === impl Term ===

impl Term {
    fn operand<'a>(&'a self, here: Here<'a, '_>) -> Operand<'a> {
        match self {
            Self::Constant(json) => Operand::Json(json),
            Self::Path(_) | Self::Value(_) => self.json(here).map_or(Operand::Nothing, Operand::Json),
            Self::Length(term) => {
                let length = term.json(here).and_then(|json| length(json, here.budget));
                length.map_or(Operand::Nothing, Operand::Count)
            }
            Self::Count(query) => Operand::Count(query.count(here)),
        }
    }

    fn json<'a>(&'a self, here: Here<'a, '_>) -> Option<&'a Json> {
        match self {
            Self::Constant(json) => Some(json),
            Self::Path(query) => query.one(here),
            Self::Value(query) => query.only(here),
            Self::Length(_) | Self::Count(_) => None,
        }
    }

    fn text<'a>(&'a self, here: Here<'a, '_>) -> Option<&'a str> {
        self.json(here)?.as_str()
    }
}

/// Characters of text, elements of a list, fields of an object.
fn length(json: &Json, budget: &Budget) -> Option<usize> {
    match json {
        Json::String(text) => budget.pay_text(text).then(|| text.chars().count()),
        Json::Array(list) => Some(list.len()),
        Json::Object(map) => Some(map.len()),
        Json::Null | Json::Bool(_) | Json::Number(_) => None,
    }
}

// === comparing ===

impl Operand<'_> {
    fn number(self) -> Option<Exact> {
        match self {
            Self::Nothing => None,
            Self::Count(count) => Some(Exact::Int(i128::try_from(count).unwrap_or(i128::MAX))),
            Self::Json(json) => json.as_number().map(Exact::of),
        }
    }
}

fn equal(left: Operand<'_>, right: Operand<'_>, budget: &Budget) -> bool {
    match (left, right) {
        (Operand::Nothing, Operand::Nothing) => true,
        (Operand::Json(left), Operand::Json(right)) => json_equal(left, right, budget),
        _ => {
            left.number().zip(right.number()).is_some_and(|(left, right)| left.compare(right) == Some(Ordering::Equal))
        }
    }
}

fn less(left: Operand<'_>, right: Operand<'_>, budget: &Budget) -> bool {
    if let Some((left, right)) = left.number().zip(right.number()) {
        return left.compare(right) == Some(Ordering::Less);
    }
    match (left, right) {
        (Operand::Json(Json::String(left)), Operand::Json(Json::String(right))) => {
            budget.pay_text(shorter(left, right)) && left < right
        }
        _ => false,
    }
}

fn json_equal(left: &Json, right: &Json, budget: &Budget) -> bool {
    if !budget.pay(1) {
        return false;
    }
    match (left, right) {
        (Json::Number(left), Json::Number(right)) => Exact::of(left).compare(Exact::of(right)) == Some(Ordering::Equal),
        (Json::String(left), Json::String(right)) => budget.pay_text(shorter(left, right)) && left == right,
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| json_equal(left, right, budget))
        }
        (Json::Object(left), Json::Object(right)) => {
            let same = |key, left| right.get(key).is_some_and(|right| json_equal(left, right, budget));
            left.len() == right.len() && left.iter().all(|(key, left)| same(key, left))
        }
        _ => left == right,
    }
}

fn shorter<'t>(left: &'t str, right: &'t str) -> &'t str {
    if left.len() < right.len() { left } else { right }
}

impl Exact {
    fn of(number: &Number) -> Self {
        if let Some(int) = number.as_i64() {
            return Self::Int(int.into());
        }
        match number.as_u64() {
            Some(int) => Self::Int(int.into()),
            None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
        }
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => Some(left.cmp(&right)),
            (Self::Float(left), Self::Float(right)) => left.partial_cmp(&right),
            (Self::Int(left), Self::Float(right)) => compare_mixed(left, right),
            (Self::Float(left), Self::Int(right)) => compare_mixed(right, left).map(Ordering::reverse),
        }
    }
}

/// An integer against a float without rounding the integer: whole parts first, then the fraction.
#[expect(clippy::cast_possible_truncation, reason = "bounded to what an i128 holds before")]
fn compare_mixed(int: i128, float: f64) -> Option<Ordering> {
    const LIMIT: f64 = 1e30;
    if float.is_nan() {
        return None;
    }
    if float.abs() >= LIMIT {
        return Some(if float > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let whole = float.floor();
    let fraction = if float > whole { Ordering::Less } else { Ordering::Equal };
    Some(int.cmp(&(whole as i128)).then(fraction))
}
