//! `hmac`: a signature over the whole body and whatever else the receiver wants signed (RFC 2104).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use ring::hmac;
use serde_json::json;
use url::Url;

use super::super::Request;
use super::hex;
use crate::expr::template::Template;
use crate::expr::{Escape, EvalError, Names, Scope};

/// How requests are signed.
pub struct Hmac {
    /// The shared secret as it is written in the file: never told.
    pub secret: String,
    /// The key that was made of it, with the hash function it is for.
    pub key: hmac::Key,
    /// How the signature is written.
    pub encoding: SignatureEncoding,
    /// The header that carries it, in lowercase.
    pub header: String,
    /// What stands before it.
    pub prefix: Template,
    /// What is signed.
    pub message: Vec<Piece>,
    /// Headers by name (lowercase), made for every try.
    pub headers: Vec<(String, Template)>,
    /// What the templates see besides the request: no `let`s, which could hide its names.
    pub names: Arc<Names>,
}

/// A piece of what is signed.
pub enum Piece {
    /// The body's bytes as they are sent, whatever they are and however many.
    Body,
    /// Text made from the request, or text as it is.
    Text(Box<Template>),
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignatureEncoding {
    /// Lower-case hex digits.
    #[default]
    Hex,
    /// Base64 with padding.
    Base64,
}

// === impl Hmac ===

impl Hmac {
    /// Adds the signature and the headers that go with it.
    pub(super) fn sign(&self, request: &mut Request, id: &str, now: Timestamp) -> Result<(), EvalError> {
        let scope = self.scope(request, id, now);
        let mut context = hmac::Context::with_key(&self.key);
        for piece in &self.message {
            match piece {
                Piece::Body => context.update(request.body.as_deref().unwrap_or_default()),
                Piece::Text(template) => context.update(text(template, &scope)?.as_bytes()),
            }
        }
        let signature = self.encoding.write(context.sign().as_ref());
        let mut headers = vec![(self.header.clone(), format!("{}{signature}", text(&self.prefix, &scope)?))];
        for (name, template) in &self.headers {
            headers.push((name.clone(), text(template, &scope)?));
        }
        if let Some((name, _)) = headers.iter().find(|(_, value)| value.contains(char::is_control)) {
            let message = format!("the header `{name}` may not hold a line break");
            return Err(EvalError { message, range: None });
        }
        request.headers.extend(headers);
        Ok(())
    }

    /// The names of the headers it sets.
    pub(super) fn header_names(&self) -> Vec<&str> {
        let more = self.headers.iter().map(|(name, _)| name.as_str());
        std::iter::once(self.header.as_str()).chain(more).collect()
    }

    /// The secret, with and without what stands before its Base64.
    pub(super) fn secrets(&self) -> Vec<String> {
        let bare = self.secret.strip_prefix(SECRET_PREFIX).unwrap_or(&self.secret);
        vec![self.secret.clone(), bare.to_owned()]
    }

    /// The request as templates see it.
    fn scope(&self, request: &Request, id: &str, now: Timestamp) -> Scope {
        let url = Url::parse(&request.url).ok();
        let mut seen = json!({
            "method": request.method,
            "url": request.url,
            "path": url.as_ref().map_or("", Url::path),
            "query": url.as_ref().and_then(Url::query).unwrap_or_default(),
            "timestamp": now.as_second(),
            "id": id,
        });
        if self.reads_body() {
            let body = request.body.as_deref().unwrap_or_default();
            seen["body"] = String::from_utf8_lossy(body).into();
        }
        Scope::request(&self.names, Arc::new(seen), now)
    }

    /// Whether a template reads the body as text; a body that is a piece of its own is none.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        let pieces = self.message.iter().filter_map(|piece| match piece {
            Piece::Text(template) => Some(&**template),
            Piece::Body => None,
        });
        let headers = self.headers.iter().map(|(_, template)| template);
        let mut all = pieces.chain(headers).chain([&self.prefix]);
        all.any(|template| template.names().iter().any(|name| name.path.split('.').next() == Some("body")))
    }
}

/// What stands before the Base64 of a Standard Webhooks secret
/// (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>, read 2026-11-26).
pub(crate) const SECRET_PREFIX: &str = "whsec_";

fn text(template: &Template, scope: &Scope) -> Result<String, EvalError> {
    let mut out = String::new();
    if template.write_text(scope, Escape::Plain, &mut out)? {
        return Ok(out);
    }
    Err(EvalError { message: "a piece of what is signed is missing".to_owned(), range: None })
}

// === impl SignatureEncoding ===

impl SignatureEncoding {
    fn write(self, signature: &[u8]) -> String {
        match self {
            Self::Hex => hex(signature),
            Self::Base64 => BASE64.encode(signature),
        }
    }
}

// === impl Piece ===

impl Piece {
    /// Takes a message apart at its bare `{{ body }}`, so that a body of any size and kind is signed as it is.
    ///
    /// As in every template, one line break at the end is dropped. A message that cannot be taken apart there, because a block spans the body, stays whole.
    #[must_use]
    pub fn of_message(message: &str) -> Option<Vec<Self>> {
        let message = message.strip_suffix('\n').map_or(message, |rest| rest.strip_suffix('\r').unwrap_or(rest));
        let mut pieces = Vec::new();
        for (index, text) in without_body(message).into_iter().enumerate() {
            if index > 0 {
                pieces.push(Self::Body);
            }
            // A template would lose the line break at its end, which here is the middle of the message.
            let kept = text.trim_end_matches(['\r', '\n']);
            match Template::parse(kept) {
                Ok(_) if kept.is_empty() => {}
                Ok(template) => pieces.push(Self::text(template)),
                Err(_) => return Template::parse(message).ok().map(|whole| vec![Self::text(whole)]),
            }
            if kept.len() < text.len() {
                pieces.push(Self::text(Template::constant(text[kept.len()..].into())));
            }
        }
        Some(pieces)
    }

    fn text(template: Template) -> Self {
        Self::Text(Box::new(template))
    }
}

/// What stands between the bare `{{ body }}` of a message.
fn without_body(message: &str) -> Vec<&str> {
    let (mut pieces, mut start, mut from) = (Vec::new(), 0, 0);
    while let Some(open) = message[from..].find("{{").map(|at| from + at) {
        let Some(close) = message[open..].find("}}").map(|at| open + at) else { break };
        if message[open + 2..close].trim() == "body" {
            pieces.push(&message[start..open]);
            start = close + 2;
        }
        from = close + 2;
    }
    pieces.push(&message[start..]);
    pieces
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use std::time::Duration;

    use super::*;

    /// Signs a request to `https://a.example.com/in?x=1` at a time.
    fn signed(hmac: &Hmac, body: &str, id: &str, seconds: i64) -> Vec<String> {
        let mut request = Request {
            method: "POST".to_owned(),
            url: "https://a.example.com/in?x=1".to_owned(),
            headers: Vec::new(),
            body: Some(body.to_owned().into()),
            timeout: Duration::from_secs(1),
            token: None,
            shape: None,
        };
        hmac.sign(&mut request, id, Timestamp::from_second(seconds).unwrap()).unwrap();
        request.headers.into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    fn hmac(algorithm: hmac::Algorithm, key: &[u8], header: &str, prefix: &str, message: &str) -> Hmac {
        Hmac {
            secret: String::new(),
            key: hmac::Key::new(algorithm, key),
            encoding: SignatureEncoding::Hex,
            header: header.to_owned(),
            prefix: Template::parse(prefix).unwrap(),
            message: Piece::of_message(message).unwrap(),
            headers: Vec::new(),
            names: Arc::default(),
        }
    }

    #[test]
    fn github_accepts_the_signature() {
        // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries, read 2026-11-26.
        let key = b"It's a Secret to Everybody";
        let hmac = hmac(hmac::HMAC_SHA256, key, "x-hub-signature-256", "sha256=", "{{ body }}");
        assert_eq!(
            signed(&hmac, "Hello, World!", "", 0),
            ["x-hub-signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"]
        );
    }

    #[test]
    fn standard_webhooks_accept_the_signature_and_its_headers() {
        // https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, read 2026-11-26.
        let key = BASE64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let message = "{{ id }}.{{ timestamp }}.{{ body }}";
        let standard = Hmac {
            encoding: SignatureEncoding::Base64,
            headers: [("webhook-id", "{{ id }}"), ("webhook-timestamp", "{{ timestamp }}")]
                .map(|(name, template)| (name.to_owned(), Template::parse(template).unwrap()))
                .into(),
            ..hmac(hmac::HMAC_SHA256, &key, "webhook-signature", "v1,", message)
        };
        assert_eq!(
            signed(&standard, "{\"test\": 2432232314}", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330),
            [
                "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
                "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek",
                "webhook-timestamp: 1614265330",
            ]
        );
    }

    #[test]
    fn stripe_would_accept_the_signature() {
        // https://docs.stripe.com/webhooks#verify-manually, read 2026-11-26; computed with Python's hmac.
        let body = "{\n  \"id\": \"evt_test_webhook\"\n}";
        let (prefix, message) = ("t={{ timestamp }},v1=", "{{ timestamp }}.{{ body }}");
        let stripe = hmac(hmac::HMAC_SHA256, b"whsec_test_secret", "stripe-signature", prefix, message);
        assert_eq!(
            signed(&stripe, body, "", 1_492_774_577),
            ["stripe-signature: t=1492774577,v1=8fc1bf06840388c2d6747b59d9d8975312d1953d1c92065d423b8c8d149c31c3"]
        );
    }

    #[test]
    fn a_receiver_of_segments_webhooks_accepts_the_signature() {
        // https://segment.com/docs/connections/destinations/catalog/webhooks/#authentication, read 2026-11-26; the
        // vector is that of https://en.wikipedia.org/wiki/HMAC#Examples.
        let segment = hmac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"key", "x-signature", "", "{{ body }}");
        assert_eq!(
            signed(&segment, "The quick brown fox jumps over the lazy dog", "", 0),
            ["x-signature: de7c9b85b8b78aa6bc8a7a36f70a90701c9db4d9"]
        );
    }

    #[test]
    fn a_message_sees_the_request() {
        let message = "{{ method }} {{ url }} {{ path }} {{ query }} {{ now }} {{ body | sha256 }}";
        let all = hmac(hmac::HMAC_SHA256, b"key", "x", "", message);
        let plain = "POST https://a.example.com/in?x=1 /in x=1 1970-01-01T00:00:01.000Z \
                     2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let same = hmac(hmac::HMAC_SHA256, b"key", "x", "", "{{ body }}");
        assert_eq!(signed(&all, "hello", "", 1), signed(&same, plain, "", 1));
    }

    #[test]
    fn a_body_of_any_size_and_kind_is_signed() {
        let dotted = hmac(hmac::HMAC_SHA256, b"key", "x", "", "{{ timestamp }}.{{ body }}");
        let whole = hmac(hmac::HMAC_SHA256, b"key", "x", "", "{{ body }}");
        let large = "x".repeat(3 << 20);
        assert_eq!(signed(&dotted, &large, "", 7), signed(&whole, &format!("7.{large}"), "", 7));
    }

    fn shape(message: &str) -> Vec<String> {
        let shown = |piece: Piece| match piece {
            Piece::Body => "BODY".to_owned(),
            Piece::Text(template) => match template.as_constant() {
                Some(text) => format!("{text:?}"),
                None => format!("{template:?}"),
            },
        };
        Piece::of_message(message).unwrap().into_iter().map(shown).collect()
    }

    #[test]
    fn a_message_is_taken_apart_at_its_bare_body() {
        assert_eq!(shape("{{ body }}"), ["BODY"]);
        assert_eq!(shape("{{ id }}.{{ timestamp }}.{{body}}"), [r#"Template("{{ id }}.{{ timestamp }}.")"#, "BODY"]);
        assert_eq!(shape("{{ id }}\n{{ body }}\n"), [r#"Template("{{ id }}")"#, r"'\n'", "BODY"]);
        assert_eq!(shape("{{ body | sha256 }}"), [r#"Template("{{ body | sha256 }}")"#]);
        assert_eq!(shape("{% if body %}{{ body }}{% endif %}"), [r#"Template("{% if body %}{{ body }}{% endif %}")"#]);
    }
}
