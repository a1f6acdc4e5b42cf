//! Every operator against TensorFlow's own answers, and examples that are no examples.

use bytes::Bytes;
use proptest::prelude::*;
use salver_tensor::{DType, Shape, Tensor};
use serde_json::Value;

use crate::{Attribute, Attributes, SALVER, run, table_order};

/// Made by `testdata/make_salver.py`.
const CASES: &str = include_str!("../../testdata/salver.jsonl");

fn dtype(value: &Value) -> DType {
    let name = value.as_str().unwrap();
    DType::ALL.into_iter().find(|dtype| dtype.name() == name).unwrap()
}

fn latin1(value: &Value) -> Bytes {
    value.as_str().unwrap().chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect::<Vec<u8>>().into()
}

fn list<T>(value: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().unwrap().iter().map(read).collect()
}

fn tensor(value: &Value) -> Tensor {
    let dims = list(&value["dims"], |dim| usize::try_from(dim.as_u64().unwrap()).unwrap());
    let shape = Shape::new(&dims).unwrap();
    match dtype(&value["dtype"]) {
        DType::String => Tensor::from_strings(shape, list(&value["values"], latin1)).unwrap(),
        dtype => {
            let digits = value["values"].as_str().unwrap();
            let byte = |at: usize| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..digits.len() / 2).map(byte).collect();
            Tensor::from_bytes(dtype, shape, bytes.into()).unwrap()
        }
    }
}

fn attribute(value: &Value) -> Attribute {
    let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
    match &**kind {
        "int" => value.as_i64().unwrap().into(),
        "string" => value.as_str().unwrap().into(),
        "ints" => list(value, |item| item.as_i64().unwrap()).into(),
        "floats" => list(value, |item| item.as_f64().unwrap() as f32).into(),
        "strings" => list(value, |item| item.as_str().unwrap().to_owned()).into(),
        "dtype" => dtype(value).into(),
        "dtypes" => list(value, dtype).into(),
        "tensor" => tensor(value).into(),
        other => panic!("{other}"),
    }
}

/// An empty list is left out, for its type is not known from the file; the operator takes none for it.
fn attributes(case: &Value) -> Attributes {
    let mut attributes = Attributes::new();
    for (name, value) in case["attributes"].as_object().unwrap() {
        if value.get("ints").is_none_or(|ints| !ints.as_array().unwrap().is_empty()) {
            attributes.set(name, attribute(value));
        }
    }
    attributes
}

/// Floats within a part of their size, everything else exactly.
fn close(a: &Tensor, b: &Tensor) -> bool {
    let tolerance = match a.dtype() {
        DType::F16 => 1e-3,
        DType::BF16 => 1e-2,
        DType::F32 => 1e-6,
        DType::F64 => 1e-12,
        _ => return a == b,
    };
    let wide = |tensor: &Tensor| -> Vec<f64> {
        match tensor.dtype() {
            DType::F16 => tensor.to_slice::<half::f16>().unwrap().iter().map(|x| x.to_f64()).collect(),
            DType::BF16 => tensor.to_slice::<half::bf16>().unwrap().iter().map(|x| x.to_f64()).collect(),
            DType::F32 => tensor.to_slice::<f32>().unwrap().iter().map(|&x| f64::from(x)).collect(),
            _ => tensor.to_slice::<f64>().unwrap().to_vec(),
        }
    };
    let near =
        |(x, y): (f64, f64)| x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= tolerance * y.abs();
    a.dtype() == b.dtype() && a.shape() == b.shape() && wide(a).into_iter().zip(wide(b)).all(near)
}

fn shown(tensors: &[Tensor]) -> String {
    let one = |tensor: &Tensor| format!("{tensor:?} {:?} {:?}", tensor.strings(), tensor.bytes());
    tensors.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn check(line: &str) -> Result<(), String> {
    let case: Value = serde_json::from_str(line).unwrap();
    let inputs = list(&case["inputs"], tensor);
    let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Some).collect();
    let op = case["op"].as_str().unwrap();
    let expected = case.get("outputs").map(|outputs| list(outputs, tensor));
    let n = expected.as_ref().map_or(1, Vec::len);
    let got = run(SALVER, op, &attributes(&case), &inputs, n);
    match (expected, got) {
        (Some(expected), Ok(got)) if expected.iter().zip(&got).all(|(a, b)| close(b, a)) => Ok(()),
        (Some(expected), Ok(got)) => Err(format!("got {}, expected {}", shown(&got), shown(&expected))),
        (Some(_), Err(error)) => Err(format!("got the error {error}")),
        (None, Ok(got)) => Err(format!("got {}, expected the error {}", shown(&got), case["error"])),
        (None, Err(error)) => {
            let expected = case["error"].as_str().unwrap();
            match error.to_string() == expected {
                true => Ok(()),
                false => Err(format!("got the error '{error}', expected '{expected}'")),
            }
        }
    }
}

#[test]
fn operators_answer_as_tensorflow_does() {
    let mut failed = Vec::new();
    for line in CASES.lines() {
        if let Err(why) = check(line) {
            failed.push(format!("{why}\n    {}", &line[..line.len().min(400)]));
        }
    }
    assert!(failed.is_empty(), "{} cases:\n{}", failed.len(), failed.join("\n"));
}

fn strings(texts: &[&'static [u8]]) -> Tensor {
    let texts = texts.iter().map(|text| Bytes::from_static(text)).collect::<Vec<_>>();
    Tensor::from_strings(Shape::new(&[texts.len()]).unwrap(), texts).unwrap()
}

#[test]
fn a_table_in_order_answers_as_one_without() {
    let keys = strings(&[b"pear", b"apple", b"", b"fig"]);
    let values = Tensor::from_vec(Shape::new(&[4]).unwrap(), vec![1i64, 2, 3, 4]).unwrap();
    let default = Tensor::from_vec(Shape::scalar(), vec![-1i64]).unwrap();
    let asked = strings(&[b"fig", b"none", b"", b"pear", b"apple"]);
    let plain = Attributes::new().with("keys", keys.clone()).with("values", values);
    let ordered = plain.clone().with("order", table_order(&keys).unwrap());
    let answer = |table: &Attributes| {
        let outputs = run(SALVER, "LookupTable", table, &[Some(&asked), Some(&default)], 1).unwrap();
        outputs[0].to_slice::<i64>().unwrap().to_vec()
    };
    assert_eq!(answer(&plain), [4, -1, 3, 1, 2]);
    assert_eq!(answer(&ordered), [4, -1, 3, 1, 2]);
    let twice = table_order(&strings(&[b"a", b"b", b"a"])).unwrap_err().to_string();
    assert_eq!(twice, "a table has the key 'a' twice, at positions 0 and 2");
}

/// Some dense, sparse and ragged features.
fn parser() -> Attributes {
    let texts = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    Attributes::new()
        .with("sparse_keys", texts(&["a"]))
        .with("sparse_types", vec![DType::I64])
        .with("dense_keys", texts(&["b", "c"]))
        .with("dense_types", vec![DType::F32, DType::String])
        .with("dense_ranks", [1, 1])
        .with("dense_dims", [-1, 2])
        .with("ragged_keys", texts(&["d"]))
        .with("ragged_value_types", vec![DType::F32])
        .with("ragged_split_types", vec![DType::I32])
}

fn parse(serialised: &Tensor) -> Result<Vec<Tensor>, crate::Error> {
    let zero = Tensor::from_vec(Shape::scalar(), vec![0f32]).unwrap();
    let two = strings(&[b"x", b"y"]);
    run(SALVER, "ParseExample", &parser(), &[Some(serialised), Some(&zero), Some(&two)], 7)
}

#[test]
fn short_rows_beside_a_long_one_do_not_take_all_memory() {
    // Half a million floats in one row and half a million empty rows would be 2^38 elements.
    let n = 1usize << 19;
    let mut floats = vec![0u8; n * 4];
    let varint = |mut n: usize| {
        let mut bytes = Vec::new();
        while n > 127 {
            bytes.push(u8::try_from(n & 127 | 128).unwrap());
            n >>= 7;
        }
        bytes.push(u8::try_from(n).unwrap());
        bytes
    };
    // Example.features.feature["b"].float_list.value, from the inside out.
    for tag in [&[0x0a][..], &[0x12], &[0x0a, 1, b'b', 0x12], &[0x0a], &[0x0a]] {
        let (first, last) = (&tag[..tag.len() - 1], tag[tag.len() - 1]);
        floats = [first, &[last], &varint(floats.len()), &floats].concat();
    }
    let mut rows = vec![Bytes::new(); n];
    rows[0] = floats.into();
    let error = parse(&Tensor::from_strings(Shape::new(&[n]).unwrap(), rows).unwrap()).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::TooLarge, "{error}");
}

/// Bytes that are mostly what an example is made of.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(vec![0x0a]),
        Just(vec![0x12]),
        Just(vec![0x1a]),
        Just(b"\x0a\x01a".to_vec()),
        Just(b"\x0a\x0b\x0a\x09\x0a\x01b\x12\x04\x12\x02\x0a\x00".to_vec()),
        Just(b"\x0a\x0c\x0a\x0a\x0a\x01a\x12\x05\x1a\x03\x0a\x01\x07".to_vec()),
        Just(b"\x0a\x0c\x0a\x0a\x0a\x01c\x12\x05\x0a\x03\x0a\x01z".to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(examples in prop::collection::vec(pieces(), 0..5)) {
        let rows: Vec<Bytes> = examples.into_iter().map(Bytes::from).collect();
        let n = rows.len();
        if let Ok(outputs) = parse(&Tensor::from_strings(Shape::new(&[n]).unwrap(), rows).unwrap()) {
            prop_assert_eq!(outputs.len(), 7);
            prop_assert_eq!(outputs[3].shape().n_rows(), Some(n));
            prop_assert_eq!(outputs[4].shape().dims(), &[n, 2]);
        }
    }

    #[test]
    fn any_pattern_is_compiled_or_refused(pattern in r"[\\\[\]()a-d^$.|*+?{}&~:0-9QEwdsb-]{0,24}", text in ".{0,12}") {
        let text = Tensor::from_strings(Shape::scalar(), vec![Bytes::from(text)]).unwrap();
        let attributes = Attributes::new().with("pattern", pattern).with("rewrite", r"<\0>");
        let replaced = run(SALVER, "RegexReplace", &attributes, &[Some(&text)], 1);
        let matched = run(SALVER, "RegexFullMatch", &attributes, &[Some(&text)], 1);
        prop_assert_eq!(replaced.is_ok(), matched.is_ok());
    }
}
