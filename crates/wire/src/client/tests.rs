use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use salver_predict::{ModelId, ModelName, Version};
use salver_tensor::Shape;

use super::*;
use crate::json::{Format, Limits, NonFinite, decode_predict, encode_predict, metadata_body};
use crate::proto::inference::{ModelInferRequest, ModelInferResponse, ModelMetadataResponse};
use crate::proto::tensorflow::serving::{GetModelMetadataResponse, PredictRequest, PredictResponse};

const MAX: usize = 1 << 20;

fn model(version: VersionChoice) -> ModelSpec {
    ModelSpec { name: ModelName::new("a b/c").unwrap(), version }
}

fn id() -> ModelId {
    ModelId { name: ModelName::new("m").unwrap(), version: Version(3) }
}

fn specs(named: &[(&str, Tensor)]) -> Vec<TensorSpec> {
    let open = |tensor: &Tensor| {
        let dims = tensor.shape().dims().iter().enumerate();
        Dims::new(dims.map(|(at, dim)| (at > 0).then_some(*dim)).collect())
    };
    named.iter().map(|(name, tensor)| spec(name, "", tensor.dtype(), open(tensor))).collect()
}

fn signature(inputs: &[(&str, Tensor)], outputs: &[(&str, Tensor)]) -> Arc<Signature> {
    Arc::new(Signature::new("serving_default", "tensorflow/serving/predict", specs(inputs), specs(outputs)))
}

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

/// Tensors of every kind that every interface has a form for, two rows each.
fn samples() -> Vec<(&'static str, Tensor)> {
    let strings = |all: [&'static [u8]; 2]| all.map(Bytes::from_static).to_vec();
    vec![
        ("bool", Tensor::from_bools(shape(&[2, 1]), &[true, false]).unwrap()),
        ("f32", Tensor::from_vec(shape(&[2, 2]), vec![1.5f32, -2.0, 1e-7, 3.25]).unwrap()),
        ("f64", Tensor::from_vec(shape(&[2]), vec![0.1f64, 2.5e300]).unwrap()),
        ("i64", Tensor::from_vec(shape(&[2, 1]), vec![i64::MIN, i64::MAX]).unwrap()),
        ("i8", Tensor::from_vec(shape(&[2]), vec![-128i8, 127]).unwrap()),
        ("string", Tensor::from_strings(shape(&[2]), strings([b"a\"b", "ü".as_bytes()])).unwrap()),
        ("u64", Tensor::from_vec(shape(&[2]), vec![0u64, u64::MAX]).unwrap()),
        ("u8", Tensor::from_vec(shape(&[2, 3]), vec![0u8, 1, 2, 3, 4, 255]).unwrap()),
    ]
}

/// With bytes that are no text, which JSON needs base64 for.
fn with_bytes() -> Vec<(&'static str, Tensor)> {
    let bytes = vec![Bytes::from_static(&[0xff, 0, 1]), Bytes::new()];
    let mut all = samples();
    all.push(("x_bytes", Tensor::from_strings(shape(&[2]), bytes).unwrap()));
    all
}

fn owned(named: &[(&str, Tensor)]) -> Named {
    named.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect()
}

fn tensors(named: &[(&str, Tensor)]) -> Vec<Tensor> {
    named.iter().map(|(_, tensor)| tensor.clone()).collect()
}

#[test]
fn tfs_grpc_requests_and_answers_travel() {
    let all = with_bytes();
    let signature = signature(&all, &all);
    let request = tfs_grpc::encode_request(&model(VersionChoice::Number(7)), "s", &all);
    let request = PredictRequest::decode(request.encode_to_vec().as_slice()).unwrap();
    assert_eq!(crate::tfs::signature_name(request.model_spec.as_ref()), "s");
    assert_eq!(
        crate::tfs::request_spec(request.model_spec.as_ref()).unwrap(),
        model(VersionChoice::Number(7))
    );
    assert_eq!(tfs_grpc::decode_inputs(request.clone(), MAX).unwrap(), owned(&all));
    assert_eq!(crate::tfs::decode_inputs(request.inputs, &signature, MAX).unwrap(), tensors(&all));
    let outputs: Vec<usize> = (0..all.len()).collect();
    for encoding in [crate::tfs::Encoding::Fields, crate::tfs::Encoding::Content] {
        let answer = crate::tfs::encode_response(&id(), &signature, &outputs, &tensors(&all), encoding);
        let answer = PredictResponse::decode(answer.encode_to_vec().as_slice()).unwrap();
        assert_eq!(tfs_grpc::decode_response(answer.clone(), MAX).unwrap(), owned(&all));
        assert!(tfs_grpc::decode_response(answer, 8).unwrap_err().message().contains("output '"));
    }
}

#[test]
fn tfs_rest_requests_and_answers_travel() {
    let all = with_bytes();
    let signature = signature(&all, &all);
    for format in [Format::Row, Format::Columnar] {
        for n in [1, all.len()] {
            let some = all.get(..n).unwrap();
            let signature = if n == 1 { super::tests::signature(some, some) } else { Arc::clone(&signature) };
            let body = tfs_rest::encode_request(format, "serving_default", some).unwrap();
            let decoded = decode_predict(&body, |_| Ok(Arc::clone(&signature)), Limits::default()).unwrap();
            assert_eq!((decoded.format, decoded.inputs), (format, tensors(some)));
            let outputs: Vec<(&str, &Tensor)> = some.iter().map(|(name, tensor)| (*name, tensor)).collect();
            let answer = encode_predict(format, &outputs, NonFinite::Literal).unwrap();
            assert_eq!(
                tfs_rest::decode_response(&answer, &signature, Limits::default()).unwrap(),
                owned(some)
            );
        }
    }
    let ragged = [all.first().unwrap().clone(), ("y", Tensor::from_vec(shape(&[1]), vec![1f32]).unwrap())];
    let error = tfs_rest::encode_request(Format::Row, "", &ragged).unwrap_err();
    assert_eq!(error.message(), "input 'y' has 1 rows, the first has 2");
    let none = tfs_rest::decode_response(br#"{"predictions": []}"#, &signature, Limits::default()).unwrap();
    assert!(none.iter().all(|(_, tensor)| tensor.shape().n_rows() == Some(0)) && none.len() == all.len());
}

#[test]
fn oip_grpc_requests_and_answers_travel() {
    let all = with_bytes();
    let signature = signature(&all, &all);
    let request = oip_grpc::encode_request(&model(VersionChoice::Label("x".into())), &all).unwrap();
    let request = ModelInferRequest::decode(request.encode_to_vec().as_slice()).unwrap();
    assert_eq!((request.model_name.as_str(), request.model_version.as_str()), ("a b/c", "x"));
    assert_eq!(crate::oip_grpc::decode_inputs(request, &signature).unwrap(), tensors(&all));
    let outputs: Vec<usize> = (0..all.len()).collect();
    for contents in [crate::oip_grpc::Contents::Raw, crate::oip_grpc::Contents::Typed] {
        let answer = crate::oip_grpc::encode_response(
            String::new(),
            &id(),
            &signature,
            &outputs,
            &tensors(&all),
            contents,
        )
        .unwrap();
        let mut answer = ModelInferResponse::decode(answer.encode_to_vec().as_slice()).unwrap();
        assert_eq!(oip_grpc::decode_response(answer.clone()).unwrap(), owned(&all));
        if let Some(raw) = answer.raw_output_contents.first_mut() {
            *raw = Bytes::from_static(b"too many bytes for it");
            assert!(oip_grpc::decode_response(answer).unwrap_err().message().contains("output 'bool'"));
        }
    }
}

#[test]
fn oip_rest_requests_and_answers_travel() {
    for (data, all) in [(oip_rest::Data::Json, samples()), (oip_rest::Data::Binary, with_bytes())] {
        let signature = signature(&all, &all);
        let encoded = oip_rest::encode_request(data, &all).unwrap();
        let mut infer =
            crate::oip_rest::Infer::decode(&encoded.body, encoded.header_len, Limits::default()).unwrap();
        assert_eq!(infer.binary_outputs, data == oip_rest::Data::Binary);
        assert_eq!(infer.bind(&signature).unwrap(), tensors(&all));
        let outputs: Vec<usize> = (0..all.len()).collect();
        let answer = crate::oip_rest::Response::encode(
            &infer,
            &id(),
            &signature,
            &outputs,
            &tensors(&all),
            NonFinite::Literal,
        )
        .unwrap();
        let (header_len, body) = (answer.header_len, answer.into_bytes());
        let decoded = oip_rest::decode_response(&body, header_len, Limits::default()).unwrap();
        assert_eq!(decoded, owned(&all));
        assert!(oip_rest::decode_response(&body, Some(body.len() + 1), Limits::default()).is_err());
    }
    let error = oip_rest::encode_request(oip_rest::Data::Json, &with_bytes()).unwrap_err();
    assert!(error.message().contains("input 'x_bytes' cannot be sent"), "{error}");
}

#[test]
fn metadata_comes_back_as_signatures() {
    let all = samples();
    let signature = signature(&all, &all);
    let plain = |found: &Described| {
        let one = found.signature("").unwrap();
        let of = |specs: &[TensorSpec]| {
            specs
                .iter()
                .map(|spec| (spec.name.to_string(), spec.dtype, spec.dims.clone()))
                .collect::<Vec<_>>()
        };
        (of(one.inputs()), of(one.outputs()))
    };
    let expected = plain(&Described { signatures: vec![Arc::clone(&signature)], ..Described::default() });
    let message = crate::tfs::metadata_response(&id(), &[Arc::clone(&signature)]);
    let message = GetModelMetadataResponse::decode(message.encode_to_vec().as_slice()).unwrap();
    let grpc = tfs_grpc::decode_metadata(&message).unwrap();
    let rest = tfs_rest::decode_metadata(&metadata_body(&id(), [&*signature])).unwrap();
    let tensors = || {
        signature.inputs().iter().map(|spec| {
            let (datatype, shape) = crate::oip::tensor_metadata(spec);
            let name = spec.name.to_string();
            crate::proto::inference::model_metadata_response::TensorMetadata {
                name,
                datatype: datatype.into(),
                shape,
            }
        })
    };
    let message = ModelMetadataResponse {
        versions: vec!["3".into()],
        inputs: tensors().collect(),
        outputs: tensors().collect(),
        ..ModelMetadataResponse::default()
    };
    let oip_grpc = oip_grpc::decode_metadata(&message);
    let page = |one: &crate::proto::inference::model_metadata_response::TensorMetadata| serde_json::json!({"name": one.name, "datatype": one.datatype, "shape": one.shape});
    let body = serde_json::json!({
        "name": "m", "versions": ["3"], "inputs": message.inputs.iter().map(page).collect::<Vec<_>>(),
        "outputs": message.outputs.iter().map(page).collect::<Vec<_>>(),
    });
    let oip_rest = oip_rest::decode_metadata(body.to_string().as_bytes()).unwrap();
    for found in [grpc, rest, oip_grpc, oip_rest] {
        assert_eq!(found.versions, [3]);
        assert_eq!(plain(&found), expected);
    }
}

#[test]
fn what_cannot_be_used_is_named() {
    let body = br#"{"model_spec": {"version": 5}, "metadata": {"signature_def": {"signature_def": {
        "init": {"outputs": {"op": {"dtype": "DT_INVALID", "tensor_shape": {"unknown_rank": true}}}},
        "s": {"inputs": {"x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": 2}]}}}}}}}}"#;
    let described = tfs_rest::decode_metadata(body).unwrap();
    assert_eq!(described.versions, [5]);
    assert_eq!(
        described.refused,
        ["signature 'init': tensor 'op' has element type 'DT_INVALID', which is not supported"]
    );
    assert_eq!(described.signature("").unwrap().inputs().first().unwrap().dims.to_string(), "[?,2]");
    let error = described.signature("t").unwrap_err();
    assert!(error.message().starts_with("no signature 't', there are: s; signature 'init'"), "{error}");
}

#[test]
fn paths_name_model_and_version() {
    let of = |version| {
        let spec = model(version);
        [tfs_rest::predict_path(&spec), tfs_rest::metadata_path(&spec), oip_rest::infer_path(&spec)]
    };
    assert_eq!(
        of(VersionChoice::Latest),
        ["/v1/models/a%20b%2Fc:predict", "/v1/models/a%20b%2Fc/metadata", "/v2/models/a%20b%2Fc/infer"]
    );
    assert_eq!(
        of(VersionChoice::Number(3)),
        [
            "/v1/models/a%20b%2Fc/versions/3:predict",
            "/v1/models/a%20b%2Fc/versions/3/metadata",
            "/v2/models/a%20b%2Fc/versions/3/infer"
        ]
    );
    assert_eq!(
        of(VersionChoice::Label("x".into())).first().unwrap(),
        "/v1/models/a%20b%2Fc/labels/x:predict"
    );
}

#[test]
fn errors_come_back_with_their_codes_and_texts() {
    let error = Error::new(Code::Unavailable, Blame::Us, "full: 100 % of 10");
    let status = crate::status::grpc(&error);
    assert_eq!(grpc_error(i32::from(status.code()), "full: 100 %25 of 10").message(), error.message());
    assert_eq!(grpc_error(14, "x").code(), Code::Unavailable);
    assert_eq!(grpc_error(99, "%ff").code(), Code::Unknown);
    let check = |http: u16, body: &str, code: Code, text: &str| {
        let error = http_error(http, body.as_bytes());
        assert_eq!((error.code(), error.message()), (code, text));
    };
    check(404, r#"{"error": "no such model"}"#, Code::NotFound, "no such model");
    check(503, "busy\n", Code::Unavailable, "busy");
    check(429, "", Code::ResourceExhausted, "HTTP status 429");
    check(418, "{}", Code::Unknown, "{}");
    for code in
        [Code::InvalidArgument, Code::NotFound, Code::Unavailable, Code::DeadlineExceeded, Code::Internal]
    {
        check(crate::status::http(code), "x", code, "x");
    }
}

#[test]
fn oip_rest_answers_say_their_version() {
    let check = |body: &str, header_len: Option<usize>, expected: Option<u64>| {
        assert_eq!(oip_rest::decode_version(body.as_bytes(), header_len), expected, "{body}");
    };
    let whole = r#"{"model_name": "m", "model_version": "3", "outputs": []}"#;
    check(whole, None, Some(3));
    check(&format!("{whole}binary"), Some(whole.len()), Some(3));
    check(&format!("{whole}binary"), None, None);
    check(whole, Some(whole.len() + 1), None);
    check(r#"{"model_name": "m", "outputs": []}"#, None, None);
    check(r#"{"model_version": "latest"}"#, None, None);
}

proptest! {
    /// Answers are bytes of a stranger.
    #[test]
    fn hostile_answers_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), header in 0usize..220) {
        let all = samples();
        let signature = signature(&all, &all);
        let limits = Limits { max_depth: 8, max_elements: 1 << 10 };
        let body = Bytes::from(bytes);
        drop(PredictResponse::decode(body.clone()).map(|answer| tfs_grpc::decode_response(answer, MAX)));
        drop(ModelInferResponse::decode(body.clone()).map(oip_grpc::decode_response));
        drop(GetModelMetadataResponse::decode(body.clone()).map(|answer| tfs_grpc::decode_metadata(&answer)));
        drop(tfs_rest::decode_response(&body, &signature, limits));
        drop(tfs_rest::decode_metadata(&body));
        drop(oip_rest::decode_response(&body, Some(header), limits));
        drop(oip_rest::decode_metadata(&body));
        let _: Option<u64> = oip_rest::decode_version(&body, Some(header));
        drop(http_error(500, &body));
    }

    /// JSON that is nearly an answer.
    #[test]
    fn nearly_answers_are_refused(cut in 0usize..400, at in 0usize..400, with in "[\\[\\]{}\",:0-9a-z]") {
        let all = samples();
        let signature = signature(&all, &all);
        let outputs: Vec<(&str, &Tensor)> = all.iter().map(|(name, tensor)| (*name, tensor)).collect();
        for format in [Format::Row, Format::Columnar] {
            let mut body = encode_predict(format, &outputs, NonFinite::Literal).unwrap();
            if let Some(byte) = body.get_mut(at) {
                *byte = with.as_bytes().first().copied().unwrap();
            }
            drop(tfs_rest::decode_response(body.get(..cut).unwrap_or(&body), &signature, Limits::default()));
        }
    }
}
