//! `TensorProto` to tensors.

use std::cell::Cell;

use bytes::{Buf as _, Bytes};
use half::{bf16, f16};
use salver_tensor::{DType, Element, Shape, ShapeError, Tensor, TensorError};

use crate::Error;
use crate::proto::{DataType, TensorProto, TensorShapeProto};

const NUMBERS: [(DType, i32); 16] = [
    (DType::F32, 1),
    (DType::F64, 2),
    (DType::I32, 3),
    (DType::U8, 4),
    (DType::I16, 5),
    (DType::I8, 6),
    (DType::String, 7),
    (DType::C64, 8),
    (DType::I64, 9),
    (DType::Bool, 10),
    (DType::BF16, 14),
    (DType::U16, 17),
    (DType::C128, 18),
    (DType::F16, 19),
    (DType::U32, 22),
    (DType::U64, 23),
];

/// The element type of a `tensorflow.DataType`; a reference type (100 more) is read as the type it refers to. `None`
/// for types that no tensor here has: quantised, 8-bit floats, resources, variants and unknown numbers.
pub fn dtype_from_number(number: i32) -> Option<DType> {
    let plain = if number > 100 { number.wrapping_sub(100) } else { number };
    NUMBERS.iter().find(|(_, known)| *known == plain).map(|(dtype, _)| *dtype)
}

/// The `tensorflow.DataType` of an element type.
pub fn dtype_number(dtype: DType) -> i32 {
    NUMBERS.iter().find(|(known, _)| *known == dtype).map_or(0, |(_, number)| *number)
}

/// TensorFlow's name of a `DataType`, such as `DT_QINT8`, for messages.
pub fn dtype_name(number: i32) -> String {
    match DataType::try_from(number) {
        Ok(dtype) => dtype.as_str_name().to_owned(),
        Err(_) => format!("number {number}"),
    }
}

/// Bytes that tensors of one model may take beyond what their files hold: a `TensorProto` with one element may stand
/// for a tensor of any size.
#[derive(Debug)]
pub struct Budget {
    left: Cell<u64>,
}

impl Budget {
    /// That many bytes.
    pub fn new(n_bytes: u64) -> Budget {
        Budget { left: Cell::new(n_bytes) }
    }

    fn take(&self, n_bytes: u64) -> Result<(), Error> {
        let left = self.left.get();
        let rest = left.checked_sub(n_bytes).ok_or_else(|| {
            Error::too_large(format!(
                "a tensor takes {n_bytes} bytes, {left} are left of what repeated elements may take"
            ))
        })?;
        self.left.set(rest);
        Ok(())
    }
}

impl Default for Budget {
    /// 4 GiB.
    fn default() -> Budget {
        Budget::new(1 << 32)
    }
}

/// The dimensions that a shape message gives: `None` for an unknown number of them, `None` within for open ones.
pub fn proto_dims(proto: &TensorShapeProto) -> Option<Vec<Option<usize>>> {
    (!proto.unknown_rank).then(|| proto.dim.iter().map(|dim| usize::try_from(dim.size).ok()).collect())
}

/// Reads a tensor. `tensor_content` is shared and not copied. A field with fewer elements than the shape asks for
/// repeats its last one, an empty field stands for zeros or empty strings, and surplus elements are ignored. What is
/// repeated is taken from the budget before memory is reserved.
///
/// # Errors
/// [`ErrorKind::Unsupported`](crate::ErrorKind) for element types that no tensor here has, `Invalid` for shapes and
/// elements that do not fit, `TooLarge` when the budget does not suffice.
pub fn decode_tensor(proto: &TensorProto, budget: &Budget) -> Result<Tensor, Error> {
    let dtype = dtype_from_number(proto.dtype).ok_or_else(|| {
        Error::unsupported(format!("tensors of type {} are not supported", dtype_name(proto.dtype)))
    })?;
    let shape = match &proto.tensor_shape {
        None => Shape::scalar(),
        Some(shape) => decode_shape(shape)?,
    };
    let n = shape.n_elements();
    if n == 0 {
        return made(match dtype {
            DType::String => Tensor::from_strings(shape, Vec::new()),
            _ => Tensor::from_bytes(dtype, shape, Bytes::new()),
        });
    }
    if !proto.tensor_content.is_empty() {
        let content = proto.tensor_content.clone();
        return made(match dtype {
            DType::String => Tensor::from_strings(shape, split_strings(n, content)?),
            _ => Tensor::from_bytes(dtype, shape, content),
        });
    }
    decode_fields(dtype, shape, proto, budget)
}

/// A shape that must be fully known.
pub(crate) fn decode_shape(proto: &TensorShapeProto) -> Result<Shape, Error> {
    if proto.unknown_rank {
        return Err(Error::invalid("the shape of a tensor is not given"));
    }
    if proto.dim.len() > salver_tensor::MAX_RANK {
        return Err(shape_error(&ShapeError::Rank(proto.dim.len())));
    }
    let dim = |size: i64| {
        usize::try_from(size).map_err(|_| Error::invalid(format!("a dimension of a tensor is {size}")))
    };
    let dims: Vec<usize> = proto.dim.iter().map(|d| dim(d.size)).collect::<Result<_, _>>()?;
    Shape::new(&dims).map_err(|error| shape_error(&error))
}

fn shape_error(error: &ShapeError) -> Error {
    Error::invalid(error.to_string())
}

pub(crate) fn made(tensor: Result<Tensor, TensorError>) -> Result<Tensor, Error> {
    tensor.map_err(|error| Error::invalid(error.to_string()))
}

fn decode_fields(dtype: DType, shape: Shape, proto: &TensorProto, budget: &Budget) -> Result<Tensor, Error> {
    let n = shape.n_elements();
    match dtype {
        DType::F32 => fill(shape, proto.float_val.iter().copied(), budget),
        DType::F64 => fill(shape, proto.double_val.iter().copied(), budget),
        DType::I32 => fill(shape, proto.int_val.iter().copied(), budget),
        DType::I64 => fill(shape, proto.int64_val.iter().copied(), budget),
        DType::U32 => fill(shape, proto.uint32_val.iter().copied(), budget),
        DType::U64 => fill(shape, proto.uint64_val.iter().copied(), budget),
        DType::I16 => fill(shape, narrow::<i16>(&proto.int_val, n)?.into_iter(), budget),
        DType::I8 => fill(shape, narrow::<i8>(&proto.int_val, n)?.into_iter(), budget),
        DType::U16 => fill(shape, narrow::<u16>(&proto.int_val, n)?.into_iter(), budget),
        DType::U8 => fill(shape, narrow::<u8>(&proto.int_val, n)?.into_iter(), budget),
        DType::F16 => fill(shape, halves(&proto.half_val, n, f16::from_bits)?.into_iter(), budget),
        DType::BF16 => fill(shape, halves(&proto.half_val, n, bf16::from_bits)?.into_iter(), budget),
        DType::C64 => fill(shape, proto.scomplex_val.as_chunks::<2>().0.iter().copied(), budget),
        DType::C128 => fill(shape, proto.dcomplex_val.as_chunks::<2>().0.iter().copied(), budget),
        DType::Bool => {
            budget.take(n.saturating_sub(proto.bool_val.len()) as u64)?;
            let mut values: Vec<bool> = proto.bool_val.iter().copied().take(n).collect();
            values.resize(n, values.last().copied().unwrap_or_default());
            made(Tensor::from_bools(shape, &values))
        }
        DType::String => {
            let repeated = n.saturating_sub(proto.string_val.len()) as u64;
            budget.take(repeated.saturating_mul(size_of::<Bytes>() as u64))?;
            let mut values: Vec<Bytes> = proto.string_val.iter().take(n).cloned().collect();
            values.resize(n, values.last().cloned().unwrap_or_default());
            made(Tensor::from_strings(shape, values))
        }
    }
}

/// Makes the values as many as the shape asks for: cuts surplus ones off or repeats the last one.
fn fill<T: Element + Default>(
    shape: Shape,
    values: impl ExactSizeIterator<Item = T>,
    budget: &Budget,
) -> Result<Tensor, Error> {
    let n = shape.n_elements();
    budget.take((n.saturating_sub(values.len()) as u64).saturating_mul(size_of::<T>() as u64))?;
    let mut elements: Vec<T> = Vec::with_capacity(n);
    elements.extend(values.take(n));
    elements.resize(n, elements.last().copied().unwrap_or_default());
    made(Tensor::from_vec(shape, elements))
}

fn narrow<T: Element + TryFrom<i32>>(values: &[i32], n: usize) -> Result<Vec<T>, Error> {
    let out_of_range = |value| Error::invalid(format!("element {value} is out of range for {}", T::DTYPE));
    values.iter().take(n).map(|&value| T::try_from(value).map_err(|_| out_of_range(value))).collect()
}

/// The low 16 bits of each number; the writer may have extended the sign of the highest.
fn halves<T: Element>(values: &[i32], n: usize, make: fn(u16) -> T) -> Result<Vec<T>, Error> {
    let bits = |&value: &i32| {
        u16::try_from(value)
            .or_else(|_| i16::try_from(value).map(i16::cast_unsigned))
            .map_err(|_| Error::invalid(format!("element {value} is out of range for {}", T::DTYPE)))
    };
    values.iter().take(n).map(|value| bits(value).map(make)).collect()
}

/// Reads `n` lengths as varints and then as many byte strings, which share the memory of `content`.
fn split_strings(n: usize, mut content: Bytes) -> Result<Vec<Bytes>, Error> {
    let wrong = || Error::invalid("the lengths of strings do not fit tensor_content");
    // Each length takes a byte at least, so a content that is too short is found before memory is reserved.
    if n > content.len() {
        return Err(wrong());
    }
    let mut lengths = Vec::with_capacity(n);
    let mut total = 0u64;
    for _ in 0..n {
        let length = prost::encoding::decode_varint(&mut content).map_err(|_| wrong())?;
        total = total.saturating_add(length);
        lengths.push(usize::try_from(length).map_err(|_| wrong())?);
    }
    if total != content.remaining() as u64 {
        return Err(wrong());
    }
    // The lengths add up to what is there, so no single one is longer than the rest.
    Ok(lengths.into_iter().map(|length| content.split_to(length)).collect())
}

#[cfg(test)]
mod tests;
