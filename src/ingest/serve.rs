//! The accept loop: sockets in, requests to the door, and an orderly end.
//!
//! `axum::serve` sets no timer, so a client that holds half a head stays for ever; it has no cap on connections, no TLS,
//! and a drain without an end. Here everything a client can make us wait for has a bound.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Entrance;
use super::caller::Peer;
use super::patience::{Activity, Patience, Patient};
use super::tls::Tls;

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The longest a request's head, or a TLS handshake, may take to arrive.
    pub header_timeout: Duration,
    /// The longest a connection may rest between requests.
    pub idle_timeout: Duration,
    /// The longest an answer may stand still because nobody reads it.
    pub write_timeout: Duration,
    /// Connections at a time; more wait in the kernel's backlog.
    pub connections_max: usize,
    /// How long resting connections are kept once a shutdown begins, so that a request already on its way hears `503`
    /// instead of a reset.
    pub linger: Duration,
    /// How long requests under way may take to end once a shutdown begins, `linger` included.
    pub shutdown_timeout: Duration,
    /// Certificate and key; without them plain HTTP is spoken.
    pub tls: Option<Arc<Tls>>,
}

/// What all connections share.
struct Shared {
    entrance: Entrance,
    http: auto::Builder<TokioExecutor>,
    options: ServeOptions,
    shutdown: CancellationToken,
}

/// An HTTP/1 head and the pieces in which bodies are read. A pixel's address is the longest head there is: 32 KB in
/// base64.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Requests at a time on one HTTP/2 connection, as many as nginx allows.
const STREAMS_MAX: u32 = 128;

/// How often a silent HTTP/2 connection is asked whether anybody is there, and how long the answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long to wait when the process has no more file descriptors: ended connections give some back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

// === impl ServeOptions ===

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            // Longer than the 60 s that load balancers keep a connection, so that they are the ones to close it.
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            connections_max: 10_000,
            linger: Duration::from_millis(500),
            shutdown_timeout: Duration::from_secs(20),
            tls: None,
        }
    }
}

/// Serves until `shutdown` is cancelled and then until every connection has ended or `shutdown_timeout` is over.
///
/// Give the [`super::Door`] the same token, so that late requests hear `503`. Returns how many connections had to be cut.
pub async fn serve(
    listener: TcpListener,
    entrance: Entrance,
    options: ServeOptions,
    shutdown: CancellationToken,
) -> usize {
    let slots = Arc::new(Semaphore::new(options.connections_max));
    let shared = Arc::new(Shared { entrance, http: http(), options, shutdown: shutdown.clone() });
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    while let Some(Some((stream, address, slot))) = shutdown.run_until_cancelled(accept(&listener, &slots)).await {
        // Ended ones are let go of here, so there are never more than slots.
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(Arc::clone(&shared), stream, address, slot, graceful.watcher()));
    }
    drop(listener);
    drain(connections, graceful, &shared.options).await
}

/// The next connection, once there is a slot for it.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => return Some((stream, address, slot)),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted for the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors of a connection that ended before we had it.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind())
}

/// One connection from its first byte to its last. The slot is free again when it ends.
async fn connection(
    shared: Arc<Shared>,
    stream: TcpStream,
    address: SocketAddr,
    _slot: OwnedSemaphorePermit,
    watcher: Watcher,
) {
    // An answer is one small packet; waiting to fill it helps nobody.
    let _ = stream.set_nodelay(true);
    let address = address.ip();
    let Some(tls) = &shared.options.tls else {
        return speak(&shared, stream, Peer { address, tls: false }, watcher).await;
    };
    let handshake = tokio::time::timeout(shared.options.header_timeout, tls.acceptor().accept(stream));
    match shared.shutdown.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => speak(&shared, stream, Peer { address, tls: true }, watcher).await,
        Some(Ok(Err(error))) => tracing::debug!(%error, "TLS handshake failed"),
        Some(Err(_)) => tracing::debug!("TLS handshake took too long"),
        None => {}
    }
}

/// Speaks HTTP until either side has had enough.
async fn speak<I>(shared: &Shared, stream: I, peer: Peer, watcher: Watcher)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let activity = Arc::new(Activity::default());
    let io = TokioIo::new(Patient::new(stream, shared.options.patience(), Arc::clone(&activity)));
    let service = service_fn(|request: Request<Incoming>| {
        let under_way = activity.begin();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let entrance = shared.entrance.clone();
        async move {
            let answer = entrance.answer(request).await;
            drop(under_way);
            Ok::<_, Infallible>(answer)
        }
    });
    if let Err(error) = watcher.watch(shared.http.serve_connection(io, service)).await {
        tracing::debug!(error, "connection ended early");
    }
}

/// Lets connections end: first those that speak hear that we close, then those that rest are closed, then time is up.
async fn drain(mut connections: JoinSet<()>, graceful: GracefulShutdown, options: &ServeOptions) -> usize {
    let deadline = tokio::time::Instant::now() + options.shutdown_timeout;
    let _ = tokio::time::timeout(options.linger.min(options.shutdown_timeout), all_ended(&mut connections)).await;
    let ended = async {
        tokio::join!(graceful.shutdown(), all_ended(&mut connections));
    };
    let _ = tokio::time::timeout_at(deadline, ended).await;
    let cut = connections.len();
    if cut > 0 {
        tracing::warn!(connections = cut, "connections were still busy when the time to shut down was over");
        connections.shutdown().await;
    }
    cut
}

async fn all_ended(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    // `Patient` keeps the time for heads. A sender that closes its half, or leaves, once all is said, is still served:
    // its events are worth keeping.
    http.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(BUFFER_BYTES_MAX).half_close(true);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .max_concurrent_streams(STREAMS_MAX);
    http
}

impl ServeOptions {
    const fn patience(&self) -> Patience {
        Patience { head: self.header_timeout, idle: self.idle_timeout, write: self.write_timeout }
    }
}
