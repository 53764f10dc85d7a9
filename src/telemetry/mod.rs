//! What the house tells of itself: logs and metrics.
//!
//! Logs go to stderr: a readable message plus fields, told once, never a key, a token or a payload. Every metric there
//! is stands in one list, [`metrics::METRICS`]. Nothing is counted here: the numbers are those of the rooms above.

pub mod metrics;
pub mod process;

use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// What a log line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// What is logged when nobody says: ourselves, and what goes wrong beneath.
const DEFAULT_FILTER: &str = "warn,libroseg=info";

/// Starts logging. `filter` is in the language of `RUST_LOG` (`debug`, `libroseg=debug,hyper=info`).
///
/// # Errors
/// When the filter cannot be read.
pub fn start(format: LogFormat, filter: Option<&str>) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(filter.unwrap_or(DEFAULT_FILTER))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // A second call, as tests make, changes nothing.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(uses_color()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Whether stderr shows colour: a terminal, and nobody has said `NO_COLOR` (<https://no-color.org>, read 2026-11-22).
#[must_use]
pub fn uses_color() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
