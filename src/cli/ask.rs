//! What the commands that look into the queue share: how to reach it, and how to say what came back.
//!
//! A running service is asked through its control socket; without one the queue is opened here, for as long as the
//! command takes. Both carry out the very same code.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::sync::mpsc;

use super::{DONE, UNABLE, WRONG, serve};
use crate::admin::{self, ANSWERS_MAX, Answer, Desk, Failed, Fault, Moment, Range, Request};
use crate::app;
use crate::clock::Clock;
use crate::config::units;
use crate::plan::{Plan, QueueKind};
use crate::reload;

/// How to ask, and how the answer looks.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// What the answer on stdout looks like
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) format: Format,

    /// Ask the running service at this socket, without reading the configuration file
    #[arg(long, global = true, value_name = "PATH")]
    control: Option<PathBuf>,
}

/// What an answer looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// JSON: one object, or one a line.
    Json,
}

/// A range of time and a condition on the event.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub(super) struct RangeOptions {
    /// From this time on: RFC 3339, a date (its first moment, UTC), or so long ago, as `2h` or `7d`
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<When>,

    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<When>,

    /// Only events that meet this `JSONPath` condition, written as in `when`
    #[arg(long = "where", value_name = "FILTER")]
    filter: Option<String>,
}

/// A time as it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    At(Timestamp),
    Ago(Duration),
}

/// Somebody to ask.
pub(super) struct Asker<'a> {
    pub(super) config: &'a Path,
    pub(super) variables: &'a BTreeMap<String, String>,
    pub(super) options: &'a Options,
}

// === impl Asker ===

impl Asker<'_> {
    /// Asks, and shows every piece of the answer but how it ended, which becomes the exit code. A reader that left early
    /// has seen enough.
    pub(super) fn ask(&self, request: &Request, show: &mut dyn FnMut(Answer) -> io::Result<()>) -> u8 {
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return told(&Failed::unable(format!("cannot start the runtime: {error}"))),
        };
        runtime.block_on(async {
            let mut answers = match self.answers(request).await {
                Ok(answers) => answers,
                Err(code) => return code,
            };
            while let Some(answer) = answers.recv().await {
                if let Answer::Failed(failed) = &answer {
                    return told(failed);
                }
                if answer == Answer::Done {
                    return DONE;
                }
                match show(answer) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return DONE,
                    Err(error) => return told(&Failed::unable(format!("cannot write the answer: {error}"))),
                }
            }
            told(&Failed::unable("the answer ended before it was complete"))
        })
    }

    /// The exit code stands for an error that was told already.
    async fn answers(&self, request: &Request) -> Result<mpsc::Receiver<Answer>, u8> {
        if let Some(path) = &self.options.control {
            return call(path, request)
                .await?
                .ok_or_else(|| told(&Failed::unable(format!("no service listens at {}", path.display()))));
        }
        let plan = reload::read(self.config, self.variables).map_err(|error| {
            serve::told(&error);
            super::note(format_args!("help: `--control PATH` asks a running service without reading the file"));
            UNABLE
        })?;
        if let Some(path) = socket_path(&plan)
            && let Some(answers) = call(&path, request).await?
        {
            return Ok(answers);
        }
        let desk = open(plan).map_err(|failed| told(&failed))?;
        let (sender, answers) = mpsc::channel(ANSWERS_MAX);
        let request = request.clone();
        tokio::spawn(async move { admin::run(&desk, request, sender).await });
        Ok(answers)
    }
}

#[cfg(unix)]
fn socket_path(plan: &Plan) -> Option<PathBuf> {
    admin::socket::path(plan)
}

#[cfg(not(unix))]
fn socket_path(_: &Plan) -> Option<PathBuf> {
    None
}

/// Asks a running service; `None` when there is none.
#[cfg(unix)]
async fn call(path: &Path, request: &Request) -> Result<Option<mpsc::Receiver<Answer>>, u8> {
    use admin::socket::CallError;
    match admin::socket::call(path, request).await {
        Ok(answers) => Ok(Some(answers)),
        Err(CallError::NobodyListens { .. }) => Ok(None),
        Err(error @ CallError::Io { .. }) => {
            let failed = Failed::unable(error.to_string());
            Err(told(&failed.with_help("run the command as the user that the service runs as")))
        }
    }
}

#[cfg(not(unix))]
async fn call(_: &Path, _: &Request) -> Result<Option<mpsc::Receiver<Answer>>, u8> {
    Ok(None)
}

/// Opens the queue of a stopped service.
fn open(plan: Arc<Plan>) -> Result<Desk, Failed> {
    let dir = app::queue_dir(&plan.queue);
    match (plan.queue.kind, &dir) {
        (QueueKind::Memory, _) => return Err(no_service(&plan)),
        (QueueKind::Disk, Some(dir)) if !dir.is_dir() => {
            let failed = Failed::unable(format!("there is no queue in {}", dir.display()));
            return Err(failed.with_help("run the command in the folder that the service runs in"));
        }
        (QueueKind::Disk, _) => {}
    }
    let clock = Clock::system();
    let queue = app::open_queue(&plan.queue, clock.now()).map_err(|error| not_opened(&plan, &error))?;
    let plan = move || Arc::clone(&plan);
    Ok(Desk { queue, plan: Arc::new(plan), clock, dir, is_served: false })
}

/// A service that was not reached may be why.
fn not_opened(plan: &Plan, error: &dyn std::error::Error) -> Failed {
    let failed = Failed::unable(error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")));
    match socket_path(plan) {
        Some(path) => failed.with_help(format!(
            "no service listens at {}; `--control PATH` asks one that listens elsewhere",
            path.display()
        )),
        None => failed,
    }
}

fn no_service(plan: &Plan) -> Failed {
    let Some(path) = socket_path(plan) else {
        let failed =
            Failed::unable("a service whose queue is in memory is asked through a socket, and the file has none");
        return failed.with_help("add `control = \"control.sock\"` to [server] and restart the service");
    };
    let failed = Failed::unable(format!("no service listens at {}", path.display()));
    failed.with_help("a queue in memory ends with its service: there is nothing to open")
}

/// Says what went wrong. Answers the exit code.
pub(super) fn told(failed: &Failed) -> u8 {
    super::note(format_args!("error: {}", clean(&failed.message)));
    if let Some(help) = &failed.help {
        super::note(format_args!("help: {}", clean(help)));
    }
    match failed.fault {
        Fault::Wrong => WRONG,
        Fault::Unable => UNABLE,
    }
}

// === impl RangeOptions ===

impl RangeOptions {
    /// The range as it is asked for.
    pub(super) fn range(&self) -> Range {
        let now = Clock::system().now();
        let moment = |when: When| Moment(when.at(now));
        Range { since: self.since.map(moment), until: self.until.map(moment), filter: self.filter.clone() }
    }
}

impl When {
    fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(ago) => {
                let ago = SignedDuration::try_from(ago).unwrap_or(SignedDuration::MAX);
                now.saturating_sub(ago).unwrap_or(Timestamp::MIN)
            }
        }
    }
}

fn when(text: &str) -> Result<When, String> {
    if let Ok(time) = text.parse() {
        return Ok(When::At(time));
    }
    if let Ok(time) = text.parse::<DateTime>() {
        return time
            .to_zoned(TimeZone::UTC)
            .map(|zoned| When::At(zoned.timestamp()))
            .map_err(|error| error.to_string());
    }
    units::duration(text)
        .map(When::Ago)
        .map_err(|_| "write it as 2026-01-02T03:04:05Z, 2026-01-02, 2h or 7d".to_owned())
}

/// Reads `100/s`, `30/m`, or a number a second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write it as 100/s or 30/m".to_owned()),
    };
    let number: Option<f64> = number.trim().parse().ok();
    let is_rate = |number: &f64| number.is_finite() && *number > 0.0;
    number.filter(is_rate).map(|number| number / seconds).ok_or_else(|| "write it as 100/s or 30/m".to_owned())
}

// === telling ===

/// Writes one line of an answer.
///
/// # Errors
/// When nobody reads it.
pub(super) fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// Writes one object of an answer.
///
/// # Errors
/// When nobody reads it.
pub(super) fn say_json(object: &impl Serialize) -> io::Result<()> {
    say(&serde_json::to_string(object)?)
}

/// Text that came from outside, without what would move a terminal's cursor.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() && char != '\n' { char::REPLACEMENT_CHARACTER } else { char })
        .collect()
}

/// `1 event`, `2 events`.
pub(super) fn counted<N: Copy + fmt::Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use std::time::Duration;

    use super::{When, clean, rate, when};

    #[test]
    fn a_time_is_rfc_3339_a_date_or_so_long_ago() {
        let at = |text: &str| When::At(text.parse().unwrap());
        assert_eq!(when("2026-01-02T03:04:05+01:00"), Ok(at("2026-01-02T02:04:05Z")));
        assert_eq!(when("2026-01-02T03:04"), Ok(at("2026-01-02T03:04:00Z")));
        assert_eq!(when("2026-01-02"), Ok(at("2026-01-02T00:00:00Z")));
        assert_eq!(when("2h"), Ok(When::Ago(Duration::from_hours(2))));
        assert_eq!(when("7d"), Ok(When::Ago(Duration::from_hours(168))));
        for wrong in ["", "yesterday", "2", "2026-13-01", "-2h"] {
            assert!(when(wrong).is_err(), "{wrong}");
        }
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(When::At(When::Ago(Duration::from_hours(2)).at(now)), at("2026-01-02T01:04:05Z"));
        assert_eq!(When::Ago(Duration::MAX).at(now), jiff::Timestamp::MIN);
    }

    #[test]
    fn a_rate_is_a_number_of_events_in_a_unit_of_time() {
        assert_eq!(rate("100/s"), Ok(100.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        assert_eq!(rate("30/m"), Ok(0.5));
        for wrong in ["", "0", "-1/s", "inf", "NaN", "1/y", "/s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn text_from_outside_does_not_move_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\r\u{9b}"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}");
    }
}
