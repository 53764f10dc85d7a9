//! Where what is in force was written: in the file, in what a destination extends, in a preset, in `[defaults]`.
//!
//! The names of places are those of diagnostics and traces, `destinations.crm.rules[0].body.email`, and mean what is in
//! force: `rules[0]` counts own rules and those extended, and a key that a rule takes from its destination is found there.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::line_column;
use super::findings::{path_of, push_key};
use super::layers::Layers;
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
    texts: Texts,
    spots: BTreeMap<String, Spot>,
    /// The names of `spots` in the order of the file, what is under a name after it.
    order: Vec<String>,
}

/// A value in force.
struct Spot {
    key: Range<usize>,
    value: Range<usize>,
    /// What a string says; `None`: the value is no string.
    says: Option<String>,
    /// Whether it is told by itself, not by what is in it or what it is in.
    is_leaf: bool,
    /// Its name where it was written.
    home: String,
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
        let (spots, order) = Walk::through(&document, &texts);
        Self { texts, spots, order }
    }

    /// Where the value of a name in force was written. A name that does not lead anywhere by itself is looked for where
    /// its value comes from: `destinations.crm.let.id` in `[let]`, a rule's `method` in its destination, `when[0]` in a
    /// `when` that is not a list.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Place> {
        let spot = self.spots.get(path).or_else(|| comes_from(path).iter().find_map(|path| self.spots.get(path)));
        // A header is known by its name in lower case.
        let whatever_case =
            || self.spots.iter().find(|(name, _)| name.eq_ignore_ascii_case(path)).map(|(_, spot)| spot);
        Some(self.place(spot.or_else(whatever_case)?))
    }

    /// Every value in force that is no table and no list of tables, by name, in the order of the file.
    pub fn values(&self) -> impl Iterator<Item = (&str, Place)> {
        let spots = self.order.iter().filter_map(|name| Some((name.as_str(), self.spots.get(name)?)));
        spots.filter(|(_, spot)| spot.is_leaf).map(|(name, spot)| (name, self.place(spot)))
    }

    fn place(&self, spot: &Spot) -> Place {
        let span = if spot.value.is_empty() { &spot.key } else { &spot.value };
        let (preset, text, span) = match self.texts.in_preset(span) {
            Some((preset, span)) => (Some(preset.name), preset.text, span),
            None => (None, self.texts.all.as_str(), span.clone()),
        };
        let (line, column) = line_column(text, span.start);
        let raw = || text.get(span.clone()).unwrap_or_default().to_owned();
        let written = spot.says.clone().unwrap_or_else(raw);
        Place { preset, line, column, span, path: spot.home.clone(), written }
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

/// A walk through what is in force.
struct Walk<'a> {
    file: &'a DeTable<'a>,
    texts: &'a Texts,
    layers: &'a Layers<'a>,
    spots: BTreeMap<String, Spot>,
    order: Vec<String>,
}

// === impl Walk ===

impl<'a> Walk<'a> {
    fn through(file: &DeTable<'_>, texts: &Texts) -> (BTreeMap<String, Spot>, Vec<String>) {
        let layers = Layers::new(file, texts);
        let mut walk = Walk { file, texts, layers: &layers, spots: BTreeMap::new(), order: Vec::new() };
        walk.file();
        (walk.spots, walk.order)
    }

    fn file(&mut self) {
        for (key, value) in self.file {
            let name = key.get_ref().as_ref();
            match value.get_ref().as_table().filter(|_| name == "destinations") {
                Some(destinations) => self.destinations(destinations),
                None => self.value(&named("", name), key.span(), value, true),
            }
        }
    }

    fn destinations(&mut self, destinations: &'a DeTable<'a>) {
        for (key, value) in destinations {
            let path = named("destinations", key.get_ref());
            let DeValue::Table(own) = value.get_ref() else {
                self.value(&path, key.span(), value, true);
                continue;
            };
            let layered = self.layers.of(key.get_ref(), own);
            self.note(&path, key.span(), value, true);
            self.table(&path, &layered.entries, true);
            for (key, value) in layered.tables.iter() {
                let path = named("tables", key.get_ref());
                if !self.spots.contains_key(&path) {
                    self.value(&path, key.span(), value, true);
                }
            }
        }
    }

    fn table(&mut self, path: &str, table: &DeTable<'_>, is_told: bool) {
        for (key, value) in table {
            self.value(&named(path, key.get_ref()), key.span(), value, is_told);
        }
    }

    fn value(&mut self, path: &str, key: Range<usize>, value: &Spanned<DeValue<'_>>, is_told: bool) {
        self.note(path, key, value, is_told);
        let is_told = is_told && !is_leaf(value.get_ref());
        match value.get_ref() {
            DeValue::Table(table) => self.table(path, table, is_told),
            DeValue::Array(list) => {
                for (index, element) in list.iter().enumerate() {
                    self.value(&format!("{path}[{index}]"), element.span(), element, is_told);
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }

    fn note(&mut self, path: &str, key: Range<usize>, value: &Spanned<DeValue<'_>>, is_told: bool) {
        let spot = Spot {
            home: self.home(&value.span(), &key),
            key,
            value: value.span(),
            says: value.get_ref().as_str().map(str::to_owned),
            is_leaf: is_told && is_leaf(value.get_ref()),
        };
        self.order.push(path.to_owned());
        self.spots.insert(path.to_owned(), spot);
    }

    /// The name of a place in the file or the preset where it lies.
    fn home(&self, value: &Range<usize>, key: &Range<usize>) -> String {
        let span = if value.is_empty() { key } else { value };
        match self.texts.in_preset(span) {
            None => path_of(self.file, span),
            Some((preset, _)) => self.layers.path_in(preset, span),
        }
    }
}

fn named(path: &str, key: &str) -> String {
    let mut path = path.to_owned();
    push_key(&mut path, key);
    path
}

/// Tables, and lists of tables, are told by what is in them.
fn is_leaf(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(table) => table.is_empty(),
        DeValue::Array(list) => {
            list.is_empty() || list.iter().any(|element| !matches!(element.get_ref(), DeValue::Table(_)))
        }
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            true
        }
    }
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

    #[test]
    fn every_value_in_force_is_told_once_in_the_order_of_the_file() {
        let places = Places::of(FILE);
        let names: Vec<_> = places.values().map(|(name, _)| name.to_owned()).collect();
        let of_crm: Vec<_> = names.iter().filter(|name| name.starts_with("destinations.crm.")).collect();
        assert_eq!(
            of_crm,
            [
                "destinations.crm.retry.first",
                "destinations.crm.url",
                "destinations.crm.when",
                "destinations.crm.rules[0].path",
                "destinations.crm.rules[1].on",
                "destinations.crm.rules[1].body.\"a b\"",
                "destinations.crm.rules[1].body.list",
                "destinations.crm.method",
            ]
        );
    }
}
