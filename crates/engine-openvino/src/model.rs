//! A loaded model and its sessions.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use salver_engine::{Error, ErrorKind, Model, Session};
use salver_tensor::{DType, Shape, Signature, Tensor, TensorSpec};

use crate::element;
use crate::entry::Entry;
use crate::said::Names;
use crate::steady::Steadiness;
use crate::support::MAX_DIM;
use crate::sys::{Compiled, Failure, Output, Request};

/// The most elements that a tensor may have, so that every size and position fits the engine's whole numbers.
const MAX_ELEMENTS: usize = i32::MAX as usize;

thread_local! {
    static IS_ENTERED: Cell<bool> = const { Cell::new(false) };
}

/// Runs of this engine begin on the calling thread wherever it is, so that there is nothing to enter but the knowledge of it.
pub(crate) fn enter(body: &mut (dyn FnMut() + Send)) {
    struct Left(bool);
    impl Drop for Left {
        fn drop(&mut self) {
            IS_ENTERED.set(self.0);
        }
    }
    let _left = Left(IS_ENTERED.replace(true));
    body();
}

/// Positions of the signature's inputs and outputs among those of the compiled model.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) inputs: Vec<usize>,
    pub(crate) outputs: Vec<usize>,
}

/// A graph on OpenVINO. Weights and kernels are shared by all sessions.
pub(crate) struct OpenVinoModel {
    signatures: [Arc<Signature>; 1],
    shared: Arc<Shared>,
}

/// What sessions need.
pub(crate) struct Shared {
    pub(crate) compiled: Compiled,
    pub(crate) signature: Arc<Signature>,
    pub(crate) ports: Ports,
    pub(crate) entry: Entry,
    pub(crate) names: Names,
    pub(crate) steadiness: Steadiness,
    pub(crate) n_bytes: u64,
    pub(crate) has_loops: bool,
}

impl fmt::Debug for OpenVinoModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenVinoModel").field("signature", &self.signatures[0]).finish_non_exhaustive()
    }
}

impl OpenVinoModel {
    pub(crate) fn new(shared: Shared) -> OpenVinoModel {
        OpenVinoModel { signatures: [shared.signature.clone()], shared: Arc::new(shared) }
    }
}

impl Model for OpenVinoModel {
    fn signatures(&self) -> &[Arc<Signature>] {
        &self.signatures
    }

    fn session(&self) -> Result<Box<dyn Session>, Error> {
        let request = self.shared.request()?;
        Ok(Box::new(OpenVinoSession { request, shared: self.shared.clone(), known: Vec::new() }))
    }

    fn enter(&self, _threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        enter(body);
    }

    fn is_entered(&self) -> bool {
        IS_ENTERED.get()
    }

    fn has_loops(&self) -> bool {
        self.shared.has_loops
    }

    fn n_bytes(&self) -> u64 {
        self.shared.n_bytes
    }
}

impl Shared {
    fn request(&self) -> Result<Request, Error> {
        self.compiled.request(self.ports.inputs.len()).map_err(|_| {
            Error::new(ErrorKind::ResourceExhausted, "OpenVINO makes no more sessions of the model")
        })
    }

    /// Why a run failed. It is the inputs' fault unless they are always of the same shapes and nothing else decides.
    fn run_error(&self, failure: &Failure) -> Error {
        let is_fixed = |spec: &TensorSpec| spec.dims.known().is_some_and(|dims| !dims.contains(&None));
        let is_ours = self.steadiness == Steadiness::Shapes && self.signature.inputs().iter().all(is_fixed);
        let kind = if is_ours { ErrorKind::Internal } else { ErrorKind::InvalidInput };
        Error::new(kind, self.names.told("the model cannot be run on these inputs", failure))
    }
}

struct OpenVinoSession {
    request: Request,
    shared: Arc<Shared>,
    /// Shapes of inputs that a run went well for, and those of its outputs.
    known: Vec<Known>,
}

/// How many shapes a session remembers; a session of more begins again.
const MAX_KNOWN: usize = 64;

/// Shapes of all inputs and all outputs of one run.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    inputs: Vec<Shape>,
    outputs: Vec<Vec<usize>>,
}

impl Session for OpenVinoSession {
    fn run(&mut self, signature: usize, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, Error> {
        let shared = &*self.shared;
        let n_inputs = shared.ports.inputs.len();
        if signature != 0 || inputs.len() != n_inputs {
            let message = format!("{} inputs for signature {signature}, expected {n_inputs}", inputs.len());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if outputs.iter().any(|&at| at >= shared.ports.outputs.len()) {
            return Err(Error::new(ErrorKind::InvalidInput, "no such output"));
        }
        let specs = shared.signature.inputs();
        for (spec, tensor) in specs.iter().zip(inputs) {
            check_input(spec, tensor, shared.entry.max_dim)
                .map_err(|error| error.at(format!("input '{}'", spec.name)))?;
        }
        shared.entry.check(&shared.signature, inputs)?;
        if outputs.is_empty() {
            return Ok(Vec::new());
        }
        let result = self.run_checked(inputs, outputs);
        // What the request was lent is the caller's again.
        match self.request.take_back() {
            Ok(()) => result,
            Err(_) => {
                self.renew()?;
                result
            }
        }
    }
}

impl OpenVinoSession {
    fn run_checked(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, Error> {
        let shared = &*self.shared;
        let specs = shared.signature.inputs();
        for ((spec, &at), tensor) in specs.iter().zip(&shared.ports.inputs).zip(inputs) {
            set_input(&mut self.request, at, spec, tensor)
                .map_err(|error| error.at(format!("input '{}'", spec.name)))?;
        }
        self.infer(inputs)?;
        let mut found: Vec<Tensor> = Vec::with_capacity(outputs.len());
        for (nth, &at) in outputs.iter().enumerate() {
            let tensor = match outputs[..nth].iter().position(|&before| before == at) {
                Some(before) => found[before].clone(),
                None => self.output(at)?,
            };
            found.push(tensor);
        }
        Ok(found)
    }

    /// Another request in place of one that cannot be used any more.
    fn renew(&mut self) -> Result<(), Error> {
        self.known.clear();
        self.request = self.shared.request()?;
        Ok(())
    }

    /// Runs on a thread of OpenVINO's, which says when a run fails; and here, without a hand-over, where it cannot: when a run
    /// on inputs of these shapes went well and nothing else decides.
    fn infer(&mut self, inputs: &[Tensor]) -> Result<(), Error> {
        let is_same = |known: &&Known| known.inputs.iter().eq(inputs.iter().map(Tensor::shape));
        let Some(known) = self.known.iter().find(is_same) else {
            self.request.infer_apart().map_err(|failure| self.shared.run_error(&failure))?;
            if self.shared.steadiness == Steadiness::Shapes {
                self.learn(inputs)?;
            }
            return Ok(());
        };
        let outputs = known.outputs.clone();
        let result = self.request.infer_here().map_err(|failure| self.shared.run_error(&failure));
        let result = result.and_then(|()| {
            if self.output_dims()? == outputs {
                return Ok(());
            }
            Err(Error::new(ErrorKind::Internal, "OpenVINO failed and did not say why"))
        });
        if result.is_err() {
            self.request.abandon();
            self.renew()?;
        }
        result
    }

    fn learn(&mut self, inputs: &[Tensor]) -> Result<(), Error> {
        let outputs = self.output_dims()?;
        if self.known.len() == MAX_KNOWN {
            self.known.clear();
        }
        let inputs = inputs.iter().map(|tensor| tensor.shape().clone()).collect();
        self.known.push(Known { inputs, outputs });
        Ok(())
    }

    /// The shapes of all outputs of the last run.
    fn output_dims(&mut self) -> Result<Vec<Vec<usize>>, Error> {
        let internal =
            |_: Failure| Error::new(ErrorKind::Internal, "OpenVINO does not tell an output's shape");
        (0..self.shared.ports.outputs.len())
            .map(|at| self.request.output_dims(at).map_err(internal))
            .collect()
    }

    fn output(&mut self, at: usize) -> Result<Tensor, Error> {
        let spec = &self.shared.signature.outputs()[at];
        let internal =
            |message: String| Error::new(ErrorKind::Internal, message).at(format!("output '{}'", spec.name));
        let output = self.request.output(self.shared.ports.outputs[at]);
        let output = output.map_err(|_| internal("OpenVINO does not give it".to_owned()))?;
        to_tensor(spec, output).map_err(internal)
    }
}

/// Whether an input is of its element type and shape, and of a size and width that OpenVINO computes with.
fn check_input(spec: &TensorSpec, tensor: &Tensor, max_dim: usize) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::new(ErrorKind::InvalidInput, message));
    if tensor.dtype() != spec.dtype {
        return refuse(format!("element type is {}, expected {}", tensor.dtype(), spec.dtype));
    }
    let shape = tensor.shape();
    if !spec.dims.accepts(shape) {
        return refuse(format!("shape is {shape}, expected {}", spec.dims));
    }
    let fixed = spec.dims.known().unwrap_or_default();
    let is_open = |at: usize| fixed.get(at).is_none_or(Option::is_none);
    let is_large = |(at, &dim): (usize, &usize)| dim > MAX_DIM || dim > max_dim && is_open(at);
    if shape.n_elements() > MAX_ELEMENTS || shape.dims().iter().enumerate().any(is_large) {
        return refuse(format!(
            "shape {shape} has more than {MAX_ELEMENTS} elements, or {max_dim} along one dimension"
        ));
    }
    if spec.dtype == DType::I64 { check_width(tensor) } else { Ok(()) }
}

/// Lends an input in place where it is aligned for its element type, else a copy.
fn set_input(request: &mut Request, at: usize, spec: &TensorSpec, tensor: &Tensor) -> Result<(), Error> {
    let refuse = |message: String| Error::new(ErrorKind::InvalidInput, message);
    let (Some(bytes), Some(elem)) = (tensor.bytes(), element::to_openvino(spec.dtype)) else {
        return Err(refuse(format!("OpenVINO has no {}", spec.dtype)));
    };
    let bytes = aligned(bytes, element::alignment(spec.dtype));
    let dims = tensor.shape().dims();
    request
        .set_input(at, elem, dims, bytes)
        .map_err(|_| refuse(format!("OpenVINO does not take shape {}", tensor.shape())))
}

/// The bytes at an address that is a multiple of `alignment`, copied only if they are not.
fn aligned(bytes: &Bytes, alignment: usize) -> Bytes {
    if (bytes.as_ptr() as usize).is_multiple_of(alignment) {
        return bytes.clone();
    }
    let mut padded = Vec::with_capacity(bytes.len() + alignment);
    let start = (padded.as_ptr() as usize).next_multiple_of(alignment) - padded.as_ptr() as usize;
    padded.resize(start, 0u8);
    padded.extend_from_slice(bytes);
    Bytes::from(padded).slice(start..)
}

/// Refuses what does not fit 32 bits, by the first such element.
fn check_width(tensor: &Tensor) -> Result<(), Error> {
    let elements = tensor.to_slice::<i64>().unwrap_or_default();
    let Some((at, value)) = elements.iter().enumerate().find(|(_, x)| i32::try_from(**x).is_err()) else {
        return Ok(());
    };
    let message = format!(
        "element {at} is {value}, expected a value of at most 32 bits ({} to {}): OpenVINO computes int64 in 32 bits",
        i32::MIN,
        i32::MAX
    );
    Err(Error::new(ErrorKind::InvalidInput, message))
}

fn to_tensor(spec: &TensorSpec, output: Output) -> Result<Tensor, String> {
    if !element::is(output.elem, spec.dtype) {
        return Err(format!("the engine returned element type {}, expected {}", output.elem.0, spec.dtype));
    }
    let shape = Shape::new(&output.dims).map_err(|error| error.to_string())?;
    let mut bytes = output.bytes;
    if spec.dtype == DType::Bool {
        bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
    }
    Tensor::from_bytes(spec.dtype, shape, bytes.into()).map_err(|error| error.to_string())
}
