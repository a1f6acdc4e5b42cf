//! `salver stream`: scores records of topics, files and standard input with a model that runs here or on other servers.

mod bounds;
mod check;
mod config;
mod embedded;
mod file;
mod flags;
mod metrics;
mod model;
mod monitor;
mod place;
mod pulse;
mod tables;
mod view;
mod windows;
mod wiring;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use salver_lifecycle::{Clock, SystemClock};
use salver_stream::{Ending, Pipeline, Running};
use tracing::{info, warn};

use self::config::Config;
pub(crate) use self::flags::StreamArgs;
use self::model::Answering;
use self::pulse::{Front, Pulse};
use self::view::{Screen, View};
use crate::telemetry;

/// How often the main thread looks for the end, and every how manieth time at the rest.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const SHOW_EVERY: u32 = 5;

/// What is left of the grace period for models to be put away, at least.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// The exit status of a run that ended before all that was under way was done: it comes again at the next start.
const CUT: u8 = 3;

/// Scores until the records end, a signal comes, or something does not go on. Blocks.
pub(crate) fn run(args: &StreamArgs) -> ExitCode {
    match stream(args) {
        Ok(code) => code,
        Err(error) => {
            crate::print(&mut std::io::stderr(), &format!("salver: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn stream(args: &StreamArgs) -> anyhow::Result<ExitCode> {
    let mut config = config::resolve(args)?;
    if args.print_config {
        crate::print(&mut std::io::stdout(), config.shown_text()?.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let _aside = args.dry_run.then(|| check::aside(&mut config)).transpose()?;
    let screen = Screen::new();
    telemetry::start_log_through(args.log_format, &args.log_level, screen.clone())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let stop = signals()?;
    let front = config.metrics.filter(|_| !args.dry_run).map(Front::open).transpose()?;
    let answering = Answering::start(&config, &clock)?;
    if !answering.wait(&|| stop.load(Ordering::SeqCst))? {
        info!("ended before the model was there");
        return Ok(ExitCode::SUCCESS);
    }
    if args.dry_run {
        let text = check::check(&config, &answering, &*clock, &|| stop.load(Ordering::SeqCst))?;
        crate::print(&mut std::io::stdout(), text.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let is_called_off = || stop.load(Ordering::SeqCst);
    let built = match wiring::build(&config, &answering, &is_called_off) {
        Err(error) if is_called_off() => {
            info!("ended before a record was read: {error:#}");
            return Ok(ExitCode::SUCCESS);
        }
        built => built?,
    };
    tell(&config, &answering);
    let started = clock.now();
    let running = Pipeline::start(&built.pipeline, built.parts)?;
    let pulse = Arc::new(Pulse::new(running.handle(), Arc::clone(&clock)));
    if let Some(front) = &front {
        front.add(&answering, &pulse)?;
    }
    let mut view = View::start(args.progress, &screen, config.is_bounded());
    let cut_off = watch(&running, &pulse, &mut view, &built.whole, &stop, config.grace, &*clock);
    let outcome = running.wait();
    view.end();
    let (ending, status) = match outcome {
        Ok(outcome) => (outcome.ending, outcome.status),
        Err(error) => {
            answering.shutdown(clock.now() + LAST_MOMENT);
            return Err(anyhow::Error::new(error)).context("the stream ended");
        }
    };
    let took = clock.now().saturating_duration_since(started);
    crate::print(&mut std::io::stderr(), &pulse::outcome(&config, &status, took).text());
    answering.shutdown(cut_off.unwrap_or_else(|| clock.now()).max(clock.now() + LAST_MOMENT));
    Ok(match ending {
        Ending::Finished | Ending::Stopped => ExitCode::SUCCESS,
        Ending::Cut => {
            warn!("the grace period is over: what was under way comes again at the next start");
            ExitCode::from(CUT)
        }
    })
}

/// Set by the first SIGTERM or SIGINT; the second ends the process at once.
fn signals() -> anyhow::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag;

    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, i32::from(CUT), Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// What a person should know that was chosen and not said.
fn tell(config: &Config, answering: &Answering) {
    let group = match config.from.topic() {
        Some(_) => format!(", group {}", config.group),
        None => String::new(),
    };
    info!("{} -> {}: {}{group}", config.from, config.to, config.delivery().replace('_', " "));
    info!("answered by {}", answering.describe());
    match &config.dead {
        Some(dead) => info!("records that cannot be answered go to {dead}"),
        None => info!(
            "records that cannot be answered are dealt with as [errors] says; there are no dead letters"
        ),
    }
}

/// Looks on until the pipeline has ended. Gives when everything must be over, if a signal came.
fn watch(
    running: &Running,
    pulse: &Pulse,
    view: &mut View,
    whole: &wiring::Whole,
    stop: &AtomicBool,
    grace: Duration,
    clock: &dyn Clock,
) -> Option<Instant> {
    let mut cut_off = None;
    let mut n_looks = 0_u32;
    while !running.is_finished() {
        if cut_off.is_none() && stop.load(Ordering::SeqCst) {
            info!(
                "finishing and committing what is under way, at most {grace:?}; a second signal ends at once"
            );
            running.stop(grace);
            cut_off = Some(clock.now() + grace);
        }
        if n_looks.is_multiple_of(SHOW_EVERY) {
            view.show(&pulse.look(whole), clock.now());
        }
        n_looks = n_looks.wrapping_add(1);
        pulse.wait(LOOK_EVERY);
    }
    cut_off
}
