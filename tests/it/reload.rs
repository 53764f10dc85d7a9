//! The file is edited while events flow: a good file takes effect whole, a broken one not at all, and nothing is lost
//! or sent twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::app::HEAD;
use crate::support::{Answer, Binary, Fake, TestApp, client, eventually};

fn hook(fake: &Fake, name: &str, version: usize) -> String {
    format!(
        "[destinations.{name}]\nurl = \"{}/{name}\"\nbody = {{ id = \"{{{{ messageId }}}}\", v = {version} }}\n",
        fake.url()
    )
}

#[tokio::test]
async fn destinations_are_added_changed_and_removed_without_a_restart() {
    let fake = Fake::start();
    let app = TestApp::start(&hook(&fake, "a", 1)).await;
    let send = async |event: &str| {
        app.track("u1", event).await;
        app.quiet().await;
    };

    send("one").await;
    assert!(app.reload(&(hook(&fake, "a", 2) + &hook(&fake, "b", 1))).await);
    send("two").await;
    assert!(app.reload(&hook(&fake, "b", 1)).await);
    send("three").await;
    assert!(!app.reload(&hook(&fake, "b", 1)).await, "nothing changed");

    let mut seen: Vec<(String, u64)> =
        fake.requests().iter().map(|request| (request.path.clone(), request.body["v"].as_u64().unwrap())).collect();
    seen.sort();
    let expected = [("/a", 1), ("/a", 2), ("/b", 1), ("/b", 1)].map(|(path, version)| (path.to_owned(), version));
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_broken_file_keeps_the_old_plan_in_force_and_ready_says_so() {
    let fake = Fake::start();
    let app = TestApp::start(&hook(&fake, "a", 1)).await;
    let ready = async || {
        let response = client().get(format!("http://{}/ready", app.address)).send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str::<serde_json::Value>(&response.text().await.unwrap()).unwrap())
    };
    assert_eq!(ready().await.1["config"]["state"], "ok");

    assert!(!app.reload("[destinations.a]\nurl = 3\nurk = \"x\"\n").await);
    app.track("u1", "still").await;
    app.quiet().await;

    assert_eq!(fake.requests().len(), 1);
    let (status, body) = ready().await;
    assert_eq!((status, &body["config"]["state"], &body["config"]["errors"]), (200, &json!("broken"), &json!(2)));

    assert!(app.reload(&hook(&fake, "a", 2)).await);
    assert_eq!(ready().await.1["config"]["state"], "ok");
}

#[tokio::test]
async fn a_file_caught_empty_while_an_editor_writes_it_changes_nothing() {
    let fake = Fake::start();
    let app = TestApp::start(&hook(&fake, "a", 1)).await;
    std::fs::write(app.path(), " \n").unwrap();
    assert!(!app.app.refresh().await);
    app.track("u1", "still").await;
    app.quiet().await;
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn a_corrected_template_heals_what_is_waiting() {
    let fake = Fake::start();
    fake.then_always(Answer::status(503));
    let app = TestApp::start(&hook(&fake, "a", 1)).await;
    app.track("u1", "Any").await;
    app.quiet().await;

    fake.then_always(Answer::status(200));
    app.reload(&hook(&fake, "a", 2)).await;
    app.run_for(Duration::from_secs(5)).await;

    let versions: Vec<_> = fake.bodies().iter().map(|body| body["v"].as_u64().unwrap()).collect();
    assert_eq!(versions, [1, 2]);
}

#[tokio::test]
async fn new_rules_end_a_rest_at_once() {
    let fake = Fake::start();
    fake.then_always(Answer::status(401));
    let app = TestApp::start(&hook(&fake, "a", 1)).await;
    app.track_many(20).await;
    app.quiet().await;
    let before = fake.requests().len();

    fake.then_always(Answer::status(200));
    app.reload(&hook(&fake, "a", 2)).await;
    app.quiet().await;
    assert!(fake.requests().len() > before);
    app.run_for(Duration::from_mins(2)).await;
    assert_eq!(app.books("a").delivered, 20);
}

#[tokio::test]
async fn a_batch_in_flight_ends_under_the_plan_it_began_with() {
    let fake = Fake::replying([Answer::hang()]);
    let app = TestApp::start(&hook(&fake, "a", 1)).await;
    app.track("u1", "Any").await;
    fake.has(1).await;

    app.reload(&hook(&fake, "a", 2)).await;
    fake.let_go();
    app.quiet().await;

    assert_eq!(fake.requests().len(), 1, "it is not sent again under the new plan");
    assert_eq!(app.books("a").delivered, 1);
}

#[tokio::test]
async fn events_of_a_removed_destination_wait_for_its_return() {
    let fake = Fake::start();
    let both = hook(&fake, "a", 1) + &hook(&fake, "b", 1);
    let app = TestApp::start(&both).await;
    app.reload(&hook(&fake, "b", 1)).await;
    app.track("u1", "While away").await;
    app.quiet().await;
    assert_eq!(app.books("a").waiting(), 1);

    app.reload(&both).await;
    app.quiet().await;
    assert_eq!((app.books("a").delivered, app.books("b").delivered), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_reloads_under_traffic_lose_nothing_and_send_nothing_twice() {
    const RELOADS: usize = 3000;
    let fake = Fake::start();
    let file = |n: usize| match n % 4 {
        0 => hook(&fake, "a", n) + &hook(&fake, "b", 0),
        1 => hook(&fake, "a", n),
        2 => "[destinations.a]\nurl = 1\n".to_owned(),
        _ => hook(&fake, "a", n) + &hook(&fake, "b", n) + "batch = { max_events = 7, max_age = \"1s\" }\n",
    };
    let app = Arc::new(TestApp::start(&file(0)).await);

    let is_over = Arc::new(AtomicBool::new(false));
    let sender = {
        let (app, is_over) = (Arc::clone(&app), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut sent = 0;
            while !is_over.load(Ordering::Relaxed) || sent < 500 {
                app.track("u1", "Storm").await;
                sent += 1;
            }
            sent
        })
    };
    for n in 1..RELOADS {
        app.reload(&file(n)).await;
        if n % 50 == 0 {
            app.clock.advance_to(app.now() + jiff::SignedDuration::from_secs(1));
        }
        tokio::task::yield_now().await;
    }
    is_over.store(true, Ordering::Relaxed);
    let sent = sender.await.unwrap();
    app.reload(&file(0)).await;
    app.run_for(Duration::from_mins(1)).await;

    let mut times: BTreeMap<(String, String), usize> = BTreeMap::new();
    for request in fake.requests() {
        let items = request.body.as_array().cloned().unwrap_or_else(|| vec![request.body.clone()]);
        for item in items {
            *times.entry((request.path.clone(), item["id"].as_str().unwrap().to_owned())).or_default() += 1;
        }
    }
    assert_eq!(times.len(), 2 * sent, "each event once at each destination");
    let twice: Vec<_> = times.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "sent twice: {twice:?}");
    assert_eq!((app.books("a").delivered, app.books("b").delivered), (sent as u64, sent as u64));
}

#[tokio::test]
async fn the_running_binary_notices_an_edit_however_the_editor_makes_it() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libroseg.toml");
    let text = |version| format!("[server]\nlisten = \"127.0.0.1:0\"\n{HEAD}{}", hook(&fake, "a", version));
    std::fs::write(&file, text(0)).unwrap();
    let binary = Binary::start(&file);
    let reloads = || binary.log().matches("reloaded").count();

    std::fs::write(&file, text(1)).unwrap();
    eventually("a write in place is seen", || reloads() == 1).await;

    std::fs::write(folder.path().join("new"), text(2)).unwrap();
    std::fs::rename(folder.path().join("new"), &file).unwrap();
    eventually("a rename over it is seen", || reloads() == 2).await;

    std::fs::write(&file, "[destinations.a]\nurk = 1\n").unwrap();
    let is_told = || {
        let log = binary.log();
        log.contains("the old configuration stays in force") && log.contains("libroseg.toml:2:1")
    };
    eventually("a mistake is told with its place", is_told).await;

    let body = json!({ "userId": "u1", "event": "Any" }).to_string();
    let sent = client().post(format!("{}/v1/track", binary.url)).basic_auth("test_write_key", Some("")).body(body);
    assert_eq!(sent.send().await.unwrap().status(), 200);
    assert_eq!(fake.has(1).await[0].body["v"], 2);
}

#[tokio::test]
async fn the_log_of_a_reload_tells_which_keys_changed_without_secrets_and_not_endlessly() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libroseg.toml");
    let text = |version: &str, keys: usize| {
        let body = (0..keys).map(|key| format!("body.k{key} = {key}\n")).collect::<Vec<_>>().concat();
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n{HEAD}[let]\nv = \"{version}\"\n[destinations.a]\nurl = \"http://a.example\"\n\
             auth = {{ bearer = \"secret-{version}\" }}\nbody.v = \"{{{{ v }}}}\"\n{body}"
        )
    };
    std::fs::write(&file, text("one", 0)).unwrap();
    let binary = Binary::start(&file);
    std::fs::write(&file, text("two", 0)).unwrap();
    let is_told = || {
        let log = binary.log();
        ["changed=a", "~ let.v: \"one\" → \"two\"", "~ auth.bearer: another secret"]
            .iter()
            .all(|line| log.contains(line))
    };
    eventually("the keys are told", is_told).await;
    let is_secret = |line: &&str| line.contains(" INFO ") && line.contains("secret-");
    assert_eq!(binary.log().lines().find(is_secret), None);

    std::fs::write(&file, text("two", 30)).unwrap();
    eventually("it is told that there is more", || binary.log().contains("and 10 more")).await;
    assert_eq!(binary.log().matches("+ body.k").count(), 20, "{}", binary.log());
}

#[tokio::test]
async fn an_event_delivered_in_part_counts_as_delivered_when_new_rules_want_no_more_of_it() {
    let fake = Fake::replying([Answer::status(200), Answer::status(503)]);
    let rules = |rest: &str| {
        let url = fake.url();
        format!("[destinations.a]\nurl = \"{url}\"\n[[destinations.a.rules]]\non = \"track\"\npath = \"/one\"\n{rest}")
    };
    let app = TestApp::start(&rules("[[destinations.a.rules]]\npath = \"/two\"\n")).await;
    app.track("u1", "Any").await;
    app.quiet().await;
    assert_eq!(app.books("a").later, 1);

    app.reload(&rules("").replace("\"track\"", "\"identify\"")).await;
    app.run_for(Duration::from_mins(1)).await;
    let books = app.books("a");
    assert_eq!((books.delivered, books.filtered, fake.requests().len()), (1, 0, 2));
}
