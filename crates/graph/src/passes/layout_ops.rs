//! Operators with axes before which a `Transpose` can be taken away.

use salver_kernels::Attributes;

use super::layout::{Change, Turned, inverse, ranks, transpose, turned_back};
use super::rewrite::Rewriter;
use crate::Error;
use crate::ir::{Dim, Node, ValueId};

fn as_ints(axes: &[usize]) -> Vec<i64> {
    axes.iter().map(|&axis| axis as i64).collect()
}

/// The first input, if it is turned.
fn first(rw: &Rewriter, node: &Node) -> Option<Turned> {
    Turned::of(rw, node.input(0)?)
}

fn is_one_of(node: &Node, ops: &[&str]) -> bool {
    node.domain.is_empty() && ops.contains(&node.op.as_str())
}

/// The order of the dimensions that stay when `gone` of the source go.
fn remaining(turned: &Turned, gone: &[usize]) -> Vec<usize> {
    let kept: Vec<usize> = turned.perm.iter().copied().filter(|axis| !gone.contains(axis)).collect();
    ranks(&kept)
}

pub(super) fn reduce(rw: &mut Rewriter, node: &Node) -> Change {
    let is_arg = is_one_of(node, &["ArgMax", "ArgMin"]);
    if !(is_arg || node.domain.is_empty() && node.op.starts_with("Reduce")) {
        return Ok(None);
    }
    let Some(turned) = first(rw, node) else { return Ok(None) };
    let axes = if is_arg {
        Some(vec![node.attributes.int("axis", 0)?])
    } else {
        match node.input(1) {
            None if node.attributes.flag("noop_with_empty_axes", false)? => return Ok(None),
            None => Some((0..turned.perm.len() as i64).collect()),
            Some(axes) => rw.ints(axes).filter(|axes| !axes.is_empty()),
        }
    };
    let Some(axes) = axes.and_then(|axes| axes.iter().map(|&a| turned.axis(a)).collect::<Option<Vec<_>>>())
    else {
        return Ok(None);
    };
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    let y = if is_arg {
        let attributes = node.attributes.clone().with("axis", sorted[0] as i64);
        rw.same(node, &[Some(turned.source)], attributes)?[0]
    } else {
        let axes = rw.i64s(&as_ints(&sorted));
        rw.same(node, &[Some(turned.source), Some(axes)], node.attributes.clone())?[0]
    };
    let keep = node.attributes.flag("keepdims", true)?;
    let perm = if keep { turned.perm.clone() } else { remaining(&turned, &axes) };
    Ok(Some(vec![transpose(rw, &node.name, y, &perm)?]))
}

/// Operators that work along one axis and keep the shape.
pub(super) fn along_axis(rw: &mut Rewriter, node: &Node) -> Change {
    let default = match node.op.as_str() {
        "Softmax" | "LogSoftmax" | "Hardmax" | "LpNormalization" if node.domain.is_empty() => -1,
        "CumSum" if node.domain.is_empty() => 0,
        _ => return Ok(None),
    };
    let Some(turned) = first(rw, node) else { return Ok(None) };
    let axis = match node.input(1) {
        Some(axis) => rw.ints(axis).and_then(|axis| axis.first().copied()),
        None => Some(node.attributes.int("axis", default)?),
    };
    let Some(axis) = axis.and_then(|axis| turned.axis(axis)) else { return Ok(None) };
    let y = if node.op == "CumSum" {
        let axis = rw.i64s(&[axis as i64]);
        let shape = rw.i64s(&[]);
        let axis = rw.op("axis", "Reshape", &[axis, shape], Attributes::new())?;
        rw.same(node, &[Some(turned.source), Some(axis)], node.attributes.clone())?[0]
    } else {
        rw.same(node, &[Some(turned.source)], node.attributes.clone().with("axis", axis as i64))?[0]
    };
    Ok(Some(vec![transpose(rw, &node.name, y, &turned.perm)?]))
}

pub(super) fn concat(rw: &mut Rewriter, node: &Node) -> Change {
    if !is_one_of(node, &["Concat"]) {
        return Ok(None);
    }
    let turned: Vec<Option<Turned>> = node.present_inputs().map(|id| Turned::of(rw, id)).collect();
    let Some(like) = turned.iter().flatten().next().cloned() else { return Ok(None) };
    let Some(axis) = like.axis(node.attributes.int("axis", 0)?) else { return Ok(None) };
    let mut inputs = Vec::with_capacity(node.inputs.len());
    for id in node.present_inputs() {
        // Unlike broadcasting, every part needs all its dimensions.
        if rw.rank(id) != Some(like.perm.len()) {
            return Ok(None);
        }
        let all_ones = rw.dims(id).is_some_and(|dims| dims.iter().all(|dim| *dim == Dim::Fixed(1)));
        let back = if all_ones { Some(id) } else { turned_back(rw, id, &like.perm)? };
        let Some(back) = back else { return Ok(None) };
        inputs.push(Some(back));
    }
    let y = rw.same(node, &inputs, node.attributes.clone().with("axis", axis as i64))?[0];
    Ok(Some(vec![transpose(rw, &node.name, y, &like.perm)?]))
}

pub(super) fn split(rw: &mut Rewriter, node: &Node) -> Change {
    if !is_one_of(node, &["Split"]) {
        return Ok(None);
    }
    let Some(turned) = first(rw, node) else { return Ok(None) };
    let Some(axis) = turned.axis(node.attributes.int("axis", 0)?) else { return Ok(None) };
    let mut inputs = node.inputs.clone();
    inputs[0] = Some(turned.source);
    let parts = rw.same(node, &inputs, node.attributes.clone().with("axis", axis as i64))?;
    parts.into_iter().map(|y| transpose(rw, &node.name, y, &turned.perm)).collect::<Result<_, _>>().map(Some)
}

pub(super) fn slice(rw: &mut Rewriter, node: &Node) -> Change {
    if !is_one_of(node, &["Slice"]) {
        return Ok(None);
    }
    let Some(turned) = first(rw, node) else { return Ok(None) };
    let n = node.input(1).and_then(|id| rw.size(id, 0)).unwrap_or(0);
    let axes = match node.input(3) {
        None => Some((0..n as i64).collect()),
        Some(axes) => rw.ints(axes),
    };
    let axes = axes.and_then(|axes| axes.iter().map(|&a| turned.axis(a)).collect::<Option<Vec<_>>>());
    let Some(axes) = axes.filter(|axes| axes.len() == n && n > 0) else { return Ok(None) };
    let mut inputs = node.inputs.clone();
    inputs.resize(inputs.len().max(4), None);
    inputs[0] = Some(turned.source);
    // ONNX wants one integer type for all of them.
    let axes = rw.i64s(&as_ints(&axes));
    let like = node.input(1).map(|id| rw.dtype(id));
    inputs[3] = Some(match like {
        Some(dtype) if dtype != rw.dtype(axes) => {
            rw.op("axes", "Cast", &[axes], Attributes::new().with("to", dtype))?
        }
        _ => axes,
    });
    let y = rw.same(node, &inputs, node.attributes.clone())?[0];
    Ok(Some(vec![transpose(rw, &node.name, y, &turned.perm)?]))
}

pub(super) fn pad(rw: &mut Rewriter, node: &Node) -> Change {
    if !is_one_of(node, &["Pad"]) {
        return Ok(None);
    }
    let Some(turned) = first(rw, node) else { return Ok(None) };
    let Some(pads) = node.input(1).and_then(|id| rw.ints(id)) else { return Ok(None) };
    let rank = turned.perm.len();
    let axes: Option<Vec<i64>> = match node.input(3) {
        None => Some((0..rank as i64).collect()),
        Some(axes) => rw.ints(axes),
    };
    let axes = axes.and_then(|axes| axes.iter().map(|&a| turned.axis(a)).collect::<Option<Vec<_>>>());
    let Some(axes) = axes.filter(|axes| pads.len() == 2 * axes.len()) else { return Ok(None) };
    let mut moved = vec![0; 2 * rank];
    for (at, &axis) in axes.iter().enumerate() {
        moved[axis] = pads[at];
        moved[axis + rank] = pads[at + axes.len()];
    }
    let moved = rw.i64s(&moved);
    let mut inputs = vec![Some(turned.source), Some(moved)];
    inputs.extend(node.input(2).map(Some));
    let y = rw.same(node, &inputs, node.attributes.clone())?[0];
    Ok(Some(vec![transpose(rw, &node.name, y, &turned.perm)?]))
}

pub(super) fn squeeze(rw: &mut Rewriter, node: &Node) -> Change {
    if !is_one_of(node, &["Squeeze"]) {
        return Ok(None);
    }
    let Some(turned) = first(rw, node) else { return Ok(None) };
    let Some(axes) = node.input(1).and_then(|id| rw.ints(id)) else { return Ok(None) };
    let axes = axes.iter().map(|&a| turned.axis(a)).collect::<Option<Vec<_>>>();
    let Some(mut axes) = axes.filter(|axes| !axes.is_empty()) else { return Ok(None) };
    axes.sort_unstable();
    let perm = remaining(&turned, &axes);
    let axes = rw.i64s(&as_ints(&axes));
    let y = rw.same(node, &[Some(turned.source), Some(axes)], node.attributes.clone())?[0];
    Ok(Some(vec![transpose(rw, &node.name, y, &perm)?]))
}

pub(super) fn unsqueeze(rw: &mut Rewriter, node: &Node) -> Change {
    if !is_one_of(node, &["Unsqueeze"]) {
        return Ok(None);
    }
    let Some(turned) = first(rw, node) else { return Ok(None) };
    let Some(axes) = node.input(1).and_then(|id| rw.ints(id)) else { return Ok(None) };
    let rank = turned.perm.len() + axes.len();
    let at = |axis: i64| usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok();
    let Some(new) = axes.iter().map(|&axis| at(axis).filter(|&a| a < rank)).collect::<Option<Vec<_>>>()
    else {
        return Ok(None);
    };
    // The new dimensions stay where they are; the others follow the old order.
    let old: Vec<usize> = (0..rank).filter(|axis| !new.contains(axis)).collect();
    if old.len() != turned.perm.len() {
        return Ok(None);
    }
    let mut perm: Vec<usize> = (0..rank).collect();
    for (&place, &from) in old.iter().zip(&turned.perm) {
        perm[place] = old[from];
    }
    let y = rw.same(node, &[Some(turned.source), node.input(1)], node.attributes.clone())?[0];
    Ok(Some(vec![transpose(rw, &node.name, y, &perm)?]))
}

/// A vector with an element per dimension, in the order of the source.
fn reordered(rw: &mut Rewriter, turned: &Turned, id: ValueId) -> Result<Option<ValueId>, Error> {
    if rw.size(id, 0) != Some(turned.perm.len()) {
        return Ok(None);
    }
    let order = rw.i64s(&as_ints(&turned.inverse()));
    rw.op("order", "Gather", &[id, order], Attributes::new().with("axis", 0i64)).map(Some)
}

pub(super) fn resize(rw: &mut Rewriter, node: &Node) -> Change {
    if !is_one_of(node, &["Resize"]) || node.attributes.get("axes").is_some() || node.input(1).is_some() {
        return Ok(None);
    }
    let Some(turned) = first(rw, node) else { return Ok(None) };
    let mut inputs = vec![Some(turned.source), None];
    for at in 2..node.inputs.len() {
        let Some(id) = node.input(at) else {
            inputs.push(None);
            continue;
        };
        let Some(id) = reordered(rw, &turned, id)? else { return Ok(None) };
        inputs.push(Some(id));
    }
    let y = rw.same(node, &inputs, node.attributes.clone())?[0];
    Ok(Some(vec![transpose(rw, &node.name, y, &turned.perm)?]))
}

pub(super) fn tile(rw: &mut Rewriter, node: &Node) -> Change {
    if !is_one_of(node, &["Tile", "Expand"]) {
        return Ok(None);
    }
    let (Some(turned), Some(sizes)) = (first(rw, node), node.input(1)) else { return Ok(None) };
    let Some(sizes) = reordered(rw, &turned, sizes)? else { return Ok(None) };
    let y = rw.same(node, &[Some(turned.source), Some(sizes)], node.attributes.clone())?[0];
    Ok(Some(vec![transpose(rw, &node.name, y, &turned.perm)?]))
}

/// `Gather` by one index or a list of them.
pub(super) fn gather(rw: &mut Rewriter, node: &Node) -> Change {
    if !is_one_of(node, &["Gather"]) {
        return Ok(None);
    }
    let Some(turned) = first(rw, node) else { return Ok(None) };
    let rank = node.input(1).and_then(|id| rw.rank(id));
    let (Some(rank @ 0..=1), Some(axis)) = (rank, turned.axis(node.attributes.int("axis", 0)?)) else {
        return Ok(None);
    };
    let attributes = node.attributes.clone().with("axis", axis as i64);
    let y = rw.same(node, &[Some(turned.source), node.input(1)], attributes)?[0];
    let perm = if rank == 1 { turned.perm.clone() } else { remaining(&turned, &[axis]) };
    Ok(Some(vec![transpose(rw, &node.name, y, &perm)?]))
}

/// The shape of a turned value is the turned shape.
pub(super) fn shape(rw: &mut Rewriter, node: &Node) -> Change {
    if !is_one_of(node, &["Shape"]) || !node.attributes.is_empty() {
        return Ok(None);
    }
    let Some(turned) = first(rw, node) else { return Ok(None) };
    let shape = rw.op(&node.name, "Shape", &[turned.source], Attributes::new())?;
    let order = rw.i64s(&as_ints(&turned.perm));
    Ok(Some(vec![rw.op(&node.name, "Gather", &[shape, order], Attributes::new().with("axis", 0i64))?]))
}

/// Rows flattened in another order are multiplied by weights whose rows are in that order.
pub(super) fn flattened_matmul(rw: &mut Rewriter, node: &Node) -> Change {
    let is_gemm = is_one_of(node, &["Gemm"]);
    if !is_gemm && !is_one_of(node, &["MatMul"]) {
        return Ok(None);
    }
    if is_gemm && (node.attributes.flag("transA", false)? || node.attributes.flag("transB", false)?) {
        return Ok(None);
    }
    let (Some(flat), Some(weights)) = (node.input(0), node.input(1)) else { return Ok(None) };
    if rw.constant(weights).is_none() || rw.rank(weights) != Some(2) || rw.rank(flat) != Some(2) {
        return Ok(None);
    }
    let reshape = rw.maker(flat).filter(|maker| maker.is("Reshape") || maker.is("Flatten")).cloned();
    let Some(turned) = reshape.and_then(|reshape| first(rw, &reshape)) else { return Ok(None) };
    // One row per element of the first dimension, and the order of the rest is known.
    let Some(dims) = rw.dims(turned.source).map(<[Dim]>::to_vec) else { return Ok(None) };
    let sizes: Option<Vec<usize>> = dims.iter().skip(1).map(Dim::fixed).collect();
    let Some(sizes) = sizes.filter(|sizes| turned.perm[0] == 0 && !sizes.contains(&0)) else {
        return Ok(None);
    };
    let (n_rows, n_columns) = (rw.size(weights, 0), rw.size(weights, 1));
    let (Some(n_rows), Some(n_columns)) = (n_rows, n_columns) else { return Ok(None) };
    if sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size)) != Some(n_rows) {
        return Ok(None);
    }
    let as_written: Vec<i64> = turned.perm[1..].iter().map(|&axis| sizes[axis - 1] as i64).collect();
    let mut shape = as_written;
    shape.push(n_columns as i64);
    let order: Vec<usize> = turned.perm[1..].iter().map(|&axis| axis - 1).collect();
    let mut perm = inverse(&order);
    perm.push(perm.len());
    let shape = rw.i64s(&shape);
    let wide = rw.op("rows", "Reshape", &[weights, shape], Attributes::new())?;
    let moved = transpose(rw, "rows", wide, &perm)?;
    let both = rw.i64s(&[n_rows as i64, n_columns as i64]);
    let Some(weights) = rw.computed("Reshape", &[moved, both], Attributes::new())? else { return Ok(None) };
    let target = rw.i64s(&[-1, n_rows as i64]);
    let flat = rw.op(&node.name, "Reshape", &[turned.source, target], Attributes::new())?;
    let mut inputs = node.inputs.clone();
    (inputs[0], inputs[1]) = (Some(flat), Some(weights));
    Ok(Some(rw.same(node, &inputs, node.attributes.clone())?))
}
