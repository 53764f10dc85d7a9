//! Adds to an event that was read: its text keeps every byte but those that change.

use bytes::Bytes;

use super::json;
use super::normalise::{Object, members};
use crate::event::Event;

/// The event with a member of `context` set to some JSON, whatever it was before. `key` is written as it is.
#[must_use]
pub fn with_context(event: Event, key: &str, value: &str) -> Event {
    let text = String::from_utf8_lossy(&event.json);
    let mut object = Object::open("{}");
    let mut is_set = false;
    for (name, old) in members(&text) {
        if json::unescape(name) == "context" {
            object.push(name, &with_member(old, key, value));
            is_set = true;
        } else {
            object.push(name, old);
        }
    }
    if !is_set {
        object.push("context", &with_member("{}", key, value));
    }
    let json = Bytes::from(object.close());
    drop(text);
    Event { json, ..event }
}

fn with_member(object: &str, key: &str, value: &str) -> String {
    let mut changed = Object::open("{}");
    for (name, old) in members(object).into_iter().filter(|(name, _)| json::unescape(name) != key) {
        changed.push(name, old);
    }
    changed.push(key, value);
    changed.close()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;

    fn amended(json: &'static str) -> String {
        let event = Event {
            source: "web".into(),
            kind: Kind::Track,
            message_id: "m".into(),
            received_at: jiff::Timestamp::UNIX_EPOCH,
            json: Bytes::from_static(json.as_bytes()),
        };
        let event = with_context(event, "violations", "[1]");
        String::from_utf8_lossy(&event.json).into_owned()
    }

    #[test]
    fn only_the_member_changes_and_every_other_byte_stays() {
        for (before, after) in [
            (r#"{"a":1e3,"context":{"x":1.50}}"#, r#"{"a":1e3,"context":{"x":1.50,"violations":[1]}}"#),
            (r#"{"context":{"violations":"mine","y":{}},"b":[]}"#, r#"{"context":{"y":{},"violations":[1]},"b":[]}"#),
            (r#"{"context":{"v\u0069olations":0}}"#, r#"{"context":{"violations":[1]}}"#),
            (r#"{"a":"context"}"#, r#"{"a":"context","context":{"violations":[1]}}"#),
            (r"{}", r#"{"context":{"violations":[1]}}"#),
            (r#"{"context":null}"#, r#"{"context":{"violations":[1]}}"#),
        ] {
            assert_eq!(amended(before), after);
        }
    }
}
