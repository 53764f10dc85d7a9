//! Templates with types: `"{{ expression }}"` alone keeps the value's type, anything else renders text.
//!
//! A string without braces is itself. A plain path such as `{{ context.page.url }}`, or a choice of some, is walked without
//! the engine; text with holes is cut into literals and expressions; only `{% %}` blocks become templates of the engine.
//! As in Jinja, one line break at the end of a string with braces is dropped. Nothing here knows where a value goes.

use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use minijinja::{AutoEscape, Environment, ErrorKind, Expression, Output, State, UndefinedBehavior};

use super::json::Writer;
use super::names::{self, Call, CallKind};
use super::plain::{self, Plain};
use super::scan::{self, Piece, PieceKind, Token, TokenKind};
use super::scope::{Found, LetError};
use super::{
    Escape, EvalError, FUEL, Mistake, OUTPUT_MAX_BYTES, Omit, Scope, Value, did_you_mean, excerpt, functions, json,
    text,
};

pub use super::names::{FileUse, NameUse};

/// How deep macros and loops may nest.
const RECURSION_MAX: usize = 64;

/// The names of a block template in its own environment; the name says how its values are escaped.
const PLAIN: &str = "plain";
const URL: &str = "url";

/// A compiled string of the file.
pub struct Template {
    kind: Kind,
    text: Box<str>,
    names: Vec<NameUse>,
    files: Vec<FileUse>,
}

enum Kind {
    /// The same for every event.
    Constant(Value),
    /// `{{ expression }}` alone.
    Whole(Code),
    /// Literals and expressions in turn.
    Text(Vec<Part>),
    /// `{% %}` blocks.
    Block(Block),
}

enum Part {
    Literal(String),
    Code(Code),
}

/// One expression and its bytes in the text, braces not included.
struct Code {
    run: Run,
    range: Range<usize>,
}

enum Run {
    /// Dotted names: walked, no engine.
    Path(Vec<String>),
    /// What is told without the engine unless it fails.
    Plain(Plain, Expression<'static, 'static>),
    /// Anything else.
    Expression(Expression<'static, 'static>),
}

struct Block {
    environment: Environment<'static>,
    prefix: String,
}

/// One environment for the life of the process, with filters and functions and never a template: expressions borrow it
/// for ever, so a reload drops them and leaks nothing.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION_MAX);
    environment.set_debug(false);
    environment.set_auto_escape_callback(|name| match name {
        URL => AutoEscape::Custom(URL.into()),
        _ => AutoEscape::None,
    });
    environment.set_formatter(format);
    functions::register(&mut environment);
    environment
}

fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), minijinja::Error> {
    let escape = if matches!(state.auto_escape(), AutoEscape::Custom(_)) { Escape::Url } else { Escape::Plain };
    let mut printed = String::new();
    text::push(&mut printed, value, escape).map_err(|error| functions::failed(error.message))?;
    out.write_str(&printed).map_err(minijinja::Error::from)
}

// === impl Template ===

impl Template {
    /// Compiles one string.
    ///
    /// # Errors
    /// Every mistake found: syntax, unknown filters, functions and tests, broken constant patterns.
    pub fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        if !scan::is_template(text) {
            return Ok(Self { text: text.into(), ..Self::constant(Value::from(text)) });
        }
        let text = without_line_break(text);
        let pieces = scan::pieces(text).map_err(|mistake| vec![mistake])?;
        let mentions = names::mentions(text, &pieces);
        let kind = compile(text, &pieces);
        let mut mistakes = kind.as_ref().err().cloned().unwrap_or_default();
        mistakes.extend(check_pieces(text, &pieces, &mentions.calls, &mistakes));
        mistakes.sort_by_key(|mistake| mistake.range.start);
        let kind = kind.ok().filter(|_| mistakes.is_empty()).ok_or(mistakes)?;
        let files = names::files(&mentions.calls).collect();
        Ok(Self { kind, text: text.into(), names: mentions.names, files })
    }

    /// The names that a text reads as far as its syntax is right, whether or not it is a template otherwise.
    #[must_use]
    pub fn names_of(text: &str, mistakes: &[Mistake]) -> Vec<NameUse> {
        let text = without_line_break(text);
        let Ok(pieces) = scan::pieces(text) else { return Vec::new() };
        // What is only unknown leaves the rest of its piece readable.
        let is_broken = |piece: &Piece| {
            let is_here = |mistake: &&Mistake| is_within(&(mistake.range.start..mistake.range.start), &piece.outer);
            mistakes.iter().filter(is_here).any(|mistake| !mistake.message.starts_with("unknown "))
        };
        // What a broken statement would have bound is not unknown.
        if pieces.iter().any(|piece| piece.kind == PieceKind::Statement && is_broken(piece)) {
            return Vec::new();
        }
        let readable: Vec<Piece> = pieces.into_iter().filter(|piece| !is_broken(piece)).collect();
        names::mentions(text, &readable).names
    }

    /// A template that is one constant value.
    #[must_use]
    pub fn constant(value: Value) -> Self {
        Self { kind: Kind::Constant(value), text: Box::default(), names: Vec::new(), files: Vec::new() }
    }

    /// It, as written; empty for one that was made from a constant.
    #[must_use]
    pub fn written(&self) -> &str {
        &self.text
    }

    /// The names it reads, `let`s and event fields alike, in order of appearance.
    #[must_use]
    pub fn names(&self) -> Vec<NameUse> {
        self.names.clone()
    }

    /// The files it reads with `file('…')`, in order of appearance; their contents are expected in `Names::files`.
    #[must_use]
    pub fn files(&self) -> Vec<FileUse> {
        self.files.clone()
    }

    /// Evaluates now what reads nothing but `env`, `tables`, constants and `let`s that are constant by now; pieces of
    /// text are folded one by one. Pieces with bytes that are `unknown`, of variables and files, stay as they are.
    ///
    /// # Errors
    /// When such a piece fails.
    pub fn fold(self, file: &Scope, unknown: &[Range<usize>]) -> Result<Self, EvalError> {
        let Self { kind, text, names, files } = self;
        let is_known = |range: &Range<usize>| !unknown.iter().any(|part| is_within(part, range));
        let settled = |range: &Range<usize>| is_settled(&names, range, file) && is_known(range);
        let kind = match kind {
            Kind::Constant(value) => Kind::Constant(value),
            Kind::Whole(code) if settled(&code.range) => Kind::Constant(code.value(file, &text)?),
            Kind::Whole(code) => Kind::Whole(code),
            Kind::Text(parts) => fold_parts(parts, &settled, file, &text)?,
            Kind::Block(block) if settled(&(0..text.len())) => Kind::Constant(block.render(file, PLAIN, &text)?.into()),
            Kind::Block(block) => Kind::Block(block),
        };
        Ok(Self { kind, text, names, files })
    }

    /// The value, if it is the same for every event.
    #[must_use]
    pub fn as_constant(&self) -> Option<&Value> {
        match &self.kind {
            Kind::Constant(value) => Some(value),
            Kind::Whole(_) | Kind::Text(_) | Kind::Block(_) => None,
        }
    }

    /// The text up to the first piece that depends on an event.
    #[must_use]
    pub fn constant_prefix(&self) -> &str {
        match &self.kind {
            Kind::Constant(value) => value.as_str().unwrap_or_default(),
            Kind::Whole(_) => "",
            Kind::Text(parts) => match parts.first() {
                Some(Part::Literal(literal)) => literal,
                Some(Part::Code(_)) | None => "",
            },
            Kind::Block(block) => &block.prefix,
        }
    }

    /// The bytes of the pieces that are not constant, in order.
    #[must_use]
    pub fn holes(&self) -> Vec<Range<usize>> {
        match &self.kind {
            Kind::Constant(_) => Vec::new(),
            Kind::Whole(code) => vec![code.range.clone()],
            Kind::Text(parts) => parts.iter().filter_map(Part::hole).collect(),
            Kind::Block(_) => std::iter::once(0..self.text.len()).collect(),
        }
    }

    /// Whether missing, as the whole value, is possible at all (`false` for text and constants).
    #[must_use]
    pub fn is_value(&self) -> bool {
        match &self.kind {
            Kind::Constant(value) => value.is_undefined(),
            Kind::Whole(_) => true,
            Kind::Text(_) | Kind::Block(_) => false,
        }
    }

    /// The typed value; undefined is "missing".
    ///
    /// # Errors
    /// When the expression fails on this event.
    pub fn value(&self, scope: &Scope) -> Result<Value, EvalError> {
        match &self.kind {
            Kind::Constant(value) => Ok(value.clone()),
            Kind::Whole(code) => code.value(scope, &self.text),
            Kind::Text(_) | Kind::Block(_) => self.text(scope, Escape::Plain).map(Value::from),
        }
    }

    /// The value taken as true or false, as minijinja's `if` does.
    ///
    /// # Errors
    /// When the expression fails on this event.
    pub fn is_true(&self, scope: &Scope) -> Result<bool, EvalError> {
        Ok(self.value(scope)?.is_true())
    }

    /// Appends the value as JSON; `false` and nothing written when it is missing (or omitted).
    ///
    /// # Errors
    /// When the expression fails on this event, or its output is too large.
    pub fn write_json(&self, scope: &Scope, omit: Omit, out: &mut Vec<u8>) -> Result<bool, EvalError> {
        let start = out.len();
        let written = self.append_json(scope, omit, out);
        if matches!(written, Ok(true)) && !json::is_omitted(&out[start..], omit) {
            return Ok(true);
        }
        out.truncate(start);
        written.map(|_| false)
    }

    fn append_json(&self, scope: &Scope, omit: Omit, out: &mut Vec<u8>) -> Result<bool, EvalError> {
        let start = out.len();
        if let Kind::Whole(Code { run: Run::Plain(plain, _), .. }) = &self.kind {
            if let Some(is_written) = plain.write_json(scope, omit, out) {
                return Ok(is_written);
            }
            out.truncate(start);
        }
        let found = match &self.kind {
            Kind::Whole(Code { run: Run::Path(path), range }) => {
                scope.find(path).map_err(|error| error.at(range.clone()))?
            }
            Kind::Constant(_) | Kind::Whole(_) | Kind::Text(_) | Kind::Block(_) => Found::Value(self.value(scope)?),
        };
        plain::write(found, &mut Writer::new(out, omit, scope.output_max_bytes()))
    }

    /// Appends the value as text; `false` and nothing written when it is missing, or null, as a whole.
    ///
    /// # Errors
    /// When the expression fails on this event, or a piece inside text is missing or null.
    pub fn write_text(&self, scope: &Scope, escape: Escape, out: &mut String) -> Result<bool, EvalError> {
        let start = out.len();
        let written = self.append_text(scope, escape, out);
        if !matches!(written, Ok(true)) {
            out.truncate(start);
        }
        written
    }

    fn append_text(&self, scope: &Scope, escape: Escape, out: &mut String) -> Result<bool, EvalError> {
        let (value, escape) = match &self.kind {
            Kind::Constant(value) => (value.clone(), Escape::Plain),
            Kind::Whole(code) => (code.value(scope, &self.text)?, escape),
            Kind::Text(parts) => return self.append_parts(parts, scope, escape, out).map(|()| true),
            Kind::Block(_) => {
                out.push_str(&self.text(scope, escape)?);
                return Ok(true);
            }
        };
        if value.is_undefined() || value.is_none() {
            return Ok(false);
        }
        text::push(out, &value, escape)?;
        Ok(true)
    }

    fn text(&self, scope: &Scope, escape: Escape) -> Result<String, EvalError> {
        match &self.kind {
            Kind::Block(block) => {
                let name = if escape == Escape::Url { URL } else { PLAIN };
                block.render(scope, name, &self.text)
            }
            Kind::Constant(_) | Kind::Whole(_) | Kind::Text(_) => {
                let mut out = String::new();
                self.append_text(scope, escape, &mut out)?;
                Ok(out)
            }
        }
    }

    fn append_parts(&self, parts: &[Part], scope: &Scope, escape: Escape, out: &mut String) -> Result<(), EvalError> {
        let start = out.len();
        for part in parts {
            match part {
                Part::Literal(literal) => out.push_str(literal),
                Part::Code(code) => code.push(scope, escape, &self.text, out)?,
            }
            if out.len() - start > OUTPUT_MAX_BYTES {
                return Err(EvalError::too_large(OUTPUT_MAX_BYTES));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.text).finish()
    }
}

/// Appends a value as JSON text.
///
/// # Errors
/// When it cannot be JSON or is too large.
pub fn write_json(value: &Value, omit: Omit, out: &mut Vec<u8>) -> Result<(), EvalError> {
    Writer::new(out, omit, OUTPUT_MAX_BYTES).value(value)
}

// === impl Part, Code ===

impl Part {
    fn hole(&self) -> Option<Range<usize>> {
        match self {
            Self::Literal(_) => None,
            Self::Code(code) => Some(code.range.clone()),
        }
    }
}

impl Code {
    fn value(&self, scope: &Scope, text: &str) -> Result<Value, EvalError> {
        match &self.run {
            Run::Path(path) => scope.find(path).map(Found::into_value).map_err(|error| error.at(self.range.clone())),
            Run::Plain(plain, expression) => plain.value(scope).map_or_else(|| self.eval(expression, scope, text), Ok),
            Run::Expression(expression) => self.eval(expression, scope, text),
        }
    }

    fn eval(&self, expression: &Expression<'_, '_>, scope: &Scope, text: &str) -> Result<Value, EvalError> {
        expression.eval(scope.to_value()).map_err(|error| eval_error(&error, text, self.range.start))
    }

    fn push(&self, scope: &Scope, escape: Escape, text: &str, out: &mut String) -> Result<(), EvalError> {
        let value = self.value(scope, text)?;
        text::push(out, &value, escape).map_err(|error| self.unprintable(&value, &error, text))
    }

    fn unprintable(&self, value: &Value, error: &EvalError, text: &str) -> EvalError {
        in_text(value.is_undefined(), value.is_none(), &text[self.range.clone()])
            .unwrap_or_else(|| error.clone())
            .at(trimmed(text, self.range.clone()))
    }
}

/// The error for what has no text, with the way out.
fn in_text(missing: bool, null: bool, expression: &str) -> Option<EvalError> {
    let name = excerpt(expression.trim());
    if missing {
        return Some(EvalError::new(format!("`{name}` is missing inside text; add `| default('…')` or `| required`")));
    }
    null.then(|| EvalError::new(format!("`{name}` is null inside text; write `coalesce({name}, '…')`")))
}

// === impl Block ===

impl Block {
    fn compile(text: &str, prefix: String) -> Result<Self, Mistake> {
        let mut environment = ENVIRONMENT.clone();
        for name in [PLAIN, URL] {
            environment
                .add_template_owned(name, format!("{text}\n"))
                .map_err(|error| syntax_mistake(&error, text, &(0..text.len())))?;
        }
        Ok(Self { environment, prefix })
    }

    fn render(&self, scope: &Scope, name: &str, text: &str) -> Result<String, EvalError> {
        let render = || self.environment.get_template(name)?.render(scope.to_value());
        let rendered = render().map_err(|error| eval_error(&error, text, 0))?;
        if rendered.len() > OUTPUT_MAX_BYTES { Err(EvalError::too_large(OUTPUT_MAX_BYTES)) } else { Ok(rendered) }
    }
}

// === compiling ===

fn without_line_break(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn compile(text: &str, pieces: &[Piece]) -> Result<Kind, Vec<Mistake>> {
    if let [piece] = pieces
        && piece.kind == PieceKind::Expression
    {
        return Code::compile(text, piece).map(Kind::Whole).map_err(|mistake| vec![mistake]);
    }
    let literals = literals(text, pieces);
    if pieces.iter().any(|piece| piece.kind == PieceKind::Statement || is_raw(piece)) {
        let prefix = literals.into_iter().next().flatten().unwrap_or_default();
        return Block::compile(text, prefix.to_owned()).map(Kind::Block).map_err(|mistake| vec![mistake]);
    }
    compile_parts(text, pieces, &literals)
}

fn is_raw(piece: &Piece) -> bool {
    piece.kind == PieceKind::Text && piece.inner != piece.outer
}

fn compile_parts(text: &str, pieces: &[Piece], literals: &[Option<&str>]) -> Result<Kind, Vec<Mistake>> {
    let (mut parts, mut mistakes) = (Vec::new(), Vec::new());
    for (piece, literal) in pieces.iter().zip(literals) {
        match literal {
            Some(literal) => push_literal(&mut parts, literal),
            None if piece.kind == PieceKind::Comment => {}
            None => match Code::compile(text, piece) {
                Ok(code) => parts.push(Part::Code(code)),
                Err(mistake) => mistakes.push(mistake),
            },
        }
    }
    if mistakes.is_empty() { Ok(from_parts(parts)) } else { Err(mistakes) }
}

/// The literal text of each piece, without the white space that its neighbours eat; `None` for what is no text.
fn literals<'t>(text: &'t str, pieces: &[Piece]) -> Vec<Option<&'t str>> {
    let literal = |index: usize, piece: &Piece| {
        let mut literal = &text[piece.inner.clone()];
        if index > 0 && pieces[index - 1].trim_after {
            literal = literal.trim_start();
        }
        if pieces.get(index + 1).is_some_and(|next| next.trim_before) {
            literal = literal.trim_end();
        }
        literal
    };
    let is_text = |piece: &Piece| piece.kind == PieceKind::Text;
    pieces.iter().enumerate().map(|(index, piece)| is_text(piece).then(|| literal(index, piece))).collect()
}

fn push_literal(parts: &mut Vec<Part>, literal: &str) {
    match parts.last_mut() {
        Some(Part::Literal(before)) => before.push_str(literal),
        Some(Part::Code(_)) | None if literal.is_empty() => {}
        Some(Part::Code(_)) | None => parts.push(Part::Literal(literal.to_owned())),
    }
}

fn from_parts(mut parts: Vec<Part>) -> Kind {
    match parts.as_mut_slice() {
        [] => Kind::Constant(Value::from("")),
        [Part::Literal(literal)] => Kind::Constant(Value::from(std::mem::take(literal))),
        _ => Kind::Text(parts),
    }
}

impl Code {
    fn compile(text: &str, piece: &Piece) -> Result<Self, Mistake> {
        let range = piece.inner.clone();
        if let Some(path) = path(text, &piece.tokens) {
            return Ok(Self { run: Run::Path(path), range });
        }
        let source = text[range.clone()].to_owned();
        let compiled = ENVIRONMENT.compile_expression_owned(source);
        let expression = compiled.map_err(|error| syntax_mistake(&error, text, &range))?;
        let run = match Plain::read(text, &piece.tokens) {
            Some(plain) => Run::Plain(plain, expression),
            None => Run::Expression(expression),
        };
        Ok(Self { run, range })
    }
}

/// `a.b.c`, whose root is a name and no constant of the language.
pub(super) fn path(text: &str, tokens: &[Token]) -> Option<Vec<String>> {
    const CONSTANTS: [&str; 6] = ["true", "false", "none", "True", "False", "None"];
    let word = |range: &Range<usize>| &text[range.clone()];
    let mut path = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match (index % 2, token.kind) {
            (0, TokenKind::Word) => path.push(word(&token.range).to_owned()),
            (1, TokenKind::Sign) if word(&token.range) == "." => {}
            _ => return None,
        }
    }
    let first = path.first()?;
    let is_name = !CONSTANTS.contains(&first.as_str()) && !functions::is_function(first) && first != "not";
    (tokens.len() % 2 == 1 && is_name).then_some(path)
}

/// What `{}`, or a text in quotes, comes to.
pub(super) fn constant(text: &str, tokens: &[Token]) -> Option<Value> {
    let source = &text[tokens.first()?.range.start..tokens.last()?.range.end];
    let is_constant = source == "{}" || matches!(tokens, [token] if token.kind == TokenKind::Text);
    let compile = || ENVIRONMENT.compile_expression_owned(source.to_owned()).ok();
    is_constant.then(compile)??.eval(()).ok()
}

/// Whether the names within these bytes are settled when the file is.
fn is_settled(names: &[NameUse], range: &Range<usize>, file: &Scope) -> bool {
    names.iter().filter(|name| is_within(&name.range, range)).all(|name| {
        let root = name.path.split('.').next().unwrap_or_default();
        match file.names().lets.iter().rfind(|(own, _)| own == root) {
            Some((_, template)) => template.as_constant().is_some(),
            None => matches!(root, "env" | "tables"),
        }
    })
}

fn is_within(part: &Range<usize>, whole: &Range<usize>) -> bool {
    whole.start <= part.start && part.end <= whole.end
}

fn fold_parts(
    parts: Vec<Part>,
    settled: &dyn Fn(&Range<usize>) -> bool,
    file: &Scope,
    text: &str,
) -> Result<Kind, EvalError> {
    let mut folded = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Part::Code(code) if settled(&code.range) => {
                let mut literal = String::new();
                code.push(file, Escape::Plain, text, &mut literal)?;
                push_literal(&mut folded, &literal);
            }
            Part::Literal(literal) => push_literal(&mut folded, &literal),
            Part::Code(_) => folded.push(part),
        }
    }
    Ok(from_parts(folded))
}

// === mistakes ===

/// A syntax error of the engine, as ours: `within` are the bytes that were compiled.
fn syntax_mistake(error: &minijinja::Error, text: &str, within: &Range<usize>) -> Mistake {
    let range = error.range().map_or(within.clone(), |range| shifted(range, text, within));
    let message = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    Mistake::new(range, message)
}

fn shifted(range: Range<usize>, text: &str, within: &Range<usize>) -> Range<usize> {
    let start = boundary(text, (within.start + range.start).min(within.end));
    let end = boundary(text, (within.start + range.end).min(within.end));
    if start < end {
        return start..end;
    }
    // The engine points behind the end: show the last thing it read.
    let last = text[..start].trim_end();
    let width = last.chars().next_back().map_or(0, char::len_utf8);
    if start < within.end { start..boundary(text, start + 1) } else { last.len() - width..last.len() }
}

fn boundary(text: &str, at: usize) -> usize {
    (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let inner = &text[range.clone()];
    let start = range.start + (inner.len() - inner.trim_start().len());
    start..start + inner.trim().len()
}

/// What is wrong in the pieces whose syntax is right.
fn check_pieces(text: &str, pieces: &[Piece], calls: &[Call], broken: &[Mistake]) -> Vec<Mistake> {
    let within =
        |piece: &Piece, range: &Range<usize>| piece.outer.start <= range.start && range.start < piece.outer.end;
    let mut mistakes = Vec::new();
    for piece in pieces.iter().filter(|piece| !broken.iter().any(|mistake| within(piece, &mistake.range))) {
        mistakes.extend(calls.iter().filter(|call| within(piece, &call.range)).filter_map(check_call));
        mistakes.extend(repeated_lists(text, piece));
    }
    mistakes
}

fn check_call(call: &Call) -> Option<Mistake> {
    let known = match call.kind {
        CallKind::Filter => functions::is_filter(&call.name),
        CallKind::Test => functions::is_test(&call.name),
        CallKind::Function => functions::is_function(&call.name),
    };
    if known { check_argument(call) } else { Some(unknown(call.kind, &call.name, call.range.clone())) }
}

fn unknown(kind: CallKind, name: &str, range: Range<usize>) -> Mistake {
    let (what, help) = match kind {
        CallKind::Filter => ("filter", did_you_mean(name, functions::filters())),
        CallKind::Test => ("test", did_you_mean(name, functions::tests())),
        CallKind::Function => ("function", did_you_mean(name, functions::functions())),
    };
    Mistake::new(range, format!("unknown {what} `{name}`")).with_help(help)
}

/// `[…] * n`: a list that the engine would repeat without end, and nobody wants.
fn repeated_lists(text: &str, piece: &Piece) -> Vec<Mistake> {
    let word = |index: usize| piece.tokens.get(index).map_or("", |token| &text[token.range.clone()]);
    let mut opened_as_list = Vec::new();
    let mut mistakes = Vec::new();
    for (index, token) in piece.tokens.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| piece.tokens.get(index));
        match word(index) {
            "[" => {
                let subscript = before.is_some_and(|before| match before.kind {
                    TokenKind::Word => !names::is_keyword(&text[before.range.clone()]),
                    TokenKind::Text | TokenKind::Number => true,
                    TokenKind::Sign => matches!(&text[before.range.clone()], ")" | "]" | "}"),
                });
                if !subscript && index > 0 && word(index - 1) == "*" {
                    mistakes.push(Mistake::new(token.range.clone(), "a list cannot be repeated"));
                }
                opened_as_list.push(!subscript);
            }
            "]" if opened_as_list.pop() == Some(true) && word(index + 1) == "*" => {
                mistakes.push(Mistake::new(token.range.clone(), "a list cannot be repeated"));
            }
            _ => {}
        }
    }
    mistakes
}

/// Constant arguments that are checked when the file is: patterns, formats, the names that `map` and `select` apply.
fn check_argument(call: &Call) -> Option<Mistake> {
    let (argument, range) = call.text.as_ref()?;
    if call.kind != CallKind::Filter {
        return None;
    }
    match call.name.as_str() {
        "map" if !functions::is_filter(argument) => Some(unknown(CallKind::Filter, argument, inside(range))),
        "select" | "reject" if !functions::is_test(argument) => Some(unknown(CallKind::Test, argument, inside(range))),
        "regex_replace" => functions::pattern(argument).err().map(|error| Mistake::new(range.clone(), error)),
        "date" => functions::check_format(argument).err().map(|error| Mistake::new(range.clone(), error)),
        _ => None,
    }
}

/// What is between the quotes.
fn inside(quoted: &Range<usize>) -> Range<usize> {
    quoted.start + 1..quoted.end.saturating_sub(1).max(quoted.start + 1)
}

/// An error of the engine, as ours: `at` is where the source that ran begins in `text`.
fn eval_error(error: &minijinja::Error, text: &str, at: usize) -> EvalError {
    let range = error.range().map(|range| shifted(range, text, &(at..text.len())));
    let message = message(error, text, &range.clone().unwrap_or(at..text.len()));
    EvalError { message, range }
}

fn message(error: &minijinja::Error, text: &str, range: &Range<usize>) -> String {
    const MAX_CHARS: usize = 300;
    if let Some(error) = std::error::Error::source(error).and_then(|source| source.downcast_ref::<LetError>()) {
        return error.0.clone();
    }
    described(error, text, range).chars().take(MAX_CHARS).collect()
}

fn described(error: &minijinja::Error, text: &str, range: &Range<usize>) -> String {
    let (kind, detail, source) = (error.kind(), error.detail().unwrap_or_default(), &text[range.clone()]);
    if kind == ErrorKind::OutOfFuel {
        return format!("took more than {FUEL} steps, or made too much");
    }
    if detail.is_empty() {
        return kind.to_string();
    }
    if kind != ErrorKind::InvalidOperation {
        return format!("{kind}: {detail}");
    }
    match detail {
        text::MISSING => printed(in_text(true, false, source), detail),
        text::NULL => printed(in_text(false, true, source), detail),
        functions::REQUIRED => format!("`{}` is required, but missing", functions::subject(&text[..range.start])),
        _ => detail.to_owned(),
    }
}

fn printed(error: Option<EvalError>, detail: &str) -> String {
    error.map_or_else(|| detail.to_owned(), |error| error.message)
}

#[cfg(test)]
pub(super) mod tests;
