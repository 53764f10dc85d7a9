//! The door: who may come in, how much at a time, and what they hear.
//!
//! It finds the source by its write key, bounds and decodes the body, has `segment` read it, hands the events to whoever
//! takes them in, and only then says `200`. It never looks at where events go, and never logs a key, a body or an
//! `Authorization` header.

mod body;
mod caller;
mod cors;
mod counters;
mod intake;
mod keys;
mod patience;
mod probe;
mod rates;
mod reply;
mod route;
mod script;
mod serve;
mod tls;

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::{Body, HttpBody};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, Response, Version};
use bytes::Bytes;
use futures_util::FutureExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::Clock;
use crate::event::{Kind, MessageId};
use crate::segment::{self, Arrival, Call, DiscardCode, Envelope, Policy, Reading, Rejection, Source, UnknownKey};

pub use body::Bodies;
pub use caller::{Peer, Trusted};
pub use counters::{Counters, Counts};
pub use intake::{Deferrer, Intake, NotTaken, Queued};
pub use probe::{Probe, ProbeError};
pub use script::Script;
pub use serve::{ServeOptions, serve};
pub use tls::{Tls, TlsError};

use body::{Bounds, Share, Unread};
use rates::Rates;
use reply::Reply;
use route::Route;

/// The house's door; one per process.
pub struct Door {
    handed: Handed,
    settings: Settings,
    counters: Counters,
    bodies: Bodies,
    rates: Rates,
    /// Whether the queue refused the last events it was given: the change is worth a log line, each refusal is not.
    is_refusing: AtomicBool,
}

/// What the door is handed at the threshold.
pub struct Handed {
    /// Who takes events in.
    pub intake: Arc<dyn Intake>,
    /// Who may send, and how much; swapped by a reload.
    pub policy: Arc<ArcSwap<Policy>>,
    /// The time.
    pub clock: Clock,
    /// What `/ready` shows.
    pub readiness: Readiness,
    /// What `/metrics` shows.
    pub metrics: Scrape,
    /// Once cancelled, requests hear `503` and their connections close.
    pub closing: CancellationToken,
}

/// What `/ready` shows: an object whose `ready` decides between `200` and `503`. It is public, so it holds no secret.
pub type Readiness = Arc<dyn Fn() -> Value + Send + Sync>;

/// What `/metrics` shows: `OpenMetrics` text, with what the door counted in it. It is public, so it holds no secret.
pub type Scrape = Arc<dyn Fn(Counts) -> String + Send + Sync>;

/// What can be set about the door itself.
pub struct Settings {
    /// The longest a body may take to arrive.
    pub body_timeout: Duration,
    /// Bytes of all bodies that are being read or waiting for the queue; more is answered `503`.
    pub bodies_bytes_max: usize,
    /// Origins that browsers may send from, exact or as `https://*.example.com`; empty: any.
    pub cors_origins: Vec<String>,
    /// Whose `X-Forwarded-*` headers are believed.
    pub trusted: Box<Trusted>,
    /// The browser SDK, if it is served here.
    pub script: Option<Script>,
    /// Whether [`Entrance::front`] answers `/metrics`; [`Entrance::watch`] always does.
    pub shows_metrics: bool,
}

/// What a listener serves: the door, by all paths or by those for whoever watches us.
#[derive(Clone)]
pub struct Entrance {
    door: Arc<Door>,
    side: Side,
}

/// Which listener a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The one for everybody.
    Front,
    /// The one for those who watch us.
    Watch,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_timeout: Duration::from_secs(30),
            // Some 500 of the largest batches at a time.
            bodies_bytes_max: 256 << 20,
            cors_origins: Vec::new(),
            trusted: Box::new(|_| false),
            script: None,
            shows_metrics: true,
        }
    }
}

// === impl Entrance ===

impl Entrance {
    /// Every path, at one door.
    ///
    /// The paths are told apart by a table of our own, because axum's would see `//v1/batch` and `/v1/import/` as strangers;
    /// and a router around that table would cost more than the table.
    #[must_use]
    pub fn front(door: Arc<Door>) -> Self {
        Self { door, side: Side::Front }
    }

    /// `/metrics`, `/health` and `/ready` alone, for a listener that senders do not reach.
    #[must_use]
    pub fn watch(door: Arc<Door>) -> Self {
        Self { door, side: Side::Watch }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let received_at = self.door.handed.clock.now();
        let (head, body) = request.into_parts();
        let answer = AssertUnwindSafe(self.door.answer(self.side, &head, body, received_at)).catch_unwind().await;
        let reply = answer.unwrap_or_else(|_| {
            // The panic's own message went to the panic hook; the path may hold a write key.
            tracing::error!(route = ?Route::of(head.uri.path()).map(Route::methods), "answering a request panicked");
            Reply::Panicked
        });
        self.door.finish(&head, reply)
    }
}

/// Answers one request for a host that reads and writes the connections itself: the answer is whole.
pub async fn answer<B>(door: Arc<Door>, request: Request<B>) -> Response<Bytes>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let response = Entrance::front(door).answer(request.map(Body::new)).await;
    let (head, body) = response.into_parts();
    // Our answers are in memory: there is nothing that could break off.
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    Response::from_parts(head, body)
}

// === impl Door ===

impl Door {
    /// A door that takes what `handed.policy` allows into `handed.queue`.
    #[must_use]
    pub fn new(handed: Handed, settings: Settings) -> Self {
        Self {
            handed,
            settings,
            counters: Counters::default(),
            bodies: Bodies::default(),
            rates: Rates::default(),
            is_refusing: AtomicBool::new(false),
        }
    }

    /// What it counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What it holds of bodies.
    #[must_use]
    pub fn bodies(&self) -> &Bodies {
        &self.bodies
    }

    async fn answer(&self, side: Side, head: &Parts, body: Body, received_at: Timestamp) -> Reply {
        let route = Route::of(head.uri.path()).filter(|route| self.is_at(*route, side));
        let Some(route) = route else { return Reply::NotFound };
        if head.method == Method::OPTIONS {
            return Reply::Options(route.methods());
        }
        if !route.takes(&head.method) {
            return Reply::WrongMethod(route.methods());
        }
        if self.handed.closing.is_cancelled() && !route.is_for_watchers() {
            return Reply::Closing;
        }
        match route {
            Route::Ingest(call) => self.ingest(call, head, body, received_at).await,
            Route::Pixel(kind) => self.pixel(kind, head, received_at).await,
            Route::SdkMetrics => self.sdk_metrics(head, body).await,
            Route::Settings { key } => self.sdk_settings(key, head),
            Route::Script => self.script().await,
            Route::ScriptBundle { name } => self.script_bundle(name).await,
            Route::Health => Reply::Json(json!({"status": "ok"})),
            Route::Ready => self.readiness(),
            Route::Metrics => Reply::Metrics((self.handed.metrics)(self.counters.snapshot())),
        }
    }

    /// Whether a listener has this path.
    fn is_at(&self, route: Route<'_>, side: Side) -> bool {
        match side {
            Side::Front => route != Route::Metrics || self.settings.shows_metrics,
            Side::Watch => route.is_for_watchers(),
        }
    }

    async fn ingest(&self, call: Call, head: &Parts, body: Body, received_at: Timestamp) -> Reply {
        let policy = self.handed.policy.load_full();
        let (bytes, _share) = match self.body(call, head, body, &policy).await {
            Ok(body) => body,
            Err(unread) => return Reply::Unread(unread),
        };
        match self.read(&policy, call, &bytes, head, received_at) {
            Ok(reading) => self.keep(reading, policy.strict, head).await,
            Err(reply) => reply,
        }
    }

    async fn body(&self, call: Call, head: &Parts, body: Body, policy: &Policy) -> Result<(Bytes, Share<'_>), Unread> {
        let bounds = Bounds {
            bytes_max: policy.limits.body_bytes_max(call),
            timeout: self.settings.body_timeout,
            all_bytes_max: self.settings.bodies_bytes_max,
        };
        body::read(&head.headers, body, bounds, &self.bodies).await
    }

    /// Finds the source, then reads the messages. `Err` is an answer that needs no queue.
    fn read(
        &self,
        policy: &Policy,
        call: Call,
        bytes: &[u8],
        head: &Parts,
        received_at: Timestamp,
    ) -> Result<Reading, Reply> {
        let told = keys::in_authorization(&head.headers);
        let is_known = |key: &str| policy.sources.contains_key(key);
        if policy.unknown_key == UnknownKey::Reject && told.as_deref().is_some_and(|key| !is_known(key)) {
            // Parsing for a stranger would be work for nothing.
            return Err(self.unknown_key(policy, true));
        }
        let envelope = Envelope::parse(bytes, call, &policy.limits).map_err(Reply::Rejected)?;
        let key = told
            .map(Cow::Owned)
            .or_else(|| envelope.write_key().map(Cow::Borrowed))
            .or_else(|| keys::in_query(head.uri.query()))
            .or_else(|| keys::in_own_header(&head.headers).map(Cow::Borrowed));
        let Some(source) = key.as_deref().and_then(|key| policy.sources.get(key)) else {
            return Err(self.unknown_key(policy, key.is_some()));
        };
        if !source.enabled {
            (0..envelope.len()).for_each(|index| self.discard(DiscardCode::SourceDisabled, index, source));
            return Err(Reply::Discarded);
        }
        self.check_rate(source, envelope.len(), received_at)?;
        let reading = envelope.read(&Arrival {
            source: &source.name,
            received_at,
            ip: caller::address(caller::peer(head), &head.headers, &*self.settings.trusted),
            user_agent: head.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()),
            limits: &policy.limits,
            plans: policy.plans.as_deref(),
            new_id: &|| new_id(received_at),
        });
        for discard in &reading.discards {
            self.discard(discard.code, discard.index, source);
        }
        Ok(reading)
    }

    /// Counts the messages of a request against its source's limit: all of them, good or bad, or none.
    fn check_rate(&self, source: &Source, messages: usize, now: Timestamp) -> Result<(), Reply> {
        let Some(limit) = source.limit else { return Ok(()) };
        self.rates.take(&source.name, limit, messages, now).map_err(|seconds| {
            self.counters.limited(&source.name, messages);
            tracing::debug!(source.name = %source.name, messages, seconds, "a source sends faster than it may");
            Reply::Limited { seconds }
        })
    }

    /// Hands events on: all of a request or none.
    async fn keep(&self, reading: Reading, strict: bool, head: &Parts) -> Reply {
        let Reading { events, discards } = reading;
        if strict && !discards.is_empty() {
            return Reply::Strict(discards);
        }
        let count = events.len();
        if count > 0 {
            let deferrer = head.extensions.get().cloned().unwrap_or_default();
            if let Err(error) = self.handed.intake.take(events, deferrer).await {
                return self.not_taken(error);
            }
            self.taken(count);
        }
        Reply::Accepted(self.handed.intake.ack())
    }

    fn taken(&self, events: usize) {
        self.counters.accepted(events);
        if self.is_refusing.load(Ordering::Relaxed) && self.is_refusing.swap(false, Ordering::Relaxed) {
            tracing::info!("the queue takes events again");
        }
    }

    fn not_taken(&self, error: NotTaken) -> Reply {
        let is_news = !self.is_refusing.swap(true, Ordering::Relaxed);
        match error {
            NotTaken::Queue(error) => {
                if is_news {
                    tracing::warn!(%error, "the queue takes no events: senders hear 503 until it does");
                }
                Reply::NotTaken(error)
            }
            NotTaken::Undelivered => {
                if is_news {
                    tracing::warn!("events cannot be delivered in time: senders hear 503 until they can");
                }
                Reply::Undelivered
            }
        }
    }

    fn discard(&self, code: DiscardCode, index: usize, source: &Source) {
        self.counters.discard(code, 1);
        tracing::debug!(code = code.as_str(), index, source.name = %source.name, "message discarded");
    }

    fn unknown_key(&self, policy: &Policy, is_told: bool) -> Reply {
        self.counters.unknown_key();
        match (policy.unknown_key, is_told) {
            (UnknownKey::Accept, _) => Reply::Discarded,
            (UnknownKey::Reject, true) => Reply::Rejected(Rejection::UnknownWriteKey),
            (UnknownKey::Reject, false) => Reply::Rejected(Rejection::NoWriteKey),
        }
    }

    /// The picture comes whatever happens: a mail with a hole in it helps nobody.
    async fn pixel(&self, kind: Kind, head: &Parts, received_at: Timestamp) -> Reply {
        let message = head.uri.query().and_then(|query| segment::pixel_message(query, kind));
        if let (Some(bytes), &Method::GET) = (message, &head.method) {
            let policy = self.handed.policy.load_full();
            if let Ok(reading) = self.read(&policy, Call::One(kind), &bytes, head, received_at) {
                self.keep(reading, policy.strict, head).await;
            }
        }
        Reply::Picture
    }

    /// Heard, so that the SDK is content, and thrown away.
    async fn sdk_metrics(&self, head: &Parts, body: Body) -> Reply {
        let policy = self.handed.policy.load_full();
        self.counters.sdk_metrics();
        match self.body(Call::Batch, head, body, &policy).await {
            Ok(_) => Reply::Discarded,
            Err(unread) => Reply::Unread(unread),
        }
    }

    fn sdk_settings(&self, key: &str, head: &Parts) -> Reply {
        if !self.handed.policy.load().sources.contains_key(key) {
            return Reply::NoSuchSource;
        }
        let Some(host) = caller::host(head, &*self.settings.trusted) else { return Reply::NoHost };
        let protocol = caller::protocol(head, &*self.settings.trusted);
        Reply::Json(segment::settings(key, host.as_str(), protocol.as_str()))
    }

    async fn script(&self) -> Reply {
        let Some(script) = &self.settings.script else {
            return Reply::NoScript("no browser SDK is served here: set server.analytics_js to the path of its file");
        };
        match script.content().await {
            Ok(content) => Reply::Script(content),
            Err(error) => {
                tracing::error!(%error, "the file of server.analytics_js cannot be read");
                Reply::NoScript("the file that server.analytics_js names cannot be read: the log says why")
            }
        }
    }

    async fn script_bundle(&self, name: &str) -> Reply {
        let Some(script) = &self.settings.script else {
            return Reply::NoScript("no browser SDK is served here: set server.analytics_js to the path of its file");
        };
        let missing = Reply::NoScript("there is no such file beside the one that server.analytics_js names");
        script.bundle(name).await.map_or(missing, Reply::Script)
    }

    fn readiness(&self) -> Reply {
        let mut state = (self.handed.readiness)();
        let is_closing = self.handed.closing.is_cancelled();
        let ready = !is_closing && state.get("ready").and_then(Value::as_bool).unwrap_or(false);
        if let Value::Object(state) = &mut state {
            state.insert("ready".to_owned(), ready.into());
            state.insert("closing".to_owned(), is_closing.into());
        }
        Reply::Readiness { ready, state }
    }

    /// What every answer has in common.
    fn finish(&self, head: &Parts, reply: Reply) -> Response<Body> {
        let mut response = reply.into_response();
        self.counters.answer(response.status());
        cors::decorate(&head.headers, &head.method, &self.settings.cors_origins, response.headers_mut());
        if head.version >= Version::HTTP_2 {
            // HTTP/2 closes connections in its own words.
            response.headers_mut().remove(CONNECTION);
        }
        if head.method == Method::HEAD { without_body(response) } else { response }
    }
}

/// The answer to `HEAD`: the same head, nothing after it.
fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}

/// An id for a message that has none: it sorts by time, which makes it kind to the tables it ends in.
fn new_id(now: Timestamp) -> MessageId {
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or_default();
    let id = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos));
    MessageId::from(id.to_string())
}
