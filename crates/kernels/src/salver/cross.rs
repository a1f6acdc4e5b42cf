//! Crossed features: each combination of the features of a row as a feature of its own.

use bytes::Bytes;
use salver_tensor::{Shape, Tensor};

use super::farm;
use super::text::Budget;
use crate::Error;
use crate::call::{Call, integers};

/// More crosses than this are refused before they are made.
const MAX_CROSSES: usize = 1 << 24;

/// The features of one column: strings or integers, and where each row's begin.
struct Column<'a> {
    features: Features<'a>,
    /// One more than there are rows.
    starts: Vec<usize>,
}

enum Features<'a> {
    Strings(&'a [Bytes]),
    Ints(Vec<i64>),
}

impl<'a> Features<'a> {
    fn of(tensor: &'a Tensor) -> Result<Features<'a>, Error> {
        match tensor.strings() {
            Some(strings) => Ok(Features::Strings(strings)),
            None => integers(tensor).map(Features::Ints),
        }
    }

    fn len(&self) -> usize {
        match self {
            Features::Strings(strings) => strings.len(),
            Features::Ints(ints) => ints.len(),
        }
    }

    fn hash(&self, at: usize) -> u64 {
        match self {
            Features::Strings(strings) => farm::fingerprint(&strings[at]),
            Features::Ints(ints) => ints[at].cast_unsigned(),
        }
    }

    fn text(&self, at: usize) -> Bytes {
        match self {
            Features::Strings(strings) => strings[at].clone(),
            Features::Ints(ints) => Bytes::from(ints[at].to_string()),
        }
    }
}

/// Inputs: indices, values and shapes of the sparse columns (`n_sparse` each), then the dense columns. Gives a sparse
/// tensor: of the last column the features vary fastest.
pub(super) fn sparse_cross(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let n_sparse = usize::try_from(call.attributes.int("n_sparse", 0)?).unwrap_or(usize::MAX);
    let n_dense = n_sparse.checked_mul(3).and_then(|n| call.inputs.len().checked_sub(n));
    let n_dense = n_dense.filter(|n_dense| n_sparse + n_dense > 0).ok_or_else(|| {
        Error::invalid(format!("{} inputs of {} for {n_sparse} sparse columns", call.inputs.len(), call.op))
    })?;
    let n_rows = match n_sparse {
        0 => call.input(0)?.shape().n_rows(),
        _ => call.ints(2 * n_sparse)?.first().and_then(|&n| usize::try_from(n).ok()),
    };
    let n_rows = n_rows.ok_or_else(|| Error::invalid(format!("{} of columns without rows", call.op)))?;
    if n_rows > MAX_CROSSES {
        return Err(Error::too_large(format!("{n_rows} rows to cross, at most {MAX_CROSSES} are")));
    }
    let mut columns = Vec::with_capacity(n_sparse + n_dense);
    for at in 0..n_sparse {
        columns.push(sparse_column(call.input(at)?, call.input(n_sparse + at)?, n_rows)?);
    }
    for at in 0..n_dense {
        columns.push(dense_column(call.input(3 * n_sparse + at)?, n_rows)?);
    }
    cross(call, &columns, n_rows)
}

fn sparse_column<'a>(indices: &Tensor, values: &'a Tensor, n_rows: usize) -> Result<Column<'a>, Error> {
    let features = Features::of(values)?;
    let places = integers(indices)?;
    let width = indices.shape().dims().get(1).copied().unwrap_or(0);
    if indices.shape().rank() != 2 || width == 0 || places.len() / width != features.len() {
        let (a, b) = (indices.shape(), values.shape());
        return Err(Error::invalid(format!(
            "indices of shape {a} and values of shape {b} of a sparse column"
        )));
    }
    let mut starts = vec![0usize; n_rows + 1];
    let mut last = 0;
    for place in places.chunks_exact(width) {
        let row = usize::try_from(place[0]).ok().filter(|&row| row < n_rows && row >= last);
        let row = row.ok_or_else(|| Error::invalid(format!("row {} of {n_rows}, in order", place[0])))?;
        starts[row + 1] += 1;
        last = row;
    }
    for row in 0..n_rows {
        starts[row + 1] += starts[row];
    }
    Ok(Column { features, starts })
}

fn dense_column(tensor: &Tensor, n_rows: usize) -> Result<Column<'_>, Error> {
    if tensor.shape().rank() != 2 || tensor.shape().n_rows() != Some(n_rows) {
        let shape = tensor.shape();
        return Err(Error::invalid(format!("a dense column of shape {shape}, expected {n_rows} rows")));
    }
    let width = tensor.shape().row_elements();
    Ok(Column { features: Features::of(tensor)?, starts: (0..=n_rows).map(|row| row * width).collect() })
}

fn cross(call: &Call<'_>, columns: &[Column<'_>], n_rows: usize) -> Result<Vec<Tensor>, Error> {
    let hashed = call.attributes.flag("hashed_output", false)?;
    let key = call.attributes.int("hash_key", 0)?.cast_unsigned();
    let n_buckets = u64::try_from(call.attributes.int("num_buckets", 0)?).unwrap_or(0);
    let n_buckets = if n_buckets == 0 { i64::MAX.cast_unsigned() } else { n_buckets };
    let counts = |row: usize| columns.iter().map(move |column| column.starts[row + 1] - column.starts[row]);
    let per_row = |row: usize| counts(row).try_fold(1usize, usize::checked_mul).unwrap_or(usize::MAX);
    let total = (0..n_rows).map(per_row).fold(0usize, usize::saturating_add);
    if total > MAX_CROSSES {
        return Err(Error::too_large(format!("{total} crosses, at most {MAX_CROSSES} are made")));
    }
    let (mut indices, mut numbers, mut texts) = (Vec::with_capacity(2 * total), Vec::new(), Vec::new());
    let mut budget = Budget::default();
    for row in 0..n_rows {
        for n in 0..per_row(row) {
            let chosen = chosen(columns, row, n);
            indices.extend([row as i64, n as i64]);
            if hashed {
                let hash =
                    columns.iter().zip(&chosen).fold(key, |hash, (c, &at)| joined(hash, c.features.hash(at)));
                numbers.push(i64::try_from(hash % n_buckets).unwrap_or(i64::MAX));
            } else {
                let parts: Vec<Bytes> =
                    columns.iter().zip(&chosen).map(|(c, &at)| c.features.text(at)).collect();
                let text = parts.join(&b"_X_"[..]);
                budget.take(text.len())?;
                texts.push(Bytes::from(text));
            }
        }
    }
    let widest = (0..n_rows).map(per_row).max().unwrap_or(0);
    let values = match hashed {
        true => Tensor::from_vec(Shape::vector(total)?, numbers)?,
        false => Tensor::from_strings(Shape::vector(total)?, texts)?,
    };
    Ok(vec![
        Tensor::from_vec(Shape::new(&[total, 2])?, indices)?,
        values,
        Tensor::from_vec(Shape::vector(2)?, vec![n_rows as i64, widest as i64])?,
    ])
}

/// The position of each column's feature in the cross of that number.
fn chosen(columns: &[Column<'_>], row: usize, mut n: usize) -> Vec<usize> {
    let mut chosen = vec![0; columns.len()];
    for (at, column) in chosen.iter_mut().zip(columns).rev() {
        let count = column.starts[row + 1] - column.starts[row];
        *at = column.starts[row] + n % count;
        n /= count;
    }
    chosen
}

/// `FingerprintCat64` of `tensorflow/core/platform/fingerprint.h`.
fn joined(first: u64, second: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    let mix = |x: u64| x ^ x >> 47;
    let mut result = first ^ M;
    result ^= mix(second.wrapping_mul(M)).wrapping_mul(M);
    result = result.wrapping_mul(M);
    result = mix(result).wrapping_mul(M);
    mix(result)
}
