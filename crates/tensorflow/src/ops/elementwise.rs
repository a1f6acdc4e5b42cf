//! Operators that work element by element.

use salver_graph::{Attributes, ValueId};
use salver_tensor::{DType, Shape, Tensor};

use super::context::{Context, Outputs};
use super::table::{Entry, noted, plain};
use crate::Error;
use crate::read::{decode_tensor, proto_dims};

pub(super) const OPS: &[Entry] = &[
    noted("Const", "all element types but quantised ones and resources", constant),
    noted("HostConst", "as Const", constant),
    plain("Identity", identity),
    plain("IdentityN", |c| Ok(c.inputs.to_vec())),
    plain("StopGradient", identity),
    plain("PreventGradient", identity),
    noted("CheckNumerics", "does not check", identity),
    noted("CheckNumericsV2", "does not check", identity),
    plain("Snapshot", identity),
    plain("GuaranteeConst", identity),
    plain("DeepCopy", identity),
    plain("EnsureShape", ensure_shape),
    plain("Abs", |c| c.unary("Abs")),
    plain("Acos", |c| c.unary("Acos")),
    plain("Acosh", |c| c.unary("Acosh")),
    noted("Add", "of strings: joins them", add),
    noted("AddV2", "of strings: joins them", add),
    plain("AddN", sum),
    plain("AccumulateNV2", sum),
    plain("ApproximateEqual", approximate_equal),
    plain("Asin", |c| c.unary("Asin")),
    plain("Asinh", |c| c.unary("Asinh")),
    plain("Atan", |c| c.unary("Atan")),
    noted("Atan2", "takes -0 as 0", atan2),
    plain("Atanh", |c| c.unary("Atanh")),
    plain("Bitcast", bitcast),
    plain("BitwiseAnd", |c| c.salver_binary("BitwiseAnd")),
    plain("BitwiseOr", |c| c.salver_binary("BitwiseOr")),
    plain("BitwiseXor", |c| c.salver_binary("BitwiseXor")),
    noted(
        "Cast",
        "of floats beyond an integer's range: to its nearest end, and NaN to 0, where TensorFlow on x86 gives the \
         smallest integer",
        cast,
    ),
    plain("Ceil", ceil),
    noted(
        "ClipByValue",
        "a minimum above the maximum: gives the maximum, where TensorFlow gives the minimum",
        clip_by_value,
    ),
    plain("Cos", |c| c.unary("Cos")),
    plain("Cosh", |c| c.unary("Cosh")),
    noted("Div", "of integers: rounds toward 0", |c| c.binary("Div")),
    plain("DivNoNan", div_no_nan),
    plain("Elu", |c| c.unary("Elu")),
    plain("Equal", |c| c.binary("Equal")),
    plain("Erf", |c| c.unary("Erf")),
    noted("Erfc", "as 1 - Erf", erfc),
    plain("Exp", |c| c.unary("Exp")),
    plain("Expm1", expm1),
    plain("Floor", floor),
    noted("FloorDiv", "rounds down, also integers", floor_div),
    noted("FloorMod", "has the sign of the divisor", floor_mod),
    plain("Greater", |c| c.binary("Greater")),
    plain("GreaterEqual", |c| c.binary("GreaterOrEqual")),
    plain("Inv", |c| c.unary("Reciprocal")),
    plain("Invert", invert),
    plain("IsFinite", is_finite),
    plain("IsInf", |c| c.unary("IsInf")),
    plain("IsNan", |c| c.unary("IsNaN")),
    plain("LeakyRelu", leaky_relu),
    plain("LeftShift", |c| c.salver_binary("LeftShift")),
    plain("Less", |c| c.binary("Less")),
    plain("LessEqual", |c| c.binary("LessOrEqual")),
    plain("Log", |c| c.unary("Log")),
    plain("Log1p", log1p),
    plain("Lgamma", lgamma),
    plain("LogSoftmax", |c| softmax(c, "LogSoftmax")),
    plain("LogicalAnd", |c| c.binary("And")),
    plain("LogicalNot", |c| c.unary("Not")),
    plain("LogicalOr", |c| c.binary("Or")),
    plain("Maximum", |c| c.binary("Max")),
    plain("Minimum", |c| c.binary("Min")),
    noted("Mod", "has the sign of the dividend", truncate_mod),
    plain("Mul", |c| c.binary("Mul")),
    plain("MulNoNan", mul_no_nan),
    plain("Neg", |c| c.unary("Neg")),
    plain("NotEqual", not_equal),
    plain("OnesLike", |c| like(c, 1.0)),
    plain("Pow", |c| c.binary("Pow")),
    plain("RealDiv", |c| c.binary("Div")),
    plain("Reciprocal", |c| c.unary("Reciprocal")),
    noted("Relu", "of NaN: 0 on the embedded engine", relu),
    plain("Relu6", relu6),
    plain("RightShift", |c| c.salver_binary("RightShift")),
    plain("Rint", round),
    plain("Round", round),
    plain("Rsqrt", rsqrt),
    noted("Select", "a vector condition chooses rows", select),
    plain("SelectV2", |c| c.same("Where")),
    plain("Selu", |c| c.unary("Selu")),
    plain("Sigmoid", |c| c.unary("Sigmoid")),
    plain("Sign", |c| c.unary("Sign")),
    plain("Sin", |c| c.unary("Sin")),
    plain("Sinh", |c| c.unary("Sinh")),
    plain("Softmax", |c| softmax(c, "Softmax")),
    plain("Softplus", |c| c.unary("Softplus")),
    plain("Softsign", |c| c.unary("Softsign")),
    plain("Sqrt", |c| c.unary("Sqrt")),
    plain("Square", square),
    plain("SquaredDifference", squared_difference),
    plain("Sub", |c| c.binary("Sub")),
    plain("Tan", |c| c.unary("Tan")),
    plain("Tanh", |c| c.unary("Tanh")),
    plain("TruncateDiv", |c| c.binary("Div")),
    noted("TruncateMod", "has the sign of the dividend", truncate_mod),
    plain("Xdivy", xdivy),
    plain("Xlog1py", xlog1py),
    plain("Xlogy", xlogy),
    plain("ZerosLike", |c| like(c, 0.0)),
];

fn constant(c: &mut Context<'_>) -> Outputs {
    let tensor = decode_tensor(c.node.tensor("value")?, c.budget)?;
    Ok(vec![c.builder.constant(c.node.name, tensor)])
}

fn identity(c: &mut Context<'_>) -> Outputs {
    Ok(vec![c.input(0)?])
}

fn ensure_shape(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    if c.builder.rank(x).is_none()
        && let Some(dims) = c.node.shape("shape")?.and_then(proto_dims)
    {
        let y = c.op("Identity", &[x])?;
        let dim = |dim: Option<usize>| dim.map_or(salver_graph::Dim::Unknown, salver_graph::Dim::Fixed);
        c.builder.set_dims(y, Some(dims.into_iter().map(dim).collect()));
        return Ok(vec![y]);
    }
    Ok(vec![x])
}

fn add(c: &mut Context<'_>) -> Outputs {
    if c.dtype(c.input(0)?) == DType::String {
        let inputs = c.inputs;
        return c.salver("StringJoin", inputs, Attributes::new().with("separator", ""), 1);
    }
    c.binary("Add")
}

fn sum(c: &mut Context<'_>) -> Outputs {
    let mut total = c.input(0)?;
    for &input in c.inputs.get(1..).unwrap_or_default() {
        total = c.op("Add", &[total, input])?;
    }
    Ok(vec![total])
}

fn approximate_equal(c: &mut Context<'_>) -> Outputs {
    let difference = c.op("Sub", &[c.input(0)?, c.input(1)?])?;
    let size = c.op("Abs", &[difference])?;
    let tolerance = c.scalar(f64::from(c.node.float("tolerance", 1e-5)?), size)?;
    Ok(vec![c.op("Less", &[size, tolerance])?])
}

/// atan(y / x), turned by half a circle left of 0.
fn atan2(c: &mut Context<'_>) -> Outputs {
    let (y, x) = (c.input(0)?, c.input(1)?);
    let zero = c.scalar(0.0, x)?;
    let ratio = c.op("Div", &[y, x])?;
    let angle = c.op("Atan", &[ratio])?;
    let half_turn = c.scalar(std::f64::consts::PI, x)?;
    let minus_half_turn = c.scalar(-std::f64::consts::PI, x)?;
    let below = c.op("Less", &[y, zero])?;
    let turn = c.op("Where", &[below, minus_half_turn, half_turn])?;
    let turned = c.op("Add", &[angle, turn])?;
    let left = c.op("Less", &[x, zero])?;
    let beside = c.op("Where", &[left, turned, angle])?;
    // 0 / 0 on the axis itself.
    let sign = c.op("Sign", &[y])?;
    let quarter = c.scalar(std::f64::consts::FRAC_PI_2, x)?;
    let upright = c.op("Mul", &[sign, quarter])?;
    let on_axis = c.op("Equal", &[x, zero])?;
    Ok(vec![c.op("Where", &[on_axis, upright, beside])?])
}

fn bitcast(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let to = c.node.dtype("type", c.dtype(x))?;
    if to == c.dtype(x) {
        return Ok(vec![x]);
    }
    c.salver("Bitcast", &[x], Attributes::new().with("type", to), 1)
}

fn cast(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let to = c.node.dtype("DstT", c.dtype(x))?;
    if (to == DType::String) != (c.dtype(x) == DType::String) {
        return Err(Error::unsupported(format!("Cast of {} to {to}", c.dtype(x))));
    }
    Ok(vec![c.cast(x, to)?])
}

fn clip_by_value(c: &mut Context<'_>) -> Outputs {
    let (x, low, high) = (c.input(0)?, c.input(1)?, c.input(2)?);
    if c.builder.rank(low) == Some(0) && c.builder.rank(high) == Some(0) {
        return c.same("Clip");
    }
    let bounded = c.op("Max", &[x, low])?;
    Ok(vec![c.op("Min", &[bounded, high])?])
}

/// `otherwise`, or 0 where `id` is 0.
fn zero_where_zero(c: &mut Context<'_>, id: ValueId, otherwise: ValueId) -> Outputs {
    let zero = c.scalar(0.0, id)?;
    let is_zero = c.op("Equal", &[id, zero])?;
    Ok(vec![c.op("Where", &[is_zero, zero, otherwise])?])
}

fn div_no_nan(c: &mut Context<'_>) -> Outputs {
    let (x, y) = (c.input(0)?, c.input(1)?);
    let ratio = c.op("Div", &[x, y])?;
    zero_where_zero(c, y, ratio)
}

fn mul_no_nan(c: &mut Context<'_>) -> Outputs {
    let (x, y) = (c.input(0)?, c.input(1)?);
    let product = c.op("Mul", &[x, y])?;
    zero_where_zero(c, y, product)
}

fn xdivy(c: &mut Context<'_>) -> Outputs {
    let (x, y) = (c.input(0)?, c.input(1)?);
    let ratio = c.op("Div", &[x, y])?;
    zero_where_zero(c, x, ratio)
}

fn xlogy(c: &mut Context<'_>) -> Outputs {
    let (x, y) = (c.input(0)?, c.input(1)?);
    let log = c.op("Log", &[y])?;
    let product = c.op("Mul", &[x, log])?;
    zero_where_zero(c, x, product)
}

fn xlog1py(c: &mut Context<'_>) -> Outputs {
    let (x, y) = (c.input(0)?, c.input(1)?);
    let log = log_of_1_plus(c, y)?;
    let product = c.op("Mul", &[x, log])?;
    zero_where_zero(c, x, product)
}

fn erfc(c: &mut Context<'_>) -> Outputs {
    let erf = c.op("Erf", &[c.input(0)?])?;
    let one = c.scalar(1.0, erf)?;
    Ok(vec![c.op("Sub", &[one, erf])?])
}

/// Near 0 as 2 t / (1 - t) with t = tanh(x / 2), which loses no digits there; else as exp(x) - 1.
fn expm1(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let (one, two, half) = (c.scalar(1.0, x)?, c.scalar(2.0, x)?, c.scalar(0.5, x)?);
    let halved = c.op("Mul", &[x, half])?;
    let t = c.op("Tanh", &[halved])?;
    let (above, below) = (c.op("Mul", &[two, t])?, c.op("Sub", &[one, t])?);
    let near = c.op("Div", &[above, below])?;
    let power = c.op("Exp", &[x])?;
    let far = c.op("Sub", &[power, one])?;
    let size = c.op("Abs", &[x])?;
    let is_near = c.op("Less", &[size, one])?;
    Ok(vec![c.op("Where", &[is_near, near, far])?])
}

fn log1p(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    Ok(vec![log_of_1_plus(c, x)?])
}

/// Near 0 as log(u) x / (u - 1) with u = 1 + x, where the error of u cancels out (W. Kahan); else as log(u).
fn log_of_1_plus(c: &mut Context<'_>, x: ValueId) -> Result<ValueId, Error> {
    let one = c.scalar(1.0, x)?;
    let u = c.op("Add", &[one, x])?;
    let log = c.op("Log", &[u])?;
    let back = c.op("Sub", &[u, one])?;
    let product = c.op("Mul", &[log, x])?;
    let ratio = c.op("Div", &[product, back])?;
    let is_tiny = c.op("Equal", &[u, one])?;
    let near = c.op("Where", &[is_tiny, x, ratio])?;
    let size = c.op("Abs", &[x])?;
    let is_near = c.op("Less", &[size, one])?;
    c.op("Where", &[is_near, near, log])
}

/// The coefficients of C. Lanczos' approximation for g = 7 and 9 terms (W. Press and others, Numerical Recipes, 6.1).
const LANCZOS: [f64; 9] = [
    0.999_999_999_999_809_9,
    676.520_368_121_885_1,
    -1_259.139_216_722_402_8,
    771.323_428_777_653_1,
    -176.615_029_162_140_6,
    12.507_343_278_686_905,
    -0.138_571_095_265_720_12,
    9.984_369_578_019_572e-6,
    1.505_632_735_149_311_6e-7,
];

/// The logarithm of the absolute value of the gamma function; left of 1/2 by the reflection formula.
fn lgamma(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let wide = c.cast(x, DType::F64)?;
    let (half, one) = (c.scalar(0.5, wide)?, c.scalar(1.0, wide)?);
    let is_left = c.op("Less", &[wide, half])?;
    let mirrored = c.op("Sub", &[one, wide])?;
    let at = c.op("Where", &[is_left, mirrored, wide])?;
    let z = c.op("Sub", &[at, one])?;
    let mut sum = c.scalar(LANCZOS[0], wide)?;
    for (n, &coefficient) in LANCZOS.iter().enumerate().skip(1) {
        let (n, coefficient) = (c.scalar(n as f64, wide)?, c.scalar(coefficient, wide)?);
        let below = c.op("Add", &[z, n])?;
        let term = c.op("Div", &[coefficient, below])?;
        sum = c.op("Add", &[sum, term])?;
    }
    let shift = c.scalar(7.5, wide)?;
    let t = c.op("Add", &[z, shift])?;
    let (log_t, log_sum) = (c.op("Log", &[t])?, c.op("Log", &[sum])?);
    let raised = c.op("Add", &[z, half])?;
    let power = c.op("Mul", &[raised, log_t])?;
    let circle = c.scalar((2.0 * std::f64::consts::PI).sqrt().ln(), wide)?;
    let value = c.op("Add", &[circle, power])?;
    let value = c.op("Sub", &[value, t])?;
    let right = c.op("Add", &[value, log_sum])?;
    let pi = c.scalar(std::f64::consts::PI, wide)?;
    let turn = c.op("Mul", &[pi, wide])?;
    let sine = c.op("Sin", &[turn])?;
    let sine = c.op("Abs", &[sine])?;
    let ratio = c.op("Div", &[pi, sine])?;
    let log = c.op("Log", &[ratio])?;
    let left = c.op("Sub", &[log, right])?;
    let chosen = c.op("Where", &[is_left, left, right])?;
    // The sine of a whole number of half turns is not quite 0 in floating point.
    let zero = c.scalar(0.0, wide)?;
    let below = c.op("LessOrEqual", &[wide, zero])?;
    let floor = c.op("Floor", &[wide])?;
    let whole = c.op("Equal", &[wide, floor])?;
    let pole = c.op("And", &[below, whole])?;
    let infinite = c.scalar(f64::INFINITY, wide)?;
    let value = c.op("Where", &[pole, infinite, chosen])?;
    Ok(vec![c.cast(value, c.dtype(x))?])
}

fn ceil(c: &mut Context<'_>) -> Outputs {
    if c.is_float(c.input(0)?) { c.unary("Ceil") } else { identity(c) }
}

fn floor(c: &mut Context<'_>) -> Outputs {
    if c.is_float(c.input(0)?) { c.unary("Floor") } else { identity(c) }
}

/// Halves to even, as ONNX does.
fn round(c: &mut Context<'_>) -> Outputs {
    if c.is_float(c.input(0)?) { c.unary("Round") } else { identity(c) }
}

fn floor_div(c: &mut Context<'_>) -> Outputs {
    let (x, y) = (c.input(0)?, c.input(1)?);
    if !c.is_float(x) {
        return c.salver_binary("FloorDiv");
    }
    let ratio = c.op("Div", &[x, y])?;
    Ok(vec![c.op("Floor", &[ratio])?])
}

fn floor_mod(c: &mut Context<'_>) -> Outputs {
    let (x, y) = (c.input(0)?, c.input(1)?);
    if !c.is_float(x) {
        return c.binary("Mod");
    }
    let fmod = || Attributes::new().with("fmod", 1);
    let zero = c.scalar(0.0, x)?;
    let rest = c.with("Mod", &[x, y], fmod())?;
    let (below_x, below_y) = (c.op("Less", &[x, zero])?, c.op("Less", &[y, zero])?);
    let same_sign = c.op("Equal", &[below_x, below_y])?;
    let moved = c.op("Add", &[rest, y])?;
    let wrapped = c.with("Mod", &[moved, y], fmod())?;
    Ok(vec![c.op("Where", &[same_sign, rest, wrapped])?])
}

fn truncate_mod(c: &mut Context<'_>) -> Outputs {
    let (x, y) = (c.input(0)?, c.input(1)?);
    Ok(vec![c.with("Mod", &[x, y], Attributes::new().with("fmod", 1))?])
}

/// All bits turned: exclusive or with all ones, which is -1 in two's complement.
fn invert(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let dtype = c.dtype(x);
    let Some(size) = dtype.size().filter(|_| !c.is_float(x) && dtype != DType::Bool) else {
        return Err(Error::invalid(format!("Invert of {dtype}")));
    };
    let ones = Tensor::from_bytes(dtype, Shape::scalar(), vec![0xff; size].into());
    let ones = ones.map_err(|error| Error::invalid(error.to_string()))?;
    let ones = c.builder.constant("ones", ones);
    c.salver("BitwiseXor", &[x, ones], Attributes::new(), 1)
}

fn is_finite(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let (nan, infinite) = (c.op("IsNaN", &[x])?, c.op("IsInf", &[x])?);
    let either = c.op("Or", &[nan, infinite])?;
    Ok(vec![c.op("Not", &[either])?])
}

fn leaky_relu(c: &mut Context<'_>) -> Outputs {
    let (x, alpha) = (c.input(0)?, c.node.float("alpha", 0.2)?);
    Ok(vec![c.with("LeakyRelu", &[x], Attributes::new().with("alpha", alpha))?])
}

fn softmax(c: &mut Context<'_>, op: &str) -> Outputs {
    let x = c.input(0)?;
    Ok(vec![c.with(op, &[x], Attributes::new().with("axis", -1))?])
}

fn not_equal(c: &mut Context<'_>) -> Outputs {
    let equal = c.op("Equal", &[c.input(0)?, c.input(1)?])?;
    Ok(vec![c.op("Not", &[equal])?])
}

fn like(c: &mut Context<'_>, value: f64) -> Outputs {
    let x = c.input(0)?;
    let shape = c.shape(x)?;
    if value == 0.0 {
        return Ok(vec![c.zeros(shape, c.dtype(x))?]);
    }
    let element = c.scalar(value, x)?;
    let element =
        c.builder.constant_of(element).cloned().ok_or_else(|| Error::invalid("a scalar is no constant"))?;
    Ok(vec![c.splat(element, shape)?])
}

fn relu(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    if c.is_float(x) {
        return c.unary("Relu");
    }
    let zero = c.scalar(0.0, x)?;
    Ok(vec![c.op("Max", &[x, zero])?])
}

fn relu6(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let (zero, six) = (c.scalar(0.0, x)?, c.scalar(6.0, x)?);
    Ok(vec![c.op("Clip", &[x, zero, six])?])
}

fn rsqrt(c: &mut Context<'_>) -> Outputs {
    let root = c.op("Sqrt", &[c.input(0)?])?;
    Ok(vec![c.op("Reciprocal", &[root])?])
}

fn select(c: &mut Context<'_>) -> Outputs {
    let (condition, a, b) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let mut condition = condition;
    if c.builder.rank(condition) == Some(1) {
        let rank = c.rank(a)?;
        let axes: Vec<i64> = (1..rank as i64).collect();
        condition = c.unsqueeze(condition, &axes)?;
    }
    Ok(vec![c.op("Where", &[condition, a, b])?])
}

fn square(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    Ok(vec![c.op("Mul", &[x, x])?])
}

fn squared_difference(c: &mut Context<'_>) -> Outputs {
    let difference = c.op("Sub", &[c.input(0)?, c.input(1)?])?;
    Ok(vec![c.op("Mul", &[difference, difference])?])
}

impl Context<'_> {
    /// An operator of the domain `salver` on two inputs.
    fn salver_binary(&mut self, op: &str) -> Outputs {
        let (a, b) = (self.input(0)?, self.input(1)?);
        self.salver(op, &[a, b], Attributes::new(), 1)
    }
}
