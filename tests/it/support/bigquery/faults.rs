//! What goes wrong, by a list or by dice.

use std::collections::VecDeque;
use std::time::Duration;

use super::is_method;
use super::replies::Reply;

/// One way to go wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// A page of Google's front end: `413`, `502`, `503`.
    Html(u16),
    /// `403 rateLimitExceeded`.
    RateLimited,
    /// The same with `429`.
    TooManyRequests,
    /// `403 quotaExceeded`.
    QuotaExceeded,
    /// `403 accessDenied`: the account lacks a role.
    AccessDenied,
    /// `500 backendError`.
    BackendError,
    /// `503 backendError`, as JSON.
    Unavailable,
    /// As usual, but so much later.
    Slow(Duration),
    /// The connection is cut before anything was done.
    ResetBefore,
    /// The connection is cut after everything was done.
    ResetAfter,
    /// About such a share of the rows, good as they are, is not stored for this reason: `backendError`, `timeout`,
    /// `stopped`, `internalError`.
    Rows(f64, &'static str),
    /// All goes well, which fills a place in a list.
    None,
}

/// What is planned.
pub(super) struct Faults {
    scripts: Vec<(String, VecDeque<Fault>)>,
    often: Vec<Often>,
    pub(super) dice: fastrand::Rng,
}

struct Often {
    method: String,
    share: f64,
    faults: Vec<Fault>,
}

impl Fault {
    /// All that a call of `insertAll` should survive.
    pub(crate) fn passing() -> Vec<Self> {
        vec![
            Self::Html(502),
            Self::Html(503),
            Self::RateLimited,
            Self::TooManyRequests,
            Self::QuotaExceeded,
            Self::BackendError,
            Self::Unavailable,
            Self::Slow(Duration::from_millis(20)),
            Self::ResetBefore,
            Self::ResetAfter,
            Self::Rows(0.1, "backendError"),
            Self::Rows(0.1, "stopped"),
            Self::Rows(0.1, "timeout"),
        ]
    }

    /// What is answered instead of doing the work.
    pub(super) fn reply(&self) -> Option<Reply> {
        let error = |status, reason, message| Some(Reply::error(status, reason, message));
        match self {
            Self::Html(status) => Some(Reply::html(*status)),
            Self::RateLimited => error(403, "rateLimitExceeded", RATE_LIMITED),
            Self::TooManyRequests => error(429, "rateLimitExceeded", RATE_LIMITED),
            Self::QuotaExceeded => error(403, "quotaExceeded", QUOTA_EXCEEDED),
            Self::AccessDenied => error(403, "accessDenied", ACCESS_DENIED),
            Self::BackendError => {
                error(500, "backendError", "Error encountered during execution. Retrying may solve the problem.")
            }
            Self::Unavailable => error(
                503,
                "backendError",
                "Visibility check was unavailable. Please retry the request and contact support if the problem persists",
            ),
            Self::Slow(_) | Self::ResetBefore | Self::ResetAfter | Self::Rows(..) | Self::None => None,
        }
    }
}

const RATE_LIMITED: &str = "Exceeded rate limits: Your project exceeded quota for streaming insert requests. For more information, see https://cloud.google.com/bigquery/troubleshooting-errors";
const QUOTA_EXCEEDED: &str = "Quota exceeded: Your project exceeded quota for tabledata.insertAll bytes per second per project. For more information, see https://cloud.google.com/bigquery/troubleshooting-errors";
const ACCESS_DENIED: &str =
    "Access Denied: Permission bigquery.tables.updateData denied on table (or it may not exist).";

impl Default for Faults {
    /// Nothing, and dice that fall the same way every time.
    fn default() -> Self {
        Self { scripts: Vec::new(), often: Vec::new(), dice: fastrand::Rng::with_seed(0) }
    }
}

impl Faults {
    pub(super) fn script(&mut self, method: &str, faults: impl IntoIterator<Item = Fault>) {
        self.scripts.push((method.to_owned(), faults.into_iter().collect()));
    }

    pub(super) fn often(&mut self, method: &str, share: f64, seed: u64, faults: &[Fault]) {
        assert!(!faults.is_empty(), "which faults?");
        self.dice = fastrand::Rng::with_seed(seed);
        self.often.push(Often { method: method.to_owned(), share, faults: faults.to_vec() });
    }

    /// What becomes of the next call of a method.
    pub(super) fn next(&mut self, method: &str) -> Fault {
        let mut scripts = self.scripts.iter_mut().filter(|(of, _)| is_method(method, of));
        if let Some(fault) = scripts.find_map(|(_, faults)| faults.pop_front()) {
            return fault;
        }
        let often = self.often.iter().find(|often| is_method(method, &often.method));
        let Some(often) = often.filter(|often| self.dice.f64() < often.share) else { return Fault::None };
        let throw = self.dice.usize(..often.faults.len());
        often.faults[throw].clone()
    }
}
