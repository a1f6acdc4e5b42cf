//! Operations of a functional model that are no layers: `keras.ops` of Keras 3, and TensorFlow's functions that
//! tf.keras wraps (`TFOpLambda`, `SlicingOpLambda`).

mod args;
mod moving;

use salver_graph::{Error, ValueId};
use salver_tensor::DType;

use self::args::{Args, Axis, operand};
use self::moving::moving;
use crate::activation;
use crate::architecture::{Layer, snake_case};
use crate::attrs;
use crate::config::{self, MAX_SIZE, dtype_named};
use crate::emit::Emit;
use crate::layers::{core, merge, norm};
use crate::network::{Given, Inputs, Value};

/// An operation of Keras 3.
pub(super) fn call(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<Vec<Value>, Error> {
    let name = snake_case(&layer.class);
    let args = Args::new(layer, inputs, DType::F32, false);
    let ids = apply(cx, &name, &args)?;
    Ok(ids.into_iter().map(Value::from).collect())
}

/// A function of TensorFlow.
pub(super) fn tensorflow(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<Vec<Value>, Error> {
    let function = layer.config.text_or("function", "")?;
    let last = function.rsplit('.').next().unwrap_or(function);
    let name = match last {
        "truediv" | "div" | "realdiv" => "divide",
        "floordiv" => "floor_divide",
        "mul" => "multiply",
        "sub" => "subtract",
        "pow" => "power",
        "neg" => "negative",
        "reduce_sum" => "sum",
        "reduce_mean" => "mean",
        "reduce_max" => "max",
        "reduce_min" => "min",
        "reduce_prod" => "prod",
        "reduce_any" => "any",
        "reduce_all" => "all",
        "reduce_std" => "std",
        "reduce_variance" => "var",
        "concat" => "concatenate",
        "getitem" => "get_item",
        "clip_by_value" => "clip",
        "bias_add" | "radd" => "add",
        "rmul" => "multiply",
        "rsub" => "reverse_subtract",
        "rtruediv" => "reverse_divide",
        // The functions of that name give two results, where Keras gives one.
        "normalize" => "linalg.normalize",
        "gather" => "take",
        "swish" => "silu",
        "where_v2" => "where",
        "broadcast_to" => "broadcast_to",
        other => other,
    };
    if function.is_empty() {
        return Err(Error::unsupported(format!("a {} without function", layer.class)));
    }
    // What is an operator of TensorFlow and not of Keras goes by TensorFlow's rules where these differ.
    let args = Args::new(layer, inputs, layer.policy.compute, true);
    let ids = apply(cx, name, &args).map_err(|error| error.at(format!("function '{function}'")))?;
    Ok(ids.into_iter().map(Value::from).collect())
}

/// Writes the operation; what it does not understand of its arguments is refused.
fn apply(cx: &mut Emit, name: &str, args: &Args<'_>) -> Result<Vec<ValueId>, Error> {
    let ids = understood(cx, name, args)?;
    args.refuse_unread(cx, name, &ids)?;
    Ok(ids)
}

fn understood(cx: &mut Emit, name: &str, args: &Args<'_>) -> Result<Vec<ValueId>, Error> {
    if let Some(op) = binary(name) {
        let [a, b] = args.pair(cx)?;
        return cx.op(op, &[a, b]).map(|id| vec![id]);
    }
    if let Some(op) = unary(name) {
        let x = args.x(cx)?;
        return cx.op(op, &[x]).map(|id| vec![id]);
    }
    if let Some(op) = reduction(name) {
        return reduce(cx, op, args).map(|id| vec![id]);
    }
    if matches!(name, "split" | "unstack" | "array_split") {
        return split(cx, name, args);
    }
    one(cx, name, args).map(|id| vec![id])
}

fn binary(name: &str) -> Option<&'static str> {
    Some(match name {
        "add" => "Add",
        "subtract" => "Sub",
        "multiply" => "Mul",
        "maximum" => "Max",
        "minimum" => "Min",
        "power" => "Pow",
        "equal" => "Equal",
        "less" => "Less",
        "less_equal" => "LessOrEqual",
        "greater" => "Greater",
        "greater_equal" => "GreaterOrEqual",
        "logical_and" => "And",
        "logical_or" => "Or",
        "logical_xor" => "Xor",
        _ => return None,
    })
}

fn unary(name: &str) -> Option<&'static str> {
    Some(match name {
        "negative" => "Neg",
        "abs" | "absolute" => "Abs",
        "sqrt" => "Sqrt",
        "exp" => "Exp",
        "log" => "Log",
        "sin" => "Sin",
        "cos" => "Cos",
        "tan" => "Tan",
        "tanh" => "Tanh",
        "sinh" => "Sinh",
        "cosh" => "Cosh",
        "arcsin" | "asin" => "Asin",
        "arccos" | "acos" => "Acos",
        "arctan" | "atan" => "Atan",
        "arcsinh" | "asinh" => "Asinh",
        "arccosh" | "acosh" => "Acosh",
        "arctanh" | "atanh" => "Atanh",
        "erf" => "Erf",
        "floor" => "Floor",
        "ceil" => "Ceil",
        "sign" => "Sign",
        "isnan" | "is_nan" => "IsNaN",
        "isinf" | "is_inf" => "IsInf",
        "logical_not" => "Not",
        "identity" | "stop_gradient" => "Identity",
        "reciprocal" => "Reciprocal",
        "relu" => "Relu",
        "sigmoid" => "Sigmoid",
        "softplus" => "Softplus",
        "softsign" => "Softsign",
        _ => return None,
    })
}

fn reduction(name: &str) -> Option<&'static str> {
    Some(match name {
        "sum" => "ReduceSum",
        "mean" => "ReduceMean",
        "max" | "amax" => "ReduceMax",
        "min" | "amin" => "ReduceMin",
        "prod" => "ReduceProd",
        "logsumexp" | "reduce_logsumexp" => "ReduceLogSumExp",
        "any" | "all" | "var" | "std" => match name {
            "any" => "any",
            "all" => "all",
            "var" => "var",
            _ => "std",
        },
        _ => return None,
    })
}

fn reduce(cx: &mut Emit, op: &str, args: &Args<'_>) -> Result<ValueId, Error> {
    let x = args.x(cx)?;
    let rank = cx.rank(x)? as i64;
    let axes = match args.axis(1)? {
        Axis::These(axes) => axes,
        Axis::Missing | Axis::Null => (0..rank).collect(),
    };
    let keep = args.flag(2, &["keepdims", "keep_dims"], false)?;
    match op {
        "any" | "all" => {
            let truth = cx.cast(x, DType::Bool)?;
            let numbers = cx.cast(truth, DType::F32)?;
            let found =
                cx.reduce(if op == "any" { "ReduceMax" } else { "ReduceMin" }, numbers, &axes, keep)?;
            cx.cast(found, DType::Bool)
        }
        "var" | "std" => {
            let x = cx.float(x, args.dtype)?;
            let mean = cx.reduce("ReduceMean", x, &axes, true)?;
            let centred = cx.sub(x, mean)?;
            let square = cx.mul(centred, centred)?;
            let variance = cx.reduce("ReduceMean", square, &axes, keep)?;
            if op == "std" { cx.op("Sqrt", &[variance]) } else { Ok(variance) }
        }
        "ReduceMean" => {
            let is_float = matches!(cx.dtype(x), DType::F16 | DType::BF16 | DType::F32 | DType::F64);
            if !is_float && args.tensorflow {
                return Err(Error::unsupported("the mean of integers, which TensorFlow cuts to an integer"));
            }
            let x = if is_float { x } else { cx.cast(x, args.dtype)? };
            cx.reduce(op, x, &axes, keep)
        }
        "ReduceSum" | "ReduceProd" => {
            // Keras counts in integers of at least 32 bits.
            let wide = match cx.dtype(x) {
                DType::Bool | DType::I8 | DType::I16 => DType::I32,
                DType::U8 | DType::U16 => DType::U32,
                other => other,
            };
            let x = if args.tensorflow { x } else { cx.cast(x, wide)? };
            cx.reduce(op, x, &axes, keep)
        }
        "ReduceMax" | "ReduceMin" => {
            let y = cx.reduce(op, x, &axes, keep)?;
            match args.json(3, &["initial"])? {
                Some(initial) => {
                    let initial =
                        config::float(&initial).ok_or_else(|| Error::invalid("initial is no number"))?;
                    cx.with(if op == "ReduceMax" { "Max" } else { "Min" }, y, initial)
                }
                None => Ok(y),
            }
        }
        _ => cx.reduce(op, x, &axes, keep),
    }
}

fn split(cx: &mut Emit, name: &str, args: &Args<'_>) -> Result<Vec<ValueId>, Error> {
    let x = args.x(cx)?;
    if name == "unstack" {
        let axis = cx.axis(x, args.int(2, &["axis"], 0)?)?;
        let n = cx.dim(x, axis)?;
        if args.int(1, &["num"], n as i64)? != n as i64 {
            return Err(Error::invalid(format!("num is not {n}, the number of parts")));
        }
        if n > 1 << 16 {
            return Err(Error::too_large(format!("{n} parts")));
        }
        let parts = cx.split(x, axis as i64, n)?;
        return parts.into_iter().map(|part| cx.squeeze(part, &[axis as i64])).collect();
    }
    let axis = cx.axis(x, args.int(2, &["axis"], 0)?)?;
    let parts = args.ints(1, &["indices_or_sections", "num_or_size_splits"])?;
    let parts = parts.ok_or_else(|| config::missing("indices_or_sections"))?;
    if let [n] = parts[..]
        && args.json(1, &["indices_or_sections", "num_or_size_splits"])?.is_some_and(|json| !json.is_array())
    {
        let n = usize::try_from(n).ok().filter(|&n| n > 0 && n <= 1 << 16);
        let n = n.ok_or_else(|| Error::invalid("the number of parts"))?;
        if cx.dims(x)?[axis].is_none_or(|size| size % n != 0) {
            return Err(Error::unsupported(format!("a split into {n} parts that are not known to be equal")));
        }
        return cx.split(x, axis as i64, n);
    }
    // Keras gives where to cut, TensorFlow how much goes into each part.
    let by_size = args.inputs.kwarg("num_or_size_splits").is_some();
    let mut bounds = vec![0];
    if by_size {
        if parts.iter().any(|part| !(0..=MAX_SIZE).contains(part)) {
            return Err(Error::unsupported(format!("a split into parts of {parts:?}")));
        }
        for part in &parts {
            let next = bounds.last().copied().unwrap_or(0) + part;
            bounds.push(next);
        }
    } else {
        bounds.extend(&parts);
        bounds.push(i64::MAX);
    }
    bounds.windows(2).map(|pair| cx.slice(x, axis, pair[0], pair[1], 1)).collect()
}

fn one(cx: &mut Emit, name: &str, args: &Args<'_>) -> Result<ValueId, Error> {
    match name {
        "divide" | "true_divide" | "reverse_divide" | "divide_no_nan" => {
            let [a, b] = args.pair(cx)?;
            let is_float = matches!(cx.dtype(a), DType::F16 | DType::BF16 | DType::F32 | DType::F64);
            // TensorFlow divides wide integers as float64.
            let wide =
                args.tensorflow && matches!(cx.dtype(a), DType::I32 | DType::I64 | DType::U32 | DType::U64);
            let float = if wide { DType::F64 } else { args.dtype };
            let (a, b) = if is_float { (a, b) } else { (cx.cast(a, float)?, cx.cast(b, float)?) };
            match name {
                "reverse_divide" => cx.div(b, a),
                "divide_no_nan" => {
                    let zero = cx.scalar(0.0, b)?;
                    let is_zero = cx.op("Equal", &[b, zero])?;
                    let ratio = cx.div(a, b)?;
                    cx.select(is_zero, zero, ratio)
                }
                _ => cx.div(a, b),
            }
        }
        "reverse_subtract" => {
            let [a, b] = args.pair(cx)?;
            cx.sub(b, a)
        }
        "floor_divide" => {
            let [a, b] = args.pair(cx)?;
            cx.salver_one("FloorDiv", &[a, b], attrs!())
        }
        "mod" | "floormod" => {
            let [a, b] = args.pair(cx)?;
            if !matches!(cx.dtype(a), DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
                return cx.op_with("Mod", &[a, b], attrs!("fmod": 0));
            }
            let ratio = cx.div(a, b)?;
            let whole = cx.op("Floor", &[ratio])?;
            let product = cx.mul(whole, b)?;
            cx.sub(a, product)
        }
        "not_equal" => {
            let [a, b] = args.pair(cx)?;
            let same = cx.op("Equal", &[a, b])?;
            cx.op("Not", &[same])
        }
        "square" => {
            let x = args.x(cx)?;
            cx.mul(x, x)
        }
        "squared_difference" => {
            let [a, b] = args.pair(cx)?;
            let difference = cx.sub(a, b)?;
            cx.mul(difference, difference)
        }
        "rsqrt" => {
            let x = args.x(cx)?;
            let root = cx.op("Sqrt", &[x])?;
            cx.op("Reciprocal", &[root])
        }
        "log1p" | "expm1" => {
            let x = args.x(cx)?;
            let is_float = matches!(cx.dtype(x), DType::F16 | DType::BF16 | DType::F32 | DType::F64);
            let x = if is_float { x } else { cx.cast(x, args.dtype)? };
            if name == "log1p" { log1p(cx, x) } else { expm1(cx, x) }
        }
        "matmul" => matmul(cx, args),
        "round" => {
            let x = args.x(cx)?;
            let decimals = args.int(1, &["decimals"], 0)?;
            if decimals == 0 {
                return cx.op("Round", &[x]);
            }
            if !(-18..=18).contains(&decimals) || !matches!(cx.dtype(x), DType::F32 | DType::F64) {
                return Err(Error::unsupported(format!("round of {} to {decimals} decimals", cx.dtype(x))));
            }
            let factor = 10f64.powi(decimals as i32);
            let wide = cx.with("Mul", x, factor)?;
            let whole = cx.op("Round", &[wide])?;
            cx.with("Div", whole, factor)
        }
        "cast" => {
            let x = args.x(cx)?;
            let dtype = args.text(1, &["dtype"])?.ok_or_else(|| config::missing("dtype"))?;
            cx.cast(x, dtype_named(&dtype)?)
        }
        "where" => {
            let missing = || Error::unsupported("where with one argument");
            let condition = args.x_or(cx, &["condition"])?;
            let first = args.given(1, &["x1", "x"]).ok_or_else(missing)?;
            let second = args.given(2, &["x2", "y"]).ok_or_else(missing)?;
            let (a, b) = (first.tensor().map(|value| value.id), second.tensor().map(|value| value.id));
            let mut pair = [operand(cx, &first, b, args.dtype)?, operand(cx, &second, a, args.dtype)?];
            merge::same_dtype(cx, &mut pair, args.dtype)?;
            let condition = cx.cast(condition, DType::Bool)?;
            cx.select(condition, pair[0], pair[1])
        }
        "clip" => {
            let x = args.x(cx)?;
            let low = args.float(1, &["x_min", "clip_value_min"], f64::NEG_INFINITY)?;
            let high = args.float(2, &["x_max", "clip_value_max"], f64::INFINITY)?;
            activation::clip(cx, x, low, high)
        }
        "zeros_like" | "ones_like" => {
            let x = args.x(cx)?;
            let dtype = match args.text(1, &["dtype"])? {
                Some(name) => dtype_named(&name)?,
                None => cx.dtype(x),
            };
            let shape = cx.shape(x)?;
            let number = cx.b.f32(if name == "ones_like" { 1.0 } else { 0.0 });
            let number = cx.cast(number, dtype)?;
            cx.op("Expand", &[number, shape])
        }
        "einsum" => {
            let equation = match args.text(usize::MAX, &["subscripts", "equation"])? {
                Some(equation) => equation,
                None => args.text(0, &[])?.ok_or_else(|| config::missing("subscripts"))?,
            };
            let ids: Vec<ValueId> =
                args.positional().iter().flat_map(Given::tensors).map(|value| value.id).collect();
            match ids[..] {
                [a, b] => core::einsum(cx, &equation, a, b),
                _ => cx.op_with("Einsum", &ids, attrs!("equation": equation)),
            }
        }
        "argmax" | "argmin" => arg_extreme(cx, name, args),
        "normalize" => {
            let x = args.x(cx)?;
            let axes = match args.axis(1)? {
                Axis::These(axes) => axes,
                Axis::Missing => vec![-1],
                Axis::Null => return Err(Error::unsupported("normalize without axis")),
            };
            if args.int(2, &["order"], 2)? != 2 {
                return Err(Error::unsupported("normalize with an order other than 2"));
            }
            norm::normalised(cx, x, &axes, args.float(3, &["epsilon"], 1e-7)?)
        }
        "l2_normalize" => {
            let x = args.x(cx)?;
            let axes = match args.axis(1)? {
                Axis::These(axes) => axes,
                Axis::Missing | Axis::Null => (0..cx.rank(x)? as i64).collect(),
            };
            // The bound of TensorFlow is on the square.
            norm::normalised(cx, x, &axes, args.float(2, &["epsilon"], 1e-12)?.max(0.0).sqrt())
        }
        "cumsum" => {
            let x = args.x(cx)?;
            let axis = args.one_axis(1, 0)?;
            let x = if axis.is_some() { x } else { cx.reshape(x, &[-1])? };
            let exclusive = args.flag(2, &["exclusive"], false)?;
            let reverse = args.flag(3, &["reverse"], false)?;
            let axis = cx.int(axis.unwrap_or(0));
            let attrs = attrs!("exclusive": i64::from(exclusive), "reverse": i64::from(reverse));
            cx.op_with("CumSum", &[x, axis], attrs)
        }
        _ => match moving(cx, name, args)? {
            Some(id) => Ok(id),
            None => function(cx, name, args),
        },
    }
}

fn matmul(cx: &mut Emit, args: &Args<'_>) -> Result<ValueId, Error> {
    let mut pair = args.pair(cx)?;
    // The numbers are real, so that an adjoint is a transpose.
    for (at, names) in [["transpose_a", "adjoint_a"], ["transpose_b", "adjoint_b"]].into_iter().enumerate() {
        for name in names {
            if !args.flag(usize::MAX, &[name], false)? {
                continue;
            }
            let rank = cx.rank(pair[at])?;
            if rank < 2 {
                return Err(Error::invalid(format!("{name} of a tensor of {rank} dimensions")));
            }
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.swap(rank - 2, rank - 1);
            pair[at] = cx.transpose(pair[at], &perm)?;
        }
    }
    cx.op("MatMul", &pair)
}

fn arg_extreme(cx: &mut Emit, name: &str, args: &Args<'_>) -> Result<ValueId, Error> {
    let x = args.x(cx)?;
    let rank = cx.rank(x)?;
    let function = args.layer.config.text_or("function", "")?;
    // The backend of Keras 2 has another default than TensorFlow itself.
    let axis = args.one_axis(1, if function.contains("backend") { -1 } else { 0 })?;
    let keep = args.flag(2, &["keepdims"], false)?;
    let op = if name == "argmax" { "ArgMax" } else { "ArgMin" };
    let flat = if axis.is_some() { x } else { cx.reshape(x, &[-1])? };
    let keep_here = keep && axis.is_some();
    let attrs = attrs!("axis": axis.unwrap_or(0), "keepdims": i64::from(keep_here));
    let mut index = cx.op_with(op, &[flat], attrs)?;
    if keep && axis.is_none() {
        index = cx.reshape(index, &vec![1; rank])?;
    }
    let dtype = match args.text(3, &["output_type"])? {
        Some(name) => dtype_named(&name)?,
        None if args.tensorflow => DType::I64,
        None => DType::I32,
    };
    cx.cast(index, dtype)
}

/// Near 0 as 2 t / (1 - t) with t = tanh(x / 2), which loses no digits there; else as exp(x) - 1.
fn expm1(cx: &mut Emit, x: ValueId) -> Result<ValueId, Error> {
    let one = cx.scalar(1.0, x)?;
    let halved = cx.with("Mul", x, 0.5)?;
    let t = cx.op("Tanh", &[halved])?;
    let (above, below) = (cx.add(t, t)?, cx.sub(one, t)?);
    let near = cx.div(above, below)?;
    let power = cx.op("Exp", &[x])?;
    let far = cx.sub(power, one)?;
    let size = cx.op("Abs", &[x])?;
    let is_near = cx.op("Less", &[size, one])?;
    cx.select(is_near, near, far)
}

/// Near 0 as log(u) x / (u - 1) with u = 1 + x, where the error of u cancels out (W. Kahan); else as log(u).
fn log1p(cx: &mut Emit, x: ValueId) -> Result<ValueId, Error> {
    let one = cx.scalar(1.0, x)?;
    let u = cx.add(one, x)?;
    let log = cx.op("Log", &[u])?;
    let back = cx.sub(u, one)?;
    let product = cx.mul(log, x)?;
    let ratio = cx.div(product, back)?;
    let is_tiny = cx.op("Equal", &[u, one])?;
    let near = cx.select(is_tiny, x, ratio)?;
    let size = cx.op("Abs", &[x])?;
    let is_near = cx.op("Less", &[size, one])?;
    cx.select(is_near, near, log)
}

/// Activation functions with their options.
fn function(cx: &mut Emit, name: &str, args: &Args<'_>) -> Result<ValueId, Error> {
    let unknown = || {
        Error::unsupported(format!("the operation '{name}': export the model as a SavedModel (model.export)"))
    };
    const KNOWN: &[&str] = &[
        "relu6",
        "elu",
        "selu",
        "celu",
        "silu",
        "swish",
        "gelu",
        "leaky_relu",
        "hard_sigmoid",
        "hard_silu",
        "hard_swish",
        "hard_tanh",
        "softmax",
        "log_softmax",
        "log_sigmoid",
        "squareplus",
        "soft_shrink",
        "hard_shrink",
        "tanh_shrink",
        "sparse_plus",
        "sparse_sigmoid",
        "threshold",
        "glu",
    ];
    if !KNOWN.contains(&name) {
        return Err(unknown());
    }
    let x = args.x(cx)?;
    let x = cx.float(x, if cx.dtype(x) == DType::F64 { DType::F64 } else { args.dtype })?;
    match name {
        "softmax" | "log_softmax" => {
            let axes = match args.axis(1)? {
                Axis::These(axes) => axes,
                Axis::Null if !args.tensorflow => (0..cx.rank(x)? as i64).collect(),
                Axis::Missing | Axis::Null => vec![-1],
            };
            if name == "log_softmax" {
                let [axis] = axes[..] else { return Err(unknown()) };
                return cx.op_with("LogSoftmax", &[x], attrs!("axis": axis));
            }
            core::masked_softmax(cx, x, None, &axes)
        }
        "leaky_relu" => activation::leaky_relu(cx, x, args.float(1, &["negative_slope", "alpha"], 0.2)?),
        "elu" => activation::elu(cx, x, args.float(1, &["alpha"], 1.0)?),
        "celu" => activation::celu(cx, x, args.float(1, &["alpha"], 1.0)?),
        "gelu" => {
            let default = args.layer.class == "Gelu";
            let approximate = args.flag(1, &["approximate"], default)?;
            activation::gelu(cx, x, approximate)
        }
        "squareplus" => {
            let square = cx.mul(x, x)?;
            let square = cx.with("Add", square, args.float(1, &["b"], 4.0)?)?;
            let root = cx.op("Sqrt", &[square])?;
            let sum = cx.add(x, root)?;
            cx.with("Div", sum, 2.0)
        }
        "glu" => activation::glu(cx, x, args.int(1, &["axis"], -1)?),
        "soft_shrink" => {
            let limit = args.float(1, &["threshold"], 0.5)?;
            activation::shrink(cx, x, limit, limit)
        }
        "hard_shrink" => activation::shrink(cx, x, args.float(1, &["threshold"], 0.5)?, 0.0),
        "threshold" => {
            let limit = args.float(1, &["threshold", "threshold_value"], 0.0)?;
            activation::threshold(cx, x, limit, args.float(2, &["default_value", "value"], 0.0)?)
        }
        other => activation::named(cx, other, x),
    }
}
