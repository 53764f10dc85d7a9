//! Events given up on are told of, sent again by the rules of today, and forgotten only when somebody says so.

use libroseg::admin::{Desk, Fault, Moment, Range, Request, Which};
use libroseg::attempt::{DestinationName, Failure, Reason, Verdict};
use serde_json::json;

use crate::support::desk::{ask, example, failed, full_queue, letter, letters, lines};
use crate::support::{Answer, Fake, TestApp};

fn destination(fake: &Fake, name: &str, rest: &str) -> String {
    format!("[destinations.{name}]\nurl = \"{}/{name}\"\n{rest}\n", fake.url())
}

fn of(destination: &str) -> Which {
    Which { destination: Some(destination.to_owned()), ..Which::default() }
}

fn list(which: Which) -> Request {
    Request::Letters { which, newest: None }
}

fn replay(which: Which) -> Request {
    Request::ReplayLetters { which, rate: None, dry_run: false }
}

/// The names of the events that died, in order.
async fn dead(app: &TestApp, which: Which) -> Vec<String> {
    lines(ask(&app.app.desk, list(which)).await).into_iter().map(|line| line.name.unwrap()).collect()
}

const MAPPING: &str = "body = { email = \"{{ properties.email | required }}\" }";

#[tokio::test]
async fn letters_are_listed_newest_last_whichever_destination_they_are_of() {
    let fake = Fake::start();
    let app = TestApp::start(&(destination(&fake, "crm", MAPPING) + &destination(&fake, "mail", MAPPING))).await;

    for event in ["One", "Two", "Three"] {
        app.track("u1", event).await;
        app.quiet().await;
    }

    let all = lines(ask(&app.app.desk, list(Which::default())).await);
    let ids: Vec<u64> = all.iter().map(|line| line.id).collect();
    assert!(ids.is_sorted() && ids.len() == 6, "{ids:?}");
    let names: Vec<&str> = all.iter().map(|line| line.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["One", "One", "Two", "Two", "Three", "Three"]);
    let newest = Request::Letters { which: of("mail"), newest: Some(2) };
    let newest = lines(ask(&app.app.desk, newest).await);
    assert_eq!(newest.iter().map(|line| line.name.as_deref().unwrap()).collect::<Vec<_>>(), ["Two", "Three"]);
}

#[tokio::test]
async fn letters_are_found_by_destination_reason_time_and_content() {
    let fake = Fake::start();
    fake.then_always(Answer::status(400));
    let app = TestApp::start(&(destination(&fake, "crm", "") + &destination(&fake, "mail", MAPPING))).await;
    let begin = app.now();
    app.track_with("u1", "Early", json!({ "total": 1 })).await;
    app.run_for(std::time::Duration::from_hours(1)).await;
    let middle = app.now();
    app.track_with("u2", "Late", json!({ "total": 2 })).await;
    app.quiet().await;

    let with = |which: Which, range: Range| Which { range, ..which };
    let since = Range { since: Some(Moment(middle)), ..Range::default() };
    let until = Range { until: Some(Moment(middle)), ..Range::default() };
    let never = Range { since: Some(Moment(begin)), until: Some(Moment(begin)), filter: None };
    let filter = Range { filter: Some("$.properties.total > 1".to_owned()), ..Range::default() };
    let reason = |reason: &str| Which { reason: Some(reason.to_owned()), ..Which::default() };
    let cases = [
        (of("crm"), vec!["Early", "Late"]),
        (with(of("crm"), since.clone()), vec!["Late"]),
        (with(of("crm"), until), vec!["Early"]),
        (with(Which::default(), never), vec![]),
        (with(of("mail"), filter), vec!["Late"]),
        (reason("mapping"), vec!["Early", "Late"]),
        (reason("status"), vec!["Early", "Late"]),
        (with(reason("400"), since), vec!["Late"]),
        (reason("404"), vec![]),
        (Which { destination: Some("crm".to_owned()), ..reason("mapping") }, vec![]),
    ];
    for (which, expected) in cases {
        assert_eq!(dead(&app, which.clone()).await, expected, "{which:?}");
    }
}

#[tokio::test]
async fn a_question_that_cannot_be_meant_is_told_with_what_to_write() {
    let fake = Fake::start();
    let app = TestApp::start(&destination(&fake, "crm", "")).await;
    let filter = Range { filter: Some("$.event = 'A'".to_owned()), ..Range::default() };
    let reason = Which { reason: Some("maping".to_owned()), ..Which::default() };
    for (which, message, help) in [
        (of("crn"), "knows no destination `crn`", "it knows: crm"),
        (reason, "`maping` is not a reason", "one of status, response"),
        (Which { range: filter, ..Which::default() }, "wrong at character 9: unexpected `=`", "equality is `==`"),
    ] {
        let failed = failed(&ask(&app.app.desk, list(which)).await);
        assert_eq!(failed.fault, Fault::Unable);
        assert!(failed.message.contains(message), "{failed:?}");
        assert!(failed.help.as_ref().unwrap().contains(help), "{failed:?}");
    }
}

#[tokio::test]
async fn a_letter_tells_everything_that_is_known() {
    let desk = example().await;
    let id = lines(ask(&desk, list(Which::default())).await)[0].id;
    let letter = letter(ask(&desk, Request::Letter { id }).await);
    insta::assert_snapshot!(serde_json::to_string_pretty(&letter).unwrap());
}

#[tokio::test]
async fn a_corrected_template_heals_what_is_replayed() {
    let fake = Fake::start();
    let app = TestApp::start(&destination(&fake, "crm", MAPPING)).await;
    app.track("u1", "One").await;
    app.track("u2", "Two").await;
    app.quiet().await;
    assert_eq!((fake.requests().len(), app.books("crm").letters), (0, 2));

    let corrected = "body = { email = \"{{ properties.email or 'none' }}\", event = \"{{ event }}\" }";
    assert!(app.reload(&destination(&fake, "crm", corrected)).await);
    let told = letters(ask(&app.app.desk, replay(Which::default())).await);
    assert_eq!((told.matching, told.done, told.destinations["crm"]), (2, 2, 2));
    app.quiet().await;

    let events: Vec<String> = fake.bodies().iter().map(|body| body["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events.len(), 2, "{events:?}");
    let books = app.books("crm");
    assert_eq!((books.letters, books.delivered, books.dead, books.accepted), (0, 2, 2, 4));
}

#[tokio::test]
async fn a_letter_that_dies_again_is_a_new_letter_and_is_not_replayed_twice() {
    let fake = Fake::start();
    fake.then_always(Answer::status(400));
    let app = TestApp::start(&destination(&fake, "crm", "")).await;
    app.track_many(100).await;
    app.quiet().await;
    let before = lines(ask(&app.app.desk, list(Which::default())).await);

    let told = letters(ask(&app.app.desk, replay(Which::default())).await);
    app.quiet().await;

    assert_eq!((told.done, fake.requests().len()), (100, 200));
    let after = lines(ask(&app.app.desk, list(Which::default())).await);
    assert_eq!(after.len(), 100);
    assert!(after[0].id > before.last().unwrap().id, "ids are not used again");
}

#[tokio::test]
async fn only_the_letters_asked_for_are_replayed() {
    let fake = Fake::start();
    fake.then_always(Answer::status(400));
    let app = TestApp::start(&(destination(&fake, "crm", "") + &destination(&fake, "mail", ""))).await;
    for event in ["One", "Two", "Three"] {
        app.track("u1", event).await;
        app.quiet().await;
    }
    fake.then_always(Answer::status(200));
    let ids: Vec<u64> = lines(ask(&app.app.desk, list(of("mail"))).await).iter().map(|line| line.id).collect();

    letters(ask(&app.app.desk, replay(Which { ids: vec![ids[2], ids[0]], ..Which::default() })).await);
    app.quiet().await;

    assert_eq!(dead(&app, of("mail")).await, ["Two"]);
    assert_eq!(dead(&app, of("crm")).await.len(), 3);
    assert_eq!((app.books("mail").delivered, app.books("crm").delivered), (2, 0));
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let fake = Fake::start();
    fake.then_always(Answer::status(400));
    let app = TestApp::start(&destination(&fake, "crm", "")).await;
    app.track_many(3).await;
    app.quiet().await;

    let which = Which::default();
    let replayed = Request::ReplayLetters { which: which.clone(), rate: None, dry_run: true };
    for request in [replayed, Request::PurgeLetters { which, dry_run: true }] {
        let told = letters(ask(&app.app.desk, request).await);
        assert_eq!((told.matching, told.done, told.dry_run), (3, 0, true));
    }
    app.quiet().await;
    assert_eq!((fake.requests().len(), app.books("crm").letters), (3, 3));
}

#[tokio::test]
async fn purged_letters_are_gone_and_no_others() {
    let fake = Fake::start();
    fake.then_always(Answer::status(400));
    let app = TestApp::start(&destination(&fake, "crm", "")).await;
    for event in ["One", "Two"] {
        app.track("u1", event).await;
    }
    app.quiet().await;

    let range = Range { filter: Some("$.event == 'One'".to_owned()), ..Range::default() };
    let request = Request::PurgeLetters { which: Which { range, ..Which::default() }, dry_run: false };
    assert_eq!(letters(ask(&app.app.desk, request).await).done, 1);

    assert_eq!(dead(&app, Which::default()).await, ["Two"]);
    assert_eq!(fake.requests().len(), 2, "nothing was sent");
}

#[tokio::test]
async fn an_id_that_no_letter_has_is_found_wrong_before_anything_is_done() {
    let fake = Fake::start();
    fake.then_always(Answer::status(400));
    let app = TestApp::start(&destination(&fake, "crm", "")).await;
    app.track("u1", "One").await;
    app.quiet().await;
    let id = lines(ask(&app.app.desk, list(Which::default())).await)[0].id;

    let which = Which { ids: vec![id, 98, 99], ..Which::default() };
    let purge = Request::PurgeLetters { which: which.clone(), dry_run: false };
    for request in [Request::Letter { id: 99 }, replay(which), purge] {
        let failed = failed(&ask(&app.app.desk, request).await);
        assert_eq!(failed.fault, Fault::Wrong);
        assert!(failed.message.ends_with("99"), "{failed:?}");
    }
    assert_eq!((fake.requests().len(), app.books("crm").letters), (1, 1));
}

#[tokio::test]
async fn letters_of_a_destination_that_is_gone_can_be_read_and_wait_when_replayed() {
    let fake = Fake::start();
    fake.then_always(Answer::status(400));
    let app = TestApp::start(&(destination(&fake, "old", "") + &destination(&fake, "crm", ""))).await;
    app.track("u1", "One").await;
    app.quiet().await;
    app.reload(&destination(&fake, "crm", "")).await;
    fake.then_always(Answer::status(200));

    assert_eq!(dead(&app, of("old")).await, ["One"]);
    let told = letters(ask(&app.app.desk, replay(of("old"))).await);
    assert!(told.notes[0].contains("`old` is not in force"), "{told:?}");
    app.quiet().await;
    assert_eq!(app.books("old").waiting(), 1);

    app.reload(&(destination(&fake, "old", "") + &destination(&fake, "crm", ""))).await;
    app.quiet().await;
    assert_eq!((app.books("old").delivered, app.books("crm").delivered), (1, 0));
}

#[tokio::test]
async fn letters_replayed_for_a_destination_that_skips_wait_until_it_is_on() {
    let fake = Fake::start();
    fake.then_always(Answer::status(400));
    let app = TestApp::start(&destination(&fake, "crm", "")).await;
    app.track("u1", "One").await;
    app.quiet().await;
    fake.then_always(Answer::status(200));
    assert!(app.reload(&destination(&fake, "crm", "enabled = false\nwhen_disabled = \"skip\"")).await);
    app.track("u1", "Skipped").await;

    let told = letters(ask(&app.app.desk, replay(Which::default())).await);
    assert_eq!(told.done, 1);
    assert!(app.reload(&destination(&fake, "crm", "")).await);
    app.quiet().await;

    let books = app.books("crm");
    assert_eq!((books.letters, books.delivered, books.filtered), (0, 1, 1));
}

#[tokio::test]
async fn letters_that_there_is_no_room_for_stay_letters() {
    let desk = full_queue(false, &Verdict::Dead(Failure::new(Reason::Mapping, "no"))).await;
    let failed = failed(&ask(&desk, replay(Which::default())).await);
    assert!(failed.message.contains("the queue is full") && failed.message.contains("2 events put back"), "{failed:?}");
    let books = desk.queue.books(&"crm".into()).unwrap();
    assert_eq!((books.letters, books.waiting()), (4, 2), "each is either a letter or on its way");
}

#[tokio::test]
async fn without_a_service_letters_are_put_back_for_when_it_starts() {
    let fake = Fake::start();
    fake.then_always(Answer::status(400));
    let app = TestApp::start(&destination(&fake, "crm", "")).await;
    app.track("u1", "One").await;
    app.quiet().await;
    let desk = &app.app.desk;
    let stopped = Desk {
        queue: desk.queue.clone(),
        plan: desk.plan.clone(),
        clock: desk.clock.clone(),
        dir: None,
        is_served: false,
    };

    let paced = Request::ReplayLetters { which: Which::default(), rate: Some(10.0), dry_run: false };
    let failed = failed(&ask(&stopped, paced).await);
    assert!(failed.message.contains("no service runs"), "{failed:?}");
    assert_eq!(app.books("crm").letters, 1);

    let told = letters(ask(&stopped, replay(Which::default())).await);
    assert_eq!(told.notes, ["no service runs: 1 event will be sent when it starts"]);
    let crm = DestinationName::from("crm");
    assert_eq!(app.app.queue.books(&crm).unwrap().accepted, 2);
}
