//! Where what is in force was written: in the file, in what a destination extends, in a preset, in `[defaults]`.
//!
//! The names of places are those of diagnostics and traces, `destinations.crm.rules[0].body.email`, and mean what is in
//! force: `rules[0]` counts own rules and those extended, and a key that a rule takes from its destination is found there.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::diagnostic::line_column;
use super::findings::{path_of, push_key};
use super::layers::{Layered, Layers};
use super::texts::Texts;

/// The places of everything in force in one file.
///
/// ```
/// let text = "[let]\nwho = '{{ userId }}'\n[destinations.mp]\nextends = 'mixpanel'\nbody.a = '{{ who }}'\n";
/// let places = libroseg::config::Places::of(text);
/// let own = places.find("destinations.mp.body.a").unwrap();
/// assert_eq!(own.in_file("libroseg.toml"), "libroseg.toml:5:10");
/// assert_eq!(own.written, "{{ who }}");
/// let inherited = places.find("destinations.mp.rules[0].path").unwrap();
/// assert_eq!((inherited.preset, inherited.written.as_str()), (Some("mixpanel"), "/import"));
/// ```
pub struct Places {
    places: BTreeMap<String, Place>,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The preset that it stands in; `None`: the file itself.
    pub preset: Option<&'static str>,
    /// Line of the value, from 1. A table under a header has the header.
    pub line: usize,
    /// Column of the value, from 1, in characters.
    pub column: usize,
    /// The value in bytes of the file, or of the preset.
    pub span: Range<usize>,
    /// Its name there: `defaults.retry.first`, `destinations.base.url`.
    pub path: String,
    /// What is written there: of a string what it says, of anything else the text itself.
    pub written: String,
}

// === impl Places ===

impl Places {
    /// The places of a file. One with mistakes has those that could be read.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let document = DeTable::parse_recoverable(text).0.into_inner();
        let texts = Texts::new(text, &Layers::reached(&document));
        let layers = Layers::new(&document, &texts);
        let finder = Finder { file: &document, texts: &texts, layers: &layers };
        let mut walk = Walk { finder: &finder, places: BTreeMap::new() };
        walk.file();
        Self { places: walk.places }
    }

    /// Where the value of a name in force was written. A name that does not lead anywhere by itself is looked for where
    /// its value comes from: `destinations.crm.let.id` in `[let]`, a rule's `method` in its destination, `when[0]` in a
    /// `when` that is not a list.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Place> {
        let elsewhere = || comes_from(path).iter().find_map(|path| self.places.get(path));
        // A header is known by its name in lower case.
        let whatever_case =
            || self.places.iter().find(|(name, _)| name.eq_ignore_ascii_case(path)).map(|(_, place)| place);
        self.places.get(path).or_else(elsewhere).or_else(whatever_case).cloned()
    }
}

/// Where else a name may lead, the likeliest first.
fn comes_from(path: &str) -> Vec<String> {
    let mut others = Vec::new();
    if let Some(whole) = path.strip_suffix("[0]") {
        others.push(whole.to_owned());
        others.extend(comes_from(whole));
    }
    let Some((destination, rest)) = path.split_once(".rules[") else {
        let of_let = path.strip_prefix("destinations.").and_then(|path| path.split_once(".let."));
        others.extend(of_let.map(|(_, name)| format!("let.{name}")));
        return others;
    };
    if let Some((_, key)) = rest.split_once("].") {
        others.push(format!("{destination}.{key}"));
    }
    others
}

// === impl Place ===

impl Place {
    /// For people, with the name of the file: `libroseg.toml:12:8`, or `preset mixpanel:7:8`.
    #[must_use]
    pub fn in_file(&self, name: &str) -> String {
        match self.preset {
            Some(preset) => format!("preset {preset}:{}:{}", self.line, self.column),
            None => format!("{name}:{}:{}", self.line, self.column),
        }
    }
}

/// Finds where what is in force was written.
pub(super) struct Finder<'a> {
    pub file: &'a DeTable<'a>,
    pub texts: &'a Texts,
    pub layers: &'a Layers<'a>,
}

// === impl Finder ===

impl<'a> Finder<'a> {
    /// The place of a value, or of its key where a value has none.
    pub(super) fn place(&self, key: &Range<usize>, value: &Spanned<DeValue<'_>>) -> Place {
        let span = if value.span().is_empty() { key.clone() } else { value.span() };
        let (preset, text, path, own) = match self.texts.in_preset(&span) {
            Some((preset, own)) => (Some(preset.name), preset.text, self.layers.path_in(preset, &span), own),
            None => (None, self.texts.all.as_str(), path_of(self.file, &span), span),
        };
        let (line, column) = line_column(text, own.start);
        let raw = || text.get(own.clone()).unwrap_or_default();
        let written = value.get_ref().as_str().unwrap_or_else(raw).to_owned();
        Place { preset, line, column, span: own, path, written }
    }

    /// The file's destinations, each with all that lies under it.
    pub(super) fn destinations(
        &self,
    ) -> impl Iterator<Item = (&'a Spanned<DeString<'a>>, &'a Value<'a>, Layered<'a, 'a>)> {
        let destinations = self.file.get("destinations").and_then(|value| value.get_ref().as_table());
        destinations.into_iter().flatten().filter_map(|(key, value)| {
            let own = value.get_ref().as_table()?;
            Some((key, value, self.layers.of(key.get_ref(), own)))
        })
    }
}

type Value<'a> = Spanned<DeValue<'a>>;

/// A walk through what is in force.
struct Walk<'a> {
    finder: &'a Finder<'a>,
    places: BTreeMap<String, Place>,
}

// === impl Walk ===

impl Walk<'_> {
    fn file(&mut self) {
        for (key, value) in self.finder.file {
            let name = key.get_ref().as_ref();
            self.note(&named("", name), key.span(), value);
            if name != "destinations" {
                self.inside(&named("", name), value);
            }
        }
        for (key, value, layered) in self.finder.destinations() {
            let path = named("destinations", key.get_ref());
            self.note(&path, key.span(), value);
            self.table(&path, &layered.entries);
            // Those of presets; the file's own are known.
            self.table("tables", &layered.tables);
        }
    }

    fn table(&mut self, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = named(path, key.get_ref());
            self.note(&path, key.span(), value);
            self.inside(&path, value);
        }
    }

    fn inside(&mut self, path: &str, value: &Value<'_>) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(path, table),
            DeValue::Array(list) => {
                for (index, element) in list.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.note(&path, element.span(), element);
                    self.inside(&path, element);
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }

    fn note(&mut self, path: &str, key: Range<usize>, value: &Value<'_>) {
        if !self.places.contains_key(path) {
            self.places.insert(path.to_owned(), self.finder.place(&key, value));
        }
    }
}

fn named(path: &str, key: &str) -> String {
    let mut path = path.to_owned();
    push_key(&mut path, key);
    path
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::Places;

    const FILE: &str = r#"[let]
who = "{{ userId }}"
[defaults]
retry = { first = "2s" }
[destinations.base]
url  = "https://a.example.com"
when = "$.userId"
[[destinations.base.rules]]
on   = "track"
body = { "a b" = "{{ who }}", list = [1, "{{ event }}"] }
[destinations.crm]
extends = "base"
method  = "PUT"
[[destinations.crm.rules]]
path = "/own"
[destinations.mp]
extends = "mixpanel"
"#;

    fn told(path: &str) -> String {
        Places::of(FILE).find(path).map_or_else(
            || "nowhere".to_owned(),
            |place| format!("{} {}: {}", place.in_file("f"), place.path, place.written),
        )
    }

    #[test]
    fn what_is_in_force_is_found_where_it_was_written() {
        assert_eq!(told("destinations.crm.url"), "f:6:8 destinations.base.url: https://a.example.com");
        assert_eq!(told("destinations.crm.method"), "f:13:11 destinations.crm.method: PUT");
        assert_eq!(told("destinations.crm.retry.first"), "f:4:19 defaults.retry.first: 2s");
        assert_eq!(told("destinations.crm.rules[0].path"), "f:15:8 destinations.crm.rules[0].path: /own");
        assert_eq!(told("destinations.crm.rules[1].on"), "f:9:8 destinations.base.rules[0].on: track");
        assert_eq!(
            told("destinations.crm.rules[1].body.\"a b\""),
            "f:10:18 destinations.base.rules[0].body.\"a b\": {{ who }}"
        );
        assert_eq!(
            told("destinations.crm.rules[1].body.list[1]"),
            "f:10:42 destinations.base.rules[0].body.list[1]: {{ event }}"
        );
        assert_eq!(told("destinations.crm.rules[7]"), "nowhere");
    }

    #[test]
    fn a_name_that_is_not_there_leads_where_its_value_comes_from() {
        assert_eq!(told("destinations.crm.let.who"), "f:2:7 let.who: {{ userId }}");
        assert_eq!(told("destinations.crm.when[0]"), "f:7:8 destinations.base.when: $.userId");
        assert_eq!(told("destinations.crm.rules[0].method"), "f:13:11 destinations.crm.method: PUT");
    }

    #[test]
    fn a_preset_has_places_of_its_own() {
        let place = Places::of(FILE).find("destinations.mp.url").unwrap();
        let preset = crate::config::presets::preset("mixpanel").unwrap();
        assert_eq!(place.preset, Some("mixpanel"));
        assert_eq!(place.path, "destinations.mixpanel.url");
        assert!(preset.text[place.span.clone()].starts_with("\"https://"));
        assert_eq!(preset.text.lines().nth(place.line - 1).unwrap().find('"'), Some(place.column - 1));
    }
}
