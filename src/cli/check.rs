//! `libroseg --check`: what start-up would say of a file, without starting anything.
//!
//! A file is compiled as start and reload compile it; what is said of it is data (`File`) until one of the formats
//! writes it. The answer goes to stdout whatever the format, what kept us from answering to stderr.

mod github;
mod human;
mod json;
mod sarif;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use super::ask::counted;
use super::doctor::{self, Round, Visit};
use super::{DONE, UNABLE, WRONG, duration, env_file};
use crate::config::{self, Code, Diagnostic, Environment, Severity, Target, Unset};
use crate::plan::{Plan, QueueAck, QueueKind, QueueSettings};
use crate::rehearse;
use crate::reload;
use crate::vercel;

pub(super) const EXAMPLES: &str = "\
Exit codes: 0 every file is right, 1 something is wrong, 2 a file cannot be read.

Examples:
  libroseg check
  libroseg check libroseg.toml examples/configs/*.toml
  libroseg check --env-file .env --deny warnings
  libroseg check --assume-env --target vercel --max-duration 60s
  libroseg check --assume-env --print-ddl | bq query --use_legacy_sql=false
  libroseg check --assume-env --format github
  libroseg check --assume-env --format sarif > libroseg.sarif";

/// How to check, and how to tell what is found.
#[derive(Clone, Debug, Default, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
#[group(skip)]
pub(super) struct Options {
    /// How to tell what is found
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Format,

    /// Exit with 1 on warnings as well: on all of them (`warnings`), or on those of one kind, such as `no-tls`
    #[arg(long, value_name = "KIND", value_parser = kinds(true), hide_possible_values = true)]
    deny: Vec<String>,

    /// Say nothing of warnings or notes of this kind, such as `no-tls`
    #[arg(long, value_name = "KIND", value_parser = kinds(false), hide_possible_values = true)]
    allow: Vec<String>,

    /// Read variables from a file of KEY=VALUE lines; they lie over those of the environment
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// Take variables that are not set, and files of secrets that cannot be read, as there and unknown
    #[arg(long, conflicts_with = "online")]
    assume_env: bool,

    /// Do not run the tests that the files carry
    #[arg(long)]
    no_tests: bool,

    /// Print the CREATE TABLE of every BigQuery table that a `schema` declares, for files that are right
    #[arg(long, conflicts_with = "format")]
    print_ddl: bool,

    /// Look as well at what right files need where it is, and send nothing: as `libroseg doctor` does
    #[arg(long, conflicts_with = "print_ddl")]
    online: bool,

    /// With it, look at this destination alone, or at these
    #[arg(short = 'd', long, visible_alias = "destination", value_name = "NAME", requires = "online")]
    only: Vec<String>,

    /// With it, the longest that one step may take [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = doctor::timeout, requires = "online")]
    timeout: Option<Duration>,

    /// Say as well what cannot work there
    #[arg(long, value_name = "PLACE", value_enum)]
    target: Option<Place>,

    /// The longest the function may run, its `maxDuration` [default: 300s]
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "target")]
    max_duration: Option<Duration>,
}

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Pictures, as rustc draws them
    #[default]
    Human,
    /// One JSON document
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// Annotations of GitHub Actions
    Github,
}

/// Where a file is to run, if not on a machine or in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Place {
    /// A Vercel Function
    Vercel,
}

/// The word for all warnings.
const ALL_WARNINGS: &str = "warnings";

/// A file, and what is to be said of it.
struct File {
    /// As it was given on the command line.
    name: String,
    /// What came of it.
    result: Result<Told, String>,
}

/// What is to be said of a file that could be read.
struct Told {
    text: String,
    /// In the order of the file, without what was allowed.
    diagnostics: Vec<Diagnostic>,
    /// Warnings that count as errors do.
    denied: usize,
    /// What it sets up, unless it has errors.
    summary: Option<Summary>,
    /// What it means, unless it has errors.
    plan: Option<Plan>,
    /// What was found where it matters, if somebody looked.
    online: Option<Vec<Visit>>,
}

/// Where something stands in a file: lines and columns from 1, columns in characters; the end is not part of it.
struct Position {
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
}

/// What a right file sets up.
struct Summary {
    sources: usize,
    destinations: usize,
    /// Tests that were run; all of them hold.
    tests: usize,
    /// Names of destinations that are off, and why.
    off: Vec<(String, String)>,
    queue: QueueSettings,
}

/// Checks every file and answers the worst exit code.
pub(super) fn run(files: &[PathBuf], options: &Options, variables: &BTreeMap<String, String>) -> u8 {
    let variables = match env_file::laid_over(variables, &options.env_file) {
        Ok(variables) => variables,
        Err(error) => {
            super::note(format_args!("error: {error}"));
            return UNABLE;
        }
    };
    let files: Vec<File> = files.iter().map(|file| check(file, options, &variables)).collect();
    if options.online {
        return look(files, options, variables.get("PORT").cloned());
    }
    let prints_ddl = options.print_ddl && files.iter().all(|file| file.exit_code() == DONE);
    let answer = match options.format {
        _ if prints_ddl => ddl(&files),
        Format::Human => human::answer(&files),
        Format::Json => json::answer(&files),
        Format::Sarif => sarif::answer(&files),
        Format::Github => github::answer(&files),
    };
    note_unreadable(&files);
    say(&answer);
    exit_code(&files)
}

/// Looks at what right files need, and tells of it as it comes. Answers the worst exit code.
fn look(mut files: Vec<File>, options: &Options, port: Option<String>) -> u8 {
    let is_human = match options.format {
        Format::Human => true,
        Format::Json => false,
        Format::Sarif | Format::Github => {
            super::note("error: what is found with `--online` has no place in a file: `--format human` or `json`");
            return UNABLE;
        }
    };
    let timeout = options.timeout.unwrap_or(doctor::TIMEOUT);
    let round = Round { only: options.only.clone(), timeout, port };
    for file in &mut files {
        if is_human {
            say(&human::answer(std::slice::from_ref(file)));
        }
        let right = file.result.as_mut().ok().filter(|told| told.is_right());
        let Some((told, plan)) = right.and_then(|told| told.plan.take().map(|plan| (told, plan))) else { continue };
        let mut tell = |visit: &Visit| {
            if is_human {
                say(&visit.text());
            }
        };
        match doctor::look(&plan, &round, &mut tell) {
            Ok(visits) => told.online = Some(visits),
            Err(error) => {
                super::note(error);
                return UNABLE;
            }
        }
        if let Some(visits) = told.online.as_ref().filter(|_| is_human) {
            say(&format!("\n{}: {}\n", file.name, doctor::summary(visits)));
        }
    }
    note_unreadable(&files);
    if !is_human {
        say(&json::answer(&files));
    }
    exit_code(&files)
}

fn note_unreadable(files: &[File]) {
    for (file, reason) in files.iter().filter_map(|file| Some((file, file.result.as_ref().err()?))) {
        super::note(format_args!("error: cannot read {}: {reason}", file.name));
    }
}

/// A reader that left early has seen enough.
fn say(answer: &str) {
    let _ = io::stdout().write_all(answer.as_bytes()).and_then(|()| io::stdout().flush());
}

fn check(path: &Path, options: &Options, variables: &BTreeMap<String, String>) -> File {
    let environment = Environment {
        unset: if options.assume_env { Unset::Assumed } else { Unset::Mistake },
        target: options.target(),
        ..reload::environment(options.variables(variables))
    };
    let result = match reload::check(path, &environment) {
        Ok((text, result)) => {
            let mut summary = result.as_ref().ok().map(|compiled| Summary::of(&compiled.plan));
            let odd = |compiled: config::Compiled| ([compiled.warnings, compiled.notes].concat(), Some(compiled.plan));
            let (mut diagnostics, plan) = result.map_or_else(|mistakes| (mistakes, None), odd);
            diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
            if let Some(right) = summary.as_mut().filter(|_| !options.no_tests) {
                let (tests, failures) = run_tests(&text);
                right.tests = tests;
                diagnostics.extend(failures);
            }
            summary = summary.filter(|_| !diagnostics.iter().any(Diagnostic::is_error));
            diagnostics.retain(|diagnostic| diagnostic.is_error() || !options.allows(diagnostic.code));
            let denied = diagnostics.iter().filter(|diagnostic| options.denies(diagnostic)).count();
            Ok(Told { text, diagnostics, denied, summary, plan, online: None })
        }
        Err(error) => Err(std::error::Error::source(&error).unwrap_or(&error).to_string()),
    };
    File { name: path.display().to_string(), result }
}

/// The statements that make the tables of a plan, each once.
fn statements(plan: &Plan) -> Vec<String> {
    let declared = plan.destinations.iter().flat_map(|destination| {
        let tables = destination.tables().into_iter().filter(|table| !table.shape.columns.is_empty());
        tables.map(|table| format!("-- {}\n{}", destination.name, table.shape.ddl(&table.name)))
    });
    let mut all: Vec<String> = Vec::new();
    declared.for_each(|statement| all.extend((!all.contains(&statement)).then_some(statement)));
    all
}

/// All statements; whoever finds none is told why.
fn ddl(files: &[File]) -> String {
    let plans = files.iter().filter_map(|file| file.result.as_ref().ok()?.plan.as_ref());
    let all: Vec<String> = plans.flat_map(statements).collect();
    if all.is_empty() {
        super::note(format_args!("no `schema` of a BigQuery destination that is on declares a table"));
    }
    all.join("\n")
}

/// Runs the tests of a file. Answers how many there are, and what is wrong with them.
fn run_tests(text: &str) -> (usize, Vec<Diagnostic>) {
    match super::test::cases(text) {
        Ok(cases) => {
            let failures = cases.iter().flat_map(|case| rehearse::run(text, case).failures);
            (cases.len(), failures.collect())
        }
        Err(mistakes) => (0, mistakes),
    }
}

fn exit_code(files: &[File]) -> u8 {
    files.iter().map(File::exit_code).max().unwrap_or(DONE)
}

/// The words that `--deny` or `--allow` take.
fn kinds(with_all: bool) -> PossibleValuesParser {
    let all = with_all.then_some(ALL_WARNINGS);
    let kinds = Code::ALL.iter().filter(|code| code.severity() != Severity::Error).map(|code| code.as_str());
    PossibleValuesParser::new(all.into_iter().chain(kinds))
}

// === impl Options ===

impl Options {
    /// Those of somebody who wants to look, and not to check: of the file only errors are told.
    pub(super) fn online(env_file: Vec<PathBuf>, is_json: bool, only: Vec<String>, timeout: Duration) -> Self {
        let format = if is_json { Format::Json } else { Format::Human };
        let odd = Code::ALL.iter().filter(|code| code.severity() != Severity::Error);
        let allow = odd.map(|code| code.as_str().to_owned()).collect();
        let timeout = Some(timeout);
        Self { format, env_file, allow, no_tests: true, online: true, only, timeout, ..Self::default() }
    }

    fn target(&self) -> Target {
        match self.target {
            Some(Place::Vercel) => {
                Target::Vercel { duration_max: self.max_duration.unwrap_or(Target::VERCEL_DURATION) }
            }
            None => Target::Machine,
        }
    }

    /// Those that the place sets as well.
    fn variables(&self, variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut variables = variables.clone();
        if self.target == Some(Place::Vercel) {
            variables.entry(vercel::MARK.to_owned()).or_insert_with(|| "1".to_owned());
        }
        variables
    }

    fn allows(&self, code: Code) -> bool {
        self.allow.iter().any(|kind| kind == code.as_str())
    }

    fn denies(&self, diagnostic: &Diagnostic) -> bool {
        let is_warning = diagnostic.severity == Severity::Warning;
        let is_denied = |kind: &String| (kind == ALL_WARNINGS && is_warning) || kind == diagnostic.code.as_str();
        !diagnostic.is_error() && self.deny.iter().any(is_denied)
    }
}

// === impl File, Told ===

impl File {
    fn exit_code(&self) -> u8 {
        match &self.result {
            Ok(told) if told.is_right() && !told.has_problem() => DONE,
            Ok(_) => WRONG,
            Err(_) => UNABLE,
        }
    }
}

impl Told {
    fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }

    fn is_right(&self) -> bool {
        self.count(Severity::Error) == 0 && self.denied == 0
    }

    /// Whether something was found wrong where it matters.
    fn has_problem(&self) -> bool {
        self.online.iter().flatten().any(Visit::has_problem)
    }

    /// How the file is, in a line.
    fn line(&self) -> String {
        let mut counts = Vec::new();
        match &self.summary {
            Some(summary) => counts.extend(summary.parts()),
            None => counts.push(counted(self.count(Severity::Error), "error")),
        }
        for (severity, noun) in [(Severity::Warning, "warning"), (Severity::Note, "note")] {
            counts.extend(Some(self.count(severity)).filter(|count| *count > 0).map(|count| counted(count, noun)));
        }
        if self.denied > 0 {
            counts.push(format!("{} denied", self.denied));
        }
        match &self.summary {
            Some(summary) => {
                counts.push(summary.what_a_200_means());
                format!("{}, {}", if self.denied == 0 { "ok" } else { "not ok" }, counts.join(", "))
            }
            None => counts.join(", "),
        }
    }
}

// === impl Position ===

impl Position {
    fn of(text: &str, span: &Range<usize>) -> Self {
        let (line, column) = config::line_column(text, span.start);
        let (end_line, end_column) = config::line_column(text, span.end.max(span.start));
        Self { line, column, end_line, end_column }
    }

    /// The place of a diagnostic, unless it is about the whole file.
    fn of_diagnostic(text: &str, diagnostic: &Diagnostic) -> Option<Self> {
        (!diagnostic.is_of_the_whole_file()).then(|| Self::of(text, &diagnostic.span))
    }
}

// === impl Summary ===

impl Summary {
    fn of(plan: &Plan) -> Self {
        let sources: BTreeSet<_> = plan.policy.sources.values().map(|source| &source.name).collect();
        let off = plan.disabled.iter().map(|disabled| (disabled.name.to_string(), disabled.why.clone()));
        Self {
            sources: sources.len(),
            destinations: plan.destinations.len(),
            tests: 0,
            off: off.collect(),
            queue: plan.queue.clone(),
        }
    }

    fn parts(&self) -> Vec<String> {
        let mut parts = vec![counted(self.sources, "source"), counted(self.destinations, "destination")];
        if !self.off.is_empty() {
            let names: Vec<String> = self.off.iter().map(|(name, why)| format!("{name}: {why}")).collect();
            parts.push(format!("{} off ({})", names.len(), names.join("; ")));
        }
        if self.tests > 0 {
            parts.push(counted(self.tests, "test"));
        }
        parts
    }

    fn what_a_200_means(&self) -> String {
        match self.queue.kind {
            QueueKind::Disk => format!("queue on disk ({}): a 200 is durable", self.queue.dir.display()),
            QueueKind::Memory => match self.queue.ack {
                QueueAck::Queued => "queue in memory: a 200 does not outlive the process".to_owned(),
                QueueAck::Delivered => "queue in memory: a 200 comes after the delivery".to_owned(),
            },
        }
    }
}
