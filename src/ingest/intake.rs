//! Whoever takes accepted events in, and what goes on after the answer.

use std::fmt;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::time::Instant;

use crate::event::Event;
use crate::queue::{Ack, AppendError, Queue};

/// Takes accepted events in.
pub trait Intake: Send + Sync + 'static {
    /// What a `200` means.
    fn ack(&self) -> Ack;

    /// Takes the events of a request, all or none. Ready when the sender may hear `200`, or has to hear something else;
    /// what goes on after that is the deferrer's.
    fn take(&self, events: Vec<Event>, deferrer: Deferrer) -> BoxFuture<'_, Result<(), NotTaken>>;
}

/// Why events were not taken: the sender should keep them and come back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The queue could not.
    #[error(transparent)]
    Queue(#[from] AppendError),
    /// Some destination does not have them, and nobody else keeps them.
    #[error("some destination does not have the events yet")]
    Undelivered,
}

/// Runs what goes on when a request has been answered. A host that must know of it puts one into the request's
/// extensions; without one, it is a task like any other.
#[derive(Clone, Default)]
pub struct Deferrer {
    /// `None`: as a task.
    run: Option<Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>>,
    /// When the host ends what was deferred.
    pub until: Option<Instant>,
}

/// A queue takes events in: they are safe when it has them.
pub struct Queued(pub Arc<dyn Queue>);

// === impl Deferrer ===

impl Deferrer {
    /// One of a host that ends what was deferred at a time.
    pub fn new(until: Instant, run: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static) -> Self {
        Self { run: Some(Arc::new(run)), until: Some(until) }
    }

    /// Has this go on after the answer. It is begun at once.
    pub fn defer(&self, work: impl Future<Output = ()> + Send + 'static) {
        match &self.run {
            Some(run) => run(work.boxed()),
            None => drop(tokio::spawn(work)),
        }
    }
}

impl fmt::Debug for Deferrer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferrer").field("until", &self.until).finish_non_exhaustive()
    }
}

// === impl Queued ===

impl Intake for Queued {
    fn ack(&self) -> Ack {
        self.0.ack()
    }

    fn take(&self, events: Vec<Event>, _: Deferrer) -> BoxFuture<'_, Result<(), NotTaken>> {
        async move { Ok(self.0.append(events).await?) }.boxed()
    }
}
