//! Every sentence the compiler can say stands in a picture that somebody has read.
//!
//! The compiler's own source is read for its texts; the longest constant piece of each must occur in what the files in
//! `tests/fixtures/config` make it say. A new mistake without a file that makes it fails here.

use std::fs;
use std::path::{Path, PathBuf};

use crate::check::{compile, fixtures, name};

/// The files whose texts are sentences about mistakes. What fails on an event only is not in them; `keys`
/// and `codes` are the reference's.
const SPEAKERS: [&str; 6] = [
    "src/config",
    "src/expr/filter.rs",
    "src/expr/names.rs",
    "src/expr/query.rs",
    "src/expr/scan.rs",
    "src/expr/template.rs",
];
const NOT_SPEAKERS: [&str; 9] = [
    "changes",
    "changes.rs",
    "codes.rs",
    "effective.rs",
    "fingerprint.rs",
    "keys",
    "schema.rs",
    "starter.rs",
    "tests.rs",
];

/// Texts that no file can make the compiler say, each with the reason.
const NEVER_SAID: [(&str, &str); 19] = [
    ("write instead", "the title of a suggestion without help: there is none, and the next may forget it"),
    ("`enabled` is false", "why a destination is off: the summary says it, no diagnostic"),
    ("{{ message }}", "a template of ours"),
    ("the whole event is an expression", "why that template is right"),
    ("`auth` by name", "the table's keys are the user's own, so that none of them is unknown"),
    ("a table of texts", "the table's keys are the user's own, so that none of them is unknown"),
    ("a test has {EVENTS_MAX} events at most", "ten thousand events make no picture"),
    ("the preset `{name}` has several destinations", "no preset of ours has several yet"),
    ("say which one: {}", "as above"),
    ("looked at more than {NODES_MAX} values", "a path fails so on an event only"),
    ("only tests note what was asked for", "why a lint is silenced"),
    ("not one condition", "`1 == 1][0`: the parser that is asked first refuses it with a place"),
    ("Invalid argument for the function ", "what the parser says, to be cut off"),
    ("a mistake is no `false`", "why a lint is silenced"),
    ("the machine's own", "the name of a kind of credentials that no file can hold"),
    ("which {CREDENTIALS_FILE} names", "it is said: its longest piece is the name of a constant"),
    ("two values", "the parser refuses another number of arguments before"),
    ("bounded to what an i128 holds before", "why a number fits"),
    ("{kind}: {detail}", "kinds of errors of the engine: those that a fold can meet have sentences of ours"),
];

/// Shorter pieces say nothing by themselves.
const LENGTH_MIN: usize = 6;

#[test]
fn every_sentence_of_the_compiler_is_in_a_picture() {
    let said = said();
    // The lists of names and of examples are the reference's.
    let reference = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md")).unwrap();
    let reference = reference.replace("\\|", "|");
    let is_exempt = |text: &Text| {
        NEVER_SAID.iter().any(|(exempt, _)| text.value.contains(exempt)) || reference.contains(&text.value)
    };
    let texts = texts();
    let unsaid: Vec<String> = texts
        .iter()
        .filter(|text| !is_exempt(text) && !said.contains(longest_piece(&text.value)))
        .map(|text| format!("{}:{}: {:?}", text.file.display(), text.line, text.value))
        .collect();
    assert!(texts.len() > 200, "only {} texts were found", texts.len());
    assert!(unsaid.is_empty(), "no file in tests/fixtures/config makes the compiler say\n{}", unsaid.join("\n"));
}

#[test]
fn what_is_never_said_is_still_in_the_source_and_not_said() {
    let (said, texts) = (said(), texts());
    for (exempt, reason) in NEVER_SAID {
        assert!(!reason.is_empty());
        assert!(!said.contains(exempt), "{exempt:?} is said");
        assert!(texts.iter().any(|text| text.value.contains(exempt)), "{exempt:?} is gone");
    }
}

/// Everything the compiler says of the fixtures.
fn said() -> String {
    let mut said = String::new();
    for path in fixtures() {
        let text = fs::read_to_string(&path).unwrap();
        for diagnostic in compile(name(&path), &text).unwrap_or_else(|errors| errors) {
            let parts = [Some(diagnostic.message), diagnostic.label, diagnostic.help];
            said.extend(parts.into_iter().flatten().flat_map(|part| [part, "\n".to_owned()]));
        }
    }
    said
}

/// A text of the source with a blank in it: what has none is a key or a word.
struct Text {
    file: PathBuf,
    line: usize,
    value: String,
}

fn texts() -> Vec<Text> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for speaker in SPEAKERS {
        collect(&root.join(speaker), &mut files);
    }
    files.sort();
    let mut texts = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let is_sentence = |value: &String| value.trim().contains(' ') && longest_piece(value).len() >= LENGTH_MIN;
        for (at, value) in literals(source).into_iter().filter(|(_, value)| is_sentence(value)) {
            let file = file.strip_prefix(root).unwrap().to_owned();
            texts.push(Text { file, line: source[..at].matches('\n').count() + 1, value });
        }
    }
    texts
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() {
        files.push(path.to_owned());
        return;
    }
    for entry in fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()) {
        let stem = entry.file_stem().unwrap().to_str().unwrap();
        if !NOT_SPEAKERS.iter().any(|other| stem == other.trim_end_matches(".rs")) {
            collect(&entry, files);
        }
    }
}

/// What is constant in a format string, at its longest.
fn longest_piece(text: &str) -> &str {
    text.split(['{', '}']).max_by_key(|piece| piece.len()).unwrap_or_default()
}

/// The string literals of Rust source, unescaped, with their places.
fn literals(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        at += match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '\'' => character_length(rest),
            '"' => {
                let (value, length) = unescaped(&rest[1..]);
                found.push((at, value));
                1 + length
            }
            'r' if rest.starts_with("r\"") => {
                let length = rest[2..].find('"').unwrap();
                found.push((at, rest[2..2 + length].to_owned()));
                3 + length
            }
            _ => c.len_utf8(),
        };
    }
    found
}

/// The length of a character literal, or of the quote of a lifetime.
fn character_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 3),
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1),
        None => 1,
    }
}

/// A literal's value from behind its opening quote, and its length with the closing one.
fn unescaped(rest: &str) -> (String, usize) {
    let mut value = String::new();
    let mut chars = rest.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, at + 1),
            '\\' => match chars.next().map(|(_, escaped)| escaped) {
                Some('n') => value.push('\n'),
                Some('\n') => while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                Some(escaped) => value.push(escaped),
                None => {}
            },
            _ => value.push(c),
        }
    }
    (value, rest.len())
}
