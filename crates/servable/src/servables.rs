//! The set of models that is served: what is configured, what is loaded, and how to change it.

mod change;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use salver_lifecycle::{Aspired, Clock, Manager, ModelName, Observer, Version, VersionState};
use salver_predict::{
    BoxFuture, Code, Error, ModelConfig, ModelSpec, ModelStatus, Models, Predictor, Target, VersionChoice,
    VersionPolicy,
};

use crate::report::{self, ServableSnapshot, VersionSnapshot};
use crate::rules::{Configs, Strictness};
use crate::target::Held;
use crate::{Loaded, ServableLoader, loader};

/// How the set of models behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// How versions are loaded, swapped and retried.
    pub lifecycle: salver_lifecycle::Config,
    /// Judge configurations exactly as TensorFlow Serving does: every model needs a platform, and labels need available
    /// versions also at start-up. Default: no.
    pub is_strict: bool,
    /// A new label may stand for a version that is not available. Default: no.
    pub labels_for_unavailable: bool,
    /// How long a reload or load waits for its models at most; they go on loading after that. Default: 1 hour.
    pub max_wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            lifecycle: salver_lifecycle::Config::default(),
            is_strict: false,
            labels_for_unavailable: false,
            max_wait: Duration::from_secs(3600),
        }
    }
}

/// A model whose folder is to be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedModel {
    /// The model.
    pub name: ModelName,
    /// Where its versions are, as configured.
    pub base_path: String,
    /// Which versions are wanted.
    pub policy: VersionPolicy,
}

/// Watches the folders of models and reports what is there to [`Servables::aspire`] and
/// [`Servables::set_source_error`].
pub trait Watcher: Send + Sync + 'static {
    /// Replaces the whole set of watched models. Must return at once and look at new models soon after; it must not call
    /// [`Servables`] from within. A model that left the set and comes back is reported afresh.
    fn watch(&self, models: Vec<WatchedModel>);
}

/// The models served here. Cheap to clone; clones share everything.
///
/// Changes come from two sides: a configuration says which models there are ([`Servables::apply`],
/// [`Models::reload`], [`Models::load`], [`Models::unload`]) and a [`Watcher`] says which versions they have
/// ([`Servables::aspire`]). Nothing here blocks but [`Servables::shutdown`]; what must wait does so on a thread of its
/// own.
#[derive(Clone)]
pub struct Servables {
    shared: Arc<Shared>,
}

struct Shared {
    manager: Manager<ServableLoader>,
    clock: Arc<dyn Clock>,
    config: Config,
    watcher: OnceLock<Arc<dyn Watcher>>,
    /// Held while a change of the configuration is carried out, so that two do not mix. Taken before `book`.
    changes: Mutex<()>,
    /// Held for short moments only; the manager may be called under it, the watcher not.
    book: RwLock<Book>,
    /// Never held while anything else is locked or called, because waits read it while the manager is locked.
    source_errors: Mutex<HashMap<ModelName, String>>,
    is_closing: AtomicBool,
    n_waits: AtomicUsize,
}

/// What is configured.
#[derive(Debug, Default)]
struct Book {
    configs: Configs,
    /// Configured, but taken out of service until it is loaded again.
    unloaded: BTreeSet<ModelName>,
}

impl Book {
    fn is_wanted(&self, name: &ModelName) -> bool {
        self.configs.contains_key(name) && !self.unloaded.contains(name)
    }

    fn wanted(&self) -> impl Iterator<Item = &ModelName> {
        self.configs.keys().filter(|name| !self.unloaded.contains(*name))
    }

    fn watched(&self) -> Vec<WatchedModel> {
        let watched = |(name, config): (&ModelName, &ModelConfig)| WatchedModel {
            name: name.clone(),
            base_path: config.base_path.clone(),
            policy: config.policy.clone(),
        };
        self.configs.iter().filter(|(name, _)| !self.unloaded.contains(*name)).map(watched).collect()
    }
}

impl fmt::Debug for Servables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servables").field("manager", &self.shared.manager).finish_non_exhaustive()
    }
}

impl Servables {
    /// A set with no models. `observer` is told of every change of a version's state; it must be quick and must not call
    /// this set.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(
        loader: ServableLoader,
        config: Config,
        clock: Arc<dyn Clock>,
        observer: Observer,
    ) -> io::Result<Servables> {
        let manager = Manager::with_observer(loader, &config.lifecycle, Arc::clone(&clock), observer)?;
        let shared = Shared {
            manager,
            clock,
            config,
            watcher: OnceLock::new(),
            changes: Mutex::default(),
            book: RwLock::default(),
            source_errors: Mutex::default(),
            is_closing: AtomicBool::new(false),
            n_waits: AtomicUsize::new(0),
        };
        Ok(Servables { shared: Arc::new(shared) })
    }

    /// Names the watcher, once; it is told at once what there is to watch. It comes after the set because it reports to
    /// the set. A second watcher is ignored.
    pub fn connect(&self, watcher: Arc<dyn Watcher>) {
        let _changes = self.shared.lock_changes();
        if self.shared.watcher.set(watcher).is_ok() {
            self.shared.watch();
        }
    }

    /// Says which versions a model has. Ignored for a model that is not configured or that was unloaded. Does not block.
    pub fn aspire(&self, aspired: Aspired<PathBuf>) {
        let book = self.shared.book();
        if book.is_wanted(&aspired.name) {
            self.shared.manager.aspire(aspired);
        }
    }

    /// Says why a model's folder gives no versions, or that this is over. Does not block.
    pub fn set_source_error(&self, name: &ModelName, error: Option<String>) {
        let is_configured = self.shared.book().configs.contains_key(name);
        let mut errors = self.shared.source_errors();
        match error {
            Some(error) if is_configured => errors.insert(name.clone(), error),
            _ => errors.remove(name),
        };
        drop(errors);
        // Whoever waits for this model must look again.
        self.shared.manager.wake();
    }

    /// What every known version has done so far, sorted by name, the highest version first. Does not block for long.
    pub fn snapshot(&self) -> Vec<VersionSnapshot> {
        let manager = &self.shared.manager;
        let of = |name: &ModelName, state: &VersionState| {
            let id = salver_lifecycle::Id { name: name.clone(), version: state.version };
            let handle = manager.handle(name, Some(state.version)).ok();
            VersionSnapshot {
                id: loader::model_id(&id),
                state: report::state(state.state.phase),
                servable: handle.map(|handle| ServableSnapshot::of(&handle)),
            }
        };
        let states = manager.all_states();
        states.iter().flat_map(|(name, states)| states.iter().map(move |state| of(name, state))).collect()
    }

    /// Shows each loaded version in turn. It stays loaded until `look` returns.
    pub fn each_loaded(&self, mut look: impl FnMut(&Loaded)) {
        let manager = &self.shared.manager;
        for (name, states) in &manager.all_states() {
            for state in states {
                if let Ok(handle) = manager.handle(name, Some(state.version)) {
                    look(&handle);
                }
            }
        }
    }

    /// Makes [`Models::is_ready`] say no from now on. Requests are still answered.
    pub fn begin_shutdown(&self) {
        self.shared.is_closing.store(true, Ordering::Relaxed);
    }

    /// Unloads everything; versions that requests hold go when those are answered. Blocks until all are gone, and says
    /// so, or until the deadline.
    pub fn shutdown(&self, deadline: Instant) -> bool {
        self.begin_shutdown();
        self.shared.manager.shutdown(deadline)
    }

    fn find(&self, spec: &ModelSpec) -> Result<Arc<dyn Target>, Error> {
        let name = spec.name.as_str();
        let number = match &spec.version {
            VersionChoice::Latest => None,
            VersionChoice::Number(number) => Some(*number),
            VersionChoice::Label(label) => Some(self.labelled(name, label)?),
        };
        let not_found = |text| Error::client(Code::NotFound, text);
        let version = match number {
            None => None,
            Some(number) => Some(Version::from_i64(number).ok_or_else(|| {
                not_found(format!("Servable not found for request: Specific({name}, {number})"))
            })?),
        };
        let handle = self.shared.manager.handle(name, version);
        Ok(Arc::new(Held(handle.map_err(|error| not_found(error.to_string()))?)))
    }

    fn labelled(&self, name: &str, label: &str) -> Result<i64, Error> {
        let book = self.shared.book();
        let number = book.configs.get(name).and_then(|config| config.labels.get(label));
        let unknown = || Error::invalid(format!("Unrecognized servable version label: {label}"));
        number.copied().ok_or_else(unknown)
    }

    fn status_of(&self, name: &ModelName, states: &[VersionState]) -> ModelStatus {
        let book = self.shared.book();
        let labels = book.configs.get(name).map(|config| &config.labels);
        let labels = labels.into_iter().flatten().filter_map(|(label, &number)| {
            Some((label.clone(), salver_predict::Version(u64::try_from(number).ok()?)))
        });
        let name_out = salver_predict::ModelName::new(name).expect("names in the life-cycle are not empty");
        ModelStatus {
            name: name_out,
            versions: states.iter().map(report::version_status).collect(),
            labels: labels.collect(),
            source_error: self.shared.source_errors().get(name).cloned(),
        }
    }
}

impl Predictor for Servables {
    fn resolve<'a>(&'a self, spec: &'a ModelSpec) -> BoxFuture<'a, Result<Arc<dyn Target>, Error>> {
        Box::pin(std::future::ready(self.find(spec)))
    }
}

impl Models for Servables {
    fn list(&self) -> Vec<ModelStatus> {
        let mut states = self.shared.manager.all_states();
        for name in self.shared.book().configs.keys() {
            states.entry(name.clone()).or_default();
        }
        states.iter().map(|(name, states)| self.status_of(name, states)).collect()
    }

    fn status(&self, name: &str) -> Option<ModelStatus> {
        let name = ModelName::new(name).ok()?;
        let states = self.shared.manager.states(&name);
        let is_known = !states.is_empty() || self.shared.book().configs.contains_key(&name);
        is_known.then(|| self.status_of(&name, &states))
    }

    fn is_ready(&self) -> bool {
        let is_available = |name: &ModelName| !self.shared.manager.available(name).is_empty();
        !self.shared.is_closing.load(Ordering::Relaxed) && self.shared.book().wanted().all(is_available)
    }

    fn reload(&self, models: Vec<ModelConfig>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.reload_and_wait(models))
    }

    fn load<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.load_and_wait(name))
    }

    fn unload<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.unload_and_wait(name))
    }
}

impl Shared {
    fn lock_changes(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self) -> std::sync::RwLockReadGuard<'_, Book> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_book<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        change(&mut self.book.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn source_errors(&self) -> MutexGuard<'_, HashMap<ModelName, String>> {
        self.source_errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the watcher what is wanted now.
    fn watch(&self) {
        let watched = self.book().watched();
        if let Some(watcher) = self.watcher.get() {
            watcher.watch(watched);
        }
    }

    fn strictness(&self) -> Strictness {
        Strictness {
            is_strict: self.config.is_strict,
            new_labels_for_unavailable: self.config.labels_for_unavailable,
        }
    }

    /// What is wrong with the folders of these models.
    fn errors_of(&self, names: &BTreeSet<ModelName>) -> BTreeMap<ModelName, String> {
        let errors = self.source_errors();
        names.iter().filter_map(|name| Some((name.clone(), errors.get(name)?.clone()))).collect()
    }
}
