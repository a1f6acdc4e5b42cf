//! What is counted, of a window or a run. Adding up is all it does.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::outcome::Outcome;

/// Latencies with three digits. It takes memory by the largest one: some 90 kB at most.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u32>);

/// Below this, latencies count as this: a clock is no better.
const LEAST: Duration = Duration::from_micros(1);
/// Above this, latencies count as this.
const MOST: Duration = Duration::from_secs(3600);

impl Default for Latencies {
    fn default() -> Latencies {
        let mut histogram = Histogram::new_with_bounds(1_000, 1_000_000, 3)
            .expect("the bounds are a factor of two apart and the digits are few");
        histogram.auto(true);
        Latencies(histogram)
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.clamp(LEAST, MOST).as_nanos()).unwrap_or(u64::MAX);
        self.0.record(nanos).expect("the histogram grows as needed");
    }

    pub(crate) fn add(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("the histogram grows as needed");
    }

    pub(crate) fn n(&self) -> u64 {
        self.0.len()
    }

    /// The least latency that so large a part is not above; 0 when there is none.
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        match self.n() {
            0 => Duration::ZERO,
            // The histogram gives an end of a step, which may lie beyond the values.
            _ => Duration::from_nanos(self.0.value_at_quantile(quantile).min(self.0.max())).max(LEAST),
        }
    }

    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    pub(crate) fn mean(&self) -> Duration {
        if self.n() == 0 { Duration::ZERO } else { Duration::from_nanos(self.0.mean() as u64) }
    }
}

/// What became of one request.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) outcome: Outcome,
    /// From the moment it was meant to leave to the end of its answer.
    pub(crate) latency: Duration,
    /// From the moment it was meant to leave to the moment it did.
    pub(crate) lag: Duration,
    pub(crate) n_rows: u64,
    pub(crate) n_bytes: u64,
    /// Which group of calls it belongs to.
    pub(crate) group: usize,
    /// What went wrong, for the classes that have texts.
    pub(crate) text: Option<String>,
}

impl Event {
    pub(crate) fn new(outcome: Outcome, latency: Duration) -> Event {
        Event { outcome, latency, lag: Duration::ZERO, n_rows: 1, n_bytes: 0, group: 0, text: None }
    }
}

/// How often each class came up, by [`Outcome::ALL`].
pub(crate) type PerOutcome = [u64; Outcome::ALL.len()];

/// The texts that are kept; more kinds than this are counted together.
const MAX_TEXTS: usize = 8;
const MAX_TEXT: usize = 300;

/// More groups than this are counted with the last one.
pub(crate) const MAX_GROUPS: usize = 64;

/// The counts and latencies of some requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) counts: PerOutcome,
    /// Of [`Outcome::Ok`], [`Outcome::Late`] and [`Outcome::Wrong`].
    pub(crate) answered: Latencies,
    pub(crate) refused: Latencies,
    pub(crate) expired: Latencies,
    pub(crate) lag: Latencies,
    /// Rows of the requests that were answered in time.
    pub(crate) n_rows: u64,
    /// Bytes of answers.
    pub(crate) n_bytes: u64,
    pub(crate) groups: Vec<PerOutcome>,
    pub(crate) texts: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn record(&mut self, event: &Event) {
        let at = event.outcome as usize;
        self.counts[at] += 1;
        let group = event.group.min(MAX_GROUPS - 1);
        if self.groups.len() <= group {
            self.groups.resize(group + 1, PerOutcome::default());
        }
        self.groups[group][at] += 1;
        match event.outcome {
            Outcome::Ok | Outcome::Late | Outcome::Wrong => self.answered.record(event.latency),
            Outcome::Refused => self.refused.record(event.latency),
            Outcome::Expired => self.expired.record(event.latency),
            Outcome::Failed | Outcome::NotSent | Outcome::Overdue => {}
        }
        if event.outcome == Outcome::Ok {
            self.n_rows += event.n_rows;
        }
        self.n_bytes += event.n_bytes;
        self.lag.record(event.lag);
        if let Some(text) = &event.text {
            self.note(text, 1);
        }
    }

    fn note(&mut self, text: &str, n: u64) {
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        let is_known = self.texts.contains_key(text);
        let text = if is_known || self.texts.len() < MAX_TEXTS { text } else { "others" };
        *self.texts.entry(text.to_owned()).or_default() += n;
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, n)| *sum += n);
        if self.groups.len() < other.groups.len() {
            self.groups.resize(other.groups.len(), PerOutcome::default());
        }
        for (sums, counts) in self.groups.iter_mut().zip(&other.groups) {
            sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        }
        self.answered.add(&other.answered);
        self.refused.add(&other.refused);
        self.expired.add(&other.expired);
        self.lag.add(&other.lag);
        self.n_rows += other.n_rows;
        self.n_bytes += other.n_bytes;
        other.texts.iter().for_each(|(text, n)| self.note(text, *n));
    }

    pub(crate) fn of(&self, outcome: Outcome) -> u64 {
        self.counts[outcome as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn outcomes_have_the_number_of_their_place() {
        assert!(Outcome::ALL.iter().enumerate().all(|(at, outcome)| *outcome as usize == at));
    }

    #[test]
    fn latencies_keep_three_digits_and_their_ends() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.quantile(0.99), latencies.max(), latencies.mean()), Default::default());
        latencies.record(Duration::ZERO);
        latencies.record(Duration::from_micros(1234));
        latencies.record(Duration::from_secs(1_000_000));
        assert_eq!(latencies.quantile(0.0), LEAST);
        let middle = latencies.quantile(0.5).as_nanos() as f64;
        assert!((middle / 1_234_000.0 - 1.0).abs() < 1e-3, "{middle}");
        let most = latencies.max().as_secs_f64();
        assert!((most / MOST.as_secs_f64() - 1.0).abs() < 1e-3, "{most}");
    }

    #[test]
    fn texts_are_few() {
        let mut tally = Tally::default();
        for n in 0..100 {
            let text = Some(format!("error {n} {}", "x".repeat(1000)));
            tally.record(&Event { text, group: n, ..Event::new(Outcome::Failed, Duration::ZERO) });
        }
        assert_eq!(tally.texts.len(), MAX_TEXTS + 1);
        assert_eq!(tally.texts["others"], 100 - MAX_TEXTS as u64);
        assert!(tally.texts.keys().all(|text| text.len() <= MAX_TEXT));
        assert_eq!(tally.groups.len(), MAX_GROUPS);
    }

    proptest! {
        /// Counting in two parts and adding is counting at once.
        #[test]
        fn parts_add_up(events in prop::collection::vec((0usize..8, 0u64..10_000_000, 0usize..5), 0..60), cut in 0usize..60) {
            let tally = |events: &[(usize, u64, usize)]| {
                let mut tally = Tally::default();
                for (outcome, micros, group) in events {
                    let latency = Duration::from_micros(*micros);
                    let text = (*micros % 3 == 0).then(|| format!("text {group}"));
                    tally.record(&Event { group: *group, text, ..Event::new(Outcome::ALL[*outcome], latency) });
                }
                tally
            };
            let whole = tally(&events);
            let (first, rest) = events.split_at(cut.min(events.len()));
            let mut sum = tally(first);
            sum.add(&tally(rest));
            prop_assert_eq!((sum.counts, &sum.texts), (whole.counts, &whole.texts));
            let all = |tally: &Tally| tally.groups.iter().flatten().sum::<u64>();
            prop_assert_eq!(all(&sum), all(&whole));
            for part in [0.0, 0.5, 0.99, 1.0] {
                prop_assert_eq!(sum.answered.quantile(part), whole.answered.quantile(part));
            }
            prop_assert_eq!(whole.counts.iter().sum::<u64>(), events.len() as u64);
        }
    }
}
