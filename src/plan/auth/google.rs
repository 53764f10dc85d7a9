//! Who we are at Google, and how each of us comes by a token.
//!
//! Written after <https://google.aip.dev/auth/4110> and its neighbours (4111, 4113, 4115, 4117) and after google-auth 2.63.0
//! for Python, all read 2026-11-26; what is sent was compared with what that sends for the same credentials.

use std::sync::Arc;

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
    pub identity: Arc<Identity>,
    /// What is asked for.
    pub wants: Wants,
    /// Somebody of the domain on whose behalf we act (domain-wide delegation).
    pub subject: Option<String>,
    /// The project that is charged for what we ask, where an API does not take it from the request.
    pub quota_project: Option<String>,
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
    /// A service account, by a key of its own (`service_account`).
    ServiceAccount(Box<ServiceAccount>),
    /// A person who gave us a refresh token once, and with it all the scopes there will be (`authorized_user`,
    /// <https://google.aip.dev/auth/4113>; `external_account_authorized_user`).
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

/// Says which project is charged (<https://google.aip.dev/auth/4113>, read 2026-11-26).
pub const QUOTA_HEADER: &str = "x-goog-user-project";

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

    /// The same, for an access token with this scope.
    pub(super) fn for_scope(&self, scope: &str) -> Self {
        Self {
            identity: Arc::clone(&self.identity),
            wants: Wants::Scope(scope.to_owned()),
            subject: self.subject.clone(),
            quota_project: self.quota_project.clone(),
        }
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

    /// In a partner's cloud an assertion is an access token itself (<https://google.aip.dev/auth/4111>; with scopes, as
    /// google-auth makes it), and ID tokens are IAM's.
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
        let source = self.source.token(&Wants::iam(), None, asking)?;
        asking.learn(&source.value);
        let token = match (wants, subject) {
            (Wants::Scope(scope), None) => self.access_token(&source.value, scope, asking),
            (Wants::Scope(scope), Some(subject)) => self.token_of_subject(&source.value, scope, subject, asking),
            (Wants::Audience(audience), _) => {
                id_token(&self.method(":generateIdToken"), &source.value, audience, &self.delegates, asking)
            }
        };
        // It is the source that asks with another refresh token the next time.
        token.map(|token| Token { refresh_token: source.refresh_token, ..token })
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

    /// Has IAM sign what a service account's own key would.
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

// --- the metadata server (https://google.aip.dev/auth/4115; google.auth.compute_engine, both read 2026-11-26)

/// What it wants to see, so that a page in a browser cannot ask it.
const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");

fn metadata_access_token(host: &str, scope: &str, asking: &mut Asking<'_>) -> Result<Token, Stop> {
    let url = metadata_url(host, "token", &[("scopes", &scope.replace(' ', ","))]);
    let answer = asking.ask_near("a token", asking.get(&url, [FLAVOR]))?;
    asking.token_in(&answer, &url)
}

fn metadata_id_token(host: &str, audience: &str, asking: &mut Asking<'_>) -> Result<Token, Stop> {
    let url = metadata_url(host, "identity", &[("audience", audience), ("format", "full")]);
    let answer = asking.ask_near("an ID token", asking.get(&url, [FLAVOR]))?;
    let token = std::str::from_utf8(&answer).ok().and_then(|text| Token::of_jwt(text.trim(), asking.occasion.now));
    token.ok_or_else(|| asking.unusable("an ID token", &url, "the answer is none"))
}

fn metadata_url(host: &str, what: &str, params: &[(&str, &str)]) -> String {
    let mut url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/{what}");
    let params: Vec<_> = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    push_query(&mut url, &params);
    url
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use std::time::Duration;

    use rustls_pki_types::PrivatePkcs8KeyDer;
    use rustls_pki_types::pem::PemObject as _;
    use url::form_urlencoded;

    use super::super::external::{AwsSource, SubjectFormat, SubjectSource};
    use super::super::token::{Answer, ClientStyle, Grant, Occasion, Question, Step, TokenSource};
    use super::*;
    use crate::plan::{Reply, Request};

    const POOL: &str = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/p/providers/x";
    const WORKFORCE: &str = "//iam.googleapis.com/locations/global/workforcePools/p/providers/x";
    const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
    const ACCOUNT: &str = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/\
                           sa@p.iam.gserviceaccount.com:generateAccessToken";
    const NOW: &str = "2026-01-02T03:04:05Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn occasion() -> Occasion<'static> {
        Occasion { refresh_token: None, now: now(), timeout: Duration::from_secs(1) }
    }

    fn source(identity: Identity, wants: Wants, subject: Option<&str>) -> TokenSource {
        let subject = subject.map(str::to_owned);
        TokenSource::Google(Box::new(Google { identity: Arc::new(identity), wants, subject, quota_project: None }))
    }

    fn scope() -> Wants {
        Wants::Scope("https://a https://b".to_owned())
    }

    fn external(audience: &str, source: SubjectSource) -> External {
        External {
            audience: audience.to_owned(),
            token_type: JWT.to_owned(),
            token_url: "https://sts.googleapis.com/v1/token".to_owned(),
            source,
            client: None,
            user_project: None,
        }
    }

    fn file() -> SubjectSource {
        SubjectSource::File { path: "/var/run/token".to_owned(), format: SubjectFormat::Text }
    }

    fn person() -> Identity {
        Identity::User(OAuth2 {
            token_url: TOKEN_URL.to_owned(),
            grant: Grant::RefreshToken("the-refresh-token".to_owned()),
            client_id: "the-client".to_owned(),
            client_secret: Some("the-client-secret".to_owned()),
            style: ClientStyle::Body,
            scope: None,
            audience: None,
            params: Vec::new(),
        })
    }

    fn impersonated(source: Identity) -> Identity {
        Identity::Impersonated(Box::new(Impersonated {
            source,
            url: ACCOUNT.to_owned(),
            delegates: vec!["d@p.iam.gserviceaccount.com".to_owned()],
            lifetime_seconds: 1200,
        }))
    }

    fn service_account(universe: &str) -> Identity {
        let json = include_str!("../../../tests/fixtures/auth/service-account.json");
        let secret = text(json.as_bytes(), "private_key").unwrap();
        let der = PrivatePkcs8KeyDer::from_pem_slice(secret.as_bytes()).unwrap();
        Identity::ServiceAccount(Box::new(ServiceAccount {
            email: "a@b.iam.gserviceaccount.com".to_owned(),
            key_id: None,
            key: RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap(),
            secret,
            token_url: TOKEN_URL.to_owned(),
            universe: universe.to_owned(),
        }))
    }

    fn ok(body: &str) -> Answer {
        answered(200, body)
    }

    fn answered(status: u16, body: &str) -> Answer {
        Answer::Heard(Reply::Answered { status, headers: Vec::new(), body: body.to_owned().into(), news: None })
    }

    fn access_token(value: &str) -> Answer {
        ok(&json!({ "access_token": value, "expires_in": 3600 }).to_string())
    }

    /// The questions that are asked until the answers are used up, and what it comes to.
    fn story(source: &TokenSource, answers: &[Answer]) -> (Vec<Question>, Result<Step, Reply>) {
        let mut questions = Vec::new();
        for count in 0..answers.len() {
            match source.step(&answers[..count], occasion()) {
                Ok(Step::Ask(question)) => questions.push(question),
                Ok(Step::Given(_)) | Err(_) => panic!("over after {count} answers"),
            }
        }
        (questions, source.step(answers, occasion()))
    }

    /// The questions of a story that ends well, and its token.
    fn told(source: &TokenSource, answers: &[Answer]) -> (Vec<Question>, Token) {
        match story(source, answers) {
            (questions, Ok(Step::Given(token))) => (questions, token),
            (_, Ok(Step::Ask(Question::Ask(request) | Question::AskNear(request)))) => panic!("{}", request.url),
            (_, Ok(Step::Ask(Question::Read(path)))) => panic!("{path}"),
            (_, Err(reply)) => panic!("{reply:?}"),
        }
    }

    /// What a story that ends badly says.
    fn failure(source: &TokenSource, answers: &[Answer]) -> String {
        match story(source, answers).1 {
            Err(Reply::Unauthorized(failure)) => failure.detail,
            Err(Reply::Lost(failure)) => format!("later: {}", failure.detail),
            Ok(_) | Err(_) => panic!("it should have failed"),
        }
    }

    fn request(question: &Question) -> &Request {
        match question {
            Question::Ask(request) | Question::AskNear(request) => request,
            Question::Read(path) => panic!("{path} is read"),
        }
    }

    fn body(question: &Question) -> String {
        String::from_utf8(request(question).body.clone().unwrap().to_vec()).unwrap()
    }

    fn body_json(question: &Question) -> Json {
        serde_json::from_str(&body(question)).unwrap()
    }

    fn header<'q>(question: &'q Question, name: &str) -> Option<&'q str> {
        request(question).headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn fields(question: &Question) -> Vec<(String, String)> {
        form_urlencoded::parse(body(question).as_bytes()).into_owned().collect()
    }

    // The bodies below are those that google-auth 2.63.0 for Python sends for the same credentials.

    #[test]
    fn a_subject_token_from_a_file_is_exchanged_as_googles_own_library_does() {
        let source = source(Identity::External(Box::new(external(POOL, file()))), scope(), None);
        let (questions, token) =
            told(&source, &[Answer::Read(Ok("the.subject.token\n".to_owned())), access_token("the-token")]);
        assert!(matches!(&questions[0], Question::Read(path) if path == "/var/run/token"));
        assert_eq!(request(&questions[1]).url, "https://sts.googleapis.com/v1/token");
        assert_eq!(
            body(&questions[1]),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
             &audience=%2F%2Fiam.googleapis.com%2Fprojects%2F123%2Flocations%2Fglobal%2FworkloadIdentityPools%2Fp%2F\
             providers%2Fx&scope=https%3A%2F%2Fa+https%3A%2F%2Fb\
             &requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token\
             &subject_token=the.subject.token&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt"
        );
        assert_eq!((token.value.as_str(), token.expires_at), ("the-token", now() + SignedDuration::from_hours(1)));
    }

    #[test]
    fn a_person_of_a_workforce_pool_says_for_which_project_they_work_unless_a_client_does() {
        let mut account = external(WORKFORCE, file());
        account.user_project = Some("42".to_owned());
        let answers = [Answer::Read(Ok("a.b.c".to_owned())), access_token("the-token")];
        let own = source(Identity::External(Box::new(account)), scope(), None);
        let (questions, _) = told(&own, &answers);
        let (name, options) = fields(&questions[1]).pop().unwrap();
        assert_eq!((name.as_str(), options.as_str()), ("options", "%7B%22userProject%22%3A%2242%22%7D"));

        let mut account = external(WORKFORCE, file());
        account.user_project = Some("42".to_owned());
        account.client = Some(("id".to_owned(), "se+cret/".to_owned()));
        let own = source(Identity::External(Box::new(account)), scope(), None);
        let (questions, _) = told(&own, &answers);
        assert!(fields(&questions[1]).iter().all(|(name, _)| name != "options"));
        assert_eq!(header(&questions[1], "authorization"), Some("Basic aWQ6c2UrY3JldC8="));
    }

    #[test]
    fn an_external_account_may_speak_for_a_service_account() {
        let account = Identity::External(Box::new(external(POOL, file())));
        let made = json!({ "accessToken": "the-token", "expireTime": "2026-01-02T03:24:05Z" }).to_string();
        let answers = [Answer::Read(Ok("a.b.c".to_owned())), access_token("the-first-token"), ok(&made)];
        let (questions, token) = told(&source(impersonated(account), scope(), None), &answers);
        let asked_for = fields(&questions[1]).into_iter().find(|(name, _)| name == "scope").unwrap().1;
        assert_eq!(asked_for, "https://www.googleapis.com/auth/iam");
        assert_eq!(request(&questions[2]).url, ACCOUNT);
        assert_eq!(header(&questions[2], "authorization"), Some("Bearer the-first-token"));
        let expected = json!({
            "scope": ["https://a", "https://b"], "lifetime": "1200s", "delegates": ["d@p.iam.gserviceaccount.com"],
        });
        assert_eq!(body_json(&questions[2]), expected);
        assert_eq!((token.value.as_str(), token.expires_at), ("the-token", now() + SignedDuration::from_mins(20)));
    }

    #[test]
    fn an_impersonated_account_gives_id_tokens_and_acts_for_somebody_of_its_domain() {
        let id = format!("a.{}.c", BASE64_URL.encode(json!({ "exp": now().as_second() + 60 }).to_string()));
        let audience = Wants::Audience("https://run.example".to_owned());
        let answers = [access_token("the-first-token"), ok(&json!({ "token": id }).to_string())];
        let (questions, token) = told(&source(impersonated(person()), audience, None), &answers);
        assert_eq!(request(&questions[1]).url, ACCOUNT.replace(ACCESS_TOKEN, ":generateIdToken"));
        let delegates = ["d@p.iam.gserviceaccount.com"];
        let expected = json!({ "audience": "https://run.example", "includeEmail": true, "delegates": delegates });
        assert_eq!(body_json(&questions[1]), expected);
        assert_eq!((token.value, token.expires_at), (id, now() + SignedDuration::from_mins(1)));

        let signed = ok(&json!({ "keyId": "k", "signedJwt": "the.signed.assertion" }).to_string());
        let answers = [access_token("the-first-token"), signed, access_token("the-token")];
        let (questions, _) = told(&source(impersonated(person()), scope(), Some("jane@example.com")), &answers);
        assert_eq!(request(&questions[1]).url, ACCOUNT.replace(ACCESS_TOKEN, ":signJwt"));
        let payload: Json = serde_json::from_str(body_json(&questions[1])["payload"].as_str().unwrap()).unwrap();
        let expected = json!({
            "iss": "sa@p.iam.gserviceaccount.com", "scope": "https://a https://b", "sub": "jane@example.com",
            "aud": "https://oauth2.googleapis.com/token", "iat": 1_767_323_045, "exp": 1_767_326_645,
        });
        assert_eq!(payload, expected);
        assert_eq!(request(&questions[2]).url, TOKEN_URL);
        let assertion = ("assertion".to_owned(), "the.signed.assertion".to_owned());
        assert!(fields(&questions[2]).contains(&assertion));
    }

    fn aws(region: Option<&str>, has_keys: bool) -> SubjectSource {
        let keys = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "the/session+token==");
        let meta = |path: &str| Some(format!("http://169.254.169.254/latest/{path}"));
        SubjectSource::Aws(Box::new(AwsSource {
            region: region.map(str::to_owned),
            keys: has_keys.then(|| (keys.0.to_owned(), keys.1.to_owned(), Some(keys.2.to_owned()))),
            region_url: meta("meta-data/placement/availability-zone"),
            credentials_url: meta("meta-data/iam/security-credentials"),
            session_url: meta("api/token"),
            verification_url: "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"
                .to_owned(),
        }))
    }

    /// The request that a subject token stands for, as Google unfolds it.
    fn unfolded(question: &Question) -> Json {
        let (_, subject) = fields(question).into_iter().find(|(name, _)| name == "subject_token").unwrap();
        let text = percent_encoding::percent_decode_str(&subject).decode_utf8().unwrap().into_owned();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_question_to_aws_is_signed_as_googles_own_library_signs_it() {
        let account = Identity::External(Box::new(external(POOL, aws(Some("us-east-2"), true))));
        let (questions, _) = told(&source(account, scope(), None), &[access_token("the-token")]);
        let signed = unfolded(&questions[0]);
        let url = "https://sts.us-east-2.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15";
        assert_eq!((&signed["url"], &signed["method"]), (&json!(url), &json!("POST")));
        let headers = signed["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|header| (header["key"].as_str().unwrap(), header["value"].as_str().unwrap()));
        let headers: std::collections::BTreeMap<&str, &str> = headers.collect();
        let expected = [
            (
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-2/sts/aws4_request, \
                 SignedHeaders=host;x-amz-date;x-amz-security-token, \
                 Signature=a68cd2ca74d720bd5038723f6643474f34230b12218bc35049f3a3eb55e534d6",
            ),
            ("host", "sts.us-east-2.amazonaws.com"),
            ("x-amz-date", "20260102T030405Z"),
            ("x-amz-security-token", "the/session+token=="),
            ("x-goog-cloud-target-resource", POOL),
        ];
        assert_eq!(headers, expected.into());
    }

    #[test]
    fn a_machine_of_awss_says_its_region_and_its_keys_in_one_session() {
        let account = Identity::External(Box::new(external(POOL, aws(None, false))));
        let keys = json!({ "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "the-secret-key", "Token": "the-session" });
        let answers = [ok("imds"), ok("us-east-2b"), ok("role\n"), ok(&keys.to_string()), access_token("the-token")];
        let (questions, _) = told(&source(account, scope(), None), &answers);
        assert!(questions[..4].iter().all(|question| matches!(question, Question::AskNear(_))), "past every proxy");
        let asked: Vec<(&str, &str)> = questions[..4]
            .iter()
            .map(|question| {
                (request(question).method.as_str(), &request(question).url["http://169.254.169.254/latest/".len()..])
            })
            .collect();
        let expected = [
            ("PUT", "api/token"),
            ("GET", "meta-data/placement/availability-zone"),
            ("GET", "meta-data/iam/security-credentials"),
            ("GET", "meta-data/iam/security-credentials/role"),
        ];
        assert_eq!(asked, expected);
        assert_eq!(header(&questions[0], "x-aws-ec2-metadata-token-ttl-seconds"), Some("300"));
        assert!(questions[1..4].iter().all(|question| header(question, "x-aws-ec2-metadata-token") == Some("imds")));
        let authorization = unfolded(&questions[4])["headers"].to_string();
        assert!(authorization.contains("AKIDEXAMPLE/20260102/us-east-2/sts/aws4_request"), "{authorization}");
    }

    #[test]
    fn a_person_asks_with_their_refresh_token_and_no_scope() {
        let (questions, _) = told(&source(person(), scope(), None), &[access_token("the-token")]);
        let mut fields = fields(&questions[0]);
        fields.sort();
        let expected = [
            ("client_id", "the-client"),
            ("client_secret", "the-client-secret"),
            ("grant_type", "refresh_token"),
            ("refresh_token", "the-refresh-token"),
        ];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_refresh_token_that_is_replaced_behind_an_impersonated_account_is_kept() {
        let renewed = json!({ "access_token": "the-first-token", "refresh_token": "the-next-one" }).to_string();
        let made = json!({ "accessToken": "the-token", "expireTime": "2026-01-02T04:04:05Z" }).to_string();
        let source = source(impersonated(person()), scope(), None);
        let (_, token) = told(&source, &[ok(&renewed), ok(&made)]);
        assert_eq!(token.refresh_token.as_deref(), Some("the-next-one"));
        let Ok(Step::Ask(question)) = source.step(&[], Occasion { refresh_token: Some("the-next-one"), ..occasion() })
        else {
            panic!("no question")
        };
        assert!(fields(&question).contains(&("refresh_token".to_owned(), "the-next-one".to_owned())));
    }

    #[test]
    fn a_service_account_of_another_cloud_signs_its_own_access_token() {
        let (questions, token) = told(&source(service_account("example.cloud"), scope(), None), &[]);
        assert!(questions.is_empty());
        let claims = BASE64_URL.decode(token.value.split('.').nth(1).unwrap()).unwrap();
        let claims: Json = serde_json::from_slice(&claims).unwrap();
        let expected = json!({
            "iss": "a@b.iam.gserviceaccount.com", "sub": "a@b.iam.gserviceaccount.com", "scope": "https://a https://b",
            "iat": 1_767_323_045, "exp": 1_767_326_645,
        });
        assert_eq!(claims, expected);

        let audience = Wants::Audience("https://run.example".to_owned());
        let source = source(service_account("example.cloud"), audience, None);
        let (questions, _) = told(&source, &[ok(&json!({ "token": "a.b.c" }).to_string())]);
        let url = "https://iamcredentials.example.cloud/v1/projects/-/serviceAccounts/a@b.iam.gserviceaccount.com:generateIdToken";
        assert_eq!(request(&questions[0]).url, url);
    }

    #[test]
    fn the_metadata_server_is_asked_for_both_kinds_of_token() {
        let machine = || Identity::Metadata { host: METADATA_HOST.to_owned() };
        let (questions, _) = told(&source(machine(), scope(), None), &[access_token("the-token")]);
        assert!(matches!(questions[0], Question::AskNear(_)), "past every proxy");
        assert_eq!(
            request(&questions[0]).url,
            "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token?scopes=https%3A%2F%2Fa%2Chttps%3A%2F%2Fb"
        );
        assert_eq!(header(&questions[0], "metadata-flavor"), Some("Google"));
        let audience = Wants::Audience("https://run.example".to_owned());
        let (questions, token) = told(&source(machine(), audience, None), &[ok("an.id.token\n")]);
        assert_eq!(
            request(&questions[0]).url,
            "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/identity?audience=https%3A%2F%2Frun.example&format=full"
        );
        assert_eq!(token.value, "an.id.token");
    }

    #[test]
    fn what_goes_wrong_says_who_was_asked_and_what_they_said_and_none_of_what_was_learned() {
        let account = || Identity::External(Box::new(external(POOL, file())));
        let subject = || Answer::Read(Ok("the.subject.token".to_owned()));
        let refused = json!({ "error": "invalid_grant", "error_description": "who is the.subject.token?" }).to_string();
        let denied =
            json!({ "error": { "code": 403, "message": "not for the-first-token", "status": "PERMISSION_DENIED" } });
        let own = source(account(), scope(), None);
        assert_eq!(
            failure(&own, &[Answer::Read(Err("no such file".to_owned()))]),
            "cannot read /var/run/token: no such file"
        );
        assert_eq!(failure(&own, &[Answer::Read(Ok(" \n".to_owned()))]), "/var/run/token is empty");
        assert_eq!(
            failure(&own, &[subject(), answered(400, &refused)]),
            "asking https://sts.googleapis.com/v1/token for a token: status 400: invalid_grant: who is [secret]?"
        );
        assert_eq!(
            failure(&own, &[subject(), answered(503, "busy")]),
            "later: asking https://sts.googleapis.com/v1/token for a token: status 503: busy"
        );
        let speaking = source(impersonated(account()), scope(), None);
        assert_eq!(
            failure(&speaking, &[subject(), access_token("the-first-token"), answered(403, &denied.to_string())]),
            format!("asking {ACCOUNT} for a token: status 403: PERMISSION_DENIED: not for [secret]")
        );
        let aws = source(Identity::External(Box::new(external(POOL, aws(None, false)))), scope(), None);
        assert_eq!(
            failure(&aws, &[ok("imds"), ok("<html>")]),
            "asking http://169.254.169.254/latest/meta-data/placement/availability-zone for the region of AWS: \
             the answer is no availability zone"
        );
    }

    #[test]
    fn a_subject_token_stands_in_json_where_the_credentials_say() {
        let format = SubjectFormat::Json("access_token".to_owned());
        let url = "https://issuer.example/token?key=hush".to_owned();
        let from = SubjectSource::Url { url, headers: vec![("X-Key".to_owned(), "hush".to_owned())], format };
        let own = source(Identity::External(Box::new(external(POOL, from))), scope(), None);
        let (questions, _) = told(&own, &[ok(r#"{ "access_token": "a.b.c" }"#), access_token("the-token")]);
        assert_eq!(header(&questions[0], "x-key"), Some("hush"));
        assert!(fields(&questions[1]).contains(&("subject_token".to_owned(), "a.b.c".to_owned())));
        assert_eq!(
            failure(&own, &[ok("a.b.c")]),
            "asking https://issuer.example/token for a subject token: the answer has no text `access_token` as JSON"
        );
    }
}
