//! From named tensors to positions in a signature, with TensorFlow Serving's checks, order and texts.

use std::collections::BTreeSet;

use salver_tensor::{DType, Signature, Tensor};

use crate::{Code, Error};

/// TensorFlow's name of an element type, which its error texts use: `float`, `half`, ...
pub fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::F64 => "double",
        DType::F16 => "half",
        other => other.name(),
    }
}

/// Checks the names of a request's inputs against the signature: first their number, then each name. An input that
/// has a default may be left out.
///
/// # Errors
/// [`Code::InvalidArgument`] with TensorFlow Serving's texts.
pub fn check_input_names<'a>(
    signature: &Signature,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), Error> {
    let n_given = names.clone().count();
    let has_defaults = signature.inputs().iter().any(|input| input.default.is_some());
    if !has_defaults && n_given != signature.inputs().len() {
        return Err(size_mismatch(signature, &names.map(str::to_owned).collect()));
    }
    for name in names.clone() {
        if signature.input_index(name).is_none() {
            let expected = list(signature.inputs().iter().map(|input| &*input.name));
            return Err(Error::invalid(format!(
                "Inputs contains invalid name. Signature input alias: {name} is not in the signature, expected one of {{{expected}}}."
            )));
        }
    }
    let given: BTreeSet<&str> = names.collect();
    for input in signature.inputs() {
        if input.default.is_none() && !given.contains(&*input.name) {
            return Err(Error::invalid(format!(
                "Signature input alias: {} not found in request and no default value provided.",
                input.name
            )));
        }
    }
    Ok(())
}

fn size_mismatch(signature: &Signature, given: &BTreeSet<String>) -> Error {
    let wanted: BTreeSet<String> = signature.inputs().iter().map(|input| input.name.to_string()).collect();
    let extra = list(given.difference(&wanted).map(String::as_str));
    let missing = list(wanted.difference(given).map(String::as_str));
    Error::invalid(format!(
        "input size does not match signature: {}!={} len({{{}}}) != len({{{}}}). Sent extra: {{{extra}}}. Missing but \
         required: {{{missing}}}.",
        given.len(),
        wanted.len(),
        list(given.iter().map(String::as_str)),
        list(wanted.iter().map(String::as_str)),
    ))
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(",")
}

/// Puts named tensors into the signature's order and fills in defaults. Element types and dimensions are checked later, by
/// [`check_inputs`]: TensorFlow Serving looks at the output filter first.
///
/// # Errors
/// As [`check_input_names`].
pub fn bind_inputs<N: AsRef<str>>(
    signature: &Signature,
    named: Vec<(N, Tensor)>,
) -> Result<Vec<Tensor>, Error> {
    check_input_names(signature, named.iter().map(|(name, _)| name.as_ref()))?;
    let mut slots: Vec<Option<Tensor>> =
        signature.inputs().iter().map(|input| input.default.clone()).collect();
    for (name, tensor) in named {
        if let Some(slot) = signature.input_index(name.as_ref()).and_then(|index| slots.get_mut(index)) {
            *slot = Some(tensor);
        }
    }
    Ok(slots.into_iter().flatten().collect())
}

/// Checks inputs that are in the signature's order: their number, element types, and dimensions. A signature that takes
/// any shape is not held to its dimensions; [`check_dims`] tells whether they fit.
///
/// # Errors
/// [`Code::InvalidArgument`]. The text for an element type is TensorFlow's; TensorFlow Serving does not check
/// dimensions itself but lets the model fail.
pub fn check_inputs(signature: &Signature, inputs: &[Tensor]) -> Result<(), Error> {
    if inputs.len() != signature.inputs().len() {
        return Err(Error::invalid(format!(
            "signature '{}' takes {} inputs, got {}",
            signature.name(),
            signature.inputs().len(),
            inputs.len()
        )));
    }
    for (index, (spec, tensor)) in signature.inputs().iter().zip(inputs).enumerate() {
        if spec.dtype != tensor.dtype() {
            return Err(Error::invalid(format!(
                "Expects arg[{index}] to be {} but {} is provided (input '{}')",
                dtype_name(spec.dtype),
                dtype_name(tensor.dtype()),
                spec.name
            )));
        }
    }
    if signature.takes_any_shape() { Ok(()) } else { check_dims(signature, inputs) }
}

/// Checks the dimensions of inputs that are in the signature's order.
///
/// # Errors
/// [`Code::InvalidArgument`].
pub fn check_dims(signature: &Signature, inputs: &[Tensor]) -> Result<(), Error> {
    let misfit =
        signature.inputs().iter().zip(inputs).find(|(spec, input)| !spec.dims.accepts(input.shape()));
    misfit.map_or(Ok(()), |(spec, input)| {
        let (name, got, expected) = (&spec.name, input.shape(), &spec.dims);
        Err(Error::invalid(format!("input '{name}' has shape {got}, expected {expected}")))
    })
}

/// The positions of the outputs named in a filter; all outputs when it is empty.
///
/// # Errors
/// [`Code::InvalidArgument`] with TensorFlow Serving's texts for an unknown or a repeated name.
pub fn select_outputs<N: AsRef<str>>(signature: &Signature, filter: &[N]) -> Result<Vec<usize>, Error> {
    if filter.is_empty() {
        return Ok((0..signature.outputs().len()).collect());
    }
    let mut selected: Vec<usize> = Vec::with_capacity(filter.len().min(signature.outputs().len()));
    for name in filter.iter().map(AsRef::as_ref) {
        let index = signature.output_index(name).ok_or_else(|| {
            let expected = list(signature.outputs().iter().map(|output| &*output.name));
            Error::client(
                Code::InvalidArgument,
                format!(
                    "output tensor alias not found in signature: {name} Outputs expected to be in the set {{{expected}}}."
                ),
            )
        })?;
        if selected.contains(&index) {
            return Err(Error::invalid(format!("duplicate output tensor alias: {name}")));
        }
        selected.push(index);
    }
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use salver_tensor::{Dims, Shape, TensorSpec};

    use super::*;

    fn spec(name: &str, default: Option<f32>) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            tensor_name: name.into(),
            dtype: DType::F32,
            dims: Dims::new(vec![None]),
            default: default.map(|value| vector(&[value])),
        }
    }

    fn vector(elements: &[f32]) -> Tensor {
        Tensor::from_vec(Shape::new(&[elements.len()]).unwrap(), elements.to_vec()).unwrap()
    }

    fn signature(defaults: bool) -> Signature {
        let outputs = vec![spec("sum", None), spec("product", None)];
        let inputs = vec![spec("a", None), spec("b", defaults.then_some(7.0))];
        Signature::new("serving_default", "tensorflow/serving/predict", inputs, outputs)
    }

    #[test]
    fn names_are_checked_in_order() {
        let cases = [
            (
                false,
                vec!["a"],
                "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}.",
            ),
            (false, vec!["a", "c"], "Inputs contains invalid name. "),
            (true, vec!["a"], ""),
            (true, vec!["b"], "Signature input alias: a not found in request and no default value provided."),
            (false, vec!["a", "b"], ""),
        ];
        for (defaults, names, expected) in cases {
            let named = names.iter().map(|name| (*name, vector(&[1.0]))).collect();
            let message =
                bind_inputs(&signature(defaults), named).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(
                message.starts_with(expected) && message.is_empty() == expected.is_empty(),
                "{names:?}: {message}"
            );
        }
    }

    #[test]
    fn defaults_fill_what_is_left_out() {
        let inputs = bind_inputs(&signature(true), vec![("a", vector(&[1.0]))]).unwrap();
        assert_eq!(inputs, [vector(&[1.0]), vector(&[7.0])]);
    }

    #[test]
    fn types_and_shapes_are_checked() {
        let ints = Tensor::from_vec(Shape::new(&[1]).unwrap(), vec![1i32]).unwrap();
        let error = check_inputs(&signature(false), &[vector(&[1.0]), ints]).unwrap_err();
        assert_eq!(error.to_string(), "Expects arg[1] to be float but int32 is provided (input 'b')");
        let matrix = vector(&[1.0]).reshape(Shape::new(&[1, 1]).unwrap()).unwrap();
        let inputs = [matrix, vector(&[1.0])];
        let error = check_inputs(&signature(false), &inputs).unwrap_err();
        assert_eq!(error.to_string(), "input 'a' has shape [1,1], expected [?]");
        let lenient = signature(false).with_any_shape();
        assert_eq!(check_inputs(&lenient, &inputs), Ok(()));
        assert_eq!(check_dims(&lenient, &inputs), Err(error));
    }

    #[test]
    fn outputs_are_selected_by_name() {
        let signature = signature(false);
        assert_eq!(select_outputs::<&str>(&signature, &[]), Ok(vec![0, 1]));
        assert_eq!(select_outputs(&signature, &["sum"]), Ok(vec![1]));
        let unknown = select_outputs(&signature, &["z"]).unwrap_err();
        assert_eq!(
            unknown.message(),
            "output tensor alias not found in signature: z Outputs expected to be in the set {product,sum}."
        );
        let twice = select_outputs(&signature, &["sum", "sum"]).unwrap_err();
        assert_eq!(twice.message(), "duplicate output tensor alias: sum");
    }
}
