//! The service that everything is delivered to: it reads a body, counts its rows and says `{}`.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use flate2::read::GzDecoder;
use tokio::sync::{mpsc, watch};

/// What every row has once.
const ROW: &[u8] = b"\"insertId\"";

/// How often the count is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// With no row for so long, no more will come.
const STALL_MAX: Duration = Duration::from_secs(90);

/// The service. Below `/hang` nothing is ever answered, below `/fail` everything with 503, elsewhere with 200.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    is_open: watch::Sender<bool>,
}

struct Seen {
    rows: AtomicU64,
    is_open: watch::Receiver<bool>,
}

// === impl Sink ===

impl Sink {
    /// Starts it on a thread of its own, on the core of whoever calls.
    pub(crate) fn start() -> Self {
        let (is_open, opened) = watch::channel(true);
        let seen = Arc::new(Seen { rows: AtomicU64::new(0), is_open: opened });
        let (told, address) = std::sync::mpsc::channel();
        let state = Arc::clone(&seen);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                told.send(listener.local_addr().expect("its address")).expect("somebody waits for it");
                let router = Router::new().fallback(take).layer(DefaultBodyLimit::max(64 << 20)).with_state(state);
                axum::serve(listener, router).await.expect("it serves");
            });
        });
        Self { address: address.recv().expect("it starts"), seen, is_open }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.seen.rows.load(Ordering::Relaxed)
    }

    /// While closed, it reads what it is sent and leaves it unanswered.
    pub(crate) fn open(&self, is_open: bool) {
        self.is_open.send_replace(is_open);
    }

    /// Waits until it has seen so many rows. Answers the time of the last one.
    pub(crate) fn wait_for(&self, rows: u64) -> Instant {
        let (mut last, mut since) = (self.rows(), Instant::now());
        while last < rows {
            std::thread::sleep(LOOK_EVERY);
            let now = self.rows();
            if now > last {
                (last, since) = (now, Instant::now());
            }
            assert!(since.elapsed() < STALL_MAX, "{last} of {rows} rows came, and then none");
        }
        since
    }
}

async fn take(State(seen): State<Arc<Seen>>, uri: axum::http::Uri, headers: HeaderMap, body: Bytes) -> Response {
    if uri.path().starts_with("/hang") {
        return std::future::pending().await;
    }
    if uri.path().starts_with("/fail") {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let mut is_open = seen.is_open.clone();
    is_open.wait_for(|is_open| *is_open).await.expect("as long as the driver runs");
    let rows = if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip") {
        let mut plain = Vec::with_capacity(body.len() * 8);
        GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("gzip");
        memchr::memmem::find_iter(&plain, ROW).count()
    } else {
        memchr::memmem::find_iter(&body, ROW).count()
    };
    seen.rows.fetch_add(rows as u64, Ordering::Relaxed);
    ([(header::CONTENT_TYPE, "application/json")], "{}").into_response()
}

/// Hands rows on in requests of so many, or of fewer after a second: what programs written by hand do.
pub(crate) async fn post_in_batches(mut rows: mpsc::Receiver<Vec<u8>>, url: String, rows_max: usize) {
    const AGE_MAX: Duration = Duration::from_secs(1);
    const AT_ONCE: usize = 4;
    // reqwest wants to know how it would speak TLS.
    rustls::crypto::ring::default_provider().install_default().expect("it is the first");
    let client = reqwest::Client::new();
    let permits = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut batch: Vec<u8> = Vec::new();
    loop {
        let mut count = 0;
        batch.extend_from_slice(b"{\"rows\":[");
        let deadline = tokio::time::sleep(AGE_MAX);
        tokio::pin!(deadline);
        while count < rows_max {
            tokio::select! {
                biased;
                row = rows.recv() => match row {
                    Some(row) => {
                        if count > 0 {
                            batch.push(b',');
                        }
                        batch.extend_from_slice(&row);
                        count += 1;
                    }
                    None => return,
                },
                () = &mut deadline => break,
            }
        }
        batch.extend_from_slice(b"]}");
        let body = std::mem::take(&mut batch);
        if count == 0 {
            continue;
        }
        let permit = Arc::clone(&permits).acquire_owned().await.expect("never closed");
        let request = client.post(&url).header(header::CONTENT_TYPE, "application/json").body(body);
        tokio::spawn(async move {
            let answer = request.send().await.expect("the sink answers");
            answer.bytes().await.expect("the sink answers");
            drop(permit);
        });
    }
}
