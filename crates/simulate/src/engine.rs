//! How long runs take.

use std::time::Duration;

use crate::Random;

/// The 90th percentile of the standard normal distribution.
const NORMAL_P90: f64 = 1.281_551_6;

/// Seconds of a run against its rows, without noise.
#[derive(Debug, Clone)]
pub enum Curve {
    /// A fixed part and one for each row.
    Affine {
        /// Seconds.
        fixed: f64,
        /// Seconds.
        per_row: f64,
    },
    /// No longer than `least` for few rows, and `per_row` for each once that is more.
    Flat {
        /// Seconds.
        least: f64,
        /// Seconds.
        per_row: f64,
    },
    /// Seconds per row at sizes that were measured, ascending; straight lines between, and the last rate beyond.
    Measured(Vec<(usize, f64)>),
}

impl Curve {
    /// Seconds of a run of so many rows.
    pub fn seconds(&self, n_rows: usize) -> f64 {
        let n = n_rows.max(1) as f64;
        match self {
            Curve::Affine { fixed, per_row } => fixed + per_row * n,
            Curve::Flat { least, per_row } => least.max(per_row * n),
            Curve::Measured(points) => {
                let total = |&(at, per_row): &(usize, f64)| (at as f64, at as f64 * per_row);
                let after = points.partition_point(|&(at, _)| at < n_rows);
                let (before, next) = (after.checked_sub(1).and_then(|at| points.get(at)), points.get(after));
                match (before.map(total), next.map(total)) {
                    (Some((x0, y0)), Some((x1, y1))) => y0 + (y1 - y0) * (n - x0) / (x1 - x0),
                    (None, Some((_, y))) => y,
                    (Some((x, y)), None) => y / x * n,
                    (None, None) => 0.0,
                }
            }
        }
    }
}

/// A lane stands still now and then.
#[derive(Debug, Clone, Copy)]
pub struct Stalls {
    /// Time at work between two, on average.
    pub every: Duration,
    /// How long each takes.
    pub takes: Duration,
}

/// Some runs take much longer.
#[derive(Debug, Clone, Copy)]
pub struct Tail {
    /// The part of runs that do.
    pub share: f64,
    /// How heavy the tail is ([`Random::pareto`]).
    pub alpha: f64,
    /// The longest, in multiples of what it would be.
    pub most: f64,
}

/// Times of plenty and times of want take turns, as on a machine that is shared.
#[derive(Debug, Clone, Copy)]
pub struct Phases {
    /// Of each.
    pub length: Duration,
    /// Runs take so many times longer in times of want.
    pub factor: f64,
}

/// A model of an engine.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Of shape 0.
    pub curve: Curve,
    /// Runs vary: the standard deviation of the logarithm of their time.
    pub sigma: f64,
    /// What each shape costs against shape 0.
    pub shapes: Vec<f64>,
    /// If lanes stand still at times.
    pub stalls: Option<Stalls>,
    /// If some runs take much longer.
    pub tail: Option<Tail>,
    /// If runs are slower at times.
    pub phases: Option<Phases>,
}

impl Engine {
    /// One shape, and nothing but noise.
    pub fn new(curve: Curve, sigma: f64) -> Engine {
        Engine { curve, sigma, shapes: vec![1.0], stalls: None, tail: None, phases: None }
    }

    /// Seconds of half the runs.
    pub fn seconds(&self, shape: u32, n_rows: usize) -> f64 {
        self.curve.seconds(n_rows) * self.factor(shape)
    }

    /// Seconds of nine runs in ten, as far as they only vary; stalls, tails and phases are left out.
    pub fn seconds_p90(&self, shape: u32, n_rows: usize) -> f64 {
        self.seconds(shape, n_rows) * (NORMAL_P90 * self.sigma).exp()
    }

    /// How long a run that starts at this time takes.
    pub fn time(&self, at: Duration, shape: u32, n_rows: usize, random: &mut Random) -> Duration {
        let mut seconds = self.seconds(shape, n_rows) * random.lognormal(self.sigma);
        if let Some(phases) = &self.phases
            && (at.as_nanos() / phases.length.as_nanos().max(1)) % 2 == 1
        {
            seconds *= phases.factor;
        }
        if let Some(tail) = &self.tail
            && random.unit() <= tail.share
        {
            seconds *= random.pareto(tail.alpha).min(tail.most);
        }
        if let Some(stalls) = &self.stalls
            && random.unit() <= seconds / stalls.every.as_secs_f64()
        {
            seconds += stalls.takes.as_secs_f64();
        }
        Duration::from_secs_f64(seconds.max(1e-9))
    }

    /// Rows per second of one lane at the best batch size, for rows of these shapes by weight. All slowness counts but
    /// phases: this is what the engine can do in times of plenty.
    pub fn capacity(&self, max_batch: usize, shapes: &[(f64, u32)]) -> f64 {
        let best = (1..=max_batch).map(|n| n as f64 / self.curve.seconds(n)).fold(0.0, f64::max);
        let noise = (self.sigma * self.sigma / 2.0).exp();
        let stalled =
            self.stalls.map_or(0.0, |stalls| stalls.takes.as_secs_f64() / stalls.every.as_secs_f64());
        let tail = self.tail.map_or(0.0, |tail| tail.share * (tail.mean() - 1.0));
        best / (self.mean_factor(shapes) * noise * (1.0 + stalled) * (1.0 + tail))
    }

    /// How many rows of the average one row of this shape costs.
    pub fn worth(&self, shape: u32, shapes: &[(f64, u32)]) -> f64 {
        self.factor(shape) / self.mean_factor(shapes)
    }

    fn mean_factor(&self, shapes: &[(f64, u32)]) -> f64 {
        let weight: f64 = shapes.iter().map(|(weight, _)| weight).sum();
        shapes.iter().map(|&(share, shape)| share / weight * self.factor(shape)).sum()
    }

    fn factor(&self, shape: u32) -> f64 {
        usize::try_from(shape).ok().and_then(|at| self.shapes.get(at)).copied().unwrap_or(1.0)
    }
}

impl Tail {
    /// Of the capped distribution.
    fn mean(&self) -> f64 {
        // The integral of the probability to exceed x, from 0 to the cap.
        1.0 + (1.0 - self.most.powf(1.0 - self.alpha)) / (self.alpha - 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_as_said() {
        let check = |curve: Curve, expected: [f64; 4]| {
            let found = [1, 8, 20, 64].map(|n| curve.seconds(n));
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-9, "{curve:?}: {found}, expected {expected}");
            }
        };
        check(Curve::Affine { fixed: 1.0, per_row: 0.5 }, [1.5, 5.0, 11.0, 33.0]);
        check(Curve::Flat { least: 4.0, per_row: 0.25 }, [4.0, 4.0, 5.0, 16.0]);
        check(Curve::Measured(vec![(1, 4.0), (8, 1.0), (32, 0.5)]), [4.0, 8.0, 12.0, 32.0]);
    }

    #[test]
    fn nine_runs_in_ten_are_shorter() {
        let engine = Engine::new(Curve::Affine { fixed: 0.01, per_row: 0.001 }, 0.5);
        let mut random = Random::new(7);
        let most = engine.seconds_p90(0, 4);
        let mut is_shorter = || engine.time(Duration::ZERO, 0, 4, &mut random).as_secs_f64() <= most;
        let n = (0..100_000).filter(|_| is_shorter()).count();
        assert!((89_500..90_500).contains(&n), "{n}");
    }

    #[test]
    fn capacity_is_what_runs_give() {
        let check = |engine: Engine| {
            let mut random = Random::new(5);
            let n_runs = 200_000;
            let time = |_| engine.time(Duration::ZERO, 0, 10, &mut random).as_secs_f64();
            let rate = f64::from(n_runs * 10) / (0..n_runs).map(time).sum::<f64>();
            let capacity = engine.capacity(10, &[(1.0, 0)]);
            assert!((rate / capacity - 1.0).abs() < 0.03, "{rate}, expected {capacity}");
        };
        let curve = Curve::Affine { fixed: 0.01, per_row: 0.001 };
        check(Engine::new(curve.clone(), 0.3));
        let stalls = Stalls { every: Duration::from_secs(1), takes: Duration::from_millis(200) };
        check(Engine { stalls: Some(stalls), ..Engine::new(curve.clone(), 0.0) });
        let tail = Tail { share: 0.1, alpha: 1.5, most: 20.0 };
        check(Engine { tail: Some(tail), ..Engine::new(curve, 0.0) });
    }
}
