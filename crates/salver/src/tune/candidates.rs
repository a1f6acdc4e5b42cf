//! Which engines are tried, and who says what is right.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::bail;
use salver_engine::{Engine, Error, ErrorKind, LoadOptions, ModelSource, Precision, Registry};
use salver_tensor::{Signature, Tensor};
use salver_tune::{Candidate, Request};
use tempfile::TempDir;

/// Requests with names, for the measuring of ranges.
pub(super) type Asked = Vec<(String, Vec<(String, Tensor)>)>;

/// The name that the engine which is compiled in goes by in settings and tables.
pub(super) const EMBEDDED: &str = "embedded";

/// Engines in the order in which they are preferred where they are as good: what needs least comes first.
const SIMPLEST: [&str; 4] = [EMBEDDED, "onnxruntime", "openvino", "tensorflow"];

/// Engines in the order in which they are asked what is right: a TensorFlow model means what TensorFlow makes of it.
const REFERENCES: [&str; 3] = ["tensorflow", EMBEDDED, "onnxruntime"];

/// What there is to choose from.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) candidates: Vec<Candidate>,
    pub(super) references: Vec<usize>,
    /// Engines that would take the model and are not installed.
    pub(super) absent: Vec<&'static str>,
    /// Where the ranges for int8 are until the choice is made.
    pub(super) ranges: Option<Arc<Ranges>>,
}

/// The ranges that values of the model take in the requests, measured when first needed.
#[derive(Debug)]
pub(super) struct Ranges {
    folder: TempDir,
    source: ModelSource,
    asked: Arc<OnceLock<Asked>>,
    made: OnceLock<Result<PathBuf, Error>>,
}

/// The engines of the registry that take the model, in every precision that is allowed.
///
/// # Errors
/// When one that is named is unknown, or none is left.
pub(super) fn find(
    registry: &Registry,
    source: &ModelSource,
    named: &[String],
    allowed: &[Precision],
    asked: &Arc<OnceLock<Asked>>,
) -> anyhow::Result<Found> {
    let known: Vec<&str> = registry.names();
    if let Some(unknown) = named.iter().find(|name| !known.contains(&canonical(name))) {
        bail!("--engines has '{unknown}' (expected {})", known.join(", "));
    }
    let wanted = |name: &str| named.is_empty() || named.iter().any(|one| canonical(one) == name);
    let ranges = match allowed.contains(&Precision::Int8) {
        true => Some(Arc::new(Ranges {
            folder: tempfile::tempdir()?,
            source: source.clone(),
            asked: Arc::clone(asked),
            made: OnceLock::new(),
        })),
        false => None,
    };
    let mut found = Found { candidates: Vec::new(), references: Vec::new(), absent: Vec::new(), ranges };
    for precision in [Precision::F32].into_iter().chain(allowed.iter().copied()) {
        let mut options = LoadOptions::default();
        options.precision = precision;
        for engine in registry.engines().iter().filter(|engine| engine.takes(source.format, &options)) {
            let name = engine.name();
            if !engine.is_present() && !found.absent.contains(&name) {
                found.absent.push(name);
            }
            let is_new =
                !found.candidates.iter().any(|one| (&*one.engine, one.precision) == (name, precision));
            if engine.is_present() && wanted(name) && is_new {
                let load = loader(engine, source, &options, found.ranges.clone());
                found.candidates.push(Candidate { engine: name.into(), precision, load });
            }
        }
    }
    found.candidates.sort_by_key(|one| (rank(&SIMPLEST, &one.engine), one.precision));
    if found.candidates.is_empty() {
        bail!(
            "{}: no engine that is installed takes {}{}",
            super::shown(&source.path),
            source.format,
            found.hint()
        );
    }
    found.references = references(&found.candidates);
    Ok(found)
}

fn canonical(name: &str) -> &str {
    if name == "rten" { EMBEDDED } else { name }
}

/// The positions of those that may say what is right, first of all those that are asked first.
fn references(candidates: &[Candidate]) -> Vec<usize> {
    let mut all: Vec<usize> =
        (0..candidates.len()).filter(|&at| candidates[at].precision == Precision::F32).collect();
    all.sort_by_key(|&at| rank(&REFERENCES, &candidates[at].engine));
    all
}

/// The place of a name in a list, or behind it.
fn rank(order: &[&str], name: &str) -> usize {
    order.iter().position(|one| *one == name).unwrap_or(order.len())
}

fn loader(
    engine: &Arc<dyn Engine>,
    source: &ModelSource,
    options: &LoadOptions,
    ranges: Option<Arc<Ranges>>,
) -> salver_tune::Load {
    let (engine, source, options) = (Arc::clone(engine), source.clone(), options.clone());
    Arc::new(move |threads: NonZeroUsize, n_lanes: NonZeroUsize| {
        let mut options = options.clone();
        (options.threads, options.n_lanes) = (threads, n_lanes);
        if options.precision == Precision::Int8 {
            options.ranges = ranges.as_ref().map(|ranges| ranges.path()).transpose()?;
        }
        // On a thread that ends, as in the server: what an importer freed goes back with it.
        std::thread::scope(|scope| {
            let load = scope.spawn(|| engine.load(&source, &options));
            load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

impl Found {
    /// One line on what is not installed, of those engines that are asked for.
    pub(super) fn absent_line(&self, named: &[String]) -> Option<String> {
        let wanted = |name: &&&str| named.is_empty() || named.iter().any(|one| canonical(one) == **name);
        let absent: Vec<&str> = self.absent.iter().filter(wanted).copied().collect();
        let commands: Vec<String> =
            absent.iter().map(|name| format!("salver runtime install {name}")).collect();
        match absent.is_empty() {
            true => None,
            false => Some(format!("not installed: {} ({})", absent.join(", "), commands.join("; "))),
        }
    }

    fn hint(&self) -> String {
        self.absent_line(&[]).map_or_else(String::new, |line| format!("; {line}"))
    }
}

impl Ranges {
    /// The file with the ranges, measured if they have not been.
    fn path(&self) -> Result<PathBuf, Error> {
        self.made.get_or_init(|| self.measure()).clone()
    }

    /// Takes the ranges of this file, unless some are there.
    pub(super) fn preset(&self, path: PathBuf) {
        self.made.get_or_init(|| Ok(path));
    }

    /// The file, if it was made.
    pub(super) fn made(&self) -> Option<&Path> {
        self.made.get().and_then(|made| made.as_deref().ok())
    }

    fn measure(&self) -> Result<PathBuf, Error> {
        let mut asked = self.asked.get().into_iter().flatten().cloned();
        let ranges = salver_engine_graph::calibrate(
            &self.source,
            &LoadOptions::default(),
            &crate::parts::calibration(),
            &mut || asked.next(),
        )?;
        let path = self.folder.path().join("ranges.json");
        let io = |error: std::io::Error| {
            Error::new(ErrorKind::Io, error.to_string()).at(path.display().to_string())
        };
        fs::write(&path, ranges.to_json()).map_err(io)?;
        Ok(path)
    }
}

/// The same requests with the names of their inputs.
pub(super) fn by_name(requests: &[Request], signatures: &[Arc<Signature>]) -> Asked {
    let named = |request: &Request| {
        let signature = signatures.iter().find(|signature| *signature.name() == request.signature)?;
        let names = signature.inputs().iter().map(|input| input.name.to_string());
        Some((request.signature.to_string(), names.zip(request.inputs.iter().cloned()).collect()))
    };
    requests.iter().filter_map(named).collect()
}
