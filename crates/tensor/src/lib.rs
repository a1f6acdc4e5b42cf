//! Element types, shapes and tensors: the values that every room passes on.
//!
//! This room knows nothing of models, serialisation formats or threads. A [`Tensor`] is an element type
//! ([`DType`]), a checked [`Shape`] and shared, immutable bytes; taking rows of a tensor or cloning it copies no
//! elements. The bytes are little-endian and may lie at any address, because a tensor is usually a slice of the
//! buffer that a request was received in; [`Tensor::as_slice`] says whether they can be used in place.
//!
//! A [`Signature`] describes tensors without holding any: names, element types and dimensions of what goes into a
//! computation and what comes out. It lies here because engines, fronts and decoders all speak of it and none of
//! them may see another.

#[cfg(target_endian = "big")]
compile_error!(
    "tensors are shared as little-endian bytes; a big-endian machine needs a conversion at every seam"
);

mod dtype;
mod element;
mod shape;
mod signature;
mod tensor;

pub use dtype::DType;
pub use element::Element;
pub use shape::{MAX_RANK, Shape, ShapeError};
pub use signature::{DEFAULT_SIGNATURE, Dims, Signature, TensorSpec};
pub use tensor::{Tensor, TensorError};
