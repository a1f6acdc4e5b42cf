//! A command line that asks a model and works: made from the model's signature.

use std::fmt::Write;

use salver_tensor::{DType, Signature, TensorSpec};

/// Up to so many elements the numbers are written out; above, the shell makes them.
const MAX_WRITTEN: usize = 256;

/// A `curl` command with valid inputs for the signature: zeros, one row.
pub(crate) fn curl(rest: &str, model: &str, signature: &Signature) -> String {
    let n_elements: usize =
        signature.inputs().iter().map(|input| dims(input).iter().product::<usize>()).sum();
    if signature.inputs().is_empty() {
        return format!("curl -d '{{\"inputs\": {{}}}}' {rest}/v1/models/{model}:predict");
    }
    if n_elements > MAX_WRITTEN {
        return piped(rest, model, signature);
    }
    format!("curl -d '{}' {rest}/v1/models/{model}:predict", columnar(signature))
}

/// One row of whatever is open.
fn dims(input: &TensorSpec) -> Vec<usize> {
    input.dims.known().unwrap_or_default().iter().map(|dim| dim.unwrap_or(1)).collect()
}

fn zero(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "false",
        DType::String => "\"\"",
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => "0.0",
        _ => "0",
    }
}

/// The body in TensorFlow Serving's columnar form, in which the nesting is the shape.
fn columnar(signature: &Signature) -> String {
    let nested: Vec<String> =
        signature.inputs().iter().map(|input| nest(&dims(input), zero(input.dtype))).collect();
    let value = match (signature.inputs(), nested.as_slice()) {
        ([_], [only]) => only.clone(),
        (inputs, nested) => {
            let members: Vec<String> = inputs
                .iter()
                .zip(nested)
                .map(|(input, value)| format!("\"{}\": {value}", input.name))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
    };
    format!("{{\"inputs\": {value}}}")
}

fn nest(dims: &[usize], element: &str) -> String {
    match dims {
        [] => element.to_owned(),
        [size, rest @ ..] => format!("[{}]", vec![nest(rest, element); *size].join(",")),
    }
}

/// For large inputs: the Open Inference Protocol takes the elements flat, so the shell can make them.
fn piped(rest: &str, model: &str, signature: &Signature) -> String {
    let mut command = String::from("(printf '{\"inputs\": ['");
    for (index, input) in signature.inputs().iter().enumerate() {
        let dims = dims(input);
        let n_elements: usize = dims.iter().product();
        let comma = if index > 0 { ", " } else { "" };
        let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
        // Writing to a string cannot fail.
        let _written = write!(
            command,
            "; printf '{comma}{{\"name\": \"{}\", \"datatype\": \"{}\", \"shape\": [{}], \"data\": ['; yes {} | head -n {n_elements} \
             | paste -sd, -; printf ']}}'",
            input.name,
            datatype(input.dtype),
            dims.join(","),
            zero(input.dtype),
        );
    }
    command.push_str("; printf ']}')");
    format!("{command} | curl -d @- {rest}/v2/models/{model}/infer")
}

/// The Open Inference Protocol's name of an element type.
fn datatype(dtype: DType) -> &'static str {
    salver_wire::oip::datatype(dtype).unwrap_or("FP32")
}

#[cfg(test)]
mod tests {
    use salver_tensor::Dims;

    use super::*;

    fn input(name: &str, dtype: DType, dims: &[Option<usize>]) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            tensor_name: name.into(),
            dtype,
            dims: Dims::new(dims.to_vec()),
            default: None,
        }
    }

    fn command(inputs: Vec<TensorSpec>) -> String {
        curl("http://localhost:8501", "m", &Signature::new("serving_default", "", inputs, Vec::new()))
    }

    #[test]
    fn small_inputs_are_written_out() {
        assert_eq!(
            command(vec![input("x", DType::F32, &[None, Some(2)])]),
            "curl -d '{\"inputs\": [[0.0,0.0]]}' http://localhost:8501/v1/models/m:predict"
        );
        assert_eq!(
            command(vec![input("a", DType::I64, &[None]), input("b", DType::Bool, &[])]),
            "curl -d '{\"inputs\": {\"a\": [0], \"b\": false}}' http://localhost:8501/v1/models/m:predict"
        );
    }

    #[test]
    fn large_inputs_are_made_by_the_shell() {
        let command = command(vec![input("image", DType::F32, &[None, Some(224), Some(224), Some(3)])]);
        assert!(command.contains("\"shape\": [1,224,224,3]"), "{command}");
        assert!(command.contains("head -n 150528"), "{command}");
        assert!(command.len() < 400, "{command}");
    }
}
