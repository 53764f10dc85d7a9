//! The compiled configuration: which events a destination wants, what it is sent, what its replies mean.
//!
//! A plan is made by `config` and only read here. Its four verbs are pure: [`Destination::select`] and
//! [`Destination::render`] turn an event into items, [`pack::Packer`] turns items into batches within the service's
//! limits, [`Destination::judge`] turns a reply into outcomes. [`trace`] says what may be told of it all. Nothing here
//! sends, sleeps or remembers.

pub mod auth;
pub mod batch;
pub mod bigquery;
pub mod case;
pub mod compress;
pub mod error;
pub mod explain;
pub mod finding;
pub mod judge;
pub mod mapping;
mod multipart;
pub mod origin;
pub mod pack;
pub mod render;
pub mod sample;
pub mod select;
pub mod trace;
pub mod tracking;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::attempt::{DestinationName, Start};
use crate::event::{Kind, SourceName};
use crate::expr::filter::{Filter, Selection};
use crate::expr::template::Template;
use crate::expr::{Names, Omit};
use crate::retry::RetryPolicy;
use crate::segment::Policy;

pub use auth::Auth;
pub use batch::{Address, Batch, Item, Request};
pub use bigquery::BigQuery;
pub use compress::Compression;
pub use error::RuleError;
pub use finding::{Finding, Grade};
pub use judge::Reply;
pub use mapping::Mapping;
pub use origin::Origin;
pub use sample::Sample;
pub use tracking::TrackingPlan;

/// `libroseg.toml`, compiled.
#[derive(Default)]
pub struct Plan {
    /// Hash of the file's text and the values it read, to tell one configuration from the next.
    pub fingerprint: u64,
    /// How to listen; read once at start.
    pub server: Server,
    /// Who may send, and how much.
    pub policy: Arc<Policy>,
    /// Where accepted events wait; read once at start.
    pub queue: QueueSettings,
    /// The destinations in force, in file order.
    pub destinations: Vec<Arc<Destination>>,
    /// Those that are switched off.
    pub disabled: Vec<Disabled>,
}

/// A destination that is switched off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// Its name.
    pub name: DestinationName,
    /// Why, as a fragment for the start-up log.
    pub why: String,
    /// `when_disabled = "skip"`: events that come meanwhile are not for it. Otherwise they wait.
    pub skips: bool,
}

/// `[server]`: how to listen.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Address and port, e.g. `0.0.0.0:8080`.
    pub listen: String,
    /// Certificate and key, PEM files.
    pub tls: Option<Tls>,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Origins that browsers may send from; empty: any.
    pub cors_origins: Vec<String>,
    /// The longest a request's head may take to arrive.
    pub header_timeout: Duration,
    /// The longest a request's body may take to arrive.
    pub body_timeout: Duration,
    /// Connections at a time; more wait in the kernel's backlog.
    pub connections_max: usize,
    /// How long a shutdown may take.
    pub shutdown_timeout: Duration,
    /// The file that `/analytics.js/v1/KEY/analytics.min.js` serves.
    pub analytics_js: Option<PathBuf>,
    /// Where `/metrics` is served.
    pub metrics: Metrics,
    /// The socket that commands talk to; default: `control.sock` in the disk queue's folder.
    pub control: Option<PathBuf>,
}

/// Where `/metrics` is served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Metrics {
    /// Beside everything else.
    #[default]
    Here,
    /// At an address of its own, such as `127.0.0.1:9090`, and not beside everything else.
    At(String),
    /// Nowhere.
    Off,
}

/// Certificate and key, PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// An IP network such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its first address.
    pub address: IpAddr,
    /// How many leading bits count.
    pub prefix_bits: u8,
}

/// `[queue]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// Which queue.
    pub kind: QueueKind,
    /// When a sender hears `200`.
    pub ack: QueueAck,
    /// With [`QueueAck::Delivered`]: a sender that has waited so long hears `503`.
    pub ack_timeout: Duration,
    /// Bytes it may hold: of event text in memory, of files on disk. Beyond it the door answers `503`.
    pub size_bytes_max: u64,
    /// The disk queue's folder.
    pub dir: PathBuf,
    /// How long events are kept on disk, delivered or not.
    pub retain: Duration,
    /// A message id that comes again within this time is not stored again; zero: every event is.
    pub dedup_window: Duration,
    /// So many message ids are remembered at most.
    pub dedup_ids_max: usize,
    /// How long dead letters are kept on disk.
    pub letters_retain: Duration,
    /// Bytes of dead letters kept on disk; the oldest make room.
    pub letters_bytes_max: u64,
}

/// When a sender hears `200`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueAck {
    /// When the queue has the events.
    #[default]
    Queued,
    /// When every destination has them, has no use for them, or has refused them for good.
    Delivered,
}

/// Which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// On this machine's disk.
    Disk,
    /// In this process.
    Memory,
}

/// One destination with its rules.
pub struct Destination {
    /// Its name in the file.
    pub name: DestinationName,
    /// Hash of everything that shapes what it is sent: equal fingerprints behave alike.
    pub fingerprint: u64,
    /// How it is reached.
    pub kind: DestinationKind,
    /// Its names in an event's `integrations` object; none when it takes no notice of that.
    pub integrations: Vec<String>,
    /// The consent categories it belongs to: it is given only events whose user consents to all of them.
    pub consent: Vec<String>,
    /// The sources it takes events from; `None`: all.
    pub sources: Option<Vec<SourceName>>,
    /// The share of users it is given; `None`: all.
    pub sample: Option<Sample>,
    /// The tracking plans that make a dead letter of what they find wrong.
    pub plans: Vec<Arc<TrackingPlan>>,
    /// Conditions on every event, before any rule.
    pub when: Vec<Condition>,
    /// In file order; never empty.
    pub rules: Vec<Rule>,
    /// What proves who we are.
    pub auth: Auth,
    /// How the bodies of its requests are packed.
    pub body_compression: Compression,
    /// What its expressions see besides the event.
    pub names: Arc<Names>,
    /// What its replies mean, before the general table.
    pub responses: Vec<ResponseRule>,
    /// How patient it is.
    pub retry: RetryPolicy,
    /// How fast it may be called.
    pub limit: Limit,
    /// The longest one request may take.
    pub timeout: Duration,
    /// Events waiting for another try; at this bound its cursor stops.
    pub waiting_max: usize,
    /// `order_by`: events of one key (its text) go one after another, in the order of acceptance.
    pub order_by: Option<Template>,
    /// Where it begins when it is new.
    pub start: Start,
    /// The destination that gets what this one has not been given when a queue that forgets must end.
    pub overflow: Option<DestinationName>,
    /// The destinations whose events may be handed to this one.
    pub upstream: Vec<Upstream>,
}

/// A destination that hands over to another one what it could not be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its name.
    pub name: DestinationName,
    /// The sources it takes events from; `None`: all.
    pub sources: Option<Vec<SourceName>>,
}

/// How a destination is reached.
#[derive(Clone, Debug, PartialEq)]
pub enum DestinationKind {
    /// An HTTP API.
    Http,
    /// Google BigQuery.
    BigQuery(BigQuery),
    /// A file that grows.
    File(FileSettings),
    /// Standard output.
    Stdout,
}

/// `type = "file"`.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSettings {
    /// The path with strftime pieces, filled with the time of writing (UTC).
    pub path: String,
    /// A file that would grow beyond this is closed and numbered, and a new one begun.
    pub rotate_bytes: Option<u64>,
    /// How what is written at a time is packed.
    pub compression: Compression,
}

/// `limit`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Requests begun per second, on average; unlimited by default.
    pub per_second: Option<f64>,
    /// Requests at a time.
    pub concurrency: usize,
}

/// `on` + `when` + mapping.
pub struct Rule {
    /// Its place among the destination's rules, from 0.
    pub index: usize,
    /// Its place in the file, within the destination: `rules[0]`; `None` for a destination that is its own rule.
    pub place: Option<String>,
    /// Hash of its own text; part of an item's key.
    pub fingerprint: u64,
    /// Which events; empty: all.
    pub on: Vec<Trigger>,
    /// Conditions, all of which must hold.
    pub when: Vec<Condition>,
    /// One item per element instead of one per event.
    pub each: Option<Each>,
    /// No later rule is asked once this one matched.
    pub is_final: bool,
    /// What is sent.
    pub request: RequestTemplate,
    /// How items share requests; `None`: each has its own.
    pub batch: Option<Arc<BatchSettings>>,
}

/// One entry of `on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// The call; `None` is `*`.
    pub kind: Option<Kind>,
    /// A glob over the event's (page's, screen's) name.
    pub name: Option<Glob>,
}

/// A pattern in which `*` is any run of characters; everything else is itself.
///
/// ```
/// use libroseg::plan::Glob;
///
/// assert!(Glob::new("Order *").matches("Order Completed"));
/// assert!(!Glob::new("Order *").matches("Reorder Started"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    /// The pieces between the stars.
    pieces: Vec<String>,
}

/// One entry of `when`.
#[allow(clippy::large_enum_variant, reason = "made once a file: a box would be one more step for every event")]
pub enum Condition {
    /// A `JSONPath` filter.
    Filter(Filter),
    /// A minijinja expression taken as true or false.
    Expression(Template),
}

/// What `each` runs over.
#[allow(clippy::large_enum_variant, reason = "made once a file: a box would be one more step for every event")]
pub enum Each {
    /// The nodes of a `JSONPath`.
    Path(Selection),
    /// The elements of an expression's value.
    Expression(Template),
}

/// What a rule sends, destination and rule merged.
pub struct RequestTemplate {
    /// An uppercase token.
    pub method: String,
    /// Scheme, host and what follows; scheme and host are constant. `None` for destinations that are not HTTP.
    pub url: Option<Template>,
    /// Appended to the URL.
    pub path: Option<Template>,
    /// Names in lowercase; a missing value leaves the header out.
    pub headers: Vec<(String, Template)>,
    /// A missing value leaves the parameter out.
    pub query: Vec<(String, Template)>,
    /// The item; `None`: no body at all.
    pub body: Option<Mapping>,
    /// How a body becomes bytes.
    pub encoding: Encoding,
    /// What else is left out of the body.
    pub omit: Omit,
    /// What makes a row of the body, for BigQuery; its table is the address.
    pub insert: Option<bigquery::Insert>,
    /// The address, once it is known to be the same for every event. Begins empty.
    pub address: OnceLock<Arc<Address>>,
}

/// How a body becomes bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// `application/json`; several items without an envelope are an array.
    #[default]
    Json,
    /// `application/x-ndjson`: one line an item; an item that is a list is one line an element.
    Ndjson,
    /// `application/x-www-form-urlencoded`: the body must be an object; lists repeat their key.
    Form,
    /// `multipart/form-data` (RFC 7578): the body must be an object; lists repeat their field, objects are JSON or files.
    Multipart,
    /// `text/plain`: the body must be text; several items are lines.
    Text,
}

/// `batch`.
pub struct BatchSettings {
    /// Items in one request.
    pub events_max: usize,
    /// Bytes of one request's body.
    pub bytes_max: usize,
    /// How long the first item waits for company.
    pub age_max: Duration,
    /// Only items with equal keys share a request.
    pub by: Option<Template>,
    /// The envelope, with `items`; `None`: the items alone.
    pub body: Option<Mapping>,
}

/// One `[[response]]`.
pub struct ResponseRule {
    /// Conditions on `{ status, headers, body }`, all of which must hold.
    pub when: Vec<Condition>,
    /// Picks the parts of the reply that speak of one item each.
    pub each: Option<Selection>,
    /// Which item a part speaks of; default: its position.
    pub index: Option<Template>,
    /// `ok`, `retry`, `split`, `dead`, `drop` or `pause`.
    pub then: Template,
    /// The verdict on items that no part speaks of.
    pub rest: Then,
}

/// A word of `then` and `rest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Delivered.
    Ok,
    /// Try again.
    Retry,
    /// Send again in halves.
    Split,
    /// Dead letter.
    Dead,
    /// Count and forget.
    Drop,
    /// Rest: our credentials are wrong.
    Pause,
}

/// What a new plan changes, by destination.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New names.
    pub added: Vec<DestinationName>,
    /// Names that are gone (or switched off).
    pub removed: Vec<DestinationName>,
    /// Names whose rules or settings differ.
    pub changed: Vec<DestinationName>,
}

// === impl Plan ===

impl Plan {
    /// The destination of this name, if it is in force.
    #[must_use]
    pub fn destination(&self, name: &DestinationName) -> Option<&Arc<Destination>> {
        self.destinations.iter().find(|destination| destination.name == *name)
    }

    /// Whether any destination hands over what it could not be given.
    #[must_use]
    pub fn has_overflow(&self) -> bool {
        self.destinations.iter().any(|destination| destination.overflow.is_some())
    }

    /// What `next` changes.
    #[must_use]
    pub fn changes(&self, next: &Self) -> Changes {
        let missing_in = |plan: &Self, of: &Self| -> Vec<DestinationName> {
            of.destinations.iter().map(|d| d.name.clone()).filter(|name| plan.destination(name).is_none()).collect()
        };
        let is_changed = |now: &&Arc<Destination>| {
            self.destination(&now.name).is_some_and(|before| before.fingerprint != now.fingerprint)
        };
        Changes {
            added: missing_in(self, next),
            removed: missing_in(next, self),
            changed: next.destinations.iter().filter(is_changed).map(|now| now.name.clone()).collect(),
        }
    }
}

// === impl Destination ===

impl Destination {
    /// Whether it is reached over HTTP, and answers in its own words.
    #[must_use]
    pub fn is_http(&self) -> bool {
        matches!(self.kind, DestinationKind::Http | DestinationKind::BigQuery(_))
    }
}

// === impl Server, QueueSettings, Limit ===

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8080".to_owned(),
            tls: None,
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            connections_max: 10_000,
            shutdown_timeout: Duration::from_secs(20),
            analytics_js: None,
            metrics: Metrics::Here,
            control: None,
        }
    }
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            kind: QueueKind::Disk,
            ack: QueueAck::Queued,
            // Segment's SDK for Node hangs up after 10 s: it is to hear the answer
            // (<https://github.com/segmentio/analytics-next/blob/master/packages/node/src/app/settings.ts>,
            // `httpRequestTimeout`, read 2026-11-26).
            ack_timeout: Duration::from_secs(8),
            size_bytes_max: QueueKind::Disk.default_size_bytes_max(),
            dir: "data/queue".into(),
            retain: Duration::from_hours(7 * 24),
            // Segment's own window (<https://segment.com/docs/guides/duplicate-data/>, read 2026-11-22).
            dedup_window: Duration::from_hours(24),
            // Some 50 bytes of memory each.
            dedup_ids_max: 250_000,
            letters_retain: Duration::from_hours(30 * 24),
            letters_bytes_max: 1 << 30,
        }
    }
}

impl QueueKind {
    /// What it may hold when nobody says.
    #[must_use]
    pub const fn default_size_bytes_max(self) -> u64 {
        match self {
            Self::Disk => 10_000_000_000,
            // A tenth of a small container's memory: some 200,000 events of 670 bytes.
            Self::Memory => 128 << 20,
        }
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self { per_second: None, concurrency: 4 }
    }
}

// === impl Network ===

impl Network {
    /// Whether the address lies in it. An IPv4 address mapped into IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip.to_canonical() {
            IpAddr::V4(v4) => (32, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (128, v6.to_bits()),
        };
        let ((width, ours), (other_width, theirs)) = (bits(self.address), bits(address));
        let ignored = u32::from(self.prefix_bits).min(width).abs_diff(width);
        width == other_width && ours.checked_shr(ignored).unwrap_or(0) == theirs.checked_shr(ignored).unwrap_or(0)
    }
}

// === impl Glob ===

impl Glob {
    /// Takes the pattern apart at its stars.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self { pieces: pattern.split('*').map(str::to_owned).collect() }
    }

    /// Whether the whole text fits the pattern.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (Some(first), Some(last)) = (self.pieces.first(), self.pieces.last()) else { return false };
        if self.pieces.len() == 1 {
            return text == first;
        }
        let Some(mut rest) = text.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str())) else {
            return false;
        };
        self.pieces[1..self.pieces.len() - 1].iter().all(|piece| match rest.find(piece.as_str()) {
            Some(at) => {
                rest = &rest[at + piece.len()..];
                true
            }
            None => false,
        })
    }
}

// === impl Then ===

impl Then {
    /// All words.
    pub const ALL: [(&'static str, Self); 6] = [
        ("ok", Self::Ok),
        ("retry", Self::Retry),
        ("split", Self::Split),
        ("dead", Self::Dead),
        ("drop", Self::Drop),
        ("pause", Self::Pause),
    ];

    /// The word's meaning.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| *name == word).map(|(_, then)| *then)
    }
}
