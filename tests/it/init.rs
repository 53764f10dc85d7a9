//! `libroseg init` writes a file to begin with, which is right as it is.

use std::collections::BTreeMap;
use std::fs;
use std::process::Output;

use libroseg::config::presets::PRESETS;
use libroseg::config::{self, Environment, choices, starter, variables};
use tempfile::TempDir;

use crate::support::Binary;

fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    Binary::command().args(arguments).env_clear().current_dir(folder.path()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_starter_of_every_preset_passes_the_check_whether_its_variables_are_set_or_not() {
    for choice in choices() {
        let file = starter(std::slice::from_ref(&choice));
        let all = variables(&choice);
        let value = |name: &String| match name.as_str() {
            name if name.ends_with("_URL") => "https://example.com",
            name if name.ends_with("_CREDENTIALS") => include_str!("../fixtures/auth/service-account.json"),
            name if name.ends_with("_REGION") => "eu-central-1",
            name if name.ends_with("_SECRET") => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "BIGQUERY_DATASET" | "BIGQUERY_TABLE" => "events",
            _ => "example.com",
        };
        let set: BTreeMap<_, _> = all.needed.iter().map(|name| (name.clone(), value(name).to_owned())).collect();
        for variables in [BTreeMap::new(), set] {
            let is_set = !variables.is_empty() || all.needed.is_empty();
            let environment =
                Environment { variables, read_file: &|_| Ok("secret".to_owned()), ..Environment::default() };
            let draw =
                |found: &[config::Diagnostic]| config::draw(&choice.name, &file, found, config::Style::Plain, 140);
            let compiled = config::compile(&file, &environment).unwrap_or_else(|found| panic!("{}", draw(&found)));
            assert!(compiled.warnings.is_empty(), "{}", draw(&compiled.warnings));
            let is_on = compiled.plan.destinations.len() == 1;
            // Some of a whole file are off by themselves, as long as a variable is not set.
            assert!(is_on == is_set || choice.name.contains('.'), "{}", choice.name);
        }
    }
}

#[test]
fn a_file_is_written_that_the_check_finds_right_and_what_to_do_next_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&folder, &["init", "--destination", "mixpanel", "-d", "slack", "-d", "slack"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), ""));
    let told = text(&output.stderr);
    assert!(told.contains("libroseg.toml is written") && told.contains("set MIXPANEL_TOKEN for mixpanel"), "{told}");
    let file = fs::read_to_string(folder.path().join("libroseg.toml")).unwrap();
    assert_eq!(file.matches("\nextends = ").count(), 2);
    let check = run(&folder, &["check", "--deny", "warnings"]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stdout));
    assert!(text(&check.stdout).contains("mixpanel: MIXPANEL_TOKEN is not set"), "{}", text(&check.stdout));
}

#[test]
fn without_a_destination_every_event_goes_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(&folder, &["init", "-"]).status.code(), Some(0));
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "`-` is standard output");
    assert_eq!(run(&folder, &["init"]).status.code(), Some(0));
    let check = run(&folder, &["check", "--deny", "warnings"]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stdout));
    let test = run(&folder, &["test"]);
    assert_eq!(test.status.code(), Some(0), "{}", text(&test.stdout));
    assert!(text(&test.stdout).contains("1 passed"), "{}", text(&test.stdout));
    insta::assert_snapshot!(text(&run(&folder, &["init", "-"]).stdout));
}

#[test]
fn a_file_that_is_there_is_written_over_only_when_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    fs::write(&path, "# mine\n").unwrap();
    let output = run(&folder, &["init"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("libroseg.toml is there already"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "# mine\n");
    assert_eq!(run(&folder, &["init", "--force"]).status.code(), Some(0));
    assert!(fs::read_to_string(&path).unwrap().contains("[destinations.archive]"));
}

#[test]
fn an_unknown_preset_is_told_with_the_nearest_and_all_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&folder, &["init", "-d", "mixpannel"]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert!(told.contains("there is no preset `mixpannel`") && told.contains("did you mean `mixpanel`?"), "{told}");
    let list = text(&run(&folder, &["init", "--list"]).stdout);
    assert!(told.contains(list.trim_end()), "{told}");
    assert_eq!(list.lines().count(), PRESETS.len());
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is written");
}

#[test]
fn of_a_preset_with_several_destinations_one_is_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&folder, &["init", "-d", "many"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("say which one: many."), "{}", text(&output.stderr));
    let choices = choices();
    let one = choices.iter().find(|choice| choice.name.starts_with("many.")).unwrap();
    let file = text(&run(&folder, &["init", "-d", &one.name, "-"]).stdout);
    assert!(file.contains(&format!("[destinations.{}]\nextends = \"{}\"\n", one.destination, one.name)), "{file}");
}

#[test]
fn the_tests_of_a_starter_pass() {
    let folder = tempfile::tempdir().unwrap();
    for choice in choices() {
        let path = folder.path().join("libroseg.toml");
        fs::write(&path, starter(std::slice::from_ref(&choice))).unwrap();
        let output = run(&folder, &["test"]);
        assert_eq!(output.status.code(), Some(0), "{}: {}{}", choice.name, text(&output.stdout), text(&output.stderr));
    }
}

#[test]
fn a_preset_needs_the_variables_that_it_does_not_work_without() {
    let choices = choices();
    let of = |name: &str| variables(choices.iter().find(|choice| choice.name == name).unwrap());
    assert_eq!(of("webhook").needed, ["WEBHOOK_SECRET", "WEBHOOK_URL"]);
    assert_eq!(of("mixpanel").needed, ["MIXPANEL_TOKEN"]);
    assert!(of("mixpanel").optional.contains(&"MIXPANEL_HOST".to_owned()));
}
