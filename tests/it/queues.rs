//! What every kind of queue does. A new kind is one more line in `each_queue`.

use std::collections::BTreeSet;
use std::ops::Deref;

use futures_util::FutureExt as _;
use jiff::SignedDuration;
use libroseg::attempt::{DeadLetter, Start, Verdict};
use libroseg::event::Event;
use libroseg::queue::disk::Disk;
use libroseg::queue::memory::Memory;
use libroseg::queue::{AppendError, Attachment, Delivery, History, LetterId, Mode, Offset, Queue, ReadLimit};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::queue::{LIMIT, active, dedup, event, events, failure, ids, later, name, now, options, settled};

/// A queue and the folder it may need.
struct Kept {
    queue: Box<dyn Queue>,
    is_disk: bool,
    folder: TempDir,
}

impl Kept {
    /// Ends what outlives a process, and opens it again.
    fn restart(&mut self) {
        if self.is_disk {
            // The folder belongs to one at a time.
            self.queue = Box::new(Memory::new(0, dedup()));
            self.queue = Box::new(Disk::open(options(self.folder.path()), now()).unwrap());
        }
    }
}

impl Deref for Kept {
    type Target = dyn Queue;

    fn deref(&self) -> &Self::Target {
        self.queue.as_ref()
    }
}

fn each_queue() -> Vec<Kept> {
    let folder = || tempfile::tempdir().unwrap();
    let disk = folder();
    vec![
        Kept { queue: Box::new(Memory::new(1 << 20, dedup())), is_disk: false, folder: folder() },
        Kept { queue: Box::new(Disk::open(options(disk.path()), now()).unwrap()), is_disk: true, folder: disk },
    ]
}

#[tokio::test]
async fn every_destination_reads_every_event_once_in_order() {
    for queue in each_queue() {
        queue.attach(&active(&["a", "b"]), now()).await.unwrap();
        queue.append(events(&["1", "2"])).await.unwrap();
        queue.append(events(&["3"])).await.unwrap();

        for destination in ["a", "b"] {
            assert_eq!(ids(&queue.read(&name(destination), LIMIT, now()).await), ["1", "2", "3"]);
            assert_eq!(ids(&queue.read(&name(destination), LIMIT, now()).await), [""; 0]);
        }
    }
}

#[tokio::test]
async fn a_new_destination_begins_with_events_accepted_from_then_on() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1"])).await.unwrap();
        queue.attach(&active(&["a", "b"]), now()).await.unwrap();
        queue.append(events(&["2"])).await.unwrap();

        assert_eq!(ids(&queue.read(&name("b"), LIMIT, now()).await), ["2"]);
        assert_eq!(queue.books(&name("b")).unwrap().accepted, 1);
        assert_eq!(queue.books(&name("c")), None);
    }
}

#[tokio::test]
async fn a_removed_destination_goes_on_where_it_stopped() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1"])).await.unwrap();
        queue.attach(&active(&[]), now()).await.unwrap();
        queue.append(events(&["2"])).await.unwrap();
        queue.attach(&active(&["a"]), now()).await.unwrap();

        assert_eq!(ids(&queue.read(&name("a"), LIMIT, now()).await), ["1", "2"]);
    }
}

#[tokio::test]
async fn an_event_that_waits_comes_back_when_it_is_due_with_its_attempts() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1", "2"])).await.unwrap();
        let read = queue.read(&name("a"), LIMIT, now()).await;
        let verdicts = vec![
            settled(&read[0], Verdict::RetryAt(later(10), failure())),
            settled(&read[1], Verdict::RetryAt(later(5), failure())),
        ];
        queue.settle(&name("a"), verdicts, now()).await;

        assert_eq!(queue.next_due(&name("a")), Some(later(5)));
        assert_eq!(ids(&queue.read(&name("a"), LIMIT, later(4)).await), [""; 0]);
        let due = queue.read(&name("a"), LIMIT, later(10)).await;
        assert_eq!(ids(&due), ["2", "1"]);
        assert_eq!(due[0].attempts.count, 1);
    }
}

#[tokio::test]
async fn a_dead_letter_keeps_event_reason_and_tries() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1"])).await.unwrap();
        let read = queue.read(&name("a"), LIMIT, now()).await;
        queue.settle(&name("a"), vec![settled(&read[0], Verdict::Dead(failure()))], later(1)).await;

        let letters = queue.dead_letters(&name("a"), None, 10).await.unwrap();
        assert_eq!(letters.len(), 1);
        let letter = &letters[0].1;
        assert_eq!((&letter.event, &letter.failure), (&event("1"), &failure()));
        assert_eq!((letter.attempts.count, letter.died_at), (1, later(1)));
        let books = queue.books(&name("a")).unwrap();
        assert_eq!((books.dead, books.waiting(), books.balance()), (1, 0, true));
    }
}

#[tokio::test]
async fn what_its_holder_lost_is_handed_out_again() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1", "2"])).await.unwrap();
        let read = queue.read(&name("a"), LIMIT, now()).await;
        queue.settle(&name("a"), vec![settled(&read[0], Verdict::Delivered)], now()).await;
        queue.release(&name("a"));

        assert_eq!(ids(&queue.read(&name("a"), LIMIT, now()).await), ["2"]);
    }
}

#[tokio::test]
async fn a_read_keeps_its_limits_and_still_hands_out_one_event_of_any_size() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1", "2", "3"])).await.unwrap();
        let tiny = ReadLimit { bytes_max: 1, ..LIMIT };
        assert_eq!(ids(&queue.read(&name("a"), tiny, now()).await), ["1"]);
        let one = ReadLimit { events_max: 1, ..LIMIT };
        assert_eq!(ids(&queue.read(&name("a"), one, now()).await), ["2"]);
    }
}

#[tokio::test]
async fn at_the_bound_of_waiting_events_the_cursor_stops() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1", "2"])).await.unwrap();
        let bound = ReadLimit { events_max: 1, waiting_max: 1, ..LIMIT };
        let read = queue.read(&name("a"), bound, now()).await;
        queue.settle(&name("a"), vec![settled(&read[0], Verdict::RetryAt(later(9), failure()))], now()).await;

        assert_eq!(ids(&queue.read(&name("a"), bound, now()).await), [""; 0]);
        assert_eq!(ids(&queue.read(&name("a"), bound, later(9)).await), ["1"]);
        assert_eq!(ids(&queue.read(&name("a"), bound, later(9)).await), ["2"]);
    }
}

#[tokio::test]
async fn a_message_id_seen_from_the_same_source_within_24_hours_is_stored_once() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1", "1", "2"])).await.unwrap();
        queue.append(events(&["1"])).await.unwrap();
        let other_source = Event { source: "other".into(), ..event("1") };
        queue.append(vec![other_source]).await.unwrap();
        let next_day = Event { received_at: later(24 * 3600), ..event("1") };
        queue.append(vec![next_day]).await.unwrap();

        assert_eq!(ids(&queue.read(&name("a"), LIMIT, now()).await), ["1", "2", "1", "1"]);
    }
}

#[tokio::test]
async fn events_refused_for_want_of_room_are_not_taken_for_seen() {
    let queue = Memory::new(70, dedup());
    queue.attach(&active(&["a"]), now()).await.unwrap();
    assert!(queue.append(events(&["1", "2", "3"])).await.is_err());
    queue.append(events(&["1", "2"])).await.unwrap();
    assert_eq!(ids(&queue.read(&name("a"), LIMIT, now()).await), ["1", "2"]);
}

#[tokio::test]
async fn a_reader_hears_of_an_append_that_came_before_it_listened() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        let changed = queue.changed();
        queue.append(events(&["1"])).await.unwrap();
        assert!(changed.now_or_never().is_some());
        assert!(queue.changed().now_or_never().is_none());
    }
}

#[tokio::test]
async fn a_full_queue_takes_all_or_nothing_and_has_room_again_once_events_are_settled() {
    let queue = Memory::new(100, dedup());
    queue.attach(&active(&["a"]), now()).await.unwrap();
    queue.append(events(&["1", "2"])).await.unwrap();
    let refused = queue.append(events(&["3", "4"])).await;
    assert!(matches!(refused, Err(AppendError::Full { size_bytes_max: 100, .. })), "{refused:?}");

    let read = queue.read(&name("a"), LIMIT, now()).await;
    assert!(queue.append(events(&["3", "4"])).await.is_err(), "what is in hand still counts");
    let delivered = read.iter().map(|delivery| settled(delivery, Verdict::Delivered)).collect();
    queue.settle(&name("a"), delivered, now()).await;
    queue.append(events(&["3", "4"])).await.unwrap();
    assert_eq!(ids(&queue.read(&name("a"), LIMIT, now()).await), ["3", "4"]);
}

#[tokio::test]
async fn a_full_memory_forgets_a_removed_destination_before_it_refuses() {
    let queue = Memory::new(100, dedup());
    queue.attach(&active(&["gone", "a"]), now()).await.unwrap();
    queue.append(events(&["1", "2"])).await.unwrap();
    let read = queue.read(&name("a"), LIMIT, now()).await;
    queue.settle(&name("a"), read.iter().map(|d| settled(d, Verdict::Delivered)).collect(), now()).await;
    queue.attach(&active(&["a"]), now()).await.unwrap();

    queue.append(events(&["3", "4"])).await.unwrap();
    assert_eq!(queue.books(&name("gone")), None);
}

#[tokio::test]
async fn an_event_put_back_is_read_by_its_destination_alone_and_the_books_of_all_balance() {
    for queue in each_queue() {
        queue.attach(&active(&["a", "b"]), now()).await.unwrap();
        queue.append(events(&["1"])).await.unwrap();
        queue.put_back(&name("a"), events(&["1"])).await.unwrap();
        queue.append(events(&["2"])).await.unwrap();

        assert_eq!(ids(&queue.read(&name("a"), LIMIT, now()).await), ["1", "1", "2"]);
        assert_eq!(ids(&queue.read(&name("b"), LIMIT, now()).await), ["1", "2"]);
        let books = |destination| queue.books(&name(destination)).unwrap();
        assert_eq!((books("a").accepted, books("a").balance()), (3, true));
        assert_eq!((books("b").accepted, books("b").balance()), (2, true));
    }
}

#[tokio::test]
async fn a_destination_that_starts_with_the_oldest_reads_what_is_still_there() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1", "2"])).await.unwrap();
        let oldest = Attachment { name: name("b"), start: Start::Oldest, mode: Mode::Active };
        queue.attach(&[active(&["a"]).remove(0), oldest], now()).await.unwrap();
        assert_eq!(ids(&queue.read(&name("b"), LIMIT, now()).await), ["1", "2"]);
    }
}

#[tokio::test]
async fn events_wait_for_a_destination_that_is_off_or_pass_it_by() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1"])).await.unwrap();
        queue.attach(&[off(Mode::Waits)], now()).await.unwrap();
        queue.append(events(&["2"])).await.unwrap();
        queue.attach(&[off(Mode::Skips)], now()).await.unwrap();
        queue.append(events(&["3", "4"])).await.unwrap();
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["5"])).await.unwrap();

        assert_eq!(ids(&queue.read(&name("a"), LIMIT, now()).await), ["1", "2", "5"]);
        let books = queue.books(&name("a")).unwrap();
        assert_eq!((books.accepted, books.filtered, books.in_hand, books.balance()), (5, 2, 3, true));
    }
}

#[tokio::test]
async fn events_that_pass_by_a_destination_count_as_filtered_while_it_is_off() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1"])).await.unwrap();
        queue.attach(&[off(Mode::Skips)], now()).await.unwrap();
        queue.append(events(&["2", "3"])).await.unwrap();
        let books = queue.books(&name("a")).unwrap();
        assert_eq!((books.filtered, books.waiting(), books.balance()), (2, 1, true));
        assert_eq!(ids(&queue.read(&name("a"), LIMIT, now()).await), ["1"]);
        assert_eq!(queue.books(&name("a")).unwrap().unread_since, None);
    }
}

#[tokio::test]
async fn what_is_put_back_for_a_destination_that_others_pass_by_waits_for_it() {
    for mut queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.attach(&[off(Mode::Skips)], now()).await.unwrap();
        queue.append(events(&["1"])).await.unwrap();
        queue.put_back(&name("a"), events(&["2", "3"])).await.unwrap();
        queue.append(events(&["4"])).await.unwrap();
        queue.put_back(&name("a"), events(&["5"])).await.unwrap();
        queue.put_back(&name("b"), events(&["6"])).await.unwrap();
        let books = queue.books(&name("a")).unwrap();
        assert_eq!((books.waiting(), books.balance()), (3, true));

        queue.restart();
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["7"])).await.unwrap();
        assert_eq!(ids(&queue.read(&name("a"), LIMIT, now()).await), ["2", "3", "5", "7"]);
        assert!(queue.books(&name("a")).unwrap().balance());
    }
}

fn off(mode: Mode) -> Attachment {
    Attachment { name: name("a"), start: Start::Newest, mode }
}

#[tokio::test]
async fn a_destination_that_was_never_on_gets_no_place() {
    for queue in each_queue() {
        let off = |name: &str, mode| Attachment { name: name.into(), start: Start::Newest, mode };
        queue.attach(&[off("a", Mode::Waits), off("b", Mode::Skips)], now()).await.unwrap();
        assert_eq!((queue.books(&name("a")), queue.books(&name("b"))), (None, None));
    }
}

#[tokio::test]
async fn events_that_wait_can_be_looked_at_without_being_handed_out() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1", "2", "3"])).await.unwrap();
        let read = queue.read(&name("a"), LIMIT, now()).await;
        let verdicts = [
            settled(&read[0], Verdict::RetryAt(later(9), failure())),
            settled(&read[1], Verdict::Delivered),
            settled(&read[2], Verdict::HeldBack(later(5))),
        ];
        queue.settle(&name("a"), verdicts.to_vec(), now()).await;

        let one = ReadLimit { events_max: 1, ..LIMIT };
        let first = queue.waiting(&name("a"), None, one).await;
        assert_eq!(first[0].event.message_id.as_str(), "1");
        let others = queue.waiting(&name("a"), Some(first[0].offset), LIMIT).await;
        assert_eq!(others.iter().map(|entry| entry.event.message_id.as_str()).collect::<Vec<_>>(), ["3"]);
        assert_eq!(queue.books(&name("a")).unwrap().later, 2);
    }
}

#[tokio::test]
async fn dead_letters_come_in_pages_and_go_for_good() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        queue.append(events(&["1", "2", "3"])).await.unwrap();
        let read = queue.read(&name("a"), LIMIT, now()).await;
        let dead = read.iter().map(|delivery| settled(delivery, Verdict::Dead(failure()))).collect();
        queue.settle(&name("a"), dead, now()).await;

        let page = queue.dead_letters(&name("a"), None, 2).await.unwrap();
        let rest = queue.dead_letters(&name("a"), Some(page[1].0), 2).await.unwrap();
        let told = |letters: &[(LetterId, DeadLetter)]| -> Vec<String> {
            letters.iter().map(|(_, letter)| letter.event.message_id.to_string()).collect()
        };
        assert_eq!((told(&page), told(&rest)), (vec!["1".to_owned(), "2".to_owned()], vec!["3".to_owned()]));

        assert_eq!(queue.remove_dead_letters(&name("a"), vec![page[0].0, rest[0].0]).await.unwrap(), 2);
        assert_eq!(queue.remove_dead_letters(&name("a"), vec![page[0].0]).await.unwrap(), 0);
        assert_eq!(told(&queue.dead_letters(&name("a"), None, 9).await.unwrap()), ["2"]);
        let books = queue.books(&name("a")).unwrap();
        assert_eq!((books.dead, books.letters, books.balance()), (3, 1, true));
        assert!(books.letters_bytes > 0);
    }
}

#[tokio::test]
async fn the_log_can_be_read_from_any_offset_and_time() {
    for queue in each_queue() {
        queue.attach(&active(&["a"]), now()).await.unwrap();
        for (seconds, id) in [(0, "1"), (10, "2"), (20, "3")] {
            queue.append(vec![Event { received_at: later(seconds), ..event(id) }]).await.unwrap();
        }
        let told = |history: &History| -> Vec<String> {
            history.entries.iter().map(|entry| entry.event.message_id.to_string()).collect()
        };
        let all = queue.history(Offset(0), LIMIT).await.unwrap();
        assert_eq!((told(&all), all.next), (vec!["1".to_owned(), "2".to_owned(), "3".to_owned()], None));
        let two = queue.history(Offset(0), ReadLimit { events_max: 2, ..LIMIT }).await.unwrap();
        assert_eq!((told(&two).len(), two.next), (2, Some(Offset(2))));
        let from = queue.offset_at(later(10)).await.unwrap();
        assert_eq!(told(&queue.history(from, LIMIT).await.unwrap()), ["2", "3"]);
        assert_eq!(told(&queue.history(Offset(3), LIMIT).await.unwrap()), [""; 0]);
        let report = queue.report();
        assert_eq!((report.first, report.end), (Offset(0), Offset(3)));
    }
}

/// One thing that can happen to a queue.
#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    Read(usize),
    Settle(u8),
    Release,
    Attach(Option<Mode>),
    PutBack(bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_u8..20).prop_map(Step::Append),
        (1_usize..30).prop_map(Step::Read),
        any::<u8>().prop_map(Step::Settle),
        Just(Step::Release),
        prop_oneof![Just(None), Just(Some(Mode::Active)), Just(Some(Mode::Waits)), Just(Some(Mode::Skips))]
            .prop_map(Step::Attach),
        any::<bool>().prop_map(Step::PutBack),
        Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn whatever_happens_the_books_balance_and_nothing_is_handed_out_twice(steps in proptest::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for queue in each_queue() {
            runtime.block_on(run(queue, &steps));
        }
    }
}

async fn run(mut queue: Kept, steps: &[Step]) {
    let (a, mut in_hand, mut next) = (name("a"), Vec::<Delivery>::new(), 0_u32);
    let (mut accepted, mut others) = (0_u64, 0_u64);
    let (mut mode, mut owed) = (Some(Mode::Active), BTreeSet::<String>::new());
    queue.attach(&active(&["a"]), now()).await.unwrap();
    for (time, step) in steps.iter().enumerate() {
        let at = later(i64::try_from(time).unwrap());
        match step {
            Step::Append(count) => {
                let batch: Vec<Event> = (0..u32::from(*count)).map(|n| event(&(next + n).to_string())).collect();
                if mode != Some(Mode::Skips) {
                    owed.extend(batch.iter().map(|event| event.message_id.to_string()));
                }
                next += u32::from(*count);
                accepted += u64::from(*count);
                queue.append(batch).await.unwrap();
            }
            Step::Read(count) => {
                let limit = ReadLimit { events_max: *count, ..LIMIT };
                in_hand.extend(queue.read(&a, limit, at).await);
            }
            Step::Settle(dice) => {
                let count = in_hand.len() / 2 + 1;
                let verdict = |n: usize| match (usize::from(*dice) + n) % 5 {
                    0 => Verdict::Delivered,
                    1 => Verdict::Filtered,
                    2 => Verdict::Dropped,
                    3 => Verdict::RetryAt(at + SignedDuration::from_secs(3), failure()),
                    _ => Verdict::Dead(failure()),
                };
                let of_these = in_hand.drain(..count.min(in_hand.len())).enumerate();
                let settlements: Vec<_> = of_these.map(|(n, d)| (verdict(n), d)).collect();
                for (verdict, delivery) in &settlements {
                    let id = delivery.entry.event.message_id.as_str();
                    assert!(owed.contains(id), "{id} was not for it, or is done");
                    if !matches!(verdict, Verdict::RetryAt(..)) {
                        owed.remove(id);
                    }
                }
                queue.settle(&a, settlements.into_iter().map(|(v, d)| settled(&d, v)).collect(), at).await;
            }
            Step::Release => {
                queue.release(&a);
                in_hand.clear();
            }
            Step::Attach(next) => {
                mode = *next;
                let attachment = mode.map(|mode| Attachment { name: a.clone(), start: Start::Newest, mode });
                queue.attach(attachment.as_slice(), at).await.unwrap();
            }
            Step::PutBack(is_ours) => {
                let id = format!("again-{time}");
                queue.put_back(&name(if *is_ours { "a" } else { "b" }), events(&[&id])).await.unwrap();
                owed.extend(is_ours.then_some(id));
                accepted += u64::from(*is_ours);
                others += u64::from(!*is_ours);
            }
            Step::Restart => {
                queue.restart();
                if queue.is_disk {
                    in_hand.clear();
                }
                let attachment = mode.map(|mode| Attachment { name: a.clone(), start: Start::Newest, mode });
                queue.attach(attachment.as_slice(), at).await.unwrap();
            }
        }
        let mut offsets: Vec<_> = in_hand.iter().map(|delivery| delivery.entry.offset).collect();
        let held = offsets.len();
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!(offsets.len(), held, "handed out twice");
        let books = queue.books(&a).unwrap();
        assert!(books.balance(), "{books:?}");
        assert_eq!(books.in_hand, held as u64);
        // Those put back for others count until this destination has passed them.
        assert!((accepted..=accepted + others).contains(&books.accepted), "{books:?}, {accepted} and {others}");
    }
    queue.attach(&active(&["a"]), now()).await.unwrap();
    queue.release(&a);
    let all = ReadLimit { events_max: 100_000, bytes_max: 1 << 30, waiting_max: 100_000 };
    let left: BTreeSet<String> = ids(&queue.read(&a, all, later(1_000_000)).await).into_iter().collect();
    assert_eq!(left, owed);
}
