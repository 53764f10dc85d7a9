//! The log on a real folder.

use std::path::Path;

use jiff::SignedDuration;

use super::*;
use crate::event::Kind;
use crate::queue::disk::files::Folder;

const SEGMENT_BYTES_MAX: u64 = 2048;

fn open(dir: &Path, known_end: u64) -> (Log, Writer, Recovery) {
    Log::open(Arc::new(Folder::open(dir).unwrap()), SEGMENT_BYTES_MAX, known_end).unwrap()
}

fn time(seconds: u64) -> Timestamp {
    "2026-01-02T03:04:05.123456789Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds.cast_signed())
}

fn record(number: u64) -> Record {
    let event = Event {
        source: "web".into(),
        kind: Kind::Track,
        message_id: format!("m{number}").into(),
        received_at: time(number),
        json: format!(r#"{{"type":"track","n":{number}}}"#).into(),
    };
    Record { event, only: number.is_multiple_of(3).then(|| "crm".into()) }
}

fn append(writer: &mut Writer, numbers: std::ops::Range<u64>) -> u64 {
    let records: Vec<Record> = numbers.map(record).collect();
    writer.append(&records).unwrap()
}

/// Reads everything by reads of some size, and holds each entry against what was appended with its offset as number.
fn read_all(log: &Log, from: u64, bytes_max: usize) -> (Vec<u64>, Vec<Gap>) {
    let (mut offsets, mut gaps, mut next) = (Vec::new(), Vec::new(), from);
    while next < log.end() {
        let chunk = log.read(next, bytes_max).unwrap();
        assert!(chunk.next > next, "no progress from {next}");
        for entry in chunk.entries {
            let expected = record(entry.offset.0);
            assert_eq!((&entry.event, &entry.only), (&expected.event, &expected.only));
            offsets.push(entry.offset.0);
        }
        gaps.extend(chunk.gaps);
        next = chunk.next;
    }
    (offsets, gaps)
}

#[test]
fn what_was_appended_is_read_from_any_offset_also_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let (log, mut writer, recovery) = open(home.path(), 0);
    assert_eq!(recovery, Recovery::default());
    for (index, count) in [1, 5, 20, 200, 1, 1, 3].into_iter().enumerate() {
        let first = log.end();
        assert_eq!(append(&mut writer, first..first + count), first, "append {index}");
    }
    assert_eq!(log.end(), 231);
    assert!(log.segments().len() > 1, "a full segment is followed by another");
    for from in [0, 1, 5, 6, 100, 230, 231] {
        let expected: Vec<u64> = (from..231).collect();
        assert_eq!(read_all(&log, from, 1), (expected.clone(), vec![]));
        assert_eq!(read_all(&log, from, 1 << 20), (expected, vec![]));
    }
    let sizes: u64 = log.segments().iter().map(|segment| segment.size_bytes).sum();
    assert_eq!(log.size_bytes(), sizes);

    drop((log, writer));
    let (log, mut writer, recovery) = open(home.path(), 200);
    assert_eq!(recovery, Recovery { end: 231, torn_bytes: 0, damaged: 0 });
    assert_eq!(read_all(&log, 0, 100), ((0..231).collect(), vec![]));
    let segments = log.segments().len();
    append(&mut writer, 231..232);
    assert_eq!(log.segments().len(), segments + 1, "a file of an earlier process is never appended to");
    assert_eq!(read_all(&log, 0, 100), ((0..232).collect(), vec![]));
}

#[test]
fn single_events_are_picked_from_wherever_they_are_and_removed_ones_are_missing() {
    let home = tempfile::tempdir().unwrap();
    let (log, mut writer, _) = open(home.path(), 0);
    for group in 0..20 {
        append(&mut writer, group * 50..(group + 1) * 50);
    }
    let pick = |offsets: &[u64]| -> Vec<u64> {
        let entries = log.pick(&offsets.iter().copied().map(Offset).collect::<Vec<_>>()).unwrap();
        assert!(entries.iter().all(|entry| entry.event == record(entry.offset.0).event));
        entries.iter().map(|entry| entry.offset.0).collect()
    };
    let wanted = [0, 3, 49, 50, 420, 999];
    assert_eq!(pick(&wanted), wanted);
    assert!(pick(&[]).is_empty());
    assert_eq!(pick(&[999, 1000, 5000]), [999], "there is nothing beyond the end");
    let oldest = &log.segments()[0];
    log.remove(&oldest.name).unwrap();
    assert!((51..420).contains(&oldest.end), "{}", oldest.end);
    assert_eq!(pick(&wanted), [420, 999]);
}

#[test]
fn readers_see_whole_groups_while_another_thread_writes_and_a_third_removes() {
    const GROUPS: u64 = 400;
    let home = tempfile::tempdir().unwrap();
    let (log, mut writer, _) = open(home.path(), 0);
    std::thread::scope(|scope| {
        for bytes_max in [1, 300] {
            let log = log.clone();
            scope.spawn(move || {
                let mut next = 0;
                while next < GROUPS * 3 {
                    let chunk = log.read(next, bytes_max).unwrap();
                    assert!(chunk.gaps.iter().all(|gap| gap.is_removed), "{:?}", chunk.gaps);
                    assert!(chunk.entries.iter().all(|entry| entry.event == record(entry.offset.0).event));
                    assert!(chunk.next.is_multiple_of(3), "a group is seen whole or not at all");
                    assert!(chunk.next <= log.end());
                    next = chunk.next;
                }
            });
        }
        let remover = log.clone();
        scope.spawn(move || {
            while remover.end() < GROUPS * 3 {
                let segments = remover.segments();
                if segments.len() > 3 {
                    remover.remove(&segments[0].name).unwrap();
                }
            }
        });
        scope.spawn(move || {
            for first in (0..GROUPS).map(|group| group * 3) {
                assert_eq!(append(&mut writer, first..first + 3), first);
            }
        });
    });
    assert_eq!(log.damaged(), 0);
    let names = log.segments().len() + 1;
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), names, "no removed file came back");
}
