//! How long runs take, as far as the choice between a lane and the calling thread needs to know; read without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Sizes are told apart by powers of two; beyond the last they count as equal.
const N_SIZES: usize = 40;

/// Estimates per signature and size of the inputs in bytes: the number of rows alone would not tell a long sequence
/// from a short one.
///
/// An estimate is a maximum that decays: a slower run raises it at once, faster ones lower it by an eighth of the
/// difference each. So one slow run sends the next tasks to the lanes, and some dozens of fast runs there bring them
/// back. Updates of two threads may overwrite each other; the next run makes up for it.
#[derive(Debug)]
pub(crate) struct RunTimes(Vec<[AtomicU64; N_SIZES]>);

impl RunTimes {
    pub(crate) fn new(n_signatures: usize) -> RunTimes {
        RunTimes((0..n_signatures).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect())
    }

    fn slot(&self, signature: usize, n_bytes: usize) -> Option<&AtomicU64> {
        let bits = usize::BITS - n_bytes.leading_zeros();
        self.0.get(signature)?.get((bits as usize).min(N_SIZES - 1))
    }

    /// How long a run is expected to take; `None` when there was no such run yet.
    pub(crate) fn estimate(&self, signature: usize, n_bytes: usize) -> Option<Duration> {
        let nanos = self.slot(signature, n_bytes)?.load(Ordering::Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    /// Takes in one run.
    pub(crate) fn record(&self, signature: usize, n_bytes: usize, ran: Duration) {
        let Some(slot) = self.slot(signature, n_bytes) else { return };
        let (ran, old) = (nanos(ran), slot.load(Ordering::Relaxed));
        slot.store(if ran >= old { ran } else { old - (old - ran).div_ceil(8) }, Ordering::Relaxed);
    }

    /// Replaces the estimate, whatever it was.
    pub(crate) fn seed(&self, signature: usize, n_bytes: usize, ran: Duration) {
        if let Some(slot) = self.slot(signature, n_bytes) {
            slot.store(nanos(ran), Ordering::Relaxed);
        }
    }
}

/// At least 1, because 0 stands for unknown.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_run_counts_at_once_and_fades() {
        let micros = Duration::from_micros;
        let costs = RunTimes::new(1);
        assert_eq!(costs.estimate(0, 100), None);
        costs.record(0, 100, micros(3));
        costs.record(0, 100, micros(1000));
        assert_eq!(costs.estimate(0, 100), Some(micros(1000)));
        for _ in 0..60 {
            costs.record(0, 100, micros(3));
        }
        let estimate = costs.estimate(0, 100).unwrap();
        assert!(estimate < micros(5) && estimate >= micros(3), "{estimate:?}");
        costs.seed(0, 100, micros(7));
        assert_eq!(costs.estimate(0, 100), Some(micros(7)));
    }

    #[test]
    fn sizes_and_signatures_are_apart() {
        let costs = RunTimes::new(2);
        costs.record(1, 64, Duration::from_micros(9));
        assert_eq!(costs.estimate(1, 127), Some(Duration::from_micros(9)));
        for (signature, n_bytes) in [(0, 64), (1, 63), (1, 128), (1, 0), (2, 64), (1, usize::MAX)] {
            assert_eq!(costs.estimate(signature, n_bytes), None, "{signature} {n_bytes}");
        }
    }
}
