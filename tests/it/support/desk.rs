//! Requests to the queue, in this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use libroseg::admin::{ANSWERS_MAX, Answer, Desk, Failed, Letter, LetterLine, Letters, Replayed, Request, run};
use libroseg::attempt::{Attempts, Failure, Reason, SentRequest, Start, Trace, Verdict};
use libroseg::clock::Clock;
use libroseg::config::{self, Environment};
use libroseg::event::{Event, Kind};
use libroseg::plan::Plan;
use libroseg::queue::disk::Disk;
use libroseg::queue::memory::Memory;
use libroseg::queue::{Attachment, Mode, Queue, ReadLimit, Settlement};
use tokio::sync::mpsc;

/// All pieces of an answer.
pub(crate) async fn ask(desk: &Desk, request: Request) -> Vec<Answer> {
    let (sender, mut answers) = mpsc::channel(ANSWERS_MAX);
    let collect = async {
        let mut all = Vec::new();
        while let Some(answer) = answers.recv().await {
            all.push(answer);
        }
        all
    };
    tokio::join!(run(desk, request, sender), collect).1
}

/// The lines of a list, which ended well.
#[track_caller]
pub(crate) fn lines(answers: Vec<Answer>) -> Vec<LetterLine> {
    assert_eq!(answers.last(), Some(&Answer::Done));
    let line = |answer| if let Answer::LetterLine(line) = answer { Some(line) } else { None };
    answers.into_iter().filter_map(line).collect()
}

/// The one whole letter.
#[track_caller]
pub(crate) fn letter(answers: Vec<Answer>) -> Letter {
    let letter = |answer| if let Answer::Letter(letter) = answer { Some(*letter) } else { None };
    answers.into_iter().find_map(letter).expect("a letter")
}

/// What became of letters.
#[track_caller]
pub(crate) fn letters(answers: Vec<Answer>) -> Letters {
    assert_eq!(answers.last(), Some(&Answer::Done));
    let letters = |answer| if let Answer::Letters(letters) = answer { Some(letters) } else { None };
    answers.into_iter().find_map(letters).expect("what became of them")
}

/// What became of a replay.
#[track_caller]
pub(crate) fn replayed(answers: Vec<Answer>) -> Replayed {
    assert_eq!(answers.last(), Some(&Answer::Done));
    let replayed = |answer| if let Answer::Replayed(replayed) = answer { Some(replayed) } else { None };
    answers.into_iter().find_map(replayed).expect("what became of it")
}

/// Why it was not done.
#[track_caller]
pub(crate) fn failed(answers: &[Answer]) -> Failed {
    let Some(Answer::Failed(failed)) = answers.last().cloned() else { panic!("it did not fail: {answers:?}") };
    failed
}

// === a queue without a house ===

/// Two destinations of which one has had three events: it got the first, refused the second, and a rule failed on the
/// third. Whatever is asked of it, the answer is the same every time.
pub(crate) async fn example() -> Desk {
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let queue: Arc<dyn Queue> = Arc::new(Disk::open(super::queue::options(folder.path()), now).unwrap());
    let attachment = |name: &str| Attachment { name: name.into(), start: Start::Newest, mode: Mode::Active };
    queue.attach(&[attachment("crm"), attachment("warehouse")], now).await.unwrap();
    queue.append(vec![upgraded("m1", "u1", now), upgraded("m2", "u2", now), upgraded("m3", "", now)]).await.unwrap();
    let limit = ReadLimit { events_max: 10, bytes_max: 1 << 20, waiting_max: 10 };
    let deliveries = queue.read(&"crm".into(), limit, now).await;
    let verdicts = [Verdict::Delivered, Verdict::Dead(refused()), Verdict::Dead(failed_mapping())];
    let settlements = deliveries.iter().zip(verdicts).map(|(delivery, verdict)| Settlement {
        offset: delivery.entry.offset,
        verdict,
        attempts: Attempts { count: 1, first_at: Some(now), ..Attempts::default() },
    });
    queue.settle(&"crm".into(), settlements.collect(), now + SignedDuration::from_secs(1)).await;
    let body = "body = { user = \"{{ userId | required }}\", plan = \"{{ properties.plan }}\" }\n";
    let plan = plan(&format!(
        "[destinations.crm]\nurl = \"https://crm.example/v1/plans\"\n{body}[destinations.warehouse]\ntype = \"stdout\"\n"
    ));
    let clock = Clock::moved(now + SignedDuration::from_secs(60));
    queue.flush().await.unwrap();
    let plan = move || {
        let _kept = &folder;
        Arc::clone(&plan)
    };
    Desk { queue, plan: Arc::new(plan), clock, dir: Some("data/queue".into()), is_served: true }
}

/// A plan with these destinations.
pub(crate) fn plan(lines: &str) -> Arc<Plan> {
    let text = format!("[sources.web]\nwrite_keys = [\"k\"]\n{lines}");
    let environment = Environment {
        variables: BTreeMap::new(),
        read_file: &|_| Err(std::io::Error::other("there are no files")),
        ..Environment::default()
    };
    let compiled = config::compile(&text, &environment);
    Arc::new(compiled.unwrap_or_else(|mistakes| panic!("{mistakes:?}")).plan)
}

fn upgraded(id: &str, user: &str, now: Timestamp) -> Event {
    let user = if user.is_empty() { String::new() } else { format!(r#""userId":"{user}","#) };
    let json = format!(
        r#"{{"type":"track","event":"Upgraded",{user}"anonymousId":"a1","messageId":"{id}","properties":{{"plan":"gold"}}}}"#
    );
    Event { source: "web".into(), kind: Kind::Track, message_id: id.into(), received_at: now, json: json.into() }
}

fn refused() -> Failure {
    let request = SentRequest {
        method: "POST".to_owned(),
        url: "https://crm.example/v1/plans".to_owned(),
        headers: vec![("authorization".to_owned(), "***".to_owned())],
        body: Some(r#"{"user":"u2","plan":"gold"}"#.to_owned()),
        items: 1,
    };
    let trace = Trace { rule: Some("rules[0]".to_owned()), config: 0xfeed_f00d, request: Some(request) };
    Failure { trace: Some(Box::new(trace)), ..Failure::new(Reason::Status(422), r#"{"error":"no such plan"}"#) }
}

fn failed_mapping() -> Failure {
    Failure::new(Reason::Mapping, "destinations.crm.body.user: `userId` is required, but missing")
}

// === a full queue ===

/// Text of an event large enough that a few of them fill a small queue.
const LARGE_BYTES: usize = 100_000;

/// A queue of six large events that `crm` has settled so and `keeper` has not: there is room for two more.
pub(crate) async fn full_queue(is_served: bool, verdict: &Verdict) -> Desk {
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let queue: Arc<dyn Queue> = Arc::new(Memory::new(9 * LARGE_BYTES as u64, super::queue::dedup()));
    let attachment = |name: &str| Attachment { name: name.into(), start: Start::Newest, mode: Mode::Active };
    queue.attach(&[attachment("crm"), attachment("keeper")], now).await.unwrap();
    let large = |index: usize| Event {
        source: "web".into(),
        kind: Kind::Track,
        message_id: format!("m{index}").into(),
        received_at: now,
        json: format!(r#"{{"type":"track","event":"Large","filler":"{}"}}"#, "x".repeat(LARGE_BYTES)).into(),
    };
    queue.append((0..6).map(large).collect()).await.unwrap();
    settle_all(queue.as_ref(), "crm", verdict).await;
    let plan = plan("[destinations.crm]\ntype = \"stdout\"\n");
    Desk { queue, plan: Arc::new(move || Arc::clone(&plan)), clock: Clock::moved(now), dir: None, is_served }
}

/// Reads everything for a destination and settles it so.
pub(crate) async fn settle_all(queue: &dyn Queue, name: &str, verdict: &Verdict) {
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let limit = ReadLimit { events_max: 100, bytes_max: 1 << 30, waiting_max: 1000 };
    let deliveries = queue.read(&name.into(), limit, now).await;
    let settlements = deliveries.iter().map(|delivery| Settlement {
        offset: delivery.entry.offset,
        verdict: verdict.clone(),
        attempts: Attempts::default(),
    });
    queue.settle(&name.into(), settlements.collect(), now).await;
}
