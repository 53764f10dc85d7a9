//! `auth.oauth2`: a token from an endpoint that speaks OAuth 2.

use super::{UNKNOWN, constant, secret, word, words};
use crate::config::address;
use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::expressions::Expressions;
use crate::config::sees::Sees;
use crate::config::table::{Field, Table};
use crate::plan::auth::token::{ClientStyle, Grant, OAuth2, TokenSource};

/// A word of `grant`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum GrantWord {
    ClientCredentials,
    RefreshToken,
}

pub(in crate::config) const GRANTS: [(&str, GrantWord); 2] =
    [("client_credentials", GrantWord::ClientCredentials), ("refresh_token", GrantWord::RefreshToken)];

pub(in crate::config) const STYLES: [(&str, ClientStyle); 2] =
    [("body", ClientStyle::Body), ("basic", ClientStyle::Basic)];

/// Fields of the form that have keys of their own.
const OWN_FIELDS: [&str; 6] = ["grant_type", "client_id", "client_secret", "refresh_token", "scope", "audience"];

pub(super) fn read(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<TokenSource> {
    let table = field.table("`oauth2`")?;
    let token_url = table.require("token_url", "write `token_url = \"https://…\"`");
    let token_url = token_url.and_then(|field| url(expressions, &field));
    let client_id = table.require("client_id", "write `client_id = \"{{ env.NAME }}\"`");
    let client_id = client_id.and_then(|field| constant(expressions, &field));
    let grant = grant(expressions, &table);
    let client_secret = client_secret(expressions, &table);
    let style = word(&table, "style", &STYLES, ClientStyle::Body);
    let scope = table.get("scope").and_then(|field| words(expressions, &field));
    let audience = table.get("audience").and_then(|field| constant(expressions, &field));
    let params = table.get("params").and_then(|field| params(expressions, &field));
    table.finish();
    Some(TokenSource::OAuth2(OAuth2 {
        token_url: token_url?,
        grant: grant?,
        client_id: client_id?,
        client_secret,
        style: style?,
        scope,
        audience,
        params: params.unwrap_or_default(),
    }))
}

/// The same rules as for `url`: where credentials go is constant.
fn url(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    let compiled = expressions.compile(&text, Sees::File)?;
    address::url(expressions.findings, &text, field.name, &compiled);
    let known = compiled.template.as_constant().and_then(|value| value.as_str());
    Some(known.unwrap_or(UNKNOWN).to_owned())
}

/// The word of `grant`; without it, the one that what is given is for.
fn grant_word(table: &Table<'_>) -> Option<GrantWord> {
    match table.get("grant") {
        Some(field) => field.word(&GRANTS),
        None if table.entries().contains_key("refresh_token") => Some(GrantWord::RefreshToken),
        None => Some(GrantWord::ClientCredentials),
    }
}

/// What is asked for.
fn grant(expressions: &Expressions<'_>, table: &Table<'_>) -> Option<Grant> {
    match (grant_word(table)?, table.get("refresh_token")) {
        (GrantWord::ClientCredentials, None) => Some(Grant::ClientCredentials),
        (GrantWord::ClientCredentials, Some(_)) => {
            table.not_here(&["refresh_token"], "is for `grant = \"refresh_token\"`");
            None
        }
        (GrantWord::RefreshToken, Some(field)) => secret(expressions, &field).map(Grant::RefreshToken),
        (GrantWord::RefreshToken, None) => {
            table.require("refresh_token", "write `refresh_token = \"{{ env.NAME }}\"`");
            None
        }
    }
}

/// A refresh token may belong to a client without a secret; a client that asks for itself must prove itself.
fn client_secret(expressions: &Expressions<'_>, table: &Table<'_>) -> Option<String> {
    let is_for_itself = matches!(grant_word(table), None | Some(GrantWord::ClientCredentials));
    let field = match table.get("client_secret") {
        None if is_for_itself => table.require("client_secret", "write `client_secret = \"{{ env.NAME }}\"`"),
        field => field,
    };
    secret(expressions, &field?)
}

fn params(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<Vec<(String, String)>> {
    let table = field.table("`params`")?;
    let pair = |field: Field<'_>| {
        if OWN_FIELDS.contains(&field.name) {
            let message = format!("`{}` is set by `oauth2` itself", field.name);
            let error = Diagnostic::error(Code::MisplacedKey, field.key_span(), message);
            expressions.findings.add(error.help("`params` are further fields"));
        }
        Some((field.name.to_owned(), constant(expressions, &field)?))
    };
    let pairs: Vec<_> = table.fields().map(pair).collect();
    pairs.into_iter().collect()
}
