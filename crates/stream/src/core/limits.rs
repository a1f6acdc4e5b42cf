//! How much may come in, and how fast.

use std::time::{Duration, Instant};

/// A bound that closes when it is reached and opens when a quarter of it is free.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gate {
    max: usize,
    is_closed: bool,
}

impl Gate {
    pub(crate) fn new(max: usize) -> Gate {
        Gate { max, is_closed: false }
    }

    /// Looks at how much there is. Gives whether no more may come.
    pub(crate) fn look(&mut self, n: usize) -> bool {
        self.is_closed = if self.is_closed { n > self.max - self.max / 4 } else { n >= self.max };
        self.is_closed
    }

    /// What may still come.
    pub(crate) fn room(&self, n: usize) -> usize {
        self.max.saturating_sub(n)
    }
}

/// Records per second. What was not used is saved up for a tenth of a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    per_second: f64,
    saved: f64,
    at: Instant,
}

impl Rate {
    pub(crate) fn new(per_second: f64, now: Instant) -> Rate {
        Rate { per_second, saved: 1.0, at: now }
    }

    /// How many records may start now.
    pub(crate) fn available(&mut self, now: Instant) -> usize {
        let more = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.saved = (self.saved + more).min((self.per_second / 10.0).max(1.0));
        self.at = now.max(self.at);
        // Below the largest number of records that is ever saved, so that it fits.
        self.saved.max(0.0) as usize
    }

    pub(crate) fn take(&mut self, n: usize) {
        self.saved -= n as f64;
    }

    /// When the next record may start.
    pub(crate) fn next(&self) -> Instant {
        let missing = ((1.0 - self.saved) / self.per_second).clamp(0.0, 3600.0);
        // Rounded up, so that the record may really start then.
        self.at + Duration::from_secs_f64(missing) + Duration::from_micros(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_closes_late_and_opens_early() {
        let mut gate = Gate::new(10);
        let seen = [9, 10, 9, 8, 9, 12].map(|n| gate.look(n));
        assert_eq!(seen, [false, true, true, false, false, true]);
        assert_eq!((gate.room(4), gate.room(12)), (6, 0));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn a_rate_is_kept() {
        let start = Instant::now();
        let mut rate = Rate::new(100.0, start);
        let mut n_started = 0;
        let mut now = start;
        while now < start + Duration::from_secs(10) {
            let n = rate.available(now);
            rate.take(n);
            n_started += n;
            if n == 0 {
                assert!(rate.next() > now);
                now = rate.next();
            }
        }
        assert!((1000..=1002).contains(&n_started), "{n_started}");
        // What is saved up is bounded.
        assert_eq!(rate.available(now + Duration::from_secs(3600)), 10);
    }
}
