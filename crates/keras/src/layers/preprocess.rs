//! Layers that prepare numbers and categories.

use salver_graph::{Error, ValueId};
use salver_tensor::DType;

use crate::architecture::{Keras, Layer};
use crate::attrs;
use crate::emit::{Emit, MAX_ROW, front_axis};
use crate::layers::norm::doubles;
use crate::network::Inputs;
use crate::weights::Weights;

pub(super) fn call(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<ValueId, Error> {
    match layer.class.as_str() {
        "Rescaling" => rescaling(cx, layer, inputs.one()?.id),
        "Normalization" => normalization(cx, layer, weights, inputs.one()?.id),
        "Discretization" => discretization(cx, layer, inputs.one()?.id),
        "CategoryEncoding" => category_encoding(cx, layer, inputs),
        "Hashing" => hashing(cx, layer, inputs.one()?.id),
        other => Err(Error::unsupported(format!("{other}: export the model as a SavedModel (model.export)"))),
    }
}

/// Numbers of a configuration, one or a list, as a constant.
fn numbers(cx: &mut Emit, layer: &Layer, key: &str, default: f64) -> Result<ValueId, Error> {
    let values = layer.config.opt_floats(key)?.unwrap_or_else(|| vec![default]);
    let dims: Vec<usize> = if values.len() == 1 { Vec::new() } else { vec![values.len()] };
    cx.floats(key, &dims, values, layer.policy.compute)
}

fn rescaling(cx: &mut Emit, layer: &Layer, x: ValueId) -> Result<ValueId, Error> {
    let x = cx.float(x, layer.policy.compute)?;
    let scale = numbers(cx, layer, "scale", 1.0)?;
    let offset = numbers(cx, layer, "offset", 0.0)?;
    let scaled = cx.mul(x, scale)?;
    cx.add(scaled, offset)
}

fn normalization(cx: &mut Emit, layer: &Layer, weights: &Weights, x: ValueId) -> Result<ValueId, Error> {
    let c = &layer.config;
    let x = cx.float(x, layer.policy.compute)?;
    let rank = cx.rank(x)?;
    let axes: Vec<usize> = match c.json("axis") {
        None => Vec::new(),
        Some(_) => {
            let axes = c.opt_ints("axis")?.unwrap_or_default();
            axes.into_iter().map(|axis| front_axis(axis, rank)).collect::<Result<_, _>>()?
        }
    };
    let mut dims = vec![1; rank];
    for &axis in &axes {
        dims[axis] = cx.dim(x, axis)?;
    }
    let n = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    let n = n.ok_or_else(|| Error::too_large("the dimensions that are normalised"))?;
    let stored = |key: &'static str| -> Result<Vec<f64>, Error> {
        match c.opt_floats(key)? {
            Some(values) => Ok(values),
            None => doubles(&weights.get(key)?.tensor)
                .ok_or_else(|| Error::unsupported(format!("'{key}' is not of a float type"))),
        }
    };
    // One number for all is broadcast: the input may be large where the file is not.
    let fitted = |key: &'static str| -> Result<(Vec<f64>, &[usize]), Error> {
        let values = stored(key)?;
        match values.len() {
            len if len == n => Ok((values, &dims)),
            1 => Ok((values, &[])),
            len => Err(Error::invalid(format!("{key} has {len} numbers, expected {n}"))),
        }
    };
    let (mean, mean_dims) = fitted("mean")?;
    let (variance, variance_dims) = fitted("variance")?;
    // As Keras has it, with the deviation rounded to float32.
    let deviation: Vec<f64> = variance.into_iter().map(|v| v.sqrt().max(1e-7)).collect();
    let mean = cx.floats("mean", mean_dims, mean, cx.dtype(x))?;
    let deviation = cx.floats("deviation", variance_dims, deviation, cx.dtype(x))?;
    if c.flag("invert", false)? {
        let wide = cx.mul(x, deviation)?;
        return cx.add(wide, mean);
    }
    let centred = cx.sub(x, mean)?;
    cx.div(centred, deviation)
}

/// The number of boundaries that are not above the value.
fn discretization(cx: &mut Emit, layer: &Layer, x: ValueId) -> Result<ValueId, Error> {
    let c = &layer.config;
    let boundaries = c.opt_floats("bin_boundaries")?.ok_or_else(|| {
        Error::invalid("no bin_boundaries in the file: save the model in the .keras format after adapt()")
    })?;
    let x = if matches!(cx.dtype(x), DType::F32 | DType::F64) { x } else { cx.cast(x, DType::F32)? };
    let n = boundaries.len();
    let bins = cx.floats(
        "bin_boundaries",
        &[n],
        boundaries.iter().map(|&b| f64::from(b as f32)).collect(),
        cx.dtype(x),
    )?;
    let wide = cx.unsqueeze(x, &[-1])?;
    let above = cx.op("GreaterOrEqual", &[wide, bins])?;
    let counts = cx.cast(above, DType::I64)?;
    let index = cx.reduce("ReduceSum", counts, &[-1], false)?;
    let mode = c.text_or("output_mode", "int")?.to_owned();
    if mode == "int" {
        let declared = layer.policy.declared;
        let default = if cx.keras == Keras::Three { DType::I32 } else { DType::I64 };
        let target = if matches!(declared, DType::I32 | DType::I64) { declared } else { default };
        return cx.cast(index, target);
    }
    encode(cx, index, &mode, n + 1, layer.policy.compute, None)
}

fn category_encoding(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<ValueId, Error> {
    let x = inputs.one()?.id;
    let mode = layer.config.text_or("output_mode", "multi_hot")?.to_owned();
    let depth = layer.config.size("num_tokens")?;
    let weights = inputs.arg(1, "count_weights").and_then(|given| given.tensor()).map(|value| value.id);
    let x = cx.cast(x, DType::I64)?;
    if mode == "int" {
        return Ok(x);
    }
    encode(cx, x, &mode, depth, layer.policy.compute, weights)
}

/// Indices as one-hot rows, or as how often each index is there. An index outside of `0..depth` counts nowhere.
pub(super) fn encode(
    cx: &mut Emit,
    indices: ValueId,
    mode: &str,
    depth: usize,
    dtype: DType,
    weights: Option<ValueId>,
) -> Result<ValueId, Error> {
    let depth = i64::try_from(depth)
        .ok()
        .filter(|&depth| depth <= MAX_ROW as i64)
        .ok_or_else(|| Error::too_large(format!("{depth} categories, expected at most {MAX_ROW}")))?;
    let mut indices = indices;
    let rank = cx.rank(indices)?;
    if mode == "one_hot" && rank > 1 && cx.dims(indices)?[rank - 1] == Some(1) {
        indices = cx.squeeze(indices, &[-1])?;
    }
    let indices = cx.cast(indices, DType::I64)?;
    let wide = cx.unsqueeze(indices, &[-1])?;
    let (zero, end, one) = (cx.int(0), cx.int(depth), cx.int(1));
    let all = cx.op("Range", &[zero, end, one])?;
    let hot = cx.op("Equal", &[wide, all])?;
    cx.bounded(hot, None)?;
    let hot = cx.cast(hot, dtype)?;
    if mode == "one_hot" {
        return Ok(hot);
    }
    let axis = if cx.rank(indices)? > 1 { 1 } else { 0 };
    match mode {
        "multi_hot" | "binary" => {
            let counts = cx.reduce("ReduceSum", hot, &[axis], false)?;
            let zero = cx.scalar(0.0, counts)?;
            let any = cx.op("Greater", &[counts, zero])?;
            cx.cast(any, dtype)
        }
        "count" => {
            let hot = match weights {
                Some(weights) => {
                    let weights = cx.cast(weights, dtype)?;
                    let weights = cx.unsqueeze(weights, &[-1])?;
                    cx.mul(hot, weights)?
                }
                None => hot,
            };
            cx.reduce("ReduceSum", hot, &[axis], false)
        }
        other => Err(Error::invalid(format!("output_mode '{other}'"))),
    }
}

fn hashing(cx: &mut Emit, layer: &Layer, x: ValueId) -> Result<ValueId, Error> {
    let c = &layer.config;
    let mut x = x;
    let mode = c.text_or("output_mode", "int")?.to_owned();
    let rank = cx.rank(x)?;
    if mode == "one_hot" && rank > 0 && cx.dims(x)?[rank - 1] == Some(1) {
        x = cx.squeeze(x, &[-1])?;
    }
    let n_bins = c.size("num_bins")?;
    let mut n_hashed = n_bins as i64;
    let mut masked = None;
    if let Some(value) = c.json("mask_value").cloned().filter(|_| n_bins > 1) {
        n_hashed -= 1;
        let value = match value.as_str() {
            Some(text) => cx.text(text)?,
            None => {
                let number = crate::config::float(&value)
                    .ok_or_else(|| Error::invalid("mask_value is no number or text"))?;
                cx.scalar(number, x)?
            }
        };
        masked = Some(cx.op("Equal", &[x, value])?);
    }
    if matches!(cx.dtype(x), DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
        x = cx.cast(x, DType::I64)?;
    }
    if cx.dtype(x) != DType::String {
        x = cx.salver_one("AsString", &[x], attrs!())?;
    }
    let salt = c.opt_ints("salt")?;
    let mut bins = match salt {
        Some(salt) => {
            let key = match salt[..] {
                [one] => [one, one],
                [first, second] => [first, second],
                _ => return Err(Error::invalid(format!("salt {salt:?}, expected one or two integers"))),
            };
            cx.salver_one("StringToHashBucketStrong", &[x], attrs!("num_buckets": n_hashed, "key": key))?
        }
        None => cx.salver_one("StringToHashBucketFast", &[x], attrs!("num_buckets": n_hashed))?,
    };
    if let Some(masked) = masked {
        let (zero, one) = (cx.scalar(0.0, bins)?, cx.scalar(1.0, bins)?);
        let moved = cx.add(bins, one)?;
        bins = cx.select(masked, zero, moved)?;
    }
    if mode == "int" {
        let declared = layer.policy.declared;
        return cx.cast(bins, if declared == DType::String { DType::I64 } else { declared });
    }
    let dtype = match layer.policy.declared {
        DType::I32 | DType::I64 | DType::F64 => layer.policy.declared,
        _ => DType::F32,
    };
    encode(cx, bins, &mode, n_bins, dtype, None)
}
