//! What is tried, and how long that may take.

use std::num::NonZeroUsize;
use std::time::Duration;

/// What is tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Threads and lanes, at least one pair.
    pub sharings: Vec<Sharing>,
    /// Rows per run, ascending, without repetition; the first is 1.
    pub batch_sizes: Vec<NonZeroUsize>,
    /// Time for all of it, about: what was begun is finished, and everything runs at least once.
    pub budget: Duration,
    /// Bytes that loaded models may take together. With less than all need they are measured in groups, one after another.
    pub max_loaded_bytes: u64,
}

/// How the cores are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sharing {
    /// Threads that one run may use.
    pub threads: NonZeroUsize,
    /// Runs at a time.
    pub lanes: NonZeroUsize,
}

impl Sharing {
    /// One run at a time, on one thread.
    pub const ONE: Sharing = Sharing { threads: NonZeroUsize::MIN, lanes: NonZeroUsize::MIN };

    /// The ways to use so many cores that are worth trying: for each power of two of threads, and for all cores, one lane
    /// and as many lanes as fit. Never more threads than cores in all.
    pub fn of_cores(cores: NonZeroUsize, max_threads: NonZeroUsize) -> Vec<Sharing> {
        let cores = cores.min(max_threads).get();
        let powers = std::iter::successors(Some(1usize), |n| n.checked_mul(2)).take_while(|&n| n < cores);
        let mut sharings = Vec::new();
        for threads in powers.chain([cores]) {
            for lanes in [1, cores / threads] {
                if let (Some(threads), Some(lanes)) = (NonZeroUsize::new(threads), NonZeroUsize::new(lanes)) {
                    sharings.push(Sharing { threads, lanes });
                }
            }
        }
        sharings.sort_unstable();
        sharings.dedup();
        sharings
    }
}

impl Plan {
    /// The batch sizes whose run, at this time per row, takes no more of the budget than one run should: a fiftieth. The
    /// smallest stays in any case.
    pub(crate) fn batches_for(&self, per_row: Duration) -> Vec<NonZeroUsize> {
        let fits = |rows: NonZeroUsize| {
            per_row.saturating_mul(u32::try_from(rows.get()).unwrap_or(u32::MAX)) <= self.budget / 50
        };
        let first = self.batch_sizes.first().copied();
        self.batch_sizes.iter().copied().filter(|&rows| Some(rows) == first || fits(rows)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).unwrap()
    }

    #[test]
    fn cores_are_shared_out() {
        let check = |cores: usize, max: usize, expected: &[(usize, usize)]| {
            let sharings = Sharing::of_cores(n(cores), n(max));
            let sharings: Vec<_> = sharings.iter().map(|s| (s.threads.get(), s.lanes.get())).collect();
            assert_eq!(sharings, expected, "{cores} cores, {max} threads at most");
        };
        check(1, 1, &[(1, 1)]);
        check(2, 2, &[(1, 1), (1, 2), (2, 1)]);
        check(2, 8, &[(1, 1), (1, 2), (2, 1)]);
        check(8, 3, &[(1, 1), (1, 3), (2, 1), (3, 1)]);
        check(8, 8, &[(1, 1), (1, 8), (2, 1), (2, 4), (4, 1), (4, 2), (8, 1)]);
        for cores in 1..70 {
            let sharings = Sharing::of_cores(n(cores), n(cores));
            assert!(sharings.iter().all(|s| s.threads.get() * s.lanes.get() <= cores), "{cores}");
        }
    }

    #[test]
    fn batches_that_take_too_long_are_left_out() {
        let plan = Plan {
            sharings: vec![Sharing::ONE],
            batch_sizes: vec![n(1), n(8), n(32)],
            budget: Duration::from_secs(50),
            max_loaded_bytes: 0,
        };
        for (millis, expected) in [(1, 3), (31, 3), (32, 2), (125, 2), (126, 1), (5_000, 1)] {
            assert_eq!(plan.batches_for(Duration::from_millis(millis)).len(), expected, "{millis} ms a row");
        }
    }
}
