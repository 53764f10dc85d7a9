use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use jiff::SignedDuration;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::super::files::Room;
use super::*;
use crate::attempt::{ItemKey, Reason, SentRequest, Trace};
use crate::event::{Event, Kind};

// === a disk that fails and loses power ===

/// A folder in memory; clones share it.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Folder>>);

#[derive(Debug, Default)]
struct Folder {
    files: BTreeMap<String, Stored>,
    names_are_durable: bool,
    /// Writes that still succeed; `None`: all of them.
    writes_left: Option<u32>,
    syncs: u32,
    written_bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct Stored {
    durable: Vec<u8>,
    now: Vec<u8>,
    /// What happened since `durable`.
    unsynced: Vec<Op>,
}

#[derive(Clone, Debug)]
enum Op {
    SetLen(usize),
    Write(usize, Vec<u8>),
}

#[derive(Debug)]
struct Handle {
    disk: Disk,
    name: String,
}

/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;

impl Disk {
    fn folder(&self) -> MutexGuard<'_, Folder> {
        self.0.lock().unwrap()
    }

    fn files(&self) -> Arc<dyn Files> {
        Arc::new(self.clone())
    }

    fn fail_after(&self, writes: u32) {
        self.folder().writes_left = Some(writes);
    }

    fn heal(&self) {
        self.folder().writes_left = None;
    }

    /// The disk after a loss of power: of what was not synced, some sectors were written and some not.
    fn after_power_loss(&self, mut survives: impl FnMut() -> bool) -> Self {
        let folder = self.folder();
        let mut files = BTreeMap::new();
        for (name, stored) in folder.files.iter().filter(|_| folder.names_are_durable) {
            let bytes = stored.after_power_loss(&mut survives);
            files.insert(name.clone(), Stored { durable: bytes.clone(), now: bytes, unsynced: Vec::new() });
        }
        Self(Arc::new(Mutex::new(Folder { files, names_are_durable: true, ..Folder::default() })))
    }
}

impl Folder {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.writes_left {
            None => Ok(()),
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl Stored {
    fn apply(&mut self, op: Op) {
        op.apply(&mut self.now);
        self.unsynced.push(op);
    }

    fn after_power_loss(&self, survives: &mut impl FnMut() -> bool) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        // A journal keeps the order of lengths: once one is lost, so are those after it.
        let mut lengths_survive = true;
        for op in &self.unsynced {
            match op {
                Op::SetLen(_) => {
                    lengths_survive = lengths_survive && survives();
                    if lengths_survive {
                        op.clone().apply(&mut bytes);
                    }
                }
                Op::Write(at, data) => {
                    for (sector, data) in data.chunks(SECTOR_BYTES).enumerate() {
                        let at = at + sector * SECTOR_BYTES;
                        if at + data.len() <= bytes.len() && survives() {
                            bytes[at..at + data.len()].copy_from_slice(data);
                        }
                    }
                }
            }
        }
        bytes
    }
}

impl Op {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => bytes.resize(*len, 0),
            Self::Write(at, data) => {
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl Files for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.folder().files.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut folder = self.folder();
        if !folder.files.contains_key(name) {
            folder.spend()?;
            folder.files.insert(name.to_owned(), Stored::default());
            folder.names_are_durable = false;
        }
        Ok(Box::new(Handle { disk: self.clone(), name: name.to_owned() }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder().files.remove(name);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut folder = self.folder();
        folder.spend()?;
        folder.names_are_durable = true;
        Ok(())
    }

    fn room(&self) -> io::Result<Room> {
        Ok(Room { free_bytes: u64::MAX, all_bytes: u64::MAX })
    }
}

impl Handle {
    fn change(&self, op: Op) -> io::Result<()> {
        let mut folder = self.disk.folder();
        folder.spend()?;
        if let Op::Write(_, data) = &op {
            folder.written_bytes += data.len() as u64;
        }
        folder.files.get_mut(&self.name).unwrap().apply(op);
        Ok(())
    }
}

impl File for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.folder().files[&self.name].now.len() as u64)
    }

    fn read_at(&self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        let folder = self.disk.folder();
        let bytes = folder.files[&self.name].now.get(usize::try_from(position).unwrap()..).unwrap_or_default();
        let len = bytes.len().min(out.len());
        out[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(Op::Write(usize::try_from(position).unwrap(), bytes.to_vec()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Op::SetLen(usize::try_from(len).unwrap()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut folder = self.disk.folder();
        folder.spend()?;
        folder.syncs += 1;
        let stored = folder.files.get_mut(&self.name).unwrap();
        stored.durable = stored.now.clone();
        stored.unsynced.clear();
        Ok(())
    }
}

// === what is written ===

fn any_time() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.as_nanosecond()..=Timestamp::MAX.as_nanosecond())
        .prop_map(|nanoseconds| Timestamp::from_nanosecond(nanoseconds).unwrap())
}

fn any_ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    vec(any::<(u64, u64)>(), 0..3)
}

fn any_place() -> impl Strategy<Value = PlaceRow> {
    let counts = any::<[u64; 11]>();
    (counts, any_ranges(), any_ranges(), proptest::option::of(any_time())).prop_map(|(n, holes, skips, detached_at)| {
        PlaceRow {
            begin: n[0],
            cursor: n[1],
            history_end: n[2],
            holes,
            skips,
            detached_at,
            absent: n[3],
            delivered: n[4],
            filtered: n[5],
            dropped: n[6],
            damaged: n[7],
            dead: n[8],
            letters: n[9],
            letters_bytes: n[10],
        }
    })
}

fn any_reason() -> impl Strategy<Value = Reason> {
    prop_oneof![
        any::<u16>().prop_map(Reason::Status),
        Just(Reason::Response),
        Just(Reason::Timeout),
        Just(Reason::Connection),
        Just(Reason::Io),
        Just(Reason::Mapping),
        Just(Reason::Plan),
        Just(Reason::Unreadable),
    ]
}

fn any_duration() -> impl Strategy<Value = SignedDuration> {
    (any::<i64>(), 0..1_000_000_000i32).prop_map(|(seconds, nanoseconds)| {
        let nanoseconds = if seconds < 0 { -nanoseconds } else { nanoseconds };
        SignedDuration::new(seconds, nanoseconds)
    })
}

fn any_request() -> impl Strategy<Value = SentRequest> {
    let headers = vec(any::<(String, String)>(), 0..3);
    (any::<(String, String, Option<String>, usize)>(), headers)
        .prop_map(|((method, url, body, items), headers)| SentRequest { method, url, headers, body, items })
}

fn any_failure() -> impl Strategy<Value = Failure> {
    let request = proptest::option::of(any_request());
    let trace = (any::<(Option<String>, u64)>(), request)
        .prop_map(|((rule, config), request)| Box::new(Trace { rule, config, request }));
    (any_reason(), any::<String>(), proptest::option::of(any_duration()), proptest::option::of(trace))
        .prop_map(|(reason, detail, retry_after, trace)| Failure { reason, detail, retry_after, trace })
}

fn any_attempts() -> impl Strategy<Value = Attempts> {
    let key = || any::<(u64, u32)>().prop_map(|(rule, index)| ItemKey { rule, index });
    (any::<u32>(), proptest::option::of(any_time()), vec(key(), 0..3), vec((key(), any_failure()), 0..2))
        .prop_map(|(count, first_at, done, refused)| Attempts { count, first_at, done, refused })
}

fn any_waiting() -> impl Strategy<Value = WaitingRow> {
    (any_time(), any::<u64>(), any_attempts()).prop_map(|(due, size_bytes, attempts)| WaitingRow {
        due,
        size_bytes,
        attempts,
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    let kind = proptest::sample::select(&Kind::ALL[..]);
    // A letter may be there because its text is damaged: then it is not even UTF-8.
    (any::<(String, String)>(), kind, any_time(), vec(any::<u8>(), 0..200)).prop_map(
        |((source, message_id), kind, received_at, json)| Event {
            source: source.into(),
            kind,
            message_id: message_id.into(),
            received_at,
            json: Bytes::from(json),
        },
    )
}

fn any_letter() -> impl Strategy<Value = DeadLetter> {
    (any_name(), any_event(), any_failure(), any_attempts(), any_time()).prop_map(
        |(destination, event, failure, attempts, died_at)| DeadLetter {
            destination,
            event,
            failure,
            attempts,
            died_at,
        },
    )
}

fn any_name() -> impl Strategy<Value = DestinationName> {
    proptest::sample::select(vec!["amplitude", "a", "bigquery", ""]).prop_map(DestinationName::from)
}

fn any_changes() -> impl Strategy<Value = Changes> {
    let offset = (0..40u64).prop_map(Offset);
    let places = btree_map(any_name(), any_place(), 0..3);
    let waiting = btree_map((any_name(), offset), proptest::option::of(any_waiting()), 0..12);
    let letters = vec(any_letter(), 0..3);
    let letters_removed = vec((any_name(), (0..20u64).prop_map(LetterId)), 0..3);
    let forgotten = proptest::option::weighted(0.1, any_name());
    (places, waiting, letters, letters_removed, forgotten).prop_map(
        |(places, waiting, letters, letters_removed, forgotten)| Changes {
            places,
            waiting,
            letters: letters.into_iter().map(|letter| (LetterId(0), letter)).collect(),
            letters_removed,
            forgotten: forgotten.into_iter().collect(),
            begins: false,
        },
    )
}

/// What a database should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    places: BTreeMap<DestinationName, PlaceRow>,
    waiting: BTreeMap<(DestinationName, Offset), WaitingRow>,
    letters: BTreeMap<LetterId, DeadLetter>,
    next_letter: u64,
}

impl Model {
    fn apply(&mut self, changes: &Changes) {
        for gone in &changes.forgotten {
            self.places.remove(gone);
            self.waiting.retain(|(name, _), _| name != gone);
            self.letters.retain(|_, letter| letter.destination != *gone);
        }
        self.places.extend(changes.places.clone());
        for (key, row) in &changes.waiting {
            match row {
                Some(row) => drop(self.waiting.insert(key.clone(), row.clone())),
                None => drop(self.waiting.remove(key)),
            }
        }
        for (id, letter) in &changes.letters {
            self.letters.insert(*id, letter.clone());
            self.next_letter = self.next_letter.max(id.0 + 1);
        }
        for (name, id) in &changes.letters_removed {
            if self.letters.get(id).is_some_and(|letter| letter.destination == *name) {
                self.letters.remove(id);
            }
        }
    }
}

/// Gives letters ids as a queue does, and every waiting event a place.
fn in_order(all: Vec<Changes>) -> Vec<Changes> {
    let mut next = 0;
    let mut changes = all;
    for changes in &mut changes {
        for (id, _) in &mut changes.letters {
            *id = LetterId(next);
            next += 1;
        }
        let holders = changes.waiting.keys().map(|(name, _)| name).chain(&changes.forgotten);
        for name in holders.cloned().collect::<Vec<_>>() {
            changes.places.entry(name).or_default();
        }
    }
    changes
}

/// What a database does hold.
fn held(state: &State, loaded: &Loaded) -> Model {
    let mut model = Model { next_letter: loaded.next_letter, ..Model::default() };
    for (name, (place, waiting)) in &loaded.places {
        model.places.insert(name.clone(), place.clone());
        for (offset, row) in waiting {
            model.waiting.insert((name.clone(), *offset), row.clone());
        }
    }
    for name in ["amplitude", "a", "bigquery", ""] {
        model.letters.extend(state.letters(&name.into(), None, usize::MAX).unwrap());
    }
    let by_age = state.oldest_letters(usize::MAX).unwrap();
    let expected = model
        .letters
        .iter()
        .map(|(id, letter)| (letter.destination.clone(), *id, letter.died_at, letter_bytes(letter)));
    assert_eq!(by_age, expected.collect::<Vec<_>>());
    model
}

fn reopened(disk: &Disk) -> Model {
    let (state, loaded) = State::open(&disk.files()).unwrap();
    held(&state, &loaded)
}

fn letter(destination: &str, text: &str) -> DeadLetter {
    DeadLetter {
        destination: destination.into(),
        event: Event {
            source: "web".into(),
            kind: Kind::Track,
            message_id: "m1".into(),
            received_at: "2026-11-22T21:05:58.250Z".parse().unwrap(),
            json: Bytes::copy_from_slice(text.as_bytes()),
        },
        failure: Failure::new(Reason::Status(400), "no"),
        attempts: Attempts::default(),
        died_at: "2026-11-22T21:06:00Z".parse().unwrap(),
    }
}

fn place(cursor: u64) -> Changes {
    let row = PlaceRow { cursor, ..PlaceRow::default() };
    Changes { places: [("a".into(), row)].into(), ..Changes::default() }
}

fn letters(ids: impl IntoIterator<Item = u64>) -> Changes {
    let letters = ids.into_iter().map(|id| (LetterId(id), letter("a", "{}"))).collect();
    Changes { letters, ..Changes::default() }
}

fn ids(state: &State, after: Option<u64>, letters_max: usize) -> Vec<u64> {
    let letters = state.letters(&"a".into(), after.map(LetterId), letters_max).unwrap();
    letters.into_iter().map(|(id, _)| id.0).collect()
}

/// Writes a row past our own code.
fn scribble(disk: &Disk, work: impl FnOnce(&WriteTransaction)) {
    let (state, _) = State::open(&disk.files()).unwrap();
    state
        .with(|database| {
            let transaction = begin(database)?;
            work(&transaction);
            Ok(transaction.commit()?)
        })
        .unwrap();
}

// === tests ===

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_place_is_read_as_it_was_written(row in any_place()) {
        prop_assert_eq!(rows::read_place(&rows::write_place(&row)).unwrap(), row);
    }

    #[test]
    fn every_waiting_event_is_read_as_it_was_written(row in any_waiting()) {
        prop_assert_eq!(rows::read_waiting(&rows::write_waiting(&row)).unwrap(), row);
    }

    #[test]
    fn every_dead_letter_is_read_as_it_was_written(letter in any_letter()) {
        let bytes = rows::write_letter(&letter);
        let read = rows::read_letter(letter.destination.clone(), &bytes, &letter.event.json).unwrap();
        prop_assert_eq!(read, letter);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_was_committed_is_there_when_it_is_opened_again(all in vec(any_changes(), 1..6).prop_map(in_order)) {
        let disk = Disk::default();
        let mut model = Model::default();
        for changes in all {
            let (mut state, _) = State::open(&disk.files()).unwrap();
            state.commit(&changes).unwrap();
            model.apply(&changes);
            drop(state);
            prop_assert_eq!(reopened(&disk), model.clone());
        }
    }

    #[test]
    fn a_loss_of_power_at_any_write_loses_nothing_that_was_committed(
        all in vec(any_changes(), 1..6).prop_map(in_order),
        writes in 0u32..120,
        seed in any::<u64>(),
    ) {
        let disk = Disk::default();
        disk.fail_after(writes);
        let mut before = Model::default();
        let mut after = Model::default();
        if let Ok((mut state, _)) = State::open(&disk.files()) {
            for changes in all {
                after.apply(&changes);
                if state.commit(&changes).is_err() {
                    break;
                }
                before = after.clone();
            }
        }
        let mut dice = fastrand::Rng::with_seed(seed);
        for _ in 0..4 {
            let share = dice.u8(0..=8);
            let survivor = disk.after_power_loss(|| dice.u8(0..8) < share);
            let found = reopened(&survivor);
            prop_assert!(found == before || found == after, "{found:?}\nis neither {before:?}\nnor {after:?}");
            State::open(&survivor.files()).unwrap().0.commit(&place(u64::MAX)).unwrap();
            prop_assert_eq!(reopened(&survivor).letters, found.letters);
        }
    }

    #[test]
    fn a_commit_that_failed_at_any_write_succeeds_when_it_is_tried_again(
        all in vec(any_changes(), 2..4).prop_map(in_order),
        writes in 0u32..40,
    ) {
        let disk = Disk::default();
        let (mut state, _) = State::open(&disk.files()).unwrap();
        let mut model = Model::default();
        for changes in &all {
            disk.fail_after(writes);
            let _ = state.commit(changes);
            let _ = state.commit(changes);
            disk.heal();
            state.commit(changes).unwrap();
            model.apply(changes);
        }
        drop(state);
        prop_assert_eq!(reopened(&disk), model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn damage_anywhere_is_never_a_panic(bytes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)) {
        let disk = Disk::default();
        let (mut state, _) = State::open(&disk.files()).unwrap();
        let mut changes = letters(0..40);
        for offset in 0..200 {
            changes.waiting.insert(("a".into(), Offset(offset)), Some(rows::WAITING_UNREADABLE));
        }
        state.commit(&changes).unwrap();
        state.commit(&place(1)).unwrap();
        drop(state);
        for (at, byte) in bytes {
            let mut folder = disk.folder();
            let stored = folder.files.get_mut(FILE).unwrap();
            let at = at.index(stored.now.len());
            stored.now[at] = byte;
        }
        if let Ok((mut state, _)) = State::open(&disk.files()) {
            let _ = state.letters(&"a".into(), None, 100);
            let _ = state.oldest_letters(100);
            let _ = state.letter_sizes(&"a".into(), &[LetterId(0), LetterId(39)]);
            let _ = state.commit(&letters(5..45));
            let _ = state.commit(&place(2));
        }
    }
}

#[test]
fn a_commit_is_durable_when_it_returns() {
    let disk = Disk::default();
    let (mut state, _) = State::open(&disk.files()).unwrap();
    state.commit(&place(7)).unwrap();
    let lost = disk.after_power_loss(|| false);
    assert_eq!(reopened(&lost).places[&"a".into()].cursor, 7);
}

#[test]
fn the_same_changes_twice_are_the_same_as_once() {
    let disk = Disk::default();
    let (mut state, _) = State::open(&disk.files()).unwrap();
    let mut changes = Changes { letters_removed: vec![("a".into(), LetterId(1))], ..letters(0..3) };
    changes.waiting.insert(("a".into(), Offset(5)), None);
    changes.places.insert("a".into(), PlaceRow::default());
    state.commit(&changes).unwrap();
    drop(state);
    let once = reopened(&disk);
    let (mut state, _) = State::open(&disk.files()).unwrap();
    state.commit(&changes).unwrap();
    drop(state);
    assert_eq!(reopened(&disk), once);
}

#[test]
fn while_storage_fails_everything_says_so_and_then_goes_on() {
    let disk = Disk::default();
    let (mut state, _) = State::open(&disk.files()).unwrap();
    state.commit(&letters(0..2)).unwrap();
    disk.fail_after(0);
    for _ in 0..3 {
        let error = state.commit(&place(1)).unwrap_err();
        assert!(error.0.starts_with("state.redb"), "{error}");
    }
    assert!(state.letters(&"a".into(), None, 9).is_err());
    assert!(state.oldest_letters(9).is_err());
    assert!(state.letter_sizes(&"a".into(), &[LetterId(0)]).is_err());
    disk.heal();
    assert_eq!(ids(&state, None, 9), [0, 1]);
    state.commit(&place(1)).unwrap();
}

#[test]
fn a_destination_is_told_the_sizes_of_its_own_letters_alone() {
    let disk = Disk::default();
    let (mut state, _) = State::open(&disk.files()).unwrap();
    let own = letter("a", r#"{"type":"track"}"#);
    let all = [(1, own.clone()), (2, letter("b", "{}")), (3, letter("a", "{}"))];
    let letters = all.map(|(id, letter)| (LetterId(id), letter)).into();
    state.commit(&Changes { letters, ..Changes::default() }).unwrap();
    let asked = [3, 2, 1, 0, u64::MAX].map(LetterId);
    let sizes = state.letter_sizes(&"a".into(), &asked).unwrap();
    assert_eq!(sizes, [(LetterId(3), letter_bytes(&letter("a", "{}"))), (LetterId(1), letter_bytes(&own))]);
    assert!(state.letter_sizes(&"a".into(), &[]).unwrap().is_empty());
}

#[test]
fn letters_are_handed_out_in_order_after_one_and_so_many_at_most() {
    let disk = Disk::default();
    let (mut state, _) = State::open(&disk.files()).unwrap();
    state.commit(&letters([3, 1, 300])).unwrap();
    let other = Changes { letters: vec![(LetterId(2), letter("b", "{}"))], ..Changes::default() };
    state.commit(&other).unwrap();
    assert_eq!(ids(&state, None, 2), [1, 3]);
    assert_eq!(ids(&state, Some(1), 9), [3, 300]);
    assert!(ids(&state, Some(u64::MAX), 9).is_empty());
    let oldest = state.oldest_letters(2).unwrap();
    assert_eq!(oldest.iter().map(|(name, id, ..)| (name.as_str(), id.0)).collect::<Vec<_>>(), [("a", 1), ("b", 2)]);
}

#[test]
fn a_letter_is_not_removed_under_another_destination_s_name() {
    let disk = Disk::default();
    let (mut state, _) = State::open(&disk.files()).unwrap();
    state.commit(&letters([1])).unwrap();
    let wrong = Changes { letters_removed: vec![("b".into(), LetterId(1))], ..Changes::default() };
    state.commit(&wrong).unwrap();
    assert_eq!(ids(&state, None, 9), [1]);
    assert_eq!(state.oldest_letters(9).unwrap().len(), 1);
}

#[test]
fn the_id_of_a_removed_letter_is_not_used_again() {
    let disk = Disk::default();
    let (mut state, _) = State::open(&disk.files()).unwrap();
    state.commit(&letters([41])).unwrap();
    state.commit(&Changes { letters_removed: vec![("a".into(), LetterId(41))], ..Changes::default() }).unwrap();
    drop(state);
    assert_eq!(State::open(&disk.files()).unwrap().1.next_letter, 42);
}

#[test]
fn rows_of_an_older_version_are_readable() {
    let place = rows::read_place(br#"{"cursor":7}"#).unwrap();
    assert_eq!(place, PlaceRow { cursor: 7, ..PlaceRow::default() });
    let waiting = rows::read_waiting(br#"{"due":"2026-11-22T21:05:58.25Z","unknown":1}"#).unwrap();
    assert_eq!((waiting.due.to_string(), waiting.attempts), ("2026-11-22T21:05:58.25Z".into(), Attempts::default()));
    let bare = br#"{"source":"web","kind":"track","message_id":"m","received_at":"2026-11-22T21:05:58Z",
        "failure":{"reason":"io"}}"#;
    let letter = rows::read_letter("a".into(), bare, b"{}").unwrap();
    assert_eq!((letter.failure, letter.attempts), (Failure::new(Reason::Io, ""), Attempts::default()));
}

#[test]
fn a_waiting_event_whose_note_is_damaged_is_due_at_once() {
    let disk = Disk::default();
    let (mut state, _) = State::open(&disk.files()).unwrap();
    state.commit(&place(9)).unwrap();
    drop(state);
    scribble(&disk, |transaction| {
        transaction.open_table(WAITING).unwrap().insert(("a", 3), &b"{\"due\":"[..]).unwrap();
    });
    let (_, loaded) = State::open(&disk.files()).unwrap();
    assert_eq!(loaded.places[&"a".into()].1, [(Offset(3), rows::WAITING_UNREADABLE)]);
    assert!(rows::WAITING_UNREADABLE.due < letter("a", "").died_at);
}

#[test]
fn a_damaged_letter_hides_no_other() {
    let disk = Disk::default();
    let (mut state, _) = State::open(&disk.files()).unwrap();
    state.commit(&letters(0..3)).unwrap();
    drop(state);
    scribble(&disk, |transaction| {
        transaction.open_table(LETTERS).unwrap().insert(("a", 1), (&b"?"[..], &b""[..])).unwrap();
    });
    let (state, _) = State::open(&disk.files()).unwrap();
    assert_eq!(ids(&state, None, 2), [0, 2]);
}

#[test]
fn a_damaged_place_is_told_of_and_leaves_nothing_to_its_successor() {
    let disk = Disk::default();
    let (mut state, _) = State::open(&disk.files()).unwrap();
    let mut changes = place(9);
    let row = WaitingRow { due: Timestamp::UNIX_EPOCH, size_bytes: 2, attempts: Attempts::default() };
    changes.waiting.insert(("a".into(), Offset(3)), Some(row.clone()));
    changes.waiting.insert(("b".into(), Offset(4)), Some(row.clone()));
    changes.places.insert("b".into(), PlaceRow::default());
    state.commit(&changes).unwrap();
    drop(state);
    scribble(&disk, |transaction| {
        transaction.open_table(PLACES).unwrap().insert("a", &b"?"[..]).unwrap();
    });
    let (mut state, loaded) = State::open(&disk.files()).unwrap();
    assert_eq!(loaded.damaged, ["a".into()]);
    assert_eq!(loaded.places.into_keys().collect::<Vec<_>>(), ["b".into()]);
    state.commit(&place(0)).unwrap();
    drop(state);
    assert_eq!(reopened(&disk).waiting, [(("b".into(), Offset(4)), row)].into());
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let disk = Disk::default();
    scribble(&disk, |transaction| {
        transaction.open_table(META).unwrap().insert(META_FORMAT, FORMAT + 1).unwrap();
    });
    for _ in 0..2 {
        let error = State::open(&disk.files()).err().unwrap();
        assert!(error.0.contains("newer version (format 2, known is 1)"), "{error}");
    }
}

#[test]
fn a_file_of_somebody_else_is_refused_and_left_alone() {
    for foreign in [b"hello".to_vec(), vec![b'x'; 100_000]] {
        let disk = Disk::default();
        let file = Files::open(&disk, FILE).unwrap();
        file.write_at(0, &foreign).unwrap();
        let error = State::open(&disk.files()).err().unwrap();
        assert!(error.0.contains("move it out of the queue's folder"), "{error}");
        assert_eq!(disk.folder().files[FILE].now, foreign);
    }
}

#[test]
fn damaged_pages_are_an_error_that_names_the_file() {
    let disk = Disk::default();
    let (mut state, _) = State::open(&disk.files()).unwrap();
    state.commit(&letters(0..50)).unwrap();
    drop(state);
    for page in disk.folder().files.get_mut(FILE).unwrap().now[PAGE_BYTES..].chunks_mut(PAGE_BYTES) {
        page[..64].fill(0xA5);
    }
    let error = State::open(&disk.files()).err().unwrap();
    assert!(error.0.starts_with("state.redb is damaged"), "{error}");
}

#[test]
fn its_size_is_the_file_s() {
    let disk = Disk::default();
    let (mut state, _) = State::open(&disk.files()).unwrap();
    let empty = state.size_bytes();
    let big = "x".repeat(500_000);
    state.commit(&Changes { letters: vec![(LetterId(0), letter("a", &big))], ..Changes::default() }).unwrap();
    assert!(state.size_bytes() > empty + 400_000);
    assert_eq!(state.size_bytes(), disk.folder().files[FILE].now.len() as u64);
}
