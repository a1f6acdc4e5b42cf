//! What the rounds of one thing that is measured come to, and what is worth another round.

use std::num::NonZeroUsize;
use std::time::Duration;

use salver_engine::Precision;

use crate::trial::Trial;

/// Runs whose times are kept of one round; of more, evenly spread ones are.
const MAX_KEPT: usize = 10_000;

/// What all rounds of one thing took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rounds {
    medians: Vec<Duration>,
    speeds: Vec<f64>,
    cpu: Vec<Duration>,
    runs: Vec<Duration>,
    n_runs: usize,
}

impl Rounds {
    pub(crate) fn add(&mut self, trial: Trial) {
        let mut runs = trial.runs;
        self.n_runs += runs.len();
        runs.sort_unstable();
        self.medians.extend(percentile(&runs, 0.5));
        self.runs.extend(runs.iter().step_by(runs.len().div_ceil(MAX_KEPT).max(1)));
        self.speeds.push(trial.rows_per_second);
        self.cpu.push(trial.cpu_per_row);
    }

    pub(crate) fn n_rounds(&self) -> usize {
        self.speeds.len()
    }

    pub(crate) fn n_runs(&self) -> usize {
        self.n_runs
    }

    /// The median of the rounds' medians.
    pub(crate) fn p50(&self) -> Option<Duration> {
        median(&self.medians)
    }

    /// Of all runs.
    pub(crate) fn p99(&self) -> Option<Duration> {
        let mut runs = self.runs.clone();
        runs.sort_unstable();
        percentile(&runs, 0.99)
    }

    pub(crate) fn rows_per_second(&self) -> f64 {
        let mut speeds = self.speeds.clone();
        speeds.sort_by(f64::total_cmp);
        percentile(&speeds, 0.5).unwrap_or(0.0)
    }

    pub(crate) fn cpu_per_row(&self) -> Duration {
        median(&self.cpu).unwrap_or_default()
    }
}

fn median(times: &[Duration]) -> Option<Duration> {
    let mut times = times.to_vec();
    times.sort_unstable();
    percentile(&times, 0.5)
}

/// Of values in ascending order: the smallest that at least this share of all is not above.
fn percentile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// What is known after the first round of one thing that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Standing {
    pub(crate) precision: Precision,
    pub(crate) is_reference: bool,
    pub(crate) batch: NonZeroUsize,
    pub(crate) one_caller: Duration,
    pub(crate) rows_per_second: f64,
}

/// What is worth more rounds: what comes near the most rows per second or the shortest time for one caller among those of
/// its precision; of the reference, what comes near its own best, because the choice is compared with that.
pub(crate) fn contenders(standings: &[Standing]) -> Vec<bool> {
    const NEAR: f64 = 1.3;
    let may_win = |one: &Standing| {
        let peers = || {
            standings.iter().filter(|peer| match one.is_reference {
                true => peer.is_reference,
                false => peer.precision == one.precision,
            })
        };
        let most = peers().map(|peer| peer.rows_per_second).fold(0.0, f64::max);
        let shortest = peers().map(|peer| peer.one_caller).min().unwrap_or_default();
        let smallest = peers().map(|peer| peer.batch).min();
        let is_short = one.one_caller.as_secs_f64() <= shortest.as_secs_f64() * NEAR;
        one.rows_per_second * NEAR >= most || (is_short && Some(one.batch) == smallest)
    };
    standings.iter().map(may_win).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(all: &[u64]) -> Vec<Duration> {
        all.iter().copied().map(Duration::from_millis).collect()
    }

    #[test]
    fn figures_are_medians_of_rounds() {
        let mut rounds = Rounds::default();
        assert_eq!((rounds.p50(), rounds.p99(), rounds.rows_per_second()), (None, None, 0.0));
        for (runs, rows_per_second, cpu) in
            [(&[3, 1, 2][..], 10.0, 5), (&[90, 91, 92], 1.0, 90), (&[2, 2, 2, 4], 12.0, 4)]
        {
            let cpu_per_row = Duration::from_millis(cpu);
            rounds.add(Trial { runs: millis(runs), rows_per_second, cpu_per_row });
        }
        assert_eq!((rounds.n_rounds(), rounds.n_runs()), (3, 10));
        assert_eq!(rounds.p50(), Some(Duration::from_millis(2)));
        assert_eq!(rounds.p99(), Some(Duration::from_millis(92)));
        assert_eq!((rounds.rows_per_second(), rounds.cpu_per_row()), (10.0, Duration::from_millis(5)));
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let all: Vec<u32> = (1..=100).collect();
        for (share, expected) in [(0.0, 1), (0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100)] {
            assert_eq!(percentile(&all, share), Some(expected), "{share}");
        }
    }

    #[test]
    fn what_cannot_win_is_not_measured_again() {
        let standing = |precision, is_reference, batch, millis, rows_per_second| Standing {
            precision,
            is_reference,
            batch: NonZeroUsize::new(batch).unwrap(),
            one_caller: Duration::from_millis(millis),
            rows_per_second,
        };
        let f32 = Precision::F32;
        let standings = [
            (standing(f32, true, 1, 100, 10.0), true),
            (standing(f32, true, 8, 100, 12.0), true),
            (standing(f32, true, 8, 300, 5.0), false),
            (standing(f32, false, 1, 50, 20.0), true),
            (standing(f32, false, 1, 90, 31.0), true),
            (standing(f32, false, 1, 90, 20.0), false),
            (standing(f32, false, 8, 50, 20.0), false),
            (standing(f32, false, 8, 50, 39.0), true),
            (standing(Precision::Bf16, false, 1, 80, 8.0), true),
        ];
        let (standings, expected): (Vec<_>, Vec<_>) = standings.into_iter().unzip();
        assert_eq!(contenders(&standings), expected);
        assert!(contenders(&[]).is_empty());
    }
}
