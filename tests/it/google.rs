//! Whoever we are at Google, we come by a token there: with a fake of each server that has a part in it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::{HEAD, KEY};
use crate::support::{Answer, Binary, Fake, TestApp, eventually};

const ACCOUNT: &str = "/v1/projects/-/serviceAccounts/sa@p.iam.gserviceaccount.com:generateAccessToken";

/// A destination `api` of this API, with these keys of `auth.google`.
fn api(api: &Fake, google: &str) -> String {
    format!(
        "[destinations.api]\nurl = \"{}\"\nauth = {{ google = {{ scope = \"https://a\", {google} }} }}\n",
        api.url()
    )
}

const OF_VARIABLE: &str = "credentials = \"{{ env.CREDENTIALS }}\"";

fn token(value: &str) -> Answer {
    Answer::status(200).body(&json!({ "access_token": value, "expires_in": 3600 }).to_string())
}

/// What IAM makes: an access token until then.
fn made(value: &str, end: &str) -> Answer {
    Answer::status(200).body(&json!({ "accessToken": value, "expireTime": end }).to_string())
}

/// Somebody of another service, whose word comes from this source.
fn external(sts: &Fake, source: &Value) -> Value {
    json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/p/providers/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{}/v1/token", sts.url()),
        "credential_source": source,
    })
}

/// The tokens that an API saw, in order.
fn seen(api: &Fake) -> Vec<String> {
    let token =
        |request: &crate::support::fake::Recorded| request.headers["authorization"].to_str().unwrap().to_owned();
    api.requests().iter().map(token).collect()
}

/// What a form that a server got holds of a field, in order.
fn asked_with(server: &Fake, field: &str) -> Vec<String> {
    let value =
        |form: &str| form.split('&').find_map(|pair| pair.strip_prefix(field)?.strip_prefix('=').map(str::to_owned));
    server.requests().iter().filter_map(|request| value(&request.wire)).collect()
}

#[tokio::test]
async fn a_workload_shows_the_token_that_is_in_its_file_at_the_time_and_speaks_for_an_account() {
    let (fake, sts, iam) = (Fake::start(), Fake::start(), Fake::start());
    sts.then_always(token("of-sts"));
    iam.then_always(made("ya29.one", "2026-01-02T04:04:05Z"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "the.first.token").unwrap();
    let mut credentials = external(&sts, &json!({ "file": file }));
    credentials["service_account_impersonation_url"] = format!("{}{ACCOUNT}", iam.url()).into();
    let variables = [("CREDENTIALS", credentials.to_string())];
    let app = TestApp::with_variables(&api(&fake, OF_VARIABLE), &[(variables[0].0, &variables[0].1)]).await;

    app.track_many(40).await;
    app.quiet().await;
    assert_eq!((seen(&fake).len(), sts.requests().len(), iam.requests().len()), (40, 1, 1), "one asks for all");
    assert!(seen(&fake).iter().all(|token| token == "Bearer ya29.one"));
    assert_eq!(iam.requests()[0].path, ACCOUNT);
    assert_eq!(iam.requests()[0].headers["authorization"], "Bearer of-sts");

    std::fs::write(&file, "the.second.token").unwrap();
    iam.then_always(made("ya29.two", "2026-01-02T05:04:05Z"));
    app.run_for(Duration::from_mins(56)).await;
    app.track("u1", "Later").await;
    app.quiet().await;
    assert_eq!(asked_with(&sts, "subject_token"), ["the.first.token", "the.second.token"]);
    assert_eq!(seen(&fake)[40], "Bearer ya29.two");
}

#[tokio::test]
async fn a_workload_whose_file_comes_late_waits_for_it() {
    let (fake, sts) = (Fake::start(), Fake::start());
    sts.then_always(token("the-token"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let credentials = external(&sts, &json!({ "file": file })).to_string();
    let app = TestApp::with_variables(&api(&fake, OF_VARIABLE), &[("CREDENTIALS", &credentials)]).await;

    app.track("u1", "Early").await;
    app.quiet().await;
    let status = &app.app.fleet.statuses()[&"api".into()];
    let failure = status.last_failure.as_deref().unwrap();
    assert!(failure.contains(&format!("cannot read {}: ", file.display())), "{failure}");

    std::fs::write(&file, "the.token").unwrap();
    app.run_for(Duration::from_mins(5)).await;
    assert_eq!((seen(&fake), app.books("api").delivered), (vec!["Bearer the-token".to_owned()], 1));
}

#[tokio::test]
async fn a_workload_asks_an_address_for_its_word() {
    let (fake, sts, issuer) = (Fake::start(), Fake::replying([token("the-token")]), Fake::start());
    issuer.then_always(Answer::status(200).body(r#"{ "value": "the.token.of.an.issuer" }"#));
    let source = json!({
        "url": format!("{}/token?audience=a", issuer.url()),
        "headers": { "Authorization": "bearer hush-hush" },
        "format": { "type": "json", "subject_token_field_name": "value" },
    });
    let credentials = external(&sts, &source).to_string();
    let app = TestApp::with_variables(&api(&fake, OF_VARIABLE), &[("CREDENTIALS", &credentials)]).await;

    app.track("u1", "Any").await;
    app.quiet().await;

    let asked = &issuer.requests()[0];
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("GET", "/token?audience=a"));
    assert_eq!(asked.headers["authorization"], "bearer hush-hush");
    assert_eq!(asked_with(&sts, "subject_token"), ["the.token.of.an.issuer"]);
    assert_eq!(seen(&fake), ["Bearer the-token"]);
}

#[tokio::test]
async fn a_machine_of_awss_is_somebody_at_google() {
    let (fake, sts) = (Fake::start(), Fake::replying([token("the-token")]));
    let keys = json!({ "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "the-secret-key", "Token": "the-session" });
    let text = |text: &str| Answer::status(200).body(text);
    let aws = Fake::replying([text("imds"), text("eu-central-1a"), text("a-role"), text(&keys.to_string())]);
    let source = json!({
        "environment_id": "aws1",
        "region_url": format!("{}/zone", aws.url()),
        "url": format!("{}/role", aws.url()),
        "imdsv2_session_token_url": format!("{}/session", aws.url()),
        "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
    });
    let credentials = external(&sts, &source).to_string();
    let app = TestApp::with_variables(&api(&fake, OF_VARIABLE), &[("CREDENTIALS", &credentials)]).await;

    app.track("u1", "Any").await;
    app.quiet().await;

    let asked: Vec<String> =
        aws.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect();
    assert_eq!(asked, ["PUT /session", "GET /zone", "GET /role", "GET /role/a-role"]);
    assert!(asked_with(&sts, "subject_token")[0].contains("AKIDEXAMPLE%252F20260102%252Feu-central-1%252Fsts"));
    assert_eq!(seen(&fake), ["Bearer the-token"]);
}

#[tokio::test]
async fn a_person_speaks_for_an_account_with_their_refresh_token() {
    let (fake, endpoint, iam) = (Fake::start(), Fake::replying([token("of-the-person")]), Fake::start());
    iam.then_always(made("the-token", "2026-01-02T04:04:05Z"));
    let credentials = json!({
        "type": "impersonated_service_account",
        "source_credentials": {
            "type": "authorized_user", "client_id": "the-client", "client_secret": "the-client-secret",
            "refresh_token": "the-refresh-token", "token_uri": endpoint.url(),
        },
        "service_account_impersonation_url": format!("{}{ACCOUNT}", iam.url()),
        "delegates": ["between@p.iam.gserviceaccount.com"],
        "quota_project_id": "who-pays",
    });
    let variables = [("CREDENTIALS", credentials.to_string())];
    let app = TestApp::with_variables(&api(&fake, OF_VARIABLE), &[(variables[0].0, &variables[0].1)]).await;

    app.track("u1", "Any").await;
    app.quiet().await;

    assert_eq!(asked_with(&endpoint, "refresh_token"), ["the-refresh-token"]);
    let delegates = ["projects/-/serviceAccounts/between@p.iam.gserviceaccount.com"];
    let expected = json!({ "scope": ["https://a"], "lifetime": "3600s", "delegates": delegates });
    assert_eq!(iam.requests()[0].body, expected);
    assert_eq!(seen(&fake), ["Bearer the-token"]);
    assert_eq!(fake.requests()[0].headers["x-goog-user-project"], "who-pays", "Google charges the project it is told");
}

#[tokio::test]
async fn without_credentials_the_machine_says_who_it_is() {
    let (fake, machine) = (Fake::start(), Fake::replying([token("the-token")]));
    let host = machine.url().replace("http://", "");
    let app = TestApp::with_variables(&api(&fake, ""), &[("GCE_METADATA_HOST", &host)]).await;

    app.track_many(3).await;
    app.quiet().await;

    let asked = &machine.requests()[0];
    assert_eq!(asked.path, "/computeMetadata/v1/instance/service-accounts/default/token?scopes=https%3A%2F%2Fa");
    assert_eq!(asked.headers["metadata-flavor"], "Google");
    assert_eq!((machine.requests().len(), seen(&fake)), (1, vec!["Bearer the-token".to_owned(); 3]));
}

#[tokio::test]
async fn the_machine_gives_id_tokens() {
    let (fake, machine) = (Fake::start(), Fake::replying([Answer::status(200).body("an.id.token")]));
    let host = machine.url().replace("http://", "");
    let lines = api(&fake, "audience = \"https://run.example\"").replace("scope = \"https://a\", ", "");
    let app = TestApp::with_variables(&lines, &[("GCE_METADATA_HOST", &host)]).await;

    app.track("u1", "Any").await;
    app.quiet().await;

    let path =
        "/computeMetadata/v1/instance/service-accounts/default/identity?audience=https%3A%2F%2Frun.example&format=full";
    assert_eq!((machine.requests()[0].path.as_str(), seen(&fake)), (path, vec!["Bearer an.id.token".to_owned()]));
}

fn write_person(path: &Path, endpoint: &Fake, refresh_token: &str) {
    let person = json!({
        "type": "authorized_user", "client_id": "the-client", "client_secret": "the-client-secret",
        "refresh_token": refresh_token, "token_uri": endpoint.url(),
    });
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, person.to_string()).unwrap();
}

#[tokio::test]
async fn the_file_of_a_variable_counts_before_gclouds_and_a_change_of_it_is_a_new_plan() {
    let (fake, endpoint) = (Fake::start(), Fake::start());
    endpoint.then_always(token("the-token"));
    let home = tempfile::tempdir().unwrap();
    let well_known = home.path().join(".config/gcloud/application_default_credentials.json");
    let named = home.path().join("named.json");
    write_person(&well_known, &endpoint, "of-gcloud");
    write_person(&named, &endpoint, "of-a-variable");
    let lines = api(&fake, "credentials = \"{{ env.CREDENTIALS | default('') }}\"");
    let home_path = home.path().to_str().unwrap();

    let app = TestApp::with_variables(&lines, &[("HOME", home_path)]).await;
    app.track("u1", "Any").await;
    app.quiet().await;
    assert_eq!(asked_with(&endpoint, "refresh_token"), ["of-gcloud"]);

    let variables = [("HOME", home_path), ("GOOGLE_APPLICATION_CREDENTIALS", named.to_str().unwrap())];
    let app = TestApp::with_variables(&lines, &variables).await;
    app.track("u1", "Any").await;
    app.quiet().await;
    assert!(!app.reload(&lines).await, "nothing has changed");
    write_person(&named, &endpoint, "of-another");
    assert!(app.reload(&lines).await);
    app.track("u1", "Another").await;
    app.quiet().await;
    assert_eq!(asked_with(&endpoint, "refresh_token"), ["of-gcloud", "of-a-variable", "of-another"]);
}

#[tokio::test]
async fn a_token_that_the_api_refuses_is_made_anew_from_its_first_step() {
    let fake = Fake::replying([Answer::status(200), Answer::status(401), Answer::status(200)]);
    let sts = Fake::replying([token("one"), token("two")]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "the.token").unwrap();
    let credentials = external(&sts, &json!({ "file": file })).to_string();
    let app = TestApp::with_variables(&api(&fake, OF_VARIABLE), &[("CREDENTIALS", &credentials)]).await;

    app.track("u1", "First").await;
    app.quiet().await;
    app.track("u2", "Second").await;
    app.quiet().await;

    assert_eq!(seen(&fake), ["Bearer one", "Bearer one", "Bearer two"]);
    assert_eq!(app.books("api").delivered, 2);
}

#[tokio::test]
async fn a_step_that_fails_leaves_a_good_token_in_place() {
    let (fake, sts, iam) = (Fake::start(), Fake::start(), Fake::start());
    sts.then_always(token("of-sts"));
    iam.then_always(made("one", "2026-01-02T04:04:05Z"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "the.token").unwrap();
    let mut credentials = external(&sts, &json!({ "file": file }));
    credentials["service_account_impersonation_url"] = format!("{}{ACCOUNT}", iam.url()).into();
    let credentials = credentials.to_string();
    let app = TestApp::with_variables(&api(&fake, OF_VARIABLE), &[("CREDENTIALS", &credentials)]).await;

    app.track("u1", "First").await;
    app.run_for(Duration::from_mins(56)).await;
    iam.then_always(Answer::status(503));
    app.track("u1", "Early").await;
    app.quiet().await;
    assert_eq!(seen(&fake), ["Bearer one", "Bearer one"]);

    iam.then_always(made("two", "2026-01-02T06:04:05Z"));
    app.run_for(Duration::from_mins(5)).await;
    app.track("u1", "Later").await;
    app.quiet().await;
    assert_eq!(seen(&fake)[2], "Bearer two");
}

#[tokio::test]
async fn whoever_refuses_us_is_named_and_none_of_our_secrets() {
    let (fake, sts) = (Fake::start(), Fake::start());
    let refused =
        json!({ "error": "invalid_grant", "error_description": "the.subject.token of the-client-secret is old" });
    sts.then_always(Answer::status(400).body(&refused.to_string()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "the.subject.token").unwrap();
    let mut credentials = external(&sts, &json!({ "file": file }));
    credentials["client_id"] = "the-client".into();
    credentials["client_secret"] = "the-client-secret".into();
    let credentials = credentials.to_string();
    let app = TestApp::with_variables(&api(&fake, OF_VARIABLE), &[("CREDENTIALS", &credentials)]).await;

    app.track("u1", "Any").await;
    app.quiet().await;

    let status = &app.app.fleet.statuses()[&"api".into()];
    let failure = status.last_failure.as_deref().unwrap();
    let told =
        format!("asking {}/v1/token for a token: status 400: invalid_grant: [secret] of [secret] is old", sts.url());
    assert!(failure.contains(&told), "{failure}");
    assert_eq!(
        (seen(&fake).len(), app.books("api").waiting(), app.books("api").dead),
        (0, 1, 0),
        "the destination rests"
    );
}

#[tokio::test]
async fn no_proxy_stands_between_us_and_the_machine() {
    let (proxy, machine) = (Fake::start(), Fake::replying([token("the-token")]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{HEAD}[destinations.api]\nurl = \"http://api.example\"\n\
         auth = {{ google = {{ scope = \"https://a\" }} }}\n"
    );
    std::fs::write(&path, text).unwrap();
    let (proxy_url, host) = (proxy.url(), machine.url().replace("http://127.0.0.1", "localhost"));
    let variables =
        [("HTTP_PROXY", proxy_url.as_str()), ("http_proxy", &proxy_url), ("GCE_METADATA_HOST", &host), ("HOME", "")];
    let binary = Binary::start_with(&path, &variables);
    let event = json!({ "userId": "u1", "event": "Any" });
    let client = crate::support::client();
    let request = client.post(format!("{}/v1/track", binary.url)).basic_auth(KEY, Some("")).body(event.to_string());
    assert_eq!(request.send().await.unwrap().status(), 200);

    eventually("the API is asked by way of the proxy", || !proxy.requests().is_empty()).await;
    assert_eq!(seen(&proxy), ["Bearer the-token"]);
    assert_eq!(machine.requests().len(), 1);
}
