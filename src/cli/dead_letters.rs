//! `libroseg dead-letters`: events given up on, to be looked at, sent again, or forgotten.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use clap::{Args, Subcommand};

use super::ask::{self, Asker, Format, RangeOptions, clean, counted, rate, say, say_json, told};
use super::meter::Meter;
use super::table::Table;
use super::{DONE, UNABLE};
use crate::admin::{Answer, Failed, Letter, LetterLine, Letters, Request, SentRequest, Which};

/// What to do with dead letters.
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
    /// List them, newest last
    #[command(after_help = LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        filters: Filters,

        /// The newest so many
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: Option<u32>,
    },
    /// Show everything about one: the event, the reason, the last request, the reply
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Its id, as the list has it
        id: u64,
    },
    /// Send them again by the rules of today: those that succeed are gone, others come back
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay {
        /// Only these
        #[arg(value_name = "ID")]
        ids: Vec<u64>,

        #[command(flatten)]
        filters: Filters,

        /// No more than so many a second
        #[arg(long, value_name = "N/s", value_parser = rate)]
        rate: Option<f64>,

        /// Only count them
        #[arg(long)]
        dry_run: bool,
    },
    /// Forget them for good
    #[command(after_help = PURGE_EXAMPLES)]
    Purge {
        /// Only these
        #[arg(value_name = "ID")]
        ids: Vec<u64>,

        #[command(flatten)]
        filters: Filters,

        /// Every one there is
        #[arg(long)]
        all: bool,

        /// Only count them
        #[arg(long)]
        dry_run: bool,

        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which dead letters.
#[derive(Debug, Args)]
struct Filters {
    /// Only of this destination
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,

    /// Only of this kind: `status`, a status such as `400`, `response`, `timeout`, `connection`, `io`, `mapping` or
    /// `unreadable`
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,

    #[command(flatten)]
    range: RangeOptions,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  libroseg dead-letters list
  libroseg dead-letters show 12
  libroseg dead-letters replay --destination crm
  libroseg dead-letters purge --until 30d";

const LIST_EXAMPLES: &str = "\
Examples:
  libroseg dead-letters list --destination crm --since 2h
  libroseg dead-letters list --reason 400 --where \"$.event == 'Order Completed'\"
  libroseg dead-letters list --limit 20 --format json";

const SHOW_EXAMPLES: &str = "\
Examples:
  libroseg dead-letters show 12
  libroseg dead-letters show 12 --format json";

const REPLAY_EXAMPLES: &str = "\
Examples:
  libroseg dead-letters replay 12 13
  libroseg dead-letters replay --destination crm --reason mapping --dry-run
  libroseg dead-letters replay --destination crm --since 2026-01-02 --rate 50/s";

const PURGE_EXAMPLES: &str = "\
Examples:
  libroseg dead-letters purge 12
  libroseg dead-letters purge --destination crm --until 7d --yes
  libroseg dead-letters purge --all --dry-run";

/// Does it. Answers the exit code.
pub(super) fn run(options: &Options, asker: &Asker<'_>) -> u8 {
    match &options.command {
        Command::List { filters, limit } => list(asker, filters.which(&[]), *limit),
        Command::Show { id } => show(asker, *id),
        Command::Replay { ids, filters, rate, dry_run } => {
            let request = Request::ReplayLetters { which: filters.which(ids), rate: *rate, dry_run: *dry_run };
            act(asker, &request, "put back")
        }
        Command::Purge { ids, filters, all, dry_run, yes } => {
            let which = filters.which(ids);
            if which.is_everything() && !(*all || *dry_run) {
                let failed = Failed::unable("this would forget every dead letter there is");
                return told(
                    &failed.with_help("name ids, narrow it down with `--destination` or `--until`, or say `--all`"),
                );
            }
            purge(asker, &which, *dry_run, *yes)
        }
    }
}

fn list(asker: &Asker<'_>, which: Which, limit: Option<u32>) -> u8 {
    let request = Request::Letters { which, newest: limit.map(|limit| limit as usize) };
    if asker.options.format == Format::Json {
        return asker.ask(&request, &mut |answer| {
            let Answer::LetterLine(line) = answer else { return Ok(()) };
            say_json(&line)
        });
    }
    let head = ["ID", "GIVEN UP ON", "DESTINATION", "EVENT", "USER", "REASON", "TRIES"];
    let mut table = Table::new(head, super::width());
    let code = asker.ask(&request, &mut |answer| {
        let Answer::LetterLine(line) = answer else { return Ok(()) };
        table.push(row(&line))
    });
    if table.end().is_ok_and(|has_rows| !has_rows) && code == DONE {
        super::note(format_args!("no dead letters"));
    }
    code
}

fn row(line: &LetterLine) -> [String; 7] {
    [
        line.id.to_string(),
        format!("{:.0}", line.died_at.0),
        line.destination.clone(),
        event(line),
        line.user.clone().unwrap_or_default(),
        line.reason.clone(),
        line.attempts.to_string(),
    ]
}

fn event(line: &LetterLine) -> String {
    line.name.as_ref().map_or_else(|| line.kind.clone(), |name| format!("{} {name}", line.kind))
}

fn show(asker: &Asker<'_>, id: u64) -> u8 {
    let format = asker.options.format;
    asker.ask(&Request::Letter { id }, &mut |answer| {
        let Answer::Letter(letter) = answer else { return Ok(()) };
        match format {
            Format::Json => say_json(&letter),
            Format::Text => say(&page(&letter)),
        }
    })
}

/// Everything about a letter, for people.
fn page(letter: &Letter) -> String {
    let line = &letter.line;
    let since = letter.first_at.map(|at| format!(", the first at {at}")).unwrap_or_default();
    let rows = [
        ("dead letter", line.id.to_string()),
        ("given up on", format!("{} after {}{since}", line.died_at, tries(line.attempts))),
        ("destination", line.destination.clone()),
        ("rule", letter.rule.clone().unwrap_or_default()),
        ("configuration", letter.config.clone().unwrap_or_default()),
        ("reason", line.reason.clone()),
        ("event", event(line)),
        ("user", line.user.clone().unwrap_or_default()),
        ("message id", letter.message_id.clone()),
        ("received", format!("{} from {}", letter.received_at, letter.source)),
    ];
    let mut page = String::new();
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        // Writing into a string cannot fail.
        let _ = writeln!(page, "{name:<14} {value}");
    }
    let request = letter.request.as_ref().map(request).unwrap_or_default();
    let event = serde_json::to_string_pretty(&letter.event).unwrap_or_default();
    for (name, text) in [("What came back", &letter.detail), ("The last request", &request), ("The event", &event)] {
        if !text.is_empty() {
            let _ = write!(page, "\n{name}:\n{}\n", text.trim_end());
        }
    }
    clean(page.trim_end())
}

/// `1 try`, `2 tries`.
fn tries(count: u32) -> String {
    format!("{count} {}", if count == 1 { "try" } else { "tries" })
}

fn request(sent: &SentRequest) -> String {
    let mut text = format!("{} {}", sent.method, sent.url).trim().to_owned();
    for (name, value) in &sent.headers {
        let _ = write!(text, "\n{name}: {value}");
    }
    if sent.items > 1 {
        let _ = write!(text, "\n({} items shared it; this event's part:)", sent.items);
    }
    let body = sent.body.as_ref().map(|body| format!("\n\n{body}")).unwrap_or_default();
    format!("{text}{body}").trim_start().to_owned()
}

fn purge(asker: &Asker<'_>, which: &Which, dry_run: bool, yes: bool) -> u8 {
    if !dry_run && !yes {
        match is_sure(asker, which) {
            Ok(true) => {}
            Ok(false) => return DONE,
            Err(code) => return code,
        }
    }
    act(asker, &Request::PurgeLetters { which: which.clone(), dry_run }, "forgotten")
}

/// Counts first, then asks.
fn is_sure(asker: &Asker<'_>, which: &Which) -> Result<bool, u8> {
    if !io::stdin().is_terminal() {
        let failed = Failed::unable("nobody is there to be asked whether this is meant");
        return Err(told(&failed.with_help("say `--yes`, or look first with `--dry-run`")));
    }
    let mut matching = 0;
    let request = Request::PurgeLetters { which: which.clone(), dry_run: true };
    let code = asker.ask(&request, &mut |answer| {
        if let Answer::Letters(letters) = answer {
            matching = letters.matching;
        }
        Ok(())
    });
    if code != DONE {
        return Err(code);
    }
    let _ = write!(io::stderr(), "forget {} for good? [y/N] ", counted(matching, "dead letter"));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|_| UNABLE)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn act(asker: &Asker<'_>, request: &Request, deed: &'static str) -> u8 {
    let (mut meter, format) = (Meter::new(deed), asker.options.format);
    let code = asker.ask(request, &mut |answer| {
        if let Answer::Progress(progress) = &answer {
            meter.show(progress);
        }
        let Answer::Letters(letters) = answer else { return Ok(()) };
        meter.end();
        tell(&letters, deed, format)
    });
    meter.end();
    code
}

fn tell(letters: &Letters, deed: &str, format: Format) -> io::Result<()> {
    if format == Format::Json {
        return say_json(letters);
    }
    let count = if letters.dry_run { letters.matching } else { letters.done };
    let would = if letters.dry_run { "would be " } else { "" };
    say(&format!("{} {would}{deed}", counted(count, "dead letter")))?;
    for (destination, count) in &letters.destinations {
        say(&format!("  {}: {count}", clean(destination)))?;
    }
    for note in &letters.notes {
        super::note(format_args!("note: {}", clean(note)));
    }
    Ok(())
}

// === impl Filters ===

impl Filters {
    fn which(&self, ids: &[u64]) -> Which {
        let (destination, reason) = (self.destination.clone(), self.reason.clone());
        Which { ids: ids.to_vec(), destination, reason, range: self.range.range() }
    }
}
