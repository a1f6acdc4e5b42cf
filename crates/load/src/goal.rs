//! What a run has to hold.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::Error;
use crate::summary::Summary;

/// One bound of a goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// So large a part of the answers comes within this time.
    Latency {
        /// The part, such as 0.99; 1 for all.
        quantile: f64,
        /// The time.
        at_most: Duration,
    },
    /// No larger part of the requests than this is not answered in time.
    Errors {
        /// The part, such as 0.001.
        at_most: f64,
    },
}

/// Bounds that all have to hold. Where none is of errors, one in a hundred requests may go without an answer in time.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    bounds: Vec<Bound>,
}

const DEFAULT_ERRORS: f64 = 0.01;

impl Goal {
    /// The bounds, that of errors included.
    pub fn bounds(&self) -> &[Bound] {
        &self.bounds
    }

    /// The latency that the goal asks for first, for drawings.
    pub fn latency(&self) -> Option<(f64, Duration)> {
        self.bounds.iter().find_map(|bound| match bound {
            Bound::Latency { quantile, at_most } => Some((*quantile, *at_most)),
            Bound::Errors { .. } => None,
        })
    }

    /// Why a run does not meet the goal; empty when it does. A run in which nothing was answered meets none, and none in which
    /// the server did less than it was offered: what it answered in time would be late if the run were longer. One that is not
    /// valid can meet it, because a generator that is late makes latencies longer and never shorter; when it does not, the
    /// reason may be the generator, and is told.
    pub fn misses(&self, summary: &Summary) -> Vec<String> {
        let mut misses = Vec::new();
        if summary.counts.answered() == 0 {
            misses.push("no request was answered".to_owned());
            return misses;
        }
        for bound in &self.bounds {
            match *bound {
                Bound::Latency { quantile, at_most } => {
                    let found = summary.quantile(quantile);
                    if found > at_most {
                        let millis = found.as_secs_f64() * 1e3;
                        misses.push(format!("{} is {millis:.2} ms", quantile_name(quantile)));
                    }
                }
                Bound::Errors { at_most } => {
                    let found = summary.counts.not_in_time();
                    if found > at_most {
                        misses.push(format!("{:.3} % of the requests had no answer in time", found * 100.0));
                    }
                }
            }
        }
        if summary.falls_behind {
            let [before, after] = summary.in_flight;
            misses.push(format!(
                "the server does less than is offered: {before} requests were on their way at first, {after} in the end"
            ));
        }
        if !misses.is_empty() {
            misses.extend(summary.invalid.iter().cloned());
        }
        misses
    }
}

fn quantile_name(quantile: f64) -> String {
    if quantile >= 1.0 {
        return "max".to_owned();
    }
    format!("p{}", ((quantile * 1e8).round() / 1e6))
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, bound) in self.bounds.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            match bound {
                Bound::Latency { quantile, at_most } => {
                    write!(f, "{} at most {at_most:?}", quantile_name(*quantile))?;
                }
                Bound::Errors { at_most } => write!(f, "errors at most {} %", (at_most * 1e8).round() / 1e6)?,
            }
        }
        Ok(())
    }
}

/// Reads a time such as `50ms`, `1.5s`, `200us` or `2m`.
pub fn read_time(text: &str) -> Option<Duration> {
    let digits = text.find(|sign: char| !(sign.is_ascii_digit() || sign == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim() {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let seconds = number.parse::<f64>().ok()? * scale;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= Duration::from_secs(86_400 * 30))
}

impl FromStr for Goal {
    type Err = Error;

    /// Bounds between commas: `p50`, `p99`, `p99.9` or `max` with a time, `errors` with a percentage or a part.
    fn from_str(text: &str) -> Result<Goal, Error> {
        let wrong = |part: &str| {
            Error::input(format!("goal '{part}', expected bounds such as p99=50ms, max=1s or errors=0.1%"))
        };
        let mut bounds = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (name, value) = part.split_once('=').ok_or_else(|| wrong(part))?;
            bounds.push(match (name.trim(), value.trim()) {
                ("errors", value) => {
                    let (number, scale) =
                        value.strip_suffix('%').map_or((value, 1.0), |number| (number, 0.01));
                    let at_most = number.trim().parse::<f64>().ok().map(|number| number * scale);
                    let at_most = at_most.filter(|at_most| (0.0..=1.0).contains(at_most));
                    Bound::Errors { at_most: at_most.ok_or_else(|| wrong(part))? }
                }
                (name, value) => {
                    let percent = match name {
                        "max" => Some(100.0),
                        name => name.strip_prefix('p').and_then(|digits| digits.parse::<f64>().ok()),
                    };
                    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
                    let quantile = percent.ok_or_else(|| wrong(part))? / 100.0;
                    Bound::Latency { quantile, at_most: read_time(value).ok_or_else(|| wrong(part))? }
                }
            });
        }
        if !bounds.iter().any(|bound| matches!(bound, Bound::Errors { .. })) {
            bounds.push(Bound::Errors { at_most: DEFAULT_ERRORS });
        }
        Ok(Goal { bounds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;
    use crate::summary::Ended;
    use crate::tally::{Event, Tally};

    #[test]
    fn goals_are_read() {
        let check = |text: &str, expected: &str| {
            let read = text.parse::<Goal>().map_or_else(|error| error.to_string(), |goal| goal.to_string());
            assert!(read.starts_with(expected), "{text}: {read}");
        };
        check("p99=50ms", "p99 at most 50ms, errors at most 1 %");
        check("p99.9 = 1.5s , errors=0.1%", "p99.9 at most 1.5s, errors at most 0.1 %");
        check("max=200us,errors=0.05", "max at most 200µs, errors at most 5 %");
        for wrong in
            ["", "p99", "p99=50", "p101=1s", "p99=-1s", "errors=200%", "errors=x", "q=1s", "p99=1e9h"]
        {
            check(wrong, "goal '");
        }
    }

    #[test]
    fn a_run_is_held_to_its_goal() {
        let mut tally = Tally::default();
        for millis in 1..=100u64 {
            tally.record(&Event::new(Outcome::Ok, Duration::from_millis(millis)));
        }
        tally.record(&Event::new(Outcome::Refused, Duration::ZERO));
        let summary = Summary::of_tally(&tally, Duration::from_secs(1), &Ended::default());
        let misses = |goal: &str| goal.parse::<Goal>().unwrap().misses(&summary);
        assert_eq!(misses("p50=51ms"), Vec::<String>::new());
        assert_eq!(misses("p99=50ms,errors=1%").len(), 1);
        assert_eq!(misses("p50=51ms,errors=0.5%"), ["0.990 % of the requests had no answer in time"]);
        let behind = Summary { falls_behind: true, in_flight: [2, 90], ..summary.clone() };
        assert_eq!(
            "max=1s".parse::<Goal>().unwrap().misses(&behind),
            ["the server does less than is offered: 2 requests were on their way at first, 90 in the end"]
        );
        let invalid = Summary { invalid: vec!["late".into()], ..summary.clone() };
        assert_eq!("max=1s".parse::<Goal>().unwrap().misses(&invalid), Vec::<String>::new());
        assert_eq!(
            "p50=1ms,errors=1%".parse::<Goal>().unwrap().misses(&invalid),
            ["p50 is 50.00 ms", "late"]
        );
        let none = Summary::of_tally(&Tally::default(), Duration::from_secs(1), &Ended::default());
        assert_eq!("max=1s".parse::<Goal>().unwrap().misses(&none), ["no request was answered"]);
    }
}
