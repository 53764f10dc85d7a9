//! TOML text and environment in, a [`Plan`] or every diagnostic at once out.
//!
//! [`compile`] is what start-up, reload and `--check` call, so what passes the check runs. Pure: the text, the
//! variables and a way to read secrets' files are the caller's. It never sends, never prints, and never tells the
//! value of a variable: a diagnostic quotes the file and the names of variables, nothing else.
//!
//! The file is walked as it is parsed, key by key (`table`), so every mistake has its exact place and what nobody
//! asked for is unknown. Strings become templates and filters in `expressions`, the one place that knows which names
//! exist where.

mod address;
mod auth;
mod bigquery;
mod cases;
mod changes;
mod codes;
mod destination;
mod diagnostic;
mod effective;
mod expressions;
mod findings;
mod fingerprint;
mod json;
pub mod keys;
mod layers;
mod mapping;
mod merge;
mod offsets;
mod overflow;
mod places;
pub mod presets;
mod queue;
mod request;
mod response;
mod rule;
mod schema;
mod sample;
mod sees;
mod server;
mod spelling;
mod starter;
mod table;
mod texts;
mod target;
#[cfg(test)]
mod tests;
mod tracking;
pub(crate) mod units;
mod written;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::event::SourceName;
use crate::plan::case::Case;
use crate::plan::tracking::DoorPlans;
use crate::plan::{Destination, Plan, Server};
use crate::segment::{Inspect, Policy};

pub use changes::{Change, Changes, Edit, Section, Side, changes};
pub use codes::Code;
pub use diagnostic::{Diagnostic, Severity, Style, Suggestion, draw, line_column};
pub use effective::{Effective, InForce, Origin, Setting};
pub use expressions::Missing;
pub use json::{literal, place_of, pretty};
pub use places::{Place, Places};
pub use schema::schema;
pub use sees::names;
pub(crate) use spelling::nearest;
pub use starter::{Choice, Variables, choices, starter, variables};
pub use target::Target;

use destination::{Definitions, Surroundings};
use expressions::{Expressions, has_braces};
use findings::Findings;
use fingerprint::Fingerprint;
use layers::Layers;
use overflow::Edge;
use server::SourceReading;
use table::{Field, Table};
use texts::Texts;

/// What the file may refer to, and where it is to run.
pub struct Environment<'a> {
    /// Variables, by name.
    pub variables: BTreeMap<String, String>,
    /// Reads a secret's file, by the path as written.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
    /// What is to be made of those that are not there.
    pub unset: Unset,
    /// Where it is to run.
    pub target: Target,
}

/// What a variable that is not set, or a secret's file that cannot be read, means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unset {
    /// A mistake.
    #[default]
    Mistake,
    /// That it is set where the file is used, to something unknown here: its name stands in for it in what is made.
    Assumed,
}

impl Default for Environment<'_> {
    /// Without variables and files, on a machine.
    fn default() -> Self {
        Self {
            variables: BTreeMap::new(),
            read_file: &|_| Err(io::ErrorKind::NotFound.into()),
            unset: Unset::default(),
            target: Target::default(),
        }
    }
}

/// A file that can be used.
pub struct Compiled {
    /// What it means.
    pub plan: Plan,
    /// What it promises about its destinations, in the order of the file.
    pub cases: Vec<Case>,
    /// What is odd about it, in the order of the file.
    pub warnings: Vec<Diagnostic>,
    /// What is worth knowing of it, though nothing is wrong, in the order of the file.
    pub notes: Vec<Diagnostic>,
}

/// A destination that a test can use.
pub struct Staged {
    /// It, switched on.
    pub destination: Arc<Destination>,
    /// The tracking plans that speak at the door.
    pub plans: Option<Arc<dyn Inspect>>,
    /// What it reads and the test does not have. In what it makes, their names stand in for them.
    pub assumed: Vec<Missing>,
}

/// Compiles `libroseg.toml`.
///
/// # Errors
/// Every mistake found, and every warning, in the order of the file; at most a hundred.
pub fn compile(text: &str, environment: &Environment<'_>) -> Result<Compiled, Vec<Diagnostic>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let document = document.into_inner();
    let texts = Texts::new(text, &Layers::reached(&document));
    let layers = Layers::new(&document, &texts);
    let findings = Findings::of(&texts);
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        // The parser says that a key is there twice, but not which.
        let key = text.get(span.clone()).filter(|_| error.message() == "duplicate key");
        let message = key.map_or_else(|| error.message().to_owned(), |key| format!("duplicate key `{key}`"));
        findings.add(syntax_error(text, span, message));
    }
    if text.trim().is_empty() {
        // An editor that writes in place empties the file first: that must not put an empty plan in force.
        findings.add(Diagnostic::error(Code::EmptyFile, 0..0, "the file is empty"));
    }
    layers.check(&findings);
    let (plan, cases) = read(text, &document, &layers, environment, &findings);
    let found = findings.told(&document);
    let (notes, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| found.severity == Severity::Note);
    if found.iter().any(Diagnostic::is_error) {
        return Err(found);
    }
    Ok(Compiled { plan, cases, warnings: found, notes })
}

/// Reads `[server]` alone, whatever is wrong elsewhere: a service that runs serves on beside a file with mistakes.
///
/// # Errors
/// Every mistake in that table.
pub fn server_of(text: &str, environment: &Environment<'_>) -> Result<Server, Vec<Diagnostic>> {
    let document = DeTable::parse_recoverable(text).0.into_inner();
    let texts = Texts::new(text, &Layers::reached(&document));
    let findings = Findings::of(&texts);
    let nothing = DeTable::new();
    let tables = entries_of(&document, "tables").unwrap_or(&nothing);
    let expressions = Expressions::new(&findings, environment, tables);
    let top = Table::new(&findings, &document, "the file", 0..0);
    let reading = server::server(&expressions, top.get("server"));
    let mut found = findings.told(&document);
    found.retain(Diagnostic::is_error);
    if found.is_empty() { Ok(reading.server) } else { Err(found) }
}

/// As [`sources_of`], of a file that is known to be right.
fn staged_sources(document: &DeTable<'_>, destination: &str) -> Option<Vec<SourceName>> {
    let reading = |(name, source): (&Spanned<toml::de::DeString<'_>>, &Spanned<DeValue<'_>>)| {
        let names = source.get_ref().as_table().and_then(|source| source.get("destinations")?.get_ref().as_array());
        let names =
            names.map(|names| names.iter().filter_map(|name| name.get_ref().as_str().map(str::to_owned)).collect());
        SourceReading { name: SourceName::from(name.get_ref().as_ref()), destinations: names }
    };
    let sources: Vec<SourceReading> = entries_of(document, "sources").into_iter().flatten().map(reading).collect();
    sources_of(&sources, destination)
}

/// Compiles the one destination of a test, on or off, as if there were no variables and files but the test's own.
///
/// # Errors
/// Every mistake in it, if the file has that destination and compiles otherwise.
pub fn stage(text: &str, case: &Case) -> Result<Staged, Vec<Diagnostic>> {
    let document = DeTable::parse_recoverable(text).0.into_inner();
    let texts = Texts::new(text, &Layers::reached(&document));
    let layers = Layers::new(&document, &texts);
    let findings = Findings::of(&texts);
    let read_file = |path: &Path| {
        let content = path.to_str().and_then(|path| case.files.get(path)).cloned();
        content.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    let variables = case.variables.clone();
    let environment = Environment { variables, read_file: &read_file, unset: Unset::Assumed, ..Environment::default() };
    let staged = stage_in(&document, &layers, &environment, &findings, case);
    let mut found = findings.told(&document);
    found.retain(Diagnostic::is_error);
    staged.filter(|_| found.is_empty()).ok_or(found)
}

fn stage_in<'a>(
    document: &'a DeTable<'a>,
    layers: &'a Layers<'a>,
    environment: &Environment<'_>,
    findings: &Findings<'_>,
    case: &Case,
) -> Option<Staged> {
    let name = case.destination.as_str();
    let nothing = DeTable::new();
    let top = Table::new(findings, document, "the file", 0..0);
    let section = |key: &'static str| entries(&top, key).unwrap_or(&nothing);
    let lets = section("let");
    let destinations = top.get("destinations")?.table("[destinations]")?;
    let field = destinations.fields().find(|field| field.name == name)?;
    let DeValue::Table(own) = field.raw() else { return None };
    let mut layered = layers.of(field.name, own);
    layered.entries.remove("enabled");
    let expressions = Expressions::new(findings, environment, &layered.tables);
    findings.read_extended(layered.extended_at.clone(), layered.is_torn);
    let sources = staged_sources(document, name);
    // What plans read and the test does not have says nothing of the destination.
    let apart = Expressions::new(findings, environment, section("tables"));
    let source_names: Vec<SourceName> =
        section("sources").keys().map(|name| SourceName::from(name.get_ref().as_ref())).collect();
    let tracking = tracking::read(&Surroundings::shared(&apart, lets, section("tables")), &top, &source_names);
    let (expressions, plans) = (&expressions, tracking.deadly());
    let around = Surroundings { sources, plans, ..Surroundings::shared(expressions, lets, &layered.tables) };
    let destination = destination::read(&around, &field, &layered.entries).result?.ok()?;
    let plans = DoorPlans::of(&tracking.plans);
    Some(Staged { destination: Arc::new(destination), plans, assumed: expressions.assumed() })
}

/// An error of the parser, with what other formats made people write.
fn syntax_error(text: &str, span: std::ops::Range<usize>, message: String) -> Diagnostic {
    let written = text.get(span.clone()).unwrap_or_default();
    let is_bare = message.starts_with("string values must be quoted") && !written.contains(['"', '\'', '\\']);
    let error = Diagnostic::error(Code::Syntax, span.clone(), message);
    if is_bare {
        return error.help("write it in quotes").suggest(span, format!("\"{written}\""));
    }
    if text.get(span.start..).is_some_and(|rest| rest.starts_with(':')) {
        return error.help("TOML writes `key = value`");
    }
    error
}

/// Reads the whole document. Where there are mistakes the plan has holes and is not used.
fn read<'a>(
    text: &str,
    document: &'a DeTable<'a>,
    layers: &'a Layers<'a>,
    environment: &Environment<'_>,
    findings: &Findings<'_>,
) -> (Plan, Vec<Case>) {
    let nothing = DeTable::new();
    let top = Table::new(findings, document, "the file", 0..0);
    let section = |key: &'static str| entries(&top, key).unwrap_or(&nothing);
    let (tables, lets) = (section("tables"), section("let"));
    section("defaults");
    let destinations = section("destinations");
    check_tables(&top, findings);

    let expressions = Expressions::new(findings, environment, tables);
    let reading = server::server(&expressions, top.get("server"));
    let queue = queue::read(&expressions, top.get("queue"));
    let mut policy = Policy {
        limits: reading.limits,
        strict: reading.strict,
        unknown_key: reading.unknown_key,
        ..Policy::default()
    };
    let sources = server::sources(&expressions, top.get("sources"), destinations, &mut policy);
    let names: Vec<SourceName> = sources.iter().map(|source| source.name.clone()).collect();
    let tracking = tracking::read(&Surroundings::shared(&expressions, lets, tables), &top, &names);
    policy.plans = DoorPlans::of(&tracking.plans);
    let mut plan = Plan { server: reading.server, policy: Arc::new(policy), queue, ..Plan::default() };

    let (mut in_force, mut edges) = (Vec::new(), Vec::new());
    let mut used = Used::default();
    for uses in &tracking.uses {
        let is_used =
            |name: &&Spanned<_>| uses.lets.contains(Spanned::<toml::de::DeString<'_>>::get_ref(name).as_ref());
        used.definitions.used_at.extend(lets.keys().filter(is_used).map(|name| name.span().start));
        used.tables.extend(uses.tables.iter().cloned());
    }
    for field in top.get("destinations").and_then(|field| field.table("[destinations]")).iter().flat_map(Table::fields)
    {
        let DeValue::Table(own) = field.raw() else {
            field.wrong_type("a table: write [destinations.NAME]");
            continue;
        };
        let layered = layers.of(field.name, own);
        let sources = sources_of(&sources, field.name);
        let plans = tracking.deadly();
        let around = Surroundings { sources, plans, ..Surroundings::shared(&expressions, lets, &layered.tables) };
        findings.read_extended(layered.extended_at.clone(), layered.is_torn);
        let is_alone = matches!(layered.tables, Cow::Borrowed(_));
        if !is_alone {
            expressions.see_tables(&layered.tables);
        }
        let reading = destination::read(&around, &field, &layered.entries);
        findings.read_extended(None, false);
        if !is_alone {
            expressions.see_tables(tables);
        }
        used.definitions.extend(reading.definitions);
        used.tables.extend(reading.tables);
        // One of `[defaults]` is for all but the one it names.
        let is_own = own.contains_key("overflow");
        let overflow = reading.overflow.filter(|(to, _)| is_own || to != field.name);
        edges.extend(overflow.map(|(to, span)| Edge { from: field.name.to_owned(), to, span }));
        match reading.result {
            Some(Ok(destination)) => in_force.push(destination),
            Some(Err(disabled)) => plan.disabled.push(disabled),
            None => {}
        }
    }
    let known: Vec<&str> = destinations.keys().map(|name| name.get_ref().as_ref()).collect();
    overflow::connect(findings, &edges, &known, plan.queue.kind, &mut in_force);
    plan.destinations = in_force.into_iter().map(Arc::new).collect();
    let cases =
        top.get("tests").map(|field| cases::read(findings, &field, destinations, entries_of(document, "sources")));
    top.finish();
    if destinations.is_empty() {
        check_without_destinations(&expressions, lets, &mut used);
    }
    used.warn(findings, lets, tables);
    warn_of_absent(findings, &sources, destinations);
    target::check(environment.target, findings, document, &plan);
    plan.fingerprint = fingerprint(text, &plan, &expressions);
    (plan, cases.unwrap_or_default())
}

/// A section that somebody else checks.
fn entries_of<'a>(document: &'a DeTable<'a>, key: &str) -> Option<&'a DeTable<'a>> {
    document.get(key)?.get_ref().as_table()
}

fn entries<'a>(top: &Table<'a>, key: &'static str) -> Option<&'a DeTable<'a>> {
    let field = top.get(key)?;
    match field.raw() {
        DeValue::Table(entries) => Some(entries),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => {
            field.wrong_type("a table");
            None
        }
    }
}

/// `[tables.NAME]` hold constants: they are looked things up in, not computed.
fn check_tables(top: &Table<'_>, findings: &Findings<'_>) {
    let Some(tables) = top.get("tables").and_then(|field| field.table("[tables]")) else { return };
    for entries in tables.fields().filter_map(|field| field.table("[tables.NAME]")) {
        for field in entries.fields().filter(|field| field.raw().as_str().is_some_and(has_braces)) {
            findings.add(field.error(Code::BadValue, "a table holds constants, not templates"));
        }
    }
}

/// The sources a destination takes events from: all, unless one of them says which destinations it is for.
fn sources_of(sources: &[SourceReading], destination: &str) -> Option<Vec<SourceName>> {
    let is_for = |source: &&SourceReading| {
        source.destinations.as_ref().is_none_or(|names| names.iter().any(|name| name == destination))
    };
    let wanted: Vec<_> = sources.iter().filter(is_for).map(|source| source.name.clone()).collect();
    (wanted.len() < sources.len()).then_some(wanted)
}

/// The shared `let`s of a file without destinations are checked on their own.
fn check_without_destinations(expressions: &Expressions<'_>, lets: &DeTable<'_>, used: &mut Used) {
    let shared = Table::new(expressions.findings, lets, "[let]", 0..0);
    let fields: Vec<Field<'_>> = shared.fields().collect();
    expressions.begin(true);
    expressions.define(&fields);
    used.tables.insert("*".to_owned());
    used.definitions.used_at.extend(lets.keys().map(|name| name.span().start));
}

/// What the destinations used of what they share.
#[derive(Default)]
struct Used {
    definitions: Definitions,
    tables: BTreeSet<String>,
}

impl Used {
    fn warn(self, findings: &Findings<'_>, lets: &DeTable<'_>, tables: &DeTable<'_>) {
        let unused = |name: &Spanned<toml::de::DeString<'_>>, what: String| {
            findings.add(Diagnostic::warning(Code::Unused, name.span(), format!("{what} is defined and never used")));
        };
        for name in lets.keys().filter(|name| !self.definitions.used_at.contains(&name.span().start)) {
            unused(name, format!("`{}`", name.get_ref()));
        }
        let is_used = |name: &str| self.tables.contains(name) || self.tables.contains("*");
        for name in tables.keys().filter(|name| !is_used(name.get_ref())) {
            unused(name, format!("[tables.{}]", name.get_ref()));
        }
        self.definitions.unused().for_each(|warning| findings.add(warning));
    }
}

fn warn_of_absent(findings: &Findings<'_>, sources: &[SourceReading], destinations: &DeTable<'_>) {
    if sources.is_empty() {
        let message = "there are no [sources]: nobody can send";
        let warning = Diagnostic::warning(Code::NoSources, 0..0, message);
        findings.add(warning.help("add [sources.web] with `write_keys = [\"{{ env.WRITE_KEY }}\"]`"));
    }
    if destinations.is_empty() {
        let message = "there are no [destinations]: events go nowhere";
        findings.add(Diagnostic::warning(Code::NoDestinations, 0..0, message));
    }
}

/// Hash of the text and of everything it read.
fn fingerprint(text: &str, plan: &Plan, expressions: &Expressions<'_>) -> u64 {
    let mut hash = Fingerprint::new();
    hash.add(text);
    for destination in &plan.destinations {
        hash.add(destination.fingerprint);
    }
    for disabled in &plan.disabled {
        hash.add((disabled.name.as_str(), &disabled.why, disabled.skips));
    }
    for (key, source) in &plan.policy.sources {
        hash.add((key, source.name.as_str(), source.enabled));
    }
    hash.add(&plan.server.listen).add(&plan.server.cors_origins).add(&plan.server.analytics_js);
    hash.add(plan.server.tls.as_ref().map(|tls| (&tls.cert, &tls.key)));
    hash.add(&plan.server.metrics).add(&plan.server.control).add(&plan.queue.dir);
    hash.add(expressions.files_read());
    hash.finish()
}
