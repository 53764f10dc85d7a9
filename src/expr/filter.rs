//! `JSONPath`: filters that decide and selections that pick, compiled once.
//!
//! jsonpath-rust defines the syntax and parses it; what it parsed is checked for types (RFC 9535, section 2.4.3),
//! patterns are compiled, and `query` runs the result. Here `$` and `@` both are the event.

use std::fmt;
use std::ops::Range;

use jsonpath_rust::parser::errors::JsonPathError;
use jsonpath_rust::parser::model as parsed;
use jsonpath_rust::parser::parse_json_path;
use serde_json::Value as Json;

use super::query::{Budget, Condition, From, Here, Operator, Query, Segment, Selector, SetOperator, Term};
use super::{EvalError, Mistake, NODES_MAX, functions};

/// The event of which [`CONDITIONS`] hold or not.
pub const CONDITIONS_OF: &str =
    r#"{"type":"track","properties":{"total":12,"tags":["a","b"],"email":"x@gmail.com","none":null}}"#;

/// Conditions of the reference, each with whether it holds; a test holds them to it.
#[rustfmt::skip]
pub const CONDITIONS: &[(&str, bool)] = &[
    ("$.properties.total >= 10 && $.type == 'track'", true),
    ("$.properties.total > 100 || $.properties.coupon", false),
    ("!$.properties.coupon", true),
    ("$.properties.none", true),
    ("$.properties.none == null", true),
    ("$[?@.type == 'track']", true),
    ("match($.type, 'track|page')", true),
    ("match($.properties.email, 'gmail')", false),
    ("search($.properties.email, '@gmail[.]com$')", true),
    ("length($.properties.tags) == 2", true),
    ("count($.properties.*) > 3", true),
    ("value($..email) == 'x@gmail.com'", true),
    ("in('a', $.properties.tags)", true),
    ("nin('c', $.properties.tags)", true),
];

/// A compiled condition on an event (or a reply).
pub struct Filter {
    text: Box<str>,
    condition: Condition,
}

/// A compiled path whose nodes are wanted.
pub struct Selection {
    text: Box<str>,
    query: Query,
}

/// How often a path may say `..`: each multiplies the work by the size of the event.
const BELOW_MAX: usize = 2;

/// What a condition may call, for whoever calls something else.
const FUNCTIONS: &str =
    "`length`, `count`, `value`, `match`, `search`, `in`, `nin`, `any_of`, `none_of` and `subset_of`";

/// How many ends of a broken expression are tried to find the place where it broke.
const READ_MAX: usize = 1_000;

/// Wraps a bare predicate into the only place where the grammar has one.
const PREDICATE_OPEN: &str = "$[?";

// === impl Filter ===

impl Filter {
    /// Compiles `$.a == 1 && search($.b, 'x')`, `$[?@.a == 1]` or `$.a.b`.
    ///
    /// # Errors
    /// One mistake with its place in `text`.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let mut lowering = Lowering::of(text)?;
        let condition = match read_path(text) {
            Ok(path) => lowering.path_condition(&path)?,
            Err(as_path) => match read_predicate(text) {
                Ok(predicate) => lowering.condition(&predicate)?,
                Err(as_predicate) => return Err(later(as_path, as_predicate)),
            },
        };
        Ok(Self { text: text.into(), condition })
    }

    /// It, as written.
    #[must_use]
    pub fn written(&self) -> &str {
        &self.text
    }

    /// Whether the condition holds.
    ///
    /// # Errors
    /// When that would take more than [`NODES_MAX`] nodes.
    pub fn matches(&self, json: &Json) -> Result<bool, EvalError> {
        let budget = Budget::new(NODES_MAX);
        let holds = self.condition.holds(Here::root(json, &budget));
        within(&budget).map(|()| holds)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.text).finish()
    }
}

// === impl Selection ===

impl Selection {
    /// Compiles `$.properties.products[*]`.
    ///
    /// # Errors
    /// One mistake with its place in `text`.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let mut lowering = Lowering::of(text)?;
        let path = match read_path(text) {
            Ok(path) => path,
            Err(_) if read_predicate(text).is_ok() => {
                return Err(Mistake::new(0..text.len(), "a condition where a path is wanted")
                    .with_help(Some("write a path such as `$.properties.products[*]`".to_owned())));
            }
            Err(mistake) => return Err(mistake),
        };
        let query = lowering.query(From::Root, &path.segments)?;
        Ok(Self { text: text.into(), query })
    }

    /// The path as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The nodes it picks, in document order.
    ///
    /// # Errors
    /// When there are more than `nodes_max`, or finding them takes more than [`NODES_MAX`] nodes.
    pub fn select<'a>(&self, json: &'a Json, nodes_max: usize) -> Result<Vec<&'a Json>, EvalError> {
        let (budget, mut nodes) = (Budget::new(NODES_MAX), Vec::new());
        self.query.visit(Here::root(json, &budget), &mut |node| {
            nodes.push(node);
            nodes.len() <= nodes_max
        });
        within(&budget)?;
        if nodes.len() > nodes_max { Err(EvalError::too_many(nodes_max)) } else { Ok(nodes) }
    }
}

fn within(budget: &Budget) -> Result<(), EvalError> {
    if budget.is_spent() {
        return Err(EvalError::new(format!("looked at more than {NODES_MAX} values")));
    }
    Ok(())
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Selection").field(&self.text).finish()
    }
}

// === reading ===

fn read_path(text: &str) -> Result<parsed::JpQuery, Mistake> {
    let (start, inner) = trimmed(text);
    parse_json_path(inner).map_err(|error| mistake(&error, text, start, 0))
}

fn read_predicate(text: &str) -> Result<parsed::Filter, Mistake> {
    let (start, inner) = trimmed(text);
    let path = parse_json_path(&format!("{PREDICATE_OPEN}{inner}]"))
        .map_err(|error| mistake(&error, text, start, PREDICATE_OPEN.len()))?;
    match path.segments.as_slice() {
        [parsed::Segment::Selector(parsed::Selector::Filter(filter))] => Ok(filter.clone()),
        // `1 == 1][0` would close our bracket and open another.
        _ => Err(Mistake::new(0..text.len(), "not one condition")),
    }
}

fn trimmed(text: &str) -> (usize, &str) {
    let inner = text.trim();
    (text.len() - text.trim_start().len(), inner)
}

/// Of two readings, the complaint of the one that came further.
fn later(as_path: Mistake, as_predicate: Mistake) -> Mistake {
    if as_path.range.start > as_predicate.range.start { as_path } else { as_predicate }
}

/// The library's error as ours: `added` bytes were put before the text, which began at `start`.
fn mistake(error: &JsonPathError, text: &str, start: usize, added: usize) -> Mistake {
    let (_, inner) = trimmed(text);
    if let JsonPathError::PestError(error) = error {
        let offset = pest_offset(&error.to_string(), inner, added);
        return unexpected(text, start + offset.max(readable(inner)));
    }
    if let JsonPathError::MaxNestingDepthExceeded(depth) = error {
        return Mistake::new(0..text.len(), format!("brackets nest deeper than {depth} levels"));
    }
    let message = error.to_string();
    Mistake::new(
        start..start + inner.len(),
        message.rsplit("Invalid argument for the function ").next().unwrap_or(&message),
    )
}

/// The byte that pest points at. Its position is public only in print: ` --> line:column`, counted in characters.
fn pest_offset(error: &str, inner: &str, added: usize) -> usize {
    let place = error.lines().next().and_then(|line| line.trim().strip_prefix("--> ")).unwrap_or("1:1");
    let (line, column) = place.split_once(':').unwrap_or(("1", "1"));
    let (line, column): (usize, usize) = (line.parse().unwrap_or(1), column.parse().unwrap_or(1));
    let line_start: usize = inner.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let chars = (column - 1).saturating_sub(if line == 1 { added } else { 0 });
    let rest = &inner[line_start..];
    line_start + rest.char_indices().nth(chars).map_or(rest.len(), |(offset, _)| offset)
}

/// How much of a text can be read, open brackets closed. The library only remembers where its last named rule began.
fn readable(inner: &str) -> usize {
    let reads = |end: &usize| {
        let closed = format!("{}{}", &inner[..*end], closing(&inner[..*end]));
        inner[..*end].ends_with(|char: char| !char.is_whitespace())
            && (parse_json_path(&closed).is_ok() || parse_json_path(&format!("{PREDICATE_OPEN}{closed}]")).is_ok())
    };
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    let is_end = |end: &usize| {
        inner.is_char_boundary(*end) && !(inner[..*end].ends_with(is_word) && inner[*end..].starts_with(is_word))
    };
    (1..=inner.len()).rev().filter(is_end).take(READ_MAX).find(reads).unwrap_or(0)
}

/// The brackets that a text leaves open.
fn closing(text: &str) -> String {
    let (bytes, mut open, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => {
                at = string_end(bytes, at, quote);
                continue;
            }
            b'(' => open.push(')'),
            b'[' => open.push(']'),
            b')' | b']' => drop(open.pop()),
            _ => {}
        }
        at += 1;
    }
    open.into_iter().rev().collect()
}

fn unexpected(text: &str, at: usize) -> Mistake {
    let rest = text.get(at..).unwrap_or_default().trim_start();
    let at = text.len() - rest.len();
    let word = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    let operator = ["==", "!=", "<=", ">=", "&&", "||"]
        .iter()
        .find(|operator| rest.starts_with(**operator))
        .map(|operator| operator.len());
    let length = operator.unwrap_or(if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) });
    if length == 0 {
        let end = text.trim_end().len();
        let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
        return Mistake::new(end - last..end, "the expression ends too early").with_help(end_help(&text[..end]));
    }
    if let Some(mistake) = wrong_escape(text, at) {
        return mistake;
    }
    let range = at..at + length;
    let help = help(text, at, &text[range.clone()]);
    Mistake::new(range.clone(), format!("unexpected `{}`", &text[range])).with_help(help)
}

/// Where a word follows a name, as in `$.type in ['a']`: the library would take both for one name.
fn word_after_name(text: &str) -> Option<usize> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii();
    let (mut quote, mut is_escaped, mut previous, mut in_name) = (None, false, ' ', false);
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) => {
                quote = Some(open).filter(|open| is_escaped || *open != c);
                is_escaped = c == '\\' && !is_escaped;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            None if in_name && is_letter(c) && previous.is_whitespace() => return Some(at),
            None if c.is_whitespace() => {}
            None => in_name = is_letter(c) && (in_name || previous == '.'),
        }
        previous = c;
    }
    None
}

/// The backslash of a text that `JSONPath` cannot read, where that text begins at `at`.
fn wrong_escape(text: &str, at: usize) -> Option<Mistake> {
    let quote = text[at..].chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut chars = text[at + 1..].char_indices();
    while let Some((offset, c)) = chars.next() {
        if c == quote {
            return None;
        }
        let Some((_, escaped)) = (c == '\\').then(|| chars.next()).flatten() else { continue };
        if escaped != quote && !"bfnrt/\\u".contains(escaped) {
            let start = at + 1 + offset;
            let range = start..start + 1 + escaped.len_utf8();
            let help = format!("in a pattern `[{escaped}]` or `\\\\{escaped}`: JSONPath has escapes of its own");
            return Some(Mistake::new(range, format!("`\\{escaped}` is no escape of JSONPath")).with_help(Some(help)));
        }
    }
    None
}

fn end_help(text: &str) -> Option<String> {
    text.is_empty().then(|| "write a path such as `$.properties.total`, or a condition on one".to_owned())
}

fn help(text: &str, at: usize, found: &str) -> Option<String> {
    let before = text[..at].trim_end();
    let is_name = found.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let word = match found {
        "=" => "equality is `==`",
        "&" | "and" => "both conditions: `&&`",
        "|" | "or" => "either condition: `||`",
        "not" => "the opposite: `!(…)`",
        "$" | "@" if !before.is_empty() => "both conditions: `&&`; either: `||`",
        "\"" | "'" if !text[at + 1..].contains(found) => "text needs a closing quote",
        "==" | "!=" | "<=" | ">=" if before.ends_with(')') => "a condition stands by itself; `!` is its opposite",
        _ if text[at + found.len()..].starts_with('(') => return Some(format!("the functions are {FUNCTIONS}")),
        "in" | "contains" | "like" => "for one of several values write `match($.path, 'one|two')`",
        _ if found.bytes().all(|byte| byte.is_ascii_digit()) => "integers go up to 9007199254740991",
        _ if is_name && (before.is_empty() || before.ends_with(['(', '!', '&', '|'])) => {
            return Some(format!("a path begins with `$`: `$.{found}`"));
        }
        _ => return None,
    };
    Some(word.to_owned())
}

// === lowering ===

/// Turns what the library parsed into what we run. The library keeps no places, so the calls of functions are found in
/// the text beforehand, in the order in which lowering meets them.
struct Lowering<'t> {
    text: &'t str,
    calls: std::vec::IntoIter<Range<usize>>,
}

impl<'t> Lowering<'t> {
    fn of(text: &'t str) -> Result<Self, Mistake> {
        if text.trim().is_empty() {
            return Err(unexpected(text, text.len()));
        }
        if let Some(at) = word_after_name(text) {
            return Err(unexpected(text, at));
        }
        Ok(Self { text, calls: calls(text).into_iter() })
    }

    fn whole(&self) -> Range<usize> {
        let (start, inner) = trimmed(self.text);
        start..start + inner.len()
    }

    /// A path as a condition: true if it selects anything; `$[?…]` is the predicate itself.
    fn path_condition(&mut self, path: &parsed::JpQuery) -> Result<Condition, Mistake> {
        match path.segments.as_slice() {
            [parsed::Segment::Selector(parsed::Selector::Filter(filter))] => self.condition(filter),
            segments => self.query(From::Root, segments).map(Condition::Exists),
        }
    }

    fn condition(&mut self, filter: &parsed::Filter) -> Result<Condition, Mistake> {
        match filter {
            parsed::Filter::Or(filters) => self.conditions(filters).map(Condition::Any),
            parsed::Filter::And(filters) => self.conditions(filters).map(Condition::All),
            parsed::Filter::Atom(atom) => self.atom(atom),
        }
    }

    fn conditions(&mut self, filters: &[parsed::Filter]) -> Result<Vec<Condition>, Mistake> {
        filters.iter().map(|filter| self.condition(filter)).collect()
    }

    fn atom(&mut self, atom: &parsed::FilterAtom) -> Result<Condition, Mistake> {
        match atom {
            parsed::FilterAtom::Filter { expr, not } => Ok(negated(self.condition(expr)?, *not)),
            parsed::FilterAtom::Test { expr, not } => Ok(negated(self.test(expr)?, *not)),
            parsed::FilterAtom::Comparison(comparison) => self.comparison(comparison),
        }
    }

    fn test(&mut self, test: &parsed::Test) -> Result<Condition, Mistake> {
        match test {
            parsed::Test::RelQuery(segments) => self.query(From::Current, segments).map(Condition::Exists),
            parsed::Test::AbsQuery(query) => self.query(From::Root, &query.segments).map(Condition::Exists),
            parsed::Test::Function(function) => self.test_function(function),
        }
    }

    fn test_function(&mut self, function: &parsed::TestFunction) -> Result<Condition, Mistake> {
        let range = self.next_call();
        match function {
            parsed::TestFunction::Search(subject, pattern) => self.matches(&range, subject, pattern, |text| text),
            parsed::TestFunction::Match(subject, pattern) => {
                self.matches(&range, subject, pattern, |text| format!(r"\A(?:{text})\z"))
            }
            parsed::TestFunction::Custom(name, arguments) => self.sets(&range, name, arguments),
            parsed::TestFunction::Length(_) | parsed::TestFunction::Count(_) | parsed::TestFunction::Value(_) => {
                let name = self.name_of(&range);
                Err(Mistake::new(range, format!("`{name}` is a value, not a condition"))
                    .with_help(Some(format!("compare it: `{name}(…) > 0`"))))
            }
        }
    }

    fn comparison(&mut self, comparison: &parsed::Comparison) -> Result<Condition, Mistake> {
        let (operator, left, right) = match comparison {
            parsed::Comparison::Eq(left, right) => (Operator::Equal, left, right),
            parsed::Comparison::Ne(left, right) => (Operator::NotEqual, left, right),
            parsed::Comparison::Gt(left, right) => (Operator::Greater, left, right),
            parsed::Comparison::Gte(left, right) => (Operator::GreaterOrEqual, left, right),
            parsed::Comparison::Lt(left, right) => (Operator::Less, left, right),
            parsed::Comparison::Lte(left, right) => (Operator::LessOrEqual, left, right),
        };
        Ok(Condition::Compare(operator, self.comparable(left)?, self.comparable(right)?))
    }

    fn comparable(&mut self, comparable: &parsed::Comparable) -> Result<Term, Mistake> {
        match comparable {
            parsed::Comparable::Literal(literal) => Ok(Term::Constant(constant(literal))),
            parsed::Comparable::SingularQuery(query) => Ok(Term::Path(singular(query))),
            parsed::Comparable::Function(function) => self.value_function(function),
        }
    }

    fn value_function(&mut self, function: &parsed::TestFunction) -> Result<Term, Mistake> {
        let range = self.next_call();
        match function {
            parsed::TestFunction::Length(argument) => {
                Ok(Term::Length(Box::new(self.value_argument(&range, argument)?)))
            }
            parsed::TestFunction::Count(argument) => self.nodes_argument(&range, argument).map(Term::Count),
            parsed::TestFunction::Value(argument) => self.nodes_argument(&range, argument).map(Term::Value),
            parsed::TestFunction::Search(..) | parsed::TestFunction::Match(..) | parsed::TestFunction::Custom(..) => {
                let name = self.name_of(&range);
                Err(Mistake::new(range, format!("`{name}` is a condition, not a value"))
                    .with_help(Some("it needs no comparison; `!` is its opposite".to_owned())))
            }
        }
    }

    /// An argument with one value: a constant, a path to one node at most, or a function of such.
    fn value_argument(&mut self, call: &Range<usize>, argument: &parsed::FnArg) -> Result<Term, Mistake> {
        match argument {
            parsed::FnArg::Literal(literal) => Ok(Term::Constant(constant(literal))),
            parsed::FnArg::Filter(_) => Err(self.ill_typed(call, "a value, not a condition")),
            parsed::FnArg::Test(test) => {
                let query = match &**test {
                    parsed::Test::Function(function) => return self.value_function(function),
                    parsed::Test::RelQuery(segments) => self.query(From::Current, segments)?,
                    parsed::Test::AbsQuery(query) => self.query(From::Root, &query.segments)?,
                };
                let singular = query.is_singular();
                singular.then_some(Term::Path(query)).ok_or_else(|| self.ill_typed(call, "a path to one node"))
            }
        }
    }

    /// An argument that is a path.
    fn nodes_argument(&mut self, call: &Range<usize>, argument: &parsed::FnArg) -> Result<Query, Mistake> {
        if let parsed::FnArg::Test(test) = argument {
            match &**test {
                parsed::Test::RelQuery(segments) => return self.query(From::Current, segments),
                parsed::Test::AbsQuery(query) => return self.query(From::Root, &query.segments),
                parsed::Test::Function(_) => {}
            }
        }
        Err(self.ill_typed(call, "a path"))
    }

    fn ill_typed(&self, call: &Range<usize>, wanted: &str) -> Mistake {
        Mistake::new(call.clone(), format!("`{}` needs {wanted}", self.name_of(call)))
    }

    fn matches(
        &mut self,
        call: &Range<usize>,
        subject: &parsed::FnArg,
        pattern: &parsed::FnArg,
        anchor: impl Fn(String) -> String,
    ) -> Result<Condition, Mistake> {
        let subject = self.value_argument(call, subject)?;
        let parsed::FnArg::Literal(parsed::Literal::String(pattern)) = pattern else {
            return Err(Mistake::new(call.clone(), "the pattern must be constant text")
                .with_help(Some("a pattern is compiled when the file is, and never comes from an event".to_owned())));
        };
        let compiled = functions::compile_pattern(&anchor(i_regexp(pattern)));
        let compiled = compiled.map_err(|error| Mistake::new(last_text(self.text, call), error))?;
        Ok(Condition::Matches(subject, compiled))
    }

    fn sets(&mut self, call: &Range<usize>, name: &str, arguments: &[parsed::FnArg]) -> Result<Condition, Mistake> {
        let operator = match name {
            "in" => SetOperator::In,
            "nin" => SetOperator::NotIn,
            "any_of" => SetOperator::AnyOf,
            "none_of" => SetOperator::NoneOf,
            "subset_of" => SetOperator::SubsetOf,
            _ => return Err(Mistake::new(call.clone(), format!("unknown function `{name}`"))),
        };
        let [left, right] = arguments else { return Err(self.ill_typed(call, "two values")) };
        Ok(Condition::Sets(operator, self.value_argument(call, left)?, self.value_argument(call, right)?))
    }

    fn query(&mut self, from: From, segments: &[parsed::Segment]) -> Result<Query, Mistake> {
        let below = segments.iter().filter(|segment| matches!(segment, parsed::Segment::Descendant(_))).count();
        if below > BELOW_MAX {
            return Err(Mistake::new(self.whole(), format!("a path may say `..` {BELOW_MAX} times at most")));
        }
        let segments = segments.iter().map(|segment| self.segment(segment)).collect::<Result<_, _>>()?;
        Ok(Query { from, segments })
    }

    fn segment(&mut self, segment: &parsed::Segment) -> Result<Segment, Mistake> {
        match segment {
            parsed::Segment::Descendant(inner) => self.selectors(inner).map(Segment::Below),
            parsed::Segment::Selectors(_) => self.selectors(segment).map(Segment::Many),
            parsed::Segment::Selector(selector) => {
                let one = matches!(selector, parsed::Selector::Name(_) | parsed::Selector::Index(_));
                let selector = self.selector(selector)?;
                Ok(if one { Segment::One(selector) } else { Segment::Many(vec![selector]) })
            }
        }
    }

    fn selectors(&mut self, segment: &parsed::Segment) -> Result<Vec<Selector>, Mistake> {
        match segment {
            parsed::Segment::Descendant(inner) => self.selectors(inner),
            parsed::Segment::Selector(selector) => self.selector(selector).map(|selector| vec![selector]),
            parsed::Segment::Selectors(selectors) => selectors.iter().map(|selector| self.selector(selector)).collect(),
        }
    }

    fn selector(&mut self, selector: &parsed::Selector) -> Result<Selector, Mistake> {
        Ok(match selector {
            parsed::Selector::Name(name) => Selector::Name(name.clone()),
            parsed::Selector::Wildcard => Selector::Wildcard,
            parsed::Selector::Index(index) => Selector::Index(*index),
            parsed::Selector::Slice(start, end, step) => {
                Selector::Slice { start: *start, end: *end, step: step.unwrap_or(1) }
            }
            parsed::Selector::Filter(filter) => Selector::Filter(self.condition(filter)?),
        })
    }

    fn next_call(&mut self) -> Range<usize> {
        self.calls.next().unwrap_or_else(|| self.whole())
    }

    fn name_of(&self, call: &Range<usize>) -> &'t str {
        self.text[call.clone()].split('(').next().unwrap_or_default().trim()
    }
}

fn negated(condition: Condition, not: bool) -> Condition {
    if not { Condition::Not(Box::new(condition)) } else { condition }
}

fn constant(literal: &parsed::Literal) -> Json {
    match literal {
        parsed::Literal::Int(int) => Json::from(*int),
        parsed::Literal::Float(float) => Json::from(*float),
        parsed::Literal::String(text) => Json::from(text.as_str()),
        parsed::Literal::Bool(bool) => Json::from(*bool),
        parsed::Literal::Null => Json::Null,
    }
}

fn singular(query: &parsed::SingularQuery) -> Query {
    let (from, segments) = match query {
        parsed::SingularQuery::Current(segments) => (From::Current, segments),
        parsed::SingularQuery::Root(segments) => (From::Root, segments),
    };
    let one = |segment: &parsed::SingularQuerySegment| match segment {
        parsed::SingularQuerySegment::Index(index) => Segment::One(Selector::Index(*index)),
        parsed::SingularQuerySegment::Name(name) => Segment::One(Selector::Name(name.clone())),
    };
    Query { from, segments: segments.iter().map(one).collect() }
}

/// RFC 9485 as the regex crate has it: there, `.` is any character but a line break of either kind.
fn i_regexp(pattern: &str) -> String {
    let (mut translated, mut in_class, mut escaped) = (String::with_capacity(pattern.len()), false, false);
    for char in pattern.chars() {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '.' if !in_class => {
                translated.push_str(r"[^\n\r]");
                continue;
            }
            _ => {}
        }
        translated.push(char);
    }
    translated
}

// === places ===

/// The calls of functions in a text, name to closing bracket, in order of their names.
fn calls(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let (mut calls, mut open): (Vec<Range<usize>>, Vec<Option<usize>>) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => {
                at = string_end(bytes, at, quote);
                continue;
            }
            b'(' => {
                let name =
                    bytes[..at].iter().rev().take_while(|byte| byte.is_ascii_lowercase() || **byte == b'_').count();
                open.push((name > 0).then_some(calls.len()));
                if name > 0 {
                    calls.push(at - name..text.len());
                }
            }
            b')' => {
                if let Some(call) = open.pop().flatten() {
                    calls[call].end = at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    calls
}

fn string_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The last quoted text of a call.
fn last_text(text: &str, call: &Range<usize>) -> Range<usize> {
    let (bytes, mut last, mut at) = (text.as_bytes(), call.clone(), call.start);
    while at < call.end {
        if matches!(bytes[at], b'\'' | b'"') {
            let end = string_end(bytes, at, bytes[at]);
            last = at..end;
            at = end;
        } else {
            at += 1;
        }
    }
    last
}

#[cfg(test)]
mod tests;
