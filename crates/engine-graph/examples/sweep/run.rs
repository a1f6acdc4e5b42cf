//! Loads and runs one model, on a thread of its own that may panic or never end.

use std::fmt;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use salver_engine::{DEFAULT_SIGNATURE, Engine, Error, ErrorKind, LoadOptions, Model, ModelSource};
use salver_tensor::{Signature, Tensor, TensorSpec};

use crate::case::{Case, Named, Run, Stored};
use crate::compare;

/// Stack of a thread that loads.
const STACK: usize = 16 << 20;

/// What became of one model.
#[derive(Debug, Clone)]
pub(crate) enum Status {
    /// Every answer is TensorFlow's, but for this relative difference.
    Agrees(f64),
    /// Not loaded, with the reason, which names what is missing.
    Refused(String),
    /// Keras cannot read the file either; what happened instead.
    Unreadable(String),
    /// The answers differ by this much.
    Differs(f64, String),
    /// An error, a panic, or no end.
    Fails(String),
}

impl Status {
    pub(crate) fn is_fault(&self) -> bool {
        matches!(self, Status::Differs(..) | Status::Fails(_))
    }

    pub(crate) fn word(&self) -> &'static str {
        match self {
            Status::Agrees(_) => "agrees",
            Status::Refused(_) => "refused",
            Status::Unreadable(_) => "unreadable",
            Status::Differs(..) => "DIFFERS",
            Status::Fails(_) => "FAILS",
        }
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Status::Agrees(_) => "",
            Status::Refused(text) | Status::Unreadable(text) | Status::Fails(text) => text,
            Status::Differs(_, text) => text,
        }
    }

    pub(crate) fn distance(&self) -> Option<f64> {
        match self {
            Status::Agrees(distance) | Status::Differs(distance, _) => Some(*distance),
            _ => None,
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) family: String,
    pub(crate) case: String,
    pub(crate) format: String,
    pub(crate) status: Status,
    pub(crate) load: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { family, case, format, status, .. } = self;
        write!(f, "{:10} {format:10} {family}/{case}", status.word())?;
        if let Some(distance) = status.distance() {
            write!(f, " {distance:.1e}")?;
        }
        if !status.text().is_empty() {
            write!(f, ": {}", status.text())?;
        }
        Ok(())
    }
}

/// Every model of a case.
pub(crate) fn case(
    engine: &Arc<dyn Engine>,
    case: &Case,
    formats: &[String],
    patience: Duration,
) -> Vec<Outcome> {
    let wanted = |stored: &&Stored| formats.is_empty() || formats.contains(&stored.format);
    case.models.iter().filter(wanted).map(|stored| model(engine, case, stored, patience)).collect()
}

fn model(engine: &Arc<dyn Engine>, case: &Case, stored: &Stored, patience: Duration) -> Outcome {
    let (status, load) = guarded(engine, case, stored, patience);
    let status = match status {
        Status::Agrees(distance) => Status::Agrees(distance),
        other if stored.unread.is_some() => Status::Unreadable(other.text().to_owned()),
        Status::Refused(text) => match &case.refuse {
            Some(name) if stored.is_keras() && !text.contains(name) => {
                Status::Fails(format!("refused without naming {name}: {text}"))
            }
            _ => Status::Refused(text),
        },
        other => other,
    };
    let format = stored.format.clone();
    Outcome { family: case.family.clone(), case: case.name.clone(), format, status, load }
}

fn guarded(engine: &Arc<dyn Engine>, case: &Case, stored: &Stored, patience: Duration) -> (Status, Duration) {
    let (tell, told) = sync_channel(1);
    let (engine, folder, stored) = (Arc::clone(engine), case.folder.clone(), stored.clone());
    let work = move || {
        let started = Instant::now();
        let mut loaded = None;
        let tried = std::panic::catch_unwind(AssertUnwindSafe(|| {
            whole(&*engine, &folder, &stored, &mut || loaded = Some(started.elapsed()))
        }));
        let status = tried.unwrap_or_else(|payload| Status::Fails(format!("panicked: {}", said(&*payload))));
        // Nobody waits any more when the time is over.
        drop(tell.send((status, loaded.unwrap_or_else(|| started.elapsed()))));
    };
    let thread = std::thread::Builder::new().name("model".into()).stack_size(STACK).spawn(work);
    if let Err(error) = thread {
        return (Status::Fails(format!("no thread: {error}")), Duration::ZERO);
    }
    match told.recv_timeout(patience) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => {
            (Status::Fails(format!("no end within {} s", patience.as_secs())), patience)
        }
        Err(RecvTimeoutError::Disconnected) => (Status::Fails("the thread ended".into()), Duration::ZERO),
    }
}

fn said(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
}

/// Loads, runs everything in order on one session, and compares.
fn whole(engine: &dyn Engine, folder: &Path, stored: &Stored, loaded: &mut dyn FnMut()) -> Status {
    let model = ModelSource::find(&folder.join(&stored.path))
        .and_then(|source| engine.load(&source, &LoadOptions::default()));
    let model = match model {
        Ok(model) => model,
        Err(error) => return refusal(&error, &folder.join(&stored.path)),
    };
    loaded();
    let mut status = Status::Fails("not run".into());
    model.enter(NonZeroUsize::MIN, &mut || status = runs(&*model, folder, &stored.runs));
    status
}

/// `path` is left out of the text, so that equal reasons read equal.
fn refusal(error: &Error, path: &Path) -> Status {
    let text = error.to_string().replace(&format!("{}: ", path.display()), "");
    match error.kind() {
        ErrorKind::Unsupported => Status::Refused(text),
        kind => Status::Fails(format!("{kind:?}: {text}")),
    }
}

fn runs(model: &dyn Model, folder: &Path, runs: &[Run]) -> Status {
    let mut session = match model.session() {
        Ok(session) => session,
        Err(error) => return refusal(&error, folder),
    };
    let mut largest = 0.0_f64;
    for (i, run) in runs.iter().enumerate() {
        let prepared = match Prepared::new(model, run, folder) {
            Ok(prepared) => prepared,
            Err(text) => return Status::Fails(text),
        };
        let found = match session.run(prepared.signature, &prepared.inputs, &prepared.outputs) {
            Ok(found) => found,
            Err(error) => return refusal(&error, folder),
        };
        for (named, found) in run.outputs.iter().zip(&found) {
            let place = format!("run {i}, output {}", named.name);
            let expected = match named.read(folder) {
                Ok(expected) => expected,
                Err(error) => return Status::Fails(format!("{error:#}")),
            };
            match compare::distance(found, &expected) {
                Ok(distance) if distance <= compare::tolerance(expected.dtype()) => {
                    largest = largest.max(distance);
                }
                Ok(distance) => return Status::Differs(distance, place),
                Err(text) => return Status::Differs(f64::INFINITY, format!("{place}: {text}")),
            }
        }
    }
    Status::Agrees(largest)
}

/// A run in the model's own order.
struct Prepared {
    signature: usize,
    inputs: Vec<Tensor>,
    outputs: Vec<usize>,
}

impl Prepared {
    fn new(model: &dyn Model, run: &Run, folder: &Path) -> Result<Prepared, String> {
        let signatures = model.signatures();
        let wanted = run.signature.as_deref();
        let named = |name: &str| signatures.iter().position(|one| &**one.name() == name);
        let signature = match wanted {
            Some(name) => named(name),
            None if signatures.len() == 1 => Some(0),
            None => named(DEFAULT_SIGNATURE),
        };
        let names = || signatures.iter().map(|one| one.name().to_string()).collect::<Vec<_>>().join(", ");
        let signature = signature
            .ok_or_else(|| format!("no signature {}, only {}", wanted.unwrap_or("alone"), names()))?;
        let spec = &*signatures[signature];
        let inputs = inputs(spec, run, folder)?;
        let outputs = run
            .outputs
            .iter()
            .map(|named| {
                place(spec.outputs(), named, run.outputs.len())
                    .ok_or_else(|| missing("output", named, spec.outputs()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Prepared { signature, inputs, outputs })
    }
}

/// The inputs in the signature's order; each that is given must be there.
fn inputs(spec: &Signature, run: &Run, folder: &Path) -> Result<Vec<Tensor>, String> {
    let mut places: Vec<Option<&Named>> = vec![None; spec.inputs().len()];
    for named in &run.inputs {
        let i = place(spec.inputs(), named, run.inputs.len())
            .ok_or_else(|| missing("input", named, spec.inputs()))?;
        places[i] = Some(named);
    }
    places
        .into_iter()
        .zip(spec.inputs())
        .map(|(named, spec)| match named {
            Some(named) => {
                let tensor = named.read(folder).map_err(|error| format!("{error:#}"))?;
                accepts(spec, &tensor).map(|()| tensor)
            }
            None => spec.default.clone().ok_or_else(|| format!("input {} is not in the case", spec.name)),
        })
        .collect()
}

fn accepts(spec: &TensorSpec, tensor: &Tensor) -> Result<(), String> {
    if spec.dtype == tensor.dtype() && spec.dims.accepts(tensor.shape()) {
        return Ok(());
    }
    let (dtype, dims) = (tensor.dtype(), tensor.shape().dims());
    Err(format!("input {} is {} {}, expected {dtype} {dims:?}", spec.name, spec.dtype, spec.dims))
}

/// By name, or the only one.
fn place(specs: &[TensorSpec], named: &Named, n_wanted: usize) -> Option<usize> {
    match specs.iter().position(|spec| named.is_called(&spec.name)) {
        None if specs.len() == 1 && n_wanted == 1 => Some(0),
        found => found,
    }
}

fn missing(what: &str, named: &Named, specs: &[TensorSpec]) -> String {
    let names: Vec<&str> = specs.iter().map(|spec| &*spec.name).collect();
    format!("no {what} {}, only {}", named.name, names.join(", "))
}
