//! A TOML table read key by key: asking for a key is what makes it known.
//!
//! There is no second list of keys that could drift from the code: what was never asked for is unknown when
//! [`Table::finish`] is called. Every accessor reports a wrong type or range with what was expected and found, and
//! answers `None`; readers go on with what they have. Tests have it noted what was asked for, and hold the catalogue
//! (`keys`) to it.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::expressions::has_braces;
use super::findings::Findings;
#[cfg(test)]
use super::keys::Bounds;
use super::spelling::{alternatives, nearest};
use super::{offsets, units};
use crate::plan::case::Written;

/// A table being read.
pub(super) struct Table<'a> {
    findings: &'a Findings<'a>,
    entries: &'a DeTable<'a>,
    /// What it is, for messages: `a destination`, `[server]`.
    what: &'static str,
    /// Where to point when something is missing: its key or header.
    span: Range<usize>,
    asked: RefCell<Vec<&'static str>>,
}

/// A key and its value.
#[derive(Clone)]
pub(super) struct Field<'a> {
    findings: &'a Findings<'a>,
    /// The key, or the list's key for an element of a list.
    pub name: &'a str,
    /// The table and the key that were asked for; `*` in a table whose keys are the user's own.
    #[cfg(test)]
    asked_as: (&'static str, &'static str),
    key_span: Range<usize>,
    /// Where it stands in its list.
    index: Option<usize>,
    value: &'a Spanned<DeValue<'a>>,
}

/// A string of the file.
#[derive(Clone)]
pub(super) struct Text<'a> {
    /// What it says.
    pub value: &'a str,
    /// The literal in the file, quotes included.
    pub span: Range<usize>,
    findings: &'a Findings<'a>,
}

// === impl Table ===

impl<'a> Table<'a> {
    /// A table as `what`, with the place to point at when something is missing.
    pub(super) fn new(
        findings: &'a Findings<'a>,
        entries: &'a DeTable<'a>,
        what: &'static str,
        span: Range<usize>,
    ) -> Self {
        Self { findings, entries, what, span, asked: RefCell::default() }
    }

    /// Where to point when something is missing.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The table as it stands in the file.
    pub(super) fn entries(&self) -> &'a DeTable<'a> {
        self.entries
    }

    /// The value of a key, which is known from now on.
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'a>> {
        #[cfg(test)]
        self.findings.note_key(self.what, key);
        self.tolerate(key)
    }

    /// The value of a key that is not unknown, but that nobody reads.
    pub(super) fn tolerate(&self, key: &'static str) -> Option<Field<'a>> {
        self.asked.borrow_mut().push(key);
        let (name, value) = self.entries.get_key_value(key)?;
        Some(self.field(name, value, key))
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, key: &'static str, help: &str) -> Option<Field<'a>> {
        let field = self.get(key);
        if field.is_none() {
            let message = format!("{} needs `{key}`", self.what);
            self.findings.add(Diagnostic::error(Code::MissingKey, self.span(), message).help(help));
        }
        field
    }

    /// Every entry of a table whose keys are the user's own; all of them are known.
    pub(super) fn fields(&self) -> impl Iterator<Item = Field<'a>> {
        #[cfg(test)]
        self.findings.note_key(self.what, "*");
        self.asked.borrow_mut().push("*");
        self.entries.iter().map(|(name, value)| self.field(name, value, "*"))
    }

    /// Keys of the language that this version does not have yet: told apart from unknown ones.
    pub(super) fn not_yet(&self, keys: &[&'static str]) {
        for key in keys {
            if let Some(field) = self.tolerate(key) {
                let message = format!("`{key}` is not available in this version yet");
                self.findings.add(Diagnostic::error(Code::NotAvailable, field.key_span, message));
            }
        }
    }

    /// Keys that mean something elsewhere, with the reason why not here.
    pub(super) fn not_here(&self, keys: &[&'static str], why: &str) {
        for key in keys {
            if let Some(field) = self.tolerate(key) {
                let message = format!("`{key}` {why}");
                self.findings.add(Diagnostic::error(Code::MisplacedKey, field.key_span, message));
            }
        }
    }

    /// Reports the keys that were never asked for.
    pub(super) fn finish(&self) {
        let asked = self.asked.borrow();
        if asked.contains(&"*") {
            return;
        }
        for (key, _) in self.entries.iter().filter(|(key, _)| !asked.contains(&key.get_ref().as_ref())) {
            let message = format!("unknown key `{}` in {}", key.get_ref(), self.what);
            let unknown = Diagnostic::error(Code::UnknownKey, key.span(), message);
            // A key that is already there is not what was meant.
            let free = asked.iter().copied().filter(|word| !self.entries.contains_key(*word));
            self.findings.add(unknown.did_you_mean(nearest(key.get_ref(), free)));
        }
    }

    fn field(
        &self,
        name: &'a Spanned<toml::de::DeString<'a>>,
        value: &'a Spanned<DeValue<'a>>,
        #[cfg_attr(not(test), expect(unused_variables, reason = "only tests note what was asked for"))]
        asked_as: &'static str,
    ) -> Field<'a> {
        Field {
            findings: self.findings,
            name: name.get_ref(),
            #[cfg(test)]
            asked_as: (self.what, asked_as),
            key_span: name.span(),
            index: None,
            value,
        }
    }
}

// === impl Field ===

impl<'a> Field<'a> {
    /// What messages call it: its key, with its place in a list.
    fn called(&self) -> String {
        self.index.map_or_else(|| self.name.to_owned(), |index| format!("{}[{index}]", self.name))
    }

    /// The value in the file. A table under a header has only its header there.
    pub(super) fn span(&self) -> Range<usize> {
        self.value.span()
    }

    /// The key in the file.
    pub(super) fn key_span(&self) -> Range<usize> {
        self.key_span.clone()
    }

    /// The value as it stands in the file.
    pub(super) fn raw(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    /// Reports an error at the value.
    pub(super) fn error(&self, code: Code, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, self.span(), message)
    }

    /// Takes note of a mistake.
    pub(super) fn report(&self, diagnostic: Diagnostic) {
        self.findings.add(diagnostic);
    }

    /// Where a piece of JSON that this holds is written.
    pub(super) fn place_of(&self, written: &Written) -> Range<usize> {
        self.findings.place_of(written)
    }

    /// Reports that the value is of another type than `expected` says.
    pub(super) fn wrong_type(&self, expected: &str) {
        self.findings.add(self.type_error(expected));
    }

    fn type_error(&self, expected: &str) -> Diagnostic {
        let message = format!("`{}` must be {expected}, not {}", self.called(), type_name(self.raw()));
        self.error(Code::WrongType, message)
    }

    /// A string.
    pub(super) fn text(&self) -> Option<Text<'a>> {
        self.text_as("a string")
    }

    /// A string, which messages call `expected`.
    pub(super) fn text_as(&self, expected: &str) -> Option<Text<'a>> {
        if let DeValue::String(value) = self.raw() {
            return Some(Text { value, span: self.span(), findings: self.findings });
        }
        self.wrong_type(expected);
        None
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        let boolean = self.raw().as_bool();
        if boolean.is_none() {
            self.wrong_type("`true` or `false`");
        }
        boolean
    }

    /// A whole number within a range.
    pub(super) fn count(&self, range: RangeInclusive<u64>) -> Option<u64> {
        #[cfg(test)]
        self.note(&Bounds::Count(range.clone()));
        let DeValue::Integer(integer) = self.raw() else {
            self.wrong_type("a whole number");
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let count = number.and_then(|number| u64::try_from(number).ok()).filter(|count| range.contains(count));
        if count.is_none() {
            let (least, most) = (range.start(), range.end());
            let bounds =
                if *most == u64::MAX { format!("at least {least}") } else { format!("between {least} and {most}") };
            self.findings.add(self.error(Code::OutOfRange, format!("`{}` must be {bounds}", self.called())));
        }
        count
    }

    /// A count that fits memory's own numbers.
    pub(super) fn count_usize(&self, range: RangeInclusive<u64>) -> Option<usize> {
        self.count(range).map(|count| usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// A number greater than zero, whole or not.
    pub(super) fn positive(&self) -> Option<f64> {
        let number = match self.raw() {
            DeValue::Integer(integer) => integer.as_str().parse().ok().filter(|_| integer.radix() == 10),
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            DeValue::String(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                self.wrong_type("a number");
                return None;
            }
        };
        let positive = number.filter(|number| *number > 0.0 && number.is_finite());
        if positive.is_none() {
            self.findings.add(self.error(Code::OutOfRange, format!("`{}` must be greater than 0", self.called())));
        }
        positive
    }

    /// A duration such as `"10s"`, within a range.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        #[cfg(test)]
        self.note(&Bounds::Duration(range.clone()));
        let duration = self.quantity(units::duration, "a duration such as \"10s\"", "s")?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let message = format!(
            "`{}` must be between {} and {}",
            self.called(),
            units::written_duration(*range.start()),
            units::written_duration(*range.end())
        );
        self.findings.add(self.error(Code::OutOfRange, message));
        None
    }

    /// A size in bytes such as `"9MB"`, within a range.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        #[cfg(test)]
        self.note(&Bounds::Size(range.clone()));
        let size = self.quantity(units::size, "a size such as \"512KiB\"", "B")?;
        if range.contains(&size) {
            return Some(size);
        }
        let message = format!(
            "`{}` must be between {} and {}",
            self.called(),
            units::written_size(*range.start()),
            units::written_size(*range.end())
        );
        self.findings.add(self.error(Code::OutOfRange, message));
        None
    }

    fn quantity<T>(&self, read: fn(&str) -> Result<T, units::NoQuantity>, expected: &str, unit: &str) -> Option<T> {
        if let DeValue::Integer(integer) = self.raw() {
            let instead = format!("\"{}{unit}\"", integer.as_str());
            let bare = self.type_error(expected).help("write a string with a unit").suggest(self.span(), instead);
            self.findings.add(bare);
            return None;
        }
        let text = self.text_as(expected)?;
        if has_braces(text.value) {
            let message = format!("`{}` takes no template: it must be {expected}", self.called());
            self.findings.add(self.error(Code::WrongType, message));
            return None;
        }
        read(text.value)
            .map_err(|wrong| {
                let error = self.error(Code::BadValue, wrong.message);
                self.findings.add(match wrong.instead {
                    Some(instead) => error
                        .help(format!("did you mean \"{instead}\"?"))
                        .suggest(self.span(), format!("\"{instead}\"")),
                    None => error,
                });
            })
            .ok()
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        #[cfg(test)]
        self.note(&Bounds::Words(words.iter().map(|(word, _)| *word).collect()));
        let names = || words.iter().map(|(word, _)| *word);
        let text = self.text_as(&format!("one of {}", alternatives(names())))?;
        let found = words.iter().find(|(word, _)| *word == text.value).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let message = format!("`{}` must be {}, not `{}`", self.called(), alternatives(names()), text.value);
            self.findings.add(text.wrong_word(message, names()));
        }
        found
    }

    /// One of some words; those that only a later version knows are told apart.
    pub(super) fn word_or_later<T: Copy>(&self, words: &[(&'static str, T)], later: &[&str]) -> Option<T> {
        if let Some(word) = self.raw().as_str().filter(|word| later.contains(word)) {
            let message = format!("`{} = \"{word}\"` is not available in this version yet", self.name);
            self.findings.add(self.error(Code::NotAvailable, message));
            return None;
        }
        self.word(words)
    }

    /// A table, which messages call `what`.
    pub(super) fn table(&self, what: &'static str) -> Option<Table<'a>> {
        if let DeValue::Table(entries) = self.raw() {
            return Some(Table::new(self.findings, entries, what, self.key_span()));
        }
        self.wrong_type("a table");
        None
    }

    /// The elements of a list.
    pub(super) fn list(&self) -> Option<Vec<Self>> {
        if let DeValue::Array(_) = self.raw() {
            return Some(self.one_or_many());
        }
        self.wrong_type("a list");
        None
    }

    /// A list's elements, or the value itself.
    pub(super) fn one_or_many(&self) -> Vec<Self> {
        match self.raw() {
            DeValue::Array(elements) => {
                elements.iter().enumerate().map(|(index, value)| self.element(index, value)).collect()
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => vec![self.clone()],
        }
    }

    #[cfg(test)]
    fn note(&self, bounds: &Bounds) {
        self.findings.note_bounds(self.asked_as, bounds);
    }

    fn element(&self, index: usize, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { key_span: value.span(), index: Some(index), value, ..self.clone() }
    }
}

// === impl Text ===

impl Text<'_> {
    /// The place in the file of a piece of what it says.
    pub(super) fn place(&self, piece: &Range<usize>) -> Range<usize> {
        offsets::in_file(self.findings.text, &self.span, piece)
    }

    /// An error at a piece of what it says.
    pub(super) fn error_at(&self, piece: &Range<usize>, code: Code, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, self.place(piece), message)
    }

    /// An error at the whole string.
    pub(super) fn error(&self, code: Code, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, self.span.clone(), message)
    }

    /// An error that this is not one of the words.
    pub(super) fn wrong_word<'w>(&self, message: String, words: impl Iterator<Item = &'w str>) -> Diagnostic {
        let error = self.error(Code::BadValue, message);
        match nearest(self.value, words) {
            Some(near) => error.help(format!("did you mean `{near}`?")).suggest(self.span.clone(), format!("{near:?}")),
            None => error,
        }
    }
}

/// What a value is, with its article.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use std::time::Duration;

    use toml::de::DeTable;

    use super::{Findings, Table};

    /// Codes and messages of what `read` finds in a table, and what the finished table adds.
    fn found(text: &str, read: impl Fn(&Table<'_>)) -> Vec<String> {
        let document = DeTable::parse(text).unwrap().into_inner();
        let findings = Findings::new(text);
        let table = Table::new(&findings, &document, "[server]", 0..0);
        read(&table);
        table.finish();
        let told = findings.told(&document);
        told.into_iter()
            .map(|d| {
                format!(
                    "{} @{:?}: {}{}",
                    d.code,
                    d.span,
                    d.message,
                    d.help.map_or(String::new(), |h| format!(" ({h})"))
                )
            })
            .collect()
    }

    #[test]
    fn a_key_nobody_asked_for_is_unknown() {
        let read = |table: &Table<'_>| {
            table.get("listen");
            table.get("tls");
        };
        assert_eq!(found("listen = 1", read), [""; 0]);
        assert_eq!(
            found("lisen = 1", read),
            ["unknown-key @0..5: unknown key `lisen` in [server] (did you mean `listen`?)"]
        );
        assert_eq!(found("listen = 1\nlisten2 = 1", read), ["unknown-key @11..18: unknown key `listen2` in [server]"]);
    }

    #[test]
    fn keys_of_a_later_version_are_told_apart() {
        let read = |table: &Table<'_>| table.not_yet(&["sample"]);
        assert_eq!(found("sample = 1", read), ["not-available @0..6: `sample` is not available in this version yet"]);
    }

    #[test]
    fn a_missing_key_is_told_at_its_table() {
        let read = |table: &Table<'_>| assert!(table.require("url", "say where").is_none());
        assert_eq!(found("", read), ["missing-key @0..0: [server] needs `url` (say where)"]);
    }

    #[test]
    fn wrong_types_say_what_was_expected_and_found() {
        let read = |table: &Table<'_>| {
            table.get("a").map(|field| field.boolean());
            table.get("b").map(|field| field.duration(Duration::ZERO..=Duration::MAX));
            table.get("c").map(|field| field.count(1..=10));
            table.get("d").map(|field| field.list());
        };
        assert_eq!(
            found("a = 'x'\nb = 10\nc = 1.5\nd = 2026-01-01", read),
            [
                "wrong-type @4..7: `a` must be `true` or `false`, not a string",
                "wrong-type @12..14: `b` must be a duration such as \"10s\", not an integer (write a string with a unit)",
                "wrong-type @19..22: `c` must be a whole number, not a float",
                "wrong-type @27..37: `d` must be a list, not a date",
            ]
        );
    }

    #[test]
    fn ranges_hold_and_numbers_of_any_size_are_told() {
        let read = |table: &Table<'_>| {
            table.get("a").map(|field| field.count(1..=10));
            table.get("b").map(|field| field.count(1..=u64::MAX));
            table.get("c").map(|field| field.positive());
        };
        assert_eq!(found("a = 0x0a\nb = 1\nc = 0.5", read), [""; 0]);
        assert_eq!(
            found("a = 11\nb = 0\nc = 0", read),
            [
                "out-of-range @4..6: `a` must be between 1 and 10",
                "out-of-range @11..12: `b` must be at least 1",
                "out-of-range @17..18: `c` must be greater than 0",
            ]
        );
        assert_eq!(found("a = 99999999999999999999999999999999999999999999\nc = inf", read).len(), 2);
        assert_eq!(found("a = -1\nc = nan", read).len(), 2);
    }

    #[test]
    fn a_word_is_one_of_some() {
        let read = |table: &Table<'_>| {
            table.get("w").map(|field| field.word_or_later(&[("json", 1), ("text", 2)], &["multipart"]));
        };
        assert_eq!(found("w = 'text'", read), [""; 0]);
        assert_eq!(
            found("w = 'txt'", read),
            ["bad-value @4..9: `w` must be `json` or `text`, not `txt` (did you mean `text`?)"]
        );
        assert_eq!(
            found("w = 'multipart'", read),
            ["not-available @4..15: `w = \"multipart\"` is not available in this version yet"]
        );
    }
}
