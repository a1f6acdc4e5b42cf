//! TensorFlow Serving over REST.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiter::Peek;
use salver_predict::{Error, ModelSpec};
use salver_tensor::{Dims, Shape, Signature, Tensor, TensorSpec};
use serde::Deserialize;

use super::{Described, Named, cannot_send, dims, spec, tfs_path, wrong};
use crate::json::{Format, Limits, NonFinite, Style, Text, read_tensors, write_list, write_string};
use crate::proto::tensorflow::DataType;
use crate::tfs::dtype_from_number;

/// Where a prediction is asked for.
pub fn predict_path(spec: &ModelSpec) -> String {
    format!("{}:predict", tfs_path(spec))
}

/// Where a model is described.
pub fn metadata_path(spec: &ModelSpec) -> String {
    format!("{}/metadata", tfs_path(spec))
}

/// The body of a request for all outputs of a signature; an empty name means the default one. Byte strings are written as
/// text where all of an input's are UTF-8 and it is not named `..._bytes`, else as base64.
///
/// # Errors
/// [`salver_predict::Code::Unimplemented`] for complex numbers; [`salver_predict::Code::InvalidArgument`] by rows for
/// inputs without rows, without any, or with different numbers of them.
pub fn encode_request(format: Format, signature: &str, inputs: &[(&str, Tensor)]) -> Result<Vec<u8>, Error> {
    let mut out = b"{".to_vec();
    if !signature.is_empty() {
        out.extend_from_slice(b"\"signature_name\": ");
        write_string(&mut out, signature.as_bytes());
        out.extend_from_slice(b", ");
    }
    match format {
        Format::Row => write_rows(&mut out, inputs)?,
        Format::Columnar => {
            out.extend_from_slice(b"\"inputs\": ");
            write_members(&mut out, inputs)?;
        }
    }
    out.push(b'}');
    Ok(out)
}

fn write_rows(out: &mut Vec<u8>, inputs: &[(&str, Tensor)]) -> Result<(), Error> {
    let n_rows = n_rows(inputs)?;
    out.extend_from_slice(b"\"instances\": ");
    if let [(name, tensor)] = inputs {
        return write(out, name, tensor);
    }
    for row in 0..n_rows {
        out.extend_from_slice(if row == 0 { b"[" } else { b", " });
        let one = |tensor: &Tensor| {
            let row = tensor.rows(row, 1)?;
            let shape = Shape::new(row.shape().row_dims()).ok()?;
            row.reshape(shape).ok()
        };
        let members = inputs.iter().map(|(name, tensor)| {
            let row = one(tensor).ok_or_else(|| Error::invalid(format!("input '{name}' has no such row")))?;
            Ok((*name, row))
        });
        write_members(out, &members.collect::<Result<Vec<_>, Error>>()?)?;
    }
    out.push(b']');
    Ok(())
}

/// The number of rows that every input has.
fn n_rows(inputs: &[(&str, Tensor)]) -> Result<usize, Error> {
    let mut expected = None;
    for (name, tensor) in inputs {
        let n = tensor.shape().n_rows().filter(|n| *n > 0);
        let n = n.ok_or_else(|| Error::invalid(format!("input '{name}' has no rows; send it by columns")))?;
        if *expected.get_or_insert(n) != n {
            let expected = expected.unwrap_or(0);
            return Err(Error::invalid(format!("input '{name}' has {n} rows, the first has {expected}")));
        }
    }
    expected.ok_or_else(|| Error::invalid("no inputs, so no rows; send them by columns"))
}

fn write_members(out: &mut Vec<u8>, inputs: &[(&str, Tensor)]) -> Result<(), Error> {
    out.push(b'{');
    for (at, (name, tensor)) in inputs.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        write_string(out, name.as_bytes());
        out.extend_from_slice(b": ");
        write(out, name, tensor)?;
    }
    out.push(b'}');
    Ok(())
}

fn write(out: &mut Vec<u8>, name: &str, tensor: &Tensor) -> Result<(), Error> {
    let strings: &[Bytes] = tensor.strings().unwrap_or_default();
    let is_text = strings.iter().all(|string| std::str::from_utf8(string).is_ok());
    let style = Style { non_finite: NonFinite::Literal, b64: !is_text || name.ends_with("_bytes") };
    write_list(out, tensor, tensor.shape().dims(), style).map_err(|error| cannot_send(name, error))
}

/// The outputs of an answer, in the signature's order, which says their element types. `{"predictions": ...}` and
/// `{"outputs": ...}` are told by their key.
///
/// # Errors
/// [`salver_predict::Code::Internal`] for what does not decode.
pub fn decode_response(body: &[u8], signature: &Signature, limits: Limits) -> Result<Named, Error> {
    // The readers of requests read what a signature takes, so they read an answer by a signature that takes the outputs.
    let turned = Signature::new(signature.name().as_ref(), "", signature.outputs().to_vec(), Vec::new());
    let tensors = read_answer(body, &turned, limits).map_err(wrong)?;
    let names = turned.inputs().iter().map(|spec| spec.name.to_string());
    Ok(names.zip(tensors).collect())
}

fn read_answer(body: &[u8], turned: &Signature, limits: Limits) -> Result<Vec<Tensor>, Error> {
    let mut text = Text::new(body, limits);
    if text.peek()? != Peek::Object {
        return Err(Error::invalid(format!("{} is not an object", text.show())));
    }
    let format = |key: &str| match key {
        "predictions" => Some(Format::Row),
        "outputs" => Some(Format::Columnar),
        _ => None,
    };
    let mut tensors = None;
    let mut key = text.object_first(format)?;
    while let Some(found) = key {
        let peek = text.peek()?;
        match found {
            Some(format) if tensors.is_none() => tensors = Some(read(&mut text, peek, format, turned)?),
            _ => text.skip(peek)?,
        }
        key = text.object_step(format)?;
    }
    tensors.ok_or_else(|| Error::invalid("neither 'predictions' nor 'outputs' is in it"))
}

fn read(text: &mut Text<'_>, peek: Peek, format: Format, turned: &Signature) -> Result<Vec<Tensor>, Error> {
    let (at, depth) = (text.at(), text.depth());
    if format == Format::Row && peek == Peek::Array && text.array_first()?.is_none() {
        return turned.inputs().iter().map(empty).collect();
    }
    text.seek(at, depth);
    read_tensors(text, format, turned)
}

/// No rows of an output.
fn empty(spec: &TensorSpec) -> Result<Tensor, Error> {
    let inner = spec.dims.known().and_then(|dims| dims.get(1..)).unwrap_or_default();
    let dims: Vec<usize> = std::iter::once(0).chain(inner.iter().map(|dim| dim.unwrap_or(0))).collect();
    let failed = |error: &dyn std::fmt::Display| Error::invalid(error.to_string());
    let shape = Shape::new(&dims).map_err(|error| failed(&error))?;
    match spec.dtype.size() {
        None => Tensor::from_strings(shape, Vec::new()),
        Some(_) => Tensor::from_bytes(spec.dtype, shape, Bytes::new()),
    }
    .map_err(|error| failed(&error))
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    model_spec: SpecPage,
    metadata: Outer,
}

#[derive(Deserialize, Default)]
struct SpecPage {
    #[serde(default)]
    version: Number,
}

#[derive(Deserialize)]
struct Outer {
    signature_def: Inner,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(default)]
    signature_def: BTreeMap<String, SignaturePage>,
}

#[derive(Deserialize)]
struct SignaturePage {
    #[serde(default)]
    inputs: BTreeMap<String, TensorPage>,
    #[serde(default)]
    outputs: BTreeMap<String, TensorPage>,
    #[serde(default)]
    method_name: String,
}

#[derive(Deserialize)]
struct TensorPage {
    #[serde(default)]
    dtype: String,
    tensor_shape: Option<ShapePage>,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct ShapePage {
    #[serde(default)]
    dim: Vec<DimPage>,
    #[serde(default)]
    unknown_rank: bool,
}

#[derive(Deserialize)]
struct DimPage {
    #[serde(default)]
    size: Number,
}

/// A 64-bit number: protobuf's JSON writes it as a string, some writers as a number.
#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Number {
    #[default]
    Absent,
    Plain(i64),
    Quoted(String),
}

impl Number {
    fn get(&self) -> Option<i64> {
        match self {
            Number::Absent => None,
            Number::Plain(number) => Some(*number),
            Number::Quoted(text) => text.parse().ok(),
        }
    }
}

/// The signatures of an answer; as [`super::tfs_grpc::decode_metadata`]. A depth of 128 is all that is read.
///
/// # Errors
/// As [`super::tfs_grpc::decode_metadata`].
pub fn decode_metadata(body: &[u8]) -> Result<Described, Error> {
    let page: Page = serde_json::from_slice(body).map_err(wrong)?;
    let version = page.model_spec.version.get().and_then(|version| u64::try_from(version).ok());
    let mut described = Described { versions: version.into_iter().collect(), ..Described::default() };
    for (name, page) in &page.metadata.signature_def.signature_def {
        let specs = |pages: &BTreeMap<String, TensorPage>| {
            pages.iter().map(|(name, page)| tensor_spec(name, page)).collect::<Result<Vec<_>, String>>()
        };
        let read = specs(&page.inputs).and_then(|inputs| Ok((inputs, specs(&page.outputs)?)));
        match read {
            Ok((inputs, outputs)) => {
                let signature = Signature::new(name.as_str(), page.method_name.as_str(), inputs, outputs);
                described.signatures.push(Arc::new(signature));
            }
            Err(problem) => described.refused.push(format!("signature '{name}': {problem}")),
        }
    }
    Ok(described)
}

fn tensor_spec(name: &str, page: &TensorPage) -> Result<TensorSpec, String> {
    let number = DataType::from_str_name(&page.dtype).map_or(0, i32::from);
    let dtype = dtype_from_number(number).ok_or_else(|| {
        format!("tensor '{name}' has element type '{}', which is not supported", page.dtype)
    })?;
    let dims = match &page.tensor_shape {
        Some(ShapePage { unknown_rank: false, dim }) => {
            let sizes: Vec<i64> = dim.iter().map(|dim| dim.size.get().unwrap_or(-1)).collect();
            dims(&sizes).map_err(|problem| format!("tensor '{name}' has {problem}"))?
        }
        _ => Dims::unknown(),
    };
    Ok(spec(name, &page.name, dtype, dims))
}
