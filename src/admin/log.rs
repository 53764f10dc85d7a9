//! Events of the log: sending them again, and writing them out.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::run::{Desk, Halt, Out, Pace, events, filter, pieces};
use super::{Answer, Exported, Failed, Failing, Moment, Progress, Range, Replayed};
use crate::attempt::DestinationName;
use crate::deliver::items_of;
use crate::event::Event;
use crate::expr::filter::Filter;
use crate::plan::{Destination, Plan};
use crate::queue::{Books, Entry, Offset, Queue, ReadLimit, StorageError};

/// What is read of the log in one go: storage is not to read much more than is asked of it.
const READ: ReadLimit = ReadLimit { events_max: usize::MAX, bytes_max: 1 << 20, waiting_max: usize::MAX };

/// Events looked at in one go: few enough that running the rules on them never holds the thread for long.
const CHUNK: usize = 256;

/// The log is in the order in which events were stored, which is later than they arrived: by no more than the longest
/// that a body may take (`body_timeout`, an hour at most), and a little.
const STORED_LATER_MAX: SignedDuration = SignedDuration::from_secs(Duration::from_hours(2).as_secs().cast_signed());

/// So many events that a rule fails on are told of.
const FAILURES_MAX: usize = 5;

/// A range of the log, chunk by chunk, up to where it ended at first.
struct Walk {
    /// Where to read on.
    next: Offset,
    /// What was read and is still to be looked at.
    read: VecDeque<Arc<Entry>>,
    end: Offset,
    until: Option<Timestamp>,
    damaged: u64,
}

/// A replay for one destination.
struct Replay<'a> {
    destination: Arc<Destination>,
    range: &'a Range,
    filter: Option<Filter>,
    /// Events in hand or waiting for another try: they are sent anyway.
    unsettled: BTreeSet<Offset>,
    told: Replayed,
}

// === impl Desk ===

impl Desk {
    pub(super) async fn replay(
        &self,
        name: &DestinationName,
        range: &Range,
        rate: Option<f64>,
        dry_run: bool,
        out: &Out,
    ) -> Result<(), Halt> {
        let mut pace = self.pace(rate.filter(|_| !dry_run))?;
        let (destination, books) = self.replayable(name)?;
        let (filter, unsettled) = (filter(range)?, self.queue.unsettled(name));
        let mut walk = self.walk(range, self.queue.report().end.min(books.cursor)).await?;
        let told =
            Replayed { destination: name.to_string(), dry_run, still_to_come: books.waiting(), ..Replayed::default() };
        let mut replay = Replay { destination, range, filter, unsettled, told };
        let first = walk.next.0;
        let mut progress = Progress { of: walk.end.0.saturating_sub(first), ..Progress::default() };
        while let Some(entries) = walk.next(self.queue.as_ref()).await? {
            let again = replay.take(&entries, self.clock.now());
            if !dry_run {
                self.put_all_back(name, &again, &mut pace, &mut progress, out).await?;
            }
            progress.position = walk.position().0.saturating_sub(first);
            out.send(Answer::Progress(progress.clone())).await?;
            tokio::task::yield_now().await;
        }
        let told = Replayed { put_back: progress.done, damaged: walk.damaged, ..replay.told };
        out.send(Answer::Replayed(self.noted(told))).await
    }

    async fn put_all_back(
        &self,
        name: &DestinationName,
        events: &[Event],
        pace: &mut Pace,
        progress: &mut Progress,
        out: &Out,
    ) -> Result<(), Halt> {
        for piece in pieces(events, pace.events_max()) {
            pace.wait(piece.len(), &self.clock, out).await?;
            self.put_back(name, piece, progress, out).await?;
            progress.done += piece.len() as u64;
            progress.at = piece.last().map(|event| Moment(event.received_at));
            out.send(Answer::Progress(progress.clone())).await?;
        }
        Ok(())
    }

    fn noted(&self, mut told: Replayed) -> Replayed {
        told.notes.extend(self.note_of_start(told.put_back));
        told
    }

    /// The destination by the rules of today, and its books.
    fn replayable(&self, name: &DestinationName) -> Result<(Arc<Destination>, Books), Halt> {
        let plan = (self.plan)();
        let destination = plan.destination(name).cloned().ok_or_else(|| not_in_force(&plan, name))?;
        let books = self.queue.books(name).ok_or_else(|| {
            let failed = Failed::unable(format!("the queue does not know the destination `{name}` yet"));
            failed.with_help("start the service once, so that the destination gets its place")
        })?;
        Ok((destination, books))
    }

    async fn walk(&self, range: &Range, end: Offset) -> Result<Walk, StorageError> {
        let next = match range.since {
            Some(since) => self.queue.offset_at(since.0).await?,
            None => self.queue.report().first,
        };
        Ok(Walk { next, read: VecDeque::new(), end, until: range.until.map(|until| until.0), damaged: 0 })
    }

    pub(super) async fn export(&self, range: &Range, out: &Out) -> Result<(), Halt> {
        let filter = filter(range)?;
        let mut walk = self.walk(range, self.queue.report().end).await?;
        while let Some(entries) = walk.next(self.queue.as_ref()).await? {
            for entry in entries.iter().filter(|entry| is_wanted(entry, range, filter.as_ref())) {
                out.send(Answer::Event(exported(entry))).await?;
            }
        }
        if walk.damaged > 0 {
            let failed =
                Failed::wrong(format!("{} could not be read: everything else was written", events(walk.damaged)));
            return Err(failed.with_help("`libroseg queue verify` tells where").into());
        }
        Ok(())
    }
}

fn not_in_force(plan: &Plan, name: &DestinationName) -> Failed {
    if let Some(disabled) = plan.disabled.iter().find(|disabled| disabled.name == *name) {
        return Failed::unable(format!(
            "the destination `{name}` is off ({}): it has no rules to send by",
            disabled.why
        ));
    }
    let names: Vec<&str> = plan.destinations.iter().map(|destination| destination.name.as_str()).collect();
    Failed::unable(format!("there is no destination `{name}` in the file"))
        .with_help(format!("it has: {}", names.join(", ")))
}

fn is_wanted(entry: &Entry, range: &Range, filter: Option<&Filter>) -> bool {
    range.holds(entry.event.received_at) && passes(entry, filter)
}

fn passes(entry: &Entry, filter: Option<&Filter>) -> bool {
    filter.is_none_or(|filter| entry.message().is_some_and(|message| filter.matches(&message.value).unwrap_or(false)))
}

fn exported(entry: &Entry) -> Exported {
    // A line break in JSON text is nothing but space: within strings it is written `\n`.
    let json = String::from_utf8_lossy(&entry.event.json).replace(['\n', '\r'], " ");
    Exported {
        offset: entry.offset.0,
        source: entry.event.source.to_string(),
        received_at: Moment(entry.event.received_at),
        only: entry.only.as_ref().map(ToString::to_string),
        json,
    }
}

// === impl Walk ===

impl Walk {
    /// Some more entries, perhaps none; `None` at the end.
    async fn next(&mut self, queue: &dyn Queue) -> Result<Option<Vec<Arc<Entry>>>, StorageError> {
        if self.read.is_empty() {
            if self.next >= self.end {
                return Ok(None);
            }
            self.read_on(queue).await?;
        }
        let some = self.read.len().min(CHUNK);
        Ok(Some(self.read.drain(..some).collect()))
    }

    async fn read_on(&mut self, queue: &dyn Queue) -> Result<(), StorageError> {
        let mut history = queue.history(self.next, READ).await?;
        self.damaged += history.damaged;
        self.next = history.next.filter(|next| *next > self.next).unwrap_or(self.end).min(self.end);
        history.entries.retain(|entry| entry.offset < self.end);
        if history.entries.iter().any(|entry| self.is_beyond(entry)) {
            self.next = self.end;
        }
        self.read = history.entries.into();
        Ok(())
    }

    /// The next entry to be looked at.
    fn position(&self) -> Offset {
        self.read.front().map_or(self.next, |entry| entry.offset)
    }

    /// Whether no event of the range can come any more. Those put back arrived long before they were stored.
    fn is_beyond(&self, entry: &Entry) -> bool {
        let stored_by = |until: Timestamp| until.saturating_add(STORED_LATER_MAX).unwrap_or(Timestamp::MAX);
        entry.only.is_none() && self.until.is_some_and(|until| entry.event.received_at >= stored_by(until))
    }
}

// === impl Replay ===

impl Replay<'_> {
    /// Counts entries by what today's rules make of them. Answers those to be put back.
    fn take(&mut self, entries: &[Arc<Entry>], now: Timestamp) -> Vec<Event> {
        let mut again = Vec::new();
        for entry in entries {
            // What was put back, by an earlier replay say, is in the log a second time.
            let is_original = entry.only.is_none() && !self.unsettled.contains(&entry.offset);
            if !is_original || !self.range.holds(entry.event.received_at) {
                continue;
            }
            self.told.in_range += 1;
            if passes(entry, self.filter.as_ref()) {
                self.told.matching += 1;
                again.extend(self.judge(entry, now).then(|| entry.event.clone()));
            }
        }
        again
    }

    /// Whether it is to be put back.
    fn judge(&mut self, entry: &Entry, now: Timestamp) -> bool {
        match items_of(&self.destination, entry, now) {
            Ok(Some(_)) => self.told.wanted += 1,
            Ok(None) => {
                self.told.filtered += 1;
                return false;
            }
            Err(failure) => {
                self.told.failing += 1;
                if self.told.failures.len() < FAILURES_MAX {
                    let message_id = entry.event.message_id.to_string();
                    self.told.failures.push(Failing { message_id, error: failure.to_string() });
                }
            }
        }
        true
    }
}
