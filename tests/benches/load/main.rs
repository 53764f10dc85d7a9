//! `cargo bench --bench load`: the real binary under load, beside servers written by hand for one purpose each.
//!
//! The driver builds the binary as it is shipped (`cargo build --release`), starts it, sends it what SDKs send over
//! connections that stay open, and is the service that everything is delivered to. On a machine with two cores or more, what
//! is measured has one core and the driver another, so figures are those of one core. CPU time is what the system says the
//! server's process used, user and system. Ratios to a baseline of the same run are what to compare between machines.
//!
//! ```text
//! cargo bench --bench load                          all of it, some ten minutes
//! cargo bench --bench load -- door walk             what a socket and what the whole way cost
//! cargo bench --bench load -- --quick               everything in short turns, to see that it runs
//! cargo bench --bench load -- --record              draws docs/performance/*.svg as well
//! cargo bench --bench load -- --binary PATH door    of another build
//! cargo bench --bench load -- --drive ADDRESS:PORT  only sends, to a server under a profiler
//! ```
//!
//! No network but the loopback, no files outside of `target/` (some gigabytes, while it runs). Linux only: what processes use
//! is read from `/proc`.

#![allow(missing_docs, reason = "nobody links to a bench")]

#[cfg(target_os = "linux")]
mod driver;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    #[cfg(target_os = "linux")]
    driver::run();
    #[cfg(not(target_os = "linux"))]
    println!("not measured: this system has no /proc");
}
