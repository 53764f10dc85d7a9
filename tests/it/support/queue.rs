//! Events, deliveries and settlements for tests that talk to a queue.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use libroseg::attempt::{Attempts, DestinationName, Failure, Reason, Start, Verdict};
use libroseg::event::{Event, Kind};
use libroseg::queue::dedup::Dedup;
use libroseg::queue::disk::Options;
use libroseg::queue::{Attachment, Delivery, Mode, ReadLimit, Settlement};

pub(crate) const LIMIT: ReadLimit = ReadLimit { events_max: 100, bytes_max: 1 << 20, waiting_max: 1000 };

pub(crate) fn dedup() -> Dedup {
    Dedup::new(Duration::from_hours(24), 250_000)
}

pub(crate) fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_owned(),
        size_bytes_max: 1 << 30,
        retain: Duration::from_hours(7 * 24),
        dedup_window: Duration::from_hours(24),
        dedup_ids_max: 250_000,
        letters_retain: Duration::from_hours(30 * 24),
        letters_bytes_max: 1 << 30,
    }
}

pub(crate) fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

pub(crate) fn later(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

pub(crate) fn event(id: &str) -> Event {
    Event {
        source: "test".into(),
        kind: Kind::Track,
        message_id: id.into(),
        received_at: now(),
        json: format!(r#"{{"type":"track","messageId":"{id}"}}"#).into(),
    }
}

pub(crate) fn events(ids: &[&str]) -> Vec<Event> {
    ids.iter().map(|id| event(id)).collect()
}

pub(crate) fn active(destinations: &[&str]) -> Vec<Attachment> {
    let attachment = |name: &&str| Attachment { name: (*name).into(), start: Start::Newest, mode: Mode::Active };
    destinations.iter().map(attachment).collect()
}

pub(crate) fn name(destination: &str) -> DestinationName {
    destination.into()
}

pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| delivery.entry.event.message_id.to_string()).collect()
}

pub(crate) fn settled(delivery: &Delivery, verdict: Verdict) -> Settlement {
    Settlement { offset: delivery.entry.offset, verdict, attempts: Attempts { count: 1, ..Attempts::default() } }
}

pub(crate) fn failure() -> Failure {
    Failure::new(Reason::Timeout, "no reply")
}
