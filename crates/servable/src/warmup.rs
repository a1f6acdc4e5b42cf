//! Runs before a version is available, so that its first request is not its slowest.

use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use salver_batch::{LaneSet, Task};
use salver_engine::{DEFAULT_SIGNATURE, Model};
use salver_lifecycle::{Cancel, ErrorKind, Id, LoadError};
use salver_predict::{Error, bind_inputs, check_inputs, select_outputs};
use salver_tensor::{DType, Shape, Signature, Tensor, TensorSpec};

/// Warm-up requests that a version may have; one more fails its load.
pub const MAX_WARMUP_REQUESTS: usize = 1000;

/// Bytes of zeros that the run without requests makes at most.
const MAX_ZEROS: usize = 64 << 20;

/// Reads the warm-up requests that come with a model.
pub trait WarmupSource: Debug + Send + Sync + 'static {
    /// The requests for the model at this version folder or file, in order; none when it has none. Blocks on the file
    /// system. It may stop reading at one more than [`MAX_WARMUP_REQUESTS`].
    ///
    /// # Errors
    /// A text that says what cannot be read, and in which record; it fails the load.
    fn requests(&self, version_path: &Path) -> Result<Vec<WarmupRequest>, String>;
}

/// One request as it was recorded.
#[derive(Debug, Clone)]
pub struct WarmupRequest {
    /// The signatures, run one after the other; an empty name is the default one. More than one for a record that asks
    /// the same of several.
    pub signature_names: Vec<String>,
    /// The inputs by name.
    pub inputs: Vec<(String, Tensor)>,
    /// The outputs wanted; empty for all.
    pub output_filter: Vec<String>,
}

fn invalid(message: impl Into<String>) -> LoadError {
    LoadError::permanent(ErrorKind::Invalid, message)
}

/// The requests that come with the model, if they are not too many.
pub(crate) fn requests(source: &dyn WarmupSource, path: &Path) -> Result<Vec<WarmupRequest>, LoadError> {
    let requests = source.requests(path).map_err(|message| invalid(format!("warm-up: {message}")))?;
    if requests.len() > MAX_WARMUP_REQUESTS {
        return Err(invalid(format!(
            "warm-up: more than {MAX_WARMUP_REQUESTS} records, the most there may be"
        )));
    }
    Ok(requests)
}

/// Runs every request; the first that fails, fails the load.
pub(crate) fn replay(
    lanes: &LaneSet,
    model: &dyn Model,
    requests: &[WarmupRequest],
    n_iterations: NonZeroUsize,
    cancel: &Cancel,
) -> Result<(), LoadError> {
    for (at, request) in requests.iter().enumerate() {
        let failed = |message: String| invalid(format!("warm-up record {}: {message}", at + 1));
        for name in &request.signature_names {
            let task = task(model, name, request).map_err(|error| failed(error.to_string()))?;
            if cancel.is_cancelled() {
                return Err(LoadError::cancelled());
            }
            lanes.warm_up(&task, n_iterations).map_err(|error| failed(error.to_string()))?;
        }
    }
    Ok(())
}

pub(crate) fn task(model: &dyn Model, name: &str, request: &WarmupRequest) -> Result<Task, Error> {
    let name = match name {
        "" => DEFAULT_SIGNATURE,
        name => name,
    };
    let position = model.signatures().iter().position(|signature| &**signature.name() == name);
    let (position, signature) = position
        .and_then(|at| Some((at, model.signatures().get(at)?)))
        .ok_or_else(|| Error::invalid(format!("Serving signature key \"{name}\" not found.")))?;
    let inputs = bind_inputs(signature, request.inputs.clone())?;
    check_inputs(signature, &inputs)?;
    let outputs = select_outputs(signature, &request.output_filter)?;
    Ok(Task::new(position, inputs, outputs))
}

/// Runs each signature with one row of zeros, which touches the weights and tells what a run costs. Zeros need not be
/// a sensible input, so a failure is only noted. A signature that keeps state is left alone: a run must leave nothing
/// behind.
pub(crate) fn run_zeros(lanes: &LaneSet, model: &dyn Model, id: &Id, cancel: &Cancel) {
    for (position, signature) in model.signatures().iter().enumerate() {
        if cancel.is_cancelled() {
            return;
        }
        if signature.keeps_state() {
            continue;
        }
        let Some(inputs) = zeros(signature) else {
            tracing::debug!(%id, signature = %signature.name(), "no warm-up: inputs of one row are too large or their dimensions unknown");
            continue;
        };
        let outputs = (0..signature.outputs().len()).collect();
        if let Err(error) = run_a_few(lanes, &Task::new(position, inputs, outputs)) {
            tracing::debug!(%id, signature = %signature.name(), "the warm-up run with zeros failed: {error}");
        }
    }
}

/// Runs a cheap model several times, because the first run of a session is slower than those that follow and would
/// make the model look dearer than it is; a dear model only once.
fn run_a_few(lanes: &LaneSet, task: &Task) -> Result<(), salver_engine::Error> {
    if lanes.warm_up(task, NonZeroUsize::MIN)? < Duration::from_millis(2) {
        lanes.warm_up(task, NonZeroUsize::new(4).expect("4 is not zero"))?;
    }
    Ok(())
}

/// One row of zeros per input, or its default; `None` when that would be too large, or an input's dimensions are unknown.
pub(crate) fn zeros(signature: &Signature) -> Option<Vec<Tensor>> {
    let mut n_left = MAX_ZEROS;
    let mut inputs = Vec::with_capacity(signature.inputs().len());
    for spec in signature.inputs() {
        let tensor = match &spec.default {
            Some(default) => default.clone(),
            None => zero(spec, n_left)?,
        };
        n_left = n_left.checked_sub(tensor.n_bytes())?;
        inputs.push(tensor);
    }
    Some(inputs)
}

fn zero(spec: &TensorSpec, max_bytes: usize) -> Option<Tensor> {
    // Of an unknown number of dimensions every guess may be one that a kernel ends the process by.
    let dims: Vec<usize> = spec.dims.known()?.iter().map(|dim| dim.unwrap_or(1)).collect();
    let shape = Shape::new(&dims).ok()?;
    // An empty string takes no bytes of its own, but the list of them does.
    let size = spec.dtype.size().unwrap_or(size_of::<Bytes>());
    let n_bytes = shape.n_elements().checked_mul(size).filter(|&n_bytes| n_bytes <= max_bytes)?;
    match spec.dtype {
        DType::String => Tensor::from_strings(shape.clone(), vec![Bytes::new(); shape.n_elements()]).ok(),
        dtype => Tensor::from_bytes(dtype, shape, Bytes::from(vec![0; n_bytes])).ok(),
    }
}

#[cfg(test)]
mod tests {
    use salver_tensor::Dims;

    use super::*;

    #[test]
    fn one_row_of_zeros() {
        let check = |dtype: DType, dims: Dims, expected: Option<&[usize]>| {
            let (name, tensor_name): (std::sync::Arc<str>, std::sync::Arc<str>) = ("x".into(), "x".into());
            let spec = TensorSpec { name, tensor_name, dtype, dims, default: None };
            let inputs = zeros(&Signature::new("s", "m", vec![spec], vec![]));
            let shape = inputs.as_ref().and_then(|inputs| inputs.first()).map(|input| input.shape().dims());
            assert_eq!(shape, expected, "{dtype}");
        };
        check(DType::F32, Dims::new(vec![None, Some(3)]), Some(&[1, 3]));
        check(DType::String, Dims::new(vec![None]), Some(&[1]));
        check(DType::Bool, Dims::new(vec![]), Some(&[]));
        check(DType::I64, Dims::unknown(), None);
        check(DType::F32, Dims::new(vec![None, Some(1 << 25)]), None);
        check(DType::F32, Dims::new(vec![Some(1 << 40), Some(1 << 40)]), None);
    }
}
