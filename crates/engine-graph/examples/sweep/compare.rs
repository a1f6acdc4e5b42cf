//! How far an answer lies from TensorFlow's.

use salver_tensor::{DType, Tensor};

/// The largest difference, relative to the larger of 1 and the largest expected value; 0 for types that are compared
/// exactly. Fails where shapes, types or exact values differ.
pub(crate) fn distance(found: &Tensor, expected: &Tensor) -> Result<f64, String> {
    if found.dtype() != expected.dtype() {
        return Err(format!("{} instead of {}", found.dtype(), expected.dtype()));
    }
    if found.shape() != expected.shape() {
        return Err(format!("shape {:?} instead of {:?}", found.shape().dims(), expected.shape().dims()));
    }
    match (floats(found), floats(expected)) {
        (Some(found), Some(expected)) => far(&found, &expected),
        _ if same(found, expected) => Ok(0.0),
        _ => Err(format!(
            "other values of {}: {} instead of {}",
            found.dtype(),
            sample(found),
            sample(expected)
        )),
    }
}

/// What a difference may be.
pub(crate) fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2e-3,
        DType::BF16 => 2e-2,
        _ => 1e-4,
    }
}

fn far(found: &[f64], expected: &[f64]) -> Result<f64, String> {
    let mut largest = 1.0_f64;
    let mut difference = 0.0_f64;
    for (found, expected) in found.iter().zip(expected) {
        if found.is_nan() && expected.is_nan() || found == expected {
            if expected.is_finite() {
                largest = largest.max(expected.abs());
            }
        } else if found.is_finite() && expected.is_finite() {
            largest = largest.max(expected.abs());
            difference = difference.max((found - expected).abs());
        } else {
            return Err(format!("{found} instead of {expected}"));
        }
    }
    Ok(difference / largest)
}

/// The elements of a floating-point tensor.
fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    match tensor.dtype() {
        DType::F32 => tensor.to_slice::<f32>().map(|all| all.iter().map(|x| f64::from(*x)).collect()),
        DType::F64 => tensor.to_slice::<f64>().map(std::borrow::Cow::into_owned),
        DType::F16 => tensor.bytes().map(|bytes| pairs(bytes, |bits| half::f16::from_bits(bits).to_f64())),
        DType::BF16 => tensor.bytes().map(|bytes| pairs(bytes, |bits| half::bf16::from_bits(bits).to_f64())),
        _ => None,
    }
}

fn pairs(bytes: &[u8], value: impl Fn(u16) -> f64) -> Vec<f64> {
    bytes.as_chunks::<2>().0.iter().map(|pair| value(u16::from_le_bytes(*pair))).collect()
}

fn same(found: &Tensor, expected: &Tensor) -> bool {
    match (found.strings(), expected.strings()) {
        (Some(found), Some(expected)) => found == expected,
        _ => found.bytes() == expected.bytes(),
    }
}

/// The first elements, for people.
fn sample(tensor: &Tensor) -> String {
    if let Some(texts) = tensor.strings() {
        return format!("{:?}", texts.iter().take(6).collect::<Vec<_>>());
    }
    match tensor.dtype() {
        DType::I64 => format!(
            "{:?}",
            tensor.to_slice::<i64>().map(|all| all.iter().take(8).copied().collect::<Vec<_>>())
        ),
        DType::I32 => format!(
            "{:?}",
            tensor.to_slice::<i32>().map(|all| all.iter().take(8).copied().collect::<Vec<_>>())
        ),
        _ => format!("{:?}", tensor.bytes().map(|bytes| bytes.slice(..bytes.len().min(12)))),
    }
}
