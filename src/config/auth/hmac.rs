//! `auth.hmac`: a signature over the body.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::hmac::{self, Key};

use super::{UNKNOWN, secret, word};
use crate::config::address;
use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::expressions::Expressions;
use crate::config::sees::Sees;
use crate::config::table::Field;
use crate::expr::template::Template;
use crate::plan::auth::Hmac;
use crate::plan::auth::hmac::{Piece, SECRET_PREFIX, SignatureEncoding};

/// How the text of a key becomes bytes.
#[derive(Clone, Copy)]
pub(in crate::config) enum KeyEncoding {
    Text,
    Base64,
    Hex,
}

pub(in crate::config) const KEY_ENCODINGS: [(&str, KeyEncoding); 3] =
    [("text", KeyEncoding::Text), ("base64", KeyEncoding::Base64), ("hex", KeyEncoding::Hex)];

pub(in crate::config) const ALGORITHMS: [(&str, hmac::Algorithm); 3] =
    [("sha256", hmac::HMAC_SHA256), ("sha1", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY), ("sha512", hmac::HMAC_SHA512)];

pub(in crate::config) const SIGNATURE_ENCODINGS: [(&str, SignatureEncoding); 2] =
    [("hex", SignatureEncoding::Hex), ("base64", SignatureEncoding::Base64)];

/// The header of a signature when the file does not say.
pub(in crate::config) const SIGNATURE_HEADER: &str = "X-Signature";

/// What is signed when the file does not say.
pub(in crate::config) const WHOLE_BODY: &str = "{{ body }}";

pub(super) fn read(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<Hmac> {
    let table = field.table("`hmac`")?;
    let key = table.require("key", "write `key = \"{{ env.NAME }}\"`");
    let secret = key.as_ref().and_then(|field| secret(expressions, field));
    let key_encoding = word(&table, "key_encoding", &KEY_ENCODINGS, KeyEncoding::Text);
    let algorithm = word(&table, "algorithm", &ALGORITHMS, hmac::HMAC_SHA256);
    let encoding = word(&table, "encoding", &SIGNATURE_ENCODINGS, SignatureEncoding::Hex);
    let header = match table.get("header") {
        Some(field) => field.text().and_then(|text| address::header_word(expressions.findings, &text)),
        None => Some(SIGNATURE_HEADER.to_ascii_lowercase()),
    };
    let prefix = match table.get("prefix") {
        Some(field) => expressions.template(&field.text()?, Sees::Request),
        None => Some(Template::constant("".into())),
    };
    let message = match table.get("message") {
        Some(field) => message(expressions, &field),
        None => Piece::of_message(WHOLE_BODY),
    };
    let headers = table.get("headers").map(|field| signed_headers(expressions, &field));
    table.finish();
    let (secret, key_field) = (secret?, key?);
    let bytes = key_bytes(expressions, &key_field, &secret, key_encoding?)?;
    Some(Hmac {
        key: Key::new(algorithm?, &bytes),
        secret,
        encoding: encoding?,
        header: header?,
        prefix: prefix?,
        message: message?,
        headers: headers.unwrap_or_else(|| Some(Vec::new()))?,
        names: Arc::new(expressions.names(Vec::new())),
    })
}

fn message(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<Vec<Piece>> {
    let text = field.text()?;
    let compiled = expressions.compile(&text, Sees::Request)?;
    if compiled.is_settled && compiled.names.is_empty() {
        let warning =
            Diagnostic::warning(Code::SignsNothing, text.span.clone(), "this signs the same for every request");
        expressions.findings.add(warning.help("without `message` the whole body is signed: \"{{ body }}\""));
    }
    Piece::of_message(text.value)
}

fn signed_headers(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<Vec<(String, Template)>> {
    let table = field.table("`headers`")?;
    let pair = |field: Field<'_>| {
        let name = address::header_name(expressions.findings, &field);
        let template = expressions.scalar(&field, Sees::Request)?;
        if let Some(value) = template.as_constant().and_then(|value| value.as_str()) {
            address::header_value(expressions.findings, &field, value);
        }
        Some((name?, template))
    };
    let pairs: Vec<_> = table.fields().map(pair).collect();
    pairs.into_iter().collect()
}

/// The bytes of a key. What it says is never told.
fn key_bytes(expressions: &Expressions<'_>, field: &Field<'_>, secret: &str, encoding: KeyEncoding) -> Option<Vec<u8>> {
    let (bytes, what) = match encoding {
        _ if secret == UNKNOWN => (Some(UNKNOWN.into()), "known"),
        KeyEncoding::Text => (Some(secret.as_bytes().to_vec()), "text"),
        KeyEncoding::Base64 => {
            let bare = secret.trim().strip_prefix(SECRET_PREFIX).unwrap_or(secret.trim());
            (ANY_BASE64.decode(bare).ok(), "Base64")
        }
        KeyEncoding::Hex => (from_hex(secret.trim()), "hex digits"),
    };
    let Some(bytes) = bytes else {
        let error = field.error(Code::BadKey, format!("the key is not {what}, as `key_encoding` says"));
        expressions.findings.add(error.help("the value is not shown, for it is a secret"));
        return None;
    };
    if bytes.is_empty() {
        expressions.findings.add(field.error(Code::BadKey, "the key is empty: anybody could sign like this"));
        return None;
    }
    Some(bytes)
}

/// With or without padding.
const ANY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}
