//! Whose turn it is: events of one key (`order_by`) go one after another, in the order of acceptance.
//!
//! Bookkeeping only: it is told where events are and says which are to be moved. It knows no clock, sends nothing and
//! keeps no event.
//!
//! The unsettled events of a key stand in a line, by their place in the log. The first one goes; while it is on its way
//! those behind it are parked with the worker, and while it waits in the queue they wait there too. So an event is
//! parked only behind one that is on its way, whose reply will move the line.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::queue::Offset;

/// What an event's `order_by` came to, as a hash: events make texts of any length, and there may be millions of them.
/// Two texts that share a hash would wait for each other, and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

/// Where the unsettled events of each key are, as far as a worker has seen them.
#[derive(Debug, Default)]
pub struct Order {
    lines: BTreeMap<Key, Line>,
    keys: BTreeMap<Offset, Key>,
    parked: Room,
    moves: Vec<Move>,
}

/// An event that is to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// It is its turn.
    Go(Offset),
    /// It is to wait in the queue.
    Back {
        /// Which.
        offset: Offset,
        /// The one of its key that waits in the queue before it; `None`: there was no room to park it.
        behind: Option<Offset>,
    },
}

/// How much may be parked, or is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Events.
    pub events: usize,
    /// Bytes of them.
    pub bytes: usize,
}

/// The unsettled events of one key.
#[derive(Debug, Default)]
struct Line {
    /// One at most, but for those that were out when the rules changed.
    on_their_way: BTreeSet<Offset>,
    /// Held by the worker, with their bytes.
    parked: BTreeMap<Offset, usize>,
    /// In the queue.
    waiting: BTreeSet<Offset>,
}

// === impl Key ===

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        let mut hash = DefaultHasher::new();
        text.hash(&mut hash);
        Self(hash.finish())
    }
}

// === impl Order ===

impl Order {
    /// An event of this key waits in the queue.
    pub fn learn_waiting(&mut self, offset: Offset, key: Key) {
        self.line(offset, key).waiting.insert(offset);
    }

    /// An event of this key is on its way already, whosever turn it is.
    pub fn learn_on_its_way(&mut self, offset: Offset, key: Key) {
        self.line(offset, key).on_their_way.insert(offset);
    }

    /// An event that the worker holds asks for its turn; the answer is among [`Order::moves`], or it is parked.
    pub fn ask(&mut self, offset: Offset, key: Key, size_bytes: usize, room: Room) {
        if let Some(before) = self.take_out(offset).filter(|before| *before != key) {
            self.advance(before);
        }
        let is_full = self.is_crowded(Room { events: 1, bytes: size_bytes }, room);
        let line = self.line(offset, key);
        if is_full && !line.is_next(offset) && !line.has_waiting_before(offset) {
            line.waiting.insert(offset);
            self.moves.push(Move::Back { offset, behind: None });
            return;
        }
        line.parked.insert(offset, size_bytes);
        self.parked.events += 1;
        self.parked.bytes += size_bytes;
        self.advance(key);
    }

    /// An event that the worker had waits in the queue again.
    pub fn waits(&mut self, offset: Offset) {
        let Some(key) = self.take_out(offset) else { return };
        self.learn_waiting(offset, key);
        self.advance(key);
    }

    /// An event is settled for good, or gone.
    pub fn is_over(&mut self, offset: Offset) {
        if let Some(key) = self.take_out(offset) {
            self.advance(key);
        }
    }

    /// What is to be moved since this was last asked.
    pub fn moves(&mut self) -> Vec<Move> {
        std::mem::take(&mut self.moves)
    }

    /// Whether anybody is parked.
    #[must_use]
    pub fn has_parked(&self) -> bool {
        self.parked.events > 0
    }

    /// Whether there is no room for so much more.
    #[must_use]
    pub fn is_crowded(&self, more: Room, room: Room) -> bool {
        self.parked.events + more.events > room.events || self.parked.bytes + more.bytes > room.bytes
    }

    fn line(&mut self, offset: Offset, key: Key) -> &mut Line {
        self.keys.insert(offset, key);
        self.lines.entry(key).or_default()
    }

    /// Takes an event out of its line, wherever it stands. The line does not move up yet.
    fn take_out(&mut self, offset: Offset) -> Option<Key> {
        let key = self.keys.remove(&offset)?;
        let line = self.lines.get_mut(&key)?;
        line.on_their_way.remove(&offset);
        line.waiting.remove(&offset);
        if let Some(size_bytes) = line.parked.remove(&offset) {
            self.parked.events -= 1;
            self.parked.bytes -= size_bytes;
        }
        Some(key)
    }

    /// Lets the first of a line go if nobody is on the way, and sends those back that stand behind one in the queue.
    fn advance(&mut self, key: Key) {
        let Some(line) = self.lines.get_mut(&key) else { return };
        let (go, back) = (line.let_go(), line.send_back());
        if line.is_empty() {
            self.lines.remove(&key);
        }
        for (moved, size_bytes) in go.iter().chain(&back) {
            self.parked.events -= 1;
            self.parked.bytes -= size_bytes;
            self.moves.push(*moved);
        }
    }
}

// === impl Line ===

impl Line {
    fn is_empty(&self) -> bool {
        self.on_their_way.is_empty() && self.parked.is_empty() && self.waiting.is_empty()
    }

    /// Whether an event that is not in the line could go at once.
    fn is_next(&self, offset: Offset) -> bool {
        let has_parked_before = self.parked.first_key_value().is_some_and(|(first, _)| *first < offset);
        self.on_their_way.is_empty() && !has_parked_before && !self.has_waiting_before(offset)
    }

    fn has_waiting_before(&self, offset: Offset) -> bool {
        self.waiting.first().is_some_and(|first| *first < offset)
    }

    fn let_go(&mut self) -> Option<(Move, usize)> {
        let (first, size_bytes) = self.parked.first_key_value().map(|(offset, size_bytes)| (*offset, *size_bytes))?;
        if !self.on_their_way.is_empty() || self.has_waiting_before(first) {
            return None;
        }
        self.parked.remove(&first);
        self.on_their_way.insert(first);
        Some((Move::Go(first), size_bytes))
    }

    fn send_back(&mut self) -> Vec<(Move, usize)> {
        let Some(head) = self.waiting.first().copied() else { return Vec::new() };
        let behind = self.parked.split_off(&head);
        self.waiting.extend(behind.keys());
        let back = |(offset, size_bytes)| (Move::Back { offset, behind: Some(head) }, size_bytes);
        behind.into_iter().map(back).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::{Key, Move, Order, Room};
    use crate::queue::Offset;

    const ROOM: Room = Room { events: 2, bytes: 1000 };

    fn ask(order: &mut Order, offset: u64, key: &str) -> Vec<Move> {
        order.ask(Offset(offset), Key::from(key), 1, ROOM);
        order.moves()
    }

    fn go(offset: u64) -> Move {
        Move::Go(Offset(offset))
    }

    fn back(offset: u64, behind: Option<u64>) -> Move {
        Move::Back { offset: Offset(offset), behind: behind.map(Offset) }
    }

    #[test]
    fn the_first_of_each_key_goes_and_the_next_when_it_is_over() {
        let mut order = Order::default();
        assert_eq!(ask(&mut order, 1, "a"), [go(1)]);
        assert_eq!(ask(&mut order, 2, "a"), []);
        assert_eq!(ask(&mut order, 3, "b"), [go(3)]);
        order.is_over(Offset(1));
        assert_eq!(order.moves(), [go(2)]);
        assert!(!order.has_parked());
    }

    #[test]
    fn those_behind_one_that_waits_wait_with_it() {
        let mut order = Order::default();
        ask(&mut order, 1, "a");
        ask(&mut order, 2, "a");
        ask(&mut order, 3, "a");
        order.waits(Offset(1));
        assert_eq!(order.moves(), [back(2, Some(1)), back(3, Some(1))]);
        assert_eq!(ask(&mut order, 4, "a"), [back(4, Some(1))]);
        assert_eq!(ask(&mut order, 1, "a"), [go(1)]);
        assert_eq!(ask(&mut order, 3, "a"), [back(3, Some(2))], "it was read before the one it follows");
    }

    #[test]
    fn no_more_are_parked_than_there_is_room_for() {
        let mut order = Order::default();
        for offset in 1..=3 {
            ask(&mut order, offset, "a");
        }
        assert_eq!(ask(&mut order, 4, "a"), [back(4, None)]);
        assert_eq!(ask(&mut order, 5, "b"), [go(5)], "others are not held up");
        order.is_over(Offset(1));
        assert_eq!(order.moves(), [go(2)]);
        assert_eq!(ask(&mut order, 6, "a"), [back(6, Some(4))], "it does not overtake the one without room");
    }

    #[test]
    fn what_was_out_under_other_keys_comes_back_before_the_next_goes() {
        let mut order = Order::default();
        order.learn_on_its_way(Offset(1), Key::from("a"));
        order.learn_on_its_way(Offset(3), Key::from("a"));
        assert_eq!(ask(&mut order, 2, "a"), []);
        order.is_over(Offset(1));
        assert_eq!(order.moves(), []);
        assert_eq!(ask(&mut order, 3, "a"), [go(2)], "it is looked at again, and is not the first");
        order.is_over(Offset(2));
        assert_eq!(order.moves(), [go(3)]);
    }

    /// A queue, a worker and a destination that fails as it is told.
    #[derive(Default)]
    struct World {
        keys: Vec<u8>,
        now: u64,
        next: u64,
        later: BTreeMap<u64, u64>,
        parked: BTreeSet<u64>,
        out: BTreeSet<u64>,
        order: Order,
        delivered: Vec<u64>,
        dead: BTreeSet<u64>,
    }

    impl World {
        fn key(&self, offset: u64) -> Key {
            Key::from(self.keys[usize::try_from(offset).unwrap()].to_string().as_str())
        }

        fn read(&mut self, events_max: usize) {
            let mut due: Vec<(u64, u64)> =
                self.later.iter().filter(|(_, due)| **due <= self.now).map(|(offset, due)| (*due, *offset)).collect();
            due.sort_unstable();
            let mut read: Vec<u64> = due.into_iter().map(|(_, offset)| offset).take(events_max).collect();
            while read.len() < events_max && self.next < self.keys.len() as u64 {
                read.push(self.next);
                self.next += 1;
            }
            read.sort_unstable();
            for offset in read {
                self.later.remove(&offset);
                self.parked.insert(offset);
                self.order.ask(Offset(offset), self.key(offset), 1, ROOM);
            }
            self.follow();
        }

        fn follow(&mut self) {
            loop {
                let moves = self.order.moves();
                if moves.is_empty() {
                    return;
                }
                for moved in moves {
                    self.make(moved);
                }
            }
        }

        fn make(&mut self, moved: Move) {
            match moved {
                Move::Go(Offset(offset)) => {
                    assert!(self.parked.remove(&offset));
                    let shares = |other: &u64| self.key(*other) == self.key(offset);
                    assert!(!self.out.iter().any(shares), "two of a key at a time");
                    self.out.insert(offset);
                }
                Move::Back { offset: Offset(offset), behind } => {
                    assert!(self.parked.remove(&offset));
                    let due = behind.map_or(self.now + 1, |Offset(head)| self.later[&head]);
                    self.later.insert(offset, due);
                    self.order.waits(Offset(offset));
                }
            }
        }

        /// One that is out comes back: 0 to 2 delivered, 3 dead, else to be tried again after so long.
        fn end(&mut self, nth: usize, how: u64) {
            let Some(offset) = self.out.iter().nth(nth % self.out.len().max(1)).copied() else { return };
            self.out.remove(&offset);
            match how {
                0..=2 => self.delivered.push(offset),
                3 => assert!(self.dead.insert(offset)),
                wait => {
                    self.later.insert(offset, self.now + wait);
                    self.order.waits(Offset(offset));
                    return self.follow();
                }
            }
            self.order.is_over(Offset(offset));
            self.follow();
        }

        /// The worker panicked, or the process died: what was in hand is handed out again.
        fn restart(&mut self) {
            let in_hand: Vec<u64> = self.out.iter().chain(&self.parked).copied().collect();
            self.later.extend(in_hand.into_iter().map(|offset| (offset, 0)));
            self.out.clear();
            self.parked.clear();
            self.learn();
        }

        /// New rules of the same keys.
        fn reload(&mut self) {
            self.learn();
            for offset in self.parked.clone() {
                self.order.ask(Offset(offset), self.key(offset), 1, ROOM);
            }
            self.follow();
        }

        fn learn(&mut self) {
            self.order = Order::default();
            for offset in &self.out {
                self.order.learn_on_its_way(Offset(*offset), self.key(*offset));
            }
            for offset in self.later.keys() {
                self.order.learn_waiting(Offset(*offset), self.key(*offset));
            }
        }

        fn is_done(&self) -> bool {
            self.delivered.len() + self.dead.len() == self.keys.len()
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_each_key_is_delivered_in_order_and_to_the_end(
            keys in proptest::collection::vec(0_u8..4, 1..40),
            steps in proptest::collection::vec((0_u8..12, 0_usize..8, 0_u64..9), 0..200),
        ) {
            let mut world = World { keys, ..World::default() };
            for (step, n, how) in steps {
                match step {
                    0..=3 => world.read(n),
                    4..=8 => world.end(n, how),
                    9 => world.now += how,
                    10 => world.restart(),
                    _ => world.reload(),
                }
            }
            // From here on nothing fails.
            let mut rounds = 0;
            while !world.is_done() {
                world.read(3);
                world.end(0, 0);
                world.now += 1;
                rounds += 1;
                prop_assert!(rounds < 400, "somebody starves: {:?}", world.order);
            }
            for key in (0..4_u8).map(|key| Key::from(key.to_string().as_str())) {
                let of_key: Vec<u64> =
                    world.delivered.iter().copied().filter(|offset| world.key(*offset) == key).collect();
                prop_assert!(of_key.is_sorted(), "{:?}", of_key);
            }
            prop_assert!(world.order.lines.is_empty() && world.order.keys.is_empty() && !world.order.has_parked());
        }
    }
}
