//! From one element type to another.
//!
//! Floats become integers by cutting off the fraction; what does not fit saturates and NaN becomes 0 (ONNX leaves that
//! open). Integers become narrower ones by their low bits. A complex number becomes a real one by its real part.

use bytes::Bytes;
use half::{bf16, f16};
use salver_tensor::{DType, Element, Tensor};

use crate::call::{Call, read};
use crate::elementwise::{mapped, tested};
use crate::layout::output_shape;
use crate::number::{Number, by_number};
use crate::{Error, Outputs};

/// `Cast`.
pub(crate) fn cast(call: &Call<'_>) -> Outputs {
    let to = call.attributes.dtype("to")?.ok_or_else(|| Error::invalid("attribute 'to' is missing"))?;
    Ok(vec![to_type(call.input(0)?, to)?])
}

/// `CastLike`.
pub(crate) fn cast_like(call: &Call<'_>) -> Outputs {
    Ok(vec![to_type(call.input(0)?, call.input(1)?.dtype())?])
}

/// The tensor with another element type.
pub(crate) fn to_type(tensor: &Tensor, to: DType) -> Result<Tensor, Error> {
    let from = tensor.dtype();
    if from == to {
        return Ok(tensor.clone());
    }
    output_shape(to, tensor.shape().dims())?;
    let refuse = |_| Error::unsupported(format!("cast of {from} to {to}"));
    match (from, to) {
        (DType::String, _) => parsed(tensor, to),
        (_, DType::String) => printed(tensor),
        (DType::C64, DType::C128) => mapped(tensor, |[re, im]: [f32; 2]| [f64::from(re), f64::from(im)]),
        (DType::C128, DType::C64) => mapped(tensor, |[re, im]: [f64; 2]| [re as f32, im as f32]),
        (DType::C64, _) => to_type(&mapped(tensor, |[re, _]: [f32; 2]| re)?, to),
        (DType::C128, _) => to_type(&mapped(tensor, |[re, _]: [f64; 2]| re)?, to),
        (_, DType::C64) => mapped(&to_type(tensor, DType::F32)?, |re: f32| [re, 0.0]),
        (_, DType::C128) => mapped(&to_type(tensor, DType::F64)?, |re: f64| [re, 0.0]),
        (DType::Bool, _) => {
            let bytes = tensor.bytes().cloned().unwrap_or_default();
            to_type(&Tensor::from_bytes(DType::U8, tensor.shape().clone(), bytes)?, to)
        }
        (_, DType::Bool) => by_number!(from, refuse, A => tested(tensor, |x: A| x != A::default())),
        _ => by_number!(from, refuse, A => by_number!(to, refuse, B => {
            mapped(tensor, |x: A| <B as Convert<A>>::convert(x))
        })),
    }
}

/// A conversion as `as` makes it.
trait Convert<T> {
    fn convert(value: T) -> Self;
}

macro_rules! conversions {
    ($($from:ty),*) => {$(
        conversions!(@as $from => i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);
        conversions!(@half $from => f16, bf16);
    )*};
    (@as $from:ty => $($to:ty),*) => {$(
        impl Convert<$from> for $to {
            fn convert(value: $from) -> $to {
                value as $to
            }
        }
    )*};
    (@half $from:ty => $($to:ty),*) => {$(
        impl Convert<$from> for $to {
            fn convert(value: $from) -> $to {
                <$to>::from_f64(value as f64)
            }
        }
    )*};
    (@from $from:ty => $($to:ty),*) => {$(
        impl Convert<$from> for $to {
            fn convert(value: $from) -> $to {
                <$to as Convert<f32>>::convert(value.to_f32())
            }
        }
    )*};
}

conversions!(i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);
conversions!(@from f16 => i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16, f32, f64);
conversions!(@from bf16 => i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16, f32, f64);

/// Numbers as text, as ONNX Runtime prints them: integers in full, floats with 8 digits, doubles with 17.
fn printed(tensor: &Tensor) -> Result<Tensor, Error> {
    fn each<T: Element>(tensor: &Tensor, print: impl Fn(T) -> String) -> Vec<Bytes> {
        read::<T>(tensor).iter().map(|&x| Bytes::from(print(x))).collect()
    }
    let texts = match tensor.dtype() {
        DType::Bool => tensor
            .bytes()
            .map(|bytes| {
                bytes.iter().map(|&b| Bytes::from_static(if b == 0 { b"0" } else { b"1" })).collect()
            })
            .unwrap_or_default(),
        DType::F16 | DType::BF16 => each::<f32>(&to_type(tensor, DType::F32)?, |x| general(f64::from(x), 8)),
        DType::F32 => each::<f32>(tensor, |x| general(f64::from(x), 8)),
        DType::F64 => each::<f64>(tensor, |x| general(x, 17)),
        dtype => {
            let refuse = |t| Error::unsupported(format!("cast of {t} to string"));
            by_number!(dtype, refuse, T => Ok(each::<T>(tensor, |x| x.to_string())))?
        }
    };
    Ok(Tensor::from_strings(tensor.shape().clone(), texts)?)
}

/// A number as C's `%.{digits}g` prints it; `NaN`, `INF`, `-INF` for what is none.
fn general(x: f64, digits: usize) -> String {
    if x.is_nan() {
        return "NaN".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "INF" } else { "-INF" }.into();
    }
    let scientific = format!("{x:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is an integer");
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..digits as i32).contains(&exponent) {
        let decimals = usize::try_from(digits as i32 - 1 - exponent).unwrap_or(0);
        return trimmed(&format!("{x:.decimals$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs())
}

/// Texts as numbers.
fn parsed(tensor: &Tensor, to: DType) -> Result<Tensor, Error> {
    let texts = tensor.strings().unwrap_or_default();
    let floats = || -> Result<Tensor, Error> {
        let elements = texts.iter().map(number::<f64>).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::from_vec(tensor.shape().clone(), elements)?)
    };
    match to {
        DType::F32 => {
            let elements = texts.iter().map(number::<f32>).collect::<Result<Vec<_>, _>>()?;
            Ok(Tensor::from_vec(tensor.shape().clone(), elements)?)
        }
        DType::F64 => floats(),
        DType::F16 | DType::BF16 => to_type(&floats()?, to),
        DType::Bool => {
            let elements = texts
                .iter()
                .map(|text| Ok(number::<f64>(text)? != 0.0))
                .collect::<Result<Vec<_>, Error>>()?;
            Ok(Tensor::from_bools(tensor.shape().clone(), &elements)?)
        }
        _ => {
            let refuse = |t| Error::unsupported(format!("cast of string to {t}"));
            by_number!(to, refuse, T => {
                let elements = texts.iter().map(integer).collect::<Result<Vec<i128>, _>>()?;
                let elements: Vec<T> = elements
                    .iter()
                    .map(|&x| T::try_from_i128(x).ok_or_else(|| unreadable(x.to_string().as_bytes(), to)))
                    .collect::<Result<_, _>>()?;
                Ok(Tensor::from_vec(tensor.shape().clone(), elements)?)
            })
        }
    }
}

fn unreadable(text: &[u8], to: DType) -> Error {
    let text: String = String::from_utf8_lossy(text).chars().take(40).collect();
    Error::invalid(format!("'{text}' is no {to}"))
}

/// A text as a float; Rust reads `nan`, `inf` and `infinity` in any case, and decimals and exponents as C does.
fn number<T: std::str::FromStr + Element>(text: &Bytes) -> Result<T, Error> {
    let trimmed = std::str::from_utf8(text).map(str::trim).unwrap_or("");
    trimmed.parse().map_err(|_| unreadable(text, T::DTYPE))
}

/// A text as an integer; one with a fraction is cut off.
fn integer(text: &Bytes) -> Result<i128, Error> {
    let trimmed = std::str::from_utf8(text).map(str::trim).unwrap_or("");
    if let Ok(value) = trimmed.parse() {
        return Ok(value);
    }
    match trimmed.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value as i128),
        _ => Err(unreadable(text, DType::I64)),
    }
}

/// Exact conversion of what fits.
trait TryFromI128: Sized {
    fn try_from_i128(value: i128) -> Option<Self>;
}

macro_rules! try_from {
    ($($int:ty),*; $($float:ty),*) => {
        $(impl TryFromI128 for $int {
            fn try_from_i128(value: i128) -> Option<$int> {
                value.try_into().ok()
            }
        })*
        $(impl TryFromI128 for $float {
            fn try_from_i128(value: i128) -> Option<$float> {
                Some(<$float as Number>::from_f64(value as f64))
            }
        })*
    };
}

try_from!(i8, i16, i32, i64, u8, u16, u32, u64; f16, bf16, f32, f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_printed_as_c_prints_them() {
        for (x, digits, text) in [
            (0.0, 8, "0"),
            (1.0, 8, "1"),
            (-2.5, 8, "-2.5"),
            (0.1f32.into(), 8, "0.1"),
            (123_456_789.0, 8, "1.2345679e+08"),
            (99_999_999.9, 8, "1e+08"),
            (0.000_012_5, 8, "1.25e-05"),
            (0.000_125, 8, "0.000125"),
            (0.1, 17, "0.10000000000000001"),
            (1e300, 17, "1.0000000000000001e+300"),
            (f64::NAN, 8, "NaN"),
            (f64::NEG_INFINITY, 8, "-INF"),
        ] {
            assert_eq!(general(x, digits), text);
        }
    }
}
