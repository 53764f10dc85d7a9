//! What changes, for people.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::events::{Example, Pair, Tally};
use super::{Outcome, Row};
use crate::cli::ask::{clean, counted};
use crate::config::{Edit, Section};
use crate::expr::cut;
use crate::plan::case::Step;
use crate::rehearse::change::{Difference, Effect};
use crate::rehearse::compare;

/// Differences of one event's requests that are told.
const DIFFERENCES_MAX: usize = 20;

/// Characters of a value inside a line.
const TOLD_CHARS_MAX: usize = 120;

/// What becomes of events, as the summary and the examples tell it.
const EFFECTS: [(Effect, &str, &str); 5] = [
    (Effect::Reaches, "newly reach it", "newly reaches it"),
    (Effect::Leaves, "no longer reach it", "no longer reaches it"),
    (Effect::Dies, "become dead letters", "becomes a dead letter"),
    (Effect::Mended, "are dead letters no more", "is a dead letter no more"),
    (Effect::Changes, "make other requests", "makes other requests"),
];

pub(super) fn answer(outcome: &Outcome) -> String {
    let mut out = String::new();
    if outcome.changes.is_empty() {
        let _ = writeln!(out, "nothing changes between {} and {}", outcome.old.name, outcome.new.name);
    } else {
        let _ = writeln!(out, "{} → {}", outcome.old.name, outcome.new.name);
    }
    for section in &outcome.changes.sections {
        let _ = writeln!(out, "\n[{}]", section.name);
        edits(&mut out, outcome, section);
    }
    for (section, row) in outcome.changes.destinations.iter().zip(&outcome.rows) {
        let _ = writeln!(out, "\n{}: {}", section.place, told(row));
        edits(&mut out, outcome, section);
        for note in &row.notes {
            let _ = writeln!(out, "  ! {note}");
        }
    }
    if !outcome.notes.is_empty() {
        let _ = writeln!(out, "\n{}", outcome.notes.join("\n"));
    }
    if let Some(tally) = &outcome.tally {
        events(&mut out, tally);
    }
    clean(&out)
}

fn told(row: &Row) -> String {
    let again = if row.is_looked_at_again { ", looked at again" } else { "" };
    format!("{}{again}", row.fate.told())
}

fn edits(out: &mut String, outcome: &Outcome, section: &Section) {
    let line = |edit: &Edit| {
        let (old, new) = outcome.places(section, edit);
        let place = new.or(old).map(|place| format!("   ({place})")).unwrap_or_default();
        format!("  {edit}{place}")
    };
    for edit in &section.edits {
        let _ = writeln!(out, "{}", line(edit));
    }
}

// === events ===

fn events(out: &mut String, tally: &Tally) {
    let _ = writeln!(out, "\nover {} of {}", counted(tally.events, "event"), tally.file);
    if tally.broken > 0 {
        let are = if tally.broken == 1 { "is no event" } else { "are no events" };
        let _ = writeln!(out, "  {} {are}", counted(tally.broken, "line"));
        for broken in &tally.told {
            let _ = writeln!(out, "    line {}: {}", broken.line, broken.why);
        }
    }
    if tally.pairs.is_empty() {
        out.push_str("  every destination treats them as before\n");
    }
    for pair in &tally.pairs {
        of_pair(out, pair);
    }
}

fn of_pair(out: &mut String, pair: &Pair) {
    let told = EFFECTS.iter().filter(|(effect, _, _)| pair.count(*effect) > 0);
    let mut parts: Vec<String> = told
        .map(|(effect, many, one)| match pair.count(*effect) {
            1 => format!("1 {one}"),
            count => format!("{count} {many}"),
        })
        .collect();
    let same = pair.count(Effect::Same);
    parts.extend((same > 0 || parts.is_empty()).then(|| format!("{same} as before")));
    let _ = writeln!(out, "\n  {}: {}", pair.name, parts.join(", "));
    for (effect, _, one) in EFFECTS {
        let examples = pair.examples.get(&effect).filter(|examples| !examples.is_empty());
        let Some(examples) = examples else { continue };
        let _ = writeln!(out, "    {one}");
        for one in examples {
            example(out, effect, one);
        }
    }
}

fn example(out: &mut String, effect: Effect, example: &Example) {
    let Example { line, event, dead, .. } = example;
    let name = event.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let _ = writeln!(out, "      line {line}: {}{name} ({})", event.kind, event.message_id);
    let dead = dead.as_ref().map(|why| format!("{} {why}", if effect == Effect::Dies { '!' } else { '-' }));
    for line in dead.into_iter().chain(of_requests(effect, example)) {
        let _ = writeln!(out, "        {line}");
    }
}

/// What is to be told of an event's requests.
fn of_requests(effect: Effect, example: &Example) -> Vec<String> {
    let Example { old, new, differences, .. } = example;
    match effect {
        Effect::Reaches | Effect::Mended => new.iter().map(|request| head('+', request)).collect(),
        Effect::Leaves => old.iter().map(|request| head('-', request)).collect(),
        Effect::Changes if differences.is_empty() => {
            vec!["~ only in a secret, or in how the body is packed".to_owned()]
        }
        Effect::Changes => {
            let is_alone = old.len() == 1 && new.len() == 1;
            let told = differences.iter().take(DIFFERENCES_MAX).map(|one| difference(one, is_alone));
            let more = differences.len().saturating_sub(DIFFERENCES_MAX);
            told.chain((more > 0).then(|| format!("and {more} more"))).collect()
        }
        Effect::Dies | Effect::Same => Vec::new(),
    }
}

/// A request in a line: where it goes, or what is written.
fn head(sign: char, request: &Json) -> String {
    let text = |key: &str| request[key].as_str();
    match (text("method"), text("url")) {
        (Some(method), Some(url)) => format!("{sign} {method} {}", cut(url, TOLD_CHARS_MAX)),
        _ => format!("{sign} {}", cut(&request["body"].to_string(), TOLD_CHARS_MAX)),
    }
}

fn difference(difference: &Difference, is_alone: bool) -> String {
    let Difference { way, old, new } = difference;
    let path = match way.as_slice() {
        [Step::Element(0), rest @ ..] if is_alone => compare::told(rest).trim_start_matches("requests.").to_owned(),
        _ => compare::told(way),
    };
    let value = |value: &Json| cut(&value.to_string(), TOLD_CHARS_MAX);
    match (old, new) {
        (Some(old), Some(new)) => format!("~ {path}: {} → {}", value(old), value(new)),
        (None, Some(new)) => format!("+ {path}: {}", value(new)),
        (Some(old), None) => format!("- {path}: {}", value(old)),
        (None, None) => path,
    }
}
