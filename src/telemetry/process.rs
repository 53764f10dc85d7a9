//! What this process uses of its machine, where Linux tells (`/proc/self`). Elsewhere nothing is known.

use std::time::Duration;

/// What this process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since it started, its own and the kernel's for it.
    pub cpu_time: Duration,
    /// Bytes of memory that are in RAM.
    pub memory_bytes: u64,
}

/// The kernel tells processor time to programs in hundredths of a second on every architecture we build for
/// (`USER_HZ`; <https://man7.org/linux/man-pages/man7/time.7.html>, read 2026-11-23).
const TICK: Duration = Duration::from_millis(10);

/// The places of `utime` and `stime` after the name of the program
/// (<https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>, read 2026-11-23).
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;

/// What this process uses now, as far as the system tells.
#[must_use]
pub fn usage() -> Option<Usage> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).ok();
    Some(Usage { cpu_time: cpu_time(&read("stat")?)?, memory_bytes: memory_bytes(&read("status")?)? })
}

fn cpu_time(stat: &str) -> Option<Duration> {
    // The program's name may hold anything, brackets and spaces included.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks = |place: usize| fields.split(' ').nth(place)?.parse::<u32>().ok();
    Some(TICK * ticks(USER_TIME)?.checked_add(ticks(SYSTEM_TIME)?)?)
}

fn memory_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_does_not_shift_the_times() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 10 0 0 0 150 25 0 0 20 0 4 0 100 0 0";
        assert_eq!(cpu_time(stat), Some(Duration::from_millis(1750)));
    }

    #[test]
    fn memory_is_told_in_kib() {
        assert_eq!(memory_bytes("VmPeak:\t  9 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(memory_bytes("VmPeak:\t  9 kB\n"), None);
    }
}
