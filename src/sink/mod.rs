//! The only rooms that talk to services: a request goes out, what comes back is news.
//!
//! A sink does not retry, judge or remember. A `503` is not an error here: it is a reply.

pub mod bigquery;
pub mod file;
pub mod http;
pub mod look;
pub mod stdout;
mod token;

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use jiff::Timestamp;
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::sync::Semaphore;

use crate::attempt::{Failure, Reason};
use crate::plan::{Destination, DestinationKind, Reply, Request};

/// The code that carries a batch to one kind of service.
pub trait Sink: Send + Sync + 'static {
    /// Sends one request; always answers, within the request's timeout.
    fn send(&self, request: Request, now: Timestamp) -> BoxFuture<'_, Reply>;
}

/// Makes sinks. Those that speak TLS share one configuration: reading the system's root certificates takes longer than
/// all the rest.
pub struct Sinks {
    tls: OnceLock<ClientConfig>,
    idle_max: Duration,
}

/// A sink that carries so many requests at a time, whoever sends them; more wait their turn.
struct Bounded {
    sink: Arc<dyn Sink>,
    turns: Semaphore,
}

/// A sink could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// There are no root certificates: no service's own could be told from anybody's.
    #[error(
        "no root certificates: install the system's (often `ca-certificates`), or name a file of them in SSL_CERT_FILE"
    )]
    Roots(#[source] rustls::Error),
    /// TLS itself cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// The HTTP client could not be built.
    #[error("cannot build the HTTP client")]
    Http(#[from] reqwest::Error),
}

// === impl Sinks ===

impl Sinks {
    /// Sinks whose connections are closed when nobody has used them for so long.
    #[must_use]
    pub fn new(idle_max: Duration) -> Self {
        Self { tls: OnceLock::new(), idle_max }
    }

    /// The sink of a destination, with connections of its own.
    ///
    /// # Errors
    /// When TLS or the HTTP client cannot be set up.
    pub fn open(&self, destination: &Arc<Destination>) -> Result<Arc<dyn Sink>, SinkError> {
        let sink: Arc<dyn Sink> = match &destination.kind {
            DestinationKind::Http => Arc::new(self.http(destination)?),
            DestinationKind::BigQuery(settings) => {
                Arc::new(bigquery::BigQuery::new(self.http(destination)?, Arc::clone(destination), settings.clone()))
            }
            DestinationKind::File(settings) => Arc::new(file::File::new(settings.clone())),
            DestinationKind::Stdout => Arc::new(stdout::Stdout),
        };
        Ok(Arc::new(Bounded { sink, turns: Semaphore::new(destination.limit.concurrency) }))
    }

    fn http(&self, destination: &Destination) -> Result<http::Http, SinkError> {
        http::Http::new(self.tls()?, destination.limit.concurrency, self.idle_max)
    }

    fn tls(&self) -> Result<ClientConfig, SinkError> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?;
        let mut config = builder.with_platform_verifier().map_err(SinkError::Roots)?.with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(self.tls.get_or_init(|| config).clone())
    }
}

// === impl Bounded ===

impl Sink for Bounded {
    fn send(&self, request: Request, now: Timestamp) -> BoxFuture<'_, Reply> {
        async move {
            // It is never closed: without a turn there is nobody to wait for.
            let _turn = self.turns.acquire().await;
            self.sink.send(request, now).await
        }
        .boxed()
    }
}

// === impl Default ===

impl Default for Sinks {
    /// Connections are kept a little shorter than the usual load balancers (60 s) keep them, so that we close first and no
    /// request meets a connection that is being closed.
    fn default() -> Self {
        Self::new(Duration::from_secs(50))
    }
}

/// Writes on a thread that may block: a slow disk, or a pipe that nobody reads, must not hold up others.
async fn written(write: impl FnOnce() -> io::Result<()> + Send + 'static) -> Reply {
    let failed = |detail: String| Reply::Lost(Failure::new(Reason::Io, detail));
    match tokio::task::spawn_blocking(write).await {
        Ok(Ok(())) => Reply::Written,
        Ok(Err(error)) => failed(error.to_string()),
        Err(error) => failed(error.to_string()),
    }
}
