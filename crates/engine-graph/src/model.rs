//! A loaded model and its sessions.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use salver_engine::{Error, ErrorKind, LoadOptions, Model, Precision, Session};
use salver_graph::{Passes, SignatureGraph, ValueId};
use salver_tensor::{Signature, Tensor, TensorSpec};

use crate::engine_error;
use crate::parts::Parts;
use crate::plan::{Loading, Part, Plan};
use crate::ranges::Quantising;
use crate::run::{self, Sessions};
use crate::shapes::is_elementwise;

/// A model that was imported. Weights are shared by all its sessions.
#[derive(Debug, Clone)]
pub struct GraphModel {
    signatures: Vec<Arc<Signature>>,
    refused: Arc<[(Arc<str>, Error)]>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    runs: Vec<Run>,
    parts: Vec<Part>,
    /// What signatures change. A signature that changes any of it holds the lock for its whole run.
    state: Mutex<Vec<Tensor>>,
    n_bytes: u64,
    /// Whether a signature has a loop, on the host or in a part.
    has_loops: bool,
}

/// How one signature is run.
#[derive(Debug)]
struct Run {
    plan: Plan,
    /// A plan for inputs of other dimensions than the signature's, where the graph computes with any.
    any_shape: Option<Plan>,
    /// For each input of the graph, where it comes from.
    sources: Vec<Source>,
    /// The graph's outputs: first the signature's, in its order, then these of the state.
    n_outputs: usize,
    state_outputs: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// An input of the signature, by position.
    Input(usize),
    /// A variable, by position.
    State(usize),
}

impl Run {
    /// Whether inputs alone decide what comes out.
    fn is_pure(&self) -> bool {
        self.state_outputs.is_empty() && !self.sources.iter().any(|source| matches!(source, Source::State(_)))
    }

    /// Whether the graph's inputs are the signature's in its order.
    fn is_direct(&self) -> bool {
        self.sources.iter().enumerate().all(|(at, source)| *source == Source::Input(at))
    }
}

/// Whether inputs are held to the dimensions that a signature has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shapes {
    /// They are.
    Checked,
    /// They are not where the graph computes with others as well.
    Any,
}

impl GraphModel {
    /// Places and loads every signature of an imported model, in the precision that the options say.
    pub(crate) fn new(
        model: salver_graph::Model,
        shapes: Shapes,
        engine: &Parts,
        options: &LoadOptions,
    ) -> Result<GraphModel, Error> {
        let mut quantising = Quantising::new(options)?;
        let mut turn = |signature: SignatureGraph| {
            let (signature, _) = signature.optimised(&Passes::all());
            match &mut quantising {
                Some(quantising) => quantising.turn(signature),
                None => Ok(signature),
            }
        };
        let model = GraphModel::turned(model, shapes, engine, options, &mut turn)?;
        quantising.map_or(Ok(()), |quantising| quantising.finish())?;
        Ok(model)
    }

    /// Places and loads every signature as it is when `turn` is done with it.
    pub(crate) fn turned(
        model: salver_graph::Model,
        shapes: Shapes,
        engine: &Parts,
        options: &LoadOptions,
        turn: &mut dyn FnMut(SignatureGraph) -> Result<SignatureGraph, Error>,
    ) -> Result<GraphModel, Error> {
        let salver_graph::Model { signatures: graphs, refused, state, notes } = model;
        for note in &notes {
            tracing::debug!("{note}");
        }
        let mut loading = Loading::new(engine, options);
        let (mut signatures, mut runs) = (Vec::new(), Vec::new());
        let refused = refused.into_iter().map(|(name, error)| (Arc::from(name), engine_error(&error)));
        let mut refused: Vec<(Arc<str>, Error)> = refused.collect();
        let mut has_loops = false;
        for graph in graphs {
            let name = graph.name.clone();
            graph.graph.body().visit(&mut |node| has_loops |= node.is("Loop"));
            match turn(graph).and_then(|graph| prepare(graph, shapes, &mut loading)) {
                Ok((signature, run)) => {
                    signatures.push(Arc::new(signature));
                    runs.push(run);
                }
                Err(error) => refused.push((Arc::from(name), error)),
            }
        }
        if signatures.is_empty() {
            let none = || Error::new(ErrorKind::InvalidModel, "the model has no signature that can be run");
            let first = refused.into_iter().next();
            return Err(first.map_or_else(none, |(name, error)| in_signature(&name, error)));
        }
        // The host computes as the model was exported: an engine that does not have the precision must not be passed over.
        if let (true, Some(refusal)) = (loading.parts.is_empty(), loading.refusal.take())
            && options.precision != Precision::F32
        {
            return Err(refusal);
        }
        let parts = loading.finish();
        let on_the_host = runs.iter().map(|run| run.plan.body.n_constant_bytes()).sum::<usize>();
        let n_bytes = parts.iter().map(|part| part.model.n_bytes()).sum::<u64>() + on_the_host as u64;
        let state = Mutex::new(state.into_iter().map(|state| state.initial).collect());
        let shared = Shared { runs, parts, state, n_bytes, has_loops };
        Ok(GraphModel { signatures, refused: refused.into(), shared: Arc::new(shared) })
    }
}

fn in_signature(name: &str, error: Error) -> Error {
    let place = match error.location() {
        Some(place) => format!("signature '{name}': {place}"),
        None => format!("signature '{name}'"),
    };
    error.at(place)
}

fn prepare(
    signature: SignatureGraph,
    shapes: Shapes,
    loading: &mut Loading<'_>,
) -> Result<(Signature, Run), Error> {
    let SignatureGraph { name, method_name, inputs, outputs, graph, state_inputs, state_outputs } = signature;
    let taken = inputs.iter().map(|port| own(port, graph.value(port.value))).collect();
    let given = outputs.iter().map(|port| own_output(port, graph.value(port.value))).collect();
    let made = Signature::new(name, method_name, taken, given)
        .with_declared(inputs.iter().map(declared).collect(), outputs.iter().map(declared).collect());
    // What only reads a variable may be joined and tried: it changes nothing.
    let made = if state_outputs.is_empty() { made } else { made.with_state() };
    let source = |id: &ValueId| {
        let port = inputs.iter().find(|port| port.value == *id).and_then(|port| made.input_index(&port.name));
        let state = state_inputs.iter().find(|(_, value)| value == id).map(|(at, _)| Source::State(*at));
        port.map(Source::Input).or(state)
    };
    let lost = || Error::new(ErrorKind::Internal, "an input of the graph is neither a signature's nor state");
    let sources =
        graph.inputs().iter().map(|id| source(id).ok_or_else(lost)).collect::<Result<Vec<_>, _>>()?;
    let output =
        |spec: &TensorSpec| outputs.iter().find(|port| port.name == *spec.name).map(|port| port.value);
    let mut wanted: Vec<ValueId> =
        made.outputs().iter().map(|spec| output(spec).ok_or_else(lost)).collect::<Result<_, _>>()?;
    let n_outputs = wanted.len();
    wanted.extend(state_outputs.iter().map(|(_, id)| *id));
    let graph = with_outputs(&graph, &wanted);
    let plan = loading.plan(&graph)?;
    let state_outputs = state_outputs.into_iter().map(|(at, _)| at).collect();
    let run = Run { plan, any_shape: None, sources, n_outputs, state_outputs };
    if shapes == Shapes::Checked || !run.is_pure() || !is_elementwise(&graph) {
        return Ok((made, run));
    }
    // An engine may hold a part to the shapes that it was loaded with; the host does not.
    let any_shape = Loading::new(&Parts::none(), &LoadOptions::default()).plan(&graph)?;
    Ok((made.with_any_shape(), Run { any_shape: Some(any_shape), ..run }))
}

/// An input or output as the model declares it.
fn declared(port: &salver_graph::Port) -> TensorSpec {
    TensorSpec {
        name: port.name.as_str().into(),
        tensor_name: port.tensor_name.as_str().into(),
        dtype: port.dtype,
        dims: port.dims.clone(),
        default: port.default.clone(),
    }
}

/// An input or output as the graph has it. TensorFlow does not hold a model to what it declares: one may say that it takes
/// floats and take strings, or say one shape and take any.
fn own(port: &salver_graph::Port, value: &salver_graph::Value) -> TensorSpec {
    let dims = salver_graph::signature_dims(value.dims.as_deref());
    TensorSpec { dtype: value.dtype, dims, ..declared(port) }
}

/// An output, whose dimensions are as declared where the graph does not tell: rows are told by them.
fn own_output(port: &salver_graph::Port, value: &salver_graph::Value) -> TensorSpec {
    let own = own(port, value);
    let dims = if own.dims.known().is_none() { port.dims.clone() } else { own.dims.clone() };
    TensorSpec { dims, ..own }
}

/// The same graph with its outputs in this order.
fn with_outputs(graph: &salver_graph::Graph, wanted: &[ValueId]) -> salver_graph::Graph {
    let outputs: Vec<(String, ValueId)> =
        wanted.iter().enumerate().map(|(at, &id)| (format!("output_{at}"), id)).collect();
    graph.extract(&graph.body().nodes, graph.inputs(), &outputs)
}

impl Model for GraphModel {
    fn signatures(&self) -> &[Arc<Signature>] {
        &self.signatures
    }

    fn refused(&self) -> &[(Arc<str>, Error)] {
        &self.refused
    }

    fn session(&self) -> Result<Box<dyn Session>, Error> {
        let sessions = Sessions::new(self.shared.parts.len());
        let (signatures, shared) = (self.signatures.clone(), Arc::clone(&self.shared));
        Ok(Box::new(GraphSession { signatures, shared, sessions }))
    }

    fn enter(&self, threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        match self.shared.parts.first() {
            Some(part) => part.model.enter(threads, body),
            None => body(),
        }
    }

    fn is_entered(&self) -> bool {
        self.shared.parts.first().is_none_or(|part| part.model.is_entered())
    }

    fn has_loops(&self) -> bool {
        self.shared.has_loops
    }

    fn n_bytes(&self) -> u64 {
        self.shared.n_bytes
    }

    fn abandon(&self) {
        self.shared.parts.iter().for_each(|part| part.model.abandon());
    }
}

struct GraphSession {
    signatures: Vec<Arc<Signature>>,
    shared: Arc<Shared>,
    sessions: Sessions,
}

impl Session for GraphSession {
    fn run(&mut self, signature: usize, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, Error> {
        let unknown = || Error::new(ErrorKind::InvalidInput, format!("no signature {signature}"));
        let run = self.shared.runs.get(signature).ok_or_else(unknown)?;
        let plan = match (&run.any_shape, self.signatures.get(signature)) {
            (Some(plan), Some(signature)) if !fit(signature, inputs) => plan,
            _ => &run.plan,
        };
        let parts = &self.shared.parts;
        let results = if !run.state_outputs.is_empty() {
            let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            let given = given(run, inputs, &state)?;
            let mut results = run::run(&run.plan, parts, &mut self.sessions, &given)?;
            for (&at, value) in
                run.state_outputs.iter().zip(results.split_off(run.n_outputs.min(results.len())))
            {
                if let Some(variable) = state.get_mut(at) {
                    *variable = value;
                }
            }
            results
        } else if run.is_direct() && inputs.len() == run.sources.len() {
            run::run(plan, parts, &mut self.sessions, inputs)?
        } else {
            // Whoever only reads the state takes what it is now and holds nobody up.
            let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
            run::run(plan, parts, &mut self.sessions, &given(run, inputs, &state)?)?
        };
        pick(results, outputs)
    }
}

fn given(run: &Run, inputs: &[Tensor], state: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    let lost = || Error::new(ErrorKind::InvalidInput, format!("{} inputs, expected more", inputs.len()));
    let value = |source: &Source| match source {
        Source::Input(at) => inputs.get(*at).cloned().ok_or_else(lost),
        Source::State(at) => state.get(*at).cloned().ok_or_else(lost),
    };
    run.sources.iter().map(value).collect()
}

fn fit(signature: &Signature, inputs: &[Tensor]) -> bool {
    signature.inputs().iter().zip(inputs).all(|(spec, input)| spec.dims.accepts(input.shape()))
}

/// The outputs asked for, in the order asked for.
fn pick(results: Vec<Tensor>, outputs: &[usize]) -> Result<Vec<Tensor>, Error> {
    if outputs.len() == results.len() && outputs.iter().enumerate().all(|(at, &wanted)| at == wanted) {
        return Ok(results);
    }
    let none = || Error::new(ErrorKind::InvalidInput, "no such output");
    outputs.iter().map(|&at| results.get(at).cloned().ok_or_else(none)).collect()
}
