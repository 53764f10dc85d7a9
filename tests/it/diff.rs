//! `libroseg diff`: what one file changes against another, in itself and over events.

use std::fs;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::app::{HEAD, KEY};
use crate::support::{Binary, client};

const OLD: &str = r#"
[sources.web]
write_keys = ["{{ env.WRITE_KEY }}"]

[let]
who = "{{ userId }}"

[destinations.crm]
url  = "https://crm.example.com/people"
auth = { bearer = "{{ env.CRM_TOKEN }}" }
on   = "track:Order *"
body = { id = "{{ who }}", total = "{{ properties.total | number }}" }

[destinations.mail]
url  = "https://mail.example.com/send"
auth = { header = { x-key = "pasted-secret-1" } }

[[destinations.mail.rules]]
on   = "identify"
body = { id = "{{ who }}" }

[[destinations.mail.rules]]
on   = "page"
path = "/pages"
"#;

const EVENTS: &str = concat!(
    r#"{"type":"track","userId":"u1","event":"Order Completed","properties":{"total":"100"},"messageId":"m1","receivedAt":"2026-01-02T03:04:05Z"}"#,
    "\n",
    r#"{"type":"track","userId":"u1","event":"Other","messageId":"m2","receivedAt":"2026-01-02T03:04:05Z"}"#,
    "\n\n",
    r#"{"type":"track","userId":"u1","event":"Order Done","properties":{"total":"x"},"messageId":"m3","receivedAt":"2026-01-02T03:04:05Z"}"#,
    "\n",
    r#"{"type":"identify","userId":"u1"}"#,
    "\n",
);

/// A folder with `old.toml` and `new.toml` in it.
struct Files(TempDir);

impl Files {
    fn with(old: &str, new: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("old.toml", old);
        files.write("new.toml", new);
        files
    }

    /// [`OLD`], and what it is with these texts replaced.
    fn changed(changes: &[(&str, &str)]) -> Self {
        let new = changes.iter().fold(OLD.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        Self::with(OLD, &new)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Output {
        self.write("input", input);
        let input = fs::File::open(self.0.path().join("input")).unwrap();
        let mut command = Binary::command();
        command.arg("diff").args(arguments).current_dir(self.0.path()).env_clear().env("COLUMNS", "120");
        command.stdin(Stdio::from(input)).output().unwrap()
    }

    fn human(&self, arguments: &[&str]) -> String {
        told(&self.run(&[&["old.toml", "new.toml"], arguments].concat()))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["old.toml", "new.toml", "--format", "json"], arguments].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", told(&output)));
        assert_eq!(answer["exit_code"], json!(output.status.code().unwrap()));
        answer
    }

    /// The counts of a destination over events.
    fn counts(&self, events: &str, destination: &str) -> Value {
        self.write("events.ndjson", events);
        let answer = self.json(&["--events", "events.ndjson"]);
        let destinations = answer["events"]["destinations"].as_array().unwrap().clone();
        destinations.into_iter().find(|one| one["name"] == destination).unwrap()["counts"].clone()
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn comments_and_layout_are_nothing() {
    let files = Files::changed(&[("[let]\n", "# names\n[let]\n\n"), ("url  = ", "url=")]);
    let output = files.run(&["old.toml", "new.toml"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(told(&output), "nothing changes between old.toml and new.toml\n");
}

#[test]
fn a_shared_name_shows_at_every_destination_that_uses_it() {
    let files = Files::changed(&[("\"{{ userId }}\"", "\"{{ userId or anonymousId }}\"")]);
    let output = files.run(&["old.toml", "new.toml"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(told(&output));
}

#[test]
fn a_secret_is_never_told() {
    let files = Files::changed(&[("pasted-secret-1", "pasted-secret-2")]);
    files.write("events.ndjson", EVENTS);
    files.write("all.env", "CRM_TOKEN=token-of-the-crm\nWRITE_KEY=the-write-key\n");
    let arguments = ["--events", "events.ndjson", "--env-file", "all.env", "--all"];
    let all = files.human(&arguments) + &files.json(&arguments).to_string();
    for secret in ["pasted-secret", "token-of-the-crm", "the-write-key"] {
        assert!(!all.contains(secret), "{all}");
    }
    assert!(all.contains("~ auth.header.x-key: another secret"), "{all}");
    assert!(all.contains("~ only in a secret, or in how the body is packed"), "{all}");
}

#[test]
fn a_rule_that_moved_is_not_one_that_changed() {
    let page = "[[destinations.mail.rules]]\non   = \"page\"\npath = \"/pages\"\n";
    let files = Files::changed(&[
        (page, ""),
        ("[[destinations.mail.rules]]\non   = \"ide", &format!("{page}\n[[destinations.mail.rules]]\non   = \"ide")),
    ]);
    let answer = files.json(&[]);
    let changes = answer["destinations"][0]["changes"].as_array().unwrap().clone();
    assert_eq!(changes.len(), 1, "{answer:#}");
    assert_eq!(changes[0]["change"], "moved");
    assert_eq!(answer["destinations"][0]["notes"], json!([]), "no rule counts as new");
}

#[test]
fn destinations_come_go_and_are_switched() {
    let files = Files::changed(&[
        ("[destinations.crm]\n", "[destinations.crm]\nenabled = \"{{ env.CRM }}\"\n"),
        ("[destinations.mail]", "[destinations.post]"),
        ("destinations.mail.rules", "destinations.post.rules"),
    ]);
    files.write("off.env", "CRM=no\n");
    let answer = files.json(&["--env-file", "off.env"]);
    let changes = answer["destinations"].as_array().unwrap().iter();
    let changes: Vec<Value> = changes.map(|one| json!([one["name"], one["change"], one["looked_at_again"]])).collect();
    assert_eq!(
        changes,
        [json!(["crm", "switched_off", false]), json!(["post", "added", false]), json!(["mail", "removed", false])]
    );
}

#[test]
fn what_a_change_means_for_a_service_is_said() {
    let files = Files::changed(&[
        ("[let]", "[server]\nlisten = \"0.0.0.0:1\"\n[queue]\ndir = \"elsewhere\"\n[let]"),
        (
            "on   = \"track:Order *\"",
            "on   = \"track:Order *\"\norder_by = \"{{ userId }}\"\nbatch = { max_events = 5 }",
        ),
        ("on   = \"identify\"", "on   = [\"identify\", \"group\"]"),
    ]);
    insta::assert_snapshot!(files.human(&[]));
}

#[test]
fn over_events_it_is_told_what_becomes_of_each() {
    let files =
        Files::changed(&[("| number ", ""), ("track:Order *", "track:*"), ("on   = \"identify\"", "on   = \"alias\"")]);
    files.write("events.ndjson", EVENTS);
    insta::assert_snapshot!(files.human(&["--events", "events.ndjson"]));
    let backwards = Files::with(
        &fs::read_to_string(files.0.path().join("new.toml")).unwrap(),
        &fs::read_to_string(files.0.path().join("old.toml")).unwrap(),
    );
    let all = json!({ "reaches": 0, "leaves": 1, "dies": 1, "mended": 0, "changes": 1, "same": 1 });
    assert_eq!(backwards.counts(EVENTS, "crm"), all);
}

#[test]
fn the_answer_for_programs_has_everything() {
    let files = Files::changed(&[("| number ", "")]);
    files.write("events.ndjson", &format!("{EVENTS}no event\n"));
    insta::assert_json_snapshot!(files.json(&["--events", "events.ndjson"]));
}

#[test]
fn a_line_that_is_no_event_is_told_and_does_not_end_the_run() {
    let files = Files::changed(&[("| number ", "")]);
    let lines = "no json\n[1]\n{\"type\":\"nonsense\"}\n\u{0}\n{\"type\":\"track\",\"userId\":\"u\",\"event\":\"Order A\",\"properties\":{\"total\":\"1\"}}\n";
    files.write("events.ndjson", lines);
    let answer = files.json(&["--events", "events.ndjson"]);
    assert_eq!((&answer["events"]["read"], &answer["events"]["broken"]["count"]), (&json!(1), &json!(4)), "{answer:#}");
    let first = answer["events"]["broken"]["first"].as_array().unwrap();
    assert_eq!(first.iter().map(|one| one["line"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(answer["events"]["destinations"][0]["counts"]["changes"], 1);
}

#[test]
fn examples_are_as_many_as_are_asked_for() {
    let files = Files::changed(&[("track:Order *", "track:*")]);
    let event = r#"{"type":"track","userId":"u1","event":"Other"}"#;
    files.write("events.ndjson", &format!("{event}\n").repeat(9));
    let examples = |arguments: &[&str]| {
        let answer = files.json(&[&["--events", "events.ndjson"], arguments].concat());
        answer["events"]["destinations"][0]["examples"].as_array().unwrap().len()
    };
    assert_eq!((examples(&[]), examples(&["--examples", "0"]), examples(&["--all"])), (3, 0, 9));
}

#[test]
fn one_of_the_files_may_come_from_stdin() {
    let files = Files::changed(&[("track:Order *", "track:*")]);
    let output = files.run_with(&["-", "new.toml"], OLD);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let output = files.run_with(&["old.toml", "new.toml", "--events", "-"], EVENTS);
    assert!(told(&output).contains("crm: 1 newly reaches it, 3 as before"), "{}", told(&output));
    let output = files.run_with(&["-", "new.toml", "--events", "-"], OLD);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_file_that_is_wrong_or_not_there_is_exit_code_2() {
    let files = Files::changed(&[("url  = \"https://mail", "urk  = \"https://mail")]);
    let output = files.run(&["old.toml", "new.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("new.toml:15:1"), "{}", told(&output));
    for arguments in [&["absent.toml", "new.toml"][..], &["old.toml", "old.toml", "--events", "absent.ndjson"]] {
        let output = files.run(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(told(&output).contains("error: cannot read absent."), "{}", told(&output));
    }
}

#[tokio::test]
async fn an_export_of_a_real_queue_goes_through() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    let config = format!("[server]\nlisten = \"127.0.0.1:0\"\n{HEAD}[destinations.crm]\ntype = \"stdout\"\n");
    fs::write(&path, config).unwrap();
    let mut service = Binary::start(&path);
    for event in ["Order Completed", "Other"] {
        let body = json!({ "userId": "u1", "event": event }).to_string();
        let call = client().post(format!("{}/v1/track", service.url)).basic_auth(KEY, Some("")).body(body);
        assert_eq!(call.send().await.unwrap().status(), 200);
    }
    service.signal("TERM");
    assert!(service.wait().success(), "{}", service.log());
    let files = Files::with(
        "[sources.app]\nwrite_keys = ['a']\n[sources.test]\nwrite_keys = ['b']\ndestinations = ['crm']\n[destinations.crm]\ntype = 'stdout'\n",
        "[sources.app]\nwrite_keys = ['a']\n[sources.test]\nwrite_keys = ['b']\ndestinations = []\n[destinations.crm]\ntype = 'stdout'\n",
    );
    for (meta, leaves) in [(&[][..], 0), (&["--with-meta"][..], 2)] {
        let mut command = Binary::command();
        command.args(["queue", "export"]).args(meta).current_dir(folder.path());
        let export = command.output().unwrap();
        assert!(export.status.success(), "{}", told(&export));
        let counts = files.counts(&String::from_utf8(export.stdout).unwrap(), "crm");
        assert_eq!((&counts["leaves"], &counts["same"]), (&json!(leaves), &json!(2 - leaves)), "{counts}");
    }
}

#[test]
fn the_page_about_operations_shows_what_diff_answers() {
    let page = include_str!("../../docs/operations.md");
    let (_, section) = page.split_once("## Before you deploy a change\n").unwrap();
    let block = |kind: &str, index: usize| {
        let blocks: Vec<&str> = section.split(&format!("```{kind}\n")).skip(1).collect();
        blocks[index].split("```").next().unwrap().to_owned()
    };
    let files = Files::with("", "");
    files.write("libroseg.toml", &block("toml", 0));
    files.write("next.toml", &block("toml", 1));
    files.write("events.ndjson", &block("json", 0));
    let shown = block("text", 0);
    let (command, answer) = shown.split_once('\n').unwrap();
    let arguments: Vec<&str> = command.strip_prefix("$ libroseg diff ").unwrap().split(' ').collect();
    let output = files.run(&arguments);
    assert_eq!(told(&output), answer);
}
