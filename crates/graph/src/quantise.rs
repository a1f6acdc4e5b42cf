//! Static quantisation: products and convolutions in `int8`, by ranges that values took in runs that were looked at.
//!
//! The result is in the form that ONNX calls QDQ: `QuantizeLinear` and `DequantizeLinear` stand around values and before
//! weights, operators stay those of floats. Engines that have `int8` kernels fuse each operator with what stands around
//! it; what the graph means is what [`crate::evaluate()`] computes.
//!
//! The scheme is that of Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference" (2017), with a scale for each output channel: activations are `uint8` with one
//! scale and a zero point, from a range that always holds 0; weights are `int8` without zero point, one scale for each
//! output channel; biases are `int32` in steps of both scales multiplied.
//!
//! What becomes `int8`, in the outermost block only:
//! - `Conv` of `float32` with constant weights and bias. It stays as it is when what it gives (behind a `Relu` or `Clip`)
//!   is an output of the graph or used inside a body, since engines compute in `int8` only what they give in `int8`.
//! - `Gemm` and `MatMul` of `float32` with a constant matrix of [`MIN_WEIGHTS`] elements or more. What they give stays
//!   in floats unless another one takes it, so that the last layer's results are not rounded to 256 steps.
//! - What lies between: `Concat`, `Add`, `AveragePool` and `GlobalAveragePool` of values that are there in `int8`
//!   already, and what only moves elements, where one of the above takes the result.
//!
//! Everything else stays: recurrent layers, `ConvTranspose`, normalisation, `Softmax`, products of two activations. So does
//! what takes a value that was not measured, always the same, or not finite.

mod plan;
mod ranges;
mod write;

use crate::{Error, Graph, SignatureGraph, ValueId};

use plan::Plan;
pub use ranges::{Range, Ranges};

/// Products with a matrix of fewer elements stay in floats: converting costs more than it saves.
pub const MIN_WEIGHTS: usize = 1024;

/// What [`quantise`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Products and convolutions that are in `int8` now, by node name.
    pub quantised: Vec<String>,
    /// Products and convolutions that stay in floats, by node name, and why.
    pub kept: Vec<(String, &'static str)>,
}

/// The values whose ranges [`quantise`] needs, in the graph's order. It is to be given the same graph, as it is after the
/// passes.
pub fn calibration_points(graph: &Graph) -> Vec<ValueId> {
    Plan::new(graph, &|_| true).measured()
}

/// The same graph with products and convolutions in `int8`, and what became of each. The result must not go through the
/// passes again.
///
/// # Errors
/// When the ranges were measured on another graph.
pub fn quantise(graph: &Graph, ranges: &Ranges) -> Result<(Graph, Report), Error> {
    if ranges.fingerprint != fingerprint(graph) {
        return Err(Error::invalid(
            "the ranges were measured on another model or by another version of Salver",
        ));
    }
    let range = |id: ValueId| ranges.get(&graph.value(id).name).filter(Range::is_usable);
    let plan = Plan::new(graph, &|id| range(id).is_some());
    let quantised = write::written(graph, &plan, &range)?;
    debug_assert!(
        crate::verify(&quantised).is_ok() || crate::verify(graph).is_err(),
        "quantising keeps a graph whole: {:?}",
        crate::verify(&quantised)
    );
    Ok((quantised, plan.report(graph)))
}

/// A number for what [`quantise`] would make of a graph: names of values, operators with their
/// attributes, and weights. Two graphs
/// with the same one can be quantised by the same ranges.
pub fn fingerprint(graph: &Graph) -> u128 {
    plan::fingerprint(graph, &Plan::new(graph, &|_| true))
}

impl SignatureGraph {
    /// The same signature with the values at [`calibration_points`] as further outputs, and these values' names by the
    /// names of the outputs. The graph must be as it is after the passes.
    pub fn with_calibration_points(&self) -> (SignatureGraph, Vec<(String, String)>) {
        let mut signature = self.clone();
        let mut names = Vec::new();
        for id in calibration_points(&self.graph) {
            let value = self.graph.value(id);
            let mut name = format!("range of {}", value.name);
            while self.outputs.iter().any(|port| port.name == name) {
                name.push('\'');
            }
            signature.outputs.push(crate::Port {
                name: name.clone(),
                tensor_name: value.name.clone(),
                value: id,
                dtype: value.dtype,
                dims: crate::signature_dims(value.dims.as_deref()),
                default: None,
            });
            signature.graph.body.outputs.push(id);
            signature.graph.output_names.push(name.clone());
            names.push((name, value.name.clone()));
        }
        (signature, names)
    }
}

#[cfg(test)]
mod tests;
