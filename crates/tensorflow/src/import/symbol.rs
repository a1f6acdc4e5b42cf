//! What a TensorFlow tensor is while a graph is being made.

use std::rc::Rc;

use salver_graph::{Dim, ValueId};
use salver_tensor::DType;

/// A tensor, or what stands for one.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Symbol {
    /// A value of the graph.
    Value(ValueId),
    /// A variable, as a resource or as a reference.
    Variable(usize),
    /// A lookup table.
    Table(usize),
    /// A `TensorList`, or the content of a `TensorArray`, which TensorFlow passes on as "flow".
    List(Rc<List>),
    /// The handle of a `TensorArray`; what is in it travels in the flow.
    Array,
    /// A tensor of a checkpoint that is not read yet.
    Stored(Rc<Stored>),
    /// What does not exist because a condition does not hold.
    Dead,
    /// What cannot be computed because an operator is missing.
    Missing,
}

/// A tensor of a checkpoint, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stored {
    pub(super) key: String,
    /// In TensorFlow's notation, `4 10 0,2:-`; empty for all of it.
    pub(super) slice: String,
}

/// A list of tensors of one element type.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct List {
    pub(super) dtype: DType,
    /// The dimensions of an element, as far as they are known.
    pub(super) dims: Option<Vec<Dim>>,
    pub(super) content: Content,
}

/// What is in a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    /// The elements along the first axis.
    Stacked(ValueId),
    /// That many elements (an int64 scalar), none of which is set.
    Unset(ValueId),
    /// Elements one by one, `None` where nothing is set.
    Items(Vec<Option<ValueId>>),
    /// What a list is at the start of an iteration, when what the iteration adds to it may become an output per
    /// iteration.
    Open(Open),
    /// The same after one element was set.
    Set(Open, SetAt, ValueId),
}

/// A list variable of a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    /// Unique among all loops.
    pub(super) id: usize,
    /// How long the list is before the loop, an int64 scalar.
    pub(super) length: ValueId,
}

/// Where an iteration sets the element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetAt {
    Index(ValueId),
    End,
}

impl List {
    /// The same list with something else in it.
    pub(super) fn with(&self, content: Content) -> Symbol {
        Symbol::List(Rc::new(List { dtype: self.dtype, dims: self.dims.clone(), content }))
    }
}
