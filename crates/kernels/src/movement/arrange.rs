//! Elements in another order: transposing, joining, splitting, repeating, blocks to depth and back.

use salver_tensor::{DType, MAX_RANK, Tensor};

use crate::call::{Call, read, size};
use crate::datum::{Datum, by_width};
use crate::layout::{self, Dims, Strides, around, copy_strided, output_shape, reshaped};
use crate::movement::along;
use crate::{Error, Outputs};

/// The tensor read with other dimensions and steps, as a tensor of shape `dims`.
fn rearranged(
    tensor: &Tensor,
    offset: isize,
    view: &[usize],
    steps: &[isize],
    dims: &[usize],
) -> Result<Tensor, Error> {
    let shape = output_shape(tensor.dtype(), dims)?;
    by_width!(tensor.dtype(), T => {
        let elements = copy_strided(&<T as Datum>::read(tensor), offset, view, steps);
        <T as Datum>::tensor(tensor.dtype(), shape, elements)
    })
}

/// The tensor with its axes in another order.
pub(crate) fn permuted(tensor: &Tensor, order: &[usize]) -> Result<Tensor, Error> {
    let dims: Dims = order.iter().map(|&axis| tensor.shape().dims()[axis]).collect();
    let kept = |axes: &mut dyn Iterator<Item = usize>| -> Vec<usize> {
        axes.filter(|&axis| tensor.shape().dims()[axis] != 1).collect()
    };
    let moves = kept(&mut order.iter().copied()) != kept(&mut (0..order.len()));
    if !moves {
        return reshaped(tensor, &dims);
    }
    let own = layout::strides(tensor.shape().dims());
    let steps: Strides = order.iter().map(|&axis| own[axis]).collect();
    rearranged(tensor, 0, &dims, &steps, &dims)
}

/// `Transpose`.
pub(crate) fn transpose(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let rank = tensor.shape().rank();
    let order = match call.attributes.ints("perm")? {
        Some(order) => layout::axes(order, rank)?,
        None => (0..rank).rev().collect(),
    };
    if order.len() != rank {
        return Err(Error::invalid(format!("perm has {} axes, the input {rank}", order.len())));
    }
    Ok(vec![permuted(tensor, &order)?])
}

/// `Concat`.
pub(crate) fn concat(call: &Call<'_>) -> Outputs {
    let parts = call.all()?;
    let first = parts[0];
    if call.attributes.get("axis").is_none() {
        return Err(Error::invalid("attribute 'axis' is missing"));
    }
    let axis = call.axis(0, first.shape().rank())?;
    let mut dims = Dims::from_slice(first.shape().dims());
    for part in &parts[1..] {
        let fits = part.dtype() == first.dtype()
            && part.shape().rank() == dims.len()
            && (0..dims.len()).all(|i| i == axis || part.shape().dims()[i] == dims[i]);
        if !fits {
            return Err(Error::invalid(format!("cannot join {part:?} to {first:?} along axis {axis}")));
        }
        dims[axis] = dims[axis].saturating_add(part.shape().dims()[axis]);
    }
    if parts.len() == 1 {
        return Ok(vec![first.clone()]);
    }
    let shape = output_shape(first.dtype(), &dims)?;
    let rows = around(first.shape().dims(), axis).0;
    by_width!(first.dtype(), T => {
        let sources: Vec<_> = parts.iter().map(|part| <T as Datum>::read(part)).collect();
        let lens: Vec<usize> = sources.iter().map(|source| source.len().checked_div(rows).unwrap_or(0)).collect();
        let mut out: Vec<T> = Vec::with_capacity(shape.n_elements());
        for row in 0..rows {
            for (source, &len) in sources.iter().zip(&lens) {
                out.extend_from_slice(&source[row * len..(row + 1) * len]);
            }
        }
        Ok(vec![<T as Datum>::tensor(first.dtype(), shape, out)?])
    })
}

/// `Split`: by given sizes or into equal parts, of which the last may be smaller.
pub(crate) fn split(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let axis = call.axis(0, tensor.shape().rank())?;
    let dim = tensor.shape().dims()[axis];
    let sizes = match call.optional_ints(1)? {
        Some(sizes) => sizes.iter().map(|&n| size(n, "a part")).collect::<Result<Vec<_>, _>>()?,
        None => equal_parts(
            dim,
            size(call.attributes.int("num_outputs", call.n_outputs as i64)?, "num_outputs")?,
        )?,
    };
    if sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)) != Some(dim) {
        return Err(Error::invalid(format!("parts {sizes:?} of axis {axis} of size {dim}")));
    }
    let steps = layout::strides(tensor.shape().dims());
    let mut start = 0;
    let mut outputs = Vec::with_capacity(sizes.len());
    for n in sizes {
        let mut dims = Dims::from_slice(tensor.shape().dims());
        dims[axis] = n;
        let offset = (start as isize).saturating_mul(steps[axis]);
        outputs.push(match (axis == 0).then(|| tensor.rows(start, n)).flatten() {
            Some(rows) => rows,
            None => rearranged(tensor, offset, &dims, &steps, &dims)?,
        });
        start += n;
    }
    Ok(outputs)
}

fn equal_parts(dim: usize, n_parts: usize) -> Result<Vec<usize>, Error> {
    if n_parts == 0 || n_parts > dim.max(1) {
        return Err(Error::invalid(format!("{n_parts} parts of an axis of size {dim}")));
    }
    let size = dim.div_ceil(n_parts);
    Ok((0..n_parts).map(|i| size.min(dim.saturating_sub(i * size))).collect())
}

/// `Tile`: repeated along each axis.
pub(crate) fn tile(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let own = tensor.shape().dims();
    let repeats = super::shape::wanted_dims(&call.ints(1)?)?;
    if repeats.len() != own.len() {
        return Err(Error::invalid(format!("{} repeats of {} dimensions", repeats.len(), own.len())));
    }
    let dims: Dims = own.iter().zip(&repeats).map(|(&dim, &n)| dim.saturating_mul(n)).collect();
    let steps = layout::strides(own);
    let (mut view, mut view_steps) = (Dims::new(), Strides::new());
    for ((&n, &dim), &step) in repeats.iter().zip(own).zip(&steps) {
        view.extend([n, dim]);
        view_steps.extend([0, step]);
    }
    Ok(vec![rearranged(tensor, 0, &view, &view_steps, &dims)?])
}

/// The dimensions of an image batch and the attribute `blocksize`.
fn blocks(call: &Call<'_>) -> Result<([usize; 4], usize), Error> {
    let shape = call.input(0)?.shape();
    let &[n, c, h, w] = shape.dims() else {
        return Err(Error::invalid(format!("input has shape {shape}, expected 4 dimensions")));
    };
    let block = size(call.attributes.int("blocksize", 0)?, "blocksize")?;
    if block == 0 {
        return Err(Error::invalid("blocksize is 0, expected 1 or more"));
    }
    Ok(([n, c, h, w], block))
}

fn reordered(tensor: &Tensor, dims: &[usize], order: &[usize], result: &[usize]) -> Outputs {
    let own = layout::strides(dims);
    let view: Dims = order.iter().map(|&axis| dims[axis]).collect();
    let steps: Strides = order.iter().map(|&axis| own[axis]).collect();
    Ok(vec![rearranged(tensor, 0, &view, &steps, result)?])
}

/// `DepthToSpace`, in both modes.
pub(crate) fn depth_to_space(call: &Call<'_>) -> Outputs {
    let ([n, c, h, w], b) = blocks(call)?;
    let area = b.saturating_mul(b);
    if c % area != 0 {
        return Err(Error::invalid(format!("{c} channels, expected a multiple of {area}")));
    }
    let result = [n, c / area, h.saturating_mul(b), w.saturating_mul(b)];
    match call.attributes.text("mode", "DCR")? {
        "DCR" => reordered(call.input(0)?, &[n, b, b, c / area, h, w], &[0, 3, 4, 1, 5, 2], &result),
        "CRD" => reordered(call.input(0)?, &[n, c / area, b, b, h, w], &[0, 1, 4, 2, 5, 3], &result),
        other => Err(Error::invalid(format!("mode is '{other}', expected DCR or CRD"))),
    }
}

/// `SpaceToDepth`.
pub(crate) fn space_to_depth(call: &Call<'_>) -> Outputs {
    let ([n, c, h, w], b) = blocks(call)?;
    if h % b != 0 || w % b != 0 {
        return Err(Error::invalid(format!("an image of {h} x {w}, expected multiples of {b}")));
    }
    let result = [n, c.saturating_mul(b.saturating_mul(b)), h / b, w / b];
    reordered(call.input(0)?, &[n, c, h / b, b, w / b, b], &[0, 3, 5, 1, 2, 4], &result)
}

/// `ReverseSequence`: the first elements of each sequence in reverse.
pub(crate) fn reverse_sequence(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let dims = tensor.shape().dims();
    let (time, batch) = (call.attributes.int("time_axis", 0)?, call.attributes.int("batch_axis", 1)?);
    let (time, batch) = (layout::axis(time, dims.len())?, layout::axis(batch, dims.len())?);
    if (time, batch) != (0, 1) && (time, batch) != (1, 0) {
        return Err(Error::invalid(format!("time axis {time} and batch axis {batch}, expected 0 and 1")));
    }
    let lens: Vec<usize> = call.ints(1)?.iter().map(|&n| size(n, "a length")).collect::<Result<_, _>>()?;
    if lens.len() != dims[batch] || lens.iter().any(|&len| len > dims[time]) {
        return Err(Error::invalid(format!("lengths {lens:?} do not fit shape {}", tensor.shape())));
    }
    let steps = layout::strides(dims);
    let row: usize = dims[2..].iter().product();
    by_width!(tensor.dtype(), T => {
        let source = <T as Datum>::read(tensor);
        let mut out: Vec<T> = Vec::with_capacity(source.len());
        for i in 0..dims[0] {
            for j in 0..dims[1] {
                let (t, b) = if time == 0 { (i, j) } else { (j, i) };
                let from = if t < lens[b] { lens[b] - 1 - t } else { t };
                let at = from * steps[time] as usize + b * steps[batch] as usize;
                out.extend_from_slice(&source[at..at + row]);
            }
        }
        Ok(vec![<T as Datum>::tensor(tensor.dtype(), tensor.shape().clone(), out)?])
    })
}

/// `Trilu`: one triangle of each matrix, zeros in the other.
pub(crate) fn trilu(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let &[.., rows, columns] = tensor.shape().dims() else {
        return Err(Error::invalid(format!("input has shape {}, expected a matrix", tensor.shape())));
    };
    let upper = call.attributes.flag("upper", true)?;
    let k = i128::from(match call.optional(1) {
        Some(_) => call.int(1)?,
        None => 0,
    });
    by_width!(tensor.dtype(), T => {
        let mut elements = <T as Datum>::read(tensor).into_owned();
        if columns > 0 {
            for (i, line) in elements.chunks_mut(columns).enumerate() {
                // In row r the diagonal lies at column r + k.
                let at = (i % rows) as i128 + k + i128::from(!upper);
                let at = at.clamp(0, columns as i128) as usize;
                let dropped = if upper { &mut line[..at] } else { &mut line[at..] };
                dropped.fill(T::default());
            }
        }
        Ok(vec![<T as Datum>::tensor(tensor.dtype(), tensor.shape().clone(), elements)?])
    })
}

/// `Compress`: the slices along an axis (of the flat input without one) for which a condition holds.
pub(crate) fn compress(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let condition = call.input(1)?;
    let (DType::Bool, 1, Some(flags)) = (condition.dtype(), condition.shape().rank(), condition.bytes())
    else {
        return Err(Error::invalid(format!("condition is {condition:?}, expected a list of bool")));
    };
    let (taken, axis) = along(call, tensor)?;
    let tensor = &taken;
    let dim = tensor.shape().dims()[axis];
    if flags.len() > dim && flags[dim..].contains(&1) {
        return Err(Error::invalid(format!(
            "condition {} is longer than axis {axis} of size {dim}",
            flags.len()
        )));
    }
    let kept: Vec<i64> =
        flags.iter().enumerate().filter(|(_, flag)| **flag != 0).map(|(i, _)| i as i64).collect();
    super::gather::along(tensor, axis, &kept, &[kept.len()])
}

/// `NonZero`: the positions of all elements that are not zero, one column each.
pub(crate) fn non_zero(call: &Call<'_>) -> Outputs {
    use crate::number::by_ring;
    let tensor = call.input(0)?;
    let flags: Vec<bool> = match tensor.dtype() {
        DType::Bool => tensor.bytes().map(|b| b.iter().map(|&x| x != 0).collect()).unwrap_or_default(),
        DType::String => tensor.strings().unwrap_or_default().iter().map(|s| !s.is_empty()).collect(),
        dtype => by_ring!(dtype, |t| call.no_type(t), T => {
            let zero: T = bytemuck::Zeroable::zeroed();
            Ok(read::<T>(tensor).iter().map(|x| *x != zero).collect())
        })?,
    };
    let found: Vec<usize> = flags.iter().enumerate().filter(|(_, flag)| **flag).map(|(i, _)| i).collect();
    let dims = tensor.shape().dims();
    debug_assert!(dims.len() <= MAX_RANK);
    let shape = output_shape(DType::I64, &[dims.len(), found.len()])?;
    let mut out = Vec::with_capacity(shape.n_elements());
    for axis in 0..dims.len() {
        let (_, dim, after) = around(dims, axis);
        out.extend(found.iter().map(|&i| (i / after % dim) as i64));
    }
    Ok(vec![Tensor::from_vec(shape, out)?])
}
