//! A model as one candidate loaded it, ready to be run.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use salver_engine::{Error, ErrorKind, Model, Session};
use salver_tensor::Signature;

use crate::feed::Batch;
use crate::{Candidate, MemoryUse, Meter, Sharing};

/// Memory that a loaded model added to the process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Weights, and what its runs hold on to.
    pub model: u64,
    /// Pages of files: the engine's library, which all models of the engine share, and weights that are mapped.
    pub files: u64,
}

impl Footprint {
    /// Both.
    pub fn total(self) -> u64 {
        self.model.saturating_add(self.files)
    }

    /// The same, and what has grown since.
    fn grown(self, before: MemoryUse, after: MemoryUse) -> Footprint {
        Footprint {
            model: self.model.saturating_add(after.own.saturating_sub(before.own)),
            files: self.files.saturating_add(after.files.saturating_sub(before.files)),
        }
    }
}

/// A model, and a session for each of its lanes.
pub(crate) struct Loaded {
    /// The position among the candidates.
    pub(crate) candidate: usize,
    pub(crate) sharing: Sharing,
    pub(crate) model: Arc<dyn Model>,
    pub(crate) sessions: Vec<Box<dyn Session>>,
    pub(crate) load_time: Duration,
    /// Batch sizes that it ran once.
    pub(crate) sizes: Vec<NonZeroUsize>,
    /// What it added to the process, as far as that was looked at; `None` where the system does not say.
    pub(crate) footprint: Option<Footprint>,
    /// What the process held when the footprint was last looked at.
    mark: Option<MemoryUse>,
}

/// A batch, with the positions that one model has for its names.
#[derive(Debug, Clone)]
pub(crate) struct Bound<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) signature: usize,
    pub(crate) outputs: Vec<usize>,
}

impl Loaded {
    /// Loads and makes the sessions. Blocks.
    pub(crate) fn load(
        position: usize,
        candidate: &Candidate,
        sharing: Sharing,
        meter: &dyn Meter,
    ) -> Result<Loaded, Error> {
        let (before, started) = (meter.memory(), meter.now());
        let load = || (candidate.load)(sharing.threads, sharing.lanes);
        let model = crate::trial::caught(load)?;
        let sessions = (0..sharing.lanes.get()).map(|_| model.session()).collect::<Result<_, _>>()?;
        let load_time = meter.now().saturating_sub(started);
        let (sizes, footprint) = (Vec::new(), before.map(|_| Footprint::default()));
        let mut loaded = Loaded {
            candidate: position,
            sharing,
            model,
            sessions,
            load_time,
            sizes,
            footprint,
            mark: before,
        };
        loaded.settle(meter);
        Ok(loaded)
    }

    /// From here on, what is added to the process is this model's.
    pub(crate) fn mark(&mut self, meter: &dyn Meter) {
        self.mark = meter.memory();
    }

    /// Up to here, what was added was this model's.
    pub(crate) fn settle(&mut self, meter: &dyn Meter) {
        let now = meter.memory();
        let grown = |((footprint, before), now): ((Footprint, _), _)| footprint.grown(before, now);
        self.footprint = self.footprint.zip(self.mark).zip(now).map(grown);
        self.mark = now;
    }

    /// The signature of this name, if the names of its inputs and outputs are those that the reference has.
    pub(crate) fn signature(&self, reference: &Signature) -> Result<(usize, &Arc<Signature>), Error> {
        let name = reference.name();
        let unsupported = |message: String| Error::new(ErrorKind::Unsupported, message);
        if let Some((_, error)) = self.model.refused().iter().find(|(refused, _)| refused == name) {
            return Err(unsupported(format!("signature '{name}': {error}")));
        }
        let signatures = self.model.signatures();
        let found = signatures.iter().enumerate().find(|(_, signature)| signature.name() == name);
        let (at, signature) = found.ok_or_else(|| unsupported(format!("no signature '{name}'")))?;
        for (kind, own, expected) in [
            ("inputs", signature.inputs(), reference.inputs()),
            ("outputs", signature.outputs(), reference.outputs()),
        ] {
            let names = |specs: &[salver_tensor::TensorSpec]| {
                specs.iter().map(|spec| &*spec.name).collect::<Vec<_>>().join(", ")
            };
            let (own, expected) = (names(own), names(expected));
            if own != expected {
                let message = format!("signature '{name}' has the {kind} {own}, in the reference {expected}");
                return Err(unsupported(message));
            }
        }
        Ok((at, signature))
    }

    /// The batches with this model's positions.
    pub(crate) fn bind<'a>(&self, batches: &'a [Batch]) -> Result<Vec<Bound<'a>>, Error> {
        let bind = |batch: &'a Batch| {
            let signatures = self.model.signatures();
            let at = signatures.iter().position(|signature| *signature.name() == batch.signature);
            let at = at.ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, format!("no signature '{}'", batch.signature))
            })?;
            Ok(Bound { batch, signature: at, outputs: (0..signatures[at].outputs().len()).collect() })
        };
        batches.iter().map(bind).collect()
    }
}
