//! Callers take turns.

use std::collections::HashMap;

/// Rows that a caller may have in one turn before others are served; a larger task is a turn of its own.
const ROWS: usize = 8;

/// Gives each task a turn: the first rows of every caller that waits are served before the second rows of any. Callers
/// that have nothing waiting are forgotten.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    callers: HashMap<u64, Caller>,
    /// The turn of what was served last.
    current: u64,
}

#[derive(Debug, Clone)]
struct Caller {
    n_waiting: usize,
    turn: u64,
    n_rows: usize,
}

impl Turns {
    /// The turn of a task that joins those that wait.
    pub fn join(&mut self, caller: u64, n_rows: usize) -> u64 {
        let (turn, n_rows) = self.next(caller, n_rows);
        let caller = self.callers.entry(caller).or_insert(Caller { n_waiting: 0, turn, n_rows });
        *caller = Caller { n_waiting: caller.n_waiting + 1, turn, n_rows };
        turn
    }

    /// The turn that a task would have, and the rows of its caller in it.
    pub(super) fn next(&self, caller: u64, n_rows: usize) -> (u64, usize) {
        let (turn, before) = match self.callers.get(&caller) {
            Some(caller) if caller.turn >= self.current => (caller.turn, caller.n_rows),
            _ => (self.current, 0),
        };
        let n_together = before.saturating_add(n_rows);
        if before > 0 && n_together > ROWS { (turn.saturating_add(1), n_rows) } else { (turn, n_together) }
    }

    /// A task waits no longer; `served` when it was started.
    pub fn leave(&mut self, caller: u64, turn: u64, served: bool) {
        if served {
            self.current = self.current.max(turn);
        }
        if let Some(entry) = self.callers.get_mut(&caller) {
            entry.n_waiting -= 1;
            if entry.n_waiting == 0 {
                self.callers.remove(&caller);
            }
        }
    }

    /// Callers that wait.
    pub fn n_callers(&self) -> usize {
        self.callers.len()
    }

    /// Tasks of this caller that wait.
    pub fn n_waiting(&self, caller: u64) -> usize {
        self.callers.get(&caller).map_or(0, |caller| caller.n_waiting)
    }

    /// The caller with the most tasks waiting, and how many; of equals any.
    pub(super) fn heaviest(&self) -> Option<(u64, usize)> {
        self.callers.iter().map(|(&id, caller)| (id, caller.n_waiting)).max_by_key(|&(id, n)| (n, id))
    }
}
