//! The engine of TensorFlow itself: its C API, in shared libraries that are found and loaded at run time.
//!
//! TensorFlow reads, initialises and runs SavedModels and frozen graphs whole; only signatures are read here, by the
//! rules of the importer, so that a model looks the same from outside whichever engine runs it. All lanes of a model share
//! one session of TensorFlow's, and with it the weights.
//!
//! This room knows nothing of queues, versions or wire formats.

mod config;
mod failure;
mod files;
mod library;
mod model;
mod plan;
mod sys;

use std::sync::Arc;

use salver_engine::{Engine, Error, ErrorKind, Format, Library, LoadOptions, Model, ModelSource};

pub use library::{TESTED, version};
pub use sys::prepare_process;

/// The engine of TensorFlow. Its libraries are loaded into the process once, when the first model needs them, and stay.
#[derive(Debug, Clone)]
pub struct TensorFlowEngine {
    library: Library,
}

impl TensorFlowEngine {
    /// An engine of the libraries in the folder that `library` finds: `libtensorflow_framework.so.2` and
    /// `libtensorflow_cc.so.2`, as TensorFlow's wheels for CPUs have them.
    pub fn new(library: Library) -> TensorFlowEngine {
        TensorFlowEngine { library }
    }
}

impl Engine for TensorFlowEngine {
    fn name(&self) -> &'static str {
        "tensorflow"
    }

    fn supports(&self, format: Format) -> bool {
        matches!(format, Format::SavedModel | Format::FrozenGraph)
    }

    fn is_present(&self) -> bool {
        self.library.locate().is_ok()
    }

    fn open(&self) -> Result<(), Error> {
        library::open(&self.library).map(|_| ())
    }

    fn load(&self, source: &ModelSource, options: &LoadOptions) -> Result<Arc<dyn Model>, Error> {
        if !self.takes(source.format, options) {
            let message = format!("TensorFlow does not load {} in {}", source.format, options.precision);
            return Err(Error::new(ErrorKind::Unsupported, message).at(source.path.display().to_string()));
        }
        let tensorflow = library::open(&self.library)?;
        let loaded = match source.format {
            Format::SavedModel => model::load_saved_model(tensorflow, &source.path, options),
            _ => model::load_frozen(tensorflow, &source.path, options),
        };
        match loaded {
            Ok(model) => Ok(Arc::new(model)),
            Err(error) => Err(failure::in_source(&source.path, error)),
        }
    }
}
