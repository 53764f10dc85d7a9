//! The real binary as a child process.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use super::PATIENCE;

/// A running `libroseg serve`. Dropping it kills it.
pub(crate) struct Binary {
    child: Child,
    /// Such as `http://127.0.0.1:41234`.
    pub(crate) url: String,
    log: Arc<Mutex<String>>,
    /// Ends when the log does.
    follower: Option<JoinHandle<()>>,
}

impl Binary {
    /// Starts it with this file and waits until it listens. The file should listen on port 0.
    pub(crate) fn start(config: &Path) -> Self {
        Self::start_with(config, &[])
    }

    /// The same with variables in its environment.
    pub(crate) fn start_with(config: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = Self::command();
        command.arg("serve").arg("--config").arg(config).current_dir(config.parent().unwrap());
        command.envs(variables.iter().copied());
        Self::run(command)
    }

    /// Runs a command that ends up as the binary's `serve`, and waits until it listens.
    pub(crate) fn run(mut command: Command) -> Self {
        let mut child = command
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, follower) = follow(&mut child, Arc::clone(&log));
        let Some(url) = lines.iter().find_map(|line| address_in(&line)) else {
            panic!("it never listened:\n{}", log.lock().unwrap());
        };
        std::thread::spawn(move || lines.into_iter().for_each(drop));
        Self { child, url, log, follower: Some(follower) }
    }

    /// The binary, without anything of this process's environment that would change what it does.
    pub(crate) fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_libroseg"));
        for variable in ["PORT", "LIBROSEG_CONFIG", "LIBROSEG_LOG", "LIBROSEG_LOG_FORMAT", "NO_COLOR"] {
            command.env_remove(variable);
        }
        command
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Bytes of memory it has, as Linux tells.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Bytes it has read so far, from files and sockets, cached or not, as Linux tells.
    #[cfg(target_os = "linux")]
    pub(crate) fn read_bytes(&self) -> u64 {
        let counts = std::fs::read_to_string(format!("/proc/{}/io", self.child.id())).unwrap();
        counts.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash would: it gets to do nothing more.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal, as `kill -TERM` does.
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end, and that of its log.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.follower.take().map(JoinHandle::join);
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it never ended:\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(child: &mut Child, log: Arc<Mutex<String>>) -> (Receiver<String>, JoinHandle<()>) {
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (sender, lines) = channel();
    let follower = std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            log.lock().unwrap().extend([&line, "\n"]);
            // Nobody may listen any more.
            let _ = sender.send(line);
        }
    });
    (lines, follower)
}

fn address_in(line: &str) -> Option<String> {
    let (_, address) = line.split_once("listening on ")?;
    Some(address.trim().to_owned())
}
