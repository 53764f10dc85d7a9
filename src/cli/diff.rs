//! `libroseg diff`: what one file changes against another, in itself and over events. Nothing is sent.
//!
//! Both files are compiled with the variables at hand; those that are not set have their names stand in for them. What is
//! found is data (`Outcome`) until one of the formats writes it.

mod events;
mod human;
mod json;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use self::events::Tally;
use super::{DONE, Format, UNABLE, WRONG, env_file};
use crate::config::{self, Change, Changes, Environment, Places, Section, Style, Unset};
use crate::plan::{Destination, Plan};
use crate::reload;

pub(super) const EXAMPLES: &str = "\
Layout, comments and [[tests]] change nothing. A change in [let], [tables], [defaults] or in what a destination extends is
told at every destination that it reaches. Events are as `libroseg queue export` writes them, or as an SDK sends them, one a
line. docs/operations.md has more, and the shape of the JSON.

Exit codes: 0 nothing changes, 1 something does, 2 a file cannot be read or has mistakes.

Examples:
  libroseg diff libroseg.toml next.toml
  git show HEAD:libroseg.toml | libroseg diff - libroseg.toml
  libroseg queue export --since 1d | libroseg diff libroseg.toml next.toml --events -
  libroseg diff old.toml new.toml --events events.ndjson --examples 10
  libroseg diff old.toml new.toml --format json";

/// What to compare, and how to tell it.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// The file as it is; `-` is stdin
    old: PathBuf,

    /// The file as it is to be; `-` is stdin
    new: PathBuf,

    /// Events, one a line, to see what becomes of them by either file; `-` is stdin
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,

    /// Who sent the events that do not say so
    #[arg(long, value_name = "SOURCE", requires = "events")]
    source: Option<String>,

    /// Events that are shown for each thing that becomes of them at a destination
    #[arg(long, value_name = "N", default_value_t = 3, requires = "events")]
    examples: usize,

    /// Show all of them
    #[arg(long, requires = "events", conflicts_with = "examples")]
    all: bool,

    /// What the answer on stdout looks like
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Format,

    /// Read variables from a file of KEY=VALUE lines; they lie over those of the environment
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

/// One of the two files.
struct File {
    name: String,
    text: String,
    places: Places,
    plan: Plan,
}

/// Everything that is to be told.
struct Outcome {
    old: File,
    new: File,
    changes: Changes,
    /// One for each destination that changes.
    rows: Vec<Row>,
    /// What it all means for a service.
    notes: Vec<String>,
    /// What becomes of events, if there are some.
    tally: Option<Tally>,
}

/// What becomes of a destination.
struct Row {
    fate: Fate,
    /// Its events are looked at again.
    is_looked_at_again: bool,
    notes: Vec<String>,
}

/// What becomes of a destination as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Added,
    Removed,
    SwitchedOn,
    /// And why.
    SwitchedOff(String),
    /// It is off before and after, and why.
    Off(String),
    Changed,
}

/// The path that is stdin.
const STDIN: &str = "-";

/// Compares, and answers the exit code.
pub(super) fn run(options: &Options, variables: &BTreeMap<String, String>) -> u8 {
    match outcome(options, variables) {
        Ok(outcome) => {
            let answer = match options.format {
                Format::Human => human::answer(&outcome),
                Format::Json => json::answer(&outcome),
            };
            // A reader that left early has seen enough.
            let _ = io::stdout().write_all(answer.as_bytes());
            outcome.exit_code()
        }
        Err(why) => {
            super::note(why.trim_end());
            UNABLE
        }
    }
}

fn outcome(options: &Options, variables: &BTreeMap<String, String>) -> Result<Outcome, String> {
    let inputs = [Some(&options.old), Some(&options.new), options.events.as_ref()];
    if inputs.iter().flatten().filter(|path| is_stdin(path)).count() > 1 {
        return Err("error: only one of the files can be `-`: there is one stdin".to_owned());
    }
    let variables = env_file::laid_over(variables, &options.env_file).map_err(|error| format!("error: {error}"))?;
    let (old, new) = match (File::read(&options.old, &variables), File::read(&options.new, &variables)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(one), Err(other)) => return Err(format!("{one}{other}")),
        (Err(why), Ok(_)) | (Ok(_), Err(why)) => return Err(why),
    };
    let changes = config::changes(&old.text, &new.text);
    let rows = changes.destinations.iter().map(|section| Row::of(section, &old.plan, &new.plan)).collect();
    let mut outcome = Outcome { old, new, changes, rows, notes: Vec::new(), tally: None };
    outcome.notes = outcome.notes();
    if let Some(path) = &options.events {
        outcome.tally = Some(events::tally(path, options, &outcome.old.plan, &outcome.new.plan)?);
    }
    Ok(outcome)
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

// === impl File ===

impl File {
    /// Reads and compiles it; if it has mistakes, answers their pictures.
    fn read(path: &Path, variables: &BTreeMap<String, String>) -> Result<Self, String> {
        let name = path.display().to_string();
        let unreadable = |error| format!("error: cannot read {name}: {error}\n");
        let text = text_of(path).map_err(unreadable)?;
        let environment = Environment { unset: Unset::Assumed, ..reload::environment(variables.clone()) };
        match config::compile(&text, &environment) {
            Ok(compiled) => Ok(Self { places: Places::of(&text), plan: compiled.plan, name, text }),
            Err(mut mistakes) => {
                mistakes.retain(config::Diagnostic::is_error);
                let is_colored = io::stderr().is_terminal() && crate::telemetry::uses_color();
                let style = if is_colored { Style::Ansi } else { Style::Plain };
                Err(config::draw(&name, &text, &mistakes, style, super::width()))
            }
        }
    }

    fn place(&self, name: &str) -> Option<String> {
        self.places.find(name).map(|place| place.in_file(&self.name))
    }
}

fn text_of(path: &Path) -> io::Result<String> {
    if !is_stdin(path) {
        return fs::read_to_string(path);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

// === impl Outcome ===

impl Outcome {
    fn exit_code(&self) -> u8 {
        if self.changes.is_empty() { DONE } else { WRONG }
    }

    fn notes(&self) -> Vec<String> {
        let changed = |name: &str| !self.changes.section(name).is_empty();
        let mut notes = Vec::new();
        for section in ["server", "queue"].into_iter().filter(|name| changed(name)) {
            notes.push(format!("[{section}] is read at start: restart the service for it"));
        }
        if self.changes.section("queue").iter().any(|edit| ["type", "dir"].contains(&edit.key())) {
            notes.push("another queue begins empty: what waits in the old one stays there".to_owned());
        }
        match self.rows.iter().filter(|row| row.is_looked_at_again).count() {
            0 => {}
            1 => notes.push("1 destination is looked at again: what waits for it goes by the new rules".to_owned()),
            more => {
                notes.push(format!(
                    "{more} destinations are looked at again: what waits for them goes by the new rules"
                ));
            }
        }
        notes
    }

    /// Where a key stands in the old and in the new file.
    fn places(&self, section: &Section, edit: &config::Edit) -> (Option<String>, Option<String>) {
        let place = |file: &File, side: &Option<config::Side>| file.place(&section.place_of(side.as_ref()?));
        (place(&self.old, &edit.old), place(&self.new, &edit.new))
    }
}

// === impl Row ===

impl Row {
    fn of(section: &Section, old: &Plan, new: &Plan) -> Self {
        let (before, now) = (State::of(old, &section.name), State::of(new, &section.name));
        let fate = match (section.change, &before, &now) {
            (Change::Added, _, _) => Fate::Added,
            (Change::Removed, _, _) => Fate::Removed,
            (_, State::Off(_), State::On(_)) => Fate::SwitchedOn,
            (_, State::On(_), State::Off(why)) => Fate::SwitchedOff(why.clone()),
            (_, _, State::Off(why)) => Fate::Off(why.clone()),
            (_, _, State::On(_) | State::Absent) => Fate::Changed,
        };
        let both = match (&before, &now) {
            (State::On(before), State::On(now)) => Some((before, now)),
            _ => None,
        };
        let is_looked_at_again = both.is_some_and(|(before, now)| before.fingerprint != now.fingerprint);
        let mut notes = notes_on(section, old);
        if let Some((before, now)) = both.filter(|_| is_looked_at_again) {
            notes.extend(rules_note(before, now));
        }
        if let (Change::Added, State::Off(why)) = (section.change, &now) {
            notes.push(format!("it is off: {why}"));
        }
        Self { fate, is_looked_at_again, notes }
    }
}

/// What a plan makes of a name.
enum State {
    Absent,
    Off(String),
    On(Arc<Destination>),
}

impl State {
    fn of(plan: &Plan, name: &str) -> Self {
        let disabled = plan.disabled.iter().find(|disabled| disabled.name.as_str() == name);
        match plan.destination(&name.into()) {
            Some(destination) => Self::On(Arc::clone(destination)),
            None => disabled.map_or(Self::Absent, |disabled| Self::Off(disabled.why.clone())),
        }
    }
}

/// What a change means for a service that takes it up.
fn notes_on(section: &Section, old: &Plan) -> Vec<String> {
    let mut notes = Vec::new();
    let changes = |key: &str| section.edits.iter().any(|edit| edit.key() == key);
    if section.change == Change::Removed {
        let retain = config::units::written_duration(old.queue.retain);
        notes.push(format!("its place in the queue is kept for {retain}, and what waits there"));
    }
    if changes("order_by") {
        notes.push("events on their way end in the old order, all others go in the new one".to_owned());
    }
    if changes("batch") {
        notes.push("batches are made otherwise; over events, each is looked at alone".to_owned());
    }
    if changes("start") {
        notes.push("`start` counts only for a destination that is new".to_owned());
    }
    notes
}

/// Which rules count as others to an event that was delivered in part.
fn rules_note(before: &Destination, now: &Destination) -> Option<String> {
    let known: BTreeSet<u64> = before.rules.iter().map(|rule| rule.fingerprint).collect();
    let others = now.rules.iter().filter(|rule| !known.contains(&rule.fingerprint));
    let others: Vec<String> = others.filter_map(|rule| rule.place.clone()).collect();
    let (what, verb, they) = match others.as_slice() {
        [] => return None,
        [one] => (one.clone(), "counts", "it"),
        many => (many.join(", "), "count", "they"),
    };
    Some(format!("{what} {verb} as new: what {they} sent of an event delivered in part is sent again"))
}

// === impl Fate ===

impl Fate {
    /// The word of the JSON.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::SwitchedOn => "switched_on",
            Self::SwitchedOff(_) => "switched_off",
            Self::Off(_) => "off",
            Self::Changed => "changed",
        }
    }

    /// In words.
    fn told(&self) -> String {
        match self {
            Self::SwitchedOn => "switched on".to_owned(),
            Self::SwitchedOff(why) => format!("switched off: {why}"),
            Self::Off(why) => format!("changed, and off: {why}"),
            Self::Added | Self::Removed | Self::Changed => self.as_str().to_owned(),
        }
    }

    fn why(&self) -> Option<&str> {
        match self {
            Self::SwitchedOff(why) | Self::Off(why) => Some(why),
            Self::Added | Self::Removed | Self::SwitchedOn | Self::Changed => None,
        }
    }
}
