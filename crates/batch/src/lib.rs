//! From admission to split, for one loaded model: who is let in, who is next, what runs together, the lanes that run it,
//! and the way round all of it for models that are cheaper to run than to hand over.
//!
//! This room knows no model names, versions or wire formats, and it reads no clock: a [`Clock`] is passed in. Who is let
//! in and what runs next are the pure functions [`admit`] and [`decide`]; what they foresee is a [`Forecast`], learnt from
//! runs by [`CostModel`]s. [`LaneSet`] owns the threads and does what they say.
//!
//! A *lane* is a thread that entered the model's engine once and then runs one batch after another with a session of
//! its own. A task that no lane has begun is dropped when its caller drops the [`Pending`] or its deadline passes. A
//! batch that fails is run again in halves, so that only the task at fault fails; a session that panics fails what
//! it ran and is made anew.
//!
//! *Inline runs.* Handing a task to a lane and its answer back costs two thread wake-ups, which is far more than a
//! small network takes to run. So [`LaneSet::submit`] runs a task right where it is called if that thread is inside
//! the model's engine, nothing waits, and recent runs of the same signature and input size stayed below
//! [`Policy::inline_below`]. The first run that turns out slow sends those that follow to the lanes again.

#![warn(missing_docs)]

mod config;
mod cores;
mod cost;
mod error;
mod inline;
mod key;
mod lanes;
mod limit;
mod pad;
mod pending;
mod pin;
mod policy;
mod queue;
mod run;
mod session;
mod stats;
mod trial;
mod verdicts;

pub use config::{
    Batching, Clock, Config, DEFAULT_PRIORITY, MAX_THREADS, N_PRIORITIES, Padding, Policy, Priorities,
};
pub use cores::Cores;
pub use cost::{CostModel, Costs, Estimate, Forecast, Point, Unknown};
pub use error::{Error, Refused, RunError};
pub use key::is_joinable;
pub use lanes::{LaneSet, Task};
pub use limit::Limit;
pub use pending::{Done, Pending};
pub use policy::{Admission, Decision, Newcomer, Shares, Turns, View, Waiting, Why, admit, decide};
pub use stats::{BATCH_BUCKETS, Snapshot};
pub use trial::{CalledOff, Rows};
pub use verdicts::Verdict;
