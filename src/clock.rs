//! The time, or a time that a test moves.
//!
//! The one place that asks the machine what time it is. A moved clock wakes exactly those who wait on it, while sockets
//! stay real: tokio's own paused clock would race them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

/// Where the time comes from. Clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System,
    Moved(Arc<Moved>),
}

#[derive(Debug)]
struct Moved {
    now: watch::Sender<Timestamp>,
    /// How many wait for each time.
    sleepers: Mutex<BTreeMap<Timestamp, usize>>,
}

/// Takes a sleeper off the list, woken or not.
struct Sleeper<'a> {
    moved: &'a Moved,
    until: Timestamp,
}

/// A sleep is cut into pieces of this length, so that a clock that was set, or a machine that was suspended, is noticed.
const NAP: Duration = Duration::from_secs(30);

// === impl Clock ===

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Kind::System)
    }

    /// A clock that stands still until [`Clock::advance_to`] moves it.
    #[must_use]
    pub fn moved(start: Timestamp) -> Self {
        Self(Kind::Moved(Arc::new(Moved { now: watch::Sender::new(start), sleepers: Mutex::default() })))
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Kind::System => system_now(),
            Kind::Moved(moved) => *moved.now.borrow(),
        }
    }

    /// Ready at that time, or at once when it has gone by.
    pub async fn sleep_until(&self, until: Timestamp) {
        match &self.0 {
            Kind::System => sleep_until(until).await,
            Kind::Moved(moved) => {
                let _sleeper = moved.sleeper(until);
                let mut now = moved.now.subscribe();
                // The sender lives in `self`: waiting cannot fail.
                let _ = now.wait_for(|now| *now >= until).await;
            }
        }
    }

    /// Moves a moved clock forward; the machine's clock is not ours to move.
    pub fn advance_to(&self, to: Timestamp) {
        if let Kind::Moved(moved) = &self.0 {
            moved.now.send_if_modified(|now| {
                let is_later = to > *now;
                *now = to.max(*now);
                is_later
            });
        }
    }

    /// The next time somebody waits for on a moved clock.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        let Kind::Moved(moved) = &self.0 else { return None };
        let now = *moved.now.borrow();
        let sleepers = moved.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        sleepers.keys().find(|until| **until > now).copied()
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the clock that all others ask")]
fn system_now() -> Timestamp {
    Timestamp::now()
}

async fn sleep_until(until: Timestamp) {
    loop {
        let left = until.duration_since(system_now());
        let Ok(left) = Duration::try_from(left) else { return };
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(NAP)).await;
    }
}

// === impl Moved ===

impl Moved {
    fn sleeper(&self, until: Timestamp) -> Sleeper<'_> {
        *self.sleepers.lock().unwrap_or_else(PoisonError::into_inner).entry(until).or_default() += 1;
        Sleeper { moved: self, until }
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        let mut sleepers = self.moved.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sleepers.get_mut(&self.until) {
            *count -= 1;
            if *count == 0 {
                sleepers.remove(&self.until);
            }
        }
    }
}
