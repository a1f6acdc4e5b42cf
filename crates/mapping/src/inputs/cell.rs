//! One element of a tensor.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use half::{bf16, f16};
use salver_tensor::{Shape, Tensor, TensorError};

use super::as_float;
use crate::value::Value;

/// What a tensor is collected from.
pub(crate) trait Cell: Clone {
    /// The element that a value is; `None` if it is none or does not fit.
    fn of(value: &Value) -> Option<Self>;

    /// Appends numbers; the index of the first that does not fit.
    fn push_floats(numbers: &[f64], into: &mut Vec<Self>) -> Result<(), usize> {
        for (index, &number) in numbers.iter().enumerate() {
            into.push(Self::of(&Value::Float(number)).ok_or(index)?);
        }
        Ok(())
    }

    fn tensor(shape: Shape, cells: Vec<Self>) -> Result<Tensor, TensorError>;
}

/// A number that is rounded to the type; a finite one that would become infinite does not fit.
macro_rules! floats {
    ($($rust:ty, $round:expr;)*) => {$(
        impl Cell for $rust {
            fn of(value: &Value) -> Option<$rust> {
                let number = as_float(value)?;
                let rounded: $rust = $round(number);
                (rounded.is_finite() || !number.is_finite()).then_some(rounded)
            }

            fn push_floats(numbers: &[f64], into: &mut Vec<$rust>) -> Result<(), usize> {
                let start = into.len();
                into.extend(numbers.iter().map(|&number| -> $rust { $round(number) }));
                // Without a branch for each number.
                if into[start..].iter().fold(true, |all, number| all & number.is_finite()) {
                    return Ok(());
                }
                let fits = |(number, rounded): (&f64, &$rust)| rounded.is_finite() || !number.is_finite();
                match numbers.iter().zip(&into[start..]).position(|pair| !fits(pair)) {
                    Some(index) => Err(index),
                    None => Ok(()),
                }
            }

            fn tensor(shape: Shape, cells: Vec<$rust>) -> Result<Tensor, TensorError> {
                Tensor::from_vec(shape, cells)
            }
        }
    )*};
}

#[expect(clippy::cast_possible_truncation, reason = "rounds to nearest; overflow is found afterwards")]
fn to_f32(number: f64) -> f32 {
    number as f32
}

floats! {
    f64, |number: f64| number;
    f32, to_f32;
    f16, f16::from_f64;
    bf16, bf16::from_f64;
}

/// Doubles up to this are whole numbers exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The whole number that a value is, exactly.
fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Int(number) => Some(*number),
        Value::Bool(value) => Some(i128::from(*value)),
        Value::Float(number) if number.fract() == 0.0 && number.abs() <= EXACT =>
        {
            #[expect(clippy::cast_possible_truncation, reason = "it is a whole number within range")]
            Some(*number as i128)
        }
        _ => None,
    }
}

macro_rules! integers {
    ($($rust:ty),*) => {$(
        impl Cell for $rust {
            fn of(value: &Value) -> Option<$rust> {
                whole(value).and_then(|number| <$rust>::try_from(number).ok())
            }

            fn tensor(shape: Shape, cells: Vec<$rust>) -> Result<Tensor, TensorError> {
                Tensor::from_vec(shape, cells)
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);

/// A boolean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flag(bool);

impl Cell for Flag {
    fn of(value: &Value) -> Option<Flag> {
        match whole(value) {
            Some(0) => Some(Flag(false)),
            Some(1) => Some(Flag(true)),
            _ => None,
        }
    }

    fn tensor(shape: Shape, cells: Vec<Flag>) -> Result<Tensor, TensorError> {
        let bools: Vec<bool> = cells.iter().map(|flag| flag.0).collect();
        Tensor::from_bools(shape, &bools)
    }
}

/// Text, bytes, or TensorFlow Serving's `{"b64": "..."}`.
impl Cell for Bytes {
    fn of(value: &Value) -> Option<Bytes> {
        match value {
            Value::Text(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
            Value::Bytes(bytes) => Some(bytes.clone()),
            Value::Map(members) => match members.as_slice() {
                [(name, Value::Text(text))] if &**name == "b64" => {
                    STANDARD.decode(&**text).ok().map(Bytes::from)
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn tensor(shape: Shape, cells: Vec<Bytes>) -> Result<Tensor, TensorError> {
        Tensor::from_strings(shape, cells)
    }
}

/// Runs code with the cell type of an element type; the last part for types that have none.
macro_rules! with_cell {
    ($dtype:expr, $cell:ident => $code:expr, $none:expr) => {
        match $dtype {
            salver_tensor::DType::Bool => {
                type $cell = $crate::inputs::Flag;
                $code
            }
            salver_tensor::DType::I8 => {
                type $cell = i8;
                $code
            }
            salver_tensor::DType::I16 => {
                type $cell = i16;
                $code
            }
            salver_tensor::DType::I32 => {
                type $cell = i32;
                $code
            }
            salver_tensor::DType::I64 => {
                type $cell = i64;
                $code
            }
            salver_tensor::DType::U8 => {
                type $cell = u8;
                $code
            }
            salver_tensor::DType::U16 => {
                type $cell = u16;
                $code
            }
            salver_tensor::DType::U32 => {
                type $cell = u32;
                $code
            }
            salver_tensor::DType::U64 => {
                type $cell = u64;
                $code
            }
            salver_tensor::DType::F16 => {
                type $cell = half::f16;
                $code
            }
            salver_tensor::DType::BF16 => {
                type $cell = half::bf16;
                $code
            }
            salver_tensor::DType::F32 => {
                type $cell = f32;
                $code
            }
            salver_tensor::DType::F64 => {
                type $cell = f64;
                $code
            }
            salver_tensor::DType::String => {
                type $cell = bytes::Bytes;
                $code
            }
            salver_tensor::DType::C64 | salver_tensor::DType::C128 => $none,
        }
    };
}

pub(crate) use with_cell;
