//! What destinations that are ill cost those who send: goal 6. Five destinations, of which two hang or fail, beside five
//! that are well, in turns, at half of the load that the well ones take.

use std::net::SocketAddr;
use std::rc::Rc;

use super::Bench;
use super::client::{Answered, Pace};
use super::report::Limit;
use super::subject::{Home, Subject};
use super::traffic::{Size, Traffic};

const CONNECTIONS: usize = 64;
const WELL: [&str; 5] = ["ok", "ok", "ok", "ok", "ok"];
const ILL: [&str; 5] = ["hang", "fail", "ok", "ok", "ok"];

pub(crate) fn measure(bench: &mut Bench) {
    let traffic = Rc::new(Traffic::new(1, Size::Mixed));
    let homes = [WELL, ILL].map(|paths| Home::new(&super::config("disk", &destinations(bench.sink.address, paths))));
    let [well, ill]: [Subject; 2] = [0, 1].map(|n| homes[n].start(&bench.binary));
    let (full, _) = bench.turn(&well, &traffic, Pace::full(CONNECTIONS, bench.turn));
    let half = full.requests_per_second() / 2.0;
    let pace = Pace { requests_per_second: Some(half), ..Pace::full(CONNECTIONS, bench.turn) };
    let mut times = [Answered::default(), Answered::default()];
    let mut p99s_ms = [Vec::new(), Vec::new()];
    for _ in 0..bench.rounds * 3 {
        for (n, subject) in [&well, &ill].into_iter().enumerate() {
            let answered = bench.turn(subject, &traffic, pace).0;
            p99s_ms[n].push(answered.within_ms(0.99));
            times[n].add(answered);
        }
    }
    println!("\nanswers at half load, {half:.0} single events/s, five destinations");
    println!("{:<28} {:>8} {:>8} {:>9} {:>9}", "destinations", "p50 ms", "p99 ms", "p99.9 ms", "refused");
    for (name, answered) in ["all well", "one hangs, one answers 503"].into_iter().zip(&times) {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|part| answered.within_ms(part));
        println!("{name:<28} {p50:>8.2} {p99:>8.2} {p999:>9.2} {:>9}", answered.refused);
    }
    // Of turns, so that one stall of the disk does not decide: it would be a hundredth of all answers.
    let [well_ms, ill_ms] = p99s_ms.map(median);
    let name = "6  p99 in half of the turns, two of five destinations ill";
    bench.report.goal(name, "ms", ill_ms, Some(well_ms), Limit::RatioAtMost(1.1));
}

fn destinations(sink: SocketAddr, paths: [&str; 5]) -> String {
    let each = paths.iter().enumerate().map(|(n, path)| {
        format!(
            "[destinations.d{n}]\nurl = \"http://{sink}/{path}\"\nbatch = {{ max_events = 500 }}\n\
             body = {{ id = \"{{{{ messageId }}}}\", event = \"{{{{ event }}}}\" }}\n"
        )
    });
    each.collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
