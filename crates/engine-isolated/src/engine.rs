//! The engine, its models and their sessions, as rooms above see them.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::Arc;

use salver_engine::{Engine, Error, Format, LoadOptions, Model, ModelSource, Session};
use salver_tensor::{Signature, Tensor};

use crate::Spawn;
use crate::message::{Load, Loaded};
use crate::worker::{Link, Worker};

/// An engine whose models live in worker processes, one each.
///
/// A load starts the process, and its model's drop ends it and waits until it is gone. When a process ends by itself, its
/// runs fail with [`ErrorKind::Unavailable`](salver_engine::ErrorKind::Unavailable), and so do others at once until the model
/// is loaded again. State that a model keeps between runs is lost with its process.
#[derive(Debug, Clone)]
pub struct IsolatedEngine {
    inner: Arc<dyn Engine>,
    spawn: Spawn,
}

impl IsolatedEngine {
    /// An engine that is `inner` in worker processes. In this process `inner` is asked only for its name and for what it
    /// loads; the workers must know an engine of the same name.
    pub fn new(inner: Arc<dyn Engine>, spawn: Spawn) -> IsolatedEngine {
        IsolatedEngine { inner, spawn }
    }
}

impl Engine for IsolatedEngine {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn supports(&self, format: Format) -> bool {
        self.inner.supports(format)
    }

    fn takes(&self, format: Format, options: &LoadOptions) -> bool {
        self.inner.takes(format, options)
    }

    fn is_present(&self) -> bool {
        self.inner.is_present()
    }

    /// Fails with [`ErrorKind::Unavailable`](salver_engine::ErrorKind::Unavailable) when the process ends before the model
    /// is loaded.
    fn load(&self, source: &ModelSource, options: &LoadOptions) -> Result<Arc<dyn Model>, Error> {
        let load = Load { engine: self.name().to_owned(), source: source.clone(), options: options.clone() };
        let (worker, loaded) = Worker::start(self.spawn.clone(), load)?;
        Ok(Arc::new(IsolatedModel { worker: Arc::new(worker), loaded }))
    }

    /// Calls `body` where it is, and the thread does not count as entered: whoever enters all engines also does other work,
    /// as the threads of a network do, and a process that hangs would hold it up for ever. Threads that are made for the runs
    /// of one model enter that model.
    fn enter(&self, _threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        body();
    }
}

/// A model in a worker process.
#[derive(Debug)]
struct IsolatedModel {
    worker: Arc<Worker>,
    loaded: Loaded,
}

impl Model for IsolatedModel {
    fn signatures(&self) -> &[Arc<Signature>] {
        &self.loaded.signatures
    }

    fn refused(&self) -> &[(Arc<str>, Error)] {
        &self.loaded.refused
    }

    fn session(&self) -> Result<Box<dyn Session>, Error> {
        let link = Some(self.worker.connect()?);
        Ok(Box::new(IsolatedSession { worker: Arc::clone(&self.worker), link }))
    }

    fn enter(&self, _threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        enter_here(body);
    }

    fn is_entered(&self) -> bool {
        ENTERED.get() > 0
    }

    // A worker is for what may hang.
    fn has_loops(&self) -> bool {
        true
    }

    fn abandon(&self) {
        self.worker.abandon();
    }

    fn n_bytes(&self) -> u64 {
        self.loaded.n_bytes
    }
}

/// A session in a worker process. It finds the next process by itself when one ends.
struct IsolatedSession {
    worker: Arc<Worker>,
    link: Option<Link>,
}

impl Session for IsolatedSession {
    fn run(&mut self, signature: usize, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, Error> {
        self.worker.run(&mut self.link, signature, inputs, outputs)
    }
}

thread_local! {
    /// How many calls of [`Model::enter`] the thread is inside of. Any thread runs a session at the same cost, since the engine's own
    /// threads are in the worker; but rooms above count on a thread that knows whether it is made for runs.
    static ENTERED: Cell<usize> = const { Cell::new(0) };
}

/// Runs `body` as entered, also when it panics.
fn enter_here(body: &mut (dyn FnMut() + Send)) {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            ENTERED.set(ENTERED.get() - 1);
        }
    }
    ENTERED.set(ENTERED.get() + 1);
    let _leave = Leave;
    body();
}
