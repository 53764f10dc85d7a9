//! Any HTTP API: one client, and so one pool of connections, per destination.

use std::error::Error as _;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{BoxFuture, FutureExt as _};
use jiff::Timestamp;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Method, Response};
use rustls::ClientConfig;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use super::token::Tokens;
use super::{Sink, SinkError};
use crate::attempt::{Failure, Reason};
use crate::plan::auth::token::{Answer, Question, TokenSource};
use crate::plan::{Reply, Request};

/// A destination's HTTP client.
pub struct Http {
    client: Client,
    /// Asks the machine's own servers, past every proxy: their answers are tokens, and unencrypted. Few destinations need
    /// it: it is made when it is first asked for.
    near: OnceLock<Client>,
    tls: ClientConfig,
    tokens: Tokens,
}

/// What a server is told of us.
const USER_AGENT: &str = concat!("libroseg/", env!("CARGO_PKG_VERSION"));

/// A connection that takes longer than this will not come: a lost SYN is sent again after one, three and seven seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What stands for a token in an answer.
const TOKEN_MASK: &str = "[secret]";

/// Bytes of a file that are read for a token: what is longer goes into no header.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// Bytes of a reply that are read: enough for the verdicts on the items of the largest batch.
const REPLY_BYTES_MAX: usize = 4 << 20;

// === impl Http ===

impl Http {
    /// A client for so many requests at a time, whose connections are closed when nobody has used them for so long.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub fn new(tls: ClientConfig, concurrency: usize, idle_max: Duration) -> Result<Self, SinkError> {
        let client = builder(tls.clone())
            .pool_max_idle_per_host(concurrency)
            .pool_idle_timeout(idle_max)
            .tcp_nodelay(true)
            .build()?;
        Ok(Self { client, near: OnceLock::new(), tls, tokens: Tokens::default() })
    }

    fn near(&self) -> Result<&Client, reqwest::Error> {
        if let Some(near) = self.near.get() {
            return Ok(near);
        }
        let near = builder(self.tls.clone()).no_proxy().pool_max_idle_per_host(0).build()?;
        Ok(self.near.get_or_init(|| near))
    }

    /// Sends a request once.
    async fn once(&self, request: Request) -> Reply {
        sent(&self.client, request).await
    }

    /// Sends a request with the token it needs. A token that was held and is refused is replaced, once.
    async fn with_token(&self, source: &TokenSource, request: Request, now: Timestamp) -> Reply {
        let mut tries = 0;
        loop {
            let given = self.tokens.get(source, now, request.timeout, |question| self.answer(question)).await;
            let given = match given {
                Ok(given) => given,
                Err(reply) => return reply,
            };
            let reply = self.once(request.clone().with_token(&given.value)).await;
            if !is_refused(&reply) {
                return without(reply, &given.value);
            }
            self.tokens.forget(&given.value).await;
            tries += 1;
            if given.is_new || tries == 2 {
                return without(reply, &given.value);
            }
        }
    }

    /// Asks for a token, and keeps it.
    ///
    /// # Errors
    /// What a request that needs it would hear.
    pub(super) async fn look_for_token(
        &self,
        source: &TokenSource,
        now: Timestamp,
        timeout: Duration,
    ) -> Result<(), Reply> {
        let given = self.tokens.get(source, now, timeout, |question| self.answer(question));
        let late = || {
            Reply::Lost(Failure::new(
                Reason::Timeout,
                format!("asking {} for a token: no answer in time", source.url()),
            ))
        };
        tokio::time::timeout(timeout, given).await.map_err(|_| late())?.map(|_| ())
    }

    /// Finds out what is needed for a token.
    async fn answer(&self, question: Question) -> Answer {
        match question {
            Question::Ask(request) => Answer::Heard(self.once(*request).await),
            Question::AskNear(request) => Answer::Heard(match self.near() {
                Ok(near) => sent(near, *request).await,
                Err(error) => lost(&error),
            }),
            Question::Read(path) => Answer::Read(read_text(&path).await.map_err(|error| error.to_string())),
        }
    }
}

impl Sink for Http {
    fn send(&self, request: Request, now: Timestamp) -> BoxFuture<'_, Reply> {
        async move {
            let Some(source) = request.token.clone() else { return self.once(request).await };
            let timeout = request.timeout;
            let sent = tokio::time::timeout(timeout, self.with_token(&source, request, now));
            sent.await
                .unwrap_or_else(|_| Reply::Lost(Failure::new(Reason::Timeout, "no answer in time, token included")))
        }
        .boxed()
    }
}

/// What all our clients have in common.
fn builder(tls: ClientConfig) -> ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(USER_AGENT)
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
}

async fn sent(client: &Client, request: Request) -> Reply {
    exchange(client, request).await.unwrap_or_else(|error| lost(&error))
}

async fn exchange(client: &Client, request: Request) -> Result<Reply, reqwest::Error> {
    let method = Method::from_bytes(request.method.as_bytes()).unwrap_or(Method::POST);
    let mut builder = client.request(method, &request.url).timeout(request.timeout);
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    if let Some(body) = request.body {
        builder = builder.body(body);
    }
    let response = builder.send().await?;
    let status = response.status().as_u16();
    let headers = headers(&response);
    let body = read(response).await?;
    Ok(Reply::Answered { status, headers, body, news: None })
}

/// Whether an answer says that the token is not good (RFC 9110, 15.5.2).
fn is_refused(reply: &Reply) -> bool {
    matches!(reply, Reply::Answered { status: 401, .. })
}

/// An answer without the token, which an echo of our request may hold.
fn without(reply: Reply, token: &str) -> Reply {
    let Reply::Answered { status, headers, body, news } = reply else { return reply };
    let masked = |text: &str| text.replace(token, TOKEN_MASK);
    let body = match std::str::from_utf8(&body) {
        Ok(text) if text.contains(token) => masked(text).into(),
        Ok(_) | Err(_) => body,
    };
    let headers = headers.into_iter().map(|(name, value)| (name, masked(&value))).collect();
    Reply::Answered { status, headers, body, news }
}

fn headers(response: &Response) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))).collect()
}

/// A small text of this machine.
async fn read_text(path: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(path).await?.take(TOKEN_BYTES_MAX).read_to_string(&mut text).await?;
    Ok(text)
}

async fn read(mut response: Response) -> Result<Bytes, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        let room = REPLY_BYTES_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == REPLY_BYTES_MAX {
            break;
        }
    }
    Ok(body.freeze())
}

/// The error's text without its URL, which may hold a key, and without a stack of "error sending request".
fn lost(error: &reqwest::Error) -> Reply {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let detail = if error.source().is_some() { innermost.to_string() } else { "no reply".to_owned() };
    if error.is_builder() {
        return Reply::Unsendable(Failure::new(Reason::Mapping, format!("not a request that can be sent: {detail}")));
    }
    let reason = if error.is_timeout() { Reason::Timeout } else { Reason::Connection };
    Reply::Lost(Failure::new(reason, detail))
}
