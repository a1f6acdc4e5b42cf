//! What the thread of one lane does: wait for tasks, then for threads to run them on, run, and again.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Shared;
use crate::cores::{Permit, Place};
use crate::queue::{Queue, Queued};
use crate::session::Runner;
use crate::stats::count;
use crate::{Decision, Forecast, RunError, decide, pin, run};

/// A run that is expected to take less does not wait for threads.
const SHORT: Duration = Duration::from_millis(1);

impl Shared {
    /// Runs batches until there will be no more.
    pub(super) fn lane(&self, lane: usize, processor: Option<usize>, mut runner: Runner) {
        if let Some(first) = processor
            && let Err(error) = pin::pin(first, self.config.threads)
        {
            tracing::warn!("a lane is not kept on certain processors: {error}");
        }
        self.model.enter(self.config.threads, &mut || {
            while let Some((batch, permit)) = self.next_batch(lane) {
                let n_tasks = batch.len();
                let slacks = run::run(self, &mut runner, batch);
                drop(permit);
                self.lock().finished(lane, n_tasks, &slacks);
                self.done.notify_all();
            }
        });
    }

    /// Blocks until there is something to run and threads to run it on; `None` when there never will be again.
    fn next_batch(&self, lane: usize) -> Option<(Vec<Queued>, Option<Permit>)> {
        let (mut permit, mut place) = (None, None);
        let mut queue = self.lock();
        loop {
            let now = self.clock.now();
            let policy = self.policy();
            let decision = {
                let n_startable = self.n_startable(now).saturating_add(usize::from(permit.is_some()));
                let view = queue.view(self.config.n_lanes.get(), n_startable, self.closing());
                decide(now, &view, &*self.costs(), &policy)
            };
            match decision {
                Decision::Start(positions) => {
                    let Some(cores) = self.cores.as_ref().filter(|_| permit.is_none()) else {
                        return Some((self.start(lane, now, &mut queue, &positions), permit));
                    };
                    if place.is_none() {
                        permit = cores.try_take(now);
                    }
                    if permit.is_none() && self.is_short(&queue, &positions) {
                        permit = cores.slip(now);
                    }
                    if permit.is_some() {
                        queue.delayed(Duration::ZERO);
                        return Some((self.start(lane, now, &mut queue, &positions), permit));
                    }
                    (queue, permit) = self.wait_in_line(queue, place.get_or_insert_with(|| cores.stand()));
                    if permit.is_some() {
                        place = None;
                    }
                }
                Decision::Expire(positions) => {
                    let expired = queue.take(&positions);
                    let n_under_way = queue.waiting.len() + queue.n_running;
                    expired.iter().for_each(|_| queue.limit.answered(None, n_under_way));
                    self.n_waiting.store(queue.waiting.len(), Ordering::Relaxed);
                    count(&self.stats.expired, expired.len());
                    self.done.notify_all();
                    drop(queue);
                    let over = |queued: Queued| queued.ticket.answer(Err(RunError::DeadlineExceeded));
                    expired.into_iter().for_each(over);
                    queue = self.lock();
                }
                Decision::Wait(_) if queue.stopped => return None,
                Decision::Wait(until) => {
                    (permit, place) = (None, None);
                    queue = self.wait(queue, until, now);
                }
            }
        }
    }

    /// Waits for threads, until there is something else to do. What comes in the meantime joins the batch.
    fn wait_in_line<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
        place: &mut Place<'_>,
    ) -> (MutexGuard<'a, Queue>, Option<Permit>) {
        let deadline = queue.waiting.iter().filter_map(|task| task.deadline).min();
        queue.known_deadline = deadline;
        queue.n_in_line += 1;
        drop(queue);
        let since = self.clock.now();
        let permit = place.wait(deadline);
        let waited = self.clock.now().saturating_duration_since(since);
        queue = self.lock();
        queue.n_in_line -= 1;
        if permit.is_some() {
            queue.delayed(waited);
        }
        (queue, permit)
    }

    /// Whether these tasks together are expected to take little time.
    fn is_short(&self, queue: &Queue, positions: &[usize]) -> bool {
        let tasks = || positions.iter().filter_map(|&at| queue.waiting.get(at));
        let Some(first) = tasks().next() else { return false };
        let n_rows = tasks().map(|task| task.n_rows).sum();
        self.takes_short(first.kind, n_rows)
    }

    /// Whether a run of this kind is expected to take little time, on threads that it need not share.
    pub(super) fn takes_short(&self, kind: u32, n_rows: usize) -> bool {
        self.costs().estimate(kind, n_rows).is_some_and(|estimate| estimate.p50 < SHORT)
    }

    /// Runs for which there are threads now.
    pub(super) fn n_startable(&self, now: Instant) -> usize {
        self.cores.as_ref().map_or(usize::MAX, |cores| cores.n_startable(now))
    }

    fn start(&self, lane: usize, now: Instant, queue: &mut Queue, positions: &[usize]) -> Vec<Queued> {
        let batch = queue.start(lane, now, positions, &self.costs(), &self.policy().priorities);
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
}
