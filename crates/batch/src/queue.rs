//! What waits for a lane, and the numbers that go with it.

use std::collections::VecDeque;
use std::time::Duration;

use salver_tensor::{Signature, Tensor};
use tokio::sync::oneshot;

use crate::{Batching, Config, Done, Refused, RunError, Task, Waiting};

/// Tasks with equal keys may be joined: one signature, one choice of outputs, rows of one shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    signature: usize,
    outputs: Vec<usize>,
    row_dims: Vec<Vec<usize>>,
}

/// The key and the rows of a task; no key and 1 row when it must run alone.
pub(crate) fn key(
    task: &Task,
    is_joinable: bool,
    batching: Option<&Batching>,
) -> Result<(Option<Key>, usize), Refused> {
    let (Some(batching), true, Some(n_rows)) = (batching, is_joinable, common_rows(&task.inputs)) else {
        return Ok((None, 1));
    };
    let max_batch_size = batching.max_batch_size.get();
    if n_rows > max_batch_size {
        return Err(Refused::TooLarge { n_rows, max_batch_size });
    }
    let row_dims = task.inputs.iter().map(|input| input.shape().row_dims().to_vec()).collect();
    Ok((Some(Key { signature: task.signature, outputs: task.outputs.clone(), row_dims }), n_rows))
}

/// The number of rows that all inputs have; `None` when they differ or are none.
fn common_rows(inputs: &[Tensor]) -> Option<usize> {
    let n_rows = inputs.first()?.shape().n_rows().filter(|&n_rows| n_rows > 0)?;
    inputs.iter().all(|input| input.shape().n_rows() == Some(n_rows)).then_some(n_rows)
}

/// Whether the rows of several requests of this signature could be joined.
pub(crate) fn is_joinable(signature: &Signature) -> bool {
    let mut specs = signature.inputs().iter().chain(signature.outputs());
    !signature.inputs().is_empty() && specs.all(|spec| spec.dims.has_open_rows())
}

/// What the lanes need of a task that the policy does not.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) id: u64,
    pub(crate) task: Task,
    pub(crate) n_bytes: usize,
    pub(crate) reply: oneshot::Sender<Result<Done, RunError>>,
}

impl Ticket {
    /// Answers the caller, who may have left.
    pub(crate) fn answer(self, result: Result<Done, RunError>) {
        drop(self.reply.send(result));
    }
}

/// A task on its way from the queue to its answer.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) waiting: Waiting<Key>,
    pub(crate) ticket: Ticket,
}

/// Tasks in order of arrival: what the policy sees and what it does not, at equal positions.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) waiting: VecDeque<Waiting<Key>>,
    tickets: VecDeque<Ticket>,
    pub(crate) n_bytes: usize,
    pub(crate) n_running: usize,
    next_id: u64,
    /// Time of a lane per task, about.
    task_time: Duration,
    /// No lane starts anything any more.
    pub(crate) stopped: bool,
}

impl Queue {
    /// Whether a task of this size may wait.
    pub(crate) fn admit(&self, n_bytes: usize, config: &Config) -> Result<(), Refused> {
        let fits_bytes = self.n_bytes == 0 || self.n_bytes.saturating_add(n_bytes) <= config.max_queued_bytes;
        if self.waiting.len() < config.max_queue.get() && fits_bytes {
            return Ok(());
        }
        Err(Refused::QueueFull { n_waiting: self.waiting.len(), retry_after: self.drain_time(config) })
    }

    /// How long the lanes take for what waits, about; between a millisecond and a minute.
    fn drain_time(&self, config: &Config) -> Duration {
        let n_waiting = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        let n_lanes = u32::try_from(config.n_lanes.get()).unwrap_or(u32::MAX);
        let total = self.task_time.saturating_mul(n_waiting) / n_lanes;
        total.clamp(Duration::from_millis(1), Duration::from_secs(60))
    }

    pub(crate) fn push(
        &mut self,
        waiting: Waiting<Key>,
        task: Task,
        n_bytes: usize,
    ) -> (u64, oneshot::Receiver<Result<Done, RunError>>) {
        let (reply, answer) = oneshot::channel();
        let id = self.next_id;
        self.next_id += 1;
        self.n_bytes += n_bytes;
        self.waiting.push_back(waiting);
        self.tickets.push_back(Ticket { id, task, n_bytes, reply });
        (id, answer)
    }

    /// Takes out the tasks at these positions, which ascend.
    pub(crate) fn take(&mut self, positions: &[usize]) -> Vec<Queued> {
        let mut taken: Vec<Queued> = positions.iter().rev().filter_map(|&at| self.remove(at)).collect();
        taken.reverse();
        taken
    }

    pub(crate) fn take_all(&mut self) -> Vec<Queued> {
        let all: Vec<usize> = (0..self.waiting.len()).collect();
        self.take(&all)
    }

    /// Takes out the task of this number, if it still waits. Numbers ascend, whatever was taken out between.
    pub(crate) fn take_id(&mut self, id: u64) -> Option<Queued> {
        let at = self.tickets.binary_search_by_key(&id, |ticket| ticket.id).ok()?;
        self.remove(at)
    }

    fn remove(&mut self, at: usize) -> Option<Queued> {
        let queued = Queued { waiting: self.waiting.remove(at)?, ticket: self.tickets.remove(at)? };
        self.n_bytes -= queued.ticket.n_bytes;
        Some(queued)
    }

    /// A lane has run so many tasks in this time.
    pub(crate) fn finished(&mut self, n_tasks: usize, ran: Duration) {
        self.n_running -= n_tasks;
        let per_task = ran / u32::try_from(n_tasks.max(1)).unwrap_or(u32::MAX);
        self.task_time =
            if self.task_time.is_zero() { per_task } else { (self.task_time * 7 + per_task) / 8 };
    }
}
