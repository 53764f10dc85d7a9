//! The catalogue against the readers: the same keys, the same bounds, the same defaults.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use toml::de::DeTable;

use super::{Absent, Asked, Key, Section, Shape, catalogue};
use crate::config::findings::Findings;
use crate::config::layers::Layers;
use crate::config::texts::Texts;
use crate::config::{Environment, Unset, compile, read};

/// Every file we have, right or wrong, and every block of the guide.
fn corpus() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = vec![fs::read_to_string(root.join("libroseg.toml")).unwrap()];
    for folder in ["tests/fixtures/config", "examples/configs"] {
        let paths = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
        texts.extend(files.map(|path| fs::read_to_string(path).unwrap()));
    }
    let guide = fs::read_to_string(root.join("docs/config.md")).unwrap();
    texts.extend(guide.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()));
    assert!(texts.len() > 80, "the files are there");
    texts
}

fn environment() -> Environment<'static> {
    Environment {
        variables: BTreeMap::new(),
        read_file: &|_| Ok("content".to_owned()),
        unset: Unset::Assumed,
        ..Environment::default()
    }
}

/// What the readers ask of these texts.
fn asked<'t>(texts: impl IntoIterator<Item = &'t str>) -> Asked {
    let mut all = Asked::new();
    for text in texts {
        let document = DeTable::parse_recoverable(text).0.into_inner();
        let texts = Texts::new(text, &Layers::reached(&document));
        let (findings, layers) = (Findings::of(&texts), Layers::new(&document, &texts));
        let _ = read(text, &document, &layers, &environment(), &findings);
        for (key, bounds) in findings.asked() {
            all.entry(key).or_default().extend(bounds);
        }
    }
    all
}

/// The bounds that a value is held to, as the readers note them.
fn bounds(shape: &Shape, found: &mut BTreeSet<String>) {
    match shape {
        Shape::Within(bounds) => {
            found.insert(bounds.to_string());
        }
        Shape::List(element) | Shape::Pair(element) => bounds(element, found),
        Shape::Either(shapes) => shapes.iter().for_each(|shape| bounds(shape, found)),
        Shape::Boolean
        | Shape::False
        | Shape::Number { .. }
        | Shape::Text(_)
        | Shape::Scalar
        | Shape::Body
        | Shape::Constant
        | Shape::Object
        | Shape::Table(_) => {}
    }
}

/// What the catalogue says should be asked for. Tables of the user's own names are read entry by entry.
fn listed(sections: &[Section]) -> Asked {
    let mut all = Asked::new();
    for section in sections {
        let keys = section.keys.iter().filter(|_| section.own.is_none()).map(|key| (key.name, &key.shape));
        for (name, shape) in keys.chain(section.own.iter().map(|own| ("*", own))) {
            bounds(shape, all.entry((section.what, name)).or_default());
        }
    }
    all
}

#[test]
fn the_catalogue_has_the_keys_and_bounds_that_the_readers_ask_for() {
    let (asked, listed) = (asked(corpus().iter().map(String::as_str)), listed(&catalogue()));
    let beyond = |these: &Asked, those: &Asked| -> Vec<String> {
        let differs = |(key, bounds): &(&(&str, &str), &BTreeSet<String>)| those.get(*key) != Some(*bounds);
        these.iter().filter(differs).map(|((what, key), bounds)| format!("{what}: `{key}` {bounds:?}")).collect()
    };
    let (unlisted, unasked) = (beyond(&asked, &listed), beyond(&listed, &asked));
    assert!(
        unlisted.is_empty() && unasked.is_empty(),
        "asked for, but not listed so in keys/sections.rs:\n{}\nlisted, but not asked for so in any file:\n{}",
        unlisted.join("\n"),
        unasked.join("\n")
    );
}

#[test]
fn every_key_is_asked_for_where_its_type_is() {
    let of_types = [
        ("http", "url = 'https://a.example.com'\nbatch = {}\n"),
        ("file", "path = 'f'\nbatch = {}\n"),
        ("stdout", "batch = {}\n"),
    ];
    for (word, keys) in of_types {
        let alone = format!("[destinations.d]\ntype = '{word}'\n{keys}");
        let with_rules = format!("{alone}[[destinations.d.rules]]\n");
        assert_types(word, &["a destination", "a rule", "`batch`"], &asked([alone.as_str(), with_rules.as_str()]));
    }
    for word in ["disk", "memory"] {
        assert_types(word, &["[queue]"], &asked([format!("[queue]\ntype = '{word}'").as_str()]));
    }
}

fn assert_types(word: &str, sections: &[&str], asked: &Asked) {
    for section in catalogue().iter().filter(|section| sections.contains(&section.what)) {
        let is_for = |key: &&Key| key.types.is_empty() || key.types.contains(&word);
        let listed: BTreeSet<&str> = section.keys.iter().filter(is_for).map(|key| key.name).collect();
        let found: BTreeSet<&str> =
            asked.keys().filter(|(what, _)| *what == section.what).map(|(_, key)| *key).collect();
        assert_eq!(found, listed, "{} with `type = \"{word}\"`", section.what);
    }
}

#[test]
fn what_a_key_says_of_itself_is_whole() {
    let sections = catalogue();
    for section in &sections {
        assert!(section.meaning.ends_with('.'), "{}", section.what);
        for key in &section.keys {
            assert!(!key.meaning.is_empty() && !key.meaning.ends_with('.'), "{}.{}", section.what, key.name);
            for what in key.shape.sections() {
                assert!(sections.iter().any(|section| section.what == what), "{}.{}: {what}", section.what, key.name);
            }
        }
    }
    let names: BTreeSet<&str> = sections.iter().map(|section| section.what).collect();
    assert_eq!(names.len(), sections.len());
}

#[test]
fn a_default_is_a_value_that_the_key_takes() {
    let mut tried = 0;
    for section in catalogue() {
        for key in &section.keys {
            let Absent::Value(value) = &key.absent else { continue };
            let text = with(section.what, key, &format!("{} = {value}\n", key.name));
            let found = compile(&text, &environment());
            assert!(found.is_ok(), "{text}\n{:?}", found.err());
            tried += 1;
        }
    }
    assert!(tried > 30, "{tried}");
}

/// A file with this entry in a section.
fn with(what: &str, key: &Key, entry: &str) -> String {
    const HTTP: &str = "[destinations.d]\nurl = 'https://a.example.com'\n";
    const BIGQUERY: &str = "[destinations.d]\ntype = 'bigquery'\ncredentials = false\nproject = 'p'\ndataset = 'd'\n\
                            table = 't'\nrow = { a = '2026-01-01' }\n";
    const FILE: &str = "[destinations.d]\ntype = 'file'\npath = 'f'\n";
    match (what, key.types.as_slice()) {
        ("[queue]", [word]) => format!("[queue]\ntype = '{word}'\n{entry}"),
        ("[server]" | "[queue]", _) => format!("{what}\n{entry}"),
        ("`limits`", _) => format!("[server.limits]\n{entry}"),
        ("`dead_letters`", _) => format!("[queue.dead_letters]\n{entry}"),
        ("a source", _) => format!("[sources.s]\nwrite_keys = ['k']\n{entry}"),
        ("a tracking plan", _) => format!("[plan.p]\nschema = {{}}\n{entry}"),
        ("a destination", ["bigquery"]) => format!("{BIGQUERY}{entry}"),
        ("`partition_by`", _) => format!("{BIGQUERY}schema = {{ a = 'DATE' }}\n[destinations.d.partition_by]\n{entry}"),
        ("a destination", ["file"]) => format!("{FILE}{entry}"),
        ("a destination", _) => format!("{HTTP}{entry}"),
        ("a rule", _) => format!("{HTTP}[[destinations.d.rules]]\n{entry}"),
        ("a response rule", _) => format!("{HTTP}[[destinations.d.response]]\nthen = 'ok'\neach = '$'\n{entry}"),
        ("a test", _) => {
            let test = "[[tests]]\nname = 'n'\ndestination = 'd'\nevent = '{}'\nexpect = []\n";
            format!("{HTTP}{test}{entry}")
        }
        ("`hmac`", _) => format!("{HTTP}[destinations.d.auth.hmac]\nkey = 'k'\n{entry}"),
        ("`oauth2`", _) => {
            let needed = "token_url = 'https://a.example.com'\nclient_id = 'c'\nclient_secret = 's'\n";
            format!("{HTTP}[destinations.d.auth.oauth2]\n{needed}{entry}")
        }
        _ => format!("{HTTP}[destinations.d.{}]\n{entry}", what.trim_matches('`')),
    }
}
