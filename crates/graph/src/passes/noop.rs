//! Nodes that change nothing, and chains of which one node can do the work.

use std::slice::from_ref;

use salver_kernels::Attributes;
use salver_tensor::DType;

use super::rewrite::{Rewriter, Rule, reshape_target, same_items};
use crate::Error;
use crate::ir::{Dim, Item, Node, ValueId};

pub(super) const RULES: &[Rule] = &[unchanged, chain, neutral, shape_of];

type Change = Result<Option<Vec<ValueId>>, Error>;

/// Nodes whose output is their first input.
fn unchanged(rw: &mut Rewriter, node: &Node) -> Change {
    let Some(x) = node.input(0).filter(|_| node.domain.is_empty() && node.outputs.len() == 1) else {
        return Ok(None);
    };
    let dims = rw.dims(x);
    let same = match node.op.as_str() {
        "Identity" => true,
        "Cast" => node.attributes.dtype("to")? == Some(rw.dtype(x)),
        "Dropout" => node.input(2).is_none() || rw.number(node.inputs[2].unwrap_or(x)) == Some(0.0),
        "Concat" | "Max" | "Min" | "Sum" | "Mean" => node.inputs.len() == 1,
        "Transpose" => {
            let perm = node.attributes.ints("perm")?.unwrap_or_default();
            !perm.is_empty() && perm.iter().enumerate().all(|(at, &axis)| usize::try_from(axis) == Ok(at))
        }
        "Reshape" => {
            let allow_zero = node.attributes.flag("allowzero", false)?;
            let target = node.input(1).and_then(|id| rw.items(id));
            dims.zip(target).is_some_and(|(dims, target)| is_same_shape(dims, target, allow_zero))
        }
        "Expand" => {
            let target = node.input(1).and_then(|id| rw.items(id));
            dims.zip(target).is_some_and(|(dims, target)| is_within(dims, target))
        }
        "Tile" => node.input(1).and_then(|id| rw.ints(id)).is_some_and(|n| n.iter().all(|&n| n == 1)),
        "Pad" => node.input(1).and_then(|id| rw.ints(id)).is_some_and(|n| n.iter().all(|&n| n == 0)),
        "Slice" => takes_all(rw, node, x),
        "Squeeze" | "Unsqueeze" => {
            node.input(1).and_then(|id| rw.ints(id)).is_some_and(|axes| axes.is_empty())
        }
        "MaxPool" | "AveragePool" => {
            let ones = |name: &str| {
                node.attributes.ints(name).map(|ints| ints.unwrap_or_default().iter().all(|&n| n == 1))
            };
            let pads = node.attributes.ints("pads")?.unwrap_or_default();
            node.attributes.get("kernel_shape").is_some()
                && ones("kernel_shape")?
                && ones("strides")?
                && pads.iter().all(|&n| n == 0)
        }
        _ => false,
    };
    Ok(same.then(|| vec![x]))
}

/// Whether a `Reshape` to these sizes leaves these dimensions.
fn is_same_shape(dims: &[Dim], target: &[Item], allow_zero: bool) -> bool {
    if dims.len() != target.len() {
        return false;
    }
    let mut n_open = 0;
    for (dim, item) in dims.iter().zip(target) {
        match item {
            Item::Int(0) if !allow_zero => {}
            _ if *item != Item::Unknown && *item == Item::from(dim) => {}
            // All others are the same, so that this one is too.
            Item::Int(-1) => n_open += 1,
            _ => return false,
        }
    }
    n_open <= 1
}

/// Whether an `Expand` to these sizes leaves these dimensions.
fn is_within(dims: &[Dim], target: &[Item]) -> bool {
    if target.len() > dims.len() {
        return false;
    }
    let tail = &dims[dims.len() - target.len()..];
    let fits =
        |(dim, item): (&Dim, &Item)| *item == Item::Int(1) || same_items(from_ref(item), from_ref(dim));
    tail.iter().zip(target).all(fits)
}

fn takes_all(rw: &Rewriter, node: &Node, x: ValueId) -> bool {
    let ints = |at: usize| node.input(at).and_then(|id| rw.ints(id));
    let (Some(starts), Some(ends)) = (ints(1), ints(2)) else { return false };
    let steps_ok = node.input(4).is_none() || ints(4).is_some_and(|steps| steps.iter().all(|&n| n == 1));
    let axes = match node.input(3) {
        None => (0..starts.len() as i64).collect(),
        Some(_) => match ints(3) {
            Some(axes) => axes,
            None => return false,
        },
    };
    let reaches = |(&axis, &end): (&i64, &i64)| {
        let rank = rw.rank(x).unwrap_or(0);
        let at = usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok();
        let size = at.and_then(|at| rw.size(x, at)).and_then(|size| i64::try_from(size).ok());
        end >= i64::from(i32::MAX) || size.is_some_and(|size| end >= size)
    };
    steps_ok
        && starts.iter().all(|&start| start == 0)
        && axes.len() == ends.len()
        && axes.iter().zip(&ends).all(reaches)
}

/// Two nodes in a row that one can stand for.
fn chain(rw: &mut Rewriter, node: &Node) -> Change {
    let Some(x) = node.input(0).filter(|_| node.domain.is_empty()) else { return Ok(None) };
    let Some(before) = rw.maker(x).filter(|before| before.domain.is_empty()).cloned() else {
        return Ok(None);
    };
    let Some(source) = before.input(0) else { return Ok(None) };
    match (before.op.as_str(), node.op.as_str()) {
        (
            "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten",
            "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten",
        ) => reshaped_twice(rw, node, source),
        ("Transpose", "Transpose") => {
            let (Some(first), Some(second)) =
                (before.attributes.ints("perm")?, node.attributes.ints("perm")?)
            else {
                return Ok(None);
            };
            let at = |&axis: &i64| usize::try_from(axis).ok().and_then(|axis| first.get(axis).copied());
            let Some(perm) = second.iter().map(at).collect::<Option<Vec<i64>>>() else { return Ok(None) };
            let attributes = Attributes::new().with("perm", perm);
            Ok(Some(vec![rw.op(&node.name, "Transpose", &[source], attributes)?]))
        }
        ("Cast", "Cast") if is_widening(rw.dtype(source), rw.dtype(x)) => {
            Ok(Some(vec![rw.op(&node.name, "Cast", &[source], node.attributes.clone())?]))
        }
        ("Not", "Not") => Ok(Some(vec![source])),
        ("Relu", "Relu") => Ok(Some(vec![x])),
        _ => Ok(None),
    }
}

/// A change of shape after another needs only the last shape.
fn reshaped_twice(rw: &mut Rewriter, node: &Node, source: ValueId) -> Change {
    let Some(&output) = node.outputs.first() else { return Ok(None) };
    let (Some(from), Some(to)) = (rw.dims(source).map(<[Dim]>::to_vec), rw.dims(output).map(<[Dim]>::to_vec))
    else {
        return Ok(None);
    };
    let known = |dims: &[Dim]| dims.iter().all(|dim| *dim != Dim::Unknown);
    if from == to && known(&from) {
        return Ok(Some(vec![source]));
    }
    if let Some(target) = reshape_target(&to) {
        let target = rw.i64s(&target);
        return Ok(Some(vec![rw.op(&node.name, "Reshape", &[source, target], Attributes::new())?]));
    }
    // A target that is computed says all by itself, unless it refers to the shape between.
    let Some(target) = node.input(1).filter(|_| node.op == "Reshape") else { return Ok(None) };
    let refers =
        rw.items(target).is_none_or(|items| items.iter().any(|i| matches!(i, Item::Int(0) | Item::Unknown)));
    if refers || node.attributes.flag("allowzero", false)? {
        return Ok(None);
    }
    Ok(Some(vec![rw.op(&node.name, "Reshape", &[source, target], Attributes::new())?]))
}

/// Whether a cast keeps every value, so that a cast after it may be one from the start.
fn is_widening(from: DType, to: DType) -> bool {
    use DType::{BF16, Bool, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32};
    matches!(
        (from, to),
        (F16 | BF16, F32 | F64)
            | (F32, F64)
            | (Bool | U8 | I8, I16 | I32 | I64 | F32 | F64)
            | (Bool | U8, U16 | U32)
            | (U16 | I16, I32 | I64 | F32 | F64)
            | (U32 | I32, I64 | F64)
    )
}

/// Arithmetic with a neutral element: `x + 0` (which keeps all but the sign of a zero), `x * 1`, `x / 1`, `x - 0`,
/// `x ^ 1`, and choices that are already made.
fn neutral(rw: &mut Rewriter, node: &Node) -> Change {
    if !node.domain.is_empty() || node.outputs.len() != 1 {
        return Ok(None);
    }
    if node.op == "Where" {
        return chosen(rw, node);
    }
    let (Some(a), Some(b)) = (node.input(0), node.input(1).filter(|_| node.inputs.len() == 2)) else {
        return Ok(None);
    };
    let (kept, constant) = match node.op.as_str() {
        "Add" | "Mul" if rw.constant(a).is_some() => (b, a),
        "Add" | "Mul" | "Sub" | "Div" | "Pow" => (a, b),
        "And" | "Or" if rw.constant(a).is_some() => (b, a),
        "And" | "Or" => (a, b),
        _ => return Ok(None),
    };
    let want = match node.op.as_str() {
        "Add" | "Sub" | "Or" => 0.0,
        _ => 1.0,
    };
    // Of many elements all must be neutral; the result must not be larger than what is kept.
    let Some(tensor) = rw.constant(constant).filter(|tensor| tensor.n_bytes() <= 1 << 16) else {
        return Ok(None);
    };
    let rank = tensor.shape().rank();
    let dims = tensor.shape().dims().to_vec();
    let Some(all) = super::numbers(tensor) else { return Ok(None) };
    let Some(own) = rw.dims(kept) else { return Ok(None) };
    let fits = rank <= own.len()
        && dims.iter().rev().zip(own.iter().rev()).all(|(&dim, own)| dim == 1 || own.fixed() == Some(dim));
    let neutral =
        !all.is_empty() && all.iter().all(|&x| x == want) && rw.dtype(kept) == rw.dtype(node.outputs[0]);
    Ok((fits && neutral).then(|| vec![kept]))
}

fn chosen(rw: &mut Rewriter, node: &Node) -> Change {
    let (Some(condition), Some(yes), Some(no)) = (node.input(0), node.input(1), node.input(2)) else {
        return Ok(None);
    };
    let Some(flags) = rw.constant(condition).and_then(|tensor| tensor.bytes()) else { return Ok(None) };
    let picked = match (flags.first(), flags.iter().all(|flag| Some(flag) == flags.first())) {
        (Some(0), true) => no,
        (Some(_), true) => yes,
        _ => return Ok(None),
    };
    let known = rw.dims(picked).is_some_and(|dims| dims.iter().all(|dim| *dim != Dim::Unknown));
    Ok((known && rw.dims(picked) == rw.dims(node.outputs[0])).then(|| vec![picked]))
}

/// The shape of what has the same shape as something before it.
fn shape_of(rw: &mut Rewriter, node: &Node) -> Change {
    const KEEP: &[&str] = &[
        "Relu",
        "Sigmoid",
        "Tanh",
        "Exp",
        "Log",
        "Neg",
        "Abs",
        "Sqrt",
        "Softmax",
        "LogSoftmax",
        "Cast",
        "Clip",
        "Elu",
        "LeakyRelu",
        "Softplus",
        "Erf",
        "Floor",
        "Ceil",
        "Round",
        "Identity",
        "BatchNormalization",
        "LayerNormalization",
    ];
    let Some(x) = node.input(0).filter(|_| node.is("Shape") || node.is("Size")) else { return Ok(None) };
    let Some(before) = rw.maker(x).filter(|maker| maker.domain.is_empty()) else { return Ok(None) };
    match before.input(0) {
        Some(source) if KEEP.contains(&before.op.as_str()) => {
            Ok(Some(rw.same(node, &[Some(source)], node.attributes.clone())?))
        }
        _ => Ok(None),
    }
}
