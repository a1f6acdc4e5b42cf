//! ModelInfer: requests to inputs in a signature's order, outputs to responses.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use salver_predict::{Blame, Code, Error, ModelId, bind_inputs, check_input_names};
use salver_tensor::{DType, Element, Shape, Signature, Tensor};

use crate::oip;
use crate::proto::inference::infer_parameter::ParameterChoice;
use crate::proto::inference::model_infer_request::InferInputTensor;
use crate::proto::inference::model_infer_response::InferOutputTensor;
use crate::proto::inference::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};

/// Where the elements of tensors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// In the raw contents of the message, all tensors in a row.
    Raw,
    /// In the typed contents of each tensor.
    Typed,
}

/// Where the elements of a request are; the response to it uses the same form. Raw when there are none.
pub fn contents_of(request: &ModelInferRequest) -> Contents {
    let has_typed = request.inputs.iter().any(|input| input.contents.is_some());
    if request.raw_input_contents.is_empty() && has_typed { Contents::Typed } else { Contents::Raw }
}

/// The outputs that a request names; none for all.
///
/// # Errors
/// [`Code::Unimplemented`] when an output is to be classified or written to shared memory: leaving such a parameter
/// aside would give another answer than the one asked for. Other parameters are left aside.
pub fn output_names(request: &ModelInferRequest) -> Result<Vec<&str>, Error> {
    for output in &request.outputs {
        refuse_parameters(&output.parameters, &output.name)?;
    }
    Ok(request.outputs.iter().map(|output| output.name.as_str()).collect())
}

/// How urgent the request is by its parameter `priority`, 1 first to 9 last; `None` when it does not say. As clients of Triton
/// send it: 0 is the server's default, larger numbers come later.
pub fn priority(request: &ModelInferRequest) -> Option<u8> {
    oip::priority(whole(request, "priority")?)
}

/// How long the client waits for an answer by its parameter `timeout`, in microseconds; `None` when it does not say.
pub fn timeout(request: &ModelInferRequest) -> Option<Duration> {
    whole(request, "timeout").filter(|&micros| micros > 0).map(Duration::from_micros)
}

/// A parameter that is a whole number; clients send it with a sign, without one, or as text.
fn whole(request: &ModelInferRequest, name: &str) -> Option<u64> {
    match request.parameters.get(name)?.parameter_choice.as_ref()? {
        ParameterChoice::Int64Param(number) => u64::try_from(*number).ok(),
        ParameterChoice::Uint64Param(number) => Some(*number),
        ParameterChoice::StringParam(text) => text.parse().ok(),
        _ => None,
    }
}

fn refuse_parameters(parameters: &BTreeMap<String, InferParameter>, tensor: &str) -> Result<(), Error> {
    let refused = ["classification", "shared_memory_region"];
    match refused.iter().find(|name| parameters.contains_key(**name)) {
        Some(name) => {
            let text = format!("parameter '{name}' of tensor '{tensor}' is not supported");
            Err(Error::client(Code::Unimplemented, text))
        }
        None => Ok(()),
    }
}

/// The inputs of a request in the signature's order, checked against it. Raw elements are shared and not copied, typed
/// ones of the element's own width are taken over.
///
/// # Errors
/// [`Code::InvalidArgument`] for inputs that do not fit the signature or themselves, with the input's name;
/// [`Code::Unimplemented`] for shared memory.
pub fn decode_inputs(request: ModelInferRequest, signature: &Signature) -> Result<Vec<Tensor>, Error> {
    check_names(&request.inputs)?;
    check_input_names(signature, request.inputs.iter().map(|input| input.name.as_str()))?;
    let raw = request.raw_input_contents;
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        return Err(Error::invalid(format!(
            "raw_input_contents holds {} inputs, expected {}",
            raw.len(),
            request.inputs.len()
        )));
    }
    let mut raw = raw.into_iter();
    let mut named = Vec::with_capacity(request.inputs.len());
    for mut input in request.inputs {
        refuse_parameters(&input.parameters, &input.name)?;
        let name = std::mem::take(&mut input.name);
        let tensor = decode_input(input, raw.next())
            .map_err(|problem| Error::invalid(format!("input '{name}': {problem}")))?;
        named.push((name, tensor));
    }
    bind_inputs(signature, named)
}

fn check_names(inputs: &[InferInputTensor]) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    match inputs.iter().find(|input| !seen.insert(&input.name)) {
        Some(input) => Err(Error::invalid(format!("input '{}' is given twice", input.name))),
        None => Ok(()),
    }
}

pub(crate) fn decode_input(input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor, String> {
    let dtype = oip::dtype(&input.datatype).ok_or_else(|| unknown_datatype(&input.datatype))?;
    let shape = decode_shape(&input.shape)?;
    match (raw, input.contents) {
        (Some(_), Some(_)) => Err("has both contents and raw_input_contents".to_owned()),
        (Some(raw), None) => decode_raw(dtype, shape, raw),
        (None, Some(contents)) => decode_contents(dtype, shape, contents),
        (None, None) => decode_contents(dtype, shape, InferTensorContents::default()),
    }
}

fn unknown_datatype(name: &str) -> String {
    let known: Vec<&str> = DType::ALL.iter().filter_map(|dtype| oip::datatype(*dtype)).collect();
    format!("datatype is '{name}', expected one of {}", known.join(", "))
}

fn decode_shape(dims: &[i64]) -> Result<Shape, String> {
    if dims.len() > salver_tensor::MAX_RANK {
        return Err(format!("{} dimensions, expected at most {}", dims.len(), salver_tensor::MAX_RANK));
    }
    let dims: Result<Vec<usize>, String> =
        dims.iter().map(|&dim| usize::try_from(dim).map_err(|_| format!("dimension is {dim}"))).collect();
    Shape::new(&dims?).map_err(|error| error.to_string())
}

fn decode_raw(dtype: DType, shape: Shape, raw: Bytes) -> Result<Tensor, String> {
    let tensor = if dtype == DType::String {
        let strings = oip::split_bytes(shape.n_elements(), raw)?;
        Tensor::from_strings(shape, strings)
    } else {
        Tensor::from_bytes(dtype, shape, raw)
    };
    tensor.map_err(|error| error.to_string())
}

fn decode_contents(dtype: DType, shape: Shape, contents: InferTensorContents) -> Result<Tensor, String> {
    match dtype {
        DType::Bool => {
            check_count(&shape, contents.bool_contents.len())?;
            Tensor::from_bools(shape, &contents.bool_contents).map_err(|error| error.to_string())
        }
        DType::I8 => narrow::<i8, i32>(shape, &contents.int_contents),
        DType::I16 => narrow::<i16, i32>(shape, &contents.int_contents),
        DType::U8 => narrow::<u8, u32>(shape, &contents.uint_contents),
        DType::U16 => narrow::<u16, u32>(shape, &contents.uint_contents),
        DType::I32 => typed(shape, contents.int_contents),
        DType::I64 => typed(shape, contents.int64_contents),
        DType::U32 => typed(shape, contents.uint_contents),
        DType::U64 => typed(shape, contents.uint64_contents),
        DType::F32 => typed(shape, contents.fp32_contents),
        DType::F64 => typed(shape, contents.fp64_contents),
        DType::String => {
            check_count(&shape, contents.bytes_contents.len())?;
            Tensor::from_strings(shape, contents.bytes_contents).map_err(|error| error.to_string())
        }
        DType::F16 | DType::BF16 if shape.n_elements() == 0 => {
            Tensor::from_bytes(dtype, shape, Bytes::new()).map_err(|error| error.to_string())
        }
        DType::F16 | DType::BF16 | DType::C64 | DType::C128 => {
            Err(format!("{dtype} elements are taken from raw_input_contents only"))
        }
    }
}

fn check_count(shape: &Shape, got: usize) -> Result<(), String> {
    let expected = shape.n_elements();
    if got == expected {
        return Ok(());
    }
    Err(format!("contents hold {got} elements of its datatype, expected {expected}"))
}

fn typed<T: Element>(shape: Shape, values: Vec<T>) -> Result<Tensor, String> {
    check_count(&shape, values.len())?;
    Tensor::from_vec(shape, values).map_err(|error| error.to_string())
}

fn narrow<T, W>(shape: Shape, values: &[W]) -> Result<Tensor, String>
where
    T: Element + TryFrom<W>,
    W: Copy + std::fmt::Display,
{
    let narrow =
        |&value: &W| T::try_from(value).map_err(|_| format!("{value} is out of range for {}", T::DTYPE));
    typed(shape, values.iter().map(narrow).collect::<Result<Vec<T>, String>>()?)
}

/// The response to a request whose id was `request_id`: `tensors` are the outputs at the positions `outputs` of the
/// signature. Raw elements are shared and not copied, strings excepted. Half precision has no typed form, so
/// a response that holds any is raw.
///
/// # Errors
/// [`Code::Unimplemented`] for an output of complex numbers, which the protocol does not have.
pub fn encode_response(
    request_id: String,
    id: &ModelId,
    signature: &Signature,
    outputs: &[usize],
    tensors: &[Tensor],
    contents: Contents,
) -> Result<ModelInferResponse, Error> {
    let mut response = ModelInferResponse {
        model_name: id.name.as_str().to_owned(),
        model_version: id.version.to_string(),
        id: request_id,
        ..ModelInferResponse::default()
    };
    let has_half = tensors.iter().any(|tensor| matches!(tensor.dtype(), DType::F16 | DType::BF16));
    let specs = outputs.iter().filter_map(|&index| signature.outputs().get(index));
    for (spec, tensor) in specs.zip(tensors) {
        let datatype =
            oip::datatype(tensor.dtype()).ok_or_else(|| unsupported(&spec.name, "complex numbers"))?;
        let mut output = InferOutputTensor {
            name: spec.name.to_string(),
            datatype: datatype.to_owned(),
            // A shape's dimensions are below 2^48.
            shape: tensor.shape().dims().iter().map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX)).collect(),
            ..InferOutputTensor::default()
        };
        if contents == Contents::Raw || has_half {
            let raw = encode_raw(tensor).map_err(|problem| unsupported(&spec.name, &problem))?;
            response.raw_output_contents.push(raw);
        } else {
            output.contents = Some(encode_contents(tensor));
        }
        response.outputs.push(output);
    }
    Ok(response)
}

fn unsupported(output: &str, what: &str) -> Error {
    let text = format!("output '{output}' cannot be sent over this protocol: {what}");
    Error::new(Code::Unimplemented, Blame::Model, text)
}

fn encode_raw(tensor: &Tensor) -> Result<Bytes, String> {
    match (tensor.bytes(), tensor.strings()) {
        (Some(bytes), _) => Ok(bytes.clone()),
        (None, strings) => oip::join_bytes(strings.unwrap_or_default()),
    }
}

fn encode_contents(tensor: &Tensor) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    match tensor.dtype() {
        DType::Bool => {
            let bytes = tensor.bytes().map(|bytes| bytes.as_ref()).unwrap_or_default();
            contents.bool_contents = bytes.iter().map(|&byte| byte != 0).collect();
        }
        DType::I8 => contents.int_contents = widen::<i8, i32>(tensor),
        DType::I16 => contents.int_contents = widen::<i16, i32>(tensor),
        DType::I32 => contents.int_contents = elements(tensor).into_owned(),
        DType::I64 => contents.int64_contents = elements(tensor).into_owned(),
        DType::U8 => contents.uint_contents = widen::<u8, u32>(tensor),
        DType::U16 => contents.uint_contents = widen::<u16, u32>(tensor),
        DType::U32 => contents.uint_contents = elements(tensor).into_owned(),
        DType::U64 => contents.uint64_contents = elements(tensor).into_owned(),
        DType::F32 => contents.fp32_contents = elements(tensor).into_owned(),
        DType::F64 => contents.fp64_contents = elements(tensor).into_owned(),
        DType::String => contents.bytes_contents = tensor.strings().unwrap_or_default().to_vec(),
        // The caller sends half precision raw and refuses complex numbers.
        DType::F16 | DType::BF16 | DType::C64 | DType::C128 => {}
    }
    contents
}

/// The elements; empty when the tensor has another type, which no caller asks for.
fn elements<T: Element>(tensor: &Tensor) -> Cow<'_, [T]> {
    tensor.to_slice().unwrap_or_default()
}

fn widen<T: Element + Into<W>, W>(tensor: &Tensor) -> Vec<W> {
    elements::<T>(tensor).iter().map(|&element| element.into()).collect()
}

#[cfg(test)]
mod tests;
