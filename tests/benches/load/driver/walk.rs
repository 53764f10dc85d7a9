//! From a socket to the destination: goal 5. Each destination gets every event as a row of nine columns, 500 in a request,
//! and the clock stops when the sink has seen them all.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Bench;
use super::baselines::Baseline;
use super::client::Pace;
use super::report::Limit;
use super::subject::{Home, Subject};
use super::traffic::{Size, Traffic};

/// Connections for single events, and for batches.
const CONNECTIONS: [(usize, usize); 2] = [(1, 64), (100, 16)];

/// Of what one destination leaves a core room for: five of them are to keep up as well.
const SHARE: f64 = 0.2;

/// A server between its senders and the sink.
struct Server {
    name: String,
    subject: Subject,
    destinations: u64,
    /// Where it runs; gone with the server.
    _home: Option<Home>,
}

/// What one server did.
pub(crate) struct Walked {
    pub(crate) cpu_us: f64,
    pub(crate) events_per_second: f64,
    pub(crate) p99_ms: f64,
    pub(crate) resident_mib: f64,
}

pub(crate) fn measure(bench: &mut Bench) {
    for (events, connections) in CONNECTIONS {
        let traffic = Rc::new(Traffic::new(events, Size::Mixed));
        let what = if events == 1 { "single events".to_owned() } else { format!("batches of {events}") };
        let full = walk(bench, &disk(bench), &traffic, Pace::full(connections, bench.turn));
        let events_per_second = SHARE * 1e6 / full.cpu_us;
        println!("\nfrom the door to the sink, {what}, {connections} connections, {events_per_second:.0} events/s");
        println!(
            "{:<40} {:>12} {:>8} {:>14} {:>8} {:>8}",
            "server", "CPU us/event", "by hand", "delivered/s", "p99 ms", "RSS MiB"
        );
        print("ours, disk, never without work", &full, None);
        #[allow(clippy::cast_precision_loss, reason = "a hundred")]
        let requests_per_second = Some(events_per_second / events as f64);
        let pace = Pace { requests_per_second, ..Pace::full(connections, bench.turn * 2) };
        let mut rows: Vec<(String, Walked)> = Vec::new();
        for start in [by_hand, memory, disk, disk_gzip, disk_of_five] {
            let server = start(bench);
            let walked = walk(bench, &server, &traffic, pace);
            print(&server.name, &walked, rows.first().map(|(_, by_hand)| by_hand));
            rows.push((server.name, walked));
        }
        let [by_hand, _, disk, _, of_five] = &rows[..] else { unreachable!("five servers") };
        let limit = if events == 1 { 20.0 } else { 7.0 };
        bench.report.goal(
            format!("5  {what}, disk, to the sink: CPU per event"),
            "us",
            full.cpu_us,
            None,
            Limit::AtMost(limit),
        );
        let each = (of_five.1.cpu_us - disk.1.cpu_us) / 4.0;
        bench.report.goal(
            format!("5  {what}: each further destination, by all by hand"),
            "us",
            each,
            Some(by_hand.1.cpu_us),
            Limit::RatioAtMost(1.5),
        );
    }
}

fn by_hand(bench: &Bench) -> Server {
    let subject = Baseline::Walk.start(bench.sink.address);
    Server { name: "axum, serde by hand, nothing kept".to_owned(), subject, destinations: 1, _home: None }
}

fn memory(bench: &Bench) -> Server {
    ours(bench, "ours, memory", "memory", 1, "")
}

fn disk(bench: &Bench) -> Server {
    ours(bench, "ours, disk", "disk", 1, "")
}

fn disk_gzip(bench: &Bench) -> Server {
    ours(bench, "ours, disk, gzip on the way out", "disk", 1, "compression = \"gzip\"\n")
}

fn disk_of_five(bench: &Bench) -> Server {
    ours(bench, "ours, disk, five destinations", "disk", 5, "")
}

fn ours(bench: &Bench, name: &str, queue: &str, destinations: u64, more: &str) -> Server {
    let all: String = (0..destinations).map(|n| super::destination(n, bench.sink.address, more)).collect();
    let home = Home::new(&super::config(queue, &all));
    Server { name: name.to_owned(), subject: home.start(&bench.binary), destinations, _home: Some(home) }
}

fn walk(bench: &Bench, server: &Server, traffic: &Rc<Traffic>, pace: Pace) -> Walked {
    until_delivered(bench, &server.subject, server.destinations, traffic, pace)
}

/// Sends, and waits until every destination has got everything; without one, what is told is what accepting cost.
pub(crate) fn until_delivered(
    bench: &Bench,
    subject: &Subject,
    destinations: u64,
    traffic: &Rc<Traffic>,
    pace: Pace,
) -> Walked {
    let (before, rows, start) = (subject.usage(), bench.sink.rows(), Instant::now());
    let answered = super::client::drive(subject.address, traffic, pace);
    assert_eq!(answered.refused, 0, "nothing is refused");
    let end = bench.sink.wait_for(rows + answered.events * destinations);
    // The last answers are still to be settled.
    std::thread::sleep(Duration::from_millis(200));
    let usage = subject.usage().since(before);
    #[allow(clippy::cast_precision_loss, reason = "what is counted stays far below 2^52")]
    Walked {
        cpu_us: usage.cpu.as_secs_f64() * 1e6 / answered.events as f64,
        events_per_second: answered.events as f64 / end.duration_since(start).as_secs_f64(),
        p99_ms: answered.within_ms(0.99),
        resident_mib: usage.resident_bytes as f64 / f64::from(1 << 20),
    }
}

fn print(server: &str, walked: &Walked, by_hand: Option<&Walked>) {
    let Walked { cpu_us, events_per_second, p99_ms, resident_mib } = walked;
    let ratio = by_hand.map_or_else(String::new, |by_hand| format!("{:.2}", cpu_us / by_hand.cpu_us));
    println!("{server:<40} {cpu_us:>12.2} {ratio:>8} {events_per_second:>14.0} {p99_ms:>8.2} {resident_mib:>8.1}");
}
