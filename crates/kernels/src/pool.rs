//! Pooling over 1 to 3 axes.

use salver_tensor::{DType, Tensor};

use crate::call::{Call, read};
use crate::layout::{Dims, output_shape};
use crate::matmul::{is_half, widened};
use crate::number::{Float, Number, by_float, by_type};
use crate::window::{Axis, Window};
use crate::{Attributes, Error, Outputs};

/// The window of a pooling operator and the dimensions of its result.
fn window<'a>(call: &Call<'a>) -> Result<(&'a Tensor, [Axis; 3], Dims), Error> {
    let x = call.input(0)?;
    let dims = x.shape().dims();
    if dims.len() < 3 {
        return Err(Error::invalid(format!("input has shape {}, expected a batch of images", x.shape())));
    }
    let ceil = call.attributes.flag("ceil_mode", false)?;
    let axes = Window::new(call, dims.len() - 2, None)?.over(&dims[2..], ceil)?;
    let mut result = Dims::from_slice(&dims[..2]);
    result.extend(axes[5 - dims.len()..].iter().map(|axis| axis.output));
    Ok((x, axes, result))
}

/// Folds the elements of each window of one channel that lie inside: `step` is given what was gathered so far and the
/// position of an element, `done` the place of the window and what was gathered.
fn each_window<A>(
    axes: &[Axis; 3],
    start: impl Fn() -> A,
    mut step: impl FnMut(&mut A, usize),
    mut done: impl FnMut([usize; 3], A),
) {
    let [depth, height, width] = axes;
    for d in 0..depth.output {
        for h in 0..height.output {
            for w in 0..width.output {
                let mut gathered = start();
                for at_d in depth.inside(d) {
                    for at_h in height.inside(h) {
                        let line = (at_d * height.input + at_h) * width.input;
                        width.inside(w).for_each(|at_w| step(&mut gathered, line + at_w));
                    }
                }
                done([d, h, w], gathered);
            }
        }
    }
}

/// `MaxPool`; the second output holds the position of each maximum in the whole input.
pub(crate) fn max(call: &Call<'_>) -> Outputs {
    fn apply<T: Number>(call: &Call<'_>, x: &Tensor, axes: &[Axis; 3], dims: &[usize]) -> Outputs {
        let shape = output_shape(T::DTYPE, dims)?;
        let source = read::<T>(x);
        let area: usize = axes.iter().map(|axis| axis.input).product();
        let with_positions = call.n_outputs > 1;
        let column_major = call.attributes.flag("storage_order", false)?;
        if with_positions && column_major {
            return Err(Error::unsupported("MaxPool with positions in column-major order"));
        }
        let mut values: Vec<T> = Vec::with_capacity(shape.n_elements());
        let mut indices: Vec<i64> = Vec::new();
        if with_positions {
            indices.reserve_exact(output_shape(DType::I64, dims)?.n_elements());
        }
        if area > 0 {
            for (channel, image) in source.chunks_exact(area).enumerate() {
                let look = |best: &mut (T, Option<usize>), at: usize| {
                    let x = image[at];
                    if x > best.0 || x.is_nan() || best.1.is_none() {
                        *best = (x, Some(at));
                    }
                };
                each_window(
                    axes,
                    || (T::LOWEST, None),
                    look,
                    |_, (best, at)| {
                        values.push(best);
                        if with_positions {
                            indices.push(at.map_or(0, |at| (channel * area + at) as i64));
                        }
                    },
                );
            }
        }
        let mut outputs = vec![Tensor::from_vec(shape, values)?];
        if with_positions {
            outputs.push(Tensor::from_vec(output_shape(DType::I64, dims)?, indices)?);
        }
        Ok(outputs)
    }
    let (x, axes, dims) = window(call)?;
    if is_half(x) {
        return widened(call, max);
    }
    by_type!(
        x.dtype(), |t| call.no_type(t),
        [F32 = f32, F64 = f64, I8 = i8, U8 = u8, I16 = i16, I32 = i32, I64 = i64],
        T => apply::<T>(call, x, &axes, &dims)
    )
}

/// `AveragePool`, `LpPool`.
pub(crate) fn mean(call: &Call<'_>) -> Outputs {
    /// Sums `term` of the elements; `done` makes the result of the place, the sum and the number of elements.
    fn apply<T: Float>(
        x: &Tensor,
        axes: &[Axis; 3],
        dims: &[usize],
        term: impl Fn(f64) -> f64,
        done: impl Fn([usize; 3], f64, f64) -> f64,
    ) -> Outputs {
        let shape = output_shape(T::DTYPE, dims)?;
        let source = read::<T>(x);
        let area: usize = axes.iter().map(|axis| axis.input).product();
        let mut out: Vec<T> = Vec::with_capacity(shape.n_elements());
        for image in source.chunks_exact(area.max(1)) {
            let add = |(sum, n): &mut (f64, f64), at: usize| {
                *sum += term(image[at].to_f64());
                *n += 1.0;
            };
            each_window(
                axes,
                || (0.0, 0.0),
                add,
                |place, (sum, n)| out.push(T::from_f64(done(place, sum, n))),
            );
        }
        Ok(vec![Tensor::from_vec(shape, out)?])
    }
    let (x, axes, dims) = window(call)?;
    if is_half(x) {
        return widened(call, mean);
    }
    if call.op == "LpPool" {
        let p = power(call)?;
        return by_float!(x.dtype(), |t| call.no_type(t), T => {
            apply::<T>(x, &axes, &dims, |x| x.abs().powf(p), |_, sum, _| sum.powf(1.0 / p))
        });
    }
    let with_padding = call.attributes.flag("count_include_pad", false)?;
    let average = |place: [usize; 3], sum: f64, n: f64| {
        let n = match with_padding {
            true => (0..3).map(|i| axes[i].within_padding(place[i]) as f64).product(),
            false => n,
        };
        if n == 0.0 { 0.0 } else { sum / n }
    };
    by_float!(x.dtype(), |t| call.no_type(t), T => apply::<T>(x, &axes, &dims, |x| x, average))
}

fn power(call: &Call<'_>) -> Result<f64, Error> {
    match call.attributes.int("p", 2)? {
        p if p > 0 => Ok(p as f64),
        p => Err(Error::invalid(format!("p is {p}, expected 1 or more"))),
    }
}

/// `GlobalAveragePool`, `GlobalMaxPool`, `GlobalLpPool`: over all spatial axes.
pub(crate) fn global(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let rank = x.shape().rank();
    if rank < 2 {
        return Err(Error::invalid(format!("input has shape {}, expected a batch of channels", x.shape())));
    }
    if rank == 2 {
        return Ok(vec![x.clone()]);
    }
    let axes: Vec<i64> = (2..rank as i64).collect();
    let reduce = |op: &str, x: &Tensor| {
        crate::run("", op, &Attributes::new().with("axes", axes.clone()), &[Some(x)], 1)
    };
    match (call.op, x.dtype()) {
        (_, DType::F16 | DType::BF16 | DType::F32 | DType::F64) => {}
        (_, other) => return Err(call.no_type(other)),
    }
    match (call.op, power(call)? as i64) {
        ("GlobalAveragePool", _) => reduce("ReduceMean", x),
        ("GlobalMaxPool", _) => reduce("ReduceMax", x),
        (_, 1) => reduce("ReduceL1", x),
        (_, 2) => reduce("ReduceL2", x),
        (_, p) => Err(Error::unsupported(format!("GlobalLpPool with p = {p}"))),
    }
}
