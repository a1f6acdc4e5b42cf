//! Predict: requests to inputs in a signature's order, outputs to responses.
#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use salver_predict::{
    Blame, Code, DEFAULT_SIGNATURE, Error, ModelId, ModelName, ModelSpec, VersionChoice, bind_inputs,
    check_input_names,
};
use salver_tensor::{Signature, Tensor};

use crate::proto::tensorflow::TensorProto;
use crate::proto::tensorflow::serving::model_spec::VersionChoice as ProtoChoice;
use crate::proto::tensorflow::serving::{ModelSpec as ProtoSpec, PredictRequest, PredictResponse};
use crate::tfs::tensor::{Encoding, TensorProtoError, decode_tensor, encode_tensor};

/// Which model and version a request means.
///
/// # Errors
/// [`Code::InvalidArgument`] when there is no specification or it names no model.
pub fn request_spec(spec: Option<&ProtoSpec>) -> Result<ModelSpec, Error> {
    let spec = spec.ok_or_else(|| Error::invalid("Missing ModelSpec"))?;
    let name =
        ModelName::new(&spec.name).ok_or_else(|| Error::invalid("ModelSpec has no name specified."))?;
    let version = match &spec.version_choice {
        None => VersionChoice::Latest,
        Some(ProtoChoice::Version(number)) => VersionChoice::Number(*number),
        Some(ProtoChoice::VersionLabel(label)) => VersionChoice::Label(label.clone()),
    };
    Ok(ModelSpec { name, version })
}

/// The name of the signature that a request means.
pub fn signature_name(spec: Option<&ProtoSpec>) -> &str {
    match spec {
        Some(spec) if !spec.signature_name.is_empty() => &spec.signature_name,
        _ => DEFAULT_SIGNATURE,
    }
}

/// What a response says about who answered. An empty `signature` is left empty.
pub fn effective_spec(id: &ModelId, signature: &str) -> ProtoSpec {
    let version = i64::try_from(id.version.0).unwrap_or(i64::MAX);
    ProtoSpec {
        name: id.name.as_str().to_owned(),
        version_choice: Some(ProtoChoice::Version(version)),
        signature_name: signature.to_owned(),
    }
}

/// Refuses a signature that is not for inference, for servers that are told to check.
///
/// # Errors
/// [`Code::Internal`] with TensorFlow Serving's text.
pub fn check_method_name(signature: &Signature) -> Result<(), Error> {
    const METHODS: [&str; 3] =
        ["tensorflow/serving/predict", "tensorflow/serving/classify", "tensorflow/serving/regress"];
    let method = signature.method_name();
    if METHODS.contains(&method) {
        return Ok(());
    }
    let expected = METHODS.join(", ");
    Err(Error::new(
        Code::Internal,
        Blame::Model,
        format!("Expected prediction signature method_name to be one of {{{expected}}}. Was: {method}"),
    ))
}

/// The inputs of a request in the signature's order. Their element types and shapes are not checked here: the target does,
/// after the output filter. All of them together may take `max_bytes`;
/// [`decode_tensor`] says what is counted and what is copied.
///
/// # Errors
/// [`Code::InvalidArgument`], in this order: the number of inputs, their names, a tensor that does not decode.
pub fn decode_inputs(
    inputs: BTreeMap<String, TensorProto>,
    signature: &Signature,
    max_bytes: usize,
) -> Result<Vec<Tensor>, Error> {
    check_input_names(signature, inputs.keys().map(String::as_str))?;
    let mut left = max_bytes;
    let mut named = Vec::with_capacity(inputs.len());
    for (alias, proto) in inputs {
        let tensor = decode_tensor(proto, left).map_err(|error| refused(&alias, &error))?;
        left = left.saturating_sub(tensor.n_bytes());
        named.push((alias, tensor));
    }
    bind_inputs(signature, named)
}

/// TensorFlow Serving's text says only which input; a bound of this server says which bound.
fn refused(alias: &str, error: &TensorProtoError) -> Error {
    match error {
        TensorProtoError::TooLarge { .. } => Error::invalid(format!("input '{alias}' {error}")),
        _ => Error::invalid(format!("tensor parsing error: {alias}")),
    }
}

/// The response to a request: `tensors` are the outputs at the positions `outputs` of the signature.
pub fn encode_response(
    id: &ModelId,
    signature: &Signature,
    outputs: &[usize],
    tensors: &[Tensor],
    encoding: Encoding,
) -> PredictResponse {
    let names = outputs.iter().filter_map(|&index| signature.outputs().get(index)).map(|spec| &spec.name);
    let outputs = names
        .zip(tensors)
        .map(|(name, tensor)| (name.to_string(), encode_tensor(tensor, encoding)))
        .collect();
    PredictResponse { outputs, model_spec: Some(effective_spec(id, signature.name())) }
}

/// A request for all outputs of a signature, for callers and for recorded requests.
pub fn encode_request(
    spec: &ModelSpec,
    signature: &str,
    inputs: &[(&str, Tensor)],
    encoding: Encoding,
) -> PredictRequest {
    let version_choice = match &spec.version {
        VersionChoice::Latest => None,
        VersionChoice::Number(number) => Some(ProtoChoice::Version(*number)),
        VersionChoice::Label(label) => Some(ProtoChoice::VersionLabel(label.clone())),
    };
    let spec = ProtoSpec {
        name: spec.name.as_str().to_owned(),
        version_choice,
        signature_name: signature.to_owned(),
    };
    let inputs =
        inputs.iter().map(|(name, tensor)| ((*name).to_owned(), encode_tensor(tensor, encoding))).collect();
    PredictRequest { model_spec: Some(spec), inputs, ..PredictRequest::default() }
}

#[cfg(test)]
mod tests;
