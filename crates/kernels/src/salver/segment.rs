//! Sums of rows, by segment or by a sparse matrix.

use half::{bf16, f16};
use salver_tensor::{DType, Tensor};

use crate::Error;
use crate::call::{Call, integers, read};
use crate::layout::output_shape;
use crate::number::{Number, by_number};

/// What becomes of the sum of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Total {
    Sum,
    Mean,
    SqrtN,
}

/// Which row of the data goes to which row of the result; rows of the result rise.
struct Rows {
    pairs: Vec<(usize, usize)>,
    n: usize,
}

/// Sums neighbouring rows that have the same segment number.
pub(super) fn segment_sum(call: &Call<'_>) -> Result<Tensor, Error> {
    let data = call.input(0)?;
    let ids = call.ints(1)?;
    let n_rows = data.shape().n_rows().ok_or_else(|| Error::invalid("input must be at least rank 1"))?;
    if ids.len() != n_rows {
        return Err(Error::invalid("segment_ids should be the same size as dimension 0 of input."));
    }
    let segments = segments(&ids, None)?;
    let rows = Rows { pairs: (0..n_rows).zip(segments.0).collect(), n: segments.1 };
    sum(call, data, &rows, Total::Sum)
}

/// As [`segment_sum`], of the rows that a list names. A fourth input says how many segments there are.
pub(super) fn sparse_segment(call: &Call<'_>, total: Total) -> Result<Tensor, Error> {
    let data = call.input(0)?;
    let (indices, ids) = (call.ints(1)?, call.ints(2)?);
    let n_rows = data.shape().n_rows().ok_or_else(|| Error::invalid("input must be at least rank 1"))?;
    if indices.len() != ids.len() {
        return Err(Error::invalid("segment_ids and indices should have same size."));
    }
    let wanted = call.optional(3).map(|_| call.int(3)).transpose()?;
    let (segments, n) = segments(&ids, wanted)?;
    let find = |(at, &index): (usize, &i64)| {
        usize::try_from(index).ok().filter(|&index| index < n_rows).ok_or_else(|| {
            Error::invalid(format!("Bad: indices[{at}] == {index} out of range [0, {n_rows})"))
        })
    };
    let indices = indices.iter().enumerate().map(find).collect::<Result<Vec<_>, _>>()?;
    sum(call, data, &Rows { pairs: indices.into_iter().zip(segments).collect(), n }, total)
}

/// Segment numbers, which have to rise, and how many segments there are.
fn segments(ids: &[i64], wanted: Option<i64>) -> Result<(Vec<usize>, usize), Error> {
    let last = ids.last().map_or(0, |last| last.saturating_add(1));
    let n = wanted.unwrap_or(last);
    if n < last {
        return Err(Error::invalid("segment ids must be < num_segments"));
    }
    if !ids.is_sorted() {
        return Err(Error::invalid("segment ids are not increasing"));
    }
    let id = |&id: &i64| {
        usize::try_from(id).map_err(|_| {
            Error::invalid(format!(
                "Segment id {id} out of range [0, {n}), possibly because 'segment_ids' input is not sorted."
            ))
        })
    };
    let found = ids.iter().map(id).collect::<Result<Vec<_>, _>>()?;
    let n = usize::try_from(n).map_err(|_| Error::invalid(format!("num_segments is {n}")))?;
    Ok((found, n))
}

fn sum(call: &Call<'_>, data: &Tensor, rows: &Rows, total: Total) -> Result<Tensor, Error> {
    let mut dims = data.shape().dims().to_vec();
    dims[0] = rows.n;
    let shape = output_shape(data.dtype(), &dims)?;
    let width = data.shape().row_elements();
    Ok(match data.dtype() {
        // Half-width sums are kept wide and rounded once.
        DType::F16 => {
            let wide: Vec<f32> = read::<f16>(data).iter().map(|value| value.to_f32()).collect();
            let sums = sums(&wide, width, rows, total);
            Tensor::from_vec(shape, sums.into_iter().map(f16::from_f32).collect())?
        }
        DType::BF16 => {
            let wide: Vec<f32> = read::<bf16>(data).iter().map(|value| value.to_f32()).collect();
            let sums = sums(&wide, width, rows, total);
            Tensor::from_vec(shape, sums.into_iter().map(bf16::from_f32).collect())?
        }
        DType::F32 | DType::F64 => by_number!(data.dtype(), |other| call.no_type(other), T => {
            Ok(Tensor::from_vec(shape, sums(&read::<T>(data), width, rows, total))?)
        })?,
        _ if total != Total::Sum => return Err(call.no_type(data.dtype())),
        _ => by_number!(data.dtype(), |other| call.no_type(other), T => {
            Ok(Tensor::from_vec(shape, sums(&read::<T>(data), width, rows, total))?)
        })?,
    })
}

fn sums<T: Number>(data: &[T], width: usize, rows: &Rows, total: Total) -> Vec<T> {
    let mut out = vec![T::default(); rows.n * width];
    let mut counts = vec![0usize; rows.n];
    for &(from, to) in &rows.pairs {
        let from = &data[from * width..(from + 1) * width];
        for (sum, &value) in out[to * width..(to + 1) * width].iter_mut().zip(from) {
            *sum = sum.add(value);
        }
        counts[to] += 1;
    }
    if total == Total::Sum || width == 0 {
        return out;
    }
    for (row, &count) in out.chunks_exact_mut(width).zip(&counts).filter(|(_, count)| **count > 1) {
        let by = match total {
            Total::SqrtN => (count as f64).sqrt(),
            _ => count as f64,
        };
        row.iter_mut().for_each(|sum| *sum = sum.div(T::from_f64(by)));
    }
    out
}

/// A sparse matrix times a dense one, either of them transposed on demand.
pub(super) fn sparse_mat_mul(call: &Call<'_>) -> Result<Tensor, Error> {
    let (indices, values, b) = (call.input(0)?, call.input(1)?, call.input(3)?);
    let a_dims = call.ints(2)?;
    let (&[a_rows, a_columns], &[b_rows, b_columns]) = (&a_dims[..], b.shape().dims()) else {
        let text = format!("matrices have shapes {a_dims:?} and {}, expected two dimensions", b.shape());
        return Err(Error::invalid(text));
    };
    let n = values.shape().n_elements();
    if indices.shape().dims() != [n, 2] || values.dtype() != b.dtype() {
        return Err(Error::invalid(format!(
            "a_indices have shape {} and a_values {} {}, b is {}",
            indices.shape(),
            values.dtype(),
            values.shape(),
            b.dtype()
        )));
    }
    let adjoint_a = call.attributes.flag("adjoint_a", false)?;
    let adjoint_b = call.attributes.flag("adjoint_b", false)?;
    let (m, inner) = if adjoint_a { (a_columns, a_rows) } else { (a_rows, a_columns) };
    let (b_inner, columns) = if adjoint_b { (b_columns, b_rows) } else { (b_rows, b_columns) };
    if inner != b_inner as i64 {
        let text = format!(
            "Cannot multiply A and B because inner dimension does not match: {inner} vs. {b_inner}.  Did you forget a \
             transpose?  Dimensions of A: [{a_rows}, {a_columns}).  Dimensions of B: {}",
            b.shape()
        );
        return Err(Error::invalid(text));
    }
    let rows = usize::try_from(m).map_err(|_| Error::invalid(format!("a_shape has a dimension {m}")))?;
    let shape = output_shape(b.dtype(), &[rows, columns])?;
    let pairs = integers(indices)?;
    let mut places = Vec::with_capacity(n);
    for (at, pair) in pairs.chunks_exact(2).enumerate() {
        let (row, k) = if adjoint_a { (pair[1], pair[0]) } else { (pair[0], pair[1]) };
        let inside = |index: i64, size: usize| usize::try_from(index).ok().filter(|&index| index < size);
        let (row_column, k_column) = if adjoint_a { (1, 0) } else { (0, 1) };
        let k = inside(k, b_inner).ok_or_else(|| {
            Error::invalid(format!("k ({k}) from index[{at},{k_column}] out of bounds (>={b_inner})"))
        })?;
        let row = inside(row, rows).ok_or_else(|| {
            Error::invalid(format!("m ({row}) from index[{at},{row_column}] out of bounds (>={rows})"))
        })?;
        places.push((row, k));
    }
    let steps = if adjoint_b { (1, b_columns) } else { (b_columns, 1) };
    by_number!(b.dtype(), |other| call.no_type(other), T => {
        let out = product::<T>(&places, &read::<T>(values), &read::<T>(b), steps, shape.n_elements(), columns);
        Ok(Tensor::from_vec(shape, out)?)
    })
}

fn product<T: Number>(
    places: &[(usize, usize)],
    values: &[T],
    b: &[T],
    (inner_step, column_step): (usize, usize),
    n: usize,
    columns: usize,
) -> Vec<T> {
    let mut out = vec![T::default(); n];
    for (&(row, k), &value) in places.iter().zip(values) {
        for (column, sum) in out[row * columns..(row + 1) * columns].iter_mut().enumerate() {
            *sum = sum.add(value.mul(b[k * inner_step + column * column_step]));
        }
    }
    out
}
