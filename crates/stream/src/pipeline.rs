//! Starting, watching and ending a pipeline.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::channel;

use crate::core::{CANARY, Core, SHADOW, Share};
use crate::deliver::Writer;
use crate::driver::{Driver, MAX_COMMANDS, Report, State};
use crate::model::{Models, Scorers};
use crate::score::{Job, Role, Scoring};
use crate::shadow::{ShadowParts, ShadowQueue};
use crate::status::Meter;
use crate::watch::Watch;
use crate::{
    Config, Delivery, Enter, Error, ErrorKind, Parts, Policies, Policy, Retry, Status, clock, restore, worker,
};

/// Why a pipeline ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The source has no more records, and all are done.
    Finished,
    /// It was told to. What was under way was finished and committed.
    Stopped,
    /// It was told to, and what was under way was not finished in time: it comes again at the next start.
    Cut,
}

/// What a pipeline did.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Why it ended.
    pub ending: Ending,
    /// What it had done by then.
    pub status: Status,
}

/// What is asked of a pipeline from outside.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stop: Mutex<Option<Duration>>,
}

impl Control {
    /// The grace, if the end was asked for.
    pub(crate) fn stop_asked(&self) -> Option<Duration> {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts pipelines.
#[derive(Debug)]
pub struct Pipeline;

/// A pipeline that runs. Dropping it leaves the pipeline running, and nothing can stop it then.
#[derive(Debug)]
pub struct Running {
    meter: Arc<Meter>,
    control: Arc<Control>,
    wake: SyncSender<Report>,
    driver: JoinHandle<Result<Ending, Error>>,
}

/// Watches and stops a pipeline from other threads.
#[derive(Debug, Clone)]
pub struct Handle {
    meter: Arc<Meter>,
    control: Arc<Control>,
    wake: SyncSender<Report>,
}

impl Pipeline {
    /// Starts the threads of a pipeline: one that owns the source, one that owns the sink, one per worker, one that looks models up,
    /// one that restores windows, and one for a shadow. Returns before a model is found or a record is read.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for settings that contradict each other or the parts; [`ErrorKind::Internal`] when a
    /// thread cannot be started.
    pub fn start(config: &Config, parts: Parts) -> Result<Running, Error> {
        config.check()?;
        check_parts(config, &parts)?;
        let meter = Arc::new(Meter::default());
        let control = Arc::<Control>::default();
        let n_workers = config.n_workers().get();
        // Each batch under way, look-up and command of the sink's thread has room for what it tells.
        let n_reports = n_workers * config.in_flight.get() + 4 * MAX_COMMANDS;
        let (report, reports) = sync_channel(n_reports);
        let scoring = Arc::new(Scoring::new(config, Arc::clone(&meter)));
        let Parts { source, sink, shadow_sink, predictor, model, mapping, windows, enter } = parts;
        let input = windows.as_ref().map(|windows| windows.input().to_owned());
        let scorers =
            |role| Scorers::new(Arc::clone(&mapping), config.signature.clone(), input.clone(), role);
        let shadow = match (&config.shadow, shadow_sink) {
            (Some(settings), Some(sink)) => {
                let (predictor, spec) = (Arc::clone(&predictor), settings.part.spec(&model));
                let (enter, meter) = (Arc::clone(&enter), Arc::clone(&meter));
                let scoring = Scoring::new(&beside(config), Arc::default());
                let parts = ShadowParts {
                    predictor,
                    spec,
                    scorers: scorers(Role::Shadow),
                    scoring,
                    sink,
                    enter,
                    timeout: config.timeout,
                    meter,
                };
                Some((Share::new(&settings.part, SHADOW), ShadowQueue::start(settings, parts)?))
            }
            _ => None,
        };
        let canary = config.canary.as_ref().map(|canary| (canary.spec(&model), scorers(Role::Canary)));
        let specs = [Some((model, scorers(Role::Primary))), canary];
        let models = Models::start(predictor, specs, config.model_wait, report.clone())?;
        let workers = start_workers(config, n_workers, &enter, &scoring, &report)?;
        let (commands, orders) = sync_channel(MAX_COMMANDS);
        let in_transactions = config.delivery == Delivery::ExactlyOnce;
        let writer = Writer::new(sink, Arc::clone(&scoring), report.clone(), in_transactions);
        let watch = Watch::new("the stream's thread that writes", &report);
        spawn("sink", move || {
            writer.run(&orders);
            drop(watch);
        })?;
        let restorer = windows.as_ref().map(|_| start_restorer(&report)).transpose()?;
        let driver = Driver {
            core: Core::new(config, n_workers, clock::now()),
            source,
            windows,
            models,
            scoring,
            meter: Arc::clone(&meter),
            control: Arc::clone(&control),
            drain: config.drain,
            retry: config.retry.clone(),
            workers,
            commands,
            reports,
            restorer,
            canary: config.canary.as_ref().map(|canary| Share::new(canary, CANARY)),
            shadow,
            state: State::default(),
        };
        let driver = spawn("stream", move || driver.run())?;
        Ok(Running { meter, control, wake: report, driver })
    }
}

/// Checks settings against what they are for.
fn check_parts(config: &Config, parts: &Parts) -> Result<(), Error> {
    let wrong = |text: &str| Err(Error::new(ErrorKind::Config, text));
    if config.delivery == Delivery::ExactlyOnce && !parts.sink.is_transactional() {
        return wrong("delivery is 'exactly_once', which this sink cannot: it has no transactions");
    }
    match (&config.shadow, &parts.shadow_sink) {
        (Some(_), None) => wrong("there is a shadow and nowhere to write what it answers"),
        (None, Some(_)) => wrong("there is a sink for a shadow and no shadow"),
        _ => Ok(()),
    }
}

/// The settings of a shadow: it refuses in silence, tries once, and says where its answers come from.
fn beside(config: &Config) -> Config {
    Config {
        on: Policies::all(Policy::Skip),
        retry: Retry { attempts: 1, ..config.retry.clone() },
        source_headers: true,
        ..config.clone()
    }
}

fn start_workers(
    config: &Config,
    n_workers: usize,
    enter: &Enter,
    scoring: &Arc<Scoring>,
    report: &SyncSender<Report>,
) -> Result<Vec<tokio::sync::mpsc::Sender<Job>>, Error> {
    let start = |index| {
        let (jobs, queue) = channel(config.in_flight.get());
        worker::start(index, enter, scoring, queue, report)?;
        Ok(jobs)
    };
    (0..n_workers).map(start).collect()
}

/// Starts the thread that restores windows. It ends when nothing is left to restore and the driver is gone.
fn start_restorer(report: &SyncSender<Report>) -> Result<SyncSender<restore::Task>, Error> {
    let (jobs, queue) = sync_channel(1);
    let report = report.clone();
    spawn("windows", move || restore::run(&queue, &report))?;
    Ok(jobs)
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    let failed =
        |error| Error::new(ErrorKind::Internal, format!("cannot start the thread '{name}': {error}"));
    std::thread::Builder::new().name(name.into()).spawn(body).map_err(failed)
}

impl Running {
    /// Something to watch and stop the pipeline with while another thread waits for it.
    pub fn handle(&self) -> Handle {
        let (meter, control) = (Arc::clone(&self.meter), Arc::clone(&self.control));
        Handle { meter, control, wake: self.wake.clone() }
    }

    /// As [`Handle::stop`].
    pub fn stop(&self, grace: Duration) {
        self.handle().stop(grace);
    }

    /// As [`Handle::status`].
    pub fn status(&self) -> Status {
        self.meter.read()
    }

    /// As [`Handle::is_ready`].
    pub fn is_ready(&self) -> bool {
        self.meter.is_ready.load(Relaxed)
    }

    /// Whether the pipeline has ended, so that [`Running::wait`] does not block.
    pub fn is_finished(&self) -> bool {
        self.driver.is_finished()
    }

    /// Blocks until the end.
    ///
    /// # Errors
    /// Why the pipeline could not go on. What was done before is committed as far as that was possible.
    pub fn wait(self) -> Result<Outcome, Error> {
        let panicked = || Error::new(ErrorKind::Internal, "the driver of the stream panicked");
        let ending = self.driver.join().unwrap_or_else(|_| Err(panicked()))?;
        Ok(Outcome { ending, status: self.meter.read() })
    }
}

impl Handle {
    /// Ends intake, finishes what workers have, commits, and ends; what is not finished within `grace` is left for the next
    /// start. Returns at once; what is asked first counts.
    pub fn stop(&self, grace: Duration) {
        self.control.stop.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(grace);
        // A driver with reports to hear is awake.
        drop(self.wake.try_send(Report::Wake));
    }

    /// What the pipeline does now. Does not block.
    pub fn status(&self) -> Status {
        self.meter.read()
    }

    /// As [`Status::is_ready`].
    pub fn is_ready(&self) -> bool {
        self.meter.is_ready.load(Relaxed)
    }
}
