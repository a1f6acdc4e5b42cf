//! The engines, and how they are joined.

use std::path::PathBuf;
use std::sync::Arc;

use salver_engine::{Engine, Error, ErrorKind, Library, Precision, Registry};
use salver_engine_graph::{GraphEngine, Parts};
use salver_engine_onnxruntime::OnnxRuntimeEngine;
use salver_engine_openvino::OpenVinoEngine;
use salver_engine_rten::{RtenEngine, load_graph, supports_in};
use salver_engine_tensorflow::TensorFlowEngine;
use salver_graph::Graph;
use salver_runtime::{Kind, Runtimes};

/// All engines, the preferred first. Those of native libraries are looked for in `runtimes` when a model needs them.
///
/// Each engine but TensorFlow's takes ONNX files as they are and everything else through the graph. A thread that enters rten
/// is where the parts of imported models run, too.
pub(crate) fn engines(runtimes: &Runtimes) -> Registry {
    let onnxruntime = OnnxRuntimeEngine::new(library(runtimes, Kind::OnnxRuntime));
    let openvino = OpenVinoEngine::new(library(runtimes, Kind::OpenVino));
    let tensorflow = TensorFlowEngine::new(library(runtimes, Kind::TensorFlow));
    Registry::new(vec![
        Arc::new(onnxruntime.clone()),
        Arc::new(GraphEngine::new(onnxruntime_parts(onnxruntime))),
        Arc::new(openvino.clone()),
        Arc::new(GraphEngine::new(openvino_parts(openvino))),
        Arc::new(RtenEngine::new()),
        Arc::new(GraphEngine::new(rten())),
        Arc::new(tensorflow),
    ])
}

fn onnxruntime_parts(engine: OnnxRuntimeEngine) -> Parts {
    let own = engine.clone();
    Parts::new(engine.name(), salver_engine_onnxruntime::supports_in, move |graph, options| {
        own.load_graph(graph, options)
    })
    .of_engine(engine)
    .with_precisions(&[Precision::F32, Precision::Int8])
}

fn openvino_parts(engine: OpenVinoEngine) -> Parts {
    let own = engine.clone();
    Parts::new(engine.name(), salver_engine_openvino::supports_in, move |graph, options| {
        own.load_graph(graph, options)
    })
    .of_engine(engine)
    .with_precisions(&[Precision::F32, Precision::Bf16, Precision::Int8])
}

fn rten() -> Parts {
    Parts::new(RtenEngine::new().name(), supports_in, load_graph)
}

/// Where the ranges of a model's values are measured: on the engine that is always there.
pub(crate) fn calibration() -> Parts {
    rten()
}

/// The folder of a library, or the one line that says how to get it.
fn library(runtimes: &Runtimes, kind: Kind) -> Library {
    let runtimes = runtimes.clone();
    Library::new(move || -> Result<PathBuf, Error> {
        let found = runtimes.find(kind, None);
        found.map(|found| found.folder).map_err(|error| Error::new(ErrorKind::Unsupported, error.to_string()))
    })
}

/// Libraries that are there and cannot be used, which `auto` passes over: what is wrong with each.
pub(crate) fn unusable(runtimes: &Runtimes) -> Vec<String> {
    let problem = |kind| {
        runtimes.find(kind, None).err().filter(|error| error.kind() != salver_runtime::ErrorKind::NotFound)
    };
    Kind::ALL.into_iter().filter_map(problem).map(|error| error.to_string()).collect()
}

/// The nodes of a graph that run on the host and not on the embedded engine, as operator and name.
pub(crate) fn on_the_host(graph: &Graph) -> Vec<(String, String)> {
    salver_engine_graph::on_the_host(graph, &rten())
}
