//! The file and the presets that it reaches, one after the other as one text.
//!
//! A place is a range of bytes of that text, whichever of them it lies in. For this each preset is parsed behind as many
//! blanks as there are bytes before it: to the parser they are the indentation of its first line.

use std::ops::Range;

use super::diagnostic::line_column;
use super::presets::Preset;

/// The file and presets.
pub(super) struct Texts {
    /// The file, and after it the presets.
    pub all: String,
    /// Bytes of the file.
    file_len: usize,
    parts: Vec<Part>,
}

/// A preset among the texts.
struct Part {
    preset: &'static Preset,
    /// Where it begins.
    start: usize,
    /// The preset behind so many blanks.
    padded: String,
}

// === impl Texts ===

impl Texts {
    /// A file with the presets that it reaches.
    pub(super) fn new(file: &str, presets: &[&'static Preset]) -> Self {
        let mut texts = Self { all: file.to_owned(), file_len: file.len(), parts: Vec::new() };
        for preset in presets {
            // The end of a text is a place in it.
            texts.all.push('\n');
            let start = texts.all.len();
            texts.all.push_str(preset.text);
            let padded = " ".repeat(start) + preset.text;
            texts.parts.push(Part { preset, start, padded });
        }
        texts
    }

    /// The presets, each as a text whose places are places of the whole.
    pub(super) fn presets(&self) -> impl Iterator<Item = (&'static Preset, &str)> {
        self.parts.iter().map(|part| (part.preset, part.padded.as_str()))
    }

    /// The preset that a place lies in, and the place in its own text; `None`: it lies in the file.
    pub(super) fn in_preset(&self, span: &Range<usize>) -> Option<(&'static Preset, Range<usize>)> {
        let part = self.parts.iter().rev().find(|part| span.start >= part.start)?;
        let end = part.start + part.preset.text.len();
        Some((part.preset, span.start - part.start..span.end.min(end).max(span.start) - part.start))
    }

    /// Preset, line and what stands there, for people; `None`: the place lies in the file.
    pub(super) fn told(&self, span: &Range<usize>) -> Option<String> {
        let (preset, own) = self.in_preset(span)?;
        let (line, _) = line_column(preset.text, own.start);
        let written = preset.text.lines().nth(line - 1).unwrap_or_default().trim();
        Some(format!("in the preset `{}`, line {line}: `{}`", preset.name, cut(written)))
    }

    /// Whether a place lies in the file.
    pub(super) fn is_in_file(&self, span: &Range<usize>) -> bool {
        span.start <= self.file_len
    }
}

/// As much of a line as a label has room for.
fn cut(line: &str) -> String {
    const CHARS_MAX: usize = 80;
    match line.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
