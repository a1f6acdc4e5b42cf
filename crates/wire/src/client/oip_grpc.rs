//! The Open Inference Protocol over gRPC.

use bytes::Bytes;
use salver_predict::{Error, ModelSpec};
use salver_tensor::Tensor;

use super::{Described, Named, cannot_send, oip_described, oip_version, wrong};
use crate::oip;
use crate::oip_grpc::decode_input;
use crate::proto::inference::model_infer_request::InferInputTensor;
use crate::proto::inference::model_metadata_response::TensorMetadata;
use crate::proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
};

/// The method that predicts.
pub const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
/// The method that describes a model.
pub const METADATA: &str = "/inference.GRPCInferenceService/ModelMetadata";

/// A request for all outputs, with raw contents: elements are shared and not copied, strings excepted.
///
/// # Errors
/// [`salver_predict::Code::Unimplemented`] for complex numbers, which the protocol does not have.
pub fn encode_request(spec: &ModelSpec, inputs: &[(&str, Tensor)]) -> Result<ModelInferRequest, Error> {
    let mut request = ModelInferRequest {
        model_name: spec.name.as_str().to_owned(),
        model_version: oip_version(spec),
        ..ModelInferRequest::default()
    };
    for (name, tensor) in inputs {
        let datatype =
            oip::datatype(tensor.dtype()).ok_or_else(|| cannot_send(name, "it holds complex numbers"))?;
        request.inputs.push(InferInputTensor {
            name: (*name).to_owned(),
            datatype: datatype.to_owned(),
            // A shape's dimensions are below 2^48.
            shape: tensor.shape().dims().iter().map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX)).collect(),
            ..InferInputTensor::default()
        });
        request.raw_input_contents.push(raw(name, tensor)?);
    }
    Ok(request)
}

/// The elements as they lie, strings with their lengths.
pub(super) fn raw(name: &str, tensor: &Tensor) -> Result<Bytes, Error> {
    match (tensor.bytes(), tensor.strings()) {
        (Some(bytes), _) => Ok(bytes.clone()),
        (None, strings) => {
            oip::join_bytes(strings.unwrap_or_default()).map_err(|problem| cannot_send(name, problem))
        }
    }
}

/// The outputs of an answer in the order sent. Raw elements stay slices of the answer.
///
/// # Errors
/// [`salver_predict::Code::Internal`] for what does not decode, with the output's name.
pub fn decode_response(response: ModelInferResponse) -> Result<Named, Error> {
    let raw = response.raw_output_contents;
    if !raw.is_empty() && raw.len() != response.outputs.len() {
        return Err(wrong(format_args!(
            "raw_output_contents holds {} outputs, expected {}",
            raw.len(),
            response.outputs.len()
        )));
    }
    let mut raw = raw.into_iter();
    let one = |output: crate::proto::inference::model_infer_response::InferOutputTensor| {
        let (name, datatype, shape) = (output.name, output.datatype, output.shape);
        let input =
            InferInputTensor { datatype, shape, contents: output.contents, ..InferInputTensor::default() };
        match decode_input(input, raw.next()) {
            Ok(tensor) => Ok((name, tensor)),
            Err(problem) => Err(wrong(format_args!("output '{name}': {problem}"))),
        }
    };
    response.outputs.into_iter().map(one).collect()
}

/// A request for the inputs and outputs of a model.
pub fn metadata_request(spec: &ModelSpec) -> ModelMetadataRequest {
    ModelMetadataRequest { name: spec.name.as_str().to_owned(), version: oip_version(spec) }
}

/// What an answer says of the model; with a type that is not supported it has no signature and says why.
pub fn decode_metadata(response: &ModelMetadataResponse) -> Described {
    fn parts(one: &TensorMetadata) -> (&str, &str, &[i64]) {
        (&one.name, &one.datatype, &one.shape)
    }
    let (inputs, outputs) = (response.inputs.iter().map(parts), response.outputs.iter().map(parts));
    oip_described(&response.versions, &response.platform, inputs, outputs)
}
