//! Requests prove who we are, and nobody else gets to see how.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;

use crate::support::{Answer, Fake, TestApp};

/// A destination `crm` at the fake's, with these lines of its own.
fn crm(fake: &Fake, lines: &str) -> String {
    format!("[destinations.crm]\nurl = \"{}/in?x=1\"\nbody = {{ id = \"{{{{ userId }}}}\" }}\n{lines}\n", fake.url())
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
    app.run_for(std::time::Duration::from_mins(1)).await;

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
