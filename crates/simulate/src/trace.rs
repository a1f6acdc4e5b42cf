//! Requests: when they come and what they want.

use std::f64::consts::TAU;
use std::time::Duration;

use crate::Random;

/// One request of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// When it comes.
    pub at: Duration,
    /// Its rows.
    pub n_rows: usize,
    /// Requests of one shape can be joined and cost alike.
    pub shape: u32,
    /// How long its caller waits.
    pub timeout: Option<Duration>,
    /// 1 (first) to 9.
    pub priority: u8,
    /// Who asks.
    pub caller: u64,
}

/// When requests come.
#[derive(Debug, Clone, Copy)]
pub enum Arrivals {
    /// Independent of each other.
    Poisson,
    /// Poisson while on, nothing while off; both take exponential times of these means.
    Bursts {
        /// Mean.
        on: Duration,
        /// Mean.
        off: Duration,
    },
    /// Poisson with a rate that goes up and down as a sine by `swing` of its mean, once in each fifth of the trace.
    Day {
        /// 0 to 1.
        swing: f64,
    },
    /// Gaps with a Pareto tail: long silences, and crowds between.
    HeavyTail {
        /// Above 1, so that there is a mean.
        alpha: f64,
    },
}

/// The part of a trace in which policies find their feet; requests that come in it are not counted.
pub const START_UP: f64 = 0.2;

/// What requests want, each property by weight and independent of the others.
#[derive(Debug, Clone)]
pub struct Mix {
    /// Rows of a request.
    pub rows: Vec<(f64, usize)>,
    /// Shapes.
    pub shapes: Vec<(f64, u32)>,
    /// How long callers wait.
    pub timeouts: Vec<(f64, Option<Duration>)>,
    /// Priorities.
    pub priorities: Vec<(f64, u8)>,
    /// Callers.
    pub callers: Vec<(f64, u64)>,
}

impl Mix {
    /// Single rows of one shape from one caller who waits this long.
    pub fn plain(timeout: Duration) -> Mix {
        Mix {
            rows: vec![(1.0, 1)],
            shapes: vec![(1.0, 0)],
            timeouts: vec![(1.0, Some(timeout))],
            priorities: vec![(1.0, 5)],
            callers: vec![(1.0, 0)],
        }
    }

    /// Rows of a request on average.
    pub fn mean_rows(&self) -> f64 {
        let weight: f64 = self.rows.iter().map(|(weight, _)| weight).sum();
        self.rows.iter().map(|&(share, n)| share / weight * n as f64).sum()
    }
}

/// Requests in the order in which they come.
#[derive(Debug, Clone)]
pub struct Trace {
    /// By time.
    pub requests: Vec<Request>,
    /// From the start to the end of the last gap.
    pub length: Duration,
}

impl Trace {
    /// Requests at `rate` per second, for this long. They are as many as that says, in the start-up and after it:
    /// what comes in bursts or with heavy tails is stretched or pressed together to that end.
    pub fn new(arrivals: Arrivals, mix: &Mix, rate: f64, length: Duration, random: &mut Random) -> Trace {
        let length_seconds = length.as_secs_f64();
        let mut moments = moments(arrivals, rate, length_seconds, &mut random.fork());
        stretch(&mut moments, rate, length_seconds);
        moments.retain(|&at| at < length_seconds);
        let requests = moments.into_iter().map(|at| Request {
            at: Duration::from_secs_f64(at),
            n_rows: random.pick(&mix.rows).copied().unwrap_or(1),
            shape: random.pick(&mix.shapes).copied().unwrap_or(0),
            timeout: random.pick(&mix.timeouts).copied().flatten(),
            priority: random.pick(&mix.priorities).copied().unwrap_or(5),
            caller: random.pick(&mix.callers).copied().unwrap_or(0),
        });
        Trace { requests: requests.collect(), length }
    }
}

/// Leaves as many moments as `rate` says in the start-up and in the rest, as far as there are so many.
fn stretch(moments: &mut Vec<f64>, rate: f64, length: f64) {
    let n = |part: f64| (rate * length * part).round() as usize;
    let (n_start, n_all) = (n(START_UP), n(1.0));
    let at = |number: usize, moments: &[f64]| moments.get(number).copied();
    let (Some(middle), Some(end)) = (at(n_start, moments), at(n_all, moments)) else { return };
    if middle <= 0.0 || end <= middle {
        return;
    }
    let cut = START_UP * length;
    moments.truncate(n_all);
    for (number, moment) in moments.iter_mut().enumerate() {
        *moment = match number < n_start {
            true => *moment / middle * cut,
            false => cut + (*moment - middle) / (end - middle) * (length - cut),
        };
    }
}

/// At this rate, for at least this long and at least as many as that is.
fn moments(arrivals: Arrivals, rate: f64, length: f64, random: &mut Random) -> Vec<f64> {
    let mut moments = Vec::new();
    let mut now = 0.0;
    let n = (rate * length).round() as usize;
    match arrivals {
        Arrivals::Poisson => {
            while now < length || moments.len() <= n {
                now += random.exponential(1.0 / rate);
                moments.push(now);
            }
        }
        Arrivals::Bursts { on, off } => {
            let (on, off) = (on.as_secs_f64(), off.as_secs_f64());
            let gap = on / (on + off) / rate;
            while now < length || moments.len() <= n {
                let end = now + random.exponential(on);
                loop {
                    now += random.exponential(gap);
                    if now >= end {
                        break;
                    }
                    moments.push(now);
                }
                now = end + random.exponential(off);
            }
        }
        Arrivals::Day { swing } => {
            // Thinning (Lewis and Shedler, 1979), from a trough over the peak to the next trough.
            let day = length * START_UP;
            let most = rate * (1.0 + swing);
            while now < length || moments.len() <= n {
                now += random.exponential(1.0 / most);
                let here = rate * (1.0 - swing * (TAU * now / day).cos());
                if random.unit() <= here / most {
                    moments.push(now);
                }
            }
        }
        Arrivals::HeavyTail { alpha } => {
            let shortest = (alpha - 1.0) / alpha / rate;
            while now < length || moments.len() <= n {
                now += shortest * random.pareto(alpha);
                moments.push(now);
            }
        }
    }
    moments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_as_said() {
        let check = |arrivals| {
            let mix = Mix::plain(Duration::from_secs(1));
            for (seconds, seed) in [(200, 3), (2, 4)] {
                let trace =
                    Trace::new(arrivals, &mix, 1000.0, Duration::from_secs(seconds), &mut Random::new(seed));
                assert!(trace.requests.is_sorted_by(|a, b| a.at <= b.at));
                let cut = Duration::from_secs(seconds).mul_f64(START_UP);
                let n_start = trace.requests.iter().filter(|request| request.at < cut).count() as f64;
                let n_rest = trace.requests.len() as f64 - n_start;
                let seconds = seconds as f64;
                assert!((n_start - 200.0 * seconds).abs() <= 2.0, "{arrivals:?}: {n_start} at the start");
                assert!((n_rest - 800.0 * seconds).abs() <= 2.0, "{arrivals:?}: {n_rest} after it");
            }
        };
        check(Arrivals::Poisson);
        check(Arrivals::Bursts { on: Duration::from_millis(100), off: Duration::from_millis(200) });
        check(Arrivals::Day { swing: 0.8 });
        check(Arrivals::HeavyTail { alpha: 1.5 });
    }

    #[test]
    fn what_is_stretched_keeps_its_form() {
        let mix = Mix::plain(Duration::from_secs(1));
        let (on, off) = (Duration::from_millis(100), Duration::from_millis(200));
        let trace = |arrivals| {
            Trace::new(arrivals, &mix, 1000.0, Duration::from_secs(100), &mut Random::new(5)).requests
        };
        // How many come in each 20 ms, against the mean.
        let n_dense = |requests: Vec<Request>| {
            let mut counts = vec![0_u32; 5000];
            for request in requests {
                counts[(request.at.as_millis() / 20) as usize] += 1;
            }
            counts.iter().filter(|&&n| n > 40).count()
        };
        assert!(n_dense(trace(Arrivals::Poisson)) < 5);
        let n = n_dense(trace(Arrivals::Bursts { on, off }));
        assert!((1000..2000).contains(&n), "bursts are three times as dense a third of the time: {n}");
    }

    #[test]
    fn rows_have_a_mean() {
        let mix = Mix { rows: vec![(3.0, 1), (1.0, 5)], ..Mix::plain(Duration::ZERO) };
        assert!((mix.mean_rows() - 2.0).abs() < 1e-9);
    }
}
