//! `type = "bigquery"` against a BigQuery that keeps Google's rules: what was accepted is a row, waits for its table, or
//! is a dead letter that names the column.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::{HEAD, KEY};
use crate::support::bigquery::{BigQuery, Fault, Options, PythonClient};
use crate::support::{Binary, TestApp, client};

const TABLE: &str = "acme.events.all";

/// A file whose destination `bq` sends to this server, with these lines of its own.
fn lines(server: &BigQuery, own: &str) -> String {
    let (endpoint, credentials) = (server.endpoint(), json!(server.credentials_json()));
    let head = "type = \"bigquery\"\nproject = \"acme\"\ndataset = \"events\"";
    format!("[destinations.bq]\n{head}\nendpoint = \"{endpoint}\"\ncredentials = {credentials}\n{own}\n")
}

/// The app, on whose clock the server is.
async fn app(server: &BigQuery, own: &str) -> TestApp {
    let app = TestApp::start(&lines(server, own)).await;
    server.follow(&app.clock);
    app
}

/// A table with these columns.
fn with_columns(server: &BigQuery, table: &str, columns: &[(&str, &str)]) {
    let fields: Vec<Value> = columns.iter().map(|(name, kind)| json!({ "name": name, "type": kind })).collect();
    server.create_table(table, json!({ "schema": { "fields": fields } }));
}

const PLAIN: &str = "table = \"all\"\nrow = { id = \"{{ messageId }}\", \"...\" = \"{{ properties }}\" }";

fn track(id: &str, properties: &Value) -> Value {
    json!({ "type": "track", "event": "Order Completed", "userId": "u", "messageId": id, "properties": properties })
}

async fn send(app: &TestApp, events: &[Value]) {
    app.post("/v1/batch", &json!({ "batch": events })).await.accepted();
    app.quiet().await;
}

fn ids(server: &BigQuery, table: &str) -> BTreeSet<String> {
    server.table(table).rows().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

async fn reasons(app: &TestApp) -> Vec<(String, String)> {
    let letters = app.dead_letters("bq").await;
    letters.iter().map(|letter| (letter.event.message_id.to_string(), letter.failure.to_string())).collect()
}

#[tokio::test]
async fn the_example_of_the_shipped_file_makes_its_table_and_its_row() {
    let server = BigQuery::start();
    let (endpoint, credentials) = (server.endpoint(), server.credentials_json());
    let variables = [
        ("BIGQUERY_PROJECT_ID", "acme"),
        ("BIGQUERY_DATASET", "events"),
        ("BIGQUERY_TABLE", "all"),
        ("BIGQUERY_CREDENTIALS", credentials.as_str()),
    ];
    server.create_dataset("acme", "events");
    let lines = format!("[destinations.bigquery]\nextends = \"bigquery\"\nendpoint = \"{endpoint}\"\n");
    let app = TestApp::with_variables(&lines, &variables).await;
    server.follow(&app.clock);
    let event = json!({
        "messageId": "m1", "userId": "u1", "anonymousId": "a1", "event": "Order Completed",
        "timestamp": "2026-01-02T03:04:05.678Z", "properties": { "total": 9.5 }, "context": { "ip": "8.8.8.8" },
    });
    app.post("/v1/track", &event).await.accepted();
    app.run_for(Duration::from_mins(1)).await;
    let row = server.table(TABLE).rows().remove(0);
    let context: Value = serde_json::from_str(row["context"].as_str().unwrap()).unwrap();
    assert_eq!(context["ip"], "8.8.8.8");
    let mut row = row;
    row["context"] = Value::Null;
    assert_eq!(
        row,
        json!({
            "message_id": "m1", "timestamp": "2026-01-02T03:04:05.678Z", "type": "track", "user_id": "u1",
            "anonymous_id": "a1", "event": "Order Completed", "properties": "{\"total\":9.5}", "context": null,
            "traits": "{}",
        })
    );
    let table = server.table(TABLE).resource();
    assert_eq!(table["timePartitioning"], json!({ "type": "DAY", "field": "timestamp" }));
    let columns: Vec<_> = table["schema"]["fields"].as_array().unwrap().iter().map(|field| &field["type"]).collect();
    assert_eq!(
        json!(columns),
        json!(["STRING", "TIMESTAMP", "STRING", "STRING", "STRING", "STRING", "STRING", "STRING", "STRING"])
    );
}

#[tokio::test]
async fn a_bad_row_is_a_dead_letter_that_names_its_column_and_the_others_are_in() {
    let server = BigQuery::start();
    with_columns(&server, TABLE, &[("id", "STRING"), ("n", "INTEGER")]);
    let app = app(&server, PLAIN).await;
    send(&app, &[track("a", &json!({"n": 1})), track("b", &json!({"n": "many"})), track("c", &json!({"n": null}))])
        .await;
    app.run_for(Duration::from_secs(2)).await;
    assert_eq!(ids(&server, TABLE), set(&["a", "c"]));
    let reasons = reasons(&app).await;
    assert_eq!(reasons.len(), 1);
    assert_eq!(reasons[0].0, "b");
    assert!(reasons[0].1.starts_with("response: invalid: n: "), "{}", reasons[0].1);
    assert_eq!(server.bodies("insertAll").len(), 1, "a bad row is not tried again");
}

#[tokio::test]
async fn a_row_that_met_a_passing_error_comes_again_and_is_there_once() {
    let server = BigQuery::start();
    with_columns(&server, TABLE, &[("id", "STRING")]);
    let app = app(&server, PLAIN).await;
    server.fails_next("insertAll", [Fault::Rows(1.0, "backendError"), Fault::Rows(1.0, "stopped"), Fault::ResetAfter]);
    send(&app, &[track("a", &json!({})), track("b", &json!({}))]).await;
    app.run_for(Duration::from_mins(1)).await;
    assert_eq!(ids(&server, TABLE), set(&["a", "b"]));
    assert_eq!(server.table(TABLE).duplicates(), Vec::<String>::new());
    assert_eq!(app.dead_letters("bq").await.len(), 0);
}

#[tokio::test]
async fn answers_that_are_pages_of_html_are_judged_by_their_status() {
    let server = BigQuery::start();
    with_columns(&server, TABLE, &[("id", "STRING")]);
    let app = app(&server, PLAIN).await;
    server.fails_next("insertAll", [Fault::Html(413), Fault::Html(503), Fault::Html(502)]);
    let events: Vec<Value> = (0..8).map(|n| track(&n.to_string(), &json!({}))).collect();
    send(&app, &events).await;
    app.run_for(Duration::from_mins(1)).await;
    assert_eq!(server.table(TABLE).len(), 8);
    let rows: Vec<usize> =
        server.bodies("insertAll").iter().map(|body| body["rows"].as_array().unwrap().len()).collect();
    assert_eq!(rows[..3], [8, 4, 4], "halved once");
    assert_eq!(app.dead_letters("bq").await.len(), 0);
}

#[tokio::test]
async fn too_fast_is_another_try_and_not_allowed_is_a_rest() {
    let server = BigQuery::start();
    with_columns(&server, TABLE, &[("id", "STRING")]);
    let app = app(&server, PLAIN).await;
    server.fails_next(
        "insertAll",
        [Fault::RateLimited, Fault::QuotaExceeded, Fault::TooManyRequests, Fault::AccessDenied],
    );
    send(&app, &[track("a", &json!({}))]).await;
    app.run_for(Duration::from_secs(20)).await;
    let status = app.app.fleet.statuses().into_values().next().unwrap();
    assert!(status.rest.is_some() && status.last_failure.unwrap().contains("accessDenied"));
    app.run_for(Duration::from_mins(2)).await;
    assert_eq!((server.table(TABLE).len(), app.dead_letters("bq").await.len()), (1, 0));
}

#[tokio::test]
async fn a_table_that_is_not_there_is_a_rest_until_somebody_makes_it() {
    let server = BigQuery::start();
    server.create_dataset("acme", "events");
    let app = app(&server, PLAIN).await;
    send(&app, &[track("a", &json!({}))]).await;
    app.run_for(Duration::from_mins(5)).await;
    assert!(app.app.fleet.statuses().values().next().unwrap().rest.is_some());
    with_columns(&server, TABLE, &[("id", "STRING")]);
    app.run_for(Duration::from_mins(2)).await;
    assert_eq!((server.table(TABLE).len(), app.dead_letters("bq").await.len()), (1, 0));
}

const MADE: &str = "create_table = true\ncluster_by = [\"id\"]\nschema = { id = \"STRING NOT NULL\", at = \"TIMESTAMP\", \
                    raw = \"JSON\", n = \"INT64\", tags = \"ARRAY<STRING>\", shop = \"STRUCT<id INT64>\" }\n\
                    partition_by = { column = \"at\", per = \"hour\", expire = \"400d\", require_filter = true }";

#[tokio::test]
async fn a_table_is_made_as_declared_and_its_rows_wait_until_it_is_known() {
    let server = BigQuery::with(Options { table_delay: Duration::from_mins(3), ..Options::default() });
    server.create_dataset("acme", "events");
    // Even where three tries are all there is: waiting for a table is none.
    let own = format!("{PLAIN}\n{MADE}\nretry = {{ attempts_max = 3 }}");
    let app = app(&server, &own.replace("\"...\"", "at = \"{{ timestamp }}\", \"...\"")).await;
    let properties = json!({ "raw": { "a": [1] }, "n": 9_007_199_254_740_993_i64, "tags": ["x"], "shop": { "id": 7 } });
    send(&app, &[track("a", &properties)]).await;
    app.run_for(Duration::from_mins(1)).await;
    assert_eq!((server.table(TABLE).len(), app.dead_letters("bq").await.len()), (0, 0));
    app.run_for(Duration::from_mins(5)).await;
    let row = server.table(TABLE).rows().remove(0);
    assert_eq!((&row["n"], &row["tags"]), (&json!(9_007_199_254_740_993_i64), &json!(["x"])));
    assert_eq!(serde_json::from_str::<Value>(row["raw"].as_str().unwrap()).unwrap(), json!({ "a": [1] }));
    assert_eq!(row["shop"], json!({ "id": 7 }));
    let table = server.table(TABLE).resource();
    assert_eq!(table["clustering"], json!({ "fields": ["id"] }));
    assert_eq!(table["timePartitioning"]["type"], "HOUR");
    assert_eq!(table["timePartitioning"]["expirationMs"], (400_u64 * 86_400_000).to_string());
    assert_eq!(table["requirePartitionFilter"], true);
    assert_eq!(server.bodies("tables.insert").len(), 1, "it was asked for once");
}

#[tokio::test]
async fn a_dataset_that_is_not_there_is_made_where_the_file_says() {
    let server = BigQuery::start();
    let app =
        app(&server, &format!("{PLAIN}\ncreate_table = true\nlocation = \"EU\"\nschema = {{ id = \"STRING\" }}")).await;
    send(&app, &[track("a", &json!({}))]).await;
    app.run_for(Duration::from_mins(1)).await;
    assert_eq!(ids(&server, TABLE), set(&["a"]));
    assert_eq!(server.bodies("datasets.insert")[0]["location"], "EU");
}

#[tokio::test]
async fn a_table_that_may_not_be_made_is_a_rest_and_no_dead_letter() {
    let server = BigQuery::start();
    server.create_dataset("acme", "events");
    let app = app(&server, &format!("{PLAIN}\ncreate_table = true\nschema = {{ id = \"STRING\" }}")).await;
    server.fails_next("tables.insert", [Fault::AccessDenied]);
    send(&app, &[track("a", &json!({}))]).await;
    app.run_for(Duration::from_secs(30)).await;
    let status = app.app.fleet.statuses().into_values().next().unwrap();
    assert!(status.rest.is_some() && status.last_failure.as_deref().unwrap().contains("making it"), "{status:?}");
    app.run_for(Duration::from_mins(5)).await;
    assert_eq!((ids(&server, TABLE), app.dead_letters("bq").await.len()), (set(&["a"]), 0));
}

#[tokio::test]
async fn a_column_that_is_not_there_is_added_and_its_rows_wait_until_it_is_known() {
    let server = BigQuery::with(Options { column_delay: Duration::from_mins(2), ..Options::default() });
    with_columns(&server, TABLE, &[("id", "STRING")]);
    let own = format!("{PLAIN}\nschema_update = \"add_columns\"\nschema = {{ id = \"STRING\", total = \"NUMERIC\" }}");
    let app = app(&server, &own).await;
    let rich = json!({ "total": 9.5, "is_gift": true, "count": 3, "note": "x", "$ref": "r", "tags": ["a"], "ship": { "to": "B" } });
    send(&app, &[track("a", &json!({})), track("b", &rich)]).await;
    app.run_for(Duration::from_secs(30)).await;
    assert_eq!(ids(&server, TABLE), set(&["a"]), "what needs no new column does not wait");
    app.run_for(Duration::from_mins(5)).await;
    let rows = server.table(TABLE).rows();
    let row = rows.iter().find(|row| row["id"] == "b").unwrap();
    assert_eq!(
        *row,
        json!({ "id": "b", "total": "9.5", "is_gift": true, "count": 3.0, "note": "x", "_ref": "r", "tags": "[\"a\"]", "ship": "{\"to\":\"B\"}" })
    );
    assert_eq!(server.bodies("tables.patch").len(), 1, "all at once");
    assert_eq!(app.dead_letters("bq").await.len(), 0);
}

#[tokio::test]
async fn without_a_word_on_it_no_column_is_added_and_none_is_stripped() {
    let server = BigQuery::start();
    with_columns(&server, TABLE, &[("id", "STRING")]);
    let app = app(&server, PLAIN).await;
    send(&app, &[track("a", &json!({ "colour": "red" })), track("b", &json!({}))]).await;
    app.run_for(Duration::from_secs(5)).await;
    assert_eq!(ids(&server, TABLE), set(&["b"]));
    assert!(reasons(&app).await[0].1.contains("no such field: colour"));
}

#[tokio::test]
async fn a_value_of_another_type_is_a_dead_letter_and_never_null() {
    let server = BigQuery::start();
    with_columns(&server, TABLE, &[("id", "STRING"), ("size", "FLOAT"), ("raw", "JSON")]);
    let own = format!(
        "{PLAIN}\nschema_update = \"add_columns\"\nschema = {{ id = \"STRING\", size = \"FLOAT64\", raw = \"JSON\" }}"
    );
    let app = app(&server, &own).await;
    let events = [
        track("a", &json!({ "size": 1, "raw": 1 })),
        track("b", &json!({ "size": "large", "raw": "text" })),
        track("c", &json!({ "size": 2, "raw": { "any": ["thing"] } })),
    ];
    send(&app, &events).await;
    app.run_for(Duration::from_secs(5)).await;
    assert_eq!(ids(&server, TABLE), set(&["a", "c"]));
    assert!(reasons(&app).await[0].1.contains("invalid: size: "), "{:?}", reasons(&app).await);
}

#[tokio::test]
async fn each_event_may_have_a_table_of_its_own_and_one_that_is_missing_delays_only_its_rows() {
    let server = BigQuery::start();
    with_columns(&server, "acme.events.order_completed", &[("id", "STRING")]);
    let own = PLAIN.replace("\"all\"", "\"{{ event | snake }}\"");
    let app = app(&server, &own).await;
    let mut other = track("b", &json!({}));
    other["event"] = "Cart Viewed".into();
    let mut strange = track("c", &json!({}));
    strange["event"] = "a/b".into();
    send(&app, &[other, track("a", &json!({})), strange]).await;
    app.run_for(Duration::from_secs(5)).await;
    assert_eq!(ids(&server, "acme.events.order_completed"), set(&["a"]));
    send(&app, &[track("d", &json!({}))]).await;
    app.run_for(Duration::from_secs(5)).await;
    assert_eq!(ids(&server, "acme.events.order_completed"), set(&["a", "d"]));
    with_columns(&server, "acme.events.cart_viewed", &[("id", "STRING")]);
    app.run_for(Duration::from_mins(3)).await;
    assert_eq!(ids(&server, "acme.events.cart_viewed"), set(&["b"]));
}

#[tokio::test]
async fn a_table_that_one_rule_lacks_does_not_hold_up_those_of_the_others() {
    let server = BigQuery::start();
    with_columns(&server, TABLE, &[("id", "STRING")]);
    let own = "row = { id = \"{{ messageId }}\" }\n\
               [[destinations.bq.rules]]\non = \"identify\"\ntable = \"people\"\n\
               [[destinations.bq.rules]]\non = \"track\"\ntable = \"all\"";
    let app = app(&server, own).await;
    let person = json!({ "type": "identify", "userId": "u", "messageId": "p" });
    send(&app, &[person, track("a", &json!({}))]).await;
    app.run_for(Duration::from_secs(5)).await;
    send(&app, &[track("b", &json!({}))]).await;
    app.run_for(Duration::from_secs(5)).await;
    assert_eq!(ids(&server, TABLE), set(&["a", "b"]));
    with_columns(&server, "acme.events.people", &[("id", "STRING")]);
    app.run_for(Duration::from_mins(3)).await;
    assert_eq!(ids(&server, "acme.events.people"), set(&["p"]));
}

#[tokio::test]
async fn rows_of_one_event_never_share_an_id() {
    let server = BigQuery::start();
    with_columns(&server, TABLE, &[("sku", "STRING")]);
    let own = "table = \"all\"\n\
               [[destinations.bq.rules]]\neach = \"$.properties.products[*]\"\nrow = { sku = \"{{ item }}\" }\n\
               [[destinations.bq.rules]]\nrow = { sku = \"all of {{ messageId }}\" }";
    let app = app(&server, own).await;
    send(&app, &[track("a", &json!({ "products": ["x", "y", "x"] }))]).await;
    app.run_for(Duration::from_secs(5)).await;
    let mut skus: Vec<String> =
        server.table(TABLE).rows().iter().map(|row| row["sku"].as_str().unwrap().to_owned()).collect();
    skus.sort();
    assert_eq!(skus, ["all of a", "x", "x", "y"]);
}

#[tokio::test]
async fn a_token_that_was_withdrawn_is_replaced_before_anything_rests() {
    let server = BigQuery::start();
    with_columns(&server, TABLE, &[("id", "STRING")]);
    let app = app(&server, PLAIN).await;
    send(&app, &[track("a", &json!({}))]).await;
    app.run_for(Duration::from_secs(2)).await;
    server.forget_tokens();
    send(&app, &[track("b", &json!({}))]).await;
    app.run_for(Duration::from_secs(2)).await;
    assert_eq!(ids(&server, TABLE), set(&["a", "b"]));
}

/// Columns of each type that both clients write, and a row of them.
const TYPED: [(&str, &str, &str); 11] = [
    ("id", "STRING", "\"a\""),
    ("n", "INTEGER", "9007199254740993"),
    ("f", "FLOAT", "0.25"),
    ("d", "NUMERIC", "\"12.50\""),
    ("b", "BOOLEAN", "true"),
    ("at", "TIMESTAMP", "\"2026-01-02T03:04:05.678Z\""),
    ("day", "DATE", "\"2026-01-02\""),
    ("time", "TIME", "\"03:04:05\""),
    ("bytes", "BYTES", "\"AAEC\""),
    ("raw", "JSON", "{ \"a\": [1, null, \"x\"] }"),
    ("none", "STRING", "null"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_the_one_that_googles_own_client_makes() {
    let server = BigQuery::start();
    let columns: Vec<_> = TYPED.iter().map(|(name, kind, _)| (*name, *kind)).collect();
    with_columns(&server, TABLE, &columns);
    let schema: Vec<String> = columns.iter().map(|(name, kind)| format!("{name} = \"{}\"", sql(kind))).collect();
    let own = format!("table = \"all\"\nrow = \"{{{{ properties }}}}\"\nschema = {{ {} }}", schema.join(", "));
    let app = app(&server, &own).await;
    let row: Value = TYPED
        .iter()
        .map(|(name, _, value)| ((*name).to_owned(), serde_json::from_str::<Value>(value).unwrap()))
        .collect();
    send(&app, &[track("a", &row)]).await;
    app.run_for(Duration::from_secs(2)).await;
    let requests = server.requests();
    let ours = requests.iter().find(|request| request.is("insertAll")).unwrap().clone();
    assert_eq!((ours.status, ours.headers["content-encoding"].to_str().unwrap()), (200, "gzip"));
    // Theirs has no clock that we could move.
    let other = BigQuery::start();
    with_columns(&other, TABLE, &columns);
    let Some(client) = PythonClient::account(&other) else { return };
    let mut theirs = client.insert(&other, TABLE, &[row], &["a"]);
    // What says nothing by itself: NULL is what a row has not.
    theirs["rows"][0]["json"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let mut body = ours.body;
    body["rows"][0]["json"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
    // Text of JSON is the same with blanks or without, and a moment with or without its last zeros.
    for side in [&mut body, &mut theirs] {
        let row = &mut side["rows"][0]["json"];
        row["raw"] = serde_json::from_str(row["raw"].as_str().unwrap()).unwrap();
        row["at"] = row["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().to_string().into();
    }
    // Ours asks for the good rows of a request with a bad one; theirs does not unless it is told to.
    assert_eq!(body["skipInvalidRows"], true);
    // A boolean of theirs travels as text.
    theirs["rows"][0]["json"]["b"] = (theirs["rows"][0]["json"]["b"] == "true").into();
    assert_eq!(body["rows"], theirs["rows"]);
    let of_theirs = other.requests().into_iter().rfind(|request| request.is("insertAll")).unwrap();
    assert_eq!(ours.path, of_theirs.path.split('?').next().unwrap());
}

fn sql(kind: &str) -> &str {
    match kind {
        "INTEGER" => "INT64",
        "FLOAT" => "FLOAT64",
        "BOOLEAN" => "BOOL",
        other => other,
    }
}

/// Where the test below runs when somebody wants it to run at Google's: a project, a dataset in it that may be written to, and
/// a file with the JSON of credentials for it.
const LIVE: [&str; 3] =
    ["LIBROSEG_TEST_BIGQUERY_PROJECT", "LIBROSEG_TEST_BIGQUERY_DATASET", "LIBROSEG_TEST_BIGQUERY_CREDENTIALS"];

/// What [`LIVE`] names, and otherwise a server of ours.
struct Service {
    _server: Option<BigQuery>,
    endpoint: String,
    project: String,
    dataset: String,
    credentials: String,
    client: PythonClient,
}

impl Service {
    fn find() -> Option<Self> {
        if let [Ok(project), Ok(dataset), Ok(file)] = LIVE.map(std::env::var) {
            let credentials = std::fs::read_to_string(file).unwrap();
            let client = PythonClient::with_credentials(&credentials)?.live();
            let endpoint = "https://bigquery.googleapis.com".to_owned();
            return Some(Self { _server: None, endpoint, project, dataset, credentials, client });
        }
        let server = BigQuery::start();
        server.create_dataset("acme", "events");
        let (endpoint, credentials) = (server.endpoint(), server.credentials_json());
        let client = PythonClient::with_credentials(&credentials)?;
        let (project, dataset) = ("acme".to_owned(), "events".to_owned());
        Some(Self { _server: Some(server), endpoint, project, dataset, credentials, client })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_made_filled_and_extended_and_googles_own_client_reads_it_here_or_at_googles() {
    let Some(service) = Service::find() else { return };
    let table = format!("libroseg_test_{}", uuid());
    let name = format!("{}.{}.{table}", service.project, service.dataset);
    let Service { endpoint, project, dataset, credentials, .. } = &service;
    let (folder, credentials) = (tempfile::tempdir().unwrap(), json!(credentials));
    let file = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{HEAD}[destinations.bq]\ntype = \"bigquery\"\nendpoint = \"{endpoint}\"\n\
         project = \"{project}\"\ndataset = \"{dataset}\"\ntable = \"{table}\"\ncredentials = {credentials}\n\
         create_table = true\nschema_update = \"add_columns\"\n\
         schema = {{ id = \"STRING NOT NULL\", n = \"INT64\", raw = \"JSON\" }}\n\
         row = {{ id = \"{{{{ messageId }}}}\", \"...\" = \"{{{{ properties }}}}\" }}\n"
    );
    let path = folder.path().join("libroseg.toml");
    std::fs::write(&path, file).unwrap();
    let binary = Binary::start(&path);
    let events = [
        track("plain", &json!({ "n": 1 })),
        track("bad", &json!({ "n": "many" })),
        track("rich", &json!({ "n": 9_007_199_254_740_993_i64, "raw": { "a": [1] }, "colour": "red" })),
    ];
    let request = client().post(format!("{}/v1/batch", binary.url)).basic_auth(KEY, Some(""));
    let body = json!({ "batch": events }).to_string();
    assert!(request.body(body).send().await.unwrap().status().is_success());
    // Minutes at Google's: a new table, and then a new column, has to become known.
    let mut rows = Vec::new();
    for _ in 0..900 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rows = if binary.log().contains("dead letters") { service.client.rows(endpoint, &name) } else { Vec::new() };
        if rows.len() == 2 {
            break;
        }
    }
    service.client.drop_table(endpoint, &name);
    rows.sort_by_key(|row| row["id"].to_string());
    assert_eq!(rows.len(), 2, "{}", binary.log());
    assert_eq!((&rows[0]["id"], &rows[0]["n"], &rows[0]["colour"]), (&json!("plain"), &json!(1), &Value::Null));
    assert_eq!((&rows[1]["n"], &rows[1]["colour"]), (&json!(9_007_199_254_740_993_i64), &json!("red")));
    assert_eq!(rows[1]["raw"], json!({ "a": [1] }));
}

fn uuid() -> String {
    std::process::id().to_string() + &fastrand::u64(..).to_string()
}

/// So many events, one in a hundred with a row that does not fit, and one call in five going wrong.
#[tokio::test]
async fn through_many_faults_each_good_row_is_there_once_and_each_bad_one_is_a_dead_letter() {
    const EVENTS: usize = 5_000;
    let server = BigQuery::with(Options { keeps_requests: false, keeps_values: false, ..Options::default() });
    with_columns(&server, TABLE, &[("id", "STRING"), ("n", "INTEGER")]);
    let app = app(&server, PLAIN).await;
    server.fails_often("", 0.2, 7, &Fault::passing());
    let is_bad = |n: usize| n % 100 == 37;
    let event = |n: usize| track(&n.to_string(), &if is_bad(n) { json!({ "n": "bad" }) } else { json!({ "n": n }) });
    for begin in (0..EVENTS).step_by(1_000) {
        let events: Vec<Value> = (begin..begin + 1_000).map(event).collect();
        send(&app, &events).await;
        app.run_for(Duration::from_secs(1)).await;
    }
    app.run_for(Duration::from_mins(10)).await;
    let counts = server.table(TABLE).counts();
    let wrong =
        (0..EVENTS).filter(|n| counts.get(&n.to_string()).map_or(0, |(_, stored)| *stored) != u32::from(!is_bad(*n)));
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<usize>::new());
    let reasons = reasons(&app).await;
    let dead: BTreeSet<usize> = reasons.iter().map(|(id, _)| id.parse().unwrap()).collect();
    assert_eq!(dead, (0..EVENTS).filter(|n| is_bad(*n)).collect());
    assert_eq!(dead.len(), reasons.len());
    assert!(reasons.iter().all(|(_, reason)| reason.contains("invalid: n: ")));
}

#[test]
fn the_statements_that_make_the_tables_are_printed_for_those_who_make_them_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    let head = "type = \"bigquery\"\ncredentials = false\nproject = \"acme\"\ndataset = \"events\"\n";
    let file = format!(
        "{HEAD}[destinations.bq]\n{head}table = \"all\"\nrow = {{ id = \"{{{{ messageId }}}}\", group = 1 }}\ncluster_by = \"id\"\n\
         partition_by = {{ column = \"day\", per = \"month\", expire = \"36h\", require_filter = true }}\n\
         [destinations.bq.schema]\nid = {{ type = \"string not null\", description = \"a \\\"name\\\"\" }}\n\
         group = \"numeric(10,2)\"\nday = \"date\"\nshop = \"ARRAY<STRUCT<id INT64 NOT NULL, tags ARRAY<STRING>>>\"\n\
         [[destinations.bq.rules]]\n[[destinations.bq.rules]]\ntable = \"{{{{ event | snake }}}}\"\n\
         schema = {{ id = \"STRING\", group = \"BOOL\", timestamp = \"TIMESTAMP\" }}\npartition_by = {{}}\nrow = {{ id = \"x\" }}\ncluster_by = []\n"
    );
    std::fs::write(&path, file).unwrap();
    let output = Binary::command().args(["check", "--print-ddl"]).arg(&path).output().unwrap();
    let expected = "-- bq\n\
        CREATE TABLE `acme.events.all` (\n\
        \x20 id STRING NOT NULL OPTIONS (description = \"a \\\"name\\\"\"),\n\
        \x20 `group` NUMERIC(10, 2),\n\
        \x20 day DATE,\n\
        \x20 shop ARRAY<STRUCT<id INT64 NOT NULL, tags ARRAY<STRING>>>\n\
        )\n\
        PARTITION BY DATE_TRUNC(day, MONTH)\n\
        CLUSTER BY id\n\
        OPTIONS (partition_expiration_days = 1.5, require_partition_filter = TRUE);\n\
        \n\
        -- bq\n\
        CREATE TABLE `acme.events.{{ event | snake }}` (\n\
        \x20 id STRING,\n\
        \x20 `group` BOOL,\n\
        \x20 timestamp TIMESTAMP\n\
        )\n\
        PARTITION BY _PARTITIONDATE;\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
}
