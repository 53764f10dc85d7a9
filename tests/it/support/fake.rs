//! A destination that records what it is sent and answers as told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::eventually;

/// A real HTTP server on a port of its own.
#[derive(Clone)]
pub(crate) struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    /// Path and query, as on the wire.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// JSON, or the text as a string.
    pub(crate) body: Value,
    pub(crate) wire: String,
    pub(crate) bytes: Bytes,
}

/// What it answers.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    hangs: bool,
    delay: Duration,
}

/// Looks at a body and says what the answer is.
type Judge = Box<dyn Fn(&Value) -> Answer + Send + Sync>;

struct Shared {
    /// Decides, and keeps what it wants to, instead of everything below.
    judge: Option<Judge>,
    recorded: Mutex<Vec<Recorded>>,
    answers: Mutex<VecDeque<Answer>>,
    standard: Mutex<Answer>,
    /// Permits let hanging requests go.
    gate: Semaphore,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), hangs: false, delay: Duration::ZERO }
    }

    pub(crate) fn hang() -> Self {
        Self { hangs: true, ..Self::status(200) }
    }

    pub(crate) fn is_status(&self, status: u16) -> bool {
        self.status == status
    }

    /// The same, after a while.
    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }
}

impl Fake {
    /// Answers 200 to everything.
    pub(crate) fn start() -> Self {
        Self::replying([])
    }

    /// Gives these answers, one a request, and then 200. It has a thread of its own: a test that blocks does not stop it.
    pub(crate) fn replying(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::run(answers.into_iter().collect(), None)
    }

    /// Answers as it is told, and records nothing: for more requests than fit into memory.
    pub(crate) fn judging(judge: impl Fn(&Value) -> Answer + Send + Sync + 'static) -> Self {
        Self::run(VecDeque::new(), Some(Box::new(judge)))
    }

    fn run(answers: VecDeque<Answer>, judge: Option<Judge>) -> Self {
        let shared = Arc::new(Shared {
            judge,
            recorded: Mutex::default(),
            answers: Mutex::new(answers),
            standard: Mutex::new(Answer::status(200)),
            gate: Semaphore::new(0),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(record).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(&shared));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        Self { address, shared }
    }

    /// What it answers when the list is through.
    pub(crate) fn then_always(&self, answer: Answer) {
        *self.shared.standard.lock().unwrap() = answer;
    }

    /// Lets all hanging requests go.
    pub(crate) fn let_go(&self) {
        self.shared.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.shared.recorded.lock().unwrap().clone()
    }

    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.requests().into_iter().map(|request| request.body).collect()
    }

    /// Waits for so many requests.
    pub(crate) async fn has(&self, count: usize) -> Vec<Recorded> {
        eventually(&format!("{count} requests"), || self.requests().len() >= count).await;
        self.requests()
    }
}

async fn record(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let wire = String::from_utf8_lossy(&body).into_owned();
    let bytes = body.clone();
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(wire.clone()));
    let answer = if let Some(judge) = &shared.judge {
        judge(&body)
    } else {
        let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        // The nth request gets the nth answer, however many come at once.
        let mut answers = shared.answers.lock().unwrap();
        shared.recorded.lock().unwrap().push(Recorded { method: method.to_string(), path, headers, body, wire, bytes });
        answers.pop_front().unwrap_or_else(|| shared.standard.lock().unwrap().clone())
    };
    if !answer.delay.is_zero() {
        tokio::time::sleep(answer.delay).await;
    }
    if answer.hangs {
        let _permit = shared.gate.acquire().await.unwrap();
    }
    let mut response = Response::builder().status(StatusCode::from_u16(answer.status).unwrap());
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(answer.body)).unwrap()
}
