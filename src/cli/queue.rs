//! `libroseg queue`: a look into the queue, and out of it.

use std::fmt::Write as _;
use std::io;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ask::{self, Asker, Format, RangeOptions, clean, counted, say, say_json};
use super::table::Table;
use super::{DONE, WRONG};
use crate::admin::{Answer, Exported, PlaceKind, PlaceState, QueueState, Request};
use crate::queue::Verified;

/// What to look at.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) ask: ask::Options,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell its size, its oldest event, and how far each destination is
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect,
    /// Read everything that is stored; exit code 1 when something is damaged
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify,
    /// Write its events to stdout, one a line
    #[command(after_help = EXPORT_EXAMPLES)]
    Export {
        #[command(flatten)]
        range: RangeOptions,

        /// Around each event its offset, its source and when it arrived
        #[arg(long)]
        with_meta: bool,
    },
}

pub(super) const EXAMPLES: &str = "\
Examples:
  libroseg queue inspect
  libroseg queue verify
  libroseg queue export --since 2h > events.ndjson";

const INSPECT_EXAMPLES: &str = "\
Examples:
  libroseg queue inspect
  libroseg queue inspect --format json";

const VERIFY_EXAMPLES: &str = "\
Examples:
  libroseg queue verify
  libroseg queue verify --format json";

const EXPORT_EXAMPLES: &str = "\
Examples:
  libroseg queue export > events.ndjson
  libroseg queue export --since 2026-01-02 --until 2026-01-03 --with-meta
  libroseg queue export --where \"$.userId == 'u1'\"";

/// Does it. Answers the exit code.
pub(super) fn run(options: &Options, asker: &Asker<'_>) -> u8 {
    match &options.command {
        Command::Inspect => inspect(asker),
        Command::Verify => verify(asker),
        Command::Export { range, with_meta } => export(asker, range, *with_meta),
    }
}

// === inspect ===

fn inspect(asker: &Asker<'_>) -> u8 {
    let format = asker.options.format;
    asker.ask(&Request::Inspect, &mut |answer| {
        let Answer::Queue(state) = answer else { return Ok(()) };
        match format {
            Format::Json => say_json(&state),
            Format::Text => tell(&state),
        }
    })
}

fn tell(state: &QueueState) -> io::Result<()> {
    say(&clean(&head(state)))?;
    let columns =
        ["DESTINATION", "STATE", "ACCEPTED", "DELIVERED", "FILTERED", "DROPPED", "DEAD", "WAITING", "LAG", "LETTERS"];
    let mut table = Table::new(columns, super::width());
    for place in &state.destinations {
        table.push(row(place))?;
    }
    table.end()?;
    Ok(())
}

fn head(state: &QueueState) -> String {
    let dir = state.dir.as_ref().map(|dir| format!(" in {dir}")).unwrap_or_default();
    let served = if state.is_served { "a service has it open" } else { "no service runs" };
    let oldest = state.oldest_at.map(|at| format!(", the oldest of {at}")).unwrap_or_default();
    let mut text = format!("{} queue{dir}, {served}\n", state.kind);
    let size = format!("{} of {}", size(state.size_bytes), size(state.size_bytes_max));
    // Writing into a string cannot fail.
    let _ = writeln!(text, "size     {size}, {}", counted(state.segments, "segment"));
    let _ = writeln!(text, "events   {} to {}{oldest}", state.first, state.end);
    let _ = writeln!(text, "dedup    {}, {}", counted(state.dedup_ids, "id"), counted(state.duplicates, "duplicate"));
    if state.damaged > 0 {
        let _ = writeln!(text, "damaged  {}", counted(state.damaged, "event"));
    }
    if let Some(failing) = &state.failing {
        let _ = writeln!(text, "failing  {failing}");
    }
    text
}

/// Bytes for people: `428 B`, `1.3 GB`.
#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(super) fn size(bytes: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

fn row(place: &PlaceState) -> [String; 10] {
    let lag = format!("{:.0}s", place.lag_seconds);
    [
        place.name.clone(),
        kind(place),
        place.accepted.to_string(),
        place.delivered.to_string(),
        place.filtered.to_string(),
        place.dropped.to_string(),
        place.dead.to_string(),
        place.waiting.to_string(),
        lag,
        place.letters.to_string(),
    ]
}

fn kind(place: &PlaceState) -> String {
    match place.state {
        PlaceKind::On => "on".to_owned(),
        PlaceKind::Off => "off".to_owned(),
        PlaceKind::Detached => {
            place.detached_at.map_or_else(|| "removed".to_owned(), |at| format!("removed {:.0}", at.0))
        }
    }
}

// === verify ===

fn verify(asker: &Asker<'_>) -> u8 {
    let format = asker.options.format;
    let (mut segments, mut events, mut damages) = (0, 0, 0);
    let code = asker.ask(&Request::Verify, &mut |answer| {
        let Answer::Segment(segment) = answer else { return Ok(()) };
        (segments, events) = (segments + 1, events + segment.events);
        damages += segment.damaged.len() as u64;
        match format {
            Format::Json => say_json(&segment),
            Format::Text => say(&clean(&told(&segment))),
        }
    });
    if code != DONE {
        return code;
    }
    let found = if damages == 0 { "no damage".to_owned() } else { counted(damages, "damaged place") };
    super::note(format_args!("{}, {}, {found}", counted(segments, "segment"), counted(events, "event")));
    if damages == 0 { DONE } else { WRONG }
}

fn told(segment: &Verified) -> String {
    let Verified { name, events, size_bytes, raw_bytes, torn_bytes, damaged } = segment;
    let mut text = format!("{name}: {}, {size_bytes} bytes, {raw_bytes} unpacked", counted(*events, "event"));
    if *torn_bytes > 0 {
        let _ = write!(text, "; {torn_bytes} bytes at its end were cut off by a crash");
    }
    for damage in damaged {
        let (from, last) = (damage.from.0, damage.to.0.saturating_sub(1));
        let _ = write!(text, "\n  damaged at byte {}: events {from} to {last}", damage.position_bytes);
    }
    text
}

// === export ===

fn export(asker: &Asker<'_>, range: &RangeOptions, with_meta: bool) -> u8 {
    asker.ask(&Request::Export { range: range.range() }, &mut |answer| {
        let Answer::Event(event) = answer else { return Ok(()) };
        say(&if with_meta { wrapped(event) } else { event.json })
    })
}

/// The event's text stays as it is, to the last digit of its numbers.
fn wrapped(event: Exported) -> String {
    let Exported { offset, source, received_at, only, json } = event;
    let mut meta = json!({ "offset": offset, "source": source, "received_at": received_at });
    if let (Some(only), Some(meta)) = (only, meta.as_object_mut()) {
        meta.insert("only".to_owned(), Value::String(only));
    }
    let meta = meta.to_string();
    format!("{},\"event\":{json}}}", meta.strip_suffix('}').unwrap_or(&meta))
}
