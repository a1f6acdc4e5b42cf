//! How a task comes in: refused, run where it is, cut into parts, or queued.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Shared, Task};
use crate::key::{Class, Key, probe};
use crate::policy::{Admission, Newcomer, Why, admit};
use crate::queue::Queue;
use crate::stats::count;
use crate::{Batching, Done, N_PRIORITIES, Pending, Policy, Refused, RunError, Waiting};

impl Shared {
    pub(super) fn submit(self: &Arc<Self>, mut task: Task) -> Result<Pending, Refused> {
        let now = self.clock.now();
        if self.closing() {
            return Err(Refused::Closed);
        }
        let policy = self.policy();
        if task.deadline.is_none() {
            task.deadline = policy.default_timeout.and_then(|timeout| now.checked_add(timeout));
        }
        if task.deadline.is_some_and(|deadline| deadline <= now) {
            self.count_expired(1);
            return Ok(Pending::ready(Err(RunError::DeadlineExceeded)));
        }
        task.priority = task.priority.clamp(1, N_PRIORITIES as u8);
        let class = self.classify(&task, &policy)?;
        let n_bytes = Queue::bytes_of(&task);
        if let Some(result) = self.run_inline(&task, &policy, n_bytes, class.n_rows, now) {
            count(&self.stats.submitted, 1);
            return Ok(Pending::ready(result));
        }
        match &policy.batching {
            Some(batching) if class.n_rows > batching.max_batch_size.get() && class.key.is_some() => {
                self.enqueue_parts(&task, &class, batching, &policy, now)
            }
            _ => self.enqueue(waiting(&task, class, now), task, n_bytes, &policy),
        }
    }

    /// Runs the task here if that is cheap, nothing waits, this thread is inside the engine and a session is free. A model with
    /// loops has a lane, since what was cheap may take forever the next time, and only who waits can stop waiting.
    fn run_inline(
        &self,
        task: &Task,
        policy: &Policy,
        n_bytes: usize,
        n_rows: usize,
        now: Instant,
    ) -> Option<Result<Done, RunError>> {
        let estimate = self.run_times.estimate(task.signature, n_bytes)?;
        if estimate >= policy.inline_below || !self.model.is_entered() || self.model.has_loops() {
            return None;
        }
        if self.n_waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let mut runner = self.pool.try_take()?;
        let result = runner.run(&*self.model, task.signature, &task.inputs, &task.outputs);
        let ran = self.clock.now().saturating_duration_since(now);
        self.run_times.record(task.signature, n_bytes, ran);
        count(&self.stats.inline_runs, 1);
        let done = result.map(|outputs| Done { outputs, queued: Duration::ZERO, ran, batch_size: n_rows });
        Some(done.map_err(RunError::Engine))
    }

    fn enqueue(
        self: &Arc<Self>,
        waiting: Waiting<Key>,
        task: Task,
        n_bytes: usize,
        policy: &Policy,
    ) -> Result<Pending, Refused> {
        let mut queue = self.lock();
        if queue.stopped || self.closing() {
            return Err(Refused::Closed);
        }
        let mut waiting = waiting;
        let displaced = self.admit(&mut queue, &mut waiting, n_bytes, policy)?;
        count(&self.stats.submitted, 1);
        let pending = self.push(&mut queue, waiting, task, n_bytes);
        drop(queue);
        if let Some((queued, refused)) = displaced {
            queued.ticket.answer(Err(RunError::Refused(refused)));
        }
        Ok(pending)
    }

    /// Cuts the task into parts of equal size, no larger than a batch. All of them are taken or none.
    fn enqueue_parts(
        self: &Arc<Self>,
        task: &Task,
        class: &Class,
        batching: &Batching,
        policy: &Policy,
        now: Instant,
    ) -> Result<Pending, Refused> {
        let n_rows = class.n_rows;
        let n_parts = n_rows.div_ceil(batching.max_batch_size.get());
        let size = n_rows.div_ceil(n_parts);
        let part = |start: usize| {
            let n_rows = size.min(n_rows - start);
            let inputs: Option<Vec<_>> = task.inputs.iter().map(|input| input.rows(start, n_rows)).collect();
            let inputs = inputs.expect("the rows were counted");
            (Task { inputs, outputs: task.outputs.clone(), ..*task }, Class { n_rows, ..class.clone() })
        };
        let mut queue = self.lock();
        if queue.stopped || self.closing() {
            return Err(Refused::Closed);
        }
        // As many parts as there is room for, or any number when nothing else waits: as with bytes.
        let n_waiting = queue.waiting.len();
        if n_waiting > 0 && n_waiting.saturating_add(n_parts) > policy.max_queue.get() {
            count(&self.stats.refused, 1);
            return Err(Refused::QueueFull { n_waiting, retry_after: Duration::from_millis(1) });
        }
        let mut whole = waiting(task, class.clone(), now);
        let displaced = self.admit(&mut queue, &mut whole, Queue::bytes_of(task), policy)?;
        count(&self.stats.submitted, 1);
        count(&self.stats.split, 1);
        let parts = (0..n_rows).step_by(size).map(part).map(|(task, class)| {
            let n_bytes = Queue::bytes_of(&task);
            let waiting = Waiting { kind: whole.kind, ..waiting(&task, class, now) };
            self.push(&mut queue, waiting, task, n_bytes)
        });
        let parts = parts.collect();
        self.work.notify_all();
        drop(queue);
        if let Some((queued, refused)) = displaced {
            queued.ticket.answer(Err(RunError::Refused(refused)));
        }
        Ok(Pending::parts(parts))
    }

    /// Lets the task in, or says why not. A task that has to go for it comes back, with what it is told.
    fn admit(
        &self,
        queue: &mut Queue,
        waiting: &mut Waiting<Key>,
        n_bytes: usize,
        policy: &Policy,
    ) -> Result<Option<(crate::queue::Queued, Refused)>, Refused> {
        let admission = {
            let may_slip = || self.cores.as_ref().is_some_and(crate::cores::Member::may_slip);
            let slips = self.takes_short(waiting.kind, waiting.n_rows) && may_slip();
            let n_startable = self.n_startable(waiting.arrived).max(usize::from(slips));
            let view = queue.view(self.config.n_lanes.get(), n_startable, false);
            let newcomer = Newcomer {
                task: waiting,
                n_bytes,
                limit: queue.limit.bound(),
                n_running: queue.n_running,
                turns: queue.turns(),
            };
            admit(waiting.arrived, &view, &newcomer, &*self.costs(), policy)
        };
        let n_waiting = queue.waiting.len();
        match admission {
            Admission::Take => Ok(None),
            Admission::Displace(at, why) => {
                let retry_after = match why {
                    Why::Full { retry_after } | Why::Late { retry_after } | Why::Limited { retry_after } => {
                        retry_after
                    }
                };
                count(&self.stats.displaced, 1);
                let queued = queue.take(&[at]).pop();
                Ok(queued.map(|queued| (queued, Refused::Displaced { retry_after })))
            }
            Admission::Refuse(Why::Full { retry_after }) => {
                count(&self.stats.refused, 1);
                Err(Refused::QueueFull { n_waiting, retry_after })
            }
            Admission::Refuse(Why::Late { .. }) if queue.is_probe_due(waiting.kind) => {
                waiting.kind = probe(waiting.kind);
                Ok(None)
            }
            Admission::Refuse(Why::Late { retry_after }) => {
                count(&self.stats.refused_late, 1);
                Err(Refused::TooLate { retry_after })
            }
            Admission::Refuse(Why::Limited { retry_after }) => {
                count(&self.stats.refused_limited, 1);
                Err(Refused::Limited { retry_after })
            }
        }
    }

    fn push(
        self: &Arc<Self>,
        queue: &mut Queue,
        waiting: Waiting<Key>,
        task: Task,
        n_bytes: usize,
    ) -> Pending {
        let deadline = waiting.deadline;
        let (id, reply) = queue.push(waiting, task, n_bytes);
        self.n_waiting.store(queue.waiting.len(), Ordering::Relaxed);
        if deadline.is_some_and(|new| queue.known_deadline.is_none_or(|known| new < known)) {
            self.call_from_line(queue);
        }
        self.work.notify_one();
        Pending::queued(id, Arc::clone(self), reply)
    }

    /// Takes a task out of the queue whose caller has left.
    pub(crate) fn cancel(&self, id: u64) {
        let mut queue = self.lock();
        let cancelled = queue.take_id(id);
        self.n_waiting.store(queue.waiting.len(), Ordering::Relaxed);
        if cancelled.is_some() {
            count(&self.stats.cancelled, 1);
            self.done.notify_all();
            if queue.waiting.is_empty() {
                self.call_from_line(&queue);
            }
        }
        drop(queue);
    }
}

/// What the policy is told of the task.
fn waiting(task: &Task, class: Class, now: Instant) -> Waiting<Key> {
    let Class { key, kind, n_rows } = class;
    let Task { deadline, priority, caller, .. } = *task;
    Waiting { key, kind, n_rows, arrived: now, deadline, priority, caller, turn: 0 }
}
