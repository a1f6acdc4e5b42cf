//! Signatures as they look from outside, for an engine that runs TensorFlow's graphs as they are.

use std::collections::HashSet;

use salver_tensor::{DType, Dims, Tensor};

use super::model::Shared;
use super::net::{Library, Net, calls};
use super::signature::{Asked, AskedPort, all_asked, default_of, frozen_asked};
use crate::Error;
use crate::proto::attr_value::Value;
use crate::proto::{FunctionDef, GraphDef, MetaGraphDef, NodeDef};

/// What a model has for clients.
#[derive(Debug, Default)]
pub struct Outline {
    /// The signatures.
    pub signatures: Vec<SignatureOutline>,
    /// Signatures that cannot be offered, with the reason.
    pub refused: Vec<(String, Error)>,
    /// Whether there are variables at all, whose values a SavedModel keeps in files of their own.
    pub has_variables: bool,
    /// Whether there are variables of TensorFlow 1, whose memory a reader shares with whoever changes them.
    pub has_reference_variables: bool,
}

/// One signature.
#[derive(Debug)]
pub struct SignatureOutline {
    /// The name.
    pub name: String,
    /// TensorFlow's method name.
    pub method_name: String,
    /// The inputs.
    pub inputs: Vec<PortOutline>,
    /// The outputs.
    pub outputs: Vec<PortOutline>,
    /// Whether a run assigns a variable or changes a table.
    pub changes_state: bool,
    /// Whether a run takes each element for itself, so that it computes with inputs of any shape.
    pub is_elementwise: bool,
}

/// One input or output.
#[derive(Debug)]
pub struct PortOutline {
    /// The name that clients use.
    pub name: String,
    /// The tensor's name as the signature gives it.
    pub tensor_name: String,
    /// The node that gives the tensor.
    pub node: String,
    /// Which of the node's outputs it is.
    pub output: usize,
    /// The element type that is declared; `None` where a frozen graph does not say.
    pub dtype: Option<DType>,
    /// The dimensions that are declared.
    pub dims: Dims,
    /// The number of dimensions that the graph asks of an input, where it shows.
    pub rank: Option<usize>,
    /// The value of an input that a request leaves out.
    pub default: Option<Tensor>,
}

/// The signatures of a SavedModel's graph, by the rules of [`super::import_saved_model`].
///
/// # Errors
/// When the graph is broken or there are no signatures.
pub fn outline(meta: &MetaGraphDef) -> Result<Outline, Error> {
    let graph = meta.graph_def.as_ref().ok_or_else(|| Error::invalid("a MetaGraph without graph"))?;
    let shared = Shared::outline(graph)?;
    let mut refused = Vec::new();
    let asked = all_asked(&shared, meta, &mut Vec::new(), &mut refused)?;
    finish(&shared, asked, refused)
}

/// The one signature of a frozen graph, by the rules of [`super::import_frozen`].
///
/// # Errors
/// When the graph is broken or there is nothing that it computes.
pub fn outline_frozen(graph: &GraphDef) -> Result<Outline, Error> {
    let shared = Shared::outline(graph)?;
    let asked = frozen_asked(&shared, None, None)?;
    finish(&shared, vec![asked], Vec::new())
}

fn finish(
    shared: &Shared<'_>,
    asked: Vec<Asked<'_>>,
    mut refused: Vec<(String, Error)>,
) -> Result<Outline, Error> {
    let mut signatures = Vec::new();
    let consumers = Consumers::of(&shared.main);
    for asked in asked {
        match signature(shared, &consumers, &asked) {
            Ok(signature) => signatures.push(signature),
            Err(error) => refused.push((asked.name, error)),
        }
    }
    let is_reference = |op: &str| matches!(op, "Variable" | "VariableV2" | "TemporaryVariable");
    let has_reference_variables = shared.main.nodes.iter().any(|node| is_reference(&node.def.op));
    let has_variables =
        has_reference_variables || shared.main.nodes.iter().any(|node| node.def.op == "VarHandleOp");
    Ok(Outline { signatures, refused, has_variables, has_reference_variables })
}

fn signature(
    shared: &Shared<'_>,
    consumers: &Consumers,
    asked: &Asked<'_>,
) -> Result<SignatureOutline, Error> {
    let input = |of: &AskedPort| {
        let place = |error: Error| error.at(format!("input '{}'", of.alias));
        let default = default_of(shared, asked, of).map_err(place)?;
        let rank = needed_rank(shared, consumers, of.source.node);
        Ok(PortOutline { default, rank, ..port(shared, of) })
    };
    let inputs = asked.inputs.iter().map(input).collect::<Result<Vec<_>, Error>>()?;
    let outputs = asked.outputs.iter().map(|of| port(shared, of)).collect();
    let fed: Vec<usize> = asked.inputs.iter().map(|port| port.source.node).collect();
    let fetched = asked.outputs.iter().map(|port| port.source.node).collect();
    let runs: Vec<&NodeDef> = reached(&shared.main, &fed, fetched);
    // A queue is changed by whoever takes from it; the importer knows none.
    let changes = |node: &&NodeDef| shared.library.changes(node) || node.op.starts_with("Queue");
    Ok(SignatureOutline {
        name: asked.name.clone(),
        method_name: asked.method_name.clone(),
        inputs,
        outputs,
        changes_state: runs.iter().any(changes),
        is_elementwise: is_elementwise(&shared.library, &runs),
    })
}

fn port(shared: &Shared<'_>, of: &AskedPort) -> PortOutline {
    PortOutline {
        name: of.alias.clone(),
        tensor_name: of.tensor_name.clone(),
        node: shared.main.nodes.get(of.source.node).map(|node| node.def.name.clone()).unwrap_or_default(),
        output: of.source.port,
        dtype: of.dtype,
        dims: of.dims.clone(),
        rank: None,
        default: None,
    }
}

/// These nodes and all that they wait for. What lies behind a fed node does not run.
fn reached<'a>(net: &Net<'a>, fed: &[usize], fetched: Vec<usize>) -> Vec<&'a NodeDef> {
    let mut seen = vec![false; net.len()];
    let mut queue = fetched;
    let mut found = Vec::new();
    while let Some(at) = queue.pop() {
        let Some(node) = net.nodes.get(at).filter(|_| !fed.contains(&at)) else { continue };
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        found.push(node.def);
        queue.extend(node.inputs.iter().map(|source| source.node));
        queue.extend(&node.controls);
    }
    found
}

/// Operators that take each element for itself, and those that only pass on, hold or call.
const ELEMENTWISE: &[&str] = &[
    "Abs",
    "Add",
    "AddN",
    "AddV2",
    "Cast",
    "Ceil",
    "Const",
    "Div",
    "DivNoNan",
    "Equal",
    "Exp",
    "Expm1",
    "Floor",
    "FloorDiv",
    "FloorMod",
    "Greater",
    "GreaterEqual",
    "Identity",
    "IdentityN",
    "IsFinite",
    "IsInf",
    "IsNan",
    "Less",
    "LessEqual",
    "Log",
    "Log1p",
    "LogicalAnd",
    "LogicalNot",
    "LogicalOr",
    "Maximum",
    "Minimum",
    "Mul",
    "Neg",
    "NoOp",
    "NotEqual",
    "PartitionedCall",
    "Pow",
    "ReadVariableOp",
    "RealDiv",
    "Reciprocal",
    "Relu",
    "Relu6",
    "Rint",
    "Round",
    "Rsqrt",
    "SelectV2",
    "Sigmoid",
    "Sign",
    "Sqrt",
    "Square",
    "SquaredDifference",
    "StatefulPartitionedCall",
    "Sub",
    "Tanh",
    "VarHandleOp",
    "Variable",
    "VariableV2",
];

fn is_elementwise(library: &Library<'_>, nodes: &[&NodeDef]) -> bool {
    let mut called = HashSet::new();
    let mut queue: Vec<&str> = Vec::new();
    let passes = |node: &NodeDef| ELEMENTWISE.contains(&node.op.as_str()) || library.get(&node.op).is_some();
    for node in nodes {
        if !passes(node) {
            return false;
        }
        queue.extend(calls(node));
    }
    while let Some(name) = queue.pop() {
        let Some(function) = library.get(name).filter(|_| called.insert(name)) else { continue };
        for node in &function.node_def {
            if !passes(node) {
                return false;
            }
            queue.extend(calls(node));
        }
    }
    true
}

/// Operators that take as many dimensions of their first input and no others. TensorFlow's faster kernels for some of them
/// do not say so when they are given others: they end the process.
const RANKS: &[(&str, usize)] = &[
    ("AvgPool", 4),
    ("AvgPool3D", 5),
    ("Conv2D", 4),
    ("Conv3D", 5),
    ("DepthwiseConv2dNative", 4),
    ("FusedBatchNorm", 4),
    ("FusedBatchNormV2", 4),
    ("FusedBatchNormV3", 4),
    ("LRN", 4),
    ("MaxPool", 4),
    ("MaxPool3D", 5),
    ("ResizeBilinear", 4),
    ("ResizeNearestNeighbor", 4),
];

/// Operators whose first input has as many dimensions as their output.
const KEEP_RANK: &[&str] = &[
    "Add",
    "AddV2",
    "BiasAdd",
    "Cast",
    "Identity",
    "MirrorPad",
    "Mul",
    "Pad",
    "PadV2",
    "RealDiv",
    "Relu",
    "Relu6",
    "Sub",
];

/// The same for the second input.
const FILTER_RANKS: &[(&str, usize)] = &[("Conv2D", 4), ("Conv3D", 5), ("DepthwiseConv2dNative", 4)];

/// Functions that are looked into for the rank of one input.
const MAX_CALLS: usize = 100;

/// For each node and argument, who takes it.
struct Consumers {
    /// The nodes that take it as their first input.
    first: Vec<Vec<usize>>,
    /// The nodes that take it, and as which input.
    any: Vec<Vec<(usize, usize)>>,
}

impl Consumers {
    fn of(net: &Net<'_>) -> Consumers {
        let mut consumers =
            Consumers { first: vec![Vec::new(); net.len()], any: vec![Vec::new(); net.len()] };
        for (at, node) in net.nodes.iter().enumerate() {
            if let Some(first) = node.inputs.first().and_then(|source| consumers.first.get_mut(source.node)) {
                first.push(at);
            }
            for (place, source) in node.inputs.iter().enumerate() {
                if let Some(any) = consumers.any.get_mut(source.node) {
                    any.push((at, place));
                }
            }
        }
        consumers
    }

    /// The number of dimensions that what comes from this node must have, as far as it shows in this graph. What goes from
    /// there into functions is added to `calls`: the function and which of its arguments.
    fn rank_here<'a>(
        &self,
        net: &Net<'a>,
        library: &Library<'a>,
        from: usize,
        calls: &mut Vec<(&'a FunctionDef, usize)>,
    ) -> Option<usize> {
        let mut seen = vec![false; net.len()];
        let mut queue = vec![from];
        while let Some(at) = queue.pop() {
            for &consumer in self.first.get(at).into_iter().flatten() {
                let op = net.nodes.get(consumer)?.def.op.as_str();
                if let Some((_, rank)) = RANKS.iter().find(|(known, _)| *known == op) {
                    return Some(*rank);
                }
                if KEEP_RANK.contains(&op) && !std::mem::replace(&mut seen[consumer], true) {
                    queue.push(consumer);
                }
            }
            for &(consumer, place) in self.any.get(at).into_iter().flatten() {
                let node = net.nodes.get(consumer)?;
                let filter = FILTER_RANKS.iter().find(|(known, _)| place == 1 && *known == node.def.op);
                if let Some((_, rank)) = filter {
                    return Some(*rank);
                }
                let called = called(node.def, library);
                calls.extend(called.map(|function| (function, place)));
            }
        }
        None
    }
}

/// The function that a node calls always, with its own inputs as arguments.
fn called<'a>(node: &NodeDef, library: &Library<'a>) -> Option<&'a FunctionDef> {
    let is_call = matches!(node.op.as_str(), "PartitionedCall" | "StatefulPartitionedCall");
    let attribute = node.attr.get("f").filter(|_| is_call).and_then(|f| f.value.as_ref());
    match attribute {
        Some(Value::Func(function)) => library.get(&function.name),
        _ => library.get(&node.op),
    }
}

/// The number of dimensions that what comes from this node of the main graph must have, also by functions that it goes
/// into.
fn needed_rank<'a>(shared: &Shared<'a>, consumers: &Consumers, from: usize) -> Option<usize> {
    let mut calls = Vec::new();
    let mut rank = consumers.rank_here(&shared.main, &shared.library, from, &mut calls);
    let mut seen = HashSet::new();
    while let Some((function, argument)) = calls.pop().filter(|_| rank.is_none() && seen.len() < MAX_CALLS) {
        let name = function.signature.as_ref()?.name.as_str();
        if !seen.insert((name, argument)) {
            continue;
        }
        // A function with control flow that cannot be imported says nothing.
        let Ok(net) = Net::of_function(function, &shared.library) else { continue };
        let argument = net.nodes.len() + argument;
        rank = Consumers::of(&net).rank_here(&net, &shared.library, argument, &mut calls);
    }
    rank
}
