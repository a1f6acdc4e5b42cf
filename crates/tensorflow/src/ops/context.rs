//! What a mapping works with: the builder, the node and its inputs, and the steps that many mappings take.

use salver_graph::{Attributes, Builder, Dim, Item, SALVER, ValueId};
use salver_tensor::{DType, Shape, Tensor};

use super::View;
use crate::Error;
use crate::read::Budget;

/// The outputs of a mapping.
pub(super) type Outputs = Result<Vec<ValueId>, Error>;

/// One node being mapped.
pub(super) struct Context<'a> {
    pub(super) builder: &'a mut Builder,
    pub(super) budget: &'a Budget,
    pub(super) node: &'a View<'a>,
    pub(super) inputs: &'a [ValueId],
}

impl Context<'_> {
    /// An input that must be there.
    pub(super) fn input(&self, at: usize) -> Result<ValueId, Error> {
        let n = self.inputs.len();
        self.inputs
            .get(at)
            .copied()
            .ok_or_else(|| Error::invalid(format!("{n} inputs, expected at least {}", at + 1)))
    }

    /// A node of ONNX's with one output and no attributes.
    pub(super) fn op(&mut self, op: &str, inputs: &[ValueId]) -> Result<ValueId, Error> {
        self.with(op, inputs, Attributes::new())
    }

    /// A node of ONNX's with one output.
    pub(super) fn with(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attributes: Attributes,
    ) -> Result<ValueId, Error> {
        self.builder.op(self.node.name, op, inputs, attributes)
    }

    /// A node of ONNX's with several outputs.
    pub(super) fn many(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attributes: Attributes,
        n_outputs: usize,
    ) -> Outputs {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        self.builder.ops(self.node.name, "", op, &inputs, attributes, n_outputs)
    }

    /// A node of the domain `salver`.
    pub(super) fn salver(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attributes: Attributes,
        n_outputs: usize,
    ) -> Outputs {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        self.builder.ops(self.node.name, SALVER, op, &inputs, attributes, n_outputs)
    }

    /// The same operator in ONNX, applied to all inputs.
    pub(super) fn same(&mut self, op: &str) -> Outputs {
        let inputs = self.inputs;
        Ok(vec![self.op(op, inputs)?])
    }

    /// The same operator in ONNX, applied to the first input.
    pub(super) fn unary(&mut self, op: &str) -> Outputs {
        let x = self.input(0)?;
        Ok(vec![self.op(op, &[x])?])
    }

    /// The same operator in ONNX, applied to two inputs.
    pub(super) fn binary(&mut self, op: &str) -> Outputs {
        let (a, b) = (self.input(0)?, self.input(1)?);
        Ok(vec![self.op(op, &[a, b])?])
    }

    pub(super) fn dtype(&self, id: ValueId) -> DType {
        self.builder.dtype(id)
    }

    pub(super) fn is_float(&self, id: ValueId) -> bool {
        matches!(self.dtype(id), DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// The number of dimensions, which must be known.
    pub(super) fn rank(&self, id: ValueId) -> Result<usize, Error> {
        self.builder.rank(id).ok_or_else(|| {
            Error::unsupported("the number of dimensions of an input is not known, and is needed")
        })
    }

    /// The dimensions, whose number must be known.
    pub(super) fn dims(&self, id: ValueId) -> Result<Vec<Dim>, Error> {
        self.rank(id)?;
        Ok(self.builder.dims(id).unwrap_or_default().to_vec())
    }

    /// The size of a dimension, if it is known.
    pub(super) fn fixed(&self, id: ValueId, axis: usize) -> Option<usize> {
        self.builder.dims(id).and_then(|dims| dims.get(axis)).and_then(Dim::fixed)
    }

    /// Integers that must be known at import.
    pub(super) fn ints(&self, id: ValueId, what: &str) -> Result<Vec<i64>, Error> {
        self.known_ints(id).ok_or_else(|| {
            Error::unsupported(format!("{what} is computed by the graph, expected a constant"))
        })
    }

    /// Integers, when they are known at import.
    pub(super) fn known_ints(&self, id: ValueId) -> Option<Vec<i64>> {
        self.builder.known_ints(id)
    }

    /// One integer that must be known at import.
    pub(super) fn int(&self, id: ValueId, what: &str) -> Result<i64, Error> {
        let ints = self.ints(id, what)?;
        match ints.as_slice() {
            [int] => Ok(*int),
            _ => Err(Error::invalid(format!("{what} has {} elements, expected 1", ints.len()))),
        }
    }

    /// The elements of a small integer tensor, as far as they are known.
    pub(super) fn items(&self, id: ValueId) -> Option<Vec<Item>> {
        if let Some(items) = self.builder.items(id) {
            return Some(items.to_vec());
        }
        self.known_ints(id).map(|ints| ints.into_iter().map(Item::Int).collect())
    }

    /// An axis between 0 and the rank, from one that may be negative.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize, Error> {
        let signed = i64::try_from(rank).unwrap_or(i64::MAX);
        let from_front = if axis < 0 { axis.checked_add(signed) } else { Some(axis) };
        let axis_ok = from_front.filter(|&at| at >= 0 && at < signed).and_then(|at| usize::try_from(at).ok());
        axis_ok.ok_or_else(|| Error::invalid(format!("axis {axis} of {rank} dimensions")))
    }

    /// Axes between 0 and the rank.
    pub(super) fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, Error> {
        axes.iter().map(|&axis| self.axis(axis, rank)).collect()
    }

    pub(super) fn i64s(&mut self, ints: &[i64]) -> ValueId {
        self.builder.i64s(ints)
    }

    /// A constant scalar of the element type of `like`.
    pub(super) fn scalar(&mut self, value: f64, like: ValueId) -> Result<ValueId, Error> {
        self.builder.scalar(value, like)
    }

    pub(super) fn cast(&mut self, id: ValueId, to: DType) -> Result<ValueId, Error> {
        self.with("Cast", &[id], Attributes::new().with("to", to))
    }

    /// As ONNX wants shapes and indices.
    pub(super) fn as_i64(&mut self, id: ValueId) -> Result<ValueId, Error> {
        self.cast(id, DType::I64)
    }

    /// As a vector of int64, from a scalar or a vector.
    pub(super) fn as_i64_vector(&mut self, id: ValueId) -> Result<ValueId, Error> {
        let id = self.as_i64(id)?;
        match self.builder.rank(id) {
            Some(1) => Ok(id),
            _ => self.reshape(id, &[-1]),
        }
    }

    pub(super) fn transpose(&mut self, id: ValueId, perm: &[usize]) -> Result<ValueId, Error> {
        let perm: Vec<i64> = perm.iter().map(|&axis| axis as i64).collect();
        self.with("Transpose", &[id], Attributes::new().with("perm", perm))
    }

    /// Sizes above 0, or -1 for what is left.
    pub(super) fn reshape(&mut self, id: ValueId, dims: &[i64]) -> Result<ValueId, Error> {
        let shape = self.i64s(dims);
        self.op("Reshape", &[id, shape])
    }

    pub(super) fn unsqueeze(&mut self, id: ValueId, axes: &[i64]) -> Result<ValueId, Error> {
        if axes.is_empty() {
            return Ok(id);
        }
        let axes = self.i64s(axes);
        self.op("Unsqueeze", &[id, axes])
    }

    pub(super) fn squeeze(&mut self, id: ValueId, axes: &[i64]) -> Result<ValueId, Error> {
        if axes.is_empty() {
            return Ok(id);
        }
        let axes = self.i64s(axes);
        self.op("Squeeze", &[id, axes])
    }

    pub(super) fn concat(&mut self, parts: &[ValueId], axis: i64) -> Result<ValueId, Error> {
        match parts {
            [one] => Ok(*one),
            _ => self.with("Concat", parts, Attributes::new().with("axis", axis)),
        }
    }

    /// Slices along one axis with step 1.
    pub(super) fn slice(&mut self, id: ValueId, axis: usize, start: i64, end: i64) -> Result<ValueId, Error> {
        let (starts, ends, axes) = (self.i64s(&[start]), self.i64s(&[end]), self.i64s(&[axis as i64]));
        self.op("Slice", &[id, starts, ends, axes])
    }

    /// Reverses the elements along axes.
    pub(super) fn reverse(&mut self, id: ValueId, axes: &[i64]) -> Result<ValueId, Error> {
        if axes.is_empty() {
            return Ok(id);
        }
        let n = axes.len();
        let (starts, ends) = (self.i64s(&vec![-1; n]), self.i64s(&vec![i64::MIN; n]));
        let (axes, steps) = (self.i64s(axes), self.i64s(&vec![-1; n]));
        self.op("Slice", &[id, starts, ends, axes, steps])
    }

    /// The shape as a vector of int64.
    pub(super) fn shape(&mut self, id: ValueId) -> Result<ValueId, Error> {
        self.op("Shape", &[id])
    }

    /// The size of one dimension as a vector of one int64.
    pub(super) fn size_at(&mut self, id: ValueId, axis: usize) -> Result<ValueId, Error> {
        let axis = axis as i64;
        self.with("Shape", &[id], Attributes::new().with("start", axis).with("end", axis + 1))
    }

    /// Zeros, or empty strings, of a shape given as a vector of int64.
    pub(super) fn zeros(&mut self, shape: ValueId, dtype: DType) -> Result<ValueId, Error> {
        let zero = zero(dtype)?;
        self.splat(zero, shape)
    }

    /// One constant element repeated to a shape given as a vector of int64.
    pub(super) fn splat(&mut self, element: Tensor, shape: ValueId) -> Result<ValueId, Error> {
        if element.dtype() == DType::String {
            let element = self.builder.constant("text", element);
            return self.op("Expand", &[element, shape]);
        }
        let one = Shape::vector(1).expect("1 is a length");
        let value = element.reshape(one).map_err(|error| Error::invalid(error.to_string()))?;
        self.with("ConstantOfShape", &[shape], Attributes::new().with("value", value))
    }

    /// What makes a vector of channels broadcast over data of this rank with channels in position 1.
    pub(super) fn channels_second(&mut self, id: ValueId, rank: usize) -> Result<ValueId, Error> {
        let axes: Vec<i64> = (1..rank as i64 - 1).collect();
        self.unsqueeze(id, &axes)
    }
}

/// A scalar 0, false or empty string.
pub(super) fn zero(dtype: DType) -> Result<Tensor, Error> {
    let made = match dtype.size() {
        None => Tensor::from_strings(Shape::scalar(), vec![bytes::Bytes::new()]),
        Some(size) => Tensor::from_bytes(dtype, Shape::scalar(), vec![0; size].into()),
    };
    made.map_err(|error| Error::invalid(error.to_string()))
}

/// The layout of data with channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Such as NHWC.
    ChannelsLast,
    /// Such as NCHW.
    ChannelsFirst,
}

impl Context<'_> {
    /// What the attribute `data_format` says.
    pub(super) fn layout(&self) -> Result<Layout, Error> {
        match self.node.text("data_format", "NHWC")? {
            "NHWC" | "NDHWC" | "NWC" => Ok(Layout::ChannelsLast),
            "NCHW" | "NCDHW" | "NCW" => Ok(Layout::ChannelsFirst),
            other => Err(Error::unsupported(format!("data_format is '{other}', expected NHWC or NCHW"))),
        }
    }

    /// The data with channels second.
    pub(super) fn channels_to_front(
        &mut self,
        id: ValueId,
        layout: Layout,
        rank: usize,
    ) -> Result<ValueId, Error> {
        if layout == Layout::ChannelsFirst {
            return Ok(id);
        }
        let perm: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        self.transpose(id, &perm)
    }

    /// The other way round.
    pub(super) fn channels_to_back(
        &mut self,
        id: ValueId,
        layout: Layout,
        rank: usize,
    ) -> Result<ValueId, Error> {
        if layout == Layout::ChannelsFirst {
            return Ok(id);
        }
        let perm: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
        self.transpose(id, &perm)
    }
}
