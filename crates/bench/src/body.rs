//! The calls of each interface, encoded once.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};
use prost::Message;
use serde_json::json;

use crate::load::{Call, Transport};
use crate::subject::Subject;
use salver_wire::proto::inference::ModelInferRequest;
use salver_wire::proto::inference::model_infer_request::InferInputTensor;
use salver_wire::proto::tensorflow::serving::{ModelSpec, PredictRequest};
use salver_wire::proto::tensorflow::tensor_shape_proto::Dim;
use salver_wire::proto::tensorflow::{DataType, TensorProto, TensorShapeProto};

/// A way to ask for a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface {
    /// TensorFlow Serving gRPC with `tensor_content`.
    GrpcPacked,
    /// TensorFlow Serving gRPC with `float_val`.
    GrpcFloats,
    /// TensorFlow Serving REST, row format.
    RestJson,
    /// Open Inference Protocol gRPC with `raw_input_contents`.
    OipGrpcRaw,
    /// Open Inference Protocol REST with the binary extension, both ways.
    OipRestBinary,
    /// Open Inference Protocol REST with numbers as text.
    OipRestJson,
}

impl Interface {
    pub(crate) const ALL: [Interface; 6] = [
        Interface::GrpcPacked,
        Interface::GrpcFloats,
        Interface::RestJson,
        Interface::OipGrpcRaw,
        Interface::OipRestBinary,
        Interface::OipRestJson,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Interface::GrpcPacked => "TFS gRPC, tensor_content",
            Interface::GrpcFloats => "TFS gRPC, float_val",
            Interface::RestJson => "TFS REST, JSON rows",
            Interface::OipGrpcRaw => "OIP gRPC, raw",
            Interface::OipRestBinary => "OIP REST, binary",
            Interface::OipRestJson => "OIP REST, JSON",
        }
    }

    pub(crate) fn transport(self) -> Transport {
        match self {
            Interface::GrpcPacked | Interface::GrpcFloats | Interface::OipGrpcRaw => Transport::Grpc,
            Interface::RestJson | Interface::OipRestBinary | Interface::OipRestJson => Transport::Rest,
        }
    }

    /// The call that asks the model `name` for the prediction of this subject.
    pub(crate) fn call(self, subject: &Subject, name: &str) -> Call {
        match self {
            Interface::GrpcPacked => predict(subject, name, true),
            Interface::GrpcFloats => predict(subject, name, false),
            Interface::RestJson => Call {
                transport: Transport::Rest,
                path: format!("/v1/models/{name}:predict"),
                headers: vec![("content-type", "application/json".to_owned())],
                body: format!("{{\"instances\":{}}}", subject.json(true)).into(),
            },
            Interface::OipGrpcRaw => infer(subject, name),
            Interface::OipRestBinary => infer_binary(subject, name),
            Interface::OipRestJson => infer_json(subject, name),
        }
    }
}

/// A gRPC call with this message.
pub(crate) fn grpc(path: &str, message: &impl Message) -> Call {
    let mut body = Vec::with_capacity(message.encoded_len() + 5);
    body.put_u8(0);
    body.put_u32(u32::try_from(message.encoded_len()).expect("messages here are far below 4 GB"));
    message.encode(&mut body).expect("a vector grows as needed");
    Call {
        transport: Transport::Grpc,
        path: path.to_owned(),
        headers: vec![("content-type", "application/grpc".to_owned()), ("te", "trailers".to_owned())],
        body: body.into(),
    }
}

fn predict(subject: &Subject, name: &str, packed: bool) -> Call {
    let dim = |size: &usize| Dim { size: *size as i64, name: String::new() };
    let mut tensor = TensorProto {
        dtype: DataType::DtFloat.into(),
        tensor_shape: Some(TensorShapeProto {
            dim: subject.shape.iter().map(dim).collect(),
            unknown_rank: false,
        }),
        ..TensorProto::default()
    };
    match packed {
        true => tensor.tensor_content = subject.bytes().into(),
        false => tensor.float_val.clone_from(&subject.values),
    }
    let request = PredictRequest {
        model_spec: Some(ModelSpec { name: name.to_owned(), ..ModelSpec::default() }),
        inputs: BTreeMap::from([(subject.input.clone(), tensor)]),
        ..PredictRequest::default()
    };
    grpc("/tensorflow.serving.PredictionService/Predict", &request)
}

fn infer(subject: &Subject, name: &str) -> Call {
    let request = ModelInferRequest {
        model_name: name.to_owned(),
        inputs: vec![InferInputTensor {
            name: subject.input.clone(),
            datatype: "FP32".to_owned(),
            shape: subject.shape.iter().map(|size| *size as i64).collect(),
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![subject.bytes().into()],
        ..ModelInferRequest::default()
    };
    grpc("/inference.GRPCInferenceService/ModelInfer", &request)
}

fn infer_binary(subject: &Subject, name: &str) -> Call {
    let tensor = subject.bytes();
    let head = json!({
        "inputs": [{
            "name": subject.input,
            "shape": subject.shape,
            "datatype": "FP32",
            "parameters": { "binary_data_size": tensor.len() },
        }],
        "parameters": { "binary_data_output": true },
    })
    .to_string();
    Call {
        transport: Transport::Rest,
        path: format!("/v2/models/{name}/infer"),
        headers: vec![
            ("content-type", "application/octet-stream".to_owned()),
            ("inference-header-content-length", head.len().to_string()),
        ],
        body: [head.as_bytes(), &tensor].concat().into(),
    }
}

fn infer_json(subject: &Subject, name: &str) -> Call {
    let (input, shape, data) = (&subject.input, &subject.shape, subject.json(false));
    let body =
        format!(r#"{{"inputs":[{{"name":"{input}","shape":{shape:?},"datatype":"FP32","data":{data}}}]}}"#);
    Call {
        transport: Transport::Rest,
        path: format!("/v2/models/{name}/infer"),
        headers: vec![("content-type", "application/json".to_owned())],
        body: Bytes::from(body),
    }
}

/// A call of the bare echo that carries a body of the same size.
pub(crate) fn echo_of(call: &Call) -> Call {
    match call.transport {
        Transport::Rest => call.clone(),
        Transport::Grpc => {
            let size = call.body.len() - 5;
            let header = prost::length_delimiter_len(size) + 1;
            grpc("/bench.Echo/Echo", &crate::echo::Ping { body: vec![7; size - header].into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_carries_as_many_bytes() {
        let picture = Subject::picture();
        for interface in Interface::ALL {
            let call = interface.call(&picture, "picture");
            assert_eq!(echo_of(&call).body.len(), call.body.len(), "{}", interface.label());
        }
    }
}
