//! What several nodes say that one operator can say.

use salver_kernels::Attributes;
use salver_tensor::DType;

use super::dilated;
use super::rewrite::{Rewriter, Rule};
use crate::Error;
use crate::ir::{Node, ValueId};

pub(super) const RULES: &[Rule] = &[
    clip,
    clipped_twice,
    padded_window,
    hard_sigmoid,
    hard_swish,
    full_kernel_shape,
    nested_concat,
    cropped_conv,
    full_pads,
    padded_twice,
];

/// Tried before anything moves.
pub(super) const FIRST_RULES: &[Rule] =
    &[full_pads, dilated::undone, dilated::dilated, dilated::lifted, gelu];

type Change = Result<Option<Vec<ValueId>>, Error>;

/// The input that is not constant, and the constant.
fn with_number(rw: &Rewriter, node: &Node) -> Option<(ValueId, f64)> {
    let (a, b) = (node.input(0)?, node.input(1).filter(|_| node.inputs.len() == 2)?);
    let scalar = |id: ValueId| {
        rw.number(id).filter(|_| rw.rank(id) == Some(0) || rw.rank(id) <= rw.rank(node.outputs[0]))
    };
    match (scalar(a), scalar(b)) {
        (None, Some(number)) if rw.rank(a) == rw.rank(node.outputs[0]) => Some((a, number)),
        (Some(number), None) if rw.rank(b) == rw.rank(node.outputs[0]) => Some((b, number)),
        _ => None,
    }
}

pub(super) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::F32 | DType::F64 | DType::BF16)
}

fn clip_of(
    rw: &mut Rewriter,
    name: &str,
    x: ValueId,
    low: Option<f64>,
    high: Option<f64>,
) -> Result<ValueId, Error> {
    let low = low.map(|low| rw.scalar(low, x)).transpose()?;
    let high = high.map(|high| rw.scalar(high, x)).transpose()?;
    Ok(rw.ops(name, "Clip", &[Some(x), low, high], Attributes::new(), 1)?[0])
}

/// `min(max(x, low), high)`, in either order, also with a `Relu` as the lower bound.
fn clip(rw: &mut Rewriter, node: &Node) -> Change {
    if !node.is("Min") && !node.is("Max") {
        return Ok(None);
    }
    let Some((inner, outer_bound)) = with_number(rw, node) else { return Ok(None) };
    if !is_float(rw.dtype(inner)) || !rw.is_only_use(inner) {
        return Ok(None);
    }
    let Some(before) = rw.maker(inner).filter(|maker| maker.domain.is_empty()).cloned() else {
        return Ok(None);
    };
    let (x, inner_bound) = match before.op.as_str() {
        "Relu" => (before.input(0), Some(0.0)),
        "Max" | "Min" if before.op != node.op => {
            let found = with_number(rw, &before);
            (found.map(|(x, _)| x), found.map(|(_, bound)| bound))
        }
        _ => return Ok(None),
    };
    let (Some(x), Some(inner_bound)) = (x, inner_bound) else { return Ok(None) };
    let (low, high) = if node.is("Min") { (inner_bound, outer_bound) } else { (outer_bound, inner_bound) };
    if (before.is("Relu") && node.is("Max")) || low.is_nan() || high.is_nan() || low > high {
        return Ok(None);
    }
    Ok(Some(vec![clip_of(rw, &node.name, x, Some(low), Some(high))?]))
}

/// A `Clip` of a `Relu` or of another `Clip`.
fn clipped_twice(rw: &mut Rewriter, node: &Node) -> Change {
    let bounds = |rw: &Rewriter, node: &Node| {
        let bound = |at: usize, open: f64| match node.input(at) {
            None => Some(open),
            Some(id) => rw.number(id).filter(|bound| !bound.is_nan()),
        };
        Some((bound(1, f64::NEG_INFINITY)?, bound(2, f64::INFINITY)?))
    };
    let Some(inner) = node.input(0).filter(|_| node.is("Clip")) else { return Ok(None) };
    if !is_float(rw.dtype(inner)) || !rw.is_only_use(inner) {
        return Ok(None);
    }
    let Some(before) = rw.maker(inner).cloned() else { return Ok(None) };
    let first = if before.is("Relu") {
        Some((0.0, f64::INFINITY))
    } else if before.is("Clip") {
        bounds(rw, &before)
    } else {
        None
    };
    let (Some(first), Some(second), Some(x)) = (first, bounds(rw, node), before.input(0)) else {
        return Ok(None);
    };
    let (low, high) = (first.0.max(second.0), first.1.min(second.1));
    if low > high || first.0 > first.1 || second.0 > second.1 {
        return Ok(None);
    }
    let low = Some(low).filter(|low| low.is_finite());
    let high = Some(high).filter(|high| high.is_finite());
    Ok(Some(vec![clip_of(rw, &node.name, x, low, high)?]))
}

/// Zeros added around an image before a window slides over it are the window's own padding. A `MaxPool` pads with less
/// than every number, which is the same where nothing is below zero.
fn padded_window(rw: &mut Rewriter, node: &Node) -> Change {
    let is_pool = node.is("MaxPool");
    // Positions that a pool gives are those in the padded image.
    if !is_pool && !node.is("Conv") || node.outputs.len() != 1 {
        return Ok(None);
    }
    let Some(x) = node.input(0) else { return Ok(None) };
    let turn = rw.made_by(x, "Transpose").filter(|_| rw.is_only_use(x)).cloned();
    let padded = turn.as_ref().and_then(|turn| turn.input(0)).unwrap_or(x);
    let Some(pad) = rw.made_by(padded, "Pad").cloned() else { return Ok(None) };
    let uses = if turn.is_some() { 1 } else { 0 };
    if rw.n_uses(padded) > uses
        || pad.attributes.text("mode", "constant")? != "constant"
        || pad.input(3).is_some()
    {
        return Ok(None);
    }
    let (Some(source), Some(pads)) = (pad.input(0), pad.input(1).and_then(|id| rw.ints(id))) else {
        return Ok(None);
    };
    if pad.input(2).is_some_and(|value| rw.number(value) != Some(0.0)) || pads.iter().any(|&n| n < 0) {
        return Ok(None);
    }
    if is_pool && !is_positive(rw, source) {
        return Ok(None);
    }
    let rank = pads.len() / 2;
    let order: Vec<usize> = match &turn {
        None => (0..rank).collect(),
        Some(turn) => {
            let perm = turn.attributes.ints("perm")?.unwrap_or_default();
            perm.iter().filter_map(|&axis| usize::try_from(axis).ok()).filter(|&axis| axis < rank).collect()
        }
    };
    if order.len() != rank || rank < 3 {
        return Ok(None);
    }
    let moved: Vec<(i64, i64)> = order.iter().map(|&axis| (pads[axis], pads[axis + rank])).collect();
    let auto = node.attributes.text("auto_pad", "NOTSET")?;
    if moved[..2].iter().any(|&both| both != (0, 0)) || !matches!(auto, "NOTSET" | "VALID") {
        return Ok(None);
    }
    let own = node.attributes.ints("pads")?.filter(|_| auto == "NOTSET").map(<[i64]>::to_vec);
    let n = rank - 2;
    let own = own.unwrap_or_else(|| vec![0; 2 * n]);
    if own.len() != 2 * n
        || is_pool && (own.iter().any(|&pad| pad != 0) || !windows_reach(node, &moved[2..])?)
    {
        return Ok(None);
    }
    let before = (0..n).map(|at| own[at] + moved[at + 2].0);
    let after = (0..n).map(|at| own[at + n] + moved[at + 2].1);
    let mut attributes = node.attributes.clone().with("pads", before.chain(after).collect::<Vec<i64>>());
    attributes.remove("auto_pad");
    let data = match turn {
        None => source,
        Some(turn) => rw.same(&turn, &[Some(source)], turn.attributes.clone())?[0],
    };
    let mut inputs = node.inputs.clone();
    inputs[0] = Some(data);
    Ok(Some(rw.same(node, &inputs, attributes)?))
}

/// Whether every window has at least one element that is not padding; ONNX also wants pads below the kernel's size.
fn windows_reach(node: &Node, pads: &[(i64, i64)]) -> Result<bool, Error> {
    let kernel = node.attributes.ints("kernel_shape")?.unwrap_or_default();
    let plain = !node.attributes.flag("ceil_mode", false)?;
    Ok(plain
        && kernel.len() == pads.len()
        && kernel.iter().zip(pads).all(|(&size, &(before, after))| before < size && after < size))
}

/// Whether nothing in a value can be below zero.
fn is_positive(rw: &Rewriter, id: ValueId) -> bool {
    let Some(maker) = rw.maker(id).filter(|maker| maker.domain.is_empty()) else { return false };
    match maker.op.as_str() {
        "Relu" | "Sigmoid" | "Softmax" | "HardSigmoid" => true,
        "Clip" => maker.input(1).and_then(|low| rw.number(low)).is_some_and(|low| low >= 0.0),
        "MaxPool" => maker.input(0).and_then(|x| rw.maker(x)).is_some_and(|before| before.is("Relu")),
        _ => false,
    }
}

/// `clip(x + b, 0, c) * a` with `a * c = 1` is `HardSigmoid`.
fn hard_sigmoid(rw: &mut Rewriter, node: &Node) -> Change {
    if !node.is("Mul") && !node.is("Div") {
        return Ok(None);
    }
    let Some((clipped, factor)) = with_number(rw, node) else { return Ok(None) };
    let factor = match node.op.as_str() {
        "Mul" => factor,
        _ if node.input(0) == Some(clipped) => 1.0 / factor,
        _ => return Ok(None),
    };
    if rw.dtype(clipped) != DType::F32 || !rw.is_only_use(clipped) {
        return Ok(None);
    }
    let Some(clip) = rw.made_by(clipped, "Clip").cloned() else { return Ok(None) };
    let bound = |at: usize| clip.input(at).and_then(|id| rw.number(id));
    let (Some(0.0), Some(high), Some(sum)) = (bound(1), bound(2), clip.input(0)) else { return Ok(None) };
    // The clip counts as a use of the sum, and is about to go.
    let Some((x, offset)) =
        rw.made_by(sum, "Add").filter(|_| rw.n_uses(sum) <= 1).and_then(|add| with_number(rw, add))
    else {
        return Ok(None);
    };
    if (factor * high - 1.0).abs() > 1e-6 || factor <= 0.0 {
        return Ok(None);
    }
    let attributes = Attributes::new().with("alpha", factor as f32).with("beta", (factor * offset) as f32);
    Ok(Some(vec![rw.op(&node.name, "HardSigmoid", &[x], attributes)?]))
}

/// `x * hard_sigmoid(x)` with `alpha` a sixth and `beta` a half.
fn hard_swish(rw: &mut Rewriter, node: &Node) -> Change {
    let (Some(a), Some(b), true) = (node.input(0), node.input(1), node.is("Mul")) else { return Ok(None) };
    let gated = |gate: ValueId, x: ValueId| {
        let maker = rw.made_by(gate, "HardSigmoid").filter(|_| rw.is_only_use(gate))?;
        let near = |name: &str, default: f32, want: f32| {
            maker.attributes.float(name, default).is_ok_and(|got| (got - want).abs() < 1e-6)
        };
        (maker.input(0) == Some(x) && near("alpha", 0.2, 1.0 / 6.0) && near("beta", 0.5, 0.5)).then_some(x)
    };
    let Some(x) = gated(a, b).or_else(|| gated(b, a)) else { return Ok(None) };
    Ok(Some(vec![rw.op(&node.name, "HardSwish", &[x], Attributes::new())?]))
}

/// Engines want the size of a kernel as an attribute, also where the weights say it.
fn full_kernel_shape(rw: &mut Rewriter, node: &Node) -> Change {
    if !(node.is("Conv") || node.is("ConvTranspose")) || node.attributes.get("kernel_shape").is_some() {
        return Ok(None);
    }
    let dims = node.input(1).and_then(|weights| rw.dims(weights)).unwrap_or_default();
    let kernel = dims.iter().skip(2).map(|dim| dim.fixed().and_then(|size| i64::try_from(size).ok()));
    let Some(kernel) = kernel.collect::<Option<Vec<i64>>>().filter(|kernel| !kernel.is_empty()) else {
        return Ok(None);
    };
    Ok(Some(rw.same(node, &node.inputs, node.attributes.clone().with("kernel_shape", kernel))?))
}

/// Parts of a part that is joined along the same dimension are parts of the whole.
fn nested_concat(rw: &mut Rewriter, node: &Node) -> Change {
    if !node.is("Concat") {
        return Ok(None);
    }
    let axis_of = |rw: &Rewriter, node: &Node| {
        let rank = i64::try_from(rw.rank(node.outputs[0])?).ok()?;
        let axis = node.attributes.int("axis", 0).ok()?;
        Some(if axis < 0 { axis + rank } else { axis })
    };
    let Some(axis) = axis_of(rw, node) else { return Ok(None) };
    let mut parts = Vec::new();
    for &id in &node.inputs {
        let inner = id.and_then(|id| rw.made_by(id, "Concat").filter(|_| rw.is_only_use(id)));
        match inner.filter(|inner| axis_of(rw, inner) == Some(axis)) {
            Some(inner) => parts.extend(inner.inputs.iter().copied()),
            None => parts.push(id),
        }
    }
    if parts.len() == node.inputs.len() {
        return Ok(None);
    }
    Ok(Some(rw.same(node, &parts, node.attributes.clone())?))
}

/// What is cut off at the end of a convolution's result need not be computed, where it comes from padding alone.
fn cropped_conv(rw: &mut Rewriter, node: &Node) -> Change {
    let Some(x) = node.input(0).filter(|_| node.is("Slice")) else { return Ok(None) };
    let Some(conv) = rw.made_by(x, "Conv").filter(|_| rw.is_only_use(x)).cloned() else { return Ok(None) };
    let ints = |at: usize| node.input(at).and_then(|id| rw.ints(id));
    let (Some(starts), Some(ends), Some(axes)) = (ints(1), ints(2), ints(3)) else { return Ok(None) };
    let one_step = node.input(4).is_none() || ints(4).is_some_and(|steps| steps.iter().all(|&n| n == 1));
    let plain = matches!(conv.attributes.text("auto_pad", "NOTSET")?, "NOTSET");
    let Some(mut pads) = conv.attributes.ints("pads")?.map(<[i64]>::to_vec) else { return Ok(None) };
    let n = pads.len() / 2;
    if !one_step || !plain || starts.iter().any(|&start| start != 0) || axes.len() != ends.len() {
        return Ok(None);
    }
    let strides = conv.attributes.ints("strides")?.map_or_else(|| vec![1; n], <[i64]>::to_vec);
    for (&axis, &end) in axes.iter().zip(&ends) {
        let axis = if axis < 0 { axis + n as i64 + 2 } else { axis };
        let Some(at) = usize::try_from(axis).ok().and_then(|axis| axis.checked_sub(2)).filter(|&at| at < n)
        else {
            return Ok(None);
        };
        let Some(size) = rw.size(x, at + 2).and_then(|size| i64::try_from(size).ok()) else {
            return Ok(None);
        };
        let cut = size.saturating_sub(end).max(0).saturating_mul(strides.get(at).copied().unwrap_or(1));
        if end <= 0 || pads[at + n] < cut {
            return Ok(None);
        }
        pads[at + n] -= cut;
    }
    Ok(Some(rw.same(&conv, &conv.inputs, conv.attributes.clone().with("pads", pads))?))
}

/// The numbers that a product is made of, multiplied, and its other factors. Inner products are taken apart when
/// nothing else uses them.
fn factors(rw: &Rewriter, id: ValueId, n_uses: usize, depth: usize) -> (f64, Vec<ValueId>) {
    if let Some(number) = rw.number(id) {
        return (number, Vec::new());
    }
    let alone = || (1.0, vec![id]);
    let Some(node) = rw.maker(id).filter(|node| node.domain.is_empty()) else { return alone() };
    if rw.n_uses(id) > n_uses || depth == 0 {
        return alone();
    }
    let inner = |at: usize| node.input(at).map(|id| factors(rw, id, 1, depth - 1));
    match (node.op.as_str(), inner(0), node.input(1)) {
        ("Neg", Some((number, values)), _) => (-number, values),
        ("Div", Some((number, values)), Some(by)) => match rw.number(by) {
            Some(by) if by != 0.0 => (number / by, values),
            _ => alone(),
        },
        ("Mul", Some((a, mut values)), Some(_)) => {
            let (b, more) = inner(1).unwrap_or((1.0, Vec::new()));
            values.extend(more);
            (a * b, values)
        }
        _ => alone(),
    }
}

/// `x / 2 * (1 + erf(x / sqrt(2)))`, in whatever order it is written; also with the complement of `erf`.
pub(super) fn gelu(rw: &mut Rewriter, node: &Node) -> Change {
    const DEPTH: usize = 4;
    let (Some(a), Some(b), true) = (node.input(0), node.input(1), node.is("Mul")) else { return Ok(None) };
    let ((p, mut values), (q, more)) = (factors(rw, a, 0, DEPTH), factors(rw, b, 0, DEPTH));
    values.extend(more);
    let &[u, v] = values.as_slice() else { return Ok(None) };
    if (p * q - 0.5).abs() > 1e-6 || rw.dtype(u) != DType::F32 {
        return Ok(None);
    }
    let gates = |gate: ValueId, x: ValueId| {
        let sum = rw.maker(gate).filter(|node| node.is("Add") || node.is("Sub"))?;
        let (a, b) = (sum.input(0)?, sum.input(1)?);
        let erf = if rw.number(a) == Some(1.0) {
            b
        } else if rw.number(b) == Some(1.0) && sum.is("Add") {
            a
        } else {
            return None;
        };
        let sign = if sum.is("Sub") { -1.0 } else { 1.0 };
        let (number, inner) = factors(rw, rw.made_by(erf, "Erf")?.input(0)?, 1, DEPTH);
        (inner == [x] && (number * sign - std::f64::consts::FRAC_1_SQRT_2).abs() < 1e-6).then_some(x)
    };
    let Some(x) = gates(u, v).or_else(|| gates(v, u)) else { return Ok(None) };
    if rw.rank(x) != rw.rank(node.outputs[0]) {
        return Ok(None);
    }
    Ok(Some(vec![rw.op(&node.name, "Gelu", &[x], Attributes::new())?]))
}

/// Padding of some dimensions as padding of all, which every engine has.
fn full_pads(rw: &mut Rewriter, node: &Node) -> Change {
    let (Some(x), Some(pads), Some(axes)) = (node.input(0), node.input(1), node.input(3)) else {
        return Ok(None);
    };
    let (Some(rank), true) = (rw.rank(x), node.is("Pad")) else { return Ok(None) };
    let (Some(pads), Some(axes)) = (rw.ints(pads), rw.ints(axes)) else { return Ok(None) };
    let mut full = vec![0; 2 * rank];
    for (at, &axis) in axes.iter().enumerate() {
        let axis = usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok();
        let both = pads.get(at).zip(pads.get(at + axes.len()));
        let (Some(axis), Some((&before, &after))) = (axis.filter(|&axis| axis < rank), both) else {
            return Ok(None);
        };
        (full[axis], full[axis + rank]) = (before, after);
    }
    let full = rw.i64s(&full);
    Ok(Some(rw.same(node, &[Some(x), Some(full), node.input(2)], node.attributes.clone())?))
}

/// Padding with the same number twice.
fn padded_twice(rw: &mut Rewriter, node: &Node) -> Change {
    let plain = |rw: &Rewriter, node: &Node| {
        let constant =
            node.is("Pad") && node.attributes.text("mode", "constant").is_ok_and(|mode| mode == "constant");
        let value = node.input(2).map_or(Some(0.0), |id| rw.number(id))?;
        let pads = rw.ints(node.input(1)?).filter(|pads| pads.iter().all(|&pad| pad >= 0))?;
        (constant && node.input(3).is_none()).then_some((pads, value))
    };
    let Some((outer, value)) = plain(rw, node) else { return Ok(None) };
    let Some(before) = node.input(0).filter(|&x| rw.is_only_use(x)).and_then(|x| rw.maker(x)).cloned() else {
        return Ok(None);
    };
    let Some((inner, first)) = plain(rw, &before) else { return Ok(None) };
    if first.to_bits() != value.to_bits() || inner.len() != outer.len() {
        return Ok(None);
    }
    let pads: Vec<i64> = inner.iter().zip(&outer).map(|(a, b)| a.saturating_add(*b)).collect();
    let pads = rw.i64s(&pads);
    Ok(Some(rw.same(node, &[before.input(0), Some(pads), node.input(2)], node.attributes.clone())?))
}
