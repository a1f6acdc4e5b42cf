//! The engine that runs the numeric parts, as this room sees it.

use std::fmt;
use std::sync::Arc;

use salver_engine::{Engine, Error, ErrorKind, LoadOptions, Model, Precision};
use salver_graph::{Graph, Node};

type Supports = dyn Fn(&Graph, &Node) -> bool + Send + Sync;
type Load = dyn Fn(&Graph, &LoadOptions) -> Result<Arc<dyn Model>, Error> + Send + Sync;

/// An engine that takes graphs, as two functions of it.
#[derive(Clone)]
pub struct Parts {
    name: &'static str,
    supports: Arc<Supports>,
    load: Arc<Load>,
    engine: Option<Arc<dyn Engine>>,
    precisions: &'static [Precision],
}

impl Parts {
    /// `name` is for logs, metrics and settings.
    ///
    /// `supports` says whether the engine has this operator with these attributes. Element types are not asked about:
    /// float32, int32, bool and int64 that fits 32 bits are taken to be there.
    ///
    /// `load` loads a graph as a model with one signature, whose inputs are named as the graph's input values and whose
    /// outputs as the graph's outputs; it blocks and fails as [`salver_engine::Engine::load`] does.
    pub fn new(
        name: &'static str,
        supports: impl Fn(&Graph, &Node) -> bool + Send + Sync + 'static,
        load: impl Fn(&Graph, &LoadOptions) -> Result<Arc<dyn Model>, Error> + Send + Sync + 'static,
    ) -> Parts {
        Parts {
            name,
            supports: Arc::new(supports),
            load: Arc::new(load),
            engine: None,
            precisions: &[Precision::F32],
        }
    }

    /// The same, of an engine that needs something on this machine: `engine` says whether it is there, and opens it.
    #[must_use]
    pub fn of_engine(self, engine: impl Engine) -> Parts {
        Parts { engine: Some(Arc::new(engine)), ..self }
    }

    /// The same, and it computes in these precisions. The default is [`Precision::F32`] alone.
    #[must_use]
    pub fn with_precisions(self, precisions: &'static [Precision]) -> Parts {
        Parts { precisions, ..self }
    }

    /// No engine: everything runs on the host.
    pub fn none() -> Parts {
        let load = |_: &Graph, _: &LoadOptions| {
            Err(Error::new(ErrorKind::Unsupported, "there is no engine for parts"))
        };
        Parts::new("host", |_, _| false, load)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn is_present(&self) -> bool {
        self.engine.as_ref().is_none_or(|engine| engine.is_present())
    }

    /// Opens what the engine needs. Without it, a part that it refuses could not be told from an engine that is not there.
    pub(crate) fn open(&self) -> Result<(), Error> {
        self.engine.as_ref().map_or(Ok(()), |engine| engine.open())
    }

    pub(crate) fn has(&self, precision: Precision) -> bool {
        self.precisions.contains(&precision)
    }

    pub(crate) fn supports(&self, graph: &Graph, node: &Node) -> bool {
        (self.supports)(graph, node)
    }

    pub(crate) fn load(&self, part: &Graph, options: &LoadOptions) -> Result<Arc<dyn Model>, Error> {
        (self.load)(part, options)
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("name", &self.name).finish_non_exhaustive()
    }
}
