//! `auth.aws`: Signature Version 4.

use super::{UNKNOWN, constant, secret};
use crate::config::address;
use crate::config::codes::Code;
use crate::config::expressions::Expressions;
use crate::config::table::{Field, Table};
use crate::plan::auth::Aws;

pub(super) fn read(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<Aws> {
    let table = field.table("`aws`")?;
    let id = table.require("access_key_id", "write `access_key_id = \"{{ env.AWS_ACCESS_KEY_ID }}\"`");
    let id = id.and_then(|field| {
        let id = constant(expressions, &field)?;
        address::header_value(expressions.findings, &field, &id);
        Some(id)
    });
    let key = table.require("secret_access_key", "write `secret_access_key = \"{{ env.AWS_SECRET_ACCESS_KEY }}\"`");
    let key = key.and_then(|field| secret(expressions, &field));
    let session_token = table.get("session_token").and_then(|field| {
        let token = secret(expressions, &field)?;
        address::header_value(expressions.findings, &field, &token);
        Some(token)
    });
    let region = name(expressions, &table, "region", "for example `region = \"eu-central-1\"`");
    let service = name(expressions, &table, "service", "for example `service = \"s3\"`");
    table.finish();
    Some(Aws {
        access_key_id: id?,
        secret_access_key: key?,
        // A variable that is there and empty is what AWS's own tools take for no session.
        session_token: session_token.filter(|token| !token.is_empty()),
        region: region?,
        service: service?,
    })
}

/// A region or a service: it becomes part of what is signed, between slashes.
fn name(expressions: &Expressions<'_>, table: &Table<'_>, key: &'static str, help: &str) -> Option<String> {
    let field = table.require(key, help)?;
    let name = constant(expressions, &field)?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !is_name && name != UNKNOWN {
        let message = format!("`{key}` must be letters, digits and `-`");
        expressions.findings.add(field.error(Code::BadValue, message).help(help));
        return None;
    }
    Some(name)
}
