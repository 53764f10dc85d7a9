//! Dead letters: finding, telling, putting back, forgetting.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

use super::run::{Desk, Halt, Out, Pace, filter, pieces};
use super::{Answer, Failed, Letter, LetterLine, Letters, Moment, Progress, SentRequest, Which};
use crate::attempt::{DeadLetter, DestinationName, Reason};
use crate::event::{Event, Kind};
use crate::expr::filter::Filter;
use crate::queue::{LetterId, Queue, StorageError};

/// Letters read in one go, of one destination: each holds an event and a request.
const CHUNK: usize = 64;

/// The kinds of fault; a status is one, whichever it is.
const REASONS: [Reason; 8] = [
    Reason::Status(0),
    Reason::Response,
    Reason::Timeout,
    Reason::Connection,
    Reason::Io,
    Reason::Mapping,
    Reason::Plan,
    Reason::Unreadable,
];

/// Which letters are asked for, compiled.
struct Wanted<'a> {
    which: &'a Which,
    ids: BTreeSet<u64>,
    filter: Option<Filter>,
}

/// One destination's letters, chunk by chunk.
struct Pile {
    destination: DestinationName,
    after: Option<LetterId>,
    /// Only these, if any are named.
    ids: Option<BTreeSet<u64>>,
    /// What was read and not yet taken.
    read: VecDeque<Found>,
    is_over: bool,
}

type Found = (LetterId, DeadLetter);

/// The letters of one destination that are asked for.
struct Counted {
    letters: u64,
    /// Those that come after it came after the count: a letter that is replayed and dies again is not replayed again.
    last: LetterId,
}

/// What is done with letters.
enum Deed {
    PutBack(Pace),
    Forget,
}

// === impl Desk: telling ===

impl Desk {
    pub(super) async fn list_letters(&self, which: &Which, newest: Option<usize>, out: &Out) -> Result<(), Halt> {
        let wanted = self.wanted(which)?;
        let mut piles = self.piles(&wanted);
        let mut kept = VecDeque::new();
        while let Some((id, letter)) = next_of(&mut piles, self.queue.as_ref()).await? {
            if !wanted.takes(id, &letter) {
                continue;
            }
            let Some(newest) = newest else {
                out.send(Answer::LetterLine(line(id, &letter))).await?;
                continue;
            };
            kept.push_back(line(id, &letter));
            if kept.len() > newest {
                kept.pop_front();
            }
        }
        for line in kept {
            out.send(Answer::LetterLine(line)).await?;
        }
        Ok(())
    }

    pub(super) async fn show_letter(&self, id: u64, out: &Out) -> Result<(), Halt> {
        let which = Which { ids: vec![id], ..Which::default() };
        let mut piles = self.piles(&self.wanted(&which)?);
        match next_of(&mut piles, self.queue.as_ref()).await? {
            Some((id, letter)) => out.send(Answer::Letter(Box::new(whole(id, &letter)))).await,
            None => Err(no_letter(&[id]).into()),
        }
    }
}

// === impl Desk: doing ===

impl Desk {
    pub(super) async fn replay_letters(
        &self,
        which: &Which,
        rate: Option<f64>,
        dry_run: bool,
        out: &Out,
    ) -> Result<(), Halt> {
        let pace = self.pace(rate.filter(|_| !dry_run))?;
        let mut told = self.act(which, Deed::PutBack(pace), dry_run, out).await?;
        told.notes = self.notes(&told);
        out.send(Answer::Letters(told)).await
    }

    pub(super) async fn purge_letters(&self, which: &Which, dry_run: bool, out: &Out) -> Result<(), Halt> {
        let told = self.act(which, Deed::Forget, dry_run, out).await?;
        out.send(Answer::Letters(told)).await
    }

    /// First counts, which finds mistakes before anything is done, then does it up to where it counted.
    async fn act(&self, which: &Which, mut deed: Deed, dry_run: bool, out: &Out) -> Result<Letters, Halt> {
        let wanted = self.wanted(which)?;
        let counted = self.count(&wanted).await?;
        let matching = counted.values().map(|counted| counted.letters).sum();
        let destinations = counted.iter().map(|(name, counted)| (name.to_string(), counted.letters)).collect();
        let mut progress = Progress { of: matching, ..Progress::default() };
        if !dry_run {
            for (destination, counted) in counted {
                self.act_on(&destination, counted.last, &wanted, &mut deed, &mut progress, out).await?;
            }
            self.queue.flush().await?;
        }
        Ok(Letters { matching, done: progress.done, destinations, dry_run, notes: Vec::new() })
    }

    async fn count(&self, wanted: &Wanted<'_>) -> Result<BTreeMap<DestinationName, Counted>, Halt> {
        let (mut counted, mut missing) = (BTreeMap::new(), wanted.ids.clone());
        for mut pile in self.piles(wanted) {
            while let Some((id, letter)) = pile.next(self.queue.as_ref()).await? {
                missing.remove(&id.0);
                if wanted.takes(id, &letter) {
                    let counted = counted.entry(letter.destination).or_insert(Counted { letters: 0, last: id });
                    (counted.letters, counted.last) = (counted.letters + 1, id);
                }
            }
        }
        let missing: Vec<u64> = missing.into_iter().collect();
        if missing.is_empty() { Ok(counted) } else { Err(no_letter(&missing).into()) }
    }

    async fn act_on(
        &self,
        destination: &DestinationName,
        last: LetterId,
        wanted: &Wanted<'_>,
        deed: &mut Deed,
        progress: &mut Progress,
        out: &Out,
    ) -> Result<(), Halt> {
        let mut pile = Pile::new(destination.clone(), wanted);
        loop {
            let mut letters = pile.chunk(self.queue.as_ref()).await?;
            if letters.first().is_none_or(|(id, _)| *id > last) {
                return Ok(());
            }
            letters.retain(|(id, letter)| *id <= last && wanted.takes(*id, letter));
            self.act_on_chunk(destination, &letters, deed, progress, out).await?;
            tokio::task::yield_now().await;
        }
    }

    /// Puts back first and forgets then: a crash in between repeats events and loses none.
    async fn act_on_chunk(
        &self,
        destination: &DestinationName,
        mut letters: &[Found],
        deed: &mut Deed,
        progress: &mut Progress,
        out: &Out,
    ) -> Result<(), Halt> {
        let events: Vec<Event> = letters.iter().map(|(_, letter)| letter.event.clone()).collect();
        let events_max = if let Deed::PutBack(pace) = deed { pace.events_max() } else { CHUNK };
        for piece in pieces(&events, events_max) {
            let (these, rest) = letters.split_at(piece.len());
            letters = rest;
            if let Deed::PutBack(pace) = deed {
                pace.wait(piece.len(), &self.clock, out).await?;
                self.put_back(destination, piece, progress, out).await?;
            }
            self.queue.remove_dead_letters(destination, these.iter().map(|(id, _)| *id).collect()).await?;
            progress.done += these.len() as u64;
            progress.position = progress.done;
            progress.at = these.last().map(|(_, letter)| Moment(letter.died_at));
            out.send(Answer::Progress(progress.clone())).await?;
        }
        Ok(())
    }

    fn notes(&self, told: &Letters) -> Vec<String> {
        let plan = (self.plan)();
        let is_off = |name: &&String| plan.destination(&name.as_str().into()).is_none();
        let mut notes: Vec<String> = told
            .destinations
            .keys()
            .filter(is_off)
            .map(|name| format!("the destination `{name}` is not in force: its events wait until it is"))
            .collect();
        notes.extend(self.note_of_start(told.done));
        notes
    }
}

// === finding ===

impl Desk {
    fn wanted<'a>(&self, which: &'a Which) -> Result<Wanted<'a>, Halt> {
        if let Some(name) = which.destination.as_deref() {
            self.check_place(name)?;
        }
        if let Some(reason) = which.reason.as_deref().filter(|reason| !is_reason(reason)) {
            let words = REASONS.map(Reason::code).join(", ");
            let failed = Failed::unable(format!("`{reason}` is not a reason"));
            return Err(failed.with_help(format!("one of {words}, or a status such as 400")).into());
        }
        Ok(Wanted { which, ids: which.ids.iter().copied().collect(), filter: filter(&which.range)? })
    }

    fn check_place(&self, name: &str) -> Result<(), Halt> {
        let places = self.places();
        if places.iter().any(|place| place.as_str() == name) {
            return Ok(());
        }
        let names: Vec<&str> = places.iter().map(DestinationName::as_str).collect();
        let failed = Failed::unable(format!("the queue knows no destination `{name}`"));
        Err(failed.with_help(format!("it knows: {}", names.join(", "))).into())
    }

    fn piles(&self, wanted: &Wanted<'_>) -> Vec<Pile> {
        let is_wanted =
            |name: &DestinationName| wanted.which.destination.as_deref().is_none_or(|of| of == name.as_str());
        self.places().into_iter().filter(is_wanted).map(|name| Pile::new(name, wanted)).collect()
    }
}

/// The oldest letter of all piles.
async fn next_of(piles: &mut [Pile], queue: &dyn Queue) -> Result<Option<Found>, StorageError> {
    let mut oldest: Option<(LetterId, usize)> = None;
    for (index, pile) in piles.iter_mut().enumerate() {
        let Some(id) = pile.peek(queue).await? else { continue };
        if oldest.is_none_or(|(oldest, _)| id < oldest) {
            oldest = Some((id, index));
        }
    }
    Ok(oldest.and_then(|(_, index)| piles[index].read.pop_front()))
}

fn is_reason(word: &str) -> bool {
    let is_status = word.parse::<u16>().is_ok_and(|status| (100..=999).contains(&status));
    is_status || REASONS.iter().any(|reason| reason.code() == word)
}

fn no_letter(ids: &[u64]) -> Failed {
    let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let failed = Failed::wrong(format!("there is no dead letter {}", names.join(", ")));
    failed.with_help("`libroseg dead-letters list` tells which there are")
}

// === impl Wanted ===

impl Wanted<'_> {
    fn takes(&self, id: LetterId, letter: &DeadLetter) -> bool {
        (self.ids.is_empty() || self.ids.contains(&id.0))
            && self.which.reason.as_deref().is_none_or(|reason| has_reason(letter.failure.reason, reason))
            && self.which.range.holds(letter.died_at)
            && self.filter.as_ref().is_none_or(|filter| {
                letter.event.open().is_ok_and(|message| filter.matches(&message.value).unwrap_or(false))
            })
    }
}

fn has_reason(reason: Reason, word: &str) -> bool {
    let is_status = matches!(reason, Reason::Status(status) if word.parse() == Ok(status));
    is_status || reason.code() == word
}

// === impl Pile ===

impl Pile {
    fn new(destination: DestinationName, wanted: &Wanted<'_>) -> Self {
        let ids = (!wanted.ids.is_empty()).then(|| wanted.ids.clone());
        Self { destination, after: None, ids, read: VecDeque::new(), is_over: false }
    }

    async fn next(&mut self, queue: &dyn Queue) -> Result<Option<Found>, StorageError> {
        self.peek(queue).await?;
        Ok(self.read.pop_front())
    }

    async fn peek(&mut self, queue: &dyn Queue) -> Result<Option<LetterId>, StorageError> {
        if self.read.is_empty() && !self.is_over {
            self.read = self.chunk(queue).await?.into();
            self.is_over = self.read.is_empty();
        }
        Ok(self.read.front().map(|(id, _)| *id))
    }

    /// Some more letters; none when that was all.
    async fn chunk(&mut self, queue: &dyn Queue) -> Result<Vec<Found>, StorageError> {
        if let Some(ids) = &mut self.ids {
            return named(ids, &self.destination, queue).await;
        }
        let chunk = queue.dead_letters(&self.destination, self.after, CHUNK).await?;
        self.after = chunk.last().map_or(self.after, |(id, _)| Some(*id));
        Ok(chunk)
    }
}

/// Letters by their ids, some at a time.
async fn named(
    ids: &mut BTreeSet<u64>,
    destination: &DestinationName,
    queue: &dyn Queue,
) -> Result<Vec<Found>, StorageError> {
    let mut found = Vec::new();
    while found.len() < CHUNK {
        let Some(id) = ids.pop_first() else { break };
        let next = queue.dead_letters(destination, id.checked_sub(1).map(LetterId), 1).await?;
        found.extend(next.into_iter().filter(|(next, _)| next.0 == id));
    }
    Ok(found)
}

// === telling ===

fn line(id: LetterId, letter: &DeadLetter) -> LetterLine {
    let event = letter.event.open().map(|message| message.value).unwrap_or_default();
    let text = |key: &str| event.get(key).and_then(Value::as_str).map(str::to_owned);
    LetterLine {
        id: id.0,
        died_at: Moment(letter.died_at),
        destination: letter.destination.to_string(),
        kind: letter.event.kind.to_string(),
        name: if letter.event.kind == Kind::Track { text("event") } else { text("name") },
        user: text("userId").or_else(|| text("anonymousId")),
        reason: letter.failure.reason.to_string(),
        attempts: letter.attempts.count,
    }
}

fn whole(id: LetterId, letter: &DeadLetter) -> Letter {
    let event = &letter.event;
    let trace = letter.failure.trace.as_deref();
    let damaged = || Value::String(String::from_utf8_lossy(&event.json).into_owned());
    Letter {
        line: line(id, letter),
        detail: letter.failure.detail.clone(),
        rule: trace.and_then(|trace| trace.rule.clone()),
        config: trace.map(|trace| format!("{:016x}", trace.config)),
        first_at: letter.attempts.first_at.map(Moment),
        request: trace.and_then(|trace| trace.request.as_ref()).map(SentRequest::from),
        source: event.source.to_string(),
        message_id: event.message_id.to_string(),
        received_at: Moment(event.received_at),
        event: serde_json::from_slice(&event.json).unwrap_or_else(|_| damaged()),
    }
}

impl From<&crate::attempt::SentRequest> for SentRequest {
    fn from(sent: &crate::attempt::SentRequest) -> Self {
        let crate::attempt::SentRequest { method, url, headers, body, items } = sent.clone();
        Self { method, url, headers, body, items }
    }
}
