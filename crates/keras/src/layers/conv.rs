//! Convolutions. Keras keeps channels last unless told otherwise, ONNX keeps them first: inputs and outputs are
//! transposed, and a pass over the graph takes out the pairs that cancel.

use salver_graph::{Attributes, Error, ValueId};

use crate::activation::Activation;
use crate::architecture::Layer;
use crate::attrs;
use crate::emit::Emit;
use crate::layers::cells::{Cell, ConvLstm, Gates};
use crate::network::Inputs;
use crate::weights::Weights;

/// How an input is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Padding {
    Valid,
    Same,
    Causal,
}

/// The options of a convolution.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    /// Spatial dimensions.
    n: usize,
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilation: Vec<usize>,
    padding: Padding,
    groups: usize,
    channels_last: bool,
}

impl Spec {
    fn read(layer: &Layer, n: usize) -> Result<Spec, Error> {
        let c = &layer.config;
        let padding = match c.text_or("padding", "valid")?.to_ascii_lowercase().as_str() {
            "valid" => Padding::Valid,
            "same" => Padding::Same,
            "causal" if n == 1 => Padding::Causal,
            other => {
                return Err(Error::invalid(format!(
                    "padding '{other}', expected 'valid', 'same' or 'causal'"
                )));
            }
        };
        Ok(Spec {
            n,
            kernel: c.sizes("kernel_size", n, None)?,
            strides: c.sizes("strides", n, Some(1))?,
            dilation: c.sizes("dilation_rate", n, Some(1))?,
            padding,
            groups: c.size_or("groups", 1)?,
            channels_last: c.channels_last()?,
        })
    }

    /// The kernel's extent with its gaps, along one dimension.
    fn extent(&self, at: usize) -> usize {
        (self.kernel[at] - 1).saturating_mul(self.dilation[at]).saturating_add(1)
    }

    fn attributes(&self, dims: &[Option<usize>]) -> Attributes {
        let ints = |sizes: &[usize]| sizes.iter().map(|&size| size as i64).collect::<Vec<i64>>();
        let mut attrs = attrs!(
            "kernel_shape": ints(&self.kernel), "strides": ints(&self.strides), "dilations": ints(&self.dilation),
        );
        let extents: Vec<usize> = (0..self.n).map(|at| self.extent(at)).collect();
        match self.padding {
            Padding::Valid => {}
            Padding::Causal => attrs.set("pads", vec![extents[0] as i64 - 1, 0]),
            Padding::Same => set_same(&mut attrs, &extents, &self.strides, dims),
        }
        attrs
    }

    fn channel_axis(&self) -> usize {
        if self.channels_last { self.n + 1 } else { 1 }
    }

    fn front(&self, cx: &mut Emit, x: ValueId) -> Result<ValueId, Error> {
        if self.channels_last { cx.channels_first(x) } else { Ok(x) }
    }

    fn back(&self, cx: &mut Emit, x: ValueId) -> Result<ValueId, Error> {
        if self.channels_last { cx.channels_last(x) } else { Ok(x) }
    }

    /// Convolves `x`, channels where the options say, with a kernel `[spatial, inputs, outputs]`.
    pub(super) fn apply(&self, cx: &mut Emit, x: ValueId, kernel: ValueId) -> Result<ValueId, Error> {
        let x = self.front(cx, x)?;
        let kernel = outputs_first(cx, kernel, self.n)?;
        let y = self.node(cx, x, kernel, None)?;
        self.back(cx, y)
    }

    fn node(
        &self,
        cx: &mut Emit,
        x: ValueId,
        kernel: ValueId,
        bias: Option<ValueId>,
    ) -> Result<ValueId, Error> {
        let dims = cx.dims(x)?;
        let attrs = self.attributes(&dims[2..]).with("group", self.groups as i64);
        let outputs = cx.ops("Conv", &[Some(x), Some(kernel), bias], attrs, 1)?;
        outputs.first().copied().ok_or_else(|| Error::invalid("a convolution without output"))
    }

    /// The size of one dimension of the output, where that of the input is known.
    fn output_size(&self, at: usize, size: Option<usize>) -> Option<usize> {
        let size = size?;
        Some(match self.padding {
            Padding::Valid => size.checked_sub(self.extent(at))? / self.strides[at] + 1,
            Padding::Same | Padding::Causal => size.div_ceil(self.strides[at]),
        })
    }
}

/// Pads so that the output has one element per stride, the odd one behind. Where a size is not known and the stride is
/// not 1, the engine has to compute that.
pub(super) fn set_same(attrs: &mut Attributes, extents: &[usize], strides: &[usize], dims: &[Option<usize>]) {
    let mut before = Vec::new();
    let mut behind = Vec::new();
    for (at, (&extent, &stride)) in extents.iter().zip(strides).enumerate() {
        let total = match dims.get(at).copied().flatten() {
            _ if stride == 1 => extent - 1,
            Some(size) => {
                ((size.div_ceil(stride).max(1) - 1) * stride).saturating_add(extent).saturating_sub(size)
            }
            None => {
                attrs.set("auto_pad", "SAME_UPPER");
                return;
            }
        };
        before.push((total / 2) as i64);
        behind.push((total - total / 2) as i64);
    }
    before.append(&mut behind);
    attrs.set("pads", before);
}

/// `[spatial, inputs, outputs]` as `[outputs, inputs, spatial]`.
fn outputs_first(cx: &mut Emit, kernel: ValueId, n: usize) -> Result<ValueId, Error> {
    let perm: Vec<usize> = [n + 1, n].into_iter().chain(0..n).collect();
    cx.transpose(kernel, &perm)
}

fn n_spatial(layer: &Layer) -> usize {
    match layer.class.as_bytes().iter().rev().find(|byte| byte.is_ascii_digit()) {
        Some(b'1') => 1,
        Some(b'3') => 3,
        _ => 2,
    }
}

/// The input in the layer's type, its channels, and the same with channels first.
fn input(cx: &mut Emit, layer: &Layer, spec: &Spec, inputs: &Inputs) -> Result<(ValueId, usize), Error> {
    let x = cx.float(inputs.one()?.id, layer.policy.compute)?;
    cx.expect_rank(x, spec.n + 2)?;
    let n_channels = cx.dim(x, spec.channel_axis())?;
    Ok((spec.front(cx, x)?, n_channels))
}

fn bias(cx: &mut Emit, layer: &Layer, weights: &Weights, n: usize) -> Result<Option<ValueId>, Error> {
    if !layer.config.flag("use_bias", true)? {
        return Ok(None);
    }
    cx.weight(weights.get("bias")?, "bias", &[n], layer.policy.compute).map(Some)
}

/// Activation and layout. What is computed element by element is computed before the channels go back.
fn finish(cx: &mut Emit, layer: &Layer, spec: &Spec, y: ValueId) -> Result<ValueId, Error> {
    let function = Activation::read(cx.keras, layer.config.json("activation"))?;
    if function.is_elementwise() {
        let y = function.apply(cx, y)?;
        return spec.back(cx, y);
    }
    let y = spec.back(cx, y)?;
    function.apply(cx, y)
}

fn kernel_dims(spec: &Spec, rest: [usize; 2]) -> Vec<usize> {
    spec.kernel.iter().copied().chain(rest).collect()
}

pub(super) fn convolution(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<ValueId, Error> {
    let spec = Spec::read(layer, n_spatial(layer))?;
    let n_filters = layer.config.size("filters")?;
    let (x, n_channels) = input(cx, layer, &spec, inputs)?;
    if n_channels % spec.groups != 0 || n_filters % spec.groups != 0 {
        return Err(Error::invalid(format!(
            "{n_channels} channels and {n_filters} filters in {} groups",
            spec.groups
        )));
    }
    let dims = kernel_dims(&spec, [n_channels / spec.groups, n_filters]);
    let kernel = cx.weight(weights.get("kernel")?, "kernel", &dims, layer.policy.compute)?;
    let kernel = outputs_first(cx, kernel, spec.n)?;
    let bias = bias(cx, layer, weights, n_filters)?;
    let y = spec.node(cx, x, kernel, bias)?;
    finish(cx, layer, &spec, y)
}

/// `[spatial, inputs, multiplier]` as ONNX's grouped kernel `[inputs * multiplier, 1, spatial]`.
fn depthwise_kernel(cx: &mut Emit, kernel: ValueId, spec: &Spec, n: usize) -> Result<ValueId, Error> {
    let perm: Vec<usize> = [spec.n, spec.n + 1].into_iter().chain(0..spec.n).collect();
    let kernel = cx.transpose(kernel, &perm)?;
    let dims: Vec<i64> =
        [n as i64, 1].into_iter().chain(spec.kernel.iter().map(|&size| size as i64)).collect();
    cx.reshape(kernel, &dims)
}

pub(super) fn depthwise(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<ValueId, Error> {
    let mut spec = Spec::read(layer, n_spatial(layer))?;
    let multiplier = layer.config.size_or("depth_multiplier", 1)?;
    let (x, n_channels) = input(cx, layer, &spec, inputs)?;
    let n_outputs = n_channels.saturating_mul(multiplier);
    spec.groups = n_channels;
    let dims = kernel_dims(&spec, [n_channels, multiplier]);
    let kernel = cx.weight(weights.get("kernel")?, "kernel", &dims, layer.policy.compute)?;
    let kernel = depthwise_kernel(cx, kernel, &spec, n_outputs)?;
    let bias = bias(cx, layer, weights, n_outputs)?;
    let y = spec.node(cx, x, kernel, bias)?;
    finish(cx, layer, &spec, y)
}

pub(super) fn separable(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<ValueId, Error> {
    let mut spec = Spec::read(layer, n_spatial(layer))?;
    let multiplier = layer.config.size_or("depth_multiplier", 1)?;
    let n_filters = layer.config.size("filters")?;
    let (x, n_channels) = input(cx, layer, &spec, inputs)?;
    let n_middle = n_channels.saturating_mul(multiplier);
    spec.groups = n_channels;
    let dims = kernel_dims(&spec, [n_channels, multiplier]);
    let deep =
        cx.weight(weights.get("depthwise_kernel")?, "depthwise_kernel", &dims, layer.policy.compute)?;
    let deep = depthwise_kernel(cx, deep, &spec, n_middle)?;
    let y = spec.node(cx, x, deep, None)?;
    let point = Spec {
        kernel: vec![1; spec.n],
        strides: vec![1; spec.n],
        dilation: vec![1; spec.n],
        padding: Padding::Valid,
        groups: 1,
        ..spec.clone()
    };
    let dims = kernel_dims(&point, [n_middle, n_filters]);
    let kernel =
        cx.weight(weights.get("pointwise_kernel")?, "pointwise_kernel", &dims, layer.policy.compute)?;
    let kernel = outputs_first(cx, kernel, spec.n)?;
    let bias = bias(cx, layer, weights, n_filters)?;
    let y = point.node(cx, y, kernel, bias)?;
    finish(cx, layer, &spec, y)
}

/// The output is as large as the input of the convolution that this one undoes.
pub(super) fn transposed(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<ValueId, Error> {
    let spec = Spec::read(layer, n_spatial(layer))?;
    let n_filters = layer.config.size("filters")?;
    let (x, n_channels) = input(cx, layer, &spec, inputs)?;
    let dims = kernel_dims(&spec, [n_filters, n_channels]);
    let kernel = cx.weight(weights.get("kernel")?, "kernel", &dims, layer.policy.compute)?;
    // [spatial, outputs, inputs] as [inputs, outputs, spatial].
    let kernel = outputs_first(cx, kernel, spec.n)?;
    let bias = bias(cx, layer, weights, n_filters)?;
    let extra: Option<Vec<i64>> = match layer.config.opt_ints("output_padding")? {
        Some(one) if one.len() == 1 => Some(vec![one[0]; spec.n]),
        Some(all) if all.len() == spec.n => Some(all),
        Some(other) => {
            return Err(Error::invalid(format!(
                "output_padding has {} numbers, expected {}",
                other.len(),
                spec.n
            )));
        }
        None => None,
    };
    let (mut before, mut behind, mut more) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..spec.n {
        let (extent, stride) = (spec.extent(at) as i64, spec.strides[at] as i64);
        let given = extra.as_ref().map(|extra| extra[at]);
        // How much longer the whole result is than the output.
        let surplus = match spec.padding {
            Padding::Same => match given {
                None => extent - stride,
                Some(given) => extent - extent % 2 - given,
            },
            _ => -given.unwrap_or((stride - extent).max(0)),
        };
        let front = if spec.padding == Padding::Same { surplus.max(0) / 2 } else { 0 };
        let rest = surplus - front;
        before.push(front);
        behind.push(rest.max(0));
        more.push((-rest).max(0));
    }
    before.append(&mut behind);
    let ints = |sizes: &[usize]| sizes.iter().map(|&size| size as i64).collect::<Vec<i64>>();
    let attrs = attrs!(
        "kernel_shape": ints(&spec.kernel), "strides": ints(&spec.strides), "dilations": ints(&spec.dilation),
        "pads": before, "output_padding": more,
    );
    let outputs = cx.ops("ConvTranspose", &[Some(x), Some(kernel), bias], attrs, 1)?;
    let y = outputs.first().copied().ok_or_else(|| Error::invalid("a convolution without output"))?;
    finish(cx, layer, &spec, y)
}

/// The cell of a ConvLSTM over `[batch, steps, picture]`.
pub(super) fn lstm_cell(cx: &mut Emit, layer: &Layer, weights: &Weights, x: ValueId) -> Result<Cell, Error> {
    let c = &layer.config;
    let convolution = Spec::read(layer, n_spatial(layer))?;
    let n = convolution.n;
    cx.expect_rank(x, n + 3)?;
    let n_filters = c.size("filters")?;
    let n_channels = cx.dim(x, convolution.channel_axis() + 1)?;
    let wide = n_filters.saturating_mul(4);
    let dtype = layer.policy.compute;
    let kernel =
        cx.weight(weights.get("kernel")?, "kernel", &kernel_dims(&convolution, [n_channels, wide]), dtype)?;
    let dims = kernel_dims(&convolution, [n_filters, wide]);
    let recurrent_kernel = cx.weight(weights.get("recurrent_kernel")?, "recurrent_kernel", &dims, dtype)?;
    let bias = match bias(cx, layer, weights, wide)? {
        Some(bias) if !convolution.channels_last => {
            let dims: Vec<i64> = std::iter::once(wide as i64).chain(std::iter::repeat_n(1, n)).collect();
            Some(cx.reshape(bias, &dims)?)
        }
        other => other,
    };
    let dims = cx.dims(x)?;
    let first = if convolution.channels_last { 2 } else { 3 };
    let mut output_dims: Vec<Option<usize>> =
        (0..n).map(|at| convolution.output_size(at, dims[first + at])).collect();
    let axis = if convolution.channels_last { -1 } else { 1 };
    let channel_at = if convolution.channels_last { n } else { 0 };
    output_dims.insert(channel_at, Some(n_filters));
    let recurrent = Spec {
        strides: vec![1; n],
        dilation: vec![1; n],
        padding: Padding::Same,
        groups: 1,
        ..convolution.clone()
    };
    let gates = Gates {
        units: n_filters,
        kernel,
        recurrent: recurrent_kernel,
        bias,
        activation: Activation::read(cx.keras, c.json("activation"))?,
        gate: Activation::read(cx.keras, c.json("recurrent_activation"))?,
    };
    Ok(Cell::ConvLstm(Box::new(ConvLstm { gates, convolution, recurrent, output_dims, axis })))
}
