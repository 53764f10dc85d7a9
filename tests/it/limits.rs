//! Nothing in a file, an event or an answer can hang the process or eat it: what runs away is a dead letter, or a mistake
//! in the file, with a message that says which bound it hit. The bounds are in docs/config.md, "Bounds".
//!
//! The bounds count steps, elements and bytes, so nothing here depends on the clock; [`PATIENCE`] only turns a hang into a
//! failure.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use libroseg::attempt::Outcome;
use libroseg::config::{self, Environment};
use libroseg::event::{Message, MessageId};
use libroseg::expr::STACK_BYTES;
use libroseg::plan::{Batch, Item, Plan, Reply};
use serde_json::{Value as Json, json};

/// However slow the machine: what has not ended by then never will.
const PATIENCE: Duration = Duration::from_mins(2);

const URL: &str = "url = \"https://d.example.com\"\n";

/// Runs it where a hang or an overflow of a worker's stack is seen.
fn watched<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let run = move || sender.send(run()).unwrap_or(());
    thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap();
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn compile(text: &str) -> Result<Plan, String> {
    let no_file = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    match config::compile(
        text,
        &Environment { variables: BTreeMap::new(), read_file: &no_file, ..Environment::default() },
    ) {
        Ok(compiled) => Ok(compiled.plan),
        Err(mistakes) => Err(mistakes.into_iter().find(config::Diagnostic::is_error).unwrap().message),
    }
}

fn now() -> Timestamp {
    "2026-01-02T03:04:10Z".parse().unwrap()
}

fn items(plan: &Plan, event: Json) -> Result<Vec<Item>, String> {
    let message = Message { source: "web".into(), value: Arc::new(event) };
    let destination = &plan.destinations[0];
    let matches = destination.select(&message, now()).map_err(|error| error.to_string())?;
    let Some(matches) = matches else { return Ok(Vec::new()) };
    destination.render(&matches, &MessageId::from("m1")).map_err(|error| error.to_string())
}

/// What becomes of an event in a destination of these keys: its items, or why it is a dead letter or the file is wrong.
fn outcome(keys: &str, event: &Json) -> Result<Vec<Item>, String> {
    let (text, event) = (format!("[destinations.d]\n{URL}{keys}"), event.clone());
    watched(keys, move || items(&compile(&text)?, event))
}

fn event() -> Json {
    json!({ "type": "track", "userId": "u1", "properties": {
        "one": [1],
        "many": (0..1000).collect::<Vec<_>>(),
        "texts": ["a", "b"],
        "x": "ab".repeat(10_000),
        "deep": nested(100),
    } })
}

fn nested(levels: usize) -> Json {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

/// Each ends with this message.
fn all_stopped(cases: &[(&str, &str)], event: &Json) {
    for (keys, expected) in cases {
        match outcome(keys, event) {
            Ok(items) => panic!("{keys}: {} items", items.len()),
            Err(message) => assert!(message.contains(expected), "{keys}: {message}"),
        }
    }
}

const FUEL: &str = "took more than 50000 steps, or made too much";
const LARGE: &str = "output is larger than 1048576 bytes";
const LISTS: &str = "repeated sequence is too large";

fn bodies(templates: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    templates
        .iter()
        .map(|(template, expected)| (format!("body = {{ b = {} }}\n", Json::from(*template)), *expected))
        .collect()
}

fn all_templates_stopped(templates: &[(&str, &'static str)]) {
    let cases = bodies(templates);
    let cases: Vec<(&str, &str)> = cases.iter().map(|(keys, expected)| (keys.as_str(), *expected)).collect();
    all_stopped(&cases, &event());
}

// === templates ===

#[test]
fn loops_and_recursion_run_out_of_steps() {
    all_templates_stopped(&[
        ("{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}", FUEL),
        ("{% for a in properties.many %}{% for b in properties.many %}{{ b }}{% endfor %}{% endfor %}", FUEL),
        ("{% for a in properties.many recursive %}{{ loop(properties.many) }}{% endfor %}", "recursion limit exceeded"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion limit exceeded"),
        (
            "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(8) }}",
            FUEL,
        ),
        ("{{ range(100000) | list | length }}", FUEL),
        ("{{ range(1, 1000000000) | list }}", "range has too many elements"),
        (
            "{% set n = namespace(x=1) %}{% for a in range(9999) %}{% set n.x = n.x * 7 %}{% endfor %}{{ n.x }}",
            "unable to calculate",
        ),
    ]);
}

#[test]
fn text_that_multiplies_is_stopped_before_it_is_made() {
    all_templates_stopped(&[
        ("{{ properties.x * 99999999 }}", FUEL),
        ("{{ 'x' * 99999999 }}", FUEL),
        ("{% set n = namespace(x='x') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}", FUEL),
        ("{{ properties.x | replace('', properties.x) }}", LARGE),
        ("{{ properties.x | replace('a', 'b' * 10000) }}", LARGE),
        ("{{ properties.x | regex_replace('', properties.x) }}", LARGE),
        ("{{ properties.x | regex_replace('(a)', '$1$1$1$1$1$1' * 100) }}", LARGE),
        ("{{ properties.x | split('a') | join(properties.x) }}", LARGE),
        ("{{ '%99999999d' | format(1) }}", FUEL),
        ("{{ '%.99999999f' | format(1.5) }}", FUEL),
        ("{{ ('x\n' * 10000) | indent(100000) }}", FUEL),
        ("{{ properties.many | map('string') | map('replace', '', properties.x) | list | length }}", FUEL),
        ("{{ 2 ** 100000000 }}", "unable to calculate"),
    ]);
}

#[test]
fn lists_that_multiply_are_stopped_before_they_are_made() {
    all_templates_stopped(&[
        ("{{ [1] * 3 }}", "a list cannot be repeated"),
        ("{{ properties.many * 90000000 }}", LISTS),
        ("{{ (properties.many * 9000) | list }}", FUEL),
        ("{{ properties.many * 9000 }}", LARGE),
        ("{{ (properties.many * 9000) | join }}", FUEL),
        ("{{ (properties.many * 9000) | sort }}", FUEL),
        ("{{ (properties.many * 9000) | unique }}", FUEL),
        ("{{ (properties.many * 9000) | sum }}", FUEL),
        ("{{ (properties.many * 9000) | groupby('x') }}", FUEL),
        ("{{ 'x' in (properties.many * 9000) }}", FUEL),
        ("{{ properties | pick(properties.texts * 5000000) }}", FUEL),
        ("{{ properties | omit(properties.texts * 5000000) }}", FUEL),
        ("{{ [1, 2] | batch(1000000000, 'x') }}", FUEL),
        ("{{ [1, 2] | slice(1000000000, 'x') }}", FUEL),
    ]);
}

#[test]
fn what_one_template_prints_is_bounded_wherever_it_goes() {
    all_templates_stopped(&[
        ("{% for i in range(9999) %}{{ properties.x }}{% endfor %}", FUEL),
        ("{% for i in range(9999) %}{% set y %}{{ properties.x }}{% endset %}{% endfor %}", FUEL),
        (
            "{% macro f() %}{{ caller() }}{% endmacro %}{% for i in range(9999) %}{% call f() %}{{ properties.x }}{% endcall %}{% endfor %}",
            FUEL,
        ),
        ("{{ properties.many | map('replace', '1', properties.x) | list }}", FUEL),
        ("{{ [properties.x, properties.x] * 100 }}", "a list cannot be repeated"),
    ]);
    let texts = format!("body = \"{}\"\n", "{{ properties.x }} ".repeat(60));
    all_stopped(&[(&texts, LARGE)], &event());
}

#[test]
fn nests_are_as_deep_as_json_readers_go() {
    let (open, close) = ("[".repeat(500), "]".repeat(500));
    all_templates_stopped(&[
        (&format!("{{{{ {open}{close} }}}}"), "template exceeds maximum recursion limits"),
        (
            "{% set n = namespace(x=[]) %}{% for a in range(5000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
            "output nests deeper than 128 levels",
        ),
        (
            "{% set n = namespace(x={}) %}{% for a in range(5000) %}{% set n.x = {'a': n.x} %}{% endfor %}{{ n.x | flatten }}",
            FUEL,
        ),
        (
            "{% set n = namespace(x=[]) %}{% for a in range(99999) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x | length }}",
            FUEL,
        ),
        (&format!("{{{{ {}1{} }}}}", "(".repeat(500), ")".repeat(500)), "template exceeds maximum recursion limits"),
    ]);
    // What an event holds is passed on as deep as it came; the door lets in a hundred levels.
    let made = outcome(
        "body = { a = \"{{ properties.deep }}\", b = \"{{ properties.deep | json }}\", c = \"{{ {'d': properties.deep} | flatten }}\" }\n",
        &event(),
    );
    assert_eq!(made.unwrap().len(), 1);
}

#[test]
fn a_chain_of_lets_has_an_end() {
    let chain = |length: usize, link: &str| {
        let links =
            (1..length).map(|n| format!("l{n} = \"{{{{ {} }}}}\"\n", link.replace('_', &format!("l{}", n - 1))));
        let links: String = links.collect();
        format!(
            "body = {{ b = \"{{{{ l{} }}}}\" }}\n[destinations.d.let]\nl0 = \"{{{{ properties.x }}}}\"\n{links}",
            length - 1
        )
    };
    assert_eq!(outcome(&chain(30, "_"), &event()).unwrap().len(), 1);
    for (keys, expected) in
        [(chain(40, "_"), "builds on more than 32 others"), (chain(30, "_ ~ _"), FUEL), (chain(30, "[_, _]"), LARGE)]
    {
        all_stopped(&[(&keys, expected)], &event());
    }
}

// === each ===

fn with_lists(first: usize, second: usize) -> Json {
    json!({ "type": "track", "properties": {
        "a": (0..first).map(|n| json!({ "n": n })).collect::<Vec<_>>(),
        "b": (0..second).collect::<Vec<_>>(),
        "x": "x".repeat(30_000),
    } })
}

#[test]
fn an_each_has_ten_thousand_elements_at_most() {
    const RULE: &str = "each = \"$.properties.a[*]\"\nbody = { n = \"{{ item.n }}\" }\n";
    const LIST: &str = "body = { list = { each = \"{{ properties.a }}\", item = \"{{ item.n }}\" } }\n";
    assert_eq!(outcome(RULE, &with_lists(10_000, 0)).unwrap().len(), 10_000);
    assert_eq!(outcome(LIST, &with_lists(10_000, 0)).unwrap().len(), 1);
    all_stopped(
        &[
            (RULE, "destinations.d.each: a list of more than 10000 elements"),
            (LIST, "destinations.d.body.list.each: a list of more than 10000 elements"),
        ],
        &with_lists(10_001, 0),
    );
    let repeated = "body = { list = { each = \"{{ properties.a * 1000000 }}\", item = 1 } }\n";
    all_stopped(&[(repeated, "a list of more than 10000 elements")], &with_lists(2, 0));
}

#[test]
fn lists_within_lists_have_a_hundred_thousand_elements_at_most() {
    const NESTED: &str = r#"body = { list = { each = "$.properties.a[*]", item = { each = "$.properties.b[*]", item = "{{ item }}" } } }
"#;
    const RULE: &str = r#"each = "$.properties.a[*]"
body = { list = { each = "$.properties.b[*]", item = { each = "$.properties.b[*]", item = 1 } } }
"#;
    assert_eq!(outcome(NESTED, &with_lists(300, 300)).unwrap().len(), 1);
    all_stopped(&[(NESTED, "more than 100000 elements of `each` in all")], &with_lists(5_000, 5_000));
    all_stopped(&[(RULE, "more than 100000 elements of `each` in all")], &with_lists(100, 100));
}

#[test]
fn an_each_makes_so_many_bytes_at_most() {
    const RULE: &str = "each = \"$.properties.a[*]\"\n";
    const LIST: &str = "body = { list = { each = \"$.properties.a[*]\", item = { all = \"{{ properties.x }}\" } } }\n";
    const URLS: &str = "each = \"$.properties.a[*]\"\nmethod = \"GET\"\npath = \"/{{ properties.x }}\"\n";
    assert_eq!(outcome(RULE, &with_lists(100, 0)).unwrap().len(), 100);
    for keys in [RULE, LIST, URLS] {
        all_stopped(&[(keys, "output is larger than 16777216 bytes")], &with_lists(1_000, 0));
    }
}

#[test]
fn an_each_runs_over_lists_alone() {
    for value in [json!("text"), json!({ "a": 1 }), json!(3), json!(true)] {
        let event = json!({ "type": "track", "properties": { "list": value } });
        all_stopped(&[("each = \"{{ properties.list }}\"\n", "`each` needs a list")], &event);
    }
}

#[test]
fn a_spread_of_a_large_object_takes_no_longer_than_it_is_large() {
    let fields: serde_json::Map<String, Json> = (0..20_000).map(|n| (format!("key-{n}"), json!(n))).collect();
    let event = json!({ "type": "track", "properties": fields, "traits": fields });
    let keys = "body = { \"...\" = [\"{{ properties }}\", \"{{ traits }}\"], own = 1 }\n";
    let items = outcome(keys, &event).unwrap();
    let body: Json = serde_json::from_slice(items[0].body.as_ref().unwrap()).unwrap();
    assert_eq!(body.as_object().unwrap().len(), 20_001);
}

// === JSONPath ===

const NODES: &str = "looked at more than 10000000 values";

#[test]
fn a_path_looks_at_so_many_values_at_most() {
    let wide: Vec<Json> = (0..5_000).map(|n| json!({ "n": n, "m": [n] })).collect();
    let event =
        json!({ "type": "track", "properties": { "list": wide, "other": (5_000..12_000).collect::<Vec<_>>() } });
    all_stopped(
        &[
            ("each = \"$..[?$..[?@.z]]\"\n", NODES),
            ("when = \"$..[?$..[?$..[?@.n == 0 && @.m == 1]]]\"\n", NODES),
            ("when = \"$.properties.list[?count($..n) == 1]\"\n", NODES),
            ("when = \"$.properties.list[?in(-1, $.properties.other)]\"\n", NODES),
        ],
        &event,
    );
    assert!(outcome("when = \"$..[?@.n == 4999]\"\n", &event).unwrap().len() == 1);
    assert!(outcome("when = \"none_of($.properties.other, $.properties.none)\"\n", &event).unwrap().is_empty());
}

#[test]
fn nested_lists_multiply_no_path() {
    let event = json!({ "type": "track", "properties": { "deep": (0..90).fold(json!([0, 1]), |inner, n| json!([n, inner, n, n, n])) } });
    assert_eq!(outcome("when = \"$..[*]..[*]\"\n", &event).unwrap().len(), 1);
    let wide = json!({ "type": "track", "properties": { "deep": (0..90).fold(json!(vec![0; 15_000]), |inner, _| json!([inner])) } });
    all_stopped(&[("each = \"$..[*]..[*]\"\n", "a list of more than 10000 elements")], &wide);
    all_stopped(&[("when = \"$..a..b..c\"\n", "a path may say `..` 2 times at most")], &wide);
}

// === patterns ===

#[test]
fn a_pattern_compiles_to_so_much_at_most() {
    for pattern in ["(a{100}){1000}b", "((((((a{10}){10}){10}){10}){10}){10})", "[a-zA-Z0-9_]{9000}", "(a|b|c){20000}"]
    {
        let filter = format!("when = \"search($.userId, '{pattern}')\"\n");
        let template = format!("body = {{ b = \"{{{{ userId | regex_replace('{pattern}', '') }}}}\" }}\n");
        all_stopped(&[(&filter, "size limit"), (&template, "size limit")], &event());
    }
}

#[test]
fn a_pattern_never_explodes() {
    let event = json!({ "type": "track", "properties": { "x": "a".repeat(1 << 20) } });
    for pattern in
        ["(a*)*b", "(a|aa)+$b", "(x+x+)+y", "a?a?a?a?a?a?a?a?aaaaaaaab", "(.*)(.*)(.*)(.*)b", "[ab]{200}[a-c]{200}z"]
    {
        let filter = format!("when = \"search($.properties.x, '{pattern}')\"\n");
        assert!(outcome(&filter, &event).unwrap().is_empty(), "{pattern}");
        let template =
            format!("body = {{ b = \"{{{{ properties.x | regex_replace('{pattern}', '') | length }}}}\" }}\n");
        assert_eq!(outcome(&template, &event).unwrap().len(), 1, "{pattern}");
    }
    let quadratic = "body = { b = \"{{ properties.x | regex_replace('a+b|a', '') }}\" }\n";
    all_stopped(&[(quadratic, "too many matches in a text of 1048576 bytes")], &event);
}

// === batches and answers ===

#[test]
fn an_envelope_takes_as_many_items_as_a_batch_has() {
    const LINES: &str = r#"
body = { n = 1 }
batch = { max_events = 20000, body = { rows = { each = "{{ items }}", item = "{{ item.n }}" } } }
"#;
    let items: Vec<Item> = outcome(LINES, &event()).unwrap();
    let request = |count: usize, keys: &str| {
        let batch = Batch { items: vec![(items[0].clone(), ()); count], opened_at: now() };
        let plan = compile(&format!("[destinations.d]\n{URL}{keys}")).unwrap();
        watched(keys, move || plan.destinations[0].request(&batch, now())).map_err(|error| error.to_string())
    };
    let body: Json = serde_json::from_slice(&request(20_000, LINES).unwrap().body.unwrap()).unwrap();
    assert_eq!(body["rows"].as_array().unwrap().len(), 20_000, "none is lost on the way");
    for (envelope, expected) in [
        ("{% for item in items %}{{ item.n }}{% endfor %}", FUEL),
        ("{{ items * 9000 }}", LISTS),
        ("{{ items * 400 }}", "output is larger than 1328576 bytes"),
    ] {
        let keys = format!("batch = {{ max_events = 20000, body = {} }}\n", Json::from(envelope));
        let error = request(20_000, &keys).unwrap_err();
        assert!(error.contains(expected), "{envelope}: {error}");
    }
}

/// What a destination of these response rules makes of an answer to so many items.
fn judged(rules: &str, body: String, items: usize) -> Vec<Outcome> {
    let plan = compile(&format!("[destinations.d]\n{URL}{rules}")).unwrap();
    let reply = Reply::Answered { status: 200, headers: Vec::new(), body: body.into(), news: None };
    watched(rules, move || plan.destinations[0].judge(&reply, items, now()))
}

#[test]
fn an_answer_of_four_megabytes_is_judged_item_by_item() {
    let rules = r#"
[[destinations.d.response]]
each = "$.body.errors[*]"
index = "{{ item.row }}"
then = "{{ 'retry' if item.code == 'busy' else 'dead' }}"
"#;
    let by_key = rules.replace("[*]", ".*");
    let errors: Vec<Json> =
        (0..100_000).map(|row| json!({ "row": row, "code": if row % 2 == 0 { "busy" } else { "no" } })).collect();
    let keyed: serde_json::Map<String, Json> =
        errors.iter().map(|error| (error["row"].to_string(), error.clone())).collect();
    for (rules, body) in [(rules, json!({ "errors": errors })), (&by_key, json!({ "errors": keyed }))] {
        let outcomes = judged(rules, body.to_string(), 100_000);
        let failed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Failed(_))).count();
        let refused = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Refused(_))).count();
        assert_eq!((failed, refused), (50_000, 50_000));
    }
}

#[test]
fn an_answer_that_runs_away_means_try_again() {
    let cases = [
        ("each = \"$.body[*]\"\nthen = \"dead\"", json!(vec![0; 100_001]), "a list of more than 100000 elements"),
        ("when = \"$..[?$..[?@.z]]\"\nthen = \"dead\"", json!(vec![json!([0]); 10_000]), NODES),
        ("when = \"subset_of($.body, $.body)\"\nthen = \"dead\"", (0..100_000).collect(), NODES),
        ("then = \"{{ body * 90000 }}\"", json!(vec![0; 1_000]), "`then` gave too much"),
        ("then = \"{{ body }}\"", json!(vec!["x".repeat(1_000); 4_000]), "which is none of ok, retry"),
    ];
    for (rule, body, expected) in cases {
        let outcomes = judged(&format!("[[destinations.d.response]]\n{rule}\n"), body.to_string(), 1);
        let Outcome::Failed(failure) = &outcomes[0] else { panic!("{rule}: {outcomes:?}") };
        assert!(failure.detail.contains(expected), "{rule}: {}", failure.detail);
        assert!(failure.detail.len() < 5_000, "{rule}: {} bytes", failure.detail.len());
    }
}
