//! Looks at what a destination needs, and sends no event: whether anybody is there, knows us, and has what we write to.
//!
//! Every step ends in time, and what it came to is told as a [`Finding`]; nothing is changed anywhere. What is beyond a
//! connection is asked only where asking is known to do nothing: token endpoints give tokens, and BigQuery's `get` gets. An
//! HTTP API is left alone once its certificate is known to be good: there are services to which any request is an event,
//! `HEAD` and `OPTIONS` included (webhooks of Zapier's, functions behind a URL).

mod bigquery;
mod certificate;
pub mod folder;
mod reach;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{SinkError, Sinks};
use crate::plan::auth::TokenSource;
use crate::plan::{Auth, Destination, DestinationKind, FileSettings, Finding, Grade, Reply};

/// How to look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The longest that one step may take.
    pub timeout: Duration,
    /// The time.
    pub now: Timestamp,
}

// === impl Sinks ===

impl Sinks {
    /// What is found out about a destination, in the order in which it was looked at.
    ///
    /// # Errors
    /// When TLS or the HTTP client cannot be set up.
    pub async fn look(&self, destination: &Destination, look: Look) -> Result<Vec<Finding>, SinkError> {
        let found = match &destination.kind {
            DestinationKind::Http => self.look_at_http(destination, look).await?,
            DestinationKind::BigQuery(settings) => self.look_at_bigquery(destination, settings, look).await?,
            DestinationKind::File(settings) => vec![look_at_file(settings, look.now)],
            DestinationKind::Stdout => {
                vec![Finding::new(Grade::Fine, "standard output", "is always there")]
            }
        };
        let told = |text: &str| destination.without_credentials(text);
        let masked =
            |found: Finding| Finding { message: told(&found.message), help: found.help.as_deref().map(told), ..found };
        Ok(found.into_iter().map(masked).collect())
    }

    async fn look_at_http(&self, destination: &Destination, look: Look) -> Result<Vec<Finding>, SinkError> {
        let mut found: Vec<Finding> = self.look_at_credentials(destination, look).await?.into_iter().collect();
        let tls = Arc::new(self.tls()?);
        for origin in destination.origins() {
            found.push(reach::reach(&origin, &tls, look).await);
        }
        Ok(found)
    }

    /// Asks for a token, as whoever sends does. Others cannot be looked at.
    async fn look_at_credentials(&self, destination: &Destination, look: Look) -> Result<Option<Finding>, SinkError> {
        Ok(match &destination.auth {
            Auth::Token(source) => Some(self.look_at_token(destination, source, look).await?),
            Auth::None => None,
            Auth::Basic { .. } | Auth::Bearer(_) | Auth::Header(_) | Auth::Query(_) | Auth::Hmac(_) | Auth::Aws(_) => {
                let message = "go with events alone, so only an event shows whether they are good";
                Some(Finding::new(Grade::Unknown, CREDENTIALS, message))
            }
        })
    }

    async fn look_at_token(
        &self,
        destination: &Destination,
        source: &TokenSource,
        look: Look,
    ) -> Result<Finding, SinkError> {
        let began = Instant::now();
        let asked = self.http(destination)?.look_for_token(source, look.now, look.timeout).await;
        Ok(match asked {
            Ok(()) => {
                // A query may hold a key.
                let url = source.url().split('?').next().unwrap_or_default();
                let message = format!("are good: {url} gave a token in {}", told_time(began));
                Finding::new(Grade::Fine, CREDENTIALS, message)
            }
            Err(Reply::Lost(failure)) => {
                let problem = Finding::new(Grade::Problem, CREDENTIALS, format!("cannot be tried: {}", failure.detail));
                problem.help("whoever gives tokens is not reached, or has trouble of their own: try again")
            }
            Err(reply) => {
                let problem = Finding::new(Grade::Problem, CREDENTIALS, format!("are refused: {}", said(&reply)));
                problem.help("mend what the file gives as credentials; until then the destination would rest")
            }
        })
    }
}

/// What whoever we are is called.
const CREDENTIALS: &str = "credentials";

fn look_at_file(settings: &FileSettings, now: Timestamp) -> Finding {
    match settings.path_at(now) {
        Ok(path) => folder::look_at_file(&path),
        Err(error) => Finding::new(Grade::Problem, format!("file {}", settings.path), error.to_string()),
    }
}

/// What came back that is no good news.
fn said(reply: &Reply) -> String {
    match reply {
        Reply::Answered { status, body, .. } => format!("status {status}: {}", super::bigquery::message_of(body)),
        Reply::Lost(failure) | Reply::Unauthorized(failure) | Reply::Unsendable(failure) => failure.detail.clone(),
        Reply::Written => String::new(),
    }
}

/// How long something took.
fn told_time(began: Instant) -> String {
    format!("{}ms", began.elapsed().as_millis())
}
