//! The check as annotations of GitHub Actions, which shows them at the lines of a pull request
//! (<https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#setting-an-error-message>,
//! read 2026-11-26). What is not an annotation stands in the log as it is.

use super::{File, Position};
use crate::config::{Diagnostic, Severity};

pub(super) fn answer(files: &[File]) -> String {
    files.iter().map(of_file).collect()
}

fn of_file(file: &File) -> String {
    match &file.result {
        Ok(told) => {
            let annotation = |diagnostic| annotation(&file.name, &told.text, diagnostic);
            let annotations: String = told.diagnostics.iter().map(annotation).collect();
            format!("{annotations}{}: {}\n", file.name, told.line())
        }
        Err(reason) => command("error", &[("file", path(&file.name))], &format!("cannot read the file: {reason}")),
    }
}

fn annotation(file: &str, text: &str, diagnostic: &Diagnostic) -> String {
    let name = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let mut properties = vec![("file", path(file))];
    if let Some(place) = Position::of_diagnostic(text, diagnostic) {
        properties.push(("line", place.line.to_string()));
        // Columns of different lines cannot be put together.
        if place.line == place.end_line {
            properties.push(("col", place.column.to_string()));
        }
        properties.push(("endLine", place.end_line.to_string()));
        if place.line == place.end_line {
            properties.push(("endColumn", place.end_column.to_string()));
        }
    }
    properties.push(("title", diagnostic.code.to_string()));
    let help = diagnostic.help.as_ref().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
    command(name, &properties, &format!("{}{help}", diagnostic.message))
}

/// A path from the root of the repository, where checks usually run.
fn path(file: &str) -> String {
    file.strip_prefix("./").unwrap_or(file).to_owned()
}

/// One command, escaped as GitHub's own toolkit does it
/// (<https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts>, read 2026-11-26).
fn command(name: &str, properties: &[(&str, String)], message: &str) -> String {
    let properties: Vec<String> = properties
        .iter()
        .map(|(key, value)| format!("{key}={}", escaped(value).replace(':', "%3A").replace(',', "%2C")))
        .collect();
    format!("::{name} {}::{}\n", properties.join(","), escaped(message))
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn what_would_end_a_command_is_escaped() {
        let properties = [("file", "a,b:c%d\n.toml".to_owned()), ("line", "1".to_owned())];
        assert_eq!(
            command("error", &properties, "100%: a, b\r\n::warning::c"),
            "::error file=a%2Cb%3Ac%25d%0A.toml,line=1::100%25: a, b%0D%0A::warning::c\n"
        );
    }
}
