//! The one who appends to the log: a group of events is one write and one sync. It never reads, and never tries a file
//! again that failed it.

use std::io;
use std::sync::Arc;

use jiff::Timestamp;

use super::files::File;
use super::format::{GroupHeader, Packer, SegmentHeader, segment_name};
use super::log::{Log, Record};
use super::segment::{Known, Mark, Segment};

/// The one who writes.
pub struct Writer {
    log: Log,
    segment_bytes_max: u64,
    /// The segment that the next one goes on from; 0: none.
    last_sequence: u64,
    /// The next segment's sequence. Those of failed attempts are not used again.
    next_sequence: u64,
    /// When the newest event of the log was received.
    newest_at: Option<Timestamp>,
    open: Option<Open>,
    packer: Packer,
}

/// The segment being written.
struct Open {
    segment: Arc<Segment>,
    file: Arc<dyn File>,
    /// Where the next group goes.
    position: u64,
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(log: Log, segment_bytes_max: u64, last: Option<&Segment>) -> Self {
        let last_sequence = last.map_or(0, |last| last.sequence);
        let newest_at = last.and_then(|last| last.known().newest_at);
        Self {
            log,
            segment_bytes_max,
            last_sequence,
            next_sequence: last_sequence + 1,
            newest_at,
            open: None,
            packer: Packer::default(),
        }
    }

    /// Appends records as one group and makes them durable. Answers the offset of the first one.
    ///
    /// # Errors
    /// The file system refuses. Nothing of the group is in the log then, and the next call begins a new segment. So it
    /// is for records too large for one group (256 MiB).
    pub fn append(&mut self, records: &[Record]) -> io::Result<u64> {
        let first = self.log.end();
        if records.is_empty() {
            return Ok(first);
        }
        let group = self.packer.pack(records)?;
        let is_too_much = |open: &Open| open.position + group.size_bytes() > self.segment_bytes_max;
        if self.open.as_ref().is_some_and(is_too_much) {
            self.roll();
        }
        // It comes back when the write succeeds.
        let open = match self.open.take() {
            Some(open) => self.extend(open, group, first)?,
            None => self.begin(group, first)?,
        };
        self.newest_at = self.newest_at.max(Some(group.newest_at));
        self.open = Some(open);
        self.log.publish(first + u64::from(group.events));
        Ok(first)
    }

    /// Begins a new segment with the next group, if there is anything in this one.
    pub fn roll(&mut self) {
        self.open = None;
    }

    fn extend(&self, mut open: Open, group: GroupHeader, first: u64) -> io::Result<Open> {
        let group = group.at(open.segment.sequence, first);
        let mut bytes = Vec::new();
        self.packer.write(&group, &mut bytes);
        let written = open.file.write_at(open.position, &bytes).and_then(|()| open.file.sync());
        if let Err(error) = written {
            self.abandon(&open);
            return Err(error);
        }
        open.position += group.size_bytes();
        let start = Mark { offset: first, position: open.position - group.size_bytes() };
        let end = Mark { offset: group.end(), position: open.position };
        open.segment.grow(start, end, group.newest_at);
        self.log.add_bytes(group.size_bytes());
        Ok(open)
    }

    /// Gives a full disk its room back. The file is not touched again, whether this succeeds or not.
    fn abandon(&self, open: &Open) {
        let _ = open.file.set_len(open.position);
        let size_bytes = open.file.len().unwrap_or(open.position).max(open.position);
        open.segment.known().size_bytes = size_bytes;
        self.log.add_bytes(size_bytes - open.position);
    }

    fn begin(&mut self, group: GroupHeader, first: u64) -> io::Result<Open> {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let group = group.at(sequence, first);
        let name = segment_name(sequence, first);
        let header = SegmentHeader { sequence, first, follows: self.last_sequence, newest_before: self.newest_at };
        let mut bytes = header.encode();
        let start = Mark { offset: first, position: bytes.len() as u64 };
        self.packer.write(&group, &mut bytes);
        let file = match self.create(&name, &bytes) {
            Ok(file) => file,
            Err(error) => {
                self.discard(name, sequence, first);
                return Err(error);
            }
        };
        self.last_sequence = sequence;
        let position = bytes.len() as u64;
        let known = Known::new(first, 0, self.newest_at);
        let segment = Arc::new(Segment::new(name, sequence, first, true, known));
        segment.grow(start, Mark { offset: group.end(), position }, group.newest_at);
        self.log.add(Arc::clone(&segment));
        self.log.add_bytes(position);
        Ok(Open { segment, file, position })
    }

    /// Takes away a file in which nothing counts. One that stays is a segment without events: it ends where it begins, and
    /// is removed when it is the oldest.
    fn discard(&self, name: String, sequence: u64, first: u64) {
        let files = self.log.files();
        match files.remove(&name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => {
                let size_bytes = files.open(&name).and_then(|file| file.len()).unwrap_or(0);
                let known = Known::new(first, size_bytes, self.newest_at);
                self.log.add(Arc::new(Segment::new(name, sequence, first, true, known)));
                self.log.add_bytes(size_bytes);
            }
        }
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<Arc<dyn File>> {
        let file = self.log.files().open(name)?;
        let written = file.write_at(0, bytes).and_then(|()| file.sync());
        if let Err(error) = written.and_then(|()| self.log.files().sync_names()) {
            // Should the file stay, nothing is in it.
            let _ = file.set_len(0);
            return Err(error);
        }
        Ok(Arc::from(file))
    }
}
