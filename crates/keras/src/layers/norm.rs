//! Normalisation.

use salver_graph::{Error, ValueId};
use salver_tensor::{DType, Tensor};

use crate::architecture::Layer;
use crate::emit::{Emit, front_axis};
use crate::network::Inputs;
use crate::weights::{Variable, Weights};

fn input(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<ValueId, Error> {
    cx.float(inputs.one()?.id, layer.policy.compute)
}

/// A variable of one dimension as numbers.
fn numbers(variable: &Variable, name: &str, n: usize) -> Result<Vec<f64>, Error> {
    if variable.tensor.shape().dims() != [n] {
        return Err(Error::invalid(format!(
            "weights '{name}' have the shape {}, expected [{n}]",
            variable.tensor.shape()
        )));
    }
    doubles(&variable.tensor)
        .ok_or_else(|| Error::unsupported(format!("weights '{name}' of type {}", variable.tensor.dtype())))
}

pub(super) fn doubles(tensor: &Tensor) -> Option<Vec<f64>> {
    match tensor.dtype() {
        DType::F64 => tensor.to_slice::<f64>().map(|values| values.to_vec()),
        DType::F32 => {
            tensor.to_slice::<f32>().map(|values| values.iter().map(|&value| value.into()).collect())
        }
        _ => None,
    }
}

/// A variable along one axis, shaped to be added to or multiplied with an input of that rank.
fn along(cx: &mut Emit, x: ValueId, axis: usize) -> Result<Vec<usize>, Error> {
    let mut dims = vec![1; cx.rank(x)? - axis];
    dims[0] = cx.dim(x, axis)?;
    Ok(dims)
}

/// With fixed mean and variance it is one factor and one summand per channel.
pub(super) fn batch(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<ValueId, Error> {
    let c = &layer.config;
    let x = input(cx, layer, inputs)?;
    let axes = c.opt_ints("axis")?.unwrap_or_else(|| vec![-1]);
    let [axis] = axes[..] else {
        return Err(Error::unsupported(format!("BatchNormalization over {} axes", axes.len())));
    };
    let axis = cx.axis(x, axis)?;
    let n = cx.dim(x, axis)?;
    let epsilon = c.float_or("epsilon", 1e-3)?;
    let mean = numbers(weights.get("moving_mean")?, "moving_mean", n)?;
    let variance = numbers(weights.get("moving_variance")?, "moving_variance", n)?;
    let gamma =
        if c.flag("scale", true)? { numbers(weights.get("gamma")?, "gamma", n)? } else { vec![1.0; n] };
    let beta = if c.flag("center", true)? { numbers(weights.get("beta")?, "beta", n)? } else { vec![0.0; n] };
    let factor: Vec<f64> = variance.iter().zip(&gamma).map(|(v, g)| g / (v + epsilon).sqrt()).collect();
    let summand: Vec<f64> =
        beta.iter().zip(&mean).zip(&factor).map(|((beta, mean), factor)| beta - mean * factor).collect();
    let dims = along(cx, x, axis)?;
    let factor = cx.floats("factor", &dims, factor, cx.dtype(x))?;
    let summand = cx.floats("summand", &dims, summand, cx.dtype(x))?;
    let scaled = cx.mul(x, factor)?;
    cx.add(scaled, summand)
}

fn front_axes(cx: &Emit, x: ValueId, layer: &Layer, default: i64) -> Result<Vec<usize>, Error> {
    let axes = layer.config.opt_ints("axis")?.unwrap_or_else(|| vec![default]);
    let rank = cx.rank(x)?;
    let mut axes: Vec<usize> =
        axes.into_iter().map(|axis| front_axis(axis, rank)).collect::<Result<_, _>>()?;
    axes.sort_unstable();
    Ok(axes)
}

fn signed(axes: &[usize]) -> Vec<i64> {
    axes.iter().map(|&axis| axis as i64).collect()
}

/// A variable over several axes, shaped to fit the input.
fn over(
    cx: &mut Emit,
    weights: &Weights,
    name: &'static str,
    x: ValueId,
    axes: &[usize],
    dtype: DType,
) -> Result<ValueId, Error> {
    let mut own = Vec::new();
    let mut wide = vec![1i64; cx.rank(x)?];
    for &axis in axes {
        let size = cx.dim(x, axis)?;
        own.push(size);
        wide[axis] = size as i64;
    }
    let weight = cx.weight(weights.get(name)?, name, &own, dtype)?;
    if own.len() == 1 && axes[0] + 1 == wide.len() {
        return Ok(weight);
    }
    cx.reshape(weight, &wide)
}

/// `1 / sqrt(x + epsilon)` times `y`.
fn over_root(cx: &mut Emit, y: ValueId, x: ValueId, epsilon: f64) -> Result<ValueId, Error> {
    let sum = cx.with("Add", x, epsilon)?;
    let root = cx.op("Sqrt", &[sum])?;
    cx.div(y, root)
}

pub(super) fn layer(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<ValueId, Error> {
    let c = &layer.config;
    let x = input(cx, layer, inputs)?;
    let dtype = cx.dtype(x);
    let axes = front_axes(cx, x, layer, -1)?;
    let epsilon = c.float_or("epsilon", 1e-3)?;
    let rms = c.flag("rms_scaling", false)?;
    let rank = cx.rank(x)?;
    // Over the last dimensions ONNX has it as one operator.
    let trailing = axes.iter().rev().enumerate().all(|(at, &axis)| axis + at + 1 == rank);
    if trailing && !rms && c.flag("scale", true)? && axes.len() == 1 {
        let gamma = over(cx, weights, "gamma", x, &axes, dtype)?;
        let beta =
            if c.flag("center", true)? { Some(over(cx, weights, "beta", x, &axes, dtype)?) } else { None };
        let attrs = crate::attrs!("axis": -1, "epsilon": epsilon as f32);
        let outputs = cx.ops("LayerNormalization", &[Some(x), Some(gamma), beta], attrs, 1)?;
        return outputs.first().copied().ok_or_else(|| Error::invalid("a normalisation without output"));
    }
    let mean = cx.reduce("ReduceMean", x, &signed(&axes), true)?;
    let centred = cx.sub(x, mean)?;
    let square = cx.mul(centred, centred)?;
    let variance = cx.reduce("ReduceMean", square, &signed(&axes), true)?;
    // With rms_scaling Keras divides by the deviation and leaves the mean in.
    let mut y = over_root(cx, if rms { x } else { centred }, variance, epsilon)?;
    if c.flag("scale", true)? || rms {
        let gamma = over(cx, weights, "gamma", x, &axes, dtype)?;
        y = cx.mul(y, gamma)?;
    }
    if c.flag("center", true)? && !rms {
        let beta = over(cx, weights, "beta", x, &axes, dtype)?;
        y = cx.add(y, beta)?;
    }
    Ok(y)
}

pub(super) fn group(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<ValueId, Error> {
    let c = &layer.config;
    let x = input(cx, layer, inputs)?;
    let dtype = cx.dtype(x);
    let axis = cx.axis(x, c.int_or("axis", -1)?)?;
    let n = cx.dim(x, axis)?;
    let groups = match c.int_or("groups", 32)? {
        -1 => n,
        groups => usize::try_from(groups)
            .ok()
            .filter(|&groups| groups > 0 && n % groups == 0)
            .ok_or_else(|| Error::invalid(format!("{n} channels in {groups} groups")))?,
    };
    let rank = cx.rank(x)?;
    if axis == 0 {
        return Err(Error::invalid("groups over the batch"));
    }
    // The channels become groups and what is in one.
    let before = crate::attrs!("start": 0, "end": axis as i64);
    let front = cx.op_with("Shape", &[x], before)?;
    let middle = cx.ints(&[groups as i64, (n / groups) as i64]);
    let mut parts = vec![front, middle];
    if axis + 1 < rank {
        parts.push(cx.op_with("Shape", &[x], crate::attrs!("start": axis as i64 + 1))?);
    }
    let dims = cx.concat(&parts, 0)?;
    let grouped = cx.op("Reshape", &[x, dims])?;
    let axes: Vec<i64> = (1..=rank as i64).filter(|&at| at != axis as i64).collect();
    let mean = cx.reduce("ReduceMean", grouped, &axes, true)?;
    let centred = cx.sub(grouped, mean)?;
    let square = cx.mul(centred, centred)?;
    let variance = cx.reduce("ReduceMean", square, &axes, true)?;
    let y = over_root(cx, centred, variance, c.float_or("epsilon", 1e-3)?)?;
    let shape = cx.shape(x)?;
    let mut y = cx.op("Reshape", &[y, shape])?;
    let known = cx.b.dims(x).map(<[_]>::to_vec);
    cx.b.set_dims(y, known);
    if c.flag("scale", true)? {
        let gamma = over(cx, weights, "gamma", x, &[axis], dtype)?;
        y = cx.mul(y, gamma)?;
    }
    if c.flag("center", true)? {
        let beta = over(cx, weights, "beta", x, &[axis], dtype)?;
        y = cx.add(y, beta)?;
    }
    Ok(y)
}

/// Length 1 along the axes; what is shorter than 1e-12 is divided by that.
pub(super) fn unit(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<ValueId, Error> {
    let x = input(cx, layer, inputs)?;
    let axes = front_axes(cx, x, layer, -1)?;
    normalised(cx, x, &signed(&axes), 1e-12)
}

/// `x / max(|x|, epsilon)` along the axes.
pub(super) fn normalised(cx: &mut Emit, x: ValueId, axes: &[i64], epsilon: f64) -> Result<ValueId, Error> {
    let square = cx.mul(x, x)?;
    let sum = cx.reduce("ReduceSum", square, axes, true)?;
    let norm = cx.op("Sqrt", &[sum])?;
    let norm = cx.with("Max", norm, epsilon)?;
    cx.div(x, norm)
}

pub(super) fn rms(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<ValueId, Error> {
    let x = input(cx, layer, inputs)?;
    let axes = front_axes(cx, x, layer, -1)?;
    let square = cx.mul(x, x)?;
    let mean = cx.reduce("ReduceMean", square, &signed(&axes), true)?;
    let y = over_root(cx, x, mean, layer.config.float_or("epsilon", 1e-6)?)?;
    let scale = over(cx, weights, "scale", x, &axes, cx.dtype(x))?;
    cx.mul(y, scale)
}
