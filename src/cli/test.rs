//! `libroseg test`: what a file promises about its own destinations, held to. Nothing is sent and no variable is read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};
use similar::{ChangeTag, TextDiff};

use super::{DONE, UNABLE, WRONG};
use crate::config::{self, Diagnostic, Environment, Style, Unset, line_column};
use crate::plan::case::Case;
use crate::rehearse::report::Difference;
use crate::rehearse::{self, Report};

pub(super) const EXAMPLES: &str = "\
A test names a destination, events, and the requests they cause; or an answer, and what becomes of the events. Variables
and files are the test's own. docs/config.md has the language.

Exit codes: 0 every test passed, 1 one failed or a file has mistakes, 2 a file cannot be read or written.

Examples:
  libroseg test                              the tests of ./libroseg.toml
  libroseg test examples/configs/*.toml      those of several files
  libroseg test --filter 'crm: *order*'      those whose destination and name match
  libroseg test --update                     write down what is made; read the change before you commit it
  libroseg test --format junit > tests.xml   for a CI that shows tests";

/// Which tests, and what is told of them.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// The files [default: the configuration file]
    pub(super) files: Vec<PathBuf>,

    /// Only tests whose `DESTINATION: NAME` has this in it; `*` is anything
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,

    /// Write what was made into the tests that fail, or that expect nothing yet
    #[arg(long)]
    update: bool,

    /// What the answer on stdout looks like
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Format,
}

/// What the answer looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: a line a test, a picture and a difference of what failed
    #[default]
    Human,
    /// One JSON object
    Json,
    /// The XML of `JUnit`
    Junit,
}

/// One file's tests, run.
struct Outcome {
    name: String,
    text: String,
    /// Mistakes that kept its tests from being read.
    mistakes: Vec<Diagnostic>,
    reports: Vec<Report>,
}

/// Runs the tests of every file and answers the worst exit code.
pub(super) fn run(files: &[PathBuf], options: &Options) -> u8 {
    let mut outcomes = Vec::with_capacity(files.len());
    let mut code = DONE;
    for file in files {
        match of_file(file, options) {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => {
                super::note(format_args!("error: {}: {error}", file.display()));
                code = UNABLE;
            }
        }
    }
    let answer = match options.format {
        Format::Human => outcomes.iter().map(|outcome| human(outcome, options.update)).collect(),
        Format::Json => format!("{:#}\n", as_json(&outcomes)),
        Format::Junit => junit(&outcomes),
    };
    // A reader that left early has seen enough.
    let _ = write!(io::stdout(), "{answer}");
    let is_right = |outcome: &Outcome| outcome.mistakes.is_empty() && outcome.reports.iter().all(Report::is_passed);
    code.max(if outcomes.iter().all(is_right) || options.update { DONE } else { WRONG })
}

fn of_file(file: &Path, options: &Options) -> io::Result<Outcome> {
    let text = fs::read_to_string(file)?;
    let name = file.display().to_string();
    let cases = match cases(&text) {
        Ok(cases) => cases,
        Err(mistakes) => return Ok(Outcome { name, text, mistakes, reports: Vec::new() }),
    };
    let is_wanted = |case: &&Case| options.filter.as_ref().is_none_or(|filter| matches(filter, case));
    let reports: Vec<Report> = cases.iter().filter(is_wanted).map(|case| rehearse::run(&text, case)).collect();
    if options.update {
        update(file, &text, &reports)?;
    }
    Ok(Outcome { name, text, mistakes: Vec::new(), reports })
}

/// The tests of a file, whatever variables there are here.
pub(super) fn cases(text: &str) -> Result<Vec<Case>, Vec<Diagnostic>> {
    let read_file = |path: &Path| fs::read_to_string(path);
    let environment = Environment {
        variables: BTreeMap::new(),
        read_file: &read_file,
        unset: Unset::Assumed,
        ..Environment::default()
    };
    let mut mistakes = match config::compile(text, &environment) {
        Ok(compiled) => return Ok(compiled.cases),
        Err(mistakes) => mistakes,
    };
    mistakes.retain(Diagnostic::is_error);
    Err(mistakes)
}

fn matches(filter: &str, case: &Case) -> bool {
    crate::plan::Glob::new(&format!("*{filter}*")).matches(&format!("{}: {}", case.destination, case.name))
}

/// Puts what was made in place of what was expected. The file is written only if that changes it.
fn update(file: &Path, text: &str, reports: &[Report]) -> io::Result<()> {
    let mut updates: Vec<_> = reports.iter().flat_map(|report| &report.updates).collect();
    updates.sort_by_key(|update| std::cmp::Reverse(update.span.start));
    let mut written = text.to_owned();
    for update in &updates {
        written.replace_range(update.span.clone(), &update.replacement);
    }
    if written == text { Ok(()) } else { fs::write(file, written) }
}

// === for people ===

fn human(outcome: &Outcome, is_updated: bool) -> String {
    let Outcome { name, text, mistakes, reports } = outcome;
    let style = style();
    let picture = |diagnostics: &[Diagnostic]| config::draw(name, text, diagnostics, style, super::width());
    let mut out = String::new();
    if !mistakes.is_empty() {
        let _ = writeln!(out, "{}{name}: the tests are not run, the file has mistakes", picture(mistakes));
        return out;
    }
    for report in reports {
        let word = if report.is_passed() { "ok    " } else { "FAILED" };
        let _ = writeln!(out, "{word} {}: {}", report.destination, report.name);
    }
    for report in reports.iter().filter(|report| !report.is_passed()) {
        let _ = write!(out, "\n--- {}: {}\n\n{}", report.destination, report.name, picture(&report.failures));
        if let Some(difference) = &report.difference {
            let _ = write!(out, "\n{}", lines(difference, style));
        }
    }
    let failed = reports.iter().filter(|report| !report.is_passed()).count();
    let gap = if reports.is_empty() { "" } else { "\n" };
    let written = if is_updated { ", written down" } else { "" };
    let _ = writeln!(out, "{gap}{name}: {} passed, {failed} failed{written}", reports.len() - failed);
    out
}

fn style() -> Style {
    if io::stdout().is_terminal() && crate::telemetry::uses_color() { Style::Ansi } else { Style::Plain }
}

/// What is expected and what is made, line by line.
fn lines(difference: &Difference, style: Style) -> String {
    let mut out = "- expected\n+ made\n".to_owned();
    for change in TextDiff::from_lines(&difference.expected, &difference.actual).iter_all_changes() {
        let (sign, color) = match change.tag() {
            ChangeTag::Delete => ('-', "\u{1b}[31m"),
            ChangeTag::Insert => ('+', "\u{1b}[32m"),
            ChangeTag::Equal => (' ', ""),
        };
        let line = change.value().trim_end_matches('\n');
        let _ = match style {
            Style::Ansi if !color.is_empty() => writeln!(out, "{color}{sign} {line}\u{1b}[0m"),
            Style::Ansi | Style::Plain => writeln!(out, "{sign} {line}"),
        };
    }
    out
}

// === for programs ===

fn as_json(outcomes: &[Outcome]) -> Json {
    let files: Vec<Json> = outcomes.iter().map(file_as_json).collect();
    let count = |is_passed: bool| -> usize {
        let of_file = |outcome: &Outcome| outcome.reports.iter().filter(|r| r.is_passed() == is_passed).count();
        outcomes.iter().map(of_file).sum()
    };
    json!({ "passed": count(true), "failed": count(false), "files": files })
}

fn file_as_json(outcome: &Outcome) -> Json {
    let place = |offset: usize| {
        let (line, column) = line_column(&outcome.text, offset);
        json!({ "line": line, "column": column })
    };
    let told = |found: &[Diagnostic]| -> Vec<Json> {
        let one = |d: &Diagnostic| json!({ "message": d.message, "label": d.label, "help": d.help, "place": place(d.span.start) });
        found.iter().map(one).collect()
    };
    let test = |report: &Report| {
        json!({
            "name": report.name,
            "destination": report.destination.as_str(),
            "place": place(report.span.start),
            "passed": report.is_passed(),
            "failures": told(&report.failures),
            "requests": report.requests,
            "outcome": report.ends.iter().map(|end| end.fate.as_str()).collect::<Vec<_>>(),
        })
    };
    let tests: Vec<Json> = outcome.reports.iter().map(test).collect();
    json!({ "file": outcome.name, "mistakes": told(&outcome.mistakes), "tests": tests })
}

/// The format that CIs read (<https://github.com/testmoapp/junitxml>, read 2026-11-26): a suite a file, a case a test.
fn junit(outcomes: &[Outcome]) -> String {
    let mut out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n".to_owned();
    for outcome in outcomes {
        let failed = outcome.reports.iter().filter(|report| !report.is_passed()).count();
        let (tests, errors) = (outcome.reports.len(), outcome.mistakes.len());
        let name = xml(&outcome.name);
        let _ =
            writeln!(out, "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failed}\" errors=\"{errors}\">");
        let picture = |found: &[Diagnostic]| config::draw(&outcome.name, &outcome.text, found, Style::Plain, 120);
        if !outcome.mistakes.is_empty() {
            let told = xml(&picture(&outcome.mistakes));
            let _ = writeln!(
                out,
                "    <testcase name=\"the file\" classname=\"{name}\">\n      <error message=\"the file has mistakes\">{told}</error>\n    </testcase>"
            );
        }
        for report in &outcome.reports {
            let (case, class) = (xml(&report.name), xml(report.destination.as_str()));
            let line = line_column(&outcome.text, report.span.start).0;
            let _ = write!(out, "    <testcase name=\"{case}\" classname=\"{class}\" file=\"{name}\" line=\"{line}\"");
            let Some(first) = report.failures.first() else {
                out.push_str("/>\n");
                continue;
            };
            let difference = report.difference.as_ref().map(|d| lines(d, Style::Plain)).unwrap_or_default();
            let told = xml(&format!("{}\n{difference}", picture(&report.failures)));
            let _ = writeln!(
                out,
                ">\n      <failure message=\"{}\">{told}</failure>\n    </testcase>",
                xml(&first.message)
            );
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// Text as XML has it; control characters, which it cannot say at all, are U+FFFD.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
