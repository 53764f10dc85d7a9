//! The host of a Vercel Function: starts an executable, speaks the runtime's socket protocol with it, hands it requests,
//! and suspends it when no invocation is open, as Vercel does.
//!
//! Messages are JSON and a NUL, from the process to its host: `server-started` once, `end` for every invocation.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, Response, Uri};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{Process, send_signal};
use super::{Binary, PATIENCE, eventually};

/// A function that is running; both of its streams are its log, as on Vercel. Dropping it kills it.
pub(crate) struct Function {
    process: Process,
    url: String,
    client: reqwest::Client,
    folder: TempDir,
    shared: Arc<Shared>,
    /// From the process's start to its `server-started`.
    pub(crate) start_up: Duration,
}

/// Whoever hands requests to it.
#[derive(Clone)]
struct Platform {
    url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Requests whose `end` was heard, and when.
    ended: Mutex<Vec<(u64, Instant)>>,
    /// Requests that are open; with `suspends`, the process is stopped when there is none.
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    count: usize,
    begun: u64,
    suspends: Option<u32>,
    suspended: usize,
}

/// What a sender heard.
pub(crate) struct Heard {
    pub(crate) request: u64,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) at: Instant,
}

/// What the platform puts on every request, a token of the project among it.
pub(crate) const TOKEN: &str = "eyJ-the-oidc-token-of-the-project";

/// The sender, as the platform saw it.
pub(crate) const SENDER: &str = "203.0.113.7";

impl Function {
    /// Starts our executable with this file.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// The same, with variables of the project.
    pub(crate) fn start_with(config: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("function.toml");
        std::fs::write(&path, config).unwrap();
        let config = [("LIBROSEG_CONFIG", path.to_str().unwrap())];
        Self::run(folder, &[&config, variables].concat())
    }

    /// Starts our executable where there is no file: what it has is built in.
    pub(crate) fn start_built_in(variables: &[(&str, &str)]) -> Self {
        Self::run(tempfile::tempdir().unwrap(), variables)
    }

    fn run(folder: TempDir, variables: &[(&str, &str)]) -> Self {
        let socket = folder.path().join("ipc.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let port = free_port();
        let mut command = Binary::command();
        if let Some(built) = executable() {
            command = Command::new(built);
            command.env_remove("LIBROSEG_CONFIG");
        }
        let begun = Instant::now();
        command
            .current_dir(folder.path())
            .env("NO_PROXY", "127.0.0.1")
            .env("VERCEL", "1")
            .env("VERCEL_IPC_PATH", &socket)
            .env("VERCEL_DEV_PORT", port.to_string())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let process = Process::start(&mut command);
        let shared = Arc::new(Shared::default());
        let (started, has_started) = channel();
        let heard = Arc::clone(&shared);
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            for message in BufReader::new(stream).split(0).map_while(Result::ok) {
                let message: Value = serde_json::from_slice(&message).unwrap();
                match message["type"].as_str().unwrap() {
                    "server-started" => started.send(message["payload"]["httpPort"].as_u64().unwrap()).unwrap(),
                    "end" => heard.end(message["payload"]["context"]["requestId"].as_u64().unwrap()),
                    other => panic!("an unknown message: {other}"),
                }
            }
        });
        let told = has_started.recv_timeout(PATIENCE);
        let Ok(told) = told else { panic!("it never started:\n{}", process.log()) };
        assert_eq!(told, u64::from(port));
        let url = format!("http://127.0.0.1:{port}");
        let (client, start_up) = (super::client(), begun.elapsed());
        Self { process, url, client, folder, shared, start_up }
    }

    /// From now on the process is stopped whenever no invocation is open.
    pub(crate) fn suspend_between_requests(&self) {
        self.shared.open.lock().unwrap().suspends = Some(self.id());
    }

    /// How often it was.
    pub(crate) fn suspended(&self) -> usize {
        self.shared.open.lock().unwrap().suspended
    }

    /// Hands it a request as Vercel does.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Heard {
        self.send(path, body, PATIENCE).await.unwrap()
    }

    /// The same, from a sender that hangs up when it has waited long enough.
    pub(crate) async fn send(&self, path: &str, body: &Value, patience: Duration) -> reqwest::Result<Heard> {
        let sent = self.client.post(format!("{}{path}", self.url)).basic_auth("test_write_key", Some(""));
        let (request, sent) = self.platform().mark(sent.body(body.to_string()));
        let response = sent.timeout(patience).send().await?;
        let at = Instant::now();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = serde_json::from_str(&response.text().await?).unwrap();
        Ok(Heard { request, status, headers, body, at })
    }

    /// An address for SDKs: what comes there is handed to the function as Vercel does.
    pub(crate) fn front(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let front = Router::new().fallback(hand_on).layer(DefaultBodyLimit::disable()).with_state(self.platform());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, front).await.unwrap();
            });
        });
        format!("http://{address}")
    }

    fn platform(&self) -> Platform {
        Platform { url: self.url.clone(), shared: Arc::clone(&self.shared) }
    }

    pub(crate) async fn track(&self, id: &str, event: &str) -> Heard {
        self.post("/v1/track", &json!({ "userId": "u1", "event": event, "messageId": id })).await
    }

    pub(crate) fn has_ended(&self, request: u64) -> bool {
        self.shared.ended.lock().unwrap().iter().any(|(ended, _)| *ended == request)
    }

    /// Waits for an invocation's `end`, and says when it came.
    pub(crate) async fn ended(&self, request: u64) -> Instant {
        eventually(&format!("the end of {request}"), || self.has_ended(request)).await;
        let ended = self.shared.ended.lock().unwrap();
        ended.iter().find(|(ended, _)| *ended == request).unwrap().1
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Deref for Function {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Function {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Platform {
    /// Opens an invocation for a request, and says so in its headers.
    fn mark(&self, request: RequestBuilder) -> (u64, RequestBuilder) {
        let number = self.shared.begin();
        let marked = request
            .header("x-vercel-internal-invocation-id", format!("invocation-{number}"))
            .header("x-vercel-internal-request-id", number)
            .header("x-vercel-oidc-token", TOKEN)
            .header("x-vercel-ip-city", "Testville")
            .header("x-real-ip", SENDER)
            .header("x-forwarded-for", SENDER)
            .header("x-forwarded-host", "events.example.com")
            .header("x-forwarded-proto", "https");
        (number, marked)
    }
}

async fn hand_on(
    State(platform): State<Platform>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let mut headers = headers;
    for hop in ["host", "connection", "content-length", "transfer-encoding"] {
        headers.remove(hop);
    }
    let request = super::client().request(method, format!("{}{uri}", platform.url)).headers(headers).body(body);
    let (_, request) = platform.mark(request);
    let answer = request.send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers().iter().filter(|(name, _)| *name != "transfer-encoding") {
        response = response.header(name, value);
    }
    response.body(Body::from(answer.bytes().await.unwrap())).unwrap()
}

impl Shared {
    /// Opens an invocation, and wakes the process.
    fn begin(&self) -> u64 {
        let mut open = self.open.lock().unwrap();
        if let (0, Some(process)) = (open.count, open.suspends) {
            send_signal(process, "CONT");
        }
        open.count += 1;
        open.begun += 1;
        open.begun
    }

    fn end(&self, request: u64) {
        self.ended.lock().unwrap().push((request, Instant::now()));
        let mut open = self.open.lock().unwrap();
        open.count -= 1;
        if let (0, Some(process)) = (open.count, open.suspends) {
            send_signal(process, "STOP");
            open.suspended += 1;
        }
    }
}

impl Heard {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Another executable to test instead of ours: one that `vercel build` made.
fn executable() -> Option<PathBuf> {
    std::env::var_os("LIBROSEG_FUNCTION").map(PathBuf::from)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
