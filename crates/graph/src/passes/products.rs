//! Products with constant weights in the form that engines multiply fastest: one `MatMul` and a vector added to it.

use salver_kernels::Attributes;

use super::rewrite::{Rewriter, Rule, reshape_target};
use crate::Error;
use crate::ir::{Dim, Node, ValueId};

pub(super) const RULES: &[Rule] = &[einsum, before_reshape, vector_bias];

type Change = Result<Option<Vec<ValueId>>, Error>;

/// `abc,cde->abde` with constant weights: the last dimensions of the data against the first of the weights.
fn einsum(rw: &mut Rewriter, node: &Node) -> Change {
    let (Some(x), Some(weights), true) = (node.input(0), node.input(1), node.is("Einsum")) else {
        return Ok(None);
    };
    if node.inputs.len() != 2 || rw.constant(weights).is_none() {
        return Ok(None);
    }
    let equation: String =
        node.attributes.text("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let Some((data, rest)) = equation.split_once(',') else { return Ok(None) };
    let Some((kernel, result)) = rest.split_once("->") else { return Ok(None) };
    let all = [data, kernel, result].map(|term| term.chars().collect::<Vec<char>>());
    let [data, kernel, result] = &all;
    let n = data.iter().filter(|label| kernel.contains(label)).count();
    let n_outer = data.len() - n;
    let expected: Vec<char> = data[..n_outer].iter().chain(&kernel[n.min(kernel.len())..]).copied().collect();
    let is_once =
        |labels: &[char]| labels.iter().enumerate().all(|(at, label)| !labels[..at].contains(label));
    let plain = n > 0
        && equation.chars().all(|c| c.is_ascii_alphabetic() || ",->".contains(c))
        && kernel.len() > n
        && data[n_outer..] == kernel[..n]
        && *result == expected
        && all.iter().all(|labels| is_once(labels));
    let Some(sizes) = rw.constant(weights).map(|tensor| tensor.shape().dims().to_vec()).filter(|_| plain)
    else {
        return Ok(None);
    };
    let (inner, columns) = (sizes[..n].iter().product::<usize>(), sizes[n..].iter().product::<usize>());
    let Some(dims) = rw.dims(x).map(<[Dim]>::to_vec).filter(|dims| dims.len() == data.len()) else {
        return Ok(None);
    };
    let shape = rw.i64s(&[inner as i64, columns as i64]);
    let Some(flat) = rw.computed("Reshape", &[weights, shape], Attributes::new())? else { return Ok(None) };
    let x = if n == 1 {
        x
    } else {
        let mut narrow = dims[..n_outer].to_vec();
        narrow.push(Dim::Fixed(inner));
        let Some(target) = reshape_target(&narrow) else { return Ok(None) };
        let target = rw.i64s(&target);
        rw.op(&node.name, "Reshape", &[x, target], Attributes::new())?
    };
    let y = rw.op(&node.name, "MatMul", &[x, flat], Attributes::new())?;
    if kernel.len() == n + 1 {
        return Ok(Some(vec![y]));
    }
    let mut wide = dims[..n_outer].to_vec();
    wide.extend(sizes[n..].iter().copied().map(Dim::Fixed));
    let Some(target) = reshape_target(&wide) else { return Ok(None) };
    let target = rw.i64s(&target);
    Ok(Some(vec![rw.op(&node.name, "Reshape", &[y, target], Attributes::new())?]))
}

/// A constant added after the columns of a product were split is a vector added before.
fn before_reshape(rw: &mut Rewriter, node: &Node) -> Change {
    if !node.is("Add") && !node.is("Mul") {
        return Ok(None);
    }
    let (Some(a), Some(b)) = (node.input(0), node.input(1)) else { return Ok(None) };
    let (x, constant) = if rw.constant(b).is_some() { (a, b) } else { (b, a) };
    let Some(reshape) = rw.made_by(x, "Reshape").filter(|_| rw.is_only_use(x)).cloned() else {
        return Ok(None);
    };
    let Some(product) = reshape.input(0).filter(|&id| rw.made_by(id, "MatMul").is_some()) else {
        return Ok(None);
    };
    let Some(columns) = rw.rank(product).and_then(|rank| rw.size(product, rank.checked_sub(1)?)) else {
        return Ok(None);
    };
    let Some(shape) = rw.constant(constant).map(|tensor| tensor.shape().dims().to_vec()) else {
        return Ok(None);
    };
    let Some(wide) = rw.dims(x).map(<[Dim]>::to_vec).filter(|wide| shape.len() <= wide.len()) else {
        return Ok(None);
    };
    // The last dimensions that the columns were split into.
    let mut n = 0;
    let mut size = 1usize;
    while size < columns && n < wide.len() {
        n += 1;
        let Some(dim) = wide[wide.len() - n].fixed() else { return Ok(None) };
        size = size.saturating_mul(dim);
    }
    let outer = shape.len().saturating_sub(n);
    if size != columns
        || n < 2
        || rw.constant(constant).is_some_and(|tensor| tensor.shape().n_elements() == 1)
    {
        return Ok(None);
    }
    if shape[..outer].iter().any(|&dim| dim != 1) {
        return Ok(None);
    }
    let tail: Vec<i64> =
        wide[wide.len() - n..].iter().filter_map(|dim| dim.fixed().map(|size| size as i64)).collect();
    let inner: Vec<i64> = shape[outer..].iter().map(|&dim| dim as i64).collect();
    let none = Attributes::new;
    let (inner, tail, flat) = (rw.i64s(&inner), rw.i64s(&tail), rw.i64s(&[columns as i64]));
    let vector = rw.op("vector", "Reshape", &[constant, inner], none())?;
    let vector = rw.op("vector", "Expand", &[vector, tail], none())?;
    let Some(vector) = rw.computed("Reshape", &[vector, flat], none())? else { return Ok(None) };
    let y = rw.op(&node.name, &node.op, &[product, vector], none())?;
    Ok(Some(rw.same(&reshape, &[Some(y), reshape.input(1)], reshape.attributes.clone())?))
}

/// What is added to a product with constant weights is a vector with an element per column.
fn vector_bias(rw: &mut Rewriter, node: &Node) -> Change {
    let (Some(a), Some(b), true) = (node.input(0), node.input(1), node.is("Add")) else { return Ok(None) };
    let (x, constant) = if rw.constant(b).is_some() { (a, b) } else { (b, a) };
    let Some(tensor) = rw.constant(constant) else { return Ok(None) };
    let dims = tensor.shape().dims().to_vec();
    let Some(columns) = rw.rank(x).and_then(|rank| rw.size(x, rank.checked_sub(1)?)) else { return Ok(None) };
    let is_row =
        dims.iter().rev().skip(1).all(|&dim| dim == 1) && dims.last().is_none_or(|&n| n == 1 || n == columns);
    if rw.made_by(x, "MatMul").is_none() || dims == [columns] || !is_row || rw.rank(x) < Some(dims.len()) {
        return Ok(None);
    }
    let (flat, shape) = (rw.i64s(&[-1]), rw.i64s(&[columns as i64]));
    let vector = rw.op("vector", "Reshape", &[constant, flat], Attributes::new())?;
    let Some(vector) = rw.computed("Expand", &[vector, shape], Attributes::new())? else { return Ok(None) };
    Ok(Some(vec![rw.op(&node.name, "Add", &[x, vector], Attributes::new())?]))
}
