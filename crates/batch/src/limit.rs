//! How many tasks may be under way when runs cannot be foreseen.

use std::time::Duration;

/// Tasks under way at least, whatever happens.
const LEAST: f64 = 1.0;

/// One late answer in so many is no reason to lower the bound: where runs vary that much some are late whatever waits.
const FEW: usize = 8;

/// After so many answers of which most were late, a bound of more than twice as many is far too high, and more answers would
/// tell nothing new.
const SOON: usize = 16;

/// A bound on tasks that wait or run, found by additive increase and multiplicative decrease (AIMD, as in TCP). After as
/// many answers as the bound: it is raised by one if nearly all were in time, and lowered by a tenth if not. It is halved as
/// soon as most of the first answers were late.
#[derive(Debug, Clone)]
pub struct Limit {
    bound: f64,
    most: f64,
    n_answers: usize,
    n_late: usize,
    /// Whether so many were under way that success says something.
    was_reached: bool,
}

impl Limit {
    /// Starts at `start` tasks and never exceeds `most`.
    pub fn new(start: usize, most: usize) -> Limit {
        let most = (most as f64).max(LEAST);
        let bound = (start as f64).clamp(LEAST, most);
        Limit { bound, most, n_answers: 0, n_late: 0, was_reached: false }
    }

    /// Tasks that may be under way.
    pub fn bound(&self) -> usize {
        self.bound as usize
    }

    /// Changes what it never exceeds.
    pub fn set_most(&mut self, most: usize) {
        self.most = (most as f64).max(LEAST);
        self.bound = self.bound.min(self.most);
    }

    /// Takes in that a task was answered. `slack` is what was left of its time; `None` when it was too late.
    /// With `n_under_way` far below the bound nothing is learnt from success.
    pub fn answered(&mut self, slack: Option<Duration>, n_under_way: usize) {
        self.n_answers += 1;
        self.n_late += usize::from(slack.is_none());
        self.was_reached |= n_under_way as f64 * 2.0 >= self.bound;
        let is_far_off =
            self.n_answers >= SOON && self.n_answers * 2 < self.bound() && self.n_late * 2 > self.n_answers;
        if self.n_answers < self.bound() && !is_far_off {
            return;
        }
        if is_far_off {
            self.bound = (self.bound / 2.0).max(LEAST);
        } else if self.n_late * FEW > self.n_answers {
            self.bound = (self.bound * 0.9).max(LEAST);
        } else if self.was_reached {
            self.bound = (self.bound + 1.0).min(self.most);
        }
        (self.n_answers, self.n_late, self.was_reached) = (0, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_finds_what_is_answered_in_time() {
        // A server that answers in time while at most 20 are under way.
        let mut limit = Limit::new(100, 1000);
        for _ in 0..5000 {
            let n = limit.bound();
            limit.answered((n <= 20).then_some(Duration::from_millis(1)), n);
        }
        assert!((17..=21).contains(&limit.bound()), "{}", limit.bound());
    }

    #[test]
    fn a_bound_that_is_far_too_high_falls_soon() {
        let mut limit = Limit::new(512, 1000);
        // Everything is late while more than 20 are under way; so many answers pass in a second or two.
        let n_late = (0..200).take_while(|_| {
            let n = limit.bound();
            limit.answered((n <= 20).then_some(Duration::from_millis(1)), n);
            limit.bound() > 20
        });
        assert!(n_late.count() < 12 * SOON, "{}", limit.bound());
    }

    #[test]
    fn the_bound_stays_within_bounds() {
        let mut limit = Limit::new(0, 3);
        assert_eq!(limit.bound(), 1);
        for _ in 0..100 {
            limit.answered(Some(Duration::ZERO), 3);
        }
        assert_eq!(limit.bound(), 3);
        for _ in 0..100 {
            limit.answered(None, 3);
        }
        assert_eq!(limit.bound(), 1);
        limit.set_most(0);
        assert_eq!(limit.bound(), 1);
    }

    #[test]
    fn idle_success_teaches_nothing() {
        let mut limit = Limit::new(50, 1000);
        for _ in 0..1000 {
            limit.answered(Some(Duration::from_secs(1)), 1);
        }
        assert_eq!(limit.bound(), 50);
    }
}
