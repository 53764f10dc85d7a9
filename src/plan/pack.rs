//! Items become batches: the same address, so many, so large, so old.
//!
//! Pure: the packer is told the time. Whoever holds it asks [`Packer::next_due`] when to come back.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::batch::{Address, Batch, Item};
use super::{BatchSettings, Destination, Rule};

/// The open batches of one destination. `T` is whatever travels with an item.
pub struct Packer<T> {
    destination: Arc<Destination>,
    open: BTreeMap<Arc<Address>, Open<T>>,
    /// Batches opened so far.
    opened: u64,
}

struct Open<T> {
    batch: Batch<T>,
    /// Which one it was, so that batches go in the order in which they were opened.
    number: u64,
    size_bytes: usize,
    due: Timestamp,
}

// === impl Packer ===

impl<T> Packer<T> {
    /// Nothing open yet.
    #[must_use]
    pub fn new(destination: Arc<Destination>) -> Self {
        Self { destination, open: BTreeMap::new(), opened: 0 }
    }

    /// Adds an item; answers the batches that this completes, in the order they should go.
    pub fn push(&mut self, item: Item, rider: T, now: Timestamp) -> Vec<Batch<T>> {
        let destination = Arc::clone(&self.destination);
        let rule = &destination.rules[item.rule];
        let Some(settings) = &rule.batch else {
            return vec![Batch { items: vec![(item, rider)], opened_at: now }];
        };
        let size_bytes = item.size_bytes() + 1;
        let address = Arc::clone(&item.address);
        let mut complete = Vec::new();
        if self.open.get(&address).is_some_and(|open| open.size_bytes + size_bytes > settings.bytes_max) {
            complete.extend(self.close(&address));
        }
        let opened = &mut self.opened;
        let open = self.open.entry(Arc::clone(&address)).or_insert_with(|| {
            *opened += 1;
            Open::new(*opened, envelope_bytes(&destination, rule, settings, now), settings, now)
        });
        open.batch.items.push((item, rider));
        open.size_bytes += size_bytes;
        if open.batch.items.len() >= settings.events_max || open.size_bytes >= settings.bytes_max {
            complete.extend(self.close(&address));
        }
        complete
    }

    /// The batches whose first item has waited long enough.
    pub fn due(&mut self, now: Timestamp) -> Vec<Batch<T>> {
        self.take(|open| open.due <= now)
    }

    /// All open batches: nothing more is coming.
    pub fn flush(&mut self) -> Vec<Batch<T>> {
        self.take(|_| true)
    }

    /// When the next batch is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.open.values().map(|open| open.due).min()
    }

    /// Whether no batch is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn take(&mut self, is_wanted: impl Fn(&Open<T>) -> bool) -> Vec<Batch<T>> {
        let mut taken: Vec<Open<T>> =
            self.open.extract_if(.., |_, open| is_wanted(open)).map(|(_, open)| open).collect();
        taken.sort_by_key(|open| open.number);
        taken.into_iter().map(|open| open.batch).collect()
    }

    fn close(&mut self, address: &Arc<Address>) -> Option<Batch<T>> {
        self.open.remove(address).map(|open| open.batch)
    }
}

// === impl Open ===

impl<T> Open<T> {
    fn new(number: u64, size_bytes: usize, settings: &BatchSettings, now: Timestamp) -> Self {
        let age_max = SignedDuration::try_from(settings.age_max).unwrap_or(SignedDuration::MAX);
        let due = now.saturating_add(age_max).unwrap_or(now);
        Self { batch: Batch { items: Vec::new(), opened_at: now }, number, size_bytes, due }
    }
}

/// What the envelope adds to the items. An envelope that fails without items counts as nothing: the request will say.
fn envelope_bytes(destination: &Destination, rule: &Rule, settings: &BatchSettings, now: Timestamp) -> usize {
    destination.envelope(rule, settings, Vec::new(), now).map_or(0, |body| body.len())
}
