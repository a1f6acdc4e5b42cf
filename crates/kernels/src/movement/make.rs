//! Tensors made from sizes and single values.

use bytes::Bytes;
use salver_tensor::{DType, Element, Shape, Tensor};

use super::shape::wanted_dims;
use crate::call::{Call, read};
use crate::cast;
use crate::datum::{Datum, by_width};
use crate::layout::{self, Dims, around, output_shape};
use crate::number::{Int, Number, Real, by_int, by_real};
use crate::{Attribute, Error, Outputs};

/// `Constant`, in each of its forms.
pub(crate) fn constant(call: &Call<'_>) -> Outputs {
    let mut found = call.attributes.iter().filter(|(name, _)| name.starts_with("value"));
    let (Some((_, attribute)), None) = (found.next(), found.next()) else {
        return Err(Error::invalid("Constant has not exactly one value"));
    };
    let text = |text: &String| Bytes::from(text.clone());
    let tensor = match attribute {
        Attribute::Tensor(tensor) => tensor.clone(),
        Attribute::Int(value) => Tensor::from_vec(Shape::scalar(), vec![*value])?,
        Attribute::Float(value) => Tensor::from_vec(Shape::scalar(), vec![*value])?,
        Attribute::String(value) => Tensor::from_strings(Shape::scalar(), vec![text(value)])?,
        Attribute::Ints(values) => Tensor::from_vec(Shape::vector(values.len())?, values.clone())?,
        Attribute::Floats(values) => Tensor::from_vec(Shape::vector(values.len())?, values.clone())?,
        Attribute::Strings(values) => {
            Tensor::from_strings(Shape::vector(values.len())?, values.iter().map(text).collect())?
        }
        _ => return Err(Error::invalid("the value of Constant is an element type")),
    };
    Ok(vec![tensor])
}

/// `ConstantOfShape`: one value, a float zero unless given.
pub(crate) fn constant_of_shape(call: &Call<'_>) -> Outputs {
    let dims = wanted_dims(&call.ints(0)?)?;
    let zero = Tensor::from_vec(Shape::scalar(), vec![0f32])?;
    let value = call.attributes.tensor("value")?.unwrap_or(&zero);
    if value.shape().n_elements() != 1 {
        return Err(Error::invalid(format!("value has shape {}, expected one element", value.shape())));
    }
    let shape = output_shape(value.dtype(), &dims)?;
    by_width!(value.dtype(), T => {
        let elements = vec![<T as Datum>::read(value)[0].clone(); shape.n_elements()];
        Ok(vec![<T as Datum>::tensor(value.dtype(), shape, elements)?])
    })
}

/// `Range`: from `start`, below `limit`, in steps of `delta`.
pub(crate) fn range(call: &Call<'_>) -> Outputs {
    fn bounds<T: Element>(call: &Call<'_>) -> Result<[T; 3], Error> {
        let mut bounds = [T::zeroed(); 3];
        for (i, bound) in bounds.iter_mut().enumerate() {
            let tensor = call.input(i)?;
            match tensor.to_slice::<T>().as_deref() {
                Some([value]) => *bound = *value,
                _ => {
                    return Err(Error::invalid(format!(
                        "input {i} is {tensor:?}, expected one {}",
                        T::DTYPE
                    )));
                }
            }
        }
        Ok(bounds)
    }
    fn integers<T: Int>(call: &Call<'_>) -> Outputs {
        let [start, limit, delta] = bounds::<T>(call)?.map(Int::to_i128);
        if delta == 0 {
            return Err(Error::invalid("the step of Range is 0"));
        }
        let distance = (limit - start) * delta.signum();
        let n = if distance <= 0 { 0 } else { (distance - 1) / delta.abs() + 1 };
        let shape = output_shape(T::DTYPE, &[usize::try_from(n).unwrap_or(usize::MAX)])?;
        let out: Vec<T> = (0..n).map(|i| T::wrap(start + i * delta)).collect();
        Ok(vec![Tensor::from_vec(shape, out)?])
    }
    fn reals<T: Real>(call: &Call<'_>) -> Outputs {
        let [start, limit, delta] = bounds::<T>(call)?;
        let n = ((limit.to_f64() - start.to_f64()) / delta.to_f64()).ceil().max(0.0);
        if n.is_nan() || delta.to_f64() == 0.0 {
            return Err(Error::invalid("the bounds of Range give no number of steps"));
        }
        let shape = output_shape(T::DTYPE, &[n as usize])?;
        let out: Vec<T> = (0..shape.n_elements())
            .map(|i| T::from_f64(start.to_f64() + i as f64 * delta.to_f64()))
            .collect();
        Ok(vec![Tensor::from_vec(shape, out)?])
    }
    match call.input(0)?.dtype() {
        dtype @ (DType::F16 | DType::BF16 | DType::F32 | DType::F64) => {
            by_real!(dtype, |t| call.no_type(t), T => reals::<T>(call))
        }
        dtype => by_int!(dtype, |t| call.no_type(t), T => integers::<T>(call)),
    }
}

/// `OneHot`: a new axis with the on-value at the index (negative ones count from the back), else the off-value.
pub(crate) fn one_hot(call: &Call<'_>) -> Outputs {
    let (indices, depth, values) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let depth = match cast::to_type(depth, DType::I64)?.to_slice::<i64>().as_deref() {
        Some([depth]) => *depth,
        _ => return Err(Error::invalid(format!("depth has shape {}, expected a scalar", depth.shape()))),
    };
    if values.shape().dims() != [2] {
        return Err(Error::invalid(format!("values have shape {}, expected [2]", values.shape())));
    }
    let rank = indices.shape().rank() + 1;
    let axis = call.axis(-1, rank)?;
    let mut dims = Dims::from_slice(indices.shape().dims());
    dims.insert(axis, crate::call::size(depth, "depth")?);
    let shape = output_shape(values.dtype(), &dims)?;
    let wide = cast::to_type(indices, DType::I64)?;
    let wide = read::<i64>(&wide);
    let (before, _, after) = around(&dims, axis);
    by_width!(values.dtype(), T => {
        let pair = <T as Datum>::read(values);
        let mut out: Vec<T> = vec![pair[0].clone(); shape.n_elements()];
        for i in 0..before {
            for j in 0..after {
                let index = wide[i * after + j];
                let index = if index < 0 { index.saturating_add(depth) } else { index };
                if (0..depth).contains(&index) {
                    out[(i * depth as usize + index as usize) * after + j] = pair[1].clone();
                }
            }
        }
        Ok(vec![<T as Datum>::tensor(values.dtype(), shape, out)?])
    })
}

/// `EyeLike`: ones on a diagonal of a matrix.
pub(crate) fn eye_like(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let &[rows, columns] = tensor.shape().dims() else {
        return Err(Error::invalid(format!("input has shape {}, expected a matrix", tensor.shape())));
    };
    let dtype = call.attributes.dtype("dtype")?.unwrap_or(tensor.dtype());
    let k = i128::from(call.attributes.int("k", 0)?);
    let shape = output_shape(dtype, &[rows, columns])?;
    let mut flags = vec![0u8; shape.n_elements()];
    for row in 0..rows {
        if let Some(column) = usize::try_from(row as i128 + k).ok().filter(|&column| column < columns) {
            flags[row * columns + column] = 1;
        }
    }
    Ok(vec![cast::to_type(&Tensor::from_vec(shape, flags)?, dtype)?])
}

/// `CumSum`.
pub(crate) fn cum_sum(call: &Call<'_>) -> Outputs {
    use crate::number::{Ring, by_number};
    fn apply<T: Number>(tensor: &Tensor, axis: usize, exclusive: bool, reverse: bool) -> Outputs {
        let (before, dim, after) = around(tensor.shape().dims(), axis);
        let source = read::<T>(tensor);
        let mut out = vec![T::default(); source.len()];
        for i in 0..before {
            for j in 0..after {
                let mut sum = T::default();
                for k in 0..dim {
                    let k = if reverse { dim - 1 - k } else { k };
                    let at = (i * dim + k) * after + j;
                    let next = Ring::add(sum, source[at]);
                    out[at] = if exclusive { sum } else { next };
                    sum = next;
                }
            }
        }
        Ok(vec![Tensor::from_vec(tensor.shape().clone(), out)?])
    }
    let tensor = call.input(0)?;
    let axis = layout::axis(call.int(1)?, tensor.shape().rank())?;
    if tensor.shape().n_elements() == 0 {
        return Ok(vec![tensor.clone()]);
    }
    let (exclusive, reverse) =
        (call.attributes.flag("exclusive", false)?, call.attributes.flag("reverse", false)?);
    by_number!(tensor.dtype(), |t| call.no_type(t), T => apply::<T>(tensor, axis, exclusive, reverse))
}
