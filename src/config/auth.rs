//! `auth`: exactly one way to prove who we are, settled when the file is read.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::hmac::{self, Key};

use super::address;
use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::expressions::{Expressions, Sees, has_braces};
use super::spelling::alternatives;
use super::table::{Field, Table};
use crate::expr::template::Template;
use crate::plan::auth::hmac::{Piece, SECRET_PREFIX, SignatureEncoding};
use crate::plan::{Auth, Rule};

/// The ways there are.
const KINDS: [&str; 5] = ["basic", "bearer", "header", "query", "hmac"];

/// Ways that a later version has.
const LATER: [&str; 3] = ["oauth2", "google", "aws"];

/// Reads `auth` of a destination. What is wrong with it is reported, and the answer is then of no use.
pub(super) fn read(expressions: &Expressions<'_>, destination: &Table<'_>) -> Auth {
    destination.get("auth").and_then(|field| read_kind(expressions, &field)).unwrap_or_default()
}

/// Reports headers that `auth` sets and a rule sets as well.
pub(super) fn check_headers(expressions: &Expressions<'_>, destination: &Table<'_>, auth: &Auth, rules: &[Rule]) {
    let Some(kind) = destination.get("auth").and_then(|field| kinds(&field.table("`auth`")?).into_iter().next()) else {
        return;
    };
    for name in auth.header_names() {
        let is_set = |rule: &Rule| rule.request.headers.iter().any(|(own, _)| own == name);
        if rules.iter().any(is_set) {
            let message = format!("`auth` sets the header `{name}`, which `headers` sets as well");
            expressions.findings.add(Diagnostic::error(Code::BadHeader, kind.key_span(), message));
        }
    }
}

fn read_kind(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<Auth> {
    let table = field.table("`auth`")?;
    table.not_yet(&LATER);
    let given = kinds(&table);
    if let [first, second, ..] = given.as_slice() {
        let message = format!(
            "`auth` is one of {}; here are `{}` and `{}`",
            alternatives(KINDS.into_iter()),
            first.name,
            second.name
        );
        expressions.findings.add(Diagnostic::error(Code::BadValue, second.key_span(), message));
    }
    if table.entries().is_empty() {
        let help = "write for example `bearer = \"{{ env.NAME }}\"`";
        expressions.findings.add(field.error(Code::MissingKey, "`auth` is empty").help(help));
    }
    table.finish();
    let kind = given.first()?;
    match kind.name {
        "basic" => basic(expressions, kind),
        "bearer" => bearer(expressions, kind),
        "header" => secrets(kind, |field| header(expressions, field)).map(Auth::Header),
        "query" => secrets(kind, |field| Some((field.name.to_owned(), secret(expressions, field)?))).map(Auth::Query),
        _ => hmac(expressions, kind).map(|hmac| Auth::Hmac(Box::new(hmac))),
    }
}

/// The ways that are given, in the order of [`KINDS`].
fn kinds<'a>(table: &Table<'a>) -> Vec<Field<'a>> {
    KINDS.into_iter().filter_map(|kind| table.get(kind)).collect()
}

// --- what is the same in every request

fn basic(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<Auth> {
    let list = field.list()?;
    let [user, password] = list.as_slice() else {
        let message = format!("`basic` must be [user, password], not a list of {}", list.len());
        expressions.findings.add(field.error(Code::WrongType, message));
        return None;
    };
    let (user, password) = (constant(expressions, user), secret(expressions, password));
    Some(Auth::Basic { user: user?, password: password? })
}

fn bearer(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<Auth> {
    let token = secret(expressions, field)?;
    address::header_value(expressions.findings, field, &token);
    Some(Auth::Bearer(token))
}

fn header(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<(String, String)> {
    let name = address::header_name(expressions.findings, field);
    let value = secret(expressions, field)?;
    address::header_value(expressions.findings, field, &value);
    Some((name?, value))
}

fn secrets(field: &Field<'_>, pair: impl Fn(&Field<'_>) -> Option<(String, String)>) -> Option<Vec<(String, String)>> {
    let table = field.table("`auth`")?;
    let pairs: Vec<_> = table.fields().map(|field| pair(&field)).collect();
    pairs.into_iter().collect()
}

/// A string that is known when the file is read and has no business in the file itself.
fn secret(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<String> {
    let is_pasted = field.raw().as_str().is_some_and(|text| !text.is_empty() && !has_braces(text));
    if is_pasted {
        let warning = Diagnostic::warning(Code::PastedSecret, field.span(), "a secret is pasted into the file");
        expressions.findings.add(warning.help("write \"{{ env.NAME }}\" or \"{{ file('/run/secrets/name') }}\""));
    }
    constant(expressions, field)
}

/// A string that is known when the file is read. Where variables may be unset, [`UNKNOWN`] stands for what they make.
fn constant(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<String> {
    expressions.settled_text(field).or_else(|| expressions.is_lenient().then(|| UNKNOWN.to_owned()))
}

/// What stands for a credential that is not known here.
const UNKNOWN: &str = "***";

// --- signatures

/// How the text of a key becomes bytes.
#[derive(Clone, Copy)]
enum KeyEncoding {
    Text,
    Base64,
    Hex,
}

const KEY_ENCODINGS: [(&str, KeyEncoding); 3] =
    [("text", KeyEncoding::Text), ("base64", KeyEncoding::Base64), ("hex", KeyEncoding::Hex)];

const ALGORITHMS: [(&str, hmac::Algorithm); 3] =
    [("sha256", hmac::HMAC_SHA256), ("sha1", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY), ("sha512", hmac::HMAC_SHA512)];

const SIGNATURE_ENCODINGS: [(&str, SignatureEncoding); 2] =
    [("hex", SignatureEncoding::Hex), ("base64", SignatureEncoding::Base64)];

/// The header of a signature when the file does not say.
const SIGNATURE_HEADER: &str = "x-signature";

/// What is signed when the file does not say.
const WHOLE_BODY: &str = "{{ body }}";

fn hmac(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<crate::plan::auth::Hmac> {
    let table = field.table("`hmac`")?;
    let key = table.require("key", "write `key = \"{{ env.NAME }}\"`");
    let secret = key.as_ref().and_then(|field| secret(expressions, field));
    let key_encoding = word(&table, "key_encoding", &KEY_ENCODINGS, KeyEncoding::Text);
    let algorithm = word(&table, "algorithm", &ALGORITHMS, hmac::HMAC_SHA256);
    let encoding = word(&table, "encoding", &SIGNATURE_ENCODINGS, SignatureEncoding::Hex);
    let header = match table.get("header") {
        Some(field) => field.text().and_then(|text| address::header_word(expressions.findings, &text)),
        None => Some(SIGNATURE_HEADER.to_owned()),
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
    Some(crate::plan::auth::Hmac {
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

/// One of some words, or what holds without one.
fn word<T: Copy>(table: &Table<'_>, key: &'static str, words: &[(&'static str, T)], default: T) -> Option<T> {
    table.get(key).map_or(Some(default), |field| field.word(words))
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
