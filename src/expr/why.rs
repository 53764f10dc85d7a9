//! Which part of a condition decided, and what it read: for people who ask why.
//!
//! A condition is taken apart at its `&&` and `||` (`and` and `or`), and each part is run by itself, by the very code that
//! runs the whole. Slow, and only for people: nothing on an event's way asks.

use std::ops::Range;

use serde_json::Value as Json;

use super::filter::{Filter, Selection};
use super::scan::{self, PieceKind, Token};
use super::template::Template;
use super::{Omit, Scope, excerpt};

/// A part of a condition that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// Its bytes in the condition's text.
    pub range: Range<usize>,
    /// Whether it holds, by itself.
    pub holds: bool,
    /// What it read.
    pub read: Vec<Read>,
}

/// A path as written, and the beginning of its value as JSON; `None`: nothing is there.
pub type Read = (String, Option<String>);

/// One language's words, and how its parts are run.
struct Language<'a> {
    text: &'a str,
    or: &'a [&'a str],
    and: &'a [&'a str],
    not: &'a str,
    /// `None`: it cannot be run by itself.
    holds: &'a dyn Fn(&str) -> Option<bool>,
    read: &'a dyn Fn(&str) -> Vec<Read>,
}

/// The parts of a `JSONPath` condition that decided, in the order of its text.
#[must_use]
pub fn of_filter(text: &str, json: &Json) -> Vec<Why> {
    let holds = |part: &str| Filter::parse(part).ok()?.matches(json).ok();
    let read = |part: &str| {
        let value = |path: String| {
            let found = Selection::parse(&path).ok()?.select(json, usize::MAX).ok()?;
            let found = found.first().map(|value| short(value));
            Some((path, found))
        };
        paths(part).into_iter().filter_map(value).collect()
    };
    let language = Language { text, or: &["|", "|"], and: &["&", "&"], not: "!", holds: &holds, read: &read };
    let (tokens, _) = scan::tokens(text, 0, "\0");
    language.parts(&tokens)
}

/// The parts of an expression that decided, in the order of its text, braces included.
#[must_use]
pub fn of_expression(text: &str, scope: &Scope) -> Vec<Why> {
    let Ok(pieces) = scan::pieces(text) else { return Vec::new() };
    let [piece] = pieces.as_slice() else { return Vec::new() };
    if piece.kind != PieceKind::Expression {
        return Vec::new();
    }
    let template = |part: &str| Template::parse(&format!("{{{{ {part} }}}}")).ok();
    let holds = |part: &str| template(part).and_then(|template| template.is_true(scope).ok());
    let read = |part: &str| {
        let names = template(part).map(|template| template.names()).unwrap_or_default();
        let mut paths: Vec<String> = names.into_iter().map(|name| name.path).collect();
        paths.dedup();
        paths
            .into_iter()
            .filter(|path| !path.starts_with("env"))
            .map(|path| {
                let value = value(&path, scope);
                (path, value)
            })
            .collect()
    };
    let language = Language { text, or: &["or"], and: &["and"], not: "not", holds: &holds, read: &read };
    language.parts(&piece.tokens)
}

fn value(path: &str, scope: &Scope) -> Option<String> {
    let template = Template::parse(&format!("{{{{ {path} }}}}")).ok()?;
    let mut json = Vec::new();
    let is_there = template.write_json(scope, Omit::Nothing, &mut json).ok()?;
    is_there.then(|| excerpt(&String::from_utf8_lossy(&json)))
}

fn short(json: &Json) -> String {
    excerpt(&json.to_string())
}

/// The paths in a part of a condition: from `$` or `@` to what ends it.
fn paths(part: &str) -> Vec<String> {
    let (mut found, mut depth, mut quote, mut begun) = (Vec::new(), 0_usize, None, None::<usize>);
    for (at, c) in part.char_indices() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '$' | '@') if begun.is_none() => (begun, depth) = (Some(at), 0),
            (None, '[' | '(') if begun.is_some() => depth += 1,
            (None, ']' | ')') if begun.is_some() && depth > 0 => depth -= 1,
            (None, c) if depth == 0 && (c.is_whitespace() || ")],=<>!&|".contains(c)) => {
                found.extend(begun.take().map(|start| part[start..at].to_owned()));
            }
            (Some(_) | None, _) => {}
        }
    }
    found.extend(begun.map(|start| part[start..].to_owned()));
    found.dedup();
    found
}

// === impl Language ===

impl Language<'_> {
    fn parts(&self, tokens: &[Token]) -> Vec<Why> {
        let tokens = self.without_brackets(tokens);
        let Some(range) = range(tokens) else { return Vec::new() };
        let has_choice = self.word_at_top(tokens, "if");
        for (word, decides) in [(self.or, true), (self.and, false)] {
            let parts = self.split(tokens, word);
            if parts.len() > 1 && !has_choice {
                let all: Option<Vec<bool>> = parts.iter().map(|part| self.holds(part)).collect();
                let Some(all) = all else { return vec![self.leaf(range)] };
                return match all.iter().position(|holds| *holds == decides) {
                    Some(first) => self.parts(parts[first]),
                    None => parts.into_iter().flat_map(|part| self.parts(part)).collect(),
                };
            }
        }
        match tokens {
            [first, rest @ ..] if self.word(first) == self.not && !rest.is_empty() && self.holds(rest).is_some() => {
                self.parts(rest)
            }
            _ => vec![self.leaf(range)],
        }
    }

    fn leaf(&self, range: Range<usize>) -> Why {
        let part = &self.text[range.clone()];
        Why { holds: (self.holds)(part).unwrap_or_default(), read: (self.read)(part), range }
    }

    fn holds(&self, tokens: &[Token]) -> Option<bool> {
        (self.holds)(&self.text[range(tokens)?])
    }

    fn word(&self, token: &Token) -> &str {
        &self.text[token.range.clone()]
    }

    /// Brackets around the whole say nothing.
    fn without_brackets<'t>(&self, mut tokens: &'t [Token]) -> &'t [Token] {
        while let [first, inner @ .., last] = tokens
            && self.word(first) == "("
            && self.word(last) == ")"
            && self.depths(inner).iter().all(|depth| *depth >= 0)
        {
            tokens = inner;
        }
        tokens
    }

    /// How deep in brackets each token is; below zero where they close what was opened before.
    fn depths(&self, tokens: &[Token]) -> Vec<i64> {
        let mut depth = 0;
        let of = |token: &Token| {
            match self.word(token) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            depth
        };
        tokens.iter().map(of).collect()
    }

    fn word_at_top(&self, tokens: &[Token], word: &str) -> bool {
        let depths = self.depths(tokens);
        tokens.iter().zip(depths).any(|(token, depth)| depth == 0 && self.word(token) == word)
    }

    /// The parts between a word, which may be several signs, outside of brackets.
    fn split<'t>(&self, tokens: &'t [Token], word: &[&str]) -> Vec<&'t [Token]> {
        let depths = self.depths(tokens);
        let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
        while at + word.len() <= tokens.len() {
            let is_word =
                depths[at] == 0 && word.iter().zip(&tokens[at..]).all(|(sign, token)| self.word(token) == *sign);
            if is_word {
                parts.push(&tokens[start..at]);
                at += word.len();
                start = at;
            } else {
                at += 1;
            }
        }
        parts.push(&tokens[start..]);
        parts
    }
}

fn range(tokens: &[Token]) -> Option<Range<usize>> {
    Some(tokens.first()?.range.start..tokens.last()?.range.end)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use serde_json::{Value as Json, json};

    use super::{Scope, Why, of_expression, of_filter};
    use crate::event::{Message, SourceName};
    use crate::expr::Names;

    fn event() -> Json {
        json!({"type": "track", "userId": "u1", "properties": {"total": 120, "tags": ["a"]}})
    }

    fn told(text: &str, whys: &[Why]) -> Vec<String> {
        let read = |why: &Why| {
            let read = why.read.iter().map(|(path, value)| format!("{path}={}", value.as_deref().unwrap_or("-")));
            read.collect::<Vec<_>>().join(" ")
        };
        whys.iter().map(|why| format!("{} {} [{}]", &text[why.range.clone()], why.holds, read(why))).collect()
    }

    fn filter(text: &str) -> Vec<String> {
        told(text, &of_filter(text, &event()))
    }

    fn expression(text: &str) -> Vec<String> {
        let message = Message { source: SourceName::from("s"), value: Arc::new(event()) };
        let scope = Scope::event(&Arc::new(Names::default()), &message, Timestamp::UNIX_EPOCH);
        told(text, &of_expression(text, &scope))
    }

    #[test]
    fn the_first_part_that_fails_decides_against_all() {
        assert_eq!(
            filter("$.type == 'track' && $.properties.total >= 500 && $.x"),
            ["$.properties.total >= 500 false [$.properties.total=120]"]
        );
        assert_eq!(
            expression("{{ userId and properties.total > 500 }}"),
            ["properties.total > 500 false [properties.total=120]"]
        );
    }

    #[test]
    fn the_first_part_that_holds_decides_for_any() {
        assert_eq!(filter("$.a || $.userId || $.b"), ["$.userId true [$.userId=\"u1\"]"]);
        assert_eq!(expression("{{ traits.x or userId }}"), ["userId true [userId=\"u1\"]"]);
    }

    #[test]
    fn of_none_and_of_all_every_part_counts() {
        assert_eq!(filter("$.a || $.b == 1"), ["$.a false [$.a=-]", "$.b == 1 false [$.b=-]"]);
        assert_eq!(
            filter("$.userId && ($.type)"),
            ["$.userId true [$.userId=\"u1\"]", "$.type true [$.type=\"track\"]"]
        );
    }

    #[test]
    fn brackets_and_negations_are_looked_into() {
        assert_eq!(
            filter("!($.a || ($.userId && $.type))"),
            ["$.userId true [$.userId=\"u1\"]", "$.type true [$.type=\"track\"]"]
        );
        assert_eq!(filter("($.a) && ($.b)"), ["$.a false [$.a=-]"]);
        assert_eq!(expression("{{ not (userId and traits) }}"), ["traits false [traits=-]"]);
    }

    #[test]
    fn what_cannot_be_taken_apart_decides_as_a_whole() {
        assert_eq!(filter("search($.userId, 'a && b')"), ["search($.userId, 'a && b') false [$.userId=\"u1\"]"]);
        assert_eq!(
            expression("{{ userId and true if traits else false }}"),
            ["userId and true if traits else false false [userId=\"u1\" traits=-]"]
        );
        assert_eq!(filter("$[?@.type == 'page']"), ["$[?@.type == 'page'] false [$[?@.type == 'page']=-]"]);
    }
}
