//! The files we ship are right: they pass the check without a warning, and do what the tests in them say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::support::Binary;

/// A service's limits change, so a file says where they stand and when somebody looked. These are no service's.
const OF_NO_SERVICE: [&str; 2] = ["archive", "many"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn examples() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("examples/configs")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}

fn shipped() -> Vec<PathBuf> {
    let mut files = examples();
    files.push(root().join("libroseg.toml"));
    files
}

fn name(file: &Path) -> &str {
    file.file_stem().unwrap().to_str().unwrap()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What `libroseg test` says of a file, a value a test.
fn tests_of(file: &Path) -> Vec<Value> {
    let output = Binary::command().env_clear().args(["test", "--format", "json"]).arg(file).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", told(&output)));
    report["files"][0]["tests"].as_array().unwrap().clone()
}

#[test]
fn every_shipped_file_passes_the_check_without_a_warning() {
    // A preset is a destination for the files of others, which have the sources.
    let words = ["check", "--assume-env", "--deny", "warnings", "--allow", "no-sources"];
    let output = Binary::command().env_clear().args(words).args(shipped()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
}

#[test]
fn the_shipped_file_needs_no_variable() {
    let file = root().join("libroseg.toml");
    let output = Binary::command().env_clear().arg("check").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
}

#[test]
fn every_shipped_file_does_what_its_tests_say() {
    let output = Binary::command().env_clear().arg("test").args(shipped()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
}

#[test]
fn every_example_has_tests_of_good_days_and_of_bad_ones() {
    for file in examples() {
        let outcomes: Vec<String> = tests_of(&file)
            .iter()
            .flat_map(|test| test["outcome"].as_array().unwrap().clone())
            .map(|word| word.as_str().unwrap().to_owned())
            .collect();
        assert!(outcomes.iter().any(|word| word == "ok"), "{}: nothing arrives", file.display());
        // A disk says no to nobody.
        let needs = if name(&file) == "archive" { 0 } else { 2 };
        let bad =
            ["retry", "split", "dead", "drop", "pause"].into_iter().filter(|bad| outcomes.iter().any(|is| is == bad));
        assert!(bad.count() >= needs, "{}: only {outcomes:?}", file.display());
    }
}

#[test]
fn every_example_begins_with_a_line_of_its_own_and_tells_the_limits_it_keeps_to() {
    for file in examples() {
        let text = fs::read_to_string(&file).unwrap();
        let summary = text.lines().next().unwrap();
        assert!(summary.starts_with("# ") && !summary.ends_with('.') && summary.len() <= 100, "{summary}");
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let head = head.join(" ").to_lowercase();
        let is_dated = head.contains("https://") && head.contains("read 20");
        assert!(is_dated || OF_NO_SERVICE.contains(&name(&file)), "{}: no limits", file.display());
    }
}

#[test]
fn the_shipped_file_shows_the_row_that_bigquery_gets_from_the_example() {
    let table = |path: &str, key: &str| {
        let file = fs::read_to_string(root().join(path)).unwrap().parse::<toml::Table>().unwrap();
        file["destinations"]["bigquery"][key].as_table().unwrap().clone()
    };
    for key in ["row", "schema"] {
        assert_eq!(table("libroseg.toml", key).len(), 9);
        assert_eq!(table("libroseg.toml", key), table("examples/configs/bigquery.toml", key));
    }
}
