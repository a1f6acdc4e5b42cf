//! Time against batch size, for one kind of task.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Estimate;
use super::ring::{Percentiles, Ring};

/// More rows count as enough once they are computed within this of the best rate.
const NEARLY: f64 = 0.95;

/// Of the last 64 runs, so many longer than foreseen mean that runs vary too much; and so few that they no longer do.
const TOO_MANY: u32 = 8;
const FEW: u32 = 2;

/// A 90th percentile this many times the median says nothing of the next run.
const WIDE: u32 = 4;

/// Runs are compared with the median of their size once it is made of so many.
const ENOUGH: usize = 3;

/// Parts of a median that ratios are counted in.
const THOUSAND: f64 = 1000.0;

/// Sizes that are told apart, at most.
const MAX_SIZES: usize = 64;

/// A larger size is tried when none has run for so many runs. The next larger ones are tried after four times as many each.
const EVERY: u64 = 256;

/// So often, so that one odd run does not decide.
const N_TRIES: u32 = 3;

/// Doublings up to the largest size that is tried.
const N_DOUBLINGS: u32 = 3;

/// Of a size that has not run for long, no more runs than this count beside new ones.
const KEPT: usize = 3;

/// One size of which runs are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Rows of a run.
    pub n_rows: usize,
    /// How long such runs take.
    pub estimate: Estimate,
    /// How many of them it is made of, at most 128.
    pub n_runs: usize,
}

/// Learns how long runs take against their rows. The median is of the last 32 runs of a size. The 90th and 99th percentile
/// are of its last 128 runs; before there are so many, they are to the median as they are over the last 128 runs of
/// all sizes, so that one slow run of a size that is rare does not pass for what is usual. None of them falls with the
/// size (medians that would are pooled); sizes between are interpolated, those beyond the largest follow its slope. What
/// was measured long ago gives way to new runs within a few.
#[derive(Debug, Clone, Default)]
pub struct CostModel {
    sizes: BTreeMap<usize, Size>,
    n_runs: u64,
    /// Thousandths of the median of their size, of runs of all sizes.
    ratios: Option<Ring<u64>>,
    /// By rows, ascending; no percentile falls.
    points: Vec<Point>,
    /// A bit per run, the newest the lowest: it took longer than its 99th percentile.
    overran: u64,
    is_unsteady: bool,
}

/// The runs of one size.
#[derive(Debug, Clone)]
struct Size {
    ring: Ring<Duration>,
    /// Which run of all the last was.
    last: u64,
    /// Runs since there was none for [`EVERY`] runs of all sizes.
    n_fresh: u32,
    /// There is one run, which may have been slower than those to come.
    is_cold: bool,
}

impl CostModel {
    /// Takes in a run.
    pub fn record(&mut self, n_rows: usize, ran: Duration) {
        self.take_in(n_rows, ran, false);
    }

    /// Takes in a run that may be slower than those to come, if it is the first of its size. In that case it counts
    /// only until there is another.
    pub fn record_first(&mut self, n_rows: usize, ran: Duration) {
        self.take_in(n_rows, ran, true);
    }

    fn take_in(&mut self, n_rows: usize, ran: Duration, may_be_cold: bool) {
        let size = size(n_rows);
        self.n_runs += 1;
        if let Some(known) =
            self.sizes.get(&size).map(|known| &known.ring).filter(|ring| ring.len() >= ENOUGH)
        {
            let Percentiles { p50, p99, .. } = known.percentiles();
            let ratio = THOUSAND * ran.as_secs_f64() / p50.as_secs_f64().max(1e-9);
            // Beyond what a number can hold it is the largest.
            self.ratios.get_or_insert_with(Ring::new).push(ratio as u64);
            if known.len() >= 16 {
                self.overran = self.overran << 1 | u64::from(ran > p99);
            }
        }
        if self.sizes.len() >= MAX_SIZES && !self.sizes.contains_key(&size) {
            return;
        }
        let first = || Size { ring: Ring::new(), last: 0, n_fresh: N_TRIES, is_cold: may_be_cold };
        let (n_runs, is_new) = (self.n_runs, !self.sizes.contains_key(&size));
        let known = self.sizes.entry(size).or_insert_with(first);
        if !is_new && std::mem::take(&mut known.is_cold) {
            known.ring = Ring::new();
        }
        if n_runs - known.last >= EVERY {
            known.ring.keep_newest(KEPT);
            known.n_fresh = 0;
        }
        known.last = n_runs;
        known.n_fresh = known.n_fresh.saturating_add(1);
        if known.ring.push(ran) {
            self.smooth();
        }
        self.judge(size);
    }

    /// How long a run of so many rows takes; `None` when none ever ran.
    pub fn estimate(&self, n_rows: usize) -> Option<Estimate> {
        let after = self.points.partition_point(|point| point.n_rows < n_rows);
        let (before, next) =
            (after.checked_sub(1).and_then(|at| self.points.get(at)), self.points.get(after));
        Some(match (before, next) {
            (_, Some(next)) if next.n_rows == n_rows => next.estimate,
            (Some(low), Some(high)) => between(low, high, n_rows),
            // Fewer rows than ever ran take no longer.
            (None, Some(high)) => high.estimate,
            (Some(last), None) => self.beyond(after, last, n_rows),
            (None, None) => return None,
        })
    }

    /// The smallest number of rows, at most `max`, that is computed nearly as fast per row as the fastest known; more
    /// while that is the largest that ever ran, and now and then: what was measured may not be true any more, and a size that is slower than
    /// its half may stand before others that are faster. So a batch of twice the rows is tried when none so large ran
    /// for 256 runs, one of four times after 1024 and one of eight times after 4096, each for three runs.
    pub fn enough(&self, max: usize) -> usize {
        let known = || self.points.iter().filter(|point| point.n_rows <= max);
        let best = known().map(rate).fold(0.0, f64::max);
        let Some(last) = known().next_back() else { return max };
        let first = known().find(|point| rate(point) >= NEARLY * best).unwrap_or(last);
        // Still rising: more may be faster yet, which is found out by a size at a time.
        if first.n_rows == last.n_rows {
            return max.min(last.n_rows.saturating_mul(2));
        }
        let tried = (0..N_DOUBLINGS).find_map(|doubling| {
            let below = first.n_rows.saturating_mul(1 << doubling);
            (below < max && self.is_due(below, EVERY << (2 * doubling)))
                .then(|| below.saturating_mul(2).min(max))
        });
        tried.unwrap_or(first.n_rows)
    }

    /// Whether larger sizes than this should be tried: none ran for so many runs, or they have begun to be tried.
    fn is_due(&self, below: usize, every: u64) -> bool {
        let larger = self.sizes.range(below.saturating_add(1)..).map(|(_, size)| size);
        let recent = larger.filter(|size| self.n_runs - size.last < every);
        let (n_sizes, n_fresh) =
            recent.fold((0u64, 0u32), |(n, fresh), size| (n + 1, fresh.saturating_add(size.n_fresh)));
        if n_sizes == 0 { self.n_runs >= every } else { n_fresh < N_TRIES }
    }

    /// Whether the next run can be told from those before.
    pub fn is_steady(&self) -> bool {
        !self.is_unsteady
    }

    /// What is known, by rows.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    fn smooth(&mut self) {
        let ratios = self.ratios.as_ref().map(Ring::percentiles);
        let medians = self
            .sizes
            .values()
            .map(|Size { ring, .. }| (ring.percentiles().p50.as_secs_f64(), ring.len() as f64));
        let medians = rising(medians);
        let mut least = Estimate::default();
        self.points.clear();
        for ((&n_rows, Size { ring, .. }), median) in self.sizes.iter().zip(medians) {
            let Percentiles { p50, mut p90, mut p99 } = ring.percentiles();
            if let Some(ratios) = ratios.filter(|_| !ring.is_full()) {
                let times = |ratio: u64| seconds(p50.as_secs_f64() * (ratio as f64 / THOUSAND).max(1.0));
                (p90, p99) = (times(ratios.p90), times(ratios.p99));
            }
            let p50 = seconds(median).max(least.p50);
            let p90 = p90.max(least.p90).max(p50);
            least = Estimate { p50, p90, p99: p99.max(least.p99).max(p90) };
            self.points.push(Point { n_rows, estimate: least, n_runs: ring.len() });
        }
    }

    fn judge(&mut self, size: usize) {
        let n_over = self.overran.count_ones();
        let is_wide = self.sizes.get(&size).is_some_and(|Size { ring, .. }| {
            let Percentiles { p50, p90, .. } = ring.percentiles();
            ring.len() >= 64 && p90 > p50.saturating_mul(WIDE)
        });
        self.is_unsteady = is_wide || n_over >= TOO_MANY || (self.is_unsteady && n_over > FEW);
    }

    /// Beyond the largest size: along the line through the two largest, or in proportion to the only one.
    fn beyond(&self, n_points: usize, last: &Point, n_rows: usize) -> Estimate {
        let before = n_points.checked_sub(2).and_then(|at| self.points.get(at));
        let line = |last_at: Duration, before_at: Option<Duration>| {
            let (from, to) = (before.map_or(0, |point| point.n_rows), last.n_rows);
            let rise = last_at.saturating_sub(before_at.unwrap_or_default()).as_secs_f64();
            let slope = rise / (to - from).max(1) as f64;
            last_at.saturating_add(seconds(slope * (n_rows - to) as f64))
        };
        let p50 = line(last.estimate.p50, before.map(|point| point.estimate.p50));
        let p90 = line(last.estimate.p90, before.map(|point| point.estimate.p90)).max(p50);
        let p99 = line(last.estimate.p99, before.map(|point| point.estimate.p99)).max(p90);
        Estimate { p50, p90, p99 }
    }
}

fn between(low: &Point, high: &Point, n_rows: usize) -> Estimate {
    let share = (n_rows - low.n_rows) as f64 / (high.n_rows - low.n_rows) as f64;
    let mix = |low: Duration, high: Duration| low + seconds(high.saturating_sub(low).as_secs_f64() * share);
    Estimate {
        p50: mix(low.estimate.p50, high.estimate.p50),
        p90: mix(low.estimate.p90, high.estimate.p90),
        p99: mix(low.estimate.p99, high.estimate.p99),
    }
}

/// The closest values that never fall, given values and their weights (isotonic regression by pooling adjacent violators:
/// Ayer et al., Annals of Mathematical Statistics, 1955).
fn rising(values: impl Iterator<Item = (f64, f64)>) -> Vec<f64> {
    let mut pools: Vec<(f64, f64, usize)> = Vec::new();
    for (value, weight) in values {
        let mut pool = (value, weight, 1);
        while let Some(&(before, weight, n)) = pools.last().filter(|(before, ..)| *before > pool.0) {
            let mean = (before * weight + pool.0 * pool.1) / (weight + pool.1);
            pool = (mean, weight + pool.1, n + pool.2);
            pools.pop();
        }
        pools.push(pool);
    }
    pools.iter().flat_map(|&(value, _, n)| std::iter::repeat_n(value, n)).collect()
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// Rows per second.
fn rate(point: &Point) -> f64 {
    point.n_rows as f64 / point.estimate.p50.as_secs_f64().max(1e-9)
}

/// The size that so many rows count as: up to 16 each its own, then four to a doubling, the next lower.
fn size(n_rows: usize) -> usize {
    if n_rows <= 16 {
        return n_rows.max(1);
    }
    let step = 1usize << (n_rows.ilog2() - 2);
    n_rows / step * step
}

#[cfg(test)]
mod tests;
