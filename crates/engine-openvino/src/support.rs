//! Which nodes of a graph OpenVINO computes as ONNX says, as `tests/golden.rs` measures it.
//!
//! What is not a number is not kept everywhere: [`DROPS_NAN`] may give a number for it. Everything else that differs is
//! refused here, and so is what OpenVINO does not look at: positions and sizes that a request may give and that lie outside
//! of a tensor.

use salver_engine::{Error, ErrorKind};
use salver_graph::{Attributes, Block, Dim, Graph, Item, Node, ValueId};
use salver_tensor::{DType, Tensor};

use crate::facts::{Condition, Facts, axis, ints};

/// Operators that are computed right for every element type that parts hold: float32, int32, int64 that fits 32 bits, bool.
const ANY: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BatchNormalization",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "Ceil",
    "Compress",
    "Concat",
    "ConstantOfShape",
    "Cos",
    "Cosh",
    "CumSum",
    "DepthToSpace",
    "DequantizeLinear",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "EyeLike",
    "Flatten",
    "Floor",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gelu",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "If",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "LpPool",
    "LRN",
    "Max",
    "Mean",
    "MeanVarianceNormalization",
    "Min",
    "Mish",
    "Mul",
    "Neg",
    "NonMaxSuppression",
    "NonZero",
    "Not",
    "OneHot",
    "Or",
    "Pad",
    "PRelu",
    "QuantizeLinear",
    "Range",
    "Reciprocal",
    "Reshape",
    "ReverseSequence",
    "Round",
    "ScatterElements",
    "ScatterND",
    "Selu",
    "Shape",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Size",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Swish",
    "Tan",
    "Tanh",
    "Tile",
    "Transpose",
    "Trilu",
    "Unique",
    "Unsqueeze",
    "Where",
    "Xor",
];

/// Operators that are computed by way of float32, so that large integers come out wrong.
const FLOATS: &[&str] = &[
    "AveragePool",
    "Clip",
    "Conv",
    "ConvTranspose",
    "Div",
    "Einsum",
    "Gemm",
    "GRU",
    "LSTM",
    "MatMul",
    "MaxPool",
    "Mod",
    "Pow",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Resize",
    "RNN",
];

/// Operators that may give a number where an input holds what is none, or an infinity of which that is made. Of `Gelu`, it
/// is the other way round: of infinity it gives what is no number.
pub const DROPS_NAN: &[&str] = &[
    "Clip",
    "Exp",
    "Gelu",
    "HardSigmoid",
    "LogSoftmax",
    "Max",
    "Min",
    "ReduceMax",
    "ReduceMin",
    "Relu",
    "Softmax",
];

/// Sizes of inputs up to this are exact in float32; larger ones are refused in runs.
pub(crate) const MAX_DIM: usize = 1 << 24;

/// Whether OpenVINO converts this node, attributes and all, and computes it right. Element types that OpenVINO keeps as
/// others are for the caller to judge: float32, int32, bool and int64 that fits 32 bits are taken to be there.
pub fn supports_in(graph: &Graph, node: &Node) -> bool {
    supports(&Facts::new(graph), node, Depth::Body)
}

fn supports<'a>(facts: &Facts<'a>, node: &'a Node, depth: Depth) -> bool {
    has(facts, node, depth)
        && node
            .blocks
            .iter()
            .all(|(_, block)| block.nodes.iter().all(|inner| supports(facts, inner, Depth::Block)))
}

/// Where a node is: what is in a block is not always computed, so that its conditions are none of the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    Body,
    Block,
}

/// Calls `visit` on each node of a graph and of the blocks in it.
pub(crate) fn visit<'a>(graph: &'a Graph, visit: &mut dyn FnMut(&'a Node, Depth)) {
    fn inner<'a>(block: &'a Block, visit: &mut dyn FnMut(&'a Node, Depth)) {
        block.visit(&mut |node| visit(node, Depth::Block));
    }
    for node in &graph.body().nodes {
        visit(node, Depth::Body);
        node.blocks.iter().for_each(|(_, block)| inner(block, visit));
    }
}

/// As [`supports_in`], of the node alone and not of its blocks.
pub(crate) fn has<'a>(facts: &Facts<'a>, node: &'a Node, depth: Depth) -> bool {
    let (graph, op) = (facts.graph, node.op.as_str());
    if !node.domain.is_empty()
        || !node.present_inputs().chain(node.outputs.iter().copied()).all(|id| graph.value(id).dims.is_some())
    {
        return false;
    }
    let sees = Sees { facts, graph, node };
    let is_exact = ANY.contains(&op) || FLOATS.contains(&op) && (sees.is_float(0) || sees.are_sizes());
    is_exact && sees.has_types() && sees.has_form() && sees.conditions_at(depth).is_some()
}

/// What must be so of the inputs of a graph in each run, so that OpenVINO computes it right.
///
/// # Errors
/// [`ErrorKind::Unsupported`] at the first node of which it cannot be told.
pub(crate) fn conditions(facts: &Facts<'_>) -> Result<Vec<Condition>, Error> {
    let (mut all, mut refused) = (Vec::new(), None);
    visit(facts.graph, &mut |node, depth| {
        let sees = Sees { facts, graph: facts.graph, node };
        match sees.conditions_at(depth) {
            Some(conditions) => all.extend(conditions),
            None => refused = refused.or(Some(node)),
        }
    });
    let Some(node) = refused else { return Ok(all) };
    let message = "it takes positions that OpenVINO does not look at, and that may lie outside of the tensor";
    Err(Error::new(ErrorKind::Unsupported, message).at(format!("node '{}' ({})", node.name, node.full_op())))
}

/// A node and what is known of its inputs.
struct Sees<'f, 'a> {
    facts: &'f Facts<'a>,
    graph: &'a Graph,
    node: &'a Node,
}

impl<'a> Sees<'_, 'a> {
    fn attributes(&self) -> &'a Attributes {
        &self.node.attributes
    }

    fn dims(&self, at: usize) -> &'a [Dim] {
        self.node.input(at).and_then(|id| self.graph.value(id).dims.as_deref()).unwrap_or_default()
    }

    fn constant(&self, at: usize) -> Option<&'a Tensor> {
        self.node.input(at).and_then(|id| self.graph.value(id).constant.as_ref())
    }

    fn is_float(&self, at: usize) -> bool {
        let dtype = self.node.input(at).map(|id| self.graph.value(id).dtype);
        matches!(dtype, Some(DType::F32 | DType::F16))
    }

    /// Whether an input is left out or a constant.
    fn is_given(&self, at: usize) -> bool {
        self.node.input(at).is_none() || self.constant(at).is_some()
    }

    /// Whether an input is left out, or computed from constants and shapes alone.
    fn is_settled(&self, at: usize) -> bool {
        self.node.input(at).is_none_or(|id| self.facts.is_settled(id))
    }

    /// Whether the operator is exact for its element types: 8-bit numbers do not wrap, and whole numbers are compared by
    /// way of float32.
    fn has_types(&self) -> bool {
        let is_8_bit = |id: ValueId| matches!(self.graph.value(id).dtype, DType::I8 | DType::U8);
        match self.node.op.as_str() {
            "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Sum" | "Neg" | "Abs" | "CumSum" => {
                !self.node.present_inputs().any(is_8_bit)
            }
            "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" => {
                let is_whole = |id: ValueId| matches!(self.graph.value(id).dtype, DType::I32 | DType::I64);
                let inputs = || self.node.present_inputs();
                // One that float32 holds, and not the largest, is told from every other.
                !inputs().any(is_whole) || inputs().any(|id| self.facts.is_small(id)) || self.are_sizes()
            }
            _ => true,
        }
    }

    /// As [`Sees::conditions`]; a node that is not always computed may have none.
    fn conditions_at(&self, depth: Depth) -> Option<Vec<Condition>> {
        self.conditions().filter(|all| depth == Depth::Body || all.is_empty())
    }

    /// What must be so of the graph's inputs for this node to be computed right; `None` when that cannot be told.
    fn conditions(&self) -> Option<Vec<Condition>> {
        let (facts, node) = (self.facts, self.node);
        let data = self.dims(0);
        match node.op.as_str() {
            "Gather" => facts.lies_in(node.input(1)?, data.get(axis(node, data.len())?)?),
            "GatherElements" => {
                let axis = axis(node, data.len())?;
                let within = facts.lies_in(node.input(1)?, &data[axis])?;
                Some([within, self.alike(data, self.dims(1), Some(axis))?].concat())
            }
            "ScatterElements" => {
                let axis = axis(node, data.len())?;
                let within = facts.lies_in(node.input(1)?, &data[axis])?;
                let alike = self.alike(data, self.dims(1), Some(axis))?;
                Some([within, alike, self.alike(self.dims(1), self.dims(2), None)?].concat())
            }
            "GatherND" => {
                let n_rows = usize::try_from(node.attributes.int("batch_dims", 0).ok()?).ok()?;
                let alike = self.alike(data.get(..n_rows)?, self.dims(1).get(..n_rows)?, None)?;
                Some([alike, self.point_in(data.get(n_rows..)?)?].concat())
            }
            "ScatterND" => self.point_in(data),
            "Compress" => {
                let dim = data.get(axis(node, data.len())?)?;
                let condition = self.dims(1).first()?;
                match condition.fixed() {
                    Some(size) => facts.is_at_least(dim, size),
                    None => facts.is_alike(dim, condition),
                }
            }
            // Of nothing, there is none.
            "ArgMax" | "ArgMin" => facts.is_at_least(data.get(axis(node, data.len())?)?, 1),
            "ReduceMax" | "ReduceMin" => {
                let each = self.reduced()?.into_iter().map(|dim| facts.is_at_least(dim, 1));
                Some(each.collect::<Option<Vec<_>>>()?.concat())
            }
            _ => Some(Vec::new()),
        }
    }

    /// What makes two lists of dimensions the same, but for one.
    fn alike(&self, a: &[Dim], b: &[Dim], but: Option<usize>) -> Option<Vec<Condition>> {
        let pairs = a.iter().zip(b).enumerate().filter(|(at, _)| Some(*at) != but);
        let each = pairs.map(|(_, (a, b))| self.facts.is_alike(a, b)).collect::<Option<Vec<_>>>();
        each.filter(|_| a.len() == b.len()).map(|each| each.concat())
    }

    /// What makes the last dimension of the second input positions in the first of these dimensions.
    fn point_in(&self, dims: &[Dim]) -> Option<Vec<Condition>> {
        let index = self.node.input(1)?;
        let n = self.dims(1).last()?.fixed()?;
        let dims = dims.get(..n)?;
        let Some(all) = self.constant(1).and_then(ints) else {
            let each = dims.iter().map(|dim| self.facts.lies_in(index, dim));
            let each = each.collect::<Option<Vec<_>>>()?.concat();
            // One input's elements are positions in several dimensions, of which none is the right bound for all.
            let is_checked = each.iter().any(|it| matches!(it, Condition::Within { .. }));
            return (n == 1 || !is_checked).then_some(each);
        };
        let each = dims.iter().enumerate().map(|(at, dim)| {
            let of_dim = || all.iter().copied().skip(at).step_by(n);
            match of_dim().min().zip(of_dim().max()) {
                Some(bounds) => self.facts.holds(bounds, dim),
                None => Some(Vec::new()),
            }
        });
        Some(each.collect::<Option<Vec<_>>>()?.concat())
    }

    /// The dimensions that a `Reduce` operator reduces.
    fn reduced(&self) -> Option<Vec<&'a Dim>> {
        let data = self.dims(0);
        let axes = match self.node.input(1) {
            None => Vec::new(),
            Some(_) => ints(self.constant(1)?)?,
        };
        if axes.is_empty() {
            let keeps = self.attributes().int("noop_with_empty_axes", 0) == Ok(1);
            return Some(if keeps { Vec::new() } else { data.iter().collect() });
        }
        let rank = i64::try_from(data.len()).ok()?;
        let at = |axis: i64| usize::try_from(if axis < 0 { axis.checked_add(rank)? } else { axis }).ok();
        axes.into_iter().map(|axis| data.get(at(axis)?)).collect()
    }

    /// Whether the steps of a `Slice` are constants other than zero.
    fn has_steps(&self) -> bool {
        let Some(_) = self.node.input(4) else { return true };
        self.constant(4).and_then(ints).is_some_and(|steps| !steps.contains(&0))
    }

    /// Whether all elements of all inputs are sizes of the model's inputs, or small numbers.
    fn are_sizes(&self) -> bool {
        const SMALL: i64 = 1 << 16;
        let is_small = |item: &Item| match item {
            Item::Int(int) => (-SMALL..=SMALL).contains(int),
            Item::Dim(_) => true,
            Item::Unknown => false,
        };
        self.node
            .present_inputs()
            .all(|id| self.graph.value(id).items.as_ref().is_some_and(|items| items.iter().all(is_small)))
    }

    fn is(&self, name: &str, value: i64) -> bool {
        self.attributes().int(name, value) == Ok(value)
    }

    fn text_in(&self, name: &str, values: &[&str]) -> bool {
        self.attributes().text(name, values[0]).is_ok_and(|text| values.contains(&text))
    }

    /// Whether the attributes, and what is constant, are such as OpenVINO takes and gets right.
    fn has_form(&self) -> bool {
        let (node, attributes) = (self.node, self.attributes());
        match node.op.as_str() {
            "AveragePool" => {
                !(self.is("ceil_mode", 1) && attributes.get("ceil_mode").is_some())
                    || self.is("count_include_pad", 0)
            }
            "BatchNormalization" => self.is("training_mode", 0) && node.outputs.len() == 1,
            // What is not a number counts as false.
            "Cast" => match attributes.dtype("to") {
                Ok(Some(DType::Bool)) => !self.is_float(0),
                // It stays as it is, and what is too large for float16 does not become infinite.
                Ok(Some(DType::F16)) => !self.is_used(),
                _ => true,
            },
            "Compress" => attributes.get("axis").is_some(),
            "Conv" => self.dims(1).iter().all(|dim| dim.fixed().is_some()),
            "ConvTranspose" => {
                self.dims(1).iter().all(|dim| dim.fixed().is_some())
                    && self.text_in("auto_pad", &["NOTSET", "VALID"])
                    && attributes.get("output_shape").is_none()
            }
            "ConstantOfShape" => self.is_settled(0),
            "CumSum" | "Trilu" => self.is_given(1),
            "Einsum" => self.has_distinct_indices(),
            "GRU" => self.is_recurrent(&["Sigmoid", "Tanh"], &[5]),
            "LSTM" => {
                self.is("input_forget", 0)
                    && node.input(7).is_none()
                    && self.is_recurrent(&["Sigmoid", "Tanh", "Tanh"], &[5, 6])
            }
            "RNN" => self.is_recurrent(&["Tanh"], &[5]),
            "LayerNormalization" => node.outputs.len() == 1,
            "LRN" => attributes.float("bias", 1.0) == Ok(1.0),
            "MatMul" => self.multiplies_alike(),
            "MaxPool" => node.outputs.len() == 1,
            "NonMaxSuppression" => self.dims(0).last().and_then(Dim::fixed) == Some(4) && self.is_given(2),
            "OneHot" => self.is_given(1),
            "Pad" => {
                self.text_in("mode", &["constant", "reflect", "edge"])
                    && node.input(3).is_none()
                    && self.is_settled(1)
            }
            "QuantizeLinear" | "DequantizeLinear" => self.is("block_size", 0),
            "Range" => self.counts_up(),
            "Resize" => {
                self.text_in(
                    "coordinate_transformation_mode",
                    &["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"],
                ) && self.is("antialias", 0)
                    && self.is("exclude_outside", 0)
                    && self.text_in("keep_aspect_ratio_policy", &["stretch"])
                    && attributes.get("axes").is_none()
                    && self.is_given(2)
                    && self.is_settled(3)
            }
            "Reshape" | "Expand" => self.is_settled(1),
            "Slice" => self.has_steps(),
            "Split" => self.splits_evenly(),
            "Squeeze" => node.input(1).is_some() && self.is_given(1),
            "Tile" => self.dims(1).iter().all(|dim| dim.fixed().is_some()) && self.is_settled(1),
            "Unsqueeze" => self.is_given(1),
            op if op.starts_with("Reduce") => self.is_given(1),
            _ => true,
        }
    }

    /// No operand has an index twice.
    fn has_distinct_indices(&self) -> bool {
        let equation = self.attributes().text("equation", "").unwrap_or_default();
        let operands = equation.split("->").next().unwrap_or_default().split(',');
        operands.into_iter().all(|operand| {
            let letters: Vec<char> = operand.chars().filter(char::is_ascii_alphabetic).collect();
            letters.iter().enumerate().all(|(at, letter)| !letters[..at].contains(letter))
        })
    }

    /// Whether a node takes what this one makes.
    fn is_used(&self) -> bool {
        let mut is_used = false;
        self.graph.body().visit(&mut |node| {
            is_used |= node.present_inputs().any(|id| self.node.outputs.contains(&id));
        });
        is_used
    }

    /// Weights are constants, activations the usual ones, and all sequences of one length.
    fn is_recurrent(&self, activations: &[&str], states: &[usize]) -> bool {
        let attributes = self.attributes();
        let given = attributes.texts("activations").unwrap_or_default().unwrap_or_default();
        let is_empty =
            |name: &str| attributes.floats(name).is_ok_and(|list| list.is_none_or(<[f32]>::is_empty));
        let batch_is_fixed = self.dims(0).get(1).is_some_and(|dim| dim.fixed().is_some());
        [1, 2, 3].into_iter().all(|at| self.is_given(at))
            && attributes.int("hidden_size", 0).is_ok_and(|size| size > 1)
            && given.len().is_multiple_of(activations.len())
            && given.iter().zip(activations.iter().cycle()).all(|(given, known)| given == known)
            && is_empty("activation_alpha")
            && is_empty("activation_beta")
            && attributes.float("clip", 0.0) == Ok(0.0)
            && self.is("layout", 0)
            && self.node.input(4).is_none()
            && states.iter().all(|&at| batch_is_fixed || self.constant(at).is_none())
    }

    /// The first operand has as many dimensions as the second or more, unless all are known; neither is empty.
    fn multiplies_alike(&self) -> bool {
        let (a, b) = (self.dims(0), self.dims(1));
        let is_fixed = |dims: &[Dim]| dims.iter().all(|dim| dim.fixed().is_some());
        let is_empty = |dims: &[Dim]| dims.contains(&Dim::Fixed(0));
        (a.len() >= b.len() || is_fixed(a) && is_fixed(b)) && !is_empty(a) && !is_empty(b)
    }

    /// From zero in steps of one up to a size: OpenVINO counts the wrong way where there is nothing to count.
    fn counts_up(&self) -> bool {
        let is = |at: usize, expected: i64| {
            let items = self.node.input(at).and_then(|id| self.graph.value(id).items.as_deref());
            items == Some(&[Item::Int(expected)][..])
        };
        let limit = self.node.input(1).and_then(|id| self.graph.value(id).items.as_deref());
        is(0, 0) && is(2, 1) && matches!(limit, Some([Item::Dim(_)]))
    }

    /// Into parts that are constants, or all the same.
    fn splits_evenly(&self) -> bool {
        if self.node.input(1).is_some() {
            return self.is_given(1);
        }
        let dims = self.dims(0);
        let rank = i64::try_from(dims.len()).unwrap_or(i64::MAX);
        let axis = self.attributes().int("axis", 0).unwrap_or(0);
        let axis = usize::try_from(if axis < 0 { axis.saturating_add(rank) } else { axis });
        let size = axis.ok().and_then(|axis| dims.get(axis)).and_then(Dim::fixed);
        size.is_some_and(|size| size.is_multiple_of(self.node.outputs.len()))
    }
}
