//! One checked, ONNX-shaped graph: what every imported model becomes.
//!
//! Importers make a [`Graph`] with a [`Builder`], which checks each node as it is added, infers element types and
//! dimensions and folds constants. Passes rewrite it, [`onnx`] writes and reads it. Operators are those of ONNX's
//! operator set [`OPSET`] and of the domain [`SALVER`]; element types are exact, whatever engines can hold.
//!
//! This room knows nothing of engines, sessions, files or threads. [`fn@evaluate`] says what a graph means, node by node;
//! it is for folding and for tests.

mod builder;
mod cost;
mod error;
mod evaluate;
mod extract;
mod infer;
mod ir;
mod model;
pub mod onnx;
mod passes;
mod quantise;
mod verify;

#[expect(clippy::enum_variant_names, reason = "generated")]
mod generated {
    pub mod onnx;
}

pub use builder::Builder;
pub use cost::{NodeCost, cost};
pub use error::{Error, ErrorKind};
pub use evaluate::evaluate;
pub use ir::{Block, Dim, Graph, Item, Node, Value, ValueId, signature_dims};
pub use model::{Model, Port, SignatureGraph, State};
pub use passes::{Passes, loops_that_stay, optimise};
pub use quantise::{MIN_WEIGHTS, Range, Ranges, Report, calibration_points, fingerprint, quantise};
pub use salver_kernels::{Attribute, Attributes, SALVER};
pub use verify::verify;

/// The version of ONNX's operators that graphs are made of.
pub const OPSET: i64 = 18;

/// How deep blocks may nest.
pub const MAX_DEPTH: usize = 16;
