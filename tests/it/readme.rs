//! What README.md and docs/ say is so: every block is run, every table that can be checked is.
//!
//! The word after a block's language says what is done with it; a block of a kind that nobody knows fails. The blocks
//! with SDKs need what `tests/sdks/install.sh` installs. Without it a test says so and passes, except in CI.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use libroseg::config::presets::PRESETS;
use libroseg::config::{self, Code, Diagnostic, Environment, Style};
use libroseg::event::{Message, SourceName};
use libroseg::expr::filter::{CONDITIONS, CONDITIONS_OF, Filter};
use libroseg::expr::functions::{ENGINE_FILTERS, ENGINE_FUNCTIONS, ENGINE_TESTS, EngineEntry};
use libroseg::expr::template::Template;
use libroseg::expr::{Names, Omit, Scope};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::tools::{has_chromium, has_node, python, sdks};
use crate::support::{Answer, Binary, Fake, PATIENCE};

/// The blocks of README.md, each run by a test of this file.
const README_BLOCKS: [&str; 27] = [
    "sh start",
    "sh curl",
    "json reply",
    "sh file",
    "json event",
    "js node",
    "text node",
    "python python",
    "js browser",
    "toml server",
    "html browser",
    "sh library",
    "text library",
    "toml destination",
    "text reloaded",
    "sh identify",
    "http request",
    "toml wrong",
    "sh check",
    "text picture",
    "toml test",
    "sh test",
    "text tested",
    "sh explain",
    "text explained",
    "sh list",
    "text listed",
];

/// The pages whose links are followed.
const PAGES: [&str; 10] = [
    "README.md",
    "docs/checking.md",
    "docs/config.md",
    "docs/containers.md",
    "docs/delivery.md",
    "docs/metrics.md",
    "docs/operations.md",
    "docs/reference.md",
    "docs/vercel.md",
    "docs/wire-contract.md",
];

// === pages ===

/// A fenced block.
struct Block {
    /// Language and the word after it.
    kind: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.push(Block { kind: kind.to_owned(), text: text.join("\n") + "\n" });
    }
    blocks
}

/// The one block of README.md of this kind.
fn readme(kind: &str) -> String {
    let found: Vec<Block> = blocks(&page("README.md")).into_iter().filter(|block| block.kind == kind).collect();
    let [block] = <[Block; 1]>::try_from(found).unwrap_or_else(|_| panic!("not exactly one block `{kind}`"));
    block.text
}

/// What stands under a heading.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    rest.split("\n## ").next().unwrap()
}

/// The rows of a table, cell by cell, without its head.
fn rows(text: &str) -> impl Iterator<Item = Vec<String>> {
    text.lines().take_while(|line| line.starts_with('|')).skip(2).map(cells)
}

fn cells(row: &str) -> Vec<String> {
    let unescaped = row.replace("\\|", "\u{0}");
    let inner = unescaped.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|cell| cell.trim().trim_matches('`').trim().replace('\u{0}', "|")).collect()
}

/// The pieces in backticks.
fn code_spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

// === a running Libroseg ===

/// The binary in a folder of its own, as after a clone.
struct Served {
    binary: Binary,
    folder: TempDir,
}

impl Served {
    fn start(config: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libroseg.toml");
        fs::write(&path, config).unwrap();
        std::os::unix::fs::symlink(sdks().join("node_modules"), folder.path().join("node_modules")).unwrap();
        let binary = Binary::start_with(&path, &[&[("PORT", "0")], variables].concat());
        Self { binary, folder }
    }

    fn address(&self) -> String {
        self.binary.url.replace("http://0.0.0.0:", "127.0.0.1:")
    }

    /// A block with this server's address, as a file in its folder.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text.replace("localhost:8080", &self.address())).unwrap();
        path
    }

    /// What a program prints in its folder.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path()).env("NO_PROXY", "127.0.0.1");
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {}{error}\n{}", stdout(&output), self.binary.log());
        stdout(&output)
    }

    fn sh(&self, script: &str) -> String {
        self.run("sh", &["-c", &script.replace("localhost:8080", &self.address())])
    }

    /// The lines of the data file, once there are so many.
    fn events(&self, count: usize) -> Vec<Value> {
        let read = || -> Vec<Value> {
            let entries = fs::read_dir(self.folder.path().join("data")).into_iter().flatten();
            // The queue's folder is there as well.
            let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
            let text: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
        };
        wait_until("the events are in the file", || read().len() >= count);
        read()
    }

    /// The event of the snippets is in the file, with the SDK's name as the README shows it.
    fn has_the_event_of(&self, library: &str, count: usize) {
        for event in self.events(count) {
            assert_eq!(event["event"], "Order Completed", "{event}");
            assert_eq!(event["properties"]["total"], 42.5, "{event}");
        }
        let line = format!("\"library\":{{\"name\":\"{library}\"");
        assert!(readme("text library").lines().any(|shown| shown == line), "{line} is not shown");
        assert_eq!(self.sh(&readme("sh library")), format!("{line}\n").repeat(count));
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The shipped file.
fn shipped() -> String {
    page("libroseg.toml")
}

// === README.md ===

#[test]
fn every_block_of_the_readme_is_run() {
    let kinds: Vec<String> = blocks(&page("README.md")).into_iter().map(|block| block.kind).collect();
    assert_eq!(kinds, README_BLOCKS);
}

#[test]
fn the_two_commands_are_cargos_own() {
    let start = readme("sh start");
    let commands: Vec<&str> = start.lines().map(|line| line.split('#').next().unwrap().trim()).collect();
    assert_eq!(commands, ["cargo run --release", "cargo test"]);
    // One binary, or `cargo run` would ask which.
    assert_eq!(page("Cargo.toml").matches("[[bin]]").count(), 1);
}

#[test]
fn the_first_event_is_answered_and_written_as_shown() {
    let served = Served::start(&shipped(), &[]);
    assert_eq!(served.sh(&readme("sh curl")), readme("json reply").trim_end());
    served.events(1);
    let event = |text: &str| without_particulars(serde_json::from_str(text).unwrap());
    assert_eq!(event(&served.sh(&readme("sh file"))), event(&readme("json event")));
}

/// The event's text, with only the shape of its id and times.
fn without_particulars(mut event: Value) -> String {
    for key in ["messageId", "originalTimestamp", "timestamp", "receivedAt"] {
        let shape: String =
            event[key].as_str().unwrap().chars().map(|c| if c.is_ascii_hexdigit() { 'x' } else { c }).collect();
        event[key] = shape.into();
    }
    event.to_string()
}

#[test]
fn the_node_snippet_delivers() {
    if !has_node() {
        return;
    }
    let served = Served::start(&shipped(), &[]);
    served.write("snippet.mjs", &readme("js node"));
    assert_eq!(served.run("node", &["snippet.mjs"]), readme("text node"));
    served.has_the_event_of("@segment/analytics-node", 1);
}

#[test]
fn the_python_snippet_delivers() {
    let Some(python) = python() else { return };
    let served = Served::start(&shipped(), &[]);
    served.write("snippet.py", &readme("python python"));
    assert_eq!(served.run(python.to_str().unwrap(), &["snippet.py"]), "");
    served.has_the_event_of("analytics-python", 1);
}

#[test]
fn the_browser_snippets_deliver() {
    if !has_node() {
        return;
    }
    if !has_chromium() {
        return;
    }
    let served = Served::start(&shipped().replace("[server]\n", &readme("toml server")), &[]);
    served.write("bundled.mjs", &readme("js browser"));
    served.write("page.html", &readme("html browser"));
    let driver = sdks().join("readme.mjs");
    let folder = served.folder.path().to_str().unwrap();
    served.run("node", &[driver.to_str().unwrap(), "--endpoint", &format!("http://{}", served.address()), folder]);
    served.has_the_event_of("analytics.js", 2);
}

#[test]
fn the_destination_takes_effect_while_it_runs_and_makes_the_request_shown() {
    let destination = readme("toml destination");
    assert!(destination.lines().count() <= 15, "a destination fits into 15 lines");
    let served = Served::start(&shipped(), &[("CRM_TOKEN", "secret")]);
    let crm = Fake::start();

    let longer = format!("{}\n{}", shipped(), destination.replace("https://crm.example.com", &crm.url()));
    fs::write(served.folder.path().join("libroseg.toml"), longer).unwrap();
    let folder = format!("{}/", served.folder.path().display());
    let shown = readme("text reloaded");
    wait_until("the file is taken up", || served.binary.log().replace(&folder, "").contains(shown.trim_end()));

    // The line is logged a moment before the new destination has its place: it gets what is accepted from then on.
    wait_until("the request is made", || {
        served.sh(&readme("sh identify"));
        std::thread::sleep(Duration::from_millis(200));
        !crm.requests().is_empty()
    });
    let request = &crm.requests()[0];
    let header = |name: &str| request.headers[name].to_str().unwrap();
    let drawn = format!(
        "{} {}\nauthorization: {}\ncontent-type: {}\n\n{}\n",
        request.method,
        request.path,
        header("authorization"),
        header("content-type"),
        request.wire
    );
    assert_eq!(drawn, readme("http request"));
}

#[test]
fn the_picture_of_the_check_is_the_one_shown() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("wrong.toml"), readme("toml wrong")).unwrap();
    let command = readme("sh check");
    let words: Vec<&str> = command.split_whitespace().collect();
    assert_eq!(words[0], "libroseg");
    let output = Binary::command().args(&words[1..]).env_remove("COLUMNS").current_dir(folder.path()).output().unwrap();
    assert_eq!(stdout(&output), readme("text picture"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_test_fails_as_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libroseg.toml");
    fs::write(&file, format!("{}\n{}", readme("toml destination"), readme("toml test"))).unwrap();
    let command = readme("sh test");
    let words: Vec<&str> = command.split_whitespace().collect();
    assert_eq!(words[0], "libroseg");
    let output = Binary::command().args(&words[1..]).env_clear().current_dir(folder.path()).output().unwrap();
    assert_eq!(stdout(&output), readme("text tested"));
}

#[test]
fn an_event_is_explained_as_shown() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("libroseg.toml"), readme("toml destination")).unwrap();
    let binary = Binary::command().get_program().to_owned();
    let script = readme("sh explain").replace("libroseg explain", &format!("{} explain", binary.to_str().unwrap()));
    let output = Command::new("sh").args(["-c", &script]).env_remove("CRM_TOKEN").current_dir(folder.path()).output();
    assert_eq!(stdout(&output.unwrap()), readme("text explained"));
}

#[test]
fn the_tests_of_the_reference_pass() {
    let text = blocks(&page("docs/config.md")).into_iter().find(|block| block.text.contains("[[tests]]")).unwrap().text;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("libroseg.toml"), text).unwrap();
    let output = Binary::command().arg("test").current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
}

#[test]
fn a_dead_letter_is_listed_as_shown() {
    let crm = Fake::start();
    crm.then_always(Answer::status(422));
    let destination = readme("toml destination").replace("https://crm.example.com", &crm.url());
    let served = Served::start(&format!("{}\n{destination}", shipped()), &[("CRM_TOKEN", "secret")]);
    served.sh(&readme("sh identify"));
    let command = readme("sh list");
    let words: Vec<&str> = command.split_whitespace().skip(1).collect();
    let list = || {
        let mut command = Binary::command();
        command.args(&words).env("CRM_TOKEN", "secret").env_remove("COLUMNS").current_dir(served.folder.path());
        without_times(&stdout(&command.output().unwrap()))
    };
    wait_until("the event is given up on", || list().contains("status"));
    assert_eq!(list(), without_times(&readme("text listed")));
}

/// The text with every digit of a time as `x`.
fn without_times(text: &str) -> String {
    let masked = |word: &str| word.chars().map(|c| if c.is_ascii_digit() { 'x' } else { c }).collect::<String>();
    let word = |word: &str| if word.ends_with('Z') && word.contains('T') { masked(word) } else { word.to_owned() };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_commands_and_variables_are_those_of_the_help() {
    let help = stdout(&Binary::command().arg("--help").output().unwrap());
    let readme = page("README.md");
    let told = section(&readme, "## Commands and variables");
    let words = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
        let is_ours = |word: &&str| word.starts_with("--") || word.starts_with("LIBROSEG_");
        words.filter(is_ours).map(str::to_owned).collect()
    };
    let mut expected = words(&help);
    // Every program has these two; the other is the shipped file's own.
    expected.retain(|word| word != "--help" && word != "--version");
    expected.insert("LIBROSEG_WRITE_KEY".to_owned());
    assert_eq!(words(&code_spans(told).join(" ")), expected);
    for command in [
        "serve",
        "check",
        "doctor",
        "test",
        "explain",
        "init",
        "config",
        "dead-letters",
        "replay",
        "queue",
        "healthcheck",
    ] {
        assert!(
            told.contains(&format!("`libroseg {command}")) && help.contains(&format!("\n  {command} ")),
            "{command}"
        );
    }
    assert!(shipped().contains("env.LIBROSEG_WRITE_KEY | default('dev_write_key')"));
}

// === docs/config.md ===

/// Variables of the page that are not any text.
const VALUES: [(&str, &str); 4] = [
    ("BIGQUERY_CREDENTIALS", include_str!("../fixtures/auth/service-account.json")),
    ("BIGQUERY_DATASET", "events"),
    ("WHSEC", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("GOOGLE_CREDENTIALS", include_str!("../fixtures/auth/service-account.json")),
];

/// What a file of the page holds.
fn secret_file(path: &Path) -> String {
    let is_googles = path.ends_with("google.json");
    if is_googles { include_str!("../fixtures/auth/external-file.json") } else { "a secret\n" }.to_owned()
}

/// Compiles with every variable and secret's file that the text or a preset names.
fn compile(text: &str) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let is_part = |c: &char| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_';
    let texts = [text].into_iter().chain(PRESETS.iter().map(|preset| preset.text));
    let names = texts.flat_map(|text| text.split("env.").skip(1));
    let names = names.map(|rest| rest.chars().take_while(is_part).collect::<String>());
    let value = |name: &str| {
        let of_its_own = VALUES.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        of_its_own.unwrap_or_else(|| format!("value-of-{name}"))
    };
    let variables: BTreeMap<_, _> = names.map(|name| (name.clone(), value(&name))).collect();
    let environment = Environment { variables, read_file: &|path| Ok(secret_file(path)), ..Environment::default() };
    config::compile(text, &environment).map(|compiled| compiled.warnings)
}

fn draw(text: &str, diagnostics: &[Diagnostic]) -> String {
    config::draw("libroseg.toml", text, diagnostics, Style::Plain, 140)
}

#[test]
fn every_block_of_the_reference_compiles_or_fails_as_shown() {
    let blocks = blocks(&page("docs/config.md"));
    for (position, Block { kind, text }) in blocks.iter().enumerate() {
        match kind.as_str() {
            "toml" => {
                let warnings = compile(text).unwrap_or_else(|errors| panic!("{text}\n{}", draw(text, &errors)));
                let odd = |warning: &&Diagnostic| ![Code::NoSources, Code::NoDestinations].contains(&warning.code);
                let odd: Vec<Diagnostic> = warnings.iter().filter(odd).cloned().collect();
                assert!(odd.is_empty(), "{}", draw(text, &odd));
            }
            "toml wrong" => {
                let next = &blocks[position + 1];
                assert_eq!(next.kind, "text picture");
                assert_eq!(draw(text, &compile(text).unwrap_err()), next.text);
            }
            "toml later" => check_later(text),
            "text picture" => assert_eq!(blocks[position - 1].kind, "toml wrong"),
            _ => panic!("a block of a kind that is not tested: {kind}"),
        }
    }
}

/// Every line but those that make the others possible is told to be of a later version.
fn check_later(text: &str) {
    let errors = compile(text).unwrap_err();
    let errors: Vec<_> = errors.iter().filter(|found| found.is_error()).collect();
    assert!(errors.iter().all(|error| error.code == Code::NotAvailable), "{errors:?}");
    let told: BTreeSet<usize> = errors.iter().map(|error| config::line_column(text, error.span.start).0).collect();
    let untold = (1..).zip(text.lines()).filter(|(number, line)| !told.contains(number) && !line.is_empty());
    let untold: Vec<&str> = untold.map(|(_, line)| line.split('=').next().unwrap().trim()).collect();
    let frame = [
        "[queue]",
        "[sources.web]",
        "write_keys",
        "[destinations.a]",
        "url",
        "[destinations.b]",
        "type",
        "credentials",
        "project",
        "dataset",
        "table",
        "row",
    ];
    assert_eq!(untold, frame);
    assert_eq!(errors.len(), told.len());
}

#[test]
fn every_key_of_the_reference_is_in_a_block_that_compiles() {
    let page = page("docs/config.md");
    let toml: String = blocks(&page).iter().filter(|block| block.kind == "toml").map(|b| b.text.as_str()).collect();
    let is_used = |key: &str| {
        let after = |rest: &str| rest.trim_start().starts_with(['=', '.', ']']);
        let is_start = |at: usize| toml[..at].ends_with([' ', '\n', '.', '{', '[']);
        toml.match_indices(key).any(|(at, _)| is_start(at) && after(&toml[at + key.len()..]))
    };
    let mut count = 0;
    for (at, _) in page.match_indices("| key |") {
        for row in rows(&page[at..]) {
            for key in row[0].split("`, `") {
                assert!(is_used(key.rsplit('.').next().unwrap()), "`{key}` is in no block");
                count += 1;
            }
        }
    }
    assert!(count > 60, "only {count} keys were found");
}

#[test]
fn the_reference_is_what_the_code_says_of_itself() {
    let output = Binary::command().arg("reference").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    crate::support::is_current("docs/reference.md", &stdout(&output));
}

#[test]
fn the_references_examples_of_the_engine_are_right() {
    let mut wrong = Vec::new();
    for EngineEntry { name, template, result } in [ENGINE_FILTERS, ENGINE_FUNCTIONS, ENGINE_TESTS].concat() {
        let found = evaluate(template);
        if found != result || !template.contains(name) {
            wrong.push(format!("{template}: {found}, not {result}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn evaluate(template: &str) -> String {
    let value = Arc::new(serde_json::json!({ "type": "track", "properties": {} }));
    let message = Message { source: SourceName::from("web"), value };
    let scope = Scope::event(&Arc::new(Names::default()), &message, Timestamp::UNIX_EPOCH);
    let template = Template::parse(template).unwrap_or_else(|mistakes| panic!("{template}: {mistakes:?}"));
    let mut out = Vec::new();
    match template.write_json(&scope, Omit::Nothing, &mut out) {
        Ok(_) => String::from_utf8(out).unwrap(),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn the_conditions_of_the_reference_hold_as_told() {
    let event: Value = serde_json::from_str(CONDITIONS_OF).unwrap();
    for (condition, holds) in CONDITIONS {
        let filter = Filter::parse(condition).unwrap_or_else(|mistake| panic!("{condition}: {mistake:?}"));
        assert_eq!(filter.matches(&event).unwrap(), *holds, "{condition}");
    }
}

// === all pages ===

#[test]
fn every_link_leads_somewhere() {
    for name in PAGES {
        let text = page(name);
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if target.starts_with("https://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { root().join(name) } else { root().join(name).parent().unwrap().join(path) };
            assert!(file.exists(), "{name}: {target}");
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(&file).unwrap());
                assert!(anchors.contains(anchor), "{name}: {target} is none of {anchors:?}");
            }
        }
    }
}

/// The anchors that GitHub makes of a page's headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let slug = |line: &str| -> String {
        let kept = line.trim_start_matches('#').trim().to_lowercase();
        kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
    };
    headings.map(slug).collect()
}
