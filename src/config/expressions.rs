//! Strings of the file become templates and filters: every name is checked, what is known already is settled.
//!
//! Knows which names exist where, which variables are set, and what each destination has used of them. Variables and
//! secrets' files enter as typed values; their text is never parsed again and never told.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::findings::Findings;
use super::sees::{Sees, is_of_event};
use super::spelling::nearest;
use super::table::{Field, Text};
use super::target::Target;
use super::{Environment, Unset};
use crate::expr::filter::{Filter, Selection};
use crate::expr::template::Template;
use crate::expr::{FileUse, Mistake, NameUse, Names, Scope, Value};
use crate::plan::Condition;

/// How deep `let`s may build on one another; the evaluator stops there.
const LET_DEPTH_MAX: usize = 32;

/// A string compiled, and what is known of it.
pub(super) struct Compiled {
    /// The template, settled as far as possible.
    pub template: Template,
    /// What it reads besides variables, files and tables.
    pub names: Vec<NameUse>,
    /// Whether it is one expression whose value keeps its type, as written.
    pub is_value: bool,
    /// `false`: a variable of a destination that is off is not set, so nothing can be said of the value.
    pub is_settled: bool,
}

/// What a destination, or one `let`, has used.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses {
    /// Variables, set or not.
    pub env: BTreeSet<String>,
    /// Paths of secrets' files.
    pub files: BTreeSet<String>,
    /// Tables; `*` when one is chosen by an event.
    pub tables: BTreeSet<String>,
    /// What was looked up around the file without an expression that says so: variables and files, and what they hold.
    pub found: BTreeMap<String, Option<String>>,
    /// `let` names.
    pub lets: BTreeSet<String>,
    /// Whether anything depends on an event.
    pub reads_event: bool,
    /// Whether anything tells one event from another: its `messageId`, or the whole of it.
    pub reads_id: bool,
}

/// What `env.NAME` is for a destination whose `env` says so.
#[derive(Clone)]
struct Renamed {
    /// Its value; `None`: it is not set.
    value: Option<String>,
    /// `false`: a variable that it stands for is not set, so nothing can be said of the value.
    is_settled: bool,
    /// The variables that it stands for.
    stands_for: BTreeSet<String>,
}

/// Something that an expression reads, is not there, and was let pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// A variable, by name.
    Variable(String),
    /// A secret's file, by path.
    File(String),
}

/// Whether something is switched on.
pub(super) enum Switch {
    /// It is.
    On,
    /// It is not, and why.
    Off(String),
}

/// Compiles strings for one file.
pub(super) struct Expressions<'a> {
    /// Where mistakes go.
    pub findings: &'a Findings<'a>,
    environment: &'a Environment<'a>,
    tables: RefCell<Value>,
    table_names: RefCell<Vec<String>>,
    /// Variables that mean something else in what is compiled now.
    renamed: RefCell<BTreeMap<String, Renamed>>,
    /// What those use themselves.
    renaming: RefCell<Uses>,
    /// Contents of the secrets' files read so far.
    files: RefCell<BTreeMap<String, String>>,
    scope: RefCell<Scope>,
    uses: RefCell<Uses>,
    lets: RefCell<BTreeMap<String, Uses>>,
    is_lenient: Cell<bool>,
    /// Variables and files that are used, not there, and were let pass.
    assumed: RefCell<BTreeSet<Missing>>,
}

// === impl Missing ===

impl Missing {
    /// Its name, or path.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Variable(name) | Self::File(name) => name,
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {path}"),
        }
    }
}

// === impl Expressions ===

impl<'a> Expressions<'a> {
    /// A compiler that knows the variables and the file's tables.
    pub(super) fn new(findings: &'a Findings<'a>, environment: &'a Environment<'a>, tables: &'a DeTable<'a>) -> Self {
        let table_names = names_of(tables);
        let tables = value_of_table(tables);
        let scope = file_scope(environment.variables.clone(), BTreeMap::new(), tables.clone());
        Self {
            findings,
            environment,
            tables: RefCell::new(tables),
            table_names: RefCell::new(table_names),
            renamed: RefCell::default(),
            renaming: RefCell::default(),
            files: RefCell::default(),
            scope: RefCell::new(scope),
            uses: RefCell::default(),
            lets: RefCell::default(),
            is_lenient: Cell::new(environment.unset == Unset::Assumed),
            assumed: RefCell::default(),
        }
    }

    /// Begins with something new: nothing used, no `let`. Lenient: variables that are not set are no mistake.
    pub(super) fn begin(&self, is_lenient: bool) {
        self.uses.take();
        self.lets.take();
        self.is_lenient.set(is_lenient || self.assumes_unset());
    }

    /// Whether variables may be unset, because what is compiled is switched off or they are assumed to be set elsewhere.
    pub(super) fn is_lenient(&self) -> bool {
        self.is_lenient.get()
    }

    /// Whether variables that are not set are taken as set elsewhere.
    /// Where the file is to run.
    pub(super) fn target(&self) -> Target {
        self.environment.target
    }

    pub(super) fn assumes_unset(&self) -> bool {
        self.environment.unset == Unset::Assumed
    }

    /// Lets what follows see these tables.
    pub(super) fn see_tables(&self, tables: &DeTable<'_>) {
        self.tables.replace(value_of_table(tables));
        self.table_names.replace(names_of(tables));
        self.rescope();
    }

    /// Lets `env.NAME` mean what a destination's `env` says, which itself sees the variables of the process.
    pub(super) fn rename(&self, fields: &[Field<'_>]) {
        if self.renamed.take().is_empty() && fields.is_empty() {
            return;
        }
        self.rescope();
        let outer = self.uses.take();
        let (mut renamed, mut renaming) = (BTreeMap::new(), Uses::default());
        for field in fields {
            let value = self.renamed_value(field);
            let uses = self.uses.take();
            renamed.insert(field.name.to_owned(), Renamed { stands_for: uses.env.clone(), ..value });
            renaming.env.extend(uses.env);
            renaming.files.extend(uses.files);
            renaming.tables.extend(uses.tables);
        }
        self.uses.replace(outer);
        self.renaming.replace(renaming);
        self.renamed.replace(renamed);
        self.rescope();
    }

    fn renamed_value(&self, field: &Field<'_>) -> Renamed {
        let unknown = Renamed { value: None, is_settled: false, stands_for: BTreeSet::new() };
        let compiled = match field.raw() {
            DeValue::String(_) => field.text().and_then(|text| self.compile(&text, Sees::File)),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => {
                let template = self.scalar(field, Sees::File);
                template.map(|template| Compiled { template, names: Vec::new(), is_value: true, is_settled: true })
            }
        };
        let Some(compiled) = compiled.filter(|compiled| compiled.is_settled) else { return unknown };
        let value = compiled.template.as_constant().filter(|value| !value.is_undefined() && !value.is_none());
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Renamed { value: value.map(text), is_settled: true, ..unknown }
    }

    /// The variables, files and tables that expressions see from now on.
    fn rescope(&self) {
        let mut variables = self.environment.variables.clone();
        for (name, renamed) in &*self.renamed.borrow() {
            match &renamed.value {
                Some(value) => variables.insert(name.clone(), value.clone()),
                None => variables.remove(name),
            };
        }
        let files = self.files.borrow().clone();
        self.scope.replace(file_scope(variables, files, self.tables.borrow().clone()));
    }

    /// Everything used since [`Expressions::begin`], whatever the `let`s in use use included.
    pub(super) fn uses(&self) -> Uses {
        let mut all = self.uses.borrow().clone();
        let lets = self.lets.borrow();
        let mut open: Vec<String> = all.lets.iter().cloned().collect();
        while let Some(uses) = open.pop().and_then(|name| lets.get(&name)) {
            all.env.extend(uses.env.iter().cloned());
            all.files.extend(uses.files.iter().cloned());
            all.tables.extend(uses.tables.iter().cloned());
            all.reads_id |= uses.reads_id;
            open.extend(uses.lets.iter().filter(|name| !all.lets.contains(*name)).cloned());
            all.lets.extend(uses.lets.iter().cloned());
        }
        all
    }

    /// What the `env` in force uses itself.
    pub(super) fn uses_of_env(&self) -> Uses {
        self.renaming.borrow().clone()
    }

    /// The value of a variable, as what is compiled now calls it.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        match self.renamed.borrow().get(name) {
            Some(renamed) => renamed.value.clone(),
            None => self.environment.variables.get(name).cloned(),
        }
    }

    /// The value of a variable that no expression names, if it is there and not empty.
    pub(super) fn look_up(&self, name: &str) -> Option<String> {
        let value = self.variable(name).filter(|value| !value.is_empty());
        self.uses.borrow_mut().found.insert(name.to_owned(), value.clone());
        value
    }

    /// The content of a file that no expression names.
    pub(super) fn look_into(&self, path: &str) -> io::Result<String> {
        let content = (self.environment.read_file)(Path::new(path));
        self.uses.borrow_mut().found.insert(path.to_owned(), content.as_ref().ok().cloned());
        content
    }

    /// Whether there are files of the user's where the file is to run.
    pub(super) fn has_files(&self) -> bool {
        self.environment.target.has_files()
    }

    /// The variable of the process to blame for one that is not set, or empty.
    fn to_blame(&self, name: &str) -> String {
        let renamed = self.renamed.borrow();
        let Some(renamed) = renamed.get(name) else { return name.to_owned() };
        let value = |name: &&String| self.environment.variables.get(*name).filter(|value| !value.is_empty());
        renamed.stands_for.iter().find(|name| value(name).is_none()).map_or_else(|| name.to_owned(), Clone::clone)
    }

    /// The content of a secret's file that was read.
    pub(super) fn file(&self, path: &str) -> Option<String> {
        self.files.borrow().get(path).cloned()
    }

    /// Variables and files that are used, not there, and were let pass, in order.
    pub(super) fn assumed(&self) -> Vec<Missing> {
        self.assumed.borrow().iter().cloned().collect()
    }

    /// Reads what nothing shows that is made of the file: whoever tests it need not have it.
    pub(super) fn without_assuming<T>(&self, read: impl FnOnce() -> T) -> T {
        let before = self.assumed.borrow().clone();
        let result = read();
        self.assumed.replace(before);
        result
    }

    /// A name in place of a value that is assumed to be there: what is made with it shows where the value would be.
    fn stand_in(&self, missing: &Missing) -> Option<String> {
        self.assumed.borrow().contains(missing).then(|| missing.name().to_owned())
    }

    /// The contents of all files read, by path.
    pub(super) fn files_read(&self) -> BTreeMap<String, String> {
        self.files.borrow().clone()
    }

    /// The names that events of a destination see: what its expressions use, and nothing else of the environment.
    pub(super) fn names(&self, lets: Vec<(String, Template)>) -> Names {
        let mut uses = self.uses.borrow().clone();
        let renaming = self.renaming.borrow();
        for of_let in self.lets.borrow().values().chain([&*renaming]) {
            uses.env.extend(of_let.env.iter().cloned());
            uses.files.extend(of_let.files.iter().cloned());
        }
        let pick = |names: BTreeSet<String>, get: &dyn Fn(&str) -> Option<String>| -> BTreeMap<String, String> {
            names.into_iter().filter_map(|name| get(&name).map(|value| (name, value))).collect()
        };
        let variable = |name: &str| self.variable(name).or_else(|| self.stand_in(&Missing::Variable(name.to_owned())));
        let file = |path: &str| self.file(path).or_else(|| self.stand_in(&Missing::File(path.to_owned())));
        Names {
            env: strings(pick(uses.env, &variable)),
            files: strings(pick(uses.files, &file)),
            tables: self.tables.borrow().clone(),
            lets,
        }
    }

    // --- templates

    /// Compiles a string; every mistake in it is reported.
    pub(super) fn template(&self, text: &Text<'_>, sees: Sees) -> Option<Template> {
        self.compile(text, sees).map(|compiled| compiled.template)
    }

    /// Compiles a string, a number or a boolean.
    pub(super) fn scalar(&self, field: &Field<'_>, sees: Sees) -> Option<Template> {
        match field.raw() {
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => {
                Some(Template::constant(value_of(field.raw())))
            }
            DeValue::String(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                self.template(&field.text_as("a string, a number or a boolean")?, sees)
            }
        }
    }

    /// Compiles a string and tells what is known of it.
    pub(super) fn compile(&self, text: &Text<'_>, sees: Sees) -> Option<Compiled> {
        let template = match Template::parse(text.value) {
            Ok(template) => template,
            Err(mistakes) => {
                for name in Template::names_of(text.value, &mistakes) {
                    self.check_name(&name, text, sees);
                }
                for mistake in mistakes {
                    self.mistake(text, mistake);
                }
                return None;
            }
        };
        let is_value = template.is_value();
        let errors_before = self.findings.error_count();
        let mut unknown: Vec<Range<usize>> = Vec::new();
        for file in template.files() {
            if !self.read_file(&file, text) {
                unknown.push(file.range);
            }
        }
        for call in file_calls(text.value).into_iter().filter(|call| !is_constant_call(call, &template)) {
            let error = Diagnostic::error(Code::BadValue, text.place(&call), "`file` takes a constant path in quotes");
            self.findings.add(error.help("a file is read when the configuration is, not when an event comes"));
        }
        let mut names = template.names();
        let secrets: Vec<Range<usize>> = secrets(&names, &template.files());
        let holes = template.holes();
        names.retain(|name| {
            let (is_event, is_known) = self.check_name(name, text, sees);
            if !is_known {
                unknown.push(name.range.clone());
            }
            is_event
        });
        if self.findings.error_count() > errors_before {
            return None;
        }
        let is_settled = unknown.is_empty();
        let folded = template.fold(&self.scope.borrow(), &unknown);
        match folded {
            Ok(template) => Some(Compiled { template, names, is_value, is_settled }),
            Err(error) => {
                let range = error.range.unwrap_or(0..text.value.len());
                let diagnostic = Diagnostic::error(Code::ExpressionFails, text.place(&range), error.message);
                let hole = holes.iter().find(|hole| is_within(&range, hole));
                let reads_secrets = secrets.iter().any(|secret| hole.is_none_or(|hole| is_within(secret, hole)));
                self.findings.add(if reads_secrets { without_values(diagnostic) } else { diagnostic });
                None
            }
        }
    }

    /// A string that is known when the file is read; `None` also when it is not, in something that is off.
    pub(super) fn settled_text(&self, field: &Field<'_>) -> Option<String> {
        let text = field.text()?;
        let compiled = self.compile(&text, Sees::File)?;
        if !compiled.is_settled {
            return None;
        }
        let value = compiled.template.as_constant()?;
        if value.is_undefined() || value.is_none() {
            self.findings.add(text.error(Code::MissingValue, format!("`{}` has no value", field.name)));
            return None;
        }
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    /// Reads an `enabled`: a boolean, or a template whose value is there and not empty.
    pub(super) fn switch(&self, field: Option<Field<'_>>) -> Switch {
        let off = || Switch::Off("`enabled` is false".to_owned());
        let Some(field) = field else { return Switch::On };
        if let DeValue::Boolean(is_on) = field.raw() {
            return if *is_on { Switch::On } else { off() };
        }
        let Some(text) = field.text_as("`true`, `false` or a template such as \"{{ env.NAME }}\"") else {
            return Switch::On;
        };
        self.is_lenient.set(true);
        let compiled = self.compile(&text, Sees::File);
        self.is_lenient.set(self.assumes_unset());
        let uses = self.uses.borrow();
        let why_off = || {
            let is_unset = |name: &&String| self.variable(name).is_none();
            let is_empty = |name: &&String| self.variable(name).is_some_and(|value| value.is_empty());
            let unset = uses.env.iter().find(is_unset).map(|name| format!("{} is not set", self.to_blame(name)));
            let empty = || uses.env.iter().find(is_empty).map(|name| format!("{} is empty", self.to_blame(name)));
            unset.or_else(empty).map_or_else(off, Switch::Off)
        };
        match compiled {
            None => Switch::On,
            Some(compiled) if !compiled.is_settled && self.assumes_unset() => Switch::On,
            Some(compiled) if !compiled.is_settled => why_off(),
            Some(compiled) => match compiled.template.as_constant() {
                Some(value) if is_on(value) => Switch::On,
                Some(_) | None => why_off(),
            },
        }
    }

    // --- filters

    /// Compiles a condition: a template as one expression, or a `JSONPath` filter.
    pub(super) fn condition(&self, field: &Field<'_>, sees: Sees) -> Option<Condition> {
        let text = field.text_as("a JSONPath filter or \"{{ an expression }}\"")?;
        if !has_braces(text.value) {
            let filter = Filter::parse(text.value);
            self.note_everywhere(&text);
            return filter.map(Condition::Filter).map_err(|mistake| self.mistake(&text, mistake)).ok();
        }
        let compiled = self.compile(&text, sees)?;
        if !compiled.is_value {
            let message = format!("`{}` must be one `{{{{ expression }}}}`: text around it is always true", field.name);
            self.findings.add(text.error(Code::AlwaysTrue, message));
            return None;
        }
        Some(Condition::Expression(compiled.template))
    }

    /// Compiles a `JSONPath` that picks.
    pub(super) fn selection(&self, text: &Text<'_>) -> Option<Selection> {
        self.note_everywhere(text);
        Selection::parse(text.value).map_err(|mistake| self.mistake(text, mistake)).ok()
    }

    /// A path that says `..` is right and slow.
    fn note_everywhere(&self, text: &Text<'_>) {
        let mut quote = None;
        for (at, c) in text.value.char_indices() {
            match quote {
                Some(open) => quote = Some(open).filter(|open| *open != c),
                None if c == '"' || c == '\'' => quote = Some(c),
                None if text.value[at..].starts_with("..") => {
                    let note = Diagnostic::note(
                        Code::LooksEverywhere,
                        text.place(&(at..at + 2)),
                        "`..` looks at every value of every event",
                    );
                    return self.findings.add(note.help("where the path is known, name it: that is a single look"));
                }
                None => {}
            }
        }
    }

    /// Takes note that what is sent is the whole event.
    pub(super) fn note_whole_event(&self) {
        self.uses.borrow_mut().reads_id = true;
    }

    fn mistake(&self, text: &Text<'_>, mistake: Mistake) {
        let span = text.place(&mistake.range);
        let error = Diagnostic::error(Code::BadExpression, span, mistake.message);
        let meant = mistake.help.as_deref().and_then(|help| help.strip_prefix("did you mean `")?.strip_suffix("`?"));
        self.findings.add(match (meant, &mistake.help) {
            (Some(meant), _) => error.did_you_mean(Some(meant)),
            (None, Some(help)) => error.help(help),
            (None, None) => error,
        });
    }

    // --- names

    /// Checks one name. Answers whether it depends on more than the file, and whether its value can be known.
    fn check_name(&self, name: &NameUse, text: &Text<'_>, sees: Sees) -> (bool, bool) {
        let (root, rest) =
            name.path.split_once('.').map_or((name.path.as_str(), None), |(root, rest)| (root, Some(rest)));
        match root {
            "env" => (false, self.check_variable(rest, name, text)),
            "tables" => {
                self.check_table(rest, name, text);
                (false, true)
            }
            _ => {
                self.check_root(root, name, text, sees);
                (true, true)
            }
        }
    }

    fn check_variable(&self, rest: Option<&str>, name: &NameUse, text: &Text<'_>) -> bool {
        let Some(variable) = rest.map(|rest| rest.split('.').next().unwrap_or(rest)) else {
            let help = "write `env.NAME`";
            let error = Diagnostic::error(Code::BadName, text.place(&name.range), "`env` is not a value of its own");
            self.findings.add(error.help(help));
            return true;
        };
        self.uses.borrow_mut().env.insert(variable.to_owned());
        if self.renamed.borrow().get(variable).is_some_and(|renamed| !renamed.is_settled) {
            // What it stands for is not set, which is told there.
            return false;
        }
        if self.variable(variable).is_some() || name.optional {
            return true;
        }
        if self.is_lenient() {
            self.assumed.borrow_mut().insert(Missing::Variable(variable.to_owned()));
            return false;
        }
        let message = format!("environment variable {variable} is not set");
        let error = Diagnostic::error(Code::UnsetVariable, text.place(&name.range), message);
        let renamed = self.renamed.borrow();
        if renamed.contains_key(variable) {
            self.findings.add(error.help("this destination's `env` gives it no value"));
            return true;
        }
        let near = nearest(variable, self.environment.variables.keys().chain(renamed.keys()).map(String::as_str));
        self.findings.add(match near {
            Some(near) => {
                let error = error.help(format!("did you mean `{near}`?"));
                match spelled_out(text, name, variable) {
                    Some(piece) => error.suggest(text.place(&piece), near),
                    None => error,
                }
            }
            None => error,
        });
        true
    }

    fn check_table(&self, rest: Option<&str>, name: &NameUse, text: &Text<'_>) {
        let table = rest.map_or("*", |rest| rest.split('.').next().unwrap_or(rest));
        self.uses.borrow_mut().tables.insert(table.to_owned());
        let known = self.table_names.borrow();
        if table == "*" || known.iter().any(|name| name == table) {
            return;
        }
        let spelled_out = spelled_out(text, name, table);
        let is_spelled_out = spelled_out.is_some();
        let piece = spelled_out.unwrap_or_else(|| name.range.clone());
        let error = Diagnostic::error(Code::UnknownTable, text.place(&piece), format!("there is no [tables.{table}]"));
        let near = nearest(table, known.iter().map(String::as_str));
        self.findings.add(if is_spelled_out { error.did_you_mean(near) } else { error });
    }

    fn check_root(&self, root: &str, name: &NameUse, text: &Text<'_>, sees: Sees) {
        // As in the scope itself, a `let` hides an event's field of the same name, and `item` hides a `let`.
        let is_let = self.lets.borrow().contains_key(root);
        if is_let && sees.has_lets() {
            self.uses.borrow_mut().lets.insert(root.to_owned());
        }
        if is_let && sees.has_lets() && (!matches!(sees, Sees::Batch | Sees::BatchItem) || !self.let_reads_event(root))
        {
            return;
        }
        if sees.knows(root) {
            let mut uses = self.uses.borrow_mut();
            uses.reads_event |= is_of_event(root);
            uses.reads_id |= matches!(root, "messageId" | "message");
            return;
        }
        let piece = text.place(&(name.range.start..(name.range.start + root.len()).min(name.range.end)));
        let is_known = is_let || Sees::ALL.iter().any(|other| other.knows(root));
        if is_known {
            let message = format!("`{root}` is not known here");
            self.findings.add(Diagnostic::error(Code::UnknownName, piece, message).help(sees.explanation(root)));
            return;
        }
        let lets = self.lets.borrow();
        let own = lets.keys().map(String::as_str).filter(|_| sees.has_lets());
        let words: Vec<&str> = sees.words().into_iter().chain(own).collect();
        let error = Diagnostic::error(Code::UnknownName, piece, format!("unknown name `{root}`"));
        self.findings.add(error.did_you_mean(nearest(root, words)));
    }

    /// Whether what was compiled depends on an event, itself or by the `let`s it uses.
    pub(super) fn reads_event(&self, compiled: &Compiled) -> bool {
        let is_let = |root: &str| self.lets.borrow().contains_key(root);
        compiled
            .names
            .iter()
            .map(|name| name.path.split('.').next().unwrap_or_default())
            .any(|root| if is_let(root) { self.let_reads_event(root) } else { is_of_event(root) })
    }

    /// Whether a `let` depends on an event, itself or by those it uses.
    fn let_reads_event(&self, name: &str) -> bool {
        let lets = self.lets.borrow();
        let mut seen = BTreeSet::new();
        let mut open = vec![name.to_owned()];
        while let Some(name) = open.pop() {
            let Some(uses) = lets.get(&name).filter(|_| seen.insert(name.clone())) else { continue };
            if uses.reads_event {
                return true;
            }
            open.extend(uses.lets.iter().cloned());
        }
        false
    }

    // --- lets

    /// Compiles the `let`s in force, in order. Their names are known to everything compiled afterwards.
    pub(super) fn define(&self, lets: &[Field<'_>]) -> Vec<(String, Template)> {
        let names = lets.iter().map(|field| (field.name.to_owned(), Uses::default()));
        *self.lets.borrow_mut() = names.collect();
        let mut templates = Vec::with_capacity(lets.len());
        for field in lets {
            let outer = self.uses.take();
            let template = self.scalar(field, Sees::Event);
            let own = self.uses.replace(outer);
            self.lets.borrow_mut().insert(field.name.to_owned(), own);
            templates.extend(template.map(|template| (field.name.to_owned(), template)));
        }
        self.check_cycles(lets);
        self.check_depth(lets);
        templates
    }

    /// Each `let` that builds on another is one evaluation inside another's.
    fn check_depth(&self, fields: &[Field<'_>]) {
        let lets = self.lets.borrow();
        let mut depths: BTreeMap<&str, usize> = BTreeMap::new();
        // Every round settles at least those that build on settled ones only.
        for _ in 0..=LET_DEPTH_MAX {
            for (name, uses) in &*lets {
                let below = uses.lets.iter().filter_map(|used| depths.get(used.as_str())).max();
                depths.insert(name, below.map_or(1, |depth| depth + 1).min(LET_DEPTH_MAX + 1));
            }
        }
        let is_deep = |field: &&Field<'_>| depths.get(field.name).is_some_and(|depth| *depth > LET_DEPTH_MAX);
        let is_in_cycle = fields.iter().any(|field| cycle_from(&lets, field.name).is_some());
        if let Some(field) = fields.iter().find(is_deep).filter(|_| !is_in_cycle) {
            let message = format!("`{}` builds on more than {LET_DEPTH_MAX} others", field.name);
            self.findings.add(Diagnostic::error(Code::LetDepth, field.span(), message));
        }
    }

    /// A `let` that reaches itself would never end.
    fn check_cycles(&self, fields: &[Field<'_>]) {
        let lets = self.lets.borrow();
        let mut told: BTreeSet<&str> = BTreeSet::new();
        for field in fields {
            let Some(cycle) = cycle_from(&lets, field.name).filter(|_| !told.contains(field.name)) else { continue };
            let message = match cycle.as_slice() {
                [_] => format!("`{}` is defined by itself", field.name),
                _ => format!("`{}` is defined by itself: {}", field.name, route(&cycle)),
            };
            self.findings.add(Diagnostic::error(Code::LetCycle, field.span(), message));
            told.extend(fields.iter().map(|field| field.name).filter(|name| cycle.iter().any(|step| step == name)));
        }
    }

    // --- files

    /// The content of the file that a string names.
    pub(super) fn file_named(&self, path: &str, text: &Text<'_>) -> Option<String> {
        let file = FileUse { path: path.to_owned(), range: 0..text.value.len() };
        self.read_file(&file, text).then(|| self.file(path)).flatten()
    }

    /// Reads a secret's file, once. Answers whether its content is known.
    fn read_file(&self, file: &FileUse, text: &Text<'_>) -> bool {
        self.uses.borrow_mut().files.insert(file.path.clone());
        if self.files.borrow().contains_key(&file.path) {
            return true;
        }
        if !self.environment.target.has_files() {
            let message = "the function has no files of yours to read";
            let error = Diagnostic::error(Code::NotOnTarget, text.place(&file.range), message);
            self.findings.add(error.help("Vercel hands secrets over as variables: write `env.NAME`"));
            return false;
        }
        match (self.environment.read_file)(Path::new(&file.path)) {
            Ok(content) => {
                // Editors and `echo` end a file with a newline that is no part of a secret.
                let content = content.trim_end_matches(['\r', '\n']).to_owned();
                self.files.borrow_mut().insert(file.path.clone(), content);
                self.rescope();
                true
            }
            Err(_) if self.is_lenient() => {
                self.assumed.borrow_mut().insert(Missing::File(file.path.clone()));
                false
            }
            Err(error) => {
                let message = format!("cannot read {}: {error}", file.path);
                self.findings.add(Diagnostic::error(Code::UnreadableFile, text.place(&file.range), message));
                false
            }
        }
    }
}

/// Where in a name the word behind its first dot or bracket stands, as it is written: `env.WORD`, `env['WORD']`.
fn spelled_out(text: &Text<'_>, name: &NameUse, word: &str) -> Option<Range<usize>> {
    let written = text.value.get(name.range.clone())?;
    let root = written.find(['.', '['])? + 1;
    let start = name.range.start + root + written[root..].find(word)?;
    let is_whole = |c: char| !c.is_alphanumeric() && c != '_';
    let end = start + word.len();
    (text.value[..start].ends_with(is_whole) && (text.value[end..].starts_with(is_whole) || end == text.value.len()))
        .then_some(start..end)
}

/// The way from a `let` back to itself.
fn cycle_from(lets: &BTreeMap<String, Uses>, start: &str) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut open = vec![start];
    while let Some(at) = open.pop() {
        for next in lets.get(at).into_iter().flat_map(|uses| &uses.lets) {
            if next == start {
                let mut cycle: Vec<String> =
                    std::iter::successors(Some(at), |step| came_from.get(step).copied()).map(str::to_owned).collect();
                cycle.reverse();
                return Some(cycle);
            }
            if !came_from.contains_key(next.as_str()) {
                came_from.insert(next, at);
                open.push(next);
            }
        }
    }
    None
}

fn route(cycle: &[String]) -> String {
    let back = cycle.first().into_iter();
    cycle.iter().chain(back).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" uses ")
}

/// Where a template calls `file`, up to the opening parenthesis.
fn file_calls(text: &str) -> Vec<Range<usize>> {
    let (mut calls, mut is_inside, mut quote, mut word) = (Vec::new(), false, None, None);
    for (at, c) in text.char_indices() {
        let rest = &text[at..];
        match (is_inside, quote) {
            (false, _) => is_inside = rest.starts_with("{{") || rest.starts_with("{%"),
            (true, Some(open)) => quote = Some(open).filter(|open| *open != c),
            (true, None) if c == '\'' || c == '"' => quote = Some(c),
            (true, None) if rest.starts_with("}}") || rest.starts_with("%}") => is_inside = false,
            (true, None) if c.is_alphanumeric() || c == '_' || c == '.' => {
                word = Some(word.filter(|_| is_word_before(text, at)).unwrap_or(at));
            }
            (true, None) if c == '(' => {
                let name = word.map(|start| start..at).filter(|range| text[range.clone()].trim_end() == "file");
                calls.extend(name.map(|name| name.start..at + 1));
            }
            (true, None) => {}
        }
    }
    calls
}

fn is_word_before(text: &str, at: usize) -> bool {
    text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.')
}

/// Whether a call of `file` found by [`file_calls`] is one whose path the template knows.
fn is_constant_call(call: &Range<usize>, template: &Template) -> bool {
    template.files().iter().any(|file| file.range.start >= call.end && file.range.start - call.end < 8)
}

/// Where a template reads what may be a secret.
fn secrets(names: &[NameUse], files: &[FileUse]) -> Vec<Range<usize>> {
    let variables = names.iter().filter(|name| name.path.starts_with("env")).map(|name| name.range.clone());
    variables.chain(files.iter().map(|file| file.range.clone())).collect()
}

fn is_within(part: &Range<usize>, whole: &Range<usize>) -> bool {
    whole.start <= part.start && part.end <= whole.end
}

/// The error of an expression that reads variables or files, without what they hold: it may be a secret.
fn without_values(error: Diagnostic) -> Diagnostic {
    // Our filters quote the value at fault last; of any other message nothing is known.
    let told = error.message.split_once(": `").map(|(told, _)| told.to_owned());
    let message = told.unwrap_or_else(|| "this fails with the variables as they are".to_owned());
    Diagnostic { message, ..error }.help("the value is not shown, for it may be a secret")
}

fn is_on(value: &Value) -> bool {
    // The environment knows only text: what people write there to mean no is no.
    let says_no = |text: &str| matches!(text.trim().to_ascii_lowercase().as_str(), "" | "false" | "0" | "no" | "off");
    value.as_str().map_or_else(|| value.is_true(), |text| !says_no(text))
}

fn file_scope(env: BTreeMap<String, String>, files: BTreeMap<String, String>, tables: Value) -> Scope {
    Scope::file(&Arc::new(Names { env: strings(env), files: strings(files), tables, lets: Vec::new() }))
}

fn names_of(tables: &DeTable<'_>) -> Vec<String> {
    tables.keys().map(|name| name.get_ref().to_string()).collect()
}

fn strings(map: BTreeMap<String, String>) -> Value {
    Value::from_pairs(map)
}

/// Whether a string is a template rather than a constant or a path.
pub(super) fn has_braces(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|open| text.contains(open))
}

/// A value of the file as expressions see it. Dates are text; numbers too large for JSON are text as well.
pub(super) fn value_of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| Value::from(integer.to_string()), Value::from),
        DeValue::Float(float) => {
            float.as_str().parse::<f64>().map_or_else(|_| Value::from(float.as_str()), Value::from)
        }
        DeValue::Boolean(boolean) => Value::from(*boolean),
        DeValue::Datetime(date) => Value::from(date.to_string()),
        DeValue::Array(list) => list.iter().map(|element| value_of(element.get_ref())).collect(),
        DeValue::Table(table) => value_of_table(table),
    }
}

fn value_of_table(table: &DeTable<'_>) -> Value {
    Value::from_pairs(
        table.iter().map(|(key, value): (&Spanned<_>, _)| (key.get_ref().to_string(), value_of(value.get_ref()))),
    )
}

#[cfg(test)]
mod tests {
    use super::file_calls;

    #[test]
    fn calls_of_file_are_found_where_they_are_calls() {
        let found =
            |text: &'static str| -> Vec<&str> { file_calls(text).into_iter().map(|range| &text[range]).collect() };
        assert_eq!(found("{{ file(userId) }}"), ["file("]);
        assert_eq!(found("{{ a ~ file ('x') }} {% if file(\"y\") %}"), ["file (", "file("]);
        for none in [
            "file(x)",
            "{{ 'file(x)' }}",
            "{{ profile(x) }}",
            "{{ a.file(x) }}",
            "{{ file }} (x)",
            "{{ \"it's file(\" }}",
        ] {
            assert!(found(none).is_empty(), "{none}");
        }
    }
}
