//! Which keys belong to a share of the stream.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::Canary;

/// A share of all keys: sticky, and the same in every process and at every start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    below: u64,
    salt: u64,
}

/// The salt of a canary, so that a shadow takes other keys.
pub(crate) const CANARY: u64 = 0;

/// The salt of a shadow.
pub(crate) const SHADOW: u64 = 1;

impl Share {
    /// As [`Canary`] documents it.
    pub(crate) fn new(canary: &Canary, salt: u64) -> Share {
        // Between 0 and 10000, as `Config::check` saw to.
        Share { below: (canary.percent * 100.0).round().max(0.0) as u64, salt }
    }

    /// Whether a record belongs to the share.
    pub(crate) fn has(&self, key: Option<&[u8]>, topic: &str, partition: i32, offset: i64) -> bool {
        let mut hasher = SipHasher24::new_with_keys(0, self.salt);
        match key {
            Some(key) => hasher.write(key),
            None => {
                hasher.write(topic.as_bytes());
                hasher.write(&partition.to_le_bytes());
                hasher.write(&offset.to_le_bytes());
            }
        }
        hasher.finish() % 10_000 < self.below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_as_large_as_it_says_and_stays() {
        let canary = |percent| Canary { percent, model: None, version: None, label: None };
        let count = |percent, salt| {
            let share = Share::new(&canary(percent), salt);
            (0..10_000u32).filter(|key| share.has(Some(&key.to_be_bytes()), "t", 0, 0)).count()
        };
        assert_eq!((count(0.0, CANARY), count(100.0, SHADOW)), (0, 10_000));
        for (percent, salt) in [(1.0, CANARY), (10.0, SHADOW), (50.0, CANARY)] {
            let (got, want) = (count(percent, salt) as f64, percent * 100.0);
            assert!((got - want).abs() < 6.0 * want.sqrt(), "{percent}: {got}");
        }
        // The hash is documented: these stay as they are.
        let half = Share::new(&canary(50.0), CANARY);
        let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let chosen: Vec<&str> =
            keys.into_iter().filter(|key| half.has(Some(key.as_bytes()), "", 0, 0)).collect();
        let again: Vec<&str> =
            keys.into_iter().filter(|key| half.has(Some(key.as_bytes()), "x", 9, 9)).collect();
        assert_eq!(chosen, again);
        assert!(half.has(None, "t", 0, 3) == half.has(None, "t", 0, 3));
    }
}
