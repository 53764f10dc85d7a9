//! A process that is measured, as the system sees it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use tempfile::TempDir;

use super::support::cpu_seconds;

/// What is measured has a core to itself, and the driver with its sink the next one.
const ITS_CORE: usize = 0;
const OUR_CORE: usize = 1;

/// No start takes longer than this, a recovery of ten million events included.
const START_MAX: Duration = Duration::from_mins(2);

/// How often an address is tried that does not answer yet.
const KNOCK_EVERY: Duration = Duration::from_micros(500);

/// A running server. Dropping it kills it.
pub(crate) struct Subject {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// What a process has used since it started.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system.
    pub(crate) cpu: Duration,
    pub(crate) resident_bytes: u64,
    pub(crate) resident_bytes_max: u64,
    /// To disks, as the system has caused it to be written.
    pub(crate) written_bytes: u64,
}

/// A folder with a `libroseg.toml`, in which the binary runs.
pub(crate) struct Home {
    pub(crate) folder: TempDir,
}

// === impl Subject ===

impl Subject {
    /// Starts what listens at the address that `command` is made for, on a core of its own, and waits for an answer.
    pub(crate) fn start(command: impl FnOnce(SocketAddr) -> Command) -> Self {
        let address = free_address();
        let mut command = command(address);
        for variable in ["LIBROSEG_CONFIG", "LIBROSEG_LOG", "LIBROSEG_LOG_FORMAT", "HTTP_PROXY", "http_proxy"] {
            command.env_remove(variable);
        }
        pin(ITS_CORE);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        pin(OUR_CORE);
        let mut subject = Self { child: child.expect("what is measured starts"), address };
        subject.wait();
        subject
    }

    fn wait(&mut self) {
        let start = Instant::now();
        while post(self.address, "").is_none() {
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("it ended with {status} before it listened");
            }
            assert!(start.elapsed() < START_MAX, "it does not answer");
            std::thread::sleep(KNOCK_EVERY);
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let pid = self.child.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
        let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("a process of ours");
        Usage {
            cpu: Duration::from_secs_f64(cpu_seconds(&pid.to_string()).expect("a process that runs")),
            resident_bytes: number(&status, "VmRSS:") * 1024,
            resident_bytes_max: number(&status, "VmHWM:") * 1024,
            written_bytes: number(&io, "write_bytes:"),
        }
    }

    /// CPU time of the threads that it has now, to the nanosecond; [`Usage::cpu`] counts in hundredths of a second.
    pub(crate) fn busy(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("a process that runs");
        let busy = threads.filter_map(|thread| {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
        });
        busy.sum()
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Usage ===

impl Usage {
    /// What was used since.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            written_bytes: self.written_bytes - before.written_bytes,
            ..self
        }
    }
}

// === impl Home ===

impl Home {
    pub(crate) fn new(config: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("load-").tempdir_in(target()).expect("a folder");
        fs::write(folder.path().join("libroseg.toml"), config).expect("room");
        Self { folder }
    }

    /// Starts the binary here.
    pub(crate) fn start(&self, binary: &Path) -> Subject {
        Subject::start(|address| {
            let mut command = Command::new(binary);
            command.args(["serve", "--listen", &address.to_string(), "--log", "error"]).current_dir(self.folder.path());
            command
        })
    }

    /// Starts the binary, and answers how long it took to the first event that was accepted.
    pub(crate) fn first_accepted(&self, binary: &Path) -> (Subject, Duration) {
        const EVENT: &str = r#"{"type":"track","event":"first","userId":"u"}"#;
        let start = Instant::now();
        let subject = self.start(binary);
        assert_eq!(post(subject.address, EVENT), Some(200), "it accepts an event");
        (subject, start.elapsed())
    }

    /// Of all files of the queue.
    pub(crate) fn queue_bytes(&self) -> u64 {
        let entries = fs::read_dir(self.folder.path().join("queue")).expect("a queue");
        entries.map(|entry| entry.and_then(|entry| entry.metadata()).map_or(0, |metadata| metadata.len())).sum()
    }
}

/// Sends an event from a connection of its own; `None` while nobody listens.
pub(crate) fn post(address: SocketAddr, body: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    let length = body.len();
    let request = format!(
        "POST /v1/track HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic a2V5Og==\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

/// Where everything that is made here is made, from whichever folder a process runs in.
pub(crate) fn target() -> PathBuf {
    std::path::absolute(super::support::target()).expect("a folder")
}

/// Keeps this thread, and all that it starts, on one core; a machine with one only is left alone.
pub(crate) fn pin_driver() {
    pin(OUR_CORE);
}

fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    let _ = sched_setaffinity(None, &cores);
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}

/// The number after a word in a file of `/proc`.
fn number(text: &str, word: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(word)).expect("a line that Linux writes");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
