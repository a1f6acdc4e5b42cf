//! Puts the rooms together and runs them until a signal comes.

use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use salver_engine::{Engine, Registry};
use salver_lifecycle::{Clock, Phase, SystemClock};
use salver_predict::{ModelConfig, Models, Predictor};
use salver_servable::{LoaderConfig, ServableLoader, Servables};
use salver_server::Server;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::announce::{self, Changes};
use crate::config::Config;
use crate::loading::{Engines, Loading};
use crate::metrics::ModelMetrics;
use crate::models::{self, FolderWatcher};
use crate::parts;
use crate::reload;
use crate::telemetry::ProcessMetrics;
use crate::warmup::RecordedPredictions;
use crate::worker;

/// The largest warm-up record, and the most that its tensors may take.
const MAX_WARMUP_BYTES: usize = 1 << 30;

/// Serves until SIGTERM or SIGINT, then drains. Blocks.
///
/// # Errors
/// Why the server does not come up.
pub(crate) fn serve(config: &Config) -> anyhow::Result<()> {
    for note in &config.notes {
        warn!("{note}");
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for problem in parts::unusable(&config.runtimes) {
        warn!("models that ask for no engine by name do without this one: {problem}");
    }
    let here = parts::engines(&config.runtimes);
    let apart = worker::apart(&here, &config.runtimes, config.log_format, &config.log_level);
    let engines = Engines { here, apart };
    let changes = Arc::new(Changes::default());
    let loading = Arc::new(Loading::new(config, engines.clone()));
    let servables = servables(config, &loading, &engines, &clock, &changes)?;
    let registry = metrics(&servables)?;

    let server = Server::bind(
        config.server.clone(),
        Arc::new(servables.clone()) as Arc<dyn Predictor>,
        Arc::new(servables.clone()) as Arc<dyn Models>,
        &registry,
    )?;
    let server = Arc::new(server);
    log_addresses(&server);

    let wanted = models::wanted(&config.models)?;
    for name in
        config.files.config.models.keys().filter(|name| !wanted.iter().any(|model| model.name == **name))
    {
        warn!("--config has settings for a model '{name}', which is not among the models now");
    }
    servables.connect(Arc::new(FolderWatcher::start(config.poll, &servables)?));
    servables.apply(wanted.clone()).map_err(|error| anyhow::anyhow!("{error}"))?;
    announce::found(&wanted, server.addresses());
    start_side_threads(config, wanted, &servables, &changes, &server)?;
    let asked = start_reload(config, &loading, &servables)?;

    let workers = start_workers(config, &engines.here, &server)?;
    let deadline = run_until_signal(config, &servables, &server, &clock, &asked)?;
    if !workers.end_by(deadline, &*clock) {
        warn!("the grace period is over: a worker was still running a model");
    }
    info!("done");
    // A run that does not end must not keep the process: what is left goes with it.
    std::process::exit(0);
}

/// The worker threads, of which all that matters later is when they have ended.
struct Workers {
    /// Says nothing; it closes when the last worker has dropped its end.
    ended: Receiver<()>,
}

impl Workers {
    /// Waits until every worker has ended, and says so, or until the deadline.
    fn end_by(&self, deadline: Instant, clock: &dyn Clock) -> bool {
        let left = deadline.saturating_duration_since(clock.now());
        matches!(self.ended.recv_timeout(left), Err(RecvTimeoutError::Disconnected))
    }
}

/// Models that are loaded and run as `config` says; none yet.
///
/// # Errors
/// When a thread cannot be started.
pub(crate) fn servables(
    config: &Config,
    loading: &Arc<Loading>,
    engines: &Engines,
    clock: &Arc<dyn Clock>,
    changes: &Arc<Changes>,
) -> anyhow::Result<Servables> {
    let mut loader = LoaderConfig::new(engines.here.clone(), config.lanes.clone());
    let loading = Arc::clone(loading);
    loader.trial_budget = config.batch_trial;
    loader.settings =
        Arc::new(move |name, path| loading.of(name, path).map_err(|error| format!("{error:#}")));
    if let Some(n_iterations) = config.warmup {
        loader.warmup = Some(Arc::new(RecordedPredictions { max_bytes: MAX_WARMUP_BYTES }));
        loader.n_warmup_iterations = n_iterations;
    }
    let settings = salver_servable::Config {
        lifecycle: config.lifecycle.clone(),
        is_strict: config.strict,
        labels_for_unavailable: config.allow_labels_for_unavailable,
        ..salver_servable::Config::default()
    };
    let changes = Arc::clone(changes);
    let observer = Box::new(move |id: &salver_lifecycle::Id, state: &salver_lifecycle::State| {
        match (&state.phase, &state.error) {
            (Phase::End, Some(error)) => {
                error!(model = id.name.as_str(), version = %id.version, "does not load: {error}")
            }
            (phase, _) => info!(model = id.name.as_str(), version = %id.version, "{phase}"),
        }
        changes.notify();
    });
    let loader = ServableLoader::new(loader, Arc::clone(clock));
    Ok(Servables::new(loader, settings, Arc::clone(clock), observer)?)
}

/// What the process and its models say of themselves.
///
/// # Errors
/// Never in practice: names are used once.
pub(crate) fn metrics(servables: &Servables) -> anyhow::Result<prometheus::Registry> {
    let registry = prometheus::Registry::new();
    registry.register(Box::new(ProcessMetrics::new(seconds_since_1970())?))?;
    registry.register(Box::new(ModelMetrics::new(servables.clone())))?;
    Ok(registry)
}

#[expect(clippy::disallowed_methods, reason = "the start of the process is a moment in time")]
pub(crate) fn seconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The lines that log scrapers of TensorFlow Serving look for.
fn log_addresses(server: &Server) {
    if let Some(grpc) = server.addresses().grpc {
        info!("Running gRPC ModelServer at {grpc} ...");
    }
    if let Some(rest) = server.addresses().rest {
        info!("Exporting HTTP/REST API at:localhost:{} ...", rest.port());
    }
}

/// Threads that end with the process.
fn start_side_threads(
    config: &Config,
    wanted: Vec<ModelConfig>,
    servables: &Servables,
    changes: &Arc<Changes>,
    server: &Arc<Server>,
) -> anyhow::Result<()> {
    let (waiting, changes, addresses) = (servables.clone(), Arc::clone(changes), server.addresses().clone());
    let is_tls = config.server.rest_tls.is_some();
    std::thread::Builder::new()
        .name("announce".into())
        .spawn(move || announce::outcome(&waiting, &changes, &addresses, is_tls))?;
    if let Some(interval) = models::refresh_interval(&config.models, config.poll) {
        let (models, servables) = (config.models.clone(), servables.clone());
        std::thread::Builder::new()
            .name("refresh".into())
            .spawn(move || models::refresh(&models, wanted, &servables, interval))?;
    }
    Ok(())
}

/// The thread that looks at settings again; it does so at once when it is asked to.
fn start_reload(
    config: &Config,
    loading: &Arc<Loading>,
    servables: &Servables,
) -> anyhow::Result<Arc<Changes>> {
    let asked = Arc::new(Changes::default());
    let (loading, servables, mode) = (Arc::clone(loading), servables.clone(), config.poll);
    let when = Arc::clone(&asked);
    std::thread::Builder::new()
        .name("settings".into())
        .spawn(move || reload::watch(&loading, &servables, mode, &when))?;
    Ok(asked)
}

/// Each worker serves its connections on a single-threaded runtime inside every engine's own threads, so that a small
/// model runs where its request was decoded.
fn start_workers(config: &Config, engines: &Registry, server: &Arc<Server>) -> anyhow::Result<Workers> {
    let (end, ended) = sync_channel::<()>(1);
    for index in 0..config.n_workers.get() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = Mutex::new(Some((runtime, server.worker(index))));
        let (engines, end) = (engines.engines().to_vec(), end.clone());
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                enter_all(&engines, &mut || {
                    let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some((runtime, worker)) = work {
                        runtime.block_on(worker);
                    }
                });
                drop(end);
            })
            .context("cannot start a worker thread")?;
    }
    Ok(Workers { ended })
}

/// Runs the body inside of every engine, one within the other.
pub(crate) fn enter_all(engines: &[Arc<dyn Engine>], body: &mut (dyn FnMut() + Send)) {
    match engines.split_first() {
        None => body(),
        Some((engine, rest)) => engine.enter(NonZeroUsize::MIN, &mut || enter_all(rest, body)),
    }
}

/// Gives back when everything must have ended.
fn run_until_signal(
    config: &Config,
    servables: &Servables,
    server: &Arc<Server>,
    clock: &Arc<dyn Clock>,
    asked: &Arc<Changes>,
) -> anyhow::Result<Instant> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(server.acceptor());
        let asked = Arc::clone(asked);
        let mut hangup = signal(SignalKind::hangup())?;
        // Ends with the runtime.
        let mut hangups = tokio::task::JoinSet::new();
        hangups.spawn(async move {
            while hangup.recv().await.is_some() {
                info!("SIGHUP: looking at the settings again");
                asked.notify();
            }
        });
        let name = signals.next().await;
        info!("{name}: finishing what is in flight, at most {:?}", config.grace);
        servables.begin_shutdown();
        let deadline = clock.now() + config.grace;
        tokio::select! {
            n_cut = server.shutdown(config.grace) => {
                if n_cut > 0 {
                    warn!("the grace period is over: {n_cut} connections were cut");
                }
            }
            name = signals.next() => {
                warn!("{name} again: ending at once");
                std::process::exit(1);
            }
        }
        tasks.join_all().await;
        // Even after the last of the grace there is a moment to put things away.
        let deadline = deadline.max(clock.now() + Duration::from_secs(1));
        drain_models(servables, deadline, &mut signals).await;
        Ok(deadline)
    })
}

/// Dropping a model waits for its lanes, so it happens off the runtime; a second signal still ends the process.
async fn drain_models(servables: &Servables, deadline: Instant, signals: &mut Signals) {
    let servables = servables.clone();
    let drained = tokio::task::spawn_blocking(move || servables.shutdown(deadline));
    tokio::select! {
        drained = drained => {
            if !matches!(drained, Ok(true)) {
                warn!("the grace period is over: models were still running");
            }
        }
        name = signals.next() => {
            warn!("{name} again: ending at once");
            std::process::exit(1);
        }
    }
}

/// The signals that end the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
