//! The fake `BigQuery` of the test kit keeps Google's rules: a client that pleases it pleases the service.

use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::write::GzEncoder;
use libroseg::clock::Clock;
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::support::bigquery::{BigQuery, Fault, Limits, Options, PythonClient};
use crate::support::{client, is_current};

const TABLE: &str = "p.d.t";
const PATH: &str = "/projects/p/datasets/d/tables/t";
const ALL: &str = "https://www.googleapis.com/auth/bigquery";
const INSERT_ONLY: &str = "https://www.googleapis.com/auth/bigquery.insertdata";

/// An open server with a table of these columns, `name TYPE` or `name TYPE MODE` each.
fn with_table(columns: &[&str]) -> BigQuery {
    with_table_and(columns, Options { needs_tokens: false, ..Options::default() })
}

fn with_table_and(columns: &[&str], options: Options) -> BigQuery {
    let bigquery = BigQuery::with(options);
    bigquery.create_table(TABLE, schema(columns));
    bigquery
}

fn schema(columns: &[&str]) -> Value {
    let fields = columns.iter().map(|column| {
        let words: Vec<&str> = column.split(' ').collect();
        json!({ "name": words[0], "type": words[1], "mode": words.get(2).unwrap_or(&"NULLABLE") })
    });
    json!({ "schema": { "fields": fields.collect::<Vec<_>>() } })
}

/// Calls a method: `POST`, `/projects/…`.
async fn call(bigquery: &BigQuery, verb: &str, path: &str, body: Value) -> (u16, Value) {
    let url = format!("{}/bigquery/v2{path}", bigquery.endpoint());
    let mut request = client().request(Method::from_bytes(verb.as_bytes()).unwrap(), url);
    if !body.is_null() {
        request = request.body(body.to_string());
    }
    told(request).await
}

async fn told(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.header("content-type", "application/json").send().await.unwrap();
    (response.status().as_u16(), answer_of(response).await)
}

/// JSON, or the text of a page.
async fn answer_of(response: reqwest::Response) -> Value {
    let text = response.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

async fn insert_all(bigquery: &BigQuery, body: Value) -> (u16, Value) {
    call(bigquery, "POST", &format!("{PATH}/insertAll"), body).await
}

/// Inserts one row, or tells why not: `location: message`.
async fn insert(bigquery: &BigQuery, row: Value) -> Result<(), String> {
    let (status, answer) = insert_all(bigquery, json!({ "rows": [{ "json": row }] })).await;
    assert_eq!(status, 200, "{answer}");
    let error = &answer["insertErrors"][0]["errors"][0];
    if error.is_null() {
        return Ok(());
    }
    assert_eq!((&error["reason"], &error["debugInfo"]), (&json!("invalid"), &json!("")));
    Err(format!("{}: {}", error["location"].as_str().unwrap(), error["message"].as_str().unwrap()))
}

fn reason(answer: &Value) -> &str {
    answer["error"]["errors"][0]["reason"].as_str().unwrap_or_default()
}

fn message(answer: &Value) -> &str {
    answer["error"]["message"].as_str().unwrap_or_default()
}

// --- tokens

#[tokio::test]
async fn a_call_without_a_good_token_is_refused_and_challenged() {
    let bigquery = BigQuery::start();
    let url = format!("{}/bigquery/v2/projects/p/datasets/d", bigquery.endpoint());

    let response = client().get(&url).send().await.unwrap();
    assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"https://accounts.google.com/\"");
    assert_eq!(reason(&answer_of(response).await), "required");
    let response = client().get(&url).bearer_auth("ya29.stolen").send().await.unwrap();
    assert!(response.headers()["www-authenticate"].to_str().unwrap().contains("invalid_token"));
    let answer = answer_of(response).await;
    assert_eq!((reason(&answer), &answer["error"]["status"]), ("authError", &json!("UNAUTHENTICATED")));

    let token = bigquery.give_token(ALL);
    assert_eq!(told(client().get(&url).bearer_auth(&token)).await.0, 404);
    bigquery.forget_tokens();
    assert_eq!(told(client().get(&url).bearer_auth(&token)).await.0, 401);
}

#[tokio::test]
async fn a_token_ends_after_an_hour() {
    let bigquery = BigQuery::start();
    let clock = Clock::moved("2026-01-02T03:04:05Z".parse().unwrap());
    bigquery.follow(&clock);
    let url = format!("{}/bigquery/v2/projects/p/datasets/d", bigquery.endpoint());
    let token = bigquery.give_token(ALL);

    clock.advance_to("2026-01-02T04:04:04Z".parse().unwrap());
    assert_eq!(told(client().get(&url).bearer_auth(&token)).await.0, 404);
    clock.advance_to("2026-01-02T04:04:05Z".parse().unwrap());
    assert_eq!(told(client().get(&url).bearer_auth(&token)).await.0, 401);
}

#[tokio::test]
async fn a_token_to_insert_rows_makes_no_tables() {
    let bigquery = BigQuery::start();
    bigquery.create_table(TABLE, schema(&["a STRING"]));
    let token = bigquery.give_token(INSERT_ONLY);
    let url = format!("{}/bigquery/v2{PATH}", bigquery.endpoint());

    let rows = json!({ "rows": [{ "json": { "a": "1" } }] }).to_string();
    assert_eq!(told(client().post(format!("{url}/insertAll")).bearer_auth(&token).body(rows)).await.0, 200);
    let (status, answer) = told(client().get(url).bearer_auth(&token)).await;
    assert_eq!((status, reason(&answer)), (403, "insufficientPermissions"));
}

/// Asks for a token with an assertion of these claims, signed by the key of the account.
async fn exchange(bigquery: &BigQuery, claims: &Value) -> (u16, Value) {
    let account: Value = serde_json::from_str(&bigquery.credentials_json()).unwrap();
    let pem = account["private_key"].as_str().unwrap();
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(&json!({ "alg": "RS256", "typ": "JWT" })), part(claims));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    assertion(bigquery, &format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))).await
}

async fn assertion(bigquery: &BigQuery, assertion: &str) -> (u16, Value) {
    let form = format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
    told(client().post(format!("{}/token", bigquery.endpoint())).body(form)).await
}

#[tokio::test]
async fn an_assertion_gets_a_token_when_all_its_claims_are_right() {
    let bigquery = BigQuery::start();
    let clock = Clock::moved("2026-01-02T03:04:05Z".parse().unwrap());
    bigquery.follow(&clock);
    let now = clock.now().as_second();
    let issuer = "events@a-project.iam.gserviceaccount.com";
    let right = json!({
        "iss": issuer, "aud": format!("{}/token", bigquery.endpoint()), "scope": ALL, "iat": now, "exp": now + 3600,
    });

    let (status, answer) = exchange(&bigquery, &right).await;
    assert_eq!((status, &answer["token_type"], &answer["expires_in"]), (200, &json!("Bearer"), &json!(3599)));
    let url = format!("{}/bigquery/v2/projects/p/datasets/d", bigquery.endpoint());
    let token = answer["access_token"].as_str().unwrap();
    assert!(token.starts_with("ya29."));
    assert_eq!(told(client().get(url).bearer_auth(token)).await.0, 404);

    let wrong = [
        ("iss", json!("x@y"), "Invalid grant: account not found"),
        ("aud", json!("https://example.com"), "Invalid JWT: Failed audience check."),
        ("exp", json!(now + 3601), "Invalid JWT: Token must be a short-lived token"),
        ("exp", json!(now - 400), "Invalid JWT: Token must be a short-lived token"),
        ("iat", json!(now + 400), "Invalid JWT: Token must be a short-lived token"),
        ("scope", json!(""), "Invalid OAuth scope"),
        ("scope", json!("everything"), "Invalid OAuth scope"),
    ];
    for (claim, value, why) in wrong {
        let mut claims = right.clone();
        claims[claim] = value;
        let (status, answer) = exchange(&bigquery, &claims).await;
        assert_eq!(status, 400);
        assert!(answer["error_description"].as_str().unwrap().starts_with(why), "{claim}: {answer}");
    }
    for (forged, why) in [("nonsense", "Invalid JWT: malformed"), ("e30.e30.AAAA", "Invalid grant: account not found")]
    {
        let (status, answer) = assertion(&bigquery, forged).await;
        assert_eq!((status, &answer["error_description"]), (400, &json!(why)));
    }
    let claims = URL_SAFE_NO_PAD.encode(right.to_string());
    let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "RS256" }).to_string());
    let (_, answer) = assertion(&bigquery, &format!("{header}.{claims}.AAAA")).await;
    assert_eq!(
        (&answer["error"], &answer["error_description"]),
        (&json!("invalid_grant"), &json!("Invalid JWT Signature."))
    );
}

// --- tables

#[tokio::test]
async fn a_table_is_made_read_listed_and_deleted() {
    let bigquery = BigQuery::open();
    let reference = json!({ "projectId": "p", "datasetId": "d" });
    let dataset = json!({ "datasetReference": reference });
    let table = json!({
        "tableReference": { "projectId": "p", "datasetId": "d", "tableId": "t" },
        "schema": { "fields": [
            { "name": "at", "type": "TIMESTAMP", "mode": "REQUIRED" },
            { "name": "n", "type": "INT64" },
            { "name": "r", "type": "STRUCT", "fields": [{ "name": "b", "type": "BOOL", "mode": "REPEATED" }] },
        ] },
        "timePartitioning": { "type": "DAY", "field": "at", "expirationMs": "1000" },
        "clustering": { "fields": ["n"] },
    });

    let tables = "/projects/p/datasets/d/tables";
    assert_eq!(call(&bigquery, "POST", tables, table.clone()).await.0, 404);
    let (status, made) = call(&bigquery, "POST", "/projects/p/datasets", dataset.clone()).await;
    assert_eq!((status, &made["location"], &made["id"]), (200, &json!("US"), &json!("p:d")));
    assert_eq!(reason(&call(&bigquery, "POST", "/projects/p/datasets", dataset).await.1), "duplicate");
    assert_eq!(call(&bigquery, "GET", "/projects/p/datasets/d", Value::Null).await.0, 200);

    let (status, made) = call(&bigquery, "POST", tables, table.clone()).await;
    assert_eq!((status, &made["id"], &made["type"]), (200, &json!("p:d.t"), &json!("TABLE")));
    let types: Vec<&Value> = made["schema"]["fields"].as_array().unwrap().iter().map(|field| &field["type"]).collect();
    assert_eq!(types, ["TIMESTAMP", "INTEGER", "RECORD"], "types come back under their old names");
    let (status, again) = call(&bigquery, "POST", tables, table).await;
    assert_eq!((status, message(&again)), (409, "Already Exists: Table p:d.t"));
    assert_eq!(call(&bigquery, "GET", PATH, Value::Null).await, (200, made));
    let (_, list) = call(&bigquery, "GET", tables, Value::Null).await;
    assert_eq!((&list["totalItems"], &list["tables"][0]["id"]), (&json!(1), &json!("p:d.t")));

    assert_eq!(call(&bigquery, "DELETE", PATH, Value::Null).await.0, 204);
    let (status, gone) = call(&bigquery, "GET", PATH, Value::Null).await;
    assert_eq!((status, message(&gone), reason(&gone)), (404, "Not found: Table p:d.t", "notFound"));
}

#[tokio::test]
async fn partitions_and_clusters_fit_the_columns() {
    let bigquery = BigQuery::open();
    bigquery.create_dataset("p", "d");
    let made = |extra: Value| {
        let mut table = schema(&["at TIMESTAMP", "s STRING", "f FLOAT64", "many STRING REPEATED", "day DATE"]);
        table["tableReference"] = json!({ "projectId": "p", "datasetId": "d", "tableId": "t" });
        table.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        table
    };
    let cases = [
        (json!({ "timePartitioning": { "type": "DAY", "field": "nope" } }), "cannot be found in the schema"),
        (
            json!({ "timePartitioning": { "type": "DAY", "field": "s" } }),
            "can only be of type TIMESTAMP, DATE or DATETIME",
        ),
        (json!({ "timePartitioning": { "type": "HOUR", "field": "day" } }), "Hourly partitioning is not supported"),
        (json!({ "timePartitioning": { "type": "WEEK" } }), "timePartitioning.type"),
        (json!({ "clustering": { "fields": ["nope"] } }), "Invalid field: nope"),
        (json!({ "clustering": { "fields": ["f"] } }), "not supported on the field f of type FLOAT"),
        (json!({ "clustering": { "fields": ["many"] } }), "not supported on the field many"),
        (json!({ "clustering": { "fields": ["s", "at", "day", "s", "at"] } }), "one to four fields"),
    ];
    for (extra, why) in cases {
        let (status, answer) = call(&bigquery, "POST", "/projects/p/datasets/d/tables", made(extra)).await;
        assert_eq!((status, reason(&answer)), (400, "invalid"));
        assert!(message(&answer).contains(why), "{answer}");
    }
}

#[tokio::test]
async fn a_schema_grows_by_columns_that_may_be_empty_and_nothing_else() {
    let bigquery = with_table(&["a STRING REQUIRED", "b INT64"]);
    let refused = [
        (schema(&["b INT64"]), "Field a is missing in new schema"),
        (schema(&["a INT64 REQUIRED", "b INT64"]), "Field a has changed type from STRING to INTEGER"),
        (schema(&["a STRING REQUIRED", "b INT64 REQUIRED"]), "Field b has changed mode from NULLABLE to REQUIRED"),
        (
            schema(&["a STRING REQUIRED", "b INT64", "c STRING REQUIRED"]),
            "Cannot add required fields to an existing schema. (field: c)",
        ),
    ];
    for (schema, why) in refused {
        let (status, answer) = call(&bigquery, "PATCH", PATH, schema).await;
        let sentence = format!("Provided Schema does not match Table p:d.t. {why}");
        assert_eq!((status, reason(&answer), message(&answer)), (400, "invalid", sentence.as_str()));
    }
    let grown = schema(&["a STRING", "b INT64", "c STRING REPEATED"]);
    let (status, answer) = call(&bigquery, "PATCH", PATH, grown).await;
    assert_eq!((status, answer["schema"]["fields"].as_array().unwrap().len()), (200, 3));
    insert(&bigquery, json!({ "c": ["x"] })).await.unwrap();
    assert_eq!(bigquery.table(TABLE).rows(), [json!({ "a": null, "b": null, "c": ["x"] })]);
}

#[tokio::test]
async fn a_patch_of_what_somebody_else_changed_is_refused() {
    let bigquery = with_table(&["a STRING"]);
    let url = format!("{}/bigquery/v2{PATH}", bigquery.endpoint());
    let etag = bigquery.table(TABLE).resource()["etag"].as_str().unwrap().to_owned();
    let patch =
        |etag: &str| client().patch(&url).header("if-match", etag).body(json!({ "description": "x" }).to_string());

    assert_eq!(told(patch(&etag)).await.0, 200);
    let (status, answer) = told(patch(&etag)).await;
    assert_eq!((status, reason(&answer)), (412, "conditionNotMet"));
}

#[tokio::test]
async fn a_table_is_changed_five_times_in_ten_seconds_and_no_more() {
    let bigquery = with_table(&["a STRING"]);
    for _ in 0..5 {
        assert_eq!(call(&bigquery, "PATCH", PATH, json!({ "description": "x" })).await.0, 200);
    }
    let (status, answer) = call(&bigquery, "PATCH", PATH, json!({ "description": "x" })).await;
    assert_eq!((status, reason(&answer)), (403, "rateLimitExceeded"));
}

// --- rows

#[tokio::test]
async fn values_become_what_their_columns_hold() {
    let cases = [
        ("STRING", json!("é"), json!("é")),
        ("STRING", json!(12), json!("12")),
        ("BYTES", json!("AAE="), json!("AAE=")),
        ("INTEGER", json!(12), json!(12)),
        ("INT64", json!("9007199254740993"), json!(9_007_199_254_740_993_i64)),
        ("INT64", json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992_i64)),
        ("FLOAT", json!(1.5), json!(1.5)),
        ("FLOAT64", json!("NaN"), json!("NaN")),
        ("NUMERIC", json!("12345678901234567890.123456789"), json!("12345678901234567890.123456789")),
        ("NUMERIC", json!(19.99), json!("19.99")),
        (
            "BIGNUMERIC",
            json!("0.00000000000000000000000000000000000001"),
            json!("0.00000000000000000000000000000000000001"),
        ),
        ("BOOLEAN", json!(true), json!(true)),
        ("BOOL", json!("false"), json!(false)),
        ("TIMESTAMP", json!("2026-01-02T03:04:05.678Z"), json!("2026-01-02T03:04:05.678Z")),
        ("TIMESTAMP", json!("2026-01-02 03:04:05+02:00"), json!("2026-01-02T01:04:05Z")),
        ("TIMESTAMP", json!("2026-01-02 03:04:05 UTC"), json!("2026-01-02T03:04:05Z")),
        ("TIMESTAMP", json!("2026-01-02"), json!("2026-01-02T00:00:00Z")),
        ("TIMESTAMP", json!(1_767_323_045.5), json!("2026-01-02T03:04:05.5Z")),
        ("TIMESTAMP", json!("1767323045"), json!("2026-01-02T03:04:05Z")),
        ("DATE", json!("2026-01-02"), json!("2026-01-02")),
        ("TIME", json!("03:04:05.678901"), json!("03:04:05.678901")),
        ("DATETIME", json!("2026-01-02T03:04:05"), json!("2026-01-02T03:04:05")),
        ("GEOGRAPHY", json!("POINT(1 2)"), json!("POINT(1 2)")),
        ("JSON", json!("{\"a\": [1, null]}"), json!("{\"a\":[1,null]}")),
        ("JSON", json!("null"), json!("null")),
    ];
    for (kind, sent, stored) in cases {
        let bigquery = with_table(&[&format!("x {kind}")]);
        insert(&bigquery, json!({ "x": sent })).await.unwrap_or_else(|error| panic!("{kind} {sent}: {error}"));
        assert_eq!(bigquery.table(TABLE).rows(), [json!({ "x": stored })], "{kind} {sent}");
    }
}

#[tokio::test]
async fn values_that_do_not_fit_their_columns_are_refused() {
    let cases = [
        ("STRING", json!(true), "x: Conversion from bool to std::string is unsupported."),
        ("STRING", json!({ "a": 1 }), "x: This field: x is not a record."),
        ("STRING", json!(["a"]), "x: Array specified for non-repeated field: x."),
        ("BYTES", json!("no base64"), "x: Could not decode base64 string to bytes. Field: x; Value: no base64"),
        ("INTEGER", json!("abc"), "x: Cannot convert value to integer (bad value): abc"),
        ("INTEGER", json!(1.5), "x: Cannot convert value to integer (bad value): 1.5"),
        (
            "INTEGER",
            json!("9223372036854775808"),
            "x: Cannot convert value to integer (bad value): 9223372036854775808",
        ),
        ("FLOAT", json!("much"), "x: Cannot convert value to double (bad value): much"),
        ("NUMERIC", json!("1e30"), "x: Invalid NUMERIC value: 1e30"),
        ("NUMERIC", json!("1e9223372036854775807"), "x: Invalid NUMERIC value: 1e9223372036854775807"),
        ("NUMERIC", json!("0.0123456789"), "x: Invalid NUMERIC value: 0.0123456789"),
        ("BOOLEAN", json!("1"), "x: Cannot convert string value to boolean: 1"),
        ("DATE", json!("2026-02-30"), "x: Invalid date: '2026-02-30'"),
        ("TIME", json!("25:00:00"), "x: Invalid time: '25:00:00'"),
        ("DATETIME", json!("2026-01-02T03:04:05Z"), "x: Invalid datetime string \"2026-01-02T03:04:05Z\""),
        ("JSON", json!({ "a": 1 }), "x: This field: x is not a record."),
        ("JSON", json!("{a: 1}"), "x: syntax error while parsing value - invalid literal; last read: '{a: 1}'"),
    ];
    for (kind, sent, why) in cases {
        let bigquery = with_table(&[&format!("x {kind}")]);
        assert_eq!(insert(&bigquery, json!({ "x": sent })).await.unwrap_err(), why, "{kind} {sent}");
    }
    let bigquery = with_table(&["at TIMESTAMP"]);
    for wrong in [json!("yesterday"), json!("2026-01-02T03:04:05.678901234Z"), json!("12026-01-02"), json!("NaN")] {
        let error = insert(&bigquery, json!({ "at": wrong })).await.unwrap_err();
        assert!(error.starts_with("at: Could not parse '") && error.contains("as a timestamp"), "{error}");
    }
}

#[tokio::test]
async fn a_value_is_null_only_where_it_may_be() {
    let bigquery = with_table(&["a STRING", "must STRING REQUIRED", "many STRING REPEATED"]);

    insert(&bigquery, json!({ "a": null, "must": "x" })).await.unwrap();
    let missing = "Missing required field: Msg_0_CLOUD_QUERY_TABLE.must.";
    assert_eq!(insert(&bigquery, json!({ "a": "x" })).await.unwrap_err(), format!(": {missing}"));
    assert_eq!(insert(&bigquery, json!({ "must": null })).await.unwrap_err(), format!(": {missing}"));
    let empty = "Field value cannot be empty.";
    assert_eq!(insert(&bigquery, json!({ "must": "x", "many": null })).await.unwrap_err(), format!("many: {empty}"));
    let row = json!({ "must": "x", "many": ["a", null] });
    assert_eq!(insert(&bigquery, row).await.unwrap_err(), format!("many[1]: {empty}"));
    assert_eq!(bigquery.table(TABLE).rows(), [json!({ "a": null, "must": "x", "many": [] })]);
}

#[tokio::test]
async fn records_hold_records_and_a_mistake_says_where_it_is() {
    let bigquery = BigQuery::open();
    let item = json!({ "name": "n", "type": "INT64" });
    let items = json!({ "name": "items", "type": "RECORD", "mode": "REPEATED", "fields": [item] });
    bigquery.create_table(
        TABLE,
        json!({ "schema": { "fields": [{ "name": "order", "type": "STRUCT", "fields": [items] }] } }),
    );

    insert(&bigquery, json!({ "order": { "items": [{ "n": 1 }, {}] } })).await.unwrap();
    assert_eq!(bigquery.table(TABLE).rows(), [json!({ "order": { "items": [{ "n": 1 }, { "n": null }] } })]);
    let row = json!({ "order": { "items": [{ "n": 1 }, { "m": 1 }] } });
    assert_eq!(insert(&bigquery, row).await.unwrap_err(), "order.items[1].m: no such field: m.");
}

#[tokio::test]
async fn a_bad_row_stops_the_others_unless_it_may_be_skipped() {
    let bigquery = with_table(&["a STRING"]);
    let rows = json!([{ "json": { "a": "good" } }, { "json": { "b": "bad" } }]);

    let (status, answer) = insert_all(&bigquery, json!({ "rows": rows })).await;
    assert_eq!(status, 200);
    assert_eq!(answer["insertErrors"][0]["errors"][0]["reason"], "stopped");
    let error = json!({ "reason": "invalid", "location": "b", "debugInfo": "", "message": "no such field: b." });
    assert_eq!(answer["insertErrors"][1], json!({ "index": 1, "errors": [error] }));
    assert_eq!(bigquery.table(TABLE).len(), 0);

    let (_, answer) = insert_all(&bigquery, json!({ "skipInvalidRows": true, "rows": rows })).await;
    assert_eq!(answer["insertErrors"].as_array().unwrap().len(), 1);
    assert_eq!(bigquery.table(TABLE).len(), 1);

    let (_, answer) = insert_all(&bigquery, json!({ "ignoreUnknownValues": true, "rows": rows })).await;
    assert_eq!(answer, json!({ "kind": "bigquery#tableDataInsertAllResponse" }));
    assert_eq!(bigquery.table(TABLE).len(), 3);
}

#[tokio::test]
async fn a_row_with_the_same_insert_id_is_stored_once_a_minute() {
    let bigquery = with_table(&["a STRING"]);
    let clock = Clock::moved("2026-01-02T03:04:05Z".parse().unwrap());
    bigquery.follow(&clock);
    let twice = json!({ "rows": [
        { "insertId": "1", "json": { "a": "x" } }, { "insertId": "1", "json": { "a": "y" } }, { "json": { "a": "z" } },
    ] });

    insert_all(&bigquery, twice.clone()).await;
    clock.advance_to("2026-01-02T03:05:04Z".parse().unwrap());
    insert_all(&bigquery, twice.clone()).await;
    assert_eq!((bigquery.table(TABLE).sent("1"), bigquery.table(TABLE).stored("1")), (4, 1));
    clock.advance_to("2026-01-02T03:05:05Z".parse().unwrap());
    insert_all(&bigquery, twice).await;
    assert_eq!(bigquery.table(TABLE).duplicates(), ["1"]);
    assert_eq!(bigquery.table(TABLE).len(), 5, "rows without an id are never the same");
}

#[tokio::test]
async fn a_bad_row_does_not_use_up_its_insert_id() {
    let bigquery = with_table(&["a STRING"]);
    insert_all(&bigquery, json!({ "rows": [{ "insertId": "1", "json": { "b": "x" } }] })).await;
    insert_all(&bigquery, json!({ "rows": [{ "insertId": "1", "json": { "a": "x" } }] })).await;
    assert_eq!(bigquery.table(TABLE).stored("1"), 1);
}

#[tokio::test]
async fn a_request_has_its_limits() {
    let limits = Limits { body_bytes: 2000, wire_bytes: 4000, rows: 2, row_bytes: 1000, ..Limits::default() };
    let bigquery = with_table_and(&["a STRING"], Options { needs_tokens: false, limits, ..Options::default() });
    let of = |count: usize, size: usize| {
        let rows = vec![json!({ "json": { "a": "x".repeat(size) } }); count];
        json!({ "rows": rows })
    };

    let (status, answer) = insert_all(&bigquery, json!({ "rows": [] })).await;
    assert_eq!((status, message(&answer)), (400, "No rows present in the request."));
    let (status, answer) = insert_all(&bigquery, of(3, 1)).await;
    assert_eq!((status, message(&answer)), (400, "too many rows present in the request, limit: 2 row count: 3."));
    let (status, answer) = insert_all(&bigquery, of(1, 1200)).await;
    let why = "Maximum allowed row size exceeded. Allowed: 1000 Row size: 1208";
    assert_eq!((status, &answer["insertErrors"][0]["errors"][0]["message"]), (200, &json!(why)));
    let (status, answer) = insert_all(&bigquery, of(1, 2500)).await;
    assert_eq!((status, message(&answer)), (400, "Request payload size exceeds the limit: 2000 bytes."));
    let (status, answer) = insert_all(&bigquery, of(1, 5000)).await;
    assert_eq!(status, 413);
    assert!(answer.as_str().unwrap().contains("<title>Error 413 (Request Entity Too Large)!!1</title>"), "{answer}");
}

#[tokio::test]
async fn new_tables_and_columns_are_known_to_insert_all_after_a_while() {
    let delay = Duration::from_secs(10);
    let options = Options { needs_tokens: false, table_delay: delay, column_delay: delay, ..Options::default() };
    let bigquery = BigQuery::with(options);
    let clock = Clock::moved("2026-01-02T03:04:05Z".parse().unwrap());
    bigquery.follow(&clock);
    bigquery.create_dataset("p", "d");
    let mut table = schema(&["a STRING"]);
    table["tableReference"] = json!({ "projectId": "p", "datasetId": "d", "tableId": "t" });
    call(&bigquery, "POST", "/projects/p/datasets/d/tables", table).await;

    let row = json!({ "rows": [{ "json": { "a": "x" } }] });
    let (status, answer) = insert_all(&bigquery, row.clone()).await;
    assert_eq!((status, message(&answer)), (404, "Not found: Table p:d.t"));
    clock.advance_to("2026-01-02T03:04:15Z".parse().unwrap());
    assert_eq!(insert_all(&bigquery, row).await.0, 200);

    call(&bigquery, "PATCH", PATH, schema(&["a STRING", "b STRING"])).await;
    assert_eq!(insert(&bigquery, json!({ "b": "x" })).await.unwrap_err(), "b: no such field: b.");
    clock.advance_to("2026-01-02T03:04:25Z".parse().unwrap());
    insert(&bigquery, json!({ "b": "x" })).await.unwrap();
}

#[tokio::test]
async fn a_packed_body_is_unpacked() {
    let bigquery = with_table(&["a STRING"]);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(json!({ "rows": [{ "json": { "a": "x" } }] }).to_string().as_bytes()).unwrap();
    let url = format!("{}/bigquery/v2{PATH}/insertAll", bigquery.endpoint());
    let request = client().post(url).header("content-encoding", "gzip").body(packed.finish().unwrap());

    assert_eq!(told(request).await.0, 200);
    assert_eq!(bigquery.bodies("insertAll"), [json!({ "rows": [{ "json": { "a": "x" } }] })]);
}

#[tokio::test]
async fn rows_of_long_ago_and_of_far_ahead_have_no_partition() {
    let bigquery = BigQuery::open();
    let clock = Clock::moved("2026-01-02T03:04:05Z".parse().unwrap());
    bigquery.follow(&clock);
    let mut table = schema(&["at TIMESTAMP", "other TIMESTAMP"]);
    table["timePartitioning"] = json!({ "type": "DAY", "field": "at" });
    bigquery.create_table(TABLE, table);

    for fine in [json!("2021-01-03"), json!("2027-01-03"), json!(null)] {
        insert(&bigquery, json!({ "at": fine, "other": "1999-01-01" })).await.unwrap();
    }
    let why = "Value 1609545600000000 for partition column at of the destination table p:d.t is outside the allowed \
               bounds. You can only stream to partitions of date range within 1825 days in the past and 366 days in the \
               future relative to the current date.";
    assert_eq!(insert(&bigquery, json!({ "at": "2021-01-02" })).await.unwrap_err(), format!(": {why}"));
    insert(&bigquery, json!({ "at": "2027-01-04" })).await.unwrap_err();
}

#[tokio::test]
async fn milliseconds_are_no_seconds() {
    let bigquery = with_table(&["at TIMESTAMP"]);
    let error = insert(&bigquery, json!({ "at": 1_571_872_447_237_i64 })).await.unwrap_err();
    assert_eq!(error, "at: Timestamp field value is out of range:1571872447236999936");
}

// --- the discovery document

#[tokio::test]
async fn a_request_that_the_discovery_document_does_not_have_is_a_violation() {
    let bigquery = with_table(&["a STRING"]);
    let rows = json!([{ "json": { "a": "x" } }]);
    let cases = [
        (
            "POST",
            format!("{PATH}/insertAll"),
            json!({ "rows": rows, "skipInvalid": true }),
            "there is no property `skipInvalid`",
        ),
        (
            "POST",
            format!("{PATH}/insertAll"),
            json!({ "rows": rows, "skipInvalidRows": "yes" }),
            "`skipInvalidRows` is \"yes\", not boolean",
        ),
        (
            "POST",
            format!("{PATH}/insertAll"),
            json!({ "rows": [{ "insertID": "1", "json": {} }] }),
            "there is no property `rows[0].insertID`",
        ),
        ("POST", format!("{PATH}/insertAll?trace=1"), json!({ "rows": rows }), "there is no parameter `trace`"),
        ("POST", format!("{PATH}/insertAll"), Value::Null, "the body is missing"),
        (
            "PATCH",
            PATH.to_owned(),
            json!({ "expirationTime": "soon" }),
            "`expirationTime` is \"soon\", not string \"int64\"",
        ),
        ("PUT", format!("{PATH}/insertAll"), json!({ "rows": rows }), "there is no such method"),
    ];
    for (verb, path, body, why) in cases {
        let (status, _) = call(&bigquery, verb, &path, body).await;
        assert!([400, 404].contains(&status), "{status}");
        let violations = bigquery.take_violations();
        assert!(violations.len() == 1 && violations[0].ends_with(why), "{violations:?}");
    }
    let url = format!("{}/bigquery/v2{PATH}/insertAll", bigquery.endpoint());
    let response = client().post(url).body(json!({ "rows": rows }).to_string()).send().await.unwrap();
    assert_eq!(reason(&answer_of(response).await), "badContent");
    assert!(bigquery.take_violations()[0].contains("Unsupported content with type"));
    bigquery.assert_no_violations();
}

// --- what goes wrong

#[tokio::test]
async fn it_misbehaves_as_it_is_told() {
    let bigquery = with_table(&["a STRING"]);
    let rows = json!({ "skipInvalidRows": true, "rows": [{ "insertId": "1", "json": { "a": "x" } }] });
    let plan = [
        (Fault::Html(503), 503, ""),
        (Fault::Html(413), 413, ""),
        (Fault::RateLimited, 403, "rateLimitExceeded"),
        (Fault::TooManyRequests, 429, "rateLimitExceeded"),
        (Fault::QuotaExceeded, 403, "quotaExceeded"),
        (Fault::AccessDenied, 403, "accessDenied"),
        (Fault::BackendError, 500, "backendError"),
        (Fault::Unavailable, 503, "backendError"),
        (Fault::None, 200, ""),
    ];
    bigquery.fails_next("insertAll", plan.iter().map(|(fault, ..)| fault.clone()));
    for (fault, status, why) in plan {
        let (answered, answer) = insert_all(&bigquery, rows.clone()).await;
        assert_eq!((answered, reason(&answer)), (status, why), "{fault:?}");
        assert_eq!(answer.is_string(), matches!(fault, Fault::Html(_)));
    }
    bigquery.fails_next("insertAll", [Fault::Rows(1.0, "backendError")]);
    let (status, answer) = insert_all(&bigquery, rows.clone()).await;
    assert_eq!((status, &answer["insertErrors"][0]["errors"][0]["reason"]), (200, &json!("backendError")));
    assert_eq!((bigquery.table(TABLE).sent("1"), bigquery.table(TABLE).stored("1")), (2, 1));
}

#[tokio::test]
async fn a_connection_is_cut_before_or_after_the_work() {
    let bigquery = with_table(&["a STRING"]);
    let url = format!("{}/bigquery/v2{PATH}/insertAll", bigquery.endpoint());
    bigquery.fails_next("insertAll", [Fault::ResetBefore, Fault::ResetAfter]);
    for stored in [0, 1] {
        let body = json!({ "rows": [{ "json": { "a": "x" } }] }).to_string();
        client().post(&url).header("content-type", "application/json").body(body).send().await.unwrap_err();
        assert_eq!(bigquery.table(TABLE).len(), stored);
    }
    assert_eq!(bigquery.requests().iter().map(|request| request.status).collect::<Vec<_>>(), [0, 0]);
}

#[tokio::test]
async fn a_share_of_the_calls_goes_wrong_as_the_seed_says() {
    let statuses = |seed: u64| async move {
        let bigquery = with_table(&["a STRING"]);
        bigquery.fails_often("insertAll", 0.5, seed, &[Fault::BackendError, Fault::Html(502)]);
        let mut statuses = Vec::new();
        for _ in 0..20 {
            statuses.push(insert_all(&bigquery, json!({ "rows": [{ "json": {} }] })).await.0);
        }
        statuses
    };
    let first = statuses(1).await;
    assert_eq!(first, statuses(1).await);
    assert_ne!(first, statuses(2).await);
    assert!([200, 500, 502].iter().all(|status| first.contains(status)), "{first:?}");
}

// --- Google's own client

/// What came of the steps of `tests/sdks/bigquery.py`.
fn check_report(report: &Value) {
    assert_eq!(report["dataset"], "EU");
    assert_eq!(report["table"], json!(["DAY", "at", 86_400_000, ["id", "date"]]));
    assert_eq!(report["columns"].as_array().unwrap().len(), 15);
    assert_eq!(report["columns"][14], "order RECORD NULLABLE");
    assert_eq!(report["tables"], json!(["events"]));
    assert_eq!((&report["typed"], &report["plain"], &report["again"]), (&json!([]), &json!([]), &json!([])));
    let error = |reason: &str, location: &str, message: &str| json!([{ "reason": reason, "location": location, "debugInfo": "", "message": message }]);
    let invalid = json!([
        { "index": 0, "errors": error("invalid", "no", "no such field: no.") },
        { "index": 1, "errors": error("stopped", "", "") },
    ]);
    assert_eq!(report["invalid"], invalid);
    let missing = "Missing required field: Msg_0_CLOUD_QUERY_TABLE.at.";
    assert_eq!(report["skipped"], json!([{ "index": 1, "errors": error("invalid", "", missing) }]));
    assert_eq!(report["added"], "added");
    assert!(report["stale"].as_str().unwrap().ends_with(": Precondition check failed."), "{report}");
    assert!(report["shrunk"].as_str().unwrap().contains("Field id is missing in new schema"), "{report}");
    assert_eq!(report["ids"], json!(["least", "plain", "typed", "z"]));
    assert_eq!(report["same"], json!([]), "columns whose value came back another");
    assert_eq!(report["times"], "2026-01-02T03:04:05.500000+00:00");
    assert!(report["gone"].as_str().unwrap().contains("Not found: Table a-project:shop.events"), "{report}");
}

#[test]
fn googles_own_client_is_content_with_it() {
    let Some(python) = PythonClient::anonymous() else { return };
    let bigquery = BigQuery::open();
    check_report(&python.check(&bigquery));
    bigquery.assert_no_violations();
}

#[test]
fn googles_own_client_proves_who_it_is_and_tries_again() {
    let bigquery = BigQuery::start();
    let Some(python) = PythonClient::account(&bigquery) else { return };
    bigquery.fails_next("tables.get", [Fault::Html(503)]);
    bigquery.fails_next("insertAll", [Fault::BackendError]);

    check_report(&python.check(&bigquery));
    let tokens: Vec<u16> =
        bigquery.requests().iter().filter(|request| request.is("token")).map(|request| request.status).collect();
    assert_eq!(tokens, [200]);
    let statuses: Vec<u16> =
        bigquery.requests().iter().filter(|request| request.is("insertAll")).map(|request| request.status).collect();
    assert_eq!(statuses, [500, 200, 200, 200, 200, 200]);
}

#[test]
fn what_googles_own_client_sends_for_typed_rows_can_be_looked_at() {
    let Some(python) = PythonClient::anonymous() else { return };
    let bigquery = with_table(&[
        "id STRING REQUIRED",
        "at TIMESTAMP",
        "n INT64",
        "price NUMERIC",
        "ok BOOL",
        "traits JSON",
        "tags STRING REPEATED",
    ]);
    let row = json!({ "id": "1", "at": "2026-01-02T03:04:05.678Z", "n": 7, "price": "19.99", "ok": true, "traits": { "a": 1 }, "tags": ["x"] });

    let body = python.insert(&bigquery, TABLE, &[row], &["the-id"]);
    let sent = json!({
        "id": "1", "at": "2026-01-02T03:04:05.678000Z", "n": "7", "price": "19.99", "ok": "true", "traits": "{\"a\": 1}", "tags": ["x"],
    });
    assert_eq!(body, json!({ "skipInvalidRows": true, "rows": [{ "insertId": "the-id", "json": sent }] }));
    assert_eq!(bigquery.table(TABLE).rows()[0]["at"], "2026-01-02T03:04:05.678Z");
}

#[test]
fn the_discovery_document_is_the_one_that_google_ships() {
    let Some(python) = PythonClient::anonymous() else { return };
    is_current("tests/fixtures/bigquery/discovery.json", &python.script("discovery.py"));
}
