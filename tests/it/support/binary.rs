//! The real binary as a child process.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Command, Stdio};

use super::process::Process;

/// A running `libroseg serve`. Dropping it kills it.
pub(crate) struct Binary {
    process: Process,
    /// Such as `http://127.0.0.1:41234`.
    pub(crate) url: String,
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
        command.env("NO_PROXY", "127.0.0.1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let process = Process::start(&mut command);
        let Some(url) = process.logs(|log| log.lines().find_map(address_in)) else {
            panic!("it never listened:\n{}", process.log());
        };
        Self { process, url }
    }

    /// The binary, without anything of this process's environment that would change what it does.
    pub(crate) fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_libroseg"));
        for variable in ["PORT", "LIBROSEG_CONFIG", "LIBROSEG_LOG", "LIBROSEG_LOG_FORMAT", "NO_COLOR"] {
            command.env_remove(variable);
        }
        command
    }

    /// Ends it as a crash would: it gets to do nothing more.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Deref for Binary {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Binary {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn address_in(line: &str) -> Option<String> {
    let (_, address) = line.split_once("listening on ")?;
    Some(address.trim().to_owned())
}
