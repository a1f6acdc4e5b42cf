//! Random numbers that are the same for one seed whatever is linked.

use std::f64::consts::TAU;

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A generator of its own, so that what one draws changes nothing for another.
    pub fn fork(&mut self) -> Random {
        Random(self.bits())
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Even between 0 (never met) and 1.
    pub fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Gaps of a Poisson process with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }

    /// Of median 1; `sigma` is the standard deviation of its logarithm.
    pub fn lognormal(&mut self, sigma: f64) -> f64 {
        // Box and Muller, 1958.
        let normal = (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos();
        (sigma * normal).exp()
    }

    /// At least 1; the smaller `alpha`, the heavier the tail. Its mean is `alpha / (alpha - 1)` above 1.
    pub fn pareto(&mut self, alpha: f64) -> f64 {
        self.unit().powf(-1.0 / alpha)
    }

    /// One of these by weight; `None` when there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [(f64, T)]) -> Option<&'a T> {
        let mut left = self.unit() * choices.iter().map(|(weight, _)| weight).sum::<f64>();
        let hit = choices.iter().find(|(weight, _)| {
            left -= weight;
            left <= 0.0
        });
        hit.or(choices.last()).map(|(_, choice)| choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_as_said() {
        let check = |mut draw: Box<dyn FnMut(&mut Random) -> f64>, expected: f64| {
            let mut random = Random::new(1);
            let mean = (0..200_000).map(|_| draw(&mut random)).sum::<f64>() / 200_000.0;
            assert!((mean / expected - 1.0).abs() < 0.02, "{mean}, expected {expected}");
        };
        check(Box::new(Random::unit), 0.5);
        check(Box::new(|random| random.exponential(3.0)), 3.0);
        check(Box::new(|random| random.lognormal(0.5)), 0.125f64.exp());
        check(Box::new(|random| random.pareto(3.0)), 1.5);
        check(Box::new(|random| random.pick(&[(3.0, 1.0), (1.0, 5.0)]).copied().unwrap_or(0.0)), 2.0);
    }

    #[test]
    fn a_seed_says_all() {
        let draw = |seed| (0..4).map(|_| Random::new(seed).fork().unit()).collect::<Vec<_>>();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_eq!(Random::new(0).pick::<u8>(&[]), None);
    }
}
