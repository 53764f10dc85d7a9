//! `cargo bench --bench walk`: a request through the door, beside an axum handler that reads the body and says 200.
//!
//! The queue is memory and there is no destination: what is measured is the door. There are no sockets either, so the
//! baseline is almost nothing; with sockets on both sides the two are much closer.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

mod support;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::{Request, Response};
use axum::routing::post;
use criterion::{Criterion, Throughput, criterion_group};
use libroseg::clock::Clock;
use libroseg::ingest::{Door, Entrance, Handed, Queued, Settings};
use libroseg::queue::Queue;
use libroseg::queue::dedup::Dedup;
use libroseg::queue::memory::Memory;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use support::{batch, compile, print_ratios, track};

fn door() -> Entrance {
    let plan = compile("[sources.bench]\nwrite_keys = [\"key\"]\n[queue]\ntype = \"memory\"\n");
    let queue: Arc<dyn Queue> = Arc::new(Memory::new(1 << 30, Dedup::default()));
    let handed = Handed {
        intake: Arc::new(Queued(queue)),
        policy: Arc::new(ArcSwap::new(plan.policy)),
        clock: Clock::system(),
        readiness: Arc::new(|| serde_json::json!({ "ready": true })),
        metrics: Arc::new(|_| String::new()),
        closing: CancellationToken::new(),
    };
    Entrance::front(Arc::new(Door::new(handed, Settings::default())))
}

fn floor() -> Router {
    let answer = |body: Bytes| async move {
        std::hint::black_box(body);
        ([("content-type", "application/json")], "{\"success\":true}")
    };
    Router::new().route("/v1/{call}", post(answer)).layer(DefaultBodyLimit::max(4 << 20))
}

/// A body whose message ids are new each time: one that repeats would be a duplicate, and dropped.
struct Fresh {
    text: Vec<u8>,
    /// Where the ids' last digits are.
    places: Vec<usize>,
    count: u64,
}

impl Fresh {
    fn new(text: String) -> Self {
        let places = text.match_indices("ajs-next-1795381557600-").map(|(at, id)| at + id.len()).collect();
        Self { text: text.into_bytes(), places, count: 0 }
    }

    fn next(&mut self) -> Bytes {
        let mut body = self.text.clone();
        for place in &self.places {
            self.count += 1;
            body[*place..*place + 16].copy_from_slice(format!("{:016x}", self.count).as_bytes());
        }
        body.into()
    }
}

fn request(path: &str, body: Bytes) -> Request<Body> {
    let request =
        Request::post(path).header("authorization", "Basic a2V5Og==").header("content-type", "application/json");
    request.header("content-length", body.len()).body(Body::from(body)).expect("a request")
}

fn assert_ok(response: &Response<Body>) {
    assert_eq!(response.status(), 200);
}

fn through(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let (door, floor) = (door(), floor());
    let bodies = [("one", "/v1/track", 1, track(1).to_string()), ("hundred", "/v1/batch", 100, batch(100))];
    let mut group = criterion.benchmark_group("router");
    for (name, path, events, body) in bodies {
        let mut fresh = Fresh::new(body);
        group.throughput(Throughput::Elements(events));
        group.bench_function(name, |b| {
            b.iter(|| assert_ok(&runtime.block_on(door.answer(request(path, fresh.next())))));
        });
        group.bench_function(format!("{name}_floor"), |b| {
            b.iter(|| {
                let response = runtime.block_on(floor.clone().oneshot(request(path, fresh.next())));
                assert_ok(&response.expect("infallible"));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, through);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    print_ratios(&[("router/one", "router/one_floor", None), ("router/hundred", "router/hundred_floor", None)]);
}
