//! Tokens that have to be asked for: whom to ask, with what, and what the answer means.
//!
//! Pure: what to find out next follows from the answers so far, from [`Question`] to [`Answer`] until a [`Token`] is there.
//! Who asks, and for how long a token is kept, is the sink's business.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64_URL};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value as Json;

use super::super::{Reply, Request};
use super::AUTHORIZATION;
use super::asking::{Asking, Stop};
use super::google::{Google, QUOTA_HEADER};
use crate::expr::percent_encode;

/// Where the tokens of one destination come from.
pub enum TokenSource {
    /// An endpoint that speaks OAuth 2 (RFC 6749).
    OAuth2(OAuth2),
    /// Google, for whoever we are there.
    Google(Box<Google>),
}

/// What has to be found out on the way to a token.
#[derive(Clone, PartialEq, Eq)]
pub enum Question {
    /// What somebody answers.
    Ask(Box<Request>),
    /// What a server of the machine's own answers, which no proxy can reach or is to hear of.
    AskNear(Box<Request>),
    /// What is in a file of this machine, now.
    Read(String),
}

/// What was found out.
#[derive(Clone, PartialEq)]
pub enum Answer {
    /// By asking.
    Heard(Reply),
    /// By reading: the text, or why there is none.
    Read(Result<String, String>),
}

/// Where the answers so far have led to.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// To another question.
    Ask(Question),
    /// To the token.
    Given(Token),
}

/// When a token is asked for. It stays the same from the first question to the token.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// The refresh token that an earlier answer gave, if one did.
    pub refresh_token: Option<&'a str>,
    /// The time.
    pub now: Timestamp,
    /// The longest one question may take.
    pub timeout: Duration,
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
    /// The same without form-encoding them first, as Google's own libraries do.
    BasicAsIs,
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

// === impl TokenSource ===

impl TokenSource {
    /// What comes next on the way to a token, by the answers so far: the first question without any.
    ///
    /// The way is walked anew each time, so that it reads as one; the same answers always lead to the same place.
    ///
    /// # Errors
    /// What the request that needs the token has to hear instead: [`Reply::Unauthorized`] when somebody does not know us
    /// or answers what nobody can use, [`Reply::Lost`] when they may do better another time.
    pub fn step(&self, answers: &[Answer], occasion: Occasion<'_>) -> Result<Step, Reply> {
        let mut asking = Asking::new(answers, occasion);
        let end = match self {
            Self::OAuth2(oauth2) => oauth2.token(&mut asking),
            Self::Google(google) => google.token(&mut asking),
        };
        match end {
            Ok(token) => Ok(Step::Given(token)),
            Err(Stop::Asks(question)) => Ok(Step::Ask(question)),
            Err(Stop::Fails(reply)) => Err(reply),
        }
    }

    /// What a request says of us besides the token.
    pub(super) fn header(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::OAuth2(_) => None,
            Self::Google(google) => google.quota_project.as_ref().map(|project| (QUOTA_HEADER, project.as_str())),
        }
    }

    /// The same source for an access token with this scope; `None`: it gives what it gives.
    #[must_use]
    pub fn for_scope(&self, scope: &str) -> Option<Self> {
        match self {
            Self::OAuth2(_) => None,
            Self::Google(google) => Some(Self::Google(Box::new(google.for_scope(scope)))),
        }
    }

    /// Whoever gives the token in the end: a URL or a host.
    #[must_use]
    pub fn url(&self) -> &str {
        match self {
            Self::OAuth2(oauth2) => &oauth2.token_url,
            Self::Google(google) => google.identity.url(),
        }
    }

    /// What must not be told.
    pub(super) fn secrets(&self) -> Vec<String> {
        match self {
            Self::OAuth2(oauth2) => oauth2.secrets(),
            Self::Google(google) => google.identity.secrets(),
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenSource").field(&self.url()).finish()
    }
}

/// The same source; keys cannot be compared.
impl PartialEq for TokenSource {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for TokenSource {}

// === impl Token ===

impl Token {
    /// The token in an answer of a token endpoint (RFC 6749, 5.1), an ID token included.
    pub(super) fn of_answer(body: &[u8], now: Timestamp) -> Option<Self> {
        let answer: Json = serde_json::from_slice(body).ok()?;
        let value = answer["access_token"].as_str().or_else(|| answer["id_token"].as_str())?;
        let expires_in = &answer["expires_in"];
        let lifetime = if expires_in.is_null() { lifetime_of_jwt(value, now) } else { lifetime(expires_in) };
        let refresh_token = answer["refresh_token"].as_str().map(str::to_owned);
        Some(Self { refresh_token, ..Self::lasting(value, lifetime, now)? })
    }

    /// A signed token that says itself how long it is good for.
    pub(super) fn of_jwt(value: &str, now: Timestamp) -> Option<Self> {
        Self::lasting(value, lifetime_of_jwt(value, now), now)
    }

    /// A token that is good for so long; `None`: it is none.
    pub(super) fn lasting(value: &str, lifetime: SignedDuration, now: Timestamp) -> Option<Self> {
        let lifetime = lifetime.clamp(SignedDuration::ZERO, LIFETIME_MAX);
        let end = |at: SignedDuration| now.saturating_add(at).unwrap_or(Timestamp::MAX);
        let is_token = !value.is_empty() && !value.contains(char::is_control);
        is_token.then(|| Self {
            value: value.to_owned(),
            refresh_at: end(lifetime - (lifetime / 10).min(EARLY_MAX)),
            expires_at: end(lifetime),
            refresh_token: None,
        })
    }
}

/// How long a JWT is good for, if it is one.
fn lifetime_of_jwt(jwt: &str, now: Timestamp) -> SignedDuration {
    jwt_end(jwt).map_or(LIFETIME, |end| end.duration_since(now))
}

/// When a JWT ends, by its own `exp` (RFC 7519, 4.1.4).
fn jwt_end(jwt: &str) -> Option<Timestamp> {
    let claims = BASE64_URL.decode(jwt.split('.').nth(1)?).ok()?;
    let claims: Json = serde_json::from_slice(&claims).ok()?;
    Timestamp::from_second(claims["exp"].as_i64()?).ok()
}

/// Seconds as a number, or, as some write it, as text.
fn lifetime(expires_in: &Json) -> SignedDuration {
    let number = expires_in.as_f64().or_else(|| expires_in.as_str()?.trim().parse().ok());
    let lifetime = number.and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok());
    lifetime.unwrap_or(LIFETIME)
}

// === impl OAuth2 ===

impl OAuth2 {
    pub(super) fn token(&self, asking: &mut Asking<'_>) -> Result<Token, Stop> {
        let refresh_token = asking.occasion.refresh_token;
        asking.learn(refresh_token.unwrap_or_default());
        let mut request = asking.form(&self.token_url, &self.fields(refresh_token));
        request.headers.extend(self.authorization().map(|value| (AUTHORIZATION.to_owned(), value)));
        asking.token(request)
    }

    /// Id and secret are form-encoded before they are joined, as RFC 6749, 2.3.1 says.
    fn authorization(&self) -> Option<String> {
        let secret = self.client_secret.as_deref().unwrap_or_default();
        match self.style {
            ClientStyle::Body => None,
            ClientStyle::BasicAsIs => Some(basic(&self.client_id, secret)),
            ClientStyle::Basic => {
                let [mut id, mut encoded] = [String::new(), String::new()];
                percent_encode(&mut id, &self.client_id);
                percent_encode(&mut encoded, secret);
                Some(basic(&id, &encoded))
            }
        }
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

    pub(super) fn secrets(&self) -> Vec<String> {
        let refresh_token = match &self.grant {
            Grant::ClientCredentials => None,
            Grant::RefreshToken(token) => Some(token),
        };
        let params = self.params.iter().map(|(_, value)| value);
        let all = self.client_secret.iter().chain(refresh_token).chain(params).cloned();
        all.chain(self.authorization()).collect()
    }
}

/// A client as `Authorization: Basic` names it.
pub(super) fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{id}:{secret}")))
}
