//! Operators that move elements and compute shapes.

use salver_tensor::DType;

use super::{Asked, Known, Outcome, broadcast, same_dtype, show};
use crate::Error;
use crate::ir::{Dim, Item};

pub(super) fn infer(asked: &Asked<'_>) -> Result<Option<Vec<Outcome>>, Error> {
    let outcome = match asked.op {
        "Shape" => shape(asked)?,
        "Size" => {
            let n = asked.input(0)?.n_elements().and_then(|n| i64::try_from(n).ok());
            Outcome::new(DType::I64, Some(vec![])).with_items(n.map(|n| vec![Item::Int(n)]))
        }
        "Reshape" => reshape(asked)?,
        "Flatten" => flatten(asked)?,
        "Squeeze" => squeeze(asked)?,
        "Unsqueeze" => unsqueeze(asked)?,
        "Transpose" => transpose(asked)?,
        "Concat" => concat(asked)?,
        "Split" => return split(asked).map(Some),
        "Slice" => slice(asked)?,
        "Gather" => gather(asked)?,
        "GatherElements" => {
            let (data, indices) = (asked.input(0)?, asked.input(1)?);
            Outcome::new(data.dtype, indices.dims.map(<[_]>::to_vec))
        }
        "GatherND" => gather_nd(asked)?,
        "ScatterElements" | "ScatterND" => {
            let data = asked.input(0)?;
            Outcome::new(data.dtype, data.dims.map(<[_]>::to_vec))
        }
        "Expand" => {
            let data = asked.input(0)?;
            let to = dims_from(&asked.input(1)?);
            Outcome::new(data.dtype, broadcast(data.dims, to.as_deref())?)
        }
        "Tile" => tile(asked)?,
        "Pad" => pad(asked)?,
        "ConstantOfShape" => {
            let value = asked.attributes.tensor("value")?;
            let dtype = value.map_or(DType::F32, salver_tensor::Tensor::dtype);
            Outcome::new(dtype, dims_from(&asked.input(0)?))
        }
        "Range" => range(asked)?,
        "OneHot" => one_hot(asked)?,
        "EyeLike" => {
            let input = asked.input(0)?;
            let dtype = asked.attributes.dtype("dtype")?.unwrap_or(input.dtype);
            Outcome::new(dtype, input.dims.map(<[_]>::to_vec))
        }
        "NonZero" => {
            let rank = asked.input(0)?.rank().map_or(Dim::Unknown, Dim::Fixed);
            Outcome::new(DType::I64, Some(vec![rank, Dim::Unknown]))
        }
        "NonMaxSuppression" => Outcome::new(DType::I64, Some(vec![Dim::Unknown, Dim::Fixed(3)])),
        "Compress" => {
            let input = asked.input(0)?;
            Outcome::new(input.dtype, input.rank().map(|rank| vec![Dim::Unknown; rank]))
        }
        "Unique" => {
            let input = asked.input(0)?;
            let vector = |dtype| Outcome::new(dtype, Some(vec![Dim::Unknown]));
            return Ok(Some(vec![
                vector(input.dtype),
                vector(DType::I64),
                vector(DType::I64),
                vector(DType::I64),
            ]));
        }
        "DepthToSpace" | "SpaceToDepth" => space(asked)?,
        "TopK" => return top_k(asked).map(Some),
        _ => return Ok(None),
    };
    Ok(Some(vec![outcome]))
}

fn usize_of(int: i64) -> Option<usize> {
    usize::try_from(int).ok()
}

/// The dimensions that a shape tensor says.
fn dims_from(shape: &Known<'_>) -> Option<Vec<Dim>> {
    match (shape.items, shape.dims) {
        (Some(items), _) => Some(items.iter().map(Dim::from).collect()),
        (None, Some([Dim::Fixed(rank)])) if *rank <= salver_tensor::MAX_RANK => {
            Some(vec![Dim::Unknown; *rank])
        }
        _ => None,
    }
}

fn shape(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let Some(dims) = asked.input(0)?.dims else {
        return Ok(Outcome::new(DType::I64, Some(vec![Dim::Unknown])));
    };
    let rank = i64::try_from(dims.len()).unwrap_or(i64::MAX);
    let clamp = |at: i64| usize_of(if at < 0 { at + rank } else { at }.clamp(0, rank)).unwrap_or(0);
    let start = clamp(asked.attributes.int("start", 0)?.max(-rank));
    let end = clamp(asked.attributes.int("end", rank)?.max(-rank));
    let items: Vec<Item> = dims.get(start..end).unwrap_or_default().iter().map(Item::from).collect();
    Ok(Outcome::new(DType::I64, Some(vec![Dim::Fixed(items.len())])).with_items(Some(items)))
}

fn reshape(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let (data, target) = (asked.input(0)?, asked.input(1)?);
    let allow_zero = asked.attributes.flag("allowzero", false)?;
    let Some(items) = target.items else {
        return Ok(Outcome::new(data.dtype, dims_from(&target)));
    };
    let mut dims = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        dims.push(match item {
            Item::Int(-1) => Dim::Unknown,
            Item::Int(0) if !allow_zero => {
                data.dims.map_or(Dim::Unknown, |dims| dims.get(at).cloned().unwrap_or(Dim::Unknown))
            }
            Item::Int(size) if *size < 0 => {
                return Err(Error::invalid(format!("Reshape to {size}, expected a size or -1")));
            }
            other => Dim::from(other),
        });
    }
    let open: Vec<usize> = (0..items.len()).filter(|&at| items[at] == Item::Int(-1)).collect();
    match open.as_slice() {
        [] => check_sizes(&data, &dims)?,
        [at] => dims[*at] = remaining(&data, &dims, *at)?,
        _ => return Err(Error::invalid("Reshape with more than one -1")),
    }
    // A vector stays the same elements, however it is shaped.
    Ok(Outcome::new(data.dtype, Some(dims))
        .with_items(data.items.filter(|_| items.len() <= 1).map(<[_]>::to_vec)))
}

fn check_sizes(data: &Known<'_>, dims: &[Dim]) -> Result<(), Error> {
    let Some(have) = data.n_elements() else { return Ok(()) };
    let want = dims.iter().try_fold(1usize, |product, dim| product.checked_mul(dim.fixed()?));
    match want {
        Some(want) if want != have => {
            let (from, to) = (show(data.dims), show(Some(dims)));
            Err(Error::invalid(format!("Reshape of {have} elements {from} to {to}")))
        }
        _ => Ok(()),
    }
}

/// The size of the dimension that -1 stands for.
fn remaining(data: &Known<'_>, dims: &[Dim], open: usize) -> Result<Dim, Error> {
    let Some(mut from) = data.dims.map(<[_]>::to_vec) else { return Ok(Dim::Unknown) };
    let mut to: Vec<Dim> =
        dims.iter().enumerate().filter(|(at, _)| *at != open).map(|(_, d)| d.clone()).collect();
    // Names that stand on both sides cancel.
    to.retain(|dim| match from.iter().position(|other| matches!(dim, Dim::Symbol(_)) && other == dim) {
        Some(at) => {
            from.remove(at);
            false
        }
        None => true,
    });
    let product = |dims: &[Dim]| dims.iter().try_fold(1usize, |p, dim| p.checked_mul(dim.fixed()?));
    let Some(below) = product(&to) else { return Ok(Dim::Unknown) };
    match product(&from) {
        Some(_) if below == 0 => Ok(Dim::Unknown),
        Some(above) if above % below == 0 => Ok(Dim::Fixed(above / below)),
        Some(above) => Err(Error::invalid(format!("Reshape of {above} elements by {below}"))),
        None => {
            let fixed: usize = from.iter().filter_map(Dim::fixed).product();
            let open: Vec<&Dim> = from.iter().filter(|dim| dim.fixed().is_none()).collect();
            match open.as_slice() {
                [one] if fixed == below => Ok((*one).clone()),
                _ => Ok(Dim::Unknown),
            }
        }
    }
}

fn flatten(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let data = asked.input(0)?;
    let Some(dims) = data.dims else {
        return Ok(Outcome::new(data.dtype, Some(vec![Dim::Unknown; 2])));
    };
    let axis = asked.attributes.int("axis", 1)?;
    let rank = i64::try_from(dims.len()).unwrap_or(i64::MAX);
    let axis = usize_of(if axis < 0 { axis + rank } else { axis }).filter(|&at| at <= dims.len());
    let axis = axis.ok_or_else(|| Error::invalid("the axis of Flatten is out of range"))?;
    let join = |dims: &[Dim]| match dims {
        [one] => one.clone(),
        _ => dims.iter().try_fold(1usize, |p, d| p.checked_mul(d.fixed()?)).map_or(Dim::Unknown, Dim::Fixed),
    };
    Ok(Outcome::new(data.dtype, Some(vec![join(&dims[..axis]), join(&dims[axis..])])))
}

/// The axes of `Squeeze` and `Unsqueeze`: an input.
fn axes(asked: &Asked<'_>) -> Option<Option<Vec<i64>>> {
    match asked.optional(1) {
        None => Some(None),
        Some(axes) => axes.ints().map(Some),
    }
}

fn squeeze(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let data = asked.input(0)?;
    let (Some(dims), Some(axes)) = (data.dims, axes(asked)) else {
        return Ok(Outcome::new(data.dtype, None));
    };
    let dims = match axes {
        None if dims.iter().all(|dim| dim.fixed().is_some()) => {
            Some(dims.iter().filter(|dim| **dim != Dim::Fixed(1)).cloned().collect())
        }
        None => None,
        Some(axes) => {
            let axes: Vec<usize> =
                axes.iter().map(|&axis| asked.axis(axis, dims.len())).collect::<Result<_, _>>()?;
            if let Some(&at) = axes.iter().find(|&&at| dims[at].fixed().is_some_and(|size| size != 1)) {
                let shape = show(Some(dims));
                return Err(Error::invalid(format!("Squeeze of dimension {at} of {shape}, expected size 1")));
            }
            Some((0..dims.len()).filter(|at| !axes.contains(at)).map(|at| dims[at].clone()).collect())
        }
    };
    Ok(Outcome::new(data.dtype, dims).with_items(data.items.map(<[_]>::to_vec)))
}

fn unsqueeze(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let data = asked.input(0)?;
    let (Some(dims), Some(Some(axes))) = (data.dims, axes(asked)) else {
        return Ok(Outcome::new(data.dtype, None));
    };
    let rank = dims.len() + axes.len();
    let axes: Vec<usize> = axes.iter().map(|&axis| asked.axis(axis, rank)).collect::<Result<_, _>>()?;
    let mut old = dims.iter().cloned();
    let dims: Vec<Dim> = (0..rank)
        .map(|at| if axes.contains(&at) { Dim::Fixed(1) } else { old.next().unwrap_or(Dim::Fixed(1)) })
        .collect();
    let items = data.items.filter(|_| rank <= 1).map(<[_]>::to_vec);
    Ok(Outcome::new(data.dtype, Some(dims)).with_items(items))
}

fn transpose(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let data = asked.input(0)?;
    let perm = asked.attributes.ints("perm")?;
    let dims = match (data.dims, perm) {
        (Some(dims), None) => Some(dims.iter().rev().cloned().collect()),
        (Some(dims), Some(perm)) => {
            let mut seen = vec![false; dims.len()];
            for &axis in perm {
                seen[asked.axis(axis, dims.len())?] = true;
            }
            if perm.len() != dims.len() || seen.contains(&false) {
                return Err(Error::invalid(format!("Transpose of {} by {perm:?}", show(Some(dims)))));
            }
            Some(
                perm.iter()
                    .map(|&axis| asked.axis(axis, dims.len()).map(|at| dims[at].clone()))
                    .collect::<Result<_, _>>()?,
            )
        }
        (None, Some(perm)) => Some(vec![Dim::Unknown; perm.len()]),
        (None, None) => None,
    };
    Ok(Outcome::new(data.dtype, dims))
}

fn concat(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let dtype = same_dtype(asked)?;
    let parts: Option<Vec<&[Dim]>> = asked.present().map(|part| part.dims).collect();
    let Some(parts) = parts else {
        let rank = asked.present().find_map(|part| part.rank());
        return Ok(Outcome::new(dtype, rank.map(|rank| vec![Dim::Unknown; rank])));
    };
    let rank = parts.first().map_or(0, |part| part.len());
    let axis = asked.axis(asked.attributes.int("axis", 0)?, rank)?;
    let mut dims: Vec<Dim> = parts.first().map_or(vec![], |part| part.to_vec());
    let mut length = Some(0usize);
    for part in &parts {
        let fits = part.len() == rank
            && (0..rank).filter(|&at| at != axis).all(|at| match (dims[at].fixed(), part[at].fixed()) {
                (Some(a), Some(b)) => a == b,
                _ => true,
            });
        if !fits {
            let (a, b) = (show(parts.first().copied()), show(Some(part)));
            return Err(Error::invalid(format!("Concat of {a} and {b} along axis {axis}")));
        }
        for at in (0..rank).filter(|&at| at != axis) {
            if dims[at].fixed().is_none() && part[at].fixed().is_some() {
                dims[at] = part[at].clone();
            }
        }
        length = length.and_then(|n| n.checked_add(part[axis].fixed()?));
    }
    if parts.len() > 1 {
        dims[axis] = length.map_or(Dim::Unknown, Dim::Fixed);
    }
    let items: Option<Vec<Vec<Item>>> = asked.present().map(|part| part.items.map(<[_]>::to_vec)).collect();
    let items = items.filter(|_| rank == 1).map(|items| items.concat());
    Ok(Outcome::new(dtype, Some(dims)).with_items(items))
}

fn split(asked: &Asked<'_>) -> Result<Vec<Outcome>, Error> {
    let data = asked.input(0)?;
    let Some(dims) = data.dims else { return Ok(vec![Outcome::new(data.dtype, None); asked.n_outputs]) };
    let axis = asked.axis(asked.attributes.int("axis", 0)?, dims.len())?;
    let sizes: Vec<Dim> = match asked.optional(1) {
        Some(sizes) => match sizes.items {
            Some(items) => items.iter().map(Dim::from).collect(),
            None => vec![Dim::Unknown; asked.n_outputs],
        },
        None => {
            let n = asked.n_outputs.max(1);
            match dims[axis].fixed() {
                // The last part is what is left, as operator set 18 has it.
                Some(size) => {
                    let part = size.div_ceil(n);
                    (0..n).map(|at| Dim::Fixed(part.min(size.saturating_sub(at * part)))).collect()
                }
                None => vec![Dim::Unknown; n],
            }
        }
    };
    if sizes.len() != asked.n_outputs {
        return Err(Error::invalid(format!(
            "Split into {} parts, expected {}",
            sizes.len(),
            asked.n_outputs
        )));
    }
    let outcome = |size: Dim| {
        let mut dims = dims.to_vec();
        dims[axis] = size;
        Outcome::new(data.dtype, Some(dims))
    };
    let mut outcomes: Vec<Outcome> = sizes.into_iter().map(outcome).collect();
    if let Some(items) = data.items.filter(|_| dims.len() == 1) {
        let mut rest = items;
        for outcome in &mut outcomes {
            let n = outcome.dims.as_ref().and_then(|dims| dims.first()?.fixed());
            let Some((part, more)) = n.and_then(|n| rest.split_at_checked(n)) else { break };
            outcome.items = Some(part.to_vec());
            rest = more;
        }
    }
    Ok(outcomes)
}

fn slice(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let data = asked.input(0)?;
    let Some(dims) = data.dims else { return Ok(Outcome::new(data.dtype, None)) };
    let (starts, ends) = (asked.input(1)?, asked.input(2)?);
    let n = starts.n_elements().or(ends.n_elements());
    let unknown = || Outcome::new(data.dtype, Some(vec![Dim::Unknown; dims.len()]));
    let axes = match asked.optional(3) {
        Some(axes) => axes.ints(),
        None => n.map(|n| (0..n as i64).collect()),
    };
    let Some(axes) = axes else { return Ok(unknown()) };
    let steps = match asked.optional(4) {
        Some(steps) => steps.ints(),
        None => Some(vec![1; axes.len()]),
    };
    let bound = |known: &Known<'_>, at: usize| match known.items.and_then(|items| items.get(at)) {
        Some(item) => item.clone(),
        None => known.ints().and_then(|ints| ints.get(at).copied()).map_or(Item::Unknown, Item::Int),
    };
    let mut out = dims.to_vec();
    for (at, &axis) in axes.iter().enumerate() {
        let axis = asked.axis(axis, dims.len())?;
        let step = steps.as_ref().and_then(|steps| steps.get(at).copied());
        out[axis] = sliced(&dims[axis], &bound(&starts, at), &bound(&ends, at), step);
    }
    let items = match (data.items, axes.as_slice(), steps.as_deref()) {
        (Some(items), [_], Some([step])) if dims.len() == 1 => {
            sliced_items(items, &bound(&starts, 0), &bound(&ends, 0), *step)
        }
        _ => None,
    };
    Ok(Outcome::new(data.dtype, Some(out)).with_items(items))
}

/// How many elements a slice of a dimension has.
fn sliced(dim: &Dim, start: &Item, end: &Item, step: Option<i64>) -> Dim {
    let (Some(step), Item::Int(start)) = (step.filter(|&step| step != 0), start) else { return Dim::Unknown };
    let whole_end = matches!(end, Item::Int(i64::MAX | 2_147_483_647))
        || matches!((end, dim), (Item::Dim(a), Dim::Symbol(b)) if a == b);
    match (dim.fixed(), end) {
        (Some(size), Item::Int(end)) => Dim::Fixed(range_of(size, *start, *end, step).count()),
        _ if *start == 0 && step == 1 && whole_end => dim.clone(),
        _ => Dim::Unknown,
    }
}

/// The positions that a slice takes.
fn range_of(size: usize, start: i64, end: i64, step: i64) -> impl Iterator<Item = usize> {
    let n = i128::try_from(size).unwrap_or(i128::MAX);
    let (start, end, step) = (i128::from(start), i128::from(end), i128::from(step));
    let wrap = |at: i128| if at < 0 { at + n } else { at };
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let first = wrap(start).clamp(low.max(0).min(high.max(0)), high.max(low));
    let last = if end < -n && step < 0 { -1 } else { wrap(end).clamp(low, high.max(low)) };
    let count = if step > 0 { (last - first + step - 1) / step } else { (first - last - step - 1) / -step };
    let count = count.max(0);
    (0..count).filter_map(move |at| usize::try_from(first + at * step).ok())
}

fn sliced_items(items: &[Item], start: &Item, end: &Item, step: i64) -> Option<Vec<Item>> {
    let (Item::Int(start), Item::Int(end)) = (start, end) else { return None };
    if step == 0 {
        return None;
    }
    range_of(items.len(), *start, *end, step).map(|at| items.get(at).cloned()).collect()
}

fn gather(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let (data, indices) = (asked.input(0)?, asked.input(1)?);
    let (Some(dims), Some(index_dims)) = (data.dims, indices.dims) else {
        return Ok(Outcome::new(data.dtype, None));
    };
    let axis = asked.axis(asked.attributes.int("axis", 0)?, dims.len())?;
    let mut out = dims[..axis].to_vec();
    out.extend_from_slice(index_dims);
    out.extend_from_slice(&dims[axis + 1..]);
    let items = data.items.filter(|_| dims.len() == 1 && index_dims.len() <= 1).and_then(|items| {
        let ints = indices.ints()?;
        let at = |&int: &i64| usize_of(if int < 0 { int + items.len() as i64 } else { int });
        ints.iter().map(|int| items.get(at(int)?).cloned()).collect()
    });
    Ok(Outcome::new(data.dtype, Some(out)).with_items(items))
}

fn gather_nd(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let (data, indices) = (asked.input(0)?, asked.input(1)?);
    let batch = usize_of(asked.attributes.int("batch_dims", 0)?).unwrap_or(0);
    let dims = match (data.dims, indices.dims) {
        (Some(dims), Some([outer @ .., Dim::Fixed(depth)])) if batch + depth <= dims.len() => {
            Some(outer.iter().chain(&dims[batch + depth..]).cloned().collect())
        }
        _ => None,
    };
    Ok(Outcome::new(data.dtype, dims))
}

fn tile(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let (data, repeats) = (asked.input(0)?, asked.input(1)?);
    let Some(dims) = data.dims else { return Ok(Outcome::new(data.dtype, None)) };
    let dim = |at: usize| match (&dims[at], repeats.items.and_then(|items| items.get(at))) {
        (dim, Some(Item::Int(1))) => dim.clone(),
        (Dim::Fixed(1), Some(item)) => Dim::from(item),
        (Dim::Fixed(size), Some(Item::Int(n))) => {
            usize_of(*n).and_then(|n| size.checked_mul(n)).map_or(Dim::Unknown, Dim::Fixed)
        }
        _ => Dim::Unknown,
    };
    Ok(Outcome::new(data.dtype, Some((0..dims.len()).map(dim).collect())))
}

fn pad(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let (data, pads) = (asked.input(0)?, asked.input(1)?);
    let Some(dims) = data.dims else { return Ok(Outcome::new(data.dtype, None)) };
    let Some(pads) = pads.ints() else {
        return Ok(Outcome::new(data.dtype, Some(vec![Dim::Unknown; dims.len()])));
    };
    let axes: Vec<usize> = match asked.optional(3) {
        None => (0..dims.len()).collect(),
        Some(axes) => match axes.ints() {
            Some(axes) => axes.iter().map(|&axis| asked.axis(axis, dims.len())).collect::<Result<_, _>>()?,
            None => return Ok(Outcome::new(data.dtype, Some(vec![Dim::Unknown; dims.len()]))),
        },
    };
    if pads.len() != 2 * axes.len() {
        let (n, want) = (pads.len(), 2 * axes.len());
        return Err(Error::invalid(format!("Pad with {n} sizes, expected {want}")));
    }
    let mut out = dims.to_vec();
    for (at, &axis) in axes.iter().enumerate() {
        let (before, after) = (pads[at], pads[at + axes.len()]);
        let padded = |size: usize| i64::try_from(size).ok()?.checked_add(before)?.checked_add(after);
        out[axis] = match &dims[axis] {
            dim if (before, after) == (0, 0) => dim.clone(),
            Dim::Fixed(size) => padded(*size).and_then(usize_of).map_or(Dim::Unknown, Dim::Fixed),
            _ => Dim::Unknown,
        };
    }
    Ok(Outcome::new(data.dtype, Some(out)))
}

fn range(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let dtype = same_dtype(asked)?;
    let int = |at: usize| asked.input(at).ok().and_then(|known| known.ints()?.first().copied());
    let item = |at: usize| asked.input(at).ok().and_then(|known| known.items?.first().cloned());
    let dim = match (int(0), int(1), int(2)) {
        (Some(start), Some(limit), Some(step)) if step != 0 => {
            let span = i128::from(limit) - i128::from(start);
            let step = i128::from(step);
            let n = if (span > 0) == (step > 0) { (span.abs() + step.abs() - 1) / step.abs() } else { 0 };
            usize::try_from(n).map_or(Dim::Unknown, Dim::Fixed)
        }
        (Some(0), None, Some(1)) => item(1).map_or(Dim::Unknown, |item| Dim::from(&item)),
        _ => Dim::Unknown,
    };
    Ok(Outcome::new(dtype, Some(vec![dim])))
}

fn one_hot(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let (indices, depth, values) = (asked.input(0)?, asked.input(1)?, asked.input(2)?);
    let Some(dims) = indices.dims else { return Ok(Outcome::new(values.dtype, None)) };
    let axis = asked.axis(asked.attributes.int("axis", -1)?, dims.len() + 1)?;
    let mut out = dims.to_vec();
    let depth = depth.ints().and_then(|ints| usize_of(*ints.first()?));
    out.insert(axis, depth.map_or(Dim::Unknown, Dim::Fixed));
    Ok(Outcome::new(values.dtype, Some(out)))
}

fn space(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let data = asked.input(0)?;
    let block = usize_of(asked.attributes.int("blocksize", 0)?).filter(|&block| block > 0);
    let block = block.ok_or_else(|| Error::invalid(format!("{} without blocksize", asked.op)))?;
    let Some([n, c, h, w]) = data.dims else {
        return Ok(Outcome::new(data.dtype, Some(vec![Dim::Unknown; 4])));
    };
    let fixed = |dim: &Dim, f: &dyn Fn(usize) -> Option<usize>| {
        dim.fixed().and_then(f).map_or(Dim::Unknown, Dim::Fixed)
    };
    let squared = block.saturating_mul(block);
    let (c, h, w) = if asked.op == "DepthToSpace" {
        let up = |x: usize| x.checked_mul(block);
        (fixed(c, &|x| Some(x / squared)), fixed(h, &up), fixed(w, &up))
    } else {
        let down = |x: usize| Some(x / block);
        (fixed(c, &|x| x.checked_mul(squared)), fixed(h, &down), fixed(w, &down))
    };
    Ok(Outcome::new(data.dtype, Some(vec![n.clone(), c, h, w])))
}

fn top_k(asked: &Asked<'_>) -> Result<Vec<Outcome>, Error> {
    let (data, k) = (asked.input(0)?, asked.input(1)?);
    let dims = match data.dims {
        None => None,
        Some(dims) => {
            let axis = asked.axis(asked.attributes.int("axis", -1)?, dims.len())?;
            let mut dims = dims.to_vec();
            let k = k.ints().and_then(|ints| usize_of(*ints.first()?));
            dims[axis] = k.map_or(Dim::Unknown, Dim::Fixed);
            Some(dims)
        }
    };
    Ok(vec![Outcome::new(data.dtype, dims.clone()), Outcome::new(DType::I64, dims)])
}
