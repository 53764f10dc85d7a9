//! The compiler as a whole: what a file means.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::{Diagnostic, Environment, Unset, compile};
use crate::attempt::Start;
use crate::event::{Message, MessageId, SourceName};
use crate::expr::{Escape, Omit, Scope};
use crate::plan::{
    Auth, Batch, Compression, Destination, DestinationKind, Disabled, Encoding, Mapping, Metrics, Plan, QueueAck,
    QueueKind, QueueSettings, RequestTemplate,
};

const VARIABLES: [(&str, &str); 4] =
    [("TOKEN", "t0k"), ("URL", "https://a.example.com/v1"), ("EMPTY", ""), ("NO", "False")];

fn read_file(path: &Path) -> io::Result<String> {
    if path == Path::new("/secret") { Ok("from-a-file\r\n".to_owned()) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn compile_with(text: &str, variables: &[(&str, &str)]) -> Result<Plan, Vec<Diagnostic>> {
    let variables: BTreeMap<_, _> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    compile(text, &Environment { variables, read_file: &read_file, ..Environment::default() })
        .map(|compiled| compiled.plan)
}

fn plan(text: &str) -> Plan {
    compile_with(text, &VARIABLES).unwrap_or_else(|found| panic!("{found:#?}"))
}

/// The codes of what is wrong.
fn codes(text: &str) -> Vec<&'static str> {
    match compile_with(text, &VARIABLES) {
        Ok(_) => Vec::new(),
        Err(found) => found.iter().filter(|found| found.is_error()).map(|found| found.code.as_str()).collect(),
    }
}

/// The one destination of a file that says only this of it.
fn destination(text: &str) -> std::sync::Arc<Destination> {
    let plan = plan(&format!("[destinations.d]\nurl = 'https://a.example.com'\n{text}"));
    std::sync::Arc::clone(&plan.destinations[0])
}

fn url(request: &RequestTemplate) -> &str {
    request.url.as_ref().unwrap().as_constant().unwrap().as_str().unwrap()
}

fn texts(pairs: &[(String, crate::expr::template::Template)]) -> Vec<(&str, &str)> {
    pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_constant().and_then(|value| value.as_str()).unwrap_or("?")))
        .collect()
}

// --- defaults of the language

#[test]
fn a_url_is_all_a_destination_needs() {
    let destination = destination("");
    let rule = &destination.rules[0];
    assert_eq!(destination.rules.len(), 1);
    assert_eq!(destination.kind, DestinationKind::Http);
    assert_eq!(destination.integrations, ["d"]);
    assert_eq!(destination.sources, None);
    assert_eq!(
        (rule.request.method.as_str(), rule.request.encoding, rule.request.omit),
        ("POST", Encoding::Json, Omit::Nothing)
    );
    assert!(matches!(rule.request.body, Some(Mapping::Template(_))), "the whole event");
    assert!(rule.on.is_empty() && rule.when.is_empty() && rule.batch.is_none() && !rule.is_final);
}

#[test]
fn a_request_that_fetches_has_no_body_unless_it_says_so() {
    assert!(destination("method = 'get'").rules[0].request.body.is_none());
    assert_eq!(destination("method = 'get'").rules[0].request.method, "GET");
    assert!(destination("method = 'DELETE'\nbody = { a = 1 }").rules[0].request.body.is_some());
}

#[test]
fn a_file_of_comments_is_a_plan_without_destinations() {
    let plan = plan("# Nothing yet.");
    assert!(plan.destinations.is_empty() && plan.policy.sources.is_empty());
    assert_eq!(plan.server.listen, "0.0.0.0:8080");
}

#[test]
fn a_file_destination_writes_lines_in_pieces() {
    let plan = plan("[destinations.f]\ntype = 'file'\npath = 'e/%Y.ndjson'\nrotate = '1MB'\ncompression = 'gzip'");
    let DestinationKind::File(file) = &plan.destinations[0].kind else { panic!("a file") };
    assert_eq!(
        (file.path.as_str(), file.rotate_bytes, file.compression),
        ("e/%Y.ndjson", Some(1_000_000), Compression::Gzip)
    );
    let rule = &plan.destinations[0].rules[0];
    assert_eq!(rule.request.encoding, Encoding::Ndjson);
    assert!(rule.request.url.is_none() && rule.batch.is_some());
}

// --- merging

#[test]
fn a_rule_wins_over_its_destination_and_adds_to_it() {
    let destination = destination(
        "method = 'PUT'\nheaders = { X-A = '1', X-B = '2' }\nquery = { a = '1', b = '2' }\nbody = { a = 1 }\n\
         [[destinations.d.rules]]\n\
         [[destinations.d.rules]]\nurl = 'https://b.example.com'\nmethod = 'PATCH'\nheaders = { x-b = '3', x-c = '4' }\n\
         query = { b = '3' }\nbody = { b = 2 }",
    );
    let (first, second) = (&destination.rules[0].request, &destination.rules[1].request);
    assert_eq!((url(first), first.method.as_str()), ("https://a.example.com", "PUT"));
    assert_eq!(texts(&first.headers), [("x-a", "1"), ("x-b", "2")]);
    assert_eq!((url(second), second.method.as_str()), ("https://b.example.com", "PATCH"));
    assert_eq!(texts(&second.headers), [("x-a", "1"), ("x-b", "3"), ("x-c", "4")]);
    assert_eq!(texts(&second.query), [("a", "1"), ("b", "3")]);
    assert!(matches!(&second.body, Some(Mapping::Constant(json)) if json == r#"{"b":2}"#));
}

#[test]
fn rules_share_the_destinations_batches_unless_they_have_their_own() {
    let destination = destination(
        "batch = { max_events = 7, max_age = '5s' }\n[[destinations.d.rules]]\n[[destinations.d.rules]]\n\
         [[destinations.d.rules]]\nbatch = { max_events = 9 }\n[[destinations.d.rules]]\nbatch = false",
    );
    let batch = |index: usize| destination.rules[index].batch.as_ref();
    assert!(std::sync::Arc::ptr_eq(batch(0).unwrap(), batch(1).unwrap()));
    assert_eq!((batch(2).unwrap().events_max, batch(2).unwrap().age_max), (9, Duration::from_secs(5)));
    assert!(batch(3).is_none());
}

#[test]
fn defaults_hold_for_every_destination_they_suit() {
    let plan = plan(
        "[defaults]\ntimeout = '7s'\nheaders = { X-A = '1' }\nretry = { first = '2s' }\n\
         [destinations.a]\nurl = 'https://a.example.com'\nheaders = { X-B = '2' }\nretry = { delay_max = '3s' }\n\
         [destinations.b]\ntype = 'stdout'\ntimeout = '1s'",
    );
    let (a, b) = (&plan.destinations[0], &plan.destinations[1]);
    assert_eq!(texts(&a.rules[0].request.headers), [("x-a", "1"), ("x-b", "2")]);
    assert_eq!(
        (a.timeout, a.retry.first, a.retry.delay_max),
        (Duration::from_secs(7), Duration::from_secs(2), Duration::from_secs(3))
    );
    assert_eq!((b.timeout, b.retry.first), (Duration::from_secs(1), Duration::from_secs(2)));
}

#[test]
fn a_destinations_own_let_wins() {
    let plan = plan(
        "[let]\nwho = 'shared'\nx = '1'\n[destinations.d]\nurl = 'https://a.example.com'\nlet = { who = 'own' }\nbody = { a = '{{ who }}{{ x }}' }",
    );
    let lets: Vec<_> = texts(&plan.destinations[0].names.lets);
    assert_eq!(lets, [("x", "1"), ("who", "own")]);
}

// --- folding

#[test]
fn variables_and_files_are_settled_when_the_file_is_read() {
    let destination = destination(
        "auth = { basic = ['u', '{{ env.TOKEN }}'] }\nheaders = { X-K = \"Key {{ file('/secret') }}\" }\n\
         path = '/{{ env.TOKEN | upper }}/x'",
    );
    let request = &destination.rules[0].request;
    let Auth::Basic { user, password } = &destination.auth else { panic!("basic") };
    assert_eq!((user.as_str(), password.as_str()), ("u", "t0k"));
    assert_eq!(texts(&request.headers), [("x-k", "Key from-a-file")]);
    assert_eq!(request.path.as_ref().unwrap().as_constant().unwrap().as_str(), Some("/T0K/x"));
}

#[test]
fn a_variable_is_text_and_never_parsed_again() {
    let text = "[destinations.d]\nurl = 'https://a.example.com'\nheaders = { X-A = '{{ env.EVIL }}' }";
    let plan = compile_with(text, &[("EVIL", "{{ userId }}")]).unwrap();
    assert_eq!(texts(&plan.destinations[0].rules[0].request.headers), [("x-a", "{{ userId }}")]);
}

#[test]
fn expressions_see_the_variables_they_name_and_no_others() {
    let destination = destination("body = { a = '{{ properties.x or env.TOKEN }}' }");
    let env = &destination.names.env;
    assert_eq!(env.get_attr("TOKEN").unwrap().as_str(), Some("t0k"));
    assert!(env.get_attr("URL").unwrap().is_undefined());
}

#[test]
fn an_optional_variable_may_be_unset() {
    for optional in
        ["env.NONE | default('x')", "env.NONE or 'x'", "coalesce(env.NONE, 'x')", "'y' if env.NONE else 'x'"]
    {
        assert_eq!(
            codes(&format!(
                "[destinations.d]\nurl = 'https://a.example.com'\nbody = {{ a = \"{{{{ {optional} }}}}\" }}"
            )),
            [""; 0],
            "{optional}"
        );
    }
    assert_eq!(codes("[destinations.d]\nurl = 'https://a.example.com/{{ env.NONE }}'"), ["unset-variable"]);
}

#[test]
fn constant_bodies_are_json_once_and_for_all() {
    let body = |text: &str| match &destination(&format!("omit = 'empty'\n{text}")).rules[0].request.body {
        Some(Mapping::Constant(json)) => json.clone(),
        Some(_) => "not constant".to_owned(),
        None => "none".to_owned(),
    };
    assert_eq!(
        body(r#"body = { a = 1, b = { c = "x\"y", d = true }, e = 1.5 }"#),
        r#"{"a":1,"b":{"c":"x\"y","d":true},"e":1.5}"#
    );
    assert_eq!(
        body("body = { at = 2026-01-02T03:04:05Z, big = 18446744073709551615 }"),
        r#"{"at":"2026-01-02T03:04:05Z","big":18446744073709551615}"#
    );
    // What `omit` may leave out has to be seen by it.
    assert_eq!(body("body = { a = '' }"), "not constant");
    assert_eq!(body("body = { a = {} }"), "not constant");
}

// --- switches

#[test]
fn a_destination_is_off_for_a_reason() {
    let off = |enabled: &str| {
        let plan =
            plan(&format!("[destinations.d]\nurl = 'https://{{{{ env.NONE }}}}.example.com'\nenabled = {enabled}"));
        assert!(plan.destinations.is_empty());
        plan.disabled[0].clone()
    };
    let because = |why: &str| Disabled { name: "d".into(), why: why.to_owned(), skips: false };
    assert_eq!(off("false"), because("`enabled` is false"));
    assert_eq!(off("'{{ env.NONE }}'"), because("NONE is not set"));
    assert_eq!(off("'{{ env.EMPTY }}'"), because("EMPTY is empty"));
    assert_eq!(off("'{{ env.NO }}'"), because("`enabled` is false"));
    assert_eq!(off("'{{ env.TOKEN and env.NONE }}'"), because("NONE is not set"));
}

#[test]
fn a_destination_is_on_when_its_variable_is_set() {
    for enabled in ["true", "'{{ env.TOKEN }}'", "\"{{ env.TOKEN == 't0k' }}\"", "'{{ env.NONE or env.TOKEN }}'"] {
        assert_eq!(destination(&format!("enabled = {enabled}")).name.as_str(), "d", "{enabled}");
    }
}

#[test]
fn sources_say_who_may_send_and_where_to() {
    let plan = plan(
        "[sources.web]\nwrite_keys = ['a', '{{ env.TOKEN }}']\n[sources.app]\nwrite_keys = ['b']\ndestinations = ['one']\n\
         [sources.old]\nwrite_keys = ['c']\nenabled = false\n\
         [destinations.one]\nurl = 'https://a.example.com'\n[destinations.two]\nurl = 'https://a.example.com'",
    );
    let names: Vec<_> =
        plan.policy.sources.iter().map(|(key, source)| (key.as_str(), source.name.as_str(), source.enabled)).collect();
    assert_eq!(names, [("a", "web", true), ("b", "app", true), ("c", "old", false), ("t0k", "web", true)]);
    assert_eq!(plan.destinations[0].sources, None);
    let two: Vec<_> = plan.destinations[1].sources.as_ref().unwrap().iter().map(SourceName::as_str).collect();
    assert_eq!(two, ["web", "old"]);
}

#[test]
fn any_origin_is_an_empty_list() {
    assert!(plan("[server]\ncors = { origins = ['*'] }").server.cors_origins.is_empty());
    assert_eq!(plan("[server]\ncors = { origins = ['https://x.io'] }").server.cors_origins, ["https://x.io"]);
}

// --- where events wait

fn queue(text: &str) -> QueueSettings {
    plan(&format!("[queue]\n{text}")).queue
}

#[test]
fn a_queue_nobody_describes_is_on_disk() {
    assert_eq!(plan("# Nothing yet.").queue, QueueSettings::default());
    assert_eq!(queue(""), QueueSettings::default());
    assert_eq!(queue("type = 'disk'"), QueueSettings::default());
    assert_eq!(QueueSettings::default().kind, QueueKind::Disk);
}

#[test]
fn every_word_about_a_queue_on_disk_is_heard() {
    let written = queue(
        "dir = \"/var/{{ env.NONE | default('lib') }}/{{ file('/secret') }}\"\nmax_size = '16MB'\nretain = '3650d'\n\
         dedup = '7d'\ndedup_ids = 1_000\ndead_letters = { retain = '1m', max_size = '1MB' }",
    );
    let day = Duration::from_hours(24);
    let expected = QueueSettings {
        kind: QueueKind::Disk,
        size_bytes_max: 16_000_000,
        dir: "/var/lib/from-a-file".into(),
        retain: day * 3_650,
        dedup_window: day * 7,
        dedup_ids_max: 1_000,
        letters_retain: Duration::from_mins(1),
        letters_bytes_max: 1_000_000,
        ..QueueSettings::default()
    };
    assert_eq!(written, expected);
}

#[test]
fn a_queue_in_memory_has_a_size_and_a_memory_of_its_own() {
    let of_kind = QueueSettings {
        kind: QueueKind::Memory,
        size_bytes_max: QueueKind::Memory.default_size_bytes_max(),
        ..QueueSettings::default()
    };
    assert_eq!(queue("type = 'memory'"), of_kind);
    let written = queue(
        "max_size = '1MB'\ndedup = '1h'\ndedup_ids = 100_000_000\ntype = 'memory'\nack = 'delivered'\nack_timeout = '20s'",
    );
    let expected = QueueSettings {
        size_bytes_max: 1_000_000,
        ack: QueueAck::Delivered,
        ack_timeout: Duration::from_secs(20),
        dedup_window: Duration::from_hours(1),
        dedup_ids_max: 100_000_000,
        ..of_kind
    };
    assert_eq!(written, expected);
}

#[test]
fn recognising_repetitions_can_be_switched_off() {
    for off in ["false", "'0s'"] {
        for kind in ["disk", "memory"] {
            assert!(queue(&format!("type = '{kind}'\ndedup = {off}")).dedup_window.is_zero(), "{kind}, {off}");
        }
    }
    assert_eq!(codes("[queue]\ndedup = true"), ["wrong-type"]);
}

#[test]
fn metrics_are_beside_everything_else_nowhere_or_at_an_address_of_their_own() {
    let metrics = |line: &str| plan(&format!("[server]\n{line}")).server.metrics;
    assert_eq!(metrics(""), Metrics::Here);
    assert_eq!(metrics("metrics = true"), Metrics::Here);
    assert_eq!(metrics("metrics = false"), Metrics::Off);
    for own in ["127.0.0.1:9090", "[::1]:9090", "localhost:0"] {
        assert_eq!(metrics(&format!("metrics = '{own}'")), Metrics::At(own.to_owned()));
    }
    let any_port = "listen = '127.0.0.1:0'\nmetrics = '127.0.0.1:0'";
    assert_eq!(metrics(any_port), Metrics::At("127.0.0.1:0".to_owned()), "the machine chooses two ports");
    assert_eq!(codes("[server]\nmetrics = '0.0.0.0:8080'"), ["bad-value"], "the default of `listen`");
}

#[test]
fn the_socket_for_commands_is_where_the_file_says() {
    assert_eq!(plan("[server]\nlisten = '0.0.0.0:1'").server.control, None);
    let of_length = |bytes: usize| format!("[server]\ncontrol = '/{}'", "x".repeat(bytes - 1));
    let control = plan(&of_length(103)).server.control.unwrap();
    assert_eq!(control.as_os_str().len(), 103);
    assert_eq!(codes(&of_length(104)), ["bad-path"]);
}

// --- order, start, switching off

fn order_key(destination: &Destination, event: serde_json::Value) -> Option<String> {
    let message = Message { source: "web".into(), value: std::sync::Arc::new(event) };
    let scope = Scope::event(&destination.names, &message, Timestamp::UNIX_EPOCH);
    let value = destination.order_by.as_ref().unwrap().value(&scope).unwrap();
    value.as_str().map(str::to_owned)
}

#[test]
fn the_key_of_an_order_sees_the_event_and_the_lets() {
    let keyed = destination("let = { who = '{{ userId or anonymousId }}' }\norder_by = '{{ who }}'");
    assert_eq!(order_key(&keyed, serde_json::json!({ "userId": "u1" })).as_deref(), Some("u1"));
    assert_eq!(order_key(&keyed, serde_json::json!({ "anonymousId": "a1" })).as_deref(), Some("a1"));
    assert_eq!(order_key(&keyed, serde_json::json!({})), None, "no key, no order");
    assert!(destination("").order_by.is_none());
}

#[test]
fn an_order_for_all_destinations_can_be_declined_by_one() {
    let plan = plan(
        "[defaults]\norder_by = '{{ groupId }}'\nstart = 'oldest'\n[destinations.a]\nurl = 'https://a.example.com'\n\
         [destinations.b]\ntype = 'stdout'\norder_by = false\nstart = 'newest'",
    );
    let (a, b) = (&plan.destinations[0], &plan.destinations[1]);
    assert_eq!(order_key(a, serde_json::json!({ "groupId": "g1" })).as_deref(), Some("g1"));
    assert_eq!((a.start, b.order_by.is_none(), b.start), (Start::Oldest, true, Start::Newest));
}

#[test]
fn a_new_destination_begins_with_new_events_unless_it_says_otherwise() {
    assert_eq!(destination("").start, Start::Newest);
    assert_eq!(destination("start = 'newest'").start, Start::Newest);
    assert_eq!(destination("start = 'oldest'").start, Start::Oldest);
}

#[test]
fn a_destination_that_is_off_says_what_becomes_of_its_events() {
    let skips = |defaults: &str, own: &str| {
        let text = format!(
            "[defaults]\n{defaults}\n[destinations.d]\nurl = 'https://{{{{ env.NONE }}}}.io'\nenabled = '{{{{ env.NONE }}}}'\n{own}"
        );
        plan(&text).disabled[0].skips
    };
    assert!(!skips("", "") && !skips("", "when_disabled = 'wait'"));
    assert!(skips("", "when_disabled = 'skip'") && skips("when_disabled = 'skip'", ""));
    assert!(!skips("when_disabled = 'skip'", "when_disabled = 'wait'"));
}

// --- nothing in an event can choose where it goes

#[test]
fn the_host_is_constant_however_it_is_written() {
    let code = |url: &str| codes(&format!("[destinations.d]\nurl = '{url}'"));
    for fine in [
        "https://a.example.com/{{ userId }}",
        "https://a.example.com?x={{ userId }}",
        "{{ env.URL }}/{{ userId }}",
        "{{ env.URL }}{{ userId }}",
        "HTTPS://a.example.com/",
        "https://[::1]:8080/{{ userId }}",
    ] {
        assert_eq!(code(fine), [""; 0], "{fine}");
    }
    for chosen in [
        "{{ userId }}",
        "https://{{ userId }}",
        "https://{{ userId }}/",
        "{{ type }}://a.example.com/",
        "https://a.example.com{{ userId }}/",
        "https://a.example.com:{{ userId }}/",
        "https://x@{{ userId }}/",
        "https:{{ userId }}",
        "{{ env.URL if userId else userId }}",
    ] {
        assert_eq!(code(chosen), ["host-from-event"], "{chosen}");
    }
    for wrong in
        ["", "a.example.com", "ftp://a", "https://", "https:///x", "https://a b/", "file:///etc/passwd", "https://a:b/"]
    {
        assert_eq!(code(wrong), ["bad-url"], "{wrong}");
    }
}

#[test]
fn a_path_cannot_become_part_of_the_host() {
    let code = |path: &str| codes(&format!("[destinations.d]\nurl = 'https://a.example.com'\npath = '{path}'"));
    assert_eq!(code("/x/{{ userId }}"), [""; 0]);
    assert_eq!(code(".evil.com/"), ["bad-path"]);
    assert_eq!(code("{{ userId }}"), ["bad-path"]);
    assert_eq!(code(""), ["bad-path"]);
}

#[test]
fn a_url_of_a_variable_is_taken_as_it_is_and_an_events_value_is_encoded() {
    let text = "[destinations.d]\nurl = '{{ env.URL }}'\n[[destinations.d.rules]]\n\
                [[destinations.d.rules]]\nurl = '{{ env.URL }}/{{ userId }}'\nbody = { a = '{{ env.URL }}' }";
    let destination = std::sync::Arc::clone(&plan(text).destinations[0]);
    let json = std::sync::Arc::new(serde_json::json!({ "type": "track", "userId": "a/b?c" }));
    let message = Message { source: "web".into(), value: json };
    let scope = Scope::event(&destination.names, &message, Timestamp::UNIX_EPOCH);
    let urls = destination.rules.iter().map(|rule| {
        let mut url = String::new();
        rule.request.url.as_ref().unwrap().write_text(&scope, Escape::Url, &mut url).unwrap();
        url
    });
    assert_eq!(urls.collect::<Vec<_>>(), ["https://a.example.com/v1", "https://a.example.com/v1/a%2Fb%3Fc"]);
}

// --- fingerprints

const BASE: &str = "[let]\nwho = '{{ userId }}'\n[tables.t]\na = 1\n[destinations.d]\nurl = 'https://a.example.com'\n\
                    auth = { bearer = '{{ env.TOKEN }}' }\nbody = { a = '{{ who }}', b = '{{ tables.t[event] }}' }\n\
                    [destinations.e]\nurl = 'https://a.example.com'\n";

fn fingerprints(text: &str, variables: &[(&str, &str)]) -> (u64, u64, u64) {
    let plan = compile_with(text, variables).unwrap();
    let destination = plan.destination(&"d".into()).unwrap();
    (plan.fingerprint, destination.fingerprint, destination.rules[0].fingerprint)
}

#[test]
fn layout_changes_the_files_fingerprint_and_no_other() {
    let before = fingerprints(BASE, &VARIABLES);
    assert_eq!(before, fingerprints(BASE, &VARIABLES));
    let moved = "# a comment\n[destinations.e]\nurl = 'https://a.example.com'\n[destinations.d]\n\
                 body = { b = \"{{ tables.t[event] }}\", a = '{{ who }}' }\nauth.bearer = '{{ env.TOKEN }}'\n\
                 url = 'https://a.example.com'\n[tables]\nt = { a = 1 }\n[let]\nwho = '{{ userId }}'\n";
    let after = fingerprints(moved, &VARIABLES);
    assert_ne!(before.0, after.0);
    assert_eq!((before.1, before.2), (after.1, after.2));
}

#[test]
fn whatever_shapes_a_destination_changes_its_fingerprint() {
    let before = fingerprints(BASE, &VARIABLES);
    let mut variables = VARIABLES;
    variables[0].1 = "another token";
    let rotated = fingerprints(BASE, &variables);
    assert!(before.0 != rotated.0 && before.1 != rotated.1);
    assert_eq!(before.2, rotated.2, "a new token is no reason to send again what was sent");
    for (from, to) in [
        ("{{ userId }}'", "{{ anonymousId }}'"),
        ("a = 1", "a = 2"),
        ("b = '", "c = '"),
        ("[destinations.d]\n", "[destinations.d]\ntimeout = '1s'\n"),
        ("[destinations.d]\n", "[destinations.d]\norder_by = '{{ userId }}'\n"),
    ] {
        assert_ne!(before.1, fingerprints(&BASE.replacen(from, to, 1), &VARIABLES).1, "{from}");
    }
    let other = fingerprints(&BASE.replace("[destinations.e]\n", "[destinations.e]\ntimeout = '1s'\n"), &VARIABLES);
    assert_eq!(before.1, other.1, "another destination is none of its business");
}

#[test]
fn where_a_destination_begins_and_what_it_misses_while_off_leaves_it_undisturbed_at_work() {
    let before = fingerprints(BASE, &VARIABLES);
    let words = "[destinations.d]\nstart = 'oldest'\nwhen_disabled = 'skip'\n";
    let after = fingerprints(&BASE.replace("[destinations.d]\n", words), &VARIABLES);
    assert_eq!((before.1, before.2), (after.1, after.2));
    assert_ne!(before.0, after.0, "the file is another");
}

#[test]
fn the_environment_of_the_queue_and_the_server_is_part_of_the_files_fingerprint() {
    for line in
        ["[queue]\ndir = '{{ env.X }}'", "[server]\ncontrol = '{{ env.X }}'", "[server]\nmetrics = '{{ env.X }}:1'"]
    {
        let of = |value: &str| compile_with(line, &[("X", value)]).unwrap().fingerprint;
        assert!(of("a") == of("a") && of("a") != of("b"), "{line}");
    }
}

#[test]
fn a_rule_is_known_by_its_text_and_equal_rules_by_their_order() {
    let of = |text: &str| -> Vec<u64> { destination(text).rules.iter().map(|rule| rule.fingerprint).collect() };
    let twice = of(
        "[[destinations.d.rules]]\non = 'track'\n[[destinations.d.rules]]\non = 'page'\n[[destinations.d.rules]]\non = 'track'",
    );
    assert!(twice[0] != twice[1] && twice[0] != twice[2] && twice[1] != twice[2]);
    let moved = of("timeout = '1s'\n[[destinations.d.rules]]\non = 'page'\n[[destinations.d.rules]]\non = 'track'");
    assert_eq!((moved[0], moved[1]), (twice[1], twice[0]));
    let other_headers = of("headers = { a = 'b' }\n[[destinations.d.rules]]\non = 'track'");
    assert_ne!(other_headers[0], twice[0]);
}

// --- the whole walk

#[test]
fn what_is_compiled_is_what_is_sent() {
    let text = r#"
[let]
email = "{{ coalesce(traits.email, context.traits.email) | lower }}"
[tables.plans]
pro = "Professional"
[destinations.crm]
url   = "{{ env.URL }}"
auth  = { basic = ["u", "{{ env.TOKEN }}"] }
omit  = "empty"
batch = { max_events = 2, body = { data = "{{ items }}", test = "{{ env.EMPTY }}" } }
let   = { id = "{{ userId or email }}" }
[[destinations.crm.rules]]
on      = "identify"
when    = ["$.traits", "{{ id }}"]
method  = "PUT"
path    = "/people/{{ type }}"
query   = { strict = 1 }
headers = { X-Plan = "{{ traits.plan }}" }
[destinations.crm.rules.body]
"..."  = "{{ traits | omit('plan') }}"
id     = "{{ id }}"
plan   = "{{ tables.plans[traits.plan] }}"
phone  = "{{ traits.phone }}"
fixed  = { a = [1, "two", true], b = "" }
"#;
    let plan = plan(text);
    let destination = &plan.destinations[0];
    let json = serde_json::json!({ "type": "identify", "messageId": "m", "traits": { "email": "A@B.c", "plan": "pro", "n": 1 } });
    let message = Message { source: "web".into(), value: std::sync::Arc::new(json) };
    let matches = destination.select(&message, Timestamp::UNIX_EPOCH).unwrap().unwrap();
    let items = destination.render(&matches, &MessageId::from("m")).unwrap();
    let batch = Batch { items: items.into_iter().map(|item| (item, ())).collect(), opened_at: Timestamp::UNIX_EPOCH };
    let request = destination.request(&batch, Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(
        (request.method.as_str(), request.url.as_str()),
        ("PUT", "https://a.example.com/v1/people/identify?strict=1")
    );
    let headers: Vec<_> = request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(headers, ["x-plan: pro", "content-type: application/json", "authorization: Basic dTp0MGs="]);
    let body = String::from_utf8(request.body.unwrap().to_vec()).unwrap();
    assert_eq!(
        body,
        r#"{"data":[{"email":"A@B.c","n":1,"id":"a@b.c","plan":"Professional","fixed":{"a":[1,"two",true]}}]}"#
    );
}

// --- bounds

#[test]
fn a_chain_of_lets_has_an_end() {
    let chain = |links: usize| {
        let lets: Vec<_> = (1..links).map(|n| format!("l{n} = '{{{{ l{} }}}}'", n - 1)).collect();
        format!(
            "[let]\nl0 = '{{{{ userId }}}}'\n{}\n[destinations.d]\nurl = 'https://a.example.com'\nbody = {{ a = '{{{{ l{} }}}}' }}",
            lets.join("\n"),
            links - 1
        )
    };
    assert_eq!(codes(&chain(32)), [""; 0]);
    assert_eq!(codes(&chain(33)), ["let-depth"]);
}

#[test]
fn mistakes_of_the_defaults_are_told_once() {
    let many: Vec<_> = (0..20).map(|n| format!("[destinations.d{n}]\nurl = 'https://a.example.com'\n")).collect();
    let many = many.concat();
    assert_eq!(
        codes(&format!("[defaults]\ntimeuot = '1s'\nbody = {{ a = '{{{{ x | nothing }}}}' }}\n{many}")).len(),
        3
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_compiler_panic(text in "(\\[|\\]|=|\"|'|\\{\\{|\\}\\}|\\{|\\}|\n|,|\\.|destinations|rules|url|body|when|on|each|item|[a-z]{1,3}|[0-9]|\\PC| ){0,60}") {
        let _ = compile_with(&text, &VARIABLES);
        let _ = compile_with(&format!("[destinations.d]\nurl = {text}"), &VARIABLES);
        let _ = compile_with(&format!("[destinations.d]\nurl = 'https://a.io'\nbody = {{ a = '''{text}''' }}"), &VARIABLES);
    }
}

#[test]
fn what_is_assumed_to_be_set_is_no_mistake_and_nothing_is_said_of_its_value() {
    let text = "[sources.a]\nwrite_keys = ['{{ env.KEY }}']\n[queue]\ndir = '{{ env.DIR }}'\n[destinations.a]\n\
                enabled = '{{ env.ON }}'\nurl = '{{ env.URL }}/x'\nauth = { bearer = \"{{ file('/secret') }}\" }\n\
                body = { a = '{{ env.A | lower }}' }\n";
    let environment = Environment {
        variables: BTreeMap::new(),
        read_file: &read_file_that_is_not_there,
        unset: Unset::Assumed,
        ..Environment::default()
    };
    let compiled = compile(text, &environment).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    assert_eq!(compiled.plan.destinations.len(), 1, "it is on");
    assert!(compiled.warnings.is_empty(), "{:?}", compiled.warnings);
}

fn read_file_that_is_not_there(_: &Path) -> io::Result<String> {
    Err(io::Error::from(io::ErrorKind::NotFound))
}

#[test]
fn a_name_stands_in_for_what_is_assumed_to_be_set() {
    let text = "[destinations.a]\nurl = '{{ env.URL }}/x'\nheaders = { a = '{{ env.A }}', b = \"{{ env.B | default('b') }}\" }\n\
                body = { s = \"{{ file('/run/s') }}\" }\n";
    let environment = Environment {
        variables: BTreeMap::new(),
        read_file: &read_file_that_is_not_there,
        unset: Unset::Assumed,
        ..Environment::default()
    };
    let compiled = compile(text, &environment).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let destination = &compiled.plan.destinations[0];
    let message =
        Message { source: SourceName::from("s"), value: std::sync::Arc::new(serde_json::json!({ "type": "track" })) };
    let matches = destination.select(&message, Timestamp::UNIX_EPOCH).unwrap().unwrap();
    let item = destination.render(&matches, &MessageId::from("m")).unwrap().remove(0);
    assert_eq!(item.address.url, "URL/x");
    assert_eq!(item.address.headers, [("a".to_owned(), "A".to_owned()), ("b".to_owned(), "b".to_owned())]);
    assert_eq!(item.body.unwrap(), r#"{"s":"/run/s"}"#);
}
