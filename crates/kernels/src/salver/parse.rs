//! Strings as numbers.

use std::str::FromStr;

use bytes::Bytes;
use salver_tensor::{DType, Element, Tensor};

use super::text::trim;
use crate::Error;
use crate::call::Call;
use crate::layout::output_shape;

pub(super) fn string_to_number(call: &Call<'_>) -> Result<Tensor, Error> {
    match call.attributes.dtype("out_type")?.unwrap_or(DType::F32) {
        DType::F32 => numbers(call, |text| float::<f32>(text, |value| value as f32)),
        DType::F64 => numbers(call, |text| float::<f64>(text, |value| value)),
        DType::I32 => numbers(call, integer::<i32>),
        DType::I64 => numbers(call, integer::<i64>),
        DType::U32 => numbers(call, integer::<u32>),
        DType::U64 => numbers(call, integer::<u64>),
        other => Err(call.no_type(other)),
    }
}

fn numbers<T: Element>(call: &Call<'_>, parse: impl Fn(&str) -> Option<T>) -> Result<Tensor, Error> {
    let parsed = call.strings(0)?.iter().map(|text| {
        std::str::from_utf8(trim(text)).ok().and_then(&parse).ok_or_else(|| {
            let shown = String::from_utf8_lossy(&text[..text.len().min(1024)]);
            Error::invalid(format!("StringToNumberOp could not correctly convert string: {shown}"))
        })
    });
    let parsed: Vec<T> = parsed.collect::<Result<_, _>>()?;
    Ok(Tensor::from_vec(call.input(0)?.shape().clone(), parsed)?)
}

fn integer<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// A decimal or, as TensorFlow takes it too, a hexadecimal number; infinity and NaN in letters of any case.
fn float<T: FromStr>(text: &str, narrow: impl Fn(f64) -> T) -> Option<T> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => hexadecimal(digits).map(|value| narrow(if negative { -value } else { value })),
        None => text.parse().ok(),
    }
}

/// `1f.8p-3`. Digits beyond 60 bits are dropped.
fn hexadecimal(text: &str) -> Option<f64> {
    let (digits, exponent) = match text.split_once(['p', 'P']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut mantissa = 0u64;
    let mut scale = i64::from(exponent);
    for (digits, per_digit) in [(whole, 0), (fraction, -4)] {
        for digit in digits.chars() {
            let digit = u64::from(digit.to_digit(16)?);
            if mantissa >> 56 == 0 {
                mantissa = mantissa << 4 | digit;
                scale += per_digit;
            } else {
                scale += per_digit + 4;
            }
        }
    }
    // In two steps, so that neither overflows where the product does not.
    let scale = i32::try_from(scale.clamp(-4000, 4000)).unwrap_or(0);
    Some(mantissa as f64 * 2f64.powi(scale / 2) * 2f64.powi(scale - scale / 2))
}

/// The bytes of each string as numbers; all strings have the same length.
pub(super) fn decode_raw(call: &Call<'_>) -> Result<Tensor, Error> {
    let texts = call.strings(0)?;
    let dtype = call.needed("out_type", call.attributes.dtype("out_type")?)?;
    let swap = !call.attributes.flag("little_endian", true)?;
    let size = dtype.size().ok_or_else(|| call.no_type(dtype))?;
    let len = texts.first().map_or(0, Bytes::len);
    if let Some((index, text)) = texts.iter().enumerate().find(|(_, text)| text.len() != len) {
        return Err(Error::invalid(format!(
            "DecodeRaw requires input strings to all be the same size, but element {index} has size {len} != {}",
            text.len()
        )));
    }
    if len % size != 0 {
        return Err(Error::invalid(format!(
            "Input to DecodeRaw has length {len} that is not a multiple of {size}, the size of {}",
            super::tf_name(dtype)
        )));
    }
    let mut dims = call.input(0)?.shape().dims().to_vec();
    dims.push(len / size);
    let shape = output_shape(dtype, &dims)?;
    let mut bytes = texts.concat();
    // The two parts of a complex number are swapped each for itself.
    let part = if matches!(dtype, DType::C64 | DType::C128) { size / 2 } else { size };
    if swap {
        bytes.chunks_exact_mut(part).for_each(<[u8]>::reverse);
    }
    Ok(Tensor::from_bytes(dtype, shape, Bytes::from(bytes))?)
}
