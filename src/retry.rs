//! From an outcome to a verdict: when to try again, when to give up, when to let a destination rest.
//!
//! Pure: the clock reading and the dice are the caller's, so a whole retry history is one table in a test.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::attempt::{Attempts, Failure, Outcome, Verdict};

/// How patient a destination is with its events.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The longest wait before the second try; it doubles with every further one.
    pub first: Duration,
    /// No wait is longer than this, not even one that the destination asks for.
    pub delay_max: Duration,
    /// An event this long in trying is given up on.
    pub give_up_after: Duration,
    /// So many tries, and no more; unlimited by default.
    pub attempts_max: Option<u32>,
    /// So many failed requests in a row, and the destination rests.
    pub failures_max: u32,
}

/// How a destination is doing, as far as its last replies tell: the breaker and the pause in one place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    failures_in_a_row: u32,
    rest: Option<Rest>,
}

/// A destination is left alone until a time; then one request decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Rest {
    /// When the probe may go.
    pub until: Timestamp,
    /// Why it rests.
    pub why: RestReason,
}

/// Why a destination rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestReason {
    /// It answered 401 or 403: our credentials are wrong.
    Paused,
    /// Too many failures in a row.
    Failing,
}

/// How long a paused destination rests between probes: long enough not to be locked out, short enough to resume soon
/// after the credentials were mended.
const PAUSE: SignedDuration = SignedDuration::from_secs(60);

/// Turns an outcome into a verdict.
///
/// `attempts` counts this try. `jitter` is a draw from `0.0..1.0`: the wait is a share of the backoff ("full jitter",
/// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>, read 2026-11-22). A `Retry-After` is
/// honoured up to `policy.delay_max`. An event that is held back for its table is given up on by age alone. An event of a paused destination is never given up on: the fault is ours.
#[must_use]
pub fn decide(outcome: &Outcome, attempts: &Attempts, policy: &RetryPolicy, now: Timestamp, jitter: f64) -> Verdict {
    let failure = match outcome {
        Outcome::Delivered => return Verdict::Delivered,
        Outcome::Dropped => return Verdict::Dropped,
        Outcome::Refused(failure) | Outcome::Split(failure) => return Verdict::Dead(failure.clone()),
        Outcome::Unauthorized(failure) => return Verdict::RetryAt(now + PAUSE, failure.clone()),
        Outcome::Failed(failure) | Outcome::Held(failure) => failure,
    };
    let is_counted = matches!(outcome, Outcome::Failed(_));
    if policy.is_exhausted(is_counted.then_some(attempts.count), attempts, now) {
        return Verdict::Dead(failure.clone());
    }
    Verdict::RetryAt(now + policy.delay(attempts.count, failure.retry_after, jitter), failure.clone())
}

// === impl RetryPolicy ===

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            delay_max: Duration::from_mins(10),
            give_up_after: Duration::from_hours(24),
            attempts_max: None,
            failures_max: 10,
        }
    }
}

impl RetryPolicy {
    fn is_exhausted(&self, tries: Option<u32>, attempts: &Attempts, now: Timestamp) -> bool {
        let tried_for = attempts.first_at.map_or(SignedDuration::ZERO, |first_at| now.duration_since(first_at));
        self.attempts_max.is_some_and(|max| tries.is_some_and(|tries| tries >= max))
            || tried_for >= signed(self.give_up_after)
    }

    fn delay(&self, count: u32, retry_after: Option<SignedDuration>, jitter: f64) -> SignedDuration {
        let drawn = signed(self.backoff(count).mul_f64(jitter.clamp(0.0, 1.0)));
        retry_after.unwrap_or(SignedDuration::ZERO).max(drawn).min(signed(self.delay_max))
    }

    /// The longest wait after so many tries: `first`, doubled each time, up to `delay_max`.
    fn backoff(&self, count: u32) -> Duration {
        let doublings = count.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.delay_max)
    }
}

// === impl Health ===

impl Health {
    /// What a request's outcomes, one per item, say of the destination: that it does not know us, that it failed on all of
    /// them, or that it is well.
    #[must_use]
    pub fn overall(outcomes: &[Outcome]) -> &Outcome {
        let unauthorized = outcomes.iter().find(|outcome| matches!(outcome, Outcome::Unauthorized(_)));
        let is_all_failed = outcomes.iter().all(|outcome| matches!(outcome, Outcome::Failed(_) | Outcome::Held(_)));
        match (unauthorized, outcomes.first()) {
            (Some(outcome), _) => outcome,
            (None, Some(outcome)) if is_all_failed => outcome,
            (None, _) => &Outcome::Delivered,
        }
    }

    /// Takes note of how a request went. Answers whether the destination began or ended a rest.
    pub fn note(&mut self, outcome: &Outcome, policy: &RetryPolicy, now: Timestamp, jitter: f64) -> bool {
        let was_resting = self.rest.is_some();
        match outcome {
            Outcome::Unauthorized(_) => self.rest = Some(Rest { until: now + PAUSE, why: RestReason::Paused }),
            Outcome::Failed(failure) | Outcome::Held(failure) => self.note_failure(failure, policy, now, jitter),
            Outcome::Delivered | Outcome::Dropped | Outcome::Split(_) | Outcome::Refused(_) => *self = Self::default(),
        }
        was_resting != self.rest.is_some()
    }

    fn note_failure(&mut self, failure: &Failure, policy: &RetryPolicy, now: Timestamp, jitter: f64) {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        if self.failures_in_a_row >= policy.failures_max {
            let beyond = self.failures_in_a_row - policy.failures_max + 1;
            // A rest is never cut below half its length: a probe at once would be no rest.
            let delay = policy.delay(beyond.saturating_add(3), failure.retry_after, 0.5 + jitter / 2.0);
            self.rest = Some(Rest { until: now + delay, why: RestReason::Failing });
        }
    }

    /// The rest in force, over or not: until it is lifted by a success, only one request at a time may go.
    #[must_use]
    pub fn rest(&self) -> Option<&Rest> {
        self.rest.as_ref()
    }

    /// Forgets everything: new rules may mean new credentials.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

// === impl RestReason ===

impl RestReason {
    /// The word for logs and `/ready`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused: it refuses our credentials",
            Self::Failing => "failing: too many failures in a row",
        }
    }
}
