//! Checks of every run: a second, approximate computation in `float32` of what the engine computes in 32 bits shows
//! when the exact result would not fit.

use rten::Value;
use rten_tensor::prelude::*;
use salver_engine::{Error, ErrorKind};

use crate::element::Elem;
use crate::proto::NodeExt;
use salver_graph::onnx::proto::type_proto::{Tensor as TensorType, Value as Type};
use salver_graph::onnx::proto::{NodeProto, TypeProto, ValueInfoProto};

/// How a result is watched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guarded {
    pub(super) shadow: Shadow,
    /// The largest magnitude that is let through.
    pub(super) limit: f32,
}

/// What is computed beside the result.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shadow {
    /// The magnitude of the input.
    Magnitude,
    /// The same operator on operands cast to `float32`.
    OfCasts,
    /// The same operator on the magnitudes of the operands cast to `float32`.
    OfMagnitudes,
}

impl Guarded {
    /// For values that are not computed with: the largest `float32` below 2^31.
    pub(super) const EXACT: f32 = 2_147_483_520.0;
    /// For one operation on operands of 32 bits: rounding is off by less than 2^12.
    pub(super) const NEAR: f32 = 2_147_479_552.0;
    /// For many operations: half of what fits.
    pub(super) const FAR: f32 = 1_073_741_824.0;
}

/// One check of every run.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    place: String,
    output: String,
    limit: f32,
}

impl Guard {
    /// The guard of a node and the nodes that compute what it looks at.
    pub(super) fn new(
        node: &NodeProto,
        guarded: Guarded,
        place: &str,
        number: usize,
    ) -> (Guard, Vec<NodeProto>) {
        let output = format!("salver.guard.{number}");
        let mut nodes = Vec::new();
        let first = node.input.first().cloned().unwrap_or_default();
        match guarded.shadow {
            Shadow::Magnitude => nodes.push(NodeProto::new("Abs", &[&first], &output)),
            Shadow::OfCasts | Shadow::OfMagnitudes => {
                let mut shadow = node.clone();
                let n_operands = match node.op() {
                    "CumSum" => 1,
                    op if op.starts_with("Reduce") => 1,
                    _ => node.input.len(),
                };
                for (at, input) in shadow.input.iter_mut().enumerate().take(n_operands) {
                    let cast = format!("{output}.cast.{at}");
                    let mut node = NodeProto::new("Cast", &[input], &cast);
                    node.set_int("to", Elem::Float as i64);
                    nodes.push(node);
                    *input = cast;
                    if matches!(guarded.shadow, Shadow::OfMagnitudes) {
                        let magnitude = format!("{output}.abs.{at}");
                        nodes.push(NodeProto::new("Abs", &[input], &magnitude));
                        *input = magnitude;
                    }
                }
                shadow.name = Some(output.clone());
                shadow.output = vec![output.clone()];
                nodes.push(shadow);
            }
        }
        (Guard { place: place.to_owned(), output, limit: guarded.limit }, nodes)
    }

    /// The output of the graph that the guard looks at.
    pub(super) fn output(&self) -> ValueInfoProto {
        let tensor = TensorType { elem_type: Some(Elem::Float.into()), shape: None };
        let r#type = TypeProto { value: Some(Type::TensorType(tensor)), ..Default::default() };
        ValueInfoProto { name: Some(self.output.clone()), r#type: Some(r#type), ..Default::default() }
    }

    /// Looks at the value of one run. A NaN passes: a cast of it to a whole number means nothing anywhere.
    pub(crate) fn check(&self, value: Value) -> Result<(), Error> {
        let Value::FloatTensor(tensor) = value else {
            return Err(Error::new(ErrorKind::Internal, "a guard got no float32").at(self.place.clone()));
        };
        match tensor.iter().find(|x| x.abs() > self.limit) {
            None => Ok(()),
            Some(value) => Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "its int64 result is about {value:e}, which leaves the 32 bits that the embedded engine computes in"
                ),
            )
            .at(self.place.clone())),
        }
    }
}
