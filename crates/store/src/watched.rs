use std::path::PathBuf;
use std::time::Duration;

use salver_lifecycle::{ModelName, Version};

use crate::VersionPolicy;

/// One model to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The model.
    pub name: ModelName,
    /// Where its versions are; see [`local_path`](crate::local_path) for what is understood.
    pub base_path: PathBuf,
    /// What is at the base path.
    pub layout: Layout,
    /// Which versions are aspired.
    pub policy: VersionPolicy,
    /// Whether the last wish stays when the base path is there and nothing in it is selected. Otherwise, and
    /// by default, everything is unloaded then.
    pub keep_when_empty: bool,
    /// How old the newest change in a version must be for the version to count as complete at first sight.
    /// Younger ones count once two scans in a row see the same. Default: 2 s.
    pub settle: Duration,
}

impl Watched {
    /// A base path with numbered versions, of which the highest is aspired.
    pub fn new(name: ModelName, base_path: impl Into<PathBuf>) -> Self {
        Self {
            name,
            base_path: base_path.into(),
            layout: Layout::Versions,
            policy: VersionPolicy::default(),
            keep_when_empty: false,
            settle: Duration::from_secs(2),
        }
    }

    /// One file or one version folder, always aspired as this version.
    pub fn single(name: ModelName, path: impl Into<PathBuf>, version: Version) -> Self {
        Self { layout: Layout::Single(version), policy: VersionPolicy::All, ..Self::new(name, path) }
    }
}

/// What is at a base path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A folder whose children with a number for a name (leading zeros allowed) are versions.
    Versions,
    /// The one version itself, a file or a folder, with this number.
    Single(Version),
}
