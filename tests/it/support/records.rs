//! Records that are told by a number, and a log of them read to its end.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use libroseg::event::{Event, Kind};
use libroseg::queue::Entry;
use libroseg::queue::disk::log::{Chunk, Gap, Log, Record, Recovery, Writer};

use super::sim::Sim;

/// Small, so that a short history has many segments.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 2500;

/// As the format says.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 56;

/// Opens the log of a disk.
pub(crate) fn open(sim: &Sim, known_end: u64) -> (Log, Writer, Recovery) {
    Log::open(sim.files(), SEGMENT_BYTES_MAX, known_end).unwrap()
}

fn time(seconds: u64) -> Timestamp {
    "2026-01-02T03:04:05.000000006Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds.cast_signed())
}

/// The record of a number: always the same one.
pub(crate) fn record(number: u64) -> Record {
    let mut rng = Rng::with_seed(number);
    let text_len = rng.choice([0, 0, 20, 100, 700]).unwrap();
    let text: String =
        if rng.bool() { "a".repeat(text_len) } else { (0..text_len).map(|_| rng.alphanumeric()).collect() };
    let event = Event {
        source: rng.choice(["web", "ios", "das Büro"]).unwrap().into(),
        kind: rng.choice(Kind::ALL).unwrap(),
        message_id: format!("m{number}").into(),
        received_at: time(number),
        json: format!(r#"{{"n":{number},"text":"{text}"}}"#).into(),
    };
    Record { event, only: rng.bool().then(|| "crm".into()) }
}

/// The records of some numbers.
pub(crate) fn records(numbers: Range<u64>) -> Vec<Record> {
    numbers.map(record).collect()
}

/// Whether an entry is the record of a number.
pub(crate) fn is_record(entry: &Entry, number: u64) -> bool {
    let record = record(number);
    entry.event == record.event && entry.only == record.only
}

/// Reads once, however often the disk fails: a read that fails changes nothing.
fn read(log: &Log, from: u64, bytes_max: usize) -> Chunk {
    (0..1000).find_map(|_| log.read(from, bytes_max).ok()).unwrap()
}

/// Reads up to the end, and sees to it that every offset is told of once, in order.
pub(crate) fn read_from(log: &Log, from: u64, bytes_max: usize) -> (BTreeMap<u64, Arc<Entry>>, Vec<Gap>) {
    let (mut entries, mut gaps, mut next) = (BTreeMap::new(), Vec::new(), from);
    while next < log.end() {
        let chunk = read(log, next, bytes_max);
        let mut told: Vec<(u64, u64)> = chunk.gaps.iter().map(|gap| (gap.from, gap.to)).collect();
        told.extend(chunk.entries.iter().map(|entry| (entry.offset.0, entry.offset.0 + 1)));
        told.sort_unstable();
        for (first, end) in told {
            assert_eq!(first, next, "offsets are told of once and in order");
            assert!(first < end);
            next = end;
        }
        assert_eq!(chunk.next, next);
        assert!(chunk.entries.is_sorted_by_key(|entry| entry.offset));
        gaps.extend(chunk.gaps);
        entries.extend(chunk.entries.into_iter().map(|entry| (entry.offset.0, entry)));
    }
    (entries, gaps)
}
