#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use bytes::Bytes;
use prost::Message as _;
use salver_predict::Version;
use salver_tensor::{DType, Dims, Shape, TensorSpec};

use super::*;

const MAX: usize = 1 << 20;

fn spec(name: &str, default: Option<f32>) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        tensor_name: format!("{name}:0").into(),
        dtype: DType::F32,
        dims: Dims::new(vec![None]),
        default: default.map(|value| vector(&[value])),
    }
}

fn vector(elements: &[f32]) -> Tensor {
    Tensor::from_vec(Shape::new(&[elements.len()]).unwrap(), elements.to_vec()).unwrap()
}

fn signature(names: &[&str], default: Option<f32>) -> Signature {
    let inputs = names.iter().map(|name| spec(name, default)).collect();
    Signature::new(
        "serving_default",
        "tensorflow/serving/predict",
        inputs,
        vec![spec("y", None), spec("z", None)],
    )
}

fn id() -> ModelId {
    ModelId { name: ModelName::new("m").unwrap(), version: Version(3) }
}

fn proto_spec(name: &str, version_choice: Option<ProtoChoice>) -> ProtoSpec {
    ProtoSpec { name: name.into(), version_choice, signature_name: String::new() }
}

#[test]
fn a_spec_names_a_model_and_maybe_a_version() {
    let version = |choice| request_spec(Some(&proto_spec("m", choice))).unwrap().version;
    assert_eq!(version(None), VersionChoice::Latest);
    assert_eq!(version(Some(ProtoChoice::Version(0))), VersionChoice::Number(0));
    assert_eq!(version(Some(ProtoChoice::VersionLabel("x".into()))), VersionChoice::Label("x".into()));
    let refused = |spec: Option<&ProtoSpec>| {
        let error = request_spec(spec).unwrap_err();
        (error.code(), error.message().to_owned())
    };
    assert_eq!(refused(None), (Code::InvalidArgument, "Missing ModelSpec".into()));
    let nameless = proto_spec("", None);
    assert_eq!(refused(Some(&nameless)), (Code::InvalidArgument, "ModelSpec has no name specified.".into()));
}

#[test]
fn a_version_of_zero_differs_from_none() {
    let zero = proto_spec("m", Some(ProtoChoice::Version(0)));
    let bytes = zero.encode_to_vec();
    assert_eq!(bytes, [10, 1, b'm', 18, 0]);
    assert_eq!(ProtoSpec::decode(bytes.as_slice()).unwrap(), zero);
}

#[test]
fn inputs_are_checked_in_order() {
    let good = || encode_tensor(&vector(&[1.0]), Encoding::Fields);
    let bad = || TensorProto { dtype: 20, ..good() };
    let int = || encode_tensor(&Tensor::from_vec(Shape::scalar(), vec![1i32]).unwrap(), Encoding::Fields);
    let plain = signature(&["a", "b"], None);
    let default = signature(&["a", "b"], Some(1.0));
    let cases = [
        (
            &plain,
            vec![("a", bad())],
            "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}.",
        ),
        (&plain, vec![("a", bad()), ("c", good())], "Inputs contains invalid name. "),
        (&default, vec![("c", good())], "Inputs contains invalid name. "),
        (&plain, vec![("a", int()), ("b", bad())], "tensor parsing error: b"),
        // Element types are the target's to check, after the output filter.
        (&plain, vec![("a", int()), ("b", good())], ""),
        (&plain, vec![("a", good()), ("b", good())], ""),
        (&default, vec![("a", good())], ""),
        (&default, vec![], ""),
    ];
    for (signature, inputs, expected) in cases {
        let inputs = inputs.into_iter().map(|(name, proto)| (name.to_owned(), proto)).collect();
        let error = decode_inputs(inputs, signature, MAX).err();
        assert!(error.iter().all(|error| error.code() == Code::InvalidArgument));
        let message = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(message.starts_with(expected) && message.is_empty() == expected.is_empty(), "{message}");
    }
}

#[test]
fn inputs_share_one_bound() {
    let thousand = || encode_tensor(&vector(&[1.0; 1000]), Encoding::Fields);
    let inputs = || [("a".to_owned(), thousand()), ("b".to_owned(), thousand())].into();
    let signature = signature(&["a", "b"], None);
    assert!(decode_inputs(inputs(), &signature, 8000).is_ok());
    let error = decode_inputs(inputs(), &signature, 7999).unwrap_err();
    assert_eq!(error.message(), "input 'b' takes 4000 bytes, 3999 are left of what one request may take");
}

#[test]
fn a_response_names_what_was_asked_for() {
    let signature = signature(&["a"], None);
    let response = encode_response(&id(), &signature, &[1], &[vector(&[2.0])], Encoding::Fields);
    assert_eq!(response.outputs.keys().collect::<Vec<_>>(), ["z"]);
    assert_eq!(response.outputs["z"].float_val, [2.0]);
    let expected = ProtoSpec {
        signature_name: "serving_default".into(),
        ..proto_spec("m", Some(ProtoChoice::Version(3)))
    };
    assert_eq!(response.model_spec, Some(expected));
}

#[test]
fn a_request_of_tensorflows_client_is_read_and_written_again() {
    let path = format!("{}/tests/golden/predict_request.bin", env!("CARGO_MANIFEST_DIR"));
    let golden = Bytes::from(std::fs::read(path).unwrap());
    let request = PredictRequest::decode(golden.clone()).unwrap();
    let spec = request_spec(request.model_spec.as_ref()).unwrap();
    assert_eq!(spec.version, VersionChoice::Number(123));
    assert_eq!(signature_name(request.model_spec.as_ref()), "serving_default");
    assert_eq!(request.output_filter, ["y"]);
    let inputs = decode_inputs(request.inputs, &signature(&["x"], None), MAX).unwrap();
    assert_eq!(inputs, [vector(&[1.0, 2.0, 5.0])]);
    // The elements lie in the bytes that were received.
    assert!(golden.as_ptr_range().contains(&inputs[0].bytes().unwrap().as_ptr()));
    let mut again = encode_request(&spec, "serving_default", &[("x", inputs[0].clone())], Encoding::Content);
    again.output_filter.push("y".into());
    assert_eq!(again.encode_to_vec(), golden);
}

#[test]
fn only_methods_of_inference_pass_the_check() {
    assert!(check_method_name(&signature(&[], None)).is_ok());
    let error = check_method_name(&Signature::new("s", "other", vec![], vec![])).unwrap_err();
    assert_eq!((error.code(), error.blame()), (Code::Internal, Blame::Model));
    assert!(error.message().ends_with("tensorflow/serving/regress}. Was: other"), "{error}");
}
