use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use salver_lifecycle::{AspiredVersion, Version};

use crate::{Content, SourceError, SourceStatus, VersionPolicy, Watched};

const MAX_WARNINGS: usize = 16;

/// A child of a base path that is a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The number that its name says.
    pub version: Version,
    /// Where it is.
    pub path: PathBuf,
}

/// What is remembered of one model from scan to scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    versions: BTreeMap<Version, SeenVersion>,
    aspired: Vec<AspiredVersion<PathBuf>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct SeenVersion {
    /// Of the content at the last look.
    fingerprint: u64,
    /// The last content that counted as complete.
    settled: Option<AspiredVersion<PathBuf>>,
}

impl SeenVersion {
    /// Whether the content at the last look is the one that counts.
    fn is_settled(&self) -> bool {
        self.settled.as_ref().is_some_and(|settled| settled.fingerprint == self.fingerprint)
    }
}

impl Seen {
    /// What is still true when the model moves to another base path: what is aspired, until something is
    /// found there.
    pub(crate) fn elsewhere(self) -> Self {
        Self { versions: BTreeMap::new(), aspired: self.aspired }
    }
}

/// What follows from one scan of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The complete wish, from the highest version down; `None` means that the last wish stays.
    pub aspired: Option<Vec<AspiredVersion<PathBuf>>>,
    /// What there is to say of the source.
    pub status: SourceStatus,
}

/// Decides what is aspired of one model, and what to remember for the next scan.
///
/// `listing` is what lies at the base path, from the highest version down and without duplicates, with
/// warnings, or why it cannot be listed: then the last wish stays. `content` looks into one version; it is
/// asked only for those versions that can matter. A version counts once its content is complete, that is once
/// two scans in a row saw the same, or its newest change is older than [`Watched::settle`]. While the content
/// of a version that counted changes, or cannot be looked at, the version counts as it did before. While
/// nothing counts and something is being copied, the last wish stays. An empty folder never counts.
pub fn decide(
    watched: &Watched,
    listing: Result<(Vec<Child>, Vec<String>), SourceError>,
    content: &mut dyn FnMut(&Path) -> Result<Content, String>,
    seen: &Seen,
    now: SystemTime,
) -> (Seen, Decision) {
    match listing {
        Ok((children, warnings)) => decide_listed(watched, &children, warnings, content, seen, now),
        Err(error) => {
            let aspired = numbers(&seen.aspired);
            let status =
                SourceStatus { scanned: true, aspired, error: Some(error), ..SourceStatus::default() };
            (seen.clone(), Decision { aspired: None, status })
        }
    }
}

fn decide_listed(
    watched: &Watched,
    children: &[Child],
    mut warnings: Vec<String>,
    content: &mut dyn FnMut(&Path) -> Result<Content, String>,
    seen: &Seen,
    now: SystemTime,
) -> (Seen, Decision) {
    let found: Vec<_> = children.iter().map(|child| child.version).collect();
    let mut versions = seen.versions.clone();
    versions.retain(|version, _| found.binary_search_by(|other| version.cmp(other)).is_ok());
    let (settled, unsettled) = look_into(watched, children, content, &mut versions, &mut warnings, now);
    warnings.extend(missing(watched, &found));
    warnings.truncate(MAX_WARNINGS);
    // What is still being copied will take the place of what was aspired, but not before it is there.
    let is_replaced = !seen.aspired.is_empty() && !unsettled.is_empty();
    let keep = settled.is_empty() && (watched.keep_when_empty || is_replaced);
    let aspired = if keep { seen.aspired.clone() } else { settled.clone() };
    let status =
        SourceStatus { scanned: true, found, unsettled, aspired: numbers(&aspired), warnings, error: None };
    (Seen { versions, aspired }, Decision { aspired: (!keep).then_some(settled), status })
}

/// Looks into versions from the highest down, until as many count as the policy can select: of those that
/// count, this gives what [`select`](crate::select) would. Beside them, it gives the numbers of those that
/// are not complete now.
fn look_into(
    watched: &Watched,
    children: &[Child],
    content: &mut dyn FnMut(&Path) -> Result<Content, String>,
    versions: &mut BTreeMap<Version, SeenVersion>,
    warnings: &mut Vec<String>,
    now: SystemTime,
) -> (Vec<AspiredVersion<PathBuf>>, Vec<Version>) {
    let mut settled = Vec::new();
    let mut unsettled = Vec::new();
    for child in children.iter().filter(|child| watched.policy.allows(child.version)) {
        if settled.len() >= watched.policy.limit() {
            break;
        }
        let before = versions.get(&child.version);
        match look(child, content(&child.path), before, watched.settle, now) {
            Ok(version) => {
                if !version.is_settled() {
                    unsettled.push(child.version);
                }
                settled.extend(version.settled.clone());
                versions.insert(child.version, version);
            }
            Err(message) => {
                settled.extend(before.and_then(|before| before.settled.clone()));
                unsettled.push(child.version);
                warnings.push(format!("version {}: {message}", child.version));
            }
        }
    }
    (settled, unsettled)
}

fn numbers(versions: &[AspiredVersion<PathBuf>]) -> Vec<Version> {
    versions.iter().map(|version| version.version).collect()
}

/// What is to remember of a version after a look at its content.
fn look(
    child: &Child,
    content: Result<Content, String>,
    before: Option<&SeenVersion>,
    settle: Duration,
    now: SystemTime,
) -> Result<SeenVersion, String> {
    let content = content?;
    if content.n_files == 0 {
        return Err(format!("{} is empty", child.path.display()));
    }
    let fingerprint = content.fingerprint;
    let settled = if is_complete(&content, before, settle, now) {
        Some(AspiredVersion { version: child.version, source: child.path.clone(), fingerprint })
    } else {
        before.and_then(|before| before.settled.clone())
    };
    Ok(SeenVersion { fingerprint, settled })
}

fn is_complete(content: &Content, before: Option<&SeenVersion>, settle: Duration, now: SystemTime) -> bool {
    let is_unchanged = before.is_some_and(|before| before.fingerprint == content.fingerprint);
    // A time in the future says nothing; then two scans must agree.
    let age = content.newest.and_then(|newest| now.duration_since(newest).ok());
    is_unchanged || settle.is_zero() || age.is_some_and(|age| age >= settle)
}

/// What the policy or a person would expect to be there and is not.
fn missing(watched: &Watched, found: &[Version]) -> Vec<String> {
    let path = watched.base_path.display();
    match &watched.policy {
        _ if found.is_empty() => vec![format!("no versions found in {path}")],
        VersionPolicy::Specific(wanted) => {
            let missing = wanted.iter().filter(|version| !found.contains(version));
            missing.map(|version| format!("version {version} is asked for and not in {path}")).collect()
        }
        VersionPolicy::Latest(_) | VersionPolicy::All => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
