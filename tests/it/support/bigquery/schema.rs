//! The columns of a table, and how they may change:
//! <https://docs.cloud.google.com/bigquery/docs/managing-table-schemas>, read 2026-11-26.

use jiff::Timestamp;
use serde_json::Value;

use super::replies::Reply;

/// A column, or a field of a record.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) mode: Mode,
    pub(super) fields: Vec<Field>,
    /// Of text in characters, of bytes in bytes.
    pub(super) max_length: Option<usize>,
    /// Digits in all and after the point.
    pub(super) precision: Option<(usize, usize)>,
    /// When `insertAll` hears of it.
    pub(super) known_from: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    String,
    Bytes,
    Integer,
    Float,
    Numeric,
    BigNumeric,
    Boolean,
    Timestamp,
    Date,
    Time,
    DateTime,
    Geography,
    Json,
    Record,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mode {
    Nullable,
    Required,
    Repeated,
}

/// The longest column name, and the most columns, records opened.
const NAME_LENGTH_MAX: usize = 300;
const FIELDS_MAX: usize = 10_000;

/// Records within records.
const DEPTH_MAX: usize = 15;

/// <https://docs.cloud.google.com/bigquery/docs/schemas#column_names>, read 2026-11-26.
const RESERVED_PREFIXES: [&str; 6] =
    ["_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier"];

impl Kind {
    fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "STRING" => Self::String,
            "BYTES" => Self::Bytes,
            "INTEGER" | "INT64" => Self::Integer,
            "FLOAT" | "FLOAT64" => Self::Float,
            "NUMERIC" => Self::Numeric,
            "BIGNUMERIC" => Self::BigNumeric,
            "BOOLEAN" | "BOOL" => Self::Boolean,
            "TIMESTAMP" => Self::Timestamp,
            "DATE" => Self::Date,
            "TIME" => Self::Time,
            "DATETIME" => Self::DateTime,
            "GEOGRAPHY" => Self::Geography,
            "JSON" => Self::Json,
            "RECORD" | "STRUCT" => Self::Record,
            _ => return None,
        })
    }

    /// The name that the service gives back, whichever it was given.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::String => "STRING",
            Self::Bytes => "BYTES",
            Self::Integer => "INTEGER",
            Self::Float => "FLOAT",
            Self::Numeric => "NUMERIC",
            Self::BigNumeric => "BIGNUMERIC",
            Self::Boolean => "BOOLEAN",
            Self::Timestamp => "TIMESTAMP",
            Self::Date => "DATE",
            Self::Time => "TIME",
            Self::DateTime => "DATETIME",
            Self::Geography => "GEOGRAPHY",
            Self::Json => "JSON",
            Self::Record => "RECORD",
        }
    }
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Nullable => "NULLABLE",
            Self::Required => "REQUIRED",
            Self::Repeated => "REPEATED",
        }
    }
}

/// Reads `schema.fields` and writes the names of types as the service does.
pub(super) fn read(fields: &mut Value, known_from: Timestamp) -> Result<Vec<Field>, Reply> {
    let columns = read_level(fields, known_from, "", 0)?;
    let count = columns.iter().map(Field::count).sum::<usize>();
    if count > FIELDS_MAX {
        return Err(Reply::invalid(&format!(
            "Too many total leaf fields: {count}, max allowed field count: {FIELDS_MAX}"
        )));
    }
    Ok(columns)
}

fn read_level(fields: &mut Value, known_from: Timestamp, path: &str, depth: usize) -> Result<Vec<Field>, Reply> {
    let written = fields.as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
    let mut read: Vec<Field> = Vec::with_capacity(written.len());
    for field in written {
        let field = read_field(field, known_from, path, depth)?;
        if read.iter().any(|other| other.name.eq_ignore_ascii_case(&field.name)) {
            let name = &field.name;
            return Err(Reply::invalid(&format!("Field {path}{name} already exists in schema")));
        }
        read.push(field);
    }
    Ok(read)
}

fn read_field(field: &mut Value, known_from: Timestamp, path: &str, depth: usize) -> Result<Field, Reply> {
    let name = field["name"].as_str().unwrap_or_default().to_owned();
    check_name(&name)?;
    let written = field["type"].as_str().unwrap_or_default().to_owned();
    let unknown = || Reply::invalid(&format!("Invalid value for type: {written} is not a valid value"));
    let kind = Kind::named(&written).ok_or_else(unknown)?;
    field["type"] = kind.name().into();
    let mode = match field["mode"].as_str().unwrap_or("NULLABLE").to_ascii_uppercase().as_str() {
        "NULLABLE" => Mode::Nullable,
        "REQUIRED" => Mode::Required,
        "REPEATED" => Mode::Repeated,
        other => return Err(Reply::invalid(&format!("Invalid value for mode: {other} is not a valid value"))),
    };
    let path = format!("{path}{name}.");
    if depth >= DEPTH_MAX {
        return Err(Reply::invalid(&format!("Field {path} is nested too deeply")));
    }
    let fields = match field.get_mut("fields") {
        Some(fields) => read_level(fields, known_from, &path, depth + 1)?,
        None => Vec::new(),
    };
    if (kind == Kind::Record) == fields.is_empty() {
        let what = if fields.is_empty() { "has no fields" } else { "has fields and is no record" };
        return Err(Reply::invalid(&format!("Field {name} is type {}, and {what}", kind.name())));
    }
    let number = |key: &str| field[key].as_str().and_then(|digits| digits.parse::<usize>().ok());
    let precision = number("precision").map(|precision| (precision, number("scale").unwrap_or(0)));
    if precision.is_some_and(|(precision, scale)| scale > precision) {
        return Err(Reply::invalid(&format!("Field {name} has more digits after the point than in all")));
    }
    Ok(Field { name, kind, mode, fields, max_length: number("maxLength"), precision, known_from })
}

fn check_name(name: &str) -> Result<(), Reply> {
    let is_head = |first: char| first.is_ascii_alphabetic() || first == '_';
    let is_tail = |next: char| next.is_ascii_alphanumeric() || next == '_';
    if !name.starts_with(is_head) || !name.chars().all(is_tail) || name.len() > NAME_LENGTH_MAX {
        return Err(Reply::invalid(&format!(
            "Invalid field name \"{name}\". Fields must contain only letters, numbers, and underscores, start with a \
             letter or underscore, and be at most {NAME_LENGTH_MAX} characters long."
        )));
    }
    let lowered = name.to_ascii_lowercase();
    if RESERVED_PREFIXES.iter().any(|prefix| lowered.starts_with(prefix)) {
        return Err(Reply::invalid(&format!("Invalid field name \"{name}\". Its prefix is reserved.")));
    }
    Ok(())
}

impl Field {
    fn count(&self) -> usize {
        self.fields.iter().map(Self::count).sum::<usize>().max(1)
    }
}

/// Takes new columns over the old: what was known stays known. Else says why the service would not.
pub(super) fn evolve(old: &[Field], new: &mut [Field], path: &str) -> Result<(), String> {
    for before in old {
        let name = format!("{path}{}", before.name);
        let Some(after) = new.iter_mut().find(|after| after.name.eq_ignore_ascii_case(&before.name)) else {
            return Err(format!("Field {name} is missing in new schema"));
        };
        if after.kind != before.kind {
            let (from, to) = (before.kind.name(), after.kind.name());
            return Err(format!("Field {name} has changed type from {from} to {to}"));
        }
        let is_relaxed = (before.mode, after.mode) == (Mode::Required, Mode::Nullable);
        if after.mode != before.mode && !is_relaxed {
            let (from, to) = (before.mode.name(), after.mode.name());
            return Err(format!("Field {name} has changed mode from {from} to {to}"));
        }
        after.known_from = before.known_from;
        evolve(&before.fields, &mut after.fields, &format!("{name}."))?;
    }
    let is_old = |after: &Field| old.iter().any(|before| before.name.eq_ignore_ascii_case(&after.name));
    match new.iter().find(|after| after.mode == Mode::Required && !is_old(after)) {
        Some(after) => Err(format!("Cannot add required fields to an existing schema. (field: {path}{})", after.name)),
        None => Ok(()),
    }
}
