//! `multipart/form-data` (RFC 7578): fields, files and JSON parts, with a boundary that the content decides.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::{Map, Value as Json};
use sha2::{Digest as _, Sha256};

use super::auth::hex;
use crate::expr::EvalError;

/// A body and the boundary between its parts.
pub(super) struct Multipart {
    /// The bytes.
    pub body: Bytes,
    /// What `content-type` has to name: the same content has the same boundary, so that every try is the same.
    pub boundary: String,
}

/// One part before it is written.
struct Part {
    name: String,
    filename: Option<String>,
    content_type: Option<String>,
    content: String,
}

/// The keys of a part that says what it is.
const FILENAME: &str = "filename";
const CONTENT_TYPE: &str = "content_type";
const CONTENT: &str = "content";

/// What a file is of whose type nothing is said (RFC 7578, 4.4).
const ANY_FILE: &str = "application/octet-stream";

/// What an object is.
const JSON: &str = "application/json";

// === impl Multipart ===

impl Multipart {
    /// The parts of a JSON object: a scalar is a field, a list one field an element, `null` is left out. An object is a
    /// JSON part, or, with `filename` or `content_type` beside `content`, a part of its own kind.
    pub(super) fn of_json(json: &[u8]) -> Result<Self, EvalError> {
        let value: Json = serde_json::from_slice(json).map_err(|_| failed("a multipart body must be a table"))?;
        let members = value.as_object().ok_or_else(|| failed("a multipart body must be a table"))?;
        let mut parts = Vec::with_capacity(members.len());
        for (name, value) in members {
            match value {
                Json::Array(elements) => {
                    for element in elements {
                        parts.extend(Part::of_value(name, element)?);
                    }
                }
                Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => {
                    parts.extend(Part::of_value(name, value)?);
                }
            }
        }
        Ok(Self::of_parts(&parts))
    }

    fn of_parts(parts: &[Part]) -> Self {
        let boundary = boundary(parts);
        let mut out = String::with_capacity(parts.iter().map(|part| part.content.len() + 200).sum());
        for part in parts {
            // Writing to a string does not fail.
            let _ = write!(out, "--{boundary}\r\n{}\r\n{}\r\n", part.head(), part.content);
        }
        let _ = write!(out, "--{boundary}--\r\n");
        Self { body: out.into(), boundary }
    }
}

/// Hashes the content, again and again until the hash is not in it.
fn boundary(parts: &[Part]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        for text in [part.head().as_str(), &part.content] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
    }
    loop {
        let digest = hash.finalize();
        let boundary = format!("libroseg-{}", hex(&digest[..16]));
        if !parts.iter().any(|part| part.content.contains(&boundary)) {
            return boundary;
        }
        hash = Sha256::new_with_prefix(digest);
    }
}

// === impl Part ===

impl Part {
    fn of_value(name: &str, value: &Json) -> Result<Option<Self>, EvalError> {
        let part = |content_type: Option<&str>, content: String| Self {
            name: name.to_owned(),
            filename: None,
            content_type: content_type.map(str::to_owned),
            content,
        };
        Ok(match value {
            Json::Null => None,
            Json::String(text) => Some(part(None, text.clone())),
            Json::Bool(_) | Json::Number(_) => Some(part(None, value.to_string())),
            Json::Object(members) if is_described(members) => Self::described(name, members)?,
            Json::Array(_) | Json::Object(_) => Some(part(Some(JSON), value.to_string())),
        })
    }

    /// A part that says what it is; without content it is left out.
    fn described(name: &str, members: &Map<String, Json>) -> Result<Option<Self>, EvalError> {
        let (content, is_json) = match members.get(CONTENT) {
            None | Some(Json::Null) => return Ok(None),
            Some(Json::String(text)) => (text.clone(), false),
            Some(other) => (other.to_string(), other.is_object() || other.is_array()),
        };
        let filename = line(members, FILENAME)?;
        let usual = if is_json { Some(JSON) } else { filename.as_ref().map(|_| ANY_FILE) };
        let content_type = line(members, CONTENT_TYPE)?.or_else(|| usual.map(str::to_owned));
        Ok(Some(Self { name: name.to_owned(), filename, content_type, content }))
    }

    fn head(&self) -> String {
        let mut head = format!("Content-Disposition: form-data; name=\"{}\"", escaped(&self.name));
        if let Some(filename) = &self.filename {
            let _ = write!(head, "; filename=\"{}\"", escaped(filename));
        }
        head.push_str("\r\n");
        if let Some(content_type) = &self.content_type {
            let _ = write!(head, "Content-Type: {content_type}\r\n");
        }
        head
    }
}

/// Whether an object describes a part: nothing but its three keys, and one that no plain value needs.
fn is_described(members: &Map<String, Json>) -> bool {
    let is_own = |key: &String| matches!(key.as_str(), FILENAME | CONTENT_TYPE | CONTENT);
    members.keys().all(is_own) && (members.contains_key(FILENAME) || members.contains_key(CONTENT_TYPE))
}

/// The text of a key of a part, which becomes a piece of its head.
fn line(members: &Map<String, Json>, key: &str) -> Result<Option<String>, EvalError> {
    match members.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) if key != CONTENT_TYPE || !text.contains(char::is_control) => Ok(Some(text.clone())),
        Some(Json::String(_)) => Err(failed(format!("`{key}` of a part holds a line break"))),
        Some(_) => Err(failed(format!("`{key}` of a part must be text"))),
    }
}

/// A name in quotes as browsers write it
/// (<https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data>, read 2026-11-26).
fn escaped(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

fn failed(message: impl Into<String>) -> EvalError {
    EvalError { message: message.into(), range: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;

    fn written(json: &str) -> (String, String) {
        let multipart = Multipart::of_json(json.as_bytes()).unwrap();
        (String::from_utf8(multipart.body.to_vec()).unwrap(), multipart.boundary)
    }

    #[test]
    fn parts_are_written_as_the_rfc_says() {
        let json = r#"{"id":"u1","tags":["a",2],"none":null,"props":{"a":1},
            "file":{"filename":"a \"b\".csv","content_type":"text/csv","content":"x,y\n"}}"#;
        let (body, boundary) = written(json);
        let expected = "--B\r\nContent-Disposition: form-data; name=\"id\"\r\n\r\nu1\r\n\
            --B\r\nContent-Disposition: form-data; name=\"tags\"\r\n\r\na\r\n\
            --B\r\nContent-Disposition: form-data; name=\"tags\"\r\n\r\n2\r\n\
            --B\r\nContent-Disposition: form-data; name=\"props\"\r\nContent-Type: application/json\r\n\r\n{\"a\":1}\r\n\
            --B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a %22b%22.csv\"\r\n\
            Content-Type: text/csv\r\n\r\nx,y\n\r\n--B--\r\n";
        assert_eq!(body.replace(&boundary, "B"), expected);
    }

    #[test]
    fn the_boundary_is_made_from_the_content_and_not_in_it() {
        let (_, first) = written(r#"{"a":"1"}"#);
        assert_eq!(written(r#"{"a":"1"}"#).1, first);
        assert_ne!(written(r#"{"a":"2"}"#).1, first);
        // Whoever knew the boundary of a body could not put it into that body; try all the same.
        let parts = |content: &str| {
            vec![Part { name: "a".to_owned(), filename: None, content_type: None, content: content.to_owned() }]
        };
        let boundary = boundary(&parts("x"));
        assert!(!parts("x").iter().any(|part| part.content.contains(&boundary)));
    }

    #[test]
    fn a_part_without_content_is_left_out_and_one_of_its_own_kind_has_its_type() {
        let types = |json: &str| -> Vec<String> {
            written(json).0.lines().filter_map(|line| line.strip_prefix("Content-Type: ").map(str::to_owned)).collect()
        };
        assert_eq!(types(r#"{"f":{"filename":"a.bin","content":"x"}}"#), ["application/octet-stream"]);
        assert_eq!(types(r#"{"f":{"filename":"a.json","content":{"a":1}}}"#), ["application/json"]);
        assert_eq!(types(r#"{"f":{"content_type":"text/xml","content":"<a/>"}}"#), ["text/xml"]);
        assert_eq!(types(r#"{"f":{"filename":"a.json"}}"#), [""; 0]);
        assert_eq!(types(r#"{"f":{"content":"x"}}"#), ["application/json"], "an object like any other");
        assert_eq!(types(r#"{"f":{"filename":"a","content":"x","more":1}}"#), ["application/json"]);
    }

    #[test]
    fn what_cannot_be_a_part_is_an_error() {
        for wrong in
            ["[]", "1", r#"{"f":{"filename":5,"content":"x"}}"#, r#"{"f":{"content_type":"a\r\nb","content":"x"}}"#]
        {
            assert!(Multipart::of_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
