use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use salver_batch::LaneSet;
use salver_engine::{ErrorKind as EngineErrorKind, Format, LoadOptions, Model, ModelSource, Registry};
use salver_lifecycle::{Cancel, Clock, ErrorKind, Id, LoadError, Loader};
use salver_predict::{ModelId, ModelName, Version};

use crate::loaded::{Counters, Loaded, ServableInfo};
use crate::warmup::{self, WarmupSource};

/// Says how the lanes of the model in this version folder (or file) work; an error text fails the load.
pub type LaneConfig = Arc<dyn Fn(&Path) -> Result<salver_batch::Config, String> + Send + Sync>;

/// How models are loaded.
#[derive(Clone)]
pub struct LoaderConfig {
    /// The engines there are.
    pub registry: Registry,
    /// How models are to be loaded.
    pub options: LoadOptions,
    /// How the lanes of a model work.
    pub lanes: LaneConfig,
    /// Where warm-up requests come from; `None` for no warm-up by requests.
    pub warmup: Option<Arc<dyn WarmupSource>>,
    /// How often each warm-up request runs. Default: once.
    pub n_warmup_iterations: NonZeroUsize,
}

impl LoaderConfig {
    /// Loads with these engines, lanes that all work alike, and no warm-up requests.
    pub fn new(registry: Registry, lanes: salver_batch::Config) -> LoaderConfig {
        LoaderConfig {
            registry,
            options: LoadOptions::default(),
            lanes: Arc::new(move |_| Ok(lanes.clone())),
            warmup: None,
            n_warmup_iterations: NonZeroUsize::MIN,
        }
    }
}

impl fmt::Debug for LoaderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoaderConfig").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// Makes a [`Loaded`] model of the path of a version folder or a model file: finds the model by its content, loads it
/// with the first engine that can, starts its lanes and warms it up.
pub struct ServableLoader {
    config: LoaderConfig,
    clock: Arc<dyn Clock>,
}

impl ServableLoader {
    /// A loader by this configuration.
    pub fn new(config: LoaderConfig, clock: Arc<dyn Clock>) -> ServableLoader {
        ServableLoader { config, clock }
    }

    fn start_lanes(&self, path: &Path, model: Arc<dyn Model>) -> Result<LaneSet, LoadError> {
        let invalid = |message| LoadError::permanent(ErrorKind::Invalid, message);
        let config = (self.config.lanes)(path).map_err(invalid)?;
        let clock = Arc::clone(&self.clock);
        LaneSet::start(model, config, Arc::new(move || clock.now())).map_err(|error| match error {
            salver_batch::Error::Session(error) => load_error(&error),
            salver_batch::Error::Thread(_) => LoadError::transient(ErrorKind::Exhausted, error.to_string()),
            error => invalid(error.to_string()),
        })
    }

    fn load_model(&self, path: &Path) -> Result<(Arc<dyn Model>, ModelSource, &'static str), LoadError> {
        let source = ModelSource::find(path).map_err(|error| load_error(&error))?;
        if source.format == Format::SessionBundle {
            let text = "Session Bundle is deprecated and removed.";
            return Err(LoadError::permanent(ErrorKind::Unimplemented, text));
        }
        let registry = &self.config.registry;
        let model = registry.load(&source, &self.config.options).map_err(|error| load_error(&error))?;
        let engine = registry.engines().iter().find(|engine| engine.supports(source.format));
        Ok((model, source, engine.map_or("", |engine| engine.name())))
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
        let (model, source, engine) = self.load_model(path)?;
        if cancel.is_cancelled() {
            return Err(LoadError::cancelled());
        }
        let lanes = self.start_lanes(path, Arc::clone(&model))?;
        let requests = match &self.config.warmup {
            Some(warmup) => warmup::requests(&**warmup, path)?,
            None => Vec::new(),
        };
        warmup::replay(&lanes, &*model, &requests, self.config.n_warmup_iterations, cancel)?;
        // Of the formats there are, this one cannot hold state that a run would change.
        if requests.is_empty() && source.format == Format::Onnx {
            warmup::run_zeros(&lanes, &*model, id, cancel);
        }
        let loaded_at = self.clock.now();
        let info = ServableInfo {
            engine,
            path: source.path,
            format: source.format,
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
        EngineErrorKind::Io => ErrorKind::Unavailable,
        EngineErrorKind::InvalidModel => ErrorKind::Invalid,
        EngineErrorKind::Unsupported => ErrorKind::Unimplemented,
        EngineErrorKind::ResourceExhausted => ErrorKind::Exhausted,
        _ => ErrorKind::Internal,
    };
    LoadError { kind, message: error.to_string(), retry: error.may_pass() }
}
