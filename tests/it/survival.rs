//! The whole disk queue on a simulated disk that loses power, fails, runs full and tears what is being written: whatever
//! was acknowledged is delivered, waiting or dead afterwards, and what was written as done is not done again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use libroseg::attempt::Verdict;
use libroseg::queue::disk::{Disk, Options};
use libroseg::queue::{Delivery, Mode, Queue, ReadLimit};

use crate::support::queue::{active, event, failure, later, name, now, options, settled};
use crate::support::sim::{Faults, Sim};

/// Histories that are tried; more with `LIBROSEG_SEEDS`.
const SEEDS: u64 = 2000;

/// What the outside world knows of one history.
struct World {
    rng: Rng,
    sim: Sim,
    at: Timestamp,
    next_id: u32,
    appended: BTreeSet<String>,
    /// By destination.
    acknowledged: BTreeMap<&'static str, BTreeSet<String>>,
    /// What is appended is not for `b`.
    is_b_off: bool,
    delivered: BTreeMap<&'static str, BTreeSet<String>>,
    dead: BTreeMap<&'static str, BTreeSet<String>>,
    /// Delivered by the process that lives.
    unwritten: BTreeSet<(&'static str, String)>,
    /// Delivered, and said to be written.
    written: BTreeSet<(&'static str, String)>,
}

const DESTINATIONS: [&str; 2] = ["a", "b"];

const LIMIT: ReadLimit = ReadLimit { events_max: 7, bytes_max: 1 << 20, waiting_max: 20 };

fn seeds() -> u64 {
    std::env::var("LIBROSEG_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

fn tiny() -> Options {
    // Segments of 256 KiB: a history stays in a few of them.
    Options { size_bytes_max: 4 << 20, ..options(Path::new("unused")) }
}

/// Histories at a time: each waits for its threads more than it computes.
const AT_A_TIME: u64 = 32;

#[test]
fn nothing_acknowledged_is_lost_through_power_cuts_and_failing_disks() {
    std::thread::scope(|scope| {
        for first in 0..AT_A_TIME {
            scope.spawn(move || {
                let step = usize::try_from(AT_A_TIME).unwrap();
                (first..seeds()).step_by(step).for_each(try_seed);
            });
        }
    });
}

fn try_seed(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(history(seed))));
    assert!(outcome.is_ok(), "seed {seed}");
}

async fn history(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..world.rng.u32(1..6) {
        world.live().await;
        world.end_somehow();
    }
    world.sim.set_faults(Faults::default());
    world.sim.set_all_bytes(u64::MAX / 2);
    world.settle_the_account().await;
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            sim: Sim::new(seed),
            at: now(),
            next_id: 0,
            appended: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
            is_b_off: false,
            delivered: BTreeMap::new(),
            dead: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            written: BTreeSet::new(),
        }
    }

    /// One process, from its start to its end.
    async fn live(&mut self) {
        let may_fail = self.rng.bool();
        if may_fail {
            let share = self.rng.f64() * 0.05;
            self.sim.set_faults(Faults { write: share, sync: share, sync_names: share, ..Faults::default() });
        }
        if self.rng.bool() {
            self.sim.cut_power_after(self.rng.u32(1..200));
        }
        let Ok(queue) = Disk::open_on(self.sim.files(), tiny(), self.at) else { return };
        if !self.attach(&queue, false).await {
            return;
        }
        for _ in 0..self.rng.u32(1..25) {
            match self.rng.u32(0..9) {
                0 | 1 => self.append(&queue).await,
                2 | 3 => self.deliver(&queue).await,
                4 => self.flush(&queue).await,
                5 => self.put_back(&queue).await,
                6 => queue.tidy(self.at + SignedDuration::from_hours(24 * 8)).await,
                7 => {
                    let is_b_off = self.rng.bool();
                    if !self.attach(&queue, is_b_off).await {
                        return;
                    }
                }
                _ => self.at += SignedDuration::from_secs(self.rng.i64(1..20)),
            }
        }
        if self.rng.u32(0..4) == 0 {
            queue.tidy(self.at + SignedDuration::from_hours(24 * 8)).await;
            self.flush(&queue).await;
        }
    }

    /// The process ends and goes on in order, is killed, or the power goes.
    fn end_somehow(&mut self) {
        self.sim.set_faults(Faults::default());
        self.unwritten.clear();
        if self.rng.bool() { self.sim.kill() } else { self.sim.crash(&mut self.rng) }
    }

    /// Both are on, or `b` is off and events pass it by.
    async fn attach(&mut self, queue: &Disk, is_b_off: bool) -> bool {
        let mut attachments = active(&DESTINATIONS);
        if is_b_off {
            attachments[1].mode = Mode::Skips;
        }
        self.is_b_off = is_b_off;
        queue.attach(&attachments, self.at).await.is_ok()
    }

    async fn put_back(&mut self, queue: &Disk) {
        let destination = DESTINATIONS[self.rng.usize(..DESTINATIONS.len())];
        let id = format!("e{}", self.next_id);
        self.next_id += 5;
        self.appended.insert(id.clone());
        if queue.put_back(&name(destination), vec![event(&id)]).await.is_ok() {
            self.acknowledged.entry(destination).or_default().insert(id);
        }
    }

    async fn append(&mut self, queue: &Disk) {
        let ids: Vec<String> = (0..self.rng.u32(1..5)).map(|n| format!("e{}", self.next_id + n)).collect();
        self.next_id += 5;
        let events = ids.iter().map(|id| libroseg::event::Event { received_at: self.at, ..event(id) }).collect();
        self.appended.extend(ids.iter().cloned());
        if queue.append(events).await.is_ok() {
            let off = self.is_b_off.then_some("b");
            for destination in DESTINATIONS.into_iter().filter(|destination| Some(*destination) != off) {
                self.acknowledged.entry(destination).or_default().extend(ids.iter().cloned());
            }
        }
    }

    async fn deliver(&mut self, queue: &Disk) {
        let destination = DESTINATIONS[self.rng.usize(..DESTINATIONS.len())];
        let read = queue.read(&name(destination), LIMIT, self.at).await;
        let mut settlements = Vec::new();
        for delivery in &read {
            self.check(destination, delivery);
            let id = delivery.entry.event.message_id.to_string();
            let verdict = match self.rng.u32(0..10) {
                0 => continue,
                1 | 2 => Verdict::RetryAt(self.at + SignedDuration::from_secs(self.rng.i64(1..30)), failure()),
                3 => {
                    self.dead.entry(destination).or_default().insert(id);
                    Verdict::Dead(failure())
                }
                _ => {
                    self.unwritten.insert((destination, id.clone()));
                    self.delivered.entry(destination).or_default().insert(id);
                    Verdict::Delivered
                }
            };
            settlements.push(settled(delivery, verdict));
        }
        queue.settle(&name(destination), settlements, self.at).await;
        let books = queue.books(&name(destination)).unwrap();
        assert!(books.balance(), "{books:?}");
    }

    /// Only what was appended is read, and not again what was written as delivered.
    fn check(&self, destination: &'static str, delivery: &Delivery) {
        let id = delivery.entry.event.message_id.to_string();
        assert!(self.appended.contains(&id), "{id} was never appended");
        let is_done = self.written.contains(&(destination, id.clone()));
        assert!(!is_done, "{id} was delivered to {destination} and is read again");
    }

    async fn flush(&mut self, queue: &Disk) {
        if queue.flush().await.is_ok() {
            self.written.append(&mut self.unwritten);
        }
    }

    /// On a disk that works again, everything that was acknowledged has arrived, or arrives, or is a dead letter.
    async fn settle_the_account(&mut self) {
        let queue = Disk::open_on(self.sim.files(), tiny(), self.at).unwrap();
        queue.attach(&active(&DESTINATIONS), self.at).await.unwrap();
        for destination in DESTINATIONS {
            let limit = ReadLimit { events_max: 100_000, waiting_max: 100_000, ..LIMIT };
            let read = queue.read(&name(destination), limit, later(1_000_000)).await;
            let mut accounted = self.delivered.remove(destination).unwrap_or_default();
            for delivery in &read {
                self.check(destination, delivery);
                accounted.insert(delivery.entry.event.message_id.to_string());
            }
            let letters = queue.dead_letters(&name(destination), None, usize::MAX).await.unwrap();
            accounted.extend(letters.iter().map(|(_, letter)| letter.event.message_id.to_string()));
            let acknowledged = self.acknowledged.remove(destination).unwrap_or_default();
            let lost: Vec<&String> = acknowledged.difference(&accounted).collect();
            assert!(lost.is_empty(), "lost for {destination}: {lost:?}");
            let books = queue.books(&name(destination)).unwrap();
            assert!(books.balance() && books.behind == 0 && books.damaged == 0, "{books:?}");
        }
    }
}
