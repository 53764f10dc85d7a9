//! `libroseg serve`: the whole house, until a signal.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{CONFIG_VARIABLE, DONE, UNABLE, WRONG};
use crate::app::{self, App};
use crate::clock::Clock;
use crate::expr::STACK_BYTES;
use crate::reload::{LoadError, Reload};
use crate::vercel;

/// How to listen.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Options {
    /// Listen here instead of where `[server] listen` says; wins over PORT
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) listen: Option<String>,
}

/// At the end, calls that block get this long: a file that is being read from end to end, for a command that nobody
/// waits for any more, must not keep the process.
const BLOCKED_MAX: Duration = Duration::from_secs(1);

/// Serves until a signal. Answers the exit code.
pub(super) fn run(config: PathBuf, options: &Options, variables: BTreeMap<String, String>) -> u8 {
    blocking_on(serve(config, options, variables))
}

/// Runs it to its end.
fn blocking_on(serving: impl Future<Output = u8>) -> u8 {
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK_BYTES).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            super::note(format_args!("error: cannot start the runtime: {error}"));
            return UNABLE;
        }
    };
    let code = runtime.block_on(serving);
    runtime.shutdown_timeout(BLOCKED_MAX);
    code
}

/// Serves a Vercel Function's requests until its host ends the process. Answers the exit code.
pub(super) fn run_function(config: PathBuf, variables: BTreeMap<String, String>) -> u8 {
    blocking_on(serve_function(config, variables))
}

async fn serve_function(config: PathBuf, variables: BTreeMap<String, String>) -> u8 {
    let clock = Clock::system();
    let served = async {
        let duration_max = vercel::duration_max(&variables)?;
        let origin = vercel::origin(config, variables.contains_key(CONFIG_VARIABLE), duration_max);
        let stop = stop_on_signal()?;
        let reload = match Reload::load(origin, variables, clock.clone()) {
            Ok(reload) => reload,
            Err(error) => return Ok(told(&error)),
        };
        let app = Arc::new(App::new(reload, clock).await?);
        let closing = Arc::clone(&app);
        tokio::spawn(async move {
            stop.cancelled().await;
            closing.close();
        });
        vercel::serve(app, duration_max).await.map(|()| DONE).map_err(anyhow::Error::from)
    };
    served.await.unwrap_or_else(|error: anyhow::Error| {
        tracing::error!("{error:#}");
        UNABLE
    })
}

async fn serve(config: PathBuf, options: &Options, variables: BTreeMap<String, String>) -> u8 {
    let port = variables.get("PORT").cloned();
    let clock = Clock::system();
    let reload = match Reload::load(config, variables, clock.clone()) {
        Ok(reload) => reload,
        Err(error) => return told(&error),
    };
    let listen = listen_address(&reload.current().plan.server.listen, port.as_deref(), options.listen.as_deref());
    let served = async {
        let stop = stop_on_signal()?;
        let listener = app::bind(&listen).await?;
        let app = App::new(reload, clock).await?;
        Arc::new(app).serve(listener, stop).await.map_err(anyhow::Error::from)
    };
    match served.await {
        Ok(()) => DONE,
        Err(error) => {
            tracing::error!("{error:#}");
            UNABLE
        }
    }
}

/// Says why a file gave no plan. Answers the exit code.
pub(super) fn told(error: &LoadError) -> u8 {
    match error {
        LoadError::Unreadable { source, .. } => {
            super::note(format_args!("error: {error}: {source}"));
            super::note(format_args!("help: name a file with --config FILE or LIBROSEG_CONFIG"));
            UNABLE
        }
        LoadError::Mistaken { picture, .. } => {
            super::note(format_args!("{picture}error: {error}"));
            WRONG
        }
    }
}

/// `--listen` wins over `PORT`, which wins over the file's port.
pub(super) fn listen_address(file: &str, port: Option<&str>, option: Option<&str>) -> String {
    match (option, port) {
        (Some(option), _) => option.to_owned(),
        (None, Some(port)) => {
            let host = file.rsplit_once(':').map_or(file, |(host, _)| host);
            format!("{host}:{port}")
        }
        (None, None) => file.to_owned(),
    }
}

/// Cancelled by the first SIGTERM or SIGINT; the second one ends the process at once. Signals count from now on, not from
/// when somebody first waits for them.
fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let mut signals = Signals::new()?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("shutting down; a second signal ends the process at once");
        token.cancel();
        signals.next().await;
        std::process::exit(i32::from(WRONG));
    });
    Ok(stop)
}

/// The signals that end the process.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The signals that end the process.
#[cfg(not(unix))]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) {
        self.0.recv().await;
    }
}
