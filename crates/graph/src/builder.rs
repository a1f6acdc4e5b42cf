//! Making a graph node by node, each checked, inferred and folded as it is added.

use std::collections::HashMap;

use salver_kernels::{self as kernels, Attributes};
use salver_tensor::{DType, Shape, Tensor};

use crate::infer::{self, Known, Outcome};
use crate::ir::{Block, Dim, Graph, Item, Node, Value, ValueId};
use crate::{Error, MAX_DEPTH};

/// A constant that folding makes is at most this large, unless what it is made of is larger.
const MAX_FOLDED_BYTES: usize = 1 << 26;

/// What folding adds to a graph beside what it is made of, together.
const MAX_GROWN_BYTES: usize = 1 << 28;

/// Integer tensors up to this many elements are followed element by element.
pub(crate) const MAX_ITEMS: usize = 64;

/// Makes a [`Graph`]. Values of blocks around a block may be used in it.
#[derive(Debug, Default)]
pub struct Builder {
    pub(crate) values: Vec<Value>,
    names: HashMap<String, usize>,
    pub(crate) blocks: Vec<Block>,
    /// Bytes that folding made beyond what it was made of.
    n_grown: usize,
}

impl Builder {
    /// An empty graph.
    pub fn new() -> Builder {
        Builder { blocks: vec![Block::default()], ..Builder::default() }
    }

    /// Goes on with the values of a graph, and an empty outermost block.
    pub(crate) fn resume(values: Vec<Value>) -> Builder {
        let names = values.iter().map(|value| (value.name.clone(), 0)).collect();
        Builder { values, names, blocks: vec![Block::default()], n_grown: 0 }
    }

    /// Adds an input of the graph. A name that is taken gets a number.
    ///
    /// # Panics
    /// Inside a block.
    pub fn input(&mut self, name: &str, dtype: DType, dims: Option<Vec<Dim>>) -> ValueId {
        assert_eq!(self.blocks.len(), 1, "graph inputs are made outside of blocks");
        self.block_input(name, dtype, dims)
    }

    /// Adds a constant. The tensor's memory is shared, not copied.
    pub fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let dims = tensor.shape().dims().iter().copied().map(Dim::Fixed).collect();
        let items = items_of(&tensor);
        let name = self.unique(name);
        self.push(Value { name, dtype: tensor.dtype(), dims: Some(dims), constant: Some(tensor), items })
    }

    /// A constant vector of int64.
    pub fn i64s(&mut self, values: &[i64]) -> ValueId {
        let shape = Shape::vector(values.len()).expect("a slice in memory has a length that fits");
        self.constant(
            "ints",
            Tensor::from_vec(shape, values.to_vec()).expect("as many elements as the shape"),
        )
    }

    /// A constant int64 scalar.
    pub fn i64(&mut self, value: i64) -> ValueId {
        self.constant("int", Tensor::from_vec(Shape::scalar(), vec![value]).expect("one element"))
    }

    /// A constant float32 scalar.
    pub fn f32(&mut self, value: f32) -> ValueId {
        self.constant("number", Tensor::from_vec(Shape::scalar(), vec![value]).expect("one element"))
    }

    /// A constant scalar of the element type of `like`, rounded to it.
    ///
    /// # Errors
    /// When that type has no numbers.
    pub fn scalar(&mut self, value: f64, like: ValueId) -> Result<ValueId, Error> {
        let number = Tensor::from_vec(Shape::scalar(), vec![value]).expect("one element");
        let attributes = Attributes::new().with("to", self.dtype(like));
        let cast = kernels::run("", "Cast", &attributes, &[Some(&number)], 1)?;
        let cast = cast.into_iter().next().ok_or_else(|| Error::invalid("a cast gave nothing"))?;
        Ok(self.constant("number", cast))
    }

    /// Adds a node of ONNX's own domain with one output.
    ///
    /// # Errors
    /// When the operator is not known, or inputs or attributes do not fit it; the error names the node.
    pub fn op(
        &mut self,
        name: &str,
        op: &str,
        inputs: &[ValueId],
        attributes: Attributes,
    ) -> Result<ValueId, Error> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        let outputs = self.ops(name, "", op, &inputs, attributes, 1)?;
        outputs.into_iter().next().ok_or_else(|| Error::invalid("an operator without output").at(place(name)))
    }

    /// Adds a node of any domain and number of outputs, unless it can be folded.
    ///
    /// # Errors
    /// As [`Builder::op`].
    pub fn ops(
        &mut self,
        name: &str,
        domain: &str,
        op: &str,
        inputs: &[Option<ValueId>],
        attributes: Attributes,
        n_outputs: usize,
    ) -> Result<Vec<ValueId>, Error> {
        if let Some(same) = self.no_change(domain, op, inputs, &attributes) {
            return Ok(vec![same]);
        }
        let node = Node {
            name: name.to_owned(),
            domain: domain.to_owned(),
            op: op.to_owned(),
            inputs: inputs.to_vec(),
            outputs: Vec::new(),
            attributes,
            blocks: Vec::new(),
        };
        self.add(node, n_outputs).map_err(|error| error.at(place(name)))
    }

    /// Adds a node with bodies (`Loop`: `body`; `If`: `then_branch`, `else_branch`; `Scan`: `body`).
    ///
    /// # Errors
    /// As [`Builder::op`].
    pub fn with_blocks(
        &mut self,
        name: &str,
        op: &str,
        inputs: &[Option<ValueId>],
        attributes: Attributes,
        blocks: Vec<(&str, Block)>,
        n_outputs: usize,
    ) -> Result<Vec<ValueId>, Error> {
        let node = Node {
            name: name.to_owned(),
            domain: String::new(),
            op: op.to_owned(),
            inputs: inputs.to_vec(),
            outputs: Vec::new(),
            attributes,
            blocks: blocks.into_iter().map(|(key, block)| (key.to_owned(), block)).collect(),
        };
        self.add(node, n_outputs).map_err(|error| error.at(place(name)))
    }

    /// Starts a block; what is added from here on is in it.
    ///
    /// # Errors
    /// When blocks nest too deep.
    pub fn begin_block(&mut self) -> Result<(), Error> {
        if self.blocks.len() > MAX_DEPTH {
            return Err(Error::too_large(format!("control flow nested more than {MAX_DEPTH} deep")));
        }
        self.blocks.push(Block::default());
        Ok(())
    }

    /// Adds an input of the innermost block.
    pub fn block_input(&mut self, name: &str, dtype: DType, dims: Option<Vec<Dim>>) -> ValueId {
        let name = self.unique(name);
        let id = self.push(Value { name, dtype, dims, constant: None, items: None });
        self.innermost().inputs.push(id);
        id
    }

    /// Ends the innermost block.
    ///
    /// # Panics
    /// Outside of blocks.
    pub fn end_block(&mut self, outputs: &[ValueId]) -> Block {
        assert!(self.blocks.len() > 1, "a block was begun");
        let mut block = self.blocks.pop().expect("a block was begun");
        block.outputs = outputs.to_vec();
        block
    }

    /// Drops the innermost block and what is in it, after an error.
    pub fn drop_block(&mut self) {
        if self.blocks.len() > 1 {
            self.blocks.pop();
        }
    }

    /// How many blocks are begun and not ended.
    pub fn depth(&self) -> usize {
        self.blocks.len() - 1
    }

    /// What is known of a value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// The element type.
    pub fn dtype(&self, id: ValueId) -> DType {
        self.value(id).dtype
    }

    /// The dimensions, if their number is known.
    pub fn dims(&self, id: ValueId) -> Option<&[Dim]> {
        self.value(id).dims.as_deref()
    }

    /// The number of dimensions, if it is known.
    pub fn rank(&self, id: ValueId) -> Option<usize> {
        self.dims(id).map(<[Dim]>::len)
    }

    /// The value itself, of a constant.
    pub fn constant_of(&self, id: ValueId) -> Option<&Tensor> {
        self.value(id).constant.as_ref()
    }

    /// The elements of a small integer vector or scalar, as far as they are known.
    pub fn items(&self, id: ValueId) -> Option<&[Item]> {
        self.value(id).items.as_deref()
    }

    /// The elements of a small integer vector or scalar, when all are known.
    pub fn known_ints(&self, id: ValueId) -> Option<Vec<i64>> {
        let item = |item: &Item| match item {
            Item::Int(value) => Some(*value),
            _ => None,
        };
        if let Some(items) = self.items(id) {
            return items.iter().map(item).collect();
        }
        self.constant_of(id).and_then(ints_of)
    }

    /// Replaces what is known of a value's dimensions by something that an importer knows better.
    pub fn set_dims(&mut self, id: ValueId, dims: Option<Vec<Dim>>) {
        self.values[id.index()].dims = dims;
    }

    /// The graph with these outputs. Nodes that none of them needs are left out.
    ///
    /// # Errors
    /// When a block was begun and not ended.
    pub fn finish(mut self, outputs: &[(&str, ValueId)]) -> Result<Graph, Error> {
        if self.blocks.len() != 1 {
            return Err(Error::invalid("a block was begun and not ended"));
        }
        let mut body = self.blocks.pop().unwrap_or_default();
        body.outputs = outputs.iter().map(|(_, id)| *id).collect();
        let output_names = outputs.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut graph = Graph { values: self.values, body, output_names };
        crate::passes::dead_code(&mut graph);
        Ok(graph)
    }

    fn innermost(&mut self) -> &mut Block {
        self.blocks.last_mut().expect("the outermost block is always there")
    }

    fn push(&mut self, value: Value) -> ValueId {
        let id = ValueId::new(self.values.len()).expect("a model in memory has fewer than 2^32 values");
        self.values.push(value);
        id
    }

    fn unique(&mut self, name: &str) -> String {
        let name = if name.is_empty() { "value" } else { name };
        let Some(mut n) = self.names.get(name).copied() else {
            self.names.insert(name.to_owned(), 0);
            return name.to_owned();
        };
        loop {
            n += 1;
            let candidate = format!("{name}.{n}");
            if !self.names.contains_key(&candidate) {
                self.names.insert(name.to_owned(), n);
                self.names.insert(candidate.clone(), 0);
                return candidate;
            }
        }
    }

    /// The input itself, for operators that change nothing.
    pub(crate) fn no_change(
        &self,
        domain: &str,
        op: &str,
        inputs: &[Option<ValueId>],
        attributes: &Attributes,
    ) -> Option<ValueId> {
        let first = inputs.first().copied().flatten().filter(|_| domain.is_empty())?;
        match op {
            "Identity" => Some(first),
            "Cast" => (attributes.dtype("to").ok()? == Some(self.dtype(first))).then_some(first),
            "Transpose" => {
                let perm = attributes.ints("perm").ok()??;
                perm.iter().enumerate().all(|(at, &axis)| usize::try_from(axis) == Ok(at)).then_some(first)
            }
            _ => None,
        }
    }

    fn known(&self, id: ValueId) -> Known<'_> {
        let value = self.value(id);
        Known {
            dtype: value.dtype,
            dims: value.dims.as_deref(),
            constant: value.constant.as_ref(),
            items: value.items.as_deref(),
        }
    }

    /// What can be said of the outputs of a node.
    pub(crate) fn infer(&self, node: &Node, n_outputs: usize) -> Result<Vec<Outcome>, Error> {
        let inputs: Vec<_> = node.inputs.iter().map(|id| id.map(|id| self.known(id))).collect();
        let blocks = node.blocks.iter();
        let blocks: Vec<_> = blocks
            .map(|(key, block)| {
                let known = |ids: &[ValueId]| ids.iter().map(|&id| self.known(id)).collect();
                infer::KnownBlock { key, inputs: known(&block.inputs), outputs: known(&block.outputs) }
            })
            .collect();
        infer::infer(&node.domain, &node.op, &node.attributes, &inputs, &blocks, n_outputs)
    }

    fn add(&mut self, mut node: Node, n_outputs: usize) -> Result<Vec<ValueId>, Error> {
        let outcomes = self.infer(&node, n_outputs)?;
        if let Some(constants) = self.fold(&node, &outcomes)? {
            return Ok(constants);
        }
        self.learn_rank(&node);
        for (at, outcome) in outcomes.into_iter().enumerate() {
            let name = if at == 0 { node.name.clone() } else { format!("{}:{at}", node.name) };
            let name = self.unique(&name);
            let Outcome { dtype, dims, items } = outcome;
            node.outputs.push(self.push(Value { name, dtype, dims, constant: None, items }));
        }
        let outputs = node.outputs.clone();
        self.innermost().nodes.push(node);
        Ok(outputs)
    }

    /// What is transposed has as many dimensions as the transposition has: so the shape of a placeholder that says none
    /// is known in part.
    fn learn_rank(&mut self, node: &Node) {
        let rank = node.attributes.ints("perm").ok().flatten().map(<[i64]>::len);
        // In a block it may be that it never runs.
        let is_sure = node.is("Transpose") && self.blocks.len() == 1;
        if let (true, Some(rank), Some(input)) = (is_sure, rank, node.input(0)) {
            let dims = &mut self.values[input.index()].dims;
            dims.get_or_insert_with(|| vec![Dim::Unknown; rank]);
        }
    }

    /// The outputs as constants, when they can be known and are not too large.
    pub(crate) fn fold(&mut self, node: &Node, outcomes: &[Outcome]) -> Result<Option<Vec<ValueId>>, Error> {
        if let [Outcome { dtype, dims: Some(dims), items: Some(items) }] = outcomes
            && let Some(tensor) = constant_items(*dtype, dims, items)
        {
            return Ok(Some(vec![self.constant(&node.name, tensor)]));
        }
        // Engines take the node together with the product behind it: that is what it is there for.
        let is_kept = node.is("DequantizeLinear") || !infer::is_pure(&node.domain, &node.op);
        if !node.blocks.is_empty() || is_kept {
            return Ok(None);
        }
        let mut inputs = Vec::with_capacity(node.inputs.len());
        let mut n_given = 0usize;
        for id in &node.inputs {
            let constant = id.map(|id| self.constant_of(id));
            if constant == Some(None) {
                return Ok(None);
            }
            let constant = constant.flatten();
            n_given = n_given.saturating_add(constant.map_or(0, Tensor::n_bytes));
            inputs.push(constant);
        }
        let n_left = MAX_GROWN_BYTES.saturating_sub(self.n_grown).min(MAX_FOLDED_BYTES);
        let expected: usize = outcomes.iter().filter_map(Outcome::n_bytes).fold(0, usize::saturating_add);
        if expected > n_given.max(n_left) {
            return Ok(None);
        }
        match kernels::run(&node.domain, &node.op, &node.attributes, &inputs, outcomes.len()) {
            Ok(tensors) => {
                let n_made: usize = tensors.iter().map(Tensor::n_bytes).sum();
                self.n_grown = self.n_grown.saturating_add(n_made.saturating_sub(n_given));
                let name = &node.name;
                Ok(Some(tensors.into_iter().map(|tensor| self.constant(name, tensor)).collect()))
            }
            // What cannot be computed here stays a node: an engine may have it.
            Err(error) if error.kind() == kernels::ErrorKind::Unsupported => Ok(None),
            Err(error) if error.kind() == kernels::ErrorKind::TooLarge => Ok(None),
            // In a block it may be that it never runs.
            Err(_) if self.blocks.len() > 1 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn place(name: &str) -> String {
    format!("node '{name}'")
}

fn ints_of(tensor: &Tensor) -> Option<Vec<i64>> {
    match tensor.dtype() {
        DType::I64 => tensor.to_slice::<i64>().map(|ints| ints.to_vec()),
        DType::I32 => tensor.to_slice::<i32>().map(|ints| ints.iter().map(|&int| int.into()).collect()),
        _ => None,
    }
}

/// The elements of a small integer scalar or vector.
pub(crate) fn items_of(tensor: &Tensor) -> Option<Vec<Item>> {
    let small = tensor.shape().rank() <= 1 && tensor.shape().n_elements() <= MAX_ITEMS;
    let ints = Some(tensor).filter(|_| small).and_then(ints_of)?;
    Some(ints.into_iter().map(Item::Int).collect())
}

/// The tensor of these elements, when all are known.
fn constant_items(dtype: DType, dims: &[Dim], items: &[Item]) -> Option<Tensor> {
    let ints: Option<Vec<i64>> = items
        .iter()
        .map(|item| match item {
            Item::Int(value) => Some(*value),
            _ => None,
        })
        .collect();
    let ints = ints?;
    let dims: Option<Vec<usize>> = dims.iter().map(Dim::fixed).collect();
    let shape = Shape::new(&dims?).ok().filter(|shape| shape.n_elements() == ints.len())?;
    match dtype {
        DType::I64 => Tensor::from_vec(shape, ints).ok(),
        DType::I32 => {
            let ints: Option<Vec<i32>> = ints.into_iter().map(|int| i32::try_from(int).ok()).collect();
            Tensor::from_vec(shape, ints?).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(rank: usize) -> Option<Vec<Dim>> {
        let mut dims = vec![Dim::symbol("batch")];
        dims.extend((1..rank).map(|at| Dim::Fixed(at + 1)));
        Some(dims)
    }

    #[test]
    fn shapes_that_are_computed_stay_names() {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, open(3));
        let shape = b.op("shape", "Shape", &[x], Attributes::new()).unwrap();
        let (zero, six) = (b.i64s(&[0]), b.i64s(&[6]));
        let batch = b.op("batch", "Gather", &[shape, zero], Attributes::new()).unwrap();
        let target = b.op("target", "Concat", &[batch, six], Attributes::new().with("axis", 0i64)).unwrap();
        let y = b.op("y", "Reshape", &[x, target], Attributes::new()).unwrap();
        assert_eq!(b.dims(y), Some(&[Dim::symbol("batch"), Dim::Fixed(6)][..]));
        let minus = b.i64s(&[-1, 3]);
        let z = b.op("z", "Reshape", &[y, minus], Attributes::new()).unwrap();
        assert_eq!(b.dims(z), Some(&[Dim::Unknown, Dim::Fixed(3)][..]));
    }

    #[test]
    fn a_fixed_dimension_is_a_constant() {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, open(3));
        let shape = b.op("shape", "Shape", &[x], Attributes::new()).unwrap();
        let two = b.i64s(&[2]);
        let last = b.op("last", "Gather", &[shape, two], Attributes::new()).unwrap();
        assert_eq!(b.known_ints(last), Some(vec![3]));
        let graph = b.finish(&[("last", last)]).unwrap();
        assert!(graph.body().nodes.is_empty());
        assert_eq!(
            graph.value(graph.body().outputs[0]).constant.as_ref().unwrap().to_slice::<i64>().unwrap(),
            [3].as_slice()
        );
    }

    #[test]
    fn a_transposition_tells_how_many_dimensions_there_are() {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, None);
        b.op("y", "Transpose", &[x], Attributes::new().with("perm", [0, 3, 1, 2])).unwrap();
        assert_eq!(b.dims(x), Some(&[const { Dim::Unknown }; 4][..]));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_node() {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, open(2));
        let y = b.input("y", DType::F32, Some(vec![Dim::Fixed(3), Dim::Fixed(1)]));
        let ints = b.i64s(&[1]);
        for (op, inputs, expected) in [
            ("MatMul", [x, y], "node 'n': MatMul of [batch,2] and [3,1]"),
            ("Add", [x, ints], "node 'n': Add of float32 and int64, expected one element type"),
            ("Frobnicate", [x, y], "node 'n': operator Frobnicate is not known"),
        ] {
            let error = b.op("n", op, &inputs, Attributes::new()).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
