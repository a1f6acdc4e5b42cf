//! The last runs of one size, or of all.

/// So many that the second largest is the 99th percentile.
const N: usize = 128;

/// The median is of so many, so that it follows an engine that becomes faster or slower.
const N_RECENT: usize = 32;

/// The percentiles are taken anew after so many runs once there are some dozens.
const EVERY: usize = 4;

/// The last values, and their percentiles (nearest rank).
#[derive(Debug, Clone)]
pub(super) struct Ring<T> {
    last: Vec<T>,
    next: usize,
    percentiles: Percentiles<T>,
}

/// The median of the newest, and the 90th and 99th percentile of all.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Percentiles<T> {
    pub(super) p50: T,
    pub(super) p90: T,
    pub(super) p99: T,
}

impl<T: Copy + Ord + Default> Ring<T> {
    pub(super) fn new() -> Ring<T> {
        Ring { last: Vec::new(), next: 0, percentiles: Percentiles::default() }
    }

    /// Takes in a value; says whether the percentiles were taken anew.
    pub(super) fn push(&mut self, value: T) -> bool {
        match self.last.get_mut(self.next) {
            Some(oldest) => *oldest = value,
            None => self.last.push(value),
        }
        self.next = (self.next + 1) % N;
        let is_due = self.last.len() < N_RECENT || self.next.is_multiple_of(EVERY);
        if is_due {
            let newest = self.last.iter().cycle().skip(self.next + self.last.len().saturating_sub(N_RECENT));
            let mut newest: Vec<T> = newest.take(self.last.len().min(N_RECENT)).copied().collect();
            let mut all = self.last.clone();
            newest.sort_unstable();
            all.sort_unstable();
            let p50 = rank(&newest, 50);
            // The median of other values may be above these.
            let [p90, p99] = [90, 99].map(|percent| rank(&all, percent).max(p50));
            self.percentiles = Percentiles { p50, p90, p99 };
        }
        is_due
    }

    /// Forgets all but the newest values.
    pub(super) fn keep_newest(&mut self, n: usize) {
        let n_skipped = self.next + self.last.len().saturating_sub(n);
        let newest = self.last.iter().cycle().skip(n_skipped).take(n.min(self.last.len())).copied().collect();
        self.last = newest;
        self.next = self.last.len() % N;
    }

    pub(super) fn percentiles(&self) -> Percentiles<T> {
        self.percentiles
    }

    pub(super) fn len(&self) -> usize {
        self.last.len()
    }

    /// Whether there are enough values to tell the 99th percentile from the largest.
    pub(super) fn is_full(&self) -> bool {
        self.last.len() >= N
    }
}

fn rank<T: Copy + Default>(sorted: &[T], percent: usize) -> T {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_the_newest() {
        let mut ring = Ring::new();
        let check = |ring: &Ring<u64>, expected: [u64; 3]| {
            let Percentiles { p50, p90, p99 } = ring.percentiles();
            assert_eq!([p50, p90, p99], expected);
        };
        (1..=9).for_each(|n| {
            ring.push(n);
        });
        check(&ring, [5, 9, 9]);
        assert!(!ring.is_full());
        (0..160).for_each(|_| {
            ring.push(10);
        });
        check(&ring, [10, 10, 10]);
        assert!(ring.is_full());
        (0..20).for_each(|_| {
            ring.push(50);
        });
        check(&ring, [50, 50, 50]);
        (0..32).for_each(|_| {
            ring.push(10);
        });
        check(&ring, [10, 50, 50]);
        (0..128).for_each(|_| {
            ring.push(20);
        });
        check(&ring, [20, 20, 20]);
        // What is kept stays in order.
        (1..=5).for_each(|n| {
            ring.push(n);
        });
        ring.keep_newest(3);
        assert_eq!((ring.last.as_slice(), ring.len()), (&[3, 4, 5][..], 3));
        ring.push(6);
        check(&ring, [4, 6, 6]);
        ring.keep_newest(9);
        assert_eq!(ring.len(), 4);
        (0..128).for_each(|_| {
            ring.push(20);
        });
        // Percentiles are never below the median.
        (0..20).for_each(|_| {
            ring.push(90);
        });
        check(&ring, [90, 90, 90]);
    }
}
