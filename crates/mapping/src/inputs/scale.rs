//! What is done to numbers before the model sees them.

use crate::settings::{Numbers, ScaleSettings};

/// A line through the numbers, for all elements or one for each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scale {
    form: Form,
    a: Vec<f64>,
    b: Vec<f64>,
    /// How many neighbouring elements share an entry.
    stride: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `(x - a) / b`
    Divide,
    /// `x * a + b`
    Multiply,
}

impl Scale {
    /// Checks the settings. `n_row` is the number of elements of a row, `n_last` its last dimension (of a picture, its
    /// channels), as far as they are known; `stride` neighbouring elements share an entry where there is one for each of the
    /// last dimension.
    pub(crate) fn new(
        settings: &ScaleSettings,
        n_row: Option<usize>,
        n_last: Option<usize>,
        stride: usize,
    ) -> Result<Scale, String> {
        let ScaleSettings { mean, std, min, max, factor, offset } = settings;
        let (form, a, b) = match (mean, std, min, max, factor.is_some() || offset.is_some()) {
            (Some(mean), Some(std), None, None, false) => (Form::Divide, all(mean), all(std)),
            (None, None, Some(min), Some(max), false) => {
                let (min, max) = (all(min), all(max));
                let n = min.len().max(max.len());
                if min.len() != n && min.len() != 1 || max.len() != n && max.len() != 1 {
                    return Err(format!("min has {} numbers and max {}", min.len(), max.len()));
                }
                let at = |numbers: &[f64], i: usize| numbers[if numbers.len() == 1 { 0 } else { i }];
                let width = (0..n).map(|i| at(&max, i) - at(&min, i)).collect();
                (Form::Divide, min, width)
            }
            (None, None, None, None, true) => {
                let factor = factor.as_ref().map_or_else(|| vec![1.0], all);
                (Form::Multiply, factor, offset.as_ref().map_or_else(|| vec![0.0], all))
            }
            _ => return Err("expected `mean` and `std`, or `min` and `max`, or `factor` and `offset`".into()),
        };
        if form == Form::Divide && b.contains(&0.0) {
            return Err("`std`, or the distance from `min` to `max`, is 0 for an element".into());
        }
        if a.iter().chain(&b).any(|number| !number.is_finite()) {
            return Err("a number is not finite".into());
        }
        let mut is_per_element = false;
        for n in [a.len(), b.len()].into_iter().filter(|&n| n != 1) {
            is_per_element |= n_row.is_none_or(|row| row == n) && n_last != Some(n);
            if n == 0 || n_row.is_some_and(|row| row != n) && n_last.is_some_and(|last| last != n) {
                let (row, last) = (n_row.unwrap_or(0), n_last.unwrap_or(0));
                return Err(format!("it has {n} numbers, expected 1, {last} or {row}"));
            }
        }
        Ok(Scale { form, a, b, stride: if is_per_element { 1 } else { stride } })
    }

    /// The number for the model; `at` is its place in the row. `None` for a finite number that would become infinite.
    #[inline]
    pub(crate) fn apply(&self, number: f64, at: usize) -> Option<f64> {
        let scaled = self.line(number, at);
        (scaled.is_finite() || !number.is_finite()).then_some(scaled)
    }

    fn line(&self, number: f64, at: usize) -> f64 {
        let entry = at / self.stride;
        let of = |numbers: &[f64]| if let [one] = numbers { *one } else { numbers[entry % numbers.len()] };
        match self.form {
            Form::Divide => (number - of(&self.a)) / of(&self.b),
            Form::Multiply => number * of(&self.a) + of(&self.b),
        }
    }
}

fn all(numbers: &Numbers) -> Vec<f64> {
    match numbers {
        Numbers::One(number) => vec![*number],
        Numbers::Each(numbers) => numbers.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_scaled() {
        let one = |number| Some(Numbers::One(number));
        let each = |numbers: &[f64]| Some(Numbers::Each(numbers.to_vec()));
        let none = ScaleSettings::default;
        let check = |settings: ScaleSettings, stride, expected: &[f64]| {
            let scale = Scale::new(&settings, Some(4), Some(2), stride).unwrap();
            let got: Vec<f64> = (0..4u8).filter_map(|i| scale.apply(f64::from(i), usize::from(i))).collect();
            assert_eq!(got, expected, "{settings:?}");
        };
        check(ScaleSettings { mean: one(1.0), std: one(2.0), ..none() }, 1, &[-0.5, 0.0, 0.5, 1.0]);
        check(ScaleSettings { min: one(1.0), max: one(3.0), ..none() }, 1, &[-0.5, 0.0, 0.5, 1.0]);
        check(ScaleSettings { factor: one(2.0), ..none() }, 1, &[0.0, 2.0, 4.0, 6.0]);
        check(ScaleSettings { offset: each(&[1.0, 0.0]), ..none() }, 1, &[1.0, 1.0, 3.0, 3.0]);
        check(ScaleSettings { offset: each(&[1.0, 0.0]), ..none() }, 2, &[1.0, 2.0, 2.0, 3.0]);
        check(ScaleSettings { mean: each(&[0.0, 1.0, 2.0, 3.0]), std: one(1.0), ..none() }, 2, &[0.0; 4]);
        for settings in [
            none(),
            ScaleSettings { mean: one(1.0), ..none() },
            ScaleSettings { mean: one(1.0), std: one(0.0), ..none() },
            ScaleSettings { min: one(1.0), max: each(&[2.0, 1.0]), ..none() },
            ScaleSettings { mean: one(1.0), std: one(1.0), factor: one(1.0), ..none() },
            ScaleSettings { factor: each(&[1.0, 2.0, 3.0]), ..none() },
            ScaleSettings { factor: each(&[]), ..none() },
            ScaleSettings { factor: one(f64::NAN), ..none() },
        ] {
            assert!(Scale::new(&settings, Some(4), Some(2), 1).is_err(), "{settings:?}");
        }
    }
}
