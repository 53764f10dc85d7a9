//! Connections that send requests and wait for their answers.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::traffic::Traffic;

/// No answer takes longer, but for one that never comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Message ids of this run of the driver, so far.
static IDS: AtomicU64 = AtomicU64::new(0);

/// Ids that a connection takes at a time.
const IDS_AT_ONCE: u64 = 1 << 20;

/// When a connection sends again, and when it stops.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) connections: usize,
    pub(crate) until: Until,
    /// Of all connections together. `None`: each sends as soon as it was answered.
    pub(crate) requests_per_second: Option<f64>,
}

#[derive(Clone, Copy)]
pub(crate) enum Until {
    Elapsed(Duration),
    Requests(u64),
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Answered {
    /// Accepted.
    pub(crate) requests: u64,
    pub(crate) events: u64,
    pub(crate) refused: u64,
    pub(crate) took: Duration,
    /// How long each accepted request took since it was due, sorted.
    times: Vec<Duration>,
}

/// Sends, from one thread.
pub(crate) fn drive(address: SocketAddr, traffic: &Rc<Traffic>, pace: Pace) -> Answered {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let left = Rc::new(std::cell::Cell::new(match pace.until {
        Until::Requests(requests) => requests,
        Until::Elapsed(_) => u64::MAX,
    }));
    let start = Instant::now();
    let tasks = LocalSet::new();
    let connections: Vec<_> = (0..pace.connections)
        .map(|n| {
            let (traffic, left) = (Rc::clone(traffic), Rc::clone(&left));
            tasks.spawn_local(async move { connection(address, &traffic, pace, n, start, &left).await })
        })
        .collect();
    let all = runtime.block_on(tasks.run_until(futures_util::future::join_all(connections)));
    let mut sum = Answered { took: start.elapsed(), ..Answered::default() };
    for answered in all {
        let answered = answered.expect("a connection does not panic");
        sum.requests += answered.requests;
        sum.refused += answered.refused;
        sum.times.extend(answered.times);
    }
    sum.events = sum.requests * traffic.events_per_request as u64;
    sum.times.sort_unstable();
    sum
}

async fn connection(
    address: SocketAddr,
    traffic: &Traffic,
    pace: Pace,
    n: usize,
    start: Instant,
    left: &std::cell::Cell<u64>,
) -> Answered {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    #[allow(clippy::cast_precision_loss, reason = "a few connections")]
    let period = pace.requests_per_second.map(|all| Duration::from_secs_f64(pace.connections as f64 / all));
    #[allow(clippy::cast_precision_loss, reason = "a few connections")]
    let mut due = start + period.unwrap_or_default().mul_f64(n as f64 / pace.connections as f64);
    let (mut request, mut answer) = (Vec::new(), Vec::with_capacity(4096));
    let (mut id, mut ids_end) = (0, 0);
    let mut answered = Answered::default();
    for template in traffic.templates.iter().cycle().skip(n * 7 % traffic.templates.len()) {
        if left.get() == 0 {
            break;
        }
        left.set(left.get() - 1);
        let mut since = Instant::now();
        if let Some(period) = period {
            if since < due {
                // A timer's own lateness is not the server's.
                tokio::time::sleep_until(due.into()).await;
                since = Instant::now();
            } else {
                since = due;
            }
            due += period;
        }
        if matches!(pace.until, Until::Elapsed(time) if start.elapsed() >= time) {
            break;
        }
        if id + traffic.events_per_request as u64 > ids_end {
            id = IDS.fetch_add(IDS_AT_ONCE, Ordering::Relaxed);
            ids_end = id + IDS_AT_ONCE;
        }
        id = template.renew(id, &mut request);
        let exchange = async {
            stream.write_all(&request).await.expect("a connection that stays");
            read_answer(&mut stream, &mut answer).await
        };
        let status = tokio::time::timeout(PATIENCE, exchange).await.expect("an answer");
        if status == 200 {
            answered.requests += 1;
            answered.times.push(since.elapsed());
        } else {
            answered.refused += 1;
        }
    }
    answered
}

/// Reads one answer whole, and answers its status.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> u16 {
    buffer.clear();
    loop {
        let read = stream.read_buf(buffer).await.expect("a connection that stays");
        assert!(read > 0, "the connection stays open");
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(body) = head.parse(buffer).expect("HTTP") else { continue };
        let status = head.code.expect("a status");
        let header = |name: &str| head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        let is_whole = match header("content-length") {
            Some(length) => {
                let length = std::str::from_utf8(length.value).expect("digits");
                buffer.len() >= body + length.parse::<usize>().expect("a number")
            }
            None if header("transfer-encoding").is_some() => buffer.ends_with(b"0\r\n\r\n"),
            None => true,
        };
        if is_whole {
            return status;
        }
    }
}

// === impl Pace ===

impl Pace {
    pub(crate) const fn full(connections: usize, time: Duration) -> Self {
        Self { connections, until: Until::Elapsed(time), requests_per_second: None }
    }

    /// As fast as it takes them, until so many were sent.
    pub(crate) const fn of(connections: usize, requests: u64) -> Self {
        Self { connections, until: Until::Requests(requests), requests_per_second: None }
    }
}

// === impl Answered ===

#[allow(clippy::cast_precision_loss, reason = "what is counted stays far below 2^52")]
impl Answered {
    pub(crate) fn events_per_second(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }

    /// Milliseconds within which this part of the requests were answered.
    pub(crate) fn within_ms(&self, part: f64) -> f64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let at = (self.times.len() as f64 * part) as usize;
        self.times.get(at.min(self.times.len().saturating_sub(1))).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// Takes in what came of another turn of the same.
    pub(crate) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.events += other.events;
        self.refused += other.refused;
        self.took += other.took;
        self.times.extend(other.times);
        self.times.sort_unstable();
    }
}
