//! Models on other servers, as a [`salver_predict::Predictor`]: connections, choice of a server, retries.
//!
//! Servers speak TensorFlow Serving's or the Open Inference Protocol, over gRPC or REST. [`Remote::resolve`] asks them what a
//! model takes, and keeps it for a few seconds; [`salver_predict::Target::predict`] encodes, sends to one of the servers and
//! decodes. Which server that is decides a balancer ([`Balance`]): power of two choices over peak EWMA, ejection of those
//! that fail, pauses for those that ask for them, and a budget of retries. Models of [`Settings::apart`] have all of that, and
//! connections, of their own.
//!
//! Connections belong to threads of this room, so that callers may come from any runtime, or from none: a call is one task there,
//! and its caller waits for the end of it. Encoding and decoding stay with the caller. This room knows no engines, no
//! life cycle of models, no brokers; a version that was found is not held, since it lives elsewhere, and answers say which
//! version gave them.
//!
//! [`Remote::resolve`]: salver_predict::Predictor::resolve

mod address;
mod balance;
mod budget;
mod clock;
mod codec;
mod connections;
mod dial;
mod error;
mod exchange;
mod models;
mod names;
mod pool;
mod protocol;
mod random;
mod remote;
mod settings;
mod verdict;

pub use address::{Address, Endpoint, Peer};
pub use balance::{Counts, PeerState, Settings as Balance};
pub use error::{Error, ErrorKind};
pub use pool::{PeerStatus, Status};
pub use protocol::Protocol;
pub use remote::{Peers, Remote};
pub use settings::{Apart, Identity, Settings, Tls};
