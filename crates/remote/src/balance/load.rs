//! What is known of a peer's latency, and what one more call to it would cost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The shortest latency that is told apart, in seconds.
const SHORTEST: f64 = 1e-6;

/// Answers that what is usual goes by.
const USUAL: f64 = 16.0;

/// Peak EWMA of the latency, and the calls that are under way.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Seconds, as of that moment.
    average: Option<(f64, Instant)>,
    /// Seconds that answers take, on a plain average that neither decays nor follows peaks at once.
    usual: Option<f64>,
    /// By number, which rises, so the first one has waited longest.
    under_way: BTreeMap<u64, Instant>,
}

impl Load {
    pub(super) fn begin(&mut self, number: u64, now: Instant) {
        self.under_way.insert(number, now);
    }

    /// Whether that call was under way.
    pub(super) fn end(&mut self, number: u64) -> bool {
        self.under_way.remove(&number).is_some()
    }

    pub(super) fn n_under_way(&self) -> usize {
        self.under_way.len()
    }

    /// The average in seconds. Without new calls it decays, so that one that was slow once is asked again some day.
    pub(super) fn estimate(&self, now: Instant, decay: Duration) -> Option<f64> {
        let (average, at) = self.average?;
        Some((average * weight(at, now, decay)).max(SHORTEST))
    }

    /// What answers usually take, in seconds.
    pub(super) fn usual(&self) -> Option<f64> {
        self.usual
    }

    /// The answer to a call took so long. A peak replaces the average at once, less pulls it down slowly.
    pub(super) fn took(&mut self, latency: Duration, now: Instant, decay: Duration) {
        let latency = latency.as_secs_f64().max(SHORTEST);
        self.usual = Some(self.usual.map_or(latency, |usual| usual + (latency - usual) / USUAL));
        let average = match self.average {
            Some((average, at)) if latency < average => {
                let kept = weight(at, now, decay);
                average * kept + latency * (1.0 - kept)
            }
            _ => latency,
        };
        self.average = Some((average, now));
    }

    /// At least so long, in seconds: evidence that can make a peer look slower, never faster. An error that comes at once
    /// would else draw all calls to the peer that gives it.
    pub(super) fn at_least(&mut self, seconds: f64, now: Instant, decay: Duration) {
        if self.estimate(now, decay).is_some_and(|estimate| seconds > estimate) {
            self.average = Some((seconds, now));
        }
    }

    /// Forgets what calls took, except how long this one did.
    pub(super) fn reset(&mut self, seconds: f64, now: Instant) {
        self.average = Some((seconds.max(SHORTEST), now));
    }

    /// The expected time of one more call, in seconds: the latency times those that share the peer then. The latency is what
    /// answers say, or what the oldest call under way says already. `assumed` stands for a peer that has not answered yet.
    pub(super) fn cost(&self, now: Instant, decay: Duration, assumed: f64) -> f64 {
        let waited = self
            .under_way
            .first_key_value()
            .map_or(0.0, |(_, since)| now.saturating_duration_since(*since).as_secs_f64());
        let latency = self.estimate(now, decay).unwrap_or(assumed).max(waited);
        // As many calls as a double counts exactly are never under way.
        latency * (self.under_way.len() as f64 + 1.0)
    }
}

/// How much of an average is left: a share of 1/e after `decay`.
fn weight(at: Instant, now: Instant, decay: Duration) -> f64 {
    (-now.saturating_duration_since(at).as_secs_f64() / decay.as_secs_f64().max(SHORTEST)).exp()
}

/// The geometric mean of what is usual for each peer: one that is very slow hardly moves it.
#[derive(Debug, Default)]
pub(super) struct Typical {
    sum: f64,
    n: u32,
}

impl Typical {
    pub(super) fn change(&mut self, before: Option<f64>, after: Option<f64>) {
        if let Some(before) = before {
            self.sum -= before.ln();
            self.n = self.n.saturating_sub(1);
        }
        if let Some(after) = after {
            self.sum += after.ln();
            self.n = self.n.saturating_add(1);
        }
        if self.n == 0 {
            self.sum = 0.0;
        }
    }

    pub(super) fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| (self.sum / f64::from(self.n)).exp())
    }
}
