//! Systems on which engines cannot be isolated: every load is refused.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;

use salver_engine::{Engine, Error, ErrorKind, Format, LoadOptions, Model, ModelSource, Registry};

use crate::Spawn;

/// An engine that would run in processes of its own, and refuses every model on this system.
#[derive(Debug, Clone)]
pub struct IsolatedEngine {
    inner: Arc<dyn Engine>,
}

impl IsolatedEngine {
    /// An engine that says what `inner` is, and loads nothing.
    #[expect(clippy::needless_pass_by_value, reason = "as on systems that start workers")]
    pub fn new(inner: Arc<dyn Engine>, _spawn: Spawn) -> IsolatedEngine {
        IsolatedEngine { inner }
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

    fn load(&self, source: &ModelSource, _options: &LoadOptions) -> Result<Arc<dyn Model>, Error> {
        let message = "engines run in processes of their own on Linux only";
        Err(Error::new(ErrorKind::Unsupported, message).at(source.path.display().to_string()))
    }

    fn enter(&self, _threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        body();
    }
}

/// Refuses to work: there are no worker processes on this system.
pub fn serve(_engines: &Registry) -> ExitCode {
    tracing::error!("engines run in processes of their own on Linux only");
    ExitCode::FAILURE
}
