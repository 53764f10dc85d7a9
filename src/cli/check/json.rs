//! The check as one JSON document: `docs/config.md` has its shape, which only ever grows.

use std::ops::Range;

use serde_json::{Value, json};

use super::{File, Position, Summary, Told, Visit, exit_code};
use crate::config::{Diagnostic, Severity};
use crate::plan::QueueKind;

/// Raised when a field goes or changes what it means; a new field is no reason.
const VERSION: u32 = 1;

pub(super) fn answer(files: &[File]) -> String {
    let told = || files.iter().filter_map(|file| file.result.as_ref().ok());
    let document = json!({
        "version": VERSION,
        "exit_code": exit_code(files),
        "counts": {
            "files": files.len(),
            "unreadable": files.len() - told().count(),
            "errors": told().map(|told| told.count(Severity::Error)).sum::<usize>(),
            "warnings": told().map(|told| told.count(Severity::Warning)).sum::<usize>(),
            "notes": told().map(|told| told.count(Severity::Note)).sum::<usize>(),
            "denied": told().map(|told| told.denied).sum::<usize>(),
        },
        "files": files.iter().map(of_file).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

fn of_file(file: &File) -> Value {
    let told = file.result.as_ref().ok();
    let of_diagnostic = |told: &Told| -> Vec<Value> {
        told.diagnostics.iter().map(|diagnostic| of_diagnostic(&file.name, &told.text, diagnostic)).collect()
    };
    json!({
        "file": file.name,
        "ok": told.is_some_and(Told::is_right),
        "unreadable": file.result.as_ref().err(),
        "diagnostics": told.map(of_diagnostic).unwrap_or_default(),
        "summary": told.and_then(|told| told.summary.as_ref()).map(of_summary),
        "online": told.and_then(|told| told.online.as_ref()).map(|visits| visits.iter().map(Visit::json).collect::<Vec<_>>()),
    })
}

fn of_diagnostic(file: &str, text: &str, diagnostic: &Diagnostic) -> Value {
    let place = Position::of_diagnostic(text, diagnostic);
    let suggestion = diagnostic
        .suggestion
        .as_ref()
        .map(|suggestion| json!({ "replacement": suggestion.replacement, "range": range(text, &suggestion.span) }));
    json!({
        "code": diagnostic.code.as_str(),
        "severity": diagnostic.severity.to_string(),
        "message": diagnostic.message,
        "path": diagnostic.path,
        "file": file,
        "line": place.as_ref().map(|place| place.line),
        "column": place.as_ref().map(|place| place.column),
        "end_line": place.as_ref().map(|place| place.end_line),
        "end_column": place.as_ref().map(|place| place.end_column),
        "label": diagnostic.label,
        "help": diagnostic.help,
        "suggestion": suggestion,
    })
}

/// The range of a suggestion, for programs that count as they like: `start` and `end` are bytes.
fn range(text: &str, span: &Range<usize>) -> Value {
    let place = Position::of(text, span);
    json!({
        "start": span.start,
        "end": span.end,
        "line": place.line,
        "column": place.column,
        "end_line": place.end_line,
        "end_column": place.end_column,
    })
}

fn of_summary(summary: &Summary) -> Value {
    let off: Vec<Value> = summary.off.iter().map(|(name, why)| json!({ "name": name, "why": why })).collect();
    let queue = match summary.queue.kind {
        QueueKind::Disk => json!({ "type": "disk", "dir": summary.queue.dir.to_string_lossy() }),
        QueueKind::Memory => json!({ "type": "memory", "dir": null }),
    };
    json!({
        "sources": summary.sources,
        "destinations": summary.destinations,
        "tests": summary.tests,
        "off": off,
        "queue": queue,
        "what_a_200_means": summary.what_a_200_means(),
    })
}
