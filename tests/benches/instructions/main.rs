//! `cargo bench --bench instructions`: how many instructions the pure half of the walk takes per event, held to
//! `stored.json`.
//!
//! Time depends on the machine's mood, instructions do not: each case is done in a process of its own under
//! [callgrind](https://valgrind.org/docs/manual/cl-manual.html), which counts what happens inside of one function. A count
//! that is further from the stored one than the margin fails, also when it is better: a figure that is not kept true
//! guards nothing. What has to be is stored with `UPDATE_FIXTURES=1 cargo bench --bench instructions`; say why where you
//! commit it. With a part of a name, only such cases are counted: `-- row`.
//!
//! The profile of each case stays in `target/tmp/instructions`, for `callgrind_annotate` or `KCachegrind`; with
//! `CARGO_PROFILE_BENCH_DEBUG=line-tables-only` it has lines. Baselines are counted in the same run, and are not stored.
//!
//! # Where a count is the same
//!
//! The figures are of x86-64 with AVX2. Programs look for what the processor can (memchr, glibc, crc32fast), and valgrind
//! shows them one of a few processors of its own, by what the real one has: with AVX2 and without AVX-512, wherever there is
//! AVX2. Elsewhere counts are shown and not judged. Another compiler makes other instructions: the file says whose they
//! are, and a run whether that is who compiled it.
//!
//! What is left is probably how seeded hash tables lie. Runs of one program, in another folder, with another environment and on a
//! busy machine among them, were at most 0.5% apart (valgrind 3.19, 2026-11-26).

mod callgrind;
mod cases;
mod counts;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::process::{Command, ExitCode};

use anyhow::Context as _;

use callgrind::Side;
use cases::{CASES, Case};
use counts::{Counts, MARGIN, change};

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STORED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/benches/instructions/stored.json");

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if callgrind::was_told(&arguments) {
        return Ok(ExitCode::SUCCESS);
    }
    // `cargo test --benches` runs this too, and wants to know only that it runs.
    if !arguments.iter().any(|argument| argument == "--bench") {
        CASES.iter().for_each(Case::run_both);
        return Ok(ExitCode::SUCCESS);
    }
    if !callgrind::is_there() {
        return Ok(without_valgrind());
    }
    guard(arguments.iter().find(|argument| !argument.starts_with('-')).map_or("", String::as_str))
}

/// On a developer's machine a missing tool is no failure; in CI nothing may be missing.
fn without_valgrind() -> ExitCode {
    eprintln!("skipped: valgrind not found, install the package of that name; instructions are counted with it");
    if std::env::var("CI").as_deref() == Ok("true") { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Counts the cases with this in their name, and compares.
fn guard(part: &str) -> anyhow::Result<ExitCode> {
    let stored = stored()?;
    let counted = count(part, &stored)?;
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        return store(stored, counted, part.is_empty());
    }
    if !is_comparable() {
        println!("\nnot compared: the stored counts are of x86-64 with AVX2");
        return Ok(ExitCode::SUCCESS);
    }
    let cases: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    let wrong = stored.compare(&counted, &cases);
    if wrong.is_empty() {
        println!("\nall within {:.0}% of {STORED}", MARGIN * 100.0);
        return Ok(ExitCode::SUCCESS);
    }
    println!();
    for (case, wrong) in wrong {
        println!("{case}: {wrong}");
    }
    tell_what_to_do(&stored)?;
    Ok(ExitCode::FAILURE)
}

fn count(part: &str, stored: &Counts) -> anyhow::Result<BTreeMap<String, u64>> {
    println!("{:<18} {:>12} {:>12} {:>9} {:>12} {:>8}", "per event", "stored", "now", "change", "baseline", "ratio");
    let mut counted = BTreeMap::new();
    for case in CASES.iter().filter(|case| case.name.contains(part)) {
        let (now, baseline) = (callgrind::count(case, Side::Ours)?, callgrind::count(case, Side::Baseline)?);
        println!("{}", row(case, stored.instructions.get(case.name).copied(), now, baseline));
        counted.insert(case.name.to_owned(), now);
    }
    Ok(counted)
}

#[allow(clippy::cast_precision_loss, reason = "what is counted stays far below 2^52")]
fn row(case: &Case, stored: Option<u64>, now: u64, baseline: u64) -> String {
    let change = stored.map_or_else(String::new, |stored| format!("{:+.2}%", change(stored, now) * 100.0));
    let stored = stored.map_or_else(|| "-".to_owned(), |stored| stored.to_string());
    let ratio = now as f64 / baseline as f64;
    format!("{:<18} {stored:>12} {now:>12} {change:>9} {baseline:>12} {ratio:>7.2}x  {}", case.name, case.baseline.0)
}

fn tell_what_to_do(stored: &Counts) -> anyhow::Result<()> {
    let compiler = compiler()?;
    if compiler != stored.compiler {
        println!("\nThe compiler may be why: it is {compiler}, and was {}.", stored.compiler);
    }
    println!(
        "\nWhere they go: callgrind_annotate {}/CASE-ours.out\n\
         To store what has to be: UPDATE_FIXTURES=1 cargo bench --bench instructions",
        callgrind::profiles().display()
    );
    Ok(())
}

// === what is stored ===

fn stored() -> anyhow::Result<Counts> {
    match fs::read_to_string(STORED) {
        Ok(text) => serde_json::from_str(&text).context(STORED),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Counts::default()),
        Err(error) => Err(error).context(STORED),
    }
}

/// Stores what was counted, all of it or beside the rest.
fn store(stored: Counts, counted: BTreeMap<String, u64>, is_all: bool) -> anyhow::Result<ExitCode> {
    let mut instructions = if is_all { BTreeMap::new() } else { stored.instructions };
    instructions.extend(counted);
    let counts = Counts { compiler: compiler()?, instructions };
    fs::write(STORED, serde_json::to_string_pretty(&counts)? + "\n")?;
    println!("\nstored in {STORED}");
    Ok(ExitCode::SUCCESS)
}

fn compiler() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("rustc")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(target_arch = "x86_64")]
fn is_comparable() -> bool {
    is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn is_comparable() -> bool {
    false
}
