//! How the cost of an event grows with its size, with the number of destinations, and with that of rules that do not match.

use std::fmt::Write as _;
use std::rc::Rc;

use super::Bench;
use super::client::Pace;
use super::report::{Limit, Picture};
use super::subject::Home;
use super::traffic::{Size, Traffic};
use super::walk::until_delivered;

const SIZES_BYTES: [usize; 8] = [200, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000];
const DESTINATIONS: [u64; 6] = [1, 2, 5, 10, 20, 50];
const RULES: [usize; 6] = [1, 10, 20, 50, 100, 200];

/// What rules ask that do not match.
const FILTERS: [&str; 2] =
    ["on = \"alias\"", "when = \"$.properties.total > 1000000 && $.properties.currency == 'CHF'\""];

const CONNECTIONS: usize = 16;

pub(crate) fn measure(bench: &mut Bench) {
    sizes(bench);
    destinations(bench);
    rules(bench);
}

#[allow(clippy::cast_precision_loss, reason = "a few thousand bytes")]
fn sizes(bench: &mut Bench) {
    println!("\nsingle events by their size, to one destination");
    println!("{:>10} {:>14} {:>14}", "bytes", "CPU us/event", "CPU us/KiB");
    let mut points = Vec::new();
    for bytes in SIZES_BYTES {
        let traffic = Rc::new(Traffic::new(1, Size::Bytes(bytes)));
        let events = bench.growth_events / (1 + bytes as u64 / 4_000);
        let cpu_us = cost(bench, &traffic, events, 1, "");
        println!("{:>10.0} {cpu_us:>14.2} {:>14.2}", traffic.event_bytes, cpu_us * 1024.0 / traffic.event_bytes);
        points.push((traffic.event_bytes / 1024.0, cpu_us));
    }
    let slope = |from: (f64, f64), to: (f64, f64)| (to.1 - from.1) / (to.0 - from.0);
    let (first, middle, last) = (points[0], points[points.len() / 2], points[points.len() - 1]);
    bench.report.goal(
        "10 CPU for a further KiB, large events by small ones",
        "us",
        slope(middle, last),
        Some(slope(first, middle)),
        Limit::RatioAtMost(1.2),
    );
    bench.report.picture(&Picture {
        file: "growth-size.svg",
        title: "Single events, from the door to one destination",
        x: "KiB of JSON",
        y: "CPU µs per event",
        lines: vec![("ours, disk".to_owned(), points)],
    });
}

#[allow(clippy::cast_precision_loss, reason = "a few destinations")]
fn destinations(bench: &mut Bench) {
    println!("\nbatches of 100 by the number of destinations, each of which gets everything");
    println!("{:>12} {:>14} {:>26}", "destinations", "CPU us/event", "for each further one, us");
    let traffic = Rc::new(Traffic::new(100, Size::Mixed));
    let mut points: Vec<(f64, f64)> = Vec::new();
    for count in DESTINATIONS {
        let cpu_us = cost(bench, &traffic, bench.growth_events * 10 / count.max(5), count, "");
        let further = points.last().map(|(before, cost)| (cpu_us - cost) / (count as f64 - before));
        let further = further.map_or_else(String::new, |further| format!("{further:.2}"));
        println!("{count:>12} {cpu_us:>14.2} {further:>26}");
        points.push((count as f64, cpu_us));
    }
    bench.report.picture(&Picture {
        file: "growth-destinations.svg",
        title: "Batches of 100, each event to every destination",
        x: "destinations",
        y: "CPU µs per event",
        lines: vec![("ours, disk".to_owned(), points)],
    });
}

/// The destination's own rule gets everything; those before it nothing.
#[allow(clippy::cast_precision_loss, reason = "a few rules")]
fn rules(bench: &mut Bench) {
    println!("\nbatches of 100 by the number of rules that do not match, beside one that does");
    println!("{:>8} {:>22} {:>22}", "rules", "`on` only, us/event", "`on` and `when`, us");
    let traffic = Rc::new(Traffic::new(100, Size::Mixed));
    let mut lines = [Vec::new(), Vec::new()];
    for count in RULES {
        let costs = FILTERS.map(|filter| {
            let mut rules = String::new();
            for _ in 0..count {
                let _ = write!(rules, "[[destinations.d0.rules]]\n{filter}\n");
            }
            rules.push_str("[[destinations.d0.rules]]\n");
            cost(bench, &traffic, bench.growth_events * 2, 1, &rules)
        });
        println!("{count:>8} {:>22.2} {:>22.2}", costs[0], costs[1]);
        for (line, cost) in lines.iter_mut().zip(costs) {
            line.push((count as f64, cost));
        }
    }
    let [on, when] = lines;
    for (name, points) in [("`on`", &on), ("`when`", &when)] {
        let (first, last) = (points[0], points[points.len() - 1]);
        bench.report.goal(
            format!("4  a rule whose {name} does not match"),
            "us",
            (last.1 - first.1) / (last.0 - first.0),
            None,
            Limit::AtMost(0.3),
        );
    }
    bench.report.picture(&Picture {
        file: "growth-rules.svg",
        title: "Batches of 100, to a destination with rules that do not match",
        x: "rules that do not match",
        y: "CPU µs per event",
        lines: vec![("`on` says no".to_owned(), on), ("a JSONPath filter says no".to_owned(), when)],
    });
}

/// CPU time of an event from the door to the destinations, in microseconds.
fn cost(bench: &Bench, traffic: &Rc<Traffic>, events: u64, destinations: u64, more: &str) -> f64 {
    let all: String = (0..destinations).map(|n| super::destination(n, bench.sink.address, more)).collect();
    let home = Home::new(&super::config("disk", &all));
    let subject = home.start(&bench.binary);
    let requests = events.div_ceil(traffic.events_per_request as u64);
    until_delivered(bench, &subject, destinations, traffic, Pace::of(CONNECTIONS, requests)).cpu_us
}
