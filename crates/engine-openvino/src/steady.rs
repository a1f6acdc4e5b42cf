//! Whether a run can fail on inputs of the same shapes as those of one that did not.

use std::collections::HashSet;

use salver_graph::{Block, Graph, Node, ValueId};
use salver_tensor::DType;

/// What a model's runs depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steadiness {
    /// The shapes of the inputs say which shapes all values have, and no value is a position: a run fails for its shapes or
    /// not at all.
    Shapes,
    /// Values of the inputs say it, too.
    Values,
}

/// What the runs of a graph depend on.
pub(crate) fn of(graph: &Graph) -> Steadiness {
    let mut used = HashSet::new();
    mark(graph.body(), &mut used);
    let is_number = |id: &ValueId| is_float(graph, *id);
    let is_steady = graph.inputs().iter().all(is_number)
        && graph.body().nodes.iter().all(|node| keeps(graph, node, &used));
    if is_steady { Steadiness::Shapes } else { Steadiness::Values }
}

fn mark(block: &Block, used: &mut HashSet<ValueId>) {
    for node in &block.nodes {
        used.extend(node.present_inputs());
    }
}

fn is_float(graph: &Graph, id: ValueId) -> bool {
    matches!(graph.value(id).dtype, DType::F32 | DType::F16)
}

/// Whether nothing that later nodes may take for a size or a position comes from the values of this node's inputs.
fn keeps(graph: &Graph, node: &Node, used: &HashSet<ValueId>) -> bool {
    const BY_VALUES: &[&str] = &["Compress", "NonMaxSuppression", "NonZero", "Unique"];
    let is_whole = |id: ValueId| matches!(graph.value(id).dtype, DType::I32 | DType::I64);
    let from_shapes = matches!(node.op.as_str(), "Shape" | "Size")
        || node.present_inputs().all(|id| is_whole(id) || is_given(graph, id));
    node.blocks.is_empty()
        && !BY_VALUES.contains(&node.op.as_str())
        && (from_shapes || node.outputs.iter().all(|id| !is_whole(*id) || !used.contains(id)))
}

fn is_given(graph: &Graph, id: ValueId) -> bool {
    graph.value(id).constant.is_some()
}

#[cfg(test)]
mod tests {
    use salver_graph::{Attributes, Builder, Dim};

    use super::*;

    #[test]
    fn what_sizes_and_positions_come_from_is_told() {
        let check = |dtype: DType, make: &dyn Fn(&mut Builder, ValueId) -> ValueId| {
            let mut b = Builder::new();
            let x = b.input("x", dtype, Some(vec![Dim::symbol("n"), Dim::Unknown]));
            let y = make(&mut b, x);
            of(&b.finish(&[("y", y)]).unwrap())
        };
        let none = Attributes::new;
        let reshaped = |b: &mut Builder, x| {
            let shape = b.op("s", "Shape", &[x], none()).unwrap();
            let y = b.op("e", "Exp", &[x], none()).unwrap();
            b.op("r", "Reshape", &[y, shape], none()).unwrap()
        };
        let best = |b: &mut Builder, x| b.op("a", "ArgMax", &[x], none()).unwrap();
        let picked = |b: &mut Builder, x| {
            let at = b.op("a", "ArgMax", &[x], none()).unwrap();
            b.op("g", "Gather", &[x, at], none()).unwrap()
        };
        let found = |b: &mut Builder, x| b.op("z", "NonZero", &[x], none()).unwrap();
        let looked_up = |b: &mut Builder, x| {
            let table = b.constant(
                "t",
                salver_tensor::Tensor::from_vec(salver_tensor::Shape::vector(2).unwrap(), vec![1f32, 2.0])
                    .unwrap(),
            );
            b.op("g", "Gather", &[table, x], none()).unwrap()
        };
        assert_eq!(check(DType::F32, &reshaped), Steadiness::Shapes);
        assert_eq!(check(DType::F32, &best), Steadiness::Shapes);
        assert_eq!(check(DType::F32, &picked), Steadiness::Values);
        assert_eq!(check(DType::F32, &found), Steadiness::Values);
        assert_eq!(check(DType::I64, &looked_up), Steadiness::Values);
    }
}
