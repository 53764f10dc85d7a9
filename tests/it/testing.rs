//! `[[tests]]` and `libroseg test`: what a file promises about its own destinations, held to.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::Binary;

const CRM: &str = r#"
[destinations.crm]
url   = "https://crm.example.com/people"
auth  = { bearer = "{{ env.CRM_TOKEN }}" }
body  = { id = "{{ userId }}", plan = "{{ traits.plan }}", at = "{{ timestamp | unix }}" }
on    = "identify"
"#;

/// A folder with `libroseg.toml` in it.
struct Files {
    folder: TempDir,
}

impl Files {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("libroseg.toml"), text).unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("libroseg.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Binary::command();
        command.arg("test").args(arguments).current_dir(self.folder.path()).env_clear().env("COLUMNS", "120");
        command.output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--format", "json"], arguments].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", told(&output)))
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The words of what became of the events, test by test; and whether each test passed.
fn outcomes(text: &str) -> Vec<(Value, bool)> {
    let answer = Files::with(text).json(&[]);
    assert_eq!(answer["files"][0]["mistakes"], json!([]), "{answer:#}");
    let tests = answer["files"][0]["tests"].as_array().unwrap().clone();
    tests.iter().map(|test| (test["outcome"].clone(), test["passed"].as_bool().unwrap())).collect()
}

#[test]
fn a_test_that_holds_passes_without_a_variable_of_this_machine() {
    let files = Files::with(&format!(
        "{CRM}{}",
        r#"
[[tests]]
name        = "identify becomes a person"
destination = "crm"
env         = { CRM_TOKEN = "t0k" }
event       = '{"type":"identify","userId":"u1","timestamp":"2026-01-02T03:04:05Z","traits":{"plan":"pro"}}'
expect      = '[{"method":"POST","url":"https://crm.example.com/people","headers":{"authorization":"Bearer t0k"},"body":{"id":"u1","plan":"pro","at":1767323045}}]'
outcome     = ["ok"]

[[tests]]
name        = "a track is nothing to it"
destination = "crm"
event       = '{"type":"track","userId":"u1","event":"A"}'
expect      = []
outcome     = "filtered"
"#
    ));
    let output = files.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(
        told(&output),
        "ok     crm: identify becomes a person\nok     crm: a track is nothing to it\n\nlibroseg.toml: 2 passed, 0 failed\n"
    );
}

#[test]
fn a_test_that_fails_points_at_the_very_value_and_shows_the_difference() {
    let files = Files::with(&format!(
        "{CRM}{}",
        r#"
[[tests]]
name        = "identify becomes a person"
destination = "crm"
env         = { CRM_TOKEN = "t0k" }
event       = '{"type":"identify","userId":"u1","timestamp":"2026-01-02T03:04:05Z","traits":{"plan":"free"}}'
expect      = '[{"body":{"id":"u1","plan":"pro","at":"<absent>","vip":true}}]'
"#
    ));
    let output = files.run(&["libroseg.toml"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(told(&output));
}

#[test]
fn an_answer_means_what_the_test_says() {
    let words = outcomes(&format!(
        "{CRM}{}",
        r#"
[[destinations.crm.response]]
when = "$.status == 409"
then = "ok"

[[tests]]
name        = "taken, refused, paused"
destination = "crm"
respond     = 409
outcome     = ["ok", "ok"]

[[tests]]
name        = "halves"
destination = "crm"
respond     = '{"status":400,"body":{"error":"bad"}}'
outcome     = ["split", "split"]

[[tests]]
name        = "alone it is dead"
destination = "crm"
respond     = 400
outcome     = ["dead"]

[[tests]]
name        = "credentials"
destination = "crm"
respond     = { status = 401 }
outcome     = "pause"

[[tests]]
name        = "no answer"
destination = "crm"
respond     = "timeout"
outcome     = "retry"

[[tests]]
name        = "wrong on purpose"
destination = "crm"
respond     = "disconnect"
outcome     = "dead"
"#
    ));
    let expected = [
        (json!(["ok", "ok"]), true),
        (json!(["split", "split"]), true),
        (json!(["dead"]), true),
        (json!(["pause"]), true),
        (json!(["retry"]), true),
        (json!(["retry"]), false),
    ];
    assert_eq!(words, expected);
}

/// A destination with batches of two, and events of three users.
fn batches(test: &str) -> Vec<(Value, bool)> {
    outcomes(&format!(
        r#"
[destinations.bulk]
url   = "https://bulk.example.com"
body  = {{ id = "{{{{ userId }}}}" }}
batch = {{ max_events = 2 }}
retry = {{ first = "10s", attempts_max = 3 }}

[[tests]]
name        = "a history"
destination = "bulk"
events      = '[{{"type":"track","event":"A","userId":"a"}},{{"type":"track","event":"A","userId":"b"}},{{"type":"track","event":"A","userId":"c"}}]'
{test}
"#
    ))
}

#[test]
fn a_list_of_answers_scripts_retries_to_the_end() {
    let history = batches(
        "respond = '[503, 200, 200]'\nexpect = '[{\"body\":[{\"id\":\"a\"},{\"id\":\"b\"}]},{\"body\":[{\"id\":\"c\"}]},{\"body\":[{\"id\":\"a\"},{\"id\":\"b\"}]}]'",
    );
    assert_eq!(history, [(json!(["ok", "ok", "ok"]), true)]);
    let given_up = batches("respond = [503, 200, 503, 503]\noutcome = ['dead', 'dead', 'ok']");
    assert_eq!(given_up, [(json!(["dead", "dead", "ok"]), true)]);
    let used_up = batches("respond = [503, 200]\noutcome = ['retry', 'retry', 'ok']");
    assert_eq!(used_up, [(json!(["retry", "retry", "ok"]), true)]);
}

#[test]
fn a_batch_that_is_too_large_is_sent_in_halves_until_the_culprit_is_alone() {
    let halves = batches(
        "respond = [413, 200, 413, 200]\noutcome = ['ok', 'dead', 'ok']\nexpect = '[{},{\"body\":[{\"id\":\"a\"}]},{\"body\":[{\"id\":\"b\"}]},{\"body\":[{\"id\":\"c\"}]}]'",
    );
    assert_eq!(halves, [(json!(["ok", "dead", "ok"]), true)]);
}

#[test]
fn a_destination_that_refuses_our_credentials_rests_and_the_events_go_out_afterwards() {
    let rests = batches("respond = [403, 403, 200, 200]\noutcome = ['ok', 'ok', 'ok']");
    assert_eq!(rests, [(json!(["ok", "ok", "ok"]), true)]);
}

#[test]
fn events_of_one_key_are_made_one_after_the_other() {
    let words = outcomes(
        r#"
[destinations.bulk]
url      = "https://bulk.example.com"
body     = { id = "{{ userId }}", e = "{{ event }}" }
order_by = "{{ userId }}"
batch    = { max_events = 10 }

[[tests]]
name        = "the second of a user waits for the first, also through a failure"
destination = "bulk"
events      = '[{"type":"track","event":"A","userId":"a"},{"type":"track","event":"B","userId":"a"},{"type":"track","event":"A","userId":"b"}]'
respond     = [503, 200, 200]
expect      = '''[
  {"body":[{"id":"a","e":"A"},{"id":"b"}]},
  {"body":[{"id":"a","e":"A"},{"id":"b"}]},
  {"body":[{"id":"a","e":"B"}]}
]'''
outcome     = ["ok", "ok", "ok"]
"#,
    );
    assert_eq!(words, [(json!(["ok", "ok", "ok"]), true)]);
}

#[test]
fn a_mapping_that_fails_fails_the_test_unless_it_says_so() {
    let text = |outcome: &str| {
        format!(
            "[destinations.a]\nurl = 'https://a.example.com'\nbody = {{ id = '{{{{ anonymousId | required }}}}' }}\n\
             [[tests]]\nname = 'n'\ndestination = 'a'\nevent = '{{\"type\":\"track\",\"userId\":\"u\",\"event\":\"E\"}}'\nexpect = []\n{outcome}"
        )
    };
    assert_eq!(outcomes(&text("")), [(json!(["dead"]), false)]);
    assert_eq!(outcomes(&text("outcome = 'dead'")), [(json!(["dead"]), true)]);
}

#[test]
fn a_destination_that_is_off_here_is_tested_all_the_same_with_files_of_the_tests_own() {
    let words = outcomes(
        r#"
[destinations.a]
enabled = "{{ env.A_ON }}"
url     = "https://a.example.com"
auth    = { bearer = "{{ file('/run/secrets/a') }}" }

[[tests]]
name        = "n"
destination = "a"
files       = { "/run/secrets/a" = "s3cret" }
event       = '{"type":"track","userId":"u","event":"E"}'
expect      = '[{"headers":{"authorization":"Bearer s3cret"}}]'
"#,
    );
    assert_eq!(words, [(json!(["ok"]), true)]);
}

#[test]
fn a_variable_that_a_test_does_not_set_is_missing_and_the_test_says_which() {
    let files = Files::with(&format!(
        "{CRM}[[tests]]\nname = 'n'\ndestination = 'crm'\nevent = '{{\"type\":\"identify\",\"userId\":\"u1\"}}'\nexpect = '[{{}}]'\n"
    ));
    let output = files.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("environment variable CRM_TOKEN is not set in this test"), "{}", told(&output));
}

#[test]
fn a_source_that_is_not_for_a_destination_sends_it_nothing() {
    let words = outcomes(
        r#"
[sources.web]
write_keys   = ["{{ env.WEB }}"]
destinations = ["a"]

[sources.app]
write_keys   = ["{{ env.APP }}"]
destinations = ["b"]

[destinations.a]
url  = "https://a.example.com"
body = { from = "{{ source }}" }

[destinations.b]
url = "https://b.example.com"

[[tests]]
name        = "of a source that is for it, whichever comes first"
destination = "a"
event       = '{"type":"track","userId":"u","event":"E"}'
expect      = '[{"body":{"from":"web"}}]'

[[tests]]
name        = "of one that is not"
destination = "a"
source      = "app"
event       = '{"type":"track","userId":"u","event":"E"}'
outcome     = "filtered"
"#,
    );
    assert_eq!(words, [(json!(["ok"]), true), (json!(["filtered"]), true)]);
}

#[test]
fn update_writes_down_what_is_made_and_the_test_passes_from_then_on() {
    let files = Files::with(&format!(
        "{CRM}{}",
        r#"
[[tests]]
name        = "expects nothing yet"
destination = "crm"
env         = { CRM_TOKEN = "t" }
event       = '{"type":"identify","userId":"it's","timestamp":"2026-01-02T03:04:05Z"}'

[[tests]]                       # stays
name        = "out of date"
destination = "crm"
env         = { CRM_TOKEN = "t" }
event       = '{"type":"identify","userId":"u1","traits":{"plan":"free"}}'
expect      = '[{"body":{"plan":"pro"}}, {}]'
outcome     = ["dead"]
"#
        .replace("it's", "its")
    ));
    assert_eq!(files.run(&[]).status.code(), Some(1));
    let before = files.text();
    assert_eq!(files.run(&["--update"]).status.code(), Some(0));
    insta::assert_snapshot!(similar_lines(&before, &files.text()));
    assert_eq!(files.run(&[]).status.code(), Some(0), "{}", files.text());
    let once = files.text();
    assert_eq!(files.run(&["--update"]).status.code(), Some(0));
    assert_eq!(files.text(), once, "what passes is left as it is");
}

/// The lines that were added to a text.
fn similar_lines(before: &str, after: &str) -> String {
    after.lines().filter(|line| !before.lines().any(|old| old == *line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_filter_picks_by_destination_and_name() {
    let files = Files::with(&format!(
        "{CRM}{}",
        "[[tests]]\nname = 'one'\ndestination = 'crm'\nrespond = 200\noutcome = 'ok'\n\
         [[tests]]\nname = 'two'\ndestination = 'crm'\nrespond = 200\noutcome = 'ok'\n"
    ));
    let names = |filter: &str| -> Vec<Value> {
        let answer = files.json(&["--filter", filter]);
        answer["files"][0]["tests"].as_array().unwrap().iter().map(|test| test["name"].clone()).collect()
    };
    assert_eq!(names("tw"), ["two"]);
    assert_eq!(names("crm: *n"), ["one"]);
    assert_eq!(names("crm"), ["one", "two"]);
    assert!(names("nobody").is_empty());
}

#[test]
fn junit_has_a_case_a_test_and_a_failure_with_its_picture() {
    let files = Files::with(&format!(
        "{CRM}{}",
        "[[tests]]\nname = 'one & <all>'\ndestination = 'crm'\nrespond = 200\noutcome = 'ok'\n\
         [[tests]]\nname = 'two'\ndestination = 'crm'\nrespond = 200\noutcome = 'dead'\n"
    ));
    insta::assert_snapshot!(told(&files.run(&["--format", "junit"])));
}

#[test]
fn a_file_with_mistakes_or_none_at_all_is_told_apart() {
    let wrong = Files::with("[destinations.a]\nurl = 'ftp://a'\n");
    assert_eq!(wrong.run(&[]).status.code(), Some(1));
    assert!(told(&wrong.run(&[])).contains("error[bad-url]"));
    assert_eq!(wrong.run(&["not-there.toml"]).status.code(), Some(2));
}

#[test]
fn the_body_is_compared_as_what_it_is() {
    let words = outcomes(
        r#"
[destinations.form]
url      = "https://a.example.com"
encoding = "form"
body     = { a = "{{ userId }}", b = ["x", "y z"] }

[destinations.lines]
url      = "https://a.example.com"
encoding = "ndjson"
batch    = { max_events = 5 }
body     = { a = "{{ userId }}" }

[destinations.file]
type = "file"
path = "x.ndjson"
body = { a = "{{ userId }}" }

[[tests]]
name        = "a form"
destination = "form"
event       = '{"type":"track","userId":"u","event":"E"}'
expect      = '[{"body":{"a":"u","b":["x","y z"]},"wire":"a=u&b=x&b=y%20z"}]'

[[tests]]
name        = "lines"
destination = "lines"
events      = '[{"type":"track","userId":"u","event":"E"},{"type":"track","userId":"v","event":"E"}]'
expect      = '[{"body":[{"a":"u"},{"a":"v"}],"wire":"{\"a\":\"u\"}\n{\"a\":\"v\"}\n"}]'

[[tests]]
name        = "a file"
destination = "file"
event       = '{"type":"track","userId":"u","event":"E"}'
exact       = true
expect      = '[{"body":[{"a":"u"}],"url":"<absent>"}]'
"#,
    );
    assert_eq!(words, vec![(json!(["ok"]), true), (json!(["ok", "ok"]), true), (json!(["ok"]), true)]);
}
