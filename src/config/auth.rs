//! `auth`: exactly one way to prove who we are, settled when the file is read.

mod aws;
pub(super) mod google;
pub(super) mod hmac;
pub(super) mod oauth2;

use std::ops::Range;
use std::sync::Arc;

use super::address;
use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::expressions::{Expressions, has_braces};
use super::spelling::alternatives;
use super::table::{Field, Table};
use crate::plan::auth::google::Wants;
use crate::plan::{Auth, Rule};

/// The ways there are.
const KINDS: [&str; 8] = ["basic", "bearer", "header", "query", "hmac", "oauth2", "google", "aws"];

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
        "hmac" => hmac::read(expressions, kind).map(|hmac| Auth::Hmac(Box::new(hmac))),
        "aws" => aws::read(expressions, kind).map(|aws| Auth::Aws(Box::new(aws))),
        "oauth2" => {
            let source = expressions.without_assuming(|| oauth2::read(expressions, kind));
            source.map(|source| Auth::Token(Arc::new(source)))
        }
        // Where the credentials are not known there is no key to sign with, and nobody to ask.
        _ => Some(match google::read(expressions, kind) {
            Some(source) => Auth::Token(Arc::new(source)),
            None => Auth::Bearer(UNKNOWN.to_owned()),
        }),
    }
}

/// A token of Google's for this scope, with credentials that stand elsewhere than in `auth`.
pub(super) fn google(
    expressions: &Expressions<'_>,
    at: Range<usize>,
    credentials: Option<&Field<'_>>,
    scope: &str,
) -> Auth {
    match google::token_source(expressions, at, credentials, Wants::Scope(scope.to_owned()), None) {
        Some(source) => Auth::Token(Arc::new(source)),
        None => Auth::Bearer(UNKNOWN.to_owned()),
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
    let (written, user, password) = (user, constant(expressions, user), secret(expressions, password));
    if user.as_ref().is_some_and(|user| user.contains(':')) {
        let message = "the user of `basic` holds a `:`, after which the password begins";
        expressions.findings.add(written.error(Code::BadValue, message));
    }
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
    let table = field.table("`auth` by name")?;
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

/// What may be one text or several, joined by spaces.
fn words(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<String> {
    let words: Vec<_> = field.one_or_many().iter().map(|word| constant(expressions, word)).collect();
    Some(words.into_iter().collect::<Option<Vec<_>>>()?.join(" "))
}

/// One of some words, or what holds without one.
fn word<T: Copy>(table: &Table<'_>, key: &'static str, words: &[(&'static str, T)], default: T) -> Option<T> {
    table.get(key).map_or(Some(default), |field| field.word(words))
}
