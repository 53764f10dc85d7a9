//! `libroseg init`: a file to begin with.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{DONE, UNABLE};
use crate::config::presets::{self, PRESETS, Preset};
use crate::config::{Choice, choices, starter, variables};

pub(super) const EXAMPLES: &str = "\
The file passes `libroseg --check` as it is: a destination is off until its variables are set.

Exit codes: 0 written, 2 there is a file already, no such preset, or it cannot be written.

Examples:
  libroseg init                                   ./libroseg.toml with an archive of all events
  libroseg init --list                            the presets that there are
  libroseg init --destination mixpanel --destination slack
  libroseg init -d customerio - | less            show it only
  libroseg init prod.toml -d bigquery --force     write over what is there";

/// What to write, and where.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// Where to write it; `-` is standard output [default: the configuration file]
    file: Option<PathBuf>,

    /// A destination made from this preset; may be given several times
    #[arg(short, long = "destination", value_name = "NAME")]
    destinations: Vec<String>,

    /// Write over a file that is there
    #[arg(long)]
    force: bool,

    /// List the presets, and write nothing
    #[arg(long, conflicts_with_all = ["file", "destinations", "force"])]
    list: bool,
}

/// Writes a file to begin with. Answers the exit code.
pub(super) fn run(config: &Path, options: &Options) -> u8 {
    if options.list {
        // A reader that left early has seen enough.
        let _ = io::stdout().write_all(list().as_bytes());
        return DONE;
    }
    let choices = match wanted(&options.destinations) {
        Ok(choices) => choices,
        Err(error) => {
            super::note(error);
            return UNABLE;
        }
    };
    let text = starter(&choices);
    let path = options.file.as_deref().unwrap_or(config);
    if path == Path::new("-") {
        let _ = io::stdout().write_all(text.as_bytes());
        return DONE;
    }
    match write(path, &text, options.force) {
        Ok(()) => {
            tell_next(path, &choices);
            DONE
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            super::note(format_args!("error: {} is there already", path.display()));
            super::note("help: name another file, or write over it with --force");
            UNABLE
        }
        Err(error) => {
            super::note(format_args!("error: cannot write {}: {error}", path.display()));
            UNABLE
        }
    }
}

/// What is meant by these names, each once; or the name that means nothing, or that two destinations would have.
fn wanted(names: &[String]) -> Result<Vec<Choice>, String> {
    let choices = choices();
    let mut wanted: Vec<Choice> = Vec::new();
    for name in names {
        let choice = choices.iter().find(|choice| choice.name == *name).ok_or_else(|| unknown(name, &choices))?;
        if wanted.contains(choice) {
            continue;
        }
        if let Some(other) = wanted.iter().find(|other| other.destination == choice.destination) {
            return Err(format!("error: `{}` and `{name}` are both called `{}`", other.name, choice.destination));
        }
        wanted.push(choice.clone());
    }
    Ok(wanted)
}

fn unknown(name: &str, choices: &[Choice]) -> String {
    let parts: Vec<&str> = choices.iter().filter(|c| c.preset.name == name).map(|c| c.name.as_str()).collect();
    if !parts.is_empty() {
        return format!("error: `{name}` has several destinations\nhelp: say which one: {}", parts.join(", "));
    }
    let near = presets::nearest(name).map(|near| format!("help: did you mean `{near}`?\n")).unwrap_or_default();
    format!("error: there is no preset `{name}`\n{near}the presets are:\n{}", list().trim_end())
}

fn list() -> String {
    let width = PRESETS.iter().map(|preset| preset.name.len()).max().unwrap_or_default();
    let line = |preset: &Preset| format!("{:width$}  {}", preset.name, preset.summary());
    PRESETS.iter().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// Never writes over a file unless told to, not even over one that appears meanwhile.
fn write(path: &Path, text: &str, force: bool) -> io::Result<()> {
    if force {
        return fs::write(path, text);
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

fn tell_next(path: &Path, choices: &[Choice]) {
    let name = path.display();
    super::note(format_args!("{name} is written. Next:"));
    let config = if path == Path::new("libroseg.toml") { String::new() } else { format!(" --config {name}") };
    for choice in choices {
        let needed = variables(choice).needed;
        if !needed.is_empty() {
            super::note(format_args!("  set {} for {}", needed.join(", "), choice.destination));
        }
    }
    super::note(format_args!("  libroseg check{config}"));
    super::note(format_args!("  libroseg{config}"));
}
