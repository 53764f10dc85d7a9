//! The driver: what is measured, in which order, and for how long.

#[path = "../../support/mod.rs"]
mod support;

mod backlog;
mod baselines;
mod client;
mod door;
mod growth;
mod ill;
mod peers;
mod report;
mod sink;
mod subject;
mod traffic;
mod walk;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use baselines::Baseline;
use client::{Answered, Pace};
use report::Report;
use sink::Sink;
use subject::{Subject, Usage};
use traffic::Traffic;

/// Measures the binary under load.
#[derive(Parser)]
struct Arguments {
    /// What to measure; when nothing is named, everything but `peers`
    what: Vec<What>,
    /// Short turns and a small backlog: to see that it runs, not how fast
    #[arg(long)]
    quick: bool,
    /// Draw how cost grows into docs/performance
    #[arg(long)]
    record: bool,
    /// Measure this binary instead of building one
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Most events that wait at once [default: 10000000, with --quick 100000]
    #[arg(long, value_name = "EVENTS")]
    backlog: Option<u64>,
    /// Send to a server that runs already, with the write key `key`, and measure nothing but its answers: under a profiler
    #[arg(long, value_name = "ADDRESS:PORT")]
    drive: Option<SocketAddr>,
    /// With --drive: events in a request
    #[arg(long, value_name = "EVENTS", default_value_t = 1)]
    batch: usize,
    /// With --drive: connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// With --drive: for how long
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Be a baseline, for the driver that starts this
    #[arg(long, hide = true, requires_all = ["listen", "sink"])]
    serve: Option<Baseline>,
    #[arg(long, hide = true)]
    listen: Option<SocketAddr>,
    #[arg(long, hide = true)]
    sink: Option<SocketAddr>,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// From a socket to the 200, by connections, beside axum
    Door,
    /// From a socket to the destination, beside a program written by hand
    Walk,
    /// The 200 while destinations hang and fail
    Ill,
    /// Memory, disk, restart and delivery, by how many events wait
    Backlog,
    /// By the size of events, by destinations, by rules
    Growth,
    /// The app of tests/benches/peers; needs Node and npm
    Peers,
}

/// What every measurement needs.
struct Bench {
    binary: PathBuf,
    sink: Sink,
    /// How long a server has its turn, and how often.
    turn: Duration,
    rounds: usize,
    backlog_max: u64,
    /// Events for one point of a curve.
    growth_events: u64,
    report: Report,
}

pub(crate) fn run() {
    let arguments = Arguments::parse();
    if let (Some(baseline), Some(address), Some(sink)) = (arguments.serve, arguments.listen, arguments.sink) {
        return baseline.serve(address, sink);
    }
    // `cargo test --benches` runs this too, and wants to know only that it runs.
    if !arguments.bench {
        return;
    }
    if let Some(address) = arguments.drive {
        return drive(address, &arguments);
    }
    let start = Instant::now();
    let binary = arguments.binary.as_ref().map_or_else(build, |path| std::path::absolute(path).expect("a path"));
    subject::pin_driver();
    let quick = arguments.quick;
    let mut bench = Bench {
        binary,
        sink: Sink::start(),
        turn: Duration::from_millis(if quick { 300 } else { 2_000 }),
        rounds: if quick { 1 } else { 2 },
        backlog_max: arguments.backlog.unwrap_or(if quick { 100_000 } else { 10_000_000 }),
        growth_events: if quick { 20_000 } else { 200_000 },
        report: Report::new(arguments.record.then(|| PathBuf::from("docs/performance"))),
    };
    for what in What::value_variants() {
        let is_asked = if arguments.what.is_empty() { *what != What::Peers } else { arguments.what.contains(what) };
        if is_asked {
            what.measure(&mut bench);
        }
    }
    bench.report.print_goals();
    println!("\n{:.0} s in all", start.elapsed().as_secs_f64());
}

impl What {
    fn measure(self, bench: &mut Bench) {
        match self {
            Self::Door => door::measure(bench),
            Self::Walk => walk::measure(bench),
            Self::Ill => ill::measure(bench),
            Self::Backlog => backlog::measure(bench),
            Self::Growth => growth::measure(bench),
            Self::Peers => peers::measure(bench),
        }
    }
}

impl Bench {
    /// Sends for a while; answers what came of it and what the server used meanwhile.
    #[allow(clippy::unused_self, reason = "a turn is the bench's")]
    fn turn(&self, subject: &Subject, traffic: &Rc<Traffic>, pace: Pace) -> (Answered, Usage) {
        let before = subject.usage();
        let answered = client::drive(subject.address, traffic, pace);
        (answered, subject.usage().since(before))
    }
}

fn drive(address: SocketAddr, arguments: &Arguments) {
    subject::pin_driver();
    let traffic = Rc::new(Traffic::new(arguments.batch, traffic::Size::Mixed));
    let pace = Pace::full(arguments.connections, Duration::from_secs(arguments.seconds));
    let answered = client::drive(address, &traffic, pace);
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|part| answered.within_ms(part));
    println!(
        "{} events accepted, {:.0} a second; {} requests refused; p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms",
        answered.events,
        answered.events_per_second(),
        answered.refused
    );
}

/// The binary as it is shipped.
fn build() -> PathBuf {
    println!("building the binary as it is shipped");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(["build", "--release", "--locked", "--quiet", "--bin", "libroseg"]).status();
    assert!(status.expect("cargo runs").success(), "the binary can be built");
    subject::target().join("release").join("libroseg")
}

/// A file with one source, this kind of queue, and these destinations.
fn config(queue: &str, destinations: &str) -> String {
    let disk = if queue == "disk" { "dir = \"queue\"\nmax_size = \"100GB\"\n" } else { "" };
    format!("[sources.bench]\nwrite_keys = [\"key\"]\n[queue]\ntype = \"{queue}\"\n{disk}{destinations}")
}

/// The shipped preset for BigQuery, nine columns and requests of 500 rows, with more lines of its own.
fn destination(n: u64, sink: SocketAddr, more: &str) -> String {
    let compression = if more.contains("compression") { "" } else { "compression = \"none\"\n" };
    format!(
        "[destinations.d{n}]\nextends = \"bigquery\"\nendpoint = \"http://{sink}\"\nproject = \"acme\"\ndataset = \"events\"\n\
         table = \"t{n}\"\ncredentials = false\ncreate_table = false\n{compression}{more}"
    )
}
