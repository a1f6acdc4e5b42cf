//! Sparse tensors: indices, values and a shape.

use salver_tensor::{DType, Shape, Tensor};

use crate::Error;
use crate::call::{Call, integers, size};
use crate::datum::{Datum, by_width};
use crate::layout::output_shape;

/// A list as TensorFlow prints shapes and indices: `[1,2]`.
fn shown<T: ToString>(list: &[T]) -> String {
    format!("[{}]", list.iter().map(T::to_string).collect::<Vec<_>>().join(","))
}

/// A dense tensor with values at some places and a default at all others.
pub(super) fn to_dense(call: &Call<'_>) -> Result<Tensor, Error> {
    let (indices, values, default) = (call.input(0)?, call.input(2)?, call.input(3)?);
    let dims = call.ints(1)?;
    let sizes =
        dims.iter().map(|&dim| size(dim, "a dimension of output_shape")).collect::<Result<Vec<_>, _>>()?;
    let shape = output_shape(values.dtype(), &sizes)?;
    let (n, width) = match indices.shape().dims() {
        [] => (1, 1),
        &[n] => (n, 1),
        &[n, width] => (n, width),
        _ => {
            let shape = indices.shape();
            return Err(Error::invalid(format!(
                "sparse_indices should be a scalar, vector, or matrix, got shape {shape}"
            )));
        }
    };
    let rank = shape.rank();
    if width != rank {
        return Err(Error::invalid(format!(
            "sparse_indices have {width} columns, output_shape has {rank} elements"
        )));
    }
    let n_values = values.shape().n_elements();
    if values.shape().rank() > 1 || values.shape().rank() == 1 && n_values != n {
        let got = values.shape();
        return Err(Error::invalid(format!(
            "sparse_values has incorrect shape {got}, should be [] or [{n}]"
        )));
    }
    if default.shape().n_elements() != 1 || default.dtype() != values.dtype() {
        return Err(Error::invalid("default_value should be a scalar of the values' type".to_owned()));
    }
    let places = places(&integers(indices)?, n, &sizes, call.attributes.flag("validate_indices", true)?)?;
    by_width!(values.dtype(), T => scatter::<T>(values, default, shape, &places))
}

fn scatter<T: Datum>(
    values: &Tensor,
    default: &Tensor,
    shape: Shape,
    places: &[usize],
) -> Result<Tensor, Error> {
    let (from, filler) = (T::read(values), T::read(default)[0].clone());
    let mut out = vec![filler; shape.n_elements()];
    for (i, &place) in places.iter().enumerate() {
        // A single value goes to all places.
        out[place] = from[if from.len() == 1 { 0 } else { i }].clone();
    }
    T::tensor(values.dtype(), shape, out)
}

/// The position in a contiguous tensor of each index. With `ordered` they have to rise.
fn places(indices: &[i64], n: usize, dims: &[usize], ordered: bool) -> Result<Vec<usize>, Error> {
    let width = dims.len();
    let row = |i: usize| &indices[i * width..(i + 1) * width];
    let mut places = Vec::with_capacity(n);
    for i in 0..n {
        let place = row(i).iter().zip(dims).try_fold(0usize, |place, (&index, &dim)| {
            usize::try_from(index).ok().filter(|&index| index < dim).map(|index| place * dim + index)
        });
        let Some(place) = place else {
            let dims = shown(dims);
            return Err(Error::invalid(match ordered {
                true => {
                    format!("indices[{i}] = {} is out of bounds: need 0 <= index < {dims}", shown(row(i)))
                }
                false => format!("Indices are not valid (out of bounds).  Shape: {dims}"),
            }));
        };
        if let Some(&last) = places.last().filter(|_| ordered)
            && place <= last
        {
            let row = shown(row(i));
            return Err(Error::invalid(match place == last {
                true => format!("indices[{i}] = {row} is repeated"),
                false => format!(
                    "indices[{i}] = {row} is out of order. Many sparse ops require sorted indices.\n    Use \
                     `tf.sparse.reorder` to create a correctly ordered copy.\n\n"
                ),
            }));
        }
        places.push(place);
    }
    Ok(places)
}

fn too_large() -> Error {
    Error::too_large("a sparse shape does not fit in 63 bits")
}

fn product(dims: &[i64]) -> Result<i64, Error> {
    dims.iter().try_fold(1i64, |n, &dim| n.checked_mul(dim)).ok_or_else(too_large)
}

/// A matrix of indices: rows and columns.
fn matrix(tensor: &Tensor) -> Result<(usize, usize), Error> {
    match *tensor.shape().dims() {
        [n, width] => Ok((n, width)),
        _ => Err(Error::invalid(format!("indices must be a matrix, got shape {}", tensor.shape()))),
    }
}

/// The same elements under another shape; one new dimension may be -1.
pub(super) fn reshape(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let (n, width) = matrix(call.input(0)?)?;
    let (from, wanted) = (call.ints(1)?, call.ints(2)?);
    if width != from.len() {
        let rank = from.len();
        return Err(Error::invalid(format!("indices have {width} columns, input_shape has {rank} elements")));
    }
    if let Some(dim) = from.iter().find(|&&dim| dim < 0) {
        return Err(Error::invalid(format!("input_shape has a dimension {dim}")));
    }
    let to = new_shape(&from, &wanted)?;
    let indices = integers(call.input(0)?)?;
    let mut out = Vec::with_capacity(n.saturating_mul(to.len()).min(1 << 20));
    for i in 0..n {
        let mut place = 0i64;
        for (&index, &dim) in indices[i * width..(i + 1) * width].iter().zip(&from) {
            if index < 0 || index >= dim {
                return Err(Error::invalid(format!("index {index} in a dimension of {dim}")));
            }
            place =
                place.checked_mul(dim).and_then(|place| place.checked_add(index)).ok_or_else(too_large)?;
        }
        let start = out.len();
        out.resize(start + to.len(), 0);
        for (index, &dim) in out[start..].iter_mut().zip(&to).rev() {
            // No dimension is 0 here, since the new shape has as many elements as the old one.
            *index = place % dim.max(1);
            place /= dim.max(1);
        }
    }
    let rank = to.len();
    Ok(vec![
        Tensor::from_vec(output_shape(DType::I64, &[n, rank])?, out)?,
        Tensor::from_vec(Shape::vector(rank)?, to)?,
    ])
}

fn new_shape(from: &[i64], wanted: &[i64]) -> Result<Vec<i64>, Error> {
    let n = product(from)?;
    let mut to = wanted.to_vec();
    let mut open = None;
    for (at, &dim) in wanted.iter().enumerate() {
        match (dim, open) {
            (-1, Some(first)) => {
                let text = format!("only one output dimension may be -1, not both {first} and {at}");
                return Err(Error::invalid(text));
            }
            (-1, None) => open = Some(at),
            (dim, _) if dim < 0 => {
                return Err(Error::invalid(format!("size {at} must be non-negative, not {dim}")));
            }
            _ => {}
        }
    }
    if let Some(open) = open {
        to[open] = 1;
        let known = product(&to)?;
        if known == 0 {
            return Err(Error::invalid(
                "reshape cannot infer the missing input size for an empty tensor unless all specified input sizes are \
                 non-zero",
            ));
        }
        to[open] = n / known;
        if n % known != 0 {
            return Err(Error::invalid(format!(
                "Input to reshape is a SparseTensor with {n} dense values, but the requested shape requires a multiple of \
                 {known}. input_shape={} output_shape={}",
                shown(from),
                shown(&to)
            )));
        }
    }
    let m = product(&to)?;
    if m != n {
        return Err(Error::invalid(format!(
            "Input to reshape is a tensor with {n} dense values, but the requested shape has {m}. input_shape={} \
             output_shape={}",
            shown(from),
            shown(&to)
        )));
    }
    Ok(to)
}

/// A default value at the start of every row that has none. Gives indices, values, which rows were empty, and where each
/// old value went.
pub(super) fn fill_empty_rows(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let (values, default) = (call.input(1)?, call.input(3)?);
    let (n, width) = matrix(call.input(0)?)?;
    let dims = call.ints(2)?;
    if width == 0 || width != dims.len() {
        return Err(Error::invalid(format!(
            "indices have {width} columns, dense_shape has {} elements",
            dims.len()
        )));
    }
    if values.shape().dims() != [n] {
        return Err(Error::invalid(format!("values have shape {}, expected [{n}]", values.shape())));
    }
    if default.shape().n_elements() != 1 || default.dtype() != values.dtype() {
        return Err(Error::invalid("default_value should be a scalar of the values' type"));
    }
    let n_rows = size(dims[0], "dense_shape[0]")?;
    if n_rows == 0 && n != 0 {
        return Err(Error::invalid(format!(
            "Received SparseTensor with dense_shape[0] = 0 but indices.shape[0] = {n}"
        )));
    }
    output_shape(DType::String, &[n_rows.saturating_add(n), width])?;
    let indices = integers(call.input(0)?)?;
    let mut counts = vec![0usize; n_rows];
    for i in 0..n {
        let row = indices[i * width];
        let count = usize::try_from(row).ok().and_then(|row| counts.get_mut(row));
        *count.ok_or_else(|| Error::invalid(format!("indices({i}, 0) is invalid: {row} >= {n_rows}")))? += 1;
    }
    let empty: Vec<bool> = counts.iter().map(|&count| count == 0).collect();
    let mut next = Vec::with_capacity(n_rows);
    let mut total = 0usize;
    for &count in &counts {
        next.push(total);
        total += count.max(1);
    }
    let mut filled = vec![0i64; total * width];
    for (row, _) in empty.iter().enumerate().filter(|(_, empty)| **empty) {
        filled[next[row] * width] = row as i64;
    }
    let mut went = Vec::with_capacity(n);
    for i in 0..n {
        let from = &indices[i * width..(i + 1) * width];
        let at = &mut next[usize::try_from(from[0]).unwrap_or(0)];
        filled[*at * width..(*at + 1) * width].copy_from_slice(from);
        went.push(*at);
        *at += 1;
    }
    let moved = by_width!(values.dtype(), T => scatter::<T>(values, default, Shape::vector(total)?, &went))?;
    // A single value is not meant for all places here; there is one place for each.
    let went = went.iter().map(|&at| at as i64).collect();
    Ok(vec![
        Tensor::from_vec(Shape::new(&[total, width])?, filled)?,
        moved,
        Tensor::from_bools(Shape::vector(n_rows)?, &empty)?,
        Tensor::from_vec(Shape::vector(n)?, went)?,
    ])
}
