//! Measures on which engine and with which settings a model runs best, and whether the answers agree.
//!
//! [`tune`] takes candidates (an engine and a precision each, with a way to load the model), requests and a [`Plan`], and
//! gives back what each candidate took under which threads, lanes and batch sizes, and how far its answers are from those of
//! a reference. [`fn@choose`] says which of the measurements is best for a [`Goal`]; it is a pure function.
//!
//! *What is compared with what.* The first of the reference candidates that loads answers all requests, as they are. Every
//! other candidate answers the same requests, and joined requests of every batch size, and [`Agreement`] says by how much
//! its answers differ. A candidate that fails is a row with its reason and no more.
//!
//! *How time is taken.* Machines are noisy. So everything runs once before it counts, what is compared runs in turn, round
//! after round, each time starting elsewhere, and figures are medians of rounds. Lanes are threads, each inside
//! [`salver_engine::Model::enter`] with a session of its own. After the first round only what may still be chosen, and the
//! best of the reference, is measured again.
//!
//! This room knows no concrete engines, wire formats or files of settings, and reads clocks and memory through a [`Meter`].

#![warn(missing_docs)]

mod agreement;
mod candidate;
mod choose;
mod feed;
mod loaded;
mod machine;
mod measure;
mod plan;
mod rounds;
mod trial;

pub use agreement::{Agreement, OutputAgreement, Share};
pub use candidate::{Candidate, Load, Request, Requests};
pub use choose::{Aim, Goal, Tolerance, best_of, choose, simplest};
pub use loaded::Footprint;
pub use machine::{Machine, MemoryUse, Meter};
pub use measure::{CandidateReport, Error, Event, Failure, Job, Measured, Report, tune, weigh};
pub use plan::{Plan, Sharing};
