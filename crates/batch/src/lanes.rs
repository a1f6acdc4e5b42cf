//! The lanes of one model: admission, the threads, shutting down.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use salver_engine::{Error as EngineError, ErrorKind, Model};
use salver_tensor::Tensor;

use crate::cost::Costs;
use crate::queue::{Key, Queue, Queued, is_joinable, key};
use crate::session::{Pool, Runner};
use crate::stats::{Stats, count};
use crate::{
    Clock, Config, Decision, Done, Error, Pending, QueueView, Refused, RunError, Snapshot, Waiting, decide,
    run,
};

/// One request to the model, checked against its signature.
#[derive(Debug, Clone)]
pub struct Task {
    /// The position of the signature in the model's.
    pub signature: usize,
    /// All inputs of the signature, in its order.
    pub inputs: Vec<Tensor>,
    /// Positions in the signature's outputs, in the order wanted.
    pub outputs: Vec<usize>,
    /// When the answer is of no more use.
    pub deadline: Option<Instant>,
}

/// The lanes of one loaded model. All methods can be called from any thread; only [`LaneSet::warm_up`],
/// [`LaneSet::shutdown`] and dropping block.
///
/// Dropping ends what waits with [`RunError::Closed`] and blocks until the lanes have finished what they run, so drop
/// it on a thread that may wait.
pub struct LaneSet {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

pub(crate) struct Shared {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) costs: Costs,
    pub(crate) stats: Stats,
    /// Whether rows of requests can be joined, per signature.
    joinable: Vec<bool>,
    pool: Pool,
    queue: Mutex<Queue>,
    /// Length of the queue, for readers that do without the lock.
    n_waiting: AtomicUsize,
    closing: AtomicBool,
    /// Signalled when a lane may have something to do.
    work: Condvar,
    /// Signalled when a batch is done.
    done: Condvar,
}

impl fmt::Debug for LaneSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneSet").field("model", &self.shared.model).finish_non_exhaustive()
    }
}

impl LaneSet {
    /// Starts the lanes. Each has a session and a thread of its own.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that are not supported, [`Error::Session`] when the engine cannot make a session,
    /// [`Error::Thread`] when a thread cannot be started.
    pub fn start(model: Arc<dyn Model>, config: Config, clock: Arc<dyn Clock>) -> Result<LaneSet, Error> {
        config.check()?;
        let signatures = model.signatures();
        let shared = Arc::new(Shared {
            costs: Costs::new(signatures.len()),
            stats: Stats::default(),
            joinable: signatures.iter().map(|signature| is_joinable(signature)).collect(),
            pool: Pool::new(config.n_inline.get()),
            queue: Mutex::default(),
            n_waiting: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            work: Condvar::new(),
            done: Condvar::new(),
            model,
            config,
            clock,
        });
        let mut lanes = LaneSet { shared, threads: Vec::new() };
        for n in 0..lanes.shared.config.n_lanes.get() {
            let runner = Runner::new(lanes.shared.model.session().map_err(Error::Session)?);
            let shared = Arc::clone(&lanes.shared);
            let thread = std::thread::Builder::new().name(format!("lane-{n}"));
            lanes.threads.push(thread.spawn(move || shared.lane(runner)).map_err(Error::Thread)?);
        }
        Ok(lanes)
    }

    /// Takes a task, or refuses it at once. Blocks only for as long as an inline run takes (see the crate's text); its
    /// result is then ready.
    ///
    /// # Errors
    /// [`Refused`] when the queue is full, the task too large for a batch, or the lanes are shutting down.
    pub fn submit(&self, task: Task) -> Result<Pending, Refused> {
        let shared = &self.shared;
        let now = shared.clock.now();
        if shared.closing.load(Ordering::Relaxed) {
            return Err(Refused::Closed);
        }
        if task.deadline.is_some_and(|deadline| deadline <= now) {
            count(&shared.stats.expired, 1);
            return Ok(Pending::ready(Err(RunError::DeadlineExceeded)));
        }
        let n_bytes = task.inputs.iter().map(Tensor::n_bytes).sum();
        let is_joinable = shared.joinable.get(task.signature).copied().unwrap_or(false);
        let (key, n_rows) = key(&task, is_joinable, shared.config.batching.as_ref())?;
        if let Some(result) = shared.run_inline(&task, n_bytes, n_rows, now) {
            count(&shared.stats.submitted, 1);
            return Ok(Pending::ready(result));
        }
        shared.enqueue(Waiting { key, n_rows, arrived: now, deadline: task.deadline }, task, n_bytes)
    }

    /// Runs the task `n_runs` times on the calling thread, takes the time of the last run as the first estimate of its
    /// cost, and gives that time back. Blocks; the queue, batching and the deadline play no part.
    ///
    /// # Errors
    /// The engine's.
    pub fn warm_up(&self, task: &Task, n_runs: NonZeroUsize) -> Result<Duration, EngineError> {
        let mut result = Ok(Duration::ZERO);
        let shared = &self.shared;
        shared.model.enter(shared.config.threads, &mut || result = shared.warm_up(task, n_runs));
        result
    }

    /// What has been done so far and what waits now. Takes the queue's lock for a moment.
    pub fn stats(&self) -> Snapshot {
        let queue = self.shared.lock();
        Snapshot {
            n_waiting: queue.waiting.len(),
            n_waiting_bytes: queue.n_bytes,
            n_running: queue.n_running,
            ..self.shared.stats.snapshot()
        }
    }

    /// Takes no more tasks and blocks until those taken are done, or until the deadline, when those that still wait end
    /// with [`RunError::Closed`]. Says whether all were done.
    pub fn shutdown(&self, deadline: Instant) -> bool {
        let shared = &self.shared;
        let mut queue = shared.lock();
        shared.closing.store(true, Ordering::Relaxed);
        shared.work.notify_all();
        while !queue.waiting.is_empty() || queue.n_running > 0 {
            let left = deadline.saturating_duration_since(shared.clock.now());
            if left.is_zero() {
                break;
            }
            queue = shared.done.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let is_done = queue.waiting.is_empty() && queue.n_running == 0;
        queue.stopped = true;
        let rest = queue.take_all();
        shared.n_waiting.store(0, Ordering::Relaxed);
        shared.work.notify_all();
        drop(queue);
        rest.into_iter().for_each(|queued| queued.ticket.answer(Err(RunError::Closed)));
        is_done
    }

    /// Lets the lanes look at their clock again. Needed only after a clock was moved by hand.
    pub fn wake(&self) {
        let _queue = self.shared.lock();
        self.shared.work.notify_all();
        self.shared.done.notify_all();
    }
}

impl Drop for LaneSet {
    fn drop(&mut self) {
        let now = self.shared.clock.now();
        self.shutdown(now);
        for thread in self.threads.drain(..) {
            // What an engine's own panic outside a run leaves behind is not known; the lane is gone either way.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the task here if that is cheap, this thread is inside the engine and a session is free.
    fn run_inline(
        &self,
        task: &Task,
        n_bytes: usize,
        n_rows: usize,
        now: Instant,
    ) -> Option<Result<Done, RunError>> {
        let estimate = self.costs.estimate(task.signature, n_bytes)?;
        if estimate >= self.config.inline_below || !self.model.is_entered() {
            return None;
        }
        if self.config.batching.is_some() && self.n_waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let mut runner = self.pool.try_take()?;
        let result = runner.run(&*self.model, task.signature, &task.inputs, &task.outputs);
        let ran = self.clock.now().saturating_duration_since(now);
        self.costs.record(task.signature, n_bytes, ran);
        count(&self.stats.inline_runs, 1);
        let done = result.map(|outputs| Done { outputs, queued: Duration::ZERO, ran, batch_size: n_rows });
        Some(done.map_err(RunError::Engine))
    }

    fn enqueue(
        self: &Arc<Self>,
        waiting: Waiting<Key>,
        task: Task,
        n_bytes: usize,
    ) -> Result<Pending, Refused> {
        let mut queue = self.lock();
        if queue.stopped || self.closing.load(Ordering::Relaxed) {
            return Err(Refused::Closed);
        }
        queue.admit(n_bytes, &self.config).inspect_err(|_| count(&self.stats.refused, 1))?;
        count(&self.stats.submitted, 1);
        let (id, reply) = queue.push(waiting, task, n_bytes);
        self.n_waiting.store(queue.waiting.len(), Ordering::Relaxed);
        self.work.notify_one();
        Ok(Pending::queued(id, Arc::clone(self), reply))
    }

    /// Takes a task out of the queue whose caller has left.
    pub(crate) fn cancel(&self, id: u64) {
        let mut queue = self.lock();
        let cancelled = queue.take_id(id);
        self.n_waiting.store(queue.waiting.len(), Ordering::Relaxed);
        if cancelled.is_some() {
            count(&self.stats.cancelled, 1);
            self.done.notify_all();
        }
        drop(queue);
    }

    fn lane(&self, mut runner: Runner) {
        self.model.enter(self.config.threads, &mut || {
            while let Some(batch) = self.next_batch() {
                let n_tasks = batch.len();
                let ran = run::run(self, &mut runner, batch);
                self.lock().finished(n_tasks, ran);
                self.done.notify_all();
            }
        });
    }

    /// Blocks until there is something to run; `None` when there never will be again.
    fn next_batch(&self) -> Option<Vec<Queued>> {
        let mut queue = self.lock();
        loop {
            let now = self.clock.now();
            let view = QueueView { waiting: &queue.waiting, closing: self.closing.load(Ordering::Relaxed) };
            match decide(now, &view, self.config.batching.as_ref()) {
                Decision::Start(positions) => return Some(self.start(&mut queue, &positions)),
                Decision::Expire(positions) => {
                    let expired = queue.take(&positions);
                    self.n_waiting.store(queue.waiting.len(), Ordering::Relaxed);
                    count(&self.stats.expired, expired.len());
                    self.done.notify_all();
                    drop(queue);
                    let over = |queued: Queued| queued.ticket.answer(Err(RunError::DeadlineExceeded));
                    expired.into_iter().for_each(over);
                    queue = self.lock();
                }
                Decision::Wait(_) if queue.stopped => return None,
                Decision::Wait(until) => queue = self.wait(queue, until, now),
            }
        }
    }

    fn start(&self, queue: &mut Queue, positions: &[usize]) -> Vec<Queued> {
        let batch = queue.take(positions);
        queue.n_running += batch.len();
        self.n_waiting.store(queue.waiting.len(), Ordering::Relaxed);
        if !queue.waiting.is_empty() {
            // Another lane may only know of what was there when it fell asleep.
            self.work.notify_one();
        }
        batch
    }

    fn wait<'a>(
        &self,
        queue: MutexGuard<'a, Queue>,
        until: Option<Instant>,
        now: Instant,
    ) -> MutexGuard<'a, Queue> {
        match until {
            None => self.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let left = until.saturating_duration_since(now);
                self.work.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    fn warm_up(&self, task: &Task, n_runs: NonZeroUsize) -> Result<Duration, EngineError> {
        let no_session = || EngineError::new(ErrorKind::Internal, "no session to warm up with");
        let mut runner = self.pool.take().ok_or_else(no_session)?;
        let mut ran = Duration::ZERO;
        for _ in 0..n_runs.get() {
            let started = self.clock.now();
            runner.run(&*self.model, task.signature, &task.inputs, &task.outputs)?;
            ran = self.clock.now().saturating_duration_since(started);
        }
        self.costs.seed(task.signature, task.inputs.iter().map(Tensor::n_bytes).sum(), ran);
        Ok(ran)
    }
}

#[cfg(test)]
mod tests;
