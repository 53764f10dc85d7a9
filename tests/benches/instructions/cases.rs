//! What is counted: the pure half of the walk, step by step, each beside what it is measured against.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use libroseg::config::{self, Environment};
use libroseg::event::{Event, Kind};
use libroseg::expr::filter::Filter;
use libroseg::expr::template::Template;
use libroseg::expr::{Names, Scope};
use libroseg::plan::pack::Packer;
use libroseg::plan::{Compression, Destination, Item, Plan, Reply};
use libroseg::segment::{Call, Limits};
use serde_json::{Value, json};

use crate::support::{BODY, batch, bigquery, by_hand, compile, map, message, now, read, several, stored, track};

/// Something to be counted.
pub(crate) struct Case {
    /// Its name here, in `stored.json` and on the command line; as in `cargo bench --bench rules`, where that has it too.
    pub(crate) name: &'static str,
    /// It is done so often, after a quarter as often to warm up: enough that a slow path of the allocator is told as what
    /// it is, a part of many fast ones.
    pub(crate) times: u32,
    /// Events in one go: counts are told per event.
    pub(crate) events: u32,
    pub(crate) ours: Prepare,
    /// What else could be done, and how.
    pub(crate) baseline: (&'static str, Prepare),
}

/// Makes everything that is not to be counted.
pub(crate) type Prepare = fn() -> Run;

/// What is counted.
pub(crate) type Run = Box<dyn FnMut()>;

/// Rows of a request, as the shipped preset packs them.
const ROWS: usize = 500;

const TO_VALUE: &str = "serde_json, to a Value";
const BY_HAND: &str = "the row by hand, with serde";

#[rustfmt::skip] // A table.
pub(crate) const CASES: &[Case] = &[
    Case { name: "read/one", times: 400, events: 1, ours: read_one, baseline: (TO_VALUE, value_of_one) },
    Case { name: "read/hundred", times: 20, events: 100, ours: read_hundred, baseline: (TO_VALUE, value_of_hundred) },
    Case { name: "open", times: 400, events: 1, ours: open, baseline: (TO_VALUE, value_of_one) },
    Case { name: "filter/jsonpath", times: 4000, events: 1, ours: jsonpath, baseline: (BY_HAND, row_by_hand) },
    Case { name: "filter/minijinja", times: 4000, events: 1, ours: minijinja, baseline: (BY_HAND, row_by_hand) },
    Case { name: "row/no_match", times: 4000, events: 1, ours: no_match, baseline: (BY_HAND, row_by_hand) },
    Case { name: "row/mapped", times: 400, events: 1, ours: mapped, baseline: (BY_HAND, row_by_hand) },
    Case { name: "row/body", times: 400, events: 1, ours: body, baseline: (BY_HAND, row_by_hand) },
    Case { name: "request", times: 4, events: 500, ours: request, baseline: ("the rows joined, and gzip", request_by_hand) },
    Case { name: "judge", times: 20, events: 500, ours: judge, baseline: (TO_VALUE, value_of_answer) },
    Case { name: "compile", times: 4, events: 1, ours: compile_shipped, baseline: ("toml, to a Table", table_of_shipped) },
];

// === impl Case ===

impl Case {
    /// Does both sides once, so that it is known that they run.
    pub(crate) fn run_both(&self) {
        (self.ours)()();
        (self.baseline.1)()();
    }
}

fn run<T>(mut run: impl FnMut() -> T + 'static) -> Run {
    Box::new(move || {
        black_box(run());
    })
}

// === accepting ===

fn read_one() -> Run {
    let (body, limits) = (one(), Limits::default());
    run(move || read(black_box(body.as_bytes()), Call::One(Kind::Track), &limits))
}

fn read_hundred() -> Run {
    let (body, limits) = (batch(100), Limits { batch_bytes_max: 4 << 20, ..Limits::default() });
    run(move || read(black_box(body.as_bytes()), Call::Batch, &limits))
}

fn value_of_one() -> Run {
    value_of(one())
}

fn value_of_hundred() -> Run {
    value_of(batch(100))
}

fn one() -> String {
    track(1).to_string()
}

fn value_of(text: String) -> Run {
    run(move || serde_json::from_str::<Value>(black_box(&text)))
}

// === selecting and mapping ===

fn open() -> Run {
    let event = stored();
    run(move || black_box(&event).open())
}

fn jsonpath() -> Run {
    let filter = Filter::parse("$.properties.total >= 100 && $.properties.currency == 'EUR'").expect("a filter");
    let message = message();
    run(move || filter.matches(black_box(&message.value)))
}

fn minijinja() -> Run {
    let template =
        Template::parse("{{ properties.total >= 100 and properties.currency == 'EUR' }}").expect("a template");
    let (names, message) = (Arc::new(Names::default()), message());
    run(move || template.is_true(&Scope::event(&names, black_box(&message), now())))
}

fn no_match() -> Run {
    let (plan, message) = (compile(&format!("{}on = \"identify\"\n", bigquery(SERVICE))), message());
    run(move || plan.destinations[0].select(black_box(&message), now()).expect("it runs").is_none())
}

fn mapped() -> Run {
    mapped_by(compile(&bigquery(SERVICE)))
}

fn body() -> Run {
    mapped_by(compile(BODY))
}

fn mapped_by(plan: Plan) -> Run {
    let (event, message) = (stored(), message());
    run(move || map(&plan, black_box(&message), &event))
}

fn row_by_hand() -> Run {
    let message = message();
    run(move || by_hand(black_box(&message.value)))
}

/// Nothing is sent.
const SERVICE: &str = "http://127.0.0.1";

// === requests and their answers ===

fn request() -> Run {
    let destination = destination();
    let items: Vec<Item> = several(ROWS).iter().map(|event| item(&destination, event)).collect();
    run(move || {
        let mut packer = Packer::new(Arc::clone(&destination));
        let batches =
            black_box(&items).iter().flat_map(|item| packer.push(item.clone(), (), now())).collect::<Vec<_>>();
        assert!(batches.len() == 1 && packer.is_empty(), "{ROWS} rows are a request");
        destination.request(&batches[0], now())
    })
}

fn request_by_hand() -> Run {
    let destination = destination();
    let rows: Vec<Bytes> = several(ROWS).iter().filter_map(|event| item(&destination, event).body).collect();
    run(move || {
        let mut body = b"{\"skipInvalidRows\":true,\"rows\":[".to_vec();
        for row in black_box(&rows) {
            body.extend_from_slice(row);
            body.push(b',');
        }
        body.pop();
        body.extend_from_slice(b"]}");
        Compression::Gzip.pack_to_send(&body.into())
    })
}

fn judge() -> Run {
    let (destination, body) = (destination(), Bytes::from(answer()));
    let reply = Reply::Answered { status: 200, headers: Vec::new(), body, news: None };
    run(move || destination.judge(black_box(&reply), ROWS, now()))
}

fn value_of_answer() -> Run {
    value_of(answer())
}

/// One row of ten was not taken.
fn answer() -> String {
    let error = json!({ "reason": "invalid", "location": "timestamp", "debugInfo": "",
        "message": "Could not parse 'yesterday' as a timestamp" });
    let errors: Vec<Value> = (0..ROWS).step_by(10).map(|row| json!({ "index": row, "errors": [error] })).collect();
    json!({ "kind": "bigquery#tableDataInsertAllResponse", "insertErrors": errors }).to_string()
}

fn destination() -> Arc<Destination> {
    Arc::clone(&compile(&bigquery(SERVICE)).destinations[0])
}

fn item(destination: &Destination, event: &Event) -> Item {
    let message = event.open().expect("a stored event opens");
    let matches = destination.select(&message, now()).expect("the filters run").expect("a rule matches");
    destination.render(&matches, &event.message_id).expect("the mapping runs").remove(0)
}

// === start-up and reload ===

/// The shipped file with every destination on.
const SHIPPED: &str = include_str!("../../../libroseg.toml");
const VARIABLES: [(&str, &str); 5] = [
    ("CUSTOMERIO_SITE_ID", "site"),
    ("CUSTOMERIO_API_KEY", "key"),
    ("BIGQUERY_PROJECT_ID", "acme"),
    ("BIGQUERY_DATASET", "events"),
    ("BIGQUERY_TABLE", "all"),
];

fn compile_shipped() -> Run {
    let variables: BTreeMap<String, String> = VARIABLES.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    run(move || {
        let no_file = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
        let environment = Environment { variables: variables.clone(), read_file: &no_file, ..Environment::default() };
        let compiled = config::compile(black_box(SHIPPED), &environment);
        assert!(compiled.is_ok(), "{:?}", compiled.err());
        compiled
    })
}

fn table_of_shipped() -> Run {
    run(|| toml::from_str::<toml::Table>(black_box(SHIPPED)))
}
