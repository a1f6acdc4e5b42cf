use crate::{ModelName, Version};

/// The complete wish for one model name: exactly these versions should be available.
///
/// Level-triggered: stating the same wish again changes nothing, a version left out is unloaded, an empty
/// list unloads everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aspired<S> {
    /// The model.
    pub name: ModelName,
    /// Every version that should be available, in any order. Of two entries with one number the later counts.
    pub versions: Vec<AspiredVersion<S>>,
}

/// One version that should be available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AspiredVersion<S> {
    /// Its number.
    pub version: Version,
    /// What the loader makes the servable of.
    pub source: S,
    /// Stands for the content of the source. A version that failed to load is tried again when this changes;
    /// an available version is left as it is.
    pub fingerprint: u64,
}
