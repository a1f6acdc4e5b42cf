//! The engine of ONNX Runtime: its library is found and loaded at run time.
//!
//! This room knows nothing of queues, versions or wire formats. ONNX files go to the library as they are, graphs of
//! imported models as ONNX messages. What the library says of a model is trusted for computing and nothing else: element
//! types, dimensions and the kinds of inputs and outputs are read from the file.
//!
//! | decision | why |
//! |---|---|
//! | the library is loaded once, at the first load of a model, and never unloaded | it keeps threads and static state |
//! | the library is not opened unless the environment tells it to report nothing | it calls its maker as soon as it is set up |
//! | a file is looked at before it is loaded | the system's loader ends the process on a library that was cut off |
//! | threads of a run wait actively for their next share of it, and sleep between runs | a run of several threads would take up to half as long again, or spin on the cores of the neighbours |
//! | small models have a session of the library's per lane, others share one | runs of one session meet at its locks; weights are there once |
//! | inputs are lent, large outputs are taken over | copies would cost as much as some models |
//! | divisions of whole numbers are guarded, and in parts refused unless by constants | the library ends the process on the least number by -1 |
//! | strings are passed as bytes | they need not be UTF-8 |
//! | sequences, maps, optional values and sparse tensors are refused at load, by name | clients could not be answered |

mod divide;
mod elf;
mod error;
mod ffi;
mod library;
mod message;
mod model;
mod operators;
mod options;

use std::num::NonZeroUsize;
use std::sync::Arc;

use salver_engine::{Engine, Error, ErrorKind, Format, Library, LoadOptions, Model, ModelSource, Precision};
use salver_graph::Graph;

pub use ffi::prepare_process;
pub use library::{TESTED, environment};
pub use operators::supports_in;

/// The engine. Clones share nothing but what belongs to the process: its one copy of the library.
#[derive(Debug, Clone)]
pub struct OnnxRuntimeEngine {
    library: Library,
}

impl OnnxRuntimeEngine {
    /// The engine with its library there. The library is looked for when the first model is loaded.
    pub fn new(library: Library) -> OnnxRuntimeEngine {
        OnnxRuntimeEngine { library }
    }

    /// Loads a graph, as [`Engine::load`] does a file. Inputs have the names of their values, outputs those that the graph
    /// has for them; there is one signature, and its inputs and outputs are sorted by name. A graph that was quantised is
    /// loaded with [`Precision::Int8`] just as any other.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load_graph(&self, graph: &Graph, options: &LoadOptions) -> Result<Arc<dyn Model>, Error> {
        if !matches!(options.precision, Precision::F32 | Precision::Int8) {
            return Err(not_in(options.precision));
        }
        let runtime = library::runtime(&self.library)?;
        Ok(Arc::new(model::from_graph(&runtime, graph, options)?))
    }
}

fn not_in(precision: Precision) -> Error {
    Error::new(ErrorKind::Unsupported, format!("ONNX Runtime does not compute in {precision}"))
}

impl Engine for OnnxRuntimeEngine {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn supports(&self, format: Format) -> bool {
        format == Format::Onnx
    }

    /// Whether the library can be found. It may still be one that cannot be loaded.
    fn is_present(&self) -> bool {
        self.library.locate().is_ok()
    }

    fn open(&self) -> Result<(), Error> {
        library::runtime(&self.library).map(drop)
    }

    fn load(&self, source: &ModelSource, options: &LoadOptions) -> Result<Arc<dyn Model>, Error> {
        let place = || source.path.display().to_string();
        if source.format != Format::Onnx {
            let message = format!("{} is not a format of ONNX Runtime", source.format);
            return Err(Error::new(ErrorKind::Unsupported, message).at(place()));
        }
        if options.precision != Precision::F32 {
            return Err(not_in(options.precision).at(place()));
        }
        let runtime = library::runtime(&self.library)?;
        Ok(Arc::new(model::from_file(&runtime, &source.path, options)?))
    }

    /// Runs happen on the calling thread, with the model's own threads beside it: there is nothing to enter.
    fn enter(&self, _threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        body();
    }
}
