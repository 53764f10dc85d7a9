//! The command line: exit codes, streams, help.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::Binary;

const GOOD: &str =
    "[sources.a]\nwrite_keys = [\"k\"]\n[queue]\ntype = \"memory\"\n[destinations.out]\ntype = \"stdout\"\n";

fn file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Binary::command().args(arguments).env("COLUMNS", "100").current_dir(folder).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_right_file_is_checked_with_exit_code_0() {
    let (folder, _) = file(GOOD);
    for arguments in
        [&["--check"][..], &["check"], &["--check", "libroseg.toml"], &["check", "--config", "libroseg.toml"]]
    {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        let summary = "1 source, 1 destination, queue in memory: a 200 does not outlive the process";
        assert_eq!(stdout(&output), format!("libroseg.toml: ok, {summary}\n"));
    }
}

#[test]
fn the_check_says_where_the_queue_is_and_what_a_200_means() {
    let on_disk = GOOD.replace("type = \"memory\"\n", "dir = \"{{ env.QUEUE_DIR | default('here') }}\"\n");
    for (text, folder, variables) in [
        (GOOD.replace("[queue]\ntype = \"memory\"\n", ""), "data/queue", &[][..]),
        (on_disk.clone(), "here", &[]),
        (on_disk, "/var/lib/libroseg", &[("QUEUE_DIR", "/var/lib/libroseg")]),
    ] {
        let (home, _) = file(&text);
        let mut command = Binary::command();
        command.arg("--check").env_remove("QUEUE_DIR").envs(variables.iter().copied()).current_dir(home.path());
        let output = command.output().unwrap();
        let summary = format!("1 source, 1 destination, queue on disk ({folder}): a 200 is durable");
        assert_eq!(stdout(&output), format!("libroseg.toml: ok, {summary}\n"));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "a check makes no folder");
    }
}

#[test]
fn a_check_says_what_a_200_means_with_ack_delivered_and_that_vercel_needs_no_type() {
    let (folder, _) = file(&GOOD.replace("type = \"memory\"", "type = \"memory\"\nack = \"delivered\""));
    let output = run(folder.path(), &["--check"]);
    assert!(stdout(&output).contains("queue in memory: a 200 comes after the delivery"), "{}", stdout(&output));
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/libroseg.toml");
    let output = run(folder.path(), &["check", "--target", "vercel", shipped]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert!(stdout(&output).contains("queue in memory: a 200 does not outlive the process"), "{}", stdout(&output));
}

#[test]
fn a_wrong_file_is_checked_with_exit_code_1_and_every_mistake_at_once() {
    let (folder, _) =
        file(&GOOD.replace("type = \"stdout\"", "typ = \"stdout\"\nurl = \"{{ env.NOPE }}/{{ userid }}\""));
    let output = run(folder.path(), &["--check"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(stdout(&output));
}

#[test]
fn an_unreadable_file_is_exit_code_2() {
    let (folder, _) = file(GOOD);
    for arguments in [
        &["--check", "absent.toml"][..],
        &["check", "libroseg.toml", "absent.toml"],
        &["serve", "--config", "absent.toml"],
    ] {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains("absent.toml"), "{}", stderr(&output));
    }
}

#[test]
fn a_wrong_file_is_not_served() {
    let (folder, _) = file("[destinations.a]\nurk = 1\n");
    let output = run(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("libroseg.toml:2:1"), "{}", stderr(&output));
    assert!(stdout(&output).is_empty());
}

#[test]
fn an_address_that_is_taken_is_exit_code_2() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (folder, _) = file(GOOD);
    let output = run(folder.path(), &["--listen", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    assert!(told.contains("cannot listen on") && told.matches("in use").count() == 1, "{told}");
}

#[test]
fn port_and_listen_win_over_the_file() {
    let (folder, path) = file(&format!("[server]\nlisten = \"127.0.0.1:1\"\n{GOOD}"));
    let binary = Binary::start_with(&path, &[("PORT", "0")]);
    assert!(binary.url.starts_with("http://127.0.0.1:"), "{}", binary.url);
    drop(folder);
}

#[test]
fn wrong_usage_is_exit_code_2_and_help_has_examples() {
    let (folder, _) = file(GOOD);
    assert_eq!(run(folder.path(), &["--chek"]).status.code(), Some(2));
    let help = run(folder.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    insta::assert_snapshot!(stdout(&help));
}

/// One mistake with a suggestion, one without, one warning.
const ODD: &str = "[sources.a]\nwrite_keys = [\"{{ env.NO_SUCH_KEY }}\"]\n[queue]\ntype = \"memory\"\n\
                   [destinations.out]\nurl = \"http://example.com\"\ntimeuot = \"10s\"\nbody = { a = \"{{ traits.é | lowr }}\" }\n";

#[test]
fn the_check_answers_programs_with_one_json_document() {
    let (folder, _) = file(ODD);
    let output = run(folder.path(), &["--check", "--format", "json", "libroseg.toml", "absent.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot read absent.toml"), "{}", stderr(&output));
    insta::assert_snapshot!(stdout(&output));

    let (folder, _) = file(GOOD);
    let output = run(folder.path(), &["check", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(stdout(&output));
}

#[test]
fn the_check_answers_code_scanning_with_sarif() {
    let (folder, _) = file(ODD);
    let output = run(folder.path(), &["check", "libroseg.toml", "./absent.toml", "--format", "sarif"]);
    assert_eq!(output.status.code(), Some(2));
    let mut document: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let mut run = document["runs"][0].take();
    let rules = run["tool"]["driver"]["rules"].take();
    let rules = rules.as_array().unwrap();
    for rule in rules {
        assert!(rule["id"].is_string() && rule["shortDescription"]["text"].is_string(), "{rule}");
        assert!(rule["help"]["text"].is_string(), "{rule}");
        assert!(
            ["error", "warning", "note"].contains(&rule["defaultConfiguration"]["level"].as_str().unwrap()),
            "{rule}"
        );
    }
    for result in run["results"].as_array_mut().unwrap() {
        // The list grows; what the index points to is what counts.
        let index = usize::try_from(result["ruleIndex"].take().as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
    }
    let told = serde_json::json!([document["version"], run["invocations"], run["columnKind"], run["results"]]);
    insta::assert_snapshot!(format!("{told:#}"));
}

#[test]
fn the_check_annotates_pull_requests_on_github() {
    let (folder, _) = file(ODD);
    let output = run(folder.path(), &["--check", "./libroseg.toml", "--format=github"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(stdout(&output));
}

#[test]
fn warnings_can_be_denied_or_allowed_and_errors_cannot() {
    let (folder, _) = file(&GOOD.replace("type = \"stdout\"", "url = \"http://example.com\"\nmethod = \"PSOT\""));
    for (arguments, code, last) in [
        (&["check"][..], 0, "libroseg.toml: ok, 1 source, 1 destination, 2 warnings, "),
        (&["check", "--deny", "warnings"], 1, "libroseg.toml: not ok, 1 source, 1 destination, 2 warnings, 2 denied, "),
        (&["check", "--deny", "no-tls"], 1, "libroseg.toml: not ok, 1 source, 1 destination, 2 warnings, 1 denied, "),
        (&["check", "--deny", "unused"], 0, "libroseg.toml: ok, 1 source, 1 destination, 2 warnings, "),
        (
            &["check", "--deny", "warnings", "--allow", "no-tls", "--allow", "unusual-method"],
            0,
            "libroseg.toml: ok, 1 source, 1 destination, queue ",
        ),
    ] {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let told = stdout(&output);
        assert!(told.lines().last().unwrap().starts_with(last), "{arguments:?}: {told}");
    }
    let output = run(folder.path(), &["check", "--allow", "unknown-key"]);
    assert_eq!(output.status.code(), Some(2), "an error cannot be allowed");
}

#[test]
fn variables_of_a_file_lie_over_the_environment_and_never_enter_a_message() {
    let text = GOOD.replace("[\"k\"]", "[\"{{ env.KEY }}\"]").replace("type = \"stdout\"", "url = \"{{ env.URL }}\"");
    let (folder, _) = file(&text);
    fs::write(folder.path().join("one.env"), "# first\nexport KEY='k'\nURL=\"not-a-url-but-secret\"\n").unwrap();
    fs::write(folder.path().join("two.env"), "URL=https://example.com # last\n").unwrap();
    fs::write(folder.path().join("wrong.env"), "KEY=k\n\nthe-secret-alone\n").unwrap();
    let check = |files: &[&str]| {
        let mut command = Binary::command();
        command.arg("--check").args(files.iter().flat_map(|file| ["--env-file", file]));
        command.env("URL", "https://of.the.environment").env_remove("KEY").current_dir(folder.path()).output().unwrap()
    };
    assert_eq!(check(&["one.env", "two.env"]).status.code(), Some(0));
    let wrong = check(&["two.env", "one.env"]);
    assert_eq!(wrong.status.code(), Some(1), "the last file wins");
    assert!(!stdout(&wrong).contains("but-secret"), "{}", stdout(&wrong));
    let wrong = check(&["wrong.env"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).starts_with("error: wrong.env:3: this line is neither KEY=VALUE"), "{}", stderr(&wrong));
    assert!(!stderr(&wrong).contains("secret"), "{}", stderr(&wrong));
    let absent = check(&["absent.env"]);
    assert_eq!(absent.status.code(), Some(2));
    assert!(stderr(&absent).starts_with("error: cannot read absent.env: "), "{}", stderr(&absent));
}

#[test]
fn what_is_not_set_here_is_assumed_to_be_set_elsewhere() {
    let text = GOOD.replace("[\"k\"]", "[\"{{ env.NO_SUCH_KEY }}\"]");
    let (folder, _) = file(&text.replace("type = \"memory\"", "dir = \"{{ env.NO_SUCH_DIR }}/q\""));
    assert_eq!(run(folder.path(), &["--check"]).status.code(), Some(1));
    let output = run(folder.path(), &["--check", "--assume-env"]);
    assert_eq!(output.status.code(), Some(0));
    let summary = "ok, 1 source, 1 destination, queue on disk ({{ env.NO_SUCH_DIR }}/q): a 200 is durable";
    assert_eq!(stdout(&output), format!("libroseg.toml: {summary}\n"));
}

#[test]
fn what_cannot_work_on_vercel_is_told_for_the_longest_its_function_may_run() {
    let (folder, _) = file(&GOOD.replace("type = \"stdout\"", "url = \"https://example.com\"\ntimeout = \"1m\""));
    for (arguments, code) in [
        (&["--check", "--target", "vercel"][..], 0),
        (&["--check", "--target", "vercel", "--max-duration", "800s"], 0),
        (&["--check", "--target", "vercel", "--max-duration", "60s"], 1),
        (&["--check", "--max-duration", "60s"], 2),
        (&["--check", "--target", "vercel", "--max-duration", "60"], 2),
        (&["--check", "--target", "mars"], 2),
    ] {
        assert_eq!(run(folder.path(), arguments).status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn the_check_runs_the_tests_that_a_file_carries() {
    let tested = |expected: &str| {
        format!(
            "{GOOD}[[tests]]\nname = \"out\"\ndestination = \"out\"\n\
             event = '{{\"type\":\"track\",\"userId\":\"u\",\"event\":\"E\"}}'\nexpect = '[{{\"body\":[{{\"event\":\"{expected}\"}}]}}]'\n"
        )
    };
    let (folder, _) = file(&tested("E"));
    let output = run(folder.path(), &["--check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert!(stdout(&output).starts_with("libroseg.toml: ok, 1 source, 1 destination, 1 test, "), "{}", stdout(&output));

    let (folder, _) = file(&tested("F"));
    let output = run(folder.path(), &["--check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("error[test-failed]"), "{}", stdout(&output));
    assert_eq!(run(folder.path(), &["--check", "--no-tests"]).status.code(), Some(0));
}
