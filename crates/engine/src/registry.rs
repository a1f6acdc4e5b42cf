//! The engines of one process.

use std::sync::Arc;

use crate::{Engine, Error, ErrorKind, LoadOptions, Model, ModelSource};

/// The engines that are there, in order of preference.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    engines: Vec<Arc<dyn Engine>>,
}

impl Registry {
    /// A registry of these engines, the preferred first.
    pub fn new(engines: Vec<Arc<dyn Engine>>) -> Registry {
        Registry { engines }
    }

    /// The engines, the preferred first.
    pub fn engines(&self) -> &[Arc<dyn Engine>] {
        &self.engines
    }

    /// Loads a model with the first engine that supports its format. Blocks as [`Engine::load`] does.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when no engine does, else the engine's own error.
    pub fn load(&self, source: &ModelSource, options: &LoadOptions) -> Result<Arc<dyn Model>, Error> {
        let engine = self.engines.iter().find(|engine| engine.supports(source.format)).ok_or_else(|| {
            let names: Vec<_> = self.engines.iter().map(|engine| engine.name()).collect();
            Error::new(
                ErrorKind::Unsupported,
                format!("{} cannot be loaded by any engine here ({})", source.format, names.join(", ")),
            )
            .at(source.path.display().to_string())
        })?;
        engine.load(source, options)
    }
}
