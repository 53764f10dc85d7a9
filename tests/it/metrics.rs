//! What `/metrics` tells is what happened, exactly; the page about it tells of the same metrics.

#![allow(clippy::float_cmp, reason = "the numbers are whole, or exact in binary")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use libroseg::deliver::{Status, Tally};
use libroseg::ingest::Counts;
use libroseg::queue::{Books, Histogram, Offset, Report};
use libroseg::telemetry::metrics::{self, DestinationSnapshot, METRICS, Metric, Snapshot};
use serde_json::{Value, json};

use crate::support::app::HEAD_IN_MEMORY;
use crate::support::app::KEY;
use crate::support::{Answer, Binary, Fake, TestApp, client, eventually};

/// Metrics that tell of the machine and the moment.
const VOLATILE: [&str; 4] =
    ["process_cpu_seconds_total", "process_resident_memory_bytes", "libroseg_build_info", "libroseg_queue_size_bytes"];

// === reading the text, strictly ===

/// A scrape, taken apart.
#[derive(Debug, Default)]
struct Scraped {
    /// The type of each metric, by its name without endings.
    types: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Scraped {
    /// Reads `OpenMetrics` text: every sample follows the description of its metric, nothing comes twice or after `# EOF`.
    fn parse(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("it ends with EOF");
        let mut scraped = Self::default();
        let (mut helped, mut current) = (String::new(), (String::new(), String::new()));
        for line in body.split_terminator('\n') {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                rest.split_once(' ').unwrap().0.clone_into(&mut helped);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, helped, "described in two lines");
                current = (name.to_owned(), kind.to_owned());
                assert!(scraped.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes twice");
            } else {
                scraped.add(parse_sample(line), &current);
            }
        }
        scraped
    }

    fn add(&mut self, sample: Sample, (name, kind): &(String, String)) {
        let endings: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_sum", "_count", "_bucket"],
            _ => panic!("no such type: {kind}"),
        };
        let is_its = endings.iter().any(|ending| sample.name == format!("{name}{ending}"));
        assert!(is_its, "{} does not belong to the {kind} {name}", sample.name);
        let is_twice = self.samples.iter().any(|other| (&other.name, &other.labels) == (&sample.name, &sample.labels));
        assert!(!is_twice, "{sample:?} comes twice");
        assert!(kind == "gauge" || sample.value >= 0.0, "{sample:?}");
        self.samples.push(sample);
    }

    /// The one sample of this name that has all these labels.
    #[track_caller]
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &Sample, (key, value): &(&str, &str)| {
            sample.labels.iter().any(|(k, v)| (k.as_str(), v.as_str()) == (*key, *value))
        };
        let is_it = |sample: &&Sample| sample.name == name && labels.iter().all(|label| has(sample, label));
        let found: Vec<&Sample> = self.samples.iter().filter(is_it).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0].value
    }

    /// The sum over the samples of this name and destination.
    fn sum(&self, name: &str, destination: &str) -> f64 {
        let is_its = |sample: &&Sample| {
            sample.name == name && sample.labels.contains(&("destination".to_owned(), destination.to_owned()))
        };
        self.samples.iter().filter(is_its).map(|sample| sample.value).sum()
    }
}

fn parse_sample(line: &str) -> Sample {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = line.find(|c| !is_name(c)).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, rest) = line.split_at(end);
    assert!(name.starts_with(|c: char| c.is_ascii_alphabetic()), "no name: {line}");
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest),
        None => (Vec::new(), rest),
    };
    let value = value.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let is_number = value.chars().all(|c| c.is_ascii_digit() || ".e-".contains(c));
    assert!(is_number && !value.is_empty(), "no number: {line}");
    Sample { name: name.to_owned(), labels, value: value.parse().unwrap() }
}

/// Labels and what follows them. In a value only `\\`, `\"` and `\n` may be written with a backslash.
fn parse_labels(mut text: &str) -> (Vec<(String, String)>, &str) {
    let mut labels = Vec::new();
    loop {
        let (key, rest) = text.split_once("=\"").expect("a label");
        let (mut value, mut chars) = (String::new(), rest.chars());
        loop {
            match chars.next().expect("a quote that ends it") {
                '"' => break,
                '\\' => value.push(match chars.next().unwrap() {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("\\{c} means nothing"),
                }),
                c => value.push(c),
            }
        }
        labels.push((key.to_owned(), value));
        text = chars.as_str();
        match text.split_at(1) {
            (",", rest) => text = rest,
            ("}", rest) => return (labels, rest),
            _ => panic!("after a label: {text}"),
        }
    }
}

async fn get(url: &str) -> (u16, String) {
    let response = client().get(url).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn text(app: &TestApp) -> String {
    let (status, text) = get(&format!("http://{}/metrics", app.address)).await;
    assert_eq!(status, 200);
    text
}

async fn scrape(app: &TestApp) -> Scraped {
    Scraped::parse(&text(app).await)
}

// === what it tells ===

/// Destinations to which everything happens that can: `well` takes, `wrong` refuses, `picky` wants one event alone, `slow`
/// hangs, `down` fails, `shut` refuses our credentials, `forgets` has a rule that drops.
async fn busy() -> (TestApp, Fake, Fake) {
    let (well, slow) = (Fake::start(), Fake::start());
    let answering = |status| {
        let fake = Fake::start();
        fake.then_always(Answer::status(status));
        fake.url()
    };
    slow.then_always(Answer::hang());
    let lines = format!(
        "[sources.eager]\nwrite_keys = [\"eager_key\"]\nlimit = {{ per_second = 1 }}\n[destinations.well]\nurl = \"{}/secret-path\"\nauth = {{ bearer = \"secret-token\" }}\n\
         [destinations.wrong]\nurl = \"{}\"\n\
         [destinations.picky]\nurl = \"{}\"\non = \"track:Wanted\"\n\
         [destinations.slow]\nurl = \"{}\"\n\
         [destinations.down]\nurl = \"{}\"\nretry = {{ failures_max = 2 }}\n\
         [destinations.shut]\nurl = \"{}\"\n\
         [destinations.forgets]\nurl = \"{}\"\n[[destinations.forgets.response]]\nwhen = \"$[?@.status == 404]\"\nthen = \"drop\"\n",
        well.url(),
        answering(404),
        well.url(),
        slow.url(),
        answering(503),
        answering(401),
        answering(404),
    );
    let app = TestApp::start(&lines).await;
    for event in ["Wanted", "Other", "Other"] {
        app.track("secret-user", event).await;
    }
    let again = json!({ "userId": "u", "event": "Again", "messageId": "secret-id" });
    app.post("/v1/track", &again).await.accepted();
    app.post("/v1/track", &again).await.accepted();
    app.post("/v1/track", &json!({ "userId": "u" })).await.accepted();
    let eager = json!({ "writeKey": "eager_key", "batch": vec![json!({}); 3] });
    app.post_bare("/v1/batch", &eager).await.accepted();
    assert_eq!(app.post_bare("/v1/batch", &eager).await.status, 429);
    assert_eq!(
        client().post(format!("http://{}/v1/track", app.address)).body("{}").send().await.unwrap().status(),
        400
    );
    slow.has(4).await;
    eventually("everything else is over for now", || {
        app.app.fleet.statuses().iter().all(|(name, status)| {
            let (books, rests) = (app.books(name.as_str()), status.rest.is_some());
            let is_idle = status.requests_in_flight == 0 && books.in_hand == status.events_in_hand;
            name.as_str() == "slow" || (is_idle && (rests || books.waiting() == 0))
        })
    })
    .await;
    (app, well, slow)
}

#[tokio::test]
async fn every_number_is_what_happened() {
    let (app, _well, slow) = busy().await;
    let scraped = scrape(&app).await;

    assert_eq!(scraped.value("libroseg_accepted_events_total", &[]), 5.0);
    assert_eq!(scraped.value("libroseg_queue_duplicate_events_total", &[]), 1.0);
    assert_eq!(scraped.value("libroseg_discarded_messages_total", &[("code", "event_not_defined")]), 1.0);
    assert_eq!(scraped.value("libroseg_unknown_write_keys_total", &[]), 1.0);
    assert_eq!(scraped.value("libroseg_answers_total", &[("status", "2xx")]), 7.0);
    assert_eq!(scraped.value("libroseg_answers_total", &[("status", "4xx")]), 2.0);
    assert_eq!(scraped.value("libroseg_rate_limited_messages_total", &[("source", "eager")]), 3.0);

    // accepted, delivered, filtered, dropped, dead, waiting
    for (destination, expected) in [
        ("well", [4.0, 4.0, 0.0, 0.0, 0.0, 0.0]),
        ("wrong", [4.0, 0.0, 0.0, 0.0, 4.0, 0.0]),
        ("picky", [4.0, 1.0, 3.0, 0.0, 0.0, 0.0]),
        ("slow", [4.0, 0.0, 0.0, 0.0, 0.0, 4.0]),
        ("down", [4.0, 0.0, 0.0, 0.0, 0.0, 4.0]),
        ("shut", [4.0, 0.0, 0.0, 0.0, 0.0, 4.0]),
        ("forgets", [4.0, 0.0, 0.0, 4.0, 0.0, 0.0]),
    ] {
        let ended = ["accepted", "delivered", "filtered", "dropped", "dead"]
            .map(|what| scraped.sum(&format!("libroseg_destination_{what}_events_total"), destination));
        let waiting = scraped.sum("libroseg_destination_waiting_events", destination);
        assert_eq!([&ended[..], &[waiting]].concat(), expected, "{destination}");
    }
    let in_hand = [("destination", "slow"), ("state", "in_hand")];
    assert_eq!(scraped.value("libroseg_destination_waiting_events", &in_hand), 4.0);
    assert_eq!(scraped.value("libroseg_destination_dead_letters", &[("destination", "wrong")]), 4.0);
    assert!(scraped.value("libroseg_destination_dead_letters_bytes", &[("destination", "wrong")]) > 0.0);
    assert_eq!(scraped.value("libroseg_destination_requests_in_flight", &[("destination", "slow")]), 4.0);
    for (destination, failing, paused) in [("well", 0.0, 0.0), ("down", 1.0, 0.0), ("shut", 0.0, 1.0)] {
        let resting =
            |reason| scraped.value("libroseg_destination_resting", &[("destination", destination), ("reason", reason)]);
        assert_eq!((resting("failing"), resting("paused")), (failing, paused), "{destination}");
    }
    slow.let_go();
}

#[tokio::test]
async fn every_event_is_accounted_for_in_every_scrape() {
    let page = page();
    let (app, _well, slow) = busy().await;
    let names = names_in(promql(&page));
    let (accepted, parts) = names.split_first().unwrap();
    assert_eq!(parts.len(), 6);

    let sender = async {
        for _ in 0..5 {
            app.track_many(200).await;
        }
        slow.let_go();
        app.run_for(Duration::from_mins(2)).await;
    };
    let scraper = async {
        let mut moments = BTreeSet::new();
        for _ in 0..40 {
            let scraped = scrape(&app).await;
            for destination in ["well", "wrong", "picky", "slow", "down", "shut", "forgets"] {
                let whole = scraped.sum(accepted, destination);
                let sum: f64 = parts.iter().map(|part| scraped.sum(part, destination)).sum();
                assert_eq!(whole, sum, "{destination}: {:?}", scraped.samples);
                moments.insert(format!("{whole} {destination} {}", scraped.sum(&parts[0], destination)));
            }
        }
        assert!(moments.len() > 7, "nothing moved: {moments:?}");
    };
    tokio::join!(sender, scraper);
}

#[tokio::test]
async fn a_lagging_destination_is_told_by_how_much() {
    let slow = Fake::start();
    slow.then_always(Answer::status(401));
    let app = TestApp::start(&format!("[destinations.slow]\nurl = \"{}\"\n", slow.url())).await;
    app.track("u", "First").await;
    app.quiet().await;
    app.track("u", "Second").await;
    app.run_for(Duration::from_secs(30)).await;

    let scraped = scrape(&app).await;
    let label = [("destination", "slow")];
    assert_eq!(scraped.value("libroseg_destination_lag_events", &label), 1.0);
    assert_eq!(scraped.value("libroseg_destination_lag_seconds", &label), 30.0);
    assert_eq!(scraped.value("libroseg_queue_oldest_event_age_seconds", &[]), 30.0);
    assert_eq!(scraped.value("process_start_time_seconds", &[]), 1_767_323_045.0);
    let ready: Value = serde_json::from_str(&get(&format!("http://{}/ready", app.address)).await.1).unwrap();
    assert_eq!(ready["destinations"]["slow"]["lag_seconds"], 30);

    slow.then_always(Answer::status(200));
    app.run_for(Duration::from_mins(2)).await;
    let scraped = scrape(&app).await;
    assert_eq!(scraped.value("libroseg_destination_lag_events", &label), 0.0);
    assert_eq!(scraped.value("libroseg_destination_lag_seconds", &label), 0.0);
}

#[tokio::test]
async fn a_broken_file_and_a_removed_destination_are_told() {
    let app = TestApp::start("[destinations.a]\ntype = \"stdout\"\n").await;
    assert_eq!(scrape(&app).await.value("libroseg_config_broken", &[]), 0.0);
    assert!(!app.reload("[destinations.a]\ntyp = \"stdout\"\n").await);
    let scraped = scrape(&app).await;
    assert_eq!(scraped.value("libroseg_config_broken", &[]), 1.0);
    assert_eq!(scraped.value("libroseg_destination_detached", &[("destination", "a")]), 0.0);

    app.run_for(Duration::from_secs(5)).await;
    assert!(app.reload("[destinations.b]\ntype = \"stdout\"\n").await);
    let scraped = scrape(&app).await;
    assert_eq!(scraped.value("libroseg_config_broken", &[]), 0.0);
    assert_eq!(scraped.value("libroseg_config_loaded_timestamp_seconds", &[]), 1_767_323_050.0);
    assert_eq!(scraped.value("libroseg_destination_detached", &[("destination", "a")]), 1.0);
    assert_eq!(scraped.value("libroseg_destination_detached", &[("destination", "b")]), 0.0);
}

#[tokio::test]
async fn no_key_no_address_and_nothing_of_an_event_is_told() {
    let (app, well, slow) = busy().await;
    let text = text(&app).await;
    for secret in [KEY, "secret", "http", "127.0.0.1", &well.url(), "Wanted"] {
        assert!(!text.contains(secret), "{secret} is told:\n{text}");
    }
    slow.let_go();
}

#[tokio::test]
async fn a_name_with_quotes_and_newlines_stays_one_label() {
    let name = "a \"b\"\n\\c} 1";
    let app = TestApp::start("[destinations.\"a \\\"b\\\"\\n\\\\c} 1\"]\ntype = \"stdout\"\n").await;
    let scraped = scrape(&app).await;
    assert_eq!(scraped.value("libroseg_destination_detached", &[("destination", name)]), 0.0);
}

#[tokio::test]
async fn the_text_is_as_people_see_it() {
    let fake = Fake::start();
    let app = TestApp::with_text(&format!(
        "{HEAD_IN_MEMORY}max_size = \"5MB\"\n[destinations.crm]\nurl = \"{}\"\n",
        fake.url()
    ))
    .await;
    app.track("u", "Any").await;
    app.post("/v1/track", &json!({ "userId": "u" })).await.accepted();
    app.quiet().await;
    let masked: Vec<String> = text(&app).await.lines().map(masked).collect();
    insta::assert_snapshot!(masked.join("\n"));
}

fn masked(line: &str) -> String {
    let is_volatile = VOLATILE.iter().any(|name| line.starts_with(name)) || line.contains("request_seconds_total{");
    if !is_volatile {
        return line.to_owned();
    }
    let unversioned = line.replace(env!("CARGO_PKG_VERSION"), "…");
    format!("{} …", unversioned.rsplit_once(' ').unwrap().0)
}

/// What a house with a queue on disk may look like.
fn snapshot() -> Snapshot {
    let at: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let ago = |seconds| Some(at - SignedDuration::from_secs(seconds));
    let syncs = Histogram {
        buckets: vec![(Duration::from_millis(1), 5), (Duration::from_millis(10), 3)],
        count: 10,
        sum: Duration::from_millis(1500),
    };
    let queue = Report {
        kind: "disk",
        first: Offset(100),
        end: Offset(150),
        segments: 3,
        oldest_at: ago(90),
        damaged: 2,
        failing: Some("/secret/path: No space left on device".to_owned()),
        syncs,
        ..Report::default()
    };
    let tally = Tally {
        requests: 11,
        request_time: Duration::from_millis(2500),
        delivered: 1,
        dropped: 2,
        failed: 3,
        split: 4,
        unauthorized: 5,
        refused: 6,
    };
    let destination = DestinationSnapshot {
        name: "crm".into(),
        books: Books { behind: 7, unread_since: ago(60), ..Books::default() },
        status: Status { tally, ..Status::default() },
        is_detached: false,
    };
    Snapshot {
        at,
        started_at: at,
        usage: None,
        door: Counts::default(),
        queue,
        destinations: vec![destination],
        is_config_broken: false,
        config_loaded_at: at,
    }
}

#[test]
fn every_outcome_of_a_try_has_a_number_of_its_own() {
    let scraped = Scraped::parse(&metrics::text(snapshot()));
    let words = ["delivered", "dropped", "failed", "split", "unauthorized", "refused"];
    for (expected, outcome) in (1_u32..).zip(words) {
        let labels = [("destination", "crm"), ("outcome", outcome)];
        assert_eq!(scraped.value("libroseg_destination_attempts_total", &labels), f64::from(expected), "{outcome}");
    }
    assert_eq!(scraped.value("libroseg_destination_requests_total", &[]), 11.0);
    assert_eq!(scraped.value("libroseg_destination_request_seconds_total", &[]), 2.5);
}

#[test]
fn a_queue_on_disk_is_told_of_without_its_paths() {
    let text = metrics::text(snapshot());
    assert!(!text.contains("/secret"), "{text}");
    let scraped = Scraped::parse(&text);
    let le = |bound| scraped.value("libroseg_queue_sync_seconds_bucket", &[("le", bound)]);
    assert_eq!((le("0.001"), le("0.01"), le("+Inf")), (5.0, 8.0, 10.0), "they add up");
    assert_eq!(scraped.value("libroseg_queue_sync_seconds_sum", &[]), 1.5);
    assert_eq!(scraped.value("libroseg_queue_sync_seconds_count", &[]), 10.0);
    assert_eq!(scraped.value("libroseg_queue_info", &[("kind", "disk")]), 1.0);
    assert_eq!(scraped.value("libroseg_queue_events", &[]), 50.0);
    assert_eq!(scraped.value("libroseg_queue_segments", &[]), 3.0);
    assert_eq!(scraped.value("libroseg_queue_damaged_events_total", &[]), 2.0);
    assert_eq!(scraped.value("libroseg_queue_failing", &[]), 1.0);
    assert_eq!(scraped.value("libroseg_queue_oldest_event_age_seconds", &[]), 90.0);
    assert_eq!(scraped.value("libroseg_destination_lag_seconds", &[]), 60.0);
}

#[test]
fn what_the_system_does_not_tell_is_left_out() {
    let scraped = Scraped::parse(&metrics::text(snapshot()));
    assert!(scraped.types.contains_key("process_resident_memory_bytes"));
    assert!(!scraped.samples.iter().any(|sample| sample.name == "process_resident_memory_bytes"));
}

// === /ready ===

async fn ready(app: &TestApp) -> (u16, Value) {
    let (status, text) = get(&format!("http://{}/ready", app.address)).await;
    (status, serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn readiness_tells_of_the_queue_and_of_every_destination() {
    let (refusing, lines) = (Fake::start(), "max_size = \"5MB\"\n[destinations.crm]\n");
    refusing.then_always(Answer::status(404));
    let app = TestApp::with_text(&format!("{HEAD_IN_MEMORY}{lines}url = \"{}\"\n", refusing.url())).await;
    app.track("u", "Any").await;
    app.quiet().await;

    let (status, mut ready) = ready(&app).await;
    assert_eq!((status, &ready["ready"]), (200, &json!(true)));
    assert_eq!(ready["queue"].as_object_mut().unwrap().remove("size_bytes"), Some(json!(0)));
    assert_eq!(ready["queue"], json!({ "kind": "memory", "size_bytes_max": 5_000_000, "failing": false }));
    let fingerprint = format!("{:016x}", app.app.reload.current().plan.destinations[0].fingerprint);
    let expected = json!({
        "state": "ok", "rests_until": null, "fingerprint": fingerprint,
        "accepted": 1, "delivered": 0, "filtered": 0, "dropped": 0, "damaged": 0, "dead": 1, "waiting": 0,
        "letters": 1, "lag_seconds": 0,
    });
    assert_eq!(ready["destinations"]["crm"], expected);
}

#[tokio::test]
async fn a_full_queue_is_no_reason_to_send_nobody_here() {
    let hanging = Fake::start();
    hanging.then_always(Answer::hang());
    let app = TestApp::with_text(&format!(
        "{HEAD_IN_MEMORY}max_size = \"1MB\"\n[destinations.crm]\nurl = \"{}\"\n",
        hanging.url()
    ))
    .await;
    let event = json!({ "userId": "u", "event": "Any", "properties": { "text": "x".repeat(20_000) } });
    let mut status = 200;
    for _ in 0..100 {
        status = app.post("/v1/track", &event).await.status;
    }
    assert_eq!(status, 503);
    let (status, ready) = ready(&app).await;
    assert_eq!((status, &ready["ready"]), (200, &json!(true)));
    assert!(ready["queue"]["size_bytes"].as_u64().unwrap() > 900_000, "{ready}");
    hanging.let_go();
}

// === where it is served ===

#[tokio::test]
async fn a_collector_hears_the_type_of_the_text_and_nothing_old() {
    let app = TestApp::start("").await;
    let url = format!("http://{}/metrics", app.address);
    for request in [client().get(&url), client().head(&url)] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert_eq!(header("cache-control"), "no-store");
    }
    assert_eq!(client().post(&url).send().await.unwrap().status(), 405);
}

/// A binary whose `[server]` has these lines.
fn binary(server: &str) -> (tempfile::TempDir, Binary) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    let queue =
        "[queue]\ntype = \"memory\"\n[sources.a]\nwrite_keys = [\"key\"]\n[destinations.out]\ntype = \"stdout\"\n";
    fs::write(&path, format!("[server]\nlisten = \"127.0.0.1:0\"\n{server}\n{queue}")).unwrap();
    let binary = Binary::start(&path);
    (folder, binary)
}

#[tokio::test]
async fn metrics_have_a_listener_of_their_own_where_the_file_says_so() {
    let (_folder, binary) = binary("metrics = \"127.0.0.1:0\"");
    let log = binary.log();
    let (_, url) = log.split_once("metrics are at ").expect("the log tells where");
    let base = url.lines().next().unwrap().strip_suffix("/metrics").unwrap();

    Scraped::parse(&get(&format!("{base}/metrics")).await.1);
    for path in ["/health", "/ready"] {
        assert_eq!(get(&format!("{base}{path}")).await.0, 200, "{path}");
        assert_eq!(get(&format!("{}{path}", binary.url)).await.0, 200, "{path}");
    }
    assert_eq!(get(&format!("{}/metrics", binary.url)).await.0, 404);
    let track = client().post(format!("{base}/v1/track")).basic_auth("key", Some("")).body("{}");
    assert_eq!(track.send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn metrics_are_nowhere_where_the_file_says_off() {
    let (_folder, binary) = binary("metrics = false");
    assert_eq!(get(&format!("{}/metrics", binary.url)).await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_told_to_the_end_of_a_shutdown() {
    let hanging = Fake::start();
    hanging.then_always(Answer::hang());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n[queue]\ntype = \"memory\"\n\
         [sources.a]\nwrite_keys = [\"key\"]\n[destinations.crm]\nurl = \"{}\"\n",
        hanging.url()
    );
    fs::write(&path, text).unwrap();
    let mut binary = Binary::start(&path);
    let log = binary.log();
    let url = log.split_once("metrics are at ").unwrap().1.lines().next().unwrap().to_owned();
    let body = json!({ "userId": "u", "event": "Any" }).to_string();
    let track = client().post(format!("{}/v1/track", binary.url)).basic_auth("key", Some("")).body(body);
    assert_eq!(track.send().await.unwrap().status(), 200);
    hanging.has(1).await;

    binary.signal("TERM");
    eventually("the door is closed", || {
        std::net::TcpStream::connect(binary.url.trim_start_matches("http://")).is_err()
    })
    .await;
    let scraped = Scraped::parse(&get(&url).await.1);
    assert_eq!(scraped.value("libroseg_destination_requests_in_flight", &[("destination", "crm")]), 1.0);
    let ready: Value = serde_json::from_str(&get(&url.replace("/metrics", "/ready")).await.1).unwrap();
    assert_eq!((&ready["ready"], &ready["closing"]), (&json!(false), &json!(true)));

    hanging.let_go();
    assert_eq!(binary.wait().code(), Some(0));
}

// === docs/metrics.md ===

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap()
}

fn promql(page: &str) -> &str {
    page.split_once("```promql\n").unwrap().1.split("```").next().unwrap()
}

fn names_in(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("libroseg_") || word.starts_with("process_")).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_page_lists_every_metric_as_it_is_exposed() {
    let row = |metric: &Metric| {
        let labels: Vec<String> = metric.labels().iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
        format!("| `{}` | {} | {labels} | {} |", metric.name, metric.kind(), metric.help)
    };
    let expected: Vec<String> = METRICS.iter().map(row).collect();
    let page = page();
    let (_, rest) = page.split_once("<!-- metrics -->\n").unwrap();
    let shown: Vec<&str> = rest.lines().take_while(|line| line.starts_with('|')).skip(2).collect();
    assert!(shown == expected, "the table should be:\n{}", expected.join("\n"));

    let (app, _well, slow) = busy().await;
    let scraped = scrape(&app).await;
    let exposed = |name: &str| {
        let ending = ["_total", "_info", ""].into_iter().find(|ending| name.ends_with(ending)).unwrap();
        scraped.types.get(name.strip_suffix(ending).unwrap()).map(String::as_str)
    };
    for metric in METRICS {
        assert_eq!(exposed(metric.name), Some(metric.kind()), "{}", metric.name);
        let is_its = |sample: &&Sample| sample.name.starts_with(metric.name) && !sample.name.ends_with("_bucket");
        let sample = scraped.samples.iter().find(is_its).unwrap_or_else(|| panic!("{} has no sample", metric.name));
        let labels: Vec<&str> = sample.labels.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(labels, metric.labels(), "{}", metric.name);
    }
    assert_eq!(scraped.types.len(), METRICS.len());
    slow.let_go();
}

#[test]
fn the_page_speaks_of_no_other_metrics() {
    let page = page();
    for name in names_in(&page) {
        assert!(METRICS.iter().any(|metric| metric.name == name), "there is no metric {name}");
    }
}
