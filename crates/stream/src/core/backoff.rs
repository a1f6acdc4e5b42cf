//! When to try again.

use std::time::{Duration, Instant};

use crate::Retry;

/// Retries in a row that need no budget: what is left of it when nothing has succeeded yet.
const RESERVE: f64 = 100.0;

/// Waits of a part of the stream whose calls fail for troubles that pass. The whole part waits, since what would be sent
/// meanwhile goes to the same place.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    settings: Retry,
    n_failures: u32,
    until: Option<Instant>,
    budget: f64,
}

impl Backoff {
    pub(crate) fn new(settings: Retry) -> Backoff {
        Backoff { settings, n_failures: 0, until: None, budget: RESERVE }
    }

    /// So many records were answered.
    pub(crate) fn succeeded(&mut self, n: usize) {
        if n > 0 {
            self.n_failures = 0;
            self.until = None;
            self.budget = (self.budget + n as f64 * self.settings.budget_percent / 100.0).min(RESERVE * 10.0);
        }
    }

    /// So many records have to be tried again.
    pub(crate) fn failed(&mut self, now: Instant, n: usize) {
        let Retry { backoff, max_backoff, .. } = self.settings;
        // Failures of batches that were sent together count as one.
        if self.until.is_some_and(|until| until > now) {
            self.budget = (self.budget - n as f64).max(0.0);
            return;
        }
        let doubled = backoff.saturating_mul(1 << self.n_failures.min(20));
        let wait = if self.budget < n as f64 { max_backoff } else { doubled.min(max_backoff) };
        self.budget = (self.budget - n as f64).max(0.0);
        self.n_failures = self.n_failures.saturating_add(1);
        self.until = Some(now + wait);
    }

    /// Waits at least so long, for another reason.
    pub(crate) fn hold(&mut self, until: Instant) {
        self.until = Some(self.until.map_or(until, |held| held.max(until)));
    }

    /// Until when the part waits, if it does.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// A wait for troubles with writing: 50 ms, doubling up to 5 s.
    pub(crate) fn of_failure(n_failures: u32) -> Duration {
        Duration::from_millis(50).saturating_mul(1 << n_failures.min(10)).min(Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn waits_double_and_end_with_success() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(Retry { budget_percent: 10.0, ..Retry::default() });
        let mut waits = Vec::new();
        for _ in 0..10 {
            backoff.failed(now, 1);
            backoff.failed(now, 1);
            let until = backoff.until(now).unwrap();
            waits.push((until - now).as_millis());
            now = until;
        }
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000]);
        assert_eq!(backoff.until(now), None);
        backoff.succeeded(1);
        backoff.failed(now, 1);
        assert_eq!(backoff.until(now), Some(now + Duration::from_millis(20)));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn beyond_the_budget_waits_are_the_longest() {
        let now = Instant::now();
        let mut backoff = Backoff::new(Retry::default());
        backoff.failed(now, 101);
        assert_eq!(backoff.until(now), Some(now + Duration::from_secs(5)));
        let later = now + Duration::from_secs(6);
        backoff.succeeded(500);
        backoff.failed(later, 100);
        assert_eq!(backoff.until(later), Some(later + Duration::from_millis(20)));
    }
}
