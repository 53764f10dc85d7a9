//! `libroseg reference`: docs/reference.md, made from what the code knows of itself. Hidden: it is for those who change it.

use std::fmt::Write as _;

use clap::Command;

use crate::config::keys::{Absent, Key, Section, catalogue};
use crate::config::{self, Code, Severity};
use crate::expr::filter::{CONDITIONS, CONDITIONS_OF};
use crate::expr::functions::{ENGINE_FILTERS, ENGINE_FUNCTIONS, ENGINE_TESTS, EngineEntry, Entry, REFERENCE};

const HEAD: &str = "\
# Reference

Made from the code by `libroseg reference`; a test holds this page to it. What it all is for, with examples, is in
[config.md](config.md).

- [Keys](#keys) · [Names in expressions](#names-in-expressions) · [Functions and filters](#functions-and-filters) ·
  [JSONPath conditions](#jsonpath-conditions)
- [Commands](#commands) · [Environment variables](#environment-variables) · [Exit codes](#exit-codes) ·
  [What the check finds](#what-the-check-finds)
";

const KEYS: &str = "
## Keys

Durations are a whole number with `ms`, `s`, `m`, `h` or `d`; sizes with `B`, `kB`, `MB`, `GB`, `TB` (powers of 1000) or
`KiB`, `MiB`, `GiB`, `TiB` (of 1024). A *template* is text with `{{ expressions }}`. Strings of `[server]`, `[sources]`,
`[queue]`, of `auth` and of a file's `path` may be templates that read `env`, `tables` and `file('…')`.
";

const ENVIRONMENT: &str = "
## Environment variables

Any other variable is read only where the file says `env.NAME`.

| variable | instead of |
| --- | --- |
";

const EXIT_CODES: &str = "
## Exit codes

| code | meaning |
| --- | --- |
| 0 | done; everything is right |
| 1 | something was found wrong: a mistake in the file, a test that failed, a damaged queue |
| 2 | it could not be done: a file cannot be read, the address is taken, wrong usage |
";

/// Variables that are no other name of an option.
const VARIABLES: [(&str, &str); 3] = [
    ("PORT", "the port in `[server] listen`; the address is then `0.0.0.0`'s unless the file has another"),
    ("NO_COLOR", "colours: set to anything, there are none"),
    ("COLUMNS", "the width of the terminal"),
];

/// Prints the page.
pub(super) fn run(command: &Command) -> u8 {
    super::answer(&page(command))
}

fn page(command: &Command) -> String {
    let mut page = HEAD.to_owned();
    page.push_str(KEYS);
    let sections = catalogue();
    for section in sections.iter().filter(|section| is_shown(section)) {
        keys(&mut page, section, &sections);
    }
    names(&mut page);
    functions(&mut page);
    conditions(&mut page);
    page.push_str("\n## Commands\n");
    commands(&mut page, command.clone(), "");
    variables(&mut page, command);
    page.push_str(EXIT_CODES);
    codes(&mut page);
    page
}

// --- keys

/// Sections with a header of their own, and the top.
fn is_shown(section: &Section) -> bool {
    !section.header.is_empty() || section.what == "the file"
}

fn keys(page: &mut String, section: &Section, all: &[Section]) {
    let heading = if section.header.is_empty() { "The file".to_owned() } else { code(section.header) };
    let _ = write!(page, "\n### {heading}\n\n{}\n", section.meaning);
    if let Some(own) = &section.own {
        let _ = write!(page, "\nNames are your own; each is: {own}.\n");
    }
    let shared = "\nThese keys stand in the destination, in its rules, or in both; a rule's win.\n";
    match section.what {
        "a rule" => {
            page.push_str("\nIts keys are those that a [destination](#destinationsname) has for its rules as well.\n");
        }
        "a destination" => {
            let of_rules = |in_rules: bool| section.keys.iter().filter(move |key| key.in_rules == in_rules);
            table(page, of_rules(false), all);
            page.push_str(shared);
            table(page, of_rules(true), all);
        }
        _ if section.keys.is_empty() => {}
        _ => table(page, section.keys.iter(), all),
    }
}

fn table<'k>(page: &mut String, keys: impl Iterator<Item = &'k Key>, all: &[Section]) {
    page.push_str("\n| key | meaning | takes | default |\n| --- | --- | --- | --- |\n");
    for key in keys {
        row(page, "", key, all);
    }
}

/// A key, and the keys of the tables that are written as part of it.
fn row(page: &mut String, before: &str, key: &Key, all: &[Section]) {
    let types: Vec<String> = key.types.iter().map(|word| format!("`type = \"{word}\"`")).collect();
    let types = if types.is_empty() { String::new() } else { format!("{}: ", types.join(", ")) };
    let absent = match &key.absent {
        Absent::MustBeGiven => "must be given".to_owned(),
        Absent::Value(value) => code(value),
        Absent::Otherwise(words) => (*words).to_owned(),
    };
    let path = format!("{before}{}", key.name);
    let cells = [code(&path), format!("{types}{}", key.meaning), key.shape.to_string(), absent];
    let _ = writeln!(page, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    for section in key.shape.sections().iter().filter_map(|what| all.iter().find(|section| section.what == *what)) {
        if !is_shown(section) && section.own.is_none() {
            section.keys.iter().for_each(|key| row(page, &format!("{path}."), key, all));
        }
    }
}

// --- expressions

fn names(page: &mut String) {
    page.push_str("\n## Names in expressions\n\n| name | what | where |\n| --- | --- | --- |\n");
    for (names, what, places) in config::names() {
        let names: Vec<String> = names.iter().map(|name| code(name)).collect();
        let _ = writeln!(page, "| {} | {what} | {places} |", names.join(" "));
    }
}

fn functions(page: &mut String) {
    page.push_str("\n## Functions and filters\n\nOurs pass a missing value through, unless they say otherwise.\n");
    page.push_str("\n| | what | example | with | gives |\n| --- | --- | --- | --- | --- |\n");
    for entry in REFERENCE {
        ours(page, entry);
    }
    let source = "[minijinja](https://docs.rs/minijinja/3.1.0/minijinja/)";
    for (what, entries) in [("Filters", ENGINE_FILTERS), ("Functions", ENGINE_FUNCTIONS), ("Tests", ENGINE_TESTS)] {
        let _ = write!(page, "\n{what} of {source}:\n\n| name | example | gives |\n| --- | --- | --- |\n");
        for EngineEntry { name, template, result } in entries {
            let _ = writeln!(page, "| {} | {} | {} |", code(name), cell(template), cell(result));
        }
    }
}

fn ours(page: &mut String, entry: &Entry) {
    let example = &entry.example;
    let result = if example.result.is_empty() { "missing".to_owned() } else { cell(example.result) };
    let cells =
        [cell(entry.signature), entry.summary.replace('|', "\\|"), cell(example.template), cell(example.event), result];
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

fn conditions(page: &mut String) {
    let _ =
        write!(page, "\n## JSONPath conditions\n\n| condition | holds of {} |\n| --- | --- |\n", cell(CONDITIONS_OF));
    for (condition, holds) in CONDITIONS {
        let _ = writeln!(page, "| {} | {} |", cell(condition), if *holds { "yes" } else { "no" });
    }
}

// --- commands

/// The help of a command and of those under it.
fn commands(page: &mut String, command: Command, before: &str) {
    let name = format!("{before}{}", command.get_name());
    let mut command = command.term_width(100).bin_name(&name);
    let _ = write!(page, "\n### {}\n\n```text\n{}\n```\n", code(&name), trimmed(&command.render_help().to_string()));
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
    for sub in shown.cloned().collect::<Vec<_>>() {
        commands(page, sub, &format!("{name} "));
    }
}

/// Without blanks at the ends of lines, which only show in diffs.
fn trimmed(text: &str) -> String {
    text.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn variables(page: &mut String, command: &Command) {
    page.push_str(ENVIRONMENT);
    for argument in command.get_arguments() {
        let (Some(variable), Some(option)) = (argument.get_env(), argument.get_long()) else { continue };
        let _ = writeln!(page, "| `{}` | `--{option}` |", variable.to_string_lossy());
    }
    for (variable, what) in VARIABLES {
        let _ = writeln!(page, "| `{variable}` | {what} |");
    }
}

// --- the check

fn codes(page: &mut String) {
    page.push_str("\n## What the check finds\n");
    for (severity, heading) in
        [(Severity::Error, "Errors: the file cannot be used"), (Severity::Warning, "Warnings: it can, but look again")]
    {
        let _ = write!(page, "\n### {heading}\n\n| code | what is wrong | how to mend it |\n| --- | --- | --- |\n");
        for found in Code::ALL.iter().filter(|code| code.severity() == severity) {
            let _ = writeln!(
                page,
                "| `{found}` | {} | {} |",
                found.meaning().replace('|', "\\|"),
                found.mend().replace('|', "\\|")
            );
        }
    }
}

fn code(text: &str) -> String {
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

/// Code in a table.
fn cell(text: &str) -> String {
    code(text).replace('|', "\\|")
}
