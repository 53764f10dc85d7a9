//! A file system in memory that loses power, runs full, fails and rots as a test asks, the same way for the same seed.
//!
//! It promises no more than POSIX does. What was written is seen at once, and survives a loss of power only after a
//! sync that succeeded: until then any part of it may be there, in any order. So it is with names. After a sync that
//! failed what it was to write may be lost for good, and the next sync says nothing about it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;
use libroseg::queue::disk::files::{File, Files, Room};

/// A folder on a disk that a test has in its hands. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Sim(Arc<Mutex<Disk>>);

/// How likely each kind of call is to fail, from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) open: f64,
    pub(crate) read: f64,
    pub(crate) write: f64,
    pub(crate) sync: f64,
    pub(crate) sync_names: f64,
    pub(crate) remove: f64,
    pub(crate) set_len: f64,
}

struct Disk {
    rng: Rng,
    faults: Faults,
    /// Bytes that all files together may have.
    all_bytes: u64,
    /// Calls until the power goes; `Some(0)`: it is gone.
    power: Option<u32>,
    /// How often the process was started: what an earlier one had open is closed.
    process: u64,
    files: BTreeMap<u64, Content>,
    next_file: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Names given to a file or taken away since the last sync, in order.
    renamed: Vec<(String, Option<u64>)>,
    syncs: u64,
    read_bytes: u64,
}

#[derive(Clone, Default)]
struct Content {
    /// What is read.
    seen: Vec<u8>,
    /// What a loss of power leaves at least.
    durable: Vec<u8>,
    /// What was done since, in order.
    dirty: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

struct Handle {
    disk: Sim,
    file: u64,
    process: u64,
}

/// Disks write whole sectors, and promise it for no more than one.
const SECTOR_BYTES: usize = 512;

// === impl Sim ===

impl Sim {
    /// An empty disk that never fails by itself.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            rng: Rng::with_seed(seed),
            faults: Faults::default(),
            all_bytes: u64::MAX / 2,
            power: None,
            process: 0,
            files: BTreeMap::new(),
            next_file: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renamed: Vec::new(),
            syncs: 0,
            read_bytes: 0,
        })))
    }

    /// As the log wants it.
    pub(crate) fn files(&self) -> Arc<dyn Files> {
        Arc::new(self.clone())
    }

    /// From now on calls fail so often.
    pub(crate) fn set_faults(&self, faults: Faults) {
        self.disk().faults = faults;
    }

    /// From now on there is so much room.
    pub(crate) fn set_all_bytes(&self, all_bytes: u64) {
        self.disk().all_bytes = all_bytes;
    }

    /// The power goes after so many more calls that change something: the one it goes in may be done in part, those
    /// after it fail. What is left is for [`Sim::crash`] to say.
    pub(crate) fn cut_power_after(&self, calls: u32) {
        self.disk().power = Some(calls);
    }

    /// The process ended, however; the system goes on and forgets nothing.
    pub(crate) fn kill(&self) {
        let mut disk = self.disk();
        disk.process += 1;
        disk.power = None;
    }

    /// The power was lost and is back: what was not synced may be there or not.
    pub(crate) fn crash(&self, rng: &mut Rng) {
        let mut disk = self.disk();
        disk.process += 1;
        disk.power = None;
        for content in disk.files.values_mut() {
            content.lose_power(rng);
        }
        let renamed = std::mem::take(&mut disk.renamed);
        for (name, file) in renamed {
            if rng.bool() {
                set_name(&mut disk.durable_names, name, file);
            }
        }
        disk.names = disk.durable_names.clone();
        let Disk { files, names, .. } = &mut *disk;
        files.retain(|file, _| names.values().any(|named| named == file));
    }

    /// Syncs of files that succeeded.
    pub(crate) fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// Bytes read from files.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.disk().read_bytes
    }

    /// The names, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.disk().names.keys().cloned().collect()
    }

    /// What is read in a file.
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let disk = self.disk();
        disk.files[&disk.names[name]].seen.clone()
    }

    /// Puts a durable file there.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let mut disk = self.disk();
        let file = disk.create(name);
        disk.files.insert(file, Content { seen: bytes.to_vec(), durable: bytes.to_vec(), dirty: Vec::new() });
        disk.durable_names.insert(name.to_owned(), file);
        disk.renamed.retain(|(renamed, _)| renamed != name);
    }

    /// Rots a file: changes its bytes under everybody.
    pub(crate) fn damage(&self, name: &str, change: impl Fn(&mut [u8])) {
        let mut disk = self.disk();
        let file = disk.names[name];
        let content = disk.files.get_mut(&file).unwrap();
        change(&mut content.seen);
        change(&mut content.durable);
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }
}

impl Files for Sim {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut disk = self.disk();
        disk.fail(|faults| faults.read)?;
        Ok(disk.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut disk = self.disk();
        let is_new = !disk.names.contains_key(name);
        if is_new {
            disk.spend_power()?;
        }
        disk.fail(|faults| faults.open)?;
        let file = if is_new { disk.create(name) } else { disk.names[name] };
        Ok(Box::new(Handle { disk: self.clone(), file, process: disk.process }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend_power()?;
        disk.fail(|faults| faults.remove)?;
        disk.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        disk.renamed.push((name.to_owned(), None));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spend_power()?;
        disk.fail(|faults| faults.sync_names)?;
        disk.renamed.clear();
        disk.durable_names = disk.names.clone();
        Ok(())
    }

    fn room(&self) -> io::Result<Room> {
        let disk = self.disk();
        Ok(Room { free_bytes: disk.all_bytes.saturating_sub(disk.used_bytes()), all_bytes: disk.all_bytes })
    }
}

// === impl Disk ===

impl Disk {
    fn create(&mut self, name: &str) -> u64 {
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(file, Content::default());
        self.names.insert(name.to_owned(), file);
        self.renamed.push((name.to_owned(), Some(file)));
        file
    }

    fn fail(&mut self, likely: impl Fn(&Faults) -> f64) -> io::Result<()> {
        if self.power == Some(0) {
            return Err(io::Error::other("the power is gone"));
        }
        if self.rng.f64() < likely(&self.faults) {
            return Err(io::Error::other("the disk fails"));
        }
        Ok(())
    }

    fn spend_power(&mut self) -> io::Result<()> {
        if self.power == Some(0) {
            return Err(io::Error::other("the power is gone"));
        }
        self.power = self.power.map(|calls| calls - 1);
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|file| self.files[file].seen.len() as u64).sum()
    }

    fn content(&mut self, handle: &Handle) -> io::Result<&mut Content> {
        if handle.process != self.process {
            return Err(io::Error::other("the process that opened this file is gone"));
        }
        Ok(self.files.get_mut(&handle.file).unwrap())
    }
}

fn set_name(names: &mut BTreeMap<String, u64>, name: String, file: Option<u64>) {
    match file {
        Some(file) => names.insert(name, file),
        None => names.remove(&name),
    };
}

// === impl Content ===

impl Content {
    fn change(&mut self, change: Change) {
        apply(&mut self.seen, &change);
        self.dirty.push(change);
    }

    fn sync(&mut self) {
        for change in self.dirty.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    /// What was not synced is written in part, and never tried again.
    fn fail_sync(&mut self, rng: &mut Rng) {
        for change in std::mem::take(&mut self.dirty) {
            apply_torn(&mut self.durable, &change, rng);
        }
    }

    fn lose_power(&mut self, rng: &mut Rng) {
        rng.shuffle(&mut self.dirty);
        self.fail_sync(rng);
        self.seen.clone_from(&self.durable);
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, written) => {
            bytes.resize(bytes.len().max(at + written.len()), 0);
            bytes[*at..at + written.len()].copy_from_slice(written);
        }
        Change::Len(len) => bytes.resize(*len, 0),
    }
}

/// Does a change, or a part of it, or nothing.
fn apply_torn(bytes: &mut Vec<u8>, change: &Change, rng: &mut Rng) {
    let Change::Write(at, written) = change else {
        if rng.bool() {
            apply(bytes, change);
        }
        return;
    };
    match rng.u8(..6) {
        0 => {}
        1 => apply(bytes, change),
        // Cut off at any byte.
        2 => apply(bytes, &Change::Write(*at, written[..rng.usize(..=written.len())].to_vec())),
        // The file has its length, and zeros.
        3 => bytes.resize(bytes.len().max(at + written.len()), 0),
        // Any of its sectors.
        _ => {
            let mut from = *at;
            while from < at + written.len() {
                let to = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(at + written.len());
                if rng.bool() {
                    apply(bytes, &Change::Write(from, written[from - at..to - at].to_vec()));
                }
                from = to;
            }
        }
    }
}

// === impl Handle ===

impl File for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.disk().content(self)?.seen.len() as u64)
    }

    fn read_at(&self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.disk.disk();
        disk.fail(|faults| faults.read)?;
        let seen = &disk.content(self)?.seen;
        let from = usize::try_from(position).unwrap().min(seen.len());
        let len = out.len().min(seen.len() - from);
        out[..len].copy_from_slice(&seen[from..from + len]);
        disk.read_bytes += len as u64;
        Ok(len)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.spend_power()?;
        let at = usize::try_from(position).unwrap();
        let failed = disk.fail(|faults| faults.write);
        let torn = disk.rng.usize(..=bytes.len());
        let old_len = disk.content(self)?.seen.len();
        let free = usize::try_from(disk.all_bytes.saturating_sub(disk.used_bytes())).unwrap();
        let done = match &failed {
            Ok(()) => bytes.len().min((old_len + free).saturating_sub(at)),
            Err(_) => torn.min((old_len + free).saturating_sub(at)),
        };
        disk.content(self)?.change(Change::Write(at, bytes[..done].to_vec()));
        failed?;
        if done < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.spend_power()?;
        disk.fail(|faults| faults.set_len)?;
        disk.content(self)?.change(Change::Len(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.spend_power()?;
        let failed = disk.fail(|faults| faults.sync);
        let mut rng = disk.rng.fork();
        if failed.is_err() && disk.power != Some(0) {
            disk.content(self)?.fail_sync(&mut rng);
        }
        failed?;
        disk.content(self)?.sync();
        disk.syncs += 1;
        Ok(())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", self.file)
    }
}
