//! The house, put together in reading order: queue, workers, door, reload.

mod at_once;
mod watched;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::Desk;
#[cfg(unix)]
use crate::admin::socket;
use crate::clock::Clock;
use crate::config::Target;
use crate::deliver::errand::Errands;
use crate::deliver::overflow::OVERFLOW_SHARE;
use crate::deliver::{Fleet, FollowError};
use crate::ingest::{self, Door, Entrance, Handed, Intake, Queued, Script, ServeOptions, Settings, Tls, TlsError};
use crate::plan::{Metrics, QueueKind, QueueSettings, Server};
use crate::queue::dedup::Dedup;
use crate::queue::disk::{Disk, OpenError, Options};
use crate::queue::memory::Memory;
use crate::queue::{Ack, Queue};
use crate::reload::Reload;
use crate::segment::Policy;
use crate::sink::Sinks;
use crate::telemetry::metrics;
use at_once::AtOnce;
use watched::Watched;

/// Everything that runs, until it is told to stop.
pub struct App {
    /// Where accepted events wait.
    pub queue: Arc<dyn Queue>,
    /// The workers.
    pub fleet: Arc<Fleet>,
    /// The door.
    pub door: Arc<Door>,
    /// The file.
    pub reload: Arc<Reload>,
    /// Where commands are carried out.
    pub desk: Arc<Desk>,
    clock: Clock,
    /// What a `200` means.
    ack: Ack,
    /// Requests whose events are delivered apart, where that is so.
    errands: Option<Arc<Errands>>,
    policy: Arc<ArcSwap<Policy>>,
    tls: Option<Arc<Tls>>,
    /// Cancelled when the door is to close.
    closing: CancellationToken,
}

/// Why the house does not stand.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Certificate and key cannot be used.
    #[error("cannot speak TLS")]
    Tls(#[from] TlsError),
    /// The queue cannot be opened.
    #[error(transparent)]
    Queue(#[from] OpenError),
    /// The destinations cannot be set up.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The socket that was handed in does not tell its address.
    #[error("the socket is broken")]
    Socket(#[from] io::Error),
}

/// Renewed certificates are picked up this often.
const TLS_REFRESH: Duration = Duration::from_mins(1);

/// What is too old goes this often.
const TIDY_EVERY: Duration = Duration::from_mins(1);

/// Writing what became of the last events takes milliseconds; a disk that needs longer will not do it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// A shutdown leaves this much of its time to the connections at the door; the rest is the workers'.
const DOOR_SHARE: u32 = 4;

/// Events of a request are delivered for no longer than this, when its host does not say: what a Vercel Function has.
const ERRAND_MAX: Duration = Target::VERCEL_DURATION;

/// A function is suspended between requests, and may wake when the other end has long forgotten a connection.
const VERCEL_IDLE_MAX: Duration = Duration::from_secs(5);

/// Connections of those who watch: collectors, probes and a few people.
const WATCHERS_MAX: usize = 100;

// === impl App: starting ===

impl App {
    /// Builds the house; nothing is served before [`App::serve`], but what waits in the queue is delivered.
    ///
    /// # Errors
    /// When TLS, the queue or a destination cannot be set up.
    pub async fn new(reload: Reload, clock: Clock) -> Result<Self, StartError> {
        let plan = Arc::clone(&reload.current().plan);
        let tls = plan.server.tls.as_ref().map(|tls| Tls::open(tls.cert.clone(), tls.key.clone())).transpose()?;
        let queue = open_queue(&plan.queue, clock.now())?;
        let target = reload.target();
        let sinks = if target == Target::Machine { Sinks::default() } else { Sinks::new(VERCEL_IDLE_MAX) };
        let fleet = Arc::new(Fleet::new(Arc::clone(&queue), clock.clone(), sinks));
        fleet.follow(&plan).await?;
        let reload = Arc::new(reload);
        let policy = Arc::new(ArcSwap::new(Arc::clone(&plan.policy)));
        let closing = CancellationToken::new();
        let errands = at_once::is_wanted(target, &plan.queue).then(|| errands(&fleet, &plan.queue, &clock));
        let intake: Arc<dyn Intake> = match &errands {
            Some(errands) => Arc::new(AtOnce {
                errands: Arc::clone(errands),
                reload: Arc::clone(&reload),
                ack: plan.queue.ack,
                patience: plan.queue.ack_timeout,
                time_max: ERRAND_MAX,
            }),
            None => Arc::new(Queued(Arc::clone(&queue))),
        };
        let ack = intake.ack();
        let watched = Watched {
            reload: Arc::clone(&reload),
            queue: Arc::clone(&queue),
            fleet: Arc::clone(&fleet),
            ack,
            started_at: clock.now(),
            clock: clock.clone(),
        };
        let (for_readiness, for_metrics) = (watched.clone(), watched);
        let desk = Arc::new(Desk {
            queue: Arc::clone(&queue),
            plan: {
                let reload = Arc::clone(&reload);
                Arc::new(move || Arc::clone(&reload.current().plan))
            },
            clock: clock.clone(),
            dir: queue_dir(&plan.queue),
            is_served: true,
        });
        let handed = Handed {
            intake,
            policy: Arc::clone(&policy),
            clock: clock.clone(),
            readiness: Arc::new(move || for_readiness.readiness()),
            metrics: Arc::new(move |door| metrics::text(for_metrics.snapshot(door))),
            closing: closing.clone(),
        };
        let door = Arc::new(Door::new(handed, settings(&plan.server)));
        Ok(Self { queue, fleet, door, reload, desk, clock, ack, errands, policy, tls: tls.map(Arc::new), closing })
    }

    /// Reads the file again and puts it in force if it is new and without mistakes. Answers whether it did.
    ///
    /// Destinations come first, so that no event is let in that none of them knows of.
    pub async fn refresh(&self) -> bool {
        let Some(fresh) = self.reload.refresh() else { return false };
        if let Err(error) = self.fleet.follow(&fresh.plan).await {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::error!(error, "the new configuration cannot take effect; the old one stays in force");
            return false;
        }
        self.policy.store(Arc::clone(&fresh.plan.policy));
        self.reload.adopt(fresh);
        true
    }

    /// Serves until `stop` is cancelled, then closes the door, lets batches end and goes.
    ///
    /// # Errors
    /// When the socket is broken, or the one for metrics cannot be had.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) -> Result<(), StartError> {
        let server = self.reload.current().plan.server.clone();
        // To the very end: those who watch want to see the workers finish.
        let gone = CancellationToken::new();
        let _gone = gone.clone().drop_guard();
        if let Metrics::At(address) = &server.metrics {
            self.serve_watchers(bind(address).await?, gone)?;
        }
        #[cfg(unix)]
        let commands = self.take_commands(stop.clone()).await;
        self.announce(&server, listener.local_addr()?);
        tokio::spawn(Arc::clone(&self).watch(stop.clone()));
        tokio::spawn(tidy(Arc::clone(&self.queue), self.clock.clone(), stop.clone()));
        if let Some(tls) = &self.tls {
            tokio::spawn(refresh(Arc::clone(tls), stop.clone()));
        }
        let closing = self.closing.clone();
        tokio::spawn(async move {
            stop.cancelled().await;
            closing.cancel();
        });
        let options = ServeOptions {
            header_timeout: server.header_timeout,
            connections_max: server.connections_max,
            shutdown_timeout: server.shutdown_timeout / DOOR_SHARE,
            tls: self.tls.clone(),
            ..ServeOptions::default()
        };
        let entrance = Entrance::front(Arc::clone(&self.door));
        ingest::serve(listener, entrance, options, self.closing.clone()).await;
        self.finish(server.shutdown_timeout / DOOR_SHARE * (DOOR_SHARE - 1)).await;
        #[cfg(unix)]
        if let Some(commands) = commands {
            // It was told to stop with the door.
            let _ = commands.await;
        }
        Ok(())
    }

    /// Begins to answer those who watch, at a listener of their own, until the token is cancelled.
    fn serve_watchers(&self, listener: TcpListener, gone: CancellationToken) -> io::Result<()> {
        tracing::info!("metrics are at http://{}/metrics", listener.local_addr()?);
        let options = ServeOptions { connections_max: WATCHERS_MAX, ..ServeOptions::default() };
        tokio::spawn(ingest::serve(listener, Entrance::watch(Arc::clone(&self.door)), options, gone));
        Ok(())
    }

    async fn watch(self: Arc<Self>, stop: CancellationToken) {
        self.reload.watch(|| self.refresh(), stop).await;
    }

    /// Says that the process must end soon: senders hear `503`, and what cannot be delivered now is handed over.
    pub fn close(&self) {
        self.closing.cancel();
        if let Some(errands) = &self.errands {
            errands.hurry();
        }
    }

    /// A queue that forgets is emptied as far as the time allows; any other keeps what is not in flight.
    pub async fn finish(&self, time: Duration) {
        if let Some(errands) = &self.errands {
            errands.hurry();
            errands.tasks.close();
            // What remains is the senders': they have heard 503, or nothing.
            let _ = tokio::time::timeout(time, errands.tasks.wait()).await;
        }
        let drains = self.queue.ack() == Ack::Memory;
        let plan = Arc::clone(&self.reload.current().plan);
        let for_overflow = if drains && plan.has_overflow() { time / OVERFLOW_SHARE } else { Duration::ZERO };
        if tokio::time::timeout(time.saturating_sub(for_overflow), self.fleet.shut_down(drains)).await.is_err() {
            tracing::warn!("some requests did not end in time and are abandoned");
        }
        if drains {
            self.fleet.abandon().await;
            self.fleet.relieve(&self.queue, &plan, for_overflow).await;
        }
        if !matches!(tokio::time::timeout(FLUSH_TIMEOUT, self.queue.flush()).await, Ok(Ok(()))) {
            tracing::error!("what became of the last events could not be written: their deliveries will be repeated");
        }
        if drains {
            self.fleet.tell_lost(&self.queue, &plan).await;
        }
    }

    /// Without its socket the service is as good, but for the commands.
    #[cfg(unix)]
    async fn take_commands(&self, stop: CancellationToken) -> Option<JoinHandle<()>> {
        let path = socket::path(&self.reload.current().plan)?;
        match socket::listen(&path).await {
            Ok(listener) => Some(tokio::spawn(socket::serve(listener, Arc::clone(&self.desk), stop))),
            Err(error) => {
                tracing::warn!(%error, "no control socket: commands such as `dead-letters` need the service stopped");
                None
            }
        }
    }

    fn announce(&self, server: &Server, address: SocketAddr) {
        let scheme = if server.tls.is_some() { "https" } else { "http" };
        tracing::info!("listening on {scheme}://{address}");
        self.announce_plan();
    }

    /// Says what a `200` means here, and where events go.
    pub fn announce_plan(&self) {
        let plan = &self.reload.current().plan;
        match self.ack {
            Ack::Memory => tracing::warn!(
                ack = self.ack.as_str(),
                "events wait in memory: a 200 means they are in this process, and a crash loses them"
            ),
            Ack::Durable => tracing::info!(ack = self.ack.as_str(), "a 200 means that the events are on disk"),
            Ack::Delivered => {
                tracing::info!(ack = self.ack.as_str(), "a 200 means that every destination has the events");
            }
        }
        for destination in &plan.destinations {
            tracing::info!(destination.name = %destination.name, rules = destination.rules.len(), "destination");
        }
        for disabled in &plan.disabled {
            tracing::info!(destination.name = %disabled.name, why = disabled.why, "destination is off");
        }
    }
}

/// Listens on an address such as `0.0.0.0:8080`; port 0 lets the machine choose.
///
/// # Errors
/// When the address is taken, or not ours.
pub async fn bind(listen: &str) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen { address: listen.to_owned(), source };
    TcpListener::bind(listen).await.map_err(failed)
}

/// Opens the queue that the plan names.
///
/// # Errors
/// When the disk's cannot be opened: its folder cannot be used, or another process uses it.
pub fn open_queue(settings: &QueueSettings, now: Timestamp) -> Result<Arc<dyn Queue>, OpenError> {
    Ok(match settings.kind {
        QueueKind::Disk => Arc::new(Disk::open(disk_options(settings), now)?),
        QueueKind::Memory => {
            let dedup = Dedup::new(settings.dedup_window, settings.dedup_ids_max);
            Arc::new(Memory::new(settings.size_bytes_max, dedup))
        }
    })
}

fn errands(fleet: &Arc<Fleet>, queue: &QueueSettings, clock: &Clock) -> Arc<Errands> {
    let dedup = || Dedup::new(queue.dedup_window, queue.dedup_ids_max);
    Errands::new(Arc::clone(fleet), clock.clone(), queue.size_bytes_max, dedup)
}

fn disk_options(settings: &QueueSettings) -> Options {
    Options {
        dir: settings.dir.clone(),
        size_bytes_max: settings.size_bytes_max,
        retain: settings.retain,
        dedup_window: settings.dedup_window,
        dedup_ids_max: settings.dedup_ids_max,
        letters_retain: settings.letters_retain,
        letters_bytes_max: settings.letters_bytes_max,
    }
}

/// The folder of a queue that has one.
#[must_use]
pub fn queue_dir(settings: &QueueSettings) -> Option<PathBuf> {
    match settings.kind {
        QueueKind::Disk => Some(settings.dir.clone()),
        QueueKind::Memory => None,
    }
}

fn settings(server: &Server) -> Settings {
    let proxies = server.trusted_proxies.clone();
    Settings {
        body_timeout: server.body_timeout,
        cors_origins: server.cors_origins.clone(),
        trusted: Box::new(move |address: IpAddr| proxies.iter().any(|network| network.contains(address))),
        script: server.analytics_js.clone().map(Script::new),
        shows_metrics: server.metrics == Metrics::Here,
        ..Settings::default()
    }
}

async fn tidy(queue: Arc<dyn Queue>, clock: Clock, stop: CancellationToken) {
    loop {
        queue.tidy(clock.now()).await;
        if stop.run_until_cancelled(tokio::time::sleep(TIDY_EVERY)).await.is_none() {
            return;
        }
    }
}

async fn refresh(tls: Arc<Tls>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(TLS_REFRESH)).await.is_some() {
        if let Err(error) = tls.reload() {
            tracing::error!(%error, "the certificate cannot be renewed; the old one stays in force");
        }
    }
}
