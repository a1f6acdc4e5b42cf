//! Ragged tensors: values, and how they part into rows.

use salver_tensor::{DType, Shape, Tensor};

use crate::Error;
use crate::call::Call;
use crate::datum::{Datum, by_width};
use crate::layout::{Walk, broadcast, broadcast_strides, output_shape, scratch};

/// How the rows of one level part into those of the next: the row of each, in order.
struct Level {
    n_rows: usize,
    parents: Vec<usize>,
}

impl Level {
    fn from_splits(splits: &[i64]) -> Result<Level, Error> {
        let bad = || Error::invalid("Invalid row split size.");
        if splits.first() != Some(&0) || !splits.is_sorted() {
            return Err(bad());
        }
        let last = splits.last().and_then(|&last| usize::try_from(last).ok()).ok_or_else(bad)?;
        let n = scratch(&[last], size_of::<usize>())?;
        let mut parents = Vec::new();
        for (row, pair) in splits.windows(2).enumerate() {
            let len = usize::try_from(pair[1] - pair[0]).map_err(|_| bad())?;
            parents.extend(std::iter::repeat_n(row, len));
        }
        debug_assert_eq!(parents.len(), n);
        Ok(Level { n_rows: splits.len() - 1, parents })
    }

    fn from_row_ids(ids: &[i64], n_rows: usize) -> Result<Level, Error> {
        let inside = |&id: &i64| usize::try_from(id).ok().filter(|&id| id < n_rows);
        let parents: Option<Vec<usize>> = ids.iter().map(inside).collect();
        match parents {
            Some(parents) if parents.is_sorted() => Ok(Level { n_rows, parents }),
            _ => Err(Error::invalid(format!("row ids have to rise and be below {n_rows}"))),
        }
    }

    /// The most children of a row.
    fn width(&self) -> usize {
        self.parents.chunk_by(|a, b| a == b).map(<[usize]>::len).max().unwrap_or(0)
    }

    /// The position of each child in its row.
    fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.parents.chunk_by(|a, b| a == b).flat_map(|row| 0..row.len())
    }
}

/// Fits each level to the one below it, and the last to the values.
fn check(levels: &[Level], n_values: usize) -> Result<(), Error> {
    let below = levels.iter().skip(1).map(|level| level.n_rows).chain(std::iter::once(n_values));
    for (level, below) in levels.iter().zip(below) {
        if level.parents.len() != below {
            let n = level.parents.len();
            return Err(Error::invalid(format!("a row partition is of {n} rows, the next has {below}")));
        }
    }
    Ok(())
}

/// A dense tensor; rows that are too short are filled with a default, those that are too long are cut.
pub(super) fn to_tensor(call: &Call<'_>) -> Result<Tensor, Error> {
    let (shape, values, default) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let types = call.attributes.texts("row_partition_types")?.unwrap_or_default();
    if values.shape().rank() == 0 || default.dtype() != values.dtype() {
        return Err(Error::invalid("values must be at least a vector, and default_value of their type"));
    }
    let levels = levels(call, types)?;
    let first = levels.first().ok_or_else(|| Error::invalid("no row partition tensors"))?;
    check(&levels, values.shape().dims()[0])?;
    let inner = &values.shape().dims()[1..];
    let mut dims = wanted(shape, call, levels.len(), inner)?;
    let widths: Vec<usize> = std::iter::once(first.n_rows).chain(levels.iter().map(Level::width)).collect();
    for (dim, &width) in dims.iter_mut().zip(&widths) {
        dim.get_or_insert(width);
    }
    let dims: Vec<usize> = dims.into_iter().flatten().collect();
    let out_shape = output_shape(values.dtype(), &dims)?;
    // Where each row of a level goes, if it is inside of the result.
    let mut places: Vec<Option<usize>> =
        (0..first.n_rows).map(|row| Some(row).filter(|&row| row < dims[0])).collect();
    for (level, &width) in levels.iter().zip(&dims[1..]) {
        let place = |(&parent, at): (&usize, usize)| {
            places[parent].filter(|_| at < width).map(|place| place * width + at)
        };
        places = level.parents.iter().zip(level.positions()).map(place).collect();
    }
    if broadcast(default.shape().dims(), inner)?[..] != *inner {
        let (default, inner) = (default.shape(), Shape::new(inner)?);
        return Err(Error::invalid(format!(
            "default_value of shape {default} does not fit values of {inner}"
        )));
    }
    by_width!(values.dtype(), T => place_all::<T>(values, default, out_shape, inner, &places))
}

fn place_all<T: Datum>(
    values: &Tensor,
    default: &Tensor,
    shape: Shape,
    inner: &[usize],
    places: &[Option<usize>],
) -> Result<Tensor, Error> {
    let width: usize = inner.iter().product();
    let (from, filler) = (T::read(values), T::read(default));
    let mut row = Vec::new();
    let walk = Walk::new(inner, [&broadcast_strides(default.shape().dims(), inner)]);
    walk.each([0], |[at]| row.push(filler[at].clone()));
    let n = shape.n_elements();
    let mut out = Vec::with_capacity(n);
    while out.len() < n && !row.is_empty() {
        out.extend_from_slice(&row);
    }
    for (at, place) in places.iter().enumerate() {
        if let Some(place) = place {
            out[place * width..(place + 1) * width].clone_from_slice(&from[at * width..(at + 1) * width]);
        }
    }
    T::tensor(values.dtype(), shape, out)
}

fn levels(call: &Call<'_>, types: &[String]) -> Result<Vec<Level>, Error> {
    let mut levels: Vec<Level> = Vec::new();
    let mut n_first = None;
    for (at, kind) in types.iter().enumerate() {
        let partition = call.ints(3 + at)?;
        match (&**kind, partition.first(), levels.last()) {
            ("FIRST_DIM_SIZE", Some(&n), None) if at == 0 => {
                n_first = Some(crate::call::size(n, "the first dimension")?)
            }
            ("ROW_SPLITS", ..) => levels.push(Level::from_splits(&partition)?),
            ("VALUE_ROWIDS", _, above) => {
                let n_rows = above.map(|above| above.parents.len()).or(n_first);
                let n_rows =
                    n_rows.ok_or_else(|| Error::invalid("Cannot handle VALUE_ROWIDS in first dimension."))?;
                levels.push(Level::from_row_ids(&partition, n_rows)?);
            }
            (other, ..) => {
                return Err(Error::invalid(format!("row partition {at} is of the type '{other}'")));
            }
        }
    }
    Ok(levels)
}

/// The dimensions asked for; `None` where the rows decide.
fn wanted(
    shape: &Tensor,
    call: &Call<'_>,
    n_levels: usize,
    inner: &[usize],
) -> Result<Vec<Option<usize>>, Error> {
    let rank = n_levels + 1 + inner.len();
    let given = call.ints(0)?;
    let known = |dim: i64| usize::try_from(dim).ok();
    let given = match shape.shape().rank() {
        // Any shape at all.
        0 if given == [-1] => vec![None; rank],
        0 => return Err(Error::invalid(format!("shape is {}, expected -1 or a list", given[0]))),
        _ => given.into_iter().map(known).collect(),
    };
    let fits = given.len() == rank
        && given.iter().skip(n_levels + 1).zip(inner).all(|(dim, &size)| dim.is_none_or(|dim| dim == size));
    if !fits {
        return Err(Error::invalid(format!(
            "shape {given:?} does not fit a ragged tensor of {} ragged dimensions with values of {inner:?}",
            n_levels
        )));
    }
    let inner = inner.iter().map(|&size| Some(size));
    Ok(given.into_iter().take(n_levels + 1).chain(inner).collect())
}

/// The indices, values and shape of a sparse tensor.
pub(super) fn to_sparse(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let n_levels = call.inputs.len().saturating_sub(1);
    let values = call.input(n_levels)?;
    let levels = (0..n_levels)
        .map(|level| Level::from_splits(&call.ints(level)?))
        .collect::<Result<Vec<Level>, Error>>()?;
    let (Some(first), Some(n_values)) = (levels.first(), values.shape().n_rows()) else {
        return Err(Error::invalid("a ragged tensor has row splits and values"));
    };
    if levels.last().is_some_and(|last| last.parents.len() != n_values) {
        return Err(Error::invalid(
            "Final value of ragged splits must match the length the corresponding ragged values.",
        ));
    }
    check(&levels, n_values)?;
    let inner = &values.shape().dims()[1..];
    let rank = n_levels + 1 + inner.len();
    let n = values.shape().n_elements();
    let shape = output_shape(DType::I64, &[n, rank])?;
    let mut rows: Vec<Vec<i64>> = (0..first.n_rows).map(|row| vec![row as i64]).collect();
    for level in &levels {
        let children = level.parents.iter().zip(level.positions());
        rows = children.map(|(&parent, at)| [&rows[parent][..], &[at as i64]].concat()).collect();
    }
    let mut indices = Vec::with_capacity(shape.n_elements());
    for row in &rows {
        each_index(inner, |index| {
            indices.extend_from_slice(row);
            indices.extend_from_slice(index);
        });
    }
    let widths = levels.iter().map(Level::width);
    let dims = std::iter::once(first.n_rows).chain(widths).chain(inner.iter().copied());
    let dims: Vec<i64> = dims.map(|dim| dim as i64).collect();
    Ok(vec![
        Tensor::from_vec(shape, indices)?,
        values.reshape(Shape::vector(n)?)?,
        Tensor::from_vec(Shape::vector(rank)?, dims)?,
    ])
}

/// Visits all indices into some dimensions in order.
fn each_index(dims: &[usize], mut visit: impl FnMut(&[i64])) {
    let n: usize = dims.iter().product();
    let mut index = vec![0i64; dims.len()];
    for _ in 0..n {
        visit(&index);
        for (at, &dim) in index.iter_mut().zip(dims).rev() {
            *at += 1;
            if *at < dim as i64 {
                break;
            }
            *at = 0;
        }
    }
}
