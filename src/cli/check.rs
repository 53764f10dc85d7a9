//! `libroseg --check`: what start-up would say of a file, without starting anything.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use super::{DONE, UNABLE, WRONG};
use crate::config::{self, Style};
use crate::plan::{Plan, QueueKind, QueueSettings};
use crate::reload;

pub(super) const EXAMPLES: &str = "\
Exit codes: 0 every file is right, 1 something is wrong, 2 a file cannot be read.

Examples:
  libroseg check
  libroseg check libroseg.toml examples/configs/*.toml";

/// Checks every file and answers the worst exit code. The pictures go to stdout: they are the answer.
pub(super) fn run(files: &[PathBuf], variables: &BTreeMap<String, String>) -> u8 {
    files.iter().map(|file| check(file, variables)).max().unwrap_or(DONE)
}

fn check(file: &Path, variables: &BTreeMap<String, String>) -> u8 {
    let (text, result) = match reload::check(file, variables) {
        Ok(checked) => checked,
        Err(error) => {
            let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            super::note(format_args!("error: {error}: {reason}"));
            return UNABLE;
        }
    };
    let name = file.display().to_string();
    let (diagnostics, summary, code) = match result {
        Ok(compiled) => {
            let summary = summary(&compiled.plan, compiled.warnings.len());
            (compiled.warnings, format!("{name}: ok, {summary}"), DONE)
        }
        Err(mistakes) => {
            let count = counted(mistakes.iter().filter(|mistake| mistake.is_error()).count(), "error");
            (mistakes, format!("{name}: {count}"), WRONG)
        }
    };
    let style = if io::stdout().is_terminal() && crate::telemetry::uses_color() { Style::Ansi } else { Style::Plain };
    let picture = config::draw(&name, &text, &diagnostics, style, super::width());
    // A reader that left early has seen enough.
    let _ = writeln!(io::stdout(), "{picture}{}{summary}", if picture.is_empty() { "" } else { "\n" });
    code
}

fn summary(plan: &Plan, warnings: usize) -> String {
    let mut parts = vec![
        counted(
            plan.policy.sources.values().map(|source| &source.name).collect::<std::collections::BTreeSet<_>>().len(),
            "source",
        ),
        counted(plan.destinations.len(), "destination"),
    ];
    if !plan.disabled.is_empty() {
        let names: Vec<String> = plan.disabled.iter().map(|d| format!("{}: {}", d.name, d.why)).collect();
        parts.push(format!("{} off ({})", plan.disabled.len(), names.join("; ")));
    }
    if warnings > 0 {
        parts.push(counted(warnings, "warning"));
    }
    parts.push(what_a_200_means(&plan.queue));
    parts.join(", ")
}

fn what_a_200_means(queue: &QueueSettings) -> String {
    match queue.kind {
        QueueKind::Disk => format!("queue on disk ({}): a 200 is durable", queue.dir.display()),
        QueueKind::Memory => "queue in memory: a 200 does not outlive the process".to_owned(),
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
