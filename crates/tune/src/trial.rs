//! Running a loaded model for a while, on all of its lanes or some, and taking the time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use salver_engine::{Error, ErrorKind, Session};
use salver_tensor::Tensor;

use crate::Meter;
use crate::loaded::{Bound, Loaded};

/// Runs of one lane in one trial at most.
const MAX_RUNS: usize = 100_000;

/// How many times the time that a trial should take it may take for the sake of [`Length::min_runs`].
const PATIENCE: u32 = 4;

/// What one trial took.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trial {
    /// The time of each run, of all lanes.
    pub(crate) runs: Vec<Duration>,
    /// Rows per second of all lanes together.
    pub(crate) rows_per_second: f64,
    /// Time that all threads computed, per row.
    pub(crate) cpu_per_row: Duration,
}

/// How long a trial is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Length {
    /// Lanes that run, no more than the model was loaded for.
    pub(crate) n_lanes: usize,
    /// Each lane begins no new run after this,
    pub(crate) time: Duration,
    /// but for this many, if they do not take [`PATIENCE`] times as long.
    pub(crate) min_runs: usize,
    /// Whether each lane runs once before it counts.
    pub(crate) is_warmed_up: bool,
}

/// What one lane took.
#[derive(Debug, Default)]
struct LaneRuns {
    runs: Vec<Duration>,
    n_rows: usize,
    /// With those that only warmed up.
    n_all_rows: usize,
    time: Duration,
}

/// Runs the batches, one after another and again from the first; each lane starts with another one. Blocks for
/// [`Length::time`], or one run of each lane if that is longer.
///
/// # Errors
/// The first that a run gave; also when a lane panicked or its thread could not be started.
pub(crate) fn run(
    loaded: &mut Loaded,
    batches: &[Bound],
    length: Length,
    meter: &dyn Meter,
) -> Result<Trial, Error> {
    let cpu = meter.cpu();
    let (model, threads) = (&loaded.model, loaded.sharing.threads);
    let lanes = std::thread::scope(|scope| {
        let mut spawned = Vec::new();
        for (offset, session) in loaded.sessions.iter_mut().take(length.n_lanes).enumerate() {
            let work = move || {
                let mut runs = Ok(LaneRuns::default());
                model.enter(threads, &mut || {
                    runs = caught(|| lane(&mut **session, batches, offset, length, meter));
                });
                runs
            };
            spawned
                .push(std::thread::Builder::new().name(format!("trial-{offset}")).spawn_scoped(scope, work));
        }
        let panicked = |_| Error::new(ErrorKind::Internal, "a lane panicked");
        let join = |thread: std::io::Result<std::thread::ScopedJoinHandle<'_, Result<LaneRuns, Error>>>| {
            let thread =
                thread.map_err(|error| Error::new(ErrorKind::ResourceExhausted, error.to_string()))?;
            thread.join().map_err(panicked)?
        };
        spawned.into_iter().map(join).collect::<Result<Vec<LaneRuns>, Error>>()
    })?;
    let cpu = meter.cpu().saturating_sub(cpu);
    let n_all_rows: usize = lanes.iter().map(|lane| lane.n_all_rows).sum();
    let speed = |lane: &LaneRuns| lane.n_rows as f64 / lane.time.as_secs_f64().max(1e-9);
    Ok(Trial {
        rows_per_second: lanes.iter().map(speed).sum(),
        cpu_per_row: cpu.div_f64(n_all_rows.max(1) as f64),
        runs: lanes.into_iter().flat_map(|lane| lane.runs).collect(),
    })
}

fn lane(
    session: &mut dyn Session,
    batches: &[Bound],
    offset: usize,
    length: Length,
    meter: &dyn Meter,
) -> Result<LaneRuns, Error> {
    let mut taken = LaneRuns::default();
    let mut turns = batches.iter().cycle().skip(offset % batches.len().max(1));
    let mut run = || {
        let bound = turns.next().ok_or_else(|| Error::new(ErrorKind::Internal, "nothing to run"))?;
        session.run(bound.signature, &bound.batch.inputs, &bound.outputs)?;
        Ok::<usize, Error>(bound.batch.n_rows)
    };
    if length.is_warmed_up {
        taken.n_all_rows += run()?;
    }
    let started = meter.now();
    let mut before = started;
    loop {
        taken.n_rows += run()?;
        let now = meter.now();
        taken.runs.push(now.saturating_sub(before));
        before = now;
        taken.time = now.saturating_sub(started);
        let is_enough = taken.runs.len() >= length.min_runs || taken.time >= length.time * PATIENCE;
        if taken.time >= length.time && is_enough || taken.runs.len() >= MAX_RUNS {
            break;
        }
    }
    taken.n_all_rows += taken.n_rows;
    Ok(taken)
}

/// Runs one batch once, on the first lane.
pub(crate) fn answer(loaded: &mut Loaded, bound: &Bound) -> Result<Vec<Tensor>, Error> {
    let Some(session) = loaded.sessions.first_mut() else {
        return Err(Error::new(ErrorKind::Internal, "a model with no lanes"));
    };
    let mut answer = Ok(Vec::new());
    loaded.model.enter(loaded.sharing.threads, &mut || {
        answer = caught(|| session.run(bound.signature, &bound.batch.inputs, &bound.outputs));
    });
    answer
}

/// Makes a panic an error. What panicked is not used again.
pub(crate) fn caught<T>(body: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Error::new(ErrorKind::Internal, format!("the engine panicked: {text}")))
    })
}
