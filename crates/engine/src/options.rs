//! How a model is to be loaded.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// How a model is to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Which graph of a SavedModel is meant: all its tags, in any order. Default: `serve`.
    pub saved_model_tags: Vec<String>,
    /// Threads that one run may use. Default: 1. An engine that takes its threads from the thread that enters it
    /// ([`crate::Engine::enter`]) is given the same number there.
    pub threads: NonZeroUsize,
    /// Sessions that will run at the same time, for engines that share their resources out at load. Default: 1.
    pub n_lanes: NonZeroUsize,
    /// What the engine computes in. Default: as the model was exported.
    pub precision: Precision,
    /// The file with the ranges that values of the model take, which [`Precision::Int8`] needs.
    pub ranges: Option<PathBuf>,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            saved_model_tags: vec!["serve".to_owned()],
            threads: NonZeroUsize::MIN,
            n_lanes: NonZeroUsize::MIN,
            precision: Precision::F32,
            ranges: None,
        }
    }
}

/// What numbers an engine computes in. Anything but [`Precision::F32`] changes results by more than rounding and is never
/// chosen unless it is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Precision {
    /// As the model was exported; sums of `float32` in `float32` or better.
    #[default]
    F32,
    /// Products and convolutions of `float32` in `bfloat16`, with sums in `float32`.
    Bf16,
    /// Products and convolutions of `float32` in `int8`, scaled by ranges that were measured before.
    Int8,
}

impl Precision {
    /// All, the most precise first.
    pub const ALL: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

    /// The name in settings and tables.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Precision, Error> {
        let found = Precision::ALL.into_iter().find(|precision| precision.name() == text);
        found.ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("no precision '{text}' (expected f32, bf16 or int8)"))
        })
    }
}
