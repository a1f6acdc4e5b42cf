use bytes::Bytes;
use half::f16;
use proptest::prelude::*;
use salver_predict::{Code, Error, ModelId, ModelName, Version};
use salver_tensor::{DType, Dims, Shape, Signature, Tensor, TensorSpec};
use serde_json::{Value, json};

use super::*;
use crate::json::{Limits, NonFinite};
use crate::oip;

fn spec(name: &str, dtype: DType) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        tensor_name: name.into(),
        dtype,
        dims: Dims::new(vec![None]),
        default: None,
    }
}

fn signature() -> Signature {
    let inputs = vec![spec("b", DType::I64), spec("a", DType::F32)];
    Signature::new("serving_default", "", inputs, vec![spec("y", DType::F32), spec("s", DType::String)])
}

fn id() -> ModelId {
    ModelId { name: ModelName::new("m").unwrap(), version: Version(3) }
}

fn floats(dims: &[usize], elements: &[f32]) -> Tensor {
    Tensor::from_vec(Shape::new(dims).unwrap(), elements.to_vec()).unwrap()
}

fn decode(body: &str) -> Result<Infer, Error> {
    Infer::decode(&Bytes::copy_from_slice(body.as_bytes()), None, Limits::default())
}

/// A request with one input `x`, whose other members are given.
fn decode_x(members: &str) -> Result<Tensor, Error> {
    decode(&format!(r#"{{"inputs": [{{"name": "x", {members}}}]}}"#)).map(|mut read| read.inputs.remove(0).1)
}

fn decode_binary(json: &str, binary: &[u8]) -> Result<Infer, Error> {
    let body = Bytes::from([json.as_bytes(), binary].concat());
    Infer::decode(&body, Some(json.len()), Limits::default())
}

#[track_caller]
fn check_error<T: std::fmt::Debug>(result: Result<T, Error>, expected: &str) {
    let error = result.unwrap_err();
    assert!(error.message().contains(expected), "expected: {expected}\n     got: {error}");
}

#[test]
fn json_data_is_flat_or_nested() {
    let matrix = floats(&[2, 2], &[1.0, 2.5, -3.0, 4.0]);
    let cases = [
        (r#""shape": [2, 2], "datatype": "FP32", "data": [1, 2.5, -3, 4]"#, matrix.clone()),
        (r#""shape": [2, 2], "datatype": "FP32", "data": [[1, 2.5], [-3, 4]]"#, matrix.clone()),
        (r#""data": [[1, 2.5], [-3, 4]], "datatype": "FP32", "shape": [2, 2]"#, matrix),
        (r#""shape": [], "datatype": "FP32", "data": [7]"#, floats(&[], &[7.0])),
        (r#""shape": [0, 3], "datatype": "FP32", "data": []"#, floats(&[0, 3], &[])),
        (r#""shape": [0], "datatype": "FP32""#, floats(&[0], &[])),
        (r#""shape": [2, 0], "datatype": "FP32", "data": [[], []]"#, floats(&[2, 0], &[])),
    ];
    for (members, expected) in cases {
        assert_eq!(decode_x(members).unwrap(), expected, "{members}");
    }
}

#[test]
fn every_datatype_is_read_from_json() {
    for dtype in DType::ALL {
        let Some(name) = oip::datatype(dtype) else { continue };
        let data = match dtype {
            DType::Bool => "[true, false]",
            DType::String => r#"["a", {"b64": "AA=="}]"#,
            _ => "[1, 100]",
        };
        let tensor = decode_x(&format!(r#""shape": [2], "datatype": "{name}", "data": {data}"#)).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape().dims()), (dtype, [2].as_slice()));
    }
    let half = decode_x(r#""shape": [1], "datatype": "FP16", "data": [0.1]"#).unwrap();
    assert_eq!(half.as_slice::<f16>().unwrap(), [f16::from_f32(0.1)]);
}

#[test]
fn parameters_are_read() {
    let read = decode(
        r#"{"id": "7", "parameters": {"binary_data_output": true, "timeout": 1500, "sequence_id": 1, "x": [{}]},
            "outputs": [{"name": "y", "parameters": {"binary_data": false, "z": 1}}, {"name": "s"}], "inputs": [], "more": 1}"#,
    )
    .unwrap();
    assert_eq!((read.id.as_str(), read.binary_outputs), ("7", true));
    assert_eq!(read.timeout, Some(std::time::Duration::from_micros(1500)));
    let outputs: Vec<_> = read.outputs.iter().map(|output| (output.name.as_str(), output.binary)).collect();
    assert_eq!(outputs, [("y", Some(false)), ("s", None)]);
    assert_eq!(read.select(&signature()).unwrap(), [1, 0]);
    assert_eq!(decode(r#"{"parameters": {"timeout": 0}}"#).unwrap().timeout, None);
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        (r#""shape": [2], "datatype": "FP32", "data": [1]"#, "input 'x': data has shape [1], expected [2]"),
        (
            r#""shape": [4], "datatype": "FP32", "data": [[1, 2], [3, 4]]"#,
            "input 'x': data has shape [2,2], expected [4]",
        ),
        (r#""shape": [1], "datatype": "FP32", "data": 1"#, "input 'x': data is 1, expected a list"),
        (
            r#""shape": [1], "datatype": "FP32", "data": ["a"]"#,
            "input 'x': JSON Value: \"a\" Type: String is not of expected type: float",
        ),
        (
            r#""shape": [1], "datatype": "INT8", "data": [300]"#,
            "input 'x': JSON Value: 300 is out of range of type: int8",
        ),
        (
            r#""shape": [1], "datatype": "float32", "data": [1]"#,
            "input 'x': datatype is 'float32', expected one of BOOL, INT8",
        ),
        (r#""shape": [1], "datatype": 3"#, "input 'x': datatype is 3, expected a string"),
        (r#""shape": [-1], "datatype": "FP32""#, "input 'x': shape: JSON Value: -1"),
        (r#""shape": 1, "datatype": "FP32""#, "input 'x': shape is 1, expected a list"),
        (
            r#""shape": [1152921504606846976, 1152921504606846976], "datatype": "FP32""#,
            "more elements than fit in memory",
        ),
        (r#""shape": [1], "datatype": "FP32""#, "input 'x': has no data"),
        (r#""shape": [1], "data": [1]"#, "input 'x': has no datatype"),
        (r#""datatype": "FP32", "data": [1]"#, "input 'x': has no shape"),
        (
            r#""shape": [1], "datatype": "FP32", "data": [1 2]"#,
            "JSON Parse error: Missing a comma or ] after an array element.",
        ),
        (
            r#""shape": [1], "datatype": "FP32", "data": [1], "parameters": {"binary_data_size": 4}"#,
            "has both data and binary_data_size",
        ),
        (
            r#""shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}"#,
            "only 0 bytes of binary data are left",
        ),
        (
            r#""parameters": {"shared_memory_region": "r"}"#,
            "input 'x': parameter 'shared_memory_region' is not supported",
        ),
        (r#""parameters": []"#, "input 'x': parameters is [], expected an object"),
    ];
    for (members, expected) in cases {
        check_error(decode_x(members), expected);
    }
    check_error(decode("[]"), "the request is [], expected an object");
    check_error(decode(r#"{"inputs": {}}"#), "inputs is {}, expected a list");
    check_error(decode(r#"{"inputs": [1]}"#), "an input is 1, expected an object");
    check_error(decode(r#"{"inputs": [{}]}"#), "an input has no name");
    check_error(decode(r#"{"outputs": [{}]}"#), "an output has no name");
    let classify = r#"{"outputs": [{"name": "y", "parameters": {"classification": 2}}]}"#;
    assert_eq!(decode(classify).unwrap_err().code(), Code::Unimplemented);
    check_error(decode(&"[".repeat(50_000)), "the request is");
    check_error(decode(&format!("{{\"x\": {}", "[".repeat(50_000))), "nested deeper than 64 levels");
}

#[test]
fn binary_tensors_are_slices_of_the_body() {
    let json = r#"{"inputs": [
        {"name": "a", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
        {"name": "j", "shape": [1], "datatype": "INT32", "data": [5]},
        {"name": "s", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 11}}]}"#;
    let mut binary = [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
    binary.extend_from_slice(b"\x03\0\0\0abc\0\0\0\0");
    let body = Bytes::from([json.as_bytes(), &binary].concat());
    let read = Infer::decode(&body, Some(json.len()), Limits::default()).unwrap();
    assert_eq!(read.inputs[0].1.to_slice::<f32>().unwrap().as_ref(), [1.0, 2.0]);
    assert_eq!(read.inputs[0].1.bytes().unwrap().as_ptr(), body[json.len()..].as_ptr());
    assert_eq!(read.inputs[2].1.strings().unwrap(), ["abc", ""]);
    assert_eq!(read.inputs[2].1.strings().unwrap()[0].as_ptr(), body[json.len() + 12..].as_ptr());
}

#[test]
fn binary_data_must_fit() {
    let json = |size: usize, datatype: &str| {
        format!(
            r#"{{"inputs": [{{"name": "x", "shape": [2], "datatype": "{datatype}", "parameters": {{"binary_data_size": {size}}}}}]}}"#
        )
    };
    let cases = [
        (8, "FP32", 7, "input 'x': binary_data_size is 8, but only 7 bytes of binary data are left"),
        (8, "FP32", 9, "1 bytes of binary data belong to no input"),
        (7, "FP32", 7, "input 'x': float32 tensor of shape [2] takes 8 bytes, got 7"),
        (8, "BYTES", 8, "input 'x': element 0 ends beyond the 8 raw bytes"),
        (2, "BOOL", 2, "input 'x': bool element is 9, expected 0 or 1"),
        (usize::MAX, "FP32", 1, "binary_data_size is 18446744073709551615, but only 1 bytes"),
    ];
    for (size, datatype, given, expected) in cases {
        check_error(decode_binary(&json(size, datatype), &vec![9; given]), expected);
    }
    let short = Infer::decode(&Bytes::from_static(b"{}"), Some(3), Limits::default());
    check_error(short, "the body has 2 bytes, fewer than the 3 of its JSON part");
    let limits = Limits { max_elements: 1, ..Limits::default() };
    let body = Bytes::from([json(8, "FP32").as_bytes(), &[0; 8]].concat());
    let many = Infer::decode(&body, Some(body.len() - 8), limits);
    check_error(many, "input 'x': tensor has more than 1 elements");
}

#[test]
fn inputs_are_bound_by_name() {
    let input = |name: &str, datatype: &str| {
        format!(r#"{{"name": "{name}", "shape": [1], "datatype": "{datatype}", "data": [1]}}"#)
    };
    let bind = |inputs: &[String]| {
        decode(&format!(r#"{{"inputs": [{}]}}"#, inputs.join(","))).unwrap().bind(&signature())
    };
    let bound = bind(&[input("b", "INT64"), input("a", "FP32")]).unwrap();
    assert_eq!(bound.iter().map(Tensor::dtype).collect::<Vec<_>>(), [DType::F32, DType::I64]);
    check_error(bind(&[input("a", "FP32")]), "Missing but required: {b}");
    check_error(bind(&[input("a", "FP32"), input("c", "FP32")]), "c is not in the signature");
    check_error(bind(&[input("a", "FP32"), input("a", "FP32")]), "input 'a' is given twice");
    // Element types are the target's to check.
    assert!(bind(&[input("a", "FP32"), input("b", "FP32")]).is_ok());
}

fn encode(request: &Infer, outputs: &[usize], tensors: &[Tensor]) -> Result<Response, Error> {
    Response::encode(request, &id(), &signature(), outputs, tensors, NonFinite::Literal)
}

#[test]
fn responses_are_json_or_binary_by_output() {
    let words = Tensor::from_strings(Shape::new(&[2]).unwrap(), vec!["a\"".into(), Bytes::new()]).unwrap();
    let tensors = [words.clone(), floats(&[1, 2], &[1.0, 2.5])];
    let plain = encode(&Infer::default(), &[0, 1], &tensors).unwrap();
    assert_eq!(plain.header_len, None);
    let read: Value = serde_json::from_slice(&plain.into_bytes()).unwrap();
    let expected = json!({"model_name": "m", "model_version": "3", "outputs": [
        {"name": "s", "datatype": "BYTES", "shape": [2], "data": ["a\"", ""]},
        {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.5]},
    ]});
    assert_eq!(read, expected);

    let mixed = decode(
        r#"{"id": "q", "parameters": {"binary_data_output": true}, "outputs": [{"name": "y"}, {"name": "s", "parameters": {"binary_data": false}}]}"#,
    )
    .unwrap();
    let response = encode(&mixed, &[1, 0], &[tensors[1].clone(), words]).unwrap();
    let header_len = response.header_len.unwrap();
    let body = response.into_bytes();
    let read: Value = serde_json::from_slice(&body[..header_len]).unwrap();
    let expected = json!({"id": "q", "model_name": "m", "model_version": "3", "outputs": [
        {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
        {"name": "s", "datatype": "BYTES", "shape": [2], "data": ["a\"", ""]},
    ]});
    assert_eq!(read, expected);
    assert_eq!(&body[header_len..], [1f32.to_le_bytes(), 2.5f32.to_le_bytes()].concat());
}

#[test]
fn outputs_that_have_no_form_are_refused() {
    let raw = Tensor::from_strings(Shape::new(&[1]).unwrap(), vec![vec![0xffu8].into()]).unwrap();
    check_error(
        encode(&Infer::default(), &[0], std::slice::from_ref(&raw)),
        "output 's' cannot be sent: it holds bytes that are not UTF-8",
    );
    let binary = Infer { binary_outputs: true, ..Infer::default() };
    assert!(encode(&binary, &[0], &[raw]).is_ok());
    let complex = Tensor::from_vec(Shape::new(&[1]).unwrap(), vec![[1f32, 2.0]]).unwrap();
    check_error(encode(&binary, &[0], &[complex]), "output 's' cannot be sent: it holds complex numbers");
}

#[test]
fn pages_have_the_names_that_clients_read() {
    use salver_predict::{ModelStatus, State, VersionStatus};

    let parse = |body: Vec<u8>| -> Value { serde_json::from_slice(&body).unwrap() };
    let server = parse(server_body("salver", "0.1"));
    assert_eq!((&server["name"], &server["version"]), (&json!("salver"), &json!("0.1")));
    assert!(server["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")));

    let statistics = parse(statistics_body(&[(id(), Default::default())]));
    let one = &statistics["model_stats"][0];
    assert_eq!(
        (&one["name"], &one["version"], &one["inference_count"]),
        (&json!("m"), &json!("3"), &json!(0))
    );
    assert_eq!(one["inference_stats"]["success"], json!({"count": 0, "ns": 0}));
    assert_eq!(one["batch_stats"], json!([]));

    let versions = [(2, State::Available), (1, State::End)]
        .map(|(version, state)| VersionStatus { version: Version(version), state, error: None })
        .to_vec();
    let name = ModelName::new("m").unwrap();
    let models = [ModelStatus { name, versions, labels: Default::default(), source_error: None }];
    let ready = json!({"name": "m", "version": "2", "state": "READY", "reason": ""});
    assert_eq!(parse(index_body(&models, true)), json!([ready]));
    let gone = json!({"name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"});
    assert_eq!(parse(index_body(&models, false)), json!([ready, gone]));
    assert_eq!(parse(index_body(&[], false)), json!([]));
}

proptest! {
    /// What is sent as an output reads back as an input, as JSON and as binary data.
    #[test]
    fn outputs_read_back_as_inputs(elements in prop::collection::vec(-1e30f32..1e30, 0..20), words in prop::collection::vec(".{0,5}", 0..5), binary: bool) {
        let words: Vec<Bytes> = words.into_iter().map(Bytes::from).collect();
        let words = Tensor::from_strings(Shape::new(&[words.len()]).unwrap(), words).unwrap();
        let tensors = [words, floats(&[elements.len()], &elements)];
        let request = Infer { binary_outputs: binary, ..Infer::default() };
        let response = encode(&request, &[0, 1], &tensors).unwrap();
        let header_len = response.header_len.unwrap_or(usize::MAX);
        let body = response.into_bytes();
        let (json, binary) = body.split_at(header_len.min(body.len()));
        let json = String::from_utf8(json.to_vec()).unwrap().replacen("\"outputs\"", "\"inputs\"", 1);
        let read = decode_binary(&json, binary).unwrap();
        prop_assert_eq!(read.inputs.into_iter().map(|(_, tensor)| tensor).collect::<Vec<_>>(), tensors);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"inputs\"", "\"name\"", "\"x\"", "\"datatype\"", "\"FP32\"", "\"BYTES\"",
            "\"shape\"", "\"data\"", "\"parameters\"", "\"binary_data_size\"", "1", "-1", "4", "\"outputs\"", "\"",
        ]), 0..24),
        header_len in prop::option::of(0usize..60),
    ) {
        let members = pieces.concat();
        let input = format!("{{\"inputs\":[{{\"name\":\"x\",{members}}}]}}");
        for body in [members.into_bytes(), input.into_bytes()] {
            Infer::decode(&Bytes::from(body), header_len, Limits::default()).ok();
        }
    }
}
