//! What one thread has counted so far: by the window in which requests were meant to leave, and by the time their ends came.

use std::collections::VecDeque;
use std::time::Duration;

use crate::tally::{Event, Tally};

/// How many windows are kept apart; older ones are added up, so that a long run takes no more memory than a short one.
const MAX_KEPT: usize = 64;

/// A board. Requests count for the window in which they were meant to leave, whenever their answer comes.
#[derive(Debug)]
pub(crate) struct Board {
    warm_up: Duration,
    window: Duration,
    /// The number of the first window that is kept apart.
    first: u64,
    windows: VecDeque<Tally>,
    older: Tally,
    /// What ended since it was last taken, for whoever watches.
    live: Tally,
}

impl Board {
    pub(crate) fn new(warm_up: Duration, window: Duration) -> Board {
        Board {
            warm_up,
            window,
            first: 0,
            windows: VecDeque::new(),
            older: Tally::default(),
            live: Tally::default(),
        }
    }

    /// Counts a request that was meant to leave at this moment after the start.
    pub(crate) fn record(&mut self, at: Duration, event: &Event) {
        self.live.record(event);
        let Some(since) = at.checked_sub(self.warm_up) else { return };
        let number = u64::try_from(since.as_nanos() / self.window.as_nanos().max(1)).unwrap_or(u64::MAX);
        while number >= self.first + MAX_KEPT as u64 {
            match self.windows.pop_front() {
                Some(oldest) => self.older.add(&oldest),
                // A long pause: nothing is left to step over.
                None => {
                    self.first = number;
                    break;
                }
            }
            self.first += 1;
        }
        match number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) {
            None => self.older.record(event),
            Some(at) => {
                while self.windows.len() <= at {
                    self.windows.push_back(Tally::default());
                }
                self.windows[at].record(event);
            }
        }
    }

    /// What ended since this was last called.
    pub(crate) fn take_live(&mut self) -> Tally {
        std::mem::take(&mut self.live)
    }

    /// The sum of the windows with these numbers. Windows that are no longer kept apart count when the first of all is
    /// asked for.
    pub(crate) fn sum(&self, windows: std::ops::Range<u64>) -> Tally {
        let mut sum = if windows.start == 0 { self.older.clone() } else { Tally::default() };
        for (number, tally) in (self.first..).zip(&self.windows) {
            if windows.contains(&number) {
                sum.add(tally);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outcome::Outcome;

    fn board(millis: &[u64]) -> Board {
        let mut board = Board::new(Duration::from_millis(10), Duration::from_millis(5));
        for at in millis {
            board.record(Duration::from_millis(*at), &Event::new(Outcome::Ok, Duration::from_millis(*at)));
        }
        board
    }

    #[test]
    fn requests_count_for_the_window_they_were_meant_for() {
        let mut board = board(&[0, 9, 10, 14, 15, 22, 11]);
        assert_eq!(board.sum(0..1).of(Outcome::Ok), 3);
        assert_eq!(board.sum(1..3).of(Outcome::Ok), 2);
        assert_eq!(board.sum(0..9).of(Outcome::Ok), 5);
        assert_eq!(board.take_live().of(Outcome::Ok), 7);
        assert_eq!(board.take_live().of(Outcome::Ok), 0);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_little_is_kept(millis in prop::collection::vec(0u64..100_000, 0..80)) {
            let board = board(&millis);
            let expected = millis.iter().filter(|at| **at >= 10).count() as u64;
            prop_assert_eq!(board.sum(0..u64::MAX).of(Outcome::Ok), expected);
            prop_assert!(board.windows.len() <= MAX_KEPT);
        }
    }
}
