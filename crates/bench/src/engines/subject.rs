//! The sides that are measured: each engine through Salver, and called directly.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use salver_engine::{
    DEFAULT_SIGNATURE, Engine, Format, Library, LoadOptions, Model, ModelSource, Precision, Session,
};
use salver_engine_graph::{GraphEngine, Parts};
use salver_engine_onnxruntime::OnnxRuntimeEngine;
use salver_engine_openvino::OpenVinoEngine;
use salver_engine_rten::RtenEngine;
use salver_engine_tensorflow::TensorFlowEngine;
use salver_tensor::Tensor;

use super::{Made, Places};
use crate::direct::{self, Direct};

/// An engine in a precision, as a column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Side {
    /// The head of its column.
    pub(crate) label: &'static str,
    /// The engine's name, and that of its library's folder.
    pub(crate) engine: &'static str,
    pub(crate) precision: Precision,
}

impl Side {
    /// All, in the order of the columns.
    pub(crate) const ALL: [Side; 5] = [
        Side { label: "embedded", engine: "embedded", precision: Precision::F32 },
        Side { label: "ONNX Runtime", engine: "onnxruntime", precision: Precision::F32 },
        Side { label: "OpenVINO", engine: "openvino", precision: Precision::F32 },
        Side { label: "TensorFlow", engine: "tensorflow", precision: Precision::F32 },
        Side { label: "OpenVINO bf16", engine: "openvino", precision: Precision::Bf16 },
    ];

    /// The folder with its library: the newest by name. `None` for the engine that needs none.
    ///
    /// # Errors
    /// When there is no such folder.
    fn folder(&self, places: &Places) -> Result<Option<PathBuf>> {
        if self.engine == "embedded" {
            return Ok(None);
        }
        let runtimes = places.runtimes.as_ref().context("SALVER_RUNTIMES is not set")?;
        let of_engine = runtimes.join(self.engine);
        let entries = std::fs::read_dir(&of_engine).with_context(|| of_engine.display().to_string())?;
        let newest = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).max();
        newest.map(Some).with_context(|| format!("{} is empty", of_engine.display()))
    }

    /// The engine as the binary joins it, for SavedModels.
    pub(crate) fn engine(&self, places: &Places) -> Result<Arc<dyn Engine>> {
        let folder = self.folder(places)?;
        let library = || Library::at(folder.as_deref().unwrap_or(Path::new("")));
        let parts = match self.engine {
            "tensorflow" => return Ok(Arc::new(TensorFlowEngine::new(library()))),
            "onnxruntime" => {
                let engine = OnnxRuntimeEngine::new(library());
                let own = engine.clone();
                let load = move |graph: &_, options: &_| own.load_graph(graph, options);
                Parts::new(self.engine, salver_engine_onnxruntime::supports_in, load).of_engine(engine)
            }
            "openvino" => {
                let engine = OpenVinoEngine::new(library());
                let own = engine.clone();
                let load = move |graph: &_, options: &_| own.load_graph(graph, options);
                Parts::new(self.engine, salver_engine_openvino::supports_in, load)
                    .of_engine(engine)
                    .with_precisions(&[Precision::F32, Precision::Bf16])
            }
            _ => Parts::new(
                RtenEngine::new().name(),
                salver_engine_rten::supports_in,
                salver_engine_rten::load_graph,
            ),
        };
        Ok(Arc::new(GraphEngine::new(parts)))
    }

    fn direct(&self, model: &Made, places: &Places, threads: NonZeroUsize) -> Result<Direct> {
        let folder = self.folder(places)?;
        let folder = folder.as_deref().unwrap_or(Path::new(""));
        match self.engine {
            "embedded" => direct::rten::open(&model.onnx, threads),
            "onnxruntime" => direct::onnxruntime::open(folder, &model.onnx, threads),
            "openvino" => direct::openvino::open(folder, &model.onnx, threads, self.precision),
            "tensorflow" => {
                let inputs = std::slice::from_ref(&model.input_node);
                direct::tensorflow::open(folder, &model.saved_model, inputs, &model.output_nodes, threads)
            }
            other => bail!("{other} is not called directly"),
        }
    }
}

/// A model that an engine loaded, run as a lane runs it.
pub(crate) struct Through {
    model: Arc<dyn Model>,
    session: Box<dyn Session>,
    threads: NonZeroUsize,
    signature: usize,
    /// In the order of their names.
    outputs: Vec<usize>,
}

impl Through {
    /// Loads a SavedModel.
    pub(crate) fn load(
        engine: &dyn Engine,
        saved_model: &Path,
        precision: Precision,
        threads: NonZeroUsize,
    ) -> Result<Through> {
        let source = ModelSource { path: saved_model.to_path_buf(), format: Format::SavedModel };
        let mut options = LoadOptions::default();
        options.threads = threads;
        options.precision = precision;
        let model = engine.load(&source, &options)?;
        let signatures = model.signatures();
        let signature = signatures.iter().position(|signature| &**signature.name() == DEFAULT_SIGNATURE);
        let signature = signature.context("no signature of the usual name")?;
        let specs = signatures[signature].outputs();
        let mut outputs: Vec<usize> = (0..specs.len()).collect();
        outputs.sort_by_key(|&at| &specs[at].name);
        let session = model.session()?;
        Ok(Through { model, session, threads, signature, outputs })
    }

    /// Runs several times; see [`timed`].
    pub(crate) fn run(&mut self, inputs: &[Tensor], runs: usize) -> Result<(Vec<f64>, Vec<Tensor>)> {
        let Through { model, session, threads, signature, outputs } = self;
        let mut result = Err(anyhow!("the engine did not run"));
        model.enter(*threads, &mut || {
            result = timed(runs, || Ok(session.run(*signature, inputs, outputs)?));
        });
        result
    }
}

/// The seconds of each run, and the last answer.
pub(crate) fn timed(
    runs: usize,
    mut run: impl FnMut() -> Result<Vec<Tensor>>,
) -> Result<(Vec<f64>, Vec<Tensor>)> {
    let mut times = Vec::with_capacity(runs);
    let mut answer = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        // The answer before is dropped within the time, as whoever takes it would.
        answer = run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok((times, answer))
}

/// One engine with one model.
pub(crate) struct Subject {
    pub(crate) side: Side,
    pub(crate) through: Through,
    pub(crate) direct: Option<Direct>,
}

/// The most characters of an error that go into a report.
const MAX_ERROR: usize = 240;

/// An error in one line: libraries write whole pages.
fn short(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_ERROR) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

/// Loads the model with every engine that takes it; what the others say goes to `refusals`.
pub(crate) fn open(
    model: &Made,
    places: &Places,
    threads: NonZeroUsize,
    refusals: &mut Vec<String>,
) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for side in Side::ALL {
        let through = side
            .engine(places)
            .and_then(|engine| Through::load(&*engine, &model.saved_model, side.precision, threads));
        let mut refuse = |what: &str, error: &anyhow::Error| {
            let line = format!("{}, {}{what}: {}", model.title, side.label, short(error));
            println!("{line}");
            refusals.push(line);
        };
        let through = match through {
            Ok(through) => through,
            Err(error) => {
                refuse("", &error);
                continue;
            }
        };
        let direct = match side.direct(model, places, threads) {
            Ok(direct) => Some(direct),
            Err(error) => {
                refuse(", called directly", &error);
                None
            }
        };
        subjects.push(Subject { side, through, direct });
    }
    subjects
}
