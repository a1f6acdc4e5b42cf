use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use salver_batch::LaneSet;
use salver_engine::{
    Choice, ErrorKind as EngineErrorKind, Format, LoadOptions, Model, ModelSource, Registry,
};
use salver_lifecycle::{Cancel, Clock, ErrorKind, Id, LoadError, Loader};
use salver_predict::{ModelId, ModelName, Version};

use crate::loaded::{Counters, Loaded, ServableInfo};
use crate::trial::Trials;
use crate::warmup::{self, WarmupSource};

/// How one version of a model is loaded and run.
#[derive(Debug, Clone)]
pub struct ModelSettings {
    /// The engines that it may get.
    pub registry: Registry,
    /// Which of them it gets.
    pub choice: Choice,
    /// How it is loaded; threads and lanes are those of its lanes.
    pub options: LoadOptions,
    /// How its lanes work.
    pub lanes: salver_batch::Config,
    /// What its runs cost, where that is known from before.
    pub costs: Option<KnownCosts>,
}

/// What runs of one signature cost, as it was measured on such a machine.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownCosts {
    /// The signature's name.
    pub signature: String,
    /// Rows of a run, and how long it takes.
    pub runs: Vec<(usize, Duration)>,
}

/// Says how the model of this name in this version folder (or file) is loaded and run; an error text fails the load.
pub type Settings = Arc<dyn Fn(&str, &Path) -> Result<ModelSettings, String> + Send + Sync>;

/// How models are loaded.
#[derive(Clone)]
pub struct LoaderConfig {
    /// How each version is loaded and run.
    pub settings: Settings,
    /// Where warm-up requests come from; `None` for no warm-up by requests.
    pub warmup: Option<Arc<dyn WarmupSource>>,
    /// How often each warm-up request runs. Default: once.
    pub n_warmup_iterations: NonZeroUsize,
    /// How long batches are tried before a version is available, to know what they cost; zero for not at all. Whether requests may
    /// be joined is found out in any case, by a few runs. Default: 300 ms.
    pub trial_budget: Duration,
}

impl LoaderConfig {
    /// Loads with these engines, lanes that all work alike, and no warm-up requests.
    pub fn new(registry: Registry, lanes: salver_batch::Config) -> LoaderConfig {
        let settings = ModelSettings {
            registry,
            choice: Choice::Auto,
            options: LoadOptions::default(),
            lanes,
            costs: None,
        };
        LoaderConfig {
            settings: Arc::new(move |_, _| Ok(settings.clone())),
            warmup: None,
            n_warmup_iterations: NonZeroUsize::MIN,
            trial_budget: Duration::from_millis(300),
        }
    }
}

impl fmt::Debug for LoaderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoaderConfig").field("warmup", &self.warmup).finish_non_exhaustive()
    }
}

/// Makes a [`Loaded`] model of the path of a version folder or a model file: finds the model by its content, loads it
/// with the engine that its settings choose, starts its lanes and warms it up.
pub struct ServableLoader {
    config: LoaderConfig,
    clock: Arc<dyn Clock>,
}

impl ServableLoader {
    /// A loader by this configuration.
    pub fn new(config: LoaderConfig, clock: Arc<dyn Clock>) -> ServableLoader {
        ServableLoader { config, clock }
    }

    fn start_lanes(&self, config: salver_batch::Config, model: Arc<dyn Model>) -> Result<LaneSet, LoadError> {
        let invalid = |message| LoadError::permanent(ErrorKind::Invalid, message);
        let clock = Arc::clone(&self.clock);
        LaneSet::start(model, config, Arc::new(move || clock.now())).map_err(|error| match error {
            salver_batch::Error::Session(error) => load_error(&error),
            salver_batch::Error::Thread(_) => LoadError::transient(ErrorKind::Exhausted, error.to_string()),
            error => invalid(error.to_string()),
        })
    }

    fn load_model(
        &self,
        path: &Path,
        settings: &ModelSettings,
    ) -> Result<(salver_engine::Loaded, ModelSource), LoadError> {
        let source = ModelSource::find(path).map_err(|error| load_error(&error))?;
        if source.format == Format::SessionBundle {
            let text = "Session Bundle is deprecated and removed.";
            return Err(LoadError::permanent(ErrorKind::Unimplemented, text));
        }
        let loaded = settings.registry.load(&source, &settings.options, &settings.choice);
        Ok((loaded.map_err(|error| load_error(&error))?, source))
    }
}

impl fmt::Debug for ServableLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServableLoader").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Loader for ServableLoader {
    type Source = PathBuf;
    type Servable = Loaded;

    fn load(&self, id: &Id, path: &PathBuf, cancel: &Cancel) -> Result<Loaded, LoadError> {
        let started = self.clock.now();
        let mut settings = (self.config.settings)(&id.name, path)
            .map_err(|message| LoadError::permanent(ErrorKind::Invalid, message))?;
        // Engines make room for lanes and threads while they load.
        let invalid =
            |error: salver_batch::Error| LoadError::permanent(ErrorKind::Invalid, error.to_string());
        settings.lanes.check().map_err(invalid)?;
        settings.options.threads = settings.lanes.threads;
        settings.options.n_lanes = settings.lanes.n_lanes;
        let (loaded, source) = self.load_model(path, &settings)?;
        let salver_engine::Loaded { engine, model, notes } = loaded;
        for note in &notes {
            tracing::info!(%id, engine, "{note}");
        }
        let (name, precision) = (id.name.as_str(), settings.options.precision);
        tracing::info!(model = name, version = %id.version, engine, %precision, "loaded");
        for (name, reason) in model.refused() {
            tracing::warn!(%id, signature = %name, "cannot be run: {reason}");
        }
        if cancel.is_cancelled() {
            return Err(LoadError::cancelled());
        }
        let lanes = self.start_lanes(settings.lanes, Arc::clone(&model))?;
        let requests = match &self.config.warmup {
            Some(warmup) => warmup::requests(&**warmup, path)?,
            None => Vec::new(),
        };
        warmup::replay(&lanes, &*model, &requests, self.config.n_warmup_iterations, cancel)?;
        if requests.is_empty() {
            warmup::run_zeros(&lanes, &*model, id, cancel);
        }
        let budget = self.config.trial_budget;
        let trial = Trials { lanes: &lanes, model: &*model, id, requests: &requests, budget, cancel };
        trial.run(settings.costs.as_ref(), &*self.clock);
        if cancel.is_cancelled() {
            return Err(LoadError::cancelled());
        }
        let loaded_at = self.clock.now();
        let info = ServableInfo {
            engine,
            place: path.clone(),
            path: source.path,
            format: source.format,
            precision: settings.options.precision,
            n_bytes: model.n_bytes(),
            loaded_at,
            load_time: loaded_at.saturating_duration_since(started),
        };
        let counters = model.signatures().iter().map(|_| Counters::default()).collect();
        Ok(Loaded { id: model_id(id), lanes, model, info, counters })
    }
}

/// The same identity as fronts know it.
pub(crate) fn model_id(id: &Id) -> ModelId {
    let name = ModelName::new(&id.name).expect("names in the life-cycle are not empty");
    ModelId { name, version: Version(id.version.get()) }
}

fn load_error(error: &salver_engine::Error) -> LoadError {
    let kind = match error.kind() {
        EngineErrorKind::NotFound => ErrorKind::NotFound,
        EngineErrorKind::Io | EngineErrorKind::Unavailable => ErrorKind::Unavailable,
        EngineErrorKind::InvalidModel => ErrorKind::Invalid,
        EngineErrorKind::Unsupported => ErrorKind::Unimplemented,
        EngineErrorKind::ResourceExhausted => ErrorKind::Exhausted,
        _ => ErrorKind::Internal,
    };
    LoadError { kind, message: error.to_string(), retry: error.may_pass() }
}
