//! How fast each source may send: a bucket of tokens for each, one token an event.
//!
//! A request is let in whole or not at all. One that is larger than its source's bucket is let in when the bucket is full,
//! and leaves a debt: those that come after wait until it is paid, so the rate is kept all the same.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::event::SourceName;
use crate::segment::RateLimit;

/// The buckets of the sources that have a limit.
#[derive(Debug, Default)]
pub(super) struct Rates {
    buckets: Mutex<BTreeMap<SourceName, Bucket>>,
}

/// What a source may send at once.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Whose tokens these are: another limit is another bucket.
    limit: RateLimit,
    /// Events; below zero, a debt.
    tokens: f64,
    /// When it was last filled.
    filled_at: Timestamp,
}

// === impl Rates ===

impl Rates {
    /// Takes so many events' tokens, or none and tells in how many seconds it is worth coming back: at least 1.
    ///
    /// A bucket goes on through reloads for as long as its source has the same limit.
    pub(super) fn take(&self, source: &SourceName, limit: RateLimit, events: usize, now: Timestamp) -> Result<(), u64> {
        // A bucket is whole whatever panicked beside it.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(source.clone()).or_insert_with(|| Bucket::full(limit, now));
        if bucket.limit != limit {
            *bucket = Bucket::full(limit, now);
        }
        bucket.take(events, now)
    }
}

// === impl Bucket ===

impl Bucket {
    fn full(limit: RateLimit, now: Timestamp) -> Self {
        Self { limit, tokens: limit.burst, filled_at: now }
    }

    #[expect(clippy::cast_precision_loss, reason = "a request has fewer than 2^52 events")]
    fn take(&mut self, events: usize, now: Timestamp) -> Result<(), u64> {
        self.fill(now);
        let events = events as f64;
        let missing = events.min(self.limit.burst) - self.tokens;
        if missing > 0.0 {
            return Err(whole_seconds(missing / self.limit.per_second));
        }
        self.tokens -= events;
        Ok(())
    }

    /// Adds what has come in since. A clock that was set back adds nothing.
    fn fill(&mut self, now: Timestamp) {
        let seconds = now.duration_since(self.filled_at).as_secs_f64();
        if seconds > 0.0 {
            self.tokens = (self.tokens + seconds * self.limit.per_second).min(self.limit.burst);
            self.filled_at = now;
        }
    }
}

/// Rounded up; whoever came back a moment too early would wait for nothing.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast to an integer saturates")]
fn whole_seconds(seconds: f64) -> u64 {
    (seconds.ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::{Bucket, Rates};
    use crate::event::SourceName;
    use crate::segment::RateLimit;

    const LIMIT: RateLimit = RateLimit { per_second: 10.0, burst: 20.0 };

    fn at(seconds: f64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs_f64(seconds)
    }

    #[test]
    fn a_bucket_gives_what_it_holds_and_fills_up_as_time_goes_by() {
        let mut bucket = Bucket::full(LIMIT, at(0.0));
        assert_eq!(bucket.take(15, at(0.0)), Ok(()));
        assert_eq!(bucket.take(6, at(0.0)), Err(1), "five are left");
        assert_eq!(bucket.take(5, at(0.0)), Ok(()), "what was refused took nothing");
        assert_eq!(bucket.take(1, at(0.05)), Err(1));
        assert_eq!(bucket.take(1, at(0.1)), Ok(()));
        assert_eq!(bucket.take(20, at(100.0)), Ok(()), "it holds no more than its burst");
        assert_eq!(bucket.take(1, at(100.0)), Err(1));
        assert_eq!(bucket.take(20, at(100.5)), Err(2));
    }

    #[test]
    fn a_request_larger_than_the_bucket_is_let_in_when_it_is_full_and_leaves_a_debt() {
        let mut bucket = Bucket::full(LIMIT, at(0.0));
        assert_eq!(bucket.take(1, at(0.0)), Ok(()));
        assert_eq!(bucket.take(70, at(0.0)), Err(1));
        assert_eq!(bucket.take(70, at(1.0)), Ok(()));
        assert_eq!(bucket.take(1, at(1.0)), Err(6), "fifty are owed, and one is asked for");
        assert_eq!(bucket.take(1, at(6.1)), Ok(()));
    }

    #[test]
    fn a_clock_that_is_set_back_neither_gives_nor_takes() {
        let mut bucket = Bucket::full(LIMIT, at(100.0));
        assert_eq!(bucket.take(20, at(50.0)), Ok(()));
        assert_eq!(bucket.take(1, at(99.0)), Err(1));
        assert_eq!(bucket.take(1, at(100.1)), Ok(()));
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_however_long() {
        let slow = RateLimit { per_second: 1e-30, burst: 1.0 };
        let mut bucket = Bucket::full(slow, at(0.0));
        assert_eq!(bucket.take(1, at(0.0)), Ok(()));
        assert_eq!(bucket.take(1, at(0.0)), Err(u64::MAX));
    }

    #[test]
    fn another_limit_is_another_bucket() {
        let rates = Rates::default();
        let take = |name: &'static str, limit, events| rates.take(&SourceName::from(name), limit, events, at(0.0));
        assert_eq!(take("a", LIMIT, 20), Ok(()));
        assert_eq!(take("a", LIMIT, 1), Err(1));
        assert_eq!(take("b", LIMIT, 20), Ok(()), "each source has its own");
        assert_eq!(take("a", RateLimit { burst: 30.0, ..LIMIT }, 30), Ok(()));
    }
}
