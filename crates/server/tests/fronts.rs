//! The fronts over real sockets, with models that are played.

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
