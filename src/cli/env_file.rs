//! Variables from a file of `KEY=VALUE` lines, as Docker and most shells write them. They never enter the environment
//! of this process, and no message tells a value.
//!
//! A line is empty, a comment (`#`), or `KEY=VALUE`, with `export` before it or without. A value without quotes ends with
//! its line or before a `#` that follows a blank. One in single quotes is taken as it is; in double quotes `\n`, `\r`,
//! `\t`, `\"`, `\\` and `\$` are what they are in a shell's `$'…'`. Both may go over several lines. `$NAME` in a value is
//! text: what a variable is does not depend on other variables. Of a name that is there twice the last counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Why a file gave no variables.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnvFileError {
    /// It could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not what it should be. The line is not told: it may hold a secret.
    #[error("{}:{line}: {reason}", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// Which line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

const NO_PAIR: &str = "this line is neither KEY=VALUE nor a comment, which begins with `#`";
const NO_NAME: &str = "what stands before the `=` is not a name: letters, digits and `_`, not beginning with a digit";
const UNCLOSED: &str = "the quote that opens here is never closed";
const AFTER_QUOTE: &str = "only a comment may follow a closing quote";

/// Lays the variables of these files over those given, one file after the other.
///
/// # Errors
/// For the first file that cannot be read or has a line that is none.
pub(super) fn laid_over(
    variables: &BTreeMap<String, String>,
    files: &[PathBuf],
) -> Result<BTreeMap<String, String>, EnvFileError> {
    let mut all = variables.clone();
    for path in files {
        all.extend(read(path)?);
    }
    Ok(all)
}

fn read(path: &Path) -> Result<Vec<(String, String)>, EnvFileError> {
    let text = fs::read_to_string(path).map_err(|source| EnvFileError::Unreadable { path: path.to_owned(), source })?;
    parse(&text).map_err(|(line, reason)| EnvFileError::Wrong { path: path.to_owned(), line, reason })
}

/// The pairs of a file in order, or the line that is wrong and why.
fn parse(text: &str) -> Result<Vec<(String, String)>, (usize, &'static str)> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let (pair, after) = entry(rest).map_err(|reason| (line, reason))?;
        pairs.extend(pair);
        rest = after;
    }
    Ok(pairs)
}

type Entry<'t> = (Option<(String, String)>, &'t str);

/// Reads one entry, which may be empty. Answers it and what follows its line.
fn entry(text: &str) -> Result<Entry<'_>, &'static str> {
    let (line, after) = split_line(text);
    let content = line.trim_start();
    if content.is_empty() || content.starts_with('#') {
        return Ok((None, after));
    }
    let content = without_export(content);
    let equals = content.find('=').ok_or(NO_PAIR)?;
    let name = content[..equals].trim_end();
    if !is_name(name) {
        return Err(NO_NAME);
    }
    let value = content[equals + 1..].trim_start_matches([' ', '\t']);
    let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return Ok((Some((name.to_owned(), bare(value).to_owned())), after));
    };
    // A value in quotes may go on behind its line.
    let start = line.len() - value.len() + 1;
    let (value, len) = quoted(&text[start..], quote).ok_or(UNCLOSED)?;
    let (tail, after) = split_line(&text[start + len..]);
    let tail = tail.trim_start();
    if !tail.is_empty() && !tail.starts_with('#') {
        return Err(AFTER_QUOTE);
    }
    Ok((Some((name.to_owned(), value)), after))
}

/// A line without its end, and what follows.
fn split_line(text: &str) -> (&str, &str) {
    let (line, after) = text.split_once('\n').unwrap_or((text, ""));
    (line.strip_suffix('\r').unwrap_or(line), after)
}

fn without_export(content: &str) -> &str {
    match content.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        Some(_) | None => content,
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A value without quotes, up to its comment.
fn bare(value: &str) -> &str {
    let is_comment = |(at, _): &(usize, &str)| *at == 0 || value[..*at].ends_with([' ', '\t']);
    let end = value.match_indices('#').find(is_comment).map_or(value.len(), |(at, _)| at);
    value[..end].trim_end()
}

/// A value up to its closing quote, and the bytes read, that quote included.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Some((value, at + 1)),
            '\\' if quote == '"' => {
                let (_, escaped) = chars.next()?;
                match escaped {
                    'n' => value.push('\n'),
                    'r' => value.push('\r'),
                    't' => value.push('\t'),
                    '"' | '\\' | '$' => value.push(escaped),
                    _ => value.extend(['\\', escaped]),
                }
            }
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use proptest::prelude::*;

    use super::{AFTER_QUOTE, NO_NAME, NO_PAIR, UNCLOSED, parse};

    fn values(text: &str) -> Vec<String> {
        parse(text).unwrap().into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn comments_blanks_and_export_are_no_part_of_a_variable() {
        let text = "\u{feff}# first\r\n\n  A=1\r\nexport B = two words # said\n\texport\tC=#\nD=a#b\nE=\nexported=x\n";
        assert_eq!(values(text), ["A=1", "B=two words", "C=", "D=a#b", "E=", "exported=x"]);
    }

    #[test]
    fn quotes_keep_blanks_signs_and_line_ends() {
        assert_eq!(values("A='  # $B \\n'\nB=\"a\\n\\\"b\\\" \\$ \\q\" # c"), ["A=  # $B \\n", "B=a\n\"b\" $ \\q"]);
        assert_eq!(
            values("KEY=\"-----BEGIN\nabc\n-----END\"\nNEXT='x\ny'"),
            ["KEY=-----BEGIN\nabc\n-----END", "NEXT=x\ny"]
        );
    }

    #[test]
    fn a_value_is_never_put_together_from_others() {
        assert_eq!(values("A=1\nB=$A${A}\nC=\"$A\""), ["A=1", "B=$A${A}", "C=$A"]);
    }

    #[test]
    fn a_wrong_line_is_told_by_its_number() {
        for (text, wrong) in [
            ("A=1\n\nsecret\n", (3, NO_PAIR)),
            ("A='x\ny'\nse cret=1", (3, NO_NAME)),
            ("=1", (1, NO_NAME)),
            ("1A=1", (1, NO_NAME)),
            ("A=1\nB=\"x\nC=1\n", (2, UNCLOSED)),
            ("A='x' y", (1, AFTER_QUOTE)),
            ("export A", (1, NO_PAIR)),
        ] {
            assert_eq!(parse(text), Err(wrong), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[A-Z=\"'# \\\\\n\r$é]{0,60}") {
            let _ = parse(&text);
        }
    }
}
