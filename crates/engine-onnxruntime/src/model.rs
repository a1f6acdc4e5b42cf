//! A loaded model and its sessions.

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ort::session::builder::SessionBuilder;
use prost::Message;
use salver_engine::{Error, ErrorKind, LoadOptions, Model, Session};
use salver_graph::onnx::proto::tensor_proto::DataLocation;
use salver_graph::onnx::proto::{ModelProto, StringStringEntryProto, TensorProto};
use salver_graph::{Graph, onnx};
use salver_tensor::{DType, Shape, Signature, Tensor, TensorSpec};

use crate::divide::{self, Guarded, Watch};
use crate::error::{DIVIDED, in_file, internal, invalid, load_error, run_error, unsupported};
use crate::ffi::{self, Fault};
use crate::library::Runtime;
use crate::message::{Described, describe};
use crate::options::{self, Plan};

/// The largest file that is read; a bound against devices and sparse files, not a memory budget.
const MAX_FILE_BYTES: u64 = 1 << 31;

/// The minor version of ONNX Runtime 1 that can be told where weights lie: the one after
/// <https://github.com/microsoft/onnxruntime/pull/23557>.
const MIN_MINOR_OF_FOLDER: u32 = 21;

/// The largest message that protobuf readers take, with room for what is written around it.
const MAX_MESSAGE_BYTES: usize = (1 << 31) - (1 << 16);

/// Constants below this many bytes stay in a message that is too large, where shapes can be inferred from them.
const MIN_LENT_BYTES: usize = 1024;

/// A model whose weights take at most this many bytes has a session of the library's for each lane.
const MAX_SMALL_BYTES: u64 = 2 << 20;

/// The same for all lanes together where a run uses several threads, since lanes of one session share those.
const MAX_THREADED_BYTES: u64 = 512 << 20;

/// Lanes that have sessions of the library's of their own; further ones share them.
const MAX_SESSIONS: usize = 64;

/// Loads an ONNX file and the files beside it that hold its weights.
pub(crate) fn from_file(runtime: &Runtime, path: &Path, options: &LoadOptions) -> Result<OrtModel, Error> {
    let load = || {
        let mut bytes = read(path)?;
        let mut proto = onnx::decode(bytes.clone()).map_err(|error| graph_error(&error))?;
        let described = describe(&proto)?;
        let guarded = divide::guard(&mut proto)?;
        let is_changed = guarded.is_changed;
        if is_changed {
            bytes = proto.encode_to_vec().into();
        }
        drop(proto);
        let has_files = described.has_files;
        let folder = if is_changed && has_files { Some(folder_of(runtime, path)?) } else { None };
        OrtModel::new(runtime, described, guarded, options, |builder| match folder {
            Some(folder) => commit_in_folder(builder, &bytes, folder),
            None if has_files => builder.commit_from_file(path),
            None => builder.commit_from_memory(&bytes),
        })
    };
    load().map_err(|error| in_file(error, path))
}

/// The folder of a model whose message is changed and whose weights lie beside it, as the library is told of it.
fn folder_of<'a>(runtime: &Runtime, path: &'a Path) -> Result<&'a str, Error> {
    // Older versions pass over the setting, and would look in the folder that the process runs in.
    if runtime.minor < MIN_MINOR_OF_FOLDER {
        return Err(unsupported(format!(
            "it divides whole numbers, which is guarded, and has weights in files beside it: that needs ONNX Runtime \
             1.{MIN_MINOR_OF_FOLDER} or newer"
        )));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let folder = folder.to_str().ok_or_else(|| {
        unsupported(
            "it has weights in files beside it, in a folder whose name is not UTF-8; rename the folder",
        )
    })?;
    Ok(if folder.is_empty() { "." } else { folder })
}

/// Loads a changed message whose weights lie in this folder.
fn commit_in_folder(
    builder: &mut SessionBuilder,
    bytes: &[u8],
    folder: &str,
) -> ort::Result<ort::session::Session> {
    let key = "session.model_external_initializers_file_folder_path";
    let with_folder = builder.clone().with_config_entry(key, folder);
    with_folder.map_err(|error| ort::Error::new(error.message()))?.commit_from_memory(bytes)
}

/// Takes a graph over; the library copies its weights.
pub(crate) fn from_graph(runtime: &Runtime, graph: &Graph, options: &LoadOptions) -> Result<OrtModel, Error> {
    let proto = onnx::model(graph, &onnx::Labels::default()).map_err(|error| graph_error(&error))?;
    from_message(runtime, proto, options, MAX_MESSAGE_BYTES)
}

/// Loads a message without files beside it. Constants of one that is too large to be written are handed over one by one.
fn from_message(
    runtime: &Runtime,
    mut proto: ModelProto,
    options: &LoadOptions,
    max_bytes: usize,
) -> Result<OrtModel, Error> {
    let described = describe(&proto)?;
    let constants = if proto.encoded_len() > max_bytes { taken_out(&mut proto)? } else { Vec::new() };
    let bytes = proto.encode_to_vec();
    drop(proto);
    OrtModel::new(runtime, described, Guarded::default(), options, |builder| {
        if !constants.is_empty() {
            let lent = constants.iter().map(|(name, tensor)| Ok((name.clone(), ffi::lend(tensor)?)));
            let lent: Vec<_> = lent.collect::<Result<_, Fault>>().map_err(|fault| match fault {
                Fault::Library(error) => error,
                Fault::Answer(text) => ort::Error::new(text),
            })?;
            ffi::add_constants(builder, &lent)?;
        }
        builder.commit_from_memory(&bytes)
    })
}

/// Takes the large constants out of a message.
fn taken_out(proto: &mut ModelProto) -> Result<Vec<(CString, Tensor)>, Error> {
    let mut taken = Vec::new();
    for tensor in proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        let Some(raw) = tensor.raw_data.take_if(|raw| raw.len() >= MIN_LENT_BYTES) else { continue };
        let name = CString::new(tensor.name()).map_err(|_| invalid("a constant's name has a zero in it"))?;
        taken.push((name, tensor_of(tensor, raw)?));
        let location = StringStringEntryProto { key: Some("location".into()), value: Some("memory".into()) };
        tensor.external_data = vec![location];
        tensor.data_location = Some(DataLocation::External.into());
    }
    Ok(taken)
}

fn tensor_of(proto: &TensorProto, raw: Bytes) -> Result<Tensor, Error> {
    let misfit = |what: String| invalid(what).at(format!("tensor '{}'", proto.name()));
    let dtype =
        onnx::dtype_of(proto.data_type()).ok_or_else(|| misfit("its element type is not known".into()))?;
    let dims: Option<Vec<usize>> = proto.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let dims = dims.ok_or_else(|| misfit(format!("its shape is {:?}", proto.dims)))?;
    let shape = Shape::new(&dims).map_err(|error| misfit(error.to_string()))?;
    Tensor::from_bytes(dtype, shape, raw).map_err(|error| misfit(error.to_string()))
}

fn graph_error(error: &salver_graph::Error) -> Error {
    let kind = match error.kind() {
        salver_graph::ErrorKind::Unsupported => ErrorKind::Unsupported,
        salver_graph::ErrorKind::TooLarge => ErrorKind::ResourceExhausted,
        _ => ErrorKind::InvalidModel,
    };
    let made = Error::new(kind, error.message());
    error.place().map_or(made.clone(), |place| made.at(place))
}

/// The content of a regular file.
fn read(path: &Path) -> Result<Bytes, Error> {
    let failed = |error: std::io::Error| {
        let is_gone = error.kind() == std::io::ErrorKind::NotFound;
        Error::new(if is_gone { ErrorKind::NotFound } else { ErrorKind::Io }, error.to_string())
    };
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(invalid("not a regular file"));
    }
    let too_large = || {
        let message =
            format!("{} bytes, expected less than 2 GB with larger weights in files beside it", meta.len());
        Error::new(ErrorKind::ResourceExhausted, message)
    };
    let len =
        usize::try_from(meta.len()).ok().filter(|_| meta.len() < MAX_FILE_BYTES).ok_or_else(too_large)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| too_large())?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes.into())
}

/// An ONNX model on ONNX Runtime.
pub(crate) struct OrtModel {
    signatures: [Arc<Signature>; 1],
    names: Arc<Names>,
    /// What the lanes run; each of the library's sessions holds the weights once more.
    sessions: Vec<Arc<ort::session::Session>>,
    /// How many lanes run each of them.
    lanes: Arc<Mutex<Vec<usize>>>,
    n_bytes: u64,
    has_loops: bool,
}

/// Names of inputs and outputs in the signature's order.
struct Names {
    inputs: Vec<CString>,
    outputs: Vec<CString>,
    /// Outputs that say where a division cannot be computed.
    watches: Vec<Watched>,
    /// The places of divisions that fail by themselves where they cannot be computed.
    traps: Vec<String>,
}

/// An output that says where a division cannot be computed.
struct Watched {
    name: CString,
    place: String,
    /// By output of the signature: whether it depends on the division.
    outputs: Vec<bool>,
}

impl Names {
    fn of(signature: &Signature, guarded: Guarded) -> Result<Names, Error> {
        let watched = |watch: Watch| {
            let has = |spec: &TensorSpec| watch.outputs.as_ref().is_none_or(|all| all.contains(&*spec.name));
            let outputs = signature.outputs().iter().map(has).collect();
            Some(Watched { name: CString::new(watch.output).ok()?, place: watch.place, outputs })
        };
        let list = |specs: &[TensorSpec]| {
            let names = specs.iter().map(|spec| CString::new(&*spec.name));
            names.collect::<Result<Vec<_>, _>>().map_err(|_| invalid("a name has a zero in it"))
        };
        Ok(Names {
            inputs: list(signature.inputs())?,
            outputs: list(signature.outputs())?,
            watches: guarded.watches.into_iter().filter_map(watched).collect(),
            traps: guarded.traps,
        })
    }
}

impl OrtModel {
    fn new(
        runtime: &Runtime,
        described: Described,
        guarded: Guarded,
        options: &LoadOptions,
        commit: impl Fn(&mut SessionBuilder) -> ort::Result<ort::session::Session>,
    ) -> Result<OrtModel, Error> {
        let Described { signature, n_bytes, has_loops, .. } = described;
        let names = Arc::new(Names::of(&signature, guarded)?);
        let keeps_patterns = n_bytes <= MAX_SMALL_BYTES && has_few_shapes(&signature);
        let plan = Plan { threads: options.threads, keeps_patterns };
        let sessions = (0..n_sessions(n_bytes, options)).map(|_| {
            let mut builder = options::builder(runtime, plan)?;
            commit(&mut builder).map(Arc::new).map_err(|error| load_error(&error))
        });
        let sessions = sessions.collect::<Result<Vec<_>, Error>>()?;
        let lanes = Arc::new(Mutex::new(vec![0; sessions.len()]));
        Ok(OrtModel { signatures: [Arc::new(signature)], names, sessions, lanes, n_bytes, has_loops })
    }
}

/// How many sessions of the library's a model has.
fn n_sessions(n_bytes: u64, options: &LoadOptions) -> usize {
    let n_lanes = options.n_lanes.get().min(MAX_SESSIONS);
    let in_all = n_bytes.saturating_mul(n_lanes as u64);
    let is_threaded = options.threads.get() > 1 && in_all <= MAX_THREADED_BYTES;
    if n_bytes <= MAX_SMALL_BYTES || is_threaded { n_lanes } else { 1 }
}

/// Whether the inputs' shapes differ in the number of rows alone.
fn has_few_shapes(signature: &Signature) -> bool {
    let is_fixed =
        |spec: &TensorSpec| spec.dims.known().is_some_and(|dims| dims.iter().skip(1).all(Option::is_some));
    signature.inputs().iter().all(is_fixed)
}

impl fmt::Debug for OrtModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrtModel").field("signature", &self.signatures[0]).finish_non_exhaustive()
    }
}

impl Model for OrtModel {
    fn signatures(&self) -> &[Arc<Signature>] {
        &self.signatures
    }

    /// Gives the session of the library's that the fewest others run.
    fn session(&self) -> Result<Box<dyn Session>, Error> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let least = lanes.iter_mut().zip(&self.sessions).enumerate().min_by_key(|(_, (n, _))| **n);
        let (at, (n, session)) =
            least.ok_or_else(|| Error::new(ErrorKind::Internal, "the model has no session"))?;
        *n += 1;
        Ok(Box::new(OrtSession {
            signature: self.signatures[0].clone(),
            names: self.names.clone(),
            session: session.clone(),
            at,
            lanes: self.lanes.clone(),
        }))
    }

    fn enter(&self, _threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        body();
    }

    /// Runs happen on the calling thread, wherever that is.
    fn is_entered(&self) -> bool {
        true
    }

    fn has_loops(&self) -> bool {
        self.has_loops
    }

    /// Weights in one session of the library's.
    fn n_bytes(&self) -> u64 {
        self.n_bytes
    }
}

struct OrtSession {
    signature: Arc<Signature>,
    names: Arc<Names>,
    session: Arc<ort::session::Session>,
    /// Which of the model's sessions this is.
    at: usize,
    lanes: Arc<Mutex<Vec<usize>>>,
}

impl Drop for OrtSession {
    fn drop(&mut self) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = lanes.get_mut(self.at) {
            *n = n.saturating_sub(1);
        }
    }
}

impl Session for OrtSession {
    fn run(&mut self, signature: usize, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, Error> {
        self.check(signature, inputs)?;
        let mut once = outputs.to_vec();
        once.sort_unstable();
        once.dedup();
        let names: Option<Vec<&CStr>> =
            once.iter().map(|&at| self.names.outputs.get(at).map(|name| &**name)).collect();
        let mut names = names.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "no such output"))?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        // What else is divided is nobody's concern: its divisor is another where it would fail.
        let concerns = |watch: &&Watched| once.iter().any(|&at| watch.outputs.get(at) == Some(&true));
        let watches: Vec<&Watched> = self.names.watches.iter().filter(concerns).collect();
        names.extend(watches.iter().map(|watch| &*watch.name));
        let tensors = self.run_once(inputs, &once, &watches, &names)?;
        if once == outputs {
            return Ok(tensors);
        }
        let place = |at: &usize| once.binary_search(at).unwrap_or_default();
        Ok(outputs.iter().map(|at| tensors[place(at)].clone()).collect())
    }
}

impl OrtSession {
    fn check(&self, signature: usize, inputs: &[Tensor]) -> Result<(), Error> {
        let refuse = |message: String| Error::new(ErrorKind::InvalidInput, message);
        let specs = self.signature.inputs();
        if signature != 0 || inputs.len() != specs.len() {
            let message =
                format!("{} inputs for signature {signature}, expected {}", inputs.len(), specs.len());
            return Err(refuse(message));
        }
        for (spec, tensor) in specs.iter().zip(inputs) {
            let at = |message: String| refuse(message).at(format!("input '{}'", spec.name));
            if tensor.dtype() != spec.dtype {
                return Err(at(format!("element type is {}, expected {}", tensor.dtype(), spec.dtype)));
            }
            if !spec.dims.accepts(tensor.shape()) {
                return Err(at(format!("shape is {}, expected {}", tensor.shape(), spec.dims)));
            }
        }
        Ok(())
    }

    /// Computes these outputs, whose names are followed by those of the watches.
    fn run_once(
        &self,
        inputs: &[Tensor],
        wanted: &[usize],
        watches: &[&Watched],
        names: &[&CStr],
    ) -> Result<Vec<Tensor>, Error> {
        let mut lent = Vec::with_capacity(inputs.len());
        for tensor in inputs {
            lent.push(ffi::lend(tensor).map_err(fault)?);
        }
        let mut values = ffi::run(&self.session, &self.names.inputs, &lent, names)
            .map_err(|error| run_fault(error, &self.names.traps))?;
        for (watch, value) in watches.iter().zip(values.split_off(wanted.len())) {
            let fails = ffi::take(value, DType::Bool, &lent, &self.session).map_err(fault)?;
            if fails.bytes().is_some_and(|bytes| bytes.contains(&1)) {
                return Err(Error::new(ErrorKind::InvalidInput, DIVIDED).at(watch.place.clone()));
            }
        }
        let specs = self.signature.outputs();
        let taken = wanted.iter().zip(values).map(|(&at, value)| {
            let spec = &specs[at];
            let taken = ffi::take(value, spec.dtype, &lent, &self.session);
            taken.map_err(|error| fault(error).at(format!("output '{}'", spec.name)))
        });
        taken.collect()
    }
}

fn fault(fault: Fault) -> Error {
    match fault {
        Fault::Library(error) => internal(&error),
        Fault::Answer(text) => Error::new(ErrorKind::Internal, format!("ONNX Runtime failed: {text}")),
    }
}

fn run_fault(error: Fault, traps: &[String]) -> Error {
    match error {
        Fault::Library(error) => run_error(&error, traps),
        other => fault(other),
    }
}

#[cfg(test)]
mod tests {
    use salver_engine::Library;
    use salver_graph::{Attributes, Builder, Dim};

    use super::*;

    /// Constants that do not fit a message are handed over beside it, here with a bound that is met at once.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test looks for what is not part of the checkout")]
    fn constants_of_large_graphs_are_handed_over_one_by_one() {
        let root = std::env::var_os("SALVER_RUNTIMES").unwrap_or_default();
        let folder = Path::new(&root).join("onnxruntime").join(crate::TESTED[0]);
        if !folder.is_dir() {
            assert!(
                std::env::var_os("CI").is_none_or(|value| value != "true"),
                "{} is missing",
                folder.display()
            );
            return println!("SALVER_RUNTIMES holds no ONNX Runtime: skipped");
        }
        let runtime = crate::library::runtime(&Library::at(&folder)).unwrap();
        let floats = |dims: &[usize], value: f32| {
            let shape = Shape::new(dims).unwrap();
            let n = shape.n_elements();
            Tensor::from_vec(shape, vec![value; n]).unwrap()
        };
        let mut builder = Builder::new();
        let x = builder.input("x", DType::F32, Some(vec![Dim::symbol("n"), Dim::Fixed(32)]));
        let w = builder.constant("w", floats(&[32, 32], 0.5));
        let y = builder.op("times", "MatMul", &[x, w], Attributes::new()).unwrap();
        let b = builder.constant("b", floats(&[32], 1.0));
        let y = builder.op("plus", "Add", &[y, b], Attributes::new()).unwrap();
        let graph = builder.finish(&[("y", y)]).unwrap();
        let proto = onnx::model(&graph, &onnx::Labels::default()).unwrap();
        let mut options = LoadOptions::default();
        options.n_lanes = NonZeroUsize::new(2).unwrap();
        let model = from_message(&runtime, proto, &options, 1024).unwrap();
        assert_eq!((model.sessions.len(), model.n_bytes), (2, 32 * 32 * 4 + 32 * 4));
        for _ in 0..2 {
            let got = model.session().unwrap().run(0, &[floats(&[2, 32], 2.0)], &[0]).unwrap();
            assert_eq!(got, [floats(&[2, 32], 33.0)]);
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test looks for what is not part of the checkout")]
    fn lanes_are_spread_whatever_becomes_of_outputs() {
        let root = std::env::var_os("SALVER_RUNTIMES").unwrap_or_default();
        let folder = Path::new(&root).join("onnxruntime").join(crate::TESTED[0]);
        if !folder.is_dir() {
            return println!("SALVER_RUNTIMES holds no ONNX Runtime: skipped");
        }
        let runtime = crate::library::runtime(&Library::at(&folder)).unwrap();
        let mut builder = Builder::new();
        let x = builder.input("x", DType::F32, Some(vec![Dim::symbol("n")]));
        let y = builder.op("y", "Neg", &[x], Attributes::new()).unwrap();
        let graph = builder.finish(&[("y", y)]).unwrap();
        let mut options = LoadOptions::default();
        options.n_lanes = NonZeroUsize::new(2).unwrap();
        let model = from_graph(&runtime, &graph, &options).unwrap();
        let x = Tensor::from_vec(Shape::new(&[100_000]).unwrap(), vec![1.0f32; 100_000]).unwrap();
        let mut first = model.session().unwrap();
        // Large outputs keep the session that they come from.
        let kept = first.run(0, std::slice::from_ref(&x), &[0]).unwrap();
        let again = first.run(0, &[x], &[0]).unwrap();
        let second = model.session().unwrap();
        assert_eq!(*model.lanes.lock().unwrap(), [1, 1]);
        drop(first);
        let third = model.session().unwrap();
        assert_eq!(*model.lanes.lock().unwrap(), [1, 1]);
        drop((second, third, kept, again));
        assert_eq!(*model.lanes.lock().unwrap(), [0, 0]);
    }

    #[test]
    fn sessions_are_as_many_as_lanes_where_that_is_worth_it() {
        let n = |n: usize| NonZeroUsize::new(n).unwrap();
        for (n_bytes, threads, n_lanes, expected) in [
            (1 << 10, 1, 1, 1),
            (1 << 10, 1, 8, 8),
            (1 << 10, 1, 800, MAX_SESSIONS),
            (100 << 20, 1, 8, 1),
            (100 << 20, 4, 4, 4),
            (100 << 20, 4, 8, 1),
            (u64::MAX, 2, 8, 1),
        ] {
            let mut options = LoadOptions::default();
            (options.threads, options.n_lanes) = (n(threads), n(n_lanes));
            assert_eq!(
                n_sessions(n_bytes, &options),
                expected,
                "{n_bytes} bytes, {threads} threads, {n_lanes} lanes"
            );
        }
    }
}
