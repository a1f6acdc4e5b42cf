//! Engines in processes of their own: one that crashes takes no other model with it.
//!
//! This room knows no concrete engines, queues, versions or wire formats. [`IsolatedEngine`] stands for an engine: each
//! model that it loads lives in a worker process, which a [`Spawn`] starts and which calls [`serve()`]. Tensors travel in
//! shared memory, everything else in small messages over sockets. A worker that ends fails the runs that it had, with
//! [`ErrorKind::Unavailable`](salver_engine::ErrorKind::Unavailable), and is started again with growing pauses.
//!
//! | module | holds |
//! |---|---|
//! | `engine` | the engine, its models and their sessions, as rooms above see them |
//! | `worker` | a worker seen from the server: whether it is there, connections to it, its end |
//! | `supervisor`, `process`, `backoff` | the thread that starts a worker, watches it and starts it again |
//! | `serve` | the worker's side |
//! | `channel`, `message`, `codec` | what is said between the two, and how |
//! | `socket`, `region` | what it is said over: packets with file descriptors, shared memory |
//!
//! Each side takes what it reads for hostile: lengths and offsets are checked, and a peer that breaks the rules is let go.
//! Linux only; elsewhere every load is refused.

use std::fmt;
use std::io;
use std::process::Command;
use std::sync::Arc;

#[cfg(target_os = "linux")]
mod backoff;
#[cfg(target_os = "linux")]
mod channel;
#[cfg(target_os = "linux")]
mod codec;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod engine;
#[cfg(target_os = "linux")]
mod message;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod region;
#[cfg(target_os = "linux")]
mod serve;
#[cfg(target_os = "linux")]
mod socket;
#[cfg(target_os = "linux")]
mod supervisor;
#[cfg(target_os = "linux")]
mod worker;

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{IsolatedEngine, serve};
#[cfg(target_os = "linux")]
pub use engine::IsolatedEngine;
#[cfg(target_os = "linux")]
pub use serve::serve;

type Make = dyn Fn(&str) -> io::Result<Command> + Send + Sync;

/// How a worker process is started.
#[derive(Clone)]
pub struct Spawn {
    make: Arc<Make>,
}

impl Spawn {
    /// Workers are started by the command that `make` gives: a program that calls [`serve()`] and ends with what it says.
    /// `make` is told the engine's name and the model's path, for an argument that a person finds in a list of processes.
    /// Standard input and output of the command are set here; its standard error is left as `make` says. It is called from
    /// a thread of its own, once for each start.
    pub fn new(make: impl Fn(&str) -> io::Result<Command> + Send + Sync + 'static) -> Spawn {
        Spawn { make: Arc::new(make) }
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn command(&self, what: &str) -> io::Result<Command> {
        (self.make)(what)
    }
}

impl fmt::Debug for Spawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawn").finish_non_exhaustive()
    }
}
