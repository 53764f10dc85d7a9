//! The commands that look into the queue, beside a running service and without one: streams, exit codes, and the socket
//! between them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use libroseg::admin::{Request, Which, socket};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::app::{HEAD, HEAD_IN_MEMORY, KEY};
use crate::support::desk::example;
use crate::support::fake::Recorded;
use crate::support::{Answer, Binary, Fake, PATIENCE, TestApp, client, eventually};

/// A running service in a folder of its own, with a control socket.
struct Served {
    binary: Binary,
    folder: TempDir,
    fake: Fake,
}

impl Served {
    /// With one destination that these lines add to.
    fn start(lines: &str) -> Self {
        Self::with_control("control.sock", lines)
    }

    fn with_control(control: &str, lines: &str) -> Self {
        let fake = Fake::start();
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), control, &format!("[destinations.crm]\nurl = \"{}\"\n{lines}\n", fake.url()));
        Self { binary: Binary::start(&path), folder, fake }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// With a file as it is.
    fn with_file(folder: TempDir, fake: Fake) -> Self {
        Self { binary: Binary::start(&folder.path().join("libroseg.toml")), folder, fake }
    }

    /// Ends the service; what it leaves behind stays.
    fn end(self, end: End) -> (TempDir, Fake) {
        let Self { mut binary, folder, fake } = self;
        match end {
            End::Killed => binary.kill(),
            End::Terminated => {
                binary.signal("TERM");
                assert!(binary.wait().success(), "{}", binary.log());
            }
        }
        (folder, fake)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(self.folder.path(), arguments)
    }

    #[track_caller]
    fn answer(&self, arguments: &[&str]) -> String {
        answer(self.folder.path(), arguments)
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        json_lines(self.folder.path(), arguments)
    }

    /// What `/ready` tells of a destination.
    async fn books(&self, destination: &str) -> Value {
        let response = client().get(format!("{}/ready", self.binary.url)).send().await.unwrap();
        let ready: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        ready["destinations"][destination].clone()
    }

    /// Waits until its books are so.
    async fn has_books(&self, destination: &str, what: &str, is_so: impl Fn(&Value) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !is_so(&self.books(destination).await) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        assert!(waited.await.is_ok(), "never so: {what}: {}", self.books(destination).await);
    }

    async fn track(&self, event: &str) {
        let body = json!({ "userId": "u1", "event": event });
        let request = client().post(format!("{}/v1/track", self.binary.url)).basic_auth(KEY, Some(""));
        assert_eq!(request.body(body.to_string()).send().await.unwrap().status().as_u16(), 200);
    }

    /// Events that the destination refuses, until they are dead letters.
    async fn refused(&self, events: &[&str]) {
        self.fake.then_always(Answer::status(400).body("no"));
        for event in events {
            self.track(event).await;
        }
        let count = || self.answer(&["dead-letters", "list", "--format", "json"]).lines().count();
        eventually("the events are dead letters", || count() == events.len()).await;
    }
}

/// How a service ends.
#[derive(Clone, Copy)]
enum End {
    Terminated,
    Killed,
}

fn write(folder: &Path, control: &str, lines: &str) -> PathBuf {
    let path = folder.join("libroseg.toml");
    std::fs::write(&path, format!("[server]\nlisten = \"127.0.0.1:0\"\ncontrol = \"{control}\"\n{HEAD}{lines}"))
        .unwrap();
    path
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Binary::command();
    command.args(arguments).env("COLUMNS", "100").current_dir(folder).stdin(Stdio::null());
    command.output().unwrap()
}

/// What a command that goes well answers.
#[track_caller]
fn answer(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

/// The same in JSON, line by line.
#[track_caller]
fn json_lines(folder: &Path, arguments: &[&str]) -> Vec<Value> {
    let text = answer(folder, &[arguments, &["--format", "json"]].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

// === commands ===

#[tokio::test]
async fn dead_letters_are_listed_shown_replayed_and_purged_beside_a_running_service() {
    let served = Served::start("");
    served.refused(&["One", "Two", "Three"]).await;

    let list = served.json(&["dead-letters", "list"]);
    let columns = ["id", "died_at", "destination", "type", "name", "user", "reason", "attempts"];
    assert_eq!(keys(&list[0]), columns);
    assert_eq!(list[0]["reason"], "status 400");
    let id = |name: &str| list.iter().find(|line| line["name"] == name).unwrap()["id"].to_string();
    let table = served.answer(&["dead-letters", "list"]);
    assert!(table.starts_with("ID") && table.contains("track Two") && table.lines().count() == 4, "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");

    let page = served.answer(&["dead-letters", "show", &id("Two")]);
    assert!(page.contains("status 400") && page.contains("\"event\": \"Two\""), "{page}");
    assert_eq!(served.json(&["dead-letters", "show", &id("Two")])[0]["detail"], "no");

    served.fake.then_always(Answer::status(200));
    let told = served.answer(&["dead-letters", "replay", "--where", "$.event == 'One'"]);
    assert_eq!(told, "1 dead letter put back\n  crm: 1\n");
    eventually("it was sent again", || served.fake.requests().len() == 4).await;
    let told = served.answer(&["dead-letters", "purge", &id("Two"), "--yes"]);
    assert_eq!(told, "1 dead letter forgotten\n  crm: 1\n");
    let left: Vec<Value> = served.json(&["dead-letters", "list"]);
    assert_eq!((left.len(), &left[0]["name"]), (1, &json!("Three")));

    let missing = served.run(&["dead-letters", "show", &id("Two")]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("there is no dead letter") && missing.stdout.is_empty());
}

#[tokio::test]
async fn nothing_is_purged_by_accident() {
    let served = Served::start("");
    served.refused(&["One"]).await;
    for (arguments, help) in [
        (&["dead-letters", "purge"][..], "--all"),
        (&["dead-letters", "purge", "--yes"], "--all"),
        (&["dead-letters", "purge", "--all"], "--yes"),
        (&["dead-letters", "purge", "--destination", "crm"], "--yes"),
    ] {
        let output = served.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(help), "{}", stderr(&output));
    }
    assert_eq!(
        served.answer(&["dead-letters", "purge", "--all", "--dry-run"]),
        "1 dead letter would be forgotten\n  crm: 1\n"
    );
    assert_eq!(served.json(&["dead-letters", "list"]).len(), 1);
    served.answer(&["dead-letters", "purge", "--all", "--yes"]);
    let empty = served.run(&["dead-letters", "list"]);
    assert_eq!((stdout(&empty).as_str(), stderr(&empty).as_str()), ("", "no dead letters\n"));
}

#[tokio::test]
async fn the_queue_can_be_inspected_verified_and_exported() {
    let served = Served::start("");
    served.refused(&["One"]).await;
    served.fake.then_always(Answer::hang());
    served.track("Two").await;
    eventually("it is in hand", || served.fake.requests().len() == 2).await;

    let state = &served.json(&["queue", "inspect"])[0];
    let crm = &state["destinations"][0];
    assert_eq!((&state["is_served"], &crm["name"], &crm["state"]), (&json!(true), &json!("crm"), &json!("on")));
    assert_eq!(
        (&crm["accepted"], &crm["dead"], &crm["in_hand"], &crm["letters"]),
        (&json!(2), &json!(1), &json!(1), &json!(1))
    );
    let text = served.answer(&["queue", "inspect"]);
    assert!(text.contains("a service has it open") && text.contains("DESTINATION"), "{text}");

    let verified = served.run(&["queue", "verify"]);
    assert_eq!(verified.status.code(), Some(0));
    assert!(stderr(&verified).contains("no damage"), "{}", stderr(&verified));
    served.fake.let_go();
}

/// Runs a command against a service that answers with this text, whatever it is asked.
fn run_against(answer: &'static str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let service = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        BufReader::new(&stream).read_line(&mut String::new()).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let output = run(folder.path(), &[arguments, &["--control", path.to_str().unwrap()]].concat());
    service.join().unwrap();
    output
}

#[test]
fn damage_is_told_with_its_place_and_exit_code_1() {
    let segment = "{\"answer\":\"segment\",\"name\":\"00.log\",\"events\":7,\"size_bytes\":900,\"raw_bytes\":2000,\
                   \"torn_bytes\":0,\"damaged\":[{\"from\":3,\"to\":5,\"position_bytes\":412}]}\n{\"answer\":\"done\"}\n";
    let output = run_against(segment, &["queue", "verify"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "00.log: 7 events, 900 bytes, 2000 unpacked\n  damaged at byte 412: events 3 to 4\n");
    assert_eq!(stderr(&output), "1 segment, 7 events, 1 damaged place\n");

    let output = run_against(segment, &["queue", "verify", "--format", "json"]);
    let line: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((output.status.code(), &line["damaged"][0]["position_bytes"]), (Some(1), &json!(412)));
}

#[test]
fn an_answer_that_breaks_off_or_means_nothing_is_exit_code_2() {
    for (answer, told) in [
        ("", "closed the connection before it was done"),
        ("{\"answer\":\"segm", "cannot understand the service's answer"),
        ("{\"answer\":\"coffee\"}\n", "cannot understand the service's answer"),
    ] {
        let output = run_against(answer, &["queue", "verify"]);
        assert_eq!(output.status.code(), Some(2), "{answer}");
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
    }
}

#[test]
fn an_event_cannot_move_the_cursor_of_a_terminal() {
    let line = "{\"answer\":\"letter-line\",\"id\":1,\"died_at\":\"2026-01-02T03:04:05Z\",\"destination\":\"crm\",\
                \"type\":\"track\",\"name\":\"\\u001b[2Jx\\ny\",\"user\":null,\"reason\":\"mapping\",\"attempts\":1}\n\
                {\"answer\":\"done\"}\n";
    let output = run_against(line, &["dead-letters", "list"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!output.stdout.contains(&0x1b) && stdout(&output).lines().count() == 2, "{}", stdout(&output));
}

#[tokio::test]
async fn events_of_the_log_are_exported_as_they_are_stored() {
    let app = TestApp::start("[destinations.crm]\ntype = \"stdout\"\n[destinations.keeper]\ntype = \"stdout\"\n").await;
    assert!(app.reload("[destinations.crm]\ntype = \"stdout\"\n").await);
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("c.sock");
    let stop = CancellationToken::new();
    let listener = socket::listen(&control).await.unwrap();
    tokio::spawn(socket::serve(listener, Arc::clone(&app.app.desk), stop.clone()));
    app.track_with("u1", "One", json!({ "price": 1.10 })).await;
    app.track("u2", "Two").await;
    app.quiet().await;

    let export = async |arguments: &'static [&str]| {
        let (folder, control) = (folder.path().to_owned(), control.display().to_string());
        let command = move || run(&folder, &[&["queue", "export", "--control", &control], arguments].concat());
        let output = tokio::task::spawn_blocking(command).await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    let events: Vec<String> = export(&[]).await.lines().map(str::to_owned).collect();
    assert_eq!(events.len(), 2);
    assert!(events[0].contains("\"event\":\"One\"") && events[1].contains("\"event\":\"Two\""), "{events:?}");
    let wrapped = export(&["--with-meta", "--where", "$.userId == 'u2'"]).await;
    let wrapped_value: Value = serde_json::from_str(&wrapped).unwrap();
    assert_eq!(keys(&wrapped_value), ["offset", "source", "received_at", "event"]);
    assert_eq!((&wrapped_value["offset"], &wrapped_value["source"]), (&json!(1), &json!("test")));
    assert!(wrapped.contains(&events[1]), "the event's text is not touched");
    stop.cancel();
}

#[tokio::test]
async fn a_replay_tells_its_numbers() {
    let served = Served::start("");
    let told = &served.json(&["replay", "--destination", "crm", "--since", "2h", "--dry-run"])[0];
    assert_eq!((&told["destination"], &told["dry_run"], &told["put_back"]), (&json!("crm"), &json!(true), &json!(0)));
    let told = served.answer(&["replay", "--destination", "crm"]);
    assert!(told.starts_with("0 events put back for crm\n"), "{told}");
    let unknown = served.run(&["replay", "--destination", "crn"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("help: it has: crm"), "{}", stderr(&unknown));
}

#[test]
fn wrong_arguments_are_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["dead-letters"][..],
        &["dead-letters", "show"],
        &["dead-letters", "show", "x"],
        &["dead-letters", "list", "--since", "yesterday"],
        &["replay"],
        &["replay", "--destination", "crm", "--rate", "fast"],
        &["queue", "look"],
        &["dead-letters", "list"],
    ] {
        assert_eq!(run(folder.path(), arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn every_command_has_examples_in_its_help() {
    let folder = tempfile::tempdir().unwrap();
    for command in [
        &["dead-letters"][..],
        &["dead-letters", "list"],
        &["dead-letters", "show"],
        &["dead-letters", "replay"],
        &["dead-letters", "purge"],
        &["replay"],
        &["queue"],
        &["queue", "inspect"],
        &["queue", "verify"],
        &["queue", "export"],
    ] {
        let help = run(folder.path(), &[command, &["--help"]].concat());
        assert_eq!(help.status.code(), Some(0));
        let example = format!("\nExamples:\n  libroseg {}", command.join(" "));
        assert!(stdout(&help).contains(&example), "{command:?}: {}", stdout(&help));
    }
}

#[test]
fn a_queue_in_memory_has_nothing_to_open_when_no_service_runs() {
    let folder = tempfile::tempdir().unwrap();
    let server = "[server]\ncontrol = \"control.sock\"\n";
    let lines = format!("{HEAD_IN_MEMORY}[destinations.crm]\ntype = \"stdout\"\n");
    std::fs::write(folder.path().join("libroseg.toml"), format!("{server}{lines}")).unwrap();
    let output = run(folder.path(), &["queue", "inspect"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no service listens at control.sock"), "{}", stderr(&output));

    std::fs::write(
        folder.path().join("libroseg.toml"),
        format!("{HEAD_IN_MEMORY}[destinations.crm]\ntype = \"stdout\"\n"),
    )
    .unwrap();
    let output = run(folder.path(), &["queue", "inspect"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("add `control = \"control.sock\"` to [server]"), "{}", stderr(&output));
}

#[tokio::test]
async fn the_page_about_operations_shows_what_the_commands_answer() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "control.sock", "[destinations.crm]\ntype = \"stdout\"\n");
    let stop = CancellationToken::new();
    let listener = socket::listen(&folder.path().join("control.sock")).await.unwrap();
    tokio::spawn(socket::serve(listener, Arc::new(example().await), stop.clone()));

    let page = include_str!("../../docs/operations.md");
    let mut shown = String::new();
    for (index, part) in page.split("```console\n$ ").enumerate() {
        let Some((block, rest)) = part.split_once("```\n").filter(|_| index > 0) else {
            shown += part;
            continue;
        };
        let command = block.lines().next().unwrap().to_owned();
        let answer = typed(folder.path(), &command).await;
        shown.extend(["```console\n$ ", &command, "\n", &answer, "```\n", rest]);
    }
    assert!(shown == page, "the page should be:\n{shown}");
    stop.cancel();
}

/// What a line typed into a shell answers.
async fn typed(folder: &Path, line: &str) -> String {
    let is_quoted = |index: usize| index % 2 == 1;
    let split = |(index, part): (usize, &str)| -> Vec<String> {
        if is_quoted(index) { vec![part.to_owned()] } else { part.split_whitespace().map(str::to_owned).collect() }
    };
    let words: Vec<String> = line.split('"').enumerate().flat_map(split).collect();
    let folder = folder.to_owned();
    let command = move || run(&folder, &words.iter().skip(1).map(String::as_str).collect::<Vec<_>>());
    stdout(&tokio::task::spawn_blocking(command).await.unwrap())
}

// === a queue whose service is stopped ===

/// Two destinations, of which `crm` refuses an event without an email.
const STRICT: [&str; 2] = ["{{ properties.email | required }}", "by the first rules"];

/// The same, corrected.
const CORRECTED: [&str; 2] = ["{{ properties.email or 'none' }}", "by the corrected rules"];

fn write_rules(folder: &Path, fake: &Fake, [email, rules]: [&str; 2]) {
    let destination = |name: &str, field: &str, template: &str| {
        let body = format!("{{ {field} = \"{template}\", event = \"{{{{ event }}}}\" }}");
        format!("[destinations.{name}]\nurl = \"{}/{name}\"\nbody = {body}\n", fake.url())
    };
    write(folder, "control.sock", &(destination("crm", "email", email) + &destination("warehouse", "rules", rules)));
}

/// A service that gave up on three events for `crm`, and delivered them to `warehouse`.
async fn with_letters_and_deliveries() -> Served {
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::start());
    write_rules(folder.path(), &fake, STRICT);
    let served = Served::with_file(folder, fake);
    for event in ["One", "Two", "Three"] {
        served.track(event).await;
    }
    served.has_books("crm", "all are dead letters", |books| books["dead"] == 3).await;
    served.has_books("warehouse", "all are delivered", |books| books["delivered"] == 3).await;
    served
}

/// What every question is answered, without what is told of the service itself.
fn answers_to_everything(folder: &Path) -> Vec<Vec<Value>> {
    // Listing the letters waits until what became of events is written: a kill changes nothing after that.
    let letters = json_lines(folder, &["dead-letters", "list"]);
    let show = letters.iter().map(|letter| json_lines(folder, &["dead-letters", "show", &letter["id"].to_string()]));
    let shown: Vec<Vec<Value>> = show.collect();
    let mut state = json_lines(folder, &["queue", "inspect"]);
    state[0].as_object_mut().unwrap().remove("is_served");
    let others = [
        &["dead-letters", "list", "--reason", "mapping", "--where", "$.event == 'Two'"][..],
        &["dead-letters", "replay", "--dry-run"],
        &["dead-letters", "replay", "--destination", "crm", "--dry-run", "--rate", "1/s"],
        &["dead-letters", "purge", "--all", "--dry-run"],
        &["replay", "--destination", "crm", "--dry-run"],
        &["replay", "--destination", "warehouse", "--dry-run", "--where", "$.event != 'Two'"],
        &["queue", "verify"],
        &["queue", "export"],
        &["queue", "export", "--with-meta", "--since", "1h"],
    ];
    let others = others.iter().map(|arguments| json_lines(folder, arguments));
    [letters, state].into_iter().chain(shown).chain(others).collect()
}

/// Mistakes, with their exit codes.
fn mistakes(folder: &Path) -> Vec<(Option<i32>, String)> {
    let mistakes = [
        &["dead-letters", "show", "9999"][..],
        &["dead-letters", "replay", "9999"],
        &["dead-letters", "purge", "9999", "--yes"],
        &["dead-letters", "list", "--destination", "crn"],
        &["replay", "--destination", "crn"],
        &["queue", "export", "--where", "$.event = 1"],
    ];
    let told = |output: Output| (output.status.code(), stderr(&output));
    mistakes.iter().map(|arguments| told(run(folder, arguments))).collect()
}

async fn a_stopped_queue_serves_every_command(end: End) {
    let served = with_letters_and_deliveries().await;
    let beside = answers_to_everything(served.folder.path());
    let mistaken = mistakes(served.folder.path());
    let codes: Vec<Option<i32>> = mistaken.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [1, 1, 1, 2, 2, 2].map(Some));

    let (folder, fake) = served.end(end);
    let path = folder.path();
    assert_eq!(answers_to_everything(path), beside);
    assert_eq!(mistakes(path), mistaken);
    assert_eq!(json_lines(path, &["queue", "inspect"])[0]["is_served"], false);
    for command in [&["dead-letters", "replay"][..], &["replay", "--destination", "warehouse"]] {
        let paced = run(path, &[command, &["--rate", "10/s"]].concat());
        assert_eq!((paced.status.code(), stdout(&paced).as_str()), (Some(2), ""), "{command:?}");
        assert!(stderr(&paced).contains("no service runs") && stderr(&paced).contains("leave `--rate` out"));
    }
    assert_eq!(answers_to_everything(path), beside, "what was refused did nothing");

    let only = |event: &str| format!("$.event == '{event}'");
    let purged = answer(path, &["dead-letters", "purge", "--where", &only("Three"), "--yes"]);
    assert_eq!(purged, "1 dead letter forgotten\n  crm: 1\n");
    let replayed = run(path, &["dead-letters", "replay", "--where", &only("One")]);
    assert_eq!(stdout(&replayed), "1 dead letter put back\n  crm: 1\n");
    assert_eq!(stderr(&replayed), "note: no service runs: 1 event will be sent when it starts\n");
    let replayed = run(path, &["replay", "--destination", "warehouse", "--where", &only("Two")]);
    assert!(stdout(&replayed).starts_with("1 event put back for warehouse\n"), "{}", stdout(&replayed));
    assert_eq!(stderr(&replayed), "note: no service runs: 1 event will be sent when it starts\n");
    assert_eq!(fake.requests().len(), 3, "a command sends nothing");

    write_rules(path, &fake, CORRECTED);
    let served = Served::with_file(folder, fake);
    served.has_books("crm", "what was put back is delivered", |books| books["delivered"] == 1).await;
    served.has_books("warehouse", "what was put back is delivered", |books| books["delivered"] == 4).await;
    let sent = |path: &str| -> Vec<Value> {
        let of = |request: &Recorded| request.path == path;
        served.fake.requests().into_iter().filter(of).map(|request| request.body).collect()
    };
    assert_eq!(sent("/crm"), [json!({ "email": "none", "event": "One" })]);
    let warehouse = sent("/warehouse");
    assert_eq!(warehouse.len(), 4);
    assert_eq!(warehouse[3], json!({ "rules": CORRECTED[1], "event": "Two" }));
    let left = served.json(&["dead-letters", "list"]);
    assert_eq!((left.len(), &left[0]["name"]), (1, &json!("Two")));
}

#[tokio::test]
async fn a_queue_whose_service_ended_answers_as_beside_it_and_what_is_put_back_arrives_after_the_start() {
    a_stopped_queue_serves_every_command(End::Terminated).await;
}

#[tokio::test]
async fn a_queue_whose_service_was_killed_answers_as_beside_it_and_what_is_put_back_arrives_after_the_start() {
    a_stopped_queue_serves_every_command(End::Killed).await;
}

/// Changes a byte of the log's only file, in the middle of a text. Answers the file's name and the byte's place.
fn damage(folder: &Path, text: &str) -> (String, u64) {
    let files = std::fs::read_dir(folder.join("queue")).unwrap().map(|entry| entry.unwrap().path());
    let mut logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let (log, None) = (logs.next().unwrap(), logs.next()) else { panic!("there are several files") };
    let mut bytes = std::fs::read(&log).unwrap();
    let position = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[position] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    (log.file_name().unwrap().to_str().unwrap().to_owned(), position as u64)
}

#[tokio::test]
async fn a_damaged_byte_is_told_with_its_file_and_place_and_everything_else_is_delivered() {
    let served = Served::start("body = { event = \"{{ event }}\" }");
    served.fake.then_always(Answer::hang());
    for event in ["Number One", "Number Two", "Number Three"] {
        served.track(event).await;
    }
    let (folder, fake) = served.end(End::Killed);
    let (name, position) = damage(folder.path(), "Number Two");

    let verified = run(folder.path(), &["queue", "verify"]);
    assert_eq!(verified.status.code(), Some(1), "{}", stderr(&verified));
    assert!(stderr(&verified).ends_with("\n1 segment, 2 events, 1 damaged place\n"), "{}", stderr(&verified));
    let told = stdout(&verified);
    assert!(told.starts_with(&format!("{name}: 2 events, ")), "{told}");
    let (_, place) = told.split_once("\n  damaged at byte ").unwrap();
    let (group, events) = place.split_once(": ").unwrap();
    assert_eq!(events, "events 1 to 1\n");
    // What is damaged is the group that the byte is in: an event of some 400 bytes.
    assert!((position.saturating_sub(1000)..position).contains(&group.parse().unwrap()), "{told}, not {position}");
    let exported = run(folder.path(), &["queue", "export"]);
    assert_eq!((exported.status.code(), stdout(&exported).lines().count()), (Some(1), 2));
    assert!(stderr(&exported).contains("1 event could not be read"), "{}", stderr(&exported));

    let before = fake.requests().len();
    fake.then_always(Answer::status(200));
    let served = Served::with_file(folder, fake);
    served.track("Number Four").await;
    let is_over = |books: &Value| books["waiting"] == 0 && books["accepted"] == 4;
    served.has_books("crm", "the rest is delivered", is_over).await;
    let books = served.books("crm").await;
    assert_eq!((&books["damaged"], &books["delivered"]), (&json!(1), &json!(3)), "{books}");
    let mut sent: Vec<Value> = served.fake.bodies()[before..].iter().map(|body| body["event"].clone()).collect();
    sent.sort_by_key(Value::to_string);
    assert_eq!(sent, ["Number Four", "Number One", "Number Three"]);
    assert_eq!(served.json(&["queue", "inspect"])[0]["damaged"], 1);
    assert_eq!(served.run(&["queue", "verify"]).status.code(), Some(1));
}

#[tokio::test]
async fn a_queue_that_a_process_without_a_socket_has_open_is_left_to_it() {
    let served = Served::start("");
    std::fs::remove_file(served.socket()).unwrap();
    for arguments in [
        &["queue", "inspect"][..],
        &["queue", "verify"],
        &["dead-letters", "list"],
        &["dead-letters", "purge", "--all", "--yes"],
        &["replay", "--destination", "crm"],
    ] {
        let output = served.run(arguments);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{arguments:?}");
        assert!(stderr(&output).contains("another process uses the queue"), "{}", stderr(&output));
        assert!(stderr(&output).contains("no service listens at control.sock"), "{}", stderr(&output));
    }
    served.track("Any").await;
    served.fake.has(1).await;
}

// === a replay that is ended ===

#[tokio::test]
async fn a_replay_that_is_interrupted_ends_and_what_it_put_back_arrives() {
    const EVENTS: u64 = 3000;
    let served = Served::start("body = { id = \"{{ messageId }}\" }\nbatch = { max_events = 100, max_age = \"20ms\" }");
    for batch in (0..EVENTS).collect::<Vec<u64>>().chunks(1000) {
        let event = |n: &u64| json!({ "type": "track", "userId": "u1", "event": "Any", "messageId": format!("m{n}") });
        let body = json!({ "batch": batch.iter().map(event).collect::<Vec<Value>>() });
        let request = client().post(format!("{}/v1/batch", served.binary.url)).basic_auth(KEY, Some(""));
        assert_eq!(request.body(body.to_string()).send().await.unwrap().status().as_u16(), 200);
    }
    served.has_books("crm", "all are delivered", |books| books["delivered"] == EVENTS).await;

    // At this rate it would take longer than any test has patience.
    let mut command = Binary::command();
    command.args(["replay", "--destination", "crm", "--rate", "20/s"]).current_dir(served.folder.path());
    let mut replay = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    served.has_books("crm", "some are put back", |books| books["accepted"].as_u64().unwrap() >= EVENTS + 2).await;
    let interrupt = std::process::Command::new("kill").args(["-INT", &replay.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    assert_eq!(replay.wait().unwrap().signal(), Some(2), "nobody takes the signal from it");
    served.has_books("crm", "what was put back is delivered", |books| books["waiting"] == 0).await;

    let (folder, fake) = served.end(End::Terminated);
    let served = Served::with_file(folder, fake);
    served.has_books("crm", "nothing is left", |books| books["waiting"] == 0).await;
    let books = served.books("crm").await;
    let accepted = books["accepted"].as_u64().unwrap();
    assert!((EVENTS + 2..2 * EVENTS).contains(&accepted), "{books}");
    assert_eq!(books["delivered"], accepted, "{books}");
    let received: usize = served.fake.bodies().iter().map(|body| body.as_array().map_or(1, Vec::len)).sum();
    assert_eq!(received as u64, accepted, "each as often as it was put in");
}

// === the socket ===

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_goes_with_the_service() {
    let mut served = Served::start("");
    let file = std::fs::metadata(served.socket()).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);

    served.answer(&["queue", "inspect"]);
    served.binary.signal("TERM");
    assert!(served.binary.wait().success(), "{}", served.binary.log());
    assert!(!served.socket().exists());
}

#[tokio::test]
async fn a_service_is_asked_without_its_file_by_naming_the_socket() {
    let served = Served::start("");
    let elsewhere = tempfile::tempdir().unwrap();
    let control = served.socket().display().to_string();
    let output = run(elsewhere.path(), &["queue", "inspect", "--control", &control]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = run(elsewhere.path(), &["queue", "inspect"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("`--control PATH` asks a running service"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_socket_that_a_dead_process_left_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists() && UnixStream::connect(&path).is_err());

    let listener = socket::listen(&path).await.unwrap();

    assert!(UnixStream::connect(&path).is_ok());
    assert!(matches!(socket::listen(&path).await, Err(socket::ListenError::Taken { .. })), "one that lives is not");
    drop(listener);
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(socket::listen(&path).await, Err(socket::ListenError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_path_that_is_too_long_is_told_and_events_flow_all_the_same() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    let deep = HEAD.replace("\"queue\"", &format!("\"{}\"", "x".repeat(120)));
    let text = format!("[server]\nlisten = \"127.0.0.1:0\"\n{deep}[destinations.crm]\nurl = \"{}\"\n", fake.url());
    std::fs::write(&path, text).unwrap();
    let served = Served { binary: Binary::start(&path), folder, fake };
    let log = served.binary.log();
    assert!(log.contains("too long for a socket") && log.contains("need the service stopped"), "{log}");
    served.track("Any").await;
    served.fake.has(1).await;
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_the_next_is_served() {
    let served = Served::start("");
    let ask = |line: &[u8]| -> String {
        let mut stream = UnixStream::connect(served.socket()).unwrap();
        // The service may have heard enough before all is written.
        let _ = stream.write_all(line);
        let mut answer = String::new();
        let _ = BufReader::new(stream).read_line(&mut answer);
        answer
    };
    for line in
        [&b"{\"ask\":\"make-coffee\"}\n"[..], b"hello\n", b"\xff\xfe\n", b"{\"ask\":\"letter\",\"id\":-1}\n", b"\n"]
    {
        let answer: Value = serde_json::from_str(&ask(line)).unwrap();
        assert_eq!((&answer["answer"], &answer["fault"]), (&json!("failed"), &json!("unable")));
        assert!(answer["message"].as_str().unwrap().contains("does not understand the request"), "{answer}");
    }
    let endless = ask(&vec![b'x'; (1 << 20) + 1]);
    assert!(endless.is_empty() || endless.contains("one line of up to"), "{endless}");
    assert!(ask(b"{\"ask\":\"inspect\"}\n").contains("\"answer\":\"queue\""));
}

#[tokio::test]
async fn an_error_stream_that_nobody_reads_changes_no_exit_code() {
    let served = Served::start("");
    for (arguments, expected) in [
        (vec!["queue", "verify"], 0),
        (vec!["dead-letters", "list"], 0),
        (vec!["dead-letters", "show", "7"], 1),
        (vec!["replay", "--destination", "crn"], 2),
        (vec!["--check", "missing.toml"], 2),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Binary::command();
        command.args(&arguments).current_dir(served.folder.path()).stdin(Stdio::null());
        let status = command.stdout(Stdio::null()).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(expected), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_command_that_goes_away_ends_its_work() {
    let app = TestApp::start(
        "[destinations.crm]\nurl = \"http://127.0.0.1:1\"\nbody = \"{{ properties.nothing | required }}\"\n",
    )
    .await;
    app.track_many(50).await;
    app.quiet().await;
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("c.sock");
    let stop = CancellationToken::new();
    let desk = Arc::clone(&app.app.desk);
    let listener = socket::listen(&control).await.unwrap();
    let serving = tokio::spawn(socket::serve(listener, Arc::clone(&desk), stop.clone()));
    let idle = Arc::strong_count(&desk);

    let request = Request::ReplayLetters { which: Which::default(), rate: Some(1.0), dry_run: false };
    let mut answers = socket::call(&control, &request).await.unwrap();
    assert!(answers.recv().await.is_some(), "it has begun");
    assert_eq!(Arc::strong_count(&desk), idle + 1);
    drop(answers);

    eventually("nobody works on it", || Arc::strong_count(&desk) == idle).await;
    stop.cancel();
    serving.await.unwrap();
    assert!(!control.exists());
}
