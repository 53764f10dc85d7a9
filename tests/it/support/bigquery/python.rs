//! Google's own Python client, driven by `tests/sdks/bigquery.py`. It needs what `tests/sdks/install.sh` installs.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::BigQuery;
use crate::support::tools::{is_there, python, sdks};

/// The client, where it is installed.
pub(crate) struct PythonClient {
    python: PathBuf,
    /// A file with credentials, or none: the server must be open then.
    credentials: Option<tempfile::NamedTempFile>,
    /// Whether rows are asked for with a query: only Google's own service answers one.
    asks_with_query: bool,
}

impl PythonClient {
    /// One that has no credentials.
    pub(crate) fn anonymous() -> Option<Self> {
        let python = python()?;
        let probe = Command::new(&python).args(["-c", "import google.cloud.bigquery, googleapiclient"]).output();
        let has_it = probe.is_ok_and(|output| output.status.success());
        is_there("google-cloud-bigquery", has_it).then_some(Self { python, credentials: None, asks_with_query: false })
    }

    /// One that is a service account of this server.
    pub(crate) fn account(bigquery: &BigQuery) -> Option<Self> {
        Self::with_credentials(&bigquery.credentials_json())
    }

    /// One with these credentials, which are JSON.
    pub(crate) fn with_credentials(credentials: &str) -> Option<Self> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(credentials.as_bytes()).unwrap();
        Self::anonymous().map(|client| Self { credentials: Some(file), ..client })
    }

    /// The same for Google's own service.
    pub(crate) fn live(self) -> Self {
        Self { asks_with_query: true, ..self }
    }

    /// The rows of a table.
    pub(crate) fn rows(&self, endpoint: &str, table: &str) -> Vec<Value> {
        self.run(endpoint, "rows", &json!({ "table": table })).as_array().unwrap().clone()
    }

    /// Deletes a table.
    pub(crate) fn drop_table(&self, endpoint: &str, table: &str) {
        self.run(endpoint, "drop", &json!({ "table": table }));
    }

    /// Does all that the driver knows to do, and tells what came of each step.
    pub(crate) fn check(&self, bigquery: &BigQuery) -> Value {
        self.run(&bigquery.endpoint(), "check", &Value::Null)
    }

    /// Inserts rows with `insert_rows`, which turns typed values into JSON: the rows here are JSON as [`Look::rows`] gives
    /// it (a value of a JSON column as it is, not as text). Answers with the body that was sent.
    ///
    /// [`Look::rows`]: super::Look::rows
    pub(crate) fn insert(&self, bigquery: &BigQuery, table: &str, rows: &[Value], row_ids: &[&str]) -> Value {
        let asked = json!({ "table": table, "rows": rows, "row_ids": row_ids });
        let errors = self.run(&bigquery.endpoint(), "insert", &asked);
        assert_eq!(errors, json!([]), "what Google's client inserted was refused");
        bigquery.bodies("insertAll").pop().expect("a request was made")
    }

    fn run(&self, endpoint: &str, command: &str, input: &Value) -> Value {
        let mut driver = Command::new(&self.python);
        driver.arg(sdks().join("bigquery.py")).args([command, "--endpoint", endpoint]);
        driver.args((self.asks_with_query && command == "rows").then_some("--query"));
        if let Some(file) = &self.credentials {
            driver.arg("--credentials").arg(file.path());
        }
        driver.env("NO_PROXY", "127.0.0.1").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut driver = driver.spawn().unwrap();
        driver.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
        let output = driver.wait_with_output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "the driver ended with {}\n{out}\n{err}", output.status);
        serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// What a script beside the drivers prints.
    pub(crate) fn script(&self, name: &str) -> String {
        let output = Command::new(&self.python).arg(sdks().join(name)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}
