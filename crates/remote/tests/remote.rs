//! A remote predictor against real servers: the fronts over a played model, and sockets that misbehave.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

#[path = "remote/answers.rs"]
mod answers;
#[path = "remote/faults.rs"]
mod faults;
#[path = "remote/play.rs"]
mod play;
#[path = "remote/secure.rs"]
mod secure;
