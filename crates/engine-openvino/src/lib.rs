//! The engine of OpenVINO: its libraries are found and loaded at run time, and run ONNX files and graphs on the CPU.
//!
//! This room knows nothing of queues, versions or wire formats. OpenVINO's CPU plugin computes in fewer element types than
//! ONNX has and does not say when that matters, so models go through [`salver_graph::Graph`], which knows the element type
//! of every value, and only what OpenVINO was measured to compute right is handed over ([`supports_in`]):
//!
//! | OpenVINO | what is done |
//! |---|---|
//! | computes in bfloat16 by itself where the CPU has it | the precision is always set, and read back |
//! | keeps `int64` as `int32` | inputs outside 32 bits are refused in runs; constants, and arithmetic that may leave 32 bits, at load |
//! | computes some integer operators by way of `float32` | refused at load for integers |
//! | keeps `float64` as `float32` | refused at load |
//! | keeps `float16` as `float32` | allowed: inputs widen exactly, outputs round once |
//! | compares whole numbers by way of `float32` | allowed where one of the two is surely small |
//! | does not wrap 8-bit numbers in arithmetic | refused at load |
//! | looks at few positions and sizes before it uses them | taken only if they are constants or come from shapes; positions that a request gives are looked at first, in a dimension that is fixed, and answer as wrong inputs |
//! | takes what is not a number for greater than others | comparisons are written the other way round |
//! | gives a number for what is none in some operators ([`DROPS_NAN`]), and none for infinity in `Gelu` | allowed |
//! | finds a largest element where there are no elements | refused in runs, or at load |
//! | keeps its last error's text for the whole process | shown only if it names a node of the model |
//! | says nothing when a run on the caller's thread fails, gives older results, and later uses memory that is gone | runs go to a thread of OpenVINO's, which tells; and to the caller's only where a run on the same shapes went well and nothing but shapes decides |
//! | has no string tensors and keeps other integers as `int32` | refused at load, by name |
//! | loads a library once, starts threads in it | it stays loaded; a second folder is refused |
//!
//! A run on a thread of OpenVINO's costs about 20 microseconds more than one on the caller's.
//!
//! Dimensions that are open stay open: the plugin chooses kernels for the shapes of each run and keeps the last ones it
//! chose, so the first run of a new batch size costs more than the next ones, and shapes that change with every run cost
//! something in each.

mod element;
mod elf;
mod entry;
mod exact;
mod facts;
mod file;
mod load;
mod model;
mod runtime;
mod said;
mod signature;
mod steady;
mod support;
mod sys;

use std::num::NonZeroUsize;
use std::sync::Arc;

use salver_engine::{Engine, Error, ErrorKind, Format, Library, LoadOptions, Model, ModelSource, Precision};
use salver_graph::Graph;

use facts::Facts;

pub use support::{DROPS_NAN, supports_in};

/// Versions of OpenVINO that this engine was tested with. Others are loaded with a warning.
pub const TESTED: &[&str] = &["2026.4.1"];

/// The engine. Holds where the library is; what is loaded belongs to the process.
#[derive(Debug, Clone)]
pub struct OpenVinoEngine {
    library: Library,
}

impl OpenVinoEngine {
    /// An engine whose library is looked for at the first load.
    pub fn new(library: Library) -> OpenVinoEngine {
        OpenVinoEngine { library }
    }

    /// Loads a graph, as [`Engine::load`] does a file. Inputs have the names of their values, outputs those that the graph
    /// has for them; there is one signature, and its inputs and outputs are sorted by name.
    ///
    /// Whoever asks has made sure by [`supports_in`] that OpenVINO computes the nodes right, and that `int64` values fit
    /// 32 bits; inputs are checked in every run. With [`Precision::Int8`] the graph says itself where it is quantised.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load_graph(&self, graph: &Graph, options: &LoadOptions) -> Result<Arc<dyn Model>, Error> {
        let runtime = runtime::Runtime::get(&self.library)?;
        let signature = signature::of_graph(graph)?;
        Ok(Arc::new(load::load(runtime, &Facts::new(graph), signature, support::MAX_DIM, options)?))
    }
}

impl Engine for OpenVinoEngine {
    fn name(&self) -> &'static str {
        "openvino"
    }

    fn supports(&self, format: Format) -> bool {
        format == Format::Onnx
    }

    fn takes(&self, format: Format, options: &LoadOptions) -> bool {
        self.supports(format) && matches!(options.precision, Precision::F32 | Precision::Bf16)
    }

    fn is_present(&self) -> bool {
        self.library.locate().is_ok()
    }

    fn open(&self) -> Result<(), Error> {
        runtime::Runtime::get(&self.library).map(|_| ())
    }

    fn load(&self, source: &ModelSource, options: &LoadOptions) -> Result<Arc<dyn Model>, Error> {
        let place = || source.path.display().to_string();
        if source.format != Format::Onnx {
            let message = format!("{} is not a format that OpenVINO is given here", source.format);
            return Err(Error::new(ErrorKind::Unsupported, message).at(place()));
        }
        let in_file = |error: Error| match error.location() {
            Some(inner) if !inner.starts_with(&place()) => {
                let inner = format!("{}: {inner}", place());
                error.at(inner)
            }
            Some(_) => error,
            None => error.at(place()),
        };
        // A file that cannot be read says so whether or not the library is there.
        let (graph, signature) = file::read(&source.path).map_err(in_file)?;
        let facts = Facts::new(&graph);
        let max_dim = exact::check(&facts).map_err(in_file)?;
        let runtime = runtime::Runtime::get(&self.library)?;
        Ok(Arc::new(load::load(runtime, &facts, signature, max_dim, options).map_err(in_file)?))
    }

    fn enter(&self, _threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        model::enter(body);
    }
}
