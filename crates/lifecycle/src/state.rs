use std::collections::BTreeMap;
use std::fmt;

use crate::{LoadError, ModelName, Version};

/// Where a version stands, as it is published. The names and their order are those of TensorFlow Serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Wanted; its load has not begun.
    Start,
    /// Being loaded, or waiting to be tried again after an error that can pass.
    Loading,
    /// Handles are given out. Published after that is true.
    Available,
    /// No new handles are given out. Published before that is true; it lasts until the servable is dropped.
    Unloading,
    /// Nothing of it is left in memory: unloaded, called off, or failed.
    End,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "START",
            Self::Loading => "LOADING",
            Self::Available => "AVAILABLE",
            Self::Unloading => "UNLOADING",
            Self::End => "END",
        })
    }
}

/// The published state of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Where it stands.
    pub phase: Phase,
    /// Why it ended, if that was an error. `None` in every phase but [`Phase::End`].
    pub error: Option<LoadError>,
}

/// The published state of one version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionState {
    /// Which version.
    pub version: Version,
    /// Whether the present wish for the model holds it.
    pub aspired: bool,
    /// Its state.
    pub state: State,
}

/// The states of every version of every known model, each list from the highest version down.
pub type States = BTreeMap<ModelName, Vec<VersionState>>;
