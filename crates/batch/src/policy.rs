//! Which tasks run next: a pure function of the time and of what waits.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Instant;

use crate::Batching;

/// What the policy knows of a task that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting<K> {
    /// Tasks with equal keys can be joined; `None` for a task that runs alone.
    pub key: Option<K>,
    /// Its rows; 1 when it runs alone.
    pub n_rows: usize,
    /// When it came.
    pub arrived: Instant,
    /// When its answer is of no more use.
    pub deadline: Option<Instant>,
}

/// What waits, the oldest first.
#[derive(Debug)]
pub struct QueueView<'a, K> {
    /// The tasks.
    pub waiting: &'a VecDeque<Waiting<K>>,
    /// Whether no more tasks will come, so that waiting for others is of no use.
    pub closing: bool,
}

/// What a free lane does now. Positions ascend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Answer the tasks at these positions that their deadline has passed.
    Expire(Vec<usize>),
    /// Run the tasks at these positions, as one batch.
    Start(Vec<usize>),
    /// Nothing to do before this moment, or before another task comes.
    Wait(Option<Instant>),
}

/// Says what a free lane does.
///
/// A task that is past its deadline never starts. Tasks of one key start in the order in which they came. A group of
/// tasks of one key is ready when it fills a batch, when one of its tasks has waited for
/// [`Batching::batch_timeout`], or at once when that is zero or would outlast the task's deadline. Of the groups that
/// are ready, the one whose first task is the oldest starts, so none is passed over for ever.
pub fn decide<K: Eq + Hash>(now: Instant, view: &QueueView<'_, K>, batching: Option<&Batching>) -> Decision {
    let expired: Vec<usize> = positions(view, |task| task.deadline.is_some_and(|deadline| deadline <= now));
    if !expired.is_empty() {
        return Decision::Expire(expired);
    }
    let Some(head) = view.waiting.front() else { return Decision::Wait(None) };
    let (Some(batching), Some(key)) = (batching, &head.key) else { return Decision::Start(vec![0]) };
    let mut first = Group::default();
    for (at, task) in view.waiting.iter().enumerate().filter(|(_, task)| task.key.as_ref() == Some(key)) {
        first.add(at, task, view.closing, batching);
        if first.is_closed {
            break;
        }
    }
    if first.is_ready(now) {
        return Decision::Start(first.members);
    }
    let groups = groups(view, batching);
    let earliest = groups.iter().filter_map(|group| group.due).min();
    match groups.into_iter().find(|group| group.is_ready(now)) {
        Some(group) => Decision::Start(group.members),
        None => {
            let deadline = view.waiting.iter().filter_map(|task| task.deadline).min();
            Decision::Wait(earliest.into_iter().chain(deadline).min())
        }
    }
}

fn positions<K>(view: &QueueView<'_, K>, keep: impl Fn(&Waiting<K>) -> bool) -> Vec<usize> {
    view.waiting.iter().enumerate().filter(|(_, task)| keep(task)).map(|(at, _)| at).collect()
}

/// All groups, in the order of their first tasks.
fn groups<K: Eq + Hash>(view: &QueueView<'_, K>, batching: &Batching) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut by_key: HashMap<&K, usize> = HashMap::new();
    for (at, task) in view.waiting.iter().enumerate() {
        let index = match &task.key {
            Some(key) => *by_key.entry(key).or_insert(groups.len()),
            None => groups.len(),
        };
        if index == groups.len() {
            groups.push(Group::default());
        }
        if let Some(group) = groups.get_mut(index) {
            group.add(at, task, view.closing, batching);
        }
    }
    groups
}

/// The next batch of one key, as far as it can be formed.
#[derive(Debug, Default)]
struct Group {
    members: Vec<usize>,
    n_rows: usize,
    /// Nothing more may be added: it is full, or the next task did not fit and must not be overtaken.
    is_closed: bool,
    /// When the first of its members has waited long enough.
    due: Option<Instant>,
}

impl Group {
    fn add<K>(&mut self, at: usize, task: &Waiting<K>, closing: bool, batching: &Batching) {
        let max = batching.max_batch_size.get();
        let n_rows = self.n_rows.saturating_add(task.n_rows);
        if self.is_closed || (n_rows > max && !self.members.is_empty()) {
            self.is_closed = true;
            return;
        }
        self.members.push(at);
        self.n_rows = n_rows;
        self.is_closed = n_rows >= max;
        let due = due(task, closing, batching);
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    fn is_ready(&self, now: Instant) -> bool {
        self.is_closed || self.due.is_some_and(|due| due <= now)
    }
}

/// When a task has waited long enough for others.
fn due<K>(task: &Waiting<K>, closing: bool, batching: &Batching) -> Instant {
    if closing || task.key.is_none() {
        return task.arrived;
    }
    let until = task.arrived.checked_add(batching.batch_timeout).unwrap_or(task.arrived);
    if task.deadline.is_some_and(|deadline| deadline <= until) { task.arrived } else { until }
}

#[cfg(test)]
mod tests;
