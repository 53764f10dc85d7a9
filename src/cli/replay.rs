//! `libroseg replay`: events of the log once more, by the rules of today.

use std::io;

use clap::Args;

use super::ask::{self, Asker, Format, RangeOptions, clean, counted, rate, say, say_json};
use super::meter::Meter;
use crate::admin::{Answer, Replayed, Request};

/// What to send again.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// The destination; no other sees anything of it
    #[arg(long, value_name = "NAME")]
    destination: String,

    #[command(flatten)]
    range: RangeOptions,

    /// No more than so many a second
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<f64>,

    /// Only count what is there, what the rules want, and what they fail on
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub(super) ask: ask::Options,
}

pub(super) const EXAMPLES: &str = "\
What the destination has yet to deliver anyway is left out. Without --since and --until it is
everything that the queue still has.

Examples:
  libroseg replay --destination warehouse --since 2026-01-02 --until 2026-01-03 --dry-run
  libroseg replay --destination warehouse --since 2h --rate 100/s
  libroseg replay --destination crm --since 7d --where \"$.type == 'identify'\"";

/// Does it. Answers the exit code.
pub(super) fn run(options: &Options, asker: &Asker<'_>) -> u8 {
    let Options { destination, range, rate, dry_run, ask } = options;
    let (destination, range) = (destination.clone(), range.range());
    let request = Request::Replay { destination, range, rate: *rate, dry_run: *dry_run };
    let mut meter = Meter::new("put back");
    let code = asker.ask(&request, &mut |answer| {
        if let Answer::Progress(progress) = &answer {
            meter.show(progress);
        }
        let Answer::Replayed(told) = answer else { return Ok(()) };
        meter.end();
        tell(&told, ask.format)
    });
    meter.end();
    code
}

fn tell(told: &Replayed, format: Format) -> io::Result<()> {
    if format == Format::Json {
        return say_json(told);
    }
    let would = if told.dry_run { "would be " } else { "" };
    let again = if told.dry_run { told.wanted + told.failing } else { told.put_back };
    say(&format!("{} {would}put back for {}", counted(again, "event"), clean(&told.destination)))?;
    let rows = [
        (told.in_range, "in the range"),
        (told.matching, "match the filter"),
        (told.wanted, "wanted by the destination's rules"),
        (told.filtered, "wanted by no rule: left out"),
        (told.failing, "failing in a rule: they become dead letters"),
        (told.still_to_come, "on their way anyway: left out"),
        (told.damaged, "damaged in storage: left out"),
    ];
    for (count, what) in rows.into_iter().filter(|(count, _)| *count > 0) {
        say(&format!("{count:>10}  {what}"))?;
    }
    for failing in &told.failures {
        say(&format!("  {}: {}", clean(&failing.message_id), clean(&failing.error)))?;
    }
    for note in &told.notes {
        super::note(format_args!("note: {}", clean(note)));
    }
    Ok(())
}
