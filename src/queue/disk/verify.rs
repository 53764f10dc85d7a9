//! Looks through a whole segment for people: what is in it, and what is damaged where. It reports and changes nothing.

use std::io;
use std::sync::Arc;

use super::files::File;
use super::format::HEADER_BYTES;
use super::recover::read_header;
use super::segment::{Mark, Segment, Step};
use crate::queue::{Damage, Offset, Verified};

/// Looks through a segment; the last one has events only as far as they are published.
pub(super) fn verify(segment: &Segment, file: &Arc<dyn File>, is_last: bool) -> io::Result<Verified> {
    let known = segment.known().clone();
    let readable_bytes = if is_last { known.readable_bytes } else { known.size_bytes };
    let mut verified = Verified { name: segment.name.clone(), size_bytes: known.size_bytes, ..Verified::default() };
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
            Step::Group(header, position) => match walk.entries(&header, position, &|_| true)? {
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
        let (position_bytes, size_bytes) = (from.position, to.position.saturating_sub(from.position));
        self.damaged.push(Damage { from: Offset(from.offset), to: Offset(to.offset), position_bytes, size_bytes });
    }
}
