//! From a socket to the 200: goals 1 to 3. No destination is declared, so nothing is delivered.

use std::rc::Rc;

use super::Bench;
use super::baselines::Baseline;
use super::client::{Answered, Pace};
use super::report::{Limit, Picture};
use super::subject::{Home, Subject, Usage};
use super::traffic::{Size, Traffic};

const CONNECTIONS: [usize; 5] = [1, 4, 16, 64, 256];

/// Connections that goals are about.
const MANY: usize = 64;

const MEMORY: &str = "ours, memory";
const DISK: &str = "ours, disk";
const FLOOR: &str = "axum, body read";
const SCAN: &str = "axum + RawValue scan";
const LOG: &str = "axum + group commit";

/// What one server did with one kind of load.
struct Row {
    server: &'static str,
    connections: usize,
    answered: Answered,
    usage: Usage,
    event_bytes: f64,
}

pub(crate) fn measure(bench: &mut Bench) {
    let loads = [
        (1, "single events", "door-single.svg", "Accepting single events"),
        (100, "batches of 100", "door-batch.svg", "Accepting batches of 100"),
    ];
    for (events, what, file, title) in loads {
        println!("\nthe door, {what}");
        let rows = table(bench, events);
        goals(bench, &rows, events);
        let lines = [MEMORY, DISK, FLOOR, LOG].map(|server| {
            let of_server = rows.iter().filter(|row| row.server == server);
            #[allow(clippy::cast_precision_loss, reason = "a few connections")]
            let points = of_server.map(|row| (row.connections as f64, row.cpu_us())).collect();
            (server.to_owned(), points)
        });
        bench.report.picture(&Picture { file, title, x: "connections", y: "CPU µs per event", lines: lines.into() });
    }
}

fn table(bench: &Bench, events: usize) -> Vec<Row> {
    let traffic = Rc::new(Traffic::new(events, Size::Mixed));
    println!("events of {:.0} bytes of JSON on average", traffic.event_bytes);
    println!(
        "{:<22} {:>11} {:>12} {:>8} {:>12} {:>8} {:>8} {:>9} {:>8} {:>13}",
        "server",
        "connections",
        "CPU us/event",
        "of floor",
        "events/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "RSS MiB",
        "written/JSON"
    );
    let homes = ["memory", "disk"].map(|queue| Home::new(&super::config(queue, "")));
    let [memory, disk] = [0, 1].map(|n| homes[n].start(&bench.binary));
    let [floor, scan, log] =
        [Baseline::Floor, Baseline::Scan, Baseline::Log].map(|baseline| baseline.start(bench.sink.address));
    let servers: [(&'static str, &Subject); 5] =
        [(FLOOR, &floor), (SCAN, &scan), (LOG, &log), (MEMORY, &memory), (DISK, &disk)];
    let mut rows: Vec<Row> = Vec::new();
    for connections in CONNECTIONS {
        let first = rows.len();
        for (server, _) in servers {
            let (answered, usage) = (Answered::default(), Usage::default());
            rows.push(Row { server, connections, answered, usage, event_bytes: traffic.event_bytes });
        }
        for _ in 0..bench.rounds {
            for ((_, subject), row) in servers.iter().zip(&mut rows[first..]) {
                let (answered, usage) = bench.turn(subject, &traffic, Pace::full(connections, bench.turn));
                row.add(answered, usage);
            }
        }
        let floor = rows[first].cpu_us();
        for row in &rows[first..] {
            row.print(floor);
        }
    }
    rows
}

fn goals(bench: &mut Bench, rows: &[Row], events: usize) {
    let of = |server: &str| {
        let row = rows.iter().find(|row| row.server == server && row.connections == MANY);
        row.expect("every server has its turn")
    };
    let (memory, disk, floor, scan, log) = (of(MEMORY), of(DISK), of(FLOOR), of(SCAN), of(LOG));
    if events == 1 {
        bench.report.goal(
            "1  single, memory: CPU, by axum's",
            "us",
            memory.cpu_us(),
            Some(floor.cpu_us()),
            Limit::RatioAtMost(1.5),
        );
        bench.report.goal(
            "2  single, disk: CPU, by axum's",
            "us",
            disk.cpu_us(),
            Some(floor.cpu_us()),
            Limit::RatioAtMost(2.0),
        );
        bench.report.goal(
            "2  single, disk: p99 at 64 connections",
            "ms",
            disk.answered.within_ms(0.99),
            None,
            Limit::AtMost(3.0),
        );
        let per_second = |row: &Row| row.answered.events_per_second() / 1e3;
        bench.report.goal(
            "2  single, disk: throughput, by memory's",
            "k/s",
            per_second(disk),
            Some(per_second(memory)),
            Limit::RatioAtLeast(0.8),
        );
        bench.report.goal(
            "2  single, disk: throughput, by axum + group commit's",
            "k/s",
            per_second(disk),
            Some(per_second(log)),
            Limit::RatioAtLeast(0.8),
        );
    } else {
        bench.report.goal("3  batches, disk: CPU per event", "us", disk.cpu_us(), None, Limit::AtMost(2.0));
        bench.report.goal(
            "3  batches, disk: CPU per event, by axum + scan's",
            "us",
            disk.cpu_us(),
            Some(scan.cpu_us()),
            Limit::RatioAtMost(2.0),
        );
        bench.report.goal(
            "9  bytes written by bytes of JSON, batches",
            "",
            disk.written(),
            None,
            Limit::AtMost(0.25 * 1.3),
        );
    }
}

// === impl Row ===

#[allow(clippy::cast_precision_loss, reason = "what is counted stays far below 2^52")]
impl Row {
    fn add(&mut self, answered: Answered, usage: Usage) {
        self.answered.add(answered);
        let cpu = self.usage.cpu + usage.cpu;
        let written_bytes = self.usage.written_bytes + usage.written_bytes;
        self.usage = Usage { cpu, written_bytes, ..usage };
    }

    fn cpu_us(&self) -> f64 {
        self.usage.cpu.as_secs_f64() * 1e6 / self.answered.events as f64
    }

    fn written(&self) -> f64 {
        self.usage.written_bytes as f64 / (self.answered.events as f64 * self.event_bytes)
    }

    fn print(&self, floor: f64) {
        let Self { server, connections, answered, usage, .. } = self;
        println!(
            "{server:<22} {connections:>11} {:>12.2} {:>8.2} {:>12.0} {:>8.2} {:>8.2} {:>9.2} {:>8.1} {:>13.2}",
            self.cpu_us(),
            self.cpu_us() / floor,
            answered.events_per_second(),
            answered.within_ms(0.5),
            answered.within_ms(0.99),
            answered.within_ms(0.999),
            usage.resident_bytes as f64 / f64::from(1 << 20),
            self.written(),
        );
        assert_eq!(answered.refused, 0, "nothing is refused");
    }
}
