//! The other side of the wire: requests from tensors, tensors and signatures from answers.
//!
//! One module for each interface, with functions of the same names: `encode_request` writes a prediction, `decode_response`
//! reads what comes back, and `decode_metadata` reads what a server says of a model. Servers and answers are not trusted:
//! every reader is bounded as those of requests are. Nothing here knows HTTP; `path` functions say where a REST
//! request goes, and [`grpc_error`] and [`http_error`] turn statuses back into the errors they were made of.
#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing)]

pub mod oip_grpc;
pub mod oip_rest;
pub mod tfs_grpc;
pub mod tfs_rest;

use std::fmt::Display;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use salver_predict::{Blame, Code, Error, ModelSpec, VersionChoice};
use salver_tensor::{DType, Dims, MAX_RANK, Signature, Tensor, TensorSpec};

use crate::status;

/// Tensors by their names.
pub type Named = Vec<(String, Tensor)>;

/// What a server says of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Described {
    /// The version that answered, or all that do.
    pub versions: Vec<u64>,
    /// What the model runs on; empty where the interface does not say.
    pub platform: String,
    /// The signatures, sorted by name. The Open Inference Protocol has one, which is named `serving_default` here.
    pub signatures: Vec<Arc<Signature>>,
    /// Signatures that cannot be used here, each with its name and why.
    pub refused: Vec<String>,
}

impl Described {
    /// The signature of a name; an empty one means `serving_default`, or the only one there is.
    ///
    /// # Errors
    /// [`Code::FailedPrecondition`] with the names that there are.
    pub fn signature(&self, name: &str) -> Result<&Arc<Signature>, Error> {
        let wanted = if name.is_empty() { salver_tensor::DEFAULT_SIGNATURE } else { name };
        let found = self.signatures.iter().find(|one| &**one.name() == wanted);
        let only = match self.signatures.as_slice() {
            [only] if name.is_empty() => Some(only),
            _ => None,
        };
        found.or(only).ok_or_else(|| {
            let names: Vec<&str> = self.signatures.iter().map(|one| &**one.name()).collect();
            let mut text = format!("no signature '{wanted}', there are: {}", names.join(", "));
            for refused in &self.refused {
                text.push_str("; ");
                text.push_str(refused);
            }
            Error::client(Code::FailedPrecondition, text)
        })
    }
}

/// The longest text of a peer that is kept.
const MAX_TEXT: usize = 1024;

/// The error that a gRPC status stands for. `message` is the header `grpc-message` as it came, percent-encoded.
pub fn grpc_error(number: i32, message: &str) -> Error {
    let text = percent_decode_str(message).decode_utf8_lossy();
    peer(status::from_number(number), cut(&text))
}

/// The error that an HTTP status with this body stands for; the body's `error`, where it has one, is the text.
pub fn http_error(http: u16, body: &[u8]) -> Error {
    let code = match http {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::AlreadyExists,
        412 => Code::FailedPrecondition,
        413 | 429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        500 => Code::Internal,
        501 | 405 => Code::Unimplemented,
        502 | 503 => Code::Unavailable,
        408 | 504 => Code::DeadlineExceeded,
        _ => Code::Unknown,
    };
    #[derive(serde::Deserialize)]
    struct Page {
        error: String,
    }
    let text = match serde_json::from_slice::<Page>(body) {
        Ok(page) => page.error,
        Err(_) => String::from_utf8_lossy(body.get(..MAX_TEXT).unwrap_or(body)).into_owned(),
    };
    let text = cut(&text);
    let text = if text.is_empty() { format!("HTTP status {http}") } else { text };
    peer(code, text)
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_TEXT);
    text.get(..end).unwrap_or_default().trim().to_owned()
}

/// An error that the server reported, blamed on whom its code blames.
fn peer(code: Code, text: String) -> Error {
    let blame = match code {
        Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::FailedPrecondition => Blame::Client,
        _ => Blame::Peer,
    };
    Error::new(code, blame, text)
}

/// An answer that is none.
fn wrong(why: impl Display) -> Error {
    Error::new(Code::Internal, Blame::Peer, format!("answer does not decode: {why}"))
}

/// What a path takes as it is; a name with other signs is escaped.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

fn escaped(name: &str) -> impl Display + '_ {
    utf8_percent_encode(name, PLAIN)
}

/// `/v1/models/NAME` with the version or the label.
fn tfs_path(spec: &ModelSpec) -> String {
    let name = escaped(spec.name.as_str());
    match &spec.version {
        VersionChoice::Latest => format!("/v1/models/{name}"),
        VersionChoice::Number(number) => format!("/v1/models/{name}/versions/{number}"),
        VersionChoice::Label(label) => format!("/v1/models/{name}/labels/{}", escaped(label)),
    }
}

/// The version as the Open Inference Protocol writes it; empty for the highest.
fn oip_version(spec: &ModelSpec) -> String {
    match &spec.version {
        VersionChoice::Latest => String::new(),
        VersionChoice::Number(number) => number.to_string(),
        VersionChoice::Label(label) => label.clone(),
    }
}

/// Dimensions from signed sizes; those below 0 are open.
fn dims(sizes: &[i64]) -> Result<Dims, String> {
    if sizes.len() > MAX_RANK {
        return Err(format!("{} dimensions, expected at most {MAX_RANK}", sizes.len()));
    }
    Ok(Dims::new(sizes.iter().map(|size| usize::try_from(*size).ok()).collect()))
}

fn spec(name: &str, tensor_name: &str, dtype: DType, dims: Dims) -> TensorSpec {
    TensorSpec { name: name.into(), tensor_name: tensor_name.into(), dtype, dims, default: None }
}

/// The one signature of a model that is described by the Open Inference Protocol: name, element type and dimensions of
/// each tensor.
fn oip_described<'a>(
    versions: &[String],
    platform: &str,
    inputs: impl Iterator<Item = (&'a str, &'a str, &'a [i64])>,
    outputs: impl Iterator<Item = (&'a str, &'a str, &'a [i64])>,
) -> Described {
    let one = |(name, datatype, shape): (&str, &str, &[i64])| {
        let dtype = crate::oip::dtype(datatype)
            .ok_or_else(|| format!("tensor '{name}' has datatype '{datatype}', which is not supported"))?;
        let dims = dims(shape).map_err(|problem| format!("tensor '{name}' has {problem}"))?;
        Ok(spec(name, name, dtype, dims))
    };
    let both = inputs.map(one).collect::<Result<Vec<_>, String>>().and_then(|inputs| {
        let outputs = outputs.map(one).collect::<Result<Vec<_>, String>>()?;
        Ok((inputs, outputs))
    });
    let mut described = Described {
        versions: versions.iter().filter_map(|version| version.parse().ok()).collect(),
        platform: cut(platform),
        ..Described::default()
    };
    match both {
        Ok((inputs, outputs)) => {
            let signature = Signature::new(salver_tensor::DEFAULT_SIGNATURE, "", inputs, outputs);
            described.signatures.push(Arc::new(signature));
        }
        Err(problem) => described.refused.push(problem),
    }
    described
}

/// A request whose tensors an interface has no form for.
fn cannot_send(input: &str, why: impl Display) -> Error {
    Error::client(Code::Unimplemented, format!("input '{input}' cannot be sent over this protocol: {why}"))
}

#[cfg(test)]
mod tests;
