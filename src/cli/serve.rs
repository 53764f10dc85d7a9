//! `libroseg serve`: the whole house, until a signal.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{DONE, UNABLE, WRONG};
use crate::app::{self, App};
use crate::clock::Clock;
use crate::reload::{LoadError, Reload};

/// How to listen.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Options {
    /// Listen here instead of where `[server] listen` says; wins over PORT
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) listen: Option<String>,
}

/// Serves until a signal. Answers the exit code.
pub(super) fn run(config: PathBuf, options: &Options, variables: BTreeMap<String, String>) -> u8 {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return UNABLE;
        }
    };
    runtime.block_on(serve(config, options, variables))
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
        let listener = app::bind(&listen).await?;
        let app = App::new(reload, clock).await?;
        Arc::new(app).serve(listener, stop_on_signal()).await.map_err(anyhow::Error::from)
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
            eprintln!("error: {error}: {source}");
            eprintln!("help: name a file with --config FILE or LIBROSEG_CONFIG");
            UNABLE
        }
        LoadError::Mistaken { picture, .. } => {
            eprintln!("{picture}error: {error}");
            WRONG
        }
    }
}

/// `--listen` wins over `PORT`, which wins over the file's port.
fn listen_address(file: &str, port: Option<&str>, option: Option<&str>) -> String {
    match (option, port) {
        (Some(option), _) => option.to_owned(),
        (None, Some(port)) => {
            let host = file.rsplit_once(':').map_or(file, |(host, _)| host);
            format!("{host}:{port}")
        }
        (None, None) => file.to_owned(),
    }
}

/// Cancelled by the first SIGTERM or SIGINT; the second one ends the process at once.
fn stop_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        signal().await;
        tracing::info!("shutting down; a second signal ends the process at once");
        token.cancel();
        signal().await;
        std::process::exit(i32::from(WRONG));
    });
    stop
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

#[cfg(not(unix))]
async fn signal() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
