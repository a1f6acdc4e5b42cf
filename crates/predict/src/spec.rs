//! Which model is meant.

use std::fmt;
use std::sync::Arc;

/// A model's name: never empty, cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName(Arc<str>);

impl ModelName {
    /// `None` for an empty name.
    pub fn new(name: &str) -> Option<ModelName> {
        (!name.is_empty()).then(|| ModelName(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A version's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One version of one model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelId {
    /// The model.
    pub name: ModelName,
    /// The version.
    pub version: Version,
}

/// How a request picks a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum VersionChoice {
    /// The highest that is available.
    #[default]
    Latest,
    /// Exactly this one. Signed because requests carry it so; a negative version is never available.
    Number(i64),
    /// The one that carries this label.
    Label(String),
}

/// Which model and version a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    /// The model.
    pub name: ModelName,
    /// The version.
    pub version: VersionChoice,
}
