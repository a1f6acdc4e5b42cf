//! One walk over a graph that may put something else in the place of each node.

mod walk;

use std::collections::HashMap;

use bytes::Bytes;
use salver_kernels::Attributes;
use salver_tensor::{DType, Tensor};

use crate::ir::{Block, Dim, Graph, Item, Node, ValueId};
use crate::{Builder, Error};

/// Looks at a node whose inputs are those that it has by now. Gives the values that take the place of its outputs, or
/// `None` where it does not apply; nodes that it added in vain are dead, and an error means the same as `None`.
pub(crate) type Rule = fn(&mut Rewriter, &Node) -> Result<Option<Vec<ValueId>>, Error>;

/// Constants up to this many bytes are compared by content.
const MAX_COMPARED_BYTES: usize = 256;

/// Which of the rules that belong to the walk itself are on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Own {
    /// Nodes that compute the same as one before them, and constants that are the same.
    pub(crate) common: bool,
    /// Nodes whose inputs have become constants.
    pub(crate) fold: bool,
}

/// How often each thing happened in a walk.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// By position of the rule.
    pub(crate) rules: Vec<usize>,
    pub(crate) common: usize,
    pub(crate) folded: usize,
}

impl Counts {
    pub(crate) fn total(&self) -> usize {
        self.rules.iter().sum::<usize>() + self.common + self.folded
    }
}

/// Walks over all nodes in order, blocks included, and applies the first rule that changes each.
pub(crate) fn walk(graph: &mut Graph, rules: &[Rule], own: Own) -> Counts {
    let mut rewriter = Rewriter::new(graph, own);
    rewriter.counts.rules = vec![0; rules.len()];
    let body = std::mem::take(&mut graph.body);
    rewriter.builder.blocks[0].inputs = body.inputs;
    rewriter.nodes(body.nodes, rules);
    let mut written = rewriter.builder.blocks.pop().unwrap_or_default();
    written.outputs = body.outputs.iter().map(|&id| rewriter.current(id)).collect();
    graph.values = rewriter.builder.values;
    graph.body = written;
    rewriter.counts
}

/// What rules see and add to. What is added goes into the block of the node that is looked at.
pub(crate) struct Rewriter {
    builder: Builder,
    own: Own,
    /// By value: what stands for it now.
    replaced: Vec<Option<ValueId>>,
    /// By value: the block, counted from outside, and the position of the node that makes it.
    makers: Vec<Option<(usize, usize)>>,
    /// By value: uses that are left, of nodes that are not reached yet and of those that are written.
    n_uses: Vec<usize>,
    /// By value: whether more is known of it than when its users were inferred.
    is_sharper: Vec<bool>,
    /// By block: nodes by a hash of what they compute.
    known: Vec<HashMap<u64, Vec<usize>>>,
    constants: HashMap<(DType, Vec<usize>, Content), ValueId>,
    counts: Counts,
}

/// What makes two constants the same.
#[derive(PartialEq, Eq, Hash)]
enum Content {
    Small(Bytes),
    /// The address and length of shared bytes.
    Shared(usize, usize),
}

impl Rewriter {
    fn new(graph: &mut Graph, own: Own) -> Rewriter {
        let mut n_uses = vec![0; graph.values.len()];
        count_uses(&graph.body, &mut n_uses);
        let values = std::mem::take(&mut graph.values);
        let n = values.len();
        Rewriter {
            builder: Builder::resume(values),
            own,
            replaced: vec![None; n],
            makers: vec![None; n],
            n_uses,
            is_sharper: vec![false; n],
            known: vec![HashMap::new()],
            constants: HashMap::new(),
            counts: Counts::default(),
        }
    }

    // What rules ask.

    pub(crate) fn dtype(&self, id: ValueId) -> DType {
        self.builder.dtype(id)
    }

    pub(crate) fn dims(&self, id: ValueId) -> Option<&[Dim]> {
        self.builder.dims(id)
    }

    pub(crate) fn rank(&self, id: ValueId) -> Option<usize> {
        self.builder.rank(id)
    }

    /// The size of a dimension, when it is known.
    pub(crate) fn size(&self, id: ValueId, axis: usize) -> Option<usize> {
        self.dims(id)?.get(axis)?.fixed()
    }

    pub(crate) fn constant(&self, id: ValueId) -> Option<&Tensor> {
        self.builder.constant_of(id)
    }

    /// The elements of a small integer tensor, when all are known.
    pub(crate) fn ints(&self, id: ValueId) -> Option<Vec<i64>> {
        self.builder.known_ints(id)
    }

    /// The only element of a constant of numbers, whatever its shape.
    pub(crate) fn number(&self, id: ValueId) -> Option<f64> {
        let tensor = self.constant(id).filter(|tensor| tensor.shape().n_elements() == 1)?;
        super::numbers(tensor)?.first().copied()
    }

    /// The node that makes a value, unless it comes from outside the graph or is a constant.
    pub(crate) fn maker(&self, id: ValueId) -> Option<&Node> {
        let (block, at) = self.makers.get(id.index()).copied().flatten()?;
        self.builder.blocks.get(block)?.nodes.get(at)
    }

    /// The node that makes a value, if it is that operator.
    pub(crate) fn made_by(&self, id: ValueId, op: &str) -> Option<&Node> {
        self.maker(id).filter(|node| node.is(op))
    }

    /// Whether nothing but the node that is looked at uses a value.
    pub(crate) fn is_only_use(&self, id: ValueId) -> bool {
        self.n_uses.get(id.index()).is_none_or(|&n| n == 0)
    }

    /// How many other nodes use a value.
    pub(crate) fn n_uses(&self, id: ValueId) -> usize {
        self.n_uses.get(id.index()).copied().unwrap_or(0)
    }

    // What rules add.

    pub(crate) fn op(
        &mut self,
        name: &str,
        op: &str,
        inputs: &[ValueId],
        attributes: Attributes,
    ) -> Result<ValueId, Error> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        let outputs = self.ops(name, op, &inputs, attributes, 1)?;
        outputs.into_iter().next().ok_or_else(|| Error::invalid("an operator without output"))
    }

    pub(crate) fn ops(
        &mut self,
        name: &str,
        op: &str,
        inputs: &[Option<ValueId>],
        attributes: Attributes,
        n_outputs: usize,
    ) -> Result<Vec<ValueId>, Error> {
        let outputs = self.builder.ops(name, "", op, inputs, attributes, n_outputs)?;
        self.note_last(&outputs);
        Ok(outputs)
    }

    /// The same node with other inputs and attributes.
    pub(crate) fn same(
        &mut self,
        node: &Node,
        inputs: &[Option<ValueId>],
        attributes: Attributes,
    ) -> Result<Vec<ValueId>, Error> {
        let (name, op, n) = (&node.name, &node.op, node.outputs.len());
        let outputs = self.builder.ops(name, &node.domain, op, inputs, attributes, n)?;
        self.note_last(&outputs);
        Ok(outputs)
    }

    /// An operator of constants, computed at once; `None` when it cannot be.
    pub(crate) fn computed(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attributes: Attributes,
    ) -> Result<Option<ValueId>, Error> {
        let id = self.op("folded", op, inputs, attributes)?;
        Ok(self.constant(id).is_some().then_some(id))
    }

    pub(crate) fn i64s(&mut self, ints: &[i64]) -> ValueId {
        let id = self.builder.i64s(ints);
        self.grow();
        id
    }

    pub(crate) fn scalar(&mut self, value: f64, like: ValueId) -> Result<ValueId, Error> {
        let id = self.builder.scalar(value, like)?;
        self.grow();
        Ok(id)
    }
}

fn count_uses(block: &Block, n_uses: &mut [usize]) {
    block.visit(&mut |node| {
        node.present_inputs().for_each(|id| n_uses[id.index()] += 1);
        node.blocks.iter().flat_map(|(_, inner)| &inner.outputs).for_each(|id| n_uses[id.index()] += 1);
    });
    block.outputs.iter().for_each(|id| n_uses[id.index()] += 1);
}

/// The target of a `Reshape` to these dimensions; `None` when more than one is not known.
pub(crate) fn reshape_target(dims: &[Dim]) -> Option<Vec<i64>> {
    let n_open = dims.iter().filter(|dim| dim.fixed().is_none()).count();
    let has_zero = dims.contains(&Dim::Fixed(0));
    if n_open > 1 || has_zero {
        return None;
    }
    dims.iter().map(|dim| dim.fixed().map_or(Some(-1), |size| i64::try_from(size).ok())).collect()
}

/// Whether two lists of known elements say the same.
pub(crate) fn same_items(a: &[Item], dims: &[Dim]) -> bool {
    let same = |(item, dim): (&Item, &Dim)| *item != Item::Unknown && *item == Item::from(dim);
    a.len() == dims.len() && a.iter().zip(dims).all(same)
}

impl Rewriter {
    /// The elements of a small integer tensor, as far as they are known.
    pub(crate) fn items(&self, id: ValueId) -> Option<&[Item]> {
        self.builder.items(id)
    }
}
