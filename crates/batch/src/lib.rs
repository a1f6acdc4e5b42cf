//! From admission to split, for one loaded model: a bounded queue, the forming of batches, the lanes that run them,
//! and the way round all of it for models that are cheaper to run than to hand over.
//!
//! This room knows no model names, versions or wire formats, and it reads no clock: a [`Clock`] is passed in. Which
//! tasks run next is the pure function [`decide`]; [`LaneSet`] owns the threads and does what it says.
//!
//! A *lane* is a thread that entered the model's engine once and then runs one batch after another with a session of
//! its own. A task that no lane has begun is dropped when its caller drops the [`Pending`] or its deadline passes. A
//! batch that fails is run again task by task, so that only the task at fault fails; a session that panics fails what
//! it ran and is made anew.
//!
//! *Inline runs.* Handing a task to a lane and its answer back costs two thread wake-ups, which is far more than a
//! small network takes to run. So [`LaneSet::submit`] runs a task right where it is called if that thread is inside
//! the model's engine and recent runs of the same signature and input size stayed below [`Config::inline_below`].
//! The first run that turns out slow sends those that follow to the lanes again.

#![warn(missing_docs)]

mod config;
mod cost;
mod error;
mod lanes;
mod pending;
mod policy;
mod queue;
mod run;
mod session;
mod stats;

pub use config::{Batching, Clock, Config};
pub use error::{Error, Refused, RunError};
pub use lanes::{LaneSet, Task};
pub use pending::{Done, Pending};
pub use policy::{Decision, QueueView, Waiting, decide};
pub use stats::{BATCH_BUCKETS, Snapshot};
