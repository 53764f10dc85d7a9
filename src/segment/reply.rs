//! The bodies SDKs expect to hear. Which status goes with them is `ingest`'s business.

use serde_json::{Value, json};

use super::{Discard, Rejection};

/// The body of every `200`. SDKs parse it; anything else makes some of them send again.
pub const SUCCESS: &str = r#"{"success":true}"#;

/// The body of a `400`: `code` and `message` are strings, because analytics-python 2.3 and `RudderStack`'s Python SDK
/// raise an exception without them, and send the bad batch again.
#[must_use]
pub fn failure(code: &str, message: &str) -> String {
    json!({ "success": false, "code": code, "message": message }).to_string()
}

/// The body for a request that was turned away as a whole.
#[must_use]
pub fn rejection(rejection: &Rejection) -> String {
    failure(rejection.code(), &rejection.to_string())
}

/// The body of a strict server for a request with bad messages: what [`failure`] has, and `error` and `details`, one
/// for each.
#[must_use]
pub fn strict_failure(discards: &[Discard]) -> String {
    let message = match discards {
        [only] => format!("{}: {}", only.code, only.detail),
        many => format!("{} messages are invalid, see `details`", many.len()),
    };
    let details: Vec<Value> = discards.iter().map(detail).collect();
    json!({
        "success": false,
        "code": "invalid_request",
        "message": message,
        "error": "Invalid payload",
        "details": details,
    })
    .to_string()
}

fn detail(discard: &Discard) -> Value {
    let mut detail = json!({ "index": discard.index, "code": discard.code.as_str(), "message": discard.detail });
    if let Some(id) = &discard.message_id {
        detail["messageId"] = json!(id);
    }
    detail
}

#[cfg(test)]
mod tests {
    use super::super::DiscardCode;
    use super::*;

    #[test]
    fn a_rejection_says_what_to_change() {
        let too_large = Rejection::TooLarge { size_bytes: 50_000, max_bytes: 33_792 };
        insta::assert_snapshot!(rejection(&too_large), @r#"{"success":false,"code":"invalid_request","message":"Exceed payload limit: the body is 50000 bytes, more than the 33792 accepted here"}"#);
        let malformed = Rejection::Malformed { expected: "expected `:`", line: 1, column: 9 };
        insta::assert_snapshot!(rejection(&malformed), @r#"{"success":false,"code":"invalid_request","message":"malformed JSON: expected `:` at line 1, column 9"}"#);
        insta::assert_snapshot!(rejection(&Rejection::UnknownWriteKey), @r#"{"success":false,"code":"invalid_write_key","message":"unknown write key"}"#);
    }

    #[test]
    fn a_strict_failure_lists_every_problem() {
        let discard = |index, code, detail: &'static str, message_id: Option<&str>| Discard {
            index,
            code,
            detail: detail.into(),
            message_id: message_id.map(str::to_owned),
        };
        let one = discard(0, DiscardCode::EventNotDefined, "`event` is missing", Some("m1"));
        let other = discard(3, DiscardCode::NoUserAnonId, "`userId` or `anonymousId` is needed", None);
        insta::assert_snapshot!(strict_failure(std::slice::from_ref(&one)), @r#"{"success":false,"code":"invalid_request","message":"event_not_defined: `event` is missing","error":"Invalid payload","details":[{"index":0,"code":"event_not_defined","message":"`event` is missing","messageId":"m1"}]}"#);
        insta::assert_snapshot!(strict_failure(&[one, other]), @r#"{"success":false,"code":"invalid_request","message":"2 messages are invalid, see `details`","error":"Invalid payload","details":[{"index":0,"code":"event_not_defined","message":"`event` is missing","messageId":"m1"},{"index":3,"code":"no_user_anon_id","message":"`userId` or `anonymousId` is needed"}]}"#);
    }
}
