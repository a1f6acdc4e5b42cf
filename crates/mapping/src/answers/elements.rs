//! The elements of a tensor as values.

use std::borrow::Cow;

use half::{bf16, f16};
use salver_tensor::{DType, Tensor};

use crate::value::{Array, Lens, Numbers, Value};

/// The elements of a row, one by one.
pub(super) enum Elements {
    Numbers(Numbers),
    Strings(Vec<Value>),
}

impl Elements {
    pub(super) fn len(&self) -> usize {
        match self {
            Elements::Numbers(numbers) => numbers.len(),
            Elements::Strings(strings) => strings.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<Value> {
        match self {
            Elements::Numbers(numbers) => numbers.get(index),
            Elements::Strings(strings) => strings.get(index).cloned(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "rounds to nearest")]
    pub(super) fn floats(&self) -> Vec<f64> {
        match self {
            Elements::Numbers(Numbers::Floats(numbers)) => numbers.clone(),
            Elements::Numbers(Numbers::Ints(numbers)) => {
                numbers.iter().map(|&number| number as f64).collect()
            }
            Elements::Strings(_) => Vec::new(),
        }
    }
}

/// The numbers of a tensor; `None` for strings, complex numbers and whole numbers beyond `i64`.
pub(crate) fn tensor_numbers(tensor: &Tensor) -> Option<Numbers> {
    macro_rules! ints {
        ($rust:ty) => {
            Numbers::Ints(tensor.to_slice::<$rust>()?.iter().map(|&number| i64::from(number)).collect())
        };
    }
    Some(match tensor.dtype() {
        DType::Bool => Numbers::Ints(tensor.bytes()?.iter().map(|&byte| i64::from(byte)).collect()),
        DType::I8 => ints!(i8),
        DType::I16 => ints!(i16),
        DType::I32 => ints!(i32),
        DType::I64 => Numbers::Ints(tensor.to_slice::<i64>()?.into_owned()),
        DType::U8 => ints!(u8),
        DType::U16 => ints!(u16),
        DType::U32 => ints!(u32),
        DType::U64 => {
            let numbers: Cow<'_, [u64]> = tensor.to_slice()?;
            Numbers::Ints(numbers.iter().map(|&number| i64::try_from(number).ok()).collect::<Option<_>>()?)
        }
        DType::F16 => {
            Numbers::Floats(tensor.to_slice::<f16>()?.iter().map(|number| number.to_f64()).collect())
        }
        DType::BF16 => {
            Numbers::Floats(tensor.to_slice::<bf16>()?.iter().map(|number| number.to_f64()).collect())
        }
        DType::F32 => {
            Numbers::Floats(tensor.to_slice::<f32>()?.iter().map(|&number| f64::from(number)).collect())
        }
        DType::F64 => Numbers::Floats(tensor.to_slice::<f64>()?.into_owned()),
        DType::C64 | DType::C128 | DType::String => return None,
    })
}

pub(super) fn string_value(bytes: &bytes::Bytes) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::text(text),
        Err(_) => Value::Bytes(bytes.clone()),
    }
}

/// A tensor as nested lists; `None` for complex numbers.
pub(crate) fn tensor_value(tensor: &Tensor) -> Option<Value> {
    let lens = Lens::from_slice(tensor.shape().dims());
    let is_array = !matches!(tensor.dtype(), DType::Bool | DType::U64 | DType::String);
    if is_array {
        let numbers = tensor_numbers(tensor)?;
        return if lens.is_empty() { numbers.get(0) } else { Some(Value::Array(Array { lens, numbers })) };
    }
    let elements: Vec<Value> = match tensor.dtype() {
        DType::String => tensor.strings()?.iter().map(string_value).collect(),
        DType::Bool => tensor.bytes()?.iter().map(|&byte| Value::Bool(byte != 0)).collect(),
        _ => tensor.to_slice::<u64>()?.iter().map(|&number| Value::Int(i128::from(number))).collect(),
    };
    nest(&mut elements.into_iter(), &lens)
}

/// Recursion ends with the dimensions.
fn nest(elements: &mut impl Iterator<Item = Value>, lens: &[usize]) -> Option<Value> {
    match lens.split_first() {
        None => elements.next(),
        Some((&len, inner)) => {
            (0..len).map(|_| nest(elements, inner)).collect::<Option<_>>().map(Value::List)
        }
    }
}
