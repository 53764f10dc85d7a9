//! A file that grows: whole lines or nothing, on stable storage before the batch counts as delivered.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use jiff::Timestamp;

use super::{Sink, written};
use crate::plan::{FileSettings, Reply, Request};

/// The writer of one `file` destination.
pub struct File {
    settings: Arc<FileSettings>,
    /// One writer at a time: a failed write is undone by cutting the file back to where it began.
    turn: Arc<Mutex<()>>,
}

// === impl File ===

impl File {
    /// Nothing is opened before the first batch: the file's name depends on its time.
    #[must_use]
    pub fn new(settings: FileSettings) -> Self {
        Self { settings: Arc::new(settings), turn: Arc::default() }
    }
}

impl Sink for File {
    fn send(&self, request: Request, now: Timestamp) -> BoxFuture<'_, Reply> {
        let (settings, turn) = (Arc::clone(&self.settings), Arc::clone(&self.turn));
        let lines = request.body.unwrap_or_default();
        let write = move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            write(&settings, &lines, now)
        };
        written(write).boxed()
    }
}

fn write(settings: &FileSettings, lines: &Bytes, now: Timestamp) -> io::Result<()> {
    let path = settings.path_at(now)?;
    let bytes = settings.compression.pack(lines)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
    }
    if settings.rotate_bytes.is_some_and(|max| would_outgrow(&path, bytes.len(), max)) {
        rotate(&path).map_err(|error| at(&path, &error))?;
    }
    append(&path, &bytes).map_err(|error| at(&path, &error))
}

/// An empty file takes a batch of any size.
fn would_outgrow(path: &Path, more_bytes: usize, bytes_max: u64) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.len() > 0 && meta.len() + more_bytes as u64 > bytes_max)
}

/// `events.ndjson` becomes `events.ndjson.1`, or the first number that is free.
fn rotate(path: &Path) -> io::Result<()> {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    let free = (1..=u32::MAX).map(numbered).find(|candidate| !candidate.exists());
    free.map_or(Ok(()), |free| fs::rename(path, free))
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    if let Err(error) = file.write_all(bytes).and_then(|()| file.sync_data()) {
        // Best effort: the next batch would otherwise begin in the middle of a line.
        let _ = file.set_len(length);
        return Err(error);
    }
    if is_new { sync_folder(path) } else { Ok(()) }
}

/// A new name is only safe once its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

// === impl FileSettings ===

impl FileSettings {
    /// The path at a time.
    ///
    /// # Errors
    /// When the pattern is not one that strftime knows; `config` has checked it.
    pub fn path_at(&self, now: Timestamp) -> io::Result<PathBuf> {
        let path = jiff::fmt::strtime::format(self.path.as_bytes(), now).map_err(io::Error::other)?;
        Ok(PathBuf::from(path))
    }
}
