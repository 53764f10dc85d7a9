//! Columns as a file declares them, in the words of GoogleSQL.

use serde_json::{Map, Value as Json, json};

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: Type,
    /// Whether it may be missing, or holds a list.
    pub mode: Mode,
    /// What people are told of it.
    pub description: Option<String>,
}

/// What a column, or an element of its list, holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// One value.
    Scalar(Scalar, Parameters),
    /// Columns within the column.
    Struct(Vec<Column>),
}

/// `STRING(10)`, `NUMERIC(10, 2)`: the length or precision, and the scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters(pub Option<u64>, pub Option<u64>);

/// A type without parts
/// (<https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types>, read 2026-11-26).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// Text.
    String,
    /// Bytes; Base64 in a row.
    Bytes,
    /// A whole number of 64 bits.
    Int64,
    /// A floating-point number.
    Float64,
    /// A decimal number of 29 digits and 9 more after the point.
    Numeric,
    /// A decimal number of 38 digits and 38 more after the point.
    BigNumeric,
    /// True or false.
    Bool,
    /// A moment.
    Timestamp,
    /// A day.
    Date,
    /// A time of day.
    Time,
    /// A day and a time, nowhere in particular.
    DateTime,
    /// Points, lines and areas.
    Geography,
    /// A JSON value.
    Json,
    /// A span of time.
    Interval,
}

/// How often a column has a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Once, or never.
    #[default]
    Nullable,
    /// Once.
    Required,
    /// As often as there are elements: `ARRAY`.
    Repeated,
}

/// The types with their words in GoogleSQL and in the API, and what else SQL calls them.
pub const SCALARS: [(Scalar, &str, &str, &[&str]); 14] = [
    (Scalar::String, "STRING", "STRING", &[]),
    (Scalar::Bytes, "BYTES", "BYTES", &[]),
    (Scalar::Int64, "INT64", "INTEGER", &["INTEGER", "INT", "SMALLINT", "BIGINT", "TINYINT", "BYTEINT"]),
    (Scalar::Float64, "FLOAT64", "FLOAT", &["FLOAT"]),
    (Scalar::Numeric, "NUMERIC", "NUMERIC", &["DECIMAL"]),
    (Scalar::BigNumeric, "BIGNUMERIC", "BIGNUMERIC", &["BIGDECIMAL"]),
    (Scalar::Bool, "BOOL", "BOOLEAN", &["BOOLEAN"]),
    (Scalar::Timestamp, "TIMESTAMP", "TIMESTAMP", &[]),
    (Scalar::Date, "DATE", "DATE", &[]),
    (Scalar::Time, "TIME", "TIME", &[]),
    (Scalar::DateTime, "DATETIME", "DATETIME", &[]),
    (Scalar::Geography, "GEOGRAPHY", "GEOGRAPHY", &[]),
    (Scalar::Json, "JSON", "JSON", &[]),
    (Scalar::Interval, "INTERVAL", "INTERVAL", &[]),
];

/// The column of a name; BigQuery takes no notice of case.
#[must_use]
pub fn find<'c>(columns: &'c [Column], name: &str) -> Option<&'c Column> {
    columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
}

// === impl Column ===

impl Column {
    /// One that may be missing.
    #[must_use]
    pub fn new(name: impl Into<String>, scalar: Scalar) -> Self {
        let kind = Type::Scalar(scalar, Parameters::default());
        Self { name: name.into(), kind, mode: Mode::Nullable, description: None }
    }

    /// It, as a field of the API's schema
    /// (<https://cloud.google.com/bigquery/docs/reference/rest/v2/tables#TableFieldSchema>, read 2026-11-26).
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut field = Map::new();
        field.insert("name".to_owned(), self.name.as_str().into());
        field.insert("type".to_owned(), self.kind.api_word().into());
        field.insert("mode".to_owned(), self.mode.as_str().into());
        if let Some(description) = &self.description {
            field.insert("description".to_owned(), description.as_str().into());
        }
        match &self.kind {
            Type::Struct(columns) => {
                field.insert("fields".to_owned(), columns.iter().map(Self::to_json).collect());
            }
            Type::Scalar(scalar, Parameters(first, scale)) => {
                let is_text = matches!(scalar, Scalar::String | Scalar::Bytes);
                let key = if is_text { "maxLength" } else { "precision" };
                field.extend(first.map(|first| (key.to_owned(), json!(first.to_string()))));
                field.extend(scale.map(|scale| ("scale".to_owned(), json!(scale.to_string()))));
            }
        }
        field.into()
    }

    /// Whether its values are single ones of this type.
    #[must_use]
    pub fn is(&self, scalar: Scalar) -> bool {
        self.mode != Mode::Repeated && self.kind.scalar() == Some(scalar)
    }
}

// === impl Type ===

impl Type {
    /// The type without parts that it is.
    #[must_use]
    pub fn scalar(&self) -> Option<Scalar> {
        match self {
            Self::Scalar(scalar, _) => Some(*scalar),
            Self::Struct(_) => None,
        }
    }

    /// The API's word, as it gives it back.
    #[must_use]
    pub fn api_word(&self) -> &'static str {
        match self {
            Self::Struct(_) => "RECORD",
            Self::Scalar(scalar, _) => scalar.words().1,
        }
    }
}

// === impl Scalar ===

impl Scalar {
    /// The word of GoogleSQL, and the API's.
    #[must_use]
    pub fn words(self) -> (&'static str, &'static str) {
        let known = SCALARS.iter().find(|(scalar, ..)| *scalar == self);
        known.map_or(("STRING", "STRING"), |(_, sql, api, _)| (sql, api))
    }

    /// The type of a word, in any case.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let is_it = |(_, sql, _, others): &&(Self, &str, &str, &[&str])| {
            sql.eq_ignore_ascii_case(word) || others.iter().any(|other| other.eq_ignore_ascii_case(word))
        };
        SCALARS.iter().find(is_it).map(|(scalar, ..)| *scalar)
    }
}

// === impl Mode ===

impl Mode {
    /// The API's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nullable => "NULLABLE",
            Self::Required => "REQUIRED",
            Self::Repeated => "REPEATED",
        }
    }
}
