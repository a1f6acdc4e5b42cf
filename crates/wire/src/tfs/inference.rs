//! Classify, Regress and MultiInference: which outputs of a signature they take, and what becomes of them.
#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::sync::Arc;

use salver_predict::{Code, Error};
use salver_tensor::{DType, Signature, Tensor};

use crate::proto::tensorflow::DataType;
use crate::proto::tensorflow::serving::{
    Class, ClassificationResult, Classifications, InferenceTask, MultiInferenceRequest, Regression,
    RegressionResult,
};
use crate::tfs::{dtype_number, signature_name};

/// What is made of a model's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Classes with labels and scores.
    Classify,
    /// One value per example.
    Regress,
}

const INPUTS: &str = "inputs";
const OUTPUTS: &str = "outputs";
const CLASSES: &str = "classes";
const SCORES: &str = "scores";

impl Method {
    /// TensorFlow's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Classify => "tensorflow/serving/classify",
            Method::Regress => "tensorflow/serving/regress",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Method::Classify => "classification",
            Method::Regress => "regression",
        }
    }

    /// Refuses a signature whose method name is another, for servers that are told to check.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] with TensorFlow Serving's text.
    pub fn check_name(self, signature: &Signature) -> Result<(), Error> {
        if signature.method_name() == self.name() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "Expected {} signature method_name to be {}. Was: {}",
            self.noun(),
            self.name(),
            signature.method_name()
        )))
    }

    /// The positions of the outputs to ask for, of a signature of the right structure. Its method name is not looked at.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] with TensorFlow Serving's texts.
    pub fn outputs(self, signature: &Signature) -> Result<Vec<usize>, Error> {
        if signature.inputs().len() != 1 {
            return Err(Error::invalid("Expected one input Tensor."));
        }
        let n_outputs = signature.outputs().len();
        match self {
            Method::Classify if !matches!(n_outputs, 1 | 2) => {
                return Err(Error::invalid(format!("Expected one or two output Tensors, found {n_outputs}")));
            }
            Method::Regress if n_outputs != 1 => return Err(Error::invalid("Expected one output Tensor.")),
            _ => {}
        }
        let shown = shown(signature);
        if signature.input_index(INPUTS).is_none() {
            let noun = self.noun();
            return Err(Error::invalid(format!("No {noun} inputs found in SignatureDef: {shown}")));
        }
        let wanted: &[&str] = match self {
            Method::Classify => &[CLASSES, SCORES],
            Method::Regress => &[OUTPUTS],
        };
        let found: Vec<usize> = wanted.iter().filter_map(|name| signature.output_index(name)).collect();
        match (found.is_empty(), self) {
            (false, _) => Ok(found),
            (true, Method::Regress) => {
                Err(Error::invalid(format!("No regression outputs found in SignatureDef: {shown}")))
            }
            (true, Method::Classify) => Err(Error::invalid(format!(
                "Expected classification signature outputs to contain at least one of \"{CLASSES}\" or \"{SCORES}\". \
                 Signature was: {shown}"
            ))),
        }
    }
}

/// A signature in a message: its name, and the names of its inputs and outputs.
fn shown(signature: &Signature) -> String {
    let names = |specs: &[salver_tensor::TensorSpec]| {
        specs.iter().map(|spec| &*spec.name).collect::<Vec<_>>().join(",")
    };
    format!("{} ({}) -> ({})", signature.name(), names(signature.inputs()), names(signature.outputs()))
}

/// The signature that a classify or regress request means; an empty name is the default one.
///
/// # Errors
/// [`Code::InvalidArgument`] with TensorFlow Serving's text, which is not the one of Predict.
pub fn example_signature<'a>(
    signatures: &'a [Arc<Signature>],
    name: &str,
) -> Result<&'a Arc<Signature>, Error> {
    let name = if name.is_empty() { salver_predict::DEFAULT_SIGNATURE } else { name };
    signatures
        .iter()
        .find(|signature| &**signature.name() == name)
        .ok_or_else(|| Error::invalid(format!("No signature was found with the name: {name}")))
}

/// One task of a multi-inference.
#[derive(Debug, Clone)]
pub struct Task {
    /// The signature to run.
    pub signature: Arc<Signature>,
    /// What to make of its outputs.
    pub method: Method,
    /// The positions of the outputs to ask for.
    pub outputs: Vec<usize>,
}

/// The tasks of a multi-inference by the signatures of the version that its first task means.
///
/// # Errors
/// [`Code::InvalidArgument`], and [`Code::Unimplemented`] for a method that is neither of the two, with TensorFlow
/// Serving's texts.
pub fn plan_tasks(
    request: &MultiInferenceRequest,
    signatures: &[Arc<Signature>],
) -> Result<Vec<Task>, Error> {
    let mut model = "";
    let mut seen = BTreeSet::new();
    let mut tasks = Vec::new();
    for InferenceTask { model_spec, method_name } in &request.tasks {
        let name = model_spec.as_ref().map_or("", |spec| &spec.name);
        if name.is_empty() {
            return Err(Error::invalid("Found ModelSpec with an empty model name."));
        }
        if !model.is_empty() && model != name {
            return Err(Error::invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
            ));
        }
        model = name;
        let wanted = signature_name(model_spec.as_ref());
        if !seen.insert(wanted) {
            return Err(Error::invalid(format!("Duplicate evaluation of signature: {wanted}")));
        }
        let signature =
            signatures.iter().find(|signature| &**signature.name() == wanted).ok_or_else(|| {
                Error::invalid(format!("Requested signature not found in model graph: {wanted}"))
            })?;
        let methods = [Method::Classify, Method::Regress];
        let method = methods.into_iter().find(|method| method.name() == method_name).ok_or_else(|| {
            let text = format!("Unsupported signature method_name: {method_name}");
            Error::client(Code::Unimplemented, text)
        })?;
        let outputs = method.outputs(signature)?;
        tasks.push(Task { signature: Arc::clone(signature), method, outputs });
    }
    Ok(tasks)
}

/// TensorFlow's name of an element type, such as `DT_FLOAT`.
fn type_name(dtype: DType) -> &'static str {
    DataType::try_from(dtype_number(dtype)).unwrap_or(DataType::DtInvalid).as_str_name()
}

/// Checks an output of a classification; the number of classes.
fn check_classes(tensor: &Tensor, name: &str, dtype: DType, n_examples: usize) -> Result<usize, Error> {
    let &[n_rows, n_classes] = tensor.shape().dims() else {
        let text = format!("Expected Tensor shape: [batch_size num_classes] but got {}", tensor.shape());
        return Err(Error::invalid(text));
    };
    if tensor.dtype() != dtype {
        let (expected, got) = (type_name(dtype), type_name(tensor.dtype()));
        return Err(Error::invalid(format!("Expected {name} Tensor of {expected}. Got: {got}")));
    }
    if n_rows != n_examples {
        let text = format!("Expected {name} output batch size of {n_examples}. Got: {n_rows}");
        return Err(Error::invalid(text));
    }
    Ok(n_classes)
}

fn output<'a>(outputs: &[(&str, &'a Tensor)], wanted: &str) -> Option<&'a Tensor> {
    outputs.iter().find(|(name, _)| *name == wanted).map(|(_, tensor)| *tensor)
}

/// The classes of each example, from the outputs `classes` and `scores`. A label that is not UTF-8 is mended, a missing
/// one is empty, a missing score is 0.
///
/// # Errors
/// [`Code::InvalidArgument`] with TensorFlow Serving's texts when the outputs are not as they should be.
pub fn classification_result(
    outputs: &[(&str, &Tensor)],
    n_examples: usize,
) -> Result<ClassificationResult, Error> {
    let (classes, scores) = (output(outputs, CLASSES), output(outputs, SCORES));
    let of_classes =
        classes.map(|tensor| check_classes(tensor, CLASSES, DType::String, n_examples)).transpose()?;
    let of_scores = scores.map(|tensor| check_classes(tensor, SCORES, DType::F32, n_examples)).transpose()?;
    if let (Some(classes), Some(scores)) = (of_classes, of_scores)
        && classes != scores
    {
        return Err(Error::invalid(format!(
            "Tensors class and score should match in dim_size(1). Got {classes} vs. {scores}"
        )));
    }
    let n_classes = of_classes.or(of_scores).unwrap_or(0);
    let labels = classes.and_then(Tensor::strings);
    let scores = scores.and_then(Tensor::to_slice::<f32>);
    let label = |at: usize| {
        let bytes = labels.and_then(|labels| labels.get(at));
        bytes.map_or_else(String::new, |bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    let score = |at: usize| scores.as_ref().and_then(|scores| scores.get(at)).copied().unwrap_or(0.0);
    let row = |row: usize| {
        let start = row.saturating_mul(n_classes);
        let at = start..start.saturating_add(n_classes);
        Classifications { classes: at.map(|at| Class { label: label(at), score: score(at) }).collect() }
    };
    Ok(ClassificationResult { classifications: (0..n_examples).map(row).collect() })
}

/// The value of each example, from the output `outputs`.
///
/// # Errors
/// [`Code::InvalidArgument`] with TensorFlow Serving's texts when the output is not as it should be.
pub fn regression_result(outputs: &[(&str, &Tensor)], n_examples: usize) -> Result<RegressionResult, Error> {
    let tensor = output(outputs, OUTPUTS)
        .ok_or_else(|| Error::invalid(format!("Could not find output tensor '{OUTPUTS}'")))?;
    let n_rows = match *tensor.shape().dims() {
        [n_rows] | [n_rows, 1] => n_rows,
        _ => {
            return Err(Error::invalid(format!(
                "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {}",
                tensor.shape()
            )));
        }
    };
    if n_rows != n_examples {
        return Err(Error::invalid(format!(
            "Input batch size did not match output batch size: {n_examples} vs. {n_rows}"
        )));
    }
    let values = tensor.to_slice::<f32>().ok_or_else(|| {
        let got = type_name(tensor.dtype());
        Error::invalid(format!("Expected output Tensor of DT_FLOAT.  Got: {got}"))
    })?;
    Ok(RegressionResult { regressions: values.iter().map(|&value| Regression { value }).collect() })
}

#[cfg(test)]
mod tests;
