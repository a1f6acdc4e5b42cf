use proptest::prelude::*;
use salver_tensor::Dims;
use salver_wire::client::tfs_rest;
use salver_wire::json::{Limits, decode_predict};
use salver_wire::proto::tensorflow::serving::{
    ClassificationRequest, ClassifyLog, PredictionLog, prediction_log::LogType,
};
use salver_wire::warmup::{write_predict, write_record};

use super::*;

fn spec(name: &str, dtype: DType, dims: Dims) -> TensorSpec {
    TensorSpec { name: name.into(), tensor_name: "".into(), dtype, dims, default: None }
}

fn signature(inputs: Vec<TensorSpec>) -> Signature {
    Signature::new("serving_default", "", inputs, Vec::new())
}

fn subject(protocol: Protocol) -> Subject {
    Subject::new(protocol, "m", Some(3)).unwrap()
}

#[test]
fn every_type_can_be_made_up() {
    let dims = Dims::new(vec![None, Some(3)]);
    let signature =
        signature(DType::ALL.iter().map(|dtype| spec(dtype.name(), *dtype, dims.clone())).collect());
    let how = MakeUp { n_rows: 2, ..MakeUp::default() };
    let bodies = make_up(&signature, &how).unwrap();
    assert_eq!(bodies.len(), 16);
    assert_ne!(bodies[0], bodies[1]);
    assert_eq!(bodies, make_up(&signature, &how).unwrap());
    for (spec, (name, tensor)) in signature.inputs().iter().zip(&bodies[0]) {
        assert_eq!((&*spec.name, spec.dtype), (name.as_str(), tensor.dtype()));
        assert_eq!(tensor.shape().dims(), [2, 3]);
    }
}

#[test]
fn shapes_are_held_to_the_signature() {
    let signature = signature(vec![
        spec("fixed", DType::F32, Dims::new(vec![Some(4)])),
        spec("open", DType::F32, Dims::new(vec![None, None, Some(2)])),
        spec("unknown", DType::I32, Dims::unknown()),
    ]);
    let check = |shapes: &[(&str, &[usize])], n_rows: usize, expected: Result<[&[usize]; 3], &str>| {
        let shapes = shapes.iter().map(|(name, dims)| ((*name).to_owned(), dims.to_vec())).collect();
        let made = make_up(&signature, &MakeUp { shapes, n_rows, ..MakeUp::default() });
        match expected {
            Ok(expected) => {
                let made = made.unwrap();
                let found: Vec<&[usize]> = made[0].iter().map(|(_, tensor)| tensor.shape().dims()).collect();
                assert_eq!(found, expected);
            }
            Err(part) => {
                let error = made.unwrap_err().to_string();
                assert!(error.contains(part), "{error}");
            }
        }
    };
    check(&[], 1, Ok([&[4], &[1, 1, 2], &[1]]));
    check(&[("open", &[5, 6, 2]), ("unknown", &[])], 1, Ok([&[4], &[5, 6, 2], &[]]));
    check(&[("open", &[5, 6, 3])], 1, Err("input 'open' takes [?,?,2]: the shape [5,6,3] does not fit"));
    check(&[("x", &[1])], 1, Err("there is no input 'x'; the inputs are: fixed, open, unknown"));
    check(&[], 2, Err("input 'fixed' takes [4]: it has no room for 2 rows"));
    check(&[("unknown", &[1 << 40])], 1, Err("at most"));
}

#[test]
fn large_requests_are_few() {
    let signature = signature(vec![spec("x", DType::F32, Dims::new(vec![None, Some(1 << 24)]))]);
    assert_eq!(make_up(&signature, &MakeUp::default()).unwrap().len(), 1);
}

fn inputs() -> Named {
    vec![("x".to_owned(), Tensor::from_vec(Shape::new(&[2, 1]).unwrap(), vec![1f32, 2.0]).unwrap())]
}

fn recorded(n: usize) -> Vec<u8> {
    let mut file = Vec::new();
    for at in 0..n {
        let subject =
            Subject { signature: format!("s{at}"), ..Subject::new(Protocol::TfsGrpc, "old", None).unwrap() };
        let call = subject.call(&inputs()).unwrap();
        write_predict(&mut file, PredictRequest::decode(&call.body[5..]).unwrap()).unwrap();
    }
    file
}

#[test]
fn recorded_requests_go_over_every_interface() {
    let mut file = recorded(2);
    let log = ClassifyLog { request: Some(ClassificationRequest::default()), response: None };
    let log = PredictionLog { log_metadata: None, log_type: Some(LogType::ClassifyLog(log)) };
    write_record(&mut file, &log.encode_to_vec()).unwrap();
    for protocol in Protocol::ALL {
        let (calls, notes) = read_calls(&file, &subject(protocol)).unwrap();
        assert_eq!((calls.len(), notes.len()), (2, 1), "{protocol:?}");
        assert!(calls.iter().all(|call| call.transport == protocol.transport()));
    }
    let (calls, _) = read_calls(&file, &subject(Protocol::TfsGrpc)).unwrap();
    let request = PredictRequest::decode(&calls[1].body[5..]).unwrap();
    let spec = request.model_spec.clone().unwrap();
    assert_eq!(
        (spec.name.as_str(), spec.signature_name.as_str(), spec.version_choice.is_some()),
        ("m", "s1", true)
    );
    assert_eq!(tfs_grpc::decode_inputs(request, 1000).unwrap(), inputs());
    let (calls, _) = read_calls(&file, &subject(Protocol::TfsRest)).unwrap();
    assert_eq!(calls[0].path, tfs_rest::predict_path(&subject(Protocol::TfsRest).spec));
    let signature = std::sync::Arc::new(signature(vec![spec_x()]));
    let decoded =
        decode_predict(&calls[0].body, |_| Ok(std::sync::Arc::clone(&signature)), Limits::default());
    assert_eq!(decoded.unwrap().inputs, [inputs()[0].1.clone()]);
}

fn spec_x() -> TensorSpec {
    spec("x", DType::F32, Dims::new(vec![None, Some(1)]))
}

#[test]
fn other_files_are_told_by_the_interface() {
    let check = |protocol, file: &[u8], expected: Result<usize, &str>| match (
        read_calls(file, &subject(protocol)),
        expected,
    ) {
        (Ok((calls, _)), Ok(n)) => assert_eq!(calls.len(), n),
        (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
        (found, _) => panic!("{protocol:?}: {found:?}"),
    };
    check(Protocol::TfsRest, b"{\"instances\": [\n1]}\n", Ok(1));
    check(Protocol::TfsRest, b"{\"instances\": [1]}\n\n{\"instances\": [2]}\n", Ok(2));
    check(Protocol::OipRest, b"{\"instances\": [", Err("neither records, nor JSON, nor lines of JSON"));
    check(Protocol::OipRest, b"", Err("the file is empty"));
    check(Protocol::TfsGrpc, b"{}", Err("neither records nor a PredictRequest"));
    let call = subject(Protocol::TfsGrpc).call(&inputs()).unwrap();
    check(Protocol::TfsGrpc, &call.body[5..], Ok(1));
    let call = subject(Protocol::OipGrpc).call(&inputs()).unwrap();
    check(Protocol::OipGrpc, &call.body[5..], Ok(1));
    let mut cut = recorded(2);
    cut.truncate(cut.len() - 1);
    check(Protocol::TfsGrpc, &cut, Err("file ends inside a record"));
}

proptest! {
    #[test]
    fn any_file_is_calls_or_an_error(mut file in prop::collection::vec(any::<u8>(), 0..80), is_record: bool, at in 0usize..200, with: u8) {
        if is_record {
            file = recorded(1);
            let n = file.len();
            file[at % n] = with;
        }
        for protocol in Protocol::ALL {
            if let Ok((calls, _)) = read_calls(&file, &subject(protocol)) {
                prop_assert!(!calls.is_empty());
            }
        }
    }
}
