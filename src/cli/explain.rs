//! `libroseg explain`: what one event is to every destination, in slow motion. Nothing is sent.
//!
//! The file is compiled with the variables at hand; of one that is not set the name stands in. What is told is data
//! (`Told`) until one of the formats writes it, and secrets are masked in all of it.

mod curl;
mod human;
mod json;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value as Json;

use super::{DONE, Format, UNABLE, WRONG, env_file};
use crate::attempt::DestinationName;
use crate::clock::Clock;
use crate::config::{self, Code, Diagnostic, Environment, Places, Style, Unset};
use crate::event::{Event, SourceName};
use crate::plan::case::Script;
use crate::plan::explain::Explanation;
use crate::plan::{Destination, Plan, Request};
use crate::rehearse::{self, End};

pub(super) const EXAMPLES: &str = "\
Tells, for every destination, whether the event reaches it and which part of which condition decided; what every expression
came to, with its place in the file; and the requests, as curl commands with their secrets masked.

Exit codes: 0 told, 1 the file or the event has a mistake, 2 a file cannot be read.

Examples:
  libroseg explain --event '{\"type\":\"track\",\"userId\":\"u1\",\"event\":\"Order Completed\"}'
  libroseg explain --event @event.json --destination crm
  pbpaste | libroseg explain prod.toml --event - --format json";

/// Which event, to which destinations.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// The file [default: the configuration file]
    file: Option<PathBuf>,

    /// The event, as an SDK would send it in a batch: JSON, `@FILE`, or `-` for what comes on stdin
    #[arg(long, value_name = "JSON")]
    event: String,

    /// Only this destination (may be given several times)
    #[arg(long, value_name = "NAME")]
    destination: Vec<String>,

    /// The source that sends it [default: the first by name]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,

    /// What time it is: RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    now: Option<Timestamp>,

    /// Read variables from a file of KEY=VALUE lines; they lie over those of the environment
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// What the answer on stdout looks like
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Format,
}

/// Everything there is to tell.
struct Told {
    /// The file's name.
    file: String,
    places: Places,
    event: Event,
    /// Variables that are not set here; their names stand in for them.
    unset: Vec<String>,
    destinations: Vec<Of>,
}

/// What the event is to one destination.
struct Of {
    name: DestinationName,
    /// Why it is off here; it is looked at as if it were on.
    off: Option<String>,
    explanation: Explanation,
    /// The requests, masked.
    requests: Vec<Request>,
    /// What becomes of the event when everything is taken.
    end: End,
}

/// Why there is nothing to tell.
enum Refused {
    /// A file cannot be read, or is not there.
    Unable(String),
    /// What was given is wrong.
    Wrong(String),
}

/// Explains, and answers the exit code.
pub(super) fn run(config: &Path, options: &Options, variables: &BTreeMap<String, String>) -> u8 {
    match explain(options.file.as_deref().unwrap_or(config), options, variables) {
        Ok(told) => {
            let answer = match options.format {
                Format::Human => human::answer(&told),
                Format::Json => json::answer(&told),
            };
            // A reader that left early has seen enough.
            let _ = io::stdout().write_all(answer.as_bytes());
            DONE
        }
        Err(Refused::Unable(why)) => {
            super::note(format_args!("error: {why}"));
            UNABLE
        }
        Err(Refused::Wrong(why)) => {
            super::note(why);
            WRONG
        }
    }
}

fn explain(file: &Path, options: &Options, variables: &BTreeMap<String, String>) -> Result<Told, Refused> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| Refused::Unable(format!("cannot read {name}: {error}")))?;
    let variables = env_file::laid_over(variables, &options.env_file).map_err(|e| Refused::Unable(e.to_string()))?;
    let compile = |unset| {
        let read_file = |path: &Path| fs::read_to_string(path);
        config::compile(
            &text,
            &Environment { variables: variables.clone(), read_file: &read_file, unset, ..Environment::default() },
        )
    };
    let plan = match compile(Unset::Assumed) {
        Ok(compiled) => compiled.plan,
        Err(mistakes) => {
            let picture = config::draw(&name, &text, &mistakes, Style::Plain, super::width());
            return Err(Refused::Wrong(format!("{picture}error: {name} has mistakes")));
        }
    };
    let (off, unset) = match compile(Unset::Mistake) {
        Ok(compiled) => (compiled.plan.disabled, Vec::new()),
        Err(mistakes) => (Vec::new(), unset(&mistakes)),
    };
    let now = options.now.unwrap_or_else(|| Clock::system().now());
    let event = event(&options.event, &source(&plan, options)?, &plan, now)?;
    let why_off = |name: &DestinationName| off.iter().find(|off| off.name == *name).map(|off| off.why.clone());
    let destinations = wanted(&plan, options)?;
    let of = |destination: &Arc<Destination>| of(destination, why_off(&destination.name), &event, now);
    let destinations = destinations.into_iter().map(of).collect();
    Ok(Told { file: name, places: Places::of(&text), event, unset, destinations })
}

/// The variables and files that are not there.
fn unset(mistakes: &[Diagnostic]) -> Vec<String> {
    let is_unset = |mistake: &&Diagnostic| matches!(mistake.code, Code::UnsetVariable | Code::UnreadableFile);
    let mut unset: Vec<String> = mistakes.iter().filter(is_unset).map(|mistake| mistake.message.clone()).collect();
    unset.sort_unstable();
    unset.dedup();
    unset
}

fn source(plan: &Plan, options: &Options) -> Result<SourceName, Refused> {
    let mut names: Vec<&SourceName> = plan.policy.sources.values().map(|source| &source.name).collect();
    names.sort_unstable();
    names.dedup();
    match &options.source {
        Some(name) => {
            let known = names.iter().map(|name| name.as_str());
            super::known(name, known, "source").map(SourceName::from).map_err(Refused::Wrong)
        }
        None => Ok(names.first().map_or_else(|| SourceName::from("test"), |name| (*name).clone())),
    }
}

fn wanted<'p>(plan: &'p Plan, options: &Options) -> Result<Vec<&'p Arc<Destination>>, Refused> {
    let known = || plan.destinations.iter().map(|destination| destination.name.as_str());
    for name in &options.destination {
        super::known(name, known(), "destination").map_err(Refused::Wrong)?;
    }
    let is_wanted = |destination: &&Arc<Destination>| {
        options.destination.is_empty() || options.destination.iter().any(|name| name == destination.name.as_str())
    };
    Ok(plan.destinations.iter().filter(is_wanted).collect())
}

/// Reads the event as the door does.
fn event(given: &str, source: &SourceName, plan: &Plan, now: Timestamp) -> Result<Event, Refused> {
    let text = match (given, given.strip_prefix('@')) {
        ("-", _) => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(|error| Refused::Unable(format!("stdin: {error}")))?;
            text
        }
        (_, Some(path)) => {
            fs::read_to_string(path).map_err(|error| Refused::Unable(format!("cannot read {path}: {error}")))?
        }
        _ => given.to_owned(),
    };
    let wrong = |why: String| Refused::Wrong(format!("error: the event: {why}"));
    let message: Json = serde_json::from_str(&text).map_err(|error| wrong(format!("not JSON: {error}")))?;
    let events = rehearse::read(&[message], source, plan.policy.plans.as_deref(), now)
        .map_err(|unread| wrong(unread.to_string()))?;
    events.into_iter().next().ok_or_else(|| wrong("there is none".to_owned()))
}

fn of(destination: &Arc<Destination>, off: Option<String>, event: &Event, now: Timestamp) -> Of {
    let message = event.open().expect("it was just read");
    let explanation = destination.explain(&message, now);
    let performance = rehearse::rehearse(destination, std::slice::from_ref(event), &Script::Accepting, now);
    let requests = performance.requests.iter().map(|made| destination.masked(&made.request)).collect();
    let end = performance.ends.into_iter().next().expect("one event has one end");
    let detail = destination.redacted_text(&end.detail);
    Of { name: destination.name.clone(), off, explanation, requests, end: End { detail, ..end } }
}
