//! A request as a test, or a person, sees it: its body opened by the media type it is sent with.

use serde_json::{Map, Value as Json, json};

use crate::plan::Request;

/// A request as JSON: `{ method, url, headers, body, wire }`.
///
/// `headers` have their names in lower case. `body` is the opened body: JSON as it is, lines of NDJSON as a list, a form as an
/// object whose repeated keys are lists, anything else text. `wire` is the body as it is sent. What a request does not have
/// is left out: files have neither method nor URL.
#[must_use]
pub fn request(request: &Request) -> Json {
    let mut shown = Map::new();
    if !request.url.is_empty() {
        shown.insert("method".into(), request.method.clone().into());
        shown.insert("url".into(), request.url.clone().into());
        shown.insert("headers".into(), headers(&request.headers));
    }
    if let Some(body) = &request.body {
        let wire = String::from_utf8_lossy(body);
        let media_type = media_type(request);
        shown.insert("body".into(), opened(&wire, media_type));
        shown.insert("wire".into(), wire.into());
    }
    Json::Object(shown)
}

/// A header that is there several times is a list.
fn headers(headers: &[(String, String)]) -> Json {
    let mut shown = Map::new();
    for (name, value) in headers {
        add(&mut shown, name, value);
    }
    Json::Object(shown)
}

fn media_type(request: &Request) -> &str {
    let header = request.headers.iter().find(|(name, _)| name == "content-type");
    let is_lines = request.url.is_empty();
    header.map_or(if is_lines { "application/x-ndjson" } else { "" }, |(_, value)| {
        value.split(';').next().unwrap_or_default().trim()
    })
}

fn opened(wire: &str, media_type: &str) -> Json {
    let text = || Json::from(wire);
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
        add(&mut fields, &name, &value);
    }
    Json::Object(fields)
}

fn add(fields: &mut Map<String, Json>, name: &str, value: &str) {
    match fields.get_mut(name) {
        Some(Json::Array(values)) => values.push(value.into()),
        Some(first) => *first = json!([first.take(), value]),
        None => drop(fields.insert(name.to_owned(), value.into())),
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
        assert_eq!(body("application/x-ndjson", "no json"), json!("no json"));
    }
}
