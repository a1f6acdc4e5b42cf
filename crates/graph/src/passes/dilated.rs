//! Convolutions as TensorFlow writes them: dilated ones as space to batch, a plain convolution, batch to space; those of
//! one spatial dimension with a second one of size 1.

use salver_kernels::Attributes;

use super::rewrite::Rewriter;
use crate::Error;
use crate::ir::{Dim, Node, ValueId};

type Change = Result<Option<Vec<ValueId>>, Error>;

/// The input and the node, if it is that operator.
fn step(rw: &Rewriter, id: ValueId, op: &str) -> Option<(ValueId, Node)> {
    let node = rw.made_by(id, op)?.clone();
    Some((node.input(0)?, node))
}

fn perm_of(node: &Node) -> Option<Vec<usize>> {
    let perm = node.attributes.ints("perm").ok()??;
    perm.iter().map(|&axis| usize::try_from(axis).ok()).collect()
}

/// What was found around a convolution.
struct Found {
    /// The padded data, channels last.
    data: ValueId,
    blocks: Vec<usize>,
    to_first: Node,
    conv: Node,
    to_last: Node,
    /// A dimension that was put in and taken out, for one spatial dimension.
    lifted: Option<(Node, Node)>,
}

/// Follows the steps back from the last `Reshape`.
fn find(rw: &Rewriter, node: &Node) -> Option<Found> {
    let (id, turn) = step(rw, node.input(0)?, "Transpose")?;
    let (id, split) = step(rw, id, "Reshape")?;
    let n = rw.rank(node.outputs[0])?.checked_sub(2)?;
    let after: Vec<usize> =
        std::iter::once(n).chain((0..n).flat_map(|at| [n + 1 + at, at])).chain([2 * n + 1]).collect();
    if n == 0 || perm_of(&turn)? != after {
        return None;
    }
    let blocks: Option<Vec<usize>> = (0..n).map(|at| rw.size(split.outputs[0], at)).collect();
    let blocks = blocks?;
    let squeezed = step(rw, id, "Squeeze");
    let (id, to_last) = step(rw, squeezed.as_ref().map_or(id, |(id, _)| *id), "Transpose")?;
    let (id, conv) = step(rw, id, "Conv")?;
    let (id, to_first) = step(rw, id, "Transpose")?;
    let unsqueezed = step(rw, id, "Unsqueeze");
    let (id, _) = step(rw, unsqueezed.as_ref().map_or(id, |(id, _)| *id), "Reshape")?;
    let (id, turn) = step(rw, id, "Transpose")?;
    let (data, opened) = step(rw, id, "Reshape")?;
    let before: Vec<usize> = (0..n)
        .map(|at| 2 + 2 * at)
        .chain([0])
        .chain((0..n).map(|at| 1 + 2 * at))
        .chain([2 * n + 1])
        .collect();
    let lifted = match (unsqueezed, squeezed) {
        (None, None) => None,
        (Some((_, up)), Some((_, down))) => Some((up, down)),
        _ => return None,
    };
    let found = Found { data, blocks, to_first, conv, to_last, lifted };
    let fits = perm_of(&turn)? == before && found.is_split(rw, opened.outputs[0]) && found.is_whole(rw, node);
    (fits && found.is_plain(n)).then_some(found)
}

impl Found {
    /// Whether the data was split into blocks of these sizes.
    fn is_split(&self, rw: &Rewriter, opened: ValueId) -> bool {
        let (Some(data), Some(dims)) = (rw.dims(self.data), rw.dims(opened)) else { return false };
        let n = self.blocks.len();
        data.len() == n + 2
            && dims.len() == 2 * n + 2
            && dims.last() == data.last()
            && self.blocks.iter().enumerate().all(|(at, &block)| {
                let whole = data[at + 1].fixed();
                dims[2 + 2 * at] == Dim::Fixed(block)
                    && block > 0
                    && whole.is_some_and(|size| size % block == 0)
                    && dims[1 + 2 * at].fixed() == whole.map(|size| size / block)
            })
    }

    /// Whether the result is put together again to as many elements as a dilated convolution gives.
    fn is_whole(&self, rw: &Rewriter, node: &Node) -> bool {
        let (Some(data), Some(result)) = (rw.dims(self.data), rw.dims(node.outputs[0])) else { return false };
        let kernel = self.conv.attributes.ints("kernel_shape").ok().flatten().unwrap_or_default();
        let n = self.blocks.len();
        let skipped = kernel.len().saturating_sub(n);
        kernel.len() >= n
            && kernel[..skipped].iter().all(|&size| size == 1)
            && (0..n).all(|at| {
                let reach = usize::try_from(kernel[at + skipped] - 1).map(|reach| reach * self.blocks[at]);
                let size =
                    data[at + 1].fixed().zip(reach.ok()).and_then(|(size, reach)| size.checked_sub(reach));
                size.is_some() && result[at + 1].fixed() == size
            })
    }

    /// Whether the convolution has neither padding nor steps of its own, and channels are where they should be.
    fn is_plain(&self, n: usize) -> bool {
        let attributes = &self.conv.attributes;
        let all = |name: &str, value: i64| {
            attributes
                .ints(name)
                .is_ok_and(|ints| ints.is_none_or(|ints| ints.iter().all(|&int| int == value)))
        };
        let rank = n + 2 + usize::from(self.lifted.is_some());
        let first: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        let last: Vec<usize> = std::iter::once(0).chain(2..rank).chain([1]).collect();
        all("strides", 1)
            && all("dilations", 1)
            && all("pads", 0)
            && attributes.text("auto_pad", "NOTSET").is_ok_and(|auto| matches!(auto, "NOTSET" | "VALID"))
            && perm_of(&self.to_first) == Some(first)
            && perm_of(&self.to_last) == Some(last)
            && (self.lifted.is_none() || n == 1)
    }
}

/// The same as one convolution that skips elements.
pub(super) fn dilated(rw: &mut Rewriter, node: &Node) -> Change {
    let Some(found) = Some(node).filter(|node| node.is("Reshape")).and_then(|node| find(rw, node)) else {
        return Ok(None);
    };
    let mut x = found.data;
    let mut dilations: Vec<i64> = found.blocks.iter().map(|&block| block as i64).collect();
    if let Some((up, _)) = &found.lifted {
        if up.input(1).and_then(|id| rw.ints(id)) != Some(vec![1]) {
            return Ok(None);
        }
        x = rw.same(up, &[Some(x), up.input(1)], Attributes::new())?[0];
        dilations.insert(0, 1);
    }
    x = rw.same(&found.to_first, &[Some(x)], found.to_first.attributes.clone())?[0];
    let mut inputs = found.conv.inputs.clone();
    inputs[0] = Some(x);
    let attributes = found.conv.attributes.clone().with("dilations", dilations);
    x = rw.same(&found.conv, &inputs, attributes)?[0];
    x = rw.same(&found.to_last, &[Some(x)], found.to_last.attributes.clone())?[0];
    if let Some((_, down)) = &found.lifted {
        if down.input(1).and_then(|id| rw.ints(id)) != Some(vec![1]) {
            return Ok(None);
        }
        x = rw.same(down, &[Some(x), down.input(1)], Attributes::new())?[0];
    }
    Ok(Some(vec![x]))
}

/// A window over an image of one row is one over a sequence.
pub(super) fn lifted(rw: &mut Rewriter, node: &Node) -> Change {
    let channels =
        |node: &Node, perm: [usize; 4]| node.is("Transpose") && perm_of(node).is_some_and(|p| p == perm);
    if !channels(node, [0, 2, 3, 1]) {
        return Ok(None);
    }
    let window = node.input(0).and_then(|id| rw.maker(id).filter(|_| rw.is_only_use(id))).cloned();
    let is_window = |node: &Node| {
        ["Conv", "MaxPool", "AveragePool"].iter().any(|op| node.is(op)) && node.outputs.len() == 1
    };
    let Some(window) = window.filter(is_window) else { return Ok(None) };
    let Some((opened, first)) = window.input(0).and_then(|id| step(rw, id, "Transpose")) else {
        return Ok(None);
    };
    let Some((x, up)) = step(rw, opened, "Unsqueeze") else { return Ok(None) };
    let at_rows = up.input(1).and_then(|id| rw.ints(id)).is_some_and(|axes| axes == [1] || axes == [-3]);
    if !channels(&first, [0, 3, 1, 2]) || !at_rows || rw.rank(x) != Some(3) {
        return Ok(None);
    }
    let Some(attributes) = of_one_dimension(&window.attributes) else { return Ok(None) };
    let mut inputs = window.inputs.clone();
    if let Some(weights) = window.input(1).filter(|_| window.is("Conv")) {
        let dims: Option<Vec<usize>> =
            rw.dims(weights).map(|dims| dims.iter().filter_map(Dim::fixed).collect());
        let Some(&[m, c, 1, k]) = dims.as_deref() else { return Ok(None) };
        let shape = rw.i64s(&[m as i64, c as i64, k as i64]);
        inputs[1] = Some(rw.op("weights", "Reshape", &[weights, shape], Attributes::new())?);
    }
    let turned = || Attributes::new().with("perm", [0i64, 2, 1]);
    inputs[0] = Some(rw.op(&first.name, "Transpose", &[x], turned())?);
    let y = rw.same(&window, &inputs, attributes)?[0];
    let y = rw.op(&node.name, "Transpose", &[y], turned())?;
    let axis = rw.i64s(&[1]);
    Ok(Some(vec![rw.op(&up.name, "Unsqueeze", &[y, axis], Attributes::new())?]))
}

/// The attributes of a window without the first of two dimensions, in which it does nothing.
fn of_one_dimension(attributes: &Attributes) -> Option<Attributes> {
    let mut narrow = attributes.clone();
    for (name, idle) in [("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("pads", 0)] {
        match attributes.ints(name).ok()? {
            None if name == "kernel_shape" => return None,
            None => {}
            Some(&[first, second]) if first == idle => narrow.set(name, [second]),
            // Dilation of a kernel of size 1 does nothing.
            Some(&[_, second]) if name == "dilations" => narrow.set(name, [second]),
            Some(&[0, before, 0, after]) if name == "pads" => narrow.set(name, [before, after]),
            Some(_) => return None,
        }
    }
    Some(narrow)
}

/// A dimension that is put in and taken out.
pub(super) fn undone(rw: &mut Rewriter, node: &Node) -> Change {
    let Some((x, up)) = node.input(0).filter(|_| node.is("Squeeze")).and_then(|id| step(rw, id, "Unsqueeze"))
    else {
        return Ok(None);
    };
    let axes = |rw: &Rewriter, node: &Node, rank: usize| {
        let from_front = |axis: i64| if axis < 0 { axis + rank as i64 } else { axis };
        let axes = rw.ints(node.input(1)?)?;
        Some(axes.into_iter().map(from_front).collect::<Vec<_>>())
    };
    let Some(rank) = rw.rank(up.outputs[0]) else { return Ok(None) };
    let (first, second) = (axes(rw, &up, rank), axes(rw, node, rank));
    Ok((first.is_some() && first == second).then(|| vec![x]))
}
