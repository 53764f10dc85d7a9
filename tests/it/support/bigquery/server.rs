//! Sockets: takes requests in, has them answered, or cuts the line.

use std::io;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::http::HeaderMap;
use axum::http::request::Parts;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::SignedDuration;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::discovery::{self, Method};
use super::faults::Fault;
use super::replies::{Content, Reply};
use super::{Request, Shared, State};

type Response = hyper::Response<Full<Bytes>>;

/// A connection that can be cut so that the other side hears `connection reset`.
struct Line {
    stream: TcpStream,
    is_cut: Arc<AtomicBool>,
}

/// Ends a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut on purpose")]
struct Cut;

/// A request with its body unpacked.
struct Call {
    head: Parts,
    body: Bytes,
    wire_bytes: usize,
    query: Vec<(String, String)>,
    /// The method of the API that it means.
    method: Option<Method>,
}

pub(super) fn run(listener: std::net::TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            let _ = stop.run_until_cancelled(accept(listener, shared)).await;
        });
    });
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (shared, is_cut) = (Arc::clone(&shared), Arc::new(AtomicBool::new(false)));
        let line = TokioIo::new(Line { stream, is_cut: Arc::clone(&is_cut) });
        let service = service_fn(move |request| answer(Arc::clone(&shared), Arc::clone(&is_cut), request));
        tokio::spawn(http1::Builder::new().serve_connection(line, service));
    }
}

async fn answer(
    shared: Arc<Shared>,
    is_cut: Arc<AtomicBool>,
    request: hyper::Request<Incoming>,
) -> Result<Response, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let call = Call::new(head, body);
    let fault = shared.state().faults.next(call.name());
    if let Fault::Slow(delay) = fault {
        tokio::time::sleep(delay).await;
    }
    let reply = (fault != Fault::ResetBefore).then(|| shared.reply(&call, &fault));
    let reply = reply.filter(|_| fault != Fault::ResetAfter);
    shared.note(&call, reply.as_ref());
    if reply.is_none() {
        is_cut.store(true, Ordering::Relaxed);
    }
    reply.map(Response::from).ok_or(Cut)
}

// === impl Call ===

impl Call {
    fn new(head: Parts, packed: Bytes) -> Self {
        let wire_bytes = packed.len();
        let is_packed = head.headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip");
        let body = if is_packed { unpacked(&packed) } else { packed };
        let query = pairs(head.uri.query().unwrap_or_default().as_bytes());
        let method = discovery::find(head.method.as_str(), head.uri.path());
        Self { head, body, wire_bytes, query, method }
    }

    fn is_token(&self) -> bool {
        self.head.method == "POST" && self.head.uri.path() == "/token"
    }

    fn name(&self) -> &'static str {
        match &self.method {
            Some(method) => method.id(),
            None if self.is_token() => "token",
            None => "",
        }
    }

    /// The body as JSON, as text, or nothing.
    fn value(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        let text = || String::from_utf8_lossy(&self.body).into_owned().into();
        serde_json::from_slice(&self.body).unwrap_or_else(|_| text())
    }
}

/// What is no gzip stays as it is, and is no JSON then.
fn unpacked(packed: &Bytes) -> Bytes {
    let mut plain = Vec::new();
    match GzDecoder::new(&packed[..]).read_to_end(&mut plain) {
        Ok(_) => plain.into(),
        Err(_) => packed.clone(),
    }
}

fn pairs(form: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(form).map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
}

// === impl Shared ===

impl Shared {
    fn reply(&self, call: &Call, fault: &Fault) -> Reply {
        if let Some(reply) = fault.reply() {
            return reply;
        }
        if call.is_token() {
            let mut state = self.state();
            let now = state.clock.now();
            return state.tokens.exchange(&pairs(&call.body), now);
        }
        self.call(call, fault).unwrap_or_else(|refusal| refusal)
    }

    fn call(&self, call: &Call, fault: &Fault) -> Result<Reply, Reply> {
        let Some(method) = &call.method else {
            self.violation(call, "there is no such method");
            return Err(Reply::html(404));
        };
        let limits = &self.options.limits;
        if call.wire_bytes > limits.wire_bytes {
            return Err(Reply::html(413));
        }
        if call.body.len() > limits.body_bytes {
            let message = format!("Request payload size exceeds the limit: {} bytes.", limits.body_bytes);
            return Err(Reply::error(400, "badRequest", &message));
        }
        if self.options.needs_tokens {
            let state = self.state();
            state.tokens.admit(&call.head.headers, method, state.clock.now())?;
        }
        let body = self.checked(call, method)?;
        let reply = self.dispatch(&mut self.state(), call, method, &body, fault)?;
        let json = match &reply.content {
            Content::Json(json) => Some(json),
            Content::Html(_) | Content::Nothing => None,
        };
        for wrong in method.check_response(json) {
            self.violation(call, &format!("the fake's answer: {wrong}"));
        }
        Ok(reply)
    }

    /// The body, if all of the request is as the discovery document has it.
    fn checked(&self, call: &Call, method: &Method) -> Result<Value, Reply> {
        let kind = call.head.headers.get("content-type").map(|kind| String::from_utf8_lossy(kind.as_bytes()));
        if !call.body.is_empty() && !kind.as_ref().is_some_and(|kind| kind.starts_with("application/json")) {
            let message = format!("Unsupported content with type: {}", kind.unwrap_or_default());
            self.violation(call, &message);
            return Err(Reply::error(400, "badContent", &message));
        }
        let mut body = call.value();
        if body.is_string() {
            self.violation(call, "the body is no JSON");
            return Err(Reply::error(400, "parseError", "Invalid JSON payload received. Expected a value."));
        }
        let wrong = method.check_request(&call.query, Some(&body).filter(|body| !body.is_null()));
        for wrong in &wrong {
            self.violation(call, wrong);
        }
        if let Some(wrong) = wrong.first() {
            return Err(Reply::error(400, "badRequest", &format!("Invalid JSON payload received. {wrong}.")));
        }
        method.normalise(&mut body);
        Ok(body)
    }

    fn dispatch(
        &self,
        state: &mut State,
        call: &Call,
        method: &Method,
        body: &Value,
        fault: &Fault,
    ) -> Result<Reply, Reply> {
        let parameter = |name: &str| method.path.get(name).map(String::as_str).unwrap_or_default();
        let [project, dataset, table] = [parameter("projectId"), parameter("datasetId"), parameter("tableId")];
        let (now, options) = (state.clock.now(), &self.options);
        let value = match method.id() {
            "bigquery.datasets.insert" => state.insert_dataset(project, body.clone())?,
            "bigquery.datasets.get" => state.get_dataset(project, dataset)?,
            "bigquery.tables.insert" => {
                let known_from = now + SignedDuration::try_from(options.table_delay).unwrap();
                state.insert_table(project, dataset, body.clone(), known_from)?
            }
            "bigquery.tables.list" => state.list_tables(project, dataset)?,
            "bigquery.tables.get" => state.table(project, dataset, table)?.resource(),
            "bigquery.tables.patch" => {
                let (headers, limits): (&HeaderMap, _) = (&call.head.headers, &options.limits);
                let table = state.table(project, dataset, table)?;
                table.patch(body, headers, now, options.column_delay, limits)?
            }
            "bigquery.tables.testIamPermissions" => state.granted([project, dataset, table], body),
            "bigquery.tables.delete" => {
                state.delete_table(project, dataset, table)?;
                return Ok(Reply::nothing());
            }
            "bigquery.tabledata.insertAll" => state.insert_all([project, dataset, table], body, fault, options)?,
            "bigquery.tabledata.list" => state.table(project, dataset, table)?.list(&call.query),
            other => panic!("{other} is in the fixture and not here"),
        };
        Ok(Reply::json(value))
    }

    fn violation(&self, call: &Call, what: &str) {
        let (verb, path) = (&call.head.method, call.head.uri.path());
        self.state().violations.push(format!("{verb} {path}: {what}"));
    }

    fn note(&self, call: &Call, reply: Option<&Reply>) {
        if !self.options.keeps_requests {
            return;
        }
        let request = Request {
            verb: call.head.method.to_string(),
            path: call.head.uri.to_string(),
            method: call.name().to_owned(),
            headers: call.head.headers.clone(),
            body: call.value(),
            wire_bytes: call.wire_bytes,
            status: reply.map_or(0, |reply| reply.status),
        };
        self.state().requests.push(request);
    }
}

// === impl Line ===

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Drop for Line {
    /// A socket that does not linger is reset.
    fn drop(&mut self) {
        if self.is_cut.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}
