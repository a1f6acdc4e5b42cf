//! A set of servables whose models, folders and warm-up requests the test makes up.

#![expect(clippy::unwrap_used, unreachable_pub, reason = "this is part of a test")]

use std::collections::HashMap;
use std::future::Future;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use salver_batch::Policy;
use salver_engine::{Error as EngineError, ErrorKind, Model, Registry};
use salver_lifecycle::{Aspired, AspiredVersion, ModelName, Phase, SystemClock, Version};
use salver_predict::{
    Answer, Asker, BoxFuture, Call, Error, ModelConfig, ModelSpec, Models, Predictor, State, Target,
    VersionChoice, VersionPolicy,
};
use salver_servable::{
    Config, KnownCosts, LoaderConfig, ServableLoader, Servables, WarmupRequest, WarmupSource, WatchedModel,
    Watcher,
};
use salver_tensor::{Shape, Tensor};
use salver_testkit::puppet::{FnModel, Puppet, PuppetEngine, half_plus_two_signature};

pub const SOON: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "a test says when it gives up")]
pub fn soon() -> Instant {
    Instant::now() + SOON
}

type Load = Arc<dyn Fn() -> Result<Arc<dyn Model>, EngineError> + Send + Sync>;

/// What a world is made of.
pub struct Plan {
    pub lanes: salver_batch::Config,
    pub set: Config,
    pub warmup: Option<Result<Vec<WarmupRequest>, String>>,
    pub n_warmup_iterations: usize,
    pub trial_budget: Duration,
    pub costs: Option<KnownCosts>,
}

pub struct World {
    pub servables: Servables,
    dir: tempfile::TempDir,
    models: Arc<Mutex<HashMap<PathBuf, Load>>>,
    watched: Arc<Watched>,
    states: Arc<States>,
}

#[derive(Default)]
struct Watched(Mutex<Vec<WatchedModel>>);

impl Watcher for Watched {
    fn watch(&self, models: Vec<WatchedModel>) {
        *self.0.lock().unwrap() = models;
    }
}

#[derive(Default)]
struct States {
    latest: Mutex<HashMap<(String, u64), Phase>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Requests(Result<Vec<WarmupRequest>, String>);

impl WarmupSource for Requests {
    fn requests(&self, _version_path: &Path) -> Result<Vec<WarmupRequest>, String> {
        self.0.clone()
    }
}

/// One lane, and nothing runs on the calling thread.
pub fn lanes() -> salver_batch::Config {
    salver_batch::Config {
        n_lanes: NonZeroUsize::MIN,
        policy: Policy { inline_below: Duration::ZERO, ..Policy::default() },
        ..salver_batch::Config::default()
    }
}

impl World {
    pub fn new() -> World {
        World::with(|_| ())
    }

    pub fn with(edit: impl FnOnce(&mut Plan)) -> World {
        let lifecycle = salver_lifecycle::Config {
            retry_interval: Duration::from_millis(1),
            ..salver_lifecycle::Config::default()
        };
        let set = Config { lifecycle, ..Config::default() };
        let mut plan = Plan {
            lanes: lanes(),
            set,
            warmup: None,
            n_warmup_iterations: 1,
            trial_budget: SOON,
            costs: None,
        };
        edit(&mut plan);

        let models: Arc<Mutex<HashMap<PathBuf, Load>>> = Arc::default();
        let loads = Arc::clone(&models);
        let engine = PuppetEngine::new(move |source| {
            let load = loads.lock().unwrap().get(source.path.parent().unwrap()).cloned();
            load.ok_or_else(|| EngineError::new(ErrorKind::Internal, "no such model"))?()
        });
        let mut loader = LoaderConfig::new(Registry::new(vec![Arc::new(engine)]), plan.lanes);
        loader.warmup = plan.warmup.map(|requests| Arc::new(Requests(requests)) as Arc<dyn WarmupSource>);
        loader.trial_budget = plan.trial_budget;
        let (settings, costs) = (loader.settings, plan.costs);
        loader.settings = Arc::new(move |name, place| {
            Ok(salver_servable::ModelSettings { costs: costs.clone(), ..settings(name, place)? })
        });
        loader.n_warmup_iterations = NonZeroUsize::new(plan.n_warmup_iterations).unwrap();

        let states: Arc<States> = Arc::default();
        let seen = Arc::clone(&states);
        let observer = move |id: &salver_lifecycle::Id, state: &salver_lifecycle::State| {
            seen.latest.lock().unwrap().insert((id.name.to_string(), id.version.get()), state.phase);
            seen.changed.notify_all();
        };
        let clock = Arc::new(SystemClock);
        let loader = ServableLoader::new(loader, clock.clone());
        let servables = Servables::new(loader, plan.set, clock, Box::new(observer)).unwrap();
        let watched: Arc<Watched> = Arc::default();
        servables.connect(watched.clone());
        World { servables, dir: tempfile::tempdir().unwrap(), models, watched, states }
    }

    pub fn name(&self, name: &str) -> ModelName {
        ModelName::new(name).unwrap()
    }

    fn path(&self, name: &str, version: u64) -> PathBuf {
        self.dir.path().join(name).join(version.to_string())
    }

    pub fn put_file(&self, name: &str, version: u64, file: &str) {
        let path = self.path(name, version);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(file), b"").unwrap();
    }

    pub fn put_with<F>(&self, name: &str, version: u64, load: F)
    where
        F: Fn() -> Result<Arc<dyn Model>, EngineError> + Send + Sync + 'static,
    {
        self.put_file(name, version, "model.onnx");
        self.models.lock().unwrap().insert(self.path(name, version), Arc::new(load));
    }

    pub fn put(&self, name: &str, version: u64, model: Arc<dyn Model>) {
        self.put_with(name, version, move || Ok(Arc::clone(&model)));
    }

    pub fn put_broken(&self, name: &str, version: u64) {
        self.put_with(name, version, || {
            Err(EngineError::new(ErrorKind::InvalidModel, "broken on purpose").at("node 'n'"))
        });
    }

    pub fn apply(&self, names: &[&str]) {
        self.servables.apply(names.iter().map(|name| model_config(name)).collect()).unwrap();
    }

    pub fn aspire(&self, name: &str, versions: &[u64]) {
        let version = |&number: &u64| AspiredVersion {
            version: Version::new(number).unwrap(),
            source: self.path(name, number),
            fingerprint: 0,
        };
        let versions = versions.iter().map(version).collect();
        self.servables.aspire(Aspired { name: self.name(name), versions });
    }

    /// Waits until this was the latest news of the version, and is true.
    pub fn wait(&self, name: &str, version: u64, phase: Phase) {
        let key = (name.to_owned(), version);
        let latest = self.states.latest.lock().unwrap();
        let is_other = |latest: &mut HashMap<_, Phase>| latest.get(&key) != Some(&phase);
        let (latest, timeout) = self.states.changed.wait_timeout_while(latest, SOON, is_other).unwrap();
        assert!(!timeout.timed_out(), "{name} {version} is {:?}, not {phase}", latest.get(&key));
        drop(latest);
        // The news comes while the change is made, under the manager's lock; this returns when that is over.
        self.servables.list();
    }

    /// Plays the warm-up of a puppet until its version is available.
    pub fn come_up(&self, name: &str, version: u64, puppet: &Puppet) {
        let key = (name.to_owned(), version);
        while self.states.latest.lock().unwrap().get(&key) != Some(&Phase::Available) {
            if let Some(run) = puppet.try_next_run(Duration::from_millis(5)) {
                run.echo();
            }
        }
    }

    pub fn state(&self, name: &str, version: u64) -> Option<State> {
        let status = self.servables.status(name)?;
        Some(status.versions.iter().find(|status| status.version.0 == version)?.state)
    }

    pub fn watched(&self) -> Vec<String> {
        self.watched.0.lock().unwrap().iter().map(|model| model.name.to_string()).collect()
    }

    /// Rows of each run that the only version makes of 16 rows that come as one request.
    pub fn joined(&self) -> usize {
        let n_runs = || self.servables.snapshot()[0].servable.clone().unwrap().lanes.n_lane_runs;
        let target = self.resolve("m", VersionChoice::Latest).unwrap();
        let before = n_runs();
        block_on(call(&target, &[1.0; 16])).unwrap();
        16 / usize::try_from(n_runs() - before).unwrap()
    }

    pub fn resolve(&self, name: &str, version: VersionChoice) -> Result<Arc<dyn Target>, Error> {
        let name = salver_predict::ModelName::new(name).unwrap();
        block_on(self.servables.resolve(&ModelSpec { name, version }))
    }
}

pub fn model_config(name: &str) -> ModelConfig {
    ModelConfig {
        name: name.into(),
        base_path: format!("/models/{name}"),
        platform: String::new(),
        policy: VersionPolicy::Latest(1),
        labels: Default::default(),
    }
}

/// A model whose runs hang on anything but what is made up for warm-up (less than 1) until it is abandoned, and that says when one begins.
pub fn hanging() -> (Arc<FnModel>, Receiver<()>) {
    let gate: Arc<(Mutex<bool>, Condvar)> = Arc::default();
    let (began, begun) = sync_channel(1);
    let held = Arc::clone(&gate);
    let model = FnModel::new(half_plus_two_signature(), move |inputs| {
        if inputs[0].to_slice::<f32>().unwrap().iter().all(|&x| x < 1.0) {
            return Ok(inputs.to_vec());
        }
        began.send(()).unwrap();
        drop(held.1.wait_while(held.0.lock().unwrap(), |is_open| !*is_open).unwrap());
        Err(EngineError::new(ErrorKind::Unavailable, "the engine's process ended"))
    });
    let model = model.abandoned_by(move || {
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
    });
    (model, begun)
}

pub fn vector(elements: &[f32]) -> Tensor {
    Tensor::from_vec(Shape::vector(elements.len()).unwrap(), elements.to_vec()).unwrap()
}

pub fn call(target: &Arc<dyn Target>, elements: &[f32]) -> BoxFuture<'static, Result<Answer, Error>> {
    let signature = Arc::clone(target.signature("").unwrap());
    let call = Call {
        signature,
        inputs: vec![vector(elements)],
        outputs: vec![0],
        deadline: None,
        asker: Asker::default(),
    };
    Arc::clone(target).predict(call)
}

/// Polls once, which is when a call is submitted.
pub fn is_pending<T>(future: &mut BoxFuture<'_, T>) -> bool {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(SOON, future).await.expect("an answer in time") })
}
