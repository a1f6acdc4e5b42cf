//! Tensors: an element type, a shape and shared bytes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::{DType, Element, Shape, ShapeError};

/// An immutable tensor. Cloning it and taking rows of it share the elements.
///
/// Elements of a fixed size are little-endian bytes, row-major, at any alignment. Strings are one shared byte
/// string per element.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    data: Data,
}

#[derive(Clone)]
enum Data {
    Fixed(Bytes),
    Strings(Strings),
}

/// A range of a shared list of byte strings.
#[derive(Clone)]
struct Strings {
    all: Arc<[Bytes]>,
    start: usize,
    len: usize,
}

impl Strings {
    fn as_slice(&self) -> &[Bytes] {
        &self.all[self.start..self.start + self.len]
    }
}

/// Why a tensor cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorError {
    /// The dimensions are not a shape.
    Shape(ShapeError),
    /// The number of elements or bytes is not what the shape asks for.
    Length {
        /// The element type.
        dtype: DType,
        /// The shape asked for.
        shape: Shape,
        /// Bytes (fixed-size types) or elements (strings) that the shape asks for.
        expected: usize,
        /// Bytes or elements given.
        got: usize,
    },
    /// A boolean byte that is neither 0 nor 1.
    Bool(u8),
    /// Two tensors that cannot be joined along the outermost dimension.
    Mismatch(String),
}

impl From<ShapeError> for TensorError {
    fn from(error: ShapeError) -> TensorError {
        TensorError::Shape(error)
    }
}

impl fmt::Display for TensorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TensorError::Shape(error) => error.fmt(f),
            TensorError::Length { dtype, shape, expected, got } => {
                let unit = if *dtype == DType::String { "elements" } else { "bytes" };
                write!(f, "{dtype} tensor of shape {shape} takes {expected} {unit}, got {got}")
            }
            TensorError::Bool(byte) => write!(f, "bool element is {byte}, expected 0 or 1"),
            TensorError::Mismatch(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for TensorError {}

impl Tensor {
    /// A tensor over little-endian bytes, shared and not copied. `dtype` must have a fixed size.
    ///
    /// # Errors
    /// [`TensorError::Length`] when the bytes are not exactly what the shape takes (also for
    /// [`DType::String`], which has no such bytes); [`TensorError::Bool`] for a boolean other than 0 and 1.
    pub fn from_bytes(dtype: DType, shape: Shape, bytes: Bytes) -> Result<Tensor, TensorError> {
        let expected = shape.n_elements().saturating_mul(dtype.size().unwrap_or(usize::MAX));
        if dtype == DType::String || expected != bytes.len() {
            return Err(TensorError::Length { dtype, shape, expected, got: bytes.len() });
        }
        if dtype == DType::Bool
            && let Some(&byte) = bytes.iter().find(|&&byte| byte > 1)
        {
            return Err(TensorError::Bool(byte));
        }
        Ok(Tensor { dtype, shape, data: Data::Fixed(bytes) })
    }

    /// A tensor that takes over the vector's memory; nothing is copied.
    ///
    /// # Errors
    /// [`TensorError::Length`] when the shape asks for another number of elements.
    pub fn from_vec<T: Element>(shape: Shape, elements: Vec<T>) -> Result<Tensor, TensorError> {
        Tensor::from_bytes(T::DTYPE, shape, Bytes::from_owner(Owned(elements)))
    }

    /// A boolean tensor.
    ///
    /// # Errors
    /// [`TensorError::Length`] when the shape asks for another number of elements.
    pub fn from_bools(shape: Shape, elements: &[bool]) -> Result<Tensor, TensorError> {
        let bytes: Vec<u8> = elements.iter().map(|&b| u8::from(b)).collect();
        Tensor::from_bytes(DType::Bool, shape, Bytes::from(bytes))
    }

    /// A tensor of byte strings.
    ///
    /// # Errors
    /// [`TensorError::Length`] when the shape asks for another number of elements.
    pub fn from_strings(shape: Shape, elements: Vec<Bytes>) -> Result<Tensor, TensorError> {
        if elements.len() != shape.n_elements() {
            let (expected, got) = (shape.n_elements(), elements.len());
            return Err(TensorError::Length { dtype: DType::String, shape, expected, got });
        }
        let len = elements.len();
        let strings = Strings { all: elements.into(), start: 0, len };
        Ok(Tensor { dtype: DType::String, shape, data: Data::Strings(strings) })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The elements as little-endian bytes, shared; `None` for strings.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.data {
            Data::Fixed(bytes) => Some(bytes),
            Data::Strings(_) => None,
        }
    }

    /// The elements in place; `None` when `T` is not the element type or the bytes are not aligned for it.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        let bytes = self.bytes().filter(|_| T::DTYPE == self.dtype)?;
        bytemuck::try_cast_slice(bytes).ok()
    }

    /// The elements, copied only if they are not aligned; `None` when `T` is not the element type.
    pub fn to_slice<T: Element>(&self) -> Option<Cow<'_, [T]>> {
        let bytes = self.bytes().filter(|_| T::DTYPE == self.dtype)?;
        Some(match bytemuck::try_cast_slice(bytes) {
            Ok(elements) => Cow::Borrowed(elements),
            Err(_) => Cow::Owned(copy_elements(bytes, self.shape.n_elements())),
        })
    }

    /// The byte strings; `None` for any other element type.
    pub fn strings(&self) -> Option<&[Bytes]> {
        match &self.data {
            Data::Fixed(_) => None,
            Data::Strings(strings) => Some(strings.as_slice()),
        }
    }

    /// Bytes that the elements take, without bookkeeping; of strings, the sum of their lengths.
    pub fn n_bytes(&self) -> usize {
        match &self.data {
            Data::Fixed(bytes) => bytes.len(),
            Data::Strings(strings) => strings.as_slice().iter().map(Bytes::len).sum(),
        }
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// [`TensorError::Length`] when the shape asks for another number of elements.
    pub fn reshape(&self, shape: Shape) -> Result<Tensor, TensorError> {
        if shape.n_elements() != self.shape.n_elements() {
            let unit = self.dtype.size().unwrap_or(1);
            let (expected, got) = (shape.n_elements() * unit, self.shape.n_elements() * unit);
            return Err(TensorError::Length { dtype: self.dtype, shape, expected, got });
        }
        Ok(Tensor { dtype: self.dtype, shape, data: self.data.clone() })
    }

    /// Rows `start..start + n_rows` along the outermost dimension, shared and not copied; `None` when the tensor
    /// is a scalar or has fewer rows.
    pub fn rows(&self, start: usize, n_rows: usize) -> Option<Tensor> {
        let end = start.checked_add(n_rows)?;
        if end > self.shape.n_rows()? {
            return None;
        }
        let shape = self.shape.with_rows(n_rows).ok()?;
        let row = self.shape.row_elements();
        let data = match &self.data {
            Data::Fixed(bytes) => {
                let row = row * self.dtype.size()?;
                Data::Fixed(bytes.slice(start * row..end * row))
            }
            Data::Strings(strings) => Data::Strings(Strings {
                all: strings.all.clone(),
                start: strings.start + start * row,
                len: n_rows * row,
            }),
        };
        Some(Tensor { dtype: self.dtype, shape, data })
    }

    /// Joins tensors along the outermost dimension. One tensor is passed on as it is; several are copied once,
    /// into memory aligned for every element type.
    ///
    /// # Errors
    /// [`TensorError::Mismatch`] when there is none, one is a scalar, or element types or row shapes differ;
    /// [`TensorError::Shape`] when the sum of the rows is out of range.
    pub fn concat(parts: &[Tensor]) -> Result<Tensor, TensorError> {
        let Some((first, rest)) = parts.split_first() else {
            return Err(TensorError::Mismatch("no tensors to join".into()));
        };
        if first.shape.rank() == 0 {
            return Err(TensorError::Mismatch("a scalar cannot be joined along dimension 0".into()));
        }
        if rest.is_empty() {
            return Ok(first.clone());
        }
        let mut n_rows = 0usize;
        for part in parts {
            if part.dtype != first.dtype
                || part.shape.rank() == 0
                || part.shape.row_dims() != first.shape.row_dims()
            {
                return Err(TensorError::Mismatch(format!(
                    "cannot join {} {} to {} {} along dimension 0",
                    part.dtype, part.shape, first.dtype, first.shape
                )));
            }
            n_rows = n_rows.saturating_add(part.shape.n_rows().unwrap_or(0));
        }
        let shape = first.shape.with_rows(n_rows)?;
        let data = match &first.data {
            Data::Fixed(_) => Data::Fixed(join_bytes(parts)),
            Data::Strings(_) => {
                let all: Arc<[Bytes]> = parts.iter().filter_map(Tensor::strings).flatten().cloned().collect();
                let len = all.len();
                Data::Strings(Strings { all, start: 0, len })
            }
        };
        Ok(Tensor { dtype: first.dtype, shape, data })
    }
}

/// Keeps a vector of elements alive behind [`Bytes`].
struct Owned<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The bytes of all parts in a row, aligned to 16 bytes.
fn join_bytes(parts: &[Tensor]) -> Bytes {
    let total: usize = parts.iter().map(Tensor::n_bytes).sum();
    let mut words = vec![0u128; total.div_ceil(16)];
    let joined: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    let mut at = 0;
    for bytes in parts.iter().filter_map(Tensor::bytes) {
        joined[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    }
    Bytes::from_owner(Words(words)).slice(..total)
}

struct Words(Vec<u128>);

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

fn copy_elements<T: Element>(bytes: &[u8], n_elements: usize) -> Vec<T> {
    let mut elements = vec![T::zeroed(); n_elements];
    bytemuck::cast_slice_mut::<T, u8>(&mut elements).copy_from_slice(bytes);
    elements
}

/// Equal element types, shapes and bytes. `NaN` equals itself here, and `0.0` differs from `-0.0`: this compares
/// what was stored, not what it means.
impl PartialEq for Tensor {
    fn eq(&self, other: &Tensor) -> bool {
        self.dtype == other.dtype
            && self.shape == other.shape
            && self.bytes() == other.bytes()
            && self.strings() == other.strings()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {})", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn floats(dims: &[usize], elements: Vec<f32>) -> Tensor {
        Tensor::from_vec(Shape::new(dims).unwrap(), elements).unwrap()
    }

    #[test]
    fn lengths_are_checked() {
        let shape = Shape::new(&[2, 2]).unwrap();
        let short = Tensor::from_bytes(DType::F32, shape.clone(), Bytes::from(vec![0u8; 12]));
        assert_eq!(short.unwrap_err().to_string(), "float32 tensor of shape [2,2] takes 16 bytes, got 12");
        assert!(Tensor::from_strings(shape.clone(), vec![Bytes::new(); 3]).is_err());
        assert!(Tensor::from_bytes(DType::String, shape.clone(), Bytes::new()).is_err());
        let bools = Tensor::from_bytes(DType::Bool, shape, Bytes::from(vec![0, 1, 2, 1]));
        assert_eq!(bools.unwrap_err(), TensorError::Bool(2));
    }

    #[test]
    fn a_misaligned_slice_is_copied_and_an_aligned_one_is_not() {
        let mut raw = vec![0u8];
        raw.extend(1.5f32.to_le_bytes());
        raw.extend((-2.0f32).to_le_bytes());
        let bytes = Bytes::from(raw);
        let shape = Shape::new(&[2]).unwrap();
        // One of the two offsets is misaligned, wherever the allocator put the buffer.
        let at_1 = Tensor::from_bytes(DType::F32, shape.clone(), bytes.slice(1..9)).unwrap();
        let at_0 = Tensor::from_bytes(DType::F32, shape, bytes.slice(0..8)).unwrap();
        assert!(at_0.as_slice::<f32>().is_none() || at_1.as_slice::<f32>().is_none());
        assert_eq!(*at_1.to_slice::<f32>().unwrap(), [1.5, -2.0]);
        assert!(at_1.to_slice::<i32>().is_none());
    }

    #[test]
    fn rows_share_and_concat_joins() {
        let a = floats(&[2, 2], vec![1.0, 2.0, 3.0, 4.0]);
        let b = floats(&[1, 2], vec![5.0, 6.0]);
        let joined = Tensor::concat(&[a.clone(), b]).unwrap();
        assert_eq!(joined.shape().dims(), [3, 2]);
        assert_eq!(joined.rows(1, 2).unwrap().as_slice::<f32>().unwrap(), [3.0, 4.0, 5.0, 6.0]);
        assert_eq!(joined.rows(2, 2), None);
        assert_eq!(
            Tensor::concat(std::slice::from_ref(&a)).unwrap().bytes().unwrap().as_ptr(),
            a.bytes().unwrap().as_ptr()
        );
        let message = Tensor::concat(&[a, floats(&[1, 3], vec![0.0; 3])]).unwrap_err().to_string();
        assert_eq!(message, "cannot join float32 [1,3] to float32 [2,2] along dimension 0");
    }

    #[test]
    fn strings_keep_their_order() {
        let words = |text: &[&'static str]| text.iter().map(|w| Bytes::from_static(w.as_bytes())).collect();
        let a = Tensor::from_strings(Shape::new(&[2]).unwrap(), words(&["a", "bc"])).unwrap();
        let joined = Tensor::concat(&[a.rows(1, 1).unwrap(), a]).unwrap();
        assert_eq!(joined.strings().unwrap(), ["bc", "a", "bc"]);
        assert_eq!(joined.n_bytes(), 5);
    }

    proptest! {
        /// Splitting a join gives back the parts, for any number of rows and any row shape.
        #[test]
        fn concat_then_rows_is_identity(
            row in prop::collection::vec(0usize..4, 0..3),
            sizes in prop::collection::vec(0usize..5, 1..6),
        ) {
            let mut next = 0f64;
            let parts: Vec<Tensor> = sizes.iter().map(|&n| {
                let mut dims = vec![n];
                dims.extend(&row);
                let shape = Shape::new(&dims).unwrap();
                let elements: Vec<f64> = (0..shape.n_elements()).map(|_| { next += 1.0; next }).collect();
                Tensor::from_vec(shape, elements).unwrap()
            }).collect();
            let joined = Tensor::concat(&parts).unwrap();
            let mut at = 0;
            for (part, &n) in parts.iter().zip(&sizes) {
                prop_assert_eq!(&joined.rows(at, n).unwrap(), part);
                at += n;
            }
            prop_assert_eq!(joined.shape().n_rows(), Some(at));
        }
    }
}
