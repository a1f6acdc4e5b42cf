//! Convolutions and transposed convolutions over 1 to 3 axes, as products of matrices.

use salver_tensor::Tensor;

use crate::call::{Call, read, size};
use crate::layout::{Dims, output_shape, scratch};
use crate::matmul::{Matrix, Product, is_half, widened};
use crate::number::by_float;
use crate::window::{Axis, Window};
use crate::{Error, Outputs};

/// Elements of unfolded windows that are held at a time, as far as whole rows of places allow.
const TILE: usize = 1 << 18;

/// The sizes of a convolution in groups.
struct Sizes {
    batch: usize,
    groups: usize,
    /// Channels of one group on the side of the image and on that of the maps.
    channels: usize,
    maps: usize,
}

/// Input, weights and bias, checked against each other.
fn operands<'a>(call: &Call<'a>) -> Result<(&'a Tensor, &'a Tensor, Option<&'a Tensor>), Error> {
    let (x, w, bias) = (call.input(0)?, call.input(1)?, call.optional(2));
    if [Some(w), bias].into_iter().flatten().any(|input| input.dtype() != x.dtype()) {
        return Err(Error::invalid("inputs of different types"));
    }
    if x.shape().rank() < 3 || x.shape().rank() != w.shape().rank() {
        return Err(misfit(x, w));
    }
    Ok((x, w, bias))
}

fn misfit(x: &Tensor, w: &Tensor) -> Error {
    Error::invalid(format!("weights of shape {} do not fit an input of shape {}", w.shape(), x.shape()))
}

fn groups(call: &Call<'_>) -> Result<usize, Error> {
    match size(call.attributes.int("group", 1)?, "group")? {
        0 => Err(Error::invalid("group is 0, expected 1 or more")),
        groups => Ok(groups),
    }
}

/// The output filled with the bias.
fn biased<T: Product>(bias: Option<&Tensor>, dims: &[usize]) -> Result<Vec<T>, Error> {
    let shape = output_shape(T::DTYPE, dims)?;
    let mut out = vec![T::zeroed(); shape.n_elements()];
    let Some(bias) = bias else { return Ok(out) };
    if bias.shape().dims() != [dims[1]] {
        return Err(Error::invalid(format!("bias of shape {}, expected [{}]", bias.shape(), dims[1])));
    }
    let area: usize = dims[2..].iter().product();
    if area > 0 {
        let bias = read::<T>(bias);
        out.chunks_exact_mut(area).zip(bias.iter().cycle()).for_each(|(map, &bias)| map.fill(bias));
    }
    Ok(out)
}

/// `Conv`.
pub(crate) fn conv(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    if is_half(x) {
        return widened(call, conv);
    }
    by_float!(x.dtype(), |t| call.no_type(t), T => convolve::<T>(call))
}

fn convolve<T: Product>(call: &Call<'_>) -> Outputs {
    let (x, w, bias) = operands(call)?;
    let (x_dims, w_dims) = (x.shape().dims(), w.shape().dims());
    let groups = groups(call)?;
    let fits = w_dims[0] % groups == 0 && w_dims[1].checked_mul(groups) == Some(x_dims[1]);
    if !fits {
        return Err(misfit(x, w));
    }
    let window = Window::new(call, x_dims.len() - 2, Some(&w_dims[2..]))?;
    let axes = window.over(&x_dims[2..], false)?;
    let mut dims = Dims::from_slice(&[x_dims[0], w_dims[0]]);
    dims.extend(axes[5 - x_dims.len()..].iter().map(|axis| axis.output));
    let mut out = biased::<T>(bias, &dims)?;
    let sizes = Sizes { batch: x_dims[0], groups, channels: w_dims[1], maps: w_dims[0] / groups };
    if !out.is_empty() && sizes.channels > 0 {
        accumulate(&read::<T>(x), &read::<T>(w), &mut out, &sizes, &axes)?;
    }
    Ok(vec![Tensor::from_vec(output_shape(T::DTYPE, &dims)?, out)?])
}

/// Adds the convolution to `out`.
fn accumulate<T: Product>(
    x: &[T],
    w: &[T],
    out: &mut [T],
    sizes: &Sizes,
    axes: &[Axis; 3],
) -> Result<(), Error> {
    let area: usize = axes.iter().map(|axis| axis.input).product();
    let places: usize = axes.iter().map(|axis| axis.output).product();
    let taps: usize = axes.iter().map(|axis| axis.kernel).product();
    let depth = sizes.channels * taps;
    let pointwise =
        axes.iter().all(|axis| (axis.kernel, axis.stride, axis.before, axis.after) == (1, 1, 0, 0));
    let width = axes[2].output;
    let rows = places / width;
    let tile_rows = (TILE / depth / width).clamp(1, rows);
    let mut columns = Vec::new();
    if !pointwise {
        columns = vec![T::zeroed(); scratch(&[depth, tile_rows, width], size_of::<T>())?];
    }
    for i in 0..sizes.batch * sizes.groups {
        let image = &x[i * sizes.channels * area..(i + 1) * sizes.channels * area];
        let group = i % sizes.groups;
        let weights = &w[group * sizes.maps * depth..(group + 1) * sizes.maps * depth];
        let weights = Matrix::rows(weights, depth);
        let maps = &mut out[i * sizes.maps * places..(i + 1) * sizes.maps * places];
        if pointwise {
            T::multiply_add([sizes.maps, depth, places], weights, Matrix::rows(image, places), maps, places);
            continue;
        }
        for first in (0..rows).step_by(tile_rows) {
            let n = tile_rows.min(rows - first);
            unfold(image, area, &mut columns[..depth * n * width], axes, first..first + n);
            let columns = Matrix::rows(&columns, n * width);
            T::multiply_add(
                [sizes.maps, depth, n * width],
                weights,
                columns,
                &mut maps[first * width..],
                places,
            );
        }
    }
    Ok(())
}

/// Calls `visit` for each row of places of each element of the window: with the row's number, where its line of the
/// image begins, if it lies inside, and the element's position along the last axis.
fn each_line(
    axes: &[Axis; 3],
    channels: usize,
    rows: std::ops::Range<usize>,
    mut visit: impl FnMut(usize, Option<usize>, usize),
) {
    let [depth, height, width] = axes;
    let area = depth.input * height.input * width.input;
    let mut line = 0;
    for channel in 0..channels {
        for (kd, kh, kw) in taps(axes) {
            for row in rows.clone() {
                let (od, oh) = (row / height.output, row % height.output);
                let at = depth.position(od, kd).zip(height.position(oh, kh));
                let start = at.map(|(d, h)| channel * area + (d * height.input + h) * width.input);
                visit(line, start, kw);
                line += 1;
            }
        }
    }
}

fn taps(axes: &[Axis; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    let [d, h, w] = axes.map(|axis| axis.kernel);
    (0..d).flat_map(move |kd| (0..h).flat_map(move |kh| (0..w).map(move |kw| (kd, kh, kw))))
}

/// The places along the last axis whose element `kw` lies inside, and the position of the first.
fn inside(axis: &Axis, kw: usize) -> (std::ops::Range<usize>, usize) {
    let shift = kw * axis.dilation;
    let first = axis.before.saturating_sub(shift).div_ceil(axis.stride).min(axis.output);
    let end =
        (axis.input + axis.before).saturating_sub(shift).div_ceil(axis.stride).clamp(first, axis.output);
    (first..end, (first * axis.stride + shift).saturating_sub(axis.before))
}

/// One column per place, one row per channel and element of the window.
fn unfold<T: Product>(
    image: &[T],
    area: usize,
    columns: &mut [T],
    axes: &[Axis; 3],
    rows: std::ops::Range<usize>,
) {
    let width = axes[2];
    each_line(axes, image.len() / area.max(1), rows, |line, start, kw| {
        let line = &mut columns[line * width.output..(line + 1) * width.output];
        let (places, from) = inside(&width, kw);
        let Some(start) = start.filter(|_| !places.is_empty()) else {
            line.fill(T::zeroed());
            return;
        };
        line[..places.start].fill(T::zeroed());
        line[places.end..].fill(T::zeroed());
        let source = &image[start + from..start + width.input];
        match width.stride {
            1 => line[places.clone()].copy_from_slice(&source[..places.len()]),
            stride => line[places].iter_mut().zip(source.iter().step_by(stride)).for_each(|(to, &x)| *to = x),
        }
    });
}

/// `ConvTranspose`.
pub(crate) fn conv_transpose(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    if is_half(x) {
        return widened(call, conv_transpose);
    }
    by_float!(x.dtype(), |t| call.no_type(t), T => transposed::<T>(call))
}

fn transposed<T: Product>(call: &Call<'_>) -> Outputs {
    let (x, w, bias) = operands(call)?;
    let (x_dims, w_dims) = (x.shape().dims(), w.shape().dims());
    let n_axes = x_dims.len() - 2;
    let groups = groups(call)?;
    if w_dims[0] != x_dims[1] || w_dims[0] % groups != 0 {
        return Err(misfit(x, w));
    }
    let window = Window::new(call, n_axes, Some(&w_dims[2..]))?;
    let list = |name: &str, skip: usize| -> Result<Option<Vec<usize>>, Error> {
        let Some(values) = call.attributes.ints(name)? else { return Ok(None) };
        let values = if values.len() == n_axes + skip { &values[skip..] } else { values };
        if values.len() != n_axes || values.iter().any(|&v| v > 1 << 32) {
            return Err(Error::invalid(format!("{name} is {values:?}, expected {n_axes} sizes")));
        }
        values.iter().map(|&v| size(v, name)).collect::<Result<_, _>>().map(Some)
    };
    let output_padding = list("output_padding", 0)?.unwrap_or_else(|| vec![0; n_axes]);
    let axes = window.transposed(&x_dims[2..], &output_padding, list("output_shape", 2)?.as_deref())?;
    let n_maps = w_dims[1].checked_mul(groups).ok_or_else(|| misfit(x, w))?;
    let mut dims = Dims::from_slice(&[x_dims[0], n_maps]);
    dims.extend(axes[3 - n_axes..].iter().map(|axis| axis.input));
    let mut out = biased::<T>(bias, &dims)?;
    let sizes = Sizes { batch: x_dims[0], groups, channels: w_dims[1], maps: x_dims[1] / groups };
    let (x, w) = (read::<T>(x), read::<T>(w));
    if !out.is_empty() && !x.is_empty() {
        scatter(&x, &w, &mut out, &sizes, &axes)?;
    }
    Ok(vec![Tensor::from_vec(output_shape(T::DTYPE, &dims)?, out)?])
}

/// Adds what each place of `x` writes to `out`.
fn scatter<T: Product>(
    x: &[T],
    w: &[T],
    out: &mut [T],
    sizes: &Sizes,
    axes: &[Axis; 3],
) -> Result<(), Error> {
    let area: usize = axes.iter().map(|axis| axis.input).product();
    let places: usize = axes.iter().map(|axis| axis.output).product();
    let taps: usize = axes.iter().map(|axis| axis.kernel).product();
    let depth = sizes.channels * taps;
    let mut columns = vec![T::zeroed(); scratch(&[depth, places], size_of::<T>())?];
    let width = axes[2];
    for i in 0..sizes.batch * sizes.groups {
        let maps = &x[i * sizes.maps * places..(i + 1) * sizes.maps * places];
        let group = i % sizes.groups;
        let weights = &w[group * sizes.maps * depth..(group + 1) * sizes.maps * depth];
        let image = &mut out[i * sizes.channels * area..(i + 1) * sizes.channels * area];
        columns.fill(T::zeroed());
        let weights = Matrix::rows(weights, depth).transposed();
        T::multiply_add(
            [depth, sizes.maps, places],
            weights,
            Matrix::rows(maps, places),
            &mut columns,
            places,
        );
        each_line(axes, sizes.channels, 0..places / width.output, |line, start, kw| {
            let line = &columns[line * width.output..(line + 1) * width.output];
            let (places, from) = inside(&width, kw);
            let Some(start) = start.filter(|_| !places.is_empty()) else { return };
            let target = image[start + from..start + width.input].iter_mut().step_by(width.stride);
            target.zip(&line[places]).for_each(|(to, &x)| *to = to.add(x));
        });
    }
    Ok(())
}
