//! The Open Inference Protocol over REST: inference requests with JSON or binary tensors, and what clients ask about
//! servers and models.
//!
//! [`Infer::decode`] reads a request without knowing the model, because the request says what its tensors are;
//! [`Infer::bind`] then fits it to a signature. In a request with binary tensors a JSON header comes first, whose length
//! is in the HTTP header [`HEADER_LEN`], and the tensors' bytes follow in the order of the inputs; they stay slices of
//! the body. Byte strings have their length as four little-endian bytes before them.
//!
//! What is taken beyond the protocol: numbers for `FP16` and `BF16`, the names `NaN` and `Infinity` for numbers, and
//! `{"b64": "..."}` for byte strings. Parameters with no meaning here are left aside.
#![cfg_attr(
    not(test),
    deny(clippy::cast_possible_truncation, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod describe;
pub(crate) mod request;
mod response;

pub use describe::{config_body, index_body, metadata_body, server_body, statistics_body};
pub use request::{Infer, RequestedOutput};
pub use response::Response;

/// The HTTP header that says how long the JSON part of a body with binary tensors is.
pub const HEADER_LEN: &str = "Inference-Header-Content-Length";

#[cfg(test)]
mod tests;
