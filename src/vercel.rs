//! The same house in a Vercel Function: its host hands us requests, and hears of what goes on after the answers.
//!
//! The process is started when there is a request, is suspended when no request is open, and ends without being asked.
//! So nothing here ticks, watches or waits for company: a request's events are delivered in its own time, which the host
//! gives us because we tell it of them (`wait_until`) before we answer.
//!
//! What the host says is in the documentation of its runtime (<https://vercel.com/docs/functions/runtimes/rust>, read
//! 2026-11-26) and in the source of `vercel_runtime` 2.4.1, whose own layer for axum keeps `wait_until` to itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::HOST;
use hyper::{HeaderMap, Request};
use tokio::time::Instant;
use tower::Service;
use vercel_runtime::{AppState, Error, Response, ResponseBody};

use crate::app::{App, StartError};
use crate::config::{Target, units};
use crate::ingest::{self, Deferrer, Door, Peer};
use crate::reload::Origin;

/// The variable that Vercel sets wherever it runs something.
pub const MARK: &str = "VERCEL";

/// The variable that says how long the function may run, its `maxDuration`: such as `60s`.
pub const MAX_DURATION: &str = "LIBROSEG_MAX_DURATION";

/// The configuration of this repository, built in: the function has no other file.
const BUILT_IN: &str = include_str!("../libroseg.toml");

/// What the built-in file is called in messages.
const BUILT_IN_NAME: &str = "libroseg.toml";

/// The least time that is left for telling what was lost …
const MARGIN_MIN: Duration = Duration::from_millis(500);

/// … and the most; in between it is a tenth.
const MARGIN_MAX: Duration = Duration::from_secs(10);

/// Why the function does not start.
#[derive(Debug, thiserror::Error)]
pub enum VercelError {
    /// The variable is no duration.
    #[error("{MAX_DURATION}: {0}")]
    MaxDuration(String),
    /// The house does not stand.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The host does not let us serve.
    #[error("cannot serve Vercel's requests: {0}")]
    Serve(Error),
}

/// Whether this process was started as a function: not by `VERCEL`, which is set in Vercel's builds and containers too.
#[must_use]
pub fn is_host(variables: &BTreeMap<String, String>) -> bool {
    variables.contains_key("VERCEL_IPC_PATH") || variables.get("VERCEL_DEV").is_some_and(|dev| dev == "1")
}

/// How long the function may run.
///
/// # Errors
/// When the variable is no duration.
pub fn duration_max(variables: &BTreeMap<String, String>) -> Result<Duration, VercelError> {
    let Some(text) = variables.get(MAX_DURATION).filter(|text| !text.is_empty()) else {
        return Ok(Target::VERCEL_DURATION);
    };
    units::duration(text).map_err(|wrong| VercelError::MaxDuration(wrong.message))
}

/// Where the configuration comes from: a file that is there or that was asked for, else what is built in.
#[must_use]
pub fn origin(path: PathBuf, is_asked_for: bool, duration_max: Duration) -> Origin {
    let target = Target::Vercel { duration_max };
    if is_asked_for || path.is_file() {
        return Origin { path, built_in: None, target };
    }
    Origin { path: BUILT_IN_NAME.into(), built_in: Some(BUILT_IN), target }
}

/// Serves until the host says that it is over; what was deferred has ended then.
///
/// # Errors
/// When the host's socket or port cannot be used.
pub async fn serve(app: Arc<App>, duration_max: Duration) -> Result<(), VercelError> {
    app.announce_plan();
    let margin = (duration_max / 10).clamp(MARGIN_MIN, MARGIN_MAX);
    let time = duration_max.saturating_sub(margin);
    vercel_runtime::run(Function { app, time }).await.map_err(VercelError::Serve)
}

/// Answers the host's requests.
#[derive(Clone)]
struct Function {
    app: Arc<App>,
    /// What a request's events have, from its arrival.
    time: Duration,
}

// === impl Function ===

impl Service<(AppState, vercel_runtime::Request)> for Function {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (state, request): (AppState, vercel_runtime::Request)) -> Self::Future {
        let answer = answer(Arc::clone(&self.app.door), state, Instant::now() + self.time, request);
        Box::pin(async move { Ok(answer.await) })
    }
}

/// Answers a request. What goes on after that, until its time is up, is the host's to wait for.
async fn answer<B>(door: Arc<Door>, state: AppState, until: Instant, request: Request<B>) -> Response<ResponseBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    let mut request = as_sent(request);
    request.extensions_mut().insert(Deferrer::new(until, move |work| state.wait_until(work)));
    ingest::answer(door, request).await.map(ResponseBody::from)
}

/// A request as its sender sent it: who that is, and by what name we are known, say Vercel's headers, and none of them
/// goes further. They hold tokens of the project, and nobody but Vercel can have written them: it takes away those that
/// a sender wrote (<https://vercel.com/docs/headers/request-headers>, read 2026-11-26).
fn as_sent<B>(mut request: Request<B>) -> Request<B> {
    let headers = request.headers_mut();
    let peer = Peer { address: address(headers), tls: text(headers, "x-forwarded-proto") != Some("http") };
    if let Some(host) = headers.get("x-forwarded-host").cloned() {
        headers.insert(HOST, host);
    }
    let platform: Vec<_> = headers.keys().filter(|name| is_platform(name.as_str())).cloned().collect();
    for name in platform {
        headers.remove(name);
    }
    request.extensions_mut().insert(peer);
    request
}

/// The sender's address; with an old development server, which says nothing, our own.
fn address(headers: &HeaderMap) -> IpAddr {
    let nearest = |list: &str| list.rsplit(',').next()?.trim().parse().ok();
    let told = text(headers, "x-real-ip").and_then(nearest);
    told.or_else(|| text(headers, "x-forwarded-for").and_then(nearest)).unwrap_or(Ipv4Addr::LOCALHOST.into())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_platform(name: &str) -> bool {
    ["x-vercel-", "x-forwarded-", "x-real-ip", "x-matched-path", "forwarded"].iter().any(|own| name.starts_with(own))
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;
    use futures_util::future::BoxFuture;
    use http_body_util::Full;
    use tokio_util::sync::CancellationToken;
    use vercel_runtime::LogContext;

    use super::*;
    use crate::clock::Clock;
    use crate::event::Event;
    use crate::ingest::{Handed, Intake, NotTaken, Settings};
    use crate::queue::Ack;
    use crate::reload::Reload;

    struct Panicking;

    impl Intake for Panicking {
        fn ack(&self) -> Ack {
            Ack::Memory
        }

        fn take(&self, _: Vec<Event>, _: Deferrer) -> BoxFuture<'_, Result<(), NotTaken>> {
            panic!("a bug")
        }
    }

    /// The host ends an invocation when it has an answer: one that panics has to have one.
    #[cfg(unix)]
    #[tokio::test]
    async fn a_request_on_which_we_panic_is_answered_with_500() {
        let origin = origin("nothing".into(), false, Target::VERCEL_DURATION);
        let variables = BTreeMap::from([(MARK.to_owned(), "1".to_owned())]);
        let reload = Reload::load(origin, variables, Clock::system()).expect("the built-in file is right");
        let handed = Handed {
            intake: Arc::new(Panicking),
            policy: Arc::new(ArcSwap::new(Arc::clone(&reload.current().plan.policy))),
            clock: Clock::system(),
            readiness: Arc::new(|| serde_json::Value::Null),
            metrics: Arc::new(|_| String::new()),
            closing: CancellationToken::new(),
        };
        let door = Arc::new(Door::new(handed, Settings::default()));
        let body = Full::from(r#"{"writeKey":"dev_write_key","userId":"u","event":"Any"}"#);
        let request = Request::post("/v1/track").body(body).expect("it is a request");
        let state = AppState::new(LogContext::new(None, None, None));
        let response = answer(door, state, Instant::now() + Duration::from_secs(9), request).await;
        assert_eq!(response.status(), 500);
    }

    #[test]
    fn nothing_of_the_platform_goes_further_than_who_sent_the_request() {
        let request = Request::builder()
            .header("host", "internal")
            .header("x-forwarded-host", "events.example.com")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-for", "203.0.113.7")
            .header("x-real-ip", "203.0.113.7")
            .header("forwarded", "for=203.0.113.7;sig=abc")
            .header("x-vercel-oidc-token", "secret")
            .header("x-vercel-internal-invocation-id", "1")
            .header("user-agent", "sdk")
            .body(())
            .expect("it is a request");
        let request = as_sent(request);
        let names: Vec<&str> = request.headers().keys().map(hyper::header::HeaderName::as_str).collect();
        assert_eq!(names, ["host", "user-agent"]);
        assert_eq!(request.headers()["host"], "events.example.com");
        let peer = request.extensions().get::<Peer>().copied();
        assert_eq!(peer, Some(Peer { address: "203.0.113.7".parse().expect("it is an address"), tls: true }));
    }
}
