//! `BigQuery`, as Google's published rules have it: a real HTTP server that tokens open, whose tables have types, and
//! that misbehaves when it is told to.
//!
//! Every request, and every answer of ours, is held against Google's discovery document. Whoever breaks it finds a
//! readable list when the server is dropped, or asks with [`BigQuery::assert_no_violations`].
//!
//! Where its rules come from (all read 2026-11-26):
//! - limits and deduplication: <https://docs.cloud.google.com/bigquery/quotas#streaming_inserts> and
//!   <https://docs.cloud.google.com/bigquery/docs/streaming-data-into-bigquery>
//! - errors: <https://docs.cloud.google.com/bigquery/docs/error-messages>
//! - the sentences in `insertErrors` are those that users of the service quote in the issues of its clients; where none
//!   was found the sentence is ours, which its place in the code says.
//!
//! What it leaves out: queries and jobs, template tables, ranges (as a type and as partitions), and policies. It is
//! stricter than the service may be where nobody says: keys of rows have the case of their columns, JSON columns take
//! text alone, and times end at microseconds.

mod discovery;
mod faults;
mod insert;
mod listing;
mod python;
mod replies;
mod schema;
mod server;
mod tables;
mod tokens;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use jiff::Timestamp;
use libroseg::clock::Clock;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use faults::Faults;
use tables::{Dataset, Table};
use tokens::Tokens;

pub(crate) use faults::Fault;
pub(crate) use python::PythonClient;

/// The server. Dropping it stops it and fails the test if somebody broke the discovery document.
pub(crate) struct BigQuery {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

/// How it is to behave. [`Options::default`] is the service at its best.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Whether calls need a token, or it is open as an emulator is.
    pub(crate) needs_tokens: bool,
    /// How long `insertAll` does not know a table that was just made.
    pub(crate) table_delay: Duration,
    /// How long `insertAll` does not know a column that was just added.
    pub(crate) column_delay: Duration,
    /// Whether the values of rows are kept, or only how often each came and is stored.
    pub(crate) keeps_values: bool,
    /// Whether requests are kept.
    pub(crate) keeps_requests: bool,
    pub(crate) limits: Limits,
}

/// What `insertAll` takes: <https://docs.cloud.google.com/bigquery/quotas#streaming_inserts>, read 2026-11-26.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// A body of more bytes, unpacked, is refused with JSON and `400`.
    pub(crate) body_bytes: usize,
    /// A body of more bytes on the wire does not get past Google's front end, which answers `413` with HTML. Nobody says
    /// where that begins; users saw it at some multiple of the former.
    pub(crate) wire_bytes: usize,
    pub(crate) rows: usize,
    pub(crate) row_bytes: usize,
    /// Changes of one table in ten seconds.
    pub(crate) table_updates: usize,
    /// How far from today the partition of a row may be, in days before and after. These are the numbers of the
    /// service's own sentence: <https://github.com/mozilla/gcp-ingestion/pull/2721>, read 2026-11-26.
    pub(crate) partition_days: (i64, i64),
}

/// What it was sent and what it answered.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) verb: String,
    /// Path and query, as on the wire.
    pub(crate) path: String,
    /// `bigquery.tabledata.insertAll` and the like, `token`, or nothing for what is no method.
    pub(crate) method: String,
    pub(crate) headers: HeaderMap,
    /// Unpacked JSON, or text.
    pub(crate) body: Value,
    pub(crate) wire_bytes: usize,
    /// `0` where the connection was cut instead.
    pub(crate) status: u16,
}

/// A look at a table, as it is whenever it is asked.
pub(crate) struct Look<'a> {
    shared: &'a Shared,
    name: String,
}

/// What all of it works on.
struct Shared {
    options: Options,
    endpoint: String,
    state: Mutex<State>,
}

struct State {
    clock: Clock,
    datasets: BTreeMap<String, Dataset>,
    /// By `project.dataset.table`.
    tables: BTreeMap<String, Table>,
    tokens: Tokens,
    /// Permissions that nobody has.
    denied: Vec<String>,
    faults: Faults,
    requests: Vec<Request>,
    violations: Vec<String>,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            needs_tokens: true,
            table_delay: Duration::ZERO,
            column_delay: Duration::ZERO,
            keeps_values: true,
            keeps_requests: true,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let mebibyte = 1024 * 1024;
        Self {
            body_bytes: 10 * mebibyte,
            wire_bytes: 20 * mebibyte,
            rows: 50_000,
            row_bytes: 10 * mebibyte,
            table_updates: 5,
            partition_days: (1825, 366),
        }
    }
}

// === impl BigQuery ===

impl BigQuery {
    /// The service at its best, without tables.
    pub(crate) fn start() -> Self {
        Self::with(Options::default())
    }

    /// The same without tokens.
    pub(crate) fn open() -> Self {
        Self::with(Options { needs_tokens: false, ..Options::default() })
    }

    /// It has a thread of its own: a test that blocks does not stop it.
    pub(crate) fn with(options: Options) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = format!("http://{address}");
        let state = State {
            clock: Clock::system(),
            datasets: BTreeMap::new(),
            tables: BTreeMap::new(),
            tokens: Tokens::new(&endpoint),
            denied: Vec::new(),
            faults: Faults::default(),
            requests: Vec::new(),
            violations: Vec::new(),
        };
        let shared = Arc::new(Shared { options, endpoint, state: Mutex::new(state) });
        let stop = CancellationToken::new();
        server::run(listener, Arc::clone(&shared), stop.clone());
        Self { address, shared, stop }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The key file of a service account whose tokens open this server, and which it gives out itself.
    pub(crate) fn credentials_json(&self) -> String {
        tokens::credentials(&self.shared.endpoint)
    }

    /// A token with these scopes, without asking for it.
    pub(crate) fn give_token(&self, scopes: &str) -> String {
        let mut state = self.state();
        let now = state.clock.now();
        state.tokens.give(scopes, now)
    }

    /// No token is any good from now on.
    pub(crate) fn forget_tokens(&self) {
        self.state().tokens.forget();
    }

    /// Its time is another clock's: that of tokens, delays, and of the minute in which an `insertId` is remembered.
    pub(crate) fn follow(&self, clock: &Clock) {
        self.state().clock = clock.clone();
    }

    /// Makes a dataset, in the EU.
    pub(crate) fn create_dataset(&self, project: &str, dataset: &str) {
        let resource = json!({
            "datasetReference": { "projectId": project, "datasetId": dataset },
            "location": "EU",
        });
        self.state().insert_dataset(project, resource).unwrap_or_else(|reply| panic!("{reply:?}"));
    }

    /// Makes a table `project.dataset.table` as `tables.insert` would, its dataset too, and known at once. The resource
    /// is what is beside `tableReference`: `{"schema": {"fields": […]}}`.
    pub(crate) fn create_table(&self, name: &str, mut resource: Value) {
        let [project, dataset, table] = parts(name);
        if !self.state().datasets.contains_key(&format!("{project}.{dataset}")) {
            self.create_dataset(project, dataset);
        }
        resource["tableReference"] = json!({ "projectId": project, "datasetId": dataset, "tableId": table });
        let mut state = self.state();
        state.insert_table(project, dataset, resource, Timestamp::MIN).unwrap_or_else(|reply| panic!("{reply:?}"));
    }

    /// A table is a `VIEW` from now on, or what else `tables.get` knows.
    pub(crate) fn turn_into(&self, name: &str, kind: &str) {
        let mut state = self.state();
        state.tables.get_mut(name).unwrap_or_else(|| panic!("no table {name}")).turn_into(kind);
    }

    /// Nobody has this permission on tables: `bigquery.tables.updateData`.
    pub(crate) fn denies(&self, permission: &str) {
        self.state().denied.push(permission.to_owned());
    }

    pub(crate) fn has_table(&self, name: &str) -> bool {
        self.state().tables.contains_key(name)
    }

    /// A look at table `project.dataset.table`.
    pub(crate) fn table(&self, name: &str) -> Look<'_> {
        Look { shared: &self.shared, name: name.to_owned() }
    }

    /// All requests, in the order in which they were answered.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// The bodies sent to a method: `insertAll`, `tables.patch`.
    pub(crate) fn bodies(&self, method: &str) -> Vec<Value> {
        let requests = self.requests().into_iter().filter(|request| request.is(method));
        requests.map(|request| request.body).collect()
    }

    /// The next calls of a method (`insertAll`, `tables.get`, `token`) go wrong so, one after the other.
    pub(crate) fn fails_next(&self, method: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.script(method, faults);
    }

    /// From now on such a share of the calls of a method (`0.2`; `""` for all methods) goes wrong in one of these ways,
    /// by dice whose throws the seed decides.
    pub(crate) fn fails_often(&self, method: &str, share: f64, seed: u64, faults: &[Fault]) {
        self.state().faults.often(method, share, seed, faults);
    }

    /// Nothing goes wrong from now on.
    pub(crate) fn heals(&self) {
        self.state().faults = Faults::default();
    }

    /// What broke the discovery document so far. They are forgotten: a test that looked at them may be dropped in peace.
    pub(crate) fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state().violations)
    }

    #[track_caller]
    pub(crate) fn assert_no_violations(&self) {
        let violations = self.take_violations();
        assert!(
            violations.is_empty(),
            "Google's discovery document does not have this:\n- {}",
            violations.join("\n- ")
        );
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for BigQuery {
    fn drop(&mut self) {
        self.stop.cancel();
        if !std::thread::panicking() {
            self.assert_no_violations();
        }
    }
}

// === impl Shared ===

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Request ===

impl Request {
    /// Whether it called this method: `insertAll`, `tables.patch`.
    pub(crate) fn is(&self, method: &str) -> bool {
        is_method(&self.method, method)
    }
}

/// `bigquery.tables.get` is called `tables.get` or by any longer ending, and by nothing at all.
fn is_method(id: &str, method: &str) -> bool {
    method.is_empty() || id == method || id.strip_suffix(method).is_some_and(|rest| rest.ends_with('.'))
}

/// The three parts of `project.dataset.table`; a project may have a domain with dots.
fn parts(name: &str) -> [&str; 3] {
    let mut parts = name.rsplitn(3, '.');
    let mut next = || parts.next().unwrap_or_else(|| panic!("{name} is not project.dataset.table"));
    let (table, dataset, project) = (next(), next(), next());
    [project, dataset, table]
}

// === impl Look ===

impl Look<'_> {
    fn see<T>(&self, see: impl FnOnce(&Table) -> T) -> T {
        let state = self.shared.state();
        let found = state.tables.get(&self.name);
        see(found.unwrap_or_else(|| panic!("no table {}; there are {:?}", self.name, state.tables.keys())))
    }

    /// The table as `tables.get` would give it.
    pub(crate) fn resource(&self) -> Value {
        self.see(Table::resource)
    }

    /// Its rows in the order they came, every column in each: integers and floats as numbers, `NUMERIC` and times as
    /// text, JSON columns as the text of their JSON.
    pub(crate) fn rows(&self) -> Vec<Value> {
        self.see(|table| table.rows.iter().map(|row| table.completed(row)).collect())
    }

    /// How many rows there are, deduplicated ones not counted.
    pub(crate) fn len(&self) -> usize {
        self.see(|table| table.stored)
    }

    /// How often a row with this `insertId` was sent, good or bad.
    pub(crate) fn sent(&self, insert_id: &str) -> u32 {
        self.see(|table| table.seen.get(insert_id).map_or(0, |seen| seen.sent))
    }

    /// How often it is in the table.
    pub(crate) fn stored(&self, insert_id: &str) -> u32 {
        self.see(|table| table.seen.get(insert_id).map_or(0, |seen| seen.stored))
    }

    /// The ids that are in the table more than once.
    pub(crate) fn duplicates(&self) -> Vec<String> {
        let counts = self.counts().into_iter().filter(|(_, (_, stored))| *stored > 1);
        counts.map(|(id, _)| id).collect()
    }

    /// Each `insertId` with how often it was sent and how often it is stored.
    pub(crate) fn counts(&self) -> BTreeMap<String, (u32, u32)> {
        self.see(|table| table.seen.iter().map(|(id, seen)| (id.to_string(), (seen.sent, seen.stored))).collect())
    }
}
