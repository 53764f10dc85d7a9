//! How far a long command is, on stderr: a bar on a terminal, else a line now and then.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::ask::counted;
use crate::admin::Progress;

/// Shows how far it is.
pub(super) struct Meter {
    /// What is done with events: `put back`.
    deed: &'static str,
    bar: Option<ProgressBar>,
    told_at: Instant,
}

/// Without a terminal it is told this often.
const LINE_PAUSE: Duration = Duration::from_secs(5);

/// What the bar looks like.
const TEMPLATE: &str = "{bar:30} {percent:>3}%  {msg}";

// === impl Meter ===

impl Meter {
    /// Shows nothing yet.
    pub(super) fn new(deed: &'static str) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        });
        Self { deed, bar, told_at: Instant::now() }
    }

    /// Shows how far it is now.
    pub(super) fn show(&mut self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.set_length(progress.of);
            bar.set_position(progress.position);
            bar.set_message(self.text(progress));
        } else if self.told_at.elapsed() >= LINE_PAUSE {
            self.told_at = Instant::now();
            super::note(format_args!("{} of {}: {}", progress.position, progress.of, self.text(progress)));
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn text(&self, progress: &Progress) -> String {
        let up_to = progress.at.map(|at| format!(", up to {at}")).unwrap_or_default();
        let waits = progress.waits.as_ref().map(|why| format!("; waits: {why}")).unwrap_or_default();
        format!("{} {}{up_to}{waits}", counted(progress.done, "event"), self.deed)
    }
}
