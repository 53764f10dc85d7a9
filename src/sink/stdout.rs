//! Standard output: one line an event, for pipes and for looking.

use std::io::{self, Write as _};

use futures_util::future::{BoxFuture, FutureExt as _};
use jiff::Timestamp;

use super::{Sink, written};
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
        written(write).boxed()
    }
}
