//! A Customer.io of our own: the Track API, v1 and v2, as strict as its description.
//!
//! What it takes, refuses and makes of people is <https://docs.customer.io/files/journeys-track.json> (of 2026-08-13), read
//! 2026-11-26; what it says in which words is ours. Beyond that it can be flaky, too fast for one sender, and it can refuse
//! what comes before its person, which Customer.io does not: so a test sees an order that is wrong.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// The workspace's credentials.
pub(crate) const SITE_ID: &str = "a_site";
pub(crate) const API_KEY: &str = "a_key";

/// Documented: bytes of an id, of an attribute's name and value, attributes, bytes of an event's name and data, of one thing
/// in a batch and of a batch. "kb" is read as 1,000 bytes, which is the stricter reading.
const ID_MAX: usize = 150;
const NAME_MAX: usize = 150;
const VALUE_MAX: usize = 1000;
const ATTRIBUTES_MAX: usize = 300;
const EVENT_NAME_MAX: usize = 100;
const EVENT_DATA_MAX: usize = 100_000;
const ENTITY_MAX: usize = 32_000;
const BATCH_MAX: usize = 500_000;

/// Seconds since 1970 have fewer digits than milliseconds: this is the year 5138.
const SECONDS_MAX: i64 = 100_000_000_000;

/// What its rate is measured over, and by how much it may be off because a machine is busy: a tenth.
const WINDOW_SECONDS: u32 = 3;
const TOLERANCE: u32 = 10;

/// A real HTTP server on a port of its own.
#[derive(Clone)]
pub(crate) struct Customerio {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

/// How it behaves.
#[derive(Clone, Copy, Default)]
pub(crate) struct Temper {
    /// Requests in a hundred that come to nothing, or whose answer does.
    pub(crate) faults: u32,
    /// Which ones.
    pub(crate) seed: u64,
    /// Whether an event, a device or a merge must have its person before it.
    pub(crate) refuses_strangers: bool,
    /// Requests a second; more are too many.
    pub(crate) per_second: Option<u32>,
}

/// What there is, and what happened.
#[derive(Default)]
pub(crate) struct Workspace {
    pub(crate) people: Vec<Person>,
    /// Events of anonymous ids that nobody has.
    pub(crate) anonymous: BTreeMap<String, Vec<Seen>>,
    /// Type and id of objects, and their attributes.
    pub(crate) objects: BTreeMap<(String, String), Map<String, Value>>,
    /// ULIDs of events that were taken.
    pub(crate) ulids: BTreeSet<String>,
    /// How many events came again.
    pub(crate) repeated: usize,
    /// How many requests came, and how many of them ended in which fault.
    pub(crate) requests: usize,
    pub(crate) faults: BTreeMap<&'static str, usize>,
    /// What was refused, and why.
    pub(crate) refused: Vec<String>,
    /// The most that a batch held.
    pub(crate) largest_batch: usize,
}

#[derive(Default)]
pub(crate) struct Person {
    pub(crate) id: Option<String>,
    /// Values, and when they were set.
    attributes: BTreeMap<String, (i64, Value)>,
    pub(crate) events: Vec<Seen>,
    pub(crate) devices: BTreeMap<String, Value>,
    pub(crate) objects: BTreeSet<(String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) at: i64,
    pub(crate) data: Value,
    /// Whether it was nobody's at first.
    pub(crate) is_anonymous: bool,
}

struct Shared {
    workspace: Workspace,
    temper: Temper,
    random: fastrand::Rng,
    knows_us: bool,
    recent: VecDeque<Instant>,
}

#[derive(Clone, Debug, PartialEq)]
enum Who {
    Id(String),
    Email(String),
    Anonymous(String),
}

/// What both versions come down to.
enum Operation {
    Identify { who: Who, attributes: Map<String, Value>, at: i64, objects: Vec<(String, String)> },
    Event { who: Who, event: Seen, ulid: String },
    AddDevice { who: Who, token: String, device: Value },
    RemoveDevice { who: Who, token: String },
    Merge { primary: Who, secondary: Who },
    Object { object: (String, String), attributes: Map<String, Value>, member: Who },
}

/// Why something is not taken.
struct Refusal {
    reason: &'static str,
    field: String,
    message: String,
}

/// A status, headers and a body.
struct Answer(u16, Vec<(&'static str, String)>, Value);

enum Fault {
    TooMany,
    Unavailable,
    /// The connection is cut before anything is done.
    Reset,
    /// The connection is cut when everything is done.
    LostAnswer,
}

// === impl Customerio ===

impl Customerio {
    pub(crate) fn start(temper: Temper) -> Self {
        let shared = Arc::new(Mutex::new(Shared {
            workspace: Workspace::default(),
            temper,
            random: fastrand::Rng::with_seed(temper.seed),
            knows_us: true,
            recent: VecDeque::new(),
        }));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, served));
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The key is good, or it is not.
    pub(crate) fn knows_us(&self, knows_us: bool) {
        self.shared.lock().unwrap().knows_us = knows_us;
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Workspace) -> T) -> T {
        look(&self.shared.lock().unwrap().workspace)
    }
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Mutex<Shared>>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&shared), request));
            // One that we cut ends with an error.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    shared: Arc<Mutex<Shared>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let answered = shared.lock().unwrap().answer(&head.method, head.uri.path(), &head.headers, &body);
    let Answer(status, headers, body) = answered.ok_or_else(|| std::io::Error::other("cut"))?;
    let mut response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(body.to_string())).unwrap())
}

// === impl Shared ===

impl Shared {
    /// The answer, unless there is none.
    fn answer(&mut self, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Option<Answer> {
        self.workspace.requests += 1;
        if self.is_too_fast() {
            return Some(self.fault("rate", Answer::too_many(1)));
        }
        match self.next_fault() {
            Some(Fault::TooMany) => {
                let seconds = self.random.u32(1..4);
                Some(self.fault("429", Answer::too_many(seconds)))
            }
            Some(Fault::Unavailable) => Some(self.fault("503", Answer(503, Vec::new(), json!({})))),
            Some(Fault::Reset) => {
                *self.workspace.faults.entry("reset").or_default() += 1;
                None
            }
            Some(Fault::LostAnswer) => {
                *self.workspace.faults.entry("lost").or_default() += 1;
                self.serve(method, path, headers, body);
                None
            }
            None => Some(self.serve(method, path, headers, body)),
        }
    }

    fn fault(&mut self, name: &'static str, answer: Answer) -> Answer {
        *self.workspace.faults.entry(name).or_default() += 1;
        answer
    }

    fn next_fault(&mut self) -> Option<Fault> {
        if self.random.u32(0..100) >= self.temper.faults {
            return None;
        }
        self.random.choice([Fault::TooMany, Fault::Unavailable, Fault::Reset, Fault::LostAnswer])
    }

    fn is_too_fast(&mut self) -> bool {
        let Some(per_second) = self.temper.per_second else { return false };
        let now = Instant::now();
        self.recent.push_back(now);
        while self
            .recent
            .front()
            .is_some_and(|then| now.duration_since(*then) > Duration::from_secs(WINDOW_SECONDS.into()))
        {
            self.recent.pop_front();
        }
        let most = per_second * WINDOW_SECONDS;
        self.recent.len() > (most + most / TOLERANCE) as usize
    }

    fn serve(&mut self, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
        let credentials = format!("Basic {}", BASE64_STANDARD.encode(format!("{SITE_ID}:{API_KEY}")));
        let is_us = headers.get(AUTHORIZATION).is_some_and(|given| given.as_bytes() == credentials.as_bytes());
        if !(is_us && self.knows_us) {
            return Answer(401, Vec::new(), json!({ "meta": { "error": "Unauthorized request" } }));
        }
        let has_json = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        if !body.is_empty() && !has_json {
            return self.refuse_all(&Refusal::new("invalid", "content-type", "is not JSON"));
        }
        let body = serde_json::from_slice(body).unwrap_or(Value::Null);
        let Some(pieces) = path.strip_prefix("/api/").map(decoded) else { return Answer::not_found() };
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        if (method, pieces.as_slice()) == (&Method::POST, &["v2", "batch"]) {
            return self.batch(&body);
        }
        let Some(operation) = first_version(method, &pieces, &body) else { return Answer::not_found() };
        match operation.and_then(|operation| self.workspace.apply(operation, self.temper.refuses_strangers)) {
            Ok(()) => Answer(200, Vec::new(), json!({})),
            Err(refusal) => self.refuse_all(&refusal),
        }
    }

    /// A 400 for the whole request.
    fn refuse_all(&mut self, refusal: &Refusal) -> Answer {
        self.workspace.refused.push(refusal.text());
        Answer(400, Vec::new(), json!({ "meta": { "error": refusal.text() } }))
    }

    /// `/v2/batch`: all that is right is done, and a 207 names the others.
    fn batch(&mut self, body: &Value) -> Answer {
        if body.to_string().len() >= BATCH_MAX {
            return Answer(413, Vec::new(), json!({ "errors": [{ "reason": "too_large" }] }));
        }
        let Some(batch) = body["batch"].as_array().filter(|batch| !batch.is_empty()) else {
            let error = Refusal::new("required", "batch", "cannot be empty");
            return Answer(400, Vec::new(), json!({ "errors": [error.json()] }));
        };
        self.workspace.largest_batch = self.workspace.largest_batch.max(batch.len());
        let mut errors = Vec::new();
        for (index, entity) in batch.iter().enumerate() {
            let operation = second_version(entity);
            let applied = operation.and_then(|one| self.workspace.apply(one, self.temper.refuses_strangers));
            if let Err(refusal) = applied {
                self.workspace.refused.push(refusal.text());
                let mut error = refusal.json();
                error["batch_index"] = json!(index);
                errors.push(error);
            }
        }
        match errors.as_slice() {
            [] => Answer(200, Vec::new(), json!({})),
            errors => Answer(207, Vec::new(), json!({ "errors": errors })),
        }
    }
}

// === impl Answer ===

impl Answer {
    fn too_many(seconds: u32) -> Self {
        Self(429, vec![("retry-after", seconds.to_string())], json!({ "meta": { "error": "too many requests" } }))
    }

    fn not_found() -> Self {
        Self(404, Vec::new(), json!({ "meta": { "error": "not found" } }))
    }
}

// === impl Refusal ===

impl Refusal {
    fn new(reason: &'static str, field: &str, message: &str) -> Self {
        Self { reason, field: field.to_owned(), message: format!("{field} {message}") }
    }

    fn text(&self) -> String {
        self.message.clone()
    }

    fn json(&self) -> Value {
        json!({ "reason": self.reason, "field": self.field, "message": self.message })
    }
}

// === reading ===

fn decoded(path: &str) -> Vec<String> {
    let piece = |piece: &str| percent_encoding::percent_decode_str(piece).decode_utf8().unwrap().into_owned();
    path.split('/').map(piece).collect()
}

/// What a request of v1 asks for; none: there is no such address.
fn first_version(method: &Method, pieces: &[&str], body: &Value) -> Option<Result<Operation, Refusal>> {
    match (method.as_str(), pieces) {
        ("PUT", ["v1", "customers", who]) => Some(identify(who, body)),
        ("POST", ["v1", "customers", who, "events"]) => Some(shaped(who).and_then(|who| v1_event(who, body))),
        ("POST", ["v1", "events"]) => Some(v1_anonymous(body)),
        ("PUT", ["v1", "customers", who, "devices"]) => {
            Some(shaped(who).and_then(|who| add_device(who, &body["device"], "id")))
        }
        ("DELETE", ["v1", "customers", who, "devices", token]) => {
            Some(shaped(who).map(|who| Operation::RemoveDevice { who, token: (*token).to_owned() }))
        }
        ("POST", ["v1", "merge_customers"]) => {
            Some(only(body, "the body", &["primary", "secondary"]).and_then(|()| merge(body)))
        }
        _ => None,
    }
}

/// A person by what the identifier in a path looks like.
fn shaped(who: &str) -> Result<Who, Refusal> {
    let who = if who.contains('@') { Who::Email(who.to_owned()) } else { Who::Id(who.to_owned()) };
    who.checked()
}

fn identify(who: &str, body: &Value) -> Result<Operation, Refusal> {
    let who = shaped(who)?;
    let mut attributes = object(body, "the body")?.clone();
    let at = attributes.remove("_timestamp").map_or(Ok(0), |at| whole(&at, "_timestamp"))?;
    let relationships = attributes.remove("cio_relationships");
    let objects = relationships.map_or_else(|| Ok(Vec::new()), |given| related(&given))?;
    check_attributes(&attributes)?;
    Ok(Operation::Identify { who, attributes, at, objects })
}

fn related(relationships: &Value) -> Result<Vec<(String, String)>, Refusal> {
    only(relationships, "cio_relationships", &["action", "relationships"])?;
    if relationships["action"] != "add_relationships" {
        return Err(Refusal::new("invalid", "action", "is none that this test makes"));
    }
    let all = relationships["relationships"].as_array();
    let all = all.ok_or_else(|| Refusal::new("invalid", "relationships", "must be a list"))?;
    all.iter().map(|one| object_of(&one["identifiers"])).collect()
}

fn v1_event(who: Who, body: &Value) -> Result<Operation, Refusal> {
    only(body, "the body", &["name", "id", "type", "timestamp", "data"])?;
    let kind = body["type"].as_str().unwrap_or("event");
    event(who, kind, body, &body["data"])
}

fn v1_anonymous(body: &Value) -> Result<Operation, Refusal> {
    only(body, "the body", &["name", "id", "type", "timestamp", "data", "anonymous_id"])?;
    let who = Who::Anonymous(text(&body["anonymous_id"], "anonymous_id", ID_MAX)?);
    event(who, body["type"].as_str().unwrap_or("event"), body, &body["data"])
}

fn event(who: Who, kind: &str, body: &Value, data: &Value) -> Result<Operation, Refusal> {
    if !["event", "page", "screen"].contains(&kind) {
        return Err(Refusal::new("invalid", "type", "is no type of event"));
    }
    let name = text(&body["name"], "event name", EVENT_NAME_MAX)?;
    let ulid = text(&body["id"], "id", 26)?;
    if !is_ulid(&ulid) {
        return Err(Refusal::new("invalid", "id", "must be a ULID"));
    }
    let at = whole(&body["timestamp"], "timestamp")?;
    object(data, "event data")?;
    if data.to_string().len() > EVENT_DATA_MAX {
        return Err(Refusal::new("invalid", "event data", "cannot be longer than 100000 bytes"));
    }
    let is_anonymous = matches!(who, Who::Anonymous(_));
    let event = Seen { kind: kind.to_owned(), name, at, data: data.clone(), is_anonymous };
    Ok(Operation::Event { who, event, ulid })
}

fn add_device(who: Who, device: &Value, token: &str) -> Result<Operation, Refusal> {
    only(device, "device", &[token, "platform", "last_used", "attributes"])?;
    if device["platform"] != "ios" && device["platform"] != "android" {
        return Err(Refusal::new("invalid", "platform", "must be ios or android"));
    }
    whole(&device["last_used"], "last_used")?;
    let attributes = object(&device["attributes"], "device attributes")?;
    if attributes.values().any(|value| !value.is_string()) {
        return Err(Refusal::new("invalid", "device attributes", "must be text"));
    }
    Ok(Operation::AddDevice { who, token: text(&device[token], "device token", usize::MAX)?, device: device.clone() })
}

fn merge(body: &Value) -> Result<Operation, Refusal> {
    let (primary, secondary) = (person_of(&body["primary"])?, person_of(&body["secondary"])?);
    Ok(Operation::Merge { primary, secondary })
}

/// What one thing of a batch of v2 asks for.
fn second_version(entity: &Value) -> Result<Operation, Refusal> {
    if entity.to_string().len() > ENTITY_MAX {
        return Err(Refusal::new("invalid", "the entity", "cannot be larger than 32kb"));
    }
    let (kind, action) = (entity["type"].as_str(), entity["action"].as_str());
    let fields: &[&str] = match (kind, action) {
        (Some("person"), Some("identify")) => &["timestamp", "attributes", "identifiers"],
        (Some("person"), Some("event" | "page" | "screen")) => {
            &["id", "name", "timestamp", "attributes", "identifiers"]
        }
        (Some("person"), Some("add_device" | "delete_device")) => &["device", "identifiers"],
        (Some("person"), Some("merge")) => &["primary", "secondary"],
        (Some("object"), Some("identify" | "identify_anonymous")) => {
            &["attributes", "identifiers", "cio_relationships"]
        }
        _ => return Err(Refusal::new("invalid", "action", "is none")),
    };
    only(entity, "the entity", &[fields, &["type", "action"]].concat())?;
    let action = action.unwrap_or_default();
    match action {
        "merge" => merge(entity),
        "event" | "page" | "screen" => event(anybody(&entity["identifiers"])?, action, entity, &entity["attributes"]),
        "add_device" => add_device(person_of(&entity["identifiers"])?, &entity["device"], "token"),
        "delete_device" => {
            only(&entity["device"], "device", &["token"])?;
            let token = text(&entity["device"]["token"], "device token", usize::MAX)?;
            Ok(Operation::RemoveDevice { who: person_of(&entity["identifiers"])?, token })
        }
        _ if kind == Some("object") => object_entity(entity, action == "identify_anonymous"),
        _ => {
            let attributes = object(&entity["attributes"], "attributes")?.clone();
            check_attributes(&attributes)?;
            let (who, at) = (person_of(&entity["identifiers"])?, whole(&entity["timestamp"], "timestamp")?);
            Ok(Operation::Identify { who, attributes, at, objects: Vec::new() })
        }
    }
}

fn object_entity(entity: &Value, is_anonymous: bool) -> Result<Operation, Refusal> {
    let attributes = object(&entity["attributes"], "attributes")?.clone();
    check_attributes(&attributes)?;
    let member = &entity["cio_relationships"][0]["identifiers"];
    let member = if is_anonymous { anybody(member)? } else { person_of(member)? };
    Ok(Operation::Object { object: object_of(&entity["identifiers"])?, attributes, member })
}

/// Exactly one identifier of a person.
fn person_of(identifiers: &Value) -> Result<Who, Refusal> {
    match anybody(identifiers)? {
        Who::Anonymous(_) => Err(Refusal::new("invalid", "identifiers", "name nobody")),
        who @ (Who::Id(_) | Who::Email(_)) => Ok(who),
    }
}

/// The same, or an anonymous id.
fn anybody(identifiers: &Value) -> Result<Who, Refusal> {
    let fields = object(identifiers, "identifiers")?;
    let one = Refusal::new("invalid", "identifiers", "must be one");
    let mut fields = fields.iter();
    let (Some((name, value)), None) = (fields.next(), fields.next()) else { return Err(one) };
    let value = text(value, name, ID_MAX)?;
    match name.as_str() {
        "id" => Ok(Who::Id(value)),
        "email" => Ok(Who::Email(value)),
        "anonymous_id" => Ok(Who::Anonymous(value)),
        _ => Err(one),
    }
}

fn object_of(identifiers: &Value) -> Result<(String, String), Refusal> {
    only(identifiers, "identifiers", &["object_type_id", "object_id"])?;
    let kind = text(&identifiers["object_type_id"], "object_type_id", ID_MAX)?;
    kind.parse::<u32>().map_err(|_| Refusal::new("invalid", "object_type_id", "must be a number as text"))?;
    Ok((kind, text(&identifiers["object_id"], "object_id", ID_MAX)?))
}

// === checks ===

fn object<'a>(value: &'a Value, field: &str) -> Result<&'a Map<String, Value>, Refusal> {
    value.as_object().ok_or_else(|| Refusal::new("invalid", field, "must be an object"))
}

fn only(value: &Value, field: &str, known: &[&str]) -> Result<(), Refusal> {
    let unknown = object(value, field)?.keys().find(|name| !known.contains(&name.as_str()));
    unknown.map_or(Ok(()), |name| Err(Refusal::new("unknown", name, "is not known")))
}

fn text(value: &Value, field: &str, max: usize) -> Result<String, Refusal> {
    let text = value.as_str().filter(|text| !text.trim().is_empty());
    let text = text.ok_or_else(|| Refusal::new("required", field, "must not be blank"))?;
    if text.len() > max {
        return Err(Refusal::new("invalid", field, &format!("cannot be longer than {max} bytes")));
    }
    Ok(text.to_owned())
}

/// Seconds since 1970.
fn whole(value: &Value, field: &str) -> Result<i64, Refusal> {
    let seconds = value.as_i64().filter(|seconds| seconds.abs() < SECONDS_MAX);
    seconds.ok_or_else(|| Refusal::new("invalid", field, "must be a unix timestamp"))
}

fn check_attributes(attributes: &Map<String, Value>) -> Result<(), Refusal> {
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(Refusal::new("invalid", "attributes", "are more than 300"));
    }
    if let Some(created_at) = attributes.get("created_at") {
        whole(created_at, "created_at")?;
    }
    for (name, value) in attributes {
        if name.len() > NAME_MAX {
            return Err(Refusal::new("invalid", "attribute name", "cannot be longer than 150 bytes"));
        }
        if ["cio_id", "_update", "createdAt"].contains(&name.as_str()) {
            return Err(Refusal::new("invalid", name, "is not for us to say"));
        }
        if value.as_str().is_some_and(|value| value.len() > VALUE_MAX) {
            let message = format!("for attribute '{name}' cannot be longer than {VALUE_MAX} bytes");
            return Err(Refusal::new("invalid", "value", &message));
        }
    }
    Ok(())
}

/// <https://github.com/ulid/spec>: 26 characters of Crockford's alphabet, 128 bits at most.
fn is_ulid(text: &str) -> bool {
    let is_digit = |digit: u8| digit.is_ascii_digit() || (digit.is_ascii_uppercase() && !b"ILOU".contains(&digit));
    text.len() == 26 && text.bytes().all(is_digit) && text.as_bytes()[0] <= b'7'
}

// === impl Who ===

impl Who {
    fn checked(self) -> Result<Self, Refusal> {
        let (Self::Id(value) | Self::Email(value) | Self::Anonymous(value)) = &self;
        if value.is_empty() || value.len() > ID_MAX {
            return Err(Refusal::new("invalid", "identifier", "must have 1 to 150 bytes"));
        }
        Ok(self)
    }
}

// === impl Workspace ===

impl Workspace {
    /// The person of an id, or of an e-mail address.
    #[track_caller]
    pub(crate) fn person(&self, who: &str) -> &Person {
        self.people.iter().find(|person| person.is_called(who)).unwrap_or_else(|| panic!("there is no {who}"))
    }

    fn find(&mut self, who: &Who) -> Option<&mut Person> {
        let (Who::Id(name) | Who::Email(name) | Who::Anonymous(name)) = who;
        self.people.iter_mut().find(|person| match who {
            Who::Id(_) => person.id.as_ref() == Some(name),
            Who::Email(_) => person.attribute("email") == Some(&json!(name)),
            Who::Anonymous(_) => person.attribute("anonymous_id") == Some(&json!(name)),
        })
    }

    /// The person, made if need be; a stranger may be refused instead.
    fn known(&mut self, who: &Who, refuses_strangers: bool) -> Result<&mut Person, Refusal> {
        if self.find(who).is_none() {
            if refuses_strangers {
                return Err(Refusal::new("stranger", &format!("{who:?}"), "is not known yet"));
            }
            self.people.push(Person::new(who));
        }
        Ok(self.find(who).unwrap())
    }

    fn apply(&mut self, operation: Operation, refuses_strangers: bool) -> Result<(), Refusal> {
        match operation {
            Operation::Identify { who, attributes, at, objects } => self.identify(&who, attributes, at, objects),
            Operation::Event { who, event, ulid } => return self.take(&who, event, ulid, refuses_strangers),
            Operation::AddDevice { who, token, device } => {
                self.known(&who, refuses_strangers)?.devices.insert(token, device);
            }
            Operation::RemoveDevice { who, token } => {
                self.known(&who, refuses_strangers)?.devices.remove(&token);
            }
            Operation::Merge { primary, secondary } => self.merge(&primary, &secondary, refuses_strangers)?,
            Operation::Object { object, attributes, member } => {
                self.objects.entry(object.clone()).or_default().extend(attributes);
                if let Some(person) = self.find(&member) {
                    person.objects.insert(object);
                }
            }
        }
        Ok(())
    }

    fn identify(&mut self, who: &Who, attributes: Map<String, Value>, at: i64, objects: Vec<(String, String)>) {
        let adopted = attributes.get("anonymous_id").and_then(Value::as_str).and_then(|id| self.anonymous.remove(id));
        if self.find(who).is_none() {
            self.people.push(Person::new(who));
        }
        let person = self.find(who).unwrap();
        person.events.extend(adopted.unwrap_or_default());
        person.objects.extend(objects);
        for (name, value) in attributes {
            person.set(name, value, at);
        }
    }

    fn take(&mut self, who: &Who, event: Seen, ulid: String, refuses_strangers: bool) -> Result<(), Refusal> {
        if self.ulids.contains(&ulid) {
            self.repeated += 1;
            return Ok(());
        }
        if let (Who::Anonymous(id), None) = (who, self.find(who)) {
            self.anonymous.entry(id.clone()).or_default().push(event);
        } else {
            self.known(who, refuses_strangers)?.events.push(event);
        }
        self.ulids.insert(ulid);
        Ok(())
    }

    /// The secondary's events and devices go to the primary, and the attributes that it lacks; the secondary goes.
    fn merge(&mut self, primary: &Who, secondary: &Who, refuses_strangers: bool) -> Result<(), Refusal> {
        self.known(primary, refuses_strangers)?;
        // Merged already: it was asked for again.
        let Some(place) = self.place(secondary) else { return Ok(()) };
        let gone = self.people.remove(place);
        let person = self.find(primary).unwrap();
        person.events.extend(gone.events);
        person.devices.extend(gone.devices);
        for (name, value) in gone.attributes {
            person.attributes.entry(name).or_insert(value);
        }
        Ok(())
    }

    fn place(&self, who: &Who) -> Option<usize> {
        let (Who::Id(name) | Who::Email(name) | Who::Anonymous(name)) = who;
        self.people.iter().position(|person| person.is_called(name))
    }
}

// === impl Person ===

impl Person {
    fn new(who: &Who) -> Self {
        let mut person = Self::default();
        match who {
            Who::Id(id) => person.id = Some(id.clone()),
            Who::Email(email) => person.set("email".to_owned(), json!(email), 0),
            Who::Anonymous(id) => person.set("anonymous_id".to_owned(), json!(id), 0),
        }
        person
    }

    fn is_called(&self, name: &str) -> bool {
        self.id.as_deref() == Some(name) || self.attribute("email") == Some(&json!(name))
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.get(name).map(|(_, value)| value)
    }

    /// A value does not replace one that was set later.
    fn set(&mut self, name: String, value: Value, at: i64) {
        if self.attributes.get(&name).is_none_or(|(before, _)| *before <= at) {
            self.attributes.insert(name, (at, value));
        }
    }

    /// Names of events that were the person's own, in the order in which they came.
    pub(crate) fn own_events(&self) -> Vec<&str> {
        self.events.iter().filter(|event| !event.is_anonymous).map(|event| event.name.as_str()).collect()
    }

    /// Names of events that were nobody's at first.
    pub(crate) fn adopted_events(&self) -> BTreeSet<&str> {
        self.events.iter().filter(|event| event.is_anonymous).map(|event| event.name.as_str()).collect()
    }
}
