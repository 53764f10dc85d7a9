//! The pixel: a message in the query of an image, for e-mails and pages where nothing else runs
//! (<https://segment.com/docs/connections/sources/catalog/libraries/server/pixel-tracking-api/>, read 2026-11-22).

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use crate::event::Kind;

/// A transparent GIF of one pixel: the answer to every pixel, even to a bad one.
pub const PIXEL_GIF: [u8; 43] = [
    b'G', b'I', b'F', b'8', b'9', b'a', // header
    1, 0, 1, 0, 0x80, 0, 0, // 1×1, two colours
    0xff, 0xff, 0xff, 0, 0, 0, // white, black
    0x21, 0xf9, 4, 1, 0, 0, 0, 0, // the first colour is transparent
    0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, // one image
    2, 2, 0x44, 1, 0,    // its only pixel
    0x3b, // end
];

/// Levels that a dotted key may open; what follows stays one key.
const LEVELS_MAX: usize = 32;

/// Base64 as people put it into links: either alphabet is turned into this one, with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The message in a pixel's query, as the body of a single call, its write key included; `None` if there is none.
///
/// Either `data=` holds it, in base64 or as plain JSON, or the query itself does, with dots for nesting:
/// `userId=u1&event=Email%20Opened&properties.subject=Hi&writeKey=K`. Values of the latter are strings. A write key
/// beside `data=` counts where the message has none.
#[must_use]
pub fn pixel_message(query: &str, kind: Kind) -> Option<Vec<u8>> {
    let query = query.strip_prefix('?').unwrap_or(query);
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    match pairs.iter().find(|(key, _)| key == "data") {
        Some((_, data)) => from_data(data, &pairs),
        None => from_pairs(&pairs, kind),
    }
}

fn from_data(data: &str, pairs: &[(String, String)]) -> Option<Vec<u8>> {
    let json = if data.trim_start().starts_with('{') { data.as_bytes().to_vec() } else { decoded(data)? };
    let key = pairs.iter().find(|(key, _)| key == "writeKey").map(|(_, key)| key.as_str());
    Some(key.and_then(|key| with_write_key(&json, key)).unwrap_or(json))
}

fn decoded(data: &str) -> Option<Vec<u8>> {
    // A plus sign arrives as a space, because that is what it means in a query.
    let url_safe = |byte: u8| match byte {
        b'+' | b' ' => b'-',
        b'/' => b'_',
        other => other,
    };
    let data: Vec<u8> = data.trim_ascii().bytes().map(url_safe).collect();
    BASE64.decode(data).ok().filter(|json| json.trim_ascii_start().starts_with(b"{"))
}

/// The message with a write key, put first so that one of its own wins.
fn with_write_key(json: &[u8], key: &str) -> Option<Vec<u8>> {
    let rest = json.trim_ascii_start().strip_prefix(b"{")?;
    let comma = if rest.trim_ascii_start().starts_with(b"}") { "" } else { "," };
    let mut out = format!("{{\"writeKey\":{}{comma}", Value::from(key)).into_bytes();
    out.extend_from_slice(rest);
    Some(out)
}

fn from_pairs(pairs: &[(String, String)], kind: Kind) -> Option<Vec<u8>> {
    let mut message = Map::new();
    for (key, value) in pairs {
        put(&mut message, key, value);
    }
    if message.is_empty() {
        return None;
    }
    message.insert("type".to_owned(), Value::from(kind.as_str()));
    Some(Value::Object(message).to_string().into_bytes())
}

/// Puts a value where its dotted key points, over whatever stood there.
fn put(message: &mut Map<String, Value>, key: &str, value: &str) {
    let mut steps: Vec<&str> = key.splitn(LEVELS_MAX, '.').collect();
    let Some(last) = steps.pop() else { return };
    let mut object = message;
    for step in steps {
        let slot = object.entry(step).or_insert_with(|| Value::Object(Map::new()));
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        object = slot.as_object_mut().expect("made one above");
    }
    object.insert(last.to_owned(), Value::from(value));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn opened(query: &str) -> Option<Value> {
        let body = pixel_message(query, Kind::Track)?;
        Some(serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn every_base64_is_read() {
        let message = json!({"writeKey": "K", "userId": "u", "event": "Öffnung >>> ???"});
        let text = message.to_string();
        for data in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD].map(|engine| engine.encode(&text)) {
            assert_eq!(opened(&format!("data={data}")), Some(message.clone()), "{data}");
            let escaped: String = url::form_urlencoded::byte_serialize(data.as_bytes()).collect();
            assert_eq!(opened(&format!("?x=1&data={escaped}")), Some(message.clone()), "{escaped}");
        }
    }

    #[test]
    fn data_may_be_plain_json() {
        assert_eq!(opened("data=%7B%22userId%22%3A%22u%22%7D"), Some(json!({"userId": "u"})));
    }

    #[test]
    fn a_write_key_beside_the_data_counts_where_the_message_has_none() {
        assert_eq!(opened("data={}&writeKey=K"), Some(json!({"writeKey": "K"})));
        let own = format!("writeKey=K&data={}", URL_SAFE.encode(r#"{"writeKey":"OWN","userId":"u"}"#));
        assert_eq!(opened(&own), Some(json!({"writeKey": "OWN", "userId": "u"})));
    }

    #[test]
    fn dotted_keys_nest() {
        let query = "writeKey=K&userId=u+1&event=Email%20Opened&properties.subject=The%20Daily&properties.a.b=1";
        let expected = json!({
            "writeKey": "K", "userId": "u 1", "event": "Email Opened", "type": "track",
            "properties": {"subject": "The Daily", "a": {"b": "1"}},
        });
        assert_eq!(opened(query), Some(expected));
    }

    #[test]
    fn nothing_is_no_message() {
        for query in ["", "?", "data=", "data=%25%25", "data=bm90IGpzb24"] {
            assert_eq!(opened(query), None, "{query}");
        }
    }

    #[test]
    fn a_key_of_many_dots_is_no_ladder_to_the_stack_s_end() {
        assert!(opened(&format!("{}=1", ".".repeat(100_000))).is_some());
    }

    #[test]
    fn the_gif_is_one() {
        assert_eq!(&PIXEL_GIF[..6], b"GIF89a");
        assert_eq!(PIXEL_GIF.last(), Some(&0x3b));
    }

    proptest! {
        #[test]
        fn no_query_is_a_panic(query in "\\PC{0,60}", dotted in "[a.&=%+]{0,60}") {
            for query in [query, dotted] {
                let _ = pixel_message(&query, Kind::Page);
            }
        }
    }
}
