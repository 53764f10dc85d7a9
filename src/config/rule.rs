//! `on`, `when`, `each`, `final`: which events a rule wants.

use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::expressions::Expressions;
use super::findings::Findings;
use super::mapping;
use super::sees::Sees;
use super::spelling::{alternatives, nearest};
use super::table::{Field, Table, Text};
use crate::event::Kind;
use crate::plan::{Condition, Each, Glob, Trigger};

/// The keys read here, which a destination with rules leaves to its rules.
pub(super) const MATCH_KEYS: [&str; 3] = ["on", "each", "final"];

/// Which events a rule wants.
pub(super) struct Match {
    /// Triggers; empty: all.
    pub on: Vec<Trigger>,
    /// The `on` entries as written, for warnings.
    pub written: Vec<String>,
    /// One item per element.
    pub each: Option<Each>,
    /// No later rule is asked.
    pub is_final: bool,
}

/// Reads which events a rule wants, but for `when`. `None` when `each` is wrong.
pub(super) fn read(expressions: &Expressions<'_>, table: &Table<'_>) -> Option<Match> {
    let on = table.get("on").map(|field| on(expressions.findings, &field)).unwrap_or_default();
    let each = table.get("each").map(|field| mapping::each(expressions, &field, Sees::Event));
    let is_final = table.get("final").and_then(|field| field.boolean()).unwrap_or_default();
    let (on, written) = on.into_iter().unzip();
    Some(Match {
        on,
        written,
        each: match each {
            Some(each) => Some(each?),
            None => None,
        },
        is_final,
    })
}

/// Reads `when`: one condition or a list, all of which must hold.
pub(super) fn when(expressions: &Expressions<'_>, table: &Table<'_>, sees: Sees) -> Vec<Condition> {
    let fields = table.get("when").map(|field| field.one_or_many()).unwrap_or_default();
    fields.iter().filter_map(|field| expressions.condition(field, sees)).collect()
}

/// Reads `on`, with each entry as written.
pub(super) fn on(findings: &Findings<'_>, field: &Field<'_>) -> Vec<(Trigger, String)> {
    let entries = field.one_or_many();
    if entries.is_empty() {
        let error = field.error(Code::BadValue, "`on` is empty: this rule would never match");
        findings.add(error.help("leave `on` out to match every event"));
    }
    let read = |entry: &Field<'_>| {
        let text = entry.text_as("an event type such as \"track\" or \"track:Order *\"")?;
        Some((trigger(findings, &text)?, text.value.to_owned()))
    };
    entries.iter().filter_map(read).collect()
}

fn trigger(findings: &Findings<'_>, text: &Text<'_>) -> Option<Trigger> {
    let (word, name) = text.value.split_once(':').map_or((text.value, None), |(word, name)| (word, Some(name)));
    let kind = match word {
        "*" => None,
        _ => Some(word.parse::<Kind>().map_err(|_| findings.add(unknown_type(text, word))).ok()?),
    };
    let has_name = match kind {
        None | Some(Kind::Track | Kind::Page | Kind::Screen) => true,
        Some(Kind::Identify | Kind::Group | Kind::Alias) => false,
    };
    if let Some(name) = name
        && (!has_name || name.is_empty())
    {
        let message =
            if has_name { "a name is missing after the `:`" } else { "only track, page and screen have a name" };
        findings.add(text.error(Code::BadValue, message).help(format!("write \"{word}\"")));
        return None;
    }
    Some(Trigger { kind, name: name.map(Glob::new) })
}

fn unknown_type(text: &Text<'_>, word: &str) -> Diagnostic {
    let words = || Kind::ALL.iter().map(|kind| kind.as_str());
    let piece = text.place(&(0..word.len()));
    let words_and_any = || alternatives(words().chain(["*"]));
    if word.is_empty() {
        let error = Diagnostic::error(Code::BadValue, piece, "an event type is missing");
        return error.help(format!("write {}", words_and_any()));
    }
    let error = Diagnostic::error(Code::BadValue, piece, format!("`{word}` is not an event type"));
    match nearest(word, words()) {
        None if !text.value.contains(':') => {
            let help = format!("for events of this name write \"track:{word}\"");
            error.help(help).suggest(text.span.clone(), format!("{:?}", format!("track:{word}")))
        }
        None => error.help(format!("an event type is {}", words_and_any())),
        near => error.did_you_mean(near),
    }
}

/// Whether every event that `narrow` wants, `wide` wants as well. Both as written; errs towards no.
pub(super) fn covers(wide: &Match, narrow: &Match) -> bool {
    let is_covered = |entry: &String| wide.written.iter().any(|other| covers_entry(other, entry));
    wide.written.is_empty() || (!narrow.written.is_empty() && narrow.written.iter().all(is_covered))
}

fn covers_entry(wide: &str, narrow: &str) -> bool {
    let split = |entry: &str| -> (String, Option<String>) {
        entry.split_once(':').map_or((entry.to_owned(), None), |(word, name)| (word.to_owned(), Some(name.to_owned())))
    };
    let ((wide_type, wide_name), (narrow_type, narrow_name)) = (split(wide), split(narrow));
    let is_type_covered = wide_type == "*" || wide_type == narrow_type;
    let is_name_covered = match (wide_name, narrow_name) {
        (None, _) => true,
        (Some(_), None) => false,
        // A star in the narrow name stands for itself at least, so a pattern that covers the text covers less than all.
        (Some(wide), Some(narrow)) => wide == narrow || (!narrow.contains('*') && Glob::new(&wide).matches(&narrow)),
    };
    is_type_covered && is_name_covered
}

#[cfg(test)]
mod tests {
    use super::covers_entry;

    #[test]
    fn a_wider_entry_covers_a_narrower_one() {
        for (wide, narrow) in [
            ("track", "track:A"),
            ("*", "page"),
            ("track:Order *", "track:Order Done"),
            ("*:A", "track:A"),
            ("page", "page"),
        ] {
            assert!(covers_entry(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in
            [("track:A", "track"), ("page", "track"), ("track:A*", "track:B"), ("track:A*", "track:A*B*")]
        {
            assert!(!covers_entry(wide, narrow), "{wide} {narrow}");
        }
    }
}
