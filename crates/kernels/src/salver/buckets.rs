//! Counting and sorting into buckets.

use salver_tensor::{DType, Shape, Tensor};

use crate::Error;
use crate::call::{Call, integers, read};
use crate::layout::output_shape;
use crate::number::Number;

/// The number of boundaries that are not above each value. They are `f32`; integers are compared as such, too.
pub(super) fn bucketize(call: &Call<'_>) -> Result<Tensor, Error> {
    let boundaries = call.attributes.floats("boundaries")?.unwrap_or_default();
    if !boundaries.is_sorted() {
        return Err(Error::invalid("Expected sorted boundaries"));
    }
    let input = call.input(0)?;
    // A NaN is not below any boundary.
    let wide: Vec<f64> = boundaries.iter().map(|&boundary| f64::from(boundary)).collect();
    let bucket = |value: f64| {
        let n = wide.partition_point(|&boundary| boundary <= value || value.is_nan());
        i32::try_from(n).unwrap_or(i32::MAX)
    };
    let buckets = match input.dtype() {
        DType::I32 => read::<i32>(input).iter().map(|&value| bucket(f64::from(value as f32))).collect(),
        DType::I64 => read::<i64>(input).iter().map(|&value| bucket(f64::from(value as f32))).collect(),
        DType::F32 => read::<f32>(input).iter().map(|&value| bucket(f64::from(value))).collect(),
        DType::F64 => read::<f64>(input).iter().map(|&value| bucket(value)).collect(),
        other => return Err(call.no_type(other)),
    };
    Ok(Tensor::from_vec(input.shape().clone(), buckets)?)
}

/// How often each number below `size` occurs, in a list or in each row of a matrix.
pub(super) fn dense_bincount(call: &Call<'_>) -> Result<Tensor, Error> {
    let input = call.input(0)?;
    let values = integers(input)?;
    let row = match input.shape().dims() {
        [] | [_] => values.len(),
        &[_, row] => row,
        _ => {
            return Err(Error::invalid(
                "Shape must be at most rank 2 but is rank ".to_owned() + &input.shape().rank().to_string(),
            ));
        }
    };
    let n_rows = if input.shape().rank() == 2 { input.shape().dims()[0] } else { 1 };
    let ends: Vec<usize> = (1..=n_rows).map(|at| at * row).collect();
    bincount(call, &values, &ends, 2, 1, input.shape().rank() == 2)
}

/// As [`dense_bincount`], of the rows of a ragged tensor.
pub(super) fn ragged_bincount(call: &Call<'_>) -> Result<Tensor, Error> {
    let splits = call.ints(0)?;
    let values = call.ints(1)?;
    if splits.first() != Some(&0) {
        let first = splits.first().copied().unwrap_or(-1);
        return Err(Error::invalid(format!("Splits must start with 0, not with {first}")));
    }
    let last = splits.last().copied().unwrap_or(0);
    if last != values.len() as i64 {
        let n = values.len();
        return Err(Error::invalid(format!(
            "Splits must end with the number of values, got {last} instead of {n}"
        )));
    }
    if !splits.is_sorted() {
        return Err(Error::invalid("Splits must not fall"));
    }
    let ends: Vec<usize> = splits[1..].iter().filter_map(|&end| usize::try_from(end).ok()).collect();
    bincount(call, &values, &ends, 3, 2, true)
}

fn bincount(
    call: &Call<'_>,
    values: &[i64],
    ends: &[usize],
    weights: usize,
    size: usize,
    is_matrix: bool,
) -> Result<Tensor, Error> {
    let size = call.int(size)?;
    let size =
        usize::try_from(size).map_err(|_| Error::invalid(format!("size ({size}) must be non-negative")))?;
    if values.iter().any(|&value| value < 0) {
        return Err(Error::invalid("Input arr must be non-negative!"));
    }
    let weights = call.input(weights)?;
    let n_weights = weights.shape().n_elements();
    if n_weights != 0 && n_weights != values.len() {
        return Err(Error::invalid(format!(
            "`weights` must be the same shape as `arr` or a length-0 `Tensor`, in which case it acts as all weights equal \
             to 1. Received {}",
            weights.shape()
        )));
    }
    let dims = if is_matrix { vec![ends.len(), size] } else { vec![size] };
    let shape = output_shape(weights.dtype(), &dims)?;
    let binary = call.attributes.flag("binary_output", false)?;
    let rows = Rows { values, ends, size, binary };
    match weights.dtype() {
        DType::I32 => rows.count::<i32>(weights, shape),
        DType::I64 => rows.count::<i64>(weights, shape),
        DType::F32 => rows.count::<f32>(weights, shape),
        DType::F64 => rows.count::<f64>(weights, shape),
        other => Err(call.no_type(other)),
    }
}

struct Rows<'a> {
    values: &'a [i64],
    ends: &'a [usize],
    size: usize,
    binary: bool,
}

impl Rows<'_> {
    fn count<T: Number>(&self, weights: &Tensor, shape: Shape) -> Result<Tensor, Error> {
        let weights = read::<T>(weights);
        let mut counts = vec![T::default(); shape.n_elements()];
        let mut start = 0;
        for (row, &end) in self.ends.iter().enumerate() {
            for (at, &value) in self.values.iter().enumerate().take(end).skip(start) {
                // Numbers past the end are not counted.
                let Some(bin) = usize::try_from(value).ok().filter(|&bin| bin < self.size) else { continue };
                let count = &mut counts[row * self.size + bin];
                *count = match self.binary {
                    true => T::ONE,
                    false => count.add(weights.get(at).copied().unwrap_or(T::ONE)),
                };
            }
            start = end;
        }
        Ok(Tensor::from_vec(shape, counts)?)
    }
}
