//! The log under a disk that loses power, runs full, fails and rots: what was acknowledged is read, once, in order, byte
//! for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use fastrand::Rng;
use libroseg::queue::Entry;
use libroseg::queue::disk::log::{Log, Recovery, Writer};

use crate::support::records::{SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES, is_record, open, read_from, records};
use crate::support::sim::{Faults, Sim};

/// Enough to see every interleaving of a few faults many times over, in some seconds.
const HISTORIES: u64 = 3000;

const NO_FAULTS: Faults =
    Faults { open: 0.0, read: 0.0, write: 0.0, sync: 0.0, sync_names: 0.0, remove: 0.0, set_len: 0.0 };

/// A log on a disk, and what must be in it.
struct History {
    sim: Sim,
    rng: Rng,
    log: Log,
    writer: Writer,
    /// Every record has its own number, written or not.
    next_number: u64,
    /// Numbers of acknowledged records by their offset.
    acknowledged: BTreeMap<u64, u64>,
    /// Groups that failed where the log ends now, by their first offset: one of them may be found after a restart.
    failed: Vec<(u64, Range<u64>)>,
    /// Groups that failed and were found: they may be lost again.
    adopted: Vec<(u64, Range<u64>)>,
    /// Up to here segments were removed.
    removed_to: u64,
}

// === impl History ===

impl History {
    fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let (log, writer, recovery) = open(&sim, 0);
        assert_eq!(recovery, Recovery::default());
        Self {
            sim,
            rng: Rng::with_seed(!seed),
            log,
            writer,
            next_number: 0,
            acknowledged: BTreeMap::new(),
            failed: Vec::new(),
            adopted: Vec::new(),
            removed_to: 0,
        }
    }

    fn append(&mut self) {
        let numbers = self.next_number..self.next_number + self.rng.u64(1..5);
        self.next_number = numbers.end;
        let end = self.log.end();
        match self.writer.append(&records(numbers.clone())) {
            Ok(first) => {
                assert_eq!(first, end, "offsets go on where they ended");
                self.acknowledged.extend((first..).zip(numbers));
                self.failed.clear();
            }
            Err(_) => self.failed.push((end, numbers)),
        }
        assert_eq!(self.log.end(), self.acknowledged_end().max(end), "a group that failed is not in the log");
    }

    fn acknowledged_end(&self) -> u64 {
        self.acknowledged.last_key_value().map_or(0, |(last, _)| last + 1)
    }

    /// Opens the log again after the process ended.
    fn reopen(&mut self) {
        let before = self.log.end();
        if self.rng.bool() {
            self.sim.set_faults(Faults { read: 0.2, sync: 0.2, sync_names: 0.2, ..NO_FAULTS });
            let _ = Log::open(self.sim.files(), SEGMENT_BYTES_MAX, 0);
        }
        self.sim.set_faults(NO_FAULTS);
        let known_end = if self.rng.bool() { before } else { self.acknowledged_end() };
        let (log, writer, recovery) = open(&self.sim, known_end);
        (self.log, self.writer) = (log, writer);
        assert_eq!(recovery.end, self.log.end());
        assert!(recovery.end >= known_end.max(self.acknowledged_end()), "an offset would be used again");
        for (first, numbers) in std::mem::take(&mut self.failed) {
            if first + (numbers.end - numbers.start) == recovery.end {
                self.adopted.push((first, numbers));
            } else if first == recovery.end {
                // The sync that would have undone it may have failed.
                self.failed.push((first, numbers));
            }
        }
    }

    /// Whether a record that was not acknowledged may be at an offset.
    fn may_be(&self, offset: u64, entry: &Entry) -> bool {
        let mut numbers = self.adopted.iter().filter_map(|(first, numbers)| {
            let number = numbers.start + offset.checked_sub(*first)?;
            numbers.contains(&number).then_some(number)
        });
        numbers.any(|number| is_record(entry, number))
    }

    fn check(&mut self) {
        let from = if self.rng.bool() { 0 } else { self.rng.u64(..=self.log.end()) };
        let bytes_max = self.rng.choice([1, 500, 5000, 1 << 20]).unwrap();
        let (entries, gaps) = read_from(&self.log, from, bytes_max);
        for gap in &gaps {
            let was_acknowledged = self.acknowledged.range(gap.from..gap.to).next().is_some();
            assert!(gap.is_removed || !was_acknowledged, "{gap:?} was removed and is called damaged");
            assert!(!gap.is_removed || gap.to <= self.removed_to, "{gap:?} was not removed");
        }
        for (offset, number) in self.acknowledged.range(from..) {
            match entries.get(offset) {
                Some(entry) => assert!(is_record(entry, *number), "offset {offset} is not what was acknowledged"),
                None => assert!(*offset < self.removed_to, "offset {offset} was acknowledged and is lost"),
            }
        }
        for (offset, entry) in &entries {
            let is_known = self.acknowledged.contains_key(offset) || self.may_be(*offset, entry);
            assert!(is_known, "offset {offset} was never appended");
        }
        let ids: BTreeSet<&str> = entries.values().map(|entry| entry.event.message_id.as_str()).collect();
        assert_eq!(ids.len(), entries.len(), "a record is there twice");
        let size_bytes: u64 = self.log.segments().iter().map(|segment| segment.size_bytes).sum();
        assert_eq!(self.log.size_bytes(), size_bytes);
    }

    fn remove_oldest(&mut self) {
        let segments = self.log.segments();
        let Some(oldest) = segments.first() else { return };
        let removed = self.log.remove(&oldest.name);
        assert!(removed.is_err() || segments.len() > 1, "the last segment tells where the log ends");
        if self.log.segments().len() < segments.len() {
            self.removed_to = self.removed_to.max(oldest.end);
        }
    }

    fn step(&mut self) {
        match self.rng.u8(..20) {
            0..=8 => self.append(),
            9..=11 => {
                let likely = self.rng.choice([0.0, 0.1, 0.5]).unwrap();
                let rng = &mut self.rng;
                let mut maybe = || if rng.bool() { likely } else { 0.0 };
                let faults = Faults {
                    open: maybe(),
                    read: maybe(),
                    write: maybe(),
                    sync: maybe(),
                    sync_names: maybe(),
                    remove: maybe(),
                    set_len: maybe(),
                };
                self.sim.set_faults(faults);
            }
            12 => self.sim.set_all_bytes(self.rng.choice([0, 3000, 20_000]).unwrap()),
            13 => self.sim.set_all_bytes(1 << 40),
            14 => self.writer.roll(),
            15 => self.remove_oldest(),
            16 => {
                self.sim.kill();
                self.reopen();
            }
            17 => {
                self.sim.crash(&mut self.rng);
                self.reopen();
            }
            18 => {
                self.sim.cut_power_after(self.rng.u32(..8));
                self.append();
                self.append();
                self.sim.crash(&mut self.rng);
                self.reopen();
            }
            _ => self.check(),
        }
    }
}

#[test]
fn what_was_acknowledged_survives_any_loss_of_power_and_nothing_else_is_read() {
    let (mut acknowledged, mut failed, mut adopted) = (0, 0, 0);
    for seed in 0..HISTORIES {
        let history = std::panic::catch_unwind(|| {
            let mut history = History::new(seed);
            for _ in 0..history.rng.u8(5..40) {
                history.step();
            }
            history.sim.crash(&mut history.rng);
            history.reopen();
            history.check();
            history
        });
        let history = history.unwrap_or_else(|_| panic!("the history of seed {seed} went wrong: see above"));
        acknowledged += history.acknowledged.len() as u64;
        failed += history.next_number - history.acknowledged.len() as u64;
        adopted += history.adopted.len();
    }
    // So that the histories do not become harmless unnoticed.
    assert!(acknowledged > 10 * HISTORIES && failed > HISTORIES && adopted > 100, "{acknowledged} {failed} {adopted}");
}

/// A log of three groups of three records each, in one segment, and what its file is called.
fn three_groups() -> (Sim, String) {
    let sim = Sim::new(1);
    let (_, mut writer, _) = open(&sim, 0);
    for group in 0..3 {
        writer.append(&records(group * 3..group * 3 + 3)).unwrap();
    }
    let name = sim.names().pop().unwrap();
    (sim, name)
}

/// Opens what is left of the log, appends one record, and says how many of the first nine are still there.
fn left_after(name: &str, bytes: &[u8]) -> u64 {
    let sim = Sim::new(1);
    sim.put(name, bytes);
    let (log, mut writer, recovery) = open(&sim, 0);
    assert_eq!(recovery.damaged, 0, "a write that was cut off is no damage");
    let end = recovery.end;
    assert_eq!(writer.append(&records(end..end + 1)).unwrap(), end);
    let (entries, gaps) = read_from(&log, 0, 1000);
    assert!(gaps.is_empty());
    assert!(entries.keys().copied().eq(0..=end));
    assert!(entries.iter().all(|(offset, entry)| is_record(entry, *offset)));
    end
}

#[test]
fn a_write_cut_off_at_any_byte_costs_only_its_own_group() {
    let (sim, name) = three_groups();
    let whole = sim.bytes(&name);
    let mut left_before = 0;
    for len in 0..=whole.len() {
        let left = left_after(&name, &whole[..len]);
        assert!([0, 3, 6, 9].contains(&left) && left >= left_before, "{left} left of {len} bytes");
        left_before = left;

        let mut zeros = whole[..len].to_vec();
        zeros.resize(whole.len() + 100, 0);
        let left_of_zeros = left_after(&name, &zeros);
        // A group that ends in zeros is whole without them.
        assert!(left_of_zeros >= left, "{left_of_zeros} left of {len} bytes and zeros");
        assert!(left_of_zeros == left || whole[len..].contains(&0));
    }
    assert_eq!(left_before, 9);
}

#[test]
fn garbage_after_the_last_group_does_not_count() {
    let (sim, name) = three_groups();
    let whole = sim.bytes(&name);
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let mut bytes = whole.clone();
        // Parts of whole groups among it: what a file system may leave of what a file had before.
        for _ in 0..rng.u8(1..4) {
            let from = rng.usize(..whole.len());
            bytes.extend_from_slice(&whole[from..rng.usize(from..=whole.len())]);
            bytes.extend(std::iter::repeat_with(|| rng.u8(..)).take(300));
        }
        assert_eq!(left_after(&name, &bytes), 9, "seed {seed}");
    }
}

#[test]
fn what_the_file_system_leaves_of_another_file_is_not_read() {
    let sim = Sim::new(1);
    let (_, mut writer, _) = open(&sim, 0);
    writer.append(&records(0..3)).unwrap();
    writer.roll();
    writer.append(&records(3..6)).unwrap();
    let [first, second] = [0, 1].map(|index| sim.bytes(&sim.names()[index]));
    // The group that would come next, whole, but written for another segment.
    let bytes = [&first[..], &second[SEGMENT_HEADER_BYTES..]].concat();
    assert_eq!(left_after(&sim.names()[0], &bytes), 3);
}

#[test]
fn a_full_disk_takes_events_again_when_there_is_room() {
    let sim = Sim::new(1);
    let (log, mut writer, _) = open(&sim, 0);
    writer.append(&records(0..2)).unwrap();
    sim.set_all_bytes(log.size_bytes() + 10);
    for _ in 0..50 {
        writer.append(&records(2..9)).unwrap_err();
    }
    assert_eq!(log.end(), 2);
    assert_eq!(sim.names().len(), 1, "what failed leaves nothing behind");
    assert_eq!(sim.files().room().unwrap().free_bytes, 10);

    sim.set_all_bytes(1 << 30);
    assert_eq!(writer.append(&records(2..4)).unwrap(), 2);
    sim.crash(&mut Rng::with_seed(1));
    let (log, ..) = open(&sim, 0);
    assert!(read_from(&log, 0, 1).0.keys().copied().eq(0..4));
}

#[test]
fn a_file_whose_sync_failed_is_not_tried_again() {
    for seed in 0..200 {
        let sim = Sim::new(seed);
        let (log, mut writer, _) = open(&sim, 0);
        writer.append(&records(0..2)).unwrap();
        let first_file = sim.names();

        sim.set_faults(Faults { sync: 1.0, ..Faults::default() });
        writer.append(&records(2..4)).unwrap_err();
        assert_eq!(log.end(), 2);
        assert!(read_from(&log, 0, 1).0.keys().copied().eq(0..2));
        sim.set_faults(Faults::default());

        let before = sim.bytes(&first_file[0]);
        assert_eq!(writer.append(&records(4..6)).unwrap(), 2);
        assert_eq!(sim.bytes(&first_file[0]), before);
        sim.crash(&mut Rng::with_seed(seed));
        let (log, ..) = open(&sim, 0);
        let (entries, _) = read_from(&log, 0, 1);
        assert!(is_record(&entries[&2], 4) && is_record(&entries[&3], 5) && entries.len() == 4);
    }
}

#[test]
fn what_a_failed_sync_left_and_the_next_process_read_is_not_lost_with_the_power() {
    for seed in 0..200 {
        let sim = Sim::new(seed);
        let (_, mut writer, _) = open(&sim, 0);
        writer.append(&records(0..2)).unwrap();
        sim.set_faults(Faults { sync: 1.0, set_len: 1.0, ..NO_FAULTS });
        writer.append(&records(2..4)).unwrap_err();
        sim.set_faults(NO_FAULTS);
        sim.kill();
        let (log, ..) = open(&sim, 0);
        let read = log.end();
        sim.crash(&mut Rng::with_seed(seed));
        assert_eq!(open(&sim, 0).0.end(), read, "seed {seed}");
    }
}

#[test]
fn what_a_failed_write_left_does_not_come_back_when_what_took_its_place_is_removed() {
    let sim = Sim::new(1);
    let (log, mut writer, _) = open(&sim, 0);
    sim.set_faults(Faults { sync_names: 1.0, remove: 1.0, set_len: 1.0, ..NO_FAULTS });
    writer.append(&records(0..2)).unwrap_err();
    sim.set_faults(NO_FAULTS);
    for first in [2, 4] {
        writer.roll();
        writer.append(&records(first..first + 2)).unwrap();
    }
    let ends: Vec<u64> = log.segments().iter().map(|segment| segment.end).collect();
    assert_eq!(ends, [0, 2, 4]);
    for segment in log.segments().iter().filter(|segment| !segment.is_open) {
        log.remove(&segment.name).unwrap();
    }

    sim.kill();
    let (log, ..) = open(&sim, 0);
    assert!(read_from(&log, 0, 1).0.keys().copied().eq(2..4));
}

#[test]
fn what_is_found_after_a_killed_process_is_not_lost_with_the_power() {
    for seed in 0..50 {
        let sim = Sim::new(seed);
        let (_, mut writer, _) = open(&sim, 0);
        writer.append(&records(0..2)).unwrap();
        // It dies between the write and the sync.
        sim.cut_power_after(2);
        writer.append(&records(2..4)).unwrap_err();
        sim.kill();
        let (log, ..) = open(&sim, 0);
        assert_eq!(log.end(), 4);

        sim.crash(&mut Rng::with_seed(seed));
        let (log, ..) = open(&sim, 4);
        let (entries, gaps) = read_from(&log, 0, 1);
        assert!(gaps.is_empty() && entries.len() == 4);
    }
}

#[test]
fn one_append_is_one_sync() {
    let sim = Sim::new(1);
    let (_, mut writer, _) = open(&sim, 0);
    for count in 1..4 {
        writer.append(&records(0..500)).unwrap();
        assert_eq!(sim.syncs(), count);
    }
}
