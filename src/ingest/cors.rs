//! What browsers must be told before they hand an answer to a page: on every answer, errors included.
//!
//! Since analytics-next 1.84 every send is preflighted, and a preflight that fails loses all events
//! (`docs/wire-contract.md`, "CORS"). This is a courtesy to browsers, not a guard: whoever has a write key may send.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method};

const YES: HeaderValue = HeaderValue::from_static("true");
const METHODS: HeaderValue = HeaderValue::from_static("GET,POST,OPTIONS");
/// Seconds a browser may remember a preflight; Chromium's own limit
/// (`services/network/public/cpp/cors/preflight_result.cc`, `kMaxTimeout`).
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
/// Unexposed, the browser SDK ignores them and comes back after half a second.
const EXPOSED: HeaderValue = HeaderValue::from_static("Retry-After, X-RateLimit-Reset");
/// What the browser SDKs send; `*` would not cover `authorization` (Fetch standard).
const SDK_HEADERS: [&str; 3] = ["authorization", "content-type", "x-retry-count"];

/// Adds what the browser that asked needs to hear.
///
/// `origins` are those that may send; none means any.
pub(super) fn decorate(request: &HeaderMap, method: &Method, origins: &[String], response: &mut HeaderMap) {
    response.append(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = request.get(ORIGIN).filter(|origin| is_allowed(origin, origins)) else { return };
    response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, YES);
    response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    if method == Method::OPTIONS && request.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        response.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        response.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(request));
        response.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        response.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    }
}

/// Whether an origin is on the list; `https://*.example.com` stands for every host below.
fn is_allowed(origin: &HeaderValue, origins: &[String]) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    origins.is_empty() || origins.iter().any(|allowed| matches(origin, allowed))
}

fn matches(origin: &str, allowed: &str) -> bool {
    match allowed.split_once("*.") {
        None => allowed == "*" || origin.eq_ignore_ascii_case(allowed.trim_end_matches('/')),
        Some((scheme, domain)) => {
            let (origin, domain) = (origin.to_ascii_lowercase(), domain.trim_end_matches('/').to_ascii_lowercase());
            let host = origin.strip_prefix(&scheme.to_ascii_lowercase());
            host.and_then(|host| host.strip_suffix(&domain)).is_some_and(|below| below.ends_with('.'))
        }
    }
}

/// Everything the browser asked for, because pages may configure headers of their own, and what SDKs are known to send.
fn allowed_headers(request: &HeaderMap) -> HeaderValue {
    let asked = request.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|asked| asked.to_str().ok()).unwrap_or_default();
    let asked: Vec<&str> = asked.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let others = SDK_HEADERS.into_iter().filter(|known| !asked.iter().any(|name| name.eq_ignore_ascii_case(known)));
    let names: Vec<&str> = asked.iter().copied().chain(others).collect();
    HeaderValue::from_str(&names.join(",")).expect("pieces of a header value, joined by commas, are one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_matched_whole() {
        let cases = [
            ("https://example.com", "https://example.com", true),
            ("https://example.com", "https://EXAMPLE.com/", true),
            ("https://example.com", "*", true),
            ("http://example.com", "https://example.com", false),
            ("https://example.com.evil.test", "https://example.com", false),
            ("https://shop.example.com", "https://*.example.com", true),
            ("https://a.b.example.com", "https://*.example.com", true),
            ("https://example.com", "https://*.example.com", false),
            ("https://evilexample.com", "https://*.example.com", false),
            ("http://shop.example.com", "https://*.example.com", false),
            ("null", "https://example.com", false),
        ];
        for (origin, allowed, expected) in cases {
            assert_eq!(matches(origin, allowed), expected, "{origin} against {allowed}");
        }
    }

    #[test]
    fn a_preflight_hears_its_own_headers_and_those_of_the_sdks_once() {
        let asked = HeaderValue::from_static("X-Tenant, Authorization");
        let request = HeaderMap::from_iter([(ACCESS_CONTROL_REQUEST_HEADERS, asked)]);
        assert_eq!(allowed_headers(&request), "X-Tenant,Authorization,content-type,x-retry-count");
        assert_eq!(allowed_headers(&HeaderMap::new()), "authorization,content-type,x-retry-count");
    }
}
