//! The names, filters, tests and functions a template mentions, each with its bytes.
//!
//! Works on tokens, keeping track of what `for`, `set`, `with`, `macro` and `call` bind. It reports; whether a name
//! exists is for `config` to say.

use std::collections::BTreeSet;
use std::ops::Range;

use super::scan::{Piece, PieceKind, Token, TokenKind};

/// A name that a template reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameUse {
    /// Dotted as far as it is constant: `env.TOKEN`, `traits.email`, `who`.
    pub path: String,
    /// Its bytes in the template's text.
    pub range: Range<usize>,
    /// Whether absence is handled on the spot (`default`, `coalesce`, `or`, `if`, `is defined`, `not`).
    pub optional: bool,
}

/// A `file('…')` that a template calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileUse {
    /// The path as written.
    pub path: String,
    /// The bytes of the string with its quotes.
    pub range: Range<usize>,
}

/// What is called by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    Filter,
    Test,
    Function,
}

/// A filter, test or function that a template calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) kind: CallKind,
    pub(super) name: String,
    pub(super) range: Range<usize>,
    /// The first argument, where it is a constant string: its text and bytes (with quotes).
    pub(super) text: Option<(String, Range<usize>)>,
}

/// Everything a template mentions by name, in order of appearance.
#[derive(Debug, Default)]
pub(super) struct Mentions {
    pub(super) names: Vec<NameUse>,
    pub(super) calls: Vec<Call>,
}

const KEYWORDS: [&str; 13] =
    ["and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None"];

/// Lists what the parts of a template mention.
pub(super) fn mentions(text: &str, pieces: &[Piece]) -> Mentions {
    let mut walk = Walk { text, scopes: vec![BTreeSet::new()], tested: BTreeSet::new(), found: Mentions::default() };
    for piece in pieces {
        match piece.kind {
            PieceKind::Expression => walk.expression(&piece.tokens, false),
            PieceKind::Statement => walk.statement(&piece.tokens),
            PieceKind::Text | PieceKind::Comment => {}
        }
    }
    let Walk { tested, mut found, .. } = walk;
    for name in &mut found.names {
        name.optional |= tested.contains(&name.path);
    }
    found
}

/// The calls of `file` with a constant path.
pub(super) fn files(calls: &[Call]) -> impl Iterator<Item = FileUse> {
    calls
        .iter()
        .filter(|call| call.kind == CallKind::Function && call.name == "file")
        .filter_map(|call| call.text.clone())
        .map(|(path, range)| FileUse { path, range })
}

struct Walk<'t> {
    text: &'t str,
    scopes: Vec<BTreeSet<&'t str>>,
    /// Paths that some condition of the template asks about.
    tested: BTreeSet<String>,
    found: Mentions,
}

impl<'t> Walk<'t> {
    fn word(&self, token: &Token) -> &'t str {
        &self.text[token.range.clone()]
    }

    fn is(&self, tokens: &[Token], index: Option<usize>, word: &str) -> bool {
        index.and_then(|index| tokens.get(index)).is_some_and(|token| self.word(token) == word)
    }

    fn bind(&mut self, name: &'t str) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name);
        }
    }

    fn bind_words(&mut self, tokens: &[Token]) {
        for token in tokens.iter().filter(|token| token.kind == TokenKind::Word) {
            self.bind(self.word(token));
        }
    }

    fn is_bound(&self, name: &str) -> bool {
        self.scopes.iter().any(|scope| scope.contains(name))
    }

    fn pop(&mut self) {
        if self.scopes.len() > 1 {
            self.scopes.pop();
        }
    }

    fn statement(&mut self, tokens: &[Token]) {
        let Some((keyword, rest)) = tokens.split_first() else { return };
        match self.word(keyword) {
            "for" => self.for_loop(rest),
            "if" | "elif" => self.expression(rest, true),
            "set" => self.set(rest),
            "with" => self.with(rest),
            "macro" => self.macro_block(rest),
            "call" => self.call_block(rest),
            "endfor" | "endwith" | "endmacro" | "endcall" => self.pop(),
            "filter" => self.filter_block(rest),
            _ => self.expression(rest, false),
        }
    }

    fn for_loop(&mut self, tokens: &[Token]) {
        let split = tokens.iter().position(|token| self.word(token) == "in").unwrap_or(tokens.len());
        let (targets, rest) = tokens.split_at(split);
        self.scopes.push(BTreeSet::from(["loop"]));
        self.bind_words(targets);
        let recursive = rest.last().is_some_and(|token| self.word(token) == "recursive");
        let end = if recursive { rest.len() - 1 } else { rest.len() };
        self.expression(rest.get(1..end).unwrap_or_default(), false);
    }

    fn set(&mut self, tokens: &[Token]) {
        let split = tokens.iter().position(|token| self.word(token) == "=");
        let (targets, value) = tokens.split_at(split.unwrap_or(1).min(tokens.len()));
        self.expression(value, false);
        let end = targets.iter().position(|token| self.word(token) == ".").unwrap_or(targets.len());
        self.bind_words(&targets[..end]);
    }

    fn with(&mut self, tokens: &[Token]) {
        self.expression(tokens, false);
        self.scopes.push(BTreeSet::new());
        for pair in tokens.windows(2) {
            if pair[0].kind == TokenKind::Word && self.word(&pair[1]) == "=" {
                self.bind(self.word(&pair[0]));
            }
        }
    }

    fn macro_block(&mut self, tokens: &[Token]) {
        let Some((name, parameters)) = tokens.split_first() else { return };
        self.bind(self.word(name));
        self.scopes.push(BTreeSet::from(["caller"]));
        self.parameters(parameters);
    }

    fn call_block(&mut self, tokens: &[Token]) {
        let has_parameters = self.is(tokens, Some(0), "(");
        let end = tokens.iter().position(|token| self.word(token) == ")").map_or(0, |index| index + 1);
        let (parameters, rest) = tokens.split_at(if has_parameters { end } else { 0 });
        self.expression(rest, false);
        self.scopes.push(BTreeSet::new());
        self.parameters(parameters);
    }

    fn parameters(&mut self, tokens: &[Token]) {
        for pair in tokens.windows(2) {
            if matches!(self.word(&pair[0]), "(" | ",") && pair[1].kind == TokenKind::Word {
                self.bind(self.word(&pair[1]));
            }
        }
        self.expression(tokens, false);
    }

    fn filter_block(&mut self, tokens: &[Token]) {
        if !tokens.is_empty() {
            self.call(CallKind::Filter, tokens, 0);
        }
        self.expression(tokens.get(1..).unwrap_or_default(), false);
    }

    /// Finds what an expression mentions; `condition` says that it is only asked for true or false.
    fn expression(&mut self, tokens: &[Token], condition: bool) {
        let conditions = self.conditions(tokens);
        let mut index = 0;
        while index < tokens.len() {
            let end = self.mention(tokens, index, condition || conditions[index]);
            index = end.max(index + 1);
        }
    }

    /// Reports the word at `index`; the answer is where it ends.
    fn mention(&mut self, tokens: &[Token], index: usize, condition: bool) -> usize {
        let token = &tokens[index];
        let before = index.checked_sub(1);
        if token.kind != TokenKind::Word || self.is(tokens, before, ".") {
            return index + 1;
        }
        if self.is(tokens, before, "|") {
            self.call(CallKind::Filter, tokens, index);
            return index + 1;
        }
        let word = self.word(token);
        if self.is_test(tokens, index) {
            if word != "not" {
                self.call(CallKind::Test, tokens, index);
            }
            return index + 1;
        }
        let next = Some(index + 1);
        if is_keyword(word) || self.is(tokens, next, "=") || self.is_bound(word) {
            return index + 1;
        }
        if self.is(tokens, next, "(") {
            self.call(CallKind::Function, tokens, index);
            return index + 1;
        }
        self.name(tokens, index, condition)
    }

    fn is_test(&self, tokens: &[Token], index: usize) -> bool {
        let before = index.checked_sub(1);
        let is_word = |index: Option<usize>| {
            self.is(tokens, index, "is") && !self.is(tokens, index.and_then(|index| index.checked_sub(1)), ".")
        };
        is_word(before) || self.is(tokens, before, "not") && is_word(index.checked_sub(2))
    }

    fn call(&mut self, kind: CallKind, tokens: &[Token], index: usize) {
        let arguments = self.is(tokens, Some(index + 1), "(");
        let first = tokens.get(index + 2).filter(|_| arguments);
        let alone = self.is(tokens, Some(index + 3), ")") || self.is(tokens, Some(index + 3), ",");
        let text = first.filter(|token| token.kind == TokenKind::Text && alone);
        self.found.calls.push(Call {
            kind,
            name: self.word(&tokens[index]).to_owned(),
            range: tokens[index].range.clone(),
            text: text.and_then(|token| Some((unquote(self.word(token))?, token.range.clone()))),
        });
    }

    fn name(&mut self, tokens: &[Token], start: usize, condition: bool) -> usize {
        let (path, end) = self.path(tokens, start);
        if condition {
            self.tested.insert(path.clone());
        }
        let optional = condition || self.is_optional(tokens, start, end);
        self.found.names.push(NameUse { path, range: tokens[start].range.start..tokens[end - 1].range.end, optional });
        end
    }

    /// The name at `start` with its constant attributes, and the token after it.
    fn path(&self, tokens: &[Token], start: usize) -> (String, usize) {
        let mut path = self.word(&tokens[start]).to_owned();
        let mut end = start + 1;
        while let Some((attribute, length)) = self.attribute(tokens.get(end..).unwrap_or_default()) {
            if self.is(tokens, Some(end + length), "(") {
                break;
            }
            path.push('.');
            path.push_str(&attribute);
            end += length;
        }
        (path, end)
    }

    /// `.name` or `['name']` at the head of `tokens`, and its length in tokens.
    fn attribute(&self, tokens: &[Token]) -> Option<(String, usize)> {
        let second = tokens.get(1)?;
        match self.word(&tokens[0]) {
            "." if second.kind == TokenKind::Word => Some((self.word(second).to_owned(), 2)),
            "[" if second.kind == TokenKind::Text && self.is(tokens, Some(2), "]") => {
                Some((unquote(self.word(second)).filter(|name| is_word(name))?, 3))
            }
            _ => None,
        }
    }

    fn is_optional(&self, tokens: &[Token], start: usize, end: usize) -> bool {
        let negated = self.is(tokens, start.checked_sub(1), "not") && !self.is_test(tokens, start);
        negated || self.is(tokens, Some(end), "is") || self.has_default(tokens, end) || self.in_coalesce(tokens, start)
    }

    /// Whether the absence of what ends at `index` meets `| default` or `or` before it goes anywhere else.
    fn has_default(&self, tokens: &[Token], mut index: usize) -> bool {
        while let Some(token) = tokens.get(index) {
            match self.word(token) {
                "|" => {
                    if matches!(tokens.get(index + 1).map(|token| self.word(token)), Some("default" | "d")) {
                        return true;
                    }
                    index += 2;
                }
                "(" | "[" => index = self.skip_brackets(tokens, index),
                ")" => index += 1,
                "." => index += 2,
                "or" => return true,
                _ => return false,
            }
        }
        false
    }

    /// The token after the bracket that `index` opens.
    fn skip_brackets(&self, tokens: &[Token], index: usize) -> usize {
        let mut depth = 0_usize;
        for (offset, token) in tokens.iter().enumerate().skip(index) {
            match self.word(token) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return offset + 1;
            }
        }
        tokens.len()
    }

    fn in_coalesce(&self, tokens: &[Token], start: usize) -> bool {
        let mut depth = 0_usize;
        for index in (0..start).rev() {
            match self.word(&tokens[index]) {
                ")" | "]" | "}" => depth += 1,
                "(" if depth == 0 && self.is(tokens, index.checked_sub(1), "coalesce") => return true,
                "(" | "[" | "{" => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        false
    }

    /// Which tokens are inside the condition of an inline `if`.
    fn conditions(&self, tokens: &[Token]) -> Vec<bool> {
        let mut inside = vec![false; tokens.len()];
        for (start, token) in tokens.iter().enumerate() {
            let operator = token.kind == TokenKind::Word && !self.is(tokens, start.checked_sub(1), ".");
            if operator && self.word(token) == "if" {
                let end = self.condition_end(tokens, start + 1);
                inside[start..end].fill(true);
            }
        }
        inside
    }

    fn condition_end(&self, tokens: &[Token], start: usize) -> usize {
        let mut index = start;
        while let Some(token) = tokens.get(index) {
            match self.word(token) {
                "(" | "[" | "{" => index = self.skip_brackets(tokens, index),
                ")" | "]" | "}" | "," | "else" => return index,
                _ => index += 1,
            }
        }
        tokens.len()
    }
}

pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.contains(&word)
}

fn is_word(name: &str) -> bool {
    name.bytes()
        .enumerate()
        .all(|(index, byte)| byte == b'_' || byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit()))
        && !name.is_empty()
}

/// The text of a string token without escapes that need the engine.
fn unquote(token: &str) -> Option<String> {
    let inner = token.get(1..token.len().checked_sub(1)?)?;
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            text.push(char);
            continue;
        }
        match chars.next()? {
            'n' => text.push('\n'),
            't' => text.push('\t'),
            'r' => text.push('\r'),
            escaped @ ('\\' | '\'' | '"' | '/') => text.push(escaped),
            _ => return None,
        }
    }
    Some(text)
}
