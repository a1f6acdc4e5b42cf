//! The lanes of one model: admission, the threads, shutting down.

mod lane;
mod submit;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use salver_engine::{Error as EngineError, ErrorKind, Model};
use salver_tensor::Tensor;

use crate::cores::{Member, Permit};
use crate::cost::Costs;
use crate::inline::RunTimes;
use crate::key::{classify, is_joinable};
use crate::queue::Queue;
use crate::session::{Pool, Runner};
use crate::stats::{Stats, count};
use crate::trial::{CalledOff, Rows};
use crate::verdicts::{Verdict, Verdicts};
use crate::{
    Clock, Config, DEFAULT_PRIORITY, Error, Forecast, Limit, Pending, Policy, Refused, RunError, Snapshot,
};

/// How often a run that waits for threads looks whether it is called off.
const LOOK: Duration = Duration::from_millis(50);

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
    /// 1 (served first) to 9; what lies outside counts as the nearest.
    pub priority: u8,
    /// Who asks: equal for tasks of one caller, who takes turns with others where [`Policy::is_fair`] says so.
    pub caller: u64,
}

impl Task {
    /// A task without a deadline, of the usual priority, of nobody in particular.
    pub fn new(signature: usize, inputs: Vec<Tensor>, outputs: Vec<usize>) -> Task {
        Task { signature, inputs, outputs, deadline: None, priority: DEFAULT_PRIORITY, caller: 0 }
    }
}

/// The lanes of one loaded model. All methods can be called from any thread; only [`LaneSet::warm_up`],
/// [`LaneSet::check_rows`], [`LaneSet::try_sizes`], [`LaneSet::shutdown`] and dropping block.
///
/// Dropping ends what waits with [`RunError::Closed`] and blocks until the lanes have finished what they run, so drop
/// it on a thread that may wait. Runs that do not end within [`Config::unload_grace`] are abandoned
/// ([`Model::abandon`]); lanes whose runs do not end even then are left behind, and the model with them.
pub struct LaneSet {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

pub(crate) struct Shared {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) config: Config,
    policy: ArcSwap<Policy>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) run_times: RunTimes,
    pub(crate) stats: Stats,
    /// What runs cost. Locked after the queue, if both are.
    costs: Mutex<Costs>,
    /// The threads that all models share.
    cores: Option<Member>,
    /// Whether rows of requests can be joined.
    pub(crate) verdicts: Verdicts,
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
    /// [`Error::Config`] for settings that contradict each other, [`Error::Session`] when the engine cannot make a session,
    /// [`Error::Thread`] when a thread cannot be started.
    pub fn start(model: Arc<dyn Model>, config: Config, clock: Arc<dyn Clock>) -> Result<LaneSet, Error> {
        config.check()?;
        let signatures = model.signatures();
        let limit = Limit::new(2 * config.n_lanes.get(), config.policy.max_queue.get());
        let shared = Arc::new(Shared {
            run_times: RunTimes::new(signatures.len()),
            stats: Stats::default(),
            costs: Mutex::default(),
            cores: config.cores.as_ref().map(|cores| cores.join(config.threads, Arc::clone(&clock))),
            verdicts: Verdicts::new(signatures.iter().map(|signature| is_joinable(signature))),
            pool: Pool::new(config.n_inline.get()),
            queue: Mutex::new(Queue::new(limit)),
            n_waiting: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            work: Condvar::new(),
            done: Condvar::new(),
            model,
            policy: ArcSwap::from_pointee(config.policy.clone()),
            config,
            clock,
        });
        let mut lanes = LaneSet { shared, threads: Vec::new() };
        for n in 0..lanes.shared.config.n_lanes.get() {
            let runner = Runner::new(lanes.shared.model.session().map_err(Error::Session)?);
            let processor = lanes.shared.config.first_processor(n);
            let shared = Arc::clone(&lanes.shared);
            let thread = std::thread::Builder::new().name(format!("lane-{n}"));
            lanes
                .threads
                .push(thread.spawn(move || shared.lane(n, processor, runner)).map_err(Error::Thread)?);
        }
        Ok(lanes)
    }

    /// Takes a task, or refuses it at once. Blocks only for as long as an inline run takes (see the crate's text); its
    /// result is then ready.
    ///
    /// # Errors
    /// [`Refused`] when the queue is full, the task too large, foreseen to be answered too late, or the lanes are
    /// shutting down.
    pub fn submit(&self, task: Task) -> Result<Pending, Refused> {
        self.shared.submit(task)
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

    /// Runs some of these tasks (of one signature and one choice of outputs) alone and joined, whether the policy joins any or not, and
    /// keeps what comes of it: if answers depend on what rows are joined with, the signature is never joined from then on.
    /// What the runs cost is kept too. Tells nothing of tasks that are all alike. Blocks; waits for threads like a lane.
    ///
    /// # Errors
    /// The engine's, for tasks that it cannot run even alone.
    pub fn check_rows(&self, tasks: &[Task], called_off: CalledOff<'_>) -> Result<Rows, EngineError> {
        self.on_trial(Rows::Unknown(String::new()), |shared, runner| {
            crate::trial::check(shared, runner, tasks, called_off)
        })
    }

    /// Runs the rows of these tasks (of one signature and one choice of outputs) together, in batches of 1, 2, 4 and so on up
    /// to the largest that the policy allows, for about as long as `budget`; takes the times as first estimates. Gives back
    /// the rows of the largest: 0 where rows are not joined. Blocks; waits for threads like a lane.
    ///
    /// # Errors
    /// The engine's.
    pub fn try_sizes(
        &self,
        tasks: &[Task],
        budget: Duration,
        called_off: CalledOff<'_>,
    ) -> Result<usize, EngineError> {
        self.on_trial(0, |shared, runner| crate::trial::sizes(shared, runner, tasks, budget, called_off))
    }

    fn on_trial<T: Send>(
        &self,
        nothing: T,
        body: impl Fn(&Shared, &mut Runner) -> Result<T, EngineError> + Sync,
    ) -> Result<T, EngineError> {
        let shared = &self.shared;
        let mut result = Ok(nothing);
        shared.model.enter(shared.config.threads, &mut || {
            result = shared.warm_up_runner().and_then(|mut runner| body(shared, &mut runner));
        });
        result
    }

    /// Whether rows of this signature may be joined, as far as is known.
    pub fn verdict(&self, signature: usize) -> Verdict {
        self.shared.verdicts.get(signature)
    }

    /// Takes in what runs cost, as an earlier process or `salver tune` measured it: rows and time of runs of this task's kind.
    pub fn seed(&self, task: &Task, runs: &[(usize, Duration)]) {
        let shared = &self.shared;
        let policy = shared.policy();
        if let Ok(class) = shared.classify(task, &policy) {
            let mut costs = shared.costs();
            runs.iter().for_each(|&(n_rows, ran)| costs.record(class.kind, n_rows, ran));
        }
    }

    /// Changes the policy. What waits stays, and is served by the new one.
    ///
    /// # Errors
    /// As [`Policy::check`]; nothing is changed then.
    pub fn set_policy(&self, policy: Policy) -> Result<(), Error> {
        policy.check()?;
        let shared = &self.shared;
        let mut queue = shared.lock();
        queue.limit.set_most(policy.max_queue.get());
        shared.policy.store(Arc::new(policy));
        shared.wake(&queue);
        drop(queue);
        Ok(())
    }

    /// The policy as it is.
    pub fn policy(&self) -> Arc<Policy> {
        self.shared.policy.load_full()
    }

    /// What has been done so far and what waits now. Takes the queue's lock for a moment.
    pub fn stats(&self) -> Snapshot {
        let queue = self.shared.lock();
        let is_steady = {
            let costs = self.shared.costs();
            costs.iter().all(|(kind, _)| costs.is_steady(kind))
        };
        Snapshot {
            n_waiting: queue.waiting.len(),
            n_waiting_bytes: queue.n_bytes,
            n_running: queue.n_running,
            is_steady,
            limit: queue.limit.bound(),
            ..self.shared.stats.snapshot()
        }
    }

    /// What runs cost, as far as is known: signature and cost model of each kind of task that ran on a lane.
    pub fn costs(&self) -> Vec<(usize, crate::CostModel)> {
        let costs = self.shared.costs();
        costs.iter().map(|(kind, model)| (crate::key::signature_of(kind), model.clone())).collect()
    }

    /// Takes no more tasks and blocks until those taken are done, or until the deadline, when those that still wait end
    /// with [`RunError::Closed`]. Says whether all were done.
    pub fn shutdown(&self, deadline: Instant) -> bool {
        let shared = &self.shared;
        shared.close();
        let mut queue = shared.lock();
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
        shared.wake(&queue);
        drop(queue);
        rest.into_iter().for_each(|queued| queued.ticket.answer(Err(RunError::Closed)));
        is_done
    }

    /// Lets the lanes look at their clock again. Needed only after a clock was moved by hand.
    pub fn wake(&self) {
        self.shared.wake(&self.shared.lock());
    }
}

impl Drop for LaneSet {
    fn drop(&mut self) {
        let shared = &self.shared;
        self.shutdown(shared.clock.now());
        let grace = shared.config.unload_grace;
        if !shared.runs_end(grace) {
            tracing::warn!(
                "runs of a model that is unloaded have not ended within {grace:?}: they are abandoned"
            );
            shared.model.abandon();
        }
        let is_left = !shared.runs_end(grace);
        for thread in self.threads.drain(..) {
            if is_left && !thread.is_finished() {
                tracing::error!(
                    "{} of a model that is unloaded does not end: it is left behind, with the model's memory",
                    thread.thread().name().unwrap_or("a lane")
                );
            } else {
                // What an engine's own panic outside a run leaves behind is not known; the lane is gone either way.
                drop(thread.join());
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn costs(&self) -> MutexGuard<'_, Costs> {
        self.costs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn policy(&self) -> Guard<Arc<Policy>> {
        self.policy.load()
    }

    /// Whether rows of tasks of this signature may be joined.
    pub(crate) fn is_joinable(&self, signature: usize) -> bool {
        match self.verdicts.get(signature) {
            Verdict::Never => false,
            Verdict::Independent => true,
            Verdict::Unknown => {
                self.policy().batching.as_ref().is_some_and(|batching| batching.joins_unchecked)
            }
        }
    }

    pub(crate) fn never_join(&self, signature: usize) {
        self.verdicts.never(signature);
    }

    pub(crate) fn classify(&self, task: &Task, policy: &Policy) -> Result<crate::key::Class, Refused> {
        let signature = self.model.signatures().get(task.signature);
        let is_joinable = self.is_joinable(task.signature);
        classify(task, signature.map(|signature| &**signature), is_joinable, policy.batching.as_ref())
    }

    /// Takes no more tasks; what waits need not wait for others.
    fn close(&self) {
        let queue = self.lock();
        self.closing.store(true, Ordering::Relaxed);
        self.wake(&queue);
    }

    /// Lets all lanes, and who waits for them, look again.
    fn wake(&self, queue: &Queue) {
        self.work.notify_all();
        self.done.notify_all();
        self.call_from_line(queue);
    }

    /// Lets lanes that wait for threads look at the queue again.
    fn call_from_line(&self, queue: &Queue) {
        if let Some(cores) = self.cores.as_ref().filter(|_| queue.n_in_line > 0) {
            cores.call();
        }
    }

    /// Whether what runs ends within this time. Blocks until then.
    fn runs_end(&self, within: Duration) -> bool {
        let deadline = self.clock.now().checked_add(within);
        let mut queue = self.lock();
        while queue.n_running > 0 {
            let left = deadline.map_or(within, |end| end.saturating_duration_since(self.clock.now()));
            if left.is_zero() {
                return false;
            }
            queue = self.done.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn warm_up(&self, task: &Task, n_runs: NonZeroUsize) -> Result<Duration, EngineError> {
        let mut runner = self.warm_up_runner()?;
        let mut ran = Duration::ZERO;
        for _ in 0..n_runs.get() {
            let permit = self.permit(&|| false);
            let started = self.clock.now();
            runner.run(&*self.model, task.signature, &task.inputs, &task.outputs)?;
            ran = self.clock.now().saturating_duration_since(started);
            drop(permit);
        }
        self.run_times.seed(task.signature, Queue::bytes_of(task), ran);
        if let Ok(class) = self.classify(task, &self.policy()) {
            self.costs().record_first(class.kind, class.n_rows, ran);
        }
        Ok(ran)
    }

    fn warm_up_runner(&self) -> Result<MutexGuard<'_, Runner>, EngineError> {
        let no_session = || EngineError::new(ErrorKind::Internal, "no session to warm up with");
        self.pool.take().ok_or_else(no_session)
    }

    /// Waits for the threads of a run that no lane makes; `Some(None)` where threads are not shared, `None` once it is called off.
    pub(crate) fn permit(&self, called_off: CalledOff<'_>) -> Option<Option<Permit>> {
        if called_off() {
            return None;
        }
        let Some(cores) = &self.cores else { return Some(None) };
        if let Some(permit) = cores.try_take(self.clock.now()) {
            return Some(Some(permit));
        }
        let mut place = cores.stand();
        loop {
            let until = self.clock.now().checked_add(LOOK);
            if let Some(permit) = place.wait(until) {
                return Some(Some(permit));
            }
            if called_off() {
                return None;
            }
        }
    }

    pub(crate) fn closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    pub(crate) fn count_expired(&self, n: usize) {
        count(&self.stats.expired, n);
    }
}

#[cfg(test)]
mod tests;
