//! When requests leave. Pure: the same seed gives the same moments.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

/// The most moments of a trace.
const MAX_TRACE: usize = 20_000_000;

/// How requests are sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Load {
    /// At moments of their own, whatever the answers do.
    Open(Arrivals),
    /// So many are kept on their way; each answer is followed by the next request at once.
    Closed {
        /// How many.
        in_flight: usize,
    },
}

impl Load {
    /// An open loop with this mean rate per second, at random moments.
    pub fn poisson(rate: f64, seed: u64) -> Load {
        Load::Open(Arrivals::Poisson { rate, seed })
    }

    /// The rate per second that is offered, where that is known before.
    pub fn rate(&self) -> Option<f64> {
        match self {
            Load::Open(Arrivals::Constant { rate } | Arrivals::Poisson { rate, .. }) => Some(*rate),
            Load::Open(Arrivals::Trace(moments)) => {
                let last = moments.last()?.as_secs_f64();
                (last > 0.0).then(|| moments.len() as f64 / last)
            }
            Load::Closed { .. } => None,
        }
    }

    /// In words.
    pub fn describe(&self) -> String {
        match self {
            Load::Open(Arrivals::Constant { rate }) => {
                format!("open loop, {} requests/s, evenly", short(*rate))
            }
            Load::Open(Arrivals::Poisson { rate, .. }) => {
                format!("open loop, {} requests/s, Poisson", short(*rate))
            }
            Load::Open(Arrivals::Trace(moments)) => format!("open loop, trace of {} requests", moments.len()),
            Load::Closed { in_flight } => format!("closed loop, {in_flight} in flight"),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Load::Open(Arrivals::Constant { rate } | Arrivals::Poisson { rate, .. })
                if !(1e-3..=1e7).contains(rate) =>
            {
                Err(Error::input(format!("rate is {rate} requests/s, expected 0.001 to 10000000")))
            }
            Load::Open(Arrivals::Trace(moments)) if moments.is_empty() => {
                Err(Error::input("the trace is empty"))
            }
            Load::Closed { in_flight: 0 } => Err(Error::input("0 requests in flight, expected 1 at least")),
            _ => Ok(()),
        }
    }
}

/// The moments of an open loop.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrivals {
    /// Evenly, so many per second.
    Constant {
        /// Requests per second.
        rate: f64,
    },
    /// With exponential gaps: callers who know nothing of each other.
    Poisson {
        /// Requests per second on average.
        rate: f64,
        /// Of the random numbers.
        seed: u64,
    },
    /// At these moments since the start, in ascending order; the run ends with the last.
    Trace(Arc<[Duration]>),
}

impl Arrivals {
    /// The moments since the start, in ascending order.
    pub fn moments(&self) -> Box<dyn Iterator<Item = Duration> + Send> {
        match self {
            Arrivals::Constant { rate } => {
                let rate = *rate;
                // Counted and not added up, so that nothing drifts.
                Box::new((0u64..).map(move |n| seconds(n as f64 / rate)))
            }
            Arrivals::Poisson { rate, seed } => {
                let (rate, mut random, mut at) = (*rate, Random::new(*seed), 0.0);
                Box::new(std::iter::repeat_with(move || {
                    // 1 - u is above 0, so its logarithm is finite.
                    at += -(1.0 - random.unit()).ln() / rate;
                    seconds(at)
                }))
            }
            Arrivals::Trace(moments) => {
                let moments = Arc::clone(moments);
                Box::new((0..moments.len()).map_while(move |at| moments.get(at).copied()))
            }
        }
    }
}

/// A rate with four digits at least, and as many as it takes before the point.
fn short(rate: f64) -> f64 {
    let digits = 10f64.powf((3.0 - rate.log10().floor()).max(0.0));
    (rate * digits).round() / digits
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// Reads a trace: one moment in seconds on each line, or a table with commas that has a column named `time`, `timestamp`,
/// `seconds` or `t`. The first moment becomes the start, and the others come `speed` times as fast. Lines in any order;
/// empty ones and those that begin with `#` are passed over.
///
/// # Errors
/// The line and what is wrong with it.
pub fn read_trace(text: &str, speed: f64) -> Result<Arc<[Duration]>, Error> {
    if !(speed.is_finite() && speed > 0.0) {
        return Err(Error::input(format!("speed of the trace is {speed}, expected a number above 0")));
    }
    let mut column = 0;
    let mut moments = Vec::new();
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let mut cells = line.split([',', ';', '\t']).map(|cell| cell.trim().trim_matches('"'));
        if moments.is_empty() && cells.clone().all(|cell| cell.parse::<f64>().is_err()) {
            let is_time = |cell: &str| {
                matches!(cell.to_ascii_lowercase().as_str(), "time" | "timestamp" | "seconds" | "t")
            };
            column = cells.position(is_time).ok_or_else(|| {
                Error::input(format!(
                    "trace, line {number}: no column is named time, timestamp, seconds or t"
                ))
            })?;
            continue;
        }
        let cell = cells.nth(column).unwrap_or_default();
        let moment: f64 =
            cell.parse().ok().filter(|moment: &f64| moment.is_finite()).ok_or_else(|| {
                Error::input(format!("trace, line {number}: '{cell}' is no time in seconds"))
            })?;
        if moments.len() == MAX_TRACE {
            return Err(Error::input(format!("trace has more than {MAX_TRACE} requests")));
        }
        moments.push(moment);
    }
    moments.sort_by(f64::total_cmp);
    let Some(first) = moments.first().copied() else { return Err(Error::input("the trace is empty")) };
    Ok(moments.into_iter().map(|moment| seconds((moment - first) / speed)).collect())
}

/// Random numbers that are the same everywhere: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below 1, and 0 at least.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn even_moments_do_not_drift() {
        let moments: Vec<Duration> = Arrivals::Constant { rate: 3.0 }.moments().take(3001).collect();
        assert_eq!(moments[3], Duration::from_secs(1));
        assert_eq!(moments[3000], Duration::from_secs(1000));
    }

    #[test]
    fn random_moments_have_their_rate_and_their_scatter() {
        let arrivals = Arrivals::Poisson { rate: 100.0, seed: 3 };
        let moments: Vec<f64> = arrivals.moments().take(100_000).map(|at| at.as_secs_f64()).collect();
        let gaps: Vec<f64> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        // Exponential gaps scatter by their mean; 100,000 of them give both to about 0.3 %.
        assert!(
            (mean * 100.0 - 1.0).abs() < 0.02 && (deviation / mean - 1.0).abs() < 0.03,
            "{mean} {deviation}"
        );
        let again: Vec<f64> = arrivals.moments().take(100_000).map(|at| at.as_secs_f64()).collect();
        assert_eq!(moments, again);
        let other: Vec<Duration> = Arrivals::Poisson { rate: 100.0, seed: 4 }.moments().take(9).collect();
        assert_ne!(other, arrivals.moments().take(9).collect::<Vec<_>>());
    }

    #[test]
    fn rates_are_told_with_few_digits() {
        for (rate, expected) in [
            (1114.140625, "open loop, 1114 requests/s, Poisson"),
            (0.51234, "open loop, 0.5123 requests/s, Poisson"),
            (200.0, "open loop, 200 requests/s, Poisson"),
            (123_456.0, "open loop, 123456 requests/s, Poisson"),
        ] {
            assert_eq!(Load::poisson(rate, 1).describe(), expected);
        }
    }

    #[test]
    fn traces_are_read() {
        let check = |text: &str, speed: f64, expected: Result<&[u64], &str>| {
            let read = read_trace(text, speed).map(|moments| {
                moments.iter().map(|at| u64::try_from(at.as_millis()).unwrap()).collect::<Vec<_>>()
            });
            match expected {
                Ok(millis) => assert_eq!(read.unwrap(), millis, "{text}"),
                Err(part) => {
                    let error = read.unwrap_err().to_string();
                    assert!(error.contains(part), "{text}: {error}");
                }
            }
        };
        check("0\n1.5\n2\n", 1.0, Ok(&[0, 1500, 2000]));
        check("# seconds\n10\n\n12\n11\n", 2.0, Ok(&[0, 500, 1000]));
        check("id,time\n7,1700000000.5\n8,1700000001\n", 1.0, Ok(&[0, 500]));
        check("\"t\"\t\"x\"\n3\t1\n", 1.0, Ok(&[0]));
        check("a,b\n1,2\n", 1.0, Err("line 1: no column"));
        check("1\nx\n", 1.0, Err("line 2: 'x' is no time"));
        check("1\ninf\n", 1.0, Err("line 2"));
        check("", 1.0, Err("empty"));
        check("1", 0.0, Err("speed of the trace is 0"));
    }

    proptest! {
        #[test]
        fn moments_ascend(rate in 0.001f64..1e6, seed: u64) {
            for arrivals in [Arrivals::Constant { rate }, Arrivals::Poisson { rate, seed }] {
                let moments: Vec<Duration> = arrivals.moments().take(200).collect();
                prop_assert!(moments.windows(2).all(|pair| pair[0] <= pair[1]));
            }
        }

        #[test]
        fn any_text_is_a_trace_or_an_error(text in "[0-9a-z.,;\"#\n-]{0,60}", speed: f64) {
            if let Ok(moments) = read_trace(&text, speed) {
                prop_assert!(!moments.is_empty() && moments.windows(2).all(|pair| pair[0] <= pair[1]));
            }
        }
    }
}
