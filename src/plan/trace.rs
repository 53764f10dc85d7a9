//! What may be told of a request: everything but credentials and secrets.
//!
//! For dead letters, logs and people. Values of `auth` are masked whole; what came from a variable or a secret's file is
//! replaced wherever it stands, in the forms in which we write it.

use std::borrow::Cow;

use super::auth::MASK;
use super::batch::{Item, Request};
use super::{Destination, Rule};
use crate::attempt::{SentRequest, Trace};
use crate::expr::percent_encode;

/// The secrets of a destination in every form in which we write them, the longest first: one may be the beginning of
/// another.
pub(super) struct Secrets {
    forms: Vec<String>,
}

/// Bytes of a text that a failure keeps: enough for a person to see what is wrong.
const EXCERPT_BYTES_MAX: usize = 4096;

/// Bytes in which secrets are looked for before a text is cut: one that began within the excerpt would otherwise be cut
/// in two and not be found. No secret is longer.
const SEARCHED_BYTES_MAX: usize = 64 << 10;

/// A credential shorter than this is masked where it belongs, and not looked for elsewhere: it might be any word.
pub(super) const SECRET_CHARS_MIN: usize = 8;

/// What stands for a secret inside text.
pub(super) const REDACTED: &str = "[secret]";

/// Headers that carry credentials, whoever sets them (RFC 9110, 11; RFC 6265).
const CREDENTIAL_HEADERS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

// === impl Destination ===

impl Destination {
    /// Where a failure came from that had nothing sent.
    #[must_use]
    pub fn trace(&self, rule: Option<String>) -> Trace {
        Trace { rule, config: self.fingerprint, request: None }
    }

    /// Where the failure of an item came from, whose request carried so many.
    #[must_use]
    pub fn trace_item(&self, item: &Item, items: usize) -> Trace {
        let rule = &self.rules[item.rule];
        Trace { request: Some(self.sent(rule, item, items)), ..self.trace(rule.place.clone()) }
    }

    /// A text as a person may see it: secrets are masked.
    #[must_use]
    pub fn redacted_text(&self, text: &str) -> String {
        self.secrets().redact(text)
    }

    /// A text for whoever looks after the file: credentials are masked, names that stand in variables are not.
    #[must_use]
    pub fn without_credentials(&self, text: &str) -> String {
        Secrets::of(self.auth.secrets().into_iter()).excerpt(text)
    }

    /// A request as a person may see it whole, its body unpacked: credentials and secrets are masked.
    #[must_use]
    pub fn masked(&self, request: &Request) -> Request {
        let (secrets, own) = (self.secrets(), self.auth.header_names());
        let is_plain = |(name, _): &&(String, String)| name != "content-encoding";
        let body = request.plain_body().map(|body| secrets.redact(&String::from_utf8_lossy(&body)).into());
        Request {
            url: secrets.redact(&self.auth.without_secrets(&without_user(&request.url))),
            headers: request
                .headers
                .iter()
                .filter(is_plain)
                .map(|header| masked_header(header, &own, &secrets))
                .collect(),
            body,
            ..request.clone()
        }
    }

    fn sent(&self, rule: &Rule, item: &Item, items: usize) -> SentRequest {
        let secrets = self.secrets();
        let content_type = item.body.as_ref().map(|_| rule.request.encoding.content_type());
        let headers = self.request_headers(&item.address, content_type);
        let mut headers: Vec<_> = headers.iter().map(|header| masked_header(header, &[], &secrets)).collect();
        let mut url = secrets.redact(&without_user(&item.address.url));
        self.auth.apply_masked(&mut url, &mut headers);
        SentRequest {
            method: item.address.method.clone(),
            url,
            headers,
            body: item.body.as_ref().map(|body| secrets.excerpt(&searched(body))),
            items,
        }
    }

    /// What must not be told: variables, secrets' files, credentials.
    pub(super) fn secrets(&self) -> Secrets {
        Secrets::of(self.names.secrets().chain(self.auth.secrets()))
    }
}

/// A header without what proves who we are: its own credentials, those of `own` names, and secrets in its value.
fn masked_header((name, value): &(String, String), own: &[&str], secrets: &Secrets) -> (String, String) {
    let is_masked = CREDENTIAL_HEADERS.contains(&name.as_str()) || own.contains(&name.as_str());
    (name.clone(), if is_masked { MASK.to_owned() } else { secrets.redact(value) })
}

// === impl Secrets ===

impl Secrets {
    fn of(all: impl Iterator<Item = String>) -> Self {
        let all = all.filter(|secret| secret.len() >= SECRET_CHARS_MIN);
        let mut forms: Vec<String> = all.flat_map(|secret| forms_of(&secret)).collect();
        forms.sort_unstable_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        forms.dedup();
        Self { forms }
    }

    /// A text without secrets.
    pub(super) fn redact(&self, text: &str) -> String {
        self.forms.iter().fold(text.to_owned(), |text, form| {
            if text.contains(form.as_str()) { text.replace(form, REDACTED) } else { text }
        })
    }

    /// A text's first 4 KiB without secrets.
    pub(super) fn excerpt(&self, text: &str) -> String {
        let redacted = self.redact(&text[..text.floor_char_boundary(SEARCHED_BYTES_MAX)]);
        redacted[..redacted.floor_char_boundary(EXCERPT_BYTES_MAX)].to_owned()
    }
}

/// The bytes in which secrets are looked for, as text.
pub(super) fn searched(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SEARCHED_BYTES_MAX)])
}

/// A secret as it is, in a URL and in JSON.
fn forms_of(secret: &str) -> [String; 3] {
    let mut encoded = String::new();
    percent_encode(&mut encoded, secret);
    let quoted = serde_json::Value::from(secret).to_string();
    [secret.to_owned(), encoded, quoted[1..quoted.len() - 1].to_owned()]
}

fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find(['/', '\\', '#']).unwrap_or(rest.len());
    match rest[..host_end].rfind('@') {
        Some(at) => format!("{scheme}://{MASK}{}", &rest[at..]),
        None => url.to_owned(),
    }
}
