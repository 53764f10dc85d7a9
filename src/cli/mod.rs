//! The command line: one file per command. Answers for programs go to stdout, everything else to stderr.
//!
//! Exit codes: 0 done, 1 found wrong, 2 could not do it (also: wrong usage).

mod ask;
pub mod check;
mod config;
mod dead_letters;
mod diff;
mod doctor;
mod env_file;
mod explain;
mod healthcheck;
mod init;
mod meter;
mod queue;
mod reference;
mod replay;
mod schema;
pub mod serve;
mod table;
mod test;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

use self::ask::Asker;
use crate::config::units;
use crate::telemetry::{self, LogFormat};
use crate::vercel;

/// Takes in events from any Segment SDK and sends them on to the destinations in libroseg.toml.
#[derive(Debug, Parser)]
#[command(name = "libroseg", version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Check files and exit: another name for the command `check`, with the same options
    #[arg(long, value_name = "FILE", num_args = 0.., conflicts_with = "listen")]
    check: Option<Vec<PathBuf>>,

    #[command(flatten)]
    serve: serve::Options,

    /// The configuration file
    #[arg(short, long, global = true, value_name = "FILE", env = CONFIG_VARIABLE, default_value = "libroseg.toml")]
    config: PathBuf,

    /// What is logged, as in `RUST_LOG`: `debug`, `libroseg=debug,hyper=info`
    #[arg(long, global = true, value_name = "FILTER", env = "LIBROSEG_LOG")]
    log: Option<String>,

    /// What a log line looks like
    #[arg(long, global = true, value_name = "FORMAT", env = "LIBROSEG_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: take events in and deliver them (the default)
    Serve(serve::Options),
    /// Check files: every mistake at once, each with its place and what to write instead
    #[command(after_help = check::EXAMPLES)]
    Check {
        /// The files [default: the configuration file]
        files: Vec<PathBuf>,

        #[command(flatten)]
        options: check::Options,
    },
    /// Look at what destinations need where it is, and send nothing: the same as `check --online`
    #[command(after_help = doctor::EXAMPLES)]
    Doctor {
        /// The files [default: the configuration file]
        files: Vec<PathBuf>,

        #[command(flatten)]
        options: doctor::Options,
    },
    /// Run the tests in the files: the requests that events cause, and what answers mean
    #[command(after_help = test::EXAMPLES)]
    Test(test::Options),
    /// Tell what one event is to every destination, and why
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::Options),
    /// Tell what one file changes against another, in itself and over events
    #[command(after_help = diff::EXAMPLES)]
    Diff(diff::Options),
    /// Write a file to begin with, with destinations made from presets
    #[command(after_help = init::EXAMPLES)]
    Init(init::Options),
    /// Show what is in force, defaults included, and where each value comes from
    #[command(after_help = config::EXAMPLES)]
    Config(config::Options),
    /// Events given up on: list, show, send again, forget
    #[command(after_help = dead_letters::EXAMPLES)]
    DeadLetters(dead_letters::Options),
    /// Send events of the log again to one destination, by the rules of today
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::Options),
    /// Look into the queue: inspect, verify, export
    #[command(after_help = queue::EXAMPLES)]
    Queue(queue::Options),
    /// Ask the service on this machine whether it serves, as a container does
    #[command(after_help = healthcheck::EXAMPLES)]
    Healthcheck(healthcheck::Options),
    /// Print the JSON Schema of the configuration file, for editors
    #[command(after_help = schema::EXAMPLES)]
    Schema,
    /// Print docs/reference.md
    #[command(hide = true)]
    Reference,
}

const EXAMPLES: &str = "\
Examples:
  libroseg                               serve ./libroseg.toml
  libroseg --config prod.toml --listen 127.0.0.1:9000
  libroseg --check                       check ./libroseg.toml
  libroseg --check a.toml b.toml         check several files";

/// The variable instead of `--config`.
const CONFIG_VARIABLE: &str = "LIBROSEG_CONFIG";

/// Done.
const DONE: u8 = 0;
/// Found wrong.
const WRONG: u8 = 1;
/// Could not do it.
const UNABLE: u8 = 2;

/// Reads the command line and does what it says.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse_from(arguments());
    if let Err(error) = telemetry::start(arguments.log_format, arguments.log.as_deref()) {
        note(format_args!("error: --log: {error}"));
        return ExitCode::from(UNABLE);
    }
    let files_or_config = |files: Vec<PathBuf>| if files.is_empty() { vec![arguments.config.clone()] } else { files };
    let variables = variables();
    let asker = |options| Asker { config: &arguments.config, variables: &variables, options };
    ExitCode::from(match (arguments.command, arguments.check) {
        (Some(Command::Check { files, options }), _) => check::run(&files_or_config(files), &options, &variables),
        (None, Some(files)) => check::run(&files_or_config(files), &check::Options::default(), &variables),
        (Some(Command::Doctor { files, options }), _) => doctor::run(&files_or_config(files), &options, &variables),
        (Some(Command::Test(options)), _) => test::run(&files_or_config(options.files.clone()), &options),
        (Some(Command::Explain(options)), _) => explain::run(&arguments.config, &options, &variables),
        (Some(Command::Diff(options)), _) => diff::run(&options, &variables),
        (Some(Command::Init(options)), _) => init::run(&arguments.config, &options),
        (Some(Command::Config(options)), _) => config::run(&arguments.config, &options, &variables),
        (Some(Command::DeadLetters(options)), _) => dead_letters::run(&options, &asker(&options.ask)),
        (Some(Command::Replay(options)), _) => replay::run(&options, &asker(&options.ask)),
        (Some(Command::Queue(options)), _) => queue::run(&options, &asker(&options.ask)),
        (Some(Command::Healthcheck(options)), _) => healthcheck::run(&arguments.config, &options, &variables),
        (Some(Command::Schema), _) => schema::run(),
        (Some(Command::Reference), _) => reference::run(&Arguments::command()),
        (Some(Command::Serve(options)), _) => serve::run(arguments.config, &options, variables),
        (None, None) if vercel::is_host(&variables) => serve::run_function(arguments.config, variables),
        (None, None) => serve::run(arguments.config, &arguments.serve, variables),
    })
}

/// The command line, in which `--check` is the command `check`: it takes the same options, in any order.
fn arguments() -> Vec<OsString> {
    let commands = Arguments::command();
    let is_command = |argument: &OsString| commands.find_subcommand(argument).is_some();
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let before_command = arguments.iter().take_while(|argument| *argument != "--" && !is_command(argument)).count();
    if let Some(option) = arguments[..before_command].iter_mut().find(|argument| *argument == "--check") {
        *option = "check".into();
    }
    arguments
}

/// The environment. A variable that is not UTF-8 is read with U+FFFD in place of what is not.
fn variables() -> BTreeMap<String, String> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// Tells people something on stderr, whether or not anybody reads it: it must not change how a command ends.
fn note(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// What an answer looks like that people and programs ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Human,
    /// One JSON object
    Json,
}

/// A duration of the command line, as the file has them: `10s`.
fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(|wrong| wrong.message)
}

/// Prints an answer. A reader that left early has seen enough; anything else means that it could not be given.
fn answer(text: &str) -> u8 {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            note(format_args!("error: cannot write to standard output: {error}"));
            UNABLE
        }
        Ok(()) | Err(_) => DONE,
    }
}

/// Columns to draw in: the terminal's as the shell tells it, or plenty.
fn width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(140)
}

/// A name that has to be among the known ones; else what to say.
fn known<'n>(name: &'n str, known: impl Iterator<Item = &'n str> + Clone, what: &str) -> Result<&'n str, String> {
    if known.clone().any(|other| other == name) {
        return Ok(name);
    }
    let error = format!("error: there is no {what} `{name}`");
    Err(match crate::config::nearest(name, known.clone()) {
        Some(near) => format!("{error}; did you mean `{near}`?"),
        None => format!("{error}; there are {}", known.collect::<Vec<_>>().join(", ")),
    })
}
