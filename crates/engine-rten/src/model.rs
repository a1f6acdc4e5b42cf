//! A loaded model and its sessions.

use std::any::Any;
use std::fmt;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rten::{LoadError, LoadErrorKind, ModelOptions, NodeId, RunError, RunErrorKind, RunOptions, Value};
use salver_engine::{Error, ErrorKind, Model, Session};
use salver_graph::onnx;
use salver_tensor::{Signature, Tensor};

use crate::check::{self, Guard};
use crate::file::{self, Files};
use crate::signature::Ports;
use crate::{convert, operators, pool};
use salver_graph::onnx::proto::ModelProto;

/// The oldest and the newest version of ONNX's operators that this engine knows the meaning of.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=28;

/// An ONNX model on rten. Weights are shared by all sessions.
#[derive(Clone)]
pub struct RtenModel {
    signatures: [Arc<Signature>; 1],
    shared: Arc<Shared>,
}

/// What sessions need.
struct Shared {
    model: rten::Model,
    signature: Arc<Signature>,
    inputs: Vec<NodeId>,
    outputs: Vec<NodeId>,
    guards: Vec<(NodeId, Guard)>,
    n_bytes: u64,
    has_loops: bool,
}

impl fmt::Debug for RtenModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtenModel").field("signature", &self.signatures[0]).finish_non_exhaustive()
    }
}

impl RtenModel {
    /// Loads an ONNX file and the files beside it that hold its weights.
    pub(crate) fn load(path: &Path) -> Result<RtenModel, Error> {
        let in_file = |error: Error| match error.location() {
            Some(place) if !place.starts_with(&*path.to_string_lossy()) => {
                let place = format!("{}: {place}", path.display());
                error.at(place)
            }
            Some(_) => error,
            None => error.at(path.display().to_string()),
        };
        let proto = file::read_model(path)?;
        prepare(proto, Some(path)).map_err(in_file)
    }

    /// Takes a graph over. Its large weights are copied once, into one piece of memory that rten computes from.
    pub(crate) fn from_graph(graph: &salver_graph::Graph) -> Result<RtenModel, Error> {
        let mut proto = onnx::model(graph, &onnx::Labels::default()).map_err(|error| graph_error(&error))?;
        let files = Files::in_memory(&mut proto);
        operators::check(proto.graph.as_ref().ok_or_else(|| invalid("the file holds no graph"))?)?;
        hand_over(proto, salver_graph::OPSET, files)
    }

    /// Loads an ONNX file that refers to no other files.
    pub(crate) fn from_bytes(bytes: Bytes) -> Result<RtenModel, Error> {
        prepare(file::decode(bytes)?, None)
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidModel, message)
}

fn graph_error(error: &salver_graph::Error) -> Error {
    let kind = match error.kind() {
        salver_graph::ErrorKind::Unsupported => ErrorKind::Unsupported,
        salver_graph::ErrorKind::TooLarge => ErrorKind::ResourceExhausted,
        _ => ErrorKind::InvalidModel,
    };
    let place = error.place().map(str::to_owned);
    let error = Error::new(kind, error.message());
    if let Some(place) = place { error.at(place) } else { error }
}

/// The version of ONNX's own operators.
fn opset(proto: &ModelProto) -> Result<i64, Error> {
    let own = |domain: &str| matches!(domain, "" | "ai.onnx");
    let import = proto.opset_import.iter().find(|import| own(import.domain()));
    let version =
        import.map(|import| import.version()).ok_or_else(|| invalid("the model imports no operator set"))?;
    if OPSETS.contains(&version) {
        return Ok(version);
    }
    let message = format!(
        "operator set {version} is not one the embedded engine knows (expected {} to {})",
        OPSETS.start(),
        OPSETS.end()
    );
    Err(Error::new(ErrorKind::Unsupported, message))
}

/// Checks a model, puts it into the form that rten takes, and hands it over.
fn prepare(mut proto: ModelProto, path: Option<&Path>) -> Result<RtenModel, Error> {
    let opset = opset(&proto)?;
    let graph = proto.graph.as_mut().ok_or_else(|| invalid("the file holds no graph"))?;
    operators::check(graph)?;
    let files = Files::resolve(graph, path)?;
    hand_over(proto, opset, files)
}

fn hand_over(mut proto: ModelProto, opset: i64, files: Files) -> Result<RtenModel, Error> {
    let graph = proto.graph.as_mut().ok_or_else(|| invalid("the file holds no graph"))?;
    let ports = Ports::of(graph)?;
    let has_loops = operators::has_loops(graph);
    let checked = check::check(graph, opset, &files)?;
    graph.doc_string = None;
    (proto.training_info, proto.functions, proto.metadata_props) = Default::default();
    let bytes = proto.encode_to_vec();
    drop(proto);
    let mut options = ModelOptions::with_all_ops();
    for (name, content) in files.into_named() {
        options.external_data(&name, content);
    }
    let model = caught(|| options.load(bytes))
        .map_err(|panic| load_panic(&panic))?
        .map_err(|error| load_error(&error))?;
    RtenModel::new(model, &ports, checked, has_loops)
}

impl RtenModel {
    fn new(
        model: rten::Model,
        ports: &Ports,
        checked: check::Checked,
        has_loops: bool,
    ) -> Result<RtenModel, Error> {
        let lost = || Error::new(ErrorKind::Internal, "the engine lost an input or output of the model");
        let signature = Arc::new(ports.signature());
        let (input_ids, output_ids) = (model.input_ids(), model.output_ids());
        let n_outputs = ports.outputs.len() + checked.guards.len();
        if input_ids.len() != ports.inputs.len() || output_ids.len() != n_outputs {
            return Err(lost());
        }
        let id_of = |specs: &[salver_tensor::TensorSpec], ids: &[NodeId], name: &str| {
            specs.iter().position(|spec| &*spec.name == name).map(|at| ids[at]).ok_or_else(lost)
        };
        let inputs = signature.inputs().iter().map(|spec| id_of(&ports.inputs, input_ids, &spec.name));
        let outputs = signature.outputs().iter().map(|spec| id_of(&ports.outputs, output_ids, &spec.name));
        let (inputs, outputs) = (inputs.collect::<Result<_, _>>()?, outputs.collect::<Result<_, _>>()?);
        let guards = output_ids[ports.outputs.len()..].iter().copied().zip(checked.guards).collect();
        let (n_bytes, signature_of) = (checked.n_bytes, signature.clone());
        let shared = Shared { signature: signature_of, inputs, outputs, guards, n_bytes, has_loops, model };
        Ok(RtenModel { signatures: [signature], shared: Arc::new(shared) })
    }
}

/// Runs `body` and turns a panic into its message.
fn caught<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| panic_message(&*panic))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

fn load_panic(message: &str) -> Error {
    invalid(format!("the engine panicked while it loaded the model: {message}"))
}

fn load_error(error: &LoadError) -> Error {
    let kind = match error.kind() {
        LoadErrorKind::OperatorInvalid => ErrorKind::Unsupported,
        _ => ErrorKind::InvalidModel,
    };
    Error::new(kind, format!("the engine cannot load the model: {error}"))
}

/// What the engine lacks for a node it says by the word that its message then has; anything else that goes wrong in a
/// node is taken for the inputs' fault.
fn run_error(error: &RunError) -> Error {
    let message = error.to_string();
    let kind = match error.kind() {
        RunErrorKind::OperatorError if message.contains("failed: unsupported") => ErrorKind::Unsupported,
        RunErrorKind::InvalidInput | RunErrorKind::OperatorError => ErrorKind::InvalidInput,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("the model cannot be run on these inputs: {message}"))
}

/// rten divides by sizes here and there, so that some models panic on nothing.
fn run_panic(message: &str, inputs: &[Tensor]) -> Error {
    if inputs.iter().any(|tensor| tensor.shape().n_elements() == 0) {
        return Error::new(ErrorKind::InvalidInput, "the model cannot be run on inputs without elements");
    }
    Error::new(ErrorKind::Internal, format!("the engine panicked: {message}"))
}

impl Model for RtenModel {
    fn signatures(&self) -> &[Arc<Signature>] {
        &self.signatures
    }

    fn session(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(RtenSession { shared: self.shared.clone() }))
    }

    fn enter(&self, threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        pool::enter(threads, body);
    }

    fn is_entered(&self) -> bool {
        pool::is_entered()
    }

    fn has_loops(&self) -> bool {
        self.shared.has_loops
    }

    fn n_bytes(&self) -> u64 {
        self.shared.n_bytes
    }
}

struct RtenSession {
    shared: Arc<Shared>,
}

impl Session for RtenSession {
    fn run(&mut self, signature: usize, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, Error> {
        let shared = &*self.shared;
        if signature != 0 || inputs.len() != shared.inputs.len() {
            let message = format!(
                "{} inputs for signature {signature}, expected {}",
                inputs.len(),
                shared.inputs.len()
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let wanted = Wanted::new(shared, outputs)?;
        if wanted.ids.is_empty() {
            return Ok(Vec::new());
        }
        let values = shared.run(inputs, &wanted.ids)?;
        wanted.answer(shared, values)
    }
}

impl Shared {
    fn run(&self, inputs: &[Tensor], wanted: &[NodeId]) -> Result<Vec<Value>, Error> {
        let mut values = Vec::with_capacity(inputs.len());
        for ((spec, &id), tensor) in self.signature.inputs().iter().zip(&self.inputs).zip(inputs) {
            values.push((id, convert::input(spec, tensor)?));
        }
        let options = RunOptions::default().with_thread_pool(pool::current());
        caught(|| self.model.run(values, wanted, Some(options)))
            .map_err(|panic| run_panic(&panic, inputs))?
            .map_err(|error| run_error(&error))
    }
}

/// What one run computes: each output asked for once, and all guards.
struct Wanted<'a> {
    outputs: &'a [usize],
    once: Vec<usize>,
    ids: Vec<NodeId>,
}

impl<'a> Wanted<'a> {
    fn new(shared: &Shared, outputs: &'a [usize]) -> Result<Wanted<'a>, Error> {
        let mut once = outputs.to_vec();
        once.sort_unstable();
        once.dedup();
        let ids = once.iter().map(|&at| shared.outputs.get(at).copied()).collect::<Option<Vec<_>>>();
        let mut ids = ids.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "no such output"))?;
        if !ids.is_empty() {
            ids.extend(shared.guards.iter().map(|(id, _)| *id));
        }
        Ok(Wanted { outputs, once, ids })
    }

    fn answer(&self, shared: &Shared, mut values: Vec<Value>) -> Result<Vec<Tensor>, Error> {
        let guarded = values.split_off(self.once.len().min(values.len()));
        for ((_, guard), value) in shared.guards.iter().zip(guarded) {
            guard.check(value)?;
        }
        let specs = shared.signature.outputs();
        let tensors = self.once.iter().zip(values).map(|(&at, value)| convert::output(&specs[at], value));
        let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
        if self.once == self.outputs {
            return Ok(tensors);
        }
        let place = |at: &usize| self.once.iter().position(|known| known == at).unwrap_or_default();
        Ok(self.outputs.iter().map(|at| tensors[place(at)].clone()).collect())
    }
}

#[cfg(test)]
mod tests;
