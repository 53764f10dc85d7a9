//! Opens a log that somebody else left: finds its segments, and where the last one ends. It removes nothing, and
//! writes nothing new.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::files::{File, Files};
use super::format::{HEADER_BYTES, SegmentHeader, Unreadable, newer, parse_segment_name};
use super::log::{Log, Recovery};
use super::segment::{Known, Mark, Segment, Step};

/// A segment's file as it was found.
struct Found {
    name: String,
    sequence: u64,
    first: u64,
    size_bytes: u64,
    header: Option<SegmentHeader>,
}

/// The segments in a folder, oldest first. Each one but the last ends where the next one begins.
pub(super) fn find_segments(files: &dyn Files) -> io::Result<Vec<Arc<Segment>>> {
    // What is there now is there after the next crash, and what is gone is gone.
    files.sync_names()?;
    let mut names: Vec<(u64, u64, String)> = files
        .list()?
        .into_iter()
        .filter_map(|name| parse_segment_name(&name).map(|(sequence, first)| (sequence, first, name)))
        .collect();
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0].1 > pair[1].1) {
        let text = format!("{} begins before {} does: they are not of one log", pair[1].2, pair[0].2);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let found: io::Result<Vec<Found>> = names.into_iter().map(|name| find(files, name)).collect();
    let found = found?;
    let nexts = found.iter().skip(1).map(Some).chain([None]);
    Ok(found.iter().zip(nexts).map(|(found, next)| Arc::new(segment(found, next))).collect())
}

fn find(files: &dyn Files, (sequence, first, name): (u64, u64, String)) -> io::Result<Found> {
    let file = files.open(&name)?;
    let size_bytes = file.len()?;
    let header = read_header(&*file, sequence, first, &name)?;
    Ok(Found { name, sequence, first, size_bytes, header })
}

/// A segment's header; `None` when it is damaged, or another file's.
pub(super) fn read_header(file: &dyn File, sequence: u64, first: u64, name: &str) -> io::Result<Option<SegmentHeader>> {
    let mut bytes = [0; HEADER_BYTES];
    let read = file.read_at(0, &mut bytes)?;
    match SegmentHeader::decode(&bytes[..read]) {
        Ok(header) => Ok(Some(header).filter(|header| (header.sequence, header.first) == (sequence, first))),
        Err(Unreadable::Damaged) => Ok(None),
        Err(Unreadable::Newer) => Err(newer(name)),
    }
}

fn segment(found: &Found, next: Option<&Found>) -> Segment {
    // A header that cannot tell is taken to follow: what is missing counts as damaged then, and not as let go.
    let is_followed = next.is_none_or(|next| next.header.is_none_or(|header| header.follows == found.sequence));
    let newest_at = match next {
        Some(next) => next.header.and_then(|header| header.newest_before),
        None => found.header.and_then(|header| header.newest_before),
    };
    let known = Known::new(next.map_or(found.first, |next| next.first), found.size_bytes, newest_at);
    Segment::new(found.name.clone(), found.sequence, found.first, is_followed, known)
}

/// Finds where the last segment ends: after the last group that is whole. What comes after it is a write that was cut
/// off.
pub(super) fn recover(log: &Log, last: &Segment, known_end: u64) -> io::Result<Recovery> {
    let Some(file) = log.file(last)? else { return Ok(Recovery::default()) };
    // What a process wrote that died before its sync is about to be read: it must not be gone after the next crash.
    file.sync()?;

    let size_bytes = last.known().size_bytes;
    let mut walk = last.walk_all(Arc::clone(&file), u64::MAX, size_bytes);
    let mut whole = walk.at;
    let mut newest_at = None;
    let mut last_group = 0..0;
    while let Some(step) = walk.next()? {
        let missing = match step {
            Step::Group(header, position) if walk.is_whole(&header, position)? => {
                newest_at = newest_at.max(Some(header.newest_at));
                whole = walk.at;
                last_group = position..whole.position;
                continue;
            }
            Step::Group(header, position) => walk.reject(&header, position)?,
            Step::Missing(missing) => missing,
        };
        let Some(to) = missing.to else { break };
        log.report_damage(last, missing.from.offset, to.offset, missing.from.position);
    }
    write_again(&*file, last_group)?;
    settle(last, whole, known_end, newest_at);
    log.report_damage(last, whole.offset, known_end.max(whole.offset), whole.position);
    let torn_bytes = size_bytes.saturating_sub(whole.position);
    if torn_bytes > 0 {
        tracing::warn!(file = %last.name, position = whole.position, bytes = torn_bytes, "a write to the queue was cut off and does not count");
    }
    Ok(Recovery { end: whole.offset.max(known_end), torn_bytes, damaged: log.damaged() })
}

/// Writes the last group again as it is. Its sync may have failed: then the system takes pages for written that are not,
/// and says so of the next sync as well. Nobody was told that the group is durable, but whoever sends its events again
/// will be: they are known.
fn write_again(file: &dyn File, group: Range<u64>) -> io::Result<()> {
    let mut bytes = vec![0; usize::try_from(group.end - group.start).map_err(io::Error::other)?];
    let read = file.read_at(group.start, &mut bytes)?;
    file.write_at(group.start, &bytes[..read])?;
    file.sync()
}

fn settle(last: &Segment, whole: Mark, known_end: u64, newest_at: Option<jiff::Timestamp>) {
    let mut known = last.known();
    known.end = whole.offset.max(known_end);
    known.readable_bytes = whole.position;
    known.newest_at = known.newest_at.max(newest_at);
}
