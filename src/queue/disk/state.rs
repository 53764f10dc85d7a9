//! The small state beside the log: places, events waiting for another try, dead letters; in transactions.
//!
//! One redb database, `state.redb`. Every call leaves it whole: after an error it is closed, and the next call opens it
//! anew. What a row looks like is `rows`' business; when to write is its owner's. It is not locked against a second process:
//! whoever opens the folder sees to that.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `meta` | `format`, `next_letter`, `begun` (1: destinations were attached) | a number |
//! | `places` | destination | JSON |
//! | `waiting` | destination, offset | JSON |
//! | `letters` | destination, letter | JSON, and the event's text as it was |
//! | `letters_by_age` | letter | destination, seconds and nanoseconds of its death, size |

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use redb::{
    Builder, Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, StorageBackend,
    TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

use super::files::{File, Files};
use super::rows;
use crate::attempt::{Attempts, DeadLetter, DestinationName, Failure};
use crate::queue::{LetterId, Offset, StorageError};

/// The database. Every method blocks.
pub struct State {
    files: Arc<dyn Files>,
    /// `None` after an error.
    database: Mutex<Option<Database>>,
    size_bytes: Arc<AtomicU64>,
}

/// A destination's place as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlaceRow {
    /// Where it began.
    pub begin: u64,
    /// The next event to hand out.
    pub cursor: u64,
    /// See `Place::history_end`.
    pub history_end: u64,
    /// Ranges before the cursor that are not settled.
    pub holes: Vec<(u64, u64)>,
    /// Ranges from the cursor on that are not for it; an open end is `u64::MAX`.
    pub skips: Vec<(u64, u64)>,
    /// When it was detached.
    #[serde(with = "rows::time_or_none")]
    pub detached_at: Option<Timestamp>,
    /// Counts, in the order of `Tally`.
    pub absent: u64,
    /// Delivered whole.
    pub delivered: u64,
    /// Wanted by no rule.
    pub filtered: u64,
    /// Forgotten on purpose.
    pub dropped: u64,
    /// Damaged in storage.
    pub damaged: u64,
    /// Given up on.
    pub dead: u64,
    /// Dead letters kept.
    pub letters: u64,
    /// Bytes of them.
    pub letters_bytes: u64,
}

/// An event waiting for another try as it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingRow {
    /// When it is due.
    pub due: Timestamp,
    /// Bytes of its text.
    pub size_bytes: u64,
    /// Its tries.
    pub attempts: Attempts,
}

/// What one transaction writes: places are forgotten first, and letters removed last.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Places as they are now.
    pub places: BTreeMap<DestinationName, PlaceRow>,
    /// Events that wait, or no longer do.
    pub waiting: BTreeMap<(DestinationName, Offset), Option<WaitingRow>>,
    /// New dead letters.
    pub letters: Vec<(LetterId, DeadLetter)>,
    /// Dead letters that go.
    pub letters_removed: Vec<(DestinationName, LetterId)>,
    /// Places that go, with everything of theirs.
    pub forgotten: Vec<DestinationName>,
    /// Destinations were attached for the first time.
    pub begins: bool,
}

/// Everything that is needed in memory.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Places with their waiting events.
    pub places: BTreeMap<DestinationName, (PlaceRow, Vec<(Offset, WaitingRow)>)>,
    /// Destinations whose place is damaged: where they stood is not known any more.
    pub damaged: Vec<DestinationName>,
    /// The id for the next dead letter.
    pub next_letter: u64,
    /// Whether no destination was ever attached to it.
    pub is_new: bool,
}

/// How redb reaches its file.
#[derive(Debug)]
struct Backend {
    file: Box<dyn File>,
    size_bytes: Arc<AtomicU64>,
}

/// JSON, and the event's text.
type LetterText = (&'static [u8], &'static [u8]);

/// Destination, seconds and nanoseconds of the time of its death, bytes.
type LetterAge = (&'static str, i64, i32, u64);

/// The name of its file.
const FILE: &str = "state.redb";

/// The version of the tables; a row's own versions are told apart by its fields.
const FORMAT: u64 = 1;

/// Pages kept in memory. What is needed often is in memory anyway; this is for the upper levels of the trees.
const CACHE_BYTES: usize = 4 << 20;

/// How a redb file begins, and its first page, from its design document
/// (<https://github.com/cberner/redb/blob/master/docs/design.md>, of version 4.6).
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";
const PAGE_BYTES: usize = 4096;

/// A file that redb has just made is 72 KiB long (1 MiB before version 4.6); a longer one was written to.
const NEW_BYTES_MAX: u64 = 2 << 20;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const PLACES: TableDefinition<&str, &[u8]> = TableDefinition::new("places");
const WAITING: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("waiting");
const LETTERS: TableDefinition<(&str, u64), LetterText> = TableDefinition::new("letters");
const LETTERS_BY_AGE: TableDefinition<u64, LetterAge> = TableDefinition::new("letters_by_age");

/// The keys of `meta`.
const META_FORMAT: &str = "format";
const META_NEXT_LETTER: &str = "next_letter";
const META_BEGUN: &str = "begun";

// === impl State ===

impl State {
    /// Opens the database in a folder, or makes it. A row that cannot be read is reported and passed over; an event that
    /// waits is then due at once.
    ///
    /// # Errors
    /// When storage fails or what it holds is not ours.
    pub fn open(files: &Arc<dyn Files>) -> Result<(Self, Loaded), StorageError> {
        let size_bytes = Arc::new(AtomicU64::new(0));
        let state = Self { files: files.clone(), database: Mutex::default(), size_bytes };
        let loaded = state.with(load)?;
        Ok((state, loaded))
    }

    /// Writes changes in one transaction, durable when it returns. After an error the same changes may be tried again:
    /// whether they were written or not, the outcome is the same.
    ///
    /// # Errors
    /// When storage fails.
    pub fn commit(&mut self, changes: &Changes) -> Result<(), StorageError> {
        self.with(|database| write(database, changes))
    }

    /// A destination's dead letters after a given one, oldest first. One that cannot be read is reported and left out.
    ///
    /// # Errors
    /// When storage fails.
    pub fn letters(
        &self,
        destination: &DestinationName,
        after: Option<LetterId>,
        letters_max: usize,
    ) -> Result<Vec<(LetterId, DeadLetter)>, StorageError> {
        self.with(|database| read_letters(database, destination, after, letters_max))
    }

    /// Which of these dead letters a destination has, and how many bytes each is counted as.
    ///
    /// # Errors
    /// When storage fails.
    pub fn letter_sizes(
        &self,
        destination: &DestinationName,
        letters: &[LetterId],
    ) -> Result<Vec<(LetterId, u64)>, StorageError> {
        self.with(|database| letter_sizes(database, destination, letters))
    }

    /// The oldest dead letters of all destinations with when they died and their size, for making room.
    ///
    /// # Errors
    /// When storage fails.
    pub fn oldest_letters(
        &self,
        letters_max: usize,
    ) -> Result<Vec<(DestinationName, LetterId, Timestamp, u64)>, StorageError> {
        self.with(|database| oldest_letters(database, letters_max))
    }

    /// Bytes of its file.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Relaxed)
    }

    /// Does something with the database, opened anew if it must be; after an error it is closed.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StorageError> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match slot.take() {
            Some(database) => database,
            None => open(&*self.files, &self.size_bytes)?,
        };
        match guarded(|| work(&database)) {
            Ok(done) => {
                *slot = Some(database);
                Ok(done)
            }
            Err(error) => {
                close(database);
                Err(storage_error(&error))
            }
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(database) = self.database.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            close(database);
        }
    }
}

/// Closes a database. What it has to say is no news: what counts was committed, or has failed before.
fn close(database: Database) {
    let _ = guarded(|| Ok(database.close()?));
}

/// Bytes a dead letter takes up, as it is counted: its texts.
pub fn letter_bytes(letter: &DeadLetter) -> u64 {
    let refused = letter.attempts.refused.iter().map(|(_, failure)| failure_bytes(failure));
    (letter.event.json.len() + failure_bytes(&letter.failure) + refused.sum::<usize>()) as u64
}

fn failure_bytes(failure: &Failure) -> usize {
    let request = failure.trace.as_ref().and_then(|trace| trace.request.as_ref());
    let request_bytes = request.map_or(0, |request| {
        let headers = request.headers.iter().map(|(name, value)| name.len() + value.len());
        request.url.len() + request.body.as_ref().map_or(0, String::len) + headers.sum::<usize>()
    });
    failure.detail.len() + request_bytes
}

// === opening ===

fn open(files: &dyn Files, size_bytes: &Arc<AtomicU64>) -> Result<Database, StorageError> {
    let opened = guarded(|| {
        let backend = Backend { file: open_file(files)?, size_bytes: size_bytes.clone() };
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
        let format = prepare(&database)?;
        Ok((database, format))
    });
    let (database, format) = opened.map_err(|error| storage_error(&error))?;
    if format > FORMAT {
        return Err(StorageError(format!(
            "{FILE} was written by a newer version (format {format}, known is {FORMAT}): use that version, or a queue \
             folder of its own"
        )));
    }
    Ok(database)
}

fn open_file(files: &dyn Files) -> io::Result<Box<dyn File>> {
    let file = files.open(FILE)?;
    if is_half_made(&*file)? {
        file.set_len(0)?;
        file.sync()?;
    }
    cut_broken_page(&*file)?;
    // The name must not be lost when what is in the file is kept.
    files.sync_names()?;
    Ok(file)
}

/// Takes away a piece of a page at the end: a crash cut off the growing of the file, and redb refuses such a length. What
/// was committed is whole pages.
fn cut_broken_page(file: &dyn File) -> io::Result<()> {
    let len = file.len()?;
    let piece = len % PAGE_BYTES as u64;
    let mut mark = [0; MAGIC.len()];
    // Somebody else's file is left alone.
    if piece == 0 || file.read_at(0, &mut mark)? < MAGIC.len() || mark != MAGIC {
        return Ok(());
    }
    file.set_len(len - piece)?;
    file.sync()
}

/// Whether a crash cut off the making of the file, before anything could be written to it: redb makes it long, writes its
/// first page, and last the mark at its beginning, without which it refuses the file.
fn is_half_made(file: &dyn File) -> io::Result<bool> {
    let len = file.len()?;
    if len == 0 || len > NEW_BYTES_MAX {
        return Ok(false);
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    read_exactly(file, 0, &mut bytes)?;
    let (first_page, others) = bytes.split_at(bytes.len().min(PAGE_BYTES));
    let is_marked = first_page.starts_with(&MAGIC);
    let may_be_redb = first_page.iter().zip(MAGIC).all(|(byte, mark)| *byte == 0 || *byte == mark);
    Ok(!is_marked && may_be_redb && others.iter().all(|byte| *byte == 0))
}

/// Makes the tables if there are none. Answers the format.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let transaction = begin(database)?;
    {
        let mut meta = transaction.open_table(META)?;
        if let Some(format) = meta.get(META_FORMAT)?.map(|format| format.value()) {
            return Ok(format);
        }
        meta.insert(META_FORMAT, FORMAT)?;
        transaction.open_table(PLACES)?;
        transaction.open_table(WAITING)?;
        transaction.open_table(LETTERS)?;
        transaction.open_table(LETTERS_BY_AGE)?;
    }
    transaction.commit()?;
    Ok(FORMAT)
}

/// Begins a transaction that survives a crash.
///
/// Quick repair makes a commit in two steps, each synced: the pages and the allocator's state, then the one byte that
/// makes them count. An earlier commit is never in danger, not even when a sync fails and the system then takes pages for
/// written that are not, and opening after a crash reads neither all pages (as the commit in one step must, to check
/// them) nor the dead letters. The second sync is the price; settlements are written in groups, away from the door.
fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

// === reading ===

fn load(database: &Database) -> Result<Loaded, redb::Error> {
    let transaction = database.begin_read()?;
    let mut loaded = Loaded::default();
    for row in transaction.open_table(PLACES)?.iter()? {
        let (name, place) = row?;
        match rows::read_place(place.value()) {
            Ok(place) => drop(loaded.places.insert(name.value().into(), (place, Vec::new()))),
            Err(error) => {
                tracing::error!(
                    destination = name.value(),
                    %error,
                    "the place of a destination in {FILE} is damaged: it is sent everything that is retained again"
                );
                loaded.damaged.push(name.value().into());
            }
        }
    }
    let table = transaction.open_table(WAITING)?;
    let mut strays = table.len()?;
    for (name, (_, waiting)) in &mut loaded.places {
        for row in table.range(all_of(name))? {
            let (key, row) = row?;
            waiting.push((Offset(key.value().1), waiting_row(name, key.value().1, row.value())));
        }
        strays -= waiting.len() as u64;
    }
    let meta = transaction.open_table(META)?;
    loaded.next_letter = meta.get(META_NEXT_LETTER)?.map_or(0, |next| next.value());
    loaded.is_new = meta.get(META_BEGUN)?.is_none();
    if strays > 0 {
        remove_strays(database, &loaded)?;
    }
    Ok(loaded)
}

fn waiting_row(destination: &DestinationName, offset: u64, bytes: &[u8]) -> WaitingRow {
    rows::read_waiting(bytes).unwrap_or_else(|error| {
        tracing::error!(%destination, offset, %error, "the note of a waiting event in {FILE} is damaged: it is tried at once");
        rows::WAITING_UNREADABLE
    })
}

/// Events that wait for a destination whose place is damaged must not turn up in the place that it will get.
fn remove_strays(database: &Database, loaded: &Loaded) -> Result<(), redb::Error> {
    let transaction = begin(database)?;
    transaction.open_table(WAITING)?.retain(|(name, _), _| loaded.places.contains_key(&name.into()))?;
    Ok(transaction.commit()?)
}

fn read_letters(
    database: &Database,
    destination: &DestinationName,
    after: Option<LetterId>,
    letters_max: usize,
) -> Result<Vec<(LetterId, DeadLetter)>, redb::Error> {
    let Some(first) = after.map_or(Some(0), |after| after.0.checked_add(1)) else { return Ok(Vec::new()) };
    let name = destination.as_str();
    let mut letters = Vec::new();
    for row in database.begin_read()?.open_table(LETTERS)?.range((name, first)..=(name, u64::MAX))? {
        if letters.len() == letters_max {
            break;
        }
        let (key, value) = row?;
        let (id, (letter, json)) = (key.value().1, value.value());
        match rows::read_letter(destination.clone(), letter, json) {
            Ok(letter) => letters.push((LetterId(id), letter)),
            Err(error) => tracing::error!(%destination, letter = id, %error, "a dead letter in {FILE} cannot be read"),
        }
    }
    Ok(letters)
}

fn letter_sizes(
    database: &Database,
    destination: &DestinationName,
    letters: &[LetterId],
) -> Result<Vec<(LetterId, u64)>, redb::Error> {
    let table = database.begin_read()?.open_table(LETTERS_BY_AGE)?;
    let mut sizes = Vec::with_capacity(letters.len());
    for id in letters {
        let Some(row) = table.get(id.0)? else { continue };
        let (name, _, _, size_bytes) = row.value();
        if name == destination.as_str() {
            sizes.push((*id, size_bytes));
        }
    }
    Ok(sizes)
}

fn oldest_letters(
    database: &Database,
    letters_max: usize,
) -> Result<Vec<(DestinationName, LetterId, Timestamp, u64)>, redb::Error> {
    let table = database.begin_read()?.open_table(LETTERS_BY_AGE)?;
    let mut letters = Vec::new();
    for row in table.iter()?.take(letters_max) {
        let (id, value) = row?;
        let (name, seconds, nanoseconds, size_bytes) = value.value();
        // A damaged time must not make a letter old.
        let died_at = Timestamp::new(seconds, nanoseconds).unwrap_or(Timestamp::MAX);
        letters.push((name.into(), LetterId(id.value()), died_at, size_bytes));
    }
    Ok(letters)
}

fn all_of(destination: &DestinationName) -> RangeInclusive<(&str, u64)> {
    (destination.as_str(), 0)..=(destination.as_str(), u64::MAX)
}

// === writing ===

fn write(database: &Database, changes: &Changes) -> Result<(), redb::Error> {
    let transaction = begin(database)?;
    forget(&transaction, &changes.forgotten)?;
    write_places(&transaction, &changes.places)?;
    write_waiting(&transaction, &changes.waiting)?;
    write_letters(&transaction, &changes.letters)?;
    remove_letters(&transaction, &changes.letters_removed)?;
    if changes.begins {
        transaction.open_table(META)?.insert(META_BEGUN, 1)?;
    }
    Ok(transaction.commit()?)
}

fn forget(transaction: &WriteTransaction, names: &[DestinationName]) -> Result<(), redb::Error> {
    if names.is_empty() {
        return Ok(());
    }
    let mut places = transaction.open_table(PLACES)?;
    let mut waiting = transaction.open_table(WAITING)?;
    let mut letters = transaction.open_table(LETTERS)?;
    let mut by_age = transaction.open_table(LETTERS_BY_AGE)?;
    for name in names {
        places.remove(name.as_str())?;
        waiting.retain_in(all_of(name), |_, _| false)?;
        for letter in letters.extract_from_if(all_of(name), |_, _| true)? {
            by_age.remove(letter?.0.value().1)?;
        }
    }
    Ok(())
}

fn write_places(
    transaction: &WriteTransaction,
    places: &BTreeMap<DestinationName, PlaceRow>,
) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(PLACES)?;
    for (name, place) in places {
        table.insert(name.as_str(), &*rows::write_place(place))?;
    }
    Ok(())
}

fn write_waiting(
    transaction: &WriteTransaction,
    waiting: &BTreeMap<(DestinationName, Offset), Option<WaitingRow>>,
) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(WAITING)?;
    for ((name, offset), row) in waiting {
        let key = (name.as_str(), offset.0);
        match row {
            Some(row) => table.insert(key, &*rows::write_waiting(row))?,
            None => table.remove(key)?,
        };
    }
    Ok(())
}

fn write_letters(transaction: &WriteTransaction, letters: &[(LetterId, DeadLetter)]) -> Result<(), redb::Error> {
    let Some(newest) = letters.iter().map(|(id, _)| id.0).max() else { return Ok(()) };
    let mut table = transaction.open_table(LETTERS)?;
    let mut by_age = transaction.open_table(LETTERS_BY_AGE)?;
    for (id, letter) in letters {
        let (name, died_at) = (letter.destination.as_str(), letter.died_at);
        table.insert((name, id.0), (&*rows::write_letter(letter), &*letter.event.json))?;
        let age = (name, died_at.as_second(), died_at.subsec_nanosecond(), letter_bytes(letter));
        by_age.insert(id.0, age)?;
    }
    let mut meta = transaction.open_table(META)?;
    let next = meta.get(META_NEXT_LETTER)?.map_or(0, |next| next.value());
    meta.insert(META_NEXT_LETTER, next.max(newest.saturating_add(1)))?;
    Ok(())
}

fn remove_letters(transaction: &WriteTransaction, letters: &[(DestinationName, LetterId)]) -> Result<(), redb::Error> {
    if letters.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(LETTERS)?;
    let mut by_age = transaction.open_table(LETTERS_BY_AGE)?;
    for (name, id) in letters {
        if table.remove((name.as_str(), id.0))?.is_some() {
            by_age.remove(id.0)?;
        }
    }
    Ok(())
}

// === errors ===

/// redb promises an error for a damaged page only where it looks for one, and otherwise may panic.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    let panicked = |_| Err(redb::Error::Corrupted("reading it made no sense".to_owned()));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked)
}

fn storage_error(error: &redb::Error) -> StorageError {
    if !is_damage(error) {
        return StorageError(format!("{FILE}: {error}"));
    }
    // Nothing is removed here: what is left of the file may be worth more to somebody than a quick start.
    StorageError(format!(
        "{FILE} is damaged ({error}): keep a copy, move it out of the queue's folder, and start again; every event is \
         still in the log, but where destinations stood, what waited and the dead letters are in that file only, so \
         every destination is then sent all that is retained again"
    ))
}

fn is_damage(error: &redb::Error) -> bool {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    use redb::Error::{Corrupted, Io, TableIsMultimap, TableTypeMismatch, UpgradeRequired};
    if let Io(error) = error {
        return matches!(error.kind(), InvalidData | UnexpectedEof);
    }
    matches!(error, Corrupted(_) | TableIsMultimap(_) | TableTypeMismatch { .. } | UpgradeRequired(_))
}

// === impl Backend ===

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        let len = self.file.len()?;
        self.size_bytes.store(len, Ordering::Relaxed);
        Ok(len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read_exactly(&*self.file, offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.size_bytes.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }
}

fn read_exactly(file: &dyn File, position: u64, out: &mut [u8]) -> io::Result<()> {
    if file.read_at(position, out)? == out.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests;
