use std::num::NonZeroUsize;

use proptest::prelude::*;
use salver_lifecycle::ModelName;

use super::*;
use crate::{SourceErrorKind, select};

/// What lies in a version: its fingerprint, 0 for an empty folder and 9 for one that cannot be looked at, and
/// how many seconds ago it changed; negative is in the future.
type Disk = BTreeMap<u64, (u64, i64)>;

fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
}

fn number(version: u64) -> Version {
    Version::new(version).unwrap()
}

fn path(version: u64) -> PathBuf {
    PathBuf::from(format!("/m/{version}"))
}

fn watched(policy: VersionPolicy) -> Watched {
    Watched { policy, ..Watched::new(ModelName::new("m").unwrap(), "/m") }
}

fn content((fingerprint, age): (u64, i64)) -> Result<Content, String> {
    if fingerprint == 9 {
        return Err("cannot read it".to_owned());
    }
    let seconds = Duration::from_secs(age.unsigned_abs());
    let newest = if age < 0 { noon() + seconds } else { noon() - seconds };
    Ok(Content { fingerprint, n_files: usize::from(fingerprint > 0), newest: Some(newest) })
}

/// One scan of what is on disk; `None` is a base path that is missing.
fn scan(watched: &Watched, disk: Option<&Disk>, seen: &Seen) -> (Seen, Decision) {
    let listing = disk.map(|disk| {
        let child = |version: &u64| Child { version: number(*version), path: path(*version) };
        (disk.keys().rev().map(child).collect(), Vec::new())
    });
    let missing = SourceError::new(SourceErrorKind::NotFound, "base path /m does not exist".to_owned());
    let mut look = |at: &Path| {
        let version = disk.unwrap().iter().find(|(version, _)| path(**version) == at);
        content(*version.unwrap().1)
    };
    decide(watched, listing.ok_or(missing), &mut look, seen, noon())
}

fn aspired(decision: &Decision) -> Option<Vec<(u64, u64)>> {
    let aspired = decision.aspired.as_ref()?;
    Some(aspired.iter().map(|v| (v.version.get(), v.fingerprint)).collect())
}

/// Scans that follow each other: what is on disk as (version, fingerprint, age), and what is aspired then.
type Scans<'a> = &'a [(Option<&'a [(u64, u64, i64)]>, Option<&'a [(u64, u64)]>)];

fn check(case: &str, watched: &Watched, scans: Scans<'_>) {
    let mut seen = Seen::default();
    for (n, (disk, expected)) in scans.iter().enumerate() {
        let disk: Option<Disk> = disk.map(|disk| disk.iter().map(|(v, f, age)| (*v, (*f, *age))).collect());
        let (next, decision) = scan(watched, disk.as_ref(), &seen);
        seen = next;
        assert_eq!(aspired(&decision).as_deref(), *expected, "{case}, scan {n}");
    }
}

#[test]
fn what_is_aspired() {
    let latest = watched(VersionPolicy::default());
    let all = watched(VersionPolicy::All);
    let two = watched(VersionPolicy::Latest(NonZeroUsize::new(2).unwrap()));
    let specific = watched(VersionPolicy::Specific(vec![number(1), number(3)]));
    let kept = Watched { keep_when_empty: true, ..latest.clone() };
    let at_once = Watched { settle: Duration::ZERO, ..latest.clone() };

    check("old content counts at once", &latest, &[(Some(&[(1, 5, 2)]), Some(&[(1, 5)]))]);
    check("no wait is asked for", &at_once, &[(Some(&[(1, 5, 0)]), Some(&[(1, 5)]))]);
    check(
        "young content counts when two scans agree",
        &latest,
        &[
            (Some(&[(1, 5, 1)]), Some(&[])),
            (Some(&[(1, 6, 1)]), Some(&[])),
            (Some(&[(1, 6, 1)]), Some(&[(1, 6)])),
        ],
    );
    check(
        "a date in the future needs two scans",
        &latest,
        &[(Some(&[(1, 5, -99)]), Some(&[])), (Some(&[(1, 5, -99)]), Some(&[(1, 5)]))],
    );
    check(
        "the old version stays until the new one is complete",
        &latest,
        &[
            (Some(&[(1, 5, 9)]), Some(&[(1, 5)])),
            (Some(&[(1, 5, 9), (2, 0, 0)]), Some(&[(1, 5)])),
            (Some(&[(1, 5, 9), (2, 6, 0)]), Some(&[(1, 5)])),
            (Some(&[(1, 5, 9), (2, 7, 0)]), Some(&[(1, 5)])),
            (Some(&[(1, 5, 9), (2, 7, 1)]), Some(&[(2, 7)])),
        ],
    );
    check(
        "new content counts when it is complete",
        &latest,
        &[
            (Some(&[(1, 5, 9)]), Some(&[(1, 5)])),
            (Some(&[(1, 6, 0)]), Some(&[(1, 5)])),
            (Some(&[(1, 6, 1)]), Some(&[(1, 6)])),
            (Some(&[(1, 9, 0)]), Some(&[(1, 6)])),
            (Some(&[(1, 0, 0)]), Some(&[(1, 6)])),
        ],
    );
    check(
        "a missing base path changes nothing, a missing version does",
        &latest,
        &[
            (None, None),
            (Some(&[(1, 5, 9)]), Some(&[(1, 5)])),
            (None, None),
            (Some(&[(1, 5, 9)]), Some(&[(1, 5)])),
            (Some(&[]), Some(&[])),
        ],
    );
    check(
        "an empty base path changes nothing if so asked",
        &kept,
        &[(Some(&[]), None), (Some(&[(1, 5, 9)]), Some(&[(1, 5)])), (Some(&[]), None)],
    );
    let disk: &[_] = &[(1, 5, 9), (2, 6, 9), (3, 7, 9)];
    check("all", &all, &[(Some(disk), Some(&[(3, 7), (2, 6), (1, 5)]))]);
    check("the latest two", &two, &[(Some(disk), Some(&[(3, 7), (2, 6)]))]);
    check("specific ones", &specific, &[(Some(disk), Some(&[(3, 7), (1, 5)]))]);
    check("a broken folder hides no other", &latest, &[(Some(&[(1, 5, 9), (2, 9, 9)]), Some(&[(1, 5)]))]);
}

#[test]
fn only_versions_that_matter_are_looked_into() {
    let watched = watched(VersionPolicy::default());
    let children = (1..=100).rev().map(|v| Child { version: number(v), path: path(v) }).collect();
    let mut n_looks = 0;
    let mut look = |_: &Path| {
        n_looks += 1;
        content((5, 9))
    };
    let (_, decision) = decide(&watched, Ok((children, Vec::new())), &mut look, &Seen::default(), noon());
    assert_eq!(aspired(&decision), Some(vec![(100, 5)]));
    assert_eq!(n_looks, 1);
}

#[test]
fn the_status_says_what_is_there() {
    let numbers = |versions: &[u64]| versions.iter().map(|v| number(*v)).collect::<Vec<_>>();
    let watched = watched(VersionPolicy::Specific(numbers(&[1, 2, 3, 7])));
    let disk: Disk = [(1, (5, 9)), (2, (0, 9)), (3, (5, 0)), (4, (5, 9))].into();
    let (seen, decision) = scan(&watched, Some(&disk), &Seen::default());
    let expected = SourceStatus {
        scanned: true,
        found: numbers(&[4, 3, 2, 1]),
        unsettled: numbers(&[3, 2]),
        aspired: numbers(&[1]),
        warnings: vec!["version 2: /m/2 is empty".into(), "version 7 is asked for and not in /m".into()],
        error: None,
    };
    assert_eq!(decision.status, expected);

    let (seen, decision) = scan(&watched, None, &seen);
    assert_eq!(decision.status.aspired, numbers(&[1]));
    assert_eq!(decision.status.error.unwrap().to_string(), "base path /m does not exist");

    let (_, decision) = scan(&watched, Some(&Disk::new()), &seen);
    assert_eq!(decision.status.warnings, ["no versions found in /m"]);
    assert_eq!(decision.status.error, None);
}

fn policies() -> impl Strategy<Value = VersionPolicy> {
    prop_oneof![
        (1..4_usize).prop_map(|n| VersionPolicy::Latest(NonZeroUsize::new(n).unwrap())),
        Just(VersionPolicy::All),
        prop::collection::btree_set(1..6_u64, 0..4)
            .prop_map(|versions| VersionPolicy::Specific(versions.into_iter().map(number).collect())),
    ]
}

fn disks() -> impl Strategy<Value = Vec<Option<Disk>>> {
    let age = prop_oneof![Just(-5_i64), Just(0), Just(9)];
    let fingerprint = prop_oneof![Just(0_u64), Just(9), 1..4_u64];
    let disk = prop::collection::btree_map(1..6_u64, (fingerprint, age), 0..5);
    prop::collection::vec(prop::option::weighted(0.85, disk), 0..12)
}

#[test]
fn what_is_aspired_stays_while_its_successor_is_copied() {
    let watched = watched(VersionPolicy::Latest(NonZeroUsize::MIN));
    let (seen, first) = scan(&watched, Some(&Disk::from([(1, (5, 10))])), &Seen::default());
    assert_eq!(aspired(&first), Some(vec![(1, 5)]));
    // The model moves to a base path where version 2 is still young; then nothing there changes any more.
    let young = Disk::from([(2, (6, 0))]);
    let (seen, second) = scan(&watched, Some(&young), &seen.elsewhere());
    assert_eq!(aspired(&second), None);
    assert_eq!(aspired(&scan(&watched, Some(&young), &seen).1), Some(vec![(2, 6)]));
}

proptest! {
    #[test]
    fn decisions_hold_their_promises(policy in policies(), disks in disks(), keep_when_empty: bool) {
        let watched = Watched { keep_when_empty, ..watched(policy) };
        let mut seen = Seen::default();
        let mut complete = Vec::new();
        let mut previous = Disk::new();
        for disk in &disks {
            let before = seen.clone();
            let (next, decision) = scan(&watched, disk.as_ref(), &seen);
            seen = next;
            let Some(disk) = disk else {
                prop_assert!(decision.aspired.is_none() && decision.status.error.is_some());
                prop_assert_eq!(&seen, &before);
                continue;
            };
            // Complete is what is old enough, or what some scan before may have seen the same.
            complete.extend(disk.iter().filter(|(_, (_, age))| *age >= 2).map(|(v, (f, _))| (*v, *f)));
            complete.extend(disk.iter().filter(|(v, now)| previous.get(v).is_some_and(|p| p.0 == now.0)).map(|(v, (f, _))| (*v, *f)));
            previous.extend(disk.iter().filter(|(_, (f, _))| *f != 9 && *f != 0).map(|(v, now)| (*v, *now)));
            previous.retain(|version, _| disk.contains_key(version));
            match aspired(&decision) {
                None => {
                    let is_copying = !before.aspired.is_empty() && !decision.status.unsettled.is_empty();
                    prop_assert!((keep_when_empty || is_copying) && seen.aspired == before.aspired);
                }
                Some(aspired) => {
                    prop_assert!(!(keep_when_empty && aspired.is_empty()));
                    prop_assert!(aspired.len() <= watched.policy.limit());
                    prop_assert!(aspired.is_sorted_by(|a, b| a.0 > b.0));
                    for (version, fingerprint) in aspired {
                        prop_assert!(disk.contains_key(&version) && watched.policy.allows(number(version)));
                        prop_assert!(complete.contains(&(version, fingerprint)), "{version} was never complete");
                    }
                }
            }
        }
    }

    #[test]
    fn a_disk_at_rest_is_aspired_as_it_is(policy in policies(), disks in disks(), last in disks()) {
        let watched = watched(policy);
        let mut seen = Seen::default();
        for disk in &disks {
            seen = scan(&watched, disk.as_ref(), &seen).0;
        }
        let mut last = last.into_iter().flatten().next().unwrap_or_default();
        last.retain(|_, (fingerprint, _)| *fingerprint != 0 && *fingerprint != 9);
        let (seen, _) = scan(&watched, Some(&last), &seen);
        let (_, decision) = scan(&watched, Some(&last), &seen);
        let versions: Vec<_> = last.keys().map(|version| number(*version)).collect();
        let expected: Vec<_> = select(&versions, &watched.policy).iter().map(|v| (v.get(), last[&v.get()].0)).collect();
        prop_assert_eq!(aspired(&decision), Some(expected));
        prop_assert_eq!(decision.status.unsettled, []);
    }
}
