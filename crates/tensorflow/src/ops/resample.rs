//! Resizing of images as products with matrices of weights: what comes out of a row or column of pixels is the same
//! linear combination everywhere. It is exact where ONNX's `Resize` only comes near, and engines have products.

use salver_graph::ValueId;
use salver_tensor::{DType, Shape, Tensor};

use super::context::{Context, Layout};
use crate::Error;

/// Larger matrices are not made.
const MAX_WEIGHTS: usize = 1 << 24;

/// The weights along one axis: a row per pixel that comes out, a column per pixel that goes in.
pub(super) struct Weights {
    n_in: usize,
    rows: Vec<Vec<f32>>,
}

impl Weights {
    fn new(n_in: usize, n_out: usize) -> Result<Weights, Error> {
        if n_in == 0 || n_out == 0 || n_in.saturating_mul(n_out) > MAX_WEIGHTS {
            return Err(Error::unsupported(format!("resizing from {n_in} to {n_out} pixels")));
        }
        Ok(Weights { n_in, rows: vec![vec![0.0; n_in]; n_out] })
    }

    fn tensor(&self) -> Result<Tensor, Error> {
        let shape =
            Shape::new(&[self.rows.len(), self.n_in]).map_err(|error| Error::invalid(error.to_string()))?;
        Tensor::from_vec(shape, self.rows.concat()).map_err(|error| Error::invalid(error.to_string()))
    }
}

/// Applies weights to the height and width of images with channels last.
pub(super) fn apply(
    c: &mut Context<'_>,
    x: ValueId,
    height: &Weights,
    width: &Weights,
) -> Result<ValueId, Error> {
    let x = c.cast(x, DType::F32)?;
    let data = c.channels_to_front(x, Layout::ChannelsLast, 4)?;
    let across = c.builder.constant("width_weights", width.tensor()?);
    let across = c.transpose(across, &[1, 0])?;
    let down = c.builder.constant("height_weights", height.tensor()?);
    let data = c.op("MatMul", &[data, across])?;
    let data = c.op("MatMul", &[down, data])?;
    c.channels_to_back(data, Layout::ChannelsLast, 4)
}

/// How pixels that come out lie over those that go in.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub(super) align_corners: bool,
    pub(super) half_pixel_centers: bool,
}

impl Places {
    #[expect(clippy::cast_precision_loss, reason = "pictures have fewer pixels than f32 counts")]
    fn scale(self, n_in: usize, n_out: usize) -> f32 {
        match self.align_corners && n_out > 1 {
            true => (n_in - 1) as f32 / (n_out - 1) as f32,
            false => n_in as f32 / n_out as f32,
        }
    }
}

/// The steps of TensorFlow's table of cubic weights.
const STEPS: usize = 1024;

/// Cubic interpolation as `tensorflow/core/kernels/image/resize_bicubic_op.cc` has it, with weights from a table: with
/// centres by Keys' kernel, leaving out what lies outside; else by an older one, repeating the edge.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "as TensorFlow computes it, in f32"
)]
pub(super) fn cubic(n_in: usize, n_out: usize, places: Places) -> Result<Weights, Error> {
    let mut weights = Weights::new(n_in, n_out)?;
    let a = if places.half_pixel_centers { -0.5f32 } else { -0.75 };
    let near = |at: usize| {
        let x = at as f32 / STEPS as f32;
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    };
    let far = |at: usize| {
        let x = at as f32 / STEPS as f32 + 1.0;
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    };
    let scale = places.scale(n_in, n_out);
    let last = n_in as i64 - 1;
    for (at, row) in weights.rows.iter_mut().enumerate() {
        let place = match places.half_pixel_centers {
            true => (at as f32 + 0.5) * scale - 0.5,
            false => at as f32 * scale,
        };
        let from = place.floor();
        let step = (((place - from) * STEPS as f32).round_ties_even() as usize).min(STEPS);
        let from = from as i64;
        let four = [far(step), near(step), near(STEPS - step), far(STEPS - step)];
        let mut total = 0.0f32;
        for (source, weight) in (from - 1..).zip(four) {
            let bounded = source.clamp(0, last);
            if !places.half_pixel_centers || bounded == source {
                row[bounded as usize] += weight;
                total += weight;
            }
        }
        if places.half_pixel_centers && total.abs() >= 1000.0 * f32::MIN_POSITIVE {
            row.iter_mut().for_each(|weight| *weight /= total);
        }
    }
    Ok(weights)
}

/// Means over areas as `tensorflow/core/kernels/image/resize_area_op.cc` has them.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "as TensorFlow computes it, in f32"
)]
pub(super) fn area(n_in: usize, n_out: usize, places: Places) -> Result<Weights, Error> {
    let mut weights = Weights::new(n_in, n_out)?;
    let scale = places.scale(n_in, n_out);
    for (at, row) in weights.rows.iter_mut().enumerate() {
        let (start, end) = (at as f32 * scale, (at + 1) as f32 * scale);
        for pixel in start.floor() as usize..end.ceil() as usize {
            let (left, right) = (pixel as f32, (pixel + 1) as f32);
            let covered = match (left < start, right > end) {
                (true, true) => scale,
                (true, false) => right - start,
                (false, true) => end - left,
                (false, false) => 1.0,
            };
            row[pixel.min(n_in - 1)] += covered / scale;
        }
    }
    Ok(weights)
}

/// A kernel with the radius within which it is not 0.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    radius: f32,
    value: fn(f32, f32) -> f32,
}

impl Kernel {
    /// The kernel of that name (`tensorflow/core/util/image_resizer_state.h`, `sampling_kernels.cc`).
    pub(super) fn of(name: &str) -> Result<Kernel, Error> {
        let (radius, value): (f32, fn(f32, f32) -> f32) = match name {
            "lanczos1" => (1.0, lanczos),
            "lanczos3" => (3.0, lanczos),
            "lanczos5" => (5.0, lanczos),
            "gaussian" => (1.5, |x, radius| {
                let sigma = radius / 3.0;
                if x >= radius { 0.0 } else { (-x * x / (2.0 * sigma * sigma)).exp() }
            }),
            "box" => (0.5, |x, _| {
                if x < 0.5 {
                    1.0
                } else if x == 0.5 {
                    0.5
                } else {
                    0.0
                }
            }),
            "triangle" => (1.0, |x, _| (1.0 - x).max(0.0)),
            "keyscubic" => (2.0, |x, _| match x {
                x if x >= 2.0 => 0.0,
                x if x >= 1.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
                x => (1.5 * x - 2.5) * x * x + 1.0,
            }),
            "mitchellcubic" => (2.0, |x, _| match x {
                x if x >= 2.0 => 0.0,
                x if x >= 1.0 => ((-7.0 / 18.0 * x + 2.0) * x - 10.0 / 3.0) * x + 16.0 / 9.0,
                x => (7.0 / 6.0 * x - 2.0) * x * x + 8.0 / 9.0,
            }),
            other => return Err(Error::unsupported(format!("the kernel '{other}'"))),
        };
        Ok(Kernel { radius, value })
    }
}

fn lanczos(x: f32, radius: f32) -> f32 {
    if x > radius {
        return 0.0;
    }
    if x <= 1e-3 {
        return 1.0;
    }
    let turn = std::f32::consts::PI * x;
    radius * turn.sin() * (turn / radius).sin() / (turn * turn)
}

/// Scaling and moving as `tensorflow/core/kernels/image/scale_and_translate_op.cc` has it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "as TensorFlow computes it, in f32"
)]
pub(super) fn scaled(
    n_in: usize,
    n_out: usize,
    kernel: Kernel,
    (scale, move_by): (f32, f32),
    antialias: bool,
) -> Result<Weights, Error> {
    let mut weights = Weights::new(n_in, n_out)?;
    let inverse = 1.0 / scale;
    if !inverse.is_finite() || !move_by.is_finite() {
        return Err(Error::invalid(format!("a scale of {scale} and a move by {move_by}")));
    }
    let kernel_scale = if antialias { inverse.max(1.0) } else { 1.0 };
    let reach = kernel.radius * kernel_scale;
    for (at, row) in weights.rows.iter_mut().enumerate() {
        let place = (at as f32 + 0.5) * inverse - inverse * move_by;
        if place < 0.0 || place > n_in as f32 {
            continue;
        }
        let start = (place - reach - 0.5).ceil().max(0.0) as usize;
        let end = ((place + reach - 0.5).floor().max(-1.0) as i64 + 1).clamp(0, n_in as i64) as usize;
        let mut total = 0.0f32;
        for (pixel, weight) in row.iter_mut().enumerate().take(end).skip(start) {
            let distance = (pixel as f32 + 0.5 - place) / kernel_scale;
            *weight = (kernel.value)(distance.abs(), kernel.radius);
            total += *weight;
        }
        if total.abs() >= 1000.0 * f32::MIN_POSITIVE {
            row.iter_mut().for_each(|weight| *weight /= total);
        }
    }
    Ok(weights)
}
