//! Functions of two elements, or of as many as there are inputs, with broadcasting.

use bytes::Bytes;
use salver_tensor::{DType, Element, Tensor};

use crate::call::{Call, read};
use crate::cast;
use crate::datum::{Datum, by_width};
use crate::elementwise::{bools, mapped};
use crate::layout::{self, Dims, Walk, broadcast, broadcast_strides, output_shape};
use crate::number::{Int, Number, Real, Ring, by_int, by_number, by_real, by_ring};
use crate::{Error, Outputs};

/// Two arrays brought to one shape, and a function of each pair.
pub(crate) fn zipped<A: Clone, B: Clone, R>(
    (a, a_dims): (&[A], &[usize]),
    (b, b_dims): (&[B], &[usize]),
    dims: &[usize],
    f: impl Fn(&A, &B) -> R,
) -> Vec<R> {
    if a_dims == b_dims {
        return a.iter().zip(b).map(|(a, b)| f(a, b)).collect();
    }
    let n = if dims.contains(&0) { 0 } else { dims.iter().product() };
    let mut out = Vec::with_capacity(n);
    let strides = [broadcast_strides(a_dims, dims), broadcast_strides(b_dims, dims)];
    let walk = Walk::new(dims, [&strides[0], &strides[1]]);
    let len = walk.len;
    walk.run([0, 0], |[i, j]| {
        let (i, j) = (i as usize, j as usize);
        match walk.steps {
            [1, 1] => out.extend(a[i..i + len].iter().zip(&b[j..j + len]).map(|(a, b)| f(a, b))),
            [1, 0] => out.extend(a[i..i + len].iter().map(|a| f(a, &b[j]))),
            [0, 1] => out.extend(b[j..j + len].iter().map(|b| f(&a[i], b))),
            [s, t] => {
                out.extend((0..len).map(|k| f(&a[i + k * s as usize], &b[j + k * t as usize])));
            }
        }
    });
    out
}

/// The first two inputs, of one element type, and the dimensions of the result.
fn pair<'a>(call: &Call<'a>) -> Result<(&'a Tensor, &'a Tensor, Dims), Error> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    same_type(a, b)?;
    Ok((a, b, broadcast(a.shape().dims(), b.shape().dims())?))
}

fn same_type(a: &Tensor, b: &Tensor) -> Result<(), Error> {
    if a.dtype() == b.dtype() {
        return Ok(());
    }
    Err(Error::invalid(format!("inputs of types {} and {}, expected one type", a.dtype(), b.dtype())))
}

fn combined<T: Element, R: Element>(
    a: &Tensor,
    b: &Tensor,
    dims: &[usize],
    f: impl Fn(T, T) -> R,
) -> Result<Tensor, Error> {
    let shape = output_shape(R::DTYPE, dims)?;
    let (x, y) = (read::<T>(a), read::<T>(b));
    let out = zipped((&x, a.shape().dims()), (&y, b.shape().dims()), dims, |&x, &y| f(x, y));
    Ok(Tensor::from_vec(shape, out)?)
}

fn compared<T: Clone>(
    (x, a): (&[T], &Tensor),
    (y, b): (&[T], &Tensor),
    dims: &[usize],
    f: impl Fn(&T, &T) -> bool,
) -> Outputs {
    let shape = output_shape(DType::Bool, dims)?;
    let out = zipped((x, a.shape().dims()), (y, b.shape().dims()), dims, f);
    Ok(vec![Tensor::from_bools(shape, &out)?])
}

/// `Add`, `Sub`, `Mul`, `Div`.
pub(crate) fn arithmetic(call: &Call<'_>) -> Outputs {
    fn apply<T: Ring>(op: &str, a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor, Error> {
        match op {
            "Add" => combined(a, b, dims, |x: T, y| x.add(y)),
            "Sub" => combined(a, b, dims, |x: T, y| x.sub(y)),
            "Mul" => combined(a, b, dims, |x: T, y| x.mul(y)),
            _ => combined(a, b, dims, |x: T, y| x.div(y)),
        }
    }
    let (a, b, dims) = pair(call)?;
    if call.op == "Div" {
        no_zero(b)?;
    }
    by_ring!(a.dtype(), |t| call.no_type(t), T => Ok(vec![apply::<T>(call.op, a, b, &dims)?]))
}

/// Refuses integer zeros as divisors.
fn no_zero(divisor: &Tensor) -> Result<(), Error> {
    let zero = by_int!(divisor.dtype(), |_| (), T => Ok(read::<T>(divisor).contains(&0)));
    match zero {
        Ok(true) => Err(Error::invalid("division of an integer by zero")),
        _ => Ok(()),
    }
}

/// `Mod`: with the sign of the divisor, or of the dividend with `fmod`.
pub(crate) fn modulo(call: &Call<'_>) -> Outputs {
    fn apply<T: Number>(fmod: bool, a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor, Error> {
        match fmod {
            true => combined(a, b, dims, |x: T, y| x.remainder(y)),
            false if !T::INTEGER => Err(Error::invalid("Mod of floats without fmod")),
            false => combined(a, b, dims, |x: T, y| x.modulo(y)),
        }
    }
    let (a, b, dims) = pair(call)?;
    no_zero(b)?;
    let fmod = call.attributes.flag("fmod", false)?;
    by_number!(a.dtype(), |t| call.no_type(t), T => Ok(vec![apply::<T>(fmod, a, b, &dims)?]))
}

/// `PRelu`: the slope is broadcast to the input.
pub(crate) fn prelu(call: &Call<'_>) -> Outputs {
    let (x, slope, dims) = pair(call)?;
    if dims[..] != *x.shape().dims() {
        return Err(Error::invalid(format!("slope {} does not fit input {}", slope.shape(), x.shape())));
    }
    by_number!(x.dtype(), |t| call.no_type(t), T => {
        Ok(vec![combined(x, slope, &dims, |x: T, s| if x < T::default() { Ring::mul(x, s) } else { x })?])
    })
}

/// `Max`, `Min`, `Sum`, `Mean` of any number of inputs.
pub(crate) fn variadic(call: &Call<'_>) -> Outputs {
    fn apply<T: Number>(op: &str, inputs: &[&Tensor]) -> Result<Tensor, Error> {
        let mut result = inputs[0].clone();
        for &input in &inputs[1..] {
            let dims = broadcast(result.shape().dims(), input.shape().dims())?;
            result = match op {
                "Max" => combined(&result, input, &dims, |x: T, y| x.greater(y)),
                "Min" => combined(&result, input, &dims, |x: T, y| x.lesser(y)),
                _ => combined(&result, input, &dims, |x: T, y| Ring::add(x, y)),
            }?;
        }
        Ok(result)
    }
    fn average<T: Real>(sum: &Tensor, n: usize) -> Result<Tensor, Error> {
        mapped(sum, |x: T| T::from_f64(x.to_f64() / n as f64))
    }
    let inputs = call.all()?;
    inputs.iter().try_for_each(|input| same_type(inputs[0], input))?;
    let dtype = inputs[0].dtype();
    let halves = matches!(dtype, DType::F16 | DType::BF16);
    if halves && matches!(call.op, "Sum" | "Mean") {
        // One rounding at the end, not one per input.
        let wide: Vec<Tensor> =
            inputs.iter().map(|input| cast::to_type(input, DType::F32)).collect::<Result<_, _>>()?;
        let wide: Vec<&Tensor> = wide.iter().collect();
        let mut sum = apply::<f32>("Sum", &wide)?;
        if call.op == "Mean" {
            sum = average::<f32>(&sum, inputs.len())?;
        }
        return Ok(vec![cast::to_type(&sum, dtype)?]);
    }
    if call.op == "Mean" {
        return by_real!(dtype, |t| call.no_type(t), T => {
            Ok(vec![average::<T>(&apply::<T>("Sum", &inputs)?, inputs.len())?])
        });
    }
    by_number!(dtype, |t| call.no_type(t), T => Ok(vec![apply::<T>(call.op, &inputs)?]))
}

/// `Equal`, of every element type.
pub(crate) fn equal(call: &Call<'_>) -> Outputs {
    let (a, b, dims) = pair(call)?;
    match a.dtype() {
        DType::Bool => compared((bools(a, call)?, a), (bools(b, call)?, b), &dims, |x, y| x == y),
        DType::String => {
            let (x, y) = (<Bytes as Datum>::read(a), <Bytes as Datum>::read(b));
            compared((&x, a), (&y, b), &dims, |x, y| x == y)
        }
        dtype => by_ring!(dtype, |t| call.no_type(t), T => {
            compared((&read::<T>(a), a), (&read::<T>(b), b), &dims, |x, y| x == y)
        }),
    }
}

/// `Less`, `LessOrEqual`, `Greater`, `GreaterOrEqual`.
pub(crate) fn order(call: &Call<'_>) -> Outputs {
    fn apply<T: Number>(op: &str, a: &Tensor, b: &Tensor, dims: &[usize]) -> Outputs {
        let (x, y) = (read::<T>(a), read::<T>(b));
        let (x, y) = ((&x[..], a), (&y[..], b));
        match op {
            "Less" => compared(x, y, dims, |x, y| x < y),
            "LessOrEqual" => compared(x, y, dims, |x, y| x <= y),
            "Greater" => compared(x, y, dims, |x, y| x > y),
            _ => compared(x, y, dims, |x, y| x >= y),
        }
    }
    let (a, b, dims) = pair(call)?;
    by_number!(a.dtype(), |t| call.no_type(t), T => apply::<T>(call.op, a, b, &dims))
}

/// `And`, `Or`, `Xor`.
pub(crate) fn logic(call: &Call<'_>) -> Outputs {
    let (a, b, dims) = pair(call)?;
    let (x, y) = ((bools(a, call)?, a), (bools(b, call)?, b));
    match call.op {
        "And" => compared(x, y, &dims, |x, y| x & y != 0),
        "Or" => compared(x, y, &dims, |x, y| x | y != 0),
        _ => compared(x, y, &dims, |x, y| x != y),
    }
}

/// `BitwiseAnd`, `BitwiseOr`, `BitwiseXor`.
pub(crate) fn bits(call: &Call<'_>) -> Outputs {
    let (a, b, dims) = pair(call)?;
    by_int!(a.dtype(), |t| call.no_type(t), T => {
        Ok(vec![match call.op {
            "BitwiseAnd" => combined(a, b, &dims, |x: T, y: T| x & y),
            "BitwiseOr" => combined(a, b, &dims, |x: T, y: T| x | y),
            _ => combined(a, b, &dims, |x: T, y: T| x ^ y),
        }?])
    })
}

/// `BitShift` of unsigned integers; shifted by its width or more a number is 0.
pub(crate) fn shift(call: &Call<'_>) -> Outputs {
    let (a, b, dims) = pair(call)?;
    let left = match call.attributes.text("direction", "")? {
        "LEFT" => true,
        "RIGHT" => false,
        other => return Err(Error::invalid(format!("direction is '{other}', expected LEFT or RIGHT"))),
    };
    if !matches!(a.dtype(), DType::U8 | DType::U16 | DType::U32 | DType::U64) {
        return Err(call.no_type(a.dtype()));
    }
    by_int!(a.dtype(), |t| call.no_type(t), T => {
        let by = |n: T| u32::try_from(n.to_i128()).unwrap_or(u32::MAX);
        Ok(vec![match left {
            true => combined(a, b, &dims, |x: T, n: T| x.checked_shl(by(n)).unwrap_or(0)),
            false => combined(a, b, &dims, |x: T, n: T| x.checked_shr(by(n)).unwrap_or(0)),
        }?])
    })
}

/// `Pow`: the result has the type of the base; the exponent may have another.
pub(crate) fn pow(call: &Call<'_>) -> Outputs {
    let (base, exponent) = (call.input(0)?, call.input(1)?);
    let dims = broadcast(base.shape().dims(), exponent.shape().dims())?;
    let result = match (base.dtype(), is_int(exponent.dtype())) {
        (DType::F32, _) => {
            let exponent = cast::to_type(exponent, DType::F32)?;
            match exponent.as_slice::<f32>() {
                Some(&[2.0]) => combined(base, &exponent, &dims, |x: f32, _| x * x),
                Some(&[0.5]) => combined(base, &exponent, &dims, |x: f32, _| x.sqrt()),
                _ => combined(base, &exponent, &dims, f32::powf),
            }
        }
        (DType::F64, _) => combined(base, &cast::to_type(exponent, DType::F64)?, &dims, f64::powf),
        (DType::F16 | DType::BF16, _) => {
            let wide = cast::to_type(base, DType::F32)?;
            let wide = combined(&wide, &cast::to_type(exponent, DType::F32)?, &dims, f32::powf)?;
            cast::to_type(&wide, base.dtype())
        }
        (dtype, true) => by_int!(dtype, |t| call.no_type(t), T => int_power::<T>(base, exponent, &dims)),
        (dtype, false) => by_int!(dtype, |t| call.no_type(t), T => {
            let wide = cast::to_type(base, DType::F64)?;
            let wide = combined(&wide, &cast::to_type(exponent, DType::F64)?, &dims, f64::powf)?;
            cast::to_type(&wide, T::DTYPE)
        }),
    };
    Ok(vec![result?])
}

fn is_int(dtype: DType) -> bool {
    by_int!(dtype, |_| (), T => Ok::<bool, ()>(T::INTEGER)).is_ok()
}

/// Integer powers wrap around; a negative exponent gives the truncated fraction.
fn int_power<T: Int>(base: &Tensor, exponent: &Tensor, dims: &[usize]) -> Result<Tensor, Error> {
    let exponents: Vec<i128> = by_int!(exponent.dtype(), |_| Error::invalid("exponent"), E => {
        Ok(read::<E>(exponent).iter().map(|&e| i128::from(e)).collect())
    })?;
    let bases = read::<T>(base);
    if exponents.iter().any(|&e| e < 0) && bases.contains(&T::default()) {
        return Err(Error::invalid("zero to a negative power"));
    }
    let shape = output_shape(T::DTYPE, dims)?;
    let power = |&x: &T, &e: &i128| match e {
        0.. => wrapping_power(x, e),
        _ if x == T::ONE => x,
        _ if x.neg() == T::ONE && x < T::default() => wrapping_power(x, -e),
        _ => T::default(),
    };
    let out = zipped((&bases, base.shape().dims()), (&exponents, exponent.shape().dims()), dims, power);
    Ok(Tensor::from_vec(shape, out)?)
}

fn wrapping_power<T: Int>(mut base: T, mut exponent: i128) -> T {
    let mut result = T::ONE;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = Ring::mul(result, base);
        }
        base = Ring::mul(base, base);
        exponent >>= 1;
    }
    result
}

/// `Where`, of every element type.
pub(crate) fn select(call: &Call<'_>) -> Outputs {
    fn apply<T: Datum>(condition: (&[u8], &[usize]), a: &Tensor, b: &Tensor, dims: &[usize]) -> Outputs {
        let shape = output_shape(a.dtype(), dims)?;
        let (x, y) = (T::read(a), T::read(b));
        let strides = [condition.1, a.shape().dims(), b.shape().dims()].map(|d| broadcast_strides(d, dims));
        let walk = Walk::new(dims, [&strides[0], &strides[1], &strides[2]]);
        let mut out = Vec::with_capacity(shape.n_elements());
        walk.each([0; 3], |[c, i, j]| {
            out.push(if condition.0[c] != 0 { x[i].clone() } else { y[j].clone() });
        });
        Ok(vec![T::tensor(a.dtype(), shape, out)?])
    }
    let condition = call.input(0)?;
    let (a, b) = (call.input(1)?, call.input(2)?);
    same_type(a, b)?;
    let dims = broadcast(a.shape().dims(), b.shape().dims())?;
    let dims = layout::broadcast(condition.shape().dims(), &dims)?;
    let condition = (bools(condition, call)?, condition.shape().dims());
    by_width!(a.dtype(), T => apply::<T>(condition, a, b, &dims))
}
