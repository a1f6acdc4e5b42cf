//! Convolutions, also transposed, and what re-arranges space for them.

use salver_graph::{Attributes, Item, ValueId};

use super::context::{Context, Layout, Outputs};
use super::norm::fused_steps;
use super::table::{Entry, noted, plain};
use crate::Error;

pub(super) const OPS: &[Entry] = &[
    noted("BatchToSpace", "constant crops", |c| {
        let block = c.node.int("block_size", 0)?;
        batch_to_space(c, &[block, block], 1)
    }),
    noted("BatchToSpaceND", "constant block shape", |c| {
        let block = c.ints(c.input(1)?, "the block shape")?;
        batch_to_space(c, &block, 2)
    }),
    plain("Conv2D", |c| Ok(vec![conv(c, 2)?])),
    plain("Conv3D", |c| Ok(vec![conv(c, 3)?])),
    plain("Conv2DBackpropInput", |c| conv_transpose(c, 2)),
    plain("Conv3DBackpropInputV2", |c| conv_transpose(c, 3)),
    plain("DepthToSpace", depth_to_space),
    plain("DepthwiseConv2dNative", |c| Ok(vec![depthwise(c)?])),
    plain("ExtractImagePatches", extract_patches),
    noted("SpaceToBatch", "constant block size", |c| {
        let block = c.node.int("block_size", 0)?;
        space_to_batch(c, &[block, block], 1)
    }),
    noted("SpaceToBatchND", "constant block shape", |c| {
        let block = c.ints(c.input(1)?, "the block shape")?;
        space_to_batch(c, &block, 2)
    }),
    plain("SpaceToDepth", space_to_depth),
    noted("_FusedConv2D", "with BiasAdd or FusedBatchNorm and an activation", |c| {
        let y = conv(c, 2)?;
        Ok(vec![fused_steps(c, y, 4)?])
    }),
    noted("_FusedDepthwiseConv2dNative", "with BiasAdd or FusedBatchNorm and an activation", |c| {
        let y = depthwise(c)?;
        Ok(vec![fused_steps(c, y, 4)?])
    }),
];

/// How a window of `n` spatial dimensions moves.
pub(super) struct Window {
    pub(super) kernel: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
}

impl Window {
    /// The elements that the window reaches over.
    fn reach(&self, at: usize) -> usize {
        (self.kernel[at] - 1).saturating_mul(self.dilations[at]).saturating_add(1)
    }
}

/// The sizes that an attribute gives for the spatial dimensions; those for batch and channels must be 1.
pub(super) fn spatial(
    c: &Context<'_>,
    name: &str,
    n: usize,
    layout: Layout,
    given: &[i64],
) -> Result<Vec<usize>, Error> {
    if given.is_empty() {
        return Ok(vec![1; n]);
    }
    // Some writers give one number for all.
    let wrong =
        || Error::unsupported(format!("{name} is {given:?} for {n} spatial dimensions of {}", c.node.op));
    let sizes = match (given.len() == n + 2, layout) {
        (true, Layout::ChannelsLast) if given[0] == 1 && given[n + 1] == 1 => &given[1..=n],
        (true, Layout::ChannelsFirst) if given[0] == 1 && given[1] == 1 => &given[2..],
        _ => return Err(wrong()),
    };
    let size = |&size: &i64| {
        usize::try_from(size).ok().filter(|&size| (1..=1 << 24).contains(&size)).ok_or_else(wrong)
    };
    sizes.iter().map(size).collect()
}

fn spatial_attribute(c: &Context<'_>, name: &str, n: usize, layout: Layout) -> Result<Vec<usize>, Error> {
    spatial(c, name, n, layout, c.node.ints(name)?.unwrap_or_default())
}

/// What padding to write for data with channels second.
pub(super) enum Pads {
    /// All before, then all after.
    Explicit(Vec<i64>),
    /// TensorFlow's rule, for sizes that are not known at import.
    SameUpper,
}

impl Pads {
    pub(super) fn write(self, attributes: Attributes) -> Attributes {
        match self {
            Pads::Explicit(pads) => attributes.with("pads", pads),
            Pads::SameUpper => attributes.with("auto_pad", "SAME_UPPER"),
        }
    }
}

/// The padding of TensorFlow's rules. SAME: as much as makes ceil(size / stride) positions, the odd one behind.
pub(super) fn pads(c: &Context<'_>, x: ValueId, window: &Window, layout: Layout) -> Result<Pads, Error> {
    let n = window.kernel.len();
    match c.node.text("padding", "VALID")? {
        "VALID" => Ok(Pads::Explicit(vec![0; 2 * n])),
        "EXPLICIT" => {
            let given = c.node.ints("explicit_paddings")?.unwrap_or_default();
            if given.len() != 2 * (n + 2) || given.iter().any(|&pad| pad < 0) {
                return Err(Error::invalid(format!("explicit_paddings are {given:?}")));
            }
            let first = if layout == Layout::ChannelsLast { 1 } else { 2 };
            let before = (0..n).map(|at| given[2 * (at + first)]);
            let after = (0..n).map(|at| given[2 * (at + first) + 1]);
            Ok(Pads::Explicit(before.chain(after).collect()))
        }
        "SAME" => {
            let (mut before, mut after) = (Vec::new(), Vec::new());
            for at in 0..n {
                let (reach, stride) = (window.reach(at), window.strides[at]);
                let axis = at + if layout == Layout::ChannelsLast { 1 } else { 2 };
                let total = match (c.fixed(x, axis), stride) {
                    (_, 1) => reach - 1,
                    (Some(size), _) => {
                        let covered = size
                            .div_ceil(stride)
                            .saturating_sub(1)
                            .saturating_mul(stride)
                            .saturating_add(reach);
                        covered.saturating_sub(size)
                    }
                    (None, _) => return Ok(Pads::SameUpper),
                };
                before.push((total / 2) as i64);
                after.push((total - total / 2) as i64);
            }
            before.extend(after);
            Ok(Pads::Explicit(before))
        }
        other => Err(Error::invalid(format!("padding is '{other}'"))),
    }
}

fn ints(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|&size| size as i64).collect()
}

/// The sizes of a filter, which must be known.
fn filter_dims(c: &Context<'_>, filter: ValueId, n: usize) -> Result<Vec<usize>, Error> {
    let dims: Option<Vec<usize>> = c.dims(filter)?.iter().map(salver_graph::Dim::fixed).collect();
    let dims = dims.ok_or_else(|| Error::unsupported("a filter of open size"))?;
    if dims.len() != n + 2 || dims.contains(&0) {
        return Err(Error::invalid(format!("a filter of shape {dims:?} for {n} spatial dimensions")));
    }
    Ok(dims)
}

fn window_attributes(window: &Window, pads: Pads, groups: usize) -> Attributes {
    let attributes = Attributes::new()
        .with("kernel_shape", ints(&window.kernel))
        .with("strides", ints(&window.strides))
        .with("dilations", ints(&window.dilations))
        .with("group", groups as i64);
    pads.write(attributes)
}

fn conv(c: &mut Context<'_>, n: usize) -> Result<ValueId, Error> {
    let (x, filter) = (c.input(0)?, c.input(1)?);
    let layout = c.layout()?;
    let dims = filter_dims(c, filter, n)?;
    let window = Window {
        kernel: dims[..n].to_vec(),
        strides: spatial_attribute(c, "strides", n, layout)?,
        dilations: spatial_attribute(c, "dilations", n, layout)?,
    };
    let channels = c.fixed(x, if layout == Layout::ChannelsLast { n + 1 } else { 1 });
    let groups = match channels {
        Some(channels) if channels % dims[n] == 0 => channels / dims[n],
        Some(channels) => {
            return Err(Error::invalid(format!("{channels} channels by a filter of shape {dims:?}")));
        }
        None => 1,
    };
    let pads = pads(c, x, &window, layout)?;
    // From [.., in, out] to [out, in, ..].
    let perm: Vec<usize> = [n + 1, n].into_iter().chain(0..n).collect();
    let weights = c.transpose(filter, &perm)?;
    let data = c.channels_to_front(x, layout, n + 2)?;
    let y = c.with("Conv", &[data, weights], window_attributes(&window, pads, groups))?;
    c.channels_to_back(y, layout, n + 2)
}

fn depthwise(c: &mut Context<'_>) -> Result<ValueId, Error> {
    let (x, filter) = (c.input(0)?, c.input(1)?);
    let layout = c.layout()?;
    let dims = filter_dims(c, filter, 2)?;
    let window = Window {
        kernel: dims[..2].to_vec(),
        strides: spatial_attribute(c, "strides", 2, layout)?,
        dilations: spatial_attribute(c, "dilations", 2, layout)?,
    };
    let (channels, times) = (dims[2], dims[3]);
    let pads = pads(c, x, &window, layout)?;
    // From [h, w, channels, times] to [channels * times, 1, h, w].
    let weights = c.transpose(filter, &[2, 3, 0, 1])?;
    let weights = c.reshape(weights, &[(channels * times) as i64, 1, dims[0] as i64, dims[1] as i64])?;
    let data = c.channels_to_front(x, layout, 4)?;
    let y = c.with("Conv", &[data, weights], window_attributes(&window, pads, channels))?;
    c.channels_to_back(y, layout, 4)
}

/// The gradient of a convolution by its input: the output has the size that the first input says, and the padding is
/// that which the convolution would have had on it.
fn conv_transpose(c: &mut Context<'_>, n: usize) -> Outputs {
    let (sizes, filter, y) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let layout = c.layout()?;
    let dims = filter_dims(c, filter, n)?;
    let window = Window {
        kernel: dims[..n].to_vec(),
        strides: spatial_attribute(c, "strides", n, layout)?,
        dilations: spatial_attribute(c, "dilations", n, layout)?,
    };
    let first = if layout == Layout::ChannelsLast { 1 } else { 2 };
    let items = c.items(sizes).unwrap_or_default();
    // Newer models give the spatial sizes only.
    let offset = if items.len() == n { 0 } else { first };
    // From [.., out, in] to [in, out, ..], where "in" is what comes in here.
    let perm: Vec<usize> = [n + 1, n].into_iter().chain(0..n).collect();
    let weights = c.transpose(filter, &perm)?;
    let data = c.channels_to_front(y, layout, n + 2)?;
    let groups = match c.fixed(y, if layout == Layout::ChannelsLast { n + 1 } else { 1 }) {
        Some(channels) if channels == dims[n + 1] => 1,
        Some(channels) => {
            return Err(Error::unsupported(format!("{channels} channels by a filter of shape {dims:?}")));
        }
        None => 1,
    };
    let known: Option<Vec<(usize, usize)>> = (0..n)
        .map(|at| match items.get(at + offset) {
            Some(Item::Int(size)) => Some((usize::try_from(*size).ok()?, c.fixed(y, at + first)?)),
            _ => None,
        })
        .collect();
    let out = match known {
        Some(known) => {
            let (pads, extra) = transposed_pads(c, &window, &known)?;
            let attributes =
                window_attributes(&window, Pads::Explicit(pads), groups).with("output_padding", extra);
            c.with("ConvTranspose", &[data, weights], attributes)?
        }
        None => {
            let attributes = window_attributes(&window, Pads::Explicit(vec![0; 2 * n]), groups);
            let full =
                c.with("ConvTranspose", &[data, weights], attributes.with("output_padding", vec![0; n]))?;
            fit(c, full, sizes, offset, n)?
        }
    };
    Ok(vec![c.channels_to_back(out, layout, n + 2)?])
}

/// Padding and output padding for sizes (of the result, of what comes in) that are known.
fn transposed_pads(
    c: &Context<'_>,
    window: &Window,
    sizes: &[(usize, usize)],
) -> Result<(Vec<i64>, Vec<i64>), Error> {
    let n = sizes.len();
    let padding = c.node.text("padding", "VALID")?;
    let given = c.node.ints("explicit_paddings")?.unwrap_or_default();
    let first = if c.layout()? == Layout::ChannelsLast { 1 } else { 2 };
    let (mut before, mut after, mut extra) = (Vec::new(), Vec::new(), Vec::new());
    for (at, &(size, from)) in sizes.iter().enumerate() {
        let full = from.saturating_sub(1).saturating_mul(window.strides[at]).saturating_add(window.reach(at));
        let (front, back) = match padding {
            "EXPLICIT" if given.len() == 2 * (n + 2) => {
                let pair = (given[2 * (at + first)], given[2 * (at + first) + 1]);
                let pad = |pad: i64| usize::try_from(pad).map_err(|_| Error::invalid("a negative padding"));
                (pad(pair.0)?, pad(pair.1)?)
            }
            "SAME" => {
                let total = full.saturating_sub(size);
                (total / 2, total - total / 2)
            }
            _ => (0, 0),
        };
        let kept = full.saturating_sub(front + back);
        let missing = size
            .checked_sub(kept)
            .filter(|&missing| missing < window.strides[at].max(window.dilations[at]).max(2));
        let missing = missing.ok_or_else(|| {
            Error::invalid(format!(
                "a transposed convolution from {from} to {size} elements with stride {}",
                window.strides[at]
            ))
        })?;
        before.push(front as i64);
        after.push(back as i64);
        extra.push(missing as i64);
    }
    before.extend(after);
    Ok((before, extra))
}

/// Cuts or pads the unpadded result to the size wanted, where sizes are computed by the graph.
fn fit(
    c: &mut Context<'_>,
    full: ValueId,
    sizes: ValueId,
    offset: usize,
    n: usize,
) -> Result<ValueId, Error> {
    let same = match c.node.text("padding", "VALID")? {
        "SAME" => true,
        "VALID" => false,
        other => {
            return Err(Error::unsupported(format!("padding '{other}' with sizes computed by the graph")));
        }
    };
    let sizes = c.as_i64_vector(sizes)?;
    let want = c.slice(sizes, 0, offset as i64, (offset + n) as i64)?;
    let have = c.with("Shape", &[full], Attributes::new().with("start", 2))?;
    let zeros = c.i64s(&vec![0; n]);
    let surplus = c.op("Sub", &[have, want])?;
    let missing = c.op("Neg", &[surplus])?;
    let missing = c.op("Max", &[missing, zeros])?;
    let pads = c.concat(&[zeros, missing], 0)?;
    let axes = c.i64s(&(2..n as i64 + 2).collect::<Vec<_>>());
    let zero = c.scalar(0.0, full)?;
    let padded = c.with("Pad", &[full, pads, zero, axes], Attributes::new().with("mode", "constant"))?;
    let start = if same {
        let surplus = c.op("Max", &[surplus, zeros])?;
        let two = c.i64s(&[2]);
        c.op("Div", &[surplus, two])?
    } else {
        zeros
    };
    let end = c.op("Add", &[start, want])?;
    c.op("Slice", &[padded, start, end, axes])
}

/// A piece of a shape that is put together.
enum Piece {
    Int(i64),
    /// A vector of one int64.
    Value(ValueId),
}

/// Reshapes to sizes of which one may be -1.
fn reshape_to(c: &mut Context<'_>, x: ValueId, pieces: &[Piece]) -> Result<ValueId, Error> {
    let parts: Vec<ValueId> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Int(int) => c.i64s(&[*int]),
            Piece::Value(value) => *value,
        })
        .collect();
    let shape = c.concat(&parts, 0)?;
    c.op("Reshape", &[x, shape])
}

/// The size of a dimension, or what a step makes of it where it is not known.
fn piece(
    c: &mut Context<'_>,
    x: ValueId,
    axis: usize,
    known: impl Fn(i64) -> i64,
    op: &str,
    by: i64,
) -> Result<Piece, Error> {
    if let Some(size) = c.fixed(x, axis) {
        return Ok(Piece::Int(known(i64::try_from(size).unwrap_or(i64::MAX))));
    }
    let size = c.size_at(x, axis)?;
    let by = c.i64s(&[by]);
    Ok(Piece::Value(c.op(op, &[size, by])?))
}

fn block_sizes(block: &[i64]) -> Result<(), Error> {
    match block.iter().all(|size| (1..=1 << 16).contains(size)) {
        true => Ok(()),
        false => Err(Error::invalid(format!("a block of {block:?}"))),
    }
}

fn space_to_batch(c: &mut Context<'_>, block: &[i64], paddings_at: usize) -> Outputs {
    let (x, paddings) = (c.input(0)?, c.input(paddings_at)?);
    block_sizes(block)?;
    let (m, rank) = (block.len(), c.rank(x)?);
    if rank < m + 1 {
        return Err(Error::invalid(format!("a block of {m} dimensions in data of {rank}")));
    }
    let paddings = c.as_i64(paddings)?;
    let turned = c.transpose(paddings, &[1, 0])?;
    let pads = c.reshape(turned, &[-1])?;
    let zero = c.scalar(0.0, x)?;
    let axes = c.i64s(&(1..=m as i64).collect::<Vec<_>>());
    let x = c.with("Pad", &[x, pads, zero, axes], Attributes::new().with("mode", "constant"))?;
    // [b, h/bh, bh, w/bw, bw, rest] -> [bh, bw, b, h/bh, w/bw, rest] -> [bh*bw*b, h/bh, w/bw, rest]
    let batch = piece(c, x, 0, |n| n, "Mul", 1)?;
    let (mut split, mut joined) = (vec![batch], vec![Piece::Int(-1)]);
    for (at, &size) in block.iter().enumerate() {
        split.push(piece(c, x, at + 1, |n| n / size, "Div", size)?);
        split.push(Piece::Int(size));
        joined.push(piece(c, x, at + 1, |n| n / size, "Div", size)?);
    }
    for axis in m + 1..rank {
        split.push(piece(c, x, axis, |n| n, "Mul", 1)?);
        joined.push(piece(c, x, axis, |n| n, "Mul", 1)?);
    }
    let split = reshape_to(c, x, &split)?;
    let blocks = (0..m).map(|at| 2 * at + 2);
    let sizes = (0..m).map(|at| 2 * at + 1);
    let perm: Vec<usize> = blocks.chain([0]).chain(sizes).chain(2 * m + 1..rank + m).collect();
    let turned = c.transpose(split, &perm)?;
    Ok(vec![reshape_to(c, turned, &joined)?])
}

fn batch_to_space(c: &mut Context<'_>, block: &[i64], crops_at: usize) -> Outputs {
    let (x, crops) = (c.input(0)?, c.input(crops_at)?);
    block_sizes(block)?;
    let (m, rank) = (block.len(), c.rank(x)?);
    if rank < m + 1 {
        return Err(Error::invalid(format!("a block of {m} dimensions in data of {rank}")));
    }
    // [bh, bw, b, h, w, rest] -> [b, h, bh, w, bw, rest] -> [b, h*bh, w*bw, rest]
    let mut split: Vec<Piece> = block.iter().map(|&size| Piece::Int(size)).collect();
    split.push(Piece::Int(-1));
    let mut joined = vec![Piece::Int(-1)];
    for (at, &size) in block.iter().enumerate() {
        split.push(piece(c, x, at + 1, |n| n, "Mul", 1)?);
        joined.push(piece(c, x, at + 1, |n| n.saturating_mul(size), "Mul", size)?);
    }
    for axis in m + 1..rank {
        split.push(piece(c, x, axis, |n| n, "Mul", 1)?);
        joined.push(piece(c, x, axis, |n| n, "Mul", 1)?);
    }
    let split = reshape_to(c, x, &split)?;
    let spread = (0..m).flat_map(|at| [m + 1 + at, at]);
    let perm: Vec<usize> = [m].into_iter().chain(spread).chain(2 * m + 1..rank + m).collect();
    let turned = c.transpose(split, &perm)?;
    let whole = reshape_to(c, turned, &joined)?;
    crop(c, whole, crops, m)
}

fn crop(c: &mut Context<'_>, x: ValueId, crops: ValueId, m: usize) -> Outputs {
    if c.known_ints(crops).is_some_and(|crops| crops.iter().all(|&crop| crop == 0)) {
        return Ok(vec![x]);
    }
    let crops = c.as_i64(crops)?;
    let (front, back) = (c.slice(crops, 1, 0, 1)?, c.slice(crops, 1, 1, 2)?);
    let (front, back) = (c.squeeze(front, &[1])?, c.squeeze(back, &[1])?);
    let size = c.with("Shape", &[x], Attributes::new().with("start", 1).with("end", m as i64 + 1))?;
    let end = c.op("Sub", &[size, back])?;
    let axes = c.i64s(&(1..=m as i64).collect::<Vec<_>>());
    Ok(vec![c.op("Slice", &[x, front, end, axes])?])
}

fn block_of(c: &Context<'_>) -> Result<i64, Error> {
    let block = c.node.int("block_size", 0)?;
    block_sizes(&[block])?;
    Ok(block)
}

fn space_to_depth(c: &mut Context<'_>) -> Outputs {
    let (x, layout, block) = (c.input(0)?, c.layout()?, block_of(c)?);
    if layout == Layout::ChannelsFirst {
        return Ok(vec![c.with("SpaceToDepth", &[x], Attributes::new().with("blocksize", block))?]);
    }
    let depth = channels(c, x)?;
    let (h, w) = (piece(c, x, 1, |n| n / block, "Div", block)?, piece(c, x, 2, |n| n / block, "Div", block)?);
    let split = [Piece::Int(-1), h, Piece::Int(block), w, Piece::Int(block), Piece::Int(depth)];
    let split = reshape_to(c, x, &split)?;
    let turned = c.transpose(split, &[0, 1, 3, 2, 4, 5])?;
    let (h, w) = (piece(c, x, 1, |n| n / block, "Div", block)?, piece(c, x, 2, |n| n / block, "Div", block)?);
    Ok(vec![reshape_to(c, turned, &[Piece::Int(-1), h, w, Piece::Int(depth * block * block)])?])
}

fn depth_to_space(c: &mut Context<'_>) -> Outputs {
    let (x, layout, block) = (c.input(0)?, c.layout()?, block_of(c)?);
    if layout == Layout::ChannelsFirst {
        let attributes = Attributes::new().with("blocksize", block).with("mode", "DCR");
        return Ok(vec![c.with("DepthToSpace", &[x], attributes)?]);
    }
    let depth = channels(c, x)? / (block * block);
    let (h, w) = (piece(c, x, 1, |n| n, "Mul", 1)?, piece(c, x, 2, |n| n, "Mul", 1)?);
    let split = [Piece::Int(-1), h, w, Piece::Int(block), Piece::Int(block), Piece::Int(depth)];
    let split = reshape_to(c, x, &split)?;
    let turned = c.transpose(split, &[0, 1, 3, 2, 4, 5])?;
    let up = |n: i64| n.saturating_mul(block);
    let (h, w) = (piece(c, x, 1, up, "Mul", block)?, piece(c, x, 2, up, "Mul", block)?);
    Ok(vec![reshape_to(c, turned, &[Piece::Int(-1), h, w, Piece::Int(depth)])?])
}

fn channels(c: &Context<'_>, x: ValueId) -> Result<i64, Error> {
    let depth = c.fixed(x, 3).and_then(|depth| i64::try_from(depth).ok());
    depth.ok_or_else(|| Error::unsupported("an open number of channels"))
}

/// More elements of an identity kernel than this are not made.
const MAX_IDENTITY: usize = 1 << 24;

/// A convolution whose filters each pick one element of the window: position first, then channel.
fn extract_patches(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let layout = Layout::ChannelsLast;
    let window = Window {
        kernel: spatial_attribute(c, "ksizes", 2, layout)?,
        strides: spatial_attribute(c, "strides", 2, layout)?,
        dilations: spatial_attribute(c, "rates", 2, layout)?,
    };
    let depth = usize::try_from(channels(c, x)?).unwrap_or(usize::MAX);
    let n = depth.saturating_mul(window.kernel[0]).saturating_mul(window.kernel[1]);
    if n.saturating_mul(n) > MAX_IDENTITY || !c.is_float(x) {
        return Err(Error::unsupported(format!("patches of {n} elements of type {}", c.dtype(x))));
    }
    let mut identity = vec![0f32; n * n];
    identity.iter_mut().step_by(n + 1).for_each(|element| *element = 1.0);
    let shape = salver_tensor::Shape::new(&[n, window.kernel[0], window.kernel[1], depth]);
    let tensor = shape.ok().and_then(|shape| salver_tensor::Tensor::from_vec(shape, identity).ok());
    let tensor = tensor.ok_or_else(|| Error::too_large("the kernel of patches"))?;
    let kernel = c.builder.constant("patches", tensor);
    let kernel = c.transpose(kernel, &[0, 3, 1, 2])?;
    let kernel = c.cast(kernel, c.dtype(x))?;
    let pads = pads(c, x, &window, layout)?;
    let data = c.channels_to_front(x, layout, 4)?;
    let y = c.with("Conv", &[data, kernel], window_attributes(&window, pads, 1))?;
    Ok(vec![c.channels_to_back(y, layout, 4)?])
}
