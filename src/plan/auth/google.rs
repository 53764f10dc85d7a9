//! Who we are at Google, and how each of us comes by a token.
//!
//! Written after <https://google.aip.dev/auth/4110> and its neighbours (4111 to 4118),
//! <https://cloud.google.com/docs/authentication/application-default-credentials> and
//! <https://cloud.google.com/iam/docs/workload-identity-federation>, all read 2026-11-26; what is sent was compared with
//! what google-auth 2.63.0 for Python sends for the same credentials.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use jiff::{SignedDuration, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value as Json, json};

use super::asking::{Asking, Stop};
use super::external::External;
use super::push_query;
use super::token::{OAuth2, Token};

/// Somebody at Google who wants a token.
pub struct Google {
    /// Who.
    pub identity: Identity,
    /// What is asked for.
    pub wants: Wants,
    /// Somebody of the domain on whose behalf we act (domain-wide delegation).
    pub subject: Option<String>,
}

/// Which of Google's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wants {
    /// An access token for these scopes, separated by spaces.
    Scope(String),
    /// An ID token for this audience, as Cloud Run wants it.
    Audience(String),
}

/// Who we are at Google.
pub enum Identity {
    /// A service account, by a key of its own (`service_account`; <https://google.aip.dev/auth/4112>).
    ServiceAccount(Box<ServiceAccount>),
    /// A person who gave us a refresh token once, and with it all the scopes there will be (`authorized_user`, `https://google.aip.dev/auth/4113`;
    /// `external_account_authorized_user`).
    User(OAuth2),
    /// Somebody whom another service knows (`external_account`; <https://google.aip.dev/auth/4117>).
    External(Box<External>),
    /// A service account that lets another one of these speak for it (`impersonated_service_account`, and
    /// `service_account_impersonation_url`).
    Impersonated(Box<Impersonated>),
    /// Whoever the machine is (<https://google.aip.dev/auth/4115>).
    Metadata {
        /// The metadata server: a host, and a port if not 80.
        host: String,
    },
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
    /// Which cloud: [`UNIVERSE`], or that of a partner, which has no token endpoint.
    pub universe: String,
}

/// A service account that somebody else speaks for.
pub struct Impersonated {
    /// Who speaks for it.
    pub source: Identity,
    /// Where its access tokens are made; ends with [`ACCESS_TOKEN`].
    pub url: String,
    /// Accounts between the two, each of which may make tokens for the next.
    pub delegates: Vec<String>,
    /// How long a token is to be good for.
    pub lifetime_seconds: u32,
}

/// Google's own cloud.
pub const UNIVERSE: &str = "googleapis.com";

/// The method that makes access tokens
/// (<https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken>, read
/// 2026-11-26).
pub const ACCESS_TOKEN: &str = ":generateAccessToken";

/// Who gives tokens to those who show an assertion.
pub const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";

/// The metadata server of every machine of Google's.
pub const METADATA_HOST: &str = "metadata.google.internal";

/// What a token must be good for that is to make another account's.
const IAM_SCOPE: &str = "https://www.googleapis.com/auth/iam";

/// How long an assertion for Google is good for; an hour is the most it may be
/// (<https://developers.google.com/identity/protocols/oauth2/service-account>, read 2026-11-26).
const ASSERTION_SECONDS: i64 = 3600;

const ASSERTION_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

// === impl Google, Wants ===

impl Google {
    pub(super) fn token(&self, asking: &mut Asking<'_>) -> Result<Token, Stop> {
        self.identity.token(&self.wants, self.subject.as_deref(), asking)
    }
}

impl Wants {
    fn iam() -> Self {
        Self::Scope(IAM_SCOPE.to_owned())
    }
}

// === impl Identity ===

impl Identity {
    /// Why such a token cannot be had, if it cannot.
    #[must_use]
    pub fn refuses(&self, wants: &Wants, acts_for_somebody: bool) -> Option<&'static str> {
        let is_id_token = matches!(wants, Wants::Audience(_));
        match self {
            Self::ServiceAccount(account) if acts_for_somebody && account.universe != UNIVERSE => {
                Some("nobody can be acted for with `subject` outside of googleapis.com")
            }
            Self::User(_) | Self::External(_) | Self::Metadata { .. } if acts_for_somebody => {
                Some("`subject` needs a service account's key, or an account that is impersonated")
            }
            Self::User(_) if is_id_token => {
                Some("a person has no ID token for an `audience`: impersonate a service account")
            }
            Self::External(_) if is_id_token => {
                Some("an ID token needs a service account: give `service_account_impersonation_url`")
            }
            Self::Impersonated(_) if is_id_token && acts_for_somebody => {
                Some("an ID token is the account's own: `audience` goes without `subject`")
            }
            Self::ServiceAccount(_)
            | Self::Impersonated(_)
            | Self::User(_)
            | Self::External(_)
            | Self::Metadata { .. } => None,
        }
    }

    /// Whoever gives the token in the end.
    pub(super) fn url(&self) -> &str {
        match self {
            Self::ServiceAccount(account) => &account.token_url,
            Self::User(user) => &user.token_url,
            Self::External(external) => &external.token_url,
            Self::Impersonated(account) => &account.url,
            Self::Metadata { host } => host,
        }
    }

    /// What must not be told.
    pub(super) fn secrets(&self) -> Vec<String> {
        match self {
            Self::ServiceAccount(account) => vec![account.secret.clone()],
            Self::User(user) => user.secrets(),
            Self::External(external) => external.secrets(),
            Self::Impersonated(account) => account.source.secrets(),
            Self::Metadata { .. } => Vec::new(),
        }
    }

    fn token(&self, wants: &Wants, subject: Option<&str>, asking: &mut Asking<'_>) -> Result<Token, Stop> {
        match (self, wants) {
            (Self::ServiceAccount(account), _) if account.universe != UNIVERSE => {
                account.token_elsewhere(wants, asking)
            }
            (Self::ServiceAccount(account), _) => account.token(wants, subject, asking),
            (Self::User(user), _) => user.token(asking),
            (Self::External(external), Wants::Scope(scope) | Wants::Audience(scope)) => external.token(scope, asking),
            (Self::Impersonated(account), _) => account.token(wants, subject, asking),
            (Self::Metadata { host }, Wants::Scope(scope)) => metadata_access_token(host, scope, asking),
            (Self::Metadata { host }, Wants::Audience(audience)) => metadata_id_token(host, audience, asking),
        }
    }
}

// === impl ServiceAccount ===

impl ServiceAccount {
    fn token(&self, wants: &Wants, subject: Option<&str>, asking: &mut Asking<'_>) -> Result<Token, Stop> {
        let mut claims = self.claims(asking.occasion.now);
        claims["aud"] = self.token_url.as_str().into();
        match wants {
            Wants::Scope(scope) => claims["scope"] = scope.as_str().into(),
            Wants::Audience(audience) => claims["target_audience"] = audience.as_str().into(),
        }
        if let Some(subject) = subject {
            claims["sub"] = subject.into();
        }
        let assertion = self.signed(&claims);
        asking.token(asking.form(&self.token_url, &[("grant_type", ASSERTION_GRANT), ("assertion", &assertion)]))
    }

    /// In a partner's cloud an assertion is an access token itself (<https://google.aip.dev/auth/4111>), and ID tokens are
    /// IAM's.
    fn token_elsewhere(&self, wants: &Wants, asking: &mut Asking<'_>) -> Result<Token, Stop> {
        let own = |scope: &str| {
            let mut claims = self.claims(asking.occasion.now);
            claims["sub"] = self.email.as_str().into();
            claims["scope"] = scope.into();
            self.signed(&claims)
        };
        match wants {
            Wants::Scope(scope) => {
                let lifetime = SignedDuration::from_secs(ASSERTION_SECONDS);
                let token = Token::lasting(&own(scope), lifetime, asking.occasion.now);
                Ok(token.expect("a signed token is not empty"))
            }
            Wants::Audience(audience) => {
                let token = own(IAM_SCOPE);
                let url = format!(
                    "https://iamcredentials.{}/v1/projects/-/serviceAccounts/{}:generateIdToken",
                    self.universe, self.email
                );
                id_token(&url, &token, audience, &[], asking)
            }
        }
    }

    fn claims(&self, now: Timestamp) -> Json {
        let seconds = now.as_second();
        json!({ "iss": self.email, "iat": seconds, "exp": seconds + ASSERTION_SECONDS })
    }

    /// A signed JWT (RFC 7523) that says who we are and what we want.
    fn signed(&self, claims: &Json) -> String {
        let mut header = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = &self.key_id {
            header["kid"] = id.as_str().into();
        }
        let signed = [&header, claims].map(|part| BASE64_URL.encode(part.to_string())).join(".");
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

// === impl Impersonated ===

impl Impersonated {
    fn token(&self, wants: &Wants, subject: Option<&str>, asking: &mut Asking<'_>) -> Result<Token, Stop> {
        let source = self.source.token(&Wants::iam(), None, asking)?.value;
        asking.learn(&source);
        match (wants, subject) {
            (Wants::Scope(scope), None) => self.access_token(&source, scope, asking),
            (Wants::Scope(scope), Some(subject)) => self.token_of_subject(&source, scope, subject, asking),
            (Wants::Audience(audience), _) => {
                id_token(&self.method(":generateIdToken"), &source, audience, &self.delegates, asking)
            }
        }
    }

    fn access_token(&self, source: &str, scope: &str, asking: &mut Asking<'_>) -> Result<Token, Stop> {
        let scopes: Vec<&str> = scope.split(' ').collect();
        let mut body = json!({ "scope": scopes, "lifetime": format!("{}s", self.lifetime_seconds) });
        add_delegates(&mut body, &self.delegates);
        let answer = asking.ask("a token", asking.json(&self.url, source, &body))?;
        let now = asking.occasion.now;
        let token = serde_json::from_slice(&answer).ok().and_then(|answer: Json| {
            let end: Timestamp = answer["expireTime"].as_str()?.parse().ok()?;
            Token::lasting(answer["accessToken"].as_str()?, end.duration_since(now), now)
        });
        token.ok_or_else(|| asking.unusable("a token", &self.url, "there is no `accessToken` in the answer"))
    }

    /// Has IAM sign what a service account's own key would (<https://google.aip.dev/auth/4112>).
    fn token_of_subject(
        &self,
        source: &str,
        scope: &str,
        subject: &str,
        asking: &mut Asking<'_>,
    ) -> Result<Token, Stop> {
        let seconds = asking.occasion.now.as_second();
        let claims = json!({
            "iss": self.email(), "scope": scope, "sub": subject, "aud": TOKEN_URL,
            "iat": seconds, "exp": seconds + ASSERTION_SECONDS,
        });
        let mut body = json!({ "payload": claims.to_string() });
        add_delegates(&mut body, &self.delegates);
        let url = self.method(":signJwt");
        let answer = asking.ask("a signature", asking.json(&url, source, &body))?;
        let Some(assertion) = text(&answer, "signedJwt") else {
            return Err(asking.unusable("a signature", &url, "there is no `signedJwt` in the answer"));
        };
        asking.learn(&assertion);
        asking.token(asking.form(TOKEN_URL, &[("grant_type", ASSERTION_GRANT), ("assertion", &assertion)]))
    }

    /// Another method of the same account.
    fn method(&self, method: &str) -> String {
        format!("{}{method}", self.url.strip_suffix(ACCESS_TOKEN).unwrap_or(&self.url))
    }

    /// The account's address, which its URL names.
    fn email(&self) -> &str {
        let account = self.url.strip_suffix(ACCESS_TOKEN).unwrap_or(&self.url);
        account.rsplit_once('/').map_or(account, |(_, email)| email)
    }
}

/// An ID token that IAM makes
/// (<https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateIdToken>, read
/// 2026-11-26).
fn id_token(
    url: &str,
    token: &str,
    audience: &str,
    delegates: &[String],
    asking: &mut Asking<'_>,
) -> Result<Token, Stop> {
    asking.learn(token);
    let mut body = json!({ "audience": audience, "includeEmail": true });
    add_delegates(&mut body, delegates);
    let answer = asking.ask("an ID token", asking.json(url, token, &body))?;
    let token = text(&answer, "token").and_then(|token| Token::of_jwt(&token, asking.occasion.now));
    token.ok_or_else(|| asking.unusable("an ID token", url, "there is no `token` in the answer"))
}

fn add_delegates(body: &mut Json, delegates: &[String]) {
    if !delegates.is_empty() {
        body["delegates"] = delegates.into();
    }
}

/// A text of an answer in JSON.
pub(super) fn text(answer: &[u8], key: &str) -> Option<String> {
    let answer: Json = serde_json::from_slice(answer).ok()?;
    answer[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

// --- the metadata server (https://cloud.google.com/compute/docs/access/authenticate-workloads, read 2026-11-26)

/// What it wants to see, so that a page in a browser cannot ask it.
const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");

fn metadata_access_token(host: &str, scope: &str, asking: &mut Asking<'_>) -> Result<Token, Stop> {
    let request = asking.get(&metadata_url(host, "token", &[("scopes", &scope.replace(' ', ","))]), [FLAVOR]);
    asking.token(request)
}

fn metadata_id_token(host: &str, audience: &str, asking: &mut Asking<'_>) -> Result<Token, Stop> {
    let url = metadata_url(host, "identity", &[("audience", audience), ("format", "full")]);
    let answer = asking.ask("an ID token", asking.get(&url, [FLAVOR]))?;
    let token = std::str::from_utf8(&answer).ok().and_then(|text| Token::of_jwt(text.trim(), asking.occasion.now));
    token.ok_or_else(|| asking.unusable("an ID token", &url, "the answer is none"))
}

fn metadata_url(host: &str, what: &str, params: &[(&str, &str)]) -> String {
    let mut url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/{what}");
    let params: Vec<_> = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    push_query(&mut url, &params);
    url
}
