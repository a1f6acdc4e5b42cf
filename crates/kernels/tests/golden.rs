//! Every operator against ONNX Runtime's (NumPy's where that lacks a type) results, written by `testdata/make.py`.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use half::f16;
use salver_kernels::{Attribute, Attributes, run};
use salver_tensor::{DType, Element, Shape, Tensor};
use serde_json::Value;

/// Floats agree when they differ by less than this, absolutely or relatively.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2e-3,
        DType::F64 | DType::C128 => 1e-9,
        _ => 1e-5,
    }
}

fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some(text) => text.parse().unwrap(),
        None => value.as_f64().unwrap(),
    }
}

fn dtype(name: &str) -> DType {
    DType::ALL.into_iter().find(|dtype| dtype.name() == name).unwrap_or_else(|| panic!("type {name}"))
}

fn tensor(value: &Value) -> Tensor {
    let dims: Vec<usize> =
        value[1].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap() as usize).collect();
    let shape = Shape::new(&dims).unwrap();
    let items = value[2].as_array().unwrap();
    fn of<T: Element>(shape: Shape, items: &[Value], read: impl Fn(&Value) -> T) -> Tensor {
        Tensor::from_vec(shape, items.iter().map(read).collect()).unwrap()
    }
    macro_rules! int {
        ($type:ty) => {
            of::<$type>(shape, items, |x| {
                x.as_i64().map_or_else(|| x.as_u64().unwrap() as $type, |x| x as $type)
            })
        };
    }
    match dtype(value[0].as_str().unwrap()) {
        DType::Bool => {
            Tensor::from_bools(shape, &items.iter().map(|x| x.as_u64() == Some(1)).collect::<Vec<_>>())
                .unwrap()
        }
        DType::String => {
            let texts = items.iter().map(|x| Bytes::from(x.as_str().unwrap().to_owned())).collect();
            Tensor::from_strings(shape, texts).unwrap()
        }
        DType::F16 => of(shape, items, |x| f16::from_f64(number(x))),
        DType::F32 => of(shape, items, |x| number(x) as f32),
        DType::F64 => of(shape, items, number),
        DType::C64 => {
            let parts: Vec<f32> = items.iter().map(|x| number(x) as f32).collect();
            Tensor::from_vec(shape, parts.chunks(2).map(|c| [c[0], c[1]]).collect()).unwrap()
        }
        DType::C128 => {
            let parts: Vec<f64> = items.iter().map(number).collect();
            Tensor::from_vec(shape, parts.chunks(2).map(|c| [c[0], c[1]]).collect()).unwrap()
        }
        DType::I8 => int!(i8),
        DType::I16 => int!(i16),
        DType::I32 => int!(i32),
        DType::I64 => int!(i64),
        DType::U8 => int!(u8),
        DType::U16 => int!(u16),
        DType::U32 => int!(u32),
        DType::U64 => int!(u64),
        other => panic!("no {other} in the cases"),
    }
}

fn attribute(value: &Value) -> Attribute {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Number(n) if n.is_i64() => n.as_i64().unwrap().into(),
        Value::Number(n) => (n.as_f64().unwrap() as f32).into(),
        Value::Object(map) if map.contains_key("dtype") => dtype(map["dtype"].as_str().unwrap()).into(),
        Value::Object(map) => tensor(&map["tensor"]).into(),
        Value::Array(items) => match items.first() {
            Some(Value::String(_)) => {
                items.iter().map(|x| x.as_str().unwrap().to_owned()).collect::<Vec<String>>().into()
            }
            Some(Value::Number(n)) if n.is_f64() => {
                items.iter().map(|x| x.as_f64().unwrap() as f32).collect::<Vec<f32>>().into()
            }
            _ => items.iter().map(|x| x.as_i64().unwrap()).collect::<Vec<i64>>().into(),
        },
        other => panic!("attribute {other}"),
    }
}

/// The elements as numbers, complex ones as two.
fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    match tensor.dtype() {
        DType::F16 => tensor.to_slice::<f16>().map(|s| s.iter().map(|x| x.to_f64()).collect()),
        DType::F32 => tensor.to_slice::<f32>().map(|s| s.iter().map(|&x| x.into()).collect()),
        DType::F64 => tensor.to_slice::<f64>().map(|s| s.to_vec()),
        DType::C64 => tensor.to_slice::<[f32; 2]>().map(|s| s.iter().flatten().map(|&x| x.into()).collect()),
        DType::C128 => tensor.to_slice::<[f64; 2]>().map(|s| s.iter().flatten().copied().collect()),
        _ => None,
    }
}

/// What is wrong with the result, if anything.
fn difference(got: &Tensor, want: &Tensor) -> Option<String> {
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        return Some(format!("{got:?}, expected {want:?}"));
    }
    let (Some(a), Some(b)) = (floats(got), floats(want)) else {
        return (got != want).then(|| {
            format!("{:?} {:?}, expected {:?} {:?}", got.bytes(), got.strings(), want.bytes(), want.strings())
        });
    };
    let bound = tolerance(got.dtype());
    let close = |(a, b): (&f64, &f64)| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= bound * b.abs().max(1.0)
    };
    let all = a.iter().zip(&b).all(close);
    (!all).then(|| format!("{a:?}, expected {b:?}"))
}

#[test]
fn results_are_those_of_the_reference() {
    let text = include_str!("../testdata/golden.jsonl");
    let mut wrong = Vec::new();
    let mut n = 0;
    for (i, line) in text.lines().enumerate() {
        let case: Value = serde_json::from_str(line).unwrap();
        let mut attributes = Attributes::new();
        for (name, value) in case["attributes"].as_object().unwrap() {
            attributes.set(name, attribute(value));
        }
        let list = |key: &str| -> Vec<Option<Tensor>> {
            case[key].as_array().unwrap().iter().map(|x| (!x.is_null()).then(|| tensor(x))).collect()
        };
        let (inputs, outputs) = (list("inputs"), list("outputs"));
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
        let op = case["op"].as_str().unwrap();
        let at = format!("line {} {op} {} {inputs:?}", i + 1, case["attributes"]);
        match run("", op, &attributes, &inputs, outputs.len()) {
            Err(error) => wrong.push(format!("{at}: {error}")),
            Ok(got) => {
                let pairs = got.iter().zip(outputs.iter().flatten());
                wrong.extend(pairs.filter_map(|(a, b)| difference(a, b)).map(|what| format!("{at}: {what}")));
            }
        }
        n += 1;
    }
    assert!(n > 1000, "{n} cases");
    assert!(wrong.is_empty(), "{} of {n} cases\n{}", wrong.len(), wrong.join("\n"));
}
