//! The highest rate that meets a goal. Pure: rates out, verdicts in.

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// Try this rate.
    Try(f64),
    /// Try this rate once more, longer: it is the best so far and may have been luck.
    Verify(f64),
    /// The highest rate that met the goal and did so again; `None` when none did.
    Done(Option<f64>),
}

/// A search: doubling until the goal is missed (halving until it is met), then halving the gap, then a second look at the
/// winner, which is taken down a step when it fails.
#[derive(Debug, Clone)]
pub struct Search {
    first: f64,
    precision: f64,
    lowest: f64,
    /// The highest that met the goal, and the lowest that did not.
    met: Option<f64>,
    missed: Option<f64>,
    /// All that met the goal, and have not failed a second look since.
    all_met: Vec<f64>,
    /// A winner that failed its second look was taken down to this.
    backed: Option<f64>,
    tries_left: usize,
    verdict: Option<Option<f64>>,
}

/// How many times a winner may be taken down.
const MAX_BACKS: i32 = 4;

impl Search {
    /// A search that begins at this rate and ends when the gap between met and missed is less than `precision` of the
    /// rate, or after so many tries. Rates below `lowest` are not tried.
    pub fn new(first: f64, precision: f64, lowest: f64, max_tries: usize) -> Search {
        let lowest = if lowest.is_finite() { lowest.max(1e-3) } else { 1e-3 };
        let first = if first.is_finite() { first.max(lowest) } else { lowest };
        let precision = if precision.is_finite() { precision.clamp(0.001, 1.0) } else { 0.05 };
        Search {
            first,
            precision,
            lowest,
            met: None,
            missed: None,
            all_met: Vec::new(),
            backed: None,
            tries_left: max_tries.max(1),
            verdict: None,
        }
    }

    /// What to do next; the same until [`Search::tell`] is called.
    pub fn next(&self) -> Step {
        if let Some(verdict) = self.verdict {
            return Step::Done(verdict);
        }
        if let Some(backed) = self.backed {
            return Step::Verify(backed);
        }
        let is_out = self.tries_left == 0;
        match (self.met, self.missed) {
            (None, None) => Step::Try(self.first),
            (Some(met), None) if !is_out => Step::Try(met * 2.0),
            (None, Some(missed)) if !is_out && missed > self.lowest => {
                Step::Try((missed / 2.0).max(self.lowest))
            }
            (Some(met), Some(missed)) if !is_out && missed / met > 1.0 + self.precision => {
                Step::Try((met + missed) / 2.0)
            }
            (Some(met), _) => Step::Verify(met),
            (None, _) => Step::Done(None),
        }
    }

    /// The highest rate so far that met the goal and has not missed it in a second look, for a search that ends before its time.
    pub fn highest_so_far(&self) -> Option<f64> {
        self.all_met.iter().copied().max_by(f64::total_cmp)
    }

    /// What became of the step.
    pub fn tell(&mut self, is_met: bool) {
        match self.next() {
            Step::Try(rate) => {
                self.tries_left = self.tries_left.saturating_sub(1);
                if is_met {
                    self.met = Some(rate);
                    self.all_met.push(rate);
                } else {
                    self.missed = Some(rate);
                }
            }
            Step::Verify(rate) if is_met => self.verdict = Some(Some(rate)),
            Step::Verify(rate) => {
                self.all_met.retain(|met| *met < rate);
                let lower = rate * (1.0 - self.precision.min(0.5));
                let lowest = self.met.unwrap_or(rate) * (1.0 - self.precision.min(0.5)).powi(MAX_BACKS + 1);
                if lower > lowest && lower >= self.lowest {
                    self.backed = Some(lower);
                } else {
                    self.verdict = Some(None);
                }
            }
            Step::Done(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All steps against a server that meets the goal up to `capacity`, and what is found.
    fn play(mut search: Search, capacity: impl Fn(Step) -> f64) -> (Vec<f64>, Option<f64>) {
        let mut tried = Vec::new();
        for _ in 0..1000 {
            match search.next() {
                Step::Done(found) => return (tried, found),
                step @ (Step::Try(rate) | Step::Verify(rate)) => {
                    tried.push(rate);
                    search.tell(rate <= capacity(step));
                }
            }
        }
        panic!("the search does not end: {tried:?}");
    }

    #[test]
    fn it_doubles_then_halves_the_gap_then_looks_again() {
        let (tried, found) = play(Search::new(100.0, 0.05, 1.0, 50), |_| 500.0);
        assert_eq!(tried, [100.0, 200.0, 400.0, 800.0, 600.0, 500.0, 550.0, 525.0, 500.0]);
        assert_eq!(found, Some(500.0));
    }

    #[test]
    fn it_goes_down_when_the_first_is_too_much() {
        let (tried, found) = play(Search::new(100.0, 0.2, 1.0, 50), |_| 30.0);
        assert_eq!(tried, [100.0, 50.0, 25.0, 37.5, 31.25, 28.125, 28.125]);
        assert_eq!(found, Some(28.125));
        let (tried, found) = play(Search::new(8.0, 0.2, 1.0, 50), |_| 0.0);
        assert_eq!((tried.as_slice(), found), ([8.0, 4.0, 2.0, 1.0].as_slice(), None));
    }

    #[test]
    fn a_winner_by_luck_is_taken_down() {
        let lucky = |step| if matches!(step, Step::Verify(_)) { 90.0 } else { 100.0 };
        let (_, found) = play(Search::new(100.0, 0.05, 1.0, 50), lucky);
        assert!(found.is_some_and(|found| (85.0..=90.0).contains(&found)), "{found:?}");
        let (_, found) = play(Search::new(100.0, 0.05, 1.0, 50), |step| {
            if matches!(step, Step::Verify(_)) { 0.0 } else { 100.0 }
        });
        assert_eq!(found, None);
    }

    #[test]
    fn the_highest_so_far_is_known() {
        let mut search = Search::new(100.0, 0.2, 1.0, 50);
        for (is_met, expected) in [
            (true, Some(100.0)),
            (true, Some(200.0)),
            (false, Some(200.0)),
            (false, Some(200.0)),
            (false, Some(200.0)),
            (false, Some(200.0)),
            // The second look at 200.
            (false, Some(100.0)),
            (true, Some(100.0)),
        ] {
            search.tell(is_met);
            assert_eq!(search.highest_so_far(), expected, "{search:?}");
        }
        assert_eq!(search.next(), Step::Done(Some(160.0)));
        assert_eq!(Search::new(100.0, 0.2, 1.0, 50).highest_so_far(), None);
    }

    proptest! {
        #[test]
        fn what_is_found_is_near_the_truth(first in 0.1f64..1e5, capacity in 1.0f64..1e5, precision in 0.01f64..0.3) {
            let (tried, found) = play(Search::new(first, precision, 0.01, 200), |_| capacity);
            let found = found.expect("rates below the capacity are tried");
            prop_assert!(found <= capacity && found * (1.0 + precision) * 1.0001 >= capacity, "{found} of {capacity}");
            prop_assert!(tried.len() < 60);
        }

        #[test]
        fn it_ends_whatever_it_is_told(first: f64, precision: f64, lowest: f64, verdicts in prop::collection::vec(any::<bool>(), 1..40)) {
            let mut search = Search::new(first, precision, lowest, 20);
            let mut verdicts = verdicts.into_iter().cycle();
            let n = (0..100).take_while(|_| {
                let is_open = !matches!(search.next(), Step::Done(_));
                search.tell(verdicts.next().unwrap());
                is_open
            });
            prop_assert!(n.count() < 40);
        }
    }
}
