//! Running a batch that was taken from the queue: join, run, split, answer.

use std::time::{Duration, Instant};

use salver_engine::{Error, ErrorKind};
use salver_tensor::Tensor;

use crate::key::{Key, known};
use crate::lanes::Shared;
use crate::pad::{Fill, cut, pad};
use crate::queue::Queued;
use crate::session::Runner;
use crate::stats::count;
use crate::{Batching, Done, RunError};

/// What was left of the time of each task that had a deadline and was answered; `None` for one that was late.
type Slacks = Vec<Option<Duration>>;

/// A lane at work on one batch.
struct Work<'a> {
    shared: &'a Shared,
    runner: &'a mut Runner,
    /// Bytes of inputs that padding may make.
    max_padded: usize,
    slacks: Slacks,
}

/// Why a batch has no answers that can be given to its tasks.
enum Failed {
    /// The engine's error.
    Engine(Error),
    /// Outputs that are not one row for each row of the inputs.
    NotRows(String),
    /// Rows of very unequal shapes, which would take too much memory when they are padded.
    TooWide,
}

/// Runs the tasks and answers each.
pub(crate) fn run(shared: &Shared, runner: &mut Runner, mut batch: Vec<Queued>) -> Slacks {
    let n_taken = batch.len();
    batch.retain(|queued| !queued.ticket.reply.is_closed());
    count(&shared.stats.cancelled, n_taken - batch.len());
    let policy = shared.policy();
    let mut work = Work { shared, runner, max_padded: policy.max_queued_bytes, slacks: Vec::new() };
    let key = batch.first().and_then(|queued| queued.waiting.key.as_ref());
    let is_joined = key.is_some_and(|key| shared.is_joinable(key.signature));
    match policy.batching.as_ref().filter(|_| is_joined) {
        Some(batching) => {
            work.joined(batch, batching);
        }
        None => batch.into_iter().for_each(|queued| work.alone(queued)),
    }
    work.slacks
}

impl Work<'_> {
    fn now(&self) -> Instant {
        self.shared.clock.now()
    }

    fn answer(&mut self, queued: Queued, result: Result<Done, RunError>) {
        if let Some(deadline) = queued.waiting.deadline {
            self.slacks.push(deadline.checked_duration_since(self.now()));
        }
        queued.ticket.answer(result);
    }

    /// Answers those whose deadline has passed; the others come back.
    fn drop_expired(&mut self, batch: Vec<Queued>, now: Instant) -> Vec<Queued> {
        let is_over = |queued: &Queued| queued.waiting.deadline.is_some_and(|deadline| deadline <= now);
        let (expired, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_over);
        self.shared.count_expired(expired.len());
        expired.into_iter().for_each(|queued| self.answer(queued, Err(RunError::DeadlineExceeded)));
        rest
    }

    fn alone(&mut self, queued: Queued) {
        let started = self.now();
        let Some(queued) = self.drop_expired(vec![queued], started).pop() else { return };
        let shared = self.shared;
        let task = &queued.ticket.task;
        let result = self.runner.run(&*shared.model, task.signature, &task.inputs, &task.outputs);
        let ran = self.now().saturating_duration_since(started);
        shared.run_times.record(task.signature, queued.ticket.n_bytes, ran);
        let batch_size = queued.waiting.n_rows;
        if result.is_ok() {
            shared.costs().record(known(queued.waiting.kind), batch_size, ran);
        }
        shared.stats.lane_run(batch_size);
        let queued_for = started.saturating_duration_since(queued.waiting.arrived);
        let done = result.map(|outputs| Done { outputs, queued: queued_for, ran, batch_size });
        self.answer(queued, done.map_err(RunError::Engine));
    }

    /// Runs tasks of one key as one. When that fails and there are several, they run again in halves, so that only those at
    /// fault fail. Says whether any did.
    fn joined(&mut self, batch: Vec<Queued>, batching: &Batching) -> bool {
        let started = self.now();
        let batch = self.drop_expired(batch, started);
        let Some(first) = batch.first() else { return false };
        let kind = first.waiting.kind;
        let n_rows: usize = batch.iter().map(|queued| queued.waiting.n_rows).sum();
        let n_filled = batching.filled(n_rows);
        let result = self.outputs(&batch, n_rows, n_filled);
        let ran = self.now().saturating_duration_since(started);
        self.shared.stats.lane_run(n_rows);
        match result {
            Ok(parts) => {
                self.shared.costs().record(known(kind), n_filled, ran);
                for (queued, outputs) in batch.into_iter().zip(parts) {
                    let queued_for = started.saturating_duration_since(queued.waiting.arrived);
                    self.answer(queued, Ok(Done { outputs, queued: queued_for, ran, batch_size: n_rows }));
                }
                false
            }
            Err(Failed::TooWide) => {
                if batch.len() > 1 {
                    self.apart(batch, batching);
                } else {
                    batch.into_iter().for_each(|queued| self.alone(queued));
                }
                true
            }
            Err(Failed::NotRows(reason)) => {
                let signature = batch.first().map_or(0, |queued| queued.ticket.task.signature);
                tracing::warn!(signature, "requests are not joined any more: {reason}");
                self.shared.never_join(signature);
                batch.into_iter().for_each(|queued| self.alone(queued));
                true
            }
            // An engine that went away may do so again with each of them.
            Err(Failed::Engine(error)) if batch.len() > 1 && error.kind() != ErrorKind::Unavailable => {
                count(&self.shared.stats.retried_batches, 1);
                self.halves(batch, batching);
                true
            }
            Err(Failed::Engine(error)) => {
                for queued in batch {
                    self.answer(queued, Err(RunError::Engine(error.clone())));
                }
                true
            }
        }
    }

    /// Runs again what failed together. When the first half is well, the second holds what is at fault, and is not run as
    /// a whole.
    fn halves(&mut self, mut batch: Vec<Queued>, batching: &Batching) {
        loop {
            let rest = batch.split_off(batch.len() / 2);
            let failed = self.joined(batch, batching);
            if failed || rest.len() < 2 {
                self.joined(rest, batching);
                return;
            }
            batch = rest;
        }
    }

    /// Runs what is too wide together in halves.
    fn apart(&mut self, mut batch: Vec<Queued>, batching: &Batching) {
        let rest = batch.split_off(batch.len() / 2);
        self.joined(batch, batching);
        self.joined(rest, batching);
    }

    /// The outputs of each task of the batch.
    fn outputs(
        &mut self,
        batch: &[Queued],
        n_rows: usize,
        n_filled: usize,
    ) -> Result<Vec<Vec<Tensor>>, Failed> {
        let Some(first) = batch.first() else { return Ok(Vec::new()) };
        let (task, key) = (&first.ticket.task, first.waiting.key.as_ref());
        if padded_bytes(batch, key, n_filled).is_none_or(|n_bytes| n_bytes > self.max_padded) {
            return Err(Failed::TooWide);
        }
        count(&self.shared.stats.filler_rows, n_filled - n_rows);
        let inputs = (0..task.inputs.len()).map(|at| join(batch, key, at, n_filled - n_rows));
        let inputs = inputs.collect::<Result<Vec<_>, _>>().map_err(Failed::Engine)?;
        let (model, started) = (&*self.shared.model, self.now());
        let outputs =
            self.runner.run(model, task.signature, &inputs, &task.outputs).map_err(Failed::Engine)?;
        let ran = self.now().saturating_duration_since(started);
        self.shared.run_times.record(task.signature, inputs.iter().map(Tensor::n_bytes).sum(), ran);
        let mut parts = split(batch, &outputs, n_filled)?;
        if key.is_some_and(|key| key.fill == Some(Fill::Zeros)) {
            for (queued, outputs) in batch.iter().zip(&mut parts) {
                self.cut(queued, &inputs, outputs).map_err(Failed::Engine)?;
            }
        }
        Ok(parts)
    }

    /// Gives outputs the size that the task's own inputs have, wherever they have that of the padded inputs. Only open
    /// dimensions are cut, and only where it is clear which input they are of.
    fn cut(&self, queued: &Queued, padded: &[Tensor], outputs: &mut [Tensor]) -> Result<(), Error> {
        let task = &queued.ticket.task;
        let signature = self.shared.model.signatures().get(task.signature);
        let mut sizes: Vec<(usize, usize)> = Vec::new();
        for (at, (own, padded)) in task.inputs.iter().zip(padded).enumerate() {
            let spec = signature.and_then(|signature| signature.inputs().get(at));
            let open = spec.and_then(|spec| spec.dims.known()).and_then(|dims| dims.get(1..)).unwrap_or(&[]);
            let of_rows = padded.shape().row_dims().iter().zip(own.shape().row_dims()).zip(open);
            sizes
                .extend(of_rows.filter(|(_, open)| open.is_none()).map(|((&padded, &own), _)| (padded, own)));
        }
        let own_size = |size: usize| {
            let mut of_size = sizes.iter().filter(|(padded, _)| *padded == size).map(|(_, own)| *own);
            let first = of_size.next()?;
            of_size.all(|own| own == first).then_some(first)
        };
        for (output, &at) in outputs.iter_mut().zip(&task.outputs) {
            let spec = signature.and_then(|signature| signature.outputs().get(at));
            let open = spec.and_then(|spec| spec.dims.known());
            let dims = output.shape().dims().iter().enumerate().map(|(axis, &size)| {
                let is_open = open.is_none_or(|dims| dims.get(axis).copied() == Some(None));
                if axis > 0 && is_open { own_size(size).unwrap_or(size) } else { size }
            });
            let dims: Vec<usize> = dims.collect();
            *output = cut(output, &dims)?;
        }
        Ok(())
    }
}

/// Bytes that the inputs of the batch take when their rows are padded; 0 where they are not. `None` for more than can be counted.
fn padded_bytes(batch: &[Queued], key: Option<&Key>, n_filled: usize) -> Option<usize> {
    let Some(key) = key.filter(|key| key.fill.is_some()) else { return Some(0) };
    let n_inputs = batch.first().map_or(0, |queued| queued.ticket.task.inputs.len());
    (0..n_inputs).try_fold(0usize, |sum, at| {
        let parts: Option<Vec<Tensor>> =
            batch.iter().map(|queued| queued.ticket.task.inputs.get(at).cloned()).collect();
        let parts = parts?;
        let row_dims = key.row_dims(at, &parts);
        // A string takes no bytes of its own, but the list of them does.
        let size = parts.first()?.dtype().size().unwrap_or(size_of::<bytes::Bytes>());
        let n_bytes = row_dims.iter().try_fold(n_filled.checked_mul(size)?, |n, &dim| n.checked_mul(dim))?;
        sum.checked_add(n_bytes)
    })
}

/// One input of all tasks, with the last row repeated `n_fillers` times.
fn join(batch: &[Queued], key: Option<&Key>, input: usize, n_fillers: usize) -> Result<Tensor, Error> {
    let missing = || Error::new(ErrorKind::Internal, "a task has fewer inputs than its neighbours");
    let of = |queued: &'_ Queued| queued.ticket.task.inputs.get(input).cloned();
    let mut parts = batch.iter().map(of).collect::<Option<Vec<Tensor>>>().ok_or_else(missing)?;
    if let Some((key, fill)) = key.and_then(|key| Some((key, key.fill?))) {
        let row_dims = key.row_dims(input, &parts);
        parts = parts.iter().map(|part| pad(part, &row_dims, fill)).collect::<Result<_, _>>()?;
    }
    let last = parts.last().ok_or_else(missing)?;
    let last_row = last.shape().n_rows().and_then(|n_rows| last.rows(n_rows.checked_sub(1)?, 1));
    parts.extend(std::iter::repeat_n(last_row, n_fillers).flatten());
    Tensor::concat(&parts).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))
}

/// Gives each task its rows of the outputs; rows beyond those only filled the batch up.
fn split(batch: &[Queued], outputs: &[Tensor], n_filled: usize) -> Result<Vec<Vec<Tensor>>, Failed> {
    let not_rows = |output: &Tensor| {
        let dims = output.shape().dims();
        Failed::NotRows(format!("an output for {n_filled} rows has the shape {dims:?}"))
    };
    if let Some(output) = outputs.iter().find(|output| output.shape().n_rows() != Some(n_filled)) {
        return Err(not_rows(output));
    }
    let mut start = 0;
    let mut parts = Vec::with_capacity(batch.len());
    for queued in batch {
        let n_rows = queued.waiting.n_rows;
        let rows = outputs.iter().map(|output| output.rows(start, n_rows).ok_or_else(|| not_rows(output)));
        parts.push(rows.collect::<Result<_, _>>()?);
        start += n_rows;
    }
    Ok(parts)
}
