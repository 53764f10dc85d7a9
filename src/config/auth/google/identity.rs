//! Credentials of Google's from their JSON; else why not, without a word of it.

use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivatePkcs1KeyDer, PrivatePkcs8KeyDer};
use serde_json::Value as Json;
use url::Url;

use crate::config::address::is_header;
use crate::config::expressions::Expressions;
use crate::config::spelling::alternatives;
use crate::plan::auth::external::{AwsSource, External, SubjectFormat, SubjectSource};
use crate::plan::auth::google::{
    ACCESS_TOKEN, Identity, Impersonated, QUOTA_HEADER, ServiceAccount, TOKEN_URL, UNIVERSE,
};
use crate::plan::auth::token::{ClientStyle, Grant, OAuth2};

/// What credentials there are. What stands there otherwise may be anything, and is not told.
const TYPES: [&str; 5] = [
    "service_account",
    "authorized_user",
    "external_account",
    "external_account_authorized_user",
    "impersonated_service_account",
];

/// How long a token of an impersonated account is good for when nobody says.
const LIFETIME_SECONDS: u32 = 3600;

/// How long it may be (<https://google.aip.dev/auth/4117>, read 2026-11-26).
const LIFETIMES: std::ops::RangeInclusive<u64> = 600..=43_200;

/// Who gives tokens to people of a workforce pool.
const USER_TOKEN_URL: &str = "https://sts.googleapis.com/v1/oauthtoken";

/// What credentials say.
pub(super) struct Somebody {
    /// Who we are.
    pub(super) identity: Identity,
    /// Which project is charged, if they or the environment say it.
    pub(super) quota_project: Option<String>,
}

/// Why credentials cannot be used.
pub(super) struct Mistake {
    /// What they do, as `have no …`.
    pub(super) why: String,
    /// They can, but not where the file is to run.
    pub(super) is_of_target: bool,
}

/// Reads credentials; looks around for what they say is there.
pub(super) struct Reader<'e, 'a> {
    expressions: &'e Expressions<'a>,
}

/// A JSON object, and what its keys are called in messages.
#[derive(Clone, Copy)]
struct Keys<'j> {
    json: &'j Json,
    prefix: &'static str,
}

impl From<String> for Mistake {
    fn from(why: String) -> Self {
        Self { why, is_of_target: false }
    }
}

impl From<&str> for Mistake {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

/// What somebody is, for people.
pub(super) fn kind(identity: &Identity) -> &'static str {
    match identity {
        Identity::ServiceAccount(_) => "a service account's key",
        Identity::User(_) => "a person's refresh token",
        Identity::External(_) => "an external account",
        Identity::Impersonated(_) => "an impersonated service account",
        Identity::Metadata { .. } => "the machine's own",
    }
}

// === impl Reader ===

impl<'e, 'a> Reader<'e, 'a> {
    pub(super) fn new(expressions: &'e Expressions<'a>) -> Self {
        Self { expressions }
    }

    pub(super) fn read(&self, text: &str) -> Result<Somebody, Mistake> {
        let json: Json = serde_json::from_str(text).map_err(|_| Mistake::from("are not JSON"))?;
        let keys = Keys { json: &json, prefix: "" };
        let identity = match keys.given("type") {
            Some("impersonated_service_account") => self.impersonated(keys),
            _ => self.direct(keys),
        }?;
        let of_environment = self.expressions.look_up(super::QUOTA_VARIABLE);
        let quota_project = of_environment.or_else(|| keys.given("quota_project_id").map(str::to_owned));
        if quota_project.as_ref().is_some_and(|project| !is_header(QUOTA_HEADER, project)) {
            return Err("have a `quota_project_id` that is no project".into());
        }
        Ok(Somebody { identity, quota_project })
    }

    /// Somebody who speaks for themselves.
    fn direct(&self, keys: Keys<'_>) -> Result<Identity, Mistake> {
        let kind = keys.needed("type")?;
        match kind {
            "service_account" => service_account(keys).map(|account| Identity::ServiceAccount(Box::new(account))),
            "authorized_user" => authorized_user(keys).map(Identity::User),
            "external_account_authorized_user" => external_user(keys).map(Identity::User),
            "external_account" => self.external(keys),
            "impersonated_service_account" => {
                Err(Mistake::from("impersonate from an impersonated account; name those between in `delegates`"))
            }
            "gdch_service_account" => {
                Err(Mistake::from("are of the type `gdch_service_account`, which is for Google's air-gapped clouds"))
            }
            _ => Err(format!("have a `{}` that is not {}", keys.name("type"), alternatives(TYPES.into_iter())).into()),
        }
    }

    fn impersonated(&self, keys: Keys<'_>) -> Result<Identity, Mistake> {
        let url = keys.impersonation_url()?.ok_or_else(|| keys.without("service_account_impersonation_url"))?;
        let source = self.direct(keys.below("source_credentials", "source_credentials.")?)?;
        let text = |one: &Json| one.as_str().map(resource_name);
        let delegates = match keys.json["delegates"].as_array() {
            None if keys.json["delegates"].is_null() => Some(Vec::new()),
            list => list.and_then(|list| list.iter().map(text).collect()),
        };
        let delegates = delegates.ok_or("have `delegates` that are no list of texts")?;
        let lifetime_seconds = LIFETIME_SECONDS;
        Ok(Identity::Impersonated(Box::new(Impersonated { source, url, delegates, lifetime_seconds })))
    }

    fn external(&self, keys: Keys<'_>) -> Result<Identity, Mistake> {
        let universe = keys.given("universe_domain").unwrap_or(UNIVERSE);
        let token_url = keys.url("token_url")?.unwrap_or_else(|| format!("https://sts.{universe}/v1/token"));
        let user_project = keys.given("workforce_pool_user_project");
        let audience = keys.needed("audience")?;
        // What people of a workforce pool have, and workloads have not.
        let is_workforce = audience.contains("/workforcePools/");
        if user_project.is_some() && !is_workforce {
            let why = "have a `workforce_pool_user_project`, but an `audience` that is no workforce pool";
            return Err(why.into());
        }
        let secret = keys.given("client_secret").unwrap_or_default();
        let external = Identity::External(Box::new(External {
            audience: audience.to_owned(),
            token_type: keys.needed("subject_token_type")?.to_owned(),
            token_url,
            source: self.source(keys.below("credential_source", "credential_source.")?)?,
            client: keys.given("client_id").map(|id| (id.to_owned(), secret.to_owned())),
            user_project: user_project.map(str::to_owned),
        }));
        let Some(url) = keys.impersonation_url()? else { return Ok(external) };
        let lifetime_seconds = lifetime(&keys.json["service_account_impersonation"]["token_lifetime_seconds"])?;
        let delegates = Vec::new();
        Ok(Identity::Impersonated(Box::new(Impersonated { source: external, url, delegates, lifetime_seconds })))
    }

    fn source(&self, keys: Keys<'_>) -> Result<SubjectSource, Mistake> {
        let has = |key: &str| !keys.json[key].is_null();
        if has("executable") {
            let why = "have a `credential_source.executable`, and Libroseg starts no programs; have it write a file, and \
                       name that as `credential_source.file`";
            return Err(why.into());
        }
        if has("certificate") {
            let why = "have a `credential_source.certificate`, which is not supported: STS would have to be asked with the \
                       certificate itself";
            return Err(why.into());
        }
        if has("environment_id") {
            return self.aws(keys).map(|aws| SubjectSource::Aws(Box::new(aws)));
        }
        let format = format(keys)?;
        match (keys.given("file"), keys.url("url")?) {
            (Some(_), Some(_)) => Err("have both `credential_source.file` and `credential_source.url`".into()),
            (Some(_), None) if !self.expressions.has_files() => {
                let why = "have a `credential_source.file`, and the function has no files of yours".to_owned();
                Err(Mistake { why, is_of_target: true })
            }
            (Some(path), None) => Ok(SubjectSource::File { path: path.to_owned(), format }),
            (None, Some(url)) => Ok(SubjectSource::Url { url, headers: headers(keys)?, format }),
            (None, None) => Err("have a `credential_source` without `file`, `url` or `environment_id`".into()),
        }
    }

    /// What the environment says of us at AWS counts first, as in AWS's own tools.
    fn aws(&self, keys: Keys<'_>) -> Result<AwsSource, Mistake> {
        if keys.given("environment_id") != Some("aws1") {
            return Err("have a `credential_source.environment_id` that is not `aws1`".into());
        }
        let look_up = |name: &str| self.expressions.look_up(name);
        let region = look_up("AWS_REGION").or_else(|| look_up("AWS_DEFAULT_REGION"));
        let pair = look_up("AWS_ACCESS_KEY_ID").zip(look_up("AWS_SECRET_ACCESS_KEY"));
        let own = pair.map(|(id, key)| (id, key, look_up("AWS_SESSION_TOKEN")));
        let (region_url, credentials_url) = (keys.url("region_url")?, keys.url("url")?);
        if region.is_none() && region_url.is_none() {
            return Err("have no `credential_source.region_url`, and AWS_REGION is not set".into());
        }
        if own.is_none() && credentials_url.is_none() {
            return Err(
                "have no `credential_source.url`, and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set".into()
            );
        }
        let verification = keys.needed("regional_cred_verification_url")?;
        let is_url =
            Url::parse(&verification.replace("{region}", "us-east-1")).is_ok_and(|url| url.scheme() == "https");
        if !is_url {
            return Err("have a `credential_source.regional_cred_verification_url` that is no URL with `https`".into());
        }
        Ok(AwsSource {
            region,
            keys: own,
            region_url,
            credentials_url,
            session_url: keys.url("imdsv2_session_token_url")?,
            verification_url: verification.to_owned(),
        })
    }
}

/// IAM wants an account's whole name where people write its address.
fn resource_name(account: &str) -> String {
    if account.contains('/') { account.to_owned() } else { format!("projects/-/serviceAccounts/{account}") }
}

// --- kinds

fn service_account(keys: Keys<'_>) -> Result<ServiceAccount, Mistake> {
    let secret = keys.needed("private_key")?.to_owned();
    let token_url = keys.url("token_uri")?.unwrap_or_else(|| TOKEN_URL.to_owned());
    Ok(ServiceAccount {
        email: keys.needed("client_email")?.to_owned(),
        key_id: keys.given("private_key_id").map(str::to_owned),
        key: key(&secret)
            .ok_or_else(|| format!("have a `{}` that is not an RSA key in PEM", keys.name("private_key")))?,
        secret,
        token_url,
        universe: keys.given("universe_domain").unwrap_or(UNIVERSE).to_owned(),
    })
}

/// The scopes were chosen when the person logged in; the endpoint would refuse others.
fn authorized_user(keys: Keys<'_>) -> Result<OAuth2, Mistake> {
    if keys.given("universe_domain").is_some_and(|universe| universe != UNIVERSE) {
        return Err("are a person's, who are known in googleapis.com alone, but have another `universe_domain`".into());
    }
    let token_url = keys.url("token_uri")?.unwrap_or_else(|| TOKEN_URL.to_owned());
    user(keys, token_url, ClientStyle::Body)
}

fn external_user(keys: Keys<'_>) -> Result<OAuth2, Mistake> {
    let token_url = keys.url("token_url")?.unwrap_or_else(|| USER_TOKEN_URL.to_owned());
    user(keys, token_url, ClientStyle::BasicAsIs)
}

fn user(keys: Keys<'_>, token_url: String, style: ClientStyle) -> Result<OAuth2, Mistake> {
    Ok(OAuth2 {
        token_url,
        grant: Grant::RefreshToken(keys.needed("refresh_token")?.to_owned()),
        client_id: keys.needed("client_id")?.to_owned(),
        client_secret: Some(keys.needed("client_secret")?.to_owned()),
        style,
        scope: None,
        audience: None,
        params: Vec::new(),
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

fn format(keys: Keys<'_>) -> Result<SubjectFormat, Mistake> {
    let format = &keys.json["format"];
    match (format["type"].as_str(), format["subject_token_field_name"].as_str()) {
        (Some("text"), _) => Ok(SubjectFormat::Text),
        (None, _) if format["type"].is_null() => Ok(SubjectFormat::Text),
        (Some("json"), Some(key)) if !key.is_empty() => Ok(SubjectFormat::Json(key.to_owned())),
        (Some("json"), _) => Err("have no `credential_source.format.subject_token_field_name`".into()),
        (_, _) => Err("have a `credential_source.format.type` that is not `text` or `json`".into()),
    }
}

fn headers(keys: Keys<'_>) -> Result<Vec<(String, String)>, Mistake> {
    let headers = &keys.json["headers"];
    if headers.is_null() {
        return Ok(Vec::new());
    }
    let headers = headers.as_object().ok_or("have `credential_source.headers` that are no object")?;
    let pair = |(name, value): (&String, &Json)| {
        let value = value.as_str().filter(|value| is_header(name, value));
        Ok((name.clone(), value.ok_or("have `credential_source.headers` that cannot be sent")?.to_owned()))
    };
    headers.iter().map(pair).collect()
}

/// Seconds as a number, or as gcloud writes them, as text.
fn lifetime(json: &Json) -> Result<u32, Mistake> {
    if json.is_null() {
        return Ok(LIFETIME_SECONDS);
    }
    let seconds = json.as_u64().or_else(|| json.as_str()?.parse().ok()).filter(|seconds| LIFETIMES.contains(seconds));
    let seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok());
    seconds.ok_or_else(|| {
        let (least, most) = (LIFETIMES.start(), LIFETIMES.end());
        format!("have a `service_account_impersonation.token_lifetime_seconds` that is not within {least} and {most}")
            .into()
    })
}

// === impl Keys ===

impl<'j> Keys<'j> {
    fn name(self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn without(self, key: &str) -> Mistake {
        format!("have no `{}`", self.name(key)).into()
    }

    /// A text that is there and not empty.
    fn given(self, key: &str) -> Option<&'j str> {
        self.json[key].as_str().filter(|text| !text.is_empty())
    }

    fn needed(self, key: &str) -> Result<&'j str, Mistake> {
        self.given(key).ok_or_else(|| self.without(key))
    }

    fn url(self, key: &str) -> Result<Option<String>, Mistake> {
        let is_url = |text: &&str| Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "https" | "http"));
        match self.given(key) {
            None => Ok(None),
            Some(text) => match Some(text).filter(is_url) {
                Some(url) => Ok(Some(url.to_owned())),
                None => Err(format!("have a `{}` that is not a URL", self.name(key)).into()),
            },
        }
    }

    fn impersonation_url(self) -> Result<Option<String>, Mistake> {
        let key = "service_account_impersonation_url";
        match self.url(key)? {
            Some(url) if !(url.contains("/serviceAccounts/") && url.ends_with(ACCESS_TOKEN)) => {
                Err(format!("have a `{key}` that does not end with `/serviceAccounts/…{ACCESS_TOKEN}`").into())
            }
            url => Ok(url),
        }
    }

    /// An object in it.
    fn below(self, key: &str, prefix: &'static str) -> Result<Self, Mistake> {
        let json = &self.json[key];
        if json.is_object() { Ok(Self { json, prefix }) } else { Err(self.without(key)) }
    }
}
