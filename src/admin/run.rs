//! Carrying a request out: piece by piece, so that neither all dead letters nor the log are ever in memory, and only as
//! fast as whoever asked takes the answers. When nobody listens any more it stops; what was put back by then stays.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::{Answer, Failed, Moment, PlaceKind, PlaceState, Progress, QueueState, Range, Request};
use crate::attempt::DestinationName;
use crate::clock::Clock;
use crate::event::Event;
use crate::expr::filter::Filter;
use crate::plan::Plan;
use crate::queue::{AppendError, Queue, StorageError};

/// Where requests are carried out.
pub struct Desk {
    /// The queue they are about.
    pub queue: Arc<dyn Queue>,
    /// The plan in force.
    pub plan: Arc<dyn Fn() -> Arc<Plan> + Send + Sync>,
    /// The time.
    pub clock: Clock,
    /// The queue's folder, if it has one.
    pub dir: Option<PathBuf>,
    /// Whether a service delivers what is put back. Otherwise it waits for one.
    pub is_served: bool,
}

/// The way back to whoever asked.
pub(super) struct Out(mpsc::Sender<Answer>);

/// Why a request ends early.
pub(super) enum Halt {
    /// Nobody listens.
    Gone,
    /// It cannot be done.
    Failed(Failed),
}

/// Evenly spaced pieces of work.
pub(super) struct Pace {
    per_second: Option<f64>,
    next: Timestamp,
}

/// Events put back in one go: few enough to be made durable in a moment, and to leave room for what comes in.
const PIECE_EVENTS_MAX: usize = 256;

/// Bytes of events put back in one go, a quarter of the smallest queue there can be.
const PIECE_BYTES_MAX: usize = 256 << 10;

/// A paced second is made of so many pieces: bursts stay short.
const PIECES_PER_SECOND: f64 = 10.0;

/// How long a full queue is left to its destinations before it is asked again.
const FULL_PAUSE: SignedDuration = SignedDuration::from_secs(1);

/// Carries a request out. The last answer is [`Answer::Done`] or [`Answer::Failed`].
pub async fn run(desk: &Desk, request: Request, answers: mpsc::Sender<Answer>) {
    let out = Out(answers);
    let last = match desk.answer(request, &out).await {
        Ok(()) => Answer::Done,
        Err(Halt::Failed(failed)) => Answer::Failed(failed),
        Err(Halt::Gone) => return,
    };
    // Nobody may listen any more.
    let _ = out.send(last).await;
}

// === impl Desk ===

impl Desk {
    async fn answer(&self, request: Request, out: &Out) -> Result<(), Halt> {
        match request {
            Request::Letters { which, newest } => self.list_letters(&which, newest, out).await,
            Request::Letter { id } => self.show_letter(id, out).await,
            Request::ReplayLetters { which, rate, dry_run } => self.replay_letters(&which, rate, dry_run, out).await,
            Request::PurgeLetters { which, dry_run } => self.purge_letters(&which, dry_run, out).await,
            Request::Replay { destination, range, rate, dry_run } => {
                self.replay(&destination.into(), &range, rate, dry_run, out).await
            }
            Request::Inspect => out.send(Answer::Queue(Box::new(self.state()))).await,
            Request::Verify => self.verify(out).await,
            Request::Export { range } => self.export(&range, out).await,
        }
    }

    async fn verify(&self, out: &Out) -> Result<(), Halt> {
        for verified in self.queue.verify().await? {
            out.send(Answer::Segment(verified)).await?;
        }
        Ok(())
    }

    /// The destinations that have a place, in the order of their names.
    pub(super) fn places(&self) -> Vec<DestinationName> {
        self.queue.report().places.into_iter().map(|(name, _)| name).collect()
    }

    fn state(&self) -> QueueState {
        let report = self.queue.report();
        let places = report.places.iter().map(|(name, detached_at)| self.place(name, *detached_at));
        QueueState {
            kind: report.kind.to_owned(),
            dir: self.dir.as_ref().map(|dir| dir.display().to_string()),
            is_served: self.is_served,
            size_bytes: report.size_bytes,
            size_bytes_max: report.size_bytes_max,
            segments: report.segments,
            first: report.first.0,
            end: report.end.0,
            oldest_at: report.oldest_at.map(Moment),
            dedup_ids: report.dedup_ids,
            duplicates: report.duplicates,
            damaged: report.damaged,
            destinations: places.collect(),
            failing: report.failing,
        }
    }

    fn place(&self, name: &DestinationName, detached_at: Option<Timestamp>) -> PlaceState {
        let books = self.queue.books(name).unwrap_or_default();
        PlaceState {
            name: name.to_string(),
            state: self.place_kind(name),
            detached_at: detached_at.map(Moment),
            accepted: books.accepted,
            delivered: books.delivered,
            filtered: books.filtered,
            dropped: books.dropped,
            damaged: books.damaged,
            dead: books.dead,
            waiting: books.waiting(),
            behind: books.behind,
            in_hand: books.in_hand,
            later: books.later,
            lag_seconds: books.lag(self.clock.now()).as_secs_f64(),
            letters: books.letters,
            letters_bytes: books.letters_bytes,
        }
    }

    fn place_kind(&self, name: &DestinationName) -> PlaceKind {
        let plan = (self.plan)();
        if plan.destination(name).is_some() {
            PlaceKind::On
        } else if plan.disabled.iter().any(|disabled| disabled.name == *name) {
            PlaceKind::Off
        } else {
            PlaceKind::Detached
        }
    }

    /// Puts one piece back. A full queue is waited for, as long as there is somebody who empties it.
    pub(super) async fn put_back(
        &self,
        destination: &DestinationName,
        events: &[Event],
        progress: &Progress,
        out: &Out,
    ) -> Result<(), Halt> {
        loop {
            let full = match self.queue.put_back(destination, events.to_vec()).await {
                Ok(()) => return Ok(()),
                Err(full @ AppendError::Full { .. }) if self.is_served => full,
                Err(error) => return Err(Halt::Failed(not_put_back(&error, progress))),
            };
            out.send(Answer::Progress(Progress { waits: Some(full.to_string()), ..progress.clone() })).await?;
            out.sleep_until(&self.clock, self.clock.now() + FULL_PAUSE).await?;
        }
    }

    /// When what was put back will be sent, if that is not now.
    pub(super) fn note_of_start(&self, put_back: u64) -> Option<String> {
        let waits = !self.is_served && put_back > 0;
        waits.then(|| format!("no service runs: {} will be sent when it starts", events(put_back)))
    }

    /// A rate, where there is somebody who keeps to it.
    pub(super) fn pace(&self, per_second: Option<f64>) -> Result<Pace, Halt> {
        let is_rate = |rate: f64| rate.is_finite() && rate > 0.0;
        if per_second.is_some_and(|rate| !is_rate(rate)) {
            return Err(Failed::unable("a rate must be more than 0 events per second").into());
        }
        if per_second.is_some() && !self.is_served {
            let failed = Failed::unable("no service runs, so nothing is sent now and there is nothing to pace");
            return Err(failed.with_help("leave `--rate` out, or start the service first").into());
        }
        Ok(Pace { per_second, next: self.clock.now() })
    }
}

fn not_put_back(error: &AppendError, progress: &Progress) -> Failed {
    let failed = Failed::unable(format!("{error}; {} put back before that", events(progress.done)));
    let is_full = matches!(error, AppendError::Full { .. });
    if is_full { failed.with_help("start the service, which makes room by delivering, and ask it") } else { failed }
}

/// `1 event`, `2 events`.
pub(super) fn events(count: u64) -> String {
    format!("{count} event{}", if count == 1 { "" } else { "s" })
}

/// Compiles what stands after `--where`.
pub(super) fn filter(range: &Range) -> Result<Option<Filter>, Halt> {
    let Some(text) = &range.filter else { return Ok(None) };
    Filter::parse(text).map(Some).map_err(|mistake| {
        let place = text.get(..mistake.range.start).map_or(0, |before| before.chars().count()) + 1;
        let failed = Failed::unable(format!("the filter `{text}` is wrong at character {place}: {}", mistake.message));
        Halt::Failed(Failed { help: mistake.help, ..failed })
    })
}

/// Events in pieces that may be put back in one go.
pub(super) fn pieces(events: &[Event], events_max: usize) -> Vec<&[Event]> {
    let (mut pieces, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (index, event) in events.iter().enumerate() {
        let is_full = index - from >= events_max || bytes + event.json.len() > PIECE_BYTES_MAX;
        if index > from && is_full {
            pieces.push(&events[from..index]);
            (from, bytes) = (index, 0);
        }
        bytes += event.json.len();
    }
    pieces.extend((from < events.len()).then(|| &events[from..]));
    pieces
}

// === impl Pace ===

impl Pace {
    /// Events that may go at once.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "clamped to the bounds of a piece"
    )]
    pub(super) fn events_max(&self) -> usize {
        let piece = |rate: f64| (rate / PIECES_PER_SECOND).ceil().clamp(1.0, PIECE_EVENTS_MAX as f64) as usize;
        self.per_second.map_or(PIECE_EVENTS_MAX, piece)
    }

    /// Ready when the next piece may go.
    #[allow(clippy::cast_precision_loss, reason = "a piece is small")]
    pub(super) async fn wait(&mut self, events: usize, clock: &Clock, out: &Out) -> Result<(), Halt> {
        let Some(per_second) = self.per_second else { return Ok(()) };
        out.sleep_until(clock, self.next).await?;
        let takes = SignedDuration::try_from_secs_f64(events as f64 / per_second).unwrap_or(SignedDuration::MAX);
        // Time that nobody used is not saved up.
        self.next = self.next.max(clock.now()).saturating_add(takes).unwrap_or(Timestamp::MAX);
        Ok(())
    }
}

// === impl Out ===

impl Out {
    /// Sends a piece of the answer, once there is room for it.
    pub(super) async fn send(&self, answer: Answer) -> Result<(), Halt> {
        self.0.send(answer).await.map_err(|_| Halt::Gone)
    }

    /// Waits, unless nobody listens any more.
    async fn sleep_until(&self, clock: &Clock, until: Timestamp) -> Result<(), Halt> {
        tokio::select! {
            () = clock.sleep_until(until) => Ok(()),
            () = self.0.closed() => Err(Halt::Gone),
        }
    }
}

// === impl Halt ===

impl From<StorageError> for Halt {
    fn from(error: StorageError) -> Self {
        Self::Failed(Failed::unable(error.to_string()))
    }
}

impl From<Failed> for Halt {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::{PIECE_BYTES_MAX, pieces};
    use crate::event::{Event, Kind};

    fn event(bytes: usize) -> Event {
        Event {
            source: "test".into(),
            kind: Kind::Track,
            message_id: "m".into(),
            received_at: jiff::Timestamp::UNIX_EPOCH,
            json: "x".repeat(bytes).into(),
        }
    }

    #[test]
    fn pieces_are_bounded_in_events_and_bytes_and_leave_nothing_out() {
        let lens =
            |events: &[Event], max| -> Vec<usize> { pieces(events, max).iter().map(|piece| piece.len()).collect() };
        assert_eq!(lens(&[], 3), Vec::<usize>::new());
        assert_eq!(lens(&vec![event(1); 7], 3), [3, 3, 1]);
        assert_eq!(lens(&vec![event(PIECE_BYTES_MAX / 2); 5], 100), [2, 2, 1]);
        assert_eq!(lens(&[event(PIECE_BYTES_MAX + 1), event(1)], 100), [1, 1], "one that is too large goes alone");
    }
}
