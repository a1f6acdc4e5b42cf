//! Who is let in and what runs next: pure functions of the time, of what waits and of what is foreseen.

mod admit;
mod form;
mod order;
mod shares;
mod turns;

pub use admit::{Admission, Newcomer, Why, admit};
pub use shares::Shares;
pub use turns::Turns;

use std::collections::VecDeque;
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::cost::Forecast;
use crate::{Batching, Policy};

/// What the policy knows of a task that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting<K> {
    /// Tasks with equal keys can be joined; `None` for a task that runs alone.
    pub key: Option<K>,
    /// Tasks of one kind cost alike ([`Forecast`]).
    pub kind: u32,
    /// Its rows; 1 when it runs alone.
    pub n_rows: usize,
    /// When it came.
    pub arrived: Instant,
    /// When its answer is of no more use.
    pub deadline: Option<Instant>,
    /// 1 (first) to 9.
    pub priority: u8,
    /// Who asks: equal for tasks of one caller.
    pub caller: u64,
    /// Where callers take turns, the turn that this task is part of ([`Turns`]).
    pub turn: u64,
}

/// What waits and what runs.
#[derive(Debug)]
pub struct View<'a, K> {
    /// The tasks that wait, in order of arrival.
    pub waiting: &'a VecDeque<Waiting<K>>,
    /// Bytes of their inputs.
    pub n_bytes: usize,
    /// Whether no more tasks will come, so that waiting for others is of no use.
    pub closing: bool,
    /// Lanes there are.
    pub n_lanes: usize,
    /// When the runs under way are expected to end.
    pub ends: &'a [Instant],
    /// Runs for which there are threads now.
    pub n_startable: usize,
    /// How long a lane usually waits for threads when there are none.
    pub delay: Duration,
    /// The lanes' time that priorities had.
    pub shares: &'a Shares,
    /// Whether tasks of several callers wait.
    pub is_contended: bool,
}

impl<K> View<'_, K> {
    /// Lanes that run nothing and could.
    pub(crate) fn n_free(&self) -> usize {
        self.n_lanes.saturating_sub(self.ends.len()).min(self.n_startable)
    }
}

/// What a free lane does now. Positions ascend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Answer the tasks at these positions that their deadline has passed, or passes before they could be done.
    Expire(Vec<usize>),
    /// Run the tasks at these positions, as one batch.
    Start(Vec<usize>),
    /// Nothing to do before this moment, or before another task comes.
    Wait(Option<Instant>),
}

/// Says what a free lane does.
///
/// *Who is next.* Priorities first ([`crate::Priorities`]), then turns of callers where they are taken, then the earliest
/// deadline; a task without one is treated as if it had a second from its arrival, so that it is passed over only so
/// often. A task that cannot make its deadline never starts.
///
/// *What runs with it.* Tasks of its key in that same order, up to the batch size. With [`Batching::by_cost`] also no more
/// rows than are computed faster together, than share the work evenly with other free lanes, and than let all of them
/// arrive in time.
///
/// *When.* At once, unless a batch that could still grow is told to wait by [`Batching::batch_timeout`] or
/// [`Batching::is_deferred`]. Of the batches that are ready, the one whose first task is next starts.
pub fn decide<K: Eq + Hash>(
    now: Instant,
    view: &View<'_, K>,
    forecast: &dyn Forecast,
    policy: &Policy,
) -> Decision {
    let lost = lost(now, view, forecast, policy);
    if !lost.is_empty() {
        return Decision::Expire(lost);
    }
    let Some(head) = order::first(view, policy) else { return Decision::Wait(None) };
    let Some(batching) = &policy.batching else { return Decision::Start(vec![head]) };
    let first = form::batch_of(now, view, forecast, policy, batching, head);
    if first.is_ready(now) {
        return Decision::Start(first.members());
    }
    let batches = form::all(now, view, forecast, policy, batching);
    let earliest = batches.iter().filter_map(form::Batch::due).min();
    match batches.into_iter().find(|batch| batch.is_ready(now)) {
        Some(batch) => Decision::Start(batch.members()),
        None => {
            let deadline = view.waiting.iter().filter_map(|task| task.deadline).min();
            Decision::Wait(earliest.into_iter().chain(deadline).min())
        }
    }
}

/// Tasks that are past their deadline, or would be if they ran now and alone, for half the runs.
fn lost<K>(now: Instant, view: &View<'_, K>, forecast: &dyn Forecast, policy: &Policy) -> Vec<usize> {
    let mut last = None;
    let mut least = |task: &Waiting<K>| {
        if !policy.refuses_early {
            return Duration::ZERO;
        }
        let wanted = (task.kind, task.n_rows);
        let (known, time) = *last.get_or_insert_with(|| (wanted, alone(forecast, wanted)));
        if known == wanted {
            return time;
        }
        last = Some((wanted, alone(forecast, wanted)));
        last.map_or(Duration::ZERO, |(_, time)| time)
    };
    let is_lost = |task: &Waiting<K>, least: Duration| {
        task.deadline.is_some_and(|deadline| {
            deadline <= now || now.checked_add(least).is_none_or(|ends| deadline < ends)
        })
    };
    let positions = view.waiting.iter().enumerate();
    positions.filter(|(_, task)| is_lost(task, least(task))).map(|(at, _)| at).collect()
}

/// What a run of these rows takes at the median; nothing where runs cannot be foreseen.
fn alone(forecast: &dyn Forecast, (kind, n_rows): (u32, usize)) -> Duration {
    if !forecast.is_steady(kind) {
        return Duration::ZERO;
    }
    forecast.estimate(kind, n_rows).map_or(Duration::ZERO, |estimate| estimate.p50)
}

/// Rows of this kind that run together at most.
fn cap(forecast: &dyn Forecast, batching: &Batching, kind: u32) -> usize {
    let max = batching.max_batch_size.get();
    if batching.by_cost { forecast.enough(kind, max) } else { max }
}

#[cfg(test)]
mod tests;
