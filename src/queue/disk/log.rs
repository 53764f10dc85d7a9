//! The log: events in segment files, appended in groups, read from any offset. `format.rs` has the bytes.
//!
//! What was appended is never written again. A file that an earlier process wrote, or in which a write or a sync failed,
//! is never appended to: a failed sync may have dropped what it was to write, and a later one would not tell. The next
//! group begins a new segment and takes the offsets of the one that failed, so what is left of that one in the old file
//! stands where the next segment's events begin, and is not read.
//!
//! Damage is skipped, reported once and counted; it is never an error, and nothing that is whole is lost for it.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::files::{File, Files};
use super::segment::{Missing, Segment, Step};
pub use super::writer::Writer;
use super::{recover, verify};
use crate::attempt::DestinationName;
use crate::event::Event;
use crate::queue::{Entry, Offset, Verified};

/// An event to be written, and for whom.
#[derive(Clone, Debug)]
pub struct Record {
    /// The event.
    pub event: Event,
    /// The one destination it is for; `None`: all.
    pub only: Option<DestinationName>,
}

/// The log as those who read it know it; clones share it.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

struct Shared {
    files: Arc<dyn Files>,
    /// Oldest first.
    segments: Mutex<Vec<Arc<Segment>>>,
    /// Files open for reading, by sequence; the one used last is at the end.
    handles: Mutex<VecDeque<(u64, Arc<dyn File>)>>,
    end: AtomicU64,
    size_bytes: AtomicU64,
    damaged: AtomicU64,
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The place of the next event.
    pub end: u64,
    /// Bytes after the last whole group: a write that a crash cut off.
    pub torn_bytes: u64,
    /// Events lost to damage, as far as it was looked for.
    pub damaged: u64,
}

/// Events read from the log.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Entries in order, from the asked offset on; gaps between them are in `gaps`.
    pub entries: Vec<Arc<Entry>>,
    /// Ranges (end exclusive) without events, in order.
    pub gaps: Vec<Gap>,
    /// Where to go on: one past the last entry or gap.
    pub next: u64,
}

/// Events that the log does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// Whether whole segments were removed; otherwise the bytes are damaged.
    pub is_removed: bool,
}

/// One file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its file name.
    pub name: String,
    /// Its first event.
    pub first: u64,
    /// One past its last event.
    pub end: u64,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// No event up to its end was accepted later; `None`: there is none, or that is not known.
    pub newest_at: Option<Timestamp>,
    /// Whether it is the last one: it is being written, or it tells where the log ends. It cannot be removed.
    pub is_open: bool,
}

/// What a read has so far, and what it is to have.
struct Reading<'a> {
    chunk: Chunk,
    text_bytes: usize,
    bytes_max: usize,
    /// It goes no further than the group before this offset.
    until: u64,
    /// Of other events nothing is kept.
    is_wanted: &'a dyn Fn(u64) -> bool,
}

/// Files kept open for reading: enough for destinations that lag at different places, few beside a process's limit of
/// usually 1024.
const HANDLES_MAX: usize = 32;

/// Single events that are no further apart are read in one go, as many bytes at a time: what lies between them is little.
const NEAR_EVENTS: u64 = 16;
const NEAR_BYTES: usize = 64 << 10;

// === impl Log ===

impl Log {
    /// Opens the log in a folder. Only the last segment is read, and the headers of the others.
    ///
    /// `known_end` is what storage elsewhere knows to have existed: offsets below it are not used again.
    ///
    /// # Errors
    /// The file system refuses, a file is of a newer version, or the files are not of one log. Never for damage.
    pub fn open(files: Arc<dyn Files>, segment_bytes_max: u64, known_end: u64) -> io::Result<(Self, Writer, Recovery)> {
        let segments = recover::find_segments(&*files)?;
        let size_bytes = segments.iter().map(|segment| segment.known().size_bytes).sum();
        let last = segments.last().cloned();
        let log = Self(Arc::new(Shared {
            files,
            segments: Mutex::new(segments),
            handles: Mutex::default(),
            end: AtomicU64::new(known_end),
            size_bytes: AtomicU64::new(size_bytes),
            damaged: AtomicU64::new(0),
        }));
        let recovery = match &last {
            Some(last) => recover::recover(&log, last, known_end)?,
            None => Recovery { end: known_end, ..Recovery::default() },
        };
        log.publish(recovery.end);
        let writer = Writer::new(log.clone(), segment_bytes_max, last.as_deref());
        Ok((log, writer, recovery))
    }

    /// One past the last durable event.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.end.load(Ordering::Acquire)
    }

    /// Bytes of all its files.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.0.size_bytes.load(Ordering::Relaxed)
    }

    /// Events found damaged since it was opened, each counted once.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.0.damaged.load(Ordering::Relaxed)
    }

    /// Its files, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let segments = self.list();
        segments.iter().enumerate().map(|(index, segment)| info(segment, index + 1 == segments.len())).collect()
    }

    /// Reads from an offset on, at least one event if there is one, up to some `bytes_max` of event text (it may be more
    /// by what belongs to one group). Blocks.
    ///
    /// # Errors
    /// A file cannot be read. Never for damage.
    pub fn read(&self, from: u64, bytes_max: usize) -> io::Result<Chunk> {
        self.read_until(from, u64::MAX, bytes_max, &|_| true)
    }

    /// Reads single events by their offsets, which ascend; one that is damaged or was removed is missing. Blocks.
    ///
    /// # Errors
    /// A file cannot be read. Never for damage.
    pub fn pick(&self, offsets: &[Offset]) -> io::Result<Vec<Arc<Entry>>> {
        let is_wanted = |offset| offsets.binary_search(&Offset(offset)).is_ok();
        let (mut found, mut next, end) = (Vec::new(), 0, self.end());
        for run in offsets.chunk_by(|one, other| other.0 - one.0 <= NEAR_EVENTS) {
            let until = run.last().map_or(0, |last| last.0 + 1).min(end);
            next = run.first().map_or(next, |first| next.max(first.0));
            while next < until {
                let chunk = self.read_until(next, until, NEAR_BYTES, &is_wanted)?;
                next = chunk.next;
                found.extend(chunk.entries);
            }
        }
        Ok(found)
    }

    fn read_until(
        &self,
        from: u64,
        until: u64,
        bytes_max: usize,
        is_wanted: &dyn Fn(u64) -> bool,
    ) -> io::Result<Chunk> {
        let end = self.end();
        let chunk = Chunk { next: from, ..Chunk::default() };
        let mut reading = Reading { chunk, text_bytes: 0, bytes_max, until, is_wanted };
        while reading.chunk.next < end && !reading.is_enough() {
            if let Err(error) = self.read_on(&mut reading, end) {
                if reading.chunk.next == from {
                    return Err(error);
                }
                // What was read before is handed out first; the error comes again with the next read.
                break;
            }
        }
        Ok(reading.chunk)
    }

    /// The first offset that may hold an event accepted at or after a time. Blocks.
    ///
    /// # Errors
    /// A file cannot be read. Never for damage.
    pub fn offset_at(&self, time: Timestamp) -> io::Result<u64> {
        let end = self.end();
        let segments = self.list().clone();
        for segment in segments {
            let is_older = segment.known().newest_at.is_some_and(|newest_at| newest_at < time);
            if is_older {
                continue;
            }
            if let Some(offset) = self.offset_in(&segment, time, end)? {
                return Ok(offset);
            }
        }
        Ok(end)
    }

    /// Removes a whole segment, but not the last one. To be done oldest first: what a failed write left at a segment's
    /// end is told from events by the segment that follows.
    ///
    /// # Errors
    /// There is no such segment, it is the last one, or the file system refuses. When it refuses no more than to make the
    /// removal durable, the segment is gone, and may be there again after a loss of power.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let (segment, is_last) = self.segment(name)?;
        if is_last {
            let text = format!("{name} is the last segment and tells where the log ends: it cannot be removed");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.remove_file(&segment)?;
        self.list().retain(|other| other.sequence != segment.sequence);
        self.0.size_bytes.fetch_sub(segment.known().size_bytes, Ordering::Relaxed);
        self.0.files.sync_names()
    }

    /// Looks through a whole segment. Blocks.
    ///
    /// # Errors
    /// There is no such segment, or its file cannot be read. Never for damage.
    pub fn verify(&self, name: &str) -> io::Result<Verified> {
        let (segment, is_last) = self.segment(name)?;
        let file = self.file(&segment)?.ok_or_else(|| missing(name))?;
        verify::verify(&segment, &file, is_last)
    }

    // --- for the writer and for opening

    pub(super) fn files(&self) -> &dyn Files {
        &*self.0.files
    }

    /// Adds a segment at the end, with events that are durable but not published.
    pub(super) fn add(&self, segment: Arc<Segment>) {
        self.list().push(segment);
    }

    pub(super) fn add_bytes(&self, size_bytes: u64) {
        self.0.size_bytes.fetch_add(size_bytes, Ordering::Relaxed);
    }

    /// Lets readers see what is before a new end.
    pub(super) fn publish(&self, end: u64) {
        self.0.end.store(end, Ordering::Release);
    }

    pub(super) fn report_damage(&self, segment: &Segment, from: u64, to: u64, position: u64) {
        self.0.damaged.fetch_add(segment.report_damage(from, to, position), Ordering::Relaxed);
    }

    /// A segment's file; `None` when it was removed.
    pub(super) fn file(&self, segment: &Segment) -> io::Result<Option<Arc<dyn File>>> {
        let mut handles = self.handles();
        // Asked under the lock: opening a removed file would make it anew.
        if segment.is_removed() {
            return Ok(None);
        }
        let known = handles.iter().position(|(sequence, _)| *sequence == segment.sequence);
        let handle = match known.and_then(|index| handles.remove(index)) {
            Some((_, handle)) => handle,
            None => Arc::from(self.0.files.open(&segment.name)?),
        };
        handles.push_back((segment.sequence, Arc::clone(&handle)));
        if handles.len() > HANDLES_MAX {
            handles.pop_front();
        }
        Ok(Some(handle))
    }

    // --- parts

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Segment>>> {
        // Nothing done to the list can panic halfway.
        self.0.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handles(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<dyn File>)>> {
        self.0.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment of a name, and whether it is the last one.
    fn segment(&self, name: &str) -> io::Result<(Arc<Segment>, bool)> {
        let segments = self.list();
        let index = segments.iter().position(|segment| segment.name == name).ok_or_else(|| missing(name))?;
        Ok((Arc::clone(&segments[index]), index + 1 == segments.len()))
    }

    fn remove_file(&self, segment: &Segment) -> io::Result<()> {
        let mut handles = self.handles();
        self.0.files.remove(&segment.name)?;
        segment.set_removed();
        handles.retain(|(sequence, _)| *sequence != segment.sequence);
        Ok(())
    }

    /// Reads from one segment, or passes a removed one.
    fn read_on(&self, reading: &mut Reading<'_>, end: u64) -> io::Result<()> {
        let segment = match self.at(reading.chunk.next) {
            Ok(segment) => segment,
            Err(next) => {
                reading.chunk.pass(next.min(end), true);
                return Ok(());
            }
        };
        let end = segment.end().min(end);
        let Some(file) = self.file(&segment)? else {
            reading.chunk.pass(end, true);
            return Ok(());
        };
        self.read_segment(&segment, file, end, reading)
    }

    /// The segment that has an offset, or where the next one begins when none has.
    fn at(&self, offset: u64) -> Result<Arc<Segment>, u64> {
        let segments = self.list();
        // Of several that begin at one offset, all but the last are what failed writes left.
        let index = segments.partition_point(|segment| segment.first <= offset);
        let segment = index.checked_sub(1).and_then(|index| segments.get(index));
        match segment.filter(|segment| offset < segment.end()) {
            Some(segment) => Ok(Arc::clone(segment)),
            None => Err(segments.get(index).map_or(u64::MAX, |next| next.first)),
        }
    }

    fn read_segment(
        &self,
        segment: &Segment,
        file: Arc<dyn File>,
        end: u64,
        reading: &mut Reading<'_>,
    ) -> io::Result<()> {
        let mut walk = segment.walk(file, reading.chunk.next, end, reading.bytes_max);
        while !reading.is_enough() {
            let Some(step) = walk.next()? else {
                reading.chunk.pass(end, false);
                break;
            };
            let missing = match step {
                Step::Group(header, _) if header.end() <= reading.chunk.next => continue,
                Step::Group(header, position) => match walk.entries(&header, position, &|at| reading.wants(at))? {
                    Some(entries) => {
                        reading.take(entries, header.end());
                        continue;
                    }
                    None => walk.reject(&header, position)?,
                },
                Step::Missing(missing) => missing,
            };
            self.pass_missing(segment, missing, end, &mut reading.chunk);
        }
        segment.remember(&walk);
        Ok(())
    }

    fn pass_missing(&self, segment: &Segment, missing: Missing, end: u64, chunk: &mut Chunk) {
        if missing.to.is_none() && !segment.is_followed {
            // The file ends whole, and the one that went on from it is gone.
            return chunk.pass(end, true);
        }
        let to = missing.to.map_or(end, |to| to.offset);
        self.report_damage(segment, missing.from.offset, to, missing.from.position);
        chunk.pass(to, false);
    }

    fn offset_in(&self, segment: &Segment, time: Timestamp, end: u64) -> io::Result<Option<u64>> {
        let Some(file) = self.file(segment)? else { return Ok(None) };
        let mut walk = segment.walk(file, segment.first, end, usize::MAX);
        let mut found = None;
        while let Some(step) = walk.next()? {
            match step {
                Step::Group(header, _) if header.newest_at >= time => {
                    found = Some(header.first);
                    break;
                }
                Step::Group(..) | Step::Missing(_) => {}
            }
        }
        segment.remember(&walk);
        Ok(found)
    }
}

fn info(segment: &Segment, is_open: bool) -> SegmentInfo {
    let known = segment.known();
    SegmentInfo {
        name: segment.name.clone(),
        first: segment.first,
        end: known.end,
        size_bytes: known.size_bytes,
        newest_at: known.newest_at,
        is_open,
    }
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the log has no segment {name}"))
}

// === impl Chunk, Reading ===

impl Chunk {
    /// Goes on at an offset, with nothing up to it.
    fn pass(&mut self, to: u64, is_removed: bool) {
        if to <= self.next {
            return;
        }
        let last = self.gaps.last_mut().filter(|last| last.to == self.next && last.is_removed == is_removed);
        match last {
            Some(last) => last.to = to,
            None => self.gaps.push(Gap { from: self.next, to, is_removed }),
        }
        self.next = to;
    }
}

impl Reading<'_> {
    fn is_enough(&self) -> bool {
        let is_full = !self.chunk.entries.is_empty() && self.text_bytes >= self.bytes_max;
        is_full || self.chunk.next >= self.until
    }

    fn wants(&self, offset: u64) -> bool {
        offset >= self.chunk.next && (self.is_wanted)(offset)
    }

    /// Takes what was wanted of a group.
    fn take(&mut self, entries: Vec<Arc<Entry>>, end: u64) {
        self.text_bytes += entries.iter().map(|entry| entry.event.json.len()).sum::<usize>();
        self.chunk.entries.extend(entries);
        self.chunk.next = end;
    }
}

#[cfg(test)]
mod tests;
