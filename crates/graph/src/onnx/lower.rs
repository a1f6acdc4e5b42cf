//! Operators of ours, and of newer operator sets, said exactly with ONNX's own of version 18.

use salver_kernels::Attributes;
use salver_tensor::DType;

use crate::ir::{Graph, Node, ValueId};
use crate::passes::dead_code;
use crate::passes::rewrite::{Own, Rewriter, Rule, walk};
use crate::{Error, SALVER};

const RULES: &[Rule] = &[floor_div, renamed, shift, swish, sparse_to_dense];

type Change = Result<Option<Vec<ValueId>>, Error>;

/// The graph with such operators replaced; `None` when it has none.
pub(super) fn lowered(graph: &Graph) -> Option<Graph> {
    let mut found = false;
    graph.body().visit(&mut |node| found |= node.domain == SALVER || node.is("Swish"));
    if !found {
        return None;
    }
    let mut graph = graph.clone();
    walk(&mut graph, RULES, Own::default());
    dead_code(&mut graph);
    Some(graph)
}

fn is_ours(node: &Node, op: &str) -> bool {
    node.domain == SALVER && node.op == op
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
}

/// Division towards minus infinity. Of integers the quotient towards zero is one too large where the two kinds of
/// remainder differ.
fn floor_div(rw: &mut Rewriter, node: &Node) -> Change {
    let (Some(a), Some(b), true) = (node.input(0), node.input(1), is_ours(node, "FloorDiv")) else {
        return Ok(None);
    };
    let (name, dtype) = (node.name.as_str(), rw.dtype(a));
    let quotient = rw.op(name, "Div", &[a, b], Attributes::new())?;
    if matches!(dtype, DType::U8 | DType::U16 | DType::U32 | DType::U64) {
        return Ok(Some(vec![quotient]));
    }
    if is_float(dtype) {
        return Ok(Some(vec![rw.op(name, "Floor", &[quotient], Attributes::new())?]));
    }
    let product = rw.op(name, "Mul", &[quotient, b], Attributes::new())?;
    let rest = rw.op(name, "Sub", &[a, product], Attributes::new())?;
    let modulo = rw.op(name, "Mod", &[a, b], Attributes::new())?;
    let same = rw.op(name, "Equal", &[rest, modulo], Attributes::new())?;
    let differ = rw.op(name, "Not", &[same], Attributes::new())?;
    let one_less = rw.op(name, "Cast", &[differ], Attributes::new().with("to", dtype))?;
    Ok(Some(vec![rw.op(name, "Sub", &[quotient, one_less], Attributes::new())?]))
}

/// Operators that ONNX has under other names. `Rint` and `Round` both take halves to even.
fn renamed(rw: &mut Rewriter, node: &Node) -> Change {
    let op = match node.op.as_str() {
        "Rint" => "Round",
        op @ ("BitwiseAnd" | "BitwiseOr" | "BitwiseXor") => op,
        _ => return Ok(None),
    };
    if node.domain != SALVER {
        return Ok(None);
    }
    rw.ops(&node.name, op, &node.inputs, Attributes::new(), 1).map(Some)
}

/// ONNX shifts unsigned integers only.
fn shift(rw: &mut Rewriter, node: &Node) -> Change {
    let direction = match node.op.as_str() {
        "LeftShift" => "LEFT",
        "RightShift" => "RIGHT",
        _ => return Ok(None),
    };
    let unsigned = node
        .input(0)
        .is_some_and(|id| matches!(rw.dtype(id), DType::U8 | DType::U16 | DType::U32 | DType::U64));
    if node.domain != SALVER || !unsigned {
        return Ok(None);
    }
    rw.ops(&node.name, "BitShift", &node.inputs, Attributes::new().with("direction", direction), 1).map(Some)
}

/// `x * sigmoid(alpha x)`, which has an operator of its own from version 24 on.
fn swish(rw: &mut Rewriter, node: &Node) -> Change {
    let Some(x) = node.input(0).filter(|_| node.is("Swish")) else { return Ok(None) };
    let alpha = node.attributes.float("alpha", 1.0)?;
    let scaled = if alpha == 1.0 {
        x
    } else {
        let alpha = rw.scalar(alpha.into(), x)?;
        rw.op(&node.name, "Mul", &[x, alpha], Attributes::new())?
    };
    let gate = rw.op(&node.name, "Sigmoid", &[scaled], Attributes::new())?;
    Ok(Some(vec![rw.op(&node.name, "Mul", &[x, gate], Attributes::new())?]))
}

/// Values at positions, one row of indices each, in a tensor full of a default.
fn sparse_to_dense(rw: &mut Rewriter, node: &Node) -> Change {
    if !is_ours(node, "SparseToDense") {
        return Ok(None);
    }
    let (Some(indices), Some(shape), Some(values), Some(default)) =
        (node.input(0), node.input(1), node.input(2), node.input(3))
    else {
        return Ok(None);
    };
    if rw.rank(indices) != Some(2) || rw.rank(values) != Some(1) || rw.dtype(values) == DType::String {
        return Ok(None);
    }
    let to_ints = || Attributes::new().with("to", DType::I64);
    let shape = rw.op(&node.name, "Cast", &[shape], to_ints())?;
    let indices = rw.op(&node.name, "Cast", &[indices], to_ints())?;
    let full = rw.op(&node.name, "Expand", &[default, shape], Attributes::new())?;
    Ok(Some(vec![rw.op(&node.name, "ScatterND", &[full, indices, values], Attributes::new())?]))
}
