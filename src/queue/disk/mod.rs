//! The queue on disk: a log of events, and a small state beside it.
//!
//! Two threads write, each to its own files. `appender` takes what the door hands in, makes it one group, and answers
//! when the group is on stable storage. `keeper` writes what became of events, in transactions, and lets go of what is
//! too old. In between stands the `ledger`: every destination's place as it is now, in memory. What is decided there is
//! in force at once and written a moment later: a crash in that moment repeats those deliveries and loses nothing,
//! because the log keeps an event until it is *written* that nobody owes it any more.
//!
//! Destinations near the end of the log share its last events, opened once; those that lag read the files, and share what
//! they read where they lag together (`reading`, `readers`).

mod appender;
pub mod files;
mod format;
mod keeper;
mod ledger;
pub mod log;
mod meter;
mod readers;
mod reading;
mod recover;
mod rows;
mod segment;
pub mod state;
mod verify;
mod writer;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use super::dedup::Dedup;
use super::place::Place;
use super::recent::Recent;
use super::{
    Ack, AppendError, Attachment, Books, Delivery, Entry, History, LetterId, Mode, Offset, Queue, ReadLimit, Report,
    Settlement, StorageError, Verified,
};
use crate::attempt::{DeadLetter, DestinationName};
use crate::event::Event;
use appender::{Appender, Inbox};
use files::{Files, Folder};
use keeper::{Desk, Keeper};
use ledger::Ledger;
use log::Log;
use meter::Meter;
use readers::Readers;
use state::State;

/// How a disk queue keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The folder; made if it is not there.
    pub dir: PathBuf,
    /// Bytes the files of its log may take up; beyond it nothing is taken.
    pub size_bytes_max: u64,
    /// Events are kept this long, delivered or not; places of removed destinations too.
    pub retain: Duration,
    /// A message id that comes again within this time is not stored again.
    pub dedup_window: Duration,
    /// So many message ids are remembered at most.
    pub dedup_ids_max: usize,
    /// Dead letters are kept this long.
    pub letters_retain: Duration,
    /// Bytes of dead letters kept; the oldest make room.
    pub letters_bytes_max: u64,
}

/// Bytes that a queue in this folder could still write: a part of every disk is left free.
///
/// # Errors
/// When the file system does not tell.
pub fn usable_bytes(dir: &Path) -> io::Result<u64> {
    files::room(dir).map(|room| room.free_bytes.saturating_sub(appender::reserve_bytes(room.all_bytes)))
}

/// A queue whose events outlive the process, and the machine's power.
pub struct Disk {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What both threads and all callers see.
struct Shared {
    options: Options,
    segment_bytes_max: u64,
    files: Arc<dyn Files>,
    log: Log,
    /// Lock after the ledger, if both.
    recent: Mutex<Recent>,
    ledger: Mutex<Ledger>,
    inbox: Inbox,
    desk: Desk,
    state: Mutex<State>,
    readers: Readers,
    changed: Notify,
    meter: Meter,
}

/// Sees to it that nobody waits for a thread that panicked.
struct Watch(Arc<Shared>);

/// Why a queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be used, or another process uses it.
    #[error("cannot open the queue in {}", dir.display())]
    Folder {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The log cannot be read.
    #[error("cannot read the log of the queue")]
    Log(#[source] io::Error),
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StorageError),
}

/// What those hear who come after a thread panicked.
const ENDED: &str = "the queue has stopped after an error in itself: start the service again, nothing stored is lost";

/// A segment is at most this large: small enough to be read whole at start, large enough that ten gigabytes are some
/// hundreds of files.
const SEGMENT_BYTES_MAX: u64 = 32 << 20;

/// A small queue still has this many segments, so that it can let go of the older ones.
const SEGMENTS_MIN: u64 = 16;

/// Segments smaller than this would be little but names.
const SEGMENT_BYTES_MIN: u64 = 256 << 10;

// === impl Disk: opening ===

impl Disk {
    /// Opens the queue in its folder, or makes it. `now` bounds the window of message ids that are remembered.
    ///
    /// # Errors
    /// When the folder cannot be used, another process uses it, or what is in it cannot be read. Damage is no error.
    pub fn open(options: Options, now: Timestamp) -> Result<Self, OpenError> {
        let folder = Folder::open(&options.dir);
        let folder = folder.map_err(|source| OpenError::Folder { dir: options.dir.clone(), source })?;
        Self::open_on(Arc::new(folder), options, now)
    }

    /// Opens the queue on any files.
    ///
    /// # Errors
    /// When what they hold cannot be read.
    pub fn open_on(files: Arc<dyn Files>, options: Options, now: Timestamp) -> Result<Self, OpenError> {
        let (state, mut loaded) = State::open(&files)?;
        let damaged = std::mem::take(&mut loaded.damaged);
        let mut ledger = Ledger::from_loaded(loaded);
        let segment_bytes_max = options.segment_bytes_max(files.as_ref());
        let opened = Log::open(Arc::clone(&files), segment_bytes_max, ledger.known_end());
        let (log, writer, _) = opened.map_err(OpenError::Log)?;
        ledger.restore(damaged, first_of(&log), log.end());
        let dedup = remembered(&log, &options, now)?;
        let shared = Arc::new(Shared {
            recent: Mutex::new(Recent::ending_at(log.end())),
            ledger: Mutex::new(ledger),
            inbox: Inbox::default(),
            desk: Desk::default(),
            state: Mutex::new(state),
            readers: Readers::default(),
            changed: Notify::new(),
            meter: Meter::new(dedup.len()),
            options,
            segment_bytes_max,
            files,
            log,
        });
        let threads = vec![
            spawn("queue-append", &shared, Appender::new(Arc::clone(&shared), writer, dedup), Appender::run)?,
            spawn("queue-keep", &shared, Keeper::new(Arc::clone(&shared)), Keeper::run)?,
        ];
        Ok(Self { shared, threads })
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    shared: &Arc<Shared>,
    worker: T,
    run: fn(T),
) -> Result<JoinHandle<()>, OpenError> {
    let watch = Watch(Arc::clone(shared));
    let guarded = move || {
        let _watch = watch;
        run(worker);
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(guarded).map_err(OpenError::Log)
}

/// The oldest event there is.
fn first_of(log: &Log) -> u64 {
    log.segments().first().map_or_else(|| log.end(), |segment| segment.first)
}

/// So long before a time.
fn ago(time: Duration, now: Timestamp) -> Timestamp {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    now.saturating_sub(time).unwrap_or(Timestamp::MIN)
}

/// The message ids of the window, read from the end of the log: so many events at most, however many are stored.
fn remembered(log: &Log, options: &Options, now: Timestamp) -> Result<Dedup, OpenError> {
    let mut dedup = Dedup::new(options.dedup_window, options.dedup_ids_max);
    if options.dedup_window.is_zero() {
        return Ok(dedup);
    }
    let since = ago(options.dedup_window, now);
    let newest = log.end().saturating_sub(options.dedup_ids_max as u64);
    let mut next = log.offset_at(since).map_err(OpenError::Log)?.max(newest);
    while next < log.end() {
        let chunk = log.read(next, READ_BYTES).map_err(OpenError::Log)?;
        for entry in chunk.entries.iter().filter(|entry| entry.event.received_at >= since) {
            let print = dedup.print(&entry.event);
            dedup.remember(print, entry.event.received_at);
        }
        next = chunk.next.max(next + 1);
    }
    Ok(dedup)
}

/// Bytes of events read from the log at a time.
const READ_BYTES: usize = 1 << 20;

impl Options {
    /// A disk smaller than `size_bytes_max` is full before: then too there must be older segments to let go of.
    fn segment_bytes_max(&self, files: &dyn Files) -> u64 {
        let all_bytes = files.room().map_or(u64::MAX, |room| room.all_bytes);
        (self.size_bytes_max.min(all_bytes) / SEGMENTS_MIN).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }
}

impl Drop for Disk {
    /// Ends both threads once they have written what they were given.
    fn drop(&mut self) {
        self.shared.inbox.close();
        self.shared.desk.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    /// Of half a queue nothing can be promised: it takes nothing more, and says why.
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("{ENDED}; this is a bug");
            self.0.meter.failing(Some(ENDED.to_owned()));
            self.0.inbox.end();
            self.0.desk.end();
        }
    }
}

// === impl Shared ===

impl Shared {
    // What the locks guard is valid between any two statements that can panic.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of the next event.
    fn end(&self) -> u64 {
        self.recent().end()
    }

    /// Bytes of the log, which `size_bytes_max` bounds.
    fn size_bytes(&self) -> u64 {
        self.log.size_bytes()
    }

    /// Follows the destinations in force, and answers which were before.
    fn attach(&self, attachments: &[Attachment], now: Timestamp) -> Vec<Attachment> {
        let mut ledger = self.ledger();
        let before = ledger.attachments();
        ledger.attach(attachments, first_of(&self.log), self.end(), now);
        drop(ledger);
        self.changed.notify_waiters();
        before
    }

    /// Whether events that come now are not for a destination.
    fn is_skipping(&self, destination: &DestinationName) -> bool {
        self.ledger().place(destination).is_some_and(|place| place.mode == Some(Mode::Skips))
    }

    async fn append(&self, events: Vec<Event>, only: Option<DestinationName>) -> Result<(), AppendError> {
        let gone = || AppendError::Unavailable(ENDED.to_owned());
        match self.inbox.push(events, only) {
            Some(answer) => answer.await.unwrap_or_else(|_| Err(gone())),
            None => Err(gone()),
        }
    }
}

/// Runs what may block on a thread that may.
async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(run).await.map_err(|error| StorageError(error.to_string()))
}

fn failed(error: &io::Error) -> StorageError {
    StorageError(error.to_string())
}

/// Looks through every segment that is still there when its turn comes.
fn verify_all(log: &Log) -> io::Result<Vec<Verified>> {
    let mut all = Vec::new();
    for segment in log.segments() {
        match log.verify(&segment.name) {
            Ok(verified) => all.push(verified),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

// === impl Queue ===

impl Queue for Disk {
    fn ack(&self) -> Ack {
        Ack::Durable
    }

    fn append(&self, events: Vec<Event>) -> BoxFuture<'_, Result<(), AppendError>> {
        self.shared.append(events, None).boxed()
    }

    fn put_back(&self, destination: &DestinationName, events: Vec<Event>) -> BoxFuture<'_, Result<(), AppendError>> {
        let destination = destination.clone();
        async move {
            let was_skipping = self.shared.is_skipping(&destination);
            self.shared.append(events, Some(destination.clone())).await?;
            // That they are for it, unlike what comes meanwhile, is in the state only.
            if was_skipping || self.shared.is_skipping(&destination) {
                self.flush().await.map_err(|error| AppendError::Unavailable(error.to_string()))?;
            }
            Ok(())
        }
        .boxed()
    }

    fn attach(&self, attachments: &[Attachment], now: Timestamp) -> BoxFuture<'_, Result<(), StorageError>> {
        let before = self.shared.attach(attachments, now);
        async move {
            // A new place must be known before the events that it is to look at: a crash would else begin it after them.
            let written = self.flush().await;
            if written.is_err() {
                // What is in force stays as it was: events must not pass a destination by that the caller takes for on.
                self.shared.attach(&before, now);
            }
            written
        }
        .boxed()
    }

    fn read(&self, destination: &DestinationName, limit: ReadLimit, now: Timestamp) -> BoxFuture<'_, Vec<Delivery>> {
        let destination = destination.clone();
        async move { reading::read(&self.shared, &destination, limit, now).await }.boxed()
    }

    fn waiting(
        &self,
        destination: &DestinationName,
        after: Option<Offset>,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Vec<Arc<Entry>>> {
        let destination = destination.clone();
        async move { reading::waiting(&self.shared, &destination, after, limit).await }.boxed()
    }

    fn unsettled(&self, destination: &DestinationName) -> BTreeSet<Offset> {
        self.shared.ledger().place(destination).map(Place::unsettled).unwrap_or_default()
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        self.shared.changed.notified().boxed()
    }

    fn next_due(&self, destination: &DestinationName) -> Option<Timestamp> {
        self.shared.ledger().place(destination)?.next_due()
    }

    fn due(&self, destination: &DestinationName, offset: Offset) -> Option<Timestamp> {
        self.shared.ledger().place(destination)?.due(offset)
    }

    fn settle(&self, destination: &DestinationName, settlements: Vec<Settlement>, now: Timestamp) -> BoxFuture<'_, ()> {
        self.shared.ledger().settle(destination, settlements, now);
        self.shared.desk.ring();
        let destination = destination.clone();
        async move { self.shared.desk.until_few_are_unwritten(&self.shared, &destination).await }.boxed()
    }

    fn release(&self, destination: &DestinationName) {
        self.shared.ledger().release(destination);
        self.shared.readers.forget(destination);
        self.shared.changed.notify_waiters();
    }

    fn books(&self, destination: &DestinationName) -> Option<Books> {
        let ledger = self.shared.ledger();
        let place = ledger.place(destination)?;
        let recent = self.shared.recent();
        let next_at = recent.get(place.cursor).map(|next| next.event.received_at);
        Some(place.books(recent.end(), next_at))
    }

    fn dead_letters(
        &self,
        destination: &DestinationName,
        after: Option<LetterId>,
        letters_max: usize,
    ) -> BoxFuture<'_, Result<Vec<(LetterId, DeadLetter)>, StorageError>> {
        let (shared, destination) = (Arc::clone(&self.shared), destination.clone());
        async move {
            self.flush().await?;
            blocking(move || shared.state().letters(&destination, after, letters_max)).await?
        }
        .boxed()
    }

    fn remove_dead_letters(
        &self,
        destination: &DestinationName,
        letters: Vec<LetterId>,
    ) -> BoxFuture<'_, Result<u64, StorageError>> {
        let (shared, destination) = (Arc::clone(&self.shared), destination.clone());
        async move {
            self.flush().await?;
            let removed = blocking(move || keeper::remove_letters(&shared, &destination, &letters)).await??;
            self.flush().await?;
            Ok(removed)
        }
        .boxed()
    }

    fn history(&self, from: Offset, limit: ReadLimit) -> BoxFuture<'_, Result<History, StorageError>> {
        reading::history(&self.shared, from, limit).boxed()
    }

    fn offset_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Offset, StorageError>> {
        let log = self.shared.log.clone();
        async move {
            let offset = blocking(move || log.offset_at(time)).await?;
            offset.map(Offset).map_err(|error| failed(&error))
        }
        .boxed()
    }

    fn report(&self) -> Report {
        let segments = self.shared.log.segments();
        let places = self.shared.ledger().places().map(|(name, place)| (name.clone(), place.detached_at)).collect();
        let end = self.shared.end();
        Report {
            kind: "disk",
            size_bytes: self.shared.size_bytes(),
            size_bytes_max: self.shared.options.size_bytes_max,
            state_bytes: self.shared.desk.state_bytes(),
            first: Offset(segments.first().map_or(end, |segment| segment.first)),
            end: Offset(end),
            segments: segments.len(),
            oldest_at: segments.first().and_then(|segment| segment.newest_at),
            damaged: self.shared.log.damaged(),
            places,
            ..self.shared.meter.report()
        }
    }

    fn verify(&self) -> BoxFuture<'_, Result<Vec<Verified>, StorageError>> {
        let log = self.shared.log.clone();
        async move { blocking(move || verify_all(&log)).await?.map_err(|error| failed(&error)) }.boxed()
    }

    fn tidy(&self, now: Timestamp) -> BoxFuture<'_, ()> {
        self.shared.desk.ask_to_tidy(now);
        // What is let go a moment later is let go in time.
        ready(()).boxed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), StorageError>> {
        let sequence = self.shared.ledger().sequence();
        self.shared.desk.until_written(sequence).boxed()
    }
}
