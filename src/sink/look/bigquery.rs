//! Looks at BigQuery: the account, datasets, tables and what may be done there. Nothing is inserted, made or changed.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::super::bigquery::{answer, json_of, message_of, status_of};
use super::super::http::Http;
use super::super::{SinkError, Sinks};
use super::{CREDENTIALS, Look, said};
use crate::plan::auth::TokenSource;
use crate::plan::bigquery::{BigQuery as Settings, NamedTable, SCOPE_TABLES, TableAddress};
use crate::plan::{Auth, Destination, Finding, Grade, Reply, Request};

/// Somebody who asks.
struct Asker<'a> {
    http: Http,
    destination: &'a Destination,
    settings: &'a Settings,
    /// Whose tokens are good for looking: one for rows alone may not even get a table.
    source: Option<Arc<TokenSource>>,
    look: Look,
    found: Vec<Finding>,
}

/// Nobody answers: whoever is asked next would not either.
struct Silence;

/// How it stands with a dataset.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dataset {
    /// It is there, or may be.
    There,
    /// It is made together with its first table.
    Made,
    /// It is not there.
    Missing,
}

/// What inserting needs (<https://cloud.google.com/bigquery/docs/access-control>, read 2026-11-26).
const INSERT: &str = "bigquery.tables.updateData";

/// What adding columns needs besides.
const EXTEND: [&str; 2] = ["bigquery.tables.get", "bigquery.tables.update"];

/// Reasons of a 403 that say "you may not look", which need not mean "you may not insert".
const NOT_ALLOWED: [&str; 3] = ["accessDenied", "insufficientPermissions", "forbidden"];

const GRANT: &str = "the role roles/bigquery.dataEditor on the dataset is enough";

// === impl Sinks ===

impl Sinks {
    pub(super) async fn look_at_bigquery(
        &self,
        destination: &Destination,
        settings: &Settings,
        look: Look,
    ) -> Result<Vec<Finding>, SinkError> {
        let credentials = match self.look_at_credentials(destination, look).await? {
            Some(found) if found.grade == Grade::Problem => return Ok(vec![found]),
            Some(found) => found,
            None => Finding::new(Grade::Unknown, CREDENTIALS, "are not sent: `credentials = false`"),
        };
        let source = match &destination.auth {
            Auth::Token(own) => Some(own.for_scope(SCOPE_TABLES).map_or_else(|| Arc::clone(own), Arc::new)),
            Auth::None
            | Auth::Basic { .. }
            | Auth::Bearer(_)
            | Auth::Header(_)
            | Auth::Query(_)
            | Auth::Hmac(_)
            | Auth::Aws(_) => None,
        };
        let http = self.http(destination)?;
        let mut asker = Asker { http, destination, settings, source, look, found: vec![credentials] };
        // What silence means was told.
        let _ = asker.look().await;
        Ok(asker.found)
    }
}

// === impl Asker ===

impl Asker<'_> {
    async fn look(&mut self) -> Result<(), Silence> {
        let mut datasets: Vec<(String, Dataset)> = Vec::new();
        let mut tables: Vec<(String, Json)> = Vec::new();
        let destination = self.destination;
        for table in destination.tables() {
            let Some(place) = &table.dataset else {
                self.tell(Finding::new(Grade::Unknown, table.subject(), "is chosen by events: not looked at"));
                continue;
            };
            let url = place.dataset_url();
            let dataset = if let Some((_, dataset)) = datasets.iter().find(|(known, _)| *known == url) {
                *dataset
            } else {
                let dataset = self.dataset(place).await?;
                datasets.push((url, dataset));
                dataset
            };
            match (&table.address, dataset) {
                (_, Dataset::Missing) => {}
                (None, _) => {
                    self.tell(Finding::new(Grade::Unknown, table.subject(), "is chosen by events: not looked at"));
                }
                (Some(_), Dataset::Made) => self.tell(made(&table, "is made together with its dataset")),
                (Some(address), Dataset::There) => self.table(&table, address, &mut tables).await?,
            }
        }
        Ok(())
    }

    /// Several rules may have the same to tell of one table.
    fn tell(&mut self, finding: Finding) {
        if !self.found.contains(&finding) {
            self.found.push(finding);
        }
    }

    async fn ask(&self, method: &str, url: String, body: Option<&Json>) -> Reply {
        let question = self.destination.question(method, url, body, self.look.timeout, self.look.now);
        let question = question.map(|question| Request { token: question.token.and(self.source.clone()), ..question });
        answer(&self.http, question, self.look.now).await
    }

    // --- the dataset

    async fn dataset(&mut self, place: &TableAddress) -> Result<Dataset, Silence> {
        let subject = format!("dataset {}.{}", place.project, place.dataset);
        let reply = self.ask("GET", place.dataset_url(), None).await;
        let finding = |grade, message: String| Finding::new(grade, subject.clone(), message);
        if let Some(live) = json_of(&reply) {
            let found = self.location(live["location"].as_str().unwrap_or_default());
            self.tell(Finding { subject, ..found });
            return Ok(Dataset::There);
        }
        match (status_of(&reply), &self.settings.location) {
            (Some(404), Some(location)) if self.settings.creates_tables => {
                let message = format!("is not there: it is made in {location} with the first row");
                let made = finding(Grade::Unknown, message);
                self.tell(made.help("whether this account may make it (bigquery.datasets.create) is not known"));
                Ok(Dataset::Made)
            }
            (Some(404), location) => {
                let options = location.as_ref().map(|location| format!(" OPTIONS (location = '{location}')"));
                let (name, options) = (format!("{}.{}", place.project, place.dataset), options.unwrap_or_default());
                let help = format!("CREATE SCHEMA `{name}`{options}; or let `location` and `create_table` make it");
                self.tell(finding(Grade::Problem, "is not there".to_owned()).help(help));
                Ok(Dataset::Missing)
            }
            _ => self.refused(&subject, &reply, "bigquery.datasets.get").map(|()| Dataset::There),
        }
    }

    fn location(&self, live: &str) -> Finding {
        match &self.settings.location {
            Some(declared) if !declared.eq_ignore_ascii_case(live) => {
                let problem = Finding::new(Grade::Problem, "", format!("is in {live}, and the file says {declared}"));
                problem.help(format!("a dataset cannot be moved: write `location = \"{live}\"`, or name another one"))
            }
            Some(_) | None => Finding::new(Grade::Fine, "", format!("is there, in {live}")),
        }
    }

    /// An answer that does not show what was asked for.
    ///
    /// # Errors
    /// When there is no use in asking for anything else.
    fn refused(&mut self, subject: &str, reply: &Reply, permission: &str) -> Result<(), Silence> {
        if is_not_allowed(reply) {
            let unknown = Finding::new(Grade::Unknown, subject, format!("may not be looked at: {}", said(reply)));
            self.tell(unknown.help(format!("{permission} lets this account look; rows may get in all the same")));
            return Ok(());
        }
        let grade = Grade::Problem;
        match reply {
            Reply::Answered { status: 401, .. } | Reply::Unauthorized(_) => {
                let help = "the token is not taken: is the account from another project, or disabled?";
                self.tell(
                    Finding::new(grade, subject, format!("our credentials are refused: {}", said(reply))).help(help),
                );
                Err(Silence)
            }
            Reply::Lost(_) => {
                let help = "is `endpoint` right, and may this machine reach it?";
                self.tell(Finding::new(grade, subject, format!("nobody answers: {}", said(reply))).help(help));
                Err(Silence)
            }
            Reply::Answered { .. } | Reply::Unsendable(_) | Reply::Written => {
                let help = "this is what BigQuery says of it: mend that, or try again";
                self.tell(Finding::new(grade, subject, format!("is refused: {}", said(reply))).help(help));
                Ok(())
            }
        }
    }

    // --- the table

    async fn table(
        &mut self,
        table: &NamedTable<'_>,
        address: &TableAddress,
        known: &mut Vec<(String, Json)>,
    ) -> Result<(), Silence> {
        let url = address.url();
        if let Some((_, live)) = known.iter().find(|(seen, _)| *seen == url) {
            table.drift(self.settings, live).into_iter().for_each(|finding| self.tell(finding));
            return Ok(());
        }
        let reply = self.ask("GET", url.clone(), None).await;
        if let Some(live) = json_of(&reply) {
            table.drift(self.settings, &live).into_iter().for_each(|finding| self.tell(finding));
            known.push((url, live));
        } else if status_of(&reply) == Some(404) {
            let missing = self.missing(table);
            self.tell(missing);
            return Ok(());
        } else {
            self.refused(&table.subject(), &reply, "bigquery.tables.get")?;
        }
        self.permissions(table, address).await
    }

    fn missing(&self, table: &NamedTable<'_>) -> Finding {
        if self.settings.creates_tables {
            return made(table, "is not there: it is made with the first row");
        }
        let problem = Finding::new(Grade::Problem, table.subject(), "is not there");
        if table.shape.columns.is_empty() {
            return problem.help("make it, or declare it in `schema` and let `create_table = true` make it");
        }
        let ddl = table.shape.ddl(&table.name);
        problem.help(format!("`create_table = true` makes it, or make it yourself:\n{}", ddl.trim_end()))
    }

    /// What the account may do, as BigQuery says
    /// (<https://cloud.google.com/bigquery/docs/reference/rest/v2/tables/testIamPermissions>, read 2026-11-26).
    async fn permissions(&mut self, table: &NamedTable<'_>, address: &TableAddress) -> Result<(), Silence> {
        let subject = table.subject();
        let mut wanted = vec![INSERT];
        wanted.extend(EXTEND.iter().filter(|_| self.settings.adds_columns));
        let body = json!({ "permissions": wanted });
        let reply = self.ask("POST", address.url() + ":testIamPermissions", Some(&body)).await;
        let Some(answer) = json_of(&reply) else {
            let message = format!("does not tell what this account may do: {}", said(&reply));
            self.tell(Finding::new(Grade::Unknown, subject, message));
            return if matches!(reply, Reply::Lost(_)) { Err(Silence) } else { Ok(()) };
        };
        let granted = answer["permissions"].as_array().map_or(&[][..], Vec::as_slice);
        let lacking: Vec<&str> =
            wanted.into_iter().filter(|wanted| !granted.iter().any(|granted| granted == wanted)).collect();
        let what = if self.settings.adds_columns { "rows and columns" } else { "rows" };
        self.tell(if lacking.is_empty() {
            Finding::new(Grade::Fine, subject, format!("takes {what} of this account"))
        } else {
            let message = format!("does not take {what} of this account, which lacks {}", lacking.join(", "));
            Finding::new(Grade::Problem, subject, message).help(GRANT)
        });
        Ok(())
    }
}

/// A table that is made when rows come.
fn made(table: &NamedTable<'_>, message: &str) -> Finding {
    let made = Finding::new(Grade::Unknown, table.subject(), message);
    made.help("whether this account may (bigquery.tables.create) is not known: BigQuery does not tell it of tables that are not there")
}

fn is_not_allowed(reply: &Reply) -> bool {
    let Reply::Answered { status: 403, body, .. } = reply else { return false };
    let json: Json = serde_json::from_slice(body).unwrap_or_default();
    let reason = json["error"]["errors"][0]["reason"].as_str();
    reason.is_some_and(|reason| NOT_ALLOWED.contains(&reason)) && !message_of(body).is_empty()
}
