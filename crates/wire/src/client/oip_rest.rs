//! The Open Inference Protocol over REST, with JSON or binary tensors.

use std::io::Write as _;

use bytes::Bytes;
use salver_predict::{Error, ModelSpec, VersionChoice};
use salver_tensor::Tensor;
use serde::Deserialize;

use super::{Described, Named, cannot_send, escaped, oip_described, oip_grpc, wrong};
use crate::json::{Limits, NonFinite, Style, write_list, write_string};
use crate::oip;
use crate::oip_rest::request::decode_outputs;

/// How tensors travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// As lists of numbers and strings.
    Json,
    /// As bytes behind the JSON, both ways.
    Binary,
}

/// The body of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The value of [`crate::oip_rest::HEADER_LEN`], when there are binary tensors.
    pub header_len: Option<usize>,
    /// All of it.
    pub body: Bytes,
}

fn model_path(spec: &ModelSpec) -> String {
    let name = escaped(spec.name.as_str());
    match &spec.version {
        VersionChoice::Latest => format!("/v2/models/{name}"),
        VersionChoice::Number(number) => format!("/v2/models/{name}/versions/{number}"),
        VersionChoice::Label(label) => format!("/v2/models/{name}/versions/{}", escaped(label)),
    }
}

/// Where a prediction is asked for.
pub fn infer_path(spec: &ModelSpec) -> String {
    format!("{}/infer", model_path(spec))
}

/// Where a model is described.
pub fn metadata_path(spec: &ModelSpec) -> String {
    model_path(spec)
}

/// A request for all outputs.
///
/// # Errors
/// [`salver_predict::Code::Unimplemented`] for complex numbers, and as JSON for byte strings that are not UTF-8.
pub fn encode_request(data: Data, inputs: &[(&str, Tensor)]) -> Result<Encoded, Error> {
    let mut out = b"{\"inputs\": [".to_vec();
    let mut binary = Vec::new();
    for (at, (name, tensor)) in inputs.iter().enumerate() {
        let datatype =
            oip::datatype(tensor.dtype()).ok_or_else(|| cannot_send(name, "it holds complex numbers"))?;
        out.extend_from_slice(if at > 0 { b", {\"name\": " } else { b"{\"name\": " });
        write_string(&mut out, name.as_bytes());
        let shape = tensor.shape().dims();
        print(&mut out, format_args!(", \"shape\": {shape:?}, \"datatype\": \"{datatype}\", "));
        match data {
            Data::Binary => {
                let raw = oip_grpc::raw(name, tensor)?;
                print(&mut out, format_args!("\"parameters\": {{\"binary_data_size\": {}}}}}", raw.len()));
                binary.push(raw);
            }
            Data::Json => {
                check_text(name, tensor)?;
                out.extend_from_slice(b"\"data\": ");
                let style = Style { non_finite: NonFinite::Literal, b64: false };
                write_list(&mut out, tensor, &[tensor.shape().n_elements()], style)?;
                out.push(b'}');
            }
        }
    }
    out.push(b']');
    if data == Data::Json {
        out.push(b'}');
        return Ok(Encoded { header_len: None, body: out.into() });
    }
    out.extend_from_slice(b", \"parameters\": {\"binary_data_output\": true}}");
    let header_len = Some(out.len());
    binary.iter().for_each(|raw| out.extend_from_slice(raw));
    Ok(Encoded { header_len, body: out.into() })
}

fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes all that is written");
}

fn check_text(name: &str, tensor: &Tensor) -> Result<(), Error> {
    let strings = tensor.strings().unwrap_or_default();
    match strings.iter().all(|string| std::str::from_utf8(string).is_ok()) {
        true => Ok(()),
        false => Err(cannot_send(name, "it holds bytes that are not UTF-8; send it as binary data")),
    }
}

/// The outputs of an answer in the order sent. `header_len` is the value of [`crate::oip_rest::HEADER_LEN`]; without it all
/// of the body is JSON.
///
/// # Errors
/// [`salver_predict::Code::Internal`] for what does not decode, with the output's name.
pub fn decode_response(body: &Bytes, header_len: Option<usize>, limits: Limits) -> Result<Named, Error> {
    decode_outputs(body, header_len, limits).map_err(wrong)
}

/// The version that an answer says it is from; `None` when it says none or no number.
pub fn decode_version(body: &[u8], header_len: Option<usize>) -> Option<u64> {
    #[derive(Deserialize)]
    struct Answer {
        model_version: String,
    }
    let header = body.get(..header_len.unwrap_or(body.len()))?;
    serde_json::from_slice::<Answer>(header).ok()?.model_version.parse().ok()
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    versions: Vec<String>,
    #[serde(default)]
    platform: String,
    #[serde(default)]
    inputs: Vec<TensorPage>,
    #[serde(default)]
    outputs: Vec<TensorPage>,
}

#[derive(Deserialize)]
struct TensorPage {
    name: String,
    datatype: String,
    #[serde(default)]
    shape: Vec<i64>,
}

impl TensorPage {
    fn parts(&self) -> (&str, &str, &[i64]) {
        (&self.name, &self.datatype, &self.shape)
    }
}

/// As [`oip_grpc::decode_metadata`].
///
/// # Errors
/// [`salver_predict::Code::Internal`] for what does not decode.
pub fn decode_metadata(body: &[u8]) -> Result<Described, Error> {
    let page: Page = serde_json::from_slice(body).map_err(wrong)?;
    let (inputs, outputs) =
        (page.inputs.iter().map(TensorPage::parts), page.outputs.iter().map(TensorPage::parts));
    Ok(oip_described(&page.versions, &page.platform, inputs, outputs))
}
