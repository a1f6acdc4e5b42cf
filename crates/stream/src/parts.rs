//! What a pipeline is put together from.

use std::fmt;
use std::sync::Arc;

use salver_predict::{ModelSpec, Predictor};
use salver_records::{Sink, Source};

use crate::{Mapping, Windows};

/// Calls a worker's body on a thread where models run, and returns when it does. A worker calls this once and then works
/// inside. The simplest one is `Arc::new(|body| body())`.
pub type Enter = Arc<dyn Fn(&mut (dyn FnMut() + Send)) + Send + Sync>;

/// What a pipeline is put together from.
pub struct Parts {
    /// Where records come from.
    pub source: Box<dyn Source>,
    /// Where answers, dead letters and changes of state go.
    pub sink: Box<dyn Sink>,
    /// Where answers of the shadow go; needed exactly where [`crate::Config::shadow`] is set. Written one by one.
    pub shadow_sink: Option<Box<dyn Sink>>,
    /// What finds models, here or elsewhere.
    pub predictor: Arc<dyn Predictor>,
    /// The model that answers.
    pub model: ModelSpec,
    /// Records to tensors and back.
    pub mapping: Arc<dyn Mapping>,
    /// The state of windows, if the model needs one.
    pub windows: Option<Box<dyn Windows>>,
    /// How workers come to where models run.
    pub enter: Enter,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("source", &self.source)
            .field("sink", &self.sink)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}
