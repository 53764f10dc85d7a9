//! A request as a test, or a person, sees it: its body opened by the media type it is sent with.

use serde_json::{Map, Value as Json, json};

use crate::plan::Request;

/// A request as JSON: `{ method, url, headers, body, wire }`.
///
/// `headers` have their names in lower case. `body` is the opened body: JSON as it is, lines of NDJSON as a list, a form as an
/// object whose repeated keys are lists, parts of a multipart body likewise, anything else text. `wire` is the body as it is
/// sent, but not packed. What a request does not have
/// is left out: files have neither method nor URL.
#[must_use]
pub fn request(request: &Request) -> Json {
    let mut shown = Map::new();
    if !request.url.is_empty() {
        shown.insert("method".into(), request.method.clone().into());
        shown.insert("url".into(), request.url.clone().into());
        shown.insert("headers".into(), headers(&request.headers));
    }
    if let Some(body) = request.plain_body() {
        let wire = String::from_utf8_lossy(&body);
        shown.insert("body".into(), opened(&wire, content_type(request)));
        shown.insert("wire".into(), wire.into());
    }
    Json::Object(shown)
}

/// A header that is there several times is a list.
fn headers(headers: &[(String, String)]) -> Json {
    let mut shown = Map::new();
    for (name, value) in headers {
        add(&mut shown, name, value.as_str());
    }
    Json::Object(shown)
}

fn content_type(request: &Request) -> &str {
    let header = request.headers.iter().find(|(name, _)| name == "content-type");
    let is_lines = request.url.is_empty();
    header.map_or(if is_lines { "application/x-ndjson" } else { "" }, |(_, value)| value)
}

fn opened(wire: &str, content_type: &str) -> Json {
    let text = || Json::from(wire);
    let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let media_type = media_type.trim();
    if let Some(boundary) = parameters.trim().strip_prefix("boundary=").filter(|_| media_type == MULTIPART) {
        return multipart(wire, boundary).unwrap_or_else(text);
    }
    if media_type == "application/x-www-form-urlencoded" {
        return form(wire);
    }
    if media_type.ends_with("ndjson") {
        let lines: Result<Vec<Json>, _> = wire.lines().map(serde_json::from_str).collect();
        return lines.map_or_else(|_| text(), Json::from);
    }
    serde_json::from_str(wire).unwrap_or_else(|_| text())
}

fn form(wire: &str) -> Json {
    let mut fields = Map::new();
    for (name, value) in url::form_urlencoded::parse(wire.as_bytes()) {
        add(&mut fields, &name, value.as_ref());
    }
    Json::Object(fields)
}

const MULTIPART: &str = "multipart/form-data";

/// The parts of a body as we write it: a field is its text, a part of its own kind the table that it was made from.
fn multipart(wire: &str, boundary: &str) -> Option<Json> {
    let parts = wire.strip_prefix(&format!("--{boundary}\r\n"))?.strip_suffix(&format!("\r\n--{boundary}--\r\n"))?;
    let mut fields = Map::new();
    for part in parts.split(&format!("\r\n--{boundary}\r\n")) {
        let (head, content) = part.split_once("\r\n\r\n")?;
        let (name, value) = part_of(head, content)?;
        add(&mut fields, name, value);
    }
    Some(Json::Object(fields))
}

fn part_of<'w>(head: &'w str, content: &str) -> Option<(&'w str, Json)> {
    let (disposition, kind) = match head.split_once("\r\nContent-Type: ") {
        Some((disposition, kind)) => (disposition, Some(kind)),
        None => (head, None),
    };
    let name = disposition.strip_prefix("Content-Disposition: form-data; name=\"")?.strip_suffix('"')?;
    let (name, filename) = match name.split_once("\"; filename=\"") {
        Some((name, filename)) => (name, Some(filename)),
        None => (name, None),
    };
    let value = match (filename, kind) {
        (None, None) => content.into(),
        (None, Some("application/json")) => serde_json::from_str(content).unwrap_or_else(|_| content.into()),
        (filename, kind) => json!({ "filename": filename, "content_type": kind, "content": content }),
    };
    Some((name, value))
}

fn add(fields: &mut Map<String, Json>, name: &str, value: impl Into<Json>) {
    let value = value.into();
    match fields.get_mut(name) {
        Some(Json::Array(values)) => values.push(value),
        Some(first) => *first = json!([first.take(), value]),
        None => drop(fields.insert(name.to_owned(), value)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value as Json, json};

    use super::Request;

    fn body(content_type: &str, wire: &str) -> Json {
        let request = Request {
            method: "POST".into(),
            url: "https://a.example".into(),
            headers: vec![("content-type".into(), content_type.into())],
            body: Some(wire.to_owned().into()),
            timeout: Duration::ZERO,
            token: None,
            shape: None,
        };
        super::request(&request)["body"].clone()
    }

    #[test]
    fn a_body_is_opened_by_its_media_type() {
        assert_eq!(body("application/json", r#"{"a":1}"#), json!({"a": 1}));
        assert_eq!(body("application/vnd.api+json; charset=utf-8", "[1]"), json!([1]));
        assert_eq!(body("application/x-ndjson", "{\"a\":1}\n2\n"), json!([{"a": 1}, 2]));
        assert_eq!(body("application/x-www-form-urlencoded", "a=1&b=x%20y&a=2"), json!({"a": ["1", "2"], "b": "x y"}));
        assert_eq!(body("text/plain", "hello"), json!("hello"));
        let parts = "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
                     --B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n2\r\n\
                     --B\r\nContent-Disposition: form-data; name=\"o\"\r\nContent-Type: application/json\r\n\r\n{}\r\n\
                     --B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\nContent-Type: text/csv\r\n\r\n,\r\n\
                     --B--\r\n";
        assert_eq!(
            body("multipart/form-data; boundary=B", parts),
            json!({"a": ["1", "2"], "o": {}, "f": {"filename": "x", "content_type": "text/csv", "content": ","}})
        );
        assert_eq!(body("multipart/form-data; boundary=B", "no parts"), json!("no parts"));
        assert_eq!(body("application/x-ndjson", "no json"), json!("no json"));
    }
}
