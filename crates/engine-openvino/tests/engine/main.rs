//! The engine on a real OpenVINO, where one is installed.

#![allow(clippy::unwrap_used, reason = "a test")]

mod answers;
mod conformance;
mod golden;
mod hostile;
#[path = "../installed.rs"]
mod installed;
