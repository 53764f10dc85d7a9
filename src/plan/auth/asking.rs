//! The way to a token, told as one story: every question is answered by the answers so far, or is the next one.
//!
//! Whoever tells the story asks and goes on with `?`; the first question without an answer stops it ([`Stop::Asks`]). It is
//! told anew with every answer. What is learned on the way and must not be told is masked in what goes wrong.

use bytes::Bytes;
use serde_json::Value as Json;
use url::form_urlencoded;

use super::super::judge::failure_of;
use super::super::trace::{REDACTED, SECRET_CHARS_MIN};
use super::super::{Reply, Request};
use super::AUTHORIZATION;
use super::token::{Answer, Occasion, Question, Token};
use crate::attempt::{Failure, Reason};

/// A story as far as the answers go.
pub(super) struct Asking<'a> {
    /// When it is told.
    pub(super) occasion: Occasion<'a>,
    answers: std::slice::Iter<'a, Answer>,
    /// What was learned and must not be told.
    secrets: Vec<String>,
}

/// Why a story does not go on.
pub(super) enum Stop {
    /// This has to be found out first.
    Asks(Question),
    /// There will be no token.
    Fails(Reply),
}

// === impl Asking ===

impl<'a> Asking<'a> {
    pub(super) fn new(answers: &'a [Answer], occasion: Occasion<'a>) -> Self {
        Self { occasion, answers: answers.iter(), secrets: Vec::new() }
    }

    /// The token that an endpoint gives for a request.
    pub(super) fn token(&mut self, request: Request) -> Result<Token, Stop> {
        let url = request.url.clone();
        let body = self.ask("a token", request)?;
        self.token_in(&body, &url)
    }

    /// The token in what an endpoint answered.
    pub(super) fn token_in(&self, body: &[u8], url: &str) -> Result<Token, Stop> {
        let token = Token::of_answer(body, self.occasion.now);
        token.ok_or_else(|| self.unusable("a token", url, "there is no `access_token` in the answer"))
    }

    /// What somebody answers who is asked for `what`: the body, if it is good news.
    pub(super) fn ask(&mut self, what: &str, request: Request) -> Result<Bytes, Stop> {
        self.put(what, request, Question::Ask)
    }

    /// The same of a server of the machine's own.
    pub(super) fn ask_near(&mut self, what: &str, request: Request) -> Result<Bytes, Stop> {
        self.put(what, request, Question::AskNear)
    }

    fn put(&mut self, what: &str, request: Request, question: fn(Box<Request>) -> Question) -> Result<Bytes, Stop> {
        let reply = match self.answers.next() {
            None => return Err(Stop::Asks(question(Box::new(request)))),
            Some(Answer::Heard(reply)) => reply,
            Some(Answer::Read(_)) => &Reply::Written,
        };
        self.heard(reply).map_err(|reply| Stop::Fails(self.told(what, &request.url, reply)))
    }

    /// The text of a file of this machine, as it is now.
    pub(super) fn read(&mut self, path: &str) -> Result<String, Stop> {
        let why = match self.answers.next() {
            None => return Err(Stop::Asks(Question::Read(path.to_owned()))),
            Some(Answer::Read(Ok(text))) => return Ok(text.clone()),
            Some(Answer::Read(Err(why))) => why,
            Some(Answer::Heard(_)) => "no answer",
        };
        Err(Stop::Fails(Reply::Unauthorized(Failure::new(Reason::Io, format!("cannot read {path}: {why}")))))
    }

    /// Takes note of something that must not be told.
    pub(super) fn learn(&mut self, secret: &str) {
        self.secrets.extend((secret.len() >= SECRET_CHARS_MIN).then(|| secret.to_owned()));
    }

    /// An answer of which nobody can make anything.
    pub(super) fn unusable(&self, what: &str, url: &str, why: &str) -> Stop {
        let failure = Failure::new(Reason::Status(200), why);
        Stop::Fails(self.told(what, url, Reply::Unauthorized(failure)))
    }

    /// A file of which nobody can make anything.
    pub(super) fn unreadable(path: &str, why: &str) -> Stop {
        Stop::Fails(Reply::Unauthorized(Failure::new(Reason::Io, format!("{path} {why}"))))
    }

    fn heard(&self, reply: &Reply) -> Result<Bytes, Reply> {
        match reply {
            Reply::Answered { status: 200..=299, body, .. } => Ok(body.clone()),
            Reply::Answered { status, headers, body, .. } => {
                let failure = failure_of(*status, headers, body, self.occasion.now);
                let detail = format!("status {status}: {}", error_of(body).unwrap_or(failure.detail));
                let failure = Failure { detail, ..failure };
                Err(match status {
                    408 | 425 | 429 | 500..=599 => Reply::Lost(failure),
                    _ => Reply::Unauthorized(failure),
                })
            }
            Reply::Lost(failure) => Err(Reply::Lost(failure.clone())),
            Reply::Unsendable(failure) | Reply::Unauthorized(failure) => Err(Reply::Unauthorized(failure.clone())),
            Reply::Written => Err(Reply::Unauthorized(Failure::new(Reason::Io, "no answer"))),
        }
    }

    /// Bad news that says whose it is, without what was learned. A URL's query may hold a key.
    fn told(&self, what: &str, url: &str, reply: Reply) -> Reply {
        let url = url.split_once('?').map_or(url, |(before, _)| before);
        let told = |failure: Failure| {
            let detail = format!("asking {url} for {what}: {}", failure.detail);
            let detail = self.secrets.iter().fold(detail, |detail, secret| detail.replace(secret, REDACTED));
            Failure { detail, ..failure }
        };
        match reply {
            Reply::Lost(failure) => Reply::Lost(told(failure)),
            Reply::Unsendable(failure) | Reply::Unauthorized(failure) => Reply::Unauthorized(told(failure)),
            Reply::Answered { .. } | Reply::Written => reply,
        }
    }

    // --- requests

    /// A form, as token endpoints want it.
    pub(super) fn form(&self, url: &str, fields: &[(&str, &str)]) -> Request {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json")];
        Request { method: "POST".to_owned(), body: Some(body.into()), ..self.get(url, headers) }
    }

    /// JSON, as Google's APIs want it, from whoever has this token.
    pub(super) fn json(&self, url: &str, token: &str, body: &Json) -> Request {
        let authorization = format!("Bearer {token}");
        let headers =
            [("content-type", "application/json"), ("accept", "application/json"), (AUTHORIZATION, &authorization)];
        Request { method: "POST".to_owned(), body: Some(body.to_string().into()), ..self.get(url, headers) }
    }

    /// A look.
    pub(super) fn get<'h>(&self, url: &str, headers: impl IntoIterator<Item = (&'h str, &'h str)>) -> Request {
        Request {
            method: "GET".to_owned(),
            url: url.to_owned(),
            headers: headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
            body: None,
            timeout: self.occasion.timeout,
            token: None,
            shape: None,
        }
    }
}

/// What an error says of itself: `error` and `error_description` of RFC 6749, 5.2, or `error.message` of Google's APIs
/// (<https://cloud.google.com/apis/design/errors>, read 2026-11-26).
fn error_of(body: &[u8]) -> Option<String> {
    let answer: Json = serde_json::from_slice(body).ok()?;
    let error = &answer["error"];
    if let Some(message) = error["message"].as_str() {
        return Some(error["status"].as_str().map_or(message.to_owned(), |status| format!("{status}: {message}")));
    }
    let error = error.as_str()?;
    Some(match answer["error_description"].as_str() {
        Some(description) => format!("{error}: {description}"),
        None => error.to_owned(),
    })
}
