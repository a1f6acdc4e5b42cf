//! `tensorflow.TensorProto` to tensors and back.
#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing)]

use std::borrow::Cow;
use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};
use half::{bf16, f16};
use salver_tensor::{DType, Element, Shape, ShapeError, Tensor, TensorError};

use crate::proto::tensorflow::tensor_shape_proto::Dim;
use crate::proto::tensorflow::{TensorProto, TensorShapeProto};
use crate::tfs::{dtype_from_number, dtype_number};

/// Where the elements of an encoded tensor go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// Into the repeated field of the element type, as TensorFlow Serving does unless told otherwise.
    #[default]
    Fields,
    /// Into `tensor_content`. Elements of a fixed size are shared and not copied.
    Content,
}

/// Why a `TensorProto` is not a tensor.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TensorProtoError {
    /// An element type that no tensor here has, or no known number at all.
    DType(i32),
    /// A dimension, or even the number of dimensions, is not given.
    OpenShape,
    /// The dimensions are not a shape.
    Shape(ShapeError),
    /// The tensor takes more bytes than are allowed.
    TooLarge {
        /// Bytes that the tensor takes.
        bytes: u64,
        /// Bytes that are left of the request's bound.
        max: usize,
    },
    /// `tensor_content` does not hold what the shape asks for.
    Content(TensorError),
    /// The lengths in the `tensor_content` of strings do not fit its bytes.
    Strings,
    /// A number that does not fit the element type.
    Value {
        /// The number.
        value: i32,
        /// The element type.
        dtype: DType,
    },
}

impl fmt::Display for TensorProtoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TensorProtoError::DType(number) => write!(f, "element type {number} is not supported"),
            TensorProtoError::OpenShape => f.write_str("shape is not fully defined"),
            TensorProtoError::Shape(error) => error.fmt(f),
            TensorProtoError::TooLarge { bytes, max } => {
                write!(f, "takes {bytes} bytes, {max} are left of what one request may take")
            }
            TensorProtoError::Content(error) => error.fmt(f),
            TensorProtoError::Strings => f.write_str("string lengths do not fit tensor_content"),
            TensorProtoError::Value { value, dtype } => write!(f, "{value} is out of range for {dtype}"),
        }
    }
}

impl std::error::Error for TensorProtoError {}

impl From<ShapeError> for TensorProtoError {
    fn from(error: ShapeError) -> TensorProtoError {
        TensorProtoError::Shape(error)
    }
}

impl From<TensorError> for TensorProtoError {
    fn from(error: TensorError) -> TensorProtoError {
        TensorProtoError::Content(error)
    }
}

/// Reads a tensor. `tensor_content` is shared and not copied, and a repeated field of the element's own width is
/// taken over; other fields are converted once. A field with too few elements repeats its last one, an empty field
/// stands for zeros, and surplus elements are ignored.
///
/// `max_bytes` bounds what the elements take, before any memory is reserved for them; of strings, 32 bytes for each
/// are counted besides their lengths.
///
/// # Errors
/// [`TensorProtoError`]
pub fn decode_tensor(proto: TensorProto, max_bytes: usize) -> Result<Tensor, TensorProtoError> {
    let dtype = dtype_from_number(proto.dtype).ok_or(TensorProtoError::DType(proto.dtype))?;
    let shape = decode_shape(proto.tensor_shape.as_ref())?;
    let element = dtype.size().unwrap_or(size_of::<Bytes>());
    check_size(shape.n_elements(), element, 0, max_bytes)?;
    if shape.n_elements() == 0 {
        return Ok(match dtype {
            DType::String => Tensor::from_strings(shape, Vec::new())?,
            _ => Tensor::from_bytes(dtype, shape, Bytes::new())?,
        });
    }
    if proto.tensor_content.is_empty() {
        decode_fields(dtype, shape, proto, max_bytes)
    } else if dtype == DType::String {
        let strings = split_strings(shape.n_elements(), proto.tensor_content)?;
        Ok(Tensor::from_strings(shape, strings)?)
    } else {
        Ok(Tensor::from_bytes(dtype, shape, proto.tensor_content)?)
    }
}

fn check_size(n: usize, size: usize, more: u64, max: usize) -> Result<(), TensorProtoError> {
    let bytes = (n as u64).saturating_mul(size as u64).saturating_add(more);
    if bytes > max as u64 {
        return Err(TensorProtoError::TooLarge { bytes, max });
    }
    Ok(())
}

fn decode_shape(proto: Option<&TensorShapeProto>) -> Result<Shape, TensorProtoError> {
    let Some(proto) = proto else { return Ok(Shape::scalar()) };
    if proto.unknown_rank {
        return Err(TensorProtoError::OpenShape);
    }
    if proto.dim.len() > salver_tensor::MAX_RANK {
        return Err(ShapeError::Rank(proto.dim.len()).into());
    }
    let dims: Result<Vec<usize>, _> = proto.dim.iter().map(|dim| usize::try_from(dim.size)).collect();
    Ok(Shape::new(&dims.map_err(|_| TensorProtoError::OpenShape)?)?)
}

fn decode_fields(
    dtype: DType,
    shape: Shape,
    proto: TensorProto,
    max_bytes: usize,
) -> Result<Tensor, TensorProtoError> {
    let n = shape.n_elements();
    match dtype {
        DType::F32 => fill(shape, proto.float_val),
        DType::F64 => fill(shape, proto.double_val),
        DType::I32 => fill(shape, proto.int_val),
        DType::I64 => fill(shape, proto.int64_val),
        DType::U32 => fill(shape, proto.uint32_val),
        DType::U64 => fill(shape, proto.uint64_val),
        DType::I16 => fill(shape, narrow::<i16>(&proto.int_val, n)?),
        DType::I8 => fill(shape, narrow::<i8>(&proto.int_val, n)?),
        DType::U16 => fill(shape, narrow::<u16>(&proto.int_val, n)?),
        DType::U8 => fill(shape, narrow::<u8>(&proto.int_val, n)?),
        DType::F16 => fill(shape, halves(&proto.half_val, n, dtype, f16::from_bits)?),
        DType::BF16 => fill(shape, halves(&proto.half_val, n, dtype, bf16::from_bits)?),
        DType::C64 => fill(shape, pairs(&proto.scomplex_val)),
        DType::C128 => fill(shape, pairs(&proto.dcomplex_val)),
        DType::Bool => {
            let mut values = proto.bool_val;
            let last = values.last().copied().unwrap_or_default();
            values.resize(n, last);
            Ok(Tensor::from_bools(shape, &values)?)
        }
        DType::String => {
            let mut values = proto.string_val;
            let last = values.last().cloned().unwrap_or_default();
            let repeated = n.saturating_sub(values.len()) as u64;
            let own: u64 = values.iter().map(|value| value.len() as u64).fold(0, u64::saturating_add);
            let bytes = repeated.saturating_mul(last.len() as u64).saturating_add(own);
            check_size(n, size_of::<Bytes>(), bytes, max_bytes)?;
            values.resize(n, last);
            Ok(Tensor::from_strings(shape, values)?)
        }
    }
}

/// Makes the values as many as the shape asks for: cuts surplus ones off or repeats the last one.
fn fill<T: Element + Default>(shape: Shape, mut values: Vec<T>) -> Result<Tensor, TensorProtoError> {
    let last = values.last().copied().unwrap_or_default();
    values.resize(shape.n_elements(), last);
    Ok(Tensor::from_vec(shape, values)?)
}

fn narrow<T: Element + TryFrom<i32>>(values: &[i32], n: usize) -> Result<Vec<T>, TensorProtoError> {
    let out_of_range = |value| TensorProtoError::Value { value, dtype: T::DTYPE };
    values.iter().take(n).map(|&value| T::try_from(value).map_err(|_| out_of_range(value))).collect()
}

/// The low 16 bits of each number; a client may have extended the sign of the highest.
fn halves<T>(values: &[i32], n: usize, dtype: DType, make: fn(u16) -> T) -> Result<Vec<T>, TensorProtoError> {
    let bits = |&value: &i32| {
        u16::try_from(value)
            .or_else(|_| i16::try_from(value).map(i16::cast_unsigned))
            .map_err(|_| TensorProtoError::Value { value, dtype })
    };
    values.iter().take(n).map(|value| bits(value).map(make)).collect()
}

fn pairs<T: Copy>(values: &[T]) -> Vec<[T; 2]> {
    values.as_chunks::<2>().0.to_vec()
}

/// Reads `n` lengths as varints and then as many byte strings, which share the memory of `content`.
fn split_strings(n: usize, mut content: Bytes) -> Result<Vec<Bytes>, TensorProtoError> {
    // Each length takes a byte at least, so a content that is too short is found before memory is reserved.
    if n > content.len() {
        return Err(TensorProtoError::Strings);
    }
    let mut lengths = Vec::with_capacity(n);
    let mut total = 0u64;
    for _ in 0..n {
        let length = prost::encoding::decode_varint(&mut content).map_err(|_| TensorProtoError::Strings)?;
        total = total.saturating_add(length);
        lengths.push(usize::try_from(length).map_err(|_| TensorProtoError::Strings)?);
    }
    if total != content.remaining() as u64 {
        return Err(TensorProtoError::Strings);
    }
    // The lengths add up to what is there, so no single one is longer than the rest.
    Ok(lengths.into_iter().map(|length| content.split_to(length)).collect())
}

/// Writes a tensor. With [`Encoding::Fields`] the elements are copied once into the message; with
/// [`Encoding::Content`] they are shared, strings excepted.
pub fn encode_tensor(tensor: &Tensor, encoding: Encoding) -> TensorProto {
    let mut proto = TensorProto {
        dtype: dtype_number(tensor.dtype()),
        tensor_shape: Some(encode_shape(tensor.shape())),
        ..TensorProto::default()
    };
    match (encoding, tensor.bytes(), tensor.strings()) {
        (Encoding::Content, Some(bytes), _) => proto.tensor_content = bytes.clone(),
        (Encoding::Content, _, Some(strings)) => proto.tensor_content = join_strings(strings),
        _ => encode_fields(tensor, &mut proto),
    }
    proto
}

fn encode_shape(shape: &Shape) -> TensorShapeProto {
    // A shape's dimensions are below 2^48.
    let size = |&dim: &usize| i64::try_from(dim).unwrap_or(i64::MAX);
    let dim = shape.dims().iter().map(|dim| Dim { size: size(dim), name: String::new() }).collect();
    TensorShapeProto { dim, unknown_rank: false }
}

fn encode_fields(tensor: &Tensor, proto: &mut TensorProto) {
    match tensor.dtype() {
        DType::F32 => proto.float_val = elements(tensor).into_owned(),
        DType::F64 => proto.double_val = elements(tensor).into_owned(),
        DType::I32 => proto.int_val = elements(tensor).into_owned(),
        DType::I64 => proto.int64_val = elements(tensor).into_owned(),
        DType::U32 => proto.uint32_val = elements(tensor).into_owned(),
        DType::U64 => proto.uint64_val = elements(tensor).into_owned(),
        DType::I16 => proto.int_val = widen::<i16>(tensor),
        DType::I8 => proto.int_val = widen::<i8>(tensor),
        DType::U16 => proto.int_val = widen::<u16>(tensor),
        DType::U8 => proto.int_val = widen::<u8>(tensor),
        DType::F16 => proto.half_val = map(tensor, |half: f16| i32::from(half.to_bits())),
        DType::BF16 => proto.half_val = map(tensor, |half: bf16| i32::from(half.to_bits())),
        DType::C64 => proto.scomplex_val = elements::<[f32; 2]>(tensor).as_flattened().to_vec(),
        DType::C128 => proto.dcomplex_val = elements::<[f64; 2]>(tensor).as_flattened().to_vec(),
        DType::Bool => {
            let bytes = tensor.bytes().map(|bytes| bytes.as_ref()).unwrap_or_default();
            proto.bool_val = bytes.iter().map(|&byte| byte != 0).collect();
        }
        DType::String => proto.string_val = tensor.strings().unwrap_or_default().to_vec(),
    }
}

/// The elements; empty when the tensor has another type, which no caller asks for.
fn elements<T: Element>(tensor: &Tensor) -> Cow<'_, [T]> {
    tensor.to_slice().unwrap_or_default()
}

fn map<T: Element, U>(tensor: &Tensor, convert: impl Fn(T) -> U) -> Vec<U> {
    elements(tensor).iter().map(|&element| convert(element)).collect()
}

fn widen<T: Element + Into<i32>>(tensor: &Tensor) -> Vec<i32> {
    map(tensor, T::into)
}

fn join_strings(strings: &[Bytes]) -> Bytes {
    let lengths = strings.iter().map(|string| string.len() as u64);
    let total: usize = lengths
        .clone()
        .zip(strings)
        .map(|(length, string)| prost::encoding::encoded_len_varint(length).saturating_add(string.len()))
        .fold(0, usize::saturating_add);
    let mut content = BytesMut::with_capacity(total);
    for length in lengths {
        prost::encoding::encode_varint(length, &mut content);
    }
    for string in strings {
        content.extend_from_slice(string);
    }
    content.freeze()
}

#[cfg(test)]
mod tests;
