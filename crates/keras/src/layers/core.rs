//! Dense, Embedding, Masking, EinsumDense and activations as layers.

use salver_graph::{Error, ValueId};
use salver_tensor::DType;

use crate::activation::{self, Activation};
use crate::architecture::{Keras, Layer};
use crate::attrs;
use crate::emit::{Emit, front_axis};
use crate::network::{Inputs, Value};
use crate::weights::Weights;

/// Adds the bias along the last dimension and applies the layer's activation.
pub(super) fn finish(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    x: ValueId,
    n_units: usize,
) -> Result<ValueId, Error> {
    let mut x = x;
    if layer.config.flag("use_bias", true)? {
        let bias = cx.weight(weights.get("bias")?, "bias", &[n_units], cx.dtype(x))?;
        x = cx.add(x, bias)?;
    }
    Activation::read(cx.keras, layer.config.json("activation"))?.apply(cx, x)
}

pub(super) fn dense(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<ValueId, Error> {
    let x = cx.float(inputs.one()?.id, layer.policy.compute)?;
    let n_units = layer.config.size("units")?;
    let n_inputs = cx.last_dim(x)?;
    let kernel = cx.weight(weights.get("kernel")?, "kernel", &[n_inputs, n_units], layer.policy.compute)?;
    let product = cx.op("MatMul", &[x, kernel])?;
    finish(cx, layer, weights, product, n_units)
}

pub(super) fn embedding(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<Vec<Value>, Error> {
    let x = inputs.one()?.id;
    let dims = [layer.config.size("input_dim")?, layer.config.size("output_dim")?];
    let table = cx.weight(weights.get("embeddings")?, "embeddings", &dims, layer.policy.compute)?;
    // Indices that are no integers are cut to int32, as Keras does.
    let indices = match cx.dtype(x) {
        DType::I32 | DType::I64 => x,
        DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::I8 | DType::I16 => {
            cx.cast(x, DType::I64)?
        }
        DType::String => return Err(Error::invalid("the input is text, expected indices")),
        _ => cx.cast(x, DType::I32)?,
    };
    let found = cx.op_with("Gather", &[table, indices], attrs!("axis": 0))?;
    let mask = if layer.config.flag("mask_zero", false)? {
        let zero = cx.scalar(0.0, indices)?;
        let is_zero = cx.op("Equal", &[indices, zero])?;
        Some(cx.op("Not", &[is_zero])?)
    } else {
        None
    };
    Ok(vec![Value { id: found, mask }])
}

/// An embedding that also goes back, from vectors to a score for each index.
pub(super) fn reversible_embedding(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<Vec<Value>, Error> {
    let c = &layer.config;
    if !inputs.flag("reverse") {
        return embedding(cx, layer, weights, inputs);
    }
    let dims = [c.size("input_dim")?, c.size("output_dim")?];
    let kernel = if c.flag("tie_weights", true)? {
        let table = cx.weight(weights.get("embeddings")?, "embeddings", &dims, layer.policy.compute)?;
        cx.transpose(table, &[1, 0])?
    } else {
        let variable = weights.get("reverse_embeddings")?;
        cx.weight(variable, "reverse_embeddings", &[dims[1], dims[0]], layer.policy.compute)?
    };
    let x = cx.float(inputs.one()?.id, layer.policy.compute)?;
    let mut scores = cx.op("MatMul", &[x, kernel])?;
    if let Some(cap) = c.opt_float("logit_soft_cap")? {
        let small = cx.with("Div", scores, cap)?;
        let tanh = cx.op("Tanh", &[small])?;
        scores = cx.with("Mul", tanh, cap)?;
    }
    Ok(vec![Value::from(scores)])
}

/// Layers of ConvNeXt (times a variable) and of Inception-ResNet (plus another tensor times a number).
pub(super) fn scaled(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<ValueId, Error> {
    if layer.class == "LayerScale" {
        let x = cx.float(inputs.one()?.id, layer.policy.compute)?;
        let n = cx.last_dim(x)?;
        let gamma = cx.weight(weights.get("gamma")?, "gamma", &[n], layer.policy.compute)?;
        return cx.mul(x, gamma);
    }
    let values = inputs.values();
    let [x, y] = values[..] else {
        return Err(Error::invalid(format!("called with {} tensors, expected 2", values.len())));
    };
    let scaled = cx.with("Mul", y.id, layer.config.float_or("scale", 1.0)?)?;
    cx.add(x.id, scaled)
}

/// Whether any element along the last dimension is another than the mask value.
pub(super) fn masking(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<Vec<Value>, Error> {
    let x = inputs.one()?.id;
    let value = cx.scalar(layer.config.float_or("mask_value", 0.0)?, x)?;
    let same = cx.op("Equal", &[x, value])?;
    let other = cx.op("Not", &[same])?;
    let counts = cx.cast(other, DType::F32)?;
    let any = cx.reduce("ReduceMax", counts, &[-1], true)?;
    let any = cx.cast(any, DType::Bool)?;
    let kept = cx.keep_where(any, x)?;
    let mask = cx.squeeze(any, &[-1])?;
    Ok(vec![Value { id: kept, mask: Some(mask) }])
}

pub(super) fn activation(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<ValueId, Error> {
    let function = Activation::read(cx.keras, layer.config.json("activation"))?;
    let x = inputs.one()?.id;
    let x = if function.is_linear() { x } else { cx.float(x, layer.policy.compute)? };
    function.apply(cx, x)
}

pub(super) fn advanced_activation(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<ValueId, Error> {
    let c = &layer.config;
    let x = cx.float(inputs.one()?.id, layer.policy.compute)?;
    match layer.class.as_str() {
        "LeakyReLU" => activation::leaky_relu(cx, x, c.float_or("negative_slope", 0.3)?),
        "ELU" => activation::elu(cx, x, c.float_or("alpha", 1.0)?),
        "ThresholdedReLU" => {
            let theta = c.float_or("theta", 1.0)?;
            activation::threshold(cx, x, theta, 0.0)
        }
        "ReLU" => {
            let slope = c.float_or("negative_slope", 0.0)?;
            relu(cx, x, slope, c.opt_float("max_value")?, c.float_or("threshold", 0.0)?)
        }
        "PReLU" => prelu(cx, layer, weights, x),
        _ => softmax(cx, layer, x, softmax_mask(inputs)),
    }
}

/// ReLU with all its options: below the threshold a line of the given slope through it, above it `x` up to a limit.
pub(super) fn relu(
    cx: &mut Emit,
    x: ValueId,
    slope: f64,
    limit: Option<f64>,
    threshold: f64,
) -> Result<ValueId, Error> {
    if threshold == 0.0 {
        let above = if slope == 0.0 { cx.op("Relu", &[x])? } else { activation::leaky_relu(cx, x, slope)? };
        let Some(limit) = limit else { return Ok(above) };
        let limit = cx.scalar(limit, x)?;
        return cx.op("Min", &[above, limit]);
    }
    let limit_id = match limit {
        Some(limit) => {
            let limit = cx.scalar(limit, x)?;
            cx.op("Min", &[x, limit])?
        }
        None => x,
    };
    let threshold_id = cx.scalar(threshold, x)?;
    let is_above = cx.op("Greater", &[x, threshold_id])?;
    let below = cx.sub(x, threshold_id)?;
    let below = cx.with("Mul", below, slope)?;
    cx.select(is_above, limit_id, below)
}

fn prelu(cx: &mut Emit, layer: &Layer, weights: &Weights, x: ValueId) -> Result<ValueId, Error> {
    let dims = cx.dims(x)?;
    let shared: Vec<usize> = match layer.config.opt_ints("shared_axes")? {
        Some(axes) => axes.into_iter().map(|axis| front_axis(axis, dims.len())).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    let mut expected = Vec::new();
    for axis in 1..dims.len() {
        expected.push(if shared.contains(&axis) { 1 } else { cx.dim(x, axis)? });
    }
    let alpha = cx.weight(weights.get("alpha")?, "alpha", &expected, layer.policy.compute)?;
    cx.op("PRelu", &[x, alpha])
}

/// Softmax takes its mask as the second argument or by name; it also takes the one that its input carries.
fn softmax_mask(inputs: &Inputs) -> Option<ValueId> {
    let given = inputs.arg(1, "mask").and_then(|given| given.tensor()).map(|value| value.id);
    given.or_else(|| inputs.mask())
}

fn softmax(cx: &mut Emit, layer: &Layer, x: ValueId, mask: Option<ValueId>) -> Result<ValueId, Error> {
    let axes = layer.config.opt_ints("axis")?.unwrap_or_else(|| vec![-1]);
    masked_softmax(cx, x, mask, &axes)
}

/// The most negative number that Keras adds where a mask is false.
pub(super) fn large_negative(dtype: DType) -> f64 {
    if dtype == DType::F16 { -3e4 } else { -1e9 }
}

pub(super) fn masked_softmax(
    cx: &mut Emit,
    x: ValueId,
    mask: Option<ValueId>,
    axes: &[i64],
) -> Result<ValueId, Error> {
    let mut x = x;
    let mut keep = None;
    if let Some(mask) = mask {
        let mask = cx.cast(mask, DType::Bool)?;
        if cx.keras == Keras::Three {
            let hidden = cx.scalar(large_negative(cx.dtype(x)), x)?;
            x = cx.select(mask, x, hidden)?;
            // What is masked becomes exactly 0, also where everything is.
            keep = Some(mask);
        } else {
            let weight = cx.cast(mask, cx.dtype(x))?;
            let one = cx.scalar(1.0, x)?;
            let hidden = cx.sub(one, weight)?;
            let penalty = cx.with("Mul", hidden, large_negative(cx.dtype(x)))?;
            x = cx.add(x, penalty)?;
        }
    }
    let result = match axes {
        [axis] => cx.softmax(x, *axis)?,
        axes => {
            let highest = cx.reduce("ReduceMax", x, axes, true)?;
            let x = cx.sub(x, highest)?;
            let e = cx.op("Exp", &[x])?;
            let sum = cx.reduce("ReduceSum", e, axes, true)?;
            cx.div(e, sum)?
        }
    };
    match keep {
        Some(mask) => cx.keep_where(mask, result),
        None => Ok(result),
    }
}

/// An einsum of the input with a kernel.
pub(super) fn einsum_dense(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<ValueId, Error> {
    let equation = layer.config.opt_text("equation")?.ok_or_else(|| crate::config::missing("equation"))?;
    let x = cx.float(inputs.one()?.id, layer.policy.compute)?;
    let rank = cx.rank(x)?;
    let equation = without_ellipsis(equation, rank)?;
    let bias_axes = layer.config.opt_text("bias_axes")?.map(str::to_owned);
    let y = project(cx, weights, x, &equation, layer.policy.compute)?;
    let y = match bias_axes {
        Some(axes) => einsum_bias(cx, weights, y, &equation, &axes)?,
        None => y,
    };
    Activation::read(cx.keras, layer.config.json("activation"))?.apply(cx, y)
}

/// `equation` with letters in the place of `...`.
fn without_ellipsis(equation: &str, rank: usize) -> Result<String, Error> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    if !equation.contains("...") {
        return Ok(equation);
    }
    let first = equation.split(',').next().unwrap_or_default();
    let n_letters = first.chars().filter(|c| c.is_alphabetic()).count();
    let n = rank
        .checked_sub(n_letters)
        .ok_or_else(|| Error::invalid(format!("equation '{equation}' for an input of {rank} dimensions")))?;
    let free: Vec<char> = ('A'..='Z').chain('a'..='z').filter(|c| !equation.contains(*c)).take(n).collect();
    if free.len() < n {
        return Err(Error::too_large(format!("equation '{equation}' for an input of {rank} dimensions")));
    }
    Ok(equation.replace("...", &free.into_iter().collect::<String>()))
}

/// The einsum of `x` with the variable `kernel`, whose dimensions must fit what is known of those of `x`.
pub(super) fn project(
    cx: &mut Emit,
    weights: &Weights,
    x: ValueId,
    equation: &str,
    dtype: DType,
) -> Result<ValueId, Error> {
    let variable = weights.get("kernel")?;
    let bad = || Error::invalid(format!("equation '{equation}'"));
    let (left, _) = equation.split_once("->").ok_or_else(bad)?;
    let (first, second) = left.split_once(',').ok_or_else(bad)?;
    let dims = cx.dims(x)?;
    let kernel_dims = variable.tensor.shape().dims().to_vec();
    if first.chars().count() != dims.len() || second.chars().count() != kernel_dims.len() {
        return Err(Error::invalid(format!(
            "equation '{equation}' for an input of {} and a kernel of {} dimensions",
            dims.len(),
            kernel_dims.len()
        )));
    }
    for (letter, &size) in second.chars().zip(&kernel_dims) {
        let same = first.chars().position(|other| other == letter).and_then(|at| dims[at]);
        if same.is_some_and(|known| known != size) {
            return Err(Error::invalid(format!(
                "the kernel has the shape {}, which does not fit the input",
                variable.tensor.shape()
            )));
        }
    }
    let kernel = cx.variable(variable, "kernel");
    let kernel = cx.cast(kernel, dtype)?;
    einsum(cx, equation, x, kernel)
}

/// Adds the variable `bias`, whose dimensions go by `axes`, letters of the result.
pub(super) fn einsum_bias(
    cx: &mut Emit,
    weights: &Weights,
    y: ValueId,
    equation: &str,
    axes: &str,
) -> Result<ValueId, Error> {
    let output = equation.split_once("->").map(|(_, output)| output).unwrap_or_default();
    let mut shape = Vec::new();
    let first = output.chars().position(|letter| axes.contains(letter)).unwrap_or(0);
    let variable = weights.get("bias")?;
    let stored = variable.tensor.shape().dims().to_vec();
    let dims = cx.dims(y)?;
    let mut sizes = stored.iter().copied().filter(|&size| size != 1 || stored.len() == axes.len());
    for (at, letter) in output.chars().enumerate().skip(first) {
        if axes.contains(letter) {
            let size = sizes.next().unwrap_or(0);
            if dims.get(at).copied().flatten().is_some_and(|known| known != size) {
                return Err(Error::invalid(format!(
                    "the bias has the shape {}, which does not fit the result",
                    variable.tensor.shape()
                )));
            }
            shape.push(size as i64);
        } else {
            shape.push(1);
        }
    }
    let bias = cx.variable(variable, "bias");
    let bias = cx.cast(bias, cx.dtype(y))?;
    let bias = cx.reshape(bias, &shape)?;
    cx.add(y, bias)
}

/// Einsum of two tensors; as a matrix product where it is one.
pub(super) fn einsum(cx: &mut Emit, equation: &str, a: ValueId, b: ValueId) -> Result<ValueId, Error> {
    cx.op_with("Einsum", &[a, b], attrs!("equation": equation))
}
