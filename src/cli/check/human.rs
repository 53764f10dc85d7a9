//! The check for a person: every mistake drawn, and a line about each file.

use std::io::{self, IsTerminal as _};

use super::File;
use crate::cli::width;
use crate::config::{self, Style};

pub(super) fn answer(files: &[File]) -> String {
    let style = if io::stdout().is_terminal() && crate::telemetry::uses_color() { Style::Ansi } else { Style::Plain };
    let of_file = |file: &File| {
        let Ok(told) = &file.result else { return String::new() };
        let picture = config::draw(&file.name, &told.text, &told.diagnostics, style, width());
        let gap = if picture.is_empty() { "" } else { "\n" };
        format!("{picture}{gap}{}: {}\n", file.name, told.line())
    };
    files.iter().map(of_file).collect()
}
