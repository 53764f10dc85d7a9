//! The schema for editors: it takes every file that the compiler takes, and refuses what is plainly wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use libroseg::config::{self, Code, Diagnostic, Environment, Target, Unset};
use serde_json::{Value as Json, json};
use toml::{Table, Value};

use crate::support::Binary;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of ours that compiles, and every block of the guide, by name.
fn files() -> Vec<(String, String)> {
    let mut paths = vec![root().join("libroseg.toml")];
    for folder in ["tests/fixtures/config", "examples/configs"] {
        paths.extend(fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    paths.retain(|path| is_right(path));
    paths.sort();
    let named = |path: PathBuf| (path.display().to_string(), fs::read_to_string(path).unwrap());
    let mut files: Vec<_> = paths.into_iter().map(named).collect();
    files.extend(blocks());
    assert!(files.len() > 40, "the files are there");
    files
}

/// The blocks of the guide that compile.
fn blocks() -> impl Iterator<Item = (String, String)> {
    let guide = fs::read_to_string(root().join("docs/config.md")).unwrap();
    let texts: Vec<String> =
        guide.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect();
    texts.into_iter().enumerate().map(|(number, text)| (format!("block {number} of the guide"), text))
}

fn is_right(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let is_fixture = path.parent().unwrap().ends_with("tests/fixtures/config");
    let is_good = !is_fixture || name.starts_with("good-") || name.starts_with("odd-");
    is_good && path.extension().is_some_and(|extension| extension == "toml")
}

fn validator() -> Validator {
    jsonschema::draft7::new(&config::schema()).unwrap()
}

/// A value of the file as editors see it: dates are text.
fn json(value: &Value) -> Json {
    match value {
        Value::Datetime(date) => json!(date.to_string()),
        Value::Array(list) => list.iter().map(json).collect(),
        Value::Table(table) => Json::Object(table.iter().map(|(key, value)| (key.clone(), json(value))).collect()),
        Value::String(text) => json!(text),
        Value::Integer(integer) => json!(integer),
        Value::Float(float) => json!(float),
        Value::Boolean(boolean) => json!(boolean),
    }
}

fn compile(text: &str) -> Vec<Diagnostic> {
    let read_file = |_: &Path| Ok("content".to_owned());
    let environment = Environment {
        variables: BTreeMap::new(),
        read_file: &read_file,
        unset: Unset::Assumed,
        target: Target::default(),
    };
    config::compile(text, &environment).map_or_else(|errors| errors, |compiled| compiled.warnings)
}

/// The places of everything in a table, as findings tell them, with the table or list that holds each.
fn places(value: &Value) -> Vec<Vec<Step>> {
    let mut found = vec![Vec::new()];
    let mut under = |step: Step, value: &Value| {
        found.extend(places(value).into_iter().map(|place| [vec![step.clone()], place].concat()));
    };
    match value {
        Value::Table(table) => table.iter().for_each(|(key, value)| under(Step::Key(key.clone()), value)),
        Value::Array(list) => list.iter().enumerate().for_each(|(index, value)| under(Step::Index(index), value)),
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
    found
}

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

fn at<'v>(value: &'v mut Value, place: &[Step]) -> &'v mut Value {
    place.iter().fold(value, |value, step| match step {
        Step::Key(key) => &mut value[key.as_str()],
        Step::Index(index) => &mut value[*index],
    })
}

/// What the schema does not look into: the JSON of a test.
fn is_in_json(place: &[Step]) -> bool {
    let is_json = |step: &Step| matches!(step, Step::Key(key) if ["event", "events", "expect", "respond"].contains(&key.as_str()));
    matches!(place, [Step::Key(tests), Step::Index(_), key, _, ..] if tests == "tests" && is_json(key))
}

/// What the schema does not know: the body of a form is a table, that of a text a string.
fn depends_on_encoding(whole: &Value, place: &[Step]) -> bool {
    let Some((Step::Key(key), holder)) = place.split_last() else { return false };
    key == "body" && at(&mut whole.clone(), holder).get("encoding").is_some()
}

/// As findings tell it.
fn told(place: &[Step]) -> String {
    let mut path = String::new();
    for step in place {
        match step {
            Step::Index(index) => write!(path, "[{index}]").unwrap(),
            Step::Key(key) => {
                let dot = if path.is_empty() { "" } else { "." };
                let is_bare = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
                let written = if is_bare { key.clone() } else { format!("{key:?}") };
                write!(path, "{dot}{written}").unwrap();
            }
        }
    }
    path
}

#[test]
fn the_schema_takes_every_file_that_compiles() {
    let validator = validator();
    let mut wrong = Vec::new();
    for (name, text) in files() {
        let document = json(&Value::Table(text.parse::<Table>().unwrap()));
        wrong.extend(
            validator.iter_errors(&document).map(|error| format!("{name}: {}: {error}", error.instance_path())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_unknown_key_in_any_table_is_refused() {
    let validator = validator();
    let mut tried = 0;
    for (name, text) in files() {
        let whole = Value::Table(text.parse().unwrap());
        for place in places(&whole).into_iter().filter(|place| !is_in_json(place)) {
            let mut changed = whole.clone();
            let Value::Table(table) = at(&mut changed, &place) else { continue };
            table.insert("unheard_of".to_owned(), Value::Integer(1));
            let found = compile(&toml::to_string(&changed).unwrap());
            let is_unknown = found.iter().any(|found| found.code == Code::UnknownKey);
            let is_right = !found.iter().any(Diagnostic::is_error);
            if is_unknown || is_right {
                assert_eq!(validator.is_valid(&json(&changed)), is_right, "{name}: {}", told(&place));
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn a_value_of_a_wrong_type_is_refused_and_one_of_a_right_type_is_not() {
    let validator = validator();
    let samples: [Value; 6] =
        [true.into(), 7.into(), 1.5.into(), "unheard of".into(), Value::Array(vec![]), Value::Table(Table::new())];
    let everything = root().join("tests/fixtures/config/good-everything.toml");
    let everything = ("everything".to_owned(), fs::read_to_string(everything).unwrap());
    let mut tried = 0;
    let mut wrong = Vec::new();
    for (name, text) in blocks().chain([everything]) {
        let whole = Value::Table(text.parse().unwrap());
        let is_told =
            |place: &Vec<Step>| !place.is_empty() && !is_in_json(place) && !depends_on_encoding(&whole, place);
        for place in places(&whole).into_iter().filter(is_told) {
            for sample in &samples {
                let mut changed = whole.clone();
                *at(&mut changed, &place) = sample.clone();
                let found = compile(&toml::to_string(&changed).unwrap());
                let path = told(&place);
                let is_wrong = found.iter().any(|found| found.code == Code::WrongType && found.path == path);
                let is_right = !found.iter().any(Diagnostic::is_error);
                if (is_wrong || is_right) && validator.is_valid(&json(&changed)) != is_right {
                    wrong.push(format!("{name}: {path} = {sample}: is right: {is_right}"));
                }
                tried += usize::from(is_wrong);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried > 500, "{tried}");
}

#[test]
fn the_schema_is_printed_and_the_copy_in_the_docs_is_current() {
    let output = Binary::command().arg("schema").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let printed = String::from_utf8(output.stdout).unwrap();
    crate::support::is_current("docs/libroseg.schema.json", &printed);
}
