//! TensorFlow Serving's REST bodies: JSON to tensors and back.
//!
//! A predict request is read in one pass from the text to the tensors ([`decode_predict`]): a pull parser gives
//! one value at a time, and each goes straight into the vector that becomes the tensor. Only errors make a second
//! pass, because a body that is not JSON is reported as such whatever else is wrong with it. An answer is written
//! straight from the tensors ([`encode_predict`]).
//!
//! What differs from TensorFlow Serving on purpose:
//!
//! - `half`, `bfloat16` and `uint16` inputs are taken as numbers, and `half` and `bfloat16` outputs are written so.
//! - A number that does not fit `int8`, `uint8`, `int16` or `uint16` is refused instead of cut to its low bits.
//! - A signature without inputs is called with `{"inputs": {}}` or with `{"instances": [{}]}`, in which the number
//!   of instances says nothing.
//! - An input that has a default may be left out: of the `inputs` object, or of all instances.
//! - Text that is not UTF-8 is refused in requests (send bytes as `{"b64": "..."}`). In answers, each invalid byte
//!   sequence of a string becomes U+FFFD, so that the answer is legal JSON; an output whose name ends in `_bytes` is
//!   written as base64 and exact.
//! - Nesting and the number of elements have a bound ([`Limits`]).
//! - Of a key that comes twice in an instance the first counts, as everywhere else.
#![cfg_attr(
    not(test),
    deny(clippy::cast_possible_truncation, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod column;
mod decode;
mod encode;
mod examples;
mod pages;
mod scalar;
mod text;

pub(crate) mod number;

pub use decode::{Decoded, Format, check_request, decode_predict};
pub use encode::encode_predict;
pub use examples::{Examples, decode_examples, encode_classify, encode_regress};
pub use number::NonFinite;
pub use pages::{error_body, metadata_body, models_body, status_body};

pub(crate) use column::{Column, column};
pub(crate) use decode::read_tensors;
pub(crate) use encode::{Style, write_list, write_string};
pub(crate) use scalar::Scalar;
pub(crate) use text::Text;

/// Bounds on what a request may ask for. The size of the body is bounded before it comes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How deep lists and objects may be nested, the outermost object included.
    pub max_depth: usize,
    /// How many elements one tensor may have.
    pub max_elements: usize,
}

impl Default for Limits {
    /// 64 levels; 2^28 elements.
    fn default() -> Limits {
        Limits { max_depth: 64, max_elements: 1 << 28 }
    }
}

#[cfg(test)]
mod tests;
