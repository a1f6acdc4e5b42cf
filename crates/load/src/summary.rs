//! What a run gave. Pure: counts in, figures out.

use std::time::Duration;

use serde::Serialize;

use crate::outcome::Outcome;
use crate::tally::{Latencies, PerOutcome, Tally};

/// How often each class of outcome came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(missing_docs, reason = "the classes are those of `Outcome` and documented there")]
pub struct Counts {
    pub ok: u64,
    pub late: u64,
    pub wrong: u64,
    pub refused: u64,
    pub expired: u64,
    pub failed: u64,
    pub not_sent: u64,
    pub overdue: u64,
}

impl From<PerOutcome> for Counts {
    fn from(counts: PerOutcome) -> Counts {
        let of = |outcome: Outcome| counts[outcome as usize];
        Counts {
            ok: of(Outcome::Ok),
            late: of(Outcome::Late),
            wrong: of(Outcome::Wrong),
            refused: of(Outcome::Refused),
            expired: of(Outcome::Expired),
            failed: of(Outcome::Failed),
            not_sent: of(Outcome::NotSent),
            overdue: of(Outcome::Overdue),
        }
    }
}

impl Counts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.sent() + self.not_sent + self.overdue
    }

    /// Those that left.
    pub fn sent(&self) -> u64 {
        self.answered() + self.refused + self.expired + self.failed
    }

    /// Those with an answer that is no error.
    pub fn answered(&self) -> u64 {
        self.ok + self.late + self.wrong
    }

    fn add(&mut self, other: &Counts) {
        self.ok += other.ok;
        self.late += other.late;
        self.wrong += other.wrong;
        self.refused += other.refused;
        self.expired += other.expired;
        self.failed += other.failed;
        self.not_sent += other.not_sent;
        self.overdue += other.overdue;
    }

    /// The part of all that had no good answer in time.
    pub fn not_in_time(&self) -> f64 {
        match self.total() {
            0 => 0.0,
            total => (total - self.ok) as f64 / total as f64,
        }
    }
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[expect(missing_docs, reason = "the names are those of quantiles")]
pub struct Latency {
    pub n: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Latency {
    fn of(latencies: &Latencies) -> Latency {
        let at = |quantile| millis(latencies.quantile(quantile));
        Latency {
            n: latencies.n(),
            mean: millis(latencies.mean()),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(latencies.max()),
        }
    }
}

/// One window as it was seen when it ended: what ended in it, whenever it was meant to leave.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct WindowRow {
    /// When it ended, in seconds since the end of the warm-up; below 0 or 0 for the warm-up itself.
    pub at: f64,
    /// How long it was, in seconds.
    pub seconds: f64,
    /// What ended in it.
    pub counts: Counts,
    /// Rows of the good answers in time.
    pub rows: u64,
    /// Bytes of answers.
    pub answer_bytes: u64,
    /// Of what was answered, in milliseconds.
    pub p50: f64,
    /// Of what was answered, in milliseconds.
    pub p99: f64,
    /// Requests that were on their way at its end.
    pub in_flight: usize,
    /// Processors that the server used on average.
    pub cpu: Option<f64>,
    /// The server's memory at its end, in bytes.
    pub rss: Option<u64>,
}

impl WindowRow {
    /// Answers per second, in time or not.
    pub fn answered_per_second(&self) -> f64 {
        per_second(self.counts.answered(), self.seconds)
    }

    /// Good answers in time per second.
    pub fn goodput(&self) -> f64 {
        per_second(self.counts.ok, self.seconds)
    }
}

/// What ended in some windows, whenever it was meant to leave.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ended {
    pub(crate) seconds: f64,
    pub(crate) counts: Counts,
    pub(crate) rows: u64,
    pub(crate) answer_bytes: u64,
}

impl Ended {
    pub(crate) fn add(&mut self, row: &WindowRow) {
        self.seconds += row.seconds;
        self.counts.add(&row.counts);
        self.rows += row.rows;
        self.answer_bytes += row.answer_bytes;
    }
}

fn per_second(n: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { n as f64 / seconds } else { 0.0 }
}

/// What the server's processes used while the figures were taken.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct ServerUse {
    /// The root of its processes.
    pub pid: u32,
    /// Processors in use on average.
    pub cpus: f64,
    /// Processor time for each request that ended, refused ones included, in microseconds.
    pub cpu_micros_per_request: f64,
    /// Processor time for each good answer in time, in microseconds.
    pub cpu_micros_per_ok: f64,
    /// Resident memory before the first request, in bytes.
    pub rss_before: u64,
    /// Resident memory at the end, in bytes.
    pub rss_after: u64,
    /// The most resident memory that was seen at the end of a window, in bytes.
    pub rss_peak: u64,
}

/// How the generator did.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Generator {
    /// Threads that sent.
    pub threads: usize,
    /// The part of its time that the busiest of them computed.
    pub busy: f64,
    /// The part of its time that the one that waited most was ready to compute and had no processor.
    pub waited: f64,
    /// How late requests left, in milliseconds.
    pub lag: Latency,
    /// Requests whose answers were no longer waited for when the run was stopped.
    pub unfinished: usize,
}

/// What a run gave. Times are in milliseconds, rates per second.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// How requests were sent, in words.
    pub load: String,
    /// The rate that the schedule asked for.
    pub rate: Option<f64>,
    /// The deadline of each request, in milliseconds.
    pub deadline: Option<f64>,
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// Whether the windows became alike; `None` where a fixed time was measured.
    pub is_stable: Option<bool>,
    /// Whether it was stopped before its end.
    pub is_interrupted: bool,
    /// Why the figures are not to be used: the generator could not keep up. Empty when they are.
    pub invalid: Vec<String>,
    /// What became of the requests that were meant to leave in the time that was measured.
    pub counts: Counts,
    /// Requests that were meant to leave, per second.
    pub offered: f64,
    /// Answers that are no errors, per second: those that came in the time that was measured, whenever they were asked for.
    pub answered: f64,
    /// Good answers in time, per second, of those that came in that time.
    pub goodput: f64,
    /// Rows of good answers in time, per second, of those that came in that time.
    pub rows: f64,
    /// Bytes of answers, per second, of those that came in that time.
    pub answer_bytes: f64,
    /// Requests that were on their way when measuring began, and when it ended.
    pub in_flight: [usize; 2],
    /// Whether the server did less than it was offered at a steady rate, so that ever more requests were on their way.
    pub falls_behind: bool,
    /// From the moment a request was meant to leave to the end of its answer, of those that were answered.
    pub latency: Latency,
    /// The same of those that were refused.
    pub refused_latency: Latency,
    /// The same of those that the server said were past their deadline.
    pub expired_latency: Latency,
    /// Of those that were answered: a part, and the latency in milliseconds that so large a part is not above.
    pub curve: Vec<(f64, f64)>,
    /// The counts of each group of calls.
    pub groups: Vec<Counts>,
    /// What errors said, with how often.
    pub errors: Vec<(String, u64)>,
    /// What the server used, where that could be seen.
    pub server: Option<ServerUse>,
    /// How the generator did.
    pub generator: Generator,
    /// All windows, the warm-up's included.
    pub windows: Vec<WindowRow>,
    #[serde(skip)]
    pub(crate) tally: Tally,
}

impl Summary {
    /// The figures that follow from counts alone: of the requests that were meant to leave in the time that was measured, and of
    /// what ended in it.
    pub(crate) fn of_tally(tally: &Tally, measured: Duration, ended: &Ended) -> Summary {
        let seconds = measured.as_secs_f64();
        let counts = Counts::from(tally.counts);
        let mut errors: Vec<(String, u64)> = tally.texts.iter().map(|(text, n)| (text.clone(), *n)).collect();
        errors.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        Summary {
            load: String::new(),
            rate: None,
            deadline: None,
            seconds,
            is_stable: None,
            is_interrupted: false,
            invalid: Vec::new(),
            counts,
            offered: per_second(counts.total(), seconds),
            answered: per_second(ended.counts.answered(), ended.seconds),
            goodput: per_second(ended.counts.ok, ended.seconds),
            rows: per_second(ended.rows, ended.seconds),
            answer_bytes: per_second(ended.answer_bytes, ended.seconds),
            in_flight: [0, 0],
            falls_behind: false,
            latency: Latency::of(&tally.answered),
            refused_latency: Latency::of(&tally.refused),
            expired_latency: Latency::of(&tally.expired),
            curve: curve(&tally.answered),
            groups: tally.groups.iter().map(|counts| Counts::from(*counts)).collect(),
            errors,
            server: None,
            generator: Generator { lag: Latency::of(&tally.lag), ..Generator::default() },
            windows: Vec::new(),
            tally: tally.clone(),
        }
    }

    /// The least latency that so large a part of the answers is not above; 0 when there are none.
    pub fn quantile(&self, quantile: f64) -> Duration {
        self.tally.answered.quantile(quantile)
    }

    /// The same of refusals.
    pub fn refused_quantile(&self, quantile: f64) -> Duration {
        self.tally.refused.quantile(quantile)
    }
}

/// The quantiles of a curve whose steps get finer towards its end, as far as the count gives them a meaning.
fn curve(latencies: &Latencies) -> Vec<(f64, f64)> {
    let n = latencies.n();
    if n == 0 {
        return Vec::new();
    }
    let last = 1.0 - 0.5 / n as f64;
    let mut curve = Vec::new();
    let mut rest = 1.0;
    // Ten steps for each nine: 0, 0.1 ... 0.9, 0.91 ... 0.99, 0.991 ...
    while rest * n as f64 >= 1.0 && curve.len() < 100 {
        for tenth in 0..9 {
            let quantile = 1.0 - rest * (1.0 - f64::from(tenth) * 0.1);
            if quantile < last {
                curve.push((quantile, millis(latencies.quantile(quantile))));
            }
        }
        rest *= 0.1;
    }
    curve.push((last, millis(latencies.max())));
    curve
}

/// Requests may leave this late before a run is not valid, or a tenth of their latency where that is more.
const MAX_LAG: f64 = 2.0;
const MAX_BUSY: f64 = 0.95;
/// Below this part, single requests that did not leave are the run's own bad luck.
const MAX_GIVEN_UP: f64 = 0.001;

/// Why the figures of a run are the generator's and not the server's.
pub(crate) fn reasons(summary: &Summary, is_open: bool, gave_up: u64) -> Vec<String> {
    let mut reasons = Vec::new();
    let generator = &summary.generator;
    if is_open {
        let allowed = MAX_LAG.max(summary.latency.p99 * 0.1);
        if generator.lag.p99 > allowed {
            reasons.push(format!(
                "the generator was late: p99 {:.1} ms, at most {allowed:.1} ms would do",
                generator.lag.p99
            ));
        }
        let total = summary.counts.total();
        if gave_up as f64 > MAX_GIVEN_UP * total as f64 {
            reasons
                .push(format!("the generator gave up {gave_up} of {total} requests: it was a second late"));
        }
    }
    if generator.busy > MAX_BUSY {
        let percent = generator.busy * 100.0;
        reasons.push(format!("a thread of the generator was busy for {percent:.0} % of the time"));
    } else if !is_open && generator.busy + generator.waited > MAX_BUSY {
        // In an open loop that is a delay of requests, which is judged above.
        let (busy, waited) = (generator.busy * 100.0, generator.waited * 100.0);
        reasons.push(format!(
            "a thread of the generator was busy for {busy:.0} % of the time and waited {waited:.0} % for a processor"
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Event;

    fn tally() -> Tally {
        let mut tally = Tally::default();
        let mut add = |outcome, n: u64, each: u64| {
            for at in 1..=n {
                let latency = Duration::from_millis(at * each);
                tally.record(&Event { n_rows: 4, n_bytes: 10, ..Event::new(outcome, latency) });
            }
        };
        add(Outcome::Ok, 90, 1);
        add(Outcome::Late, 10, 100);
        add(Outcome::Refused, 20, 1);
        add(Outcome::Expired, 5, 50);
        add(Outcome::NotSent, 3, 0);
        tally
    }

    #[test]
    fn figures_follow_from_counts() {
        // Of 128 requests that were meant for 2 s, 28 were answered in them, 20 in time; so were 4 of the time before.
        let mut ended = Ended::default();
        for (ok, late) in [(14, 4), (10, 4)] {
            let counts = Counts { ok, late, refused: 10, ..Counts::default() };
            ended.add(&WindowRow {
                seconds: 1.0,
                counts,
                rows: 4 * ok,
                answer_bytes: 10,
                ..WindowRow::default()
            });
        }
        let summary = Summary::of_tally(&tally(), Duration::from_secs(2), &ended);
        let rates = (summary.offered, summary.answered, summary.goodput, summary.rows, summary.answer_bytes);
        assert_eq!(rates, (64.0, 16.0, 12.0, 48.0, 10.0));
        assert_eq!((summary.latency.n, summary.refused_latency.n, summary.expired_latency.n), (100, 20, 5));
        for (found, expected) in [
            (summary.latency.p50, 50.0),
            (summary.latency.p90, 90.0),
            (summary.latency.max, 1000.0),
            (summary.refused_latency.max, 20.0),
        ] {
            assert!((found / expected - 1.0).abs() < 2e-3, "{found} {expected}");
        }
        assert!((summary.counts.not_in_time() - 38.0 / 128.0).abs() < 1e-9);
        let none = Summary::of_tally(&Tally::default(), Duration::ZERO, &Ended::default());
        assert_eq!((none.offered, none.latency.p99, none.curve.len()), (0.0, 0.0, 0));
    }

    #[test]
    fn the_curve_ascends_and_ends_where_the_count_does() {
        let curve = Summary::of_tally(&tally(), Duration::from_secs(1), &Ended::default()).curve;
        assert!(curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{curve:?}");
        let (quantile, most) = curve[curve.len() - 1];
        assert!((quantile - 0.995).abs() < 1e-9 && (most / 1000.0 - 1.0).abs() < 2e-3);
    }

    #[test]
    fn a_generator_that_cannot_keep_up_is_told() {
        let summary = |lag: f64, p99: f64, busy: f64| {
            let mut summary = Summary::of_tally(&Tally::default(), Duration::from_secs(1), &Ended::default());
            summary.generator.lag.p99 = lag;
            summary.generator.busy = busy;
            summary.latency.p99 = p99;
            summary.counts.ok = 1000;
            summary
        };
        let check = |lag, p99, busy, is_open, gave_up, n: usize| {
            let reasons = reasons(&summary(lag, p99, busy), is_open, gave_up);
            assert_eq!(reasons.len(), n, "{reasons:?}");
        };
        check(1.9, 5.0, 0.5, true, 0, 0);
        check(2.1, 5.0, 0.5, true, 0, 1);
        check(2.1, 50.0, 0.5, true, 1, 0);
        check(2.1, 5.0, 0.5, false, 0, 0);
        check(0.0, 5.0, 0.99, false, 0, 1);
        check(9.0, 5.0, 0.99, true, 100, 3);
        // A closed loop sends when its thread gets a processor.
        let waited = |waited: f64, is_open| {
            let mut summary = summary(0.0, 5.0, 0.5);
            summary.generator.waited = waited;
            reasons(&summary, is_open, 0).len()
        };
        assert_eq!((waited(0.4, false), waited(0.48, false), waited(0.48, true)), (0, 1, 0));
    }
}
