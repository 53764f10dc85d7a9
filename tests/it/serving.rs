//! What `[server]` and `[sources]` say is what the running binary does.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Binary, Fake, PATIENCE, client, eventually};

fn file(server: &str, rest: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    let text = format!("[server]\nlisten = \"127.0.0.1:0\"\n{server}\n[queue]\ntype = \"memory\"\n{rest}");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

async fn post(client: &reqwest::Client, binary: &Binary, key: &str, body: &Value) -> (u16, Value) {
    let request = client.post(format!("{}/v1/track", binary.url)).basic_auth(key, Some(""));
    let response = request.body(body.to_string()).send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

fn event() -> Value {
    json!({ "userId": "u1", "event": "Any" })
}

const SOURCE: &str = "[sources.web]\nwrite_keys = [\"web_key\"]\n";

#[tokio::test]
async fn a_certificate_in_the_file_is_what_clients_see() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (folder, path) = file("tls = { cert = \"cert.pem\", key = \"key.pem\" }", SOURCE);
    std::fs::write(folder.path().join("cert.pem"), certified.cert.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    let binary = Binary::start(&path);
    assert!(binary.url.starts_with("https://"), "{}", binary.url);
    let port = binary.url.rsplit_once(':').unwrap().1;

    let _ = rustls::crypto::ring::default_provider().install_default();
    let root = reqwest::Certificate::from_pem(certified.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([root]).build().unwrap();
    let health = client.get(format!("https://localhost:{port}/health")).send().await.unwrap();
    assert_eq!((health.status().as_u16(), health.version()), (200, reqwest::Version::HTTP_2));
}

/// A service whose one destination is the https door of another.
fn sender_to(receiver: &Binary) -> (TempDir, PathBuf) {
    let port = receiver.url.rsplit_once(':').unwrap().1;
    let url = format!("https://localhost:{port}/v1/track");
    file(
        "",
        &format!(
            "[sources.a]\nwrite_keys = [\"web_key\"]\n[destinations.next]\nurl = \"{url}\"\nauth = {{ basic = [\"web_key\", \"\"] }}\n"
        ),
    )
}

#[tokio::test]
async fn a_destination_is_trusted_by_the_root_certificates_that_ssl_cert_file_names() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (folder, path) = file("tls = { cert = \"cert.pem\", key = \"key.pem\" }", SOURCE);
    let cert = folder.path().join("cert.pem");
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    let receiver = Binary::start(&path);

    let (_sender_folder, path) = sender_to(&receiver);
    let cert = cert.to_str().unwrap();
    let sender = Binary::start_with(&path, &[("SSL_CERT_FILE", cert), ("SSL_CERT_DIR", "")]);
    assert_eq!(post(&client(), &sender, "web_key", &event()).await.0, 200);
    let is_delivered = async || {
        let ready = client().get(format!("{}/ready", sender.url)).send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(&ready).unwrap()["destinations"]["next"]["delivered"] == 1
    };
    let delivered = tokio::time::timeout(PATIENCE, async { while !is_delivered().await {} });
    assert!(delivered.await.is_ok(), "{}", sender.log());
}

#[tokio::test]
async fn without_any_root_certificate_the_start_says_what_to_do() {
    let (folder, path) = file("", &format!("{SOURCE}[destinations.a]\nurl = \"https://example.com\"\n"));
    let nothing = folder.path().join("nothing.pem");
    std::fs::write(&nothing, "").unwrap();
    let mut command = Binary::command();
    command.arg("--config").arg(&path).env("SSL_CERT_FILE", &nothing).env("SSL_CERT_DIR", "");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("no root certificates: ") && told.contains("SSL_CERT_FILE"), "{told}");
}

#[tokio::test]
async fn a_strict_server_refuses_with_the_list_of_problems() {
    let (_folder, path) = file("strict = true", SOURCE);
    let binary = Binary::start(&path);
    let (status, body) = post(&client(), &binary, "web_key", &json!({ "userId": "u1" })).await;
    assert_eq!((status, &body["error"]), (400, &json!("Invalid payload")));
    assert_eq!(body["details"][0]["code"], "event_not_defined");
    assert!(body["code"].is_string() && body["message"].is_string());
}

#[tokio::test]
async fn a_source_reaches_the_destinations_it_names_and_an_unknown_key_none() {
    let fake = Fake::start();
    let rest = format!(
        "{SOURCE}destinations = [\"a\"]\n[sources.app]\nwrite_keys = [\"app_key\"]\n[sources.off]\nwrite_keys = [\"off_key\"]\nenabled = false\n\
         [destinations.a]\nurl = \"{url}/a\"\n[destinations.b]\nurl = \"{url}/b\"\n",
        url = fake.url()
    );
    let (_folder, path) = file("", &rest);
    let (binary, client) = (Binary::start(&path), client());

    assert_eq!(post(&client, &binary, "web_key", &event()).await.0, 200);
    assert_eq!(post(&client, &binary, "app_key", &event()).await.0, 200);
    assert_eq!(post(&client, &binary, "off_key", &event()).await.0, 200);
    let (status, body) = post(&client, &binary, "nobody", &event()).await;
    assert_eq!((status, &body["code"]), (400, &json!("invalid_write_key")));

    let mut paths: Vec<String> = fake.has(3).await.into_iter().map(|request| request.path).collect();
    paths.sort();
    assert_eq!(paths, ["/a", "/a", "/b"]);
}

#[tokio::test]
async fn every_200_says_what_it_is_worth() {
    let (_folder, path) = file("", SOURCE);
    let binary = Binary::start(&path);
    let request = client().post(format!("{}/v1/track", binary.url)).basic_auth("web_key", Some(""));
    let response = request.body(event().to_string()).send().await.unwrap();
    assert_eq!(response.headers()["x-libroseg-ack"], "memory");
    eventually("the log says so too", || binary.log().contains("events wait in memory")).await;
}
