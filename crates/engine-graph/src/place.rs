//! Which nodes run on the engine and which on the host, and what runs together. Pure.

use std::collections::HashSet;

use salver_graph::{Block, Dim, Graph, Item, Node, ValueId};
use salver_tensor::DType;

use crate::range::{self, Range};

/// Where a node may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the engine.
    Engine,
    /// On the host, which is exact in every type.
    Host,
}

/// A run of nodes of one place, by their positions in the block. What it uses is computed in stages before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) place: Place,
    pub(crate) nodes: Vec<usize>,
}

/// What decides: the engine's operators, the ranges of integers, and nodes that an engine has refused already.
pub(crate) struct Rules<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) ranges: &'a [Range],
    pub(crate) supports: &'a dyn Fn(&Node) -> bool,
    /// First outputs of nodes that must run on the host.
    pub(crate) refused: &'a HashSet<ValueId>,
}

/// An engine part of at most this many cheap nodes between host operations is not worth the hand-over.
const MAX_TINY: usize = 12;

/// Operators that the embedded engine has for floats alone, by their first input.
const FLOAT_ONLY: &[&str] = &[
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Einsum",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "InstanceNormalization",
    "LayerNormalization",
    "LogSoftmax",
    "MatMul",
    "MaxPool",
    "ReduceL2",
    "ReduceMean",
    "Resize",
    "Softmax",
];

/// Operators that take a dimension out of a shape, or give it another form.
const MOVES: &[&str] = &["Cast", "Gather", "Reshape", "Slice", "Squeeze", "Unsqueeze"];

/// Moves of a dimension that are followed.
const MAX_MOVES: usize = 16;

/// Elements that what an engine gives may have for one row, as far as is known; the host refuses more.
const MAX_ELEMENTS: usize = 1 << 31;

/// Operators that cost as much on the host as handing them over.
const CHEAP: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "Cast",
    "Concat",
    "Div",
    "Equal",
    "Expand",
    "Gather",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "ReduceSum",
    "Reshape",
    "Shape",
    "Size",
    "Slice",
    "Split",
    "Squeeze",
    "Sub",
    "Unsqueeze",
    "Where",
];

/// The stages of a block, in an order in which they can run.
pub(crate) fn stages(rules: &Rules<'_>, block: &Block) -> Vec<Stage> {
    let mut places: Vec<Place> = block.nodes.iter().map(|node| rules.place(node)).collect();
    let staged = assign(rules.graph, block, &places);
    if !places.contains(&Place::Host) {
        return staged;
    }
    // Tiny engine stages join the host's stages around them.
    for stage in staged.iter().filter(|stage| stage.place == Place::Engine) {
        let cheap = |&at: &usize| CHEAP.contains(&block.nodes[at].op.as_str());
        if stage.nodes.len() <= MAX_TINY && stage.nodes.iter().all(cheap) {
            stage.nodes.iter().for_each(|&at| places[at] = Place::Host);
        }
    }
    assign(rules.graph, block, &places)
}

impl Rules<'_> {
    fn place(&self, node: &Node) -> Place {
        if self.is_engine_node(node) { Place::Engine } else { Place::Host }
    }

    fn is_engine_node(&self, node: &Node) -> bool {
        let refused = node.outputs.first().is_some_and(|id| self.refused.contains(id));
        let inner =
            |block: &Block| block.nodes.iter().all(|node| self.is_engine_node(node)) && self.ends_fit(block);
        !refused
            && node.domain.is_empty()
            && !self.takes_integers(node)
            && !self.may_grow(node)
            && !self.may_join_nothing(node)
            && (self.supports)(node)
            && node
                .inputs
                .iter()
                .enumerate()
                .all(|(at, id)| id.is_none_or(|id| self.holds_input(node, at, id)))
            && node.outputs.iter().all(|&id| self.holds(node, id))
            && node.blocks.iter().all(|(_, block)| inner(block))
    }

    /// Whether a node computes with integers in a way that engines have for floats alone, or not for every integer.
    fn takes_integers(&self, node: &Node) -> bool {
        let Some(data) = node.input(0) else { return false };
        let is_integer = !matches!(self.graph.value(data).dtype, DType::F32 | DType::F16);
        let is_size = |id: ValueId| self.ranges[id.index()] == Range::Size;
        match node.op.as_str() {
            "Mod" => is_integer && !node.present_inputs().all(is_size),
            op => is_integer && FLOAT_ONLY.contains(&op),
        }
    }

    /// Whether a loop that joins what its iterations give may have none, of which the engine makes an error. A loop over the
    /// steps of a sequence has some; one over a number that is computed may not.
    fn may_join_nothing(&self, node: &Node) -> bool {
        let n_carried = node.inputs.len().saturating_sub(2);
        node.is("Loop")
            && node.outputs.len() > n_carried
            && !node.input(0).is_some_and(|trips| self.is_dimension(trips))
    }

    /// Whether a value is a dimension of a tensor, or a constant above zero. Follows a few moves of it.
    fn is_dimension(&self, mut id: ValueId) -> bool {
        for _ in 0..MAX_MOVES {
            if let Some(constant) = &self.graph.value(id).constant {
                return constant.to_slice::<i64>().is_some_and(|ints| ints.iter().all(|&int| int > 0));
            }
            let maker = self.graph.body().nodes.iter().find(|node| node.outputs.contains(&id));
            let moved = match maker {
                Some(maker) if maker.is("Shape") => return true,
                Some(maker) if MOVES.contains(&maker.op.as_str()) => maker.input(0),
                _ => None,
            };
            let Some(from) = moved else { return false };
            id = from;
        }
        false
    }

    /// Whether what comes out may be as large as numbers of a request say. The host refuses what does not fit in memory;
    /// an engine may take the process with it.
    fn may_grow(&self, node: &Node) -> bool {
        let sizes = match node.op.as_str() {
            "ConstantOfShape" => 0..1,
            "Expand" | "Tile" | "OneHot" | "Pad" => 1..2,
            "Range" => 0..3,
            "Resize" => 2..4,
            _ => 0..0,
        };
        let is_known = |id: ValueId| {
            let value = self.graph.value(id);
            let all_known = value.items.as_ref().is_some_and(|items| !items.contains(&Item::Unknown));
            value.constant.is_some() || all_known || self.ranges[id.index()] == Range::Size
        };
        let is_huge = |id: &ValueId| {
            let dims = self.graph.value(*id).dims.iter().flatten();
            let known =
                dims.filter_map(Dim::fixed).try_fold(1usize, |product, size| product.checked_mul(size));
            known.is_none_or(|n| n > MAX_ELEMENTS)
        };
        !sizes.filter_map(|at| node.input(at)).all(is_known) || node.outputs.iter().any(is_huge)
    }

    /// Whether the engine holds what a body takes and gives.
    fn ends_fit(&self, block: &Block) -> bool {
        block.inputs.iter().chain(&block.outputs).all(|&id| {
            let dtype = self.graph.value(id).dtype;
            matches!(dtype, DType::F32 | DType::I32 | DType::Bool)
                || dtype == DType::I64 && self.ranges[id.index()] > Range::Open
        })
    }

    fn holds_input(&self, node: &Node, at: usize, id: ValueId) -> bool {
        self.holds(node, id)
            || self.graph.value(id).dtype == DType::I64 && range::may_take_open(node, at, id, self.graph)
    }

    fn holds(&self, node: &Node, id: ValueId) -> bool {
        match self.graph.value(id).dtype {
            DType::F32 | DType::F16 | DType::I32 | DType::Bool => true,
            DType::I64 => self.ranges[id.index()] > Range::Open,
            DType::I8 | DType::U8 => matches!(
                node.op.as_str(),
                "Cast"
                    | "QuantizeLinear"
                    | "DequantizeLinear"
                    | "MatMulInteger"
                    | "ConvInteger"
                    | "DynamicQuantizeLinear"
            ),
            _ => false,
        }
    }
}

/// Stages by alternating places: each node goes into the first stage of its place that comes no earlier than what it
/// uses. So no stage waits for itself by way of another.
fn assign(graph: &Graph, block: &Block, places: &[Place]) -> Vec<Stage> {
    let mut stage_of = std::collections::HashMap::new();
    let mut stages: Vec<Vec<usize>> = Vec::new();
    // Even stages are the host's.
    let fits = |at: usize, place: Place| at.is_multiple_of(2) == (place == Place::Host);
    for (at, node) in block.nodes.iter().enumerate() {
        let before = graph.used_by(node).iter().filter_map(|id| stage_of.get(id).copied()).max();
        let mut stage: usize = before.unwrap_or(0);
        if !fits(stage, places[at]) {
            stage += 1;
        }
        for &id in &node.outputs {
            stage_of.insert(id, stage);
        }
        if stages.len() <= stage {
            stages.resize(stage + 1, Vec::new());
        }
        stages[stage].push(at);
    }
    let place = |at: usize| if fits(at, Place::Host) { Place::Host } else { Place::Engine };
    let stages = stages.into_iter().enumerate().filter(|(_, nodes)| !nodes.is_empty());
    stages.map(|(at, nodes)| Stage { place: place(at), nodes }).collect()
}

/// The nodes of a graph that run on the host, bodies included, as operator and name.
pub(crate) fn host_nodes(rules: &Rules<'_>, block: &Block) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for stage in stages(rules, block).into_iter().filter(|stage| stage.place == Place::Host) {
        for node in stage.nodes.into_iter().map(|at| &block.nodes[at]) {
            found.push((node.full_op(), node.name.clone()));
            for (_, inner) in &node.blocks {
                found.extend(host_nodes(rules, inner));
            }
        }
    }
    found
}
