//! The graph: values in one arena, nodes in blocks.

use std::fmt;
use std::sync::Arc;

use salver_kernels::Attributes;
use salver_tensor::{DType, Dims, Tensor};

use crate::Error;

/// A value of one graph: an input, a constant or what a node computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

impl ValueId {
    pub(crate) fn new(index: usize) -> Result<ValueId, Error> {
        u32::try_from(index).map(ValueId).map_err(|_| Error::too_large("more than 2^32 values"))
    }

    /// The position in [`Graph::values`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One dimension.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Known at import.
    Fixed(usize),
    /// Not known, but equal wherever the same name stands.
    Symbol(Arc<str>),
    /// Not known.
    Unknown,
}

impl Dim {
    /// A named dimension.
    pub fn symbol(name: &str) -> Dim {
        Dim::Symbol(name.into())
    }

    /// The size, if it is known.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Dim::Fixed(size) => Some(*size),
            _ => None,
        }
    }

    /// Whether both are known to be the same size.
    pub fn is_same(&self, other: &Dim) -> bool {
        *self != Dim::Unknown && self == other
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(size) => write!(f, "{size}"),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// One element of a small integer tensor, as far as it is known at import: most of them are sizes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Item {
    /// Known.
    Int(i64),
    /// The size of the dimension of that name.
    Dim(Arc<str>),
    /// Not known.
    Unknown,
}

impl From<&Dim> for Item {
    fn from(dim: &Dim) -> Item {
        match dim {
            Dim::Fixed(size) => i64::try_from(*size).map_or(Item::Unknown, Item::Int),
            Dim::Symbol(name) => Item::Dim(name.clone()),
            Dim::Unknown => Item::Unknown,
        }
    }
}

impl From<&Item> for Dim {
    fn from(item: &Item) -> Dim {
        match item {
            Item::Int(value) => usize::try_from(*value).map_or(Dim::Unknown, Dim::Fixed),
            Item::Dim(name) => Dim::Symbol(name.clone()),
            Item::Unknown => Dim::Unknown,
        }
    }
}

/// What is known of a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Unique in the graph.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The dimensions, or `None` when even their number is unknown.
    pub dims: Option<Vec<Dim>>,
    /// The value itself, of a constant.
    pub constant: Option<Tensor>,
    /// The elements of a small integer tensor, as far as they are known.
    pub items: Option<Vec<Item>>,
}

/// One operator applied to values.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it comes from, for messages; not unique.
    pub name: String,
    /// `""` for ONNX's own operators, or [`crate::SALVER`].
    pub domain: String,
    /// The operator.
    pub op: String,
    /// Its inputs, `None` where an optional one is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Its outputs, all of them.
    pub outputs: Vec<ValueId>,
    /// Its constants.
    pub attributes: Attributes,
    /// Its bodies by attribute name, such as `body` of `Loop`. They may use values of the blocks around them.
    pub blocks: Vec<(String, Block)>,
}

impl Node {
    /// The operator with its domain: `Add`, `salver.ParseExample`.
    pub fn full_op(&self) -> String {
        if self.domain.is_empty() { self.op.clone() } else { format!("{}.{}", self.domain, self.op) }
    }

    /// Whether it is ONNX's operator of that name.
    pub fn is(&self, op: &str) -> bool {
        self.domain.is_empty() && self.op == op
    }

    /// The input at a position, if it is there.
    pub fn input(&self, at: usize) -> Option<ValueId> {
        self.inputs.get(at).copied().flatten()
    }

    /// The inputs that are there.
    pub fn present_inputs(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.inputs.iter().copied().flatten()
    }

    /// The block of that attribute name.
    pub fn block(&self, name: &str) -> Option<&Block> {
        self.blocks.iter().find(|(key, _)| key == name).map(|(_, block)| block)
    }
}

/// Nodes in an order in which they can be computed, with what goes in and comes out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Block {
    /// Values given from outside.
    pub inputs: Vec<ValueId>,
    /// The nodes; each uses only what is computed before it.
    pub nodes: Vec<Node>,
    /// Values given back.
    pub outputs: Vec<ValueId>,
}

impl Block {
    /// Calls `visit` on each node of this block and of the blocks in it. Recursion is bounded by [`crate::MAX_DEPTH`].
    pub fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Node)) {
        for node in &self.nodes {
            visit(node);
            for (_, block) in &node.blocks {
                block.visit(visit);
            }
        }
    }
}

/// A computation: named inputs, named outputs, and the nodes between them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    pub(crate) values: Vec<Value>,
    pub(crate) body: Block,
    pub(crate) output_names: Vec<String>,
}

impl Graph {
    /// All values; [`ValueId::index`] is the position.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// What is known of a value.
    ///
    /// # Panics
    /// When the value is of another graph.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// The outermost block; its inputs are the graph's.
    pub fn body(&self) -> &Block {
        &self.body
    }

    /// The inputs, in the order in which they were made.
    pub fn inputs(&self) -> &[ValueId] {
        &self.body.inputs
    }

    /// The outputs with their names, in the order given.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = (&str, ValueId)> {
        self.output_names.iter().map(String::as_str).zip(self.body.outputs.iter().copied())
    }

    /// Bytes of all constants that nodes or outputs use.
    pub fn n_constant_bytes(&self) -> u64 {
        let mut used = vec![false; self.values.len()];
        let mut mark = |id: ValueId| used[id.index()] = true;
        self.body.visit(&mut |node| {
            node.present_inputs().for_each(&mut mark);
            node.blocks.iter().flat_map(|(_, block)| &block.outputs).copied().for_each(&mut mark);
        });
        self.body.outputs.iter().copied().for_each(mark);
        let constants = self.values.iter().zip(used).filter(|(_, used)| *used);
        constants.filter_map(|(value, _)| value.constant.as_ref()).map(|tensor| tensor.n_bytes() as u64).sum()
    }
}

/// The same dimensions as a signature says them, where names are of no use.
pub fn signature_dims(dims: Option<&[Dim]>) -> Dims {
    dims.map_or_else(Dims::unknown, |dims| Dims::new(dims.iter().map(Dim::fixed).collect()))
}
