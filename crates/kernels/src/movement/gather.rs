//! Elements picked by index.

use salver_tensor::Tensor;

use crate::call::{Call, integers, size};
use crate::datum::{Datum, by_width};
use crate::layout::{self, Dims, around, output_shape};
use crate::{Error, Outputs};

/// An index from the front; a negative one counts from the back.
pub(super) fn index(index: i64, dim: usize) -> Result<usize, Error> {
    let from_front = if index < 0 { index.saturating_add(dim as i64) } else { index };
    usize::try_from(from_front)
        .ok()
        .filter(|&index| index < dim)
        .ok_or_else(|| Error::invalid(format!("index {index} of an axis of size {dim}")))
}

/// `Gather`: whole slices along an axis.
pub(crate) fn gather(call: &Call<'_>) -> Outputs {
    let (tensor, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.axis(0, tensor.shape().rank())?;
    along(tensor, axis, &integers(indices)?, indices.shape().dims())
}

/// The slices at `indices` along an axis, which is replaced by `index_dims`.
pub(super) fn along(tensor: &Tensor, axis: usize, indices: &[i64], index_dims: &[usize]) -> Outputs {
    let own = tensor.shape().dims();
    let mut dims = Dims::from_slice(&own[..axis]);
    dims.extend_from_slice(index_dims);
    dims.extend_from_slice(&own[axis + 1..]);
    let shape = output_shape(tensor.dtype(), &dims)?;
    let picked: Vec<usize> = indices.iter().map(|&i| index(i, own[axis])).collect::<Result<_, _>>()?;
    if shape.n_elements() == 0 {
        return by_width!(tensor.dtype(), T => Ok(vec![<T as Datum>::tensor(tensor.dtype(), shape, Vec::new())?]));
    }
    let (before, dim, after) = around(own, axis);
    by_width!(tensor.dtype(), T => {
        let source = <T as Datum>::read(tensor);
        let mut out: Vec<T> = Vec::with_capacity(shape.n_elements());
        for block in 0..before {
            let block = &source[block * dim * after..(block + 1) * dim * after];
            if after == 1 {
                out.extend(picked.iter().map(|&i| block[i].clone()));
            } else {
                picked.iter().for_each(|&i| out.extend_from_slice(&block[i * after..(i + 1) * after]));
            }
        }
        Ok(vec![<T as Datum>::tensor(tensor.dtype(), shape, out)?])
    })
}

/// The positions in a tensor of shape `own` that the elements of an index tensor point to, which replace the
/// coordinate along `axis`.
pub(super) fn element_positions(own: &[usize], indices: &Tensor, axis: usize) -> Result<Vec<usize>, Error> {
    let dims = indices.shape().dims();
    if dims.len() != own.len() || (0..own.len()).any(|i| i != axis && dims[i] > own[i]) {
        return Err(Error::invalid(format!("indices of shape {dims:?} do not fit data of shape {own:?}")));
    }
    let values = integers(indices)?;
    let mut steps = layout::strides(own);
    let along = steps[axis] as usize;
    steps[axis] = 0;
    let mut positions = Vec::with_capacity(values.len());
    let mut failed = None;
    let mut at = 0;
    layout::Walk::new(dims, [&steps]).each([0], |[base]| {
        match index(values[at], own[axis]) {
            Ok(i) => positions.push(base + i * along),
            Err(error) => failed = Some(error),
        }
        at += 1;
    });
    failed.map_or(Ok(positions), Err)
}

/// `GatherElements`.
pub(crate) fn gather_elements(call: &Call<'_>) -> Outputs {
    let (tensor, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.axis(0, tensor.shape().rank())?;
    let shape = output_shape(tensor.dtype(), indices.shape().dims())?;
    let positions = element_positions(tensor.shape().dims(), indices, axis)?;
    by_width!(tensor.dtype(), T => {
        let source = <T as Datum>::read(tensor);
        let out: Vec<T> = positions.iter().map(|&at| source[at].clone()).collect();
        Ok(vec![<T as Datum>::tensor(tensor.dtype(), shape, out)?])
    })
}

/// The positions in a tensor of shape `own` that index tuples point to, and the number of elements at each.
pub(super) fn tuple_positions(
    own: &[usize],
    tuples: &[i64],
    len: usize,
) -> Result<(Vec<usize>, usize), Error> {
    let steps = layout::strides(own);
    let slice: usize = own[len..].iter().product();
    if len == 0 {
        return Ok((Vec::new(), slice));
    }
    let positions = tuples
        .chunks_exact(len)
        .map(|tuple| {
            let mut at = 0;
            for (axis, &value) in tuple.iter().enumerate() {
                at += index(value, own[axis])? * steps[axis] as usize;
            }
            Ok(at)
        })
        .collect::<Result<_, Error>>()?;
    Ok((positions, slice))
}

/// `GatherND`, with batch dimensions.
pub(crate) fn gather_nd(call: &Call<'_>) -> Outputs {
    let (tensor, indices) = (call.input(0)?, call.input(1)?);
    let (own, index_dims) = (tensor.shape().dims(), indices.shape().dims());
    let batch = size(call.attributes.int("batch_dims", 0)?, "batch_dims")?;
    let misfit =
        || Error::invalid(format!("indices of shape {index_dims:?} do not fit data of shape {own:?}"));
    let len = *index_dims.last().ok_or_else(misfit)?;
    let fits = batch < index_dims.len() && batch < own.len() && len <= own.len() - batch;
    if !fits || own[..batch] != index_dims[..batch] {
        return Err(misfit());
    }
    let mut dims = Dims::from_slice(&index_dims[..index_dims.len() - 1]);
    dims.extend_from_slice(&own[batch + len..]);
    let shape = output_shape(tensor.dtype(), &dims)?;
    let tuples = integers(indices)?;
    let n_batches: usize = own[..batch].iter().product();
    let per_batch: usize = index_dims[batch..index_dims.len() - 1].iter().product();
    let block: usize = own[batch..].iter().product();
    by_width!(tensor.dtype(), T => {
        let source = <T as Datum>::read(tensor);
        let mut out: Vec<T> = Vec::with_capacity(shape.n_elements());
        for b in 0..n_batches {
            let tuples = &tuples[b * per_batch * len..(b + 1) * per_batch * len];
            let (mut positions, slice) = tuple_positions(&own[batch..], tuples, len)?;
            if len == 0 && shape.n_elements() > 0 {
                positions = vec![0; per_batch];
            }
            for at in positions {
                let at = b * block + at;
                out.extend_from_slice(&source[at..at + slice]);
            }
        }
        Ok(vec![<T as Datum>::tensor(tensor.dtype(), shape, out)?])
    })
}
