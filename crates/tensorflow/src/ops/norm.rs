//! Biases and normalisation, and what optimised graphs fuse into other operators.

use salver_graph::{Attributes, ValueId};

use super::context::{Context, Layout, Outputs};
use super::table::{Entry, noted, plain};
use crate::Error;

pub(super) const OPS: &[Entry] = &[
    plain("BatchNormWithGlobalNormalization", global_batch_norm),
    plain("BiasAdd", bias_add),
    plain("BiasAddV1", |c| c.binary("Add")),
    noted("FusedBatchNorm", "also over the batch", fused_batch_norm),
    noted("FusedBatchNormV2", "also over the batch", fused_batch_norm),
    noted("FusedBatchNormV3", "also over the batch", fused_batch_norm),
    noted("LRN", "", lrn),
    noted("_FusedBatchNormEx", "with an activation", |c| {
        let mut outputs = fused_batch_norm(c)?;
        if c.node.int("num_side_inputs", 0)? != 0 {
            return Err(Error::unsupported("_FusedBatchNormEx with side inputs"));
        }
        let activation = c.node.text("activation_mode", "Identity")?;
        outputs[0] = activate(c, activation, outputs[0])?;
        Ok(outputs)
    }),
];

fn add_bias(c: &mut Context<'_>, x: ValueId, bias: ValueId) -> Result<ValueId, Error> {
    let bias = match c.layout()? {
        Layout::ChannelsLast => bias,
        Layout::ChannelsFirst => {
            let rank = c.rank(x)?;
            c.channels_second(bias, rank)?
        }
    };
    c.op("Add", &[x, bias])
}

fn bias_add(c: &mut Context<'_>) -> Outputs {
    let (x, bias) = (c.input(0)?, c.input(1)?);
    Ok(vec![add_bias(c, x, bias)?])
}

/// What follows a product or convolution in an operator that graph optimisation made: inputs from the third on.
pub(super) fn fused_steps(c: &mut Context<'_>, x: ValueId, rank: usize) -> Result<ValueId, Error> {
    let mut value = x;
    let mut next = 2;
    for step in c.node.texts("fused_ops")? {
        match step.as_str() {
            "BiasAdd" => {
                let bias = c.input(next)?;
                next += 1;
                value = add_bias(c, value, bias)?;
            }
            "FusedBatchNorm" => {
                let [scale, offset, mean, variance] =
                    [next, next + 1, next + 2, next + 3].map(|at| c.input(at));
                next += 4;
                let epsilon = c.node.float("epsilon", 1e-4)?;
                let layout = c.layout()?;
                let norm = Norm { scale: scale?, offset: offset?, mean: mean?, variance: variance?, epsilon };
                value = normalise(c, value, &norm, layout, rank)?;
            }
            activation => value = activate(c, activation, value)?,
        }
    }
    Ok(value)
}

fn activate(c: &mut Context<'_>, name: &str, x: ValueId) -> Result<ValueId, Error> {
    match name {
        "Identity" => Ok(x),
        "Relu" | "Elu" | "Tanh" | "Sigmoid" => c.op(name, &[x]),
        "Relu6" => {
            let (zero, six) = (c.scalar(0.0, x)?, c.scalar(6.0, x)?);
            c.op("Clip", &[x, zero, six])
        }
        "LeakyRelu" => {
            let alpha = c.node.float("leakyrelu_alpha", 0.2)?;
            c.with("LeakyRelu", &[x], Attributes::new().with("alpha", alpha))
        }
        "GeluExact" => {
            let (root, one, half) =
                (c.scalar(std::f64::consts::SQRT_2, x)?, c.scalar(1.0, x)?, c.scalar(0.5, x)?);
            let scaled = c.op("Div", &[x, root])?;
            let erf = c.op("Erf", &[scaled])?;
            let raised = c.op("Add", &[erf, one])?;
            let product = c.op("Mul", &[x, raised])?;
            c.op("Mul", &[product, half])
        }
        "GeluApproximate" => {
            let (cube, factor) = (c.scalar(0.044_715, x)?, c.scalar((2.0 / std::f64::consts::PI).sqrt(), x)?);
            let (one, half) = (c.scalar(1.0, x)?, c.scalar(0.5, x)?);
            let squared = c.op("Mul", &[x, x])?;
            let cubed = c.op("Mul", &[squared, x])?;
            let small = c.op("Mul", &[cubed, cube])?;
            let sum = c.op("Add", &[x, small])?;
            let inner = c.op("Mul", &[sum, factor])?;
            let tanh = c.op("Tanh", &[inner])?;
            let raised = c.op("Add", &[tanh, one])?;
            let product = c.op("Mul", &[x, raised])?;
            c.op("Mul", &[product, half])
        }
        other => Err(Error::unsupported(format!("{other} fused into {}", c.node.op))),
    }
}

struct Norm {
    scale: ValueId,
    offset: ValueId,
    mean: ValueId,
    variance: ValueId,
    epsilon: f32,
}

fn normalise(
    c: &mut Context<'_>,
    x: ValueId,
    norm: &Norm,
    layout: Layout,
    rank: usize,
) -> Result<ValueId, Error> {
    let data = c.channels_to_front(x, layout, rank)?;
    let inputs = [data, norm.scale, norm.offset, norm.mean, norm.variance];
    let y = c.with("BatchNormalization", &inputs, Attributes::new().with("epsilon", norm.epsilon))?;
    c.channels_to_back(y, layout, rank)
}

fn fused_batch_norm(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let rank = c.rank(x)?;
    let layout = c.layout()?;
    let epsilon = c.node.float("epsilon", 1e-4)?;
    let (scale, offset) = (c.input(1)?, c.input(2)?);
    if !c.node.flag("is_training", true)? {
        let norm = Norm { scale, offset, mean: c.input(3)?, variance: c.input(4)?, epsilon };
        // In half precision, the parameters are float32.
        let wide = c.cast(x, c.dtype(scale))?;
        let y = normalise(c, wide, &norm, layout, rank)?;
        let y = c.cast(y, c.dtype(x))?;
        return Ok(vec![y, norm.mean, norm.variance, norm.mean, norm.variance, norm.variance]);
    }
    trained_batch_norm(c, x, scale, offset, layout)
}

/// Over the batch itself. The variance that comes out has Bessel's correction, the one divided by has not.
fn trained_batch_norm(
    c: &mut Context<'_>,
    x: ValueId,
    scale: ValueId,
    offset: ValueId,
    layout: Layout,
) -> Outputs {
    let rank = c.rank(x)?;
    let epsilon = c.node.float("epsilon", 1e-4)?;
    let channel = if layout == Layout::ChannelsLast { rank - 1 } else { 1 };
    let axes: Vec<i64> = (0..rank).filter(|&at| at != channel).map(|at| at as i64).collect();
    let axes_value = c.i64s(&axes);
    let wide = c.cast(x, c.dtype(scale))?;
    let flat = Attributes::new().with("keepdims", 0);
    let kept = Attributes::new().with("keepdims", 1);
    let centre = c.with("ReduceMean", &[wide, axes_value], kept.clone())?;
    let distance = c.op("Sub", &[wide, centre])?;
    let squared = c.op("Mul", &[distance, distance])?;
    let spread = c.with("ReduceMean", &[squared, axes_value], kept)?;
    let tiny = c.scalar(f64::from(epsilon), spread)?;
    let raised = c.op("Add", &[spread, tiny])?;
    let root = c.op("Sqrt", &[raised])?;
    let unit = c.op("Div", &[distance, root])?;
    let (mut scale, mut offset) = (scale, offset);
    if layout == Layout::ChannelsFirst {
        scale = c.channels_second(scale, rank)?;
        offset = c.channels_second(offset, rank)?;
    }
    let scaled = c.op("Mul", &[unit, scale])?;
    let y = c.op("Add", &[scaled, offset])?;
    let y = c.cast(y, c.dtype(x))?;
    let (mean, variance) = (c.squeeze(centre, &axes)?, c.squeeze(spread, &axes)?);
    let total = c.with("ReduceSum", &[squared, axes_value], flat)?;
    let shape = c.shape(x)?;
    let sizes = c.with("Gather", &[shape, axes_value], Attributes::new().with("axis", 0))?;
    let n = c.with("ReduceProd", &[sizes], Attributes::new().with("keepdims", 0))?;
    let one = c.builder.i64(1);
    let fewer = c.op("Sub", &[n, one])?;
    let fewer = c.op("Max", &[fewer, one])?;
    let fewer = c.cast(fewer, c.dtype(total))?;
    let corrected = c.op("Div", &[total, fewer])?;
    Ok(vec![y, mean, corrected, mean, variance, variance])
}

fn global_batch_norm(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let rank = c.rank(x)?;
    let (mean, variance, offset, gamma) = (c.input(1)?, c.input(2)?, c.input(3)?, c.input(4)?);
    let epsilon = c.node.float("variance_epsilon", 0.0)?;
    let scale = match c.node.flag("scale_after_normalization", true)? {
        true => gamma,
        false => {
            let one = c.scalar(1.0, gamma)?;
            let shape = c.shape(gamma)?;
            c.op("Expand", &[one, shape])?
        }
    };
    let norm = Norm { scale, offset, mean, variance, epsilon };
    Ok(vec![normalise(c, x, &norm, Layout::ChannelsLast, rank)?])
}

/// Divides by a power of the sum of squares over neighbouring channels. The sum is an average pool over the channels,
/// taken as the width of a picture, times the size of the window.
fn lrn(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let radius = c.node.int("depth_radius", 5)?;
    if !(0..=1 << 16).contains(&radius) {
        return Err(Error::invalid(format!("depth_radius is {radius}")));
    }
    let (bias, alpha, beta) =
        (c.node.float("bias", 1.0)?, c.node.float("alpha", 1.0)?, c.node.float("beta", 0.5)?);
    let size = 2 * radius + 1;
    let squares = c.op("Mul", &[x, x])?;
    let attributes = Attributes::new()
        .with("kernel_shape", [1, size])
        .with("strides", [1, 1])
        .with("pads", [0, radius, 0, radius])
        .with("ceil_mode", 0)
        .with("count_include_pad", 1);
    let mean = c.with("AveragePool", &[squares], attributes)?;
    let factor = c.scalar(f64::from(alpha) * size as f64, x)?;
    let scaled = c.op("Mul", &[mean, factor])?;
    let bias = c.scalar(f64::from(bias), x)?;
    let sum = c.op("Add", &[scaled, bias])?;
    let beta = c.scalar(f64::from(beta), x)?;
    let power = c.op("Pow", &[sum, beta])?;
    Ok(vec![c.op("Div", &[x, power])?])
}
