//! Pooling: by windows, over everything, and to a given size.

use salver_graph::{Error, ValueId};
use salver_tensor::DType;

use crate::architecture::Layer;
use crate::attrs;
use crate::emit::Emit;
use crate::layers::conv::set_same;
use crate::network::Inputs;

/// Windows that pooling to a given size may take per dimension.
const MAX_ADAPTIVE: usize = 1024;

fn n_spatial(layer: &Layer) -> usize {
    match layer.class.as_bytes().iter().rev().find(|byte| byte.is_ascii_digit()) {
        Some(b'1') => 1,
        Some(b'3') => 3,
        _ => 2,
    }
}

pub(super) fn windowed(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<ValueId, Error> {
    let n = n_spatial(layer);
    let c = &layer.config;
    let x = inputs.one()?.id;
    let average = layer.class.starts_with("Average");
    let x = if average { cx.float(x, layer.policy.compute)? } else { x };
    cx.expect_rank(x, n + 2)?;
    let size = c.sizes("pool_size", n, Some(2))?;
    let strides = if c.has("strides") { c.sizes("strides", n, None)? } else { size.clone() };
    let last = c.channels_last()?;
    let x = if last { cx.channels_first(x)? } else { x };
    let ints = |sizes: &[usize]| sizes.iter().map(|&size| size as i64).collect::<Vec<i64>>();
    let mut attrs = attrs!("kernel_shape": ints(&size), "strides": ints(&strides));
    match c.text_or("padding", "valid")?.to_ascii_lowercase().as_str() {
        "valid" => {}
        "same" => {
            let dims = cx.dims(x)?;
            set_same(&mut attrs, &size, &strides, &dims[2..]);
        }
        other => return Err(Error::invalid(format!("padding '{other}', expected 'valid' or 'same'"))),
    }
    let y = cx.op_with(if average { "AveragePool" } else { "MaxPool" }, &[x], attrs)?;
    if last { cx.channels_last(y) } else { Ok(y) }
}

pub(super) fn global(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<ValueId, Error> {
    let n = n_spatial(layer);
    let x = inputs.one()?.id;
    let average = layer.class.contains("Average");
    let x = if average { cx.float(x, layer.policy.compute)? } else { x };
    cx.expect_rank(x, n + 2)?;
    let first = if layer.config.channels_last()? { 1 } else { 2 };
    let axes: Vec<i64> = (first..first + n as i64).collect();
    let keep = layer.config.flag("keepdims", false)?;
    if average
        && n == 1
        && let Some(mask) = inputs.mask()
    {
        return masked_average(cx, x, mask, first, keep);
    }
    cx.reduce(if average { "ReduceMean" } else { "ReduceMax" }, x, &axes, keep)
}

/// The average of the steps that count.
fn masked_average(cx: &mut Emit, x: ValueId, mask: ValueId, axis: i64, keep: bool) -> Result<ValueId, Error> {
    let mask = cx.cast(mask, DType::Bool)?;
    let mask = cx.unsqueeze(mask, &[if axis == 1 { 2 } else { 1 }])?;
    let counted = cx.keep_where(mask, x)?;
    let weight = cx.cast(mask, cx.dtype(x))?;
    let sum = cx.reduce("ReduceSum", counted, &[axis], keep)?;
    let count = cx.reduce("ReduceSum", weight, &[axis], keep)?;
    cx.div(sum, count)
}

/// Window `i` of `n` goes from `floor(i * size / n)` to `ceil((i + 1) * size / n)`, one dimension after the other.
pub(super) fn adaptive(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<ValueId, Error> {
    let n = n_spatial(layer);
    let average = layer.class.contains("Average");
    let mut x = inputs.one()?.id;
    cx.expect_rank(x, n + 2)?;
    let first = if layer.config.channels_last()? { 1 } else { 2 };
    let sizes = layer.config.sizes("output_size", n, None)?;
    for (at, &wanted) in sizes.iter().enumerate() {
        if wanted > MAX_ADAPTIVE {
            return Err(Error::too_large(format!("output_size {wanted}, expected at most {MAX_ADAPTIVE}")));
        }
        let axis = first + at;
        let size = cx.dim(x, axis)?;
        let mut parts = Vec::with_capacity(wanted);
        for window in 0..wanted {
            let start = window * size / wanted;
            let end = ((window + 1) * size).div_ceil(wanted);
            let part = cx.slice(x, axis, start as i64, end as i64, 1)?;
            parts.push(cx.reduce(
                if average { "ReduceMean" } else { "ReduceMax" },
                part,
                &[axis as i64],
                true,
            )?);
        }
        x = cx.concat(&parts, axis as i64)?;
    }
    Ok(x)
}
