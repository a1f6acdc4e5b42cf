//! Functions of one element.

use half::{bf16, f16};
use salver_tensor::{DType, Element, Tensor};

use crate::call::{Call, read};
use crate::layout::output_shape;
use crate::number::{Float, Int, Number, Real, Ring, by_int, by_number, by_real, by_ring};
use crate::{Error, Outputs};

/// A tensor of the same shape whose elements are functions of the elements.
pub(crate) fn mapped<A: Element, B: Element>(tensor: &Tensor, f: impl Fn(A) -> B) -> Result<Tensor, Error> {
    let shape = output_shape(B::DTYPE, tensor.shape().dims())?;
    let elements = read::<A>(tensor).iter().map(|&x| f(x)).collect();
    Ok(Tensor::from_vec(shape, elements)?)
}

/// As [`mapped`], with a boolean result.
pub(crate) fn tested<A: Element>(tensor: &Tensor, f: impl Fn(A) -> bool) -> Result<Tensor, Error> {
    let elements: Vec<bool> = read::<A>(tensor).iter().map(|&x| f(x)).collect();
    Ok(Tensor::from_bools(tensor.shape().clone(), &elements)?)
}

/// The first input with a function of floats done to each element; `$F` is the type that is computed in.
macro_rules! map {
    ($call:expr, |$x:ident: $F:ident| $body:expr) => {{
        let tensor = $call.input(0)?;
        match tensor.dtype() {
            DType::F32 => {
                type $F = f32;
                mapped(tensor, |$x: f32| -> f32 { $body })
            }
            DType::F64 => {
                #[allow(dead_code)]
                type $F = f64;
                mapped(tensor, |$x: f64| -> f64 { $body })
            }
            DType::F16 => {
                #[allow(dead_code)]
                type $F = f32;
                let f = |$x: f32| -> f32 { $body };
                mapped(tensor, |x: f16| f16::from_f32(f(x.to_f32())))
            }
            DType::BF16 => {
                #[allow(dead_code)]
                type $F = f32;
                let f = |$x: f32| -> f32 { $body };
                mapped(tensor, |x: bf16| bf16::from_f32(f(x.to_f32())))
            }
            other => Err($call.no_type(other)),
        }
    }};
}

/// The functions of floats, by name.
pub(crate) fn real(call: &Call<'_>) -> Outputs {
    let float = |name, default| call.attributes.float(name, default);
    let result = match call.op {
        "Acos" => map!(call, |x: F| F::acos(x)),
        "Acosh" => map!(call, |x: F| F::acosh(x)),
        "Asin" => map!(call, |x: F| F::asin(x)),
        "Asinh" => map!(call, |x: F| F::asinh(x)),
        "Atan" => map!(call, |x: F| F::atan(x)),
        "Atanh" => map!(call, |x: F| F::atanh(x)),
        "Ceil" => map!(call, |x: F| F::ceil(x)),
        "Cos" => map!(call, |x: F| F::cos(x)),
        "Cosh" => map!(call, |x: F| F::cosh(x)),
        "Erf" => map!(call, |x: F| <F as Float>::erf(x)),
        "Exp" => map!(call, |x: F| F::exp(x)),
        "Floor" => map!(call, |x: F| F::floor(x)),
        "Log" => map!(call, |x: F| F::ln(x)),
        "Reciprocal" => map!(call, |x: F| F::recip(x)),
        "Round" => map!(call, |x: F| F::round_ties_even(x)),
        "Sin" => map!(call, |x: F| F::sin(x)),
        "Sinh" => map!(call, |x: F| F::sinh(x)),
        "Sqrt" => map!(call, |x: F| F::sqrt(x)),
        "Tan" => map!(call, |x: F| F::tan(x)),
        "Sigmoid" => map!(call, |x: F| <F as Float>::sigmoid(x)),
        "Tanh" => map!(call, |x: F| <F as Float>::tanh(x)),
        "Softplus" => map!(call, |x: F| x.greater(0.0) + F::ln_1p(F::exp(-F::abs(x)))),
        "Softsign" => map!(call, |x: F| x / (1.0 + F::abs(x))),
        "HardSwish" => map!(call, |x: F| x * F::clamp(x / 6.0 + 0.5, 0.0, 1.0)),
        "Mish" => map!(call, |x: F| x * F::tanh(x.greater(0.0) + F::ln_1p(F::exp(-F::abs(x))))),
        "Elu" => {
            let alpha = float("alpha", 1.0)?;
            map!(call, |x: F| if x < 0.0 { alpha as F * F::exp_m1(x) } else { x })
        }
        "Celu" => {
            let alpha = float("alpha", 1.0)?;
            map!(call, |x: F| if x < 0.0 { alpha as F * F::exp_m1(x / alpha as F) } else { x })
        }
        "Selu" => {
            let (alpha, gamma) = (float("alpha", 1.673_263_2)?, float("gamma", 1.050_701)?);
            map!(call, |x: F| gamma as F * if x < 0.0 { alpha as F * F::exp_m1(x) } else { x })
        }
        "LeakyRelu" => {
            let alpha = float("alpha", 0.01)?;
            map!(call, |x: F| if x < 0.0 { alpha as F * x } else { x })
        }
        "ThresholdedRelu" => {
            let alpha = float("alpha", 1.0)?;
            map!(call, |x: F| if x <= alpha as F { 0.0 } else { x })
        }
        "HardSigmoid" => {
            let (alpha, beta) = (float("alpha", 0.2)?, float("beta", 0.5)?);
            map!(call, |x: F| F::clamp(alpha as F * x + beta as F, 0.0, 1.0))
        }
        "Shrink" => {
            let (bias, lambd) = (float("bias", 0.0)?, float("lambd", 0.5)?);
            map!(call, |x: F| if x < -(lambd as F) {
                x + bias as F
            } else if x > lambd as F {
                x - bias as F
            } else {
                x * 0.0
            })
        }
        "Swish" => {
            let alpha = float("alpha", 1.0)?;
            map!(call, |x: F| x * <F as Float>::sigmoid(alpha as F * x))
        }
        "Gelu" => return gelu(call),
        _ => return Err(Error::unsupported(format!("no function {}", call.op))),
    };
    Ok(vec![result?])
}

fn gelu(call: &Call<'_>) -> Outputs {
    const SCALE: f64 = 0.797_884_560_802_865_4; // the square root of 2 / pi
    let result = match call.attributes.text("approximate", "none")? {
        "none" => {
            map!(call, |x: F| 0.5 * x * (1.0 + <F as Float>::erf(x * std::f64::consts::FRAC_1_SQRT_2 as F)))
        }
        "tanh" => map!(call, |x: F| 0.5 * x * (1.0 + F::tanh(SCALE as F * (x + 0.044715 * x * x * x)))),
        other => return Err(Error::invalid(format!("approximate is '{other}', expected none or tanh"))),
    };
    Ok(vec![result?])
}

/// `Neg`, of complex numbers too.
pub(crate) fn neg(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    by_ring!(tensor.dtype(), |t| call.no_type(t), T => Ok(vec![mapped(tensor, |x: T| x.neg())?]))
}

/// `Abs`, `Sign`, `Relu`.
pub(crate) fn number(call: &Call<'_>) -> Outputs {
    fn apply<T: Number>(op: &str, tensor: &Tensor) -> Result<Tensor, Error> {
        match op {
            "Abs" => mapped(tensor, |x: T| x.abs()),
            "Sign" => mapped(tensor, |x: T| x.sign()),
            _ => mapped(tensor, |x: T| x.greater(T::default())),
        }
    }
    let tensor = call.input(0)?;
    by_number!(tensor.dtype(), |t| call.no_type(t), T => Ok(vec![apply::<T>(call.op, tensor)?]))
}

/// `IsNaN`, `IsInf`.
pub(crate) fn test(call: &Call<'_>) -> Outputs {
    fn apply<T: Real>(call: &Call<'_>, tensor: &Tensor) -> Result<Tensor, Error> {
        if call.op == "IsNaN" {
            return tested(tensor, |x: T| x.is_nan());
        }
        let negative = call.attributes.flag("detect_negative", true)?;
        let positive = call.attributes.flag("detect_positive", true)?;
        tested(tensor, |x: T| (positive && x == T::HIGHEST) || (negative && x == T::LOWEST))
    }
    let tensor = call.input(0)?;
    by_real!(tensor.dtype(), |t| call.no_type(t), T => Ok(vec![apply::<T>(call, tensor)?]))
}

/// `Not`.
pub(crate) fn not(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let elements: Vec<bool> = bools(tensor, call)?.iter().map(|&x| x == 0).collect();
    Ok(vec![Tensor::from_bools(tensor.shape().clone(), &elements)?])
}

/// The bytes of a boolean tensor.
pub(crate) fn bools<'a>(tensor: &'a Tensor, call: &Call<'_>) -> Result<&'a [u8], Error> {
    match (tensor.dtype(), tensor.bytes()) {
        (DType::Bool, Some(bytes)) => Ok(bytes),
        (other, _) => Err(call.no_type(other)),
    }
}

/// `BitwiseNot`.
pub(crate) fn bitwise_not(call: &Call<'_>) -> Outputs {
    fn apply<T: Int>(tensor: &Tensor) -> Result<Tensor, Error> {
        mapped(tensor, |x: T| T::wrap(!x.to_i128()))
    }
    let tensor = call.input(0)?;
    by_int!(tensor.dtype(), |t| call.no_type(t), T => Ok(vec![apply::<T>(tensor)?]))
}

/// `Clip`: between two optional scalars; the upper bound wins where they cross.
pub(crate) fn clip(call: &Call<'_>) -> Outputs {
    fn apply<T: Number>(
        tensor: &Tensor,
        low: Option<&Tensor>,
        high: Option<&Tensor>,
    ) -> Result<Tensor, Error> {
        let bound = |tensor: Option<&Tensor>, open: T| match tensor {
            None => Ok(open),
            Some(tensor) => match tensor.to_slice::<T>().as_deref() {
                Some([bound]) => Ok(*bound),
                _ => Err(Error::invalid(format!("a bound is {tensor:?}, expected one {}", T::DTYPE))),
            },
        };
        let (low, high) = (bound(low, T::LOWEST)?, bound(high, T::HIGHEST)?);
        mapped(tensor, |x: T| {
            let x = if x < low { low } else { x };
            if x > high { high } else { x }
        })
    }
    let tensor = call.input(0)?;
    let (low, high) = (call.optional(1), call.optional(2));
    by_number!(tensor.dtype(), |t| call.no_type(t), T => Ok(vec![apply::<T>(tensor, low, high)?]))
}
