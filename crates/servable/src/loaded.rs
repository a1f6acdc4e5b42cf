use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use salver_batch::LaneSet;
use salver_engine::{Format, Model};
use salver_predict::{Answer, Error, ModelId};
use salver_tensor::Signature;

/// A loaded model: weights, lanes, counters. Dropping it blocks until its lanes have finished what they run.
pub struct Loaded {
    pub(crate) id: ModelId,
    pub(crate) lanes: LaneSet,
    pub(crate) model: Arc<dyn Model>,
    pub(crate) info: ServableInfo,
    pub(crate) counters: Vec<Counters>,
}

/// What is known of a loaded model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServableInfo {
    /// The engine that runs it.
    pub engine: &'static str,
    /// Where it was found.
    pub path: PathBuf,
    /// How it is stored.
    pub format: Format,
    /// Bytes that its weights take in memory, about.
    pub n_bytes: u64,
    /// When it was ready.
    pub loaded_at: Instant,
    /// How long that took, warm-up included.
    pub load_time: Duration,
}

/// What one signature of a loaded model has answered so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureSnapshot {
    /// Its name.
    pub name: Arc<str>,
    /// Calls that were answered.
    pub n_answered: u64,
    /// Calls that ended in an error.
    pub n_failed: u64,
    /// Time that answered calls waited, together.
    pub queue_time: Duration,
    /// Time that the runs of answered calls took, together; a batch counts for each of its calls.
    pub run_time: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    answered: AtomicU64,
    failed: AtomicU64,
    queue_nanos: AtomicU64,
    run_nanos: AtomicU64,
}

impl Counters {
    pub(crate) fn count(&self, result: &Result<Answer, Error>) {
        let add = |counter: &AtomicU64, time: Duration| {
            counter.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        match result {
            Ok(answer) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                add(&self.queue_nanos, answer.phases.queue);
                add(&self.run_nanos, answer.phases.run);
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Loaded {
    /// The model and the version.
    pub fn id(&self) -> &ModelId {
        &self.id
    }

    /// What is known of it.
    pub fn info(&self) -> &ServableInfo {
        &self.info
    }

    /// The signatures, in the model's order.
    pub fn signatures(&self) -> &[Arc<Signature>] {
        self.model.signatures()
    }

    /// What its lanes have done so far.
    pub fn lane_stats(&self) -> salver_batch::Snapshot {
        self.lanes.stats()
    }

    /// What its signatures have answered so far.
    pub fn signature_stats(&self) -> Vec<SignatureSnapshot> {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let of = |(signature, counters): (&Arc<Signature>, &Counters)| SignatureSnapshot {
            name: Arc::clone(signature.name()),
            n_answered: get(&counters.answered),
            n_failed: get(&counters.failed),
            queue_time: Duration::from_nanos(get(&counters.queue_nanos)),
            run_time: Duration::from_nanos(get(&counters.run_nanos)),
        };
        self.signatures().iter().zip(&self.counters).map(of).collect()
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("id", &self.id).field("info", &self.info).finish_non_exhaustive()
    }
}
