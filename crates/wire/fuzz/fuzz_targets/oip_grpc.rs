//! Any bytes as a ModelInferRequest for a signature of the request's own names and types.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use salver_tensor::{DType, Dims, Signature, TensorSpec};
use salver_wire::proto::inference::ModelInferRequest;
use salver_wire::{oip, oip_grpc};

fuzz_target!(|data: &[u8]| {
    let Ok(request) = ModelInferRequest::decode(Bytes::copy_from_slice(data)) else { return };
    let _ = oip::request_spec(&request.model_name, &request.model_version);
    let _ = oip_grpc::output_names(&request);
    let _ = oip_grpc::contents_of(&request);
    let spec = |name: &str, datatype: &str| TensorSpec {
        name: name.into(),
        tensor_name: name.into(),
        dtype: oip::dtype(datatype).unwrap_or(DType::F32),
        dims: Dims::unknown(),
        default: None,
    };
    let inputs = request.inputs.iter().map(|input| spec(&input.name, &input.datatype)).collect();
    let signature = Signature::new("s", "m", inputs, Vec::new());
    if let Ok(tensors) = oip_grpc::decode_inputs(request, &signature) {
        assert_eq!(tensors.len(), signature.inputs().len());
    }
});
