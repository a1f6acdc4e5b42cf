//! Files to messages and tensors.
//!
//! Nothing here panics on what a file holds, calls itself without bound, or reserves memory for a length that it was
//! told. A message takes at most about a hundred times the memory of its bytes, and a file at most [`MAX_BYTES`].
#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing)]

mod bundle;
mod message;
mod table;
mod tensor;
mod text;

pub use bundle::{Bundle, Entry};
pub use message::{
    MAX_BYTES, SAVED_MODEL_PB, SAVED_MODEL_PBTXT, SERVE, graph_def, meta_graph, saved_model,
    saved_model_bytes,
};
pub use table::Table;
pub use tensor::{Budget, decode_tensor, dtype_from_number, dtype_name, dtype_number, proto_dims};
pub use text::looks_like_text;

use bytes::Bytes;

use crate::Error;

/// The files of a model. The names are relative to the model's folder and separated by `/`.
pub trait Files {
    /// The whole content of a file; `None` when there is no such file. Blocks.
    ///
    /// # Errors
    /// When the file is there and cannot be read; the message names it.
    fn read(&self, name: &str) -> Result<Option<Bytes>, Error>;
}
