//! Events, one a line, through the rules of both files. One is held at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::Options;
use crate::admin::Progress;
use crate::attempt::DestinationName;
use crate::cli::meter::Meter;
use crate::clock::Clock;
use crate::event::{Event, Kind, MessageId, SourceName};
use crate::plan::{Destination, Plan};
use crate::queue::{Entry, Offset};
use crate::rehearse::change::{Difference, Effect, Made, Named, differences, made};
use crate::rehearse::read;

/// What becomes of the events.
pub(super) struct Tally {
    /// Where they are from.
    pub(super) file: String,
    /// How many there are.
    pub(super) events: u64,
    /// Lines that are no events.
    pub(super) broken: u64,
    /// The first of them.
    pub(super) told: Vec<Broken>,
    /// By destination, in the order of the new file, those that are gone last; without those that are the same in both.
    pub(super) pairs: Vec<Pair>,
}

/// A line that is no event.
pub(super) struct Broken {
    /// Which, from 1.
    pub(super) line: u64,
    /// Why.
    pub(super) why: String,
}

/// A destination by both files.
pub(super) struct Pair {
    pub(super) name: DestinationName,
    old: Option<Arc<Destination>>,
    new: Option<Arc<Destination>>,
    /// Who sent the events that do not say so.
    source: SourceName,
    pub(super) counts: BTreeMap<Effect, u64>,
    pub(super) examples: BTreeMap<Effect, Vec<Example>>,
}

/// An event that something becomes of.
pub(super) struct Example {
    /// Its line, from 1.
    pub(super) line: u64,
    pub(super) event: Named,
    /// Its requests by the old file and by the new, without secrets.
    pub(super) old: Vec<Json>,
    pub(super) new: Vec<Json>,
    /// Why a rule fails on it, by the file by which it does.
    pub(super) dead: Option<String>,
    /// Where the requests differ, when both files make some.
    pub(super) differences: Vec<Difference>,
}

/// So many broken lines are told.
const TOLD_MAX: usize = 3;

/// A longer line is no event: bodies of a mebibyte are the most that the door can be made to take.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Progress is told once in so many lines.
const STRIDE: u64 = 256;

/// A line of `queue export --with-meta`.
#[derive(Deserialize)]
struct Wrapped<'a> {
    source: String,
    only: Option<String>,
    #[serde(borrow)]
    event: &'a RawValue,
}

/// What a line holds.
struct Line {
    event: Event,
    /// Whether it says who sent it.
    has_source: bool,
    only: Option<DestinationName>,
}

/// Reads the events and lets them through both files.
pub(super) fn tally(path: &Path, options: &Options, old: &Plan, new: &Plan) -> Result<Tally, String> {
    let name = path.display().to_string();
    let failed = |error: io::Error| format!("error: cannot read {name}: {error}");
    let (mut input, size) = open(path).map_err(failed)?;
    let sender = options.source.clone().map(SourceName::from);
    let mut tally =
        Tally { file: name.clone(), events: 0, broken: 0, told: Vec::new(), pairs: pairs(sender.as_ref(), old, new) };
    let examples_max = if options.all { usize::MAX } else { options.examples };
    let now = Clock::system().now();
    let mut meter = Meter::new("looked at");
    let (mut line, mut number, mut position) = (Vec::new(), 0, 0);
    while let Some(bytes) = next_line(&mut input, &mut line).map_err(failed)? {
        (number, position) = (number + 1, position + bytes);
        if number % STRIDE == 0 {
            meter.show(&Progress { position, of: size.unwrap_or(position), done: tally.events, at: None, waits: None });
        }
        tally.take(&line, number, now, examples_max);
    }
    meter.end();
    Ok(tally)
}

/// The file, and how large it is where that is known.
fn open(path: &Path) -> io::Result<(Box<dyn BufRead>, Option<u64>)> {
    if super::is_stdin(path) {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok((Box::new(BufReader::with_capacity(1 << 16, file)), Some(size)))
}

/// The next line, without its end; of one that is too long the beginning. Answers how many bytes it has; `None` at the end.
fn next_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Option<u64>> {
    line.clear();
    let mut bytes = input.take(LINE_BYTES_MAX).read_until(b'\n', line)? as u64;
    if bytes == 0 {
        return Ok(None);
    }
    let is_whole = line.last() == Some(&b'\n') || bytes < LINE_BYTES_MAX;
    if !is_whole {
        bytes += skip_line(input)?;
    }
    Ok(Some(bytes))
}

fn skip_line(input: &mut dyn BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let piece = input.fill_buf()?;
        let end = piece.iter().position(|byte| *byte == b'\n');
        let (used, is_over) = (end.map_or(piece.len(), |at| at + 1), end.is_some() || piece.is_empty());
        input.consume(used);
        skipped += used as u64;
        if is_over {
            return Ok(skipped);
        }
    }
}

/// The destinations that are not the same in both.
fn pairs(sender: Option<&SourceName>, old: &Plan, new: &Plan) -> Vec<Pair> {
    let gone = old.destinations.iter().filter(|destination| new.destination(&destination.name).is_none());
    let names = new.destinations.iter().chain(gone).map(|destination| destination.name.clone());
    let pair = |name: DestinationName| {
        let (old_one, new_one) = (old.destination(&name).cloned(), new.destination(&name).cloned());
        let is_same = old_one.as_ref().map(|one| one.fingerprint) == new_one.as_ref().map(|one| one.fingerprint);
        let source = sender.cloned().unwrap_or_else(|| source(old_one.as_ref(), new_one.as_ref(), new));
        (!is_same).then_some(Pair {
            name,
            old: old_one,
            new: new_one,
            source,
            counts: BTreeMap::new(),
            examples: BTreeMap::new(),
        })
    };
    names.filter_map(pair).collect()
}

/// A source that both take events from, if there is one: who sent an event that does not say so makes no difference.
fn source(old: Option<&Arc<Destination>>, new: Option<&Arc<Destination>>, plan: &Plan) -> SourceName {
    let of = |destination: Option<&Arc<Destination>>| destination.and_then(|one| one.sources.clone());
    let taken = match (of(old), of(new)) {
        (Some(old), Some(new)) => old.iter().find(|name| new.contains(name)).or(old.first()).cloned(),
        (Some(one), None) | (None, Some(one)) => one.first().cloned(),
        (None, None) => None,
    };
    let any = || plan.policy.sources.values().map(|source| source.name.clone()).min();
    taken.or_else(any).unwrap_or_else(|| SourceName::from("test"))
}

// === impl Tally ===

impl Tally {
    fn take(&mut self, line: &[u8], number: u64, now: Timestamp, examples_max: usize) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        match parse(line, now) {
            Ok(read) => {
                self.events += 1;
                for pair in &mut self.pairs {
                    pair.take(&read, number, now, examples_max);
                }
            }
            Err(why) => {
                self.broken += 1;
                if self.told.len() < TOLD_MAX {
                    self.told.push(Broken { line: number, why });
                }
            }
        }
    }
}

// === impl Pair ===

impl Pair {
    /// How many events there are that this becomes of.
    pub(super) fn count(&self, effect: Effect) -> u64 {
        self.counts.get(&effect).copied().unwrap_or_default()
    }

    fn take(&mut self, line: &Line, number: u64, now: Timestamp, examples_max: usize) {
        let mut event = line.event.clone();
        if !line.has_source {
            event.source = self.source.clone();
        }
        // An event is looked at when it comes.
        let now = now.min(event.received_at);
        let entry = Entry::new(Offset(number), event, line.only.clone());
        if !entry.is_for(&self.name) {
            return;
        }
        let (old, new) = (made(self.old.as_ref(), &entry, now), made(self.new.as_ref(), &entry, now));
        let effect = old.effect(&new);
        *self.counts.entry(effect).or_default() += 1;
        let examples = self.examples.entry(effect).or_default();
        if effect != Effect::Same && examples.len() < examples_max {
            let (told_old, told_new) = (old.told(self.old.as_ref()), new.told(self.new.as_ref()));
            let dead = match (&old, &new) {
                (_, Made::Dead(why)) | (Made::Dead(why), _) => Some(why.clone()),
                _ => None,
            };
            let differences = if effect == Effect::Changes { differences(&told_old, &told_new) } else { Vec::new() };
            let event = Named::of(&entry);
            examples.push(Example { line: number, event, old: told_old, new: told_new, dead, differences });
        }
    }
}

// === one line ===

fn parse(line: &[u8], now: Timestamp) -> Result<Line, String> {
    if line.len() as u64 >= LINE_BYTES_MAX {
        return Err(format!("it is longer than {LINE_BYTES_MAX} bytes"));
    }
    if let Ok(wrapped) = serde_json::from_slice::<Wrapped<'_>>(line)
        && wrapped.event.get().starts_with('{')
    {
        let event = event(wrapped.event.get().as_bytes(), &wrapped.source.into(), now)?;
        return Ok(Line { event, has_source: true, only: wrapped.only.map(DestinationName::from) });
    }
    let event = event(line, &SourceName::from("test"), now)?;
    Ok(Line { event, has_source: false, only: None })
}

/// An event as it is stored, or as an SDK sends it.
fn event(text: &[u8], source: &SourceName, now: Timestamp) -> Result<Event, String> {
    let value: Json = serde_json::from_slice(text).map_err(|error| format!("it is not JSON: {error}"))?;
    if !value.is_object() {
        return Err("it is not a JSON object".to_owned());
    }
    if let Some(event) = stored(text, &value, source) {
        return Ok(event);
    }
    // What stands at the door is not compared: old and new rules see the same event.
    let read = read(&[value], source, None, now).map_err(|error| error.to_string())?;
    read.into_iter().next().ok_or_else(|| "it holds no event".to_owned())
}

/// What the door wrote: it has everything that the door adds.
fn stored(text: &[u8], value: &Json, source: &SourceName) -> Option<Event> {
    let field = |key: &str| value.get(key).and_then(Json::as_str);
    Some(Event {
        source: source.clone(),
        kind: field("type")?.parse::<Kind>().ok()?,
        message_id: MessageId::from(field("messageId")?),
        received_at: field("receivedAt")?.parse().ok()?,
        json: Bytes::copy_from_slice(text),
    })
}
