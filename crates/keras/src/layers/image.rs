//! Pictures made larger, smaller or cut.
//!
//! The sizes are known when the model is imported, so that every interpolation but the common ones is a matrix per
//! dimension. The weights follow TensorFlow's kernels (`resize_bicubic_op.cc`, `scale_and_translate_op.cc`,
//! `resize_area_op.cc`).

use std::f64::consts::PI;

use salver_graph::{Error, ValueId};
use salver_tensor::DType;

use crate::architecture::Layer;
use crate::attrs;
use crate::emit::Emit;
use crate::network::Inputs;

/// Numbers that the matrices of one picture may have.
const MAX_MATRIX: usize = 1 << 24;

pub(super) fn call(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<ValueId, Error> {
    let c = &layer.config;
    let x = inputs.one()?.id;
    cx.expect_rank(x, 4)?;
    let dtype = cx.dtype(x);
    let target = [c.size("height")?, c.size("width")?];
    let last = c.channels_last()?;
    let first = if last { 1 } else { 2 };
    if cx.dims(x)?[first..first + 2].contains(&Some(0)) {
        return Err(Error::invalid("a picture with a height or width of 0"));
    }
    if let Some(y) = open_size(cx, layer, x, target, last)? {
        return Ok(y);
    }
    let size = [cx.dim(x, first)?, cx.dim(x, first + 1)?];
    if layer.class != "Resizing" {
        return centre(cx, layer, x, target, size, last);
    }
    let interpolation = c.text_or("interpolation", "bilinear")?.to_ascii_lowercase();
    let mut x = x;
    if c.flag("crop_to_aspect_ratio", false)? {
        x = crop_to_aspect(cx, x, target, size, first)?;
    } else if c.flag("pad_to_aspect_ratio", false)? {
        x = pad_to_aspect(cx, x, target, size, first, c.float_or("fill_value", 0.0)?)?;
    }
    let y = resized(cx, x, target, &interpolation, c.flag("antialias", false)?, last)?;
    if cx.dtype(y) == dtype {
        return Ok(y);
    }
    let (low, high) = match dtype {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        DType::U16 => (0.0, 65535.0),
        DType::I16 => (-32768.0, 32767.0),
        _ => return if is_float(dtype) { cx.cast(y, dtype) } else { Ok(y) },
    };
    let rounded = cx.op("Round", &[y])?;
    let within = crate::activation::clip(cx, rounded, low, high)?;
    cx.cast(within, dtype)
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
}

/// Pictures of a size that is only known when the model runs, where the interpolation is one that ONNX has.
fn open_size(
    cx: &mut Emit,
    layer: &Layer,
    x: ValueId,
    target: [usize; 2],
    last: bool,
) -> Result<Option<ValueId>, Error> {
    let c = &layer.config;
    let first = if last { 1 } else { 2 };
    let dims = cx.dims(x)?;
    let plain = !c.flag("crop_to_aspect_ratio", false)?
        && !c.flag("pad_to_aspect_ratio", false)?
        && !c.flag("antialias", false)?;
    if layer.class != "Resizing"
        || !plain
        || dims[first..first + 2].iter().all(Option::is_some)
        || !is_float(cx.dtype(x))
    {
        return Ok(None);
    }
    let interpolation = c.text_or("interpolation", "bilinear")?.to_ascii_lowercase();
    if interpolation == "bilinear" {
        return resized(cx, x, target, "bilinear", false, last).map(Some);
    }
    if interpolation != "nearest" {
        return Ok(None);
    }
    let x = if last { cx.channels_first(x)? } else { x };
    let y = onnx_resize(cx, x, &target, "nearest")?;
    let y = if last { cx.channels_last(y)? } else { y };
    Ok(Some(y))
}

/// ONNX's own resize, with the coordinates that TensorFlow takes.
fn onnx_resize(cx: &mut Emit, x: ValueId, target: &[usize], mode: &str) -> Result<ValueId, Error> {
    let front = cx.op_with("Shape", &[x], attrs!("start": 0, "end": 2))?;
    let sizes: Vec<i64> = target.iter().map(|&size| size as i64).collect();
    let sizes = cx.ints(&sizes);
    let sizes = cx.concat(&[front, sizes], 0)?;
    let mut attrs = attrs!("mode": mode, "coordinate_transformation_mode": "half_pixel");
    if mode == "nearest" {
        attrs.set("nearest_mode", "round_prefer_ceil");
    }
    let outputs = cx.ops("Resize", &[Some(x), None, None, Some(sizes)], attrs, 1)?;
    let y = outputs.first().copied().ok_or_else(|| Error::invalid("a resize without output"))?;
    if let Some(known) = cx.b.dims(x).map(|dims| dims[..2].to_vec()) {
        let spatial = target.iter().map(|&size| salver_graph::Dim::Fixed(size));
        cx.b.set_dims(y, Some(known.into_iter().chain(spatial).collect()));
    }
    Ok(y)
}

fn resized(
    cx: &mut Emit,
    x: ValueId,
    target: [usize; 2],
    interpolation: &str,
    antialias: bool,
    last: bool,
) -> Result<ValueId, Error> {
    let x = if last { cx.channels_first(x)? } else { x };
    let y = resize(cx, x, &target, interpolation, antialias)?;
    if last { cx.channels_last(y) } else { Ok(y) }
}

/// The middle of a picture; one that is too small is enlarged until it covers.
fn centre(
    cx: &mut Emit,
    layer: &Layer,
    x: ValueId,
    target: [usize; 2],
    size: [usize; 2],
    last: bool,
) -> Result<ValueId, Error> {
    let first = if last { 1 } else { 2 };
    let x = cx.float(x, layer.policy.compute)?;
    if size[0] < target[0] || size[1] < target[1] {
        let x = crop_to_aspect(cx, x, target, size, first)?;
        return resized(cx, x, target, "bilinear", false, last);
    }
    middle(cx, x, target, size, first)
}

/// The middle of a picture: `part` of its height and width, which are not smaller.
fn middle(
    cx: &mut Emit,
    x: ValueId,
    part: [usize; 2],
    size: [usize; 2],
    first: usize,
) -> Result<ValueId, Error> {
    let mut y = x;
    for at in 0..2 {
        let start = (size[at] - part[at]) / 2;
        y = cx.slice(y, first + at, start as i64, (start + part[at]) as i64, 1)?;
    }
    Ok(y)
}

/// Cuts a picture to the proportions of the target.
fn crop_to_aspect(
    cx: &mut Emit,
    x: ValueId,
    target: [usize; 2],
    size: [usize; 2],
    first: usize,
) -> Result<ValueId, Error> {
    let [height, width] = size;
    let fit = |other: usize, own: usize, divisor: usize| ((other * own) as f32 / divisor as f32) as usize;
    let crop = [
        fit(width, target[0], target[1]).min(height).max(1),
        fit(height, target[1], target[0]).min(width).max(1),
    ];
    middle(cx, x, crop, size, first)
}

/// Puts bars around a picture so that it has the proportions of the target.
fn pad_to_aspect(
    cx: &mut Emit,
    x: ValueId,
    target: [usize; 2],
    size: [usize; 2],
    first: usize,
    fill: f64,
) -> Result<ValueId, Error> {
    let [height, width] = size;
    let fit = |other: usize, own: usize, divisor: usize| ((other * own) as f32 / divisor as f32) as usize;
    let padded = [fit(width, target[0], target[1]).max(height), fit(height, target[1], target[0]).max(width)];
    let mut pads = vec![0i64; 8];
    for at in 0..2 {
        let bar = ((padded[at] - size[at]) / 2) as i64;
        pads[first + at] = bar;
        pads[4 + first + at] = bar;
    }
    let pads = cx.ints(&pads);
    let fill = cx.scalar(fill, x)?;
    let y = cx.op_with("Pad", &[x, pads, fill], attrs!("mode": "constant"))?;
    cx.bounded(y, None)?;
    Ok(y)
}

/// Resizes `[batch, channels, spatial]` to the sizes of its spatial dimensions, as `tf.image.resize` does.
pub(super) fn resize(
    cx: &mut Emit,
    x: ValueId,
    target: &[usize],
    interpolation: &str,
    antialias: bool,
) -> Result<ValueId, Error> {
    if interpolation == "nearest" {
        return nearest(cx, x, target);
    }
    let x = if is_float(cx.dtype(x)) { x } else { cx.cast(x, DType::F32)? };
    if interpolation == "bilinear" && !antialias {
        return onnx_resize(cx, x, target, "linear");
    }
    let mut y = x;
    let rank = 2 + target.len();
    for (at, &wanted) in target.iter().enumerate() {
        let axis = 2 + at;
        let size = cx.dim(y, axis)?;
        if size.saturating_mul(wanted) > MAX_MATRIX {
            return Err(Error::too_large(format!(
                "interpolation '{interpolation}' from {size} to {wanted} elements"
            )));
        }
        let matrix = matrix(size, wanted, interpolation, antialias)?;
        let matrix = cx.floats("interpolation", &[size, wanted], matrix, cx.dtype(y))?;
        // The dimension goes to the end and back.
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(axis, rank - 1);
        let moved = cx.transpose(y, &perm)?;
        let product = cx.op("MatMul", &[moved, matrix])?;
        y = cx.transpose(product, &perm)?;
    }
    Ok(y)
}

fn nearest(cx: &mut Emit, x: ValueId, target: &[usize]) -> Result<ValueId, Error> {
    let mut y = x;
    for (at, &wanted) in target.iter().enumerate() {
        let size = cx.dim(y, 2 + at)?;
        if wanted > MAX_MATRIX {
            return Err(Error::too_large(format!("a picture of {wanted} elements")));
        }
        let scale = size as f32 / wanted as f32;
        let index = |at: usize| (((at as f32 + 0.5) * scale).floor() as usize).min(size - 1) as i64;
        let indices: Vec<i64> = (0..wanted).map(index).collect();
        let indices = cx.ints(&indices);
        y = cx.op_with("Gather", &[y, indices], attrs!("axis": 2 + at as i64))?;
    }
    Ok(y)
}

/// `[size, wanted]`: how much each element counts in each of the result.
fn matrix(size: usize, wanted: usize, interpolation: &str, antialias: bool) -> Result<Vec<f64>, Error> {
    let mut matrix = vec![0.0; size * wanted];
    let mut set = |from: usize, to: usize, weight: f64| matrix[from * wanted + to] += weight;
    match interpolation {
        "bicubic" if !antialias => {
            for to in 0..wanted {
                for (from, weight) in bicubic(size, wanted, to) {
                    set(from, to, weight);
                }
            }
        }
        "area" => {
            let scale = size as f64 / wanted as f64;
            for to in 0..wanted {
                let (start, end) = (to as f64 * scale, ((to + 1) as f64 * scale).min(size as f64));
                for from in start.floor() as usize..(end.ceil() as usize).min(size) {
                    let share = (end.min((from + 1) as f64) - start.max(from as f64)).max(0.0);
                    set(from, to, share / (end - start));
                }
            }
        }
        name => {
            let (radius, kernel): (f64, fn(f64) -> f64) = match name {
                "bilinear" => (1.0, |x| (1.0 - x).max(0.0)),
                "bicubic" => (2.0, keys_cubic),
                "lanczos3" => (3.0, |x| lanczos(x, 3.0)),
                "lanczos5" => (5.0, |x| lanczos(x, 5.0)),
                "gaussian" => (1.5, |x| if x >= 1.5 { 0.0 } else { (-x * x / 0.5).exp() }),
                "mitchellcubic" => (2.0, mitchell),
                other => return Err(Error::invalid(format!("interpolation '{other}'"))),
            };
            let inverse = size as f64 / wanted as f64;
            let spread = if antialias { inverse.max(1.0) } else { 1.0 };
            for to in 0..wanted {
                let centre = (to as f64 + 0.5) * inverse;
                let start = (centre - radius * spread - 0.5).ceil().max(0.0) as usize;
                let end = (centre + radius * spread - 0.5).floor().min(size as f64 - 1.0).max(0.0) as usize;
                let weights: Vec<f64> =
                    (start..=end).map(|from| kernel(((from as f64 + 0.5 - centre) / spread).abs())).collect();
                let total: f64 = weights.iter().sum();
                for (from, weight) in (start..=end).zip(weights) {
                    set(from, to, if total.abs() > 1e-30 { weight / total } else { 0.0 });
                }
            }
        }
    }
    Ok(matrix)
}

/// TensorFlow rounds the offset to a table of 1024 steps, and leaves out what is outside.
fn bicubic(size: usize, wanted: usize, to: usize) -> Vec<(usize, f64)> {
    const STEPS: i64 = 1024;
    let scale = size as f32 / wanted as f32;
    let position = (to as f32 + 0.5) * scale - 0.5;
    let floor = position.floor();
    let offset = f64::from((position - floor) * STEPS as f32).round_ties_even() as i64;
    let at = |step: i64| step as f64 / STEPS as f64;
    let distances = [at(offset) + 1.0, at(offset), at(STEPS - offset), at(STEPS - offset) + 1.0];
    let mut weights = Vec::new();
    for (n, distance) in distances.into_iter().enumerate() {
        let from = floor as i64 - 1 + n as i64;
        if let Ok(from) = usize::try_from(from)
            && from < size
        {
            weights.push((from, keys_cubic(distance)));
        }
    }
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    weights.into_iter().map(|(from, weight)| (from, weight / total)).collect()
}

fn keys_cubic(x: f64) -> f64 {
    if x >= 2.0 {
        0.0
    } else if x >= 1.0 {
        ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    } else {
        (1.5 * x - 2.5) * x * x + 1.0
    }
}

fn mitchell(x: f64) -> f64 {
    if x >= 2.0 {
        0.0
    } else if x >= 1.0 {
        (((-7.0 / 18.0) * x + 2.0) * x - 10.0 / 3.0) * x + 16.0 / 9.0
    } else {
        ((7.0 / 6.0) * x - 2.0) * x * x + 8.0 / 9.0
    }
}

fn lanczos(x: f64, radius: f64) -> f64 {
    if x > radius {
        0.0
    } else if x <= 1e-3 {
        1.0
    } else {
        radius * (PI * x).sin() * (PI * x / radius).sin() / (PI * PI * x * x)
    }
}
