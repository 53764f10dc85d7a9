//! What every kind of queue does. A new kind is one more line in `each_queue`.

use std::sync::Arc;

use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use libroseg::attempt::{Attempts, DestinationName, Failure, Reason, Verdict};
use libroseg::event::{Event, Kind};
use libroseg::queue::memory::Memory;
use libroseg::queue::{AppendError, Delivery, Queue, ReadLimit, Settlement};
use proptest::prelude::*;

const LIMIT: ReadLimit = ReadLimit { events_max: 100, bytes_max: 1 << 20, waiting_max: 1000 };

fn each_queue() -> Vec<Arc<dyn Queue>> {
    vec![Arc::new(Memory::new(1 << 20))]
}

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn later(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

fn event(id: &str) -> Event {
    Event {
        source: "test".into(),
        kind: Kind::Track,
        message_id: id.into(),
        received_at: now(),
        json: format!(r#"{{"type":"track","messageId":"{id}"}}"#).into(),
    }
}

fn events(ids: &[&str]) -> Vec<Event> {
    ids.iter().map(|id| event(id)).collect()
}

fn name(destination: &str) -> DestinationName {
    destination.into()
}

fn ids(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| delivery.entry.event.message_id.to_string()).collect()
}

fn settled(delivery: &Delivery, verdict: Verdict) -> Settlement {
    Settlement { offset: delivery.entry.offset, verdict, attempts: Attempts { count: 1, ..Attempts::default() } }
}

fn failure() -> Failure {
    Failure::new(Reason::Timeout, "no reply")
}

#[tokio::test]
async fn every_destination_reads_every_event_once_in_order() {
    for queue in each_queue() {
        queue.attach(&[name("a"), name("b")]).await;
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
        queue.attach(&[name("a")]).await;
        queue.append(events(&["1"])).await.unwrap();
        queue.attach(&[name("a"), name("b")]).await;
        queue.append(events(&["2"])).await.unwrap();

        assert_eq!(ids(&queue.read(&name("b"), LIMIT, now()).await), ["2"]);
        assert_eq!(queue.books(&name("b")).unwrap().accepted, 1);
        assert_eq!(queue.books(&name("c")), None);
    }
}

#[tokio::test]
async fn a_removed_destination_goes_on_where_it_stopped() {
    for queue in each_queue() {
        queue.attach(&[name("a")]).await;
        queue.append(events(&["1"])).await.unwrap();
        queue.attach(&[]).await;
        queue.append(events(&["2"])).await.unwrap();
        queue.attach(&[name("a")]).await;

        assert_eq!(ids(&queue.read(&name("a"), LIMIT, now()).await), ["1", "2"]);
    }
}

#[tokio::test]
async fn an_event_that_waits_comes_back_when_it_is_due_with_its_attempts() {
    for queue in each_queue() {
        queue.attach(&[name("a")]).await;
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
        queue.attach(&[name("a")]).await;
        queue.append(events(&["1"])).await.unwrap();
        let read = queue.read(&name("a"), LIMIT, now()).await;
        queue.settle(&name("a"), vec![settled(&read[0], Verdict::Dead(failure()))], later(1)).await;

        let letters = queue.dead_letters(&name("a"));
        assert_eq!(letters.len(), 1);
        assert_eq!((&letters[0].event, &letters[0].failure), (&event("1"), &failure()));
        assert_eq!((letters[0].attempts.count, letters[0].died_at), (1, later(1)));
        let books = queue.books(&name("a")).unwrap();
        assert_eq!((books.dead, books.waiting(), books.balance()), (1, 0, true));
    }
}

#[tokio::test]
async fn what_its_holder_lost_is_handed_out_again() {
    for queue in each_queue() {
        queue.attach(&[name("a")]).await;
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
        queue.attach(&[name("a")]).await;
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
        queue.attach(&[name("a")]).await;
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
        queue.attach(&[name("a")]).await;
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
    let queue = Memory::new(70);
    queue.attach(&[name("a")]).await;
    assert!(queue.append(events(&["1", "2", "3"])).await.is_err());
    queue.append(events(&["1", "2"])).await.unwrap();
    assert_eq!(ids(&queue.read(&name("a"), LIMIT, now()).await), ["1", "2"]);
}

#[tokio::test]
async fn a_reader_hears_of_an_append_that_came_before_it_listened() {
    for queue in each_queue() {
        queue.attach(&[name("a")]).await;
        let changed = queue.changed();
        queue.append(events(&["1"])).await.unwrap();
        assert!(changed.now_or_never().is_some());
        assert!(queue.changed().now_or_never().is_none());
    }
}

#[tokio::test]
async fn a_full_queue_takes_all_or_nothing_and_has_room_again_once_events_are_settled() {
    let queue = Memory::new(100);
    queue.attach(&[name("a")]).await;
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
    let queue = Memory::new(100);
    queue.attach(&[name("gone"), name("a")]).await;
    queue.append(events(&["1", "2"])).await.unwrap();
    let read = queue.read(&name("a"), LIMIT, now()).await;
    queue.settle(&name("a"), read.iter().map(|d| settled(d, Verdict::Delivered)).collect(), now()).await;
    queue.attach(&[name("a")]).await;

    queue.append(events(&["3", "4"])).await.unwrap();
    assert_eq!(queue.books(&name("gone")), None);
}

/// One thing that can happen to a queue.
#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    Read(usize),
    Settle(u8),
    Release,
    Attach(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_u8..20).prop_map(Step::Append),
        (1_usize..30).prop_map(Step::Read),
        any::<u8>().prop_map(Step::Settle),
        Just(Step::Release),
        any::<bool>().prop_map(Step::Attach),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_books_balance_and_nothing_is_handed_out_twice(steps in proptest::collection::vec(step(), 1..80)) {
        for queue in each_queue() {
            run(queue.as_ref(), &steps);
        }
    }
}

fn run(queue: &dyn Queue, steps: &[Step]) {
    let (a, mut in_hand, mut next) = (name("a"), Vec::<Delivery>::new(), 0_u32);
    queue.attach(std::slice::from_ref(&a)).now_or_never().unwrap();
    for (time, step) in steps.iter().enumerate() {
        let at = later(i64::try_from(time).unwrap());
        match step {
            Step::Append(count) => {
                let batch: Vec<Event> = (0..u32::from(*count)).map(|n| event(&(next + n).to_string())).collect();
                next += u32::from(*count);
                queue.append(batch).now_or_never().unwrap().unwrap();
            }
            Step::Read(count) => {
                let limit = ReadLimit { events_max: *count, ..LIMIT };
                in_hand.extend(queue.read(&a, limit, at).now_or_never().unwrap());
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
                let settlements = in_hand
                    .drain(..count.min(in_hand.len()))
                    .enumerate()
                    .map(|(n, d)| settled(&d, verdict(n)))
                    .collect();
                queue.settle(&a, settlements, at).now_or_never().unwrap();
            }
            Step::Release => {
                queue.release(&a);
                in_hand.clear();
            }
            Step::Attach(is_there) => {
                let names = if *is_there { vec![a.clone()] } else { Vec::new() };
                queue.attach(&names).now_or_never().unwrap();
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
        assert_eq!(books.accepted, u64::from(next));
    }
}
