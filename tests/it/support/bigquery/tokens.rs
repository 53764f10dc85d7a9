//! Tokens for service accounts, and whom they let in: <https://developers.google.com/identity/protocols/oauth2/service-account>,
//! read 2026-11-26.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::discovery::Method;
use super::replies::{Content, Reply};

/// A key made for tests: it opens nothing.
const ACCOUNT: &str = include_str!("../../../fixtures/auth/service-account.json");

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// What Google's own clients write into `aud`, wherever they send the assertion.
const GOOGLE: &str = "https://oauth2.googleapis.com/token";

/// How long a token is good for, and the longest that an assertion may be.
const LIFE: Duration = Duration::from_hours(1);

/// How far the clocks of others may be off.
const SKEW_SECONDS: i64 = 300;

/// Those that were given out.
pub(super) struct Tokens {
    endpoint: String,
    given: BTreeMap<String, Token>,
    count: usize,
}

struct Token {
    scopes: String,
    until: Timestamp,
}

/// The key file, with the token endpoint of this server.
pub(super) fn credentials(endpoint: &str) -> String {
    let mut account = account();
    account["token_uri"] = format!("{endpoint}/token").into();
    account.to_string()
}

fn account() -> Value {
    serde_json::from_str(ACCOUNT).unwrap()
}

impl Tokens {
    pub(super) fn new(endpoint: &str) -> Self {
        Self { endpoint: endpoint.to_owned(), given: BTreeMap::new(), count: 0 }
    }

    pub(super) fn forget(&mut self) {
        self.given.clear();
    }

    pub(super) fn give(&mut self, scopes: &str, now: Timestamp) -> String {
        self.count += 1;
        let name = format!("ya29.c.token-{}", self.count);
        self.given.insert(name.clone(), Token { scopes: scopes.to_owned(), until: now + LIFE });
        name
    }

    /// `POST /token`.
    pub(super) fn exchange(&mut self, form: &[(String, String)], now: Timestamp) -> Reply {
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        if field("grant_type") != Some(GRANT) {
            return refused("unsupported_grant_type", "Invalid grant_type");
        }
        match self.scopes_of(field("assertion").unwrap_or_default(), now) {
            Ok(scopes) => {
                let token = self.give(&scopes, now);
                Reply::json(json!({ "access_token": token, "expires_in": 3599, "token_type": "Bearer" }))
            }
            Err((error, description)) => refused(error, description),
        }
    }

    /// The scopes that an assertion asks for.
    fn scopes_of(&self, assertion: &str, now: Timestamp) -> Result<String, (&'static str, &'static str)> {
        let invalid = |description| ("invalid_grant", description);
        let malformed = invalid("Invalid JWT: malformed");
        let (signed, signature) = assertion.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(malformed)?;
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed);
        let read = |part: &str| serde_json::from_slice::<Value>(&decoded(part)?).map_err(|_| malformed);
        let (header, claims, account) = (read(header)?, read(claims)?, account());
        if claims["iss"] != account["client_email"] {
            return Err(invalid("Invalid grant: account not found"));
        }
        let is_ours = header["alg"] == "RS256" && [&Value::Null, &account["private_key_id"]].contains(&&header["kid"]);
        if !is_ours || !is_signed(&account, signed, &decoded(signature)?) {
            return Err(invalid("Invalid JWT Signature."));
        }
        if claims["aud"] != format!("{}/token", self.endpoint) && claims["aud"] != GOOGLE {
            return Err(invalid("Invalid JWT: Failed audience check."));
        }
        let (issued, ends) = (claims["iat"].as_i64().ok_or(malformed)?, claims["exp"].as_i64().ok_or(malformed)?);
        let now = now.as_second();
        let is_short = ends > issued && ends - issued <= 3600;
        if !is_short || issued > now + SKEW_SECONDS || ends < now - SKEW_SECONDS {
            return Err(invalid(
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your \
                 iat and exp values in the JWT claim.",
            ));
        }
        let scopes = claims["scope"].as_str().unwrap_or_default();
        let is_scope = |scope: &str| scope.starts_with("https://www.googleapis.com/auth/");
        if scopes.is_empty() || !scopes.split(' ').all(is_scope) {
            return Err(("invalid_scope", "Invalid OAuth scope or ID token audience provided."));
        }
        Ok(scopes.to_owned())
    }

    /// Whether a call may be made with what its headers bring.
    pub(super) fn admit(&self, headers: &HeaderMap, method: &Method, now: Timestamp) -> Result<(), Reply> {
        let Some(header) = headers.get("authorization") else {
            let message = "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.";
            let reply = Reply::error_in_header(401, "required", message, "Authorization");
            return Err(reply.challenge("Bearer realm=\"https://accounts.google.com/\""));
        };
        let token = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        let Some(token) = token.and_then(|token| self.given.get(token)).filter(|token| token.until > now) else {
            let message = "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.";
            let reply = Reply::error_in_header(401, "authError", message, "Authorization");
            return Err(reply.challenge("Bearer realm=\"https://accounts.google.com/\", error=\"invalid_token\""));
        };
        if method.scopes().any(|scope| token.scopes.split(' ').any(|given| given == scope)) {
            return Ok(());
        }
        let wanted = method.scopes().collect::<Vec<_>>().join(" ");
        let challenge =
            format!("Bearer realm=\"https://accounts.google.com/\", error=\"insufficient_scope\", scope=\"{wanted}\"");
        let message = "Request had insufficient authentication scopes.";
        Err(Reply::error(403, "insufficientPermissions", message).challenge(&challenge))
    }
}

fn is_signed(account: &Value, signed: &str, signature: &[u8]) -> bool {
    let pem = account["private_key"].as_str().unwrap();
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
    public.verify(signed.as_bytes(), signature).is_ok()
}

/// An error in the form of OAuth.
fn refused(error: &str, description: &str) -> Reply {
    let body = json!({ "error": error, "error_description": description });
    Reply { status: 400, content: Content::Json(body), challenge: None }
}
