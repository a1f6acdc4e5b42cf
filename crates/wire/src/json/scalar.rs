//! One JSON value as one element of a tensor.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use half::{bf16, f16};
use jiter::{NumberInt, Peek};
use salver_predict::{Error, dtype_name};
use salver_tensor::{DType, Shape, Tensor, TensorError};

use super::text::{Fault, Text};

/// What a tensor is collected from.
pub(crate) trait Scalar: Sized {
    /// Reads the value that starts here. After an error the position is unspecified.
    fn read(text: &mut Text<'_>, peek: Peek) -> Result<Self, Fault>;

    /// Makes a tensor of collected elements.
    fn tensor(shape: Shape, elements: Vec<Self>) -> Result<Tensor, TensorError>;
}

/// Numbers are parsed as doubles and then rounded to the type asked for, as TensorFlow Serving and Python clients do:
/// the same digits give the same bits. Rounding the digits once would differ in the last bit where they lie within
/// 2^-29 of half way between two floats.
#[inline(always)]
fn double(text: &mut Text<'_>, peek: Peek, dtype: DType) -> Result<f64, Fault> {
    match text.jiter.known_float(peek) {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(number) => not_finite(text, peek, number),
        Err(_) => no_number(text, dtype),
    }
}

#[cold]
fn not_finite(text: &Text<'_>, peek: Peek, number: f64) -> Result<f64, Fault> {
    if number.is_infinite() && !is_infinity(peek, text) { Err(too_big(text).into()) } else { Ok(number) }
}

#[cold]
fn no_number(text: &mut Text<'_>, dtype: DType) -> Result<f64, Fault> {
    text.special().ok_or_else(|| text.mismatch(dtype_name(dtype)).into())
}

/// Whether the number just read was the word and not digits.
#[cold]
fn is_infinity(peek: Peek, text: &Text<'_>) -> bool {
    peek == Peek::Infinity || text.last_byte() == Some(b'y')
}

#[cold]
fn too_big(text: &Text<'_>) -> Error {
    Error::invalid(format!(
        "JSON Parse error: Number too big to be stored in double. at offset: {}",
        text.at()
    ))
}

macro_rules! floats {
    ($($rust:ty, $dtype:ident, $round:expr;)*) => {$(
        impl Scalar for $rust {
            #[inline]
            fn read(text: &mut Text<'_>, peek: Peek) -> Result<$rust, Fault> {
                double(text, peek, DType::$dtype).map($round)
            }

            fn tensor(shape: Shape, elements: Vec<$rust>) -> Result<Tensor, TensorError> {
                Tensor::from_vec(shape, elements)
            }
        }
    )*};
}

floats! {
    f64, F64, |double| double;
    f32, F32, round_to_float;
    f16, F16, f16::from_f64;
    bf16, BF16, bf16::from_f64;
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounds to nearest and overflows to infinity, as documented"
)]
fn round_to_float(double: f64) -> f32 {
    double as f32
}

/// Reads an integer literal that fits the type; `1.0` is none.
fn integer<T: TryFrom<i64> + std::str::FromStr>(
    text: &mut Text<'_>,
    peek: Peek,
    dtype: DType,
) -> Result<T, Fault> {
    let start = text.at();
    match text.jiter.known_int(peek) {
        Ok(NumberInt::Int(number)) => {
            T::try_from(number).map_err(|_| out_of_range(text, start, dtype).into())
        }
        Err(_) => above_i64(text, peek).ok_or_else(|| out_of_range(text, start, dtype).into()),
    }
}

/// An integer literal that only a `u64` holds.
#[cold]
fn above_i64<T: std::str::FromStr>(text: &mut Text<'_>, peek: Peek) -> Option<T> {
    let digits = peek.is_num().then(|| text.jiter.known_number_bytes(peek).ok()).flatten()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cold]
fn out_of_range(text: &mut Text<'_>, start: usize, dtype: DType) -> Error {
    text.seek(start, text.depth());
    let is_narrow = matches!(dtype, DType::I8 | DType::I16 | DType::U8 | DType::U16);
    let is_integer = text.peek().is_ok_and(Peek::is_num) && text.jiter.clone().next_int().is_ok();
    if is_narrow && is_integer {
        return Error::invalid(format!(
            "JSON Value: {} is out of range of type: {}",
            text.show(),
            dtype_name(dtype)
        ));
    }
    text.mismatch(dtype_name(dtype))
}

macro_rules! integers {
    ($($rust:ty => $dtype:ident),*) => {$(
        impl Scalar for $rust {
            #[inline]
            fn read(text: &mut Text<'_>, peek: Peek) -> Result<$rust, Fault> {
                integer(text, peek, DType::$dtype)
            }

            fn tensor(shape: Shape, elements: Vec<$rust>) -> Result<Tensor, TensorError> {
                Tensor::from_vec(shape, elements)
            }
        }
    )*};
}

integers!(i8 => I8, i16 => I16, i32 => I32, i64 => I64, u8 => U8, u16 => U16, u32 => U32, u64 => U64);

impl Scalar for bool {
    fn read(text: &mut Text<'_>, peek: Peek) -> Result<bool, Fault> {
        text.jiter.known_bool(peek).map_err(|_| text.mismatch(dtype_name(DType::Bool)).into())
    }

    fn tensor(shape: Shape, elements: Vec<bool>) -> Result<Tensor, TensorError> {
        Tensor::from_bools(shape, &elements)
    }
}

/// The standard alphabet; padding may be there or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Scalar for Bytes {
    fn read(text: &mut Text<'_>, peek: Peek) -> Result<Bytes, Fault> {
        match peek {
            Peek::String => Ok(Bytes::copy_from_slice(text.string()?.as_bytes())),
            Peek::Object if text.is_b64() => {
                text.object_first(|_| ())?;
                text.peek()?;
                let bytes =
                    BASE64.decode(text.string()?).map_err(|_| Error::invalid("Unable to base64 decode"))?;
                text.object_step(|_| ())?;
                Ok(Bytes::from(bytes))
            }
            Peek::Object => Err(Error::invalid(format!(
                "JSON Value: {} not formatted correctly for base64 data",
                text.show()
            ))
            .into()),
            _ => Err(text.mismatch(dtype_name(DType::String)).into()),
        }
    }

    fn tensor(shape: Shape, elements: Vec<Bytes>) -> Result<Tensor, TensorError> {
        Tensor::from_strings(shape, elements)
    }
}
