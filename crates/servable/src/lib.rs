//! Models loaded here: from a version folder to something that answers calls, and the set of them that is served.
//!
//! This room knows neither concrete engines (a registry is passed in) nor HTTP, nor where versions come from: whoever
//! watches folders tells [`Servables::aspire`] what is there, and is told through [`Watcher`] what to watch.
//!
//! [`ServableLoader`] makes a [`Loaded`] model of a folder: find, load, start the lanes, warm up. [`Servables`] joins
//! it with the life-cycle manager and answers as [`Predictor`](salver_predict::Predictor) and
//! [`Models`](salver_predict::Models). What a configuration may say is decided by pure functions in `rules`.

#![warn(missing_docs)]

mod loaded;
mod loader;
mod report;
mod rules;
mod servables;
mod target;
mod trial;
mod warmup;

pub use loaded::{Loaded, ServableInfo, SignatureCosts, SignatureSnapshot};
pub use loader::{KnownCosts, LoaderConfig, ModelSettings, ServableLoader, Settings};
pub use report::{ServableSnapshot, VersionSnapshot};
pub use servables::{Config, Servables, WatchedModel, Watcher};
pub use warmup::{MAX_WARMUP_REQUESTS, WarmupRequest, WarmupSource};
