//! Runs imported models: TensorFlow SavedModels and frozen graphs, Keras files.
//!
//! A model is read and imported to graphs, one per signature. Each node is placed on the engine that this one is given
//! ([`Parts`]) or on the host, where it runs exactly and plainly (`kernels`); what lies together becomes one part. A
//! session runs the parts in order. What a signature changes is kept here, per loaded model. Models are also made `int8`
//! here, ONNX files among them, by ranges that [`calibrate`] measures.
//!
//! This room knows no concrete engine, no queues, versions or wire formats.

mod model;
mod parts;
mod place;
mod plan;
mod range;
mod ranges;
mod read;
mod run;
mod shapes;

use std::sync::Arc;

use salver_engine::{Engine, Error, ErrorKind, Format, LoadOptions, Model, ModelSource, Precision};

pub use model::GraphModel;
use model::Shapes;
pub use parts::Parts;
pub use ranges::{Ranges, Request, calibrate};
pub use read::import;

/// The engine of imported models. A thread that enters the engine of the parts has entered this one.
#[derive(Debug, Clone)]
pub struct GraphEngine {
    parts: Parts,
}

impl GraphEngine {
    /// An engine that runs what it can on `parts`.
    pub fn new(parts: Parts) -> GraphEngine {
        GraphEngine { parts }
    }

    /// Loads a model that is imported already.
    ///
    /// # Errors
    /// When no signature of it can be run.
    pub fn load_imported(&self, model: salver_graph::Model) -> Result<Arc<dyn Model>, Error> {
        Ok(Arc::new(GraphModel::new(model, Shapes::Checked, &self.parts, &LoadOptions::default())?))
    }
}

impl Engine for GraphEngine {
    fn name(&self) -> &'static str {
        self.parts.name()
    }

    fn supports(&self, format: Format) -> bool {
        matches!(format, Format::SavedModel | Format::FrozenGraph | Format::Keras)
    }

    fn takes(&self, format: Format, options: &LoadOptions) -> bool {
        // What an ONNX file says is run as it is by engines of their own; only what has to be changed comes here.
        let is_changed = format == Format::Onnx && options.precision == Precision::Int8;
        (self.supports(format) || is_changed) && self.parts.has(options.precision)
    }

    fn is_present(&self) -> bool {
        self.parts.is_present()
    }

    fn open(&self) -> Result<(), Error> {
        self.parts.open()
    }

    fn load(&self, source: &ModelSource, options: &LoadOptions) -> Result<Arc<dyn Model>, Error> {
        self.parts.open()?;
        let model = read::import(source, options)?;
        let shapes = match source.format {
            Format::Keras => Shapes::Checked,
            _ => Shapes::Any,
        };
        match GraphModel::new(model, shapes, &self.parts, options) {
            Ok(model) => Ok(Arc::new(model)),
            Err(error) => Err(read::in_source(&source.path, error)),
        }
    }
}

/// The nodes of a graph that would run on the host and not on this engine, as operator and name.
pub fn on_the_host(graph: &salver_graph::Graph, engine: &Parts) -> Vec<(String, String)> {
    let supports = |node: &salver_graph::Node| engine.supports(graph, node);
    let rules = place::Rules {
        graph,
        ranges: &range::ranges(graph),
        supports: &supports,
        refused: &std::collections::HashSet::new(),
    };
    place::host_nodes(&rules, graph.body())
}

/// The same error as engines say it.
fn engine_error(error: &salver_graph::Error) -> Error {
    let kind = match error.kind() {
        salver_graph::ErrorKind::Unsupported => ErrorKind::Unsupported,
        salver_graph::ErrorKind::TooLarge => ErrorKind::ResourceExhausted,
        _ => ErrorKind::InvalidModel,
    };
    let made = Error::new(kind, error.message());
    match error.place() {
        Some(place) => made.at(place),
        None => made,
    }
}
