//! Arithmetic that ONNX lacks.

use salver_tensor::{DType, Element, Shape, Tensor};

use crate::Error;
use crate::call::{Call, read};
use crate::layout::{Walk, broadcast, broadcast_strides, output_shape};
use crate::number::{Int, Number, Ring, by_int, by_number, by_real};

/// Division that rounds down.
pub(super) fn floor_div(call: &Call<'_>) -> Result<Tensor, Error> {
    let dtype = call.input(0)?.dtype();
    by_number!(dtype, |other| call.no_type(other), T => {
        if T::INTEGER && read_same::<T>(call, 1)?.iter().any(|&divisor| divisor == T::default()) {
            return Err(Error::invalid("Integer division by zero"));
        }
        binary::<T>(call, floor_quotient)
    })
}

fn floor_quotient<T: Number>(a: T, b: T) -> T {
    let quotient = a.div(b);
    if !T::INTEGER {
        return T::from_f64(quotient.to_f64().floor());
    }
    let rest = a.remainder(b);
    let rounded_up = rest != T::default() && (rest < T::default()) != (b < T::default());
    if rounded_up { quotient.sub(T::ONE) } else { quotient }
}

/// Operations on the bits of integers. Shifts are by 0 to one less than the width; others count as the nearest of these.
pub(super) fn bits(call: &Call<'_>) -> Result<Tensor, Error> {
    let dtype = call.input(0)?.dtype();
    by_int!(dtype, |other| call.no_type(other), T => {
        let last = size_of::<T>() as i128 * 8 - 1;
        match call.op {
            "BitwiseAnd" => binary::<T>(call, |a, b| T::wrap(a.to_i128() & b.to_i128())),
            "BitwiseOr" => binary::<T>(call, |a, b| T::wrap(a.to_i128() | b.to_i128())),
            "BitwiseXor" => binary::<T>(call, |a, b| T::wrap(a.to_i128() ^ b.to_i128())),
            "LeftShift" => binary::<T>(call, |a, b| T::wrap(a.to_i128() << b.to_i128().clamp(0, last))),
            _ => binary::<T>(call, |a, b| T::wrap(a.to_i128() >> b.to_i128().clamp(0, last))),
        }
    })
}

fn read_same<'a, T: Element>(call: &Call<'a>, index: usize) -> Result<std::borrow::Cow<'a, [T]>, Error> {
    let tensor = call.input(index)?;
    tensor.to_slice::<T>().ok_or_else(|| {
        Error::invalid(format!("input {index} of {} is {}, expected {}", call.op, tensor.dtype(), T::DTYPE))
    })
}

fn binary<T: Ring>(call: &Call<'_>, operation: impl Fn(T, T) -> T) -> Result<Tensor, Error> {
    let (a, b) = (read_same::<T>(call, 0)?, read_same::<T>(call, 1)?);
    let (a_dims, b_dims) = (call.input(0)?.shape().dims(), call.input(1)?.shape().dims());
    let dims = broadcast(a_dims, b_dims)?;
    let shape = output_shape(T::DTYPE, &dims)?;
    let mut out = Vec::with_capacity(shape.n_elements());
    let walk = Walk::new(&dims, [&broadcast_strides(a_dims, &dims), &broadcast_strides(b_dims, &dims)]);
    walk.each([0, 0], |[i, j]| out.push(operation(a[i], b[j])));
    Ok(Tensor::from_vec(shape, out)?)
}

/// Rounds to the nearest integer, halves to even.
pub(super) fn rint(call: &Call<'_>) -> Result<Tensor, Error> {
    let input = call.input(0)?;
    by_real!(input.dtype(), |other| call.no_type(other), T => {
        let round = |&value: &T| T::from_f64(value.to_f64().round_ties_even());
        Ok(Tensor::from_vec(input.shape().clone(), read::<T>(input).iter().map(round).collect())?)
    })
}

/// The same bytes as elements of another type. To a smaller type, a last dimension is added for what one element
/// becomes; to a larger one, the last dimension must be what one element is made of.
pub(super) fn bitcast(call: &Call<'_>) -> Result<Tensor, Error> {
    let input = call.input(0)?;
    let to = call.needed("type", call.attributes.dtype("type")?)?;
    let from = input.dtype();
    let sizes = from.size().zip(to.size()).filter(|_| from != DType::Bool && to != DType::Bool);
    let (Some((old, new)), Some(bytes)) = (sizes, input.bytes()) else {
        return Err(Error::unsupported(format!("Bitcast of {from} to {to}")));
    };
    let mut dims = input.shape().dims().to_vec();
    if old > new {
        dims.push(old / new);
    } else if old < new && dims.pop() != Some(new / old) {
        let shape = input.shape();
        return Err(Error::invalid(format!(
            "Cannot bitcast from {from} to {to}: the last dimension of {shape}"
        )));
    }
    Ok(Tensor::from_bytes(to, Shape::new(&dims)?, bytes.clone())?)
}
