//! Keeping the plan in step with its file: watch, compile, hand over, or keep the old plan and say why.
//!
//! Only a plan without errors is handed over. What a new plan means for workers and door is `app`'s business.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{self, Changes, Code, Diagnostic, Environment, Style, Target};
use crate::plan::{Plan, Server};

/// Where a configuration comes from, and where it is to run.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its file; a name for messages when its text is built in.
    pub path: PathBuf,
    /// Its text, when that is built in.
    pub built_in: Option<&'static str>,
    /// Where it is to run.
    pub target: Target,
}

/// The file and the plan in force.
pub struct Reload {
    origin: Origin,
    variables: BTreeMap<String, String>,
    clock: Clock,
    current: ArcSwap<Loaded>,
    /// Why the file, as it is now, is not in force.
    broken: Mutex<Option<Broken>>,
}

/// A plan in force.
pub struct Loaded {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The file that it was made from.
    pub text: Arc<str>,
    /// Since when.
    pub at: Timestamp,
}

/// A file that is not in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    /// The mistakes, drawn.
    pub picture: String,
    /// How many.
    pub errors: usize,
    /// When it was found.
    pub at: Timestamp,
}

/// Why a file gave no plan.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has mistakes.
    #[error("{} has {count} mistake{}", path.display(), if *count == 1 { "" } else { "s" })]
    Mistaken {
        /// Which file.
        path: PathBuf,
        /// How many.
        count: usize,
        /// The mistakes, drawn.
        picture: String,
    },
}

/// Editors write a file in several steps: it is read when nothing has happened for this long.
const QUIET: Duration = Duration::from_millis(100);

/// A folder where something happens all the time still gets its file read.
const QUIET_MAX: Duration = Duration::from_secs(1);

/// Columns of a picture in the log.
const LOG_WIDTH: usize = 120;

/// Changes of keys that a reload logs: a preset that went would bring hundreds.
const CHANGES_MAX: usize = 20;

/// Some file systems (network shares, some bind mounts) tell of no change; secrets' files are not watched at all.
const POLL: Duration = Duration::from_secs(30);

// === impl Origin ===

impl From<PathBuf> for Origin {
    /// A file, on a machine.
    fn from(path: PathBuf) -> Self {
        Self { path, built_in: None, target: Target::Machine }
    }
}

// === impl Reload ===

impl Reload {
    /// Reads and compiles the file for the first time. Warnings are logged.
    ///
    /// # Errors
    /// When the file cannot be read or has mistakes.
    pub fn load(
        origin: impl Into<Origin>,
        variables: BTreeMap<String, String>,
        clock: Clock,
    ) -> Result<Self, LoadError> {
        let origin = origin.into();
        let fresh = compile(&origin, &variables)?;
        fresh.log_warnings(&origin.path);
        let loaded = Loaded { plan: fresh.plan, text: fresh.text, at: clock.now() };
        Ok(Self { origin, variables, clock, current: ArcSwap::from_pointee(loaded), broken: Mutex::default() })
    }

    /// Where the configuration is to run.
    #[must_use]
    pub fn target(&self) -> Target {
        self.origin.target
    }

    /// The plan in force.
    #[must_use]
    pub fn current(&self) -> Arc<Loaded> {
        self.current.load_full()
    }

    /// Why the file, as it is now, is not in force, if it is not.
    #[must_use]
    pub fn broken(&self) -> Option<Broken> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file now. Answers a plan that is new and without mistakes, to be [adopted](Self::adopt) once it is
    /// in force.
    pub fn refresh(&self) -> Option<Fresh> {
        match compile(&self.origin, &self.variables) {
            Ok(fresh) => {
                *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = None;
                (fresh.plan.fingerprint != self.current().plan.fingerprint).then_some(fresh)
            }
            Err(error) => {
                self.keep_old(&error);
                None
            }
        }
    }

    /// Takes note that a plan is in force, and says what it changed.
    pub fn adopt(&self, fresh: Fresh) {
        let before = self.current();
        fresh.log_warnings(&self.origin.path);
        let differences = before.plan.changes(&fresh.plan);
        tracing::info!(
            added = %names(&differences.added),
            removed = %names(&differences.removed),
            changed = %names(&differences.changed),
            "reloaded {}",
            self.origin.path.display()
        );
        log_changes(&config::changes(&before.text, &fresh.text));
        if before.plan.server != fresh.plan.server || before.plan.queue != fresh.plan.queue {
            tracing::warn!("[server] and [queue] are read at start: restart for their changes to take effect");
        }
        self.current.store(Arc::new(Loaded { plan: fresh.plan, text: fresh.text, at: self.clock.now() }));
    }

    fn keep_old(&self, error: &LoadError) {
        let (picture, errors) = match error {
            LoadError::Unreadable { source, .. } => (format!("{error}: {source}"), 1),
            LoadError::Mistaken { picture, count, .. } => (picture.clone(), *count),
        };
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.as_ref().is_some_and(|known| known.picture == picture) {
            return;
        }
        tracing::error!("{error}; the old configuration stays in force\n{picture}");
        *broken = Some(Broken { picture, errors, at: self.clock.now() });
    }

    /// Calls `refresh` whenever the file may have changed, until told to stop.
    pub async fn watch<F: Future>(&self, refresh: impl Fn() -> F, stop: CancellationToken) {
        let (bell, mut rings) = mpsc::channel(1);
        let watcher = watch_folder(&self.origin.path, bell);
        if let Err(error) = &watcher {
            tracing::warn!(%error, "cannot watch the configuration; it is read every {} s instead", POLL.as_secs());
        }
        loop {
            // At first too: the file may have changed between its first reading and the watch.
            refresh().await;
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = rings.recv() => quiet(&mut rings).await,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

/// The file's folder is watched, not the file: editors and Kubernetes put another file in its place.
fn watch_folder(path: &Path, bell: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // A full channel already says that something changed.
            let _ = bell.try_send(());
        }
    })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

async fn quiet(rings: &mut mpsc::Receiver<()>) {
    let settle = async { while let Ok(Some(())) = timeout(QUIET, rings.recv()).await {} };
    // However it ends, the file is read next.
    let _ = timeout(QUIET_MAX, settle).await;
}

/// Tells what becomes of the keys of each destination, a line each.
fn log_changes(changes: &Changes) {
    let edits =
        || changes.destinations.iter().flat_map(|section| section.edits.iter().map(move |edit| (section, edit)));
    for (section, edit) in edits().take(CHANGES_MAX) {
        tracing::info!(destination.name = section.name, "{edit}");
    }
    let more = edits().count().saturating_sub(CHANGES_MAX);
    if more > 0 {
        tracing::info!("and {more} more; `libroseg diff OLD NEW` tells all of them");
    }
}

fn names(names: &[crate::attempt::DestinationName]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A plan just compiled.
pub struct Fresh {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The file that it was made from.
    text: Arc<str>,
    /// Its warnings, drawn; empty without.
    warnings: String,
}

// === impl Fresh ===

impl Fresh {
    fn log_warnings(&self, path: &Path) {
        if !self.warnings.is_empty() {
            tracing::warn!("{}\n{}", path.display(), self.warnings);
        }
    }
}

fn compile(origin: &Origin, variables: &BTreeMap<String, String>) -> Result<Fresh, LoadError> {
    let environment = Environment { target: origin.target, ..environment(variables.clone()) };
    let text = match origin.built_in {
        Some(text) => text.to_owned(),
        None => text_of(&origin.path)?,
    };
    match config::compile(&text, &environment) {
        Ok(mut compiled) => {
            // What `--check --target` says is not said again whenever an instance starts.
            compiled.warnings.retain(|warning| !matches!(warning.code, Code::IdleOnTarget | Code::MayLose));
            let name = origin.path.display().to_string();
            let warnings = config::draw(&name, &text, &compiled.warnings, Style::Plain, LOG_WIDTH);
            Ok(Fresh { plan: Arc::new(compiled.plan), warnings, text: text.into() })
        }
        Err(mistakes) => Err(mistaken(&origin.path, &text, &mistakes)),
    }
}

fn mistaken(path: &Path, text: &str, mistakes: &[Diagnostic]) -> LoadError {
    let picture = config::draw(&path.display().to_string(), text, mistakes, Style::Plain, LOG_WIDTH);
    LoadError::Mistaken { path: path.to_owned(), count: mistakes.len(), picture }
}

fn text_of(path: &Path) -> Result<String, LoadError> {
    fs::read_to_string(path).map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })
}

/// Reads and compiles a file for whoever only wants to know what it says. Its warnings are for those who serve it.
///
/// # Errors
/// When the file cannot be read or has mistakes.
pub fn read(path: &Path, variables: &BTreeMap<String, String>) -> Result<Arc<Plan>, LoadError> {
    Ok(compile(&path.to_owned().into(), variables)?.plan)
}

/// Reads how a service with this file listens, whatever is wrong with the rest of it.
///
/// # Errors
/// When the file cannot be read, or has mistakes in `[server]`.
pub fn read_server(path: &Path, variables: &BTreeMap<String, String>) -> Result<Server, LoadError> {
    let text = text_of(path)?;
    config::server_of(&text, &environment(variables.clone())).map_err(|mistakes| mistaken(path, &text, &mistakes))
}

/// The text of a file and what it compiles to.
type Checked = (String, Result<config::Compiled, Vec<Diagnostic>>);

/// Reads and compiles a file: what start-up, reload and `--check` all do.
///
/// # Errors
/// When the file cannot be read.
pub fn check(path: &Path, environment: &Environment<'_>) -> Result<Checked, LoadError> {
    let text = text_of(path)?;
    let result = config::compile(&text, environment);
    Ok((text, result))
}

/// These variables, and the files of this machine, on which the configuration is to run.
#[must_use]
pub fn environment(variables: BTreeMap<String, String>) -> Environment<'static> {
    Environment { variables, read_file: &|path| fs::read_to_string(path), ..Environment::default() }
}
