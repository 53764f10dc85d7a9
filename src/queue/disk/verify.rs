//! Looks through a whole segment for people: what is in it, and what is damaged where. It reports and changes nothing.

use std::io;
use std::sync::Arc;

use super::files::File;
use super::format::HEADER_BYTES;
use super::log::Gap;
use super::recover::read_header;
use super::segment::{Mark, Segment, Step};

/// What looking through a whole segment found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Events that are whole.
    pub events: u64,
    /// Ranges that are not.
    pub damaged: Vec<DamagedRange>,
    /// Bytes after the last whole group: a write that failed or was cut off.
    pub torn_bytes: u64,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Bytes of the events before compression.
    pub raw_bytes: u64,
}

/// Damage in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// The events that are lost by it: none when only the segment's header is damaged.
    pub gap: Gap,
    /// The first byte.
    pub position: u64,
    /// One past the last byte.
    pub position_end: u64,
}

/// Looks through a segment; the last one has events only as far as they are published.
pub(super) fn verify(segment: &Segment, file: &Arc<dyn File>, is_last: bool) -> io::Result<Verified> {
    let known = segment.known().clone();
    let readable_bytes = if is_last { known.readable_bytes } else { known.size_bytes };
    let mut verified = Verified { size_bytes: known.size_bytes, ..Verified::default() };
    // One without events is what a failed write left.
    let has_events = segment.first < known.end;
    if has_events && read_header(&**file, segment.sequence, segment.first, &segment.name)?.is_none() {
        let header = Mark { offset: segment.first, position: 0 };
        verified.note(header, Mark { position: HEADER_BYTES as u64, ..header });
    }
    let mut walk = segment.walk_all(Arc::clone(file), known.end, readable_bytes);
    let mut whole_to = walk.at.position;
    while let Some(step) = walk.next()? {
        let missing = match step {
            Step::Group(header, position) => match walk.entries(&header, position)? {
                Some(entries) => {
                    verified.events += entries.len() as u64;
                    verified.raw_bytes += u64::from(header.raw_bytes);
                    whole_to = walk.at.position;
                    continue;
                }
                None => walk.reject(&header, position)?,
            },
            Step::Missing(missing) => missing,
        };
        if missing.to.is_none() && !segment.is_followed {
            break;
        }
        let to = missing.to.unwrap_or(Mark { offset: known.end, position: readable_bytes });
        verified.note(missing.from, to);
        whole_to = to.position;
    }
    verified.torn_bytes = known.size_bytes.saturating_sub(whole_to);
    Ok(verified)
}

// === impl Verified ===

impl Verified {
    fn note(&mut self, from: Mark, to: Mark) {
        let gap = Gap { from: from.offset, to: to.offset, is_removed: false };
        self.damaged.push(DamagedRange { gap, position: from.position, position_end: to.position });
    }
}
