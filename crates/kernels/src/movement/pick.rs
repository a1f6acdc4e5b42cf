//! Elements picked by their order: the largest, the smallest, the different ones.

use std::cmp::Ordering;

use salver_tensor::{DType, Shape, Tensor};

use crate::call::{Call, read, size};
use crate::datum::{Datum, by_width};
use crate::layout::{Dims, around, output_shape};
use crate::movement::along;
use crate::number::{Number, by_number};
use crate::{Error, Outputs};

/// Numbers in order, NaN behind all others.
fn ordered<T: Number>(a: &T, b: &T) -> Ordering {
    a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// `ArgMax`, `ArgMin`: the position of the first (or last) greatest or smallest element along an axis.
pub(crate) fn arg(call: &Call<'_>) -> Outputs {
    fn apply<T: Number>(tensor: &Tensor, axis: usize, better: impl Fn(T, T) -> bool, last: bool) -> Vec<i64> {
        let (before, dim, after) = around(tensor.shape().dims(), axis);
        let source = read::<T>(tensor);
        let mut out = Vec::with_capacity(before * after);
        for i in 0..before {
            for j in 0..after {
                let at = |k: usize| source[(i * dim + k) * after + j];
                let mut best = 0;
                for k in 1..dim {
                    if better(at(k), at(best)) || (last && at(k) == at(best)) {
                        best = k;
                    }
                }
                out.push(best as i64);
            }
        }
        out
    }
    let tensor = call.input(0)?;
    let axis = call.axis(0, tensor.shape().rank())?;
    let last = call.attributes.flag("select_last_index", false)?;
    let mut dims = Dims::from_slice(tensor.shape().dims());
    if dims[axis] == 0 {
        return Err(Error::invalid(format!("axis {axis} is empty")));
    }
    if call.attributes.flag("keepdims", true)? {
        dims[axis] = 1;
    } else {
        dims.remove(axis);
    }
    let max = call.op == "ArgMax";
    let out = by_number!(tensor.dtype(), |t| call.no_type(t), T => Ok(match max {
        true => apply(tensor, axis, |a: T, b| a > b, last),
        false => apply(tensor, axis, |a: T, b| a < b, last),
    }))?;
    Ok(vec![Tensor::from_vec(output_shape(DType::I64, &dims)?, out)?])
}

/// `TopK`: of equal elements the first is taken first.
pub(crate) fn top_k(call: &Call<'_>) -> Outputs {
    fn apply<T: Number>(tensor: &Tensor, axis: usize, k: usize, largest: bool, dims: &[usize]) -> Outputs {
        let (before, dim, after) = around(tensor.shape().dims(), axis);
        let source = read::<T>(tensor);
        let shape = output_shape(DType::I64, dims)?;
        let mut values = vec![T::default(); shape.n_elements()];
        let mut indices = vec![0i64; shape.n_elements()];
        if shape.n_elements() == 0 {
            return Ok(vec![Tensor::from_vec(shape.clone(), values)?, Tensor::from_vec(shape, indices)?]);
        }
        let mut order: Vec<usize> = Vec::with_capacity(dim);
        for i in 0..before {
            for j in 0..after {
                let at = |n: usize| &source[(i * dim + n) * after + j];
                let compare = |&a: &usize, &b: &usize| {
                    let values = if largest { ordered(at(b), at(a)) } else { ordered(at(a), at(b)) };
                    values.then(a.cmp(&b))
                };
                order.clear();
                order.extend(0..dim);
                if k < dim {
                    order.select_nth_unstable_by(k, compare);
                    order.truncate(k);
                }
                order.sort_unstable_by(compare);
                for (n, &from) in order.iter().enumerate() {
                    values[(i * k + n) * after + j] = *at(from);
                    indices[(i * k + n) * after + j] = from as i64;
                }
            }
        }
        Ok(vec![Tensor::from_vec(shape.clone(), values)?, Tensor::from_vec(shape, indices)?])
    }
    let tensor = call.input(0)?;
    let axis = call.axis(-1, tensor.shape().rank())?;
    let k = size(call.int(1)?, "k")?;
    let largest = call.attributes.flag("largest", true)?;
    let mut dims = Dims::from_slice(tensor.shape().dims());
    if k > dims[axis] {
        return Err(Error::invalid(format!("the top {k} of an axis of size {}", dims[axis])));
    }
    dims[axis] = k;
    by_number!(tensor.dtype(), |t| call.no_type(t), T => apply::<T>(tensor, axis, k, largest, &dims))
}

/// `Unique`: the different slices along an axis (elements without one), where each first is, which each was, and how
/// many of each there are.
pub(crate) fn unique(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let (taken, axis) = along(call, tensor)?;
    let tensor = &taken;
    let (before, dim, after) = around(tensor.shape().dims(), axis);
    if tensor.shape().n_elements() == 0 && dim > 0 {
        return Err(Error::invalid(format!("slices of shape {} without elements", tensor.shape())));
    }
    // The elements of slice `n`, in order.
    let slice =
        move |n: usize| (0..before).flat_map(move |i| (0..after).map(move |j| (i * dim + n) * after + j));
    let groups = match tensor.dtype() {
        DType::Bool => {
            let bytes = tensor.bytes().cloned().unwrap_or_default();
            grouped(dim, |a, b| slice(a).map(|i| bytes[i]).cmp(slice(b).map(|i| bytes[i])))
        }
        DType::String => {
            let texts = tensor.strings().unwrap_or_default();
            grouped(dim, |a, b| slice(a).map(|i| &texts[i]).cmp(slice(b).map(|i| &texts[i])))
        }
        dtype => by_number!(dtype, |t| call.no_type(t), T => {
            let source = read::<T>(tensor);
            Ok(grouped(dim, |a, b| {
                let pairs = slice(a).zip(slice(b));
                pairs.map(|(i, j)| ordered(&source[i], &source[j])).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
            }))
        })?,
    };
    let mut groups = groups;
    if !call.attributes.flag("sorted", true)? {
        groups.sort_by_key(|group| group[0]);
    }
    let first: Vec<i64> = groups.iter().map(|group| group[0] as i64).collect();
    let counts: Vec<i64> = groups.iter().map(|group| group.len() as i64).collect();
    let mut inverse = vec![0i64; dim];
    for (n, group) in groups.iter().enumerate() {
        group.iter().for_each(|&i| inverse[i] = n as i64);
    }
    let mut dims = Dims::from_slice(tensor.shape().dims());
    dims[axis] = first.len();
    let shape = output_shape(tensor.dtype(), &dims)?;
    let values = by_width!(tensor.dtype(), T => {
        let source = <T as Datum>::read(tensor);
        let mut out: Vec<T> = Vec::with_capacity(shape.n_elements());
        for i in 0..before {
            for group in &groups {
                let at = (i * dim + group[0]) * after;
                out.extend_from_slice(&source[at..at + after]);
            }
        }
        <T as Datum>::tensor(tensor.dtype(), shape, out)
    })?;
    let list = |values: Vec<i64>| -> Result<Tensor, Error> {
        Ok(Tensor::from_vec(Shape::vector(values.len())?, values)?)
    };
    Ok(vec![values, list(first)?, list(inverse)?, list(counts)?])
}

/// The numbers below `n` in groups of equal ones, sorted; within a group in order.
fn grouped(n: usize, compare: impl Fn(usize, usize) -> Ordering) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| compare(a, b));
    order.chunk_by(|&a, &b| compare(a, b).is_eq()).map(<[usize]>::to_vec).collect()
}
