//! The network fronts: REST and gRPC, for the TensorFlow Serving and the Open Inference Protocol interfaces.
//!
//! This room owns listeners, connections, their limits and deadlines, routing, and the metrics of requests. What it
//! asks is behind [`salver_predict::Predictor`] and [`salver_predict::Models`]; how bytes become tensors is `wire`'s
//! matter. It does not know engines, how models come and go, or how requests are batched, and it starts no thread:
//! the binary drives [`Server::worker`] on each of its worker threads and [`Server::acceptor`] on its control thread.

mod accept;
mod access;
mod body;
mod budget;
mod clock;
mod coding;
mod config;
mod conn;
mod core;
mod error;
mod examples;
mod grpc;
mod health;
mod listen;
mod metrics;
mod rest;
mod server;
mod statistics;
mod stream;
mod terms;
mod tls;
mod watch;
mod worker;

pub use config::{Config, Limits, Tls};
pub use error::{Error, ErrorKind};
pub use listen::Addresses;
pub use server::Server;
