//! What is asked of a model and what is answered, whoever asks and whoever answers.
//!
//! Fronts (servers, streams) hold a [`Predictor`]; what answers (a model loaded here, a remote server, a split of
//! traffic) implements it. Neither side sees the other. The flow is: [`Predictor::resolve`] turns a [`ModelSpec`] into
//! a [`Target`], one version held in hand until it is dropped; the front decodes its tensors by the target's
//! signature; [`Target::predict`] answers. Because the version stays in hand from the look-up to the answer, a version
//! that is replaced meanwhile still answers the requests that found it.
//!
//! This room knows nothing of engines, JSON, protobuf or HTTP.

mod admin;
mod bind;
mod error;
mod spec;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use salver_tensor::{Signature, Tensor};

pub use admin::{ModelConfig, ModelStatus, Models, State, VersionPolicy, VersionStatus};
pub use bind::{bind_inputs, check_dims, check_input_names, check_inputs, dtype_name, select_outputs};
pub use error::{Blame, Code, Error};
pub use salver_tensor::DEFAULT_SIGNATURE;
pub use spec::{ModelId, ModelName, ModelSpec, Version, VersionChoice};

/// A future that can be sent to another thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Finds models.
pub trait Predictor: Debug + Send + Sync + 'static {
    /// Finds the version that a specification means and holds it. Waits for the network at most, never for a model to
    /// load.
    ///
    /// # Errors
    /// [`Code::NotFound`] when no such version is available, [`Code::InvalidArgument`] for a label that the model does not
    /// have.
    fn resolve<'a>(&'a self, spec: &'a ModelSpec) -> BoxFuture<'a, Result<Arc<dyn Target>, Error>>;
}

/// One version of one model, held in hand: it stays loaded until this is dropped, so do not keep it longer than one
/// request.
pub trait Target: Debug + Send + Sync + 'static {
    /// The model and the version.
    fn id(&self) -> &ModelId;

    /// The signatures, in a stable order.
    fn signatures(&self) -> &[Arc<Signature>];

    /// The engine or peer that answers, for metadata: `onnx`, `tensorflow`, ...
    fn platform(&self) -> &str;

    /// Answers one call. Dropping the future takes the call out of the queue if it has not started.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when the inputs do not fit the signature or the engine cannot compute with them;
    /// [`Code::Unavailable`] or [`Code::ResourceExhausted`] at once when a queue is full or the deadline is foreseen to pass;
    /// [`Code::DeadlineExceeded`] when it passed before the model ran.
    fn predict(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Answer, Error>>;

    /// The signature of that name; an empty name means [`DEFAULT_SIGNATURE`].
    ///
    /// # Errors
    /// [`Code::FailedPrecondition`] with TensorFlow Serving's text, or what [`Target::refusal`] says.
    fn signature(&self, name: &str) -> Result<&Arc<Signature>, Error> {
        let name = if name.is_empty() { DEFAULT_SIGNATURE } else { name };
        self.signatures().iter().find(|signature| &**signature.name() == name).ok_or_else(|| {
            let missing = || {
                let text = format!("Serving signature key \"{name}\" not found.");
                Error::client(Code::FailedPrecondition, text)
            };
            self.refusal(name).unwrap_or_else(missing)
        })
    }

    /// Why the signature of that name cannot be run, if the model has it and it cannot.
    fn refusal(&self, name: &str) -> Option<Error> {
        let _ = name;
        None
    }
}

/// One question to one version of a model.
#[derive(Debug, Clone)]
pub struct Call {
    /// One of [`Target::signatures`].
    pub signature: Arc<Signature>,
    /// All inputs of the signature, in its order.
    pub inputs: Vec<Tensor>,
    /// Positions in the signature's outputs, in the order wanted.
    pub outputs: Vec<usize>,
    /// When the answer is of no more use, as far as the caller has said so.
    pub deadline: Option<Instant>,
    /// Who asks, and how urgently.
    pub asker: Asker,
}

/// Who asks, and how urgently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// 1 (served first) to 9 (served last); what lies outside counts as the nearest.
    pub priority: u8,
    /// Equal for calls of one caller, who takes turns with others where the model is set up so. 0 for nobody in particular.
    pub caller: u64,
}

/// Nobody in particular, with the usual priority of 5.
impl Default for Asker {
    fn default() -> Asker {
        Asker { priority: 5, caller: 0 }
    }
}

/// What a model answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The outputs asked for, in the order asked for.
    pub outputs: Vec<Tensor>,
    /// How long the call waited and ran.
    pub phases: Phases,
    /// The version that answered, where that may be another than the target's: a server far away may have replaced it.
    pub version: Option<Version>,
}

/// Where the time of one call went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// From submission to the start of the run.
    pub queue: Duration,
    /// The run of the model, for the whole batch that the call was part of.
    pub run: Duration,
}
