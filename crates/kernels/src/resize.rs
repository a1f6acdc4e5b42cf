//! `Resize`: images of another size, one axis after the other.

use salver_tensor::Tensor;

use crate::call::{Call, read, size};
use crate::cast;
use crate::datum::{Datum, by_width};
use crate::layout::{self, Dims, around, output_shape};
use crate::matmul::{is_half, widened};
use crate::number::{Float, by_float};
use crate::{Error, Outputs};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfHalfPixelForNn,
    TfCropAndResize,
}

/// What becomes of one axis.
struct Axis {
    axis: usize,
    input: usize,
    output: usize,
    /// Output elements per input element.
    scale: f64,
    /// The part of the input that is read, from 0 to 1.
    roi: (f64, f64),
}

impl Axis {
    /// Where in the input an element of the output lies.
    fn coordinate(&self, o: usize, how: Coordinates) -> f64 {
        let (input, output, at) = (self.input as f64, self.output as f64, o as f64);
        match how {
            Coordinates::HalfPixel => (at + 0.5) / self.scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                // The output is centred when its size was rounded.
                let adjustment = output / (self.scale * input);
                let centre = input / 2.0;
                centre * (1.0 - adjustment) + (at + 0.5) / self.scale - 0.5
            }
            Coordinates::PytorchHalfPixel if self.output > 1 => (at + 0.5) / self.scale - 0.5,
            Coordinates::PytorchHalfPixel => 0.0,
            Coordinates::AlignCorners if self.output > 1 => at * (input - 1.0) / (output - 1.0),
            Coordinates::AlignCorners => 0.0,
            Coordinates::Asymmetric => at / self.scale,
            Coordinates::TfHalfPixelForNn => (at + 0.5) / self.scale,
            Coordinates::TfCropAndResize if self.output > 1 => {
                let (start, end) = self.roi;
                start * (input - 1.0) + at * (end - start) * (input - 1.0) / (output - 1.0)
            }
            Coordinates::TfCropAndResize => 0.5 * (self.roi.0 + self.roi.1) * (self.input as f64 - 1.0),
        }
    }

    fn clamp(&self, at: f64) -> usize {
        at.clamp(0.0, self.input as f64 - 1.0) as usize
    }
}

/// Each element of an axis takes some memory of its own.
const MAX_AXIS: usize = 1 << 25;

/// `Resize`.
pub(crate) fn resize(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    if call.attributes.flag("antialias", false)? {
        return Err(Error::unsupported("Resize with antialias"));
    }
    let how = coordinates(call)?;
    let axes = plan(call, x, how)?;
    let mode = call.attributes.text("mode", "nearest")?;
    if mode != "nearest" && is_half(x) {
        return widened(call, resize);
    }
    let mut dims = Dims::from_slice(x.shape().dims());
    axes.iter().for_each(|axis| dims[axis.axis] = axis.output);
    output_shape(x.dtype(), &dims)?;
    if axes.iter().any(|axis| axis.output > MAX_AXIS) {
        return Err(Error::too_large(format!("an image of {dims:?}")));
    }
    if axes.iter().any(|axis| axis.input == 0 && axis.output > 0) {
        return Err(Error::invalid("an empty axis cannot be resized"));
    }
    let mut result = x.clone();
    // Shrinking axes first keeps what lies between small.
    let mut order: Vec<&Axis> =
        axes.iter().filter(|axis| axis.output != axis.input || axis.scale != 1.0).collect();
    if how == Coordinates::TfCropAndResize {
        order = axes.iter().collect();
    }
    order.sort_by(|a, b| a.scale.total_cmp(&b.scale));
    for axis in order {
        result = match mode {
            "nearest" => nearest(call, &result, axis, how)?,
            "linear" => {
                let weights = weights(axis, how, |f| [0.0, 1.0 - f, f, 0.0], false);
                by_float!(x.dtype(), |t| call.no_type(t), T => weighted::<T>(&result, axis, &weights))?
            }
            "cubic" => {
                let a = f64::from(call.attributes.float("cubic_coeff_a", -0.75)?);
                let exclude = call.attributes.flag("exclude_outside", false)?;
                let weights = weights(axis, how, |f| cubic(a, f), exclude);
                by_float!(x.dtype(), |t| call.no_type(t), T => weighted::<T>(&result, axis, &weights))?
            }
            other => {
                return Err(Error::invalid(format!("mode is '{other}', expected nearest, linear or cubic")));
            }
        };
    }
    if how == Coordinates::TfCropAndResize {
        result = extrapolated(call, &result, &axes, how)?;
    }
    Ok(vec![result])
}

fn coordinates(call: &Call<'_>) -> Result<Coordinates, Error> {
    Ok(match call.attributes.text("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_half_pixel_for_nn" => Coordinates::TfHalfPixelForNn,
        "tf_crop_and_resize" => Coordinates::TfCropAndResize,
        other => return Err(Error::invalid(format!("coordinate_transformation_mode is '{other}'"))),
    })
}

/// The elements of an optional list of numbers; an empty one counts as left out.
fn numbers(call: &Call<'_>, index: usize) -> Result<Option<Vec<f64>>, Error> {
    let Some(tensor) = call.optional(index).filter(|tensor| tensor.shape().n_elements() > 0) else {
        return Ok(None);
    };
    let wide = cast::to_type(tensor, salver_tensor::DType::F64)?;
    Ok(Some(read::<f64>(&wide).to_vec()))
}

/// Sizes and scales of the axes.
fn plan(call: &Call<'_>, x: &Tensor, how: Coordinates) -> Result<Vec<Axis>, Error> {
    let own = x.shape().dims();
    let axes = match call.attributes.ints("axes")? {
        Some(axes) => layout::axes(axes, own.len())?,
        None => (0..own.len()).collect(),
    };
    let roi = numbers(call, 1)?.unwrap_or_default();
    if how == Coordinates::TfCropAndResize && roi.len() != 2 * axes.len() {
        return Err(Error::invalid(format!("roi has {} entries, expected {}", roi.len(), 2 * axes.len())));
    }
    let part = |i: usize| match how {
        Coordinates::TfCropAndResize => (roi[i], roi[i + axes.len()]),
        _ => (0.0, 1.0),
    };
    let sizes = call.optional(3).filter(|tensor| tensor.shape().n_elements() > 0);
    let (scales, sizes) = match (numbers(call, 2)?, sizes) {
        (Some(scales), None) if scales.len() == axes.len() => (scales, None),
        (None, Some(_)) => {
            let sizes = call.ints(3)?.iter().map(|&n| size(n, "a size")).collect::<Result<Vec<_>, _>>()?;
            if sizes.len() != axes.len() || sizes.iter().any(|&n| n > layout::MAX_ELEMENTS) {
                return Err(Error::invalid(format!("sizes are {sizes:?}, expected {} entries", axes.len())));
            }
            fitted(call, &axes.iter().map(|&axis| own[axis]).collect::<Vec<_>>(), sizes)?
        }
        _ => return Err(Error::invalid(format!("expected either {} scales or as many sizes", axes.len()))),
    };
    let mut planned = Vec::with_capacity(axes.len());
    for (i, &axis) in axes.iter().enumerate() {
        let scale = scales[i];
        if !scale.is_finite() || scale < 0.0 || (scale == 0.0 && own[axis] > 0 && sizes.is_none()) {
            return Err(Error::invalid(format!("scale {scale} of axis {axis}")));
        }
        let (start, end) = part(i);
        let share = if how == Coordinates::TfCropAndResize { end - start } else { 1.0 };
        let output = match &sizes {
            Some(sizes) => sizes[i],
            None => (own[axis] as f64 * share * scale).floor().max(0.0) as usize,
        };
        planned.push(Axis { axis, input: own[axis], output, scale, roi: (start, end) });
    }
    Ok(planned)
}

/// The scales that given sizes mean, and the sizes when the proportions are to be kept.
fn fitted(
    call: &Call<'_>,
    own: &[usize],
    mut sizes: Vec<usize>,
) -> Result<(Vec<f64>, Option<Vec<usize>>), Error> {
    let ratio = |(&to, &from): (&usize, &usize)| if from == 0 { 0.0 } else { to as f64 / from as f64 };
    let mut scales: Vec<f64> = sizes.iter().zip(own).map(ratio).collect();
    let chosen = match call.attributes.text("keep_aspect_ratio_policy", "stretch")? {
        "stretch" => return Ok((scales, Some(sizes))),
        "not_larger" => scales.iter().copied().reduce(f64::min),
        "not_smaller" => scales.iter().copied().reduce(f64::max),
        other => return Err(Error::invalid(format!("keep_aspect_ratio_policy is '{other}'"))),
    };
    let scale = chosen.unwrap_or(1.0);
    scales.fill(scale);
    sizes = own.iter().map(|&n| (n as f64 * scale + 0.5).floor() as usize).collect();
    Ok((scales, Some(sizes)))
}

/// The nearest element along one axis.
fn nearest(call: &Call<'_>, tensor: &Tensor, axis: &Axis, how: Coordinates) -> Result<Tensor, Error> {
    let round: fn(f64) -> f64 = match call.attributes.text("nearest_mode", "round_prefer_floor")? {
        "round_prefer_floor" => |x| (x - 0.5).ceil(),
        "round_prefer_ceil" => |x| (x + 0.5).floor(),
        "floor" => f64::floor,
        "ceil" => f64::ceil,
        other => return Err(Error::invalid(format!("nearest_mode is '{other}'"))),
    };
    let from: Vec<usize> =
        (0..axis.output).map(|o| axis.clamp(round(settled(axis.coordinate(o, how))))).collect();
    let mut dims = Dims::from_slice(tensor.shape().dims());
    let (before, dim, after) = around(&dims, axis.axis);
    dims[axis.axis] = axis.output;
    let shape = output_shape(tensor.dtype(), &dims)?;
    by_width!(tensor.dtype(), T => {
        let source = <T as Datum>::read(tensor);
        let mut out: Vec<T> = Vec::with_capacity(shape.n_elements());
        for i in 0..before {
            for &k in &from {
                let at = (i * dim + k) * after;
                out.extend_from_slice(&source[at..at + after]);
            }
        }
        <T as Datum>::tensor(tensor.dtype(), shape, out)
    })
}

/// A coordinate that missed a half or whole number by rounding only.
fn settled(at: f64) -> f64 {
    let halves = (at * 2.0).round() / 2.0;
    if (at - halves).abs() < 1e-7 * at.abs().max(1.0) { halves } else { at }
}

/// For each output element four input elements and their weights.
fn weights(
    axis: &Axis,
    how: Coordinates,
    of_fraction: impl Fn(f64) -> [f64; 4],
    exclude_outside: bool,
) -> Vec<[(usize, f64); 4]> {
    (0..axis.output)
        .map(|o| {
            let at = axis.coordinate(o, how);
            let below = at.floor();
            let mut weights = of_fraction(at - below);
            if exclude_outside {
                for (i, weight) in weights.iter_mut().enumerate() {
                    if !(0.0..axis.input as f64).contains(&(below + i as f64 - 1.0)) {
                        *weight = 0.0;
                    }
                }
                let sum: f64 = weights.iter().sum();
                weights.iter_mut().for_each(|weight| *weight /= sum);
            }
            std::array::from_fn(|i| (axis.clamp(below + i as f64 - 1.0), weights[i]))
        })
        .collect()
}

/// The weights of four neighbours in cubic interpolation (Keys, 1981), `f` behind the second.
fn cubic(a: f64, f: f64) -> [f64; 4] {
    let near = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
    [far(1.0 + f), near(f), near(1.0 - f), far(2.0 - f)]
}

fn weighted<T: Float>(tensor: &Tensor, axis: &Axis, weights: &[[(usize, f64); 4]]) -> Result<Tensor, Error> {
    let mut dims = Dims::from_slice(tensor.shape().dims());
    let (before, dim, after) = around(&dims, axis.axis);
    dims[axis.axis] = axis.output;
    let shape = output_shape(T::DTYPE, &dims)?;
    let source = read::<T>(tensor);
    let mut out = vec![T::default(); shape.n_elements()];
    if after == 0 || out.is_empty() {
        return Ok(Tensor::from_vec(shape, out)?);
    }
    if after == 1 {
        let wide: Vec<[(usize, T); 4]> =
            weights.iter().map(|taps| taps.map(|(k, w)| (k, T::from_f64(w)))).collect();
        for (line, row) in source.chunks_exact(dim).zip(out.chunks_exact_mut(axis.output)) {
            for (to, taps) in row.iter_mut().zip(&wide) {
                let taps = taps.iter().filter(|(_, weight)| *weight != T::default());
                *to = taps.fold(T::default(), |sum, &(k, weight)| sum.add(weight.mul(line[k])));
            }
        }
        return Ok(Tensor::from_vec(shape, out)?);
    }
    let mut lines = out.chunks_exact_mut(after);
    for i in 0..before {
        for (taps, line) in weights.iter().zip(&mut lines) {
            for &(k, weight) in taps.iter().filter(|(_, weight)| *weight != 0.0) {
                let at = (i * dim + k) * after;
                let weight = T::from_f64(weight);
                line.iter_mut().zip(&source[at..at + after]).for_each(|(to, &x)| *to = to.add(weight.mul(x)));
            }
        }
    }
    Ok(Tensor::from_vec(shape, out)?)
}

/// The tensor with one value wherever a coordinate lies outside of the input.
fn extrapolated(call: &Call<'_>, tensor: &Tensor, axes: &[Axis], how: Coordinates) -> Result<Tensor, Error> {
    fn fill<T: Float>(tensor: &Tensor, outside: &[Vec<bool>], value: T) -> Result<Tensor, Error> {
        let mut out = read::<T>(tensor).into_owned();
        for (axis, flags) in outside.iter().enumerate().filter(|(_, flags)| flags.contains(&true)) {
            let (_, dim, after) = around(tensor.shape().dims(), axis);
            for (i, line) in out.chunks_exact_mut(after.max(1)).enumerate() {
                if flags[i % dim] {
                    line.fill(value);
                }
            }
        }
        Ok(Tensor::from_vec(tensor.shape().clone(), out)?)
    }
    let mut outside = vec![Vec::new(); tensor.shape().rank()];
    for axis in axes {
        let last = axis.input as f64 - 1.0;
        let is_outside = |o| !(0.0..=last).contains(&axis.coordinate(o, how));
        outside[axis.axis] = (0..axis.output).map(is_outside).collect::<Vec<bool>>();
    }
    let value = call.attributes.float("extrapolation_value", 0.0)?;
    by_float!(tensor.dtype(), |t| call.no_type(t), T => fill::<T>(tensor, &outside, T::of(value)))
}
