//! `type = "bigquery"`: project, dataset and table, how the table is declared, and the row that an event becomes.

use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use toml::de::DeValue;

use super::address;
use super::auth;
use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::expressions::{Expressions, has_braces};
use super::keys::grouped;
use super::mapping::mapping;
use super::request::{self, BatchDefaults, Layers};
use super::sees::Sees;
use super::spelling::nearest;
use super::table::{Field, Table, Text};
use crate::expr::template::Template;
use crate::plan::bigquery::column::{SCALARS, find};
use crate::plan::bigquery::ddl::sql_type;
use crate::plan::bigquery::growth::is_name;
use crate::plan::bigquery::table::IdOf;
use crate::plan::bigquery::{
    Column, ENDPOINT, Insert, InsertId, Mode, Partition, Per, REQUEST_BYTES_MAX, ROWS_MAX, SCOPE_INSERT, SCOPE_TABLES,
    Scalar, Shape, TableTemplate, Type, types,
};
use crate::plan::{Auth, BatchSettings, BigQuery, Encoding, Mapping, RequestTemplate};

/// Keys of the destination alone.
pub(super) const DESTINATION_KEYS: [&str; 5] = ["endpoint", "credentials", "location", "create_table", "schema_update"];

/// Keys that its rules may have as well.
pub(super) const RULE_KEYS: [&str; 8] =
    ["project", "dataset", "table", "row", "insert_id", "schema", "partition_by", "cluster_by"];

/// How rows are sent: only one way is there yet.
pub(super) const METHODS: [(&str, ()); 1] = [("insert_all", ())];

/// Whether columns that a table lacks are added.
pub(super) const SCHEMA_UPDATES: [(&str, bool); 2] = [("none", false), ("add_columns", true)];

/// How long a partition is.
pub(super) const PARTITIONS: [(&str, Per); 4] =
    [("hour", Per::Hour), ("day", Per::Day), ("month", Per::Month), ("year", Per::Year)];

/// When partitions go: nobody means an hour, and a century is for ever.
pub(super) const EXPIRES: RangeInclusive<Duration> = Duration::from_hours(1)..=Duration::from_hours(24 * 365 * 100);

/// Columns that a table is clustered by (<https://cloud.google.com/bigquery/docs/clustered-tables>, read 2026-11-26).
const CLUSTER_MAX: usize = 4;

/// Batches when the file does not say: 500 rows are recommended, and 10 MB are refused.
pub(super) const BATCH: BatchDefaults = BatchDefaults { events: 500, bytes: 9_000_000, age: Duration::from_secs(1) };

/// The longest wait for another try when the file does not say: an id is remembered for a minute at least, and a row whose
/// answer was lost is to come again within it.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(30);

/// One request when the file does not say: a row whose request hangs is to come again within the same minute. By a
/// simulation of calls that hang, half of them after the work was done, a third as many rows come twice as with 30 s.
pub(super) const TIMEOUT: Duration = Duration::from_secs(20);

/// The column by which a table is partitioned when the file does not say.
pub(super) const PARTITION_COLUMN: &str = "timestamp";

/// Types that a table may be clustered by (same page).
const CLUSTER_TYPES: [Scalar; 9] = [
    Scalar::String,
    Scalar::Int64,
    Scalar::Numeric,
    Scalar::BigNumeric,
    Scalar::Bool,
    Scalar::Timestamp,
    Scalar::Date,
    Scalar::DateTime,
    Scalar::Geography,
];

/// Types that a table may be partitioned by (<https://cloud.google.com/bigquery/docs/partitioned-tables>, read
/// 2026-11-26).
const PARTITION_TYPES: [Scalar; 3] = [Scalar::Timestamp, Scalar::Date, Scalar::DateTime];

/// Reads what holds for all tables, and who we are there.
pub(super) fn settings(expressions: &Expressions<'_>, table: &Table<'_>) -> Option<(BigQuery, Auth)> {
    let method = table.get("method").map(|field| field.word_or_later(&METHODS, &["storage_write"]));
    let location = table.get("location").map(|field| location(expressions, &field));
    let creates_tables = table.get("create_table").map(|field| field.boolean());
    let adds_columns = table.get("schema_update").map(|field| field.word(&SCHEMA_UPDATES));
    let settings = BigQuery {
        has_one_table: false,
        creates_tables: creates_tables.flatten().unwrap_or_default(),
        adds_columns: adds_columns.flatten().unwrap_or_default(),
        location: location.flatten(),
    };
    let scope = if settings.tends_tables() { SCOPE_TABLES } else { SCOPE_INSERT };
    let auth = match table.get("credentials") {
        Some(field) if matches!(field.raw(), DeValue::Boolean(false)) => Auth::None,
        credentials => {
            let at = credentials.as_ref().map_or_else(|| table.span(), Field::key_span);
            auth::google(expressions, at, credentials.as_ref(), scope)
        }
    };
    // What is wrong with the others was told.
    method.unwrap_or(Some(())).map(|()| (settings, auth))
}

/// Compiles what a rule inserts.
pub(super) fn insert(expressions: &Expressions<'_>, layers: &Layers<'_, '_>, sees: Sees) -> Option<RequestTemplate> {
    let endpoint = layers.destination.get("endpoint").map(|field| endpoint(expressions, &field));
    let project = id(expressions, layers, "project", IdOf::Project, sees);
    let dataset = id(expressions, layers, "dataset", IdOf::Dataset, sees);
    let table = id(expressions, layers, "table", IdOf::Table, sees);
    let id = layers.get("insert_id").map(|field| insert_id(expressions, &field, sees));
    let omit = request::omit(layers);
    let shape = shape(expressions, layers);
    let row = row(expressions, layers, sees);
    if let (Some(shape), Some(field)) = (&shape, layers.get("row")) {
        check_row(expressions, &field, row.is_some(), shape);
    }
    Some(RequestTemplate {
        method: "POST".to_owned(),
        url: None,
        path: None,
        headers: Vec::new(),
        query: Vec::new(),
        body: Some(row?),
        encoding: Encoding::Json,
        omit,
        insert: Some(Insert {
            table: TableTemplate {
                endpoint: endpoint.unwrap_or_else(|| Some(ENDPOINT.to_owned()))?,
                project: project?,
                dataset: dataset?,
                table: table?,
            },
            id: id.unwrap_or(Some(InsertId::MessageId))?,
            shape: Arc::new(shape?),
        }),
        address: OnceLock::new(),
    })
}

/// What the service takes in one request.
pub(super) fn check_batch(expressions: &Expressions<'_>, layers: &Layers<'_, '_>, batch: Option<&BatchSettings>) {
    let (Some(batch), Some(field)) = (batch, layers.get("batch")) else { return };
    let refuse = |message: String| {
        let error = field.error(Code::OutOfRange, message);
        expressions.findings.add(error.help("500 rows and 9 MB are what holds without a word on it"));
    };
    if batch.events_max as u64 > ROWS_MAX {
        refuse(format!("BigQuery takes at most {} rows in one request", grouped(ROWS_MAX)));
    }
    if batch.bytes_max as u64 >= REQUEST_BYTES_MAX {
        refuse("BigQuery takes less than 10 MB in one request".to_owned());
    }
}

// --- where to

/// Scheme and host, as they begin every URL.
fn endpoint(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    let compiled = expressions.compile(&text, Sees::File)?;
    address::url(expressions.findings, &text, "endpoint", &compiled);
    let endpoint = expressions.settled_text(field).or_else(|| expressions.is_lenient().then(|| ENDPOINT.to_owned()))?;
    if endpoint.contains(['?', '#']) {
        expressions
            .findings
            .add(text.error(Code::BadUrl, "`endpoint` is a scheme and a host, to which paths are added"));
        return None;
    }
    Some(endpoint.trim_end_matches('/').to_owned())
}

fn id(
    expressions: &Expressions<'_>,
    layers: &Layers<'_, '_>,
    key: &'static str,
    of: IdOf,
    sees: Sees,
) -> Option<Template> {
    let Some(field) = layers.get(key) else {
        let place = layers.rule.unwrap_or(layers.destination);
        let missing = Diagnostic::error(Code::MissingKey, place.span(), format!("there is no `{key}` to insert into"));
        let id = if of == IdOf::Project { "_ID" } else { "" };
        let help = format!("write `{key} = \"{{{{ env.BIGQUERY_{}{id} }}}}\"`", key.to_uppercase());
        expressions.findings.add(missing.help(help));
        return None;
    };
    let text = field.text()?;
    let compiled = expressions.compile(&text, sees)?;
    if let Some(value) = compiled.template.as_constant().filter(|value| !value.is_undefined() && !value.is_none()) {
        let id = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if let Err(error) = of.check(id) {
            expressions.findings.add(text.error(Code::BadName, error.message));
            return None;
        }
    }
    Some(compiled.template)
}

fn location(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<String> {
    let location = expressions.settled_text(field).or_else(|| expressions.is_lenient().then(String::new))?;
    if location.chars().any(|c| !c.is_ascii_alphanumeric() && c != '-') {
        let error = field.error(Code::BadValue, "this is no location of BigQuery's");
        expressions.findings.add(error.help("for example \"EU\", \"US\" or \"europe-west3\""));
        return None;
    }
    Some(location)
}

// --- what

fn row(expressions: &Expressions<'_>, layers: &Layers<'_, '_>, sees: Sees) -> Option<Mapping> {
    let Some(field) = layers.get("row") else {
        let place = layers.rule.unwrap_or(layers.destination);
        let missing = Diagnostic::error(Code::MissingKey, place.span(), "there is no `row` that an event becomes");
        expressions.findings.add(missing.help("write `row = { message_id = \"{{ messageId }}\", … }`"));
        return None;
    };
    let is_row = field.raw().as_table().is_some() || field.raw().as_str().is_some_and(has_braces);
    if !is_row {
        expressions
            .findings
            .add(field.error(Code::WrongType, "a row must be a table, or a template that gives an object"));
        return None;
    }
    mapping(expressions, &field, sees)
}

fn insert_id(expressions: &Expressions<'_>, field: &Field<'_>, sees: Sees) -> Option<InsertId> {
    if matches!(field.raw(), DeValue::Boolean(false)) {
        return Some(InsertId::Absent);
    }
    let text = field.text_as("`false` or a template such as \"{{ messageId }}\"")?;
    expressions.template(&text, sees).map(InsertId::Template)
}

// --- how the table is declared

fn shape(expressions: &Expressions<'_>, layers: &Layers<'_, '_>) -> Option<Shape> {
    let grows = layers.destination.get("schema_update").and_then(|field| field.word(&SCHEMA_UPDATES)).unwrap_or(false);
    let schema = layers.get("schema");
    let (partition, cluster) = (layers.get("partition_by"), layers.get("cluster_by"));
    let Some(schema) = schema else {
        for field in [partition, cluster].into_iter().flatten() {
            let error = field
                .error(Code::MissingKey, format!("`{}` says how a table is made, which needs a `schema`", field.name));
            expressions.findings.add(error);
        }
        if let Some(field) = layers.destination.get("create_table").filter(|field| field.boolean() == Some(true)) {
            let error = field.error(Code::MissingKey, "a table can be made only if its columns are declared");
            expressions.findings.add(error.help("add `[destinations.NAME.schema]` with `column = \"STRING\"`"));
        }
        return Some(Shape { grows, ..Shape::default() });
    };
    let columns = columns(expressions, &schema)?;
    let partition = match partition {
        Some(field) => read_partition(expressions, &field, &columns),
        None => Some(usual_partition(&columns)),
    };
    let cluster = cluster.map_or(Some(Vec::new()), |field| read_cluster(expressions, &field, &columns));
    Some(Shape { partition: partition?, cluster: cluster?, columns, grows })
}

fn columns(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<Vec<Column>> {
    let table = field.table("`schema`")?;
    let mut columns: Vec<Column> = Vec::new();
    let mut is_whole = true;
    for entry in table.fields() {
        let Some(column) = column(expressions, &entry) else {
            is_whole = false;
            continue;
        };
        if find(&columns, &column.name).is_some() {
            let message = format!("the column `{}` is there twice: BigQuery takes no notice of case", column.name);
            expressions.findings.add(Diagnostic::error(Code::BadName, entry.key_span(), message));
            is_whole = false;
        }
        columns.push(column);
    }
    if columns.is_empty() && is_whole {
        expressions.findings.add(field.error(Code::MissingKey, "a table needs at least one column"));
        return None;
    }
    is_whole.then_some(columns)
}

fn column(expressions: &Expressions<'_>, entry: &Field<'_>) -> Option<Column> {
    let is_called = is_name(entry.name);
    if !is_called {
        let message = format!("{:?} is no name of a column", entry.name);
        let error = Diagnostic::error(Code::BadName, entry.key_span(), message);
        expressions.findings.add(error.help("letters, digits and `_` are always right"));
    }
    let (kind, description) = if entry.raw().as_table().is_some() {
        let table = entry.table("a column")?;
        let kind = table.require("type", "for example `type = \"STRING\"`");
        let description = table.get("description").map(|field| field.text().map(|text| text.value.to_owned()));
        table.finish();
        (kind?.text_as("a type such as \"STRING\"")?, description.unwrap_or(Some(String::new()))?)
    } else {
        (entry.text_as("a type such as \"STRING NOT NULL\", or a table with `type`")?, String::new())
    };
    let (kind, mode) = types::parse(kind.value).map_err(|mistake| tell_of_type(expressions, &kind, mistake)).ok()?;
    let description = (!description.is_empty()).then_some(description);
    is_called.then(|| Column { name: entry.name.to_owned(), kind, mode, description })
}

fn tell_of_type(expressions: &Expressions<'_>, text: &Text<'_>, mistake: types::TypeMistake) {
    let word = text.value[mistake.range.clone()].to_uppercase();
    let error = text.error_at(&mistake.range, Code::BadValue, mistake.message);
    let words = SCALARS.iter().map(|(_, sql, ..)| *sql).chain(["ARRAY", "STRUCT"]);
    expressions.findings.add(match nearest(&word, words) {
        Some(near) if near != word => error.help(format!("did you mean `{near}`?")),
        Some(_) | None => {
            error.help("a type is written as in `CREATE TABLE`: \"STRING NOT NULL\", \"ARRAY<STRUCT<sku STRING>>\"")
        }
    });
}

fn usual_partition(columns: &[Column]) -> Option<Partition> {
    let column =
        find(columns, PARTITION_COLUMN).filter(|column| PARTITION_TYPES.iter().any(|scalar| column.is(*scalar)))?;
    Some(Partition { column: Some(column.name.clone()), per: Per::Day, expire: None, requires_filter: false })
}

/// `None`: a mistake; `Some(None)`: no partitions.
#[allow(clippy::option_option, reason = "a mistake is no `false`")]
fn read_partition(expressions: &Expressions<'_>, field: &Field<'_>, columns: &[Column]) -> Option<Option<Partition>> {
    let whole = |column| Partition { column, per: Per::Day, expire: None, requires_filter: false };
    match field.raw() {
        DeValue::Boolean(false) => Some(None),
        DeValue::Table(_) => {
            let table = field.table("`partition_by`")?;
            let column = table.get("column");
            let per = table.get("per").map(|field| field.word(&PARTITIONS));
            let expire = table.get("expire").map(|field| field.duration(EXPIRES));
            let requires_filter = table.get("require_filter").map(|field| field.boolean());
            table.finish();
            let per_field = table.entries().contains_key("per");
            let partition = Partition {
                column: match &column {
                    Some(column) => Some(partition_column(expressions, column, columns)?),
                    None => None,
                },
                per: per.unwrap_or(Some(Per::Day))?,
                expire: match expire {
                    Some(expire) => Some(expire?),
                    None => None,
                },
                requires_filter: requires_filter.unwrap_or(Some(false))?,
            };
            let is_date =
                partition.column.as_ref().and_then(|name| find(columns, name)).is_some_and(|c| c.is(Scalar::Date));
            if is_date && per_field && partition.per == Per::Hour {
                let error = field.error(Code::BadValue, "a day has no hours to be partitioned by");
                expressions.findings.add(error.help("write `per = \"day\"`, or partition by a TIMESTAMP"));
                return None;
            }
            Some(Some(partition))
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(true)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => partition_column(expressions, field, columns).map(|column| Some(whole(Some(column)))),
    }
}

fn partition_column(expressions: &Expressions<'_>, field: &Field<'_>, columns: &[Column]) -> Option<String> {
    let text = field.text_as("the name of a column, a table or `false`")?;
    let column = declared(expressions, &text, columns)?;
    if PARTITION_TYPES.iter().any(|scalar| column.is(*scalar)) {
        return Some(column.name.clone());
    }
    let message = format!("`{}` is no TIMESTAMP, DATE or DATETIME, by which tables are partitioned", column.name);
    expressions.findings.add(text.error(Code::BadValue, message));
    None
}

fn read_cluster(expressions: &Expressions<'_>, field: &Field<'_>, columns: &[Column]) -> Option<Vec<String>> {
    let fields = field.one_or_many();
    if fields.len() > CLUSTER_MAX {
        let message = format!("a table is clustered by {CLUSTER_MAX} columns at most, and here are {}", fields.len());
        expressions.findings.add(field.error(Code::OutOfRange, message));
    }
    let names: Vec<_> = fields
        .iter()
        .map(|field| {
            let text = field.text_as("the name of a column, or a list of them")?;
            let column = declared(expressions, &text, columns)?;
            if CLUSTER_TYPES.iter().any(|scalar| column.is(*scalar)) {
                return Some(column.name.clone());
            }
            let message = format!("`{}` is of a type that no table is clustered by", column.name);
            let words: Vec<&str> = CLUSTER_TYPES.iter().map(|scalar| scalar.words().0).collect();
            expressions
                .findings
                .add(text.error(Code::BadValue, message).help(format!("these are: {}", words.join(", "))));
            None
        })
        .collect();
    names.into_iter().collect()
}

/// The column that a string names.
fn declared<'c>(expressions: &Expressions<'_>, text: &Text<'_>, columns: &'c [Column]) -> Option<&'c Column> {
    let column = find(columns, text.value);
    if column.is_none() {
        let message = format!("`schema` has no column `{}`", text.value);
        expressions.findings.add(text.wrong_word(message, columns.iter().map(|column| column.name.as_str())));
    }
    column
}

// --- whether the row fits

/// Compares a row with the columns, as far as the file alone tells.
fn check_row(expressions: &Expressions<'_>, field: &Field<'_>, is_whole: bool, shape: &Shape) {
    let DeValue::Table(entries) = field.raw() else { return };
    if shape.columns.is_empty() {
        return;
    }
    let Some(table) = field.table("a row") else { return };
    let is_spread = entries.contains_key("...");
    for entry in table.fields().filter(|entry| entry.name != "...") {
        match shape.column(entry.name) {
            Some(column) => check_value(expressions, &entry, column),
            None => tell_of_column(expressions, &entry, shape),
        }
    }
    let is_given = |column: &&Column| !entries.keys().any(|name| name.get_ref().eq_ignore_ascii_case(&column.name));
    let needed = |column: &&Column| column.mode == Mode::Required;
    for column in shape.columns.iter().filter(needed).filter(is_given).filter(|_| !is_spread && is_whole) {
        let message = format!("the row has no `{}`, which the schema says is NOT NULL", column.name);
        expressions.findings.add(Diagnostic::error(Code::BadRow, field.key_span(), message));
    }
}

fn tell_of_column(expressions: &Expressions<'_>, entry: &Field<'_>, shape: &Shape) {
    let message = format!("`schema` has no column `{}`", entry.name);
    let error = Diagnostic::error(Code::BadRow, entry.key_span(), message);
    let near = nearest(entry.name, shape.columns.iter().map(|column| column.name.as_str()));
    expressions.findings.add(match near {
        Some(_) => error.did_you_mean(near),
        None => error.help(format!("declare it in `schema`: `{} = \"STRING\"`", entry.name)),
    });
}

/// What a value of the file itself is, as far as it shows.
fn check_value(expressions: &Expressions<'_>, entry: &Field<'_>, column: &Column) {
    let declared = sql_type(&column.kind, column.mode);
    let wrong = |what: &str| {
        let message = format!("`{}` is {declared}, and here is {what}", column.name);
        expressions.findings.add(entry.error(Code::BadRow, message));
    };
    let is_json = column.kind.scalar() == Some(Scalar::Json);
    let is_struct = matches!(column.kind, Type::Struct(_));
    match entry.raw() {
        DeValue::Array(_) if column.mode != Mode::Repeated && !is_json => wrong("a list"),
        DeValue::Table(table) if table.contains_key("each") && table.contains_key("item") => {
            if column.mode != Mode::Repeated && !is_json {
                wrong("a list");
            }
        }
        DeValue::Table(_) if column.mode == Mode::Repeated => wrong("one table, where a list is wanted"),
        DeValue::Table(_) if !is_struct && !is_json => wrong("a table"),
        DeValue::Table(_) => {
            if let Type::Struct(columns) = &column.kind {
                let shape = Shape { columns: columns.clone(), ..Shape::default() };
                check_row(expressions, entry, true, &shape);
            }
        }
        DeValue::String(text) if has_braces(text) => check_template(expressions, entry, text, column, is_json),
        DeValue::String(text) if column.mode == Mode::Repeated && !is_json => wrong(&format!("the text {text:?}")),
        DeValue::String(text) if !can_be(column, text) => wrong(&format!("the text {text:?}")),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_)
            if is_struct || column.mode == Mode::Repeated =>
        {
            wrong("a single value");
        }
        DeValue::Boolean(_) if !matches!(column.kind.scalar(), Some(Scalar::Bool | Scalar::String | Scalar::Json)) => {
            wrong("true or false");
        }
        DeValue::Integer(_) | DeValue::Float(_) if !takes_numbers(column) => wrong("a number"),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => {}
    }
}

/// JSON text in a JSON column would be one long string in it.
fn check_template(expressions: &Expressions<'_>, entry: &Field<'_>, text: &str, column: &Column, is_json: bool) {
    let inner = text.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).map(str::trim);
    let is_text = inner.is_none_or(|inner| inner.contains("}}"));
    let is_json_text = inner
        .is_some_and(|inner| inner.rsplit('|').next().is_some_and(|last| last.trim() == "json" && inner.contains('|')));
    if is_json && is_json_text {
        let message =
            format!("`{}` is JSON and is given JSON by itself: `| json` makes it one long string", column.name);
        let warning = Diagnostic::warning(Code::JsonTwice, entry.span(), message);
        expressions.findings.add(warning.help("leave `| json` out"));
    }
    let is_compound = matches!(column.kind, Type::Struct(_)) || column.mode == Mode::Repeated;
    if is_compound && (is_text || is_json_text) {
        let declared = sql_type(&column.kind, column.mode);
        let message = format!("`{}` is {declared}, and here is text", column.name);
        expressions.findings.add(entry.error(Code::BadRow, message));
    }
}

fn takes_numbers(column: &Column) -> bool {
    let takes = [
        Scalar::Int64,
        Scalar::Float64,
        Scalar::Numeric,
        Scalar::BigNumeric,
        Scalar::String,
        Scalar::Json,
        Scalar::Timestamp,
    ];
    column.kind.scalar().is_some_and(|scalar| takes.contains(&scalar))
}

/// Whether a constant text can be of the column's type; where that takes more than a look, it can.
fn can_be(column: &Column, text: &str) -> bool {
    match &column.kind {
        Type::Struct(_) => false,
        Type::Scalar(scalar, _) => match scalar {
            Scalar::Int64 => text.parse::<i64>().is_ok(),
            Scalar::Float64 | Scalar::Numeric | Scalar::BigNumeric => text.parse::<f64>().is_ok(),
            Scalar::Bool => text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false"),
            Scalar::Timestamp | Scalar::Date | Scalar::DateTime | Scalar::Time => {
                text.starts_with(|c: char| c.is_ascii_digit())
            }
            Scalar::String | Scalar::Bytes | Scalar::Geography | Scalar::Json | Scalar::Interval => true,
        },
    }
}
