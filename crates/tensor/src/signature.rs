//! What tensors go into a computation and what comes out.

use std::fmt;
use std::sync::Arc;

use crate::{DType, Shape, Tensor};

/// The name of the signature that is meant where none is named.
pub const DEFAULT_SIGNATURE: &str = "serving_default";

/// The dimensions that a tensor may have: each fixed or open, or even their number unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dims(Option<Vec<Option<usize>>>);

impl Dims {
    /// Any shape at all.
    pub fn unknown() -> Dims {
        Dims(None)
    }

    /// A known number of dimensions; `None` stands for any size.
    pub fn new(dims: Vec<Option<usize>>) -> Dims {
        Dims(Some(dims))
    }

    /// The dimensions, or `None` when even their number is unknown.
    pub fn known(&self) -> Option<&[Option<usize>]> {
        self.0.as_deref()
    }

    /// Whether a tensor of this shape fits.
    pub fn accepts(&self, shape: &Shape) -> bool {
        self.known().is_none_or(|dims| {
            dims.len() == shape.rank()
                && dims.iter().zip(shape.dims()).all(|(want, got)| want.is_none_or(|want| want == *got))
        })
    }

    /// Whether the outermost dimension exists and is open, so that rows of several requests could be joined.
    pub fn has_open_rows(&self) -> bool {
        matches!(self.known(), Some([None, ..]))
    }
}

/// `[?,64]`; `<unknown>` when the number of dimensions is not known.
impl fmt::Display for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(dims) = self.known() else { return f.write_str("<unknown>") };
        f.write_str("[")?;
        for (i, dim) in dims.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match dim {
                Some(size) => write!(f, "{size}")?,
                None => f.write_str("?")?,
            }
        }
        f.write_str("]")
    }
}

/// One input or output of a [`Signature`].
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    /// The name that clients use.
    pub name: Arc<str>,
    /// The name of the tensor inside the model, for metadata only.
    pub tensor_name: Arc<str>,
    /// The element type.
    pub dtype: DType,
    /// The dimensions.
    pub dims: Dims,
    /// The value taken when a request leaves this input out; always `None` for outputs.
    pub default: Option<Tensor>,
}

/// A named computation: tensors in, tensors out. Inputs and outputs are sorted by name, and everything that passes
/// tensors of a signature by position uses that order.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    name: Arc<str>,
    method_name: Arc<str>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    declared: Option<Box<Declared>>,
    takes_any_shape: bool,
    keeps_state: bool,
}

/// What a model says of its inputs and outputs where that is not what it computes with.
#[derive(Debug, Clone, PartialEq)]
struct Declared {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Signature {
    /// Sorts inputs and outputs by name. `method_name` is TensorFlow's, such as `tensorflow/serving/predict`.
    pub fn new(
        name: impl Into<Arc<str>>,
        method_name: impl Into<Arc<str>>,
        inputs: Vec<TensorSpec>,
        outputs: Vec<TensorSpec>,
    ) -> Signature {
        let (inputs, outputs) = (sorted(inputs), sorted(outputs));
        let (name, method_name) = (name.into(), method_name.into());
        let (declared, takes_any_shape, keeps_state) = (None, false, false);
        Signature { name, method_name, inputs, outputs, declared, takes_any_shape, keeps_state }
    }

    /// The same for a model that changes something that later runs see: a run is for one request, and only where one asks
    /// for it.
    #[must_use]
    pub fn with_state(self) -> Signature {
        Signature { keeps_state: true, ..self }
    }

    /// Whether a run changes what later runs give, so that requests must not be joined and no run may be made on trial.
    pub fn keeps_state(&self) -> bool {
        self.keeps_state
    }

    /// The same for a model that computes with inputs of other dimensions than its signature has, or fails: TensorFlow
    /// holds no model to its shapes, and there are clients that count on it.
    #[must_use]
    pub fn with_any_shape(self) -> Signature {
        Signature { takes_any_shape: true, ..self }
    }

    /// Whether inputs whose dimensions do not fit may be tried all the same.
    pub fn takes_any_shape(&self) -> bool {
        self.takes_any_shape
    }

    /// The same for a model that declares other element types or dimensions than it computes with, as TensorFlow lets
    /// it. What it declares is shown to people and checks nothing.
    #[must_use]
    pub fn with_declared(self, inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Signature {
        let declared = Declared { inputs: sorted(inputs), outputs: sorted(outputs) };
        let differs = declared.inputs != self.inputs || declared.outputs != self.outputs;
        Signature { declared: differs.then(|| Box::new(declared)), ..self }
    }

    /// The name, such as `serving_default`.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// TensorFlow's method name.
    pub fn method_name(&self) -> &str {
        &self.method_name
    }

    /// The inputs, sorted by name.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// The outputs, sorted by name.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// The inputs as the model declares them, for metadata.
    pub fn declared_inputs(&self) -> &[TensorSpec] {
        self.declared.as_ref().map_or(&self.inputs, |declared| &declared.inputs)
    }

    /// The outputs as the model declares them, for metadata.
    pub fn declared_outputs(&self) -> &[TensorSpec] {
        self.declared.as_ref().map_or(&self.outputs, |declared| &declared.outputs)
    }

    /// The position of an input among the inputs.
    pub fn input_index(&self, name: &str) -> Option<usize> {
        self.inputs.binary_search_by(|spec| (*spec.name).cmp(name)).ok()
    }

    /// The position of an output among the outputs.
    pub fn output_index(&self, name: &str) -> Option<usize> {
        self.outputs.binary_search_by(|spec| (*spec.name).cmp(name)).ok()
    }
}

fn sorted(mut specs: Vec<TensorSpec>) -> Vec<TensorSpec> {
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    specs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            tensor_name: format!("{name}:0").into(),
            dtype: DType::F32,
            dims: Dims::new(vec![None, Some(2)]),
            default: None,
        }
    }

    #[test]
    fn names_are_found_in_sorted_order() {
        let signature = Signature::new("s", "m", vec![spec("b"), spec("a")], vec![spec("y")]);
        assert_eq!(signature.input_index("a"), Some(0));
        assert_eq!(signature.input_index("b"), Some(1));
        assert_eq!(signature.input_index("c"), None);
        assert_eq!(signature.output_index("y"), Some(0));
    }

    #[test]
    fn what_is_declared_is_kept_beside_what_is_taken() {
        let signature = Signature::new("s", "m", vec![spec("x")], vec![spec("y")]);
        assert_eq!(signature.clone().with_declared(vec![spec("x")], vec![spec("y")]), signature);
        let text = TensorSpec { dtype: DType::String, ..spec("x") };
        let other = Signature::new("s", "m", vec![text], vec![spec("y")]);
        let other = other.with_declared(vec![spec("x")], vec![spec("y")]);
        assert_eq!((other.inputs()[0].dtype, other.declared_inputs()[0].dtype), (DType::String, DType::F32));
        assert_eq!(other.declared_outputs(), other.outputs());
    }

    #[test]
    fn dims_accept_what_they_describe() {
        let dims = spec("x").dims;
        assert_eq!(dims.to_string(), "[?,2]");
        for (shape, fits) in
            [(&[3, 2][..], true), (&[0, 2], true), (&[3, 3], false), (&[2], false), (&[], false)]
        {
            assert_eq!(dims.accepts(&Shape::new(shape).unwrap()), fits, "{shape:?}");
            assert!(Dims::unknown().accepts(&Shape::new(shape).unwrap()));
        }
    }
}
