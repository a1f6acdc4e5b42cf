//! What runs together.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::{View, Waiting, cap, order};
use crate::cost::{Estimate, Forecast};
use crate::{Batching, Policy, Priorities};

/// The work is shared with other free lanes if a share takes less than this part of the whole.
const WORTH_SHARING: f64 = 0.9;

/// The part of rows that are passed over that would else be answered: where more waits than is answered in time, others
/// are lost instead of them.
const SPARED: f64 = 0.25;

/// A lane that sleeps may wake so much later than it was told to.
const SPARE: Duration = Duration::from_millis(1);

/// As likely as not.
const EVEN: f64 = 0.5;

/// The next batch of one key, as far as it can be formed.
#[derive(Debug, Default)]
pub(super) struct Batch {
    members: Vec<usize>,
    n_rows: usize,
    /// Nothing more may be added.
    is_closed: bool,
    /// When it has waited long enough.
    due: Option<Instant>,
}

impl Batch {
    /// The positions of its tasks, ascending.
    pub(super) fn members(mut self) -> Vec<usize> {
        self.members.sort_unstable();
        self.members
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.is_closed || self.due.is_none_or(|due| due <= now)
    }
}

/// The batch that starts with the task at this position.
pub(super) fn batch_of<K: Eq>(
    now: Instant,
    view: &View<'_, K>,
    forecast: &dyn Forecast,
    policy: &Policy,
    batching: &Batching,
    head: usize,
) -> Batch {
    let key = view.waiting.get(head).and_then(|task| task.key.as_ref());
    let mut members = match key {
        None => vec![head],
        Some(key) => {
            let same = view.waiting.iter().enumerate().filter(|(_, task)| task.key.as_ref() == Some(key));
            same.map(|(at, _)| at).collect()
        }
    };
    order::sort(view, policy, &mut members);
    form(now, view, forecast, policy, batching, &members)
}

/// The next batch of every key, in the order in which their first tasks are served.
pub(super) fn all<K: Eq + Hash>(
    now: Instant,
    view: &View<'_, K>,
    forecast: &dyn Forecast,
    policy: &Policy,
    batching: &Batching,
) -> Vec<Batch> {
    let mut positions: Vec<usize> = (0..view.waiting.len()).collect();
    order::sort(view, policy, &mut positions);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut by_key: HashMap<&K, usize> = HashMap::new();
    for at in positions {
        let Some(task) = view.waiting.get(at) else { continue };
        let index = match &task.key {
            Some(key) => *by_key.entry(key).or_insert(groups.len()),
            None => groups.len(),
        };
        match groups.get_mut(index) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    groups.iter().map(|group| form(now, view, forecast, policy, batching, group)).collect()
}

/// A batch of the first of these tasks, which are all of one key, in the order in which they are served.
fn form<K>(
    now: Instant,
    view: &View<'_, K>,
    forecast: &dyn Forecast,
    policy: &Policy,
    batching: &Batching,
    group: &[usize],
) -> Batch {
    let tasks = || group.iter().filter_map(|&at| Some((at, view.waiting.get(at)?)));
    let Some((_, head)) = tasks().next() else { return Batch::default() };
    let target = target(view, forecast, batching, head, tasks().map(|(_, task)| task.n_rows).sum());
    let clock = Clock { now, forecast, batching, kind: head.kind };
    let mut batch = Batch::default();
    let (mut earliest, mut is_cut) = (None, false);
    let is_tight = clock.is_tight(head);
    for (at, task) in tasks() {
        let n_rows = batch.n_rows.saturating_add(task.n_rows);
        let is_first = batch.members.is_empty();
        let is_late =
            |deadline: Option<Instant>| deadline.is_some_and(|end| clock.ends(n_rows, is_tight) > end);
        is_cut = !is_first && is_late(earliest);
        if !is_first && (n_rows > target || is_cut) {
            batch.is_closed = true;
            break;
        }
        // One that is less urgent and has less time may be late for a batch that others are in time for.
        if !is_first && is_late(task.deadline) {
            batch.is_closed = true;
            continue;
        }
        batch.members.push(at);
        (batch.n_rows, earliest) = (n_rows, earliest.into_iter().chain(task.deadline).min());
        if n_rows >= target {
            batch.is_closed = true;
            break;
        }
    }
    if is_cut && batch.n_rows < target {
        batch.pass_over(&clock, target, &policy.priorities, tasks);
    }
    let runs_alone = head.key.is_none();
    batch.is_closed |= view.closing || runs_alone;
    batch.due = match () {
        () if batch.is_closed => None,
        () if batching.is_deferred => earliest.and_then(|deadline| clock.latest(batch.n_rows, deadline)),
        () if batching.batch_timeout.is_zero() => None,
        () => {
            let latest = earliest.and_then(|deadline| clock.latest(batch.n_rows, deadline));
            let due = batch.members.iter().filter_map(|&at| due(view.waiting.get(at)?, batching)).min();
            due.map(|due| latest.map_or(due, |latest| due.min(latest)))
        }
    };
    batch
}

impl Batch {
    /// Makes the batch larger without the tasks that keep it small, if that loses less.
    ///
    /// A first task that has little time left allows a small batch only. If more than that waits, lanes' time is scarce,
    /// the next first task will have still less time, and in the end every batch is of one row: all miss their deadlines
    /// because each was to make its own. So each size is weighed: a part of the rows that are passed over counts as lost,
    /// and so do rows that the best batch would have done in the time beyond what this one does. Where priorities are
    /// strict, nobody is passed over for somebody less urgent. This is the early drop of Nexus (Shen et al., SOSP 2019,
    /// section 6.3), by value; those passed over still wait, and run if it turns out that there is time.
    fn pass_over<'a, K: 'a, I>(
        &mut self,
        clock: &Clock<'_>,
        target: usize,
        priorities: &Priorities,
        tasks: impl Fn() -> I,
    ) where
        I: Iterator<Item = (usize, &'a Waiting<K>)>,
    {
        let rate = target as f64 / clock.median(target).as_secs_f64().max(1e-9);
        let wasted = |n_rows: usize| (rate * clock.median(n_rows).as_secs_f64() - n_rows as f64).max(0.0);
        let most = tasks().map(|(_, task)| task.n_rows).sum::<usize>().min(target);
        let n_small = self.n_rows as f64;
        let mut least = wasted(self.n_rows);
        let mut size = self.n_rows;
        while size < most {
            size = size.saturating_add(size.div_ceil(2)).min(most);
            let mut larger = Batch { is_closed: true, ..Batch::default() };
            let (mut n_passed, mut n_lost, mut risk) = (0.0, 0.0, 0.0);
            // Of whom passed over first; what comes later and has another is less urgent.
            let mut passed = None;
            for (at, task) in tasks() {
                if larger.n_rows.saturating_add(task.n_rows) > size {
                    break;
                }
                let chance = clock.chance(size, task.deadline);
                if chance < EVEN {
                    n_passed += task.n_rows as f64;
                    passed = passed.or(Some(task.priority));
                    continue;
                }
                let is_below = passed.is_some_and(|priority| priority != task.priority);
                if is_below && *priorities == Priorities::Strict {
                    break;
                }
                larger.members.push(at);
                larger.n_rows += task.n_rows;
                risk += (1.0 - chance) * task.n_rows as f64;
                n_lost = n_passed;
            }
            let lost = wasted(larger.n_rows) + risk + SPARED * f64::min(n_lost, n_small);
            if lost < least && !larger.members.is_empty() {
                least = lost;
                *self = larger;
            }
        }
    }
}

/// Rows that this batch should have: no more than are of use, and no more than its share when other lanes are free.
fn target<K>(
    view: &View<'_, K>,
    forecast: &dyn Forecast,
    batching: &Batching,
    head: &Waiting<K>,
    n_rows: usize,
) -> usize {
    let cap = cap(forecast, batching, head.kind);
    let n_free = view.n_free();
    if !batching.by_cost || n_free < 2 {
        return cap;
    }
    let whole = n_rows.min(cap);
    let share = whole.div_ceil(n_free);
    let time = |n_rows| forecast.estimate(head.kind, batching.filled(n_rows)).map(|estimate| estimate.p50);
    match (time(share), time(whole)) {
        (Some(part), Some(all)) if part.as_secs_f64() < WORTH_SHARING * all.as_secs_f64() => share.max(1),
        _ => cap,
    }
}

/// When a batch would end if it started now.
struct Clock<'a> {
    now: Instant,
    forecast: &'a dyn Forecast,
    batching: &'a Batching,
    kind: u32,
}

impl Clock<'_> {
    /// Whether the task makes its deadline only if the run is no longer than most.
    fn is_tight<K>(&self, task: &Waiting<K>) -> bool {
        task.deadline.is_some_and(|deadline| self.ends(task.n_rows, false) > deadline)
    }

    /// When a run of so many rows ends: by its 99th percentile, or the median if time is short. Now, where nothing is known.
    fn ends(&self, n_rows: usize, is_tight: bool) -> Instant {
        let Estimate { p50, p99, .. } = self.estimate(n_rows);
        self.now.checked_add(if is_tight { p50 } else { p99 }).unwrap_or(self.now)
    }

    /// About how likely a run of so many rows ends by the deadline: straight lines between the percentiles.
    fn chance(&self, n_rows: usize, deadline: Option<Instant>) -> f64 {
        let Some(deadline) = deadline else { return 1.0 };
        let Estimate { p50, p90, p99 } = self.estimate(n_rows);
        let left = deadline.saturating_duration_since(self.now);
        let between = |low: Duration, high: Duration| (left - low).as_secs_f64() / (high - low).as_secs_f64();
        match () {
            () if left >= p99 => 1.0,
            () if left >= p90 => 0.9 + 0.1 * between(p90, p99),
            () if left >= p50 => EVEN + 0.4 * between(p50, p90),
            () => 0.0,
        }
    }

    fn median(&self, n_rows: usize) -> Duration {
        self.estimate(n_rows).p50
    }

    fn estimate(&self, n_rows: usize) -> Estimate {
        if !self.batching.by_cost || !self.forecast.is_steady(self.kind) {
            return Estimate::default();
        }
        self.forecast.estimate(self.kind, self.batching.filled(n_rows)).unwrap_or_default()
    }

    /// The last moment at which a batch of one row more can start and still make the deadline, with something to spare for
    /// a lane that wakes late. `None` where runs cannot be foreseen: then there is no safe time to wait.
    fn latest(&self, n_rows: usize, deadline: Instant) -> Option<Instant> {
        let known = self.forecast.estimate(self.kind, self.batching.filled(n_rows.saturating_add(1)));
        let time = known.filter(|_| self.forecast.is_steady(self.kind))?.p99;
        Some(
            deadline
                .checked_sub(time.saturating_add(time / 10).saturating_add(SPARE))
                .unwrap_or(self.now)
                .max(self.now),
        )
    }
}

/// When a task has waited long enough for others; `None` if it need not wait.
fn due<K>(task: &Waiting<K>, batching: &Batching) -> Option<Instant> {
    let until = task.arrived.checked_add(batching.batch_timeout)?;
    Some(if task.deadline.is_some_and(|deadline| deadline <= until) { task.arrived } else { until })
}
