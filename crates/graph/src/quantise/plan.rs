//! Which nodes and values become `int8`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hasher;

use salver_tensor::{DType, Tensor};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::{MIN_WEIGHTS, Report};
use crate::{Graph, Node, ValueId};

/// What a node is to quantisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A product or convolution in `int8`.
    Compute(Compute),
    /// The addition of a bias to a product, which is part of the product now.
    Gone,
    /// It takes and gives values in `int8`.
    Between,
    /// As it was.
    Float,
}

/// A product or convolution in `int8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compute {
    /// What a convolution gives behind its activation, a product behind the addition of its bias.
    pub(super) end: ValueId,
    /// The bias.
    pub(super) bias: Option<ValueId>,
}

/// What becomes of a graph.
#[derive(Debug)]
pub(super) struct Plan {
    /// By node of the outermost block.
    pub(super) roles: Vec<Role>,
    /// The values that are rounded, and for each the value whose range it has.
    pub(super) values: BTreeMap<ValueId, ValueId>,
    /// Values that convolutions give: all nodes that take one take what is left of it in `int8`, since engines fuse a
    /// convolution only then.
    pub(super) ends: HashSet<ValueId>,
    kept: Vec<(usize, &'static str)>,
}

impl Plan {
    /// What becomes of a graph of whose values these are `measured`.
    pub(super) fn new(graph: &Graph, measured: &dyn Fn(ValueId) -> bool) -> Plan {
        let mut planning = Planning {
            graph,
            uses: Uses::new(graph),
            measured,
            roots: vec![None; graph.values().len()],
            computes: vec![None; graph.body().nodes.len()],
            kept: Vec::new(),
        };
        planning.forwards();
        planning.backwards()
    }

    /// The values whose ranges are needed, each once.
    pub(super) fn measured(&self) -> Vec<ValueId> {
        let roots: BTreeSet<ValueId> = self.values.values().copied().collect();
        roots.into_iter().collect()
    }

    pub(super) fn report(&self, graph: &Graph) -> Report {
        let nodes = &graph.body().nodes;
        let computes = nodes.iter().zip(&self.roles).filter(|(_, role)| matches!(role, Role::Compute(_)));
        Report {
            quantised: computes.map(|(node, _)| node.name.clone()).collect(),
            kept: self.kept.iter().map(|&(at, why)| (nodes[at].name.clone(), why)).collect(),
        }
    }
}

/// Who uses each value of the outermost block.
struct Uses {
    /// By value: the nodes that take it as an input, as often as they do.
    takers: Vec<Vec<usize>>,
    /// By value: whether it is an output of the graph or used inside a body.
    is_seen: Vec<bool>,
}

impl Uses {
    fn new(graph: &Graph) -> Uses {
        let n = graph.values().len();
        let mut uses = Uses { takers: vec![Vec::new(); n], is_seen: vec![false; n] };
        graph.body().outputs.iter().for_each(|id| uses.is_seen[id.index()] = true);
        for (at, node) in graph.body().nodes.iter().enumerate() {
            node.present_inputs().for_each(|id| uses.takers[id.index()].push(at));
            if !node.blocks.is_empty() {
                graph.used_by(node).into_iter().for_each(|id| uses.is_seen[id.index()] = true);
            }
        }
        uses
    }
}

/// Why a product or convolution stays in floats. `None` for a product of two activations, which is none of ours.
type Kept = Option<&'static str>;

struct Planning<'a> {
    graph: &'a Graph,
    uses: Uses,
    measured: &'a dyn Fn(ValueId) -> bool,
    /// By value that can be there in `int8`: the value whose range it has.
    roots: Vec<Option<ValueId>>,
    computes: Vec<Option<Compute>>,
    kept: Vec<(usize, &'static str)>,
}

impl Planning<'_> {
    fn is_float(&self, id: ValueId) -> bool {
        self.graph.value(id).dtype == DType::F32
    }

    fn constant(&self, id: ValueId) -> Option<&Tensor> {
        self.graph.value(id).constant.as_ref()
    }

    /// The value whose range a value has when it is rounded.
    fn root(&self, id: ValueId) -> ValueId {
        self.roots[id.index()].unwrap_or(id)
    }

    /// What can become `int8`, and which values can be there in it.
    fn forwards(&mut self) {
        let graph = self.graph;
        for &id in graph.inputs() {
            self.roots[id.index()] = Some(id).filter(|&id| self.is_float(id) && (self.measured)(id));
        }
        for (at, node) in graph.body().nodes.iter().enumerate() {
            if !(node.is("Conv") || node.is("Gemm") || node.is("MatMul")) {
                self.between(node);
                continue;
            }
            match self.compute(node) {
                Ok(compute) => {
                    self.computes[at] = Some(compute);
                    if node.is("Conv") {
                        self.roots[compute.end.index()] = Some(compute.end);
                    }
                }
                Err(why) => self.kept.extend(why.map(|why| (at, why))),
            }
        }
    }

    /// A product or convolution that can be in `int8`.
    fn compute(&self, node: &Node) -> Result<Compute, Kept> {
        let (Some(x), Some(w), &[y]) = (node.input(0), node.input(1), node.outputs.as_slice()) else {
            return Err(None);
        };
        let Some(weights) = self.constant(w).filter(|_| self.constant(x).is_none()) else {
            return Err(node.is("Conv").then_some("its weights are not constant"));
        };
        if !self.is_float(x) {
            return Err(Some("it does not compute in float32"));
        }
        self.weights_fit(node, weights)?;
        let n = weights.shape().dims().get(output_axis(node)).copied().unwrap_or(0);
        let bias = node.input(2);
        if bias.is_some_and(|bias| !self.is_bias(bias, n)) {
            return Err(Some("its bias is not one constant for each channel"));
        }
        let is_conv = node.is("Conv");
        let compute = match self.added(node, y, n) {
            _ if is_conv => Compute { end: self.end(y), bias },
            Some(compute) => compute,
            None => Compute { end: y, bias },
        };
        if is_conv && self.uses.is_seen[compute.end.index()] {
            return Err(Some("its result is an output, or used in a body"));
        }
        let is_measured = (self.measured)(self.root(x)) && (!is_conv || (self.measured)(compute.end));
        if is_measured {
            Ok(compute)
        } else {
            Err(Some("a value that it takes or gives has no usable range"))
        }
    }

    /// Whether engines have the operator in `int8` with such weights.
    fn weights_fit(&self, node: &Node, weights: &Tensor) -> Result<(), Kept> {
        let finite = weights.to_slice::<f32>().is_some_and(|weights| weights.iter().all(|w| w.is_finite()));
        if !finite || weights.shape().n_elements() == 0 {
            return Err(Some("its weights are not finite"));
        }
        let rank = weights.shape().rank();
        if node.is("Conv") {
            let fits = (3..=5).contains(&rank);
            return if fits { Ok(()) } else { Err(Some("it moves along none or more than three axes")) };
        }
        let factor = |name| node.attributes.float(name, 1.0).unwrap_or(f32::NAN);
        match () {
            () if rank != 2 => Err(Some("its weights are not a matrix")),
            () if weights.shape().n_elements() < MIN_WEIGHTS => Err(Some("it is too small")),
            () if node.attributes.flag("transA", false) != Ok(false) => Err(Some("its input is transposed")),
            () if factor("alpha") != 1.0 || factor("beta") != 1.0 => Err(Some("it has factors")),
            () => Ok(()),
        }
    }

    /// Whether a value is a finite constant with one element for each of `n` channels.
    fn is_bias(&self, id: ValueId, n: usize) -> bool {
        let constant = self.constant(id).filter(|bias| bias.shape().dims() == [n]);
        let values = constant.and_then(|bias| bias.to_slice::<f32>());
        values.is_some_and(|bias| bias.iter().all(|b| b.is_finite()))
    }

    /// A product of matrices with the bias that is added to it: engines have both as one, and in `int8` only as one.
    fn added(&self, node: &Node, y: ValueId, n: usize) -> Option<Compute> {
        let &[taker] = self.uses.takers[y.index()].as_slice() else { return None };
        let add = &self.graph.body().nodes[taker];
        let rank = node.input(0).and_then(|x| self.graph.value(x).dims.as_ref()).map(Vec::len);
        let fits = node.is("MatMul") && add.is("Add") && rank == Some(2) && !self.uses.is_seen[y.index()];
        let bias = add.present_inputs().find(|&id| self.is_bias(id, n)).filter(|_| fits)?;
        Some(Compute { end: *add.outputs.first()?, bias: Some(bias) })
    }

    /// What a convolution gives behind the activation that engines compute along with it.
    fn end(&self, y: ValueId) -> ValueId {
        let &[taker] = self.uses.takers[y.index()].as_slice() else { return y };
        let after = &self.graph.body().nodes[taker];
        let is_constant = |at| after.input(at).is_none_or(|id| self.constant(id).is_some());
        let is_activation = after.is("Relu") || after.is("Clip") && is_constant(1) && is_constant(2);
        match after.outputs.as_slice() {
            &[end] if is_activation && after.input(0) == Some(y) && !self.uses.is_seen[y.index()] => end,
            _ => y,
        }
    }

    /// Notes what a node gives as something that can be there in `int8`, when all that it takes can.
    fn between(&mut self, node: &Node) {
        let (Some(kind), &[y]) = (Between::of(node), node.outputs.as_slice()) else { return };
        let data = data_inputs(node);
        let all_there = !data.is_empty() && data.iter().all(|id| self.roots[id.index()].is_some());
        if !all_there || self.uses.is_seen[y.index()] || !self.is_float(y) {
            return;
        }
        match kind {
            Between::Moves => self.roots[y.index()] = Some(self.root(data[0])),
            Between::Computes if (self.measured)(y) => self.roots[y.index()] = Some(y),
            Between::Computes => {}
        }
    }

    /// What becomes `int8` because something that computes in it takes it.
    fn backwards(mut self) -> Plan {
        let nodes = &self.graph.body().nodes;
        let mut roles = vec![Role::Float; nodes.len()];
        let (mut values, mut ends) = (BTreeMap::new(), HashSet::new());
        for (at, node) in nodes.iter().enumerate().rev() {
            if let (Some(compute), Some(x)) = (self.computes[at], node.input(0)) {
                roles[at] = Role::Compute(compute);
                values.insert(x, self.root(x));
                if node.is("Conv") {
                    values.insert(compute.end, compute.end);
                    ends.insert(compute.end);
                } else if !node.outputs.contains(&compute.end) {
                    let adds = node.outputs.iter().flat_map(|y| &self.uses.takers[y.index()]);
                    adds.for_each(|&add| roles[add] = Role::Gone);
                }
            } else if let (Some(_), &[y]) = (Between::of(node), node.outputs.as_slice())
                && values.contains_key(&y)
                && self.roots[y.index()].is_some()
            {
                roles[at] = Role::Between;
                values.extend(data_inputs(node).into_iter().map(|id| (id, self.root(id))));
            }
        }
        self.kept.sort_unstable();
        Plan { roles, values, ends, kept: self.kept }
    }
}

/// The axis of a weight along which the results of different channels are computed.
pub(super) fn output_axis(node: &Node) -> usize {
    let is_turned = node.attributes.flag("transB", false).unwrap_or(false);
    usize::from(!(node.is("Conv") || is_turned))
}

/// What may lie between others in `int8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    /// It only moves elements: its result has its input's range.
    Moves,
    /// Its result has a range of its own.
    Computes,
}

impl Between {
    fn of(node: &Node) -> Option<Between> {
        if !node.domain.is_empty() {
            return None;
        }
        match node.op.as_str() {
            "MaxPool" | "Reshape" | "Transpose" | "Flatten" | "Squeeze" | "Unsqueeze" => Some(Between::Moves),
            "Resize" if node.attributes.text("mode", "nearest") == Ok("nearest") => Some(Between::Moves),
            "Concat" | "Add" | "AveragePool" | "GlobalAveragePool" => Some(Between::Computes),
            _ => None,
        }
    }
}

/// The inputs that are not shapes or sizes.
pub(super) fn data_inputs(node: &Node) -> Vec<ValueId> {
    match node.op.as_str() {
        "Concat" | "Add" => node.present_inputs().collect(),
        _ => node.input(0).into_iter().collect(),
    }
}

/// A number for all that a plan looks at and writes.
pub(super) fn fingerprint(graph: &Graph, plan: &Plan) -> u128 {
    let mut hasher = SipHasher13::new();
    let write = |hasher: &mut SipHasher13, bytes: &[u8]| {
        hasher.write(&(bytes.len() as u64).to_le_bytes());
        hasher.write(bytes);
    };
    // An activation behind a convolution stays a node of its own, and decides the range of what the convolution gives.
    let is_read =
        |node: &Node, role: Role| role != Role::Float || node.outputs.iter().any(|y| plan.ends.contains(y));
    let all = graph.body().nodes.iter().zip(&plan.roles);
    for (node, role) in all.filter(|(node, role)| is_read(node, **role)) {
        write(&mut hasher, node.op.as_bytes());
        for (name, attribute) in node.attributes.iter() {
            write(&mut hasher, name.as_bytes());
            write(&mut hasher, format!("{attribute:?}").as_bytes());
        }
        for id in node.present_inputs().chain(node.outputs.iter().copied()) {
            let value = graph.value(id);
            // Constants have names of whatever made them.
            let constant = value.constant.as_ref().and_then(Tensor::bytes);
            write(&mut hasher, constant.map_or(value.name.as_bytes(), |bytes| bytes));
        }
        if let Role::Compute(compute) = role {
            write(&mut hasher, graph.value(compute.end).name.as_bytes());
        }
    }
    hasher.finish128().as_u128()
}
