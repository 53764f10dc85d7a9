//! What is answered, in Google's words.

use axum::http::{HeaderValue, Response};
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content: Content,
    /// `WWW-Authenticate`.
    pub(super) challenge: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Json(Value),
    Html(String),
    Nothing,
}

impl Reply {
    pub(super) fn json(value: Value) -> Self {
        Self { status: 200, content: Content::Json(value), challenge: None }
    }

    pub(super) fn nothing() -> Self {
        Self { status: 204, content: Content::Nothing, challenge: None }
    }

    /// An error in the form of Google's APIs: <https://docs.cloud.google.com/bigquery/docs/error-messages>, read 2026-11-26.
    pub(super) fn error(status: u16, reason: &str, message: &str) -> Self {
        let error = json!({ "message": message, "domain": "global", "reason": reason });
        Self::errors(status, message, &error)
    }

    /// The same, about a header of the request.
    pub(super) fn error_in_header(status: u16, reason: &str, message: &str, header: &str) -> Self {
        let error = json!({
            "message": message, "domain": "global", "reason": reason, "locationType": "header", "location": header,
        });
        Self::errors(status, message, &error)
    }

    fn errors(status: u16, message: &str, error: &Value) -> Self {
        let body = json!({
            "error": { "code": status, "message": message, "errors": [error], "status": name(status) },
        });
        Self { status, content: Content::Json(body), challenge: None }
    }

    pub(super) fn invalid(message: &str) -> Self {
        Self::error(400, "invalid", message)
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::error(404, "notFound", &format!("Not found: {what}"))
    }

    pub(super) fn challenge(self, challenge: &str) -> Self {
        Self { challenge: Some(challenge.to_owned()), ..self }
    }

    /// The page that Google's front end sends where a request did not reach the service.
    pub(super) fn html(status: u16) -> Self {
        let (title, text) = match status {
            404 => ("Not Found", "The requested URL was not found on this server."),
            413 => ("Request Entity Too Large", "Your client issued a request that was too large."),
            502 => ("Server Error", "The server encountered a temporary error and could not complete your request."),
            _ => (
                "Service Unavailable",
                "The service you requested is not available yet. Please try again in 30 seconds.",
            ),
        };
        let page = format!(
            "<!DOCTYPE html>\n<html lang=en>\n  <meta charset=utf-8>\n  <title>Error {status} ({title})!!1</title>\n  \
             <p><b>{status}.</b> <ins>That’s an error.</ins>\n  <p>{text}  <ins>That’s all we know.</ins>\n"
        );
        Self { status, content: Content::Html(page), challenge: None }
    }
}

/// <https://docs.cloud.google.com/apis/design/errors#handling_errors>, read 2026-11-26.
fn name(status: u16) -> &'static str {
    match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ALREADY_EXISTS",
        412 => "FAILED_PRECONDITION",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    }
}

impl From<Reply> for Response<Full<Bytes>> {
    fn from(reply: Reply) -> Self {
        let mut response = Response::builder().status(reply.status);
        if let Some(challenge) = reply.challenge {
            response = response.header("www-authenticate", HeaderValue::try_from(challenge).unwrap());
        }
        let (kind, body) = match reply.content {
            Content::Json(value) => ("application/json; charset=UTF-8", serde_json::to_vec(&value).unwrap()),
            Content::Html(page) => ("text/html; charset=UTF-8", page.into_bytes()),
            Content::Nothing => return response.body(Full::default()).unwrap(),
        };
        response.header("content-type", kind).body(Full::from(body)).unwrap()
    }
}
