//! Every section and key. A new key of the language gets its entry here; the tests of `keys` say so if it is forgotten.
//!
//! Bounds, words and defaults are never written out: they are what the readers and the plan use.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Absent, Bounds, Key, Section, Shape, Text};
use crate::attempt::Start;
use crate::config::{auth, bigquery, cases, destination, queue, request, server, units};
use crate::plan::auth::hmac::SignatureEncoding;
use crate::plan::auth::token::ClientStyle;
use crate::plan::bigquery::{ENDPOINT, Per};
use crate::plan::case::Fate;
use crate::plan::tracking::{OnViolation, SchemaOf};
use crate::plan::{Compression, Encoding, Limit, QueueKind, QueueSettings, Server, Then};
use crate::retry::RetryPolicy;
use crate::segment::{Limits, Policy, UnknownKey};

/// The types for which what holds for most holds.
const NOT_BIGQUERY: [&str; 3] = ["http", "file", "stdout"];

pub(super) fn all() -> Vec<Section> {
    let mut all = vec![file(), server(), limits(), tls(), cors(), sources(), source(), source_limit()];
    all.extend([queue(), dead_letters(), lets("[let]", "[let]"), lets("`let`", ""), env(), tables(), table()]);
    all.extend([plans(), plan(), schema()]);
    all.extend([destinations(), destination(), rule(), headers(), query(), body(), each_list()]);
    all.extend([schema_of_table(), column(), row(), partition_by()]);
    all.extend([batch(), auth(), auth_by_name(), hmac(), oauth2(), oauth2_params(), google(), aws()]);
    all.extend([retry(), limit(), sample(), response(), test(), texts()]);
    all
}

// --- how an entry is written

fn section(what: &'static str, header: &'static str, meaning: &'static str, keys: Vec<Key>) -> Section {
    Section { what, header, meaning, keys, own: None }
}

/// A table whose keys are the user's own.
fn own(what: &'static str, header: &'static str, meaning: &'static str, shape: Shape) -> Section {
    Section { own: Some(shape), ..section(what, header, meaning, Vec::new()) }
}

/// A key without which nothing happens.
fn key(name: &'static str, shape: Shape, meaning: &'static str) -> Key {
    Key { name, shape, absent: Absent::Otherwise("none"), meaning, types: Vec::new(), in_rules: false }
}

impl Key {
    fn must_be_given(self) -> Self {
        Self { absent: Absent::MustBeGiven, ..self }
    }

    /// What holds without it, as it would be written.
    fn or(self, value: impl Into<String>) -> Self {
        Self { absent: Absent::Value(value.into()), ..self }
    }

    /// What holds without it, in words.
    fn otherwise(self, absent: &'static str) -> Self {
        Self { absent: Absent::Otherwise(absent), ..self }
    }

    fn only(self, types: &[&'static str]) -> Self {
        Self { types: types.to_vec(), ..self }
    }

    fn in_rules(self) -> Self {
        Self { in_rules: true, ..self }
    }
}

fn duration(range: RangeInclusive<Duration>) -> Shape {
    Shape::Within(Bounds::Duration(range))
}

fn size(range: RangeInclusive<u64>) -> Shape {
    Shape::Within(Bounds::Size(range))
}

fn count(range: RangeInclusive<u64>) -> Shape {
    Shape::Within(Bounds::Count(range))
}

/// Above zero, or from `least`.
fn number(least: Option<f64>, most: Option<f64>) -> Shape {
    Shape::Number { least, most }
}

fn words<T>(words: &[(&'static str, T)]) -> Shape {
    Shape::Within(Bounds::Words(words.iter().map(|(word, _)| *word).collect()))
}

fn either<const N: usize>(shapes: [Shape; N]) -> Shape {
    Shape::Either(shapes.into())
}

fn list(element: Shape) -> Shape {
    Shape::List(Box::new(element))
}

/// One, or a list of such.
fn some(shape: Shape) -> Shape {
    either([shape.clone(), list(shape)])
}

/// A string that stands for itself.
fn literal(name: &'static str, pattern: &'static str) -> Shape {
    Shape::Text(Text { name, is_template: false, pattern })
}

/// A string that may be made from expressions.
fn text(name: &'static str, pattern: &'static str) -> Shape {
    Shape::Text(Text { name, is_template: true, pattern })
}

fn template() -> Shape {
    text("template", "")
}

/// Says what it is only by an expression.
fn expression() -> Shape {
    text("template", NEVER)
}

/// An entry of `on`.
fn trigger() -> Shape {
    literal("event type or `TYPE:NAME`", r"^(\*|track|identify|page|screen|group|alias)(:.+)?$")
}

fn condition() -> Shape {
    text("condition", ".")
}

fn json_path() -> Shape {
    literal("JSONPath", r"^\s*[$@]")
}

/// A pattern that nothing fits: the string has to be made from expressions.
const NEVER: &str = "^\\b$";

/// A token of HTTP (RFC 9110, 5.6.2).
const TOKEN: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";

/// Host, colon, port.
const ADDRESS: &str = r"^.+:\d+$";

// --- values as they would be written

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn written_duration(duration: Duration) -> String {
    quoted(&units::written_duration(duration))
}

fn written_size(bytes: u64) -> String {
    quoted(&units::written_size(bytes))
}

/// The word of a value.
fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> String {
    let word = words.iter().find(|(_, meaning)| meaning == value).map(|(word, _)| *word);
    quoted(word.expect("a default is one of the words"))
}

// The catalogue says so.
const _: () = assert!(server::SOCKET_PATH_BYTES_MAX == 103);

// === the top ===

fn file() -> Section {
    let keys = vec![
        key("server", Shape::Table("[server]"), "how to listen, and how much to let in"),
        key("sources", Shape::Table("[sources]"), "who may send"),
        key("plan", Shape::Table("[plan]"), "what events ought to look like"),
        key("queue", Shape::Table("[queue]"), "where accepted events wait"),
        key("let", Shape::Table("[let]"), "names for expressions, for every destination"),
        key("tables", Shape::Table("[tables]"), "constants to look things up in"),
        key("defaults", Shape::Table("a destination"), "any key of a destination, for all of them; tables merge deeply, the destination's own win, `auth` is replaced as a whole"),
        key("destinations", Shape::Table("[destinations]"), "where events go, and as what"),
        key("tests", list(Shape::Table("a test")), "what the file promises about its destinations"),
    ];
    section("the file", "", "What a file may hold.", keys)
}

// === [server] ===

fn server() -> Section {
    let server = Server::default();
    let keys = vec![
        key("listen", text("address and port", ADDRESS), "where to listen; `PORT` replaces the port, `--listen` the whole").or(quoted(&server.listen)),
        key("tls", Shape::Table("`tls`"), "HTTPS instead of HTTP").otherwise("plain HTTP"),
        key("limits", Shape::Table("`limits`"), "what a request may hold"),
        key("unknown_key", words(&server::UNKNOWN_KEYS), "an unknown write key hears 400 (`\"reject\"`), or 200 and its events are discarded (`\"accept\"`)").or(word(&server::UNKNOWN_KEYS, &UnknownKey::default())),
        key("strict", Shape::Boolean, "an event that would be discarded makes the request a 400 that lists what is wrong; for development").or(Policy::default().strict.to_string()),
        key("cors", Shape::Table("`cors`"), "which pages may send").otherwise("any"),
        key("trusted_proxies", list(text("address or network", r"^[0-9A-Fa-f.:]+(/\d+)?$")), "networks whose `X-Forwarded-*` headers are believed"),
        key("analytics_js", text("path", "."), "the browser SDK that `/analytics.js/v1/KEY/analytics.min.js` serves, and beside it the `.js` files that it loads from `/analytics-next/bundles/`").otherwise("404"),
        key("metrics", either([Shape::Boolean, text("address and port", ADDRESS)]), "where `/metrics` is: beside everything else (`true`), nowhere (`false`), or only at an address of its own").or("true"),
        key("control", text("path, up to 103 bytes", "."), "the socket through which commands reach this process").otherwise("`control.sock` in the queue's `dir`; none with a queue in memory"),
        key("header_timeout", duration(server::WAITS), "the longest a request's head may take").or(written_duration(server.header_timeout)),
        key("body_timeout", duration(server::WAITS), "the longest a request's body may take").or(written_duration(server.body_timeout)),
        key("max_connections", count(server::CONNECTIONS), "connections at a time; more wait").or(server.connections_max.to_string()),
        key("shutdown_timeout", duration(server::SHUTDOWNS), "how long a shutdown may take: a quarter for the door, the rest for deliveries").or(written_duration(server.shutdown_timeout)),
    ];
    section("[server]", "[server]", "How to listen, and how much to let in. Paths are relative to the working directory.", keys)
}

fn limits() -> Section {
    let limits = Limits::default();
    let keys = vec![
        key("event", size(server::BODY_SIZES), "one call's body, and one event in a batch, decoded").or(written_size(limits.event_bytes_max as u64)),
        key("batch", size(server::BODY_SIZES), "a batch's body, decoded").or(written_size(limits.batch_bytes_max as u64)),
        key("batch_events", count(server::BATCH_EVENTS), "events in a batch; the rest is discarded").or(limits.batch_events_max.to_string()),
    ];
    section("`limits`", "", "What a request may hold.", keys)
}

fn tls() -> Section {
    let keys = vec![
        key("cert", text("path", "."), "a PEM file with the certificate chain, looked at again every minute").must_be_given(),
        key("key", text("path", "."), "a PEM file with the private key, looked at again every minute").must_be_given(),
    ];
    section("`tls`", "", "HTTPS instead of HTTP.", keys)
}

fn cors() -> Section {
    let origin = text("origin", r"^(\*|[a-z][a-z0-9+.-]*://[^/]+)$");
    let keys = vec![key("origins", list(origin), "pages that browsers may send from; `\"*\"` is any").must_be_given()];
    section("`cors`", "", "Which pages may send.", keys)
}

// === [sources] ===

fn sources() -> Section {
    own("[sources]", "", "Who may send, by name.", Shape::Table("a source"))
}

fn source() -> Section {
    let keys = vec![
        key("write_keys", list(text("string", "")), "any of these is this source; several allow a key to be renewed").must_be_given(),
        key("destinations", list(literal("name of a destination", "")), "the only destinations that get its events").otherwise("all"),
        key("enabled", either([Shape::Boolean, text("template", "")]), "off: its events hear 200 and are discarded; read as for a destination").or("true"),
        key("limit", Shape::Table("a source's `limit`"), "how fast it may send; faster is answered 429, and SDKs send again").otherwise("no limit"),
    ];
    section("a source", "[sources.NAME]", "Somebody who may send.", keys)
}

fn source_limit() -> Section {
    let keys = vec![
        key("per_second", number(None, None), "events per second, on average; every message of a request counts, whatever becomes of it").must_be_given(),
        key("burst", number(Some(1.0), None), "events at once, after a silence that was long enough. A request is taken whole or not at all; one with more events than this is taken after such a silence, and those after it wait the longer").otherwise("`per_second`, at least 1"),
    ];
    section("a source's `limit`", "", "How fast a source may send.", keys)
}

// === [plan] ===

fn plans() -> Section {
    own("[plan]", "", "Tracking plans, by name.", Shape::Table("a tracking plan"))
}

fn plan() -> Section {
    let keys = vec![
        key("on", some(trigger()), "which events it is about, as in rules").otherwise("all"),
        key("when", some(condition()), "and only those for which all of this holds"),
        key("sources", list(literal("name of a source", "")), "and only those of these sources").otherwise("all"),
        key("require", some(json_path()), "paths, each of which must pick something that is not `null`"),
        key("check", some(condition()), "conditions that must all hold"),
        key("schema", either([text("path", "."), Shape::Table("a JSON Schema")]), "a JSON Schema, as a table or as the path of a file with one. It refers to itself only: nothing is fetched. `format` counts, `pattern` is one of the regex crate"),
        key("schema_of", words(&SchemaOf::ALL), "the part of an event that the schema describes; a part that is missing is `{}`").otherwise("`event`"),
        key("on_violation", words(&OnViolation::ALL), "what becomes of an event with something wrong: it goes on and says so in `context.violations` (`\"tag\"`), is discarded at the door (`\"reject\"`), or is a dead letter of every destination whose rules want it (`\"dead\"`)").or(word(&OnViolation::ALL, &OnViolation::default())),
    ];
    section("a tracking plan", "[plan.NAME]", "What events ought to look like, and what becomes of those that do not. It has `require`, `check` or `schema`.", keys)
}

fn schema() -> Section {
    own("a JSON Schema", "[plan.NAME.schema]", "A JSON Schema, of draft 2020-12 unless `$schema` says otherwise.", Shape::Constant)
}

// === [queue] ===

fn queue() -> Section {
    let queue = QueueSettings::default();
    let of = |kind: QueueKind| written_size(kind.default_size_bytes_max());
    let keys = vec![
        key("type", words(&queue::KINDS), "`\"disk\"`: a 200 means that the events are on this machine's disk. `\"memory\"`: that they are in this process, which takes them with it when it ends").otherwise("`\"disk\"`; in a Vercel Function, which has none, `\"memory\"`"),
        key("ack", words(&queue::ACKS), "a sender hears 200 when the queue has the events (`\"queued\"`), or when every destination has them, has no use for them, or has refused them for good (`\"delivered\"`)").or(word(&queue::ACKS, &queue.ack)).only(&["memory"]),
        key("ack_timeout", duration(queue::ACK_TIMEOUTS), "with `ack = \"delivered\"`: a sender that has waited so long hears 503, and comes back").or(written_duration(queue.ack_timeout)).only(&["memory"]),
        key("max_size", size(queue::DISK_SIZES), "bytes that files may take up; beyond it senders hear 503").or(of(QueueKind::Disk)).only(&["disk"]),
        key("max_size", size(queue::MEMORY_SIZES), "bytes of event text; beyond it senders hear 503").or(of(QueueKind::Memory)).only(&["memory"]),
        key("dedup", either([duration(queue::DEDUP), Shape::False]), "an event whose `messageId` came before from the same source, within this time, is not stored again; `\"0s\"` or `false`: it is").or(written_duration(queue.dedup_window)),
        key("dedup_ids", count(queue::DEDUP_IDS), "message ids remembered at most, some 50 bytes of memory each").or(queue.dedup_ids_max.to_string()),
        key("dir", text("path", "."), "its folder; made when it is not there").or(quoted(&queue.dir.display().to_string())).only(&["disk"]),
        key("retain", duration(queue::RETAIN), "how long events are kept, delivered or not. Those that a destination has yet to see are kept for as long as that takes").or(written_duration(queue.retain)).only(&["disk"]),
        key("dead_letters", Shape::Table("`dead_letters`"), "how long and how many dead letters are kept").only(&["disk"]),
    ];
    section("[queue]", "[queue]", "Where accepted events wait.", keys)
}

fn dead_letters() -> Section {
    let queue = QueueSettings::default();
    let keys = vec![
        key("retain", duration(queue::RETAIN), "how long dead letters are kept").or(written_duration(queue.letters_retain)),
        key("max_size", size(queue::LETTERS_SIZES), "bytes of dead letters; the oldest make room").or(written_size(queue.letters_bytes_max)),
    ];
    section("`dead_letters`", "", "Which dead letters are kept.", keys)
}

// === what destinations share ===

fn lets(what: &'static str, header: &'static str) -> Section {
    own(what, header, "Names for expressions.", Shape::Scalar)
}

fn env() -> Section {
    own("`env`", "", "Variables by name. The templates see the variables of the process.", Shape::Scalar)
}

fn tables() -> Section {
    own("[tables]", "", "Constants to look things up in, by name.", Shape::Table("[tables.NAME]"))
}

fn table() -> Section {
    own("[tables.NAME]", "[tables.NAME]", "Constants to look things up in: `{{ tables.NAME[traits.plan] }}`.", Shape::Constant)
}

// === [destinations] ===

fn destinations() -> Section {
    own("[destinations]", "", "Where events go, by name.", Shape::Table("a destination"))
}

fn destination() -> Section {
    let mut keys = vec![
        key("type", words(&destination::TYPES), "an HTTP API, BigQuery, a file that grows, or standard output").or(quoted("http")),
        key("enabled", either([Shape::Boolean, template()]), "off when `false`, or when a template gives nothing, `\"\"`, `false`, `0`, `no` or `off`, or names a variable that is not set. The log says why. A destination that is off is checked all the same, but its variables may be unset").or("true"),
        key("integration", either([some(literal("name", "")), Shape::False]), "its names in an event's `integrations` object, whatever their case. `false`: it takes no notice of that object, like a warehouse of Segment's").otherwise("its own name"),
        key("consent", some(literal("consent category", r"\S")), "the consent categories it belongs to: it is given only events whose `context.consent.categoryPreferences` has all of them `true`, or that bring no consent at all").otherwise("consent does not concern it"),
        key("sample", either([number(None, Some(1.0)), Shape::Table("`sample`")]), "the share of users whose events it is given: `0.1` is a tenth").otherwise("all"),
        key("extends", literal("name", "."), "what it is made from: another destination of the file, or a preset. What the destination says wins; its `rules` and `response` come first").otherwise("nothing"),
        key("env", Shape::Table("`env`"), "what `env.NAME` is in this destination's expressions").otherwise("the process's variables"),
        key("let", Shape::Table("`let`"), "names for its expressions; they win over those of `[let]`"),
        key("auth", Shape::Table("`auth`"), "what proves who we are").only(&["http"]),
        key("timeout", duration(destination::TIMEOUTS), "the longest one request may take").or(written_duration(destination::TIMEOUT)).only(&NOT_BIGQUERY),
        key("timeout", duration(destination::TIMEOUTS), "the longest one request may take; BigQuery remembers a row's id for a minute").or(written_duration(bigquery::TIMEOUT)).only(&["bigquery"]),
        key("limit", Shape::Table("`limit`"), "how fast it may be called"),
        key("retry", Shape::Table("`retry`"), "how patient it is"),
        key("waiting_max", count(destination::WAITING), "events waiting for another try; at this many it takes no new ones until some are done").or(destination::WAITING_MAX.to_string()),
        key("order_by", either([text("template", r"\S"), Shape::False]), "events for which this gives the same text reach the destination one after another, in the order in which they were accepted: one that waits for another try holds back those of its own key, and no others. An event for which it is missing has no key and no order").otherwise("no order"),
        key("overflow", literal("name of a destination", "."), "the destination that gets what this one has not been given when a queue in memory must end"),
        key("start", words(&destination::STARTS), "where a name that is new in the file begins: with events accepted from then on (`\"newest\"`), or with the oldest that the queue still has (`\"oldest\"`)").or(word(&destination::STARTS, &Start::default())),
        key("when_disabled", words(&destination::WHEN_DISABLED), "what becomes of events that are accepted while it is off: they wait for it (`\"wait\"`), or are not for it (`\"skip\"`)").or(word(&destination::WHEN_DISABLED, &false)),
        key("path", text("path", "."), "the file, with pieces of strftime filled with the time of writing in UTC; folders are made").must_be_given().only(&["file"]),
        key("format", words(&destination::FORMATS), "a line an item").or(word(&destination::FORMATS, &())).only(&["file"]),
        key("rotate", size(destination::ROTATE), "a file that would outgrow this is renamed to `….1`, `….2` and so on").otherwise("never").only(&["file"]),
        key("compression", words(&destination::FILE_COMPRESSIONS), "a gzip member or a zstd frame per write, so that what was written can be read").or(word(&destination::FILE_COMPRESSIONS, &Compression::default())).only(&["file"]),
        key("compression", words(&destination::BODY_COMPRESSIONS), "`\"gzip\"`: bodies travel packed, with their `content-encoding`; signatures are over the packed bytes").or(word(&destination::BODY_COMPRESSIONS, &Compression::default())).only(&["http"]),
        key("compression", words(&destination::BODY_COMPRESSIONS), "`\"gzip\"`: rows travel packed").or(word(&destination::BODY_COMPRESSIONS, &Compression::Gzip)).only(&["bigquery"]),
        key("endpoint", text("template", "^[hH][tT][tT][pP][sS]?://."), "scheme and host of the API: a region's, or an emulator's").or(quoted(ENDPOINT)).only(&["bigquery"]),
        key("credentials", either([text("string", ""), Shape::False]), "the JSON of a service account's key or of any other credentials of Google's. `false`: none, for an emulator").otherwise("application default credentials").only(&["bigquery"]),
        key("method", words(&bigquery::METHODS), "how rows are sent").or(word(&bigquery::METHODS, &())).only(&["bigquery"]),
        key("location", text("string", "^[A-Za-z0-9-]*$"), "where the dataset lies. With it, `create_table` also makes a dataset that is not there").otherwise("no dataset is made").only(&["bigquery"]),
        key("create_table", Shape::Boolean, "a table that is not there is made as `schema` declares it; its rows wait until BigQuery knows it").or("false").only(&["bigquery"]),
        key("schema_update", words(&bigquery::SCHEMA_UPDATES), "`\"add_columns\"`: columns that a row has and its table has not are added, and the row waits until BigQuery knows them: as `schema` declares them, else as text, number or boolean. `\"none\"`: such a row is a dead letter").or(word(&bigquery::SCHEMA_UPDATES, &false)).only(&["bigquery"]),
        key("response", list(Shape::Table("a response rule")), "what answers mean, before the general table, or before BigQuery's").only(&["http", "bigquery"]),
        key("rules", list(Shape::Table("a rule")), "which event becomes which request").otherwise("the destination is its one rule"),
    ];
    keys.extend(matching());
    keys.extend(request());
    section("a destination", "[destinations.NAME]", "A place that events go to.", keys)
}

/// Which events a rule wants.
fn matching() -> Vec<Key> {
    let keys = vec![
        key("on", some(trigger()), "`track`, `identify`, `page`, `screen`, `group`, `alias` or `*`; with `:NAME` only events (pages, screens) of this name, in which `*` is anything").otherwise("all"),
        key("when", some(condition()), "all must hold: a JSONPath condition, or one `{{ expression }}` taken as true or false. In a destination with rules: before any rule"),
        key("each", either([json_path(), expression()]), "one request per element, which is `item`, at `index` from 0: a JSONPath, or one `{{ expression }}` that gives a list. At most 10,000").otherwise("one request"),
        key("final", Shape::Boolean, "no later rule is asked").or("false"),
    ];
    keys.into_iter().map(Key::in_rules).collect()
}

/// What a rule sends.
fn request() -> Vec<Key> {
    let keys = vec![
        key("url", text("template", "^[hH][tT][tT][pP][sS]?://."), "where to; scheme and host are constant").must_be_given().only(&["http"]),
        key("path", text("template", "^/"), "appended to `url` as it is; begins with `/`").otherwise("nothing").only(&["http"]),
        key("project", template(), "the project's id").must_be_given().only(&["bigquery"]),
        key("dataset", template(), "the dataset's id").must_be_given().only(&["bigquery"]),
        key("table", template(), "the table's id; `{{ event | snake }}` makes one table per event").must_be_given().only(&["bigquery"]),
        key("row", either([Shape::Table("a row"), expression()]), "what an event becomes: columns by name").must_be_given().only(&["bigquery"]),
        key("insert_id", either([template(), Shape::False]), "what tells a row that comes again from a new one. `false`: nothing does").otherwise("`{{ messageId }}`; the rows of one event beyond its first say which they are").only(&["bigquery"]),
        key("schema", Shape::Table("`schema`"), "the table's columns and their types").otherwise("not known here: rows are sent as they are, and BigQuery says what does not fit").only(&["bigquery"]),
        key("partition_by", either([literal("name of a column", "."), Shape::Table("`partition_by`"), Shape::False]), "the TIMESTAMP, DATE or DATETIME by which a new table is partitioned, day by day").otherwise("the column `timestamp`, if there is one").only(&["bigquery"]),
        key("cluster_by", some(literal("name of a column", ".")), "the columns by which a new table is clustered, at most 4").otherwise("none").only(&["bigquery"]),
        key("method", literal("HTTP method", TOKEN), "any HTTP method").or(quoted("POST")).only(&["http"]),
        key("headers", Shape::Table("`headers`"), "by name; a missing value leaves the header out").only(&["http"]),
        key("query", Shape::Table("`query`"), "parameters, added to those of `url`; a missing value leaves the parameter out").only(&["http"]),
        key("body", Shape::Body, "what is sent, in the shape of the document it becomes").otherwise("the whole event; none for GET, HEAD, DELETE").only(&["http", "file", "stdout"]),
        key("encoding", words(&request::ENCODINGS), "`\"ndjson\"`: a line an item; a list is a line an element. `\"form\"`: lists repeat their key, objects are JSON, null is left out. `\"multipart\"`: fields, files and JSON parts").or(word(&request::ENCODINGS, &Encoding::default())).only(&["http"]),
        key("omit", words(&request::OMITS), "leave out fields of the body that are null (`\"null\"`), or also `\"\"`, `[]`, `{}` (`\"empty\"`)").otherwise("only missing ones"),
        key("batch", either([Shape::Table("`batch`"), Shape::False]), "items of one address (method, URL, headers) share a request. `false` in a rule: not this one").otherwise("each item on its own; rows of BigQuery and lines of a file: shared"),
    ];
    keys.into_iter().map(Key::in_rules).collect()
}

fn rule() -> Section {
    let keys = destination().keys.into_iter().filter(|key| key.in_rules).collect();
    section("a rule", "[[destinations.NAME.rules]]", "Which event becomes which request. Every rule that matches makes one, in the order of the file.", keys)
}

fn headers() -> Section {
    own("`headers`", "", "Headers by name.", Shape::Scalar)
}

fn query() -> Section {
    own("`query`", "", "Query parameters by name.", Shape::Scalar)
}

fn body() -> Section {
    let spread = key("...", some(expression()), "the fields of an object, before the named ones, which win; a missing object is skipped");
    Section { keys: vec![spread], ..own("a body", "", "A document.", Shape::Body) }
}

fn each_list() -> Section {
    let keys = vec![
        key("each", either([json_path(), expression()]), "what the list is made from; the list is missing when that is").must_be_given(),
        key("item", Shape::Body, "what an element becomes, with `item` and `index`").must_be_given(),
    ];
    section("a list made with `each`", "", "A list made from a list.", keys)
}

fn batch() -> Section {
    let keys = vec![
        key("max_events", count(request::BATCH_EVENTS_RANGE), "items in one request").or(request::BATCH_EVENTS.to_string()).only(&NOT_BIGQUERY),
        key("max_events", count(request::BATCH_EVENTS_RANGE), "rows in one request, at most 50,000").or(bigquery::BATCH.events.to_string()).only(&["bigquery"]),
        key("max_bytes", size(request::BATCH_BYTES_RANGE), "bytes of its body; a larger item goes alone").or(written_size(request::BATCH_BYTES)).only(&NOT_BIGQUERY),
        key("max_bytes", size(request::BATCH_BYTES_RANGE), "bytes of its body before it is packed, less than 10MB; a larger row goes alone").or(written_size(bigquery::BATCH.bytes)).only(&["bigquery"]),
        key("max_age", duration(request::BATCH_AGES), "how long the first item waits for company").or(written_duration(request::BATCH_AGE)),
        key("by", template(), "only items of equal value share a request").otherwise("one value"),
        key("body", Shape::Body, "the envelope, with `items`; for `json`, and needed for `form` and `multipart`").otherwise("a JSON array; lines").only(&["http"]),
    ];
    section("`batch`", "", "How items share requests. In a rule it lies over that of the destination, key by key.", keys)
}

fn schema_of_table() -> Section {
    own("`schema`", "[destinations.NAME.schema]", "A table's columns by name.", either([literal("type of GoogleSQL", "."), Shape::Table("a column")]))
}

fn column() -> Section {
    let keys = vec![
        key("type", literal("type of GoogleSQL", "."), "as in `CREATE TABLE`: `STRING`, `INT64`, `FLOAT64`, `NUMERIC(10, 2)`, `BIGNUMERIC`, `BOOL`, `BYTES`, `TIMESTAMP`, `DATE`, `TIME`, `DATETIME`, `GEOGRAPHY`, `JSON`, `INTERVAL`, `ARRAY<…>`, `STRUCT<name TYPE, …>`, and `NOT NULL`").must_be_given(),
        key("description", literal("string", ""), "what people are told of it").otherwise("none"),
    ];
    section("a column", "", "A column that has a description.", keys)
}

fn row() -> Section {
    let spread = key("...", some(expression()), "the fields of an object, before the named ones, which win; a missing object is skipped");
    Section { keys: vec![spread], ..own("a row", "[destinations.NAME.row]", "Columns by name. Of a column that is `JSON` the value is given as it is.", Shape::Body) }
}

fn partition_by() -> Section {
    let keys = vec![
        key("column", literal("name of a column", "."), "a TIMESTAMP, DATE or DATETIME").otherwise("the time at which a row came in"),
        key("per", words(&bigquery::PARTITIONS), "how long a partition is").or(word(&bigquery::PARTITIONS, &Per::default())),
        key("expire", duration(bigquery::EXPIRES), "a partition this old is deleted").otherwise("never"),
        key("require_filter", Shape::Boolean, "queries must say which partitions they want").or("false"),
    ];
    section("`partition_by`", "", "How a new table is partitioned by time.", keys)
}

fn auth() -> Section {
    let keys = vec![
        key("basic", Shape::Pair(Box::new(text("string", ""))), "`[user, password]` as `Authorization: Basic`"),
        key("bearer", text("string", ""), "a token as `Authorization: Bearer`"),
        key("header", Shape::Table("`auth` by name"), "headers by name"),
        key("query", Shape::Table("`auth` by name"), "query parameters by name"),
        key("hmac", Shape::Table("`hmac`"), "a signature over the body"),
        key("oauth2", Shape::Table("`oauth2`"), "a token of an endpoint that speaks OAuth 2"),
        key("google", Shape::Table("`google`"), "a token of Google's, for whoever we are there"),
        key("aws", Shape::Table("`aws`"), "a signature as AWS wants it"),
    ];
    section("`auth`", "", "What proves who we are: exactly one of these.", keys)
}

fn auth_by_name() -> Section {
    own("`auth` by name", "", "Secrets by name.", text("string", ""))
}

fn hmac() -> Section {
    let keys = vec![
        key("key", text("string", ""), "the secret that both sides know").must_be_given(),
        key("key_encoding", words(&auth::hmac::KEY_ENCODINGS), "the key is these characters (`\"text\"`), or the bytes that they stand for (`\"base64\"`, also with `whsec_` before it; `\"hex\"`)").or(quoted("text")),
        key("algorithm", words(&auth::hmac::ALGORITHMS), "the hash function").or(quoted("sha256")),
        key("encoding", words(&auth::hmac::SIGNATURE_ENCODINGS), "the signature as lower-case hex digits, or in Base64").or(word(&auth::hmac::SIGNATURE_ENCODINGS, &SignatureEncoding::default())),
        key("header", literal("name of a header", TOKEN), "the header that carries the signature").or(quoted(auth::hmac::SIGNATURE_HEADER)),
        key("prefix", template(), "stands before the signature").otherwise("nothing"),
        key("message", template(), "what is signed; sees `body`, `method`, `url`, `path`, `query`, `timestamp`, `id` and `now`, as `prefix` and `headers` do").or(quoted(auth::hmac::WHOLE_BODY)),
        key("headers", Shape::Table("`headers`"), "further headers, by name, made for every try"),
    ];
    section("`hmac`", "", "A signature over the bytes that are sent, made afresh for every try.", keys)
}

fn oauth2() -> Section {
    let keys = vec![
        key("token_url", text("URL", "^[hH][tT][tT][pP][sS]?://."), "the endpoint; constant as `url` is").must_be_given(),
        key("client_id", text("string", ""), "who we are there").must_be_given(),
        key("client_secret", text("string", ""), "what proves it; must be given without `refresh_token`"),
        key("grant", words(&auth::oauth2::GRANTS), "a token of our own, or of somebody who gave us a refresh token").otherwise("what is given decides"),
        key("refresh_token", text("string", ""), "the refresh token"),
        key("scope", some(text("string", "")), "what the token is for").otherwise("not said"),
        key("audience", text("string", ""), "whom the token is for").otherwise("not said"),
        key("style", words(&auth::oauth2::STYLES), "id and secret go into the form (`\"body\"`), or into `Authorization: Basic` (`\"basic\"`)").or(word(&auth::oauth2::STYLES, &ClientStyle::default())),
        key("params", Shape::Table("`params`"), "further fields of the form, by name"),
    ];
    section("`oauth2`", "", "A token of an endpoint that speaks OAuth 2, kept and replaced before it ends.", keys)
}

fn oauth2_params() -> Section {
    own("`params`", "", "Further fields of the form that asks for a token.", text("string", ""))
}

fn google() -> Section {
    let keys = vec![
        key("credentials", text("string", ""), "JSON that Google or gcloud wrote, as text: a service account's key, an external account, …").otherwise("application default credentials"),
        key("scope", some(text("string", "")), "what the access token is for; must be given without `audience`"),
        key("audience", text("string", ""), "instead of `scope`: an ID token for this audience, as Cloud Run wants it"),
        key("subject", text("string", ""), "the person of the domain on whose behalf we act").otherwise("the account itself"),
    ];
    section("`google`", "", "A token of Google's, kept and replaced before it ends.", keys)
}

fn aws() -> Section {
    let keys = vec![
        key("access_key_id", text("string", ""), "which key it is").must_be_given(),
        key("secret_access_key", text("string", ""), "the key").must_be_given(),
        key("session_token", text("string", ""), "goes with a key that is lent for a while; empty: none"),
        key("region", text("string", "^[0-9A-Za-z-]+$"), "such as `\"eu-central-1\"`").must_be_given(),
        key("service", text("string", "^[0-9A-Za-z-]+$"), "the service's name in signatures, such as `\"s3\"` or `\"firehose\"`").must_be_given(),
    ];
    section("`aws`", "", "Signature Version 4, made afresh for every try.", keys)
}

fn retry() -> Section {
    let policy = RetryPolicy::default();
    let keys = vec![
        key("first", duration(destination::DELAYS), "the longest wait before the second try; it doubles with every further one").or(written_duration(policy.first)),
        key("delay_max", duration(destination::DELAYS), "no wait is longer, not even one the destination asks for").or(written_duration(policy.delay_max)).only(&NOT_BIGQUERY),
        key("delay_max", duration(destination::DELAYS), "the same; BigQuery remembers a row's id for a minute").or(written_duration(bigquery::DELAY_MAX)).only(&["bigquery"]),
        key("give_up_after", duration(destination::DELAYS), "an event in trying for so long is a dead letter").or(written_duration(policy.give_up_after)),
        key("attempts_max", count(destination::TRIES), "so many tries, then it is a dead letter").otherwise("no limit"),
        key("failures_max", count(destination::TRIES), "so many failed requests in a row, and the destination rests").or(policy.failures_max.to_string()),
    ];
    section("`retry`", "", "How patient a destination is.", keys)
}

fn limit() -> Section {
    let keys = vec![
        key("per_second", number(None, None), "requests begun per second, evenly spaced; `0.1` is one in ten seconds").otherwise("no limit"),
        key("concurrency", count(destination::CONCURRENCY), "requests at a time; 1 for files and standard output, whatever it says").or(Limit::default().concurrency.to_string()),
    ];
    section("`limit`", "", "How fast a destination may be called.", keys)
}

fn sample() -> Section {
    let keys = vec![
        key("rate", number(None, Some(1.0)), "the share to keep").must_be_given(),
        key("by", expression(), "keep a share of these values instead of users; an event without one goes by its user").otherwise("the user"),
    ];
    section("`sample`", "", "Which share of the events a destination is given.", keys)
}

fn response() -> Section {
    let keys = vec![
        key("when", some(condition()), "all must hold of `$` = `{ status, headers, body }`").otherwise("always"),
        key("each", json_path(), "the parts of the answer that speak of one item each; without any, the next rule is asked").otherwise("the answer speaks of all"),
        key("index", template(), "which item a part speaks of, from 0").otherwise("its position"),
        key("then", either([words(&Then::ALL), expression()]), "`ok`, `retry`, `split` (send again in halves), `dead`, `drop` (count and forget), `pause` (rest, as after 401)").must_be_given(),
        key("rest", words(&Then::ALL), "the items that no part speaks of").or(word(&Then::ALL, &Then::Ok)),
    ];
    section("a response rule", "[[destinations.NAME.response]]", "What an answer means. The first that matches decides.", keys)
}

// === [[tests]] ===

/// A string that holds JSON, or the same as TOML.
/// A table, or its JSON.
fn json(shape: Shape) -> Shape {
    either([literal("JSON text", ""), shape])
}

fn test() -> Section {
    let keys = vec![
        key("name", literal("string", ""), "what holds, as a sentence").must_be_given(),
        key("destination", literal("name", ""), "whose test it is; one that is off is tested as if it were on").must_be_given(),
        key("event", json(Shape::Object), "what an SDK sends, read as at the door"),
        key("events", json(list(Shape::Object)), "several, as in one batch. A `messageId` that is not there is `test-0`, `test-1` and so on. Without events only the meaning of an answer is tested"),
        key("source", literal("name", ""), "who sends them").otherwise("a source that is for the destination"),
        key("env", Shape::Table("a table of texts"), "the only variables there are"),
        key("files", Shape::Table("a table of texts"), "the only files that `file('…')` finds, by path"),
        key("now", literal("time, as a date or text", ""), "what time it is at first").or(quoted(cases::NOW)),
        key("expect", json(list(Shape::Object)), "a list of the requests, in the order in which they are made, each with any of `method`, `url`, `headers`, `body`, `wire`. What is not named is not checked; `\"<absent>\"` must not be there; `1` is `1.0`").otherwise("not checked"),
        key("exact", Shape::Boolean, "what is named of a request may hold nothing that is not named").or("false"),
        key("respond", json(Shape::Constant), "what the destination answers: a status, `\"timeout\"`, `\"disconnect\"`, or `{ status, headers, body }`. One answers every request, and nothing is tried again. A list answers one request after the other, while the clock moves from try to try, with the longest wait that `retry` allows").otherwise("everything is taken"),
        key("outcome", some(words(&Fate::ALL)), "what becomes of each event: `ok`, `retry` (it waits), `split` (sent again in halves), `dead`, `drop`, `pause` (it waits, the destination rests), `filtered`").otherwise("none may be dead"),
    ];
    section("a test", "[[tests]]", "What the file promises about a destination. `libroseg test` holds it to it.", keys)
}

fn texts() -> Section {
    own("a table of texts", "", "Texts by name.", literal("string", ""))
}
