//! A child process: what it logs, signals to it, and its end.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// A running program. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    /// One for every stream of its log; they end when it does.
    followers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a program. Its log is what it writes into those of its streams that are piped.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = Arc::default();
        let stdout = child.stdout.take().map(|stream| follow(stream, &log));
        let stderr = child.stderr.take().map(|stream| follow(stream, &log));
        Self { child, log, followers: stdout.into_iter().chain(stderr).collect() }
    }

    /// The whole lines so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until something is found in its log; `None` when that has ended without it.
    pub(crate) fn logs<T>(&self, found: impl Fn(&str) -> Option<T>) -> Option<T> {
        loop {
            let has_ended = self.followers.iter().all(JoinHandle::is_finished);
            let found = found(&self.log.lock().unwrap());
            if found.is_some() || has_ended {
                return found;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory it has, as Linux tells.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Bytes it has read so far, from files and sockets, cached or not, as Linux tells.
    #[cfg(target_os = "linux")]
    pub(crate) fn read_bytes(&self) -> u64 {
        let counts = std::fs::read_to_string(format!("/proc/{}/io", self.id())).unwrap();
        counts.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    }

    /// Sends it a signal, as `kill -TERM` does.
    pub(crate) fn signal(&self, signal: &str) {
        send_signal(self.id(), signal);
    }

    /// Waits for its end, and that of its log.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.followers.drain(..).for_each(|follower| follower.join().unwrap());
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it never ended:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process by its number.
pub(crate) fn send_signal(process: u32, signal: &str) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(process.to_string()).status().unwrap();
    assert!(status.success());
}

/// Adds a stream to the log, line by line.
fn follow(stream: impl Read + Send + 'static, log: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let (mut stream, log) = (BufReader::new(stream), Arc::clone(log));
    std::thread::spawn(move || {
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            log.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}
