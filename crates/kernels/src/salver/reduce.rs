//! Joining the strings along dimensions.

use salver_tensor::Tensor;

use super::text::{Budget, concat};
use crate::Error;
use crate::call::Call;
use crate::layout::{output_shape, strides};

/// Joins along the given dimensions, of which the first varies fastest.
pub(super) fn reduce_join(call: &Call<'_>) -> Result<Tensor, Error> {
    let texts = call.strings(0)?;
    let dims = call.input(0)?.shape().dims().to_vec();
    let axes = axes(&call.ints(1)?, dims.len())?;
    let separator = call.attributes.text("separator", "")?.as_bytes();
    let keep_dims = call.attributes.flag("keep_dims", false)?;
    let steps = strides(&dims);
    let step = |axis: usize| usize::try_from(steps[axis]).unwrap_or(0);
    let kept: Vec<usize> = (0..dims.len()).filter(|axis| !axes.contains(axis)).collect();
    let sizes = |axes: &[usize]| axes.iter().map(|&axis| (dims[axis], step(axis))).collect::<Vec<_>>();
    let shape: Vec<usize> = match keep_dims {
        true => (0..dims.len()).map(|axis| if axes.contains(&axis) { 1 } else { dims[axis] }).collect(),
        false => kept.iter().map(|&axis| dims[axis]).collect(),
    };
    let shape = output_shape(salver_tensor::DType::String, &shape)?;
    let axes: Vec<usize> = axes.into_iter().rev().collect();
    let inner = offsets(&sizes(&axes));
    let mut budget = Budget::default();
    let joined = offsets(&sizes(&kept))
        .iter()
        .map(|base| concat(inner.iter().map(|offset| &texts[base + offset]), separator, &mut budget))
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(Tensor::from_strings(shape, joined)?)
}

fn axes(given: &[i64], rank: usize) -> Result<Vec<usize>, Error> {
    let mut axes: Vec<usize> = Vec::new();
    for &axis in given {
        let from_front = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
        let found = usize::try_from(from_front).ok().filter(|&axis| axis < rank).ok_or_else(|| {
            Error::invalid(format!("Invalid reduction dimension {axis} for input with {rank} dimension(s)"))
        })?;
        if axes.contains(&found) {
            return Err(Error::invalid(format!("Duplicate reduction dimension {axis}")));
        }
        axes.push(found);
    }
    Ok(axes)
}

/// The positions of all elements of some dimensions, each a size and a step; the last dimension varies fastest.
fn offsets(dims: &[(usize, usize)]) -> Vec<usize> {
    let mut offsets = vec![0];
    for &(size, step) in dims {
        offsets = offsets.iter().flat_map(|&base| (0..size).map(move |i| base + i * step)).collect();
    }
    offsets
}
