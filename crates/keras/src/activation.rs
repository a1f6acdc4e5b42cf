//! Activation functions, by name or as an object.

use salver_graph::{Error, ValueId};
use serde_json::Value as Json;

use crate::architecture::{Keras, Layer, layer_from};
use crate::attrs;
use crate::emit::Emit;
use crate::layers;
use crate::network::Inputs;
use crate::weights::Weights;

/// An activation function.
#[derive(Debug)]
pub(crate) enum Activation {
    Named(String),
    /// A layer without weights used as a function.
    Layer(Box<Layer>),
}

impl Activation {
    /// Reads an activation of a configuration: nothing, a name, or an object.
    pub(crate) fn read(keras: Keras, value: Option<&Json>) -> Result<Activation, Error> {
        let Some(value) = value else { return Ok(Activation::Named("linear".into())) };
        if let Some(name) = value.as_str() {
            return Ok(Activation::Named(name.to_owned()));
        }
        let class = value.get("class_name").and_then(Json::as_str).unwrap_or_default();
        // A function: its name is its configuration.
        if let Some(name) = value.get("config").and_then(Json::as_str) {
            return Ok(Activation::Named(name.to_owned()));
        }
        if class.is_empty() {
            return Err(Error::invalid(format!("activation {value}, expected a name")));
        }
        if class == "Activation" {
            return Activation::read(keras, value.get("config").and_then(|config| config.get("activation")));
        }
        layer_from(keras, value).map(|layer| Activation::Layer(Box::new(layer)))
    }

    /// Whether each element is computed from itself alone.
    pub(crate) fn is_elementwise(&self) -> bool {
        match self {
            Activation::Named(name) => {
                !matches!(name.as_str(), "softmax" | "log_softmax" | "glu" | "sparsemax")
            }
            Activation::Layer(layer) => {
                matches!(layer.class.as_str(), "LeakyReLU" | "ReLU" | "ELU" | "ThresholdedReLU")
            }
        }
    }

    pub(crate) fn is_linear(&self) -> bool {
        matches!(self, Activation::Named(name) if name == "linear")
    }

    /// Applies the function to a float tensor.
    pub(crate) fn apply(&self, cx: &mut Emit, x: ValueId) -> Result<ValueId, Error> {
        match self {
            Activation::Named(name) => named(cx, name, x),
            Activation::Layer(layer) => {
                let outputs = layers::call(cx, layer, &Weights::default(), &Inputs::of(&[x.into()]))?;
                let only = outputs.first().map(|value| value.id);
                only.ok_or_else(|| Error::invalid("an activation without result"))
            }
        }
    }

    /// The function as ONNX's recurrent operators know it: name, alpha, beta. `None` when they do not have it.
    pub(crate) fn recurrent(&self, keras: Keras) -> Option<(&'static str, f32, f32)> {
        let Activation::Named(name) = self else { return None };
        Some(match name.as_str() {
            "linear" => ("Affine", 1.0, 0.0),
            "tanh" => ("Tanh", 0.0, 0.0),
            "sigmoid" => ("Sigmoid", 0.0, 0.0),
            "relu" => ("Relu", 0.0, 0.0),
            "hard_sigmoid" if keras == Keras::Three => ("HardSigmoid", 1.0 / 6.0, 0.5),
            "hard_sigmoid" => ("HardSigmoid", 0.2, 0.5),
            "elu" => ("Elu", 1.0, 0.0),
            "leaky_relu" => ("LeakyRelu", 0.2, 0.0),
            "softsign" => ("Softsign", 0.0, 0.0),
            "softplus" => ("Softplus", 0.0, 0.0),
            _ => return None,
        })
    }
}

/// Applies a function of Keras by its name.
pub(crate) fn named(cx: &mut Emit, name: &str, x: ValueId) -> Result<ValueId, Error> {
    let simple = match name {
        "relu" => "Relu",
        "sigmoid" => "Sigmoid",
        "tanh" => "Tanh",
        "softplus" => "Softplus",
        "softsign" => "Softsign",
        "exponential" => "Exp",
        "mish" => "Mish",
        _ => "",
    };
    if !simple.is_empty() {
        return cx.op(simple, &[x]);
    }
    match name {
        "linear" => Ok(x),
        "relu6" => clip(cx, x, 0.0, 6.0),
        "elu" => elu(cx, x, 1.0),
        "selu" => cx.op_with("Selu", &[x], attrs!("alpha": 1.673_263_2_f32, "gamma": 1.050_701_f32)),
        "celu" => celu(cx, x, 1.0),
        "silu" | "swish" => {
            let gate = cx.op("Sigmoid", &[x])?;
            cx.mul(x, gate)
        }
        "gelu" => gelu(cx, x, false),
        "leaky_relu" => leaky_relu(cx, x, 0.2),
        "hard_sigmoid" => hard_sigmoid(cx, x),
        "hard_silu" | "hard_swish" => {
            let gate = hard_sigmoid_three(cx, x)?;
            cx.mul(x, gate)
        }
        "hard_tanh" => clip(cx, x, -1.0, 1.0),
        "softmax" => {
            let rank = cx.rank(x)?;
            if rank < 2 {
                return Err(Error::invalid("softmax of a vector"));
            }
            cx.softmax(x, -1)
        }
        "log_softmax" => cx.op_with("LogSoftmax", &[x], attrs!("axis": -1)),
        "log_sigmoid" => {
            let minus = cx.op("Neg", &[x])?;
            let soft = cx.op("Softplus", &[minus])?;
            cx.op("Neg", &[soft])
        }
        "squareplus" => {
            let square = cx.mul(x, x)?;
            let square = cx.with("Add", square, 4.0)?;
            let root = cx.op("Sqrt", &[square])?;
            let sum = cx.add(x, root)?;
            cx.with("Div", sum, 2.0)
        }
        "soft_shrink" => shrink(cx, x, 0.5, 0.5),
        "hard_shrink" => shrink(cx, x, 0.5, 0.0),
        "tanh_shrink" => {
            let tanh = cx.op("Tanh", &[x])?;
            cx.sub(x, tanh)
        }
        "sparse_plus" => sparse_plus(cx, x),
        "sparse_sigmoid" => {
            let half = cx.with("Add", x, 1.0)?;
            let half = cx.with("Mul", half, 0.5)?;
            clip(cx, half, 0.0, 1.0)
        }
        "threshold" => threshold(cx, x, 0.0, 0.0),
        "glu" => glu(cx, x, -1),
        "sparsemax" => sparsemax(cx, x),
        other => Err(Error::unsupported(format!(
            "activation '{other}': it is not one of Keras' own; export the model as a SavedModel (model.export)"
        ))),
    }
}

pub(crate) fn clip(cx: &mut Emit, x: ValueId, low: f64, high: f64) -> Result<ValueId, Error> {
    let (low, high) = (cx.scalar(low, x)?, cx.scalar(high, x)?);
    cx.op("Clip", &[x, low, high])
}

pub(crate) fn leaky_relu(cx: &mut Emit, x: ValueId, slope: f64) -> Result<ValueId, Error> {
    cx.op_with("LeakyRelu", &[x], attrs!("alpha": slope as f32))
}

pub(crate) fn elu(cx: &mut Emit, x: ValueId, alpha: f64) -> Result<ValueId, Error> {
    cx.op_with("Elu", &[x], attrs!("alpha": alpha as f32))
}

pub(crate) fn celu(cx: &mut Emit, x: ValueId, alpha: f64) -> Result<ValueId, Error> {
    cx.op_with("Celu", &[x], attrs!("alpha": alpha as f32))
}

/// Exact, by the error function, or by the approximation with tanh.
pub(crate) fn gelu(cx: &mut Emit, x: ValueId, approximate: bool) -> Result<ValueId, Error> {
    let inner = if approximate {
        let square = cx.mul(x, x)?;
        let cube = cx.mul(square, x)?;
        let small = cx.with("Mul", cube, 0.044_715)?;
        let sum = cx.add(x, small)?;
        let scaled = cx.with("Mul", sum, (2.0 / std::f64::consts::PI).sqrt())?;
        cx.op("Tanh", &[scaled])?
    } else {
        let scaled = cx.with("Mul", x, std::f64::consts::FRAC_1_SQRT_2)?;
        cx.op("Erf", &[scaled])?
    };
    let weight = cx.with("Add", inner, 1.0)?;
    let product = cx.mul(x, weight)?;
    cx.with("Mul", product, 0.5)
}

/// Keras 3 means `relu6(x + 3) / 6`, the versions before it `clip(0.2 x + 0.5, 0, 1)`.
pub(crate) fn hard_sigmoid(cx: &mut Emit, x: ValueId) -> Result<ValueId, Error> {
    if cx.keras == Keras::Three {
        return hard_sigmoid_three(cx, x);
    }
    cx.op_with("HardSigmoid", &[x], attrs!("alpha": 0.2_f32, "beta": 0.5_f32))
}

pub(crate) fn hard_sigmoid_three(cx: &mut Emit, x: ValueId) -> Result<ValueId, Error> {
    cx.op_with("HardSigmoid", &[x], attrs!("alpha": 1.0_f32 / 6.0, "beta": 0.5_f32))
}

/// 0 between `-limit` and `limit`, outside of it `x` moved towards 0 by `shift`.
pub(crate) fn shrink(cx: &mut Emit, x: ValueId, limit: f64, shift: f64) -> Result<ValueId, Error> {
    cx.op_with("Shrink", &[x], attrs!("lambd": limit as f32, "bias": shift as f32))
}

pub(crate) fn threshold(cx: &mut Emit, x: ValueId, limit: f64, value: f64) -> Result<ValueId, Error> {
    let (limit, value) = (cx.scalar(limit, x)?, cx.scalar(value, x)?);
    let above = cx.op("Greater", &[x, limit])?;
    cx.select(above, x, value)
}

fn sparse_plus(cx: &mut Emit, x: ValueId) -> Result<ValueId, Error> {
    let shifted = cx.with("Add", x, 1.0)?;
    let square = cx.mul(shifted, shifted)?;
    let quarter = cx.with("Mul", square, 0.25)?;
    let (one, minus_one, zero) = (cx.scalar(1.0, x)?, cx.scalar(-1.0, x)?, cx.scalar(0.0, x)?);
    let inside = cx.op("Less", &[x, one])?;
    let upper = cx.select(inside, quarter, x)?;
    let below = cx.op("LessOrEqual", &[x, minus_one])?;
    cx.select(below, zero, upper)
}

pub(crate) fn glu(cx: &mut Emit, x: ValueId, axis: i64) -> Result<ValueId, Error> {
    let at = cx.axis(x, axis)?;
    let size = cx.dim(x, at)?;
    if size % 2 != 0 {
        return Err(Error::invalid(format!("glu of a dimension of {size}, expected an even number")));
    }
    let parts = cx.split(x, at as i64, 2)?;
    let gate = cx.op("Sigmoid", &[parts[1]])?;
    cx.mul(parts[0], gate)
}

/// Sparsemax along the last dimension as Keras 3 computes it: it adds up the running sums of what is kept, where the
/// paper (Martins and Astudillo, 2016, algorithm 1) takes the last of them.
fn sparsemax(cx: &mut Emit, x: ValueId) -> Result<ValueId, Error> {
    let n = cx.last_dim(x)?;
    let count = cx.ints(&[n as i64]);
    let attrs = attrs!("axis": -1, "largest": 1, "sorted": 1);
    let sorted = cx.ops("TopK", &[Some(x), Some(count)], attrs, 2)?[0];
    let axis = cx.int(-1);
    let sums = cx.op("CumSum", &[sorted, axis])?;
    let ranks = cx.floats("ranks", &[n], (1..=n).map(|rank| rank as f64).collect(), cx.dtype(x))?;
    let share = cx.with("Sub", sums, 1.0)?;
    let share = cx.div(share, ranks)?;
    let above = cx.sub(sorted, share)?;
    let zero = cx.scalar(0.0, x)?;
    let supports = cx.op("Greater", &[above, zero])?;
    let kept = cx.keep_where(supports, sums)?;
    let sum = cx.reduce("ReduceSum", kept, &[-1], true)?;
    let ones = cx.cast(supports, cx.dtype(x))?;
    let size = cx.reduce("ReduceSum", ones, &[-1], true)?;
    let sum = cx.with("Sub", sum, 1.0)?;
    let threshold = cx.div(sum, size)?;
    let moved = cx.sub(x, threshold)?;
    cx.op("Relu", &[moved])
}
