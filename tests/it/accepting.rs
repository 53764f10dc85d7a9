//! What the door takes, what it turns away, and in which words: real sockets, exact answers.

mod support;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::{Compress, Compression, FlushCompress};
use libroseg::event::Kind;
use libroseg::ingest::{Script, ServeOptions, Settings, Tls, TlsError};
use libroseg::queue::AppendError;
use libroseg::segment::{DiscardCode, Limits, UnknownKey};
use serde_json::{Value, json};

use support::{Line, NEVER, Setup, TestDoor, request};

/// A message that every one of the six calls accepts, by key `key`.
const MESSAGE: &str =
    r#"{"type":"track","writeKey":"key","userId":"u","event":"E","groupId":"g","previousId":"p","messageId":"m"}"#;

/// Authorization of the sources `web`, `server` and of nobody.
const WEB: (&str, &str) = ("Authorization", "Basic a2V5Og==");
const SERVER: (&str, &str) = ("Authorization", "Basic b3RoZXI6");
const NOBODY: (&str, &str) = ("Authorization", "Basic bm9ib2R5Og==");

fn batch(messages: &[&str]) -> String {
    format!(r#"{{"writeKey":"key","batch":[{}]}}"#, messages.join(","))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn chunked(bytes: &[u8], size: usize) -> Vec<u8> {
    let chunk = |chunk: &[u8]| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
    let mut text = bytes.chunks(size).flat_map(chunk).collect::<Vec<u8>>();
    text.extend_from_slice(b"0\r\n\r\n");
    text
}

// --- paths

#[tokio::test]
async fn every_path_and_alias_takes_its_kind_of_message() {
    let calls = [
        ("track", "t", Kind::Track),
        ("identify", "i", Kind::Identify),
        ("page", "p", Kind::Page),
        ("screen", "s", Kind::Screen),
        ("group", "g", Kind::Group),
        ("alias", "a", Kind::Alias),
    ];
    for (long, short, kind) in calls {
        let door = TestDoor::start().await;
        for path in [format!("/v1/{long}"), format!("/v1/{short}"), format!("//v1/{long}/"), format!("/v1//{short}//")]
        {
            door.post(&path, &[], MESSAGE).await.accepted();
        }
        let kinds: Vec<Kind> = door.queue.events().iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [kind; 4], "{long}");
        assert_eq!(door.queue.messages()[0]["type"], json!(kind.as_str()), "the path decides, not the body");
    }
}

#[tokio::test]
async fn every_batch_path_and_alias_takes_a_batch() {
    let paths = [
        "/v1/batch",
        "/v1/b",
        "/v1/import",
        "/v1/import/",
        "//v1/batch",
        "/v1/batch/",
        "/b",
        "/batch",
        "/batch/b",
        "/v1/batch/b",
        "/beacon/v1/batch?writeKey=key",
    ];
    let door = TestDoor::start().await;
    for (index, path) in paths.into_iter().enumerate() {
        let answer = door.post(path, &[("Content-Type", "text/plain")], batch(&[MESSAGE, MESSAGE])).await;
        answer.accepted();
        assert_eq!(answer.header("x-libroseg-ack"), Some("durable"), "{path}");
        assert_eq!(door.queue.events().len(), 2 * (index + 1), "{path}");
    }
}

#[tokio::test]
async fn an_unknown_path_is_told_in_json() {
    let door = TestDoor::start().await;
    for path in
        ["/", "/v1", "/v1/", "/v1/tracks", "/v2/track", "/v1/pixel/tracks", "/V1/track", "/v1/projects/settings"]
    {
        door.post(path, &[WEB], MESSAGE).await.refused(404, "not_found", "nothing at this path");
        door.get(path).await.refused(404, "not_found", "nothing at this path");
    }
}

#[tokio::test]
async fn a_wrong_method_hears_the_right_ones() {
    let door = TestDoor::start().await;
    let cases = [
        ("GET", "/v1/track", "POST, OPTIONS"),
        ("PUT", "/v1/batch", "POST, OPTIONS"),
        ("DELETE", "/v1/m", "POST, OPTIONS"),
        ("POST", "/v1/pixel/track", "GET, HEAD, OPTIONS"),
        ("POST", "/v1/projects/key/settings", "GET, HEAD, OPTIONS"),
        ("POST", "/analytics.js/v1/key/analytics.min.js", "GET, HEAD, OPTIONS"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("PATCH", "/ready", "GET, HEAD, OPTIONS"),
    ];
    for (method, path, methods) in cases {
        let answer = door.ask(method, path, &[], b"").await;
        answer.refused(405, "method_not_allowed", methods);
        assert_eq!(answer.header("allow"), Some(methods), "{method} {path}");
    }
}

#[tokio::test]
async fn head_hears_what_get_would_and_leaves_no_event() {
    let door = TestDoor::start().await;
    for path in ["/health", "/ready", "/v1/projects/key/settings", "/v1/pixel/track?writeKey=key&userId=u&event=E"] {
        let head = door.ask("HEAD", path, &[], b"").await;
        assert_eq!(head.status, 200, "{path}");
        assert!(door.queue.events().is_empty());
        let get = door.get(path).await;
        assert_eq!(head.header("content-length"), Some(get.body.len().to_string().as_str()), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
}

// --- write keys

/// Path, headers, body; and the source found, or the words of the refusal.
type KeyCase<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);

#[tokio::test]
async fn a_write_key_is_found_in_header_body_query_and_own_header_in_this_order() {
    let with = |key: &str| format!(r#"{{"userId":"u","event":"E"{key}}}"#);
    let bare = with("");
    let in_body = with(r#","writeKey":"key""#);
    let unknown_in_body = with(r#","writeKey":"nobody""#);
    let own = ("X-Write-Key", "key");
    let own_other = ("X-Write-Key", "other");
    let bearer = ("Authorization", "Bearer a2V5Og==");
    let taken: &[KeyCase] = &[
        ("/v1/t", &[WEB], &bare, "web"),
        ("/v1/t", &[("Authorization", "Basic a2V5")], &bare, "web"),
        ("/v1/t", &[("authorization", "basic a2V5Og")], &bare, "web"),
        ("/v1/t", &[SERVER], &in_body, "server"),
        ("/v1/t", &[SERVER], &unknown_in_body, "server"),
        ("/v1/t", &[bearer], &in_body, "web"),
        ("/v1/t", &[("Authorization", "Basic ???")], &in_body, "web"),
        ("/v1/t", &[("Authorization", "Basic Og==")], &in_body, "web"),
        ("/v1/t", &[], &in_body, "web"),
        ("/v1/t?writeKey=other", &[own_other], &in_body, "web"),
        ("/v1/t?writeKey=other", &[], &bare, "server"),
        ("/v1/t?writeKey=other", &[own], &bare, "server"),
        ("/v1/t", &[own], &bare, "web"),
    ];
    for (path, headers, body, source) in taken {
        let door = TestDoor::start().await;
        door.post(path, headers, body).await.accepted();
        let events = door.queue.events();
        assert_eq!(events[0].source.as_str(), *source, "{path} {headers:?} {body}");
        assert_eq!(door.queue.messages()[0].get("writeKey"), None, "a key is no part of an event");
    }
    let door = TestDoor::start().await;
    let refused: &[KeyCase] = &[
        ("/v1/t", &[NOBODY], &in_body, "unknown write key"),
        ("/v1/t", &[], &unknown_in_body, "unknown write key"),
        ("/v1/t?writeKey=key", &[], &unknown_in_body, "unknown write key"),
        ("/v1/t?writeKey=nobody", &[own], &bare, "unknown write key"),
        ("/v1/t", &[], &bare, "no write key"),
        ("/v1/t", &[bearer], &bare, "no write key"),
        ("/v1/t?writeKey=", &[("X-Write-Key", "")], &bare, "no write key"),
    ];
    for (path, headers, body, words) in refused {
        door.post(path, headers, body).await.refused(400, "invalid_write_key", words);
    }
    assert!(door.queue.events().is_empty());
    assert_eq!(door.counts().unknown_keys, refused.len() as u64);
}

#[tokio::test]
async fn a_batch_names_its_key_outside_or_in_its_messages() {
    let door = TestDoor::start().await;
    let bare = r#"{"type":"track","userId":"u","event":"E"}"#;
    door.post("/v1/b", &[], format!(r#"{{"batch":[{bare}],"writeKey":"other"}}"#)).await.accepted();
    door.post("/v1/b", &[], format!(r#"{{"batch":[{bare},{MESSAGE}]}}"#)).await.accepted();
    let sources: Vec<String> = door.queue.events().iter().map(|event| event.source.to_string()).collect();
    assert_eq!(sources, ["server", "web", "web"]);
}

#[tokio::test]
async fn an_unknown_key_is_accepted_and_discarded_where_the_file_says_so() {
    let mut setup = Setup::default();
    setup.policy.unknown_key = UnknownKey::Accept;
    let door = setup.start().await;
    let answer = door.post("/v1/t", &[NOBODY], MESSAGE).await;
    answer.accepted();
    assert_eq!(answer.header("x-libroseg-ack"), None, "nothing was kept");
    door.post("/v1/t", &[], r#"{"userId":"u","event":"E"}"#).await.accepted();
    assert!(door.queue.events().is_empty());
    assert_eq!(door.counts().unknown_keys, 2);
}

#[tokio::test]
async fn a_disabled_source_is_accepted_and_discarded() {
    let door = TestDoor::start().await;
    let body = format!(r#"{{"writeKey":"off","batch":[{MESSAGE},{MESSAGE}]}}"#);
    door.post("/v1/batch", &[], body).await.accepted();
    assert!(door.queue.events().is_empty());
    assert_eq!(door.counts().discards[&DiscardCode::SourceDisabled], 2);
}

#[tokio::test]
async fn a_reloaded_policy_counts_from_the_next_request_on() {
    let door = TestDoor::start().await;
    let mut line = Line::open(door.address).await;
    line.send(&request("POST", "/v1/t", &[], MESSAGE.as_bytes())).await;
    line.answer().await.accepted();
    door.policy.rcu(|policy| {
        let mut policy = (**policy).clone();
        policy.sources.remove("key");
        policy
    });
    line.send(&request("POST", "/v1/t", &[], MESSAGE.as_bytes())).await;
    line.answer().await.refused(400, "invalid_write_key", "unknown");
}

// --- bodies

#[tokio::test]
async fn any_content_type_will_do() {
    let door = TestDoor::start().await;
    let types = ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8", "nonsense"];
    for content_type in types {
        door.post("/v1/t", &[("Content-Type", content_type)], MESSAGE).await.accepted();
    }
    door.post("/v1/t", &[], MESSAGE).await.accepted();
    assert_eq!(door.queue.events().len(), types.len() + 1);
}

#[tokio::test]
async fn a_body_is_decoded_by_its_encoding() {
    let plain = r#"{"type":"track","writeKey":"key","userId":"u","event":"E"}"#.as_bytes();
    // Made with Node's zlib.brotliCompressSync and `zstd -19`.
    let br = "GzkA4C0OzFP2TkK7XLQUT6ck2+vrojW6OsWi0yJlSXA7T6RsKWzAAXOiTZjbvTilVJq8ChyO7iIP8o6GC8Q=";
    let zstd = "KLUv/QRonQEAosMLEaBtDHxuufUEpDXWXXzj/och87De0r4d7NaNWMvc4LhoPe7YdhYcjApZbX1VbMsAEQUYsw==";
    let cases: &[(&[&str], Vec<u8>)] = &[
        (&["identity"], plain.to_vec()),
        (&[""], plain.to_vec()),
        (&["gzip"], gzip(plain)),
        (&["GZip"], gzip(plain)),
        (&["x-gzip"], gzip(plain)),
        (&["deflate"], zlib(plain)),
        (&["br"], STANDARD.decode(br).unwrap()),
        (&["zstd"], STANDARD.decode(zstd).unwrap()),
        (&["identity, gzip"], gzip(plain)),
        (&["deflate, gzip"], gzip(&zlib(plain))),
        (&["deflate", "gzip"], gzip(&zlib(plain))),
    ];
    let door = TestDoor::start().await;
    for (encodings, body) in cases {
        let encodings: Vec<_> = encodings.iter().map(|encoding| ("Content-Encoding", *encoding)).collect();
        door.post("/v1/t", &encodings, body).await.accepted();
        let in_chunks = [&encodings[..], &[("Transfer-Encoding", "chunked")]].concat();
        door.post("/v1/track", &in_chunks, chunked(body, 7)).await.accepted();
    }
    assert_eq!(door.queue.events().len(), 2 * cases.len());
}

#[tokio::test]
async fn a_body_that_is_not_what_its_encoding_says_is_refused() {
    let whole = gzip(MESSAGE.as_bytes());
    let cases: &[(&str, &[u8], &str)] = &[
        ("gzip", MESSAGE.as_bytes(), "not valid gzip"),
        ("gzip", &whole[..whole.len() / 2], "not valid gzip"),
        ("gzip", &[&whole[..whole.len() - 8], &[0; 8]].concat(), "not valid gzip"),
        ("deflate", b"\x78\x9cnonsense", "not valid deflate"),
        ("br", b"\xff\xff\xff\xff", "not valid br"),
        ("zstd", b"nonsense", "not valid zstd"),
        ("deflate, gzip", &whole, "not valid deflate"),
        ("compress", b"x", "content encoding"),
        ("gzip, gzip, gzip", &whole, "content encoding"),
    ];
    let door = TestDoor::start().await;
    for (encoding, body, words) in cases {
        let answer = door.post("/v1/t", &[("Content-Encoding", encoding)], body).await;
        answer.refused(400, "invalid_request", words);
    }
    assert!(door.queue.events().is_empty());
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_and_one_at_it_is_not() {
    let mut setup = Setup::default();
    setup.policy.limits = Limits { event_bytes_max: 200, batch_bytes_max: 400, batch_events_max: 10 };
    let door = setup.start().await;
    let padded = |body: &str, size: usize| format!("{body}{}", " ".repeat(size - body.len())).into_bytes();
    let twice = batch(&[MESSAGE, MESSAGE]);
    let gzipped: &[(&str, &str)] = &[("Content-Encoding", "gzip")];
    let in_chunks: &[(&str, &str)] = &[("Transfer-Encoding", "chunked")];
    for (path, body, limit) in [("/v1/t", MESSAGE, 200), ("/v1/b", &twice, 400)] {
        let (fits, too_large) = (padded(body, limit), padded(body, limit + 1));
        door.post(path, &[], &fits).await.accepted();
        door.post(path, in_chunks, chunked(&fits, 50)).await.accepted();
        door.post(path, gzipped, gzip(&fits)).await.accepted();
        let words = format!("Exceed payload limit: the body is larger than the {limit} bytes");
        door.post(path, &[], &too_large).await.refused(400, "invalid_request", &words);
        door.post(path, in_chunks, chunked(&too_large, 50)).await.refused(400, "invalid_request", &words);
        door.post(path, gzipped, gzip(&too_large)).await.refused(400, "invalid_request", &words);
    }
}

#[tokio::test]
async fn a_sender_of_too_much_is_heard_out_so_that_it_hears_the_answer() {
    let door = TestDoor::start().await;
    let mut line = Line::open(door.address).await;
    // RudderStack's Python SDK makes batches of up to 4 MB.
    line.send(&request("POST", "/v1/batch", &[], &vec![b' '; 4 << 20])).await;
    line.answer().await.refused(400, "invalid_request", "Exceed payload limit");
    line.send(&request("POST", "/v1/t", &[], MESSAGE.as_bytes())).await;
    line.answer().await.accepted();
}

#[tokio::test]
async fn a_sender_that_asks_first_is_spared_sending_too_much() {
    let door = TestDoor::start().await;
    let mut line = Line::open(door.address).await;
    line.send(b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4000000\r\n\r\n").await;
    line.answer().await.refused(400, "invalid_request", "Exceed payload limit");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_gzip_bomb_costs_its_limit_and_no_more() {
    /// The most memory this process ever had, in KiB.
    fn peak_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
    let door = TestDoor::start().await;
    let before = peak_kib();
    for path in ["/v1/t", "/v1/batch", "/v1/m"] {
        let answer = door.post(path, &[("Content-Encoding", "gzip")], bomb(400)).await;
        answer.refused(400, "invalid_request", "Exceed payload limit");
    }
    let grown = peak_kib() - before;
    assert!(grown < 100 * 1024, "three bombs of 400 MiB took {grown} KiB");
    assert_eq!(door.door.bodies().bytes(), 0);
}

/// The beginning of a gzip file that would be so many MiB of spaces, some kilobyte for each.
fn bomb(mib: usize) -> Vec<u8> {
    let mut compress = Compress::new(Compression::fast(), false);
    let mut block = Vec::with_capacity(64 * 1024);
    // A full flush forgets what came before, so the block may be repeated.
    compress.compress_vec(&vec![b' '; 1 << 20], &mut block, FlushCompress::Full).unwrap();
    [b"\x1f\x8b\x08\0\0\0\0\0\0\xff".as_slice(), &block.repeat(mib)].concat()
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_with_its_connection() {
    let settings = Settings { body_timeout: Duration::from_millis(50), ..Settings::default() };
    let door = Setup { settings, ..Setup::default() }.start().await;
    let head = "POST /v1/batch HTTP/1.1\r\nHost: x\r\n";
    let starts =
        ["Content-Length: 1000\r\n\r\n{\"batch\":[", "Transfer-Encoding: chunked\r\n\r\na\r\n{\"batch\":[\r\n"];
    for start in starts {
        let mut line = Line::open(door.address).await;
        line.send(format!("{head}{start}").as_bytes()).await;
        let answer = line.answer().await;
        answer.refused(503, "body_timeout", "did not arrive in time");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(answer.header("retry-after").is_some());
        assert!(line.is_closed().await);
        assert_eq!(door.door.bodies().bytes(), 0);
    }
}

#[tokio::test]
async fn a_sender_that_leaves_in_the_middle_leaves_nothing_behind() {
    let door = TestDoor::start().await;
    let mut line = Line::open(door.address).await;
    line.send(b"POST /v1/t HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"userId\"").await;
    drop(line);
    while door.counts().answers[3] == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(door.door.bodies().bytes(), 0);
    assert!(door.queue.events().is_empty());
}

#[tokio::test]
async fn all_bodies_together_have_a_bound() {
    let settings = Settings { bodies_bytes_max: MESSAGE.len() + 10, ..Settings::default() };
    let door = Setup { settings, ..Setup::default() }.start_stuck().await;
    let mut first = Line::open(door.address).await;
    first.send(&request("POST", "/v1/t", &[], MESSAGE.as_bytes())).await;
    door.queue.begun.acquire().await.unwrap().forget();
    let second = door.post("/v1/t", &[], MESSAGE).await;
    second.refused(503, "too_many_requests", "too many requests");
    assert_eq!(second.header("retry-after"), second.header("x-ratelimit-reset"));
    door.queue.let_one_pass();
    first.answer().await.accepted();
    assert_eq!(door.door.bodies().bytes(), 0);
}

// --- lenient where Segment is, refusing where Segment is (docs/wire-contract.md)

#[tokio::test]
async fn a_body_that_is_no_message_is_refused() {
    let long = format!(r#"{{"writeKey":"key","userId":"u","event":"{}"}}"#, "x".repeat(33 * 1024));
    let cases: &[(&str, &str)] = &[
        ("/v1/t", ""),
        ("/v1/t", "   "),
        ("/v1/t", "{"),
        ("/v1/t", r#"{"userId""#),
        ("/v1/t", "not json"),
        ("/v1/t", "[]"),
        ("/v1/t", "null"),
        ("/v1/t", r#""text""#),
        ("/v1/t", &long),
        ("/v1/batch", ""),
        ("/v1/batch", "{"),
        ("/v1/batch", "{}"),
        ("/v1/batch", "7"),
    ];
    let door = TestDoor::start().await;
    for (path, body) in cases {
        let answer = door.post(path, &[WEB], body).await;
        assert_eq!(answer.status, 400, "{path} {body:.80}");
        let body = answer.json();
        assert_eq!(body["code"], json!("invalid_request"));
        assert!(body["message"].is_string());
    }
    assert!(door.queue.events().is_empty());
}

#[tokio::test]
async fn a_message_that_cannot_be_used_is_discarded_after_a_200() {
    let cases: &[(&str, &str, DiscardCode)] = &[
        ("/v1/track", r#"{"event":"E"}"#, DiscardCode::NoUserAnonId),
        ("/v1/track", r#"{"userId":"","anonymousId":null,"event":"E"}"#, DiscardCode::NoUserAnonId),
        ("/v1/track", r#"{"userId":"u"}"#, DiscardCode::EventNotDefined),
        ("/v1/track", r#"{"userId":"u","event":""}"#, DiscardCode::EventNotDefined),
        ("/v1/track", r#"{"userId":"u","event":7}"#, DiscardCode::EventNotString),
        ("/v1/track", r#"{"userId":{},"event":"E"}"#, DiscardCode::IdNotString),
        ("/v1/track", r#"{"userId":"u","event":"E","properties":"x"}"#, DiscardCode::PropertiesNotObject),
        ("/v1/identify", r#"{"userId":"u","traits":[1]}"#, DiscardCode::TraitsNotObject),
        ("/v1/page", r#"{"userId":"u","name":7}"#, DiscardCode::NameNotString),
        ("/v1/screen", r#"{"userId":"u","category":{}}"#, DiscardCode::CategoryNotString),
        ("/v1/group", r#"{"userId":"u"}"#, DiscardCode::IdRequired),
        ("/v1/batch", r#"{"batch":[]}"#, DiscardCode::EmptyBatch),
        ("/v1/batch", r#"{"batch":[{"type":"dance","userId":"u"}]}"#, DiscardCode::InvalidType),
        ("/v1/batch", r#"{"batch":[7]}"#, DiscardCode::BadRequest),
    ];
    for (path, body, code) in cases {
        let door = TestDoor::start().await;
        door.post(path, &[WEB], body).await.accepted();
        assert!(door.queue.events().is_empty(), "{body}");
        let discards: Vec<_> = door.counts().discards.into_iter().collect();
        assert_eq!(discards, [(*code, 1)], "{body}");
    }
}

#[tokio::test]
async fn the_rest_of_a_batch_is_kept_when_one_message_is_bad() {
    let door = TestDoor::start().await;
    let oversize = format!(r#"{{"type":"track","userId":"u","event":"{}"}}"#, "x".repeat(33 * 1024));
    let bad = ["7", "null", r#"{"type":"track"}"#, &oversize];
    for message in bad {
        door.post("/v1/batch", &[], batch(&[MESSAGE, message, MESSAGE])).await.accepted();
    }
    assert_eq!(door.queue.events().len(), 2 * bad.len());
    assert_eq!(door.counts().accepted, 2 * bad.len() as u64);
    assert_eq!(door.counts().discards.values().sum::<u64>(), bad.len() as u64);
}

#[tokio::test]
async fn messages_beyond_the_most_a_batch_may_hold_are_discarded() {
    let mut setup = Setup::default();
    setup.policy.limits.batch_events_max = 2;
    let door = setup.start().await;
    door.post("/v1/batch", &[], batch(&[MESSAGE; 5])).await.accepted();
    assert_eq!(door.queue.events().len(), 2);
    assert_eq!(door.counts().discards.values().sum::<u64>(), 3);
}

#[tokio::test]
async fn fields_we_do_not_know_are_kept() {
    let door = TestDoor::start().await;
    let body = r#"{"userId":"u","event":"E","email":"a@b.c","_metadata":{"bundled":["X"]},"":1,"a.b":2,"$x":3,"🛒":4}"#;
    door.post("/v1/track", &[WEB], body).await.accepted();
    let message = &door.queue.messages()[0];
    assert_eq!(message["email"], json!("a@b.c"));
    assert_eq!(message["_metadata"], json!({"bundled": ["X"]}));
    assert_eq!(
        (&message[""], &message["a.b"], &message["$x"], &message["🛒"]),
        (&json!(1), &json!(2), &json!(3), &json!(4))
    );
}

#[tokio::test]
async fn strict_mode_refuses_with_every_problem_and_keeps_nothing() {
    let mut setup = Setup::default();
    setup.policy.strict = true;
    let door = setup.start().await;
    let answer = door.post("/v1/track", &[WEB], r#"{"userId":"u","messageId":"m1"}"#).await;
    answer.refused(400, "invalid_request", "event");
    assert_eq!(answer.json()["error"], json!("Invalid payload"));
    assert_eq!(answer.json()["details"][0]["code"], json!("event_not_defined"));
    assert_eq!(answer.json()["details"][0]["messageId"], json!("m1"));

    let answer = door.post("/v1/batch", &[], batch(&[MESSAGE, r#"{"type":"track"}"#, "7"])).await;
    let indexes: Vec<Value> =
        answer.json()["details"].as_array().unwrap().iter().map(|detail| detail["index"].clone()).collect();
    assert_eq!((answer.status, indexes), (400, vec![json!(1), json!(2)]));
    assert!(door.queue.events().is_empty());

    door.post("/v1/batch", &[], batch(&[MESSAGE])).await.accepted();
    assert_eq!(door.queue.events().len(), 1);
}

// --- what real SDKs send that serde_json refuses (docs/wire-contract.md)

#[tokio::test]
async fn what_sdks_really_send_is_read() {
    let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
    let cases: &[(&str, &str)] = &[
        ("a lone surrogate", r#""\ud83d""#),
        ("NaN", "NaN"),
        ("infinity", "[Infinity,-Infinity]"),
        ("a number too large for a float", "1e400"),
        ("an integer of thirty digits", "123456789012345678901234567890"),
        ("a deep object", &deep),
        ("a zero byte", r#""\u0000""#),
    ];
    let door = TestDoor::start().await;
    for (what, value) in cases {
        let odd = format!(r#"{{"type":"track","userId":"u","event":"E","properties":{{"x":{value}}}}}"#);
        door.post("/v1/track", &[WEB], &odd).await.accepted();
        door.post("/v1/batch", &[], batch(&[MESSAGE, &odd])).await.accepted();
        let events = door.queue.events();
        assert!(events.iter().all(|event| event.open().is_ok()), "{what}: every event can be opened");
    }
    assert_eq!(door.queue.events().len(), 3 * cases.len(), "{:?}", door.counts());
}

#[tokio::test]
async fn what_surrounds_a_body_is_no_part_of_it() {
    let door = TestDoor::start().await;
    let bodies = [format!("\u{feff}{MESSAGE}"), format!("{MESSAGE}\0\0\0"), format!("\r\n {MESSAGE} \n")];
    for body in bodies {
        door.post("/v1/t", &[], body).await.accepted();
    }
    assert_eq!(door.queue.events().len(), 3);
    let twice = format!("{0}{0}", batch(&[MESSAGE]));
    door.post("/v1/b", &[], twice).await.accepted();
    assert_eq!(door.queue.events().len(), 5);
}

#[tokio::test]
async fn broken_utf_8_does_not_cost_the_batch() {
    let door = TestDoor::start().await;
    let odd = b"{\"type\":\"track\",\"userId\":\"u\",\"event\":\"E\xff\xfe\"}";
    let body = [b"{\"writeKey\":\"key\",\"batch\":[", odd.as_slice(), b",", MESSAGE.as_bytes(), b"]}"].concat();
    door.post("/v1/b", &[], body).await.accepted();
    assert_eq!(door.queue.events().len(), 2);
}

#[tokio::test]
async fn every_recorded_request_of_an_sdk_is_understood() {
    let mut files = 0;
    for file in std::fs::read_dir("tests/fixtures/captures").unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        files += 1;
        let recording: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let door = recorded_door().start().await;
        for recorded in recording["requests"].as_array().unwrap() {
            let answer = replay(&door, recorded).await;
            let status = if recorded["method"] == "OPTIONS" { 204 } else { 200 };
            assert_eq!(answer.status, status, "{} {}", file.display(), recorded["path"]);
        }
        let sent = recording["results"][0]["counts"]["sent"].as_u64().unwrap();
        assert_eq!((door.counts().accepted, door.counts().discards.len()), (sent, 0), "{}", file.display());
    }
    assert_eq!(files, 8);
}

/// A door for the recordings: their write key, and a browser SDK to serve.
fn recorded_door() -> Setup {
    let mut setup = Setup::default();
    let web = Arc::clone(&setup.policy.sources["key"]);
    setup.policy.sources.insert("test_write_key".to_owned(), web);
    setup.settings.script = Some(Script::new("tests/it/accepting.rs".into()));
    setup
}

/// Sends a recorded request again, but for the headers that belong to its connection.
async fn replay(door: &TestDoor, recorded: &Value) -> support::Answer {
    let header = |header: &Value| (header[0].as_str().unwrap().to_owned(), header[1].as_str().unwrap().to_owned());
    let headers: Vec<_> = recorded["headers"].as_array().unwrap().iter().map(header).collect();
    let is_ours = |name: &str| !["host", "content-length", "transfer-encoding", "connection"].contains(&name);
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| is_ours(&name.to_ascii_lowercase()))
        .collect();
    let body = STANDARD.decode(recorded["rawBase64"].as_str().unwrap_or_default()).unwrap();
    door.ask(recorded["method"].as_str().unwrap(), recorded["path"].as_str().unwrap(), &headers, &body).await
}

// --- the queue's word

#[tokio::test]
async fn a_200_is_said_only_after_the_queue_has_the_events() {
    let door = Setup::default().start_stuck().await;
    let mut line = Line::open(door.address).await;
    line.send(&request("POST", "/v1/t", &[], MESSAGE.as_bytes())).await;
    door.queue.begun.acquire().await.unwrap().forget();
    assert!(!line.hears_something_within(Duration::from_millis(50)).await);
    door.queue.let_one_pass();
    line.answer().await.accepted();
}

#[tokio::test]
async fn a_queue_that_takes_nothing_is_a_503_until_it_does() {
    let door = TestDoor::start().await;
    let unavailable = AppendError::Unavailable("/var/lib/secret: read-only file system".to_owned());
    let cases = [
        (AppendError::Full { size_bytes: 10, size_bytes_max: 10 }, "queue_full", "10"),
        (unavailable, "queue_unavailable", "5"),
    ];
    for (error, code, seconds) in cases {
        door.queue.refuse(Some(error));
        for (path, body) in [("/v1/t", MESSAGE.to_owned()), ("/v1/b", batch(&[MESSAGE]))] {
            let answer = door.post(path, &[], body).await;
            answer.refused(503, code, "now");
            assert_eq!(answer.header("retry-after"), Some(seconds));
            assert_eq!(answer.header("x-ratelimit-reset"), Some(seconds));
            assert!(!answer.text().contains("secret"));
        }
    }
    door.post("/v1/t", &[WEB], r#"{"event":"nobody's"}"#).await.accepted();
    door.queue.refuse(None);
    door.post("/v1/t", &[], MESSAGE).await.accepted();
    assert_eq!(door.counts().accepted, 1);
    assert_eq!(door.counts().answers, [0, 2, 0, 0, 4]);
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_next_request_is_served() {
    let door = TestDoor::start().await;
    door.queue.panic();
    let mut line = Line::open(door.address).await;
    line.send(&request("POST", "/v1/t", &[("Origin", "https://a.test")], MESSAGE.as_bytes())).await;
    let answer = line.answer().await;
    answer.refused(500, "internal_error", "bug");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.test"));
    assert_eq!(door.door.bodies().bytes(), 0);
    line.send(&request("GET", "/health", &[], b"")).await;
    assert_eq!(line.answer().await.status, 200);
}

// --- pixels, metrics, settings, script

#[tokio::test]
async fn a_pixel_is_a_picture_whatever_becomes_of_its_message() {
    let door = TestDoor::start().await;
    let data: String = url::form_urlencoded::byte_serialize(STANDARD.encode(MESSAGE).as_bytes()).collect();
    let dotted = "writeKey=key&userId=u&event=Opened&properties.subject=Hi+there";
    let cases = [
        (format!("/v1/pixel/track?data={data}"), 1),
        (format!("/pixel/v1/page?data={data}"), 2),
        (format!("/v1/pixel/track?{dotted}"), 3),
        (format!("/v1/pixel/track/?{dotted}"), 4),
        ("/v1/pixel/track".to_owned(), 4),
        ("/v1/pixel/track?data=%%%".to_owned(), 4),
        ("/v1/pixel/track?writeKey=nobody&userId=u&event=E".to_owned(), 4),
        ("/v1/pixel/track?writeKey=key&event=E".to_owned(), 4),
    ];
    for (path, events) in cases {
        let answer = door.get(&path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some("image/gif"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.body.starts_with(b"GIF89a"));
        assert_eq!(door.queue.events().len(), events, "{path}");
    }
    let messages = door.queue.messages();
    assert_eq!((&messages[0]["type"], &messages[1]["type"]), (&json!("track"), &json!("page")));
    assert_eq!(messages[2]["properties"], json!({"subject": "Hi there"}));

    door.queue.refuse(Some(AppendError::Full { size_bytes: 1, size_bytes_max: 1 }));
    assert_eq!(door.get(&format!("/v1/pixel/track?{dotted}")).await.status, 200);
}

#[tokio::test]
async fn an_sdk_that_measures_itself_is_heard_and_forgotten() {
    let door = TestDoor::start().await;
    let series = r#"{"series":[{"type":"Counter","metric":"analytics_js.invoke","value":1,"tags":{}}]}"#;
    for body in [series, "", "nonsense"] {
        door.post("/v1/m", &[("Content-Type", "text/plain")], body).await.accepted();
    }
    assert_eq!(door.counts().sdk_metrics, 3);
    assert!(door.queue.events().is_empty());
}

#[tokio::test]
async fn settings_send_an_sdk_back_to_where_it_asked() {
    let door = TestDoor::start().await;
    let paths = [
        "/v1/projects/key/settings",
        "/projects/key/settings",
        "/v1/projects/projects/key/settings",
        "//v1/projects/key/settings/",
    ];
    for path in paths {
        let answer = door.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{path}");
        let settings = answer.json();
        let own = &settings["integrations"]["Segment.io"];
        assert_eq!(own["apiKey"], json!("key"));
        assert_eq!(own["apiHost"], json!("events.test/v1"));
        assert_eq!(own["protocol"], json!("http"));
        assert_eq!(settings["integrations"].as_object().unwrap().len(), 1);
        assert_eq!(settings["metrics"], json!({"sampleRate": 0}));
    }
    door.get("/v1/projects/nobody/settings").await.refused(404, "not_found", "write key");
    let mut line = Line::open(door.address).await;
    line.send(b"GET /v1/projects/key/settings HTTP/1.0\r\n\r\n").await;
    line.answer().await.refused(400, "invalid_request", "host");
}

#[tokio::test]
async fn forwarded_headers_are_believed_from_trusted_proxies_only() {
    let body = r#"{"userId":"u","event":"E","context":{"direct":true}}"#;
    let forwarded = [
        ("X-Forwarded-For", "6.6.6.6, 9.9.9.9"),
        ("X-Forwarded-Host", "track.example.com:8443"),
        ("X-Forwarded-Proto", "https"),
    ];
    let seen = async |settings: Settings| {
        let door = Setup { settings, ..Setup::default() }.start().await;
        door.post("/v1/t", &[&[WEB], &forwarded[..]].concat(), body).await.accepted();
        let settings = door.ask("GET", "/v1/projects/key/settings", &forwarded, b"").await.json();
        let own = &settings["integrations"]["Segment.io"];
        (door.queue.messages()[0]["context"]["ip"].clone(), own["apiHost"].clone(), own["protocol"].clone())
    };
    let unbelieved = (json!("127.0.0.1"), json!("events.test/v1"), json!("http"));
    assert_eq!(seen(Settings::default()).await, unbelieved);
    let trusting = Settings { trusted: Box::new(|address| address.is_loopback()), ..Settings::default() };
    let believed = (json!("9.9.9.9"), json!("track.example.com:8443/v1"), json!("https"));
    assert_eq!(seen(trusting).await, believed);
}

#[tokio::test]
async fn the_browser_sdk_is_served_from_its_file_as_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("standalone.js");
    let settings = Settings { script: Some(Script::new(file.clone())), ..Settings::default() };
    let door = Setup { settings, ..Setup::default() }.start().await;
    let path = "/analytics.js/v1/key/analytics.min.js";
    door.get(path).await.refused(404, "not_found", "cannot be read");
    for content in ["first", "and second"] {
        std::fs::write(&file, content).unwrap();
        for path in [path, "/analytics.js/v1/key/platform/analytics.min.js", path] {
            let answer = door.get(path).await;
            assert_eq!(answer.line(), format!("200 {content}"));
            assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
        }
    }
    let other = TestDoor::start().await;
    other.get(path).await.refused(404, "not_found", "server.analytics_js");
}

#[tokio::test]
async fn the_browser_sdk_finds_its_pieces_beside_it_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("407.bundle.61e.js"), "a piece").unwrap();
    std::fs::write(dir.path().join("secret.txt"), "no").unwrap();
    let settings = Settings { script: Some(Script::new(dir.path().join("standalone.js"))), ..Settings::default() };
    let door = Setup { settings, ..Setup::default() }.start().await;
    assert_eq!(door.get("/analytics-next/bundles/407.bundle.61e.js").await.line(), "200 a piece");
    for name in ["408.js", "secret.txt", "..%2Fsecret.js", ".js", "%2e%2e.js"] {
        let answer = door.get(&format!("/analytics-next/bundles/{name}")).await;
        answer.refused(404, "not_found", "beside");
    }
}

// --- CORS

#[tokio::test]
async fn a_preflight_is_answered_on_every_path_without_a_key() {
    let door = TestDoor::start().await;
    let paths = [
        "/v1/t",
        "/v1/batch",
        "/v1/b",
        "/v1/import/",
        "/v1/m",
        "/v1/pixel/track",
        "/v1/projects/key/settings",
        "/analytics.js/v1/key/analytics.min.js",
        "/beacon/v1/batch",
    ];
    let asking = [
        ("Origin", "https://shop.test"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,x-tenant"),
    ];
    for path in paths {
        let answer = door.ask("OPTIONS", path, &asking, b"").await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}");
        let expected = [
            ("access-control-allow-origin", "https://shop.test"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET,POST,OPTIONS"),
            ("access-control-allow-headers", "authorization,x-tenant,content-type,x-retry-count"),
            ("access-control-max-age", "7200"),
            ("access-control-expose-headers", "Retry-After, X-RateLimit-Reset"),
        ];
        for (name, value) in expected {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert!(answer.headers_named("vary").contains(&"Origin"), "{path}");
    }
}

#[tokio::test]
async fn options_without_a_browser_tells_the_methods_and_no_more() {
    let door = TestDoor::start().await;
    let answer = door.ask("OPTIONS", "/v1/batch/", &[], b"").await;
    assert_eq!((answer.status, answer.header("allow")), (204, Some("POST, OPTIONS")));
    assert!(!answer.headers.iter().any(|(name, _)| name.starts_with("access-control")));
}

#[tokio::test]
async fn every_answer_to_a_browser_can_be_read_by_its_page() {
    let door = TestDoor::start().await;
    let origin = ("Origin", "https://shop.test");
    door.queue.refuse(Some(AppendError::Full { size_bytes: 1, size_bytes_max: 1 }));
    let cases = [
        ("POST", "/v1/t", MESSAGE, 503),
        ("POST", "/v1/t", "{", 400),
        ("POST", "/v1/t", r#"{"userId":"u"}"#, 400),
        ("POST", "/v1/t", r#"{"writeKey":"key"}"#, 200),
        ("POST", "/nowhere", "", 404),
        ("GET", "/v1/t", "", 405),
        ("GET", "/v1/projects/nobody/settings", "", 404),
        ("GET", "/v1/projects/key/settings", "", 200),
        ("OPTIONS", "/nowhere", "", 404),
    ];
    for (method, path, body, status) in cases {
        let answer = door.ask(method, path, &[origin], body.as_bytes()).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.test"));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(answer.header("access-control-expose-headers"), Some("Retry-After, X-RateLimit-Reset"));
        assert_eq!(answer.headers_named("vary"), ["Origin"]);
        assert_eq!(answer.header("access-control-allow-methods"), None, "only a preflight asks for methods");
    }
    let plain = door.get("/health").await;
    assert_eq!(plain.header("access-control-allow-origin"), None);
    assert_eq!(plain.headers_named("vary"), ["Origin"]);
}

#[tokio::test]
async fn an_origin_that_is_not_on_the_list_is_not_echoed() {
    let origins = vec!["https://shop.test".to_owned(), "https://*.example.com".to_owned()];
    let settings = Settings { cors_origins: origins, ..Settings::default() };
    let door = Setup { settings, ..Setup::default() }.start().await;
    let cases = [("https://shop.test", true), ("https://a.example.com", true), ("https://evil.test", false)];
    for (origin, is_allowed) in cases {
        for method in ["POST", "OPTIONS"] {
            let headers = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
            let answer = door.ask(method, "/v1/t", &headers, MESSAGE.as_bytes()).await;
            assert_eq!(answer.header("access-control-allow-origin"), is_allowed.then_some(origin), "{method} {origin}");
            assert_eq!(answer.headers_named("vary")[0], "Origin");
        }
    }
}

// --- health

#[tokio::test]
async fn health_is_always_good_and_readiness_says_what_it_was_told() {
    for ready in [true, false] {
        let readiness = json!({"ready": ready, "plan": {"error": null}});
        let door = Setup { readiness, ..Setup::default() }.start().await;
        assert_eq!(door.get("/health").await.line(), r#"200 {"status":"ok"}"#);
        let answer = door.get("/ready").await;
        assert_eq!(answer.status, if ready { 200 } else { 503 });
        assert_eq!(answer.json(), json!({"ready": ready, "plan": {"error": null}, "closing": false}));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
}

// --- connections

#[tokio::test]
async fn a_connection_that_brings_no_whole_head_is_closed() {
    let options = ServeOptions { header_timeout: Duration::from_millis(50), ..ServeOptions::default() };
    let door = Setup { options, ..Setup::default() }.start().await;
    let beginnings =
        ["", "P", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST /v1/t HTTP/1.1\r\nHost: x\r\nX-Slow"];
    for beginning in beginnings {
        let mut line = Line::open(door.address).await;
        line.send(beginning.as_bytes()).await;
        // HTTP/2 says some words of farewell.
        line.is_closed().await;
    }
    assert_eq!(door.counts().answers.iter().sum::<u64>(), 0);
}

#[tokio::test]
async fn half_a_second_head_is_waited_for_no_longer_than_half_a_first() {
    let options = ServeOptions { header_timeout: Duration::from_secs(2), ..ServeOptions::default() };
    let door = Setup { options, ..Setup::default() }.start().await;
    let mut line = Line::open(door.address).await;
    line.send(&request("GET", "/health", &[], b"")).await;
    assert_eq!(line.answer().await.status, 200);
    line.send(b"GET /health HTTP/1.1\r\nHost").await;
    assert!(line.is_closed().await);
}

#[tokio::test]
async fn a_connection_may_rest_between_requests_for_longer_than_a_head_may_take() {
    let options = ServeOptions { header_timeout: Duration::from_secs(1), ..ServeOptions::default() };
    let door = Setup { options, ..Setup::default() }.start().await;
    let mut line = Line::open(door.address).await;
    for rest in [Duration::from_millis(1300), Duration::ZERO] {
        line.send(&request("GET", "/health", &[], b"")).await;
        assert_eq!(line.answer().await.status, 200);
        tokio::time::sleep(rest).await;
    }
}

#[tokio::test]
async fn a_connection_that_rests_too_long_is_closed() {
    let options = ServeOptions { idle_timeout: Duration::from_millis(50), ..ServeOptions::default() };
    let door = Setup { options, ..Setup::default() }.start().await;
    let mut line = Line::open(door.address).await;
    line.send(&request("GET", "/health", &[], b"")).await;
    assert_eq!(line.answer().await.status, 200);
    assert!(line.is_closed().await);
}

#[tokio::test]
async fn a_queue_that_takes_its_time_is_waited_for_longer_than_any_head() {
    let options = ServeOptions {
        header_timeout: Duration::from_millis(500),
        idle_timeout: Duration::from_millis(1),
        ..ServeOptions::default()
    };
    let door = Setup { options, ..Setup::default() }.start_stuck().await;
    let mut line = Line::open(door.address).await;
    line.send(&request("POST", "/v1/t", &[], MESSAGE.as_bytes())).await;
    assert!(!line.hears_something_within(Duration::from_millis(700)).await);
    door.queue.let_one_pass();
    line.answer().await.accepted();
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("large.js");
    std::fs::write(&file, vec![b' '; 32 << 20]).unwrap();
    let setup = Setup {
        settings: Settings { script: Some(Script::new(file)), ..Settings::default() },
        options: ServeOptions {
            write_timeout: Duration::from_millis(50),
            shutdown_timeout: NEVER,
            linger: Duration::ZERO,
            ..ServeOptions::default()
        },
        ..Setup::default()
    };
    let door = setup.start().await;
    let mut line = Line::open(door.address).await;
    line.send(&request("GET", "/analytics.js/v1/key/analytics.min.js", &[], b"")).await;
    while door.counts().answers[1] == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    door.closing.cancel();
    assert_eq!(door.cut().await, 0, "the connection ended by itself");
}

#[tokio::test]
async fn a_connection_too_many_waits_for_its_turn() {
    let options = ServeOptions { connections_max: 1, ..ServeOptions::default() };
    let door = Setup { options, ..Setup::default() }.start().await;
    let health = request("GET", "/health", &[], b"");
    let mut first = Line::open(door.address).await;
    first.send(&health).await;
    assert_eq!(first.answer().await.status, 200);
    let mut second = Line::open(door.address).await;
    second.send(&health).await;
    assert!(!second.hears_something_within(Duration::from_millis(100)).await);
    drop(first);
    assert_eq!(second.answer().await.status, 200);
}

#[tokio::test]
async fn nonsense_on_a_connection_is_a_400_and_its_end() {
    let door = TestDoor::start().await;
    let mut line = Line::open(door.address).await;
    line.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS on a plain port\r\n\r\n").await;
    line.is_closed().await;
    door.post("/v1/t", &[], MESSAGE).await.accepted();
}

#[tokio::test]
async fn a_sender_that_closes_its_half_still_hears_the_answer() {
    let door = Setup::default().start_stuck().await;
    let mut line = Line::open(door.address).await;
    line.send(&request("POST", "/v1/t", &[], MESSAGE.as_bytes())).await;
    line.say_no_more().await;
    door.queue.begun.acquire().await.unwrap().forget();
    door.queue.let_one_pass();
    line.answer().await.accepted();
    assert!(line.is_closed().await);
}

#[tokio::test]
async fn events_of_a_sender_that_left_without_waiting_are_kept() {
    let door = Setup::default().start_stuck().await;
    let mut line = Line::open(door.address).await;
    line.send(&request("POST", "/v1/t", &[], MESSAGE.as_bytes())).await;
    door.queue.begun.acquire().await.unwrap().forget();
    drop(line);
    // The loop sees the end of the connection before it answers this.
    assert_eq!(door.get("/health").await.status, 200);
    door.queue.let_one_pass();
    while door.queue.events().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    door.closing.cancel();
    assert_eq!(door.cut().await, 0);
}

// --- HTTP/2 and TLS

#[tokio::test]
async fn http_2_is_spoken_without_being_asked_for() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let door = TestDoor::start().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let url = format!("http://{}/v1/b", door.address);
    for _ in 0..3 {
        let answer = client.post(&url).body(batch(&[MESSAGE])).send().await.unwrap();
        assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, 200));
        assert_eq!(answer.text().await.unwrap(), r#"{"success":true}"#);
    }
    let url = format!("http://{}/v1/projects/key/settings", door.address);
    let settings: Value =
        serde_json::from_slice(&client.get(&url).send().await.unwrap().bytes().await.unwrap()).unwrap();
    let host = &settings["integrations"]["Segment.io"]["apiHost"];
    assert_eq!(host, &json!(format!("{}/v1", door.address)));
    let head = client.head(&url).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.bytes().await.unwrap().len()), (200, 0));
    door.closing.cancel();
    assert_eq!(door.cut().await, 0);
}

#[tokio::test]
async fn tls_is_spoken_in_http_2_and_1() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, certificate.cert.pem()).unwrap();
    std::fs::write(&key, certificate.signing_key.serialize_pem()).unwrap();
    let tls = Some(Arc::new(Tls::open(cert, key).unwrap()));
    let options = ServeOptions { tls, header_timeout: Duration::from_secs(5), ..ServeOptions::default() };
    let door = Setup { options, ..Setup::default() }.start().await;
    let url = format!("https://localhost:{}", door.address.port());
    let trusted = reqwest::Certificate::from_pem(certificate.cert.pem().as_bytes()).unwrap();
    let client = || reqwest::Client::builder().tls_certs_only([trusted.clone()]).no_proxy();
    for (client, version) in [
        (client().build().unwrap(), reqwest::Version::HTTP_2),
        (client().http1_only().build().unwrap(), reqwest::Version::HTTP_11),
    ] {
        let answer = client.post(format!("{url}/v1/t")).body(MESSAGE).send().await.unwrap();
        assert_eq!((answer.version(), answer.status().as_u16()), (version, 200));
        let settings = client.get(format!("{url}/v1/projects/key/settings")).send().await.unwrap();
        let settings: Value = serde_json::from_slice(&settings.bytes().await.unwrap()).unwrap();
        assert_eq!(settings["integrations"]["Segment.io"]["protocol"], json!("https"));
    }
    assert_eq!(door.queue.events().len(), 2);
    let mut plain = Line::open(door.address).await;
    plain.send(&request("POST", "/v1/t", &[], MESSAGE.as_bytes())).await;
    plain.is_closed().await;
    let _silent = Line::open(door.address).await;
    door.closing.cancel();
    assert_eq!(door.cut().await, 0, "a handshake that has not begun holds nobody up");
}

#[test]
fn a_certificate_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let one = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cert = write("cert.pem", &one.cert.pem());
    let key = write("key.pem", &one.signing_key.serialize_pem());
    let wrong = write("wrong.pem", &other.signing_key.serialize_pem());
    let empty = write("empty.pem", "");
    let missing = dir.path().join("missing.pem");
    let error = |cert: &std::path::Path, key: &std::path::Path| {
        Tls::open(cert.to_owned(), key.to_owned()).map(drop).unwrap_err()
    };
    assert!(matches!(error(&missing, &key), TlsError::Unreadable { path, .. } if path == missing));
    assert!(matches!(error(&cert, &missing), TlsError::Unreadable { path, .. } if path == missing));
    assert!(matches!(error(&empty, &key), TlsError::NoCertificate { path } if path == empty));
    assert!(matches!(error(&cert, &empty), TlsError::NoKey { path } if path == empty));
    assert!(matches!(error(&cert, &wrong), TlsError::Unusable(_)));
    let tls = Tls::open(cert.clone(), key.clone()).unwrap();
    std::fs::copy(&wrong, &key).unwrap();
    assert!(tls.reload().is_err());
    std::fs::write(&cert, other.cert.pem()).unwrap();
    tls.reload().unwrap();
}

// --- the log

#[test]
fn no_key_and_no_payload_is_logged() {
    let log = support::Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let door = recorded_door().start().await;
            let secret =
                r#"{"writeKey":"test_write_key","event":"payload","userId":"payload","traits":{"a":"payload"}}"#;
            let basic = ("Authorization", "Basic dGVzdF93cml0ZV9rZXk6");
            door.post("/v1/t", &[basic], secret).await.accepted();
            door.post("/v1/t", &[], r#"{"writeKey":"test_write_key","event":"payload"}"#).await.accepted();
            door.post("/v1/t", &[], r#"{"writeKey":"unknown_secret","event":"payload"}"#).await;
            door.post("/v1/t?writeKey=test_write_key", &[], "payload").await;
            door.get("/v1/projects/test_write_key/settings").await;
            door.queue.refuse(Some(AppendError::Full { size_bytes: 1, size_bytes_max: 1 }));
            door.post("/v1/t", &[basic], secret).await;
            door.queue.panic();
            door.post("/v1/t", &[basic], secret).await;
        });
    });
    let text = log.text();
    for told in ["message discarded", "no_user_anon_id", "the queue takes no events", "answering a request panicked"] {
        assert!(text.contains(told), "{told} is missing:\n{text}");
    }
    for secret in ["payload", "test_write_key", "dGVzdF93cml0ZV9rZXk", "unknown_secret"] {
        assert!(!text.contains(secret), "{secret} was told:\n{text}");
    }
}

// --- shutting down

#[tokio::test]
async fn a_late_request_on_an_open_connection_hears_that_we_close() {
    let options = ServeOptions { linger: NEVER, shutdown_timeout: NEVER, ..ServeOptions::default() };
    let door = Setup { options, ..Setup::default() }.start().await;
    let mut sender = Line::open(door.address).await;
    let mut watcher = Line::open(door.address).await;
    for line in [&mut sender, &mut watcher] {
        line.send(&request("GET", "/ready", &[], b"")).await;
        assert_eq!(line.answer().await.status, 200);
    }
    door.closing.cancel();
    sender.send(&request("POST", "/v1/t", &[("Origin", "https://a.test")], MESSAGE.as_bytes())).await;
    let answer = sender.answer().await;
    answer.refused(503, "shutting_down", "shutting down");
    assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), Some("close")));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.test"));
    assert!(sender.is_closed().await);

    for path in ["/health", "/metrics"] {
        watcher.send(&request("GET", path, &[], b"")).await;
        assert_eq!(watcher.answer().await.status, 200, "{path}");
    }
    watcher.send(&request("GET", "/ready", &[], b"")).await;
    let ready = watcher.answer().await;
    assert_eq!((ready.status, &ready.json()["closing"]), (503, &json!(true)));
    drop(watcher);
    assert!(door.queue.events().is_empty());
    assert_eq!(door.cut().await, 0);
}

#[tokio::test]
async fn a_request_under_way_is_finished_and_idle_connections_hold_nobody_up() {
    let options = ServeOptions { linger: Duration::ZERO, shutdown_timeout: NEVER, ..ServeOptions::default() };
    let door = Setup { options, ..Setup::default() }.start_stuck().await;
    let mut idle = Line::open(door.address).await;
    idle.send(&request("GET", "/health", &[], b"")).await;
    assert_eq!(idle.answer().await.status, 200);
    let mut silent = Line::open(door.address).await;
    let mut busy = Line::open(door.address).await;
    busy.send(&request("POST", "/v1/t", &[], MESSAGE.as_bytes())).await;
    door.queue.begun.acquire().await.unwrap().forget();

    door.closing.cancel();
    assert!(idle.is_closed().await);
    assert!(silent.is_closed().await);
    assert!(!door.served.is_finished());
    door.queue.let_one_pass();
    busy.answer().await.accepted();
    assert_eq!(door.queue.events().len(), 1);
    assert_eq!(door.cut().await, 0);
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_when_the_time_is_over() {
    let options = ServeOptions { shutdown_timeout: Duration::from_millis(50), ..ServeOptions::default() };
    let door = Setup { options, ..Setup::default() }.start_stuck().await;
    let mut busy = Line::open(door.address).await;
    busy.send(&request("POST", "/v1/t", &[], MESSAGE.as_bytes())).await;
    door.queue.begun.acquire().await.unwrap().forget();
    door.closing.cancel();
    assert!(busy.is_closed().await);
    assert_eq!(door.cut().await, 1);
}

#[tokio::test]
async fn nobody_new_is_let_in_once_the_shutdown_begins() {
    let options = ServeOptions { linger: NEVER, shutdown_timeout: NEVER, ..ServeOptions::default() };
    let door = Setup { options, ..Setup::default() }.start().await;
    let mut open = Line::open(door.address).await;
    open.send(&request("GET", "/health", &[], b"")).await;
    assert_eq!(open.answer().await.status, 200);
    door.closing.cancel();
    // The listener goes with the loop, a moment later.
    while tokio::net::TcpStream::connect(door.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(open);
    assert_eq!(door.cut().await, 0);
}
