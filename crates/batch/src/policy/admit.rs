//! Who is let in.

use std::time::{Duration, Instant};

use super::order::{Rank, Ranking};
use super::{Turns, View, Waiting, cap};
use crate::cost::Forecast;
use crate::{N_PRIORITIES, Policy, Priorities};

/// The least and the longest time after which to ask again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(60));

/// What becomes of a task that comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It may wait.
    Take,
    /// It may wait if the task at this position, which must go before it, is refused in its place.
    Displace(usize, Why),
    /// It is refused.
    Refuse(Why),
}

/// Why a task is refused. `retry_after` is when there is likely room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// As many tasks or bytes wait as may.
    Full {
        /// From now.
        retry_after: Duration,
    },
    /// It would be answered after its deadline.
    Late {
        /// From now.
        retry_after: Duration,
    },
    /// As many tasks are under way as are answered in time; how long runs take cannot be foreseen.
    Limited {
        /// From now.
        retry_after: Duration,
    },
}

/// A task that wants to be let in.
#[derive(Debug)]
pub struct Newcomer<'a, K> {
    /// What the policy knows of it; its turn is the one that `turns` would give it.
    pub task: &'a Waiting<K>,
    /// Bytes of its inputs.
    pub n_bytes: usize,
    /// Tasks that may be under way when runs cannot be foreseen ([`crate::Limit`]).
    pub limit: usize,
    /// Tasks that run.
    pub n_running: usize,
    /// Whose tasks wait.
    pub turns: &'a Turns,
}

/// Says whether a task may wait.
///
/// It may if the queue has room and it is foreseen to be answered in time: after what runs, what is served before it, and
/// the batch that it would be part of, the last by its 99th percentile as far as half of its time allows. Where runs cannot be foreseen, as many tasks
/// may be under way as were answered in time of late, and at least what fills every lane twice. A full queue makes room for a task of a more urgent priority, and, where callers
/// take turns, for one of a caller who has less than its share of the queue.
pub fn admit<K: Eq>(
    now: Instant,
    view: &View<'_, K>,
    newcomer: &Newcomer<'_, K>,
    forecast: &dyn Forecast,
    policy: &Policy,
) -> Admission {
    if let Some(why) = untimely(now, view, newcomer, forecast, policy) {
        return Admission::Refuse(why);
    }
    let fits = view.n_bytes == 0 || view.n_bytes.saturating_add(newcomer.n_bytes) <= policy.max_queued_bytes;
    if view.waiting.len() < policy.max_queue.get() && fits {
        return Admission::Take;
    }
    let why = Why::Full { retry_after: again(work(view, forecast, policy, None).time) };
    match fits.then(|| displaced(view, newcomer, policy)).flatten() {
        Some(at) => Admission::Displace(at, why),
        None => Admission::Refuse(why),
    }
}

/// Why the task would not be answered in time.
fn untimely<K: Eq>(
    now: Instant,
    view: &View<'_, K>,
    newcomer: &Newcomer<'_, K>,
    forecast: &dyn Forecast,
    policy: &Policy,
) -> Option<Why> {
    let task = newcomer.task;
    let deadline = task.deadline.filter(|_| policy.refuses_early)?;
    if !forecast.is_steady(task.kind) {
        // What fills the lanes and their next batches is of use whatever comes: with less, batches would be small and slow.
        let timely = timely(forecast, policy, task, deadline.saturating_duration_since(now));
        let least = timely.saturating_mul(view.n_lanes).saturating_mul(2);
        let is_limited = view.waiting.len() + newcomer.n_running >= newcomer.limit.max(least);
        let retry_after = || again(work(view, forecast, policy, None).time);
        return is_limited.then(|| Why::Limited { retry_after: retry_after() });
    }
    let ends = answered(now, view, newcomer, deadline, forecast, policy)?;
    let late = ends.checked_duration_since(deadline).filter(|late| !late.is_zero())?;
    Some(Why::Late { retry_after: again(late) })
}

/// Rows of the task's kind of which two batches, one after the other, are likely done within this time: a task that finds
/// a batch running is part of the next. At least its own rows.
fn timely<K>(forecast: &dyn Forecast, policy: &Policy, task: &Waiting<K>, within: Duration) -> usize {
    let cap = policy.batching.as_ref().map_or(1, |batching| cap(forecast, batching, task.kind));
    let is_timely = |n_rows: &usize| {
        forecast.estimate(task.kind, *n_rows).is_none_or(|estimate| estimate.p50.saturating_mul(2) <= within)
    };
    let halves = std::iter::successors(Some(cap), |&n_rows| (n_rows > 1).then_some(n_rows / 2));
    halves.into_iter().find(is_timely).unwrap_or(1).max(task.n_rows)
}

fn again(time: Duration) -> Duration {
    time.clamp(AGAIN.0, AGAIN.1)
}

/// When the task would be answered; `None` where nothing is known.
fn answered<K: Eq>(
    now: Instant,
    view: &View<'_, K>,
    newcomer: &Newcomer<'_, K>,
    deadline: Instant,
    forecast: &dyn Forecast,
    policy: &Policy,
) -> Option<Instant> {
    let task = newcomer.task;
    let own = forecast.estimate(task.kind, task.n_rows)?;
    let Work { time, n_with } = work(view, forecast, policy, Some(newcomer));
    let with = |batching: &crate::Batching| {
        let cap = cap(forecast, batching, task.kind).max(task.n_rows);
        // The rows before it fill batches; it is part of the last, which grows until it starts: by as much as it has
        // grown so far, or, where a whole batch waits before it, until it is full.
        let together = if n_with < cap { n_with.saturating_mul(2).saturating_add(task.n_rows) } else { cap };
        forecast.estimate(task.kind, batching.filled(together.min(cap)))
    };
    let joins = policy.batching.as_ref().filter(|_| task.key.is_some());
    let last = joins.and_then(with).unwrap_or(own);
    // Half of its time is for waiting, however much longer a run takes now and then: else one slow run, or a few, could
    // have everything refused, and nothing would be learnt any more.
    let allowed = last.p99.min(deadline.saturating_duration_since(now) / 2).max(last.p50);
    let left = |end: &Instant| end.saturating_duration_since(now);
    let first =
        if view.n_free() > 0 { Duration::ZERO } else { view.ends.iter().map(left).min().unwrap_or_default() };
    // With nothing before it, it waits for the first lane only.
    let starts = if time.is_zero() {
        first
    } else {
        let running: Duration = view.ends.iter().map(left).sum();
        let n_lanes = u32::try_from(view.n_lanes.max(1)).unwrap_or(u32::MAX);
        (time.saturating_add(running) / n_lanes).max(first)
    };
    let delay = if view.n_startable > 0 { Duration::ZERO } else { view.delay };
    now.checked_add(starts)?.checked_add(delay)?.checked_add(allowed)
}

/// What is served before a task.
struct Work {
    /// Lanes' time that it takes.
    time: Duration,
    /// Rows of the task's own key among it.
    n_with: usize,
}

/// The work before this task, or all that waits.
fn work<K: Eq>(
    view: &View<'_, K>,
    forecast: &dyn Forecast,
    policy: &Policy,
    newcomer: Option<&Newcomer<'_, K>>,
) -> Work {
    let task = newcomer.map(|newcomer| newcomer.task);
    let mut ahead = newcomer.map(|newcomer| Ahead::new(view, newcomer, policy));
    // Rows by kind, and those that the task joins apart. Kinds are few; keys of one kind are taken for one.
    let mut groups: Vec<Group> = Vec::new();
    for other in view.waiting {
        if ahead.as_mut().is_some_and(|ahead| !ahead.has(other)) {
            continue;
        }
        let joins = policy.batching.is_some() && other.key.is_some();
        let is_own = joins && task.is_some_and(|task| task.key == other.key);
        let group = Group { kind: other.kind, joins, is_own, n_rows: other.n_rows };
        match groups
            .iter_mut()
            .find(|known| (known.kind, known.joins, known.is_own) == (group.kind, joins, is_own))
        {
            Some(known) => known.n_rows = known.n_rows.saturating_add(group.n_rows),
            None => groups.push(group),
        }
    }
    let time = groups
        .iter()
        .map(|group| group.time(forecast, policy))
        .fold(Duration::ZERO, Duration::saturating_add);
    Work { time, n_with: groups.iter().find(|group| group.is_own).map_or(0, |group| group.n_rows) }
}

/// Tasks that are served alike.
struct Group {
    kind: u32,
    joins: bool,
    /// Of the newcomer's key.
    is_own: bool,
    n_rows: usize,
}

impl Group {
    /// Lanes' time for all of them, but for rows that the newcomer joins: those are counted with it.
    fn time(&self, forecast: &dyn Forecast, policy: &Policy) -> Duration {
        let batching = policy.batching.as_ref().filter(|_| self.joins);
        let cap = batching.map_or(1, |batching| cap(forecast, batching, self.kind));
        let one = |n_rows| {
            let filled = batching.map_or(n_rows, |batching| batching.filled(n_rows));
            forecast.guess(self.kind, filled)
        };
        let full = one(cap).saturating_mul(u32::try_from(self.n_rows / cap).unwrap_or(u32::MAX));
        let rest = if self.is_own { 0 } else { self.n_rows % cap };
        full.saturating_add(if rest == 0 { Duration::ZERO } else { one(rest) })
    }
}

/// Says of tasks that wait whether they are served before a newcomer.
struct Ahead {
    ranking: Ranking,
    own: Rank,
    priority: u8,
    /// Rows of each priority that are served meanwhile, where priorities have weights.
    meanwhile: Option<[f64; N_PRIORITIES + 1]>,
}

impl Ahead {
    fn new<K>(view: &View<'_, K>, newcomer: &Newcomer<'_, K>, policy: &Policy) -> Ahead {
        let Newcomer { task, turns, .. } = newcomer;
        let is_new = turns.n_waiting(task.caller) == 0;
        let ranking = Ranking::of(view, policy, turns.n_callers() + usize::from(is_new) > 1);
        let own = ranking.rank_in(task, turns.next(task.caller, task.n_rows).0);
        let mut ahead = Ahead { ranking, own, priority: task.priority, meanwhile: None };
        if let Priorities::Weighted(weights) = &policy.priorities {
            let weight = |priority: usize| {
                priority
                    .checked_sub(1)
                    .and_then(|at| weights.get(at))
                    .map_or(1.0, |&weight| f64::from(weight))
            };
            let same = view.waiting.iter().filter(|other| other.priority == task.priority);
            let before = same.filter(|other| ahead.ranking.rank(other) <= ahead.own);
            let n_rows = before.map(|other| other.n_rows).sum::<usize>().saturating_add(task.n_rows);
            let each = n_rows as f64 / weight(usize::from(task.priority));
            ahead.meanwhile = Some(std::array::from_fn(|priority| each * weight(priority)));
        }
        ahead
    }

    fn has<K>(&mut self, other: &Waiting<K>) -> bool {
        let rank = self.ranking.rank(other);
        let Some(meanwhile) = self.meanwhile.as_mut().filter(|_| other.priority != self.priority) else {
            return rank <= self.own;
        };
        match meanwhile.get_mut(usize::from(other.priority)) {
            Some(left) if *left >= other.n_rows as f64 => {
                *left -= other.n_rows as f64;
                true
            }
            _ => false,
        }
    }
}

/// The task that goes for the newcomer's sake: the last of the least urgent if all wait for less, else the last of the
/// caller who has most, if the newcomer's has less than its share.
fn displaced<K>(view: &View<'_, K>, newcomer: &Newcomer<'_, K>, policy: &Policy) -> Option<usize> {
    let waiting = || view.waiting.iter().enumerate();
    let (at, last) = waiting().max_by_key(|(at, task)| (task.priority, *at))?;
    if last.priority > newcomer.task.priority {
        return Some(at);
    }
    if !policy.is_fair {
        return None;
    }
    let (caller, n) = newcomer.turns.heaviest()?;
    let own = newcomer.turns.n_waiting(newcomer.task.caller);
    if caller == newcomer.task.caller || n <= own.saturating_add(1) {
        return None;
    }
    let theirs =
        waiting().filter(|(_, task)| task.caller == caller && task.priority >= newcomer.task.priority);
    theirs.max_by_key(|(at, task)| (task.priority, *at)).map(|(at, _)| at)
}
