//! GetModelMetadata: the signatures of a model.

use std::sync::Arc;

use prost::Message as _;
use prost_types::Any;
use salver_predict::{Error, ModelId, ModelSpec};
use salver_tensor::{Dims, Signature, TensorSpec};

use crate::proto::tensorflow::serving::{GetModelMetadataRequest, GetModelMetadataResponse, SignatureDefMap};
use crate::proto::tensorflow::tensor_info::Encoding;
use crate::proto::tensorflow::tensor_shape_proto::Dim;
use crate::proto::tensorflow::{SignatureDef, TensorInfo, TensorShapeProto};
use crate::tfs::dtype_number;
use crate::tfs::predict::{effective_spec, request_spec};

/// The type URL of the one kind of metadata there is.
pub const SIGNATURE_DEF_TYPE_URL: &str = "type.googleapis.com/tensorflow.serving.SignatureDefMap";

const SIGNATURE_DEF: &str = "signature_def";

/// Which model a request for metadata means.
///
/// # Errors
/// [`salver_predict::Code::InvalidArgument`] when it names no model, asks for nothing or for anything but signatures.
pub fn metadata_spec(request: &GetModelMetadataRequest) -> Result<ModelSpec, Error> {
    let spec = request_spec(request.model_spec.as_ref())?;
    if request.metadata_field.is_empty() {
        return Err(Error::invalid("GetModelMetadataRequest must specify at least one metadata_field"));
    }
    match request.metadata_field.iter().find(|field| *field != SIGNATURE_DEF) {
        Some(field) => Err(Error::invalid(format!("Metadata field {field} is not supported"))),
        None => Ok(spec),
    }
}

/// The signatures of a version.
pub fn metadata_response(id: &ModelId, signatures: &[Arc<Signature>]) -> GetModelMetadataResponse {
    let signature_def = signatures.iter().map(|one| (one.name().to_string(), signature_def(one))).collect();
    let any = Any {
        type_url: SIGNATURE_DEF_TYPE_URL.to_owned(),
        value: SignatureDefMap { signature_def }.encode_to_vec(),
    };
    GetModelMetadataResponse {
        model_spec: Some(effective_spec(id, "")),
        metadata: [(SIGNATURE_DEF.to_owned(), any)].into(),
    }
}

/// A signature as TensorFlow writes it. Defaults are left out, as TensorFlow Serving does.
pub fn signature_def(signature: &Signature) -> SignatureDef {
    let infos =
        |specs: &[TensorSpec]| specs.iter().map(|spec| (spec.name.to_string(), tensor_info(spec))).collect();
    SignatureDef {
        inputs: infos(signature.declared_inputs()),
        outputs: infos(signature.declared_outputs()),
        method_name: signature.method_name().to_owned(),
        defaults: Default::default(),
    }
}

fn tensor_info(spec: &TensorSpec) -> TensorInfo {
    TensorInfo {
        encoding: Some(Encoding::Name(spec.tensor_name.to_string())),
        dtype: dtype_number(spec.dtype),
        tensor_shape: Some(shape(&spec.dims)),
    }
}

fn shape(dims: &Dims) -> TensorShapeProto {
    let Some(known) = dims.known() else {
        return TensorShapeProto { dim: Vec::new(), unknown_rank: true };
    };
    let size = |dim: &Option<usize>| dim.and_then(|size| i64::try_from(size).ok()).unwrap_or(-1);
    let dim = known.iter().map(|dim| Dim { size: size(dim), name: String::new() }).collect();
    TensorShapeProto { dim, unknown_rank: false }
}

#[cfg(test)]
mod tests {
    use salver_predict::{ModelName, Version};
    use salver_tensor::DType;

    use super::*;
    use crate::proto::tensorflow::serving::ModelSpec as ProtoSpec;

    fn spec(name: &str, dims: Dims) -> TensorSpec {
        let tensor_name = format!("{name}:0").into();
        TensorSpec { name: name.into(), tensor_name, dtype: DType::F32, dims, default: None }
    }

    #[test]
    fn requests_are_checked_in_order() {
        let named = |name: &str| Some(ProtoSpec { name: name.into(), ..ProtoSpec::default() });
        let cases = [
            (None, vec![], "Missing ModelSpec"),
            (named(""), vec![], "ModelSpec has no name specified."),
            (named("m"), vec![], "GetModelMetadataRequest must specify at least one metadata_field"),
            (named("m"), vec!["signature_def", "x"], "Metadata field x is not supported"),
            (named("m"), vec!["signature_def"], ""),
        ];
        for (model_spec, fields, expected) in cases {
            let metadata_field = fields.iter().map(|field| (*field).to_owned()).collect();
            let result = metadata_spec(&GetModelMetadataRequest { model_spec, metadata_field });
            assert_eq!(result.err().map(|error| error.to_string()).unwrap_or_default(), expected);
        }
    }

    #[test]
    fn signatures_travel_in_an_any() {
        let inputs = vec![spec("x", Dims::new(vec![None, Some(3)]))];
        let signature = Signature::new("s", "method", inputs, vec![spec("y", Dims::unknown())]);
        let id = ModelId { name: ModelName::new("m").unwrap(), version: Version(7) };
        let response = metadata_response(&id, &[Arc::new(signature)]);
        let any = &response.metadata["signature_def"];
        assert_eq!(any.type_url, SIGNATURE_DEF_TYPE_URL);
        let map = SignatureDefMap::decode(any.value.as_slice()).unwrap();
        let def = &map.signature_def["s"];
        let dims = |info: &TensorInfo| {
            let shape = info.tensor_shape.clone().unwrap();
            (shape.unknown_rank, shape.dim.iter().map(|dim| dim.size).collect::<Vec<_>>())
        };
        assert_eq!(dims(&def.inputs["x"]), (false, vec![-1, 3]));
        assert_eq!(dims(&def.outputs["y"]), (true, vec![]));
        assert_eq!(def.inputs["x"].encoding, Some(Encoding::Name("x:0".into())));
        assert_eq!((def.method_name.as_str(), def.inputs["x"].dtype), ("method", 1));
    }

    #[test]
    fn the_response_is_tensorflow_servings() {
        let path = format!("{}/tests/golden/metadata_response.bin", env!("CARGO_MANIFEST_DIR"));
        let golden = std::fs::read(path).expect("golden file is committed");
        let inputs = vec![spec("x", Dims::new(vec![None, Some(64)]))];
        let output = TensorSpec { dtype: DType::I64, ..spec("y", Dims::unknown()) };
        let signature = Signature::new("serving_default", "tensorflow/serving/predict", inputs, vec![output]);
        let id = ModelId { name: ModelName::new("m").unwrap(), version: Version(3) };
        assert_eq!(metadata_response(&id, &[Arc::new(signature)]).encode_to_vec(), golden);
    }
}
