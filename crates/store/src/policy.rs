use std::num::NonZeroUsize;

use salver_lifecycle::Version;

/// Which of the versions that are there are aspired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The n highest.
    Latest(NonZeroUsize),
    /// Every one.
    All,
    /// These, as far as they are there.
    Specific(Vec<Version>),
}

impl Default for VersionPolicy {
    /// The highest alone.
    fn default() -> Self {
        Self::Latest(NonZeroUsize::MIN)
    }
}

impl VersionPolicy {
    /// How many versions it selects at most.
    pub(crate) fn limit(&self) -> usize {
        match self {
            Self::Latest(n) => n.get(),
            Self::All => usize::MAX,
            Self::Specific(versions) => versions.len(),
        }
    }

    /// Whether it can ever select this version.
    pub(crate) fn allows(&self, version: Version) -> bool {
        match self {
            Self::Latest(_) | Self::All => true,
            Self::Specific(versions) => versions.contains(&version),
        }
    }
}

/// The versions that the policy selects, from the highest down. `versions` is in any order, without
/// duplicates.
pub fn select(versions: &[Version], policy: &VersionPolicy) -> Vec<Version> {
    let mut selected: Vec<_> = versions.iter().copied().filter(|version| policy.allows(*version)).collect();
    selected.sort_unstable_by(|a, b| b.cmp(a));
    selected.truncate(policy.limit());
    selected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections() {
        let versions =
            |numbers: &[u64]| -> Vec<_> { numbers.iter().filter_map(|n| Version::new(*n)).collect() };
        let latest = |n| VersionPolicy::Latest(NonZeroUsize::new(n).unwrap());
        let check = |present: &[u64], policy: &VersionPolicy, expected: &[u64]| {
            assert_eq!(select(&versions(present), policy), versions(expected), "{present:?} {policy:?}");
        };
        check(&[], &latest(1), &[]);
        check(&[2, 10, 3], &VersionPolicy::default(), &[10]);
        check(&[2, 10, 3], &latest(2), &[10, 3]);
        check(&[2, 10, 3], &latest(9), &[10, 3, 2]);
        check(&[2, 10, 3], &VersionPolicy::All, &[10, 3, 2]);
        check(&[2, 10, 3], &VersionPolicy::Specific(versions(&[2, 4, 10])), &[10, 2]);
        check(&[2, 10, 3], &VersionPolicy::Specific(Vec::new()), &[]);
    }
}
