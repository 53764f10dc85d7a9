//! Real SDKs drive the real binary: each driver in `tests/sdks/` makes the calls of `tests/sdks/calls.json` with its
//! SDK, and what they carried is looked for, once each, at a service and in a file.
//!
//! The drivers need what `tests/sdks/install.sh` installs. Without it a test says so and passes, except in CI.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Number, Value, json};

use crate::support::bigquery::BigQuery;
use crate::support::tools::{has_chromium, has_node, is_there, python, sdks};
#[cfg(unix)]
use crate::support::vercel::Function;
use crate::support::{Binary, Fake};

const WRITE_KEY: &str = "test_write_key";

/// The longest a driver may run; drivers give up by themselves after 90 s.
const DRIVER_MAX: Duration = Duration::from_mins(2);

/// The longest an accepted event may take to a healthy destination, on a machine that is busy with other tests.
const ARRIVAL_MAX: Duration = Duration::from_mins(1);

/// A duplicate would have come by then.
const QUIET: Duration = Duration::from_millis(500);

/// A driver and what is particular about its SDK.
struct Sdk {
    /// Arguments of the driver, the program first.
    command: Vec<String>,
    /// `context.library.name`, and that `version` is there.
    library: &'static str,
    /// What the values that only this SDK's language can hold become; see `native` in its driver.
    native: Value,
    /// Whether the SDK adds properties of its own to pages: their name and category, and what the browser knows.
    enriches_pages: bool,
}

/// What a driver prints.
struct Report {
    /// `{id, type, messageId?, userId?, anonymousId?, event?, name?}` of each call.
    sent: Vec<Value>,
    /// All of it, for what only one driver counts.
    whole: Value,
}

#[test]
fn each_event_of_analytics_node_arrives_once_and_mapped() {
    let Some(command) = node_driver("node.mjs") else { return };
    let report = drive(&Sdk { command, library: "@segment/analytics-node", native: js_values(), enriches_pages: true });
    assert_all_calls_made(&report);
}

#[test]
fn the_shipped_file_makes_each_event_of_analytics_node_a_row_of_bigquery_as_the_blueprint_has_it() {
    let Some(command) = node_driver("node.mjs") else { return };
    let sdk = Sdk { command, library: "@segment/analytics-node", native: js_values(), enriches_pages: true };
    let (dir, bigquery) = (tempfile::tempdir().unwrap(), BigQuery::start());
    bigquery.create_dataset("acme", "events");
    let path = dir.path().join("libroseg.toml");
    fs::write(&path, shipped(&bigquery, dir.path())).unwrap();
    let credentials = bigquery.credentials_json();
    let variables = [
        ("LIBROSEG_WRITE_KEY", WRITE_KEY),
        ("BIGQUERY_PROJECT_ID", "acme"),
        ("BIGQUERY_DATASET", "events"),
        ("BIGQUERY_TABLE", "all"),
        ("BIGQUERY_CREDENTIALS", &credentials),
    ];
    let binary = Binary::start_with(&path, &variables);

    let report = run(&sdk, &binary.url, dir.path());
    assert_all_calls_made(&report);
    let count = || if bigquery.has_table("acme.events.all") { bigquery.table("acme.events.all").len() } else { 0 };
    let script = Script::read();
    // BigQuery streams into partitions of the last five years.
    let is_of_old = |call: &&Value| script.call(call)["timestamp"].as_str().is_some_and(|at| at < "2021");
    let (old, sent): (Vec<&Value>, Vec<&Value>) = report.sent.iter().partition(is_of_old);
    wait_until("every event is a row", || count() >= sent.len());
    thread::sleep(QUIET);
    let rows = by_id(&bigquery.table("acme.events.all").rows(), "message_id");
    assert_eq!((rows.len(), old.len()), (sent.len(), 1), "log:\n{}", binary.log());
    assert!(binary.log().contains("outside the allowed bounds"));
    for call in sent {
        let (row, expected) = (&rows[&text_of(call, "messageId")], script.expected(&sdk, call));
        assert_eq!(row.as_object().unwrap().len(), 9);
        for (column, key) in [("type", "type"), ("event", "event"), ("user_id", "userId")] {
            assert_eq!(row[column], call.get(key).cloned().unwrap_or(Value::Null), "{call}");
        }
        for key in ["properties", "traits"] {
            let written = parse(row[key].as_str().unwrap());
            assert_subset(&expected.get(key).cloned().unwrap_or_else(|| json!({})), &written, key);
        }
        assert_eq!(parse(row["context"].as_str().unwrap())["library"]["name"], sdk.library);
        assert!(row["timestamp"].is_string());
    }
}

#[cfg(unix)]
#[test]
fn each_event_of_analytics_node_arrives_once_by_way_of_a_vercel_function_with_each_ack() {
    let Some(command) = node_driver("node.mjs") else { return };
    let sdk = Sdk { command, library: "@segment/analytics-node", native: js_values(), enriches_pages: true };
    for ack in ["queued", "delivered"] {
        let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start());
        let source = format!("[sources.web]\nwrite_keys = [\"{WRITE_KEY}\"]\n[queue]\nack = \"{ack}\"\n");
        let function = Function::start(&format!("{source}[destinations.fake]\nurl = \"{}\"\n", fake.url()));
        function.suspend_between_requests();

        let report = run(&sdk, &function.front(), dir.path());
        assert_all_calls_made(&report);
        wait_until("the service has every event", || fake.bodies().len() >= report.sent.len());
        thread::sleep(QUIET);

        let events = by_id(&fake.bodies(), "messageId");
        let sent: BTreeSet<String> = report.sent.iter().map(|call| text_of(call, "messageId")).collect();
        assert_eq!(events.keys().cloned().collect::<BTreeSet<_>>(), sent, "log:\n{}", function.log());
        assert!(function.suspended() > 0, "it never slept");
    }
}

/// The shipped file, in a folder of its own, with this BigQuery in place of Google's.
fn shipped(bigquery: &BigQuery, dir: &Path) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("libroseg.toml")).unwrap();
    let endpoint = format!("extends = \"bigquery\"\nendpoint = \"{}\"", bigquery.endpoint());
    let text = text.replace("0.0.0.0:8080", "127.0.0.1:0").replace("extends = \"bigquery\"", &endpoint);
    text.replace("\"data/", &format!("\"{}/", dir.display()))
}

#[test]
fn each_event_of_rudder_sdk_node_arrives_once_and_mapped() {
    let Some(command) = node_driver("rudder.mjs") else { return };
    let report = drive(&Sdk { command, library: "analytics-node", native: js_values(), enriches_pages: false });
    assert_all_calls_made(&report);
}

#[test]
fn each_event_of_analytics_python_arrives_once_and_mapped() {
    let Some(command) = python_driver() else { return };
    let native = json!({
        "datetime": "2026-01-02T03:04:05.678000+00:00",
        "date": "2026-01-02",
        "decimal": 19.99,
        "enum": "premium",
        "tuple": [1, "two"],
        "nan": null,
        "infinity": null,
        "i64_min": i64::MIN,
        "u64_max": u64::MAX,
        "above_safe": 9_007_199_254_740_993_u64,
        "cut_emoji": "\u{fffd}",
        "deep": deep(),
    });
    let report = drive(&Sdk { command, library: "analytics-python", native, enriches_pages: false });
    assert_all_calls_made(&report);
}

#[test]
fn each_event_of_the_segment_crate_arrives_once_and_mapped() {
    let Some(command) = rust_driver() else { return };
    let native = json!({
        "u64_max": u64::MAX,
        "i64_min": i64::MIN,
        "above_safe": 9_007_199_254_740_993_u64,
        "nan": null,
        "deep": deep(),
    });
    let report = drive(&Sdk { command, library: "segment-rust", native, enriches_pages: false });
    assert_all_calls_made(&report);
}

#[test]
fn each_event_of_analytics_next_in_chromium_arrives_once_and_mapped() {
    let Some(report) = drive_browser("calls") else { return };
    assert_all_calls_made(&report);
    assert!(report.whole["traffic"]["preflights"].as_u64() > Some(0), "no request was preflighted: {}", report.whole);
}

#[test]
fn each_event_batched_by_analytics_next_in_chromium_arrives_once_and_mapped() {
    let Some(report) = drive_browser("batching") else { return };
    assert_all_calls_made(&report);
    assert!(report.whole["traffic"]["preflights"].as_u64() > Some(0), "no request was preflighted: {}", report.whole);
}

#[test]
fn each_event_of_a_page_that_is_left_right_after_the_call_arrives_once_and_mapped() {
    let Some(report) = drive_browser("unload") else { return };
    let made: BTreeSet<&str> = report.sent.iter().filter_map(|call| call["type"].as_str()).collect();
    assert_eq!(made, all_types());
}

fn drive_browser(mode: &str) -> Option<Report> {
    let mut command = node_driver("browser.mjs")?;
    if !has_chromium() {
        return None;
    }
    command.extend(["--mode".to_owned(), mode.to_owned()]);
    Some(drive(&Sdk { command, library: "analytics.js", native: js_values(), enriches_pages: true }))
}

/// What became of `tests/sdks/native.mjs`.
fn js_values() -> Value {
    json!({
        "date": "2026-01-02T03:04:05.678Z",
        "dates": ["1970-01-01T00:00:00.000Z"],
        "nan": null,
        "negative_zero": 0,
        "cut_emoji": "\u{fffd}",
        "deep": deep(),
    })
}

fn deep() -> Value {
    (0..64).fold(json!("bottom"), |inner, _| json!({ "d": inner }))
}

// === the drive ===

/// Runs the driver against a new binary and checks all that is the same for every SDK.
fn drive(sdk: &Sdk) -> Report {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let fake = Fake::start();
    let file = dir.path().join("events.ndjson");
    let path = dir.path().join("libroseg.toml");
    fs::write(&path, config(&fake.url(), &file)).expect("the file can be written");
    let binary = Binary::start(&path);

    let report = run(sdk, &binary.url, dir.path());
    let script = Script::read();
    let filed = report.sent.iter().filter(|call| script.reaches_the_file(call)).count();
    wait_until("the service has every event", || fake.bodies().len() >= report.sent.len());
    wait_until("the file has every event", || lines(&file).len() >= filed);
    thread::sleep(QUIET);

    let (service, file) = (by_id(&fake.bodies(), "id"), by_id(&lines(&file), "messageId"));
    assert_eq!(service.len(), report.sent.len(), "events at the service; log:\n{}", binary.log());
    assert_eq!(file.len(), filed, "events in the file; log:\n{}", binary.log());
    for call in &report.sent {
        check(sdk, &script.expected(sdk, call), call, &service, &file);
    }
    let kinds: BTreeSet<&str> = service.values().filter_map(|body| body["kind"].as_str()).collect();
    assert_eq!(kinds, all_types());
    report
}

/// Two destinations: `fake` maps a few fields, `whole` writes down everything.
fn config(fake: &str, file: &Path) -> String {
    let file = file.display();
    format!(
        r#"
        [server]
        listen = "127.0.0.1:0"

        [sources.web]
        write_keys = ["{WRITE_KEY}"]

        [queue]
        type = "memory"

        [destinations.fake]
        url = "{fake}/events"

        [destinations.fake.body]
        id    = "{{{{ messageId }}}}"
        kind  = "{{{{ type }}}}"
        who   = "{{{{ userId or anonymousId }}}}"
        name  = "{{{{ coalesce(event, name) }}}}"
        total = "{{{{ properties.total | number }}}}"
        raw   = "{{{{ properties | json }}}}"

        [destinations.whole]
        type   = "file"
        path   = '{file}'
        format = "ndjson"
        body   = "{{{{ message }}}}"
        "#
    )
}

fn run(sdk: &Sdk, endpoint: &str, dir: &Path) -> Report {
    let (out, err) = (dir.join("driver.out"), dir.join("driver.err"));
    let create = |path: &Path| File::create(path).expect("the driver's output can be created");
    let mut child = Command::new(&sdk.command[0])
        .args(&sdk.command[1..])
        .args(["--endpoint", endpoint, "--write-key", WRITE_KEY])
        .env("NO_PROXY", "127.0.0.1") // Every SDK but the browser's would take a proxy to loopback too.
        .stdin(Stdio::null())
        .stdout(create(&out))
        .stderr(create(&err))
        .spawn()
        .expect("the driver starts");
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("the driver can be waited for") {
            break Some(status);
        }
        if started.elapsed() > DRIVER_MAX {
            child.kill().expect("the driver can be killed");
            break None;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let read = |path: &Path| fs::read_to_string(path).expect("the driver's output can be read");
    let (out, err) = (read(&out), read(&err));
    let context = || format!("{:?} ended with {status:?}\nstdout:\n{out}\nstderr:\n{err}", sdk.command);
    assert!(status.is_some_and(|status| status.success()), "{}", context());
    let line = out.lines().rfind(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no report; {}", context()));
    let whole: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}; {}", context()));
    assert_eq!(whole["errors"], json!([]), "{}", context());
    Report { sent: whole["sent"].as_array().expect("a report lists what was sent").clone(), whole }
}

/// The items by id. An id that comes twice is the failure all this is about.
fn by_id(items: &[Value], key: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for item in items {
        let id = item[key].as_str().unwrap_or_else(|| panic!("no {key} in {item}")).to_owned();
        assert!(!id.is_empty(), "an empty {key} in {item}");
        assert!(found.insert(id, item.clone()).is_none(), "delivered twice: {item}");
    }
    found
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(|line| serde_json::from_str(line).expect("the file is NDJSON")).collect()
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() && started.elapsed() < ARRIVAL_MAX {
        thread::sleep(Duration::from_millis(20));
    }
    // Not an assertion: what is missing is told better by the comparisons that follow.
    if !holds() {
        eprintln!("{what}: not after {ARRIVAL_MAX:?}");
    }
}

// === what is expected ===

/// `tests/sdks/calls.json`, extra tracks included.
struct Script {
    calls: BTreeMap<String, Value>,
}

impl Script {
    fn read() -> Self {
        let text = fs::read_to_string(sdks().join("calls.json")).expect("calls.json is there");
        let script: Value = serde_json::from_str(&text).expect("calls.json is JSON");
        let written = script["calls"].as_array().expect("calls.json lists calls").iter().cloned();
        let extras = (0..script["extras"].as_u64().expect("calls.json says how many extras")).map(extra);
        let bare = json!({ "id": "bare", "type": "track", "anonymousId": "anon-1", "event": "Bare", "properties": {} });
        let calls = written.chain(extras).chain([bare]);
        Self { calls: calls.map(|call| (text_of(&call, "id"), call)).collect() }
    }

    /// One call is for `fake` alone, as its `integrations` say.
    fn reaches_the_file(&self, sent: &Value) -> bool {
        self.call(sent)["integrations"]["All"] != json!(false)
    }

    fn expected(&self, sdk: &Sdk, sent: &Value) -> Value {
        let mut call = self.call(sent).clone();
        if sent["id"] == "native" {
            let native = sdk.native.as_object().expect("native values are an object").clone();
            call["properties"].as_object_mut().expect("properties are an object").extend(native);
        }
        call
    }

    fn call(&self, sent: &Value) -> &Value {
        self.calls.get(&text_of(sent, "id")).unwrap_or_else(|| panic!("not in calls.json: {sent}"))
    }
}

fn extra(n: u64) -> Value {
    let total: f64 = format!("{n}.5").parse().expect("digits and a half are a number");
    let (id, properties) = (format!("extra-{n}"), json!({ "n": n, "total": total }));
    json!({ "id": id, "type": "track", "event": "Extra", "properties": properties })
}

fn assert_all_calls_made(report: &Report) {
    let made: BTreeSet<String> = report.sent.iter().map(|call| text_of(call, "id")).collect();
    let missing: Vec<String> =
        Script::read().calls.into_keys().filter(|id| !made.contains(id) && id != "bare").collect();
    assert!(missing.is_empty(), "the driver did not make {missing:?}");
}

fn all_types() -> BTreeSet<&'static str> {
    ["track", "identify", "page", "screen", "group", "alias"].into()
}

// === what arrived ===

type Arrived = BTreeMap<String, Value>;

fn check(sdk: &Sdk, expected: &Value, sent: &Value, service: &Arrived, file: &Arrived) {
    // A call that was given no message id is found by its name.
    let find = |arrived: &Arrived, key: &str| match sent["messageId"].as_str() {
        Some(id) => arrived.get(id).cloned(),
        None => arrived.values().find(|item| item[key] == sent["event"]).cloned(),
    };
    let mapped = find(service, "name").unwrap_or_else(|| panic!("not at the service: {sent}"));
    check_mapped(sdk, expected, sent, &mapped);
    if expected["integrations"]["All"] == json!(false) {
        assert_eq!(find(file, "event"), None, "integrations were not honoured: {sent}");
        return;
    }
    let whole = find(file, "event").unwrap_or_else(|| panic!("not in the file: {sent}"));
    check_whole(sdk, expected, sent, &whole);
    let raw = mapped.get("raw").map(|raw| parse(raw.as_str().expect("`raw` is text")));
    assert_eq!(raw.as_ref(), whole.get("properties"), "`raw` is the event's properties as text: {mapped}");
}

fn check_mapped(sdk: &Sdk, expected: &Value, sent: &Value, mapped: &Value) {
    assert_no_write_key(mapped);
    let mut fields = mapped.as_object().expect("a body is an object").clone();
    let mut want = Map::new();
    want.insert("id".to_owned(), sent.get("messageId").unwrap_or(&mapped["id"]).clone());
    want.insert("kind".to_owned(), expected["type"].clone());
    want.insert("who".to_owned(), sent.get("userId").unwrap_or(&sent["anonymousId"]).clone());
    let name = expected.get("event").or_else(|| expected.get("name"));
    want.extend(name.map(|name| ("name".to_owned(), name.clone())));
    let total = &expected["properties"]["total"];
    let total = total.as_str().map_or_else(|| total.as_f64(), |digits| digits.parse().ok());
    let found = fields.remove("total");
    assert_eq!(found.as_ref().map(number), total, "`total` is a number where there is one: {mapped}");
    let raw = fields.remove("raw").map(|raw| parse(raw.as_str().expect("`raw` is text")));
    if let Some(properties) = expected.get("properties") {
        assert_same(sdk, expected, properties, &raw.unwrap_or_default());
    }
    assert_eq!(fields, want);
}

fn check_whole(sdk: &Sdk, expected: &Value, sent: &Value, whole: &Value) {
    assert_no_write_key(whole);
    for key in ["type", "userId", "event", "name", "category", "groupId", "previousId"] {
        if let Some(value) = expected.get(key) {
            assert_eq!(&whole[key], value, "{key} of {sent}");
        }
    }
    for key in ["properties", "traits"] {
        if let Some(value) = expected.get(key) {
            assert_same(sdk, expected, value, &whole[key]);
        }
    }
    for key in ["context", "integrations"] {
        if let Some(value) = expected.get(key) {
            assert_subset(value, &whole[key], key);
        }
    }
    assert_eq!(whole["context"]["library"]["name"], sdk.library, "{sent}");
    assert_ne!(text_of(&whole["context"]["library"], "version"), "", "{sent}");
    for key in ["timestamp", "originalTimestamp", "receivedAt"] {
        instant(&text_of(whole, key));
    }
    if let Some(given) = expected["timestamp"].as_str() {
        assert_eq!(instant(&text_of(whole, "originalTimestamp")), instant(given), "{sent}");
    }
}

/// Equal; or, where the SDK adds what it knows of a page, at least all that was given.
fn assert_same(sdk: &Sdk, call: &Value, expected: &Value, found: &Value) {
    assert_subset(expected, found, &text_of(call, "id"));
    if !(sdk.enriches_pages && call["type"] == "page") {
        assert_subset(found, expected, &format!("{} the other way round", text_of(call, "id")));
    }
}

/// Objects may hold more than expected; everything else is equal, numbers by value (JavaScript writes 2.0 as 2).
fn assert_subset(expected: &Value, found: &Value, at: &str) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                let other = found.get(key).unwrap_or_else(|| panic!("{at}.{key} is missing"));
                assert_subset(value, other, &format!("{at}.{key}"));
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            assert_eq!(expected.len(), found.len(), "length of {at}");
            for (index, (value, other)) in expected.iter().zip(found).enumerate() {
                assert_subset(value, other, &format!("{at}[{index}]"));
            }
        }
        (Value::Number(a), Value::Number(b)) => assert!(is_same_number(a, b), "{at}: {a} became {b}"),
        _ => assert_eq!(expected, found, "{at}"),
    }
}

/// Whether two numbers are the same although one may be an integer and the other a float, which holds integers exactly
/// up to 2^53 only.
fn is_same_number(a: &Number, b: &Number) -> bool {
    let exact = |number: &Number| number.as_f64().filter(|number| number.abs() <= 9_007_199_254_740_992.0);
    a == b || (a.is_f64() != b.is_f64() && exact(a).is_some() && exact(a) == exact(b))
}

fn assert_no_write_key(item: &Value) {
    let text = item.to_string();
    assert!(!text.contains("writeKey") && !text.contains(WRITE_KEY), "a write key got out: {text}");
}

fn instant(text: &str) -> jiff::Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text:?} is no time: {error}"))
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

fn text_of(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no text {key} in {value}")).to_owned()
}

// === the tools ===

fn node_driver(file: &str) -> Option<Vec<String>> {
    has_node().then(|| vec!["node".to_owned(), sdks().join(file).display().to_string()])
}

fn python_driver() -> Option<Vec<String>> {
    Some(vec![python()?.display().to_string(), sdks().join("python.py").display().to_string()])
}

/// Built by `install.sh` beside the binary's own folder in `target/`.
fn rust_driver() -> Option<Vec<String>> {
    let target = Path::new(env!("CARGO_BIN_EXE_libroseg")).ancestors().nth(2).expect("binaries are in target/PROFILE/");
    let driver = target.join("sdks/debug/libroseg-sdk-driver");
    is_there("the segment crate's driver", driver.exists()).then(|| vec![driver.display().to_string()])
}
