//! Running a batch that was taken from the queue: join, run, split, answer.

use std::time::{Duration, Instant};

use salver_engine::{Error, ErrorKind};
use salver_tensor::Tensor;

use crate::lanes::Shared;
use crate::queue::Queued;
use crate::session::Runner;
use crate::stats::count;
use crate::{Batching, Done, RunError};

/// Runs the tasks and answers each; gives back how long that took.
pub(crate) fn run(shared: &Shared, runner: &mut Runner, mut batch: Vec<Queued>) -> Duration {
    let n_taken = batch.len();
    batch.retain(|queued| !queued.ticket.reply.is_closed());
    count(&shared.stats.cancelled, n_taken - batch.len());
    let started = shared.clock.now();
    match shared.config.batching.as_ref().filter(|_| batch.iter().all(|queued| queued.waiting.key.is_some()))
    {
        Some(batching) if !batch.is_empty() => run_joined(shared, runner, batch, batching),
        _ => batch.into_iter().for_each(|queued| run_alone(shared, runner, queued)),
    }
    shared.clock.now().saturating_duration_since(started)
}

fn run_alone(shared: &Shared, runner: &mut Runner, queued: Queued) {
    let started = shared.clock.now();
    if queued.waiting.deadline.is_some_and(|deadline| deadline <= started) {
        count(&shared.stats.expired, 1);
        return queued.ticket.answer(Err(RunError::DeadlineExceeded));
    }
    let task = &queued.ticket.task;
    let result = runner.run(&*shared.model, task.signature, &task.inputs, &task.outputs);
    let ran = shared.clock.now().saturating_duration_since(started);
    shared.costs.record(task.signature, queued.ticket.n_bytes, ran);
    shared.stats.lane_run(queued.waiting.n_rows);
    let queued_for = started.saturating_duration_since(queued.waiting.arrived);
    let batch_size = queued.waiting.n_rows;
    let done = result.map(|outputs| Done { outputs, queued: queued_for, ran, batch_size });
    queued.ticket.answer(done.map_err(RunError::Engine));
}

/// Runs tasks of one key as one. When that fails and there are several, each runs again alone, so that only the one at
/// fault fails.
fn run_joined(shared: &Shared, runner: &mut Runner, batch: Vec<Queued>, batching: &Batching) {
    let started = shared.clock.now();
    let n_rows: usize = batch.iter().map(|queued| queued.waiting.n_rows).sum();
    let result = joined_outputs(shared, runner, &batch, n_rows, batching);
    let ran = shared.clock.now().saturating_duration_since(started);
    shared.stats.lane_run(n_rows);
    match result {
        Ok(parts) => answer(batch, parts, started, ran, n_rows),
        Err(RunError::Engine(_)) if batch.len() > 1 => {
            count(&shared.stats.retried_batches, 1);
            batch.into_iter().for_each(|queued| run_alone(shared, runner, queued));
        }
        Err(error) => batch.into_iter().for_each(|queued| queued.ticket.answer(Err(error.clone()))),
    }
}

fn answer(batch: Vec<Queued>, parts: Vec<Vec<Tensor>>, started: Instant, ran: Duration, batch_size: usize) {
    for (queued, outputs) in batch.into_iter().zip(parts) {
        let queued_for = started.saturating_duration_since(queued.waiting.arrived);
        queued.ticket.answer(Ok(Done { outputs, queued: queued_for, ran, batch_size }));
    }
}

/// The outputs of each task of the batch.
fn joined_outputs(
    shared: &Shared,
    runner: &mut Runner,
    batch: &[Queued],
    n_rows: usize,
    batching: &Batching,
) -> Result<Vec<Vec<Tensor>>, RunError> {
    let Some(first) = batch.first() else { return Ok(Vec::new()) };
    let task = &first.ticket.task;
    let n_filled = batching.filled(n_rows);
    count(&shared.stats.filler_rows, n_filled - n_rows);
    let inputs =
        (0..task.inputs.len()).map(|at| join(batch, at, n_filled - n_rows)).collect::<Result<Vec<_>, _>>();
    let inputs = inputs.map_err(RunError::Engine)?;
    let started = shared.clock.now();
    let outputs =
        runner.run(&*shared.model, task.signature, &inputs, &task.outputs).map_err(RunError::Engine)?;
    let ran = shared.clock.now().saturating_duration_since(started);
    shared.costs.record(task.signature, inputs.iter().map(Tensor::n_bytes).sum(), ran);
    split(batch, &outputs, n_filled)
}

/// One input of all tasks, with the last row repeated `n_fillers` times.
fn join(batch: &[Queued], input: usize, n_fillers: usize) -> Result<Tensor, Error> {
    let missing = || Error::new(ErrorKind::Internal, "a task has fewer inputs than its neighbours");
    let parts = batch.iter().map(|queued| queued.ticket.task.inputs.get(input).cloned());
    let mut parts = parts.collect::<Option<Vec<Tensor>>>().ok_or_else(missing)?;
    let last = parts.last().ok_or_else(missing)?;
    let last_row = last.shape().n_rows().and_then(|n_rows| last.rows(n_rows.checked_sub(1)?, 1));
    parts.extend(std::iter::repeat_n(last_row, n_fillers).flatten());
    Tensor::concat(&parts).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))
}

/// Gives each task its rows of the outputs; rows beyond those only filled the batch up.
fn split(batch: &[Queued], outputs: &[Tensor], n_filled: usize) -> Result<Vec<Vec<Tensor>>, RunError> {
    let unequal = "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input \
                   tensors";
    for output in outputs {
        match output.shape().n_rows() {
            None => return Err(RunError::NotRows("Batched output tensor has 0 dimensions")),
            Some(n_rows) if n_rows != n_filled => return Err(RunError::NotRows(unequal)),
            Some(_) => {}
        }
    }
    let mut start = 0;
    let mut parts = Vec::with_capacity(batch.len());
    for queued in batch {
        let n_rows = queued.waiting.n_rows;
        let rows: Option<Vec<Tensor>> = outputs.iter().map(|output| output.rows(start, n_rows)).collect();
        parts.push(rows.ok_or(RunError::NotRows(unequal))?);
        start += n_rows;
    }
    Ok(parts)
}
