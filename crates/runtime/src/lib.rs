//! Native libraries of engines: what is installed where, installing and removing them; and what the processor can do.
//!
//! This room knows neither engines nor models. It opens no library: it looks at files. Everything here blocks.

mod cpu;
mod error;
mod install;
mod kind;
mod manifest;
mod pip;
mod platform;
mod runtimes;
mod version;
mod wheel;

#[cfg(test)]
mod tests;

pub use cpu::{Cpu, Feature, Machine};
pub use error::{Error, ErrorKind};
pub use install::{Order, Outcome, Progress, Source};
pub use kind::Kind;
pub use pip::Pip;
pub use platform::Platform;
pub use runtimes::{Found, Origin, Removed, Runtimes};
pub use version::Version;
