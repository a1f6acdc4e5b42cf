//! A loaded model and its sessions.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use salver_engine::{Error, ErrorKind, LoadOptions, Model};
use salver_tensor::{Signature, Tensor};
use salver_tensorflow::import::Outline;

use crate::plan::{Origin, Run, Wanted, plan};
use crate::sys::{Call, Memory, Session, TensorFlow, Value};
use crate::{config, failure, files};

/// A model that TensorFlow holds. All its sessions share it.
#[derive(Debug)]
pub(crate) struct TensorFlowModel {
    signatures: Vec<Arc<Signature>>,
    refused: Vec<(Arc<str>, Error)>,
    shared: Arc<Shared>,
    n_bytes: u64,
}

#[derive(Debug)]
struct Shared {
    session: Session,
    runs: Vec<Run>,
    /// A run that changes state holds it alone: within one, TensorFlow reads and writes variables in steps.
    turn: RwLock<()>,
    /// Whether a tensor that was fetched may be a variable's memory, which a later run changes in place.
    in_place: bool,
}

/// Loads a SavedModel's graph. Blocks.
pub(crate) fn load_saved_model(
    tensorflow: TensorFlow,
    path: &Path,
    options: &LoadOptions,
) -> Result<TensorFlowModel, Error> {
    let folder = files::folder_of(path);
    let outline = files::saved_model(folder, &options.saved_model_tags)?;
    let config = config::config(options.threads, options.n_lanes);
    let session = tensorflow
        .load_saved_model(folder, &options.saved_model_tags, &config)
        .map_err(|error| failure::of_load(&error))?;
    model(session, outline, files::n_bytes(folder))
}

/// Loads a frozen graph. Blocks.
pub(crate) fn load_frozen(
    tensorflow: TensorFlow,
    path: &Path,
    options: &LoadOptions,
) -> Result<TensorFlowModel, Error> {
    let (outline, graph) = files::frozen(path)?;
    let config = config::config(options.threads, options.n_lanes);
    let session = tensorflow.load_graph(&graph, &config).map_err(|error| failure::of_load(&error))?;
    let mut model = model(session, outline, graph.len() as u64)?;
    match model.refused.pop() {
        Some((_, error)) => Err(error),
        None => Ok(model),
    }
}

fn model(mut session: Session, outline: Outline, n_bytes: u64) -> Result<TensorFlowModel, Error> {
    let Outline { signatures: outlines, refused, has_reference_variables, .. } = outline;
    let refused = refused.into_iter().map(|(name, error)| (Arc::from(name), failure::of_reading(&error)));
    let mut refused: Vec<(Arc<str>, Error)> = refused.collect();
    let (mut signatures, mut runs) = (Vec::new(), Vec::new());
    for outline in outlines {
        match plan(&mut session, &outline) {
            Ok((signature, run)) => {
                signatures.push(Arc::new(signature));
                runs.push(run);
            }
            Err(error) => refused.push((outline.name.into(), error)),
        }
    }
    if signatures.is_empty() {
        let none = || Error::new(ErrorKind::InvalidModel, "the model has no signature that can be run");
        return Err(refused.into_iter().next().map_or_else(none, |(name, error)| in_signature(&name, error)));
    }
    let in_place = has_reference_variables && runs.iter().any(|run| run.changes_state);
    let shared = Arc::new(Shared { session, runs, turn: RwLock::new(()), in_place });
    Ok(TensorFlowModel { signatures, refused, shared, n_bytes })
}

fn in_signature(name: &str, error: Error) -> Error {
    let place = match error.location() {
        Some(place) => format!("signature '{name}': {place}"),
        None => format!("signature '{name}'"),
    };
    error.at(place)
}

impl Model for TensorFlowModel {
    fn signatures(&self) -> &[Arc<Signature>] {
        &self.signatures
    }

    fn refused(&self) -> &[(Arc<str>, Error)] {
        &self.refused
    }

    fn session(&self) -> Result<Box<dyn salver_engine::Session>, Error> {
        Ok(Box::new(TensorFlowSession { shared: Arc::clone(&self.shared) }))
    }

    fn enter(&self, _threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        body();
    }

    // TensorFlow runs on the thread that calls.
    fn is_entered(&self) -> bool {
        true
    }

    // Its graph is not looked at.
    fn has_loops(&self) -> bool {
        true
    }

    fn n_bytes(&self) -> u64 {
        self.n_bytes
    }
}

struct TensorFlowSession {
    shared: Arc<Shared>,
}

/// The right to run, given back when the results are the caller's own.
enum Turn<'a> {
    Alone { _guard: RwLockWriteGuard<'a, ()> },
    Reading { _guard: RwLockReadGuard<'a, ()> },
    Free,
}

impl Shared {
    fn turn(&self, run: &Run) -> Turn<'_> {
        if run.changes_state {
            Turn::Alone { _guard: self.turn.write().unwrap_or_else(PoisonError::into_inner) }
        } else if self.in_place {
            Turn::Reading { _guard: self.turn.read().unwrap_or_else(PoisonError::into_inner) }
        } else {
            Turn::Free
        }
    }

    fn fetch(&self, run: &Run, inputs: &[Tensor], call: Call) -> Result<Vec<Tensor>, Error> {
        // A variable may keep the memory that it is assigned; what belongs to a request is not kept.
        let to = if run.changes_state { Memory::Copied } else { Memory::Shared };
        let from = if self.in_place { Memory::Copied } else { Memory::Shared };
        let value = |at: &usize| Value::new(self.session.tensorflow(), &inputs[*at], to);
        let values = run.feeds.iter().map(value).collect::<Result<Vec<Value>, _>>();
        let values = values.map_err(|error| failure::of_run(&error))?;
        let _turn = self.turn(run);
        let results = self.session.run(call, &values).and_then(|results| {
            results.into_iter().map(|value| value.into_tensor(from)).collect::<Result<Vec<Tensor>, _>>()
        });
        results.map_err(|error| failure::of_run(&error))
    }
}

impl salver_engine::Session for TensorFlowSession {
    fn run(&mut self, signature: usize, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, Error> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidInput, message);
        let run =
            self.shared.runs.get(signature).ok_or_else(|| invalid(format!("no signature {signature}")))?;
        if inputs.len() != run.n_inputs {
            return Err(invalid(format!("{} inputs, expected {}", inputs.len(), run.n_inputs)));
        }
        let wanted = run.wanted(outputs);
        let fetched = match wanted {
            Wanted::All => self.shared.fetch(run, inputs, run.all)?,
            Wanted::One(at) => self.shared.fetch(run, inputs, run.single[at])?,
            Wanted::Nothing => Vec::new(),
        };
        let output = |at: &usize| {
            let origin = run.outputs.get(*at).ok_or_else(|| invalid(format!("no output {at}")))?;
            let found = match (origin, wanted) {
                (Origin::Input(at), _) => inputs.get(*at),
                (Origin::Fetch(_), Wanted::One(_)) => fetched.first(),
                (Origin::Fetch(at), _) => fetched.get(*at),
            };
            found.cloned().ok_or_else(|| Error::new(ErrorKind::Internal, "an output was not fetched"))
        };
        outputs.iter().map(output).collect()
    }
}
