//! Who is next.

use std::time::{Duration, Instant};

use super::{View, Waiting};
use crate::{Policy, Priorities};

/// The time after its arrival by which a task without a deadline counts as urgent.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tasks in this order are served: class, turn, urgency, arrival.
pub(super) type Rank = (u64, u64, Instant, Instant);

/// Ranks tasks; the same for all tasks of one decision.
#[derive(Debug)]
pub(super) struct Ranking {
    /// The place of each priority.
    places: Option<[u64; crate::N_PRIORITIES + 1]>,
    by_turn: bool,
}

impl Ranking {
    pub(super) fn new<K>(view: &View<'_, K>, policy: &Policy) -> Ranking {
        Ranking::of(view, policy, view.is_contended)
    }

    /// As it is when callers take turns, or when they need not.
    pub(super) fn of<K>(view: &View<'_, K>, policy: &Policy, is_contended: bool) -> Ranking {
        let places = match &policy.priorities {
            Priorities::Strict => None,
            Priorities::Weighted(_) => Some(view.shares.places()),
        };
        Ranking { places, by_turn: policy.is_fair && is_contended }
    }

    pub(super) fn rank<K>(&self, task: &Waiting<K>) -> Rank {
        self.rank_in(task, task.turn)
    }

    /// As if the task were part of this turn.
    pub(super) fn rank_in<K>(&self, task: &Waiting<K>, turn: u64) -> Rank {
        let class = u64::from(task.priority);
        let class = match &self.places {
            None => class,
            Some(places) => places.get(usize::from(task.priority)).copied().unwrap_or(class),
        };
        let turn = if self.by_turn { turn } else { 0 };
        let due = task.deadline.or_else(|| task.arrived.checked_add(PATIENCE)).unwrap_or(task.arrived);
        (class, turn, due, task.arrived)
    }
}

/// The position of the task that is next.
pub(super) fn first<K>(view: &View<'_, K>, policy: &Policy) -> Option<usize> {
    let ranking = Ranking::new(view, policy);
    let ranked = view.waiting.iter().enumerate().map(|(at, task)| (ranking.rank(task), at));
    ranked.min().map(|(_, at)| at)
}

/// These positions in the order in which they are served.
pub(super) fn sort<K>(view: &View<'_, K>, policy: &Policy, positions: &mut [usize]) {
    let ranking = Ranking::new(view, policy);
    // Tasks mostly wait in this order already, which sorting sees in one pass.
    positions.sort_by_key(|&at| view.waiting.get(at).map(|task| ranking.rank(task)));
}
