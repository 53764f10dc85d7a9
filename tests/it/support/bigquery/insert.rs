//! `tabledata.insertAll`: <https://docs.cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/insertAll>, read 2026-11-26.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::faults::Fault;
use super::replies::Reply;
use super::tables::Table;
use super::values::{self, Reading};
use super::{Options, State};

/// How long an `insertId` is remembered, at least:
/// <https://docs.cloud.google.com/bigquery/docs/streaming-data-into-bigquery#dataconsistency>, read 2026-11-26.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(1);

/// <https://docs.cloud.google.com/bigquery/quotas#streaming_inserts>, read 2026-11-26.
const INSERT_ID_LENGTH_MAX: usize = 128;

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// What becomes of a row.
enum Fate {
    Fine(Map<String, Value>),
    Wrong { reason: &'static str, location: String, message: String },
}

impl State {
    pub(super) fn insert_all(
        &mut self,
        [project, dataset, table]: [&str; 3],
        request: &Value,
        fault: &Fault,
        options: &Options,
    ) -> Result<Value, Reply> {
        let now = self.clock.now();
        let mut dice = self.faults.dice.fork();
        let table = self.table(project, dataset, table)?;
        if table.known_from > now {
            return Err(Reply::not_found(&format!("Table {}", table.id())));
        }
        if !request["templateSuffix"].is_null() {
            return Err(Reply::error(501, "notImplemented", "The fake knows no template tables."));
        }
        let rows = request["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
        check_rows(rows, table, options)?;
        let reading =
            Reading { now, ignores_unknown: request["ignoreUnknownValues"] == true, keeps: options.keeps_values };
        let mut fates: Vec<Fate> = rows.iter().map(|row| fate(row, table, reading, options)).collect();
        if let Fault::Rows(share, reason) = fault {
            for fate in fates.iter_mut().filter(|fate| matches!(fate, Fate::Fine(_)) && dice.f64() < *share) {
                *fate = Fate::Wrong { reason, location: String::new(), message: String::new() };
            }
        }
        let is_wrong = |fate: &Fate| matches!(fate, Fate::Wrong { .. });
        if request["skipInvalidRows"] != true && fates.iter().any(is_wrong) {
            for fate in fates.iter_mut().filter(|fate| !is_wrong(fate)) {
                *fate = Fate::Wrong { reason: "stopped", location: String::new(), message: String::new() };
            }
        }
        Ok(settle(rows, fates, table, now, options))
    }
}

/// What is wrong with all of them.
fn check_rows(rows: &[Value], table: &Table, options: &Options) -> Result<(), Reply> {
    let (count, max) = (rows.len(), options.limits.rows);
    if rows.is_empty() {
        return Err(Reply::invalid("No rows present in the request."));
    }
    if count > max {
        let message = format!("too many rows present in the request, limit: {max} row count: {count}.");
        return Err(Reply::invalid(&message));
    }
    if table.columns.is_empty() {
        return Err(Reply::invalid("The destination table has no schema."));
    }
    let is_long = |row: &Value| row["insertId"].as_str().is_some_and(|id| id.len() > INSERT_ID_LENGTH_MAX);
    if rows.iter().any(is_long) {
        // The sentence is ours.
        return Err(Reply::invalid(&format!("insertId is longer than {INSERT_ID_LENGTH_MAX} characters")));
    }
    Ok(())
}

fn fate(row: &Value, table: &Table, reading: Reading, options: &Options) -> Fate {
    let wrong = |location, message| Fate::Wrong { reason: "invalid", location, message };
    let Some(row) = row["json"].as_object() else {
        // The sentence is ours.
        return wrong(String::new(), "The row has no values.".to_owned());
    };
    match reading.row(&table.columns, row) {
        Ok(stored) => match too_long(row, options).or_else(|| out_of_bounds(row, table, reading.now, options)) {
            Some(message) => wrong(String::new(), message),
            None => Fate::Fine(stored),
        },
        Err(error) => wrong(error.location, error.message),
    }
}

/// Why the partition of a good row cannot be streamed to.
fn out_of_bounds(row: &Map<String, Value>, table: &Table, now: Timestamp, options: &Options) -> Option<String> {
    let column = table.partition_column()?;
    let instant = values::instant(column, row.get(&column.name)?)?;
    let (past, future) = options.limits.partition_days;
    let days = (instant.as_second().div_euclid(DAY_SECONDS)) - now.as_second().div_euclid(DAY_SECONDS);
    let (micros, name, id) = (instant.as_microsecond(), &column.name, table.id());
    (days < -past || days > future).then(|| {
        format!(
            "Value {micros} for partition column {name} of the destination table {id} is outside the allowed bounds. You \
             can only stream to partitions of date range within {past} days in the past and {future} days in the future \
             relative to the current date."
        )
    })
}

/// The size of a row is looked at only where it can be more than a request.
fn too_long(row: &Map<String, Value>, options: &Options) -> Option<String> {
    let max = options.limits.row_bytes;
    if max >= options.limits.body_bytes {
        return None;
    }
    let size = serde_json::to_vec(row).map_or(0, |text| text.len());
    (size > max).then(|| format!("Maximum allowed row size exceeded. Allowed: {max} Row size: {size}"))
}

/// Stores what is fine and tells the rest.
fn settle(rows: &[Value], fates: Vec<Fate>, table: &mut Table, now: Timestamp, options: &Options) -> Value {
    let mut errors = Vec::new();
    for (index, (row, fate)) in rows.iter().zip(fates).enumerate() {
        let stored = match fate {
            Fate::Fine(stored) => Some(stored),
            Fate::Wrong { reason, location, message } => {
                let error = json!({ "reason": reason, "location": location, "debugInfo": "", "message": message });
                errors.push(json!({ "index": index, "errors": [error] }));
                None
            }
        };
        if table.count(row["insertId"].as_str(), stored.is_some(), now) {
            table.keep(stored.as_ref().filter(|_| options.keeps_values), now);
        }
    }
    let mut response = json!({ "kind": "bigquery#tableDataInsertAllResponse" });
    if !errors.is_empty() {
        response["insertErrors"] = errors.into();
    }
    response
}

impl Table {
    /// Counts a row, and says whether it is to be stored: it is fine and its id has not been stored of late.
    fn count(&mut self, insert_id: Option<&str>, is_fine: bool, now: Timestamp) -> bool {
        let Some(insert_id) = insert_id.filter(|id| !id.is_empty()) else { return is_fine };
        if !self.seen.contains_key(insert_id) {
            self.seen.insert(insert_id.into(), super::tables::Seen::default());
        }
        let seen = self.seen.get_mut(insert_id).expect("put there above");
        seen.sent += 1;
        let is_remembered = seen.last_stored.is_some_and(|last| now.duration_since(last) < REMEMBERED);
        let is_stored = is_fine && !is_remembered;
        if is_stored {
            seen.stored += 1;
            seen.last_stored = Some(now);
        }
        is_stored
    }

    fn keep(&mut self, values: Option<&Map<String, Value>>, now: Timestamp) {
        self.stored += 1;
        self.streaming_since.get_or_insert(now);
        if let Some(values) = values {
            self.rows.push(serde_json::to_string(values).unwrap().into_boxed_str());
        }
    }
}
