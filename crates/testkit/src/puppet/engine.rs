//! An engine that is a closure.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use salver_engine::{Engine, Error, Format, LoadOptions, Model, ModelSource};

use super::enter_here;

type Load = dyn Fn(&ModelSource) -> Result<Arc<dyn Model>, Error> + Send + Sync;

/// An engine that supports every format and loads what a closure says. The closure may block, fail or panic, as
/// engines do.
#[derive(Clone)]
pub struct PuppetEngine {
    load: Arc<Load>,
}

impl PuppetEngine {
    /// An engine that loads by this closure.
    pub fn new<F>(load: F) -> PuppetEngine
    where
        F: Fn(&ModelSource) -> Result<Arc<dyn Model>, Error> + Send + Sync + 'static,
    {
        PuppetEngine { load: Arc::new(load) }
    }

    /// An engine that loads the same model from everywhere.
    pub fn of(model: Arc<dyn Model>) -> PuppetEngine {
        PuppetEngine::new(move |_| Ok(model.clone()))
    }
}

impl fmt::Debug for PuppetEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PuppetEngine").finish_non_exhaustive()
    }
}

impl Engine for PuppetEngine {
    fn name(&self) -> &'static str {
        "puppet"
    }

    fn supports(&self, _format: Format) -> bool {
        true
    }

    fn load(&self, source: &ModelSource, _options: &LoadOptions) -> Result<Arc<dyn Model>, Error> {
        (self.load)(source)
    }

    fn enter(&self, _threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        enter_here(body);
    }
}
