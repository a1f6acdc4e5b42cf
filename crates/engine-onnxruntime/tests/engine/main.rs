//! The engine with the library there.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and may say what it did"
)]

mod conformance;
mod golden;
mod models;
mod native;
