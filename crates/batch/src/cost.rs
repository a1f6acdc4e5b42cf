//! How long runs take against how many rows they have: learnt from runs, so that what comes can be foreseen.

mod model;
mod ring;

pub use model::{CostModel, Point};

use std::collections::HashMap;
use std::time::Duration;

/// How long a run takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    /// Every other run takes less.
    pub p50: Duration,
    /// Nine of ten runs take less.
    pub p90: Duration,
    /// Ninety-nine of a hundred runs take less.
    pub p99: Duration,
}

/// What is known of runs to come. Tasks of one kind cost alike for equal numbers of rows; kinds whose numbers are near each
/// other are more alike than others.
pub trait Forecast {
    /// How long a run of this kind with so many rows takes; `None` when nothing like it ever ran.
    fn estimate(&self, kind: u32, n_rows: usize) -> Option<Estimate>;

    /// About how long a run of this kind with so many rows takes, judged by others where nothing like it ever ran.
    fn guess(&self, kind: u32, n_rows: usize) -> Duration {
        self.estimate(kind, n_rows).unwrap_or_default().p50
    }

    /// The smallest batch, of at most `max` rows, beyond which more rows are no longer computed faster; `max` as long as
    /// that is not known, and now and then a larger one, so that it is found out if they are.
    fn enough(&self, kind: u32, max: usize) -> usize;

    /// Whether runs vary so much that deadlines cannot be judged by estimates.
    fn is_steady(&self, kind: u32) -> bool;
}

/// Nothing is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unknown;

impl Forecast for Unknown {
    fn estimate(&self, _: u32, _: usize) -> Option<Estimate> {
        None
    }

    fn enough(&self, _: u32, max: usize) -> usize {
        max
    }

    fn is_steady(&self, _: u32) -> bool {
        true
    }
}

/// A cost model per kind of task.
#[derive(Debug, Clone, Default)]
pub struct Costs(HashMap<u32, CostModel>);

impl Costs {
    /// Takes in a run.
    pub fn record(&mut self, kind: u32, n_rows: usize, ran: Duration) {
        self.0.entry(kind).or_default().record(n_rows, ran);
    }

    /// As [`CostModel::record_first`].
    pub fn record_first(&mut self, kind: u32, n_rows: usize, ran: Duration) {
        self.0.entry(kind).or_default().record_first(n_rows, ran);
    }

    /// The model of this kind, if such tasks ever ran.
    pub fn get(&self, kind: u32) -> Option<&CostModel> {
        self.0.get(&kind)
    }

    /// All kinds that ever ran, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &CostModel)> {
        self.0.iter().map(|(&kind, model)| (kind, model))
    }
}

impl Forecast for Costs {
    fn estimate(&self, kind: u32, n_rows: usize) -> Option<Estimate> {
        self.get(kind)?.estimate(n_rows)
    }

    fn guess(&self, kind: u32, n_rows: usize) -> Duration {
        let nearest = || self.0.keys().copied().min_by_key(|&known| (known.abs_diff(kind), known));
        let known = if self.0.contains_key(&kind) { Some(kind) } else { nearest() };
        known.and_then(|known| self.estimate(known, n_rows)).unwrap_or_default().p50
    }

    fn enough(&self, kind: u32, max: usize) -> usize {
        self.get(kind).map_or(max, |model| model.enough(max))
    }

    fn is_steady(&self, kind: u32) -> bool {
        self.get(kind).is_none_or(CostModel::is_steady)
    }
}
