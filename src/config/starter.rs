//! A file to begin with: who may send, where events wait, and destinations made from presets.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::codes::Code;
use super::presets::{PRESETS, Preset};
use super::{Diagnostic, Environment, compile};

/// What every file begins with.
const HEAD: &str = r#"# Libroseg: who may send, and where events go. `libroseg --check` checks this file, `libroseg test` runs its tests, and a
# running Libroseg takes up changes by itself. The language: docs/config.md; more destinations: `libroseg init --list`.

[server]
listen = "0.0.0.0:8080"          # PORT and --listen win

# Who may send. Point an SDK at this address with the write key.
[sources.app]
write_keys = ["{{ env.LIBROSEG_WRITE_KEY | default('dev_write_key') }}"]

# Where accepted events wait. On disk, a 200 means that they outlive a crash. `type = "memory"` needs no disk and forgets.
[queue]
type     = "disk"
dir      = "data/queue"          # keep this folder: it is what has not been delivered yet
max_size = "10GB"                # beyond it SDKs hear 503 and hold their events
retain   = "7d"                  # delivered events are kept so long, to be sent again when somebody asks
"#;

/// Where events go when nothing else is wanted.
const ARCHIVE: &str = r#"
# Every event, one JSON line each, so that you see something arrive.
[destinations.archive]
type  = "file"
path  = "data/events-%Y-%m-%d.ndjson"
batch = { max_events = 500, max_age = "1s" }

[[tests]]
name        = "an event is kept as it came"
destination = "archive"
event       = '{ "type": "track", "userId": "user-1", "event": "Signed Up", "properties": { "plan": "pro" } }'
expect      = '[{ "body": [{ "event": "Signed Up", "properties": { "plan": "pro" } }] }]'
"#;

/// A destination of a preset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The preset.
    pub preset: &'static Preset,
    /// What the preset calls it.
    pub destination: String,
    /// What `extends` says of it: `mixpanel`, `many.sales`.
    pub name: String,
}

/// The variables that a destination of a preset reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// Those without which it does not work, unless it is off without them by itself.
    pub needed: Vec<String>,
    /// Those that the preset's file names besides.
    pub optional: Vec<String>,
}

/// What a file may begin with: the destination of every preset, or, where it has several, each of them.
#[must_use]
pub fn choices() -> Vec<Choice> {
    PRESETS.iter().flat_map(choices_of).collect()
}

fn choices_of(preset: &'static Preset) -> Vec<Choice> {
    let document = DeTable::parse_recoverable(preset.text).0.into_inner();
    let tables = document.get("destinations").and_then(|value| value.get_ref().as_table());
    let names: Vec<String> =
        tables.into_iter().flat_map(DeTable::keys).map(|name| name.get_ref().to_string()).collect();
    let own = names.iter().find(|name| names.len() == 1 || **name == preset.name);
    if let Some(own) = own {
        return vec![Choice { preset, destination: own.clone(), name: preset.name.to_owned() }];
    }
    let one_of = |name: String| Choice { preset, name: format!("{}.{name}", preset.name), destination: name };
    names.into_iter().map(one_of).collect()
}

/// A commented file with these destinations, or, without any, with one that keeps every event in a file.
///
/// It passes the check, and its tests, as it is: a destination is off until its variables are set.
#[must_use]
pub fn starter(choices: &[Choice]) -> String {
    let mut text = HEAD.to_owned();
    if choices.is_empty() {
        text.push_str(ARCHIVE);
    }
    for choice in choices {
        text.push('\n');
        text.push_str(&destination(choice));
    }
    text
}

/// The variables of a destination of a preset.
#[must_use]
pub fn variables(choice: &Choice) -> Variables {
    let read_file: &dyn Fn(&Path) -> io::Result<String> = &|_| Err(io::ErrorKind::NotFound.into());
    let environment = Environment { read_file, ..Environment::default() };
    let text = choice.preset.text;
    let unset = compile(text, &environment).err().unwrap_or_default();
    let is_of_it = |found: &&Diagnostic| {
        let rest = found.path.strip_prefix("destinations.").and_then(|rest| rest.strip_prefix(&choice.destination));
        found.code == Code::UnsetVariable && rest.is_some_and(|rest| rest.starts_with('.'))
    };
    let name = |found: &Diagnostic| {
        let name = found.message.strip_prefix("environment variable ")?.strip_suffix(" is not set")?;
        Some(name.to_owned())
    };
    let needed: BTreeSet<String> = unset.iter().filter(is_of_it).filter_map(name).collect();
    let is_part = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let templates = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let read = templates.flat_map(|line| line.split("env.").skip(1));
    let read = read.map(|rest| rest.chars().take_while(is_part).collect::<String>());
    let optional: BTreeSet<String> = read.filter(|name| !name.is_empty() && !needed.contains(name)).collect();
    Variables { needed: needed.into_iter().collect(), optional: optional.into_iter().collect() }
}

fn destination(choice: &Choice) -> String {
    let Variables { needed, optional } = variables(choice);
    let Choice { preset, destination, name } = choice;
    let mut lines = vec![format!("# {}", preset.summary())];
    let listed = |what: &str, names: &[String]| (!names.is_empty()).then(|| format!("# {what}: {}", names.join(", ")));
    lines.extend(listed("Needs", &needed));
    lines.extend(listed("Reads if they are set", &optional));
    lines.push(format!("# What is behind it: `libroseg config --destination {destination}`"));
    lines.push(format!("[destinations.{destination}]"));
    lines.push(format!("extends = \"{name}\""));
    if !needed.is_empty() {
        let all: Vec<String> = needed.iter().map(|name| format!("env.{name}")).collect();
        let when = if needed.len() == 1 { "it is set" } else { "all are set" };
        lines.push(format!("enabled = \"{{{{ {} }}}}\"  # on as soon as {when}", all.join(" and ")));
    }
    let mut text = lines.join("\n") + "\n";
    if let Some(test) = first_test(choice) {
        text.push('\n');
        text.push_str(test);
    }
    text
}

/// The first test that a preset has of its destination, as it is written.
fn first_test(choice: &Choice) -> Option<&'static str> {
    let preset = choice.preset;
    let document = DeTable::parse_recoverable(preset.text).0.into_inner();
    let DeValue::Array(tests) = document.get("tests")?.get_ref() else { return None };
    // The sources of the preset do not come along.
    let is_of_it = |test: &&Spanned<DeValue<'_>>| {
        let test = test.get_ref().as_table().filter(|test| !test.contains_key("source"));
        let destination = test.and_then(|test| test.get("destination")?.get_ref().as_str());
        destination == Some(choice.destination.as_str())
    };
    let start = tests.iter().find(is_of_it)?.span().start;
    let next = tests.iter().map(|test| test.span().start).filter(|other| *other > start).min();
    let text = &preset.text[start..next.unwrap_or(preset.text.len())];
    // What follows a test may be the remark of the next one.
    let lines = text.lines().collect::<Vec<_>>();
    let kept = lines.iter().rposition(|line| !line.is_empty() && !line.starts_with('#'))? + 1;
    let end = lines[..kept].iter().map(|line| line.len() + 1).sum::<usize>().min(text.len());
    Some(&text[..end])
}
