//! Random numbers for choosing between peers. Not for secrets.

use std::hash::{BuildHasher as _, RandomState};

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    #[cfg(test)]
    pub(crate) fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    /// Another sequence in each process.
    pub(crate) fn new() -> Random {
        Random(RandomState::new().hash_one("peers"))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `n`, which is not 0. The bias of the remainder is below 2^-40 for as many peers as there can be.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % n).unwrap_or(0)
    }

    /// From 0 to 1, the latter excluded.
    pub(crate) fn unit(&mut self) -> f64 {
        // 53 bits fit a double exactly.
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
