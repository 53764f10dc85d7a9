//! Where mistakes are gathered, and how they leave: each once, in the order of the file, not endlessly many.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::codes::Code;
use super::diagnostic::{Diagnostic, Severity};
use super::texts::Texts;
use crate::plan::case::Written;
use crate::plan::error::name_in_path;

/// So many are told at once: more would scroll away, and most follow from the first.
const TOLD_MAX: usize = 100;

/// What has been found so far. One reader at a time; not shared between threads.
pub(super) struct Findings<'t> {
    /// The file, and after it the presets that it reaches.
    pub text: &'t str,
    texts: Option<&'t Texts>,
    found: RefCell<Vec<Diagnostic>>,
    errors: Cell<usize>,
    /// What is being read, as far as it is not in its own place.
    reading: RefCell<Reading>,
    /// What the readers asked for, which the catalogue of keys has to list.
    #[cfg(test)]
    asked: RefCell<super::keys::Asked>,
}

/// What is said of a destination that extends something.
#[derive(Default)]
struct Reading {
    /// The `extends` that a mistake in a preset is told at.
    extended_at: Range<usize>,
    /// What it extends is not there: nothing can be called missing.
    is_torn: bool,
}

impl<'t> Findings<'t> {
    /// Nothing found yet in a text.
    #[cfg(test)]
    pub(super) fn new(text: &'t str) -> Self {
        Self::with(text, None)
    }

    /// Nothing found yet in a file and its presets.
    pub(super) fn of(texts: &'t Texts) -> Self {
        Self::with(&texts.all, Some(texts))
    }

    fn with(text: &'t str, texts: Option<&'t Texts>) -> Self {
        Self {
            text,
            texts,
            found: RefCell::default(),
            errors: Cell::default(),
            reading: RefCell::default(),
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    /// Takes note that a table, called `what`, was asked for a key.
    #[cfg(test)]
    pub(super) fn note_key(&self, what: &'static str, key: &'static str) {
        self.asked.borrow_mut().entry((what, key)).or_default();
    }

    /// Takes note of the bounds that a key's value was held to.
    #[cfg(test)]
    pub(super) fn note_bounds(&self, key: (&'static str, &'static str), bounds: &super::keys::Bounds) {
        self.asked.borrow_mut().entry(key).or_default().insert(bounds.to_string());
    }

    /// Everything that was asked for so far.
    #[cfg(test)]
    pub(super) fn asked(&self) -> super::keys::Asked {
        self.asked.borrow().clone()
    }

    /// Begins with a destination: mistakes in its presets are told where it extends them.
    pub(super) fn read_extended(&self, extended_at: Option<Range<usize>>, is_torn: bool) {
        self.reading.replace(Reading { extended_at: extended_at.unwrap_or_default(), is_torn });
    }

    /// Takes note of one mistake.
    pub(super) fn add(&self, diagnostic: Diagnostic) {
        self.errors.set(self.errors.get() + usize::from(diagnostic.is_error()));
        self.found.borrow_mut().extend(self.in_file(diagnostic));
    }

    /// A mistake as the file's own, unless it is none of the file's business.
    fn in_file(&self, diagnostic: Diagnostic) -> Option<Diagnostic> {
        let reading = self.reading.borrow();
        if reading.is_torn && diagnostic.code == Code::MissingKey {
            return None;
        }
        let Some(told) = self.texts.and_then(|texts| texts.told(&diagnostic.span)) else { return Some(diagnostic) };
        // What a preset has and the destination does without was not written by whoever wrote the file.
        let is_idle = matches!(diagnostic.code, Code::Unused | Code::Unreachable);
        let span = reading.extended_at.clone();
        (!is_idle).then_some(Diagnostic { span, label: Some(told), suggestion: None, ..diagnostic })
    }

    /// Where a piece of JSON is written.
    pub(super) fn place_of(&self, written: &Written) -> Range<usize> {
        super::place_of(self.text, written)
    }

    /// Takes note of a mistake, if there is one.
    pub(super) fn extend(&self, diagnostic: Option<Diagnostic>) {
        if let Some(diagnostic) = diagnostic {
            self.add(diagnostic);
        }
    }

    /// How many errors there are so far.
    pub(super) fn error_count(&self) -> usize {
        self.errors.get()
    }

    /// Everything found, in the order of the file, each place and message once, with its path in the document.
    pub(super) fn told(self, document: &DeTable<'_>) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.retain(|d| self.texts.is_none_or(|texts| texts.is_in_file(&d.span)));
        forget_what_follows_from_syntax(self.text, &mut found);
        forget_guesses(&mut found);
        found.sort_by(|a, b| order(a).cmp(&order(b)));
        found.dedup_by(|a, b| a.span == b.span && a.code == b.code && a.message == b.message);
        let left_out = found.len().saturating_sub(TOLD_MAX);
        found.truncate(TOLD_MAX);
        for diagnostic in &mut found {
            diagnostic.path = path_of(document, &diagnostic.span);
        }
        if left_out > 0 {
            found.push(Diagnostic::error(Code::TooMany, 0..0, format!("{left_out} more mistakes are not shown")));
        }
        found
    }
}

fn order(diagnostic: &Diagnostic) -> (usize, usize, Severity, &str, &str) {
    let Range { start, end } = diagnostic.span;
    (start, end, diagnostic.severity, diagnostic.code.as_str(), &diagnostic.message)
}

/// Where the syntax is broken, what was read is a guess: only the syntax is told there, and nothing is called missing.
fn forget_what_follows_from_syntax(text: &str, found: &mut Vec<Diagnostic>) {
    let broken: Vec<Range<usize>> =
        found.iter().filter(|d| d.code == Code::Syntax).map(|d| line_around(text, d.span.start)).collect();
    if broken.is_empty() {
        return;
    }
    let is_guess = |d: &Diagnostic| {
        let follows = matches!(
            d.code,
            Code::MissingKey | Code::Unused | Code::NoSources | Code::NoDestinations | Code::UnknownDestination
        );
        follows || broken.iter().any(|line| line.contains(&d.span.start) || d.span.contains(&line.start))
    };
    found.retain(|d| d.code == Code::Syntax || !is_guess(d));
    // The parser goes on where it can: what it finds on the same line follows from the first thing.
    found.sort_by(|a, b| order(a).cmp(&order(b)));
    found.dedup_by(|next, first| {
        let is_syntax = next.code == Code::Syntax && first.code == Code::Syntax;
        is_syntax && line_around(text, next.span.start) == line_around(text, first.span.start)
    });
}

/// Whether something is used cannot be told of a file that could not be read whole.
fn forget_guesses(found: &mut Vec<Diagnostic>) {
    if found.iter().any(Diagnostic::is_error) {
        found.retain(|d| !matches!(d.code, Code::Unused | Code::Unreachable));
    }
}

fn line_around(text: &str, offset: usize) -> Range<usize> {
    let offset = text.floor_char_boundary(offset);
    let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    let end = text[offset..].find('\n').map_or(text.len(), |at| offset + at);
    start..end + 1
}

/// The place of a span as a person would say it: `destinations.crm.rules[0].when`.
///
/// Found by looking for the key or value that holds its first byte; headers count as the key they name.
pub(super) fn path_of(document: &DeTable<'_>, span: &Range<usize>) -> String {
    let mut path = String::new();
    if !span.is_empty() || span.start > 0 {
        find_in_table(document, span.start, &mut path);
    }
    path
}

fn find_in_table(table: &DeTable<'_>, at: usize, path: &mut String) -> bool {
    table.iter().any(|(key, value)| {
        let len = path.len();
        push_key(path, key.get_ref());
        let is_here = find_in_value(value, at, path) || key.span().contains(&at);
        if !is_here {
            path.truncate(len);
        }
        is_here
    })
}

fn find_in_value(value: &Spanned<DeValue<'_>>, at: usize, path: &mut String) -> bool {
    let is_deeper = match value.get_ref() {
        DeValue::Table(table) => find_in_table(table, at, path),
        DeValue::Array(list) => list.iter().enumerate().any(|(index, element)| {
            let len = path.len();
            path.push('[');
            path.push_str(&index.to_string());
            path.push(']');
            let is_here = find_in_value(element, at, path);
            if !is_here {
                path.truncate(len);
            }
            is_here
        }),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            false
        }
    };
    is_deeper || value.span().contains(&at)
}

/// Adds a key to a path, in quotes where TOML wants them.
pub(super) fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(&name_in_path(key));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use toml::de::DeTable;

    use super::{Code, Diagnostic, Findings, path_of};

    #[test]
    fn a_place_is_told_as_a_path() {
        let text = "[destinations.crm]\nurl = 'u'\nbody = { a.\"b c\" = 1 }\n[[destinations.crm.rules]]\n[[destinations.crm.rules]]\nwhen = ['x', 'y']\n";
        let document = DeTable::parse(text).unwrap();
        let path = |needle: &str| {
            let at = text.rfind(needle).unwrap();
            path_of(document.get_ref(), &(at..at + 1))
        };
        assert_eq!(path("'u'"), "destinations.crm.url");
        assert_eq!(path("url"), "destinations.crm.url");
        assert_eq!(path("1"), "destinations.crm.body.a.\"b c\"");
        assert_eq!(path("'y'"), "destinations.crm.rules[1].when[1]");
        assert_eq!(path("when"), "destinations.crm.rules[1].when");
        assert_eq!(path("[[destinations"), "destinations.crm.rules[1]");
    }

    #[test]
    fn findings_leave_in_order_once_and_not_endlessly() {
        let findings = Findings::new("");
        for n in (0..300).rev() {
            findings.add(Diagnostic::error(Code::BadValue, n..n, "odd"));
            findings.add(Diagnostic::error(Code::BadValue, n..n, "odd"));
        }
        let told = findings.told(&DeTable::new());
        assert_eq!(told.len(), 101);
        assert!(told.windows(2).take(99).all(|pair| pair[0].span.start < pair[1].span.start));
        assert_eq!(told[100].message, "200 more mistakes are not shown");
    }
}
