//! What an inference engine is. An [`Engine`] loads a [`ModelSource`] into a [`Model`], which is shared and knows its
//! signatures; a [`Model`] makes [`Session`]s, one per thread that runs it; a session turns tensors into tensors.
//!
//! This room knows neither which engines exist nor anything asynchronous: everything here blocks, and callers own the
//! threads.

mod error;
mod registry;
mod source;

use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::sync::Arc;

use salver_tensor::{Signature, Tensor};

pub use error::{Error, ErrorKind};
pub use registry::Registry;
pub use salver_tensor::DEFAULT_SIGNATURE;
pub use source::{Format, ModelSource};

/// Something that can load models of some formats.
pub trait Engine: Debug + Send + Sync + 'static {
    /// A short name for logs, metrics and settings, such as `rten`.
    fn name(&self) -> &'static str;

    /// Whether this engine loads models of this format at all.
    fn supports(&self, format: Format) -> bool;

    /// Loads a model. Blocks for as long as reading and preparing takes; call it on a thread made for that.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`] or [`ErrorKind::Unsupported`] say what in the model is at fault and by which name;
    /// [`ErrorKind::Io`] may pass when tried again.
    fn load(&self, source: &ModelSource, options: &LoadOptions) -> Result<Arc<dyn Model>, Error>;

    /// Calls `body` on a thread where sessions of this engine run without handing work to another thread, and
    /// returns when `body` does. A thread that runs sessions calls this once and then works inside `body`: entering
    /// costs far more than running a small model. `threads` is the number of threads that one run may use.
    ///
    /// Nested calls for several engines are allowed. The default calls `body` where it is.
    fn enter(&self, threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        let _ = threads;
        body();
    }
}

/// How a model is to be loaded.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LoadOptions {}

/// A loaded model: weights, shared by all its sessions.
pub trait Model: Debug + Send + Sync + 'static {
    /// The signatures, in an order that stays the same for the life of the model.
    fn signatures(&self) -> &[Arc<Signature>];

    /// Makes a session for one thread.
    ///
    /// # Errors
    /// When the engine cannot set up its scratch memory.
    fn session(&self) -> Result<Box<dyn Session>, Error>;

    /// As [`Engine::enter`], for the engine that loaded this model.
    fn enter(&self, threads: NonZeroUsize, body: &mut (dyn FnMut() + Send));

    /// Whether the calling thread is inside [`Model::enter`] or [`Engine::enter`] of this model's engine, so that
    /// [`Session::run`] costs no hand-over here.
    fn is_entered(&self) -> bool;

    /// Bytes that the weights take in memory, about.
    fn n_bytes(&self) -> u64;
}

/// What one thread needs to run a model.
pub trait Session: Send {
    /// Runs one signature and blocks until the result is there.
    ///
    /// `signature` is a position in [`Model::signatures`]. `inputs` are all its inputs in the signature's order, with
    /// element types and dimensions that the signature accepts. `outputs` are positions in the signature's outputs,
    /// in the order in which the results are wanted; the result has as many tensors.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when these inputs cannot be computed with, for instance because they lie outside the
    /// range that the engine computes exactly in; any other kind is the model's or the engine's fault.
    fn run(&mut self, signature: usize, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, Error>;
}
