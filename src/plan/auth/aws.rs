//! `aws`: Signature Version 4 in the `Authorization` header.
//!
//! Written after <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>, read
//! 2026-11-26, and held to AWS's own test suite.

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use ring::hmac::{self, HMAC_SHA256};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::super::Request;
use super::{AUTHORIZATION, hex};
use crate::expr::{EvalError, percent_encode};

/// How requests to AWS are signed.
pub struct Aws {
    /// Which key it is.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: String,
    /// Goes with a key that is lent for a while.
    pub session_token: Option<String>,
    /// Such as `eu-central-1`.
    pub region: String,
    /// The service's name in signatures, such as `s3` or `firehose`.
    pub service: String,
}

/// What a signature is over besides the time.
struct Canonical {
    request: String,
    /// The names of the headers in it, `;` between them.
    headers: String,
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DATE: &str = "x-amz-date";
const CONTENT_HASH: &str = "x-amz-content-sha256";
const SESSION_TOKEN: &str = "x-amz-security-token";

// === impl Aws ===

impl Aws {
    /// Adds the signature and the headers that go with it.
    pub(super) fn sign(&self, request: &mut Request, now: Timestamp) -> Result<(), EvalError> {
        // S3 wants the hash, the others take it.
        request.headers.push((CONTENT_HASH.to_owned(), content_hash(request)));
        self.sign_with(request, now)
    }

    /// The same for somebody who passes the request on and knows its headers: `host` is there, the body's hash is not.
    pub(super) fn sign_bare(&self, request: &mut Request, now: Timestamp) -> Result<(), EvalError> {
        request.headers.push(("host".to_owned(), host(&parsed(&request.url)?)));
        self.sign_with(request, now)
    }

    fn sign_with(&self, request: &mut Request, now: Timestamp) -> Result<(), EvalError> {
        let url = parsed(&request.url)?;
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let content = content_hash(request);
        request.headers.push((DATE.to_owned(), time.clone()));
        request.headers.extend(self.session_token.iter().map(|token| (SESSION_TOKEN.to_owned(), token.clone())));
        let path = if self.service.starts_with("s3") { path_once(url.path()) } else { path_twice(url.path()) };
        let canonical = Canonical::new(request, &url, &path, &content);
        let authorization = self.authorization(&canonical, &time);
        request.headers.push((AUTHORIZATION.to_owned(), authorization));
        Ok(())
    }

    /// The names of the headers it sets.
    pub(super) fn header_names(&self) -> Vec<&str> {
        let mut names = vec![CONTENT_HASH, DATE, AUTHORIZATION];
        names.extend(self.session_token.as_ref().map(|_| SESSION_TOKEN));
        names
    }

    /// What must not be told.
    pub(super) fn secrets(&self) -> Vec<String> {
        [Some(&self.secret_access_key), self.session_token.as_ref()].into_iter().flatten().cloned().collect()
    }

    fn authorization(&self, canonical: &Canonical, time: &str) -> String {
        let day = &time[..8];
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let request = hex(&Sha256::digest(&canonical.request));
        let signed = format!("{ALGORITHM}\n{time}\n{scope}\n{request}");
        let signature = hex(&mac(&self.key(day), &signed));
        let (id, headers) = (&self.access_key_id, &canonical.headers);
        format!("{ALGORITHM} Credential={id}/{scope}, SignedHeaders={headers}, Signature={signature}")
    }

    /// The key of a day, a region and a service.
    fn key(&self, day: &str) -> Vec<u8> {
        let secret = format!("AWS4{}", self.secret_access_key).into_bytes();
        [day, &self.region, &self.service, "aws4_request"].into_iter().fold(secret, |key, piece| mac(&key, piece))
    }
}

fn parsed(url: &str) -> Result<Url, EvalError> {
    Url::parse(url).map_err(|error| EvalError { message: format!("not a URL: {error}"), range: None })
}

fn content_hash(request: &Request) -> String {
    hex(&Sha256::digest(request.body.as_deref().unwrap_or_default()))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

// === impl Canonical ===

impl Canonical {
    fn new(request: &Request, url: &Url, path: &str, content: &str) -> Self {
        let mut headers: Vec<(&str, String)> =
            request.headers.iter().map(|(name, value)| (name.as_str(), single_spaced(value))).collect();
        if !headers.iter().any(|(name, _)| *name == "host") {
            headers.push(("host", host(url)));
        }
        headers.sort_unstable();
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String = headers.iter().flat_map(|(name, value)| [name, ":", value, "\n"]).collect();
        let query = query(url.query().unwrap_or_default());
        let request = format!("{}\n{path}\n{query}\n{lines}\n{names}\n{content}", request.method);
        Self { request, headers: names }
    }
}

fn single_spaced(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The host as the HTTP client will send it.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// For S3: every piece encoded as AWS encodes, slashes as they are.
fn path_once(path: &str) -> String {
    path.split('/').map(recoded).collect::<Vec<_>>().join("/")
}

/// For all others: the path as it is sent, without empty pieces, encoded once more.
fn path_twice(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 8);
    for piece in path.split('/').filter(|piece| !piece.is_empty()) {
        out.push('/');
        percent_encode(&mut out, piece);
    }
    if path.ends_with('/') {
        out.push('/');
    }
    out
}

/// Parameters in order, encoded as AWS encodes.
fn query(query: &str) -> String {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (recoded(name), recoded(value))
    };
    let mut pairs: Vec<_> = query.split('&').filter(|piece| !piece.is_empty()).map(pair).collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// A piece of a URL with exactly the unreserved characters of RFC 3986 unencoded.
fn recoded(piece: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(piece.len());
    for byte in percent_decode_str(piece) {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use std::time::Duration;

    use super::*;

    const SUITE: &str = include_str!("../../../tests/fixtures/auth/sigv4.txt");

    fn example(region: &str, service: &str) -> Aws {
        Aws {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
            region: region.to_owned(),
            service: service.to_owned(),
        }
    }

    fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Request {
        Request {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())).collect(),
            body: (!body.is_empty()).then(|| body.to_owned().into()),
            timeout: Duration::from_secs(1),
            token: None,
            shape: None,
        }
    }

    /// A case of the suite: `# name`, the request's head, a blank line, its body, and the signature last.
    fn case(text: &str) -> (&str, Request, &str) {
        let (name, rest) = text.split_once('\n').unwrap();
        let (rest, signature) = rest.trim_end().rsplit_once('\n').unwrap();
        let (head, body) = rest.split_once("\n\n").unwrap_or((rest, ""));
        let mut lines = head.lines();
        let line = lines.next().unwrap();
        let (method, path) = line.split_once(' ').unwrap();
        let path = path.strip_suffix(" HTTP/1.1").unwrap();
        let headers: Vec<(&str, &str)> = lines.map(|line| line.split_once(':').unwrap()).collect();
        let url = format!("https://example.amazonaws.com{path}");
        (name, request(method, &url, &headers, body), signature)
    }

    #[test]
    fn the_signatures_are_those_of_awss_test_suite() {
        let (time, mut count) = ("20150830T123600Z", 0);
        for text in SUITE.split("# ").skip(2) {
            let (name, mut request, signature) = case(text);
            let url = Url::parse(&request.url).unwrap();
            let content = hex(&Sha256::digest(request.body.as_deref().unwrap_or_default()));
            if request.body.is_some() {
                request.headers.push((CONTENT_HASH.to_owned(), content.clone()));
            }
            request.headers.push((DATE.to_owned(), time.to_owned()));
            // The suite's paths are encoded once, without empty pieces.
            let path = path_once(url.path()).replace("//", "/");
            let canonical = Canonical::new(&request, &url, &path, &content);
            let authorization = example("us-east-1", "service").authorization(&canonical, time);
            assert_eq!(authorization.rsplit_once("Signature=").unwrap().1, signature, "{name}:\n{}", canonical.request);
            count += 1;
        }
        assert!(count >= 20, "{count}");
    }

    fn authorization(aws: &Aws, mut request: Request, at: &str) -> String {
        aws.sign(&mut request, at.parse().unwrap()).unwrap();
        request.headers.into_iter().find(|(name, _)| name == AUTHORIZATION).unwrap().1
    }

    #[test]
    fn the_signature_of_a_request_to_s3_is_that_of_its_documentation() {
        // https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html, read 2026-11-26.
        let aws = Aws {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            ..example("us-east-1", "s3")
        };
        let get = request("GET", "https://examplebucket.s3.amazonaws.com/test.txt", &[("Range", "bytes=0-9")], "");
        assert_eq!(
            authorization(&aws, get, "2013-05-24T00:00:00Z"),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, \
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
    }

    #[test]
    fn odd_paths_and_queries_are_signed_as_awss_own_client_signs_them() {
        // Computed with botocore 1.44.8: `SigV4Auth` and `S3SigV4Auth`.
        let aws = Aws { session_token: Some("the/session+token==".to_owned()), ..example("eu-central-1", "firehose") };
        let url = "https://firehose.eu-central-1.amazonaws.com/a%2Fb/u@x//y/?b=2&a=1%2F&a=0&c";
        let headers =
            [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "Firehose_20150804.PutRecordBatch")];
        let post = request("POST", url, &headers, "{\"Records\":[]}");
        assert_eq!(
            authorization(&aws, post, "2026-01-02T03:04:05Z"),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/eu-central-1/firehose/aws4_request, SignedHeaders=\
             content-type;host;x-amz-content-sha256;x-amz-date;x-amz-security-token;x-amz-target, \
             Signature=a05e617d01e57f986ac180506bd44837983d88f5fcbb06c52e5d12cec866fa2c"
        );
        let url = "http://127.0.0.1:9000/bucket/a%2Fb/u%40x/%C3%A9~.ndjson?x-id=PutObject";
        let put = request("PUT", url, &[("content-type", "application/x-ndjson")], "{}\n");
        assert_eq!(
            authorization(&example("us-east-1", "s3"), put, "2026-01-02T03:04:05Z"),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/s3/aws4_request, \
             SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date, \
             Signature=37071c22190c3291e088a8164702894e980bb97bd574be309b612407bc94ee98"
        );
    }
}
