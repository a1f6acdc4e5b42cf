use std::fmt;

use salver_lifecycle::Version;

/// What is known of one model's base path since its last scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceStatus {
    /// Whether it was scanned at all.
    pub scanned: bool,
    /// Every version that is there, from the highest down.
    pub found: Vec<Version>,
    /// Those of them that were looked at and are not yet complete, as far as one can tell: still changing, or
    /// empty.
    pub unsettled: Vec<Version>,
    /// The versions last aspired, from the highest down.
    pub aspired: Vec<Version>,
    /// What is odd but stops nothing. At most 16.
    pub warnings: Vec<String>,
    /// Why the base path cannot be listed. What was aspired before stays so.
    pub error: Option<SourceError>,
}

/// Why a base path cannot be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError {
    /// What kind of failure it is.
    pub kind: SourceErrorKind,
    /// What was wrong, with the path.
    pub message: String,
}

/// What kind of failure keeps a base path from being listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceErrorKind {
    /// There is nothing at the path.
    NotFound,
    /// There is something, but it cannot be read.
    Unreadable,
    /// It is not a local path.
    Unsupported,
}

impl SourceError {
    pub(crate) fn new(kind: SourceErrorKind, message: String) -> Self {
        Self { kind, message }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SourceError {}
