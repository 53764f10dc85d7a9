//! What is written is read again, and nothing else is taken for it.

use jiff::SignedDuration;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::attempt::DestinationName;

fn records() -> impl Strategy<Value = Vec<Record>> {
    vec(record(), 1..10)
}

fn record() -> impl Strategy<Value = Record> {
    let text = prop_oneof![".{0,20}", (0..2000_usize).prop_map(|len| "ab ".repeat(len))];
    let time = (any::<i64>(), any::<i64>()).prop_map(|(seconds, nanoseconds)| {
        let time = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds % 100_000_000_000);
        time + SignedDuration::from_nanos(nanoseconds % 1_000_000_000)
    });
    let fields =
        (".{0,8}", prop::sample::select(Kind::ALL.to_vec()), ".{0,40}", time, text, prop::option::of(".{0,8}"));
    fields.prop_map(|(source, kind, id, received_at, text, only)| {
        let json = Bytes::from(text);
        let event = Event { source: source.into(), kind, message_id: id.into(), received_at, json };
        Record { event, only: only.map(DestinationName::from) }
    })
}

/// The header and the payload of a written group.
fn written(records: &[Record], sequence: u64, first: u64) -> (GroupHeader, Vec<u8>) {
    written_by(&mut Packer::default(), records, sequence, first)
}

fn written_by(packer: &mut Packer, records: &[Record], sequence: u64, first: u64) -> (GroupHeader, Vec<u8>) {
    let group = packer.pack(records).unwrap();
    let mut bytes = Vec::new();
    packer.write(&group.at(sequence, first), &mut bytes);
    assert_eq!(bytes.len() as u64, group.size_bytes());
    (GroupHeader::decode(&bytes).unwrap(), bytes.split_off(HEADER_BYTES))
}

/// The same header under a right checksum.
fn resealed(mut header: Vec<u8>) -> Vec<u8> {
    header.truncate(CHECKSUM_AT);
    seal(&mut header);
    header
}

proptest! {
    #[test]
    fn a_group_is_read_as_it_was_written(records in records(), sequence: u64, first in 0..u64::MAX / 2) {
        let (header, payload) = written(&records, sequence, first);
        prop_assert_eq!((header.sequence, header.first), (sequence, first));
        prop_assert_eq!(header.end(), first + records.len() as u64);
        prop_assert_eq!(Some(header.newest_at), records.iter().map(|record| record.event.received_at).max());
        let entries = header.entries(&payload, &|_| true).unwrap();
        prop_assert_eq!(entries.len(), records.len());
        for (index, (entry, record)) in entries.iter().zip(&records).enumerate() {
            prop_assert_eq!(entry.offset.0, first + index as u64);
            prop_assert_eq!(&entry.event, &record.event);
            prop_assert_eq!(&entry.only, &record.only);
        }
    }

    #[test]
    fn a_payload_with_any_bit_changed_is_damaged(records in records(), at: prop::sample::Index, bit in 0..8) {
        let (header, mut payload) = written(&records, 1, 0);
        let at = at.index(payload.len());
        payload[at] ^= 1_u8 << bit;
        prop_assert!(header.entries(&payload, &|_| true).is_none());
    }

    #[test]
    fn a_segment_header_is_read_as_it_was_written(sequence: u64, first: u64, follows: u64, seconds in prop::option::of(-1_000_000..1_000_000i64)) {
        let newest_before = seconds.map(|seconds| Timestamp::from_second(seconds).unwrap());
        let header = SegmentHeader { sequence, first, follows, newest_before };
        prop_assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        prop_assert_eq!(parse_segment_name(&segment_name(sequence, first)), Some((sequence, first)));
    }

    #[test]
    fn no_bytes_can_make_reading_panic(bytes in vec(any::<u8>(), 0..300), name in ".{0,40}") {
        let _ = SegmentHeader::decode(&bytes);
        let _ = GroupHeader::decode(&bytes);
        let _ = parse_segment_name(&name);
        let _ = decode_record(&bytes, &mut Vec::new());
    }

    #[test]
    fn no_header_or_payload_under_a_right_checksum_can_make_reading_panic(
        header in vec(any::<u8>(), HEADER_BYTES),
        payload in vec(any::<u8>(), 0..400),
        events in 1..20u32,
        raw_bytes in 0..2000u32,
        codec in prop_oneof![Just(Codec::Raw), Just(Codec::Lz4), Just(Codec::Zstd)],
    ) {
        let mut magical = GROUP_MAGIC.to_vec();
        magical.push(VERSION);
        magical.extend_from_slice(&header[magical.len()..]);
        let _ = GroupHeader::decode(&resealed(magical)).map(|header| header.entries(&payload, &|_| true));

        let raw_bytes = if codec == Codec::Raw { len_u32(payload.len()) } else { raw_bytes };
        let (whole, _) = written(&[a_record("{}")], 1, 0);
        let checksum = crc32fast::hash(&payload);
        let header = GroupHeader { codec, raw_bytes, stored_bytes: len_u32(payload.len()), checksum, events, ..whole };
        let _ = header.entries(&payload, &|_| true);
    }
}

fn a_record(json: &str) -> Record {
    let (source, message_id, received_at) = ("web".into(), "1".into(), Timestamp::UNIX_EPOCH);
    let event = Event { source, kind: Kind::Track, message_id, received_at, json: json.to_owned().into() };
    Record { event, only: None }
}

#[test]
fn a_header_with_any_bit_changed_is_damaged() {
    let group = written(&[a_record("{}")], 1, 7).0.encode();
    let segment = SegmentHeader { sequence: 1, first: 7, follows: 0, newest_before: None }.encode();
    for bit in 0..HEADER_BYTES * 8 {
        let flip = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        assert_eq!(GroupHeader::decode(&flip(&group)), Err(Unreadable::Damaged));
        assert_eq!(SegmentHeader::decode(&flip(&segment)), Err(Unreadable::Damaged));
    }
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut group = written(&[a_record("{}")], 1, 7).0.encode();
    group[4] = VERSION + 1;
    assert_eq!(GroupHeader::decode(&resealed(group)), Err(Unreadable::Newer));
    let mut segment = SegmentHeader { sequence: 1, first: 7, follows: 0, newest_before: None }.encode();
    segment[8] = VERSION + 1;
    assert_eq!(SegmentHeader::decode(&resealed(segment)), Err(Unreadable::Newer));
}

#[test]
fn a_header_that_claims_more_than_can_be_takes_no_memory() {
    let claims = |change: fn(&mut GroupHeader)| {
        let mut header = written(&[a_record("{}")], 1, 7).0;
        change(&mut header);
        GroupHeader::decode(&header.encode())
    };
    assert!(claims(|_| ()).is_ok());
    assert!(claims(|header| header.events = u32::MAX).is_err());
    assert!(claims(|header| header.events = 0).is_err());
    assert!(claims(|header| header.first = u64::MAX).is_err());
    assert!(claims(|header| header.raw_bytes += 1).is_err());
    assert!(claims(|header| (header.codec, header.raw_bytes) = (Codec::Zstd, u32::MAX)).is_err());
}

#[test]
fn a_group_is_compressed_when_it_is_worth_it() {
    let codec = |json: &str| written(&[a_record(json)], 1, 0).0.codec;
    let noise: String = std::iter::repeat_with(|| fastrand::char('\0'..='\x7f')).take(5000).collect();
    assert_eq!(codec(&"a".repeat(COMPRESSED_FROM_BYTES / 2)), Codec::Raw, "too little");
    assert_eq!(codec(&"a".repeat(COMPRESSED_FROM_BYTES)), Codec::Zstd);
    assert_eq!(codec(&noise), Codec::Raw, "nothing saved");
}

#[test]
fn a_group_does_not_depend_on_those_that_were_packed_before() {
    let noise = |bytes: usize| -> String { std::iter::repeat_with(fastrand::alphanumeric).take(bytes).collect() };
    let mut packer = Packer::default();
    for text in ["a".repeat(5000), noise(4 << 20), "ab".repeat(100_000), noise(100), noise(5000), "a".repeat(5000)] {
        let records = [a_record(&text)];
        assert_eq!(written_by(&mut packer, &records, 1, 7), written(&records, 1, 7));
    }
    packer.pack(&[a_record("{}")]).unwrap();
    assert!(packer.raw.capacity() + packer.compressed.capacity() <= 2 * KEPT_BYTES_MAX);
}

#[test]
fn events_of_one_group_share_their_sources_name_and_nothing_else() {
    let (header, payload) = written(&[a_record("{}"), a_record("[]")], 1, 0);
    let entries = header.entries(&payload, &|_| true).unwrap();
    let [first, second] = [&entries[0].event, &entries[1].event];
    assert_eq!(first.source.as_str().as_ptr(), second.source.as_str().as_ptr());
    assert!(first.json.is_unique() && second.json.is_unique(), "an event that is kept keeps its group");
}

#[test]
fn no_other_file_is_taken_for_a_segment() {
    for name in
        ["lock", "state.redb", "1-2.log", "0000000001-00000000000000000000.log~", "+000000001-00000000000000000000.log"]
    {
        assert_eq!(parse_segment_name(name), None, "{name}");
    }
    assert!(Packer::default().pack(&[]).is_err());
}
