//! The language as data: every table of the file, every key with what it takes, what it means and what holds without it.
//!
//! The JSON Schema for editors and the reference are made from this. It cannot drift from the readers: bounds, words and
//! defaults are the constants that they use, and a test compares the keys and bounds with those that they ask for.

#[rustfmt::skip] // A key is a line, as in a table.
mod sections;
#[cfg(test)]
mod tests;

#[cfg(test)]
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::spelling::alternatives;
use super::units;

/// One kind of table.
#[derive(Clone, Debug)]
pub struct Section {
    /// What messages call it: `[server]`, `a destination`. Sections are told apart by it.
    pub what: &'static str,
    /// Its header in the file; empty for a table that is written inline, as part of the key that holds it.
    pub header: &'static str,
    /// What it is for, in one line.
    pub meaning: &'static str,
    /// Its keys, in the order of the reference.
    pub keys: Vec<Key>,
    /// What each entry holds whose name is the user's own; `None`: there are no others than `keys`.
    pub own: Option<Shape>,
}

/// One key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub shape: Shape,
    /// What holds without it.
    pub absent: Absent,
    /// What it means, in one line of Markdown.
    pub meaning: &'static str,
    /// The words of `type` it is for; empty: all.
    pub types: Vec<&'static str>,
    /// Whether the rules of a destination may have it as well; theirs win.
    pub in_rules: bool,
}

/// What holds when a key is not there.
#[derive(Clone, Debug, PartialEq)]
pub enum Absent {
    /// The file is wrong.
    MustBeGiven,
    /// This value, as it would be written.
    Value(String),
    /// This, in words.
    Otherwise(&'static str),
}

/// What a key takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// `true` or `false`.
    Boolean,
    /// `false` and nothing else.
    False,
    /// A quantity or a word within bounds.
    Within(Bounds),
    /// A number.
    Number {
        /// The smallest; `None`: anything above zero.
        least: Option<f64>,
        /// The largest.
        most: Option<f64>,
    },
    /// A string.
    Text(Text),
    /// A string, which may be a template, a number or a boolean.
    Scalar,
    /// What becomes a document: a table, a list, a string, a number or a boolean, with templates wherever there is text.
    Body,
    /// A constant of any kind.
    Constant,
    /// A table of constants.
    Object,
    /// The section of this name.
    Table(&'static str),
    /// A list.
    List(Box<Shape>),
    /// A list of two.
    Pair(Box<Shape>),
    /// One of several.
    Either(Vec<Shape>),
}

/// What a string may say.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// What the reference calls it: `template`, `path`.
    pub name: &'static str,
    /// Whether it may be made from expressions.
    pub is_template: bool,
    /// A regular expression that it fits unless it is made from expressions; empty: any.
    pub pattern: &'static str,
}

/// How large a quantity may be, or which words there are.
#[derive(Clone, Debug, PartialEq)]
pub enum Bounds {
    /// Such as `"10s"`.
    Duration(RangeInclusive<Duration>),
    /// Such as `"9MB"`; in bytes.
    Size(RangeInclusive<u64>),
    /// A whole number.
    Count(RangeInclusive<u64>),
    /// One of these.
    Words(Vec<&'static str>),
}

/// What the readers asked for: keys by table, each with the bounds it was held to.
#[cfg(test)]
pub(super) type Asked = BTreeMap<(&'static str, &'static str), BTreeSet<String>>;

/// Every section, in the order of the reference.
#[must_use]
pub fn catalogue() -> Vec<Section> {
    sections::all()
}

/// A count as people read it: `10,000`.
#[must_use]
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

// === impl Key ===

impl Key {
    /// Whether the key exists where `type` is this word.
    #[must_use]
    pub fn is_for(&self, word: &str) -> bool {
        self.types.is_empty() || self.types.contains(&word)
    }
}

// === impl Shape ===

impl Shape {
    /// The shapes it is made of: itself, or those that it is one of.
    #[must_use]
    pub fn alternatives(&self) -> &[Self] {
        match self {
            Self::Either(shapes) => shapes,
            Self::Boolean
            | Self::False
            | Self::Within(_)
            | Self::Number { .. }
            | Self::Text(_)
            | Self::Scalar
            | Self::Body
            | Self::Constant
            | Self::Object
            | Self::Table(_)
            | Self::List(_)
            | Self::Pair(_) => std::slice::from_ref(self),
        }
    }

    /// The sections that it or its elements may be.
    #[must_use]
    pub fn sections(&self) -> Vec<&'static str> {
        match self {
            Self::Table(what) => vec![what],
            Self::List(element) | Self::Pair(element) => element.sections(),
            Self::Either(shapes) => shapes.iter().flat_map(Self::sections).collect(),
            Self::Boolean
            | Self::False
            | Self::Within(_)
            | Self::Number { .. }
            | Self::Text(_)
            | Self::Scalar
            | Self::Body
            | Self::Constant
            | Self::Object => Vec::new(),
        }
    }
}

impl fmt::Display for Shape {
    /// As the reference says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::False => f.write_str("`false`"),
            Self::Within(bounds) => bounds.fmt(f),
            Self::Number { least, most } => {
                let least = least.map_or("above 0".to_owned(), |least| format!("from {least}"));
                write!(f, "number {least}{}", most.map_or(String::new(), |most| format!(", up to {most}")))
            }
            Self::Text(text) => f.write_str(text.name),
            Self::Scalar => f.write_str("template, number or boolean"),
            Self::Body => f.write_str("table, list or template"),
            Self::Constant => f.write_str("constant"),
            Self::Object | Self::Table(_) => f.write_str("table"),
            Self::List(element) if matches!(**element, Self::Object | Self::Table(_)) => f.write_str("list of tables"),
            Self::List(element) => write!(f, "list of: {element}"),
            Self::Pair(element) => write!(f, "list of two: {element}"),
            Self::Either(shapes) => {
                let texts: Vec<String> = shapes.iter().map(|shape| one_or_many(shape, shapes)).collect();
                match texts.split_last() {
                    Some((last, others)) if !others.is_empty() => write!(f, "{} or {last}", others.join(", ")),
                    _ => f.write_str(&texts.concat()),
                }
            }
        }
    }
}

/// A list of what may also stand alone is just "a list".
fn one_or_many(shape: &Shape, beside: &[Shape]) -> String {
    if let Shape::List(element) = shape
        && beside.contains(element)
    {
        return "a list of such".to_owned();
    }
    shape.to_string()
}

// === impl Bounds ===

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |least: Option<String>, most: String| match least {
            Some(least) => format!("{least} to {most}"),
            None => format!("up to {most}"),
        };
        match self {
            Self::Duration(bounds) => {
                let least = Some(bounds.start()).filter(|least| !least.is_zero());
                let written = |duration: &Duration| units::written_duration(*duration);
                write!(f, "duration, {}", range(least.map(written), written(bounds.end())))
            }
            Self::Size(bounds) => {
                let least = Some(bounds.start()).filter(|least| **least > 0);
                let written = |size: &u64| units::written_size(*size);
                write!(f, "size, {}", range(least.map(written), written(bounds.end())))
            }
            Self::Count(bounds) => {
                let least = grouped(*bounds.start());
                match bounds.end() {
                    &u64::MAX => write!(f, "number from {least}"),
                    most => write!(f, "{}", range(Some(least), grouped(*most))),
                }
            }
            Self::Words(words) => f.write_str(&alternatives(words.iter().copied())),
        }
    }
}
