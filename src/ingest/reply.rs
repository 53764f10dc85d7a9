//! What we answer: the one place that knows status codes.
//!
//! SDKs are narrow about answers (`docs/wire-contract.md`, "Answers"): success is exactly `200` with a JSON object, a
//! refusal is exactly `400` with `code` and `message` as strings, and everything that should be tried again is a `503`,
//! or a `429` where the sender alone is too fast, with `Retry-After` in whole seconds. `401`, `403`, `413`, `415` and the rest of the `4xx` family make older SDKs send
//! the same thing again, so no ingest path uses them.

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use serde_json::Value;

use crate::ingest::body::Unread;
use crate::queue::{Ack, AppendError};
use crate::segment::{Discard, PIXEL_GIF, Rejection, reply};

/// An answer, by its meaning.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    /// The events are where this says.
    Accepted(Ack),
    /// Heard, and thrown away on purpose.
    Discarded,
    /// The picture an e-mail asked for, whatever became of the event.
    Picture,
    /// What an SDK or a person asked for.
    Json(Value),
    /// The browser SDK.
    Script(Bytes),
    /// The state of the house: whether it takes events, and everything else there is to say.
    Readiness {
        /// Whether it takes events.
        ready: bool,
        /// All of it.
        state: Value,
    },
    /// Numbers for a collector.
    Metrics(String),
    /// What this path takes.
    Options(&'static str),

    /// The request is no message of a known source.
    Rejected(Rejection),
    /// Strict mode: these messages would have been discarded; none was kept.
    Strict(Vec<Discard>),
    /// The body could not be had.
    Unread(Unread),
    /// A request that must name its host did not.
    NoHost,
    /// No source has the write key in the path.
    NoSuchSource,
    /// No file is configured or readable; says what to do.
    NoScript(&'static str),
    /// No such path.
    NotFound,
    /// Another method, of these.
    WrongMethod(&'static str),

    /// The source sends faster than it may; its next events are welcome in so many seconds.
    Limited {
        /// At least 1.
        seconds: u64,
    },
    /// The queue did not take the events.
    NotTaken(AppendError),
    /// Some destination does not have the events yet.
    Undelivered,
    /// The process is on its way out.
    Closing,
    /// A bug of ours.
    Panicked,
}

/// What a `200` means.
const ACK: HeaderName = HeaderName::from_static("x-libroseg-ack");
/// Seconds until it is worth coming back, under the name rate limits use.
const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What the text of `/metrics` is
/// (<https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md#overall-structure>, read
/// 2026-11-23). Prometheus reads it since 2.5.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

// Seconds. A full queue empties at the speed of its destinations; storage and another process are back sooner, and who failed just now needs a while. SDKs cap
// what they honour at 300.
const RETRY_FULL_SECONDS: u16 = 10;
const RETRY_UNAVAILABLE_SECONDS: u16 = 5;
const RETRY_UNDELIVERED_SECONDS: u16 = 5;
const RETRY_CROWDED_SECONDS: u16 = 2;
const RETRY_CLOSING_SECONDS: u16 = 1;

// === impl Reply ===

impl Reply {
    /// The answer on the wire, without what CORS adds.
    pub(super) fn into_response(self) -> Response<Body> {
        match self {
            Self::Accepted(ack) => {
                let mut response = success();
                response.headers_mut().insert(ACK, HeaderValue::from_static(ack.as_str()));
                response
            }
            Self::Discarded => success(),
            Self::Picture => picture(),
            Self::Json(value) => json(StatusCode::OK, value.to_string()),
            Self::Script(bytes) => script(bytes),
            Self::Readiness { ready, state } => readiness(ready, &state),
            Self::Metrics(text) => metrics(text),
            Self::Options(methods) => allowing(with_status(StatusCode::NO_CONTENT, Body::empty()), methods),

            Self::Rejected(rejection) => json(StatusCode::BAD_REQUEST, reply::rejection(&rejection)),
            Self::Strict(discards) => json(StatusCode::BAD_REQUEST, reply::strict_failure(&discards)),
            Self::Unread(unread) => Self::of_unread(&unread),
            Self::NoHost => refusal("invalid_request", "the request names no host"),
            Self::NoSuchSource => not_found("no source has this write key"),
            Self::NoScript(help) => not_found(help),
            Self::NotFound => not_found("there is nothing at this path"),
            Self::WrongMethod(methods) => {
                let message = format!("this path takes {methods}");
                allowing(error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message), methods)
            }

            Self::Limited { seconds } => {
                let message = format!("this source sends faster than it may: come back in {seconds} s");
                comes_back(error(StatusCode::TOO_MANY_REQUESTS, "rate_limited", &message), seconds)
            }
            Self::NotTaken(AppendError::Full { .. }) => {
                later("queue_full", "no room for more events now", RETRY_FULL_SECONDS)
            }
            // What the storage says is for the log: it may name files and hosts.
            Self::NotTaken(AppendError::Unavailable(_)) => {
                later("queue_unavailable", "events cannot be stored now", RETRY_UNAVAILABLE_SECONDS)
            }
            Self::Undelivered => later(
                "not_delivered",
                "not every destination has the events yet: send them again",
                RETRY_UNDELIVERED_SECONDS,
            ),
            Self::Closing => closing(later("shutting_down", "this process is shutting down", RETRY_CLOSING_SECONDS)),
            Self::Panicked => error(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "a bug in this server"),
        }
    }

    /// A body the sender may send again is a `503`, because `408` makes half of the SDKs throw the events away.
    fn of_unread(unread: &Unread) -> Response<Body> {
        let message = unread.to_string();
        match unread {
            Unread::TooLarge { .. } | Unread::Broken(_) | Unread::UnknownCoding | Unread::CutOff => {
                refusal("invalid_request", &message)
            }
            Unread::Slow => closing(later("body_timeout", &message, RETRY_CROWDED_SECONDS)),
            Unread::Crowded => later("too_many_requests", &message, RETRY_CROWDED_SECONDS),
        }
    }
}

fn with_status(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn success() -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from_static(reply::SUCCESS.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn json(status: StatusCode, text: String) -> Response<Body> {
    let mut response = with_status(status, Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    json(status, reply::failure(code, message))
}

fn refusal(code: &str, message: &str) -> Response<Body> {
    error(StatusCode::BAD_REQUEST, code, message)
}

fn not_found(message: &str) -> Response<Body> {
    error(StatusCode::NOT_FOUND, "not_found", message)
}

fn later(code: &str, message: &str, seconds: u16) -> Response<Body> {
    comes_back(error(StatusCode::SERVICE_UNAVAILABLE, code, message), seconds.into())
}

fn comes_back(mut response: Response<Body>, seconds: u64) -> Response<Body> {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response.headers_mut().insert(RATE_LIMIT_RESET, HeaderValue::from(seconds));
    response
}

fn allowing(mut response: Response<Body>, methods: &'static str) -> Response<Body> {
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn closing(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn picture() -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from_static(&PIXEL_GIF)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("image/gif"));
    // Every opening of a mail should ask again.
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

fn script(bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
    // A page view should not fetch 100 KB again; a new file should be out within minutes.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}

fn readiness(ready: bool, state: &Value) -> Response<Body> {
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = json(status, state.to_string());
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

fn metrics(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}
