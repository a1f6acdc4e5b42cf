//! Functions of all elements along one axis: `Softmax`, `LogSoftmax`, `Hardmax`, `LpNormalization`.

use salver_tensor::Tensor;

use crate::call::{Call, read};
use crate::layout::around;
use crate::matmul::{is_half, widened};
use crate::number::{Float, Number, by_float};
use crate::{Error, Outputs};

/// The tensor with `f` done to the elements along each line of an axis.
fn lines<T: Number>(tensor: &Tensor, axis: usize, f: impl Fn(&mut [T])) -> Outputs {
    let (before, dim, after) = around(tensor.shape().dims(), axis);
    let mut out = read::<T>(tensor).into_owned();
    if out.is_empty() {
        return Ok(vec![tensor.clone()]);
    }
    if after == 1 {
        out.chunks_exact_mut(dim).for_each(f);
        return Ok(vec![Tensor::from_vec(tensor.shape().clone(), out)?]);
    }
    let mut line = vec![T::default(); dim];
    for i in 0..before {
        for j in 0..after {
            let first = i * dim * after + j;
            for (k, x) in line.iter_mut().enumerate() {
                *x = out[first + k * after];
            }
            f(&mut line);
            for (k, x) in line.iter().enumerate() {
                out[first + k * after] = *x;
            }
        }
    }
    Ok(vec![Tensor::from_vec(tensor.shape().clone(), out)?])
}

/// `Softmax`, `LogSoftmax`, `Hardmax` along one axis, the last unless given.
pub(crate) fn softmax(call: &Call<'_>) -> Outputs {
    fn apply<T: Float>(op: &str, line: &mut [T]) {
        let max = line.iter().fold(T::LOWEST, |max, &x| max.greater(x));
        match op {
            "Hardmax" => {
                let first = line.iter().position(|&x| x == max);
                line.iter_mut().enumerate().for_each(|(i, x)| {
                    *x = if Some(i) == first { T::ONE } else { T::default() };
                });
            }
            "LogSoftmax" => {
                let sum = line.iter().fold(T::default(), |sum, &x| sum.add(x.sub(max).exp())).ln();
                line.iter_mut().for_each(|x| *x = x.sub(max).sub(sum));
            }
            _ => {
                line.iter_mut().for_each(|x| *x = x.sub(max).exp());
                let sum = line.iter().fold(T::default(), |sum, &x| sum.add(x));
                line.iter_mut().for_each(|x| *x = x.div(sum));
            }
        }
    }
    let tensor = call.input(0)?;
    if is_half(tensor) {
        return widened(call, softmax);
    }
    let axis = call.axis(-1, tensor.shape().rank())?;
    by_float!(tensor.dtype(), |t| call.no_type(t), T => lines(tensor, axis, |line: &mut [T]| apply(call.op, line)))
}

/// `LpNormalization`: divided by the norm along an axis; a line of zeros stays.
pub(crate) fn lp_normalization(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    if is_half(tensor) {
        return widened(call, lp_normalization);
    }
    let axis = call.axis(-1, tensor.shape().rank())?;
    let absolute = match call.attributes.int("p", 2)? {
        1 => true,
        2 => false,
        other => return Err(Error::invalid(format!("p is {other}, expected 1 or 2"))),
    };
    by_float!(tensor.dtype(), |t| call.no_type(t), T => lines(tensor, axis, |line: &mut [T]| {
        let terms = line.iter().map(|x| x.to_f64());
        let norm = match absolute {
            true => terms.map(f64::abs).sum::<f64>(),
            false => terms.map(|x| x * x).sum::<f64>().sqrt(),
        };
        if norm != 0.0 {
            line.iter_mut().for_each(|x| *x = T::from_f64(x.to_f64() / norm));
        }
    }))
}
