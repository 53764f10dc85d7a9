//! BigQuery: which table a row goes to, what the table looks like, and what its service answers.
//!
//! A row travels in a request of `tabledata.insertAll`
//! (<https://cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/insertAll>, read 2026-11-26). [`mod@column`] is what a
//! table is declared to have, [`row`] writes a row as its columns want it, [`verdict`] reads the answers, [`growth`] says
//! which columns a table lacks, [`drift`] how it differs from what is declared, and [`ddl`] tells people. Nothing here sends: that is the sink's.

pub mod column;
pub mod ddl;
pub mod drift;
pub mod growth;
pub mod row;
pub mod table;
pub mod types;
pub mod verdict;

use std::sync::Arc;
use std::time::Duration;

use gcp_bigquery_client::model::clustering::Clustering;
use gcp_bigquery_client::model::dataset_reference::DatasetReference;
use gcp_bigquery_client::model::table_reference::TableReference;
use gcp_bigquery_client::model::time_partitioning::TimePartitioning;
use serde_json::{Value as Json, json};

use super::{Destination, Mapping};
use crate::expr::template::Template;

pub use column::{Column, Mode, Scalar, Type};
pub use table::{TableAddress, TableTemplate};
pub use verdict::TableNews;

/// Google's own endpoint.
pub const ENDPOINT: &str = "https://bigquery.googleapis.com";

/// What a token for rows alone is for.
pub const SCOPE_INSERT: &str = "https://www.googleapis.com/auth/bigquery.insertdata";

/// What a token for tables and rows is for.
pub const SCOPE_TABLES: &str = "https://www.googleapis.com/auth/bigquery";

/// Rows of one request: the most is 50,000, and 500 are recommended
/// (<https://cloud.google.com/bigquery/quotas#streaming_inserts>, read 2026-11-26).
pub const ROWS_MAX: u64 = 50_000;

/// Bytes of one request, before it is packed (same page: 10 MB); what we count leaves the envelope its room.
pub const REQUEST_BYTES_MAX: u64 = 10_000_000;

/// `type = "bigquery"`: what holds for all its tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BigQuery {
    /// Whether every row goes to the same table. When that is not there, the destination rests; where there are others,
    /// only the rows of the one that is missing wait.
    pub has_one_table: bool,
    /// `create_table`: a table that is not there is made.
    pub creates_tables: bool,
    /// `schema_update = "add_columns"`: columns that rows have and a table has not are added to it.
    pub adds_columns: bool,
    /// Where a dataset that is not there is made together with its table; `None`: no dataset is made.
    pub location: Option<String>,
}

/// What a rule inserts, besides the row itself.
pub struct Insert {
    /// The table.
    pub table: TableTemplate,
    /// What tells a row that comes again from a new one.
    pub id: InsertId,
    /// How the table is declared.
    pub shape: Arc<Shape>,
}

/// What tells a row that comes again from a new one: BigQuery drops a row whose id it has seen a minute ago, as well as
/// it can (<https://cloud.google.com/bigquery/docs/streaming-data-into-bigquery#dataconsistency>, read 2026-11-26).
#[allow(clippy::large_enum_variant, reason = "made once a file: a box would be one more step for every event")]
pub enum InsertId {
    /// The event's `messageId`; rows of the same event beyond the first say which they are.
    MessageId,
    /// What the file says.
    Template(Template),
    /// None: BigQuery keeps every copy.
    Absent,
}

/// How a table is declared. Without columns it is not, and rows are written as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Its columns, in file order.
    pub columns: Vec<Column>,
    /// How a new one is partitioned.
    pub partition: Option<Partition>,
    /// The columns by which a new one is clustered, at most four.
    pub cluster: Vec<String>,
    /// Whether columns that are not declared are added, as text, numbers and booleans.
    pub grows: bool,
}

/// How a table is partitioned by time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The column; `None`: by the time at which a row came in.
    pub column: Option<String>,
    /// How long a partition is.
    pub per: Per,
    /// A partition this old is deleted.
    pub expire: Option<Duration>,
    /// Whether queries must say which partitions they want.
    pub requires_filter: bool,
}

/// How long a partition is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Per {
    /// An hour.
    Hour,
    /// A day.
    #[default]
    Day,
    /// A month.
    Month,
    /// A year.
    Year,
}

// === impl BigQuery ===

impl BigQuery {
    /// Whether the sink has more to do than to insert.
    #[must_use]
    pub fn tends_tables(&self) -> bool {
        self.creates_tables || self.adds_columns
    }
}

/// A table that a destination's rules name.
pub struct NamedTable<'d> {
    /// Its name as people write it, `project.dataset.table`; what an event decides stands there as written.
    pub name: String,
    /// The table, if it is the same for every event.
    pub address: Option<TableAddress>,
    /// A table of its dataset, if that is the same for every event.
    pub dataset: Option<TableAddress>,
    /// How it is declared.
    pub shape: &'d Shape,
    /// What its rows are made of.
    pub row: Option<&'d Mapping>,
}

// === impl Destination ===

impl Destination {
    /// The tables that its rules name, in order; a name may come again.
    #[must_use]
    pub fn tables(&self) -> Vec<NamedTable<'_>> {
        let inserts = self.rules.iter().filter_map(|rule| Some((rule.request.insert.as_ref()?, &rule.request)));
        inserts
            .map(|(insert, request)| NamedTable {
                name: insert.table.name(),
                address: insert.table.constant(),
                dataset: insert.table.constant_dataset(),
                shape: &insert.shape,
                row: request.body.as_ref(),
            })
            .collect()
    }
}

// === impl Shape ===

impl Shape {
    /// The column of a name; BigQuery takes no notice of case.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        column::find(&self.columns, name)
    }

    /// The body of `tables.insert` for a new table
    /// (<https://cloud.google.com/bigquery/docs/reference/rest/v2/tables#Table>, read 2026-11-26).
    #[must_use]
    pub fn table_json(&self, address: &TableAddress) -> Json {
        let mut table = json!({
            "tableReference": TableReference::new(&address.project, &address.dataset, &address.table),
            "schema": { "fields": self.columns.iter().map(Column::to_json).collect::<Vec<_>>() },
        });
        if let Some(partition) = &self.partition {
            table["timePartitioning"] = json!(TimePartitioning {
                expiration_ms: partition.expire.map(|expire| expire.as_millis().to_string()),
                field: partition.column.clone(),
                // The flag of the table itself: this one is out of use.
                require_partition_filter: None,
                r#type: partition.per.as_str().to_owned(),
            });
            if partition.requires_filter {
                table["requirePartitionFilter"] = true.into();
            }
        }
        if !self.cluster.is_empty() {
            table["clustering"] = json!(Clustering { fields: Some(self.cluster.clone()) });
        }
        table
    }
}

/// The body of `datasets.insert` for a new dataset.
#[must_use]
pub fn dataset_json(address: &TableAddress, location: &str) -> Json {
    let reference = DatasetReference { project_id: address.project.clone(), dataset_id: address.dataset.clone() };
    json!({ "datasetReference": reference, "location": location })
}

// === impl Per ===

impl Per {
    /// The API's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "HOUR",
            Self::Day => "DAY",
            Self::Month => "MONTH",
            Self::Year => "YEAR",
        }
    }
}
