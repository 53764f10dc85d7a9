//! A table's declaration as people run it: GoogleSQL's `CREATE TABLE`
//! (<https://cloud.google.com/bigquery/docs/reference/standard-sql/data-definition-language#create_table_statement>, read
//! 2026-11-26).

use std::fmt::Write as _;
use std::time::Duration;

use super::column::{Column, Mode, Parameters, Scalar, Type};
use super::{Partition, Per, Shape};

/// Seconds of a day.
const DAY_SECONDS: u64 = 86_400;

/// Words that GoogleSQL keeps for itself, and that a column may be called by only within backticks.
const RESERVED: [&str; 97] = [
    "ALL",
    "AND",
    "ANY",
    "ARRAY",
    "AS",
    "ASC",
    "ASSERT_ROWS_MODIFIED",
    "AT",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COLLATE",
    "CONTAINS",
    "CREATE",
    "CROSS",
    "CUBE",
    "CURRENT",
    "DEFAULT",
    "DEFINE",
    "DESC",
    "DISTINCT",
    "ELSE",
    "END",
    "ENUM",
    "ESCAPE",
    "EXCEPT",
    "EXCLUDE",
    "EXISTS",
    "EXTRACT",
    "FALSE",
    "FETCH",
    "FOLLOWING",
    "FOR",
    "FROM",
    "FULL",
    "GROUP",
    "GROUPING",
    "GROUPS",
    "HASH",
    "HAVING",
    "IF",
    "IGNORE",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOOKUP",
    "MERGE",
    "NATURAL",
    "NEW",
    "NO",
    "NOT",
    "NULL",
    "NULLS",
    "OF",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PRECEDING",
    "PROTO",
    "QUALIFY",
    "RANGE",
    "RECURSIVE",
    "RESPECT",
    "RIGHT",
    "ROLLUP",
    "ROWS",
    "SELECT",
    "SET",
    "SOME",
    "STRUCT",
    "TABLESAMPLE",
    "THEN",
    "TO",
    "TREAT",
    "TRUE",
    "UNBOUNDED",
    "UNION",
    "UNNEST",
    "USING",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
    "WITHIN",
    "GRAPH_TABLE",
];

// === impl Shape ===

impl Shape {
    /// The statement that makes a table of this name: `project.dataset.table`.
    #[must_use]
    pub fn ddl(&self, name: &str) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| format!("  {}", sql_column(column))).collect();
        let mut ddl = format!("CREATE TABLE `{name}` (\n{}\n)", columns.join(",\n"));
        if let Some(partition) = &self.partition {
            let _ = write!(ddl, "\nPARTITION BY {}", self.sql_partition(partition));
        }
        if !self.cluster.is_empty() {
            let names: Vec<_> = self.cluster.iter().map(|name| sql_name(name)).collect();
            let _ = write!(ddl, "\nCLUSTER BY {}", names.join(", "));
        }
        let options = self.partition.as_ref().map(sql_options).unwrap_or_default();
        if !options.is_empty() {
            let _ = write!(ddl, "\nOPTIONS ({})", options.join(", "));
        }
        ddl + ";\n"
    }

    fn sql_partition(&self, partition: &Partition) -> String {
        let per = partition.per.as_str();
        let Some(name) = &partition.column else {
            return match partition.per {
                Per::Day => "_PARTITIONDATE".to_owned(),
                Per::Hour | Per::Month | Per::Year => format!("TIMESTAMP_TRUNC(_PARTITIONTIME, {per})"),
            };
        };
        let scalar = self.column(name).and_then(|column| column.kind.scalar());
        let name = sql_name(name);
        match (scalar, partition.per) {
            (Some(Scalar::Date), Per::Day) => name,
            (Some(Scalar::Date), _) => format!("DATE_TRUNC({name}, {per})"),
            (Some(Scalar::DateTime), Per::Day) => format!("DATE({name})"),
            (Some(Scalar::DateTime), _) => format!("DATETIME_TRUNC({name}, {per})"),
            (_, Per::Day) => format!("DATE({name})"),
            (_, Per::Hour | Per::Month | Per::Year) => format!("TIMESTAMP_TRUNC({name}, {per})"),
        }
    }
}

fn sql_options(partition: &Partition) -> Vec<String> {
    let mut options = Vec::new();
    if let Some(expire) = partition.expire {
        options.push(format!("partition_expiration_days = {}", days(expire)));
    }
    if partition.requires_filter {
        options.push("require_partition_filter = TRUE".to_owned());
    }
    options
}

#[allow(clippy::cast_precision_loss, reason = "days, for people")]
fn days(duration: Duration) -> String {
    (duration.as_secs() as f64 / DAY_SECONDS as f64).to_string()
}

fn sql_column(column: &Column) -> String {
    let mut sql = format!("{} {}", sql_name(&column.name), sql_type(&column.kind, column.mode));
    if column.mode == Mode::Required {
        sql.push_str(" NOT NULL");
    }
    if let Some(description) = &column.description {
        let _ = write!(sql, " OPTIONS (description = {})", serde_json::Value::from(description.as_str()));
    }
    sql
}

/// The statement that adds columns to a table of this name, without NOT NULL: a table with rows takes no such ones.
#[must_use]
pub fn add_columns(name: &str, columns: &[&Column]) -> String {
    let added = columns.iter().map(|column| {
        let relaxed = if column.mode == Mode::Required { Mode::Nullable } else { column.mode };
        format!("ADD COLUMN {}", sql_column(&Column { mode: relaxed, ..(*column).clone() }))
    });
    format!("ALTER TABLE `{name}` {};", added.collect::<Vec<_>>().join(", "))
}

/// The statement that gives a column a type which takes more.
#[must_use]
pub fn widen_column(name: &str, column: &str, kind: &Type) -> String {
    let kind = sql_type(kind, Mode::Nullable);
    format!("ALTER TABLE `{name}` ALTER COLUMN {} SET DATA TYPE {kind};", sql_name(column))
}

/// The statement that lets a column be missing.
#[must_use]
pub fn drop_not_null(name: &str, column: &str) -> String {
    format!("ALTER TABLE `{name}` ALTER COLUMN {} DROP NOT NULL;", sql_name(column))
}

/// The statement that gives a table the options of its partitions.
#[must_use]
pub fn set_partition_options(name: &str, partition: &Partition) -> String {
    let days = partition.expire.map_or("NULL".to_owned(), days);
    let filter = if partition.requires_filter { "TRUE" } else { "FALSE" };
    format!(
        "ALTER TABLE `{name}` SET OPTIONS (partition_expiration_days = {days}, require_partition_filter = {filter});"
    )
}

/// A type in the words of GoogleSQL.
#[must_use]
pub fn sql_type(kind: &Type, mode: Mode) -> String {
    let single = match kind {
        Type::Struct(columns) => {
            format!("STRUCT<{}>", columns.iter().map(sql_column).collect::<Vec<_>>().join(", "))
        }
        Type::Scalar(scalar, Parameters(first, scale)) => {
            let numbers: Vec<String> = first.iter().chain(scale).map(u64::to_string).collect();
            let numbers = if numbers.is_empty() { String::new() } else { format!("({})", numbers.join(", ")) };
            format!("{}{numbers}", scalar.words().0)
        }
    };
    if mode == Mode::Repeated { format!("ARRAY<{single}>") } else { single }
}

fn sql_name(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !RESERVED.iter().any(|word| word.eq_ignore_ascii_case(name));
    if is_plain { name.to_owned() } else { format!("`{name}`") }
}
