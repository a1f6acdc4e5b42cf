//! The fronts over real sockets, with models that are played.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "fronts/client.rs"]
mod client;
#[path = "fronts/grpc.rs"]
mod grpc;
#[path = "fronts/oip.rs"]
mod oip;
#[path = "fronts/play.rs"]
mod play;
#[path = "fronts/rest.rs"]
mod rest;
#[path = "fronts/transport.rs"]
mod transport;
