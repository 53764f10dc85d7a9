//! What the disk queue keeps when the process ends, what it lets go of, and what it says when there is no room.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use futures_util::FutureExt as _;
use libroseg::attempt::{Start, Verdict};
use libroseg::event::Event;
use libroseg::queue::disk::files::{File, Files, Room};
use libroseg::queue::disk::{Disk, OpenError, Options};
use libroseg::queue::{AppendError, Attachment, Mode, Offset, Queue, ReadLimit};

use crate::support::queue::{LIMIT, active, event, events, failure, ids, later, name, now, options, settled};
use crate::support::sim::{Faults, Sim};
use crate::support::{PATIENCE, eventually};

fn open(dir: &Path) -> Disk {
    Disk::open(options(dir), now()).unwrap()
}

/// A queue of one megabyte, in segments of a quarter.
fn small(dir: &Path) -> Options {
    Options { size_bytes_max: 1 << 20, ..options(dir) }
}

/// An event of so many bytes that no compression makes smaller.
fn large(id: &str, bytes: usize) -> Event {
    let mut rng = fastrand::Rng::with_seed(bytes as u64 + id.len() as u64);
    let noise: String = std::iter::repeat_with(|| rng.alphanumeric()).take(bytes).collect();
    Event { json: format!(r#"{{"type":"track","messageId":"{id}","noise":"{noise}"}}"#).into(), ..event(id) }
}

async fn read_all(queue: &Disk, destination: &str) -> Vec<String> {
    let limit = ReadLimit { events_max: 100_000, bytes_max: 1 << 30, waiting_max: 100_000 };
    ids(&queue.read(&name(destination), limit, now()).await)
}

/// Reads everything and has it delivered.
async fn deliver_all(queue: &Disk, destination: &str) -> usize {
    let mut delivered = 0;
    loop {
        let read = queue.read(&name(destination), LIMIT, now()).await;
        if read.is_empty() {
            return delivered;
        }
        delivered += read.len();
        let settlements = read.iter().map(|delivery| settled(delivery, Verdict::Delivered)).collect();
        queue.settle(&name(destination), settlements, now()).await;
    }
}

#[tokio::test]
async fn what_was_not_settled_is_handed_out_again_after_a_restart_and_what_was_is_not() {
    let folder = tempfile::tempdir().unwrap();
    {
        let queue = open(folder.path());
        queue.attach(&active(&["a", "b"]), now()).await.unwrap();
        queue.append(events(&["1", "2", "3", "4"])).await.unwrap();
        let read = queue.read(&name("a"), ReadLimit { events_max: 3, ..LIMIT }, now()).await;
        queue.settle(&name("a"), vec![settled(&read[1], Verdict::Delivered)], now()).await;
    }
    let queue = open(folder.path());
    queue.attach(&active(&["a", "b"]), now()).await.unwrap();
    assert_eq!(read_all(&queue, "a").await, ["1", "3", "4"]);
    assert_eq!(read_all(&queue, "b").await, ["1", "2", "3", "4"]);
    let books = queue.books(&name("a")).unwrap();
    assert_eq!((books.accepted, books.delivered, books.in_hand, books.balance()), (4, 1, 3, true));
}

#[tokio::test]
async fn destinations_that_lag_together_share_what_was_read_until_all_have_it() {
    let folder = tempfile::tempdir().unwrap();
    {
        let queue = open(folder.path());
        queue.attach(&active(&["a", "b"]), now()).await.unwrap();
        queue.append(events(&["1", "2", "3", "4"])).await.unwrap();
    }
    let queue = open(folder.path());
    queue.attach(&active(&["a", "b"]), now()).await.unwrap();
    let begun = queue.read(&name("a"), ReadLimit { events_max: 2, ..LIMIT }, now()).await;
    let all = queue.read(&name("b"), LIMIT, now()).await;
    let rest = queue.read(&name("a"), LIMIT, now()).await;
    assert_eq!((ids(&begun), ids(&rest)), (vec!["1".into(), "2".into()], vec!["3".into(), "4".into()]));
    assert_eq!(all.len(), 4);
    for (ours, theirs) in begun.iter().chain(&rest).zip(&all) {
        assert!(Arc::ptr_eq(&ours.entry, &theirs.entry), "it is opened once");
    }
    let opened = Arc::downgrade(&all[0].entry);
    drop((begun, rest, all));
    assert!(opened.upgrade().is_none(), "it is kept for nobody");
}

#[tokio::test]
async fn waiting_events_dead_letters_and_books_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let before = {
        let queue = open(folder.path());
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1", "2", "3", "4"])).await.unwrap();
        let read = queue.read(&name("a"), LIMIT, now()).await;
        let verdicts = [
            settled(&read[0], Verdict::RetryAt(later(10), failure())),
            settled(&read[1], Verdict::Dead(failure())),
            settled(&read[2], Verdict::Filtered),
            settled(&read[3], Verdict::Dropped),
        ];
        queue.settle(&name("a"), verdicts.to_vec(), later(1)).await;
        queue.books(&name("a")).unwrap()
    };
    let queue = open(folder.path());
    queue.attach(&active(&["a"]), now()).await.unwrap();
    let books = queue.books(&name("a")).unwrap();
    assert_eq!((books.filtered, books.dropped, books.dead, books.later, books.letters), (1, 1, 1, 1, 1));
    assert_eq!((books.accepted, books.letters_bytes), (before.accepted, before.letters_bytes));

    assert_eq!(queue.next_due(&name("a")), Some(later(10)));
    let due = queue.read(&name("a"), LIMIT, later(10)).await;
    assert_eq!((ids(&due), due[0].attempts.count), (vec!["1".to_owned()], 1));
    let letters = queue.dead_letters(&name("a"), None, 9).await.unwrap();
    assert_eq!((&letters[0].1.event, letters[0].1.died_at), (&event("2"), later(1)));
}

#[tokio::test]
async fn a_message_id_is_known_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    {
        let queue = open(folder.path());
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1", "2"])).await.unwrap();
    }
    let queue = open(folder.path());
    queue.append(events(&["2", "3"])).await.unwrap();
    assert_eq!(read_all(&queue, "a").await, ["1", "2", "3"]);
    assert_eq!(queue.report().duplicates, 1);
}

#[tokio::test]
async fn a_message_id_is_forgotten_when_its_window_is_over() {
    let folder = tempfile::tempdir().unwrap();
    {
        let queue = open(folder.path());
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1"])).await.unwrap();
    }
    let queue = Disk::open(options(folder.path()), later(24 * 3600 + 1)).unwrap();
    queue.append(events(&["1"])).await.unwrap();
    assert_eq!(read_all(&queue, "a").await, ["1", "1"]);
}

#[tokio::test]
async fn one_process_at_a_time_uses_a_queue() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(folder.path());
    let second = Disk::open(options(folder.path()), now());
    assert!(matches!(second, Err(OpenError::Folder { .. })));
    drop(queue);
    open(folder.path());
}

#[tokio::test]
async fn a_full_queue_refuses_and_takes_again_once_its_oldest_segments_are_owed_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Disk::open(small(folder.path()), now()).unwrap();
    queue.attach(&active(&["a"]), now()).await.unwrap();
    let mut taken = 0;
    let refusal = loop {
        match queue.append(vec![large(&taken.to_string(), 10_000)]).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 200, "it never was full");
    };
    assert!(matches!(refusal, AppendError::Full { size_bytes_max: 1_048_576, .. }), "{refusal:?}");
    assert!(queue.report().failing.is_some());
    assert!(queue.report().size_bytes <= 1 << 20, "{:?}", queue.report());

    assert_eq!(deliver_all(&queue, "a").await, taken);
    for tries in 0.. {
        if queue.append(vec![large("next", 10_000)]).await.is_ok() {
            break;
        }
        assert!(tries < 600, "it never recovered");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(queue.report().failing, None);
    assert_eq!(read_all(&queue, "a").await, ["next"]);
    assert!(queue.books(&name("a")).unwrap().balance());
}

#[tokio::test]
async fn what_a_destination_still_owes_is_never_let_go_by_age_and_everything_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Disk::open(Options { size_bytes_max: 4 << 20, ..options(folder.path()) }, now()).unwrap();
    queue.attach(&active(&["a", "slow"]), now()).await.unwrap();
    for n in 0..100 {
        queue.append(vec![large(&n.to_string(), 10_000)]).await.unwrap();
    }
    let segments = queue.report().segments;
    assert!(segments > 2, "{segments} segments");
    deliver_all(&queue, "a").await;
    let slow = queue.read(&name("slow"), LIMIT, now()).await;
    assert_eq!(slow.len(), 100);

    queue.tidy(later(8 * 24 * 3600)).await;
    queue.flush().await.unwrap();
    assert_eq!(queue.report().segments, segments, "`slow` has settled nothing");

    // All but one in the middle: its segment stays, and the one that is being written.
    let verdicts = slow.iter().map(|delivery| match delivery.entry.offset {
        Offset(50) => settled(delivery, Verdict::RetryAt(later(5), failure())),
        _ => settled(delivery, Verdict::Delivered),
    });
    queue.settle(&name("slow"), verdicts.collect(), now()).await;
    queue.tidy(later(8 * 24 * 3600)).await;
    eventually("two segments", || queue.report().segments == 2).await;
    assert_eq!(ids(&queue.read(&name("slow"), LIMIT, later(5)).await), ["50"]);

    let late = Attachment { name: name("late"), start: Start::Oldest, mode: Mode::Active };
    queue.attach(&[late], now()).await.unwrap();
    let there = read_all(&queue, "late").await;
    assert!(there.contains(&"50".to_owned()) && there.len() < 100, "{there:?}");
    let books = queue.books(&name("late")).unwrap();
    assert_eq!((books.accepted, books.damaged, books.balance()), (there.len() as u64, 0, true));
}

#[tokio::test]
async fn a_removed_destination_is_kept_for_the_time_events_are_and_then_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(folder.path());
    queue.attach(&active(&["gone"]), now()).await.unwrap();
    queue.append(events(&["1"])).await.unwrap();
    queue.attach(&[], now()).await.unwrap();

    queue.tidy(later(6 * 24 * 3600)).await;
    queue.flush().await.unwrap();
    assert!(queue.books(&name("gone")).is_some());
    queue.tidy(later(7 * 24 * 3600)).await;
    eventually("it is forgotten", || queue.books(&name("gone")).is_none()).await;
    queue.flush().await.unwrap();
    drop(queue);
    assert_eq!(open(folder.path()).books(&name("gone")), None);
}

#[tokio::test]
async fn a_destination_that_is_off_is_not_forgotten_however_long() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(folder.path());
    queue.attach(&active(&["a"]), now()).await.unwrap();
    queue.append(events(&["1"])).await.unwrap();
    let off = Attachment { name: name("a"), start: Start::Newest, mode: Mode::Waits };
    queue.attach(&[off], now()).await.unwrap();
    queue.tidy(later(365 * 24 * 3600)).await;
    queue.flush().await.unwrap();
    queue.attach(&active(&["a"]), now()).await.unwrap();
    assert_eq!(read_all(&queue, "a").await, ["1"]);
}

#[tokio::test]
async fn dead_letters_go_when_they_are_too_old_or_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let letters_bytes_max = 10_000;
    let queue = Disk::open(Options { letters_bytes_max, ..options(folder.path()) }, now()).unwrap();
    queue.attach(&active(&["a"]), now()).await.unwrap();
    for (day, id) in [(0, "1"), (1, "2")] {
        queue.append(events(&[id])).await.unwrap();
        let read = queue.read(&name("a"), LIMIT, now()).await;
        let died_at = later(day * 24 * 3600);
        queue.settle(&name("a"), vec![settled(&read[0], Verdict::Dead(failure()))], died_at).await;
    }
    let kept = async || -> Vec<String> {
        let letters = queue.dead_letters(&name("a"), None, 99).await.unwrap();
        letters.iter().map(|(_, letter)| letter.event.message_id.to_string()).collect()
    };
    assert_eq!(kept().await, ["1", "2"]);
    queue.tidy(later(30 * 24 * 3600)).await;
    eventually("the first one goes", || queue.books(&name("a")).unwrap().letters == 1).await;
    assert_eq!(kept().await, ["2"]);

    queue.append(vec![large("3", 6000), large("4", 6000)]).await.unwrap();
    let read = queue.read(&name("a"), LIMIT, now()).await;
    let dead = read.iter().map(|delivery| settled(delivery, Verdict::Dead(failure()))).collect();
    queue.settle(&name("a"), dead, later(31 * 24 * 3600)).await;
    eventually("the oldest make room", || queue.books(&name("a")).unwrap().letters == 1).await;
    assert_eq!(kept().await, ["4"]);
    let books = queue.books(&name("a")).unwrap();
    assert_eq!((books.dead, books.balance()), (4, true));
}

#[tokio::test]
async fn when_the_state_is_gone_everything_is_sent_again_rather_than_nothing() {
    let folder = tempfile::tempdir().unwrap();
    {
        let queue = open(folder.path());
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1", "2"])).await.unwrap();
        deliver_all(&queue, "a").await;
        queue.append(events(&["3"])).await.unwrap();
    }
    fs::remove_file(folder.path().join("state.redb")).unwrap();
    // Looked into, by a command that attaches nothing: that makes a new file and settles nothing.
    drop(open(folder.path()));
    let queue = open(folder.path());
    queue.attach(&active(&["a"]), now()).await.unwrap();
    assert_eq!(read_all(&queue, "a").await, ["1", "2", "3"]);
    queue.attach(&active(&["a", "new"]), now()).await.unwrap();
    assert_eq!(read_all(&queue, "new").await, [""; 0]);
}

#[tokio::test]
async fn a_first_destination_begins_with_what_comes_after_it_also_when_there_were_none_before() {
    let folder = tempfile::tempdir().unwrap();
    {
        let queue = open(folder.path());
        queue.attach(&[], now()).await.unwrap();
        queue.append(events(&["1"])).await.unwrap();
    }
    let queue = open(folder.path());
    queue.attach(&active(&["a"]), now()).await.unwrap();
    queue.append(events(&["2"])).await.unwrap();
    assert_eq!(read_all(&queue, "a").await, ["2"]);
}

#[tokio::test]
async fn a_damaged_record_is_reported_skipped_and_counted_and_the_rest_is_delivered() {
    let folder = tempfile::tempdir().unwrap();
    {
        let queue = open(folder.path());
        queue.attach(&active(&["a"]), now()).await.unwrap();
        for n in 0..20 {
            queue.append(vec![large(&n.to_string(), 1000)]).await.unwrap();
        }
    }
    damage(folder.path(), 10_000);
    let queue = open(folder.path());
    queue.attach(&active(&["a"]), now()).await.unwrap();
    let all: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let read = read_all(&queue, "a").await;
    let missing: Vec<&String> = all.iter().filter(|id| !read.contains(id)).collect();
    assert_eq!((read.len(), missing.len()), (19, 1), "{missing:?}");
    let books = queue.books(&name("a")).unwrap();
    assert_eq!((books.accepted, books.damaged, books.balance()), (20, 1, true));

    // The next start does not count it again.
    drop(queue);
    let queue = open(folder.path());
    assert_eq!(queue.books(&name("a")).unwrap().accepted, 20);
    assert_eq!(read_all(&queue, "a").await.len(), 19);
}

#[tokio::test]
async fn an_event_that_waits_and_is_damaged_is_skipped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    {
        let queue = open(folder.path());
        queue.attach(&active(&["a"]), now()).await.unwrap();
        for n in 0..20 {
            queue.append(vec![large(&n.to_string(), 1000)]).await.unwrap();
        }
        let read = queue.read(&name("a"), LIMIT, now()).await;
        let wait = read.iter().map(|delivery| settled(delivery, Verdict::RetryAt(later(9), failure()))).collect();
        queue.settle(&name("a"), wait, now()).await;
    }
    damage(folder.path(), 10_000);
    let queue = open(folder.path());
    queue.attach(&active(&["a"]), now()).await.unwrap();
    assert_eq!(queue.read(&name("a"), LIMIT, later(9)).await.len(), 19);
    let books = queue.books(&name("a")).unwrap();
    assert_eq!((books.damaged, books.in_hand, books.later, books.balance()), (1, 19, 0, true));
    assert_eq!(queue.read(&name("a"), LIMIT, later(9)).await.len(), 0);
}

#[tokio::test]
async fn damage_is_counted_once_however_the_log_is_cut_into_pieces() {
    let folder = tempfile::tempdir().unwrap();
    {
        let queue = open(folder.path());
        queue.attach(&active(&["a"]), now()).await.unwrap();
        for n in 0..20 {
            queue.append(vec![large(&n.to_string(), 1000)]).await.unwrap();
        }
    }
    damage(folder.path(), 15_000);
    let queue = open(folder.path());
    let (mut next, mut entries, mut damaged) = (Some(Offset(0)), 0, 0);
    while let Some(from) = next {
        let history = queue.history(from, ReadLimit { events_max: 2, ..LIMIT }).await.unwrap();
        (next, entries, damaged) = (history.next, entries + history.entries.len(), damaged + history.damaged);
    }
    assert_eq!((entries, damaged), (19, 1));
}

/// Flips bits of one byte of the first segment.
fn damage(folder: &Path, position: usize) {
    let logs = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    logs.sort();
    let mut bytes = fs::read(&logs[0]).unwrap();
    bytes[position] ^= 0x55;
    fs::write(&logs[0], bytes).unwrap();
}

#[tokio::test]
async fn what_was_handed_out_before_a_read_failed_is_not_lost_to_its_holder() {
    let sim = Sim::new(1);
    let unused = options(Path::new("unused"));
    let all: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
    {
        let queue = Disk::open_on(sim.files(), unused.clone(), now()).unwrap();
        queue.attach(&active(&["a"]), now()).await.unwrap();
        for batch in all.chunks(50) {
            queue.append(batch.iter().map(|id| large(id, 4000)).collect()).await.unwrap();
        }
    }
    sim.kill();
    let queue = Disk::open_on(sim.files(), unused, now()).unwrap();
    queue.attach(&active(&["a"]), now()).await.unwrap();
    let mut read = Vec::new();
    for _ in 0..200 {
        sim.set_faults(Faults { read: 0.2, ..Faults::default() });
        read.extend(read_all(&queue, "a").await);
        if read.len() == all.len() {
            break;
        }
    }
    assert_eq!(read, all);
}

#[tokio::test]
async fn a_reader_whom_the_disk_failed_is_told_to_come_again() {
    let sim = Sim::new(1);
    let unused = options(Path::new("unused"));
    {
        let queue = Disk::open_on(sim.files(), unused.clone(), now()).unwrap();
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1"])).await.unwrap();
    }
    sim.kill();
    let queue = Disk::open_on(sim.files(), unused, now()).unwrap();
    queue.attach(&active(&["a"]), now()).await.unwrap();
    sim.set_faults(Faults { read: 1.0, ..Faults::default() });
    let changed = queue.changed();
    assert_eq!(read_all(&queue, "a").await, [""; 0]);
    assert!(changed.now_or_never().is_some());
    sim.set_faults(Faults::default());
    assert_eq!(read_all(&queue, "a").await, ["1"]);
}

#[tokio::test]
async fn destinations_that_could_not_be_written_down_are_not_in_force() {
    let sim = Sim::new(1);
    let queue = Disk::open_on(sim.files(), options(Path::new("unused")), now()).unwrap();
    queue.attach(&active(&["a"]), now()).await.unwrap();
    sim.set_faults(Faults { sync: 1.0, ..Faults::default() });
    let skips = Attachment { name: name("a"), start: Start::Newest, mode: Mode::Skips };
    assert!(queue.attach(&[skips], now()).await.is_err());
    sim.set_faults(Faults::default());
    queue.append(events(&["1"])).await.unwrap();
    assert_eq!(read_all(&queue, "a").await, ["1"]);
}

#[tokio::test]
async fn senders_that_come_again_and_again_do_not_push_out_the_message_ids_of_what_was_stored() {
    let sim = Sim::new(1);
    let few = Options { dedup_ids_max: 3, ..options(Path::new("unused")) };
    let queue = Disk::open_on(sim.files(), few, now()).unwrap();
    queue.attach(&active(&["a"]), now()).await.unwrap();
    queue.append(events(&["1"])).await.unwrap();
    sim.set_faults(Faults { write: 1.0, ..Faults::default() });
    for _ in 0..10 {
        assert!(queue.append(events(&["2", "3"])).await.is_err());
    }
    assert_eq!(queue.report().dedup_ids, 1);
    queue.append(events(&["1"])).await.unwrap();
    assert_eq!(queue.report().duplicates, 1);
}

#[tokio::test]
async fn events_that_take_the_place_of_a_lost_log_are_not_taken_for_those_that_a_destination_skips() {
    let folder = tempfile::tempdir().unwrap();
    let skips = [Attachment { name: name("a"), start: Start::Newest, mode: Mode::Skips }];
    {
        let queue = open(folder.path());
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1", "2"])).await.unwrap();
        queue.attach(&skips, now()).await.unwrap();
        queue.append(events(&["3", "4", "5"])).await.unwrap();
        queue.attach(&active(&["a"]), now()).await.unwrap();
    }
    for entry in fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let queue = open(folder.path());
    queue.attach(&active(&["a"]), now()).await.unwrap();
    queue.append(events(&["6", "7", "8", "9"])).await.unwrap();
    assert_eq!(read_all(&queue, "a").await, ["6", "7", "8", "9"]);
    assert!(queue.books(&name("a")).unwrap().balance());
}

/// Files of which one kind of call panics, once it is told to.
#[derive(Clone)]
struct Buggy {
    files: Arc<dyn Files>,
    room_panics: bool,
    remove_panics: bool,
}

impl Files for Buggy {
    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.files.open(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        assert!(!self.remove_panics, "as the test wants it");
        self.files.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.files.sync_names()
    }

    fn room(&self) -> io::Result<Room> {
        let is_appender = std::thread::current().name() == Some("queue-append");
        assert!(!(self.room_panics && is_appender), "as the test wants it");
        self.files.room()
    }
}

#[tokio::test]
async fn a_queue_whose_thread_panicked_says_so_and_leaves_nobody_waiting() {
    for room_panics in [true, false] {
        let files = Buggy { files: Sim::new(1).files(), room_panics, remove_panics: !room_panics };
        let small = small(Path::new("unused"));
        let queue = Disk::open_on(Arc::new(files), small, now()).unwrap();
        queue.attach(&active(&["a"]), now()).await.unwrap();
        for n in 0..60 {
            // It may be refused from the first one on.
            let _ = queue.append(vec![large(&n.to_string(), 10_000)]).await;
        }
        deliver_all(&queue, "a").await;
        queue.tidy(later(8 * 24 * 3600)).await;
        eventually("it is told", || queue.report().failing.is_some()).await;
        for _ in 0..2 {
            let refused = queue.append(events(&["next"])).await;
            assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
        }
        if !room_panics {
            queue.release(&name("a"));
            let flushed = tokio::time::timeout(PATIENCE, queue.flush()).await;
            assert!(matches!(flushed, Ok(Err(_))), "{flushed:?}");
        }
    }
}

#[tokio::test]
async fn concurrent_senders_share_groups_and_every_event_is_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let queue = std::sync::Arc::new(open(folder.path()));
    queue.attach(&active(&["a"]), now()).await.unwrap();
    let senders = (0..20).map(|sender| {
        let queue = std::sync::Arc::clone(&queue);
        tokio::spawn(async move {
            for n in 0..20 {
                queue.append(vec![event(&format!("{sender}-{n}"))]).await.unwrap();
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    let mut read = read_all(&queue, "a").await;
    read.sort();
    read.dedup();
    assert_eq!(read.len(), 400);
    assert!(queue.report().syncs.count < 400, "{:?}", queue.report().syncs);
}

#[tokio::test]
async fn a_destination_that_lags_reads_from_the_files_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Disk::open(Options { size_bytes_max: 64 << 20, ..options(folder.path()) }, now()).unwrap();
    queue.attach(&active(&["a"]), now()).await.unwrap();
    let all: Vec<String> = (0..3000).map(|n| n.to_string()).collect();
    for batch in all.chunks(50) {
        queue.append(batch.iter().map(|id| large(id, 4000)).collect()).await.unwrap();
    }
    let mut read = Vec::new();
    loop {
        let some = queue.read(&name("a"), ReadLimit { events_max: 77, ..LIMIT }, now()).await;
        if some.is_empty() {
            break;
        }
        read.extend(ids(&some));
        queue.settle(&name("a"), some.iter().map(|d| settled(d, Verdict::Delivered)).collect(), now()).await;
    }
    assert_eq!(read, all);
}
