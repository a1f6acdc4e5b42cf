//! Axes: from values to places, and the values worth a mark.

/// One axis of a chart: its title, its scale, and what of it is shown. The ends follow the values unless they are given.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    pub(crate) title: String,
    is_log: bool,
    low: Option<f64>,
    high: Option<f64>,
    marks: Option<Vec<(f64, String)>>,
}

impl Axis {
    /// Equal steps for equal differences. It begins at 0, or at the lowest value where that is below 0.
    pub fn linear(title: impl Into<String>) -> Axis {
        Axis { title: title.into(), is_log: false, low: None, high: None, marks: None }
    }

    /// Equal steps for equal factors. Values that are not above 0 are left out.
    pub fn log(title: impl Into<String>) -> Axis {
        Axis { is_log: true, ..Axis::linear(title) }
    }

    /// Begins here; what lies below is cut off.
    #[must_use]
    pub fn from(self, low: f64) -> Axis {
        Axis { low: Some(low), ..self }
    }

    /// Ends here; what lies above is cut off.
    #[must_use]
    pub fn to(self, high: f64) -> Axis {
        Axis { high: Some(high), ..self }
    }

    /// Marks at these values with these texts instead of round numbers; those out of range are not shown.
    #[must_use]
    pub fn marks(self, marks: Vec<(f64, String)>) -> Axis {
        Axis { marks: Some(marks), ..self }
    }

    /// The scale that shows these values.
    pub(crate) fn scale(&self, values: impl Iterator<Item = f64>) -> Scale {
        let is_log = self.is_log;
        let fair = values.filter(|value| value.is_finite() && (!is_log || *value > 0.0));
        let (low, high) =
            fair.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        let (low, high) = if low <= high { (low, high) } else { (1.0, 1.0) };
        let (low, high) = match is_log {
            true => (low / 1.25, high * 1.25),
            false => {
                let low = low.min(0.0);
                let room = 0.06 * (high - low);
                (if low < 0.0 { low - room } else { 0.0 }, high + room)
            }
        };
        let given = |end: Option<f64>| end.filter(|end| end.is_finite() && (!is_log || *end > 0.0));
        let (low, high) = (given(self.low).unwrap_or(low), given(self.high).unwrap_or(high));
        // Ends that are equal, turned round or overflown would give no places.
        let fits = low < high && (high - low).is_finite();
        let high = match is_log {
            _ if fits => high,
            true => low * 10.0,
            false => low + 1.0,
        };
        Scale { low, high, is_log, marks: self.marks.clone() }
    }
}

/// An axis whose ends are fixed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
    marks: Option<Vec<(f64, String)>>,
}

/// How far outside of the ends a value may be drawn: enough for a line to leave the picture at the right slope.
const OUTSIDE: f64 = 4.0;

impl Scale {
    /// Where a value lies: 0 at the low end, 1 at the high end, beyond that outside. `None` for what has no place.
    pub(crate) fn place(&self, value: f64) -> Option<f64> {
        let place = match self.is_log {
            true if value <= 0.0 => return None,
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        place.is_finite().then(|| place.clamp(-OUTSIDE, 1.0 + OUTSIDE))
    }

    /// The same, for what is drawn at an end when it lies outside.
    pub(crate) fn inside(&self, value: f64) -> f64 {
        self.place(value).unwrap_or(0.0).clamp(0.0, 1.0)
    }

    pub(crate) fn low(&self) -> f64 {
        self.low
    }

    /// Values in ascending order with their texts, at least one and about `n_wanted` unless they were given.
    pub(crate) fn marks(&self, n_wanted: usize) -> Vec<(f64, String)> {
        if let Some(marks) = &self.marks {
            let shown = marks.iter().filter(|(value, _)| (self.low..=self.high).contains(value));
            return shown.cloned().collect();
        }
        let values = if self.is_log { self.log_marks(n_wanted) } else { self.linear_marks(n_wanted) };
        values.into_iter().map(|value| (value, number(value))).collect()
    }

    fn log_marks(&self, n_wanted: usize) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let powers = (last - first).max(1);
        let every = (powers / i32::try_from(n_wanted.max(1)).unwrap_or(1)).max(1);
        let with = |steps: &[f64]| -> Vec<f64> {
            let powers = (first..=last).filter(|power| power.rem_euclid(every) == 0);
            let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
            all.filter(|value| (self.low..=self.high).contains(value)).collect()
        };
        // The coarsest that has enough, or the finest there is.
        let ladders: [&[f64]; 4] =
            [&[1.0], &[1.0, 3.0], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]];
        let enough = |marks: &Vec<f64>| marks.len() * 2 > n_wanted;
        let marks = ladders.iter().map(|steps| with(steps)).find(enough).unwrap_or_else(|| with(ladders[3]));
        if marks.is_empty() { vec![(self.low * self.high).sqrt()] } else { marks }
    }

    fn linear_marks(&self, n_wanted: usize) -> Vec<f64> {
        let rough = (self.high - self.low) / n_wanted.max(1) as f64;
        let power = 10f64.powi(rough.log10().floor() as i32);
        let step =
            [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let first = (self.low / step).ceil();
        let all = (0..=2 * n_wanted.max(1)).map(|at| (first + at as f64) * step);
        // Adding 0 turns the mark at -0 into 0.
        let marks: Vec<f64> = all.take_while(|value| *value <= self.high).map(|value| value + 0.0).collect();
        if marks.is_empty() { vec![self.low] } else { marks }
    }
}

/// A number as a mark shows it: three digits behind the point at most, fewer where they are 0, thousands and millions
/// with their letter, and the very small in powers of ten.
pub fn number(value: f64) -> String {
    let size = value.abs();
    match value {
        _ if size >= 1e15 => format!("{value:.0e}"),
        _ if size >= 1e9 => format!("{}G", short(value / 1e9)),
        _ if size >= 1e6 => format!("{}M", short(value / 1e6)),
        _ if size >= 1e4 => format!("{}k", short(value / 1e3)),
        _ if size > 0.0 && size < 1e-3 => format!("{value:.0e}"),
        _ => short(value),
    }
}

fn short(value: f64) -> String {
    let round = format!("{value:.3}");
    round.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() < 1e-9)
    }

    #[test]
    fn values_have_their_places() {
        let scale = Axis::log("").scale([10.0, 1000.0].into_iter());
        assert!(near(scale.place(100.0), 0.5));
        assert!(scale.place(10.0) > Some(0.0) && scale.place(1000.0) < Some(1.0));
        assert_eq!((scale.place(0.0), scale.place(f64::INFINITY), scale.place(f64::NAN)), (None, None, None));
        let scale = Axis::linear("").scale([50.0, 100.0].into_iter());
        assert!(near(scale.place(53.0), 0.5));
        let scale = Axis::linear("").from(10.0).to(20.0).scale([0.0, 100.0].into_iter());
        assert!(
            near(scale.place(15.0), 0.5) && near(scale.place(20.0), 1.0) && scale.place(30.0) > Some(1.0)
        );
        assert_eq!(scale.inside(1e300), 1.0);
        let scale = Axis::linear("").scale([-10.0, 10.0].into_iter());
        assert!(near(scale.place(0.0), 0.5));
    }

    #[test]
    fn marks_are_round_and_not_too_many() {
        let check = |axis: Axis, values: &[f64], expected: &[&str]| {
            let marks: Vec<String> =
                axis.scale(values.iter().copied()).marks(6).into_iter().map(|(_, text)| text).collect();
            assert_eq!(marks, expected, "{values:?}");
        };
        check(Axis::linear(""), &[20.0], &["0", "5", "10", "15", "20"]);
        check(Axis::linear(""), &[4_700_000.0], &["0", "1M", "2M", "3M", "4M"]);
        check(Axis::linear(""), &[-1.0, 1.0], &["-1", "-0.5", "0", "0.5", "1"]);
        check(Axis::log(""), &[1.0, 90.0], &["1", "3", "10", "30", "100"]);
        check(Axis::log(""), &[10.0, 40.0], &["8", "10", "15", "20", "30", "40", "50"]);
        check(Axis::log(""), &[1e-3, 1e4], &["0.001", "0.01", "0.1", "1", "10", "100", "1000", "10k"]);
        let percent = |part: f64, text: &str| (1.0 / (1.0 - part), text.to_owned());
        let given =
            Axis::log("").marks(vec![percent(0.5, "50 %"), percent(0.9, "90 %"), percent(0.9999, "x")]);
        check(given, &[1.0, 100.0], &["50 %", "90 %"]);
    }

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (100.0, "100"),
            (0.25, "0.25"),
            (9_999.0, "9999"),
            (12_500.0, "12.5k"),
            (3e9, "3G"),
            (2e-5, "2e-5"),
            (-1.5, "-1.5"),
        ] {
            assert_eq!(number(value), expected);
        }
    }

    proptest! {
        /// Any values and any ends give a scale with finite places and a bounded number of marks.
        #[test]
        fn every_scale_can_be_drawn(
            is_log: bool,
            values in prop::collection::vec(any::<f64>(), 0..5),
            low in prop::option::of(any::<f64>()),
            high in prop::option::of(any::<f64>()),
            at in any::<f64>(),
        ) {
            let axis = Axis { low, high, ..if is_log { Axis::log("") } else { Axis::linear("") } };
            let scale = axis.scale(values.into_iter());
            prop_assert!(scale.inside(at).is_finite());
            let n = scale.marks(6).len();
            prop_assert!((1..=30).contains(&n), "{} marks of {:?}", n, scale);
        }
    }
}
