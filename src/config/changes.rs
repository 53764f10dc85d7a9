//! What one file changes against another: by meaning, not by layout.
//!
//! Compared is what is in force. So a change in `[let]`, `[tables]`, `[defaults]` or in what a destination extends is a
//! change of every destination that it reaches, under the name that it has there; comments, layout, the order of keys and
//! `[[tests]]` are none. Values are told as they are written, never as what they give, and secrets are masked.

mod rules;

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value as Json};
use toml::de::{DeTable, DeValue};

use super::expressions::has_braces;
use super::findings::push_key;
use super::layers::Layers;
use super::texts::Texts;
use super::written::is_secret_key;
use super::{entries_of, staged_sources};
use crate::event::SourceName;
use crate::expr::template::Template;

/// What one file changes against another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Of everything but destinations, in the order of the language; only what changes.
    pub sections: Vec<Section>,
    /// Of destinations, in the order of the new file, those that are gone last; only what changes.
    pub destinations: Vec<Section>,
}

/// A section, or a destination, that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name: `server`, or that of a destination.
    pub name: String,
    /// Its name as a place: `server`, `destinations.crm`.
    pub place: String,
    /// What becomes of it as a whole.
    pub change: Change,
    /// What becomes of its keys; none when it is added or removed as a whole.
    pub edits: Vec<Edit>,
}

/// What becomes of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
    /// It is as it was, but stands elsewhere in a list whose order counts.
    Moved,
}

/// What becomes of a key, or of an entry of `rules` or `response`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// What.
    pub change: Change,
    /// As it was, unless it is new.
    pub old: Option<Side>,
    /// As it is, unless it is gone.
    pub new: Option<Side>,
}

/// A key as one of the files has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// Its name in force, within the section: `rules[0].body.email`.
    pub path: String,
    /// Its value as TOML on one line; secrets are masked.
    pub written: String,
}

/// The sections that are compared, in the order of the language.
const SECTIONS: [&str; 6] = ["server", "queue", "sources", "let", "tables", "plan"];

const DESTINATIONS: &str = "destinations";

/// Lists of tables whose order counts and whose entries are known by what is in them.
const ORDERED: [&str; 2] = ["rules", "response"];

/// What stands for a secret.
const MASK: &str = "***";

/// Characters of a value inside a line.
const TOLD_CHARS_MAX: usize = 80;

/// Characters before the first difference of two values that are told.
const BEFORE_DIFFERENCE: usize = 20;

/// What `new` changes against `old`. Meant for files without mistakes; of others what could be read is compared.
///
/// ```
/// let old = "[let]\nwho = '{{ userId }}'\n[destinations.crm]\nurl = 'https://a.example'\nbody.id = '{{ who }}'\n";
/// let new = old.replace("userId", "anonymousId") + "# a comment";
/// let changes = libroseg::config::changes(old, &new);
/// assert_eq!(changes.sections[0].edits[0].to_string(), r#"~ who: "{{ userId }}" → "{{ anonymousId }}""#);
/// assert_eq!(changes.destinations[0].edits[0].to_string(), r#"~ let.who: "{{ userId }}" → "{{ anonymousId }}""#);
/// ```
#[must_use]
pub fn changes(old: &str, new: &str) -> Changes {
    let (old, new) = (InForce::of(old), InForce::of(new));
    let nothing = Json::Object(Map::new());
    let section = |name: &&str| {
        let side = |file: &InForce| file.sections.get(*name).cloned().unwrap_or_else(|| nothing.clone());
        Section::changed("", name, &side(&old), &side(&new))
    };
    let destination = |(name, now): (&String, &Json)| match old.destinations.get(name) {
        Some(before) => Section::changed(DESTINATIONS, name, before, now),
        None => Some(Section::new(DESTINATIONS, name, Change::Added)),
    };
    let gone = old.destinations.keys().filter(|name| !new.destinations.contains_key(*name));
    let gone = gone.map(|name| Section::new(DESTINATIONS, name, Change::Removed));
    Changes {
        sections: SECTIONS.iter().filter_map(section).collect(),
        destinations: new.destinations.iter().filter_map(destination).chain(gone).collect(),
    }
}

// === impl Changes, Section ===

impl Changes {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty() && self.destinations.is_empty()
    }

    /// What becomes of the keys of a section.
    #[must_use]
    pub fn section(&self, name: &str) -> &[Edit] {
        self.sections.iter().find(|section| section.name == name).map_or(&[], |section| &section.edits)
    }
}

impl Section {
    fn new(within: &str, name: &str, change: Change) -> Self {
        let mut place = within.to_owned();
        push_key(&mut place, name);
        Self { name: name.to_owned(), place, change, edits: Vec::new() }
    }

    fn changed(within: &str, name: &str, old: &Json, new: &Json) -> Option<Self> {
        let mut comparison = Comparison::default();
        comparison.value(&Way::default(), old, new);
        let edits = comparison.edits;
        (!edits.is_empty()).then(|| Self { edits, ..Self::new(within, name, Change::Changed) })
    }

    /// The name in force of a key, for [`Places`](super::Places).
    #[must_use]
    pub fn place_of(&self, side: &Side) -> String {
        let is_shared = self.place != self.name && side.path.starts_with("tables.");
        if is_shared { side.path.clone() } else { format!("{}.{}", self.place, side.path) }
    }
}

// === impl Edit ===

impl Edit {
    /// Its name: in the new file, or in the old one if it is gone.
    #[must_use]
    pub fn path(&self) -> &str {
        self.new.as_ref().or(self.old.as_ref()).map_or("", |side| &side.path)
    }

    /// The first key of its name: `batch` of `batch.max_age`. A rule's own keys count as the destination's.
    #[must_use]
    pub fn key(&self) -> &str {
        let path = self.path();
        let within = path.strip_prefix("rules[").and_then(|rest| rest.split_once("].")).map_or(path, |(_, rest)| rest);
        within.split(['.', '[']).next().unwrap_or_default()
    }
}

impl fmt::Display for Edit {
    /// One line for people; long values are cut.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.change, &self.old, &self.new) {
            (Change::Moved, Some(old), Some(new)) => write!(f, "> {}: was {}", new.path, old.path),
            (_, Some(old), Some(new)) if old.written == new.written => write!(f, "~ {}: another secret", new.path),
            (_, Some(old), Some(new)) => {
                let (before, after) = excerpts(&old.written, &new.written);
                write!(f, "~ {}: {before} → {after}", new.path)
            }
            (_, None, Some(side)) => write!(f, "+ {} = {}", side.path, cut(&side.written, 0)),
            (_, Some(side), None) => write!(f, "- {} = {}", side.path, cut(&side.written, 0)),
            (_, None, None) => Ok(()),
        }
    }
}

/// As much of two values as shows where they begin to differ.
fn excerpts(old: &str, new: &str) -> (String, String) {
    let same = old.chars().zip(new.chars()).take_while(|(one, other)| one == other).count();
    let is_long = old.chars().count().max(new.chars().count()) > TOLD_CHARS_MAX;
    let from = if is_long { same.saturating_sub(BEFORE_DIFFERENCE) } else { 0 };
    (cut(old, from), cut(new, from))
}

fn cut(text: &str, from: usize) -> String {
    let before = if from > 0 { "…" } else { "" };
    let told: String = text.chars().skip(from).take(TOLD_CHARS_MAX).collect();
    let after = if text.chars().count() > from + TOLD_CHARS_MAX { "…" } else { "" };
    format!("{before}{told}{after}")
}

// === what is in force ===

/// What is in force in a file, as JSON: tables are equal whatever the order of their keys.
struct InForce {
    sections: Map<String, Json>,
    destinations: Map<String, Json>,
}

impl InForce {
    fn of(text: &str) -> Self {
        let document = DeTable::parse_recoverable(text).0.into_inner();
        let texts = Texts::new(text, &Layers::reached(&document));
        let layers = Layers::new(&document, &texts);
        let section = |name: &&str| Some(((*name).to_owned(), json(document.get(*name)?.get_ref())));
        let mut destinations = Map::new();
        for (name, value) in entries_of(&document, DESTINATIONS).into_iter().flatten() {
            let DeValue::Table(own) = value.get_ref() else { continue };
            let name = name.get_ref();
            let layered = layers.of(name, own);
            let mut entries = json_table(&layered.entries);
            add_shared(&mut entries, entries_of(&document, "let"), &layered.tables);
            if let Some(sources) = staged_sources(&document, name) {
                entries.insert("sources".to_owned(), sources.iter().map(SourceName::as_str).collect());
            }
            destinations.insert(name.to_string(), entries.into());
        }
        Self { sections: SECTIONS.iter().filter_map(section).collect(), destinations }
    }
}

/// Adds what a destination uses of `[let]` and of the tables: as `let.NAME`, which its own go before, and as
/// `tables.NAME`.
fn add_shared(destination: &mut Map<String, Json>, shared: Option<&DeTable<'_>>, tables: &DeTable<'_>) {
    let mut lets = destination.get("let").and_then(Json::as_object).cloned().unwrap_or_default();
    let (mut used_tables, mut seen) = (Map::new(), BTreeSet::new());
    let mut open = names_in(&Json::Object(destination.clone()));
    while let Some(name) = open.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let (root, rest) = name.split_once('.').unwrap_or((&name, ""));
        if root == "tables" {
            let table = rest.split('.').next().unwrap_or_default();
            let used = tables.iter().filter(|(key, _)| table.is_empty() || key.get_ref() == table);
            used_tables.extend(used.map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref()))));
        } else if let Some(value) = shared.and_then(|shared| shared.get(root)).filter(|_| !lets.contains_key(root)) {
            let value = json(value.get_ref());
            open.extend(names_in(&value));
            lets.insert(root.to_owned(), value);
        }
    }
    for (key, used) in [("let", lets), ("tables", used_tables)] {
        if !used.is_empty() {
            destination.insert(key.to_owned(), used.into());
        }
    }
}

/// The names that the templates in a value read.
fn names_in(value: &Json) -> Vec<String> {
    match value {
        Json::String(text) if has_braces(text) => {
            let names = Template::parse(text).map(|template| template.names()).unwrap_or_default();
            names.into_iter().map(|name| name.path).collect()
        }
        Json::Array(list) => list.iter().flat_map(names_in).collect(),
        Json::Object(table) => table.values().flat_map(names_in).collect(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Vec::new(),
    }
}

/// A value of the file as JSON. Dates, and numbers too large for JSON, are text.
fn json(value: &DeValue<'_>) -> Json {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| integer.to_string().into(), Json::from),
        DeValue::Float(float) => {
            let number = float.as_str().parse().ok().and_then(serde_json::Number::from_f64);
            number.map_or_else(|| float.as_str().into(), Json::from)
        }
        DeValue::Boolean(boolean) => (*boolean).into(),
        DeValue::Datetime(date) => date.to_string().into(),
        DeValue::Array(list) => list.iter().map(|element| json(element.get_ref())).collect(),
        DeValue::Table(table) => json_table(table).into(),
    }
}

fn json_table(table: &DeTable<'_>) -> Map<String, Json> {
    table.iter().map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref()))).collect()
}

// === the comparison ===

/// Where two values stand, in either file.
#[derive(Clone, Default)]
struct Way {
    old: String,
    new: String,
    /// Whether what stands here is a secret unless it is a reference to one.
    is_auth: bool,
    /// Whether a constant here is a secret.
    is_secret: bool,
}

#[derive(Default)]
struct Comparison {
    edits: Vec<Edit>,
}

// === impl Way ===

impl Way {
    fn key(&self, key: &str) -> Self {
        let mut way = self.clone();
        push_key(&mut way.old, key);
        push_key(&mut way.new, key);
        way.is_auth |= key == "auth";
        way.is_secret |= is_secret(key);
        way
    }

    fn element(&self, old: usize, new: usize) -> Self {
        Self { old: format!("{}[{old}]", self.old), new: format!("{}[{new}]", self.new), ..self.clone() }
    }

    fn written(&self, value: &Json) -> String {
        let mut out = String::new();
        self.write(value, &mut out);
        out
    }

    /// A value as TOML on one line, without secrets.
    fn write(&self, value: &Json, out: &mut String) {
        match value {
            // A JSON text without line breaks is a TOML text.
            Json::String(text) => out.push_str(&Json::from(self.masked(text)).to_string().replace('\u{7f}', "\\u007f")),
            Json::Array(list) => {
                out.push('[');
                for (index, element) in list.iter().enumerate() {
                    out.push_str(if index > 0 { ", " } else { "" });
                    self.write(element, out);
                }
                out.push(']');
            }
            Json::Object(table) if table.is_empty() => out.push_str("{}"),
            Json::Object(table) => {
                for (index, (key, value)) in table.iter().enumerate() {
                    out.push_str(if index > 0 { ", " } else { "{ " });
                    let mut name = String::new();
                    push_key(&mut name, key);
                    out.push_str(&name);
                    out.push_str(" = ");
                    self.key(key).write(value, out);
                }
                out.push_str(" }");
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => out.push_str(&value.to_string()),
        }
    }

    fn masked(&self, text: &str) -> String {
        let is_told = match (self.is_auth, self.is_secret) {
            (true, _) => text.is_empty() || is_reference(text),
            (false, true) => text.is_empty() || has_braces(text),
            (false, false) => return masked_url(text),
        };
        if is_told { text.to_owned() } else { MASK.to_owned() }
    }
}

/// Whether a key is called as secrets are, or as lists of them: `write_keys`.
fn is_secret(key: &str) -> bool {
    is_secret_key(key) || key.to_ascii_lowercase().ends_with("keys")
}

/// Whether a text is nothing but a reference: `{{ env.TOKEN }}`, `{{ file('/run/secrets/token') }}`.
fn is_reference(text: &str) -> bool {
    let inside = text.trim().strip_prefix("{{").and_then(|text| text.strip_suffix("}}")).map(str::trim);
    inside.is_some_and(|inside| {
        let is_file = inside.strip_prefix("file(").is_some_and(|rest| rest.find(')') == Some(rest.len() - 1));
        let is_variable = inside.starts_with("env.") && !inside.contains(['"', '\'', '{', '}']);
        is_file || is_variable
    })
}

/// A URL without the password before its host and without secrets in its query, as far as they are constants.
fn masked_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let host_end = place.find('/').unwrap_or(place.len());
    let at = place[..host_end].rfind('@').filter(|at| !has_braces(&place[..*at]));
    let place = at.map_or_else(|| place.to_owned(), |at| format!("{MASK}{}", &place[at..]));
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) if is_secret(name) && !has_braces(value) => format!("{name}={MASK}"),
        Some(_) | None => pair.to_owned(),
    };
    let query = query.map(|query| format!("?{}", query.split('&').map(pair).collect::<Vec<_>>().join("&")));
    format!("{scheme}://{place}{}", query.unwrap_or_default())
}

// === impl Comparison ===

impl Comparison {
    fn value(&mut self, way: &Way, old: &Json, new: &Json) {
        match (old, new) {
            (Json::Object(old), Json::Object(new)) => self.table(way, old, new),
            (Json::Array(old), Json::Array(new)) if is_of_tables(old) && is_of_tables(new) => self.list(way, old, new),
            (old, new) if old == new => {}
            _ => self.add(Change::Changed, Some((way, old)), Some((way, new))),
        }
    }

    fn table(&mut self, way: &Way, old: &Map<String, Json>, new: &Map<String, Json>) {
        for (key, now) in new {
            match old.get(key) {
                Some(before) => self.value(&way.key(key), before, now),
                None => self.add_each(Change::Added, &way.key(key), now),
            }
        }
        for (key, before) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
            self.add_each(Change::Removed, &way.key(key), before);
        }
    }

    /// Lists of tables are told by their entries, everything else by itself.
    fn add_each(&mut self, change: Change, way: &Way, value: &Json) {
        let entries = value.as_array().filter(|list| !list.is_empty() && is_of_tables(list));
        let side = |edit: &mut Self, way: &Way, value: &Json| match change {
            Change::Removed => edit.add(change, Some((way, value)), None),
            Change::Added | Change::Changed | Change::Moved => edit.add(change, None, Some((way, value))),
        };
        match entries {
            Some(list) => {
                list.iter().enumerate().for_each(|(index, entry)| side(self, &way.element(index, index), entry));
            }
            None => side(self, way, value),
        }
    }

    fn list(&mut self, way: &Way, old: &[Json], new: &[Json]) {
        let is_ordered = ORDERED.iter().any(|key| way.new == *key);
        let matched = if is_ordered { rules::matched(old, new) } else { rules::by_place(old, new) };
        let moved = rules::moved(&matched);
        for (index, (now, before)) in new.iter().zip(&matched).enumerate() {
            let Some(before) = *before else {
                self.add(Change::Added, None, Some((&way.element(index, index), now)));
                continue;
            };
            let here = way.element(before, index);
            if moved.contains(&index) {
                self.add(Change::Moved, Some((&here, &old[before])), Some((&here, now)));
            }
            self.value(&here, &old[before], now);
        }
        for (index, before) in old.iter().enumerate().filter(|(index, _)| !matched.contains(&Some(*index))) {
            self.add(Change::Removed, Some((&way.element(index, index), before)), None);
        }
    }

    fn add(&mut self, change: Change, old: Option<(&Way, &Json)>, new: Option<(&Way, &Json)>) {
        self.edits.push(Edit {
            change,
            old: old.map(|(way, value)| Side { path: way.old.clone(), written: way.written(value) }),
            new: new.map(|(way, value)| Side { path: way.new.clone(), written: way.written(value) }),
        });
    }
}

fn is_of_tables(list: &[Json]) -> bool {
    list.iter().all(Json::is_object)
}

#[cfg(test)]
mod tests {
    use super::changes;

    const OLD: &str = r#"
[let]
who   = "{{ name_of }}"
name_of = "{{ userId }}"
[tables.plans]
pro = "gold"
[defaults]
timeout = "10s"
[destinations.base]
url  = "https://a.example.com"
auth = { bearer = "pasted" }
body = { id = "{{ who }}" }
[destinations.crm]
extends = "base"
[[destinations.crm.rules]]
on   = "track"
body = { plan = "{{ tables.plans[traits.plan] }}" }
[[destinations.crm.rules]]
on   = "page"
path = "/pages"
[[destinations.crm.rules]]
on   = "identify"
path = "/people"
"#;

    fn told(new: &str) -> Vec<String> {
        let changes = changes(OLD, new);
        let all = changes.sections.iter().chain(&changes.destinations);
        all.flat_map(|section| {
            let head = section.edits.is_empty().then(|| format!("{} {:?}", section.name, section.change));
            head.into_iter().chain(section.edits.iter().map(|edit| format!("{} {edit}", section.name)))
        })
        .collect()
    }

    #[test]
    fn layout_comments_and_the_order_of_keys_change_nothing() {
        let new = OLD.replace(" = ", "=").replace("who=\"{{ name_of }}\"\n", "") + "# the end\n";
        let new = new.replace("[let]", "[let] # names\nwho=\"{{ name_of }}\"");
        assert_eq!(told(&new), Vec::<String>::new());
    }

    #[test]
    fn what_is_shared_is_told_at_every_destination_that_it_reaches() {
        assert_eq!(
            told(&OLD.replace("userId", "anonymousId")),
            [
                r#"let ~ name_of: "{{ userId }}" → "{{ anonymousId }}""#,
                r#"base ~ let.name_of: "{{ userId }}" → "{{ anonymousId }}""#,
                r#"crm ~ let.name_of: "{{ userId }}" → "{{ anonymousId }}""#,
            ]
        );
        assert_eq!(
            told(&OLD.replace("gold", "silver")),
            [r#"tables ~ plans.pro: "gold" → "silver""#, r#"crm ~ tables.plans.pro: "gold" → "silver""#]
        );
        assert_eq!(
            told(&OLD.replace("10s", "20s")),
            [r#"base ~ timeout: "10s" → "20s""#, r#"crm ~ timeout: "10s" → "20s""#]
        );
        assert_eq!(
            told(&OLD.replace("https://a", "https://b")),
            [
                r#"base ~ url: "https://a.example.com" → "https://b.example.com""#,
                r#"crm ~ url: "https://a.example.com" → "https://b.example.com""#,
            ]
        );
    }

    #[test]
    fn secrets_are_masked_and_references_are_not() {
        let new = OLD.replace("\"pasted\"", "\"{{ env.TOKEN }}\"");
        let edit = r#"~ auth.bearer: "***" → "{{ env.TOKEN }}""#;
        assert_eq!(told(&new), [format!("base {edit}"), format!("crm {edit}")]);
        let new = OLD.replace("\"pasted\"", "\"other\"");
        assert_eq!(told(&new)[0], "base ~ auth.bearer: another secret");
        let new = OLD.replace("\"pasted\"", "\"{{ 'pasted' ~ env.TOKEN }}\"");
        assert!(!told(&new).concat().contains("pasted"));
        let with = "https://me:pw@a.example.com/x?token=t&b=1";
        let new = OLD.replace("https://a.example.com", with);
        assert!(told(&new)[0].ends_with(r#"→ "https://***@a.example.com/x?token=***&b=1""#), "{:?}", told(&new));
    }

    #[test]
    fn a_rule_is_known_by_what_is_in_it() {
        let page = "[[destinations.crm.rules]]\non   = \"page\"\npath = \"/pages\"\n";
        let without = OLD.replace(page, "");
        assert_eq!(told(&without), [r#"crm - rules[1] = { on = "page", path = "/pages" }"#]);
        assert_eq!(told(&(without.clone() + page)), ["crm > rules[1]: was rules[2]"]);
        let first =
            OLD.replace("extends = \"base\"\n", "extends = \"base\"\n[[destinations.crm.rules]]\non = \"alias\"\n");
        assert_eq!(told(&first), [r#"crm + rules[0] = { on = "alias" }"#]);
        assert_eq!(
            told(&first.replace("/people", "/persons")),
            [r#"crm + rules[0] = { on = "alias" }"#, r#"crm ~ rules[3].path: "/people" → "/persons""#]
        );
    }

    #[test]
    fn destinations_come_and_go() {
        let new = OLD.replace("destinations.crm", "destinations.crm2");
        assert_eq!(told(&new), ["crm2 Added", "crm Removed"]);
    }

    #[test]
    fn long_values_are_told_from_where_they_differ() {
        let long = |end: &str| format!("{OLD}[server]\nlisten = \"{}{end}\"\n", "x".repeat(200));
        let edit = &changes(&long("a"), &long("b")).sections[0].edits[0];
        assert_eq!(edit.to_string(), format!("~ listen: …{x}a\" → …{x}b\"", x = "x".repeat(20)));
    }
}
