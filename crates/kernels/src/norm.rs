//! Normalisation with given or own means and deviations. Means and variances are taken in `f64`.

use salver_tensor::{DType, Shape, Tensor};

use crate::call::{Call, read, size};
use crate::layout::{self, Dims, broadcast, broadcast_strides, output_shape};
use crate::matmul::{is_half, widened};
use crate::number::{Float, Number, Real, Ring, by_float};
use crate::{Attributes, Error, Outputs, cast};

/// The elements of a list with one value per channel.
fn per_channel<T: Number>(call: &Call<'_>, index: usize, n: usize) -> Result<Vec<T>, Error> {
    let tensor = call.input(index)?;
    match tensor.to_slice::<T>() {
        Some(elements) if tensor.shape().dims() == [n] => Ok(elements.into_owned()),
        // Statistics may be wider or narrower than the data.
        _ if tensor.shape().dims() == [n] => Ok(read::<T>(&cast::to_type(tensor, T::DTYPE)?).into_owned()),
        _ => Err(Error::invalid(format!("input {index} is {tensor:?}, expected shape [{n}]"))),
    }
}

/// Batch, channels and elements per channel.
fn channels(tensor: &Tensor) -> Result<(usize, usize, usize), Error> {
    match tensor.shape().dims() {
        [n, c, rest @ ..] => Ok((*n, *c, rest.iter().product())),
        [n] => Ok((*n, 1, 1)),
        [] => Err(Error::invalid("the input is a scalar, expected a batch")),
    }
}

fn mean_and_variance<T: Real>(elements: &[T]) -> (f64, f64) {
    let n = elements.len() as f64;
    let mean = elements.iter().map(|x| x.to_f64()).sum::<f64>() / n;
    let variance = elements.iter().map(|x| (x.to_f64() - mean).powi(2)).sum::<f64>() / n;
    (mean, variance)
}

/// `BatchNormalization` as it is in inference.
pub(crate) fn batch(call: &Call<'_>) -> Outputs {
    fn apply<T: Float>(call: &Call<'_>, tensor: &Tensor, epsilon: f64) -> Outputs {
        let (_, c, area) = channels(tensor)?;
        let (scale, bias) = (per_channel::<T>(call, 1, c)?, per_channel::<T>(call, 2, c)?);
        let (mean, variance) = (per_channel::<T>(call, 3, c)?, per_channel::<T>(call, 4, c)?);
        let mut out = read::<T>(tensor).into_owned();
        if area > 0 && !out.is_empty() {
            for (i, line) in out.chunks_exact_mut(area).enumerate() {
                let i = i % c;
                let factor = T::from_f64(scale[i].to_f64() / (variance[i].to_f64() + epsilon).sqrt());
                let (mean, bias) = (mean[i], bias[i]);
                line.iter_mut().for_each(|x| *x = x.sub(mean).mul(factor).add(bias));
            }
        }
        Ok(vec![Tensor::from_vec(tensor.shape().clone(), out)?])
    }
    let tensor = call.input(0)?;
    if call.attributes.flag("training_mode", false)? {
        return Err(Error::unsupported("BatchNormalization in training"));
    }
    if is_half(tensor) {
        return widened(call, batch);
    }
    let epsilon = f64::from(call.attributes.float("epsilon", 1e-5)?);
    by_float!(tensor.dtype(), |t| call.no_type(t), T => apply::<T>(call, tensor, epsilon))
}

/// `InstanceNormalization`: each channel of each example by its own mean and deviation.
pub(crate) fn instance(call: &Call<'_>) -> Outputs {
    fn apply<T: Float>(call: &Call<'_>, tensor: &Tensor, epsilon: f64) -> Outputs {
        let (_, c, area) = channels(tensor)?;
        let (scale, bias) = (per_channel::<T>(call, 1, c)?, per_channel::<T>(call, 2, c)?);
        let mut out = read::<T>(tensor).into_owned();
        if area > 0 && !out.is_empty() {
            for (i, line) in out.chunks_exact_mut(area).enumerate() {
                let (mean, variance) = mean_and_variance(line);
                let factor = scale[i % c].to_f64() / (variance + epsilon).sqrt();
                let bias = bias[i % c].to_f64();
                line.iter_mut().for_each(|x| *x = T::from_f64((x.to_f64() - mean) * factor + bias));
            }
        }
        Ok(vec![Tensor::from_vec(tensor.shape().clone(), out)?])
    }
    let tensor = call.input(0)?;
    if is_half(tensor) {
        return widened(call, instance);
    }
    let epsilon = f64::from(call.attributes.float("epsilon", 1e-5)?);
    by_float!(tensor.dtype(), |t| call.no_type(t), T => apply::<T>(call, tensor, epsilon))
}

/// `LayerNormalization` over the axes from `axis` on; also gives the means and the inverse deviations.
pub(crate) fn layer(call: &Call<'_>) -> Outputs {
    fn apply<T: Float>(call: &Call<'_>, tensor: &Tensor, epsilon: f64) -> Outputs {
        let dims = tensor.shape().dims();
        let axis = call.axis(-1, dims.len())?;
        let inner = &dims[axis..];
        let area: usize = inner.iter().product();
        let spread = |index: usize| -> Result<Option<Vec<T>>, Error> {
            let Some(tensor) = call.optional(index) else { return Ok(None) };
            let own = tensor.shape().dims();
            if tensor.dtype() != T::DTYPE || broadcast(own, inner)?[..] != *inner {
                return Err(Error::invalid(format!("input {index} is {tensor:?}, expected shape {inner:?}")));
            }
            let source = read::<T>(tensor);
            Ok(Some(layout::copy_strided(&source, 0, inner, &broadcast_strides(own, inner))))
        };
        let (scale, bias) = (spread(1)?, spread(2)?);
        let mut out = read::<T>(tensor).into_owned();
        let mut statistics = [Vec::new(), Vec::new()];
        if !out.is_empty() {
            for line in out.chunks_exact_mut(area) {
                let (mean, variance) = mean_and_variance(line);
                let factor = 1.0 / (variance + epsilon).sqrt();
                line.iter_mut().for_each(|x| *x = T::from_f64((x.to_f64() - mean) * factor));
                if let Some(scale) = &scale {
                    line.iter_mut().zip(scale).for_each(|(x, &s)| *x = Ring::mul(*x, s));
                }
                if let Some(bias) = &bias {
                    line.iter_mut().zip(bias).for_each(|(x, &b)| *x = Ring::add(*x, b));
                }
                statistics[0].push(mean as f32);
                statistics[1].push(factor as f32);
            }
        }
        let mut outputs = vec![Tensor::from_vec(tensor.shape().clone(), out)?];
        let mut kept = Dims::from_slice(dims);
        kept[axis..].fill(1);
        let shape = Shape::new(&kept)?;
        for values in statistics.into_iter().take(call.n_outputs.saturating_sub(1)) {
            outputs.push(Tensor::from_vec(shape.clone(), values)?);
        }
        Ok(outputs)
    }
    let tensor = call.input(0)?;
    if is_half(tensor) {
        if call.n_outputs > 1 {
            return Err(Error::unsupported("the statistics of LayerNormalization of half-width floats"));
        }
        return widened(call, layer);
    }
    let epsilon = f64::from(call.attributes.float("epsilon", 1e-5)?);
    by_float!(tensor.dtype(), |t| call.no_type(t), T => apply::<T>(call, tensor, epsilon))
}

/// `MeanVarianceNormalization` over `axes` (batch and space unless given).
pub(crate) fn mean_variance(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    if !matches!(tensor.dtype(), DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
        return Err(call.no_type(tensor.dtype()));
    }
    let axes = call.attributes.ints("axes")?.unwrap_or(&[0, 2, 3]);
    let axes = Tensor::from_vec(Shape::vector(axes.len())?, axes.to_vec())?;
    let op = |op: &str, a: &Tensor, b: &Tensor| -> Result<Tensor, Error> {
        let mut outputs = crate::run("", op, &Attributes::new(), &[Some(a), Some(b)], 1)?;
        outputs.pop().ok_or_else(|| Error::invalid("no output"))
    };
    let wide = cast::to_type(tensor, DType::F64)?;
    let centred = op("Sub", &wide, &op("ReduceMean", &wide, &axes)?)?;
    let variance = op("ReduceMean", &op("Mul", &centred, &centred)?, &axes)?;
    let deviation: Vec<f64> = read::<f64>(&variance).iter().map(|x| x.sqrt() + 1e-9).collect();
    let deviation = Tensor::from_vec(variance.shape().clone(), deviation)?;
    Ok(vec![cast::to_type(&op("Div", &centred, &deviation)?, tensor.dtype())?])
}

/// `LRN`: divided by a power of the sum of squares over neighbouring channels.
pub(crate) fn local_response(call: &Call<'_>) -> Outputs {
    fn apply<T: Float>(tensor: &Tensor, reach: [usize; 2], scale: f64, beta: f64, bias: f64) -> Outputs {
        let (n, c, area) = channels(tensor)?;
        let source = read::<T>(tensor);
        let shape = output_shape(T::DTYPE, tensor.shape().dims())?;
        let mut out = Vec::with_capacity(source.len());
        for i in (0..n * c).filter(|_| area > 0) {
            let (example, channel) = (i / c * c, i % c);
            let first = example + channel.saturating_sub(reach[0]);
            let last = example + channel.saturating_add(reach[1]).min(c - 1);
            for j in 0..area {
                let squares: f64 = (first..=last).map(|k| source[k * area + j].to_f64().powi(2)).sum();
                out.push(T::from_f64(source[i * area + j].to_f64() / (bias + scale * squares).powf(beta)));
            }
        }
        Ok(vec![Tensor::from_vec(shape, out)?])
    }
    let tensor = call.input(0)?;
    if is_half(tensor) {
        return widened(call, local_response);
    }
    let float = |name, default| call.attributes.float(name, default).map(f64::from);
    let (alpha, beta, bias) = (float("alpha", 1e-4)?, float("beta", 0.75)?, float("bias", 1.0)?);
    let n = size(call.attributes.int("size", 0)?, "size")?;
    if n == 0 {
        return Err(Error::invalid("size is 0, expected 1 or more"));
    }
    let reach = [(n - 1) / 2, n / 2];
    by_float!(tensor.dtype(), |t| call.no_type(t), T => apply::<T>(tensor, reach, alpha / n as f64, beta, bias))
}
