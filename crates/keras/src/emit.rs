//! Writing nodes: the graph's builder with the words that layers need.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use salver_graph::{Attributes, Builder, Dim, Error, SALVER, ValueId};
use salver_tensor::{DType, Shape, Tensor};

use crate::architecture::Keras;
use crate::weights::Variable;

/// The bound on the elements that a layer may give for one row of the batch.
pub(crate) const MAX_ROW: usize = 1 << 28;

/// The graph being made, and what every layer may ask for.
pub(crate) struct Emit {
    pub(crate) b: Builder,
    pub(crate) keras: Keras,
    /// Vocabularies by layer path.
    pub(crate) assets: BTreeMap<String, Bytes>,
    pub(crate) notes: Vec<String>,
    /// What layers keep from one call of the model to the next.
    pub(crate) kept: Vec<Kept>,
    /// Tensors that have lost their masks; see `layers::attention`.
    pub(crate) unmasked: HashSet<ValueId>,
    /// Calls of layers so far.
    pub(crate) n_calls: usize,
    scope: Vec<String>,
    constants: HashMap<usize, ValueId>,
}

/// A tensor that a layer keeps from one call of the model to the next.
pub(crate) struct Kept {
    /// The layer, with a number.
    pub(crate) name: String,
    /// What it is when the model is loaded.
    pub(crate) initial: Tensor,
    /// What it is before a call.
    pub(crate) before: ValueId,
    /// What it is after it.
    pub(crate) after: ValueId,
}

/// Attributes from pairs.
#[macro_export]
#[doc(hidden)]
macro_rules! attrs {
    ($($name:literal : $value:expr),* $(,)?) => {
        salver_graph::Attributes::new()$(.with($name, $value))*
    };
}

impl Emit {
    pub(crate) fn new(keras: Keras, assets: BTreeMap<String, Bytes>) -> Emit {
        let (scope, constants) = (Vec::new(), HashMap::new());
        Emit {
            b: Builder::new(),
            keras,
            assets,
            notes: Vec::new(),
            kept: Vec::new(),
            unmasked: HashSet::new(),
            n_calls: 0,
            scope,
            constants,
        }
    }

    /// Names nodes after a layer until [`Emit::leave`].
    pub(crate) fn enter(&mut self, name: &str) {
        self.scope.push(name.to_owned());
    }

    pub(crate) fn leave(&mut self) {
        self.scope.pop();
    }

    /// The name of what is being called.
    pub(crate) fn place(&self) -> String {
        self.scope.join("/")
    }

    fn name(&self, op: &str) -> String {
        let mut name = self.scope.join("/");
        if !name.is_empty() {
            name.push('/');
        }
        name.push_str(op);
        name
    }

    // Nodes.

    pub(crate) fn op(&mut self, op: &str, inputs: &[ValueId]) -> Result<ValueId, Error> {
        self.op_with(op, inputs, Attributes::new())
    }

    pub(crate) fn op_with(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attrs: Attributes,
    ) -> Result<ValueId, Error> {
        let name = self.name(op);
        self.b.op(&name, op, inputs, attrs)
    }

    pub(crate) fn ops(
        &mut self,
        op: &str,
        inputs: &[Option<ValueId>],
        attrs: Attributes,
        n_outputs: usize,
    ) -> Result<Vec<ValueId>, Error> {
        let name = self.name(op);
        self.b.ops(&name, "", op, inputs, attrs, n_outputs)
    }

    /// Nodes of the domain `salver`.
    pub(crate) fn salver(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attrs: Attributes,
        n_outputs: usize,
    ) -> Result<Vec<ValueId>, Error> {
        let name = self.name(op);
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        self.b.ops(&name, SALVER, op, &inputs, attrs, n_outputs)
    }

    pub(crate) fn salver_one(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attrs: Attributes,
    ) -> Result<ValueId, Error> {
        let outputs = self.salver(op, inputs, attrs, 1)?;
        outputs.first().copied().ok_or_else(|| Error::invalid(format!("{op} without output")))
    }

    /// A loop over `count`; see [`Builder::with_blocks`].
    pub(crate) fn with_blocks(
        &mut self,
        op: &str,
        inputs: &[Option<ValueId>],
        blocks: Vec<(&str, salver_graph::Block)>,
        n_outputs: usize,
    ) -> Result<Vec<ValueId>, Error> {
        let name = self.name(op);
        self.b.with_blocks(&name, op, inputs, Attributes::new(), blocks, n_outputs)
    }

    // Constants.

    /// A layer's variable; asked for again, it is the same value.
    pub(crate) fn variable(&mut self, variable: &Variable, name: &str) -> ValueId {
        if let Some(id) = self.constants.get(&variable.id) {
            return *id;
        }
        let name = self.name(name);
        let id = self.b.constant(&name, variable.tensor.clone());
        self.constants.insert(variable.id, id);
        id
    }

    /// A variable of the expected dimensions in the layer's element type.
    pub(crate) fn weight(
        &mut self,
        variable: &Variable,
        name: &str,
        dims: &[usize],
        dtype: DType,
    ) -> Result<ValueId, Error> {
        let shape = variable.tensor.shape();
        if shape.dims() != dims {
            let expected = Shape::new(dims).map_err(|error| Error::too_large(error.to_string()))?;
            return Err(Error::invalid(format!(
                "weights '{name}' have the shape {shape}, expected {expected}"
            )));
        }
        let id = self.variable(variable, name);
        self.cast(id, dtype)
    }

    pub(crate) fn tensor(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let name = self.name(name);
        self.b.constant(&name, tensor)
    }

    /// Constant numbers of an element type.
    pub(crate) fn floats(
        &mut self,
        name: &str,
        dims: &[usize],
        values: Vec<f64>,
        dtype: DType,
    ) -> Result<ValueId, Error> {
        let shape = Shape::new(dims).map_err(|error| Error::too_large(error.to_string()))?;
        let tensor = match dtype {
            DType::F32 => {
                Tensor::from_vec(shape, values.into_iter().map(|value| value as f32).collect::<Vec<_>>())
            }
            _ => Tensor::from_vec(shape, values),
        };
        let id = self.tensor(name, tensor.map_err(|error| Error::invalid(error.to_string()))?);
        self.cast(id, dtype)
    }

    pub(crate) fn ints(&mut self, values: &[i64]) -> ValueId {
        self.b.i64s(values)
    }

    pub(crate) fn int(&mut self, value: i64) -> ValueId {
        self.b.i64(value)
    }

    /// A scalar of the element type of `like`.
    pub(crate) fn scalar(&mut self, value: f64, like: ValueId) -> Result<ValueId, Error> {
        self.b.scalar(value, like)
    }

    pub(crate) fn text(&mut self, value: &str) -> Result<ValueId, Error> {
        let tensor = Tensor::from_strings(Shape::scalar(), vec![Bytes::copy_from_slice(value.as_bytes())]);
        Ok(self.tensor("text", tensor.map_err(|error| Error::invalid(error.to_string()))?))
    }

    // What is known.

    pub(crate) fn dtype(&self, x: ValueId) -> DType {
        self.b.dtype(x)
    }

    pub(crate) fn rank(&self, x: ValueId) -> Result<usize, Error> {
        self.b.rank(x).ok_or_else(|| Error::invalid("the number of dimensions of the input is not known"))
    }

    /// The dimensions, as far as they are known.
    pub(crate) fn dims(&self, x: ValueId) -> Result<Vec<Option<usize>>, Error> {
        let dims = self
            .b
            .dims(x)
            .ok_or_else(|| Error::invalid("the number of dimensions of the input is not known"))?;
        Ok(dims.iter().map(Dim::fixed).collect())
    }

    /// One dimension, which must be known.
    pub(crate) fn dim(&self, x: ValueId, axis: usize) -> Result<usize, Error> {
        let dims = self.dims(x)?;
        let dim = dims.get(axis).ok_or_else(|| {
            Error::invalid(format!("the input has {} dimensions, expected at least {}", dims.len(), axis + 1))
        })?;
        dim.ok_or_else(|| {
            Error::invalid(format!(
                "dimension {axis} of the input must be known, its shape is {}",
                show(&dims)
            ))
        })
    }

    /// Refuses a result of which one row has more than [`MAX_ROW`] elements. Open dimensions count as 1, and so does
    /// a fixed first dimension that is the `batch`.
    pub(crate) fn bounded(&self, x: ValueId, batch: Option<usize>) -> Result<(), Error> {
        let Some(dims) = self.b.dims(x) else { return Ok(()) };
        let dims: Vec<Option<usize>> = dims.iter().map(Dim::fixed).collect();
        let row = match dims.split_first() {
            Some((first, rest)) if *first == batch => rest,
            _ => &dims,
        };
        let n = row.iter().try_fold(1usize, |product, dim| product.checked_mul(dim.unwrap_or(1)));
        if n.is_some_and(|n| n <= MAX_ROW) {
            return Ok(());
        }
        Err(Error::too_large(format!(
            "one row of the result, of the shape {}, has more than {MAX_ROW} elements",
            show(&dims)
        )))
    }

    pub(crate) fn last_dim(&self, x: ValueId) -> Result<usize, Error> {
        let rank = self.rank(x)?;
        self.dim(x, rank.checked_sub(1).ok_or_else(|| Error::invalid("the input is a scalar"))?)
    }

    pub(crate) fn expect_rank(&self, x: ValueId, rank: usize) -> Result<(), Error> {
        let dims = self.dims(x)?;
        if dims.len() == rank {
            return Ok(());
        }
        Err(Error::invalid(format!("the input has the shape {}, expected {rank} dimensions", show(&dims))))
    }

    /// An axis counted from the front.
    pub(crate) fn axis(&self, x: ValueId, axis: i64) -> Result<usize, Error> {
        let rank = self.rank(x)?;
        front_axis(axis, rank)
    }

    // Words.

    pub(crate) fn cast(&mut self, x: ValueId, dtype: DType) -> Result<ValueId, Error> {
        if self.dtype(x) == dtype {
            return Ok(x);
        }
        self.op_with("Cast", &[x], attrs!("to": dtype))
    }

    /// The value as a float of a layer's element type: Keras casts floats, and computes integers as floats where it
    /// has to.
    pub(crate) fn float(&mut self, x: ValueId, dtype: DType) -> Result<ValueId, Error> {
        if self.dtype(x) == DType::String {
            return Err(Error::invalid("the input is text, expected numbers"));
        }
        self.cast(x, dtype)
    }

    pub(crate) fn add(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, Error> {
        self.op("Add", &[a, b])
    }

    pub(crate) fn sub(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, Error> {
        self.op("Sub", &[a, b])
    }

    pub(crate) fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, Error> {
        self.op("Mul", &[a, b])
    }

    pub(crate) fn div(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, Error> {
        self.op("Div", &[a, b])
    }

    /// `x` with a number: `op` is a binary operator.
    pub(crate) fn with(&mut self, op: &str, x: ValueId, number: f64) -> Result<ValueId, Error> {
        let number = self.scalar(number, x)?;
        self.op(op, &[x, number])
    }

    pub(crate) fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Result<ValueId, Error> {
        if perm.iter().enumerate().all(|(at, &axis)| at == axis) {
            return Ok(x);
        }
        let perm: Vec<i64> = perm.iter().map(|&axis| axis as i64).collect();
        self.op_with("Transpose", &[x], attrs!("perm": perm))
    }

    /// `[batch, ..., channels]` to `[batch, channels, ...]`.
    pub(crate) fn channels_first(&mut self, x: ValueId) -> Result<ValueId, Error> {
        let rank = self.rank(x)?;
        let perm: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        self.transpose(x, &perm)
    }

    /// `[batch, channels, ...]` to `[batch, ..., channels]`.
    pub(crate) fn channels_last(&mut self, x: ValueId) -> Result<ValueId, Error> {
        let rank = self.rank(x)?;
        let perm: Vec<usize> = std::iter::once(0).chain(2..rank).chain([1]).collect();
        self.transpose(x, &perm)
    }

    /// A dimension of 0 stays as it is, one of -1 is what is left.
    pub(crate) fn reshape(&mut self, x: ValueId, dims: &[i64]) -> Result<ValueId, Error> {
        let dims = self.ints(dims);
        self.op("Reshape", &[x, dims])
    }

    pub(crate) fn unsqueeze(&mut self, x: ValueId, axes: &[i64]) -> Result<ValueId, Error> {
        let axes = self.ints(axes);
        self.op("Unsqueeze", &[x, axes])
    }

    pub(crate) fn squeeze(&mut self, x: ValueId, axes: &[i64]) -> Result<ValueId, Error> {
        let axes = self.ints(axes);
        self.op("Squeeze", &[x, axes])
    }

    /// `start..end` along an axis in steps; `i64::MAX` is the end, `i64::MIN` the front for a negative step.
    pub(crate) fn slice(
        &mut self,
        x: ValueId,
        axis: usize,
        start: i64,
        end: i64,
        step: i64,
    ) -> Result<ValueId, Error> {
        let inputs = [start, end, axis as i64, step].map(|value| self.ints(&[value]));
        self.op("Slice", &[x, inputs[0], inputs[1], inputs[2], inputs[3]])
    }

    pub(crate) fn reverse(&mut self, x: ValueId, axis: usize) -> Result<ValueId, Error> {
        self.slice(x, axis, -1, i64::MIN, -1)
    }

    pub(crate) fn concat(&mut self, parts: &[ValueId], axis: i64) -> Result<ValueId, Error> {
        if let [only] = parts {
            return Ok(*only);
        }
        self.op_with("Concat", parts, attrs!("axis": axis))
    }

    /// `n` equal parts.
    pub(crate) fn split(&mut self, x: ValueId, axis: i64, n: usize) -> Result<Vec<ValueId>, Error> {
        if n == 1 {
            return Ok(vec![x]);
        }
        let n_outputs = i64::try_from(n).map_err(|_| Error::too_large("too many parts"))?;
        self.ops("Split", &[Some(x)], attrs!("axis": axis, "num_outputs": n_outputs), n)
    }

    /// `op` is `ReduceSum`, `ReduceMean` or another such operator.
    pub(crate) fn reduce(
        &mut self,
        op: &str,
        x: ValueId,
        axes: &[i64],
        keep: bool,
    ) -> Result<ValueId, Error> {
        let axes = self.ints(axes);
        self.op_with(op, &[x, axes], attrs!("keepdims": i64::from(keep)))
    }

    pub(crate) fn softmax(&mut self, x: ValueId, axis: i64) -> Result<ValueId, Error> {
        self.op_with("Softmax", &[x], attrs!("axis": axis))
    }

    pub(crate) fn select(&mut self, condition: ValueId, yes: ValueId, no: ValueId) -> Result<ValueId, Error> {
        self.op("Where", &[condition, yes, no])
    }

    /// `x` where the condition holds, else 0.
    pub(crate) fn keep_where(&mut self, condition: ValueId, x: ValueId) -> Result<ValueId, Error> {
        let zero = self.scalar(0.0, x)?;
        self.select(condition, x, zero)
    }

    /// The sizes of all dimensions as int64.
    pub(crate) fn shape(&mut self, x: ValueId) -> Result<ValueId, Error> {
        self.op("Shape", &[x])
    }

    /// The size of one dimension as a vector of one int64.
    pub(crate) fn size(&mut self, x: ValueId, axis: usize) -> Result<ValueId, Error> {
        let axis = axis as i64;
        self.op_with("Shape", &[x], attrs!("start": axis, "end": axis + 1))
    }

    /// Constant `value` of the element type of `like`, of computed dimensions.
    pub(crate) fn filled(&mut self, dims: ValueId, value: f64, like: ValueId) -> Result<ValueId, Error> {
        let value = self.scalar(value, like)?;
        self.op("Expand", &[value, dims])
    }

    /// `0..n` as int64, `n` a vector of one.
    pub(crate) fn range(&mut self, n: ValueId) -> Result<ValueId, Error> {
        let n = self.squeeze(n, &[0])?;
        let (zero, one) = (self.int(0), self.int(1));
        self.op("Range", &[zero, n, one])
    }
}

/// An axis counted from the front.
pub(crate) fn front_axis(axis: i64, rank: usize) -> Result<usize, Error> {
    let front = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    usize::try_from(front)
        .ok()
        .filter(|&front| front < rank)
        .ok_or_else(|| Error::invalid(format!("axis {axis} of an input with {rank} dimensions")))
}

pub(crate) fn show(dims: &[Option<usize>]) -> String {
    salver_tensor::Dims::new(dims.to_vec()).to_string()
}
