//! Operators that take elements by position, or put them there.

use salver_graph::{Attributes, ValueId};
use salver_tensor::DType;

use super::context::{Context, Outputs};
use super::table::{Entry, noted, plain};
use crate::Error;

const FROM_THE_END: &str = "a negative index counts from the end, where TensorFlow refuses it";

pub(super) const OPS: &[Entry] = &[
    plain("DynamicPartition", dynamic_partition),
    plain("DynamicStitch", dynamic_stitch),
    plain("ParallelDynamicStitch", dynamic_stitch),
    noted("Gather", FROM_THE_END, |c| gather(c, 0)),
    noted("GatherNd", FROM_THE_END, gather_nd),
    noted(
        "GatherV2",
        "a constant axis; a negative index counts from the end, where TensorFlow refuses it",
        gather_v2,
    ),
    plain("InTopK", in_top_k),
    plain("InTopKV2", in_top_k),
    plain("InvertPermutation", invert_permutation),
    plain("NonMaxSuppression", non_max_suppression),
    plain("NonMaxSuppressionV2", non_max_suppression),
    plain("NonMaxSuppressionV3", non_max_suppression),
    noted("OneHot", "positions outside give the off value", one_hot),
    noted("ResourceGather", "of the variable's value", |c| {
        let batch = c.node.int("batch_dims", 0)?;
        gather(c, batch)
    }),
    noted("ResourceGatherNd", "of the variable's value", gather_nd),
    plain("ScatterNd", scatter_nd),
    plain("ScatterNdNonAliasingAdd", |c| tensor_scatter(c, Some("add"))),
    plain("TensorScatterAdd", |c| tensor_scatter(c, Some("add"))),
    plain("TensorScatterMax", |c| tensor_scatter(c, Some("max"))),
    plain("TensorScatterMin", |c| tensor_scatter(c, Some("min"))),
    plain("TensorScatterSub", |c| tensor_scatter(c, Some("sub"))),
    plain("TensorScatterUpdate", |c| tensor_scatter(c, None)),
    plain("TopK", top_k),
    plain("TopKV2", top_k),
    plain("Unique", |c| unique(c, 2)),
    noted("UniqueV2", "of a vector", |c| unique(c, 2)),
    plain("UniqueWithCounts", |c| unique(c, 3)),
    noted("UniqueWithCountsV2", "of a vector", |c| unique(c, 3)),
    noted("UnsortedSegmentSum", "segment numbers in one dimension", unsorted_segment_sum),
    plain("Where", where_true),
];

/// ONNX takes int32 and int64 as positions.
fn indices(c: &mut Context<'_>, id: ValueId) -> Result<ValueId, Error> {
    match c.dtype(id) {
        DType::I32 | DType::I64 => Ok(id),
        _ => c.as_i64(id),
    }
}

fn gather(c: &mut Context<'_>, batch_dims: i64) -> Outputs {
    let (x, at) = (c.input(0)?, c.input(1)?);
    gather_along(c, x, at, batch_dims, batch_dims)
}

fn gather_v2(c: &mut Context<'_>) -> Outputs {
    let (x, at, axis) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let axis = c.int(axis, "the axis")?;
    gather_along(c, x, at, axis, c.node.int("batch_dims", 0)?)
}

fn gather_along(c: &mut Context<'_>, x: ValueId, at: ValueId, axis: i64, batch_dims: i64) -> Outputs {
    let at = indices(c, at)?;
    if batch_dims == 0 {
        let axis = match c.builder.rank(x) {
            Some(rank) => c.axis(axis, rank)? as i64,
            None => axis,
        };
        return Ok(vec![c.with("Gather", &[x, at], Attributes::new().with("axis", axis))?]);
    }
    let (rank, index_rank) = (c.rank(x)?, c.rank(at)?);
    let axis = c.axis(axis, rank)?;
    // Counted from the end, they are what is left of the positions' dimensions.
    let from_end = if batch_dims < 0 { index_rank as i64 } else { 0 };
    let batch = c.axis(batch_dims.saturating_add(from_end), index_rank + 1)?;
    if axis < batch {
        return Err(Error::invalid(format!("GatherV2 along axis {axis} with {batch} batch dimensions")));
    }
    // The axis goes right behind the batch, where GatherND looks for it.
    let perm: Vec<usize> = (0..batch).chain([axis]).chain((batch..rank).filter(|&at| at != axis)).collect();
    let moved = c.transpose(x, &perm)?;
    let at = c.as_i64(at)?;
    let at = c.unsqueeze(at, &[index_rank as i64])?;
    let found = c.with("GatherND", &[moved, at], Attributes::new().with("batch_dims", batch as i64))?;
    // Now: batch, indices, what was between batch and axis, the rest. The indices go to the place of the axis.
    let n_between = axis - batch;
    let n_indices = index_rank - batch;
    let total = rank - 1 + n_indices;
    let between = batch + n_indices..batch + n_indices + n_between;
    let back: Vec<usize> =
        (0..batch).chain(between.clone()).chain(batch..batch + n_indices).chain(between.end..total).collect();
    Ok(vec![c.transpose(found, &back)?])
}

fn gather_nd(c: &mut Context<'_>) -> Outputs {
    let (x, at) = (c.input(0)?, c.input(1)?);
    let at = c.as_i64(at)?;
    let batch = c.node.int("batch_dims", 0)?;
    Ok(vec![c.with("GatherND", &[x, at], Attributes::new().with("batch_dims", batch))?])
}

/// Duplicates are added up.
fn scatter_nd(c: &mut Context<'_>) -> Outputs {
    let (at, updates, shape) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let (at, shape) = (c.as_i64(at)?, c.as_i64_vector(shape)?);
    let zeros = c.zeros(shape, c.dtype(updates))?;
    Ok(vec![c.with("ScatterND", &[zeros, at, updates], Attributes::new().with("reduction", "add"))?])
}

fn tensor_scatter(c: &mut Context<'_>, reduction: Option<&str>) -> Outputs {
    let (x, at, updates) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let at = c.as_i64(at)?;
    let (updates, reduction) = match reduction {
        Some("sub") => (c.op("Neg", &[updates])?, Some("add")),
        other => (updates, other),
    };
    let attributes =
        reduction.map_or_else(Attributes::new, |reduction| Attributes::new().with("reduction", reduction));
    Ok(vec![c.with("ScatterND", &[x, at, updates], attributes)?])
}

fn unsorted_segment_sum(c: &mut Context<'_>) -> Outputs {
    let (x, segments, n) = (c.input(0)?, c.input(1)?, c.input(2)?);
    if c.rank(segments)? != 1 {
        return Err(Error::unsupported("UnsortedSegmentSum with segment numbers in more than one dimension"));
    }
    // Negative numbers are dropped: they go to a row of their own behind the last, which is cut off.
    let (segments, n) = (c.as_i64(segments)?, c.as_i64_vector(n)?);
    let zero = c.builder.i64(0);
    let below = c.op("Less", &[segments, zero])?;
    let segments = c.op("Where", &[below, n, segments])?;
    let one = c.i64s(&[1]);
    let n_rows = c.op("Add", &[n, one])?;
    let row = c.with("Shape", &[x], Attributes::new().with("start", 1))?;
    let shape = c.concat(&[n_rows, row], 0)?;
    let zeros = c.zeros(shape, c.dtype(x))?;
    let at = c.unsqueeze(segments, &[1])?;
    let sums = c.with("ScatterND", &[zeros, at, x], Attributes::new().with("reduction", "add"))?;
    let (start, axis) = (c.i64s(&[0]), c.i64s(&[0]));
    Ok(vec![c.op("Slice", &[sums, start, n, axis])?])
}

/// Compares positions with the numbers from 0 on, so that positions outside, negative ones too, are nowhere.
fn one_hot(c: &mut Context<'_>) -> Outputs {
    let (at, depth, on, off) = (c.input(0)?, c.input(1)?, c.input(2)?, c.input(3)?);
    let rank = c.rank(at)?;
    let axis = c.axis(c.node.int("axis", -1)?, rank + 1)?;
    let at = c.as_i64(at)?;
    let at = c.unsqueeze(at, &[axis as i64])?;
    let depth = c.as_i64(depth)?;
    let (zero, one) = (c.builder.i64(0), c.builder.i64(1));
    let classes = c.op("Range", &[zero, depth, one])?;
    let behind: Vec<i64> = (1..=(rank - axis) as i64).collect();
    let classes = c.unsqueeze(classes, &behind)?;
    let equal = c.op("Equal", &[at, classes])?;
    Ok(vec![c.op("Where", &[equal, on, off])?])
}

fn top_k(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let k = match c.inputs.get(1) {
        Some(&k) => c.as_i64_vector(k)?,
        None => c.i64s(&[c.node.int("k", 0)?]),
    };
    let attributes = Attributes::new().with("axis", -1).with("largest", 1).with("sorted", 1);
    let found = c.many("TopK", &[x, k], attributes, 2)?;
    let to = c.node.dtype("index_type", DType::I32)?;
    Ok(vec![found[0], c.cast(found[1], to)?])
}

/// Whether fewer than k predictions are above the target's.
fn in_top_k(c: &mut Context<'_>) -> Outputs {
    let (predictions, targets) = (c.input(0)?, c.input(1)?);
    let k = match c.inputs.get(2) {
        Some(&k) => c.as_i64(k)?,
        None => c.builder.i64(c.node.int("k", 0)?),
    };
    let targets = c.as_i64(targets)?;
    let at = c.unsqueeze(targets, &[1])?;
    let own = c.with("GatherElements", &[predictions, at], Attributes::new().with("axis", 1))?;
    let above = c.op("Greater", &[predictions, own])?;
    let above = c.as_i64(above)?;
    let axis = c.i64s(&[1]);
    let n_above = c.with("ReduceSum", &[above, axis], Attributes::new().with("keepdims", 0))?;
    Ok(vec![c.op("Less", &[n_above, k])?])
}

fn unique(c: &mut Context<'_>, n_outputs: usize) -> Outputs {
    let x = c.input(0)?;
    if c.builder.rank(x).is_some_and(|rank| rank != 1) {
        return Err(Error::unsupported("unique rows are not supported, only unique elements of a vector"));
    }
    let to = c.node.dtype("out_idx", DType::I32)?;
    let found = c.many("Unique", &[x], Attributes::new().with("sorted", 0), 4)?;
    let mut outputs = vec![found[0], c.cast(found[2], to)?];
    if n_outputs == 3 {
        outputs.push(c.cast(found[3], to)?);
    }
    Ok(outputs)
}

fn invert_permutation(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let shape = c.shape(x)?;
    let n = c.squeeze(shape, &[0])?;
    let (zero, one) = (c.builder.i64(0), c.builder.i64(1));
    let positions = c.op("Range", &[zero, n, one])?;
    let at = c.as_i64(x)?;
    let inverse =
        c.with("ScatterElements", &[positions, at, positions], Attributes::new().with("axis", 0))?;
    Ok(vec![c.cast(inverse, c.dtype(x))?])
}

/// The positions of what is true or not 0, one row each.
fn where_true(c: &mut Context<'_>) -> Outputs {
    let found = c.op("NonZero", &[c.input(0)?])?;
    Ok(vec![c.transpose(found, &[1, 0])?])
}

fn dynamic_partition(c: &mut Context<'_>) -> Outputs {
    let (x, parts) = (c.input(0)?, c.input(1)?);
    let n = c.node.count("num_partitions")?;
    let rank = c.rank(parts)?;
    let (x, parts) = if rank == 1 { (x, parts) } else { (flat_rows(c, x, rank)?, c.reshape(parts, &[-1])?) };
    (0..n)
        .map(|part| {
            let part = c.scalar(part as f64, parts)?;
            let own = c.op("Equal", &[parts, part])?;
            c.with("Compress", &[x, own], Attributes::new().with("axis", 0))
        })
        .collect()
}

/// The first `rank` dimensions as one.
fn flat_rows(c: &mut Context<'_>, x: ValueId, rank: usize) -> Result<ValueId, Error> {
    if rank == 0 {
        return c.unsqueeze(x, &[0]);
    }
    let row = c.with("Shape", &[x], Attributes::new().with("start", rank as i64))?;
    let all = c.i64s(&[-1]);
    let shape = c.concat(&[all, row], 0)?;
    c.op("Reshape", &[x, shape])
}

/// Rows put at the positions given; of rows for one position the last counts.
fn dynamic_stitch(c: &mut Context<'_>) -> Outputs {
    let inputs = c.inputs;
    if inputs.is_empty() || !inputs.len().is_multiple_of(2) {
        return Err(Error::invalid(format!("{} inputs, expected as many positions as data", inputs.len())));
    }
    let (positions, data) = inputs.split_at(inputs.len() / 2);
    let (mut all_positions, mut all_rows) = (Vec::new(), Vec::new());
    let mut row = None;
    for (&at, &x) in positions.iter().zip(data) {
        let rank = c.rank(at)?;
        if row.is_none() {
            row = Some(c.with("Shape", &[x], Attributes::new().with("start", rank as i64))?);
        }
        let at = c.as_i64(at)?;
        all_positions.push(if rank == 1 { at } else { c.reshape(at, &[-1])? });
        all_rows.push(if rank == 1 { x } else { flat_rows(c, x, rank)? });
    }
    let row = row.ok_or_else(|| Error::invalid("nothing to stitch"))?;
    let (at, rows) = (c.concat(&all_positions, 0)?, c.concat(&all_rows, 0)?);
    // With -1 among them, nothing at all makes no rows.
    let none = c.i64s(&[-1]);
    let bounded = c.concat(&[none, at], 0)?;
    let last = c.with("ReduceMax", &[bounded], Attributes::new().with("keepdims", 1))?;
    let one = c.i64s(&[1]);
    let n = c.op("Add", &[last, one])?;
    let shape = c.concat(&[n, row], 0)?;
    let zeros = c.zeros(shape, c.dtype(rows))?;
    let at = c.unsqueeze(at, &[1])?;
    Ok(vec![c.op("ScatterND", &[zeros, at, rows])?])
}

/// The boxes that are kept, best first.
fn non_max_suppression(c: &mut Context<'_>) -> Outputs {
    let (boxes, scores, most) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let overlap = match c.inputs.get(3) {
        Some(&overlap) => overlap,
        None => c.builder.f32(c.node.float("iou_threshold", 0.5)?),
    };
    let (boxes, scores) = (c.unsqueeze(boxes, &[0])?, c.unsqueeze(scores, &[0, 1])?);
    let (most, overlap) = (c.as_i64_vector(most)?, c.reshape(overlap, &[1])?);
    let mut inputs = vec![boxes, scores, most, overlap];
    if let Some(&least) = c.inputs.get(4) {
        inputs.push(c.reshape(least, &[1])?);
    }
    // Rows of batch, class and box.
    let kept = c.with("NonMaxSuppression", &inputs, Attributes::new().with("center_point_box", 0))?;
    let kept = c.slice(kept, 1, 2, 3)?;
    let kept = c.squeeze(kept, &[1])?;
    Ok(vec![c.cast(kept, DType::I32)?])
}
