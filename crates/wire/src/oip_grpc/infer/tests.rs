#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use proptest::prelude::*;
use prost::Message as _;
use salver_predict::{ModelName, Version};
use salver_tensor::{Dims, TensorSpec};

use super::*;

#[test]
fn terms_are_parameters() {
    let check = |choice: ParameterChoice, expected: (Option<u8>, Option<u64>)| {
        let parameter = InferParameter { parameter_choice: Some(choice.clone()) };
        let parameters = ["priority", "timeout"].map(|name| (name.to_owned(), parameter.clone()));
        let request = ModelInferRequest { parameters: parameters.into(), ..ModelInferRequest::default() };
        let timeout = expected.1.map(Duration::from_micros);
        assert_eq!((priority(&request), super::timeout(&request)), (expected.0, timeout), "{choice:?}");
    };
    check(ParameterChoice::Int64Param(3), (Some(3), Some(3)));
    check(ParameterChoice::Uint64Param(500), (Some(9), Some(500)));
    check(ParameterChoice::StringParam("7".to_owned()), (Some(7), Some(7)));
    check(ParameterChoice::Int64Param(0), (None, None));
    check(ParameterChoice::Int64Param(-3), (None, None));
    check(ParameterChoice::BoolParam(true), (None, None));
}

fn spec(name: &str, dtype: DType) -> TensorSpec {
    TensorSpec { name: name.into(), tensor_name: name.into(), dtype, dims: Dims::unknown(), default: None }
}

fn signature(inputs: &[(&str, DType)]) -> Signature {
    let specs =
        |list: &[(&str, DType)]| list.iter().map(|&(name, dtype)| spec(name, dtype)).collect::<Vec<_>>();
    Signature::new("serving_default", "m", specs(inputs), specs(inputs))
}

fn id() -> ModelId {
    ModelId { name: ModelName::new("m").unwrap(), version: Version(3) }
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

fn raw(inputs: Vec<InferInputTensor>, raw: &[&'static [u8]]) -> ModelInferRequest {
    let raw_input_contents = raw.iter().map(|bytes| Bytes::from_static(bytes)).collect();
    ModelInferRequest { inputs, raw_input_contents, ..ModelInferRequest::default() }
}

fn typed_input(datatype: &str, shape: &[i64], contents: InferTensorContents) -> ModelInferRequest {
    let one = InferInputTensor { contents: Some(contents), ..input("x", datatype, shape) };
    raw(vec![one], &[])
}

#[test]
fn a_request_of_tritons_client_is_read() {
    let path = format!("{}/tests/golden/oip_request.bin", env!("CARGO_MANIFEST_DIR"));
    let golden = Bytes::from(std::fs::read(path).unwrap());
    let request = ModelInferRequest::decode(golden.clone()).unwrap();
    assert_eq!((&*request.model_name, &*request.model_version, &*request.id), ("m", "3", "7"));
    assert_eq!(output_names(&request).unwrap(), ["y"]);
    assert_eq!(contents_of(&request), Contents::Raw);
    let inputs = decode_inputs(request, &signature(&[("s", DType::String), ("x", DType::F32)])).unwrap();
    assert_eq!(inputs[0].strings().unwrap(), [&b"ab"[..], b""]);
    assert_eq!(*inputs[1].to_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    for shared in [&inputs[0].strings().unwrap()[0], inputs[1].bytes().unwrap()] {
        assert!(golden.as_ptr_range().contains(&shared.as_ptr()));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let twice = vec![input("x", "FP32", &[1]), input("x", "FP32", &[1])];
    let both =
        InferInputTensor { contents: Some(InferTensorContents::default()), ..input("x", "FP32", &[1]) };
    let ints = |values: &[i32]| InferTensorContents { int_contents: values.to_vec(), ..Default::default() };
    let cases = [
        (
            raw(vec![input("x", "FP32", &[1])], &[&[0; 3]]),
            "input 'x': float32 tensor of shape [1] takes 4 bytes, got 3",
        ),
        (raw(vec![input("x", "FP32", &[-1])], &[&[0; 4]]), "input 'x': dimension is -1"),
        (
            raw(vec![input("x", "FP32", &[1 << 40, 1 << 40])], &[&[]]),
            "input 'x': shape [1099511627776,1099511627776] has more elements than fit in memory",
        ),
        (raw(vec![input("x", "FP32", &[1; 33])], &[&[]]), "input 'x': 33 dimensions, expected at most 32"),
        (
            raw(vec![input("x", "FLOAT", &[1])], &[&[]]),
            "input 'x': datatype is 'FLOAT', expected one of BOOL, ",
        ),
        (
            raw(vec![input("x", "BYTES", &[1])], &[&[9, 0, 0, 0]]),
            "input 'x': element 0 ends beyond the 4 raw bytes",
        ),
        (
            raw(vec![input("x", "FP32", &[1])], &[&[0; 4], &[0; 4]]),
            "raw_input_contents holds 2 inputs, expected 1",
        ),
        (raw(vec![both], &[&[0; 4]]), "input 'x': has both contents and raw_input_contents"),
        (raw(twice, &[]), "input 'x' is given twice"),
        (raw(vec![], &[]), "input size does not match signature: 0!=1"),
        (raw(vec![input("z", "FP32", &[1])], &[]), "Inputs contains invalid name."),
        (
            raw(vec![input("x", "FP32", &[1])], &[]),
            "input 'x': contents hold 0 elements of its datatype, expected 1",
        ),
        (typed_input("INT8", &[1], ints(&[128])), "input 'x': 128 is out of range for int8"),
        (
            typed_input("INT32", &[2], ints(&[1])),
            "input 'x': contents hold 1 elements of its datatype, expected 2",
        ),
        (
            typed_input("FP32", &[1], ints(&[1])),
            "input 'x': contents hold 0 elements of its datatype, expected 1",
        ),
        (
            typed_input("FP16", &[1], ints(&[1])),
            "input 'x': float16 elements are taken from raw_input_contents only",
        ),
        (
            typed_input("FP32", &[1 << 40], ints(&[])),
            "input 'x': contents hold 0 elements of its datatype, expected 1099511627776",
        ),
    ];
    for (request, expected) in cases {
        let error = decode_inputs(request, &signature(&[("x", DType::F32)])).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().starts_with(expected), "{error}");
    }
}

#[test]
fn parameters_that_would_change_the_answer_are_refused() {
    let with = |name: &str| [(name.to_owned(), InferParameter::default())].into();
    let mut request =
        raw(vec![InferInputTensor { parameters: with("other"), ..input("x", "FP32", &[0]) }], &[]);
    assert!(decode_inputs(request.clone(), &signature(&[("x", DType::F32)])).is_ok());
    request.inputs[0].parameters = with("shared_memory_region");
    let error = decode_inputs(request.clone(), &signature(&[("x", DType::F32)])).unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    let output = |name| crate::proto::inference::model_infer_request::InferRequestedOutputTensor {
        name: "y".into(),
        parameters: with(name),
    };
    request.outputs = vec![output("binary_data")];
    assert_eq!(output_names(&request).unwrap(), ["y"]);
    request.outputs = vec![output("classification")];
    let error = output_names(&request).unwrap_err();
    assert_eq!(error.message(), "parameter 'classification' of tensor 'y' is not supported");
}

#[test]
fn complex_outputs_are_refused() {
    let tensor = Tensor::from_vec(Shape::scalar(), vec![[1f32, 2.0]]).unwrap();
    let error = encode_response(
        String::new(),
        &id(),
        &signature(&[("x", DType::C64)]),
        &[0],
        &[tensor],
        Contents::Raw,
    );
    assert_eq!(error.unwrap_err().code(), Code::Unimplemented);
}

fn any_tensor() -> impl Strategy<Value = Tensor> {
    let dtypes: Vec<DType> = DType::ALL.into_iter().filter(|dtype| oip::datatype(*dtype).is_some()).collect();
    (prop::sample::select(dtypes), 0usize..5, any::<u8>()).prop_map(|(dtype, n, seed)| {
        let shape = Shape::new(&[n]).unwrap();
        let byte = |at: usize| {
            seed.wrapping_add(u8::try_from(at).unwrap()) & if dtype == DType::Bool { 1 } else { 63 }
        };
        match dtype.size() {
            Some(size) => {
                Tensor::from_bytes(dtype, shape, (0..n * size).map(byte).collect::<Vec<_>>().into()).unwrap()
            }
            None => {
                Tensor::from_strings(shape, (0..n).map(|at| vec![byte(at); at].into()).collect()).unwrap()
            }
        }
    })
}

proptest! {
    /// A response sent back as a request gives the same tensors, in both forms.
    #[test]
    fn responses_read_as_requests(a in any_tensor(), b in any_tensor(), is_raw in any::<bool>()) {
        let signature = signature(&[("a", a.dtype()), ("b", b.dtype())]);
        let contents = if is_raw { Contents::Raw } else { Contents::Typed };
        let tensors = [a, b];
        let response = encode_response("7".into(), &id(), &signature, &[0, 1], &tensors, contents).unwrap();
        prop_assert_eq!((&*response.model_name, &*response.model_version, &*response.id), ("m", "3", "7"));
        let inputs = response.outputs.into_iter().map(|output| InferInputTensor {
            name: output.name,
            datatype: output.datatype,
            shape: output.shape,
            parameters: output.parameters,
            contents: output.contents,
        });
        let request = ModelInferRequest {
            inputs: inputs.collect(),
            raw_input_contents: response.raw_output_contents,
            ..ModelInferRequest::default()
        };
        let bytes = Bytes::from(request.encode_to_vec());
        prop_assert_eq!(decode_inputs(ModelInferRequest::decode(bytes).unwrap(), &signature).unwrap(), tensors);
    }
}
