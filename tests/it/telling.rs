//! What a worker tells of itself, and what a dead letter tells of an event's end: everything but secrets.

use std::time::Duration;

use base64::Engine as _;
use libroseg::attempt::{DeadLetter, Reason, SentRequest, Trace};
use libroseg::deliver::Tally;
use serde_json::json;

use crate::support::{Answer, Fake, TestApp};

fn fingerprint(app: &TestApp) -> u64 {
    app.app.reload.current().plan.destination(&"crm".into()).unwrap().fingerprint
}

fn trace(letter: &DeadLetter) -> &Trace {
    letter.failure.trace.as_ref().unwrap()
}

fn sent(letter: &DeadLetter) -> &SentRequest {
    trace(letter).request.as_ref().unwrap()
}

async fn only_letter(app: &TestApp) -> DeadLetter {
    let mut letters = app.dead_letters("crm").await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    letters.remove(0)
}

#[tokio::test]
async fn a_refused_event_tells_its_rule_its_configuration_and_its_own_part_of_the_request() {
    let fake = Fake::replying([Answer::status(200).body(r#"{"errors":[{"at":1,"why":"bad"}]}"#)]);
    let lines = format!(
        r#"
[destinations.crm]
url = "{}"
batch = {{ max_events = 3, max_age = "1s" }}
[[destinations.crm.response]]
each = "$.body.errors[*]"
index = "{{{{ item.at }}}}"
then = "dead"
[[destinations.crm.rules]]
on = "identify"
[[destinations.crm.rules]]
path = "/rows/{{{{ event }}}}"
headers = {{ x-kind = "{{{{ type }}}}" }}
body = {{ id = "{{{{ userId }}}}" }}
"#,
        fake.url()
    );
    let app = TestApp::start(&lines).await;
    app.track_many(3).await;
    app.quiet().await;

    let letter = only_letter(&app).await;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = Trace {
        rule: Some("rules[1]".to_owned()),
        config: fingerprint(&app),
        request: Some(SentRequest {
            method: "POST".to_owned(),
            url: format!("{}/rows/Many", fake.url()),
            headers: vec![pair("x-kind", "track"), pair("content-type", "application/json")],
            body: Some(r#"{"id":"1"}"#.to_owned()),
            items: 3,
        }),
    };
    assert_eq!(*trace(&letter), expected);
    assert!(letter.failure.detail.contains("bad"));
}

#[tokio::test]
async fn an_event_given_up_on_tells_of_its_last_request_under_the_rules_of_then() {
    let fake = Fake::start();
    fake.then_always(Answer::status(503));
    let lines = |version: u8| {
        let url = fake.url();
        format!(
            "[destinations.crm]\nurl = \"{url}/v{version}\"\nmethod = \"PUT\"\nretry = {{ attempts_max = 3, first = \"1h\", delay_max = \"1h\" }}\n"
        )
    };
    let app = TestApp::start(&lines(1)).await;
    app.track("u1", "Any").await;
    app.quiet().await;
    app.reload(&lines(2)).await;
    app.run_for(Duration::from_hours(3)).await;

    let letter = only_letter(&app).await;
    assert_eq!((trace(&letter).rule.as_ref(), trace(&letter).config), (None, fingerprint(&app)));
    let request = sent(&letter);
    assert_eq!((request.method.as_str(), &request.url, request.items), ("PUT", &format!("{}/v2", fake.url()), 1));
}

#[tokio::test]
async fn an_event_on_which_a_rule_fails_tells_which_and_that_nothing_was_sent() {
    let fake = Fake::start();
    let lines = format!(
        "[destinations.crm]\nurl = \"{}\"\n[[destinations.crm.rules]]\nbody = {{ id = \"{{{{ groupId or fail('no id') }}}}\" }}\n",
        fake.url()
    );
    let app = TestApp::start(&lines).await;
    app.track("u1", "Any").await;
    app.quiet().await;

    let letter = only_letter(&app).await;
    assert_eq!(letter.failure.reason, Reason::Mapping);
    assert_eq!(*trace(&letter), Trace { rule: Some("rules[0]".to_owned()), config: fingerprint(&app), request: None });
}

#[tokio::test]
async fn an_event_on_which_order_by_fails_is_a_dead_letter_that_names_it() {
    let fake = Fake::start();
    let lines =
        format!("[destinations.crm]\nurl = \"{}\"\norder_by = \"{{{{ groupId or fail('no key') }}}}\"\n", fake.url());
    let app = TestApp::start(&lines).await;
    app.track("u1", "Any").await;
    app.quiet().await;
    let letter = only_letter(&app).await;
    assert!(letter.failure.detail.starts_with("destinations.crm.order_by: "), "{:?}", letter.failure);
}

#[tokio::test]
async fn a_long_body_is_told_up_to_4_kib_and_cut_between_characters() {
    let fake = Fake::replying([Answer::status(400).body(&"é".repeat(4000))]);
    let lines =
        format!("[destinations.crm]\nurl = \"{}\"\nbody = {{ b = \"{{{{ properties.text }}}}\" }}\n", fake.url());
    let app = TestApp::start(&lines).await;
    app.track_with("u1", "Any", json!({ "text": "ü".repeat(4000) })).await;
    app.quiet().await;

    let letter = only_letter(&app).await;
    let body = sent(&letter).body.as_ref().unwrap();
    assert!((4095..=4096).contains(&body.len()) && body.ends_with('ü'), "{}", body.len());
    assert!((4095..=4096).contains(&letter.failure.detail.len()) && letter.failure.detail.ends_with('é'));
}

/// Secrets with everything in them that somebody encodes.
const SECRETS: [(&str, &str); 4] = [
    ("PATH_KEY", "päth/k&y \"1\""),
    ("BODY_KEY", "böd\"y\\k&y/1"),
    ("HEADER_KEY", "header-key-1?"),
    ("LONG_KEY", "header-key-1?-and-more"),
];

const PASSWORD: &str = "pass:w\"rd/&+1";

/// A secret as it is, in a URL and in JSON.
fn forms(secret: &str) -> Vec<String> {
    let json = json!(secret).to_string();
    let url = percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string();
    // Unreserved characters are not encoded by us.
    let ours = url.replace("%2D", "-").replace("%2E", ".").replace("%5F", "_").replace("%7E", "~");
    vec![secret.to_owned(), json[1..json.len() - 1].to_owned(), ours]
}

/// Everything a dead letter tells of a failure.
fn texts(letter: &DeadLetter) -> Vec<String> {
    let request = sent(letter);
    let headers = request.headers.iter().map(|(_, value)| value.clone());
    let all = [letter.failure.detail.clone(), request.url.clone(), request.body.clone().unwrap_or_default()];
    all.into_iter().chain(headers).collect()
}

#[tokio::test]
async fn no_dead_letter_holds_a_secret() {
    let auths = [
        r#"basic = ["somebody", "{{ env.PASSWORD }}"]"#,
        r#"basic = ["somebody", "pass:w\"rd/&+1"]"#,
        r#"bearer = "{{ file('SECRET_FILE') }}""#,
        r#"header = { x-key = "{{ env.PASSWORD }}", x-short = "short" }"#,
        r#"query = { "api key" = "{{ env.PASSWORD }}", other = "short" }"#,
        r#"query = { key = "pass:w\"rd/&+1" }"#,
    ];
    let secrets: Vec<&str> = SECRETS.iter().map(|(_, secret)| *secret).chain([PASSWORD]).collect();
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("somebody:{PASSWORD}"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    for auth in auths {
        let in_basic = auth.starts_with("basic").then(|| basic.clone());
        let forms: Vec<String> = secrets.iter().flat_map(|secret| forms(secret)).chain(in_basic).collect();
        let fake = Fake::replying([Answer::status(400).body(&forms.join(" "))]);
        let lines = format!(
            r#"
[destinations.crm]
url = "{}/{{{{ env.PATH_KEY }}}}"
path = "/{{{{ event }}}}"
query = {{ q = "{{{{ env.PATH_KEY }}}}" }}
headers = {{ x-own = "k={{{{ env.HEADER_KEY }}}}", x-long = "{{{{ env.LONG_KEY }}}}", cookie = "c=1" }}
body = {{ key = "{{{{ env.BODY_KEY }}}}", text = "{{{{ properties.text }}}}{{{{ env.BODY_KEY }}}}" }}
auth = {{ {auth} }}
"#,
            fake.url()
        );
        let lines = lines.replace("SECRET_FILE", file.to_str().unwrap());
        let variables: Vec<_> = SECRETS.into_iter().chain([("PASSWORD", PASSWORD)]).collect();
        let app = TestApp::with_variables(&lines, &variables).await;
        // The second secret begins within the excerpt and ends beyond it.
        app.track_with("u1", "Any", json!({ "text": "x".repeat(4050) })).await;
        app.quiet().await;

        let wire = &fake.requests()[0];
        assert!(forms.iter().any(|form| wire.wire.contains(form)), "the service does get them: {}", wire.wire);
        let letter = only_letter(&app).await;
        for text in texts(&letter) {
            for form in &forms {
                // Long enough that no word is taken for the beginning of a secret.
                let beginning = &form[..form.floor_char_boundary(7)];
                assert!(!text.contains(beginning), "{auth}: {form} in {text}");
            }
            assert!(!text.contains("-and-more") && !text.contains("short"), "{auth}: {text}");
        }
        let request = sent(&letter);
        assert!(request.url.contains("[secret]") && request.url.contains("/Any?q=[secret]"), "{}", request.url);
        assert_eq!(request.url.contains("=***"), auth.starts_with("query"), "{}", request.url);
        assert!(request.headers.contains(&("x-own".to_owned(), "k=[secret]".to_owned())), "{:?}", request.headers);
        let is_masked = |name: &str| request.headers.contains(&(name.to_owned(), "***".to_owned()));
        assert!(is_masked("cookie"));
        assert_eq!(is_masked("authorization"), auth.starts_with("ba") || auth.starts_with("be"));
        assert_eq!(is_masked("x-key") && is_masked("x-short"), auth.starts_with("header"));
    }
}

#[tokio::test]
async fn a_user_and_password_before_a_host_are_masked() {
    let fake = Fake::replying([Answer::status(400)]);
    let url = fake.url().replace("http://", "http://me:pasted@");
    let app = TestApp::start(&format!("[destinations.crm]\nurl = \"{url}/a\"\n")).await;
    app.track("u1", "Any").await;
    app.quiet().await;
    let letter = only_letter(&app).await;
    assert_eq!(sent(&letter).url, fake.url().replace("http://", "http://***@") + "/a");
}

#[tokio::test]
async fn a_worker_counts_its_requests_and_what_became_of_their_items() {
    let answers = [413, 200, 200, 503, 401].map(Answer::status);
    let fake =
        Fake::replying(answers.into_iter().chain([Answer::status(409), Answer::status(404), Answer::status(413)]));
    let lines = format!(
        "[destinations.crm]\nurl = \"{}\"\nbatch = {{ max_events = 2, max_age = \"1s\" }}\nlimit = {{ concurrency = 1 }}\n\
         [[destinations.crm.response]]\nwhen = \"$.status == 409\"\nthen = \"drop\"\n",
        fake.url()
    );
    let app = TestApp::start(&lines).await;
    let tally = || app.app.fleet.statuses()[&"crm".into()].tally;
    assert_eq!(tally(), Tally::default());

    app.track_many(2).await;
    app.run_for(Duration::from_secs(2)).await;
    let first = tally();
    assert_eq!((first.requests, first.split, first.delivered), (3, 2, 2));
    assert!(first.request_time > Duration::ZERO);

    for _ in 0..3 {
        app.track("u1", "Any").await;
        app.run_for(Duration::from_hours(1)).await;
    }
    let last = tally();
    assert_eq!((last.requests, last.failed, last.unauthorized), (8, 1, 1));
    assert_eq!((last.dropped, last.refused, last.delivered, last.split), (1, 2, 2, 2));
}
