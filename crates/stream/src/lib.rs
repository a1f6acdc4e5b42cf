//! The pipeline: source -> decode -> windows -> batch -> predict -> release in order -> sink -> commit.
//!
//! [`Pipeline::start`] takes a [`Config`] and [`Parts`] and runs until its source ends, [`Running::stop`] is called, or something
//! does not go on. This room knows no engines, no brokers and no files, and it cannot tell whether a model runs here or
//! elsewhere: it asks a [`salver_predict::Predictor`].

#![warn(missing_docs)]

mod class;
mod clock;
mod config;
mod core;
mod deliver;
mod driver;
mod error;
mod fields;
mod header;
mod map;
mod model;
mod parts;
mod pipeline;
mod refuse;
mod restore;
mod score;
mod shadow;
mod status;
#[cfg(test)]
mod tests;
mod watch;
mod window;
mod worker;

pub use class::Class;
pub use config::{Canary, Config, Delivery, NullKeys, Order, Policies, Policy, Retry, Shadow};
pub use error::{Error, ErrorKind};
pub use fields::{Fields, Joined, Lookup};
pub use map::{About, Mapped, Mapping, Plan, Refused, Written};
pub use parts::{Enter, Parts};
pub use pipeline::{Ending, Handle, Outcome, Pipeline, Running};
pub use status::{Counts, Histogram, PartitionStatus, RefusedCounts, Stages, Status, Times};
pub use window::{PushError, Pushed, Restoration, Restored, Windows};
