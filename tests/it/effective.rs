//! `libroseg config` tells what is in force, and where it comes from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use libroseg::config::presets::PRESETS;
use libroseg::config::{self, Effective, Environment, Unset};
use libroseg::plan::Plan;
use serde_json::Value;

use crate::support::Binary;

const FILE: &str = r#"[server]
max_connections = 100

[sources.web]
write_keys = ["pasted-write-key", "{{ env.WRITE_KEY }}"]

[let]
who = "{{ userId or anonymousId }}"

[defaults]
retry = { first = "2s" }

[destinations.base]
url     = "https://a.example.com"
enabled = "{{ env.BASE }}"
auth    = { bearer = "pasted-bearer-token" }
headers = { X-Api-Key = "pasted-api-key", X-Source = "libroseg" }

[[destinations.base.rules]]
on   = "track"
body = { who = "{{ who }}", "a b" = 'say "hi"', list = [1, "two", { three = 3.5 }] }

[destinations.child]
extends = "base"
enabled = true
retry   = { give_up_after = "1h" }

[[destinations.child.rules]]
on   = "page"
path = "/pages"

[destinations.hook]
extends = "webhook"
env     = { WEBHOOK_URL = "{{ env.HOOK_URL }}", WEBHOOK_SECRET = "{{ env.HOOK_KEY }}" }
"#;

fn run(text: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("libroseg.toml"), text).unwrap();
    let mut command = Binary::command();
    command.arg("config").args(arguments).env_remove("PORT").envs(variables.iter().copied());
    command.current_dir(folder.path()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn compile(text: &str) -> Plan {
    // Credentials of Google's must be JSON where they can be read.
    let is_there = |path: &Path| !path.starts_with("/run/google");
    let read_file: &dyn Fn(&Path) -> std::io::Result<String> =
        &|path| if is_there(path) { Ok("of a file".to_owned()) } else { Err(std::io::ErrorKind::NotFound.into()) };
    let environment =
        Environment { variables: BTreeMap::new(), read_file, unset: Unset::Assumed, ..Environment::default() };
    let draw = |mistakes: &[config::Diagnostic]| config::draw("f", text, mistakes, config::Style::Plain, 140);
    config::compile(text, &environment).unwrap_or_else(|mistakes| panic!("{text}\n{}", draw(&mistakes))).plan
}

/// Every file that compiles, but for secrets that are pasted: those are masked.
fn good_files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = ["examples/configs", "tests/fixtures/config"]
        .iter()
        .flat_map(|folder| fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter(|path| {
            path.starts_with(root.join("examples")) || path.file_name().unwrap().to_str().unwrap().starts_with("good-")
        })
        .collect();
    paths.push(root.join("libroseg.toml"));
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_value_in_force_is_told_with_its_origin() {
    let output = run(FILE, &[], &[("WRITE_KEY", "secret-write-key"), ("HOOK_URL", "https://secret.example.com")]);
    let told: String = stdout(&output);
    // A preset's lines are where its file has them.
    let told: Vec<&str> = told.split("\n\n").filter(|section| !section.contains("destinations.hook")).collect();
    insta::assert_snapshot!(told.join("\n\n"));
}

#[test]
fn what_a_preset_gives_is_told_with_its_line() {
    let told = stdout(&run(FILE, &["--destination", "hook", "--no-defaults"], &[]));
    let preset = PRESETS.iter().find(|preset| preset.name == "webhook").unwrap();
    let line = 1 + preset.text.lines().position(|line| line.starts_with("url ")).unwrap();
    assert!(told.starts_with("[destinations.hook]  # libroseg.toml:32, extends webhook\n"), "{told}");
    let url = told.lines().find(|line| line.starts_with("url = ")).unwrap();
    assert!(url.contains("\"{{ env.WEBHOOK_URL }}\"") && url.ends_with(&format!("# preset webhook:{line}")), "{url}");
    assert!(!told.contains("# default"), "{told}");
}

#[test]
fn no_secret_is_told() {
    let variables = [
        ("WRITE_KEY", "secret-write-key"),
        ("HOOK_URL", "https://secret.example.com"),
        ("HOOK_KEY", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ];
    for arguments in [&[][..], &["--format", "json"]] {
        let told = stdout(&run(FILE, arguments, &variables));
        for secret in [
            "pasted-write-key",
            "pasted-bearer-token",
            "pasted-api-key",
            "secret-write-key",
            "secret.example",
            "whsec_MfK",
        ] {
            assert!(!told.contains(secret), "{secret}: {told}");
        }
        assert!(told.contains("***") && told.contains("{{ env.WRITE_KEY }}"), "{told}");
    }
}

#[test]
fn of_credentials_is_told_how_they_are_used() {
    let file = "[destinations.a]\nurl = \"https://a.example.com\"\n[destinations.a.auth.oauth2]\n\
                token_url = \"https://id.example.com/token\"\nclient_id = \"{{ env.ID }}\"\n\
                client_secret = \"pasted-client-secret\"\nscope = \"events.write\"\nstyle = \"basic\"\n";
    let told = stdout(&run(file, &["--no-defaults"], &[]));
    for line in ["token_url = \"https://id.example.com/token\"", "scope = \"events.write\"", "style = \"basic\""] {
        assert!(told.contains(&format!("auth.oauth2.{line}")), "{told}");
    }
    assert!(told.contains("auth.oauth2.client_secret = \"***\"") && !told.contains("pasted"), "{told}");
}

#[test]
fn programs_hear_key_value_and_origin() {
    let told: Value = serde_json::from_str(&stdout(&run(FILE, &["--format", "json"], &[]))).unwrap();
    let setting = |key: &str| {
        let mut all = told["settings"].as_array().unwrap().iter().filter(|setting| setting["key"] == key);
        all.next().cloned().unwrap_or_else(|| panic!("no {key}"))
    };
    let first = setting("destinations.child.retry.first");
    assert_eq!((&first["value"], &first["origin"]["line"]), (&"2s".into(), &11.into()));
    assert_eq!(first["origin"]["told"], "[defaults] libroseg.toml:11");
    let body = setting("destinations.child.rules[1].body.list");
    assert_eq!(body["value"], serde_json::json!([1, "two", { "three": 3.5 }]));
    assert_eq!(body["origin"]["key"], "destinations.base.rules[0].body.list");
    assert_eq!(setting("destinations.hook.url")["origin"]["preset"], "webhook");
    assert_eq!(setting("queue.retain")["origin"], serde_json::json!({ "told": "default" }));
}

#[test]
fn whoever_starts_the_program_has_the_last_word_on_listen() {
    let listen = |arguments: &[&str], variables: &[(&str, &str)]| {
        let told = stdout(&run(FILE, arguments, variables));
        let line = told.lines().find(|line| line.starts_with("listen")).unwrap().to_owned();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(listen(&[], &[]), "listen = \"0.0.0.0:8080\" # default");
    assert_eq!(listen(&[], &[("PORT", "9000")]), "listen = \"0.0.0.0:9000\" # PORT");
    assert_eq!(listen(&["--listen", "[::1]:1"], &[("PORT", "9000")]), "listen = \"[::1]:1\" # --listen");
}

#[test]
fn a_destination_that_is_off_is_told_with_its_reason() {
    let variables = [
        ("WRITE_KEY", "k"),
        ("HOOK_URL", "https://h.example.com"),
        ("HOOK_KEY", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ];
    let told = stdout(&run(FILE, &["--destination", "base"], &variables));
    assert!(told.starts_with("[destinations.base]  # libroseg.toml:13, off: BASE is not set\n"), "{told}");
}

#[test]
fn a_wrong_file_and_an_unknown_destination_are_errors() {
    let output = run("[destinations.a]\nurk = 1\n", &[], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("libroseg.toml:2:1"));
    assert_eq!(run(FILE, &["--destination", "chlid"], &[]).status.code(), Some(2));
    assert_eq!(run(FILE, &["nowhere.toml"], &[]).status.code(), Some(2));
}

#[test]
fn what_is_told_is_a_file_that_means_the_same() {
    for (path, text) in good_files() {
        let before = compile(&text);
        for no_defaults in [true, false] {
            let mut effective = Effective::of(&text);
            if no_defaults {
                effective.leave_out_defaults();
            }
            // Write keys are masked, and have to differ.
            let mut told = effective.toml("f");
            while told.contains("***") {
                told = told.replacen("***", &format!("key-{}", told.len()), 1);
            }
            let after = compile(&told);
            let place = path.display();
            assert_eq!(before.server, after.server, "{place}");
            assert_eq!(before.queue, after.queue, "{place}");
            assert_eq!(before.policy.limits, after.policy.limits, "{place}");
            assert_eq!(before.destinations.len(), after.destinations.len(), "{place}\n{told}");
            for (one, other) in before.destinations.iter().zip(&after.destinations) {
                let place = format!("{place}: {}\n{told}", one.name);
                let own = effective.sections.iter().filter(|of| of.destination.as_deref() == Some(one.name.as_str()));
                let is_masked = own.flat_map(|of| &of.settings).any(|setting| setting.toml.contains("***"));
                assert!(is_masked || !no_defaults || one.fingerprint == other.fingerprint, "{place}");
                assert_eq!(
                    (&one.name, &one.kind, &one.integrations),
                    (&other.name, &other.kind, &other.integrations),
                    "{place}"
                );
                assert_eq!(
                    (&one.retry, &one.limit, one.timeout),
                    (&other.retry, &other.limit, other.timeout),
                    "{place}"
                );
                assert_eq!(
                    (one.waiting_max, one.start, one.rules.len()),
                    (other.waiting_max, other.start, other.rules.len()),
                    "{place}"
                );
                for (one, other) in one.rules.iter().zip(&other.rules) {
                    let batch = |rule: &libroseg::plan::Rule| {
                        rule.batch.as_ref().map(|b| (b.events_max, b.bytes_max, b.age_max))
                    };
                    assert_eq!(batch(one), batch(other), "{place}");
                    assert_eq!(
                        (&one.request.method, one.request.encoding, one.is_final),
                        (&other.request.method, other.request.encoding, other.is_final),
                        "{place}"
                    );
                }
            }
        }
    }
}
