//! Axes of plots: from values to places, and the values worth a mark.

/// An axis whose values are above 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
}

impl Axis {
    /// An axis that shows all these values by their logarithm, with a little room on both sides. Values that are not above 0
    /// are left out.
    pub(super) fn log(values: impl Iterator<Item = f64>) -> Axis {
        let fair = values.filter(|value| value.is_finite() && *value > 0.0);
        let (low, high) = fair.fold((f64::INFINITY, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
        let (low, high) = if high > 0.0 { (low, high) } else { (1.0, 1.0) };
        Axis { low: low / 1.25, high: high * 1.25, is_log: true }
    }

    /// An axis from 0 to a little above the largest value.
    pub(super) fn linear(values: impl Iterator<Item = f64>) -> Axis {
        let high = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        Axis { low: 0.0, high: if high > 0.0 { high * 1.08 } else { 1.0 }, is_log: false }
    }

    /// Where a value lies: 0 at the low end, 1 at the high end.
    pub(super) fn place(self, value: f64) -> f64 {
        let place = match self.is_log {
            true => (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln(),
            false => value / self.high,
        };
        place.clamp(0.0, 1.0)
    }

    /// Round values in ascending order, at least one and about `n_wanted`.
    pub(super) fn marks(self, n_wanted: usize) -> Vec<f64> {
        if self.is_log { self.log_marks(n_wanted) } else { self.linear_marks(n_wanted) }
    }

    fn log_marks(self, n_wanted: usize) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let with = |steps: &[f64]| -> Vec<f64> {
            let all = (first..=last).flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
            all.filter(|value| (self.low..=self.high).contains(value)).collect()
        };
        // The coarsest that has enough, or the finest there is.
        let ladders: [&[f64]; 4] =
            [&[1.0], &[1.0, 3.0], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]];
        let enough = |marks: &Vec<f64>| marks.len() * 2 > n_wanted;
        let marks = ladders.iter().map(|steps| with(steps)).find(enough).unwrap_or_else(|| with(ladders[3]));
        if marks.is_empty() { vec![(self.low * self.high).sqrt()] } else { marks }
    }

    fn linear_marks(self, n_wanted: usize) -> Vec<f64> {
        let rough = self.high / n_wanted.max(1) as f64;
        let power = 10f64.powi(rough.log10().floor() as i32);
        let step =
            [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        (0..).map(|at| f64::from(at) * step).take_while(|value| *value <= self.high).collect()
    }
}

/// The unit that times up to so many seconds are shown in, and how many of it a second has.
pub(super) fn time_unit(most: f64) -> (&'static str, f64) {
    match most {
        _ if most < 1e-3 => ("us", 1e6),
        _ if most < 10.0 => ("ms", 1e3),
        _ => ("s", 1.0),
    }
}

/// A number at a mark: as few digits as it takes.
pub(super) fn mark_text(value: f64) -> String {
    let round = format!("{value:.3}");
    let short = if round.contains('.') { round.trim_end_matches('0').trim_end_matches('.') } else { &round };
    match value {
        _ if value >= 1e6 => format!("{}M", mark_text(value / 1e6)),
        _ if value >= 1e4 => format!("{}k", mark_text(value / 1e3)),
        _ => short.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_places() {
        let axis = Axis::log([10.0, 1000.0].into_iter());
        assert!((axis.place(100.0) - 0.5).abs() < 1e-9);
        assert!(axis.place(10.0) > 0.0 && axis.place(1000.0) < 1.0);
        assert_eq!((axis.place(0.0), axis.place(f64::INFINITY)), (0.0, 1.0));
        let axis = Axis::linear([50.0, 100.0].into_iter());
        assert!((axis.place(54.0) - 0.5).abs() < 1e-9);
        for axis in [Axis::log([].into_iter()), Axis::linear([].into_iter()), Axis::log([3.0].into_iter())] {
            assert!(axis.place(3.0).is_finite() && !axis.marks(5).is_empty(), "{axis:?}");
        }
    }

    #[test]
    fn marks_are_round_and_not_too_many() {
        let check = |axis: Axis, expected: &[&str]| {
            let marks: Vec<String> = axis.marks(6).into_iter().map(mark_text).collect();
            assert_eq!(marks, expected, "{axis:?}");
        };
        check(Axis::linear([20.0].into_iter()), &["0", "5", "10", "15", "20"]);
        check(Axis::linear([4_700_000.0].into_iter()), &["0", "1M", "2M", "3M", "4M", "5M"]);
        check(Axis::log([1.0, 90.0].into_iter()), &["1", "3", "10", "30", "100"]);
        check(Axis::log([10.0, 40.0].into_iter()), &["8", "10", "15", "20", "30", "40", "50"]);
        check(Axis::log([1e-3, 1e4].into_iter()), &["0.001", "0.01", "0.1", "1", "10", "100", "1000", "10k"]);
        for (low, high) in [(1.0, 1.0), (0.5, 7.0), (3.0, 3e6), (41.0, 43.0)] {
            let n = Axis::log([low, high].into_iter()).marks(6).len();
            assert!((1..=10).contains(&n), "{low} to {high}: {n}");
        }
    }
}
