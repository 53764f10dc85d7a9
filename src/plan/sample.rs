//! Which share of its users a destination is given.
//!
//! Nobody keeps a list: a hash of who an event is about decides, so the same user is in or out after a restart, on another
//! machine and in another version of this program. All destinations draw alike: of two that sample a tenth and a half,
//! the second has every user of the first.

use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use crate::expr::template::Template;
use crate::expr::{Escape, EvalError, Scope};

/// `sample`: a share of the users.
pub struct Sample {
    /// Draws below this are kept, of `2^64` there are.
    bound: u128,
    /// What is drawn for instead of the user.
    by: Option<Template>,
}

/// How many different draws there are.
const DRAWS: f64 = 18_446_744_073_709_551_616.0;

// === impl Sample ===

impl Sample {
    /// Keeps this share, of `0.0..=1.0`, of the users, or of the different values of `by`.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2^64")]
    pub fn new(rate: f64, by: Option<Template>) -> Self {
        Self { bound: (rate.clamp(0.0, 1.0) * DRAWS) as u128, by }
    }

    /// Whether an event is among what is kept. One for which `by` is missing is drawn for by its user.
    ///
    /// # Errors
    /// When `by` fails on this event.
    pub fn keeps(&self, scope: &Scope) -> Result<bool, EvalError> {
        let mut key = String::new();
        if let Some(by) = &self.by {
            by.write_text(scope, Escape::Plain, &mut key)?;
        }
        let key = if key.is_empty() { user(scope.json()) } else { &key };
        Ok(u128::from(draw(key)) < self.bound)
    }
}

/// Who an event is about: `userId`, else `anonymousId`, else the message alone.
fn user(event: &Json) -> &str {
    let text = |key: &str| event.get(key).and_then(Json::as_str).filter(|text| !text.is_empty());
    text("userId").or_else(|| text("anonymousId")).or_else(|| text("messageId")).unwrap_or_default()
}

/// The first eight bytes of the SHA-256 of the text's UTF-8, as a big-endian number. Part of what we promise: changing it
/// would change who is in.
fn draw(key: &str) -> u64 {
    let hash = Sha256::digest(key);
    hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::{Sample, draw};

    #[test]
    fn the_draw_is_the_one_that_the_documentation_promises() {
        // `printf u1 | sha256sum` begins with these digits.
        assert_eq!(draw(""), 0xe3b0_c442_98fc_1c14);
        assert_eq!(draw("abc"), 0xba78_16bf_8f01_cfea);
    }

    #[test]
    fn a_share_of_everything_is_everything_and_of_nothing_nothing() {
        assert_eq!(Sample::new(1.0, None).bound, 1 << 64);
        assert_eq!(Sample::new(0.5, None).bound, 1 << 63);
        assert_eq!(Sample::new(0.0, None).bound, 0);
    }
}
