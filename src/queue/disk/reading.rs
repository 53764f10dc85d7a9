//! Handing out events: those near the end of the log from memory, shared by all who read there; older ones from the
//! files.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::readers::{Piece, Stretch};
use super::{READ_BYTES, Shared, blocking, failed};
use crate::attempt::{Attempts, DestinationName};
use crate::queue::place::{Room, size_of};
use crate::queue::{Delivery, Entry, History, Offset, ReadLimit, StorageError};

/// After an error of the disk nothing is read for this long.
const REST: Duration = Duration::from_secs(1);

// === reading ===

/// Hands out what is due, and then what is new.
pub(super) async fn read(
    shared: &Arc<Shared>,
    destination: &DestinationName,
    limit: ReadLimit,
    now: Timestamp,
) -> Vec<Delivery> {
    let mut room = Room::new(limit);
    let mut deliveries = Vec::new();
    let result = async {
        read_again(shared, destination, &mut room, now, &mut deliveries).await?;
        while room.is_left() && read_new(shared, destination, limit, &mut room, &mut deliveries).await? {}
        Ok::<_, StorageError>(())
    };
    if let Err(error) = result.await {
        tracing::error!(destination.name = %destination, %error, "the queue cannot be read");
        // What was handed out before counts; the error comes again with the next read.
        if deliveries.is_empty() {
            tokio::time::sleep(REST).await;
            // Nothing else may happen that would have it read again.
            shared.changed.notify_waiters();
        }
    }
    deliveries
}

/// Hands out events whose time for another try has come.
async fn read_again(
    shared: &Arc<Shared>,
    destination: &DestinationName,
    room: &mut Room,
    now: Timestamp,
    deliveries: &mut Vec<Delivery>,
) -> Result<(), StorageError> {
    let due: Vec<(Timestamp, Offset)> = {
        let ledger = shared.ledger();
        let Some(place) = ledger.place(destination) else { return Ok(()) };
        let due = place.all_due(now).take_while(|(_, _, later)| room.takes(later.size_bytes));
        due.map(|(due, offset, _)| (due, offset)).collect()
    };
    let entries = fetch(shared, due.iter().map(|(_, offset)| *offset)).await?;
    let mut ledger = shared.ledger();
    for (due, offset) in due {
        let Some(entry) = entries.get(&offset) else {
            tracing::error!(destination.name = %destination, offset = offset.0, "an event that waited is damaged and skipped");
            ledger.lose(destination, due, offset);
            // Of what it took the place of in this read nobody else tells.
            shared.changed.notify_waiters();
            continue;
        };
        let Some(place) = ledger.reading(destination) else { break };
        if let Some(later) = place.take(due, offset) {
            place.hand_out_again(offset, entry.event.clone(), later.attempts.clone(), later.is_written);
            deliveries.push(Delivery { entry: Arc::clone(entry), attempts: later.attempts });
        }
    }
    Ok(())
}

/// Hands out new events. Answers whether there may be more.
async fn read_new(
    shared: &Arc<Shared>,
    destination: &DestinationName,
    limit: ReadLimit,
    room: &mut Room,
    deliveries: &mut Vec<Delivery>,
) -> Result<bool, StorageError> {
    let Some((cursor, until)) = new_range(shared, destination, limit) else { return Ok(false) };
    let mut stretch = next_stretch(shared, destination, cursor, until, limit).await?;
    let has_moved = hand_out(shared, destination, &mut stretch, until, room, deliveries);
    shared.readers.keep(destination, stretch);
    let (near, end) = {
        let recent = shared.recent();
        (recent.first(), recent.end())
    };
    let wanted_from = shared.ledger().wanted_from(near, end);
    shared.recent().trim(wanted_from);
    Ok(has_moved)
}

/// The new events that a destination may read now.
fn new_range(shared: &Shared, destination: &DestinationName, limit: ReadLimit) -> Option<(u64, u64)> {
    let mut ledger = shared.ledger();
    let end = shared.end();
    let place = ledger.reading(destination)?;
    place.pass_skips(end);
    let until = place.readable_until(end);
    let range = (place.cursor < until && place.later.len() < limit.waiting_max).then_some((place.cursor, until));
    if place.cursor == end {
        shared.readers.forget(destination);
        let gone = shared.readers.let_go(&ledger);
        drop(ledger);
        drop(gone);
    }
    range
}

/// The next events from memory, from what was read ahead, or from the files.
async fn next_stretch(
    shared: &Arc<Shared>,
    destination: &DestinationName,
    from: u64,
    until: u64,
    limit: ReadLimit,
) -> Result<Stretch, StorageError> {
    let to = until.min(from.saturating_add(limit.events_max.max(1) as u64));
    let recent: VecDeque<Piece> = {
        let recent = shared.recent();
        (from..to).map_while(|offset| recent.get(offset).cloned().map(Piece::Event)).collect()
    };
    if !recent.is_empty() {
        return Ok(Stretch { from, pieces: recent });
    }
    if let Some(stretch) = shared.readers.take(destination, from) {
        return Ok(stretch);
    }
    let log = shared.log.clone();
    let chunk = blocking(move || log.read(from, READ_BYTES)).await?.map_err(|error| failed(&error))?;
    let stretch = Stretch::of(from, chunk);
    let gone = shared.readers.share(destination, &stretch, &shared.ledger());
    drop(gone);
    Ok(stretch)
}

/// Hands out what fits of a stretch; the rest stays in it. Answers whether the cursor moved.
fn hand_out(
    shared: &Shared,
    destination: &DestinationName,
    stretch: &mut Stretch,
    until: u64,
    room: &mut Room,
    deliveries: &mut Vec<Delivery>,
) -> bool {
    let mut ledger = shared.ledger();
    let Some(place) = ledger.reading(destination) else { return false };
    let before = place.cursor;
    while let Some(piece) = stretch.pieces.front() {
        match piece {
            Piece::Event(entry) if entry.offset.0 >= until => break,
            Piece::Event(entry) if !entry.is_for(destination) => place.pass(entry.offset),
            Piece::Event(entry) => {
                if !room.takes(size_of(&entry.event)) {
                    break;
                }
                place.hand_out(entry.offset, entry.event.clone());
                deliveries.push(Delivery { entry: Arc::clone(entry), attempts: Attempts::default() });
            }
            Piece::Gap(gap) => {
                let known = place.tally.damaged;
                place.pass_missing(gap.to.min(until), gap.is_removed);
                let damaged = place.tally.damaged - known;
                if damaged > 0 {
                    tracing::error!(destination.name = %destination, events = damaged, "events are damaged in the queue and skipped");
                }
                if gap.to > until {
                    break;
                }
            }
        }
        stretch.pieces.pop_front();
        stretch.from = place.cursor;
    }
    place.cursor > before
}

// === looking without handing out ===

/// Events by their offsets: those near the end from memory, others from the files. Damaged ones are missing.
async fn fetch(
    shared: &Arc<Shared>,
    offsets: impl Iterator<Item = Offset>,
) -> Result<BTreeMap<Offset, Arc<Entry>>, StorageError> {
    let mut found = BTreeMap::new();
    let mut missing = Vec::new();
    {
        let recent = shared.recent();
        for offset in offsets {
            match recent.get(offset.0) {
                Some(entry) => drop(found.insert(offset, Arc::clone(entry))),
                None => missing.push(offset),
            }
        }
    }
    if !missing.is_empty() {
        missing.sort_unstable();
        let log = shared.log.clone();
        let picked = blocking(move || log.pick(&missing)).await?.map_err(|error| failed(&error))?;
        found.extend(picked.into_iter().map(|entry| (entry.offset, entry)));
    }
    Ok(found)
}

/// Events that wait for another try, after an offset. Whoever asks must know of all: damaged ones are passed over, and a
/// disk that fails is asked again.
pub(super) async fn waiting(
    shared: &Arc<Shared>,
    destination: &DestinationName,
    mut after: Option<Offset>,
    limit: ReadLimit,
) -> Vec<Arc<Entry>> {
    loop {
        let offsets = waiting_offsets(shared, destination, after, limit);
        let Some(last) = offsets.last().copied() else { return Vec::new() };
        match fetch(shared, offsets.into_iter()).await {
            Ok(entries) if entries.is_empty() => after = Some(last),
            Ok(entries) => return entries.into_values().collect(),
            Err(error) => {
                tracing::error!(destination.name = %destination, %error, "the queue cannot be read");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

fn waiting_offsets(
    shared: &Shared,
    destination: &DestinationName,
    after: Option<Offset>,
    limit: ReadLimit,
) -> Vec<Offset> {
    let mut room = Room::new(limit);
    let ledger = shared.ledger();
    let Some(place) = ledger.place(destination) else { return Vec::new() };
    let waiting = place.waiting_after(after).take_while(|(_, later)| room.takes(later.size_bytes));
    waiting.map(|(offset, _)| offset).collect()
}

/// Events of the log from an offset on.
pub(super) async fn history(shared: &Shared, from: Offset, limit: ReadLimit) -> Result<History, StorageError> {
    let log = shared.log.clone();
    let end = log.end();
    if from.0 >= end {
        return Ok(History::default());
    }
    let chunk = blocking(move || log.read(from.0, limit.bytes_max)).await?.map_err(|error| failed(&error))?;
    let mut entries = chunk.entries;
    let is_cut = entries.len() > limit.events_max;
    entries.truncate(limit.events_max.max(1));
    let next = entries.last().filter(|_| is_cut).map_or(chunk.next, |entry| entry.offset.0 + 1);
    // What lies beyond the cut comes again.
    let gaps = chunk.gaps.iter().filter(|gap| !gap.is_removed && gap.from < next);
    let damaged = gaps.map(|gap| gap.to - gap.from).sum();
    Ok(History { entries, next: (next < end).then_some(Offset(next)), damaged })
}
