//! Operators that cut tensors, pad and reverse them.

use salver_graph::{Attributes, Dim, Item, ValueId};
use salver_tensor::DType;

use super::context::{Context, Outputs};
use super::table::{Entry, noted, plain};
use crate::Error;

pub(super) const OPS: &[Entry] = &[
    noted("MirrorPad", "SYMMETRIC: constant paddings", mirror_pad),
    plain("Pad", pad),
    plain("PadV2", pad),
    noted("Reverse", "constant axes", |c| reverse(c, Axes::Flags)),
    noted("ReverseV2", "constant axes", |c| reverse(c, Axes::Numbers)),
    plain("ReverseSequence", reverse_sequence),
    plain("Roll", roll),
    noted("Slice", "past the end: what is there, where TensorFlow refuses it", slice),
    noted(
        "Split",
        "a constant axis; a size that is only known at run time and does not divide gives a smaller last part, where \
         TensorFlow refuses it",
        split,
    ),
    noted("SplitV", "a constant axis", split_v),
    noted("StridedSlice", "all masks; constant strides", strided_slice),
];

fn slice(c: &mut Context<'_>) -> Outputs {
    let (x, begin, size) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let rank = match c.builder.rank(x).or_else(|| c.fixed(begin, 0)).or_else(|| c.fixed(size, 0)) {
        Some(rank) => rank,
        None => c.rank(x)?,
    };
    let dims = c.builder.dims(x).map(<[Dim]>::to_vec);
    let begins = c.items(begin).unwrap_or_else(|| vec![Item::Unknown; rank]);
    let sizes = c.items(size).unwrap_or_else(|| vec![Item::Unknown; rank]);
    if begins.len() != rank || sizes.len() != rank {
        return Err(Error::invalid(format!(
            "begin of {} and size of {} elements for {rank} dimensions",
            begins.len(),
            sizes.len()
        )));
    }
    let mut cut = Cut::default();
    for axis in 0..rank {
        let own = dims.as_ref().and_then(|dims| dims.get(axis)).map(Item::from);
        let all = sizes[axis] == Item::Int(-1)
            || (sizes[axis] != Item::Unknown && own.as_ref() == Some(&sizes[axis]));
        match (&begins[axis], &sizes[axis]) {
            (Item::Int(0), _) if all => {}
            (Item::Int(at), Item::Int(-1)) => cut.add(axis, Bound::Int(*at), Bound::Int(i64::MAX), 1),
            (Item::Int(at), Item::Int(n)) => {
                cut.add(axis, Bound::Int(*at), Bound::Int(at.saturating_add(*n)), 1)
            }
            (at, n) => {
                let start = element(c, begin, axis)?;
                let end = match n {
                    Item::Int(-1) => Bound::Int(i64::MAX),
                    n => {
                        let size = element(c, size, axis)?;
                        let end = c.op("Add", &[start, size])?;
                        Bound::Value(if matches!(n, Item::Int(_)) { end } else { to_the_end(c, size, end)? })
                    }
                };
                let start = if let Item::Int(at) = at { Bound::Int(*at) } else { Bound::Value(start) };
                cut.add(axis, start, end, 1);
            }
        }
    }
    Ok(vec![cut.apply(c, x)?])
}

/// The end of a slice, which a size of -1 puts behind everything.
fn to_the_end(c: &mut Context<'_>, size: ValueId, end: ValueId) -> Result<ValueId, Error> {
    let minus_one = c.i64s(&[-1]);
    let all = c.op("Equal", &[size, minus_one])?;
    let last = c.i64s(&[i64::MAX]);
    c.op("Where", &[all, last, end])
}

/// One element of a vector as a vector of one int64.
fn element(c: &mut Context<'_>, vector: ValueId, at: usize) -> Result<ValueId, Error> {
    let vector = c.as_i64(vector)?;
    let at = c.i64s(&[at as i64]);
    c.with("Gather", &[vector, at], Attributes::new().with("axis", 0))
}

/// Where a slice starts or ends.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Int(i64),
    /// A vector of one int64.
    Value(ValueId),
}

/// What is cut from each axis.
#[derive(Debug, Default)]
struct Cut {
    axes: Vec<i64>,
    starts: Vec<Bound>,
    ends: Vec<Bound>,
    steps: Vec<i64>,
}

impl Cut {
    fn add(&mut self, axis: usize, start: Bound, end: Bound, step: i64) {
        self.axes.push(axis as i64);
        self.starts.push(start);
        self.ends.push(end);
        self.steps.push(step);
    }

    fn apply(&self, c: &mut Context<'_>, x: ValueId) -> Result<ValueId, Error> {
        if self.axes.is_empty() {
            return Ok(x);
        }
        let (starts, ends) = (bounds(c, &self.starts)?, bounds(c, &self.ends)?);
        let (axes, steps) = (c.i64s(&self.axes), c.i64s(&self.steps));
        c.op("Slice", &[x, starts, ends, axes, steps])
    }
}

fn bounds(c: &mut Context<'_>, bounds: &[Bound]) -> Result<ValueId, Error> {
    let parts: Vec<ValueId> = bounds
        .iter()
        .map(|bound| match bound {
            Bound::Int(int) => c.i64s(&[*int]),
            Bound::Value(value) => *value,
        })
        .collect();
    c.concat(&parts, 0)
}

/// The masks of a strided slice: one bit per element of its bounds.
struct Masks {
    begin: i64,
    end: i64,
    ellipsis: i64,
    new_axis: i64,
    shrink: i64,
}

fn strided_slice(c: &mut Context<'_>) -> Outputs {
    let (x, begin, end, strides) = (c.input(0)?, c.input(1)?, c.input(2)?, c.input(3)?);
    let strides = c.ints(strides, "the strides")?;
    let n = strides.len();
    if n > 62 {
        return Err(Error::invalid(format!("a strided slice of {n} elements")));
    }
    let masks = Masks {
        begin: c.node.int("begin_mask", 0)?,
        end: c.node.int("end_mask", 0)?,
        ellipsis: c.node.int("ellipsis_mask", 0)?,
        new_axis: c.node.int("new_axis_mask", 0)?,
        shrink: c.node.int("shrink_axis_mask", 0)?,
    };
    let has = |mask: i64, at: usize| mask >> at & 1 == 1;
    let n_new = (0..n).filter(|&at| has(masks.new_axis, at) && !has(masks.ellipsis, at)).count();
    let ellipsis = (0..n).find(|&at| has(masks.ellipsis, at));
    // Without an ellipsis, the dimensions behind the given ones stay as they are, and need not be counted.
    let n_spanned = match ellipsis {
        Some(_) => (c.rank(x)? + n_new + 1)
            .checked_sub(n)
            .ok_or_else(|| Error::invalid("too many elements in a strided slice"))?,
        None => 0,
    };
    let (mut cut, mut picks, mut new_axes) = (Cut::default(), Vec::new(), Vec::new());
    // The dimension of the data, and of the result.
    let (mut axis, mut to) = (0usize, 0usize);
    for (at, &step) in strides.iter().enumerate() {
        if has(masks.ellipsis, at) {
            if Some(at) == ellipsis {
                axis += n_spanned;
                to += n_spanned;
            }
        } else if has(masks.new_axis, at) {
            new_axes.push(to as i64);
            to += 1;
        } else if has(masks.shrink, at) {
            picks.push((axis, bound(c, begin, at)?));
            axis += 1;
        } else {
            if step == 0 {
                return Err(Error::invalid("a stride of 0"));
            }
            let start = match has(masks.begin, at) {
                true if step > 0 => Bound::Int(0),
                true => Bound::Int(i64::MAX),
                false => bound(c, begin, at)?,
            };
            let stop = match has(masks.end, at) {
                true if step > 0 => Bound::Int(i64::MAX),
                true => Bound::Int(i64::MIN),
                false => bound(c, end, at)?,
            };
            if !matches!((start, stop, step), (Bound::Int(0), Bound::Int(i64::MAX), 1)) {
                cut.add(axis, start, stop, step);
            }
            axis += 1;
            to += 1;
        }
    }
    let mut value = cut.apply(c, x)?;
    for (axis, at) in picks.into_iter().rev() {
        let at = match at {
            Bound::Int(int) => c.builder.i64(int),
            Bound::Value(value) => c.squeeze(value, &[0])?,
        };
        value = c.with("Gather", &[value, at], Attributes::new().with("axis", axis as i64))?;
    }
    Ok(vec![c.unsqueeze(value, &new_axes)?])
}

fn bound(c: &mut Context<'_>, vector: ValueId, at: usize) -> Result<Bound, Error> {
    match c.items(vector).and_then(|items| items.get(at).cloned()) {
        Some(Item::Int(int)) => Ok(Bound::Int(int)),
        _ => Ok(Bound::Value(element(c, vector, at)?)),
    }
}

fn split(c: &mut Context<'_>) -> Outputs {
    let (axis, x) = (c.input(0)?, c.input(1)?);
    let n = c.node.count("num_split")?;
    let axis = c.axis(c.int(axis, "the axis")?, c.rank(x)?)?;
    if n <= 1 {
        return Ok(vec![x]);
    }
    let attributes = Attributes::new().with("axis", axis as i64);
    match c.fixed(x, axis) {
        Some(size) if size % n == 0 => {
            let sizes = c.i64s(&vec![(size / n) as i64; n]);
            c.many("Split", &[x, sizes], attributes, n)
        }
        Some(size) => Err(Error::invalid(format!("a dimension of {size} split into {n} parts"))),
        None => c.many("Split", &[x], attributes.with("num_outputs", n as i64), n),
    }
}

fn split_v(c: &mut Context<'_>) -> Outputs {
    let (x, sizes, axis) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let n = c.node.count("num_split")?;
    let axis = c.axis(c.int(axis, "the axis")?, c.rank(x)?)?;
    if n == 1 {
        return Ok(vec![x]);
    }
    let mut sizes_value = c.as_i64_vector(sizes)?;
    if let Some(sizes) = c.known_ints(sizes)
        && let Some(open) = sizes.iter().position(|&size| size == -1)
    {
        let others: Vec<i64> = sizes.iter().copied().filter(|&size| size != -1).collect();
        let given = c.i64s(&[others.iter().fold(0i64, |sum, &size| sum.saturating_add(size))]);
        let total = c.size_at(x, axis)?;
        let rest = c.op("Sub", &[total, given])?;
        let (before, after) = (c.i64s(&sizes[..open]), c.i64s(&sizes[open + 1..]));
        sizes_value = c.concat(&[before, rest, after], 0)?;
    }
    c.many("Split", &[x, sizes_value], Attributes::new().with("axis", axis as i64), n)
}

/// ONNX wants all paddings before the data first, then all behind it.
fn pads(c: &mut Context<'_>, paddings: ValueId) -> Result<ValueId, Error> {
    let paddings = c.as_i64(paddings)?;
    let turned = c.transpose(paddings, &[1, 0])?;
    c.reshape(turned, &[-1])
}

fn pad(c: &mut Context<'_>) -> Outputs {
    let (x, paddings) = (c.input(0)?, c.input(1)?);
    if c.known_ints(paddings).is_some_and(|ints| ints.iter().all(|&int| int == 0)) {
        return Ok(vec![x]);
    }
    let pads = pads(c, paddings)?;
    let attributes = Attributes::new().with("mode", "constant");
    match c.inputs.get(2) {
        Some(&value) => Ok(vec![c.with("Pad", &[x, pads, value], attributes)?]),
        None => {
            let zero = c.scalar(0.0, x)?;
            Ok(vec![c.with("Pad", &[x, pads, zero], attributes)?])
        }
    }
}

fn mirror_pad(c: &mut Context<'_>) -> Outputs {
    let (x, paddings) = (c.input(0)?, c.input(1)?);
    match c.node.text("mode", "")? {
        "REFLECT" => {
            let pads = pads(c, paddings)?;
            Ok(vec![c.with("Pad", &[x, pads], Attributes::new().with("mode", "reflect"))?])
        }
        "SYMMETRIC" => {
            let paddings = c.ints(paddings, "the paddings of a symmetric MirrorPad")?;
            symmetric_pad(c, x, &paddings)
        }
        other => Err(Error::invalid(format!("mode '{other}', expected REFLECT or SYMMETRIC"))),
    }
}

/// The edge is repeated, which ONNX's modes do not do: pieces are cut off, turned round and joined.
fn symmetric_pad(c: &mut Context<'_>, x: ValueId, paddings: &[i64]) -> Outputs {
    let mut value = x;
    for (axis, pair) in paddings.as_chunks::<2>().0.iter().enumerate() {
        let [before, after] = *pair;
        let mut parts = Vec::new();
        if before > 0 {
            let piece = c.slice(value, axis, 0, before)?;
            parts.push(c.reverse(piece, &[axis as i64])?);
        }
        parts.push(value);
        if after > 0 {
            let piece = c.slice(value, axis, -after, i64::MAX)?;
            parts.push(c.reverse(piece, &[axis as i64])?);
        }
        value = c.concat(&parts, axis as i64)?;
    }
    Ok(vec![value])
}

/// How the axes to reverse are given.
#[derive(Clone, Copy)]
enum Axes {
    Flags,
    Numbers,
}

fn reverse(c: &mut Context<'_>, how: Axes) -> Outputs {
    let (x, axes) = (c.input(0)?, c.input(1)?);
    let axes: Vec<i64> = match how {
        Axes::Numbers => {
            let axes = c.ints(axes, "the axes")?;
            match c.builder.rank(x) {
                Some(rank) => c.axes(&axes, rank)?.into_iter().map(|axis| axis as i64).collect(),
                None => axes,
            }
        }
        Axes::Flags => {
            let flags = c.builder.constant_of(axes).filter(|flags| flags.dtype() == DType::Bool);
            let flags = flags
                .and_then(|flags| flags.bytes())
                .ok_or_else(|| Error::unsupported("the axes are computed by the graph"))?;
            flags.iter().enumerate().filter(|&(_, &flag)| flag != 0).map(|(at, _)| at as i64).collect()
        }
    };
    Ok(vec![c.reverse(x, &axes)?])
}

/// ONNX wants batch and time in the first two dimensions.
fn reverse_sequence(c: &mut Context<'_>) -> Outputs {
    let (x, lengths) = (c.input(0)?, c.input(1)?);
    let rank = c.rank(x)?;
    let time = c.axis(c.node.int("seq_dim", 0)?, rank)?;
    let batch = c.axis(c.node.int("batch_dim", 0)?, rank)?;
    let lengths = c.as_i64(lengths)?;
    let attributes =
        |time: i64, batch: i64| Attributes::new().with("time_axis", time).with("batch_axis", batch);
    if time < 2 && batch < 2 {
        return Ok(vec![c.with("ReverseSequence", &[x, lengths], attributes(time as i64, batch as i64))?]);
    }
    let perm: Vec<usize> =
        [batch, time].into_iter().chain((0..rank).filter(|&at| at != batch && at != time)).collect();
    let mut back = vec![0; rank];
    for (to, &from) in perm.iter().enumerate() {
        back[from] = to;
    }
    let moved = c.transpose(x, &perm)?;
    let reversed = c.with("ReverseSequence", &[moved, lengths], attributes(1, 0))?;
    Ok(vec![c.transpose(reversed, &back)?])
}

/// Takes each element from the position that many before it, round and round.
fn roll(c: &mut Context<'_>) -> Outputs {
    let (x, shift, axes) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let rank = c.rank(x)?;
    let axes = c.axes(&c.ints(axes, "the axes")?, rank)?;
    let shift = c.as_i64_vector(shift)?;
    let mut value = x;
    for (at, axis) in axes.into_iter().enumerate() {
        let size = c.size_at(x, axis)?;
        let n = c.squeeze(size, &[0])?;
        let (zero, one) = (c.builder.i64(0), c.builder.i64(1));
        let positions = c.op("Range", &[zero, n, one])?;
        let by = c.slice(shift, 0, at as i64, at as i64 + 1)?;
        let from = c.op("Sub", &[positions, by])?;
        let from = c.op("Mod", &[from, size])?;
        value = c.with("Gather", &[value, from], Attributes::new().with("axis", axis as i64))?;
    }
    Ok(vec![value])
}
