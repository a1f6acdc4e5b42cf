//! Operators that compute shapes or change them, and that make tensors of given shapes.

use salver_graph::{Attributes, Dim, Item, ValueId};
use salver_tensor::DType;

use super::context::{Context, Outputs, zero};
use super::table::{Entry, noted, plain};
use crate::Error;

pub(super) const OPS: &[Entry] = &[
    plain("BroadcastArgs", broadcast_args),
    plain("BroadcastTo", broadcast_to),
    noted("Concat", "a constant axis", |c| concat(c, AxisFirst(true))),
    noted("ConcatV2", "a constant axis", |c| concat(c, AxisFirst(false))),
    plain("Empty", empty),
    noted("ExpandDims", "a constant axis", expand_dims),
    plain("Fill", fill),
    noted("LinSpace", "a constant number", lin_space),
    plain("Pack", pack),
    plain("Range", range),
    plain("Rank", rank),
    plain("Reshape", reshape),
    plain("Shape", shape),
    plain("ShapeN", shape_n),
    plain("Size", size),
    plain("Squeeze", squeeze),
    plain("Tile", tile),
    noted("Transpose", "a constant permutation", transpose),
    plain("Unpack", unpack),
];

fn shape_of(c: &mut Context<'_>, x: ValueId) -> Result<ValueId, Error> {
    let to = c.node.dtype("out_type", DType::I32)?;
    let shape = c.shape(x)?;
    c.cast(shape, to)
}

fn shape(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    Ok(vec![shape_of(c, x)?])
}

fn shape_n(c: &mut Context<'_>) -> Outputs {
    let inputs = c.inputs;
    inputs.iter().map(|&x| shape_of(c, x)).collect()
}

fn size(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let to = c.node.dtype("out_type", DType::I32)?;
    let n = c.op("Size", &[x])?;
    Ok(vec![c.cast(n, to)?])
}

fn rank(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let n = match c.builder.rank(x) {
        Some(rank) => c.builder.i64(rank as i64),
        None => {
            let shape = c.shape(x)?;
            c.op("Size", &[shape])?
        }
    };
    Ok(vec![c.cast(n, DType::I32)?])
}

fn reshape(c: &mut Context<'_>) -> Outputs {
    let (x, to) = (c.input(0)?, c.input(1)?);
    if let Some(dims) = constant_target(c, x, to) {
        let attributes = Attributes::new();
        // A 0 is meant as a size of 0 where no dimension is taken over.
        let Target { dims, zero_is_size } = dims;
        let shape = c.i64s(&dims);
        let attributes = if zero_is_size { attributes.with("allowzero", 1) } else { attributes };
        return Ok(vec![c.with("Reshape", &[x, shape], attributes)?]);
    }
    let to = c.as_i64_vector(to)?;
    Ok(vec![c.op("Reshape", &[x, to])?])
}

struct Target {
    dims: Vec<i64>,
    zero_is_size: bool,
}

/// The shape to reshape to as constants, where what is computed at run time is a dimension of the data that stands in
/// the same place (0), or the only open one (-1).
fn constant_target(c: &Context<'_>, x: ValueId, to: ValueId) -> Option<Target> {
    let items = c.items(to)?;
    if items.iter().all(|item| matches!(item, Item::Int(_))) {
        let dims: Vec<i64> =
            items.iter().filter_map(|item| if let Item::Int(n) = item { Some(*n) } else { None }).collect();
        let zero_is_size = dims.contains(&0);
        return Some(Target { dims, zero_is_size });
    }
    if items.contains(&Item::Int(0)) {
        return None;
    }
    let own = c.builder.dims(x).unwrap_or_default();
    let mut dims = Vec::with_capacity(items.len());
    let mut n_open = 0;
    for (at, item) in items.iter().enumerate() {
        dims.push(match item {
            Item::Int(size) => {
                n_open += usize::from(*size < 0);
                *size
            }
            Item::Dim(name) if own.get(at) == Some(&Dim::Symbol(name.clone())) => 0,
            _ => {
                n_open += 1;
                -1
            }
        });
    }
    (n_open <= 1).then_some(Target { dims, zero_is_size: false })
}

fn expand_dims(c: &mut Context<'_>) -> Outputs {
    let (x, axis) = (c.input(0)?, c.input(1)?);
    let axis = c.int(axis, "the axis")?;
    let axis = match c.builder.rank(x) {
        Some(rank) => c.axis(axis, rank + 1)? as i64,
        None => axis,
    };
    Ok(vec![c.unsqueeze(x, &[axis])?])
}

fn squeeze(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let axes = match c.node.ints("squeeze_dims")? {
        Some(axes) if !axes.is_empty() => axes,
        _ => c.node.ints("axis")?.unwrap_or_default(),
    };
    if !axes.is_empty() {
        let axes: Vec<i64> = match c.builder.rank(x) {
            Some(rank) => c.axes(axes, rank)?.into_iter().map(|axis| axis as i64).collect(),
            None => axes.to_vec(),
        };
        return Ok(vec![c.squeeze(x, &axes)?]);
    }
    let dims = c.builder.dims(x).map(<[Dim]>::to_vec);
    match dims.filter(|dims| dims.iter().all(|dim| dim.fixed().is_some())) {
        Some(dims) => {
            let axes: Vec<i64> =
                (0..dims.len()).filter(|&at| dims[at] == Dim::Fixed(1)).map(|at| at as i64).collect();
            Ok(vec![c.squeeze(x, &axes)?])
        }
        None => Ok(vec![c.op("Squeeze", &[x])?]),
    }
}

fn transpose(c: &mut Context<'_>) -> Outputs {
    let (x, perm) = (c.input(0)?, c.input(1)?);
    let perm = c.ints(perm, "the permutation")?;
    let perm = c.axes(&perm, perm.len())?;
    Ok(vec![c.transpose(x, &perm)?])
}

/// Whether the axis is the first input or the last.
struct AxisFirst(bool);

fn concat(c: &mut Context<'_>, AxisFirst(first): AxisFirst) -> Outputs {
    let inputs = c.inputs;
    let split = if first { inputs.split_first() } else { inputs.split_last() };
    let Some((&axis, parts)) = split.filter(|(_, parts)| !parts.is_empty()) else {
        return Err(Error::invalid("nothing to join"));
    };
    let axis = c.int(axis, "the axis")?;
    let rank = parts.iter().find_map(|&part| c.builder.rank(part));
    let axis = match rank {
        Some(rank) => c.axis(axis, rank)? as i64,
        None => axis,
    };
    Ok(vec![c.concat(parts, axis)?])
}

fn pack(c: &mut Context<'_>) -> Outputs {
    let axis = c.node.int("axis", 0)?;
    let rank = c.inputs.iter().find_map(|&part| c.builder.rank(part));
    let axis = match rank {
        Some(rank) => c.axis(axis, rank + 1)? as i64,
        None => axis,
    };
    let inputs = c.inputs;
    let parts: Vec<ValueId> =
        inputs.iter().map(|&part| c.unsqueeze(part, &[axis])).collect::<Result<_, _>>()?;
    if parts.is_empty() {
        return Err(Error::invalid("nothing to pack"));
    }
    Ok(vec![c.concat(&parts, axis)?])
}

fn unpack(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let n = c.node.count("num")?;
    let axis = c.axis(c.node.int("axis", 0)?, c.rank(x)?)? as i64;
    match n {
        0 => return Ok(Vec::new()),
        1 => return Ok(vec![c.squeeze(x, &[axis])?]),
        _ => {}
    }
    let sizes = c.i64s(&vec![1; n]);
    let parts = c.many("Split", &[x, sizes], Attributes::new().with("axis", axis), n)?;
    parts.into_iter().map(|part| c.squeeze(part, &[axis])).collect()
}

fn tile(c: &mut Context<'_>) -> Outputs {
    let (x, times) = (c.input(0)?, c.input(1)?);
    if c.known_ints(times).is_some_and(|times| times.iter().all(|&n| n == 1)) {
        return Ok(vec![x]);
    }
    let times = c.as_i64_vector(times)?;
    Ok(vec![c.op("Tile", &[x, times])?])
}

fn broadcast_to(c: &mut Context<'_>) -> Outputs {
    let (x, shape) = (c.input(0)?, c.input(1)?);
    let shape = c.as_i64_vector(shape)?;
    Ok(vec![c.op("Expand", &[x, shape])?])
}

/// The shape that two shapes broadcast to: ones in front of the shorter one, and of each pair the one that is not 1.
fn broadcast_args(c: &mut Context<'_>) -> Outputs {
    let (a, b) = (c.input(0)?, c.input(1)?);
    let length = |c: &Context<'_>, id| {
        c.fixed(id, 0).ok_or_else(|| Error::unsupported("the number of dimensions to broadcast is not known"))
    };
    let (n_a, n_b) = (length(c, a)?, length(c, b)?);
    let n = n_a.max(n_b);
    let (a, b) = (with_ones(c, a, n - n_a)?, with_ones(c, b, n - n_b)?);
    let one = c.scalar(1.0, a)?;
    let is_one = c.op("Equal", &[a, one])?;
    Ok(vec![c.op("Where", &[is_one, b, a])?])
}

fn with_ones(c: &mut Context<'_>, shape: ValueId, n: usize) -> Result<ValueId, Error> {
    if n == 0 {
        return Ok(shape);
    }
    let ones = c.i64s(&vec![1; n]);
    let ones = c.cast(ones, c.dtype(shape))?;
    c.concat(&[ones, shape], 0)
}

fn fill(c: &mut Context<'_>) -> Outputs {
    let (shape, value) = (c.input(0)?, c.input(1)?);
    let shape = c.as_i64_vector(shape)?;
    match c.builder.constant_of(value).filter(|value| value.shape().n_elements() == 1).cloned() {
        Some(element) => Ok(vec![c.splat(element, shape)?]),
        None => Ok(vec![c.op("Expand", &[value, shape])?]),
    }
}

fn empty(c: &mut Context<'_>) -> Outputs {
    let shape = c.input(0)?;
    let shape = c.as_i64_vector(shape)?;
    let zero = zero(c.node.dtype("dtype", DType::F32)?)?;
    Ok(vec![c.splat(zero, shape)?])
}

fn range(c: &mut Context<'_>) -> Outputs {
    c.same("Range")
}

/// Equal steps from the first to the last, both included.
fn lin_space(c: &mut Context<'_>) -> Outputs {
    let (start, stop, n) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let n = c.int(n, "the number of elements")?;
    if !(1..=1 << 24).contains(&n) {
        return Err(Error::invalid(format!("LinSpace of {n} elements")));
    }
    let (first, last) = (c.unsqueeze(start, &[0])?, c.unsqueeze(stop, &[0])?);
    if n == 1 {
        return Ok(vec![first]);
    }
    let (from, to, by) = (c.builder.i64(0), c.builder.i64(n - 1), c.builder.i64(1));
    let steps = c.op("Range", &[from, to, by])?;
    let steps = c.cast(steps, c.dtype(start))?;
    let span = c.op("Sub", &[stop, start])?;
    let gaps = c.scalar((n - 1) as f64, start)?;
    let step = c.op("Div", &[span, gaps])?;
    let way = c.op("Mul", &[steps, step])?;
    let points = c.op("Add", &[way, start])?;
    Ok(vec![c.concat(&[points, last], 0)?])
}
