//! Layer normalisation as its steps, as TensorFlow and Keras write it.

use salver_kernels::Attributes;
use salver_tensor::DType;

use super::rewrite::{Rewriter, Rule};
use crate::Error;
use crate::ir::{Node, ValueId};

pub(super) const RULES: &[Rule] = &[centred, sum_of_two, scaled_or_shifted];

type Change = Result<Option<Vec<ValueId>>, Error>;

/// What is normalised: the value, its mean over the last dimension and what is added to the variance.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Normal {
    x: ValueId,
    mean: ValueId,
    epsilon: f64,
}

/// The mean over the last dimension, kept as one of size 1.
fn mean_of(rw: &Rewriter, id: ValueId) -> Option<ValueId> {
    let node = rw.made_by(id, "ReduceMean")?;
    let x = node.input(0)?;
    let last = i64::try_from(rw.rank(x)?).ok()? - 1;
    let axes = rw.ints(node.input(1)?)?;
    let kept = node.attributes.flag("keepdims", true).ok()?;
    (kept && (axes == [last] || axes == [-1])).then_some(x)
}

/// `x - mean(x)`.
fn centre(rw: &Rewriter, id: ValueId) -> Option<(ValueId, ValueId)> {
    let node = rw.made_by(id, "Sub")?;
    let (x, mean) = (node.input(0)?, node.input(1)?);
    (mean_of(rw, mean)? == x).then_some((x, mean))
}

/// `sqrt(mean((x - mean(x))^2) + epsilon)`.
fn deviation(rw: &Rewriter, id: ValueId) -> Option<Normal> {
    let sum = rw.made_by(id, "Sqrt")?.input(0)?;
    let sum = rw.made_by(sum, "Add")?;
    let (a, b) = (sum.input(0)?, sum.input(1)?);
    let (variance, epsilon) = match (rw.number(a), rw.number(b)) {
        (None, Some(epsilon)) => (a, epsilon),
        (Some(epsilon), None) => (b, epsilon),
        _ => return None,
    };
    let square = rw.maker(mean_of(rw, variance)?)?;
    let base = square.input(0)?;
    let is_square = square.is("Mul") && square.input(1) == Some(base)
        || square.is("Pow") && rw.number(square.input(1)?) == Some(2.0);
    let (x, mean) = is_square.then(|| centre(rw, base)).flatten()?;
    Some(Normal { x, mean, epsilon })
}

/// `1 / deviation`, also times a constant.
fn factor(rw: &Rewriter, id: ValueId) -> Option<(Normal, Option<ValueId>)> {
    if let Some(node) = rw.made_by(id, "Reciprocal") {
        return Some((deviation(rw, node.input(0)?)?, None));
    }
    let node = rw.made_by(id, "Mul")?;
    let (a, b) = (node.input(0)?, node.input(1)?);
    let (inverse, scale) = if rw.constant(b).is_some() { (a, b) } else { (b, a) };
    let (normal, inner) = factor_alone(rw, inverse)?;
    (inner && rw.constant(scale).is_some()).then_some((normal, Some(scale)))
}

fn factor_alone(rw: &Rewriter, id: ValueId) -> Option<(Normal, bool)> {
    let node = rw.made_by(id, "Reciprocal")?;
    Some((deviation(rw, node.input(0)?)?, true))
}

/// `-mean * factor`, written in either way, or `offset - mean * factor`; gives the offset.
fn shift(rw: &Rewriter, id: ValueId, normal: &Normal, factor: ValueId) -> Option<Option<ValueId>> {
    let times_mean = |id: ValueId, negative: bool| {
        let node = rw.made_by(id, "Mul")?;
        let (a, b) = (node.input(0)?, node.input(1)?);
        let mean = if b == factor {
            a
        } else if a == factor {
            b
        } else {
            return None;
        };
        let found = if negative { rw.made_by(mean, "Neg")?.input(0)? } else { mean };
        (found == normal.mean).then_some(())
    };
    if times_mean(id, true).is_some() {
        return Some(None);
    }
    let node = rw.maker(id)?;
    let (a, b) = (node.input(0)?, node.input(1)?);
    match node.op.as_str() {
        "Add" if rw.constant(b).is_some() => times_mean(a, true).map(|()| Some(b)),
        "Add" if rw.constant(a).is_some() => times_mean(b, true).map(|()| Some(a)),
        "Sub" if rw.constant(a).is_some() => times_mean(b, false).map(|()| Some(a)),
        _ => None,
    }
}

/// A constant as a vector over the last dimension of `x`.
fn vector(
    rw: &mut Rewriter,
    x: ValueId,
    id: Option<ValueId>,
    default: f64,
) -> Result<Option<ValueId>, Error> {
    let Some(size) = rw.rank(x).and_then(|rank| rw.size(x, rank.checked_sub(1)?)) else { return Ok(None) };
    let shape = rw.i64s(&[size as i64]);
    let id = match id {
        None => rw.scalar(default, x)?,
        Some(id) => {
            let dims = rw.constant(id).map(|tensor| tensor.shape().dims().to_vec()).unwrap_or_default();
            let (last, outer) = dims.split_last().map_or((1, &[][..]), |(last, outer)| (*last, outer));
            if outer.iter().any(|&dim| dim != 1) || last != 1 && last != size || rw.rank(x) < Some(dims.len())
            {
                return Ok(None);
            }
            let flat = rw.i64s(&[-1]);
            rw.op("flat", "Reshape", &[id, flat], Attributes::new())?
        }
    };
    rw.computed("Expand", &[id, shape], Attributes::new())
}

fn normalised(
    rw: &mut Rewriter,
    name: &str,
    normal: &Normal,
    scale: Option<ValueId>,
    offset: Option<ValueId>,
) -> Change {
    if rw.dtype(normal.x) != DType::F32 {
        return Ok(None);
    }
    let Some(scale) = vector(rw, normal.x, scale, 1.0)? else { return Ok(None) };
    let mut inputs = vec![normal.x, scale];
    if offset.is_some() {
        let Some(offset) = vector(rw, normal.x, offset, 0.0)? else { return Ok(None) };
        inputs.push(offset);
    }
    let attributes = Attributes::new().with("axis", -1i64).with("epsilon", normal.epsilon as f32);
    Ok(Some(vec![rw.op(name, "LayerNormalization", &inputs, attributes)?]))
}

/// `(x - mean) / deviation`, or times its inverse.
fn centred(rw: &mut Rewriter, node: &Node) -> Change {
    let (Some(a), Some(b)) = (node.input(0), node.input(1)) else { return Ok(None) };
    let found = match node.op.as_str() {
        "Div" if node.domain.is_empty() => centre(rw, a).zip(deviation(rw, b).map(|normal| (normal, None))),
        "Mul" if node.domain.is_empty() => {
            let one_way = centre(rw, a).zip(factor(rw, b));
            one_way.or_else(|| centre(rw, b).zip(factor(rw, a)))
        }
        _ => return Ok(None),
    };
    match found {
        Some(((x, mean), (normal, scale))) if normal.x == x && normal.mean == mean => {
            normalised(rw, &node.name, &normal, scale, None)
        }
        _ => Ok(None),
    }
}

/// `x * factor + (offset - mean * factor)`.
fn sum_of_two(rw: &mut Rewriter, node: &Node) -> Change {
    let (Some(a), Some(b), true) = (node.input(0), node.input(1), node.is("Add")) else { return Ok(None) };
    let find = |product: ValueId, rest: ValueId| {
        let product = rw.made_by(product, "Mul")?;
        let (p, q) = (product.input(0)?, product.input(1)?);
        let (x, by, (normal, scale)) =
            factor(rw, q).map(|found| (p, q, found)).or_else(|| factor(rw, p).map(|found| (q, p, found)))?;
        let offset = shift(rw, rest, &normal, by)?;
        (normal.x == x).then_some((normal, scale, offset))
    };
    let Some((normal, scale, offset)) = find(a, b).or_else(|| find(b, a)) else { return Ok(None) };
    normalised(rw, &node.name, &normal, scale, offset)
}

/// A constant that a normalised value is multiplied by, or that is added to it.
fn scaled_or_shifted(rw: &mut Rewriter, node: &Node) -> Change {
    if !node.is("Mul") && !node.is("Add") {
        return Ok(None);
    }
    let (Some(a), Some(b)) = (node.input(0), node.input(1)) else { return Ok(None) };
    let (x, constant) = if rw.constant(b).is_some() { (a, b) } else { (b, a) };
    let Some(norm) = rw.made_by(x, "LayerNormalization").filter(|_| rw.is_only_use(x)).cloned() else {
        return Ok(None);
    };
    let (Some(data), Some(scale)) = (norm.input(0), norm.input(1)) else { return Ok(None) };
    let is_last = norm.attributes.int("axis", -1)? == -1 && norm.outputs.len() == 1;
    let known =
        rw.constant(scale).is_some() && norm.input(2).is_none_or(|offset| rw.constant(offset).is_some());
    if !is_last || !known || rw.constant(constant).is_none() {
        return Ok(None);
    }
    let Some(constant) = vector(rw, data, Some(constant), 0.0)? else { return Ok(None) };
    let times = |rw: &mut Rewriter, id: ValueId| rw.computed("Mul", &[id, constant], Attributes::new());
    let (scale, offset) = if node.is("Mul") {
        (times(rw, scale)?, norm.input(2).map(|offset| times(rw, offset)).transpose()?.flatten())
    } else {
        let offset = match norm.input(2) {
            None => Some(constant),
            Some(offset) => rw.computed("Add", &[offset, constant], Attributes::new())?,
        };
        (Some(scale), offset)
    };
    if scale.is_none() || norm.input(2).is_some() && offset.is_none() {
        return Ok(None);
    }
    Ok(Some(rw.same(&norm, &[Some(data), scale, offset], norm.attributes.clone())?))
}
