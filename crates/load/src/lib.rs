//! Asks servers at a rate and measures what comes back.
//!
//! This room knows the interfaces that `wire` speaks, connections, and clocks. It does not know engines, loaded models
//! or anything of the server but what it answers and, where it runs on this machine, what processor time and memory its
//! processes take.
//!
//! A [`Plan`] says whom to ask ([`Target`]), what ([`Call`]s, sent in turn) and how ([`Load`]): in an open loop, requests
//! leave at moments of a schedule whatever the answers do, and latency counts from the moment a request was meant to leave,
//! so that a stall is seen by every request that it delays; in a closed loop, a number of requests is kept on its way.
//! [`run()`] blocks until it is done and returns a [`Summary`]. When the generator itself could not keep up, the summary says
//! so in [`Summary::invalid`], and its figures are not to be used.
//!
//! ```no_run
//! use salver_load::{Load, Plan, Protocol, Subject, Target, describe, make_up, run};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let target: Target = "localhost:8500".parse()?;
//! let subject = Subject::new(Protocol::TfsGrpc, "mobilenet", None)?;
//! let described = describe(&target, &subject, std::time::Duration::from_secs(10))?;
//! let bodies = make_up(described.signature("")?, &Default::default())?;
//! let calls = bodies.iter().map(|inputs| subject.call(inputs)).collect::<Result<Vec<_>, _>>()?;
//! let summary = run(&Plan::new(target, calls, Load::poisson(200.0, 1)))?;
//! println!("{} answers per second in time", summary.goodput);
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod ask;
mod board;
mod bodies;
mod budget;
mod call;
mod check;
mod connect;
mod error;
mod generate;
mod goal;
mod outcome;
mod process;
mod run;
mod schedule;
mod search;
mod stable;
mod summary;
mod tally;
mod target;
mod timer;
mod watch;

pub use ask::{Answer, ask, describe};
pub use bodies::{MakeUp, make_up, read_calls};
pub use call::{Call, Subject};
pub use check::Check;
pub use error::{Error, Kind};
pub use goal::{Bound, Goal, read_time};
pub use outcome::{Outcome, Reply, classify};
pub use process::{ProcessTree, Used, listening_on};
pub use run::{Plan, Progress, Stop, run, run_with};
pub use schedule::{Arrivals, Load, read_trace};
pub use search::{Search, Step};
pub use stable::{Timing, is_stable};
pub use summary::{Counts, Generator, Latency, ServerUse, Summary, WindowRow};
pub use target::{Protocol, Target, Transport};
