//! The steps of one signature: what runs where, in which order, on which values.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use salver_engine::{Error, ErrorKind, LoadOptions, Model};
use salver_graph::{Block, Graph, Node, ValueId};
use salver_kernels::{Attribute, Attributes, SALVER, table_order};
use salver_tensor::{DType, Tensor};

use crate::parts::Parts;
use crate::place::{self, Place, Rules};
use crate::range::ranges;

/// Where a step finds a value.
#[derive(Debug, Clone)]
pub(crate) enum Operand {
    /// Computed or given in this run.
    Slot(usize),
    /// Part of the model.
    Constant(Tensor),
    /// Left out.
    Missing,
}

/// One step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) what: What,
    pub(crate) inputs: Vec<Operand>,
    pub(crate) outputs: Vec<usize>,
    /// Slots that nothing needs after this step.
    pub(crate) done: Vec<usize>,
    /// The node, for messages.
    pub(crate) place: String,
}

/// What a step runs.
#[derive(Debug)]
pub(crate) enum What {
    /// One operator on the host.
    Host { domain: String, op: String, attributes: Attributes },
    /// A part of the model on the engine, by its position in [`Loading::parts`].
    Part(usize),
    /// A choice on the host between two bodies.
    If { yes: Body, no: Body },
    /// A loop on the host. `scans` are its outputs that are joined from what the iterations give.
    Loop { body: Body, n_carried: usize, scans: Vec<Scan> },
}

/// What is known of an output that is joined from what iterations give: the type, and the dimensions of one iteration's
/// piece, 0 where they are not known. It is what comes out of no iterations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<usize>,
}

/// Steps with what goes in and comes out.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pub(crate) inputs: Vec<usize>,
    pub(crate) steps: Vec<Step>,
    pub(crate) outputs: Vec<Operand>,
}

impl Body {
    /// Bytes of the constants that the steps use; one that two steps use counts twice.
    pub(crate) fn n_constant_bytes(&self) -> usize {
        let of_step = |step: &Step| {
            let constants = step.inputs.iter().map(|operand| match operand {
                Operand::Constant(tensor) => tensor.n_bytes(),
                _ => 0,
            });
            let inner = match &step.what {
                What::If { yes, no } => yes.n_constant_bytes() + no.n_constant_bytes(),
                What::Loop { body, .. } => body.n_constant_bytes(),
                What::Host { attributes, .. } => attributes
                    .iter()
                    .map(
                        |(_, value)| if let Attribute::Tensor(tensor) = value { tensor.n_bytes() } else { 0 },
                    )
                    .sum(),
                What::Part(_) => 0,
            };
            constants.sum::<usize>() + inner
        };
        self.steps.iter().map(of_step).sum()
    }
}

/// The steps of one signature.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) body: Body,
    pub(crate) n_slots: usize,
}

/// An engine part, shared by the signatures that have the same one.
#[derive(Debug)]
pub(crate) struct Part {
    graph: Graph,
    pub(crate) model: Arc<dyn Model>,
    /// Positions in the model's inputs of the step's inputs: the k-th input of the model is the step's input
    /// `inputs[k]`.
    pub(crate) inputs: Vec<usize>,
    /// Positions in the model's outputs, in the order of the step's outputs.
    pub(crate) outputs: Vec<usize>,
}

/// The parts of a model while its plans are made.
#[derive(Debug)]
pub(crate) struct Loading<'a> {
    engine: &'a Parts,
    options: &'a LoadOptions,
    pub(crate) parts: Vec<Part>,
    /// Why the engine refused a part last, which then runs on the host.
    pub(crate) refusal: Option<Error>,
}

impl<'a> Loading<'a> {
    pub(crate) fn new(engine: &'a Parts, options: &'a LoadOptions) -> Loading<'a> {
        Loading { engine, options, parts: Vec::new(), refusal: None }
    }

    /// The plan of a graph whose outputs are all wanted. Loads its parts.
    pub(crate) fn plan(&mut self, graph: &Graph) -> Result<Plan, Error> {
        let ranges = ranges(graph);
        let supports = |node: &Node| self.engine.supports(graph, node);
        let mut refused = HashSet::new();
        loop {
            let rules = Rules { graph, ranges: &ranges, supports: &supports, refused: &refused };
            let mut planning = Planning {
                graph,
                rules: &rules,
                engine: self.engine,
                options: self.options,
                parts: &mut self.parts,
                refusal: &mut self.refusal,
                slots: HashMap::new(),
            };
            match planning.body(graph.body()) {
                Ok(body) => return Ok(Plan { body, n_slots: planning.slots.len() }),
                Err(Failure::Error(error)) => return Err(error),
                // What the engine does not take after all runs on the host.
                Err(Failure::Refused(nodes)) => {
                    let before = refused.len();
                    refused.extend(nodes);
                    if refused.len() == before {
                        return Err(Error::new(ErrorKind::Internal, "a part of the model was refused twice"));
                    }
                }
            }
        }
    }

    /// The parts, without the graphs they were made of.
    pub(crate) fn finish(self) -> Vec<Part> {
        let strip = |part: Part| Part { graph: Graph::default(), ..part };
        self.parts.into_iter().map(strip).collect()
    }
}

enum Failure {
    Error(Error),
    /// The engine refused a part; the nodes by their first outputs.
    Refused(Vec<ValueId>),
}

struct Planning<'a> {
    graph: &'a Graph,
    rules: &'a Rules<'a>,
    engine: &'a Parts,
    options: &'a LoadOptions,
    parts: &'a mut Vec<Part>,
    refusal: &'a mut Option<Error>,
    slots: HashMap<ValueId, usize>,
}

impl Planning<'_> {
    fn slot(&mut self, id: ValueId) -> usize {
        let next = self.slots.len();
        *self.slots.entry(id).or_insert(next)
    }

    fn operand(&mut self, id: Option<ValueId>) -> Operand {
        match id {
            None => Operand::Missing,
            Some(id) => match &self.graph.value(id).constant {
                Some(constant) => Operand::Constant(constant.clone()),
                None => Operand::Slot(self.slot(id)),
            },
        }
    }

    /// The steps of a block.
    fn body(&mut self, block: &Block) -> Result<Body, Failure> {
        let inputs = block.inputs.iter().map(|&id| self.slot(id)).collect();
        let mut steps = Vec::new();
        for stage in place::stages(self.rules, block) {
            match stage.place {
                Place::Host => {
                    for at in stage.nodes {
                        steps.push(self.host_step(&block.nodes[at])?);
                    }
                }
                Place::Engine => steps.push(self.part_step(block, &stage.nodes)?),
            }
        }
        let outputs: Vec<Operand> = block.outputs.iter().map(|&id| self.operand(Some(id))).collect();
        let defined: HashSet<usize> = steps.iter().flat_map(|step| step.outputs.iter().copied()).collect();
        mark_done(&mut steps, &outputs, |slot| defined.contains(&slot));
        Ok(Body { inputs, steps, outputs })
    }

    fn host_step(&mut self, node: &Node) -> Result<Step, Failure> {
        let place = format!("{} node '{}'", node.full_op(), node.name);
        let what = match node.op.as_str() {
            "If" if node.domain.is_empty() => {
                What::If { yes: self.inner(node, "then_branch")?, no: self.inner(node, "else_branch")? }
            }
            "Loop" if node.domain.is_empty() => {
                let n_carried = node.inputs.len().saturating_sub(2);
                let scans = node.outputs.iter().skip(n_carried).map(|&id| self.scan(id)).collect();
                What::Loop { body: self.inner(node, "body")?, n_carried, scans }
            }
            _ if !node.blocks.is_empty() => {
                let message = format!("{} with host operations in its body cannot be run", node.op);
                return Err(Failure::Error(Error::new(ErrorKind::Unsupported, message).at(place)));
            }
            _ => {
                What::Host { domain: node.domain.clone(), op: node.op.clone(), attributes: attributes(node) }
            }
        };
        let inputs = node.inputs.iter().map(|&id| self.operand(id)).collect();
        let outputs = node.outputs.iter().map(|&id| self.slot(id)).collect();
        Ok(Step { what, inputs, outputs, done: Vec::new(), place })
    }

    fn scan(&self, id: ValueId) -> Scan {
        let value = self.graph.value(id);
        let dims = value.dims.iter().flatten().skip(1).map(|dim| dim.fixed().unwrap_or(0)).collect();
        Scan { dtype: value.dtype, dims }
    }

    fn inner(&mut self, node: &Node, key: &str) -> Result<Body, Failure> {
        let block = node.block(key).ok_or_else(|| {
            let message = format!("{} without {key}", node.op);
            Failure::Error(Error::new(ErrorKind::InvalidModel, message).at(format!("node '{}'", node.name)))
        })?;
        self.body(block)
    }

    fn part_step(&mut self, block: &Block, nodes: &[usize]) -> Result<Step, Failure> {
        let order = nodes;
        let nodes: Vec<&Node> = order.iter().map(|&at| &block.nodes[at]).collect();
        let (inputs, outputs, part) = self.extract(block, order);
        let at = match self.parts.iter().position(|known| known.graph == part) {
            Some(at) => at,
            None => {
                let loaded = self.load(part).map_err(|error| match error {
                    Some(error) => Failure::Error(error),
                    None => Failure::Refused(self.culprits(block, order)),
                })?;
                self.parts.push(loaded);
                self.parts.len() - 1
            }
        };
        let place = match nodes.as_slice() {
            [one] => format!("{} node '{}'", one.full_op(), one.name),
            [first, .., last] => format!("nodes '{}' to '{}'", first.name, last.name),
            [] => String::new(),
        };
        let inputs = inputs.into_iter().map(|id| self.operand(Some(id))).collect();
        let outputs = outputs.into_iter().map(|id| self.slot(id)).collect();
        Ok(Step { what: What::Part(at), inputs, outputs, done: Vec::new(), place })
    }

    /// Nodes of a block as a graph, with the values that go in and come out.
    fn extract(&self, block: &Block, order: &[usize]) -> (Vec<ValueId>, Vec<ValueId>, Graph) {
        let members: HashSet<usize> = order.iter().copied().collect();
        let nodes: Vec<Node> = order.iter().map(|&at| block.nodes[at].clone()).collect();
        let (inputs, outputs) = self.ends(block, &members, &nodes);
        let named: Vec<(String, ValueId)> =
            outputs.iter().map(|&id| (self.graph.value(id).name.clone(), id)).collect();
        let part = self.graph.extract(&nodes, &inputs, &named);
        (inputs, outputs, part)
    }

    /// Which nodes of a part the engine refuses, by their first outputs: the last of the shortest refused beginning,
    /// or all when there is none. Loads as many beginnings as a binary search takes.
    fn culprits(&self, block: &Block, order: &[usize]) -> Vec<ValueId> {
        let refuses = |n: usize| {
            let (_, _, part) = self.extract(block, &order[..n]);
            self.engine.load(&part, self.options).is_err_and(|error| error.kind() == ErrorKind::Unsupported)
        };
        let (mut good, mut bad) = (0, order.len());
        while bad - good > 1 {
            let middle = good.midpoint(bad);
            if refuses(middle) { bad = middle } else { good = middle }
        }
        let found = order.get(bad.saturating_sub(1)).filter(|_| refuses(bad));
        let culprits: Vec<usize> = found.map_or_else(|| order.to_vec(), |&at| vec![at]);
        culprits.into_iter().filter_map(|at| block.nodes[at].outputs.first().copied()).collect()
    }

    /// What a part takes from outside of it and what is used of it outside.
    fn ends(&self, block: &Block, members: &HashSet<usize>, nodes: &[Node]) -> (Vec<ValueId>, Vec<ValueId>) {
        let own: HashSet<ValueId> = nodes.iter().flat_map(|node| node.outputs.iter().copied()).collect();
        let mut inputs = Vec::new();
        for id in nodes.iter().flat_map(|node| self.graph.used_by(node)) {
            if !own.contains(&id) && self.graph.value(id).constant.is_none() && !inputs.contains(&id) {
                inputs.push(id);
            }
        }
        let others = block.nodes.iter().enumerate().filter(|(at, _)| !members.contains(at));
        let mut used: HashSet<ValueId> = others.flat_map(|(_, node)| self.graph.used_by(node)).collect();
        used.extend(block.outputs.iter().copied());
        let outputs =
            nodes.iter().flat_map(|node| node.outputs.iter().copied()).filter(|id| used.contains(id));
        (inputs, outputs.collect())
    }

    /// Loads a part; `None` when the engine does not take it.
    fn load(&mut self, graph: Graph) -> Result<Part, Option<Error>> {
        let model = match self.engine.load(&graph, self.options) {
            Ok(model) => model,
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                tracing::debug!("a part of the model runs on the host: {error}");
                *self.refusal = Some(error);
                return Err(None);
            }
            Err(error) => return Err(Some(error)),
        };
        let lost = |name: &str| {
            Some(Error::new(
                ErrorKind::Internal,
                format!("the engine lost value '{name}' of a part of the model"),
            ))
        };
        let signature = model.signatures().first().cloned().ok_or_else(|| lost(""))?;
        let mut inputs = Vec::new();
        for spec in signature.inputs() {
            let at = graph.inputs().iter().position(|&id| graph.value(id).name == *spec.name);
            inputs.push(at.ok_or_else(|| lost(&spec.name))?);
        }
        let outputs = graph.outputs().map(|(name, _)| signature.output_index(name).ok_or_else(|| lost(name)));
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        Ok(Part { graph, model, inputs, outputs })
    }
}

/// The attributes of a node that runs on the host. A lookup table gets the order of its keys here, once for all runs.
fn attributes(node: &Node) -> Attributes {
    let mut attributes = node.attributes.clone();
    let is_table = node.domain == SALVER && node.op == "LookupTable" && attributes.get("order").is_none();
    let keys = if is_table { attributes.tensor("keys").ok().flatten() } else { None };
    // Without an order, because a key comes twice, the table is searched as it stands.
    if let Some(order) = keys.and_then(|keys| table_order(keys).ok()) {
        attributes.set("order", order);
    }
    attributes
}

/// Notes for each step which values nothing needs after it.
fn mark_done(steps: &mut [Step], outputs: &[Operand], is_own: impl Fn(usize) -> bool) {
    let slot = |operand: &Operand| if let Operand::Slot(slot) = operand { Some(*slot) } else { None };
    let mut needed: HashSet<usize> = outputs.iter().filter_map(slot).collect();
    for step in steps.iter_mut().rev() {
        let mut used: Vec<usize> = step.inputs.iter().filter_map(slot).collect();
        match &step.what {
            What::If { yes, no } => [yes, no].into_iter().for_each(|body| outside(body, &mut used)),
            What::Loop { body, .. } => outside(body, &mut used),
            _ => {}
        }
        used.extend(&step.outputs);
        for slot in used {
            if needed.insert(slot) && is_own(slot) {
                step.done.push(slot);
            }
        }
    }
}

/// Slots that a body uses, its own included: those are dropped with it.
fn outside(body: &Body, used: &mut Vec<usize>) {
    for step in &body.steps {
        used.extend(step.inputs.iter().filter_map(|operand| match operand {
            Operand::Slot(slot) => Some(*slot),
            _ => None,
        }));
        match &step.what {
            What::If { yes, no } => [yes, no].into_iter().for_each(|body| outside(body, used)),
            What::Loop { body, .. } => outside(body, used),
            _ => {}
        }
    }
    used.extend(body.outputs.iter().filter_map(|operand| match operand {
        Operand::Slot(slot) => Some(*slot),
        _ => None,
    }));
}
