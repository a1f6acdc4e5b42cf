//! The same elements under another shape, and shapes as values.

use salver_tensor::{MAX_RANK, Shape, Tensor};

use crate::call::{Call, size};
use crate::layout::{self, Dims, output_shape, reshaped};
use crate::{Error, Outputs};

/// `Identity`.
pub(crate) fn identity(call: &Call<'_>) -> Outputs {
    Ok(vec![call.input(0)?.clone()])
}

/// `Dropout` as it is in inference: everything is kept. The second output is the mask.
pub(crate) fn dropout(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let training = call.optional(2).and_then(Tensor::bytes).is_some_and(|bytes| bytes.contains(&1));
    if training {
        return Err(Error::unsupported("Dropout in training"));
    }
    let mut outputs = vec![tensor.clone()];
    if call.n_outputs > 1 {
        outputs.push(Tensor::from_bools(tensor.shape().clone(), &vec![true; tensor.shape().n_elements()])?);
    }
    Ok(outputs)
}

/// `Reshape`: 0 keeps a dimension (unless `allowzero`), -1 takes what is left.
pub(crate) fn reshape(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let wanted = call.ints(1)?;
    let keep_zero = !call.attributes.flag("allowzero", false)?;
    let dims = resolve(tensor.shape(), &wanted, keep_zero)?;
    Ok(vec![reshaped(tensor, &dims)?])
}

fn resolve(shape: &Shape, wanted: &[i64], keep_zero: bool) -> Result<Dims, Error> {
    let misfit = || Error::invalid(format!("shape {shape} cannot be reshaped to {wanted:?}"));
    if wanted.len() > MAX_RANK {
        return Err(Error::invalid(format!("{} dimensions, expected at most {MAX_RANK}", wanted.len())));
    }
    let mut open = None;
    let mut dims = Dims::new();
    for (i, &dim) in wanted.iter().enumerate() {
        dims.push(match dim {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if keep_zero => *shape.dims().get(i).ok_or_else(misfit)?,
            dim => usize::try_from(dim).map_err(|_| misfit())?,
        });
    }
    if let Some(open) = open {
        let rest = Shape::new(&dims)?.n_elements();
        dims[open] = match rest {
            0 if shape.n_elements() == 0 => 0,
            0 => return Err(misfit()),
            rest => shape.n_elements() / rest,
        };
    }
    if Shape::new(&dims)?.n_elements() != shape.n_elements() {
        return Err(misfit());
    }
    Ok(dims)
}

/// `Flatten` to a matrix.
pub(crate) fn flatten(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let dims = tensor.shape().dims();
    let axis = call.attributes.int("axis", 1)?;
    let axis = match axis {
        axis if axis == dims.len() as i64 => dims.len(),
        axis => layout::axis(axis, dims.len())?,
    };
    let (rows, columns) = (product(&dims[..axis])?, product(&dims[axis..])?);
    Ok(vec![reshaped(tensor, &[rows, columns])?])
}

fn product(dims: &[usize]) -> Result<usize, Error> {
    Ok(Shape::new(dims)?.n_elements())
}

/// `Squeeze`: axes of size 1 are taken out, those named or all.
pub(crate) fn squeeze(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let dims = tensor.shape().dims();
    let axes = match call.optional_ints(1)? {
        Some(axes) => layout::axes(&axes, dims.len())?,
        None => (0..dims.len()).filter(|&axis| dims[axis] == 1).collect(),
    };
    if let Some(axis) = axes.iter().find(|&&axis| dims[axis] != 1) {
        return Err(Error::invalid(format!("axis {axis} has size {}, expected 1", dims[*axis])));
    }
    let kept: Dims = (0..dims.len()).filter(|axis| !axes.contains(axis)).map(|axis| dims[axis]).collect();
    Ok(vec![reshaped(tensor, &kept)?])
}

/// `Unsqueeze`: axes of size 1 are put in, counted in the result.
pub(crate) fn unsqueeze(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let dims = tensor.shape().dims();
    let new = call.ints(1)?;
    let rank = dims.len() + new.len();
    if rank > MAX_RANK {
        return Err(Error::invalid(format!("{rank} dimensions, expected at most {MAX_RANK}")));
    }
    let axes = layout::axes(&new, rank)?;
    let mut old = dims.iter().copied();
    let result: Dims =
        (0..rank).map(|axis| if axes.contains(&axis) { 1 } else { old.next().unwrap_or(1) }).collect();
    Ok(vec![reshaped(tensor, &result)?])
}

/// `Shape`, from `start` to `end`.
pub(crate) fn shape(call: &Call<'_>) -> Outputs {
    let dims = call.input(0)?.shape().dims();
    let rank = dims.len() as i64;
    let bound = |value: i64| {
        let value = if value < 0 { value.saturating_add(rank) } else { value };
        value.clamp(0, rank) as usize
    };
    let start = bound(call.attributes.int("start", 0)?);
    let end = bound(call.attributes.int("end", rank)?).max(start);
    let elements: Vec<i64> = dims[start..end].iter().map(|&dim| dim as i64).collect();
    Ok(vec![Tensor::from_vec(Shape::vector(elements.len())?, elements)?])
}

/// `Size`.
pub(crate) fn n_elements(call: &Call<'_>) -> Outputs {
    let n = call.input(0)?.shape().n_elements() as i64;
    Ok(vec![Tensor::from_vec(Shape::scalar(), vec![n])?])
}

/// The dimensions that an input holds as integers, for a result of one type.
pub(crate) fn wanted_dims(values: &[i64]) -> Result<Dims, Error> {
    if values.len() > MAX_RANK {
        return Err(Error::invalid(format!("{} dimensions, expected at most {MAX_RANK}", values.len())));
    }
    values.iter().map(|&value| size(value, "a dimension")).collect()
}

/// `Expand`: broadcast to a shape (and by it, both ways).
pub(crate) fn expand(call: &Call<'_>) -> Outputs {
    use crate::datum::{Datum, by_width};
    let tensor = call.input(0)?;
    let dims = layout::broadcast(tensor.shape().dims(), &wanted_dims(&call.ints(1)?)?)?;
    if dims[..] == *tensor.shape().dims() {
        return Ok(vec![tensor.clone()]);
    }
    let shape = output_shape(tensor.dtype(), &dims)?;
    let strides = layout::broadcast_strides(tensor.shape().dims(), &dims);
    by_width!(tensor.dtype(), T => {
        let elements = layout::copy_strided(&<T as Datum>::read(tensor), 0, &dims, &strides);
        Ok(vec![<T as Datum>::tensor(tensor.dtype(), shape, elements)?])
    })
}
