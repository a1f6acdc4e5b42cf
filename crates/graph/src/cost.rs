//! What a graph costs: operations, parameters and memory per node.

use salver_tensor::DType;

use crate::Builder;
use crate::builder::items_of;
use crate::ir::{Block, Dim, Graph, Item, Node, ValueId};

/// What one node costs. Of a node with blocks the blocks are counted as well, as often as they are known to run (once,
/// if it is not known).
#[derive(Debug, Clone, PartialEq)]
pub struct NodeCost {
    /// The node's name.
    pub name: String,
    /// Its operator, with the domain.
    pub op: String,
    /// Floating-point operations, a multiplication with an addition counted as two. Moving data counts nothing, and any
    /// function of one number counts as one.
    pub n_operations: u64,
    /// Elements of the constants of fractions that this node is the first to use.
    pub n_parameters: u64,
    /// Bytes of all constants that this node is the first to use.
    pub parameter_bytes: u64,
    /// Bytes of its outputs; strings count as 16 each.
    pub activation_bytes: u64,
    /// The shape of its first output.
    pub dims: Option<Vec<Dim>>,
}

/// Costs of the nodes of the outermost block, in order. The open first dimension of the inputs is taken to be `batch`,
/// every other dimension that is not known to be 1.
pub fn cost(graph: &Graph, batch: usize) -> Vec<NodeCost> {
    let mut sized =
        Sized { builder: Builder::resume(graph.values.clone()), seen: vec![false; graph.values.len()] };
    for &id in graph.inputs() {
        sized.fix(id, batch);
    }
    graph.body.nodes.iter().map(|node| sized.node(node, batch)).collect()
}

struct Sized {
    builder: Builder,
    /// By value: constants that were counted.
    seen: Vec<bool>,
}

impl Sized {
    /// Gives an input all its dimensions.
    fn fix(&mut self, id: ValueId, batch: usize) {
        let value = &mut self.builder.values[id.index()];
        for (at, dim) in value.dims.iter_mut().flatten().enumerate() {
            let size = dim.fixed().unwrap_or(if at == 0 { batch } else { 1 });
            *dim = Dim::Fixed(size);
        }
    }

    fn size(&self, id: ValueId) -> Vec<u64> {
        let dims = self.builder.dims(id).unwrap_or_default();
        dims.iter().map(|dim| dim.fixed().map_or(1, |size| size as u64)).collect()
    }

    fn n_elements(&self, id: ValueId) -> u64 {
        self.size(id).iter().fold(1u64, |n, &size| n.saturating_mul(size))
    }

    fn node(&mut self, node: &Node, batch: usize) -> NodeCost {
        let mut cost = NodeCost {
            name: node.name.clone(),
            op: node.full_op(),
            n_operations: 0,
            n_parameters: 0,
            parameter_bytes: 0,
            activation_bytes: 0,
            dims: None,
        };
        for id in node.present_inputs() {
            self.count_constant(id, &mut cost);
        }
        let n_runs = self.n_runs(node);
        for (_, block) in &node.blocks {
            self.block(block, batch, n_runs, &mut cost);
        }
        self.infer(node);
        cost.n_operations = cost.n_operations.saturating_add(self.n_operations(node));
        for &id in &node.outputs {
            let size = self.builder.dtype(id).size().unwrap_or(16) as u64;
            cost.activation_bytes =
                cost.activation_bytes.saturating_add(self.n_elements(id).saturating_mul(size));
        }
        cost.dims = node.outputs.first().and_then(|&id| self.builder.dims(id)).map(<[Dim]>::to_vec);
        cost
    }

    fn count_constant(&mut self, id: ValueId, cost: &mut NodeCost) {
        let Some(tensor) = self.builder.constant_of(id) else { return };
        if std::mem::replace(&mut self.seen[id.index()], true) {
            return;
        }
        cost.parameter_bytes += tensor.n_bytes() as u64;
        let is_fraction = matches!(
            tensor.dtype(),
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 | DType::C64 | DType::C128
        );
        if is_fraction {
            cost.n_parameters += tensor.shape().n_elements() as u64;
        }
    }

    fn block(&mut self, block: &Block, batch: usize, n_runs: u64, cost: &mut NodeCost) {
        for &id in &block.inputs {
            self.fix(id, batch);
        }
        for node in &block.nodes {
            let inner = self.node(node, batch);
            cost.n_operations = cost.n_operations.saturating_add(inner.n_operations.saturating_mul(n_runs));
            cost.n_parameters += inner.n_parameters;
            cost.parameter_bytes += inner.parameter_bytes;
            cost.activation_bytes = cost.activation_bytes.saturating_add(inner.activation_bytes);
        }
    }

    fn n_runs(&self, node: &Node) -> u64 {
        let limit = node.input(0).filter(|_| node.is("Loop")).and_then(|id| self.builder.known_ints(id));
        let limit = limit.and_then(|ints| u64::try_from(*ints.first()?).ok());
        limit.filter(|&limit| limit < 1 << 31).unwrap_or(1)
    }

    /// Works out the outputs again, now that the inputs have sizes.
    fn infer(&mut self, node: &Node) {
        let Ok(outcomes) = self.builder.infer(node, node.outputs.len()) else { return };
        for (&id, outcome) in node.outputs.iter().zip(outcomes) {
            let value = &mut self.builder.values[id.index()];
            if let Some(dims) = outcome.dims {
                value.dims = Some(dims);
            }
            let constant = value.constant.as_ref().and_then(items_of);
            value.items = outcome.items.or(constant);
            if let Some(items) = &mut value.items {
                items.iter_mut().filter(|item| **item == Item::Unknown).for_each(|item| *item = Item::Int(1));
            }
        }
    }

    fn n_operations(&self, node: &Node) -> u64 {
        let out = node.outputs.first().map_or(0, |&id| self.n_elements(id));
        let input = |at: usize| node.input(at).map(|id| self.size(id)).unwrap_or_default();
        let product = |sizes: &[u64]| sizes.iter().fold(1u64, |n, &size| n.saturating_mul(size));
        let bias = |at: usize| if node.input(at).is_some() { out } else { 0 };
        if !node.domain.is_empty() {
            return 0;
        }
        match node.op.as_str() {
            "Conv" | "ConvInteger" => {
                let weights = input(1);
                out.saturating_mul(2 * product(weights.get(1..).unwrap_or_default())).saturating_add(bias(2))
            }
            "ConvTranspose" => {
                let weights = input(1);
                let per_element = product(weights.get(1..).unwrap_or_default());
                product(&input(0)).saturating_mul(2 * per_element).saturating_add(bias(2))
            }
            "MatMul" | "MatMulInteger" => out.saturating_mul(2 * input(0).last().copied().unwrap_or(1)),
            "Gemm" => {
                let turned = node.attributes.flag("transA", false).unwrap_or(false);
                let inner = input(0).get(usize::from(!turned)).copied().unwrap_or(1);
                out.saturating_mul(2 * inner).saturating_add(bias(2))
            }
            "Einsum" => self.einsum(node),
            "GRU" | "LSTM" | "RNN" => {
                let (x, w, r) = (input(0), input(1), input(2));
                let steps = product(x.get(..2).unwrap_or_default());
                steps.saturating_mul(2 * (product(&w) + product(&r)))
            }
            "MaxPool" | "AveragePool" | "LpPool" => {
                let kernel = node.attributes.ints("kernel_shape").ok().flatten().unwrap_or_default();
                out.saturating_mul(kernel.iter().fold(1, |n, &size| n * u64::try_from(size).unwrap_or(1)))
            }
            "Softmax" | "LogSoftmax" => out.saturating_mul(5),
            "BatchNormalization" => out.saturating_mul(2),
            "LayerNormalization" | "InstanceNormalization" | "GroupNormalization" | "LpNormalization" => {
                out.saturating_mul(8)
            }
            "Resize" => {
                let linear = node.attributes.text("mode", "nearest").is_ok_and(|mode| mode != "nearest");
                if linear { out.saturating_mul(8) } else { 0 }
            }
            op if op.starts_with("Reduce") || op.starts_with("Global") || op.starts_with("Arg") => {
                product(&input(0))
            }
            "CumSum" | "Elu" | "HardSwish" | "HardSigmoid" | "LeakyRelu" => out.saturating_mul(2),
            "Gelu" | "Mish" | "Swish" => out.saturating_mul(4),
            "Cast" | "CastLike" | "Identity" | "Reshape" | "Transpose" | "Concat" | "Split" | "Slice"
            | "Gather" | "GatherND" | "GatherElements" | "ScatterND" | "ScatterElements" | "Squeeze"
            | "Unsqueeze" | "Flatten" | "Expand" | "Tile" | "Pad" | "Shape" | "Size" | "Range" | "OneHot"
            | "Where" | "ConstantOfShape" | "DepthToSpace" | "SpaceToDepth" | "ReverseSequence" | "TopK"
            | "NonZero" | "Unique" | "If" | "Loop" | "Scan" | "Dropout" | "EyeLike" | "Trilu"
            | "Compress" => 0,
            _ => out,
        }
    }

    /// One multiplication and one addition for each combination of labels.
    fn einsum(&self, node: &Node) -> u64 {
        let equation = node.attributes.text("equation", "").unwrap_or_default();
        let terms = equation.split("->").next().unwrap_or_default().split(',');
        let mut sizes = std::collections::BTreeMap::new();
        for (term, id) in terms.zip(node.present_inputs()) {
            for (label, size) in term.trim().chars().zip(self.size(id)) {
                let known = sizes.entry(label).or_insert(size);
                *known = size.max(*known);
            }
        }
        sizes.values().fold(2u64, |n, &size| n.saturating_mul(size))
    }
}

#[cfg(test)]
mod tests {
    use salver_kernels::Attributes;
    use salver_tensor::{Shape, Tensor};

    use super::*;

    #[test]
    fn operations_and_parameters_are_counted() {
        let mut b = Builder::new();
        let zeros = |b: &mut Builder, dims: &[usize]| {
            let n = dims.iter().product();
            b.constant("w", Tensor::from_vec(Shape::new(dims).unwrap(), vec![0f32; n]).unwrap())
        };
        let dims = vec![Dim::symbol("batch"), Dim::Fixed(3), Dim::Fixed(8), Dim::Fixed(8)];
        let x = b.input("x", DType::F32, Some(dims));
        let (w, bias, dense) = (zeros(&mut b, &[4, 3, 3, 3]), zeros(&mut b, &[4]), zeros(&mut b, &[144, 10]));
        let y = b.op("conv", "Conv", &[x, w, bias], Attributes::new()).unwrap();
        let y = b.op("relu", "Relu", &[y], Attributes::new()).unwrap();
        let shape = b.i64s(&[-1, 144]);
        let y = b.op("flat", "Reshape", &[y, shape], Attributes::new()).unwrap();
        let y = b.op("dense", "MatMul", &[y, dense], Attributes::new()).unwrap();
        let again = b.op("again", "MatMul", &[y, y], Attributes::new()).unwrap_or(y);
        let graph = b.finish(&[("y", again)]).unwrap();
        for (batch, n) in [(1, 1), (5, 5)] {
            let costs = cost(&graph, batch);
            let operations: Vec<_> = costs.iter().map(|cost| cost.n_operations).take(4).collect();
            assert_eq!(operations, [n * 144 * (2 * 27 + 1), n * 144, 0, n * 10 * 288]);
            let parameters: Vec<_> = costs.iter().map(|cost| cost.n_parameters).take(4).collect();
            assert_eq!(parameters, [112, 0, 0, 1440]);
            assert_eq!(costs[1].activation_bytes, n * 576);
        }
    }
}
