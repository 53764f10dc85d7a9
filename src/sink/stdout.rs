//! Standard output: one line an event, for pipes and for looking.

use std::io::{self, Write as _};

use futures_util::future::{BoxFuture, FutureExt as _};
use jiff::Timestamp;

use super::Sink;
use crate::attempt::{Failure, Reason};
use crate::plan::{Reply, Request};

/// The writer of a `stdout` destination.
pub struct Stdout;

// === impl Stdout ===

impl Sink for Stdout {
    fn send(&self, request: Request, _now: Timestamp) -> BoxFuture<'_, Reply> {
        let lines = request.body.unwrap_or_default();
        let write = move || -> io::Result<()> {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&lines)?;
            stdout.flush()
        };
        async move {
            // A pipe that nobody reads blocks: not on a thread that others need.
            match tokio::task::spawn_blocking(write).await {
                Ok(Ok(())) => Reply::Written,
                Ok(Err(error)) => Reply::Lost(Failure::new(Reason::Io, error.to_string())),
                Err(error) => Reply::Lost(Failure::new(Reason::Io, error.to_string())),
            }
        }
        .boxed()
    }
}
