//! The check as SARIF 2.1.0, the format of code scanning
//! (<https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/sarif-v2.1.0-os.html>, read 2026-11-26).

use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{File, Position, UNABLE, exit_code};
use crate::config::{Code, Diagnostic, Severity};

/// What stays as it is in a relative URI: the unreserved characters of RFC 3986, section 2.3, and `/`.
const IN_PATH: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

pub(super) fn answer(files: &[File]) -> String {
    let document = json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": driver() },
            "invocations": [invocation(files)],
            "columnKind": "unicodeCodePoints",
            "results": files.iter().flat_map(results).collect::<Vec<_>>(),
        }],
    });
    format!("{document:#}\n")
}

fn driver() -> Value {
    json!({
        "name": "libroseg",
        "semanticVersion": env!("CARGO_PKG_VERSION"),
        "rules": Code::ALL.iter().map(|code| rule(*code)).collect::<Vec<_>>(),
    })
}

fn rule(code: Code) -> Value {
    json!({
        "id": code.as_str(),
        "shortDescription": { "text": code.meaning() },
        "help": { "text": code.mend() },
        "defaultConfiguration": { "level": level(code.severity()) },
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// How the check itself went: a file that cannot be read is no result, but keeps the run from being one.
fn invocation(files: &[File]) -> Value {
    let unreadable = files.iter().filter_map(|file| Some((file, file.result.as_ref().err()?)));
    let notifications: Vec<Value> = unreadable
        .map(|(file, reason)| {
            json!({
                "level": "error",
                "message": { "text": format!("cannot read the file: {reason}") },
                "locations": [{ "physicalLocation": { "artifactLocation": { "uri": uri(&file.name) } } }],
            })
        })
        .collect();
    json!({
        "executionSuccessful": exit_code(files) < UNABLE,
        "exitCode": exit_code(files),
        "toolExecutionNotifications": notifications,
    })
}

fn results(file: &File) -> Vec<Value> {
    let Ok(told) = &file.result else { return Vec::new() };
    told.diagnostics.iter().map(|diagnostic| result(&file.name, &told.text, diagnostic)).collect()
}

fn result(file: &str, text: &str, diagnostic: &Diagnostic) -> Value {
    let mut location = json!({ "artifactLocation": { "uri": uri(file) } });
    if !diagnostic.is_of_the_whole_file() {
        location["region"] = region(text, &diagnostic.span);
    }
    let mut place = json!({ "physicalLocation": location });
    if !diagnostic.path.is_empty() {
        place["logicalLocations"] = json!([{ "fullyQualifiedName": diagnostic.path }]);
    }
    let mut result = json!({
        "ruleId": diagnostic.code.as_str(),
        "ruleIndex": Code::ALL.iter().position(|code| *code == diagnostic.code),
        "level": level(diagnostic.severity),
        "message": { "text": message(diagnostic) },
        "locations": [place],
    });
    if let Some(suggestion) = &diagnostic.suggestion {
        result["fixes"] = json!([{
            "description": { "text": diagnostic.help.as_deref().unwrap_or("write instead") },
            "artifactChanges": [{
                "artifactLocation": { "uri": uri(file) },
                "replacements": [{
                    "deletedRegion": region(text, &suggestion.span),
                    "insertedContent": { "text": suggestion.replacement },
                }],
            }],
        }]);
    }
    result
}

fn message(diagnostic: &Diagnostic) -> String {
    match &diagnostic.help {
        Some(help) => format!("{}; {help}", diagnostic.message),
        None => diagnostic.message.clone(),
    }
}

/// Lines and columns from 1; the end column is the one after the last character.
fn region(text: &str, span: &Range<usize>) -> Value {
    let place = Position::of(text, span);
    json!({
        "startLine": place.line,
        "startColumn": place.column,
        "endLine": place.end_line,
        "endColumn": place.end_column,
    })
}

/// A path as a URI reference: relative where the path is.
fn uri(file: &str) -> String {
    let path = file.strip_prefix("./").unwrap_or(file).replace(std::path::MAIN_SEPARATOR, "/");
    let encoded = utf8_percent_encode(&path, &IN_PATH);
    if path.starts_with('/') { format!("file://{encoded}") } else { encoded.to_string() }
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn a_path_is_a_uri_reference() {
        assert_eq!(uri("./a b/é.toml"), "a%20b/%C3%A9.toml");
        assert_eq!(uri("/etc/libroseg.toml"), "file:///etc/libroseg.toml");
    }
}
