//! Signatures: which tensors go in and come out, and the graph between them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use salver_graph::{Dim, Model, Port, SignatureGraph, State, ValueId};
use salver_tensor::{DEFAULT_SIGNATURE, DType, Dims, Tensor};

use super::frame::Frame;
use super::model::Shared;
use super::net::Source;
use super::session::{Purpose, Session};
use super::symbol::Symbol;
use super::{INIT_OP, TRAIN_OP, tensor_name};
use crate::Error;
use crate::ops::View;
use crate::proto::{GraphDef, MetaGraphDef, SignatureDef, TensorInfo};
use crate::read::{Files, decode_tensor, dtype_from_number, dtype_name, proto_dims};

/// The method of a signature that answers with tensors.
const PREDICT: &str = "tensorflow/serving/predict";

/// One signature as it is asked for.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) name: String,
    pub(super) method_name: String,
    pub(super) inputs: Vec<AskedPort>,
    pub(super) outputs: Vec<AskedPort>,
    definition: Option<&'a SignatureDef>,
}

#[derive(Debug)]
pub(super) struct AskedPort {
    pub(super) alias: String,
    pub(super) tensor_name: String,
    pub(super) source: Source,
    /// As the signature declares it.
    pub(super) dtype: Option<DType>,
    pub(super) dims: Dims,
}

/// What making a signature's graph showed.
struct Made {
    graph: SignatureGraph,
    assigned: BTreeSet<usize>,
}

/// All signatures of a SavedModel's graph.
pub(super) fn import(meta: &MetaGraphDef, files: &dyn Files) -> Result<Model, Error> {
    let mut shared = Shared::saved(meta, files)?;
    let mut model = Model { notes: std::mem::take(&mut shared.notes), ..Model::default() };
    let asked = all_asked(&shared, meta, &mut model.notes, &mut model.refused)?;
    all(&shared, &asked, &mut model);
    Ok(model)
}

/// The signatures that a SavedModel's graph has for clients.
pub(super) fn all_asked<'a>(
    shared: &Shared<'a>,
    meta: &'a MetaGraphDef,
    notes: &mut Vec<String>,
    refused: &mut Vec<(String, Error)>,
) -> Result<Vec<Asked<'a>>, Error> {
    let mut asked = Vec::new();
    for (name, definition) in &meta.signature_def {
        if name == INIT_OP || name == TRAIN_OP {
            notes
                .push(format!("'{name}' is run when the model is loaded and is not a signature for clients"));
            continue;
        }
        match asked_for(shared, name, definition) {
            Ok(signature) => asked.push(signature),
            Err(error) => refused.push((name.clone(), error)),
        }
    }
    if asked.is_empty() && refused.is_empty() {
        return Err(Error::invalid("the model has no signatures"));
    }
    Ok(asked)
}

/// The one signature of a frozen graph.
pub(super) fn import_frozen(
    graph: &GraphDef,
    inputs: Option<&[&str]>,
    outputs: Option<&[&str]>,
) -> Result<Model, Error> {
    let shared = Shared::frozen(graph)?;
    let asked = frozen_asked(&shared, inputs, outputs)?;
    let mut model = Model::default();
    all(&shared, &[asked], &mut model);
    match model.refused.pop() {
        Some((_, error)) => Err(error),
        None => Ok(model),
    }
}

/// The signature that a frozen graph is given.
pub(super) fn frozen_asked<'a>(
    shared: &Shared<'a>,
    inputs: Option<&[&str]>,
    outputs: Option<&[&str]>,
) -> Result<Asked<'a>, Error> {
    let outputs = match outputs {
        Some(names) => named_ports(shared, names)?,
        None => loose_ends(shared),
    };
    if outputs.is_empty() {
        return Err(Error::invalid("the graph has no outputs"));
    }
    let inputs = match inputs {
        Some(names) => named_ports(shared, names)?,
        None => placeholders(shared, &outputs),
    };
    let mut asked = Asked {
        name: DEFAULT_SIGNATURE.to_owned(),
        method_name: PREDICT.to_owned(),
        inputs,
        outputs,
        definition: None,
    };
    // A name that is used twice gets the tensor's full name.
    let mut seen = HashSet::new();
    for port in asked.outputs.iter_mut().filter(|port| !seen.insert(port.alias.clone())) {
        port.alias.clone_from(&port.tensor_name);
    }
    Ok(asked)
}

/// Makes the graphs of all signatures. Which variables they change shows only then; those become state, and what used
/// them as constants is made again.
fn all(shared: &Shared<'_>, asked: &[Asked<'_>], model: &mut Model) {
    let mut state: Vec<usize> = Vec::new();
    loop {
        let mut assigned: BTreeSet<usize> = state.iter().copied().collect();
        let mut signatures = Vec::new();
        let mut refused = Vec::new();
        for signature in asked {
            match make(shared, signature, &state) {
                Ok(mut made) => {
                    assigned.extend(&made.assigned);
                    share(&mut made.graph, &signatures);
                    signatures.push(made.graph);
                }
                Err(error) => refused.push((signature.name.clone(), error)),
            }
        }
        let all: Vec<usize> = assigned.into_iter().collect();
        if all.len() == state.len() {
            let first = |at: &usize| {
                Ok::<_, Error>(State { name: shared.variable_name(*at), initial: shared.initial(*at)? })
            };
            match state.iter().map(first).collect::<Result<Vec<_>, _>>() {
                Ok(state) => model.state = state,
                Err(error) => {
                    // Without a value to start with, nothing that touches state can run.
                    let (with, without): (Vec<_>, Vec<_>) = signatures
                        .into_iter()
                        .partition(|graph| !graph.state_inputs.is_empty() || !graph.state_outputs.is_empty());
                    refused.extend(with.into_iter().map(|graph| (graph.name, error.clone())));
                    signatures = without;
                }
            }
            model.signatures = signatures;
            model.refused.extend(refused);
            return;
        }
        state = all;
    }
}

/// Keras writes each network as two signatures: what is equal takes memory once.
fn share(made: &mut SignatureGraph, others: &[SignatureGraph]) {
    if let Some(equal) = others.iter().find(|other| other.graph == made.graph) {
        made.graph = equal.graph.clone();
    }
}

fn asked_for<'a>(shared: &Shared<'_>, name: &str, definition: &'a SignatureDef) -> Result<Asked<'a>, Error> {
    let ports = |what: &str, infos: &BTreeMap<String, TensorInfo>| {
        let port = |(alias, info): (&String, &TensorInfo)| {
            let place = || format!("{what} '{alias}'");
            asked_port(shared, alias, info).map_err(|error| error.at(place()))
        };
        infos.iter().map(port).collect::<Result<Vec<_>, Error>>()
    };
    Ok(Asked {
        name: name.to_owned(),
        method_name: definition.method_name.clone(),
        inputs: ports("input", &definition.inputs)?,
        outputs: ports("output", &definition.outputs)?,
        definition: Some(definition),
    })
}

fn asked_port(shared: &Shared<'_>, alias: &str, info: &TensorInfo) -> Result<AskedPort, Error> {
    let name = tensor_name(info).ok_or_else(|| {
        Error::unsupported("it is a sparse or composite tensor; only dense tensors are supported")
    })?;
    let dtype = dtype_from_number(info.dtype).ok_or_else(|| {
        Error::unsupported(format!("tensors of type {} are not supported", dtype_name(info.dtype)))
    })?;
    let dims = info.tensor_shape.as_ref().and_then(proto_dims).map_or_else(Dims::unknown, Dims::new);
    let source = shared.main.source_in_graph(name)?;
    Ok(AskedPort { alias: alias.to_owned(), tensor_name: name.to_owned(), source, dtype: Some(dtype), dims })
}

fn named_ports(shared: &Shared<'_>, names: &[&str]) -> Result<Vec<AskedPort>, Error> {
    names.iter().map(|name| Ok(port_at(shared, name, shared.main.source_in_graph(name)?))).collect()
}

fn port_at(shared: &Shared<'_>, alias: &str, source: Source) -> AskedPort {
    let def = shared.main.nodes[source.node].def;
    let view = View::of(def);
    let dtype = ["dtype", "T"]
        .iter()
        .find_map(|name| view.has(name).then(|| view.dtype(name, DType::F32).ok()).flatten());
    let is_placeholder = def.op.starts_with("Placeholder");
    let shape = view.shape("shape").ok().flatten().filter(|_| is_placeholder).and_then(proto_dims);
    // Old graphs write an unknown shape as one without dimensions.
    let shape = shape.filter(|dims| !dims.is_empty() || def.op != "Placeholder");
    let dims = shape.map_or_else(Dims::unknown, Dims::new);
    let tensor_name = format!("{}:{}", def.name, source.port);
    AskedPort { alias: alias.to_owned(), tensor_name, source, dtype: dtype.filter(|_| is_placeholder), dims }
}

/// The nodes that compute something that no other node uses.
fn loose_ends(shared: &Shared<'_>) -> Vec<AskedPort> {
    let net = &shared.main;
    let mut used = vec![false; net.len()];
    for node in &net.nodes {
        node.inputs.iter().for_each(|source| used[source.node] = true);
        node.controls.iter().for_each(|&control| used[control] = true);
    }
    const NOTHING: &[&str] =
        &["NoOp", "Const", "Assert", "Placeholder", "PlaceholderV2", "PlaceholderWithDefault"];
    const SIDE: &[&str] = &[
        "Print",
        "PrintV2",
        "SaveV2",
        "MergeV2Checkpoints",
        "RestoreV2",
        "VarHandleOp",
        "Switch",
        "_SwitchN",
        "Enter",
        "NextIteration",
        "LoopCond",
    ];
    let computes = |op: &str| {
        !NOTHING.contains(&op)
            && !SIDE.contains(&op)
            && !op.ends_with("Summary")
            && !op.starts_with("Assign")
            && !op.starts_with("InitializeTable")
            && !op.contains("HashTable")
    };
    let depends = |node: usize| net.flow.as_ref().is_some_and(|flow| flow.is_inside(node));
    let ends = net
        .nodes
        .iter()
        .enumerate()
        .filter(|(at, node)| !used[*at] && computes(&node.def.op) && !depends(*at));
    ends.map(|(node, found)| port_at(shared, &found.def.name, Source { node, port: 0 })).collect()
}

/// The placeholders that these outputs need.
fn placeholders(shared: &Shared<'_>, outputs: &[AskedPort]) -> Vec<AskedPort> {
    let sources: Vec<Source> = outputs.iter().map(|port| port.source).collect();
    let wanted = shared.main.wanted(&sources);
    // What has a default is an input only where a client would give it: a single number, such as "is this training" or
    // a rate of dropout, is what it is by default, and so is what the graph computes (the end of a network that was
    // trained again on the outputs of its older part).
    let is_settled = |at: usize| {
        let node = &shared.main.nodes[at];
        if node.def.op != "PlaceholderWithDefault" {
            return false;
        }
        let default = node.inputs.first().and_then(|source| shared.main.nodes.get(source.node));
        let Some(value) = default.filter(|default| default.def.op == "Const") else { return true };
        let view = View::of(value.def);
        let shape = view.tensor("value").ok().and_then(|tensor| tensor.tensor_shape.clone());
        shape.is_some_and(|shape| shape.dim.is_empty())
    };
    let own = |at: &usize| {
        let op = &shared.main.nodes[*at].def.op;
        op.starts_with("Placeholder") && wanted.contains(&Source { node: *at, port: 0 }) && !is_settled(*at)
    };
    let found = (0..shared.main.nodes.len()).filter(own);
    found.map(|node| port_at(shared, &shared.main.nodes[node].def.name, Source { node, port: 0 })).collect()
}

/// The graph of one signature, where these variables are state.
fn make(shared: &Shared<'_>, asked: &Asked<'_>, state: &[usize]) -> Result<Made, Error> {
    // Which variables it needs shows when it is made; graph inputs must be there before.
    let mut needed = BTreeSet::new();
    loop {
        let (made, used) = make_with(shared, asked, state, &needed)?;
        let more: BTreeSet<usize> = state.iter().copied().filter(|at| used.contains(at)).collect();
        if more.is_subset(&needed) {
            return Ok(made);
        }
        needed.extend(more);
    }
}

/// The graph of one signature with these variables as inputs, and the variables that it used.
fn make_with(
    shared: &Shared<'_>,
    asked: &Asked<'_>,
    state: &[usize],
    needed: &BTreeSet<usize>,
) -> Result<(Made, BTreeSet<usize>), Error> {
    let mut session = Session::new(shared, Purpose::Signature);
    let targets: Vec<Source> = asked.outputs.iter().map(|port| port.source).collect();
    let mut frame = Frame::new(shared.main.clone(), &targets);
    let inputs = feed(&mut session, &mut frame, asked)?;
    let mut state_inputs = Vec::with_capacity(needed.len());
    for (position, &at) in state.iter().enumerate().filter(|(_, at)| needed.contains(at)) {
        let initial = shared.initial(at)?;
        let dims = initial.shape().dims().iter().map(|&dim| Dim::Fixed(dim)).collect();
        let value = session.builder.input(&shared.variable_name(at), initial.dtype(), Some(dims));
        session.current.insert(at, Symbol::Value(value));
        state_inputs.push((position, value));
    }
    let nodes: Vec<usize> = targets.iter().map(|source| source.node).collect();
    session.compute(&mut frame, &nodes)?;
    if let Some(error) = session.missing.error() {
        return Err(error);
    }
    let mut outputs = Vec::with_capacity(asked.outputs.len());
    for port in &asked.outputs {
        let place = |error: Error| error.at(format!("output '{}'", port.alias));
        let symbol = frame.get(port.source).map_err(place)?;
        let value = session.value(&symbol).map_err(place)?;
        let dtype = port.dtype.unwrap_or_else(|| session.builder.dtype(value));
        let dims = match port.dims.known() {
            None if asked.definition.is_none() => salver_graph::signature_dims(session.builder.dims(value)),
            _ => port.dims.clone(),
        };
        let (name, tensor_name) = (port.alias.clone(), port.tensor_name.clone());
        outputs.push(Port { name, tensor_name, value, dtype, dims, default: None });
    }
    let mut state_outputs = Vec::new();
    for (position, &at) in state.iter().enumerate() {
        if !session.assigned.contains(&at) {
            continue;
        }
        let value = session.read(at)?;
        state_outputs.push((position, value));
    }
    let (used, assigned) = (session.used.clone(), session.assigned.clone());
    let names: Vec<String> = state_outputs
        .iter()
        .map(|(_, value)| format!("next.{}", session.builder.value(*value).name))
        .collect();
    let mut ends: Vec<(&str, ValueId)> =
        outputs.iter().map(|port| (port.name.as_str(), port.value)).collect();
    ends.extend(names.iter().map(String::as_str).zip(state_outputs.iter().map(|(_, value)| *value)));
    let graph = session.builder.finish(&ends)?;
    let (name, method_name) = (asked.name.clone(), asked.method_name.clone());
    let graph = SignatureGraph { name, method_name, inputs, outputs, graph, state_inputs, state_outputs };
    Ok((Made { graph, assigned }, used))
}

/// Makes the inputs of a signature.
fn feed<'a>(
    session: &mut Session<'_, 'a>,
    frame: &mut Frame<'a>,
    asked: &Asked<'_>,
) -> Result<Vec<Port>, Error> {
    let mut ports = Vec::with_capacity(asked.inputs.len());
    let only = asked.inputs.len() == 1;
    for port in &asked.inputs {
        let place = |error: Error| error.at(format!("input '{}'", port.alias));
        let (port_, value) = feed_one(session, frame, asked, port, only).map_err(place)?;
        session.inputs.push(value);
        ports.push(port_);
    }
    Ok(ports)
}

fn feed_one<'a>(
    session: &mut Session<'_, 'a>,
    frame: &mut Frame<'a>,
    asked: &Asked<'_>,
    port: &AskedPort,
    only: bool,
) -> Result<(Port, ValueId), Error> {
    if port.source.port != 0 {
        return Err(Error::unsupported(format!(
            "the tensor '{}' is fed, expected a first output",
            port.tensor_name
        )));
    }
    if frame.is_done(port.source.node) {
        let symbol = frame.get(port.source)?;
        let value = session.value(&symbol)?;
        return port_of(session, asked, port, value).map(|port| (port, value));
    }
    let net = frame.net.clone();
    let def = net.nodes[port.source.node].def;
    let view = View::of(def);
    // The type that is declared for metadata may be another one than the model computes with.
    let own = if def.op.starts_with("Placeholder") && view.has("dtype") {
        Some(view.dtype("dtype", DType::F32)?)
    } else {
        None
    };
    let dtype = own.or(port.dtype).ok_or_else(|| Error::unsupported("its element type is not known"))?;
    let dim = |(axis, size): (usize, &Option<usize>)| match size {
        Some(size) => Dim::Fixed(*size),
        None if axis == 0 && only => Dim::symbol("batch"),
        None => Dim::symbol(&format!("{}_{axis}", port.alias)),
    };
    let dims = port.dims.known().map(|dims| dims.iter().enumerate().map(dim).collect());
    let value = session.builder.input(&port.alias, dtype, dims);
    frame.bind(port.source.node, vec![Symbol::Value(value)]);
    port_of(session, asked, port, value).map(|port| (port, value))
}

fn port_of(
    session: &Session<'_, '_>,
    asked: &Asked<'_>,
    port: &AskedPort,
    value: ValueId,
) -> Result<Port, Error> {
    let default = default_of(session.model, asked, port)?;
    Ok(Port {
        name: port.alias.clone(),
        tensor_name: port.tensor_name.clone(),
        value,
        dtype: port.dtype.unwrap_or_else(|| session.builder.dtype(value)),
        dims: port.dims.clone(),
        default,
    })
}

/// The value that an input has when a request leaves it out.
pub(super) fn default_of(
    shared: &Shared<'_>,
    asked: &Asked<'_>,
    port: &AskedPort,
) -> Result<Option<Tensor>, Error> {
    let given = asked.definition.and_then(|definition| definition.defaults.get(&port.alias));
    // A frozen graph has its defaults in itself.
    let main = &shared.main;
    let own = main
        .nodes
        .get(port.source.node)
        .filter(|node| asked.definition.is_none() && node.def.op == "PlaceholderWithDefault");
    let own =
        own.and_then(|node| main.nodes.get(node.inputs.first()?.node)).filter(|node| node.def.op == "Const");
    let default = given.or(own.and_then(|node| View::of(node.def).tensor("value").ok()));
    default.map(|proto| decode_tensor(proto, &shared.budget)).transpose()
}
