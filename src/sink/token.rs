//! Tokens that have to be asked for: asked for once, kept, and replaced before they end.
//!
//! How long a token is good for is judged by the wall clock, so a machine that slept asks for another when it wakes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use crate::plan::Reply;
use crate::plan::auth::token::{Answer, Occasion, Question, Step, Token, TokenSource};

/// The token of one destination.
#[derive(Default)]
pub(super) struct Tokens {
    held: Mutex<Held>,
    /// How often a token was asked for to the end.
    answers: AtomicU64,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    /// What to ask with, if an answer has replaced what the file says.
    refresh_token: Option<String>,
    /// Not before then is a token that is still good replaced.
    next_refresh: Option<Timestamp>,
    /// Why there is none.
    failure: Option<Reply>,
}

/// A token for one request.
pub(super) struct Given {
    /// Its text.
    pub(super) value: String,
    /// Whether it was asked for just now.
    pub(super) is_new: bool,
}

/// After an attempt to replace a good token failed, the next one waits for so long.
const REFRESH_PAUSE: SignedDuration = SignedDuration::from_secs(30);

// === impl Tokens ===

impl Tokens {
    /// The token that is held, or a new one. One caller at a time asks; the others wait for what it hears.
    ///
    /// # Errors
    /// What the request that needs the token has to hear instead.
    pub(super) async fn get<A: Future<Output = Answer>>(
        &self,
        source: &TokenSource,
        now: Timestamp,
        timeout: Duration,
        ask: impl Fn(Question) -> A,
    ) -> Result<Given, Reply> {
        let answers_before = self.answers.load(Ordering::Acquire);
        let mut held = self.held.lock().await;
        if let Some(token) = held.usable(now) {
            return Ok(Given { value: token.value.clone(), is_new: self.has_answered_since(answers_before) });
        }
        if self.has_answered_since(answers_before)
            && let Some(failure) = &held.failure
        {
            return Err(failure.clone());
        }
        let occasion = Occasion { refresh_token: held.refresh_token.as_deref(), now, timeout };
        let token = token(source, occasion, ask).await;
        self.answers.fetch_add(1, Ordering::Release);
        held.take(token, now)
    }

    /// Forgets a token that was refused, unless there is another by now.
    pub(super) async fn forget(&self, value: &str) {
        let mut held = self.held.lock().await;
        if held.token.as_ref().is_some_and(|token| token.value == value) {
            held.token = None;
        }
    }

    fn has_answered_since(&self, answers: u64) -> bool {
        self.answers.load(Ordering::Acquire) != answers
    }
}

/// Asks one question after the other until there is a token, or none to be had.
async fn token<A: Future<Output = Answer>>(
    source: &TokenSource,
    occasion: Occasion<'_>,
    ask: impl Fn(Question) -> A,
) -> Result<Token, Reply> {
    let mut answers = Vec::new();
    loop {
        match source.step(&answers, occasion)? {
            Step::Ask(question) => answers.push(ask(question).await),
            Step::Given(token) => return Ok(token),
        }
    }
}

// === impl Held ===

impl Held {
    /// The token, if it need not be replaced now.
    fn usable(&self, now: Timestamp) -> Option<&Token> {
        let is_early = |token: &&Token| now < token.refresh_at || self.next_refresh.is_some_and(|next| now < next);
        self.good(now).filter(is_early)
    }

    /// The token, if it is good at all.
    fn good(&self, now: Timestamp) -> Option<&Token> {
        self.token.as_ref().filter(|token| now < token.expires_at)
    }

    /// Takes over an answer. One that gives no token leaves the old one in place for as long as it is good.
    fn take(&mut self, answer: Result<Token, Reply>, now: Timestamp) -> Result<Given, Reply> {
        match answer {
            Ok(token) => {
                let value = token.value.clone();
                self.refresh_token = token.refresh_token.clone().or(self.refresh_token.take());
                (self.token, self.next_refresh, self.failure) = (Some(token), None, None);
                Ok(Given { value, is_new: true })
            }
            Err(reply) => {
                if let Some(token) = self.good(now) {
                    let value = token.value.clone();
                    self.next_refresh = now.saturating_add(REFRESH_PAUSE).ok();
                    return Ok(Given { value, is_new: false });
                }
                self.failure = Some(reply.clone());
                Err(reply)
            }
        }
    }
}
