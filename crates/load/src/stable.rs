//! How long a run lasts. Pure.

use std::time::Duration;

use crate::error::Error;

/// The parts of a run: warm-up, which counts for nothing, then windows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// What is sent before counts for nothing.
    pub warm_up: Duration,
    /// The length of one window.
    pub window: Duration,
    /// A fixed number of windows in all; `None` measures until the last [`Timing::n_stable`] are alike, and those count.
    pub duration: Option<Duration>,
    /// The longest that windows go on when they do not become alike; then all count.
    pub max_duration: Duration,
    /// How many windows in a row have to be alike.
    pub n_stable: usize,
    /// How far the rates and the 99th percentiles of windows that are alike may be apart, as a part.
    pub within: f64,
}

impl Default for Timing {
    /// 2 s of warm-up, then windows of 1 s until 3 are within 10 %, for 30 s at most.
    fn default() -> Timing {
        Timing {
            warm_up: Duration::from_secs(2),
            window: Duration::from_secs(1),
            duration: None,
            max_duration: Duration::from_secs(30),
            n_stable: 3,
            within: 0.1,
        }
    }
}

impl Timing {
    /// The same with a fixed time.
    #[must_use]
    pub fn fixed(self, duration: Duration) -> Timing {
        Timing { duration: Some(duration), ..self }
    }

    /// The most windows that there are.
    pub(crate) fn max_windows(&self) -> u64 {
        let longest = self.duration.unwrap_or(self.max_duration).as_secs_f64();
        (longest / self.window.as_secs_f64()).ceil().max(1.0) as u64
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        const SHORTEST: Duration = Duration::from_millis(10);
        const MAX_STABLE: usize = 10_000;
        if self.window < SHORTEST {
            return Err(Error::input(format!("a window is {:?}, expected 10ms at least", self.window)));
        }
        let longest = self.duration.unwrap_or(self.max_duration);
        if longest.is_zero() || self.n_stable == 0 {
            return Err(Error::input("a run of no time measures nothing"));
        }
        if self.n_stable > MAX_STABLE {
            return Err(Error::input(format!(
                "{} windows alike, expected {MAX_STABLE} at most",
                self.n_stable
            )));
        }
        Ok(())
    }
}

/// So large a part of what is offered may stay undone.
const MAX_BEHIND: f64 = 0.03;

/// Whether a server does less than it is offered at a steady rate: what is on its way has grown by more than 3 % of what was
/// offered, and by more than chance explains (twice the scatter of random arrivals). `usual` is how many are on their way
/// where the server keeps up, as far as that is known: a run that begins with none fills up to that.
pub(crate) fn falls_behind(before: usize, after: usize, n_ended: u64, usual: f64) -> bool {
    let (before, after) = (before as f64, after as f64);
    let offered = n_ended as f64 + after - before;
    let usual = usual.max(before);
    after - usual > MAX_BEHIND * offered + 2.0 * (usual + 1.0).sqrt()
}

/// Whether these windows are alike, each a rate and a 99th percentile: the largest is within so much of the smallest.
/// Windows without answers are not.
pub fn is_stable(windows: &[(f64, f64)], within: f64) -> bool {
    let alike = |of: fn(&(f64, f64)) -> f64| {
        let least = windows.iter().map(of).fold(f64::INFINITY, f64::min);
        let most = windows.iter().map(of).fold(0.0, f64::max);
        least > 0.0 && least.is_finite() && most <= least * (1.0 + within)
    };
    !windows.is_empty() && alike(|one| one.0) && alike(|one| one.1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn windows_that_are_alike_are_stable() {
        for (windows, expected) in [
            (&[(100.0, 5.0), (105.0, 5.2), (98.0, 4.9)] as &[_], true),
            (&[(100.0, 5.0), (100.0, 5.6)], false),
            (&[(100.0, 5.0), (111.0, 5.0)], false),
            (&[(100.0, 5.0), (0.0, 0.0)], false),
            (&[(0.0, 0.0)], false),
            (&[], false),
            (&[(f64::NAN, 1.0)], false),
        ] {
            assert_eq!(is_stable(windows, 0.1), expected, "{windows:?}");
        }
    }

    #[test]
    fn what_grows_by_more_than_chance_falls_behind() {
        for (before, after, n_ended, usual, expected) in [
            // 200 a second for 3 s at a server that does 90.
            (220, 550, 270, 0.0, true),
            // 100 a second at one that does 90, after 2 s of that.
            (20, 50, 270, 0.0, true),
            (20, 50, 270, 21.0, true),
            // As many are on their way as before, however many; fewer; a few more.
            (4000, 4000, 270, 0.0, false),
            (400, 10, 1000, 0.0, false),
            (3, 7, 300, 0.0, false),
            (0, 2, 3, 0.0, false),
            // It takes a second to answer, and nothing was sent before.
            (0, 100, 200, 0.0, true),
            (0, 100, 200, 100.0, false),
            // Nothing came back.
            (0, 50, 0, 0.0, true),
            (0, 0, 0, 0.0, false),
            (0, 1, 0, 0.0, false),
        ] {
            assert_eq!(
                falls_behind(before, after, n_ended, usual),
                expected,
                "{before} {after} {n_ended} {usual}"
            );
        }
    }

    #[test]
    fn windows_are_counted() {
        let timing = Timing { window: Duration::from_millis(300), ..Timing::default() };
        assert_eq!(timing.max_windows(), 100);
        assert_eq!(timing.fixed(Duration::from_secs(1)).max_windows(), 4);
        assert_eq!(timing.fixed(Duration::from_millis(1)).max_windows(), 1);
        assert!(timing.fixed(Duration::ZERO).check().is_err());
        assert!(Timing { window: Duration::ZERO, ..timing }.check().is_err());
    }

    proptest! {
        /// What is stable stays so when windows are taken away or come in another order.
        #[test]
        fn fewer_windows_stay_stable(mut windows in prop::collection::vec((1.0f64..2.0, 1.0f64..2.0), 2..5), within in 0.0f64..1.0) {
            if is_stable(&windows, within) {
                windows.reverse();
                prop_assert!(is_stable(&windows, within));
                windows.pop();
                prop_assert!(is_stable(&windows, within));
            }
        }
    }
}
