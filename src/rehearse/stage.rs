//! The walk itself: what `deliver::worker` does with a queue, sockets and a clock, done with a list and a script.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use super::{End, Made, Performance};
use crate::attempt::{Attempts, Failure, Outcome, Reason, Verdict};
use crate::deliver::order::{Key, Move, Order, Room};
use crate::deliver::progress::{Carrier, Next, Progress};
use crate::deliver::{Look, look};
use crate::event::Event;
use crate::plan::case::{Answer, Fate, Script};
use crate::plan::pack::Packer;
use crate::plan::{Batch, Destination, Item, Reply};
use crate::queue::{Delivery, Entry, Offset, Settlement};
use crate::retry::Health;

/// The longest wait that the dice allow.
const JITTER: f64 = 1.0;

/// There is room for every event.
const ROOM: Room = Room { events: usize::MAX, bytes: usize::MAX };

/// One rehearsal.
pub(super) struct Stage<'a> {
    destination: &'a Arc<Destination>,
    events: &'a [Event],
    answers: Answers<'a>,
    now: Timestamp,
    /// Events that are to be looked at, by when.
    waiting: BTreeSet<(Timestamp, Offset)>,
    tries: BTreeMap<Offset, Attempts>,
    held: BTreeMap<Offset, Progress>,
    order: Order,
    packer: Packer<Offset>,
    ready: VecDeque<Batch<Offset>>,
    health: Health,
    performance: Performance,
}

/// The answers still to come.
enum Answers<'a> {
    Always(Reply),
    Next(std::slice::Iter<'a, Answer>),
}

// === impl Stage ===

impl<'a> Stage<'a> {
    pub(super) fn new(
        destination: &'a Arc<Destination>,
        events: &'a [Event],
        script: &'a Script,
        now: Timestamp,
    ) -> Self {
        let unknown = End { fate: Fate::Retry, detail: String::new() };
        let performance = Performance { requests: Vec::new(), ends: vec![unknown; events.len()] };
        Self {
            destination,
            events,
            answers: Answers::of(script),
            now,
            waiting: (0..events.len() as u64).map(|place| (now, Offset(place))).collect(),
            tries: BTreeMap::new(),
            held: BTreeMap::new(),
            order: Order::default(),
            packer: Packer::new(Arc::clone(destination)),
            ready: VecDeque::new(),
            health: Health::default(),
            performance,
        }
    }

    /// Plays until nothing is left to do, or the script is used up.
    pub(super) fn play(mut self) -> Performance {
        let is_one_round = matches!(self.answers, Answers::Always(_));
        while let Some((due, _)) = self.waiting.first().copied() {
            self.now = self.now.max(due);
            self.take_up();
            if !self.send_all() || is_one_round {
                break;
            }
        }
        self.performance
    }

    /// Looks at everything that is due.
    fn take_up(&mut self) {
        while let Some((due, offset)) = self.waiting.first().copied().filter(|(due, _)| *due <= self.now) {
            self.waiting.remove(&(due, offset));
            self.consider(offset);
        }
        self.keep_order();
    }

    fn event(&self, offset: Offset) -> &'a Event {
        &self.events[place(offset)]
    }

    fn consider(&mut self, offset: Offset) {
        let attempts = self.tries.get(&offset).cloned().unwrap_or_default();
        let entry = Entry::new(offset, self.event(offset).clone(), None);
        let delivery = Delivery { entry: Arc::new(entry), attempts };
        match look(self.destination, &delivery.entry, self.now) {
            Ok(Look { items: None, .. }) if delivery.attempts.is_untouched() => {
                self.end(offset, Fate::Filtered, String::new());
            }
            Ok(Look { items, key }) => self.hold(delivery, items.unwrap_or_default(), key),
            Err(failure) => self.end(offset, Fate::Dead, failure.to_string()),
        }
    }

    fn hold(&mut self, delivery: Delivery, items: Vec<Item>, key: Option<Key>) {
        let offset = delivery.entry.offset;
        let progress = Progress::new(delivery, items);
        let size_bytes = progress.size_bytes();
        self.held.insert(offset, progress);
        match key {
            Some(key) => self.order.ask(offset, key, size_bytes, ROOM),
            None => self.go_on(offset),
        }
    }

    fn go_on(&mut self, offset: Offset) {
        let Some(progress) = self.held.get_mut(&offset) else { return };
        match progress.next(&self.destination.retry, self.now, JITTER) {
            Next::Wait => {}
            Next::Send(items) => {
                for item in items {
                    self.ready.extend(self.packer.push(item, offset, self.now));
                }
            }
            Next::Settle(settlement) => {
                self.held.remove(&offset);
                self.settle(settlement);
            }
            Next::Reconsider(_) => unreachable!("the rules do not change during a rehearsal"),
        }
    }

    /// Sends until nothing is ready. Answers whether the script had an answer to everything.
    fn send_all(&mut self) -> bool {
        loop {
            if self.ready.is_empty() {
                self.ready.extend(self.packer.flush());
            }
            let Some(batch) = self.ready.pop_front() else { return true };
            if let Some(rest) = self.health.rest() {
                self.now = self.now.max(rest.until);
            }
            if !self.send(batch) {
                return false;
            }
            self.keep_order();
        }
    }

    fn send(&mut self, batch: Batch<Offset>) -> bool {
        let (reply, is_sent) = match self.destination.request(&batch, self.now) {
            Ok(request) => {
                let Some(reply) = self.answers.next(self.destination.is_http()) else { return false };
                let mut events: Vec<usize> = batch.items.iter().map(|(_, offset)| place(*offset)).collect();
                events.dedup();
                self.performance.requests.push(Made { at: self.now, request, events });
                (reply, true)
            }
            Err(error) => (Reply::Unsendable(Failure::new(Reason::Mapping, error.to_string())), false),
        };
        let outcomes = self.destination.judge(&reply, batch.items.len(), self.now);
        self.note_health(&outcomes);
        self.conclude(batch, outcomes, is_sent);
        true
    }

    fn conclude(&mut self, batch: Batch<Offset>, outcomes: Vec<Outcome>, is_sent: bool) {
        let (count, opened_at) = (batch.items.len(), batch.opened_at);
        let carrier = Carrier { destination: Arc::clone(self.destination), items: is_sent.then_some(count) };
        let mut to_halve = Vec::new();
        for ((item, offset), outcome) in batch.items.into_iter().zip(outcomes) {
            match (&self.answers, outcome) {
                (Answers::Always(_), Outcome::Split(failure)) if count > 1 => {
                    self.end(offset, Fate::Split, failure.to_string());
                }
                (_, Outcome::Split(failure)) => to_halve.push(((item, offset), failure)),
                (_, outcome) => self.note(item, offset, outcome, &carrier),
            }
        }
        if to_halve.len() > 1 {
            let items = to_halve.into_iter().map(|(item, _)| item).collect();
            let (first, second) = Batch { items, opened_at }.halves();
            self.ready.push_front(second);
            self.ready.push_front(first);
            return;
        }
        for ((item, offset), failure) in to_halve {
            self.note(item, offset, Outcome::Split(failure), &carrier);
        }
    }

    fn note(&mut self, item: Item, offset: Offset, outcome: Outcome, carrier: &Carrier) {
        let Some(progress) = self.held.get_mut(&offset) else { return };
        if matches!(outcome, Outcome::Unauthorized(_)) {
            self.performance.ends[place(offset)].fate = Fate::Pause;
        }
        progress.note(item, outcome, carrier);
        self.go_on(offset);
    }

    fn note_health(&mut self, outcomes: &[Outcome]) {
        let overall = Health::overall(outcomes);
        self.health.note(overall, &self.destination.retry, self.now, JITTER);
    }

    fn settle(&mut self, settlement: Settlement) {
        let Settlement { offset, verdict, attempts } = settlement;
        match verdict {
            Verdict::Delivered => self.end(offset, Fate::Ok, String::new()),
            Verdict::Filtered => self.end(offset, Fate::Filtered, String::new()),
            Verdict::Dropped => self.end(offset, Fate::Drop, String::new()),
            Verdict::Dead(failure) => self.end(offset, Fate::Dead, failure.to_string()),
            Verdict::RetryAt(due, failure) => {
                let was_paused = self.performance.ends[place(offset)].fate == Fate::Pause;
                let fate = if was_paused { Fate::Pause } else { Fate::Retry };
                self.performance.ends[place(offset)] = End { fate, detail: failure.to_string() };
                self.wait(offset, due, attempts);
            }
            Verdict::HeldBack(due) => self.wait(offset, due, attempts),
        }
    }

    fn wait(&mut self, offset: Offset, due: Timestamp, attempts: Attempts) {
        self.tries.insert(offset, attempts);
        self.waiting.insert((due, offset));
        self.order.waits(offset);
    }

    fn end(&mut self, offset: Offset, fate: Fate, detail: String) {
        self.performance.ends[place(offset)] = End { fate, detail };
        self.order.is_over(offset);
    }

    /// Does what the order of keys asks for, until nothing moves.
    fn keep_order(&mut self) {
        loop {
            let moves = self.order.moves();
            if moves.is_empty() {
                return;
            }
            for moved in moves {
                match moved {
                    Move::Go(offset) => self.go_on(offset),
                    Move::Back { offset, behind } => self.send_back(offset, behind),
                }
            }
        }
    }

    /// It waits with the one of its key that waits before it.
    fn send_back(&mut self, offset: Offset, behind: Option<Offset>) {
        let due = self.waiting.iter().find(|(_, other)| Some(*other) == behind).map_or(self.now, |(due, _)| *due);
        if let Some(progress) = self.held.remove(&offset) {
            let Settlement { attempts, .. } = progress.hold_back(due);
            self.wait(offset, due, attempts);
        }
    }
}

fn place(offset: Offset) -> usize {
    usize::try_from(offset.0).expect("it was made from a place in a list")
}

// === impl Answers ===

impl<'a> Answers<'a> {
    fn of(script: &'a Script) -> Self {
        match script {
            Script::Accepting => Self::Always(Reply::answered(200, Vec::new(), "")),
            Script::Once(answer) => Self::Always(Reply::from(answer)),
            Script::History(answers) => Self::Next(answers.iter()),
        }
    }

    /// The next answer; a file that is written to has none of its own.
    fn next(&mut self, is_http: bool) -> Option<Reply> {
        let reply = match self {
            Self::Always(reply) => reply.clone(),
            Self::Next(answers) => Reply::from(answers.next()?),
        };
        let is_written = !is_http && matches!(reply, Reply::Answered { status: 200..=299, .. });
        Some(if is_written { Reply::Written } else { reply })
    }
}

// === impl Reply ===

impl Reply {
    fn answered(status: u16, headers: Vec<(String, String)>, body: &str) -> Self {
        Self::Answered { status, headers, body: body.to_owned().into(), news: None }
    }
}

impl From<&Answer> for Reply {
    fn from(answer: &Answer) -> Self {
        match answer {
            Answer::Reply { status, headers, body } => Self::answered(*status, headers.clone(), body),
            Answer::Timeout => Self::Lost(Failure::new(Reason::Timeout, "no reply in time")),
            Answer::Disconnect => Self::Lost(Failure::new(Reason::Connection, "the connection broke")),
        }
    }
}
