//! One file of the log, read: from group to group, past damage to the next whole group. It never writes, and it knows
//! of no other segment.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::files::File;
use super::format::{GROUP_MAGIC, GroupHeader, HEADER_BYTES, Unreadable, newer};
use crate::queue::Entry;

/// One file of the log, as far as it is known in memory.
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) sequence: u64,
    pub(super) first: u64,
    /// Whether no file is missing between it and the next one.
    pub(super) is_followed: bool,
    is_removed: AtomicBool,
    known: Mutex<Known>,
}

/// What changes about a segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// One past its last event.
    pub(super) end: u64,
    /// Bytes that may be read: up to the end of the last group that counts.
    pub(super) readable_bytes: u64,
    /// Bytes of the file.
    pub(super) size_bytes: u64,
    /// When the newest of the events up to its end was received.
    pub(super) newest_at: Option<Timestamp>,
    /// Where groups begin, one per [`MARK_BYTES`], in order; only for what somebody has read.
    marks: Vec<Mark>,
    /// Where the last reads ended: the next ones begin there.
    recent: VecDeque<Mark>,
    /// Ranges of damaged events that were reported; no two touch.
    damaged: BTreeMap<u64, u64>,
}

/// A group begins here, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Its first event.
    pub(super) offset: u64,
    /// Its place in the file.
    pub(super) position: u64,
}

/// Goes through a segment's groups in order.
pub(super) struct Walk {
    window: Window,
    name: String,
    sequence: u64,
    /// Where it stands.
    pub(super) at: Mark,
    /// Events from here on are not the segment's; `u64::MAX`: not known.
    end: u64,
    /// Groups it came by, one per [`MARK_BYTES`].
    marks: Vec<Mark>,
}

/// What a walk comes by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A group whose header is whole, and its place.
    Group(GroupHeader, u64),
    /// Bytes that are no group.
    Missing(Missing),
}

/// Bytes that are no group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    /// Where a group should begin.
    pub(super) from: Mark,
    /// The next whole group; `None`: there is none.
    pub(super) to: Option<Mark>,
}

/// A file read in blocks.
struct Window {
    file: Arc<dyn File>,
    /// Bytes of the file that may be read.
    readable_bytes: u64,
    block_bytes: usize,
    position: u64,
    bytes: Vec<u8>,
}

/// The index has one entry per so many bytes: a read looks through no more headers than that to find its place, and
/// 64 MiB of log take 16 KiB of memory.
const MARK_BYTES: u64 = 64 << 10;

/// Readers at different places whose ends are kept; more of them find their place by the index.
const RECENT_MAX: usize = 64;

/// A read from the file is between these: a few system calls per MiB, and little for a reader that wants little.
const BLOCK_BYTES_MIN: usize = 16 << 10;
const BLOCK_BYTES_MAX: usize = 256 << 10;

// === impl Segment ===

impl Segment {
    pub(super) fn new(name: String, sequence: u64, first: u64, is_followed: bool, known: Known) -> Self {
        Self { name, sequence, first, is_followed, is_removed: AtomicBool::new(false), known: Mutex::new(known) }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing in it can panic halfway.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self) -> u64 {
        self.known().end
    }

    /// Whether its file is gone; whoever has it open may read on.
    pub(super) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Acquire)
    }

    pub(super) fn set_removed(&self) {
        self.is_removed.store(true, Ordering::Release);
    }

    /// Notes a group that was written: it can be read from now on.
    pub(super) fn grow(&self, group: Mark, end: Mark, newest_at: Timestamp) {
        let mut known = self.known();
        known.note(group);
        known.end = end.offset;
        known.readable_bytes = end.position;
        known.size_bytes = known.size_bytes.max(end.position);
        known.newest_at = known.newest_at.max(Some(newest_at));
    }

    /// A walk from an offset on, or from a little before it, to the segment's end or a smaller one.
    pub(super) fn walk(&self, file: Arc<dyn File>, from: u64, end_max: u64, bytes_wanted: usize) -> Walk {
        let known = self.known();
        let at = known.nearest(from).unwrap_or(Mark { offset: self.first, position: HEADER_BYTES as u64 });
        let end = known.end.min(end_max);
        Walk::new(self, file, at, end, known.readable_bytes, bytes_wanted)
    }

    /// A walk through the whole file, wherever the segment ends.
    pub(super) fn walk_all(&self, file: Arc<dyn File>, end: u64, file_bytes: u64) -> Walk {
        let at = Mark { offset: self.first, position: HEADER_BYTES as u64 };
        Walk::new(self, file, at, end, file_bytes, BLOCK_BYTES_MAX)
    }

    /// Keeps where a walk came by and where it ended.
    pub(super) fn remember(&self, walk: &Walk) {
        let mut known = self.known();
        walk.marks.iter().for_each(|mark| known.note(*mark));
        known.recent.retain(|mark| mark.offset != walk.at.offset);
        known.recent.push_back(walk.at);
        if known.recent.len() > RECENT_MAX {
            known.recent.pop_front();
        }
    }

    /// Reports damaged events, once, and says how many of them were not known to be.
    pub(super) fn report_damage(&self, from: u64, to: u64, position: u64) -> u64 {
        let events = self.known().add_damage(from, to);
        if events > 0 {
            tracing::error!(file = %self.name, position, first = from, end = to, "events in the queue are damaged and skipped");
        }
        events
    }
}

// === impl Known ===

impl Known {
    /// A segment that ends at an offset, with so many bytes, all of them readable.
    pub(super) fn new(end: u64, size_bytes: u64, newest_at: Option<Timestamp>) -> Self {
        Self { end, readable_bytes: size_bytes, size_bytes, newest_at, ..Self::default() }
    }

    /// The last place known to be at or before an offset.
    fn nearest(&self, offset: u64) -> Option<Mark> {
        let marked = self.marks[..self.marks.partition_point(|mark| mark.offset <= offset)].last();
        let recent = self.recent.iter().filter(|mark| mark.offset <= offset);
        recent.chain(marked).max_by_key(|mark| mark.position).copied()
    }

    /// Adds a place to the index, unless another is near.
    fn note(&mut self, mark: Mark) {
        let index = self.marks.partition_point(|known| known.position <= mark.position);
        let is_near =
            |other: Option<&Mark>| other.is_some_and(|other| other.position.abs_diff(mark.position) < MARK_BYTES);
        let before = index.checked_sub(1).and_then(|before| self.marks.get(before));
        if !is_near(before) && !is_near(self.marks.get(index)) {
            self.marks.insert(index, mark);
        }
    }

    /// Adds a range to the damaged ones, and counts what was not among them.
    fn add_damage(&mut self, from: u64, to: u64) -> u64 {
        if from >= to {
            return 0;
        }
        let touching: Vec<(u64, u64)> = self
            .damaged
            .range(..=to)
            .rev()
            .take_while(|(_, end)| **end >= from)
            .map(|(first, end)| (*first, *end))
            .collect();
        let known: u64 = touching.iter().map(|(first, end)| to.min(*end).saturating_sub(from.max(*first))).sum();
        let (mut first, mut end) = (from, to);
        for (known_first, known_end) in touching {
            self.damaged.remove(&known_first);
            (first, end) = (first.min(known_first), end.max(known_end));
        }
        self.damaged.insert(first, end);
        (to - from).saturating_sub(known)
    }
}

// === impl Walk ===

impl Walk {
    fn new(
        segment: &Segment,
        file: Arc<dyn File>,
        at: Mark,
        end: u64,
        readable_bytes: u64,
        bytes_wanted: usize,
    ) -> Self {
        let block_bytes = bytes_wanted.clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
        let window = Window { file, readable_bytes, block_bytes, position: 0, bytes: Vec::new() };
        Self { window, name: segment.name.clone(), sequence: segment.sequence, at, end, marks: Vec::new() }
    }

    /// Goes to the next group, or past damage; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read, or is of a newer version; never for damage.
    pub(super) fn next(&mut self) -> io::Result<Option<Step>> {
        let from = self.at;
        if from.offset >= self.end {
            return Ok(None);
        }
        match self.header_at(from.position)? {
            Some(header) if header.first == from.offset => Ok(Some(self.pass(header))),
            Some(_) | None => self.resume(from, from.position).map(|missing| Some(Step::Missing(missing))),
        }
    }

    /// Takes back a group whose events turned out to be damaged. Its length is not believed either: a header may be whole
    /// and in the wrong place.
    pub(super) fn reject(&mut self, header: &GroupHeader, position: u64) -> io::Result<Missing> {
        self.at = Mark { offset: header.first, position };
        self.resume(self.at, position + 1)
    }

    /// Goes on at the next whole group.
    fn resume(&mut self, from: Mark, search_from: u64) -> io::Result<Missing> {
        let to = self.search(search_from)?;
        self.at = to.unwrap_or(Mark { offset: self.end, position: from.position });
        Ok(Missing { from, to })
    }

    fn pass(&mut self, header: GroupHeader) -> Step {
        let group = self.at;
        if self.marks.last().is_none_or(|last| group.position - last.position >= MARK_BYTES) {
            self.marks.push(group);
        }
        self.at = Mark { offset: header.end(), position: group.position + header.size_bytes() };
        Step::Group(header, group.position)
    }

    /// The header at a place, if there can be one.
    fn header_at(&mut self, position: u64) -> io::Result<Option<GroupHeader>> {
        let Some(bytes) = self.window.from(position, HEADER_BYTES)? else { return Ok(None) };
        match GroupHeader::decode(bytes) {
            Ok(header) => Ok(self.can_be(&header, position).then_some(header)),
            Err(Unreadable::Damaged) => Ok(None),
            Err(Unreadable::Newer) => Err(newer(&self.name)),
        }
    }

    fn can_be(&self, header: &GroupHeader, position: u64) -> bool {
        header.sequence == self.sequence
            && header.first >= self.at.offset
            && header.end() <= self.end
            && position + header.size_bytes() <= self.window.readable_bytes
    }

    /// The next whole group at a place or after it.
    fn search(&mut self, mut position: u64) -> io::Result<Option<Mark>> {
        while let Some(bytes) = self.window.from(position, HEADER_BYTES)? {
            let Some(skipped) = bytes.windows(GROUP_MAGIC.len()).position(|window| window == GROUP_MAGIC) else {
                position += (bytes.len() - GROUP_MAGIC.len() + 1) as u64;
                continue;
            };
            position += skipped as u64;
            if let Some(header) = self.header_at(position)?
                && self.is_whole(&header, position)?
            {
                return Ok(Some(Mark { offset: header.first, position }));
            }
            position += 1;
        }
        Ok(None)
    }

    /// Whether a group's payload is what was written.
    pub(super) fn is_whole(&mut self, header: &GroupHeader, position: u64) -> io::Result<bool> {
        Ok(self.payload(header, position)?.is_some_and(|payload| header.is_whole(payload)))
    }

    /// Those of a group's events that are wanted; `None` when the group is damaged.
    pub(super) fn entries(
        &mut self,
        header: &GroupHeader,
        position: u64,
        is_wanted: &dyn Fn(u64) -> bool,
    ) -> io::Result<Option<Vec<Arc<Entry>>>> {
        Ok(self.payload(header, position)?.and_then(|payload| header.entries(payload, is_wanted)))
    }

    fn payload(&mut self, header: &GroupHeader, position: u64) -> io::Result<Option<&[u8]>> {
        let len = header.stored_bytes as usize;
        let bytes = self.window.from(position + HEADER_BYTES as u64, len)?;
        Ok(bytes.and_then(|bytes| bytes.get(..len)))
    }
}

// === impl Window ===

impl Window {
    /// The bytes at a position, at least so many; `None` when the file has fewer.
    fn from(&mut self, position: u64, len_min: usize) -> io::Result<Option<&[u8]>> {
        if self.have(position) < len_min {
            self.fill(position, len_min)?;
        }
        if self.have(position) < len_min {
            return Ok(None);
        }
        let skipped = usize::try_from(position - self.position).unwrap_or(usize::MAX);
        Ok(self.bytes.get(skipped..))
    }

    /// How many bytes from a position on are in memory.
    fn have(&self, position: u64) -> usize {
        let skipped = position.checked_sub(self.position).and_then(|skipped| usize::try_from(skipped).ok());
        skipped.map_or(0, |skipped| self.bytes.len().saturating_sub(skipped))
    }

    fn fill(&mut self, position: u64, len_min: usize) -> io::Result<()> {
        let left = usize::try_from(self.readable_bytes.saturating_sub(position)).unwrap_or(usize::MAX);
        if left < len_min {
            return Ok(());
        }
        self.position = position;
        self.bytes.resize(left.min(len_min.max(self.block_bytes)), 0);
        let read = self.file.read_at(position, &mut self.bytes);
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        read.map(drop)
    }
}
