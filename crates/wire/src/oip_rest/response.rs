//! Inference responses.

use std::io::Write as _;

use bytes::Bytes;
use salver_predict::{Blame, Code, Error, ModelId};
use salver_tensor::{Signature, Tensor};

use super::request::Infer;
use crate::json::{NonFinite, Style, write_list, write_string};
use crate::oip;

/// The response to an inference request.
#[derive(Debug, Clone)]
pub struct Response {
    /// The value of [`super::HEADER_LEN`], when there are binary tensors.
    pub header_len: Option<usize>,
    /// The body in pieces, to be sent in a row: JSON, then the binary tensors, whose memory is shared with the tensors.
    pub body: Vec<Bytes>,
}

impl Response {
    /// Writes the outputs: `tensors` are those at the positions `outputs` of the signature.
    ///
    /// # Errors
    /// [`Code::Unimplemented`] for complex numbers, which the protocol does not have, and for byte strings asked for as
    /// JSON that are not UTF-8.
    pub fn encode(
        request: &Infer,
        id: &ModelId,
        signature: &Signature,
        outputs: &[usize],
        tensors: &[Tensor],
        non_finite: NonFinite,
    ) -> Result<Response, Error> {
        let mut writer = Writer { json: Vec::with_capacity(512), binary: Vec::new(), non_finite };
        writer.head(request, id);
        let specs = outputs.iter().filter_map(|&index| signature.outputs().get(index));
        for (i, (spec, tensor)) in specs.zip(tensors).enumerate() {
            if i > 0 {
                writer.json.extend_from_slice(b", ");
            }
            writer.output(&spec.name, tensor, request.is_binary(&spec.name))?;
        }
        writer.json.extend_from_slice(b"]}");
        Ok(writer.finish())
    }

    /// The body in one piece.
    pub fn into_bytes(self) -> Bytes {
        match <[Bytes; 1]>::try_from(self.body) {
            Ok([only]) => only,
            Err(pieces) => pieces.concat().into(),
        }
    }
}

impl Infer {
    fn is_binary(&self, output: &str) -> bool {
        let asked = self.outputs.iter().find(|asked| asked.name == output);
        asked.and_then(|asked| asked.binary).unwrap_or(self.binary_outputs)
    }
}

struct Writer {
    json: Vec<u8>,
    binary: Vec<Bytes>,
    non_finite: NonFinite,
}

impl Writer {
    fn head(&mut self, request: &Infer, id: &ModelId) {
        self.json.push(b'{');
        if !request.id.is_empty() {
            self.json.extend_from_slice(b"\"id\": ");
            write_string(&mut self.json, request.id.as_bytes());
            self.json.extend_from_slice(b", ");
        }
        self.json.extend_from_slice(b"\"model_name\": ");
        write_string(&mut self.json, id.name.as_str().as_bytes());
        self.print(format_args!(", \"model_version\": \"{}\", \"outputs\": [", id.version));
    }

    fn print(&mut self, text: std::fmt::Arguments<'_>) {
        self.json.write_fmt(text).expect("a vector takes all that is written");
    }

    fn output(&mut self, name: &str, tensor: &Tensor, is_binary: bool) -> Result<(), Error> {
        let datatype =
            oip::datatype(tensor.dtype()).ok_or_else(|| cannot_send(name, "it holds complex numbers"))?;
        self.json.extend_from_slice(b"{\"name\": ");
        write_string(&mut self.json, name.as_bytes());
        self.print(format_args!(", \"datatype\": \"{datatype}\", \"shape\": {:?}, ", tensor.shape().dims()));
        if is_binary {
            let raw = raw_bytes(tensor).map_err(|problem| cannot_send(name, &problem))?;
            self.print(format_args!("\"parameters\": {{\"binary_data_size\": {}}}}}", raw.len()));
            self.binary.push(raw);
            return Ok(());
        }
        check_text(name, tensor)?;
        self.json.extend_from_slice(b"\"data\": ");
        let style = Style { non_finite: self.non_finite, b64: false };
        write_list(&mut self.json, tensor, &[tensor.shape().n_elements()], style)?;
        self.json.push(b'}');
        Ok(())
    }

    fn finish(self) -> Response {
        let header_len = (!self.binary.is_empty()).then_some(self.json.len());
        let mut body = self.binary;
        body.insert(0, self.json.into());
        Response { header_len, body }
    }
}

fn raw_bytes(tensor: &Tensor) -> Result<Bytes, String> {
    match (tensor.bytes(), tensor.strings()) {
        (Some(bytes), _) => Ok(bytes.clone()),
        (None, strings) => oip::join_bytes(strings.unwrap_or_default()),
    }
}

/// JSON has no form for bytes in this protocol, and another string than the model's would be a wrong answer.
fn check_text(name: &str, tensor: &Tensor) -> Result<(), Error> {
    let strings = tensor.strings().unwrap_or_default();
    if strings.iter().any(|string| std::str::from_utf8(string).is_err()) {
        return Err(cannot_send(name, "it holds bytes that are not UTF-8; ask for it as binary data"));
    }
    Ok(())
}

fn cannot_send(output: &str, why: &str) -> Error {
    Error::new(Code::Unimplemented, Blame::Model, format!("output '{output}' cannot be sent: {why}"))
}
