//! Questions as requests, replies as answers, by protocol.

use bytes::Bytes;
use http::HeaderValue;
use http::header::HeaderName;
use prost::Message as _;
use salver_predict::{Blame, Call, Code, Error, ModelSpec, Version};
use salver_tensor::{Signature, Tensor};
use salver_wire::client::{Described, Named, oip_grpc, oip_rest, tfs_grpc, tfs_rest};
use salver_wire::json::{Format, Limits};
use salver_wire::oip_rest::HEADER_LEN;
use salver_wire::proto::inference::model_infer_request::InferRequestedOutputTensor;
use salver_wire::proto::inference::{ModelInferResponse, ModelMetadataResponse};
use salver_wire::proto::tensorflow::serving::model_spec::VersionChoice as ProtoChoice;
use salver_wire::proto::tensorflow::serving::{GetModelMetadataResponse, PredictResponse};

use crate::exchange::{Ask, Reply};
use crate::protocol::Protocol;

/// The request for a prediction.
///
/// # Errors
/// [`Code::InvalidArgument`] for inputs or outputs that are not the signature's, [`Code::Unimplemented`] for tensors that the
/// protocol has no form for, [`Code::ResourceExhausted`] for more than `max_message` bytes.
pub(crate) fn ask(
    protocol: Protocol,
    spec: &ModelSpec,
    call: &Call,
    max_message: usize,
) -> Result<Ask, Error> {
    let signature = &*call.signature;
    let named = named_inputs(signature, &call.inputs)?;
    let outputs = output_names(signature, &call.outputs)?;
    match protocol {
        Protocol::TfsGrpc => {
            let mut request = tfs_grpc::encode_request(spec, signature.name(), &named);
            if outputs.len() < signature.outputs().len() {
                request.output_filter = outputs.iter().map(|name| (*name).to_owned()).collect();
            }
            Ask::grpc(tfs_grpc::PREDICT, &request, max_message)
        }
        Protocol::OipGrpc => {
            let mut request = oip_grpc::encode_request(spec, &named)?;
            if outputs.len() < signature.outputs().len() {
                let one = |name: &&str| InferRequestedOutputTensor {
                    name: (*name).to_owned(),
                    ..InferRequestedOutputTensor::default()
                };
                request.outputs = outputs.iter().map(one).collect();
            }
            Ask::grpc(oip_grpc::INFER, &request, max_message)
        }
        Protocol::TfsRest => {
            let body = tfs_rest::encode_request(Format::Columnar, signature.name(), &named)?;
            Ask::post(tfs_rest::predict_path(spec), "application/json", body.into(), max_message)
        }
        Protocol::OipRest => {
            let encoded = oip_rest::encode_request(oip_rest::Data::Binary, &named)?;
            let path = oip_rest::infer_path(spec);
            let mut ask = Ask::post(path, "application/octet-stream", encoded.body, max_message)?;
            if let Some(header_len) = encoded.header_len {
                let name = HeaderName::from_bytes(HEADER_LEN.to_ascii_lowercase().as_bytes());
                let name = name.expect("the protocol's header has a legal name");
                ask.headers.insert(name, HeaderValue::from(header_len));
            }
            Ok(ask)
        }
    }
}

fn named_inputs<'a>(signature: &'a Signature, inputs: &[Tensor]) -> Result<Vec<(&'a str, Tensor)>, Error> {
    let specs = signature.inputs();
    if specs.len() != inputs.len() {
        return Err(Error::invalid(format!(
            "signature '{}' takes {} inputs, got {}",
            signature.name(),
            specs.len(),
            inputs.len()
        )));
    }
    Ok(specs.iter().zip(inputs).map(|(spec, input)| (&*spec.name, input.clone())).collect())
}

fn output_names<'a>(signature: &'a Signature, outputs: &[usize]) -> Result<Vec<&'a str>, Error> {
    let one = |&at: &usize| match signature.outputs().get(at) {
        Some(spec) => Ok(&*spec.name),
        None => Err(Error::invalid(format!("signature '{}' has no output {at}", signature.name()))),
    };
    outputs.iter().map(one).collect()
}

/// The outputs of a reply, in the order of `outputs`, and the version that computed them, where it says so.
///
/// # Errors
/// [`Code::Internal`], blaming the peer, for what does not decode or lacks what was asked for.
pub(crate) fn answer(
    protocol: Protocol,
    signature: &Signature,
    outputs: &[usize],
    reply: Reply,
    max_message: usize,
) -> Result<(Vec<Tensor>, Option<Version>), Error> {
    let (named, version) = match protocol {
        Protocol::TfsGrpc => {
            let response = PredictResponse::decode(reply.body).map_err(wrong)?;
            let version = tfs_version(&response);
            // A single element may stand for all, so that the tensors are larger than the message.
            (tfs_grpc::decode_response(response, max_message)?, version)
        }
        Protocol::OipGrpc => {
            let response = ModelInferResponse::decode(reply.body).map_err(wrong)?;
            let version = response.model_version.parse().ok();
            (oip_grpc::decode_response(response)?, version)
        }
        Protocol::TfsRest => (tfs_rest::decode_response(&reply.body, signature, Limits::default())?, None),
        Protocol::OipRest => {
            let Reply { body, header_len } = reply;
            let version = oip_rest::decode_version(&body, header_len);
            (oip_rest::decode_response(&body, header_len, Limits::default())?, version)
        }
    };
    Ok((select(signature, outputs, &named)?, version.map(Version)))
}

/// Whether outputs have the dimensions that the signature says.
pub(crate) fn fits(signature: &Signature, outputs: &[usize], tensors: &[Tensor]) -> bool {
    outputs
        .iter()
        .zip(tensors)
        .all(|(&at, tensor)| signature.outputs().get(at).is_none_or(|spec| spec.dims.accepts(tensor.shape())))
}

fn tfs_version(response: &PredictResponse) -> Option<u64> {
    match response.model_spec.as_ref()?.version_choice.as_ref()? {
        ProtoChoice::Version(version) => u64::try_from(*version).ok(),
        ProtoChoice::VersionLabel(_) => None,
    }
}

fn select(signature: &Signature, outputs: &[usize], named: &Named) -> Result<Vec<Tensor>, Error> {
    let one = |&at: &usize| {
        let spec =
            signature.outputs().get(at).ok_or_else(|| wrong(format!("no output {at} was asked for")))?;
        let (_, tensor) = named
            .iter()
            .find(|(name, _)| **name == *spec.name)
            .ok_or_else(|| wrong(format!("it lacks output '{}'", spec.name)))?;
        if tensor.dtype() != spec.dtype {
            let (got, expected) = (tensor.dtype().name(), spec.dtype.name());
            return Err(wrong(format!("output '{}' is {got}, expected {expected}", spec.name)));
        }
        Ok(tensor.clone())
    };
    outputs.iter().map(one).collect()
}

fn wrong(why: impl std::fmt::Display) -> Error {
    Error::new(Code::Internal, Blame::Peer, format!("answer does not decode: {why}"))
}

/// The request for what there is to know of a model.
pub(crate) fn ask_metadata(protocol: Protocol, spec: &ModelSpec, max_message: usize) -> Result<Ask, Error> {
    match protocol {
        Protocol::TfsGrpc => Ask::grpc(tfs_grpc::METADATA, &tfs_grpc::metadata_request(spec), max_message),
        Protocol::OipGrpc => Ask::grpc(oip_grpc::METADATA, &oip_grpc::metadata_request(spec), max_message),
        Protocol::TfsRest => Ok(Ask::get(tfs_rest::metadata_path(spec), max_message)),
        Protocol::OipRest => Ok(Ask::get(oip_rest::metadata_path(spec), max_message)),
    }
}

/// What a reply says of a model.
///
/// # Errors
/// [`Code::Internal`], blaming the peer, for what does not decode.
pub(crate) fn metadata(protocol: Protocol, body: &Bytes) -> Result<Described, Error> {
    match protocol {
        Protocol::TfsGrpc => {
            let response = GetModelMetadataResponse::decode(body.clone()).map_err(wrong)?;
            tfs_grpc::decode_metadata(&response)
        }
        Protocol::OipGrpc => {
            let response = ModelMetadataResponse::decode(body.clone()).map_err(wrong)?;
            Ok(oip_grpc::decode_metadata(&response))
        }
        Protocol::TfsRest => tfs_rest::decode_metadata(body),
        Protocol::OipRest => oip_rest::decode_metadata(body),
    }
}

#[cfg(test)]
mod tests {
    use salver_tensor::{DType, Dims, Shape, TensorSpec};
    use salver_wire::proto::tensorflow::serving::ModelSpec as ProtoSpec;
    use salver_wire::tfs::{Encoding, encode_tensor};

    use super::*;

    fn spec(name: &str, dtype: DType) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            tensor_name: name.into(),
            dtype,
            dims: Dims::unknown(),
            default: None,
        }
    }

    fn reply(outputs: &[(&str, Tensor)], choice: Option<ProtoChoice>) -> Reply {
        let outputs = outputs.iter();
        let response = PredictResponse {
            model_spec: Some(ProtoSpec { version_choice: choice, ..ProtoSpec::default() }),
            outputs: outputs
                .map(|(name, tensor)| ((*name).to_owned(), encode_tensor(tensor, Encoding::Content)))
                .collect(),
        };
        Reply { body: response.encode_to_vec().into(), header_len: None }
    }

    #[test]
    fn answers_have_what_was_asked_for() {
        let vector = |value: f32| Tensor::from_vec(Shape::new(&[2]).unwrap(), vec![value; 2]).unwrap();
        let ints = Tensor::from_vec(Shape::new(&[1]).unwrap(), vec![1i32]).unwrap();
        let outputs = vec![spec("a", DType::F32), spec("b", DType::F32)];
        let signature = Signature::new("serving_default", "", Vec::new(), outputs);
        let (a, b) = (("a", vector(1.0)), ("b", vector(2.0)));
        let version = |number| Some(ProtoChoice::Version(number));
        let check =
            |reply: Reply, outputs: &[usize], max, expected: Result<(&[f32], Option<u64>), &str>| match (
                answer(Protocol::TfsGrpc, &signature, outputs, reply, max),
                expected,
            ) {
                (Ok((got, said)), Ok((values, version))) => {
                    let expected: Vec<Tensor> = values.iter().map(|value| vector(*value)).collect();
                    assert_eq!((got, said), (expected, version.map(Version)));
                }
                (Err(error), Err(text)) => {
                    assert_eq!((error.code(), error.blame()), (Code::Internal, Blame::Peer));
                    assert!(error.message().contains(text), "{error}");
                }
                (got, expected) => panic!("{got:?}, expected {expected:?}"),
            };
        check(reply(&[a.clone(), b.clone()], version(3)), &[1, 0], 99, Ok((&[2.0, 1.0], Some(3))));
        check(reply(std::slice::from_ref(&b), version(-3)), &[1], 99, Ok((&[2.0], None)));
        check(reply(std::slice::from_ref(&b), None), &[0], 99, Err("lacks output 'a'"));
        check(reply(&[a.clone(), ("b", ints)], None), &[1], 99, Err("output 'b' is int32, expected float32"));
        check(reply(&[a, b], None), &[0], 9, Err("output"));
        let garbage = Reply { body: Bytes::from_static(b"\xff\xff"), header_len: None };
        check(garbage, &[0], 99, Err("does not decode"));
    }
}
