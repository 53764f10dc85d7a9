//! Workload and workforce identity federation: another service says who we are, and Google's STS believes it.
//!
//! Written after <https://google.aip.dev/auth/4117> and google-auth 2.63.0 for Python, both read 2026-11-26, and RFC 8693.

use serde_json::{Value as Json, json};

use super::super::Request;
use super::asking::{Asking, Stop};
use super::aws::Aws;
use super::google::text;
use super::token::{Token, basic};
use super::{AUTHORIZATION, encoded};

/// Somebody whom another service knows.
pub struct External {
    /// For which provider of which pool the other service's word is.
    pub audience: String,
    /// What its word is, as RFC 8693 calls it.
    pub token_type: String,
    /// The endpoint that takes it.
    pub token_url: String,
    /// Where it comes from.
    pub source: SubjectSource,
    /// Our id and secret at the endpoint, if it knows us as a client.
    pub client: Option<(String, String)>,
    /// The project that a person of a workforce pool works for.
    pub user_project: Option<String>,
}

/// Where the other service's word comes from, afresh for every token: it does not last.
pub enum SubjectSource {
    /// A file, which somebody else keeps fresh.
    File {
        /// Where.
        path: String,
        /// How the word stands in it.
        format: SubjectFormat,
    },
    /// An address.
    Url {
        /// Where.
        url: String,
        /// What it wants to see.
        headers: Vec<(String, String)>,
        /// How the word stands in the answer.
        format: SubjectFormat,
    },
    /// AWS: a signed question that only we can have asked.
    Aws(Box<AwsSource>),
}

/// How a token stands in a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SubjectFormat {
    /// It is the text.
    #[default]
    Text,
    /// It is the string of this name in a JSON object.
    Json(String),
}

/// Who we are at AWS: what the environment says, and otherwise the machine's metadata server.
pub struct AwsSource {
    /// The region, if the environment says it.
    pub region: Option<String>,
    /// Key id, key and session token, if the environment says them.
    pub keys: Option<(String, String, Option<String>)>,
    /// Where the machine says its availability zone.
    pub region_url: Option<String>,
    /// Where the machine says the name of its role, and below it the role's keys.
    pub credentials_url: Option<String>,
    /// Where the machine gives a session for these questions (`IMDSv2`), if it wants one.
    pub session_url: Option<String>,
    /// The question that is signed, with `{region}`.
    pub verification_url: String,
}

const EXCHANGE_GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
const SUBJECT: &str = "a subject token";

/// So long a session with AWS's metadata server is good for: it is used at once.
const SESSION_SECONDS: &str = "300";

// === impl External ===

impl External {
    pub(super) fn token(&self, scope: &str, asking: &mut Asking<'_>) -> Result<Token, Stop> {
        let subject = self.source.subject(&self.audience, asking)?;
        asking.learn(&subject);
        let mut fields = vec![
            ("grant_type", EXCHANGE_GRANT),
            ("audience", &self.audience),
            ("scope", scope),
            ("requested_token_type", ACCESS_TOKEN_TYPE),
            ("subject_token", &subject),
            ("subject_token_type", &self.token_type),
        ];
        // A client's id says which project it is.
        let project = self.user_project.as_ref().filter(|_| self.client.is_none());
        let options = project.map(|project| encoded(&json!({ "userProject": project }).to_string()));
        fields.extend(options.as_ref().map(|options| ("options", options.as_str())));
        let mut request = asking.form(&self.token_url, &fields);
        let client = self.client.as_ref().map(|(id, secret)| (AUTHORIZATION.to_owned(), basic(id, secret)));
        request.headers.extend(client);
        asking.token(request)
    }

    pub(super) fn secrets(&self) -> Vec<String> {
        let client = self.client.iter().flat_map(|(id, secret)| [secret.clone(), basic(id, secret)]);
        client.chain(self.source.secrets()).collect()
    }
}

// === impl SubjectSource ===

impl SubjectSource {
    fn subject(&self, audience: &str, asking: &mut Asking<'_>) -> Result<String, Stop> {
        match self {
            Self::File { path, format } => {
                let content = asking.read(path)?;
                format.find(&content).map_err(|why| Asking::unreadable(path, &why))
            }
            Self::Url { url, headers, format } => {
                let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let request = asking.get(url, headers);
                // What is not encrypted is the machine's own, as Azure's metadata server is.
                let is_near = url.starts_with("http://");
                let answer = if is_near { asking.ask_near(SUBJECT, request) } else { asking.ask(SUBJECT, request) }?;
                let content = String::from_utf8_lossy(&answer);
                format.find(&content).map_err(|why| asking.unusable(SUBJECT, url, &format!("the answer {why}")))
            }
            Self::Aws(aws) => aws.subject(audience, asking),
        }
    }

    fn secrets(&self) -> Vec<String> {
        match self {
            Self::File { .. } => Vec::new(),
            Self::Url { headers, .. } => headers.iter().map(|(_, value)| value.clone()).collect(),
            Self::Aws(aws) => match &aws.keys {
                Some((_, key, session)) => [Some(key), session.as_ref()].into_iter().flatten().cloned().collect(),
                None => Vec::new(),
            },
        }
    }
}

impl SubjectFormat {
    /// The token in a text; else what the text is instead.
    fn find(&self, content: &str) -> Result<String, String> {
        let content = content.trim();
        let token = match self {
            Self::Text => content.to_owned(),
            Self::Json(key) => text(content.as_bytes(), key).ok_or_else(|| format!("has no text `{key}` as JSON"))?,
        };
        if token.is_empty() { Err("is empty".to_owned()) } else { Ok(token) }
    }
}

// === impl AwsSource ===

impl AwsSource {
    /// A signed request for `GetCallerIdentity` that was not sent: whoever sends it hears who we are.
    fn subject(&self, audience: &str, asking: &mut Asking<'_>) -> Result<String, Stop> {
        let session = self.session(asking)?;
        let region = self.region(session.as_deref(), asking)?;
        let aws = self.keys(&region, session.as_deref(), asking)?;
        let url = self.verification_url.replace("{region}", &region);
        let mut request = asking.get(&url, []);
        "POST".clone_into(&mut request.method);
        let signed = aws.sign_bare(&mut request, asking.occasion.now);
        signed.map_err(|error| asking.unusable("a signature", &url, &error.message))?;
        let headers = request.headers.iter().map(|(name, value)| json!({ "key": name, "value": value }));
        let target = json!({ "key": "x-goog-cloud-target-resource", "value": audience });
        let headers: Vec<Json> = headers.chain([target]).collect();
        Ok(encoded(&json!({ "url": url, "method": "POST", "headers": headers }).to_string()))
    }

    /// A session with the metadata server, if it is asked anything.
    fn session(&self, asking: &mut Asking<'_>) -> Result<Option<String>, Stop> {
        let Some(url) = self.session_url.as_ref().filter(|_| self.region.is_none() || self.keys.is_none()) else {
            return Ok(None);
        };
        let mut request = asking.get(url, [("x-aws-ec2-metadata-token-ttl-seconds", SESSION_SECONDS)]);
        "PUT".clone_into(&mut request.method);
        let session = plain(&asking.ask_near("a session of AWS", request)?);
        asking.learn(&session);
        Ok(Some(session))
    }

    fn region(&self, session: Option<&str>, asking: &mut Asking<'_>) -> Result<String, Stop> {
        if let Some(region) = &self.region {
            return Ok(region.clone());
        }
        let what = "the region of AWS";
        let url = self.region_url.as_deref().unwrap_or_default();
        let zone = plain(&asking.ask_near(what, metadata(url, session, asking))?);
        // A zone is a region and a letter: `us-east-2b`.
        let region = zone.strip_suffix(|c: char| c.is_ascii_lowercase()).filter(|region| is_name(region));
        region.map(str::to_owned).ok_or_else(|| asking.unusable(what, url, "the answer is no availability zone"))
    }

    fn keys(&self, region: &str, session: Option<&str>, asking: &mut Asking<'_>) -> Result<Aws, Stop> {
        if let Some((id, key, session_token)) = &self.keys {
            return Ok(aws(region, id.clone(), key.clone(), session_token.clone()));
        }
        let url = self.credentials_url.as_deref().unwrap_or_default();
        let role = plain(&asking.ask_near("the role at AWS", metadata(url, session, asking))?);
        let url = format!("{url}/{role}");
        let answer = asking.ask_near("the keys of AWS", metadata(&url, session, asking))?;
        let [id, key, token] = ["AccessKeyId", "SecretAccessKey", "Token"].map(|name| text(&answer, name));
        for secret in [&key, &token].into_iter().flatten() {
            asking.learn(secret);
        }
        let (Some(id), Some(key)) = (id, key) else {
            return Err(asking.unusable("the keys of AWS", &url, "there is no `SecretAccessKey` in the answer"));
        };
        Ok(aws(region, id, key, token))
    }
}

fn aws(region: &str, access_key_id: String, secret_access_key: String, session_token: Option<String>) -> Aws {
    let (region, service) = (region.to_owned(), "sts".to_owned());
    Aws { access_key_id, secret_access_key, session_token, region, service }
}

fn metadata(url: &str, session: Option<&str>, asking: &Asking<'_>) -> Request {
    asking.get(url, session.map(|session| ("x-aws-ec2-metadata-token", session)))
}

fn plain(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer).trim().to_owned()
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}
