//! Operators that reduce dimensions or run along one.

use salver_graph::{Attributes, ValueId};
use salver_tensor::DType;

use super::context::{Context, Outputs};
use super::table::{Entry, noted, plain};
use crate::Error;

const ARG: &str =
    "a constant dimension; where an element is NaN, the position may be another than TensorFlow's";

pub(super) const OPS: &[Entry] = &[
    plain("All", |c| truth(c, Truth::All)),
    plain("Any", |c| truth(c, Truth::Any)),
    noted("ArgMax", ARG, |c| arg(c, "ArgMax")),
    noted("ArgMin", ARG, |c| arg(c, "ArgMin")),
    noted("Cumprod", "a constant axis of a fixed size up to 256", cumprod),
    noted("Cumsum", "a constant axis", cumsum),
    plain("EuclideanNorm", |c| reduce(c, "ReduceL2")),
    plain("L2Loss", l2_loss),
    plain("Max", |c| reduce(c, "ReduceMax")),
    plain("Mean", mean),
    plain("Min", |c| reduce(c, "ReduceMin")),
    plain("Prod", |c| reduce(c, "ReduceProd")),
    plain("Sum", |c| reduce(c, "ReduceSum")),
];

/// Reduces over the axes that an input says. No axes means no reduction, where ONNX would take all of them.
fn reduce_value(c: &mut Context<'_>, op: &str, x: ValueId, axes: ValueId) -> Result<ValueId, Error> {
    let keep = c.node.flag("keep_dims", false)?;
    let attributes = Attributes::new().with("keepdims", i64::from(keep));
    match c.known_ints(axes) {
        Some(ints) if ints.is_empty() && op == "ReduceL2" => c.op("Abs", &[x]),
        Some(ints) if ints.is_empty() => Ok(x),
        Some(ints) => {
            // From the front, because a negative axis says nothing when dimensions come and go in front.
            let ints = match c.builder.rank(x) {
                Some(rank) => c.axes(&ints, rank)?.into_iter().map(|axis| axis as i64).collect(),
                None => ints,
            };
            let axes = c.i64s(&ints);
            c.with(op, &[x, axes], attributes)
        }
        None => {
            let axes = c.as_i64_vector(axes)?;
            c.with(op, &[x, axes], attributes.with("noop_with_empty_axes", 1))
        }
    }
}

fn reduce(c: &mut Context<'_>, op: &str) -> Outputs {
    let (x, axes) = (c.input(0)?, c.input(1)?);
    Ok(vec![reduce_value(c, op, x, axes)?])
}

/// Of integers: the sum divided by the number of elements, rounded toward 0.
fn mean(c: &mut Context<'_>) -> Outputs {
    let (x, axes) = (c.input(0)?, c.input(1)?);
    if c.is_float(x) {
        return reduce(c, "ReduceMean");
    }
    let total = reduce_value(c, "ReduceSum", x, axes)?;
    let shape = c.shape(x)?;
    let axes = c.as_i64_vector(axes)?;
    let sizes = c.with("Gather", &[shape, axes], Attributes::new().with("axis", 0))?;
    let count = c.with("ReduceProd", &[sizes], Attributes::new().with("keepdims", 0))?;
    let count = c.cast(count, c.dtype(x))?;
    Ok(vec![c.op("Div", &[total, count])?])
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Truth {
    All,
    Any,
}

/// Counts what is true (or what is false), so that nothing at all counts as 0.
fn truth(c: &mut Context<'_>, which: Truth) -> Outputs {
    let (x, axes) = (c.input(0)?, c.input(1)?);
    let counted = if which == Truth::All { c.op("Not", &[x])? } else { x };
    let ones = c.cast(counted, DType::I32)?;
    let count = reduce_value(c, "ReduceSum", ones, axes)?;
    let zero = c.scalar(0.0, count)?;
    let op = if which == Truth::All { "Equal" } else { "Greater" };
    Ok(vec![c.op(op, &[count, zero])?])
}

fn arg(c: &mut Context<'_>, op: &str) -> Outputs {
    let (x, axis) = (c.input(0)?, c.input(1)?);
    let axis = c.int(axis, "the dimension")?;
    let axis = match c.builder.rank(x) {
        Some(rank) => c.axis(axis, rank)? as i64,
        None => axis,
    };
    let found = c.with(op, &[x], Attributes::new().with("axis", axis).with("keepdims", 0))?;
    let to = c.node.dtype("output_type", DType::I64)?;
    Ok(vec![c.cast(found, to)?])
}

fn cumsum(c: &mut Context<'_>) -> Outputs {
    let (x, axis) = (c.input(0)?, c.input(1)?);
    let axis = c.int(axis, "the axis")?;
    let axis = c.builder.i64(axis);
    let attributes = Attributes::new()
        .with("exclusive", i64::from(c.node.flag("exclusive", false)?))
        .with("reverse", i64::from(c.node.flag("reverse", false)?));
    Ok(vec![c.with("CumSum", &[x, axis], attributes)?])
}

/// Longer products are not unrolled.
const MAX_UNROLLED: usize = 256;

fn cumprod(c: &mut Context<'_>) -> Outputs {
    let (x, axis) = (c.input(0)?, c.input(1)?);
    let rank = c.rank(x)?;
    let axis = c.axis(c.int(axis, "the axis")?, rank)?;
    let n = c.fixed(x, axis).filter(|&n| n <= MAX_UNROLLED);
    let n = n.ok_or_else(|| {
        Error::unsupported(format!("Cumprod along more than {MAX_UNROLLED} or an open number of elements"))
    })?;
    let (exclusive, reverse) = (c.node.flag("exclusive", false)?, c.node.flag("reverse", false)?);
    if n == 0 {
        return Ok(vec![x]);
    }
    let signed = axis as i64;
    let x = if reverse { c.reverse(x, &[signed])? } else { x };
    let mut products: Vec<ValueId> = Vec::with_capacity(n);
    for at in 0..n as i64 {
        let element = c.slice(x, axis, at, at + 1)?;
        products.push(match products.last() {
            None => element,
            Some(&last) => c.op("Mul", &[last, element])?,
        });
    }
    if exclusive {
        // Ones in front, and the last product left out.
        let one = c.scalar(1.0, x)?;
        let shape = c.shape(products[0])?;
        let ones = c.op("Expand", &[one, shape])?;
        products.pop();
        products.insert(0, ones);
    }
    let joined = c.concat(&products, signed)?;
    Ok(vec![if reverse { c.reverse(joined, &[signed])? } else { joined }])
}

fn l2_loss(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let squares = c.op("Mul", &[x, x])?;
    let total = c.with("ReduceSum", &[squares], Attributes::new().with("keepdims", 0))?;
    let half = c.scalar(0.5, total)?;
    Ok(vec![c.op("Mul", &[total, half])?])
}
