//! TensorFlow's operators in terms of ONNX's and of the domain `salver`.
//!
//! Everything that is a pure function of tensors is here, one table per family. What has resources, control flow or
//! functions is the importer's. Data stays in TensorFlow's layout (channels last) with a transposition around each
//! ONNX operator that wants channels first; passes of the graph cancel them.

mod attributes;
mod context;
mod conv;
mod elementwise;
mod image;
mod index;
mod matrix;
mod norm;
mod pool;
mod reduce;
mod resample;
mod shape;
mod slice;
mod table;
mod text;

pub use attributes::View;
pub use table::{documentation, is_known};

use salver_graph::{Builder, ValueId};

use crate::Error;
use crate::read::Budget;
use context::Context;

/// Adds what computes one node of a TensorFlow graph, and gives its outputs in TensorFlow's order. An input that is a
/// variable's resource is given as the variable's value.
///
/// # Errors
/// [`ErrorKind::Unsupported`](crate::ErrorKind) when the operator is not known (see [`is_known`]) or not with these
/// attributes, types or shapes; `Invalid` when inputs do not fit it. The error names the node.
pub fn map(
    builder: &mut Builder,
    budget: &Budget,
    node: &View<'_>,
    inputs: &[ValueId],
) -> Result<Vec<ValueId>, Error> {
    let place = || format!("{} node '{}'", node.op, node.name);
    let Some(entry) = table::find(node.op) else {
        return Err(Error::unsupported(format!("operator {} is not supported", node.op)).at(place()));
    };
    let mut context = Context { builder, budget, node, inputs };
    (entry.map)(&mut context).map_err(|error| error.at(place()))
}

#[cfg(test)]
mod tests;
