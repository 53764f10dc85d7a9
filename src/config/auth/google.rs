//! `auth.google`: a token of Google's, for whoever the credentials say we are.
//!
//! Whatever else has credentials of Google's asks [`token_source`] as well. Without credentials the application default
//! credentials are looked for, unless variables are only assumed to be set: then nothing of this machine counts.

mod identity;

use std::ops::Range;
use std::sync::Arc;

use super::{UNKNOWN, constant, secret, words};
use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::expressions::Expressions;
use crate::config::table::{Field, Table};
use crate::plan::auth::google::{Google, Identity, METADATA_HOST, Wants};
use crate::plan::auth::token::TokenSource;
use identity::{Mistake, Reader, Somebody};

/// The variable that names a file of credentials
/// (<https://cloud.google.com/docs/authentication/application-default-credentials>, read 2026-11-26).
const CREDENTIALS_FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// What gcloud calls the file that `gcloud auth application-default login` writes (<https://google.aip.dev/auth/4113>, read
/// 2026-11-26).
const WELL_KNOWN_FILE: &str = "application_default_credentials.json";

/// Says where the metadata server is, as in google-auth 2.63.0 for Python (`google.auth.environment_vars`, read 2026-11-26).
const METADATA_VARIABLE: &str = "GCE_METADATA_HOST";

/// Says which project is charged, before what the credentials say (the same list).
const QUOTA_VARIABLE: &str = "GOOGLE_CLOUD_QUOTA_PROJECT";

/// Reads `google`; `None` also where the credentials are not known.
pub(super) fn read(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<TokenSource> {
    let table = field.table("`google`")?;
    let credentials = table.get("credentials");
    let wants = wants(expressions, &table);
    let subject = table.get("subject");
    table.finish();
    token_source(expressions, field.key_span(), credentials.as_ref(), wants?, subject.as_ref())
}

/// Who gives tokens for `credentials` of Google's, which are JSON; missing or empty, the application default credentials
/// are looked for, and a note `at` a place of the file tells what was found.
///
/// `None`: there is a mistake, which was told, or nothing is known of them here; requests then show `Bearer ***`.
pub(in crate::config) fn token_source(
    expressions: &Expressions<'_>,
    at: Range<usize>,
    credentials: Option<&Field<'_>>,
    wants: Wants,
    subject: Option<&Field<'_>>,
) -> Option<TokenSource> {
    // Nobody is asked for a token where only assumptions are made, so nothing is missing there.
    expressions.without_assuming(|| {
        let text = credentials.map(|field| secret(expressions, field));
        let subject = subject.map(|field| Some((field.key_span(), constant(expressions, field)?)));
        let (text, subject) = (text.unwrap_or_else(|| Some(String::new()))?, subject.unwrap_or(None));
        let Somebody { identity, quota_project } = match credentials {
            _ if text == UNKNOWN => None,
            Some(field) if !text.is_empty() => given(expressions, field, &text),
            Some(_) | None if expressions.is_lenient() => None,
            Some(_) | None => application_default(expressions, at.clone()),
        }?;
        let (place, subject) = subject.map_or((at, None), |(place, subject)| (place, Some(subject)));
        if let Some(why) = identity.refuses(&wants, subject.is_some()) {
            expressions.findings.add(Diagnostic::error(Code::BadValue, place, why));
            return None;
        }
        Some(TokenSource::Google(Box::new(Google { identity: Arc::new(identity), wants, subject, quota_project })))
    })
}

/// `scope` or `audience`.
fn wants(expressions: &Expressions<'_>, table: &Table<'_>) -> Option<Wants> {
    let help = "for example `scope = \"https://www.googleapis.com/auth/bigquery.insertdata\"`";
    match (table.get("scope"), table.get("audience")) {
        (Some(_), Some(audience)) => {
            let message = "`google` wants `scope` for an access token or `audience` for an ID token, not both";
            expressions.findings.add(Diagnostic::error(Code::BadValue, audience.key_span(), message));
            None
        }
        (None, Some(audience)) => constant(expressions, &audience).map(Wants::Audience),
        (scope, None) => {
            let scope = scope.or_else(|| table.require("scope", help))?;
            words(expressions, &scope).map(Wants::Scope)
        }
    }
}

/// Who the file says we are.
fn given(expressions: &Expressions<'_>, field: &Field<'_>, text: &str) -> Option<Somebody> {
    let told = |mistake: Mistake| {
        let message = format!("`credentials` {}", mistake.why);
        let help = if looks_like_path(text) {
            "the JSON itself is wanted; if this is its path, write `\"{{ file('…') }}\"`"
        } else {
            "JSON that Google or gcloud wrote is wanted; what is there is not shown"
        };
        expressions.findings.add(if mistake.is_of_target {
            field.error(Code::NotOnTarget, message).help("a `credential_source.url` can be asked from there")
        } else {
            field.error(Code::BadKey, message).help(help)
        });
    };
    Reader::new(expressions).read(text).map_err(told).ok()
}

fn looks_like_path(text: &str) -> bool {
    let is_json = text.trim_start().starts_with(['{', '[', '"']);
    !is_json && !text.contains('\n') && (text.contains(['/', '\\']) || text.starts_with('~'))
}

// --- application default credentials

/// Who we are where the file does not say, in Google's order: a file that a variable names, gcloud's own file, the
/// machine.
fn application_default(expressions: &Expressions<'_>, at: Range<usize>) -> Option<Somebody> {
    let error = |code, message: String| expressions.findings.add(Diagnostic::error(code, at.clone(), message));
    let named = expressions.look_up(CREDENTIALS_FILE);
    if !expressions.has_files() {
        let error = Diagnostic::error(Code::NotOnTarget, at, "the function has no credentials of Google's of its own");
        expressions.findings.add(error.help("write `credentials = \"{{ env.NAME }}\"`"));
        return None;
    }
    if let Some(path) = named {
        if path.trim_start().starts_with('{') {
            let message = format!("{CREDENTIALS_FILE} must be the path of a file, not what is in it");
            let error = Diagnostic::error(Code::BadKey, at, message);
            let help = format!("write `credentials = \"{{{{ env.{CREDENTIALS_FILE} }}}}\"`");
            expressions.findings.add(error.help(help));
            return None;
        }
        return match expressions.look_into(&path) {
            Ok(text) => in_file(expressions, at, &path, &text),
            Err(why) => {
                error(Code::UnreadableFile, format!("cannot read {path}, which {CREDENTIALS_FILE} names: {why}"));
                None
            }
        };
    }
    let well_known = well_known_file(expressions);
    match well_known.as_ref().map(|path| (path, expressions.look_into(path))) {
        Some((path, Ok(text))) => in_file(expressions, at, path, &text),
        Some((_, Err(_))) | None => Some(of_machine(expressions, at, well_known.as_deref())),
    }
}

fn in_file(expressions: &Expressions<'_>, at: Range<usize>, path: &str, text: &str) -> Option<Somebody> {
    match Reader::new(expressions).read(text) {
        Ok(somebody) => {
            let message = format!("application default credentials: {} in {path}", identity::kind(&somebody.identity));
            expressions.findings.add(Diagnostic::note(Code::CredentialsFound, at, message));
            Some(somebody)
        }
        Err(mistake) => {
            let message = format!("the application default credentials in {path} {}", mistake.why);
            let error = Diagnostic::error(Code::BadKey, at, message);
            expressions.findings.add(error.help("`gcloud auth application-default login` writes such a file"));
            None
        }
    }
}

/// Whether there is a metadata server turns out when it is asked.
fn of_machine(expressions: &Expressions<'_>, at: Range<usize>, well_known: Option<&str>) -> Somebody {
    let host = expressions.look_up(METADATA_VARIABLE).unwrap_or_else(|| METADATA_HOST.to_owned());
    let message = format!("application default credentials: those of this machine, by {host}");
    let note = Diagnostic::note(Code::CredentialsFound, at, message);
    expressions.findings.add(note.help(match well_known {
        Some(path) => format!("{CREDENTIALS_FILE} is not set, and {path} cannot be read"),
        None => format!("{CREDENTIALS_FILE} is not set, and there is no folder of gcloud's: HOME is not set"),
    }));
    Somebody { identity: Identity::Metadata { host }, quota_project: expressions.look_up(QUOTA_VARIABLE) }
}

/// Where gcloud keeps what `gcloud auth application-default login` writes.
fn well_known_file(expressions: &Expressions<'_>) -> Option<String> {
    let folder = expressions.look_up("CLOUDSDK_CONFIG").or_else(|| {
        if cfg!(windows) {
            return expressions.look_up("APPDATA").map(|folder| format!("{folder}\\gcloud"));
        }
        expressions.look_up("HOME").map(|home| format!("{home}/.config/gcloud"))
    })?;
    Some(format!("{folder}{}{WELL_KNOWN_FILE}", if cfg!(windows) { '\\' } else { '/' }))
}
