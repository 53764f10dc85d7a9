//! Which table: project, dataset and table, each of which an event may shape, and the URLs that they become.

use percent_encoding::percent_decode_str;

use super::super::error::PlacedError;
use crate::expr::template::Template;
use crate::expr::{Escape, EvalError, Scope, excerpt, percent_encode};

/// A table as a file names it.
pub struct TableTemplate {
    /// Scheme and host, without a `/` at the end.
    pub endpoint: String,
    /// The project's id.
    pub project: Template,
    /// The dataset's id.
    pub dataset: Template,
    /// The table's id.
    pub table: Template,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableAddress {
    /// Scheme and host, without a `/` at the end.
    pub endpoint: String,
    /// The project's id.
    pub project: String,
    /// The dataset's id.
    pub dataset: String,
    /// The table's id.
    pub table: String,
}

/// What an id is an id of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdOf {
    /// A project: letters, digits, `-`, and for old ones `.` and `:`.
    Project,
    /// A dataset: letters, digits and `_`, at most 1,024
    /// (<https://cloud.google.com/bigquery/docs/datasets#dataset-naming>, not confirmed).
    Dataset,
    /// A table: letters, digits, `_`, `-` and blanks, at most 1,024 bytes
    /// (<https://cloud.google.com/bigquery/docs/tables#table_naming>, read 2026-11-26).
    Table,
}

/// Bytes of an id.
const ID_BYTES_MAX: usize = 1024;

const API: &str = "/bigquery/v2/projects/";
const DATASETS: &str = "/datasets/";
const TABLES: &str = "/tables/";
const INSERT_ALL: &str = "/insertAll";

// === impl TableTemplate ===

impl TableTemplate {
    /// Its parts with their keys in the file.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, IdOf, &Template); 3] {
        [
            ("project", IdOf::Project, &self.project),
            ("dataset", IdOf::Dataset, &self.dataset),
            ("table", IdOf::Table, &self.table),
        ]
    }

    /// Whether it is the same table for every event.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.parts().iter().all(|(_, _, template)| template.as_constant().is_some())
    }

    /// As people write it; what an event decides stands there as written.
    #[must_use]
    pub fn name(&self) -> String {
        let part = |template: &Template| match template.as_constant().and_then(|value| value.as_str()) {
            Some(known) => known.to_owned(),
            None => template.written().to_owned(),
        };
        self.parts().map(|(_, _, template)| part(template)).join(".")
    }

    /// The table, if it is the same for every event.
    #[must_use]
    pub fn constant(&self) -> Option<TableAddress> {
        let table = self.table.as_constant().and_then(|value| value.as_str())?.to_owned();
        Some(TableAddress { table, ..self.constant_dataset()? })
    }

    /// A table of the dataset, called as it is written, if project and dataset are the same for every event.
    #[must_use]
    pub fn constant_dataset(&self) -> Option<TableAddress> {
        let [project, dataset, _] = self
            .parts()
            .map(|(_, _, template)| template.as_constant().and_then(|value| value.as_str()).map(str::to_owned));
        let table = self.table.written().to_owned();
        Some(TableAddress { endpoint: self.endpoint.clone(), project: project?, dataset: dataset?, table })
    }

    /// The table of an event.
    pub(in crate::plan) fn address(&self, scope: &Scope) -> Result<TableAddress, PlacedError> {
        let [project, dataset, table] = self.parts().map(|(key, of, template)| {
            let mut id = String::new();
            let is_written = template.write_text(scope, Escape::Plain, &mut id);
            let checked =
                is_written.and_then(|is_written| if is_written { of.check(id) } else { of.check(String::new()) });
            checked.map_err(|error| PlacedError::at(key, error))
        });
        Ok(TableAddress { endpoint: self.endpoint.clone(), project: project?, dataset: dataset?, table: table? })
    }
}

// === impl TableAddress ===

impl TableAddress {
    /// Where datasets of the project are made.
    #[must_use]
    pub fn datasets_url(&self) -> String {
        let mut url = format!("{}{API}", self.endpoint);
        percent_encode(&mut url, &self.project);
        url.push_str(DATASETS.trim_end_matches('/'));
        url
    }

    /// The dataset.
    #[must_use]
    pub fn dataset_url(&self) -> String {
        let mut url = self.datasets_url();
        url.push('/');
        percent_encode(&mut url, &self.dataset);
        url
    }

    /// Where tables of the dataset are made.
    #[must_use]
    pub fn tables_url(&self) -> String {
        self.dataset_url() + TABLES.trim_end_matches('/')
    }

    /// The table.
    #[must_use]
    pub fn url(&self) -> String {
        let mut url = self.tables_url();
        url.push('/');
        percent_encode(&mut url, &self.table);
        url
    }

    /// Where rows go.
    #[must_use]
    pub fn insert_url(&self) -> String {
        self.url() + INSERT_ALL
    }

    /// The table that a request for rows goes to.
    #[must_use]
    pub fn from_insert_url(url: &str) -> Option<Self> {
        let (endpoint, rest) = url.split_once(API)?;
        let (project, rest) = rest.split_once(DATASETS)?;
        let (dataset, rest) = rest.split_once(TABLES)?;
        let decoded = |id: &str| percent_decode_str(id).decode_utf8().ok().map(Into::into);
        Some(Self {
            endpoint: endpoint.to_owned(),
            project: decoded(project)?,
            dataset: decoded(dataset)?,
            table: decoded(rest.strip_suffix(INSERT_ALL)?)?,
        })
    }

    /// As people write it: `project.dataset.table`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}.{}", self.project, self.dataset, self.table)
    }
}

// === impl IdOf ===

impl IdOf {
    /// Takes an id that BigQuery would take.
    ///
    /// # Errors
    /// Why it would not.
    pub fn check(self, id: String) -> Result<String, EvalError> {
        let error = |message: String| Err(EvalError { message, range: None });
        if id.is_empty() {
            return error(format!("the {} has no name", self.what()));
        }
        if id.len() > ID_BYTES_MAX {
            return error(format!("the name of the {} is longer than {ID_BYTES_MAX} bytes", self.what()));
        }
        match id.chars().find(|c| !self.allows(*c)) {
            Some(wrong) => {
                let (what, id) = (self.what(), excerpt(&id));
                let mend = if self == Self::Project { "" } else { "; `| snake` makes one" };
                error(format!("`{id}` is no name of a {what}: it may not hold {wrong:?}{mend}"))
            }
            None => Ok(id),
        }
    }

    fn allows(self, c: char) -> bool {
        match self {
            Self::Project => c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_'),
            Self::Dataset => c.is_ascii_alphanumeric() || c == '_',
            // Letters, marks, numbers, connectors, dashes and blanks of Unicode: beyond ASCII the service itself is asked.
            Self::Table => {
                c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ' ') || (!c.is_ascii() && !c.is_control())
            }
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Dataset => "dataset",
            Self::Table => "table",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_that_bigquery_would_refuse_is_refused_here() {
        for (of, id) in [
            (IdOf::Table, "a/b"),
            (IdOf::Table, "a.b"),
            (IdOf::Table, "a$20260101"),
            (IdOf::Table, ""),
            (IdOf::Dataset, "a-b"),
            (IdOf::Project, "a b"),
        ] {
            assert!(of.check(id.to_owned()).is_err(), "{of:?} {id:?}");
        }
        assert!(IdOf::Table.check("x".repeat(1025)).is_err());
        assert!(IdOf::Table.check("Größe der-Bestellung_1 ग्राहक".to_owned()).is_ok());
    }

    proptest! {
        #[test]
        fn a_table_is_found_again_in_its_url(project in "[a-z:.-]{1,9}", dataset in "[a-z_]{1,9}", table in "[\\w -]{1,9}") {
            let endpoint = "http://127.0.0.1:1".to_owned();
            let address = TableAddress { endpoint, project, dataset, table };
            prop_assert_eq!(TableAddress::from_insert_url(&address.insert_url()), Some(address));
        }
    }
}
