//! What waiting events cost: memory, the disk, a start after `kill -9`, and the way out. Goals 7 to 10.
//!
//! The sink is closed while events are sent, so that all of them wait; then the binary is killed, started again, and the
//! sink is opened.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Bench;
use super::client::{Pace, drive};
use super::report::{Limit, Picture};
use super::subject::Home;
use super::traffic::{Size, Traffic};

const FIRST: u64 = 1_000;
const BATCH: u64 = 100;
const CONNECTIONS: usize = 16;

/// An idle process is looked at for so long.
const IDLE: Duration = Duration::from_secs(5);

/// A budget of the file's: 250,000 message ids by default, at some 50 bytes each.
const DEDUP_MIB: f64 = 12.0;

const MIB: f64 = (1 << 20) as f64;

/// What one number of waiting events cost.
struct Row {
    events: f64,
    accepted_us: f64,
    /// With all of them waiting.
    resident_mib: f64,
    disk: f64,
    written: f64,
    start_ms: f64,
    delivered_us: f64,
    delivered_per_second: f64,
    resident_mib_max: f64,
}

pub(crate) fn measure(bench: &mut Bench) {
    idle(bench);
    let traffic = Rc::new(Traffic::new(100, Size::Mixed));
    println!("\nevents that wait, of {:.0} bytes of JSON on average", traffic.event_bytes);
    println!(
        "{:>10} {:>13} {:>8} {:>10} {:>13} {:>11} {:>13} {:>14} {:>12}",
        "events",
        "us to accept",
        "RSS MiB",
        "disk/JSON",
        "written/JSON",
        "restart ms",
        "us to deliver",
        "delivered/s",
        "RSS MiB max"
    );
    let mut rows: Vec<Row> = Vec::new();
    let mut events = FIRST;
    while events <= bench.backlog_max {
        let row = one(bench, &traffic, events);
        row.print();
        rows.push(row);
        events *= 10;
    }
    goals(bench, &rows);
    pictures(bench, &rows);
}

#[allow(clippy::cast_precision_loss, reason = "some megabytes")]
fn idle(bench: &mut Bench) {
    let home = Home::new(&super::config("disk", &super::destination(0, bench.sink.address, "")));
    let (subject, start) = home.first_accepted(&bench.binary);
    // The first event is delivered a second later.
    std::thread::sleep(Duration::from_secs(2));
    let before = subject.busy();
    std::thread::sleep(IDLE);
    let busy = subject.busy().saturating_sub(before);
    let resident = subject.usage().resident_bytes as f64 / MIB;
    println!("\nidle: {resident:.1} MiB, {:.2} ms of CPU in {} s", busy.as_secs_f64() * 1e3, IDLE.as_secs());
    let report = &mut bench.report;
    report.goal("7  idle: memory", "MiB", resident, None, Limit::AtMost(20.0));
    report.goal(
        "7  idle: CPU in a second",
        "ms",
        busy.as_secs_f64() * 1e3 / IDLE.as_secs_f64(),
        None,
        Limit::AtMost(1.0),
    );
    report.goal("8  start to first 200, empty", "ms", start.as_secs_f64() * 1e3, None, Limit::AtMost(50.0));
}

#[allow(clippy::cast_precision_loss, reason = "what is counted stays far below 2^52")]
fn one(bench: &Bench, traffic: &Rc<Traffic>, events: u64) -> Row {
    let home = Home::new(&super::config("disk", &super::destination(0, bench.sink.address, "")));
    bench.sink.open(false);
    let rows = bench.sink.rows();
    let subject = home.start(&bench.binary);
    let before = subject.usage();
    let answered = drive(subject.address, traffic, Pace::of(CONNECTIONS, events / BATCH));
    assert_eq!((answered.refused, answered.events), (0, events), "all of it is accepted");
    let filled = subject.usage().since(before);
    let disk_bytes = home.queue_bytes() as f64;
    subject.kill();
    let (subject, start) = home.first_accepted(&bench.binary);
    let (restarted, opened) = (subject.usage(), Instant::now());
    bench.sink.open(true);
    // What the killed process had under way is sent again.
    let end = bench.sink.wait_for(rows + events + 1);
    // The last answer is still to be taken in.
    std::thread::sleep(Duration::from_millis(200));
    let drained = subject.usage();
    let json_bytes = events as f64 * traffic.event_bytes;
    let per_event = |time: Duration| time.as_secs_f64() * 1e6 / events as f64;
    Row {
        events: events as f64,
        accepted_us: per_event(filled.cpu),
        resident_mib: filled.resident_bytes as f64 / MIB,
        disk: disk_bytes / json_bytes,
        written: filled.written_bytes as f64 / json_bytes,
        start_ms: start.as_secs_f64() * 1e3,
        delivered_us: per_event(drained.since(restarted).cpu),
        delivered_per_second: events as f64 / end.duration_since(opened).as_secs_f64(),
        resident_mib_max: drained.resident_bytes_max as f64 / MIB,
    }
}

fn goals(bench: &mut Bench, rows: &[Row]) {
    let Some(last) = rows.last() else { return };
    let thousands = last.events / 1e3;
    bench.report.goal(
        format!("7  memory, {thousands:.0} thousand events wait"),
        "MiB",
        last.resident_mib,
        None,
        Limit::AtMost(64.0 + DEDUP_MIB),
    );
    bench.report.goal(
        "7  memory, while they are delivered".to_owned(),
        "MiB",
        last.resident_mib_max,
        None,
        Limit::AtMost(64.0 + DEDUP_MIB),
    );
    bench.report.goal(
        format!("8  start to first 200, {thousands:.0} thousand wait"),
        "ms",
        last.start_ms,
        None,
        Limit::AtMost(1000.0),
    );
    bench.report.goal("9  bytes on disk by bytes of JSON", "", last.disk, None, Limit::AtMost(0.25));
    bench.report.goal("9  bytes written by bytes on disk", "", last.written, Some(last.disk), Limit::RatioAtMost(1.3));
    // Of a few thousand the system tells too little CPU time.
    if let Some(first) = rows.iter().find(|row| row.events >= 1e5).filter(|first| first.events < last.events) {
        let name = format!("10 CPU to deliver, {thousands:.0} thousand by {:.0} thousand", first.events / 1e3);
        bench.report.goal(name, "us", last.delivered_us, Some(first.delivered_us), Limit::RatioAtMost(1.1));
        let name = format!("10 CPU to accept, {thousands:.0} thousand by {:.0} thousand", first.events / 1e3);
        bench.report.goal(name, "us", last.accepted_us, Some(first.accepted_us), Limit::RatioAtMost(1.1));
    }
}

fn pictures(bench: &Bench, rows: &[Row]) {
    let line = |name: &str, value: fn(&Row) -> f64| {
        let points = rows.iter().map(|row| (row.events, value(row)));
        (name.to_owned(), points.filter(|(_, value)| *value > 0.0).collect::<Vec<_>>())
    };
    bench.report.picture(&Picture {
        file: "backlog-cpu.svg",
        title: "CPU of an event, by how many wait",
        x: "events that wait",
        y: "CPU µs per event",
        lines: vec![
            line("accept, in batches of 100", |row| row.accepted_us),
            line("deliver, in requests of 500", |row| row.delivered_us),
        ],
    });
    bench.report.picture(&Picture {
        file: "backlog-memory.svg",
        title: "Memory and restart, by how many events wait",
        x: "events that wait",
        y: "MiB, ms",
        lines: vec![
            line("memory with all waiting, MiB", |row| row.resident_mib),
            line("most memory while delivering, MiB", |row| row.resident_mib_max),
            line("kill -9 to the next 200, ms", |row| row.start_ms),
        ],
    });
}

impl Row {
    fn print(&self) {
        println!(
            "{:>10.0} {:>13.2} {:>8.1} {:>10.2} {:>13.2} {:>11.1} {:>13.2} {:>14.0} {:>12.1}",
            self.events,
            self.accepted_us,
            self.resident_mib,
            self.disk,
            self.written,
            self.start_ms,
            self.delivered_us,
            self.delivered_per_second,
            self.resident_mib_max
        );
    }
}
