//! Layers that move elements: reshape, flatten, permute, repeat, pad, crop, enlarge.

use salver_graph::{Error, ValueId};
use serde_json::Value as Json;

use crate::architecture::{Layer, shape as read_shape};
use crate::attrs;
use crate::config::{self, MAX_SIZE};
use crate::emit::{Emit, show};
use crate::layers::image;
use crate::network::Inputs;

pub(super) fn shape(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<ValueId, Error> {
    let c = &layer.config;
    let x = inputs.one()?.id;
    match layer.class.as_str() {
        "Flatten" => flatten(cx, x, c.channels_last()?),
        "Permute" => {
            let dims = c.opt_ints("dims")?.ok_or_else(|| config::missing("dims"))?;
            let rank = cx.rank(x)?;
            let mut perm = vec![0];
            for dim in &dims {
                let axis = usize::try_from(*dim)
                    .ok()
                    .filter(|&axis| axis >= 1 && axis < rank && !perm.contains(&axis));
                perm.push(axis.ok_or_else(|| {
                    Error::invalid(format!("dims {dims:?} of an input of {rank} dimensions"))
                })?);
            }
            if perm.len() != rank {
                return Err(Error::invalid(format!("dims {dims:?} of an input of {rank} dimensions")));
            }
            cx.transpose(x, &perm)
        }
        "RepeatVector" => {
            cx.expect_rank(x, 2)?;
            let n = c.size("n")?;
            let x = cx.unsqueeze(x, &[1])?;
            let repeats = cx.ints(&[1, n as i64, 1]);
            cx.op("Tile", &[x, repeats])
        }
        _ => {
            let target = c.json("target_shape").ok_or_else(|| config::missing("target_shape"))?;
            let target =
                read_shape(target).ok_or_else(|| Error::invalid(format!("target_shape {target}")))?;
            let target: Vec<i64> = target.into_iter().map(|dim| dim.unwrap_or(-1)).collect();
            reshape(cx, x, &target)
        }
    }
}

fn flatten(cx: &mut Emit, x: ValueId, channels_last: bool) -> Result<ValueId, Error> {
    let rank = cx.rank(x)?;
    if rank == 1 {
        return cx.unsqueeze(x, &[1]);
    }
    // Keras flattens channels that come first as if they came last.
    let x = if channels_last || rank < 3 { x } else { cx.channels_last(x)? };
    reshape(cx, x, &[-1])
}

/// Reshapes all but the batch.
pub(super) fn reshape(cx: &mut Emit, x: ValueId, target: &[i64]) -> Result<ValueId, Error> {
    if target.iter().filter(|&&dim| dim == -1).count() > 1
        || target.iter().any(|&dim| !(-1..=MAX_SIZE).contains(&dim))
    {
        return Err(Error::invalid(format!("target_shape {target:?}")));
    }
    let dims = cx.dims(x)?;
    // What is left is computed where it can be, so that the batch stays the one open dimension.
    let mut target = target.to_vec();
    let total = dims[1..].iter().try_fold(1usize, |product, dim| product.checked_mul((*dim)?));
    let rest =
        target.iter().filter(|&&dim| dim != -1).try_fold(1i64, |product, &dim| product.checked_mul(dim));
    if let (Some(total), Some(rest)) = (total, rest) {
        let total = total as i64;
        let open = target.iter().position(|&dim| dim == -1);
        match open {
            Some(at) if rest > 0 && total % rest == 0 => target[at] = total / rest,
            None if total == rest => {}
            _ => {
                return Err(Error::invalid(format!(
                    "target_shape {target:?} for an input of the shape {}",
                    show(&dims)
                )));
            }
        }
    }
    if target.contains(&-1) || target.contains(&0) {
        let batch = cx.size(x, 0)?;
        let rest = cx.ints(&target);
        let shape = cx.concat(&[batch, rest], 0)?;
        return cx.op("Reshape", &[x, shape]);
    }
    let batch = cx.b.dims(x).and_then(|dims| dims.first().cloned());
    let shape: Vec<i64> = std::iter::once(0).chain(target.iter().copied()).collect();
    let y = cx.reshape(x, &shape)?;
    if let Some(batch) = batch {
        let known =
            std::iter::once(batch).chain(target.iter().map(|&dim| salver_graph::Dim::Fixed(dim as usize)));
        cx.b.set_dims(y, Some(known.collect()));
    }
    Ok(y)
}

fn n_spatial(layer: &Layer) -> usize {
    layer.class.bytes().rev().find(u8::is_ascii_digit).map_or(2, |digit| usize::from(digit - b'0'))
}

/// Pairs of numbers per dimension: one number for all, one per dimension, or a pair per dimension.
fn pairs(layer: &Layer, key: &str, n: usize) -> Result<Vec<(i64, i64)>, Error> {
    let value = layer.config.json(key).map(config::plain);
    let wrong = || Error::invalid(format!("{key} is not one number, {n} numbers or {n} pairs of numbers"));
    let pairs: Option<Vec<(i64, i64)>> = match value {
        None => Some(vec![(1, 1); n]),
        Some(Json::Array(list)) if n == 1 && list.len() == 2 && list.iter().all(Json::is_number) => {
            config::ints(&Json::Array(list.clone())).map(|both| vec![(both[0], both[1])])
        }
        Some(Json::Array(list)) if list.len() == n => list
            .iter()
            .map(|item| match config::ints(item)?[..] {
                [one] => Some((one, one)),
                [first, second] => Some((first, second)),
                _ => None,
            })
            .collect(),
        Some(other) => config::int(other).map(|one| vec![(one, one); n]),
    };
    let pairs = pairs.ok_or_else(wrong)?;
    if pairs.iter().any(|&(a, b)| !(0..=MAX_SIZE).contains(&a) || !(0..=MAX_SIZE).contains(&b)) {
        return Err(wrong());
    }
    Ok(pairs)
}

pub(super) fn padding(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<ValueId, Error> {
    let n = n_spatial(layer);
    let x = inputs.one()?.id;
    cx.expect_rank(x, n + 2)?;
    let first = if layer.config.channels_last()? { 1 } else { 2 };
    let mut pads = vec![0; 2 * (n + 2)];
    for (at, (before, behind)) in pairs(layer, "padding", n)?.into_iter().enumerate() {
        pads[first + at] = before;
        pads[n + 2 + first + at] = behind;
    }
    let pads = cx.ints(&pads);
    let zero = cx.scalar(0.0, x)?;
    cx.op_with("Pad", &[x, pads, zero], attrs!("mode": "constant"))
}

pub(super) fn cropping(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<ValueId, Error> {
    let n = n_spatial(layer);
    let x = inputs.one()?.id;
    cx.expect_rank(x, n + 2)?;
    let first = if layer.config.channels_last()? { 1 } else { 2 };
    let (mut starts, mut ends, mut axes) = (Vec::new(), Vec::new(), Vec::new());
    for (at, (before, behind)) in pairs(layer, "cropping", n)?.into_iter().enumerate() {
        starts.push(before);
        ends.push(if behind == 0 { i64::MAX } else { -behind });
        axes.push((first + at) as i64);
    }
    let inputs = [cx.ints(&starts), cx.ints(&ends), cx.ints(&axes)];
    cx.op("Slice", &[x, inputs[0], inputs[1], inputs[2]])
}

pub(super) fn up_sampling(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<ValueId, Error> {
    let n = n_spatial(layer);
    let x = inputs.one()?.id;
    cx.expect_rank(x, n + 2)?;
    let sizes = layer.config.sizes("size", n, Some(2))?;
    let last = n == 1 || layer.config.channels_last()?;
    let interpolation = layer.config.text_or("interpolation", "nearest")?.to_ascii_lowercase();
    if interpolation == "nearest" {
        return repeat(cx, x, &sizes, if last { 1 } else { 2 });
    }
    let x = cx.float(x, layer.policy.compute)?;
    let x = if last { cx.channels_first(x)? } else { x };
    let mut target = Vec::new();
    for (at, size) in sizes.iter().enumerate() {
        target.push(cx.dim(x, 2 + at)?.saturating_mul(*size));
    }
    let y = image::resize(cx, x, &target, &interpolation, false)?;
    if last { cx.channels_last(y) } else { Ok(y) }
}

/// Repeats each element along dimensions from `first` on.
fn repeat(cx: &mut Emit, x: ValueId, sizes: &[usize], first: usize) -> Result<ValueId, Error> {
    // Each dimension gets one of its copies behind it, and is joined with it: d -> d, 1 -> d, n -> d * n.
    let known = cx.dims(x)?;
    let axes: Vec<i64> = (0..sizes.len()).map(|at| (first + at * 2 + 1) as i64).collect();
    let wide = cx.unsqueeze(x, &axes)?;
    let mut repeats = Vec::new();
    let mut target = Vec::new();
    for (axis, dim) in known.into_iter().enumerate() {
        repeats.push(1);
        let size = axis.checked_sub(first).and_then(|at| sizes.get(at)).copied();
        repeats.extend(size.map(|size| size as i64));
        let here = match dim {
            Some(dim) => cx.ints(&[(dim.saturating_mul(size.unwrap_or(1))).min(MAX_SIZE as usize) as i64]),
            None => {
                let dim = cx.size(x, axis)?;
                match size {
                    Some(size) => cx.with("Mul", dim, size as f64)?,
                    None => dim,
                }
            }
        };
        target.push(here);
    }
    let repeats = cx.ints(&repeats);
    let tiled = cx.op("Tile", &[wide, repeats])?;
    let target = cx.concat(&target, 0)?;
    cx.op("Reshape", &[tiled, target])
}
