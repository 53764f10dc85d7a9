//! Requests prove who we are, and nobody else gets to see how.

use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use flate2::read::GzDecoder;
use hmac::{Hmac, KeyInit as _, Mac as _};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::app::{HEAD, KEY};
use crate::support::fake::Recorded;
use crate::support::{Answer, Binary, Fake, TestApp, eventually};

/// A destination `crm` at the fake's, with these lines of its own.
fn crm(fake: &Fake, lines: &str) -> String {
    format!("[destinations.crm]\nurl = \"{}/in?x=1\"\nbody = {{ id = \"{{{{ userId }}}}\" }}\n{lines}\n", fake.url())
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

// --- signatures

const STANDARD_WEBHOOKS: &str = r#"
[destinations.crm.auth.hmac]
key = "{{ env.SECRET }}"
key_encoding = "base64"
encoding = "base64"
header = "Webhook-Signature"
prefix = "v1,"
message = "{{ id }}.{{ timestamp }}.{{ body }}"
headers = { Webhook-Id = "{{ id }}", Webhook-Timestamp = "{{ timestamp }}" }
"#;

const SECRET: (&str, &str) = ("SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");

#[tokio::test]
async fn a_receiver_can_verify_every_try_by_its_own_time() {
    let fake = Fake::replying([Answer::status(503).header("retry-after", "5")]);
    let app = TestApp::with_variables(&crm(&fake, STANDARD_WEBHOOKS), &[SECRET]).await;

    app.track("u1", "Signed Up").await;
    app.run_for(Duration::from_mins(1)).await;

    let requests = fake.requests();
    assert_eq!(requests.len(), 2);
    let key = BASE64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    for request in &requests {
        let header = |name: &str| request.headers[name].to_str().unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), request.wire).as_bytes());
        let signature = BASE64.encode(mac.finalize().into_bytes());
        assert_eq!(header("webhook-signature"), format!("v1,{signature}"));
    }
    let header = |name: &str| [&requests[0].headers[name], &requests[1].headers[name]];
    let [first, second] = header("webhook-id");
    assert_eq!(first, second, "the same request");
    let [first, second] = header("webhook-timestamp");
    assert_ne!(first, second, "another time");
}

#[tokio::test]
async fn requests_of_one_event_have_names_of_their_own() {
    let fake = Fake::start();
    let rules = "[[destinations.crm.rules]]\n[[destinations.crm.rules]]\n\
                 [[destinations.crm.rules]]\neach = \"{{ [1, 2] }}\"\n";
    let app = TestApp::with_variables(&crm(&fake, &format!("{STANDARD_WEBHOOKS}{rules}")), &[SECRET]).await;

    app.track("u1", "Signed Up").await;
    app.quiet().await;

    let mut ids: Vec<_> = fake.requests().into_iter().map(|request| request.headers["webhook-id"].clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

// --- what is told

#[tokio::test]
async fn a_dead_letter_shows_which_credentials_there_were_and_none_of_them() {
    let kinds = [
        (r#"auth = { basic = ["user", "{{ env.SECRET }}"] }"#, "authorization"),
        (r#"auth = { bearer = "{{ env.SECRET }}" }"#, "authorization"),
        (r#"auth = { header = { X-Key = "{{ env.SECRET }}" } }"#, "x-key"),
        (STANDARD_WEBHOOKS, "webhook-signature"),
    ];
    for (auth, header) in kinds {
        let fake = Fake::start();
        fake.then_always(Answer::status(400).body(SECRET.1));
        let app = TestApp::with_variables(&crm(&fake, auth), &[SECRET]).await;
        app.track("u1", "Refused").await;
        app.quiet().await;

        assert!(fake.requests()[0].headers.contains_key(header));
        let letter = &app.dead_letters("crm").await[0];
        let trace = letter.failure.trace.as_ref().unwrap();
        let sent = trace.request.as_ref().unwrap();
        assert!(sent.headers.contains(&(header.to_owned(), "***".to_owned())), "{sent:?}");
        assert_eq!(sent.body.as_deref(), Some(json!({ "id": "u1" }).to_string().as_str()));
        assert!(!format!("{letter:?}").contains(SECRET.1), "{letter:?}");
    }
    let fake = Fake::start();
    fake.then_always(Answer::status(400));
    let app =
        TestApp::with_variables(&crm(&fake, r#"auth = { query = { "the key" = "{{ env.SECRET }}" } }"#), &[SECRET])
            .await;
    app.track("u1", "Refused").await;
    app.quiet().await;
    assert_eq!(fake.requests()[0].path, format!("/in?x=1&the%20key={}", SECRET.1));
    let letter = &app.dead_letters("crm").await[0];
    let sent = letter.failure.trace.as_ref().unwrap().request.as_ref().unwrap();
    assert_eq!(sent.url, format!("{}/in?x=1&the%20key=***", fake.url()));
}

// --- tokens

/// An API that wants a token, and who gives them out.
struct Guarded {
    api: Fake,
    endpoint: Fake,
    app: TestApp,
}

fn token(value: &str, seconds: i64) -> Answer {
    let body = json!({ "access_token": value, "token_type": "Bearer", "expires_in": seconds });
    Answer::status(200).body(&body.to_string())
}

impl Guarded {
    async fn start(tokens: impl IntoIterator<Item = Answer>, answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::with(tokens, answers, "grant = \"client_credentials\"").await
    }

    async fn with(
        tokens: impl IntoIterator<Item = Answer>,
        answers: impl IntoIterator<Item = Answer>,
        lines: &str,
    ) -> Self {
        let (api, endpoint) = (Fake::replying(answers), Fake::replying(tokens));
        let text = format!(
            "[destinations.crm.auth.oauth2]\ntoken_url = \"{}/token\"\nclient_id = \"the-client\"\n\
             client_secret = \"{{{{ env.SECRET }}}}\"\n{lines}\n",
            endpoint.url()
        );
        let app = TestApp::with_variables(&crm(&api, &text), &[("SECRET", "the/secret of the client")]).await;
        Self { api, endpoint, app }
    }

    /// The tokens that the API saw, in order.
    fn seen(&self) -> Vec<String> {
        let token = |request: Recorded| request.headers["authorization"].to_str().unwrap().to_owned();
        self.api.requests().into_iter().map(token).collect()
    }

    /// The forms that the endpoint got, in order.
    fn asked(&self) -> Vec<String> {
        self.endpoint.requests().into_iter().map(|request| request.wire).collect()
    }
}

#[tokio::test]
async fn a_token_is_asked_for_once_for_many_requests_and_again_before_it_ends() {
    let tokens = [token("one", 3600).after(Duration::from_millis(50)), token("two", 3600)];
    let Guarded { api, endpoint, app } = Guarded::start(tokens, []).await;

    app.track_many(40).await;
    app.quiet().await;
    app.run_for(Duration::from_mins(54)).await;
    app.track("u1", "Later").await;
    app.quiet().await;

    assert_eq!((api.requests().len(), endpoint.requests().len()), (41, 1));
    let asked = &endpoint.requests()[0];
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/token"));
    assert_eq!(asked.headers["content-type"], "application/x-www-form-urlencoded");
    let form = "grant_type=client_credentials&client_id=the-client&client_secret=the%2Fsecret+of+the+client";
    assert_eq!(asked.wire, form);
    assert!(api.requests().iter().all(|request| request.headers["authorization"] == "Bearer one"));

    app.run_for(Duration::from_mins(2)).await;
    app.track("u1", "Just before its end").await;
    app.quiet().await;
    assert_eq!(endpoint.requests().len(), 2);
    assert_eq!(api.requests()[41].headers["authorization"], "Bearer two");
}

#[tokio::test]
async fn a_token_that_cannot_be_replaced_early_is_used_until_its_end() {
    let guarded = Guarded::start([token("one", 3600)], []).await;
    guarded.endpoint.then_always(Answer::status(503));
    let app = &guarded.app;

    app.track("u1", "First").await;
    app.run_for(Duration::from_mins(56)).await;
    app.track("u1", "Early").await;
    app.track("u2", "Early").await;
    app.quiet().await;
    assert_eq!((guarded.seen().len(), guarded.asked().len()), (3, 2), "the endpoint is not asked for every event");
    assert_eq!(app.books("crm").delivered, 3);

    app.run_for(Duration::from_mins(5)).await;
    app.track("u1", "After its end").await;
    app.run_for(Duration::from_mins(1)).await;
    assert_eq!(app.books("crm").delivered, 3);
    guarded.endpoint.then_always(token("two", 3600));
    app.run_for(Duration::from_mins(30)).await;
    assert_eq!(app.books("crm").delivered, 4);
    assert_eq!(guarded.seen()[3], "Bearer two");
}

#[tokio::test]
async fn a_token_that_the_api_refuses_is_replaced_and_the_request_made_again_at_once() {
    let ok = || Answer::status(200);
    let answers = [ok(), Answer::status(401), ok()];
    let guarded = Guarded::start([token("one", 3600), token("two", 3600)], answers).await;

    guarded.app.track("u1", "First").await;
    guarded.app.quiet().await;
    guarded.app.track("u2", "Second").await;
    guarded.app.quiet().await;

    assert_eq!(guarded.seen(), ["Bearer one", "Bearer one", "Bearer two"]);
    assert_eq!(guarded.app.books("crm").delivered, 2);
}

#[tokio::test]
async fn an_api_that_refuses_a_new_token_rests_and_is_probed_with_another() {
    let tokens = [token("one", 3600), token("two", 3600)];
    let guarded = Guarded::start(tokens, [Answer::status(401)]).await;

    guarded.app.track_many(20).await;
    guarded.app.quiet().await;
    assert_eq!(guarded.app.books("crm").dead, 0);
    guarded.app.run_for(Duration::from_mins(5)).await;

    assert_eq!(guarded.app.books("crm").delivered, 20);
    assert_eq!(guarded.asked().len(), 2);
}

#[tokio::test]
async fn credentials_that_the_endpoint_refuses_rest_the_destination_until_they_are_good() {
    let refused = json!({ "error": "invalid_client", "error_description": "who is the/secret of the client" });
    let guarded = Guarded::start([], []).await;
    guarded.endpoint.then_always(Answer::status(400).body(&refused.to_string()));
    let app = &guarded.app;

    app.track_many(20).await;
    app.run_for(Duration::from_hours(1)).await;
    let asked = guarded.asked().len();
    assert!((40..=70).contains(&asked), "about once a minute: {asked}");
    assert_eq!((guarded.seen().len(), app.books("crm").waiting(), app.books("crm").dead), (0, 20, 0));
    let status = &app.app.fleet.statuses()[&"crm".into()];
    let failure = status.last_failure.as_deref().unwrap();
    assert!(failure.contains("for a token: status 400: invalid_client: who is [secret]"), "{failure}");

    guarded.endpoint.then_always(token("one", 3600));
    app.run_for(Duration::from_mins(3)).await;
    assert_eq!(app.books("crm").delivered, 20);
}

#[tokio::test]
async fn an_endpoint_that_is_busy_is_asked_again_as_any_service() {
    let busy = Answer::status(429).header("retry-after", "120");
    let guarded = Guarded::start([busy, token("one", 3600)], []).await;

    guarded.app.track("u1", "Patient").await;
    guarded.app.run_for(Duration::from_secs(119)).await;
    assert_eq!(guarded.asked().len(), 1);
    guarded.app.run_for(Duration::from_secs(2)).await;
    assert_eq!((guarded.seen().as_slice(), guarded.app.books("crm").delivered), (&["Bearer one".to_owned()][..], 1));
}

#[tokio::test]
async fn an_answer_without_a_token_is_no_token() {
    for answer in [r#"{"ok":false}"#, "<html>", r#"{"access_token":""}"#, r#"{"access_token":"a\nb"}"#] {
        let guarded = Guarded::start([], []).await;
        guarded.endpoint.then_always(Answer::status(200).body(answer));
        guarded.app.track("u1", "Any").await;
        guarded.app.quiet().await;
        assert_eq!((guarded.seen().len(), guarded.app.books("crm").waiting()), (0, 1), "{answer}");
    }
}

#[tokio::test]
async fn a_client_proves_itself_in_the_header_and_says_what_it_wants() {
    let lines =
        "style = \"basic\"\nscope = [\"a:read\", \"b\"]\naudience = \"https://api\"\nparams = { resource = \"r 1\" }";
    let guarded = Guarded::with([token("one", 3600)], [], lines).await;

    guarded.app.track("u1", "Any").await;
    guarded.app.quiet().await;

    let form = "grant_type=client_credentials&scope=a%3Aread+b&audience=https%3A%2F%2Fapi&resource=r+1";
    assert_eq!(guarded.asked(), [form]);
    let pair = BASE64.encode("the-client:the%2Fsecret%20of%20the%20client");
    assert_eq!(guarded.endpoint.requests()[0].headers["authorization"], format!("Basic {pair}"));
}

#[tokio::test]
async fn a_refresh_token_that_is_replaced_is_asked_with_from_then_on() {
    let renewed = json!({ "access_token": "one", "expires_in": "60", "refresh_token": "second" });
    let tokens = [Answer::status(200).body(&renewed.to_string()), token("two", 3600)];
    let guarded = Guarded::with(tokens, [], "refresh_token = \"first\"").await;

    guarded.app.track("u1", "Any").await;
    guarded.app.run_for(Duration::from_mins(2)).await;
    guarded.app.track("u1", "Later").await;
    guarded.app.quiet().await;

    let asked_with =
        |form: &String| form.split('&').find_map(|pair| pair.strip_prefix("refresh_token=")).unwrap().to_owned();
    assert_eq!(guarded.asked().iter().map(asked_with).collect::<Vec<_>>(), ["first", "second"]);
    assert!(guarded.asked()[0].starts_with("grant_type=refresh_token&"));
    assert_eq!(guarded.seen(), ["Bearer one", "Bearer two"]);
}

#[tokio::test]
async fn a_token_is_in_no_dead_letter_even_if_the_api_repeats_it() {
    let guarded = Guarded::start([token("the-token-of-today", 3600)], []).await;
    let echo = "no event for the-token-of-today, says the/secret of the client";
    guarded.api.then_always(Answer::status(400).body(echo));

    guarded.app.track("u1", "Refused").await;
    guarded.app.quiet().await;

    let letter = &guarded.app.dead_letters("crm").await[0];
    assert_eq!(letter.failure.detail, "no event for [secret], says [secret]");
    let sent = letter.failure.trace.as_ref().unwrap().request.as_ref().unwrap();
    assert!(sent.headers.contains(&("authorization".to_owned(), "***".to_owned())));
}

#[tokio::test]
async fn a_changed_credential_asks_for_a_token_of_its_own_and_no_two_destinations_share_one() {
    let (api, endpoint) = (Fake::start(), Fake::start());
    endpoint.then_always(token("any", 3600));
    let destination = |name: &str, client: &str| {
        format!(
            "[destinations.{name}]\nurl = \"{}\"\nauth = {{ oauth2 = {{ token_url = \"{}\", client_id = \"{client}\", client_secret = \"s\" }} }}\n",
            api.url(),
            endpoint.url()
        )
    };
    let app = TestApp::start(&(destination("a", "same") + &destination("b", "same"))).await;
    app.track("u1", "First").await;
    app.quiet().await;
    assert_eq!(endpoint.requests().len(), 2);

    assert!(app.reload(&(destination("a", "other") + &destination("b", "same"))).await);
    app.track("u1", "Second").await;
    app.quiet().await;
    assert_eq!(endpoint.requests().len(), 3);
    assert!(endpoint.requests()[2].wire.contains("client_id=other"));
}

// --- Google

/// A key made for tests: it opens nothing.
const ACCOUNT: &str = include_str!("../fixtures/auth/service-account.json");

#[tokio::test]
async fn a_service_account_asks_google_with_an_assertion_that_its_key_has_signed() {
    let (api, endpoint) = (Fake::start(), Fake::replying([token("ya29.one", 3599)]));
    let mut account: Value = serde_json::from_str(ACCOUNT).unwrap();
    account["token_uri"] = endpoint.url().into();
    let lines = "auth = { google = { credentials = \"{{ env.ACCOUNT }}\", scope = [\"https://a\", \"https://b\"], subject = \"jane@example.com\" } }";
    let app = TestApp::with_variables(&crm(&api, lines), &[("ACCOUNT", &account.to_string())]).await;

    app.track_many(3).await;
    app.quiet().await;

    assert!(api.requests().iter().all(|request| request.headers["authorization"] == "Bearer ya29.one"));
    let [asked] = <[Recorded; 1]>::try_from(endpoint.requests()).unwrap_or_else(|all| panic!("{all:?}"));
    let assertion =
        asked.wire.strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=").unwrap();
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let parts: Vec<Value> =
        signed.split('.').map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()).collect();
    assert_eq!(parts[0], json!({ "alg": "RS256", "typ": "JWT", "kid": "0123456789abcdef" }));
    let claims = json!({
        "iss": "events@a-project.iam.gserviceaccount.com", "scope": "https://a https://b", "aud": endpoint.url(),
        "iat": 1_767_323_045, "exp": 1_767_326_645, "sub": "jane@example.com",
    });
    assert_eq!(parts[1], claims);
    let pem = account["private_key"].as_str().unwrap();
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public().as_ref());
    public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

#[tokio::test]
async fn a_service_account_gets_an_id_token_for_an_audience() {
    let answer = Answer::status(200).body(&json!({ "id_token": "the.id.token" }).to_string());
    let (api, endpoint) = (Fake::start(), Fake::replying([answer]));
    let mut account: Value = serde_json::from_str(ACCOUNT).unwrap();
    account["token_uri"] = endpoint.url().into();
    let lines = r#"auth = { google = { credentials = "{{ env.ACCOUNT }}", audience = "https://run.example" } }"#;
    let app = TestApp::with_variables(&crm(&api, lines), &[("ACCOUNT", &account.to_string())]).await;

    app.track("u1", "Any").await;
    app.quiet().await;

    assert_eq!(api.requests()[0].headers["authorization"], "Bearer the.id.token");
    let wire = &endpoint.requests()[0].wire;
    let claims = URL_SAFE_NO_PAD.decode(wire.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["target_audience"], &claims["scope"]), (&json!("https://run.example"), &Value::Null));
}

#[tokio::test]
async fn a_test_in_the_file_needs_no_credentials_that_only_a_token_endpoint_sees() {
    let text = r#"
[destinations.crm]
url = "https://crm.example.com"
auth = { google = { credentials = "{{ env.ACCOUNT }}", scope = "s" } }

[[tests]]
name = "the token is asked for later"
destination = "crm"
event = '{"type":"track","event":"Any","userId":"u1"}'
expect = '[{"headers":{"authorization":"Bearer ***"}}]'
"#;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("libroseg.toml"), text).unwrap();
    let output = Binary::command().arg("test").current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn the_log_tells_that_credentials_are_refused_and_none_of_them() {
    let endpoint = Fake::start();
    endpoint.then_always(Answer::status(401).body("we do not know the-client with hush-hush-hush"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{HEAD}[destinations.crm]\nurl = \"{0}\"\nauth = {{ oauth2 = {{ token_url = \"{0}\", \
         client_id = \"the-client\", client_secret = \"{{{{ env.HUSH }}}}\" }} }}\n",
        endpoint.url()
    );
    std::fs::write(&path, text).unwrap();
    let binary = Binary::start_with(&path, &[("HUSH", "hush-hush-hush"), ("LIBROSEG_LOG", "trace")]);
    let client = crate::support::client();
    let event = json!({ "userId": "u1", "event": "Any" });
    let request = client.post(format!("{}/v1/track", binary.url)).basic_auth(KEY, Some("")).body(event.to_string());
    assert_eq!(request.send().await.unwrap().status(), 200);

    eventually("the destination rests", || binary.log().contains("the destination rests")).await;
    assert!(binary.log().contains("we do not know the-client with [secret]"), "{}", binary.log());
    assert!(!binary.log().contains("hush-hush-hush"), "{}", binary.log());
}

// --- AWS

#[tokio::test]
async fn a_request_to_aws_is_signed_over_its_own_bytes() {
    let fake = Fake::start();
    let lines = "auth = { aws = { access_key_id = \"AKIDEXAMPLE\", secret_access_key = \"{{ env.SECRET }}\", session_token = \"the session\", region = \"eu-central-1\", service = \"s3\" } }";
    let app = TestApp::with_variables(&crm(&fake, lines), &[SECRET]).await;

    app.track("u1", "Any").await;
    app.quiet().await;

    let request = &fake.requests()[0];
    let header = |name: &str| request.headers[name].to_str().unwrap();
    assert_eq!(header("x-amz-date"), "20260102T030405Z");
    assert_eq!(header("x-amz-security-token"), "the session");
    assert_eq!(header("x-amz-content-sha256"), hex(&Sha256::digest(&request.wire)));
    let signed = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/eu-central-1/s3/aws4_request, SignedHeaders=\
                  content-type;host;x-amz-content-sha256;x-amz-date;x-amz-security-token, Signature=";
    assert!(header("authorization").starts_with(signed), "{}", header("authorization"));
}

// --- bodies

/// The parts of a multipart body as another implementation reads them: name, file name, type, content.
async fn parts(request: &Recorded) -> Vec<(String, Option<String>, Option<String>, String)> {
    let boundary = multer::parse_boundary(request.headers["content-type"].to_str().unwrap()).unwrap();
    let body = futures_util::stream::iter([Ok::<_, std::io::Error>(request.bytes.clone())]);
    let (mut read, mut parts) = (multer::Multipart::new(body, boundary), Vec::new());
    while let Some(field) = read.next_field().await.unwrap() {
        let name = field.name().unwrap().to_owned();
        let (filename, kind) = (field.file_name().map(str::to_owned), field.content_type().map(ToString::to_string));
        parts.push((name, filename, kind, field.text().await.unwrap()));
    }
    parts
}

#[tokio::test]
async fn a_multipart_body_has_fields_files_and_json_that_a_real_parser_reads() {
    let fake = Fake::replying([Answer::status(503)]);
    let lines = r#"
encoding = "multipart"
[destinations.crm.body]
id = "{{ userId }}"
tags = "{{ properties.tags }}"
missing = "{{ properties.missing }}"
details = "{{ properties.details }}"
file = { filename = "{{ userId }} \"é\".csv", content_type = "text/csv", content = "{{ properties.csv }}" }
none = { filename = "none.csv", content = "{{ properties.missing }}" }
"#;
    let app = TestApp::start(&format!("[destinations.crm]\nurl = \"{}\"\n{lines}", fake.url())).await;

    let properties = json!({ "tags": ["a", 2, true], "details": { "a": [1] }, "csv": "x,y\r\n--libroseg-\r\n" });
    app.track_with("u1", "Uploaded", properties).await;
    app.run_for(Duration::from_mins(1)).await;

    let requests = fake.requests();
    assert_eq!((requests.len(), requests[0].bytes == requests[1].bytes), (2, true), "every try is the same");
    let plain = |name: &str, text: &str| (name.to_owned(), None, None, text.to_owned());
    let expected = [
        plain("id", "u1"),
        plain("tags", "a"),
        plain("tags", "2"),
        plain("tags", "true"),
        ("details".to_owned(), None, Some("application/json".to_owned()), r#"{"a":[1]}"#.to_owned()),
        (
            "file".to_owned(),
            Some("u1 %22é%22.csv".to_owned()),
            Some("text/csv".to_owned()),
            "x,y\r\n--libroseg-\r\n".to_owned(),
        ),
    ];
    assert_eq!(parts(&requests[0]).await, expected);
}

#[tokio::test]
async fn a_multipart_batch_puts_its_items_into_a_file() {
    let fake = Fake::start();
    let lines = r#"
encoding = "multipart"
batch = { max_events = 3, body = { kind = "events", upload = { filename = "events.json", content = "{{ items }}" } } }
"#;
    let app = TestApp::start(&crm(&fake, lines)).await;

    app.track_many(3).await;
    app.run_for(Duration::from_secs(2)).await;

    let parts = parts(&fake.requests()[0]).await;
    assert_eq!(parts[0].3, "events");
    let (name, kind) = (parts[1].1.as_deref(), parts[1].2.as_deref());
    assert_eq!((name, kind), (Some("events.json"), Some("application/json")));
    assert_eq!(parts[1].3, r#"[{"id":"0"},{"id":"1"},{"id":"2"}]"#);
}

#[tokio::test]
async fn a_packed_body_is_signed_as_it_is_sent() {
    let fake = Fake::start();
    let lines = "compression = \"gzip\"\nauth = { hmac = { key = \"{{ env.SECRET }}\", message = \"{{ timestamp }}.{{ body }}\", headers = { X-Time = \"{{ timestamp }}\" } } }";
    let app = TestApp::with_variables(&crm(&fake, lines), &[SECRET]).await;

    app.track("u1", "Any").await;
    app.quiet().await;

    let request = &fake.requests()[0];
    assert_eq!(request.headers["content-encoding"], "gzip");
    assert_eq!(request.headers["content-type"], "application/json");
    let mut plain = String::new();
    GzDecoder::new(&request.bytes[..]).read_to_string(&mut plain).unwrap();
    assert_eq!(plain, r#"{"id":"u1"}"#);
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.1.as_bytes()).unwrap();
    mac.update(request.headers["x-time"].as_bytes());
    mac.update(b".");
    mac.update(&request.bytes);
    assert_eq!(request.headers["x-signature"], hex(&mac.finalize().into_bytes()));
}

#[tokio::test]
async fn a_request_without_a_body_says_nothing_of_how_it_is_packed() {
    let fake = Fake::start();
    let text = format!("[destinations.crm]\nurl = \"{}\"\nmethod = \"GET\"\ncompression = \"gzip\"\n", fake.url());
    let app = TestApp::start(&text).await;
    app.track("u1", "Any").await;
    app.quiet().await;
    assert!(!fake.requests()[0].headers.contains_key("content-encoding"));
}
