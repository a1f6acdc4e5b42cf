//! Salver's batching policy, as it is, against traces and against policies from the literature, in simulated time.
//!
//! This room knows the pure functions of `batch` and nothing of threads, sockets, tensors or engines: time is a number
//! that the event loop advances, a run takes what a model of an engine says, and a lane is an entry in a list. Everything
//! follows from one seed.
//!
//! [`Trace`] makes requests, [`Engine`] says how long runs take, a [`Scheduler`] decides, [`run`] moves time, and
//! [`Summary`] says what came of it. Schedulers see what they would see in a server: Salver's learns its cost model from
//! simulated runs; [`scheduler::Nexus`] alone is given the engine's true times, as its authors profile models offline.

#![warn(missing_docs)]

mod engine;
mod random;
pub mod report;
pub mod scenario;
pub mod scheduler;
mod summary;
mod trace;
mod world;

pub use engine::{Curve, Engine, Phases, Stalls, Tail};
pub use random::Random;
pub use scheduler::{Next, Scheduler, Task};
pub use summary::Summary;
pub use trace::{Arrivals, Mix, Request, START_UP, Trace};
pub use world::{Fate, History, Ran, run};
