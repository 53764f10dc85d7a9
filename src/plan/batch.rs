//! What is sent: items, the address they share, the batch they travel in and the request it becomes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use super::auth::token::TokenSource;
use super::auth::{AUTHORIZATION, hex};
use super::bigquery::Shape;
use super::error::RuleError;
use super::multipart::Multipart;
use super::{BatchSettings, Compression, Destination, Encoding, Rule};
use crate::attempt::ItemKey;
use crate::event::MessageId;
use crate::expr::{EvalError, Items, Scope, percent_encode};

/// Where an item goes. Items of equal addresses may share a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The method, in uppercase.
    pub method: String,
    /// The whole URL; empty for destinations that are not HTTP.
    pub url: String,
    /// Names in lowercase, in file order.
    pub headers: Vec<(String, String)>,
    /// The value of `batch.by`.
    pub by: String,
    /// How the body becomes bytes.
    pub encoding: Encoding,
    /// Which batch settings are meant: rules that inherit the destination's share them.
    pub lane: usize,
}

/// One rendered payload: what one rule (or one element of its `each`) makes of an event.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name across retries.
    pub key: ItemKey,
    /// The rule that made it.
    pub rule: usize,
    /// Where it goes.
    pub address: Arc<Address>,
    /// JSON text, or lines, or plain text, by the rule's encoding; `None`: no body.
    pub body: Option<Bytes>,
    /// The event it was made from: its idempotency key.
    pub message_id: MessageId,
}

/// Items that share one request, and whose they are.
#[derive(Clone, Debug)]
pub struct Batch<T> {
    /// Never empty; all of one address.
    pub items: Vec<(Item, T)>,
    /// When the first one came.
    pub opened_at: Timestamp,
}

/// What leaves the house.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method, in uppercase; empty for destinations that are not HTTP.
    pub method: String,
    /// The whole URL; empty for destinations that are not HTTP.
    pub url: String,
    /// Names in lowercase.
    pub headers: Vec<(String, String)>,
    /// The body, packed as it is sent.
    pub body: Option<Bytes>,
    /// The longest it may take.
    pub timeout: Duration,
    /// Where the token comes from that it needs; until it has one, `authorization` holds [`TOKEN_PLACEHOLDER`].
    pub token: Option<Arc<TokenSource>>,
    /// How the table is declared that its rows go to, for BigQuery.
    pub shape: Option<Arc<Shape>>,
}

/// What stands in `authorization` for a token that has yet to be asked for.
pub const TOKEN_PLACEHOLDER: &str = "Bearer ***";

// === impl Request ===

impl Request {
    /// The same with the token that it needs.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        for (_, value) in self.headers.iter_mut().filter(|(name, _)| name == AUTHORIZATION) {
            *value = format!("Bearer {token}");
        }
        self.token = None;
        self
    }

    /// The body before it was packed.
    #[must_use]
    pub fn plain_body(&self) -> Option<Bytes> {
        let is_packed = self.headers.iter().any(|(name, value)| name == "content-encoding" && value == "gzip");
        let body = self.body.clone()?;
        Some(if is_packed { Compression::unpack_gzip(&body).unwrap_or(body) } else { body })
    }
}

// === impl Batch ===

impl<T> Batch<T> {
    /// The two halves, for a destination that found the whole too large.
    #[must_use]
    pub fn halves(mut self) -> (Self, Self) {
        let items = self.items.split_off(self.items.len() / 2);
        let second = Self { items, opened_at: self.opened_at };
        (self, second)
    }

    /// Its request's name: the same for every try, another for any other request.
    fn id(&self) -> String {
        let mut hash = Sha256::new();
        for (item, _) in &self.items {
            hash.update(item.key.rule.to_be_bytes());
            hash.update(item.key.index.to_be_bytes());
            hash.update(item.message_id.as_str());
            hash.update([0]);
        }
        format!("msg_{}", hex(&hash.finalize()[..16]))
    }
}

// === impl Item ===

impl Item {
    /// Whether both may travel in one request.
    #[must_use]
    pub fn shares_request_with(&self, other: &Self) -> bool {
        self.address.lane != UNBATCHED && self.address == other.address
    }

    /// Bytes of its body.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, Bytes::len)
    }
}

/// The lane of items whose rule does not batch.
pub(super) const UNBATCHED: usize = 0;

// === impl Destination ===

impl Destination {
    /// Makes the request that carries a batch.
    ///
    /// # Errors
    /// When the envelope fails on these items, or the body does not suit the encoding.
    ///
    /// # Panics
    /// When the batch is empty, which no packer makes.
    pub fn request<T>(&self, batch: &Batch<T>, now: Timestamp) -> Result<Request, RuleError> {
        let first = &batch.items.first().expect("a batch is never empty").0;
        let rule = &self.rules[first.rule];
        let items = batch.items.iter().map(|(item, _)| item);
        let body = self.body(rule, items, now).map_err(|error| self.error(Some(rule), error))?;
        let address = &first.address;
        let headers = self.request_headers(address, body.as_ref().map(|body| &*body.content_type));
        let body = body.map(|body| self.packed(&body.bytes)).transpose().map_err(|error| self.error(None, error))?;
        let (method, url) = (address.method.clone(), address.url.clone());
        let shape = rule.request.insert.as_ref().map(|insert| Arc::clone(&insert.shape));
        let mut request = Request { method, url, headers, body, timeout: self.timeout, token: None, shape };
        let signed = self.auth.apply(&mut request, || batch.id(), now);
        signed.map_err(|error| self.error(None, error).within("auth"))?;
        Ok(request)
    }

    /// A question about the destination, asked by whom its events are sent, which carries no event.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn question(
        &self,
        method: &str,
        url: String,
        body: Option<&Json>,
        timeout: Duration,
        now: Timestamp,
    ) -> Result<Request, RuleError> {
        let headers = body.map(|_| ("content-type".to_owned(), Encoding::Json.content_type().to_owned()));
        let body = body.map(|body| body.to_string().into());
        let (method, headers) = (method.to_owned(), headers.into_iter().collect());
        let mut request = Request { method, url, headers, body, timeout, token: None, shape: None };
        let signed = self.auth.apply(&mut request, || "question".to_owned(), now);
        signed.map_err(|error| self.error(None, error).within("auth"))?;
        Ok(request)
    }

    /// The headers of the file, and those that go with a body of this type, if there is one.
    pub(super) fn request_headers(&self, address: &Address, content_type: Option<&str>) -> Vec<(String, String)> {
        let mut headers = address.headers.clone();
        let Some(content_type) = content_type.filter(|_| self.is_http()) else { return headers };
        if !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".to_owned(), content_type.to_owned()));
        }
        if self.body_compression == Compression::Gzip {
            headers.push(("content-encoding".to_owned(), "gzip".to_owned()));
        }
        headers
    }

    fn packed(&self, body: &Bytes) -> Result<Bytes, EvalError> {
        let packed = self.body_compression.pack_to_send(body);
        packed.map_err(|error| EvalError { message: format!("the body cannot be packed: {error}"), range: None })
    }

    fn body<'a>(
        &self,
        rule: &Rule,
        items: impl Iterator<Item = &'a Item> + Clone,
        now: Timestamp,
    ) -> Result<Option<Body>, EvalError> {
        let mut bodies = items.filter_map(|item| item.body.as_ref());
        let encoding = if self.is_http() { rule.request.encoding } else { Encoding::Ndjson };
        if rule.request.insert.is_some() {
            return Ok(Some(Body::new(encoding, insert_all(bodies))));
        }
        let json = match (encoding, &rule.batch) {
            (Encoding::Ndjson, _) => return Ok(Some(Body::new(encoding, lines(bodies)))),
            (Encoding::Text, _) => return Ok(Some(Body::new(encoding, joined(bodies, b"", b"\n", b"")))),
            (Encoding::Json | Encoding::Form | Encoding::Multipart, None) => bodies.next().cloned(),
            (Encoding::Json | Encoding::Form | Encoding::Multipart, Some(batch)) => {
                Some(self.envelope(rule, batch, bodies.cloned().collect(), now)?)
            }
        };
        json.map(|json| Body::of_json(encoding, json)).transpose()
    }

    /// The JSON body around a batch's items.
    pub(super) fn envelope(
        &self,
        rule: &Rule,
        batch: &BatchSettings,
        items: Vec<Bytes>,
        now: Timestamp,
    ) -> Result<Bytes, EvalError> {
        if rule.request.insert.is_some() {
            return Ok(insert_all(items.iter()));
        }
        let Some(mapping) = &batch.body else { return Ok(joined(items.iter(), b"[", b",", b"]")) };
        let size: usize = items.iter().map(|item| item.len() + 1).sum();
        let mut out = Vec::with_capacity(size + 128);
        let scope = Scope::batch(&self.names, Items { json: items }, now);
        let is_written = mapping.write_json(&scope, rule.request.omit, &mut out).map_err(|place| place.error)?;
        if !is_written {
            return Err(EvalError { message: "the batch's body is missing as a whole".to_owned(), range: None });
        }
        Ok(out.into())
    }
}

/// A body and its media type.
struct Body {
    bytes: Bytes,
    content_type: Cow<'static, str>,
}

// === impl Body ===

impl Body {
    fn new(encoding: Encoding, bytes: Bytes) -> Self {
        Self { bytes, content_type: encoding.content_type().into() }
    }

    /// A JSON body in its encoding.
    fn of_json(encoding: Encoding, json: Bytes) -> Result<Self, EvalError> {
        match encoding {
            Encoding::Json | Encoding::Ndjson | Encoding::Text => Ok(Self::new(encoding, json)),
            Encoding::Form => Ok(Self::new(encoding, form(&json)?)),
            Encoding::Multipart => {
                let Multipart { body, boundary } = Multipart::of_json(&json)?;
                let content_type = format!("{}; boundary={boundary}", encoding.content_type());
                Ok(Self { bytes: body, content_type: content_type.into() })
            }
        }
    }
}

fn lines<'a>(bodies: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let mut out = Vec::with_capacity(bodies.clone().map(|body| body.len() + 1).sum());
    for body in bodies {
        out.extend_from_slice(body);
        out.push(b'\n');
    }
    out.into()
}

fn joined<'a>(bodies: impl Iterator<Item = &'a Bytes> + Clone, open: &[u8], between: &[u8], close: &[u8]) -> Bytes {
    let size = bodies.clone().map(|body| body.len() + between.len()).sum::<usize>() + open.len() + close.len();
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(open);
    for (index, body) in bodies.enumerate() {
        if index > 0 {
            out.extend_from_slice(between);
        }
        out.extend_from_slice(body);
    }
    out.extend_from_slice(close);
    out.into()
}

/// Rows as BigQuery wants them. A bad one must not keep the others out.
fn insert_all<'a>(rows: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    joined(rows, b"{\"skipInvalidRows\":true,\"rows\":[", b",", b"]}")
}

/// A JSON object as a form: scalars as text, lists as repeated keys, objects as JSON, `null` left out.
fn form(json: &[u8]) -> Result<Bytes, EvalError> {
    let not_an_object = || EvalError { message: "a form's body must be a table".to_owned(), range: None };
    let value: Json = serde_json::from_slice(json).map_err(|_| not_an_object())?;
    let members = value.as_object().ok_or_else(not_an_object)?;
    let mut out = String::with_capacity(json.len());
    for (key, value) in members {
        match value {
            Json::Array(elements) => elements.iter().for_each(|element| push_pair(&mut out, key, element)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => {
                push_pair(&mut out, key, value);
            }
        }
    }
    Ok(out.into())
}

fn push_pair(out: &mut String, key: &str, value: &Json) {
    let text = match value {
        Json::Null => return,
        Json::String(text) => text.clone(),
        Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => value.to_string(),
    };
    if !out.is_empty() {
        out.push('&');
    }
    percent_encode(out, key);
    out.push('=');
    percent_encode(out, &text);
}

// === impl Encoding ===

impl Encoding {
    /// The media type of a body in this encoding.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Form => "application/x-www-form-urlencoded",
            Self::Multipart => "multipart/form-data",
            Self::Text => "text/plain; charset=utf-8",
        }
    }
}
