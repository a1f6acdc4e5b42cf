//! Calls: requests encoded once and sent many times.

use bytes::{BufMut as _, Bytes};
use prost::Message;
use salver_predict::{ModelName, ModelSpec, VersionChoice};
use salver_tensor::{Signature, Tensor};
use salver_wire::client::{Named, oip_grpc, oip_rest, tfs_grpc, tfs_rest};
use salver_wire::json::{Format, Limits};
use salver_wire::oip_rest::HEADER_LEN;
use salver_wire::proto::inference::ModelInferResponse;
use salver_wire::proto::tensorflow::serving::PredictResponse;

use crate::ask::Answer;
use crate::error::{Error, Kind};
use crate::target::{Protocol, Transport};

/// What is asked for: a model, over an interface.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The interface.
    pub protocol: Protocol,
    /// The model and the version.
    pub spec: ModelSpec,
    /// The signature; empty for the default one. The Open Inference Protocol has no others.
    pub signature: String,
    /// How REST bodies of TensorFlow Serving are laid out.
    pub format: Format,
}

/// One request, encoded.
#[derive(Debug, Clone)]
pub struct Call {
    /// What it travels over.
    pub transport: Transport,
    /// The path or the gRPC method.
    pub path: String,
    /// Headers or metadata besides those of the transport.
    pub headers: Vec<(String, String)>,
    /// The body; of gRPC with its frame.
    pub body: Bytes,
    /// How many rows it carries; 1 where that is not known.
    pub n_rows: u64,
    /// Calls of one group are counted together, besides all. Groups above 63 count as the last.
    pub group: usize,
}

impl Subject {
    /// A model by name, with its highest version or this one, by rows where that makes a difference.
    ///
    /// # Errors
    /// [`Kind::Input`] for a name that is none.
    pub fn new(protocol: Protocol, model: &str, version: Option<i64>) -> Result<Subject, Error> {
        let name = ModelName::new(model).ok_or_else(|| Error::input("the model has no name"))?;
        let version = version.map_or(VersionChoice::Latest, VersionChoice::Number);
        Ok(Subject {
            protocol,
            spec: ModelSpec { name, version },
            signature: String::new(),
            format: Format::Row,
        })
    }

    /// The request for a prediction of these inputs.
    ///
    /// # Errors
    /// [`Kind::Input`] when the interface has no form for them.
    pub fn call(&self, inputs: &Named) -> Result<Call, Error> {
        let named: Vec<(&str, Tensor)> =
            inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        let failed = |error: salver_predict::Error| Error::input(error.to_string());
        let call = match self.protocol {
            Protocol::TfsGrpc => {
                Call::grpc(tfs_grpc::PREDICT, &tfs_grpc::encode_request(&self.spec, &self.signature, &named))?
            }
            Protocol::OipGrpc => {
                let request = oip_grpc::encode_request(&self.spec, &named).map_err(failed)?;
                Call::grpc(oip_grpc::INFER, &request)?
            }
            Protocol::TfsRest => {
                let body = tfs_rest::encode_request(self.format, &self.signature, &named).map_err(failed)?;
                self.json(body.into())
            }
            Protocol::OipRest | Protocol::OipRestBinary => {
                let is_binary = self.protocol == Protocol::OipRestBinary;
                let data = if is_binary { oip_rest::Data::Binary } else { oip_rest::Data::Json };
                let encoded = oip_rest::encode_request(data, &named).map_err(failed)?;
                let mut call = self.json(encoded.body);
                if let Some(header_len) = encoded.header_len {
                    call.headers = vec![
                        ("content-type".to_owned(), "application/octet-stream".to_owned()),
                        (HEADER_LEN.to_ascii_lowercase(), header_len.to_string()),
                    ];
                }
                call
            }
        };
        let n_rows = inputs.iter().filter_map(|(_, tensor)| tensor.shape().n_rows()).max().unwrap_or(1);
        Ok(Call { n_rows: n_rows.max(1) as u64, ..call })
    }

    /// The REST request for a prediction with this body of JSON.
    pub fn json(&self, body: Bytes) -> Call {
        let path = match self.protocol {
            Protocol::TfsRest | Protocol::TfsGrpc => tfs_rest::predict_path(&self.spec),
            _ => oip_rest::infer_path(&self.spec),
        };
        Call {
            transport: Transport::Http1,
            path,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body,
            n_rows: 1,
            group: 0,
        }
    }

    /// The outputs of an answer. `signature` says the element types for TensorFlow Serving's JSON, which does not.
    ///
    /// # Errors
    /// [`Kind::Server`] for an answer that is an error or does not decode.
    pub fn decode(&self, signature: &Signature, answer: &Answer) -> Result<Named, Error> {
        if let Some(error) = answer.error() {
            return Err(error);
        }
        let message = match self.protocol.transport() {
            Transport::Http2 => answer.message()?,
            Transport::Http1 => answer.body.clone(),
        };
        self.decode_message(signature, message, answer.header_len)
    }

    /// The outputs of an answer that lies in a file: a body of REST, or the message of gRPC without its frame.
    ///
    /// # Errors
    /// [`Kind::Server`] for what does not decode.
    pub fn decode_body(&self, signature: &Signature, body: Bytes) -> Result<Named, Error> {
        self.decode_message(signature, body, None)
    }

    fn decode_message(
        &self,
        signature: &Signature,
        body: Bytes,
        header_len: Option<usize>,
    ) -> Result<Named, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::new(Kind::Server, error.to_string());
        let limits = Limits::default();
        let named = match self.protocol {
            Protocol::TfsGrpc => {
                let message = PredictResponse::decode(body).map_err(|error| failed(&error))?;
                tfs_grpc::decode_response(message, MAX_ANSWER)
            }
            Protocol::OipGrpc => {
                let message = ModelInferResponse::decode(body).map_err(|error| failed(&error))?;
                oip_grpc::decode_response(message)
            }
            Protocol::TfsRest => tfs_rest::decode_response(&body, signature, limits),
            Protocol::OipRest | Protocol::OipRestBinary => {
                oip_rest::decode_response(&body, header_len, limits)
            }
        };
        let mut named = named.map_err(|error| failed(&error))?;
        named.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(named)
    }
}

/// The largest answer that is kept to be looked at, in bytes.
pub(crate) const MAX_ANSWER: usize = 256 << 20;

impl Call {
    /// The gRPC call of a method with this message.
    ///
    /// # Errors
    /// [`Kind::Input`] for a message of 4 GiB or more.
    pub fn grpc(path: &str, message: &impl Message) -> Result<Call, Error> {
        let n = u32::try_from(message.encoded_len())
            .map_err(|_| Error::input("a message of 4 GiB or more cannot be sent over gRPC"))?;
        // A frame: not compressed, the length in network order, the message.
        let mut body = Vec::with_capacity(message.encoded_len() + 5);
        body.put_u8(0);
        body.put_u32(n);
        message.encode(&mut body).expect("a vector grows as needed");
        Ok(Call {
            transport: Transport::Http2,
            path: path.to_owned(),
            headers: vec![
                ("content-type".to_owned(), "application/grpc".to_owned()),
                ("te".to_owned(), "trailers".to_owned()),
            ],
            body: body.into(),
            n_rows: 1,
            group: 0,
        })
    }

    /// The same in a group of its own.
    #[must_use]
    pub fn in_group(self, group: usize) -> Call {
        Call { group, ..self }
    }
}
