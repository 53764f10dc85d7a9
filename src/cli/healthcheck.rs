//! `libroseg healthcheck`: asks the service on this machine whether it serves, as a container's health check.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::{DONE, WRONG, duration, serve};
use crate::ingest::Probe;
use crate::reload;

pub(super) const EXAMPLES: &str = "\
It asks for `/health` where the service listens: --listen, or PORT, or `[server] listen` of the
file; with TLS if the file has it, and whatever its certificate says. Only `[server]` is read: a
service that runs on beside a file with mistakes is healthy.

Exit codes: 0 it serves, 1 it does not, or did not answer in time.

Examples:
  libroseg healthcheck
  libroseg healthcheck --timeout 1s
  libroseg healthcheck --listen 127.0.0.1:9000";

/// Whom to ask, and how patiently.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// Where the service listens, if it was told so on its command line
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,

    /// How long the answer may take
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "3s")]
    timeout: Duration,
}

/// Asks once. Answers the exit code: Docker knows 0 and 1 only.
pub(super) fn run(config: &Path, options: &Options, variables: &BTreeMap<String, String>) -> u8 {
    let server = match reload::read_server(config, variables) {
        Ok(server) => server,
        Err(error) => {
            serve::told(&error);
            return WRONG;
        }
    };
    let port = variables.get("PORT").map(String::as_str);
    let listen = serve::listen_address(&server.listen, port, options.listen.as_deref());
    ask(&Probe::new(&listen, server.tls.is_some()), options.timeout)
}

fn ask(probe: &Probe, timeout: Duration) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            super::note(format_args!("error: cannot start the runtime: {error}"));
            return WRONG;
        }
    };
    let asked = runtime.block_on(probe.ask(timeout));
    // A name that is still being looked up must not keep us.
    runtime.shutdown_background();
    match asked {
        Ok(status) if status.is_success() => {
            // The answer is the exit code; the line is for those who look.
            super::answer(&format!("{}: {status}\n", probe.url()));
            DONE
        }
        Ok(status) => {
            super::note(format_args!("error: {}: {status}", probe.url()));
            WRONG
        }
        Err(error) => {
            super::note(format_args!("error: {}: {:#}", probe.url(), anyhow::Error::from(error)));
            WRONG
        }
    }
}
