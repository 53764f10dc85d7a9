//! Tokens that have to be asked for: whom to ask, with what, and what the answer means.
//!
//! Pure: the question is a [`Request`], the answer a [`Reply`]. Who asks, and for how long an answer is kept, is the
//! sink's business.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64_URL};
use jiff::{SignedDuration, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value as Json, json};
use url::form_urlencoded;

use super::super::judge::failure_of;
use super::super::{Reply, Request};
use super::AUTHORIZATION;
use crate::attempt::{Failure, Reason};
use crate::expr::percent_encode;

/// Where the tokens of one destination come from.
pub enum TokenSource {
    /// An endpoint that speaks OAuth 2 (RFC 6749).
    OAuth2(OAuth2),
    /// Google, for a service account.
    Google(Box<ServiceAccount>),
}

/// How a token endpoint is asked.
pub struct OAuth2 {
    /// The endpoint.
    pub token_url: String,
    /// What is asked for.
    pub grant: Grant,
    /// Who we are there.
    pub client_id: String,
    /// What proves it; a public client has none.
    pub client_secret: Option<String>,
    /// Where the two are put.
    pub style: ClientStyle,
    /// What the token is for, in the service's words.
    pub scope: Option<String>,
    /// Whom the token is for.
    pub audience: Option<String>,
    /// Further fields.
    pub params: Vec<(String, String)>,
}

/// What is asked for.
pub enum Grant {
    /// A token of our own (RFC 6749, 4.4).
    ClientCredentials,
    /// A token of somebody who gave us this refresh token (RFC 6749, 6).
    RefreshToken(String),
}

/// Where a client's id and secret are put (RFC 6749, 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientStyle {
    /// Into the form.
    #[default]
    Body,
    /// Into `Authorization: Basic`.
    Basic,
}

/// A service account of Google's.
pub struct ServiceAccount {
    /// Its address.
    pub email: String,
    /// Which of its keys it is.
    pub key_id: Option<String>,
    /// The key.
    pub key: RsaKeyPair,
    /// The key as text: never told.
    pub secret: String,
    /// The endpoint.
    pub token_url: String,
    /// What is asked for.
    pub wants: Wants,
    /// Somebody of the domain on whose behalf we act.
    pub subject: Option<String>,
}

/// Which of Google's tokens.
pub enum Wants {
    /// An access token for these scopes, separated by spaces.
    Scope(String),
    /// An ID token for this audience, as Cloud Run wants it.
    Audience(String),
}

/// A token as it was given.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Its text: never told.
    pub value: String,
    /// From then on another one is wanted, though this one is still good.
    pub refresh_at: Timestamp,
    /// From then on it is good no longer.
    pub expires_at: Timestamp,
    /// What to ask with the next time, if that changed.
    pub refresh_token: Option<String>,
}

/// How long a token is good for when nobody says: RFC 6749, 5.1 lets an endpoint leave it out, and most tokens last for an
/// hour. One that lasts shorter is noticed when it is refused.
const LIFETIME: SignedDuration = SignedDuration::from_hours(1);

/// What is longer is no lifetime but a slip.
const LIFETIME_MAX: SignedDuration = SignedDuration::from_hours(24 * 365);

/// A token is replaced when a tenth of its life is left, but no earlier than this before its end.
const EARLY_MAX: SignedDuration = SignedDuration::from_mins(5);

/// How long an assertion for Google is good for; an hour is the most it may be
/// (<https://developers.google.com/identity/protocols/oauth2/service-account>, read 2026-11-26).
const ASSERTION_SECONDS: i64 = 3600;

const ASSERTION_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

// === impl TokenSource ===

impl TokenSource {
    /// The request that asks for a token, with the refresh token that the last answer gave, if it gave one.
    #[must_use]
    pub fn request(&self, refresh_token: Option<&str>, now: Timestamp, timeout: Duration) -> Request {
        let mut headers = vec![
            ("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned()),
            ("accept".to_owned(), "application/json".to_owned()),
        ];
        let body = match self {
            Self::OAuth2(oauth2) => {
                headers.extend(oauth2.authorization().map(|value| (AUTHORIZATION.to_owned(), value)));
                form(&oauth2.fields(refresh_token))
            }
            Self::Google(account) => form(&[("grant_type", ASSERTION_GRANT), ("assertion", &account.assertion(now))]),
        };
        let (method, url) = ("POST".to_owned(), self.token_url().to_owned());
        Request { method, url, headers, body: Some(body.into()), timeout, token: None }
    }

    /// What an answer gives: a token, or what the request that needed it has to hear instead.
    ///
    /// # Errors
    /// [`Reply::Unauthorized`] when the endpoint does not know us or answers what nobody can use, [`Reply::Lost`] when it
    /// may do better another time.
    pub fn read(&self, reply: &Reply, now: Timestamp) -> Result<Token, Reply> {
        match reply {
            Reply::Answered { status: 200..=299, body, .. } => token(body, now).ok_or_else(|| {
                let failure = Failure::new(Reason::Status(200), "there is no `access_token` in the answer");
                Reply::Unauthorized(self.told(failure))
            }),
            Reply::Answered { status, headers, body } => {
                let failure = failure_of(*status, headers, body, now);
                let detail = format!("status {status}: {}", oauth_error(body).unwrap_or(failure.detail));
                let failure = self.told(Failure { detail, ..failure });
                Err(match status {
                    408 | 425 | 429 | 500..=599 => Reply::Lost(failure),
                    _ => Reply::Unauthorized(failure),
                })
            }
            Reply::Lost(failure) => Err(Reply::Lost(self.told(failure.clone()))),
            Reply::Unsendable(failure) | Reply::Unauthorized(failure) => {
                Err(Reply::Unauthorized(self.told(failure.clone())))
            }
            Reply::Written => Err(Reply::Unauthorized(self.told(Failure::new(Reason::Io, "no answer")))),
        }
    }

    fn token_url(&self) -> &str {
        match self {
            Self::OAuth2(oauth2) => &oauth2.token_url,
            Self::Google(account) => &account.token_url,
        }
    }

    /// What must not be told.
    pub(super) fn secrets(&self) -> Vec<String> {
        match self {
            Self::OAuth2(oauth2) => oauth2.secrets(),
            Self::Google(account) => vec![account.secret.clone()],
        }
    }

    /// A failure that says whose it is.
    fn told(&self, failure: Failure) -> Failure {
        Failure { detail: format!("asking {} for a token: {}", self.token_url(), failure.detail), ..failure }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenSource").field(&self.token_url()).finish()
    }
}

/// The same source; keys cannot be compared.
impl PartialEq for TokenSource {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for TokenSource {}

fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// `error` and `error_description` of RFC 6749, 5.2.
fn oauth_error(body: &[u8]) -> Option<String> {
    let answer: Json = serde_json::from_slice(body).ok()?;
    let error = answer["error"].as_str()?;
    Some(match answer["error_description"].as_str() {
        Some(description) => format!("{error}: {description}"),
        None => error.to_owned(),
    })
}

fn token(body: &[u8], now: Timestamp) -> Option<Token> {
    let answer: Json = serde_json::from_slice(body).ok()?;
    let value = answer["access_token"].as_str().or_else(|| answer["id_token"].as_str());
    let value = value.filter(|value| !value.is_empty() && !value.contains(char::is_control))?;
    let lifetime = lifetime(&answer["expires_in"]);
    let end = |at: SignedDuration| now.saturating_add(at).unwrap_or(Timestamp::MAX);
    Some(Token {
        value: value.to_owned(),
        refresh_at: end(lifetime - (lifetime / 10).min(EARLY_MAX)),
        expires_at: end(lifetime),
        refresh_token: answer["refresh_token"].as_str().map(str::to_owned),
    })
}

/// Seconds as a number, or, as some write it, as text.
fn lifetime(expires_in: &Json) -> SignedDuration {
    let number = expires_in.as_f64().or_else(|| expires_in.as_str()?.trim().parse().ok());
    let lifetime = number.and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok());
    lifetime.unwrap_or(LIFETIME).clamp(SignedDuration::ZERO, LIFETIME_MAX)
}

// === impl OAuth2 ===

impl OAuth2 {
    /// Id and secret are form-encoded before they are joined, as RFC 6749, 2.3.1 says.
    fn authorization(&self) -> Option<String> {
        if self.style == ClientStyle::Body {
            return None;
        }
        let mut pair = String::new();
        percent_encode(&mut pair, &self.client_id);
        pair.push(':');
        percent_encode(&mut pair, self.client_secret.as_deref().unwrap_or_default());
        Some(format!("Basic {}", BASE64.encode(pair)))
    }

    fn fields<'a>(&'a self, refresh_token: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
        let mut fields = match &self.grant {
            Grant::ClientCredentials => vec![("grant_type", "client_credentials")],
            Grant::RefreshToken(own) => {
                vec![("grant_type", "refresh_token"), ("refresh_token", refresh_token.unwrap_or(own))]
            }
        };
        if self.style == ClientStyle::Body {
            fields.push(("client_id", &self.client_id));
            fields.extend(self.client_secret.as_ref().map(|secret| ("client_secret", secret.as_str())));
        }
        fields.extend(self.scope.as_ref().map(|scope| ("scope", scope.as_str())));
        fields.extend(self.audience.as_ref().map(|audience| ("audience", audience.as_str())));
        fields.extend(self.params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        fields
    }

    fn secrets(&self) -> Vec<String> {
        let refresh_token = match &self.grant {
            Grant::ClientCredentials => None,
            Grant::RefreshToken(token) => Some(token),
        };
        let params = self.params.iter().map(|(_, value)| value);
        let all = self.client_secret.iter().chain(refresh_token).chain(params).cloned();
        all.chain(self.authorization()).collect()
    }
}

// === impl ServiceAccount ===

impl ServiceAccount {
    /// A signed JWT (RFC 7523) that says who we are and what we want.
    fn assertion(&self, now: Timestamp) -> String {
        let mut header = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = &self.key_id {
            header["kid"] = id.as_str().into();
        }
        let seconds = now.as_second();
        let mut claims = json!({
            "iss": self.email,
            "aud": self.token_url,
            "iat": seconds,
            "exp": seconds + ASSERTION_SECONDS,
        });
        match &self.wants {
            Wants::Scope(scope) => claims["scope"] = scope.as_str().into(),
            Wants::Audience(audience) => claims["target_audience"] = audience.as_str().into(),
        }
        if let Some(subject) = &self.subject {
            claims["sub"] = subject.as_str().into();
        }
        let signed = [header, claims].map(|part| BASE64_URL.encode(part.to_string())).join(".");
        format!("{signed}.{}", BASE64_URL.encode(self.sign(signed.as_bytes())))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.key.public().modulus_len()];
        // This padding draws nothing: the same message has the same signature.
        let signed = self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature);
        signed.expect("the room is as large as the key, and every key has signed once when it was read");
        signature
    }
}
