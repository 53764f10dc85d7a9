//! Has callgrind count: this program once more, in a process of its own, with one thing to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::cases::{CASES, Case, Run};

/// One side of a comparison.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Ours,
    Baseline,
}

/// What a process is told that is to be counted; a case's name and a side's come after it.
const COUNT: &str = "--count";

/// Whose instructions are counted: the function of this name, in whatever way the compiler says it.
const COUNTED: &str = "*::repeat_counted*";

/// Whether there is a valgrind.
pub(crate) fn is_there() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Where the profiles stay.
pub(crate) fn profiles() -> &'static Path {
    Path::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/instructions"))
}

/// Instructions of one side of a case, per event.
pub(crate) fn count(case: &Case, side: Side) -> anyhow::Result<u64> {
    fs::create_dir_all(profiles())?;
    let profile = profile(case, side);
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(std::env::current_exe()?)
        .args([COUNT, case.name, side.word()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} under valgrind: {}\n{said}", case.name, output.status);
    let text = fs::read_to_string(&profile)?;
    let all = total(&text).with_context(|| format!("no total in {}", profile.display()))?;
    ensure!(all > 0, "nothing was counted in {}: no function is called {COUNTED}", profile.display());
    Ok(all / u64::from(case.times) / u64::from(case.events))
}

/// Does what this process was told to be counted doing; answers whether that was so.
pub(crate) fn was_told(arguments: &[String]) -> bool {
    let [count, name, side] = arguments else { return false };
    let Some(case) = CASES.iter().find(|case| count == COUNT && case.name == name) else { return false };
    let mut run = if side == Side::Ours.word() { (case.ours)() } else { (case.baseline.1)() };
    repeat(&mut run, case.times / 4);
    repeat_counted(&mut run, case.times);
    true
}

fn repeat(run: &mut Run, times: u32) {
    for _ in 0..times {
        run();
    }
}

#[inline(never)]
fn repeat_counted(run: &mut Run, times: u32) {
    repeat(run, times);
}

fn profile(case: &Case, side: Side) -> PathBuf {
    profiles().join(format!("{}-{}.out", case.name.replace('/', "-"), side.word()))
}

/// The line `summary: 123` or `totals: 123` of callgrind's own format.
fn total(profile: &str) -> Option<u64> {
    profile.lines().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

// === impl Side ===

impl Side {
    fn word(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Baseline => "baseline",
        }
    }
}
