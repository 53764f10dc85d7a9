//! The bytes of the log's files: what is written, and what may be believed when it is read. Nothing here opens a file.
//!
//! # The format, version 2
//!
//! A file ("segment") is a header and then groups of events, one right after the other. Numbers are little endian;
//! checksums are CRC-32 (IEEE). A segment's name is `{sequence}-{first event}.log`, ten and twenty digits or more: with a
//! damaged header, the name still says where the segment stands.
//!
//! | Segment header: at | bytes | |
//! | --- | --- | --- |
//! | 0 | 8 | `F7` `ROSEG` `0D` `0A` |
//! | 8 | 4 | format version |
//! | 12 | 4 | 0 |
//! | 16 | 8 | sequence: segments count from 1, and every new one has a higher number |
//! | 24 | 8 | offset of its first event |
//! | 32 | 8 | sequence of the segment that it goes on from; 0: there is none |
//! | 40 | 8 + 4 | when the newest event of all segments before it was received; see below. `i64::MIN` seconds: there is none |
//! | 52 | 4 | checksum of bytes 0 to 52 |
//!
//! | Group header: at | bytes | |
//! | --- | --- | --- |
//! | 0 | 4 | `F7` `GRP` |
//! | 4 | 1 | format version |
//! | 5 | 1 | payload as it is (0), or compressed: one block of LZ4 (1), or one frame of Zstandard (2) |
//! | 6 | 2 | 0 |
//! | 8 | 4 | bytes of the payload as stored |
//! | 12 | 4 | bytes of the payload as it is |
//! | 16 | 4 | checksum of the payload as stored |
//! | 20 | 4 | how many events: at least one |
//! | 24 | 8 | offset of its first event; the others count on |
//! | 32 | 8 | sequence of its segment: what the file system left there of another file is not believed |
//! | 40 | 8 + 4 | when the newest of its events was received |
//! | 52 | 4 | checksum of bytes 0 to 52 |
//! | 56 | | the payload |
//!
//! | Event in a payload: at | bytes | |
//! | --- | --- | --- |
//! | 0 | 4 | bytes of the whole, these four included |
//! | 4 | 1 | kind: 0 track, 1 identify, 2 page, 3 screen, 4 group, 5 alias |
//! | 5 | 1 | 1: for one destination only; 0: for all |
//! | 6 | 2 | 0 |
//! | 8 | 4 | bytes of the source's name |
//! | 12 | 4 | bytes of the message id |
//! | 16 | 4 | bytes of the destination's name |
//! | 20 | 8 + 4 | when it was received |
//! | 32 | | source, message id, destination, JSON: UTF-8, up to the end |
//!
//! A time is seconds since 1970 and nanoseconds, both signed and of one sign.
//!
//! # Versions
//!
//! In every version a header is at least 56 bytes long, begins with the same magic, has its version where it has it now
//! and a checksum at 52. A version above the known one under a right checksum is a file of a newer program: an error
//! that says so, never damage. Older versions stay readable: a segment is never rewritten, and a new version begins
//! with a new segment.
//!
//! Version 1 had no Zstandard. LZ4 is no longer written.
//!
//! The magics are no UTF-8, so that no event's text can pass for a header.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes};
use jiff::Timestamp;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::compress_bound;

use super::log::Record;
use crate::event::{Event, Kind, SourceName};
use crate::queue::{Entry, Offset};

/// The version that is written, and the newest that is read.
const VERSION: u8 = 2;

/// Bytes of either header.
pub(super) const HEADER_BYTES: usize = 56;

/// Where a header's checksum is.
const CHECKSUM_AT: usize = 52;

const SEGMENT_MAGIC: [u8; 8] = *b"\xF7ROSEG\r\n";

/// What a group begins with.
pub(super) const GROUP_MAGIC: [u8; 4] = *b"\xF7GRP";

/// Bytes of an event before its text.
const EVENT_BYTES: usize = 32;

/// Bytes of a group's events at most: far above what is appended at once, and what one read must be able to hold.
const GROUP_BYTES_MAX: usize = 256 << 20;

/// Groups below this are not worth a compressor's time.
const COMPRESSED_FROM_BYTES: usize = 512;

/// Memory kept from one group to the next is at most about twice this: what the largest groups of many small requests
/// need.
const KEPT_BYTES_MAX: usize = 3 << 19;

/// Compression has to save one byte in so many to be worth undoing it at every read.
const SAVING_MIN: usize = 8;

/// Level 1 of Zstandard makes batches of events a seventh of what they were, in about the time in which LZ4 makes them a
/// quarter; higher levels save a hundredth more and take half as long again.
const LEVEL: i32 = 1;

/// One LZ4 length byte stands for at most this many bytes: what claims more was not compressed by us.
const LZ4_RATIO_MAX: usize = 255;

/// A block of Zstandard stands for 128 KiB at most and takes four bytes at least (RFC 8878, section 3.1.1.2): what claims
/// more was not compressed by us.
const ZSTD_RATIO_MAX: usize = (128 << 10) / 4;

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) sequence: u64,
    pub(super) first: u64,
    pub(super) follows: u64,
    pub(super) newest_before: Option<Timestamp>,
}

/// What stands before a group's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupHeader {
    codec: Codec,
    /// Bytes of the payload in the file.
    pub(super) stored_bytes: u32,
    /// Bytes of the payload as it is.
    pub(super) raw_bytes: u32,
    checksum: u32,
    pub(super) events: u32,
    pub(super) first: u64,
    pub(super) sequence: u64,
    pub(super) newest_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    Raw,
    Lz4,
    Zstd,
}

thread_local! {
    /// What decompressing needs, which is more than most groups are; `None`: there was no memory for it.
    static UNPACKER: RefCell<Option<Decompressor<'static>>> = RefCell::new(Decompressor::new().ok());
}

/// Makes events one group, ready to be written. What it needs for one it keeps for the next: to take as much memory anew
/// each time costs about as much as to compress.
#[derive(Default)]
pub(super) struct Packer {
    /// The events of the group packed last, as they are.
    raw: Vec<u8>,
    /// The same compressed, if it is worth it.
    compressed: Vec<u8>,
    zstd: Option<Compressor<'static>>,
}

/// Why a header is not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    Damaged,
    /// Whole, and of a version that is not known yet.
    Newer,
}

/// How many names of sources are remembered while a group is decoded; they repeat.
const SOURCES_KEPT: usize = 16;

/// A segment's name.
pub(super) fn segment_name(sequence: u64, first: u64) -> String {
    format!("{sequence:010}-{first:020}.log")
}

/// A segment's sequence and first offset, by its name; `None`: the file is no segment.
pub(super) fn parse_segment_name(name: &str) -> Option<(u64, u64)> {
    let (sequence, first) = name.strip_suffix(".log")?.split_once('-')?;
    let (sequence, first) = (sequence.parse().ok()?, first.parse().ok()?);
    (segment_name(sequence, first) == name).then_some((sequence, first))
}

/// The error about a file of a newer program.
pub(super) fn newer(name: &str) -> io::Error {
    let text = format!(
        "{name} was written by a newer version, in a format above {VERSION}: use that version, or another [queue] dir"
    );
    io::Error::new(io::ErrorKind::Unsupported, text)
}

// === impl SegmentHeader ===

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.put_slice(&SEGMENT_MAGIC);
        bytes.put_u32_le(VERSION.into());
        bytes.put_u32_le(0);
        bytes.put_u64_le(self.sequence);
        bytes.put_u64_le(self.first);
        bytes.put_u64_le(self.follows);
        put_time(&mut bytes, self.newest_before);
        seal(&mut bytes);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let bytes = unseal(bytes, &SEGMENT_MAGIC).ok_or(Unreadable::Damaged)?;
        if (&bytes[SEGMENT_MAGIC.len()..]).get_u32_le() > VERSION.into() {
            return Err(Unreadable::Newer);
        }
        let mut fields = &bytes[16..];
        Ok(Self {
            sequence: fields.get_u64_le(),
            first: fields.get_u64_le(),
            follows: fields.get_u64_le(),
            newest_before: take_time(&mut fields),
        })
    }
}

// === impl GroupHeader ===

impl GroupHeader {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.put_slice(&GROUP_MAGIC);
        bytes.put_u8(VERSION);
        bytes.put_u8(self.codec.byte());
        bytes.put_u16_le(0);
        bytes.put_u32_le(self.stored_bytes);
        bytes.put_u32_le(self.raw_bytes);
        bytes.put_u32_le(self.checksum);
        bytes.put_u32_le(self.events);
        bytes.put_u64_le(self.first);
        bytes.put_u64_le(self.sequence);
        put_time(&mut bytes, Some(self.newest_at));
        seal(&mut bytes);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let bytes = unseal(bytes, &GROUP_MAGIC).ok_or(Unreadable::Damaged)?;
        if bytes[4] > VERSION {
            return Err(Unreadable::Newer);
        }
        Self::fields(bytes).filter(Self::is_plausible).ok_or(Unreadable::Damaged)
    }

    fn fields(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let codec = Codec::of(bytes[5])?;
        let mut fields = &bytes[8..];
        Some(Self {
            codec,
            stored_bytes: fields.get_u32_le(),
            raw_bytes: fields.get_u32_le(),
            checksum: fields.get_u32_le(),
            events: fields.get_u32_le(),
            first: fields.get_u64_le(),
            sequence: fields.get_u64_le(),
            newest_at: take_time(&mut fields)?,
        })
    }

    /// Whether the numbers can be, so that nobody takes memory for what is not there.
    fn is_plausible(&self) -> bool {
        let (stored, raw) = (self.stored_bytes as usize, self.raw_bytes as usize);
        let fits = match self.codec {
            Codec::Raw => stored == raw,
            Codec::Lz4 => raw <= stored.saturating_mul(LZ4_RATIO_MAX),
            Codec::Zstd => raw <= stored.saturating_mul(ZSTD_RATIO_MAX),
        };
        let holds_events = self.events > 0 && (self.events as usize).saturating_mul(EVENT_BYTES) <= raw;
        fits && holds_events && raw <= GROUP_BYTES_MAX && self.first.checked_add(self.events.into()).is_some()
    }

    /// The header of the same group at its place.
    pub(super) fn at(self, sequence: u64, first: u64) -> Self {
        Self { first, sequence, ..self }
    }

    /// One past its last event.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.events)
    }

    /// Bytes in the file, header included.
    pub(super) fn size_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.stored_bytes)
    }

    /// Whether the payload is what was written.
    pub(super) fn is_whole(&self, stored: &[u8]) -> bool {
        crc32fast::hash(stored) == self.checksum
    }

    /// Those of a payload's events whose offsets are wanted, each with a text of its own: whoever keeps one does not keep
    /// the group. `None` when the payload is damaged.
    pub(super) fn entries(&self, stored: &[u8], is_wanted: &dyn Fn(u64) -> bool) -> Option<Vec<Arc<Entry>>> {
        if !self.is_whole(stored) {
            return None;
        }
        let raw = self.unpack(stored)?;
        let mut raw = &*raw;
        let mut sources = Vec::new();
        let mut entries = Vec::new();
        for offset in self.first..self.end() {
            let record = take_record(&mut raw)?;
            if is_wanted(offset) {
                let record = decode_record(record, &mut sources)?;
                entries.push(Arc::new(Entry::new(Offset(offset), record.event, record.only)));
            }
        }
        raw.is_empty().then_some(entries)
    }

    fn unpack<'a>(&self, stored: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let mut raw = Vec::new();
        let len = match self.codec {
            Codec::Raw => return Some(stored.into()),
            Codec::Lz4 => {
                raw.resize(self.raw_bytes as usize, 0);
                lz4_flex::block::decompress_into(stored, &mut raw).ok()?
            }
            Codec::Zstd => {
                raw.reserve_exact(self.raw_bytes as usize);
                UNPACKER.with_borrow_mut(|zstd| zstd.as_mut()?.decompress_to_buffer(stored, &mut raw).ok())?
            }
        };
        (len == self.raw_bytes as usize).then(|| raw.into())
    }
}

// === impl Codec ===

impl Codec {
    const fn byte(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Raw, Self::Lz4, Self::Zstd].into_iter().find(|codec| codec.byte() == byte)
    }
}

// === impl Packer ===

impl Packer {
    /// Packs records as one group, whose place is given later: its header says 0 for it.
    ///
    /// # Errors
    /// There are none, or more than a group may hold; or there is no memory to compress them with.
    pub(super) fn pack(&mut self, records: &[Record]) -> io::Result<GroupHeader> {
        let newest_at = records.iter().map(|record| record.event.received_at).max();
        let newest_at = newest_at.ok_or_else(|| invalid("a group without events".to_owned()))?;
        let raw_len: usize = records.iter().map(record_len).sum();
        if raw_len > GROUP_BYTES_MAX {
            return Err(invalid(format!("{raw_len} bytes of events at once; a group holds up to {GROUP_BYTES_MAX}")));
        }
        self.clear();
        self.raw.reserve(raw_len);
        for record in records {
            encode_record(record, &mut self.raw);
        }
        let codec = self.compress()?;
        let stored = self.stored(codec);
        Ok(GroupHeader {
            codec,
            stored_bytes: len_u32(stored.len()),
            raw_bytes: len_u32(raw_len),
            checksum: crc32fast::hash(stored),
            events: len_u32(records.len()),
            first: 0,
            sequence: 0,
            newest_at,
        })
    }

    /// Writes down the group that was packed last, with a header that gives its place.
    pub(super) fn write(&self, header: &GroupHeader, out: &mut Vec<u8>) {
        out.extend(header.encode());
        out.extend_from_slice(self.stored(header.codec));
    }

    /// Forgets the last group, and gives memory back that few groups need.
    fn clear(&mut self) {
        self.raw.clear();
        self.raw.shrink_to(KEPT_BYTES_MAX);
        self.compressed.clear();
        self.compressed.shrink_to(KEPT_BYTES_MAX);
    }

    /// Compresses the events if that is worth it.
    fn compress(&mut self) -> io::Result<Codec> {
        let raw = &*self.raw;
        if raw.len() < COMPRESSED_FROM_BYTES {
            return Ok(Codec::Raw);
        }
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(Compressor::new(LEVEL)?),
        };
        self.compressed.reserve(compress_bound(raw.len()));
        let len = zstd.compress_to_buffer(raw, &mut self.compressed)?;
        let is_worth_it = len <= raw.len() - raw.len() / SAVING_MIN;
        Ok(if is_worth_it { Codec::Zstd } else { Codec::Raw })
    }

    fn stored(&self, codec: Codec) -> &[u8] {
        match codec {
            Codec::Raw => &self.raw,
            Codec::Lz4 | Codec::Zstd => &self.compressed,
        }
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

// === records ===

fn record_len(record: &Record) -> usize {
    let (source, id, only) = texts(record);
    EVENT_BYTES + source.len() + id.len() + only.len() + record.event.json.len()
}

fn texts(record: &Record) -> (&str, &str, &str) {
    let only = record.only.as_ref().map_or("", |only| only.as_str());
    (record.event.source.as_str(), record.event.message_id.as_str(), only)
}

fn encode_record(record: &Record, out: &mut Vec<u8>) {
    let (source, id, only) = texts(record);
    out.put_u32_le(len_u32(record_len(record)));
    out.put_u8(kind_byte(record.event.kind));
    out.put_u8(record.only.is_some().into());
    out.put_u16_le(0);
    out.put_u32_le(len_u32(source.len()));
    out.put_u32_le(len_u32(id.len()));
    out.put_u32_le(len_u32(only.len()));
    put_time(out, Some(record.event.received_at));
    for text in [source, id, only] {
        out.put_slice(text.as_bytes());
    }
    out.put_slice(&record.event.json);
}

/// Takes the bytes of one record off the front; `None` when they are not there.
fn take_record<'a>(raw: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = raw.get(..4)?.get_u32_le() as usize;
    raw.split_off(..len)
}

/// `None` when the bytes are no record.
fn decode_record(record: &[u8], sources: &mut Vec<SourceName>) -> Option<Record> {
    let (header, mut texts) = record.split_at_checked(EVENT_BYTES)?;
    let mut fields = &header[8..];
    let mut lens = [0; 3];
    lens.fill_with(|| fields.get_u32_le() as usize);
    let received_at = take_time(&mut fields)?;
    let mut text = |len| texts.split_off(..len).and_then(|text| str::from_utf8(text).ok());
    let [source, id, only] = [text(lens[0])?, text(lens[1])?, text(lens[2])?];
    let only = match header[5] {
        0 => None,
        1 => Some(only.into()),
        _ => return None,
    };
    let source = source_name(source, sources);
    let json = Bytes::copy_from_slice(texts);
    let event = Event { source, kind: kind_of(header[4])?, message_id: id.into(), received_at, json };
    Some(Record { event, only })
}

/// A source's name, shared with the other events of the group.
fn source_name(name: &str, sources: &mut Vec<SourceName>) -> SourceName {
    if let Some(known) = sources.iter().find(|source| source.as_str() == name) {
        return known.clone();
    }
    let source = SourceName::from(name);
    if sources.len() < SOURCES_KEPT {
        sources.push(source.clone());
    }
    source
}

const fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Track => 0,
        Kind::Identify => 1,
        Kind::Page => 2,
        Kind::Screen => 3,
        Kind::Group => 4,
        Kind::Alias => 5,
    }
}

fn kind_of(byte: u8) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind_byte(*kind) == byte)
}

// === parts ===

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("GROUP_BYTES_MAX is less")
}

fn put_time(out: &mut Vec<u8>, time: Option<Timestamp>) {
    out.put_i64_le(time.map_or(i64::MIN, Timestamp::as_second));
    out.put_i32_le(time.map_or(0, Timestamp::subsec_nanosecond));
}

/// The caller has seen to it that the bytes are there.
fn take_time(fields: &mut &[u8]) -> Option<Timestamp> {
    let (seconds, nanoseconds) = (fields.get_i64_le(), fields.get_i32_le());
    Timestamp::new(seconds, nanoseconds).ok()
}

fn seal(bytes: &mut Vec<u8>) {
    bytes.put_u32_le(crc32fast::hash(bytes));
}

/// A header whose magic and checksum are right.
fn unseal<'a>(bytes: &'a [u8], magic: &[u8]) -> Option<&'a [u8; HEADER_BYTES]> {
    let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
    let is_right =
        bytes.starts_with(magic) && crc32fast::hash(&bytes[..CHECKSUM_AT]) == (&bytes[CHECKSUM_AT..]).get_u32_le();
    is_right.then_some(bytes)
}

#[cfg(test)]
mod tests;
