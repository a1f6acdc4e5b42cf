//! Operators that reduce, multiply, convolve and recur.

use salver_tensor::DType;

use super::{Asked, Known, Outcome, broadcast, same_dtype, show};
use crate::Error;
use crate::ir::{Dim, Item};

pub(super) fn infer(asked: &Asked<'_>) -> Result<Option<Vec<Outcome>>, Error> {
    let outcome = match asked.op {
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean"
        | "ReduceMin" | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => reduce(asked)?,
        "ArgMax" | "ArgMin" => {
            let data = asked.input(0)?;
            let axis = asked.attributes.int("axis", 0)?;
            Outcome::new(
                DType::I64,
                reduced(asked, &data, &[axis], asked.attributes.flag("keepdims", true)?)?,
            )
        }
        "MatMul" => matmul(asked)?,
        "Gemm" => gemm(asked)?,
        "Einsum" => einsum(asked)?,
        "Conv" => conv(asked)?,
        "ConvTranspose" => conv_transpose(asked)?,
        "MaxPool" | "AveragePool" | "LpPool" => {
            let outcome = pool(asked)?;
            let indices = Outcome::new(DType::I64, outcome.dims.clone());
            return Ok(Some(vec![outcome, indices]));
        }
        "GlobalAveragePool" | "GlobalMaxPool" => {
            let data = asked.input(0)?;
            let dims = data.dims.map(|dims| {
                let one = |(at, dim): (usize, &Dim)| if at < 2 { dim.clone() } else { Dim::Fixed(1) };
                dims.iter().enumerate().map(one).collect()
            });
            Outcome::new(data.dtype, dims)
        }
        "Resize" => resize(asked)?,
        "GRU" | "LSTM" | "RNN" => return recurrent(asked).map(Some),
        _ => return Ok(None),
    };
    Ok(Some(vec![outcome]))
}

fn usize_of(int: i64) -> Option<usize> {
    usize::try_from(int).ok()
}

/// The dimensions without the axes, or with size 1 there.
fn reduced(asked: &Asked<'_>, data: &Known<'_>, axes: &[i64], keep: bool) -> Result<Option<Vec<Dim>>, Error> {
    let Some(dims) = data.dims else { return Ok(None) };
    let axes: Vec<usize> = axes.iter().map(|&axis| asked.axis(axis, dims.len())).collect::<Result<_, _>>()?;
    let dim = |at: usize| match axes.contains(&at) {
        true if keep => Some(Dim::Fixed(1)),
        true => None,
        false => Some(dims[at].clone()),
    };
    Ok(Some((0..dims.len()).filter_map(dim).collect()))
}

fn reduce(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let data = asked.input(0)?;
    let keep = asked.attributes.flag("keepdims", true)?;
    let empty_is_none = asked.attributes.flag("noop_with_empty_axes", false)?;
    let all = || (0..data.rank().unwrap_or(0) as i64).collect::<Vec<_>>();
    let axes = match asked.optional(1).map(|axes| axes.ints()) {
        None if empty_is_none => Some(vec![]),
        None => Some(all()),
        Some(Some(axes)) if axes.is_empty() && !empty_is_none => Some(all()),
        Some(axes) => axes,
    };
    let dims = match axes {
        Some(axes) => reduced(asked, &data, &axes, keep)?,
        None => data.dims.filter(|_| keep).map(|dims| vec![Dim::Unknown; dims.len()]),
    };
    let to_scalar = dims.as_ref().is_some_and(Vec::is_empty);
    let items = data.items.filter(|_| to_scalar && asked.op == "ReduceProd").map(|items| {
        let int = |item: &Item| if let Item::Int(int) = item { Some(*int) } else { None };
        let product = items.iter().map(int).try_fold(1i64, |product, int| product.checked_mul(int?));
        vec![product.map_or(Item::Unknown, Item::Int)]
    });
    Ok(Outcome::new(data.dtype, dims).with_items(items))
}

fn matmul(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let dtype = same_dtype(asked)?;
    let (a, b) = (asked.input(0)?, asked.input(1)?);
    let (Some(x), Some(y)) = (a.dims, b.dims) else { return Ok(Outcome::new(dtype, None)) };
    let misfit = || Error::invalid(format!("MatMul of {} and {}", show(Some(x)), show(Some(y))));
    let (rows, inner_a, outer_a): (&[Dim], _, &[Dim]) = match x {
        [] => return Err(misfit()),
        [k] => (&[], k, &[]),
        [outer @ .., _, k] => (&x[x.len() - 2..x.len() - 1], k, outer),
    };
    let (columns, inner_b, outer_b): (&[Dim], _, &[Dim]) = match y {
        [] => return Err(misfit()),
        [k] => (&[], k, &[]),
        [outer @ .., k, _] => (&y[y.len() - 1..], k, outer),
    };
    if let (Some(k), Some(l)) = (inner_a.fixed(), inner_b.fixed())
        && k != l
    {
        return Err(misfit());
    }
    let mut dims = broadcast(Some(outer_a), Some(outer_b))?.unwrap_or_default();
    dims.extend_from_slice(rows);
    dims.extend_from_slice(columns);
    Ok(Outcome::new(dtype, Some(dims)))
}

fn gemm(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let (a, b) = (asked.input(0)?, asked.input(1)?);
    let pick = |known: &Known<'_>, turned: bool, at: usize| {
        known
            .dims
            .and_then(|dims| dims.get(if turned { 1 - at } else { at }))
            .cloned()
            .unwrap_or(Dim::Unknown)
    };
    let (turn_a, turn_b) = (asked.attributes.flag("transA", false)?, asked.attributes.flag("transB", false)?);
    let (k, l) = (pick(&a, turn_a, 1), pick(&b, turn_b, 0));
    if let (Some(k), Some(l)) = (k.fixed(), l.fixed())
        && k != l
    {
        return Err(Error::invalid(format!("Gemm of {} and {}", show(a.dims), show(b.dims))));
    }
    Ok(Outcome::new(a.dtype, Some(vec![pick(&a, turn_a, 0), pick(&b, turn_b, 1)])))
}

fn einsum(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let dtype = same_dtype(asked)?;
    let equation: String =
        asked.attributes.text("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let Some((terms, result)) = equation.split_once("->").filter(|_| !equation.contains('.')) else {
        return Ok(Outcome::new(dtype, None));
    };
    let mut sizes = std::collections::HashMap::new();
    for (term, input) in terms.split(',').zip(asked.present()) {
        let Some(dims) = input.dims else { continue };
        if term.chars().count() != dims.len() {
            let shape = show(Some(dims));
            return Err(Error::invalid(format!("Einsum '{equation}' of {shape} as '{term}'")));
        }
        for (letter, dim) in term.chars().zip(dims) {
            let known = sizes.entry(letter).or_insert_with(|| dim.clone());
            if known.fixed().is_none() || *known == Dim::Fixed(1) {
                *known = dim.clone();
            }
        }
    }
    let dims = result.chars().map(|letter| sizes.get(&letter).cloned().unwrap_or(Dim::Unknown)).collect();
    Ok(Outcome::new(dtype, Some(dims)))
}

/// The sizes of a window over spatial dimensions.
struct Window {
    kernel: Vec<Option<usize>>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    /// Before and after, by dimension; `None` where `auto_pad` says them.
    pads: Option<Vec<(i64, i64)>>,
    same: bool,
    ceil: bool,
}

impl Window {
    fn of(asked: &Asked<'_>, kernel: Vec<Option<usize>>) -> Result<Window, Error> {
        let rank = kernel.len();
        let sizes = |name: &str| -> Result<Vec<usize>, Error> {
            let Some(ints) = asked.attributes.ints(name)? else { return Ok(vec![1; rank]) };
            let sizes: Option<Vec<usize>> = ints.iter().map(|&n| usize_of(n).filter(|&n| n > 0)).collect();
            sizes.filter(|sizes| sizes.len() == rank).ok_or_else(|| {
                Error::invalid(format!("{name} of {} is {ints:?}, expected {rank} sizes", asked.op))
            })
        };
        let auto = asked.attributes.text("auto_pad", "NOTSET")?;
        let pads = match asked.attributes.ints("pads")? {
            _ if auto == "VALID" => Some(vec![(0, 0); rank]),
            _ if auto != "NOTSET" => None,
            None => Some(vec![(0, 0); rank]),
            Some(pads) if pads.len() == 2 * rank => {
                Some((0..rank).map(|at| (pads[at], pads[at + rank])).collect())
            }
            Some(pads) => {
                let want = 2 * rank;
                return Err(Error::invalid(format!("pads of {} are {pads:?}, expected {want}", asked.op)));
            }
        };
        Ok(Window {
            kernel,
            strides: sizes("strides")?,
            dilations: sizes("dilations")?,
            pads,
            same: auto.starts_with("SAME"),
            ceil: asked.attributes.flag("ceil_mode", false)?,
        })
    }

    /// How many positions the window has over a dimension.
    fn slide(&self, at: usize, dim: &Dim) -> Dim {
        let stride = self.strides[at];
        if stride == 1 && self.same {
            return dim.clone();
        }
        let Some(size) = dim.fixed() else {
            let kept = self.kernel[at] == Some(1) && stride == 1;
            let no_pads = self.pads.as_ref().is_some_and(|pads| pads[at] == (0, 0));
            return if kept && no_pads { dim.clone() } else { Dim::Unknown };
        };
        if self.same {
            return Dim::Fixed(size.div_ceil(stride));
        }
        let (Some(kernel), Some(pads)) = (self.kernel[at], &self.pads) else { return Dim::Unknown };
        let reach = (kernel.saturating_sub(1)).saturating_mul(self.dilations[at]).saturating_add(1);
        let padded = i128::try_from(size).unwrap_or(0) + i128::from(pads[at].0) + i128::from(pads[at].1);
        let room = padded - i128::try_from(reach).unwrap_or(i128::MAX);
        if room < 0 {
            return Dim::Fixed(0);
        }
        let stride = stride as i128;
        let mut n = if self.ceil { (room + stride - 1) / stride } else { room / stride } + 1;
        // The last window must start inside the data or the padding before it.
        if self.ceil && (n - 1) * stride >= size as i128 + i128::from(pads[at].0) {
            n -= 1;
        }
        usize::try_from(n).map_or(Dim::Unknown, Dim::Fixed)
    }
}

fn kernel_sizes(
    asked: &Asked<'_>,
    weights: Option<&Known<'_>>,
    rank: usize,
) -> Result<Vec<Option<usize>>, Error> {
    if let Some(shape) = asked.attributes.ints("kernel_shape")? {
        if shape.len() != rank {
            return Err(Error::invalid(format!("kernel_shape {shape:?}, expected {rank} sizes")));
        }
        return Ok(shape.iter().map(|&n| usize_of(n)).collect());
    }
    let dims = weights.and_then(|weights| weights.dims);
    Ok((0..rank).map(|at| dims.and_then(|dims| dims.get(at + 2)?.fixed())).collect())
}

fn conv(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let (data, weights) = (asked.input(0)?, asked.input(1)?);
    let rank = data.rank().or(weights.rank());
    let Some(rank) = rank.filter(|&rank| rank >= 3) else {
        let (a, b) = (show(data.dims), show(weights.dims));
        return match rank {
            None => Ok(Outcome::new(data.dtype, None)),
            Some(_) => Err(Error::invalid(format!("Conv of {a} by {b}, expected at least 3 dimensions"))),
        };
    };
    let unknown = vec![Dim::Unknown; rank];
    let (x, w) = (data.dims.unwrap_or(&unknown), weights.dims.unwrap_or(&unknown));
    let groups = usize_of(asked.attributes.int("group", 1)?).unwrap_or(1);
    let misfit = match (x[1].fixed(), w.get(1).and_then(Dim::fixed)) {
        (Some(channels), Some(per_group)) => per_group.checked_mul(groups) != Some(channels),
        _ => false,
    };
    if misfit || w.len() != rank {
        let (a, b) = (show(Some(x)), show(Some(w)));
        return Err(Error::invalid(format!("Conv of {a} by {b} in {groups} groups")));
    }
    let window = Window::of(asked, kernel_sizes(asked, Some(&weights), rank - 2)?)?;
    let mut dims = vec![x[0].clone(), w[0].clone()];
    dims.extend((0..rank - 2).map(|at| window.slide(at, &x[at + 2])));
    Ok(Outcome::new(data.dtype, Some(dims)))
}

fn conv_transpose(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let (data, weights) = (asked.input(0)?, asked.input(1)?);
    let (Some(x), Some(w)) = (data.dims, weights.dims) else { return Ok(Outcome::new(data.dtype, None)) };
    if x.len() < 3 || w.len() != x.len() {
        return Err(Error::invalid(format!("ConvTranspose of {} by {}", show(Some(x)), show(Some(w)))));
    }
    let rank = x.len() - 2;
    let groups = usize_of(asked.attributes.int("group", 1)?).unwrap_or(1);
    let window = Window::of(asked, kernel_sizes(asked, Some(&weights), rank)?)?;
    let channels = w[1].fixed().and_then(|n| n.checked_mul(groups)).map_or(Dim::Unknown, Dim::Fixed);
    let mut dims = vec![x[0].clone(), channels];
    let given = asked.attributes.ints("output_shape")?;
    let extra = asked.attributes.ints("output_padding")?;
    for at in 0..rank {
        if let Some(size) = given.and_then(|shape| shape.get(shape.len() - rank + at)) {
            dims.push(usize_of(*size).map_or(Dim::Unknown, Dim::Fixed));
            continue;
        }
        let size = (|| {
            let size = i64::try_from(x[at + 2].fixed()?).ok()?;
            let stride = i64::try_from(window.strides[at]).ok()?;
            if window.same {
                return usize_of(size.checked_mul(stride)?);
            }
            let kernel = i64::try_from(window.kernel[at]?).ok()?;
            let reach = (kernel - 1).checked_mul(i64::try_from(window.dilations[at]).ok()?)? + 1;
            let (before, after) = window.pads.as_ref()?[at];
            let extra = extra.and_then(|extra| extra.get(at).copied()).unwrap_or(0);
            usize_of((size - 1).checked_mul(stride)?.checked_add(reach)? + extra - before - after)
        })();
        dims.push(size.map_or(Dim::Unknown, Dim::Fixed));
    }
    Ok(Outcome::new(data.dtype, Some(dims)))
}

fn pool(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let data = asked.input(0)?;
    let Some(x) = data.dims else { return Ok(Outcome::new(data.dtype, None)) };
    if x.len() < 3 {
        let shape = show(Some(x));
        return Err(Error::invalid(format!("{} of {shape}, expected at least 3 dimensions", asked.op)));
    }
    let window = Window::of(asked, kernel_sizes(asked, None, x.len() - 2)?)?;
    let mut dims = x[..2].to_vec();
    dims.extend((0..x.len() - 2).map(|at| window.slide(at, &x[at + 2])));
    Ok(Outcome::new(data.dtype, Some(dims)))
}

fn resize(asked: &Asked<'_>) -> Result<Outcome, Error> {
    let data = asked.input(0)?;
    let Some(x) = data.dims else { return Ok(Outcome::new(data.dtype, None)) };
    let axes: Vec<usize> = match asked.attributes.ints("axes")? {
        Some(axes) => axes.iter().map(|&axis| asked.axis(axis, x.len())).collect::<Result<_, _>>()?,
        None => (0..x.len()).collect(),
    };
    let sizes = asked.optional(3);
    let scales = asked.optional(2).and_then(|scales| scales.constant?.to_slice::<f32>());
    let mut dims = x.to_vec();
    for (at, &axis) in axes.iter().enumerate() {
        let size = sizes.map(|sizes| match sizes.items.and_then(|items| items.get(at)) {
            Some(item) => Dim::from(item),
            None => Dim::Unknown,
        });
        let scaled = || match scales.as_ref().and_then(|scales| scales.get(at).copied()) {
            Some(1.0) => x[axis].clone(),
            // The product is exact in f64, and a size that large would be refused when it is used.
            Some(scale) => x[axis].fixed().map_or(Dim::Unknown, |n| {
                Dim::Fixed((n as f64 * f64::from(scale)).floor().clamp(0.0, 1e15) as usize)
            }),
            None => Dim::Unknown,
        };
        dims[axis] = size.unwrap_or_else(scaled);
    }
    Ok(Outcome::new(data.dtype, Some(dims)))
}

fn recurrent(asked: &Asked<'_>) -> Result<Vec<Outcome>, Error> {
    let data = asked.input(0)?;
    let directions = if asked.attributes.text("direction", "forward")? == "bidirectional" { 2 } else { 1 };
    let hidden = asked.attributes.int("hidden_size", 0)?;
    let hidden = usize_of(hidden).map_or(Dim::Unknown, Dim::Fixed);
    let dim = |at: usize| data.dims.and_then(|dims| dims.get(at)).cloned().unwrap_or(Dim::Unknown);
    // Layout 0: [steps, batch, features]; layout 1: [batch, steps, features].
    let batch_first = asked.attributes.flag("layout", false)?;
    let (steps, batch) = if batch_first { (dim(1), dim(0)) } else { (dim(0), dim(1)) };
    let n = Dim::Fixed(directions);
    let (all, last) = if batch_first {
        (vec![batch.clone(), steps, n.clone(), hidden.clone()], vec![batch, n, hidden])
    } else {
        (vec![steps, n.clone(), batch.clone(), hidden.clone()], vec![n, batch, hidden])
    };
    let state = Outcome::new(data.dtype, Some(last));
    Ok(vec![Outcome::new(data.dtype, Some(all)), state.clone(), state])
}
