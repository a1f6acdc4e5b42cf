use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use salver_batch::{CostModel, LaneSet, Point, Policy, Verdict};
use salver_engine::{Format, Model, Precision};
use salver_predict::{Answer, Error, ModelId};
use salver_tensor::Signature;

use crate::trial::tell_of_change;

/// A loaded model: weights, lanes, counters. Dropping it blocks until its lanes have finished what they run. Requests hold
/// it, so what still runs then has nobody who waits for it; when it does not end in time it is abandoned
/// ([`salver_batch::Config::unload_grace`]).
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
    /// The version folder or file that was given.
    pub place: PathBuf,
    /// Where it was found there.
    pub path: PathBuf,
    /// How it is stored.
    pub format: Format,
    /// What it computes in.
    pub precision: Precision,
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

/// What runs of one signature cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureCosts {
    /// Its name.
    pub name: Arc<str>,
    /// By rows, ascending.
    pub points: Vec<Point>,
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

    /// Who is let in, who is next, and what runs together, as it is now.
    pub fn policy(&self) -> Arc<Policy> {
        self.lanes.policy()
    }

    /// Changes that; what waits stays. Rows of signatures that were found to depend on others when the version was loaded are not
    /// joined by any policy.
    ///
    /// # Errors
    /// When the settings contradict each other; nothing is changed then.
    pub fn set_policy(&self, policy: Policy) -> Result<(), String> {
        let before = self.lanes.policy();
        self.lanes.set_policy(policy).map_err(|error| error.to_string())?;
        tell_of_change(&self.lanes, &*self.model, &self.id, before.batching.as_ref());
        Ok(())
    }

    /// What runs cost, by signature: of the kind of requests that is known best.
    pub fn costs(&self) -> Vec<SignatureCosts> {
        let mut best: BTreeMap<usize, CostModel> = BTreeMap::new();
        let n_runs = |model: &CostModel| model.points().iter().map(|point| point.n_runs).sum::<usize>();
        for (signature, model) in self.lanes.costs() {
            let is_better = best.get(&signature).is_none_or(|known| n_runs(known) < n_runs(&model));
            if is_better {
                best.insert(signature, model);
            }
        }
        let of = |(at, model): (&usize, &CostModel)| {
            let name = Arc::clone(self.signatures().get(*at)?.name());
            Some(SignatureCosts { name, points: model.points().to_vec() })
        };
        best.iter().filter_map(of).collect()
    }

    /// Whether rows of a signature may be joined, as far as that was found out when the version was loaded: for callers that
    /// join rows themselves. [`Verdict::Never`] for a signature that it does not have.
    pub fn verdict(&self, signature: &str) -> Verdict {
        let position = self.signatures().iter().position(|one| &**one.name() == signature);
        position.map_or(Verdict::Never, |position| self.lanes.verdict(position))
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
