//! The ranges that values took.

use std::collections::BTreeMap;

/// The smallest and the largest element that a value had.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The smallest.
    pub min: f32,
    /// The largest.
    pub max: f32,
}

impl Range {
    /// The range of some elements; `None` when there are none. An element that is not finite makes the range one that
    /// cannot be used.
    pub fn of(elements: &[f32]) -> Option<Range> {
        let first = elements.first()?;
        let mut range = Range { min: *first, max: *first };
        let mut is_finite = true;
        for &x in elements {
            is_finite &= x.is_finite();
            range = Range { min: range.min.min(x), max: range.max.max(x) };
        }
        Some(if is_finite { range } else { Range { min: f32::NEG_INFINITY, max: f32::INFINITY } })
    }

    /// The smallest range that holds both.
    #[must_use]
    pub fn and(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// Whether steps can be made of it: it is finite, and not empty once it holds 0.
    pub fn is_usable(&self) -> bool {
        let Range { min, max } = self.with_zero();
        let in_order = self.min.is_finite() && self.max.is_finite() && self.min <= self.max;
        // Smaller ones make steps that are not exact any more.
        in_order && (max - min).is_finite() && max - min > 1e-30
    }

    /// The same range, and 0, which has to be exact: padding is made of it.
    fn with_zero(self) -> Range {
        Range { min: self.min.min(0.0), max: self.max.max(0.0) }
    }

    /// The step and the zero point of 256 steps over this range and 0.
    pub(super) fn steps(self) -> (f32, u8) {
        let Range { min, max } = self.with_zero();
        let mut scale = (max - min) / 255.0;
        // The last step must not lie behind the range: then a bound there (`Relu`, `Clip`) changes nothing more.
        if scale * 255.0 > max - min {
            scale = scale.next_down();
        }
        (scale, (-min / scale).round_ties_even().clamp(0.0, 255.0) as u8)
    }
}

/// The ranges of the values of one graph.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranges {
    /// What the graph was: [`super::fingerprint`].
    pub fingerprint: u128,
    /// By the value's name.
    pub values: BTreeMap<String, Range>,
}

impl Ranges {
    /// No ranges yet, of the values of this graph as it is after the passes.
    pub fn new(graph: &crate::Graph) -> Ranges {
        Ranges { fingerprint: super::fingerprint(graph), values: BTreeMap::new() }
    }

    /// The range of the value of that name.
    pub fn get(&self, name: &str) -> Option<Range> {
        self.values.get(name).copied()
    }

    /// Adds what a value had in one run.
    pub fn include(&mut self, name: &str, elements: &[f32]) {
        let Some(range) = Range::of(elements) else { return };
        match self.values.get_mut(name) {
            Some(known) => *known = known.and(range),
            None => {
                self.values.insert(name.to_owned(), range);
            }
        }
    }
}
