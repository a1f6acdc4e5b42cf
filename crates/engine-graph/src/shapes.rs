//! Graphs that compute the same whatever the shapes of their inputs are.

use salver_graph::{Graph, Node};

/// Operators that take each element for itself.
const ELEMENTWISE: [&str; 26] = [
    "Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Equal", "Exp", "Floor", "Greater", "Identity", "Less",
    "Log", "Max", "Min", "Mul", "Neg", "Not", "Pow", "Relu", "Round", "Sigmoid", "Sqrt", "Sub", "Tanh",
    "Where",
];

/// Whether a graph takes each element of its inputs for itself, with single numbers beside. What the graph says of its
/// inputs' dimensions plays no part in the result then.
///
/// TensorFlow holds no model to its shapes, and the models that clients try a server with count on it: they say that they
/// take one number and are given many.
pub(crate) fn is_elementwise(graph: &Graph) -> bool {
    let is_one = |at: usize| {
        let value = &graph.values()[at];
        value.constant.as_ref().is_none_or(|constant| constant.shape().n_elements() == 1)
    };
    let of_elements = |node: &Node| {
        node.domain.is_empty()
            && ELEMENTWISE.contains(&node.op.as_str())
            && node.present_inputs().all(|id| is_one(id.index()))
    };
    let mut outputs = graph.outputs();
    graph.body().nodes.iter().all(of_elements) && outputs.all(|(_, id)| graph.value(id).constant.is_none())
}
