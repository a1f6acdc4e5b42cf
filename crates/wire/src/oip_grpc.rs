//! The Open Inference Protocol over gRPC: inference requests, and what clients ask about models.
#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing)]

mod describe;
mod infer;

pub use describe::{
    Counter, ModelCounters, config_response, index_response, metadata_response, statistics_response,
};
pub(crate) use infer::decode_input;
pub use infer::{Contents, contents_of, decode_inputs, encode_response, output_names, priority, timeout};
