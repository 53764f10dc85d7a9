//! `libroseg doctor`, which is `check --online`: what a file needs is looked at where it is, and no event is sent.
//!
//! What is looked at is told in visits: one for each destination that is on, one for the queue, one for the door. They are
//! made a few at a time, and each is told when it is over, whoever else still hangs.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use futures_util::stream;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::ask::{clean, counted};
use super::{check, queue, serve};
use crate::clock::Clock;
use crate::ingest::{Probe, Tls};
use crate::plan::{Destination, DestinationKind, Finding, Grade, Metrics, Plan, QueueKind, QueueSettings, Server};
use crate::queue::disk;
use crate::sink::Sinks;
use crate::sink::look::{Look, folder};

pub(super) const EXAMPLES: &str = "\
Looks at what each destination that is on needs, and sends no event: credentials, BigQuery's datasets, tables
and columns, the host of an HTTP API up to its certificate, files, the queue's folder and the door's address.

Exit codes: 0 no problem, 1 a problem or a mistake in a file, 2 a file cannot be read.

Examples:
  libroseg doctor
  libroseg doctor --only warehouse --timeout 30s
  libroseg doctor --format json | jq '.files[].online[].findings[] | select(.grade == \"problem\")'
  libroseg check --online                 the check first, and then the same";

/// What to look at, and for how long.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// Look at this destination alone, or at these
    #[arg(short = 'd', long, visible_alias = "destination", value_name = "NAME")]
    only: Vec<String>,

    /// The longest that one step may take: an address, a connection, an answer
    #[arg(long, value_name = "DURATION", value_parser = timeout, default_value = "10s")]
    timeout: Duration,

    /// How to tell what is found
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Format,

    /// Read variables from a file of KEY=VALUE lines; they lie over those of the environment
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

/// How it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for everything that was looked at
    #[default]
    Human,
    /// One JSON document
    Json,
}

/// What to look at, and for how long.
#[derive(Clone, Debug)]
pub(super) struct Round {
    /// These destinations alone; empty: everything.
    pub(super) only: Vec<String>,
    /// The longest that one step may take.
    pub(super) timeout: Duration,
    /// The port that the environment gives the door.
    pub(super) port: Option<String>,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    name: String,
    kind: &'static str,
    findings: Vec<Finding>,
}

/// The longest that one step may take when nobody says.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Visits at a time: enough for any file, and no storm.
const VISITS_AT_A_TIME: usize = 8;

/// Looks, and answers the exit code.
pub(super) fn run(files: &[PathBuf], options: &Options, variables: &BTreeMap<String, String>) -> u8 {
    let is_json = options.format == Format::Json;
    let (env_file, only) = (options.env_file.clone(), options.only.clone());
    check::run(files, &check::Options::online(env_file, is_json, only, options.timeout), variables)
}

/// The longest that a step may take.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = super::duration(text)?;
    if timeout.is_zero() { Err("nothing is done in no time".to_owned()) } else { Ok(timeout) }
}

/// Makes all visits. Each is told when it is over; the answer has them in the order of the file.
///
/// # Errors
/// What kept us from looking at all.
pub(super) fn look(plan: &Plan, round: &Round, tell: &mut dyn FnMut(&Visit)) -> Result<Vec<Visit>, String> {
    let known =
        || plan.destinations.iter().map(|d| d.name.as_str()).chain(plan.disabled.iter().map(|d| d.name.as_str()));
    for name in &round.only {
        super::known(name, known(), "destination")?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("error: cannot start the runtime: {error}"))?;
    let visits = runtime.block_on(visits(plan, round, tell));
    // Whoever looks for an address may take longer than we wait.
    runtime.shutdown_background();
    Ok(visits)
}

async fn visits(plan: &Plan, round: &Round, tell: &mut dyn FnMut(&Visit)) -> Vec<Visit> {
    let waiting = Waiting::new();
    let sinks = Sinks::default();
    let places = Place::all(plan, round);
    let mut under_way = stream::iter(places.iter().enumerate())
        .map(|(position, place)| {
            let (waiting, sinks) = (&waiting, &sinks);
            async move {
                waiting.begins(&place.name());
                let visit = Visit { name: place.name(), kind: place.kind(), findings: place.visit(sinks, round).await };
                waiting.ends(&visit.name);
                (position, visit)
            }
        })
        .buffer_unordered(VISITS_AT_A_TIME);
    let mut visits = Vec::new();
    while let Some((position, visit)) = under_way.next().await {
        waiting.aside(|| tell(&visit));
        visits.push((position, visit));
    }
    visits.sort_by_key(|(position, _)| *position);
    visits.into_iter().map(|(_, visit)| visit).collect()
}

// === where to go ===

enum Place<'p> {
    Door(&'p Plan),
    Queue(&'p QueueSettings),
    On(&'p Arc<Destination>),
    Off { name: &'p str, why: &'p str },
}

impl<'p> Place<'p> {
    fn all(plan: &'p Plan, round: &Round) -> Vec<Self> {
        let is_wanted = |name: &str| round.only.is_empty() || round.only.iter().any(|only| only == name);
        let mut places = Vec::new();
        if round.only.is_empty() {
            places.extend([Self::Door(plan), Self::Queue(&plan.queue)]);
        }
        places.extend(plan.destinations.iter().filter(|on| is_wanted(on.name.as_str())).map(Self::On));
        let off = plan.disabled.iter().filter(|off| is_wanted(off.name.as_str()));
        places.extend(off.map(|off| Self::Off { name: off.name.as_str(), why: &off.why }));
        places
    }

    fn name(&self) -> String {
        match self {
            Self::Door(_) => "[server]".to_owned(),
            Self::Queue(_) => "[queue]".to_owned(),
            Self::On(destination) => destination.name.to_string(),
            Self::Off { name, .. } => (*name).to_owned(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Door(_) => "server",
            Self::Queue(_) => "queue",
            Self::Off { .. } => "off",
            Self::On(destination) => match destination.kind {
                DestinationKind::Http => "http",
                DestinationKind::BigQuery(_) => "bigquery",
                DestinationKind::File(_) => "file",
                DestinationKind::Stdout => "stdout",
            },
        }
    }

    async fn visit(&self, sinks: &Sinks, round: &Round) -> Vec<Finding> {
        match self {
            Self::Door(plan) => door(plan, round).await,
            Self::Queue(settings) => queue_of(settings),
            Self::Off { why, .. } => {
                vec![Finding::new(Grade::Unknown, "the destination", format!("is off ({why}): not looked at"))]
            }
            Self::On(destination) => {
                let look = Look { timeout: round.timeout, now: Clock::system().now() };
                let looked = sinks.look(destination, look).await;
                looked.unwrap_or_else(|error| {
                    vec![Finding::new(Grade::Problem, "the connection", format!("{:#}", anyhow::Error::from(error)))]
                })
            }
        }
    }
}

// === the machine ===

async fn door(plan: &Plan, round: &Round) -> Vec<Finding> {
    let server = &plan.server;
    let listen = serve::listen_address(&server.listen, round.port.as_deref(), None);
    let mut found = vec![address(&listen, server.tls.is_some(), plan, round.timeout).await];
    if let Metrics::At(metrics) = &server.metrics {
        found.push(address(metrics, false, plan, round.timeout).await);
    }
    found.extend(certificate(server));
    found
}

/// Whether the door could open there, or stands open already.
async fn address(listen: &str, is_tls: bool, plan: &Plan, timeout: Duration) -> Finding {
    let subject = format!("address {listen}");
    let Err(error) = TcpListener::bind(listen).await else { return Finding::new(Grade::Fine, subject, "is free") };
    if error.kind() != io::ErrorKind::AddrInUse {
        return Finding::new(Grade::Problem, subject, format!("cannot be had: {error}")).help("listen at another one");
    }
    if is_served(plan).await {
        return Finding::new(Grade::Fine, subject, "is a running libroseg's");
    }
    if Probe::new(listen, is_tls).ask(timeout).await.is_ok_and(|status| status.is_success()) {
        return Finding::new(Grade::Fine, subject, "is a running service's that is healthy: a libroseg, it seems");
    }
    Finding::new(Grade::Problem, subject, "is taken by somebody else").help("stop them, or listen at another one")
}

/// Whether a service takes commands.
#[cfg(unix)]
async fn is_served(plan: &Plan) -> bool {
    match crate::admin::socket::path(plan) {
        Some(path) => tokio::net::UnixStream::connect(path).await.is_ok(),
        None => false,
    }
}

#[cfg(not(unix))]
async fn is_served(_: &Plan) -> bool {
    false
}

fn certificate(server: &Server) -> Option<Finding> {
    let tls = server.tls.as_ref()?;
    let subject = format!("certificate {}", tls.cert.display());
    Some(match Tls::open(tls.cert.clone(), tls.key.clone()) {
        Ok(_) => Finding::new(Grade::Fine, subject, "can be used with its key"),
        Err(error) => {
            let message = format!("cannot be used: {:#}", anyhow::Error::from(error));
            Finding::new(Grade::Problem, subject, message).help("`cert` and `key` are PEM files that belong together")
        }
    })
}

fn queue_of(settings: &QueueSettings) -> Vec<Finding> {
    match settings.kind {
        QueueKind::Memory => vec![Finding::new(Grade::Fine, "memory", "needs no folder")],
        QueueKind::Disk => {
            let folder = folder::look_at_folder(&settings.dir);
            let room = (folder.grade == Grade::Fine).then(|| room(settings));
            [folder].into_iter().chain(room).collect()
        }
    }
}

/// Whether what the queue may hold fits on its disk.
fn room(settings: &QueueSettings) -> Finding {
    let subject = format!("the disk of {}", settings.dir.display());
    let (existing, max) = (folder::existing(&settings.dir), settings.size_bytes_max);
    let usable = match disk::usable_bytes(&existing) {
        Ok(usable) => usable,
        Err(error) => {
            return Finding::new(Grade::Unknown, subject, format!("does not tell what room is left: {error}"));
        }
    };
    let needed = max.saturating_sub(bytes_in(&settings.dir));
    let told = format!("{}, and the queue may grow by {}", queue::size(usable), queue::size(needed));
    if usable >= needed {
        return Finding::new(Grade::Fine, subject, format!("has room for {told}"));
    }
    let warning = Finding::new(Grade::Warning, subject, format!("has room for only {told}"));
    warning.help("once it is full the door answers 503: lower `max_size`, or make room")
}

/// Bytes of the files in a folder.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(std::fs::Metadata::is_file).map(|meta| meta.len()).sum()
}

// === telling ===

impl Visit {
    /// Whether something has to be done.
    pub(super) fn has_problem(&self) -> bool {
        self.findings.iter().any(|finding| finding.grade == Grade::Problem)
    }

    /// It for a person: a line for each finding, and what to do below it.
    pub(super) fn text(&self) -> String {
        let is_destination = !self.name.starts_with('[');
        let kind = if is_destination { format!(" ({})", self.kind) } else { String::new() };
        let mut text = format!("\n{}{kind}\n", self.name);
        for finding in &self.findings {
            let line = format!("  {:<9}  {} {}\n", finding.grade, finding.subject, finding.message);
            text.push_str(&clean(&line));
            for line in finding.help.iter().flat_map(|help| help.lines()) {
                text.push_str(&clean(&format!("             {line}\n")));
            }
        }
        text
    }

    /// It for programs.
    pub(super) fn json(&self) -> Value {
        let finding = |finding: &Finding| {
            json!({
                "grade": finding.grade.as_str(),
                "subject": finding.subject,
                "message": finding.message,
                "help": finding.help,
            })
        };
        json!({
            "name": self.name,
            "type": self.kind,
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    }
}

/// All visits, in a line.
pub(super) fn summary(visits: &[Visit]) -> String {
    let count = |grade| visits.iter().flat_map(|visit| &visit.findings).filter(|found| found.grade == grade).count();
    let mut parts = vec![match count(Grade::Problem) {
        0 => "no problem".to_owned(),
        problems => counted(problems, "problem"),
    }];
    parts.extend(Some(count(Grade::Warning)).filter(|count| *count > 0).map(|count| counted(count, "warning")));
    parts.extend(Some(count(Grade::Unknown)).filter(|count| *count > 0).map(|count| format!("{count} not known")));
    parts.join(", ")
}

/// Whom we wait for, on a terminal.
struct Waiting {
    bar: Option<ProgressBar>,
    names: Mutex<Vec<String>>,
}

impl Waiting {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}");
            let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, names: Mutex::default() }
    }

    fn begins(&self, name: &str) {
        self.change(|names| names.push(name.to_owned()));
    }

    fn ends(&self, name: &str) {
        self.change(|names| names.retain(|other| other != name));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<String>)) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut names);
        if let Some(bar) = &self.bar {
            bar.set_message(format!("looking at {}", names.join(", ")));
        }
    }

    /// Has something written where the line is.
    fn aside(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
