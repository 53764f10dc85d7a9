//! What changes, as one JSON object: `docs/operations.md` has its shape, which only ever grows.

use serde_json::{Map, Value as Json, json};

use super::events::{Broken, Example, Pair, Tally};
use super::{Outcome, Row};
use crate::config::{Change, Edit, Section, Side};
use crate::rehearse::change::{Difference, Effect};
use crate::rehearse::compare;

/// Raised when a field goes or changes what it means; a new field is no reason.
const VERSION: u32 = 1;

pub(super) fn answer(outcome: &Outcome) -> String {
    let section = |section: &Section| json!({ "name": section.name, "changes": edits(outcome, section) });
    let destinations = outcome.changes.destinations.iter().zip(&outcome.rows);
    let document = json!({
        "version": VERSION,
        "exit_code": outcome.exit_code(),
        "old": outcome.old.name,
        "new": outcome.new.name,
        "sections": outcome.changes.sections.iter().map(section).collect::<Vec<_>>(),
        "destinations": destinations.map(|(section, row)| destination(outcome, section, row)).collect::<Vec<_>>(),
        "notes": outcome.notes,
        "events": outcome.tally.as_ref().map(events),
    });
    format!("{document:#}\n")
}

fn destination(outcome: &Outcome, section: &Section, row: &Row) -> Json {
    json!({
        "name": section.name,
        "change": row.fate.as_str(),
        "why": row.fate.why(),
        "looked_at_again": row.is_looked_at_again,
        "changes": edits(outcome, section),
        "notes": row.notes,
    })
}

fn edits(outcome: &Outcome, section: &Section) -> Vec<Json> {
    section.edits.iter().map(|edit| edit_of(outcome, section, edit)).collect()
}

fn edit_of(outcome: &Outcome, section: &Section, edit: &Edit) -> Json {
    let (old, new) = outcome.places(section, edit);
    let side = |side: &Option<Side>, place: Option<String>| {
        let Side { path, written } = side.as_ref()?;
        Some(json!({ "path": path, "written": written, "place": place }))
    };
    json!({
        "path": edit.path(),
        "change": word(edit.change),
        "old": side(&edit.old, old),
        "new": side(&edit.new, new),
    })
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
        Change::Moved => "moved",
    }
}

// === events ===

/// What becomes of events, as the JSON calls it.
const EFFECTS: [(Effect, &str); 6] = [
    (Effect::Reaches, "reaches"),
    (Effect::Leaves, "leaves"),
    (Effect::Dies, "dies"),
    (Effect::Mended, "mended"),
    (Effect::Changes, "changes"),
    (Effect::Same, "same"),
];

fn events(tally: &Tally) -> Json {
    let broken = |Broken { line, why }: &Broken| json!({ "line": line, "why": why });
    json!({
        "file": tally.file,
        "read": tally.events,
        "broken": { "count": tally.broken, "first": tally.told.iter().map(broken).collect::<Vec<_>>() },
        "destinations": tally.pairs.iter().map(of_pair).collect::<Vec<_>>(),
    })
}

fn of_pair(pair: &Pair) -> Json {
    let counts: Map<String, Json> =
        EFFECTS.iter().map(|(effect, word)| ((*word).to_owned(), pair.count(*effect).into())).collect();
    let of_effect = |(effect, word): &(Effect, &'static str)| {
        let examples = pair.examples.get(effect).into_iter().flatten();
        examples.map(|one| example(word, one)).collect::<Vec<_>>()
    };
    json!({
        "name": pair.name.as_str(),
        "counts": counts,
        "examples": EFFECTS.iter().flat_map(of_effect).collect::<Vec<_>>(),
    })
}

fn example(effect: &str, example: &Example) -> Json {
    let Example { line, event, old, new, dead, differences } = example;
    let difference =
        |Difference { way, old, new }: &Difference| json!({ "path": compare::told(way), "old": old, "new": new });
    json!({
        "effect": effect,
        "line": line,
        "message_id": event.message_id,
        "type": event.kind,
        "name": event.name,
        "dead": dead,
        "old": old,
        "new": new,
        "differences": differences.iter().map(difference).collect::<Vec<_>>(),
    })
}
