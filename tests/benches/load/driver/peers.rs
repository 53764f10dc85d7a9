//! The app that the project's first sketch describes (`tests/benches/peers`), beside ours doing the same: accepting, and
//! accepting with one row an event to a sink. Wants Node and npm, and builds the app when it is not there.

use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use super::Bench;
use super::client::Pace;
use super::subject::{Home, Subject};
use super::traffic::{Size, Traffic};
use super::walk::{Walked, until_delivered};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/benches/peers");

/// Events in a request, and connections.
const LOADS: [(usize, usize); 2] = [(1, 64), (100, 16)];

/// The app bounds nothing of what it has taken in: it is given no more than it can hold.
const EVENTS: u64 = 20_000;

pub(crate) fn measure(bench: &mut Bench) {
    let built = Command::new(Path::new(FOLDER).join("build")).status();
    if !built.is_ok_and(|status| status.success()) {
        println!("\npeers: not measured, since tests/benches/peers/build failed; it needs Node and npm");
        return;
    }
    println!("\nthe blueprint's app on Nitro, and ours");
    println!(
        "{:<12} {:<34} {:>12} {:>12} {:>8} {:>8}",
        "what", "server", "CPU us/event", "events/s", "p99 ms", "RSS MiB"
    );
    for (events, connections) in LOADS {
        let traffic = Rc::new(Traffic::new(events, Size::Mixed));
        let pace = Pace::of(connections, EVENTS / events as u64);
        for destinations in [0, 1] {
            let what = ["accept", "deliver"][usize::from(destinations > 0)];
            let declared = if destinations > 0 { super::destination(0, bench.sink.address, "") } else { String::new() };
            let home = Home::new(&super::config("disk", &declared));
            let ours = home.start(&bench.binary);
            let theirs = blueprint(bench, destinations > 0);
            let [theirs, ours] =
                [&theirs, &ours].map(|subject| until_delivered(bench, subject, destinations, &traffic, pace));
            row(&format!("{what} ×{events}"), "blueprint, nothing kept", &theirs, "");
            row("", "ours, disk", &ours, &format!("{:.0} times less CPU", theirs.cpu_us / ours.cpu_us));
        }
    }
}

fn row(what: &str, server: &str, walked: &Walked, remark: &str) {
    let Walked { cpu_us, events_per_second, p99_ms, resident_mib } = walked;
    println!(
        "{what:<12} {server:<34} {cpu_us:>12.2} {events_per_second:>12.0} {p99_ms:>8.2} {resident_mib:>8.1}  {remark}"
    );
}

fn blueprint(bench: &Bench, delivers: bool) -> Subject {
    Subject::start(|address| {
        let mut command = Command::new("node");
        command.arg(Path::new(FOLDER).join("blueprint/.output/server/index.mjs"));
        command.env("HOST", address.ip().to_string()).env("PORT", address.port().to_string());
        if delivers {
            command.envs(["PROJECT_ID", "DATASET", "TABLE"].map(|what| (format!("BIGQUERY_{what}"), "all")));
            command.env("BIGQUERY_EMULATOR_HOST", format!("http://{}/bigquery/v2", bench.sink.address));
        }
        command
    })
}
