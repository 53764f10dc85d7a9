//! What ours is measured against: small servers as a person would write them for one purpose. Each runs in a process of its
//! own, which is this very program started with `--serve`.
//!
//! None of them has limits, write keys, deduplication, retries or a format.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc as threads;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::post;
use clap::ValueEnum;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use super::sink::post_in_batches;
use super::subject::{Subject, target};
use super::support::write_by_hand;

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Baseline {
    /// axum reads the body and says 200.
    Floor,
    /// The same, and each event's type, message id and timestamp are found with `RawValue`.
    Scan,
    /// The floor, and the body is in a file and synced before the 200: one write and one sync for all that came meanwhile.
    Log,
    /// Events are parsed whole, made rows of with serde and a struct, and posted by 500. They are in memory only.
    Walk,
}

/// What [`Baseline::Scan`] wants to know of an event.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<&'a RawValue>,
    #[serde(rename = "messageId", borrow, default)]
    message_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    batch: Vec<&'a RawValue>,
}

type Log = threads::Sender<(Bytes, oneshot::Sender<()>)>;

impl Baseline {
    /// Starts it in a process of its own. `sink` is where [`Baseline::Walk`] posts to.
    pub(crate) fn start(self, sink: SocketAddr) -> Subject {
        let name = self.to_possible_value().expect("none is hidden").get_name().to_owned();
        Subject::start(|address| {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.args(["--serve", &name, "--listen", &address.to_string(), "--sink", &sink.to_string()]);
            command
        })
    }

    /// Is it, until it is killed.
    pub(crate) fn serve(self, address: SocketAddr, sink: SocketAddr) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let router = match self {
                Self::Floor => route(post(floor)),
                Self::Scan => route(post(scan)),
                Self::Log => route(post(log)).with_state(open_log()),
                Self::Walk => {
                    let (sender, rows) = mpsc::channel(10_000);
                    tokio::spawn(post_in_batches(rows, format!("http://{sink}/rows"), 500));
                    route(post(walk)).with_state(sender)
                }
            };
            let listener = tokio::net::TcpListener::bind(address).await.expect("the address is free");
            axum::serve(listener, router).await.expect("it serves");
        });
    }
}

fn route<S: Clone + Send + Sync + 'static>(handler: axum::routing::MethodRouter<S>) -> Router<S> {
    Router::new().route("/v1/{call}", handler).layer(DefaultBodyLimit::max(64 << 20))
}

fn success() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], "{\"success\":true}")
}

async fn floor(body: Bytes) -> impl IntoResponse {
    std::hint::black_box(body);
    success()
}

async fn scan(body: Bytes) -> impl IntoResponse {
    let scanned = |event: &str| {
        let header: Header = serde_json::from_str(event).expect("an event");
        std::hint::black_box((header.kind, header.message_id, header.timestamp));
    };
    if body.is_empty() {
        return success();
    }
    match serde_json::from_slice::<Envelope>(&body) {
        Ok(envelope) => envelope.batch.iter().for_each(|event| scanned(event.get())),
        Err(_) => scanned(std::str::from_utf8(&body).expect("text")),
    }
    success()
}

async fn log(State(log): State<Log>, body: Bytes) -> impl IntoResponse {
    let (waiter, synced) = oneshot::channel();
    log.send((body, waiter)).expect("the thread lives");
    synced.await.expect("the disk works");
    success()
}

fn open_log() -> Log {
    let path: PathBuf = target().join(format!("load-baseline-{}.log", std::process::id()));
    let mut file = File::create(&path).expect("a file");
    // It goes when this process does.
    std::fs::remove_file(&path).expect("a file of ours");
    let (sender, receiver) = threads::channel::<(Bytes, oneshot::Sender<()>)>();
    std::thread::spawn(move || {
        while let Ok(first) = receiver.recv() {
            let group: Vec<_> = std::iter::once(first).chain(receiver.try_iter()).collect();
            let bytes: Vec<u8> = group.iter().flat_map(|(body, _)| body.iter().copied()).collect();
            file.write_all(&bytes).expect("room");
            file.sync_data().expect("a disk that works");
            for (_, waiter) in group {
                let _ = waiter.send(());
            }
        }
    });
    sender
}

async fn walk(State(rows): State<mpsc::Sender<Vec<u8>>>, body: Bytes) -> impl IntoResponse {
    if body.is_empty() {
        return success();
    }
    let mut body: Value = serde_json::from_slice(&body).expect("JSON");
    let events = match body.get_mut("batch").map(Value::take) {
        Some(Value::Array(events)) => events,
        _ => vec![body],
    };
    for event in events {
        let mut row = Vec::with_capacity(1024);
        write_by_hand(&event, &mut row);
        rows.send(row).await.expect("somebody posts them");
    }
    success()
}
