//! The embedded engine: loads ONNX files and runs them on rten.
//!
//! This room knows nothing of queues, versions or wire formats. A file is read, checked, put into the form that rten
//! expects and handed over; the checks exist because rten computes in fewer element types than ONNX has and does not
//! say when that matters:
//!
//! | rten | the guard |
//! |---|---|
//! | keeps `int64` as `int32`; constants and casts saturate, arithmetic wraps | constants outside 32 bits are refused at load, but where saturation keeps the meaning (the ends of `Slice`, the bounds of `Clip`, the trip count of `Loop`); request inputs outside are refused; arithmetic that may leave 32 bits is checked in every run, or refused at load inside `If` and `Loop` |
//! | keeps `float64` as `float32` | refused at load, but for values that `float32` holds exactly or that are only cast to it |
//! | keeps `float16` as `float32` | allowed: inputs widen exactly, outputs round once; never less precise than `float16` throughout |
//! | keeps `bool` as `int32`, so that a cast of 0.5 to `bool` gives 0 | casts to `bool` become comparisons with zero; `bool` goes in as 0 and 1 and comes out as 0 and 1 |
//! | has no `bfloat16`, `int16`, `uint16`, `uint32`, `uint64`, complex or string tensors | refused at load, by name |
//! | takes `Softmax` before opset 13 as if it were 13 | rewritten to the older meaning |
//! | takes the last of equal elements in `ArgMax` and `ArgMin`, and the sign of zero to be one | rewritten |
//! | leaves an axis too many in `MatMul` by a vector | rewritten |
//! | limits boxes per batch in `NonMaxSuppression`, pads `ConvInteger` with 0 | refused at load |
//! | runs cubic `Resize` as linear | refused at load |
//! | does not look at the lengths of sequences in `GRU` and `LSTM` | refused at load |
//! | takes `auto_pad=SAME_LOWER` as `SAME_UPPER` | refused where the two differ |
//! | fails at run time when `Conv` and pooling leave attributes out | attributes are filled in with their defaults |
//! | lacks operators | all that are missing are listed in one message at load |
//! | divides by a scalar by way of its reciprocal | allowed: off by one rounding, which a quantised model may show as one step |
//! | may panic on hostile models and inputs | a panic is caught and becomes an error of that load or run |
//!
//! Values that come only from tensors' sizes (`Shape`, `Size`, indices, and small multiples of them) are taken to fit
//! 32 bits: a tensor with more elements is refused as an input.

mod bound;
mod check;
mod convert;
mod element;
mod file;
mod model;
mod normalise;
mod operators;
mod pool;
mod proto;
mod signature;
mod support;

use std::num::NonZeroUsize;
use std::sync::Arc;

use salver_engine::{Engine, Error, Format, LoadOptions, Model, ModelSource};

pub use model::RtenModel;
pub use support::{supports, supports_in};

/// The engine. Holds nothing: models own their weights, and thread pools belong to the process.
#[derive(Debug, Clone, Copy, Default)]
pub struct RtenEngine {}

impl RtenEngine {
    /// The engine.
    pub fn new() -> RtenEngine {
        RtenEngine {}
    }
}

impl Engine for RtenEngine {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn supports(&self, format: Format) -> bool {
        format == Format::Onnx
    }

    fn load(&self, source: &ModelSource, _options: &LoadOptions) -> Result<Arc<dyn Model>, Error> {
        if source.format != Format::Onnx {
            let message = format!("{} is not a format of the embedded engine", source.format);
            return Err(Error::new(salver_engine::ErrorKind::Unsupported, message)
                .at(source.path.display().to_string()));
        }
        Ok(Arc::new(RtenModel::load(&source.path)?))
    }

    fn enter(&self, threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        pool::enter(threads, body);
    }
}

/// Loads a model from the bytes of an ONNX file without external data, as [`Engine::load`] does from a path.
///
/// # Errors
/// As [`Engine::load`].
pub fn load_bytes(bytes: impl Into<bytes::Bytes>) -> Result<Arc<dyn Model>, Error> {
    Ok(Arc::new(RtenModel::from_bytes(bytes.into())?))
}

/// Loads a graph, as [`Engine::load`] does a file. Inputs have the names of their values, outputs those that the graph
/// has for them; there is one signature, and its inputs and outputs are sorted by name. The options ask nothing of this
/// engine: its threads are those of whoever enters it.
///
/// # Errors
/// As [`Engine::load`].
pub fn load_graph(graph: &salver_graph::Graph, _options: &LoadOptions) -> Result<Arc<dyn Model>, Error> {
    Ok(Arc::new(RtenModel::from_graph(graph)?))
}
