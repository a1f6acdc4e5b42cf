use std::sync::Arc;

use half::{bf16, f16};
use proptest::prelude::*;
use salver_predict::{Code, Error};
use salver_tensor::{DType, Dims, Shape, Signature, Tensor, TensorSpec};

use super::*;

fn spec(name: &str, dtype: DType) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        tensor_name: format!("{name}:0").into(),
        dtype,
        dims: Dims::unknown(),
        default: None,
    }
}

fn with_default(name: &str, default: Tensor) -> TensorSpec {
    let spec = spec(name, default.dtype());
    TensorSpec { default: Some(default), ..spec }
}

fn signature(name: &str, inputs: Vec<TensorSpec>) -> Arc<Signature> {
    Arc::new(Signature::new(name, "tensorflow/serving/predict", inputs, vec![spec("y", DType::F32)]))
}

fn floats(dims: &[usize], elements: &[f32]) -> Tensor {
    Tensor::from_vec(Shape::new(dims).unwrap(), elements.to_vec()).unwrap()
}

fn decode_with(body: &str, signatures: &[Arc<Signature>], limits: Limits) -> Result<Decoded, Error> {
    let resolve = |name: &str| {
        let name = if name.is_empty() { "serving_default" } else { name };
        let found = signatures.iter().find(|signature| &**signature.name() == name).cloned();
        found.ok_or_else(|| {
            Error::client(Code::FailedPrecondition, format!("Serving signature key \"{name}\" not found."))
        })
    };
    decode_predict(body.as_bytes(), resolve, limits)
}

/// Decodes for a signature with these inputs.
fn decode(body: &str, inputs: Vec<TensorSpec>) -> Result<Decoded, Error> {
    decode_with(body, &[signature("serving_default", inputs)], Limits::default())
}

/// Decodes for a signature with one input `x`.
fn decode_x(body: &str, dtype: DType) -> Result<Tensor, Error> {
    decode(body, vec![spec("x", dtype)]).map(|mut decoded| decoded.inputs.remove(0))
}

/// The error's message must contain the text.
#[track_caller]
fn check_error<T: std::fmt::Debug>(result: Result<T, Error>, expected: &str) {
    let error = result.unwrap_err();
    assert!(error.message().contains(expected), "expected: {expected}\n     got: {error}");
}

#[test]
fn rows_and_columns_become_tensors() {
    let cases: &[(&str, &[usize], &[f32])] = &[
        (r#"{"instances": [1.0, 2, 5e0]}"#, &[3], &[1.0, 2.0, 5.0]),
        (r#"{"instances": [[1, 2], [3, 4]]}"#, &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
        (r#"{"instances": [[[1], [2]]]}"#, &[1, 2, 1], &[1.0, 2.0]),
        (r#"{"instances": [{"x": 1}, {"x": 2}]}"#, &[2], &[1.0, 2.0]),
        (r#"{"instances": [[], []]}"#, &[2, 0], &[]),
        (r#"{"inputs": 1.5}"#, &[], &[1.5]),
        (r#"{"inputs": []}"#, &[0], &[]),
        (r#"{"inputs": [[], []]}"#, &[2, 0], &[]),
        (r#"{"inputs": [[1, 2, 3]]}"#, &[1, 3], &[1.0, 2.0, 3.0]),
        (r#"{"inputs": {"x": [[1], [2]], "other": {"a": [null]}}}"#, &[2, 1], &[1.0, 2.0]),
        (" {\n\t\"inputs\" :[ 1 ,\r\n2 ] } trailing bytes }", &[2], &[1.0, 2.0]),
        (r#"{"inputs": [1], "inputs": [2]}"#, &[1], &[1.0]),
        (r#"{"inputs": {"x": [1], "x": [2, 3]}}"#, &[1], &[1.0]),
        (r#"{"instances": [{"x": 1, "x": [2]}]}"#, &[1], &[1.0]),
        (r#"{"unknown": {"inputs": [[3]]}, "inputs": [1]}"#, &[1], &[1.0]),
    ];
    for (body, dims, elements) in cases {
        assert_eq!(decode_x(body, DType::F32).unwrap(), floats(dims, elements), "{body}");
    }
}

#[test]
fn the_format_is_told() {
    for (body, format) in [(r#"{"inputs": 1}"#, Format::Columnar), (r#"{"instances": [1]}"#, Format::Row)] {
        assert_eq!(decode(body, vec![spec("x", DType::F32)]).unwrap().format, format);
    }
}

#[test]
fn numbers_that_are_not_finite_have_names() {
    let body = r#"{"inputs": [NaN, Infinity, -Infinity, Inf, -Inf, -NaN, 1e39, -1e39]}"#;
    let tensor = decode_x(body, DType::F32).unwrap();
    let got = tensor.to_slice::<f32>().unwrap();
    let inf = f32::INFINITY;
    assert!(got[0].is_nan() && got[5].is_nan());
    assert_eq!([&got[1..5], &got[6..]].concat(), [inf, -inf, inf, -inf, inf, -inf]);
    let skipped = r#"{"a": [Inf, -NaN, {"b": -Inf}], "inputs": 1}"#;
    assert_eq!(decode_x(skipped, DType::F32).unwrap(), floats(&[], &[1.0]));
    check_error(decode_x(r#"{"inputs": [Infx]}"#, DType::F32), "JSON Parse error: ");
    check_error(decode_x(r#"{"inputs": [1e400]}"#, DType::F64), "Number too big to be stored in double.");
    check_error(decode_x(r#"{"inputs": [-1e400]}"#, DType::F32), "Number too big to be stored in double.");
}

#[test]
fn what_is_no_request_is_refused() {
    let cases = [
        ("", "JSON Parse error: The document is empty"),
        ("  \n", "JSON Parse error: The document is empty"),
        ("[1]", "JSON Value: [1] Is not object"),
        (r#""a""#, r#"JSON Value: "a" Is not object"#),
        ("nul", "JSON Parse error: Invalid value. at offset: 3"),
        ("{", "JSON Parse error: Missing a comma or } after an object member. at offset: 1"),
        (r#"{"inputs": [1,]}"#, "JSON Parse error: Invalid value. at offset: 14"),
        (
            r#"{"inputs": [1 2]}"#,
            "JSON Parse error: Missing a comma or ] after an array element. at offset: 14",
        ),
        (
            r#"{"inputs" [1]}"#,
            "JSON Parse error: Missing a colon after a name of object member. at offset: 10",
        ),
        (r#"{inputs: [1]}"#, "JSON Parse error: Missing a name for object member. at offset: 1"),
        (
            r#"{"inputs": ["a]}"#,
            "JSON Parse error: Missing a closing quotation mark in string. at offset: 16",
        ),
        (r#"{"inputs": [+1]}"#, "JSON Parse error: Invalid value. at offset: 12"),
        (r#"{"inputs": [01]}"#, "JSON Parse error: "),
        (r#"{"inputs": [1.]}"#, "JSON Parse error: "),
        (r#"{"inputs": [.5]}"#, "JSON Parse error: "),
        ("{\"inputs\": [1], // comment\n}", "JSON Parse error: "),
        ("{}", "Missing 'inputs' or 'instances' key"),
        (r#"{"input": [1]}"#, "Missing 'inputs' or 'instances' key"),
        (
            r#"{"inputs": [1], "instances": [1]}"#,
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist",
        ),
        (r#"{"signature_name": 1, "inputs": [1]}"#, "'signature_name' key must be a string value."),
        (r#"{"inputs": [1], "signature_name": null}"#, "'signature_name' key must be a string value."),
    ];
    for (body, expected) in cases {
        let error = decode_x(body, DType::F32);
        assert_eq!(error.clone().unwrap_err().code(), Code::InvalidArgument);
        check_error(error, expected);
    }
}

#[test]
fn broken_json_is_reported_before_anything_else() {
    let broken = "JSON Parse error: Missing a comma or ";
    for body in [
        r#"{"signature_name": 3, "inputs": [1}"#,
        r#"{"signature_name": "none", "inputs": [1}"#,
        r#"{"inputs": ["text"], "a": [1 2]}"#,
        r#"{"inputs": [[1], 2], "a": [1 2]}"#,
        r#"{"instances": [[1], 2], "inputs": [1 2]}"#,
        r#"[1 2"#,
    ] {
        check_error(decode_x(body, DType::F32), broken);
        check_error(check_request(body.as_bytes(), Limits::default()), broken);
    }
}

#[test]
fn a_request_can_be_checked_without_a_model() {
    let check = |body: &str| check_request(body.as_bytes(), Limits::default());
    assert_eq!(check(r#"{"inputs": ["anything"], "signature_name": "none"}"#), Ok(()));
    assert_eq!(check("{}"), Ok(()));
    check_error(check(r#"{"signature_name": 3}"#), "'signature_name' key must be a string value.");
    check_error(check("[]"), "JSON Value: [] Is not object");
}

#[test]
fn the_signature_may_be_named_anywhere() {
    let signatures = [
        signature("serving_default", vec![spec("x", DType::F32)]),
        signature("words", vec![spec("w", DType::String)]),
    ];
    let decode = |body| decode_with(body, &signatures, Limits::default());
    let cases = [
        (r#"{"inputs": ["a"], "signature_name": "words"}"#, "words"),
        (r#"{"signature_name": "words", "inputs": ["a"]}"#, "words"),
        (r#"{"instances": [{"w": "a"}], "signature_name": "words", "signature_name": 1}"#, "words"),
        (r#"{"inputs": [1], "signature_name": ""}"#, "serving_default"),
        (r#"{"inputs": [1], "signature_name": "serving_default"}"#, "serving_default"),
        (r#"{"inputs": [1]}"#, "serving_default"),
    ];
    for (body, expected) in cases {
        assert_eq!(&**decode(body).unwrap().signature.name(), expected, "{body}");
    }
    for body in [
        r#"{"signature_name": "none"}"#,
        r#"{"signature_name": "none", "inputs": ["a"]}"#,
        r#"{"inputs": ["a"], "instances": [], "signature_name": "none"}"#,
    ] {
        let error = decode(body).unwrap_err();
        assert_eq!(error.message(), "Serving signature key \"none\" not found.");
        assert_eq!(error.code(), Code::FailedPrecondition);
    }
}

#[test]
fn only_a_named_signature_need_exist() {
    let signatures = [signature("words", vec![spec("w", DType::String)])];
    let decode = |body| decode_with(body, &signatures, Limits::default());
    assert!(decode(r#"{"inputs": ["a"], "signature_name": "words"}"#).is_ok());
    check_error(decode(r#"{"inputs": ["a"]}"#), "Serving signature key \"serving_default\" not found.");
}

#[test]
fn rows_are_checked() {
    let cases = [
        (r#"{"instances": 1}"#, "Expecting 'instances' to be an list/array"),
        (r#"{"instances": {"x": 1}}"#, "Expecting 'instances' to be an list/array"),
        (r#"{"instances": []}"#, "No values in 'instances' array"),
        (r#"{"instances": [{"x": 1}, 2]}"#, "Expecting object but got list at item 1 of input list"),
        (r#"{"instances": [1, {"x": 1}]}"#, "Expecting value/list but got object at item 1 of input list"),
        (
            r#"{"instances": [{"x": 1}, {"z": 2}]}"#,
            "Failed to process element: 1 key: z of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named input: z",
        ),
        (
            r#"{"instances": [{}]}"#,
            "Failed to process element: 0 of 'instances' list. JSON object: {} keys must be equal to: x",
        ),
        (
            r#"{"instances": [[1, 2], [3]]}"#,
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 1",
        ),
        (
            r#"{"instances": [[[1, 2]], [[1], [2]]]}"#,
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [1,2] but got: [2,1]",
        ),
        (
            r#"{"instances": [{"x": 1}, {"x": [1]}]}"#,
            "element: 1 key: x of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [] but got: [1]",
        ),
        (
            r#"{"instances": ["a"]}"#,
            r#"Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: "a" Type: String is not of expected type: float"#,
        ),
    ];
    for (body, expected) in cases {
        check_error(decode_x(body, DType::F32), expected);
    }
}

#[test]
fn several_inputs_need_names() {
    let inputs = || vec![spec("b", DType::I64), spec("a", DType::F32)];
    let row = decode(r#"{"instances": [{"a": [1], "b": 2}, {"b": 4, "a": [3]}]}"#, inputs()).unwrap();
    let longs = Tensor::from_vec(Shape::new(&[2]).unwrap(), vec![2i64, 4]).unwrap();
    assert_eq!(row.inputs, [floats(&[2, 1], &[1.0, 3.0]), longs.clone()]);
    let columnar = decode(r#"{"inputs": {"b": [2, 4], "a": [[1], [3]]}}"#, inputs()).unwrap();
    assert_eq!(columnar.inputs, row.inputs);
    let cases = [
        (
            r#"{"instances": [1]}"#,
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map",
        ),
        (
            r#"{"inputs": [1]}"#,
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map",
        ),
        (
            r#"{"inputs": {"b64": "AA"}}"#,
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map",
        ),
        (r#"{"inputs": {"a": 1}}"#, "Missing named input: b in 'inputs' object."),
        (
            r#"{"instances": [{"a": 1, "b": 1}, {"a": 1}]}"#,
            "Failed to process element: 1 of 'instances' list. JSON object: {\n    \"a\": 1\n} keys must be equal to: a,b",
        ),
        (
            r#"{"instances": [{"a": 1, "b": 1.5}]}"#,
            "element: 0 key: b of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: 1.5 Type: Number is not of expected type: int64",
        ),
    ];
    for (body, expected) in cases {
        check_error(decode(body, inputs()), expected);
    }
}

#[test]
fn inputs_with_a_default_may_be_left_out() {
    let inputs = || vec![spec("a", DType::F32), with_default("b", floats(&[], &[7.0]))];
    for body in [r#"{"inputs": {"a": [1]}}"#, r#"{"instances": [{"a": 1}]}"#] {
        let decoded = decode(body, inputs()).unwrap();
        assert_eq!(decoded.inputs, [floats(&[1], &[1.0]), floats(&[], &[7.0])], "{body}");
    }
    let given = decode(r#"{"instances": [{"a": 1, "b": 2}]}"#, inputs()).unwrap();
    assert_eq!(given.inputs[1], floats(&[1], &[2.0]));
    for body in [
        r#"{"instances": [{"a": 1, "b": 2}, {"a": 1}]}"#,
        r#"{"instances": [{"a": 1}, {"a": 1, "b": 2}]}"#,
        r#"{"instances": [{"b": 2}]}"#,
    ] {
        check_error(decode(body, inputs()), "keys must be equal to: a,b");
    }
    check_error(decode(r#"{"inputs": {"b": 1}}"#, inputs()), "Missing named input: a in 'inputs' object.");
}

#[test]
fn a_signature_may_have_no_inputs() {
    for body in [r#"{"inputs": {}}"#, r#"{"instances": [{}]}"#, r#"{"instances": [{}, {}]}"#] {
        assert_eq!(decode(body, vec![]).unwrap().inputs, [], "{body}");
    }
    check_error(decode(r#"{"inputs": []}"#, vec![]), "inputs is a plain value/list");
    check_error(decode(r#"{"instances": [{"x": 1}]}"#, vec![]), "does not have named input: x");
}

#[test]
fn ragged_lists_are_refused() {
    let cases = [
        ("[[1, 2], [3]]", "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ("[[1], [2, 3, 4]]", "Encountered list at unexpected size: 3 at level: 1 expected size: 1"),
        ("[[[1]], [[2], [3]]]", "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
        ("[[], [1]]", "Encountered list at unexpected size: 1 at level: 1 expected size: 0"),
        ("[[1], []]", "Encountered list at unexpected size: 0 at level: 1 expected size: 1"),
        ("[1, [2]]", "Encountered list at unexpected level: 1 expected < 1"),
        ("[[1], [[2]]]", "Encountered list at unexpected level: 2 expected < 2"),
        ("[[1], 2]", "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ("[[], 1]", "JSON Value: 1 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
    ];
    for (value, expected) in cases {
        check_error(decode_x(&format!(r#"{{"inputs": {value}}}"#), DType::F32), expected);
    }
}

/// For each type: values taken, and values refused with the end of the message.
#[test]
fn types_are_strict() {
    use DType::*;
    let number = "Type: Number is not of expected type: ";
    type Refused<'a> = (&'a str, &'a str);
    let cases: &[(DType, &[&str], &[Refused<'_>])] = &[
        (
            F32,
            &["1", "-0", "1.5", "1e-50", "3.4e38"],
            &[("true", "Type: True is not of expected type: float")],
        ),
        (F64, &["1", "1.5"], &[("null", "Type: Null is not of expected type: double")]),
        (F16, &["1", "65504", "1e9"], &[("\"1\"", "Type: String is not of expected type: half")]),
        (BF16, &["1", "1.5"], &[("false", "Type: False is not of expected type: bfloat16")]),
        (I32, &["-2147483648", "2147483647"], &[("2147483648", number), ("1.0", number), ("1e3", number)]),
        (
            I64,
            &["-9223372036854775808", "9223372036854775807"],
            &[("9223372036854775808", number), ("{}", "Type: Object")],
        ),
        (U32, &["0", "4294967295"], &[("-1", number), ("4294967296", number)]),
        (U64, &["0", "18446744073709551615"], &[("-1", number), ("18446744073709551616", number)]),
        (I8, &["-128", "127"], &[("128", "JSON Value: 128 is out of range of type: int8"), ("1.5", number)]),
        (
            U8,
            &["0", "255"],
            &[("300", "JSON Value: 300 is out of range of type: uint8"), ("-1", "out of range")],
        ),
        (I16, &["-32768", "32767"], &[("32768", "out of range of type: int16")]),
        (U16, &["0", "65535"], &[("65536", "out of range of type: uint16"), ("\"a\"", "Type: String")]),
        (Bool, &["true", "false"], &[("1", "JSON Value: 1 Type: Number is not of expected type: bool")]),
        (
            String,
            &["\"a\"", "\"\"", "{\"b64\": \"AAE=\"}", "{\"b64\": \"AAE\"}"],
            &[
                ("1", "JSON Value: 1 Type: Number is not of expected type: string"),
                ("{\"b64\": \"!\"}", "Unable to base64 decode"),
            ],
        ),
    ];
    for (dtype, taken, refused) in cases {
        for value in *taken {
            let tensor = decode_x(&format!(r#"{{"inputs": [{value}]}}"#), *dtype);
            assert_eq!(tensor.map(|t| t.dtype()), Ok(*dtype), "{value}");
        }
        for (value, expected) in *refused {
            check_error(decode_x(&format!(r#"{{"inputs": [{value}]}}"#), *dtype), expected);
        }
    }
    for dtype in [C64, C128] {
        let error = decode_x(r#"{"instances": [1]}"#, dtype).unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented);
        assert!(
            error.message().contains(&format!("Conversion of JSON Value: 1 to type: {dtype}")),
            "{error}"
        );
    }
}

#[test]
fn elements_keep_their_values() {
    let one = Shape::new(&[2]).unwrap();
    let decode = |values: &str, dtype| decode_x(&format!(r#"{{"inputs": [{values}]}}"#), dtype).unwrap();
    assert_eq!(
        decode("18446744073709551615, 0", DType::U64),
        Tensor::from_vec(one.clone(), vec![u64::MAX, 0]).unwrap()
    );
    assert_eq!(decode("-128, 127", DType::I8), Tensor::from_vec(one.clone(), vec![-128i8, 127]).unwrap());
    let half = vec![f16::from_f32(0.1), f16::INFINITY];
    assert_eq!(decode("0.1, 1e9", DType::F16), Tensor::from_vec(one.clone(), half).unwrap());
    let brain = vec![bf16::from_f32(0.1), bf16::from_f32(-3.0)];
    assert_eq!(decode("0.1, -3", DType::BF16), Tensor::from_vec(one.clone(), brain).unwrap());
    assert_eq!(decode("true, false", DType::Bool), Tensor::from_bools(one.clone(), &[true, false]).unwrap());
    assert_eq!(decode("16777217, 0.1", DType::F32), floats(&[2], &[16777216.0, 0.1]));
    let strings = vec!["a\"\u{e9}\u{1F600}".into(), vec![0u8, 1, 255].into()];
    let got = decode(r#""a\"\u00e9\ud83d\ude00", {"b64": "AAH/"}"#, DType::String);
    assert_eq!(got, Tensor::from_strings(one, strings).unwrap());
}

#[test]
fn base64_objects_are_values() {
    let words = |dims: &[usize], words: &[&'static str]| {
        let words = words.iter().map(|word| bytes::Bytes::from_static(word.as_bytes())).collect();
        Tensor::from_strings(Shape::new(dims).unwrap(), words).unwrap()
    };
    let cases = [
        (r#"{"instances": [{"b64": "YQ=="}, "b", {"b64": "Yw"}]}"#, words(&[3], &["a", "b", "c"])),
        (r#"{"instances": [[{"b64": "YQ=="}], ["b"]]}"#, words(&[2, 1], &["a", "b"])),
        (r#"{"instances": [{"x": {"b64": "YQ=="}}]}"#, words(&[1], &["a"])),
        (r#"{"inputs": {"b64": "YQ=="}}"#, words(&[], &["a"])),
        (r#"{"inputs": {"x": {"b64": "YQ=="}}}"#, words(&[], &["a"])),
    ];
    for (body, expected) in cases {
        assert_eq!(decode_x(body, DType::String).unwrap(), expected, "{body}");
    }
    let format = "not formatted correctly for base64 data";
    for body in [
        r#"{"inputs": [{"b64": "YQ==", "x": 1}]}"#,
        r#"{"inputs": [{"b64": 1}]}"#,
        r#"{"inputs": [{"b63": "YQ=="}]}"#,
        r#"{"inputs": [{}]}"#,
    ] {
        check_error(decode_x(body, DType::String), format);
    }
    check_error(
        decode_x(r#"{"inputs": [{"b64": "YQ=="}]}"#, DType::F32),
        "Type: Object is not of expected type: float",
    );
}

#[test]
fn bounds_hold() {
    let limits = Limits { max_depth: 5, max_elements: 4 };
    let signatures = [signature("serving_default", vec![spec("x", DType::F32)])];
    let decode = |body: &str| decode_with(body, &signatures, limits).map(|decoded| decoded.inputs);
    assert!(decode(r#"{"inputs": [[[[1]]]]}"#).is_ok());
    assert!(decode(r#"{"a": [{"b": [{}]}], "inputs": 1}"#).is_ok());
    let deep = "JSON Parse error: nested deeper than 5 levels at offset: ";
    check_error(decode(r#"{"inputs": [[[[[1]]]]]}"#), deep);
    check_error(decode(r#"{"a": [{"b": [{"c": []}]}]}"#), deep);
    let many = "tensor has more than 4 elements";
    assert!(decode(r#"{"inputs": [1, 2, 3, 4]}"#).is_ok());
    check_error(decode(r#"{"inputs": [1, 2, 3, 4, 5]}"#), many);
    check_error(decode(r#"{"instances": [1, 2, 3, 4, 5]}"#), many);
    check_error(decode(r#"{"instances": [[1, 2], [3, 4], [5, 6]]}"#), many);
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    for open in ["[", "{\"a\":", "[[{\"a\":"] {
        let nested = open.repeat(50_000);
        for body in [nested.clone(), format!("{{\"inputs\":{nested}"), format!("{{\"a\":{nested}")] {
            check_error(decode_x(&body, DType::F32), "nested deeper than 64 levels");
        }
    }
    // Even where more nesting is allowed than a tensor can have dimensions.
    let limits = Limits { max_depth: 100_000, ..Limits::default() };
    let body = format!("{{\"inputs\": {}1{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let signatures = [signature("serving_default", vec![spec("x", DType::F32)])];
    check_error(decode_with(&body, &signatures, limits), "lists are nested deeper than 32 levels");
}

#[test]
fn shown_values_are_laid_out_and_cut() {
    let body = r#"{"inputs": {"x": {"a": [1, {"c": "d"}], "b": {}}}}"#;
    let shown = "JSON Value: {\n    \"a\": [1, {\n            \"c\": \"d\"\n        }],\n    \"b\": {}\n} Type: Object";
    check_error(decode_x(body, DType::F32), shown);
    let long = format!(r#"{{"inputs": ["{}"]}}"#, "a".repeat(100_000));
    let error = decode_x(&long, DType::F32).unwrap_err();
    assert!(error.message().contains("aaa... Type: String"), "{error}");
    assert!(error.message().len() < 400);
    let long = format!(r#"{{"inputs": {{"x": {{"a": [1{}]}}}}}}"#, ",1".repeat(100_000));
    assert!(decode_x(&long, DType::F32).unwrap_err().message().len() < 400);
}

#[test]
fn the_signature_is_checked() {
    let dims = Dims::new(vec![None, Some(2)]);
    let inputs = vec![TensorSpec { dims, ..spec("x", DType::F32) }];
    assert!(decode(r#"{"instances": [[1, 2]]}"#, inputs.clone()).is_ok());
    check_error(decode(r#"{"instances": [1, 2]}"#, inputs), "input 'x' has shape [2], expected [?,2]");
}

fn encode(format: Format, outputs: &[(&str, &Tensor)]) -> Result<String, Error> {
    encode_predict(format, outputs, NonFinite::Literal).map(|body| String::from_utf8(body).unwrap())
}

#[test]
fn answers_are_written_by_rows_and_by_tensors() {
    let vector = floats(&[3], &[2.5, 3.0, 4.5]);
    let matrix = floats(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let scalar = floats(&[], &[1.0]);
    type Output<'a> = (&'a str, &'a Tensor);
    let cases: &[(Format, &[Output<'_>], &str)] = &[
        (Format::Row, &[("y", &vector)], r#"{"predictions": [2.5, 3.0, 4.5]}"#),
        (Format::Row, &[("y", &matrix)], r#"{"predictions": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]}"#),
        (
            Format::Row,
            &[("m", &matrix), ("v", &vector)],
            r#"{"predictions": [{"m": [1.0, 2.0], "v": 2.5}, {"m": [3.0, 4.0], "v": 3.0}, {"m": [5.0, 6.0], "v": 4.5}]}"#,
        ),
        (Format::Columnar, &[("y", &scalar)], r#"{"outputs": 1.0}"#),
        (
            Format::Columnar,
            &[("s", &scalar), ("v", &vector)],
            r#"{"outputs": {"s": 1.0, "v": [2.5, 3.0, 4.5]}}"#,
        ),
        (Format::Columnar, &[("y", &floats(&[2, 0], &[]))], r#"{"outputs": [[], []]}"#),
        (Format::Columnar, &[("y", &floats(&[0], &[]))], r#"{"outputs": []}"#),
        (Format::Row, &[("y", &floats(&[0], &[]))], r#"{"predictions": []}"#),
        (Format::Row, &[("a", &floats(&[0], &[])), ("b", &floats(&[0, 2], &[]))], r#"{"predictions": []}"#),
    ];
    for (format, outputs, expected) in cases {
        assert_eq!(encode(*format, outputs).unwrap().trim_end(), *expected);
    }
}

#[test]
fn answers_that_have_no_form_are_refused() {
    let (vector, scalar) = (floats(&[2], &[1.0, 2.0]), floats(&[], &[1.0]));
    let complex = Tensor::from_vec(Shape::new(&[1]).unwrap(), vec![[1f32, 2.0]]).unwrap();
    let hollow = floats(&[1 << 40, 0], &[]);
    let rows: &[(&[(&str, &Tensor)], &str)] = &[
        (&[], "Cannot convert empty tensor map to JSON"),
        (&[("y", &scalar)], "Tensor name: y has no shape information "),
        (&[("a", &vector), ("b", &floats(&[1], &[1.0]))], "Tensor name: b has inconsistent batch size: "),
        (&[("y", &complex)], "Failed to write JSON value for tensor type: complex64"),
        (&[("y", &hollow)], "too many empty lists"),
        (&[("y", &hollow), ("z", &hollow)], "too many empty lists"),
    ];
    for (outputs, expected) in rows {
        check_error(encode(Format::Row, outputs), expected);
    }
    check_error(encode(Format::Columnar, &[]), "Cannot convert empty tensor map to JSON");
}

#[test]
fn elements_are_written_by_type() {
    let three = || Shape::new(&[3]).unwrap();
    let half = [0.1, 65504.0, -0.5].map(f16::from_f32).to_vec();
    let brain = [0.1, 3e38, -0.5].map(bf16::from_f32).to_vec();
    let strings = vec!["a\"\\\n\u{1}\u{e9}".into(), vec![b'x', 0xff, b'y'].into(), bytes::Bytes::new()];
    let strings = Tensor::from_strings(three(), strings).unwrap();
    let cases = [
        ("y", Tensor::from_vec(three(), vec![i8::MIN, 0, i8::MAX]).unwrap(), "[-128, 0, 127]"),
        ("y", Tensor::from_vec(three(), vec![u64::MAX, 0, 1]).unwrap(), "[18446744073709551615, 0, 1]"),
        ("y", Tensor::from_vec(three(), vec![i64::MIN, 0, 1]).unwrap(), "[-9223372036854775808, 0, 1]"),
        ("y", Tensor::from_bools(three(), &[true, false, true]).unwrap(), "[true, false, true]"),
        ("y", Tensor::from_vec(three(), half).unwrap(), "[0.0999755859, 65504.0, -0.5]"),
        ("y", Tensor::from_vec(three(), brain).unwrap(), "[0.100097656, 3.00405527e+38, -0.5]"),
        (
            "y",
            Tensor::from_vec(three(), vec![0.1f64, 1.0 / 3.0, 5e-324]).unwrap(),
            "[0.1, 0.33333333333333331, 4.94066e-324]",
        ),
        ("y", strings.clone(), "[\"a\\\"\\\\\\n\\u0001\u{e9}\", \"x\u{fffd}y\", \"\"]"),
        ("y_bytes", strings, r#"[{"b64": "YSJcCgHDqQ=="}, {"b64": "eP95"}, {"b64": ""}]"#),
    ];
    for (name, tensor, expected) in cases {
        let body = encode(Format::Columnar, &[(name, &tensor)]).unwrap();
        assert_eq!(body.trim_end(), format!("{{\"outputs\": {expected}}}"));
    }
}

#[test]
fn values_that_are_not_finite_have_three_forms() {
    let tensor = floats(&[3], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
    let cases = [
        (NonFinite::Literal, "[NaN, Infinity, -Infinity]"),
        (NonFinite::Null, "[null, null, null]"),
        (NonFinite::String, r#"["NaN", "Infinity", "-Infinity"]"#),
    ];
    for (form, expected) in cases {
        let body = encode_predict(Format::Row, &[("y", &tensor)], form).unwrap();
        assert_eq!(String::from_utf8(body).unwrap().trim_end(), format!("{{\"predictions\": {expected}}}"));
    }
}

fn any_dims() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0usize..4, 0..4)
}

fn any_tensor() -> impl Strategy<Value = Tensor> {
    (any_dims(), any::<u64>(), 0usize..6).prop_map(|(dims, seed, kind)| {
        let shape = Shape::new(&dims).unwrap();
        let bits = |i: usize| seed.wrapping_mul(2 * i as u64 + 1).rotate_left(i as u32);
        let each = 0..shape.n_elements();
        match kind {
            0 => Tensor::from_vec(shape, each.map(|i| bits(i) as i64).collect()).unwrap(),
            1 => Tensor::from_vec(shape, each.map(bits).collect()).unwrap(),
            2 => {
                let finite = |x: f32| if x.is_finite() { x } else { 0.5 };
                Tensor::from_vec(shape, each.map(|i| finite(f32::from_bits(bits(i) as u32))).collect())
                    .unwrap()
            }
            3 => {
                let finite = |x: f64| if x.is_finite() { x } else { 0.5 };
                Tensor::from_vec(shape, each.map(|i| finite(f64::from_bits(bits(i)))).collect()).unwrap()
            }
            4 => {
                let finite = |x: f16| if x.is_finite() { x } else { f16::ONE };
                Tensor::from_vec(shape, each.map(|i| finite(f16::from_bits(bits(i) as u16))).collect())
                    .unwrap()
            }
            _ => {
                let word = |i| bytes::Bytes::copy_from_slice(&bits(i).to_le_bytes()[..i % 8]);
                Tensor::from_strings(shape, each.map(word).collect()).unwrap()
            }
        }
    })
}

/// The same text as a request: dimensions behind an empty one are lost in JSON.
fn seen_shape(dims: &[usize]) -> Vec<usize> {
    let n = dims.iter().position(|&dim| dim == 0).map_or(dims.len(), |at| at + 1);
    dims[..n].to_vec()
}

proptest! {
    #[test]
    fn what_is_written_reads_back(tensor in any_tensor()) {
        let answer = encode(Format::Columnar, &[("x_bytes", &tensor)]).unwrap();
        let request = answer.replacen("\"outputs\"", "\"inputs\"", 1);
        let decoded = decode_x(&request, tensor.dtype()).unwrap();
        let expected = seen_shape(tensor.shape().dims());
        prop_assert_eq!(decoded.shape().dims(), expected);
        prop_assert_eq!(decoded.bytes(), tensor.bytes());
        prop_assert_eq!(decoded.strings(), tensor.strings());
    }

    #[test]
    fn rows_read_back(tensor in any_tensor().prop_filter("has rows", |t| t.shape().n_rows().is_some_and(|n| n > 0))) {
        let answer = encode(Format::Row, &[("a_bytes", &tensor), ("x_bytes", &tensor)]).unwrap();
        let request = answer.replacen("\"predictions\"", "\"instances\"", 1);
        let inputs = vec![spec("a_bytes", tensor.dtype()), spec("x_bytes", tensor.dtype())];
        for decoded in decode(&request, inputs).unwrap().inputs {
            prop_assert_eq!(decoded.bytes(), tensor.bytes());
            prop_assert_eq!(decoded.strings(), tensor.strings());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"inputs\"", "\"instances\"", "\"x\"", "\"b64\"", "\"", "1", "-", "1.5e3",
            "Inf", "NaN", "true", "null", "\\u12", " ", "\u{e9}", "\"signature_name\"",
        ]), 0..24),
        cut in 0usize..100,
    ) {
        let body = pieces.concat();
        let bytes = &body.as_bytes()[..cut.min(body.len())];
        for dtype in DType::ALL {
            let signature = signature("serving_default", vec![spec("x", dtype)]);
            decode_predict(bytes, |_| Ok(signature.clone()), Limits::default()).ok();
            let wrapped = format!("{{\"instances\": [{body}]}}");
            decode_predict(wrapped.as_bytes(), |_| Ok(signature.clone()), Limits::default()).ok();
        }
    }
}
