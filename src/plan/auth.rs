//! Who we are: what makes a request ours.
//!
//! Credentials are the destination's, are constant, and are put on a request last, when all its bytes are known. Those
//! that sign do so afresh for every try, with the time they are given. A token that has to be asked for is only named here
//! ([`TokenSource`]): whoever sends the request has it fetched.

mod asking;
pub mod aws;
pub mod external;
pub mod google;
pub mod hmac;
pub mod token;

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;

use super::Request;
use super::batch::TOKEN_PLACEHOLDER;
use crate::expr::{EvalError, percent_encode};

pub use aws::Aws;
pub use hmac::Hmac;
pub use token::TokenSource;

/// What proves who we are.
#[derive(Default)]
pub enum Auth {
    /// Nothing.
    #[default]
    None,
    /// `Authorization: Basic`.
    Basic {
        /// The user; no colon.
        user: String,
        /// The password.
        password: String,
    },
    /// `Authorization: Bearer`.
    Bearer(String),
    /// Headers of these names (lowercase).
    Header(Vec<(String, String)>),
    /// Query parameters of these names.
    Query(Vec<(String, String)>),
    /// A signature over the body, and more.
    Hmac(Box<Hmac>),
    /// A signature as AWS wants it.
    Aws(Box<Aws>),
    /// `Authorization: Bearer` with a token that has to be asked for.
    Token(Arc<TokenSource>),
}

/// What stands for a credential.
pub(super) const MASK: &str = "***";

// === impl Auth ===

impl Auth {
    /// Puts on a request what proves who we are. `id` names the request: the same for every try.
    pub(super) fn apply(
        &self,
        request: &mut Request,
        id: impl FnOnce() -> String,
        now: Timestamp,
    ) -> Result<(), EvalError> {
        match self {
            Self::None => {}
            Self::Basic { user, password } => {
                let pair = BASE64.encode(format!("{user}:{password}"));
                request.headers.push((AUTHORIZATION.to_owned(), format!("Basic {pair}")));
            }
            Self::Bearer(token) => request.headers.push((AUTHORIZATION.to_owned(), format!("Bearer {token}"))),
            Self::Header(secrets) => request.headers.extend(secrets.iter().cloned()),
            Self::Query(secrets) => push_query(&mut request.url, secrets),
            Self::Hmac(hmac) => hmac.sign(request, &id(), now)?,
            Self::Aws(aws) => aws.sign(request, now)?,
            Self::Token(source) => {
                request.headers.push((AUTHORIZATION.to_owned(), TOKEN_PLACEHOLDER.to_owned()));
                request.headers.extend(source.header().map(|(name, value)| (name.to_owned(), value.to_owned())));
                request.token = Some(Arc::clone(source));
            }
        }
        Ok(())
    }

    /// The same for somebody to look at: masks instead of credentials and signatures.
    pub(super) fn apply_masked(&self, url: &mut String, headers: &mut Vec<(String, String)>) {
        headers.extend(self.header_names().into_iter().map(|name| (name.to_owned(), MASK.to_owned())));
        if let Self::Query(secrets) = self {
            for (name, _) in secrets {
                push_parameter(url, name, MASK);
            }
        }
    }

    /// A URL of a request that it was put on, with masks instead of credentials.
    pub(super) fn without_secrets(&self, url: &str) -> String {
        let (Self::Query(secrets), Some((before, query))) = (self, url.split_once('?')) else { return url.to_owned() };
        let own: Vec<String> = secrets.iter().map(|(name, _)| encoded(name)).collect();
        let pair = |pair: &str| match pair.split_once('=') {
            Some((name, _)) if own.iter().any(|own| own == name) => format!("{name}={MASK}"),
            Some(_) | None => pair.to_owned(),
        };
        format!("{before}?{}", query.split('&').map(pair).collect::<Vec<_>>().join("&"))
    }

    /// The names of the headers it sets, in lowercase.
    #[must_use]
    pub fn header_names(&self) -> Vec<&str> {
        match self {
            Self::None | Self::Query(_) => Vec::new(),
            Self::Basic { .. } | Self::Bearer(_) => vec![AUTHORIZATION],
            Self::Token(source) => [AUTHORIZATION].into_iter().chain(source.header().map(|(name, _)| name)).collect(),
            Self::Header(secrets) => secrets.iter().map(|(name, _)| name.as_str()).collect(),
            Self::Hmac(hmac) => hmac.header_names(),
            Self::Aws(aws) => aws.header_names(),
        }
    }

    /// The texts that prove who we are, in the forms in which we send them.
    pub(super) fn secrets(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::Basic { user, password } => {
                vec![BASE64.encode(format!("{user}:{password}")), user.clone(), password.clone()]
            }
            Self::Bearer(token) => vec![token.clone()],
            Self::Header(secrets) | Self::Query(secrets) => secrets.iter().map(|(_, value)| value.clone()).collect(),
            Self::Hmac(hmac) => hmac.secrets(),
            Self::Aws(aws) => aws.secrets(),
            Self::Token(source) => source.secrets(),
        }
    }
}

pub(super) const AUTHORIZATION: &str = "authorization";

fn encoded(name: &str) -> String {
    let mut encoded = String::new();
    percent_encode(&mut encoded, name);
    encoded
}

/// Appends parameters to a URL.
pub(super) fn push_query(url: &mut String, pairs: &[(String, String)]) {
    for (name, value) in pairs {
        push_parameter(url, name, "");
        percent_encode(url, value);
    }
}

/// Appends a parameter whose value stays as it is.
fn push_parameter(url: &mut String, name: &str, value: &str) {
    url.push(if url.contains('?') { '&' } else { '?' });
    percent_encode(url, name);
    url.push('=');
    url.push_str(value);
}

/// Bytes as lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
