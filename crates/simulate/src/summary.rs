//! What came of a simulation, in a few numbers.

use std::time::Duration;

use crate::{Fate, History, Request, Trace};

/// Of the requests that came after the start-up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Requests.
    pub n: usize,
    /// What rows that came are worth, per second.
    pub offered: f64,
    /// What rows answered within their deadline are worth, per second.
    pub goodput: f64,
    /// Part of requests answered within their deadline.
    pub good: f64,
    /// Part answered after it.
    pub late: f64,
    /// Part refused as they came.
    pub refused: f64,
    /// Part that was taken and then neither answered: dropped for its deadline, or displaced by another.
    pub dropped: f64,
    /// Median of the answered.
    pub p50: Duration,
    /// 99th percentile of the answered.
    pub p99: Duration,
    /// 99th percentile of the time until a request that was not answered heard of it.
    pub p99_refused: Duration,
    /// Rows of a batch, on average over batches.
    pub batch: f64,
    /// Part of lanes' time that was used.
    pub busy: f64,
}

impl Summary {
    /// Of the requests from `from` on that `is_counted`. A row of one shape is worth so many of the average.
    pub fn of(
        trace: &Trace,
        history: &History,
        n_lanes: usize,
        from: Duration,
        worth: impl Fn(u32) -> f64,
        is_counted: impl Fn(&Request) -> bool,
    ) -> Summary {
        let counted: Vec<(&Request, &Fate)> = trace
            .requests
            .iter()
            .zip(&history.fates)
            .filter(|(request, _)| request.at >= from && is_counted(request))
            .collect();
        let seconds = trace.length.saturating_sub(from).as_secs_f64();
        let mut summary = Summary { n: counted.len(), ..Summary::default() };
        let one = 1.0 / counted.len().max(1) as f64;
        let (mut answered, mut refused) = (Vec::new(), Vec::new());
        for (request, fate) in counted {
            summary.offered += request.n_rows as f64 * worth(request.shape) / seconds;
            match *fate {
                Fate::Open => {}
                Fate::Answered { ended, .. } => {
                    let took = ended - request.at;
                    answered.push(took);
                    if request.timeout.is_none_or(|timeout| took <= timeout) {
                        summary.good += one;
                        summary.goodput += request.n_rows as f64 * worth(request.shape) / seconds;
                    } else {
                        summary.late += one;
                    }
                }
                Fate::Refused { at } if at == request.at => {
                    refused.push(Duration::ZERO);
                    summary.refused += one;
                }
                Fate::Refused { at } | Fate::Dropped { at } => {
                    refused.push(at - request.at);
                    summary.dropped += one;
                }
            }
        }
        (summary.p50, summary.p99) = (percentile(&mut answered, 50), percentile(&mut answered, 99));
        summary.p99_refused = percentile(&mut refused, 99);
        let runs = || history.runs.iter().filter(|run| run.at >= from && run.at < trace.length);
        let n_rows: usize = runs().map(|run| run.n_rows).sum();
        summary.batch = n_rows as f64 / runs().count().max(1) as f64;
        let took: f64 = runs().map(|run| run.took.as_secs_f64()).sum();
        summary.busy = took / (seconds * n_lanes as f64);
        summary
    }
}

/// By nearest rank; zero of nothing.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(rank).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arrivals, Mix, Ran, Random};

    #[test]
    fn fates_are_counted() {
        let ms = Duration::from_millis;
        let mut trace =
            Trace::new(Arrivals::Poisson, &Mix::plain(ms(10)), 10_000.0, ms(1), &mut Random::new(1));
        let one =
            trace.requests.first().cloned().unwrap_or_else(|| unreachable!("ten come in a millisecond"));
        trace.requests = [0, 100, 200, 300, 400].map(|at| Request { at: ms(at), ..one.clone() }).to_vec();
        trace.length = ms(500);
        let history = History {
            fates: vec![
                Fate::Answered { started: ms(0), ended: ms(1) },
                Fate::Answered { started: ms(101), ended: ms(105) },
                Fate::Answered { started: ms(201), ended: ms(215) },
                Fate::Refused { at: ms(300) },
                Fate::Dropped { at: ms(407) },
            ],
            runs: vec![
                Ran { at: ms(101), took: ms(4), n_rows: 3 },
                Ran { at: ms(201), took: ms(14), n_rows: 1 },
            ],
            max_waiting: 1,
            n_idle: 0,
        };
        let summary = Summary::of(&trace, &history, 2, ms(100), |_| 1.0, |_| true);
        let expected = Summary {
            n: 4,
            offered: 10.0,
            goodput: 2.5,
            good: 0.25,
            late: 0.25,
            refused: 0.25,
            dropped: 0.25,
            p50: ms(5),
            p99: ms(15),
            p99_refused: ms(7),
            batch: 2.0,
            busy: 0.0225,
        };
        assert_eq!(format!("{summary:.6?}"), format!("{expected:.6?}"));
    }
}
