//! Where a write key may stand in a request, besides the body.
//!
//! The order to try is header, body, query, `X-Write-Key` (`docs/wire-contract.md`, "Write key"). A key is never logged.

use std::borrow::Cow;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use url::form_urlencoded;

/// Base64 as written by people who do not agree about padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The key in `Authorization: Basic base64(key:)`, with or without the colon.
///
/// Any other scheme is no key: the token of a `Bearer` belongs to OAuth, and then the key is in the body.
pub(super) fn in_authorization(headers: &HeaderMap) -> Option<String> {
    let (scheme, credentials) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(LENIENT.decode(credentials.trim()).ok()?).ok()?;
    let key = text.split(':').next()?;
    (!key.is_empty()).then(|| key.to_owned())
}

/// The key in `?writeKey=`.
pub(super) fn in_query(query: Option<&str>) -> Option<Cow<'_, str>> {
    let (_, key) = form_urlencoded::parse(query?.as_bytes()).find(|(name, _)| name == "writeKey")?;
    (!key.is_empty()).then_some(key)
}

/// The key in `X-Write-Key`, which proxies set.
pub(super) fn in_own_header(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-write-key")?.to_str().ok().map(str::trim).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn key_of(authorization: &str) -> Option<String> {
        let value = HeaderValue::from_str(authorization).expect("a header value in a test is printable");
        in_authorization(&HeaderMap::from_iter([(AUTHORIZATION, value)]))
    }

    #[test]
    fn a_key_is_found_however_its_credentials_are_written() {
        let cases = [
            ("Basic a2V5Og==", Some("key")),
            ("Basic a2V5Og", Some("key")),
            ("Basic a2V5", Some("key")),
            ("basic  a2V5Og== ", Some("key")),
            ("BASIC a2V5OnBhc3N3b3Jk", Some("key")),
            ("Basic Og==", None),
            ("Basic", None),
            ("Basic ", None),
            ("Basic ?", None),
            ("Basic //79", None),
            ("Bearer a2V5Og==", None),
            ("a2V5Og==", None),
        ];
        for (authorization, key) in cases {
            assert_eq!(key_of(authorization).as_deref(), key, "{authorization}");
        }
    }

    #[test]
    fn a_key_in_the_query_is_decoded() {
        assert_eq!(in_query(Some("a=1&writeKey=k%2Fy&writeKey=other")).as_deref(), Some("k/y"));
        assert_eq!(in_query(Some("writeKey=")), None);
        assert_eq!(in_query(Some("writekey=k")), None);
        assert_eq!(in_query(None), None);
    }
}
