//! Many elements to one.
//!
//! Floats are summed in `f64` and rounded once. Integers wrap around; roots, logarithms and means of integers are cut off.

use salver_tensor::{DType, Tensor};

use crate::call::{Call, read};
use crate::layout::{self, Dims, Strides, Walk, output_shape};
use crate::number::{Int, Number, Real, Ring, by_int, by_real};
use crate::{Error, Outputs, cast};

/// Which elements go into each result.
struct Plan {
    kept: Walk<1>,
    reduced: Walk<1>,
    /// Elements per result.
    n: usize,
}

impl Plan {
    /// For each result, in order, `f` of the walk over its elements.
    fn each<R>(&self, mut f: impl FnMut(isize) -> R) -> Vec<R> {
        let mut out = Vec::new();
        self.kept.each([0], |[start]| out.push(f(start as isize)));
        out
    }

    /// Folds the elements that begin at `start`.
    fn fold<T: Copy, A: Copy>(&self, source: &[T], start: isize, init: A, f: impl Fn(A, T) -> A) -> A {
        let mut sum = init;
        let len = self.reduced.len;
        self.reduced.run([start], |[at]| match self.reduced.steps[0] {
            1 => sum = source[at as usize..at as usize + len].iter().fold(sum, |sum, &x| f(sum, x)),
            step => {
                sum = (0..len as isize).fold(sum, |sum, i| f(sum, source[(at + i * step) as usize]));
            }
        });
        sum
    }
}

/// The `Reduce` operators. Axes come as the second input (as an attribute in older operator sets); none means all.
pub(crate) fn reduce(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let own = tensor.shape().dims();
    let given = match call.optional_ints(1)? {
        Some(axes) => axes,
        None => call.attributes.ints("axes")?.unwrap_or_default().to_vec(),
    };
    if given.is_empty() && call.attributes.flag("noop_with_empty_axes", false)? {
        return Ok(vec![tensor.clone()]);
    }
    let mut axes = layout::axes(&given, own.len())?;
    if given.is_empty() {
        axes = (0..own.len()).collect();
    }
    let keep = call.attributes.flag("keepdims", true)?;
    let (mut dims, mut kept, mut reduced) = (Dims::new(), Dims::new(), Dims::new());
    let (mut kept_steps, mut reduced_steps) = (Strides::new(), Strides::new());
    for (axis, (&dim, &step)) in own.iter().zip(&layout::strides(own)).enumerate() {
        if axes.contains(&axis) {
            reduced.push(dim);
            reduced_steps.push(step);
            dims.extend(keep.then_some(1));
        } else {
            kept.push(dim);
            kept_steps.push(step);
            dims.push(dim);
        }
    }
    let shape = output_shape(tensor.dtype(), &dims)?;
    let plan = Plan {
        kept: Walk::new(&kept, [&kept_steps]),
        reduced: Walk::new(&reduced, [&reduced_steps]),
        n: reduced.iter().product(),
    };
    let result = match tensor.dtype() {
        DType::Bool if matches!(call.op, "ReduceMax" | "ReduceMin") => {
            let bytes = tensor.bytes().cloned().unwrap_or_default();
            let max = call.op == "ReduceMax";
            let out = plan.each(|at| match max {
                true => plan.fold(&bytes, at, false, |any, x| any | (x != 0)),
                false => plan.fold(&bytes, at, true, |all, x| all & (x != 0)),
            });
            Tensor::from_bools(shape, &out)?
        }
        dtype @ (DType::F16 | DType::BF16 | DType::F32 | DType::F64) => {
            by_real!(dtype, |t| call.no_type(t), T => {
                Ok(Tensor::from_vec(shape, reals::<T>(call.op, tensor, &plan))?)
            })?
        }
        dtype @ (DType::C64 | DType::C128) if matches!(call.op, "ReduceSum" | "ReduceMean") => {
            let wide = cast::to_type(tensor, DType::C128)?;
            let source = read::<[f64; 2]>(&wide);
            let n = if call.op == "ReduceMean" { plan.n as f64 } else { 1.0 };
            let out = plan.each(|at| plan.fold(&source, at, [0.0; 2], |sum, x| sum.add(x)).map(|x| x / n));
            cast::to_type(&Tensor::from_vec(shape, out)?, dtype)?
        }
        dtype => by_int!(dtype, |t| call.no_type(t), T => {
            Ok(Tensor::from_vec(shape, ints::<T>(call.op, tensor, &plan)?)?)
        })?,
    };
    Ok(vec![result])
}

fn reals<T: Real>(op: &str, tensor: &Tensor, plan: &Plan) -> Vec<T> {
    let source = read::<T>(tensor);
    let fold =
        |at, init: f64, f: fn(f64, f64) -> f64| plan.fold(&source, at, init, |sum, x: T| f(sum, x.to_f64()));
    let sum = |at| plan.fold(&source, at, 0.0, |sum, x: T| sum + x.to_f64());
    let squares = |at| fold(at, 0.0, |sum, x| sum + x * x);
    let max = |at| fold(at, f64::NEG_INFINITY, |max, x| max.greater(x));
    plan.each(|at| {
        T::from_f64(match op {
            "ReduceSum" => sum(at),
            "ReduceMean" => sum(at) / plan.n as f64,
            "ReduceMax" => max(at),
            "ReduceMin" => fold(at, f64::INFINITY, |min, x| min.lesser(x)),
            "ReduceProd" => fold(at, 1.0, |product, x| product * x),
            "ReduceL1" => fold(at, 0.0, |sum, x| sum + x.abs()),
            "ReduceL2" => squares(at).sqrt(),
            "ReduceSumSquare" => squares(at),
            "ReduceLogSum" => sum(at).ln(),
            _ => {
                let max = max(at);
                match max.is_finite() {
                    true => {
                        plan.fold(&source, at, 0.0, |sum, x: T| sum + (x.to_f64() - max).exp()).ln() + max
                    }
                    false => max,
                }
            }
        })
    })
}

fn ints<T: Int>(op: &str, tensor: &Tensor, plan: &Plan) -> Result<Vec<T>, Error> {
    let source = read::<T>(tensor);
    let fold = |at, init: T, f: fn(T, T) -> T| plan.fold(&source, at, init, f);
    let sum = |at| fold(at, T::default(), |sum, x| sum.add(x));
    if op == "ReduceMean" && plan.n == 0 {
        return Err(Error::invalid("the mean of no integers"));
    }
    Ok(plan.each(|at| match op {
        "ReduceSum" => sum(at),
        "ReduceMean" => T::wrap(sum(at).to_i128() / plan.n as i128),
        "ReduceMax" => fold(at, T::LOWEST, T::max),
        "ReduceMin" => fold(at, T::HIGHEST, T::min),
        "ReduceProd" => fold(at, T::ONE, |product, x| product.mul(x)),
        "ReduceL1" => fold(at, T::default(), |sum, x| sum.add(x.abs())),
        "ReduceSumSquare" => fold(at, T::default(), |sum, x| sum.add(x.mul(x))),
        "ReduceL2" => {
            T::from_f64(plan.fold(&source, at, 0.0, |sum, x: T| sum + x.to_f64() * x.to_f64()).sqrt())
        }
        "ReduceLogSum" => T::from_f64(plan.fold(&source, at, 0.0, |sum, x: T| sum + x.to_f64()).ln()),
        _ => {
            let max = fold(at, T::LOWEST, T::max).to_f64();
            T::from_f64(plan.fold(&source, at, 0.0, |sum, x: T| sum + (x.to_f64() - max).exp()).ln() + max)
        }
    }))
}
