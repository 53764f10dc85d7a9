//! The thread that writes events: whatever has come while one group was made durable is the next group.
//!
//! It is also the one who knows which messages were stored before: a repetition is told from a new event where the order
//! of events is decided, so that none is answered before the first copy is durable.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Shared;
use super::log::{Record, Writer};
use crate::attempt::DestinationName;
use crate::event::Event;
use crate::queue::AppendError;
use crate::queue::dedup::{Dedup, Print};

/// Where requests wait for the thread.
#[derive(Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: Vec<Request>,
    is_closed: bool,
    /// The thread waits for the bell. To ring it is a call to the system, whether anybody hears it or not.
    is_asleep: bool,
}

/// Events that come in together, are stored together or not at all, and are answered.
struct Request {
    events: Vec<Event>,
    /// The one destination they are put back for; `None`: they are new, for all, and repetitions are to be left out.
    only: Option<DestinationName>,
    answer: oneshot::Sender<Result<(), AppendError>>,
}

/// The thread.
pub(super) struct Appender {
    shared: Arc<Shared>,
    writer: Writer,
    dedup: Dedup,
    /// After a failure nothing is tried before this moment.
    rests_until: Option<(Instant, AppendError)>,
    room: RoomCheck,
}

/// When the file system's free room was last looked at.
struct RoomCheck {
    looked_at: Option<Instant>,
    written_bytes: u64,
    is_low: bool,
}

/// A group: the requests it answers and what it remembered of their ids.
#[derive(Default)]
struct Group {
    records: Vec<Record>,
    prints: Vec<Print>,
    answers: Vec<oneshot::Sender<Result<(), AppendError>>>,
    duplicates: u64,
}

/// Bytes of events in one group, but for a single request that has more: what a lagging reader decodes at a time.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// After a failure the disk is left alone this long; senders are told at once meanwhile.
const REST: Duration = Duration::from_millis(250);

/// Free room is looked at when this much was written or this much time has gone by.
const ROOM_EVERY_BYTES: u64 = 1 << 20;
const ROOM_EVERY: Duration = Duration::from_secs(1);

/// This much of a file system is left free, so that what became of events can still be written when it is full: nothing
/// could be let go otherwise.
const RESERVE_BYTES_MAX: u64 = 64 << 20;
const RESERVE_BYTES_MIN: u64 = 1 << 20;
const RESERVE_SHARE: u64 = 32;

// === impl Inbox ===

impl Inbox {
    /// Hands events in; `None` when the thread has ended.
    pub(super) fn push(
        &self,
        events: Vec<Event>,
        only: Option<DestinationName>,
    ) -> Option<oneshot::Receiver<Result<(), AppendError>>> {
        let (answer, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        if waiting.is_closed {
            return None;
        }
        waiting.requests.push(Request { events, only, answer });
        let is_asleep = std::mem::take(&mut waiting.is_asleep);
        drop(waiting);
        if is_asleep {
            self.bell.notify_one();
        }
        Some(receiver)
    }

    /// Lets the thread end once it has written what it was given.
    pub(super) fn close(&self) {
        self.waiting().is_closed = true;
        self.bell.notify_one();
    }

    /// Sends everybody away: the thread is gone.
    pub(super) fn end(&self) {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        waiting.requests.clear();
        drop(waiting);
        self.bell.notify_one();
    }

    /// Everything that waits; empty once closed and nothing is left.
    fn take(&self) -> Vec<Request> {
        let mut waiting = self.waiting();
        while waiting.requests.is_empty() && !waiting.is_closed {
            waiting.is_asleep = true;
            waiting = self.bell.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut waiting.requests)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Appender ===

impl Appender {
    pub(super) fn new(shared: Arc<Shared>, writer: Writer, dedup: Dedup) -> Self {
        let room = RoomCheck { looked_at: None, written_bytes: 0, is_low: false };
        Self { shared, writer, dedup, rests_until: None, room }
    }

    /// Writes until the inbox is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            let requests = self.shared.inbox.take();
            if requests.is_empty() {
                return;
            }
            let mut group = Group::default();
            let mut bytes = 0;
            for request in requests {
                let more: usize = request.events.iter().map(|event| event.json.len()).sum();
                if bytes > 0 && bytes + more > GROUP_BYTES_MAX {
                    self.write(std::mem::take(&mut group));
                    bytes = 0;
                }
                bytes += more;
                self.admit(request, &mut group);
            }
            self.write(group);
        }
    }

    /// Adds a request to a group, but for what was stored before.
    fn admit(&mut self, request: Request, group: &mut Group) {
        group.records.reserve(request.events.len());
        for event in request.events {
            if request.only.is_none() {
                let print = self.dedup.print(&event);
                if !self.dedup.remember(print, event.received_at) {
                    group.duplicates += 1;
                    continue;
                }
                group.prints.push(print);
            }
            group.records.push(Record { event, only: request.only.clone() });
        }
        group.answers.push(request.answer);
    }

    fn write(&mut self, group: Group) {
        let Group { records, prints, answers, duplicates } = group;
        let result = if records.is_empty() { Ok(()) } else { self.store(records) };
        if result.is_err() {
            for print in prints.into_iter().rev() {
                self.dedup.forget(print);
            }
        }
        self.shared.meter.duplicates(duplicates);
        self.shared.meter.dedup_ids(self.dedup.len());
        for answer in answers {
            // Whoever asked may have gone.
            let _ = answer.send(result.clone());
        }
    }

    fn store(&mut self, records: Vec<Record>) -> Result<(), AppendError> {
        if let Some((until, error)) = &self.rests_until
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        let bytes = records.iter().map(|record| record.event.json.len() as u64).sum();
        let stored = self.check_room(bytes).and_then(|()| self.append(&records));
        match stored {
            Ok(()) => self.publish(records),
            Err(error) => {
                self.shared.meter.failing(Some(error.to_string()));
                self.rests_until = Some((Instant::now() + REST, error.clone()));
                return Err(error);
            }
        }
        if self.rests_until.take().is_some() {
            self.shared.meter.failing(None);
        }
        Ok(())
    }

    fn append(&mut self, records: &[Record]) -> Result<(), AppendError> {
        let began_at = Instant::now();
        self.writer.append(records).map_err(|error| self.refusal(&error))?;
        self.shared.meter.synced(began_at.elapsed());
        Ok(())
    }

    fn refusal(&self, error: &io::Error) -> AppendError {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            self.shared.desk.ask_for_room();
            return self.full();
        }
        tracing::error!(%error, "events could not be written to the queue");
        AppendError::Unavailable(error.to_string())
    }

    fn full(&self) -> AppendError {
        let size_bytes_max = self.shared.options.size_bytes_max;
        AppendError::Full { size_bytes: self.shared.size_bytes(), size_bytes_max }
    }

    /// Whether so many bytes more may be written. Asks for room before it is needed.
    fn check_room(&mut self, bytes: u64) -> Result<(), AppendError> {
        let (size, max) = (self.shared.size_bytes(), self.shared.options.size_bytes_max);
        if size + bytes + 2 * self.shared.segment_bytes_max > max {
            self.shared.desk.ask_for_room();
        }
        if size + bytes > max {
            return Err(self.full());
        }
        self.room.note(bytes, self.shared.files.as_ref());
        if self.room.is_low {
            self.shared.desk.ask_for_room();
            return Err(self.full());
        }
        Ok(())
    }

    /// Lets destinations see what is durable now.
    fn publish(&self, records: Vec<Record>) {
        let is_put_back = records.iter().any(|record| record.only.is_some());
        // Held until all are there: whether a destination skips must not change meanwhile.
        let mut ledger = is_put_back.then(|| self.shared.ledger());
        let mut recent = self.shared.recent();
        for record in records {
            if let (Some(ledger), Some(only)) = (&mut ledger, &record.only) {
                ledger.keep(only, recent.end());
            }
            recent.push(record.event, record.only);
        }
        drop((recent, ledger));
        self.shared.changed.notify_waiters();
    }
}

// === impl RoomCheck ===

impl RoomCheck {
    fn note(&mut self, bytes: u64, files: &dyn super::files::Files) {
        self.written_bytes += bytes;
        let is_recent = self.looked_at.is_some_and(|at| at.elapsed() < ROOM_EVERY);
        if is_recent && self.written_bytes < ROOM_EVERY_BYTES && !self.is_low {
            return;
        }
        (self.looked_at, self.written_bytes) = (Some(Instant::now()), 0);
        // Where it cannot be told, writing itself will tell.
        self.is_low = files.room().is_ok_and(|room| room.free_bytes < reserve_bytes(room.all_bytes) + bytes);
    }
}

/// What is to be left free of a file system.
pub(super) fn reserve_bytes(all_bytes: u64) -> u64 {
    (all_bytes / RESERVE_SHARE).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX)
}
