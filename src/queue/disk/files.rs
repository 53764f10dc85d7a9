//! The few things the disk queue asks of a file system, so that a test can be one that loses power; and the real one.
//!
//! Nothing here knows what is in the files.

use std::fmt;
use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A folder of the queue's own. Every call fails as the file system says.
#[allow(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Files: Send + Sync + 'static {
    /// Names of the files in it, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading and writing, and makes it if it is not there.
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names that were added or removed durable.
    fn sync_names(&self) -> io::Result<()>;

    /// Bytes that can still be written, and bytes of the file system in all.
    fn room(&self) -> io::Result<Room>;
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that can still be written.
    pub free_bytes: u64,
    /// Bytes there are in all.
    pub all_bytes: u64,
}

/// An open file. Every call fails as the file system says.
#[allow(clippy::missing_errors_doc, reason = "said once for all")]
#[allow(clippy::len_without_is_empty, reason = "nobody asks that of a file")]
pub trait File: fmt::Debug + Send + Sync + 'static {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Reads up to so many bytes at a position; fewer only at the end of the file.
    fn read_at(&self, position: u64, out: &mut [u8]) -> io::Result<usize>;

    /// Writes all of the bytes at a position.
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts it, or fills it up with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the machine's file system, held by this process alone.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Locked until this is dropped.
    lock: fs::File,
}

/// The file whose lock says that a process has the folder; it stays, and is empty.
const LOCK: &str = "lock";

// === impl Folder ===

impl Folder {
    /// Takes a folder for this process, and makes it if it is not there.
    ///
    /// # Errors
    /// Another process has it, or the file system refuses.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let made: Vec<&Path> = dir.ancestors().take_while(|folder| !folder.exists()).collect();
        make_folders(dir)?;
        for parent in made.iter().filter_map(|folder| folder.parent()) {
            // Best effort: not every file system lets a folder be opened, and the folder above may not be ours.
            let _ = sync_folder(parent);
        }
        let lock = open_file(&dir.join(LOCK))?;
        lock.try_lock().map_err(|error| refusal(dir, error))?;
        Ok(Self { path: dir.to_owned(), lock })
    }
}

impl Drop for Folder {
    /// A process that was just forked, and has not become another program yet, has the file open too: closing it here
    /// would not be enough.
    fn drop(&mut self) {
        // What cannot be unlocked is when the process ends.
        let _ = self.lock.unlock();
    }
}

impl Files for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(open_file(&self.path.join(name))?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        sync_folder(&self.path)
    }

    fn room(&self) -> io::Result<Room> {
        room(&self.path)
    }
}

fn refusal(dir: &Path, error: TryLockError) -> io::Error {
    let dir = dir.display();
    match error {
        TryLockError::WouldBlock => io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("another process uses the queue in {dir}: stop it, or give this one its own [queue] dir"),
        ),
        TryLockError::Error(error) => io::Error::new(error.kind(), format!("cannot lock the queue in {dir}: {error}")),
    }
}

/// Folders that only this user may look into: events are nobody else's business.
fn make_folders(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn open_file(path: &Path) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    // The folder above a relative name of one part is written as nothing.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    fs::File::open(path)?.sync_all()
}

/// Elsewhere a folder cannot be opened, and names are written with the files.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
pub(super) fn room(path: &Path) -> io::Result<Room> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(Room {
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        all_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// Not asked elsewhere: a write that finds no room says so.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
pub(super) fn room(_path: &Path) -> io::Result<Room> {
    Ok(Room { free_bytes: u64::MAX, all_bytes: u64::MAX })
}

// === impl File ===

impl File for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < out.len() {
            match read_some(self, position + done as u64, &mut out[done..]) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        write_whole(self, position, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(unix)]
fn read_some(file: &fs::File, position: u64, out: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, position)
}

#[cfg(windows)]
fn read_some(file: &fs::File, position: u64, out: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, out, position)
}

#[cfg(unix)]
fn write_whole(file: &fs::File, position: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, position)
}

#[cfg(windows)]
fn write_whole(file: &fs::File, mut position: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += written as u64;
                bytes = &bytes[written..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_process_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("deep/queue");
        let folder = Folder::open(&dir).unwrap();

        let error = Folder::open(&dir).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert!(error.to_string().contains("another process uses the queue"), "{error}");

        drop(folder);
        Folder::open(&dir).unwrap();
    }

    #[test]
    fn a_file_keeps_what_was_written_where_it_was_written() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(home.path()).unwrap();
        let file = folder.open("a").unwrap();
        file.write_at(3, b"def").unwrap();
        file.write_at(0, b"abc").unwrap();
        file.sync().unwrap();
        folder.sync_names().unwrap();

        let mut out = [0; 10];
        assert_eq!(folder.open("a").unwrap().read_at(1, &mut out).unwrap(), 5);
        assert_eq!(&out[..5], b"bcdef");
        file.set_len(2).unwrap();
        assert_eq!(file.len().unwrap(), 2);
        folder.remove("a").unwrap();
        assert_eq!(folder.list().unwrap(), [LOCK]);
        assert!(folder.room().unwrap().all_bytes >= folder.room().unwrap().free_bytes);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_look_into_the_folder_and_its_files() {
        use std::os::unix::fs::PermissionsExt as _;

        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("queue");
        let folder = Folder::open(&dir).unwrap();
        folder.open("a").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("a")), mode(&dir.join(LOCK))), (0o700, 0o600, 0o600));
    }
}
