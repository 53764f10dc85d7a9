//! `auth.google`: a token of Google's, for a service account.

use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivatePkcs1KeyDer, PrivatePkcs8KeyDer};
use serde_json::Value as Json;
use url::Url;

use super::{UNKNOWN, constant, secret, words};
use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::expressions::Expressions;
use crate::config::table::{Field, Table};
use crate::plan::auth::token::{ServiceAccount, TokenSource, Wants};

/// Who gives tokens when the credentials do not say.
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";

/// What Google's other credentials are called. What stands there otherwise may be anything, and is not told.
const OTHER_TYPES: [&str; 4] =
    ["authorized_user", "external_account", "external_account_authorized_user", "impersonated_service_account"];

/// Reads the credentials; `None` also where they are not known.
pub(super) fn read(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<TokenSource> {
    let table = field.table("`google`")?;
    let help = "write `credentials = \"{{ file('/run/secrets/google.json') }}\"`";
    let credentials = table.require("credentials", help);
    let text = credentials.as_ref().and_then(|field| secret(expressions, field));
    let wants = wants(expressions, &table);
    let subject = table.get("subject").and_then(|field| constant(expressions, &field));
    table.finish();
    let (wants, field, text) = (wants?, credentials?, text.filter(|text| text != UNKNOWN)?);
    let account = account(&text).map_err(|why| {
        let error = field.error(Code::BadKey, format!("`credentials` {why}"));
        expressions.findings.add(error.help("a service account's JSON is wanted; what is there is not shown"));
    });
    Some(TokenSource::Google(Box::new(ServiceAccount { wants, subject, ..account.ok()? })))
}

/// `scope` or `audience`.
fn wants(expressions: &Expressions<'_>, table: &Table<'_>) -> Option<Wants> {
    let help = "for example `scope = \"https://www.googleapis.com/auth/bigquery.insertdata\"`";
    match (table.get("scope"), table.get("audience")) {
        (Some(_), Some(audience)) => {
            let message = "`google` wants `scope` for an access token or `audience` for an ID token, not both";
            expressions.findings.add(Diagnostic::error(Code::BadValue, audience.key_span(), message));
            None
        }
        (None, Some(audience)) => constant(expressions, &audience).map(Wants::Audience),
        (scope, None) => {
            let scope = scope.or_else(|| table.require("scope", help))?;
            words(expressions, &scope).map(Wants::Scope)
        }
    }
}

/// A service account from its JSON; else why not, without a word of it.
fn account(text: &str) -> Result<ServiceAccount, String> {
    let json: Json = serde_json::from_str(text).map_err(|_| "are not JSON".to_owned())?;
    match json["type"].as_str() {
        Some("service_account") => {}
        Some(other) if OTHER_TYPES.contains(&other) => return Err(format!("are of the type `{other}`")),
        Some(_) | None => return Err("do not say `\"type\": \"service_account\"`".to_owned()),
    }
    let given = |key: &str| json[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let needed = |key: &str| given(key).ok_or_else(|| format!("have no `{key}`"));
    let secret = needed("private_key")?;
    let token_url = given("token_uri").unwrap_or_else(|| TOKEN_URL.to_owned());
    let is_url = Url::parse(&token_url).is_ok_and(|url| matches!(url.scheme(), "https" | "http"));
    if !is_url {
        return Err("have a `token_uri` that is not a URL".to_owned());
    }
    Ok(ServiceAccount {
        email: needed("client_email")?,
        key_id: given("private_key_id"),
        key: key(&secret).ok_or("have a `private_key` that is not an RSA key in PEM")?,
        secret,
        token_url,
        wants: Wants::Scope(String::new()),
        subject: None,
    })
}

/// The key, after it has signed something.
fn key(pem: &str) -> Option<RsaKeyPair> {
    let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes());
    let pkcs1 = PrivatePkcs1KeyDer::from_pem_slice(pem.as_bytes());
    let key = match (pkcs8, pkcs1) {
        (Ok(der), _) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok()?,
        (_, Ok(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok()?,
        (Err(_), Err(_)) => return None,
    };
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), b"", &mut signature).ok()?;
    Some(key)
}
