//! TensorFlow Serving over gRPC.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use salver_predict::{Error, ModelSpec, VersionChoice};
use salver_tensor::{Dims, Signature, Tensor, TensorSpec};

use super::{Described, Named, dims, spec, wrong};
use crate::proto::tensorflow::serving::model_spec::VersionChoice as ProtoChoice;
use crate::proto::tensorflow::serving::{
    GetModelMetadataRequest, GetModelMetadataResponse, ModelSpec as ProtoSpec, PredictRequest,
    PredictResponse, SignatureDefMap,
};
use crate::proto::tensorflow::tensor_info::Encoding as InfoEncoding;
use crate::proto::tensorflow::{SignatureDef, TensorInfo, TensorShapeProto};
use crate::tfs::{Encoding, decode_tensor, dtype_from_number};

/// The method that predicts.
pub const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";
/// The method that describes a model.
pub const METADATA: &str = "/tensorflow.serving.PredictionService/GetModelMetadata";

/// A request for all outputs of a signature; an empty name means the default one. Elements are shared and not copied.
pub fn encode_request(spec: &ModelSpec, signature: &str, inputs: &[(&str, Tensor)]) -> PredictRequest {
    crate::tfs::encode_request(spec, signature, inputs, Encoding::Content)
}

/// The outputs of an answer, sorted by name; all of them together may take `max_bytes`.
///
/// # Errors
/// [`salver_predict::Code::Internal`] for what does not decode, with the output's name.
pub fn decode_response(response: PredictResponse, max_bytes: usize) -> Result<Named, Error> {
    tensors(response.outputs, max_bytes, "output")
}

/// The inputs of a request that was recorded, sorted by name; all of them together may take `max_bytes`.
///
/// # Errors
/// As [`decode_response`].
pub fn decode_inputs(request: PredictRequest, max_bytes: usize) -> Result<Named, Error> {
    tensors(request.inputs, max_bytes, "input")
}

fn tensors(
    protos: BTreeMap<String, crate::proto::tensorflow::TensorProto>,
    max_bytes: usize,
    what: &str,
) -> Result<Named, Error> {
    let mut left = max_bytes;
    let mut named = Vec::with_capacity(protos.len());
    for (name, proto) in protos {
        let tensor =
            decode_tensor(proto, left).map_err(|error| wrong(format_args!("{what} '{name}': {error}")))?;
        left = left.saturating_sub(tensor.n_bytes());
        named.push((name, tensor));
    }
    Ok(named)
}

/// A request for the signatures of a model.
pub fn metadata_request(spec: &ModelSpec) -> GetModelMetadataRequest {
    GetModelMetadataRequest {
        model_spec: Some(proto_spec(spec)),
        metadata_field: vec!["signature_def".to_owned()],
    }
}

/// The model and version as the messages carry them.
pub fn proto_spec(spec: &ModelSpec) -> ProtoSpec {
    let version_choice = match &spec.version {
        VersionChoice::Latest => None,
        VersionChoice::Number(number) => Some(ProtoChoice::Version(*number)),
        VersionChoice::Label(label) => Some(ProtoChoice::VersionLabel(label.clone())),
    };
    ProtoSpec { name: spec.name.as_str().to_owned(), version_choice, signature_name: String::new() }
}

/// The signatures of an answer. A signature with tensors of a type that is not supported is left out and named.
///
/// # Errors
/// [`salver_predict::Code::Internal`] for an answer without signatures.
pub fn decode_metadata(response: &GetModelMetadataResponse) -> Result<Described, Error> {
    let any = response.metadata.get("signature_def").ok_or_else(|| wrong("it has no signature_def"))?;
    let map = SignatureDefMap::decode(any.value.as_slice()).map_err(wrong)?;
    let version = match response.model_spec.as_ref().and_then(|spec| spec.version_choice.as_ref()) {
        Some(ProtoChoice::Version(version)) => u64::try_from(*version).ok(),
        _ => None,
    };
    let mut described = Described { versions: version.into_iter().collect(), ..Described::default() };
    for (name, def) in &map.signature_def {
        match signature(name, def) {
            Ok(signature) => described.signatures.push(Arc::new(signature)),
            Err(problem) => described.refused.push(format!("signature '{name}': {problem}")),
        }
    }
    Ok(described)
}

fn signature(name: &str, def: &SignatureDef) -> Result<Signature, String> {
    let specs = |infos: &BTreeMap<String, TensorInfo>| {
        infos.iter().map(|(name, info)| tensor_spec(name, info)).collect::<Result<Vec<_>, String>>()
    };
    Ok(Signature::new(name, def.method_name.as_str(), specs(&def.inputs)?, specs(&def.outputs)?))
}

fn tensor_spec(name: &str, info: &TensorInfo) -> Result<TensorSpec, String> {
    let dtype = dtype_from_number(info.dtype)
        .ok_or_else(|| format!("tensor '{name}' has element type {}, which is not supported", info.dtype))?;
    let tensor_name = match &info.encoding {
        Some(InfoEncoding::Name(name)) => name.as_str(),
        _ => "",
    };
    let dims = match &info.tensor_shape {
        Some(TensorShapeProto { unknown_rank: false, dim }) => {
            let sizes: Vec<i64> = dim.iter().map(|dim| dim.size).collect();
            dims(&sizes).map_err(|problem| format!("tensor '{name}' has {problem}"))?
        }
        _ => Dims::unknown(),
    };
    Ok(spec(name, tensor_name, dtype, dims))
}
