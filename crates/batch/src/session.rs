//! Sessions that outlive a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use salver_engine::{Error, ErrorKind, Model, Session};
use salver_tensor::Tensor;

/// A session that is made when it is first needed, and again after it panicked.
#[derive(Default)]
pub(crate) struct Runner(Option<Box<dyn Session>>);

impl Runner {
    pub(crate) fn new(session: Box<dyn Session>) -> Runner {
        Runner(Some(session))
    }

    /// Runs the session; a panic is an [`ErrorKind::Internal`] error.
    pub(crate) fn run(
        &mut self,
        model: &dyn Model,
        signature: usize,
        inputs: &[Tensor],
        outputs: &[usize],
    ) -> Result<Vec<Tensor>, Error> {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let session = match &mut self.0 {
                Some(session) => session,
                none => none.insert(model.session()?),
            };
            session.run(signature, inputs, outputs)
        }));
        let results = caught.unwrap_or_else(|panic| {
            self.0 = None;
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Error::new(ErrorKind::Internal, format!("the engine panicked: {text}")))
        })?;
        if results.len() == outputs.len() {
            return Ok(results);
        }
        let message = format!("the engine gave {} outputs, expected {}", results.len(), outputs.len());
        Err(Error::new(ErrorKind::Internal, message))
    }
}

/// The sessions of runs on calling threads.
pub(crate) struct Pool(Vec<Mutex<Runner>>);

impl Pool {
    pub(crate) fn new(n_sessions: usize) -> Pool {
        Pool((0..n_sessions).map(|_| Mutex::default()).collect())
    }

    /// A session that nobody uses, or `None`. Never blocks.
    pub(crate) fn try_take(&self) -> Option<MutexGuard<'_, Runner>> {
        self.0.iter().find_map(|runner| match runner.try_lock() {
            Ok(runner) => Some(runner),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }

    /// The first session; blocks while it is used.
    pub(crate) fn take(&self) -> Option<MutexGuard<'_, Runner>> {
        Some(self.0.first()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
