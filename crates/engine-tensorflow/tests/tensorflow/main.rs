//! TensorFlow's engine on models of all kinds, with the library that is installed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod engine;
mod errors;
mod fixtures;
mod made;
mod own;
mod state;
