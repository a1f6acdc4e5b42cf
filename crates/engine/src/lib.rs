//! What an inference engine is. An [`Engine`] loads a [`ModelSource`] into a [`Model`], which is shared and knows its
//! signatures; a [`Model`] makes [`Session`]s, one per thread that runs it; a session turns tensors into tensors.
//!
//! This room knows neither which engines exist nor anything asynchronous: everything here blocks, and callers own the
//! threads.

mod error;
mod library;
mod options;
mod registry;
mod source;

use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::sync::Arc;

use salver_tensor::{Signature, Tensor};

pub use error::{Error, ErrorKind};
pub use library::Library;
pub use options::{LoadOptions, Precision};
pub use registry::{Choice, Loaded, Registry};
pub use salver_tensor::DEFAULT_SIGNATURE;
pub use source::{Format, ModelSource};

/// Something that can load models of some formats.
pub trait Engine: Debug + Send + Sync + 'static {
    /// A short name for logs, metrics and settings, such as `rten`.
    fn name(&self) -> &'static str;

    /// Whether this engine loads models of this format at all.
    fn supports(&self, format: Format) -> bool;

    /// Whether this engine loads models of this format in this way. The default is an engine that computes as models were
    /// exported.
    fn takes(&self, format: Format, options: &LoadOptions) -> bool {
        self.supports(format) && options.precision == Precision::F32
    }

    /// Whether what the engine needs on this machine is there, as far as looking at files tells. Loading may still fail.
    /// Cheap. The default is an engine that needs nothing.
    fn is_present(&self) -> bool {
        true
    }

    /// Opens what the engine needs on this machine; loading a model does so by itself. Blocks for as long as that takes.
    /// The default is an engine that needs nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when it is not there or cannot be opened; the message is one line that says what to do.
    fn open(&self) -> Result<(), Error> {
        Ok(())
    }

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

/// A loaded model: weights, shared by all its sessions.
pub trait Model: Debug + Send + Sync + 'static {
    /// The signatures, in an order that stays the same for the life of the model.
    fn signatures(&self) -> &[Arc<Signature>];

    /// Signatures that the model has and that cannot be run here, with the reason. The others are not harmed.
    fn refused(&self) -> &[(Arc<str>, Error)] {
        &[]
    }

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

    /// Whether how long a run takes may follow from what is in the inputs and not from their dimensions alone, as where a loop
    /// counts to a number that it is given. Nobody can foresee such a run, so it is never made where it would hold others
    /// up. The default is a model without loops.
    fn has_loops(&self) -> bool {
        false
    }

    /// Bytes that the weights take in memory, about.
    fn n_bytes(&self) -> u64;

    /// Ends runs that are under way if the engine can: they and later ones fail with [`ErrorKind::Unavailable`]. Called
    /// when a model is unloaded and its runs did not end in time. Does not block on those runs. The default is an engine
    /// that cannot.
    fn abandon(&self) {}
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
