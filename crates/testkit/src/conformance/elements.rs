//! Elements of tensors from the JSON of a fixture, and how far two tensors are apart.

use bytes::Bytes;
use half::{bf16, f16};
use salver_tensor::{DType, Shape, Tensor};
use serde_json::Value;

/// A tensor as `make.py` writes it.
pub(super) fn tensor(json: &Value) -> Tensor {
    let dims: Vec<usize> = json["shape"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|dim| usize::try_from(whole(dim)).expect("a size"))
        .collect();
    let data = json["data"].as_array().expect("make.py writes the elements");
    let shape = Shape::new(&dims).expect("fixtures are small");
    macro_rules! whole_numbers {
        ($t:ty) => {
            Tensor::from_vec(
                shape,
                data.iter().map(|x| <$t>::try_from(whole(x)).expect("in range")).collect(),
            )
        };
    }
    let made = match json["dtype"].as_str().expect("make.py writes the element type") {
        "float32" => Tensor::from_vec(shape, data.iter().map(|x| float(x) as f32).collect()),
        "float64" => Tensor::from_vec(shape, data.iter().map(float).collect()),
        "float16" => Tensor::from_vec(shape, data.iter().map(|x| f16::from_f64(float(x))).collect()),
        "bfloat16" => Tensor::from_vec(shape, data.iter().map(|x| bf16::from_f64(float(x))).collect()),
        "complex64" => Tensor::from_vec(shape, data.iter().map(|x| pair(x).map(|x| x as f32)).collect()),
        "complex128" => Tensor::from_vec(shape, data.iter().map(pair).collect()),
        "int8" => whole_numbers!(i8),
        "int16" => whole_numbers!(i16),
        "int32" => whole_numbers!(i32),
        "int64" => whole_numbers!(i64),
        "uint8" => whole_numbers!(u8),
        "uint16" => whole_numbers!(u16),
        "uint32" => whole_numbers!(u32),
        "uint64" => whole_numbers!(u64),
        "bool" => Tensor::from_bools(shape, &data.iter().map(|x| whole(x) != 0).collect::<Vec<_>>()),
        "string" => Tensor::from_strings(shape, data.iter().map(text).collect()),
        other => panic!("unknown element type {other}"),
    };
    made.expect("make.py writes as many elements as the shape asks for")
}

fn whole(json: &Value) -> i128 {
    let number = json.as_i64().map(i128::from).or_else(|| json.as_u64().map(i128::from));
    number.expect("make.py writes whole numbers for whole numbers")
}

fn float(json: &Value) -> f64 {
    json.as_f64()
        .unwrap_or_else(|| json.as_str().and_then(|text| text.parse().ok()).expect("a number or its name"))
}

fn pair(json: &Value) -> [f64; 2] {
    [float(&json[0]), float(&json[1])]
}

/// Text, or bytes where they are no text.
fn text(json: &Value) -> Bytes {
    match json.as_array() {
        Some(bytes) => bytes.iter().map(|byte| u8::try_from(whole(byte)).expect("a byte")).collect(),
        None => Bytes::from(json.as_str().expect("make.py writes text").to_owned()),
    }
}

/// The largest difference of two tensors of one element type and shape, relative to numbers above one; NaN equals
/// NaN. `None` when element types or shapes differ.
pub(super) fn difference(a: &Tensor, b: &Tensor) -> Option<f64> {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return None;
    }
    let far = match (numbers(a), numbers(b)) {
        (Numbers::Whole(a), Numbers::Whole(b)) => a
            .iter()
            .zip(&b)
            .map(|(a, b)| (a - b).abs() as f64 / (*b as f64).abs().max(1.0))
            .fold(0.0, f64::max),
        (Numbers::Float(a), Numbers::Float(b)) => {
            a.iter().zip(&b).map(|(&a, &b)| distance(a, b)).fold(0.0, f64::max)
        }
        _ if a.strings() == b.strings() => 0.0,
        _ => f64::INFINITY,
    };
    Some(far)
}

fn distance(a: f64, b: f64) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    let distance = (a - b).abs() / b.abs().max(1.0);
    if distance.is_nan() { f64::INFINITY } else { distance }
}

enum Numbers {
    Whole(Vec<i128>),
    Float(Vec<f64>),
    None,
}

fn numbers(tensor: &Tensor) -> Numbers {
    macro_rules! all {
        ($kind:ident, $t:ty, $convert:expr) => {
            Numbers::$kind(tensor.to_slice::<$t>().unwrap_or_default().iter().map($convert).collect())
        };
    }
    match tensor.dtype() {
        DType::F32 => all!(Float, f32, |&x| f64::from(x)),
        DType::F64 => all!(Float, f64, |&x| x),
        DType::F16 => all!(Float, f16, |x| x.to_f64()),
        DType::BF16 => all!(Float, bf16, |x| x.to_f64()),
        DType::C64 => {
            let pairs = tensor.to_slice::<[f32; 2]>().unwrap_or_default();
            Numbers::Float(pairs.as_flattened().iter().map(|&x| f64::from(x)).collect())
        }
        DType::C128 => {
            Numbers::Float(tensor.to_slice::<[f64; 2]>().unwrap_or_default().as_flattened().to_vec())
        }
        DType::I8 => all!(Whole, i8, |&x| i128::from(x)),
        DType::I16 => all!(Whole, i16, |&x| i128::from(x)),
        DType::I32 => all!(Whole, i32, |&x| i128::from(x)),
        DType::I64 => all!(Whole, i64, |&x| i128::from(x)),
        DType::U8 => all!(Whole, u8, |&x| i128::from(x)),
        DType::U16 => all!(Whole, u16, |&x| i128::from(x)),
        DType::U32 => all!(Whole, u32, |&x| i128::from(x)),
        DType::U64 => all!(Whole, u64, |&x| i128::from(x)),
        DType::Bool => {
            Numbers::Whole(tensor.bytes().into_iter().flatten().map(|&byte| i128::from(byte)).collect())
        }
        DType::String => Numbers::None,
    }
}
