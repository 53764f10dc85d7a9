//! Events go in at the door and come out at a destination in the shape that the file gives them.

use serde_json::json;

use crate::support::{Answer, Fake, TestApp};

#[tokio::test]
async fn a_destination_without_rules_is_sent_every_event_whole() {
    let hook = Fake::start();
    let app = TestApp::start(&format!("[destinations.hook]\nurl = \"{}/in\"\n", hook.url())).await;

    app.track_with("u1", "Signed Up", json!({ "plan": "pro" })).await;
    app.quiet().await;

    let requests = hook.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("POST", "/in"));
    assert_eq!(requests[0].headers["content-type"], "application/json");
    let body = &requests[0].body;
    assert_eq!((&body["event"], &body["userId"]), (&json!("Signed Up"), &json!("u1")));
    assert_eq!((&body["properties"], &body["type"]), (&json!({ "plan": "pro" }), &json!("track")));
    assert!(body.get("writeKey").is_none());
}

#[tokio::test]
async fn values_keep_their_type_and_missing_ones_are_absent() {
    let crm = Fake::start();
    let app = TestApp::start(&format!(
        r#"
[destinations.crm]
url = "{}"
[destinations.crm.body]
id = "{{{{ userId }}}}"
total = "{{{{ properties.total }}}}"
tags = "{{{{ properties.tags }}}}"
nested = {{ email = "{{{{ traits.email }}}}", fixed = 1, ok = true }}
text = "{{{{ event }}}} by {{{{ userId }}}}"
json = "{{{{ properties | json }}}}"
"#,
        crm.url()
    ))
    .await;

    app.track_with("u1", "Paid", json!({ "total": 9.5, "tags": ["<a>", 2, null] })).await;
    app.quiet().await;

    let expected = json!({
        "id": "u1", "total": 9.5, "tags": ["<a>", 2, null], "nested": { "fixed": 1, "ok": true },
        "text": "Paid by u1", "json": "{\"total\":9.5,\"tags\":[\"<a>\",2,null]}",
    });
    assert_eq!(crm.bodies(), [expected]);
}

#[tokio::test]
async fn rules_choose_by_type_name_filter_and_expression_and_final_ends_the_search() {
    let crm = Fake::start();
    let app = TestApp::start(&format!(
        r#"
[destinations.crm]
url = "{}"
[[destinations.crm.rules]]
on = "track:Order *"
when = "$.properties.total >= 100"
path = "/big"
final = true
[[destinations.crm.rules]]
on = "track:Order *"
path = "/order"
[[destinations.crm.rules]]
on = ["identify", "group"]
path = "/who"
[[destinations.crm.rules]]
when = "{{{{ properties.vip and userId }}}}"
path = "/vip"
"#,
        crm.url()
    ))
    .await;

    app.track_with("u1", "Order Completed", json!({ "total": 250, "vip": true })).await;
    app.quiet().await;
    app.track_with("u1", "Order Completed", json!({ "total": 25, "vip": true })).await;
    app.quiet().await;
    app.post("/v1/identify", &json!({ "userId": "u1", "traits": {} })).await.accepted();
    app.track_with("u1", "Viewed", json!({})).await;
    app.quiet().await;

    let paths: Vec<String> = crm.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/big", "/order", "/vip", "/who"]);
    assert_eq!((app.books("crm").delivered, app.books("crm").filtered), (3, 1));
}

#[tokio::test]
async fn the_requests_of_one_event_are_made_in_the_order_of_the_rules() {
    let crm = Fake::replying([Answer::hang()]);
    let app = TestApp::start(&format!(
        r#"
[destinations.crm]
url = "{}"
[[destinations.crm.rules]]
method = "PUT"
path = "/device"
[[destinations.crm.rules]]
path = "/event"
"#,
        crm.url()
    ))
    .await;

    app.track("u1", "Opened").await;
    crm.has(1).await;
    assert_eq!(crm.requests().len(), 1, "the second request waits for the first");
    crm.let_go();
    app.quiet().await;

    let made: Vec<(String, String)> = crm.requests().into_iter().map(|r| (r.method, r.path)).collect();
    assert_eq!(made, [("PUT".into(), "/device".into()), ("POST".into(), "/event".into())]);
}

#[tokio::test]
async fn nothing_in_an_event_can_choose_where_it_goes() {
    let crm = Fake::start();
    let app = TestApp::start(&format!(
        r#"
[destinations.crm]
url = "{}/v1"
path = "/people/{{{{ userId }}}}"
query = {{ name = "{{{{ properties.name }}}}" }}
headers = {{ X-Name = "{{{{ properties.name }}}}" }}
"#,
        crm.url()
    ))
    .await;

    app.track_with("a/../b?c#d@evil.example", "Moved", json!({ "name": "x&y=1 é" })).await;
    app.quiet().await;
    app.track_with("..", "Moved", json!({ "name": "climber" })).await;
    app.track_with("u2", "Moved", json!({ "name": "split\r\nX-Evil: 1" })).await;
    app.quiet().await;

    let paths: Vec<String> = crm.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/v1/people/a%2F..%2Fb%3Fc%23d%40evil.example?name=x%26y%3D1%20%C3%A9"]);
    let reasons: Vec<String> = app.dead_letters("crm").await.iter().map(|letter| letter.failure.to_string()).collect();
    insta::assert_debug_snapshot!(reasons);
}

#[tokio::test]
async fn each_makes_one_request_per_element_and_lists_are_mapped_in_place() {
    let crm = Fake::start();
    let app = TestApp::start(&format!(
        r#"
[destinations.crm]
url = "{}"
[[destinations.crm.rules]]
each = "$.properties.products[*]"
body = {{ sku = "{{{{ item.sku }}}}", at = "{{{{ index }}}}", who = "{{{{ userId }}}}" }}
[[destinations.crm.rules]]
[destinations.crm.rules.body]
"..." = "{{{{ properties | omit('products') }}}}"
coupon = "{{{{ properties.coupon | upper }}}}"
items = {{ each = "$.properties.products[*]", item = {{ id = "{{{{ item.sku }}}}", n = "{{{{ item.n | default(1) }}}}" }} }}
"#,
        crm.url()
    ))
    .await;

    let properties = json!({ "coupon": "x", "total": 1, "products": [{ "sku": "a", "n": 2 }, { "sku": "b" }] });
    app.track_with("u1", "Ordered", properties).await;
    app.quiet().await;

    assert_eq!(
        crm.bodies(),
        [
            json!({ "sku": "a", "at": 0, "who": "u1" }),
            json!({ "sku": "b", "at": 1, "who": "u1" }),
            json!({ "total": 1, "coupon": "X", "items": [{ "id": "a", "n": 2 }, { "id": "b", "n": 1 }] }),
        ]
    );
}

#[tokio::test]
async fn every_kind_of_credential_arrives_where_it_belongs() {
    let crm = Fake::start();
    let destination =
        |name: &str, auth: &str| format!("[destinations.{name}]\nurl = \"{}/{name}\"\nauth = {auth}\n", crm.url());
    let lines = [
        destination("basic", r#"{ basic = ["user", "pass"] }"#),
        destination("bearer", r#"{ bearer = "token" }"#),
        destination("header", r#"{ header = { X-Api-Key = "key" } }"#),
        destination("query", r#"{ query = { api_key = "k&y" } }"#),
    ];
    let app = TestApp::start(&lines.concat()).await;

    app.track("u1", "Any").await;
    app.quiet().await;

    let requests = crm.requests();
    let of = |name: &str| requests.iter().find(|request| request.path.starts_with(&format!("/{name}"))).unwrap();
    assert_eq!(of("basic").headers["authorization"], "Basic dXNlcjpwYXNz");
    assert_eq!(of("bearer").headers["authorization"], "Bearer token");
    assert_eq!(of("header").headers["x-api-key"], "key");
    assert_eq!(of("query").path, "/query?api_key=k%26y");
}

#[tokio::test]
async fn encodings_shape_the_bytes() {
    let crm = Fake::start();
    let app = TestApp::start(&format!(
        r#"
[destinations.lines]
url = "{url}/lines"
encoding = "ndjson"
body = [{{ create = {{ _id = "{{{{ messageId }}}}" }} }}, {{ e = "{{{{ event }}}}" }}]
[destinations.form]
url = "{url}/form"
encoding = "form"
body = {{ who = "{{{{ userId }}}}", tag = ["a b", "c&d"], none = "{{{{ traits.x }}}}" }}
[destinations.text]
url = "{url}/text"
encoding = "text"
body = "{{{{ event }}}} by {{{{ userId }}}}"
"#,
        url = crm.url()
    ))
    .await;

    let body = json!({ "userId": "u1", "event": "Any", "messageId": "m1" });
    app.post("/v1/track", &body).await.accepted();
    app.quiet().await;

    let requests = crm.requests();
    let of = |path: &str| {
        let request = requests.iter().find(|request| request.path == path).unwrap();
        (request.headers["content-type"].to_str().unwrap().to_owned(), request.wire.clone())
    };
    let lines = "{\"create\":{\"_id\":\"m1\"}}\n{\"e\":\"Any\"}\n";
    assert_eq!(of("/lines"), ("application/x-ndjson".into(), lines.into()));
    assert_eq!(of("/form"), ("application/x-www-form-urlencoded".into(), "who=u1&tag=a%20b&tag=c%26d".into()));
    assert_eq!(of("/text"), ("text/plain; charset=utf-8".into(), "Any by u1".into()));
}

#[tokio::test]
async fn an_event_that_a_mapping_cannot_take_is_a_dead_letter_with_its_place_in_the_file() {
    let crm = Fake::start();
    let app = TestApp::start(&format!(
        r#"
[destinations.crm]
url = "{}"
[destinations.crm.body.person]
email = "{{{{ traits.email | required }}}}"
"#,
        crm.url()
    ))
    .await;

    app.post("/v1/identify", &json!({ "userId": "u1", "traits": { "email": "a@b.c" } })).await.accepted();
    app.post("/v1/identify", &json!({ "userId": "u2", "traits": {} })).await.accepted();
    app.quiet().await;

    assert_eq!(crm.bodies(), [json!({ "person": { "email": "a@b.c" } })]);
    let letters = app.dead_letters("crm").await;
    assert_eq!(letters.len(), 1);
    let text = letters[0].failure.to_string();
    assert!(text.starts_with("mapping: destinations.crm.body.person.email: "), "{text}");
}

#[tokio::test]
async fn an_event_goes_only_where_its_integrations_object_lets_it() {
    let crm = Fake::start();
    let url = crm.url();
    let lines = format!(
        "[destinations.crm]\nurl = \"{url}/crm\"\n[destinations.ads]\nurl = \"{url}/ads\"\nintegration = [\"Ads Co\", \"Ads\"]\n"
    );
    let app = TestApp::start(&lines).await;

    for integrations in
        [json!({ "All": false, "CRM": true }), json!({ "ads co": false }), json!({ "Segment.io": true })]
    {
        let body = json!({ "userId": "u1", "event": "Any", "integrations": integrations });
        app.post("/v1/track", &body).await.accepted();
        app.quiet().await;
    }

    let paths: Vec<String> = crm.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths.iter().filter(|path| *path == "/crm").count(), 3);
    assert_eq!(paths.iter().filter(|path| *path == "/ads").count(), 1);
    assert_eq!(app.books("ads").filtered, 2);
}

#[tokio::test]
async fn a_destination_without_integration_takes_no_notice_of_that_object() {
    let lake = Fake::start();
    let lines = format!("[destinations.lake]\nurl = \"{}\"\nintegration = false\nconsent = \"Storage\"\n", lake.url());
    let app = TestApp::start(&lines).await;

    for (name, more) in [
        ("All", json!({ "integrations": { "All": false } })),
        ("Own", json!({ "integrations": { "lake": false } })),
        ("Bundled", json!({ "_metadata": { "bundled": ["lake"] } })),
        ("Denied", json!({ "context": { "consent": { "categoryPreferences": { "Storage": false } } } })),
    ] {
        let mut body = json!({ "userId": "u1", "event": name });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        app.post("/v1/track", &body).await.accepted();
        app.quiet().await;
    }

    let events: Vec<_> = lake.requests().into_iter().map(|request| request.body["event"].clone()).collect();
    assert_eq!(events, ["All", "Own", "Bundled"]);
}

#[tokio::test]
async fn a_file_destination_holds_one_line_an_event() {
    let folder = tempfile::tempdir().unwrap();
    let lines =
        format!("[destinations.lake]\ntype = \"file\"\npath = \"{}/%Y/%m/events.ndjson\"\n", folder.path().display());
    let app = TestApp::start(&lines).await;

    app.track("u1", "One").await;
    app.track("u2", "Two\nlines").await;
    app.run_for(std::time::Duration::from_secs(5)).await;

    let text = std::fs::read_to_string(folder.path().join("2026/01/events.ndjson")).unwrap();
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2);
    assert_eq!(events[1]["event"], "Two\nlines");
    assert!(text.ends_with('\n'));
}

#[tokio::test]
async fn a_file_that_would_outgrow_its_size_is_numbered_and_compressed_files_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let lines = format!(
        "[destinations.small]\ntype = \"file\"\npath = \"{path}/small.ndjson\"\nrotate = \"1KB\"\nbatch = {{ max_events = 1 }}\n\
         [destinations.packed]\ntype = \"file\"\npath = \"{path}/packed.ndjson.gz\"\ncompression = \"gzip\"\n\
         [destinations.zstd]\ntype = \"file\"\npath = \"{path}/packed.ndjson.zst\"\ncompression = \"zstd\"\n"
    );
    let app = TestApp::start(&lines).await;

    for n in 0..9 {
        app.track("u1", &format!("Event {n}")).await;
        app.run_for(std::time::Duration::from_secs(5)).await;
    }

    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let all = [read("small.ndjson.1"), read("small.ndjson.2")].concat() + &read("small.ndjson");
    assert_eq!(all.lines().count(), 9, "{all}");
    let packed = std::fs::File::open(folder.path().join("packed.ndjson.gz")).unwrap();
    let text = std::io::read_to_string(flate2::read::MultiGzDecoder::new(packed)).unwrap();
    assert_eq!(text.lines().count(), 9);
    let frames = std::fs::File::open(folder.path().join("packed.ndjson.zst")).unwrap();
    let unpacked = String::from_utf8(zstd::decode_all(frames).unwrap()).unwrap();
    assert_eq!(unpacked, text);
}

#[tokio::test]
async fn a_failure_never_tells_a_secret() {
    let fake = Fake::replying([Answer::status(400).body("no such key: sesame-open-1")]);
    let lines = format!(
        r#"
[destinations.crm]
url = "{}"
[[destinations.crm.rules]]
on = "track:Echo"
auth = {{ bearer = "{{{{ env.TOKEN }}}}" }}
[[destinations.crm.rules]]
on = "track:Number"
body = {{ n = "{{{{ (properties.n or env.TOKEN) | number }}}}" }}
"#,
        fake.url()
    )
    .replace("auth = { bearer", "headers = { authorization");
    let app = TestApp::with_variables(&lines, &[("TOKEN", "sesame-open-1")]).await;

    app.track("u1", "Echo").await;
    app.track("u1", "Number").await;
    app.quiet().await;

    let told: Vec<String> = app.dead_letters("crm").await.iter().map(|letter| letter.failure.to_string()).collect();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|text| text.contains("[secret]") && !text.contains("sesame")), "{told:?}");
}
