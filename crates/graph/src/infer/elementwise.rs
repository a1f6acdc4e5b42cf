//! Operators that work element by element.

use salver_tensor::DType;

use super::{Asked, Known, Outcome, broadcast, same_dtype};
use crate::Error;
use crate::ir::Item;

pub(super) fn infer(asked: &Asked<'_>) -> Result<Option<Vec<Outcome>>, Error> {
    let outcome = match asked.op {
        "Abs"
        | "Acos"
        | "Acosh"
        | "Asin"
        | "Asinh"
        | "Atan"
        | "Atanh"
        | "BitwiseNot"
        | "Ceil"
        | "Celu"
        | "Cos"
        | "Cosh"
        | "CumSum"
        | "Elu"
        | "Erf"
        | "Exp"
        | "Floor"
        | "Gelu"
        | "HardSigmoid"
        | "HardSwish"
        | "Hardmax"
        | "Identity"
        | "LeakyRelu"
        | "Log"
        | "LogSoftmax"
        | "LpNormalization"
        | "Mish"
        | "Neg"
        | "Reciprocal"
        | "Relu"
        | "Round"
        | "Selu"
        | "Shrink"
        | "Sigmoid"
        | "Sign"
        | "Sin"
        | "Sinh"
        | "Softmax"
        | "Softplus"
        | "Softsign"
        | "Sqrt"
        | "Swish"
        | "Tan"
        | "Tanh"
        | "ThresholdedRelu"
        | "Trilu"
        | "LRN"
        | "MeanVarianceNormalization"
        | "BatchNormalization"
        | "InstanceNormalization"
        | "GroupNormalization"
        | "Dropout"
        | "ReverseSequence"
        | "Clip" => {
            let input = asked.input(0)?;
            let outcome = Outcome::new(input.dtype, input.dims.map(<[_]>::to_vec));
            outcome.with_items(unary_items(asked.op, &input))
        }
        "LayerNormalization" => {
            let input = asked.input(0)?;
            let dims = input.dims.map(<[_]>::to_vec);
            return Ok(Some(vec![
                Outcome::new(input.dtype, dims),
                Outcome::new(DType::F32, None),
                Outcome::new(DType::F32, None),
            ]));
        }
        "IsInf" | "IsNaN" | "Not" => {
            let input = asked.input(0)?;
            if asked.op == "Not" && input.dtype != DType::Bool {
                return Err(Error::invalid(format!("Not of {}, expected bool", input.dtype)));
            }
            Outcome::new(DType::Bool, input.dims.map(<[_]>::to_vec))
        }
        "Cast" => {
            let input = asked.input(0)?;
            let to = asked.attributes.dtype("to")?.ok_or_else(|| Error::invalid("Cast without a type"))?;
            let is_int = matches!(to, DType::I32 | DType::I64);
            Outcome::new(to, input.dims.map(<[_]>::to_vec))
                .with_items(input.items.filter(|_| is_int).map(<[_]>::to_vec))
        }
        "CastLike" => {
            let (input, like) = (asked.input(0)?, asked.input(1)?);
            Outcome::new(like.dtype, input.dims.map(<[_]>::to_vec))
        }
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "PRelu" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor"
        | "BitShift" => {
            let dtype = same_dtype(asked)?;
            let (a, b) = (asked.input(0)?, asked.input(1)?);
            Outcome::new(dtype, broadcast(a.dims, b.dims)?).with_items(binary_items(asked.op, &a, &b))
        }
        "Pow" => {
            let (a, b) = (asked.input(0)?, asked.input(1)?);
            Outcome::new(a.dtype, broadcast(a.dims, b.dims)?)
        }
        "And" | "Or" | "Xor" => {
            let dtype = same_dtype(asked)?;
            if dtype != DType::Bool {
                return Err(Error::invalid(format!("{} of {dtype}, expected bool", asked.op)));
            }
            Outcome::new(DType::Bool, broadcast(asked.input(0)?.dims, asked.input(1)?.dims)?)
        }
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" => {
            same_dtype(asked)?;
            Outcome::new(DType::Bool, broadcast(asked.input(0)?.dims, asked.input(1)?.dims)?)
        }
        "Max" | "Min" | "Mean" | "Sum" => {
            let dtype = same_dtype(asked)?;
            let mut dims = asked.input(0)?.dims.map(<[_]>::to_vec);
            for input in asked.present().skip(1) {
                dims = broadcast(dims.as_deref(), input.dims)?;
            }
            let items = match (asked.inputs, asked.op) {
                ([Some(a), Some(b)], op @ ("Max" | "Min")) => binary_items(op, a, b),
                _ => None,
            };
            Outcome::new(dtype, dims).with_items(items)
        }
        "QuantizeLinear" => {
            let input = asked.input(0)?;
            if !matches!(input.dtype, DType::F32 | DType::F16 | DType::BF16 | DType::I32) {
                return Err(Error::invalid(format!("{} of {}, expected floats", asked.op, input.dtype)));
            }
            let stated = asked.attributes.dtype("output_dtype")?.unwrap_or(DType::U8);
            let dtype = asked.optional(2).map_or(stated, |zero| zero.dtype);
            Outcome::new(dtype, input.dims.map(<[_]>::to_vec))
        }
        "DequantizeLinear" => {
            let (input, scale) = (asked.input(0)?, asked.input(1)?);
            Outcome::new(scale.dtype, input.dims.map(<[_]>::to_vec))
        }
        "Where" => {
            let (condition, a, b) = (asked.input(0)?, asked.input(1)?, asked.input(2)?);
            if condition.dtype != DType::Bool || a.dtype != b.dtype {
                let types = format!("{}, {} and {}", condition.dtype, a.dtype, b.dtype);
                return Err(Error::invalid(format!("Where of {types}, expected bool and twice one type")));
            }
            let dims = broadcast(condition.dims, broadcast(a.dims, b.dims)?.as_deref())?;
            Outcome::new(a.dtype, dims)
        }
        _ => return Ok(None),
    };
    Ok(Some(vec![outcome]))
}

fn unary_items(op: &str, input: &Known<'_>) -> Option<Vec<Item>> {
    let items = input.items?;
    let int = |f: fn(i64) -> Option<i64>| {
        let item = |item: &Item| match item {
            Item::Int(value) => f(*value).map_or(Item::Unknown, Item::Int),
            _ => Item::Unknown,
        };
        Some(items.iter().map(item).collect())
    };
    match op {
        "Identity" => Some(items.to_vec()),
        "Neg" => int(i64::checked_neg),
        "Abs" => int(i64::checked_abs),
        _ => None,
    }
}

/// The elements of an operator on two small integer tensors; a name stays a name only where nothing changes it.
fn binary_items(op: &str, a: &Known<'_>, b: &Known<'_>) -> Option<Vec<Item>> {
    let (x, y) = (a.items?, b.items?);
    let n = match (x.len(), y.len()) {
        (1, n) | (n, 1) => n,
        (n, m) if n == m => n,
        _ => return None,
    };
    let at = |items: &[Item], i: usize| items.get(if items.len() == 1 { 0 } else { i }).cloned();
    (0..n).map(|i| Some(binary_item(op, &at(x, i)?, &at(y, i)?))).collect()
}

fn binary_item(op: &str, a: &Item, b: &Item) -> Item {
    let known = match (op, a, b) {
        ("Add", Item::Int(0), other) | ("Add" | "Sub", other, Item::Int(0)) => return other.clone(),
        ("Mul", Item::Int(1), other) | ("Mul" | "Div", other, Item::Int(1)) => return other.clone(),
        ("Max" | "Min", a, b) if a == b => return a.clone(),
        // A size is never negative.
        ("Max", Item::Int(0), Item::Dim(name)) | ("Max", Item::Dim(name), Item::Int(0)) => {
            return Item::Dim(name.clone());
        }
        (_, Item::Int(a), Item::Int(b)) => match op {
            "Add" => a.checked_add(*b),
            "Sub" => a.checked_sub(*b),
            "Mul" => a.checked_mul(*b),
            "Div" => a.checked_div(*b),
            "Max" => Some(*a.max(b)),
            "Min" => Some(*a.min(b)),
            _ => None,
        },
        _ => None,
    };
    known.map_or(Item::Unknown, Item::Int)
}
