//! Events that are delivered before their request is over, each request's apart from all others: in a Vercel Function,
//! where nothing outlives a request, and with `ack = "delivered"`, where the sender waits for it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::config::Target;
use crate::deliver::errand::{Bounds, Errand, Errands};
use crate::event::Event;
use crate::ingest::{Deferrer, Intake, NotTaken};
use crate::plan::{Plan, QueueAck, QueueSettings};
use crate::queue::Ack;
use crate::reload::Reload;

/// Takes events in by delivering them.
pub(super) struct AtOnce {
    pub(super) errands: Arc<Errands>,
    pub(super) reload: Arc<Reload>,
    pub(super) ack: QueueAck,
    /// The longest a sender waits for its answer.
    pub(super) patience: Duration,
    /// The longest that events are delivered, when their host does not say.
    pub(super) time_max: Duration,
}

/// Whether events are delivered before their request is over.
pub(super) fn is_wanted(target: Target, queue: &QueueSettings) -> bool {
    target != Target::Machine || queue.ack == QueueAck::Delivered
}

// === impl AtOnce ===

impl AtOnce {
    fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.reload.current().plan)
    }

    /// Delivers after the answer. What remains when the time is up goes to `overflow`, or is told as lost.
    fn promise(&self, errand: Errand, deferrer: &Deferrer) {
        let errand = errand.without_others();
        if errand.is_done() {
            return;
        }
        let until = deferrer.until.unwrap_or_else(|| Instant::now() + self.time_max);
        let plan = self.plan();
        deferrer.defer(self.errands.tasks.track_future(async move {
            errand.run(&plan, Bounds { until, is_promised: true }).await;
        }));
    }

    /// Delivers before the answer. It goes on when the sender hangs up or has waited too long: the sender comes back, and
    /// what was delivered by then is not sent again.
    async fn deliver(&self, errand: Errand, deferrer: Deferrer) -> Result<(), NotTaken> {
        if errand.is_done() {
            return Ok(());
        }
        let (plan, answer_by) = (self.plan(), Instant::now() + self.patience);
        // What was begun before the answer has time to end; what is handed over is handed over before it.
        let timeouts = plan.destinations.iter().map(|destination| destination.timeout);
        let longest = timeouts.max().filter(|_| !plan.has_overflow()).unwrap_or_default();
        let end = deferrer.until.unwrap_or_else(|| Instant::now() + self.time_max);
        let until = end.min(answer_by + longest);
        let (tell, told) = oneshot::channel();
        deferrer.defer(self.errands.tasks.track_future(async move {
            let is_delivered = errand.run(&plan, Bounds { until, is_promised: false }).await;
            // Nobody may wait any more.
            let _ = tell.send(is_delivered);
        }));
        match timeout_at(answer_by.min(until), told).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false) | Err(_)) | Err(_) => Err(NotTaken::Undelivered),
        }
    }
}

impl Intake for AtOnce {
    fn ack(&self) -> Ack {
        match self.ack {
            QueueAck::Queued => Ack::Memory,
            QueueAck::Delivered => Ack::Delivered,
        }
    }

    fn take(&self, events: Vec<Event>, deferrer: Deferrer) -> BoxFuture<'_, Result<(), NotTaken>> {
        let errand = match self.errands.take_on(events) {
            Ok(errand) => errand,
            Err(error) => return ready(Err(error.into())).boxed(),
        };
        match self.ack {
            QueueAck::Queued => {
                self.promise(errand, &deferrer);
                ready(Ok(())).boxed()
            }
            QueueAck::Delivered => self.deliver(errand, deferrer).boxed(),
        }
    }
}
