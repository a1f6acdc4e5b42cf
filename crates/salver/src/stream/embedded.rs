//! The model in this process: loaded, watched and swapped as `salver serve` does it, with other numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use salver_batch::Verdict;
use salver_engine::Engine;
use salver_lifecycle::Clock;
use salver_predict::{
    ModelConfig, ModelName, ModelSpec, ModelStatus, Models, Predictor, State, VersionChoice, VersionPolicy,
    VersionStatus,
};
use salver_servable::Servables;
use tracing::{info, warn};

use super::model::block_on;
use crate::announce::Changes;
use crate::batching::Mode;
use crate::config::{self, Environment};
use crate::discover::{self, Layout};
use crate::flags::{LogFormat, ServeArgs};
use crate::loading::{Engines, Loading};
use crate::models::FolderWatcher;
use crate::runtime::RuntimeDir;
use crate::{parts, reload, serve, worker};

/// How models are loaded and run here.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The models: name, path, and the versions that are wanted if it is not the highest.
    pub(crate) models: Vec<Wanted>,
    pub(crate) engine: Option<String>,
    pub(crate) precision: Option<String>,
    pub(crate) isolate: Option<bool>,
    /// Threads that one run uses.
    pub(crate) threads: Option<NonZeroUsize>,
    /// Runs at a time.
    pub(crate) lanes: Option<NonZeroUsize>,
    pub(crate) tags: Option<String>,
    /// Settings of models, as `salver serve --config` takes them.
    pub(crate) config: Option<PathBuf>,
    pub(crate) dir: RuntimeDir,
    /// Seconds between two looks for versions; 0 looks once.
    pub(crate) poll_seconds: u64,
    /// Threads that call models.
    pub(crate) workers: NonZeroUsize,
    /// Calls that may wait for a lane.
    pub(crate) calls: NonZeroUsize,
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: String,
}

/// A model that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) name: ModelName,
    pub(crate) path: PathBuf,
    /// These versions; the highest if there are none.
    pub(crate) versions: Vec<i64>,
}

/// Flags of `salver serve` as they are when nobody says anything.
#[derive(Debug, Parser)]
struct Defaults {
    #[command(flatten)]
    serve: ServeArgs,
}

/// Models that are being loaded, or are there.
pub(crate) struct Embedded {
    pub(crate) servables: Servables,
    pub(crate) engines: Vec<Arc<dyn Engine>>,
    changes: Arc<Changes>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("servables", &self.servables).finish_non_exhaustive()
    }
}

/// The name that a path gives its model.
///
/// # Errors
/// When there is nothing at the path, or more than one model.
pub(crate) fn name_of(path: &Path) -> anyhow::Result<ModelName> {
    let name = match discover::discover(path) {
        Ok((found, _)) => match found.as_slice() {
            [only] => only.name.clone(),
            several => {
                let paths: Vec<_> = several.iter().map(|model| model.path.display().to_string()).collect();
                bail!("{}: a folder of models; name one of them: {}", path.display(), paths.join(", "))
            }
        },
        // A folder that its first version has yet to come into.
        Err(error) => match path.is_dir().then(|| path.canonicalize()) {
            Some(Ok(path)) => path
                .file_name()
                .map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned()),
            _ => return Err(error),
        },
    };
    ModelName::new(&name).context("a model without a name")
}

impl Embedded {
    /// Begins to load the models and to watch their folders.
    ///
    /// # Errors
    /// When settings contradict each other or a thread cannot be started. What comes of the models,
    /// [`Embedded::wait`] tells.
    pub(crate) fn start(settings: &Settings, clock: &Arc<dyn Clock>) -> anyhow::Result<Embedded> {
        let config = config::resolve(&serve_args(settings), &Environment::default())?;
        for problem in parts::unusable(&config.runtimes) {
            warn!("models that ask for no engine by name do without this one: {problem}");
        }
        let here = parts::engines(&config.runtimes);
        let apart = worker::apart(&here, &config.runtimes, config.log_format, &config.log_level);
        let engines = Engines { here, apart };
        let changes = Arc::new(Changes::default());
        let loading = Arc::new(Loading::new(&config, engines.clone()));
        let servables = serve::servables(&config, &loading, &engines, clock, &changes)?;
        let watcher = FolderWatcher::start(config.poll, &servables)?;
        servables.connect(Arc::new(watcher));
        let wanted = settings.models.iter().map(model_config).collect::<anyhow::Result<Vec<_>>>()?;
        servables.apply(wanted).map_err(|error| anyhow::anyhow!("{error}"))?;
        let (watched, mode) = (servables.clone(), config.poll);
        std::thread::Builder::new()
            .name("settings".into())
            .spawn(move || reload::watch(&loading, &watched, mode, &Changes::default()))?;
        Ok(Embedded {
            servables,
            engines: engines.here.engines().to_vec(),
            changes,
            clock: Arc::clone(clock),
        })
    }

    /// Waits until all that is wanted answers. A version that is named and not in its folder may come for so long; one that is
    /// being loaded takes as long as it takes. `is_called_off` is asked every moment.
    ///
    /// # Errors
    /// When a model cannot be loaded, which stays so until somebody changes its folder, or a version does not come.
    pub(crate) fn wait(
        &self,
        wanted: &[ModelSpec],
        absent_for: Duration,
        is_called_off: &dyn Fn() -> bool,
    ) -> anyhow::Result<()> {
        let started = self.clock.now();
        let (mut told, mut absent_since) = (String::new(), None);
        loop {
            let models = self.servables.list();
            let failed = || wanted.iter().find_map(|spec| failed(spec, &models));
            if let Some(problem) = models.iter().find_map(problem).or_else(failed) {
                bail!("{problem}");
            }
            let missing: Vec<_> = wanted.iter().filter(|spec| !self.answers(spec)).collect();
            if missing.is_empty() || is_called_off() {
                break;
            }
            let now = self.clock.now();
            let absent: Vec<_> = missing.iter().filter(|spec| is_absent(spec, &models)).collect();
            if absent.is_empty() {
                absent_since = None;
            } else if now.saturating_duration_since(*absent_since.get_or_insert(now)) >= absent_for {
                let text: Vec<_> = absent.iter().map(|spec| lacks(spec, &models)).collect();
                bail!("{}, for {absent_for:?} now", text.join(", "));
            }
            let text: Vec<_> = missing.iter().map(|spec| lacks(spec, &models)).collect();
            let text = text.join(", ");
            if text != told && now.saturating_duration_since(started) > Duration::from_secs(1) {
                info!("waiting for {text}");
                told = text;
            }
            self.changes.wait(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Whether what is meant answers now.
    fn answers(&self, spec: &ModelSpec) -> bool {
        matches!(block_on(self.servables.resolve(spec)), Ok(Ok(_)))
    }

    /// Whether rows of this signature may be joined to one call; why not, if not.
    pub(crate) fn joins(&self, model: &ModelName, signature: &str) -> Result<(), String> {
        let mut verdict = Verdict::Independent;
        self.servables.each_loaded(|loaded| {
            if loaded.id().name == *model {
                let name = if signature.is_empty() { salver_predict::DEFAULT_SIGNATURE } else { signature };
                if loaded.verdict(name) == Verdict::Never {
                    verdict = Verdict::Never;
                }
            }
        });
        match verdict {
            Verdict::Never => Err(format!(
                "the signature of the model '{model}' has no open first dimension, or rows are answered otherwise together \
                 than alone"
            )),
            _ => Ok(()),
        }
    }

    /// The versions that are there, for people.
    pub(crate) fn describe(&self) -> String {
        let mut texts = Vec::new();
        self.servables.each_loaded(|loaded| {
            let (id, info) = (loaded.id(), loaded.info());
            texts.push(format!("{} version {} in this process ({})", id.name, id.version, info.engine));
        });
        texts.sort();
        texts.join(", ")
    }

    /// Unloads everything by the deadline.
    pub(crate) fn shutdown(&self, deadline: Instant) {
        self.servables.begin_shutdown();
        if !self.servables.shutdown(deadline) {
            warn!("the grace period is over: models were still running");
        }
    }
}

/// Why a model will not come up, if it will not.
fn problem(model: &ModelStatus) -> Option<String> {
    let has_ended =
        !model.versions.is_empty() && model.versions.iter().all(|version| version.state == State::End);
    let error = model.versions.iter().find_map(|version| {
        let (_, error) = version.error.as_ref()?;
        Some(format!("the model '{}' version {} does not load: {error}", model.name, version.version))
    });
    error.filter(|_| has_ended)
}

/// Why the version that is named will not come up, if it will not, though others of the model do.
fn failed(spec: &ModelSpec, models: &[ModelStatus]) -> Option<String> {
    let version = status_of(spec, models).filter(|version| version.state == State::End)?;
    let (_, error) = version.error.as_ref()?;
    Some(format!("the model '{}' version {} does not load: {error}", spec.name, version.version))
}

/// Whether a version is named that is neither there nor on its way.
fn is_absent(spec: &ModelSpec, models: &[ModelStatus]) -> bool {
    let is_named = matches!(spec.version, VersionChoice::Number(_));
    is_named && status_of(spec, models).is_none_or(|version| version.state == State::End)
}

/// The state of the version that is named, if its folder has it.
fn status_of<'a>(spec: &ModelSpec, models: &'a [ModelStatus]) -> Option<&'a VersionStatus> {
    let VersionChoice::Number(number) = spec.version else { return None };
    let number = u64::try_from(number).ok()?;
    let model = models.iter().find(|model| model.name == spec.name)?;
    model.versions.iter().find(|version| version.version.0 == number)
}

/// What of a model does not answer yet, and why.
fn lacks(spec: &ModelSpec, models: &[ModelStatus]) -> String {
    let name = &spec.name;
    let model = models.iter().find(|model| model.name == *name);
    let source_error = model.and_then(|model| model.source_error.clone());
    let state = |version: &VersionStatus| format!("version {} {}", version.version, version.state.name());
    if let VersionChoice::Number(number) = spec.version {
        let why = match status_of(spec, models) {
            Some(version) => version.state.name().to_owned(),
            None => source_error.unwrap_or_else(|| "it is not in the model's folder".to_owned()),
        };
        return format!("the model '{name}' version {number} ({why})");
    }
    let versions: Vec<_> = model.iter().flat_map(|model| &model.versions).map(state).collect();
    let why = match (source_error, versions.is_empty()) {
        (Some(error), _) => error,
        (None, true) => "its folder is being looked at".to_owned(),
        (None, false) => versions.join(", "),
    };
    format!("the model '{name}' ({why})")
}

fn model_config(wanted: &Wanted) -> anyhow::Result<ModelConfig> {
    let path = wanted.path.canonicalize().with_context(|| wanted.path.display().to_string())?;
    let has_versions = matches!(discover::layout(&path), Ok(Layout::Versions));
    if !wanted.versions.is_empty() && !has_versions {
        let is_the_one = discover::version_number(&path).and_then(|number| i64::try_from(number).ok());
        if wanted.versions.iter().any(|version| Some(*version) != is_the_one) {
            bail!("{}: no folder of versions, of which one could be chosen", path.display());
        }
    }
    let policy = match wanted.versions.as_slice() {
        [] => VersionPolicy::Latest(1),
        versions => VersionPolicy::Specific(versions.to_vec()),
    };
    Ok(ModelConfig {
        name: wanted.name.to_string(),
        base_path: path.display().to_string(),
        platform: "onnx".to_owned(),
        policy,
        labels: BTreeMap::new(),
    })
}

/// The flags of a server with such models. Requests are not joined: the stream's batches are calls that run at once.
fn serve_args(settings: &Settings) -> ServeArgs {
    let mut args = Defaults::parse_from(["salver"]).serve;
    args.paths = settings.models.iter().map(|model| model.path.clone()).collect();
    args.engine.clone_from(&settings.engine);
    args.precision.clone_from(&settings.precision);
    args.isolate = settings.isolate;
    args.lanes = settings.lanes.map_or(0, NonZeroUsize::get);
    args.tensorflow_intra_op_parallelism =
        settings.threads.map_or(0, |threads| i64::try_from(threads.get()).unwrap_or(i64::MAX));
    if let Some(tags) = &settings.tags {
        args.saved_model_tags.clone_from(tags);
    }
    if let Some(config) = &settings.config {
        args.config = config.display().to_string();
    }
    args.dir = settings.dir.clone();
    args.file_system_poll_wait_seconds = i64::try_from(settings.poll_seconds).unwrap_or(i64::MAX);
    args.worker_threads = settings.workers.get();
    args.batching = Some(Mode::Off);
    args.max_queue = Some(settings.calls.get());
    args.batch_trial_ms = 0;
    args.log_format = settings.log_format;
    args.log_level.clone_from(&settings.log_level);
    args
}

#[cfg(test)]
mod tests {
    use salver_predict::{Code, Version, VersionStatus};

    use super::*;

    fn status(versions: &[(u64, State, Option<&str>)]) -> ModelStatus {
        let version = |&(version, state, error): &(u64, State, Option<&str>)| VersionStatus {
            version: Version(version),
            state,
            error: error.map(|error| (Code::Internal, error.to_owned())),
        };
        ModelStatus {
            name: ModelName::new("m").unwrap(),
            versions: versions.iter().map(version).collect(),
            labels: BTreeMap::new(),
            source_error: None,
        }
    }

    #[test]
    fn a_model_that_failed_is_told_from_one_that_is_coming() {
        let check = |versions: &[(u64, State, Option<&str>)], expected: Option<&str>| {
            assert_eq!(problem(&status(versions)).as_deref(), expected, "{versions:?}");
        };
        check(&[], None);
        check(&[(1, State::Loading, None)], None);
        check(&[(1, State::End, Some("no file"))], Some("the model 'm' version 1 does not load: no file"));
        check(&[(2, State::Start, None), (1, State::End, Some("no file"))], None);
        // Unloaded and not failed: another one will come.
        check(&[(1, State::End, None)], None);
    }

    #[test]
    fn a_version_that_is_named_is_waited_for_beside_others() {
        let spec = |version| ModelSpec { name: ModelName::new("m").unwrap(), version };
        let check = |version: VersionChoice, state: Option<State>, is_gone: bool, expected: &str| {
            let versions: Vec<_> = state.iter().map(|state| (1, *state, None)).collect();
            let models = [status(&[versions.as_slice(), &[(2, State::Available, None)]].concat())];
            let spec = spec(version);
            assert_eq!(failed(&spec, &models), None);
            assert_eq!((is_absent(&spec, &models), lacks(&spec, &models).as_str()), (is_gone, expected));
        };
        let one = || VersionChoice::Number(1);
        check(one(), Some(State::Loading), false, "the model 'm' version 1 (LOADING)");
        check(one(), Some(State::End), true, "the model 'm' version 1 (END)");
        check(one(), None, true, "the model 'm' version 1 (it is not in the model's folder)");
        check(
            VersionChoice::Number(-1),
            None,
            true,
            "the model 'm' version -1 (it is not in the model's folder)",
        );
        check(VersionChoice::Latest, None, false, "the model 'm' (version 2 AVAILABLE)");
        let models = [status(&[(2, State::Available, None), (1, State::End, Some("no file"))])];
        let expected = Some("the model 'm' version 1 does not load: no file");
        assert_eq!(failed(&spec(one()), &models).as_deref(), expected);
        assert_eq!(failed(&spec(VersionChoice::Number(2)), &models), None);
    }

    #[test]
    fn a_path_names_its_model() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("net/3")).unwrap();
        std::fs::create_dir_all(dir.path().join("coming")).unwrap();
        std::fs::write(dir.path().join("net/3/model.onnx"), b"\x08\x08").unwrap();
        std::fs::write(dir.path().join("other.onnx"), b"\x08\x08").unwrap();
        let check = |path: &str, expected: &str| {
            assert_eq!(name_of(&dir.path().join(path)).unwrap().as_str(), expected, "{path}");
        };
        check("net", "net");
        check("net/3", "net");
        check("other.onnx", "other");
        check("coming", "coming");
        let error = format!("{:#}", name_of(&dir.path().join("missing")).unwrap_err());
        assert!(error.contains("No such file"), "{error}");
        let error = format!("{:#}", name_of(dir.path()).unwrap_err());
        assert!(error.contains("name one of them"), "{error}");
    }
}
