//! Batches tried before a model serves: whether rows may be joined at all, and what batches of each size cost.

mod agree;

use std::sync::Arc;
use std::time::Duration;

use salver_engine::{Error, ErrorKind};
use salver_tensor::Tensor;

use crate::Batching;
use crate::cores::Permit;
use crate::key::{Class, classify, common_rows};
use crate::lanes::{Shared, Task};
use crate::queue::Queue;
use crate::session::Runner;
use agree::{are_alike, by_column, of_the_largest};

/// Bytes of inputs of a batch that is tried, at most.
const MAX_BYTES: usize = 64 << 20;

/// Rows of a batch that is tried, at most.
const MAX_ROWS: usize = 256;

/// Tasks that are joined to see whether answers depend on neighbours, at most.
const MAX_JOINED: usize = 4;

/// Times that a size is run, at most. The first does not count if there are more: it may have had to make room.
const N_RUNS: usize = 4;

/// A size is run twice; more often while its runs have taken less than this part of the budget.
const CHEAP: u32 = 16;

/// A batch whose rate is this part of the best, or less, has fallen.
const FALLEN: f64 = 0.8;

/// So many sizes in a row that have fallen are the last: engines have other kernels for other sizes, and the first that
/// is slower than one row may stand before much faster ones.
const N_FALLEN: usize = 3;

/// Asked between runs: whether to stop.
pub type CalledOff<'a> = &'a (dyn Fn() -> bool + Sync);

/// What came of joining rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// Rows are answered alike alone and joined.
    Independent,
    /// What a row is answered depends on what it is joined with, or joined rows are refused: why. They are never joined.
    Dependent(String),
    /// Nothing could be told: why.
    Unknown(String),
}

/// Why runs end.
enum Stop {
    CalledOff,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

/// Runs of one kind of tasks.
struct Runs<'a> {
    shared: &'a Shared,
    runner: &'a mut Runner,
    task: &'a Task,
    called_off: CalledOff<'a>,
    /// Rows and time of each.
    times: Vec<(usize, Duration)>,
}

impl Runs<'_> {
    /// Runs these inputs once there are threads to do so.
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Stop> {
        let permit: Option<Permit> = self.shared.permit(self.called_off).ok_or(Stop::CalledOff)?;
        let clock = &self.shared.clock;
        let from = clock.now();
        let outputs =
            self.runner.run(&*self.shared.model, self.task.signature, inputs, &self.task.outputs)?;
        self.times.push((common_rows(inputs).unwrap_or(1), clock.now().saturating_duration_since(from)));
        drop(permit);
        Ok(outputs)
    }

    fn last(&self) -> Duration {
        self.times.last().map_or(Duration::ZERO, |&(_, time)| time)
    }

    /// Takes in what the runs cost, if it was of use: of all sizes where rows are joined, else of single tasks.
    fn keep(&self) {
        let policy = self.shared.policy();
        let Ok(class) = self.shared.classify(self.task, &policy) else { return };
        let own_rows = common_rows(&self.task.inputs).unwrap_or(1);
        let mut costs = self.shared.costs();
        for &(n_rows, time) in &self.times {
            match class.key {
                Some(_) => costs.record_first(class.kind, n_rows, time),
                None if n_rows == own_rows => costs.record_first(class.kind, class.n_rows, time),
                None => (),
            }
        }
        drop(costs);
        // The first may have had to make room.
        let own = self.times.iter().filter(|(n_rows, _)| *n_rows == own_rows).map(|&(_, time)| time);
        if let Some(fastest) = own.min() {
            self.shared.run_times.seed(self.task.signature, Queue::bytes_of(self.task), fastest);
        }
    }
}

/// How the task would be joined.
fn class_of(shared: &Shared, task: &Task, batching: &Batching) -> Option<Class> {
    let signature = shared.model.signatures().get(task.signature);
    classify(task, signature.map(Arc::as_ref), true, Some(batching)).ok().filter(|class| class.key.is_some())
}

/// Tasks that can be joined with the first and are as large, each with other inputs, a few at most.
fn distinct<'a>(shared: &Shared, tasks: &'a [Task]) -> Vec<&'a Task> {
    let batching = Batching::default();
    let Some(first) = tasks.first() else { return Vec::new() };
    let Some(own) = class_of(shared, first, &batching) else { return Vec::new() };
    let mut distinct: Vec<&Task> = Vec::new();
    for task in tasks {
        let is_like = || class_of(shared, task, &batching).is_some_and(|class| class == own);
        let is_new = !distinct.iter().any(|known| known.inputs == task.inputs);
        if distinct.len() < MAX_JOINED && is_new && is_like() {
            distinct.push(task);
        }
    }
    distinct
}

fn joined(tasks: &[&Task]) -> Option<Vec<Tensor>> {
    let n_inputs = tasks.first()?.inputs.len();
    let inputs = (0..n_inputs).map(|at| {
        let parts: Option<Vec<Tensor>> = tasks.iter().map(|task| task.inputs.get(at).cloned()).collect();
        Tensor::concat(&parts?).ok()
    });
    inputs.collect()
}

/// Joins the rows of these tasks, and keeps what comes of it: the verdict and what runs cost.
pub(crate) fn check(
    shared: &Shared,
    runner: &mut Runner,
    tasks: &[Task],
    called_off: CalledOff<'_>,
) -> Result<Rows, Error> {
    let distinct = distinct(shared, tasks);
    let Some(first) = distinct.first().filter(|_| distinct.len() > 1) else {
        return Ok(Rows::Unknown("no two different rows could be joined".to_owned()));
    };
    let mut runs = Runs { shared, runner, task: first, called_off, times: Vec::new() };
    let rows = match compare(&mut runs, &distinct) {
        Ok(rows) => rows,
        Err(Stop::CalledOff) => Rows::Unknown("the trial was called off".to_owned()),
        Err(Stop::Failed(error)) => return Err(error),
    };
    match rows {
        Rows::Independent => shared.verdicts.independent(first.signature),
        Rows::Dependent(_) => shared.verdicts.never(first.signature),
        Rows::Unknown(_) => (),
    }
    runs.keep();
    Ok(rows)
}

/// Whether answers depend on neighbours.
///
/// Three runs tell: the first task alone, all together, and the last with itself as often. The first is answered alike alone
/// and together, unless its place, the number of rows or its neighbours count; engines choose other kernels for other sizes,
/// so this is told by the largest of all elements. The last has the same place among as many rows in both joined
/// runs, hence the same kernels, and only its neighbours differ, so each column is compared by its own size. Whatever is
/// gathered over the rows (a largest, a mean, a sum so far) cannot be the same for both of them.
fn compare(runs: &mut Runs<'_>, tasks: &[&Task]) -> Result<Rows, Stop> {
    let (Some(first), Some(last)) = (tasks.first(), tasks.last()) else {
        return Ok(Rows::Unknown("there are no rows".to_owned()));
    };
    let own_rows = common_rows(&first.inputs).unwrap_or(1);
    let (Some(together), Some(again)) = (joined(tasks), joined(&vec![*last; tasks.len()])) else {
        return Ok(Rows::Unknown("the rows tried could not be joined".to_owned()));
    };
    let alone = runs.run(&first.inputs)?;
    let mut try_joined = |inputs: &[Tensor]| match runs.run(inputs) {
        Err(Stop::Failed(error)) if error.kind() != ErrorKind::Unavailable => {
            // What cannot be run alone either says nothing of joining.
            for task in tasks {
                runs.run(&task.inputs)?;
            }
            Ok(Err(Rows::Dependent(format!("joined rows are refused: {error}"))))
        }
        result => result.map(Ok),
    };
    let (together, again) = match (try_joined(&together)?, try_joined(&again)?) {
        (Ok(together), Ok(again)) => (together, again),
        (Err(refused), _) | (_, Err(refused)) => return Ok(refused),
    };
    let n_rows = own_rows * tasks.len();
    let mut is_telling = false;
    for (at, ((together, again), alone)) in together.iter().zip(&again).zip(&alone).enumerate() {
        if let Some(wrong) = [together, again].into_iter().find(|one| one.shape().n_rows() != Some(n_rows)) {
            let dims = wrong.shape().dims();
            return Ok(Rows::Dependent(format!(
                "output {at} of {n_rows} joined rows has the shape {dims:?}"
            )));
        }
        let part = |tensor: &Tensor, position: usize| tensor.rows(position * own_rows, own_rows);
        let place = tasks.len() - 1;
        let is_independent = part(together, 0).is_some_and(|row| of_the_largest(&row, alone))
            && (0..place).all(|other| {
                matches!((part(again, other), part(again, place)), (Some(a), Some(b)) if of_the_largest(&a, &b))
            })
            && matches!(
                (part(together, place), part(again, place)),
                (Some(a), Some(b)) if by_column(&a, &b, [together, again])
            );
        if !is_independent {
            let text = "is another when the row is joined with others";
            return Ok(Rows::Dependent(format!("output {at} of a row {text}")));
        }
        is_telling |= !are_alike(together, own_rows);
    }
    if is_telling {
        return Ok(Rows::Independent);
    }
    Ok(Rows::Unknown("different rows were all answered alike".to_owned()))
}

/// Runs batches of the sizes that the policy allows, for about as long as the budget; gives back the rows of the largest.
pub(crate) fn sizes(
    shared: &Shared,
    runner: &mut Runner,
    tasks: &[Task],
    budget: Duration,
    called_off: CalledOff<'_>,
) -> Result<usize, Error> {
    let policy = shared.policy();
    let classes = || tasks.iter().map(|task| Some(shared.classify(task, &policy).ok()?.key));
    let mut keys = classes();
    let (Some(batching), Some(task), Some(Some(Some(first)))) =
        (&policy.batching, tasks.first(), keys.next())
    else {
        return Ok(0);
    };
    let max = batching.max_batch_size.get().min(MAX_ROWS);
    if max == 1 || !keys.all(|key| key.as_ref() == Some(&Some(first.clone()))) {
        return Ok(0);
    }
    let sizes = (0..usize::BITS).map(|at| 1usize << at).take_while(|&size| size <= max);
    let allowed = batching.allowed_batch_sizes.iter().copied().filter(|&size| size <= max);
    let sizes: Vec<usize> =
        if batching.allowed_batch_sizes.is_empty() { sizes.collect() } else { allowed.collect() };
    let runs = Runs { shared, runner, task, called_off, times: Vec::new() };
    let mut sweep = Sweep { runs, budget, spent: Duration::ZERO, best: 0.0, n_fallen: 0, largest: 0 };
    for size in sizes {
        let Some(inputs) = repeated(tasks, size) else { break };
        match sweep.measure(size, &inputs) {
            Ok(true) => (),
            Ok(false) | Err(Stop::CalledOff) => break,
            Err(Stop::Failed(error)) => return Err(error),
        }
    }
    Ok(sweep.largest)
}

/// The sizes as they are measured one after the other.
struct Sweep<'a> {
    runs: Runs<'a>,
    budget: Duration,
    /// By runs; waiting for threads does not count.
    spent: Duration,
    best: f64,
    n_fallen: usize,
    largest: usize,
}

impl Sweep<'_> {
    /// Measures batches of this size; says whether to go on with the next.
    fn measure(&mut self, n_rows: usize, inputs: &[Tensor]) -> Result<bool, Stop> {
        self.runs.times.clear();
        let mut own = Duration::ZERO;
        while self.runs.times.len() < N_RUNS {
            self.runs.run(inputs)?;
            own = own.saturating_add(self.runs.last());
            self.spent = self.spent.saturating_add(self.runs.last());
            let is_dear = self.runs.times.len() > 1 && own > self.budget / CHEAP;
            if is_dear || self.spent.saturating_add(self.runs.last()) > self.budget {
                break;
            }
        }
        if self.runs.times.len() > 1 {
            self.runs.times.remove(0);
        }
        self.runs.keep();
        self.largest = n_rows;
        let fastest = self.runs.times.iter().map(|&(_, time)| time).min().unwrap_or_default();
        let rate = n_rows as f64 / fastest.as_secs_f64().max(1e-9);
        self.n_fallen = if rate < FALLEN * self.best { self.n_fallen + 1 } else { 0 };
        self.best = self.best.max(rate);
        Ok(self.n_fallen < N_FALLEN && self.spent.saturating_add(fastest.saturating_mul(2)) <= self.budget)
    }
}

/// So many rows of each input: those of the tasks, over and over. `None` when they would be too large.
fn repeated(tasks: &[Task], n_rows: usize) -> Option<Vec<Tensor>> {
    let n_inputs = tasks.first()?.inputs.len();
    let inputs = (0..n_inputs).map(|at| {
        let own: Vec<Tensor> =
            tasks.iter().map(|task| task.inputs.get(at).cloned()).collect::<Option<_>>()?;
        let all = Tensor::concat(&own).ok()?;
        let have = all.shape().n_rows()?;
        if all.n_bytes() / have.max(1) > MAX_BYTES / n_rows {
            return None;
        }
        let mut parts = vec![all.clone(); n_rows / have];
        parts.extend(all.rows(0, n_rows % have).filter(|rest| rest.shape().n_rows() != Some(0)));
        Tensor::concat(&parts).ok()
    });
    inputs.collect()
}
