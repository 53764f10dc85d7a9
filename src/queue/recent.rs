//! The last events of a log as entries, so that destinations near its end share one opened copy.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Entry, Offset};
use crate::attempt::DestinationName;
use crate::event::Event;

/// The end of the log, in memory.
#[derive(Default)]
pub(super) struct Recent {
    entries: VecDeque<Arc<Entry>>,
    size_bytes: usize,
    end: u64,
}

/// Bytes of event text kept: enough for workers that read at about the same time, few enough not to be felt.
const BYTES_MAX: usize = 4 << 20;

// === impl Recent ===

impl Recent {
    /// A log that ends at an offset.
    pub(super) fn ending_at(end: u64) -> Self {
        Self { end, ..Self::default() }
    }

    /// The place of the next event.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Adds an event at the end.
    pub(super) fn push(&mut self, event: Event, only: Option<DestinationName>) {
        self.size_bytes += event.json.len();
        self.entries.push_back(Arc::new(Entry::new(Offset(self.end), event, only)));
        self.end += 1;
        while self.size_bytes > BYTES_MAX && self.entries.len() > 1 {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.size_bytes -= entry.event.json.len();
        }
    }

    /// Lets go of what everybody has read.
    pub(super) fn trim(&mut self, wanted_from: u64) {
        while self.entries.front().is_some_and(|entry| entry.offset.0 < wanted_from) {
            self.pop();
        }
    }

    /// The first event that is still here; the end when there is none.
    pub(super) fn first(&self) -> u64 {
        self.end - self.entries.len() as u64
    }

    /// The event at an offset, if it is still here.
    pub(super) fn get(&self, offset: u64) -> Option<&Arc<Entry>> {
        self.entries.get(usize::try_from(offset.checked_sub(self.first())?).ok()?)
    }
}
