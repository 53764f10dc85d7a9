//! What is in force: every key of a file with its value, what holds without being written included, and where it is from.
//!
//! Made from the layers and the catalogue of keys, so it knows what the compiler knows and says where each came from.
//! Values are as written: of a template the template, never what it gives; what may be a secret is masked.

use std::fmt::Write as _;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::destination;
use super::findings::push_key;
use super::keys::{self, Absent, Key, Section, Shape};
use super::layers::Layers;
use super::merge;
use super::places::{Finder, Place};
use super::rule::MATCH_KEYS;
use super::texts::Texts;
use super::written::{as_json, inline, is_secret_key, quoted};
use crate::plan::Disabled;

/// Everything in force, section by section.
pub struct Effective {
    /// In the order of the language; destinations in that of the file.
    pub sections: Vec<InForce>,
}

/// A table in force.
pub struct InForce {
    /// How it is written: `[server]`, `[[destinations.crm.rules]]`.
    pub header: String,
    /// Its name: `server`, `destinations.crm.rules[0]`.
    pub path: String,
    /// Where it is written, if it is.
    pub place: Option<Place>,
    /// The destination that it belongs to.
    pub destination: Option<String>,
    /// What a destination extends, as written.
    pub extends: Option<String>,
    /// Why the destination is off, once it was noted.
    pub off: Option<String>,
    /// Its keys.
    pub settings: Vec<Setting>,
}

/// A key in force.
pub struct Setting {
    /// The key within its table, dotted where it is in a table of its own: `retry.first`.
    pub key: String,
    /// Its name: `destinations.crm.retry.first`.
    pub path: String,
    /// Its value as TOML, on one line.
    pub toml: String,
    /// Its value as JSON; dates are text.
    pub json: serde_json::Value,
    /// Where the value is from.
    pub origin: Origin,
}

/// Where a value is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is what holds when nothing is written.
    Default,
    /// It is written.
    Written(Place),
    /// Whoever starts the program says so: a variable, an option.
    Given(&'static str),
}

/// Keys of `auth` that hold a string of any kind and say whom or where it is for.
const TOLD_IN_AUTH: [&str; 5] = ["scope", "audience", "region", "service", "subject"];

/// The longest line that others wait for with their origins.
const ALIGNED_MAX: usize = 90;

/// Tables whose defaults hold when they are not there.
const ALWAYS: [&str; 4] = ["`limits`", "`dead_letters`", "`retry`", "`limit`"];

// === impl Effective ===

impl Effective {
    /// What is in force by a file. Meant for files without mistakes; of others what could be read.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let document = DeTable::parse_recoverable(text).0.into_inner();
        let texts = Texts::new(text, &Layers::reached(&document));
        let layers = Layers::new(&document, &texts);
        let finder = Finder { file: &document, texts: &texts, layers: &layers };
        let mut walk = Walk { finder: &finder, catalogue: keys::catalogue(), destination: None, sections: Vec::new() };
        walk.file();
        Self { sections: walk.sections }
    }

    /// Leaves out what holds without being written, and sections of nothing else.
    pub fn leave_out_defaults(&mut self) {
        for section in &mut self.sections {
            section.settings.retain(|setting| setting.origin != Origin::Default);
        }
        self.sections.retain(|section| section.place.is_some() || !section.settings.is_empty());
    }

    /// Takes note of why destinations are off.
    pub fn note_disabled(&mut self, disabled: &[Disabled]) {
        for section in self.sections.iter_mut().filter(|section| !section.header.starts_with("[[")) {
            let own = disabled.iter().find(|disabled| section.destination.as_deref() == Some(disabled.name.as_str()));
            section.off = own.map(|disabled| disabled.why.clone());
        }
    }

    /// Everything as TOML, with the origin of each value behind it. `file` is the name of the file.
    #[must_use]
    pub fn toml(&self, file: &str) -> String {
        let mut out = String::new();
        for section in &self.sections {
            let remark = section.remark(file);
            let header = [section.header.as_str(), remark.as_str()].join(if remark.is_empty() { "" } else { "  # " });
            let lines: Vec<String> = section.settings.iter().map(|s| format!("{} = {}", s.key, s.toml)).collect();
            let lengths = lines.iter().map(|line| line.chars().count()).filter(|length| *length <= ALIGNED_MAX);
            let width = lengths.max().unwrap_or_default();
            out.extend([if out.is_empty() { "" } else { "\n" }, &header, "\n"]);
            for (line, setting) in lines.iter().zip(&section.settings) {
                let origin = setting.origin.told(&setting.path, file);
                // Writing into a string cannot fail.
                let _ = writeln!(out, "{line:width$}  # {origin}");
            }
        }
        out
    }

    /// Puts another value in the place of one that whoever starts the program has the last word on.
    pub fn give(&mut self, path: &str, value: &str, by: &'static str) {
        let settings = self.sections.iter_mut().flat_map(|section| &mut section.settings);
        for setting in settings.filter(|setting| setting.path == path) {
            setting.toml = quoted(value);
            setting.json = value.into();
            setting.origin = Origin::Given(by);
        }
    }
}

// === impl InForce ===

impl InForce {
    /// What is to be said of a table: where it is written, what it extends, why it is off.
    fn remark(&self, file: &str) -> String {
        let place = self.place.clone().map(|place| Origin::Written(place).told(&self.path, file));
        let extends = self.extends.as_ref().map(|extends| format!("extends {extends}"));
        let off = self.off.as_ref().map(|why| format!("off: {why}"));
        [place, extends, off].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

// === impl Origin ===

impl Origin {
    /// For people: `default`, `libroseg.toml:12`, `[defaults] libroseg.toml:40`, `preset mixpanel:7`. `path` is the name of
    /// the value in force, `file` that of the file.
    #[must_use]
    pub fn told(&self, path: &str, file: &str) -> String {
        match self {
            Self::Default => "default".to_owned(),
            Self::Given(by) => (*by).to_owned(),
            Self::Written(place) => match (place.preset, owner(&place.path)) {
                (Some(preset), _) => format!("preset {preset}:{}", place.line),
                (None, other) if other == owner(path) => format!("{file}:{}", place.line),
                (None, other) => format!("[{other}] {file}:{}", place.line),
            },
        }
    }
}

/// The table at the top that a name belongs to: `defaults`, `destinations.crm`.
fn owner(path: &str) -> &str {
    let end = |from: usize| path[from..].find(['.', '[']).map_or(path.len(), |at| from + at);
    let top = end(0);
    match &path[..top] {
        "destinations" if top < path.len() => match path[top + 1..].strip_prefix('"') {
            Some(quoted) => &path[..quoted.find('"').map_or(path.len(), |at| top + at + 3)],
            None => &path[..end(top + 1)],
        },
        top => top,
    }
}

/// A walk through what is in force.
struct Walk<'a> {
    finder: &'a Finder<'a>,
    catalogue: Vec<Section>,
    /// The destination walked through.
    destination: Option<String>,
    sections: Vec<InForce>,
}

/// A table on the walk.
#[derive(Clone)]
struct At<'w> {
    /// What the catalogue calls it; `None`: its keys are the user's own.
    what: Option<&'static str>,
    /// The word of `type` that holds here.
    kind: &'w str,
    /// Its key within the section, and its name in the file.
    key: String,
    path: String,
    /// Keys of the section whose absence says nothing.
    silent: &'w [&'w str],
}

// === impl Walk ===

impl Walk<'_> {
    fn file(&mut self) {
        let file = self.finder.file;
        for key in self.section(Some("the file")).map(|section| section.keys).unwrap_or_default() {
            let Some(what) = key.shape.sections().first().copied() else { continue };
            match key.name {
                // They are where they hold.
                "defaults" | "tests" => {}
                "destinations" => self.destinations(),
                name => self.top(name, what, file.get_key_value(name)),
            }
        }
    }

    fn top(&mut self, name: &str, what: &'static str, entry: Option<(&Spanned<Name<'_>>, &Spanned<DeValue<'_>>)>) {
        let table = entry.and_then(|(_, value)| value.get_ref().as_table());
        let inner = self.section(Some(what)).and_then(|section| section.own);
        match inner.as_ref().and_then(|shape| shape.sections().first().copied()) {
            Some(inner) if name == "tables" => self.tables(inner),
            Some(inner) => {
                for (key, value) in table.into_iter().flatten() {
                    self.one_of(&named(name, key.get_ref()), inner, key.span(), value);
                }
            }
            None if table.is_none_or(DeTable::is_empty) && inner.is_some() => {}
            None => {
                let place = entry.map(|(key, value)| self.finder.place(&key.span(), value));
                let word = table.and_then(|table| table.get("type")?.get_ref().as_str()).unwrap_or("disk");
                let mut settings = self.settings(&At::top(what, word, name), table);
                if name == "queue" && table.is_none_or(|table| !table.contains_key("type")) {
                    // Where nothing is said, the place decides, and this is one with a disk.
                    settings.splice(0..0, default("type", "queue.type", &quoted(word)));
                }
                self.push(format!("[{name}]"), name.to_owned(), place, settings);
            }
        }
    }

    fn one_of(&mut self, path: &str, what: &'static str, key: Range<usize>, value: &Spanned<DeValue<'_>>) {
        let Some(table) = value.get_ref().as_table() else { return };
        let place = self.finder.place(&key, value);
        let settings = self.settings(&At::top(what, "", path), Some(table));
        self.push(format!("[{path}]"), path.to_owned(), Some(place), settings);
    }

    /// The file's tables over those that come with presets.
    fn tables(&mut self, what: &'static str) {
        let all = self.finder.destinations().fold(DeTable::new(), |all, (_, _, it)| merge::deep(&all, &it.tables));
        let own = self.finder.file.get("tables").and_then(|value| value.get_ref().as_table());
        for (key, value) in &own.map_or_else(|| all.clone(), |own| merge::deep(&all, own)) {
            self.one_of(&named("tables", key.get_ref()), what, key.span(), value);
        }
    }

    fn destinations(&mut self) {
        for (key, value, layered) in self.finder.destinations() {
            let path = named("destinations", key.get_ref());
            let first = self.sections.len();
            self.destination = Some(key.get_ref().to_string());
            self.destination(&path, &layered.entries);
            let section = &mut self.sections[first];
            section.place = Some(self.finder.place(&key.span(), value));
            let own = value.get_ref().as_table();
            section.extends = own.and_then(|own| own.get("extends")?.get_ref().as_str()).map(str::to_owned);
        }
        self.destination = None;
    }

    fn destination(&mut self, path: &str, entries: &DeTable<'_>) {
        let kind = entries.get("type").and_then(|value| value.get_ref().as_str()).unwrap_or("http");
        let lists = |key: &str| match entries.get(key).map(Spanned::get_ref) {
            Some(DeValue::Array(list)) => list.iter().collect::<Vec<_>>(),
            Some(_) | None => Vec::new(),
        };
        let (rules, responses) = (lists("rules"), lists("response"));
        let silent: &[&str] = if rules.is_empty() { &[] } else { &MATCH_KEYS };
        let mut settings =
            self.settings(&At { silent, ..At::top("a destination", kind, path) }, Some(&without_lists(entries)));
        settings.extend(beyond_the_catalogue(path, kind, entries));
        self.push(format!("[{path}]"), path.to_owned(), None, settings);
        let silent = self.said_above_rules(entries);
        let silent: Vec<&str> = silent.iter().map(String::as_str).collect();
        for (index, rule) in rules.into_iter().enumerate() {
            let Some(own) = rule.get_ref().as_table() else { continue };
            self.element(path, "rules", index, rule, &At { silent: &silent, ..At::top("a rule", kind, "") }, own);
        }
        for (index, response) in responses.into_iter().enumerate() {
            let Some(own) = response.get_ref().as_table() else { continue };
            // The rest of an answer is what its parts do not speak of.
            let silent: &[&str] = if own.contains_key("each") { &[] } else { &["rest"] };
            let at = At { silent, ..At::top("a response rule", kind, "") };
            self.element(path, "response", index, response, &at, own);
        }
    }

    /// Keys that a rule need not say, because its destination does, or because what holds there holds here.
    fn said_above_rules(&self, destination: &DeTable<'_>) -> Vec<String> {
        let keys = |what: &str| self.section(Some(what)).map(|section| section.keys).unwrap_or_default();
        let rule = keys("a rule").into_iter().map(|key| key.name).filter(|name| !MATCH_KEYS.contains(name));
        let mut all: Vec<String> = rule.map(str::to_owned).collect();
        if destination.get("batch").is_some_and(|batch| batch.get_ref().is_table()) {
            // A rule's batch lies over it, key by key.
            all.extend(keys("`batch`").into_iter().map(|key| format!("batch.{}", key.name)));
        }
        all
    }

    fn element(
        &mut self,
        path: &str,
        list: &str,
        index: usize,
        value: &Spanned<DeValue<'_>>,
        at: &At<'_>,
        table: &DeTable<'_>,
    ) {
        let element = format!("{path}.{list}[{index}]");
        let place = self.finder.place(&value.span(), value);
        let settings = self.settings(&At { path: element.clone(), ..at.clone() }, Some(table));
        self.push(format!("[[{path}.{list}]]"), element, Some(place), settings);
    }

    fn push(&mut self, header: String, path: String, place: Option<Place>, settings: Vec<Setting>) {
        let destination = self.destination.clone();
        self.sections.push(InForce { header, path, place, destination, extends: None, off: None, settings });
    }

    /// What a table says, and what holds where it says nothing.
    fn settings(&self, at: &At<'_>, table: Option<&DeTable<'_>>) -> Vec<Setting> {
        let section = self.section(at.what);
        let keys = section.as_ref().map(|section| section.keys.as_slice()).unwrap_or_default();
        let mut settings = Vec::new();
        for (key, value) in table.into_iter().flatten() {
            let known = keys.iter().find(|known| known.name == key.get_ref().as_ref() && known.is_for(at.kind));
            settings.extend(self.written(at, known, key, value));
        }
        let is_absent = |key: &&Key| key.is_for(at.kind) && !table.is_some_and(|table| table.contains_key(key.name));
        for key in keys.iter().filter(is_absent) {
            let inner = at.under(key.name, key.shape.sections().first().copied());
            if at.silent.contains(&inner.key.as_str()) {
                continue;
            }
            match &key.absent {
                Absent::Value(toml) => settings.extend(default(&inner.key, &inner.path, toml)),
                Absent::MustBeGiven | Absent::Otherwise(_) => {
                    if inner.what.is_some_and(|what| ALWAYS.contains(&what)) {
                        settings.extend(self.settings(&inner, None));
                    }
                }
            }
        }
        settings
    }

    fn written(
        &self,
        at: &At<'_>,
        known: Option<&Key>,
        key: &Spanned<Name<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Vec<Setting> {
        let what = known.and_then(|key| key.shape.sections().first().copied());
        let inner = at.under(key.get_ref(), what);
        if let Some(table) = value.get_ref().as_table().filter(|table| !table.is_empty()) {
            return self.settings(&inner, Some(table));
        }
        let is_secret = is_secret(&inner.path, key.get_ref(), known);
        let origin = Origin::Written(self.finder.place(&key.span(), value));
        let (toml, json) = (inline(value.get_ref(), is_secret), as_json(value.get_ref(), is_secret));
        vec![Setting { key: inner.key, path: inner.path, toml, json, origin }]
    }

    fn section(&self, what: Option<&str>) -> Option<Section> {
        self.catalogue.iter().find(|section| Some(section.what) == what).cloned()
    }
}

type Name<'i> = toml::de::DeString<'i>;

// === impl At ===

impl<'w> At<'w> {
    fn top(what: &'static str, kind: &'w str, path: &str) -> Self {
        Self { what: Some(what), kind, key: String::new(), path: path.to_owned(), silent: &[] }
    }

    fn under(&self, key: &str, what: Option<&'static str>) -> Self {
        let (mut inner, mut path) = (self.key.clone(), self.path.clone());
        push_key(&mut inner, key);
        push_key(&mut path, key);
        Self { what, kind: self.kind, key: inner, path, silent: self.silent }
    }
}

/// What holds without being written and depends on more than its key.
fn beyond_the_catalogue(path: &str, kind: &str, entries: &DeTable<'_>) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add = |key: &str, toml: String| settings.extend(default(key, &format!("{path}.{key}"), &toml));
    if !entries.contains_key("integration") {
        let name = path.strip_prefix("destinations.").unwrap_or(path);
        add("integration", if name.starts_with('"') { name.to_owned() } else { quoted(name) });
    }
    let batch = destination::written_batch(kind).filter(|_| !entries.contains_key("batch"));
    for (key, toml) in batch.into_iter().flatten() {
        add(&format!("batch.{key}"), toml);
    }
    settings
}

/// A default of the catalogue.
fn default(key: &str, path: &str, toml: &str) -> Option<Setting> {
    let text = format!("value = {toml}");
    let document = DeTable::parse_recoverable(&text).0.into_inner();
    let value = document.get("value")?.get_ref();
    let (toml, json) = (inline(value, false), as_json(value, false));
    Some(Setting { key: key.to_owned(), path: path.to_owned(), toml, json, origin: Origin::Default })
}

/// The keys that are no lists of tables: those have headers of their own. An empty list is a key.
fn without_lists<'i>(entries: &DeTable<'i>) -> DeTable<'i> {
    let is_list = |key: &str, value: &DeValue<'_>| {
        ["rules", "response"].contains(&key) && value.as_array().is_some_and(|list| !list.is_empty())
    };
    let rest = entries.iter().filter(|(key, value)| !is_list(key.get_ref(), value.get_ref()));
    rest.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn named(path: &str, key: &str) -> String {
    let mut path = path.to_owned();
    push_key(&mut path, key);
    path
}

/// Whether a constant here is nobody's business.
fn is_secret(path: &str, name: &str, key: Option<&Key>) -> bool {
    let is_of = |table: &str, piece: &str| path.starts_with(table) && path.contains(piece);
    let is_told = || key.is_some_and(is_told_in_auth);
    is_of("sources.", ".write_keys")
        || (is_of("destinations.", ".auth.") && !is_told())
        || (path.starts_with("destinations.") && is_secret_key(name))
}

/// Whether a key of `auth` says how credentials are used, and is none: a word, a URL, what is signed, whom it is for.
fn is_told_in_auth(key: &Key) -> bool {
    let is_word = |shape: &Shape| match shape {
        Shape::Within(_) => true,
        Shape::Text(text) => text.name != "string",
        Shape::Boolean
        | Shape::False
        | Shape::Number { .. }
        | Shape::Scalar
        | Shape::Body
        | Shape::Object
        | Shape::Pair(_)
        | Shape::Constant
        | Shape::Table(_)
        | Shape::List(_)
        | Shape::Either(_) => false,
    };
    key.shape.alternatives().iter().all(is_word) || TOLD_IN_AUTH.contains(&key.name)
}
