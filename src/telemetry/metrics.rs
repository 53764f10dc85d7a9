//! Every metric there is, in one list, and the text of `/metrics`.
//!
//! A metric is read off a [`Snapshot`] at the moment of a scrape: there is no second set of counters that could tell
//! another story than `/ready`. Labels hold names from the file and words of ours, never a key, an address or anything
//! of an event. `docs/metrics.md` has the same list for people.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    CounterValueEncoder, DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, GaugeValueEncoder, MetricEncoder,
    NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::process::Usage;
use crate::attempt::DestinationName;
use crate::deliver::Status;
use crate::ingest::Counts;
use crate::queue::{Books, Histogram, Report};
use crate::retry::RestReason;

/// The house at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The moment.
    pub at: Timestamp,
    /// When the process began.
    pub started_at: Timestamp,
    /// What it uses of its machine, where that is known.
    pub usage: Option<Usage>,
    /// What the door counted.
    pub door: Counts,
    /// The queue.
    pub queue: Report,
    /// Every destination that has a place in the queue.
    pub destinations: Vec<DestinationSnapshot>,
    /// Whether the file, as it is now, is not in force.
    pub is_config_broken: bool,
    /// Since when the configuration in force is.
    pub config_loaded_at: Timestamp,
}

/// A destination at one moment.
#[derive(Clone, Debug)]
pub struct DestinationSnapshot {
    /// Its name.
    pub name: DestinationName,
    /// Its books.
    pub books: Books,
    /// What its worker tells of itself.
    pub status: Status,
    /// Whether it is no longer in the file, and only its place is kept.
    pub is_detached: bool,
}

/// One metric.
pub struct Metric {
    /// Its whole name, as queries use it.
    pub name: &'static str,
    /// What it means, as a sentence without its full stop.
    pub help: &'static str,
    reading: Reading,
}

/// How a metric is read off a snapshot.
#[derive(Clone, Copy)]
enum Reading {
    Counter(Numbers),
    Gauge(Numbers),
    /// A constant 1 whose label is the news.
    Info(&'static str, fn(&Snapshot) -> &'static str),
    Histogram(fn(&Snapshot) -> &Histogram),
}

/// Where numbers come from, and by which labels they are told apart.
#[derive(Clone, Copy)]
enum Numbers {
    /// One.
    Count(fn(&Snapshot) -> u64),
    /// One, if it is known.
    One(fn(&Snapshot) -> Option<Number>),
    /// One for each value of a label.
    By(&'static str, for<'s> fn(&'s Snapshot) -> Vec<(&'s str, Number)>),
    /// One of each destination's books.
    Books(fn(&Books) -> u64),
    /// One for each destination.
    Each(fn(&DestinationSnapshot, &Snapshot) -> Number),
    /// One for each destination and value of a label.
    EachBy(&'static str, fn(&DestinationSnapshot) -> Vec<(&'static str, Number)>),
}

/// A value.
#[derive(Clone, Copy, Debug)]
enum Number {
    Count(u64),
    Real(f64),
}

/// The samples of one metric on their way into the text.
struct Samples<'a> {
    encoder: MetricEncoder<'a>,
    is_counter: bool,
}

/// The label with a destination's name.
const DESTINATION: &str = "destination";

/// Every metric, in the order of the text.
pub const METRICS: &[Metric] = &[
    // --- the door
    counter(
        "libroseg_accepted_events_total",
        "Events that were answered 200, repetitions included",
        Numbers::Count(|s| s.door.accepted),
    ),
    counter(
        "libroseg_discarded_messages_total",
        "Messages that could not be used, by Segment's code",
        Numbers::By("code", discards),
    ),
    counter(
        "libroseg_rate_limited_messages_total",
        "Messages that were answered 429: their source sent faster than its limit",
        Numbers::By("source", limited),
    ),
    counter("libroseg_answers_total", "Answers, by the class of their status", Numbers::By("status", answers)),
    counter(
        "libroseg_unknown_write_keys_total",
        "Requests without a write key that a source has",
        Numbers::Count(|s| s.door.unknown_keys),
    ),
    counter(
        "libroseg_sdk_reports_total",
        "Requests in which an SDK told of itself; heard and thrown away",
        Numbers::Count(|s| s.door.sdk_metrics),
    ),
    // --- the queue
    info("libroseg_queue_info", "The kind of queue", "kind", |s| s.queue.kind),
    gauge(
        "libroseg_queue_size_bytes",
        "What its log takes up: event text in memory, or files on disk",
        Numbers::Count(|s| s.queue.size_bytes),
    ),
    gauge("libroseg_queue_size_max_bytes", "What it may take up", Numbers::Count(|s| s.queue.size_bytes_max)),
    gauge(
        "libroseg_queue_state_bytes",
        "What is kept beside the log: places, waiting events, dead letters; 0 in memory",
        Numbers::Count(|s| s.queue.state_bytes),
    ),
    gauge(
        "libroseg_queue_events",
        "Events in the log, delivered ones that are still kept included",
        Numbers::Count(|s| s.queue.end.0.saturating_sub(s.queue.first.0)),
    ),
    gauge(
        "libroseg_queue_oldest_event_age_seconds",
        "How long ago the oldest of them was accepted; 0 without one",
        Numbers::One(|s| Some(oldest_age(s))),
    ),
    gauge("libroseg_queue_segments", "Files of the log; 0 in memory", Numbers::Count(|s| s.queue.segments as u64)),
    gauge(
        "libroseg_queue_dedup_ids",
        "Message ids remembered to recognise repetitions",
        Numbers::Count(|s| s.queue.dedup_ids as u64),
    ),
    counter(
        "libroseg_queue_duplicate_events_total",
        "Events not stored because they had been before",
        Numbers::Count(|s| s.queue.duplicates),
    ),
    counter(
        "libroseg_queue_damaged_events_total",
        "Events found damaged in storage, and skipped",
        Numbers::Count(|s| s.queue.damaged),
    ),
    gauge(
        "libroseg_queue_failing",
        "1 while the queue takes no events or cannot write what became of them, else 0",
        Numbers::Count(|s| u64::from(s.queue.failing.is_some())),
    ),
    histogram("libroseg_queue_sync_seconds", "How long it took to make a group of events durable", |s| &s.queue.syncs),
    // --- destinations: the books
    counter(
        "libroseg_destination_accepted_events_total",
        "Events this destination was to look at, those put back for it included",
        Numbers::Books(|b| b.accepted),
    ),
    counter("libroseg_destination_delivered_events_total", "Events delivered whole", Numbers::Books(|b| b.delivered)),
    counter(
        "libroseg_destination_filtered_events_total",
        "Events that no rule wanted, or that came while it was switched off to skip them",
        Numbers::Books(|b| b.filtered),
    ),
    counter(
        "libroseg_destination_dropped_events_total",
        "Events that a response rule said to forget, or that were handed over to `overflow`",
        Numbers::Books(|b| b.dropped),
    ),
    counter(
        "libroseg_destination_damaged_events_total",
        "Events damaged in storage, and skipped",
        Numbers::Books(|b| b.damaged),
    ),
    counter("libroseg_destination_dead_events_total", "Events given up on", Numbers::Books(|b| b.dead)),
    gauge(
        "libroseg_destination_waiting_events",
        "Events neither done nor dead: never handed out (behind), with its worker (in_hand), waiting for another try (later)",
        Numbers::EachBy("state", waiting),
    ),
    // --- destinations: how they are
    gauge("libroseg_destination_lag_events", "Events that were never handed out", Numbers::Books(|b| b.behind)),
    gauge(
        "libroseg_destination_lag_seconds",
        "How long the oldest of them has waited at most; 0 without one",
        Numbers::Each(|d, s| d.books.lag(s.at).into()),
    ),
    gauge("libroseg_destination_dead_letters", "Dead letters that are kept", Numbers::Books(|b| b.letters)),
    gauge("libroseg_destination_dead_letters_bytes", "What they take up", Numbers::Books(|b| b.letters_bytes)),
    counter(
        "libroseg_destination_requests_total",
        "Requests that came back",
        Numbers::Each(|d, _| d.status.tally.requests.into()),
    ),
    counter(
        "libroseg_destination_request_seconds_total",
        "How long they took, together",
        Numbers::Each(|d, _| d.status.tally.request_time.into()),
    ),
    gauge(
        "libroseg_destination_requests_in_flight",
        "Requests that are out",
        Numbers::Each(|d, _| d.status.requests_in_flight.into()),
    ),
    counter(
        "libroseg_destination_attempts_total",
        "Tries of items, by what came back",
        Numbers::EachBy("outcome", attempts),
    ),
    gauge(
        "libroseg_destination_resting",
        "1 while nothing is sent: it refuses our credentials (paused), or failed too often in a row (failing); else 0",
        Numbers::EachBy("reason", rests),
    ),
    gauge(
        "libroseg_destination_detached",
        "1 when it is no longer in the file and only its place is kept, else 0",
        Numbers::Each(|d, _| u64::from(d.is_detached).into()),
    ),
    // --- the configuration and the process
    gauge(
        "libroseg_config_broken",
        "1 while the file has mistakes and the old configuration stays in force, else 0",
        Numbers::Count(|s| u64::from(s.is_config_broken)),
    ),
    gauge(
        "libroseg_config_loaded_timestamp_seconds",
        "When the configuration in force was put in force, in seconds since 1970",
        Numbers::One(|s| Some(s.config_loaded_at.into())),
    ),
    info("libroseg_build_info", "The version", "version", |_| env!("CARGO_PKG_VERSION")),
    gauge(
        "process_start_time_seconds",
        "When the process began, in seconds since 1970",
        Numbers::One(|s| Some(s.started_at.into())),
    ),
    counter(
        "process_cpu_seconds_total",
        "Processor time it used; only on Linux",
        Numbers::One(|s| Some(s.usage?.cpu_time.into())),
    ),
    gauge(
        "process_resident_memory_bytes",
        "Its memory that is in RAM; only on Linux",
        Numbers::One(|s| Some(s.usage?.memory_bytes.into())),
    ),
];

// === reading ===

const fn counter(name: &'static str, help: &'static str, numbers: Numbers) -> Metric {
    Metric { name, help, reading: Reading::Counter(numbers) }
}

const fn gauge(name: &'static str, help: &'static str, numbers: Numbers) -> Metric {
    Metric { name, help, reading: Reading::Gauge(numbers) }
}

const fn info(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    value: fn(&Snapshot) -> &'static str,
) -> Metric {
    Metric { name, help, reading: Reading::Info(label, value) }
}

const fn histogram(name: &'static str, help: &'static str, read: fn(&Snapshot) -> &Histogram) -> Metric {
    Metric { name, help, reading: Reading::Histogram(read) }
}

fn oldest_age(snapshot: &Snapshot) -> Number {
    let age = snapshot.queue.oldest_at.and_then(|at| Duration::try_from(snapshot.at.duration_since(at)).ok());
    age.unwrap_or_default().into()
}

fn discards(snapshot: &Snapshot) -> Vec<(&'static str, Number)> {
    snapshot.door.discards.iter().map(|(code, count)| (code.as_str(), (*count).into())).collect()
}

fn limited(snapshot: &Snapshot) -> Vec<(&str, Number)> {
    snapshot.door.limited.iter().map(|(source, count)| (source.as_str(), (*count).into())).collect()
}

fn answers(snapshot: &Snapshot) -> Vec<(&'static str, Number)> {
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    classes.into_iter().zip(snapshot.door.answers.map(Number::from)).collect()
}

fn waiting(destination: &DestinationSnapshot) -> Vec<(&'static str, Number)> {
    let Books { behind, in_hand, later, .. } = destination.books;
    vec![("behind", behind.into()), ("in_hand", in_hand.into()), ("later", later.into())]
}

fn attempts(destination: &DestinationSnapshot) -> Vec<(&'static str, Number)> {
    let tally = &destination.status.tally;
    vec![
        ("delivered", tally.delivered.into()),
        ("dropped", tally.dropped.into()),
        ("failed", tally.failed.into()),
        ("split", tally.split.into()),
        ("unauthorized", tally.unauthorized.into()),
        ("refused", tally.refused.into()),
    ]
}

fn rests(destination: &DestinationSnapshot) -> Vec<(&'static str, Number)> {
    let why = destination.status.rest.as_ref().map(|rest| rest.why);
    let is = |reason| u64::from(why == Some(reason)).into();
    vec![("failing", is(RestReason::Failing)), ("paused", is(RestReason::Paused))]
}

// === writing ===

/// The text of `/metrics`: `OpenMetrics` 1.0, which Prometheus reads.
#[must_use]
pub fn text(snapshot: Snapshot) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    // A `String` takes all that is written to it.
    let _ = encode(&mut text, &registry);
    text
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        METRICS.iter().try_for_each(|metric| metric.encode(self, &mut encoder))
    }
}

impl Metric {
    /// The names of its labels.
    #[must_use]
    pub fn labels(&self) -> Vec<&'static str> {
        match self.reading {
            Reading::Counter(numbers) | Reading::Gauge(numbers) => match numbers {
                Numbers::Count(_) | Numbers::One(_) => Vec::new(),
                Numbers::By(label, _) => vec![label],
                Numbers::Books(_) | Numbers::Each(_) => vec![DESTINATION],
                Numbers::EachBy(label, _) => vec![DESTINATION, label],
            },
            Reading::Info(label, _) => vec![label],
            Reading::Histogram(_) => Vec::new(),
        }
    }

    /// The word for its type.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.reading {
            Reading::Counter(_) => "counter",
            Reading::Gauge(_) => "gauge",
            Reading::Info(..) => "info",
            Reading::Histogram(_) => "histogram",
        }
    }

    fn encode(&self, snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (suffix, kind) = match self.reading {
            Reading::Counter(_) => ("_total", MetricType::Counter),
            Reading::Gauge(_) => ("", MetricType::Gauge),
            Reading::Info(..) => ("_info", MetricType::Info),
            Reading::Histogram(_) => ("", MetricType::Histogram),
        };
        // The format puts these endings after a sample's name, and leaves them out where the metric is described.
        let name = self.name.strip_suffix(suffix).unwrap_or(self.name);
        let mut encoder = encoder.encode_descriptor(name, self.help, None, kind)?;
        match self.reading {
            Reading::Counter(numbers) => Samples { encoder, is_counter: true }.put_all(numbers, snapshot),
            Reading::Gauge(numbers) => Samples { encoder, is_counter: false }.put_all(numbers, snapshot),
            Reading::Info(label, read) => encoder.encode_info(&[(label, read(snapshot))]),
            Reading::Histogram(read) => encode_histogram(read(snapshot), encoder),
        }
    }
}

fn encode_histogram(histogram: &Histogram, mut encoder: MetricEncoder<'_>) -> fmt::Result {
    let bounded: u64 = histogram.buckets.iter().map(|(_, count)| count).sum();
    let buckets = histogram.buckets.iter().map(|(bound, count)| (bound.as_secs_f64(), *count));
    let buckets: Vec<(f64, u64)> = buckets.chain([(f64::INFINITY, histogram.count.saturating_sub(bounded))]).collect();
    encoder.encode_histogram::<NoLabelSet>(histogram.sum.as_secs_f64(), histogram.count, &buckets, None)
}

// === impl Samples ===

impl Samples<'_> {
    fn put_all(&mut self, numbers: Numbers, snapshot: &Snapshot) -> fmt::Result {
        match numbers {
            Numbers::Count(read) => self.put(&[], read(snapshot).into()),
            Numbers::One(read) => read(snapshot).map_or(Ok(()), |number| self.put(&[], number)),
            Numbers::By(label, read) => {
                read(snapshot).into_iter().try_for_each(|(value, number)| self.put(&[(label, value)], number))
            }
            Numbers::Books(read) => snapshot.destinations.iter().try_for_each(|destination| {
                self.put(&[(DESTINATION, destination.name.as_str())], read(&destination.books).into())
            }),
            Numbers::Each(read) => snapshot.destinations.iter().try_for_each(|destination| {
                self.put(&[(DESTINATION, destination.name.as_str())], read(destination, snapshot))
            }),
            Numbers::EachBy(label, read) => snapshot.destinations.iter().try_for_each(|destination| {
                let name = (DESTINATION, destination.name.as_str());
                read(destination).into_iter().try_for_each(|(value, number)| self.put(&[name, (label, value)], number))
            }),
        }
    }

    fn put(&mut self, labels: &[(&'static str, &str)], number: Number) -> fmt::Result {
        if labels.is_empty() {
            return Self::put_in(&mut self.encoder, self.is_counter, number);
        }
        Self::put_in(&mut self.encoder.encode_family(&labels)?, self.is_counter, number)
    }

    fn put_in(encoder: &mut MetricEncoder<'_>, is_counter: bool, number: Number) -> fmt::Result {
        if is_counter {
            encoder.encode_counter::<NoLabelSet, _, u64>(&number, None)
        } else {
            encoder.encode_gauge(&number)
        }
    }
}

// === impl Number ===

impl From<u64> for Number {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for Number {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<Duration> for Number {
    fn from(duration: Duration) -> Self {
        Self::Real(duration.as_secs_f64())
    }
}

impl From<Timestamp> for Number {
    fn from(time: Timestamp) -> Self {
        Self::Real(time.as_duration().as_secs_f64())
    }
}

impl EncodeCounterValue for Number {
    fn encode(&self, encoder: &mut CounterValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => EncodeCounterValue::encode(count, encoder),
            Self::Real(real) => EncodeCounterValue::encode(real, encoder),
        }
    }
}

impl EncodeGaugeValue for Number {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => EncodeGaugeValue::encode(count, encoder),
            Self::Real(real) => EncodeGaugeValue::encode(real, encoder),
        }
    }
}
