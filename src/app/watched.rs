//! What those who watch the house may see: `/ready` and the numbers of `/metrics`. Neither holds a secret.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::attempt::DestinationName;
use crate::clock::Clock;
use crate::deliver::{Fleet, Status};
use crate::ingest::Counts;
use crate::plan::Destination;
use crate::queue::{Ack, Queue, Report};
use crate::reload::Reload;
use crate::telemetry::metrics::{DestinationSnapshot, Snapshot};
use crate::telemetry::process;

/// What those who watch the house may see.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) reload: Arc<Reload>,
    pub(super) queue: Arc<dyn Queue>,
    pub(super) fleet: Arc<Fleet>,
    /// What a `200` means.
    pub(super) ack: Ack,
    pub(super) clock: Clock,
    pub(super) started_at: Timestamp,
}

// === impl Watched ===

impl Watched {
    pub(super) fn snapshot(&self, door: Counts) -> Snapshot {
        let (queue, loaded, statuses) = (self.queue.report(), self.reload.current(), self.fleet.statuses());
        let destination = |(name, detached_at): &(DestinationName, Option<Timestamp>)| {
            let status = statuses.get(name).cloned().unwrap_or_default();
            let is_detached = detached_at.is_some();
            Some(DestinationSnapshot { name: name.clone(), books: self.fleet.books(name)?, status, is_detached })
        };
        Snapshot {
            at: self.clock.now(),
            started_at: self.started_at,
            usage: process::usage(),
            door,
            destinations: queue.places.iter().filter_map(destination).collect(),
            queue,
            is_config_broken: self.reload.broken().is_some(),
            config_loaded_at: loaded.at,
        }
    }

    /// What `/ready` shows.
    ///
    /// A queue that takes nothing does not make it unready. It is said here and in the metrics, and senders hear it as a
    /// `503` with `Retry-After`, which they honour. An orchestrator that took the process out of rotation would turn that
    /// into a refused connection, for browsers one without CORS; would do so to all replicas at once, since what fills
    /// one queue is a destination they share; and would keep away the very events whose taking shows that there is room
    /// again. What remains is the shutdown, which the door itself puts in.
    pub(super) fn readiness(&self) -> Value {
        let (report, loaded, statuses) = (self.queue.report(), self.reload.current(), self.fleet.statuses());
        let config = match self.reload.broken() {
            Some(broken) => json!({ "state": "broken", "errors": broken.errors, "since": broken.at.to_string() }),
            None => json!({ "state": "ok" }),
        };
        let destinations = loaded.plan.destinations.iter();
        let destinations: serde_json::Map<String, Value> =
            destinations.map(|d| (d.name.to_string(), self.destination(d, statuses.get(&d.name)))).collect();
        json!({
            "ready": true,
            "ack": self.ack.as_str(),
            "queue": queue(&report),
            "plan": { "fingerprint": fingerprint(loaded.plan.fingerprint), "loaded_at": loaded.at.to_string() },
            "config": config,
            "destinations": destinations,
        })
    }

    fn destination(&self, destination: &Destination, status: Option<&Status>) -> Value {
        let books = self.fleet.books(&destination.name).unwrap_or_default();
        let rest = status.and_then(|status| status.rest.as_ref());
        json!({
            "state": rest.map_or("ok", |rest| rest.why.as_str()),
            "rests_until": rest.map(|rest| rest.until.to_string()),
            "fingerprint": fingerprint(destination.fingerprint),
            "accepted": books.accepted,
            "delivered": books.delivered,
            "filtered": books.filtered,
            "dropped": books.dropped,
            "damaged": books.damaged,
            "dead": books.dead,
            "waiting": books.waiting(),
            "letters": books.letters,
            "lag_seconds": books.lag(self.clock.now()).as_secs(),
        })
    }
}

fn queue(report: &Report) -> Value {
    json!({
        "kind": report.kind,
        "size_bytes": report.size_bytes,
        "size_bytes_max": report.size_bytes_max,
        // Why is for the log: it may name files.
        "failing": report.failing.is_some(),
    })
}

fn fingerprint(fingerprint: u64) -> String {
    format!("{fingerprint:016x}")
}
