//! The house, put together in reading order: queue, workers, door, reload.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::attempt::DestinationName;
use crate::clock::Clock;
use crate::deliver::{Fleet, Status};
use crate::ingest::{self, Door, Handed, Script, ServeOptions, Settings, Tls, TlsError};
use crate::plan::{QueueKind, QueueSettings, Server};
use crate::queue::memory::Memory;
use crate::queue::{Ack, Queue};
use crate::reload::Reload;
use crate::segment::Policy;
use crate::sink::SinkError;

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
    /// A destination's client cannot be built.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// Renewed certificates are picked up this often.
const TLS_REFRESH: Duration = Duration::from_mins(1);

/// A shutdown leaves this much of its time to the connections at the door; the rest is the workers'.
const DOOR_SHARE: u32 = 4;

// === impl App: starting ===

impl App {
    /// Builds the house; nothing is served before [`App::serve`], but what waits in the queue is delivered.
    ///
    /// # Errors
    /// When TLS or a destination cannot be set up.
    pub async fn new(reload: Reload, clock: Clock) -> Result<Self, StartError> {
        let plan = Arc::clone(&reload.current().plan);
        let tls = plan.server.tls.as_ref().map(|tls| Tls::open(tls.cert.clone(), tls.key.clone())).transpose()?;
        let queue = open_queue(&plan.queue);
        let fleet = Arc::new(Fleet::new(Arc::clone(&queue), clock.clone()));
        fleet.follow(&plan).await?;
        let reload = Arc::new(reload);
        let policy = Arc::new(ArcSwap::new(Arc::clone(&plan.policy)));
        let closing = CancellationToken::new();
        let readiness = {
            let (reload, queue, fleet) = (Arc::clone(&reload), Arc::clone(&queue), Arc::clone(&fleet));
            Arc::new(move || readiness(&reload, queue.as_ref(), &fleet))
        };
        let handed = Handed {
            queue: Arc::clone(&queue),
            policy: Arc::clone(&policy),
            clock,
            readiness,
            closing: closing.clone(),
        };
        let door = Arc::new(Door::new(handed, settings(&plan.server)));
        Ok(Self { queue, fleet, door, reload, policy, tls: tls.map(Arc::new), closing })
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
    /// When the socket is broken.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let server = self.reload.current().plan.server.clone();
        self.announce(&server, listener.local_addr()?);
        tokio::spawn(Arc::clone(&self).watch(stop.clone()));
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
        ingest::serve(listener, ingest::router(Arc::clone(&self.door)), options, self.closing.clone()).await;
        self.finish(server.shutdown_timeout / DOOR_SHARE * (DOOR_SHARE - 1)).await;
        Ok(())
    }

    async fn watch(self: Arc<Self>, stop: CancellationToken) {
        self.reload.watch(|| self.refresh(), stop).await;
    }

    /// A queue that forgets is emptied as far as the time allows; any other keeps what is not in flight.
    pub async fn finish(&self, time: Duration) {
        let drains = self.queue.ack() == Ack::Memory;
        if tokio::time::timeout(time, self.fleet.shut_down(drains)).await.is_err() {
            tracing::warn!("some requests did not end in time and are abandoned");
        }
        for destination in &self.reload.current().plan.destinations {
            let waiting = self.queue.books(&destination.name).map_or(0, |books| books.waiting());
            if drains && waiting > 0 {
                tracing::error!(destination.name = %destination.name, events = waiting, "undelivered events are lost");
            }
        }
    }

    fn announce(&self, server: &Server, address: SocketAddr) {
        let plan = &self.reload.current().plan;
        let scheme = if server.tls.is_some() { "https" } else { "http" };
        tracing::info!("listening on {scheme}://{address}");
        match self.queue.ack() {
            Ack::Memory => tracing::warn!(
                ack = self.queue.ack().as_str(),
                "events wait in memory: a 200 means they are in this process, and a crash loses them"
            ),
            Ack::Durable => tracing::info!(ack = self.queue.ack().as_str(), "a 200 means that the events are on disk"),
        }
        for destination in &plan.destinations {
            tracing::info!(destination.name = %destination.name, rules = destination.rules.len(), "destination");
        }
        for (name, why) in &plan.disabled {
            tracing::info!(destination.name = %name, why, "destination is off");
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

fn open_queue(settings: &QueueSettings) -> Arc<dyn Queue> {
    match settings.kind {
        QueueKind::Memory => Arc::new(Memory::new(settings.size_bytes_max)),
    }
}

fn settings(server: &Server) -> Settings {
    let proxies = server.trusted_proxies.clone();
    Settings {
        body_timeout: server.body_timeout,
        cors_origins: server.cors_origins.clone(),
        trusted: Box::new(move |address: IpAddr| proxies.iter().any(|network| network.contains(address))),
        script: server.analytics_js.clone().map(Script::new),
        ..Settings::default()
    }
}

async fn refresh(tls: Arc<Tls>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(TLS_REFRESH)).await.is_some() {
        if let Err(error) = tls.reload() {
            tracing::error!(%error, "the certificate cannot be renewed; the old one stays in force");
        }
    }
}

// === /ready ===

fn readiness(reload: &Reload, queue: &dyn Queue, fleet: &Fleet) -> Value {
    let loaded = reload.current();
    let statuses = fleet.statuses();
    let destinations: serde_json::Map<String, Value> = loaded
        .plan
        .destinations
        .iter()
        .map(|d| (d.name.to_string(), destination(&d.name, queue, statuses.get(&d.name))))
        .collect();
    let config = match reload.broken() {
        Some(broken) => json!({ "state": "broken", "errors": broken.errors, "since": broken.at.to_string() }),
        None => json!({ "state": "ok" }),
    };
    json!({
        "ready": true,
        "ack": queue.ack().as_str(),
        "queue": { "size_bytes": queue.size_bytes() },
        "plan": { "fingerprint": format!("{:016x}", loaded.plan.fingerprint), "loaded_at": loaded.at.to_string() },
        "config": config,
        "destinations": destinations,
    })
}

fn destination(name: &DestinationName, queue: &dyn Queue, status: Option<&Status>) -> Value {
    let books = queue.books(name).unwrap_or_default();
    let rest = status.and_then(|status| status.rest.as_ref());
    json!({
        "state": rest.map_or("ok", |rest| rest.why.as_str()),
        "rests_until": rest.map(|rest| rest.until.to_string()),
        "accepted": books.accepted,
        "delivered": books.delivered,
        "filtered": books.filtered,
        "dropped": books.dropped,
        "waiting": books.waiting(),
        "dead": books.dead,
    })
}
