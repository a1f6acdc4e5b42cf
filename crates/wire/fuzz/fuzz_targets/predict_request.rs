//! Any bytes as a PredictRequest for a signature with inputs of several types.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use salver_tensor::{DType, Dims, Signature, TensorSpec};
use salver_wire::proto::tensorflow::serving::PredictRequest;
use salver_wire::tfs::{decode_inputs, request_spec, signature_name};

fn spec(name: &str, dtype: DType) -> TensorSpec {
    TensorSpec { name: name.into(), tensor_name: name.into(), dtype, dims: Dims::unknown(), default: None }
}

fuzz_target!(|data: &[u8]| {
    let Ok(request) = PredictRequest::decode(Bytes::copy_from_slice(data)) else { return };
    let _ = request_spec(request.model_spec.as_ref());
    assert!(!signature_name(request.model_spec.as_ref()).is_empty());
    // A signature that takes the request's own names, so that decoding is reached.
    let dtypes = [DType::F32, DType::String, DType::Bool, DType::F16];
    let inputs =
        request.inputs.keys().zip(dtypes.iter().cycle()).map(|(name, dtype)| spec(name, *dtype)).collect();
    let signature = Signature::new("s", "m", inputs, Vec::new());
    if let Ok(tensors) = decode_inputs(request.inputs, &signature, 1 << 20) {
        assert_eq!(tensors.len(), signature.inputs().len());
    }
});
