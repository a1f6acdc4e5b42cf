//! Operations that move elements: reshapes, slices, joins.

use salver_graph::{Error, ValueId};
use salver_tensor::DType;
use serde_json::Value as Json;

use super::args::{Args, Axis, operand};
use crate::attrs;
use crate::config::{self, MAX_SIZE};
use crate::emit::{Emit, front_axis};
use crate::layers::reshape;
use crate::network::Given;

/// Operations that move elements; `None` when it is another one.
pub(super) fn moving(cx: &mut Emit, name: &str, args: &Args<'_>) -> Result<Option<ValueId>, Error> {
    Ok(Some(match name {
        "reshape" => {
            let x = args.x(cx)?;
            let shape = args
                .given(1, &["newshape", "shape", "new_shape"])
                .ok_or_else(|| config::missing("newshape"))?;
            let list = match &shape {
                Given::List(list) => list.clone(),
                Given::Json(Json::Array(list)) => list.iter().cloned().map(Given::Json).collect(),
                other => vec![other.clone()],
            };
            let mut parts = Vec::new();
            for item in &list {
                parts.push(match item.tensor() {
                    Some(value) => {
                        let size = cx.cast(value.id, DType::I64)?;
                        cx.reshape(size, &[1])?
                    }
                    None => {
                        let dim = item.json().as_ref().and_then(config::int).unwrap_or(-1);
                        cx.ints(&[dim])
                    }
                });
            }
            let fixed: Option<Vec<i64>> = list
                .iter()
                .map(|item| item.json().as_ref().and_then(config::int).or(item.is_null().then_some(-1)))
                .collect();
            // The batch stays open where the first dimension is what is left.
            if let Some(fixed) = fixed
                && fixed.first() == Some(&-1)
                && !fixed[1..].contains(&-1)
                && let Some(known) = same_batch(cx, x, &fixed[1..])?
            {
                return Ok(Some(known));
            }
            let shape = cx.concat(&parts, 0)?;
            cx.op("Reshape", &[x, shape])?
        }
        "transpose" => {
            let x = args.x(cx)?;
            let rank = cx.rank(x)?;
            let axes = args.ints(1, &["axes", "perm"])?.unwrap_or_else(|| (0..rank as i64).rev().collect());
            let perm = axes.into_iter().map(|axis| front_axis(axis, rank)).collect::<Result<Vec<_>, _>>()?;
            cx.transpose(x, &perm)?
        }
        "swapaxes" | "moveaxis" => {
            let x = args.x(cx)?;
            let from = cx.axis(x, args.int(1, &["axis1", "source"], 0)?)?;
            let to = cx.axis(x, args.int(2, &["axis2", "destination"], 0)?)?;
            let mut perm: Vec<usize> = (0..cx.rank(x)?).collect();
            if name == "swapaxes" {
                perm.swap(from, to);
            } else {
                let axis = perm.remove(from);
                perm.insert(to, axis);
            }
            cx.transpose(x, &perm)?
        }
        "expand_dims" => {
            let x = args.x(cx)?;
            let axes = args.ints(1, &["axis"])?.ok_or_else(|| config::missing("axis"))?;
            cx.unsqueeze(x, &axes)?
        }
        "squeeze" => {
            let x = args.x(cx)?;
            match args.ints(1, &["axis"])?.filter(|axes| !axes.is_empty()) {
                Some(axes) => cx.squeeze(x, &axes)?,
                None => cx.op("Squeeze", &[x])?,
            }
        }
        "concatenate" => {
            let ids = args.list(cx)?;
            let axis = match args.axis(1)? {
                Axis::These(axes) if axes.len() == 1 => axes[0],
                // The backend of Keras 2 has another default than TensorFlow itself.
                Axis::Missing if args.layer.config.text_or("function", "")?.contains("backend") => -1,
                Axis::Missing => 0,
                _ => return Err(Error::unsupported("concatenate without one axis")),
            };
            let axis = cx.axis(ids[0], axis)?;
            cx.concat(&ids, axis as i64)?
        }
        "stack" => {
            let mut ids = args.list(cx)?;
            let axis = args.int(1, &["axis"], 0)?;
            let axis = front_axis(axis, cx.rank(ids[0])? + 1)? as i64;
            for id in &mut ids {
                *id = cx.unsqueeze(*id, &[axis])?;
            }
            cx.concat(&ids, axis)?
        }
        "get_item" => get_item(cx, args)?,
        "tile" => {
            let x = args.x(cx)?;
            let repeats =
                args.ints(1, &["repeats", "multiples"])?.ok_or_else(|| config::missing("repeats"))?;
            let repeats = cx.ints(&repeats);
            cx.op("Tile", &[x, repeats])?
        }
        "repeat" => {
            let x = args.x(cx)?;
            let (x, axis) = match args.axis(2)? {
                Axis::These(axes) if axes.len() == 1 => (x, cx.axis(x, axes[0])?),
                _ => (cx.reshape(x, &[-1])?, 0),
            };
            let n = args.int(1, &["repeats"], 1)?;
            let size = cx.dim(x, axis)?;
            if !(0..=1 << 20).contains(&n) || size.saturating_mul(n as usize) > 1 << 24 {
                return Err(Error::too_large(format!("{n} repeats")));
            }
            let indices: Vec<i64> =
                (0..size as i64).flat_map(|at| std::iter::repeat_n(at, n as usize)).collect();
            let indices = cx.ints(&indices);
            cx.op_with("Gather", &[x, indices], attrs!("axis": axis as i64))?
        }
        "flip" => {
            let x = args.x(cx)?;
            let rank = cx.rank(x)? as i64;
            let mut y = x;
            for axis in args.ints(1, &["axis"])?.unwrap_or_else(|| (0..rank).collect()) {
                let axis = cx.axis(x, axis)?;
                y = cx.reverse(y, axis)?;
            }
            y
        }
        "take" => {
            let x = args.x_or(cx, &["x", "params"])?;
            let indices = args.given(1, &["indices"]).ok_or_else(|| config::missing("indices"))?;
            let indices = operand(cx, &indices, None, DType::I64)?;
            let indices = cx.cast(indices, DType::I64)?;
            if args.int(usize::MAX, &["batch_dims"], 0)? != 0 {
                return Err(Error::unsupported("gather with batch_dims"));
            }
            let axis = args.one_axis(2, 0)?;
            let x = if axis.is_some() { x } else { cx.reshape(x, &[-1])? };
            cx.op_with("Gather", &[x, indices], attrs!("axis": axis.unwrap_or(0)))?
        }
        "broadcast_to" => {
            let x = args.x(cx)?;
            let shape = args.ints(1, &["shape"])?.ok_or_else(|| config::missing("shape"))?;
            let shape = cx.ints(&shape);
            cx.op("Expand", &[x, shape])?
        }
        "pad" => {
            let x = args.x(cx)?;
            let pads =
                args.json(1, &["pad_width", "paddings"])?.ok_or_else(|| config::missing("pad_width"))?;
            let rank = cx.rank(x)?;
            let pairs: Option<Vec<Vec<i64>>> =
                pads.as_array().map(|list| list.iter().filter_map(config::ints).collect());
            let pairs = pairs.filter(|pairs| pairs.len() == rank && pairs.iter().all(|pair| pair.len() == 2));
            let pairs =
                pairs.ok_or_else(|| Error::invalid(format!("pad_width {pads} of {rank} dimensions")))?;
            let mut flat: Vec<i64> = pairs.iter().map(|pair| pair[0]).collect();
            flat.extend(pairs.iter().map(|pair| pair[1]));
            if flat.iter().any(|pad| !(0..=MAX_SIZE).contains(pad)) {
                return Err(Error::invalid(format!("pad_width {pads}")));
            }
            let mode = args.text(2, &["mode"])?.unwrap_or_else(|| "constant".into()).to_ascii_lowercase();
            let mode = match mode.as_str() {
                "constant" => "constant",
                "reflect" => "reflect",
                "edge" => "edge",
                other => return Err(Error::unsupported(format!("pad with mode '{other}'"))),
            };
            let flat = cx.ints(&flat);
            let value = args.float(3, &["constant_values"], 0.0)?;
            let value = cx.scalar(value, x)?;
            cx.op_with("Pad", &[x, flat, value], attrs!("mode": mode))?
        }
        "shape" => {
            let x = args.x(cx)?;
            let shape = cx.shape(x)?;
            cx.cast(shape, DType::I32)?
        }
        _ => return Ok(None),
    }))
}

/// A reshape to `[-1, rest]` that leaves the batch as it is, where the sizes allow no other.
fn same_batch(cx: &mut Emit, x: ValueId, rest: &[i64]) -> Result<Option<ValueId>, Error> {
    let dims = cx.dims(x)?;
    let total = dims
        .get(1..)
        .and_then(|dims| dims.iter().try_fold(1i64, |product, dim| product.checked_mul((*dim)? as i64)));
    let wanted = rest.iter().try_fold(1i64, |product, &dim| product.checked_mul(dim));
    if total.is_some() && total == wanted && dims[0].is_none() {
        return reshape::reshape(cx, x, rest).map(Some);
    }
    Ok(None)
}

/// Python's `x[...]` with slices, integers, `None` and `...`.
fn get_item(cx: &mut Emit, args: &Args<'_>) -> Result<ValueId, Error> {
    let x = args.x(cx)?;
    let key = args.given(1, &["key", "slice_spec"]).ok_or_else(|| config::missing("key"))?;
    let items = match key {
        Given::List(items) => items,
        Given::Json(Json::Array(list)) => list.into_iter().map(Given::Json).collect(),
        other => vec![other],
    };
    let is_ellipsis = |given: &Given| matches!(given, Given::Json(json) if json.as_str() == Some("...") || json.get("class_name").and_then(Json::as_str) == Some("__ellipsis__"));
    let n_real = items.iter().filter(|item| !item.is_null() && !is_ellipsis(item)).count();
    let rank = cx.rank(x)?;
    let mut y = x;
    let mut axis = 0;
    let mut seen = false;
    for item in &items {
        if is_ellipsis(item) && !seen {
            seen = true;
            axis += rank.saturating_sub(n_real);
            continue;
        }
        match item {
            given if given.is_null() => {
                y = cx.unsqueeze(y, &[axis as i64])?;
                axis += 1;
            }
            Given::Slice(parts) => {
                let part = |at: usize| -> Result<Option<i64>, Error> {
                    if parts[at].is_null() {
                        return Ok(None);
                    }
                    let int = parts[at].json().as_ref().and_then(config::int);
                    int.map(Some).ok_or_else(|| Error::unsupported("a slice by computed bounds"))
                };
                let (start, stop, step) = (part(0)?, part(1)?, part(2)?.unwrap_or(1));
                if step == 0 {
                    return Err(Error::invalid("a slice with step 0"));
                }
                if (start, stop, step) != (None, None, 1) {
                    let (first, last) = if step > 0 { (0, i64::MAX) } else { (-1, i64::MIN) };
                    y = cx.slice(y, axis, start.unwrap_or(first), stop.unwrap_or(last), step)?;
                }
                axis += 1;
            }
            other => {
                let index = match other.tensor() {
                    Some(value) => cx.cast(value.id, DType::I64)?,
                    None => {
                        let index = other.json().as_ref().and_then(config::int);
                        cx.int(index.ok_or_else(|| Error::unsupported("an index that is no integer"))?)
                    }
                };
                let n_new = cx.rank(index)?;
                y = cx.op_with("Gather", &[y, index], attrs!("axis": axis as i64))?;
                axis += n_new;
            }
        }
    }
    Ok(y)
}
