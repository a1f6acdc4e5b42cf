//! How many retries there may be: a share of the requests, so that retries never multiply an overload.

use std::time::Instant;

/// Tokens that are kept at most, and that there are at first: what a burst may spend, such as the calls that were under way to
/// one server that dies.
const MOST: f64 = 256.0;

/// Tokens that come back each second, and are kept at most, without any requests: a caller that asks seldom may retry too.
const RESERVE: f64 = 10.0;

/// A bucket of tokens, one for each retry.
#[derive(Debug)]
pub(crate) struct Budget {
    share: f64,
    tokens: f64,
    at: Instant,
    denied: u64,
}

impl Budget {
    /// `share` of the requests, from 0 to 1; with 0 there are none.
    pub(crate) fn new(share: f64, now: Instant) -> Budget {
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        Budget { share, tokens: if share > 0.0 { MOST } else { 0.0 }, at: now, denied: 0 }
    }

    /// A request that is no retry.
    pub(crate) fn request(&mut self) {
        self.tokens = (self.tokens + self.share).min(MOST);
    }

    /// Whether there may be a retry now; if so, it is counted.
    pub(crate) fn retry(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        if self.share > 0.0 && self.tokens < RESERVE {
            self.tokens = (self.tokens + passed * RESERVE).min(RESERVE);
        }
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        } else {
            self.denied = self.denied.saturating_add(1);
        }
        granted
    }

    /// Retries that there was no token for.
    pub(crate) fn denied(&self) -> u64 {
        self.denied
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn retries_are_a_share_of_requests_and_a_few_a_second() {
        let start = crate::clock::now();
        let check = |share: f64, requests: usize, after: Duration, expected: usize| {
            let mut budget = Budget::new(share, start);
            while budget.retry(start) {}
            (0..requests).for_each(|_| budget.request());
            let now = start + after;
            let granted = (0..1000).take_while(|_| budget.retry(now)).count();
            assert_eq!(granted, expected, "{share} of {requests} after {after:?}");
        };
        check(0.25, 100, Duration::ZERO, 25);
        check(0.25, 0, Duration::from_millis(500), 5);
        check(0.25, 0, Duration::from_secs(60), 10);
        check(0.25, 100_000, Duration::ZERO, 256);
        check(0.0, 1000, Duration::from_secs(60), 0);
        check(f64::NAN, 1000, Duration::from_secs(60), 0);
    }

    proptest! {
        /// However requests and failures come, there are no more retries than the bucket held, the share of the requests
        /// and the reserve of the time that passed.
        #[test]
        fn the_bound_holds(share in 0.0..1.0f64, steps in prop::collection::vec((0u64..50, any::<bool>()), 0..400)) {
            let start = crate::clock::now();
            let mut budget = Budget::new(share, start);
            let (mut now, mut requests, mut retries) = (start, 0.0, 0.0);
            for (millis, is_request) in steps {
                now += Duration::from_millis(millis);
                if is_request {
                    budget.request();
                    requests += 1.0;
                } else if budget.retry(now) {
                    retries += 1.0;
                }
            }
            let passed = (now - start).as_secs_f64();
            prop_assert!(retries <= MOST + share * requests + RESERVE * passed + 1e-6);
        }
    }
}
