//! BigQuery: rows go out like any request, and a table that is not what they need is made or extended.
//!
//! What there is to be done is decided by `plan::bigquery`. Here it is done, once for all rows that ask for it at a time,
//! and remembered for a while: a new table or column is known to every server of BigQuery's only after minutes
//! (<https://cloud.google.com/bigquery/docs/error-messages#streaming>, read 2026-11-26), in which asking again helps nobody.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value as Json, json};
use tokio::sync::Mutex;

use super::Sink;
use super::http::Http;
use crate::attempt::{Failure, Reason};
use crate::plan::bigquery::growth::{Grown, grow, paths};
use crate::plan::bigquery::verdict::Wish;
use crate::plan::bigquery::{BigQuery as Settings, Shape, TableAddress, TableNews, dataset_json};
use crate::plan::{Destination, Reply, Request, RuleError};

/// The connections of one destination, and what was done about its tables.
pub struct BigQuery {
    http: Http,
    destination: Arc<Destination>,
    settings: Settings,
    tables: Mutex<Tables>,
}

/// What was last done about each table, by the URL that its rows go to.
type Tables = HashMap<String, Done>;

struct Done {
    at: Timestamp,
    news: TableNews,
}

/// What was done about a table is not done again within this time: BigQuery takes 5 changes of a table in 10 seconds
/// (<https://cloud.google.com/bigquery/quotas#standard_tables>, read 2026-11-26).
const PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// A table that was made is not made again within this time, though rows are told that it is not there.
const PAUSE_AFTER_MAKING: SignedDuration = SignedDuration::from_mins(5);

/// More tables than this are forgotten.
const TABLES_MAX: usize = 10_000;

// === impl Done ===

impl Done {
    fn is_fresh(&self, wish: &Wish, now: Timestamp) -> bool {
        let is_made = *wish == Wish::Make && matches!(self.news.status, Some(200..=299 | 409));
        now.duration_since(self.at) < if is_made { PAUSE_AFTER_MAKING } else { PAUSE }
    }

    /// What whoever comes a moment later is told: it has to wait, unless we may do nothing at all.
    fn remembered(&self) -> TableNews {
        if matches!(self.news.status, Some(401 | 403)) {
            return self.news.clone();
        }
        TableNews { status: None, said: format!("{} a moment ago", self.news.said), columns: Vec::new() }
    }
}

// === impl BigQuery ===

impl BigQuery {
    /// A client for the tables of one destination.
    #[must_use]
    pub fn new(http: Http, destination: Arc<Destination>, settings: Settings) -> Self {
        Self { http, destination, settings, tables: Mutex::default() }
    }

    async fn insert(&self, request: Request, now: Timestamp) -> Reply {
        if !self.settings.tends_tables() {
            return self.http.send(request, now).await;
        }
        let reply = self.http.send(request.clone(), now).await;
        let Reply::Answered { status, headers, body, .. } = reply else { return reply };
        let wish = self.settings.wish(status, &body);
        let news = if wish == Wish::Nothing { None } else { self.news(&wish, &request, now).await };
        Reply::Answered { status, headers, body, news: news.map(Box::new) }
    }

    /// What becomes of a table because of an answer; `None`: the request was not for one.
    async fn news(&self, wish: &Wish, request: &Request, now: Timestamp) -> Option<TableNews> {
        let (shape, address) = (request.shape.clone()?, TableAddress::from_insert_url(&request.url)?);
        Some(self.tend(wish, &Table { request, shape, address, now }).await)
    }

    /// Asks about a table, or changes it, as the one by whom its rows are sent.
    async fn ask(
        &self,
        table: &Table<'_>,
        method: &str,
        url: String,
        body: Option<&Json>,
        headers: &[(&str, &str)],
    ) -> Reply {
        let question = self.destination.question(method, url, body, table.request.timeout, table.now);
        let own = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let question = question.map(|mut question| {
            question.headers.extend(own);
            question
        });
        answer(&self.http, question, table.now).await
    }

    /// Makes or extends a table, unless that was done just now. One at a time: others may want the same.
    async fn tend(&self, wish: &Wish, table: &Table<'_>) -> TableNews {
        let mut tables = self.tables.lock().await;
        let known = tables.get(&table.request.url);
        if let Some(done) = known.filter(|done| done.is_fresh(wish, table.now)) {
            return done.remembered();
        }
        let news = match wish {
            Wish::Extend(rows) => self.extend(table, rows).await,
            Wish::Make | Wish::Nothing => self.make(table).await,
        };
        if tables.len() >= TABLES_MAX {
            tables.clear();
        }
        tables.insert(table.request.url.clone(), Done { at: table.now, news: news.clone() });
        news
    }

    /// Makes a table; where its dataset is missing as well, and we know where it belongs, that first.
    async fn make(&self, table: &Table<'_>) -> TableNews {
        let declared = table.shape.table_json(&table.address);
        let create = || self.ask(table, "POST", table.address.tables_url(), Some(&declared), &[]);
        let made = create().await;
        let Some(location) = self.settings.location.as_ref().filter(|_| status_of(&made) == Some(404)) else {
            return news(&made, Vec::new());
        };
        let dataset = dataset_json(&table.address, location);
        match self.ask(table, "POST", table.address.datasets_url(), Some(&dataset), &[]).await {
            created if matches!(status_of(&created), Some(200..=299 | 409)) => news(&create().await, Vec::new()),
            refused => news(&refused, Vec::new()),
        }
    }

    /// Adds to a table the columns that are declared, or that these rows have, and it has not.
    async fn extend(&self, table: &Table<'_>, rows: &[usize]) -> TableNews {
        let live = self.ask(table, "GET", table.address.url(), None, &[]).await;
        let Some(live_table) = json_of(&live) else { return news(&live, Vec::new()) };
        let Grown { fields, is_new } = table.grown(&live_table, rows);
        let columns = paths(&fields);
        if !is_new {
            return news(&live, columns);
        }
        let etag = live_table["etag"].as_str().map(|etag| ("if-match", etag));
        let change = json!({ "schema": { "fields": fields } });
        news(&self.ask(table, "PATCH", table.address.url(), Some(&change), etag.as_slice()).await, columns)
    }
}

impl Sink for BigQuery {
    fn send(&self, request: Request, now: Timestamp) -> BoxFuture<'_, Reply> {
        self.insert(request, now).boxed()
    }
}

/// A table that rows were sent to.
struct Table<'r> {
    request: &'r Request,
    shape: Arc<Shape>,
    address: TableAddress,
    now: Timestamp,
}

// === impl Table ===

impl Table<'_> {
    fn grown(&self, live: &Json, rows: &[usize]) -> Grown {
        let sent: Json =
            self.request.plain_body().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
        let rows: Vec<&Map<String, Json>> =
            rows.iter().filter_map(|row| sent["rows"][row]["json"].as_object()).collect();
        let live = live["schema"]["fields"].as_array().map_or(&[][..], Vec::as_slice);
        grow(live, &self.shape.columns, &rows)
    }
}

pub(super) fn status_of(reply: &Reply) -> Option<u16> {
    if let Reply::Answered { status, .. } = reply { Some(*status) } else { None }
}

/// The document that a good answer holds.
pub(super) fn json_of(reply: &Reply) -> Option<Json> {
    let Reply::Answered { status: 200..=299, body, .. } = reply else { return None };
    serde_json::from_slice(body).ok()
}

/// What there is to be told of an answer about a table.
fn news(reply: &Reply, columns: Vec<String>) -> TableNews {
    let (status, said) = match reply {
        Reply::Answered { status: status @ 200..=299, .. } => (Some(*status), "done".to_owned()),
        Reply::Answered { status, body, .. } => (Some(*status), format!("status {status}: {}", message_of(body))),
        Reply::Lost(failure) => (None, failure.to_string()),
        Reply::Unauthorized(failure) | Reply::Unsendable(failure) => (Some(401), failure.to_string()),
        Reply::Written => (None, String::new()),
    };
    TableNews { status, said, columns }
}

/// What is answered to a question, which may be one that cannot be asked.
pub(super) async fn answer(http: &Http, question: Result<Request, RuleError>, now: Timestamp) -> Reply {
    match question {
        Ok(request) => http.send(request, now).await,
        Err(error) => Reply::Unsendable(Failure::new(Reason::Mapping, error.to_string())),
    }
}

/// What an error of the service says, or the text that came instead.
pub(super) fn message_of(body: &[u8]) -> String {
    let json: Option<Json> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|json| json["error"]["message"].as_str());
    message.map_or_else(|| String::from_utf8_lossy(&body[..body.len().min(1024)]).into_owned(), str::to_owned)
}
