//! Scales and offsets per channel go into the weights and the bias of the linear operator before them.

use salver_kernels::Attributes;

use super::rewrite::{Rewriter, Rule};
use crate::Error;
use crate::ir::{Dim, Node, ValueId};

pub(super) const RULES: &[Rule] = &[batch_norm, scale_or_offset, scaled_sum, scaled_input];

type Change = Result<Option<Vec<ValueId>>, Error>;

/// A linear operator with constant weights, whose result nothing else uses.
struct Linear {
    node: Node,
    /// The dimension of the result that channels are in.
    axis: usize,
    rank: usize,
    n_channels: usize,
    /// The shape by which a scale per channel is multiplied with the weights; 0 stands for the channels.
    weight_shape: Vec<i64>,
    /// The position of the bias among the inputs.
    bias: Option<usize>,
}

impl Linear {
    fn of(rw: &Rewriter, id: ValueId) -> Option<Linear> {
        let node = rw.maker(id).filter(|node| node.domain.is_empty()).cloned()?;
        let weights = node.input(1).filter(|&weights| rw.constant(weights).is_some())?;
        // Integers do not distribute over a division.
        if !super::patterns::is_float(rw.dtype(weights)) {
            return None;
        }
        if !rw.is_only_use(id) || node.input(2).is_some_and(|bias| rw.constant(bias).is_none()) {
            return None;
        }
        let rank = rw.rank(id)?;
        let ones = |n: usize| std::iter::repeat_n(1i64, n);
        let (axis, n_channels, weight_shape, bias) = match node.op.as_str() {
            "Conv" => {
                let shape = std::iter::once(0).chain(ones(rank - 1)).collect();
                (1, rw.size(weights, 0)?, shape, Some(2))
            }
            "ConvTranspose" if node.attributes.int("group", 1) == Ok(1) => {
                let shape = [1, 0].into_iter().chain(ones(rank - 2)).collect();
                (1, rw.size(weights, 1)?, shape, Some(2))
            }
            "MatMul" if rw.rank(weights) == Some(2) => {
                (rank.checked_sub(1)?, rw.size(weights, 1)?, vec![1, 0], None)
            }
            "Gemm" if is_plain(&node) => {
                let turned = node.attributes.flag("transB", false).ok()?;
                let shape = if turned { vec![0, 1] } else { vec![1, 0] };
                (1, rw.size(weights, usize::from(!turned))?, shape, Some(2))
            }
            _ => return None,
        };
        Some(Linear { node, axis, rank, n_channels, weight_shape, bias })
    }

    /// The vector of a constant with an element for each channel, or with one for all.
    fn per_channel(&self, rw: &mut Rewriter, id: ValueId) -> Result<Option<ValueId>, Error> {
        let Some(tensor) = rw.constant(id) else { return Ok(None) };
        let dims = tensor.shape().dims().to_vec();
        if dims.len() > self.rank {
            return Ok(None);
        }
        let skipped = self.rank - dims.len();
        let fits =
            |(at, &dim): (usize, &usize)| dim == 1 || at + skipped == self.axis && dim == self.n_channels;
        if !dims.iter().enumerate().all(fits) {
            return Ok(None);
        }
        let n = if dims.iter().all(|&dim| dim == 1) { 1 } else { self.n_channels };
        let shape = rw.i64s(&[n as i64]);
        rw.computed("Reshape", &[id, shape], Attributes::new())
    }

    /// The operator with its result multiplied by `scale` and `offset` added; both vectors as
    /// [`Linear::per_channel`] gives them.
    fn changed(
        &self,
        rw: &mut Rewriter,
        name: &str,
        scale: Option<ValueId>,
        offset: Option<ValueId>,
    ) -> Result<Option<ValueId>, Error> {
        let none = Attributes::new;
        let (Some(mut weights), mut bias) = (self.node.input(1), self.node.input(2)) else { return Ok(None) };
        if let Some(scale) = scale {
            let n = rw.size(scale, 0).unwrap_or(1) as i64;
            let shape: Vec<i64> =
                self.weight_shape.iter().map(|&dim| if dim == 0 { n } else { dim }).collect();
            let shape = rw.i64s(&shape);
            let wide = rw.op("scale", "Reshape", &[scale, shape], none())?;
            let Some(scaled) = rw.computed("Mul", &[weights, wide], none())? else { return Ok(None) };
            weights = scaled;
            if let Some(old) = bias {
                bias = rw.computed("Mul", &[old, scale], none())?;
                if bias.is_none() {
                    return Ok(None);
                }
            }
        }
        let mut after = None;
        if let Some(offset) = offset {
            match (self.bias, bias) {
                (None, _) => after = Some(offset),
                (Some(_), old) => {
                    let shape = rw.i64s(&[self.n_channels as i64]);
                    let wide = rw.computed("Expand", &[offset, shape], none())?;
                    bias = match (wide, old) {
                        (Some(wide), Some(old)) => rw.computed("Add", &[old, wide], none())?,
                        (wide, _) => wide,
                    };
                    if bias.is_none() {
                        return Ok(None);
                    }
                }
            }
        }
        let mut inputs = vec![self.node.input(0), Some(weights)];
        if bias.is_some() && self.bias.is_some() {
            inputs.push(bias);
        }
        let y = rw.same(&self.node, &inputs, self.node.attributes.clone())?[0];
        match after {
            None => Ok(Some(y)),
            Some(offset) => rw.op(name, "Add", &[y, offset], none()).map(Some),
        }
    }
}

/// A `Gemm` that is a product and a sum with nothing else.
fn is_plain(node: &Node) -> bool {
    node.attributes.float("alpha", 1.0) == Ok(1.0)
        && node.attributes.float("beta", 1.0) == Ok(1.0)
        && node.attributes.flag("transA", false) == Ok(false)
}

/// `y = (x - mean) / sqrt(variance + epsilon) * scale + offset`, all per channel.
fn batch_norm(rw: &mut Rewriter, node: &Node) -> Change {
    if !node.is("BatchNormalization") || node.outputs.len() != 1 {
        return Ok(None);
    }
    let Some(linear) = node.input(0).and_then(|x| Linear::of(rw, x)).filter(|linear| linear.axis == 1) else {
        return Ok(None);
    };
    let (Some(scale), Some(offset), Some(mean), Some(variance)) =
        (node.input(1), node.input(2), node.input(3), node.input(4))
    else {
        return Ok(None);
    };
    if [scale, offset, mean, variance].iter().any(|&id| rw.constant(id).is_none()) {
        return Ok(None);
    }
    let none = Attributes::new;
    let epsilon = rw.scalar(f64::from(node.attributes.float("epsilon", 1e-5)?), variance)?;
    let variance = rw.op("variance", "Add", &[variance, epsilon], none())?;
    let deviation = rw.op("deviation", "Sqrt", &[variance], none())?;
    let scale = rw.op("scale", "Div", &[scale, deviation], none())?;
    let shift = rw.op("shift", "Mul", &[mean, scale], none())?;
    let offset = rw.op("offset", "Sub", &[offset, shift], none())?;
    if rw.constant(scale).is_none() || rw.constant(offset).is_none() {
        return Ok(None);
    }
    Ok(linear.changed(rw, &node.name, Some(scale), Some(offset))?.map(|y| vec![y]))
}

/// `Mul`, `Div`, `Add` and `Sub` with a constant.
fn scale_or_offset(rw: &mut Rewriter, node: &Node) -> Change {
    let op = node.op.as_str();
    if !node.domain.is_empty() || !matches!(op, "Mul" | "Div" | "Add" | "Sub") {
        return Ok(None);
    }
    let (Some(a), Some(b)) = (node.input(0), node.input(1)) else { return Ok(None) };
    let (x, constant, turned) = match (rw.constant(a).is_some(), rw.constant(b).is_some()) {
        (false, true) => (a, b, false),
        (true, false) if op != "Div" => (b, a, true),
        _ => return Ok(None),
    };
    let Some(linear) = Linear::of(rw, x) else { return Ok(None) };
    // Nothing is gained by an offset where there is no bias to put it in.
    if matches!(op, "Add" | "Sub") && linear.bias.is_none() {
        return Ok(None);
    }
    let Some(vector) = linear.per_channel(rw, constant)? else { return Ok(None) };
    let (scale, offset) = match (op, turned) {
        ("Mul", _) => (Some(vector), None),
        ("Div", _) => {
            let one = rw.scalar(1.0, vector)?;
            let inverse = rw.computed("Div", &[one, vector], Attributes::new())?;
            // What has no inverse, or one that is no number, divides as it is.
            let numbers = inverse.and_then(|id| rw.constant(id)).and_then(super::numbers);
            if !numbers.is_some_and(|numbers| numbers.iter().all(|n| n.is_normal())) {
                return Ok(None);
            }
            (inverse, None)
        }
        ("Add", _) => (None, Some(vector)),
        ("Sub", false) => (None, rw.computed("Neg", &[vector], Attributes::new())?),
        _ => {
            let minus = rw.scalar(-1.0, vector)?;
            (Some(minus), Some(vector))
        }
    };
    if scale.is_none() && offset.is_none() {
        return Ok(None);
    }
    let scale = match scale {
        Some(scale) if rw.rank(scale) == Some(0) => {
            let one = rw.i64s(&[1]);
            rw.computed("Reshape", &[scale, one], Attributes::new())?
        }
        scale => scale,
    };
    Ok(linear.changed(rw, &node.name, scale, offset)?.map(|y| vec![y]))
}

/// `(x W + b) * s` is `x (W s) + b s`.
fn scaled_sum(rw: &mut Rewriter, node: &Node) -> Change {
    if !node.is("Mul") && !node.is("Add") {
        return Ok(None);
    }
    let (Some(a), Some(b)) = (node.input(0), node.input(1)) else { return Ok(None) };
    let (sum, outer) = if rw.constant(b).is_some() { (a, b) } else { (b, a) };
    if rw.constant(outer).is_none() || !rw.is_only_use(sum) {
        return Ok(None);
    }
    let Some(inner) = rw.made_by(sum, "Add").cloned() else { return Ok(None) };
    let (Some(p), Some(q)) = (inner.input(0), inner.input(1)) else { return Ok(None) };
    let (x, bias) = if rw.constant(q).is_some() { (p, q) } else { (q, p) };
    if rw.constant(bias).is_none() {
        return Ok(None);
    }
    // The sum counts as a use of the product, and is about to go.
    let Some(product) = rw.made_by(x, "MatMul").filter(|_| rw.n_uses(x) <= 1).cloned() else {
        return Ok(None);
    };
    let (Some(data), Some(weights)) = (product.input(0), product.input(1)) else { return Ok(None) };
    let (Some(columns), Some(rank)) = (rw.size(weights, 1), rw.rank(x)) else { return Ok(None) };
    if rw.constant(weights).is_none() || rw.rank(weights) != Some(2) {
        return Ok(None);
    }
    let is_vector = |id: ValueId| {
        let dims = rw.dims(id).unwrap_or_default();
        dims.len() <= rank
            && dims
                .iter()
                .rev()
                .enumerate()
                .all(|(at, dim)| *dim == Dim::Fixed(1) || at == 0 && *dim == Dim::Fixed(columns))
    };
    if !is_vector(outer) || !is_vector(bias) {
        return Ok(None);
    }
    let combined = rw.computed(&node.op, &[bias, outer], Attributes::new())?;
    let Some(combined) = combined else { return Ok(None) };
    if node.op == "Add" {
        return Ok(Some(vec![rw.op(&node.name, "Add", &[x, combined], Attributes::new())?]));
    }
    let flat = rw.i64s(&[1, -1]);
    let row = rw.op("row", "Reshape", &[outer, flat], Attributes::new())?;
    let Some(weights) = rw.computed("Mul", &[weights, row], Attributes::new())? else { return Ok(None) };
    let y = rw.same(&product, &[Some(data), Some(weights)], product.attributes.clone())?[0];
    Ok(Some(vec![rw.op(&node.name, "Add", &[y, combined], Attributes::new())?]))
}

/// One number that everything is multiplied by before a convolution, also before a `Transpose` in between.
fn scaled_input(rw: &mut Rewriter, node: &Node) -> Change {
    if !node.is("Conv") && !node.is("ConvTranspose") {
        return Ok(None);
    }
    let (Some(x), Some(weights)) = (node.input(0), node.input(1)) else { return Ok(None) };
    let transposed = rw.made_by(x, "Transpose").filter(|_| rw.is_only_use(x)).cloned();
    let scaled = transposed.as_ref().and_then(|node| node.input(0)).unwrap_or(x);
    let Some(scaling) = rw.maker(scaled).filter(|maker| maker.is("Mul") || maker.is("Div")).cloned() else {
        return Ok(None);
    };
    let (Some(data), Some(factor)) = (scaling.input(0), scaling.input(1)) else { return Ok(None) };
    let (data, factor) =
        if scaling.is("Mul") && rw.constant(data).is_some() { (factor, data) } else { (data, factor) };
    let single = rw.number(factor).is_some_and(|number| number != 0.0 && number.is_finite());
    let same_rank = rw.rank(factor) <= rw.rank(data);
    if rw.constant(weights).is_none() || !single || !same_rank || rw.dtype(data) != rw.dtype(weights) {
        return Ok(None);
    }
    let shape = rw.i64s(&[1]);
    let factor = rw.op("factor", "Reshape", &[factor, shape], Attributes::new())?;
    let Some(weights) = rw.computed(&scaling.op, &[weights, factor], Attributes::new())? else {
        return Ok(None);
    };
    let data = match transposed {
        None => data,
        Some(turn) => rw.same(&turn, &[Some(data)], turn.attributes.clone())?[0],
    };
    let mut inputs = node.inputs.clone();
    (inputs[0], inputs[1]) = (Some(data), Some(weights));
    Ok(Some(rw.same(node, &inputs, node.attributes.clone())?))
}
