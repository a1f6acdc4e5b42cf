//! Keeps what is loaded equal to what is aspired, and hands out handles to what is available.
//!
//! This room knows nothing of tensors, file formats, networks or async run times: what is loaded is whatever
//! a [`Loader`] makes of a source. Whoever knows what should be served states the complete wish for one model
//! name ([`Aspired`], level-triggered: what is left out is unloaded) to the [`Manager`]; readers ask the
//! manager for a [`Handle`], which never waits for a load, and keep it as long as they work with the
//! servable.
//!
//! Each name progresses on its own. Decisions are pure ([`next_action`] and the book of one model); the
//! manager around them owns the threads. Loading happens on load threads, dropping on unload threads, neither
//! ever on the thread that holds a handle.

#![warn(missing_docs)]

mod aspired;
mod clock;
mod config;
mod handle;
mod loader;
mod manager;
mod model;
mod name;
mod policy;
mod state;

pub use aspired::{Aspired, AspiredVersion};
pub use clock::{Clock, SystemClock};
pub use config::Config;
pub use handle::{Handle, NotFound};
pub use loader::{Cancel, ErrorKind, LoadError, Loader};
pub use manager::{Manager, Observer};
pub use name::{Id, MAX_NAME_BYTES, ModelName, NameError, Version};
pub use policy::{Action, Policy, Snapshot, Stage, next_action};
pub use state::{Phase, State, States, VersionState};
