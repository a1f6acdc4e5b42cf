//! Transposes move towards the outputs until they meet one that undoes them.
//!
//! A `Transpose` before a node becomes one after it wherever the node can work in the other order of dimensions. A
//! network that was written with channels last, and imported with a `Transpose` before and after each convolution, is
//! left with one at its input.

use salver_kernels::Attributes;

use super::layout_ops;
use super::rewrite::{Rewriter, Rule, reshape_target};
use crate::Error;
use crate::ir::{Dim, Node, ValueId};

pub(super) const RULES: &[Rule] = &[
    of_units,
    elementwise,
    layout_ops::reduce,
    layout_ops::along_axis,
    layout_ops::concat,
    layout_ops::split,
    layout_ops::slice,
    layout_ops::pad,
    layout_ops::squeeze,
    layout_ops::unsqueeze,
    layout_ops::resize,
    layout_ops::tile,
    layout_ops::gather,
    layout_ops::shape,
    layout_ops::flattened_matmul,
];

/// What is tried when nothing else changes any more.
pub(super) const LAST_RULES: &[Rule] = &[left_of_units];

pub(super) type Change = Result<Option<Vec<ValueId>>, Error>;

/// Operators of one input that work on each element for itself.
const UNARY: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
];

/// Operators that broadcast their inputs and work on each element.
const BROADCASTING: &[&str] = &[
    "Add",
    "And",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
];

/// A value as a `Transpose` of another: output dimension `i` is dimension `perm[i]` of `source`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Turned {
    pub(super) source: ValueId,
    pub(super) perm: Vec<usize>,
}

impl Turned {
    pub(super) fn of(rw: &Rewriter, id: ValueId) -> Option<Turned> {
        let node = rw.made_by(id, "Transpose")?;
        let source = node.input(0)?;
        let perm = node.attributes.ints("perm").ok()??;
        let perm = perm.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<Vec<_>>>()?;
        is_order(&perm).then_some(Turned { source, perm })
    }

    /// The dimension of the source that an axis, counted from the end when negative, stands for.
    pub(super) fn axis(&self, axis: i64) -> Option<usize> {
        let rank = i64::try_from(self.perm.len()).ok()?;
        let at = usize::try_from(if axis < 0 { axis.checked_add(rank)? } else { axis }).ok()?;
        self.perm.get(at).copied()
    }

    /// Where each dimension of the source goes.
    pub(super) fn inverse(&self) -> Vec<usize> {
        inverse(&self.perm)
    }
}

fn is_order(perm: &[usize]) -> bool {
    let mut seen = vec![false; perm.len()];
    perm.iter().all(|&axis| axis < seen.len() && !std::mem::replace(&mut seen[axis], true))
}

pub(super) fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    for (at, &axis) in perm.iter().enumerate() {
        inverse[axis] = at;
    }
    inverse
}

/// The order of numbers that need not be next to each other: `[4, 1, 3]` gives `[2, 0, 1]`.
pub(super) fn ranks(axes: &[usize]) -> Vec<usize> {
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    axes.iter().map(|axis| sorted.partition_point(|other| other < axis)).collect()
}

pub(super) fn transpose(rw: &mut Rewriter, name: &str, x: ValueId, perm: &[usize]) -> Result<ValueId, Error> {
    if perm.iter().enumerate().all(|(at, &axis)| at == axis) {
        return Ok(x);
    }
    let perm: Vec<i64> = perm.iter().map(|&axis| axis as i64).collect();
    rw.op(name, "Transpose", &[x], Attributes::new().with("perm", perm))
}

/// A value that takes the place of `id` where everything else loses a `Transpose` by `perm`: its own source when it is
/// turned the same way, a constant turned back, or a value that can be turned by a `Reshape`.
pub(super) fn turned_back(rw: &mut Rewriter, id: ValueId, perm: &[usize]) -> Result<Option<ValueId>, Error> {
    if let Some(turned) = Turned::of(rw, id).filter(|turned| turned.perm == perm) {
        return Ok(Some(turned.source));
    }
    let Some(dims) = rw.dims(id).map(<[Dim]>::to_vec) else { return Ok(None) };
    if dims.len() > perm.len() {
        return Ok(None);
    }
    if dims.iter().all(|dim| *dim == Dim::Fixed(1)) {
        return Ok(Some(id));
    }
    let mut full = vec![Dim::Fixed(1); perm.len() - dims.len()];
    full.extend(dims.iter().cloned());
    let back = inverse(perm);
    let target: Vec<Dim> = back.iter().map(|&axis| full[axis].clone()).collect();
    let is_constant = rw.constant(id).is_some();
    if !is_constant || keeps_order(&full, &back) {
        if !keeps_order(&full, &back) {
            return Ok(None);
        }
        let Some(target) = reshape_target(&target) else { return Ok(None) };
        let target = rw.i64s(&target);
        return rw.op("turned", "Reshape", &[id, target], Attributes::new()).map(Some);
    }
    let Some(shape) = reshape_target(&full) else { return Ok(None) };
    let shape = rw.i64s(&shape);
    let wide = rw.op("wide", "Reshape", &[id, shape], Attributes::new())?;
    let turned = transpose(rw, "turned", wide, &back)?;
    Ok(rw.constant(turned).is_some().then_some(turned))
}

/// Whether a `Transpose` by `perm` moves dimensions of size 1 only past others, so that elements stay in order.
fn keeps_order(dims: &[Dim], perm: &[usize]) -> bool {
    let moved: Vec<usize> = perm.iter().copied().filter(|&axis| dims[axis] != Dim::Fixed(1)).collect();
    moved.is_sorted()
}

/// What a `Transpose` reads and what it makes of the dimensions, if it moves only dimensions of size 1.
fn unit_transpose(rw: &Rewriter, node: &Node) -> Result<Option<(ValueId, Vec<Dim>)>, Error> {
    let (Some(x), true) = (node.input(0), node.is("Transpose")) else { return Ok(None) };
    let Some(perm) = node.attributes.ints("perm")? else { return Ok(None) };
    let perm: Vec<usize> = perm.iter().filter_map(|&axis| usize::try_from(axis).ok()).collect();
    let dims = rw.dims(x).filter(|dims| dims.len() == perm.len() && is_order(&perm));
    let Some(dims) = dims.filter(|dims| keeps_order(dims, &perm)) else { return Ok(None) };
    Ok(Some((x, perm.iter().map(|&axis| dims[axis].clone()).collect())))
}

fn reshape_to(rw: &mut Rewriter, name: &str, x: ValueId, dims: &[Dim]) -> Change {
    let Some(target) = reshape_target(dims) else { return Ok(None) };
    let target = rw.i64s(&target);
    Ok(Some(vec![rw.op(name, "Reshape", &[x, target], Attributes::new())?]))
}

/// A `Transpose` that moves only dimensions of size 1, next to a change of shape, is part of that.
fn of_units(rw: &mut Rewriter, node: &Node) -> Change {
    const SHAPING: &[&str] = &["Reshape", "Squeeze", "Unsqueeze", "Flatten"];
    let Some(x) = node.input(0).filter(|_| node.domain.is_empty()) else { return Ok(None) };
    let Some(before) = rw.maker(x).filter(|maker| maker.domain.is_empty()).cloned() else { return Ok(None) };
    if SHAPING.contains(&node.op.as_str())
        && let Some((source, _)) = unit_transpose(rw, &before)?
        && let Some(dims) = rw.dims(node.outputs[0]).map(<[Dim]>::to_vec)
    {
        return reshape_to(rw, &node.name, source, &dims);
    }
    match unit_transpose(rw, node)? {
        Some((x, dims)) if SHAPING.contains(&before.op.as_str()) => reshape_to(rw, &node.name, x, &dims),
        _ => Ok(None),
    }
}

/// Any other such `Transpose`, when no more of them move.
fn left_of_units(rw: &mut Rewriter, node: &Node) -> Change {
    match unit_transpose(rw, node)? {
        Some((x, dims)) => reshape_to(rw, &node.name, x, &dims),
        None => Ok(None),
    }
}

fn elementwise(rw: &mut Rewriter, node: &Node) -> Change {
    if !node.domain.is_empty() || node.outputs.len() != 1 {
        return Ok(None);
    }
    let op = node.op.as_str();
    if UNARY.contains(&op) {
        let Some(turned) = node.input(0).and_then(|x| Turned::of(rw, x)) else { return Ok(None) };
        let mut inputs = node.inputs.clone();
        inputs[0] = Some(turned.source);
        let y = rw.same(node, &inputs, node.attributes.clone())?[0];
        return Ok(Some(vec![transpose(rw, &node.name, y, &turned.perm)?]));
    }
    if !BROADCASTING.contains(&op) {
        return Ok(None);
    }
    let Some(rank) = rw.rank(node.outputs[0]) else { return Ok(None) };
    let turned = node.present_inputs().find_map(|id| Turned::of(rw, id).filter(|t| t.perm.len() == rank));
    let Some(perm) = turned.map(|turned| turned.perm) else { return Ok(None) };
    let mut inputs = Vec::with_capacity(node.inputs.len());
    for id in &node.inputs {
        let Some(id) = id else { return Ok(None) };
        let Some(back) = turned_back(rw, *id, &perm)? else { return Ok(None) };
        inputs.push(Some(back));
    }
    let y = rw.same(node, &inputs, node.attributes.clone())?[0];
    Ok(Some(vec![transpose(rw, &node.name, y, &perm)?]))
}
