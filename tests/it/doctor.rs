//! `libroseg doctor`: what is wrong outside is told before the first event, and nothing is sent to find out.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use libroseg::clock::Clock;
use regex::Regex;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::bigquery::{BigQuery, Fault};
use crate::support::{Answer, Binary, Fake};

/// A folder with a file that has these lines besides a source and a queue in memory.
fn folder(lines: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let head = "[server]\nlisten = \"127.0.0.1:0\"\n[sources.a]\nwrite_keys = [\"k\"]\n[queue]\ntype = \"memory\"\n";
    std::fs::write(folder.path().join("libroseg.toml"), format!("{head}{lines}")).unwrap();
    folder
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Binary::command();
    for variable in
        ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy", "SSL_CERT_FILE"]
    {
        command.env_remove(variable);
    }
    command.args(arguments).env("COLUMNS", "120").current_dir(folder);
    command
}

fn doctor(lines: &str, arguments: &[&str]) -> Output {
    let folder = folder(lines);
    command(folder.path(), &[&["doctor"], arguments].concat()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What was found about one destination: grade, subject, message and help, a line each.
fn found(lines: &str, name: &str) -> (Option<i32>, Vec<String>) {
    let output = doctor(lines, &["--format", "json", "--only", name]);
    let document: Value = serde_json::from_str(&stdout(&output))
        .unwrap_or_else(|_| panic!("{}{}", stdout(&output), String::from_utf8_lossy(&output.stderr)));
    let file = &document["files"][0];
    assert_eq!(file["online"].as_array().map(Vec::len), Some(1), "{document:#}");
    let findings = file["online"][0]["findings"].as_array().unwrap().iter().map(|finding| {
        let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let help = if finding["help"].is_null() { String::new() } else { format!(" → {}", text("help")) };
        format!("{}: {} {}{help}", text("grade"), text("subject"), text("message"))
    });
    (output.status.code(), findings.collect())
}

/// Text without how long something took.
fn timeless(text: &str) -> String {
    Regex::new(r"\b\d+ms\b").unwrap().replace_all(text, "TIME").into_owned()
}

// --- BigQuery

/// A destination `bq` at this server, with these lines of its own.
fn bq(server: &BigQuery, own: &str) -> String {
    let (endpoint, credentials) = (server.endpoint(), json!(server.credentials_json()));
    format!(
        "[destinations.bq]\ntype = \"bigquery\"\nendpoint = \"{endpoint}\"\ncredentials = {credentials}\n\
         project = \"acme\"\ndataset = \"events\"\ntable = \"all\"\n{own}\n"
    )
}

const DECLARED: &str = "location = \"EU\"\ncluster_by = [\"id\"]\nrow = { id = \"{{ messageId }}\", timestamp = \"{{ timestamp }}\" }\n\
                        [destinations.bq.schema]\nid = \"STRING NOT NULL\"\ntimestamp = \"TIMESTAMP\"";

fn fields(columns: &[(&str, &str, &str)]) -> Value {
    columns.iter().map(|(name, kind, mode)| json!({ "name": name, "type": kind, "mode": mode })).collect()
}

/// The table that [`DECLARED`] declares.
fn declared_table() -> Value {
    json!({
        "schema": { "fields": fields(&[("id", "STRING", "REQUIRED"), ("timestamp", "TIMESTAMP", "NULLABLE")]) },
        "timePartitioning": { "type": "DAY", "field": "timestamp" },
        "clustering": { "fields": ["id"] },
    })
}

/// Whether the server was only asked what changes nothing.
#[track_caller]
fn was_only_looked_at(server: &BigQuery) {
    let looks = ["token", "bigquery.datasets.get", "bigquery.tables.get", "bigquery.tables.testIamPermissions"];
    for request in server.requests() {
        assert!(looks.contains(&request.method.as_str()), "{request:?}");
    }
}

#[test]
fn a_table_as_the_file_declares_it_is_in_order_and_gets_no_row() {
    let server = BigQuery::start();
    server.create_table("acme.events.all", declared_table());
    let output = doctor(&bq(&server, DECLARED), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let told = timeless(&stdout(&output)).replace(&server.endpoint(), "http://ENDPOINT");
    insta::assert_snapshot!(told);
    let methods: Vec<String> = server.requests().into_iter().map(|request| request.method).collect();
    let looks =
        ["token", "token", "bigquery.datasets.get", "bigquery.tables.get", "bigquery.tables.testIamPermissions"];
    assert_eq!(methods, looks);
    assert!(server.table("acme.events.all").rows().is_empty());
}

#[test]
fn a_key_that_is_refused_is_told_with_who_was_asked_and_what_was_said_and_never_shown() {
    let server = BigQuery::start();
    let lines = bq(&server, DECLARED).replace('@', "@not-");
    let (code, found) = found(&lines, "bq");
    assert_eq!(code, Some(1));
    let [told] = found.as_slice() else { panic!("{found:?}") };
    let asked =
        format!("problem: credentials are refused: asking {}/token for a token: status 400: ", server.endpoint());
    assert!(told.starts_with(&asked) && told.contains("account not found"), "{told}");
    assert!(!told.contains("PRIVATE KEY") && !told.contains("eyJ"), "{told}");
}

#[test]
fn a_dataset_that_is_not_there_is_a_problem_unless_it_is_made() {
    let server = BigQuery::start();
    let (code, told) = found(&bq(&server, DECLARED), "bq");
    assert_eq!(code, Some(1));
    let problem = "problem: dataset acme.events is not there → CREATE SCHEMA `acme.events` OPTIONS (location = 'EU'); or let `location` and `create_table` make it";
    assert_eq!(&told[1..], [problem]);

    let (code, told) = found(&bq(&server, &format!("create_table = true\n{DECLARED}")), "bq");
    assert_eq!(code, Some(0), "{told:?}");
    assert!(
        told[1].starts_with("not known: dataset acme.events is not there: it is made in EU with the first row"),
        "{told:?}"
    );
    assert!(told[2].starts_with("not known: table acme.events.all is made together with its dataset"), "{told:?}");
    was_only_looked_at(&server);
}

#[test]
fn a_dataset_elsewhere_is_a_problem() {
    let server = BigQuery::start();
    server.create_table("acme.events.all", declared_table());
    let (code, told) = found(&bq(&server, &DECLARED.replace("\"EU\"", "\"europe-west3\"")), "bq");
    assert_eq!(code, Some(1));
    assert!(
        told[1].starts_with("problem: dataset acme.events is in EU, and the file says europe-west3 → "),
        "{told:?}"
    );
}

#[test]
fn a_table_that_is_not_there_is_a_problem_with_its_statement_unless_it_is_made() {
    let server = BigQuery::start();
    server.create_dataset("acme", "events");
    let (code, told) = found(&bq(&server, DECLARED), "bq");
    assert_eq!(code, Some(1));
    assert_eq!(
        told[2],
        "problem: table acme.events.all is not there → `create_table = true` makes it, or make it yourself:\n\
         CREATE TABLE `acme.events.all` (\n  id STRING NOT NULL,\n  timestamp TIMESTAMP\n)\n\
         PARTITION BY DATE(timestamp)\nCLUSTER BY id;"
    );

    let (code, told) = found(&bq(&server, &format!("create_table = true\n{DECLARED}")), "bq");
    assert_eq!(code, Some(0), "{told:?}");
    assert!(
        told[2].starts_with("not known: table acme.events.all is not there: it is made with the first row"),
        "{told:?}"
    );
    was_only_looked_at(&server);
    assert!(!server.has_table("acme.events.all"));
}

#[test]
fn every_way_in_which_a_table_drifts_from_the_file_is_told_with_what_to_do() {
    let server = BigQuery::start();
    let mut columns = fields(&[
        ("id", "STRING", "NULLABLE"),
        ("total", "INTEGER", "NULLABLE"),
        ("tags", "STRING", "NULLABLE"),
        ("code", "STRING", "NULLABLE"),
        ("user_id", "STRING", "REQUIRED"),
        ("tenant", "STRING", "REQUIRED"),
        ("kept", "STRING", "NULLABLE"),
    ]);
    columns[3]["maxLength"] = "5".into();
    let shop = json!({ "name": "shop", "type": "RECORD", "fields": [{ "name": "id", "type": "INTEGER" }] });
    columns.as_array_mut().unwrap().extend([shop, json!({ "name": "at", "type": "TIMESTAMP" })]);
    server.create_table(
        "acme.events.all",
        json!({
            "schema": { "fields": columns },
            "timePartitioning": { "type": "HOUR", "field": "at" },
            "clustering": { "fields": ["kept"] },
        }),
    );
    let own = "partition_by = { column = \"at\", per = \"day\" }\ncluster_by = [\"id\"]\n\
               [destinations.bq.row]\nid = \"{{ messageId }}\"\nuser_id = \"{{ userId }}\"\n\
               [destinations.bq.schema]\nid = \"STRING NOT NULL\"\ntotal = \"NUMERIC(10, 2)\"\ntags = \"ARRAY<STRING>\"\n\
               code = \"STRING(10)\"\nuser_id = \"STRING\"\nshop = \"STRUCT<id INT64, city STRING>\"\nat = \"TIMESTAMP\"\n\
               context = \"JSON\"\nseen = \"DATE NOT NULL\"\n";
    let own = own.replace("user_id = \"{{ userId }}\"\n", "user_id = \"{{ userId }}\"\nseen = \"2026-01-02\"\n");
    let output = doctor(&bq(&server, &own), &["--only", "bq"]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    insta::assert_snapshot!(timeless(&stdout(&output)).replace(&server.endpoint(), "http://ENDPOINT"));
    was_only_looked_at(&server);
}

#[test]
fn columns_that_are_added_by_themselves_are_no_problem() {
    let server = BigQuery::start();
    server.create_table("acme.events.all", json!({ "schema": { "fields": fields(&[("id", "STRING", "NULLABLE")]) } }));
    let row = "row = { id = \"{{ messageId }}\", extra = \"{{ event }}\", more = { a = 1 } }";
    let (code, told) = found(&bq(&server, row), "bq");
    assert_eq!(code, Some(1));
    assert_eq!(
        told[2],
        "problem: table acme.events.all lacks the columns `extra`, `more`, which the row gives: such rows are refused → \
         ALTER TABLE `acme.events.all` ADD COLUMN extra STRING, ADD COLUMN more STRING; -- or of whichever type they are"
    );
    let (code, told) = found(&bq(&server, &format!("schema_update = \"add_columns\"\n{row}")), "bq");
    assert_eq!(code, Some(0), "{told:?}");
    assert!(told[2].starts_with("warning: table acme.events.all lacks the columns `extra`, `more`"), "{told:?}");
    assert_eq!(told[3], "ok: table acme.events.all takes rows and columns of this account");
    was_only_looked_at(&server);
}

#[test]
fn a_service_that_says_nothing_is_asked_no_further() {
    let server = BigQuery::start();
    server.create_table("acme.events.all", declared_table());
    server.fails_next("datasets.get", [Fault::Slow(Duration::from_secs(30))]);
    let output = doctor(&bq(&server, DECLARED), &["--only", "bq", "--timeout", "1s"]);
    assert_eq!(output.status.code(), Some(1));
    let told = stdout(&output);
    assert!(told.contains("  problem    dataset acme.events nobody answers: "), "{told}");
    assert!(!told.contains("table "), "{told}");
}

#[test]
fn a_view_takes_no_rows() {
    let server = BigQuery::start();
    server.create_table("acme.events.all", declared_table());
    server.turn_into("acme.events.all", "VIEW");
    let (code, told) = found(&bq(&server, DECLARED), "bq");
    assert_eq!(code, Some(1));
    assert!(told[2].starts_with("problem: table acme.events.all is a VIEW, which takes no rows"), "{told:?}");
}

#[test]
fn an_account_that_may_not_insert_is_a_problem_and_one_that_may_not_look_is_not() {
    let server = BigQuery::start();
    server.create_table("acme.events.all", declared_table());
    server.denies("bigquery.tables.updateData");
    let (code, told) = found(&bq(&server, DECLARED), "bq");
    assert_eq!(code, Some(1));
    assert_eq!(
        told[3],
        "problem: table acme.events.all does not take rows of this account, which lacks bigquery.tables.updateData → \
         the role roles/bigquery.dataEditor on the dataset is enough"
    );

    let server = BigQuery::start();
    server.create_table("acme.events.all", declared_table());
    server.fails_often("datasets.get", 1.0, 1, &[Fault::AccessDenied]);
    server.fails_often("tables.get", 1.0, 1, &[Fault::AccessDenied]);
    let (code, told) = found(&bq(&server, DECLARED), "bq");
    assert_eq!(code, Some(0), "{told:?}");
    assert!(told[1].starts_with("not known: dataset acme.events may not be looked at: status 403: "), "{told:?}");
    assert_eq!(told[3], "ok: table acme.events.all takes rows of this account");

    server.fails_often("testIamPermissions", 1.0, 1, &[Fault::AccessDenied]);
    let (code, told) = found(&bq(&server, DECLARED), "bq");
    assert_eq!(code, Some(0), "{told:?}");
    assert!(
        told[3].starts_with("not known: table acme.events.all does not tell what this account may do: "),
        "{told:?}"
    );
    was_only_looked_at(&server);
}

#[test]
fn a_table_that_events_choose_is_not_looked_at_and_its_dataset_is() {
    let server = BigQuery::start();
    server.create_dataset("acme", "events");
    let lines = bq(&server, DECLARED).replace("table = \"all\"", "table = \"{{ type }}s\"");
    let (code, told) = found(&lines, "bq");
    assert_eq!(code, Some(0), "{told:?}");
    assert_eq!(told[1], "ok: dataset acme.events is there, in EU");
    assert_eq!(told[2], "not known: table acme.events.{{ type }}s is chosen by events: not looked at");
}

// --- HTTP

fn crm(url: &str) -> String {
    format!("[destinations.crm]\nurl = \"{url}\"\nbody = {{ id = \"{{{{ userId }}}}\" }}\n")
}

#[test]
fn a_host_is_reached_without_a_request() {
    let fake = Fake::start();
    let url = format!("{}/users/{{{{ userId }}}}", fake.url());
    let (code, told) = found(&crm(&url), "crm");
    assert_eq!(code, Some(0), "{told:?}");
    assert_eq!(timeless(&told[0]), format!("ok: {} is reached in TIME", fake.url()));
    assert!(fake.requests().is_empty());
}

#[test]
fn a_host_where_nobody_listens_is_a_problem() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, told) = found(&crm(&format!("http://{free}/in")), "crm");
    assert_eq!(code, Some(1));
    assert!(told[0].starts_with(&format!("problem: http://{free} there is no connection to {free}: ")), "{told:?}");
    let (code, told) = found(&crm("https://no-such-host.invalid/in"), "crm");
    assert_eq!(code, Some(1));
    assert!(told[0].starts_with("problem: https://no-such-host.invalid its name has no address: "), "{told:?}");
}

/// A server that speaks TLS to everybody who comes, with a certificate of its own making, which is the second part.
fn tls_server(days: i64) -> (u16, String, Arc<Mutex<Vec<u8>>>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let end = (Clock::system().now() + SignedDuration::from_hours(24 * days)).to_zoned(TimeZone::UTC);
    let number = |part: i8| u8::try_from(part).unwrap();
    parameters.not_after = rcgen::date_time_ymd(end.year().into(), number(end.month()), number(end.day()));
    let certificate = parameters.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], der).unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let log = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let mut bytes = Vec::new();
            let _ = std::io::Read::read_to_end(&mut stream, &mut bytes);
            log.lock().unwrap().extend(bytes);
        }
    });
    (port, certificate.pem(), heard)
}

#[test]
fn a_certificate_of_an_unknown_ca_is_a_problem_and_one_of_a_known_ca_tells_its_end() {
    let (port, pem, heard) = tls_server(90);
    let lines = crm(&format!("https://localhost:{port}/in"));
    let (code, told) = found(&lines, "crm");
    assert_eq!(code, Some(1));
    assert!(told[0].starts_with(&format!("problem: https://localhost:{port} TLS cannot be agreed on: ")), "{told:?}");
    assert!(told[0].contains("UnknownIssuer") && told[0].contains("SSL_CERT_FILE"), "{told:?}");

    let trusting = |pem: &str, lines: &str| {
        let folder = folder(lines);
        std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
        let mut command = command(folder.path(), &["doctor", "--only", "crm"]);
        stdout(&command.env("SSL_CERT_FILE", folder.path().join("ca.pem")).output().unwrap())
    };
    let told = trusting(&pem, &lines);
    assert!(told.contains(&format!("  ok         https://localhost:{port} is reached in ")), "{told}");
    assert!(told.contains("its certificate is good until 20"), "{told}");
    assert!(heard.lock().unwrap().is_empty(), "no request is made");

    let (port, pem, _) = tls_server(3);
    let told = trusting(&pem, &crm(&format!("https://localhost:{port}/in")));
    assert!(told.contains("  warning    https://localhost:") && told.contains("its certificate ends on 20"), "{told}");
}

/// A proxy that answers every `CONNECT` so, and then joins the two; `None`: with a refusal.
fn proxy(to: Option<u16>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
            let lines = std::io::BufRead::lines(&mut reader).map_while(Result::ok).take_while(|line| !line.is_empty());
            log.lock().unwrap().extend(lines.collect::<Vec<_>>());
            let mut stream = stream;
            match to {
                None => stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").unwrap(),
                Some(port) => {
                    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
                    let there = TcpStream::connect(("127.0.0.1", port)).unwrap();
                    let (mut from, mut into) = (there.try_clone().unwrap(), stream.try_clone().unwrap());
                    std::thread::spawn(move || std::io::copy(&mut from, &mut into));
                    let mut there = there;
                    let _ = std::io::copy(&mut reader, &mut there);
                }
            }
        }
    });
    (port, heard)
}

#[test]
fn a_host_is_reached_through_the_proxy_that_requests_go_through() {
    let (port, pem, _) = tls_server(90);
    let through = |proxy: u16| {
        let folder = folder(&crm(&format!("https://localhost:{port}/in")));
        std::fs::write(folder.path().join("ca.pem"), &pem).unwrap();
        let mut command = command(folder.path(), &["doctor", "--only", "crm"]);
        command.env("HTTPS_PROXY", format!("http://user:hidden-word@127.0.0.1:{proxy}")).env_remove("NO_PROXY");
        command.env_remove("no_proxy").env("SSL_CERT_FILE", folder.path().join("ca.pem"));
        stdout(&command.output().unwrap())
    };
    let (joining, heard) = proxy(Some(port));
    let told = through(joining);
    assert!(
        told.contains(&format!("ok         https://localhost:{port} through the proxy 127.0.0.1:{joining} is reached")),
        "{told}"
    );
    assert_eq!(heard.lock().unwrap()[0], format!("CONNECT localhost:{port} HTTP/1.1"));
    assert!(heard.lock().unwrap().contains(&"Proxy-Authorization: Basic dXNlcjpoaWRkZW4td29yZA==".to_owned()));

    let (refusing, _) = proxy(None);
    let told = through(refusing);
    assert!(told.contains("does not let us through: HTTP/1.1 403 Forbidden"), "{told}");
    assert!(!told.contains("hidden-word"), "{told}");
}

#[test]
fn credentials_that_go_with_events_are_not_known_to_be_good_and_tokens_are() {
    let fake = Fake::start();
    let (code, told) = found(&format!("{}auth = {{ bearer = \"the-secret-key\" }}\n", crm(&fake.url())), "crm");
    assert_eq!(code, Some(0));
    assert!(told[0].starts_with("not known: credentials go with events alone"), "{told:?}");
    assert!(fake.requests().is_empty());

    let oauth2 = |tokens: &Fake| {
        let auth = format!(
            "token_url = \"{}/token?key=query-secret\"\nclient_id = \"id\"\nclient_secret = \"the-secret-key\"",
            tokens.url()
        );
        format!("{}[destinations.crm.auth.oauth2]\n{auth}\n", crm(&fake.url()))
    };
    let good = Fake::start();
    good.then_always(Answer::status(200).body("{\"access_token\":\"the-token\"}"));
    let (code, told) = found(&oauth2(&good), "crm");
    assert_eq!(code, Some(0), "{told:?}");
    assert!(told[0].starts_with("ok: credentials are good: ") && !told[0].contains("query-secret"), "{told:?}");
    let bad = Fake::start();
    bad.then_always(
        Answer::status(401).body("{\"error\":\"invalid_client\",\"error_description\":\"not the-secret-key\"}"),
    );
    let (code, told) = found(&oauth2(&bad), "crm");
    assert_eq!(code, Some(1));
    assert!(told[0].contains(&format!("are refused: asking {}/token for a token: status 401", bad.url())), "{told:?}");
    assert!(!told[0].contains("the-secret-key") && !told[0].contains("query-secret"), "{told:?}");
    assert!(told[1].starts_with("ok: http://127.0.0.1:"), "the host is reached all the same: {told:?}");
    assert!(fake.requests().is_empty());
}

#[test]
fn one_that_hangs_holds_nobody_else_up_and_ends_in_time() {
    let fake = Fake::start();
    // It accepts in the kernel and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().map(|address| (silent, address)).unwrap();
    let lines =
        format!("[destinations.slow]\nurl = \"https://{}/in\"\nbody = {{ a = 1 }}\n{}", silent.1, crm(&fake.url()));
    let folder = folder(&lines);
    let began = Instant::now();
    let mut child =
        command(folder.path(), &["doctor", "--timeout", "3s"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut told = String::new();
    while !told.contains("crm (http)\n") || !told.contains("is reached") {
        assert!(std::io::BufRead::read_line(&mut reader, &mut told).unwrap() > 0, "{told}");
    }
    assert!(began.elapsed() < Duration::from_secs(3), "it is told before the other one is over");
    std::io::Read::read_to_string(&mut reader, &mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(told.contains("there is not TLS within 3s"), "{told}");
    assert!(told.ends_with("libroseg.toml: 1 problem\n"), "{told}");
}

// --- the machine

#[test]
fn files_queue_and_door_are_looked_at_and_left_as_they_are() {
    let folder = folder(
        "[destinations.out]\ntype = \"stdout\"\n[destinations.archive]\ntype = \"file\"\npath = \"a/b/%Y.ndjson\"\n\
         [destinations.blocked]\ntype = \"file\"\npath = \"libroseg.toml/x.ndjson\"\n",
    );
    let path = folder.path().join("libroseg.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace("type = \"memory\"", "dir = \"q\"\nmax_size = \"16MB\"");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::write(&path, text.replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string())).unwrap();
    let output = command(folder.path(), &["doctor", "--timeout", "1s"]).output().unwrap();
    let told = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for line in [
        format!("  problem    address {} is taken by somebody else", taken.local_addr().unwrap()),
        "  ok         folder q can be made".to_owned(),
        "  ok         the disk of q has room for ".to_owned(),
        "  ok         standard output is always there".to_owned(),
        "  problem    file libroseg.toml/x.ndjson cannot be made: libroseg.toml is no folder".to_owned(),
    ] {
        assert!(told.contains(&line), "{line}\n{told}");
    }
    assert!(told.contains("  ok         file a/b/20") && told.contains(".ndjson can be made\n"), "{told}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is made");
}

#[test]
fn an_address_where_libroseg_serves_already_is_in_order() {
    let served = folder("[destinations.out]\ntype = \"stdout\"\n");
    let path = served.path().join("libroseg.toml");
    let binary = Binary::start(&path);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("127.0.0.1:0", binary.url.trim_start_matches("http://"))).unwrap();
    let output = command(served.path(), &["doctor"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert!(
        stdout(&output).contains("is a running service's that is healthy: a libroseg, it seems"),
        "{}",
        stdout(&output)
    );
}

// --- the command

#[test]
fn the_check_looks_as_well_when_it_is_told_to() {
    let fake = Fake::start();
    let right = folder(&crm(&fake.url()));
    let run = |folder: &TempDir, arguments: &[&str]| command(folder.path(), arguments).output().unwrap();
    let checked = run(&right, &["--check", "--online", "--only", "crm"]);
    let doctored = run(&right, &["doctor", "-d", "crm"]);
    assert_eq!((checked.status.code(), doctored.status.code()), (Some(0), Some(0)));
    let (checked, doctored) = (timeless(&stdout(&checked)), timeless(&stdout(&doctored)));
    assert!(checked.starts_with("note[may-repeat]: ") && doctored.starts_with("libroseg.toml: ok, "), "{doctored}");
    let online = doctored.split_once('\n').unwrap().1;
    assert!(online.contains("is reached in TIME") && checked.ends_with(online), "{checked}");

    let wrong = folder("[destinations.crm]\nurk = 1\n");
    let output = run(&wrong, &["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("unknown key `urk`") && !stdout(&output).contains("[server]"),
        "{}",
        stdout(&output)
    );
    for (arguments, code) in [
        (&["doctor", "absent.toml"][..], 2),
        (&["doctor", "--only", "crn"], 2),
        (&["doctor", "--timeout", "0s"], 2),
        (&["check", "--timeout", "1s"], 2),
        (&["check", "--online", "--assume-env"], 2),
        (&["check", "--online", "--format", "sarif"], 2),
    ] {
        assert_eq!(run(&right, arguments).status.code(), Some(code), "{arguments:?}");
    }
    let output = run(&right, &["doctor", "--only", "crn"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean `crm`?"));
    assert!(fake.requests().is_empty());
}
