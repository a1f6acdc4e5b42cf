//! Engines called directly, as a small program without Salver calls them: what Salver's own share of a run is measured
//! against.
//!
//! Each module has `open`, which loads a model for a number of threads: the ONNX file that `salver convert` writes of it,
//! and for TensorFlow the SavedModel itself. Outputs come in the order of their
//! names.

pub(crate) mod onnxruntime;
pub(crate) mod openvino;
pub(crate) mod rten;
pub(crate) mod tensorflow;

use anyhow::Result;
use salver_tensor::Tensor;

/// One model, ready to be run on one thread: all its inputs to all its outputs.
pub(crate) type Direct = Box<dyn FnMut(&[Tensor]) -> Result<Vec<Tensor>>>;
