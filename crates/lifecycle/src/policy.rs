use crate::Version;

/// In which order a model's versions are swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// The old version serves until the new one is available; both are in memory for a while.
    #[default]
    AvailabilityPreserving,
    /// The old version is gone before the new one loads; nothing is available in between.
    ResourcePreserving,
}

/// Where a version stands, as far as the policy cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its load was not asked for yet.
    New,
    /// Its load is asked for, running, or about to be tried again.
    Loading,
    /// It is available.
    Ready,
    /// It is leaving memory.
    Unloading,
    /// Nothing of it is in memory.
    Ended,
}

/// What the policy sees of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number.
    pub version: Version,
    /// Whether it is wanted.
    pub aspired: bool,
    /// Where it stands.
    pub stage: Stage,
}

/// What to do next with one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Load this version.
    Load(Version),
    /// Stop giving out handles to this version, and drop it when the last handle is gone.
    Unload(Version),
}

/// The next action for one model, or `None` if there is nothing to do until something changes. Unloading goes
/// before loading; the highest version is loaded first, the lowest unloaded first. `versions` is in any
/// order.
pub fn next_action(policy: Policy, versions: &[Snapshot]) -> Option<Action> {
    match policy {
        Policy::AvailabilityPreserving => unload_if_replaced(versions).or_else(|| load_highest(versions)),
        Policy::ResourcePreserving => {
            let unload = unwanted(versions).map(Action::Unload).next();
            unload.or_else(|| if is_leaving(versions) { None } else { load_highest(versions) })
        }
    }
}

/// The versions that are available and not wanted, from the lowest.
fn unwanted(versions: &[Snapshot]) -> impl Iterator<Item = Version> {
    let mut unwanted: Vec<_> =
        versions.iter().filter(|v| !v.aspired && v.stage == Stage::Ready).map(|v| v.version).collect();
    unwanted.sort_unstable();
    unwanted.into_iter()
}

/// Unloads only what can be spared: nothing is wanted, something wanted is there, or another unwanted one
/// remains.
fn unload_if_replaced(versions: &[Snapshot]) -> Option<Action> {
    let mut unwanted = unwanted(versions);
    let lowest = unwanted.next()?;
    let none_aspired = !versions.iter().any(|v| v.aspired);
    let replaced = versions.iter().any(|v| v.aspired && v.stage == Stage::Ready);
    (none_aspired || replaced || unwanted.next().is_some()).then_some(Action::Unload(lowest))
}

fn load_highest(versions: &[Snapshot]) -> Option<Action> {
    let new = versions.iter().filter(|v| v.aspired && v.stage == Stage::New);
    new.map(|v| v.version).max().map(Action::Load)
}

/// Whether memory is still held by something that is on its way out.
fn is_leaving(versions: &[Snapshot]) -> bool {
    versions.iter().any(|v| v.stage == Stage::Unloading || (!v.aspired && v.stage == Stage::Loading))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One letter per version from 1: new, loading, ready, unloading, ended; upper case means aspired.
    fn snapshots(text: &str) -> Vec<Snapshot> {
        let stage = |c: char| match c.to_ascii_lowercase() {
            'n' => Stage::New,
            'l' => Stage::Loading,
            'r' => Stage::Ready,
            'u' => Stage::Unloading,
            _ => Stage::Ended,
        };
        let number = |n| Version::new(n).unwrap();
        let one = |(n, c): (u64, char)| Snapshot {
            version: number(n),
            aspired: c.is_ascii_uppercase(),
            stage: stage(c),
        };
        (1..).zip(text.chars()).map(one).collect()
    }

    #[test]
    fn actions() {
        let check = |policy, text: &str, expected: Option<Action>| {
            assert_eq!(next_action(policy, &snapshots(text)), expected, "{policy:?} {text}");
        };
        let load = |n| Some(Action::Load(Version::new(n).unwrap()));
        let unload = |n| Some(Action::Unload(Version::new(n).unwrap()));
        let policy = Policy::AvailabilityPreserving;
        check(policy, "", None);
        check(policy, "N", load(1));
        check(policy, "NN", load(2));
        check(policy, "rN", load(2));
        check(policy, "rL", None);
        check(policy, "rE", None);
        check(policy, "rR", unload(1));
        check(policy, "rrN", unload(1));
        check(policy, "rr", unload(1));
        check(policy, "r", unload(1));
        check(policy, "uN", load(2));
        check(policy, "Rn", None);
        check(policy, "RrL", unload(2));
        let policy = Policy::ResourcePreserving;
        check(policy, "rN", unload(1));
        check(policy, "uN", None);
        check(policy, "lN", None);
        check(policy, "eN", load(2));
        check(policy, "RN", load(2));
    }

    proptest! {
        #[test]
        fn the_last_available_version_stays_until_it_is_replaced(text in "[nlrueNLRUE]{0,6}") {
            let versions = snapshots(&text);
            if let Some(Action::Unload(version)) = next_action(Policy::AvailabilityPreserving, &versions) {
                let rest = || versions.iter().filter(|v| v.version != version && v.stage == Stage::Ready);
                prop_assert!(versions.iter().any(|v| v.version == version && !v.aspired && v.stage == Stage::Ready));
                prop_assert!(rest().count() > 0 || !versions.iter().any(|v| v.aspired));
            }
        }

        #[test]
        fn resources_are_free_before_a_load(text in "[nlrueNLRUE]{0,6}") {
            let versions = snapshots(&text);
            if let Some(Action::Load(version)) = next_action(Policy::ResourcePreserving, &versions) {
                prop_assert!(versions.iter().any(|v| v.version == version && v.aspired && v.stage == Stage::New));
                prop_assert!(versions.iter().all(|v| v.aspired || matches!(v.stage, Stage::New | Stage::Ended)));
            }
        }
    }
}
