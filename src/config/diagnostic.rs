//! A mistake as data, and the one function that draws it for a person.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Patch, Renderer, Snippet};

use super::codes::Code;

/// One thing that is wrong, or odd, in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind of thing: a stable word for scripts.
    pub code: Code,
    /// Whether the file can be used all the same.
    pub severity: Severity,
    /// What is wrong, as a fragment that names the thing.
    pub message: String,
    /// The place as a person would say it: `destinations.crm.rules[0].when`; empty at the top.
    pub path: String,
    /// The place in bytes of the file.
    pub span: Range<usize>,
    /// A few words under the caret.
    pub label: Option<String>,
    /// What to do about it, as a fragment.
    pub help: Option<String>,
    /// A change of the text that would mend it.
    pub suggestion: Option<Suggestion>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// It can, but probably does not mean what it says.
    Warning,
    /// Nothing is wrong with it, and it is worth knowing.
    Note,
}

/// A change of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// What to replace, in bytes of the file.
    pub span: Range<usize>,
    /// With what.
    pub replacement: String,
}

/// Whether a drawing may use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Letters only.
    Plain,
    /// With the escape sequences of a terminal.
    Ansi,
}

/// Draws diagnostics the way rustc does: `file:line:column`, the line, a caret under the piece, help.
///
/// `width` is the terminal's, in columns. The text ends with a newline unless there is nothing to draw.
#[must_use]
pub fn draw(file_name: &str, text: &str, diagnostics: &[Diagnostic], style: Style, width: usize) -> String {
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Ansi => Renderer::styled(),
    };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(width.max(40));
    let text = without_secrets(text, diagnostics);
    let mut out = String::new();
    for diagnostic in diagnostics {
        let drawn = renderer.render(&groups(file_name, &text, diagnostic));
        // The renderer pads lines with blanks that only show up in diffs.
        for line in drawn.lines() {
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out.push('\n');
    }
    out.truncate(out.trim_end_matches('\n').len());
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

/// The text with stars for the secrets that somebody pasted into it: a picture ends up in logs. Every byte keeps its place.
fn without_secrets<'t>(text: &'t str, diagnostics: &[Diagnostic]) -> Cow<'t, str> {
    let mut masked = Cow::Borrowed(text);
    for pasted in diagnostics.iter().filter(|diagnostic| diagnostic.code == Code::PastedSecret) {
        let Range { start, end } = drawable_patch(text, &pasted.span);
        let stars = text[start..end]
            .bytes()
            .map(|byte| if matches!(byte, b'"' | b'\'' | b'\n') { char::from(byte) } else { '*' });
        let stars: String = stars.collect();
        masked.to_mut().replace_range(start..end, &stars);
    }
    masked
}

/// Line and column of a byte of the text, both counted from 1, columns in characters.
#[must_use]
pub fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn groups<'a>(file_name: &'a str, text: &'a str, diagnostic: &'a Diagnostic) -> Vec<Group<'a>> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    if diagnostic.is_of_the_whole_file() {
        let title =
            level.primary_title(&diagnostic.message).id(diagnostic.code.as_str()).element(Origin::path(file_name));
        let help = diagnostic.help.as_deref().map(|help| Level::HELP.message(help));
        return vec![title.elements(help)];
    }
    let annotation = AnnotationKind::Primary.span(drawable(text, &diagnostic.span)).label(diagnostic.label.as_deref());
    let picture = Snippet::source(text).path(file_name).annotation(annotation);
    let mut first = level.primary_title(&diagnostic.message).id(diagnostic.code.as_str()).element(picture);
    let Some(suggestion) = &diagnostic.suggestion else {
        if let Some(help) = &diagnostic.help {
            first = first.element(Level::HELP.message(help));
        }
        return vec![first];
    };
    let patch = Patch::new(drawable_patch(text, &suggestion.span), &suggestion.replacement);
    let title = diagnostic.help.as_deref().unwrap_or("write instead");
    vec![first, Level::HELP.secondary_title(title).element(Snippet::source(text).path(file_name).patch(patch))]
}

/// A span that lies within the text, on whole characters, and on one line unless it must be longer.
fn drawable(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    let end = text.ceil_char_boundary(span.end).max(start);
    let first_line_end = text[start..end].find('\n').map_or(end, |at| start + at);
    start..first_line_end.max(start)
}

fn drawable_patch(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    start..text.ceil_char_boundary(span.end).max(start)
}

// === impl Diagnostic ===

impl Diagnostic {
    pub(crate) fn error(code: Code, span: Range<usize>, message: impl Into<String>) -> Self {
        debug_assert_eq!(code.severity(), Severity::Error, "{code}");
        Self::new(code, span, message)
    }

    pub(super) fn warning(code: Code, span: Range<usize>, message: impl Into<String>) -> Self {
        debug_assert_eq!(code.severity(), Severity::Warning, "{code}");
        Self::new(code, span, message)
    }

    pub(super) fn note(code: Code, span: Range<usize>, message: impl Into<String>) -> Self {
        debug_assert_eq!(code.severity(), Severity::Note, "{code}");
        Self::new(code, span, message)
    }

    fn new(code: Code, span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            message: message.into(),
            path: String::new(),
            span,
            label: None,
            help: None,
            suggestion: None,
        }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    pub(crate) fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    pub(super) fn suggest(self, span: Range<usize>, replacement: impl Into<String>) -> Self {
        Self { suggestion: Some(Suggestion { span, replacement: replacement.into() }), ..self }
    }

    /// "did you mean", if something is near, as help and as a change of the span itself.
    pub(super) fn did_you_mean(self, near: Option<&str>) -> Self {
        let Some(near) = near else { return self };
        let span = self.span.clone();
        self.help(format!("did you mean `{near}`?")).suggest(span, near)
    }

    /// Whether no place of the file is to blame: its span is empty, at the very beginning.
    #[must_use]
    pub fn is_of_the_whole_file(&self) -> bool {
        self.span == (0..0)
    }

    /// Whether the file cannot be used because of it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Code, Diagnostic, Style, draw, line_column};

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let text = "a\né = 'x'\n";
        assert_eq!(line_column(text, 0), (1, 1));
        assert_eq!(line_column(text, 2), (2, 1));
        assert_eq!(line_column(text, 4), (2, 2));
        assert_eq!(line_column(text, 999), (3, 1));
    }

    #[test]
    fn no_span_makes_drawing_panic() {
        let text = "a = 'é'\r\n\tb = \"\"\"x\ny\"\"\"\n";
        for start in 0..=text.len() + 3 {
            for end in start.saturating_sub(1)..=text.len() + 3 {
                let odd = Diagnostic::error(Code::BadValue, start..end, "odd").did_you_mean(Some("even"));
                assert!(draw("f.toml", text, &[odd], Style::Plain, 0).contains("error[bad-value]: odd"));
            }
        }
        assert_eq!(draw("f.toml", "", &[], Style::Plain, 80), "");
        let at_nothing = Diagnostic::warning(Code::Unused, 0..0, "nothing here");
        assert!(draw("f.toml", "", &[at_nothing], Style::Ansi, 80).contains("nothing here"));
    }

    #[test]
    fn text_of_the_file_cannot_reach_the_terminal_as_commands() {
        let evil = "x = '\u{1b}[31mred'";
        let drawn = draw("f.toml", evil, &[Diagnostic::error(Code::BadValue, 4..6, "odd")], Style::Plain, 80);
        assert!(!drawn.contains('\u{1b}'));
    }
}
