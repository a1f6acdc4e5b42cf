//! Shapes whose element count is known to fit in memory arithmetic.

use std::fmt;

use smallvec::SmallVec;

/// The largest number of dimensions that a shape may have. TensorFlow's own bound is 254; no operator that any
/// engine here runs goes beyond 8, and a bound keeps every loop over dimensions short.
pub const MAX_RANK: usize = 32;

/// The dimensions of a tensor, outermost first. The product of the dimensions is checked when the shape is made,
/// so [`Shape::n_elements`] cannot overflow.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: SmallVec<[usize; 6]>,
    n_elements: usize,
}

/// Why a list of dimensions is not a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShapeError {
    /// More than [`MAX_RANK`] dimensions.
    Rank(usize),
    /// The product of the dimensions, zeros left out, does not fit in 48 bits.
    Overflow(Vec<usize>),
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShapeError::Rank(rank) => write!(f, "{rank} dimensions, expected at most {MAX_RANK}"),
            ShapeError::Overflow(dims) => {
                write!(f, "shape {} has more elements than fit in memory", List(dims))
            }
        }
    }
}

impl std::error::Error for ShapeError {}

/// No address space holds more elements than this, and a size in bytes still fits in 64 bits.
const MAX_ELEMENTS: usize = 1 << 48;

impl Shape {
    /// Checks the dimensions.
    ///
    /// # Errors
    /// [`ShapeError`] when there are more than [`MAX_RANK`] of them or their product is out of range. Zeros are
    /// left out of that product, so that `[0, 2^60]` is refused as `[2^60]` is.
    pub fn new(dims: &[usize]) -> Result<Shape, ShapeError> {
        if dims.len() > MAX_RANK {
            return Err(ShapeError::Rank(dims.len()));
        }
        let mut product = 1usize;
        for &dim in dims.iter().filter(|&&dim| dim != 0) {
            product = product
                .checked_mul(dim)
                .filter(|&n| n <= MAX_ELEMENTS)
                .ok_or_else(|| ShapeError::Overflow(dims.to_vec()))?;
        }
        let n_elements = if dims.contains(&0) { 0 } else { product };
        Ok(Shape { dims: SmallVec::from_slice(dims), n_elements })
    }

    /// The shape of a single value: no dimensions, one element.
    pub fn scalar() -> Shape {
        Shape { dims: SmallVec::new(), n_elements: 1 }
    }

    /// A shape of one dimension.
    ///
    /// # Errors
    /// As [`Shape::new`].
    pub fn vector(len: usize) -> Result<Shape, ShapeError> {
        Shape::new(&[len])
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The number of dimensions; 0 for a scalar.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The product of the dimensions; 1 for a scalar.
    pub fn n_elements(&self) -> usize {
        self.n_elements
    }

    /// The outermost dimension, by which requests are joined to batches; `None` for a scalar.
    pub fn n_rows(&self) -> Option<usize> {
        self.dims.first().copied()
    }

    /// Elements per row: the product of all dimensions but the outermost; 1 for a scalar.
    pub fn row_elements(&self) -> usize {
        self.dims.iter().skip(1).product()
    }

    /// The dimensions of one row: all but the outermost.
    pub fn row_dims(&self) -> &[usize] {
        self.dims.get(1..).unwrap_or_default()
    }

    /// The same shape with another outermost dimension.
    ///
    /// # Errors
    /// As [`Shape::new`]; a scalar becomes a vector of `n_rows`.
    pub fn with_rows(&self, n_rows: usize) -> Result<Shape, ShapeError> {
        let mut dims = SmallVec::<[usize; 6]>::from_slice(&[n_rows]);
        dims.extend_from_slice(self.row_dims());
        Shape::new(&dims)
    }
}

struct List<'a>(&'a [usize]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// `[2,3]`, as TensorFlow prints shapes.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&List(&self.dims), f)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&List(&self.dims), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_that_overflows_is_refused() {
        for dims in [&[1 << 60][..], &[1 << 40, 1 << 40], &[0, 1 << 60], &[usize::MAX, usize::MAX]] {
            assert_eq!(Shape::new(dims), Err(ShapeError::Overflow(dims.to_vec())), "{dims:?}");
        }
        assert_eq!(Shape::new(&[1; MAX_RANK + 1]), Err(ShapeError::Rank(MAX_RANK + 1)));
    }

    #[test]
    fn rows_and_elements() {
        let shape = Shape::new(&[4, 2, 3]).unwrap();
        assert_eq!((shape.n_rows(), shape.row_elements(), shape.n_elements()), (Some(4), 6, 24));
        assert_eq!(shape.with_rows(7).unwrap().dims(), [7, 2, 3]);
        assert_eq!(Shape::scalar().n_elements(), 1);
        assert_eq!(Shape::scalar().n_rows(), None);
        assert_eq!(Shape::new(&[0, 5]).unwrap().n_elements(), 0);
        assert_eq!(shape.to_string(), "[4,2,3]");
    }
}
