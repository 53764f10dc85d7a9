//! A log whose files rot: what is whole is read, what is not is told of, and nothing stops.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use libroseg::event::{Event, Kind};
use libroseg::queue::disk::files::{Files as _, Folder};
use libroseg::queue::disk::log::{Gap, Log, Record};

use crate::support::records::{SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES, is_record, open, read_from, record, records};
use crate::support::sim::Sim;

/// Where a group is.
#[derive(Clone, Debug)]
struct Group {
    file: String,
    bytes: Range<u64>,
    offsets: Range<u64>,
}

/// Three segments of a few groups each, on a disk; the record of an offset has its number.
fn three_segments() -> (Sim, Vec<Group>) {
    let sim = Sim::new(1);
    let (log, mut writer, _) = open(&sim, 0);
    let mut groups = Vec::new();
    for (index, count) in [2, 1, 3, 1, 1, 2, 1, 2].into_iter().enumerate() {
        if index % 3 == 0 {
            writer.roll();
        }
        let first = writer.append(&records(log.end()..log.end() + count)).unwrap();
        let segment = log.segments().pop().unwrap();
        let is_new = index % 3 == 0;
        let from = if is_new { SEGMENT_HEADER_BYTES as u64 } else { end_of(&groups) };
        groups.push(Group { file: segment.name, bytes: from..segment.size_bytes, offsets: first..first + count });
    }
    assert_eq!(log.segments().len(), 3);
    (sim, groups)
}

fn end_of(groups: &[Group]) -> u64 {
    groups.last().map_or(0, |group| group.bytes.end)
}

/// The same files on another disk.
fn copy(sim: &Sim) -> Sim {
    let other = Sim::new(1);
    for name in sim.names() {
        other.put(&name, &sim.bytes(&name));
    }
    other
}

/// Reads everything: the groups that were not touched are there, the others are gaps.
fn holds_the_rest(log: &Log, groups: &[Group], is_touched: impl Fn(&Group) -> bool) {
    let end = groups.last().unwrap().offsets.end;
    for (from, bytes_max) in [(0, 1), (end / 2, 1 << 20)] {
        let (entries, gaps) = read_from(log, from, bytes_max);
        for (offset, entry) in &entries {
            assert!(is_record(entry, *offset), "offset {offset} is something else");
        }
        for group in groups.iter().filter(|group| !is_touched(group)) {
            let missing = group.offsets.clone().find(|offset| *offset >= from && !entries.contains_key(offset));
            assert_eq!(missing, None, "{group:?} was not touched and is not read");
        }
        assert!(gaps.iter().all(|gap| !gap.is_removed));
        assert_eq!(log.end(), end);
    }
    let missing = groups.iter().filter(|group| is_touched(group)).map(|group| group.offsets.end - group.offsets.start);
    let missing: u64 = missing.sum();
    assert!(log.damaged() <= missing, "damage is counted once");
}

#[test]
fn one_damaged_byte_costs_at_most_the_group_it_is_in() {
    let (sim, groups) = three_segments();
    let end = groups.last().unwrap().offsets.end;
    let mut damaged = 0;
    for name in sim.names() {
        for position in 0..sim.bytes(&name).len() {
            let rotten = copy(&sim);
            rotten.damage(&name, |bytes| bytes[position] ^= 1 << (position % 8));
            let is_touched = |group: &Group| group.file == name && group.bytes.contains(&(position as u64));
            let (log, ..) = open(&rotten, end);
            holds_the_rest(&log, &groups, is_touched);
            damaged += log.damaged();
            assert_eq!(log.damaged() > 0, position >= SEGMENT_HEADER_BYTES, "byte {position} of {name}");
        }
    }
    assert!(damaged > 1000, "{damaged}");
}

#[test]
fn damage_under_a_running_log_is_skipped_and_counted_once() {
    let (sim, groups) = three_segments();
    let (log, mut writer, _) = open(&sim, 0);
    let end = log.end();
    read_from(&log, 0, 1);
    let touched = &groups[4];
    sim.damage(&touched.file, |bytes| bytes[usize::try_from(touched.bytes.end).unwrap() - 1] ^= 1);

    for _ in 0..3 {
        holds_the_rest(&log, &groups, |group| group.offsets == touched.offsets);
        let gap = Gap { from: touched.offsets.start, to: touched.offsets.end, is_removed: false };
        assert_eq!(read_from(&log, 0, 1).1, [gap]);
        assert_eq!(read_from(&log, 0, 1 << 20).1, [gap]);
    }
    assert_eq!(log.damaged(), touched.offsets.end - touched.offsets.start);
    let next = log.read(touched.offsets.start, 1).unwrap();
    assert_eq!(next.entries[0].offset.0, touched.offsets.end, "a read goes on past damage to an event");
    assert_eq!(writer.append(&records(end..end + 1)).unwrap(), end);
}

#[test]
fn a_header_in_the_wrong_place_takes_no_other_group_with_it() {
    let (sim, groups) = three_segments();
    let header = |group: &Group| {
        let from = usize::try_from(group.bytes.start).unwrap();
        from..from + 56
    };
    sim.damage(&groups[0].file, |bytes| bytes.copy_within(header(&groups[2]), header(&groups[0]).start));
    let (log, ..) = open(&sim, 0);
    holds_the_rest(&log, &groups, |group| group.offsets == groups[0].offsets);
}

#[test]
fn whatever_is_damaged_every_whole_group_is_read() {
    let (sim, groups) = three_segments();
    let end = groups.last().unwrap().offsets.end;
    let names = sim.names();
    for seed in 0..400 {
        let mut rng = Rng::with_seed(seed);
        let rotten = copy(&sim);
        let mut touched: BTreeSet<(String, u64)> = BTreeSet::new();
        for _ in 0..rng.u8(1..5) {
            let name = &names[rng.usize(..names.len())];
            let len = rotten.bytes(name).len();
            let from = rng.usize(..len);
            let range = from..(from + rng.choice([1, 4, 56, 512, 4000]).unwrap()).min(len);
            let how = rng.u8(..3);
            let noise = rng.fork();
            rotten.damage(name, |bytes| {
                let mut noise = noise.clone();
                let copied = bytes[..range.len()].to_vec();
                match how {
                    0 => bytes[range.clone()].fill(0),
                    1 => bytes[range.clone()].fill_with(|| noise.u8(..)),
                    // A sector that was written to the wrong place.
                    _ => bytes[range.clone()].copy_from_slice(&copied),
                }
            });
            touched.extend(range.map(|position| (name.clone(), position as u64)));
        }
        let is_touched = |group: &Group| group.bytes.clone().any(|byte| touched.contains(&(group.file.clone(), byte)));
        let (log, ..) = open(&rotten, end);
        holds_the_rest(&log, &groups, is_touched);
    }
}

#[test]
fn a_segment_that_was_cut_short_or_is_gone_is_a_gap() {
    let (sim, groups) = three_segments();
    let names = sim.names();
    let middle: Vec<&Group> = groups.iter().filter(|group| group.file == names[1]).collect();
    let (first, last) = (middle[0], middle[middle.len() - 1]);

    let short = copy(&sim);
    let bytes = short.bytes(&names[1]);
    short.put(&names[1], &bytes[..bytes.len() - 1]);
    let (log, ..) = open(&short, 0);
    let gap = Gap { from: last.offsets.start, to: last.offsets.end, is_removed: false };
    assert_eq!(read_from(&log, 0, 1).1, [gap]);

    let without = Sim::new(1);
    for name in [&names[0], &names[2]] {
        without.put(name, &sim.bytes(name));
    }
    let (log, ..) = open(&without, 0);
    let gap = Gap { from: first.offsets.start, to: last.offsets.end, is_removed: true };
    assert_eq!(read_from(&log, 0, 1).1, [gap]);
    assert_eq!(log.damaged(), 0, "what was removed is not damaged");
}

#[test]
fn offsets_that_somebody_knows_of_are_not_used_again() {
    let (sim, groups) = three_segments();
    let end = groups.last().unwrap().offsets.end;
    let (log, mut writer, recovery) = open(&sim, end + 5);
    assert_eq!((recovery.end, recovery.damaged), (end + 5, 5));
    assert_eq!(writer.append(&records(end + 5..end + 6)).unwrap(), end + 5);
    assert_eq!(read_from(&log, 0, 1).1, [Gap { from: end, to: end + 5, is_removed: false }]);

    let (log, mut writer, recovery) = open(&Sim::new(1), 7);
    assert_eq!((recovery.end, recovery.damaged), (7, 0));
    assert_eq!(writer.append(&records(7..8)).unwrap(), 7);
    let (entries, gaps) = read_from(&log, 0, 1);
    assert_eq!((entries.len(), gaps), (1, vec![Gap { from: 0, to: 7, is_removed: true }]));
}

#[test]
fn removed_segments_are_a_gap_and_their_bytes_are_free() {
    let (sim, groups) = three_segments();
    let (log, ..) = open(&sim, 0);
    let segments = log.segments();
    let open_ones: Vec<bool> = segments.iter().map(|segment| segment.is_open).collect();
    assert_eq!(open_ones, [false, false, true]);
    log.remove(&segments[0].name).unwrap();
    log.remove(&segments[1].name).unwrap();
    log.remove(&segments[2].name).unwrap_err();
    log.remove("../passwd").unwrap_err();

    let gap = Gap { from: 0, to: segments[2].first, is_removed: true };
    assert_eq!(read_from(&log, 0, 1).1, [gap]);
    assert_eq!(log.read(0, 1).unwrap().entries[0].offset.0, segments[2].first);
    assert_eq!(log.size_bytes(), segments[2].size_bytes);
    assert_eq!(sim.names(), [segments[2].name.clone()], "reading a removed segment does not make it anew");
    assert_eq!(log.end(), groups.last().unwrap().offsets.end);
    let (log, ..) = open(&sim, 0);
    assert_eq!(read_from(&log, 0, 1).1, [gap]);
}

#[test]
fn a_time_is_found_without_missing_an_event() {
    let (sim, groups) = three_segments();
    let end = groups.last().unwrap().offsets.end;
    let (log, ..) = open(&sim, 0);
    for number in 0..end {
        let group = groups.iter().find(|group| group.offsets.contains(&number)).unwrap();
        let time = record(number).event.received_at;
        assert_eq!(log.offset_at(time).unwrap(), group.offsets.start);
    }
    let last = record(end - 1).event.received_at;
    assert_eq!(log.offset_at(Timestamp::MIN).unwrap(), 0);
    assert_eq!(log.offset_at(last + SignedDuration::from_nanos(1)).unwrap(), end);
    let newest: Vec<Option<Timestamp>> = log.segments().iter().map(|segment| segment.newest_at).collect();
    let expected: Vec<Option<Timestamp>> =
        log.segments().iter().map(|segment| Some(record(segment.end - 1).event.received_at)).collect();
    assert_eq!(newest, expected, "the headers tell of segments that nobody has read");
}

#[test]
fn verifying_tells_what_is_damaged_and_where() {
    let (sim, groups) = three_segments();
    let (log, ..) = open(&sim, 0);
    for segment in log.segments() {
        let verified = log.verify(&segment.name).unwrap();
        assert_eq!(verified.events, segment.end - segment.first);
        assert_eq!((verified.damaged.len(), verified.torn_bytes, verified.size_bytes), (0, 0, segment.size_bytes));
        assert!(verified.raw_bytes > 0);
    }
    for group in &groups {
        for position in [group.bytes.start, group.bytes.end - 1] {
            let rotten = copy(&sim);
            rotten.damage(&group.file, |bytes| bytes[usize::try_from(position).unwrap()] ^= 1);
            let (log, ..) = open(&rotten, groups.last().unwrap().offsets.end);
            let verified = log.verify(&group.file).unwrap();
            assert_eq!(verified.damaged.len(), 1);
            let damaged = verified.damaged[0];
            assert_eq!((damaged.from.0, damaged.to.0), (group.offsets.start, group.offsets.end));
            assert_eq!(damaged.position_bytes, group.bytes.start);
            if !group.bytes.contains(&(verified.size_bytes - 1)) {
                assert_eq!(damaged.size_bytes, group.bytes.end - group.bytes.start);
            }
        }
    }
    let rotten = copy(&sim);
    rotten.damage(&groups[0].file, |bytes| bytes[20] ^= 1);
    let verified = open(&rotten, 0).0.verify(&groups[0].file).unwrap();
    assert_eq!((verified.damaged.len(), verified.damaged[0].size_bytes), (1, SEGMENT_HEADER_BYTES as u64));
}

#[test]
fn a_file_of_a_newer_version_is_an_error_that_says_so() {
    let (sim, groups) = three_segments();
    // A right checksum under the next version, in the first segment's header.
    sim.damage(&groups[0].file, |bytes| {
        bytes[8] += 1;
        let checksum = crc32fast::hash(&bytes[..52]).to_le_bytes();
        bytes[52..56].copy_from_slice(&checksum);
    });
    let error = Log::open(sim.files(), SEGMENT_BYTES_MAX, 0).map(drop).unwrap_err();
    assert!(error.to_string().contains("was written by a newer version"), "{error}");
}

#[test]
fn reading_a_segment_in_small_pieces_reads_its_bytes_a_few_times_at_most() {
    let sim = Sim::new(1);
    let (log, mut writer, _) = Log::open(sim.files(), 64 << 20, 0).unwrap();
    for group in 0..3000 {
        writer.append(&records(group..group + 1)).unwrap();
    }
    for _ in 0..2 {
        let (log, ..) = Log::open(sim.files(), 64 << 20, 0).unwrap();
        let before = sim.read_bytes();
        assert_eq!(read_from(&log, 0, 10_000).0.len(), 3000);
        assert!(sim.read_bytes() - before < 5 * log.size_bytes(), "{} bytes read", sim.read_bytes() - before);
    }
    // A reader at the end reads what is new, and little else.
    let (before, end) = (sim.read_bytes(), log.end());
    for group in end..end + 50 {
        writer.append(&records(group..group + 1)).unwrap();
        assert_eq!(log.read(group, 10_000).unwrap().entries.len(), 1);
    }
    assert!(sim.read_bytes() - before < 200 << 10, "{} bytes read", sim.read_bytes() - before);
}

/// What the logs in tests/fixtures/log hold: one event of `web`, then 40 that are compressed, and one for `crm` alone.
fn of_fixture(offset: u64) -> Record {
    let received_at: Timestamp = "2026-01-02T03:04:05.123456789Z".parse().unwrap();
    let event = Event {
        source: "web".into(),
        kind: Kind::ALL[usize::try_from(offset % 6).unwrap()],
        message_id: format!("id-{offset}").into(),
        received_at: received_at + SignedDuration::from_secs(offset.cast_signed()),
        json: format!(r#"{{"type":"track","messageId":"id-{offset}","n":{offset}}}"#).into(),
    };
    Record { event, only: (offset == 41).then(|| "crm".into()) }
}

fn fixture(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log").join(version)
}

/// Writes a log as this version does; older ones cannot be made any more.
fn make_fixture(version: &str) {
    let home = tempfile::tempdir().unwrap();
    let (log, mut writer, _) = Log::open(Arc::new(Folder::open(home.path()).unwrap()), SEGMENT_BYTES_MAX, 0).unwrap();
    for offsets in [0..1, 1..41, 41..42] {
        if offsets.start == 41 {
            writer.roll();
        }
        writer.append(&offsets.map(of_fixture).collect::<Vec<_>>()).unwrap();
    }
    fs::create_dir_all(fixture(version)).unwrap();
    for segment in log.segments() {
        fs::copy(home.path().join(&segment.name), fixture(version).join(&segment.name)).unwrap();
    }
}

#[test]
fn a_log_of_every_format_version_stays_readable() {
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        make_fixture("v2");
    }
    for version in ["v1", "v2"] {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(home.path()).unwrap();
        for file in fs::read_dir(fixture(version)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), home.path().join(file.file_name())).unwrap();
        }
        assert_eq!(folder.list().unwrap().len(), 3, "{version}: two segments and the lock");
        let (log, _, recovery) = Log::open(Arc::new(folder), SEGMENT_BYTES_MAX, 0).unwrap();
        assert_eq!((recovery.end, recovery.torn_bytes, recovery.damaged), (42, 0, 0), "{version}");

        let (entries, gaps) = read_from(&log, 0, 1 << 20);
        assert!(gaps.is_empty(), "{version}");
        assert!(entries.keys().copied().eq(0..42), "{version}");
        for (offset, entry) in &entries {
            let expected = of_fixture(*offset);
            assert_eq!((&entry.event, &entry.only), (&expected.event, &expected.only), "{version}");
        }
    }
}
