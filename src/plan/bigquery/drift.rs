//! A table as it is, held against what a file declares and sends: what drifted apart, and what to do about it.
//!
//! What is compared is what BigQuery's own `tables.get` says
//! (<https://cloud.google.com/bigquery/docs/reference/rest/v2/tables#Table>, read 2026-11-26). Columns that the table has
//! beyond the file's, and that may be missing, are nobody's business.

use serde_json::Value as Json;

use super::column::{Column, Mode, Parameters, Scalar, Type, find};
use super::ddl::{self, sql_type};
use super::growth::{column_name, is_name};
use super::{BigQuery, NamedTable, Partition};
use crate::plan::Mapping;
use crate::plan::finding::{Finding, Grade};

/// What a row gives, as far as the file alone tells.
#[derive(Default)]
struct Given {
    fields: Vec<(String, Given)>,
    /// Whether it is an object, or a list of them, for sure.
    is_object: bool,
    /// Whether an event may add to it.
    is_open: bool,
}

/// Milliseconds of an hour.
const HOUR_MS: u64 = 3_600_000;

/// A comparison under way.
struct Drift<'t> {
    subject: String,
    name: &'t str,
    settings: &'t BigQuery,
    is_declared: bool,
    given: Given,
    missing: Vec<&'t Column>,
    missing_inside: Vec<String>,
    unknown: Vec<String>,
    findings: Vec<Finding>,
}

// === impl NamedTable ===

impl NamedTable<'_> {
    /// Compares the file with a table as `tables.get` shows it. Without anything to tell, that is told.
    #[must_use]
    pub fn drift(&self, settings: &BigQuery, live: &Json) -> Vec<Finding> {
        let subject = self.subject();
        let kind = live["type"].as_str().unwrap_or("TABLE");
        if kind != "TABLE" {
            let problem = Finding::new(Grade::Problem, subject, format!("is a {kind}, which takes no rows"));
            return vec![problem.help("name a table, or another one")];
        }
        let mut drift = Drift {
            subject,
            name: &self.name,
            settings,
            is_declared: !self.shape.columns.is_empty(),
            given: self.row.map(given).unwrap_or_default(),
            missing: Vec::new(),
            missing_inside: Vec::new(),
            unknown: Vec::new(),
            findings: Vec::new(),
        };
        let fields = fields_of(&live["schema"]);
        drift.columns(&self.shape.columns, fields, "");
        let given = std::mem::take(&mut drift.given);
        drift.row(&given, &self.shape.columns, fields, "");
        drift.given = given;
        if drift.is_declared {
            drift.partitions(self.shape.partition.as_ref(), live);
            drift.clusters(&self.shape.cluster, live);
        }
        drift.told(fields.len())
    }

    /// What it is called where it is looked at.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("table {}", self.name)
    }
}

// === impl Drift ===

impl<'t> Drift<'t> {
    fn tell(&mut self, grade: Grade, message: String, help: impl Into<String>) {
        self.findings.push(Finding::new(grade, self.subject.clone(), message).help(help));
    }

    // --- what is declared

    fn columns(&mut self, declared: &'t [Column], live: &[Json], within: &str) {
        for column in declared {
            let path = joined(within, &column.name);
            match field(live, &column.name) {
                Some(live) => self.column(column, live, &path),
                None if within.is_empty() => self.missing.push(column),
                None => self.missing_inside.push(path),
            }
        }
    }

    fn column(&mut self, column: &'t Column, live: &Json, path: &str) {
        self.modes(column.mode, mode(live), path);
        match (&column.kind, kind(live)) {
            (Type::Struct(inner), None) if is_record(live) => self.columns(inner, fields_of(live), path),
            (Type::Scalar(ours, numbers), Some(theirs)) if *ours == theirs => {
                self.numbers(theirs, *numbers, parameters(live), path);
            }
            (ours, _) => self.types(ours, live, path),
        }
    }

    fn types(&mut self, ours: &Type, live: &Json, path: &str) {
        let declared = sql_type(ours, Mode::Nullable);
        let theirs = live_type(live);
        let message = format!("has the column `{path}` as {theirs}, and the file as {declared}");
        let is_wider = ours.scalar().zip(kind(live)).is_some_and(|(ours, theirs)| widens(theirs, ours));
        let help = if is_wider && !path.contains('.') {
            format!("{} -- or write {theirs} in `schema`", ddl::widen_column(self.name, path, ours))
        } else {
            format!("write {theirs} in `schema`, or give the column another name: its type cannot be changed in place")
        };
        self.tell(Grade::Problem, message, help);
    }

    fn modes(&mut self, ours: Mode, theirs: Mode, path: &str) {
        let (grade, message, help) = match (ours, theirs) {
            (Mode::Repeated, Mode::Nullable | Mode::Required) => {
                (Grade::Problem, "as a single value, and the file as a list", "leave `ARRAY` out of its type")
            }
            (Mode::Nullable | Mode::Required, Mode::Repeated) => {
                (Grade::Problem, "as a list, and the file as a single value", "write `ARRAY<…>` as its type")
            }
            (Mode::Nullable, Mode::Required) => {
                let message = "NOT NULL, and the file lets it be missing: a row without it is refused";
                let help = format!("write NOT NULL in `schema`, or let the table do without: {}", self.relaxed(path));
                self.tell(Grade::Warning, format!("has the column `{path}` {message}"), help);
                return;
            }
            (Mode::Required, Mode::Nullable) => (
                Grade::Warning,
                "that may be missing, and the file says NOT NULL",
                "leave NOT NULL out of its type, so that the file says what is so: a table cannot be made stricter",
            ),
            (Mode::Nullable, Mode::Nullable) | (Mode::Required, Mode::Required) | (Mode::Repeated, Mode::Repeated) => {
                return;
            }
        };
        self.tell(grade, format!("has the column `{path}` {message}"), help);
    }

    /// How a column is let be missing; one within a column has no statement for it.
    fn relaxed(&self, path: &str) -> String {
        if path.contains('.') {
            "bq update with its mode NULLABLE".to_owned()
        } else {
            ddl::drop_not_null(self.name, path)
        }
    }

    /// Lengths and precisions. What has more room than it needs is no news.
    fn numbers(&mut self, scalar: Scalar, ours: Parameters, theirs: Parameters, path: &str) {
        if !is_tighter(theirs, ours) {
            return;
        }
        let told = |numbers| sql_type(&Type::Scalar(scalar, numbers), Mode::Nullable);
        let (declared, theirs) = (told(ours), told(theirs));
        let message =
            format!("has the column `{path}` as {theirs}, and the file as {declared}: what is longer is refused");
        let help = if path.contains('.') {
            format!("write {theirs} in `schema`")
        } else {
            ddl::widen_column(self.name, path, &Type::Scalar(scalar, ours))
        };
        self.tell(Grade::Warning, message, help);
    }

    // --- what rows give

    fn row(&mut self, given: &Given, declared: &[Column], live: &[Json], within: &str) {
        for (name, inner) in &given.fields {
            let column = find(declared, name);
            // As the row is written.
            let is_mended = column.is_none() && self.settings.adds_columns;
            let name = if is_mended { &*column_name(name) } else { name.as_str() };
            let path = joined(within, name);
            let Some(field) = field(live, name) else {
                // What is declared was told already.
                self.unknown.extend(column.is_none().then_some(path));
                continue;
            };
            let columns = match column.map(|column| &column.kind) {
                Some(Type::Struct(columns)) => columns.as_slice(),
                Some(Type::Scalar(..)) | None => &[],
            };
            match kind(field) {
                None if inner.is_object => self.row(inner, columns, fields_of(field), &path),
                Some(Scalar::Json) if column.is_none() && (inner.is_object || inner.is_open) => {
                    let message = format!("has the column `{path}` as JSON, which the file does not declare");
                    self.tell(
                        Grade::Warning,
                        message,
                        format!("add `{name} = \"JSON\"` to `schema`: objects are JSON text in a row"),
                    );
                }
                None | Some(_) => {}
            }
        }
        self.required(given, live, within);
    }

    fn required(&mut self, given: &Given, live: &[Json], within: &str) {
        let has_default = |field: &Json| !field["defaultValueExpression"].is_null();
        let is_given = |field: &Json| given.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(name_of(field)));
        for field in live.iter().filter(|field| mode(field) == Mode::Required) {
            if has_default(field) || is_given(field) {
                continue;
            }
            let path = joined(within, name_of(field));
            let what = format!("has the column `{path}` NOT NULL, which the row");
            let help = format!("give it in `row`, or let the table do without: {}", self.relaxed(&path));
            if given.is_open {
                self.tell(Grade::Warning, format!("{what} has only if an event brings it"), help);
            } else {
                self.tell(Grade::Problem, format!("{what} does not give: every row is refused"), help);
            }
        }
    }

    // --- how it is laid out

    fn partitions(&mut self, ours: Option<&Partition>, live: &Json) {
        let theirs = &live["timePartitioning"];
        let told = |per: &str, column: Option<&str>| {
            format!("per {} of {}", per.to_lowercase(), column.map_or("arrival".to_owned(), |name| format!("`{name}`")))
        };
        let declared = ours.map(|ours| told(ours.per.as_str(), ours.column.as_deref()));
        let found = match (theirs.is_object(), live["rangePartitioning"]["field"].as_str()) {
            (true, _) => Some(told(theirs["type"].as_str().unwrap_or("DAY"), theirs["field"].as_str())),
            (false, Some(column)) => Some(format!("by ranges of `{column}`")),
            (false, None) => None,
        };
        let is_same = match (&declared, &found) {
            (Some(ours), Some(theirs)) => ours.eq_ignore_ascii_case(theirs),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        if !is_same {
            let say = |layout: Option<String>| layout.unwrap_or_else(|| "not at all".to_owned());
            let message = format!("is partitioned {}, and the file says {}", say(found), say(declared));
            let help = "rows get in all the same; to change it the table has to be made anew, or say in `partition_by` what is so";
            self.tell(Grade::Warning, message, help);
        } else if let Some(ours) = ours {
            self.partition_options(ours, live);
        }
    }

    fn partition_options(&mut self, ours: &Partition, live: &Json) {
        let theirs = &live["timePartitioning"];
        let number = |value: &Json| value.as_str().and_then(|text| text.parse().ok()).or_else(|| value.as_u64());
        let expire_ms = number(&theirs["expirationMs"]).filter(|ms| *ms > 0);
        let ours_ms = ours.expire.map(|expire| u64::try_from(expire.as_millis()).unwrap_or(u64::MAX));
        let requires_filter = live["requirePartitionFilter"] == true || theirs["requirePartitionFilter"] == true;
        let mut differs = Vec::new();
        if ours_ms != expire_ms {
            let told = |ms: Option<u64>| ms.map_or("never".to_owned(), |ms| format!("after {}h", ms / HOUR_MS));
            differs.push(format!("lets partitions go {}, and the file says {}", told(expire_ms), told(ours_ms)));
        }
        if ours.requires_filter != requires_filter {
            let told = if requires_filter { "needs a filter in queries" } else { "needs no filter in queries" };
            differs.push(format!("{told}, and the file says otherwise"));
        }
        if !differs.is_empty() {
            self.tell(Grade::Warning, differs.join("; "), ddl::set_partition_options(self.name, ours));
        }
    }

    fn clusters(&mut self, ours: &[String], live: &Json) {
        let fields = live["clustering"]["fields"].as_array().map_or(&[][..], Vec::as_slice);
        let theirs: Vec<&str> = fields.iter().filter_map(Json::as_str).collect();
        let is_same = ours.len() == theirs.len()
            && ours.iter().zip(&theirs).all(|(ours, theirs)| ours.eq_ignore_ascii_case(theirs));
        if is_same {
            return;
        }
        let say = |names: Vec<&str>| {
            if names.is_empty() { "not at all".to_owned() } else { format!("by `{}`", names.join("`, `")) }
        };
        let names: Vec<&str> = ours.iter().map(String::as_str).collect();
        let wanted = names.join(",");
        let message = format!("is clustered {}, and the file says {}", say(theirs), say(names));
        let table = self.name.replacen('.', ":", 1);
        self.tell(
            Grade::Warning,
            message,
            format!("rows get in all the same; bq update --clustering_fields='{wanted}' '{table}' changes it"),
        );
    }

    // --- the end

    /// Everything found, what is missing first.
    fn told(mut self, columns: usize) -> Vec<Finding> {
        let found = std::mem::take(&mut self.findings);
        self.tell_missing();
        self.tell_missing_inside();
        self.tell_unknown();
        self.findings.extend(found);
        if self.findings.is_empty() {
            let as_what =
                if self.is_declared { "is as the file declares it" } else { "has every column that the row gives" };
            let plural = if columns == 1 { "" } else { "s" };
            self.findings.push(Finding::new(
                Grade::Fine,
                self.subject,
                format!("{as_what} ({columns} column{plural})"),
            ));
        }
        self.findings
    }

    /// Columns that rows give are wanted now, others some day.
    fn tell_missing(&mut self) {
        let missing = std::mem::take(&mut self.missing);
        let is_given = |column: &&&Column| {
            self.given.is_open || self.given.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(&column.name))
        };
        let (given, spare): (Vec<&Column>, Vec<&Column>) = missing.iter().partition(|column| is_given(column));
        let names = |columns: &[&Column]| columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        if !given.is_empty() {
            self.tell_lacking(&names(&given), ddl::add_columns(self.name, &given), "which `schema` declares");
        }
        if !spare.is_empty() {
            let names = names(&spare);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let message = format!("lacks {}, which `schema` declares and no row gives", columns(&names));
            self.tell(Grade::Warning, message, ddl::add_columns(self.name, &spare));
        }
        let strict: Vec<&str> = missing.iter().filter(|c| c.mode == Mode::Required).map(|c| &*c.name).collect();
        if !strict.is_empty() {
            let message = format!("can get {} only without NOT NULL: it may have rows", columns(&strict));
            self.tell(Grade::Warning, message, "leave NOT NULL out of `schema`, or make the table anew");
        }
    }

    /// GoogleSQL adds no columns within columns
    /// (<https://cloud.google.com/bigquery/docs/managing-table-schemas#add_a_nested_column_to_a_record_column>, not confirmed); `tables.patch` does.
    fn tell_missing_inside(&mut self) {
        let names = std::mem::take(&mut self.missing_inside);
        if !names.is_empty() {
            let help = "`schema_update = \"add_columns\"` adds it, or bq update with the whole schema: ALTER TABLE adds none within a column";
            self.tell_lacking(&names, help.to_owned(), "which `schema` declares");
        }
    }

    fn tell_unknown(&mut self) {
        let names = std::mem::take(&mut self.unknown);
        if names.is_empty() {
            return;
        }
        let outer: Vec<Column> =
            names.iter().filter(|name| is_name(name)).map(|name| Column::new(name.as_str(), Scalar::String)).collect();
        let help = if outer.len() == names.len() {
            let statement = ddl::add_columns(self.name, &outer.iter().collect::<Vec<_>>());
            format!("{statement} -- or of whichever type they are")
        } else {
            "declare it in `schema` and let `schema_update = \"add_columns\"` add it".to_owned()
        };
        self.tell_lacking(&names, help, "which the row gives");
    }

    fn tell_lacking(&mut self, names: &[String], help: String, why: &str) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let message = format!("lacks {}, {why}", columns(&names));
        if self.settings.adds_columns {
            let message = format!("{message}: `schema_update` adds it with the first row that has it");
            self.findings.push(Finding::new(Grade::Warning, self.subject.clone(), message).help(help));
        } else {
            self.tell(Grade::Problem, format!("{message}: such rows are refused"), help);
        }
    }
}

// --- what a row gives

fn given(mapping: &Mapping) -> Given {
    match mapping {
        Mapping::Constant(json) => {
            serde_json::from_str(json).map_or_else(|_| Given::default(), |json| given_json(&json))
        }
        Mapping::Template(_) => Given { is_open: true, ..Given::default() },
        Mapping::Object { spread, fields } => Given {
            fields: fields.iter().map(|(name, mapping)| (name.clone(), given(mapping))).collect(),
            is_object: true,
            is_open: !spread.is_empty(),
        },
        Mapping::List(elements) => elements.first().map(given).unwrap_or_default(),
        Mapping::Each { item, .. } => given(item),
    }
}

fn given_json(json: &Json) -> Given {
    match json {
        Json::Object(members) => Given {
            fields: members.iter().map(|(name, value)| (name.clone(), given_json(value))).collect(),
            is_object: true,
            is_open: false,
        },
        Json::Array(elements) => elements.first().map(given_json).unwrap_or_default(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Given::default(),
    }
}

// --- a field of the API's schema

fn fields_of(field: &Json) -> &[Json] {
    field["fields"].as_array().map_or(&[], Vec::as_slice)
}

fn name_of(field: &Json) -> &str {
    field["name"].as_str().unwrap_or_default()
}

fn field<'f>(fields: &'f [Json], name: &str) -> Option<&'f Json> {
    fields.iter().find(|field| name_of(field).eq_ignore_ascii_case(name))
}

fn mode(field: &Json) -> Mode {
    match field["mode"].as_str() {
        Some("REQUIRED") => Mode::Required,
        Some("REPEATED") => Mode::Repeated,
        Some(_) | None => Mode::Nullable,
    }
}

/// What it holds; `None`: columns, or what nobody knows.
fn kind(field: &Json) -> Option<Scalar> {
    Scalar::from_word(field["type"].as_str().unwrap_or_default())
}

fn is_record(field: &Json) -> bool {
    matches!(field["type"].as_str(), Some("RECORD" | "STRUCT"))
}

fn parameters(field: &Json) -> Parameters {
    let number = |key: &str| field[key].as_str().and_then(|text| text.parse().ok()).or_else(|| field[key].as_u64());
    Parameters(number("maxLength").or_else(|| number("precision")), number("scale"))
}

/// Its type in the words of GoogleSQL.
fn live_type(field: &Json) -> String {
    match kind(field) {
        Some(scalar) => sql_type(&Type::Scalar(scalar, parameters(field)), Mode::Nullable),
        None => match field["type"].as_str() {
            _ if is_record(field) => "STRUCT<…>".to_owned(),
            other => other.unwrap_or("nothing that is known").to_owned(),
        },
    }
}

/// Whether a column of one type can become one of the other in place
/// (<https://cloud.google.com/bigquery/docs/managing-table-schemas#change_a_columns_data_type>, not confirmed).
fn widens(from: Scalar, to: Scalar) -> bool {
    matches!(
        (from, to),
        (Scalar::Int64, Scalar::Numeric | Scalar::BigNumeric | Scalar::Float64)
            | (Scalar::Numeric, Scalar::BigNumeric | Scalar::Float64)
    )
}

/// Whether one takes less than the other; without a number there is room for all.
fn is_tighter(one: Parameters, other: Parameters) -> bool {
    let is_less = |one: Option<u64>, other: Option<u64>| one.is_some_and(|one| other.is_none_or(|other| one < other));
    // `NUMERIC(10)` has no digits after the point.
    let scale = |Parameters(first, scale): Parameters| scale.or(first.map(|_| 0));
    is_less(one.0, other.0) || is_less(scale(one), scale(other))
}

fn joined(within: &str, name: &str) -> String {
    if within.is_empty() { name.to_owned() } else { format!("{within}.{name}") }
}

fn columns(names: &[&str]) -> String {
    let noun = if names.len() == 1 { "column" } else { "columns" };
    format!("the {noun} `{}`", names.join("`, `"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::plan::bigquery::{Per, Shape, TableAddress, types};

    fn shape(columns: &[(&str, &str)]) -> Shape {
        let column = |(name, text): &(&str, &str)| {
            let (kind, mode) = types::parse(text).expect("a type");
            Column { name: (*name).to_owned(), kind, mode, description: None }
        };
        Shape { columns: columns.iter().map(column).collect(), ..Shape::default() }
    }

    /// What is told of a table: the grade and the message of each finding.
    fn told(shape: &Shape, row: &Json, settings: &BigQuery, live: &Json) -> Vec<String> {
        let row = Mapping::Constant(row.to_string());
        let table = NamedTable { name: "p.d.t".to_owned(), address: None, dataset: None, shape, row: Some(&row) };
        let findings = table.drift(settings, live);
        findings.iter().map(|found| format!("{}: {}", found.grade, found.message)).collect()
    }

    fn live(shape: &Shape) -> Json {
        let address = TableAddress {
            endpoint: String::new(),
            project: "p".to_owned(),
            dataset: "d".to_owned(),
            table: "t".to_owned(),
        };
        shape.table_json(&address)
    }

    #[test]
    fn a_table_made_from_the_declaration_has_not_drifted() {
        let mut shape = shape(&[
            ("id", "STRING(36) NOT NULL"),
            ("at", "TIMESTAMP"),
            ("total", "NUMERIC(10, 2)"),
            ("tags", "ARRAY<STRING>"),
            ("shops", "ARRAY<STRUCT<id INT64 NOT NULL, open ARRAY<BOOL>, place GEOGRAPHY>>"),
            ("score", "FLOAT64"),
            ("context", "JSON"),
        ]);
        let partition = Partition {
            column: Some("at".to_owned()),
            per: Per::Month,
            expire: Some(std::time::Duration::from_hours(24)),
            requires_filter: true,
        };
        (shape.partition, shape.cluster) = (Some(partition), vec!["id".to_owned()]);
        let row = json!({ "ID": "1", "shops": [{ "id": 1 }] });
        assert_eq!(
            told(&shape, &row, &BigQuery::default(), &live(&shape)),
            ["ok: is as the file declares it (7 columns)"]
        );
    }

    #[test]
    fn what_may_be_missing_in_the_file_or_has_room_enough_is_nobodys_business() {
        let declared = shape(&[("id", "STRING(10)"), ("n", "NUMERIC(5)")]);
        let table = shape(&[("ID", "STRING"), ("n", "NUMERIC(8, 2)"), ("more", "STRING"), ("many", "ARRAY<INT64>")]);
        let mut live = live(&table);
        live["schema"]["fields"].as_array_mut().expect("a list").push(
            json!({ "name": "made", "type": "TIMESTAMP", "mode": "REQUIRED", "defaultValueExpression": "CURRENT_TIMESTAMP()" }),
        );
        let found = told(&declared, &json!({ "id": "1" }), &BigQuery::default(), &live);
        assert_eq!(found, ["ok: is as the file declares it (5 columns)"]);
    }

    #[test]
    fn a_row_is_held_against_the_table_where_nothing_is_declared_columns_within_columns_included() {
        let table = shape(&[("id", "STRING"), ("shop", "STRUCT<id INT64, zip STRING NOT NULL>"), ("context", "JSON")]);
        let row = json!({ "id": 1, "shop": { "id": 1, "city": "x" }, "context": {} });
        assert_eq!(
            told(&Shape::default(), &row, &BigQuery::default(), &live(&table)),
            [
                "problem: lacks the column `shop.city`, which the row gives: such rows are refused",
                "problem: has the column `shop.zip` NOT NULL, which the row does not give: every row is refused",
                "warning: has the column `context` as JSON, which the file does not declare",
            ]
        );
    }

    #[test]
    fn a_name_that_is_mended_on_its_way_is_looked_for_as_it_is_sent() {
        let (table, row) = (shape(&[("a_b", "STRING")]), json!({ "a.b": "x" }));
        let adding = BigQuery { adds_columns: true, ..BigQuery::default() };
        let grade =
            |settings| told(&Shape::default(), &row, settings, &live(&table))[0].split(':').next().map(str::to_owned);
        assert_eq!(grade(&adding).as_deref(), Some("ok"));
        assert_eq!(grade(&BigQuery::default()).as_deref(), Some("problem"));
    }

    #[test]
    fn lists_records_and_types_that_nobody_knows_are_no_strings() {
        let declared = shape(&[("a", "STRUCT<x INT64>"), ("b", "STRING"), ("c", "INT64"), ("d", "STRUCT<x INT64>")]);
        let table = json!({ "schema": { "fields": [
            { "name": "a", "type": "STRING" },
            { "name": "b", "type": "RECORD", "fields": [{ "name": "x", "type": "INT64" }] },
            { "name": "c", "type": "INT64", "mode": "REPEATED" },
            { "name": "d", "type": "RANGE", "rangeElementType": { "type": "DATE" } },
        ] } });
        assert_eq!(
            told(&declared, &json!({}), &BigQuery::default(), &table),
            [
                "problem: has the column `a` as STRING, and the file as STRUCT<x INT64>",
                "problem: has the column `b` as STRUCT<…>, and the file as STRING",
                "problem: has the column `c` as a list, and the file as a single value",
                "problem: has the column `d` as RANGE, and the file as STRUCT<x INT64>",
            ]
        );
    }

    #[test]
    fn partitions_and_their_options_are_compared() {
        let mut declared = shape(&[("at", "TIMESTAMP")]);
        let partition = |expire_hours: Option<u64>| Partition {
            column: Some("at".to_owned()),
            per: Per::Day,
            expire: expire_hours.map(std::time::Duration::from_hours),
            requires_filter: false,
        };
        declared.partition = Some(partition(Some(48)));
        let mut table = declared.clone();
        table.partition = Some(Partition { requires_filter: true, ..partition(None) });
        let message = "warning: lets partitions go never, and the file says after 48h; needs a filter in queries, and the file says otherwise";
        assert_eq!(told(&declared, &json!({}), &BigQuery::default(), &live(&table)), [message]);
        table.partition = None;
        let mut by_ranges = live(&table);
        by_ranges["rangePartitioning"] = json!({ "field": "n" });
        let message = "warning: is partitioned by ranges of `n`, and the file says per day of `at`";
        assert_eq!(told(&declared, &json!({}), &BigQuery::default(), &by_ranges), [message]);
    }

    proptest! {
        #[test]
        fn whatever_the_service_says_something_is_told(kind in "[A-Z]{0,6}", mode in "[A-Z]{0,8}", name in "[a-c.]{0,3}") {
            let declared = shape(&[("a", "STRUCT<b INT64>"), ("b", "ARRAY<STRING(5)>"), ("c", "NUMERIC(5, 2) NOT NULL")]);
            let table = json!({
                "type": "TABLE",
                "schema": { "fields": [{ "name": name, "type": kind, "mode": mode, "fields": kind, "precision": name }] },
                "timePartitioning": kind, "clustering": [name],
            });
            let row = json!({ "a": { "b": 1 }, name: [{}] });
            prop_assert!(!told(&declared, &row, &BigQuery::default(), &table).is_empty());
        }
    }
}
