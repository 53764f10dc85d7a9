//! Datasets and tables, and what may be said about them:
//! <https://docs.cloud.google.com/bigquery/docs/reference/rest/v2/tables>, read 2026-11-26.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use axum::http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::replies::Reply;
use super::schema::{self, Field, Kind, Mode};
use super::{Limits, State};

pub(super) struct Dataset {
    resource: Value,
}

pub(super) struct Table {
    resource: Value,
    pub(super) columns: Vec<Field>,
    /// When `insertAll` hears of it.
    pub(super) known_from: Timestamp,
    version: u64,
    updates: VecDeque<Timestamp>,
    /// JSON objects, without the columns that have no value.
    pub(super) rows: Vec<Box<str>>,
    pub(super) stored: usize,
    pub(super) seen: HashMap<Box<str>, Seen, foldhash::fast::RandomState>,
    /// When the first row came.
    pub(super) streaming_since: Option<Timestamp>,
}

/// What became of the rows with one `insertId`.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) sent: u32,
    pub(super) stored: u32,
    pub(super) last_stored: Option<Timestamp>,
}

/// `project:dataset.table`, as the service writes it.
fn id(project: &str, dataset: &str, table: &str) -> String {
    format!("{project}:{dataset}.{table}")
}

// === impl Dataset ===

impl State {
    pub(super) fn insert_dataset(&mut self, project: &str, mut resource: Value) -> Result<Value, Reply> {
        let name = resource["datasetReference"]["datasetId"].as_str().unwrap_or_default().to_owned();
        let is_name = !name.is_empty() && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_');
        if !is_name {
            return Err(Reply::invalid(&format!(
                "Invalid dataset ID \"{name}\". Dataset IDs must be alphanumeric (plus underscores) and must be at most 1024 characters long."
            )));
        }
        let key = format!("{project}.{name}");
        if self.datasets.contains_key(&key) {
            return Err(Reply::error(409, "duplicate", &format!("Already Exists: Dataset {project}:{name}")));
        }
        let now = self.clock.now().as_millisecond().to_string();
        let given = resource.as_object_mut().expect("checked against the discovery document");
        given.entry("location").or_insert_with(|| "US".into());
        let made = json!({
            "kind": "bigquery#dataset",
            "etag": format!("\"{key}-1\""),
            "id": format!("{project}:{name}"),
            "datasetReference": { "projectId": project, "datasetId": name },
            "creationTime": now,
            "lastModifiedTime": now,
        });
        given.extend(made.as_object().cloned().unwrap_or_default());
        self.datasets.insert(key, Dataset { resource: resource.clone() });
        Ok(resource)
    }

    pub(super) fn get_dataset(&self, project: &str, dataset: &str) -> Result<Value, Reply> {
        self.dataset(project, dataset).map(|dataset| dataset.resource.clone())
    }

    fn dataset(&self, project: &str, dataset: &str) -> Result<&Dataset, Reply> {
        let found = self.datasets.get(&format!("{project}.{dataset}"));
        found.ok_or_else(|| Reply::not_found(&format!("Dataset {project}:{dataset}")))
    }
}

// === impl Table ===

impl State {
    pub(super) fn insert_table(
        &mut self,
        project: &str,
        dataset: &str,
        mut resource: Value,
        known_from: Timestamp,
    ) -> Result<Value, Reply> {
        let location = self.dataset(project, dataset)?.resource["location"].clone();
        let reference = &resource["tableReference"];
        let name = reference["tableId"].as_str().unwrap_or_default().to_owned();
        let is_elsewhere = reference["projectId"] != project || reference["datasetId"] != dataset;
        if is_elsewhere {
            return Err(Reply::invalid("tableReference names another project or dataset than the path"));
        }
        if !is_table_name(&name) {
            return Err(Reply::invalid(&format!("Invalid table ID \"{name}\".")));
        }
        let key = format!("{project}.{dataset}.{name}");
        let id = id(project, dataset, &name);
        if self.tables.contains_key(&key) {
            return Err(Reply::error(409, "duplicate", &format!("Already Exists: Table {id}")));
        }
        let now = self.clock.now();
        let columns = match resource.pointer_mut("/schema/fields") {
            Some(fields) => schema::read(fields, Timestamp::MIN)?,
            None => Vec::new(),
        };
        check_layout(&resource, &columns)?;
        let given = resource.as_object_mut().expect("checked against the discovery document");
        let made = json!({
            "kind": "bigquery#table",
            "id": id,
            "selfLink": format!("https://bigquery.googleapis.com/bigquery/v2/projects/{project}/datasets/{dataset}/tables/{name}"),
            "creationTime": now.as_millisecond().to_string(),
            "type": "TABLE",
            "location": location,
            "numBytes": "0",
            "numLongTermBytes": "0",
            "numRows": "0",
        });
        given.extend(made.as_object().cloned().unwrap_or_default());
        let mut table = Table {
            resource,
            columns,
            known_from,
            version: 0,
            updates: VecDeque::new(),
            rows: Vec::new(),
            stored: 0,
            seen: HashMap::default(),
            streaming_since: None,
        };
        table.touch(now);
        let resource = table.resource();
        self.tables.insert(key, table);
        Ok(resource)
    }

    pub(super) fn table(&mut self, project: &str, dataset: &str, table: &str) -> Result<&mut Table, Reply> {
        self.dataset(project, dataset)?;
        let found = self.tables.get_mut(&format!("{project}.{dataset}.{table}"));
        found.ok_or_else(|| Reply::not_found(&format!("Table {}", id(project, dataset, table))))
    }

    /// What of the wanted may be done; nothing with what is not there
    /// (<https://docs.cloud.google.com/bigquery/docs/reference/rest/v2/tables/testIamPermissions>, read 2026-11-26).
    pub(super) fn granted(&self, [project, dataset, table]: [&str; 3], body: &Value) -> Value {
        let is_there = self.tables.contains_key(&format!("{project}.{dataset}.{table}"));
        let wanted = body["permissions"].as_array().into_iter().flatten();
        let is_granted = |wanted: &&Value| is_there && !self.denied.iter().any(|denied| *wanted == denied);
        let granted: Vec<&Value> = wanted.filter(is_granted).collect();
        // An empty list is left out, as in all JSON of protobuf messages.
        if granted.is_empty() { json!({}) } else { json!({ "permissions": granted }) }
    }

    pub(super) fn delete_table(&mut self, project: &str, dataset: &str, table: &str) -> Result<(), Reply> {
        self.table(project, dataset, table)?;
        self.tables.remove(&format!("{project}.{dataset}.{table}"));
        Ok(())
    }

    pub(super) fn list_tables(&self, project: &str, dataset: &str) -> Result<Value, Reply> {
        self.dataset(project, dataset)?;
        let prefix = format!("{project}.{dataset}.");
        let tables = self.tables.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(_, table)| &table.resource);
        let kept = ["id", "tableReference", "type", "creationTime", "timePartitioning", "clustering", "labels"];
        let listed: Vec<Value> = tables
            .map(|table| {
                let fields = kept.iter().filter_map(|key| Some(((*key).to_owned(), table.get(*key)?.clone())));
                let mut fields: Map<String, Value> = fields.collect();
                fields.insert("kind".to_owned(), "bigquery#table".into());
                Value::Object(fields)
            })
            .collect();
        Ok(json!({ "kind": "bigquery#tableList", "totalItems": listed.len(), "tables": listed }))
    }
}

impl Table {
    /// As `tables.get` gives it. What was streamed is in the buffer for long, and not counted.
    pub(super) fn resource(&self) -> Value {
        let mut resource = self.resource.clone();
        if let Some(since) = self.streaming_since {
            resource["streamingBuffer"] = json!({
                "estimatedRows": self.stored.to_string(),
                "estimatedBytes": self.rows.iter().map(|row| row.len()).sum::<usize>().to_string(),
                "oldestEntryTime": since.as_millisecond().to_string(),
            });
        }
        resource
    }

    /// `project:dataset.table`.
    pub(super) fn id(&self) -> &str {
        self.resource["id"].as_str().unwrap_or_default()
    }

    pub(super) fn partition_column(&self) -> Option<&Field> {
        let name = self.resource["timePartitioning"]["field"].as_str()?;
        self.columns.iter().find(|column| column.name == name)
    }

    pub(super) fn turn_into(&mut self, kind: &str) {
        self.resource["type"] = kind.into();
    }

    fn touch(&mut self, now: Timestamp) {
        self.version += 1;
        self.resource["etag"] = format!("\"{}-{}\"", self.id(), self.version).into();
        self.resource["lastModifiedTime"] = now.as_millisecond().to_string().into();
    }

    /// Changes what a patch names; `null` takes away.
    pub(super) fn patch(
        &mut self,
        patch: &Value,
        headers: &HeaderMap,
        now: Timestamp,
        delay: Duration,
        limits: &Limits,
    ) -> Result<Value, Reply> {
        let wanted = headers.get("if-match").and_then(|etag| etag.to_str().ok());
        if wanted.is_some_and(|etag| etag != "*" && self.resource["etag"] != etag) {
            return Err(Reply::error_in_header(412, "conditionNotMet", "Precondition check failed.", "If-Match"));
        }
        self.updates.retain(|time| now.duration_since(*time) < SignedDuration::from_secs(10));
        if self.updates.len() >= limits.table_updates {
            let message = "Exceeded rate limits: too many table update operations for this table. For more information, see https://cloud.google.com/bigquery/docs/troubleshoot-quotas";
            return Err(Reply::error(403, "rateLimitExceeded", message));
        }
        let mut changed = self.resource.clone();
        merge(&mut changed, patch);
        if changed["timePartitioning"]["field"] != self.resource["timePartitioning"]["field"] {
            return Err(Reply::invalid("Cannot change partitioning spec for a partitioned table."));
        }
        let id = self.id().to_owned();
        let mut columns = match changed.pointer_mut("/schema/fields") {
            Some(fields) => schema::read(fields, now + SignedDuration::try_from(delay).unwrap())?,
            None => Vec::new(),
        };
        let refused = |why: String| Reply::invalid(&format!("Provided Schema does not match Table {id}. {why}"));
        schema::evolve(&self.columns, &mut columns, "").map_err(refused)?;
        check_layout(&changed, &columns)?;
        (self.resource, self.columns) = (changed, columns);
        self.updates.push_back(now);
        self.touch(now);
        Ok(self.resource())
    }

    /// A stored row with all columns.
    pub(super) fn completed(&self, row: &str) -> Value {
        let mut stored: Map<String, Value> = serde_json::from_str(row).unwrap();
        let columns = self.columns.iter();
        columns.map(|column| (column.name.clone(), completed(column, stored.remove(&column.name)))).collect()
    }
}

fn completed(field: &Field, value: Option<Value>) -> Value {
    match (value, field.mode, field.kind) {
        (None, Mode::Repeated, _) => Value::Array(Vec::new()),
        (None | Some(Value::Null), ..) => Value::Null,
        (Some(Value::Array(items)), Mode::Repeated, Kind::Record | Kind::Json) => {
            let single = Field { mode: Mode::Nullable, ..field.clone() };
            items.into_iter().map(|item| completed(&single, Some(item))).collect()
        }
        (Some(Value::Object(mut record)), _, Kind::Record) => field
            .fields
            .iter()
            .map(|field| (field.name.clone(), completed(field, record.remove(&field.name))))
            .collect(),
        (Some(Value::String(text)), Mode::Nullable | Mode::Required, Kind::Json) => {
            serde_json::from_str::<Value>(&text).unwrap().to_string().into()
        }
        (Some(value), ..) => value,
    }
}

/// <https://www.rfc-editor.org/rfc/rfc7396>: lists are replaced, objects merged.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        into.clone_from(patch);
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        let fields = into.as_object_mut().expect("made one above");
        if value.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// <https://docs.cloud.google.com/bigquery/docs/tables#table_naming>, read 2026-11-26: letters, marks, numbers,
/// connectors, dashes and spaces, in up to 1,024 bytes.
fn is_table_name(name: &str) -> bool {
    let is_fine = |char: char| char.is_alphanumeric() || matches!(char, '_' | '-' | ' ');
    !name.is_empty() && name.len() <= 1024 && name.chars().all(is_fine)
}

/// Partitioning and clustering fit the columns.
fn check_layout(resource: &Value, columns: &[Field]) -> Result<(), Reply> {
    check_partitioning(&resource["timePartitioning"], columns).map_err(|message| Reply::invalid(&message))?;
    check_clustering(&resource["clustering"], columns).map_err(|message| Reply::invalid(&message))
}

/// <https://docs.cloud.google.com/bigquery/docs/partitioned-tables>, read 2026-11-26.
fn check_partitioning(partitioning: &Value, columns: &[Field]) -> Result<(), String> {
    if partitioning.is_null() {
        return Ok(());
    }
    let per = partitioning["type"].as_str().unwrap_or_default();
    if !["HOUR", "DAY", "MONTH", "YEAR"].contains(&per) {
        return Err(format!("Invalid value for timePartitioning.type: \"{per}\" is not a valid value"));
    }
    let Some(name) = partitioning["field"].as_str() else { return Ok(()) };
    let Some(column) = columns.iter().find(|column| column.name == name) else {
        return Err("The field specified for partitioning cannot be found in the schema".to_owned());
    };
    let kind = column.kind.name();
    match (column.kind, column.mode) {
        (_, Mode::Repeated) => Err(format!("The field specified for partitioning cannot be repeated: {name}")),
        (Kind::Date, _) if per == "HOUR" => {
            Err("Hourly partitioning is not supported for a field of type DATE".to_owned())
        }
        (Kind::Timestamp | Kind::Date | Kind::DateTime, _) => Ok(()),
        _ => Err(format!(
            "The field specified for time partitioning can only be of type TIMESTAMP, DATE or DATETIME. The type found is: {kind}."
        )),
    }
}

/// <https://docs.cloud.google.com/bigquery/docs/clustered-tables>, read 2026-11-26.
fn check_clustering(clustering: &Value, columns: &[Field]) -> Result<(), String> {
    let Some(fields) = clustering["fields"].as_array() else { return Ok(()) };
    if fields.is_empty() || fields.len() > 4 {
        return Err(format!("Clustering takes one to four fields, and {} are specified", fields.len()));
    }
    for field in fields {
        let name = field.as_str().unwrap_or_default();
        let Some(column) = columns.iter().find(|column| column.name == name) else {
            return Err(format!(
                "The field specified for clustering cannot be found in the schema. Invalid field: {name}."
            ));
        };
        let is_plain = !matches!(column.kind, Kind::Bytes | Kind::Float | Kind::Time | Kind::Json | Kind::Record);
        if !is_plain || column.mode == Mode::Repeated {
            let kind = column.kind.name();
            return Err(format!("Clustering is not supported on the field {name} of type {kind}, or it is repeated."));
        }
    }
    Ok(())
}
