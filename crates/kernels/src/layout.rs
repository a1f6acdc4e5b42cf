//! Shapes, strides, broadcasting: where elements lie.

use salver_tensor::{DType, MAX_RANK, Shape, Tensor};
use smallvec::SmallVec;

use crate::Error;

/// Dimensions.
pub(crate) type Dims = SmallVec<[usize; 8]>;
/// Steps in elements, one per dimension.
pub(crate) type Strides = SmallVec<[isize; 8]>;

/// The most elements that a result may have.
pub(crate) const MAX_ELEMENTS: usize = 1 << 31;
/// The most bytes that a result may take.
pub(crate) const MAX_BYTES: usize = 1 << 32;
/// What a string takes beside its text.
const STRING_BYTES: usize = size_of::<bytes::Bytes>();

/// The shape of a result, refused before anything is allocated when it would not fit in memory.
pub(crate) fn output_shape(dtype: DType, dims: &[usize]) -> Result<Shape, Error> {
    let shape = Shape::new(dims)?;
    let n = extent(&shape);
    let size = dtype.size().unwrap_or(STRING_BYTES);
    if n > MAX_ELEMENTS || n.saturating_mul(size) > MAX_BYTES {
        return Err(Error::too_large(format!("a {dtype} result of shape {shape} does not fit in memory")));
    }
    Ok(shape)
}

/// The product of the dimensions that are not zero: what loops over a shape may come to, even one without elements.
fn extent(shape: &Shape) -> usize {
    shape.dims().iter().filter(|&&dim| dim != 0).product()
}

/// Refuses an empty input with dimensions beyond what one with elements could have.
pub(crate) fn check_input(tensor: &Tensor) -> Result<(), Error> {
    let shape = tensor.shape();
    if shape.n_elements() == 0 && extent(shape) > MAX_ELEMENTS {
        return Err(Error::too_large(format!("an input of shape {shape}")));
    }
    Ok(())
}

/// Refuses memory for intermediate values that goes beyond what a result may take; gives back the product.
pub(crate) fn scratch(factors: &[usize], element_bytes: usize) -> Result<usize, Error> {
    let n = factors.iter().try_fold(1usize, |n, &factor| n.checked_mul(factor));
    n.filter(|n| n.checked_mul(element_bytes).is_some_and(|bytes| bytes <= MAX_BYTES))
        .ok_or_else(|| Error::too_large("intermediate values do not fit in memory"))
}

/// The steps of a contiguous tensor.
pub(crate) fn strides(dims: &[usize]) -> Strides {
    let mut strides: Strides = SmallVec::from_elem(0, dims.len());
    let mut step = 1isize;
    for (stride, &dim) in strides.iter_mut().zip(dims).rev() {
        *stride = step;
        // A shape with a zero may hold other dimensions of any size; nothing is read from it.
        step = step.saturating_mul(isize::try_from(dim).unwrap_or(isize::MAX));
    }
    strides
}

/// An axis counted from the front; a negative one counts from the back.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, Error> {
    let signed_rank = rank as i64;
    let from_front = if axis < 0 { axis.saturating_add(signed_rank) } else { axis };
    usize::try_from(from_front)
        .ok()
        .filter(|&axis| axis < rank)
        .ok_or_else(|| Error::invalid(format!("axis {axis} of {rank} dimensions")))
}

/// Axes counted from the front, each at most once.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, Error> {
    let mut seen = [false; MAX_RANK];
    let mut axes = Vec::with_capacity(list.len().min(MAX_RANK));
    for &entry in list {
        let axis = axis(entry, rank)?;
        if std::mem::replace(&mut seen[axis], true) {
            return Err(Error::invalid(format!("axis {entry} is given twice")));
        }
        axes.push(axis);
    }
    Ok(axes)
}

/// The dimensions that two shapes are brought to by NumPy's rules.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Dims, Error> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(Error::invalid(format!("shapes {a:?} and {b:?} cannot be brought to one"))),
        })
        .collect()
}

/// The steps that read a contiguous tensor of shape `from` as one of shape `to`, which it broadcasts to.
pub(crate) fn broadcast_strides(from: &[usize], to: &[usize]) -> Strides {
    let own = strides(from);
    let lead = to.len() - from.len();
    let mut result: Strides = SmallVec::from_elem(0, to.len());
    for (i, (&stride, &dim)) in own.iter().zip(from).enumerate() {
        if dim != 1 {
            result[lead + i] = stride;
        }
    }
    result
}

/// A walk over `N` arrays that are read in step, with neighbouring dimensions joined where all of them allow it.
pub(crate) struct Walk<const N: usize> {
    outer: Dims,
    outer_strides: [Strides; N],
    /// Elements of the innermost dimension.
    pub(crate) len: usize,
    /// Steps within the innermost dimension.
    pub(crate) steps: [isize; N],
    empty: bool,
}

impl<const N: usize> Walk<N> {
    /// A walk over `dims`; each array has one step per dimension.
    pub(crate) fn new(dims: &[usize], strides: [&[isize]; N]) -> Walk<N> {
        let mut joined: Dims = Dims::new();
        let mut steps: [Strides; N] = std::array::from_fn(|_| Strides::new());
        for i in 0..dims.len() {
            if dims[i] == 1 {
                continue;
            }
            let fits = joined.last().is_some()
                && (0..N).all(|n| {
                    steps[n].last().is_some_and(|&last| {
                        strides[n][i].checked_mul(dims[i] as isize).is_some_and(|step| step == last)
                    })
                });
            if fits {
                let last = joined.len() - 1;
                joined[last] = joined[last].saturating_mul(dims[i]);
                (0..N).for_each(|n| steps[n][last] = strides[n][i]);
            } else {
                joined.push(dims[i]);
                (0..N).for_each(|n| steps[n].push(strides[n][i]));
            }
        }
        let len = joined.pop().unwrap_or(1);
        let inner = std::array::from_fn(|n| steps[n].pop().unwrap_or(1));
        Walk { outer: joined, outer_strides: steps, len, steps: inner, empty: dims.contains(&0) }
    }

    /// Calls `visit` with the positions of the first elements of each innermost run, in order. The positions begin at
    /// `start`.
    pub(crate) fn run(&self, start: [isize; N], mut visit: impl FnMut([isize; N])) {
        if self.empty {
            return;
        }
        let mut at = start;
        let mut index: Dims = SmallVec::from_elem(0, self.outer.len());
        loop {
            visit(at);
            let mut axis = self.outer.len();
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                index[axis] += 1;
                if index[axis] < self.outer[axis] {
                    (0..N).for_each(|n| at[n] += self.outer_strides[n][axis]);
                    break;
                }
                index[axis] = 0;
                let back = (self.outer[axis] - 1) as isize;
                (0..N).for_each(|n| at[n] -= self.outer_strides[n][axis] * back);
            }
        }
    }

    /// Calls `visit` with the positions of every element, in order.
    pub(crate) fn each(&self, start: [isize; N], mut visit: impl FnMut([usize; N])) {
        self.run(start, |mut at| {
            for _ in 0..self.len {
                visit(at.map(|position| position as usize));
                (0..N).for_each(|n| at[n] += self.steps[n]);
            }
        });
    }
}

/// The elements of `source` read with `strides` from `offset`, in a row.
pub(crate) fn copy_strided<T: Clone>(
    source: &[T],
    offset: isize,
    dims: &[usize],
    strides: &[isize],
) -> Vec<T> {
    let n = if dims.contains(&0) { 0 } else { dims.iter().product() };
    let mut out = Vec::with_capacity(n);
    let walk = Walk::new(dims, [strides]);
    walk.run([offset], |[at]| match walk.steps[0] {
        1 => out.extend_from_slice(&source[at as usize..at as usize + walk.len]),
        0 => out.extend(std::iter::repeat_n(&source[at as usize], walk.len).cloned()),
        step => out.extend((0..walk.len as isize).map(|i| source[(at + i * step) as usize].clone())),
    });
    out
}

/// A matrix seen in a shape: the dimensions before an axis, the axis, those after it.
pub(crate) fn around(dims: &[usize], axis: usize) -> (usize, usize, usize) {
    let before: usize = dims[..axis].iter().product();
    let after: usize = dims[axis + 1..].iter().product();
    (before, dims[axis], after)
}

/// The same elements under another shape.
pub(crate) fn reshaped(tensor: &Tensor, dims: &[usize]) -> Result<Tensor, Error> {
    Ok(tensor.reshape(Shape::new(dims)?)?)
}
